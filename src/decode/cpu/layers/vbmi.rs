//! Kernels of AVX-512 with VBMI for layers.

use std::arch::x86_64::*;

use super::super::vbmi::{LANES, Vbmi, bytes, kernel};
use super::blocks::{Blocks, WHOLE};
use super::books::{Component, Mode};
use super::image::{Kernels, quarters};
use super::sums::{MIDDLE, Values};
use super::tile::{SIDE, Target, Tile};
use crate::format::record::Record;

/// Words of a register.
const WORDS: usize = LANES / 2;

impl Kernels for Vbmi {
    #[inline(never)]
    fn unpack(self, record: &Record, number: usize, count: usize, indices: &mut [u16]) {
        kernel!(unpack(record, number, count, indices))
    }

    #[inline(never)]
    fn luma(self, component: &Component<64, 16>, blocks: &Blocks, _: &mut Vec<u32>, values: &mut [Values]) {
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

/// A register of words by a formula.
macro_rules! words {
    (|$i:ident| $value:expr) => {{
        const FORMULA: [u16; WORDS] = {
            let mut words = [0; WORDS];
            let mut $i = 0;
            while $i < WORDS {
                words[$i] = ($value) as u16;
                $i += 1;
            }
            words
        };
        // SAFETY: there are as many words.
        unsafe { _mm512_loadu_si512(FORMULA.as_ptr().cast()) }
    }};
}

/// Unpacks 32 indices at a time: bytes are moved to the eight bytes that hold four indices, and each index is then cut
/// out by its first bit.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn unpack(record: &Record, number: usize, count: usize, indices: &mut [u16]) {
    let bits = record.index_bits();
    let (indices, _) = indices.as_chunks_mut::<WORDS>();
    let indices = &mut indices[..count.div_ceil(WORDS)];
    let packed = &record.packed()[number / WHOLE * bits..];
    // Four indices begin at byte `bits / 2` times their place, four bits later where that is odd.
    let starts = _mm512_mul_epu32(_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7), _mm512_set1_epi64(bits as i64));
    let eight = _mm512_shuffle_epi8(_mm512_srli_epi64::<1>(starts), bytes!(|i| i / 8 % 2 * 8));
    let from = _mm512_add_epi8(eight, bytes!(|i| i % 8));
    let odd = _mm512_slli_epi64::<2>(_mm512_and_si512(starts, _mm512_set1_epi64(1)));
    let odd = _mm512_shuffle_epi8(odd, bytes!(|i| i / 8 % 2 * 8));
    let first = 0x0800_0800_0800_0800 + bits as i64 * 0x0303_0202_0101_0000;
    let shifts = _mm512_add_epi8(odd, _mm512_set1_epi64(first));
    let mask = _mm512_set1_epi16(((1u32 << bits) - 1) as i16);
    for (i, indices) in indices.iter_mut().enumerate() {
        let packed = &packed[i * WORDS / 8 * bits..];
        let present = if packed.len() >= LANES { !0 } else { (1 << packed.len()) - 1 };
        // SAFETY: no byte behind the record is read; 32 indices are one register.
        unsafe {
            let bytes = _mm512_maskz_loadu_epi8(present, packed.as_ptr().cast());
            let cut = _mm512_multishift_epi64_epi8(shifts, _mm512_permutexvar_epi8(from, bytes));
            _mm512_storeu_si512(indices.as_mut_ptr().cast(), _mm512_and_si512(cut, mask));
        }
    }
}

