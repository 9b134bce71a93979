//! Writing an archive sample by sample.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::json;

use super::atomic::AtomicFile;
use super::checksum::{self, crc32c};
use super::container::LENGTH_PREFIX;
use super::index::IndexWidth;
use super::vq::Vq;
use super::{FORMAT, MAX_CODEWORDS, MAX_PSNR_DB, VERSION, key, tensor};
use crate::error::{Error, Result};
use crate::geometry::Geometry;

/// What an archive holds beside its samples.
#[derive(Debug, Clone)]
pub struct ArchiveSpec {
    /// Image and patch sizes.
    pub geometry: Geometry,
    /// 1 to 2^25 codewords, each patch height x patch width x channels values.
    pub codebook: Vec<u8>,
    /// The width of indices; `None` for the narrowest that fits the codebook.
    pub index_width: Option<IndexWidth>,
    /// Whether samples have labels.
    pub labels: bool,
    /// Whether samples have captions.
    pub captions: bool,
    /// Whether the PSNR of each sample is recorded.
    pub psnr: bool,
    /// Names of the labels 0, 1, ...
    pub classes: Option<Vec<String>>,
    /// How many samples will probably be written. A wrong number costs one more pass over the index rows.
    pub samples: usize,
    /// What makes the archive, for its readers.
    pub encoder: String,
    /// Further metadata. Keys of the format's own win.
    pub metadata: BTreeMap<String, String>,
}

impl ArchiveSpec {
    /// A specification without labels, captions, PSNR and classes.
    pub fn new(geometry: Geometry, codebook: Vec<u8>) -> Self {
        Self {
            geometry,
            codebook,
            index_width: None,
            labels: false,
            captions: false,
            psnr: false,
            classes: None,
            samples: 0,
            encoder: concat!("kuat ", env!("CARGO_PKG_VERSION")).into(),
            metadata: BTreeMap::new(),
        }
    }
}

/// What is stored of a sample beside its indices.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SampleInfo<'a> {
    /// Its label; `None` is stored as -1. Dropped if the specification has no labels.
    pub label: Option<i64>,
    /// Its caption; `None` is stored as an empty one. Dropped if the specification has no captions.
    pub caption: Option<&'a str>,
    /// The PSNR in dB of the decoded image against the one that was encoded, [`MAX_PSNR_DB`](super::MAX_PSNR_DB) for an
    /// exact one. There must be one if the specification says so; dropped if not.
    pub psnr_db: Option<f32>,
}

/// What an archive is written to.
pub trait Storage: Read + Write + Seek {
    /// Cuts the stream to `len` bytes, or extends it.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
}

impl Storage for File {
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }
}

impl Storage for Cursor<Vec<u8>> {
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.get_mut().resize(len as usize, 0);
        Ok(())
    }
}

/// Writes an archive: [`push`](Self::push) each sample, then [`finish`](Self::finish).
///
/// Index rows go straight to the stream. Labels, checksums, PSNR and captions stay in memory until the end: 16 bytes
/// per sample, and 8 more and the text for captions.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    stream: W,
    spec: ArchiveSpec,
    index_width: IndexWidth,
    codewords: usize,
    header_end: u64,
    row: Vec<u8>,
    checksums: Vec<u32>,
    psnr: Vec<f32>,
    labels: Vec<i64>,
    caption_offsets: Vec<u64>,
    caption_bytes: Vec<u8>,
}

impl ArchiveWriter<AtomicFile> {
    /// Starts an archive that appears at `path` once [`finish_file`](Self::finish_file) has succeeded.
    pub fn create(path: impl AsRef<Path>, spec: ArchiveSpec) -> Result<Self> {
        Self::new(AtomicFile::create(path.as_ref())?, spec)
    }

    /// Brings the rows written so far to the disk.
    #[cfg(feature = "encode")]
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.stream.sync()
    }

    /// Finishes the archive, syncs it to disk and moves it to its path.
    pub fn finish_file(self, mean_psnr_db: Option<f64>) -> Result<()> {
        self.finish(mean_psnr_db)?.commit()
    }
}

