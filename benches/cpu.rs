//! `cargo bench --bench cpu -- [--only TABLE] ARCHIVE...`: decoding on the CPU beside what limits it, a line of JSON
//! per measurement. Archives of uniformly random indices, the worst case for caches, are measured beside those given.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used)]

mod measure;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::iter::repeat_n;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use kuat::{
    Archive, ArchiveSpec, ArchiveWriter, Book, Books, BufferPool, Codec, CodingSpec, Component, Cover, CpuDecoder,
    CpuPath, Decoder, Dtype, Geometry, Layout, Mode, NaiveDecoder, Normalization, OutputSpec, Rows, SampleInfo,
};
use measure::{Work, copy_images, fill_images, in_turns, median, scattered};
use memmap2::Mmap;
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Table = fn(&Setting) -> Result<()>;

const TABLES: [(&str, Table); 6] = [
    ("cpu_decode", decoding),
    ("cpu_paths", paths),
    ("cpu_threads", threads),
    ("cpu_codebook", codebooks),
    ("cpu_call", calls),
    ("cpu_layers", layers),
];

/// Images of the raw pixels that are copied from, and samples of random archives: in no cache.
const SAMPLES: usize = 2048;
/// Images of a timed run, a batch after the other.
const IMAGES: usize = 1024;

/// What is measured with.
struct Setting {
    /// Of the codec "vq", and of layers.
    archives: Vec<Archive>,
    layered: Vec<Archive>,
    /// Pixels in a mapped file, as a data set that is not compressed at all.
    raw: Mmap,
    folder: tempfile::TempDir,
    most_threads: usize,
}

fn main() -> Result<()> {
    let mut only = None;
    let mut archives: Vec<Archive> = Vec::new();
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--only" => only = arguments.next(),
            path => archives.push(Archive::open(path)?),
        }
    }
    let folder = tempfile::tempdir()?;
    let raw = raw_pixels(folder.path(), photograph(4)?.image_len())?;
    let (archives, layered) = archives.into_iter().partition(|archive| archive.codec() == Codec::Vq);
    let setting = Setting { archives, layered, raw, folder, most_threads: std::thread::available_parallelism()?.get() };
    for (name, table) in TABLES {
        if only.as_deref().is_none_or(|only| only == name) {
            eprintln!("measuring {name}");
            table(&setting)?;
        }
    }
    Ok(())
}

/// Every kind of batch, on one thread and on two.
fn decoding(setting: &Setting) -> Result<()> {
    let measure = |archive: &Archive, indices: &str| -> Result<()> {
        let decoder = CpuDecoder::new(archive)?;
        for spec in [OutputSpec::default(), normalized(Dtype::F16), normalized(Dtype::F32)] {
            for (batch, threads) in [(64, 1), (64, 2), (512, 1), (512, 2)] {
                let mut row = setting.beside_limit(archive, &decoder, &spec, batch, threads)?;
                (row["table"], row["indices"]) = ("cpu_decode".into(), indices.into());
                println!("{row}");
            }
        }
        Ok(())
    };
    for archive in &setting.archives {
        measure(archive, "real")?;
    }
    for patch in [4, 2] {
        for codewords in [4096, 65_536] {
            let archive = random_archive(setting.folder.path(), photograph(patch)?, codewords, SAMPLES)?;
            measure(&archive, "random")?;
        }
    }
    Ok(())
}

/// Each path that the processor has, on one thread.
fn paths(setting: &Setting) -> Result<()> {
    for archive in &setting.archives {
        for path in CpuPath::available() {
            let decoder = CpuDecoder::new(archive)?.with_path(path);
            for spec in [OutputSpec::default(), normalized(Dtype::F16), normalized(Dtype::F32)] {
                let mut row = setting.beside_limit(archive, &decoder, &spec, 256, 1)?;
                row["table"] = "cpu_paths".into();
                println!("{row}");
            }
        }
    }
    Ok(())
}

