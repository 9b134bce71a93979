//! The sums of codewords that come closest to an image's blocks, and which of them are worth their bits.

mod draft;
mod price;

use std::cmp::Reverse;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

use rayon::prelude::*;

pub(in crate::encode) use self::draft::{Draft, Modes};
use self::price::{Price, busyness};
use super::planes::Planes;
use super::search::{BookSearch, Near};
use crate::error::Result;
use crate::format::books::{BLOCK_STAGES, Book, Component, Cover, LayerBooks, MODES, QUARTER_STAGES};
use crate::format::record::RecordShape;
use crate::geometry::Geometry;

/// What a squared error of brightness, Cb and Cr is worth in squared errors of red, green and blue together: the squares of
/// the columns of the transform back (ITU-T T.871), in 1/1024. Brightness 3; Cb 0.344^2 + 1.772^2; Cr 1.402^2 + 0.714^2.
const LUMA_WEIGHT: u64 = 3 << 10;
const CB_WEIGHT: u64 = 3336;
const CR_WEIGHT: u64 = 2535;
const UNIT: f64 = 1024.0;

/// Values of a quarter of a block of brightness and of colour.
const LUMA: usize = 16;
const CHROMA: usize = 128;

/// Most indices of a block, and most stages of one kind.
const INDICES: usize = BLOCK_STAGES + 4 * QUARTER_STAGES;
const STAGES: usize = QUARTER_STAGES;

/// How many sums are followed from stage to stage: the best ones so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::encode) struct Beam {
    /// Of codewords that cover the block.
    pub block: usize,
    /// Of codewords that cover a quarter.
    pub quarter: usize,
}

/// Codebooks that images are encoded with.
pub(in crate::encode) struct LayerCoder {
    geometry: Geometry,
    books: LayerBooks,
    shape: RecordShape,
    luma: ComponentCoder<LUMA>,
    chroma: Option<ComponentCoder<CHROMA>>,
}

/// A component's codebooks. A quarter of a block has `Q` values, and a block's values are taken quarter by quarter.
struct ComponentCoder<const Q: usize> {
    books: Vec<BookCoder>,
    modes: Vec<ModeCoder>,
    beam: Beam,
    /// The mode that was best last for a block as busy as this: the one to try first. What comes out does not depend on it.
    likely: [AtomicU8; 64],
}

struct BookCoder {
    /// The codewords one after another, those of blocks quarter by quarter.
    codewords: Vec<i8>,
    len: usize,
    search: BookSearch,
}

struct ModeCoder {
    block: Vec<usize>,
    quarter: Vec<usize>,
    /// Bits of its indices.
    bits: f64,
    /// The first mode that has the same stages for blocks.
    roots: usize,
}

/// The values of a block, quarter by quarter.
type Values<const Q: usize> = [[i16; Q]; 4];

/// A sum of codewords that cover a block.
struct Root<const Q: usize> {
    indices: [u16; STAGES],
    /// What it leaves.
    rest: Values<Q>,
    /// The quarters, that of the largest error first: it tells soonest whether a mode pays.
    order: [usize; 4],
}

/// The best ones, the best one first.
type Roots<const Q: usize> = Vec<Root<Q>>;

/// A block in one of the modes, as far as it is known.
#[derive(Clone, Copy)]
struct Trial {
    /// The squared error in [`UNIT`]s, or what it is at least.
    error: u64,
    is_known: bool,
    indices: [u16; INDICES],
}

/// A block in all modes.
type Trials = [Trial; MODES];

impl LayerCoder {
    /// Prepares codebooks that [`check`](LayerBooks::check) for images of these sizes.
    pub fn new(geometry: &Geometry, books: &LayerBooks, beam: Beam) -> Result<Self> {
        let bits = books.index_bits;
        Ok(Self {
            geometry: *geometry,
            shape: RecordShape::new(geometry, books)?,
            luma: ComponentCoder::new(&books.luma, bits, beam),
            chroma: books.chroma.as_ref().map(|chroma| ComponentCoder::new(chroma, bits, beam)),
            books: books.clone(),
        })
    }

