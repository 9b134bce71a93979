//! The codec "vq" by its definition: each value looked up by itself.

use crate::error::Result;
use crate::format::index::IndexWidth;
use crate::format::vq::VqView;
use crate::geometry::Geometry;

#[derive(Debug, Clone)]
pub(super) struct Vq {
    index_width: IndexWidth,
    codebook: Vec<u8>,
}

impl Vq {
    pub fn new(archive: VqView) -> Result<Self> {
        let stored = archive.codebook()?;
        let mut codebook = Vec::new();
        crate::decode::resize(&mut codebook, stored.len())?;
        codebook.copy_from_slice(&stored);
        Ok(Self { index_width: archive.index_width(), codebook })
    }

    pub fn check_rows(&self, g: &Geometry, rows: &[&[u8]]) -> Result<()> {
        crate::decode::check_row_lens(self.index_width.row_len(g.patches()), rows)
    }

    /// Decodes a row to interleaved pixels.
    pub fn decode(&self, g: &Geometry, row: &[u8], pixels: &mut [u8]) {
        let last = self.codebook.len() / g.codeword_len() - 1;
        let mut indices = vec![0; g.patches()];
        self.index_width.unpack(row, 0, &mut indices);
        for y in 0..g.image_height() {
            for x in 0..g.image_width() {
                let patch = y / g.patch_height() * g.grid_width() + x / g.patch_width();
                let codeword = (indices[patch] as usize).min(last) * g.codeword_len();
                let (dy, dx) = (y % g.patch_height(), x % g.patch_width());
                for channel in 0..g.channels() {
                    let value = self.codebook[codeword + (dy * g.patch_width() + dx) * g.channels() + channel];
                    pixels[y * g.image_row_len() + x * g.channels() + channel] = value;
                }
            }
        }
    }
}