/// Sums up the brightness of blocks, mode by mode: what is done to one is then done to the next, as branches are
/// predicted.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn luma(component: &Component<64, 16>, blocks: &Blocks, values: &mut [Values]) {
    for (part, modes) in blocks.modes().chunks(LANES).enumerate() {
        let present = if modes.len() == LANES { !0 } else { (1 << modes.len()) - 1 };
        // SAFETY: no byte behind the modes is read.
        let modes = unsafe { _mm512_maskz_loadu_epi8(present, modes.as_ptr().cast()) };
        for (i, mode) in component.modes.iter().enumerate() {
            let mut left = _mm512_mask_cmpeq_epi8_mask(present, modes, _mm512_set1_epi8(i as i8));
            while left != 0 {
                let block = part * LANES + left.trailing_zeros() as usize;
                left &= left - 1;
                sum_luma(component, mode, blocks.indices(block), &mut values[block]);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn sum_luma(component: &Component<64, 16>, mode: &Mode<64, 16>, indices: &[u16], values: &mut Values) {
    let mut sums = [_mm256_set1_epi16(MIDDLE); 4];
    let (whole, indices) = indices.split_at(mode.block.len());
    for (&stage, &index) in mode.block.iter().zip(whole) {
        let codeword = component.codeword(stage, index).as_chunks::<16>().0;
        for quarter in 0..4 {
            sums[quarter] = _mm256_add_epi16(sums[quarter], sixteen(&codeword[quarter]));
        }
    }
    for (&stage, indices) in mode.quarter.iter().zip(indices.as_chunks::<4>().0) {
        for quarter in 0..4 {
            let codeword = component.codeword(stage, indices[quarter]);
            sums[quarter] = _mm256_add_epi16(sums[quarter], sixteen(codeword));
        }
    }
    // Four values each: rows of the left quarter, then of the right one.
    let rows = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    for (half, values) in values.as_chunks_mut::<WORDS>().0.iter_mut().enumerate() {
        let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(sums[2 * half]), sums[2 * half + 1]);
        // SAFETY: 32 values are one register.
        unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), _mm512_permutexvar_epi64(rows, both)) };
    }
}

/// Sixteen values, widened.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn sixteen(values: &[i8; 16]) -> __m256i {
    // SAFETY: there are sixteen.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(values.as_ptr().cast()) })
}

/// 32 values, widened.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn thirty_two(values: &[i8; 32]) -> __m512i {
    // SAFETY: there are 32.
    _mm512_cvtepi8_epi16(unsafe { _mm256_loadu_si256(values.as_ptr().cast()) })
}

/// What Cb and Cr add to brightness for red, green and blue.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn colour(cb: __m512i, cr: __m512i) -> [__m512i; 3] {
    let clamp = |sums| _mm512_max_epi16(_mm512_min_epi16(sums, _mm512_set1_epi16(127)), _mm512_set1_epi16(-128));
    let (cb, cr) = (clamp(cb), clamp(cr));
    // (factor x + 128) >> 8 is (128 factor x + 2^14) >> 15, which is one instruction.
    let scaled = |x, factor: i16| _mm512_mulhrs_epi16(x, _mm512_set1_epi16(factor * 128));
    let times = |x, factor| _mm512_mullo_epi16(x, _mm512_set1_epi16(factor));
    let green = _mm512_add_epi16(_mm512_sub_epi16(times(cr, 73), times(cb, 88)), _mm512_set1_epi16(128));
    [
        _mm512_add_epi16(cr, scaled(cr, 103)),
        _mm512_sub_epi16(_mm512_srai_epi16::<8>(green), cr),
        _mm512_add_epi16(cb, scaled(cb, 198)),
    ]
}

