//! How a batch is cut to fit a device: into output buffers, and those into dispatches whose every binding, offset and
//! number of workgroups is within the limits. Pure arithmetic; no GPU in sight.
//!
//! In nearly all cases there is one buffer and one dispatch. Where the output or the index rows exceed a binding, they
//! are cut at whole images. Only an image that exceeds a binding by itself, a size that cannot be aligned, or a
//! codebook that exceeds a binding falls back to pieces that the kernel `words` puts together.

use std::ops::Range;

use super::decode::Kernel;
use crate::format::index::IndexWidth;
use crate::geometry::Geometry;
use crate::output::{Layout, OutputSpec};

/// Largest window of an output buffer: word numbers and byte sums stay far within 32 bits in the shader.
const MAX_WINDOW: u64 = 1 << 30;
/// Largest part of one index row: bit numbers stay within 32 bits in the shader.
const MAX_ROW_PART: u64 = 1 << 28;

/// Largest part of the resident rows or of a codebook that is searched: byte numbers stay within 32 bits in the languages that shaders become.
pub(super) const MAX_PART: u64 = (1 << 32) - 4;
/// Bytes of what the shader is told of an image of resident rows.
const IMAGE_LEN: u64 = 8;

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

/// The sizes of what is decoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub geometry: Geometry,
    pub index_width: IndexWidth,
}

impl Sizes {
    /// Bytes of an index row on the device: the stored row, padded to a whole word.
    pub fn row_stride(&self) -> u64 {
        (self.index_width.row_len(self.geometry.patches()) as u64).next_multiple_of(4)
    }

    /// Whether the kernels `columns_*` can decode these images.
    pub fn fit_columns(&self) -> bool {
        let patch_width = self.geometry.patch_width();
        self.geometry.image_width().is_multiple_of(4) && (matches!(patch_width, 1 | 2) || patch_width.is_multiple_of(4))
    }
}

/// Where the index rows of a batch are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// In host memory: so many.
    Host(usize),
    /// On the device, in parts of so many rows each: those of these samples.
    Resident { samples: &'a [u32], per_part: u32 },
}

impl Source<'_> {
    fn len(&self) -> usize {
        match self {
            Source::Host(samples) => *samples,
            Source::Resident { samples, .. } => samples.len(),
        }
    }
}

/// A piece of a batch that gets an output buffer of its own.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Its bytes of the batch's output.
    pub output: Range<u64>,
    pub input: Input,
    pub passes: Vec<Pass>,
}

/// What is uploaded for a chunk.
#[derive(Debug)]
pub(crate) enum Input {
    /// Index rows.
    Rows {
        /// Bytes of the index buffer.
        len: u64,
        /// Where each sample's index row goes in it.
        places: Vec<RowPlace>,
    },
    /// Numbers of resident rows, and places in the output window, as `images` in the shader.
    Images(Vec<[u32; 2]>),
}

/// Where the index row of a sample of the batch starts in the index buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowPlace {
    pub sample: usize,
    pub offset: u64,
}

/// The index rows that a pass reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Bytes of the index buffer that are bound.
    Uploaded(Range<u64>),
    /// A part of the resident rows, the first of its rows and how many it has.
    Resident { part: usize, first: u32, len: u32 },
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
    // The rest is for the kernel `words`, and for resident rows; see the shader.
    pub first_row: u32,
    pub first_value: u32,
    pub end_row: u32,
    pub merge: bool,
    pub first_sample: u32,
    pub samples: u32,
    pub first_patch: u32,
    pub patches: u32,
}

/// Index rows, or a part of one, that are bound together.
struct RowPart {
    /// Samples of the batch; for the columns of resident rows, places in the list of images.
    samples: Range<usize>,
    patches: Range<usize>,
    rows: Rows,
}

/// A size that the device cannot hold in any number of pieces.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooSmall {
    pub limit: &'static str,
    pub found: u64,
    pub needed: u64,
}

/// How many index rows a part of the resident ones holds: a whole number of them, in one binding.
pub(crate) fn rows_per_part(limits: &Limits, sizes: &Sizes) -> Result<u32, TooSmall> {
    let most = limits.binding.min(limits.buffer).min(MAX_PART);
    let row = sizes.row_stride();
    if row > most.min(MAX_ROW_PART) {
        let (limit, found) = ("max_storage_buffer_binding_size", most.min(MAX_ROW_PART));
        return Err(TooSmall { limit, found, needed: row });
    }
    Ok((most / row) as u32)
}

