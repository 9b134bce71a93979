//! Timing in turns, and the limits of host memory that decoding is held against.
#![allow(dead_code)]

use std::time::Instant;

use rayon::prelude::*;

/// Rounds of every measurement; the median counts.
pub const ROUNDS: usize = 5;

/// A piece of work that is timed.
pub type Work<'a> = Box<dyn FnMut() + 'a>;

/// Median seconds of each piece of work. They take turns, so that all see the same machine; a first turn, not
/// counted, warms memory and caches.
pub fn in_turns(works: &mut [Work]) -> Vec<f64> {
    let mut seconds = vec![Vec::new(); works.len()];
    for round in 0..=ROUNDS {
        for (work, seconds) in works.iter_mut().zip(&mut seconds) {
            let start = Instant::now();
            work();
            if round > 0 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    seconds.iter_mut().map(|seconds| median(seconds)).collect()
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Numbers below `end` in an order that no prefetcher guesses: steps of the golden section.
pub fn scattered(end: usize) -> impl Iterator<Item = usize> {
    let step = ((end as f64 * 0.618) as usize).max(1);
    // A number of steps without a factor in common visits everything.
    let step = (step..).find(|&step| gcd(step, end) == 1).unwrap_or(1);
    (0usize..).map(move |i| i.wrapping_mul(step) % end)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Copies images on all threads of the pool.
pub fn copy_images(sources: &[&[u8]], target: &mut [u8], image: usize, streaming: bool) {
    target.par_chunks_exact_mut(image).zip(sources).for_each(|(target, source)| match streaming {
        true => stream(source, target),
        false => target.copy_from_slice(source),
    });
}

/// Stores the same floats over and over on all threads of the pool, image by image.
pub fn fill_images(target: &mut [u8], image: usize, streaming: bool) {
    let source: Vec<u8> = std::iter::repeat_n(1.5f32.to_ne_bytes(), 1024).flatten().collect();
    target.par_chunks_exact_mut(image).for_each(|target| match streaming {
        true => target.chunks_mut(source.len()).for_each(|target| stream(&source[..target.len()], target)),
        // A loop of vector stores: the floats are no byte repeated, which the C library would store in its own way.
        false => target.as_chunks_mut().0.iter_mut().for_each(|value| *value = 1.5f32.to_ne_bytes()),
    });
}

/// Copies with stores that bypass the caches, where the processor has them.
fn stream(source: &[u8], target: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
        // SAFETY: all bytes are valid in both types.
        let (head, blocks, tail) = unsafe { target.align_to_mut::<__m128i>() };
        let (source_head, rest) = source.split_at(head.len());
        let (source_blocks, source_tail) = rest.split_at(size_of_val(blocks));
        head.copy_from_slice(source_head);
        tail.copy_from_slice(source_tail);
        for (block, source) in blocks.iter_mut().zip(source_blocks.as_chunks::<16>().0) {
            // SAFETY: SSE2 is part of x86-64; `source` has 16 bytes, `block` is aligned.
            unsafe { _mm_stream_si128(block, _mm_loadu_si128(source.as_ptr().cast())) };
        }
        // SAFETY: SSE is part of x86-64.
        unsafe { _mm_sfence() };
    }
    #[cfg(not(target_arch = "x86_64"))]
    target.copy_from_slice(source);
}
