//! How long the device itself takes, for benchmarks.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use super::decoder::{Batch, GpuDecoder};
use super::device::Device;
use super::fill::Fill;
use super::stream::Stream;
use crate::decode::{Decoder, resize, slices};

use crate::error::Result;
use crate::output::{Dtype, OutputSpec};

/// What the kernels of a batch take, and a shader that stores as many bytes, measured in turn.
#[derive(Debug, Clone)]
pub struct KernelTimes {
    /// The kernels, once per run.
    pub kernel: Vec<Duration>,
    /// The fill: the same bytes of the same buffers, stored in words of 4 bytes or, for floats of single precision, in
    /// vectors of 16, each invocation one, as many invocations to a workgroup.
    pub fill: Vec<Duration>,
}

impl GpuDecoder {
    /// Streams batches of equally many index rows to host memory and tells when what was done.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn time_stream(&self, batches: &[Vec<&[u8]>], spec: &OutputSpec) -> Result<Vec<StageTime>> {
        let device = self.device();
        let queries = DeviceQueries::new(device, batches.len())?;
        let moment = queries.as_ref().map_or(Ok(None), DeviceQueries::moment)?;
        let begin = Instant::now();
        let mut times = Vec::new();
        let uploads = RefCell::new(Vec::new());
        let mut stream = Stream::new(batches.len(), |batch| {
            let start = begin.elapsed();
            let writes = queries.as_ref().map(|queries| queries.writes(batch));
            let pending = self.submit_batch(&Batch::Rows(&batches[batch]), spec, writes)?;
            uploads.borrow_mut().push(StageTime { batch, stage: "upload", start, end: begin.elapsed() });
            Ok(pending)
        });
        let mut output = Vec::new();
        resize(&mut output, spec.batch_len(self.geometry(), batches.first().map_or(0, Vec::len)))?;
        for batch in 0..batches.len() {
            // What is submitted meanwhile is not waiting.
            let before = uploads.borrow().len();
            let called = begin.elapsed();
            let reading = stream.next()?;
            let start = uploads.borrow()[before..].last().map_or(called, |upload| upload.end);
            let there = begin.elapsed();
            reading.copy_to(&mut output)?;
            times.push(StageTime { batch, stage: "wait", start, end: there });
            times.push(StageTime { batch, stage: "readback", start: there, end: begin.elapsed() });
        }
        drop(stream);
        times.extend(uploads.into_inner());
        if let (Some(queries), Some((moment, ticks_then))) = (queries, moment) {
            let time = |ticks: u64| {
                let since = ticks.wrapping_sub(ticks_then).cast_signed() as f64 * period(device);
                Duration::from_secs_f64((since - begin.duration_since(moment).as_secs_f64()).max(0.0))
            };
            for (batch, ticks) in queries.ticks(batches.len())?.into_iter().enumerate() {
                let [start, end] = ticks.map(time);
                times.push(StageTime { batch, stage: "kernel", start, end });
            }
        }
        times.sort_by_key(|time| (time.batch, time.start));
        Ok(times)
    }

    /// The time that the kernels take for a batch whose index rows are on the device, beside their limit, after one run
    /// of each that is not counted. By the device's own clock where it offers one.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn time_kernel(&self, rows: &[impl AsRef<[u8]>], spec: &OutputSpec, runs: usize) -> Result<KernelTimes> {
        let prepared = self.prepare(&Batch::Rows(&slices(rows)), spec)?;
        let device = self.device();
        let fill = Fill::new(device, self.workgroup_size(), spec.dtype == Dtype::F32, &prepared.windows())?;
        let mut times = KernelTimes { kernel: Vec::new(), fill: Vec::new() };
        for run in 0..runs + 1 {
            let kernel_time = time_pass(device, |pass| prepared.record(pass))?;
            let fill_time = time_pass(device, |pass| fill.record(pass))?;
            if run > 0 {
                times.kernel.push(kernel_time);
                times.fill.push(fill_time);
            }
        }
        prepared.recycle(device);
        Ok(times)
    }

    /// The time that it takes to bring a batch's index rows to the device, once per run.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn time_upload(&self, rows: &[impl AsRef<[u8]>], spec: &OutputSpec, runs: usize) -> Result<Vec<Duration>> {
        let device = self.device();
        let run = |_| {
            let start = Instant::now();
            let prepared = self.prepare(&Batch::Rows(&slices(rows)), spec)?;
            device.finish()?;
            let time = start.elapsed();
            prepared.recycle(device);
            Ok(time)
        };
        (0..runs + 1).map(run).skip(1).collect()
    }
}

