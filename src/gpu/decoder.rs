//! An archive's codebooks on a GPU, and the batches decoded with them.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

use super::batch::{BatchPart, PendingBatch};
use super::coding::Coding;
use super::device::Device;
use super::kernels::{Kernels, workgroup_size};
use super::plan::{Chunk, Image, Kernel, Limits, Pass, Rows, Source, plan};
use crate::archive::Archive;
use crate::data::Data;
use crate::decode::{Decoder, check_call, slices};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::output::OutputSpec;

pub(super) const INDEX_USAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_DST);
pub(super) const PARAMS_USAGE: wgpu::BufferUsages = wgpu::BufferUsages::UNIFORM.union(wgpu::BufferUsages::COPY_DST);
pub(super) const OUTPUT_USAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC);

/// Passes whose parameters share a buffer: it stays small even when a batch takes thousands.
pub(super) const MOST_PASSES: u64 = 1024;

/// Decodes on a GPU. The codebooks are uploaded once; clones share them, threads too. What blocks a thread is waiting for a
/// batch, and a kernel that is being compiled: the first batch of each kind of output.
///
/// Batches that are decoded to host memory and do not fit in the device's are decoded in halves, one after the other, and
/// those again, down to single images. What stays on the device is not: ask for fewer samples.
#[derive(Debug, Clone)]
pub struct GpuDecoder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    device: Device,
    name: String,
    geometry: Geometry,
    limits: Limits,
    coding: Coding,
    kernels: Kernels,
}

/// What a batch is made of.
pub(super) enum Batch<'a> {
    Rows(&'a [&'a [u8]]),
    /// Images whose rows the device keeps, in these parts.
    Resident {
        images: &'a [Image],
        parts: &'a [wgpu::Buffer],
    },
}

impl Batch<'_> {
    fn len(&self) -> usize {
        match self {
            Batch::Rows(rows) => rows.len(),
            Batch::Resident { images, .. } => images.len(),
        }
    }
}

/// What a batch needs on the device, ready to be dispatched.
pub(super) struct Prepared {
    pub parts: Vec<BatchPart>,
    pub used: Vec<wgpu::Buffer>,
    dispatches: Vec<Dispatch>,
}

struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 2],
    /// Which part of the output it writes, and which bytes of that.
    part: usize,
    window: Range<u64>,
}

impl Prepared {
    pub fn record(&self, pass: &mut wgpu::ComputePass) {
        for Dispatch { pipeline, bind_group, workgroups: [x, y], .. } in &self.dispatches {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, bind_group, &[]);
            pass.dispatch_workgroups(*x, *y, 1);
        }
    }

    /// What the dispatches write.
    pub fn windows(&self) -> Vec<(&wgpu::Buffer, Range<u64>)> {
        let mut windows: Vec<_> =
            self.dispatches.iter().map(|dispatch| (dispatch.part, dispatch.window.clone())).collect();
        windows.dedup();
        windows.into_iter().map(|(part, window)| (self.parts[part].buffer(), window)).collect()
    }

    /// Gives the buffers back without a submission to wait for.
    pub fn recycle(self, device: &Device) {
        let outputs = self.parts.iter().map(|part| part.buffer().clone());
        outputs.chain(self.used).for_each(|buffer| device.pool().put(buffer));
    }
}

impl GpuDecoder {
    /// Uploads an archive's codebooks to a device.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device fails, for want of memory for example; [`Error::GpuLimit`] if it cannot hold a
    /// codeword, or not bind all codebooks of layers.
    pub fn new<D: Data>(device: &Device, archive: &Archive<D>) -> Result<Self> {
        let raw_limits = device.raw().limits();
        let kernels = Kernels::new(device, Coding::shader(archive.codec()), workgroup_size(&raw_limits))?;
        let limits = Limits {
            binding: raw_limits.max_storage_buffer_binding_size.min(raw_limits.max_buffer_size),
            buffer: raw_limits.max_buffer_size / 4 * 4,
            alignment: u64::from(raw_limits.min_storage_buffer_offset_alignment).max(4),
            workgroups_per_dimension: raw_limits.max_compute_workgroups_per_dimension.into(),
            workgroup_size: kernels.workgroup_size().into(),
        };
        let coding = Coding::new(device, &limits, archive)?;
        let (device, name, geometry) = (device.clone(), device.description().to_string(), *archive.geometry());
        Ok(Self { shared: Arc::new(Shared { device, name, geometry, limits, coding, kernels }) })
    }

    /// The device that decodes.
    pub fn device(&self) -> &Device {
        &self.shared.device
    }

    /// Compiles the kernel for an output now rather than with the first batch.
    ///
    /// # Errors
    /// [`Error::Normalization`] if the output does not fit the images; [`Error::Gpu`] if the device fails.
    pub fn compile(&self, spec: &OutputSpec) -> Result<()> {
        spec.check(self.geometry())?;
        let fast = self.shared.coding.sizes().fast_units.is_some();
        let kernel = if fast { Kernel::Fast } else { Kernel::Words };
        self.device().scope("compiling a kernel", || drop(self.pipeline(kernel, false, spec)))
    }

