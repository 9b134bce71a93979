//! Blocks as sums of codewords.

use super::blocks::Blocks;
use super::books::Component;
use crate::format::books::MODES;

/// 8x8 values, row by row.
pub(super) type Values = [i16; 64];

/// What is added to brightness.
const MIDDLE: i16 = 128;

/// The brightness of blocks.
#[inline(always)]
pub(super) fn luma(luma: &Component<64, 16>, blocks: &Blocks, order: &mut Vec<u32>, values: &mut [Values]) {
    // Mode by mode: what is done to one block is then done to the next, as branches are predicted.
    let mut ends = [0; MODES];
    let mode = |mode: u8| usize::from(mode) % MODES;
    blocks.modes().iter().for_each(|&m| ends[mode(m)] += 1);
    let mut start = 0;
    for end in &mut ends {
        start += std::mem::replace(end, start);
    }
    order.resize(blocks.modes().len(), 0);
    for (&m, block) in blocks.modes().iter().zip(0..) {
        let place: &mut usize = &mut ends[mode(m)];
        order[*place] = block;
        *place += 1;
    }
    for &block in order.iter() {
        let block = block as usize;
        let mode = &luma.modes[mode(blocks.modes()[block])];
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
        for (half, sums) in rows.chunks_exact_mut(4).zip(sums.as_chunks::<2>().0) {
            let [left, right] = sums.each_ref().map(|sums| sums.as_chunks::<4>().0);
            for ((row, left), right) in half.iter_mut().zip(left).zip(right) {
                row[..4].copy_from_slice(left);
                row[4..].copy_from_slice(right);
            }
        }
    }
}

#[inline(always)]
fn add<const LEN: usize>(sums: &mut [i16; LEN], codeword: &[i8; LEN]) {
    sums.iter_mut().zip(codeword).for_each(|(sum, &value)| *sum += i16::from(value));
}

/// What the colour of a tile adds to the brightness of each of its quarters: to red, green and blue.
#[inline(always)]
pub(super) fn chroma(chroma: &Component<128, 128>, blocks: &Blocks, block: usize) -> [[Values; 3]; 4] {
    let mode = &chroma.modes[usize::from(blocks.modes()[block]) % MODES];
    let (whole, indices) = blocks.indices(block).split_at(mode.block.len());
    let mut sums = [0; 128];
    mode.block.iter().zip(whole).for_each(|(&stage, &index)| add(&mut sums, chroma.codeword(stage, index)));
    if mode.quarter.is_empty() {
        let added = colour(&sums);
        return std::array::from_fn(|quarter| added.each_ref().map(|added| twofold(added, quarter)));
    }
    let (indices, _) = indices.as_chunks::<4>();
    std::array::from_fn(|quarter| {
        let mut sums: [i16; 128] = {
            let (planes, _) = sums.as_chunks();
            let [cb, cr] = [0, 1].map(|plane| twofold(&planes[plane], quarter));
            std::array::from_fn(|i| if i < 64 { cb[i] } else { cr[i - 64] })
        };
        for (&stage, indices) in mode.quarter.iter().zip(indices) {
            add(&mut sums, chroma.codeword(stage, indices[quarter]));
        }
        colour(&sums)
    })
}

/// A quarter of 8x8 values, each for 2x2.
#[inline(always)]
fn twofold(values: &Values, quarter: usize) -> Values {
    let corner = quarter / 2 * 32 + quarter % 2 * 4;
    std::array::from_fn(|i| values[corner + i / 16 * 8 + i % 8 / 2])
}

/// What Cb and Cr add to brightness for red, green and blue.
#[inline(always)]
fn colour(sums: &[i16; 128]) -> [Values; 3] {
    let mut added = [[0; 64]; 3];
    for i in 0..64 {
        let [cb, cr] = [sums[i], sums[64 + i]].map(|sum| sum.clamp(-128, 127));
        added[0][i] = cr + ((103 * cr + 128) >> 8);
        added[1][i] = ((73 * cr - 88 * cb + 128) >> 8) - cr;
        added[2][i] = cb + ((198 * cb + 128) >> 8);
    }
    added
}
