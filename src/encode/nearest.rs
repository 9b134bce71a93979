//! Exact search for the codeword nearest to a patch.

use rayon::prelude::*;

use super::projection::{DIMS, Projection, SLACK, Signature};
use super::quality::squared_distance;
use crate::error::{Error, Result};
use crate::format::MAX_CODEWORDS;

/// Codewords of a leaf.
const LEAF: usize = 16;

/// Finds the codeword at the least squared distance from a patch, exactly: what comparing it with every codeword
/// would find, the first of those equally near.
///
/// Codewords are put into a tree of bounding boxes over their signatures: integer vectors of 16 values, whose
/// distances bound those of the codewords from below. A search starts from the distance of one codeword, looks only
/// into boxes that can hold a nearer one, and computes the true distance of the few codewords whose signature is
/// near enough.
#[derive(Debug)]
pub struct NearestCodeword<'a> {
    codebook: &'a [u8],
    codeword_len: usize,
    projection: Projection,
    /// The boxes of both branches of each node; after a node come those of its left branch, then of its right one.
    nodes: Vec<[Bounds; 2]>,
    leaves: Vec<Leaf>,
}

/// The least and the greatest of each coordinate.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Bounds {
    low: Signature,
    high: Signature,
}

/// Up to 16 codewords; free places repeat the last.
#[derive(Debug, Clone)]
#[repr(align(64))]
struct Leaf {
    /// Coordinates in pairs: those that one multiply-add instruction takes.
    pairs: [[[i16; 2]; LEAF]; DIMS / 2],
    indices: [u32; LEAF],
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
        let mut entries: Vec<Entry> = codebook
            .par_chunks_exact(codeword_len)
            .zip(0..count as u32)
            .map(|(codeword, index)| (projection.signature(codeword), index))
            .collect();
        let leaf_count = count.div_ceil(LEAF);
        let nowhere = Bounds { low: [0; DIMS], high: [0; DIMS] };
        let mut nodes = vec![[nowhere; 2]; leaf_count - 1];
        let empty = Leaf { pairs: [[[0; 2]; LEAF]; DIMS / 2], indices: [0; LEAF] };
        let mut leaves = vec![empty; leaf_count];
        build(&mut entries, &mut nodes, &mut leaves);
        Ok(Self { codebook, codeword_len, projection, nodes, leaves })
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
        if is_x86_feature_detected!("avx2") {
            // SAFETY: this processor has AVX2, which is all that the function asks for.
            let best = unsafe { self.search_avx2(patch, self.start(patch, hint), |_| true) };
            return (best.index, best.distance);
        }
        let best = self.search(patch, self.start(patch, hint), |_| true, branch_distances, near_in_leaf);
        (best.index, best.distance)
    }

    /// The index of the nearest of those codewords from which no value of the patch differs by more than
    /// `max_error`, the lowest one of several, and its squared distance; `None` if there are none. It need not be the
    /// nearest of all.
    ///
    /// # Panics
    /// If the patch is not as long as a codeword.
    pub fn nearest_within(&self, patch: &[u8], max_error: u8, hint: Option<u32>) -> Option<(u32, u32)> {
        assert_eq!(patch.len(), self.codeword_len, "values in the patch");
        let within = |index| {
            let values = patch.iter().zip(self.codeword(index));
            values.fold(0, |most, (&a, &b)| a.abs_diff(b).max(most)) <= max_error
        };
        let hint = hint.filter(|&index| index <= self.last() && within(index));
        let start = hint.map_or_else(
            || {
                // None is found yet, and none can be farther.
                let distance = self.codeword_len as u32 * u32::from(max_error).pow(2);
                Best { index: u32::MAX, distance, reach: self.reach(distance) }
            },
            |index| self.start(patch, Some(index)),
        );
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: this processor has AVX2, which is all that the function asks for.
            let best = unsafe { self.search_avx2(patch, start, within) };
            return (best.index != u32::MAX).then_some((best.index, best.distance));
        }
        let best = self.search(patch, start, within, branch_distances, near_in_leaf);
        (best.index != u32::MAX).then_some((best.index, best.distance))
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn search_avx2(&self, patch: &[u8], start: Best, allowed: impl Fn(u32) -> bool) -> Best {
        self.search(
            patch,
            start,
            allowed,
            |signature, boxes| branch_distances_avx2(signature, boxes),
            |signature, leaf, reach| near_in_leaf_avx2(signature, leaf, reach),
        )
    }

    /// A codeword.
    pub(super) fn codeword(&self, index: u32) -> &[u8] {
        &self.codebook[index as usize * self.codeword_len..][..self.codeword_len]
    }

    /// Where a search starts without any bound: at one codeword.
    fn start(&self, patch: &[u8], hint: Option<u32>) -> Best {
        let index = hint.unwrap_or(self.leaves[0].indices[0]).min(self.last());
        let distance = self.distance(patch, index, u32::MAX);
        Best { index, distance, reach: self.reach(distance) }
    }

    fn last(&self) -> u32 {
        (self.codebook.len() / self.codeword_len - 1) as u32
    }

    /// The search for the nearest codeword that is allowed and nearer than where it starts, compiled once for each
    /// instruction set. `branch_distances` gives the squared distances of two
    /// boxes; `near_in_leaf` tells which codewords of a leaf have signatures within reach: bit i for the i-th.
    #[inline(always)]
    fn search(
        &self,
        patch: &[u8],
        mut best: Best,
        allowed: impl Fn(u32) -> bool,
        branch_distances: impl Fn(&Signature, &[Bounds; 2]) -> [i32; 2],
        near_in_leaf: impl Fn(&Signature, &Leaf, i32) -> u32,
    ) -> Best {
        let signature = self.projection.signature(patch);
        // Nodes to visit: (distance of its box, node, its first leaf, its number of leaves). Each level leaves at
        // most one behind, and there are at most 22 levels: 2^25 codewords, 16 to a leaf.
        let mut pending = [(0, 0, 0, self.leaves.len()); 32];
        let mut waiting = 1;
        while waiting > 0 {
            waiting -= 1;
            let (bound, node, first, count) = pending[waiting];
            if bound > best.reach {
                continue;
            }
            if count == 1 {
                self.search_leaf(patch, &signature, &self.leaves[first], &mut best, &allowed, &near_in_leaf);
                continue;
            }
            let left = count.div_ceil(2);
            let distances = branch_distances(&signature, &self.nodes[node]);
            let a = (distances[0], node + 1, first, left);
            let b = (distances[1], node + left, first + left, count - left);
            let (near, far) = if a.0 <= b.0 { (a, b) } else { (b, a) };
            pending[waiting] = far;
            pending[waiting + 1] = near;
            waiting += 2;
        }
        best
    }

    #[inline(always)]
    fn search_leaf(
        &self,
        patch: &[u8],
        signature: &Signature,
        leaf: &Leaf,
        best: &mut Best,
        allowed: &impl Fn(u32) -> bool,
        near_in_leaf: &impl Fn(&Signature, &Leaf, i32) -> u32,
    ) {
        let mut near = near_in_leaf(signature, leaf, best.reach);
        while near != 0 {
            let index = leaf.indices[near.trailing_zeros() as usize];
            near &= near - 1;
            let distance = self.distance(patch, index, best.distance);
            if (distance, index) < (best.distance, best.index) && allowed(index) {
                *best = Best { index, distance, reach: self.reach(distance) };
            }
        }
    }

    /// The squared distance of a codeword; any greater number than `limit` if it is greater than that.
    #[inline(always)]
    fn distance(&self, patch: &[u8], index: u32, limit: u32) -> u32 {
        let codeword = self.codeword(index);
        let mut sum = 0;
        for (a, b) in patch.chunks(64).zip(codeword.chunks(64)) {
            sum += squared_distance(a, b);
            if sum > limit {
                break;
            }
        }
        sum
    }

    /// The squared signature distance that corresponds to a squared distance.
    #[inline(always)]
    fn reach(&self, distance: u32) -> i32 {
        let reach = f64::from(distance).sqrt() * self.projection.scale() + SLACK;
        (reach * reach) as i32 + 1
    }
}

