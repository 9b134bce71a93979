//! Writing an archive sample by sample.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::json;

use super::atomic::AtomicFile;
use super::books::{self, LayerBooks};
use super::checksum::{self, crc32c};
use super::codec::Codec;
use super::container::{self, LENGTH_PREFIX};
use super::index::IndexWidth;
use super::layers::{self, WORD};
use super::record::{self, RecordShape};
use super::{FORMAT, MAX_CODEWORDS, MAX_PSNR_DB, VERSION, key, tensor};
use crate::error::{Error, Result};
use crate::geometry::Geometry;

/// What an archive holds beside its samples.
#[derive(Debug, Clone)]
pub struct ArchiveSpec {
    /// Image and patch sizes.
    pub geometry: Geometry,
    /// What rows are made of, and what it takes to decode them.
    pub coding: CodingSpec,
    /// Whether samples have labels.
    pub labels: bool,
    /// Whether samples have captions.
    pub captions: bool,
    /// Whether the PSNR of each sample is recorded.
    pub psnr: bool,
    /// Names of the labels 0, 1, ...
    pub classes: Option<Vec<String>>,
    /// The most by which a value of a decoded image differs from the image that was encoded, if it is bounded.
    pub max_error: Option<u8>,
    /// How many samples will probably be written. A wrong number costs one more pass over the rows.
    pub samples: usize,
    /// What makes the archive, for its readers.
    pub encoder: String,
    /// Further metadata. Keys of the format's own win.
    pub metadata: BTreeMap<String, String>,
}

/// What depends on the codec.
#[derive(Debug, Clone)]
pub enum CodingSpec {
    /// For the codec "vq".
    Vq {
        /// 1 to 2^25 codewords, each patch height x patch width x channels values.
        codebook: Vec<u8>,
        /// The width of indices; `None` for the narrowest that fits the codebook.
        index_width: Option<IndexWidth>,
    },
    /// For the codec "layers"; the geometry's patches are its blocks of 8x8 pixels.
    Layers(LayerBooks),
}

impl ArchiveSpec {
    /// A specification of the codec "vq" without labels, captions, PSNR and classes.
    pub fn new(geometry: Geometry, codebook: Vec<u8>) -> Self {
        Self::with_coding(geometry, CodingSpec::Vq { codebook, index_width: None })
    }

    /// A specification of any codec without labels, captions, PSNR and classes.
    pub fn with_coding(geometry: Geometry, coding: CodingSpec) -> Self {
        Self {
            geometry,
            coding,
            labels: false,
            captions: false,
            psnr: false,
            classes: None,
            max_error: None,
            samples: 0,
            encoder: concat!("kuat ", env!("CARGO_PKG_VERSION")).into(),
            metadata: BTreeMap::new(),
        }
    }
}

/// What is stored of a sample beside its row.
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

/// Writes an archive: [`push`](Self::push) or [`push_record`](Self::push_record) each sample, then
/// [`finish`](Self::finish).
///
/// Rows go straight to the stream. Labels, checksums, PSNR and captions stay in memory until the end: 16 bytes per
/// sample, 8 more for records, and 8 more and the text for captions.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    stream: W,
    contents: Contents,
}

/// What an archive holds beside the rows that are in the stream.
#[derive(Debug)]
struct Contents {
    spec: ArchiveSpec,
    rows: Rows,
    header_end: u64,
    checksums: Vec<u32>,
    psnr: Vec<f32>,
    labels: Vec<i64>,
    caption_offsets: Vec<u64>,
    caption_bytes: Vec<u8>,
}

/// What rows are, and where they end.
#[derive(Debug)]
enum Rows {
    Vq {
        index_width: IndexWidth,
        codewords: usize,
    },
    /// Where records begin and the last one ends, in words.
    Layers {
        offsets: Vec<u64>,
        shape: RecordShape,
        tensors: Vec<(String, Vec<u64>, Vec<u8>)>,
    },
}

