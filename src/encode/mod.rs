//! Making archives from images: sources, resizing, codebook training and the search for the nearest codeword.

mod against;
mod checkpoint;
#[cfg(feature = "gpu")]
mod chunk;
mod compare;
mod cover;
mod goal;
mod jpeg;
mod kmeans;
mod layers;
mod nearest;
mod pass;
mod patches;
mod picture;
mod pipeline;
mod projection;
mod quality;
mod reach;
mod resize;
mod sample;
mod search;
mod seeding;
mod skipped;
mod source;
mod spool;
mod spread;
mod ssim;
mod tree;
mod vq;

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

pub use against::{AgainstReport, BadOriginal, Originals, verify_against};
pub use checkpoint::partial_folder;
pub use compare::{Budget, Comparison, Quality, Rival, compare};
pub use goal::{Choice, Goal, PATCHES, Trial, choose};
pub use kmeans::{train, train_with};
pub use layers::{LayerOptions, LayerSource, LayerTraining, Rate, builtin_books, train_layers, train_layers_on};
pub use nearest::NearestCodeword;
pub use picture::{Image, MAX_PIXELS, ReadOptions};
pub use pipeline::{EncodeSummary, encode};
pub use quality::{MAX_PSNR_DB, psnr};
pub use resize::{Filter, Fit, Resize};
pub use search::Searcher;
pub use skipped::{Skipped, report_skipped, skipped_report};
pub use source::{Cifar, Folder, Manifest, Source, TarShards, open, with_classes};
pub use spool::Spool;
pub use ssim::ssim;

use crate::archive::Archive;
use crate::data::Data;
use crate::error::{Error, Result};
use crate::format::atomic::{AtomicFile, is_same};
use crate::format::codec::Codec;
use crate::geometry::Geometry;
use crate::output::named;

/// How images become an archive.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodeOptions {
    /// Width and height of the archive's images in pixels.
    pub image_size: (u32, u32),
    /// Channels of the archive's images: 1 (grey), 3 (RGB) or 4 (RGBA).
    pub channels: u32,
    /// What images are encoded as.
    pub codec: CodecOptions,
    /// With [`CodecOptions::Vq`]: width and height of a patch in pixels.
    pub patch: (u32, u32),
    /// With [`CodecOptions::Vq`]: where the codewords come from.
    pub codebook: Codebook,
    /// How images of another size are brought to the archive's.
    pub fit: Fit,
    /// With [`Fit::Crop`]: the length in pixels that the shorter side is brought to before the cut, 256 for 224x224 in
    /// the usual evaluation on ImageNet; just what covers the archive's size if `None`.
    pub resize_short: Option<u32>,
    /// How pixels are weighed in that.
    pub filter: Filter,
    /// The most pixels of an image that is decoded; a larger one is an error before memory is asked for.
    pub max_pixels: u64,
    /// Chooses the training patches, if there are any; the same seed and images make the same archive.
    pub seed: u64,
    /// What becomes of images that cannot be read.
    pub on_error: OnError,
    /// What searches for nearest codewords; the archive is the same.
    pub searcher: Searcher,
    /// Whether an interrupted encoding to the same archive goes on where it was; it must be one of the same images
    /// and options. If there is none, a new one begins.
    pub resume: bool,
    /// How often what was done is brought to the disk, to go on from there after an interruption. What takes less time
    /// leaves nothing behind.
    pub save_every: Duration,
}

impl EncodeOptions {
    /// The sizes that they ask for.
    ///
    /// # Errors
    /// [`Error::Geometry`] or [`Error::Argument`] for options out of range.
    pub fn geometry(&self) -> Result<Geometry> {
        self.resize().check()?;
        if let CodecOptions::Layers(layers) = &self.codec {
            layers.check(self.channels)?;
            if self.searcher != Searcher::Cpu && layers.books != LayerSource::Train {
                let found = self.searcher.name();
                let expected = "the CPU for codebooks of layers that are there: GPUs help in training them".into();
                return Err(Error::Argument { argument: "what searches for codewords", found, expected });
            }
            return Geometry::new(self.image_size, self.channels, BLOCK);
        }
        let geometry = Geometry::new(self.image_size, self.channels, self.patch)?;
        match &self.codebook {
            Codebook::Train(codewords) => kmeans::check_codewords(*codewords)?,
            Codebook::MaxError(_) if self.searcher == Searcher::Cpu => (),
            Codebook::MaxError(_) => {
                let found = self.searcher.name();
                let expected = "the CPU for a bound on the error: no GPU searches within one".into();
                return Err(Error::Argument { argument: "what searches for codewords", found, expected });
            }
            Codebook::Given(codebook) => {
                nearest::check_patches("codebook", codebook, geometry.codeword_len())?;
                kmeans::check_codewords(codebook.len() / geometry.codeword_len())?;
            }
        }
        Ok(geometry)
    }

