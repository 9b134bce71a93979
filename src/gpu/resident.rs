//! All rows of an archive on a GPU, so that a batch needs its sample numbers alone.

use std::sync::Arc;

use super::batch::PendingBatch;
use super::decoder::{Batch, GpuDecoder, INDEX_USAGE};
use super::plan::{Image, TooSmall, most_of_part, spread};
use crate::archive::Archive;
use crate::data::Data;
use crate::error::{Error, Result};
use crate::format::coding::Coding;
use crate::output::OutputSpec;
use crate::rows::OnDamage;
use crate::verify::BadSample;

/// Bytes of rows that are handed to the driver at a time.
const UPLOAD: usize = 16 << 20;

/// The rows of an archive on the device of a decoder. Clones share them.
///
/// They take [`bytes_needed`](Self::bytes_needed), in buffers no larger than the device can bind; no row is split. A
/// batch then costs no reading of the archive, and the upload of sixteen bytes for each of its images.
#[derive(Debug, Clone)]
pub struct Resident {
    decoder: GpuDecoder,
    parts: Arc<[wgpu::Buffer]>,
    /// Where the row of each sample is.
    images: Arc<[Image]>,
}

impl Resident {
    /// Bytes that the rows of an archive take on a device.
    pub fn bytes_needed<D: Data>(archive: &Archive<D>) -> u64 {
        match &archive.header().coding {
            Coding::Vq(vq) => (vq.row_len.next_multiple_of(4) as u64).saturating_mul(archive.samples() as u64),
            // Records are whole words.
            Coding::Layers(layers) => layers.rows_len() as u64,
        }
    }

    /// Uploads the rows of the archive that the decoder was made for, if they take no more than `budget` bytes.
    /// Without a budget it is the driver that says when its memory is full. They are uploaded in pieces, so host memory
    /// holds a small part of them at a time, unless the archive is one that is read rather than mapped.
    ///
    /// # Errors
    /// [`Error::GpuBudget`] if they take more than the budget or than the driver gives; [`Error::GpuLimit`] if a row by
    /// itself is more than the device can bind, or there are 2^32 samples or more; [`Error::Damaged`] or
    /// [`Error::RecordLength`] for rows that cannot be
    /// decoded; [`Error::Argument`] if the archive is not the decoder's; [`Error::Gpu`] if the device fails.
    pub fn new<D: Data>(decoder: &GpuDecoder, archive: &Archive<D>, budget: Option<u64>) -> Result<Self> {
        Ok(Self::upload(decoder, archive, budget, OnDamage::Raise)?.0)
    }

    /// As [`new`](Self::new), but damaged samples are no error: others' pixels stand for them, and they are returned.
    ///
    /// # Errors
    /// As [`new`](Self::new) but for [`Error::Damaged`].
    pub fn with_damage<D: Data>(
        decoder: &GpuDecoder,
        archive: &Archive<D>,
        budget: Option<u64>,
    ) -> Result<(Self, Vec<BadSample>)> {
        Self::upload(decoder, archive, budget, OnDamage::Mask)
    }

    fn upload<D: Data>(
        decoder: &GpuDecoder,
        archive: &Archive<D>,
        budget: Option<u64>,
        on_damage: OnDamage,
    ) -> Result<(Self, Vec<BadSample>)> {
        let (device, coding) = (decoder.device(), decoder.coding());
        if !coding.fits(archive) {
            let found = "an archive of other sizes".into();
            let expected = "the archive that the decoder was made for".into();
            return Err(Error::Argument { argument: "archive", found, expected });
        }
        let needed = Self::bytes_needed(archive);
        let too_much = |budget| Error::GpuBudget { adapter: device.description().to_string(), needed, budget };
        if budget.is_some_and(|budget| needed > budget) {
            return Err(too_much(budget));
        }
        // Shaders number images in 32 bits.
        let (most, samples) = (u64::from(u32::MAX), archive.samples() as u64);
        if samples > most {
            let limit = "the most samples whose rows can be resident";
            return Err(device.limit_error(TooSmall { limit, found: most, needed: samples }));
        }
        let rows = archive.rows_with(0..archive.samples(), on_damage)?;
        coding.check_rows(&rows.slices())?;
        let lens = rows.iter().map(|row| coding.row_stride(row));
        let (images, lens) =
            spread(lens, most_of_part(decoder.limits())).map_err(|too_small| device.limit_error(too_small))?;
        let mut parts = Vec::new();
        let mut rest = images.iter().zip(rows.iter()).peekable();
        for (part, len) in (0..).zip(lens) {
            let buffer = device.scope("making room for rows", || {
                device.raw().create_buffer(&wgpu::BufferDescriptor {
                    label: Some("resident rows"),
                    size: len,
                    usage: INDEX_USAGE,
                    mapped_at_creation: false,
                })
            });
            let buffer = buffer.map_err(|error| match error {
                Error::GpuMemory { .. } => too_much(None),
                error => error,
            })?;
            let mut offset = 0;
            while offset < len {
                let mut bytes = Vec::new();
                while bytes.len() < UPLOAD
                    && let Some((image, row)) = rest.next_if(|(image, _)| image.part == part)
                {
                    let end = bytes.len() + image.words as usize * 4;
                    bytes.extend_from_slice(row);
                    bytes.resize(end, 0);
                }
                // Waited for, so that the driver's copies do not pile up.
                let submission = device.scope("uploading rows", || {
                    device.queue().write_buffer(&buffer, offset, &bytes);
                    device.queue().submit([])
                })?;
                device.wait(&submission)?;
                offset += bytes.len() as u64;
            }
            parts.push(buffer);
        }
        let this = Self { decoder: decoder.clone(), parts: parts.into(), images: images.into() };
        Ok((this, rows.damaged().to_vec()))
    }

    /// The decoder, and with it the device.
    pub fn decoder(&self) -> &GpuDecoder {
        &self.decoder
    }

    /// The number of samples.
    pub fn samples(&self) -> usize {
        self.images.len()
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
        let image = |&sample: &usize| match self.images.get(sample) {
            Some(image) => Ok(*image),
            None => Err(Error::Sample { sample, samples: self.images.len() }),
        };
        let images: Vec<Image> = samples.iter().map(image).collect::<Result<_>>()?;
        self.decoder.submit_batch(&Batch::Resident { images: &images, parts: &self.parts }, spec, None)
    }
}
