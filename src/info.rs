//! What an archive holds, in one value: for the command, for programs and for people.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::archive::Archive;
use crate::data::Data;
use crate::format::codec::Codec;
use crate::format::layers::LayersView;
use crate::format::tensor;
use crate::format::vq::VqView;

/// A description of an archive, from its header alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ArchiveInfo {
    /// How images are coded.
    pub codec: Codec,
    /// Number of samples.
    pub samples: usize,
    /// Width of an image in pixels.
    pub image_width: usize,
    /// Height of an image in pixels.
    pub image_height: usize,
    /// Values of a pixel.
    pub channels: usize,
    /// Width of a patch in pixels.
    pub patch_width: usize,
    /// Height of a patch in pixels.
    pub patch_height: usize,
    /// Patches across an image.
    pub grid_width: usize,
    /// Patches down an image.
    pub grid_height: usize,
    /// Codewords in the codebook, or in all of them.
    pub codewords: usize,
    /// Bytes of the codebook, or of all of them.
    pub codebook_bytes: usize,
    /// Bits of a stored index.
    pub index_bits: usize,
    /// Bytes of a row, in the mean over all samples.
    pub bytes_per_image: f64,
    /// Bytes of the whole archive.
    pub file_len: usize,
    /// What the encoder measured.
    pub mean_psnr_db: Option<f64>,
    /// The most by which a value of a decoded image differs from what was encoded, if that was bounded.
    pub max_error: Option<u8>,
    /// Names of the labels 0, 1, ...
    pub classes: Option<Vec<String>>,
    /// What made the archive.
    pub encoder: Option<String>,
    /// Whether samples have labels.
    pub labels: bool,
    /// Whether samples have captions.
    pub captions: bool,
    /// Whether samples have checksums.
    pub checksums: bool,
    /// Whether the PSNR of each sample is recorded.
    pub psnr: bool,
    /// All metadata as recorded.
    pub metadata: BTreeMap<String, String>,
    /// All tensors by name, unknown ones too.
    pub tensors: BTreeMap<String, TensorInfo>,
}

/// A tensor of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorInfo {
    /// Its type, as safetensors names it.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<u64>,
}

impl<D: Data> Archive<D> {
    /// Describes the archive.
    pub fn info(&self) -> ArchiveInfo {
        let g = self.geometry();
        let of_vq = |vq: VqView| (vq.codewords(), vq.codebook_len(), vq.index_width().bits());
        let of_layers = |layers: LayersView| (layers.codewords(), layers.books_len(), layers.index_bits());
        // It has one of the two.
        let (codewords, codebook_bytes, index_bits) =
            self.vq().map(of_vq).or_else(|_| self.layers().map(of_layers)).unwrap_or_default();
        let tensors: BTreeMap<_, _> = self
            .tensors()
            .map(|(name, dtype, shape)| (name.into(), TensorInfo { dtype: dtype.into(), shape: shape.to_vec() }))
            .collect();
        ArchiveInfo {
            codec: self.codec(),
            samples: self.samples(),
            image_width: g.image_width(),
            image_height: g.image_height(),
            channels: g.channels(),
            patch_width: g.patch_width(),
            patch_height: g.patch_height(),
            grid_width: g.grid_width(),
            grid_height: g.grid_height(),
            codewords,
            codebook_bytes,
            index_bits,
            bytes_per_image: self.mean_row_len(),
            file_len: self.file_len(),
            mean_psnr_db: self.mean_psnr_db(),
            max_error: self.max_error(),
            classes: self.classes().map(<[String]>::to_vec),
            encoder: self.metadata().get("encoder").cloned(),
            labels: tensors.contains_key(tensor::LABELS),
            captions: tensors.contains_key(tensor::CAPTION_OFFSETS),
            checksums: tensors.contains_key(tensor::CHECKSUMS),
            psnr: tensors.contains_key(tensor::PSNR),
            metadata: self.metadata().clone(),
            tensors,
        }
    }
}
