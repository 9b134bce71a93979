//! The shader `nearest.wgsl`: a codebook on a GPU, and the search for the codewords nearest to patches.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::batch::Piece;
use super::codebook::{CodebookPart, upload_codebook};
use super::decoder::{INDEX_USAGE, MOST_PASSES, OUTPUT_USAGE, PARAMS_USAGE};
use super::device::Device;
use super::kernels::workgroup_size;
use super::plan::{MAX_PART, TooSmall};
use crate::error::{Error, Result};
use crate::format::MAX_CODEWORDS;

pub(super) const SOURCE: &str = include_str!("../../shaders/nearest.wgsl");

/// Bytes of a quad, and quads that a tile holds.
const QUAD: usize = 16;
const TILE_QUADS: usize = 512;

/// Bytes that a workgroup shares: a tile, and a key for each codeword that it can hold.
const TILE_BYTES: u64 = (TILE_QUADS * (QUAD + 4)) as u64;

/// Patches of an invocation.
const PER_INVOCATION: u64 = 4;

/// The most bytes of a patch that stays in registers.
const SHORT: usize = 64;

/// The most patches, and bytes of them, that are on the device together.
const MOST_PATCHES: u64 = 1 << 19;
const MOST_BYTES: u64 = 64 << 20;

/// Products of words that one dispatch computes. A GPU that makes ten thousand million a second, as slow as any, is done
/// in a fifth of a second, a tenth of what Windows allows before it resets the driver; one a thousand times as fast takes as
/// long as several submissions; a software adapter half a minute, well before it is taken to hang.
const WORK: u64 = 1 << 31;

/// Turns of loops that an invocation makes at most. Lavapipe and Mesa's OpenGL on the processor leave every loop once they
/// have counted 65,535 in an invocation (`LP_MAX_TGSI_LOOP_ITERATIONS`), and tell nobody.
const TURNS: usize = 1 << 15;

/// Dispatches that are submitted and not waited for.
const IN_FLIGHT: usize = 2;

/// The uniform buffer, as `Params` in the shader.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Params {
    pub patches: u32,
    pub first_codeword: u32,
    pub end_codeword: u32,
    pub first_index: u32,
    pub merge: u32,
}

/// How codewords of a length are compared.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Bytes of a codeword.
    len: usize,
    /// Bits of a key that are the codeword's place in the tile.
    place_bits: u32,
    /// Codewords of a tile.
    tile: usize,
}

impl Shape {
    fn new(len: usize) -> Self {
        // Scores are at most 255^2 for each value, above and below zero.
        let place_bits = (i32::MAX as usize / (255 * 255 * len + 1)).ilog2().min(TILE_QUADS.ilog2());
        let tile = (TILE_QUADS / len.div_ceil(QUAD)).min(1 << place_bits) / 8 * 8;
        Self { len, place_bits, tile }
    }

    fn words(&self) -> usize {
        self.len.div_ceil(4)
    }

    fn quads(&self) -> usize {
        self.len.div_ceil(QUAD)
    }

    /// Turns of loops that comparing a patch with a tile takes.
    fn turns(&self, workgroup_size: u32) -> usize {
        let (quads, tile, lanes) = (self.quads(), self.tile, workgroup_size as usize);
        let load = (tile * quads).div_ceil(lanes) + tile.div_ceil(lanes) * (quads + 1);
        let compare = if self.len > SHORT { tile / 8 * (quads + 1) } else { tile / 4 };
        load + compare + 1
    }

    fn entry_point(&self) -> &'static str {
        if self.len > SHORT { "long_patches" } else { "short_patches" }
    }

    fn constants(&self, workgroup_size: u32) -> Vec<(&'static str, f64)> {
        let integers = [
            ("WORKGROUP_SIZE", workgroup_size as usize),
            ("WORDS", self.words()),
            ("QUADS", self.quads()),
            ("TILE", self.tile),
            ("PLACE_BITS", self.place_bits as usize),
        ];
        integers.into_iter().map(|(name, value)| (name, value as f64)).collect()
    }
}

