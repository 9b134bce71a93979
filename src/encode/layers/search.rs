//! Exact search for the codewords nearest to signed values, by comparing with every codeword.
//!
//! The squared distance of a target t from a codeword c is |t|^2 + (|c|^2 - 2 t.c). What is in brackets is computed for
//! sixteen codewords at a time, pairs of values multiplied and added; a few targets share every codeword that is loaded.
//! AVX-512 has an instruction for four bytes: of codewords without sign, u = c + 128, and of targets with one. For targets of
//! one byte t' = -1 - t, so that 2 u.t' = -2 t.c - 256 S(t) - 2 S(u), with S the sum of values.

use Path::*;

/// Codewords that are compared at once.
const LANES: usize = 16;
/// Most values of a codeword, and the greatest value of a target: sums stay far within 32 bits.
const MAX_LEN: usize = 128;
const MAX_VALUE: i16 = 1535;
/// Targets that share what is loaded of the codewords.
const TILE: usize = 6;
/// What stands for |c|^2 where there is no codeword: nothing is as far.
const NOWHERE: i32 = i32::MAX;

/// A pair of values of each of sixteen codewords.
type Pairs = [[i16; 2]; LANES];
/// Four values of each, plus 128.
type Quads = [[u8; 4]; LANES];
/// |c|^2 - 2 t.c of sixteen codewords.
type Scores = [i32; LANES];

/// A codebook, laid out for the search.
#[derive(Debug, Clone)]
pub(in crate::encode) struct BookSearch {
    len: usize,
    codewords: usize,
    /// Sixteen codewords after another: their pairs of values.
    pairs: Vec<Pairs>,
    /// Their |c|^2.
    squares: Vec<Scores>,
    /// The same codewords as bytes, and their |c|^2 + 2 S(u).
    quads: Vec<Quads>,
    quad_squares: Vec<Scores>,
    path: Path,
}

/// A codeword near a target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::encode) struct Near {
    /// The squared distance from the target.
    pub distance: u32,
    pub index: u16,
}

