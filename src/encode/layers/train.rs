//! Training the codebooks of the codec "layers".

use std::borrow::Cow;

use super::cluster::{cluster, drawn};
use super::form::{Form, TURNS};
use super::plan::Plan;
use super::tuning::{Encoded, Tried, Tuning};
use crate::encode::Searcher;
use crate::error::{Error, Result};
use crate::format::books::{Book, CHROMA, Component, Cover, INDEX_BITS, LUMA, LayerBooks, Mode};
use crate::progress::{Counter, Progress};

/// How codebooks are trained.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerTraining {
    /// Bits of an index at most, 1 to 16: no codebook has more codewords than they can name.
    pub index_bits: u32,
    /// What a bit may cost in squared error of R, G and B.
    pub lambda: f64,
    /// How many octaves to each side of it the codebooks are made for.
    pub octaves: f64,
    /// Chooses what is drawn at random; the same seed and blocks make the same codebooks.
    pub seed: u64,
    /// What searches for nearest codewords; the codebooks are the same.
    pub searcher: Searcher,
}

/// Fewer blocks than this are used several times, as often as there are ways to turn them.
const ENOUGH: usize = 150_000;
/// Blocks that the chain of codebooks is trained on.
const SAMPLE: usize = 100_000;
/// How often all codewords are moved together.
const ROUNDS: usize = 3;
/// Vectors that a codebook is trained on, for each codeword.
const PER_CODEWORD: usize = 64;

/// Trains codebooks on blocks of 8x8 values of brightness less 128, and of 16x16 values of Cb and as many of Cr; none of
/// these for grey images. The result is the same for any number of threads.
///
/// First a chain of codebooks, each trained on what those before leave, tells what every block is worth spending on: the
/// mode that costs least in squared error and bits. Then the blocks of each mode train its codebooks. In a few rounds
/// blocks choose anew, and every codeword moves to where it serves best given all others (as in "Improved residual vector
/// quantization", Ai et al., 2015). Blocks are turned and mirrored at random each time, so that no codeword is fitted to
/// single blocks, and what is left of them is what will be left of others.
///
/// Memory, beside the blocks: about twice as much as they take.
///
/// # Errors
/// [`Error::Argument`] for blocks or options out of range; [`Error::Interrupted`] if `progress` says so.
pub fn train_layers(
    luma: &[i16],
    chroma: &[i16],
    options: &LayerTraining,
    progress: &dyn Progress,
) -> Result<LayerBooks> {
    let wrong =
        |argument, found: String, expected: &str| Err(Error::Argument { argument, found, expected: expected.into() });
    if !(1..=INDEX_BITS).contains(&options.index_bits) {
        return wrong("index bits", options.index_bits.to_string(), "1 to 16");
    }
    if !(options.lambda > 0.0 && options.lambda <= 1e7) {
        return wrong("lambda", options.lambda.to_string(), "more than 0, at most 1e7");
    }
    if !(0.0..=8.0).contains(&options.octaves) {
        return wrong("octaves", options.octaves.to_string(), "0 to 8");
    }
    if luma.is_empty() || !luma.len().is_multiple_of(64) || !chroma.len().is_multiple_of(512) {
        let found = format!("{} and {} values", luma.len(), chroma.len());
        return wrong("training blocks", found, "whole blocks of 64 values, and of 512");
    }
    if let Some(value) = luma.iter().chain(chroma).find(|value| value.unsigned_abs() > 255) {
        return wrong("value to train on", value.to_string(), "-255 to 255");
    }
    // With few blocks there are fewer codewords.
    let counts = [(LUMA, luma.len() / 64), (CHROMA, chroma.len() / 512)];
    let codewords = counts.map(|(component, count)| Plan::new(component, count, options.index_bits).codewords);
    let most = codewords.into_iter().flatten().max().unwrap_or(1);
    let options = &LayerTraining { index_bits: most.next_power_of_two().ilog2().max(1), ..options.clone() };
    let forms = [LUMA, CHROMA].map(Form::new);
    let training = |component: usize, blocks| Training::new(&forms[component], component, blocks, options);
    let (luma, chroma) = (training(LUMA, luma), (!chroma.is_empty()).then(|| training(CHROMA, chroma)));
    let steps = luma.steps() + chroma.as_ref().map_or(0, Training::steps);
    let counter = Counter::new(progress, "training codebooks", steps);
    let luma = luma.run(&counter)?;
    let chroma = chroma.map(|chroma| chroma.run(&counter)).transpose()?;
    Ok(LayerBooks { index_bits: options.index_bits, luma, chroma })
}