    /// Bits of an index.
    pub fn index_bits(&self) -> usize {
        self.books.index_bits as usize
    }

    /// Begins with an image: interleaved pixels.
    pub fn draft(&self, pixels: &[u8]) -> Draft<'_> {
        let planes = Planes::cut(&self.geometry, pixels);
        let unknown = |values: usize, len: usize| vec![[Trial::UNKNOWN; MODES]; values / len];
        let (luma, chroma) = (unknown(planes.luma.len(), 4 * LUMA), unknown(planes.chroma.len(), 4 * CHROMA));
        Draft { coder: self, planes, luma, chroma }
    }
}

/// Planes of a component whose quarters have so many values.
const fn planes(q: usize) -> usize {
    if q == LUMA { 1 } else { 2 }
}

impl Trial {
    const UNKNOWN: Self = Self { error: 0, is_known: false, indices: [0; INDICES] };
}

impl<const Q: usize> ComponentCoder<Q> {
    /// Pixels of a side of a quarter.
    const SIDE: usize = if Q == LUMA { 4 } else { 8 };
    /// Pixels of a side of what a value of a codeword for blocks covers.
    const SCALE: usize = if Q == LUMA { 1 } else { 2 };
    /// Values of a codeword for blocks that fall in a quarter.
    const SHARE: usize = Q / (Self::SCALE * Self::SCALE);
    /// Blocks that one thread takes at a time.
    const RUN: usize = (1 << 14) / Q;

    fn new(component: &Component<Vec<i8>>, index_bits: u32, beam: Beam) -> Self {
        let modes = component.modes.iter().map(|mode| ModeCoder {
            block: mode.block.clone(),
            quarter: mode.quarter.clone(),
            bits: (mode.indices() * index_bits as usize) as f64,
            roots: component.modes.iter().position(|other| other.block == mode.block).unwrap_or_default(),
        });
        Self {
            books: component.books.iter().map(Self::book).collect(),
            modes: modes.collect(),
            beam,
            likely: [const { AtomicU8::new(0) }; 64],
        }
    }

    fn book(book: &Book<Vec<i8>>) -> BookCoder {
        let (codewords, len) = match book.cover {
            Cover::Quarter => (book.codewords.clone(), Q),
            Cover::Block => {
                let len = 4 * Self::SHARE;
                let codewords = book.codewords.chunks_exact(len).flat_map(|codeword| quarters(codeword, planes(Q)));
                (codewords.collect(), len)
            }
        };
        let search = BookSearch::new(&codewords, len);
        BookCoder { codewords, len, search }
    }

    /// The modes of all blocks that are best at `lambda`, with what had to be found out for it.
    fn choose(&self, blocks: &[i16], trials: &mut [Trials], lambda: f64) -> Vec<u8> {
        let mut modes = vec![0; trials.len()];
        let runs = blocks
            .par_chunks(Self::RUN * 4 * Q)
            .zip(trials.par_chunks_mut(Self::RUN))
            .zip(modes.par_chunks_mut(Self::RUN));
        runs.for_each(|((blocks, trials), modes)| self.choose_run(blocks, trials, lambda, modes));
        modes
    }

    /// [`choose`](Self::choose) for blocks that are searched for together: each asks for the next mode that may be the best,
    /// until none has any.
    fn choose_run(&self, blocks: &[i16], trials: &mut [Trials], lambda: f64, modes: &mut [u8]) {
        let values: Vec<Values<Q>> = blocks.chunks_exact(4 * Q).map(Self::values).collect();
        let likely: Vec<&AtomicU8> = values.iter().map(|values| &self.likely[busyness(values, lambda)]).collect();
        let mut roots: Vec<[Option<Roots<Q>>; MODES]> = values.iter().map(|_| Default::default()).collect();
        let price = Price { modes: &self.modes, lambda };
        let mut asking: Vec<usize> = (0..values.len()).collect();
        while !asking.is_empty() {
            let mut asked: [Vec<usize>; MODES] = Default::default();
            asking.retain(|&block| {
                let near = usize::from(likely[block].load(Relaxed)).min(self.modes.len() - 1);
                let next = price.next(&trials[block], near);
                next.map(|mode| asked[mode].push(block)).is_some()
            });
            for (mode, asked) in asked.iter().enumerate().filter(|(_, asked)| !asked.is_empty()) {
                self.find_roots(&values, asked, mode, &mut roots);
                self.attempt(asked, mode, &roots, trials, &price);
            }
        }
        for ((trials, mode), likely) in trials.iter().zip(modes).zip(likely) {
            if let Some((_, best)) = price.best(trials) {
                *mode = best as u8;
                likely.store(*mode, Relaxed);
            }
        }
    }

