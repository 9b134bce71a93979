//! The compiled kernels of a codec, and what all of them are told.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};

use super::device::Device;
use super::plan::{Kernel, Pass};
use crate::error::Result;
use crate::output::{Dtype, Layout, OutputSpec};

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

/// A shader that decodes.
#[derive(Debug)]
pub(crate) struct Source {
    /// The name of its file, without the extension.
    pub name: &'static str,
    /// Its text in WGSL.
    pub text: &'static str,
    /// Its entry points for [`Kernel::Fast`]: for bytes, half floats and floats.
    pub fast: [&'static str; 3],
}

impl Source {
    pub fn entry_point(&self, kernel: Kernel, dtype: Dtype) -> &'static str {
        match (kernel, dtype) {
            (Kernel::Words, _) => "words",
            (Kernel::Fast, Dtype::U8) => self.fast[0],
            (Kernel::Fast, Dtype::F16) => self.fast[1],
            (Kernel::Fast, Dtype::F32) => self.fast[2],
        }
    }
}

/// The values of a shader's `override` constants.
pub(crate) type Constants = Vec<(&'static str, f64)>;

/// What the uniform buffer of every codec begins with, as `Params` in the shaders.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Params {
    pub scale: [f32; 4],
    pub bias: [f32; 4],
    pub first_unit: u32,
    pub end_unit: u32,
    pub stride: u32,
    pub first_row: u32,
    pub first_value: u32,
    pub end_row: u32,
    pub merge: u32,
    pub first_sample: u32,
    pub samples: u32,
    pub part: u32,
}

impl Params {
    pub fn new(pass: &Pass, spec: &OutputSpec, channels: usize) -> Self {
        let mut params = Self {
            scale: [0.0; 4],
            bias: [0.0; 4],
            first_unit: pass.first_unit,
            end_unit: pass.end_unit,
            stride: pass.stride,
            first_row: pass.first_row,
            first_value: pass.first_value,
            end_row: pass.end_row,
            merge: pass.merge.into(),
            first_sample: pass.first_sample,
            samples: pass.samples,
            part: pass.part,
        };
        for channel in 0..channels {
            (params.scale[channel], params.bias[channel]) = spec.scale_bias(channel);
        }
        params
    }
}

/// The compiled kernels of one archive, made when first used.
#[derive(Debug)]
pub(super) struct Kernels {
    source: &'static Source,
    module: wgpu::ShaderModule,
    pub layout: wgpu::BindGroupLayout,
    pipeline_layout: wgpu::PipelineLayout,
    workgroup_size: u32,
    made: Mutex<HashMap<(Kernel, Dtype, Layout, bool), wgpu::ComputePipeline>>,
}

impl Kernels {
    pub fn new(device: &Device, source: &'static Source, workgroup_size: u32) -> Result<Self> {
        device.scope("compiling a shader", || {
            let raw = device.raw();
            let module = raw.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(source.name),
                source: wgpu::ShaderSource::Wgsl(Cow::Borrowed(source.text)),
            });
            let buffer = |binding, ty| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
                count: None,
            };
            let storage = |read_only| wgpu::BufferBindingType::Storage { read_only };
            let layout = raw.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(source.name),
                entries: &[
                    buffer(0, wgpu::BufferBindingType::Uniform),
                    buffer(1, storage(true)),
                    buffer(2, storage(true)),
                    buffer(3, storage(false)),
                    buffer(4, storage(true)),
                ],
            });
            let pipeline_layout = raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(source.name),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            Self { source, module, layout, pipeline_layout, workgroup_size, made: Mutex::default() }
        })
    }

    pub fn source(&self) -> &'static Source {
        self.source
    }

    pub fn workgroup_size(&self) -> u32 {
        self.workgroup_size
    }

    /// The kernel for an output, reading the batch's own rows or resident ones, with the constants that `constants` gives.
    pub fn get(
        &self,
        device: &Device,
        kernel: Kernel,
        resident: bool,
        spec: &OutputSpec,
        constants: impl FnOnce() -> Constants,
    ) -> wgpu::ComputePipeline {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let entry_point = Some(self.source.entry_point(kernel, spec.dtype));
            device.raw().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: entry_point,
                layout: Some(&self.pipeline_layout),
                module: &self.module,
                entry_point,
                compilation_options: wgpu::PipelineCompilationOptions { constants: &constants(), ..Default::default() },
                cache: None,
            })
        };
        made.entry((kernel, spec.dtype, spec.layout, resident)).or_insert_with(make).clone()
    }
}
