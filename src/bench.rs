//! How fast decoding is, beside what limits it, measured in turn in one run.
//!
//! Every row is checked against the oracle before it is timed. The limit of decoding into host memory is copying as
//! many bytes there from other host memory on the same threads; of a kernel, a shader that stores as many bytes.

use std::time::{Duration, Instant};

use rayon::prelude::*;
use serde::Serialize;

use crate::archive::Archive;
use crate::decode::cpu::CpuDecoder;
use crate::decode::naive::NaiveDecoder;
use crate::decode::{Decoder, resize};
use crate::error::{Error, Result};
use crate::gpu::{Device, GpuDecoder, Select};
use crate::output::{Dtype, Layout, OutputSpec};
use crate::progress::{Counter, Progress};

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
    /// rows, `kernel`, `readback` of pixels.
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
pub fn bench<D: AsRef<[u8]> + Sync>(
    archive: &Archive<D>,
    options: &BenchOptions,
    progress: &dyn Progress,
) -> Result<Vec<BenchRow>> {
    if archive.samples() == 0 {
        let (argument, found) = ("archive", "empty".into());
        return Err(Error::Argument { argument, found, expected: "at least one sample to decode".into() });
    }
    let devices: Vec<Device> = options.gpus.iter().map(Device::open).collect::<Result<_>>()?;
    let cpu = options.cpu.then(|| CpuDecoder::new(archive));
    let gpus: Vec<GpuDecoder> = devices.iter().map(|device| GpuDecoder::new(device, archive)).collect::<Result<_>>()?;
    let naive = NaiveDecoder::new(archive);
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
            for gpu in &gpus {
                rows.push(batch.decode(gpu, "gpu", spec, &expected)?);
                batch.gpu_stages(gpu, spec, &mut rows)?;
                counter.add(1)?;
            }
        }
    }
    Ok(rows)
}

/// A batch of any element type, as bytes.
fn decode_bytes(decoder: &dyn Decoder, rows: &[&[u8]], spec: &OutputSpec) -> Result<Vec<u8>> {
    let mut output = Vec::new();
    resize(&mut output, spec.batch_len(decoder.geometry(), rows.len()))?;
    decoder.decode_bytes(rows, spec, &mut output)?;
    Ok(output)
}

/// Batches of one size: each run takes other samples, all over the archive.
struct Batch<'a> {
    runs: Vec<Vec<&'a [u8]>>,
    size: usize,
}

impl<'a> Batch<'a> {
    fn new<D: AsRef<[u8]>>(archive: &'a Archive<D>, size: usize, runs: usize) -> Result<Self> {
        let samples = archive.samples();
        // Steps of the golden section visit everything in no order that a prefetcher would guess.
        let step = ((samples as f64 * 0.618) as usize).max(1);
        let sample = |run: usize, i: usize| ((run * size + i) * step + run) % samples;
        let rows = |run| archive.rows((0..size).map(|i| sample(run, i)));
        Ok(Self { runs: (0..runs.max(1)).map(rows).collect::<Result<_>>()?, size })
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
        decoder.decode_bytes(&self.runs[0], spec, &mut output)?;
        if let Some(place) = spec.first_difference(&output, expected) {
            return Err(Error::Mismatch { device: decoder.device_name().into(), output: spec.to_string(), place });
        }
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
            let start = Instant::now();
            decoder.decode_bytes(rows, spec, &mut target)?;
            times.push(start.elapsed());
        }
        // The first run warmed the target.
        let adapter = (backend == "gpu").then(|| decoder.device_name().to_string());
        Ok(self.row(backend, adapter, "decode", spec, expected.len(), &times[1..], ("memcpy", &limits[1..])))
    }

    /// Times the parts of decoding on a GPU.
    fn gpu_stages(&self, gpu: &GpuDecoder, spec: &OutputSpec, rows: &mut Vec<BenchRow>) -> Result<()> {
        let runs = self.runs.len();
        let adapter = Some(gpu.device_name().to_string());
        let first = &self.runs[0];
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

        // Kernel and fill take turns, so that both see the same machine. The fill stores what the kernel stores at a
        // time: single words for bytes, four of them for floats.
        let quads = spec.dtype == Dtype::F32;
        let (mut kernel, mut fill) = (Vec::new(), Vec::new());
        for run in &self.runs {
            kernel.extend(gpu.time_kernel(run, spec, 1)?);
            fill.extend(gpu.device().time_fill(bytes as u64, quads, 1)?);
        }
        let limit = (if quads { "fill-quads" } else { "fill-words" }, fill.as_slice());
        rows.push(self.row("gpu", adapter.clone(), "kernel", spec, bytes, &kernel, limit));

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
        rows.push(self.row("gpu", adapter, "readback", spec, bytes, &times[1..], limit));
        Ok(())
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
