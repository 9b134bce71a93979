//! An archive's codebook on a GPU, and the batches decoded with it.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

use super::batch::{BatchPart, PendingBatch};
use super::decode::{Params, Pipelines, codeword_row_words};
use super::device::Device;
use super::plan::{Chunk, Limits, Pass, Sizes, plan};
use crate::archive::Archive;
use crate::decode::{Decoder, check_call};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::output::OutputSpec;

const INDEX_USAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_DST);
const PARAMS_USAGE: wgpu::BufferUsages = wgpu::BufferUsages::UNIFORM.union(wgpu::BufferUsages::COPY_DST);
pub(super) const OUTPUT_USAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC);

/// Passes whose parameters share a buffer: it stays small even when a batch takes thousands.
const MOST_PASSES: u64 = 1024;

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

#[derive(Debug)]
struct CodebookPart {
    buffer: wgpu::Buffer,
    codewords: Range<usize>,
}

/// What a batch needs on the device, ready to be dispatched.
pub(super) struct Prepared {
    pub parts: Vec<BatchPart>,
    pub used: Vec<wgpu::Buffer>,
    dispatches: Vec<Dispatch>,
}

type Dispatch = (wgpu::ComputePipeline, wgpu::BindGroup, [u32; 2]);

impl Prepared {
    pub fn record(&self, pass: &mut wgpu::ComputePass) {
        for (pipeline, bind_group, [x, y]) in &self.dispatches {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, bind_group, &[]);
            pass.dispatch_workgroups(*x, *y, 1);
        }
    }
}

impl GpuDecoder {
    /// Uploads an archive's codebook to a device.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device fails, for want of memory for example; [`Error::GpuLimit`] if it cannot hold
    /// a codeword.
    pub fn new<D: AsRef<[u8]>>(device: &Device, archive: &Archive<D>) -> Result<Self> {
        let sizes = Sizes { geometry: *archive.geometry(), index_width: archive.index_width() };
        let raw_limits = device.raw().limits();
        let pipelines = Pipelines::new(device)?;
        let limits = Limits {
            binding: raw_limits.max_storage_buffer_binding_size.min(raw_limits.max_buffer_size),
            buffer: raw_limits.max_buffer_size / 4 * 4,
            alignment: u64::from(raw_limits.min_storage_buffer_offset_alignment).max(4),
            workgroups_per_dimension: raw_limits.max_compute_workgroups_per_dimension.into(),
            workgroup_size: pipelines.workgroup_size().into(),
        };
        let codebook = upload_codebook(device, &sizes, &limits, archive.codebook())?;
        let name = device.description().to_string();
        let codewords = archive.codewords();
        let device = device.clone();
        Ok(Self { shared: Arc::new(Shared { device, name, sizes, limits, codewords, codebook, pipelines }) })
    }

    /// The device that decodes.
    pub fn device(&self) -> &Device {
        &self.shared.device
    }

    /// Hands a batch to the GPU and returns while it works. Several batches can be in flight; they run in order.
    ///
    /// # Errors
    /// As [`Decoder::decode_bytes`].
    pub fn submit(&self, rows: &[&[u8]], spec: &OutputSpec) -> Result<PendingBatch> {
        let prepared = self.prepare(rows, spec)?;
        let device = self.device();
        let submission = device.scope("decoding", || {
            let mut encoder = device.raw().create_command_encoder(&Default::default());
            prepared.record(&mut encoder.begin_compute_pass(&Default::default()));
            device.queue().submit([encoder.finish()])
        })?;
        let len = spec.batch_len(self.geometry(), rows.len());
        Ok(PendingBatch::new(device.clone(), prepared, submission, len))
    }

    /// Plans a batch and writes its index rows and parameters to buffers.
    pub(super) fn prepare(&self, rows: &[&[u8]], spec: &OutputSpec) -> Result<Prepared> {
        let Shared { device, sizes, limits, codebook, .. } = &*self.shared;
        let len = spec.batch_len(&sizes.geometry, rows.len());
        check_call(&sizes.geometry, sizes.index_width.row_len(sizes.geometry.patches()), rows, spec, len)?;
        let chunks = plan(limits, sizes, spec, rows.len(), codebook.len()).map_err(|needs| Error::GpuLimit {
            adapter: self.shared.name.clone(),
            limit: needs.limit,
            found: needs.found,
            needed: needs.needed,
        })?;
        device.scope("preparing a batch", || {
            let mut prepared = Prepared { parts: Vec::new(), used: Vec::new(), dispatches: Vec::new() };
            chunks.iter().for_each(|chunk| self.prepare_chunk(chunk, rows, spec, &mut prepared));
            prepared
        })
    }