/// When a stage of a batch took place in a [`Stream`], counted from its beginning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageTime {
    /// Which batch.
    pub batch: usize,
    /// `upload`: the host writes index rows, or sample numbers, and submits. `kernel`: the device decodes, by its own
    /// clock, if it has one. `wait`: the host has nothing to do until the batch is there. `readback`: the host copies it
    /// out of memory that the device has written.
    pub stage: &'static str,
    /// When it began.
    pub start: Duration,
    /// When it ended.
    pub end: Duration,
}

/// What the device's clock showed when passes, numbered from 0, began and ended.
struct DeviceQueries {
    device: Device,
    queries: wgpu::QuerySet,
}

impl DeviceQueries {
    /// `None` if the device has no clock.
    fn new(device: &Device, passes: usize) -> Result<Option<Self>> {
        if !device.raw().features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let (ty, count) = (wgpu::QueryType::Timestamp, 2 * passes as u32);
        let descriptor = wgpu::QuerySetDescriptor { label: None, ty, count };
        let queries = device.scope("preparing queries", || device.raw().create_query_set(&descriptor))?;
        Ok(Some(Self { device: device.clone(), queries }))
    }

    fn writes(&self, pass: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(2 * pass as u32),
            end_of_pass_write_index: Some(2 * pass as u32 + 1),
        }
    }

    /// When the first passes began and ended, in ticks.
    fn ticks(&self, passes: usize) -> Result<Vec<[u64; 2]>> {
        let device = &self.device;
        let action = "reading the device's clock";
        let size = 16 * passes as u64;
        let (staging, submission) = device.scope(action, || {
            let buffer = |usage| {
                let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
                device.raw().create_buffer(&descriptor)
            };
            let resolved = buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
            let staging = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
            let mut encoder = device.raw().create_command_encoder(&Default::default());
            encoder.resolve_query_set(&self.queries, 0..2 * passes as u32, &resolved, 0);
            encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, size);
            let submission = device.queue().submit([encoder.finish()]);
            staging.map_async(wgpu::MapMode::Read, .., |_| ());
            (staging, submission)
        })?;
        device.wait(&submission)?;
        let view = staging.get_mapped_range(..).map_err(|error| device.error(action, error))?;
        let (ticks, _) = view.as_chunks::<8>();
        Ok(ticks.chunks_exact(2).map(|pair| [0, 1].map(|i| u64::from_le_bytes(pair[i]))).collect())
    }

    /// A moment of the host's, and what the device's clock showed then; `None` if it shows nothing.
    fn moment(&self) -> Result<Option<(Instant, u64)>> {
        let device = &self.device;
        let (mut least, mut moment) = (Duration::MAX, None);
        // An empty pass shows when it ends; the host learns of it later, in the quickest of many tries little later.
        for _ in 0..20 {
            let start = Instant::now();
            let submission = device.scope("reading the device's clock", || {
                let mut encoder = device.raw().create_command_encoder(&Default::default());
                let timestamp_writes = Some(self.writes(0));
                encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
                device.queue().submit([encoder.finish()])
            })?;
            device.wait(&submission)?;
            let done = Instant::now();
            let [_, ticks] = self.ticks(1)?[0];
            if done - start < least && ticks > 0 {
                (least, moment) = (done - start, Some((done, ticks)));
            }
        }
        Ok(moment)
    }
}

/// Times one compute pass: by the device's clock where it has one, else until the host learns that it is done.
fn time_pass(device: &Device, record: impl Fn(&mut wgpu::ComputePass)) -> Result<Duration> {
    let clock = DeviceQueries::new(device, 1)?;
    let start = Instant::now();
    let submission = device.scope("timing a kernel", || {
        let mut encoder = device.raw().create_command_encoder(&Default::default());
        let timestamp_writes = clock.as_ref().map(|clock| clock.writes(0));
        record(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes }));
        device.queue().submit([encoder.finish()])
    })?;
    device.wait(&submission)?;
    let wall = start.elapsed();
    let ticks = clock.map_or(Ok(0), |clock| clock.ticks(1).map(|ticks| ticks[0][1].saturating_sub(ticks[0][0])))?;
    // Some drivers offer timestamps and write none.
    Ok(if ticks > 0 { Duration::from_secs_f64(ticks as f64 * period(device)) } else { wall })
}

/// Seconds of a tick of the device's clock.
fn period(device: &Device) -> f64 {
    f64::from(device.queue().get_timestamp_period()) / 1e9
}
