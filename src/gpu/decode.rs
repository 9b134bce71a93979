//! The shader `decode.wgsl`: its kernels, constants and parameters.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};

use super::device::Device;
use super::plan::{Pass, Rows, Sizes};
use crate::error::Result;
use crate::geometry::Geometry;
use crate::output::{Dtype, Layout, OutputSpec};

pub(super) const SOURCE: &str = include_str!("../../shaders/decode.wgsl");

/// Invocations of a workgroup where the device allows as many. `cargo bench --bench gpu` measures all sizes; what they took,
/// relative to 128, with batches of 64 images of 224x224 (on lavapipe processor time, as others use the machine):
///
/// | adapter | output | patch | 32 | 64 | 128 | 256 |
/// |---|---|---|---|---|---|---|
/// | lavapipe | u8 NHWC | 4x4 | 1.07 | 1.04 | 1 | 0.99 |
/// | lavapipe | u8 NHWC | 2x2 | 1.09 | 1.02 | 1 | 0.98 |
/// | lavapipe | f32 NCHW | 4x4 | 1.04 | 1.02 | 1 | 1.01 |
/// | lavapipe | f32 NCHW | 2x2 | 1.03 | 1.01 | 1 | 1.00 |
///
/// Runs differ by 3 %, so 128 and 256 are the same there; 256 is also the most that SwiftShader has. The shape, four
/// pixels of every row of a patch to an invocation, was chosen there too: a word to an invocation took twice as long for
/// u8, a value five times and four values in a row 1.6 times as long for f32. No real GPU has been asked yet: its rows go
/// here, and a size that depends on the adapter or the kernel into this function.
pub(super) fn workgroup_size(limits: &wgpu::Limits) -> u32 {
    const BEST: u32 = 128;
    BEST.min(limits.max_compute_invocations_per_workgroup).min(limits.max_compute_workgroup_size_x).max(1)
}

/// An entry point of the shader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    Columns(Dtype),
    Words,
}

impl Kernel {
    pub fn columns(dtype: Dtype) -> Self {
        Kernel::Columns(dtype)
    }

    pub fn entry_point(self) -> &'static str {
        match self {
            Kernel::Columns(Dtype::U8) => "columns_u8",
            Kernel::Columns(Dtype::F16) => "columns_f16",
            Kernel::Columns(Dtype::F32) => "columns_f32",
            Kernel::Words => "words",
        }
    }
}

/// The uniform buffer, as `Params` in the shader.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Params {
    pub scale: [f32; 4],
    pub bias: [f32; 4],
    pub first_unit: u32,
    pub end_unit: u32,
    pub stride: u32,
    pub last_codeword: u32,
    pub first_row: u32,
    pub first_value: u32,
    pub end_row: u32,
    pub merge: u32,
    pub first_sample: u32,
    pub samples: u32,
    pub first_patch: u32,
    pub patches: u32,
    pub first_codeword: u32,
    pub codewords: u32,
    pub first_stored: u32,
    pub stored: u32,
}

impl Params {
    /// The parameters of a pass; `last_codeword` and the range of codewords are the codebook's to add.
    pub fn new(pass: &Pass, spec: &OutputSpec, channels: usize) -> Self {
        let (first_stored, stored) = match &pass.rows {
            Rows::Uploaded(_) => (0, 0),
            Rows::Resident { first, len, .. } => (*first, *len),
        };
        let mut params = Self {
            first_stored,
            stored,
            first_unit: pass.first_unit,
            end_unit: pass.end_unit,
            stride: pass.stride,
            first_row: pass.first_row,
            first_value: pass.first_value,
            end_row: pass.end_row,
            merge: pass.merge.into(),
            first_sample: pass.first_sample,
            samples: pass.samples,
            first_patch: pass.first_patch,
            patches: pass.patches,
            ..Self::zeroed()
        };
        for channel in 0..channels {
            (params.scale[channel], params.bias[channel]) = spec.scale_bias(channel);
        }
        params
    }
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
    sizes: &Sizes,
    spec: &OutputSpec,
    resident: bool,
    workgroup_size: u32,
) -> Vec<(&'static str, f64)> {
    let g = &sizes.geometry;
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
        ("INDEX_BITS", sizes.index_width.bits()),
        ("ROW_WORDS", sizes.row_stride() as usize / 4),
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

/// The compiled kernels of one archive, made when first used.
#[derive(Debug)]
pub(crate) struct Pipelines {
    module: wgpu::ShaderModule,
    pub layout: wgpu::BindGroupLayout,
    pipeline_layout: wgpu::PipelineLayout,
    workgroup_size: u32,
    made: Mutex<HashMap<(Kernel, Dtype, Layout, bool), wgpu::ComputePipeline>>,
}

impl Pipelines {
    pub fn new(device: &Device, workgroup_size: u32) -> Result<Self> {
        device.scope("compiling decode.wgsl", || {
            let raw = device.raw();
            let module = raw.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some("decode"),
                source: wgpu::ShaderSource::Wgsl(Cow::Borrowed(SOURCE)),
            });
            let buffer = |binding, ty| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
                count: None,
            };
            let storage = |read_only| wgpu::BufferBindingType::Storage { read_only };
            let layout = raw.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some("decode"),
                entries: &[
                    buffer(0, wgpu::BufferBindingType::Uniform),
                    buffer(1, storage(true)),
                    buffer(2, storage(true)),
                    buffer(3, storage(false)),
                    buffer(4, storage(true)),
                ],
            });
            let pipeline_layout = raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some("decode"),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            Self { module, layout, pipeline_layout, workgroup_size, made: Mutex::default() }
        })
    }

    pub fn workgroup_size(&self) -> u32 {
        self.workgroup_size
    }

    /// The kernel for an output, reading the batch's own index rows or resident ones.
    pub fn get(
        &self,
        device: &Device,
        kernel: Kernel,
        resident: bool,
        sizes: &Sizes,
        spec: &OutputSpec,
    ) -> wgpu::ComputePipeline {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            device.raw().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel.entry_point()),
                layout: Some(&self.pipeline_layout),
                module: &self.module,
                entry_point: Some(kernel.entry_point()),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &constants(sizes, spec, resident, self.workgroup_size),
                    ..Default::default()
                },
                cache: None,
            })
        };
        made.entry((kernel, spec.dtype, spec.layout, resident)).or_insert_with(make).clone()
    }
}
