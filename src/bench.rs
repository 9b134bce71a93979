//! How fast decoding is, beside what limits it, measured in turn in one run.
//!
//! Every row is checked against the oracle before it is timed. The limit of decoding into host memory is copying as
//! many bytes there from other host memory on the same threads; of a kernel, a shader that stores as many bytes.

use std::time::{Duration, Instant};

use rayon::prelude::*;
use serde::Serialize;

use crate::archive::Archive;
use crate::data::Data;
use crate::decode::cpu::CpuDecoder;
use crate::decode::naive::NaiveDecoder;
use crate::decode::{Decoder, resize};
use crate::error::{Error, Result};
use crate::gpu::{AdapterKind, Device, GpuDecoder, IN_FLIGHT, KernelTimes, Resident, Select, Stream};
use crate::output::{Dtype, Layout, OutputSpec};
use crate::progress::{Counter, Progress};
use crate::rows::Rows;

/// What to measure: every combination.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Whether to measure the CPU.
    pub cpu: bool,
    /// Which GPUs to measure.
    pub gpus: Vec<Select>,
    /// Images per batch.
    pub batches: Vec<usize>,
    /// What to decode to.
    pub outputs: Vec<OutputSpec>,
    /// Timed runs of each row; the median counts.
    pub runs: usize,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchRow {
    /// `cpu` or `gpu`.
    pub backend: &'static str,
    /// The GPU; `None` on the CPU.
    pub adapter: Option<String>,
    /// `decode`: index rows in host memory to pixels in host memory. On a GPU also its parts: `upload` of index
    /// rows, `kernel`, `readback` of pixels; `stream`: as `decode`, batch after batch with several in flight; and
    /// `resident`: sample numbers in host memory to pixels on the device, where the index rows are. That row is missing
    /// if they do not fit there.
    pub stage: &'static str,
    /// Element type of the output.
    pub dtype: &'static str,
    /// Order of its axes.
    pub layout: &'static str,
    /// Whether values are normalised.
    pub normalized: bool,
    /// Images per batch.
    pub batch: usize,
    /// Images in a second, by the median run.
    pub images_per_s: f64,
    /// Bytes of output (of index rows, for `upload`) in a second.
    pub bytes_per_s: f64,
    /// What limits it: `memcpy`, `fill-words` or `fill-quads`.
    pub limit: &'static str,
    /// Bytes in a second at the limit, for the same number of bytes.
    pub limit_bytes_per_s: f64,
    /// Rate over limit.
    pub ratio: f64,
}

/// Measures an archive.
///
/// # Errors
/// [`Error::Argument`] if the archive is empty; [`Error::Mismatch`] if a decoder does not do what the oracle does;
/// errors of the GPU; [`Error::Interrupted`].
pub fn bench<D: Data>(archive: &Archive<D>, options: &BenchOptions, progress: &dyn Progress) -> Result<Vec<BenchRow>> {
    if archive.samples() == 0 {
        let (argument, found) = ("archive", "empty".into());
        return Err(Error::Argument { argument, found, expected: "at least one sample to decode".into() });
    }
    let devices: Vec<Device> = options.gpus.iter().map(Device::open).collect::<Result<_>>()?;
    let cpu = options.cpu.then(|| CpuDecoder::new(archive)).transpose()?;
    let gpus: Vec<GpuDecoder> = devices.iter().map(|device| GpuDecoder::new(device, archive)).collect::<Result<_>>()?;
    let residents: Vec<Option<Resident>> = gpus.iter().map(|gpu| resident(gpu, archive)).collect::<Result<_>>()?;
    let naive = NaiveDecoder::new(archive)?;
    let decoders = gpus.len() + usize::from(options.cpu);
    let counter = Counter::new(progress, "measuring", options.batches.len() * options.outputs.len() * decoders);
    let mut rows = Vec::new();
    for &size in options.batches.iter().filter(|&&size| size > 0) {
        let batch = Batch::new(archive, size, options.runs)?;
        for spec in &options.outputs {
            let expected = decode_bytes(&naive, &batch.runs[0], spec)?;
            if let Some(cpu) = &cpu {
                rows.push(batch.decode(cpu, "cpu", spec, &expected)?);
                counter.add(1)?;
            }
            for (gpu, resident) in gpus.iter().zip(&residents) {
                rows.push(batch.decode(gpu, "gpu", spec, &expected)?);
                batch.gpu_stages(gpu, resident.as_ref(), spec, &expected, &mut rows)?;
                counter.add(1)?;
            }
        }
    }
    Ok(rows)
}