impl Bounds {
    fn of(entries: &[Entry]) -> Self {
        let mut bounds = Self { low: [i16::MAX; DIMS], high: [i16::MIN; DIMS] };
        for (signature, _) in entries {
            for (d, &value) in signature.iter().enumerate() {
                bounds.low[d] = bounds.low[d].min(value);
                bounds.high[d] = bounds.high[d].max(value);
            }
        }
        bounds
    }
}

/// A codeword's signature and index.
type Entry = (Signature, u32);

/// Builds the tree over `entries`, cutting where they spread the most, so that every leaf but the last is full.
fn build(entries: &mut [Entry], nodes: &mut [[Bounds; 2]], leaves: &mut [Leaf]) {
    let Some((node, nodes)) = nodes.split_first_mut() else {
        fill(entries, leaves);
        return;
    };
    let left = leaves.len().div_ceil(2);
    let bounds = Bounds::of(entries);
    let widest = (0..DIMS).max_by_key(|&d| bounds.high[d] - bounds.low[d]).unwrap_or(0);
    entries.select_nth_unstable_by_key(left * LEAF, |&(signature, index)| (signature[widest], index));
    let (left_entries, right_entries) = entries.split_at_mut(left * LEAF);
    let (left_nodes, right_nodes) = nodes.split_at_mut(left - 1);
    let (left_leaves, right_leaves) = leaves.split_at_mut(left);
    *node = [Bounds::of(left_entries), Bounds::of(right_entries)];
    let mut build_left = || build(left_entries, left_nodes, left_leaves);
    let mut build_right = || build(right_entries, right_nodes, right_leaves);
    if left > 64 {
        rayon::join(build_left, build_right);
    } else {
        build_left();
        build_right();
    }
}

