//! The patch size and the codebook that reach a quality or a size.

use std::fmt;

use rand::SeedableRng;
use rand_pcg::Pcg64;
use rayon::prelude::*;

use super::nearest::NearestCodeword;
use super::picture::{Image, ReadOptions};
use super::quality::psnr_db;
use super::source::Source;
use super::{Codebook, EncodeOptions, kmeans, sample, vq};
use crate::error::{Error, Result};
use crate::format::index::IndexWidth;
use crate::geometry::Geometry;
use crate::progress::{Counter, Progress};

/// What an archive shall come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// As small as it can be at this mean PSNR in dB.
    Psnr(f64),
    /// As good as it can be in so many bytes, codebook and all.
    Bytes(u64),
}

/// Sizes of patches that are tried if none is given, width and height. Those that most archives want come first, as
/// what they reach spares trials of the others.
pub const PATCHES: [(u32, u32); 7] = [(4, 4), (2, 2), (3, 3), (6, 6), (8, 8), (2, 1), (1, 1)];

/// The most bits of an index that are tried: training more codewords takes long, and hardly pays.
const MAX_BITS: u32 = 18;

/// The most bytes of images that trials are made on.
const SAMPLE_BYTES: usize = 256 << 20;

/// Images that quality is measured on.
const MEASURED: usize = 128;

/// By how many dB a patch size may do better than a straight line through its first trials says.
const SLACK_DB: f64 = 1.5;

/// A patch size and a number of codewords, and what they come to.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Trial {
    /// Width and height of a patch in pixels.
    pub patch: (u32, u32),
    /// Codewords trained.
    pub codewords: usize,
    /// Bits of an index.
    pub index_bits: usize,
    /// Bytes of the archive.
    pub bytes: u64,
    /// The mean PSNR in dB over the images of the sample that it is measured on.
    pub psnr_db: f64,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { patch: (width, height), codewords, bytes, psnr_db, .. } = self;
        write!(f, "{psnr_db:.2} dB in {bytes} bytes with {codewords} codewords of {width}x{height} pixels")
    }
}

/// What was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Options with this patch size and the codebook that was trained for it.
    pub options: EncodeOptions,
    /// What they come to.
    pub trial: Trial,
    /// All trials, this one too, in the order in which they were made.
    pub trials: Vec<Trial>,
}

/// Finds the patch size of `patches` and the number of codewords, up to 2^18, that reach a goal best,
/// by training codebooks on a sample of the source: up to 256 MiB of images, chosen by the options' seed. Quality is
/// measured on 128 of them; if the sample is not the whole source, they are not trained on.
///
/// The quality that a patch size reaches grows with the number of codewords, and nearly along a line in its
/// logarithm (6.02 / d dB for each bit in d dimensions, in the limit of many codewords: Zador 1982). That line says
/// which number is tried next; what a trial measured decides. A patch size is given up when its line stays 1.5 dB
/// short of what it must reach.
///
/// # Errors
/// [`Error::Goal`] if no trial reaches it, with the one that comes nearest; [`Error::Argument`] for goals out of
/// range; those of [`encode`](super::encode) for options and images.
pub fn choose(
    source: &dyn Source,
    goal: Goal,
    options: &EncodeOptions,
    patches: &[(u32, u32)],
    progress: &dyn Progress,
) -> Result<Choice> {
    match goal {
        Goal::Psnr(db) if !(0.0..100.0).contains(&db) => {
            let (found, expected) = (db.to_string(), "0 to 100 dB".into());
            return Err(Error::Argument { argument: "PSNR", found, expected });
        }
        _ => (),
    }
    for &patch in patches {
        // What is wrong with a size should not turn out after the trials of others.
        EncodeOptions { patch, codebook: Codebook::Train(1), ..options.clone() }.geometry()?;
    }
    let mut trials = Trials::new(source, options, progress)?;
    let chosen = match goal {
        Goal::Psnr(db) => trials.smallest(patches, db)?,
        Goal::Bytes(bytes) => trials.best(patches, bytes)?,
    };
    match chosen {
        Some((trial, codebook)) => {
            let options = EncodeOptions { patch: trial.patch, codebook: Codebook::Given(codebook), ..options.clone() };
            Ok(Choice { options, trial, trials: trials.made })
        }
        None => {
            let nearest = match goal {
                Goal::Psnr(_) => trials.made.iter().max_by(|a, b| a.psnr_db.total_cmp(&b.psnr_db)),
                Goal::Bytes(_) => trials.made.iter().min_by_key(|trial| trial.bytes),
            };
            let (goal, advice) = match goal {
                Goal::Psnr(db) => (format!("{db} dB"), "a larger codebook, or a bound of 0 on the error, loses less"),
                Goal::Bytes(bytes) => (format!("{bytes} bytes"), "smaller or fewer images take less"),
            };
            Err(Error::Goal { goal, nearest: nearest.map_or("no trial".into(), ToString::to_string), advice })
        }
    }
}

