//! Caches: reading what will be needed before it is, and writing past them what will not be.

/// Asks for the cache line at an address, without waiting. It may be any address.
#[inline(always)]
pub(super) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and prefetching has no effect but on the caches, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Whether there are stores that bypass the caches.
pub(super) const CAN_STREAM: bool = cfg!(target_arch = "x86_64");

/// Outputs of this size and more are streamed by the codec "vq". Between two measurements on a machine with 32 MiB of shared
/// cache: at 5 MB streaming cost a quarter of the speed, at 38 MB it gained a fifth.
/// A fuzzer's batches are small.
pub(super) const STREAM: usize = if cfg!(fuzzing) { 4 << 10 } else { 16 << 20 };
/// Those of the codec "layers", whose codebooks want the caches for themselves: at 10 MB streaming gained a fifth, at 2 MB it
/// cost a twelfth.
pub(super) const STREAM_LAYERS: usize = if cfg!(fuzzing) { 4 << 10 } else { 6 << 20 };

/// Copies bytes with stores that bypass the caches, where the processor has them.
#[cfg(target_arch = "x86_64")]
pub(super) fn copy_streaming(source: &[u8], target: &mut [u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
    assert_eq!(source.len(), target.len());
    // The stores want alignment: what is before and behind whole blocks is copied as usual.
    // SAFETY: any bytes are a valid `__m128i`, and every `__m128i` is valid bytes.
    let (head, blocks, tail) = unsafe { target.align_to_mut::<__m128i>() };
    let (source_head, rest) = source.split_at(head.len());
    let (source_blocks, source_tail) = rest.split_at(size_of_val(blocks));
    head.copy_from_slice(source_head);
    tail.copy_from_slice(source_tail);
    for (block, source) in blocks.iter_mut().zip(source_blocks.as_chunks::<16>().0) {
        // SAFETY: SSE2 is part of x86-64; `source` has 16 bytes and needs no alignment, `block` is aligned and ours
        // alone. `finish_streaming` orders these stores before anything that another thread may read after it.
        unsafe { _mm_stream_si128(block, _mm_loadu_si128(source.as_ptr().cast())) };
    }
}

/// Completes all copies of this thread's, so that other threads see them.
#[cfg(target_arch = "x86_64")]
pub(super) fn finish_streaming() {
    // SAFETY: SSE is part of x86-64.
    unsafe { std::arch::x86_64::_mm_sfence() };
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn copy_streaming(source: &[u8], target: &mut [u8]) {
    target.copy_from_slice(source);
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn finish_streaming() {}

/// Completes this thread's copies when it is dropped.
#[derive(Default)]
pub(super) struct Streaming;

impl Drop for Streaming {
    fn drop(&mut self) {
        finish_streaming();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_arrive_whatever_their_alignment_and_length() {
        let source: Vec<u8> = (0..200).collect();
        for start in 0..17 {
            for len in [0, 1, 15, 16, 17, 33, 150] {
                let mut target = [255; 200];
                super::copy_streaming(&source[3..3 + len], &mut target[start..start + len]);
                super::finish_streaming();
                assert_eq!(target[start..start + len], source[3..3 + len]);
                assert!(target[..start].iter().chain(&target[start + len..]).all(|&byte| byte == 255));
            }
        }
    }
}
