//! Exact search for the codeword nearest to a patch.

use rayon::prelude::*;

use super::projection::{Projection, SLACK, Signature};
use super::quality::squared_distance;
#[cfg(target_arch = "x86_64")]
use super::reach::squared_distance_avx512;
use super::reach::{near_branches, near_in_leaf};
#[cfg(target_arch = "x86_64")]
use super::reach::{near_branches_avx2, near_branches_avx512, near_in_leaf_avx2, near_in_leaf_avx512};
use super::tree::{Leaf, Node, Tree, WIDTH};
use crate::error::{Error, Result};
use crate::format::MAX_CODEWORDS;

/// The lowest bits of a box's squared distance, and of the height of the tree below it, in what a search has to visit.
const BOUND: u32 = 32;
const HEIGHT: u32 = 28;

/// Finds the codeword at the least squared distance from a patch, exactly: what comparing it with every codeword
/// would find, the first of those equally near.
///
/// Codewords are put into a tree of bounding boxes, 16 to a node, over their signatures: integer vectors of 16 values,
/// whose distances bound those of the codewords from below. A search starts from the distance of one codeword, looks only
/// into boxes that can hold a nearer one, and computes the true distance of the few codewords whose signature is
/// near enough.
#[derive(Debug)]
pub struct NearestCodeword<'a> {
    codebook: &'a [u8],
    codeword_len: usize,
    projection: Projection,
    tree: Tree,
}

/// The nearest codeword so far.
#[derive(Debug, Clone, Copy)]
struct Best {
    index: u32,
    distance: u32,
    /// The squared distance beyond which no signature can belong to a codeword as near.
    reach: i32,
}

impl<'a> NearestCodeword<'a> {
    /// Prepares searches in a codebook: codewords of `codeword_len` values one after another.
    ///
    /// # Errors
    /// [`Error::Argument`] unless the codebook holds 1 to 2^25 whole codewords of 1 to 1024 values.
    pub fn new(codebook: &'a [u8], codeword_len: usize) -> Result<Self> {
        check_patches("codebook", codebook, codeword_len)?;
        Self::with_projection(codebook, codeword_len, Projection::new(codebook, codeword_len))
    }

    pub(super) fn with_projection(codebook: &'a [u8], codeword_len: usize, projection: Projection) -> Result<Self> {
        let count = codebook.len() / codeword_len;
        if count > MAX_CODEWORDS {
            return Err(Error::Argument {
                argument: "codewords",
                found: count.to_string(),
                expected: format!("at most {MAX_CODEWORDS}"),
            });
        }
        let signatures = codebook.par_chunks_exact(codeword_len).map(|codeword| projection.signature(codeword));
        let tree = Tree::new(signatures.zip(0..count as u32).collect());
        Ok(Self { codebook, codeword_len, projection, tree })
    }

