//! The sums of codewords that come closest to an image's blocks, and which of them are worth their bits.

use rayon::prelude::*;

use super::planes::Planes;
use super::search::{BookSearch, Near};
use crate::error::Result;
use crate::format::books::{BLOCK_STAGES, Book, Component, Cover, LayerBooks, MODES, QUARTER_STAGES};
use crate::format::record::{BLOCK_SIDES, RecordShape};
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

/// Most indices of a block.
const INDICES: usize = BLOCK_STAGES + 4 * QUARTER_STAGES;

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

/// The sum of a block's codewords that cover it, and what it leaves.
struct Root<const Q: usize> {
    rest: Values<Q>,
    indices: [u16; BLOCK_STAGES],
}

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

/// An image, and what its blocks could be made of as far as somebody asked.
pub(in crate::encode) struct Draft<'a> {
    coder: &'a LayerCoder,
    planes: Planes,
    luma: Vec<Trials>,
    chroma: Vec<Trials>,
}

/// The modes of an image's blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::encode) struct Modes {
    luma: Vec<u8>,
    chroma: Vec<u8>,
}

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

impl Draft<'_> {
    /// The modes of least error with each bit counted as a squared error of `lambda`; of several the shortest, and of those
    /// the first. Nothing else is looked for: a mode whose indices cost more than another does in all is left out.
    pub fn choose(&mut self, lambda: f64) -> Modes {
        let luma = self.coder.luma.choose(&self.planes.luma, &mut self.luma, lambda);
        let chroma = self.coder.chroma.as_ref();
        let chroma = chroma.map(|coder| coder.choose(&self.planes.chroma, &mut self.chroma, lambda));
        Modes { luma, chroma: chroma.unwrap_or_default() }
    }

    /// Bytes of the record with these modes.
    pub fn record_len(&self, modes: &Modes) -> usize {
        let count =
            |modes: &[u8], lens: [u32; MODES]| modes.iter().map(|&m| lens[usize::from(m)] as usize).sum::<usize>();
        let chroma = self.coder.books.chroma.as_ref();
        let chroma = chroma.map_or(0, |component| count(&modes.chroma, component.lens()));
        self.coder.shape.record_len(count(&modes.luma, self.coder.books.luma.lens()) + chroma)
    }

    /// The record with these modes, which were chosen.
    pub fn record(&self, modes: &Modes) -> Vec<u8> {
        let mut indices = Vec::new();
        let mut add = |modes: &[u8], trials: &[Trials], lens: [u32; MODES]| {
            for (&mode, trials) in modes.iter().zip(trials) {
                let mode = usize::from(mode);
                indices.extend(&trials[mode].indices[..lens[mode] as usize]);
            }
        };
        let books = &self.coder.books;
        add(&modes.luma, &self.luma, books.luma.lens());
        if let Some(chroma) = &books.chroma {
            add(&modes.chroma, &self.chroma, chroma.lens());
        }
        let mut record = Vec::new();
        self.coder.shape.pack(books, &[&modes.luma, &modes.chroma], &indices, &mut record);
        record
    }

    /// The squared error of all values of the decoded image, by the decoder's arithmetic.
    pub fn squared_error(&self, modes: &Modes, pixels: &[u8]) -> u64 {
        let coder = self.coder;
        let (width, channels) = (coder.geometry.image_width(), coder.geometry.channels());
        let luma = Sums::new(coder.shape.grids[0].0, BLOCK_SIDES[0], &coder.luma, &modes.luma, &self.luma);
        let chroma = coder
            .chroma
            .as_ref()
            .map(|chroma| Sums::new(coder.shape.grids[1].0, BLOCK_SIDES[1], chroma, &modes.chroma, &self.chroma));
        let row_error = |(y, row): (usize, &[u8])| -> u64 {
            let luma = &luma.plane(0, y)[..width];
            let squared = |value: i16, pixel: u8| u32::from((value.clamp(0, 255) as u8).abs_diff(pixel)).pow(2);
            let Some(chroma) = &chroma else {
                return luma.iter().zip(row).map(|(&luma, &pixel)| u64::from(squared(128 + luma, pixel))).sum();
            };
            let (cb, cr) = (&chroma.plane(0, y)[..width], &chroma.plane(1, y)[..width]);
            let (row, _) = row.as_chunks::<3>();
            let mut sum = 0;
            for (((&luma, &cb), &cr), rgb) in luma.iter().zip(cb).zip(cr).zip(row) {
                let (y, cb, cr) = (128 + luma, cb.clamp(-128, 127), cr.clamp(-128, 127));
                let r = y + cr + ((103 * cr + 128) >> 8);
                let g = y - cr + ((73 * cr - 88 * cb + 128) >> 8);
                let b = y + cb + ((198 * cb + 128) >> 8);
                // At most 3 x 255^2 for each of 65,535 pixels of a row, added up in 64 bits.
                sum += u64::from(squared(r, rgb[0]) + squared(g, rgb[1]) + squared(b, rgb[2]));
            }
            sum
        };
        pixels.chunks_exact(width * channels).enumerate().map(row_error).sum()
    }
}

