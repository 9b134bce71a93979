//! Kernels of AVX-512 with VBMI for codebooks of patches.

use std::arch::x86_64::*;

use super::super::vbmi::{LANES, Vbmi, bytes, kernel};
use super::codebook::{Chosen, Place, Scale};
use super::image::Kernels;
use super::{convert, gather, memory};
use crate::format::index::IndexWidth;

/// How many patches ahead codewords are asked for: as long as it takes to fetch one from far caches.
const AHEAD: usize = 32;

// None is inlined, so that each kernel has all registers to itself; in one loop with others it spills them.
//
// SAFETY: `unpack` asserts that the row has as many indices as there are places, and replaces each.
unsafe impl Kernels for Vbmi {
    #[inline(never)]
    fn unpack(self, width: IndexWidth, row: &[u8], first: usize, scale: Scale, places: &mut [Place]) {
        kernel!(unpack(width, row, first, scale, places))
    }

    #[inline(never)]
    fn gather(self, chosen: Chosen, row_len: usize, band: &mut [u8]) {
        let codebook = chosen.codebook();
        let full = band.len() / row_len == codebook.patch_height() && chosen.len() * codebook.row_len() == row_len;
        match (codebook.row_len(), codebook.patch_height()) {
            (12, 4) if full && chosen.len().is_multiple_of(4) => kernel!(gather_4x4(chosen, row_len, band)),
            (6, 2) if full && chosen.len().is_multiple_of(8) => kernel!(gather_2x2(chosen, row_len, band)),
            _ => kernel!(gather_any(chosen, row_len, band)),
        }
    }

    #[inline(never)]
    fn deinterleave(self, pixels: &[u8], channels: usize, planes: &mut [u8]) {
        match channels {
            3 => kernel!(deinterleave_3(pixels, planes)),
            _ => convert::deinterleave(pixels, channels, planes),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn gather_any(chosen: Chosen, row_len: usize, band: &mut [u8]) {
    gather::gather(chosen, row_len, band);
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn unpack(width: IndexWidth, row: &[u8], first: usize, scale: Scale, places: &mut [Place]) {
    assert!(row.len() >= width.row_len(first + places.len()));
    let row = &row[first * width.bits() / 8..];
    match width.bits() {
        8 => places.iter_mut().zip(row).for_each(|(place, &index)| *place = scale.place(index.into())),
        16 => {
            let indices = row.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes).into());
            places.iter_mut().zip(indices).for_each(|(place, index)| *place = scale.place(index));
        }
        32 => {
            let indices = row.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes));
            places.iter_mut().zip(indices).for_each(|(place, index)| *place = scale.place(index));
        }
        bits => unpack_packed(bits, row, first * bits % 8, scale, places),
    }
}

