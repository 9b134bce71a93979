//! An archive's codebook on a GPU, and the batches decoded with it.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

use super::batch::{BatchPart, PendingBatch};
use super::decode::{CodewordLayout, Kernel, Params, Pipelines, workgroup_size};
use super::device::Device;
use super::plan::{Chunk, Input, Limits, Pass, Rows, Sizes, Source, TooSmall, plan};
use crate::archive::Archive;
use crate::decode::{Decoder, check_call, check_row_lens};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::output::OutputSpec;

pub(super) const INDEX_USAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_DST);
pub(super) const PARAMS_USAGE: wgpu::BufferUsages = wgpu::BufferUsages::UNIFORM.union(wgpu::BufferUsages::COPY_DST);
pub(super) const OUTPUT_USAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC);

/// Passes whose parameters share a buffer: it stays small even when a batch takes thousands.
pub(super) const MOST_PASSES: u64 = 1024;

/// Codebook bytes that are handed to the driver at a time.
const UPLOAD: usize = 32 << 20;

/// Decodes on a GPU. The codebook is uploaded once; clones share it.
#[derive(Debug, Clone)]
pub struct GpuDecoder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    device: Device,
    name: String,
    sizes: Sizes,
    limits: Limits,
    codewords: usize,
    codebook: Vec<CodebookPart>,
    pipelines: Pipelines,
}

/// Codewords in a buffer that can be bound as a whole.
#[derive(Debug, Clone)]
pub(super) struct CodebookPart {
    pub buffer: wgpu::Buffer,
    pub codewords: Range<usize>,
}

/// What a batch is made of.
pub(super) enum Batch<'a> {
    Rows(&'a [&'a [u8]]),
    /// Samples among the rows that the device keeps, in parts of so many.
    Resident {
        samples: &'a [u32],
        parts: &'a [wgpu::Buffer],
        per_part: u32,
    },
}