impl Rows {
    fn new(spec: &ArchiveSpec) -> Result<Self> {
        match &spec.coding {
            CodingSpec::Vq { codebook, index_width } => {
                let codeword_len = spec.geometry.codeword_len();
                let codewords = codebook.len() / codeword_len;
                if !codebook.len().is_multiple_of(codeword_len) || !(1..=MAX_CODEWORDS).contains(&codewords) {
                    return Err(Error::Argument {
                        argument: "codebook",
                        found: format!("{} bytes", codebook.len()),
                        expected: format!("1 to {MAX_CODEWORDS} codewords of {codeword_len} bytes"),
                    });
                }
                let narrowest = IndexWidth::narrowest(codewords)?;
                let index_width = index_width.unwrap_or(narrowest);
                if index_width < narrowest {
                    return Err(Error::Argument {
                        argument: "index width",
                        found: format!("{} bits", index_width.bits()),
                        expected: format!("at least {} bits for {codewords} codewords", narrowest.bits()),
                    });
                }
                Ok(Self::Vq { index_width, codewords })
            }
            CodingSpec::Layers(books) => {
                layers::check_block(&spec.geometry)?;
                books.check()?;
                let expected = if books.chroma.is_some() { 3 } else { 1 };
                if spec.geometry.channels() != expected {
                    return Err(Error::Argument {
                        argument: "channels",
                        found: spec.geometry.channels().to_string(),
                        expected: format!("{expected}, as the codebooks of layers have"),
                    });
                }
                let shape = RecordShape::new(&spec.geometry, books)?;
                Ok(Self::Layers { offsets: vec![0], shape, tensors: books.named_tensors() })
            }
        }
    }

    fn codec(&self) -> Codec {
        match self {
            Self::Vq { .. } => Codec::Vq,
            Self::Layers { .. } => Codec::Layers,
        }
    }
}

/// A tensor of the archive to be.
struct Tensor<'a> {
    name: &'a str,
    dtype: &'a str,
    shape: Vec<u64>,
    /// `None` for the rows, which are in the stream already.
    bytes: Option<Cow<'a, [u8]>>,
}

impl Tensor<'_> {
    /// Its size in the file; the largest number if it does not fit in 64 bits.
    fn len(&self) -> u64 {
        container::byte_len(self.dtype, &self.shape).unwrap_or(u64::MAX)
    }
}

/// How much an archive holds.
#[derive(Clone, Copy)]
struct Count {
    samples: u64,
    /// Words of all records.
    words: u64,
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
    /// [`Error::Argument`] if the codebook does not hold 1 to 2^25 whole codewords, its size does not fit the index
    /// width; [`Error::Geometry`], [`Error::Layers`] or [`Error::Argument`] if patches, channels or codebooks are not those
    /// of layers; [`Error::Write`] if the stream fails.
    pub fn new(mut stream: W, spec: ArchiveSpec) -> Result<Self> {
        let mut contents = Contents {
            header_end: 0,
            rows: Rows::new(&spec)?,
            checksums: Vec::with_capacity(spec.samples.min(1 << 24)),
            psnr: Vec::new(),
            labels: Vec::new(),
            caption_offsets: vec![0],
            caption_bytes: Vec::new(),
            spec,
        };
        // The header comes first in the file and is known last: room for the longest it can become.
        let most = Count { samples: u64::MAX, words: u64::MAX };
        let tensors: Vec<Laid> =
            contents.tensors(most, false).into_iter().map(|tensor| (tensor, [u64::MAX; 2])).collect();
        let longest = contents.header(most.samples, Some(f64::MIN), &tensors).len();
        drop(tensors);
        contents.header_end = ((LENGTH_PREFIX + longest) as u64).next_multiple_of(8);
        let rows_start = contents.rows_start(contents.spec.samples as u64);
        stream.seek(SeekFrom::Start(rows_start)).map_err(Error::Write)?;
        Ok(Self { stream, contents })
    }

    /// The checksum of the last row.
    #[cfg(feature = "encode")]
    pub(crate) fn last_checksum(&self) -> u32 {
        self.contents.checksums.last().copied().unwrap_or_default()
    }

    /// Samples written so far.
    pub fn samples(&self) -> usize {
        self.contents.checksums.len()
    }