/// Bytes of an archive that are there whatever its rows and codebooks are, at most, but for long class names.
pub(super) fn fixed_bytes(source: &dyn Source) -> Result<u64> {
    let mut captions = 0;
    if source.has_captions() {
        for image in 0..source.len() {
            captions += source.caption(image)?.map_or(0, |caption| caption.len());
        }
    }
    // Checksums and PSNR; labels; where captions begin. 4096 bytes hold a header without long class names.
    let each = 8 + if source.has_labels() { 8 } else { 0 } + if source.has_captions() { 8 } else { 0 };
    let classes: usize = source.classes().iter().flatten().map(|class| class.len() + 8).sum();
    Ok(4096 + source.len() as u64 * each + (captions + classes) as u64)
}

/// Trials on a sample of a source.
struct Trials<'a> {
    options: &'a EncodeOptions,
    progress: &'a dyn Progress,
    /// Images that codebooks are trained on.
    training: Kept,
    /// Images that quality is measured on.
    measured: Vec<Vec<u8>>,
    /// Samples of the archive.
    samples: u64,
    /// Bytes of the archive that are there whatever is chosen.
    fixed: u64,
    made: Vec<Trial>,
}

/// A trial and the codebook that was trained for it.
type Trained = (Trial, Vec<u8>);

impl<'a> Trials<'a> {
    fn new(source: &dyn Source, options: &'a EncodeOptions, progress: &'a dyn Progress) -> Result<Self> {
        let geometry = EncodeOptions { codebook: Codebook::Train(1), ..options.clone() }.geometry()?;
        let mut random = Pcg64::seed_from_u64(options.seed);
        let most = (SAMPLE_BYTES / geometry.image_len()).max(2 * MEASURED);
        let images = sample::choose(&mut random, source.len(), most);
        let mut training = Kept::new(source, &images, options, progress)?;
        let chosen = sample::choose(&mut random, training.images.len(), MEASURED);
        // Images that are not all trained on are measured by some that are not trained on.
        let measured = match images.len() == source.len() || training.images.len() < 2 * MEASURED {
            true => chosen.iter().map(|&image| training.images[image].clone()).collect(),
            false => chosen.iter().rev().map(|&image| training.images.swap_remove(image)).collect(),
        };
        let (samples, fixed) = (source.len() as u64, fixed_bytes(source)?);
        Ok(Self { options, progress, training, measured, samples, fixed, made: Vec::new() })
    }

    /// The trial of the fewest bytes that reaches a PSNR.
    fn smallest(&mut self, patches: &[(u32, u32)], db: f64) -> Result<Option<Trained>> {
        let mut best: Option<Trained> = None;
        for &patch in patches {
            let bytes = best.as_ref().map_or(u64::MAX, |(trial, _)| trial.bytes - 1);
            let (mut misses, mut reaches) = (0, self.most_bits(patch, bytes)? + 1);
            let mut line = Line::default();
            while reaches - misses > 1 {
                if misses > 0 && line.at(reaches - 1).is_some_and(|most_db| most_db + SLACK_DB < db) {
                    break;
                }
                let bits = line.bits_for(db).clamp(misses + 1, reaches - 1);
                let (trial, codebook) = self.attempt(patch, 1 << bits)?;
                line.add(bits, trial.psnr_db);
                if trial.psnr_db < db {
                    misses = bits;
                } else {
                    reaches = bits;
                    if best.as_ref().is_none_or(|(best, _)| trial.bytes < best.bytes) {
                        best = Some((trial, codebook));
                    }
                }
            }
        }
        Ok(best)
    }

