//! An encoding under way, kept on disk so that it can go on after an interruption.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::layers::{LayerSource, MadeLayers};
use super::source::Source;
use super::{Codebook, CodecOptions, EncodeOptions, Skipped, skipped_report};
use crate::error::{Error, Result};
use crate::format::atomic::{self, AtomicFile};
use crate::format::checksum::{Digest, crc32c, to_hex};
use crate::format::writer::CodingSpec;
use crate::geometry::Geometry;

/// The folder `OUT.qvq.partial` beside the archive that is being made.
///
/// In it are the archive as far as it is written, the codebook, and a journal: lines of JSON, each of which says what
/// was on disk before the line was written. Whoever goes on takes the rows that the journal vouches for and makes the
/// rest anew, so that the archive ends in the same bytes. The journal is locked while an encoding runs.
#[derive(Debug)]
pub(super) struct Checkpoint {
    folder: PathBuf,
    output: PathBuf,
    journal: File,
    made: Option<Made>,
    /// What an earlier encoding did, each with where its line begins in the journal.
    done: Vec<(u64, Progressed)>,
    /// How much time's work may be lost, and what is not worth keeping.
    every: Duration,
    saved: Instant,
    /// Whether the folder stays behind.
    kept: bool,
}

/// What images are encoded with, and what came of making it.
#[derive(Debug)]
pub(super) enum Made {
    Vq {
        codebook: Vec<u8>,
        /// See [`EncodeSummary`](super::EncodeSummary).
        uniform_cells: Option<usize>,
    },
    Layers(MadeLayers),
}

impl Made {
    /// What the archive is to be decoded with.
    pub fn coding(&self) -> CodingSpec {
        match self {
            Made::Vq { codebook, .. } => CodingSpec::Vq { codebook: codebook.clone(), index_width: None },
            Made::Layers(made) => CodingSpec::Layers(made.books.clone()),
        }
    }

    /// Codewords of all codebooks.
    pub fn codewords(&self, geometry: &Geometry) -> usize {
        match self {
            Made::Vq { codebook, .. } => codebook.len() / geometry.codeword_len(),
            Made::Layers(made) => made.books.counts().tensors().sum(),
        }
    }

    /// Bytes of all codewords.
    pub fn byte_len(&self) -> usize {
        match self {
            Made::Vq { codebook, .. } => codebook.len(),
            Made::Layers(made) => made.books.byte_len(),
        }
    }

    /// See [`EncodeSummary`](super::EncodeSummary).
    pub fn uniform_cells(&self) -> Option<usize> {
        match self {
            Made::Vq { uniform_cells, .. } => *uniform_cells,
            Made::Layers(_) => None,
        }
    }
}

/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
enum Line {
    /// What is made of what; first.
    Task(BTreeMap<String, String>),
    /// The codebook is there, of this many bytes with this CRC-32C.
    Codebook { len: usize, crc32c: u32, uniform_cells: Option<usize> },
    /// Codebooks of layers are there, likewise.
    Layers { len: usize, crc32c: u32 },
    /// More images are done.
    Progress(Progressed),
}

/// What became of some images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progressed {
    /// Images of the source that are done, these and all before.
    pub images: usize,
    /// Those that became samples.
    pub samples: Vec<Sample>,
    /// Those that were left out.
    pub skipped: Vec<Skipped>,
}

/// A sample whose row is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sample {
    /// Its number in the source.
    pub image: usize,
    /// The sum of its squared errors.
    pub squared_error: u64,
    /// Bytes of its row.
    pub len: usize,
    /// The CRC-32C of its row.
    pub crc32c: u32,
    /// Its label.
    pub label: Option<i64>,
    /// Its caption.
    pub caption: Option<String>,
}

/// The file that `output` stands for, its name with an ending.
pub(super) fn beside(output: &Path, ending: &str) -> PathBuf {
    let output = output.canonicalize().unwrap_or(output.to_path_buf());
    let mut name = output.file_name().unwrap_or_default().to_os_string();
    name.push(ending);
    output.with_file_name(name)
}

/// Where an encoding to `output` keeps what is done while it runs, and afterwards if it was interrupted:
/// `OUT.qvq.partial`.
pub fn partial_folder(output: &Path) -> PathBuf {
    beside(output, ".partial")
}