/// Plans a batch.
pub(crate) fn plan(
    limits: &Limits,
    sizes: &Sizes,
    spec: &OutputSpec,
    source: Source,
    codebook_parts: usize,
) -> Result<Vec<Chunk>, TooSmall> {
    let limits = Limits { binding: limits.binding.min(MAX_WINDOW) / limits.alignment * limits.alignment, ..*limits };
    let too_small = |limit, found, needed| Err(TooSmall { limit, found, needed });
    if limits.binding == 0 {
        return too_small("max_storage_buffer_binding_size", limits.binding, limits.alignment);
    }
    let image_len = spec.batch_len(&sizes.geometry, 1) as u64;
    let total = image_len * source.len() as u64;
    let (row, rows_per_buffer) = match source {
        Source::Host(_) => {
            // The smallest part of an index row that starts at a multiple of the alignment and at a whole index.
            let least_part = limits.alignment * sizes.index_width.bits() as u64;
            if sizes.row_stride() > limits.binding && least_part > limits.binding {
                return too_small("max_storage_buffer_binding_size", limits.binding, least_part);
            }
            // As if every row were aligned, though only the first of each group is.
            let row = sizes.row_stride().next_multiple_of(limits.alignment);
            (row, limits.buffer / row)
        }
        // Their numbers are bound as a whole.
        Source::Resident { .. } => (IMAGE_LEN, limits.binding.min(limits.buffer) / IMAGE_LEN),
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
    let chunks = ranges(0..total, chunk_len);
    let chunk = |output| match source {
        Source::Host(_) => chunk(&limits, sizes, spec, image_len, output, codebook_parts),
        Source::Resident { samples, per_part } => {
            resident_chunk(&limits, sizes, spec, image_len, output, codebook_parts, samples, per_part)
        }
    };
    Ok(chunks.map(chunk).collect())
}

/// Cuts a range into ranges of `len` and a rest.
fn ranges(range: Range<u64>, len: u64) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    range.step_by(len.min(usize::MAX as u64) as usize).map(move |start| start..(start + len).min(end))
}

fn chunk(
    limits: &Limits,
    sizes: &Sizes,
    spec: &OutputSpec,
    image_len: u64,
    output: Range<u64>,
    codebook_parts: usize,
) -> Chunk {
    let samples = (output.start / image_len) as usize..output.end.div_ceil(image_len) as usize;
    let whole_images = output.start.is_multiple_of(image_len) && output.end.is_multiple_of(image_len);
    let row = sizes.row_stride();
    let rows_per_binding = if row > MAX_ROW_PART { 0 } else { limits.binding / row };
    let group = images_per_group(limits, image_len, samples.len(), rows_per_binding);
    let (mut places, mut parts, mut index_len) = (Vec::new(), Vec::new(), 0);
    let mut passes = Vec::new();
    // Windows are words; the last may run over the end of the chunk, whose buffer is rounded up.
    let len = (output.end - output.start).next_multiple_of(4);
    if let (Some(group), true) = (group, whole_images) {
        row_parts(sizes, limits, samples, group, &mut places, &mut parts, &mut index_len);
        let windows = ranges(0..len, if parts.len() > 1 { group as u64 * image_len } else { len });
        for (window, part) in windows.zip(&parts) {
            if codebook_parts == 1 && sizes.fit_columns() {
                columns(limits, sizes, spec, window, part, &mut passes);
            } else {
                words(limits, sizes, spec, &output, window, std::slice::from_ref(part), codebook_parts, &mut passes);
            }
        }
    } else {
        let rows_per_part = (limits.binding / sizes.row_stride()) as usize;
        row_parts(sizes, limits, samples, rows_per_part, &mut places, &mut parts, &mut index_len);
        for window in ranges(0..len, limits.binding) {
            words(limits, sizes, spec, &output, window, &parts, codebook_parts, &mut passes);
        }
    }
    Chunk { output, input: Input::Rows { len: index_len, places }, passes }
}