/// Fills the one leaf that `leaves` consists of.
fn fill(entries: &[Entry], leaves: &mut [Leaf]) {
    for leaf in leaves {
        for place in 0..LEAF {
            let (signature, index) = entries[place.min(entries.len() - 1)];
            leaf.indices[place] = index;
            for (pair, values) in leaf.pairs.iter_mut().zip(signature.as_chunks::<2>().0) {
                pair[place] = *values;
            }
        }
    }
}

/// The squared distances of the nearest points of two boxes.
fn branch_distances(signature: &Signature, boxes: &[Bounds; 2]) -> [i32; 2] {
    boxes.each_ref().map(|bounds| {
        let sides = bounds.low.iter().zip(&bounds.high).zip(signature);
        let outside = sides.map(|((&low, &high), &value)| i32::from((low - value).max(value - high).max(0)));
        outside.map(|outside| outside * outside).sum()
    })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn branch_distances_avx2(signature: &Signature, boxes: &[Bounds; 2]) -> [i32; 2] {
    use std::arch::x86_64::*;
    let value: __m256i = bytemuck::cast(*signature);
    let [a, b] = boxes.each_ref().map(|bounds| {
        let below = _mm256_sub_epi16(bytemuck::cast(bounds.low), value);
        let above = _mm256_sub_epi16(value, bytemuck::cast(bounds.high));
        let outside = _mm256_max_epi16(_mm256_max_epi16(below, above), _mm256_setzero_si256());
        _mm256_madd_epi16(outside, outside)
    });
    // Sums over the lanes: first within the halves, then of the halves.
    let sums = _mm256_hadd_epi32(a, b);
    let sums = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let sums = _mm_hadd_epi32(sums, sums);
    [_mm_cvtsi128_si32(sums), _mm_extract_epi32::<1>(sums)]
}

fn near_in_leaf(signature: &Signature, leaf: &Leaf, reach: i32) -> u32 {
    let mut sums = [0i32; LEAF];
    for (pair, values) in leaf.pairs.iter().zip(signature.as_chunks::<2>().0) {
        for (sum, place) in sums.iter_mut().zip(pair) {
            let [a, b] = [i32::from(values[0] - place[0]), i32::from(values[1] - place[1])];
            *sum += a * a + b * b;
        }
    }
    sums.iter().enumerate().fold(0, |near, (place, &sum)| near | u32::from(sum <= reach) << place)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn near_in_leaf_avx2(signature: &Signature, leaf: &Leaf, reach: i32) -> u32 {
    use std::arch::x86_64::*;
    let mut sums = [_mm256_setzero_si256(); 2];
    let reach = _mm256_set1_epi32(reach);
    let values: &[[i32; DIMS / 4]; 2] = &bytemuck::cast(*signature);
    let mut near = 0;
    for (values, pairs) in values.iter().zip(leaf.pairs.as_chunks::<{ DIMS / 4 }>().0) {
        for (&value, &pair) in values.iter().zip(pairs) {
            let value = _mm256_set1_epi32(value);
            let places: [__m256i; 2] = bytemuck::cast(pair);
            for (sum, places) in sums.iter_mut().zip(places) {
                let difference = _mm256_sub_epi16(value, places);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(difference, difference));
            }
        }
        let far = sums.map(|sum| _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(sum, reach))) as u32);
        near = !(far[0] | far[1] << 8) & 0xFFFF;
        // Half the coordinates often rule out the whole leaf.
        if near == 0 {
            break;
        }
    }
    near
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

    #[test]
    fn equals_brute_force_on_every_kind_of_codebook() {
        let random = &mut Pcg32::seed_from_u64(2);
        for (len, codewords) in [(1, 300), (3, 1000), (12, 1500), (16, 17), (17, 700), (48, 1), (48, 1200), (1024, 90)]
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
                        let start = search.start(patch, hint);
                        let portable = search.search(patch, start, |_| true, branch_distances, near_in_leaf);
                        assert_eq!((portable.index, portable.distance), expected, "{codewords} of {len}, portable");
                    }
                }
            }
        }
    }

    #[test]
    fn within_a_bound_equals_brute_force() {
        fn brute_force_within(codebook: &[u8], patch: &[u8], max_error: u8) -> Option<(u32, u32)> {
            let codewords = codebook.chunks(patch.len()).zip(0u32..);
            let within = codewords.filter(|(c, _)| c.iter().zip(patch).all(|(a, b)| a.abs_diff(*b) <= max_error));
            let distance = |c: &[u8]| c.iter().zip(patch).map(|(a, b)| u32::from(a.abs_diff(*b)).pow(2)).sum::<u32>();
            within.map(|(c, index)| (distance(c), index)).min().map(|(distance, index)| (index, distance))
        }
        let random = &mut Pcg32::seed_from_u64(5);
        let mut seen = [0; 2];
        for (len, codewords, range) in [(1, 300, 256), (3, 900, 128), (12, 1500, 24), (48, 1200, 20), (17, 17, 20)] {
            // Few values, so that several codewords are equally near, and some outside the bound nearer.
            let codebook = bytes(random, len * codewords, |r| (r % range) as u8);
            let search = NearestCodeword::new(&codebook, len).expect("valid");
            for max_error in [0, 1, 8, 12, 255] {
                let mut queries = bytes(random, 30 * len, |r| (r % range) as u8);
                queries.extend(codebook.iter().take(10 * len).map(|&v| v.saturating_add(max_error)));
                for patch in queries.chunks(len) {
                    let expected = brute_force_within(&codebook, patch, max_error);
                    seen[usize::from(expected.is_some())] += 1;
                    let nearest = search.nearest(patch, None).0;
                    for hint in [None, Some(nearest), expected.map(|(index, _)| index), Some(u32::MAX)] {
                        let found = search.nearest_within(patch, max_error, hint);
                        assert_eq!(found, expected, "{codewords} codewords of {len}, {max_error}, {hint:?}");
                    }
                }
            }
        }
        assert!(seen.iter().all(|&times| times > 100), "{seen:?}");
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