    fn prepare_chunk(&self, chunk: &Chunk, rows: &[&[u8]], spec: &OutputSpec, prepared: &mut Prepared) {
        let Shared { device, limits, .. } = &*self.shared;
        let (raw, pool) = (device.raw(), device.pool());
        let output = pool.take(raw, OUTPUT_USAGE, (chunk.output.end - chunk.output.start).next_multiple_of(4));
        let indices = pool.take(raw, INDEX_USAGE, chunk.index_len);
        // The buffer may be longer than asked for, and the view is `None` only after an error that the scope around
        // this reports.
        let size = NonZeroU64::new(chunk.index_len);
        if let Some(mut view) = size.and_then(|size| device.queue().write_buffer_with(&indices, 0, size)) {
            for place in &chunk.rows {
                let (start, row) = (place.offset as usize, rows[place.sample]);
                view.slice(start..start + row.len()).copy_from_slice(row);
            }
        }
        let alignment = u64::from(raw.limits().min_uniform_buffer_offset_alignment).max(4);
        let params_stride = (size_of::<Params>() as u64).next_multiple_of(alignment);
        let per_buffer = (limits.buffer / params_stride).clamp(1, MOST_PASSES) as usize;
        for passes in chunk.passes.chunks(per_buffer) {
            let params = pool.take(raw, PARAMS_USAGE, params_stride * passes.len() as u64);
            let mut bytes = vec![0; params_stride as usize * passes.len()];
            for ((pass, values), start) in passes.iter().zip(bytes.chunks_exact_mut(params_stride as usize)).zip(0..) {
                values[..size_of::<Params>()].copy_from_slice(bytemuck::bytes_of(&self.params(pass, spec)));
                let params = (&params, start * params_stride..start * params_stride + size_of::<Params>() as u64);
                prepared.dispatches.push(self.dispatch(pass, spec, params, &indices, &output));
            }
            device.queue().write_buffer(&params, 0, &bytes);
            prepared.used.push(params);
        }
        prepared.used.push(indices);
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

    fn dispatch(
        &self,
        pass: &Pass,
        spec: &OutputSpec,
        (params, params_range): (&wgpu::Buffer, Range<u64>),
        indices: &wgpu::Buffer,
        output: &wgpu::Buffer,
    ) -> Dispatch {
        let Shared { device, sizes, codebook, pipelines, .. } = &*self.shared;
        let entry = |binding, buffer, range: &Range<u64>| wgpu::BindGroupEntry {
            binding,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset: range.start,
                size: NonZeroU64::new(range.end - range.start),
            }),
        };
        let codebook = &codebook[pass.codebook_part].buffer;
        let bind_group = device.raw().create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipelines.layout,
            entries: &[
                entry(0, params, &params_range),
                entry(1, indices, &pass.indices),
                wgpu::BindGroupEntry { binding: 2, resource: codebook.as_entire_binding() },
                entry(3, output, &pass.window),
            ],
        });
        (pipelines.get(device, pass.kernel, sizes, spec), bind_group, pass.workgroups)
    }
}

/// Uploads the codebook in as many parts as the limits ask for, every patch row padded to a whole word.
fn upload_codebook(device: &Device, sizes: &Sizes, limits: &Limits, codebook: &[u8]) -> Result<Vec<CodebookPart>> {
    let g = &sizes.geometry;
    let row_bytes = codeword_row_words(sizes) * 4;
    let codeword_bytes = row_bytes * g.patch_height();
    let per_part = (limits.binding.min(limits.buffer) / codeword_bytes as u64) as usize;
    if per_part == 0 {
        return Err(Error::GpuLimit {
            adapter: device.description().to_string(),
            limit: "max_storage_buffer_binding_size",
            found: limits.binding,
            needed: codeword_bytes as u64,
        });
    }
    let queue = device.queue();
    let mut parts = Vec::new();
    for (i, part) in codebook.chunks(per_part.saturating_mul(g.codeword_len())).enumerate() {
        let codewords = part.len() / g.codeword_len();
        let buffer = device.scope("uploading the codebook", || {
            device.raw().create_buffer(&wgpu::BufferDescriptor {
                label: Some("codebook"),
                size: (codewords * codeword_bytes) as u64,
                usage: INDEX_USAGE,
                mapped_at_creation: false,
            })
        })?;
        let rows_per_upload = UPLOAD / row_bytes;
        for (j, rows) in part.chunks(rows_per_upload * g.patch_row_len()).enumerate() {
            let mut padded = vec![0; rows.len() / g.patch_row_len() * row_bytes];
            for (target, row) in padded.chunks_exact_mut(row_bytes).zip(rows.chunks_exact(g.patch_row_len())) {
                target[..row.len()].copy_from_slice(row);
            }
            device.scope("uploading the codebook", || {
                queue.write_buffer(&buffer, (j * rows_per_upload * row_bytes) as u64, &padded);
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
