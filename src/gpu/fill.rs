//! The shader `fill.wgsl`: storing bytes and nothing else, the limit of every decoding kernel.

use std::borrow::Cow;
use std::num::NonZeroU64;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};

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

/// Fills of a batch's output, ready to be dispatched: of the same windows of the same buffers that its kernels write.
pub(super) struct Fill {
    pipeline: wgpu::ComputePipeline,
    dispatches: Vec<(wgpu::BindGroup, [u32; 2])>,
}

impl Fill {
    /// `windows` are parts of buffers; `quads` is whether four words are stored at a time rather than one.
    pub fn new(
        device: &Device,
        workgroup_size: u32,
        quads: bool,
        windows: &[(&wgpu::Buffer, Range<u64>)],
    ) -> Result<Self> {
        let raw = device.raw();
        let most = raw.limits().max_compute_workgroups_per_dimension;
        device.scope("preparing a fill", || {
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
            let dispatch = |(buffer, range): &(&wgpu::Buffer, Range<u64>)| {
                let units = ((range.end - range.start) / if quads { 16 } else { 4 }) as u32;
                let workgroups = units.div_ceil(workgroup_size);
                let y = workgroups.div_ceil(most).max(1);
                let x = workgroups.div_ceil(y);
                let params = Params { first_unit: 0, end_unit: units, stride: x * workgroup_size, value: 0x2a2a_2a2a };
                let uniform = raw.create_buffer(&wgpu::BufferDescriptor {
                    label: None,
                    size: size_of::<Params>() as u64,
                    usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                });
                device.queue().write_buffer(&uniform, 0, bytemuck::bytes_of(&params));
                let output =
                    wgpu::BufferBinding { buffer, offset: range.start, size: NonZeroU64::new(range.end - range.start) };
                let bind_group = raw.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: None,
                    layout: &pipeline.get_bind_group_layout(0),
                    entries: &[
                        wgpu::BindGroupEntry { binding: 0, resource: uniform.as_entire_binding() },
                        wgpu::BindGroupEntry { binding: 1, resource: wgpu::BindingResource::Buffer(output) },
                    ],
                });
                (bind_group, [x, y])
            };
            Self { dispatches: windows.iter().map(dispatch).collect(), pipeline }
        })
    }

    pub fn record(&self, pass: &mut wgpu::ComputePass) {
        pass.set_pipeline(&self.pipeline);
        for (bind_group, [x, y]) in &self.dispatches {
            pass.set_bind_group(0, bind_group, &[]);
            pass.dispatch_workgroups(*x, *y, 1);
        }
    }
}
