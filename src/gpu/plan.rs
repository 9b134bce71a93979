//! How a batch is cut to fit a device: into output buffers, and those into dispatches whose every binding, offset and
//! number of workgroups is within the limits. Pure arithmetic; no GPU in sight.
//!
//! In nearly all cases there is one buffer and one dispatch. Where the output or the rows exceed a binding, they are cut
//! at whole images. Only an image that exceeds a binding by itself, a size that cannot be aligned, or a codebook that
//! exceeds a binding falls back to pieces that the kernel `words` puts together.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::format::index::IndexWidth;
use crate::geometry::Geometry;
use crate::output::{Layout, OutputSpec};

/// Largest window of an output buffer: word numbers and byte sums stay far within 32 bits in the shader.
const MAX_WINDOW: u64 = 1 << 30;
/// Largest row, or part of one, that is bound: bit numbers stay within 32 bits in the shader.
const MAX_ROW_PART: u64 = 1 << 28;

/// Largest part of the resident rows or of a codebook that is searched: byte numbers stay within 32 bits in the languages that shaders become.
pub(super) const MAX_PART: u64 = (1 << 32) - 4;

/// What of a device's limits matters here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Largest storage binding in bytes.
    pub binding: u64,
    /// Largest buffer in bytes.
    pub buffer: u64,
    /// Alignment of storage bindings in bytes.
    pub alignment: u64,
    pub workgroups_per_dimension: u64,
    pub workgroup_size: u64,
}

/// What is decoded, and what by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub geometry: Geometry,
    /// Units of an image for the fast kernel; `None` if that cannot decode these images.
    pub fast_units: Option<u64>,
    /// Parts of the codebook, each bound by itself.
    pub codebook_parts: usize,
}

/// Where the rows of a batch are.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// In host memory: so many index rows.
    Rows { samples: usize, size: RowSize },
    /// In host memory: records of so many bytes each, whole words.
    Records(Vec<u64>),
    /// On the device.
    Resident(&'a [Image]),
}

impl Source<'_> {
    fn len(&self) -> usize {
        match self {
            Source::Rows { samples, .. } => *samples,
            Source::Records(lens) => lens.len(),
            Source::Resident(images) => images.len(),
        }
    }
}

/// The size of an index row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowSize {
    pub patches: usize,
    pub index_width: IndexWidth,
}

impl RowSize {
    /// Bytes on the device: the stored row, padded to a whole word.
    pub fn stride(&self) -> u64 {
        (self.index_width.row_len(self.patches) as u64).next_multiple_of(4)
    }
}

/// What the shader is told of an image, as `images` there.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct Image {
    /// The first word of its row in the part that holds it.
    pub first: u32,
    /// Words of its row.
    pub words: u32,
    /// Its place in the output window.
    pub place: u32,
    /// The part of the rows that holds its row.
    pub part: u32,
}

const IMAGE_LEN: u64 = size_of::<Image>() as u64;

/// A piece of a batch that gets an output buffer of its own.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Its bytes of the batch's output.
    pub output: Range<u64>,
    pub input: Input,
    pub passes: Vec<Pass>,
}

/// What is uploaded for a chunk.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// Bytes of the row buffer; none if rows are resident.
    pub len: u64,
    /// Where each sample's row goes in it.
    pub rows: Vec<RowPlace>,
    /// What the shader is told of images, where it cannot tell by itself.
    pub images: Vec<Image>,
}

/// Where the row of a sample of the batch starts in the row buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowPlace {
    pub sample: usize,
    pub offset: u64,
}

/// The rows that a pass reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Bytes of the row buffer that are bound.
    Uploaded(Range<u64>),
    /// A part of the resident rows.
    Resident(usize),
}

/// How a dispatch goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    /// Many values to an invocation, of whole images.
    Fast,
    /// A word to an invocation, of anything.
    Words,
}