    /// The most by which a value may differ, if that is asked for.
    pub(crate) fn max_error(&self) -> Option<u8> {
        match self.codebook {
            Codebook::MaxError(bound) if self.codec == CodecOptions::Vq => Some(bound),
            _ => None,
        }
    }

    /// How images are brought to the archive's size.
    pub fn resize(&self) -> Resize {
        Resize { size: self.image_size, fit: self.fit, short: self.resize_short, filter: self.filter }
    }

    /// How images are read.
    pub fn reading(&self) -> ReadOptions {
        ReadOptions { channels: self.channels, max_pixels: self.max_pixels }
    }
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            image_size: (224, 224),
            channels: 3,
            codec: CodecOptions::Vq,
            patch: (4, 4),
            codebook: Codebook::Train(65_536),
            fit: Fit::Crop,
            resize_short: None,
            filter: Filter::Bilinear,
            max_pixels: MAX_PIXELS,
            seed: 0,
            on_error: OnError::Fail,
            searcher: Searcher::Cpu,
            resume: false,
            save_every: Duration::from_secs(10),
        }
    }
}

/// What images are encoded as.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum CodecOptions {
    /// One codebook of patches, one index per patch.
    #[default]
    Vq,
    /// Layers that add up, as many as each block needs.
    Layers(LayerOptions),
}

/// Width and height of a block of layers.
const BLOCK: (u32, u32) = (8, 8);

/// Where codewords come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Codebook {
    /// At most so many are trained on the images; there are fewer if fewer reproduce every training patch. Training n
    /// codewords of l values takes about max(256 MiB, 2 n (l + 48)) + n (2 l + 120) bytes of memory.
    Train(usize),
    /// As many as it takes, up to 2^25, so that no value of a decoded image differs from the resized one by more than
    /// this; 0 reproduces every image exactly. All images are read twice. Finding the codewords takes 4 times a patch's
    /// bytes and 20 more for each distinct patch left by uniform quantisation to the same bound, of which at most
    /// 2^25 x 1.5 are kept at a time, whatever the number of images.
    MaxError(u8),
    /// These: one after another, each patch height x patch width x channels values.
    Given(Vec<u8>),
}

/// What becomes of images that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnError {
    /// The first one ends the work.
    #[default]
    Fail,
    /// They are left out and listed.
    Skip,
}

impl OnError {
    /// Whether an image with such an error is left out.
    pub(crate) fn skips(self, error: &Error) -> bool {
        self == OnError::Skip && !matches!(error, Error::Interrupted | Error::ImageChanged { .. })
    }

    /// The name that the command knows.
    pub fn name(self) -> &'static str {
        match self {
            OnError::Fail => "fail",
            OnError::Skip => "skip",
        }
    }
}
named!(OnError, "on error", "fail or skip", Fail Skip);

/// Whether an archive of a source can be written to `output`, and would replace none of the files that it is made of.
///
/// # Errors
/// [`Error::Io`] if nothing can be written there; [`Error::Argument`] if it is one of those files.
pub fn check_output(source: &dyn Source, output: &Path) -> Result<()> {
    drop(AtomicFile::create(output)?);
    // What is an archive is neither an image nor a list of them; a million others are not looked at for nothing.
    if output.exists() && Archive::open(output).is_err() && source.files().any(|file| is_same(&file, output)) {
        let found = format!("{}, one of the files that it is made of", output.display());
        return Err(Error::Argument { argument: "the archive to write", found, expected: "another file".into() });
    }
    Ok(())
}

