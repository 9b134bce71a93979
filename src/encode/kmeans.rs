//! Training a codebook: k-means in integers.

use std::cmp::Reverse;
use std::collections::HashSet;

use rayon::prelude::*;

use super::nearest::check_patches;
use super::projection::Projection;
use super::search::Searcher;
use super::seeding;
use crate::error::{Error, Result};
use crate::format::MAX_CODEWORDS;
use crate::progress::{Counter, Progress};

/// The most times that codewords are moved.
const MAX_ITERATIONS: usize = 25;

/// Training ends when an iteration takes less than this part off the squared error: 0.004 dB.
const CONVERGED: f64 = 0.001;

/// Trains a codebook of at most `codewords` codewords on patches of `len` values, given one after another. Returns
/// the codewords in an order in which similar ones are close to each other.
///
/// This is Lloyd's k-means ("Least squares quantization in PCM", 1982) confined to codewords of whole numbers: assigning
/// patches and moving codewords to the rounded means both lower the squared error, and all sums are integers, so that
/// the result is the same for any number of threads. It starts from the cells of a recursive cut, and draws nothing at
/// random. Codewords that lost their patches or became equal to others move to the patches with the greatest errors. If
/// there are at most `codewords` distinct patches, they are the codebook.
///
/// Every iteration goes over all patches rather than a mini-batch of them (Sculley, "Web-scale k-means clustering",
/// 2010). That would save little, because the exact search makes an iteration cheap and the caller bounds the number of
/// patches; and it would lose the descent from step to step by which convergence is told.
///
/// Memory, beside the patches: 48 bytes for each of them, and for each codeword its values twice and up to 120 bytes.
///
/// # Errors
/// [`Error::Argument`] unless there is at least one patch, of 1 to 1024 values, and there may be 1 to 2^25
/// codewords; [`Error::Interrupted`] if `progress` says so.
pub fn train(patches: &[u8], len: usize, codewords: usize, progress: &dyn Progress) -> Result<Vec<u8>> {
    train_with(&Searcher::Cpu, patches, len, codewords, progress)
}

/// As [`train`], with what searches for nearest codewords. The result is the same.
///
/// # Errors
/// As [`train`], and the searcher's own.
pub fn train_with(
    searcher: &Searcher,
    patches: &[u8],
    len: usize,
    codewords: usize,
    progress: &dyn Progress,
) -> Result<Vec<u8>> {
    check_codewords(codewords)?;
    check_patches("training patches", patches, len)?;
    let count = patches.len() / len;
    if count > u32::MAX as usize {
        let (found, expected) = (count.to_string(), format!("at most {}", u32::MAX));
        return Err(Error::Argument { argument: "training patches", found, expected });
    }
    let counter = Counter::new(progress, "training", MAX_ITERATIONS * count);
    let projection = Projection::new(patches, len);
    if let Some(distinct) = distinct(patches, len, codewords) {
        counter.add(MAX_ITERATIONS * count)?;
        return Ok(ordered(&distinct, len, &projection));
    }
    let mut nearest = seeding::cells(patches, len, codewords, &projection, progress)?;
    let mut distances = vec![0; count];
    let mut codebook = vec![0; codewords * len];
    move_to_means(&mut codebook, patches, len, &nearest);
    let mut before = u64::MAX;
    for iteration in 1..=MAX_ITERATIONS {
        let search = searcher.search(&codebook, len, || projection.clone())?;
        search.assign(patches, len, &mut nearest, &mut distances, |patches| counter.add(patches))?;
        let error = distances.par_iter().map(|&distance| u64::from(distance)).sum();
        move_to_means(&mut codebook, patches, len, &nearest);
        repair(&mut codebook, patches, len, &nearest, &distances);
        if before.saturating_sub(error) as f64 <= CONVERGED * before as f64 {
            counter.add((MAX_ITERATIONS - iteration) * count)?;
            break;
        }
        before = error;
    }
    Ok(ordered(&codebook, len, &projection))
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

/// The codewords, each once, along a Morton curve through the three coordinates that vary the most.
///
/// Neighbouring patches have similar codewords, which decoders then find close to each other in memory.
fn ordered(codebook: &[u8], len: usize, projection: &Projection) -> Vec<u8> {
    let place = |codeword| {
        let coordinates = projection.signature(codeword).map(|value| (i32::from(value) - i32::from(i16::MIN)) as u64);
        // From the highest bits of the three down, those of the first coordinate first.
        (0..16).rev().fold(0, |place, bit| coordinates[..3].iter().fold(place, |place, c| place << 1 | c >> bit & 1))
    };
    let codewords = codebook.par_chunks_exact(len);
    let mut codewords: Vec<(u64, &[u8])> = codewords.map(|codeword| (place(codeword), codeword)).collect();
    codewords.par_sort_unstable();
    codewords.dedup();
    codewords.iter().flat_map(|(_, codeword)| *codeword).copied().collect()
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_pcg::Pcg32;

    use super::*;
    use crate::encode::NearestCodeword;

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
        expected.sort();
        expected.dedup();
        let trained = train(&patches, 3, expected.len(), &()).expect("train");
        let mut found: Vec<&[u8]> = trained.chunks(3).collect();
        found.sort();
        assert_eq!(found, expected);
        assert_eq!(train(&patches, 3, 5, &()).expect("train").len(), 15);
    }

    #[test]
    fn separate_clusters_get_their_means() {
        // Means 11, 101 and 202.67, rounded.
        let patches = [10, 11, 12, 100, 102, 201, 203, 204];
        let mut trained = train(&patches, 1, 3, &()).expect("train");
        trained.sort();
        assert_eq!(trained, [11, 101, 203]);
    }

    #[test]
    fn similar_codewords_are_close_to_each_other() {
        // Two clusters far apart, their patches given in turn: one comes whole before the other.
        let patches: Vec<u8> = (0..64u8).flat_map(|i| [i % 2 * 200 + i / 2, i % 2 * 180 + i / 4, i % 7]).collect();
        let trained = train(&patches, 3, 64, &()).expect("train");
        let bright: Vec<bool> = trained.chunks(3).map(|codeword| codeword[0] > 100).collect();
        assert_eq!(bright.len(), 64);
        assert_eq!(bright.windows(2).filter(|pair| pair[0] != pair[1]).count(), 1);
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