/// One dispatch.
#[derive(Debug, Clone)]
pub(crate) struct Pass {
    pub kernel: Kernel,
    /// Bytes of the output buffer that are bound.
    pub window: Range<u64>,
    pub rows: Rows,
    /// Part of the codebook that is bound.
    pub codebook_part: usize,
    pub workgroups: [u32; 2],
    pub first_unit: u32,
    pub end_unit: u32,
    pub stride: u32,
    // The rest is for the kernel `words`, and for rows that `images` tells of; see the shaders.
    pub first_row: u32,
    pub first_value: u32,
    pub end_row: u32,
    pub merge: bool,
    pub first_sample: u32,
    pub samples: u32,
    pub part: u32,
    pub first_patch: u32,
    pub patches: u32,
}

/// Rows, or a part of one, that are bound together.
struct RowPart {
    /// Samples of the batch; for the fast kernel, places in the list of images.
    samples: Range<usize>,
    patches: Range<usize>,
    rows: Rows,
    /// Its number among those that `images` tells of.
    number: u32,
}

/// A size that the device cannot hold in any number of pieces.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooSmall {
    pub limit: &'static str,
    pub found: u64,
    pub needed: u64,
}

/// Spreads rows of these lengths, whole words, over as few parts of at most `most` bytes as their order allows, none
/// over two. Returns where each is, and the length of each part.
///
/// # Errors
/// [`TooSmall`] if a row is longer than a part can be.
pub(crate) fn spread(lens: impl Iterator<Item = u64>, most: u64) -> Result<(Vec<Image>, Vec<u64>), TooSmall> {
    let longest = most.min(MAX_ROW_PART);
    let (mut images, mut parts) = (Vec::new(), Vec::new());
    for len in lens {
        if len > longest {
            return Err(TooSmall { limit: "max_storage_buffer_binding_size", found: longest, needed: len });
        }
        match parts.last_mut() {
            Some(part) if *part + len <= most => *part += len,
            _ => parts.push(len),
        }
        let first = parts.last().map_or(0, |part| part - len) / 4;
        images.push(Image { first: first as u32, words: (len / 4) as u32, place: 0, part: parts.len() as u32 - 1 });
    }
    Ok((images, parts))
}

/// Most bytes of a part of the resident rows.
pub(crate) fn most_of_part(limits: &Limits) -> u64 {
    limits.binding.min(limits.buffer).min(MAX_PART)
}

/// Plans a batch.
pub(crate) fn plan(limits: &Limits, sizes: &Sizes, spec: &OutputSpec, source: &Source) -> Result<Vec<Chunk>, TooSmall> {
    let limits = Limits { binding: limits.binding.min(MAX_WINDOW) / limits.alignment * limits.alignment, ..*limits };
    let too_small = |limit, found, needed| Err(TooSmall { limit, found, needed });
    if limits.binding == 0 {
        return too_small("max_storage_buffer_binding_size", limits.binding, limits.alignment);
    }
    let image_len = spec.batch_len(&sizes.geometry, 1) as u64;
    let total = image_len * source.len() as u64;
    // What `images` has room for, which is bound as a whole.
    let most_images = limits.binding.min(limits.buffer) / IMAGE_LEN;
    // Rows are taken to be aligned and records to be as long as the longest, though few are.
    let (row, rows_per_buffer) = match source {
        Source::Rows { size, .. } => {
            // The smallest part of an index row that starts at a multiple of the alignment and at a whole index.
            let least_part = limits.alignment * size.index_width.bits() as u64;
            if size.stride() > limits.binding && least_part > limits.binding {
                return too_small("max_storage_buffer_binding_size", limits.binding, least_part);
            }
            let row = size.stride().next_multiple_of(limits.alignment);
            (row, limits.buffer / row)
        }
        Source::Records(lens) => {
            let longest = lens.iter().copied().max().unwrap_or(0);
            if longest > limits.binding {
                return too_small("max_storage_buffer_binding_size", limits.binding, longest);
            }
            let row = longest.max(1).next_multiple_of(limits.alignment);
            (row, most_images.min(limits.buffer / row))
        }
        Source::Resident(_) => (IMAGE_LEN, most_images),
    };
    // A piece of a buffer's size of larger images touches two of them.
    let least_rows = if image_len > limits.buffer { 2 } else { 1 };
    if rows_per_buffer < least_rows {
        return too_small("max_buffer_size", limits.buffer, row * least_rows);
    }
    let images_per_chunk = (limits.buffer / image_len.next_multiple_of(4)).min(rows_per_buffer);
    let chunk_len = match images_per_chunk {
        0 => limits.buffer / limits.alignment * limits.alignment,
        images => images * image_len,
    };
    if chunk_len == 0 {
        return too_small("max_buffer_size", limits.buffer, limits.alignment);
    }
    let planner = Planner { limits, sizes, spec, image_len };
    ranges(0..total, chunk_len)
        .map(|output| {
            let samples = (output.start / image_len) as usize..output.end.div_ceil(image_len) as usize;
            match source {
                Source::Rows { size, .. } => Ok(planner.rows(output, samples, *size)),
                Source::Records(lens) => planner.records(output, samples.clone(), &lens[samples]),
                Source::Resident(images) => {
                    let images = &images[samples.clone()];
                    Ok(planner.images(output, samples, images, |part| Rows::Resident(part as usize)))
                }
            }
        })
        .collect()
}

