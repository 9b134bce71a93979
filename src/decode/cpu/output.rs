//! From bands of pixels to a batch: what every codec's images go through at the end.

use std::ops::Range;

use super::convert::Converter;
use super::memory;
use crate::buffer::AlignedBytes;
use crate::geometry::Geometry;
use crate::output::{Dtype, Layout, OutputSpec};

/// What becomes of the pixels of every image of a batch.
#[derive(Clone, Copy)]
pub(super) struct Output<'a> {
    pub geometry: &'a Geometry,
    pub spec: &'a OutputSpec,
    /// For float outputs; see [`Converter::all`].
    pub converters: &'a [Converter],
    /// Whether it goes past the caches.
    pub streamed: bool,
}

/// A thread's memory for a band on its way: its bytes as the layout has them, and its values. They begin at pages: the
/// pixels of usual bands take one, and a store across the edge of a page holds up all behind it.
#[derive(Default)]
pub(super) struct Band {
    pub bytes: AlignedBytes,
    pub values: AlignedBytes,
}

impl Band {
    /// Makes room for bands of so many bytes.
    pub fn fit(&mut self, len: usize, spec: &OutputSpec) {
        grow(&mut self.bytes, len);
        grow(&mut self.values, len * spec.dtype.size());
    }
}

/// Makes room for `len` bytes that begin at a page; what was there is lost.
pub(super) fn grow(bytes: &mut AlignedBytes, len: usize) {
    if bytes.as_slice().len() < len {
        *bytes = AlignedBytes::paged(len);
    }
}

/// The last steps of decoding. What is here runs on any processor; a path may have its own.
pub(super) trait Stores: Copy {
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

/// The portable path; compiled once more for AVX2.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Stores for Portable {}

impl Output<'_> {
    /// The rows of pixels that a row of patches of this height covers.
    #[inline(always)]
    pub fn rows(&self, band: usize, height: usize) -> Range<usize> {
        band * height..self.geometry.image_height().min((band + 1) * height)
    }

    /// Converts a band's bytes and stores them in the output. Rows of one image follow one another, and so do those of
    /// one plane: a band is one run of each.
    #[inline(always)]
    pub fn emit<S: Stores>(&self, s: S, rows: Range<usize>, band: &[u8], values: &mut [u8], image: &mut [u8]) {
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
                Dtype::U8 if self.streamed => s.copy_past_caches(source, target),
                Dtype::U8 => target.copy_from_slice(source),
                _ => s.convert(&self.converters[plane], source, target, self.streamed.then_some(&mut *values)),
            }
        }
    }
}