/// Makes a row of tiles, of interleaved pixels or in planes.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn tiles<const INTERLEAVED: bool>(
    values: &[Values],
    columns: usize,
    (component, blocks): (&Component<128, 128>, &Blocks),
    target: &mut Target,
) {
    // A row of eight values from half as many, each twice, and each row twice: the left or right half of the first or
    // last two of four rows.
    let twofold = words!(|i| i / 16 * 8 + i % 8 / 2);
    let right = _mm512_set1_epi16(4);
    let below = _mm512_set1_epi16(16);
    let twofold = [
        [twofold, _mm512_add_epi16(twofold, right)],
        [_mm512_add_epi16(twofold, below), _mm512_add_epi16(_mm512_add_epi16(twofold, below), right)],
    ];
    let mut edge = [0; _];
    for tile in 0..columns.div_ceil(2) {
        let mode = component.mode(blocks.modes()[tile]);
        let (whole, indices) = blocks.indices(tile).split_at(mode.block.len());
        // Upper and lower half of Cb, then of Cr.
        let mut sums = [_mm512_setzero_si512(); 4];
        for (&stage, &index) in mode.block.iter().zip(whole) {
            let codeword = component.codeword(stage, index).as_chunks::<WORDS>().0;
            for part in 0..4 {
                sums[part] = _mm512_add_epi16(sums[part], thirty_two(&codeword[part]));
            }
        }
        let luma = quarters(values, columns, tile);
        let whole = target.holds(tile);
        let place = if whole { Place::within(target, tile) } else { Place::of(&mut edge, target.pixel) };
        if mode.quarter.is_empty() {
            for half in 0..2 {
                let [red, green, blue] = colour(sums[half], sums[2 + half]);
                for (rows, [left, right]) in twofold.into_iter().enumerate() {
                    let fine = |from| [red, green, blue].map(|added| _mm512_permutexvar_epi16(from, added));
                    // SAFETY: the place has room for all rows.
                    unsafe { store::<INTERLEAVED>(place, half, rows, luma, fine(left), fine(right)) };
                }
            }
        } else {
            let (indices, _) = indices.as_chunks::<4>();
            for half in 0..2 {
                for (rows, [left, right]) in twofold.into_iter().enumerate() {
                    let fine = |side: usize, from| {
                        let mut cb = _mm512_permutexvar_epi16(from, sums[half]);
                        let mut cr = _mm512_permutexvar_epi16(from, sums[2 + half]);
                        for (&stage, indices) in mode.quarter.iter().zip(indices) {
                            let codeword = component.codeword(stage, indices[2 * half + side]).as_chunks::<WORDS>().0;
                            cb = _mm512_add_epi16(cb, thirty_two(&codeword[rows]));
                            cr = _mm512_add_epi16(cr, thirty_two(&codeword[2 + rows]));
                        }
                        colour(cb, cr)
                    };
                    // SAFETY: as above.
                    unsafe { store::<INTERLEAVED>(place, half, rows, luma, fine(0, left), fine(1, right)) };
                }
            }
        }
        if !whole {
            target.put(tile, &edge);
        }
    }
}

/// Makes a row of tiles of grey pixels.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn grey_tiles(values: &[Values], columns: usize, target: &mut Target) {
    let mut edge = [0; _];
    for tile in 0..columns.div_ceil(2) {
        let luma = quarters(values, columns, tile);
        let whole = target.holds(tile);
        let place = if whole { Place::within(target, tile) } else { Place::of(&mut edge, target.pixel) };
        for (half, rows) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let [left, right] = [0, 1].map(|side| thirty_two_of(luma[2 * half + side], rows));
            // SAFETY: the place has room for all rows.
            unsafe { store_rows(place, 0, 8 * half + 4 * rows, _mm512_packus_epi16(left, right)) };
        }
        if !whole {
            target.put(tile, &edge);
        }
    }
}

/// Where the rows of a tile go: there is room for sixteen of sixteen pixels, in each plane.
#[derive(Clone, Copy)]
struct Place {
    start: *mut u8,
    stride: usize,
    plane: usize,
}

impl Place {
    /// A tile's place in a row of them, which holds it.
    #[inline(always)]
    fn within(target: &mut Target, tile: usize) -> Self {
        let Target { planes, pixel, stride, plane, .. } = *target;
        let bytes = &mut target.bytes[tile * SIDE * pixel..];
        assert!(bytes.len() >= (planes - 1) * plane + (SIDE - 1) * stride + SIDE * pixel);
        Self { start: bytes.as_mut_ptr(), stride, plane }
    }

    /// A tile by itself.
    #[inline(always)]
    fn of(tile: &mut Tile, pixel: usize) -> Self {
        Self { start: tile.as_mut_ptr(), stride: SIDE * pixel, plane: SIDE * SIDE }
    }
}

/// Values of four rows of a quarter.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn thirty_two_of(values: &Values, rows: usize) -> __m512i {
    let values = &values.as_chunks::<WORDS>().0[rows];
    // SAFETY: 32 values are one register.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

