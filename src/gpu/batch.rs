//! A batch on the GPU: being decoded, or decoded and waiting to be used there or read back.

use std::collections::VecDeque;
use std::ops::Range;

use futures::channel::oneshot;
use rayon::prelude::*;

use super::decoder::Prepared;
use super::device::Device;
use crate::decode::resize;
use crate::error::{Error, Result};

const STAGING_USAGE: wgpu::BufferUsages = wgpu::BufferUsages::MAP_READ.union(wgpu::BufferUsages::COPY_DST);

/// Bytes that one staging buffer takes, and how many are in flight: while the host copies out of one, the device
/// fills the next.
const STAGING: u64 = 16 << 20;
const IN_FLIGHT: usize = 3;

/// A batch handed to a GPU. Its buffers are used again for another batch once it is dropped.
#[derive(Debug)]
pub struct PendingBatch {
    device: Device,
    parts: Vec<BatchPart>,
    /// Index rows and parameters.
    used: Vec<wgpu::Buffer>,
    submission: wgpu::SubmissionIndex,
    len: usize,
}

/// A part of a batch's output, in one buffer. A batch has one part unless it is larger than the device's largest
/// buffer; parts then hold whole images, unless a single image is larger.
#[derive(Debug)]
pub struct BatchPart {
    buffer: wgpu::Buffer,
    bytes: Range<u64>,
}

impl BatchPart {
    pub(super) fn new(buffer: wgpu::Buffer, bytes: Range<u64>) -> Self {
        Self { buffer, bytes }
    }

    /// The buffer, with usages `STORAGE` and `COPY_SRC`. Valid while the batch lives. The output starts at its
    /// first byte; it may be longer.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Which bytes of the batch's output it holds.
    pub fn bytes(&self) -> Range<u64> {
        self.bytes.clone()
    }
}

impl PendingBatch {
    pub(super) fn new(device: Device, prepared: Prepared, submission: wgpu::SubmissionIndex, len: usize) -> Self {
        let Prepared { parts, used, .. } = prepared;
        Self { device, parts, used, submission, len }
    }

    /// The output on the device, in order; empty for an empty batch. Commands submitted to the same queue after
    /// this batch see it decoded, without waiting.
    pub fn parts(&self) -> &[BatchPart] {
        &self.parts
    }

    /// Bytes of the whole output.
    pub fn byte_len(&self) -> usize {
        self.len
    }

    /// Blocks until the batch is decoded.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device fails or hangs.
    pub fn wait(&self) -> Result<()> {
        self.device.wait(&self.submission)
    }

    /// Blocks until the batch is decoded and copied to `output`.
    ///
    /// # Errors
    /// [`Error::OutputLength`] if the buffer is not [`byte_len`](Self::byte_len) long; [`Error::Gpu`].
    pub fn read_into(&self, output: &mut [u8]) -> Result<()> {
        pollster::block_on(self.copy(output, true))
    }

    /// Blocks until the batch is decoded and copied to a new buffer.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device fails or hangs.
    pub fn read(&self) -> Result<Vec<u8>> {
        let mut output = Vec::new();
        resize(&mut output, self.len)?;
        self.read_into(&mut output)?;
        Ok(output)
    }

    /// As [`read_into`](Self::read_into), for any executor: a thread of the device's waits for the GPU.
    ///
    /// # Errors
    /// As [`read_into`](Self::read_into).
    pub async fn read_into_async(&self, output: &mut [u8]) -> Result<()> {
        self.copy(output, false).await
    }