/// Cuts a range into ranges of `len` and a rest.
fn ranges(range: Range<u64>, len: u64) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    range.step_by(len.min(usize::MAX as u64) as usize).map(move |start| start..(start + len).min(end))
}

/// What all chunks of a batch share.
struct Planner<'a> {
    limits: Limits,
    sizes: &'a Sizes,
    spec: &'a OutputSpec,
    /// Bytes of an image of the output.
    image_len: u64,
}

impl Planner<'_> {
    /// Whether a chunk is one of whole images.
    fn is_whole(&self, output: &Range<u64>) -> bool {
        output.start.is_multiple_of(self.image_len) && output.end.is_multiple_of(self.image_len)
    }

    /// A chunk of images whose index rows are uploaded.
    fn rows(&self, output: Range<u64>, samples: Range<usize>, size: RowSize) -> Chunk {
        let row = size.stride();
        let rows_per_binding = if row > MAX_ROW_PART { 0 } else { self.limits.binding / row };
        let group = images_per_group(&self.limits, self.image_len, samples.len(), rows_per_binding);
        let (mut input, mut parts, mut passes) = (Input::default(), Vec::new(), Vec::new());
        // Windows are words; the last may run over the end of the chunk, whose buffer is rounded up.
        let len = (output.end - output.start).next_multiple_of(4);
        if let (Some(group), true) = (group, self.is_whole(&output)) {
            row_parts(size, &self.limits, samples, group, &mut input, &mut parts);
            let windows = ranges(0..len, if parts.len() > 1 { group as u64 * self.image_len } else { len });
            for (window, part) in windows.zip(&parts) {
                match self.sizes.fast_units {
                    Some(units) => self.fast(units, window, part, &mut passes),
                    None => self.words(&output, window, std::slice::from_ref(part), &mut passes),
                }
            }
        } else {
            let rows_per_part = (self.limits.binding / row) as usize;
            row_parts(size, &self.limits, samples, rows_per_part, &mut input, &mut parts);
            for window in ranges(0..len, self.limits.binding) {
                self.words(&output, window, &parts, &mut passes);
            }
        }
        Chunk { output, input, passes }
    }

    /// A chunk of images whose records are uploaded, one behind the other; each part of them begins aligned.
    fn records(&self, output: Range<u64>, samples: Range<usize>, lens: &[u64]) -> Result<Chunk, TooSmall> {
        let (images, parts) = spread(lens.iter().copied(), self.limits.binding)?;
        let mut end = 0;
        let bind = |len| {
            let start = u64::next_multiple_of(end, self.limits.alignment);
            end = start + len;
            start..end
        };
        let parts: Vec<Range<u64>> = parts.into_iter().map(bind).collect();
        let place = |(sample, image): (usize, &Image)| {
            let offset = parts[image.part as usize].start + u64::from(image.first) * 4;
            RowPlace { sample, offset }
        };
        let rows = samples.clone().zip(&images).map(place).collect();
        let mut chunk = self.images(output, samples, &images, |part| Rows::Uploaded(parts[part as usize].clone()));
        (chunk.input.len, chunk.input.rows) = (end, rows);
        Ok(chunk)
    }

    /// A chunk of images that the shader is told of, in rows several parts of which may have to be bound in turn.
    fn images(&self, output: Range<u64>, samples: Range<usize>, images: &[Image], rows: impl Fn(u32) -> Rows) -> Chunk {
        let part = |number: u32, samples: Range<usize>| RowPart {
            samples,
            patches: 0..self.sizes.geometry.patches(),
            rows: rows(number),
            number,
        };
        let group = images_per_group(&self.limits, self.image_len, images.len(), u64::MAX);
        let (mut told, mut passes) = (Vec::new(), Vec::new());
        let len = (output.end - output.start).next_multiple_of(4);
        if let (Some(group), true, Some(units)) = (group, self.is_whole(&output), self.sizes.fast_units) {
            let windows = ranges(0..len, if images.len() > group { group as u64 * self.image_len } else { len });
            for (window, images) in windows.zip(images.chunks(group)) {
                // Images of the same part are dispatched together.
                let mut order: Vec<_> =
                    images.iter().zip(0..).map(|(&image, place)| Image { place, ..image }).collect();
                order.sort_by_key(|image| image.part);
                for run in order.chunk_by(|a, b| a.part == b.part) {
                    let part = part(run[0].part, told.len()..told.len() + run.len());
                    self.fast(units, window.clone(), &part, &mut passes);
                    told.extend_from_slice(run);
                }
            }
        } else {
            told.extend_from_slice(images);
            for window in ranges(0..len, self.limits.binding) {
                // Those parts that the window's images need.
                let end = (output.start + window.end).min(output.end).div_ceil(self.image_len) as usize;
                let start = ((output.start + window.start) / self.image_len) as usize;
                let touched = &images[start - samples.start..end - samples.start];
                let mut touched: Vec<u32> = touched.iter().map(|image| image.part).collect();
                touched.sort_unstable();
                touched.dedup();
                let parts: Vec<RowPart> = touched.into_iter().map(|number| part(number, samples.clone())).collect();
                self.words(&output, window, &parts, &mut passes);
            }
        }
        Chunk { output, input: Input { images: told, ..Input::default() }, passes }
    }

    /// A window of whole images, whose rows are one part, by the fast kernel, with so many units to an image.
    fn fast(&self, units: u64, window: Range<u64>, part: &RowPart, passes: &mut Vec<Pass>) {
        let pass = Pass {
            kernel: Kernel::Fast,
            window,
            rows: part.rows.clone(),
            codebook_part: 0,
            workgroups: [0; 2],
            first_unit: 0,
            end_unit: 0,
            stride: 0,
            first_row: 0,
            first_value: 0,
            end_row: 0,
            merge: false,
            first_sample: part.samples.start as u32,
            samples: part.samples.len() as u32,
            part: part.number,
            first_patch: 0,
            patches: part.patches.len() as u32,
        };
        dispatches(&self.limits, units * part.samples.len() as u64, pass, passes);
    }

    /// A window of any bytes, from all parts that have something to give to it.
    fn words(&self, output: &Range<u64>, window: Range<u64>, parts: &[RowPart], passes: &mut Vec<Pass>) {
        let (g, spec) = (&self.sizes.geometry, self.spec);
        let size = spec.dtype.size() as u64;
        let (row_len, rows_per_image) = match spec.layout {
            Layout::Nhwc => (g.image_row_len() as u64, g.image_height() as u64),
            Layout::Nchw => (g.image_width() as u64, (g.image_height() * g.channels()) as u64),
        };
        // Values are counted from the first sample that the window touches, so that row numbers stay small.
        let first_value = (output.start + window.start) / size;
        let end_value = (output.start + window.end).min(output.end).div_ceil(size);
        let image_values = row_len * rows_per_image;
        let origin = first_value / image_values;
        let (first_value, end_value) = (first_value - origin * image_values, end_value - origin * image_values);
        let last_sample = origin + end_value.div_ceil(image_values);
        let mut merge = false;
        for part in parts {
            let touched = part.samples.start.max(origin as usize)..part.samples.end.min(last_sample as usize);
            if touched.is_empty() {
                continue;
            }
            for codebook_part in 0..self.sizes.codebook_parts {
                let pass = Pass {
                    kernel: Kernel::Words,
                    window: window.clone(),
                    rows: part.rows.clone(),
                    codebook_part,
                    workgroups: [0; 2],
                    first_unit: 0,
                    end_unit: 0,
                    stride: 0,
                    first_row: (first_value / row_len) as u32,
                    first_value: (first_value % row_len) as u32,
                    end_row: end_value.div_ceil(row_len) as u32,
                    merge,
                    // Below zero if the part begins before the window: the shader's arithmetic wraps around.
                    first_sample: (part.samples.start as u32).wrapping_sub(origin as u32),
                    samples: part.samples.len() as u32,
                    part: part.number,
                    first_patch: part.patches.start as u32,
                    patches: part.patches.len() as u32,
                };
                dispatches(&self.limits, (window.end - window.start) / 4, pass, passes);
                merge = true;
            }
        }
    }
}

