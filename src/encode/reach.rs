//! What of a node or a leaf is near enough, sixteen squared distances at once: for any processor, AVX2 and AVX-512.

use super::projection::{DIMS, Signature};
use super::tree::{Leaf, Node, WIDTH};

/// Which boxes of a node are within reach, bit i for the i-th, and the squared distances of those that are.
pub(super) fn near_branches(signature: &Signature, node: &Node, reach: i32) -> (u32, [i32; WIDTH]) {
    let mut sums = [0i32; WIDTH];
    for ((low, high), values) in node.low.iter().zip(&node.high).zip(signature.as_chunks::<2>().0) {
        for ((sum, low), high) in sums.iter_mut().zip(low).zip(high) {
            for ((&low, &high), &value) in low.iter().zip(high).zip(values) {
                let outside = i32::from((low - value).max(value - high).max(0));
                *sum += outside * outside;
            }
        }
    }
    (within(&sums, reach), sums)
}

/// Which codewords of a leaf have signatures within reach, bit i for the i-th.
pub(super) fn near_in_leaf(signature: &Signature, leaf: &Leaf, reach: i32) -> u32 {
    let mut sums = [0i32; WIDTH];
    for (pair, values) in leaf.signatures.iter().zip(signature.as_chunks::<2>().0) {
        for (sum, place) in sums.iter_mut().zip(pair) {
            let [a, b] = [i32::from(values[0] - place[0]), i32::from(values[1] - place[1])];
            *sum += a * a + b * b;
        }
    }
    within(&sums, reach)
}

