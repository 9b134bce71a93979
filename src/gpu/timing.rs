//! How long the device itself takes, for benchmarks.

use std::time::{Duration, Instant};

use super::decoder::GpuDecoder;
use super::device::Device;
use super::fill::Fill;
use crate::error::Result;
use crate::output::OutputSpec;

impl GpuDecoder {
    /// The time that the kernels take for a batch whose index rows are on the device, once per run, after one run
    /// that is not counted. By the device's own clock where it offers one.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn time_kernel(&self, rows: &[&[u8]], spec: &OutputSpec, runs: usize) -> Result<Vec<Duration>> {
        let prepared = self.prepare(rows, spec)?;
        let device = self.device();
        let times = time_passes(device, runs, |pass| prepared.record(pass));
        let buffers = prepared.parts.iter().map(|part| part.buffer().clone()).chain(prepared.used);
        buffers.for_each(|buffer| device.pool().put(buffer));
        times
    }

    /// The time that it takes to bring a batch's index rows to the device, once per run.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn time_upload(&self, rows: &[&[u8]], spec: &OutputSpec, runs: usize) -> Result<Vec<Duration>> {
        let device = self.device();
        let run = |_| {
            let start = Instant::now();
            let prepared = self.prepare(rows, spec)?;
            let submission = device.scope("uploading", || device.queue().submit([]))?;
            device.wait(&submission)?;
            let time = start.elapsed();
            let buffers = prepared.parts.iter().map(|part| part.buffer().clone()).chain(prepared.used);
            buffers.for_each(|buffer| device.pool().put(buffer));
            Ok(time)
        };
        (0..runs + 1).map(run).skip(1).collect()
    }
}

impl Device {
    /// The time that it takes a shader to store `bytes` bytes, in words of 4 or (`quads`) in vectors of 16, once per
    /// run, after one run that is not counted: the limit of any kernel that stores as much in the same way.
    ///
    /// # Errors
    /// [`Error::Gpu`](crate::Error::Gpu) if the device fails.
    pub fn time_fill(&self, bytes: u64, quads: bool, runs: usize) -> Result<Vec<Duration>> {
        let (fill, filled) = Fill::new(self, bytes, quads)?;
        let times = time_passes(self, runs, |pass| fill.record(pass))?;
        // A fill that was cut to one binding counts for as much as was asked.
        let scale = bytes as f64 / filled as f64;
        Ok(times.into_iter().map(|time| time.mul_f64(scale)).collect())
    }
}

/// Times a compute pass: once to warm up, then so many times.
fn time_passes(device: &Device, runs: usize, record: impl Fn(&mut wgpu::ComputePass)) -> Result<Vec<Duration>> {
    (0..runs + 1).map(|_| time_pass(device, &record)).skip(1).collect()
}

fn time_pass(device: &Device, record: impl Fn(&mut wgpu::ComputePass)) -> Result<Duration> {
    const BYTES: u64 = 2 * size_of::<u64>() as u64;
    let raw = device.raw();
    let action = "timing a kernel";
    let timestamps = raw.features().contains(wgpu::Features::TIMESTAMP_QUERY);
    let start = Instant::now();
    let (staging, submission) = device.scope(action, || {
        let mut encoder = raw.create_command_encoder(&Default::default());
        let queries = timestamps.then(|| {
            raw.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count: 2 })
        });
        let timestamp_writes = queries.as_ref().map(|query_set| wgpu::ComputePassTimestampWrites {
            query_set,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        record(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes }));
        let staging = queries.map(|queries| {
            let buffer = |usage| {
                raw.create_buffer(&wgpu::BufferDescriptor {
                    label: None,
                    size: BYTES,
                    usage,
                    mapped_at_creation: false,
                })
            };
            let resolved = buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
            let staging = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
            encoder.resolve_query_set(&queries, 0..2, &resolved, 0);
            encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, BYTES);
            staging
        });
        let submission = device.queue().submit([encoder.finish()]);
        if let Some(staging) = &staging {
            staging.map_async(wgpu::MapMode::Read, .., |_| ());
        }
        (staging, submission)
    })?;
    device.wait(&submission)?;
    let wall = start.elapsed();
    let Some(staging) = staging else { return Ok(wall) };
    let view = staging.get_mapped_range(..).map_err(|error| device.error(action, error))?;
    let (ticks, _) = view.as_chunks::<8>();
    let [begin, end] = [0, 1].map(|i| u64::from_le_bytes(ticks[i]));
    let seconds = end.saturating_sub(begin) as f64 * f64::from(device.queue().get_timestamp_period()) / 1e9;
    // Some drivers offer timestamps and write none.
    Ok(if seconds > 0.0 { Duration::from_secs_f64(seconds) } else { wall })
}
