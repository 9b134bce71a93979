//! `cargo bench --bench archive -- [--only TABLE]`: opening archives of any size, and random samples that are not in
//! memory, a line of JSON per measurement. Linux only. Writes 4 GB, one file after the other, to the target folder.
#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod measure;

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

use kuat::{
    Access, Archive, ArchiveSpec, ArchiveWriter, BufferPool, Check, CpuDecoder, Decoder, Geometry, OpenOptions,
    OutputSpec, SampleInfo,
};
use measure::{ROUNDS, Work, in_turns, median, scattered};
use memmap2::{Advice, Mmap};
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use rayon::prelude::*;
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Samples of the archives that are opened.
const SAMPLES: [u64; 6] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
/// Timed openings, and archives held open at the same time.
const OPENINGS: usize = 64;

/// Samples of the archives whose rows are compared with their checksums: more than caches hold.
const CHECKED: usize = 4096;

const BATCH: usize = 64;
/// Samples that are read, once each.
const READ: usize = 8 * BATCH;
/// Bytes from one to the next: so far apart that no read-ahead for one brings the other, as it is in a file much larger
/// than memory, where next to no row is in the page cache by chance. 8 MiB is the largest read-ahead that systems set.
const APART: usize = (8 << 20) + (64 << 10);
/// Passes over what is in memory already, which go by in milliseconds.
const PASSES: u32 = 8;

/// Measures and prints, with files in a folder.
type Table = fn(&Path) -> Result<()>;

fn main() -> Result<()> {
    let mut only = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--only" {
            only = arguments.next();
        }
    }
    // Not the folder for temporary files, which is in memory on many systems.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let tables: [(&str, Table); 3] = [("open", open), ("check", check), ("cold", cold)];
    for (name, table) in tables {
        if only.as_deref().is_none_or(|only| only == name) {
            eprintln!("measuring {name}");
            table(folder.path())?;
        }
    }
    Ok(())
}

/// Opening archives whose index rows and labels are holes in the file, and reading a sample of each.
fn open(folder: &Path) -> Result<()> {
    let path = folder.join("sparse.qvq");
    for samples in SAMPLES {
        let file_bytes = sparse_archive(&path, samples)?;
        let first = || -> kuat::Result<Archive> {
            let archive = Archive::open(&path)?;
            black_box((archive.row(samples as usize / 2)?[0], archive.label(samples as usize / 2)?));
            Ok(archive)
        };
        first()?;
        let before = resident()?;
        let mut microseconds = Vec::new();
        let mut archives = Vec::new();
        for _ in 0..OPENINGS {
            let start = Instant::now();
            archives.push(first()?);
            microseconds.push(start.elapsed().as_secs_f64() * 1e6);
        }
        let row = json!({
            "table": "open",
            "samples": samples,
            "file_bytes": file_bytes,
            "open_us": median(&mut microseconds),
            "resident_bytes": resident()?.saturating_sub(before) / OPENINGS as u64,
        });
        println!("{row}");
    }
    Ok(())
}

/// An archive of 224x224 images in 4x4 patches, 65,536 codewords, with labels; returns its length.
fn sparse_archive(path: &Path, samples: u64) -> Result<u64> {
    const CODEWORDS: u64 = 65_536;
    let tensors = [
        ("labels", "I64", vec![samples], 8 * samples),
        ("indices", "U16", vec![samples, 56, 56], 2 * 56 * 56 * samples),
        ("codebook", "U8", vec![CODEWORDS, 4, 4, 3], 4 * 4 * 3 * CODEWORDS),
    ];
    let mut header = json!({"__metadata__": {
        "format": "qvq", "version": "1", "codec": "vq", "image_width": "224", "image_height": "224", "channels": "3",
        "patch_width": "4", "patch_height": "4", "index_bits": "16", "samples": samples.to_string(),
    }});
    let mut end = 0;
    for (name, dtype, shape, bytes) in tensors {
        header[name] = json!({"dtype": dtype, "shape": shape, "data_offsets": [end, end + bytes]});
        end += bytes;
    }
    let mut header = header.to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let mut file = File::create(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let len = 8 + header.len() as u64 + end;
    file.set_len(len)?;
    Ok(len)
}

/// Bytes of memory of this process, exactly; `statm` may lag behind.
fn resident() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup")?;
    Ok(number_after(&text, "Rss:")? * 1024)
}

/// Bytes that this process has read from disk.
fn read_from_disk() -> Result<u64> {
    number_after(&fs::read_to_string("/proc/self/io")?, "\nread_bytes:")
}

