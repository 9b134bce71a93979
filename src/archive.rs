//! An archive opened for reading.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use crate::check::{Check, Checked, Checks};
use crate::data::{Access, ArchiveFile, Data};
use crate::error::{Error, Result};
use crate::format::checksum::crc32c;
use crate::format::codec::Codec;
use crate::format::coding::Coding;
use crate::format::header::{Captions, Header};
use crate::format::layers::LayersView;
use crate::format::tensor;
use crate::format::vq::VqView;
use crate::geometry::Geometry;
use crate::reads::Reads;
use crate::rows::{OnDamage, Rows};
use crate::verify::{BadSample, SampleProblem};

/// Bytes of rows from which on several threads read them: less is done before others are awake.
const SHARED: f64 = 512.0 * 1024.0;

/// A `.qvq` archive over any bytes: a file, a `Vec<u8>`, a `&[u8]`.
///
/// Opening reads and checks the header alone, so it takes the same time for any size, unless [`Check::Open`] asks for
/// all. What is read later is compared with its checksum by default, if the archive carries them; what only a full scan
/// can tell (indices beyond the codebook, labels without a class) is up to [`verify`](Self::verify). Reading an archive
/// that was not checked is safe: at worst it gives wrong pixels.
pub struct Archive<D = ArchiveFile> {
    data: D,
    header: Header,
    checks: Checks,
    reads: Reads,
}

impl<D> fmt::Debug for Archive<D> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Archive").field("header", &self.header).finish_non_exhaustive()
    }
}

/// How an archive is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// How the bytes of the file are got.
    pub access: Access,
    /// When checksums are compared.
    pub check: Check,
}

impl Archive {
    /// Opens a file with the default options.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &OpenOptions::default())
    }

    /// Opens a file.
    ///
    /// Files made by kuat are replaced, never rewritten, so an open archive stays what it is while another takes its
    /// place.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; any error of [`Archive::with_check`] if it is no archive.
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        Self::with_check(ArchiveFile::open(path.as_ref(), options.access)?, options.check)
    }
}

impl<D: Data> Archive<D> {
    /// Opens an archive that is in memory.
    ///
    /// # Errors
    /// One of those for which [`Error::is_invalid_archive`] holds.
    pub fn new(data: D) -> Result<Self> {
        Self::with_check(data, Check::default())
    }

    /// Opens an archive over any bytes.
    ///
    /// # Errors
    /// One of those for which [`Error::is_invalid_archive`] holds; with [`Check::Open`] that is
    /// [`Error::TensorChecksum`] for damage that all samples share, while [`damaged`](Self::damaged) tells of single
    /// ones; what the data gives.
    pub fn with_check(data: D, check: Check) -> Result<Self> {
        let header = Header::parse(&data)?;
        let checks = Checks::new(&header, check);
        let mut archive = Self { data, header, checks, reads: Reads::default() };
        if check == Check::Open {
            let damaged = archive.scan()?;
            archive.checks.remember(damaged);
        }
        Ok(archive)
    }

    /// Asks the operating system to read the rows of these samples from disk, all at the same time, and does not
    /// wait for them. Call it with the next batch before a batch is decoded.
    ///
    /// This is for archives that memory does not hold. Without it random rows come from disk one after another, each
    /// with much that lies around it. When all is in memory it costs a microsecond: nothing is asked for unless the
    /// process had to read something during its last calls. Does nothing but the check for data that cannot be asked.
    ///
    /// # Errors
    /// [`Error::Sample`] if there is no such sample; what the data gives.
    pub fn will_need(&self, samples: impl IntoIterator<Item = usize>) -> Result<()> {
        self.data.check()?;
        let lately = self.reads.lately();
        samples.into_iter().try_for_each(|sample| {
            self.check_number(sample)?;
            // Of a record that cannot be found, reading it will tell.
            if lately && let Ok(row) = self.header.coding.row(&self.data, sample) {
                self.data.will_need(row);
            }
            Ok(())
        })
    }

    /// The sizes of images, patches and grids.
    pub fn geometry(&self) -> &Geometry {
        &self.header.geometry
    }

    /// The number of samples.
    pub fn samples(&self) -> usize {
        self.header.samples
    }

    /// How its images are coded.
    pub fn codec(&self) -> Codec {
        self.header.coding.codec()
    }

    /// Where its bytes are.
    pub fn data(&self) -> &D {
        &self.data
    }

    /// When checksums are compared.
    pub fn check(&self) -> Check {
        self.checks.when
    }