/// Reads bit-packed indices of up to 25 bits; the first begins at bit `shift` of the row's first byte.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn unpack_packed(bits: usize, row: &[u8], shift: usize, scale: Scale, places: &mut [Place]) {
    assert!(bits <= 25 && shift < 8 && row.len() * 8 >= shift + places.len() * bits);
    // Sixteen indices take whole bytes, so every sixteen begin at the same bit. Each index lies in the four bytes from
    // that of its first bit on.
    let mut from = [0u8; LANES];
    let mut shifts = [0u32; 16];
    for (i, target) in shifts.iter_mut().enumerate() {
        let bit = shift + i * bits;
        (0..4).for_each(|byte| from[i * 4 + byte] = (bit / 8 + byte) as u8);
        *target = (bit % 8) as u32;
    }
    // SAFETY: both arrays are as long as a register.
    let (from, shifts) =
        unsafe { (_mm512_loadu_si512(from.as_ptr().cast()), _mm512_loadu_si512(shifts.as_ptr().cast())) };
    let mask = _mm512_set1_epi32((1 << bits) - 1);
    let (last, units) = (_mm512_set1_epi32(scale.last as i32), _mm512_set1_epi32(scale.units as i32));
    let (groups, rest) = places.as_chunks_mut::<16>();
    let mut start = 0;
    let read = |start: usize| {
        let left = row.len() - start;
        let present = if left >= LANES { !0 } else { (1 << left) - 1 };
        // SAFETY: no byte behind the row is read.
        let bytes = unsafe { _mm512_maskz_loadu_epi8(present, row.as_ptr().add(start).cast()) };
        let indices = _mm512_and_si512(_mm512_srlv_epi32(_mm512_permutexvar_epi8(from, bytes), shifts), mask);
        _mm512_mullo_epi32(_mm512_min_epu32(indices, last), units)
    };
    for group in groups {
        // SAFETY: sixteen words.
        unsafe { _mm512_storeu_si512(group.as_mut_ptr().cast(), read(start)) };
        start += bits * 2;
    }
    if !rest.is_empty() {
        let mut group = [0; 16];
        // SAFETY: sixteen words.
        unsafe { _mm512_storeu_si512(group.as_mut_ptr().cast(), read(start)) };
        rest.copy_from_slice(&group[..rest.len()]);
    }
}

/// Copies 4x4 RGB codewords (4 rows of 12 bytes, 16 apart) side by side: four at a time.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn gather_4x4(chosen: Chosen, row_len: usize, band: &mut [u8]) {
    assert!(chosen.len().is_multiple_of(4) && band.len() == 4 * row_len && chosen.len() * 12 == row_len);
    // Two patches: their rows 0 (24 bytes) and 1 in the halves of a register, likewise rows 2 and 3.
    let pair = bytes!(|i| {
        let (row, place) = (i / 32, i % 32);
        if place < 24 { row * 16 + place % 12 + place / 12 * 64 } else { 0 }
    });
    let pair_below = _mm512_add_epi8(pair, _mm512_set1_epi8(32));
    // Two such pairs: one row of four patches.
    let quad = bytes!(|i| if i < 24 {
        i
    } else if i < 48 {
        64 + i - 24
    } else {
        0
    });
    let quad_below = _mm512_add_epi8(quad, _mm512_set1_epi8(32));
    let mut ahead = ahead::<4>(&chosen).iter();
    for (group, places) in chosen.places().as_chunks::<4>().0.iter().enumerate() {
        if let Some(places) = ahead.next() {
            places.iter().for_each(|&place| memory::prefetch(chosen.codeword(place)));
        }
        // SAFETY: at a place is a codeword, of 4 rows of 16 bytes.
        let [a, b, c, d] = places.map(|place| unsafe { _mm512_loadu_si512(chosen.codeword(place).cast()) });
        let left = _mm512_permutex2var_epi8(a, pair, b);
        let left_below = _mm512_permutex2var_epi8(a, pair_below, b);
        let right = _mm512_permutex2var_epi8(c, pair, d);
        let right_below = _mm512_permutex2var_epi8(c, pair_below, d);
        let rows = [
            _mm512_permutex2var_epi8(left, quad, right),
            _mm512_permutex2var_epi8(left, quad_below, right),
            _mm512_permutex2var_epi8(left_below, quad, right_below),
            _mm512_permutex2var_epi8(left_below, quad_below, right_below),
        ];
        for (y, row) in rows.into_iter().enumerate() {
            // SAFETY: row `y` of the band holds 12 bytes of each patch.
            unsafe { store_48(band.as_mut_ptr().add(y * row_len + group * 48), row) };
        }
    }
    prefetch_next(&chosen);
}

