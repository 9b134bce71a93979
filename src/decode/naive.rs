//! The oracle: the definition of decoding, written to be read. Every other decoder equals it.

use half::f16;

use super::{Decoder, check_call};
use crate::archive::Archive;
use crate::error::Result;
use crate::format::index::IndexWidth;
use crate::geometry::Geometry;
use crate::output::{Dtype, OutputSpec};

/// Decodes value by value, on one thread. For tests and for checking results; far too slow for anything else.
#[derive(Debug, Clone)]
pub struct NaiveDecoder {
    geometry: Geometry,
    index_width: IndexWidth,
    codebook: Vec<u8>,
}

impl NaiveDecoder {
    /// A decoder for the rows of this archive.
    pub fn new<D: AsRef<[u8]>>(archive: &Archive<D>) -> Self {
        let codebook = archive.codebook().to_vec();
        Self { geometry: *archive.geometry(), index_width: archive.index_width(), codebook }
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
        check_call(g, self.index_width.row_len(g.patches()), rows, spec, output.len())?;
        let last = self.codebook.len() / g.codeword_len() - 1;
        let mut indices = vec![0; g.patches()];
        let size = spec.dtype.size();
        for (row, image) in rows.iter().zip(output.chunks_exact_mut(g.image_len() * size)) {
            self.index_width.unpack(row, 0, &mut indices);
            for y in 0..g.image_height() {
                for x in 0..g.image_width() {
                    for channel in 0..g.channels() {
                        let patch = y / g.patch_height() * g.grid_width() + x / g.patch_width();
                        let codeword = (indices[patch] as usize).min(last) * g.codeword_len();
                        let (dy, dx) = (y % g.patch_height(), x % g.patch_width());
                        let value = self.codebook[codeword + (dy * g.patch_width() + dx) * g.channels() + channel];
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
