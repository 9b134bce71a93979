//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::error::{Error, Result};

/// A file that gets its name by [`commit`](Self::commit), once it is whole; dropped before, it leaves nothing.
///
/// Where the system knows files without a name (Linux, on most file systems), it has none until then, and a process that
/// is killed leaves nothing either. Elsewhere it is `.kuat-*.part` beside its target, which a killed process leaves there.
#[derive(Debug)]
pub struct AtomicFile {
    file: BufWriter<File>,
    /// Where it lies; `None` while it has no name.
    part: Option<TempPath>,
    target: PathBuf,
}

impl AtomicFile {
    /// Starts a file that will become `target`, whose folder must exist.
    pub fn create(target: impl Into<PathBuf>) -> Result<Self> {
        let target = checked(target.into())?;
        match nameless(folder(&target)) {
            Some(file) => Ok(Self::of(file, None, target)),
            None => Self::named(target),
        }
    }

    fn named(target: PathBuf) -> Result<Self> {
        let mut builder = builder();
        // Readable to whom the umask allows, not to the owner alone as temporary files are.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder(&target)).map_err(Error::io("create a file beside", &target))?;
        let (file, part) = file.into_parts();
        Ok(Self::of(file, Some(part), target))
    }

    fn of(file: File, part: Option<TempPath>, target: PathBuf) -> Self {
        Self { file: BufWriter::with_capacity(1 << 20, file), part, target }
    }

    /// Goes on with a file that lies at `part`, on the file system of `target`. It stays there until it is committed.
    #[cfg(feature = "encode")]
    pub(crate) fn proceed(file: File, part: &Path, target: PathBuf) -> Result<Self> {
        let mut part = TempPath::try_from_path(part).map_err(Error::io("write", part))?;
        part.disable_cleanup(true);
        Ok(Self::of(file, Some(part), target))
    }

    /// Brings all that was written to the disk.
    #[cfg(feature = "encode")]
    pub(crate) fn sync(&mut self) -> Result<()> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_data());
        synced.map_err(Error::io("write", &self.target))
    }

    /// Cuts the file to `len` bytes, or extends it.
    pub(crate) fn resize(&mut self, len: u64) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().set_len(len)
    }

    /// Syncs the file to disk and renames it to its target, replacing what was there.
    pub fn commit(self) -> Result<()> {
        self.commit_by(name)
    }

    fn commit_by(self, name: impl Fn(&File, &Path) -> io::Result<()>) -> Result<()> {
        let Self { file, part, target } = self;
        let failed = |source| Error::Io { action: "write", path: target.clone(), source };
        let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(failed)?;
        let part = match part {
            Some(part) => part,
            // Only a rename replaces what is there, so a name of its own comes first.
            None => match builder().make_in(folder(&target), |path| name(&file, path)) {
                Ok(named) => named.into_temp_path(),
                // A system that makes such files but does not name them, as some containers do.
                Err(_) => Self::copied(file, target.clone())?,
            },
        };
        part.persist(&target).map_err(|e| failed(e.error))?;
        // The rename is durable once the folder is synced; only Unix lets one open a folder for that.
        #[cfg(unix)]
        File::open(folder(&target)).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(())
    }
}

impl AtomicFile {
    /// A copy of a file, with a name of its own.
    fn copied(mut file: File, target: PathBuf) -> Result<TempPath> {
        let Self { file: copy, part, target } = Self::named(target)?;
        let mut copy = copy.get_ref();
        let copied = file.rewind().and_then(|()| io::copy(&mut file, &mut copy)).and_then(|_| copy.sync_all());
        copied.map_err(Error::io("write", &target))?;
        part.ok_or_else(|| Error::io("write", &target)(io::ErrorKind::NotFound.into()))
    }
}

fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".kuat-").suffix(".part");
    builder
}

/// A file without a name in a folder, if the system and the folder's file system know such and can name it later.
#[cfg(target_os = "linux")]
fn nameless(folder: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    options.read(true).write(true).custom_flags(libc::O_TMPFILE);
    Path::new("/proc/self/fd").exists().then(|| options.open(folder).ok()).flatten()
}

#[cfg(not(target_os = "linux"))]
fn nameless(_: &Path) -> Option<File> {
    None
}

