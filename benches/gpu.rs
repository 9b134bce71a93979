//! `cargo bench --bench gpu -- ARCHIVE.. [--adapter NAME].. [--runs 5]`: what GPUs do with these archives, one JSON
//! object per line on standard output, each of one table:
//!
//! - `gpu_kernel`: the kernel beside a shader that stores as many bytes, by size of workgroups;
//! - `gpu_stages`: the stages of decoding, and streams and resident rows, beside what limits them;
//! - `gpu_timeline`: when the stages of each batch of a stream took place;
//! - `gpu_latency`: what it takes until the first batch is there;
//! - `gpu_codecs`: the kernels of all archives in turn, beside the first's. With a plain archive of 2x2 patches there, it
//!   tells what layers cost.
//!
//! Every output is compared with the oracle's before it is timed. Without `--adapter`, all adapters are measured.
#![allow(clippy::print_stdout)]

use kuat::bench::{BenchOptions, bench, bench_kernel, bench_latency, usual_outputs};
use kuat::gpu::{Device, GpuDecoder, Select, adapters};
use kuat::{Archive, Error, OutputSpec, Result};
use serde_json::{Value, json};

const BATCHES: [usize; 2] = [64, 256];
const WORKGROUPS: [u32; 4] = [32, 64, 128, 256];
/// Batches of a timeline, and their size.
const TIMELINE: (usize, usize) = (12, 64);

fn main() -> Result<()> {
    let (mut archives, mut names, mut runs) = (Vec::new(), Vec::new(), 5);
    // Cargo's own argument is not for us.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--adapter" => names.extend(arguments.next()),
            "--runs" => runs = arguments.next().and_then(|runs| runs.parse().ok()).unwrap_or(runs),
            _ => archives.push(Archive::open(argument)?),
        }
    }
    if archives.is_empty() {
        let (argument, found) = ("archives", "none".into());
        return Err(Error::Argument { argument, found, expected: "paths of .qvq files".into() });
    }
    if names.is_empty() {
        names = adapters().iter().map(ToString::to_string).collect();
    }
    for select in names.into_iter().map(Select::Named) {
        archives.iter().try_for_each(|archive| measure(&select, archive, runs))?;
        if archives.len() > 1 {
            compare(&select, &archives, runs)?;
        }
    }
    Ok(())
}

fn measure(select: &Select, archive: &Archive, runs: usize) -> Result<()> {
    let patch = archive.geometry().patch_width();
    let outputs = usual_outputs(archive.geometry().channels());
    // First, as nothing may have been opened or compiled before.
    for row in bench_latency(select, archive, BATCHES[0], &outputs[0])? {
        print("gpu_latency", patch, json!(row));
    }
    let device = Device::open(select)?;
    let gpu = GpuDecoder::new(&device, archive)?;
    for spec in &outputs {
        for batch in BATCHES {
            for row in bench_kernel(&gpu, archive, batch, spec, &WORKGROUPS, runs)? {
                let chosen = row.workgroup == gpu.workgroup_size();
                let mut row = json!(row);
                row["chosen"] = chosen.into();
                print("gpu_kernel", patch, row);
            }
        }
        timeline(&gpu, archive, patch, spec)?;
    }
    let options = BenchOptions { cpu: false, gpus: vec![select.clone()], batches: BATCHES.into(), outputs, runs };
    for row in bench(archive, &options, &())? {
        print("gpu_stages", patch, json!(row));
    }
    Ok(())
}

/// Measures the archives' kernels one after the other, again and again, so that all have the same machine.
fn compare(select: &Select, archives: &[Archive], runs: usize) -> Result<()> {
    let device = Device::open(select)?;
    let gpus = archives.iter().map(|archive| GpuDecoder::new(&device, archive)).collect::<Result<Vec<_>>>()?;
    for spec in usual_outputs(archives[0].geometry().channels()) {
        let mut rates = vec![Vec::new(); archives.len()];
        for _ in 0..runs {
            for ((gpu, archive), rates) in gpus.iter().zip(archives).zip(&mut rates) {
                let rows = bench_kernel(gpu, archive, BATCHES[0], &spec, &[gpu.workgroup_size()], 1)?;
                rates.extend(rows.iter().map(|row| row.images_per_s));
            }
        }
        let medians: Vec<f64> = rates.iter_mut().map(|rates| median(rates)).collect();
        for (archive, rate) in archives.iter().zip(&medians) {
            let row = json!({
                "adapter": device.description().to_string(),
                "codec": archive.codec().name(),
                "bytes": archive.mean_row_len(),
                "dtype": spec.dtype.name(),
                "layout": spec.layout.name(),
                "normalized": spec.normalization.is_some(),
                "batch": BATCHES[0],
                "images_per_s": rate,
                "ratio": rate / medians[0],
                "runs": runs,
            });
            print("gpu_codecs", archive.geometry().patch_width(), row);
        }
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn timeline(gpu: &GpuDecoder, archive: &Archive, patch: usize, spec: &OutputSpec) -> Result<()> {
    let (batches, size) = TIMELINE;
    let samples = |batch| (0..size).map(move |i| (batch * size + i) % archive.samples());
    let rows = (0..batches).map(|batch| archive.rows(samples(batch))).collect::<Result<Vec<_>>>()?;
    let rows: Vec<_> = rows.iter().map(|rows| rows.slices()).collect();
    // The first time fills the buffers.
    gpu.time_stream(&rows, spec)?;
    for time in gpu.time_stream(&rows, spec)? {
        let row = json!({
            "adapter": gpu.device().description().to_string(),
            "dtype": spec.dtype.name(),
            "layout": spec.layout.name(),
            "batch": size,
            "batch_number": time.batch,
            "stage": time.stage,
            "start_ms": time.start.as_secs_f64() * 1e3,
            "end_ms": time.end.as_secs_f64() * 1e3,
        });
        print("gpu_timeline", patch, row);
    }
    Ok(())
}

fn print(table: &str, patch: usize, mut row: Value) {
    row["table"] = table.into();
    row["patch"] = patch.into();
    println!("{row}");
}