    /// Finds the roots of blocks for a mode where they are not known.
    fn find_roots(&self, values: &[Values<Q>], blocks: &[usize], mode: usize, roots: &mut [[Option<Roots<Q>>; MODES]]) {
        let ModeCoder { block: stages, roots: of, .. } = &self.modes[mode];
        let missing: Vec<usize> = blocks.iter().copied().filter(|&block| roots[block][*of].is_none()).collect();
        let targets: Vec<i16> = missing.iter().flat_map(|&block| Self::target(&values[block])).collect();
        let paths = self.follow(&targets, 4 * Self::SHARE, stages, self.beam.block, self.beam.block);
        let mut paths = paths.indices.iter().zip(paths.rests.chunks_exact(4 * Self::SHARE));
        let width = if stages.is_empty() { 1 } else { self.beam.block };
        for (&block, target) in missing.iter().zip(targets.chunks_exact(4 * Self::SHARE)) {
            let root = |(indices, rest): (&[u16; STAGES], &[i16])| {
                let mut left: Values<Q> = values[block];
                let shares = target.chunks_exact(Self::SHARE).zip(rest.chunks_exact(Self::SHARE));
                for (left, (target, rest)) in left.iter_mut().zip(shares) {
                    Self::spread(|i| target[i] - rest[i], |i, value| left[i] -= value);
                }
                let errors = left.each_ref().map(weighted);
                let mut order = [0, 1, 2, 3];
                order.sort_by_key(|&q| Reverse(errors[q]));
                Root { indices: *indices, rest: left, order }
            };
            roots[block][*of] = Some(paths.by_ref().take(width).map(root).collect());
        }
    }

    /// Tries a mode for blocks, whose roots are known. A block is given up as soon as its error does not pay.
    fn attempt(
        &self,
        blocks: &[usize],
        mode: usize,
        roots: &[[Option<Roots<Q>>; MODES]],
        trials: &mut [Trials],
        price: &Price,
    ) {
        let ModeCoder { block: stages, quarter, roots: of, .. } = &self.modes[mode];
        let root = |block: usize, rank: usize| roots[block][*of].as_ref().and_then(|roots| roots.get(rank));
        let bests: Vec<Option<(f64, usize)>> = blocks.iter().map(|&block| price.best(&trials[block])).collect();
        let mut found = vec![Trial { error: u64::MAX, ..Trial::UNKNOWN }; blocks.len()];
        for rank in 0..self.beam.block {
            // The blocks that have such a root, and what they come to with it.
            let mut live: Vec<(usize, Trial)> = Vec::new();
            for (i, &block) in blocks.iter().enumerate() {
                if let Some(Root { indices, .. }) = root(block, rank) {
                    let mut trial = Trial { is_known: true, ..Trial::UNKNOWN };
                    trial.indices[..stages.len()].copy_from_slice(&indices[..stages.len()]);
                    live.push((i, trial));
                }
            }
            for place in 0..4 {
                let rest = |(i, _): &(usize, Trial)| root(blocks[*i], rank).map(|root| root.rest[root.order[place]]);
                let rests: Vec<i16> = live.iter().filter_map(rest).flatten().collect();
                let paths = self.follow(&rests, Q, quarter, self.beam.quarter, 1);
                let mut paths = paths.indices.iter().zip(paths.rests.as_chunks::<Q>().0);
                live.retain_mut(|(i, trial)| {
                    let (Some((indices, rest)), Some(root)) = (paths.next(), root(blocks[*i], rank)) else {
                        return false;
                    };
                    trial.error += weighted(rest);
                    let to = trial.indices[stages.len()..].iter_mut().skip(root.order[place]).step_by(4);
                    to.zip(&indices[..quarter.len()]).for_each(|(to, &index)| *to = index);
                    let found = &mut found[*i];
                    let is_better = !found.is_known || trial.error < found.error;
                    let pays = bests[*i].is_none_or(|best| price.is_less(mode, trial.error, best));
                    if !found.is_known {
                        // What it comes to with the root that comes to least, as far as it was followed.
                        if !pays {
                            found.error = found.error.min(trial.error);
                        }
                    }
                    is_better && pays
                });
            }
            for (i, trial) in live {
                found[i] = trial;
            }
        }
        for (&block, found) in blocks.iter().zip(found) {
            trials[block][mode] = found;
        }
    }