/// The training of a component.
struct Training<'a> {
    form: &'a Form,
    blocks: Cow<'a, [i16]>,
    plan: Plan,
    options: &'a LayerTraining,
}

impl<'a> Training<'a> {
    fn new(form: &'a Form, component: usize, blocks: &'a [i16], options: &'a LayerTraining) -> Self {
        let count = blocks.len() / form.block_len;
        let plan = Plan::new(component, count, options.index_bits);
        let times = ENOUGH.div_ceil(count).min(TURNS);
        let blocks = if times > 1 { Cow::Owned(blocks.repeat(times)) } else { Cow::Borrowed(blocks) };
        Self { form, blocks, plan, options }
    }

    /// Blocks that are encoded in all.
    fn steps(&self) -> usize {
        let count = self.blocks.len() / self.form.block_len;
        let modes = self.plan.layout().1;
        let chain = self.plan.chain.0 + self.plan.chain.1;
        let depths = if self.plan.own { longest(&modes) } else { 0 };
        chain * count.min(SAMPLE) + (1 + depths + ROUNDS) * count
    }

    fn run(&self, counter: &Counter) -> Result<Component<Vec<i8>>> {
        let mut tuning = self.chain(counter)?;
        let mut modes = self.encode(&tuning, &self.blocks, 0, Tried::All, counter)?.modes;
        if self.plan.own {
            tuning = self.own(&modes, counter)?;
        }
        for round in 0..ROUNDS {
            let mut encoded = self.encode(&tuning, &self.blocks, 1 + round, Tried::Near(&modes), counter)?;
            tuning.refine(&mut encoded)?;
            modes = encoded.modes;
        }
        let books = tuning
            .books
            .iter()
            .map(|book| Book { cover: book.cover, codewords: self.form.restore(book.cover, &book.codewords) });
        Ok(Component { books: books.collect(), modes: tuning.modes })
    }

    /// Encodes blocks, turned and at a lambda by chance.
    fn encode(&self, tuning: &Tuning, blocks: &[i16], time: usize, tried: Tried, counter: &Counter) -> Result<Encoded> {
        let turn = |block: usize| (drawn(self.options.seed, (time << 40 | block) as u64) >> 32) as usize % TURNS;
        let lambda = |block: usize| {
            let part = (drawn(!self.options.seed, block as u64) >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
            (1000.0 * self.options.lambda * libm::exp2(part * self.options.octaves)) as u64
        };
        tuning.encode(blocks, turn, lambda, tried, |blocks| counter.add(blocks))
    }

    fn tuning(&self, books: Vec<Book<Vec<i8>>>, modes: Vec<Mode>) -> Result<Tuning<'_>> {
        Tuning::new(self.form, self.options.index_bits, &self.options.searcher, books, modes)
    }

