//! One image, band by band: indices, then codewords, then values.

use super::codebook::{Chosen, Codebook, Place, Scale};
use super::convert::{Converter, deinterleave};
use super::path::CpuPath;
use super::{gather, memory};
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
    /// Interleaved bytes, the same sorted into planes, and values of a band.
    band: Vec<u8>,
    planes: Vec<u8>,
    values: Vec<u8>,
}

impl Scratch {
    /// Makes room for images of this size.
    pub fn fit(&mut self, g: &Geometry, spec: &OutputSpec) {
        let band = g.patch_height() * g.image_row_len();
        let grow = |bytes: &mut Vec<u8>, len| {
            if bytes.len() < len {
                bytes.resize(len, 0);
            }
        };
        grow(&mut self.band, band);
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
pub(super) trait Kernels: Copy {
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

impl Kernels for Portable {}

impl Job<'_> {
    /// Decodes one image. The path must be available.
    pub fn decode(&self, path: CpuPath, rows: [&[u8]; 2], image: &mut [u8], scratch: &mut Scratch) {
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
        for first in (0..g.grid_height()).step_by(at_once) {
            let bands = at_once.min(g.grid_height() - first);
            let places = &mut scratch.places[..bands * g.grid_width()];
            let chosen = self.codebook.choose(k, self.index_width, row, first * g.grid_width(), places);
            for band in 0..bands {
                self.prefetch(row, next_row, first + band + at_once);
                let chosen = chosen.part(band * g.grid_width(), g.grid_width());
                let buffers = (&mut scratch.band[..], &mut scratch.planes[..], &mut scratch.values[..]);
                self.band(k, chosen, (first + band) * g.patch_height(), image, buffers);
            }
        }
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

    /// Decodes the rows of pixels from `top` on that one row of patches covers.
    #[inline(always)]
    fn band<K: Kernels>(
        &self,
        k: K,
        chosen: Chosen,
        top: usize,
        image: &mut [u8],
        (pixels, planes, values): (&mut [u8], &mut [u8], &mut [u8]),
    ) {
        let g = self.geometry;
        let row_len = g.image_row_len();
        let rows = g.patch_height().min(g.image_height() - top);
        let size = self.spec.dtype.size();
        // Rows of one image follow one another, and so do those of one plane: a band is one run of each.
        let interleaved = top * row_len * size..(top + rows) * row_len * size;
        let pixels = &mut pixels[..rows * row_len];
        match (self.spec.dtype, self.spec.layout) {
            (Dtype::U8, Layout::Nhwc) if !self.streamed => k.gather(chosen, row_len, &mut image[interleaved]),
            (Dtype::U8, Layout::Nhwc) => {
                k.gather(chosen, row_len, pixels);
                k.copy_past_caches(pixels, &mut image[interleaved]);
            }
            (_, Layout::Nhwc) => {
                k.gather(chosen, row_len, pixels);
                let past_caches = self.streamed.then_some(values);
                k.convert(&self.converters[0], pixels, &mut image[interleaved], past_caches);
            }
            (dtype, Layout::Nchw) => {
                k.gather(chosen, row_len, pixels);
                let width = g.image_width();
                let planes = &mut planes[..rows * row_len];
                k.deinterleave(pixels, g.channels(), planes);
                let planes = planes.chunks_exact(rows * width);
                let targets = image.chunks_exact_mut(g.image_height() * width * size);
                for (channel, (plane, target)) in planes.zip(targets).enumerate() {
                    let run = &mut target[top * width * size..(top + rows) * width * size];
                    match dtype {
                        Dtype::U8 if self.streamed => k.copy_past_caches(plane, run),
                        Dtype::U8 => run.copy_from_slice(plane),
                        _ => k.convert(&self.converters[channel], plane, run, self.streamed.then_some(&mut *values)),
                    }
                }
            }
        }
    }
}
