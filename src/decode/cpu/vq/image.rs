//! One image, band by band: indices, then codewords, then values.

use super::codebook::{Chosen, Codebook, Place, Scale};
use super::convert::deinterleave;
use super::output::{Band, Output, Portable, Stores, grow};
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
    pub index_width: IndexWidth,
    pub codebook: &'a Codebook,
    pub output: Output<'a>,
}

/// A thread's memory for what is on its way.
#[derive(Default)]
pub(super) struct Scratch {
    places: Vec<Place>,
    /// A band's interleaved bytes.
    pixels: AlignedBytes,
    band: Band,
}

impl Scratch {
    /// Makes room for images of this size.
    pub fn fit(&mut self, g: &Geometry, spec: &OutputSpec) {
        let band = g.patch_height() * g.image_row_len();
        grow(&mut self.pixels, band);
        self.band.fit(band, spec);
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
pub(super) unsafe trait Kernels: Stores {
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
}

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
        self.image(super::super::vbmi::Vbmi::new(), rows, image, scratch);
    }

    #[inline(always)]
    fn image<K: Kernels>(&self, k: K, [row, next_row]: [&[u8]; 2], image: &mut [u8], scratch: &mut Scratch) {
        let g = self.output.geometry;
        let at_once = bands_at_once(g);
        let row_len = g.image_row_len();
        let Scratch { places, pixels, band: Band { bytes: planes, values } } = scratch;
        let [pixels, planes, values] = [pixels, planes, values].map(AlignedBytes::as_mut_slice);
        for first in (0..g.grid_height()).step_by(at_once) {
            let bands = first..g.grid_height().min(first + at_once);
            let places = &mut places[..bands.len() * g.grid_width()];
            let chosen = self.codebook.choose(k, self.index_width, row, first * g.grid_width(), places);
            for band in bands {
                self.prefetch(row, next_row, band + at_once.min(g.grid_height()));
                let chosen = chosen.part((band - first) * g.grid_width(), g.grid_width());
                let rows = self.output.rows(band, g.patch_height());
                let bytes = rows.start * row_len..rows.end * row_len;
                if self.is_direct() {
                    k.gather(chosen, row_len, &mut image[bytes]);
                    continue;
                }
                let pixels = &mut pixels[..bytes.len()];
                k.gather(chosen, row_len, pixels);
                match self.output.spec.layout {
                    Layout::Nhwc => self.output.emit(k, rows, pixels, values, image),
                    Layout::Nchw => {
                        let planes = &mut planes[..bytes.len()];
                        k.deinterleave(pixels, g.channels(), planes);
                        self.output.emit(k, rows, planes, values, image);
                    }
                }
            }
        }
    }

    /// Whether codewords are copied straight to the output.
    fn is_direct(&self) -> bool {
        self.output.spec.dtype == Dtype::U8 && self.output.spec.layout == Layout::Nhwc && !self.output.streamed
    }

    /// Asks for the indices of a band, counted on into the next image.
    #[inline(always)]
    fn prefetch(&self, row: &[u8], next_row: &[u8], band: usize) {
        let bits = self.output.geometry.grid_width() * self.index_width.bits();
        let (start, end) = (band * bits / 8, (band + 1) * bits / 8);
        let address = match start < row.len() {
            true => row.as_ptr().wrapping_add(start),
            false => next_row.as_ptr().wrapping_add(start - row.len()),
        };
        (0..end - start).step_by(64).for_each(|line| memory::prefetch(address.wrapping_add(line)));
    }
}