    /// Trains the chain on a sample of the blocks.
    fn chain(&self, counter: &Counter) -> Result<Tuning<'_>> {
        let len = self.form.block_len;
        let mut order: Vec<usize> = (0..self.blocks.len() / len).collect();
        order.sort_unstable_by_key(|&block| (drawn(self.options.seed, block as u64), block));
        order.truncate(SAMPLE);
        let sample: Vec<i16> = order.iter().flat_map(|&block| &self.blocks[block * len..][..len]).copied().collect();
        let (covers, modes) = self.plan.shared();
        let mut tuning = self.tuning(vec![], vec![Mode::default()])?;
        for (stage, (&cover, mode)) in covers.iter().zip(&modes).enumerate() {
            let last = vec![tuning.modes.len() as u8 - 1; order.len()];
            let left = self.encode(&tuning, &sample, 50 + stage, Tried::Only(&last), counter)?.residuals;
            tuning.books.push(self.book(cover, stage, &left)?);
            tuning.modes.push(mode.clone());
            tuning.prepare()?;
        }
        tuning.modes.remove(0);
        Ok(tuning)
    }

    /// Trains the codebooks of each mode on its blocks, stage by stage.
    fn own(&self, modes: &[u8], counter: &Counter) -> Result<Tuning<'_>> {
        let (covers, finished) = self.plan.layout();
        let books = covers.iter().map(|&cover| Book { cover, codewords: vec![0; self.form.codeword_len(cover)] });
        let mut tuning = self.tuning(books.collect(), finished.clone())?;
        let stage = |mode: &Mode, depth| mode.block.iter().chain(&mode.quarter).nth(depth).copied();
        let mut known = vec![false; covers.len()];
        for depth in 0..longest(&finished) {
            for (mode, finished) in tuning.modes.iter_mut().zip(&finished) {
                mode.block = finished.block.iter().take(depth).copied().collect();
                mode.quarter = finished.quarter.iter().take(depth.saturating_sub(mode.block.len())).copied().collect();
            }
            let left = self.encode(&tuning, &self.blocks, 100 + depth, Tried::Only(modes), counter)?.residuals;
            for book in 0..covers.len() {
                let users: Vec<bool> = finished.iter().map(|mode| stage(mode, depth) == Some(book)).collect();
                if known[book] || !users.contains(&true) {
                    continue;
                }
                known[book] = true;
                let uses = |mode: &u8| users[usize::from(*mode)];
                // As many as are needed, evenly.
                let every =
                    modes.iter().filter(|mode| uses(mode)).count() / (self.plan.codewords[1] * PER_CODEWORD) + 1;
                let residuals = left.chunks_exact(self.form.block_len).zip(modes).filter(|(_, mode)| uses(mode));
                let residuals: Vec<i16> = residuals.step_by(every).flat_map(|(left, _)| left).copied().collect();
                tuning.books[book] = self.book(covers[book], covers.len() + book, &residuals)?;
            }
            tuning.prepare()?;
        }
        tuning.modes = finished;
        Ok(tuning)
    }

    /// A codebook for what is left of blocks.
    fn book(&self, cover: Cover, number: usize, left: &[i16]) -> Result<Book<Vec<i8>>> {
        let mut targets = Vec::new();
        self.form.targets(cover, left, &mut targets);
        let seed = drawn(self.options.seed, number as u64);
        let most = self.plan.codewords[cover as usize];
        let codewords = cluster(&self.options.searcher, &targets, self.form.codeword_len(cover), most, seed)?;
        Ok(Book { cover, codewords })
    }
}

