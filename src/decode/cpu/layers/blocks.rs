//! The blocks of a band: their modes, and their indices unpacked.

use std::ops::Range;

use super::books::Component;
use super::image::Kernels;
use crate::format::books::MODES;
use crate::format::record::{GROUP, Record};

/// Indices are unpacked from a multiple of this number on, which always begins at a byte.
pub(super) const WHOLE: usize = 8;

/// By how many indices more than were asked for `Kernels::unpack` may write.
pub(super) const SLACK: usize = 32;

/// Blocks that follow one another.
#[derive(Default)]
pub(super) struct Blocks {
    /// The mode of each block, in whole groups.
    modes: Vec<[u8; GROUP]>,
    /// Where the indices of each begin.
    starts: Vec<[u32; GROUP]>,
    /// Which blocks of the groups they are.
    range: Range<usize>,
    indices: Vec<u16>,
}

impl Blocks {
    /// Makes room for so many blocks.
    pub fn fit<const BLOCK: usize, const QUARTER: usize>(
        &mut self,
        component: &Component<BLOCK, QUARTER>,
        blocks: usize,
    ) {
        let groups = blocks / GROUP + 2;
        let indices = blocks * component.most_indices() + groups * WHOLE + SLACK;
        if self.modes.len() < groups {
            self.modes.resize(groups, [0; _]);
            self.starts.resize(groups, [0; _]);
        }
        if self.indices.len() < indices {
            self.indices.resize(indices, 0);
        }
    }

    /// Reads a range of a component's blocks, whose groups begin with `first_group`.
    #[inline(always)]
    pub fn read<K: Kernels>(
        &mut self,
        k: K,
        record: &Record,
        lens: &[u8; MODES],
        first_group: usize,
        blocks: Range<usize>,
    ) {
        let groups = blocks.start / GROUP..blocks.end.div_ceil(GROUP);
        let before = groups.start * GROUP;
        self.range = blocks.start - before..blocks.end - before;
        let mut filled = 0;
        for (i, (modes, starts)) in self.modes.iter_mut().zip(&mut self.starts).enumerate().take(groups.len()) {
            let group = record.group(first_group + groups.start + i);
            let all = k.place(group.planes, lens, modes, starts);
            let first = starts[self.range.start.saturating_sub(i * GROUP)];
            let end = starts.get(self.range.end - i * GROUP).copied().unwrap_or(all);
            // What is before the first index is unpacked with it and belongs to nobody.
            let number = group.first.wrapping_add(first);
            let lead = number % WHOLE as u32;
            let (number, count) = (number - lead, (lead + end - first) as usize);
            let place = (filled as u32 + lead).wrapping_sub(first);
            starts.iter_mut().for_each(|start| *start = start.wrapping_add(place));
            let indices = &mut self.indices[filled..];
            match number as usize + count <= record.len() {
                true => k.unpack(record, number as usize, count, indices),
                false => {
                    let indices = indices[..count].iter_mut().zip(0..);
                    indices.for_each(|(index, i)| *index = record.index(number.wrapping_add(i)) as u16);
                }
            }
            filled += count;
        }
    }

    /// The mode of each block.
    #[inline(always)]
    pub fn modes(&self) -> &[u8] {
        &self.modes.as_flattened()[self.range.clone()]
    }

    /// Where the indices of each block begin.
    #[inline(always)]
    pub fn starts(&self) -> &[u32] {
        &self.starts.as_flattened()[self.range.clone()]
    }

    /// The indices of all blocks, and more.
    #[inline(always)]
    pub fn all_indices(&self) -> &[u16] {
        &self.indices
    }

    /// The indices from a block's first on.
    #[inline(always)]
    pub fn indices(&self, block: usize) -> &[u16] {
        &self.all_indices()[self.starts()[block] as usize..]
    }
}
