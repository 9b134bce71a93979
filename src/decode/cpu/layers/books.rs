//! The codebooks as the CPU sums from them.

use super::memory;
use crate::buffer::AlignedBytes;
use crate::error::Result;
use crate::format::books::{self, Cover, MODES};

/// The codebooks of a component, of codewords of `BLOCK` values for a block and of `QUARTER` for a quarter, one behind
/// the other. All begin at cache lines.
pub(super) struct Component<const BLOCK: usize, const QUARTER: usize> {
    bytes: AlignedBytes,
    /// What each mode sums; those that do not exist as the last one.
    pub modes: [Mode<BLOCK, QUARTER>; MODES],
    /// How many indices a block of each mode has.
    pub lens: [u8; MODES],
}

/// What the blocks of a mode are the sum of.
#[derive(Clone)]
pub(super) struct Mode<const BLOCK: usize, const QUARTER: usize> {
    pub block: Vec<Stage<BLOCK>>,
    pub quarter: Vec<Stage<QUARTER>>,
}

/// A codebook of codewords of `LEN` values: at `start` of its component's bytes are `last + 1` of them. Stages never leave
/// the modes of the component that made them but to be handed back to it.
#[derive(Clone, Copy)]
pub(super) struct Stage<const LEN: usize> {
    start: usize,
    last: u16,
}

impl<const BLOCK: usize, const QUARTER: usize> Component<BLOCK, QUARTER> {
    /// Copies the codebooks, the values of codewords in another order: those for blocks, and those for quarters.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn new(
        component: &books::Component<Vec<i8>>,
        block_order: impl Fn([i8; BLOCK]) -> [i8; BLOCK],
        quarter_order: impl Fn([i8; QUARTER]) -> [i8; QUARTER],
    ) -> Result<Self> {
        let mut starts = vec![0];
        for book in &component.books {
            starts.push(starts[starts.len() - 1] + book.codewords.len().next_multiple_of(64));
        }
        let mut bytes = AlignedBytes::try_zeroed(starts[component.books.len()])?;
        for (book, &start) in component.books.iter().zip(&starts) {
            let codewords: &mut [i8] = bytemuck::cast_slice_mut(&mut bytes.as_mut_slice()[start..]);
            let codewords = &mut codewords[..book.codewords.len()];
            codewords.copy_from_slice(&book.codewords);
            match book.cover {
                Cover::Block => {
                    codewords.as_chunks_mut().0.iter_mut().for_each(|codeword| *codeword = block_order(*codeword))
                }
                Cover::Quarter => {
                    codewords.as_chunks_mut().0.iter_mut().for_each(|codeword| *codeword = quarter_order(*codeword))
                }
            }
        }
        let mode = |mode: usize| {
            let mode = component.mode(mode);
            // A codebook has 1 to 2^16 codewords.
            let last = |book: usize, len| (component.books[book].codewords.len() / len - 1) as u16;
            Mode {
                block: mode.block.iter().map(|&b| Stage { start: starts[b], last: last(b, BLOCK) }).collect(),
                quarter: mode.quarter.iter().map(|&b| Stage { start: starts[b], last: last(b, QUARTER) }).collect(),
            }
        };
        // A block has 31 indices at most.
        Ok(Self { bytes, modes: std::array::from_fn(mode), lens: component.lens().map(|len| len as u8) })
    }

    /// What the blocks of a mode are the sum of.
    #[inline(always)]
    pub fn mode(&self, mode: u8) -> &Mode<BLOCK, QUARTER> {
        &self.modes[usize::from(mode) % MODES]
    }

    /// Most indices of a block.
    pub fn most_indices(&self) -> usize {
        self.lens.iter().max().map_or(0, |&len| len.into())
    }

    /// Asks for a codeword ahead of its use.
    #[inline(always)]
    pub fn prefetch<const LEN: usize>(&self, stage: Stage<LEN>, index: u16) {
        let codeword: *const u8 = self.codeword(stage, index).as_ptr().cast();
        (0..LEN).step_by(64).for_each(|at| memory::prefetch(codeword.wrapping_add(at)));
    }

    /// A codeword of one of this component's stages; indices beyond the last stand for that.
    #[inline(always)]
    pub fn codeword<const LEN: usize>(&self, stage: Stage<LEN>, index: u16) -> &[i8; LEN] {
        let index = usize::from(index.min(stage.last()));
        // SAFETY: the stage is of this component, whose bytes stay where and as many as `new` made them.
        unsafe { &*self.first(stage).add(index) }
    }

    /// The first codeword of one of this component's stages, followed by its others.
    #[inline(always)]
    pub fn first<const LEN: usize>(&self, stage: Stage<LEN>) -> *const [i8; LEN] {
        debug_assert!(stage.start + (usize::from(stage.last) + 1) * LEN <= self.bytes.as_slice().len());
        self.bytes.as_slice().as_ptr().wrapping_add(stage.start).cast()
    }
}

impl<const LEN: usize> Stage<LEN> {
    /// The number of its last codeword.
    #[inline(always)]
    pub fn last(self) -> u16 {
        self.last
    }
}

/// The rows of an 8x8 block, sorted into quarters of 4x4, one behind the other.
pub(super) fn by_quarters(codeword: [i8; 64]) -> [i8; 64] {
    std::array::from_fn(|i| {
        let (quarter, y, x) = (i / 16, i % 16 / 4, i % 4);
        codeword[(quarter / 2 * 4 + y) * 8 + quarter % 2 * 4 + x]
    })
}

/// The rows of 8x8 values of each of two planes: even ones, then odd ones.
pub(super) fn by_parity(codeword: [i8; 128]) -> [i8; 128] {
    std::array::from_fn(|i| {
        let (plane, row, x) = (i / 64, i % 64 / 8, i % 8);
        codeword[plane * 64 + row_at(row) * 8 + x]
    })
}

/// The row of eight that stands at a place: rows of which each is double follow one another in both halves.
pub(super) const fn row_at(place: usize) -> usize {
    place % 4 * 2 + place / 4
}
