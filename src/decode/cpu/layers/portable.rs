//! Kernels for layers that run on any processor.

use super::super::output::Portable;
use super::blocks::{Blocks, WHOLE};
use super::books::{Component, Mode, row_at};
use super::image::{Kernels, quarters};
use super::tile::{MIDDLE, SIDE, Target, Tile, Values};
use crate::format::books::MODES;
use crate::format::record::{GROUP, Record};

impl Kernels for Portable {
    #[inline(always)]
    fn place(self, planes: [u32; 3], lens: &[u8; MODES], modes: &mut [u8; GROUP], starts: &mut [u32; GROUP]) -> u32 {
        place(planes, lens, modes, starts)
    }

    #[inline(always)]
    fn prefetch<const BLOCK: usize, const QUARTER: usize>(
        self,
        component: &Component<BLOCK, QUARTER>,
        blocks: &Blocks,
    ) {
        for (block, &mode) in blocks.modes().iter().enumerate() {
            prefetch(component, component.mode(mode), blocks.indices(block));
        }
    }

    #[inline(always)]
    fn unpack(self, record: &Record, number: usize, count: usize, indices: &mut [u16]) {
        unpack(record, number, count, indices);
    }

    #[inline(always)]
    fn luma(self, component: &Component<64, 16>, blocks: &Blocks, values: &mut [Values]) {
        luma(component, blocks, values);
    }