/// The uses that a search among codewords of a length makes of the shader.
pub(super) fn uses(len: usize, workgroup_size: u32) -> Vec<super::shaders::Use> {
    let shape = Shape::new(len);
    vec![(shape.entry_point(), shape.constants(workgroup_size))]
}

/// Finds the codeword at the least squared distance from a patch, exactly: what comparing it with every codeword finds,
/// the first of those equally near. The comparison with every codeword is what it does, on a GPU.
///
/// Threads can search at the same time.
#[derive(Debug)]
pub struct GpuNearest {
    device: Device,
    shape: Shape,
    codebook: Vec<CodebookPart>,
    pipeline: wgpu::ComputePipeline,
    /// Patches that are on the device together.
    per_batch: usize,
    workgroup_size: u32,
}

impl GpuNearest {
    /// Uploads a codebook: codewords of `codeword_len` values one after another.
    ///
    /// # Errors
    /// [`Error::Argument`] unless the codebook holds 1 to 2^25 whole codewords of 1 to 1024 values; [`Error::Gpu`] if the
    /// device fails, for want of memory for example; [`Error::GpuLimit`] if it can bind too little.
    pub fn new(device: &Device, codebook: &[u8], codeword_len: usize) -> Result<Self> {
        check_codebook(codebook, codeword_len)?;
        let shape = Shape::new(codeword_len);
        let limits = device.raw().limits();
        let found = u64::from(limits.max_compute_workgroup_storage_size);
        if found < TILE_BYTES {
            let limit = "max_compute_workgroup_storage_size";
            return Err(device.limit_error(TooSmall { limit, found, needed: TILE_BYTES }));
        }
        let workgroup_size = workgroup_size(&limits);
        let pipeline = device.searches().get(device, &shape, workgroup_size)?;
        let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(MAX_PART);
        let per_batch = (most.min(MOST_BYTES) / (shape.quads() * QUAD) as u64)
            .min(most / 4)
            .min(MOST_PATCHES)
            .min(u64::from(limits.max_compute_workgroups_per_dimension) * u64::from(workgroup_size) * PER_INVOCATION);
        if per_batch == 0 {
            let limit = "max_storage_buffer_binding_size";
            return Err(device.limit_error(TooSmall { limit, found: most, needed: (shape.quads() * QUAD) as u64 }));
        }
        let (len, padded_len) = (shape.len, shape.words() * 4);
        let pad = |stored: &[u8], padded: &mut [u8]| {
            let codewords = stored.chunks_exact(len).zip(padded.chunks_exact_mut(padded_len));
            codewords.for_each(|(stored, padded)| padded[..len].copy_from_slice(stored));
        };
        let codebook = upload_codebook(device, codebook, len, padded_len, most, pad)?;
        let (device, per_batch) = (device.clone(), per_batch as usize);
        Ok(Self { device, shape, codebook, pipeline, per_batch, workgroup_size })
    }

    /// The device that searches.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The index of the codeword nearest to each patch, the lowest one of several, and its squared distance. Many patches
    /// at a time keep a GPU busy: a hundred thousand rather than a thousand.
    ///
    /// # Errors
    /// [`Error::Argument`] unless there are as many places for indices and distances as patches; [`Error::Gpu`] if the
    /// device fails or hangs.
    pub fn nearest(&self, patches: &[u8], nearest: &mut [u32], distances: &mut [u32]) -> Result<()> {
        let len = self.shape.len;
        if patches.len() != nearest.len() * len || nearest.len() != distances.len() {
            let (found, distances) = (format!("{} bytes", patches.len()), distances.len());
            let expected = format!("{len} for each of {} indices and {distances} distances", nearest.len());
            return Err(Error::Argument { argument: "patches", found, expected });
        }
        // The device works at a batch while the host copies the results of the one before.
        let mut before: Option<(Batch, _, _)> = None;
        let results = nearest.chunks_mut(self.per_batch).zip(distances.chunks_mut(self.per_batch));
        for (patches, (nearest, distances)) in patches.chunks(self.per_batch * len).zip(results) {
            let batch = self.submit(patches)?;
            if let Some((batch, nearest, distances)) = before.replace((batch, nearest, distances)) {
                batch.read(&self.device, nearest, distances)?;
            }
        }
        before.map_or(Ok(()), |(batch, nearest, distances)| batch.read(&self.device, nearest, distances))
    }