/// From one thread to all, batches of 256.
fn threads(setting: &Setting) -> Result<()> {
    for archive in &setting.archives {
        let decoder = CpuDecoder::new(archive)?;
        for spec in [OutputSpec::default(), normalized(Dtype::F32)] {
            let mut threads = 1;
            while threads <= setting.most_threads {
                let mut row = setting.beside_limit(archive, &decoder, &spec, 256, threads)?;
                row["table"] = "cpu_threads".into();
                println!("{row}");
                threads =
                    if threads < setting.most_threads { setting.most_threads.min(threads * 2) } else { threads + 1 };
            }
        }
    }
    Ok(())
}

/// Codebooks from those in the first-level cache to those in no cache, on all threads.
fn codebooks(setting: &Setting) -> Result<()> {
    const BATCH: usize = 64;
    let spec = OutputSpec::default();
    for (patch, most) in [(2, 25), (4, 23)] {
        let mut rows = Vec::new();
        for bits in (6..=most).filter(|&bits| bits % 2 == 0 || bits == most) {
            let archive = random_archive(setting.folder.path(), photograph(patch)?, 1 << bits, 4 * BATCH)?;
            let decoder = CpuDecoder::new(&archive)?;
            let batches = batches(&archive, BATCH, 8 * BATCH)?;
            let batches = slices(&batches);
            let mut output = BufferPool::default().take(spec.batch_len(archive.geometry(), BATCH))?;
            check(&archive, &decoder, &spec, &batches[0][..2])?;
            let decode = || {
                batches.iter().for_each(|rows| decoder.decode_bytes(rows, &spec, &mut output).expect("decoded before"));
            };
            let seconds = in_turns(&mut [Box::new(decode)])[0];
            rows.push((1 << bits, (8 * BATCH) as f64 / seconds));
        }
        let base = rows.iter().find(|(codewords, _)| *codewords == 65_536).map_or(f64::NAN, |(_, rate)| *rate);
        for (codewords, rate) in rows {
            let row = json!({
                "table": "cpu_codebook",
                "patch": patch,
                "dtype": spec.dtype.name(),
                "codewords": codewords,
                "images_per_s": rate,
                "relative": rate / base,
            });
            println!("{row}");
        }
    }
    Ok(())
}

/// What a call costs beyond what its images do: batches of one beside the images of a large batch, on one thread.
fn calls(setting: &Setting) -> Result<()> {
    const CALLS: usize = 2000;
    for (name, side, large) in [("224x224", 224, 64), ("32x32", 32, 512)] {
        let geometry = Geometry::new((side, side), 3, (4, 4))?;
        let archive = random_archive(setting.folder.path(), geometry, 4096, SAMPLES)?;
        let decoder = CpuDecoder::new(&archive)?;
        let pool = pool(1)?;
        for spec in [OutputSpec::default(), normalized(Dtype::F32)] {
            let one = batches(&archive, 1, CALLS)?;
            let many = batches(&archive, large, CALLS.next_multiple_of(large))?;
            let (one, many) = (slices(&one), slices(&many));
            let mut output = BufferPool::default().take(spec.batch_len(&geometry, large))?;
            check(&archive, &decoder, &spec, &many[0])?;
            let image = spec.batch_len(&geometry, 1);
            let (mut call, mut per_image) = (Vec::new(), Vec::new());
            // Single images go to the same place each time, as they do where one is asked for at a time; that stays in
            // the caches, so they may well take less than images of a batch.
            for _ in 0..=measure::ROUNDS {
                let start = Instant::now();
                one.iter().try_for_each(|rows| decoder.decode_bytes(rows, &spec, &mut output[..image]))?;
                call.push(start.elapsed().as_secs_f64() / one.len() as f64);
                let output = &mut output[..];
                let start = Instant::now();
                pool.install(|| many.iter().try_for_each(|rows| decoder.decode_bytes(rows, &spec, output)))?;
                per_image.push(start.elapsed().as_secs_f64() / (many.len() * large) as f64);
            }
            let (call, per_image) = (median(&mut call[1..]) * 1e6, median(&mut per_image[1..]) * 1e6);
            let row = json!({
                "table": "cpu_call",
                "image": name,
                "dtype": spec.dtype.name(),
                "batch": 1,
                "call_us": call,
                "per_image_us": per_image,
                "fixed_us": call - per_image,
            });
            println!("{row}");
        }
    }
    Ok(())
}