    /// Adds a sample of the codec "vq": one index per patch, row by row, and what is stored beside them.
    ///
    /// # Errors
    /// [`Error::Argument`] if the number of indices is not the geometry's, an index is no codeword's, or the PSNR is
    /// missing or out of range; [`Error::OtherCodec`] if the specification is not of the codec "vq"; [`Error::Write`]
    /// if the stream fails.
    pub fn push(&mut self, indices: &[u32], info: SampleInfo) -> Result<()> {
        let Rows::Vq { index_width, codewords } = self.contents.rows else {
            return Err(Error::OtherCodec { found: self.contents.rows.codec(), expected: Codec::Vq });
        };
        let patches = self.contents.spec.geometry.patches();
        if indices.len() != patches {
            return Err(Error::Argument {
                argument: "number of indices",
                found: indices.len().to_string(),
                expected: format!("{patches}, one per patch"),
            });
        }
        if let Some(index) = indices.iter().find(|&&index| index as usize >= codewords) {
            return Err(Error::Argument {
                argument: "index",
                found: index.to_string(),
                expected: format!("below {codewords}, the number of codewords"),
            });
        }
        let mut row = Vec::with_capacity(index_width.row_len(patches));
        index_width.pack(indices, &mut row);
        self.push_row(&row, info)
    }

    /// Adds a sample of the codec "layers": its finished record, and what is stored beside it.
    ///
    /// # Errors
    /// [`Error::Argument`] if it is no record of these codebooks, or the PSNR is missing or out of range;
    /// [`Error::OtherCodec`] if the specification is of another codec; [`Error::Write`] if the stream fails.
    pub fn push_record(&mut self, record: &[u8], info: SampleInfo) -> Result<()> {
        let (Rows::Layers { shape, .. }, CodingSpec::Layers(books)) = (&self.contents.rows, &self.contents.spec.coding)
        else {
            return Err(Error::OtherCodec { found: self.contents.rows.codec(), expected: Codec::Layers });
        };
        match record::check(shape, &books.counts(), record, |&count| count) {
            None => self.push_row(record, info),
            Some(found) => {
                let expected = "a record as the format describes it".into();
                Err(Error::Argument { argument: "record", found, expected })
            }
        }
    }

    /// Adds a sample: its row as it is stored, and what is stored beside it. Whether indices are codewords' is the
    /// caller's to know.
    ///
    /// # Errors
    /// [`Error::Argument`] if the row is of a length that it cannot have, or the PSNR is missing or out of range;
    /// [`Error::Write`] if the stream fails.
    pub(crate) fn push_row(&mut self, row: &[u8], info: SampleInfo) -> Result<()> {
        self.contents.check_row_len(row.len())?;
        self.contents.check_psnr(&info)?;
        self.stream.write_all(row).map_err(Error::Write)?;
        self.contents.record(row.len(), crc32c(row), info);
        Ok(())
    }

    /// Takes the next row as it lies in the stream already, written by an earlier writer of the same specification, if
    /// it has this length and CRC-32C. If it has not, nothing changes, and the row can be pushed.
    ///
    /// # Errors
    /// [`Error::Argument`] if the PSNR is missing or out of range; [`Error::Write`] if the stream fails.
    #[cfg(feature = "encode")]
    pub(crate) fn adopt(&mut self, len: usize, checksum: u32, info: SampleInfo) -> Result<bool> {
        self.contents.check_psnr(&info)?;
        if self.contents.check_row_len(len).is_err() {
            return Ok(false);
        }
        let start = self.stream.stream_position().map_err(Error::Write)?;
        // As much memory as there is to read: the length is a journal's.
        let mut row = Vec::new();
        Read::by_ref(&mut self.stream).take(len as u64).read_to_end(&mut row).map_err(Error::Write)?;
        if row.len() == len && crc32c(&row) == checksum {
            self.contents.record(len, checksum, info);
            return Ok(true);
        }
        self.stream.seek(SeekFrom::Start(start)).map(|_| false).map_err(Error::Write)
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
        self.write_tensors(mean_psnr_db).map_err(Error::Write)?;
        Ok(self.stream)
    }

