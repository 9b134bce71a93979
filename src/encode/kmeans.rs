//! Training a codebook: k-means in integers.

use std::cmp::Reverse;
use std::collections::HashSet;

use rayon::prelude::*;

use super::nearest::{NearestCodeword, check_patches};
use super::projection::Projection;
use super::seeding;
use crate::error::{Error, Result};
use crate::format::MAX_CODEWORDS;
use crate::progress::{Counter, Progress};

/// The most times that codewords are moved.
const MAX_ITERATIONS: usize = 12;

/// Training ends when an iteration takes less than this part off the squared error: 0.04 dB.
const CONVERGED: f64 = 0.01;

/// Trains a codebook of at most `codewords` codewords on patches of `len` values, given one after another. Returns
/// the codewords from dark to bright.
///
/// This is Lloyd's k-means confined to codewords of whole numbers: assigning patches and moving codewords to the
/// rounded means both lower the squared error, and all sums are integers, so that the result is the same for any
/// number of threads. It starts from the cells of a recursive cut, and draws nothing at random. Codewords that lost
/// their patches or became equal to others move to the patches with the greatest errors. If there are at most
/// `codewords` distinct patches, they are the codebook.
///
/// # Errors
/// [`Error::Argument`] unless there is at least one patch, of 1 to 1024 values, and there may be 1 to 2^25
/// codewords; [`Error::Interrupted`] if `progress` says so.
pub fn train(patches: &[u8], len: usize, codewords: usize, progress: &dyn Progress) -> Result<Vec<u8>> {
    check_codewords(codewords)?;
    check_patches("training patches", patches, len)?;
    let count = patches.len() / len;
    if count > u32::MAX as usize {
        let (found, expected) = (count.to_string(), format!("at most {}", u32::MAX));
        return Err(Error::Argument { argument: "training patches", found, expected });
    }
    let counter = Counter::new(progress, "training", MAX_ITERATIONS * count);
    if let Some(distinct) = distinct(patches, len, codewords) {
        counter.add(MAX_ITERATIONS * count)?;
        return Ok(sorted(&distinct, len));
    }
    let projection = Projection::new(patches, len);
    let mut nearest = seeding::cells(patches, len, codewords, &projection);
    let mut distances = vec![0; count];
    let mut codebook = vec![0; codewords * len];
    move_to_means(&mut codebook, patches, len, &nearest);
    let mut before = u64::MAX;
    for iteration in 1..=MAX_ITERATIONS {
        let search = NearestCodeword::with_projection(&codebook, len, projection.clone())?;
        let error = assign(&search, patches, len, &mut nearest, &mut distances, &counter)?;
        move_to_means(&mut codebook, patches, len, &nearest);
        repair(&mut codebook, patches, len, &nearest, &distances);
        if before.saturating_sub(error) as f64 <= CONVERGED * before as f64 {
            counter.add((MAX_ITERATIONS - iteration) * count)?;
            break;
        }
        before = error;
    }
    Ok(sorted(&codebook, len))
}

/// Checks that a codebook may have so many codewords.
pub(super) fn check_codewords(codewords: usize) -> Result<()> {
    if (1..=MAX_CODEWORDS).contains(&codewords) {
        return Ok(());
    }
    let (found, expected) = (codewords.to_string(), format!("1 to {MAX_CODEWORDS}"));
    Err(Error::Argument { argument: "codewords", found, expected })
}

/// The distinct patches one after another, unless there are more than `most`.
fn distinct(patches: &[u8], len: usize, most: usize) -> Option<Vec<u8>> {
    let mut seen = HashSet::new();
    for patch in patches.chunks_exact(len) {
        if seen.insert(patch) && seen.len() > most {
            return None;
        }
    }
    Some(seen.into_iter().flatten().copied().collect())
}

