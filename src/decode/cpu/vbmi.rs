//! What AVX-512 with VBMI has for every codec: whole registers of bytes permuted at once.
//!
//! Costs of instructions are those of <https://uops.info>.

use std::arch::x86_64::*;

use super::convert::{Converter, Table};
use super::output::{self, Stores};
use crate::output::Dtype;

/// Bytes of a register.
pub(super) const LANES: usize = 64;

/// Proof that the processor has these instructions: exists only where they are enabled.
#[derive(Clone, Copy)]
pub(super) struct Vbmi(());

impl Vbmi {
    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
    pub fn new() -> Self {
        Self(())
    }
}

/// Calls a kernel below from a method of a [`Vbmi`].
macro_rules! kernel {
    ($call:expr) => {
        // SAFETY: a `Vbmi` exists, so the processor has the instructions.
        unsafe { $call }
    };
}

pub(super) use kernel;

// None is inlined, so that each kernel has all registers to itself; in one loop with others it spills them.
impl Stores for Vbmi {
    #[inline(never)]
    fn convert(self, converter: &Converter, bytes: &[u8], run: &mut [u8], past_caches: Option<&mut [u8]>) {
        match (converter.table(), converter.dtype()) {
            (Some(table), Dtype::F32) => kernel!(look_up::<4>(converter, table, bytes, run, past_caches.is_some())),
            (Some(table), Dtype::F16) => kernel!(look_up::<2>(converter, table, bytes, run, past_caches.is_some())),
            _ => kernel!(convert_any(converter, bytes, run, past_caches)),
        }
    }

    #[inline(never)]
    fn copy_past_caches(self, source: &[u8], target: &mut [u8]) {
        kernel!(copy_past_caches(source, target))
    }
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn convert_any(converter: &Converter, bytes: &[u8], run: &mut [u8], past_caches: Option<&mut [u8]>) {
    output::convert(converter, bytes, run, past_caches);
}

/// Copies bytes with stores that bypass the caches.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn copy_past_caches(source: &[u8], target: &mut [u8]) {
    assert!(source.len() == target.len());
    let head = target.as_ptr().align_offset(LANES).min(target.len());
    let end = head + (target.len() - head) / LANES * LANES;
    target[..head].copy_from_slice(&source[..head]);
    target[end..].copy_from_slice(&source[end..]);
    for start in (head..end).step_by(LANES) {
        // SAFETY: `start + 64` is at most the length of both; `target` is aligned from `head` on.
        unsafe {
            let bytes = _mm512_loadu_si512(source.as_ptr().add(start).cast());
            _mm512_stream_si512(target.as_mut_ptr().add(start).cast(), bytes);
        }
    }
}

/// A register of bytes by a formula.
macro_rules! bytes {
    (|$i:ident| $value:expr) => {{
        const BYTES: [u8; LANES] = {
            let mut bytes = [0; LANES];
            let mut $i = 0;
            while $i < LANES {
                bytes[$i] = ($value) as u8;
                $i += 1;
            }
            bytes
        };
        // SAFETY: there are as many bytes.
        unsafe { _mm512_loadu_si512(BYTES.as_ptr().cast()) }
    }};
}

pub(super) use bytes;

/// Converts a run by a table of 256 values of `SIZE` bytes (2 or 4) that is held in registers: a register of bytes is
/// looked up in the first bytes of all values, then in the second ones, and so on.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
fn look_up<const SIZE: usize>(converter: &Converter, table: &Table, bytes: &[u8], run: &mut [u8], past_caches: bool) {
    let (run, _) = run.as_chunks_mut::<SIZE>();
    assert!(run.len() == bytes.len());
    // Stores that bypass the caches want whole lines: what is before the first one and behind the last is converted
    // one by one. Memory that is not even aligned for its values has no line at which one begins.
    let head = if past_caches { run.as_ptr().cast::<u8>().align_offset(LANES) / SIZE } else { 0 };
    let past_caches = past_caches && run.as_ptr().addr().is_multiple_of(SIZE);
    let head = if past_caches { head.min(run.len()) } else { 0 };
    let end = head + (run.len() - head) / LANES * LANES;
    converter.look_up(&bytes[..head], &mut run[..head]);
    converter.look_up(&bytes[end..], &mut run[end..]);

    let quarter = |plane: usize, i: usize| {
        // SAFETY: a plane of the table has 256 bytes, `i < 4`.
        unsafe { _mm512_loadu_si512(table.planes[plane].as_ptr().add(i * LANES).cast()) }
    };
    let tables: [[__m512i; 4]; SIZE] = std::array::from_fn(|plane| std::array::from_fn(|i| quarter(plane, i)));
    // Unpacking puts the low half of each of the four lanes of a register into one result and the high half into
    // another; in this order the results have the values in theirs.
    let order = match SIZE {
        4 => _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
        _ => _mm512_setr_epi32(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15),
    };
    for start in (head..end).step_by(LANES) {
        // SAFETY: `start + 64 <= end`, which is at most the length of both.
        let (source, target) = unsafe { (bytes.as_ptr().add(start), run.as_mut_ptr().add(start).cast::<u8>()) };
        // SAFETY: 64 bytes are there.
        let bytes = _mm512_permutexvar_epi32(order, unsafe { _mm512_loadu_si512(source.cast()) });
        let high = _mm512_movepi8_mask(bytes);
        let looked_up = tables.map(|[a, b, c, d]| {
            let low = _mm512_mask2_permutex2var_epi8(a, bytes, !high, b);
            _mm512_mask2_permutex2var_epi8(c, low, high, d)
        });
        let store = |place: usize, values: __m512i| {
            // SAFETY: 64 values of `SIZE` bytes are `SIZE` registers; past the caches they are aligned.
            unsafe {
                let target = target.add(place * LANES).cast();
                match past_caches {
                    true => _mm512_stream_si512(target, values),
                    false => _mm512_storeu_si512(target, values),
                }
            }
        };
        let low = _mm512_unpacklo_epi8(looked_up[0], looked_up[1]);
        let high = _mm512_unpackhi_epi8(looked_up[0], looked_up[1]);
        if SIZE == 4 {
            let low_end = _mm512_unpacklo_epi8(looked_up[2], looked_up[3]);
            let high_end = _mm512_unpackhi_epi8(looked_up[2], looked_up[3]);
            store(0, _mm512_unpacklo_epi16(low, low_end));
            store(1, _mm512_unpackhi_epi16(low, low_end));
            store(2, _mm512_unpacklo_epi16(high, high_end));
            store(3, _mm512_unpackhi_epi16(high, high_end));
        } else {
            store(0, low);
            store(1, high);
        }
    }
}