    fn pipeline(&self, kernel: Kernel, resident: bool, spec: &OutputSpec) -> wgpu::ComputePipeline {
        let Shared { device, coding, kernels, .. } = &*self.shared;
        // Shaders are told where records are in the same way, whether they are the batch's own or resident.
        let resident = resident && matches!(coding, Coding::Vq(_));
        kernels.get(device, kernel, resident, spec, || coding.constants(spec, resident, kernels.workgroup_size()))
    }

    /// The same decoder with workgroups of another size, for measuring; at most as many invocations as the device allows.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device fails.
    pub fn with_workgroup_size(&self, size: u32) -> Result<Self> {
        let Shared { device, name, geometry, limits, coding, kernels } = &*self.shared;
        let raw_limits = device.raw().limits();
        let most = raw_limits.max_compute_invocations_per_workgroup.min(raw_limits.max_compute_workgroup_size_x);
        let kernels = Kernels::new(device, kernels.source(), size.clamp(1, most))?;
        let limits = Limits { workgroup_size: kernels.workgroup_size().into(), ..*limits };
        let (device, name, coding) = (device.clone(), name.clone(), coding.clone());
        Ok(Self { shared: Arc::new(Shared { device, name, geometry: *geometry, limits, coding, kernels }) })
    }

    /// Invocations of a workgroup.
    pub fn workgroup_size(&self) -> u32 {
        self.shared.kernels.workgroup_size()
    }

    /// Hands a batch to the GPU and returns while it works. Several batches can be in flight; they run in order.
    ///
    /// # Errors
    /// As [`Decoder::decode_bytes`].
    pub fn submit(&self, rows: &[impl AsRef<[u8]>], spec: &OutputSpec) -> Result<PendingBatch> {
        self.submit_batch(&Batch::Rows(&slices(rows)), spec, None)
    }

    /// Hands a batch to the GPU, with the times when its kernels begin and end if asked for.
    pub(super) fn submit_batch(
        &self,
        batch: &Batch,
        spec: &OutputSpec,
        timestamps: Option<wgpu::ComputePassTimestampWrites>,
    ) -> Result<PendingBatch> {
        let prepared = self.prepare(batch, spec)?;
        let device = self.device();
        let submission = device.scope("decoding", || {
            let mut encoder = device.raw().create_command_encoder(&Default::default());
            let pass = wgpu::ComputePassDescriptor { label: None, timestamp_writes: timestamps };
            prepared.record(&mut encoder.begin_compute_pass(&pass));
            device.queue().submit([encoder.finish()])
        })?;
        let len = spec.batch_len(self.geometry(), batch.len());
        Ok(PendingBatch::new(device.clone(), prepared, submission, len))
    }

