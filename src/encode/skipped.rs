//! Images that were left out of an archive.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::checkpoint::beside;
use crate::error::{Error, Result};
use crate::format::atomic::AtomicFile;

/// An image that was left out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Skipped {
    /// Its number in the source.
    pub index: usize,
    /// Its name in the source.
    pub name: String,
    /// Why it could not be read, with all causes.
    pub reason: String,
}

/// Where the images that an encoding to `output` left out are listed: `OUT.qvq.skipped.json`, an array of objects
/// with the image's `index` in the source, its `name` and the `reason`.
pub fn skipped_report(output: &Path) -> PathBuf {
    beside(output, ".skipped.json")
}

/// Writes the list of images that were left out, and takes away one that an earlier archive left, if there are none.
///
/// # Errors
/// [`Error::Io`] if it cannot be written.
pub fn report_skipped(output: &Path, skipped: &[Skipped]) -> Result<()> {
    let path = skipped_report(output);
    if skipped.is_empty() {
        return match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::Io { action: "remove", path, source: error })
            }
            _ => Ok(()),
        };
    }
    let mut file = AtomicFile::create(&path)?;
    let written = serde_json::to_writer_pretty(&mut file, skipped).map_err(Into::into).and_then(|()| writeln!(file));
    written.map_err(Error::io("write", path))?;
    file.commit()
}