fn number_after(text: &str, name: &str) -> Result<u64> {
    let number = text.split(name).nth(1).and_then(|rest| rest.split_whitespace().next());
    Ok(number.ok_or_else(|| format!("no {name} in {text}"))?.parse()?)
}

/// What it costs to compare checksums and to read rather than map, in memory: decoding of random batches to bytes beside
/// doing so unchecked and mapped; and comparing alone beside adding up the words of the same rows, which reads no less.
fn check(folder: &Path) -> Result<()> {
    let path = folder.join("check.qvq");
    for patch in [4, 2] {
        random_archive(&path, Geometry::new((224, 224), 3, (patch, patch))?, CHECKED)?;
        let open = |access, check| Archive::open_with(&path, &OpenOptions { access, check });
        let plain = open(Access::Map, Check::Never)?;
        let checked = open(Access::Map, Check::Read)?;
        let read = open(Access::Read, Check::Read)?;
        let decoder = CpuDecoder::new(&plain)?;
        let spec = OutputSpec::default();
        for (threads, batch) in [(1, 64), (1, 512), (2, 64), (2, 512)] {
            let order: Vec<usize> = scattered(CHECKED).take(CHECKED / batch * batch).collect();
            let image = spec.batch_len(plain.geometry(), 1);
            let pixels = Mutex::new(BufferPool::default().take(image * batch)?);
            let decode = |archive: &Archive| {
                let mut pixels = pixels.lock().expect("one at a time");
                for batch in order.chunks(batch) {
                    let rows = archive.rows(batch.iter().copied()).expect("intact");
                    decoder.decode_bytes(&rows.slices(), &spec, &mut pixels).expect("decoded");
                }
            };
            let compare = || {
                order.chunks(batch).for_each(|batch| {
                    black_box(checked.rows(batch.iter().copied()).expect("intact"));
                })
            };
            let add_up = || {
                order.chunks(batch).for_each(|batch| {
                    let rows = plain.rows(batch.iter().copied()).expect("there");
                    black_box(rows.par_iter().with_min_len(batch.len() / 8).map(|row| sum(row)).sum::<u64>());
                })
            };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
            let mut works: [Work; 5] = [
                Box::new(|| pool.install(|| decode(&plain))),
                Box::new(|| pool.install(|| decode(&checked))),
                Box::new(|| pool.install(|| decode(&read))),
                Box::new(|| pool.install(compare)),
                Box::new(|| pool.install(add_up)),
            ];
            let seconds = in_turns(&mut works);
            let bytes = plain.mean_row_len() * order.len() as f64;
            let row = json!({
                "table": "check",
                "patch": patch,
                "threads": threads,
                "batch": batch,
                "images_per_s": order.len() as f64 / seconds[0],
                "checked": seconds[0] / seconds[1],
                "checked_and_read": seconds[0] / seconds[2],
                "compared_bytes_per_s": bytes / seconds[3],
                "summed_bytes_per_s": bytes / seconds[4],
                "ratio": seconds[4] / seconds[3],
            });
            println!("{row}");
        }
        fs::remove_file(&path)?;
    }
    Ok(())
}

/// The sum of the words of a row: all that there is to reading it.
fn sum(row: &[u8]) -> u64 {
    let (words, _) = row.as_chunks::<8>();
    words.iter().fold(0, |sum, &word| sum.wrapping_add(u64::from_le_bytes(word)))
}

/// What the system is told before rows are read.
#[derive(Clone, Copy, PartialEq)]
enum Told {
    Nothing,
    /// That they are read in random order, for the whole file.
    Random,
    /// The rows of a batch, before it is decoded.
    Batch,
    /// The rows of a batch, before the batch ahead of it is decoded.
    NextBatch,
}

impl Told {
    const ALL: [Told; 4] = [Told::Nothing, Told::Random, Told::Batch, Told::NextBatch];

    fn name(self) -> &'static str {
        match self {
            Told::Nothing => "none",
            Told::Random => "random",
            Told::Batch => "will-need",
            Told::NextBatch => "will-need, next batch",
        }
    }
}

