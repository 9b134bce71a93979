//! Kernels of AVX2 for layers.

use std::arch::x86_64::*;

use super::super::convert::Converter;
use super::super::output::{self, Stores};
use super::blocks::{Blocks, WHOLE};
use super::books::Component;
use super::image::{Kernels, quarters};
use super::place::Place;
use super::portable;
use super::tile::{MIDDLE, SIDE, Target, Values};
use crate::format::books::MODES;
use crate::format::record::{GROUP, Record};

/// Words of a register.
const WORDS: usize = 16;

/// Proof that the processor has these instructions: exists only where they are enabled.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn new() -> Self {
        Self(())
    }
}

/// Calls a kernel below from a method of an [`Avx2`].
macro_rules! kernel {
    ($call:expr) => {
        // SAFETY: an `Avx2` exists, so the processor has the instructions.
        unsafe { $call }
    };
}

impl Stores for Avx2 {
    #[inline(never)]
    fn convert(self, converter: &Converter, bytes: &[u8], run: &mut [u8], past_caches: Option<&mut [u8]>) {
        kernel!(convert(converter, bytes, run, past_caches))
    }
}

/// Converts a run by the portable source.
#[inline]
#[target_feature(enable = "avx2")]
fn convert(converter: &Converter, bytes: &[u8], run: &mut [u8], past_caches: Option<&mut [u8]>) {
    output::convert(converter, bytes, run, past_caches);
}

impl Kernels for Avx2 {
    #[inline(always)]
    fn place(self, planes: [u32; 3], lens: &[u8; MODES], modes: &mut [u8; GROUP], starts: &mut [u32; GROUP]) -> u32 {
        kernel!(place(planes, lens, modes, starts))
    }

    #[inline(never)]
    fn prefetch<const BLOCK: usize, const QUARTER: usize>(
        self,
        component: &Component<BLOCK, QUARTER>,
        blocks: &Blocks,
    ) {
        kernel!(prefetch(component, blocks))
    }

    #[inline(never)]
    fn unpack(self, record: &Record, number: usize, count: usize, indices: &mut [u16]) {
        kernel!(unpack(record, number, count, indices))
    }

    #[inline(never)]
    fn luma(self, component: &Component<64, 16>, blocks: &Blocks, values: &mut [Values]) {
        kernel!(luma(component, blocks, values))
    }

    #[inline(never)]
    fn tiles(
        self,
        values: &[Values],
        columns: usize,
        chroma: Option<(&Component<128, 128>, &Blocks)>,
        target: &mut Target,
    ) {
        match (chroma, target.pixel) {
            (Some(chroma), 3) => kernel!(tiles::<true>(values, columns, chroma, target)),
            (Some(chroma), _) => kernel!(tiles::<false>(values, columns, chroma, target)),
            (None, _) => kernel!(grey_tiles(values, columns, target)),
        }
    }
}

/// The modes of a group's blocks, and how many indices are before each; returns how many there are in all.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn place(planes: [u32; 3], lens: &[u8; MODES], modes: &mut [u8; GROUP], starts: &mut [u32; GROUP]) -> u32 {
    // Each byte of a plane eight times, of which each keeps a bit.
    let copies = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let one_each = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let bits = |plane: usize, value| {
        let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(planes[plane] as i32), copies);
        let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, one_each), one_each);
        _mm256_and_si256(set, _mm256_set1_epi8(value))
    };
    let these = _mm256_or_si256(_mm256_or_si256(bits(0, 1), bits(1, 2)), bits(2, 4));
    let lens = _mm256_shuffle_epi8(_mm256_set1_epi64x(i64::from_le_bytes(*lens)), these);
    // Running sums of eight; a block has 31 indices at most, so bytes hold them.
    let sums = _mm256_add_epi8(lens, _mm256_slli_epi64::<8>(lens));
    let sums = _mm256_add_epi8(sums, _mm256_slli_epi64::<16>(sums));
    let sums = _mm256_add_epi8(sums, _mm256_slli_epi64::<32>(sums));
    // What eight blocks have, one eight after the other.
    let mut eights = [0u64; 4];
    let before = _mm256_sub_epi8(sums, lens);
    // SAFETY: 32 modes are a register, four numbers are another.
    unsafe {
        _mm256_storeu_si256(modes.as_mut_ptr().cast(), these);
        _mm256_storeu_si256(eights.as_mut_ptr().cast(), _mm256_srli_epi64::<56>(sums));
    }
    let (low, high) = (_mm256_castsi256_si128(before), _mm256_extracti128_si256::<1>(before));
    let before = [low, _mm_srli_si128::<8>(low), high, _mm_srli_si128::<8>(high)];
    let mut all = 0;
    for ((starts, before), eight) in starts.as_chunks_mut::<8>().0.iter_mut().zip(before).zip(eights) {
        let these = _mm256_add_epi32(_mm256_cvtepu8_epi32(before), _mm256_set1_epi32(all as i32));
        // SAFETY: eight starts are a register.
        unsafe { _mm256_storeu_si256(starts.as_mut_ptr().cast(), these) };
        all += eight as u32;
    }
    all
}

