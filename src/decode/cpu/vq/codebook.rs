//! The codebook as the CPU gathers from it, and the codewords chosen from it.

use rayon::prelude::*;

use super::image::Kernels;
use super::memory;
use crate::buffer::AlignedBytes;
use crate::error::Result;
use crate::format::index::IndexWidth;
use crate::geometry::Geometry;

/// What places in the codebook are counted in, in bytes: so that every place fits in 32 bits, and an address is made of
/// it by the load itself.
const UNIT: usize = 8;

/// Beyond so many bytes codewords are asked for ahead of their use; below, asking costs more than it saves. A fuzzer's
/// codebooks are small.
const FAR: usize = if cfg!(fuzzing) { 4 << 10 } else { 2 << 20 };

/// Codewords with every patch row padded to a power of two, so that it is copied by one wide load and one wide store,
/// which may run over into the next patch before that is written.
pub(super) struct Codebook {
    bytes: AlignedBytes,
    row_len: usize,
    row_stride: usize,
    patch_height: usize,
    codewords: usize,
}

impl Codebook {
    /// Copies codewords that follow one another, with padding.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn new(codewords: &[u8], geometry: &Geometry) -> Result<Self> {
        let row_len = geometry.patch_row_len();
        let row_stride = row_len.next_power_of_two().max(UNIT);
        let rows = codewords.len() / row_len;
        let mut bytes = AlignedBytes::try_zeroed(rows * row_stride)?;
        bytes
            .as_mut_slice()
            .par_chunks_exact_mut(row_stride)
            .zip(codewords.par_chunks_exact(row_len))
            .with_min_len(1 << 14)
            .for_each(|(padded, row)| padded[..row_len].copy_from_slice(row));
        let patch_height = geometry.patch_height();
        Ok(Self { bytes, row_len, row_stride, patch_height, codewords: rows / patch_height })
    }

    /// Bytes of a patch row.
    pub fn row_len(&self) -> usize {
        self.row_len
    }

    /// Bytes from one patch row to the next: a power of two, 8 to 64.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    pub fn patch_height(&self) -> usize {
        self.patch_height
    }

    /// Whether it is larger than a core's own caches, so that codewords are worth asking for ahead of their use.
    pub fn is_far(&self) -> bool {
        self.bytes.as_slice().len() > FAR
    }

    /// The codewords of patches from `first` on of a stored row; indices beyond the codebook stand for the last
    /// codeword. There are as many as there are places to keep them.
    #[inline(always)]
    pub fn choose<'a, K: Kernels>(
        &'a self,
        k: K,
        width: IndexWidth,
        row: &[u8],
        first: usize,
        places: &'a mut [Place],
    ) -> Chosen<'a> {
        // The largest codebook has 2^25 codewords of 16 rows of 64 bytes: 2^32 units.
        let units = self.patch_height * self.row_stride / UNIT;
        k.unpack(width, row, first, Scale { last: (self.codewords - 1) as u32, units: units as u32 }, places);
        Chosen { codebook: self, places, next: &[] }
    }
}

/// How indices become places.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    /// The last index of the codebook.
    pub last: u32,
    /// From one codeword to the next.
    pub units: u32,
}

impl Scale {
    /// The place of the codeword that an index stands for.
    #[inline(always)]
    pub fn place(self, index: u32) -> Place {
        index.min(self.last) * self.units
    }
}

/// The place of a codeword in the codebook.
pub(super) type Place = u32;

/// Codewords of adjacent patches.
#[derive(Clone, Copy)]
pub(super) struct Chosen<'a> {
    codebook: &'a Codebook,
    /// Each is one of a codeword of the codebook.
    places: &'a [Place],
    /// Those of patches that will be asked for after these.
    next: &'a [Place],
}

impl<'a> Chosen<'a> {
    /// Some of them; those after them come next.
    #[inline(always)]
    pub fn part(&self, start: usize, count: usize) -> Self {
        let (places, next) = self.places[start..].split_at(count);
        Self { places, next, ..*self }
    }

    #[inline(always)]
    pub fn codebook(&self) -> &'a Codebook {
        self.codebook
    }

    /// The number of patches.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The places of the codewords, patch by patch.
    #[inline(always)]
    pub fn places(&self) -> &'a [Place] {
        self.places
    }

    /// The codeword at one of these places: as many rows as a patch is high, each padded to the codebook's stride.
    #[inline(always)]
    pub fn codeword(&self, place: Place) -> *const u8 {
        self.codebook.bytes.as_slice().as_ptr().wrapping_add(place as usize * UNIT)
    }

    /// Asks for the codewords that come next, the first lines of at most `count`.
    #[inline(always)]
    pub fn prefetch_next(&self, count: usize) {
        self.next.iter().take(count).for_each(|&place| memory::prefetch(self.codeword(place)));
    }
}