    /// The trial of the highest PSNR in so many bytes.
    fn best(&mut self, patches: &[(u32, u32)], bytes: u64) -> Result<Option<Trained>> {
        // What each patch size promises, from trials of few codewords.
        let mut promises = Vec::new();
        for &patch in patches {
            let most = self.most_bits(patch, bytes)?;
            let mut line = Line::default();
            for bits in [6, 10] {
                if most > 0 {
                    let bits = bits.min(most);
                    line.add(bits, self.attempt(patch, 1 << bits)?.0.psnr_db);
                }
            }
            if let Some(promise) = line.at(most).or(line.last_db()) {
                promises.push((promise, patch, most));
            }
        }
        if promises.is_empty() {
            // Nothing fits. What would come nearest is worth knowing.
            for &patch in patches {
                self.attempt(patch, 2)?;
            }
        }
        promises.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut best: Option<Trained> = None;
        for (promise, patch, most) in promises {
            if best.as_ref().is_none_or(|(best, _)| promise + SLACK_DB > best.psnr_db) {
                let (trial, codebook) = self.attempt(patch, self.most_codewords(patch, most, bytes)?)?;
                if best.as_ref().is_none_or(|(best, _)| trial.psnr_db > best.psnr_db) {
                    best = Some((trial, codebook));
                }
            }
        }
        Ok(best)
    }

    /// The most bits of an index with which the archive has at most so many bytes; 0 if one is too many.
    fn most_bits(&self, patch: (u32, u32), bytes: u64) -> Result<u32> {
        let geometry = self.geometry(patch)?;
        let fits = |bits: &u32| Ok::<_, Error>(self.bytes(&geometry, 1 << bits)? <= bytes);
        let mut most = 0;
        for bits in 1..=MAX_BITS {
            if !fits(&bits)? {
                break;
            }
            most = bits;
        }
        Ok(most)
    }

    /// The bytes of an archive of so many codewords.
    fn bytes(&self, geometry: &Geometry, codewords: usize) -> Result<u64> {
        let row_len = IndexWidth::narrowest(codewords)?.row_len(geometry.patches()) as u64;
        Ok(self.fixed + self.samples * row_len + (codewords * geometry.codeword_len()) as u64)
    }

    fn geometry(&self, patch: (u32, u32)) -> Result<Geometry> {
        Geometry::new(self.options.image_size, self.options.channels, patch)
    }

    /// The most codewords with which the archive has at most so many bytes, of which 2^bits are not too many: those, or
    /// as many with indices of one bit more as there is room for.
    fn most_codewords(&self, patch: (u32, u32), bits: u32, bytes: u64) -> Result<usize> {
        let geometry = self.geometry(patch)?;
        let (fewer, more) = (1usize << bits, 2usize << bits);
        let without = self.bytes(&geometry, more)? - (more * geometry.codeword_len()) as u64;
        let room = bytes.saturating_sub(without) / geometry.codeword_len() as u64;
        Ok((room as usize).clamp(fewer, if bits < MAX_BITS { more } else { fewer }))
    }

    /// Trains so many codewords and measures them.
    fn attempt(&mut self, patch: (u32, u32), asked: usize) -> Result<Trained> {
        let geometry = self.geometry(patch)?;
        let options = EncodeOptions { patch, ..self.options.clone() };
        let patches = sample::sample(&self.training, &geometry, &options, asked, self.progress)?;
        let codebook = kmeans::train_with(&options.searcher, &patches, geometry.codeword_len(), asked, self.progress)?;
        drop(patches);
        let codewords = codebook.len() / geometry.codeword_len();
        let trial = Trial {
            patch,
            codewords,
            index_bits: IndexWidth::narrowest(codewords)?.bits(),
            bytes: self.bytes(&geometry, codewords)?,
            psnr_db: self.psnr(&geometry, &codebook)?,
        };
        self.made.push(trial);
        Ok((trial, codebook))
    }