    /// Hands a batch of patches to the GPU.
    fn submit(&self, patches: &[u8]) -> Result<Batch> {
        const ACTION: &str = "searching for nearest codewords";
        let (device, shape) = (&self.device, &self.shape);
        let (raw, queue, pool) = (device.raw(), device.queue(), device.pool());
        let count = patches.len() / shape.len;
        let plane = (count * QUAD) as u64;
        let (input, nearest, distances) = device.scope(ACTION, || {
            let result = || pool.take(raw, OUTPUT_USAGE, count as u64 * 4);
            (pool.take(raw, INDEX_USAGE, plane * shape.quads() as u64), result(), result())
        })?;
        device.scope(ACTION, || {
            for quad in 0..shape.quads() {
                queue.write_buffer(&input, quad as u64 * plane, bytemuck::cast_slice(&quads(patches, shape.len, quad)));
            }
        })?;
        let passes = self.passes(count);
        let stride =
            (size_of::<Params>() as u64).next_multiple_of(raw.limits().min_uniform_buffer_offset_alignment.into());
        let workgroups = (count as u64).div_ceil(u64::from(self.workgroup_size) * PER_INVOCATION) as u32;
        let mut used = Vec::new();
        let mut in_flight = VecDeque::new();
        for passes in passes.chunks(MOST_PASSES as usize) {
            let params = device.scope(ACTION, || {
                let buffer = pool.take(raw, PARAMS_USAGE, stride * passes.len() as u64);
                let mut bytes = vec![0; stride as usize * passes.len()];
                for ((_, params), bytes) in passes.iter().zip(bytes.chunks_exact_mut(stride as usize)) {
                    bytes[..size_of::<Params>()].copy_from_slice(bytemuck::bytes_of(params));
                }
                queue.write_buffer(&buffer, 0, &bytes);
                buffer
            })?;
            for (&(part, _), start) in passes.iter().zip((0..).step_by(stride as usize)) {
                if in_flight.len() == IN_FLIGHT
                    && let Some(submission) = in_flight.pop_front()
                {
                    device.wait(&submission)?;
                }
                // A submission for each: drivers that watch how long one takes do not tell dispatches apart.
                in_flight.push_back(device.scope(ACTION, || {
                    fn part_of(
                        binding: u32,
                        buffer: &wgpu::Buffer,
                        offset: u64,
                        size: u64,
                    ) -> wgpu::BindGroupEntry<'_> {
                        let binding_of = wgpu::BufferBinding { buffer, offset, size: NonZeroU64::new(size) };
                        wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(binding_of) }
                    }
                    let bind_group = raw.create_bind_group(&wgpu::BindGroupDescriptor {
                        label: None,
                        layout: &self.pipeline.get_bind_group_layout(0),
                        entries: &[
                            part_of(0, &params, start, size_of::<Params>() as u64),
                            part_of(1, &input, 0, plane * shape.quads() as u64),
                            part_of(2, &self.codebook[part].buffer, 0, self.codebook[part].buffer.size()),
                            part_of(3, &nearest, 0, count as u64 * 4),
                            part_of(4, &distances, 0, count as u64 * 4),
                        ],
                    });
                    let mut encoder = raw.create_command_encoder(&Default::default());
                    let mut pass = encoder.begin_compute_pass(&Default::default());
                    pass.set_pipeline(&self.pipeline);
                    pass.set_bind_group(0, &bind_group, &[]);
                    pass.dispatch_workgroups(workgroups, 1, 1);
                    drop(pass);
                    queue.submit([encoder.finish()])
                })?);
            }
            used.push(params);
        }
        let pieces = [&nearest, &distances].map(|buffer| Piece::start(device, buffer, 0, count as u64 * 4));
        let [nearest_piece, distances_piece] = pieces;
        used.extend([input, nearest, distances]);
        Ok(Batch { nearest: nearest_piece?, distances: distances_piece?, used })
    }

    /// What dispatches compare a batch with, in order: parts of the codebook, and codewords of these.
    fn passes(&self, patches: usize) -> Vec<(usize, Params)> {
        let tile_work = (patches * self.shape.words() * self.shape.tile) as u64;
        let most_tiles = ((WORK / tile_work) as usize).min(TURNS / self.shape.turns(self.workgroup_size)).max(1);
        let most = most_tiles * self.shape.tile;
        let mut passes = Vec::new();
        for (part, CodebookPart { codewords, .. }) in self.codebook.iter().enumerate() {
            for first in (0..codewords.len()).step_by(most) {
                let params = Params {
                    patches: patches as u32,
                    first_codeword: first as u32,
                    end_codeword: (first + most).min(codewords.len()) as u32,
                    first_index: codewords.start as u32,
                    merge: u32::from(!passes.is_empty()),
                };
                passes.push((part, params));
            }
        }
        passes
    }
}

