//! The oracle: the definition of decoding, written to be read. Every other decoder equals it.

mod layers;
mod vq;

use half::f16;

use self::layers::Layers;
use self::vq::Vq;
use super::{Decoder, check_call};
use crate::archive::Archive;
use crate::data::Data;
use crate::error::Result;
use crate::format::codec::Codec;
use crate::geometry::Geometry;
use crate::output::{Dtype, OutputSpec};

/// Decodes value by value, on one thread. For tests and for checking results; far too slow for anything else.
#[derive(Debug, Clone)]
pub struct NaiveDecoder {
    geometry: Geometry,
    coding: Coding,
}

/// What depends on the codec: from a row to interleaved pixels.
#[derive(Debug, Clone)]
enum Coding {
    Vq(Vq),
    Layers(Layers),
}

impl NaiveDecoder {
    /// A decoder for the rows of this archive.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory); [`Error::TensorChecksum`](crate::Error::TensorChecksum) if the
    /// codebooks are damaged; what the data gives.
    pub fn new<D: Data>(archive: &Archive<D>) -> Result<Self> {
        let coding = match archive.codec() {
            Codec::Vq => Coding::Vq(Vq::new(archive.vq()?)?),
            Codec::Layers => Coding::Layers(Layers::new(archive.layers()?)?),
        };
        Ok(Self { geometry: *archive.geometry(), coding })
    }
}

impl Decoder for NaiveDecoder {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn device_name(&self) -> &str {
        "naive"
    }

    fn decode_bytes(&self, rows: &[&[u8]], spec: &OutputSpec, output: &mut [u8]) -> Result<()> {
        let g = &self.geometry;
        check_call(g, rows.len(), spec, output.len())?;
        match &self.coding {
            Coding::Vq(vq) => vq.check_rows(g, rows)?,
            Coding::Layers(layers) => layers.check_rows(rows)?,
        }
        let mut pixels = vec![0; g.image_len()];
        let size = spec.dtype.size();
        for (row, image) in rows.iter().zip(output.chunks_exact_mut(g.image_len() * size)) {
            match &self.coding {
                Coding::Vq(vq) => vq.decode(g, row, &mut pixels),
                Coding::Layers(layers) => layers.decode(g, row, &mut pixels),
            }
            for y in 0..g.image_height() {
                for x in 0..g.image_width() {
                    for channel in 0..g.channels() {
                        let value = pixels[y * g.image_row_len() + x * g.channels() + channel];
                        let place = spec.layout.offset(g, y, x, channel) * size;
                        let float = spec.value(value, channel);
                        match spec.dtype {
                            Dtype::U8 => image[place] = value,
                            Dtype::F16 => image[place..][..2].copy_from_slice(&f16::from_f32(float).to_ne_bytes()),
                            Dtype::F32 => image[place..][..4].copy_from_slice(&float.to_ne_bytes()),
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