/// Gives a file of [`nameless`] a name that nothing has yet.
#[cfg(target_os = "linux")]
fn name(file: &File, path: &Path) -> io::Result<()> {
    use std::os::{fd::AsRawFd, unix::ffi::OsStrExt};
    let [from, to] = [format!("/proc/self/fd/{}", file.as_raw_fd()).as_bytes(), path.as_os_str().as_bytes()]
        .map(std::ffi::CString::new);
    let (from, to, here) = (from?, to?, libc::AT_FDCWD);
    // SAFETY: both paths end in a zero and live until the call returns.
    match unsafe { libc::linkat(here, from.as_ptr(), here, to.as_ptr(), libc::AT_SYMLINK_FOLLOW) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
fn name(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What is written for `target`: what a symbolic link points to is replaced, not the link, and nothing but files is.
pub(crate) fn checked(target: PathBuf) -> Result<PathBuf> {
    let refused = |source: io::Error| Err(Error::Io { action: "write", path: target.clone(), source });
    match fs::symlink_metadata(&target) {
        Ok(found) => match target.canonicalize() {
            Ok(path) if path.is_file() => Ok(path),
            Ok(_) => refused(io::Error::other("it exists and is not a regular file")),
            Err(error) if found.is_symlink() && error.kind() == io::ErrorKind::NotFound => {
                refused(io::Error::other("it is a symbolic link to nowhere; remove it, or name the file itself"))
            }
            Err(error) => refused(error),
        },
        // Names that are too long, folders that may not be entered: better known now than after hours.
        Err(error) if error.kind() != io::ErrorKind::NotFound => refused(error),
        Err(_) if target.as_os_str().to_string_lossy().ends_with(std::path::is_separator) => {
            refused(io::Error::other("it names a folder, expected a file"))
        }
        Err(_) => Ok(target),
    }
}

/// Whether two paths lead to the same file, by whatever names. A path to nothing leads to no file.
#[cfg(feature = "encode")]
pub(crate) fn is_same(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    let identity = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).map(|file| (file.dev(), file.ino()))
    };
    #[cfg(not(unix))]
    let identity = |path: &Path| path.canonicalize();
    matches!((identity(a), identity(b)), (Ok(a), Ok(b)) if a == b)
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

    /// Both ways to begin a file: what the system gives, and what every system does.
    const WAYS: [fn(PathBuf) -> Result<AtomicFile>; 2] = [|target| AtomicFile::create(target), AtomicFile::named];

    #[test]
    fn nothing_is_left_of_a_file_that_was_not_committed() {
        for create in WAYS {
            let folder = tempfile::tempdir().expect("tempdir");
            let mut file = create(folder.path().join("a")).expect("create");
            file.write_all(b"half").expect("write");
            drop(file);
            assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 0);
        }
    }

    #[test]
    fn commit_replaces_the_target_and_keeps_its_folder_clean() {
        for create in WAYS {
            let folder = tempfile::tempdir().expect("tempdir");
            let target = folder.path().join("a");
            for text in ["new", "newer"] {
                let mut file = create(target.clone()).expect("create");
                file.write_all(text.as_bytes()).expect("write");
                assert_ne!(fs::read(&target).ok().as_deref(), Some(text.as_bytes()));
                file.commit().expect("commit");
                assert_eq!(fs::read(&target).expect("read"), text.as_bytes());
                assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1);
            }
        }
    }

    #[test]
    fn a_file_that_cannot_be_named_is_copied() {
        let folder = tempfile::tempdir().expect("tempdir");
        let target = folder.path().join("a");
        fs::write(&target, "old").expect("write");
        let mut file = AtomicFile::create(&target).expect("create");
        file.write_all(b"new").expect("write");
        file.commit_by(|_, _| Err(io::ErrorKind::PermissionDenied.into())).expect("commit");
        assert_eq!(fs::read(&target).expect("read"), b"new");
        assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_the_umask_lets_them() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("tempdir");
        let mode = |path: &Path| fs::metadata(path).expect("file").permissions().mode();
        fs::write(folder.path().join("plain"), "").expect("write");
        for create in WAYS {
            create(folder.path().join("a")).expect("create").commit().expect("commit");
            assert_eq!(mode(&folder.path().join("a")), mode(&folder.path().join("plain")));
        }
    }
}