impl Storage for AtomicFile {
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.resize(len)
    }
}

impl<W: Storage> ArchiveWriter<W> {
    /// Starts an archive at the beginning of an empty stream.
    ///
    /// # Errors
    /// [`Error::Argument`] if the codebook does not hold 1 to 2^25 whole codewords, or its size does not fit the
    /// index width; [`Error::Write`] if the stream fails.
    pub fn new(stream: W, spec: ArchiveSpec) -> Result<Self> {
        let codeword_len = spec.geometry.codeword_len();
        let codewords = spec.codebook.len() / codeword_len;
        if !spec.codebook.len().is_multiple_of(codeword_len) || !(1..=MAX_CODEWORDS).contains(&codewords) {
            return Err(Error::Argument {
                argument: "codebook",
                found: format!("{} bytes", spec.codebook.len()),
                expected: format!("1 to {MAX_CODEWORDS} codewords of {codeword_len} bytes"),
            });
        }
        let narrowest = IndexWidth::narrowest(codewords)?;
        let index_width = spec.index_width.unwrap_or(narrowest);
        if index_width < narrowest {
            return Err(Error::Argument {
                argument: "index width",
                found: format!("{} bits", index_width.bits()),
                expected: format!("at least {} bits for {codewords} codewords", narrowest.bits()),
            });
        }
        let mut writer = Self {
            header_end: 0,
            index_width,
            codewords,
            row: Vec::new(),
            checksums: Vec::with_capacity(spec.samples.min(1 << 24)),
            psnr: Vec::new(),
            labels: Vec::new(),
            caption_offsets: vec![0],
            caption_bytes: Vec::new(),
            spec,
            stream,
        };
        // The header comes first in the file and is known last: room for the longest it can become.
        let longest = writer.header(u64::MAX, Some(f64::MIN), &Checksums::default(), &[[u64::MAX; 2]; 7]).len();
        writer.header_end = ((LENGTH_PREFIX + longest) as u64).next_multiple_of(8);
        let rows_start = writer.rows_start(writer.spec.samples as u64);
        writer.stream.seek(SeekFrom::Start(rows_start)).map_err(Error::Write)?;
        Ok(writer)
    }

    /// The checksum of the last row.
    #[cfg(feature = "encode")]
    pub(crate) fn last_checksum(&self) -> u32 {
        self.checksums.last().copied().unwrap_or_default()
    }

    /// Samples written so far.
    pub fn samples(&self) -> usize {
        self.checksums.len()
    }

    /// Adds a sample: one index per patch, row by row, and what is stored beside them.
    ///
    /// # Errors
    /// [`Error::Argument`] if the number of indices is not the geometry's, an index is no codeword's, or the PSNR is
    /// missing or out of range; [`Error::Write`] if the stream fails.
    pub fn push(&mut self, indices: &[u32], info: SampleInfo) -> Result<()> {
        let patches = self.spec.geometry.patches();
        if indices.len() != patches {
            return Err(Error::Argument {
                argument: "number of indices",
                found: indices.len().to_string(),
                expected: format!("{patches}, one per patch"),
            });
        }
        if let Some(index) = indices.iter().find(|&&index| index as usize >= self.codewords) {
            return Err(Error::Argument {
                argument: "index",
                found: index.to_string(),
                expected: format!("below {}, the number of codewords", self.codewords),
            });
        }
        self.check_psnr(&info)?;
        self.row.clear();
        self.index_width.pack(indices, &mut self.row);
        self.stream.write_all(&self.row).map_err(Error::Write)?;
        self.record(crc32c(&self.row), info);
        Ok(())
    }