/// Finds the nearest codeword of every patch, starting from the one in `nearest`; returns the sum of the squared
/// distances.
fn assign(
    search: &NearestCodeword,
    patches: &[u8],
    len: usize,
    nearest: &mut [u32],
    distances: &mut [u32],
    counter: &Counter,
) -> Result<u64> {
    const CHUNK: usize = 4096;
    patches
        .par_chunks(CHUNK * len)
        .zip(nearest.par_chunks_mut(CHUNK))
        .zip(distances.par_chunks_mut(CHUNK))
        .map(|((patches, nearest), distances)| {
            for ((patch, nearest), distance) in
                patches.chunks_exact(len).zip(nearest.iter_mut()).zip(distances.iter_mut())
            {
                (*nearest, *distance) = search.nearest(patch, Some(*nearest));
            }
            counter.add(nearest.len())?;
            Ok(distances.iter().map(|&distance| u64::from(distance)).sum::<u64>())
        })
        .try_reduce(|| 0, |a, b| Ok(a + b))
}

/// Moves each codeword to the rounded mean of its patches; one without patches stays.
fn move_to_means(codebook: &mut [u8], patches: &[u8], len: usize, nearest: &[u32]) {
    // The patches of codeword i are members[ends[i - 1]..ends[i]].
    let mut ends = vec![0u32; codebook.len() / len];
    nearest.iter().for_each(|&index| ends[index as usize] += 1);
    let mut start = 0;
    for end in &mut ends {
        (*end, start) = (start, start + *end);
    }
    let mut members = vec![0u32; nearest.len()];
    for (patch, &index) in (0..).zip(nearest) {
        let end = &mut ends[index as usize];
        members[*end as usize] = patch;
        *end += 1;
    }
    codebook.par_chunks_exact_mut(len).enumerate().with_min_len(64).for_each_init(
        || vec![0u64; len],
        |sums, (index, codeword)| {
            let start = if index == 0 { 0 } else { ends[index - 1] };
            let members = &members[start as usize..ends[index] as usize];
            if members.is_empty() {
                return;
            }
            sums.fill(0);
            for &patch in members {
                let patch = &patches[patch as usize * len..][..len];
                sums.iter_mut().zip(patch).for_each(|(sum, &value)| *sum += u64::from(value));
            }
            let count = members.len() as u64;
            codeword
                .iter_mut()
                .zip(sums.iter())
                .for_each(|(value, sum)| *value = ((2 * sum + count) / (2 * count)) as u8);
        },
    );
}

/// Replaces codewords that are no patch's nearest, or equal one before them, by the patches with the greatest
/// errors, as far as there are any.
fn repair(codebook: &mut [u8], patches: &[u8], len: usize, nearest: &[u32], distances: &[u32]) {
    let mut used = vec![false; codebook.len() / len];
    nearest.iter().for_each(|&index| used[index as usize] = true);
    let mut seen = HashSet::with_capacity(used.len());
    let idle = codebook.chunks_exact(len).zip(used).enumerate();
    let idle = idle.filter_map(|(index, (codeword, used))| (!(used && seen.insert(codeword))).then_some(index));
    let idle: Vec<usize> = idle.collect();
    if idle.is_empty() {
        return;
    }
    let mut worst: Vec<u32> = (0..).zip(distances).filter(|&(_, &distance)| distance > 0).map(|(i, _)| i).collect();
    worst.par_sort_unstable_by_key(|&patch| (Reverse(distances[patch as usize]), patch));
    let worst = worst.into_iter().map(|patch| &patches[patch as usize * len..][..len]);
    let replacements: Vec<&[u8]> = worst.filter(|patch| seen.insert(patch)).take(idle.len()).collect();
    for (index, patch) in idle.iter().zip(replacements) {
        codebook[index * len..][..len].copy_from_slice(patch);
    }
}