    #[inline(always)]
    fn tiles(
        self,
        values: &[Values],
        columns: usize,
        chroma: Option<(&Component<128, 128>, &Blocks)>,
        target: &mut Target,
    ) {
        match chroma {
            Some(chroma) => tiles(values, columns, chroma, target),
            None => grey_tiles(values, columns, target),
        }
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

/// Sums up the brightness of blocks.
fn luma(component: &Component<64, 16>, blocks: &Blocks, values: &mut [Values]) {
    for (block, &mode) in blocks.modes().iter().enumerate() {
        let mode = component.mode(mode);
        let (whole, indices) = blocks.indices(block).split_at(mode.block.len());
        let mut sums = [MIDDLE; 64];
        for (&stage, &index) in mode.block.iter().zip(whole) {
            add(&mut sums, component.codeword(stage, index));
        }
        for (&stage, indices) in mode.quarter.iter().zip(indices.as_chunks::<4>().0) {
            for (sums, &index) in sums.as_chunks_mut::<16>().0.iter_mut().zip(indices) {
                add(sums, component.codeword(stage, index));
            }
        }
        sort(&sums, &mut values[block]);
    }
}

// The loops below are functions of their own, so that each is compiled to a few wide instructions; inlined into one
// another they are taken apart.

#[inline(never)]
fn add<const LEN: usize>(sums: &mut [i16; LEN], codeword: &[i8; LEN]) {
    sums.iter_mut().zip(codeword).for_each(|(sum, &value)| *sum += i16::from(value));
}

/// Sorts the rows of four quarters.
#[inline(never)]
fn sort(sums: &Values, values: &mut Values) {
    let (rows, values) = (sums.as_chunks::<4>().0, values.as_chunks_mut::<4>().0);
    for (i, values) in values.iter_mut().enumerate() {
        let (y, side) = (row_at(i / 2), i % 2);
        *values = rows[(y / 4 * 2 + side) * 4 + y % 4];
    }
}

/// Makes a row of tiles.
fn tiles(values: &[Values], columns: usize, (component, blocks): (&Component<128, 128>, &Blocks), target: &mut Target) {
    let (mut planes, mut tile_bytes) = ([[0; SIDE * SIDE]; 3], [0; _]);
    let (mut once, mut added) = ([[0; 64]; 3], [[0; 64]; 3]);
    for tile in 0..columns.div_ceil(2) {
        let mode = component.mode(blocks.modes()[tile]);
        let (whole, indices) = blocks.indices(tile).split_at(mode.block.len());
        let mut sums = [0; 128];
        mode.block.iter().zip(whole).for_each(|(&stage, &index)| add(&mut sums, component.codeword(stage, index)));
        if mode.quarter.is_empty() {
            colour(&sums, &mut once);
        }
        for (quarter, luma) in quarters(values, columns, tile).into_iter().enumerate() {
            if mode.quarter.is_empty() {
                once.iter().zip(&mut added).for_each(|(once, added)| twofold(once, quarter, added));
            } else {
                let mut fine = [0; 128];
                for (fine, sums) in fine.as_chunks_mut().0.iter_mut().zip(sums.as_chunks().0) {
                    twofold(sums, quarter, fine);
                }
                for (&stage, indices) in mode.quarter.iter().zip(indices.as_chunks::<4>().0) {
                    add(&mut fine, component.codeword(stage, indices[quarter]));
                }
                colour(&fine, &mut added);
            }
            planes.iter_mut().zip(&added).for_each(|(plane, added)| fill(plane, quarter, luma, added));
        }
        match target.pixel {
            3 => interleave(&planes, &mut tile_bytes),
            _ => tile_bytes.as_chunks_mut().0.copy_from_slice(&planes),
        }
        target.put(tile, &tile_bytes);
    }
}

/// Makes a row of tiles of grey pixels.
fn grey_tiles(values: &[Values], columns: usize, target: &mut Target) {
    let mut bytes = [0; _];
    for tile in 0..columns.div_ceil(2) {
        let (planes, _) = bytes.as_chunks_mut();
        for (quarter, luma) in quarters(values, columns, tile).into_iter().enumerate() {
            fill(&mut planes[0], quarter, luma, &[0; 64]);
        }
        target.put(tile, &bytes);
    }
}

/// What Cb and Cr add to brightness for red, green and blue.
#[inline(never)]
fn colour(sums: &[i16; 128], [red, green, blue]: &mut [Values; 3]) {
    for i in 0..64 {
        let (cb, cr) = (sums[i].clamp(-128, 127), sums[64 + i].clamp(-128, 127));
        red[i] = cr + ((103 * cr + 128) >> 8);
        green[i] = ((73 * cr - 88 * cb + 128) >> 8) - cr;
        blue[i] = cb + ((198 * cb + 128) >> 8);
    }
}

/// A quarter of 8x8 values that stand row by row, each for 2x2.
#[inline(never)]
fn twofold(values: &Values, quarter: usize, fine: &mut Values) {
    let rows = &values.as_chunks::<8>().0[quarter / 2 * 4..][..4];
    let (even, odd) = fine.split_at_mut(32);
    for (fine, row) in even.as_chunks_mut::<8>().0.iter_mut().zip(rows) {
        for (x, fine) in fine.iter_mut().enumerate() {
            *fine = row[quarter % 2 * 4 + x / 2];
        }
    }
    odd.copy_from_slice(even);
}

/// Fills a quarter of a plane: brightness and what is added to it.
#[inline(never)]
fn fill(plane: &mut [u8; SIDE * SIDE], quarter: usize, luma: &Values, added: &Values) {
    let mut bytes = [0; 64];
    for i in 0..64 {
        bytes[i] = (luma[i] + added[i]).clamp(0, 255) as u8;
    }
    let (rows, _) = plane[quarter / 2 * 8 * SIDE..].as_chunks_mut::<SIDE>();
    for (place, bytes) in bytes.as_chunks::<8>().0.iter().enumerate() {
        rows[row_at(place)][quarter % 2 * 8..][..8].copy_from_slice(bytes);
    }
}

/// Interleaves the pixels of a tile.
#[inline(never)]
fn interleave([red, green, blue]: &[[u8; SIDE * SIDE]; 3], tile: &mut Tile) {
    let bytes = red.iter().zip(green).zip(blue);
    tile.as_chunks_mut().0.iter_mut().zip(bytes).for_each(|(pixel, ((&r, &g), &b))| *pixel = [r, g, b]);
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
            assert_eq!(u32::from(mode), bits.iter().sum::<u32>());
        }
    }
}
