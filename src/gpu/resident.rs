//! All index rows of an archive on a GPU, so that a batch needs its sample numbers alone.

use std::sync::Arc;

use super::batch::PendingBatch;
use super::decoder::{Batch, GpuDecoder, INDEX_USAGE};
use super::plan::rows_per_part;
use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::format::coding::Coding;
use crate::output::OutputSpec;

/// Bytes of index rows that are handed to the driver at a time.
const UPLOAD: usize = 16 << 20;

/// The index rows of an archive on the device of a decoder. Clones share them.
///
/// They take [`bytes_needed`](Self::bytes_needed), in buffers no larger than the device can bind; no row is split. A
/// batch then costs no reading of the archive, and the upload of eight bytes for each of its images.
#[derive(Debug, Clone)]
pub struct Resident {
    decoder: GpuDecoder,
    parts: Arc<[wgpu::Buffer]>,
    per_part: u32,
    samples: usize,
}

impl Resident {
    /// Bytes that the index rows of an archive take on a device.
    pub fn bytes_needed<D: AsRef<[u8]>>(archive: &Archive<D>) -> u64 {
        match &archive.header().coding {
            Coding::Vq(vq) => (vq.row_len.next_multiple_of(4) as u64).saturating_mul(archive.samples() as u64),
            // Records are whole words.
            Coding::Layers(layers) => layers.rows_len() as u64,
        }
    }

    /// Uploads the index rows of the archive that the decoder was made for, if they take no more than `budget` bytes.
    /// Without a budget it is the driver that says when its memory is full. They are uploaded in pieces, so host memory
    /// holds a small part of them at a time.
    ///
    /// # Errors
    /// [`Error::GpuBudget`] if they take more than the budget or than the driver gives; [`Error::GpuLimit`] if a row by
    /// itself is more than the device can bind; [`Error::Argument`] if the archive is not the decoder's; [`Error::Gpu`] if the device fails.
    pub fn new<D: AsRef<[u8]>>(decoder: &GpuDecoder, archive: &Archive<D>, budget: Option<u64>) -> Result<Self> {
        let device = decoder.device();
        let (samples, needed) = (archive.samples(), Self::bytes_needed(archive));
        let too_much = |budget| Error::GpuBudget { adapter: device.description().to_string(), needed, budget };
        if budget.is_some_and(|budget| needed > budget) || samples as u64 > u64::from(u32::MAX) {
            return Err(too_much(budget));
        }
        let sizes = decoder.sizes();
        if sizes.geometry != *archive.geometry() || sizes.index_width != archive.vq()?.index_width() {
            let found = "an archive of other sizes".into();
            let expected = "the archive that the decoder was made for".into();
            return Err(Error::Argument { argument: "archive", found, expected });
        }
        let per_part = rows_per_part(decoder.limits(), sizes).map_err(|too_small| decoder.limit_error(too_small))?;
        let stride = sizes.row_stride() as usize;
        let mut parts = Vec::new();
        for first in (0..samples).step_by(per_part as usize) {
            let rows = first..(first + per_part as usize).min(samples);
            let action = "making room for index rows";
            let buffer = device.scope(action, || {
                device.raw().create_buffer(&wgpu::BufferDescriptor {
                    label: Some("resident rows"),
                    size: (rows.len() * stride) as u64,
                    usage: INDEX_USAGE,
                    mapped_at_creation: false,
                })
            });
            let buffer = buffer.map_err(|error| match error {
                Error::GpuMemory { .. } => too_much(None),
                error => error,
            })?;
            let per_upload = (UPLOAD / stride).max(1);
            for piece in rows.clone().step_by(per_upload) {
                let piece = piece..(piece + per_upload).min(rows.end);
                let offset = ((piece.start - first) * stride) as u64;
                let mut bytes = vec![0; piece.len() * stride];
                for (sample, target) in piece.zip(bytes.chunks_exact_mut(stride)) {
                    let row = archive.row(sample)?;
                    target[..row.len()].copy_from_slice(row);
                }
                // Waited for, so that the driver's copies do not pile up.
                let submission = device.scope("uploading index rows", || {
                    device.queue().write_buffer(&buffer, offset, &bytes);
                    device.queue().submit([])
                })?;
                device.wait(&submission)?;
            }
            parts.push(buffer);
        }
        Ok(Self { decoder: decoder.clone(), parts: parts.into(), per_part, samples })
    }

    /// The decoder, and with it the device.
    pub fn decoder(&self) -> &GpuDecoder {
        &self.decoder
    }

    /// The number of samples.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Bytes of device memory that the rows take.
    pub fn byte_len(&self) -> u64 {
        self.parts.iter().map(wgpu::Buffer::size).sum()
    }

    /// How many buffers the rows were split over.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Hands a batch to the GPU, as [`GpuDecoder::submit`].
    ///
    /// # Errors
    /// [`Error::Sample`] for the first sample that does not exist; else as [`GpuDecoder::submit`].
    pub fn submit(&self, samples: &[usize], spec: &OutputSpec) -> Result<PendingBatch> {
        let numbers = self.numbers(samples)?;
        self.decoder.submit_batch(&self.batch(&numbers), spec, None)
    }

    fn numbers(&self, samples: &[usize]) -> Result<Vec<u32>> {
        let number = |&sample: &usize| match sample < self.samples {
            true => Ok(sample as u32),
            false => Err(Error::Sample { sample, samples: self.samples }),
        };
        samples.iter().map(number).collect()
    }

    fn batch<'a>(&'a self, numbers: &'a [u32]) -> Batch<'a> {
        Batch::Resident { samples: numbers, parts: &self.parts, per_part: self.per_part }
    }
}
