//! The patches that a codebook is trained on.

use std::collections::HashSet;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use rayon::prelude::*;

use super::source::Source;
use super::{EncodeOptions, patches, prepare};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::progress::{Counter, Progress};

/// Images that patches are taken from, or as many more as it takes to get enough.
const IMAGES: usize = 8192;

/// Training patches for each codeword.
const PER_CODEWORD: usize = 64;

/// The most bytes that the training patches may take, with what training needs for each, beyond the least number.
const MAX_BYTES: usize = 256 << 20;

/// Training patches for each codeword at least, whatever they take.
const LEAST_PER_CODEWORD: usize = 2;

/// Bytes that training needs for a patch beside the patch itself.
const OVERHEAD: usize = 48;

/// Random patches of random images, the same for the same seed: equally many from each image, together 64 for each of
/// `codewords`, but no more than take 256 MiB with 48 bytes of working memory for each, unless that is less than 2 for
/// each codeword; fewer if there are fewer. The images are 8192, or as many more as have that many patches.
///
/// So codebooks of n codewords are trained in max(256 MiB, 2 n (l + 48)) bytes, for patches of l values, and what
/// [`train`](super::train) needs for each codeword.
pub(super) fn sample(
    source: &dyn Source,
    geometry: &Geometry,
    options: &EncodeOptions,
    codewords: usize,
    progress: &dyn Progress,
) -> Result<Vec<u8>> {
    let len = geometry.codeword_len();
    let mut random = Pcg64::seed_from_u64(options.seed);
    let (most, each) = amounts(geometry, source.len(), codewords);
    let images = choose(&mut random, source.len(), most);
    let counter = Counter::new(progress, "sampling", images.len());
    let seeds: Vec<u64> = images.iter().map(|_| random.next_u64()).collect();
    let mut sampled = Vec::new();
    let mut first_problem = None;
    // In chunks, so that an error ends the work soon and is always the same one.
    for (images, seeds) in images.chunks(256).zip(seeds.chunks(256)) {
        let results: Vec<Result<Vec<u8>>> = images
            .par_iter()
            .zip(seeds)
            .map(|(&index, &seed)| {
                let image = prepare(source, index, options);
                counter.add(1)?;
                let image = image?;
                let chosen = choose(&mut Pcg64::seed_from_u64(seed), geometry.patches(), each);
                let mut sampled = vec![0; chosen.len() * len];
                for (place, patch) in chosen.into_iter().zip(sampled.chunks_exact_mut(len)) {
                    let (x, y) = (place % geometry.grid_width(), place / geometry.grid_width());
                    patches::cut(geometry, &image.pixels, x, y, patch);
                }
                Ok(sampled)
            })
            .collect();
        for result in results {
            match result {
                Ok(patches) => sampled.extend(patches),
                Err(error) if options.on_error.skips(&error) => {
                    first_problem.get_or_insert(error.with_causes());
                }
                Err(error) => return Err(error),
            }
        }
    }
    match first_problem {
        Some(first) if sampled.is_empty() => Err(Error::AllSkipped { files: images.len(), first }),
        _ => Ok(sampled),
    }
}

/// What `keep` makes of the pixels of these images; of those that are not left out.
pub(super) fn images<T: Send>(
    source: &dyn Source,
    images: &[usize],
    options: &EncodeOptions,
    counter: Counter,
    keep: impl Fn(Vec<u8>) -> T + Sync,
) -> Result<Vec<T>> {
    let read = |&index: &usize| {
        let image = prepare(source, index, options);
        counter.add(1)?;
        match image {
            Ok(image) => Ok(Ok(keep(image.pixels))),
            Err(error) if options.on_error.skips(&error) => Ok(Err(error.with_causes())),
            Err(error) => Err(error),
        }
    };
    let results: Vec<Result<T, String>> = images.par_iter().map(read).collect::<Result<_>>()?;
    let mut first_problem = None;
    let mut kept = Vec::with_capacity(results.len());
    for result in results {
        match result {
            Ok(image) => kept.push(image),
            Err(reason) => _ = first_problem.get_or_insert(reason),
        }
    }
    match first_problem {
        Some(first) if kept.is_empty() => Err(Error::AllSkipped { files: images.len(), first }),
        _ => Ok(kept),
    }
}

/// How many of so many images are taken, and how many patches of each.
fn amounts(geometry: &Geometry, images: usize, codewords: usize) -> (usize, usize) {
    let fit = MAX_BYTES / (geometry.codeword_len() + OVERHEAD);
    let patches = (codewords * PER_CODEWORD).min(fit.max(codewords * LEAST_PER_CODEWORD));
    let images = images.min(patches.div_ceil(geometry.patches()).max(IMAGES));
    (images, patches.div_ceil(images).clamp(1, geometry.patches()))
}

/// `most` numbers below `count`, or all, in ascending order, each set equally likely (Floyd's algorithm: Bentley
/// and Floyd, "A sample of brilliance", 1987).
///
/// Written out, as `rand` may change what its own sampling returns from one version to the next.
pub(super) fn choose(random: &mut Pcg64, count: usize, most: usize) -> Vec<usize> {
    if most >= count {
        return (0..count).collect();
    }
    let mut chosen = HashSet::with_capacity(most);
    for last in count - most..count {
        let number = below(random, last + 1);
        if !chosen.insert(number) {
            chosen.insert(last);
        }
    }
    let mut chosen: Vec<usize> = chosen.into_iter().collect();
    chosen.sort_unstable();
    chosen
}

/// A number below `count`, uniform up to a bias of count / 2^64.
fn below(random: &mut Pcg64, count: usize) -> usize {
    ((u128::from(random.next_u64()) * count as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_distinct_sorted_and_uniform() {
        let mut random = Pcg64::seed_from_u64(4);
        let mut times = [0; 10];
        for _ in 0..10_000 {
            let chosen = choose(&mut random, 10, 3);
            assert!(chosen.len() == 3 && chosen.is_sorted_by(|a, b| a < b));
            chosen.into_iter().for_each(|number| times[number] += 1);
        }
        // 3000 each; the standard deviation is 46.
        assert!(times.iter().all(|&times| (2750..3250).contains(&times)), "{times:?}");
        assert_eq!(choose(&mut random, 3, 5), [0, 1, 2]);
    }

    #[test]
    fn large_codebooks_get_two_patches_for_each_codeword() {
        let geometry = Geometry::new((224, 224), 3, (2, 2)).expect("valid");
        let patches = |images, codewords| {
            let (images, each) = amounts(&geometry, images, codewords);
            (images, images * each)
        };
        // 64 for each codeword; what 256 MiB hold; two for each; all that there are.
        assert_eq!(patches(1_000_000, 1 << 10), (8192, 1 << 16));
        let (images, found) = patches(1_000_000, 1 << 20);
        assert!(images == 8192 && found.abs_diff((256 << 20) / 60) < 8192);
        let (images, found) = patches(1_000_000, 1 << 25);
        assert!(images == 8192 && found.abs_diff(1 << 26) < 8192);
        assert_eq!(patches(100, 1 << 25), (100, 100 * 12_544));
        // Small images: more of them.
        let geometry = Geometry::new((32, 32), 3, (2, 2)).expect("valid");
        assert_eq!(amounts(&geometry, 1_000_000, 1 << 25), (262_144, 256));
    }

    #[test]
    fn a_seed_always_gives_the_same_choice() {
        // What this version chose first: another result would change archives made from the same seed.
        assert_eq!(choose(&mut Pcg64::seed_from_u64(0), 1000, 4), [38, 127, 346, 709]);
    }
}