/// The archive's index rows on the device, unless it lacks the memory.
fn resident<D: Data>(gpu: &GpuDecoder, archive: &Archive<D>) -> Result<Option<Resident>> {
    match Resident::new(gpu, archive, None) {
        Ok(resident) => Ok(Some(resident)),
        Err(Error::GpuBudget { .. } | Error::GpuLimit { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A batch of any element type, as bytes.
fn decode_bytes(decoder: &dyn Decoder, rows: &Rows, spec: &OutputSpec) -> Result<Vec<u8>> {
    let mut output = Vec::new();
    resize(&mut output, spec.batch_len(decoder.geometry(), rows.len()))?;
    decoder.decode_bytes(&rows.slices(), spec, &mut output)?;
    Ok(output)
}

/// Compares a batch with the oracle's.
fn check(decoder: &dyn Decoder, spec: &OutputSpec, found: &[u8], expected: &[u8]) -> Result<()> {
    spec.first_difference(found, expected).map_or(Ok(()), |place| {
        Err(Error::Mismatch { device: decoder.device_name().into(), output: spec.to_string(), place })
    })
}

/// A GPU's kernel beside the limit, with workgroups of one size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelRow {
    /// The GPU.
    pub adapter: String,
    /// Its driver.
    pub driver: String,
    /// What kind of hardware it is.
    pub device_type: AdapterKind,
    /// Element type of the output.
    pub dtype: &'static str,
    /// Order of its axes.
    pub layout: &'static str,
    /// Whether values are normalised.
    pub normalized: bool,
    /// Images per batch.
    pub batch: usize,
    /// Invocations of a workgroup.
    pub workgroup: u32,
    /// Images in a second, by the median run.
    pub images_per_s: f64,
    /// Images in a second that a shader stores that does nothing else.
    pub fill_images_per_s: f64,
    /// Rate over limit.
    pub ratio: f64,
    /// Timed runs.
    pub runs: usize,
}

/// Measures a decoder's kernel with several sizes of workgroups; those that the device does not have are left out.
///
/// # Errors
/// As [`bench()`].
pub fn bench_kernel<D: Data>(
    gpu: &GpuDecoder,
    archive: &Archive<D>,
    size: usize,
    spec: &OutputSpec,
    workgroups: &[u32],
    runs: usize,
) -> Result<Vec<KernelRow>> {
    let batch = Batch::new(archive, size, runs)?;
    let expected = decode_bytes(&NaiveDecoder::new(archive)?, &batch.runs[0], spec)?;
    let mut rows = Vec::new();
    for &workgroup in workgroups {
        let gpu = gpu.with_workgroup_size(workgroup)?;
        if gpu.workgroup_size() != workgroup {
            continue;
        }
        check(&gpu, spec, &decode_bytes(&gpu, &batch.runs[0], spec)?, &expected)?;
        let (times, _) = batch.kernel_times(&gpu, spec)?;
        let (kernel, fill) = (median(&times.kernel), median(&times.fill));
        let adapter = gpu.device().description();
        rows.push(KernelRow {
            adapter: adapter.to_string(),
            driver: format!("{} {}", adapter.driver, adapter.driver_info),
            device_type: adapter.kind,
            dtype: spec.dtype.name(),
            layout: spec.layout.name(),
            normalized: spec.normalization.is_some(),
            batch: size,
            workgroup,
            images_per_s: size as f64 / kernel,
            fill_images_per_s: size as f64 / fill,
            ratio: fill / kernel,
            runs: batch.runs.len(),
        });
    }
    Ok(rows)
}

/// What it takes until a GPU's first batch is in host memory, step by step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LatencyRow {
    /// The GPU.
    pub adapter: String,
    /// `device`: drivers are loaded and the device is opened. `codebook`: the shader is parsed, the codebook is on the
    /// device. `pipeline`: the kernel is compiled. `first_batch`: buffers are made. `warm_batch`: all is there.
    pub step: &'static str,
    /// Milliseconds; for `warm_batch` the median of several.
    pub ms: f64,
}

/// Measures the first batch, of `size` images, on a device that is opened for it.
///
/// # Errors
/// As [`bench()`].
pub fn bench_latency<D: Data>(
    select: &Select,
    archive: &Archive<D>,
    size: usize,
    spec: &OutputSpec,
) -> Result<Vec<LatencyRow>> {
    const RUNS: usize = 5;
    let batch = Batch::new(archive, size, RUNS + 1)?;
    let mut output = decode_bytes(&NaiveDecoder::new(archive)?, &batch.runs[0], spec)?;
    let mut steps = Vec::new();
    let mut start = Instant::now();
    let mut step = |step| {
        steps.push((step, start.elapsed()));
        start = Instant::now();
    };
    let device = Device::open(select)?;
    step("device");
    let gpu = GpuDecoder::new(&device, archive)?;
    device.finish()?;
    step("codebook");
    gpu.compile(spec)?;
    step("pipeline");
    gpu.decode_bytes(&batch.runs[0].slices(), spec, &mut output)?;
    step("first_batch");
    let mut warm = Vec::new();
    for rows in &batch.runs[1..] {
        let rows = rows.slices();
        let start = Instant::now();
        gpu.decode_bytes(&rows, spec, &mut output)?;
        warm.push(start.elapsed());
    }
    let row = |step, ms| LatencyRow { adapter: device.description().to_string(), step, ms };
    let first = steps.iter().map(|(step, time)| row(step, time.as_secs_f64() * 1e3));
    Ok(first.chain([row("warm_batch", median(&warm) * 1e3)]).collect())
}

/// Batches of one size: each run takes other samples, all over the archive.
struct Batch<'a> {
    samples: Vec<Vec<usize>>,
    runs: Vec<Rows<'a>>,
    size: usize,
}

impl<'a> Batch<'a> {
    fn new<D: Data>(archive: &'a Archive<D>, size: usize, runs: usize) -> Result<Self> {
        let samples = archive.samples();
        // Steps of the golden section visit everything in no order that a prefetcher would guess.
        let step = ((samples as f64 * 0.618) as usize).max(1);
        let sample = |run: usize, i: usize| ((run * size + i) * step + run) % samples;
        let samples: Vec<Vec<usize>> =
            (0..runs.max(1)).map(|run| (0..size).map(|i| sample(run, i)).collect()).collect();
        let runs = samples.iter().map(|samples| archive.rows(samples.iter().copied())).collect::<Result<_>>()?;
        Ok(Self { samples, runs, size })
    }

    /// Times decoding into warm host memory, in turn with copying as many bytes there.
    fn decode(
        &self,
        decoder: &dyn Decoder,
        backend: &'static str,
        spec: &OutputSpec,
        expected: &[u8],
    ) -> Result<BenchRow> {
        let mut output = vec![0; expected.len()];
        decoder.decode_bytes(&self.runs[0].slices(), spec, &mut output)?;
        check(decoder, spec, &output, expected)?;
        let image = expected.len() / self.size;
        let mut copy = || {
            let start = Instant::now();
            let images = output.par_chunks_exact_mut(image).zip(expected.par_chunks_exact(image));
            images.for_each(|(target, source)| target.copy_from_slice(source));
            start.elapsed()
        };
        copy();
        let mut limits = Vec::new();
        let mut times = Vec::new();
        let mut target = vec![0; expected.len()];
        for rows in self.runs.iter().chain(&self.runs[..1]) {
            limits.push(copy());
            let rows = rows.slices();
            let start = Instant::now();
            decoder.decode_bytes(&rows, spec, &mut target)?;
            times.push(start.elapsed());
        }
        // The first run warmed the target.
        let adapter = (backend == "gpu").then(|| decoder.device_name().to_string());
        Ok(self.row(backend, adapter, "decode", spec, expected.len(), &times[1..], ("memcpy", &limits[1..])))
    }

    /// Times the parts of decoding on a GPU.
    fn gpu_stages(
        &self,
        gpu: &GpuDecoder,
        resident: Option<&Resident>,
        spec: &OutputSpec,
        expected: &[u8],
        rows: &mut Vec<BenchRow>,
    ) -> Result<()> {
        let runs = self.runs.len();
        let adapter = Some(gpu.device_name().to_string());
        let first = &self.runs[0].slices();
        let bytes = spec.batch_len(gpu.geometry(), self.size);
        let index_bytes: usize = first.iter().map(|row| row.len()).sum();

        let mut source = vec![1u8; bytes];
        let target = vec![2u8; bytes];
        let mut copy = |bytes: usize| {
            let start = Instant::now();
            source[..bytes].copy_from_slice(&target[..bytes]);
            start.elapsed()
        };
        copy(bytes);

        let upload = gpu.time_upload(first, spec, runs)?;
        let copies: Vec<Duration> = (0..runs).map(|_| copy(index_bytes.min(bytes))).collect();
        let limit = ("memcpy", copies.as_slice());
        rows.push(self.row("gpu", adapter.clone(), "upload", spec, index_bytes, &upload, limit));

        let (times, fill_name) = self.kernel_times(gpu, spec)?;
        let fill = (fill_name, times.fill.as_slice());
        rows.push(self.row("gpu", adapter.clone(), "kernel", spec, bytes, &times.kernel, fill));

        if let Some(resident) = resident {
            let found = resident.submit(&self.samples[0], spec)?.read()?;
            check(gpu, spec, &found, expected)?;
            let mut resident_times = Vec::new();
            for samples in self.samples.iter().chain(&self.samples[..1]) {
                let start = Instant::now();
                resident.submit(samples, spec)?.wait()?;
                resident_times.push(start.elapsed());
            }
            rows.push(self.row("gpu", adapter.clone(), "resident", spec, bytes, &resident_times[1..], fill));
        }

        let batch = gpu.submit(first, spec)?;
        batch.wait()?;
        let mut output = vec![0; bytes];
        let (mut times, mut copies) = (Vec::new(), Vec::new());
        for _ in 0..runs + 1 {
            copies.push(copy(bytes));
            let start = Instant::now();
            batch.read_into(&mut output)?;
            times.push(start.elapsed());
        }
        let limit = ("memcpy", &copies[1..]);
        rows.push(self.row("gpu", adapter.clone(), "readback", spec, bytes, &times[1..], limit));
        drop(batch);

        // The first ones fill the stream and its buffers.
        let filling = 2 * IN_FLIGHT;
        let mut stream = Stream::new(runs + filling, |run| gpu.submit(&self.runs[run % runs], spec));
        let mut stream_times = Vec::new();
        for run in 0..runs + filling {
            let start = Instant::now();
            stream.read_into(&mut output)?;
            stream_times.push(start.elapsed());
            if run == 0 {
                check(gpu, spec, &output, expected)?;
            }
        }
        rows.push(self.row("gpu", adapter, "stream", spec, bytes, &stream_times[filling..], limit));
        Ok(())
    }

    /// Times the kernel beside the fill that limits it, whose name is told: one that stores what the kernel stores at a
    /// time, single words for bytes, four of them for floats.
    fn kernel_times(&self, gpu: &GpuDecoder, spec: &OutputSpec) -> Result<(KernelTimes, &'static str)> {
        let mut times = KernelTimes { kernel: Vec::new(), fill: Vec::new() };
        for run in &self.runs {
            let run = gpu.time_kernel(run, spec, 1)?;
            times.kernel.extend(run.kernel);
            times.fill.extend(run.fill);
        }
        Ok((times, if spec.dtype == Dtype::F32 { "fill-quads" } else { "fill-words" }))
    }

    #[expect(clippy::too_many_arguments)]
    fn row(
        &self,
        backend: &'static str,
        adapter: Option<String>,
        stage: &'static str,
        spec: &OutputSpec,
        bytes: usize,
        times: &[Duration],
        (limit, limits): (&'static str, &[Duration]),
    ) -> BenchRow {
        let (time, limit_time) = (median(times), median(limits));
        BenchRow {
            backend,
            adapter,
            stage,
            dtype: spec.dtype.name(),
            layout: spec.layout.name(),
            normalized: spec.normalization.is_some(),
            batch: self.size,
            images_per_s: self.size as f64 / time,
            bytes_per_s: bytes as f64 / time,
            limit,
            limit_bytes_per_s: bytes as f64 / limit_time,
            ratio: limit_time / time,
        }
    }
}

/// The median in seconds; never zero, so that it can be divided by.
fn median(times: &[Duration]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort();
    let middle = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    middle.as_secs_f64().max(1e-9)
}

/// The outputs that most training uses: bytes as stored, and normalised planes of single precision.
pub fn usual_outputs(channels: usize) -> Vec<OutputSpec> {
    let normalization = (channels == 3).then(crate::output::Normalization::imagenet);
    vec![
        OutputSpec { dtype: Dtype::U8, layout: Layout::Nhwc, normalization: None },
        OutputSpec { dtype: Dtype::F32, layout: Layout::Nchw, normalization },
    ]
}