/// Each path that the processor has, on one thread, on archives of layers: those given, and one of random records.
fn layers(setting: &Setting) -> Result<()> {
    let measure = |archive: &Archive, indices: &str| -> Result<()> {
        for path in CpuPath::available() {
            let decoder = CpuDecoder::new(archive)?.with_path(path);
            for spec in [OutputSpec::default(), normalized(Dtype::F16), normalized(Dtype::F32)] {
                let mut row = setting.beside_limit(archive, &decoder, &spec, 64, 1)?;
                (row["table"], row["indices"]) = ("cpu_layers".into(), indices.into());
                println!("{row}");
            }
        }
        Ok(())
    };
    for archive in &setting.layered {
        measure(archive, "real")?;
    }
    measure(&random_layers(setting.folder.path())?, "random")
}

impl Setting {
    /// A row on decoding beside copying raw pixels (bytes) or storing as many (floats).
    fn beside_limit(
        &self,
        archive: &Archive,
        decoder: &CpuDecoder,
        spec: &OutputSpec,
        batch: usize,
        threads: usize,
    ) -> Result<Value> {
        let geometry = archive.geometry();
        let batches = batches(archive, batch, IMAGES)?;
        let batches = slices(&batches);
        check(archive, decoder, spec, &batches[0])?;
        let pixels: Vec<&[u8]> = {
            let images: Vec<&[u8]> = self.raw.chunks_exact(geometry.image_len()).collect();
            scattered(images.len()).take(IMAGES).map(|i| images[i]).collect()
        };
        let image = spec.batch_len(geometry, 1);
        let mut output = BufferPool::default().take(image * batch)?;
        let output = Mutex::new(&mut output[..]);
        let pool = pool(threads)?;
        let copied = spec.dtype == Dtype::U8;
        let limit = |streaming: bool| {
            let (output, pixels, pool) = (&output, &pixels, &pool);
            move || {
                let mut output = output.lock().expect("one at a time");
                let output: &mut [u8] = &mut output;
                pool.install(|| {
                    pixels.chunks(batch).for_each(|sources| match copied {
                        true => copy_images(sources, output, image, streaming),
                        false => fill_images(output, image, streaming),
                    });
                });
            }
        };
        let decode = || {
            let mut output = output.lock().expect("one at a time");
            let output: &mut [u8] = &mut output;
            pool.install(|| {
                batches.iter().for_each(|rows| decoder.decode_bytes(rows, spec, output).expect("decoded before"));
            });
        };
        let mut works: [Work; 3] = [Box::new(decode), Box::new(limit(false)), Box::new(limit(true))];
        let seconds = in_turns(&mut works);
        // The faster of the usual stores and those past the caches.
        let limit = seconds[1].min(seconds[2]);
        Ok(json!({
            "table": Value::Null,
            "patch": geometry.patch_width(),
            "codewords": archive.vq().ok().map(|vq| vq.codewords()),
            "bytes_per_image": archive.mean_row_len(),
            "dtype": spec.dtype.name(),
            "layout": spec.layout.name(),
            "normalized": spec.normalization.is_some(),
            "batch": batch,
            "threads": threads,
            "path": decoder.path().name(),
            "images_per_s": IMAGES as f64 / seconds[0],
            "limit": if copied { "memcpy" } else { "store" },
            "limit_images_per_s": IMAGES as f64 / limit,
            "ratio": limit / seconds[0],
        }))
    }
}

fn photograph(patch: u32) -> kuat::Result<Geometry> {
    Geometry::new((224, 224), 3, (patch, patch))
}

fn normalized(dtype: Dtype) -> OutputSpec {
    OutputSpec { dtype, layout: Layout::Nchw, normalization: Some(Normalization::imagenet()) }
}

fn pool(threads: usize) -> Result<ThreadPool> {
    Ok(ThreadPoolBuilder::new().num_threads(threads).build()?)
}

fn slices<'a>(batches: &'a [Rows]) -> Vec<Vec<&'a [u8]>> {
    batches.iter().map(|rows| rows.slices()).collect()
}

/// Batches of samples all over an archive.
fn batches(archive: &Archive, batch: usize, samples: usize) -> kuat::Result<Vec<Rows<'_>>> {
    let mut order = scattered(archive.samples());
    (0..samples / batch).map(|_| archive.rows(order.by_ref().take(batch))).collect()
}