    /// What only an archive of the codec "vq" has: the codebook, and an index for each patch.
    ///
    /// # Errors
    /// [`Error::OtherCodec`] for an archive of another codec.
    pub fn vq(&self) -> Result<VqView<'_>> {
        match &self.header.coding {
            Coding::Vq(vq) => Ok(VqView { checked: self.checked(), geometry: self.geometry(), vq }),
            Coding::Layers(_) => Err(Error::OtherCodec { found: self.codec(), expected: Codec::Vq }),
        }
    }

    /// What only an archive of the codec "layers" has: the codebooks of its layers.
    ///
    /// # Errors
    /// [`Error::OtherCodec`] for an archive of another codec.
    pub fn layers(&self) -> Result<LayersView<'_>> {
        match &self.header.coding {
            Coding::Layers(layers) => Ok(LayersView { checked: self.checked(), layers }),
            Coding::Vq(_) => Err(Error::OtherCodec { found: self.codec(), expected: Codec::Layers }),
        }
    }

    /// Bytes of a row, in the mean over all samples.
    pub fn mean_row_len(&self) -> f64 {
        match &self.header.coding {
            Coding::Vq(vq) => vq.row_len as f64,
            Coding::Layers(layers) => layers.rows_len() as f64 / self.samples().max(1) as f64,
        }
    }

    /// The row of a sample as it is stored, its indices or its record: what decoders take.
    ///
    /// # Errors
    /// [`Error::Sample`] if there is no such sample; [`Error::Damaged`] if it is damaged; what the data gives.
    pub fn row(&self, sample: usize) -> Result<Cow<'_, [u8]>> {
        self.data.check()?;
        self.read_row(sample)?.map_err(|problem| Error::Damaged { sample, problem })
    }

    /// The rows of a batch, in the order asked for.
    ///
    /// # Errors
    /// As [`row`](Self::row), for the first sample that has none.
    pub fn rows(&self, samples: impl IntoIterator<Item = usize>) -> Result<Rows<'_>> {
        self.rows_with(samples, OnDamage::Raise)
    }

    /// The rows of a batch, in the order asked for, with those that are damaged dealt with as asked.
    ///
    /// # Errors
    /// As [`rows`](Self::rows); [`Error::Damaged`] only if it is asked for.
    pub fn rows_with<'a>(&'a self, samples: impl IntoIterator<Item = usize>, on_damage: OnDamage) -> Result<Rows<'a>> {
        self.data.check()?;
        let samples: Vec<usize> = samples.into_iter().collect();
        let mut rows = Rows::with_capacity(samples.len());
        let mut add = |sample, read: Result<Result<Cow<'a, [u8]>, SampleProblem>>| {
            match (read?, on_damage) {
                (Ok(row), _) => rows.push(sample, row),
                (Err(problem), OnDamage::Raise) => return Err(Error::Damaged { sample, problem }),
                (Err(problem), OnDamage::Skip) => rows.skip(BadSample { sample, problem }),
                (Err(problem), OnDamage::Mask) => {
                    let stand_in = vec![0; self.header.coding.shortest_row_len()];
                    rows.push_masked(BadSample { sample, problem }, stand_in.into());
                }
            }
            Ok(())
        };
        let works = self.data.copies() || self.checks.when == Check::Read && self.header.checksums.is_some();
        if works && samples.len() as f64 * self.mean_row_len() >= SHARED && rayon::current_num_threads() > 1 {
            let read: Vec<_> = samples.par_iter().map(|&sample| self.read_row(sample)).collect();
            samples.iter().zip(read).try_for_each(|(&sample, read)| add(sample, read))?;
        } else {
            samples.iter().try_for_each(|&sample| add(sample, self.read_row(sample)))?;
        }
        Ok(rows)
    }

    /// What was damaged when the archive was opened with [`Check::Open`], in ascending order.
    pub fn damaged(&self) -> impl ExactSizeIterator<Item = &BadSample> {
        self.checks.damaged().values()
    }

    /// A row, or what is wrong with it.
    fn read_row(&self, sample: usize) -> Result<Result<Cow<'_, [u8]>, SampleProblem>> {
        self.check_number(sample)?;
        if let Some(bad) = self.checks.damaged().get(&sample) {
            return Ok(Err(bad.problem.clone()));
        }
        match self.checks.when {
            Check::Read => self.compared_row(sample),
            Check::Open | Check::Never => self.stored_row(sample),
        }
    }

    /// A row whose checksum was compared, if there is one.
    pub(crate) fn compared_row(&self, sample: usize) -> Result<Result<Cow<'_, [u8]>, SampleProblem>> {
        let row = match self.stored_row(sample)? {
            Ok(row) => row,
            Err(problem) => return Ok(Err(problem)),
        };
        if let Some(checksums) = &self.header.checksums {
            let expected = u32::from_le_bytes(self.number(checksums, sample)?);
            let found = crc32c(&row);
            if found != expected {
                return Ok(Err(SampleProblem::Checksum { found, expected }));
            }
        }
        Ok(Ok(row))
    }

    fn stored_row(&self, sample: usize) -> Result<Result<Cow<'_, [u8]>, SampleProblem>> {
        match self.header.coding.row(&self.data, sample) {
            Ok(range) => self.data.bytes(range).map(Ok),
            Err(error @ Error::Tensor { .. }) => Ok(Err(SampleProblem::Record { problem: error.to_string() })),
            Err(error) => Err(error),
        }
    }

    /// The number at a place in a tensor of numbers.
    pub(crate) fn number<const N: usize>(&self, tensor: &Range<usize>, place: usize) -> Result<[u8; N]> {
        let start = tensor.start + place * N;
        let mut number = [0; N];
        number.copy_from_slice(&self.data.bytes(start..start + N)?);
        Ok(number)
    }

    /// The label of a sample; `None` if it, or the whole archive, has none.
    ///
    /// # Errors
    /// [`Error::Sample`] if there is no such sample; [`Error::TensorChecksum`] if labels are damaged; what the data gives.
    pub fn label(&self, sample: usize) -> Result<Option<i64>> {
        self.check_number(sample)?;
        let Some(labels) = &self.header.labels else { return Ok(None) };
        let label = self.checked().part(labels, sample * 8..sample * 8 + 8)?;
        let (label, _) = label.as_chunks::<8>();
        Ok(label.first().map(|&bytes| i64::from_le_bytes(bytes)).filter(|&label| label != -1))
    }

    /// All labels as stored, -1 for a sample without one; `None` if the archive has no labels.
    ///
    /// # Errors
    /// [`Error::TensorChecksum`] if they are damaged; what the data gives.
    pub fn labels(&self) -> Result<Option<Vec<i64>>> {
        let Some(range) = &self.header.labels else { return Ok(None) };
        let bytes = self.checked().read(range)?;
        let (labels, _) = bytes.as_chunks::<8>();
        Ok(Some(labels.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect()))
    }

    /// The PSNR of each sample as the encoder measured it: of what decoding returns against the resized source, in dB,
    /// 100 where they are equal; `None` if it is not recorded.
    ///
    /// # Errors
    /// [`Error::TensorChecksum`] if they are damaged; what the data gives.
    pub fn psnr(&self) -> Result<Option<Vec<f32>>> {
        let Some(range) = &self.header.psnr else { return Ok(None) };
        let bytes = self.checked().read(range)?;
        let (psnr, _) = bytes.as_chunks::<4>();
        Ok(Some(psnr.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()))
    }

    /// The caption of a sample; `None` if the archive has no captions.
    ///
    /// # Errors
    /// [`Error::Sample`] if there is no such sample; [`Error::TensorChecksum`] or [`Error::Tensor`] if captions are
    /// damaged; what the data gives.
    pub fn caption(&self, sample: usize) -> Result<Option<String>> {
        self.check_number(sample)?;
        let Some(captions) = &self.header.captions else { return Ok(None) };
        let checked = self.checked();
        checked.check(&captions.offsets)?;
        checked.check(&captions.bytes)?;
        let caption = self.stored_caption(captions, sample)?;
        caption.map(Some).ok_or_else(|| Error::Tensor {
            tensor: tensor::CAPTION_BYTES.into(),
            found: format!("none for sample {sample}"),
            expected: "UTF-8 text within its bounds".into(),
        })
    }

    /// A caption, if it is within its bounds and UTF-8; a copy, as another process may change a map.
    pub(crate) fn stored_caption(&self, captions: &Captions, sample: usize) -> Result<Option<String>> {
        let [start, end] = self.caption_offsets(captions, [sample, sample + 1])?;
        if start > end || end > captions.bytes.len() as u64 {
            return Ok(None);
        }
        let start = captions.bytes.start + start as usize;
        let bytes = self.data.bytes(start..captions.bytes.start + end as usize)?;
        Ok(String::from_utf8(bytes.into_owned()).ok())
    }

    /// Two of the places where captions begin and the last ends.
    pub(crate) fn caption_offsets(&self, captions: &Captions, places: [usize; 2]) -> Result<[u64; 2]> {
        let [start, end] = places.map(|place| self.number(&captions.offsets, place).map(u64::from_le_bytes));
        Ok([start?, end?])
    }

    /// The names of the labels 0, 1, ...; `None` if they are not recorded.
    pub fn classes(&self) -> Option<&[String]> {
        self.header.classes.as_deref()
    }

    /// The mean over all samples of the PSNR of what decoding returns against the resized source, in dB, as the
    /// encoder measured it.
    pub fn mean_psnr_db(&self) -> Option<f64> {
        self.header.mean_psnr_db
    }

    /// The most by which a value of what decoding returns differs from the resized source; `None` if the encoder did
    /// not bound it.
    pub fn max_error(&self) -> Option<u8> {
        self.header.max_error
    }

    /// All metadata as recorded.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.container.metadata
    }

    /// The names, types and shapes of all tensors, unknown ones too.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &str, &[u64])> {
        let tensors = self.header.container.tensors.iter();
        tensors.map(|(name, tensor)| (name.as_str(), tensor.dtype.as_str(), tensor.shape.as_slice()))
    }

    /// The size of the whole archive in bytes.
    pub fn file_len(&self) -> usize {
        self.data.len()
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Its tensors, as they are compared with their checksums.
    pub(crate) fn checked(&self) -> Checked<'_> {
        Checked { data: &self.data, checks: &self.checks }
    }

    fn check_number(&self, sample: usize) -> Result<()> {
        let samples = self.samples();
        if sample < samples { Ok(()) } else { Err(Error::Sample { sample, samples }) }
    }
}