    /// As [`read`](Self::read), for any executor.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_async(&self) -> Result<Vec<u8>> {
        let mut output = Vec::new();
        resize(&mut output, self.len)?;
        self.copy(&mut output, false).await?;
        Ok(output)
    }

    async fn copy(&self, output: &mut [u8], blocking: bool) -> Result<()> {
        if output.len() != self.len {
            return Err(Error::OutputLength { found: output.len(), expected: self.len });
        }
        let pieces = self.parts.iter().flat_map(|part| {
            let len = part.bytes.end - part.bytes.start;
            let starts = (0..len).step_by(STAGING as usize);
            starts.map(move |start| (&part.buffer, start, STAGING.min(len - start)))
        });
        let mut rest = output;
        let mut in_flight = VecDeque::new();
        for (buffer, start, len) in pieces {
            if in_flight.len() == IN_FLIGHT
                && let Some(piece) = in_flight.pop_front()
            {
                self.finish(piece, &mut rest, blocking).await?;
            }
            in_flight.push_back(Piece::start(&self.device, buffer, start, len)?);
        }
        for piece in in_flight {
            self.finish(piece, &mut rest, blocking).await?;
        }
        Ok(())
    }

    /// Waits for a piece and moves it to the front of `rest`.
    async fn finish(&self, mut piece: Piece, rest: &mut &mut [u8], blocking: bool) -> Result<()> {
        match blocking {
            true => self.device.wait(&piece.submission)?,
            false => self.device.wait_in_background(piece.submission.clone()).await?,
        }
        piece.mapped(&self.device).await?;
        piece.copy_to(&self.device, rest)
    }

    /// Starts copying all of the output to memory that the host can read. The batch's own buffers serve the next.
    pub(super) fn start_reading(self) -> Result<Reading> {
        let start = |part: &BatchPart| Piece::start(&self.device, &part.buffer, 0, part.bytes.end - part.bytes.start);
        let pieces = self.parts.iter().map(start).collect::<Result<_>>()?;
        Ok(Reading { device: self.device.clone(), pieces, len: self.len })
    }
}

/// A batch on its way to the host.
#[derive(Debug)]
pub(super) struct Reading {
    device: Device,
    pieces: Vec<Piece>,
    len: usize,
}

impl Reading {
    /// Blocks until all of it is there.
    pub fn wait(&mut self) -> Result<()> {
        self.pieces.iter_mut().try_for_each(|piece| piece.wait(&self.device))
    }

    /// Copies it, once it is there.
    pub fn copy_to(self, output: &mut [u8]) -> Result<()> {
        if output.len() != self.len {
            return Err(Error::OutputLength { found: output.len(), expected: self.len });
        }
        let mut rest = output;
        self.pieces.into_iter().try_for_each(|piece| piece.copy_to(&self.device, &mut rest))
    }
}

impl Drop for PendingBatch {
    fn drop(&mut self) {
        // The queue orders whatever uses these buffers next behind this batch.
        let outputs = self.parts.drain(..).map(|part| part.buffer);
        outputs.chain(self.used.drain(..)).for_each(|buffer| self.device.pool().put(buffer));
    }
}

/// Bytes that a thread copies at a time.
const COPY: usize = 1 << 20;

/// A copy on its way to the host.
#[derive(Debug)]
pub(super) struct Piece {
    staging: wgpu::Buffer,
    len: usize,
    /// What was copied: whole words.
    padded: u64,
    submission: wgpu::SubmissionIndex,
    mapped: oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>,
}

impl Piece {
    const ACTION: &str = "reading back";

    /// Starts copying bytes of an output buffer to a staging buffer.
    pub fn start(device: &Device, buffer: &wgpu::Buffer, start: u64, len: u64) -> Result<Self> {
        let padded = len.next_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT);
        device.scope(Self::ACTION, || {
            let staging = device.pool().take(device.raw(), STAGING_USAGE, padded);
            let mut encoder = device.raw().create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(buffer, start, &staging, 0, padded);
            let submission = device.queue().submit([encoder.finish()]);
            let (sender, mapped) = oneshot::channel();
            staging.map_async(wgpu::MapMode::Read, ..padded, move |result| {
                // Nobody listens if the read was given up.
                let _ = sender.send(result);
            });
            Self { staging, len: len as usize, padded, submission, mapped }
        })
    }

    /// Blocks until it is there.
    pub fn wait(&mut self, device: &Device) -> Result<()> {
        device.wait(&self.submission)?;
        pollster::block_on(self.mapped(device))
    }

    /// The device's answer, once the submission is done.
    async fn mapped(&mut self, device: &Device) -> Result<()> {
        match (&mut self.mapped).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(device.error(Self::ACTION, error)),
            Err(_) => Err(device.error(Self::ACTION, "the device gave no answer")),
        }
    }

    /// Moves the copy to the front of `rest`.
    pub fn copy_to(self, device: &Device, rest: &mut &mut [u8]) -> Result<()> {
        let view = self.staging.get_mapped_range(..self.padded).map_err(|error| device.error(Self::ACTION, error))?;
        let (target, behind) = std::mem::take(rest).split_at_mut(self.len);
        // One thread alone copies more slowly than a GPU's bus.
        let pieces = target.par_chunks_mut(COPY).zip(view[..self.len].par_chunks(COPY));
        pieces.for_each(|(target, source)| target.copy_from_slice(source));
        *rest = behind;
        drop(view);
        device.scope(Self::ACTION, || self.staging.unmap())?;
        device.pool().put(self.staging);
        Ok(())
    }
}