    /// Follows the best sums of codewords from stage to stage for each of many targets of `len` values, `width` of them, and
    /// `last` after the last stage.
    fn follow(&self, targets: &[i16], len: usize, stages: &[usize], width: usize, last: usize) -> Paths {
        let count = targets.len() / len;
        let mut paths = Paths { rests: targets.to_vec(), indices: vec![[0; STAGES]; count] };
        // How many paths each target has.
        let mut have = 1;
        for (stage, &book) in stages.iter().enumerate() {
            let book = &self.books[book];
            let keep = if stage + 1 == stages.len() { last } else { width };
            let mut near = vec![Near::default(); count * have * keep];
            book.search.nearest_several(&paths.rests, keep, &mut near);
            let mut next = Paths { rests: Vec::with_capacity(count * keep * len), indices: Vec::new() };
            let mut steps: Vec<(Near, usize)> = Vec::with_capacity(have * keep);
            for (target, near) in near.chunks_exact(have * keep).enumerate() {
                steps.clear();
                steps.extend(near.iter().enumerate().map(|(i, &near)| (near, target * have + i / keep)));
                if have > 1 {
                    steps.sort_unstable();
                }
                for &(near, from) in &steps[..keep] {
                    let mut indices = paths.indices[from];
                    indices[stage] = near.index;
                    next.indices.push(indices);
                    let rest = paths.rests[from * len..][..len].iter().zip(book.codeword(near.index));
                    next.rests.extend(rest.map(|(rest, &value)| rest - i16::from(value)));
                }
            }
            (paths, have) = (next, keep);
        }
        paths
    }

    /// The sum of a block's codewords.
    fn sum(&self, mode: usize, indices: &[u16; INDICES]) -> Values<Q> {
        let mode = &self.modes[mode];
        let mut sum = [[0; Q]; 4];
        for (&book, &index) in mode.block.iter().zip(indices) {
            for (sum, share) in sum.iter_mut().zip(self.books[book].codeword(index).chunks_exact(Self::SHARE)) {
                Self::spread(|i| i16::from(share[i]), |i, value| sum[i] += value);
            }
        }
        for (&book, indices) in mode.quarter.iter().zip(indices[mode.block.len()..].chunks_exact(4)) {
            for (sum, &index) in sum.iter_mut().zip(indices) {
                sum.iter_mut().zip(self.books[book].codeword(index)).for_each(|(sum, &c)| *sum += i16::from(c));
            }
        }
        sum
    }

    /// A block's values quarter by quarter.
    fn values(block: &[i16]) -> Values<Q> {
        let mut values = [[0; Q]; 4];
        values.as_flattened_mut().iter_mut().zip(quarters(block, planes(Q))).for_each(|(to, value)| *to = value);
        values
    }

