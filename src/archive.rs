//! An archive opened for reading.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};
use crate::format::codec::Codec;
use crate::format::coding::Coding;
use crate::format::header::Header;
use crate::format::layers::LayersView;
use crate::format::vq::VqView;
use crate::geometry::Geometry;
use crate::reads::Reads;

/// A `.qvq` archive over any bytes: a memory map, a `Vec<u8>`, a `&[u8]`.
///
/// Opening reads and checks the header alone, so it takes the same time for any size. What only a full scan can
/// tell (checksums, indices beyond the codebook) is up to [`verify`](Self::verify). Reading an archive that
/// was not verified is safe: at worst it gives wrong pixels.
///
/// The bytes must stay as they are while the archive lives; `D::as_ref` must return the same slice each time.
pub struct Archive<D = Mmap> {
    data: D,
    header: Header,
    reads: Reads,
}

impl<D> fmt::Debug for Archive<D> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Archive").field("header", &self.header).finish_non_exhaustive()
    }
}

impl Archive<Mmap> {
    /// Maps a file into memory and opens it.
    ///
    /// The file must not be cut short while the archive is open: the operating system then kills the process
    /// at the next access to the lost part (SIGBUS). Files made by kuat are replaced, never rewritten.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; any error of [`Archive::new`] if it is no archive.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(Error::io("open", path))?;
        let metadata = file.metadata().map_err(Error::io("open", path))?;
        if !metadata.is_file() {
            let source = std::io::Error::other("it is not a regular file");
            return Err(Error::Io { action: "open", path: path.into(), source });
        }
        // SAFETY: the map is read-only and private to this archive. Another process could still change the file
        // under it; all reads go through shared slices of plain bytes whose every value is valid, and no decision
        // on memory safety is taken twice on the same byte: the header is copied out while it is parsed, offsets are
        // copied out before they are checked, and indices are bounded by the decoders at each use.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map into memory", path))?;
        Self::new(map)
    }

    /// Asks the operating system to read the rows of these samples from disk, all at the same time, and does not
    /// wait for them. Call it with the next batch before a batch is decoded.
    ///
    /// This is for archives that memory does not hold. Without it random rows come from disk one after another, each
    /// with much that lies around it. When all is in memory it costs a microsecond: nothing is asked for unless the
    /// process had to read something during its last calls. Does nothing but the check on systems other than Unix.
    ///
    /// # Errors
    /// As [`row`](Self::row), for the first sample that has none.
    pub fn will_need(&self, samples: impl IntoIterator<Item = usize>) -> Result<()> {
        let lately = self.reads.lately();
        samples.into_iter().try_for_each(|sample| {
            self.check(sample)?;
            let row = self.header.coding.row(&self.data, sample)?;
            if lately {
                will_need(&self.data, row);
            }
            Ok(())
        })
    }
}

#[cfg(unix)]
fn will_need(map: &Mmap, range: Range<usize>) {
    // What is not read now is read when it is used.
    let _ = map.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
}

#[cfg(not(unix))]
fn will_need(_: &Mmap, _: Range<usize>) {}

impl<D: AsRef<[u8]>> Archive<D> {
    /// Opens an archive that is in memory.
    ///
    /// # Errors
    /// One of those for which [`Error::is_invalid_archive`] holds.
    pub fn new(data: D) -> Result<Self> {
        let header = Header::parse(data.as_ref())?;
        Ok(Self { data, header, reads: Reads::default() })
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

    /// What only an archive of the codec "vq" has: the codebook, and an index for each patch.
    ///
    /// # Errors
    /// [`Error::OtherCodec`] for an archive of another codec.
    pub fn vq(&self) -> Result<VqView<'_>> {
        match &self.header.coding {
            Coding::Vq(vq) => Ok(VqView { file: self.bytes(), geometry: self.geometry(), samples: self.samples(), vq }),
            Coding::Layers(_) => Err(Error::OtherCodec { found: self.codec(), expected: Codec::Vq }),
        }
    }

    /// What only an archive of the codec "layers" has: the codebooks of its layers.
    ///
    /// # Errors
    /// [`Error::OtherCodec`] for an archive of another codec.
    pub fn layers(&self) -> Result<LayersView<'_>> {
        match &self.header.coding {
            Coding::Layers(layers) => Ok(LayersView { file: self.bytes(), layers }),
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
    /// [`Error::Sample`] if there is no such sample; [`Error::Tensor`] if the offsets of its record are damaged.
    pub fn row(&self, sample: usize) -> Result<&[u8]> {
        self.check(sample)?;
        Ok(&self.bytes()[self.header.coding.row(self.bytes(), sample)?])
    }

    /// The rows of a batch, in the order asked for.
    ///
    /// # Errors
    /// As [`row`](Self::row), for the first sample that has none.
    pub fn rows(&self, samples: impl IntoIterator<Item = usize>) -> Result<Vec<&[u8]>> {
        samples.into_iter().map(|sample| self.row(sample)).collect()
    }

    /// The label of a sample; `None` if it, or the whole archive, has none.
    ///
    /// # Errors
    /// [`Error::Sample`] if there is no such sample.
    pub fn label(&self, sample: usize) -> Result<Option<i64>> {
        self.check(sample)?;
        let labels = self.labels();
        Ok(labels.and_then(|mut labels| labels.nth(sample)).filter(|&label| label != -1))
    }

    /// All labels as stored, -1 for a sample without one; `None` if the archive has no labels.
    pub fn labels(&self) -> Option<impl ExactSizeIterator<Item = i64>> {
        let range = self.header.labels.clone()?;
        let (labels, _) = self.bytes()[range].as_chunks::<8>();
        Some(labels.iter().map(|&bytes| i64::from_le_bytes(bytes)))
    }

    /// The PSNR of each sample as the encoder measured it: of what decoding returns against the resized source, in dB,
    /// 100 where they are equal; `None` if it is not recorded.
    pub fn psnr(&self) -> Option<impl ExactSizeIterator<Item = f32>> {
        let range = self.header.psnr.clone()?;
        let (psnr, _) = self.bytes()[range].as_chunks::<4>();
        Some(psnr.iter().map(|&bytes| f32::from_le_bytes(bytes)))
    }

    /// The caption of a sample; `None` if the archive has no captions.
    ///
    /// # Errors
    /// [`Error::Sample`] if there is no such sample; [`Error::Tensor`] if the captions are damaged.
    pub fn caption(&self, sample: usize) -> Result<Option<&str>> {
        self.check(sample)?;
        let Some(captions) = &self.header.captions else { return Ok(None) };
        let (offsets, _) = self.bytes()[captions.offsets.clone()].as_chunks::<8>();
        let [start, end] = [sample, sample + 1].map(|i| u64::from_le_bytes(offsets[i]) as usize);
        let bytes = &self.bytes()[captions.bytes.clone()];
        let text = bytes.get(start..end).and_then(|caption| std::str::from_utf8(caption).ok());
        text.map(Some).ok_or_else(|| Error::Tensor {
            tensor: crate::format::tensor::CAPTION_BYTES.into(),
            found: format!("no text for sample {sample} at bytes {start}..{end}"),
            expected: "UTF-8 within its bounds".into(),
        })
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
        self.bytes().len()
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.data.as_ref()
    }

    fn check(&self, sample: usize) -> Result<()> {
        let samples = self.samples();
        if sample < samples { Ok(()) } else { Err(Error::Sample { sample, samples }) }
    }
}
