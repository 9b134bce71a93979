//! Where images come from.

mod cifar;
mod folder;
mod labels;
mod manifest;
mod pickle;
mod tar;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

pub use cifar::Cifar;
pub use folder::Folder;
pub use labels::with_classes;
pub use manifest::Manifest;
pub use tar::TarShards;

use super::picture::{Image, ReadOptions};
use crate::error::{Error, Result};

/// Images in a fixed order, each perhaps with a label and a caption. They are read from several threads and more
/// than once, and must be the same each time.
pub trait Source: Sync {
    /// How many images there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What to call an image in messages.
    fn name(&self, index: usize) -> String;

    /// The pixels of an image in the channels asked for.
    ///
    /// # Errors
    /// Any, if the image cannot be read.
    fn read(&self, index: usize, options: &ReadOptions) -> Result<Image>;

    /// Whether the same images can be read in another process, later: if not, an interrupted encoding cannot go on.
    fn is_lasting(&self) -> bool {
        true
    }

    /// The files that it reads, none of which an encoding may replace. One may stand there several times.
    fn files(&self) -> Box<dyn Iterator<Item = PathBuf> + '_> {
        Box::new(std::iter::empty())
    }

    /// Whether images have labels.
    fn has_labels(&self) -> bool {
        false
    }

    /// The label of an image.
    fn label(&self, index: usize) -> Option<i64> {
        let _ = index;
        None
    }

    /// The names of the labels 0, 1, ...
    fn classes(&self) -> Option<Vec<String>> {
        None
    }

    /// Whether images have captions.
    fn has_captions(&self) -> bool {
        false
    }

    /// The caption of an image.
    ///
    /// # Errors
    /// Any, if it cannot be read.
    fn caption(&self, index: usize) -> Result<Option<String>> {
        let _ = index;
        Ok(None)
    }
}

const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "webp", "bmp"];

/// What [`open`] takes, for messages.
const KINDS: &str = "a folder of images, a .csv, .tsv or .jsonl manifest, CIFAR's batches, or .tar shards";

/// Opens what lies at a path, which tells by itself what it is:
///
/// - a folder of images: [`Folder`];
/// - a `.csv`, `.tsv`, `.jsonl` or `.ndjson` file: [`Manifest`];
/// - CIFAR-10 or CIFAR-100 in the binary or the Python version, one file or the folder: [`Cifar`];
/// - a `.tar` file, a folder of such files without images in it, or a pattern such as `shard-{000000..000009}.tar`:
///   [`TarShards`].
///
/// # Errors
/// [`Error::Io`] if it cannot be read; [`Error::Argument`] if it is none of these; the errors of what it is.
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn Source>> {
    let path = path.as_ref();
    let metadata = match fs::metadata(path) {
        Err(_) if tar::is_pattern(path) => return Ok(Box::new(TarShards::open(path)?)),
        metadata => metadata.map_err(Error::io("open", path))?,
    };
    if metadata.is_dir() {
        if cifar::is_folder(path) {
            return Ok(Box::new(Cifar::open(path)?));
        }
        return match Folder::open(path) {
            // An unpacked data set may still have its shards beside it.
            Err(Error::NoImages { .. }) if tar::is_folder(path)? => Ok(Box::new(TarShards::open(path)?)),
            folder => Ok(Box::new(folder?)),
        };
    }
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("").to_ascii_lowercase();
    match extension.as_str() {
        "csv" | "tsv" | "jsonl" | "ndjson" => Ok(Box::new(Manifest::open(path)?)),
        "tar" => Ok(Box::new(TarShards::open(path)?)),
        "bin" => Ok(Box::new(Cifar::open(path)?)),
        _ if tar::is_compressed(path) => Err(tar::compressed(path)),
        _ if starts_with(path, &[pickle::PROTO]) => Ok(Box::new(Cifar::open(path)?)),
        _ => Err(Error::Argument { argument: "source", found: path.display().to_string(), expected: KINDS.into() }),
    }
}

/// Whether a file is there and begins so.
fn starts_with(path: &Path, expected: &[u8]) -> bool {
    let mut found = Vec::new();
    let read = File::open(path).and_then(|file| file.take(expected.len() as u64).read_to_end(&mut found));
    read.is_ok() && found == expected
}

fn is_image(path: &Path) -> bool {
    path.extension().and_then(|extension| extension.to_str()).is_some_and(is_image_extension)
}

fn is_image_extension(extension: &str) -> bool {
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}
