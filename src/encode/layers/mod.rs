//! The codec "layers": from images to codebooks, and with them to records.

mod coder;
mod planes;
mod rate;
mod search;
mod train;

use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use rayon::prelude::*;

use self::coder::{Beam, Draft, LayerCoder, Modes};
use self::planes::Planes;
pub use self::rate::Rate;
use self::rate::{Slope, last_holding};
pub use self::train::{LayerTraining, train_layers};
use super::goal::fixed_bytes;
use super::pass::{CHUNK_IMAGES, Encoded, Pass};
use super::quality::psnr_db;
use super::source::Source;
use super::{CodecOptions, EncodeOptions, sample};
use crate::error::{Error, Result};
use crate::format::books::LayerBooks;
use crate::geometry::Geometry;
use crate::progress::{Counter, Progress};

/// How images become records of the codec "layers".
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LayerOptions {
    /// How good they become, or how large.
    pub rate: Rate,
    /// Where the codebooks come from.
    pub books: LayerSource,
}

/// Where codebooks of layers come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LayerSource {
    /// They are trained on a sample of the images: as many as have 256 MiB of values.
    #[default]
    Train,
    /// These, of another archive or of a training before.
    Given(LayerBooks),
}

/// Codebooks, and what a bit is worth with them.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct MadeLayers {
    pub books: LayerBooks,
    slope: Slope,
}

/// Bits of an index of codebooks that are trained.
const INDEX_BITS: u32 = 12;

/// The most bytes of values that codebooks are trained on.
const TRAINING_BYTES: usize = 256 << 20;

/// How many sums are followed from stage to stage.
const BEAM: Beam = Beam { block: 2, quarter: 2 };

/// By how many steps of a slope the one that codebooks were trained for may be off: an octave.
const TRAINED_WITHIN: i32 = 64;

impl LayerOptions {
    /// # Errors
    /// [`Error::Argument`] or [`Error::Layers`] for options out of range, or codebooks of other channels.
    pub(super) fn check(&self, channels: u32) -> Result<()> {
        self.rate.check()?;
        if !matches!(channels, 1 | 3) {
            let expected = "1 (grey) or 3 (RGB) with the codec \"layers\"; the codec \"vq\" takes 4".into();
            return Err(Error::Argument { argument: "number of channels", found: channels.to_string(), expected });
        }
        if let LayerSource::Given(books) = &self.books {
            books.check()?;
            if books.chroma.is_some() != (channels == 3) {
                let found = format!("those of {} images", if books.chroma.is_some() { "RGB" } else { "grey" });
                return Err(Error::Argument { argument: "codebooks", found, expected: format!("{channels} channels") });
            }
        }
        Ok(())
    }
}

/// Trains codebooks if none are given, and finds what a bit is worth with them. Says when the images to train on were read.
pub(super) fn make(
    source: &dyn Source,
    options: &EncodeOptions,
    layers: &LayerOptions,
    progress: &dyn Progress,
) -> Result<(MadeLayers, Instant)> {
    let geometry = options.geometry()?;
    let pixels = geometry.image_width() * geometry.image_height();
    let guess = layers.rate.slope(pixels as f64, source.len() as f64);
    let start = Instant::now();
    let finished = |books: LayerBooks| -> Result<MadeLayers> {
        let slope = match mean_bytes(source, layers.rate, &books)? {
            Some(bytes) => find_slope(source, options, &books, bytes, guess, progress)?,
            None => guess,
        };
        Ok(MadeLayers { books, slope })
    };
    if let LayerSource::Given(books) = &layers.books {
        return Ok((finished(books.clone())?, start));
    }
    let planes = training_blocks(source, &geometry, options, progress)?;
    let sampled = Instant::now();
    let train = |slope: Slope| {
        let training = LayerTraining { index_bits: INDEX_BITS, lambda: slope.lambda(), seed: options.seed };
        finished(train_layers(&planes.luma, &planes.chroma, &training, progress)?)
    };
    let mut made = train(guess)?;
    if made.slope.number().abs_diff(guess.number()) > TRAINED_WITHIN as u32 {
        made = train(made.slope)?;
    }
    Ok((made, sampled))
}