/// Which of 16 squared distances are within reach.
fn within(sums: &[i32; WIDTH], reach: i32) -> u32 {
    sums.iter().enumerate().fold(0, |near, (place, &sum)| near | u32::from(sum <= reach) << place)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn near_branches_avx2(signature: &Signature, node: &Node, reach: i32) -> (u32, [i32; WIDTH]) {
    use std::arch::x86_64::*;
    let zero = _mm256_setzero_si256();
    let mut sums = [zero; 2];
    let values: &[[i32; DIMS / 4]; 2] = &bytemuck::cast(*signature);
    let (low, high) = (node.low.as_chunks::<{ DIMS / 4 }>().0, node.high.as_chunks::<{ DIMS / 4 }>().0);
    let mut near = 0;
    for ((values, low), high) in values.iter().zip(low).zip(high) {
        for ((&value, &low), &high) in values.iter().zip(low).zip(high) {
            let value = _mm256_set1_epi32(value);
            let (low, high): ([__m256i; 2], [__m256i; 2]) = (bytemuck::cast(low), bytemuck::cast(high));
            for ((sum, low), high) in sums.iter_mut().zip(low).zip(high) {
                let outside = _mm256_max_epi16(_mm256_sub_epi16(low, value), _mm256_sub_epi16(value, high));
                let outside = _mm256_max_epi16(outside, zero);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(outside, outside));
            }
        }
        near = within_avx2(sums, reach);
        // Half the coordinates often rule out the whole node.
        if near == 0 {
            break;
        }
    }
    (near, bytemuck::cast(sums))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn near_in_leaf_avx2(signature: &Signature, leaf: &Leaf, reach: i32) -> u32 {
    use std::arch::x86_64::*;
    let mut sums = [_mm256_setzero_si256(); 2];
    let values: &[[i32; DIMS / 4]; 2] = &bytemuck::cast(*signature);
    let mut near = 0;
    for (values, pairs) in values.iter().zip(leaf.signatures.as_chunks::<{ DIMS / 4 }>().0) {
        for (&value, &pair) in values.iter().zip(pairs) {
            let value = _mm256_set1_epi32(value);
            let places: [__m256i; 2] = bytemuck::cast(pair);
            for (sum, places) in sums.iter_mut().zip(places) {
                let difference = _mm256_sub_epi16(value, places);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(difference, difference));
            }
        }
        near = within_avx2(sums, reach);
        // Half the coordinates often rule out the whole leaf.
        if near == 0 {
            break;
        }
    }
    near
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn within_avx2(sums: [std::arch::x86_64::__m256i; 2], reach: i32) -> u32 {
    use std::arch::x86_64::*;
    let reach = _mm256_set1_epi32(reach);
    let far = sums.map(|sum| _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(sum, reach))) as u32);
    !(far[0] | far[1] << 8) & 0xFFFF
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bw")]
#[inline]
pub(super) fn near_branches_avx512(signature: &Signature, node: &Node, reach: i32) -> (u32, [i32; WIDTH]) {
    use std::arch::x86_64::*;
    let zero = _mm512_setzero_si512();
    let mut sums = zero;
    let values: &[[i32; DIMS / 4]; 2] = &bytemuck::cast(*signature);
    let (low, high) = (node.low.as_chunks::<{ DIMS / 4 }>().0, node.high.as_chunks::<{ DIMS / 4 }>().0);
    let mut near = 0;
    for ((values, low), high) in values.iter().zip(low).zip(high) {
        for ((&value, &low), &high) in values.iter().zip(low).zip(high) {
            let value = _mm512_set1_epi32(value);
            let (low, high) = (load_avx512(&low), load_avx512(&high));
            let outside = _mm512_max_epi16(_mm512_sub_epi16(low, value), _mm512_sub_epi16(value, high));
            let outside = _mm512_max_epi16(outside, zero);
            sums = _mm512_add_epi32(sums, _mm512_madd_epi16(outside, outside));
        }
        near = _mm512_cmple_epi32_mask(sums, _mm512_set1_epi32(reach)).into();
        // Half the coordinates often rule out the whole node.
        if near == 0 {
            break;
        }
    }
    let mut distances = [0; WIDTH];
    // SAFETY: there is room for the 64 bytes.
    unsafe { _mm512_storeu_si512(distances.as_mut_ptr().cast(), sums) };
    (near, distances)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bw")]
#[inline]
pub(super) fn near_in_leaf_avx512(signature: &Signature, leaf: &Leaf, reach: i32) -> u32 {
    use std::arch::x86_64::*;
    let mut sums = _mm512_setzero_si512();
    let values: &[[i32; DIMS / 4]; 2] = &bytemuck::cast(*signature);
    let mut near = 0;
    for (values, pairs) in values.iter().zip(leaf.signatures.as_chunks::<{ DIMS / 4 }>().0) {
        for (&value, &pair) in values.iter().zip(pairs) {
            let difference = _mm512_sub_epi16(_mm512_set1_epi32(value), load_avx512(&pair));
            sums = _mm512_add_epi32(sums, _mm512_madd_epi16(difference, difference));
        }
        near = _mm512_cmple_epi32_mask(sums, _mm512_set1_epi32(reach)).into();
        // Half the coordinates often rule out the whole leaf.
        if near == 0 {
            break;
        }
    }
    near
}

/// The squared distance of up to 64 values.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bw")]
#[inline]
pub(super) fn squared_distance_avx512(a: &[u8], b: &[u8]) -> u32 {
    use std::arch::x86_64::*;
    let len = a.len().min(b.len()).min(64);
    let mask = if len == 0 { 0 } else { u64::MAX >> (64 - len) };
    // SAFETY: only as many bytes are loaded as there are.
    let [a, b] = unsafe { [a, b].map(|values| _mm512_maskz_loadu_epi8(mask, values.as_ptr().cast())) };
    let difference = _mm512_or_si512(_mm512_subs_epu8(a, b), _mm512_subs_epu8(b, a));
    let zero = _mm512_setzero_si512();
    let [low, high] = [_mm512_unpacklo_epi8(difference, zero), _mm512_unpackhi_epi8(difference, zero)];
    let squares = _mm512_add_epi32(_mm512_madd_epi16(low, low), _mm512_madd_epi16(high, high));
    _mm512_reduce_add_epi32(squares) as u32
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bw")]
#[inline]
fn load_avx512(pairs: &[[i16; 2]; WIDTH]) -> std::arch::x86_64::__m512i {
    // SAFETY: these are 64 bytes.
    unsafe { std::arch::x86_64::_mm512_loadu_si512(pairs.as_ptr().cast()) }
}