    /// What codewords that cover the block are compared with: the means of what each of their values covers. So the nearest
    /// one leaves the least error, but for means that are rounded.
    fn target(values: &Values<Q>) -> impl Iterator<Item = i16> {
        let (side, scale) = (Self::SIDE, Self::SCALE);
        values.iter().flat_map(move |values| {
            (0..Self::SHARE).map(move |i| {
                let (y, x) = (i / (side / scale) * scale, i % (side / scale) * scale);
                let at = |dy, dx| values[(y + dy) * side + x + dx];
                if scale == 1 { at(0, 0) } else { (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1) + 2) >> 2 }
            })
        })
    }

    /// Tells for each value of a quarter what a codeword for blocks adds to it.
    #[inline(always)]
    fn spread(share: impl Fn(usize) -> i16, mut add: impl FnMut(usize, i16)) {
        let (side, scale) = (Self::SIDE, Self::SCALE);
        for y in 0..Q / side {
            for x in 0..side {
                add(y * side + x, share(y / scale * (side / scale) + x / scale));
            }
        }
    }
}

/// What is left of targets, and the codewords that were taken.
struct Paths {
    rests: Vec<i16>,
    indices: Vec<[u16; STAGES]>,
}

/// The values of square planes quarter by quarter, of each quarter plane by plane.
fn quarters<T: Copy>(planes_values: &[T], planes: usize) -> impl Iterator<Item = T> + '_ {
    let len = planes_values.len() / planes;
    let side = len.isqrt();
    let half = side / 2;
    (0..4).flat_map(move |q| {
        planes_values.chunks_exact(len).flat_map(move |plane| {
            let from = q / 2 * half * side + q % 2 * half;
            (0..half).flat_map(move |y| plane[from + y * side..][..half].iter().copied())
        })
    })
}

/// The squared error of what is left of a quarter, weighed.
fn weighted<const Q: usize>(rest: &[i16; Q]) -> u64 {
    let squares = |rest: &[i16]| rest.iter().map(|&value| i32::from(value) * i32::from(value)).sum::<i32>() as u64;
    if Q == LUMA {
        return LUMA_WEIGHT * squares(rest);
    }
    let (cb, cr) = rest.split_at(Q / 2);
    CB_WEIGHT * squares(cb) + CR_WEIGHT * squares(cr)
}