/// The blocks of random images.
fn training_blocks(
    source: &dyn Source,
    geometry: &Geometry,
    options: &EncodeOptions,
    progress: &dyn Progress,
) -> Result<Planes> {
    let values = geometry.image_width() * geometry.image_height() * geometry.channels();
    let most = (TRAINING_BYTES / (2 * values)).max(1);
    let chosen = sample::choose(&mut Pcg64::seed_from_u64(options.seed), source.len(), most);
    let cut = |pixels: Vec<u8>| Planes::cut(geometry, &pixels);
    let images = sample::images(source, &chosen, options, Counter::new(progress, "sampling", chosen.len()), cut)?;
    let (luma, chroma): (Vec<_>, Vec<_>) = images.into_iter().map(|Planes { luma, chroma }| (luma, chroma)).unzip();
    Ok(Planes { luma: luma.concat(), chroma: chroma.concat() })
}

/// Bytes of a record that a rate asks for in the mean.
fn mean_bytes(source: &dyn Source, rate: Rate, books: &LayerBooks) -> Result<Option<f64>> {
    Ok(match rate {
        Rate::Quality(_) | Rate::Psnr(_) => None,
        Rate::MeanBytes(bytes) => Some(bytes as f64),
        Rate::Bytes(bytes) => {
            let (samples, offset) = (source.len() as u64, 8);
            let others = fixed_bytes(source)? + samples * offset + books.byte_len() as u64;
            Some(bytes.saturating_sub(others) as f64 / samples as f64)
        }
    })
}