/// The codewords from dark to bright, each once.
pub(super) fn sorted(codebook: &[u8], len: usize) -> Vec<u8> {
    let mut codewords: Vec<&[u8]> = codebook.chunks_exact(len).collect();
    codewords.par_sort_unstable_by_key(|codeword| (codeword.iter().map(|&v| u32::from(v)).sum::<u32>(), *codeword));
    codewords.dedup();
    codewords.concat()
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_pcg::Pcg32;

    use super::*;

    fn random_patches(count: usize, len: usize) -> Vec<u8> {
        let random = &mut Pcg32::seed_from_u64(3);
        // The sum of two bytes: more of them in the middle, as in photographs.
        (0..count * len).map(|_| (random.next_u32() as u8 / 2) + (random.next_u32() as u8 / 2)).collect()
    }

    fn total_error(codebook: &[u8], patches: &[u8], len: usize) -> u64 {
        let search = NearestCodeword::new(codebook, len).expect("valid");
        patches.chunks(len).map(|patch| u64::from(search.nearest(patch, None).1)).sum()
    }

    #[test]
    fn few_distinct_patches_become_the_codebook() {
        let patches: Vec<u8> = (0..300u32).flat_map(|i| [(i * i % 7) as u8, 9, (i % 3) as u8]).collect();
        let mut expected: Vec<&[u8]> = patches.chunks(3).collect();
        expected.sort_by_key(|patch| (patch.iter().map(|&v| u32::from(v)).sum::<u32>(), *patch));
        expected.dedup();
        assert_eq!(train(&patches, 3, expected.len(), &()).expect("train"), expected.concat());
        assert_eq!(train(&patches, 3, 5, &()).expect("train").len(), 15);
    }

    #[test]
    fn separate_clusters_get_their_means() {
        // Means 11, 101 and 202.67, rounded.
        let patches = [10, 11, 12, 100, 102, 201, 203, 204];
        assert_eq!(train(&patches, 1, 3, &()).expect("train"), [11, 101, 203]);
    }

    #[test]
    fn one_codeword_is_the_rounded_mean() {
        assert_eq!(train(&[0, 10, 1, 20, 1, 31], 2, 1, &()).expect("train"), [1, 20]);
    }

    #[test]
    fn training_beats_random_patches_and_does_not_depend_on_threads() {
        let (len, codewords) = (12, 128);
        let patches = random_patches(8000, len);
        let trained = [1, 2, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
            pool.install(|| train(&patches, len, codewords, &()).expect("train"))
        });
        assert!(trained[0] == trained[1] && trained[0] == trained[2]);
        assert_eq!(trained[0].len(), codewords * len);
        let (trained, random) =
            (total_error(&trained[0], &patches, len), total_error(&patches[..codewords * len], &patches, len));
        assert!(trained as f64 <= 0.85 * random as f64, "{trained} against {random}");
    }

    #[test]
    fn idle_codewords_move_to_the_worst_patches() {
        // 7 is repeated, 200 is nobody's nearest; the patches 90 and 80 are the farthest off.
        let mut codebook = [7, 7, 200, 50];
        let patches = [7, 50, 80, 90, 90, 45];
        repair(&mut codebook, &patches, 1, &[0, 3, 3, 3, 1, 3], &[0, 0, 900, 1600, 1600, 25]);
        assert_eq!(codebook, [7, 90, 80, 50]);
    }

    #[test]
    fn training_is_interrupted() {
        struct Stop;
        impl Progress for Stop {
            fn is_cancelled(&self) -> bool {
                true
            }
        }
        assert!(matches!(train(&random_patches(5000, 3), 3, 16, &Stop), Err(Error::Interrupted)));
    }

    #[test]
    fn arguments_are_checked() {
        for (patches, len, codewords) in [(&[][..], 3, 2), (&[1, 2], 3, 2), (&[1, 2, 3], 3, 0), (&[1], 1, 1 << 26)] {
            assert!(matches!(train(patches, len, codewords, &()), Err(Error::Argument { .. })));
        }
    }
}