    /// The mean PSNR of the images that are measured.
    fn psnr(&self, geometry: &Geometry, codebook: &[u8]) -> Result<f64> {
        let search = NearestCodeword::new(codebook, geometry.codeword_len())?;
        let counter = Counter::new(self.progress, "measuring", self.measured.len());
        let psnr = |image: &Vec<u8>| {
            counter.add(1)?;
            // Without a bound there is a nearest codeword.
            let error = vq::indices(geometry, &search, None, image).map_or(0, |found| found.squared_error);
            Ok(psnr_db(error, image.len() as u64))
        };
        // Summed in order: floats added in another order give another sum.
        let psnr: Vec<f64> = self.measured.par_iter().map(psnr).collect::<Result<_>>()?;
        Ok(psnr.iter().sum::<f64>() / psnr.len() as f64)
    }
}

/// A straight line of PSNR over the bits of an index, through the last two trials.
#[derive(Default)]
struct Line {
    points: Vec<(f64, f64)>,
}

impl Line {
    fn add(&mut self, bits: u32, db: f64) {
        if self.points.iter().all(|point| point.0 != f64::from(bits)) {
            self.points.push((bits.into(), db));
        }
    }

    fn last_db(&self) -> Option<f64> {
        self.points.last().map(|point| point.1)
    }

    /// dB at 0 bits and for each bit.
    fn fit(&self) -> Option<(f64, f64)> {
        let &[.., (bits, db), (other_bits, other_db)] = self.points.as_slice() else { return None };
        let slope = (other_db - db) / (other_bits - bits);
        Some((db - slope * bits, slope))
    }

    /// The PSNR to expect.
    fn at(&self, bits: u32) -> Option<f64> {
        self.fit().map(|(start, slope)| start + slope * f64::from(bits))
    }

    /// Bits at which the line reaches a PSNR; to begin with few enough to be quick.
    fn bits_for(&self, db: f64) -> u32 {
        match (self.fit(), self.points.first()) {
            (Some((start, slope)), _) if slope > 0.0 => ((db - start) / slope).ceil().clamp(1.0, 32.0) as u32,
            (_, Some(&(bits, found))) if found < db => bits as u32 + 4,
            (_, Some(&(bits, _))) => (bits as u32).saturating_sub(4),
            (_, None) => 8,
        }
    }
}

/// Images in memory, in the archive's size.
struct Kept {
    size: (u32, u32),
    images: Vec<Vec<u8>>,
}

impl Kept {
    fn new(source: &dyn Source, images: &[usize], options: &EncodeOptions, progress: &dyn Progress) -> Result<Self> {
        let counter = Counter::new(progress, "reading", images.len());
        let images = sample::images(source, images, options, counter, |pixels| pixels)?;
        Ok(Self { size: options.image_size, images })
    }
}

impl Source for Kept {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn name(&self, index: usize) -> String {
        format!("image {index} of the sample")
    }