/// Stages of the mode that has the most.
fn longest(modes: &[Mode]) -> usize {
    modes.iter().map(|mode| mode.block.len() + mode.quarter.len()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::plan::FEW;
    use super::super::search::{BookSearch, Near};
    use super::*;

    const OPTIONS: LayerTraining =
        LayerTraining { index_bits: 12, lambda: 30.0, octaves: 1.0, seed: 1, searcher: Searcher::Cpu };

    /// Blocks of slopes, each `planes` times `side` x `side` values, with some noise.
    fn slopes(count: usize, side: usize, planes: usize, noise: u64) -> Vec<i16> {
        let block = |block: usize| {
            let draw = move |i: u64, most: u64| (drawn(block as u64, i) % (2 * most + 1)) as i64 - most as i64;
            (0..planes * side * side).map(move |i| {
                let (plane, y, x) = ((i / side / side) as u64, (i / side % side) as i64, (i % side) as i64);
                let slope = draw(3 * plane, 60) + x * draw(3 * plane + 1, 4) + y * draw(3 * plane + 2, 4);
                (slope + draw(99 + i as u64, noise)).clamp(-128, 127) as i16
            })
        };
        (0..count).flat_map(block).collect()
    }

    #[test]
    fn few_blocks_are_enough() {
        for (count, chroma) in [(1, 1), (20, 0), (1600, 400)] {
            let books = train_layers(&slopes(count, 8, 1, 9), &slopes(chroma, 16, 2, 9), &OPTIONS, &()).expect("train");
            books.check().expect("valid");
            assert_eq!(books.chroma.is_some(), chroma > 0);
            assert!(books.byte_len() <= (count * 64 * 9 + chroma * 512 * 9).max(1200), "{} bytes", books.byte_len());
        }
    }

    #[test]
    fn codewords_are_in_the_order_of_the_format() {
        // Few blocks that come often, in any orientation: each is a codeword for whole blocks.
        let luma = slopes(16, 8, 1, 0).repeat(128);
        let chroma = slopes(8, 16, 2, 0).repeat(128);
        let books = train_layers(&luma, &chroma, &OPTIONS, &()).expect("train");
        let mut near = vec![Near::default(); 16];
        BookSearch::new(&books.luma.books[0].codewords, 64).nearest(&luma[..16 * 64], &mut near);
        assert!(near.iter().all(|near| near.distance <= 64), "{near:?}");
        let means: Vec<i16> = (0..8 * 128)
            .map(|i| {
                let (plane, y, x) = (i / 64, i / 8 % 8 * 2, i % 8 * 2);
                let at = |y: usize, x: usize| chroma[plane * 256 + y * 16 + x];
                (at(y, x) + at(y, x + 1) + at(y + 1, x) + at(y + 1, x + 1)) >> 2
            })
            .collect();
        let book = &books.chroma.expect("chroma").books[0].codewords;
        BookSearch::new(book, 128).nearest(&means, &mut near[..8]);
        assert!(near[..8].iter().all(|near| near.distance <= 256), "{near:?}");
    }

    #[test]
    fn threads_do_not_change_codebooks() {
        let (luma, chroma) = (slopes(FEW, 8, 1, 30), slopes(500, 16, 2, 30));
        let options = LayerTraining { index_bits: 5, ..OPTIONS };
        let books = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
            pool.install(|| train_layers(&luma, &chroma, &options, &())).expect("train")
        });
        assert!(books[0] == books[1]);
        assert_eq!(books[0].luma.modes.len(), 8);
        assert!(books[0].luma.books.len() > 8);
    }

    #[test]
    #[cfg(feature = "gpu")]
    fn a_gpu_trains_the_same_codebooks() {
        use crate::gpu::{Device, Select, adapters};
        let Some(adapter) = adapters().first().map(ToString::to_string) else {
            let allowed = std::env::var_os("KUAT_TEST_WITHOUT_GPU").is_some();
            return assert!(allowed, "no adapter; KUAT_TEST_WITHOUT_GPU=1 does without");
        };
        let searcher = Searcher::Gpu(Device::open(&Select::Named(adapter)).expect("opens"));
        let (luma, chroma) = (slopes(60, 8, 1, 9), slopes(20, 16, 2, 9));
        let train = |searcher| {
            let options = LayerTraining { index_bits: 5, searcher, ..OPTIONS };
            train_layers(&luma, &chroma, &options, &()).expect("train")
        };
        assert_eq!(train(searcher), train(Searcher::Cpu));
    }

    #[test]
    fn training_is_interrupted_and_arguments_are_checked() {
        struct Stop;
        impl Progress for Stop {
            fn is_cancelled(&self) -> bool {
                true
            }
        }
        assert!(matches!(train_layers(&slopes(9, 8, 1, 3), &[], &OPTIONS, &Stop), Err(Error::Interrupted)));
        let options = |index_bits, lambda| LayerTraining { index_bits, lambda, ..OPTIONS };
        for (luma, chroma, options) in [
            (0, 0, OPTIONS),
            (65, 0, OPTIONS),
            (64, 256, OPTIONS),
            (64, 0, options(0, 9.0)),
            (64, 0, options(17, 9.0)),
            (64, 0, options(12, f64::NAN)),
        ] {
            let found = train_layers(&vec![0; luma], &vec![0; chroma], &options, &());
            assert!(matches!(found, Err(Error::Argument { .. })));
        }
    }
}