/// How many whole images fit in one window whose rows, of which so many can be bound, fit in one binding; `None` if not
/// even as many as alignment asks for.
fn images_per_group(limits: &Limits, image_len: u64, samples: usize, rows: u64) -> Option<usize> {
    let most = (limits.binding / image_len).min(rows);
    if samples as u64 <= most {
        return Some(samples);
    }
    // The second window starts behind the first: at a multiple of the alignment, so after that many images.
    let step = limits.alignment / gcd(limits.alignment, image_len);
    match most / step * step {
        0 => None,
        group => Some(group as usize),
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Places the rows of `samples` in the row buffer, aligned every `rows_per_part`; a row that exceeds a binding becomes
/// several parts.
fn row_parts(
    size: RowSize,
    limits: &Limits,
    samples: Range<usize>,
    rows_per_part: usize,
    input: &mut Input,
    parts: &mut Vec<RowPart>,
) {
    let stride = size.stride();
    for first in samples.clone().step_by(rows_per_part.max(1)) {
        let group = first..(first + rows_per_part.max(1)).min(samples.end);
        let start = input.len.next_multiple_of(limits.alignment);
        input.rows.extend(group.clone().zip(0..).map(|(sample, i)| RowPlace { sample, offset: start + i * stride }));
        input.len = start + group.len() as u64 * stride;
        let part = |patches, rows| RowPart { samples: group.clone(), patches, rows: Rows::Uploaded(rows), number: 0 };
        if rows_per_part > 0 && stride <= MAX_ROW_PART {
            parts.push(part(0..size.patches, start..input.len));
            continue;
        }
        // So many patches are a whole number of words and of alignments at any index width.
        let bits = size.index_width.bits() as u64;
        let step = 8 * limits.alignment;
        let most = (limits.binding.min(MAX_ROW_PART) * 8 / bits / step).max(1) * step;
        for range in ranges(0..size.patches as u64, most) {
            // The last part may end within a word; all others end where the next begins.
            let end = start + (range.end * bits).div_ceil(32) * 4;
            let bytes = start + range.start * bits / 8..end.min(input.len);
            parts.push(part(range.start as usize..range.end as usize, bytes));
        }
    }
}

/// Spreads units over as few dispatches as the limits allow.
fn dispatches(limits: &Limits, units: u64, pass: Pass, passes: &mut Vec<Pass>) {
    let most = limits.workgroups_per_dimension;
    for range in ranges(0..units, most.saturating_mul(most).saturating_mul(limits.workgroup_size)) {
        let workgroups = (range.end - range.start).div_ceil(limits.workgroup_size);
        // Rows of equal length, so that few invocations are beyond the end.
        let y = workgroups.div_ceil(most);
        let x = workgroups.div_ceil(y);
        passes.push(Pass {
            workgroups: [x as u32, y as u32],
            first_unit: range.start as u32,
            end_unit: range.end as u32,
            stride: (x * limits.workgroup_size) as u32,
            ..pass.clone()
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::output::Dtype;

    /// Checks that ranges follow one another from 0 to `end`, passing over repetitions of the same range.
    fn assert_tile(ranges: impl Iterator<Item = Range<u64>>, end: u64) {
        let mut position = 0;
        let mut last = 0..0;
        for range in ranges {
            if range != last {
                assert_eq!(range.start, position);
                position = range.end;
                last = range;
            }
        }
        assert_eq!(position, end);
    }

    proptest! {
        // So many that rows cut within their last byte come up.
        #![proptest_config(ProptestConfig::with_cases(1500))]

        #[test]
        fn every_plan_covers_its_output_within_the_limits(
            image in (1u32..300, 1u32..300),
            channels in prop::sample::select(&[1u32, 3, 4][..]),
            patch in (1u32..=16, 1u32..=16),
            bits in prop::sample::select(&[1u64, 7, 8, 13, 16, 17, 25, 32][..]),
            dtype in prop::sample::select(&[Dtype::U8, Dtype::F16, Dtype::F32][..]),
            layout in prop::sample::select(&[Layout::Nhwc, Layout::Nchw][..]),
            samples in 0usize..40,
            binding in 10u32..20,
            buffer in 12u32..32,
            workgroups in 1u64..70_000,
            codebook_parts in 1usize..4,
            kind in 0u8..3,
            fast in any::<bool>(),
            numbers in prop::collection::vec(0usize..100, 40),
            lens in prop::collection::vec(0u64..3000, 100),
        ) {
            let geometry = Geometry::new(image, channels, patch).expect("valid");
            let size = RowSize { patches: geometry.patches(), index_width: IndexWidth::new(bits).expect("valid") };
            let fast_units = fast.then_some(image.0.into());
            let sizes = Sizes { geometry, fast_units, codebook_parts: if fast { 1 } else { codebook_parts } };
            let spec = OutputSpec { dtype, layout, normalization: None };
            let limits = Limits {
                binding: 1 << binding,
                buffer: 1 << buffer,
                alignment: 256,
                workgroups_per_dimension: workgroups,
                workgroup_size: 128,
            };
            let (stored, parts) = match spread(lens.iter().map(|len| len * 4), most_of_part(&limits)) {
                Ok(spread) => spread,
                Err(_) => {
                    prop_assert!(lens.iter().any(|len| len * 4 > limits.binding.min(limits.buffer)));
                    return Ok(());
                }
            };
            let images: Vec<Image> = numbers[..samples].iter().map(|&number| stored[number]).collect();
            let source = match kind {
                0 => Source::Rows { samples, size },
                1 => Source::Records(images.iter().map(|image| u64::from(image.words) * 4).collect()),
                _ => Source::Resident(&images),
            };
            let Ok(chunks) = plan(&limits, &sizes, &spec, &source) else {
                // Only rows that hardly fit are refused.
                let longest = images.iter().map(|image| u64::from(image.words) * 4).max().unwrap_or(0);
                match kind {
                    0 => prop_assert!(size.stride() + 256 > limits.buffer / 2 || 256 * bits > limits.binding),
                    1 => prop_assert!(longest + 256 > limits.buffer / 2 || longest > limits.binding),
                    _ => prop_assert!(false, "images are told of in little"),
                }
                return Ok(());
            };
            let total = spec.batch_len(&geometry, samples) as u64;
            assert_tile(chunks.iter().map(|chunk| chunk.output.clone()), total);
            for chunk in &chunks {
                let len = (chunk.output.end - chunk.output.start).next_multiple_of(4);
                prop_assert!(len <= limits.buffer);
                assert_tile(chunk.passes.iter().map(|pass| pass.window.clone()), len);
                for pass in &chunk.passes {
                    prop_assert!(pass.window.start.is_multiple_of(256) && pass.codebook_part < codebook_parts);
                    prop_assert!(pass.window.end - pass.window.start <= limits.binding);
                    let [x, y] = pass.workgroups.map(u64::from);
                    prop_assert!(x <= workgroups && y <= workgroups && pass.stride as u64 == x * 128);
                    prop_assert!(u64::from(pass.end_unit - pass.first_unit) <= x * y * 128);
                    match &pass.rows {
                        Rows::Uploaded(rows) => {
                            prop_assert!(rows.start.is_multiple_of(256) && rows.end <= chunk.input.len);
                            prop_assert!(rows.end - rows.start <= limits.binding);
                        }
                        Rows::Resident(part) => prop_assert!(kind == 2 && *part == pass.part as usize),
                    }
                    if kind == 0 {
                        // Every index that the pass may read is bound, to its last bit.
                        let Rows::Uploaded(bytes) = &pass.rows else { panic!("they are uploaded") };
                        let rows = u64::from(pass.samples - 1) * size.stride();
                        let needed = rows + (u64::from(pass.patches) * bits).div_ceil(8);
                        prop_assert!(bytes.end - bytes.start >= needed);
                        continue;
                    }
                    // What the pass reads is in the part, what it writes in the window.
                    let image_len = spec.batch_len(&geometry, 1) as u64;
                    let bound = match &pass.rows {
                        Rows::Uploaded(rows) => rows.end - rows.start,
                        Rows::Resident(part) => parts[*part],
                    };
                    let all = &chunk.input.images[..];
                    prop_assert!(all.len() as u64 * IMAGE_LEN <= limits.binding.min(limits.buffer));
                    let images = match pass.kernel {
                        Kernel::Fast => &all[pass.first_sample as usize..][..pass.samples as usize],
                        Kernel::Words => all,
                    };
                    for image in images.iter().filter(|image| image.part == pass.part) {
                        prop_assert!(u64::from(image.first + image.words) * 4 <= bound);
                    }
                    if pass.kernel == Kernel::Fast {
                        let window_len = pass.window.end - pass.window.start;
                        for image in images {
                            prop_assert!(image.part == pass.part && (u64::from(image.place) + 1) * image_len <= window_len);
                        }
                    }
                }
                prop_assert!(chunk.input.len <= limits.buffer);
                let image_len = spec.batch_len(&geometry, 1) as u64;
                let first = (chunk.output.start / image_len) as usize;
                let expected = first..chunk.output.end.div_ceil(image_len) as usize;
                if kind < 2 {
                    prop_assert!(chunk.input.rows.iter().map(|place| place.sample).eq(expected.clone()));
                    let lens = chunk.input.rows.iter().map(|place| match kind {
                        0 => size.stride(),
                        _ => u64::from(images[place.sample].words) * 4,
                    });
                    let mut end = 0;
                    for (place, len) in chunk.input.rows.iter().zip(lens) {
                        prop_assert!(place.offset >= end);
                        end = place.offset + len;
                    }
                    prop_assert!(end <= chunk.input.len);
                }
                if kind > 0 {
                    // Each image of the chunk once.
                    let words = |images: &[Image]| {
                        let mut words: Vec<u32> = images.iter().map(|image| image.words).collect();
                        words.sort_unstable();
                        words
                    };
                    prop_assert_eq!(words(&chunk.input.images), words(&images[expected]));
                }
                // The first pass of a window writes all of it, the others add to it.
                for window in chunk.passes.iter().filter(|pass| pass.kernel == Kernel::Words).map(|pass| &pass.window) {
                    let same = || chunk.passes.iter().filter(|pass| pass.window == *window);
                    let first: u64 =
                        same().filter(|pass| !pass.merge).map(|pass| u64::from(pass.end_unit - pass.first_unit)).sum();
                    prop_assert_eq!(first, (window.end - window.start) / 4);
                }
            }
        }
    }
}