    fn read(&self, index: usize, options: &ReadOptions) -> Result<Image> {
        let missing = Error::Sample { sample: index, samples: self.images.len() };
        let pixels = self.images.get(index).ok_or(missing)?.clone();
        let (width, height) = self.size;
        Ok(Image { width, height, channels: options.channels, pixels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{Spool, encode};

    /// Pictures of waves that no small codebook reproduces, 24 x 20 pixels.
    fn waves(count: u32) -> (tempfile::TempDir, Spool, EncodeOptions) {
        let folder = tempfile::tempdir().expect("tempdir");
        let options = EncodeOptions { image_size: (24, 20), seed: 3, ..EncodeOptions::default() };
        let mut spool = Spool::create_in(folder.path(), &options).expect("spool");
        for i in 0..count {
            let value = |x: u32, y: u32, k: u32| {
                let phase = f64::from(x * (1 + i % 5) + y * k) / (2.0 + f64::from(i % 11)) + f64::from(i);
                (127.5 + 90.0 * phase.sin() + f64::from((x * 7 + y * 13 + i) % 9)) as u8
            };
            let pixels = (0..20).flat_map(|y| (0..24).flat_map(move |x| (1..4).map(move |k| value(x, y, k)))).collect();
            spool.push(Image::new(24, 20, 3, pixels, 3).expect("image"), Some(i.into()), None).expect("push");
        }
        (folder, spool, options)
    }

    const FEW: [(u32, u32); 3] = [(4, 4), (2, 2), (1, 1)];

    #[test]
    fn a_quality_is_reached_by_the_smallest_of_all() {
        let (folder, source, options) = waves(40);
        let output = folder.path().join("out.qvq");
        // Every patch size with every number of codewords, as an independent search.
        let trials = || {
            FEW.iter().flat_map(|&patch| (1..=10).map(move |bits| (patch, 1 << bits))).map(|(patch, codewords)| {
                let codebook = Codebook::Train(codewords);
                let options = EncodeOptions { patch, codebook, ..options.clone() };
                encode(&source, &output, &options, &()).expect("encode")
            })
        };
        let all: Vec<(u64, f64)> = trials().map(|summary| (summary.file_len, summary.mean_psnr_db)).collect();
        for goal in [18.0, 25.0, 32.0] {
            let choice = choose(&source, Goal::Psnr(goal), &options, &FEW, &()).expect("choice");
            let summary = encode(&source, &output, &choice.options, &()).expect("encode");
            assert!(summary.mean_psnr_db >= goal && choice.trial.psnr_db == summary.mean_psnr_db, "{summary:?}");
            let smallest = all.iter().filter(|trial| trial.1 >= goal).map(|trial| trial.0).min().expect("one");
            // All is measured, as there are no more images; 4096 bytes are set aside for the header.
            assert!(summary.file_len <= smallest, "{goal} dB: {} bytes, {smallest} would do", summary.file_len);
            assert!(choice.trial.bytes.abs_diff(summary.file_len) <= 4096);
        }
    }

    #[test]
    fn a_size_is_kept_by_the_best_of_all() {
        let (folder, source, options) = waves(40);
        let output = folder.path().join("out.qvq");
        for bytes in [8_000, 12_000, 20_000] {
            let choice = choose(&source, Goal::Bytes(bytes), &options, &FEW, &()).expect("choice");
            let summary = encode(&source, &output, &choice.options, &()).expect("encode");
            assert!(summary.file_len <= bytes && summary.file_len + 4096 >= choice.trial.bytes, "{summary:?}");
            for patch in FEW {
                for bits in 1..=10 {
                    let options = EncodeOptions { patch, codebook: Codebook::Train(1 << bits), ..options.clone() };
                    let other = encode(&source, &output, &options, &()).expect("encode");
                    if other.file_len + 4096 <= bytes {
                        assert!(other.mean_psnr_db <= summary.mean_psnr_db + 0.2, "{bytes}: {other:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn goals_out_of_reach_say_what_came_nearest() {
        let (folder, source, options) = waves(10);
        for (goal, patches, said) in [(Goal::Psnr(60.0), &[][..], "no trial"), (Goal::Bytes(4200), &FEW[..], "dB in")] {
            match choose(&source, goal, &options, patches, &()) {
                Err(Error::Goal { nearest, .. }) => assert!(nearest.contains(said), "{nearest}"),
                other => unreachable!("{:?}", other.map(|choice| choice.trial)),
            }
        }
        for goal in [Goal::Psnr(f64::NAN), Goal::Psnr(100.0), Goal::Psnr(-1.0)] {
            assert!(matches!(choose(&source, goal, &options, &FEW, &()), Err(Error::Argument { .. })));
        }
        let wrong = choose(&source, Goal::Psnr(20.0), &options, &[(17, 1)], &());
        assert!(matches!(wrong, Err(Error::Geometry { .. })));
        drop(folder);
    }

    #[test]
    fn the_choice_does_not_depend_on_threads() {
        let (_folder, source, options) = waves(30);
        let choices = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
            pool.install(|| choose(&source, Goal::Psnr(24.0), &options, &FEW, &()).expect("choice"))
        });
        assert_eq!(choices[0], choices[1]);
    }
}