/// The sums of an image's codewords, one per pixel, in planes that may be larger than the image.
struct Sums {
    stride: usize,
    /// Values of a plane.
    len: usize,
    values: Vec<i16>,
}

impl Sums {
    fn new<const Q: usize>(
        columns: usize,
        side: usize,
        coder: &ComponentCoder<Q>,
        modes: &[u8],
        trials: &[Trials],
    ) -> Self {
        let (stride, half) = (columns * side, side / 2);
        let len = modes.len() * side * side;
        let mut values = vec![0; len * planes(Q)];
        for (block, (&mode, trials)) in modes.iter().zip(trials).enumerate() {
            let mode = usize::from(mode);
            let sum = coder.sum(mode, &trials[mode].indices);
            for (q, quarter) in sum.iter().enumerate() {
                for (i, row) in quarter.chunks_exact(half).enumerate() {
                    let (plane, y) = (i / half, block / columns * side + q / 2 * half + i % half);
                    let x = block % columns * side + q % 2 * half;
                    values[plane * len + y * stride + x..][..half].copy_from_slice(row);
                }
            }
        }
        Self { stride, len, values }
    }

    /// A row of a plane.
    fn plane(&self, plane: usize, y: usize) -> &[i16] {
        &self.values[plane * self.len + y * self.stride..][..self.stride]
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
    /// Sides of what a value of a codeword for blocks covers, in pixels.
    const SCALE: usize = if Q == LUMA { 1 } else { 2 };
    /// Values of a codeword for blocks that fall in a quarter.
    const SHARE: usize = Q / (Self::SCALE * Self::SCALE);

    fn new(component: &Component<Vec<i8>>, index_bits: u32, beam: Beam) -> Self {
        let modes = component.modes.iter().map(|mode| ModeCoder {
            block: mode.block.clone(),
            quarter: mode.quarter.clone(),
            bits: (mode.indices() * index_bits as usize) as f64,
            roots: component.modes.iter().position(|other| other.block == mode.block).unwrap_or_default(),
        });
        Self { books: component.books.iter().map(Self::book).collect(), modes: modes.collect(), beam }
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
        // Blocks that one thread takes at a time.
        const RUN: usize = 256;
        let mut modes = vec![0; trials.len()];
        let runs = blocks.par_chunks(RUN * 4 * Q).zip(trials.par_chunks_mut(RUN)).zip(modes.par_chunks_mut(RUN));
        runs.for_each(|((blocks, trials), modes)| {
            // The mode that is likely goes first, as it spares others. It does not change what comes out.
            let mut likely = 0;
            for ((block, trials), mode) in blocks.chunks_exact(4 * Q).zip(trials).zip(modes) {
                likely = self.best(block, trials, lambda, likely);
                *mode = likely as u8;
            }
        });
        modes
    }

    /// The mode of a block that is best at `lambda`.
    fn best(&self, block: &[i16], trials: &mut Trials, lambda: f64, likely: usize) -> usize {
        let cost = |mode: usize, error: u64| error as f64 / UNIT + lambda * self.modes[mode].bits;
        let is_better = |cost: f64, mode: usize, (other_cost, other): (f64, usize)| {
            let bits = |mode: usize| self.modes[mode].bits;
            let order = cost.total_cmp(&other_cost).then(bits(mode).total_cmp(&bits(other))).then(mode.cmp(&other));
            order.is_lt()
        };
        let mut best = (f64::INFINITY, usize::MAX);
        let mut values = None;
        let mut roots: [Option<Vec<Root<Q>>>; MODES] = Default::default();
        let others = (0..self.modes.len()).filter(|&mode| mode != likely);
        for mode in std::iter::once(likely).chain(others) {
            let trial = &mut trials[mode];
            let pays = |error: u64| best.1 == usize::MAX || is_better(cost(mode, error), mode, best);
            if !pays(trial.error) {
                continue;
            }
            if !trial.is_known {
                let values = values.get_or_insert_with(|| Self::values(block));
                let stages = &self.modes[mode];
                let roots = roots[stages.roots].get_or_insert_with(|| self.roots(values, &stages.block));
                *trial = self.attempt(roots, stages, pays);
            }
            if trial.is_known && pays(trial.error) {
                best = (cost(mode, trial.error), mode);
            }
        }
        best.1
    }

    /// A block in a mode, given up as soon as its error does not pay.
    fn attempt(&self, roots: &[Root<Q>], mode: &ModeCoder, pays: impl Fn(u64) -> bool) -> Trial {
        let mut best: Option<Trial> = None;
        let mut at_least = u64::MAX;
        for root in roots {
            let mut trial = Trial { error: 0, is_known: true, indices: [0; INDICES] };
            let (block, quarters) = trial.indices.split_at_mut(mode.block.len());
            block.copy_from_slice(&root.indices[..block.len()]);
            let is_whole = root.rest.iter().enumerate().all(|(q, rest)| {
                let (error, indices) = self.quarter(rest, &mode.quarter);
                quarters
                    .iter_mut()
                    .skip(q)
                    .step_by(4)
                    .zip(indices)
                    .take(mode.quarter.len())
                    .for_each(|(to, i)| *to = i);
                trial.error += error;
                best.is_none_or(|best| trial.error < best.error) && pays(trial.error)
            });
            if is_whole {
                best = Some(trial);
            } else {
                at_least = at_least.min(trial.error);
            }
        }
        best.unwrap_or(Trial { error: at_least, ..Trial::UNKNOWN })
    }

    /// The best sums of codewords that cover a block, the best one first.
    fn roots(&self, values: &Values<Q>, stages: &[usize]) -> Vec<Root<Q>> {
        let mut roots = vec![Root { rest: *values, indices: [0; BLOCK_STAGES] }];
        for (stage, &book) in stages.iter().enumerate() {
            let book = &self.books[book];
            let mut steps = Vec::new();
            for (from, root) in roots.iter().enumerate() {
                let target = Self::target(&root.rest);
                book.follow(&target[..book.len], self.beam.block, from, &mut steps);
            }
            keep_best(&mut steps, self.beam.block);
            let next = steps.into_iter().map(|step| {
                let Root { mut rest, mut indices } = roots[step.from];
                indices[stage] = step.near.index;
                for (rest, share) in rest.iter_mut().zip(book.codeword(step.near.index).chunks_exact(Self::SHARE)) {
                    Self::spread(share, |i, value| rest[i] -= value);
                }
                Root { rest, indices }
            });
            roots = next.collect();
        }
        roots
    }

    /// The least error of a quarter after these stages, and the codewords for it.
    fn quarter(&self, values: &[i16; Q], stages: &[usize]) -> (u64, [u16; QUARTER_STAGES]) {
        let mut paths = vec![(*values, [0; QUARTER_STAGES])];
        for (stage, &book) in stages.iter().enumerate() {
            let book = &self.books[book];
            let width = if stage + 1 == stages.len() { 1 } else { self.beam.quarter };
            let mut steps = Vec::new();
            for (from, (rest, _)) in paths.iter().enumerate() {
                book.follow(rest, width, from, &mut steps);
            }
            keep_best(&mut steps, width);
            let next = steps.into_iter().map(|step| {
                let (mut rest, mut indices) = paths[step.from];
                indices[stage] = step.near.index;
                rest.iter_mut().zip(book.codeword(step.near.index)).for_each(|(rest, &c)| *rest -= i16::from(c));
                (rest, indices)
            });
            paths = next.collect();
        }
        let (rest, indices) = paths[0];
        (weighted(&rest), indices)
    }

    /// The sum of a block's codewords.
    fn sum(&self, mode: usize, indices: &[u16; INDICES]) -> Values<Q> {
        let mode = &self.modes[mode];
        let mut sum = [[0; Q]; 4];
        for (&book, &index) in mode.block.iter().zip(indices) {
            for (sum, share) in sum.iter_mut().zip(self.books[book].codeword(index).chunks_exact(Self::SHARE)) {
                Self::spread(share, |i, value| sum[i] += value);
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
    /// one leaves the least error, whole means rounded aside.
    fn target(values: &Values<Q>) -> [i16; 4 * LUMA * 2] {
        let mut target = [0; 4 * LUMA * 2];
        for (target, values) in target.chunks_exact_mut(Self::SHARE).zip(values) {
            if Self::SCALE == 1 {
                target.copy_from_slice(values);
                continue;
            }
            let pairs = values.chunks_exact(2 * Self::SIDE);
            for (target, rows) in target.chunks_exact_mut(Self::SIDE / 2).zip(pairs) {
                let (above, below) = rows.split_at(Self::SIDE);
                for (x, target) in target.iter_mut().enumerate() {
                    *target = (above[2 * x] + above[2 * x + 1] + below[2 * x] + below[2 * x + 1] + 2) >> 2;
                }
            }
        }
        target
    }

    /// Tells for each value of a quarter what a codeword for blocks adds to it.
    #[inline(always)]
    fn spread(share: &[i8], mut add: impl FnMut(usize, i16)) {
        let (width, scale) = (Self::SIDE / Self::SCALE, Self::SCALE);
        for (y, row) in share.chunks_exact(width).enumerate() {
            for dy in 0..scale {
                for x in 0..Self::SIDE {
                    add((y * scale + dy) * Self::SIDE + x, i16::from(row[x / scale]));
                }
            }
        }
    }
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

/// A step of a beam: from one of the sums so far to one with a codeword more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    near: Near,
    from: usize,
}

/// Keeps so many of the best steps, the best one first; of equal ones the first.
fn keep_best(steps: &mut Vec<Step>, most: usize) {
    steps.sort_unstable();
    steps.truncate(most);
}

impl BookCoder {
    fn codeword(&self, index: u16) -> &[i8] {
        &self.codewords[usize::from(index) * self.len..][..self.len]
    }

    /// Adds the steps to the codewords that are nearest.
    fn follow(&self, target: &[i16], width: usize, from: usize, steps: &mut Vec<Step>) {
        let mut near = [Near::default(); 16];
        let near = &mut near[..width.min(self.codewords.len() / self.len)];
        match near {
            [_] => self.search.nearest(target, near),
            _ => self.search.nearest_several(target, near.len(), near),
        }
        steps.extend(near.iter().map(|&near| Step { near, from }));
    }
}