/// Batches of random samples that are not in the page cache, and then of the same that are.
fn cold(folder: &Path) -> Result<()> {
    let path = folder.join("cold.qvq");
    for patch in [4, 2] {
        let geometry = Geometry::new((224, 224), 3, (patch, patch))?;
        random_archive(&path, geometry, READ * APART / (2 * geometry.patches()))?;
        for (threads, cached) in [(1, false), (2, false), (1, true), (2, true)] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
            let all: &[Told] = if cached { &[Told::Nothing, Told::NextBatch] } else { &Told::ALL };
            let mut runs: Vec<Vec<Run>> = all.iter().map(|_| Vec::new()).collect();
            // In turns, so that all see the same machine.
            for _ in 0..ROUNDS {
                for (&told, runs) in all.iter().zip(&mut runs) {
                    runs.push(pool.install(|| run(&path, told, cached))?);
                }
            }
            for (told, runs) in all.iter().zip(&runs) {
                let column = |of: fn(&Run) -> f64| median(&mut runs.iter().map(of).collect::<Vec<_>>());
                let row = json!({
                    "table": "cold",
                    "patch": patch,
                    "cached": cached,
                    "threads": threads,
                    "batch": BATCH,
                    "advice": told.name(),
                    "images_per_s": column(|run| run.images_per_s),
                    "read_bytes_per_image": column(|run| run.read_per_image),
                    "file_bytes": fs::metadata(&path)?.len(),
                });
                println!("{row}");
            }
        }
        fs::remove_file(&path)?;
    }
    Ok(())
}

struct Run {
    images_per_s: f64,
    /// Bytes from disk.
    read_per_image: f64,
}

/// Decodes samples that lie far apart, batch by batch.
fn run(path: &Path, told: Told, cached: bool) -> Result<Run> {
    if !cached {
        evict(path)?;
    }
    // SAFETY: nobody else knows this file.
    let map = unsafe { Mmap::map(&File::open(path)?)? };
    if told == Told::Random {
        map.advise(Advice::Random)?;
    }
    let archive = Archive::new(map)?;
    let decoder = CpuDecoder::new(&archive)?;
    let spec = OutputSpec::default();
    let mut pixels = BufferPool::default().take(spec.batch_len(archive.geometry(), BATCH))?;
    // Warms the output.
    decoder.decode_bytes(&archive.rows([0; BATCH])?.slices(), &spec, &mut pixels)?;
    let apart = archive.samples() / READ;
    let order: Vec<usize> = scattered(READ).take(READ).map(|place| place * apart + apart / 2).collect();
    let mut pass = || -> Result<()> {
        let batches: Vec<&[usize]> = order.chunks(BATCH).collect();
        let will_need =
            |batch: usize| archive.will_need(batches.get(batch).copied().unwrap_or_default().iter().copied());
        if told == Told::NextBatch {
            will_need(0)?;
        }
        for (i, batch) in batches.iter().enumerate() {
            match told {
                Told::Nothing | Told::Random => {}
                Told::Batch => will_need(i)?,
                Told::NextBatch => will_need(i + 1)?,
            }
            decoder.decode_bytes(&archive.rows(batch.iter().copied())?.slices(), &spec, &mut pixels)?;
        }
        Ok(())
    };
    let passes = if cached { PASSES } else { 1 };
    if cached {
        (0..passes).try_for_each(|_| pass())?;
    }
    let (start, read) = (Instant::now(), read_from_disk()?);
    (0..passes).try_for_each(|_| pass())?;
    let images = f64::from(passes) * READ as f64;
    let read_per_image = (read_from_disk()? - read) as f64 / images;
    Ok(Run { images_per_s: images / start.elapsed().as_secs_f64(), read_per_image })
}

/// An archive on disk. Rows repeat: the disk does not know.
fn random_archive(path: &Path, geometry: Geometry, samples: usize) -> Result<()> {
    const CODEWORDS: u32 = 65_536;
    let mut random = Pcg64Mcg::seed_from_u64(1);
    let mut codebook = vec![0; CODEWORDS as usize * geometry.codeword_len()];
    random.fill_bytes(&mut codebook);
    let rows: Vec<Vec<u32>> =
        (0..61).map(|_| (0..geometry.patches()).map(|_| random.random_range(0..CODEWORDS)).collect()).collect();
    let mut writer = ArchiveWriter::create(path, ArchiveSpec { samples, ..ArchiveSpec::new(geometry, codebook) })?;
    for row in rows.iter().cycle().take(samples) {
        writer.push(row, SampleInfo::default())?;
    }
    Ok(writer.finish_file(None)?)
}

/// Drops a file from the page cache, by the one common command that can.
fn evict(path: &Path) -> Result<()> {
    let file = format!("if={}", path.display());
    let dd = Command::new("dd").args([&file, "iflag=nocache", "count=0", "status=none"]).status()?;
    if dd.success() { Ok(()) } else { Err("dd cannot drop files from the page cache".into()) }
}
