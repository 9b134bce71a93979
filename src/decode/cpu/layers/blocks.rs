//! The blocks of a band: their modes, and their indices unpacked.

use std::ops::Range;

use super::books::{Component, Mode};
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
        &self.indices[self.starts()[block] as usize..]
    }
}

/// Asks for a block's codewords ahead of their use: those that cover it, and those for quarters if they are large.
#[inline(always)]
pub(super) fn prefetch<const BLOCK: usize, const QUARTER: usize>(
    component: &Component<BLOCK, QUARTER>,
    mode: &Mode<BLOCK, QUARTER>,
    indices: &[u16],
) {
    let (whole, indices) = indices.split_at(mode.block.len());
    mode.block.iter().zip(whole).for_each(|(&stage, &index)| component.prefetch(stage, index));
    if QUARTER > 64 {
        for (&stage, indices) in mode.quarter.iter().zip(indices.as_chunks::<4>().0) {
            indices.iter().for_each(|&index| component.prefetch(stage, index));
        }
    }
}

/// The modes of a group's blocks, and how many indices are before each; returns how many there are in all.
#[inline(always)]
pub(super) fn place(planes: [u32; 3], lens: &[u8; MODES], modes: &mut [u8; GROUP], starts: &mut [u32; GROUP]) -> u32 {
    *modes = spread(planes);
    let mut end = 0;
    for (&mode, start) in modes.iter().zip(starts) {
        *start = end;
        end += u32::from(lens[usize::from(mode) % MODES]);
    }
    end
}

/// The modes of a group's blocks.
#[inline(always)]
fn spread(planes: [u32; 3]) -> [u8; GROUP] {
    let planes = planes.map(u32::to_le_bytes);
    let mut modes = [0; GROUP];
    for (byte, modes) in modes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        // Eight copies, each a bit further up: the highest bits of the bytes are the bits, the last one first.
        let bits = |plane: usize| u64::from(planes[plane][byte]).wrapping_mul(0x8040_2010_0804_0201) >> 7 & ONES;
        *modes = (bits(0) | bits(1) << 1 | bits(2) << 2).to_be_bytes();
    }
    modes
}

/// A one in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;

/// Unpacks `count` indices from `number` on, a multiple of [`WHOLE`].
#[inline(always)]
pub(super) fn unpack(record: &Record, number: usize, count: usize, indices: &mut [u16]) {
    let bits = record.index_bits();
    let packed = &record.packed()[number / WHOLE * bits..];
    let mask = ((1u32 << bits) - 1) as u16;
    // Four indices take at most 64 bits, and four more bits where the second four begin within a byte.
    let word = |bytes: &[u8], start: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[start + i]));
    let unpack = |bytes: &[u8; 16], indices: &mut [u16; WHOLE]| {
        let (low, high) = (word(bytes, 0), word(bytes, bits / 2) >> (bits % 2 * 4));
        for i in 0..4 {
            indices[i] = (low >> (i * bits)) as u16 & mask;
            indices[4 + i] = (high >> (i * bits)) as u16 & mask;
        }
    };
    for (i, indices) in indices.as_chunks_mut().0.iter_mut().take(count.div_ceil(WHOLE)).enumerate() {
        let bytes = &packed[i * bits..];
        match bytes.first_chunk() {
            Some(bytes) => unpack(bytes, indices),
            None => {
                let mut last = [0; 16];
                last[..bytes.len()].copy_from_slice(bytes);
                unpack(&last, indices);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_the_bits_of_the_planes() {
        let planes = [0x1234_5678, 0xfedc_ba90, 0x8000_0001];
        let modes = spread(planes);
        for (block, &mode) in modes.iter().enumerate() {
            let bits = [0, 1, 2].map(|plane: usize| (planes[plane] >> block & 1) << plane);
            assert_eq!(u32::from(mode), bits.iter().sum());
        }
    }
}
