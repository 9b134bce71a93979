//! Where the bytes of an archive are: in memory, mapped into it, or in a file that is read piece by piece.

use std::borrow::Cow;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, Result};
use crate::output::named;
use crate::read_at::read_exact_at;

/// The bytes of an archive. Anything that is a slice of bytes holds some: a `Vec<u8>`, a `&[u8]`, a map of the caller's;
/// an implementation of one's own can fetch them from elsewhere.
pub trait Data: Send + Sync {
    /// How many bytes there are, the same at each call.
    fn len(&self) -> usize;

    /// Bytes, which lie within [`len`](Self::len); the same at each call.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::FileChanged`] if they cannot be had, or any error of an implementation's own.
    fn bytes(&self, range: Range<usize>) -> Result<Cow<'_, [u8]>>;

    /// Checks that all bytes are still there, as well as that can be told in less than a microsecond.
    ///
    /// # Errors
    /// [`Error::FileChanged`] if they are not.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Whether [`bytes`](Self::bytes) copies them, and does so better from several threads at a time.
    fn copies(&self) -> bool {
        false
    }

    /// Asks for bytes to be brought near, and does not wait for them.
    fn will_need(&self, range: Range<usize>) {
        let _ = range;
    }

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: AsRef<[u8]> + Send + Sync> Data for T {
    fn len(&self) -> usize {
        self.as_ref().len()
    }

    fn bytes(&self, range: Range<usize>) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(&self.as_ref()[range]))
    }
}

/// How the bytes of a file are got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// [`Map`](Self::Map) for files of local disks, [`Read`](Self::Read) for those of network and user-space file
    /// systems as far as the system tells them apart (Linux and macOS).
    #[default]
    Auto,
    /// The file is mapped into memory: nothing is copied.
    ///
    /// A file that was cut short is noticed at the next call. If it is cut, or its disk fails, while a call reads from
    /// it, the operating system ends the process (SIGBUS).
    Map,
    /// What is needed is read at each call: a copy more, and whatever happens to the file is an error.
    Read,
}

named!(Access, "access", "auto, map or read", Auto Map Read);

impl Access {
    /// The name that the command and Python know.
    pub fn name(self) -> &'static str {
        match self {
            Access::Auto => "auto",
            Access::Map => "map",
            Access::Read => "read",
        }
    }
}

/// A file that holds an archive.
#[derive(Debug)]
pub struct ArchiveFile {
    file: File,
    path: PathBuf,
    len: usize,
    /// `None` if it is read.
    map: Option<Mmap>,
}

impl ArchiveFile {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened or mapped, or is no regular file.
    pub fn open(path: impl Into<PathBuf>, access: Access) -> Result<Self> {
        let path = path.into();
        let irregular = || {
            let source = std::io::Error::other("it is not a regular file");
            Error::Io { action: "open", path: path.clone(), source }
        };
        // Before it is opened: that would wait for whoever writes to a named pipe.
        if !std::fs::metadata(&path).map_err(Error::io("open", &path))?.is_file() {
            return Err(irregular());
        }
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let metadata = file.metadata().map_err(Error::io("open", &path))?;
        if !metadata.is_file() {
            return Err(irregular());
        }
        let len = usize::try_from(metadata.len()).map_err(|_| Error::OutOfMemory { bytes: usize::MAX })?;
        let maps = match access {
            Access::Auto => !is_remote(&file),
            Access::Map => true,
            Access::Read => false,
        };
        // An empty file cannot be mapped everywhere.
        let map = if maps && len > 0 {
            // SAFETY: the map is read-only and private to this archive. Another process could still change the file
            // under it; all reads go through shared slices of plain bytes whose every value is valid, and no decision
            // on memory safety is taken twice on the same byte: the header and captions are copied out before they are
            // taken for text, offsets before they are checked, and indices are bounded by the decoders at each use.
            let map = unsafe { memmap2::MmapOptions::new().len(len).map(&file) };
            Some(map.map_err(Error::io("map into memory", &path))?)
        } else {
            None
        };
        Ok(Self { file, path, len, map })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is mapped into memory.
    pub fn is_mapped(&self) -> bool {
        self.map.is_some()
    }

    fn changed(&self, found: u64) -> Error {
        Error::FileChanged { path: self.path.clone(), found, expected: self.len as u64 }
    }
}

impl Data for ArchiveFile {
    fn len(&self) -> usize {
        self.len
    }

    fn bytes(&self, range: Range<usize>) -> Result<Cow<'_, [u8]>> {
        if let Some(map) = &self.map {
            return Ok(Cow::Borrowed(&map[range]));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(range.len()).map_err(|_| Error::OutOfMemory { bytes: range.len() })?;
        bytes.resize(range.len(), 0);
        match read_exact_at(&self.file, &mut bytes, range.start as u64) {
            Ok(()) => Ok(Cow::Owned(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(self.changed(self.file.metadata().map_or(0, |metadata| metadata.len())))
            }
            Err(error) => Err(Error::io("read", &self.path)(error)),
        }
    }

    fn check(&self) -> Result<()> {
        // What is read finds out by itself.
        if self.map.is_none() {
            return Ok(());
        }
        let found = self.file.metadata().map_err(Error::io("look at", &self.path))?.len();
        if found < self.len as u64 { Err(self.changed(found)) } else { Ok(()) }
    }

    fn copies(&self) -> bool {
        self.map.is_none()
    }

    fn will_need(&self, range: Range<usize>) {
        // What is not read now is read when it is used.
        #[cfg(unix)]
        if let Some(map) = &self.map {
            let _ = map.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
            return;
        }
        advise(&self.file, range);
    }
}

#[cfg(target_os = "linux")]
fn advise(file: &File, range: Range<usize>) {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open for as long as `file` is, and the call touches no memory of ours.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), range.start as i64, range.len() as i64, libc::POSIX_FADV_WILLNEED) };
}

#[cfg(not(target_os = "linux"))]
fn advise(_: &File, _: Range<usize>) {}

/// Whether a file's system can lose touch with its disk: reads then fail, and reads through a map end the process.
#[cfg(target_os = "linux")]
fn is_remote(file: &File) -> bool {
    use std::os::fd::AsRawFd;
    // From the kernel's linux/magic.h and fs/: NFS, SMB (three generations), 9P, AFS (two), Ceph, Coda, Lustre, GPFS,
    // OrangeFS, and FUSE, behind which are sshfs, the mounts of object stores, GlusterFS.
    const REMOTE: [u32; 13] = [
        0x6969,
        0x517b,
        0xff53_4d42,
        0xfe53_4d42,
        0x0102_1997,
        0x5346_414f,
        0x6b41_4653,
        0x00c3_6400,
        0x7375_7245,
        0x0bd0_0bd0,
        0x4750_4653,
        0x2003_0528,
        0x6573_5546,
    ];
    // SAFETY: a `statfs` is plain integers, for which zeros are valid.
    let mut system: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open for as long as `file` is; `system` is ours.
    let told = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut system) } == 0;
    told && REMOTE.contains(&(system.f_type as u32))
}

#[cfg(target_os = "macos")]
fn is_remote(file: &File) -> bool {
    use std::os::fd::AsRawFd;
    // SAFETY: a `statfs` is plain integers and arrays of them, for which zeros are valid.
    let mut system: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open for as long as `file` is; `system` is ours.
    let told = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut system) } == 0;
    told && system.f_flags & libc::MNT_LOCAL as u32 == 0
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn is_remote(_: &File) -> bool {
    false
}
