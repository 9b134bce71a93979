//! Making archives from images: sources, resizing, codebook training and the search for the nearest codeword.

mod kmeans;
mod nearest;
mod patches;
mod picture;
mod pipeline;
mod projection;
mod quality;
mod reach;
mod resize;
mod sample;
mod seeding;
mod source;
mod spool;
mod spread;
mod tree;

use std::fmt;
use std::str::FromStr;

pub use kmeans::train;
pub use nearest::NearestCodeword;
pub use picture::{Image, MAX_PIXELS};
pub use pipeline::{EncodeSummary, Skipped, encode};
pub use quality::{MAX_PSNR_DB, psnr};
pub use resize::{Fit, resize};
pub use source::{Folder, Source};
pub use spool::Spool;

use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::output::named;

/// How images become an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Width and height of the archive's images in pixels.
    pub image_size: (u32, u32),
    /// Channels of the archive's images: 1 (grey), 3 (RGB) or 4 (RGBA).
    pub channels: u32,
    /// Width and height of a patch in pixels.
    pub patch: (u32, u32),
    /// Where the codewords come from.
    pub codebook: Codebook,
    /// How images of another size are brought to the archive's.
    pub fit: Fit,
    /// Chooses the training patches, if there are any; the same seed and images make the same archive.
    pub seed: u64,
    /// What becomes of images that cannot be read.
    pub on_error: OnError,
}

impl EncodeOptions {
    /// The sizes that they ask for.
    ///
    /// # Errors
    /// [`Error::Geometry`] or [`Error::Argument`] for options out of range.
    pub fn geometry(&self) -> Result<Geometry> {
        let geometry = Geometry::new(self.image_size, self.channels, self.patch)?;
        match &self.codebook {
            Codebook::Train(codewords) => kmeans::check_codewords(*codewords)?,
            Codebook::Given(codebook) => {
                nearest::check_patches("codebook", codebook, geometry.codeword_len())?;
                kmeans::check_codewords(codebook.len() / geometry.codeword_len())?;
            }
        }
        Ok(geometry)
    }
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            image_size: (224, 224),
            channels: 3,
            patch: (4, 4),
            codebook: Codebook::Train(65_536),
            fit: Fit::Crop,
            seed: 0,
            on_error: OnError::Fail,
        }
    }
}

/// Where codewords come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Codebook {
    /// At most so many are trained on the images; there are fewer if fewer reproduce every training patch. Training n
    /// codewords of l values takes about max(256 MiB, 2 n (l + 48)) + n (2 l + 120) bytes of memory.
    Train(usize),
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
    /// The name that the command knows.
    pub fn name(self) -> &'static str {
        match self {
            OnError::Fail => "fail",
            OnError::Skip => "skip",
        }
    }
}
named!(OnError, "on error", "fail or skip", Fail Skip);

/// An image as it is encoded: read and resized.
///
/// # Errors
/// The source's own if the image cannot be read; [`Error::Argument`] if it is not what it says.
pub fn prepare(source: &dyn Source, index: usize, options: &EncodeOptions) -> Result<Image> {
    bring_to_size(source.read(index, options.channels)?, options)
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
    resize::resize_owned(image, options.image_size, options.fit)
}