/// The instructions that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Path {
    /// All that this processor has, the best one last.
    fn all() -> Vec<Self> {
        [
            Some(Portable),
            #[cfg(target_arch = "x86_64")]
            is_x86_feature_detected!("avx2").then_some(Avx2),
            #[cfg(target_arch = "x86_64")]
            (is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni")).then_some(Avx512),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Path {
    /// Whether it has instructions for sums of products of bytes.
    fn has_bytes(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Avx512 => true,
            _ => false,
        }
    }
}

impl BookSearch {
    /// Prepares searches in a codebook of 1 to 2^16 codewords of `len` values, a multiple of four of at most 128.
    pub fn new(codewords: &[i8], len: usize) -> Self {
        assert!(len.is_multiple_of(4) && len <= MAX_LEN, "values of a codeword");
        let count = codewords.len() / len;
        assert!((1..=1 << 16).contains(&count), "codewords of a codebook");
        let groups = count.div_ceil(LANES);
        let mut pairs = vec![[[0; 2]; LANES]; groups * len / 2];
        let mut squares = vec![[NOWHERE; LANES]; groups];
        let mut quads = vec![[[0; 4]; LANES]; groups * len / 4];
        let mut quad_squares = squares.clone();
        for (index, codeword) in codewords.chunks_exact(len).enumerate() {
            let (group, lane) = (index / LANES, index % LANES);
            let to = &mut pairs[group * len / 2..][..len / 2];
            to.iter_mut().zip(codeword.as_chunks::<2>().0).for_each(|(to, pair)| to[lane] = pair.map(i16::from));
            squares[group][lane] = codeword.iter().map(|&value| i32::from(value).pow(2)).sum();
            let unsigned = |value: i8| value.cast_unsigned() ^ 128;
            let to = &mut quads[group * len / 4..][..len / 4];
            to.iter_mut().zip(codeword.as_chunks::<4>().0).for_each(|(to, quad)| to[lane] = quad.map(unsigned));
            let sum: i32 = codeword.iter().map(|&value| i32::from(unsigned(value))).sum();
            quad_squares[group][lane] = squares[group][lane] + 2 * sum;
        }
        let path = Path::all().pop().unwrap_or(Portable);
        Self { len, codewords: count, pairs, squares, quads, quad_squares, path }
    }

    /// Finds the codeword nearest to each of many targets of -1535 to 1535, one after another: the lowest one of several.
    pub fn nearest(&self, targets: &[i16], near: &mut [Near]) {
        self.nearest_several(targets, 1, near);
    }

    /// Finds for each of many targets the `several` codewords nearest to it, in the order of distance and index; if there
    /// are fewer in all, the last one is repeated.
    pub fn nearest_several(&self, targets: &[i16], several: usize, near: &mut [Near]) {
        assert_eq!(targets.len() / self.len * several, near.len(), "codewords asked for");
        assert!(targets.len().is_multiple_of(self.len) && several > 0, "values in the targets");
        let mut scores = Vec::new();
        let tiles = targets.chunks(TILE * self.len).zip(near.chunks_mut(TILE * several));
        for (targets, near) in tiles {
            if targets.len() == TILE * self.len {
                self.tile::<TILE>(targets, several, near, &mut scores);
            } else {
                for (target, near) in targets.chunks(self.len).zip(near.chunks_mut(several)) {
                    self.tile::<1>(target, several, near, &mut scores);
                }
            }
        }
    }

    /// The nearest codewords of a few targets.
    fn tile<const T: usize>(&self, targets: &[i16], several: usize, near: &mut [Near], scores: &mut Vec<Scores>) {
        let prepared = Prepared::<T>::new(targets, self.len, self.path);
        match self.path {
            Portable => self.tile_portable(&prepared, several, near, scores),
            // SAFETY: `Path::all` found these instructions.
            #[cfg(target_arch = "x86_64")]
            Avx2 => unsafe { self.tile_avx2(&prepared, several, near, scores) },
            // SAFETY: `Path::all` found these instructions.
            #[cfg(target_arch = "x86_64")]
            Avx512 => unsafe { self.tile_avx512(&prepared, several, near, scores) },
        }
    }

    /// The nearest codewords of a few targets by the scores of all and the least score of each lane, compiled once for each
    /// instruction set.
    #[inline(always)]
    fn least<const T: usize>(
        &self,
        prepared: &Prepared<T>,
        several: usize,
        near: &mut [Near],
        scores: &[Scores],
        least: [Scores; T],
    ) {
        let targets = scores.chunks_exact(self.squares.len()).zip(near.chunks_exact_mut(several)).zip(least);
        for (t, ((scores, near), least)) in targets.enumerate() {
            self.least_of(scores, least, |score| prepared.distance(t, score), near);
        }
    }

    /// The codewords with the least scores.
    #[inline(always)]
    fn least_of(&self, scores: &[Scores], mut least: Scores, distance: impl Fn(i32) -> u32, near: &mut [Near]) {
        let wanted = near.len().min(self.codewords);
        // The least score of a lane is a codeword's, so the `wanted`-th least of those is a bound for the `wanted`-th
        // least of all.
        least.sort_unstable();
        let bound = least.get(wanted - 1).copied().unwrap_or(NOWHERE);
        let mut found = Vec::with_capacity(4 * wanted);
        for (group, of_group) in scores.iter().enumerate() {
            // One comparison of all lanes.
            if !of_group.iter().fold(false, |found, &score| found | (score <= bound)) {
                continue;
            }
            for (index, &score) in (group * LANES..self.codewords).zip(of_group) {
                if score <= bound {
                    found.push(Near { distance: distance(score), index: index as u16 });
                }
            }
        }
        found.sort_unstable();
        near.iter_mut().enumerate().for_each(|(i, near)| *near = found[i.min(wanted - 1)]);
    }

    /// The nearest of the sixteen lanes' best codewords: the least score of each lane, and the first group that has it.
    fn across<const T: usize>(
        &self,
        prepared: &Prepared<T>,
        scores: &[Scores; T],
        groups: &[Scores; T],
        near: &mut [Near],
    ) {
        for (t, near) in near.iter_mut().enumerate() {
            let index = |lane: usize| groups[t][lane] as usize * LANES + lane;
            let best = (0..LANES).map(|lane| (scores[t][lane], index(lane))).min();
            let (score, index) = best.unwrap_or_default();
            *near = Near { distance: prepared.distance(t, score), index: index as u16 };
        }
    }

    fn tile_portable<const T: usize>(
        &self,
        prepared: &Prepared<T>,
        several: usize,
        near: &mut [Near],
        scores: &mut Vec<Scores>,
    ) {
        scores.clear();
        let mut least = [[NOWHERE; LANES]; T];
        for (t, least) in least.iter_mut().enumerate() {
            let groups = self.pairs.chunks_exact(self.len / 2).zip(&self.squares);
            scores.extend(groups.map(|(pairs, squares)| {
                let mut scores = *squares;
                for (pairs, values) in pairs.iter().zip(&prepared.pairs) {
                    let values = values[t].map(i32::from);
                    for (score, pair) in scores.iter_mut().zip(pairs) {
                        *score += i32::from(pair[0]) * values[0] + i32::from(pair[1]) * values[1];
                    }
                }
                least.iter_mut().zip(scores).for_each(|(least, score)| *least = score.min(*least));
                scores
            }));
        }
        self.least(prepared, several, near, scores, least);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512bw,avx512vnni")]
    fn tile_avx512<const T: usize>(
        &self,
        prepared: &Prepared<T>,
        several: usize,
        near: &mut [Near],
        scores: &mut Vec<Scores>,
    ) {
        use std::arch::x86_64::*;
        if several > 1 {
            let groups = self.squares.len();
            scores.resize(T * groups, [0; LANES]);
            let mut least = [_mm512_set1_epi32(NOWHERE); T];
            self.scores_avx512(prepared, |t, group, of_group| {
                least[t] = _mm512_min_epi32(of_group, least[t]);
                scores[t * groups + group] = lanes_avx512(of_group);
            });
            return self.least(prepared, several, near, scores, least.map(|lanes| lanes_avx512(lanes)));
        }
        let (mut best, mut groups) = ([_mm512_set1_epi32(NOWHERE); T], [_mm512_setzero_si512(); T]);
        self.scores_avx512(prepared, |t, group, scores| {
            let nearer = _mm512_cmplt_epi32_mask(scores, best[t]);
            best[t] = _mm512_min_epi32(scores, best[t]);
            groups[t] = _mm512_mask_mov_epi32(groups[t], nearer, _mm512_set1_epi32(group as i32));
        });
        self.across(prepared, &best.map(|v| lanes_avx512(v)), &groups.map(|v| lanes_avx512(v)), near);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512bw,avx512vnni")]
    #[inline]
    fn scores_avx512<const T: usize>(
        &self,
        prepared: &Prepared<T>,
        mut each: impl FnMut(usize, usize, std::arch::x86_64::__m512i),
    ) {
        use std::arch::x86_64::*;
        // SAFETY: these are 64 bytes.
        let load = |values: &Pairs| unsafe { _mm512_loadu_si512(values.as_ptr().cast()) };
        if prepared.are_bytes {
            let groups = self.quads.chunks_exact(self.len / 4).zip(&self.quad_squares);
            for (group, (quads, squares)) in groups.enumerate() {
                let mut products = [_mm512_setzero_si512(); T];
                for (quads, values) in quads.iter().zip(&prepared.quads) {
                    let quads = load(bytemuck::cast_ref(quads));
                    for (products, &values) in products.iter_mut().zip(values) {
                        *products = _mm512_dpbusd_epi32(*products, quads, _mm512_set1_epi32(bytemuck::cast(values)));
                    }
                }
                let squares = load(bytemuck::cast_ref(squares));
                for (t, products) in products.into_iter().enumerate() {
                    each(t, group, _mm512_add_epi32(squares, _mm512_slli_epi32::<1>(products)));
                }
            }
            return;
        }
        let groups = self.pairs.chunks_exact(self.len / 2).zip(&self.squares);
        for (group, (pairs, squares)) in groups.enumerate() {
            let mut scores = [load(bytemuck::cast_ref(squares)); T];
            for (pairs, values) in pairs.iter().zip(&prepared.pairs) {
                let pairs = load(pairs);
                for (scores, &values) in scores.iter_mut().zip(values) {
                    *scores = _mm512_dpwssd_epi32(*scores, pairs, _mm512_set1_epi32(bytemuck::cast(values)));
                }
            }
            for (t, scores) in scores.into_iter().enumerate() {
                each(t, group, scores);
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn tile_avx2<const T: usize>(
        &self,
        prepared: &Prepared<T>,
        several: usize,
        near: &mut [Near],
        scores: &mut Vec<Scores>,
    ) {
        use std::arch::x86_64::*;
        if several > 1 {
            let groups = self.squares.len();
            scores.resize(T * groups, [0; LANES]);
            let mut least = [[_mm256_set1_epi32(NOWHERE); 2]; T];
            self.scores_avx2(prepared, |t, group, of_group| {
                least[t] = [0, 1].map(|half| _mm256_min_epi32(of_group[half], least[t][half]));
                scores[t * groups + group] = bytemuck::cast(of_group);
            });
            return self.least(prepared, several, near, scores, least.map(bytemuck::cast));
        }
        let (mut best, mut groups) = ([[_mm256_set1_epi32(NOWHERE); 2]; T], [[_mm256_setzero_si256(); 2]; T]);
        self.scores_avx2(prepared, |t, group, scores| {
            let group = _mm256_set1_epi32(group as i32);
            for ((best, groups), scores) in best[t].iter_mut().zip(&mut groups[t]).zip(scores) {
                let nearer = _mm256_cmpgt_epi32(*best, scores);
                *best = _mm256_min_epi32(scores, *best);
                *groups = _mm256_blendv_epi8(*groups, group, nearer);
            }
        });
        self.across(prepared, &best.map(bytemuck::cast), &groups.map(bytemuck::cast), near);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    #[inline]
    fn scores_avx2<const T: usize>(
        &self,
        prepared: &Prepared<T>,
        mut each: impl FnMut(usize, usize, [std::arch::x86_64::__m256i; 2]),
    ) {
        use std::arch::x86_64::*;
        let groups = self.pairs.chunks_exact(self.len / 2).zip(&self.squares);
        for (group, (pairs, squares)) in groups.enumerate() {
            let mut scores: [[__m256i; 2]; T] = [bytemuck::cast(*squares); T];
            for (pairs, values) in pairs.iter().zip(&prepared.pairs) {
                let pairs: [__m256i; 2] = bytemuck::cast(*pairs);
                for (scores, &values) in scores.iter_mut().zip(values) {
                    let values = _mm256_set1_epi32(bytemuck::cast(values));
                    for (score, pairs) in scores.iter_mut().zip(pairs) {
                        *score = _mm256_add_epi32(*score, _mm256_madd_epi16(pairs, values));
                    }
                }
            }
            for (t, scores) in scores.into_iter().enumerate() {
                each(t, group, scores);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bw")]
#[inline]
fn lanes_avx512(values: std::arch::x86_64::__m512i) -> Scores {
    let mut lanes = [0; LANES];
    // SAFETY: there is room for the 64 bytes.
    unsafe { std::arch::x86_64::_mm512_storeu_si512(lanes.as_mut_ptr().cast(), values) };
    lanes
}

/// A few targets, ready to be compared.
struct Prepared<const T: usize> {
    /// -2 t in pairs of values, those of all targets together.
    pairs: [[[i16; 2]; T]; MAX_LEN / 2],
    /// -1 - t in fours, instead, if all values are bytes and there are instructions for them.
    quads: [[[i8; 4]; T]; MAX_LEN / 4],
    are_bytes: bool,
    /// What a score is less than a squared distance.
    offsets: [i32; T],
}

impl<const T: usize> Prepared<T> {
    fn new(targets: &[i16], len: usize, path: Path) -> Self {
        debug_assert!(targets.iter().all(|value| value.abs() <= MAX_VALUE), "values of a target");
        let are_bytes = path.has_bytes() && targets.iter().all(|&value| value == i16::from(value as i8));
        let (pairs, quads) = ([[[0; 2]; T]; MAX_LEN / 2], [[[0; 4]; T]; MAX_LEN / 4]);
        let mut prepared = Self { pairs, quads, are_bytes, offsets: [0; T] };
        for (t, target) in targets.chunks_exact(len).enumerate() {
            let offset = &mut prepared.offsets[t];
            *offset = target.iter().map(|&value| i32::from(value).pow(2)).sum();
            if are_bytes {
                *offset += 256 * target.iter().map(|&value| i32::from(value)).sum::<i32>();
                let quads = prepared.quads.iter_mut().zip(target.as_chunks::<4>().0);
                quads.for_each(|(to, quad)| to[t] = quad.map(|value| !value as i8));
            } else {
                let pairs = prepared.pairs.iter_mut().zip(target.as_chunks::<2>().0);
                pairs.for_each(|(to, pair)| to[t] = pair.map(|value| -2 * value));
            }
        }
        prepared
    }

    /// The squared distance of a target by a codeword's score.
    fn distance(&self, target: usize, score: i32) -> u32 {
        (self.offsets[target] + score) as u32
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_pcg::Pcg32;

    use super::*;

    fn distances(codewords: &[i8], target: &[i16]) -> Vec<Near> {
        let distance = |codeword: &[i8]| {
            let squares = codeword.iter().zip(target).map(|(&c, &t)| (i64::from(t) - i64::from(c)).pow(2));
            squares.sum::<i64>() as u32
        };
        let mut all: Vec<Near> = codewords
            .chunks(target.len())
            .zip(0..)
            .map(|(codeword, index)| Near { distance: distance(codeword), index })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn every_path_finds_what_comparing_one_by_one_finds() {
        let random = &mut Pcg32::seed_from_u64(5);
        for (len, count, spread) in
            [(16, 1, 128), (16, 15, 3), (16, 16, 128), (16, 4096, 30), (64, 33, 128), (64, 500, 2), (128, 300, 128)]
        {
            // A small spread: many codewords that are equal or as far.
            let codewords: Vec<i8> = (0..len * count)
                .map(|_| (random.next_u32() % (2 * spread)) as i32 - spread as i32)
                .map(|v| v as i8)
                .collect();
            let values = |random: &mut Pcg32, most: u32| (random.next_u32() % (2 * most + 1)) as i16 - most as i16;
            let mut targets: Vec<i16> = (0..23 * len).map(|_| values(random, 2 * spread)).collect();
            targets.extend((0..12 * len).map(|_| random.next_u32() as i8).map(i16::from));
            targets.extend((0..6 * len).map(|i| if i / len % 2 == 0 { 127 } else { -128 }));
            targets.extend((0..5 * len).map(|_| values(random, 1023)));
            targets.extend((0..len).map(|_| 1023).chain((0..len).map(|_| -1023)));
            for path in Path::all() {
                let search = BookSearch { path, ..BookSearch::new(&codewords, len) };
                let mut near = vec![Near::default(); targets.len() / len];
                search.nearest(&targets, &mut near);
                for (target, near) in targets.chunks(len).zip(near) {
                    assert_eq!(near, distances(&codewords, target)[0], "{path:?}, {count} codewords of {len} values");
                }
                for several in [2, 8, 40] {
                    let mut near = vec![Near::default(); several * targets.len() / len];
                    search.nearest_several(&targets, several, &mut near);
                    for (target, near) in targets.chunks(len).zip(near.chunks(several)) {
                        let mut expected = distances(&codewords, target);
                        expected.resize(several.max(count), expected[count - 1]);
                        assert_eq!(near, &expected[..several], "{path:?}, {count} codewords of {len} values");
                    }
                }
            }
        }
    }
}