    fn write_tensors(&mut self, mean_psnr_db: Option<f64>) -> io::Result<()> {
        let samples = self.samples() as u64;
        let (written_at, start) =
            (self.contents.rows_start(self.contents.spec.samples as u64), self.contents.rows_start(samples));
        let words = match &self.contents.rows {
            Rows::Layers { offsets, .. } => offsets.last().copied().unwrap_or_default(),
            Rows::Vq { .. } => 0,
        };
        let mut end = 0;
        let mut tensors: Vec<Laid> = Vec::new();
        for tensor in self.contents.tensors(Count { samples, words }, true) {
            let begin = end;
            end += tensor.len();
            tensors.push((tensor, [begin, end]));
        }
        let mut header = self.contents.header(samples, mean_psnr_db, &tensors).into_bytes();
        header.resize(self.contents.header_end as usize - LENGTH_PREFIX, b' ');
        if let Some(digits) = checksum::header_digits(&header) {
            let crc = checksum::header_crc32c(&header, &digits);
            header[digits].copy_from_slice(checksum::to_hex(crc).as_bytes());
        }

        let stream = &mut self.stream;
        let rows_len = tensors.iter().find(|(tensor, _)| tensor.bytes.is_none()).map_or(0, |(tensor, _)| tensor.len());
        move_bytes(stream, written_at, start, rows_len)?;
        stream.set_len(self.contents.header_end + end)?;
        stream.seek(SeekFrom::Start(0))?;
        stream.write_all(&(header.len() as u64).to_le_bytes())?;
        stream.write_all(&header)?;
        for (tensor, _) in &tensors {
            match &tensor.bytes {
                Some(bytes) => stream.write_all(bytes)?,
                None => drop(stream.seek(SeekFrom::Start(start + rows_len))?),
            }
        }
        stream.seek(SeekFrom::End(0))?;
        stream.flush()
    }
}

