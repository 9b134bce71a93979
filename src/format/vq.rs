//! The codec "vq": one codebook, one index per patch.

use std::borrow::Cow;
use std::ops::Range;

use super::header::{Metadata, Tensors};
use super::index::IndexWidth;
use super::{MAX_CODEWORDS, container::describe, key, tensor};
use crate::check::Checked;
use crate::decode::check_row_lens;
use crate::error::{Error, Result};
use crate::geometry::Geometry;

/// Where the codebook and the index rows stand in the file.
#[derive(Debug, Clone)]
pub(crate) struct Vq {
    pub codewords: usize,
    pub index_width: IndexWidth,
    /// Bytes of an index row.
    pub row_len: usize,
    pub codebook: Range<usize>,
    indices: Range<usize>,
}

impl Vq {
    pub fn parse(metadata: &Metadata, tensors: &Tensors, geometry: &Geometry, samples: usize) -> Result<Self> {
        let index_width = IndexWidth::new(metadata.integer(key::INDEX_BITS)?)?;

        let codebook = tensors.get(tensor::CODEBOOK, "the codec \"vq\" decodes with it")?;
        let patch = [geometry.patch_height(), geometry.patch_width(), geometry.channels()].map(|side| side as u64);
        let codewords = codebook.shape.first().copied().unwrap_or(0);
        let valid = codebook.dtype == "U8"
            && codebook.shape.get(1..) == Some(&patch[..])
            && (1..=MAX_CODEWORDS as u64).contains(&codewords);
        if !valid {
            let [height, width, channels] = patch;
            return Err(Error::Tensor {
                tensor: tensor::CODEBOOK.into(),
                found: describe(&codebook.dtype, &codebook.shape),
                expected: format!("U8 [1 to {MAX_CODEWORDS}, {height}, {width}, {channels}]"),
            });
        }

        let count = samples as u64;
        let row_len = index_width.row_len(geometry.patches());
        let (grid_height, grid_width) = (geometry.grid_height() as u64, geometry.grid_width() as u64);
        let indices = match index_width.bits() {
            8 => tensors.required(tensor::INDICES, "U8", &[count, grid_height, grid_width])?,
            16 => tensors.required(tensor::INDICES, "U16", &[count, grid_height, grid_width])?,
            32 => tensors.required(tensor::INDICES, "U32", &[count, grid_height, grid_width])?,
            _ => tensors.required(tensor::INDICES, "U32", &[count, row_len as u64 / 4])?,
        };
        // The shape is as long as its range (checked by the container), so every row lies within it.
        Ok(Self { codewords: codewords as usize, index_width, row_len, codebook: codebook.range.clone(), indices })
    }

    /// Byte range of a sample's index row; the sample must exist.
    pub fn row(&self, sample: usize) -> Range<usize> {
        let start = self.indices.start + sample * self.row_len;
        start..start + self.row_len
    }
}

/// What only an archive of the codec "vq" has; see [`Archive::vq`](crate::Archive::vq).
#[derive(Debug, Clone, Copy)]
pub struct VqView<'a> {
    pub(crate) checked: Checked<'a>,
    pub(crate) geometry: &'a Geometry,
    pub(crate) vq: &'a Vq,
}

impl<'a> VqView<'a> {
    /// The number of codewords.
    pub fn codewords(&self) -> usize {
        self.vq.codewords
    }

    /// The codewords one after another, each [patch height, patch width, channels] values of 0 to 255.
    ///
    /// # Errors
    /// [`Error::TensorChecksum`] if they are damaged; what the data gives.
    pub fn codebook(&self) -> Result<Cow<'a, [u8]>> {
        self.checked.read(&self.vq.codebook)
    }

    /// Bytes of the codebook.
    pub fn codebook_len(&self) -> usize {
        self.vq.codebook.len()
    }

    /// The width of stored indices.
    pub fn index_width(&self) -> IndexWidth {
        self.vq.index_width
    }

    /// Bytes of a stored index row.
    pub fn row_len(&self) -> usize {
        self.vq.row_len
    }

    /// The indices of a row, one per patch, row by row. They are as stored, possibly beyond the codebook.
    ///
    /// # Errors
    /// [`Error::RowLength`] unless it is a row of the archive.
    pub fn indices(&self, row: &[u8]) -> Result<Vec<u32>> {
        check_row_lens(self.vq.row_len, &[row])?;
        let mut indices = vec![0; self.geometry.patches()];
        self.vq.index_width.unpack(row, 0, &mut indices);
        Ok(indices)
    }
}
