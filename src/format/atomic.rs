//! Files that appear whole or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// A file written beside its target and moved there by [`commit`](Self::commit); dropped before, it leaves nothing.
#[derive(Debug)]
pub struct AtomicFile {
    file: BufWriter<NamedTempFile>,
    target: PathBuf,
}

impl AtomicFile {
    /// Starts a file that will become `target`, whose folder must exist.
    pub fn create(target: impl Into<PathBuf>) -> Result<Self> {
        let target = checked(target.into())?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".kuat-").suffix(".part");
        // Readable to whom the umask allows, not to the owner alone as temporary files are.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder(&target)).map_err(Error::io("create a file beside", &target))?;
        Ok(Self { file: BufWriter::with_capacity(1 << 20, file), target })
    }

    /// Goes on with a file that lies at `part`, on the file system of `target`. It stays there until it is committed.
    #[cfg(feature = "encode")]
    pub(crate) fn proceed(file: File, part: &Path, target: PathBuf) -> Result<Self> {
        let path = tempfile::TempPath::try_from_path(part).map_err(Error::io("write", part))?;
        let mut file = NamedTempFile::from_parts(file, path);
        file.disable_cleanup(true);
        Ok(Self { file: BufWriter::with_capacity(1 << 20, file), target })
    }

    /// Brings all that was written to the disk.
    #[cfg(feature = "encode")]
    pub(crate) fn sync(&mut self) -> Result<()> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().as_file().sync_data());
        synced.map_err(Error::io("write", &self.target))
    }

    /// Cuts the file to `len` bytes, or extends it.
    pub(crate) fn resize(&mut self, len: u64) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().as_file().set_len(len)
    }

    /// Syncs the file to disk and renames it to its target, replacing what was there.
    pub fn commit(self) -> Result<()> {
        let Self { file, target } = self;
        let failed = |source| Error::Io { action: "write", path: target.clone(), source };
        let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&target).map_err(|e| failed(e.error))?;
        // The rename is durable once the folder is synced; only Unix lets one open a folder for that.
        #[cfg(unix)]
        File::open(folder(&target)).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(())
    }
}

/// What is written for `target`: what a symbolic link points to is replaced, not the link, and nothing but files is.
pub(crate) fn checked(target: PathBuf) -> Result<PathBuf> {
    let target = target.canonicalize().unwrap_or(target);
    if target.exists() && !target.is_file() {
        let source = io::Error::other("it exists and is not a regular file");
        return Err(Error::Io { action: "write", path: target, source });
    }
    Ok(target)
}

fn folder(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

impl Read for AtomicFile {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.flush()?;
        self.file.get_mut().read(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_a_file_that_was_not_committed() {
        let folder = tempfile::tempdir().expect("tempdir");
        let target = folder.path().join("a");
        let mut file = AtomicFile::create(&target).expect("create");
        file.write_all(b"half").expect("write");
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 0);
    }

    #[test]
    fn commit_replaces_the_target_and_keeps_its_folder_clean() {
        let folder = tempfile::tempdir().expect("tempdir");
        let target = folder.path().join("a");
        std::fs::write(&target, "old").expect("write");
        let mut file = AtomicFile::create(&target).expect("create");
        file.write_all(b"new").expect("write");
        assert_eq!(std::fs::read(&target).expect("read"), b"old");
        file.commit().expect("commit");
        assert_eq!(std::fs::read(&target).expect("read"), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 1);
    }
}