/// Stores four rows of 16 pixels, the lower or upper ones of a row of quarters: brightness and what is added to it on the
/// left and on the right for red, green and blue.
///
/// # Safety
/// The place is of colour pixels, interleaved or in planes as said.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
unsafe fn store<const INTERLEAVED: bool>(
    place: Place,
    half: usize,
    rows: usize,
    luma: [&Values; 4],
    left: [__m512i; 3],
    right: [__m512i; 3],
) {
    let (luma_left, luma_right) = (thirty_two_of(luma[2 * half], rows), thirty_two_of(luma[2 * half + 1], rows));
    // Lanes of the left and the right half of a row each.
    let pack = |channel: usize| {
        let (left, right) = (_mm512_add_epi16(luma_left, left[channel]), _mm512_add_epi16(luma_right, right[channel]));
        _mm512_packus_epi16(left, right)
    };
    let (red, green, blue) = (pack(0), pack(1), pack(2));
    let y = 8 * half + 4 * rows;
    if !INTERLEAVED {
        // SAFETY: the place has room for all rows of three planes.
        unsafe {
            store_rows(place, 0, y, red);
            store_rows(place, 1, y, green);
            store_rows(place, 2, y, blue);
        }
        return;
    }
    // The first 32 bytes of two rows, then of the other two, then the last 16 of all.
    let two = bytes!(|i| i / 32 * 16 + i % 32 / 3 + i % 32 % 3 % 2 * 64);
    let other_two = _mm512_add_epi8(two, _mm512_set1_epi8(32));
    let last = bytes!(|i| i / 16 * 16 + (32 + i % 16) / 3 + (32 + i % 16) % 3 % 2 * 64);
    let blues = every_third(2, 32);
    let last_blues = every_third(0, 16);
    // SAFETY: 16 pixels of 3 bytes are 48 bytes, and the place has room for all rows.
    unsafe {
        let row = |i| place.start.add((y + i) * place.stride);
        let interleave = |from, blues| {
            let bytes = _mm512_permutex2var_epi8(red, from, green);
            _mm512_mask_permutexvar_epi8(bytes, blues, from, blue)
        };
        let (two, other_two, last) =
            (interleave(two, blues), interleave(other_two, blues), interleave(last, last_blues));
        _mm256_storeu_si256(row(0).cast(), _mm512_castsi512_si256(two));
        _mm256_storeu_si256(row(1).cast(), _mm512_extracti64x4_epi64::<1>(two));
        _mm256_storeu_si256(row(2).cast(), _mm512_castsi512_si256(other_two));
        _mm256_storeu_si256(row(3).cast(), _mm512_extracti64x4_epi64::<1>(other_two));
        _mm_storeu_si128(row(0).add(32).cast(), _mm512_castsi512_si128(last));
        _mm_storeu_si128(row(1).add(32).cast(), _mm512_extracti32x4_epi32::<1>(last));
        _mm_storeu_si128(row(2).add(32).cast(), _mm512_extracti32x4_epi32::<2>(last));
        _mm_storeu_si128(row(3).add(32).cast(), _mm512_extracti32x4_epi32::<3>(last));
    }
}

/// A mask of every third byte from `first` on in each run of `len` bytes.
const fn every_third(first: usize, len: usize) -> u64 {
    let (mut mask, mut i) = (0, 0);
    while i < LANES {
        mask |= ((i % len % 3 == first) as u64) << i;
        i += 1;
    }
    mask
}

/// Stores four rows of 16 bytes, from row `y` of a plane on.
///
/// # Safety
/// The place has such a plane, of one byte a pixel.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
unsafe fn store_rows(place: Place, plane: usize, y: usize, rows: __m512i) {
    // SAFETY: the place has room for 16 rows of 16 bytes.
    unsafe {
        let row = |i| place.start.add(plane * place.plane + (y + i) * place.stride).cast();
        _mm_storeu_si128(row(0), _mm512_castsi512_si128(rows));
        _mm_storeu_si128(row(1), _mm512_extracti32x4_epi32::<1>(rows));
        _mm_storeu_si128(row(2), _mm512_extracti32x4_epi32::<2>(rows));
        _mm_storeu_si128(row(3), _mm512_extracti32x4_epi32::<3>(rows));
    }
}