    /// Takes the next row as it lies in the stream already, written by an earlier writer of the same specification, if
    /// that is its CRC-32C. If it is not, nothing changes, and the row can be pushed.
    ///
    /// # Errors
    /// [`Error::Argument`] if the PSNR is missing or out of range; [`Error::Write`] if the stream fails.
    #[cfg(feature = "encode")]
    pub(crate) fn adopt(&mut self, checksum: u32, info: SampleInfo) -> Result<bool> {
        self.check_psnr(&info)?;
        let row_len = self.index_width.row_len(self.spec.geometry.patches());
        let start = self.stream.stream_position().map_err(Error::Write)?;
        self.row.resize(row_len, 0);
        let read = self.stream.read_exact(&mut self.row);
        if read.is_ok() && crc32c(&self.row) == checksum {
            self.record(checksum, info);
            return Ok(true);
        }
        match read {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(Error::Write(error)),
            _ => self.stream.seek(SeekFrom::Start(start)).map(|_| false).map_err(Error::Write),
        }
    }

    fn check_psnr(&self, info: &SampleInfo) -> Result<()> {
        let valid = info.psnr_db.is_some_and(|psnr| (0.0..=MAX_PSNR_DB as f32).contains(&psnr));
        if valid || !self.spec.psnr {
            return Ok(());
        }
        Err(Error::Argument {
            argument: "PSNR of the sample",
            found: info.psnr_db.map_or("none".into(), |psnr| format!("{psnr} dB")),
            expected: format!("0 to {MAX_PSNR_DB} dB, as the specification says that it is recorded"),
        })
    }

    /// Notes what belongs to a row.
    fn record(&mut self, checksum: u32, info: SampleInfo) {
        self.checksums.push(checksum);
        if self.spec.labels {
            self.labels.push(info.label.unwrap_or(-1));
        }
        if self.spec.captions {
            self.caption_bytes.extend(info.caption.unwrap_or_default().bytes());
            self.caption_offsets.push(self.caption_bytes.len() as u64);
        }
        if self.spec.psnr {
            self.psnr.extend(info.psnr_db);
        }
    }

    /// Writes what is left and returns the stream, positioned at its end. `mean_psnr_db` is recorded if given.
    ///
    /// # Errors
    /// [`Error::Argument`] if that is no finite number; [`Error::Write`] if the stream fails.
    pub fn finish(mut self, mean_psnr_db: Option<f64>) -> Result<W> {
        if let Some(psnr) = mean_psnr_db.filter(|psnr| !psnr.is_finite()) {
            let (argument, found) = ("mean PSNR", psnr.to_string());
            return Err(Error::Argument { argument, found, expected: "a finite number of dB".into() });
        }
        let samples = self.samples() as u64;
        let row_len = self.index_width.row_len(self.spec.geometry.patches()) as u64;
        let rows = (self.rows_start(self.spec.samples as u64), self.rows_start(samples), samples * row_len);
        self.write_tensors(rows, mean_psnr_db).map_err(Error::Write)?;
        Ok(self.stream)
    }

