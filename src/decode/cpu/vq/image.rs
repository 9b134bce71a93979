//! One image, band by band: indices, then codewords, then values.

use std::ops::Range;

use super::codebook::{Chosen, Codebook, Place, Scale};
use super::convert::{Converter, deinterleave};
use super::{CpuPath, gather, memory};
use crate::buffer::AlignedBytes;
use crate::format::index::IndexWidth;
use crate::geometry::Geometry;
use crate::output::{Dtype, Layout, OutputSpec};

/// Indices that are unpacked at a time, in whole bands: enough to know which codewords come next, few enough to stay
/// in the first-level cache.
const BLOCK: usize = 2048;

/// What is done to every image of a batch.
pub(super) struct Job<'a> {
    pub geometry: &'a Geometry,
    pub index_width: IndexWidth,
    pub codebook: &'a Codebook,
    /// For float outputs; see [`Converter::all`].
    pub converters: &'a [Converter],
    pub spec: &'a OutputSpec,
    /// Whether the output goes past the caches.
    pub streamed: bool,
}

/// A thread's memory for what is on its way.
#[derive(Default)]
pub(super) struct Scratch {
    places: Vec<Place>,
    /// A band's interleaved bytes, the same sorted into planes, and its values. They begin at pages: the pixels of
    /// usual bands take one, and a store across the edge of a page holds up all behind it.
    pixels: AlignedBytes,
    planes: AlignedBytes,
    values: AlignedBytes,
}

impl Scratch {
    /// Makes room for images of this size.
    pub fn fit(&mut self, g: &Geometry, spec: &OutputSpec) {
        let band = g.patch_height() * g.image_row_len();
        let grow = |bytes: &mut AlignedBytes, len| {
            if bytes.as_slice().len() < len {
                *bytes = AlignedBytes::paged(len);
            }
        };
        grow(&mut self.pixels, band);
        grow(&mut self.planes, band);
        grow(&mut self.values, band * spec.dtype.size());
        let places = bands_at_once(g) * g.grid_width();
        if self.places.len() < places {
            self.places.resize(places, 0);
        }
    }
}

/// Bands whose indices are unpacked together.
fn bands_at_once(g: &Geometry) -> usize {
    (BLOCK / g.grid_width()).max(1)
}

/// The steps of decoding. What is here runs on any processor; a path may have its own.
///
/// # Safety
/// `unpack` overwrites every place with one that `Scale::place` gives: codewords are read there unchecked.
pub(super) unsafe trait Kernels: Copy {
    /// Reads the indices of a stored row from patch `first` on; each becomes `scale.place(index)`.
    #[inline(always)]
    fn unpack(self, width: IndexWidth, row: &[u8], first: usize, scale: Scale, places: &mut [Place]) {
        width.unpack(row, first, places);
        places.iter_mut().for_each(|place| *place = scale.place(*place));
    }

    /// Copies codewords side by side into a band of rows of `row_len` bytes.
    #[inline(always)]
    fn gather(self, chosen: Chosen, row_len: usize, band: &mut [u8]) {
        gather::gather(chosen, row_len, band);
    }

    /// Sorts interleaved pixels into planes, one behind the other.
    #[inline(always)]
    fn deinterleave(self, pixels: &[u8], channels: usize, planes: &mut [u8]) {
        deinterleave(pixels, channels, planes);
    }

    /// Converts a run of bytes; `past_caches` if the values go there, through memory as long as the run.
    #[inline(always)]
    fn convert(self, converter: &Converter, bytes: &[u8], run: &mut [u8], past_caches: Option<&mut [u8]>) {
        convert(converter, bytes, run, past_caches);
    }

    /// Copies bytes with stores that bypass the caches.
    #[inline(always)]
    fn copy_past_caches(self, source: &[u8], target: &mut [u8]) {
        memory::copy_streaming(source, target);
    }
}

/// Converts a run on any processor.
#[inline(always)]
pub(super) fn convert(converter: &Converter, bytes: &[u8], run: &mut [u8], past_caches: Option<&mut [u8]>) {
    match past_caches {
        None => converter.convert(bytes, run),
        Some(scratch) => {
            let scratch = &mut scratch[..run.len()];
            converter.convert(bytes, scratch);
            memory::copy_streaming(scratch, run);
        }
    }
}

/// The portable path; compiled once more for AVX2, see [`Job::decode`].
#[derive(Clone, Copy)]
struct Portable;

// SAFETY: `IndexWidth::unpack` panics if there are fewer indices than places, and then each is replaced.
unsafe impl Kernels for Portable {}

