//! Batch after batch through a GPU, without it and the host waiting for each other.

use std::collections::VecDeque;

use super::batch::{PendingBatch, Reading};
use crate::error::{Error, Result};

/// Batches of a stream in flight: one for each of upload, decoding and reading back.
pub(crate) const IN_FLIGHT: usize = 3;

/// Reads batches back in order, and has handed the GPU those that follow before it waits for one: while the host copies
/// a batch, the next is being decoded or on its way to host memory, and the index rows of the one after that are there.
///
/// Three batches are in flight, and as many held in host memory that the device writes. Once warm a stream allocates no
/// buffers: those of a batch serve another, and none is cleared first.
///
/// ```no_run
/// # use kuat::gpu::{Device, GpuDecoder, Select, Stream};
/// # use kuat::loader::{Epoch, EpochOptions};
/// # let archive = kuat::Archive::open("photos.qvq")?;
/// # let decoder = GpuDecoder::new(&Device::open(&Select::Best)?, &archive)?;
/// let spec = kuat::OutputSpec::default();
/// let epoch = Epoch::new(archive.samples(), &EpochOptions { batch_size: 64, drop_last: true, ..Default::default() })?;
/// let mut stream = Stream::new(epoch.len(), |batch| {
///     archive.will_need(epoch.batch(batch + 1).iter().copied())?;
///     decoder.submit(&archive.rows(epoch.batch(batch).iter().copied())?, &spec)
/// });
/// let mut pixels = vec![0; spec.batch_len(archive.geometry(), 64)];
/// for _ in 0..epoch.len() {
///     stream.read_into(&mut pixels)?;
/// }
/// # Ok::<(), kuat::Error>(())
/// ```
pub struct Stream<F> {
    submit: F,
    count: usize,
    submitted: usize,
    in_flight: VecDeque<Result<Reading>>,
}

impl<F> std::fmt::Debug for Stream<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { count, submitted, in_flight, .. } = self;
        let in_flight = in_flight.len();
        write!(f, "Stream {{ count: {count}, submitted: {submitted}, in_flight: {in_flight} }}")
    }
}

impl<F: FnMut(usize) -> Result<PendingBatch>> Stream<F> {
    /// A stream of `count` batches, which `submit` hands to the GPU by [`GpuDecoder::submit`](super::GpuDecoder::submit)
    /// or [`Resident::submit`](super::Resident::submit). It is called with 0, 1, ..., and after an error no more.
    pub fn new(count: usize, submit: F) -> Self {
        Self { submit, count, submitted: 0, in_flight: VecDeque::new() }
    }

    /// Blocks until the next batch is decoded and copied to `output`, with the batches that follow on their way.
    ///
    /// # Errors
    /// What submitting this batch gave; [`Error::OutputLength`] if the buffer is not as long as it;
    /// [`Error::Argument`] if there is none left; [`Error::Gpu`].
    pub fn read_into(&mut self, output: &mut [u8]) -> Result<()> {
        self.next()?.copy_to(output)
    }

    /// Hands the GPU the batches that should be in flight now. Reading does so by itself; this is for who wants to know
    /// what was submitted before it.
    pub fn submit_ahead(&mut self) {
        while self.in_flight.len() < IN_FLIGHT && self.submitted < self.count {
            let reading = (self.submit)(self.submitted).and_then(PendingBatch::start_reading);
            self.submitted = if reading.is_ok() { self.submitted + 1 } else { self.count };
            self.in_flight.push_back(reading);
        }
    }

    /// The next batch, in memory that the host can read.
    pub(super) fn next(&mut self) -> Result<Reading> {
        self.submit_ahead();
        let mut next = self.in_flight.pop_front().unwrap_or_else(|| {
            let (argument, found) = ("batch", format!("number {}", self.count));
            Err(Error::Argument { argument, found, expected: format!("one of {}", self.count) })
        })?;
        next.wait()?;
        Ok(next)
    }
}
