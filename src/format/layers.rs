//! The codec "layers": records of different lengths, one per sample.

use std::ops::Range;

use super::books::{Books, LayerBooks, codeword_count};
use super::container::{TensorInfo, describe};
use super::header::{Metadata, Tensors};
use super::record::{self, GROUP_LEN, RecordShape};
use super::tensor;
use crate::check::Checked;
use crate::data::Data;
use crate::error::{Error, Result};
use crate::geometry::Geometry;

/// Bytes of the words that records consist of and that their offsets count.
pub(crate) const WORD: usize = 4;

/// Sides of a block in pixels: what the metadata must give as the patch.
const BLOCK: usize = 8;

/// Checks that the patches of a geometry are blocks.
pub(crate) fn check_block(geometry: &Geometry) -> Result<()> {
    for (field, found) in [("patch width", geometry.patch_width()), ("patch height", geometry.patch_height())] {
        if found != BLOCK {
            let expected = "8, the block of the codec \"layers\"";
            return Err(Error::Geometry { field, found: found as u64, expected });
        }
    }
    Ok(())
}

/// Where the codebooks and the records stand in the file.
#[derive(Debug)]
pub(crate) struct Layers {
    books: Books<TensorInfo>,
    shape: RecordShape,
    offsets: Range<usize>,
    records: Range<usize>,
}

impl Layers {
    pub fn parse(metadata: &Metadata, tensors: &Tensors, geometry: &Geometry, samples: usize) -> Result<Self> {
        check_block(geometry)?;
        let books = Books::parse(metadata, tensors, geometry)?;
        let shape = RecordShape::new(geometry, &books)?;
        let offsets = tensors.required(tensor::RECORD_OFFSETS, "U64", &[(samples as u64).saturating_add(1)])?;
        let records = tensors.get(tensor::RECORDS, "`records.offsets` points into it")?;
        if records.dtype != "U32" || records.shape.len() != 1 {
            return Err(Error::Tensor {
                tensor: tensor::RECORDS.into(),
                found: describe(&records.dtype, &records.shape),
                expected: "U32 [words]".into(),
            });
        }
        Ok(Self { books, shape, offsets, records: records.range.clone() })
    }

    /// Byte range of a sample's record in the file; the sample must exist.
    ///
    /// # Errors
    /// [`Error::Tensor`] if its offsets are out of order or beyond the records; what the file gives.
    #[inline]
    pub fn row(&self, file: &dyn Data, sample: usize) -> Result<Range<usize>> {
        let start = self.offsets.start + sample * 8;
        let [begin, end] = offsets(&file.bytes(start..start + 16)?);
        let words = (self.records.len() / WORD) as u64;
        if begin > end || end > words {
            return Err(Error::Tensor {
                tensor: tensor::RECORD_OFFSETS.into(),
                found: format!("{begin} and {end} around the record of sample {sample}"),
                expected: format!("ascending numbers of words, {words} at most"),
            });
        }
        // Both are at most the number of words that the file holds.
        let [begin, end] = [begin, end].map(|word| self.records.start + word as usize * WORD);
        Ok(begin..end)
    }

    /// Bytes of all records.
    pub fn rows_len(&self) -> usize {
        self.records.len()
    }

    /// Whether the offsets begin and end where the records do.
    pub fn is_complete(&self, file: &dyn Data) -> Result<bool> {
        let Range { start, end } = self.offsets;
        let ends = [file.bytes(start..start + 8)?, file.bytes(end - 8..end)?].concat();
        Ok(offsets(&ends) == [0, (self.records.len() / WORD) as u64])
    }

    /// Where the offsets stand, and how many words they may point to.
    pub fn offsets(&self) -> (&Range<usize>, u64) {
        (&self.offsets, (self.records.len() / WORD) as u64)
    }

    /// Bytes of the shortest record that can be decoded.
    pub fn shortest_row_len(&self) -> usize {
        self.shape.all_groups() * GROUP_LEN
    }

    /// What is wrong with a record.
    pub fn check_record(&self, record: &[u8]) -> Option<String> {
        record::check(&self.shape, &self.books, record, codeword_count)
    }
}

/// Two offsets.
fn offsets(bytes: &[u8]) -> [u64; 2] {
    let (offsets, _) = bytes.as_chunks::<8>();
    [0, 1].map(|i| offsets.get(i).map_or(0, |&offset| u64::from_le_bytes(offset)))
}

/// What only an archive of the codec "layers" has; see [`Archive::layers`](crate::Archive::layers).
#[derive(Debug, Clone, Copy)]
pub struct LayersView<'a> {
    pub(crate) checked: Checked<'a>,
    pub(crate) layers: &'a Layers,
}

impl LayersView<'_> {
    /// A copy of the codebooks.
    ///
    /// # Errors
    /// [`Error::TensorChecksum`] if they are damaged; what the data gives.
    pub fn books(&self) -> Result<LayerBooks> {
        self.layers.books.try_map(|tensor| {
            let bytes = self.checked.read(&tensor.range)?;
            Ok(bytes.iter().map(|&byte| byte as i8).collect())
        })
    }

    /// Bytes of all codebooks.
    pub fn books_len(&self) -> usize {
        self.layers.books.tensors().map(|tensor| tensor.range.len()).sum()
    }

    /// Codewords of all codebooks.
    pub fn codewords(&self) -> usize {
        self.layers.books.tensors().map(codeword_count).sum()
    }

    /// Bits of a stored index, 1 to 16.
    pub fn index_bits(&self) -> usize {
        self.layers.books.index_bits as usize
    }

    /// The sizes that all records share.
    pub(crate) fn shape(&self) -> &RecordShape {
        &self.layers.shape
    }
}
