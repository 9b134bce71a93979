//! A component's codebooks in training.

use rayon::prelude::*;

use super::assign::Assign;
use super::cluster::{rounded, worst};
use super::form::Form;
use super::search::Near;
use crate::encode::Searcher;
use crate::error::Result;
use crate::format::books::{Book, Cover, Mode};

/// Blocks that are encoded together.
const CHUNK: usize = 48;
/// Blocks whose errors are summed together.
const SUMMED: usize = 4096;

/// Codebooks whose codewords are in a form's order, and searches in them.
pub(super) struct Tuning<'a> {
    form: &'a Form,
    index_bits: u32,
    searcher: &'a Searcher,
    pub books: Vec<Book<Vec<i8>>>,
    pub modes: Vec<Mode>,
    assigns: Vec<Assign>,
}

/// What becomes of blocks.
pub(super) struct Encoded {
    pub modes: Vec<u8>,
    /// What is left of each block.
    pub residuals: Vec<i16>,
    /// Indices of each block, with room for `stride`.
    indices: Vec<u16>,
    stride: usize,
}

/// Which modes are tried.
pub(super) enum Tried<'a> {
    All,
    /// Those of each block and their neighbours.
    Near(&'a [u8]),
    /// Those of each block.
    Only(&'a [u8]),
}

/// What encodes a few blocks in one mode.
#[derive(Default)]
struct Scratch {
    blocks: Vec<usize>,
    residuals: Vec<i16>,
    targets: Vec<i16>,
    near: Vec<Near>,
    indices: Vec<u16>,
}

impl<'a> Tuning<'a> {
    pub fn new(
        form: &'a Form,
        index_bits: u32,
        searcher: &'a Searcher,
        books: Vec<Book<Vec<i8>>>,
        modes: Vec<Mode>,
    ) -> Result<Self> {
        let mut tuning = Self { form, index_bits, searcher, books, modes, assigns: Vec::new() };
        tuning.prepare()?;
        Ok(tuning)
    }

    /// Makes the searches anew, after the codewords or modes have changed.
    pub fn prepare(&mut self) -> Result<()> {
        let len = |book: &Book<Vec<i8>>| self.form.codeword_len(book.cover);
        let assign = |book: &Book<Vec<i8>>| Assign::new(self.searcher, &book.codewords, len(book));
        self.assigns = self.books.par_iter().map(assign).collect::<Result<_>>()?;
        Ok(())
    }

    /// Bits of a block in a mode, with those that tell the mode.
    fn bits(&self, mode: &Mode) -> u64 {
        (mode.indices() * self.index_bits as usize + 3) as u64
    }

    /// Encodes blocks, each turned as `turn` says, in the mode that costs least: its squared error in thousandths, and
    /// `lambda` for each bit.
    pub fn encode(
        &self,
        blocks: &[i16],
        turn: impl Fn(usize) -> usize + Sync,
        lambda: impl Fn(usize) -> u64 + Sync,
        tried: Tried,
        done: impl Fn(usize) -> Result<()> + Sync,
    ) -> Result<Encoded> {
        let len = self.form.block_len;
        let count = blocks.len() / len;
        let stride = self.modes.iter().map(Mode::indices).max().unwrap_or(0).max(1);
        let mut encoded = Encoded {
            modes: vec![0; count],
            residuals: vec![0; count * len],
            indices: vec![0; count * stride],
            stride,
        };
        let size = Assign::at_once(self.searcher, CHUNK);
        let results = encoded.modes.par_chunks_mut(size).zip(encoded.residuals.par_chunks_mut(size * len));
        let results = results.zip(encoded.indices.par_chunks_mut(size * stride));
        let chunks = blocks.par_chunks(size * len).zip(results).enumerate();
        chunks.try_for_each_init(Scratch::default, |scratch, (chunk, (blocks, ((modes, residuals), indices)))| {
            let first = chunk * size;
            let mut turned = vec![0; blocks.len()];
            for (i, (block, to)) in blocks.chunks_exact(len).zip(turned.chunks_exact_mut(len)).enumerate() {
                self.form.turn(block, turn(first + i), to);
            }
            let mut costs = vec![u64::MAX; modes.len()];
            scratch.blocks.clear();
            let mut before = &Mode::default();
            for (number, mode) in self.modes.iter().enumerate() {
                let is_tried = |i: &usize| match tried {
                    Tried::All => true,
                    Tried::Near(modes) => usize::from(modes[first + i]).abs_diff(number) <= 1,
                    Tried::Only(modes) => usize::from(modes[first + i]) == number,
                };
                let blocks: Vec<usize> = (0..modes.len()).filter(is_tried).collect();
                if blocks.is_empty() {
                    continue;
                }
                // A mode that goes on where another ends needs only its further stages.
                let done = if blocks == scratch.blocks { goes_on(before, mode) } else { 0 };
                if done == 0 {
                    scratch.residuals.clear();
                    blocks.iter().for_each(|i| scratch.residuals.extend(&turned[i * len..][..len]));
                    scratch.indices.clear();
                    scratch.indices.resize(blocks.len() * stride, 0);
                }
                scratch.blocks = blocks;
                self.encode_in(mode, done, stride, scratch)?;
                before = mode;
                let found = scratch.residuals.chunks_exact(len).zip(scratch.indices.chunks_exact(stride));
                for (&i, (residual, found)) in scratch.blocks.iter().zip(found) {
                    let cost = self.form.error(residual) + lambda(first + i) * self.bits(mode);
                    if cost < costs[i] {
                        (costs[i], modes[i]) = (cost, number as u8);
                        residuals[i * len..][..len].copy_from_slice(residual);
                        indices[i * stride..][..stride].copy_from_slice(found);
                    }
                }
            }
            done(modes.len())
        })?;
        Ok(encoded)
    }

    /// Encodes the blocks of which `scratch` has what is left after `done` stages, each further one by the nearest codeword.
    fn encode_in(&self, mode: &Mode, done: usize, stride: usize, scratch: &mut Scratch) -> Result<()> {
        let len = self.form.block_len;
        let mut stage = 0;
        for (number, &book) in mode.block.iter().chain(&mode.quarter).enumerate() {
            let (cover, codewords) = (self.books[book].cover, &self.books[book].codewords);
            let (parts, codeword_len) = (parts(cover), self.form.codeword_len(cover));
            if number < done {
                stage += parts;
                continue;
            }
            self.form.targets(cover, &scratch.residuals, &mut scratch.targets);
            scratch.near.resize(scratch.blocks.len() * parts, Near::default());
            self.assigns[book].nearest(&scratch.targets, &mut scratch.near)?;
            let blocks = scratch.residuals.chunks_exact_mut(len).zip(scratch.indices.chunks_exact_mut(stride));
            for ((residual, indices), near) in blocks.zip(scratch.near.chunks_exact(parts)) {
                for (part, near) in near.iter().enumerate() {
                    indices[stage + part] = near.index;
                    let codeword = &codewords[usize::from(near.index) * codeword_len..][..codeword_len];
                    self.form.subtract(cover, residual, part, codeword);
                }
            }
            stage += parts;
        }
        Ok(())
    }

    /// Moves every codeword by the mean of what is left where it is used: the best that it can be while all others and
    /// all choices stay. One codebook after another; what is left changes with each.
    pub fn refine(&mut self, encoded: &mut Encoded) -> Result<()> {
        (0..self.books.len()).for_each(|book| self.refine_book(book, encoded));
        self.prepare()
    }

    fn refine_book(&mut self, number: usize, encoded: &mut Encoded) {
        let (form, block_len, stride) = (self.form, self.form.block_len, encoded.stride);
        let cover = self.books[number].cover;
        let (parts, len) = (parts(cover), form.codeword_len(cover));
        let first_index = |mode: &Mode| mode.books().position(|book| book == number);
        let stages: Vec<Option<usize>> = self.modes.iter().map(first_index).collect();
        // Where a block's indices into this codebook begin, and the vectors that its codewords are left with.
        let stage = |block: usize| stages[usize::from(encoded.modes[block])].map(|stage| block * stride + stage);
        let left = |block: usize, targets: &mut Vec<i16>| {
            form.targets(cover, &encoded.residuals[block * block_len..][..block_len], targets);
        };
        let old = self.books[number].codewords.clone();
        let zero = || (vec![0i64; old.len()], vec![0i64; old.len() / len], Vec::new());
        let blocks = (0..encoded.modes.len()).into_par_iter().with_min_len(SUMMED);
        let (sums, uses, _) = blocks
            .fold(zero, |(mut sums, mut uses, mut targets), block| {
                if let Some(stage) = stage(block) {
                    left(block, &mut targets);
                    for (target, &index) in targets.chunks_exact(len).zip(&encoded.indices[stage..][..parts]) {
                        let index = usize::from(index);
                        uses[index] += 1;
                        sums[index * len..][..len].iter_mut().zip(target).for_each(|(s, &v)| *s += i64::from(v));
                    }
                }
                (sums, uses, targets)
            })
            .reduce(zero, |mut a, b| {
                a.0.iter_mut().zip(b.0).for_each(|(a, b)| *a += b);
                a.1.iter_mut().zip(b.1).for_each(|(a, b)| *a += b);
                a
            });
        // Those that nothing uses go where the most is left.
        let idle: Vec<usize> = (0..uses.len()).filter(|&index| uses[index] == 0).collect();
        let mut targets = Vec::new();
        let mut errors = Vec::new();
        if !idle.is_empty() {
            for block in (0..encoded.modes.len()).filter(|&block| stage(block).is_some()) {
                left(block, &mut targets);
                errors.extend(targets.chunks_exact(len).enumerate().map(|(part, target)| {
                    let squares = target.iter().map(|&value| (i32::from(value) * i32::from(value)) as u64);
                    (squares.sum(), block * parts + part)
                }));
            }
        }
        let codewords = &mut self.books[number].codewords;
        for (&index, place) in idle.iter().zip(worst(errors, idle.len())) {
            let Some(stage) = stage(place / parts) else { continue };
            left(place / parts, &mut targets);
            let used = usize::from(encoded.indices[stage + place % parts]);
            let target = &targets[place % parts * len..][..len];
            let values = old[used * len..][..len].iter().zip(target);
            let moved = values.map(|(&from, &left)| (i16::from(from) + left).clamp(-128, 127) as i8);
            codewords[index * len..][..len].iter_mut().zip(moved).for_each(|(to, moved)| *to = moved);
        }
        for index in (0..uses.len()).filter(|&index| uses[index] > 0) {
            for i in index * len..(index + 1) * len {
                codewords[i] = (i64::from(old[i]) + rounded(sums[i], uses[index])).clamp(-128, 127) as i8;
            }
        }
        let moves: Vec<i16> = codewords.iter().zip(&old).map(|(&new, &old)| i16::from(new) - i16::from(old)).collect();
        let residuals = encoded.residuals.par_chunks_mut(block_len).zip(&encoded.modes);
        residuals.zip(encoded.indices.par_chunks(stride)).for_each(|((residual, &mode), indices)| {
            let Some(stage) = stages[usize::from(mode)] else { return };
            for (part, &index) in indices[stage..][..parts].iter().enumerate() {
                form.subtract(cover, residual, part, &moves[usize::from(index) * len..][..len]);
            }
        });
    }
}

/// How many stages of a mode are those of another one, if all of that are; otherwise none.
fn goes_on(before: &Mode, mode: &Mode) -> usize {
    let books = |mode: &Mode| -> Vec<usize> { mode.block.iter().chain(&mode.quarter).copied().collect() };
    let before = books(before);
    if books(mode).starts_with(&before) { before.len() } else { 0 }
}

/// Indices of a stage.
fn parts(cover: Cover) -> usize {
    match cover {
        Cover::Block => 1,
        Cover::Quarter => 4,
    }
}