impl Contents {
    fn check_row_len(&self, len: usize) -> Result<()> {
        let (valid, expected) = match self.rows {
            Rows::Vq { index_width, .. } => {
                let row_len = index_width.row_len(self.spec.geometry.patches());
                (len == row_len, format!("{row_len} bytes"))
            }
            Rows::Layers { ref shape, .. } => {
                let (shortest, longest) = shape.record_lens();
                let valid = (shortest..=longest).contains(&len) && len.is_multiple_of(WORD);
                (valid, format!("{shortest} to {longest} bytes in whole words"))
            }
        };
        if valid {
            return Ok(());
        }
        Err(Error::Argument { argument: "row", found: format!("{len} bytes"), expected })
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
    fn record(&mut self, len: usize, checksum: u32, info: SampleInfo) {
        if let Rows::Layers { offsets, .. } = &mut self.rows {
            offsets.extend(offsets.last().map(|begin| begin + (len / WORD) as u64));
        }
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

    /// Where the rows begin in an archive of so many samples.
    fn rows_start(&self, samples: u64) -> u64 {
        let tensors = self.tensors(Count { samples, words: 0 }, false);
        let before = tensors.iter().take_while(|tensor| tensor.name != self.rows.codec().rows());
        self.header_end + before.map(Tensor::len).sum::<u64>()
    }

    /// The tensors of an archive that holds so much, in the order of the file: larger elements first, so that each
    /// starts aligned to its element size. Their bytes only if asked for.
    fn tensors(&self, Count { samples, words }: Count, with_bytes: bool) -> Vec<Tensor<'_>> {
        let mut tensors = Vec::new();
        let mut add = |name, dtype, shape, bytes: &dyn Fn() -> Vec<u8>| {
            let bytes = if with_bytes { bytes() } else { Vec::new() };
            tensors.push(Tensor { name, dtype, shape, bytes: Some(bytes.into()) });
        };
        if self.spec.labels {
            add(tensor::LABELS, "I64", vec![samples], &|| le_bytes(&self.labels));
        }
        let bounds = vec![samples.saturating_add(1)];
        if self.spec.captions {
            add(tensor::CAPTION_OFFSETS, "U64", bounds.clone(), &|| le_bytes(&self.caption_offsets));
        }
        if let Rows::Layers { offsets, .. } = &self.rows {
            add(tensor::RECORD_OFFSETS, "U64", bounds, &|| le_bytes(offsets));
        }
        add(tensor::CHECKSUMS, "U32", vec![samples], &|| le_bytes(&self.checksums));
        if self.spec.psnr {
            add(tensor::PSNR, "F32", vec![samples], &|| le_bytes(&self.psnr));
        }
        let (dtype, shape) = self.rows_shape(Count { samples, words });
        tensors.push(Tensor { name: self.rows.codec().rows(), dtype, shape, bytes: None });
        match (&self.spec.coding, &self.rows) {
            (CodingSpec::Vq { codebook, .. }, Rows::Vq { codewords, .. }) => {
                let g = &self.spec.geometry;
                let shape = [*codewords, g.patch_height(), g.patch_width(), g.channels()].map(|side| side as u64);
                let bytes = Some(codebook.into());
                tensors.push(Tensor { name: tensor::CODEBOOK, dtype: "U8", shape: shape.to_vec(), bytes });
            }
            (_, Rows::Layers { tensors: books, .. }) => tensors.extend(books.iter().map(|(name, shape, bytes)| {
                Tensor { name, dtype: "I8", shape: shape.clone(), bytes: Some(bytes.into()) }
            })),
            _ => {}
        }
        if self.spec.captions {
            let (shape, bytes) = (vec![self.caption_bytes.len() as u64], Some((&self.caption_bytes).into()));
            tensors.push(Tensor { name: tensor::CAPTION_BYTES, dtype: "U8", shape, bytes });
        }
        tensors.sort_by_key(|tensor| Reverse(container::dtype_size(tensor.dtype)));
        tensors
    }

    /// The type and shape of the rows' tensor.
    fn rows_shape(&self, Count { samples, words }: Count) -> (&'static str, Vec<u64>) {
        let Rows::Vq { index_width, .. } = self.rows else { return ("U32", vec![words]) };
        let g = &self.spec.geometry;
        let grid = || vec![samples, g.grid_height() as u64, g.grid_width() as u64];
        match index_width.bits() {
            8 => ("U8", grid()),
            16 => ("U16", grid()),
            32 => ("U32", grid()),
            _ => ("U32", vec![samples, index_width.row_len(g.patches()) as u64 / 4]),
        }
    }

    /// The header's JSON.
    fn header(&self, samples: u64, mean_psnr_db: Option<f64>, tensors: &[Laid]) -> String {
        let geometry = &self.spec.geometry;
        let mut metadata = self.spec.metadata.clone();
        metadata.retain(|key, _| !key::ALL.contains(&key.as_str()) && !key.ends_with("_crc32c"));
        let mut set = |key: &str, value: String| metadata.insert(key.into(), value);
        set(key::FORMAT, FORMAT.into());
        set(key::VERSION, VERSION.into());
        set(key::CODEC, self.rows.codec().name().into());
        set(key::IMAGE_WIDTH, geometry.image_width().to_string());
        set(key::IMAGE_HEIGHT, geometry.image_height().to_string());
        set(key::CHANNELS, geometry.channels().to_string());
        set(key::PATCH_WIDTH, geometry.patch_width().to_string());
        set(key::PATCH_HEIGHT, geometry.patch_height().to_string());
        match (&self.spec.coding, &self.rows) {
            (CodingSpec::Layers(books), _) => {
                set(key::INDEX_BITS, books.index_bits.to_string());
                books.modes_json().into_iter().enumerate().for_each(|(i, modes)| drop(set(books::modes_key(i), modes)));
            }
            (_, Rows::Vq { index_width, .. }) => drop(set(key::INDEX_BITS, index_width.bits().to_string())),
            _ => {}
        }
        set(key::SAMPLES, samples.to_string());
        set(key::ENCODER, self.spec.encoder.clone());
        set(key::HEADER_CRC32C, checksum::to_hex(0));
        if let Some(classes) = &self.spec.classes {
            set(key::CLASSES, json!(classes).to_string());
        }
        if let Some(max_error) = self.spec.max_error {
            set(key::MAX_ERROR, max_error.to_string());
        }
        if let Some(psnr) = mean_psnr_db {
            // The longest number that the reserved room must hold is cut to a sane length, as no PSNR is longer.
            set(key::MEAN_PSNR_DB, format!("{:.4}", psnr.clamp(-1e9, 1e9)));
        }

        let mut header = BTreeMap::new();
        for (Tensor { name, dtype, shape, bytes }, range) in tensors {
            header.insert(name.to_string(), json!({ "dtype": dtype, "shape": shape, "data_offsets": range }));
            if let Some(bytes) = bytes {
                metadata.insert(checksum::tensor_key(name), checksum::to_hex(crc32c(bytes)));
            }
        }
        header.insert("__metadata__".into(), json!(metadata));
        json!(header).to_string()
    }
}

/// A tensor and where it stands, relative to the end of the header.
type Laid<'a> = (Tensor<'a>, [u64; 2]);

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
    let mut block = vec![0; len.min(8 << 20) as usize];
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
