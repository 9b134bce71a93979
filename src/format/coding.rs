//! What of an archive depends on its codec.

use std::ops::Range;

use super::codec::Codec;
use super::header::{Metadata, Tensors};
use super::layers::Layers;
use super::vq::Vq;
use crate::data::Data;
use crate::error::Result;
use crate::geometry::Geometry;

/// Where the rows stand in the file, and what it takes to decode them.
#[derive(Debug)]
pub(crate) enum Coding {
    Vq(Vq),
    Layers(Layers),
}

impl Coding {
    pub fn parse(
        codec: Codec,
        metadata: &Metadata,
        tensors: &Tensors,
        geometry: &Geometry,
        samples: usize,
    ) -> Result<Self> {
        Ok(match codec {
            Codec::Vq => Self::Vq(Vq::parse(metadata, tensors, geometry, samples)?),
            Codec::Layers => Self::Layers(Layers::parse(metadata, tensors, geometry, samples)?),
        })
    }

    pub fn codec(&self) -> Codec {
        match self {
            Self::Vq(_) => Codec::Vq,
            Self::Layers(_) => Codec::Layers,
        }
    }

    /// Byte range of a sample's row in the file; the sample must exist.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if the offsets of records are damaged; what the file gives.
    #[inline]
    pub fn row(&self, file: &dyn Data, sample: usize) -> Result<Range<usize>> {
        match self {
            Self::Vq(vq) => Ok(vq.row(sample)),
            Self::Layers(layers) => layers.row(file, sample),
        }
    }

    /// Bytes of the shortest row that can be decoded.
    pub fn shortest_row_len(&self) -> usize {
        match self {
            Self::Vq(vq) => vq.row_len,
            Self::Layers(layers) => layers.shortest_row_len(),
        }
    }
}