    /// Plans a batch and writes its rows, what the shader is told of images, and parameters to buffers.
    pub(super) fn prepare(&self, batch: &Batch, spec: &OutputSpec) -> Result<Prepared> {
        let Shared { device, geometry, limits, coding, .. } = &*self.shared;
        let source = match batch {
            Batch::Rows(rows) => {
                check_call(geometry, rows.len(), spec, spec.batch_len(geometry, rows.len()))?;
                coding.check_rows(rows)?;
                coding.source(rows)
            }
            Batch::Resident { images, .. } => {
                spec.check(geometry)?;
                Source::Resident(images)
            }
        };
        let chunks = plan(limits, &coding.sizes(), spec, &source).map_err(|too_small| device.limit_error(too_small))?;
        // By itself: a device has a future after a buffer that it has no room for, but none after such an upload.
        let outputs: Vec<_> = device.scope("making room for a batch", || {
            let len = |chunk: &Chunk| (chunk.output.end - chunk.output.start).next_multiple_of(4);
            chunks.iter().map(|chunk| device.pool().take(device.raw(), OUTPUT_USAGE, len(chunk))).collect()
        })?;
        device.scope("preparing a batch", || {
            let mut prepared = Prepared { parts: Vec::new(), used: Vec::new(), dispatches: Vec::new() };
            for (chunk, output) in chunks.iter().zip(outputs) {
                self.prepare_chunk(chunk, output, batch, spec, &mut prepared);
            }
            prepared
        })
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(super) fn coding(&self) -> &Coding {
        &self.shared.coding
    }

    fn prepare_chunk(
        &self,
        chunk: &Chunk,
        output: wgpu::Buffer,
        batch: &Batch,
        spec: &OutputSpec,
        prepared: &mut Prepared,
    ) {
        let Shared { device, limits, coding, .. } = &*self.shared;
        let (raw, pool) = (device.raw(), device.pool());
        let rows = self.upload(chunk.input.len, |view| {
            let Batch::Rows(rows) = batch else { return };
            for place in &chunk.input.rows {
                let (start, row) = (place.offset as usize, rows[place.sample]);
                view.slice(start..start + row.len()).copy_from_slice(row);
            }
        });
        let images: &[u8] = bytemuck::cast_slice(&chunk.input.images);
        let images = self.upload(images.len() as u64, |view| view.copy_from_slice(images));
        let resident = matches!(batch, Batch::Resident { .. });
        let alignment = u64::from(raw.limits().min_uniform_buffer_offset_alignment).max(4);
        let values: Vec<_> = chunk.passes.iter().map(|pass| coding.params(pass, spec)).collect();
        let len = values.first().map_or(0, Vec::len) as u64;
        let stride = len.next_multiple_of(alignment).max(alignment);
        let per_buffer = (limits.buffer / stride).clamp(1, MOST_PASSES) as usize;
        for (passes, values) in chunk.passes.chunks(per_buffer).zip(values.chunks(per_buffer)) {
            let params = pool.take(raw, PARAMS_USAGE, stride * passes.len() as u64);
            let mut bytes = Vec::with_capacity(stride as usize * passes.len());
            for (pass, values) in passes.iter().zip(values) {
                let start = bytes.len() as u64;
                bytes.extend_from_slice(values);
                bytes.resize((start + stride) as usize, 0);
                prepared.dispatches.push(Dispatch {
                    pipeline: self.pipeline(pass.kernel, resident, spec),
                    bind_group: self.bind_group(pass, batch, (&params, start..start + len), [&rows, &images], &output),
                    workgroups: pass.workgroups,
                    part: prepared.parts.len(),
                    window: pass.window.clone(),
                });
            }
            device.queue().write_buffer(&params, 0, &bytes);
            prepared.used.push(params);
        }
        prepared.used.extend([rows, images].into_iter().flatten().map(|(buffer, _)| buffer));
        prepared.parts.push(BatchPart::new(output, chunk.output.clone()));
    }

    /// A buffer of so many bytes, which `write` gives, and how many they are; `None` if there are none.
    fn upload(&self, len: u64, write: impl FnOnce(&mut wgpu::QueueWriteBufferView)) -> Option<(wgpu::Buffer, u64)> {
        let device = self.device();
        let size = NonZeroU64::new(len)?;
        let buffer = device.pool().take(device.raw(), INDEX_USAGE, len);
        // The buffer may be longer than asked for, and the view is `None` only after an error that the scope around
        // this reports.
        if let Some(mut view) = device.queue().write_buffer_with(&buffer, 0, size) {
            write(&mut view);
        }
        Some((buffer, len))
    }

    fn bind_group(
        &self,
        pass: &Pass,
        batch: &Batch,
        (params, params_range): (&wgpu::Buffer, Range<u64>),
        [rows, images]: [&Option<(wgpu::Buffer, u64)>; 2],
        output: &wgpu::Buffer,
    ) -> wgpu::BindGroup {
        let Shared { device, coding, kernels, .. } = &*self.shared;
        let codebook = coding.codebook(pass.codebook_part);
        fn entry(binding: u32, buffer: &wgpu::Buffer, range: Range<u64>) -> wgpu::BindGroupEntry<'_> {
            let size = NonZeroU64::new(range.end - range.start);
            let resource = wgpu::BufferBinding { buffer, offset: range.start, size };
            wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(resource) }
        }
        fn whole(binding: u32, buffer: &wgpu::Buffer) -> wgpu::BindGroupEntry<'_> {
            entry(binding, buffer, 0..buffer.size())
        }
        // Something has to be bound as what a kernel does not look at.
        let rows = match (&pass.rows, batch, rows) {
            (Rows::Resident(part), Batch::Resident { parts, .. }, _) => whole(1, &parts[*part]),
            (Rows::Uploaded(range), _, Some((buffer, _))) => entry(1, buffer, range.clone()),
            _ => whole(1, codebook),
        };
        let images = match images {
            Some((buffer, len)) => entry(4, buffer, 0..*len),
            None => whole(4, codebook),
        };
        device.raw().create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &kernels.layout,
            entries: &[
                entry(0, params, params_range),
                rows,
                whole(2, codebook),
                entry(3, output, pass.window.clone()),
                images,
            ],
        })
    }
}

impl Decoder for GpuDecoder {
    fn geometry(&self) -> &Geometry {
        &self.shared.geometry
    }

    fn device_name(&self) -> &str {
        &self.shared.name
    }

    fn decode_bytes(&self, rows: &[&[u8]], spec: &OutputSpec, output: &mut [u8]) -> Result<()> {
        let expected = spec.batch_len(self.geometry(), rows.len());
        if output.len() != expected {
            return Err(Error::OutputLength { found: output.len(), expected });
        }
        match self.submit(rows, spec).and_then(|batch| batch.read_into(output)) {
            // One half after the other may fit.
            Err(Error::GpuMemory { .. }) if rows.len() > 1 => {
                let (rows, other_rows) = rows.split_at(rows.len() / 2);
                let (output, other_output) = output.split_at_mut(spec.batch_len(self.geometry(), rows.len()));
                self.decode_bytes(rows, spec, output)?;
                self.decode_bytes(other_rows, spec, other_output)
            }
            result => result,
        }
    }
}