impl Job<'_> {
    /// Decodes one image; `rows` are its index row and the next image's.
    ///
    /// # Safety
    /// The path is available.
    pub unsafe fn decode(&self, path: CpuPath, rows: [&[u8]; 2], image: &mut [u8], scratch: &mut Scratch) {
        match path {
            CpuPath::Portable => self.image(Portable, rows, image, scratch),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the path is available: the processor has these instructions.
            CpuPath::Avx2 => unsafe { self.image_avx2(rows, image, scratch) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            CpuPath::Avx512 => unsafe { self.image_avx512(rows, image, scratch) },
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn image_avx2(&self, rows: [&[u8]; 2], image: &mut [u8], scratch: &mut Scratch) {
        self.image(Portable, rows, image, scratch);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
    fn image_avx512(&self, rows: [&[u8]; 2], image: &mut [u8], scratch: &mut Scratch) {
        self.image(super::vbmi::Vbmi::new(), rows, image, scratch);
    }

    #[inline(always)]
    fn image<K: Kernels>(&self, k: K, [row, next_row]: [&[u8]; 2], image: &mut [u8], scratch: &mut Scratch) {
        let g = self.geometry;
        let at_once = bands_at_once(g);
        let row_len = g.image_row_len();
        let Scratch { places, pixels, planes, values } = scratch;
        let [pixels, planes, values] = [pixels, planes, values].map(AlignedBytes::as_mut_slice);
        for first in (0..g.grid_height()).step_by(at_once) {
            let bands = first..g.grid_height().min(first + at_once);
            let places = &mut places[..bands.len() * g.grid_width()];
            let chosen = self.codebook.choose(k, self.index_width, row, first * g.grid_width(), places);
            for band in bands {
                self.prefetch(row, next_row, band + at_once.min(g.grid_height()));
                let chosen = chosen.part((band - first) * g.grid_width(), g.grid_width());
                let rows = self.rows(band);
                let bytes = rows.start * row_len..rows.end * row_len;
                if self.is_direct() {
                    k.gather(chosen, row_len, &mut image[bytes]);
                    continue;
                }
                let pixels = &mut pixels[..bytes.len()];
                k.gather(chosen, row_len, pixels);
                match self.spec.layout {
                    Layout::Nhwc => self.emit(k, rows, pixels, values, image),
                    Layout::Nchw => {
                        let planes = &mut planes[..bytes.len()];
                        k.deinterleave(pixels, g.channels(), planes);
                        self.emit(k, rows, planes, values, image);
                    }
                }
            }
        }
    }

    /// Whether codewords are copied straight to the output.
    fn is_direct(&self) -> bool {
        self.spec.dtype == Dtype::U8 && self.spec.layout == Layout::Nhwc && !self.streamed
    }

    /// The rows of pixels that a row of patches covers.
    #[inline(always)]
    fn rows(&self, band: usize) -> Range<usize> {
        let top = band * self.geometry.patch_height();
        top..self.geometry.image_height().min(top + self.geometry.patch_height())
    }

    /// Asks for the indices of a band, counted on into the next image.
    #[inline(always)]
    fn prefetch(&self, row: &[u8], next_row: &[u8], band: usize) {
        let bits = self.geometry.grid_width() * self.index_width.bits();
        let (start, end) = (band * bits / 8, (band + 1) * bits / 8);
        let address = match start < row.len() {
            true => row.as_ptr().wrapping_add(start),
            false => next_row.as_ptr().wrapping_add(start - row.len()),
        };
        (0..end - start).step_by(64).for_each(|line| memory::prefetch(address.wrapping_add(line)));
    }

    /// Converts a band's bytes and stores them in the output. Rows of one image follow one another, and so do those of
    /// one plane: a band is one run of each.
    #[inline(always)]
    fn emit<K: Kernels>(&self, k: K, rows: Range<usize>, band: &[u8], values: &mut [u8], image: &mut [u8]) {
        let g = self.geometry;
        let (planes, row_len) = match self.spec.layout {
            Layout::Nhwc => (1, g.image_row_len()),
            Layout::Nchw => (g.channels(), g.image_width()),
        };
        let size = self.spec.dtype.size();
        let sources = band.chunks_exact(rows.len() * row_len);
        let targets = image.chunks_exact_mut(g.image_height() * row_len * size);
        for (plane, (source, target)) in (0..planes).zip(sources.zip(targets)) {
            let target = &mut target[rows.start * row_len * size..rows.end * row_len * size];
            match self.spec.dtype {
                Dtype::U8 if self.streamed => k.copy_past_caches(source, target),
                Dtype::U8 => target.copy_from_slice(source),
                _ => k.convert(&self.converters[plane], source, target, self.streamed.then_some(&mut *values)),
            }
        }
    }
}
