//! The shader `decode.wgsl`: its kernels, constants and parameters.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};

use super::device::Device;
use super::plan::{Pass, Sizes};
use crate::error::Result;
use crate::output::{Dtype, Layout, OutputSpec};

pub(super) const SOURCE: &str = include_str!("../../shaders/decode.wgsl");

/// Invocations of a workgroup where the device allows as many. The kernels were measured with this size alone, on
/// software adapters; no real GPU has been asked yet.
pub(super) const WORKGROUP_SIZE: u32 = 128;

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
    pub padding: [u32; 2],
}

impl Params {
    /// The parameters of a pass; `last_codeword` and the range of codewords are the codebook's to add.
    pub fn new(pass: &Pass, spec: &OutputSpec, channels: usize) -> Self {
        let mut params = Self {
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

/// Words of one patch row of a codeword on the device.
pub(crate) fn codeword_row_words(sizes: &Sizes) -> usize {
    sizes.geometry.patch_row_len().div_ceil(4)
}

/// The values of the shader's `override` constants for an archive and an output.
pub(crate) fn constants(sizes: &Sizes, spec: &OutputSpec, workgroup_size: u32) -> Vec<(&'static str, f64)> {
    let g = &sizes.geometry;
    let row_words = codeword_row_words(sizes);
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
        ("CODEWORD_WORDS", row_words * g.patch_height()),
        ("CODEWORD_ROW_WORDS", row_words),
        ("PLANAR", usize::from(spec.layout == Layout::Nchw)),
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
    made: Mutex<HashMap<(Kernel, Dtype, Layout), wgpu::ComputePipeline>>,
}

impl Pipelines {
    pub fn new(device: &Device) -> Result<Self> {
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
                ],
            });
            let pipeline_layout = raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some("decode"),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let workgroup_size = workgroup_size(&raw.limits());
            Self { module, layout, pipeline_layout, workgroup_size, made: Mutex::default() }
        })
    }

    pub fn workgroup_size(&self) -> u32 {
        self.workgroup_size
    }

    pub fn get(&self, device: &Device, kernel: Kernel, sizes: &Sizes, spec: &OutputSpec) -> wgpu::ComputePipeline {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            device.raw().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel.entry_point()),
                layout: Some(&self.pipeline_layout),
                module: &self.module,
                entry_point: Some(kernel.entry_point()),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &constants(sizes, spec, self.workgroup_size),
                    ..Default::default()
                },
                cache: None,
            })
        };
        made.entry((kernel, spec.dtype, spec.layout)).or_insert_with(make).clone()
    }
}

pub(crate) fn workgroup_size(limits: &wgpu::Limits) -> u32 {
    WORKGROUP_SIZE.min(limits.max_compute_invocations_per_workgroup).min(limits.max_compute_workgroup_size_x).max(1)
}