/// Does something with each block, mode by mode: what is done to one is then done to the next, as branches are
/// predicted.
macro_rules! for_each_by_mode {
    ($component:expr, $blocks:expr, |$mode:ident, $block:ident| $work:expr) => {
        for (part, modes) in $blocks.modes().chunks(GROUP).enumerate() {
            let mut padded = [MODES as u8; GROUP];
            padded[..modes.len()].copy_from_slice(modes);
            // SAFETY: 32 modes are one register.
            let modes = unsafe { _mm256_loadu_si256(padded.as_ptr().cast()) };
            for (i, $mode) in $component.modes.iter().enumerate() {
                let mut left = _mm256_movemask_epi8(_mm256_cmpeq_epi8(modes, _mm256_set1_epi8(i as i8))) as u32;
                while left != 0 {
                    let $block = part * GROUP + left.trailing_zeros() as usize;
                    left &= left - 1;
                    $work
                }
            }
        }
    };
}

/// Asks for codewords ahead of their use: those that cover whole blocks, and all that are large.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn prefetch<const BLOCK: usize, const QUARTER: usize>(
    component: &Component<BLOCK, QUARTER>,
    blocks: &Blocks,
) {
    let (starts, indices) = (blocks.starts(), blocks.all_indices());
    for_each_by_mode!(component, blocks, |mode, block| {
        portable::prefetch(component, mode, &indices[starts[block] as usize..])
    });
}

/// Unpacks eight indices at a time: the three bytes that hold an index are moved to a word and shifted.
#[inline]
#[target_feature(enable = "avx2")]
fn unpack(record: &Record, number: usize, count: usize, indices: &mut [u16]) {
    let bits = record.index_bits();
    let packed = &record.packed()[number / WHOLE * bits..];
    let (whole, _) = indices.as_chunks_mut::<WHOLE>();
    let firsts = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(bits as i32));
    let copies =
        _mm256_setr_epi64x(0x0404_0404_0000_0000, 0x0c0c_0c0c_0808_0808, 0x0404_0404_0000_0000, 0x0c0c_0c0c_0808_0808);
    let bytes = _mm256_shuffle_epi8(_mm256_srli_epi32::<3>(firsts), copies);
    let from = _mm256_add_epi8(bytes, _mm256_set1_epi32(0x0302_0100));
    let shifts = _mm256_and_si256(firsts, _mm256_set1_epi32(7));
    let mask = _mm256_set1_epi32((1 << bits) - 1);
    let mut done = 0;
    for indices in whole.iter_mut().take(count.div_ceil(WHOLE)) {
        let Some(bytes) = packed.get(done / WHOLE * bits..).and_then(|bytes| bytes.first_chunk::<16>()) else { break };
        // SAFETY: sixteen bytes are read, eight indices are written.
        unsafe {
            let bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast()));
            let words = _mm256_srlv_epi32(_mm256_shuffle_epi8(bytes, from), shifts);
            let words = _mm256_and_si256(words, mask);
            let words = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(words, words));
            _mm_storeu_si128(indices.as_mut_ptr().cast(), _mm256_castsi256_si128(words));
        }
        done += WHOLE;
    }
    if done < count {
        portable::unpack(record, number + done, count - done, &mut indices[done..]);
    }
}

/// Sums up the brightness of blocks.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn luma(component: &Component<64, 16>, blocks: &Blocks, values: &mut [Values]) {
    let (starts, indices) = (blocks.starts(), blocks.all_indices());
    for_each_by_mode!(component, blocks, |mode, block| {
        let (whole, indices) = indices[starts[block] as usize..].split_at(mode.block.len());
        let mut sums = [_mm256_set1_epi16(MIDDLE); 4];
        for (&stage, &index) in mode.block.iter().zip(whole) {
            let codeword = component.codeword(stage, index).as_chunks::<WORDS>().0;
            for (sums, quarter) in sums.iter_mut().zip(codeword) {
                *sums = _mm256_add_epi16(*sums, sixteen(quarter));
            }
        }
        for (&stage, indices) in mode.quarter.iter().zip(indices.as_chunks::<4>().0) {
            // SAFETY: four indices are half a register.
            let indices = unsafe { _mm_loadl_epi64(indices.as_ptr().cast()) };
            let indices = _mm_min_epu16(indices, _mm_set1_epi16(stage.last() as i16));
            let indices = _mm_cvtsi128_si64(indices) as u64;
            let first = component.first(stage);
            for (quarter, sums) in sums.iter_mut().enumerate() {
                let index = (indices >> (16 * quarter)) as usize & 0xffff;
                // SAFETY: the index is at most the last codeword's; the stage is of this component.
                *sums = _mm256_add_epi16(*sums, sixteen(unsafe { &*first.add(index) }));
            }
        }
        let [a, b, c, d] = sums;
        let even = [_mm256_unpacklo_epi64(a, b), _mm256_unpacklo_epi64(c, d)];
        let odd = [_mm256_unpackhi_epi64(a, b), _mm256_unpackhi_epi64(c, d)];
        let rows = values[block].as_chunks_mut::<WORDS>().0.iter_mut();
        for (two, values) in even.into_iter().chain(odd).zip(rows) {
            // SAFETY: sixteen values are one register.
            unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), two) };
        }
    });
}