    /// The index of the nearest codeword, the lowest one of several, and its squared distance. The codeword `hint`
    /// is looked at first: one that is probably near, such as a neighbouring patch's, saves time and changes
    /// nothing else.
    ///
    /// # Panics
    /// If the patch is not as long as a codeword.
    pub fn nearest(&self, patch: &[u8], hint: Option<u32>) -> (u32, u32) {
        assert_eq!(patch.len(), self.codeword_len, "values in the patch");
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512bw") {
            // SAFETY: this processor has AVX-512 BW, which is all that the function asks for.
            let best = unsafe { self.search_avx512(patch, hint) };
            return (best.index, best.distance);
        } else if is_x86_feature_detected!("avx2") {
            // SAFETY: this processor has AVX2, which is all that the function asks for.
            let best = unsafe { self.search_avx2(patch, hint) };
            return (best.index, best.distance);
        }
        let best = self.search(patch, hint, near_branches, near_in_leaf, squared_distance);
        (best.index, best.distance)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512bw")]
    fn search_avx512(&self, patch: &[u8], hint: Option<u32>) -> Best {
        self.search(
            patch,
            hint,
            |signature, node, reach| near_branches_avx512(signature, node, reach),
            |signature, leaf, reach| near_in_leaf_avx512(signature, leaf, reach),
            |patch, codeword| squared_distance_avx512(patch, codeword),
        )
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn search_avx2(&self, patch: &[u8], hint: Option<u32>) -> Best {
        self.search(
            patch,
            hint,
            |signature, node, reach| near_branches_avx2(signature, node, reach),
            |signature, leaf, reach| near_in_leaf_avx2(signature, leaf, reach),
            squared_distance,
        )
    }

    /// A codeword.
    pub(super) fn codeword(&self, index: u32) -> &[u8] {
        &self.codebook[index as usize * self.codeword_len..][..self.codeword_len]
    }

    /// The search, compiled once for each instruction set: `near_branches`, `near_in_leaf` and `squared_distance` are
    /// the functions of these names or equal them.
    #[inline(always)]
    fn search(
        &self,
        patch: &[u8],
        hint: Option<u32>,
        near_branches: impl Fn(&Signature, &Node, i32) -> (u32, [i32; WIDTH]),
        near_in_leaf: impl Fn(&Signature, &Leaf, i32) -> u32,
        squared_distance: impl Fn(&[u8], &[u8]) -> u32,
    ) -> Best {
        // The squared distance of a codeword; any greater number than `limit` if it is greater than that.
        let distance_of = |index, limit| {
            let mut sum = 0;
            for (a, b) in patch.chunks(64).zip(self.codeword(index).chunks(64)) {
                sum += squared_distance(a, b);
                if sum > limit {
                    break;
                }
            }
            sum
        };
        let signature = self.projection.signature(patch);
        let last = (self.codebook.len() / self.codeword_len - 1) as u32;
        let index = hint.unwrap_or(self.tree.leaves[0].indices[0]).min(last);
        let distance = distance_of(index, u32::MAX);
        let mut best = Best { index, distance, reach: self.reach(distance) };

        // What is to be visited, each in one number: the squared distance of its box, the nodes on the way from it down
        // to a leaf, and which node or leaf it is. A node leaves at most 15 behind, and there are at most 6 levels of
        // nodes: 2^25 codewords, 16 to a leaf.
        let mut pending = [0; 128];
        pending[0] = u64::from(self.tree.height) << HEIGHT;
        let mut waiting = 1;
        while waiting > 0 {
            waiting -= 1;
            let next = pending[waiting];
            if (next >> BOUND) as i32 > best.reach {
                continue;
            }
            let height = next >> HEIGHT & 7;
            let place = (next & ((1 << HEIGHT) - 1)) as usize;
            if height == 0 {
                let leaf = &self.tree.leaves[place];
                let mut near = near_in_leaf(&signature, leaf, best.reach);
                while near != 0 {
                    let index = leaf.indices[near.trailing_zeros() as usize];
                    near &= near - 1;
                    let distance = distance_of(index, best.distance);
                    if (distance, index) < (best.distance, best.index) {
                        best = Best { index, distance, reach: self.reach(distance) };
                    }
                }
                continue;
            }
            let node = &self.tree.nodes[place];
            let (near, distances) = near_branches(&signature, node, best.reach);
            let mut near = near & node.used;
            // The nearest branch comes next, the others in any order: sorting them costs more than it saves.
            let mut nearest = u64::MAX;
            while near != 0 {
                let branch = near.trailing_zeros() as usize;
                near &= near - 1;
                let below = (height - 1) << HEIGHT | u64::from(node.branches[branch]);
                let branch = (distances[branch] as u64) << BOUND | below;
                pending[waiting] = nearest.max(branch);
                waiting += usize::from(nearest != u64::MAX);
                nearest = nearest.min(branch);
            }
            if nearest != u64::MAX {
                pending[waiting] = nearest;
                waiting += 1;
            }
        }
        best
    }

    /// The squared signature distance that corresponds to a squared distance.
    #[inline(always)]
    fn reach(&self, distance: u32) -> i32 {
        let reach = f64::from(distance).sqrt() * self.projection.scale() + SLACK;
        (reach * reach) as i32 + 1
    }
}

/// Checks that a slice holds whole patches of 1 to 1024 values, and at least one.
pub(super) fn check_patches(argument: &'static str, patches: &[u8], len: usize) -> Result<()> {
    if !(1..=1024).contains(&len) || patches.is_empty() || !patches.len().is_multiple_of(len) {
        return Err(Error::Argument {
            argument,
            found: format!("{} bytes in pieces of {len}", patches.len()),
            expected: "at least one whole piece of 1 to 1024 bytes".into(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_pcg::Pcg32;

    use super::*;

    fn brute_force(codebook: &[u8], patch: &[u8]) -> (u32, u32) {
        let distance = |c: &[u8]| c.iter().zip(patch).map(|(&a, &b)| (i32::from(a) - i32::from(b)).pow(2) as u32).sum();
        let distances = codebook.chunks(patch.len()).map(distance).zip(0u32..);
        distances.min().map(|(distance, index)| (index, distance)).expect("codewords")
    }

    fn bytes(random: &mut Pcg32, count: usize, mut value: impl FnMut(u32) -> u8) -> Vec<u8> {
        (0..count).map(|_| value(random.next_u32() >> 8)).collect()
    }

    /// What every path that this processor has finds.
    fn paths(search: &NearestCodeword, patch: &[u8], hint: Option<u32>) -> Vec<(&'static str, Best)> {
        let mut found = vec![("portable", search.search(patch, hint, near_branches, near_in_leaf, squared_distance))];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                // SAFETY: this processor has AVX2.
                found.push(("AVX2", unsafe { search.search_avx2(patch, hint) }));
            }
            if is_x86_feature_detected!("avx512bw") {
                // SAFETY: this processor has AVX-512 BW.
                found.push(("AVX-512", unsafe { search.search_avx512(patch, hint) }));
            }
        }
        found
    }

    #[test]
    fn equals_brute_force_on_every_kind_of_codebook() {
        let random = &mut Pcg32::seed_from_u64(2);
        for (len, codewords) in [(1, 300), (3, 5000), (12, 1500), (16, 17), (17, 700), (48, 1), (48, 1200), (1024, 90)]
        {
            let count = len * codewords;
            let mut clustered = bytes(random, count, |r| (r % 7) as u8);
            for (i, codeword) in clustered.chunks_mut(len).enumerate() {
                codeword.iter_mut().for_each(|v| *v += (i % 5 * 60) as u8);
            }
            let uniform = bytes(random, count, |r| r as u8);
            let repeated: Vec<u8> =
                (0..codewords).flat_map(|i| uniform[i % 7 % codewords * len..][..len].to_vec()).collect();
            let extreme = bytes(random, count, |r| if r % 2 == 0 { 0 } else { 255 });
            let queries = [bytes(random, 8 * len, |r| r as u8), vec![0; len], vec![255; len]].concat();
            for codebook in [uniform, clustered, repeated, extreme, vec![77; count]] {
                let search = NearestCodeword::new(&codebook, len).expect("valid");
                // Random patches, and codewords and their neighbours.
                let near = codebook.iter().take(12 * len).map(|&v| v.saturating_add((random.next_u32() % 3) as u8));
                let near: Vec<u8> = near.collect();
                for patch in queries.chunks(len).chain(codebook.chunks(len).take(12)).chain(near.chunks(len)) {
                    let expected = brute_force(&codebook, patch);
                    for hint in [None, Some(expected.0), Some(u32::MAX)] {
                        assert_eq!(search.nearest(patch, hint), expected, "{codewords} codewords of {len}, {hint:?}");
                        for (path, best) in paths(&search, patch, hint) {
                            assert_eq!((best.index, best.distance), expected, "{codewords} of {len}, {path}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_greatest_distance_fits() {
        let search = NearestCodeword::new(&[0; 1024], 1024).expect("valid");
        assert_eq!(search.nearest(&[255; 1024], None), (0, 1024 * 255 * 255));
    }

    #[test]
    fn codebooks_without_whole_codewords_are_refused() {
        for (codebook, len) in [(&[0u8; 12][..], 0), (&[0; 12], 5), (&[], 3), (&[0; 2050], 1025)] {
            assert!(NearestCodeword::new(codebook, len).is_err(), "{} bytes, {len}", codebook.len());
        }
    }
}
