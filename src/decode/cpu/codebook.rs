//! The codebook as the CPU gathers from it, and the codewords chosen from it.

use rayon::prelude::*;

use crate::buffer::AlignedBytes;
use crate::geometry::Geometry;

/// Codewords with every patch row padded to a power of two, so that it is copied by one wide load and one wide store,
/// which may run over into the next patch before that is written. No codeword lies across more cache lines than it
/// must.
#[derive(Clone)]
pub(super) struct Codebook {
    bytes: AlignedBytes,
    row_len: usize,
    row_stride: usize,
    patch_height: usize,
    codewords: usize,
}

impl Codebook {
    /// Copies codewords that follow one another, with padding: at most 4 times their size.
    pub fn new(codewords: &[u8], geometry: &Geometry) -> Self {
        let row_len = geometry.patch_row_len();
        let row_stride = row_len.next_power_of_two().max(4);
        let rows = codewords.len() / row_len;
        let mut bytes = AlignedBytes::zeroed(rows * row_stride);
        bytes
            .as_mut_slice()
            .par_chunks_exact_mut(row_stride)
            .zip(codewords.par_chunks_exact(row_len))
            .with_min_len(1 << 14)
            .for_each(|(padded, row)| padded[..row_len].copy_from_slice(row));
        let patch_height = geometry.patch_height();
        Self { bytes, row_len, row_stride, patch_height, codewords: rows / patch_height }
    }

    /// Bytes of a patch row.
    pub fn row_len(&self) -> usize {
        self.row_len
    }

    /// Bytes from one patch row to the next: a power of two, 4 to 64.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    pub fn patch_height(&self) -> usize {
        self.patch_height
    }

    /// The codewords that indices stand for; those beyond the codebook for the last.
    #[inline(always)]
    pub fn choose<'a>(&'a self, indices: &'a mut [u32]) -> Chosen<'a> {
        let last = (self.codewords - 1) as u32;
        indices.iter_mut().for_each(|index| *index = (*index).min(last));
        Chosen { codebook: self, indices, count: indices.len() }
    }
}

/// Codewords of adjacent patches. Every index is in the codebook.
#[derive(Clone, Copy)]
pub(super) struct Chosen<'a> {
    codebook: &'a Codebook,
    /// Of these patches and of those that will be asked for after them.
    indices: &'a [u32],
    count: usize,
}

impl<'a> Chosen<'a> {
    /// Some of them.
    #[inline(always)]
    pub fn part(&self, start: usize, count: usize) -> Self {
        let indices = &self.indices[start..];
        assert!(count <= indices.len());
        Self { indices, count, ..*self }
    }

    pub fn codebook(&self) -> &'a Codebook {
        self.codebook
    }

    /// The number of patches.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.count
    }

    /// The index of a patch.
    #[inline(always)]
    pub fn index(&self, patch: usize) -> usize {
        self.indices[patch] as usize
    }

    /// The rows of a patch's codeword, each of `STRIDE` bytes, the codebook's row stride: as many as a patch is high.
    #[inline(always)]
    pub fn codeword<const STRIDE: usize>(&self, patch: usize) -> *const [u8; STRIDE] {
        debug_assert!(STRIDE == self.codebook.row_stride);
        let first = self.index(patch) * self.codebook.patch_height * STRIDE;
        // SAFETY: the index is below the number of codewords (`Codebook::choose`), and so the codeword lies in the
        // codebook's bytes.
        unsafe { self.codebook.bytes.as_slice().as_ptr().add(first).cast() }
    }

    /// Asks for a codeword that will be needed so many patches on, if there is one.
    #[inline(always)]
    pub fn prefetch(&self, patch: usize) {
        let Some(&index) = self.indices.get(patch) else { return };
        let first = index as usize * self.codebook.patch_height * self.codebook.row_stride;
        super::memory::prefetch(&self.codebook.bytes.as_slice()[first..]);
    }
}