impl BookCoder {
    fn codeword(&self, index: u16) -> &[i8] {
        &self.codewords[usize::from(index) * self.len..][..self.len]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rand::{Rng, SeedableRng};
    use rand_pcg::Pcg32;

    use super::*;
    use crate::format::books::{Books, Mode};

    /// Few codewords of noise, strong ones for blocks and weaker ones for quarters.
    pub fn noise(channels: u32) -> LayerBooks {
        let random = &mut Pcg32::seed_from_u64(7);
        let mut values = |len: usize, spread: u32| -> Vec<i8> {
            (0..len).map(|_| (random.next_u32() % (2 * spread + 1)) as i8 - spread as i8).collect()
        };
        let mut component = |block: usize, quarter: usize| {
            let books = [(Cover::Block, block, 90), (Cover::Block, block, 30), (Cover::Quarter, quarter, 40)];
            let books = books.map(|(cover, len, spread)| Book { cover, codewords: values(4 * len, spread) });
            let mode = |block: &[usize], quarter: &[usize]| Mode { block: block.to_vec(), quarter: quarter.to_vec() };
            let modes = vec![mode(&[0], &[]), mode(&[0], &[2]), mode(&[1], &[]), mode(&[1], &[2, 2]), mode(&[], &[2])];
            Component { books: books.into(), modes }
        };
        let luma = component(64, 16);
        Books { index_bits: 2, luma, chroma: (channels == 3).then(|| component(128, 128)) }
    }

    fn image(geometry: &Geometry) -> Vec<u8> {
        let random = &mut Pcg32::seed_from_u64(3);
        let wave = |i: usize| 120.0 + 80.0 * (i as f64 / 50.0).sin();
        (0..geometry.image_len()).map(|i| (wave(i) + f64::from(random.next_u32() % 40)) as u8).collect()
    }

    /// The least error of a block with each mode by trying all indices, value by value. `planes` are of `side` x `side` values.
    fn least_errors(component: &Component<Vec<i8>>, block: &[i16], side: usize, weights: &[u64]) -> Vec<u64> {
        let scale = side / 8;
        let error_of_quarter = |mode: &Mode, q: usize, base: Option<(&[i8], usize)>| {
            let half = side / 2;
            let counts: usize = mode.quarter.iter().map(|_| 4).product();
            let error = |combination: usize| {
                let mut error = 0;
                for (plane, weight) in weights.iter().enumerate() {
                    for (y, x) in (0..half).flat_map(|y| (0..half).map(move |x| (y, x))) {
                        let (by, bx) = (q / 2 * half + y, q % 2 * half + x);
                        let mut value = i64::from(block[plane * side * side + by * side + bx]);
                        if let Some((codewords, index)) = base {
                            let len = weights.len() * 64;
                            value -= i64::from(codewords[index * len + plane * 64 + by / scale * 8 + bx / scale]);
                        }
                        for (stage, &book) in mode.quarter.iter().enumerate() {
                            let (index, len) = (combination >> (2 * stage) & 3, weights.len() * half * half);
                            let codewords = &component.books[book].codewords;
                            value -= i64::from(codewords[index * len + plane * half * half + y * half + x]);
                        }
                        error += weight * (value * value) as u64;
                    }
                }
                error
            };
            (0..counts).map(error).min().expect("one")
        };
        let error = |mode: &Mode| {
            let whole = |base: Option<(&[i8], usize)>| (0..4).map(|q| error_of_quarter(mode, q, base)).sum::<u64>();
            match mode.block.first() {
                Some(&book) => {
                    (0..4).map(|index| whole(Some((&component.books[book].codewords, index)))).min().expect("one")
                }
                None => whole(None),
            }
        };
        component.modes.iter().map(error).collect()
    }

    #[test]
    fn the_best_modes_are_those_of_trying_everything() {
        for channels in [1, 3] {
            let geometry = Geometry::new((41, 20), channels, (8, 8)).expect("valid");
            let books = noise(channels);
            // As wide as the codebooks are: all sums are followed.
            let coder = LayerCoder::new(&geometry, &books, Beam { block: 4, quarter: 16 }).expect("coder");
            let pixels = image(&geometry);
            let mut draft = coder.draft(&pixels);
            let Planes { luma, chroma } = Planes::cut(&geometry, &pixels);
            /// Of each block the least errors of all modes.
            type Least<'a> = (&'a Component<Vec<i8>>, Vec<Vec<u64>>);
            let mut all: Vec<Least> = Vec::new();
            all.push((
                &books.luma,
                luma.chunks(64).map(|block| least_errors(&books.luma, block, 8, &[3072])).collect(),
            ));
            if let Some(component) = &books.chroma {
                let errors = chroma.chunks(512).map(|block| least_errors(component, block, 16, &[3336, 2535]));
                all.push((component, errors.collect()));
            }
            let mut seen = [false; 5];
            // Up and down again: what is known from before changes nothing.
            for lambda in [0.0, 10.0, 1e5, 3000.0, 300.0, 1e9, 100.0] {
                let modes = draft.choose(lambda);
                assert_eq!(modes, coder.draft(&pixels).choose(lambda));
                let trials = [&draft.luma, &draft.chroma];
                for ((modes, trials), (component, errors)) in [&modes.luma, &modes.chroma].iter().zip(trials).zip(&all)
                {
                    assert_eq!(modes.len(), errors.len());
                    for ((&mode, trials), errors) in modes.iter().zip(trials).zip(errors) {
                        let bits = |mode: usize| 2 * component.modes[mode].indices();
                        let cost = |mode: usize| errors[mode] as f64 / 1024.0 + lambda * bits(mode) as f64;
                        let best = (0..errors.len())
                            .min_by(|&a, &b| cost(a).total_cmp(&cost(b)).then(bits(a).cmp(&bits(b))).then(a.cmp(&b)));
                        assert_eq!(Some(usize::from(mode)), best, "{errors:?} at {lambda}");
                        assert_eq!(trials[usize::from(mode)].error, errors[usize::from(mode)]);
                        seen[usize::from(mode)] = true;
                    }
                }
                assert_eq!(draft.record(&modes).len(), draft.record_len(&modes));
            }
            assert!(seen.into_iter().filter(|&seen| seen).count() > 2, "{seen:?}");
        }
    }
}
