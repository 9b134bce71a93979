//! k-means on signed vectors, in integers.

use std::collections::HashSet;

use rayon::prelude::*;

use super::assign::Assign;
use super::search::Near;
use crate::encode::Searcher;
use crate::error::Result;

/// Codewords are trained on this many vectors each, if there are as many.
const PER_CODEWORD: usize = 48;
const ITERATIONS: usize = 5;

/// At most `most` codewords near to many vectors of `len` values: Lloyd's k-means ("Least squares quantization in PCM",
/// 1982), confined to whole numbers. It starts from vectors drawn at random: their density is near that of the best
/// codewords where there are many dimensions.
pub(super) fn cluster(searcher: &Searcher, vectors: &[i16], len: usize, most: usize, seed: u64) -> Result<Vec<i8>> {
    let count = vectors.len() / len;
    if count == 0 {
        return Ok(vec![0; len]);
    }
    let mut order: Vec<u32> = (0..count as u32).collect();
    order.sort_unstable_by_key(|&i| (drawn(seed, i.into()), i));
    let vector = |i: u32| &vectors[i as usize * len..][..len];
    let codeword = |vector: &[i16]| -> Vec<i8> { vector.iter().map(|&v| v.clamp(-128, 127) as i8).collect() };
    let mut seen = HashSet::new();
    let distinct = order.iter().map(|&i| codeword(vector(i))).filter(|codeword| seen.insert(codeword.clone()));
    let mut book = distinct.take(most).collect::<Vec<_>>().concat();
    order.truncate(most * PER_CODEWORD);
    let sample: Vec<i16> = order.iter().flat_map(|&i| vector(i)).copied().collect();
    let mut near = vec![Near::default(); order.len()];
    for _ in 0..ITERATIONS {
        let assign = Assign::new(searcher, &book, len)?;
        let chunk = Assign::at_once(searcher, 1024);
        let chunks = sample.par_chunks(chunk * len).zip(near.par_chunks_mut(chunk));
        chunks.try_for_each(|(vectors, near)| assign.nearest(vectors, near))?;
        let (mut sums, mut uses) = (vec![0i64; book.len()], vec![0i64; book.len() / len]);
        for (vector, near) in sample.chunks_exact(len).zip(&near) {
            let index = usize::from(near.index);
            uses[index] += 1;
            sums[index * len..][..len].iter_mut().zip(vector).for_each(|(sum, &value)| *sum += i64::from(value));
        }
        let errors = near.iter().zip(0..).map(|(near, i)| (near.distance.into(), i)).collect();
        let mut worst = worst(errors, uses.iter().filter(|&&uses| uses == 0).count()).into_iter();
        for ((to, sums), &uses) in book.chunks_exact_mut(len).zip(sums.chunks_exact(len)).zip(&uses) {
            if uses > 0 {
                let means = sums.iter().map(|&sum| rounded(sum, uses).clamp(-128, 127) as i8);
                to.iter_mut().zip(means).for_each(|(to, mean)| *to = mean);
            } else if let Some(i) = worst.next() {
                to.copy_from_slice(&codeword(&sample[i * len..][..len]));
            }
        }
    }
    Ok(book)
}

/// The numbers with the greatest errors, the greatest first.
pub(super) fn worst(mut errors: Vec<(u64, usize)>, most: usize) -> Vec<usize> {
    if most < errors.len() && most > 0 {
        errors.select_nth_unstable_by(most - 1, |a, b| b.cmp(a));
    }
    errors.truncate(most);
    errors.sort_unstable_by(|a, b| b.cmp(a));
    errors.into_iter().map(|(_, number)| number).collect()
}

/// A quotient, to the nearest integer.
pub(super) fn rounded(sum: i64, count: i64) -> i64 {
    (2 * sum + count).div_euclid(2 * count)
}

/// Numbers that look drawn at random, in any order in which they are asked for (SplitMix64: Steele, Lea and Flood, "Fast
/// splittable pseudorandom number generators", 2014).
pub(super) fn drawn(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}