impl Checkpoint {
    /// Begins an encoding to `output`, or goes on with one if `options` say so and there is one. What takes less time
    /// than [`EncodeOptions::save_every`] leaves nothing behind when it fails.
    ///
    /// # Errors
    /// [`Error::Io`] if `output` cannot be written or another process does it; [`Error::Unfinished`] if there is an
    /// encoding to go on with and `options` do not say so; [`Error::Argument`] if it is one of something else.
    pub fn open(source: &dyn Source, output: &Path, options: &EncodeOptions) -> Result<Self> {
        if options.resume && !source.is_lasting() {
            let (found, expected) = ("true".into(), "false for images that can be read only once".into());
            return Err(Error::Argument { argument: "resume", found, expected });
        }
        let every = if source.is_lasting() { options.save_every } else { Duration::MAX };
        let output = atomic::checked(output.to_path_buf())?;
        // What is written beside it must be possible, too.
        atomic::checked(skipped_report(&output))?;
        let folder = partial_folder(&output);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::Io { action: "create a folder beside", path: output, source: error });
            }
            _ => (),
        }
        let path = folder.join("journal");
        let in_the_way = |source: &str| Error::Io {
            action: "write",
            path: folder.clone(),
            source: io::Error::other(source.to_string()),
        };
        // A folder of somebody else's stays as it is.
        let is_empty = fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_none());
        if !is_empty && !path.is_file() {
            return Err(in_the_way("it is there already and not an interrupted encoding; move it away"));
        }
        let journal = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let journal = journal.map_err(Error::io("open", &path))?;
        if let Err(TryLockError::WouldBlock) = journal.try_lock() {
            let source = io::Error::other("another process is encoding to it");
            return Err(Error::Io { action: "write", path: output, source });
        }
        if !path.exists() {
            return Err(in_the_way("another process has just ended with it; try again"));
        }
        let now = Instant::now();
        let (made, done) = (None, Vec::new());
        let mut new = Self { folder, output, journal, made, done, every, saved: now, kept: true };
        let task = task(source, options);
        let found = new.read_journal()?;
        if found.is_empty() && new.journal.metadata().is_ok_and(|journal| journal.len() > 0) {
            let source = io::Error::other("it is no journal of an encoding; move it away");
            return Err(Error::Io { action: "write", path, source });
        }
        if new.made.is_some() {
            if !options.resume {
                let images = new.done.last().map_or(0, |(_, progress)| progress.images);
                return Err(Error::Unfinished { path: new.folder.clone(), images, of: source.len() });
            }
            if let Some((key, value)) = found.iter().find(|&(key, value)| task.get(key) != Some(value)) {
                return Err(Error::Argument {
                    argument: "encoding to go on with",
                    found: format!("one with {key} = {value} in {}", new.folder.display()),
                    expected: format!("{key} = {}; delete that folder to begin anew", task.get(key).map_or("", |v| v)),
                });
            }
        } else {
            new.kept = false;
            new.journal.set_len(0).map_err(Error::io("write", &path))?;
            new.note(&Line::Task(task))?;
        }
        Ok(new)
    }

    /// What the journal was begun for; takes in the rest as far as it is whole, and cuts off what is not.
    fn read_journal(&mut self) -> Result<BTreeMap<String, String>> {
        let mut task = BTreeMap::new();
        let mut good = 0;
        let mut line = Vec::new();
        let mut reader = BufReader::new(&self.journal);
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(Error::io("read", &self.folder))?;
            if !line.ends_with(b"\n") {
                break;
            }
            match serde_json::from_slice(&line) {
                Ok(Line::Task(found)) if good == 0 => task = found,
                Ok(Line::Codebook { len, crc32c: checksum, uniform_cells }) if good > 0 && self.made.is_none() => {
                    let Some(codebook) = self.read_codebook(len, checksum) else { break };
                    self.made = Some(Made::Vq { codebook, uniform_cells });
                }
                Ok(Line::Layers { len, crc32c: checksum }) if good > 0 && self.made.is_none() => {
                    let made = self.read_codebook(len, checksum).and_then(|json| serde_json::from_slice(&json).ok());
                    let Some(made) = made else { break };
                    self.made = Some(Made::Layers(made));
                }
                Ok(Line::Progress(progress)) if self.made.is_some() && self.follows(&progress) => {
                    self.done.push((good, progress));
                }
                _ => break,
            }
            good += read as u64;
        }
        // What was never a journal is left alone.
        if good > 0 {
            self.journal.set_len(good).map_err(Error::io("write", &self.folder))?;
        }
        Ok(task)
    }

    /// The file of the codebook, if it is what it was.
    fn read_codebook(&self, len: usize, checksum: u32) -> Option<Vec<u8>> {
        let codebook = fs::read(self.folder.join("codebook")).ok()?;
        (codebook.len() == len && crc32c(&codebook) == checksum).then_some(codebook)
    }

    /// Whether a line tells of images behind those of the line before, each once and in order.
    fn follows(&self, progress: &Progressed) -> bool {
        let from = self.done.last().map_or(0, |(_, before)| before.images);
        let within = |numbers: &[usize]| {
            numbers.is_sorted_by(|a, b| a < b) && numbers.iter().all(|n| (from..progress.images).contains(n))
        };
        let samples: Vec<usize> = progress.samples.iter().map(|sample| sample.image).collect();
        let skipped: Vec<usize> = progress.skipped.iter().map(|skipped| skipped.index).collect();
        from <= progress.images
            && samples.len() + skipped.len() == progress.images - from
            && within(&samples)
            && within(&skipped)
    }

    /// The codebook, if an earlier encoding came so far.
    pub fn codebook(&mut self) -> Option<Made> {
        self.made.take()
    }

    /// Keeps the codebook.
    pub fn save_codebook(&mut self, made: &Made) -> Result<()> {
        let path = self.folder.join("codebook");
        let bytes: Cow<[u8]> = match made {
            Made::Vq { codebook, .. } => codebook.into(),
            Made::Layers(made) => serde_json::to_vec(made).map_err(|e| Error::io("write", &path)(e.into()))?.into(),
        };
        // Whole or not: the journal tells by the checksum.
        let written = File::create(&path).and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
        written.map_err(Error::io("write", &path))?;
        let (len, crc32c) = (bytes.len(), crc32c(&bytes));
        self.note(&match made {
            Made::Vq { uniform_cells, .. } => Line::Codebook { len, crc32c, uniform_cells: *uniform_cells },
            Made::Layers(_) => Line::Layers { len, crc32c },
        })?;
        self.saved = Instant::now();
        self.kept = true;
        Ok(())
    }

    /// The archive in the making; committing it moves it to its path.
    pub fn archive(&self) -> Result<AtomicFile> {
        let path = self.folder.join("archive");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        AtomicFile::proceed(file.map_err(Error::io("open", &path))?, &path, self.output.clone())
    }

    /// What an earlier encoding did, each with what [`forget_from`](Self::forget_from) takes.
    pub fn done(&mut self) -> Vec<(u64, Progressed)> {
        std::mem::take(&mut self.done)
    }

    /// Forgets a part of what was done, and all behind it.
    pub fn forget_from(&mut self, place: u64) -> Result<()> {
        self.journal.set_len(place).map_err(Error::io("write", self.folder.join("journal")))
    }

    /// Whether so much time went by that what was done should be saved.
    pub fn is_due(&self) -> bool {
        self.saved.elapsed() >= self.every
    }

    /// Whether there is something on disk to go on with.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// Notes that images are done; the rows of their samples must be on disk.
    pub fn save(&mut self, progress: Progressed) -> Result<()> {
        self.note(&Line::Progress(progress))?;
        self.saved = Instant::now();
        Ok(())
    }

    /// Forgets all, as the archive is at its path or nothing can go on.
    pub fn discard(&mut self) {
        self.kept = false;
    }

    fn note(&mut self, line: &Line) -> Result<()> {
        let failed = Error::io("write", self.folder.join("journal"));
        let write = |journal: &mut File| {
            let mut bytes = serde_json::to_vec(line)?;
            bytes.push(b'\n');
            journal.seek(SeekFrom::End(0))?;
            journal.write_all(&bytes)?;
            journal.sync_data()
        };
        write(&mut self.journal).map_err(failed)
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed does no harm: the next encoding begins anew in it.
            for name in ["archive", "codebook", "journal"] {
                let _ = fs::remove_file(self.folder.join(name));
            }
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

/// All that the bytes of an archive depend on, the pixels of the images aside.
fn task(source: &dyn Source, options: &EncodeOptions) -> BTreeMap<String, String> {
    let pair = |(a, b): (u32, u32)| format!("{a}x{b}");
    let patch = match options.codec {
        CodecOptions::Vq => pair(options.patch),
        CodecOptions::Layers(_) => String::new(),
    };
    let given = |codebook: &[u8]| format!("{} bytes with CRC-32C {}", codebook.len(), to_hex(crc32c(codebook)));
    let codebook = match (&options.codec, &options.codebook) {
        (CodecOptions::Layers(layers), _) => match &layers.books {
            LayerSource::Train => "layers".into(),
            LayerSource::Builtin => "builtin layers".into(),
            LayerSource::Given(books) => format!("layers of {}", given(&serde_json::to_vec(books).unwrap_or_default())),
        },
        (CodecOptions::Vq, Codebook::Train(codewords)) => format!("at most {codewords} codewords"),
        (CodecOptions::Vq, Codebook::MaxError(bound)) => format!("no error above {bound}"),
        (CodecOptions::Vq, Codebook::Given(codebook)) => given(codebook),
    };
    let [mut names, mut labels] = [(); 2].map(|()| Digest::default());
    for image in 0..source.len() {
        let (name, label) = (source.name(image), source.label(image));
        for bytes in [&name.len().to_le_bytes()[..], name.as_bytes()] {
            names.update(bytes);
        }
        labels.update(&label.unwrap_or(-1).to_le_bytes());
    }
    let classes = source.classes().map_or(String::new(), |classes| format!("{classes:?}"));
    let task = [
        ("encoder", concat!("kuat ", env!("CARGO_PKG_VERSION")).to_string()),
        ("images", source.len().to_string()),
        ("names of the images", to_hex(names.finish())),
        ("labels of the images", to_hex(labels.finish())),
        ("classes", classes),
        ("size", pair(options.image_size)),
        ("channels", options.channels.to_string()),
        ("patch", patch),
        ("codebook", codebook),
        ("on_error", options.on_error.to_string()),
    ];
    task.into_iter().map(|(key, value)| (key.to_string(), value)).chain(super::recorded(options)).collect()
}
