//! What decoding on a GPU depends on the codec for.

use super::device::Device;
use super::kernels::{self, Constants};
use super::layers::{self, Layers};
use super::plan::{Limits, Pass, Sizes, Source};
use super::vq::{self, Vq};
use crate::archive::Archive;
use crate::data::Data;
use crate::error::Result;
use crate::format::codec::Codec;
use crate::output::OutputSpec;

/// The codebooks of an archive on a device, and how rows are decoded with them.
#[derive(Debug, Clone)]
pub(super) enum Coding {
    Vq(Vq),
    Layers(Layers),
}

impl Coding {
    /// Uploads the codebooks.
    pub fn new<D: Data>(device: &Device, limits: &Limits, archive: &Archive<D>) -> Result<Self> {
        Ok(match archive.codec() {
            Codec::Vq => Self::Vq(Vq::new(device, limits, archive.vq()?)?),
            Codec::Layers => Self::Layers(Layers::new(device, limits, archive.geometry(), archive.layers()?)?),
        })
    }

    pub fn shader(codec: Codec) -> &'static kernels::Source {
        match codec {
            Codec::Vq => &vq::SOURCE,
            Codec::Layers => &layers::SOURCE,
        }
    }

    pub fn sizes(&self) -> Sizes {
        match self {
            Self::Vq(vq) => vq.sizes(),
            Self::Layers(layers) => layers.sizes(),
        }
    }

    /// Whether rows of this archive have the sizes that it decodes.
    pub fn fits<D: Data>(&self, archive: &Archive<D>) -> bool {
        let same = match self {
            Self::Vq(vq) => archive.vq().is_ok_and(|other| vq.rows().index_width == other.index_width()),
            Self::Layers(layers) => archive.layers().is_ok_and(|other| layers.shape() == other.shape()),
        };
        same && self.sizes().geometry == *archive.geometry()
    }

    pub fn check_rows(&self, rows: &[&[u8]]) -> Result<()> {
        match self {
            Self::Vq(vq) => vq.check_rows(rows),
            Self::Layers(layers) => layers.check_rows(rows),
        }
    }

    /// Rows in host memory, as they are planned.
    pub fn source(&self, rows: &[&[u8]]) -> Source<'static> {
        match self {
            Self::Vq(vq) => Source::Rows { samples: rows.len(), size: vq.rows() },
            Self::Layers(_) => Source::Records(rows.iter().map(|row| row.len() as u64).collect()),
        }
    }

    /// Bytes that a row takes on the device.
    pub fn row_stride(&self, row: &[u8]) -> u64 {
        match self {
            Self::Vq(vq) => vq.rows().stride(),
            Self::Layers(_) => row.len() as u64,
        }
    }

    /// A part of the codebook, or all codebooks.
    pub fn codebook(&self, part: usize) -> &wgpu::Buffer {
        match self {
            Self::Vq(vq) => vq.codebook(part),
            Self::Layers(layers) => layers.books(),
        }
    }

    /// The bytes of a pass's uniform buffer.
    pub fn params(&self, pass: &Pass, spec: &OutputSpec) -> Vec<u8> {
        match self {
            Self::Vq(vq) => bytemuck::bytes_of(&vq.params(pass, spec)).to_vec(),
            Self::Layers(layers) => bytemuck::bytes_of(&layers.params(pass, spec)).to_vec(),
        }
    }

    pub fn constants(&self, spec: &OutputSpec, resident: bool, workgroup_size: u32) -> Constants {
        match self {
            Self::Vq(vq) => vq.constants(spec, resident, workgroup_size),
            Self::Layers(layers) => layers.constants(spec, workgroup_size),
        }
    }
}