/// Copies 2x2 RGB codewords (2 rows of 6 bytes, 8 apart) side by side: eight at a time.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn gather_2x2(chosen: Chosen, row_len: usize, band: &mut [u8]) {
    assert!(chosen.len().is_multiple_of(8) && band.len() == 2 * row_len && chosen.len() * 6 == row_len);
    let above = bytes!(|i| if i < 48 { i / 6 * 16 + i % 6 } else { 0 });
    let below = _mm512_add_epi8(above, _mm512_set1_epi8(8));
    let mut ahead = ahead::<8>(&chosen).iter();
    for (group, places) in chosen.places().as_chunks::<8>().0.iter().enumerate() {
        if let Some(places) = ahead.next() {
            places.iter().for_each(|&place| memory::prefetch(chosen.codeword(place)));
        }
        let [a, b, c, d, e, f, g, h] = *places;
        // SAFETY: at a place is a codeword, of 2 rows of 8 bytes.
        let codeword = |place| unsafe { _mm_loadu_si128(chosen.codeword(place).cast()) };
        let two = |a, b| _mm256_inserti128_si256(_mm256_castsi128_si256(codeword(a)), codeword(b), 1);
        let four = |a, b, c, d| _mm512_inserti64x4(_mm512_castsi256_si512(two(a, b)), two(c, d), 1);
        let (left, right) = (four(a, b, c, d), four(e, f, g, h));
        // SAFETY: both rows of the band hold 6 bytes of each patch.
        unsafe {
            let target = band.as_mut_ptr().add(group * 48);
            store_48(target, _mm512_permutex2var_epi8(left, above, right));
            store_48(target.add(row_len), _mm512_permutex2var_epi8(left, below, right));
        }
    }
    prefetch_next(&chosen);
}

/// The places to ask for ahead of their use, in groups; none of a codebook that is near.
fn ahead<'a, const GROUP: usize>(chosen: &Chosen<'a>) -> &'a [[Place; GROUP]] {
    let places = if chosen.codebook().is_far() { chosen.places() } else { &[] };
    places.get(AHEAD..).unwrap_or_default().as_chunks().0
}

/// Asks for the first codewords of the next patches.
fn prefetch_next(chosen: &Chosen) {
    if chosen.codebook().is_far() {
        chosen.prefetch_next(AHEAD);
    }
}

/// Stores the first 48 bytes of a register.
///
/// # Safety
/// `target` has room for them.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
unsafe fn store_48(target: *mut u8, bytes: __m512i) {
    // SAFETY: as promised.
    unsafe {
        _mm256_storeu_si256(target.cast(), _mm512_castsi512_si256(bytes));
        _mm_storeu_si128(target.add(32).cast(), _mm512_extracti32x4_epi32(bytes, 2));
    }
}

/// Sorts RGB pixels into planes: 64 at a time.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn deinterleave_3(pixels: &[u8], planes: &mut [u8]) {
    let len = pixels.len() / 3;
    assert!(pixels.len() == len * 3 && planes.len() == len * 3);
    let whole = len / LANES * LANES;
    // Byte 3 i + c of 192: of the first two registers, or of the third.
    let first = bytes!(|i| i * 3);
    for start in (0..whole).step_by(LANES) {
        // SAFETY: `start + 64` pixels of 3 bytes are there, and as many bytes of each plane.
        unsafe {
            let source = pixels.as_ptr().add(start * 3);
            let [a, b, c] = [0, 64, 128].map(|at| _mm512_loadu_si512(source.add(at).cast()));
            for channel in 0..3usize {
                let places = _mm512_add_epi8(first, _mm512_set1_epi8(channel as i8));
                // Only the last places lie in the third register: those of 3 i + c from 128 on.
                let third = !0u64 << (128 - channel).div_ceil(3);
                let plane = _mm512_permutex2var_epi8(a, places, b);
                let plane = _mm512_mask_permutexvar_epi8(plane, third, places, c);
                _mm512_storeu_si512(planes.as_mut_ptr().add(channel * len + start).cast(), plane);
            }
        }
    }
    for pixel in whole..len {
        for channel in 0..3 {
            planes[channel * len + pixel] = pixels[pixel * 3 + channel];
        }
    }
}
