//! Blocks as sums of codewords.

use super::blocks::Blocks;
use super::books::{Component, row_at};

/// 8x8 values: rows 0, 2, 4 and 6, then 1, 3, 5 and 7.
pub(super) type Values = [i16; 64];

/// What is added to brightness.
pub(super) const MIDDLE: i16 = 128;

/// The brightness of blocks.
#[inline(always)]
pub(super) fn luma(luma: &Component<64, 16>, blocks: &Blocks, values: &mut [Values]) {
    for (block, &mode) in blocks.modes().iter().enumerate() {
        let mode = luma.mode(mode);
        let indices = blocks.indices(block);
        let mut sums = [[MIDDLE; 16]; 4];
        let (whole, indices) = indices.split_at(mode.block.len());
        for (&stage, &index) in mode.block.iter().zip(whole) {
            let quarters = luma.codeword(stage, index).as_chunks().0;
            sums.iter_mut().zip(quarters).for_each(|(sums, quarter)| add(sums, quarter));
        }
        for (&stage, indices) in mode.quarter.iter().zip(indices.as_chunks::<4>().0) {
            sums.iter_mut().zip(indices).for_each(|(sums, &index)| add(sums, luma.codeword(stage, index)));
        }
        let (rows, _) = values[block].as_chunks_mut::<8>();
        for (place, row) in rows.iter_mut().enumerate() {
            let y = row_at(place);
            for side in 0..2 {
                let quarter = &sums[y / 4 * 2 + side];
                row[4 * side..][..4].copy_from_slice(&quarter[y % 4 * 4..][..4]);
            }
        }
    }
}

#[inline(always)]
fn add<const LEN: usize>(sums: &mut [i16; LEN], codeword: &[i8; LEN]) {
    sums.iter_mut().zip(codeword).for_each(|(sum, &value)| *sum += i16::from(value));
}

/// What the colour of a tile adds to the brightness of each of its quarters: to red, green and blue.
pub(super) type Added = [[Values; 3]; 4];

/// The colour of a block.
#[inline(always)]
pub(super) fn chroma(chroma: &Component<128, 128>, blocks: &Blocks, block: usize, added: &mut Added) {
    let mode = chroma.mode(blocks.modes()[block]);
    let (whole, indices) = blocks.indices(block).split_at(mode.block.len());
    let mut sums = [0; 128];
    mode.block.iter().zip(whole).for_each(|(&stage, &index)| add(&mut sums, chroma.codeword(stage, index)));
    if mode.quarter.is_empty() {
        let mut once = [[0; 64]; 3];
        colour(&sums, &mut once);
        for (quarter, added) in added.iter_mut().enumerate() {
            added.iter_mut().zip(&once).for_each(|(added, once)| twofold(once, quarter, added));
        }
        return;
    }
    let (indices, _) = indices.as_chunks::<4>();
    for (quarter, added) in added.iter_mut().enumerate() {
        let mut fine = [0; 128];
        for (fine, sums) in fine.as_chunks_mut().0.iter_mut().zip(sums.as_chunks().0) {
            twofold(sums, quarter, fine);
        }
        for (&stage, indices) in mode.quarter.iter().zip(indices) {
            add(&mut fine, chroma.codeword(stage, indices[quarter]));
        }
        colour(&fine, added);
    }
}

/// A quarter of 8x8 values that stand row by row, each for 2x2.
#[inline(always)]
fn twofold(values: &Values, quarter: usize, fine: &mut Values) {
    let rows = &values.as_chunks::<8>().0[quarter / 2 * 4..][..4];
    for half in fine.as_chunks_mut::<32>().0 {
        for (fine, row) in half.as_chunks_mut::<8>().0.iter_mut().zip(rows) {
            for (x, fine) in fine.iter_mut().enumerate() {
                *fine = row[quarter % 2 * 4 + x / 2];
            }
        }
    }
}

/// What Cb and Cr add to brightness for red, green and blue.
#[inline(always)]
fn colour(sums: &[i16; 128], added: &mut [Values; 3]) {
    let [red, green, blue] = added;
    for i in 0..64 {
        let (cb, cr) = (sums[i].clamp(-128, 127), sums[64 + i].clamp(-128, 127));
        red[i] = cr + ((103 * cr + 128) >> 8);
        green[i] = ((73 * cr - 88 * cb + 128) >> 8) - cr;
        blue[i] = cb + ((198 * cb + 128) >> 8);
    }
}
