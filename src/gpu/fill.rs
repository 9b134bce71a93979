//! The shader `fill.wgsl`: storing bytes and nothing else, the limit of every decoding kernel.

use std::borrow::Cow;

use bytemuck::{Pod, Zeroable};

use super::decode::workgroup_size;
use super::decoder::OUTPUT_USAGE;
use super::device::Device;
use crate::error::Result;

pub(super) const ENTRY_POINTS: [&str; 2] = ["fill_words", "fill_quads"];
pub(super) const SOURCE: &str = include_str!("../../shaders/fill.wgsl");

/// The uniform buffer, as `Params` in the shader.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Params {
    pub first_unit: u32,
    pub end_unit: u32,
    pub stride: u32,
    pub value: u32,
}

/// A fill of one buffer, ready to be dispatched.
pub(super) struct Fill {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 2],
}

impl Fill {
    /// Prepares to store `bytes` bytes, rounded to 16 and down to what one binding holds; returns how many.
    pub fn new(device: &Device, bytes: u64, quads: bool) -> Result<(Self, u64)> {
        let raw = device.raw();
        let limits = raw.limits();
        let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(1 << 30);
        let bytes = (bytes.min(most) / 16 * 16).max(16);
        let workgroup_size = workgroup_size(&limits);
        let units = (bytes / if quads { 16 } else { 4 }) as u32;
        let x = units.div_ceil(workgroup_size).clamp(1, limits.max_compute_workgroups_per_dimension);
        let y = units.div_ceil(workgroup_size).div_ceil(x);
        let fill = device.scope("preparing a fill", || {
            let module = raw.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some("fill"),
                source: wgpu::ShaderSource::Wgsl(Cow::Borrowed(SOURCE)),
            });
            let entry_point = ENTRY_POINTS[usize::from(quads)];
            let pipeline = raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(entry_point),
                layout: None,
                module: &module,
                entry_point: Some(entry_point),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[("WORKGROUP_SIZE", workgroup_size.into())],
                    ..Default::default()
                },
                cache: None,
            });
            let params = Params { first_unit: 0, end_unit: units, stride: x * workgroup_size, value: 0x2a2a_2a2a };
            let buffer = |usage, size| {
                raw.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
            };
            let uniform = buffer(wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST, 16);
            device.queue().write_buffer(&uniform, 0, bytemuck::bytes_of(&params));
            let output = buffer(OUTPUT_USAGE, bytes);
            let bind_group = raw.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &pipeline.get_bind_group_layout(0),
                entries: &[
                    wgpu::BindGroupEntry { binding: 0, resource: uniform.as_entire_binding() },
                    wgpu::BindGroupEntry { binding: 1, resource: output.as_entire_binding() },
                ],
            });
            Self { pipeline, bind_group, workgroups: [x, y] }
        })?;
        Ok((fill, bytes))
    }

    pub fn record(&self, pass: &mut wgpu::ComputePass) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(self.workgroups[0], self.workgroups[1], 1);
    }
}