    fn write_tensors(&mut self, rows: (u64, u64, u64), mean_psnr_db: Option<f64>) -> io::Result<()> {
        let (written_at, start, len) = rows;
        move_bytes(&mut self.stream, written_at, start, len)?;

        let (labels, offsets) = (le_bytes(&self.labels), le_bytes(&self.caption_offsets));
        let (checksums, psnr) = (le_bytes(&self.checksums), le_bytes(&self.psnr));
        let offsets = if self.spec.captions { offsets } else { Vec::new() };
        let crcs = Checksums {
            labels: crc32c(&labels),
            caption_offsets: crc32c(&offsets),
            checksums: crc32c(&checksums),
            psnr: crc32c(&psnr),
            codebook: crc32c(&self.spec.codebook),
            caption_bytes: crc32c(&self.caption_bytes),
        };
        let mut end = 0;
        let codebook_len = self.spec.codebook.len();
        let small = [&labels, &offsets, &checksums, &psnr];
        let [labels, offsets, checksums, psnr] = small.map(Vec::len);
        let lens = [labels, offsets, checksums, psnr, len as usize, codebook_len, self.caption_bytes.len()];
        let ranges = lens.map(|len| {
            let begin = end;
            end += len as u64;
            [begin, end]
        });

        self.stream.seek(SeekFrom::Start(start + len))?;
        self.stream.write_all(&self.spec.codebook)?;
        self.stream.write_all(&self.caption_bytes)?;
        self.stream.set_len(self.header_end + end)?;

        let mut header = self.header(self.samples() as u64, mean_psnr_db, &crcs, &ranges).into_bytes();
        header.resize(self.header_end as usize - LENGTH_PREFIX, b' ');
        if let Some(digits) = checksum::header_digits(&header) {
            let crc = checksum::header_crc32c(&header, &digits);
            header[digits].copy_from_slice(checksum::to_hex(crc).as_bytes());
        }
        self.stream.seek(SeekFrom::Start(0))?;
        self.stream.write_all(&(header.len() as u64).to_le_bytes())?;
        self.stream.write_all(&header)?;
        small.into_iter().try_for_each(|bytes| self.stream.write_all(bytes))?;
        self.stream.seek(SeekFrom::End(0))?;
        self.stream.flush()
    }

    /// Where the index rows begin in an archive of so many samples.
    fn rows_start(&self, samples: u64) -> u64 {
        let labels = if self.spec.labels { 8 * samples } else { 0 };
        let offsets = if self.spec.captions { 8 * (samples + 1) } else { 0 };
        let psnr = if self.spec.psnr { 4 * samples } else { 0 };
        self.header_end + labels + offsets + 4 * samples + psnr
    }

    /// The header's JSON. Tensors stand in the file in the order of `ranges`: larger elements first, so that each
    /// tensor starts aligned to its element size.
    fn header(&self, samples: u64, mean_psnr_db: Option<f64>, crcs: &Checksums, ranges: &[[u64; 2]; 7]) -> String {
        let geometry = &self.spec.geometry;
        let mut metadata = self.spec.metadata.clone();
        metadata.retain(|key, _| !key::ALL.contains(&key.as_str()) && !key.ends_with("_crc32c"));
        let mut set = |key: &str, value: String| metadata.insert(key.into(), value);
        set(key::FORMAT, FORMAT.into());
        set(key::VERSION, VERSION.into());
        set(key::CODEC, Vq::CODEC.into());
        set(key::IMAGE_WIDTH, geometry.image_width().to_string());
        set(key::IMAGE_HEIGHT, geometry.image_height().to_string());
        set(key::CHANNELS, geometry.channels().to_string());
        set(key::PATCH_WIDTH, geometry.patch_width().to_string());
        set(key::PATCH_HEIGHT, geometry.patch_height().to_string());
        set(key::INDEX_BITS, self.index_width.bits().to_string());
        set(key::SAMPLES, samples.to_string());
        set(key::ENCODER, self.spec.encoder.clone());
        set(key::HEADER_CRC32C, checksum::to_hex(0));
        if let Some(classes) = &self.spec.classes {
            set(key::CLASSES, json!(classes).to_string());
        }
        if let Some(psnr) = mean_psnr_db {
            // The longest number that the reserved room must hold is cut to a sane length, as no PSNR is longer.
            set(key::MEAN_PSNR_DB, format!("{:.4}", psnr.clamp(-1e9, 1e9)));
        }

        let [labels, offsets, checksums, psnr, indices, codebook, caption_bytes] = *ranges;
        let patch = [geometry.patch_height(), geometry.patch_width(), geometry.channels()].map(|side| side as u64);
        let grid = [geometry.grid_height() as u64, geometry.grid_width() as u64];
        let words = self.index_width.row_len(geometry.patches()) as u64 / 4;
        let (index_dtype, index_shape) = match self.index_width.bits() {
            8 => ("U8", vec![samples, grid[0], grid[1]]),
            16 => ("U16", vec![samples, grid[0], grid[1]]),
            32 => ("U32", vec![samples, grid[0], grid[1]]),
            _ => ("U32", vec![samples, words]),
        };
        let codebook_shape = vec![self.codewords as u64, patch[0], patch[1], patch[2]];
        let mut header = BTreeMap::new();
        let mut tensor = |name: &str, dtype: &str, shape: Vec<u64>, range: [u64; 2], crc: Option<u32>| {
            header.insert(name.to_string(), json!({ "dtype": dtype, "shape": shape, "data_offsets": range }));
            if let Some(crc) = crc {
                metadata.insert(checksum::tensor_key(name), checksum::to_hex(crc));
            }
        };
        if self.spec.labels {
            tensor(tensor::LABELS, "I64", vec![samples], labels, Some(crcs.labels));
        }
        if self.spec.captions {
            let bytes = caption_bytes[1] - caption_bytes[0];
            tensor(
                tensor::CAPTION_OFFSETS,
                "U64",
                vec![samples.saturating_add(1)],
                offsets,
                Some(crcs.caption_offsets),
            );
            tensor(tensor::CAPTION_BYTES, "U8", vec![bytes], caption_bytes, Some(crcs.caption_bytes));
        }
        tensor(tensor::CHECKSUMS, "U32", vec![samples], checksums, Some(crcs.checksums));
        if self.spec.psnr {
            tensor(tensor::PSNR, "F32", vec![samples], psnr, Some(crcs.psnr));
        }
        tensor(tensor::INDICES, index_dtype, index_shape, indices, None);
        tensor(tensor::CODEBOOK, "U8", codebook_shape, codebook, Some(crcs.codebook));
        header.insert("__metadata__".into(), json!(metadata));
        json!(header).to_string()
    }
}