impl Batch<'_> {
    fn len(&self) -> usize {
        match self {
            Batch::Rows(rows) => rows.len(),
            Batch::Resident { samples, .. } => samples.len(),
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
    /// Uploads an archive's codebook to a device.
    ///
    /// # Errors
    /// [`Error::OtherCodec`] for an archive of a codec that it does not decode; [`Error::Gpu`] if the device fails, for
    /// want of memory for example; [`Error::GpuLimit`] if it cannot hold a codeword.
    pub fn new<D: AsRef<[u8]>>(device: &Device, archive: &Archive<D>) -> Result<Self> {
        let vq = archive.vq()?;
        let sizes = Sizes { geometry: *archive.geometry(), index_width: vq.index_width() };
        let raw_limits = device.raw().limits();
        let pipelines = Pipelines::new(device, workgroup_size(&raw_limits))?;
        let limits = Limits {
            binding: raw_limits.max_storage_buffer_binding_size.min(raw_limits.max_buffer_size),
            buffer: raw_limits.max_buffer_size / 4 * 4,
            alignment: u64::from(raw_limits.min_storage_buffer_offset_alignment).max(4),
            workgroups_per_dimension: raw_limits.max_compute_workgroups_per_dimension.into(),
            workgroup_size: pipelines.workgroup_size().into(),
        };
        let layout = CodewordLayout::new(&sizes.geometry);
        let (stored_len, most) = (sizes.geometry.codeword_len(), limits.binding.min(limits.buffer));
        let pad = |stored: &[u8], padded: &mut [u8]| layout.pad(stored, padded);
        let codebook = upload_codebook(device, vq.codebook(), stored_len, layout.len(), most, pad)?;
        let name = device.description().to_string();
        let codewords = vq.codewords();
        let device = device.clone();
        Ok(Self { shared: Arc::new(Shared { device, name, sizes, limits, codewords, codebook, pipelines }) })
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
        let Shared { device, sizes, codebook, pipelines, .. } = &*self.shared;
        spec.check(&sizes.geometry)?;
        let columns = sizes.fit_columns() && codebook.len() == 1;
        let kernel = if columns { Kernel::columns(spec.dtype) } else { Kernel::Words };
        device.scope("compiling a kernel", || drop(pipelines.get(device, kernel, false, sizes, spec)))
    }

    /// The same decoder with workgroups of another size, for measuring; at most as many invocations as the device allows.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device fails.
    pub fn with_workgroup_size(&self, size: u32) -> Result<Self> {
        let Shared { device, name, sizes, limits, codewords, codebook, .. } = &*self.shared;
        let raw_limits = device.raw().limits();
        let most = raw_limits.max_compute_invocations_per_workgroup.min(raw_limits.max_compute_workgroup_size_x);
        let pipelines = Pipelines::new(device, size.clamp(1, most))?;
        let limits = Limits { workgroup_size: pipelines.workgroup_size().into(), ..*limits };
        let (device, name, codebook) = (device.clone(), name.clone(), codebook.clone());
        let shared = Shared { device, name, sizes: *sizes, limits, codewords: *codewords, codebook, pipelines };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Invocations of a workgroup.
    pub fn workgroup_size(&self) -> u32 {
        self.shared.pipelines.workgroup_size()
    }

    /// Hands a batch to the GPU and returns while it works. Several batches can be in flight; they run in order.
    ///
    /// # Errors
    /// As [`Decoder::decode_bytes`].
    pub fn submit(&self, rows: &[&[u8]], spec: &OutputSpec) -> Result<PendingBatch> {
        self.submit_batch(&Batch::Rows(rows), spec, None)
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

    /// Plans a batch and writes its index rows, or the numbers of resident ones, and parameters to buffers.
    pub(super) fn prepare(&self, batch: &Batch, spec: &OutputSpec) -> Result<Prepared> {
        let Shared { device, sizes, limits, codebook, .. } = &*self.shared;
        let source = match batch {
            Batch::Rows(rows) => {
                let len = spec.batch_len(&sizes.geometry, rows.len());
                check_call(&sizes.geometry, rows.len(), spec, len)?;
                check_row_lens(sizes.index_width.row_len(sizes.geometry.patches()), rows)?;
                Source::Host(rows.len())
            }
            Batch::Resident { samples, per_part, .. } => {
                spec.check(&sizes.geometry)?;
                Source::Resident { samples, per_part: *per_part }
            }
        };
        let chunks =
            plan(limits, sizes, spec, source, codebook.len()).map_err(|too_small| self.limit_error(too_small))?;
        device.scope("preparing a batch", || {
            let mut prepared = Prepared { parts: Vec::new(), used: Vec::new(), dispatches: Vec::new() };
            chunks.iter().for_each(|chunk| self.prepare_chunk(chunk, batch, spec, &mut prepared));
            prepared
        })
    }

    pub(super) fn limit_error(&self, TooSmall { limit, found, needed }: TooSmall) -> Error {
        Error::GpuLimit { adapter: self.shared.name.clone(), limit, found, needed }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(super) fn sizes(&self) -> &Sizes {
        &self.shared.sizes
    }

    fn prepare_chunk(&self, chunk: &Chunk, batch: &Batch, spec: &OutputSpec, prepared: &mut Prepared) {
        let Shared { device, limits, .. } = &*self.shared;
        let (raw, pool) = (device.raw(), device.pool());
        let output = pool.take(raw, OUTPUT_USAGE, (chunk.output.end - chunk.output.start).next_multiple_of(4));
        let input_len = match &chunk.input {
            Input::Rows { len, .. } => *len,
            Input::Images(images) => size_of_val(images.as_slice()) as u64,
        };
        let input = pool.take(raw, INDEX_USAGE, input_len);
        // The buffer may be longer than asked for, and the view is `None` only after an error that the scope around
        // this reports.
        let size = NonZeroU64::new(input_len);
        if let Some(mut view) = size.and_then(|size| device.queue().write_buffer_with(&input, 0, size)) {
            match (&chunk.input, batch) {
                (Input::Rows { places, .. }, Batch::Rows(rows)) => {
                    for place in places {
                        let (start, row) = (place.offset as usize, rows[place.sample]);
                        view.slice(start..start + row.len()).copy_from_slice(row);
                    }
                }
                (Input::Images(images), _) => view.copy_from_slice(bytemuck::cast_slice(images)),
                (Input::Rows { .. }, Batch::Resident { .. }) => {}
            }
        }
        let resident = matches!(batch, Batch::Resident { .. });
        let alignment = u64::from(raw.limits().min_uniform_buffer_offset_alignment).max(4);
        let params_stride = (size_of::<Params>() as u64).next_multiple_of(alignment);
        let per_buffer = (limits.buffer / params_stride).clamp(1, MOST_PASSES) as usize;
        for passes in chunk.passes.chunks(per_buffer) {
            let params = pool.take(raw, PARAMS_USAGE, params_stride * passes.len() as u64);
            let mut bytes = vec![0; params_stride as usize * passes.len()];
            for ((pass, values), start) in passes.iter().zip(bytes.chunks_exact_mut(params_stride as usize)).zip(0..) {
                values[..size_of::<Params>()].copy_from_slice(bytemuck::bytes_of(&self.params(pass, spec)));
                let params = (&params, start * params_stride..start * params_stride + size_of::<Params>() as u64);
                let bind_group = self.bind_group(pass, batch, params, (&input, input_len), &output);
                let Shared { pipelines, sizes, .. } = &*self.shared;
                prepared.dispatches.push(Dispatch {
                    pipeline: pipelines.get(device, pass.kernel, resident, sizes, spec),
                    bind_group,
                    workgroups: pass.workgroups,
                    part: prepared.parts.len(),
                    window: pass.window.clone(),
                });
            }
            device.queue().write_buffer(&params, 0, &bytes);
            prepared.used.push(params);
        }
        prepared.used.push(input);
        prepared.parts.push(BatchPart::new(output, chunk.output.clone()));
    }

    fn params(&self, pass: &Pass, spec: &OutputSpec) -> Params {
        let part = &self.shared.codebook[pass.codebook_part].codewords;
        Params {
            last_codeword: (self.shared.codewords - 1) as u32,
            first_codeword: part.start as u32,
            codewords: part.len() as u32,
            ..Params::new(pass, spec, self.geometry().channels())
        }
    }

    fn bind_group(
        &self,
        pass: &Pass,
        batch: &Batch,
        (params, params_range): (&wgpu::Buffer, Range<u64>),
        (input, input_len): (&wgpu::Buffer, u64),
        output: &wgpu::Buffer,
    ) -> wgpu::BindGroup {
        let Shared { device, codebook, pipelines, .. } = &*self.shared;
        let codebook = &codebook[pass.codebook_part].buffer;
        fn entry(binding: u32, buffer: &wgpu::Buffer, range: Range<u64>) -> wgpu::BindGroupEntry<'_> {
            let size = NonZeroU64::new(range.end - range.start);
            let resource = wgpu::BufferBinding { buffer, offset: range.start, size };
            wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(resource) }
        }
        fn whole(binding: u32, buffer: &wgpu::Buffer) -> wgpu::BindGroupEntry<'_> {
            entry(binding, buffer, 0..buffer.size())
        }
        let [rows, images] = match (&pass.rows, batch) {
            (Rows::Resident { part, .. }, Batch::Resident { parts, .. }) => {
                [whole(1, &parts[*part]), entry(4, input, 0..input_len)]
            }
            // Something has to be bound as the images that these kernels do not look at.
            (Rows::Uploaded(range), _) => [entry(1, input, range.clone()), whole(4, codebook)],
            (Rows::Resident { .. }, Batch::Rows(_)) => [whole(1, input), whole(4, codebook)],
        };
        device.raw().create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipelines.layout,
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

/// Uploads a codebook in as many parts of at most `most` bytes as it takes. `pad` brings codewords of `stored_len` bytes to
/// the `len` that they have on the device; what it leaves is zero.
pub(super) fn upload_codebook(
    device: &Device,
    codebook: &[u8],
    stored_len: usize,
    len: usize,
    most: u64,
    pad: impl Fn(&[u8], &mut [u8]),
) -> Result<Vec<CodebookPart>> {
    let per_part = (most / len as u64) as usize;
    if per_part == 0 {
        return Err(Error::GpuLimit {
            adapter: device.description().to_string(),
            limit: "max_storage_buffer_binding_size",
            found: most,
            needed: len as u64,
        });
    }
    let queue = device.queue();
    let mut parts = Vec::new();
    for (i, part) in codebook.chunks(per_part.saturating_mul(stored_len)).enumerate() {
        let codewords = part.len() / stored_len;
        let buffer = device.scope("uploading the codebook", || {
            device.raw().create_buffer(&wgpu::BufferDescriptor {
                label: Some("codebook"),
                size: (codewords * len) as u64,
                usage: INDEX_USAGE,
                mapped_at_creation: false,
            })
        })?;
        let per_upload = UPLOAD / len;
        for (j, stored) in part.chunks(per_upload * stored_len).enumerate() {
            let mut padded = vec![0; stored.len() / stored_len * len];
            pad(stored, &mut padded);
            device.scope("uploading the codebook", || {
                queue.write_buffer(&buffer, (j * per_upload * len) as u64, &padded);
                // Lets the driver copy this piece, and free its staging memory, before the next.
                queue.submit([])
            })?;
        }
        parts.push(CodebookPart { buffer, codewords: i * per_part..i * per_part + codewords });
    }
    Ok(parts)
}

impl Decoder for GpuDecoder {
    fn geometry(&self) -> &Geometry {
        &self.shared.sizes.geometry
    }

    fn device_name(&self) -> &str {
        &self.shared.name
    }

    fn decode_bytes(&self, rows: &[&[u8]], spec: &OutputSpec, output: &mut [u8]) -> Result<()> {
        let expected = spec.batch_len(self.geometry(), rows.len());
        if output.len() != expected {
            return Err(Error::OutputLength { found: output.len(), expected });
        }
        self.submit(rows, spec)?.read_into(output)
    }
}