/// A batch on the GPU, its results on their way to the host.
struct Batch {
    nearest: Piece,
    distances: Piece,
    used: Vec<wgpu::Buffer>,
}

impl Batch {
    fn read(self, device: &Device, nearest: &mut [u32], distances: &mut [u32]) -> Result<()> {
        for (mut piece, values) in [(self.nearest, nearest), (self.distances, distances)] {
            piece.wait(device)?;
            piece.copy_to(device, &mut bytemuck::cast_slice_mut(values))?;
        }
        self.used.into_iter().for_each(|buffer| device.pool().put(buffer));
        Ok(())
    }
}

/// A quad of every patch, those at the end filled up with zeros.
fn quads(patches: &[u8], len: usize, quad: usize) -> Vec<[u8; QUAD]> {
    let quad_of = |patch: &[u8]| {
        let values = &patch[quad * QUAD..len.min((quad + 1) * QUAD)];
        let mut quad = [0; QUAD];
        quad[..values.len()].copy_from_slice(values);
        quad
    };
    patches.par_chunks_exact(len).with_min_len(1 << 14).map(quad_of).collect()
}

fn check_codebook(codebook: &[u8], len: usize) -> Result<()> {
    if (1..=1024).contains(&len)
        && codebook.len().is_multiple_of(len)
        && (1..=MAX_CODEWORDS).contains(&(codebook.len() / len))
    {
        return Ok(());
    }
    let found = format!("{} bytes in pieces of {len}", codebook.len());
    let expected = format!("1 to {MAX_CODEWORDS} whole pieces of 1 to 1024 bytes");
    Err(Error::Argument { argument: "codebook", found, expected })
}

/// The kernels of a device by the length of codewords, made when first used: training searches in codebook after codebook.
#[derive(Debug, Default)]
pub(super) struct Pipelines {
    made: Mutex<HashMap<usize, wgpu::ComputePipeline>>,
}

impl Pipelines {
    fn get(&self, device: &Device, shape: &Shape, workgroup_size: u32) -> Result<wgpu::ComputePipeline> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = made.get(&shape.len) {
            return Ok(pipeline.clone());
        }
        let pipeline = compile(device, shape, workgroup_size)?;
        Ok(made.entry(shape.len).or_insert(pipeline).clone())
    }
}

fn compile(device: &Device, shape: &Shape, workgroup_size: u32) -> Result<wgpu::ComputePipeline> {
    device.scope("compiling nearest.wgsl", || {
        let raw = device.raw();
        let module = raw.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("nearest"),
            source: wgpu::ShaderSource::Wgsl(Cow::Borrowed(SOURCE)),
        });
        raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(shape.entry_point()),
            layout: None,
            module: &module,
            entry_point: Some(shape.entry_point()),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &shape.constants(workgroup_size),
                // Invocations read no more of it than they have written.
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        })
    })
}
