//! Kernels of AVX-512 with VBMI for layers.

use std::arch::x86_64::*;

use super::super::vbmi::{LANES, Vbmi, bytes, kernel};
use super::avx2;
use super::blocks::{Blocks, WHOLE};
use super::books::Component;
use super::image::{Kernels, quarters};
use super::place::Place;
use super::tile::{Target, Values};
use crate::format::books::MODES;
use crate::format::record::{GROUP, Record};

/// Words of a register.
const WORDS: usize = LANES / 2;

impl Kernels for Vbmi {
    #[inline(always)]
    fn place(self, planes: [u32; 3], lens: &[u8; MODES], modes: &mut [u8; GROUP], starts: &mut [u32; GROUP]) -> u32 {
        kernel!(avx2::place(planes, lens, modes, starts))
    }

    #[inline(never)]
    fn prefetch<const BLOCK: usize, const QUARTER: usize>(
        self,
        component: &Component<BLOCK, QUARTER>,
        blocks: &Blocks,
    ) {
        kernel!(avx2::prefetch(component, blocks))
    }

    #[inline(never)]
    fn unpack(self, record: &Record, number: usize, count: usize, indices: &mut [u16]) {
        kernel!(unpack(record, number, count, indices))
    }

    #[inline(never)]
    fn luma(self, component: &Component<64, 16>, blocks: &Blocks, values: &mut [Values]) {
        kernel!(avx2::luma(component, blocks, values))
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

/// The first four of eight values in each lane, each twice.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn left_twice(values: __m512i) -> __m512i {
    _mm512_unpacklo_epi16(values, values)
}

/// The last four of eight values in each lane, each twice.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn right_twice(values: __m512i) -> __m512i {
    _mm512_unpackhi_epi16(values, values)
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
    assert_eq!((target.planes, target.pixel), if INTERLEAVED { (1, 3) } else { (3, 1) });
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
        let place = target.place(tile, &mut edge);
        let (indices, _) = indices.as_chunks::<4>();
        for half in 0..2 {
            let (cb, cr) = (sums[half], sums[2 + half]);
            if mode.quarter.is_empty() {
                let [red, green, blue] = colour(cb, cr);
                let left = [left_twice(red), left_twice(green), left_twice(blue)];
                let right = [right_twice(red), right_twice(green), right_twice(blue)];
                for odd in 0..2 {
                    // SAFETY: the place is of such pixels, as was checked.
                    unsafe { store::<INTERLEAVED>(place, half, odd, luma, left, right) };
                }
                continue;
            }
            for odd in 0..2 {
                let fine = |quarter: usize, mut cb, mut cr| {
                    for (&stage, indices) in mode.quarter.iter().zip(indices) {
                        let codeword = component.codeword(stage, indices[quarter]).as_chunks::<WORDS>().0;
                        cb = _mm512_add_epi16(cb, thirty_two(&codeword[odd]));
                        cr = _mm512_add_epi16(cr, thirty_two(&codeword[2 + odd]));
                    }
                    colour(cb, cr)
                };
                let left = fine(2 * half, left_twice(cb), left_twice(cr));
                let right = fine(2 * half + 1, right_twice(cb), right_twice(cr));
                // SAFETY: as above.
                unsafe { store::<INTERLEAVED>(place, half, odd, luma, left, right) };
            }
        }
        target.finish(tile, &edge);
    }
}

/// Makes a row of tiles of grey pixels.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn grey_tiles(values: &[Values], columns: usize, target: &mut Target) {
    let mut edge = [0; _];
    for tile in 0..columns.div_ceil(2) {
        let luma = quarters(values, columns, tile);
        let place = target.place(tile, &mut edge);
        for (half, odd) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let [left, right] = [0, 1].map(|side| four_rows(luma[2 * half + side], odd));
            // SAFETY: the place has room for all rows.
            unsafe { store_rows(place, 0, 8 * half + odd, _mm512_packus_epi16(left, right)) };
        }
        target.finish(tile, &edge);
    }
}

/// The even or the odd rows of a quarter.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn four_rows(values: &Values, odd: usize) -> __m512i {
    let values = &values.as_chunks::<WORDS>().0[odd];
    // SAFETY: 32 values are one register.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

/// Stores four rows of 16 pixels, the even or the odd ones of the upper or lower half: brightness and what is added to it on
/// the left and on the right for red, green and blue.
///
/// # Safety
/// The place is of colour pixels, interleaved or in planes as said.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
unsafe fn store<const INTERLEAVED: bool>(
    place: Place,
    half: usize,
    odd: usize,
    luma: [&Values; 4],
    left: [__m512i; 3],
    right: [__m512i; 3],
) {
    let (luma_left, luma_right) = (four_rows(luma[2 * half], odd), four_rows(luma[2 * half + 1], odd));
    // Lanes of the left and the right half of a row each.
    let pack = |channel: usize| {
        let (left, right) = (_mm512_add_epi16(luma_left, left[channel]), _mm512_add_epi16(luma_right, right[channel]));
        _mm512_packus_epi16(left, right)
    };
    let (red, green, blue) = (pack(0), pack(1), pack(2));
    let y = 8 * half + odd;
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
        let row = |i: usize| place.row(0, y + 2 * i);
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

/// Stores four rows of 16 bytes, every second one from row `y` of a plane on.
///
/// # Safety
/// The place has such a plane, of one byte a pixel.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
unsafe fn store_rows(place: Place, plane: usize, y: usize, rows: __m512i) {
    // SAFETY: the place has room for 16 rows of 16 bytes.
    unsafe {
        let row = |i: usize| place.row(plane, y + 2 * i).cast();
        _mm_storeu_si128(row(0), _mm512_castsi512_si128(rows));
        _mm_storeu_si128(row(1), _mm512_extracti32x4_epi32::<1>(rows));
        _mm_storeu_si128(row(2), _mm512_extracti32x4_epi32::<2>(rows));
        _mm_storeu_si128(row(3), _mm512_extracti32x4_epi32::<3>(rows));
    }
}