/// CRC-32C of every tensor but `indices`.
#[derive(Default)]
struct Checksums {
    labels: u32,
    caption_offsets: u32,
    checksums: u32,
    psnr: u32,
    codebook: u32,
    caption_bytes: u32,
}

/// An array as little-endian bytes.
fn le_bytes<T: LittleEndian>(values: &[T]) -> Vec<u8> {
    values.iter().flat_map(|value| value.le_bytes()).collect()
}

trait LittleEndian {
    fn le_bytes(&self) -> impl IntoIterator<Item = u8>;
}

macro_rules! little_endian {
    ($($number:ty)*) => {$(
        impl LittleEndian for $number {
            fn le_bytes(&self) -> impl IntoIterator<Item = u8> {
                self.to_le_bytes()
            }
        }
    )*};
}
little_endian!(u32 u64 i64 f32);

/// Moves `len` bytes of a stream from one place to another that may overlap it.
fn move_bytes(stream: &mut (impl Read + Write + Seek), from: u64, to: u64, len: u64) -> io::Result<()> {
    if from == to {
        return Ok(());
    }
    let mut block = vec![0; 8 << 20];
    let mut moved = 0;
    while moved < len {
        let size = (len - moved).min(block.len() as u64);
        // Downwards the first block goes first, upwards the last, so that no byte is overwritten unread.
        let at = if to < from { moved } else { len - moved - size };
        let block = &mut block[..size as usize];
        stream.seek(SeekFrom::Start(from + at))?;
        stream.read_exact(block)?;
        stream.seek(SeekFrom::Start(to + at))?;
        stream.write_all(block)?;
        moved += size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_move_both_ways_across_themselves() {
        let original: Vec<u8> = (0..20_000_000u32).map(|i| (i ^ i >> 8) as u8).collect();
        for (from, to) in [(5, 3), (3, 5)] {
            let mut stream = Cursor::new(original.clone());
            move_bytes(&mut stream, from, to, 19_000_000).expect("move");
            let (from, to) = (from as usize, to as usize);
            assert!(stream.get_ref()[to..to + 19_000_000] == original[from..from + 19_000_000]);
        }
    }
}
