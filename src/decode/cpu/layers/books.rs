//! The codebooks as the CPU sums from them.

use crate::buffer::AlignedBytes;
use crate::format::books::{self, MODES};

/// The codebooks of a component, of codewords of `BLOCK` values for a block and of `QUARTER` for a quarter, one behind
/// the other. All begin at cache lines.
pub(super) struct Component<const BLOCK: usize, const QUARTER: usize> {
    bytes: AlignedBytes,
    /// What each mode sums; those that do not exist as the last one.
    pub modes: [Mode<BLOCK, QUARTER>; MODES],
    /// How many indices a block of each mode has.
    pub lens: [u32; MODES],
}

/// What the blocks of a mode are the sum of.
#[derive(Clone)]
pub(super) struct Mode<const BLOCK: usize, const QUARTER: usize> {
    pub block: Vec<Stage<BLOCK>>,
    pub quarter: Vec<Stage<QUARTER>>,
}

/// A codebook of codewords of `LEN` values. At `start` of its component's bytes are `last + 1` of them.
#[derive(Clone, Copy)]
pub(super) struct Stage<const LEN: usize> {
    start: usize,
    last: usize,
}

impl<const BLOCK: usize, const QUARTER: usize> Component<BLOCK, QUARTER> {
    /// Copies the codebooks, the codewords of blocks in another order.
    pub fn new(component: &books::Component<Vec<i8>>, order: impl Fn([i8; BLOCK]) -> [i8; BLOCK]) -> Self {
        let mut starts = vec![0];
        for book in &component.books {
            starts.push(starts[starts.len() - 1] + book.codewords.len().next_multiple_of(64));
        }
        let mut bytes = AlignedBytes::zeroed(starts[component.books.len()]);
        for (book, &start) in component.books.iter().zip(&starts) {
            let codewords: &mut [i8] = bytemuck::cast_slice_mut(&mut bytes.as_mut_slice()[start..]);
            let codewords = &mut codewords[..book.codewords.len()];
            codewords.copy_from_slice(&book.codewords);
            if book.cover == books::Cover::Block {
                codewords.as_chunks_mut().0.iter_mut().for_each(|codeword| *codeword = order(*codeword));
            }
        }
        let mode = |mode: usize| {
            let mode = component.mode(mode);
            let last = |book: usize, len| component.books[book].codewords.len() / len - 1;
            Mode {
                block: mode.block.iter().map(|&b| Stage { start: starts[b], last: last(b, BLOCK) }).collect(),
                quarter: mode.quarter.iter().map(|&b| Stage { start: starts[b], last: last(b, QUARTER) }).collect(),
            }
        };
        Self { bytes, modes: std::array::from_fn(mode), lens: component.lens() }
    }

    /// What the blocks of a mode are the sum of.
    #[inline(always)]
    pub fn mode(&self, mode: u8) -> &Mode<BLOCK, QUARTER> {
        &self.modes[usize::from(mode) % MODES]
    }

    /// Most indices of a block.
    pub fn most_indices(&self) -> usize {
        self.lens.iter().max().map_or(0, |&len| len as usize)
    }

    /// A codeword of one of this component's stages; indices beyond the last stand for that.
    #[inline(always)]
    pub fn codeword<const LEN: usize>(&self, stage: Stage<LEN>, index: u16) -> &[i8; LEN] {
        let start = stage.start + usize::from(index).min(stage.last) * LEN;
        // SAFETY: `new` alone makes stages, each of a codebook that it copied; its component's bytes stay as many.
        unsafe { &*self.bytes.as_slice().as_ptr().add(start).cast() }
    }
}

/// The rows of an 8x8 block, sorted into quarters of 4x4, one behind the other.
pub(super) fn by_quarters(codeword: [i8; 64]) -> [i8; 64] {
    std::array::from_fn(|i| {
        let (quarter, y, x) = (i / 16, i % 16 / 4, i % 4);
        codeword[(quarter / 2 * 4 + y) * 8 + quarter % 2 * 4 + x]
    })
}