/// Holds a decoder against the oracle.
fn check(archive: &Archive, decoder: &CpuDecoder, spec: &OutputSpec, rows: &[&[u8]]) -> Result<()> {
    let [mut found, mut expected] = [0xaa, 0x55].map(|byte| vec![byte; spec.batch_len(archive.geometry(), rows.len())]);
    NaiveDecoder::new(archive)?.decode_bytes(rows, spec, &mut expected)?;
    decoder.decode_bytes(rows, spec, &mut found)?;
    if found == expected { Ok(()) } else { Err(format!("{spec} on {} differs from the oracle", decoder.path()).into()) }
}

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

/// An archive whose codewords and indices are random, each equally likely.
fn random_archive(folder: &Path, geometry: Geometry, codewords: usize, samples: usize) -> Result<Archive> {
    let path = folder.join("random.qvq");
    let mut random = Pcg64Mcg::seed_from_u64(1);
    let mut codebook = vec![0; codewords * geometry.codeword_len()];
    random.fill_bytes(&mut codebook);
    let mut writer = ArchiveWriter::create(&path, ArchiveSpec { samples, ..ArchiveSpec::new(geometry, codebook) })?;
    for _ in 0..samples {
        let row: Vec<u32> = (0..geometry.patches()).map(|_| random.random_range(0..codewords as u32)).collect();
        writer.push(&row, SampleInfo::default())?;
    }
    writer.finish_file(None)?;
    Ok(Archive::open(path)?)
}

/// An archive of layers of random codewords, indices and modes, about 10 kB a sample: the fewer indices a mode has, the
/// more blocks have it, as in photographs.
fn random_layers(folder: &Path) -> Result<Archive> {
    const CODEWORDS: usize = 4096;
    let path = folder.join("layers.qvq");
    let mut random = Pcg64Mcg::seed_from_u64(1);
    // Two codebooks for blocks, and one for each codeword that a quarter of any mode is the sum of.
    let mut component = |lens: [usize; 2], stages: &[(usize, usize)]| {
        let mut book = |cover| {
            let values = CODEWORDS * lens[cover as usize];
            Book { cover, codewords: (0..values).map(|_| random.random()).collect() }
        };
        let quarters = stages.iter().map(|&(_, quarter)| quarter).max().unwrap_or(0);
        let covers = [Cover::Block; 2].into_iter().chain(repeat_n(Cover::Quarter, quarters));
        let mode = |&(block, quarter): &(usize, usize)| Mode {
            block: (0..block).collect(),
            quarter: (2..2 + quarter).collect(),
        };
        Component { books: covers.map(&mut book).collect(), modes: stages.iter().map(mode).collect() }
    };
    let luma = component([64, 16], &[(1, 0), (2, 0), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6)]);
    let chroma = component([128, 128], &[(1, 0), (2, 0), (1, 1), (2, 1), (2, 2)]);
    let books = Books { index_bits: CODEWORDS.ilog2(), luma, chroma: Some(chroma) };

    let geometry = photograph(8)?;
    let coding = CodingSpec::Layers(books.clone());
    let spec = ArchiveSpec { samples: SAMPLES, ..ArchiveSpec::with_coding(geometry, coding) };
    let mut writer = ArchiveWriter::create(&path, spec)?;
    for _ in 0..SAMPLES {
        let (mut modes, mut indices) = (Vec::new(), Vec::new());
        for (component, blocks) in books.components().into_iter().zip([28 * 28, 14 * 14]) {
            let most = component.modes.len();
            let mut mode = || random.random_range(0..most).min(random.random_range(0..most));
            let of: Vec<usize> = (0..blocks).map(|_| mode()).collect();
            let count: usize = of.iter().map(|&mode| component.modes[mode].indices()).sum();
            indices.extend((0..count).map(|_| random.random_range(0..CODEWORDS as u16)));
            modes.push(of.into_iter().map(|mode| mode as u8).collect::<Vec<_>>());
        }
        let record = books.record(&geometry, &[&modes[0], &modes[1]], &indices)?;
        writer.push_record(&record, SampleInfo::default())?;
    }
    writer.finish_file(None)?;
    Ok(Archive::open(path)?)
}