/// Sixteen values, widened.
#[inline]
#[target_feature(enable = "avx2")]
fn sixteen(values: &[i8; WORDS]) -> __m256i {
    // SAFETY: there are sixteen.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(values.as_ptr().cast()) })
}

/// What Cb and Cr add to brightness for red, green and blue.
#[inline]
#[target_feature(enable = "avx2")]
fn colour(cb: __m256i, cr: __m256i) -> [__m256i; 3] {
    let clamp = |sums| _mm256_max_epi16(_mm256_min_epi16(sums, _mm256_set1_epi16(127)), _mm256_set1_epi16(-128));
    let (cb, cr) = (clamp(cb), clamp(cr));
    // (factor x + 128) >> 8 is (128 factor x + 2^14) >> 15, which is one instruction.
    let scaled = |x, factor: i16| _mm256_mulhrs_epi16(x, _mm256_set1_epi16(factor * 128));
    let times = |x, factor| _mm256_mullo_epi16(x, _mm256_set1_epi16(factor));
    let green = _mm256_add_epi16(_mm256_sub_epi16(times(cr, 73), times(cb, 88)), _mm256_set1_epi16(128));
    [
        _mm256_add_epi16(cr, scaled(cr, 103)),
        _mm256_sub_epi16(_mm256_srai_epi16::<8>(green), cr),
        _mm256_add_epi16(cb, scaled(cb, 198)),
    ]
}

/// The first four of eight values in each lane, each twice.
#[inline]
#[target_feature(enable = "avx2")]
fn left_twice(values: __m256i) -> __m256i {
    _mm256_unpacklo_epi16(values, values)
}

/// The last four of eight values in each lane, each twice.
#[inline]
#[target_feature(enable = "avx2")]
fn right_twice(values: __m256i) -> __m256i {
    _mm256_unpackhi_epi16(values, values)
}

/// Makes a row of tiles, of interleaved pixels or in planes.
#[inline]
#[target_feature(enable = "avx2")]
fn tiles<const INTERLEAVED: bool>(
    values: &[Values],
    columns: usize,
    (component, blocks): (&Component<128, 128>, &Blocks),
    target: &mut Target,
) {
    assert_eq!((target.planes, target.pixel), if INTERLEAVED { (1, 3) } else { (3, 1) });
    let mut edge = [0; _];
    for tile in 0..columns.div_ceil(2) {
        let mode = component.mode(blocks.modes()[tile]);
        let (whole, indices) = blocks.indices(tile).split_at(mode.block.len());
        let (indices, _) = indices.as_chunks::<4>();
        let luma = quarters(values, columns, tile);
        let place = target.place(tile, &mut edge);
        // Two rows of Cb and Cr are four rows of a tile.
        for rows in 0..4 {
            let (mut cb, mut cr) = (_mm256_setzero_si256(), _mm256_setzero_si256());
            for (&stage, &index) in mode.block.iter().zip(whole) {
                let codeword = component.codeword(stage, index).as_chunks::<WORDS>().0;
                cb = _mm256_add_epi16(cb, sixteen(&codeword[rows]));
                cr = _mm256_add_epi16(cr, sixteen(&codeword[4 + rows]));
            }
            let (half, part) = (rows / 2, rows % 2);
            if mode.quarter.is_empty() {
                let [red, green, blue] = colour(cb, cr);
                let left = [left_twice(red), left_twice(green), left_twice(blue)];
                let right = [right_twice(red), right_twice(green), right_twice(blue)];
                for odd in 0..2 {
                    let luma = [two_rows(luma[2 * half], odd, part), two_rows(luma[2 * half + 1], odd, part)];
                    // SAFETY: the place is of such pixels, as was checked.
                    unsafe { store::<INTERLEAVED>(place, 4 * rows + odd, luma, left, right) };
                }
                continue;
            }
            for odd in 0..2 {
                let fine = |quarter: usize, mut cb, mut cr| {
                    for (&stage, indices) in mode.quarter.iter().zip(indices) {
                        let codeword = component.codeword(stage, indices[quarter]).as_chunks::<WORDS>().0;
                        cb = _mm256_add_epi16(cb, sixteen(&codeword[2 * odd + part]));
                        cr = _mm256_add_epi16(cr, sixteen(&codeword[4 + 2 * odd + part]));
                    }
                    colour(cb, cr)
                };
                let left = fine(2 * half, left_twice(cb), left_twice(cr));
                let right = fine(2 * half + 1, right_twice(cb), right_twice(cr));
                let luma = [two_rows(luma[2 * half], odd, part), two_rows(luma[2 * half + 1], odd, part)];
                // SAFETY: as above.
                unsafe { store::<INTERLEAVED>(place, 4 * rows + odd, luma, left, right) };
            }
        }
        target.finish(tile, &edge);
    }
}