/// An image as it is encoded: read and resized.
///
/// # Errors
/// The source's own if the image cannot be read; [`Error::Argument`] if it is not what it says.
pub fn prepare(source: &dyn Source, index: usize, options: &EncodeOptions) -> Result<Image> {
    bring_to_size(source.read(index, &options.reading())?, options)
}

/// Resizes an image to the archive's size.
fn bring_to_size(image: Image, options: &EncodeOptions) -> Result<Image> {
    if image.channels != options.channels {
        return Err(Error::Argument {
            argument: "channels of the image",
            found: image.channels.to_string(),
            expected: options.channels.to_string(),
        });
    }
    options.resize().apply(image)
}

/// Metadata keys of how images were brought to the archive's size, and of the random numbers' seed.
mod key {
    pub const FIT: &str = "fit";
    pub const RESIZE_SHORT: &str = "resize_short";
    pub const FILTER: &str = "filter";
    pub const MAX_PIXELS: &str = "max_pixels";
    pub const SEED: &str = "seed";
    pub const RATE: &str = "rate";
}

/// What an archive records of the options that the rest of it does not tell: [`options_of`] reads it back.
fn recorded(options: &EncodeOptions) -> Vec<(String, String)> {
    let mut entries = vec![(key::FIT, options.fit.to_string()), (key::FILTER, options.filter.to_string())];
    entries.extend(options.resize_short.map(|short| (key::RESIZE_SHORT, short.to_string())));
    if options.max_pixels != MAX_PIXELS {
        entries.push((key::MAX_PIXELS, options.max_pixels.to_string()));
    }
    let (rate, is_trained) = match &options.codec {
        CodecOptions::Vq => (None, matches!(options.codebook, Codebook::Train(_))),
        CodecOptions::Layers(layers) => (Some(layers.rate.to_string()), layers.books == LayerSource::Train),
    };
    entries.extend(rate.map(|rate| (key::RATE, rate)));
    if is_trained {
        entries.push((key::SEED, options.seed.to_string()));
    }
    entries.into_iter().map(|(key, value)| (key.into(), value)).collect()
}

/// The options that an archive was encoded with, as far as it tells, so that [`prepare`] gives the images that it
/// stands for. What it does not tell is as in [`EncodeOptions::default`]; the codebook is one of as many codewords, or trained anew.
///
/// # Errors
/// [`Error::Metadata`] if it tells something that this version does not know.
pub fn options_of<D: Data>(archive: &Archive<D>) -> Result<EncodeOptions> {
    let g = archive.geometry();
    let defaults = EncodeOptions::default();
    let (codec, patch) = match archive.codec() {
        Codec::Vq => (CodecOptions::Vq, (g.patch_width() as u32, g.patch_height() as u32)),
        Codec::Layers => {
            let rate = read_back(archive, key::RATE, "a rate of this version's")?.unwrap_or_default();
            (CodecOptions::Layers(LayerOptions { rate, books: LayerSource::Train }), defaults.patch)
        }
    };
    Ok(EncodeOptions {
        image_size: (g.image_width() as u32, g.image_height() as u32),
        channels: g.channels() as u32,
        codec,
        patch,
        codebook: match (archive.max_error(), archive.vq()) {
            (Some(bound), _) => Codebook::MaxError(bound),
            (None, Ok(vq)) => Codebook::Train(vq.codewords()),
            (None, Err(_)) => defaults.codebook,
        },
        fit: read_back(archive, key::FIT, "crop, stretch or pad")?.unwrap_or(defaults.fit),
        resize_short: read_back(archive, key::RESIZE_SHORT, "a number of pixels")?,
        filter: read_back(archive, key::FILTER, "a filter of this version's")?.unwrap_or(defaults.filter),
        max_pixels: read_back(archive, key::MAX_PIXELS, "a number of 64 bits")?.unwrap_or(defaults.max_pixels),
        seed: read_back(archive, key::SEED, "a number of 64 bits")?.unwrap_or(defaults.seed),
        ..defaults
    })
}

fn read_back<D: Data, T: FromStr>(archive: &Archive<D>, key: &str, expected: &str) -> Result<Option<T>> {
    let read = |found: &String| {
        let error = |_| Error::Metadata { key: key.into(), found: found.clone(), expected: expected.into() };
        found.parse().map_err(error)
    };
    archive.metadata().get(key).map(read).transpose()
}
