//! How fast random batches are decoded into warm memory on the CPU: images per second of the median batch.
//!
//! `cargo run --release --example throughput -- ARCHIVE BATCH u8|f32`. Bytes are interleaved, floats planar and
//! normalised. `benches/overhead.py` holds the Python package against it.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use kuat::loader::{Epoch, EpochOptions};
use kuat::{Archive, CpuDecoder, Decoder, Dtype, Layout, Normalization, OutputSpec};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [path, batch, dtype] = <[String; 3]>::try_from(std::env::args().skip(1).collect::<Vec<_>>())
        .map_err(|_| "usage: throughput ARCHIVE BATCH u8|f32")?;
    let batch: usize = batch.parse()?;
    let spec = match dtype.parse()? {
        Dtype::U8 => OutputSpec::default(),
        dtype => OutputSpec { dtype, layout: Layout::Nchw, normalization: Some(Normalization::imagenet()) },
    };
    let archive = Archive::open(path)?;
    let decoder = CpuDecoder::new(&archive)?;
    let mut pixels = vec![0; spec.batch_len(archive.geometry(), batch)];
    let mut times = Vec::new();
    let start = Instant::now();
    for epoch in 0.. {
        let options = EpochOptions { batch_size: batch, shuffle: true, drop_last: true, epoch, ..Default::default() };
        let epoch = Epoch::new(archive.samples(), &options)?;
        if epoch.is_empty() {
            return Err(format!("the archive has {} samples, less than a batch", archive.samples()).into());
        }
        for samples in (0..epoch.len()).map(|batch| epoch.batch(batch)) {
            let start = Instant::now();
            let rows = archive.rows(samples.iter().copied())?;
            decoder.decode_bytes(&rows.slices(), &spec, &mut pixels)?;
            times.push(start.elapsed());
        }
        if start.elapsed() > Duration::from_secs(1) {
            break;
        }
    }
    times.sort();
    println!("{}", batch as f64 / times[times.len() / 2].as_secs_f64());
    Ok(())
}