/// Makes a row of tiles of grey pixels.
#[inline]
#[target_feature(enable = "avx2")]
fn grey_tiles(values: &[Values], columns: usize, target: &mut Target) {
    let mut edge = [0; _];
    for tile in 0..columns.div_ceil(2) {
        let luma = quarters(values, columns, tile);
        let place = target.place(tile, &mut edge);
        for (rows, odd) in (0..4).flat_map(|rows| [(rows, 0), (rows, 1)]) {
            let (half, part) = (rows / 2, rows % 2);
            let (left, right) = (two_rows(luma[2 * half], odd, part), two_rows(luma[2 * half + 1], odd, part));
            // SAFETY: the place has room for all rows.
            unsafe { store_rows(place.row(0, 4 * rows + odd), place.stride(), _mm256_packus_epi16(left, right)) };
        }
        target.finish(tile, &edge);
    }
}

/// The first or last two of a quarter's even or odd rows.
#[inline]
#[target_feature(enable = "avx2")]
fn two_rows(values: &Values, odd: usize, part: usize) -> __m256i {
    let values = &values.as_chunks::<WORDS>().0[2 * odd + part];
    // SAFETY: sixteen values are one register.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

/// Stores rows `y` and `y + 2` of a tile: brightness and what is added to it for red, green and blue, each on the left and
/// on the right.
///
/// # Safety
/// The place is of colour pixels, interleaved or in planes as said.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store<const INTERLEAVED: bool>(
    place: Place,
    y: usize,
    luma: [__m256i; 2],
    left: [__m256i; 3],
    right: [__m256i; 3],
) {
    // Lanes of the left and the right half of a row each.
    let pack = |channel: usize| {
        let (left, right) = (_mm256_add_epi16(luma[0], left[channel]), _mm256_add_epi16(luma[1], right[channel]));
        _mm256_packus_epi16(left, right)
    };
    let channels = [pack(0), pack(1), pack(2)];
    for (part, bytes) in channels.into_iter().enumerate() {
        // SAFETY: the place has room for all rows, of three planes or of three times sixteen bytes.
        unsafe {
            match INTERLEAVED {
                true => store_rows(place.row(0, y).add(SIDE * part), place.stride(), third(channels, part)),
                false => store_rows(place.row(part, y), place.stride(), bytes),
            }
        }
    }
}

/// A third of sixteen interleaved pixels in each lane.
#[inline]
#[target_feature(enable = "avx2")]
fn third(channels: [__m256i; 3], part: usize) -> __m256i {
    /// For each third and channel where its bytes come from; nowhere those of others.
    const FROM: [[[i8; 16]; 3]; 3] = {
        let mut from = [[[-1; 16]; 3]; 3];
        let mut i = 0;
        while i < 3 * SIDE {
            from[i / SIDE][i % 3][i % SIDE] = (i / 3) as i8;
            i += 1;
        }
        from
    };
    let [red, green, blue] = [0, 1, 2].map(|channel: usize| {
        // SAFETY: sixteen bytes are half a register.
        let from = unsafe { _mm_loadu_si128(FROM[part][channel].as_ptr().cast()) };
        _mm256_shuffle_epi8(channels[channel], _mm256_broadcastsi128_si256(from))
    });
    _mm256_or_si256(_mm256_or_si256(red, green), blue)
}

/// Stores sixteen bytes at an address and sixteen two rows below.
///
/// # Safety
/// There is room.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store_rows(row: *mut u8, stride: usize, rows: __m256i) {
    // SAFETY: as promised.
    unsafe {
        _mm_storeu_si128(row.cast(), _mm256_castsi256_si128(rows));
        _mm_storeu_si128(row.add(2 * stride).cast(), _mm256_extracti128_si256::<1>(rows));
    }
}
