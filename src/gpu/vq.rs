//! The codec "vq" on a GPU: its codebook there, and the shader `vq.wgsl`.

use bytemuck::{Pod, Zeroable};

use super::codebook::{CodebookPart, upload_codebook};
use super::device::Device;
use super::kernels::{self, Constants};
use super::plan::{Limits, Pass, RowSize, Sizes};
use crate::decode::check_row_lens;
use crate::error::Result;
use crate::format::vq::VqView;
use crate::geometry::Geometry;
use crate::output::{Layout, OutputSpec};

pub(crate) const SOURCE: kernels::Source = kernels::Source {
    name: "vq",
    text: concat!(include_str!("../../shaders/output.wgsl"), include_str!("../../shaders/vq.wgsl")),
    fast: ["columns_u8", "columns_f16", "columns_f32"],
};

/// The uniform buffer, as `Params` in the shader.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Params {
    pub common: kernels::Params,
    pub first_patch: u32,
    pub patches: u32,
    pub last_codeword: u32,
    pub first_codeword: u32,
    pub codewords: u32,
    padding: u32,
}

/// An archive's codebook on a device.
#[derive(Debug, Clone)]
pub(super) struct Vq {
    geometry: Geometry,
    rows: RowSize,
    codewords: usize,
    codebook: Vec<CodebookPart>,
}

impl Vq {
    pub fn new(device: &Device, limits: &Limits, archive: VqView) -> Result<Self> {
        let geometry = *archive.geometry;
        let layout = CodewordLayout::new(&geometry);
        let (stored_len, most) = (geometry.codeword_len(), limits.binding.min(limits.buffer));
        let pad = |stored: &[u8], padded: &mut [u8]| layout.pad(stored, padded);
        let codebook = upload_codebook(device, &archive.codebook()?, stored_len, layout.len(), most, pad)?;
        Ok(Self { geometry, rows: row_size(archive), codewords: archive.codewords(), codebook })
    }

    pub fn sizes(&self) -> Sizes {
        let columns = (self.geometry.grid_height() * (self.geometry.image_width() / 4)) as u64;
        let codebook_parts = self.codebook.len();
        let fast_units = (fit_columns(&self.geometry) && codebook_parts == 1).then_some(columns);
        Sizes { geometry: self.geometry, fast_units, codebook_parts }
    }

    /// The size of the index rows.
    pub fn rows(&self) -> RowSize {
        self.rows
    }

    pub fn check_rows(&self, rows: &[&[u8]]) -> Result<()> {
        check_row_lens(self.rows.index_width.row_len(self.rows.patches), rows)
    }

    pub fn codebook(&self, part: usize) -> &wgpu::Buffer {
        &self.codebook[part].buffer
    }

    pub fn params(&self, pass: &Pass, spec: &OutputSpec) -> Params {
        let part = &self.codebook[pass.codebook_part].codewords;
        Params {
            common: kernels::Params::new(pass, spec, self.geometry.channels()),
            first_patch: pass.first_patch,
            patches: pass.patches,
            last_codeword: (self.codewords - 1) as u32,
            first_codeword: part.start as u32,
            codewords: part.len() as u32,
            padding: 0,
        }
    }

    pub fn constants(&self, spec: &OutputSpec, resident: bool, workgroup_size: u32) -> Constants {
        constants(&self.geometry, self.rows, spec, resident, workgroup_size)
    }
}

pub(crate) fn row_size(archive: VqView) -> RowSize {
    RowSize { patches: archive.geometry.patches(), index_width: archive.index_width() }
}

/// Whether the kernels `columns_*` can decode these images.
pub(crate) fn fit_columns(geometry: &Geometry) -> bool {
    let patch_width = geometry.patch_width();
    geometry.image_width().is_multiple_of(4) && (matches!(patch_width, 1 | 2) || patch_width.is_multiple_of(4))
}

/// How codewords lie on the device: in strips as wide as a column of four pixels, or as the patch where that is narrower
/// or of a width that has no columns. Each row of a strip is padded to a whole word, each strip to four of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodewordLayout {
    strips: usize,
    /// Pixels across a strip.
    strip_width: usize,
    rows: usize,
    /// Bytes of a row of a strip, as stored.
    row_len: usize,
}

impl CodewordLayout {
    pub fn new(geometry: &Geometry) -> Self {
        let strip_width = if geometry.patch_width().is_multiple_of(4) { 4 } else { geometry.patch_width() };
        let (strips, rows) = (geometry.patch_width() / strip_width, geometry.patch_height());
        Self { strips, strip_width, rows, row_len: strip_width * geometry.channels() }
    }

    fn row_words(&self) -> usize {
        self.row_len.div_ceil(4)
    }

    fn strip_words(&self) -> usize {
        (self.rows * self.row_words()).next_multiple_of(4)
    }

    /// Bytes of a codeword on the device.
    pub fn len(&self) -> usize {
        self.strips * self.strip_words() * 4
    }

    /// Brings codewords as stored to this layout; `padded` holds zeros.
    pub fn pad(&self, codewords: &[u8], padded: &mut [u8]) {
        let stored = codewords.chunks_exact(self.strips * self.rows * self.row_len);
        for (stored, padded) in stored.zip(padded.chunks_exact_mut(self.len())) {
            for (strip, padded) in padded.chunks_exact_mut(self.strip_words() * 4).enumerate() {
                let rows = stored.chunks_exact(self.row_len).skip(strip).step_by(self.strips);
                for (row, padded) in rows.zip(padded.chunks_exact_mut(self.row_words() * 4)) {
                    padded[..row.len()].copy_from_slice(row);
                }
            }
        }
    }
}

/// The values of the shader's `override` constants for an archive and an output.
pub(crate) fn constants(
    geometry: &Geometry,
    rows: RowSize,
    spec: &OutputSpec,
    resident: bool,
    workgroup_size: u32,
) -> Constants {
    let g = geometry;
    let layout = CodewordLayout::new(g);
    let integers = [
        ("WORKGROUP_SIZE", workgroup_size as usize),
        ("IMAGE_WIDTH", g.image_width()),
        ("IMAGE_HEIGHT", g.image_height()),
        ("CHANNELS", g.channels()),
        ("PATCH_WIDTH", g.patch_width()),
        ("PATCH_HEIGHT", g.patch_height()),
        ("PATCH_COLUMNS", (g.patch_width() / 4).max(1)),
        ("GRID_WIDTH", g.grid_width()),
        ("GRID_HEIGHT", g.grid_height()),
        ("INDEX_BITS", rows.index_width.bits()),
        ("ROW_WORDS", rows.stride() as usize / 4),
        ("STRIP_WIDTH", layout.strip_width),
        ("STRIP_ROW_WORDS", layout.row_words()),
        ("STRIP_WORDS", layout.strip_words()),
        ("CODEWORD_WORDS", layout.len() / 4),
        ("PLANAR", usize::from(spec.layout == Layout::Nchw)),
        ("RESIDENT", usize::from(resident)),
        ("VALUES_PER_WORD", 4 / spec.dtype.size()),
    ];
    integers.into_iter().map(|(name, value)| (name, value as f64)).collect()
}