/// A chunk of images whose index rows are on the device, several parts of which may have to be bound in turn.
#[expect(clippy::too_many_arguments)]
fn resident_chunk(
    limits: &Limits,
    sizes: &Sizes,
    spec: &OutputSpec,
    image_len: u64,
    output: Range<u64>,
    codebook_parts: usize,
    samples: &[u32],
    per_part: u32,
) -> Chunk {
    let first = (output.start / image_len) as usize;
    let samples = &samples[first..output.end.div_ceil(image_len) as usize];
    let whole_images = output.start.is_multiple_of(image_len) && output.end.is_multiple_of(image_len);
    let group = images_per_group(limits, image_len, samples.len(), u64::MAX);
    let part = |part: u32, samples: Range<usize>| RowPart {
        samples,
        patches: 0..sizes.geometry.patches(),
        rows: Rows::Resident { part: part as usize, first: part * per_part, len: per_part },
    };
    let (mut images, mut passes) = (Vec::new(), Vec::new());
    let len = (output.end - output.start).next_multiple_of(4);
    if let (Some(group), true, true, 1) = (group, whole_images, sizes.fit_columns(), codebook_parts) {
        let windows = ranges(0..len, if samples.len() > group { group as u64 * image_len } else { len });
        for (window, samples) in windows.zip(samples.chunks(group)) {
            // Images of the same part are dispatched together.
            let mut order: Vec<[u32; 2]> = samples.iter().zip(0..).map(|(&sample, place)| [sample, place]).collect();
            order.sort_by_key(|[sample, _]| sample / per_part);
            for run in order.chunk_by(|[a, _], [b, _]| a / per_part == b / per_part) {
                let part = part(run[0][0] / per_part, images.len()..images.len() + run.len());
                columns(limits, sizes, spec, window.clone(), &part, &mut passes);
                images.extend_from_slice(run);
            }
        }
    } else {
        images.extend(samples.iter().map(|&sample| [sample, 0]));
        let all = first..first + samples.len();
        for window in ranges(0..len, limits.binding) {
            // Of the resident parts those that the window's images need.
            let end = (output.start + window.end).min(output.end).div_ceil(image_len) as usize;
            let start = ((output.start + window.start) / image_len) as usize;
            let mut touched: Vec<u32> =
                samples[start - first..end - first].iter().map(|sample| sample / per_part).collect();
            touched.sort_unstable();
            touched.dedup();
            let parts: Vec<RowPart> = touched.into_iter().map(|number| part(number, all.clone())).collect();
            words(limits, sizes, spec, &output, window, &parts, codebook_parts, &mut passes);
        }
    }
    Chunk { output, input: Input::Images(images), passes }
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

/// Places the rows of `samples` in the index buffer, aligned every `rows_per_part`; a row that exceeds a binding
/// becomes several parts.
fn row_parts(
    sizes: &Sizes,
    limits: &Limits,
    samples: Range<usize>,
    rows_per_part: usize,
    places: &mut Vec<RowPlace>,
    parts: &mut Vec<RowPart>,
    len: &mut u64,
) {
    let stride = sizes.row_stride();
    let patches = sizes.geometry.patches();
    for first in samples.clone().step_by(rows_per_part.max(1)) {
        let group = first..(first + rows_per_part.max(1)).min(samples.end);
        let start = len.next_multiple_of(limits.alignment);
        places.extend(group.clone().zip(0..).map(|(sample, i)| RowPlace { sample, offset: start + i * stride }));
        *len = start + group.len() as u64 * stride;
        if rows_per_part > 0 && stride <= MAX_ROW_PART {
            parts.push(RowPart { samples: group, patches: 0..patches, rows: Rows::Uploaded(start..*len) });
            continue;
        }
        // So many patches are a whole number of words and of alignments at any index width.
        let bits = sizes.index_width.bits() as u64;
        let step = 8 * limits.alignment;
        let most = (limits.binding.min(MAX_ROW_PART) * 8 / bits / step).max(1) * step;
        for range in ranges(0..patches as u64, most) {
            // The last part may end within a word; all others end where the next begins.
            let end = start + (range.end * bits).div_ceil(32) * 4;
            let bytes = start + range.start * bits / 8..end.min(*len);
            let patches = range.start as usize..range.end as usize;
            parts.push(RowPart { samples: group.clone(), patches, rows: Rows::Uploaded(bytes) });
        }
    }
}

/// A window of whole images, whose index rows are one part, by the fast kernel.
fn columns(
    limits: &Limits,
    sizes: &Sizes,
    spec: &OutputSpec,
    window: Range<u64>,
    part: &RowPart,
    passes: &mut Vec<Pass>,
) {
    let units = part.samples.len() * sizes.geometry.grid_height() * (sizes.geometry.image_width() / 4);
    let pass = Pass {
        kernel: Kernel::columns(spec.dtype),
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
        first_sample: if matches!(part.rows, Rows::Resident { .. }) { part.samples.start as u32 } else { 0 },
        samples: part.samples.len() as u32,
        first_patch: 0,
        patches: sizes.geometry.patches() as u32,
    };
    dispatches(limits, units as u64, pass, passes);
}

/// A window of any bytes, from all parts that have something to give to it.
#[expect(clippy::too_many_arguments)]
fn words(
    limits: &Limits,
    sizes: &Sizes,
    spec: &OutputSpec,
    output: &Range<u64>,
    window: Range<u64>,
    parts: &[RowPart],
    codebook_parts: usize,
    passes: &mut Vec<Pass>,
) {
    let g = &sizes.geometry;
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
        for codebook_part in 0..codebook_parts {
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
                first_patch: part.patches.start as u32,
                patches: part.patches.len() as u32,
            };
            dispatches(limits, (window.end - window.start) / 4, pass, passes);
            merge = true;
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
            resident in prop::option::of(Just(())),
            per_part in 1u32..50,
            numbers in prop::collection::vec(0u32..100, 40),
        ) {
            let geometry = Geometry::new(image, channels, patch).expect("valid");
            let sizes = Sizes { geometry, index_width: IndexWidth::new(bits).expect("valid") };
            let spec = OutputSpec { dtype, layout, normalization: None };
            let limits = Limits {
                binding: 1 << binding,
                buffer: 1 << buffer,
                alignment: 256,
                workgroups_per_dimension: workgroups,
                workgroup_size: 128,
            };
            let source = match resident {
                None => Source::Host(samples),
                Some(_) => match rows_per_part(&limits, &sizes) {
                    Ok(most) => Source::Resident { samples: &numbers[..samples], per_part: most.min(per_part) },
                    Err(_) => {
                        prop_assert!(sizes.row_stride() > limits.binding.min(limits.buffer).min(MAX_ROW_PART));
                        return Ok(());
                    }
                },
            };
            let Ok(chunks) = plan(&limits, &sizes, &spec, source, codebook_parts) else {
                // Only rows that hardly fit are refused.
                prop_assert!(resident.is_none());
                prop_assert!(sizes.row_stride() + 256 > limits.buffer / 2 || 256 * bits > limits.binding);
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
                    match (&pass.rows, &chunk.input) {
                        (Rows::Uploaded(indices), Input::Rows { len, .. }) => {
                            prop_assert!(indices.start.is_multiple_of(256) && indices.end <= *len);
                            prop_assert!(indices.end - indices.start <= limits.binding);
                            // Every index that the pass may read is bound, to its last bit.
                            let rows = u64::from(pass.samples - 1) * sizes.row_stride();
                            let needed = rows + (u64::from(pass.patches) * bits).div_ceil(8);
                            prop_assert!(indices.end - indices.start >= needed);
                        }
                        (&Rows::Resident { part, first, len }, Input::Images(images)) => {
                            prop_assert!(images.len() as u64 * IMAGE_LEN <= limits.binding.min(limits.buffer));
                            prop_assert!(u64::from(len) * sizes.row_stride() <= limits.binding && first == part as u32 * len);
                            if pass.kernel != Kernel::Words {
                                // What the pass reads is in the part, what it writes in the window.
                                let images = &images[pass.first_sample as usize..][..pass.samples as usize];
                                let image_len = spec.batch_len(&geometry, 1) as u64;
                                let window_len = pass.window.end - pass.window.start;
                                for &[sample, place] in images {
                                    prop_assert!((first..first + len).contains(&sample));
                                    prop_assert!((u64::from(place) + 1) * image_len <= window_len);
                                }
                            }
                        }
                        _ => prop_assert!(false, "rows of the other kind"),
                    }
                }
                match &chunk.input {
                    Input::Rows { len, places } => {
                        prop_assert!(*len <= limits.buffer);
                        for place in places {
                            prop_assert!(place.sample < samples && place.offset + sizes.row_stride() <= *len);
                        }
                    }
                    Input::Images(images) => {
                        // Each image of the chunk once.
                        let image_len = spec.batch_len(&geometry, 1) as u64;
                        let first = (chunk.output.start / image_len) as usize;
                        let mut expected = numbers[first..chunk.output.end.div_ceil(image_len) as usize].to_vec();
                        let mut found: Vec<u32> = images.iter().map(|[sample, _]| *sample).collect();
                        expected.sort_unstable();
                        found.sort_unstable();
                        prop_assert_eq!(found, expected);
                    }
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
