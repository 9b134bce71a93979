//! `cargo bench --bench nearest -- ARCHIVE.. [--adapter NAME]..`: the exact search for the codewords nearest to patches, on
//! GPUs by comparing with every codeword and on the CPU by its tree, in turn. One JSON object per line on standard output.
//!
//! Patches are codewords of the archive, each value off by up to 8, which is about what photographs are off by. What is
//! found is compared before it is timed. Without `--adapter`, all adapters are measured.
#![allow(clippy::print_stdout, clippy::expect_used)]

mod measure;

use std::time::{Duration, Instant};

use kuat::encode::NearestCodeword;
use kuat::gpu::{Device, GpuNearest, Select, adapters};
use kuat::{Archive, Error, Result};
use measure::{Work, in_turns};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use rayon::prelude::*;
use serde_json::json;

/// Fewer codewords than an archive's, of which equally many are left out.
const CODEWORDS: usize = 4096;

/// The least patches at a time, the most, and how long a GPU is to be busy with them.
const LEAST_PATCHES: usize = 1 << 10;
const MOST_PATCHES: usize = 1 << 21;
const BUSY: Duration = Duration::from_millis(250);

fn main() -> Result<()> {
    let (mut archives, mut names) = (Vec::new(), Vec::new());
    // Cargo's own argument is not for us.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--adapter" => names.extend(arguments.next()),
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
        let device = Device::open(&select)?;
        for archive in &archives {
            let len = archive.geometry().codeword_len();
            let step = (archive.vq()?.codewords() / CODEWORDS).max(1);
            let fewer: Vec<u8> = archive.vq()?.codebook()?.chunks_exact(len).step_by(step).flatten().copied().collect();
            measure(&device, &fewer, len)?;
            if step > 1 {
                measure(&device, &archive.vq()?.codebook()?, len)?;
            }
        }
    }
    Ok(())
}

fn measure(device: &Device, codebook: &[u8], len: usize) -> Result<()> {
    let gpu = GpuNearest::new(device, codebook, len)?;
    let cpu = NearestCodeword::new(codebook, len)?;
    let codewords = codebook.len() / len;
    let by_gpu = |patches: &[u8], nearest: &mut [u32], distances: &mut [u32]| {
        gpu.nearest(patches, nearest, distances).expect("searched");
    };
    let by_cpu = |patches: &[u8], nearest: &mut [u32], distances: &mut [u32]| {
        let results = nearest.par_iter_mut().zip(distances).with_min_len(64);
        patches.par_chunks_exact(len).zip(results).for_each(|(patch, (nearest, distance))| {
            (*nearest, *distance) = cpu.nearest(patch, None);
        });
    };
    let mut count = LEAST_PATCHES;
    let (patches, found) = loop {
        let patches = some_patches(codebook, len, count);
        let mut found = (vec![0; count], vec![0; count]);
        let start = Instant::now();
        by_gpu(&patches, &mut found.0, &mut found.1);
        if start.elapsed() > BUSY || count == MOST_PATCHES {
            break (patches, found);
        }
        count *= 2;
    };
    let mut expected = (vec![0; count], vec![0; count]);
    by_cpu(&patches, &mut expected.0, &mut expected.1);
    assert!(found == expected, "{device:?} finds other codewords than the CPU");

    let mut on_gpu = || by_gpu(&patches, &mut found.0.clone(), &mut found.1.clone());
    let mut on_cpu = || by_cpu(&patches, &mut expected.0.clone(), &mut expected.1.clone());
    let works: &mut [Work] = &mut [Box::new(&mut on_gpu), Box::new(&mut on_cpu)];
    let [gpu_seconds, cpu_seconds] = in_turns(works)[..] else { return Ok(()) };
    let row = json!({
        "table": "nearest",
        "adapter": device.description().to_string(),
        "codewords": codewords,
        "values": len,
        "patches": count,
        "gpu_patches_per_s": count as f64 / gpu_seconds,
        "cpu_patches_per_s": count as f64 / cpu_seconds,
        "cpu_threads": rayon::current_num_threads(),
        "gpu_products_per_s": (count * codewords * len) as f64 / gpu_seconds,
        "gpu_over_cpu": cpu_seconds / gpu_seconds,
    });
    println!("{row}");
    Ok(())
}

fn some_patches(codebook: &[u8], len: usize, count: usize) -> Vec<u8> {
    let mut random = Pcg64Mcg::seed_from_u64(5);
    let mut patches = Vec::with_capacity(count * len);
    for _ in 0..count {
        let codeword = random.random_range(0..codebook.len() / len);
        let codeword = &codebook[codeword * len..][..len];
        patches.extend(codeword.iter().map(|value| value.saturating_add_signed(random.random_range(-8..=8))));
    }
    patches
}