/// The steepest slope with which records have at most so many bytes in the mean, by a sample of the images: 64, and then more
/// until the mean is known within 2 % (twice its standard error).
fn find_slope(
    source: &dyn Source,
    options: &EncodeOptions,
    books: &LayerBooks,
    bytes: f64,
    guess: Slope,
    progress: &dyn Progress,
) -> Result<Slope> {
    /// Images that are in memory at once, all their trials with them.
    const AT_ONCE: usize = 64;
    /// How far from a slope the means are taken that tell how much a step changes.
    const ASIDE: i32 = 16;
    let coder = LayerCoder::new(&options.geometry()?, books, BEAM)?;
    let mut random = Pcg64::seed_from_u64(options.seed);
    let mut order: Vec<(u64, usize)> = (0..source.len()).map(|image| (random.next_u64(), image)).collect();
    order.sort_unstable();
    let order: Vec<usize> = order.into_iter().map(|(_, image)| image).collect();
    let counter = Counter::new(progress, "measuring", 0);
    let drafts = |images: &[usize]| {
        let draft = |pixels: Vec<u8>| coder.draft(&pixels);
        sample::images(source, images, options, Counter::new(&(), "", 0), draft)
    };
    let lens = |drafts: &mut [Draft], slope: Slope| -> Result<Vec<f64>> {
        counter.add(0)?;
        let lambda = slope.lambda();
        let len = |draft: &mut Draft| {
            let modes = draft.choose(lambda);
            draft.record_len(&modes) as f64
        };
        Ok(drafts.par_iter_mut().map(len).collect())
    };
    let mean = |lens: &[f64]| lens.iter().sum::<f64>() / lens.len() as f64;

    let mut batches = order.chunks(AT_ONCE);
    let mut first = drafts(batches.next().unwrap_or_default())?;
    let mut problem = None;
    let found = last_holding(-Slope::FLATTEST, -Slope::STEEPEST, -guess.number(), |number| {
        match lens(&mut first, Slope::at(-number)) {
            Ok(lens) => mean(&lens) <= bytes,
            Err(error) => {
                problem.get_or_insert(error);
                true
            }
        }
    });
    if let Some(problem) = problem {
        return Err(problem);
    }
    let Some(found) = found else {
        let least = mean(&lens(&mut first, Slope::at(Slope::FLATTEST))?);
        return Err(Error::Goal {
            goal: format!("{bytes:.0} bytes of a record in the mean"),
            nearest: format!("{least:.0} bytes"),
            advice: "smaller images take less",
        });
    };
    let middle = -found;
    if order.len() <= AT_ONCE {
        return Ok(Slope::at(middle));
    }
    // Lengths with slopes on both sides, of more and more images.
    let slopes = [middle - ASIDE, middle, middle + ASIDE];
    let mut known: [Vec<f64>; 3] = Default::default();
    let mut add = |drafts: &mut [Draft]| -> Result<bool> {
        for (known, slope) in known.iter_mut().zip(slopes) {
            known.extend(lens(drafts, Slope::at(slope))?);
        }
        counter.add(drafts.len())?;
        let (count, mean) = (known[1].len() as f64, mean(&known[1]));
        let variance = known[1].iter().map(|len| (len - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        // Of a sample without repetition.
        let left = 1.0 - count / order.len() as f64;
        Ok(4.0 * variance / count * left <= (0.02 * mean).powi(2))
    };
    let mut is_enough = add(&mut first)?;
    drop(first);
    for images in batches {
        if is_enough {
            break;
        }
        is_enough = add(&mut drafts(images)?)?;
    }
    // Bytes fall by a constant factor for each step, nearly.
    let [more, same, less] = known.map(|lens| libm::log(mean(&lens)));
    let target = libm::log(bytes);
    let (from, to) = if target > same { (same, more) } else { (less, same) };
    let base = if target > same { middle } else { middle + ASIDE };
    if to <= from {
        return Ok(Slope::at(middle));
    }
    let steps = (f64::from(ASIDE) * (target - from) / (to - from)).floor();
    Ok(Slope::at(base - steps.clamp(-1024.0, 1024.0) as i32))
}

/// Codebooks that images are encoded with.
pub(super) struct Layers {
    coder: LayerCoder,
    /// What each image is to reach.
    psnr_db: Option<f64>,
    slope: Slope,
}

impl Layers {
    pub fn new(options: &EncodeOptions, made: &MadeLayers) -> Result<Self> {
        let coder = LayerCoder::new(&options.geometry()?, &made.books, BEAM)?;
        let psnr_db = match &options.codec {
            CodecOptions::Layers(LayerOptions { rate: Rate::Psnr(db), .. }) => Some(*db),
            _ => None,
        };
        Ok(Self { coder, psnr_db, slope: made.slope })
    }

    pub fn index_bits(&self) -> usize {
        self.coder.index_bits()
    }

    /// Encodes the images that are left.
    pub fn run(&self, pass: &mut Pass, progress: &dyn Progress) -> Result<()> {
        let encode = |pixels: &[u8]| {
            let mut draft = self.coder.draft(pixels);
            let modes = match self.psnr_db {
                Some(db) => choose_psnr(&mut draft, pixels, db, self.slope),
                None => draft.choose(self.slope.lambda()),
            };
            Some(Encoded { row: draft.record(&modes), squared_error: draft.squared_error(&modes, pixels) })
        };
        pass.run_each(CHUNK_IMAGES, encode, progress)
    }
}

/// The modes of the flattest slope that reaches a PSNR; of the steepest if none does.
fn choose_psnr(draft: &mut Draft, pixels: &[u8], db: f64, guess: Slope) -> Modes {
    let reaches = |number| {
        let modes = draft.choose(Slope::at(number).lambda());
        psnr_db(draft.squared_error(&modes, pixels), pixels.len() as u64) >= db
    };
    let number = last_holding(Slope::STEEPEST, Slope::FLATTEST, guess.number(), reaches).unwrap_or(Slope::STEEPEST);
    draft.choose(Slope::at(number).lambda())
}
