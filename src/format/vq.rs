//! The codec "vq": one codebook, one index per patch.

use std::ops::Range;

use super::header::{Metadata, Tensors};
use super::index::IndexWidth;
use super::{MAX_CODEWORDS, container::describe, key, tensor};
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
    pub const CODEC: &str = "vq";

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
