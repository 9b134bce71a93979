//! `cargo bench --bench cpu -- [--only TABLE] ARCHIVE...`: decoding on the CPU beside what limits it, a line of JSON
//! per measurement. Archives of uniformly random indices are measured beside those given.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used)]

mod measure;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use kuat::{Archive, ArchiveSpec, ArchiveWriter, CpuDecoder, Decoder, Dtype, Geometry, Layout, NaiveDecoder};
use kuat::{IndexWidth, Normalization, OutputSpec};
use measure::{Work, copy_images, fill_images, in_turns, scattered};
use memmap2::Mmap;
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Images of the raw pixels that are copied from, and samples of random archives: in no cache.
const SAMPLES: usize = 2048;
/// Images of a timed run, a batch after the other.
const IMAGES: usize = 1024;

fn main() -> Result<()> {
    let mut only = None;
    let mut archives = Vec::new();
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--only" => only = arguments.next(),
            _ => archives.push(argument),
        }
    }
    let tables: [(&str, fn(&[String], &Path) -> Result<()>); 1] = [("cpu_decode", decode)];
    let folder = tempfile::tempdir()?;
    for (name, table) in tables {
        if only.as_deref().is_none_or(|only| only == name) {
            eprintln!("measuring {name}");
            table(&archives, folder.path())?;
        }
    }
    Ok(())
}

fn normalized(dtype: Dtype) -> OutputSpec {
    OutputSpec { dtype, layout: Layout::Nchw, normalization: Some(Normalization::imagenet()) }
}

/// Decoding, beside copying raw pixels (bytes) or storing as much (floats).
fn decode(archives: &[String], folder: &Path) -> Result<()> {
    let geometry = |patch| Geometry::new((224, 224), 3, (patch, patch));
    let raw = raw_pixels(folder, geometry(4)?.image_len())?;
    for path in archives {
        decode_archive(&Archive::open(path)?, "real", &raw)?;
    }
    for patch in [4, 2] {
        for codewords in [4096, 65_536] {
            let path = folder.join(format!("{patch}-{codewords}.qvq"));
            random_archive(&path, geometry(patch)?, codewords, SAMPLES)?;
            decode_archive(&Archive::open(&path)?, "random", &raw)?;
        }
    }
    Ok(())
}

fn decode_archive(archive: &Archive, indices: &str, raw: &[u8]) -> Result<()> {
    let geometry = archive.geometry();
    let mut decoder = CpuDecoder::new(archive);
    if let Ok(path) = std::env::var("KUAT_PATH") {
        decoder = decoder.with_path(match path.as_str() {
            "portable" => kuat::CpuPath::Portable,
            "avx2" => kuat::CpuPath::Avx2,
            _ => kuat::CpuPath::Avx512,
        });
    }
    for spec in [OutputSpec::default(), normalized(Dtype::F16), normalized(Dtype::F32)] {
        let image = spec.batch_len(geometry, 1);
        for batch in [64, 512] {
            let mut order = scattered(archive.samples());
            let batches: Vec<Vec<&[u8]>> =
                (0..IMAGES / batch).map(|_| archive.rows(order.by_ref().take(batch))).collect::<kuat::Result<_>>()?;
            let order = scattered(raw.len() / geometry.image_len());
            let pixels: Vec<&[u8]> =
                order.take(IMAGES).map(|i| &raw[i * geometry.image_len()..][..geometry.image_len()]).collect();
            let mut output = aligned(image * batch);
            let mut expected = vec![0; output.len()];
            NaiveDecoder::new(archive).decode_bytes(&batches[0], &spec, &mut expected)?;
            decoder.decode_bytes(&batches[0], &spec, &mut output)?;
            if *output != *expected {
                return Err("the decoder differs from the oracle".into());
            }
            drop(expected);
            for threads in [1, 2] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
                let output = std::sync::Mutex::new(&mut output[..]);
                let limit = |streaming: bool| {
                    let (output, pixels, pool) = (&output, &pixels, &pool);
                    Box::new(move || {
                        let mut output = output.lock().expect("one at a time");
                        let output: &mut [u8] = &mut output;
                        pool.install(|| {
                            for sources in pixels.chunks(batch) {
                                match spec.dtype {
                                    Dtype::U8 => copy_images(sources, output, image, streaming),
                                    _ => fill_images(output, image, streaming),
                                }
                            }
                        });
                    })
                };
                let decode = || {
                    let mut output = output.lock().expect("one at a time");
                    let output: &mut [u8] = &mut output;
                    pool.install(|| {
                        for rows in &batches {
                            decoder.decode_bytes(rows, &spec, output).expect("decoded before");
                        }
                    });
                };
                let mut works: [Work; 3] = [Box::new(decode), limit(false), limit(true)];
                let seconds = in_turns(&mut works);
                drop(works);
                let limit = seconds[1].min(seconds[2]);
                let row = json!({
                    "table": "cpu_decode",
                    "patch": geometry.patch_width(),
                    "codewords": archive.codewords(),
                    "indices": indices,
                    "dtype": spec.dtype.name(),
                    "layout": spec.layout.name(),
                    "normalized": spec.normalization.is_some(),
                    "batch": batch,
                    "threads": threads,
                    "images_per_s": IMAGES as f64 / seconds[0],
                    "limit": if spec.dtype == Dtype::U8 { "memcpy" } else { "store" },
                    "limit_images_per_s": IMAGES as f64 / limit,
                    "ratio": limit / seconds[0],
                });
                println!("{row}");
            }
        }
    }
    Ok(())
}

fn aligned(len: usize) -> kuat::Buffer {
    kuat::BufferPool::default().take(len).expect("memory")
}

/// Raw pixels in a mapped file, as a data set that is not compressed at all.
fn raw_pixels(folder: &Path, image: usize) -> Result<Mmap> {
    let path = folder.join("raw");
    let mut file = BufWriter::new(File::create_new(&path)?);
    let mut random = Pcg64Mcg::seed_from_u64(1);
    let mut pixels = vec![0; image];
    for _ in 0..SAMPLES {
        random.fill_bytes(&mut pixels);
        file.write_all(&pixels)?;
    }
    file.flush()?;
    // SAFETY: nobody else knows this file.
    Ok(unsafe { Mmap::map(&File::open(path)?)? })
}

/// An archive whose codewords and indices are random, each equally likely: the worst case for caches.
fn random_archive(path: &Path, geometry: Geometry, codewords: usize, samples: usize) -> Result<()> {
    let mut random = Pcg64Mcg::seed_from_u64(1);
    let mut codebook = vec![0; codewords * geometry.codeword_len()];
    random.fill_bytes(&mut codebook);
    let mut spec = ArchiveSpec { samples, ..ArchiveSpec::new(geometry, codebook) };
    spec.index_width = Some(IndexWidth::narrowest(codewords)?);
    let mut writer = ArchiveWriter::create(path, spec)?;
    for _ in 0..samples {
        let row: Vec<u32> = (0..geometry.patches()).map(|_| random.random_range(0..codewords as u32)).collect();
        writer.push(&row, None, None)?;
    }
    writer.finish_file(None)?;
    Ok(())
}
