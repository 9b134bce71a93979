//! From a source to an archive.

use std::path::Path;
use std::time::Instant;

use rayon::prelude::*;

use super::nearest::NearestCodeword;
use super::quality::{psnr_db, squared_distance};
use super::source::Source;
use super::{Codebook, EncodeOptions, OnError, cover, kmeans, patches, prepare, sample};
use crate::error::{Error, Result};
use crate::format::MAX_CODEWORDS;
use crate::format::atomic::AtomicFile;
use crate::format::index::IndexWidth;
use crate::format::writer::{ArchiveSpec, ArchiveWriter};
use crate::geometry::Geometry;
use crate::progress::{Counter, Progress};

/// What an encoding came to.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct EncodeSummary {
    /// Samples in the archive.
    pub samples: usize,
    /// Images that could not be read, in the source's order.
    pub skipped: Vec<Skipped>,
    /// Names of the classes; `None` if the source has none.
    pub classes: Option<Vec<String>>,
    /// Codewords in the codebook.
    pub codewords: usize,
    /// The most by which a value of a decoded image differs from the resized source, if it was asked for.
    pub max_error: Option<u8>,
    /// How many distinct patches uniform quantisation to that bound leaves, in bins of twice the bound and 1: what
    /// the codebook is measured against. `None` without a bound, and if there were too many to keep at a time.
    pub uniform_cells: Option<usize>,
    /// Bits of a stored index.
    pub index_bits: usize,
    /// Bytes of the index row of an image.
    pub bytes_per_image: usize,
    /// Bytes of the archive.
    pub file_len: u64,
    /// The mean over the samples of the PSNR against the resized source in dB, a sample reproduced exactly counted
    /// as [`MAX_PSNR_DB`](super::MAX_PSNR_DB).
    pub mean_psnr_db: f64,
    /// The least PSNR of a sample in dB.
    pub min_psnr_db: f64,
    /// The PSNR of all samples taken as one image, in dB.
    pub pooled_psnr_db: f64,
    /// Seconds for reading images to train on.
    pub sampling_seconds: f64,
    /// Seconds for training the codebook.
    pub training_seconds: f64,
    /// Seconds for encoding the images.
    pub encoding_seconds: f64,
    /// Images encoded per second of all three together.
    pub images_per_second: f64,
}

/// An image that was left out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// Its name in the source.
    pub name: String,
    /// Why it could not be read, with all causes.
    pub reason: String,
}

/// An image's indices and the sum of its squared errors.
struct Encoded {
    indices: Vec<u32>,
    squared_error: u64,
}

/// The most images, and the most bytes of indices, that are in memory at once.
const CHUNK_IMAGES: usize = 256;
const CHUNK_BYTES: usize = 256 << 20;

/// Encodes the images of a source into an archive at `output`.
///
/// Images are read twice: some of them for the patches that the codebook is trained on, if none is given, then all.
/// The archive is the same byte for byte whatever the number of threads, which is that of rayon's current pool. It
/// appears at its path once it is whole.
///
/// # Errors
/// [`Error::Geometry`] or [`Error::Argument`] for options out of range; with [`OnError::Fail`] the error of an image
/// that cannot be read; [`Error::AllSkipped`] if none can; [`Error::Interrupted`] if `progress` says so;
/// [`Error::Io`] or [`Error::Write`] if the archive cannot be written.
pub fn encode(
    source: &dyn Source,
    output: &Path,
    options: &EncodeOptions,
    progress: &dyn Progress,
) -> Result<EncodeSummary> {
    let geometry = options.geometry()?;
    if source.is_empty() {
        return Err(Error::Argument { argument: "source", found: "no images".into(), expected: "at least one".into() });
    }
    // Now rather than after the training: the folder may not exist.
    let file = AtomicFile::create(output)?;
    let start = Instant::now();
    let (mut max_error, mut uniform_cells) = (None, None);
    let (codebook, sampled) = match &options.codebook {
        Codebook::MaxError(bound) => {
            let cover = cover::codebook(source, &geometry, options, *bound, MAX_CODEWORDS, progress)?;
            (max_error, uniform_cells) = (Some(*bound), cover.uniform_cells);
            (cover.codebook, start)
        }
        Codebook::Given(codebook) => (codebook.clone(), start),
        Codebook::Train(codewords) => {
            let training_patches = sample::sample(source, &geometry, options, *codewords, progress)?;
            let sampled = Instant::now();
            (kmeans::train(&training_patches, geometry.codeword_len(), *codewords, progress)?, sampled)
        }
    };
    let trained = Instant::now();

    let codewords = codebook.len() / geometry.codeword_len();
    let index_width = IndexWidth::narrowest(codewords)?;
    let mut spec = ArchiveSpec::new(geometry, codebook.clone());
    spec.labels = source.has_labels();
    spec.captions = source.has_captions();
    spec.classes = source.classes();
    spec.samples = source.len();
    spec.max_error = max_error;
    spec.metadata.insert("fit".into(), options.fit.to_string());
    if let Codebook::Train(_) = options.codebook {
        spec.metadata.insert("seed".into(), options.seed.to_string());
    }
    let mut writer = ArchiveWriter::new(file, spec)?;

    let search = NearestCodeword::new(&codebook, geometry.codeword_len())?;
    let counter = Counter::new(progress, "encoding", source.len());
    let mut skipped = Vec::new();
    let mut first_problem = None;
    let (mut sum_psnr_db, mut min_psnr_db, mut squared_error) = (0.0, f64::INFINITY, 0);
    let chunk = (CHUNK_BYTES / (4 * geometry.patches())).clamp(1, CHUNK_IMAGES);
    for first in (0..source.len()).step_by(chunk) {
        let images = first..(first + chunk).min(source.len());
        let encoded: Vec<Result<Encoded>> = images
            .clone()
            .into_par_iter()
            .map(|index| {
                let image = prepare(source, index, options);
                let encoded = image.and_then(|image| {
                    encode_image(&geometry, &search, max_error, &image.pixels)
                        .ok_or_else(|| Error::ImageChanged { name: source.name(index) })
                });
                counter.add(1)?;
                encoded
            })
            .collect();
        for (index, encoded) in images.zip(encoded) {
            match encoded {
                Ok(Encoded { indices, squared_error: error }) => {
                    writer.push(&indices, source.label(index), source.caption(index).as_deref())?;
                    let psnr = psnr_db(error, geometry.image_len() as u64);
                    sum_psnr_db += psnr;
                    min_psnr_db = psnr.min(min_psnr_db);
                    squared_error += error;
                }
                Err(error) if options.on_error == OnError::Skip && !matches!(error, Error::Interrupted) => {
                    let reason = error.with_causes();
                    first_problem.get_or_insert(reason.clone());
                    skipped.push(Skipped { name: source.name(index), reason });
                }
                Err(error) => return Err(error),
            }
        }
    }
    let samples = writer.samples();
    if samples == 0 {
        return Err(Error::AllSkipped { files: source.len(), first: first_problem.unwrap_or_default() });
    }
    let mean_psnr_db = sum_psnr_db / samples as f64;
    writer.finish_file(Some(mean_psnr_db))?;
    let file_len = std::fs::metadata(output).map_err(Error::io("read", output))?.len();
    let seconds = |from: Instant, to: Instant| (to - from).as_secs_f64();
    let end = Instant::now();
    Ok(EncodeSummary {
        samples,
        skipped,
        classes: source.classes(),
        codewords,
        max_error,
        uniform_cells,
        index_bits: index_width.bits(),
        bytes_per_image: index_width.row_len(geometry.patches()),
        file_len,
        mean_psnr_db,
        min_psnr_db,
        pooled_psnr_db: psnr_db(squared_error, (samples * geometry.image_len()) as u64),
        sampling_seconds: seconds(start, sampled),
        training_seconds: seconds(sampled, trained),
        encoding_seconds: seconds(trained, end),
        images_per_second: samples as f64 / seconds(start, end),
    })
}

/// Finds the codewords of an image's patches, rows of the grid in parallel; with `max_error` those from which no
/// value differs by more, `None` if a patch has no such codeword.
fn encode_image(geometry: &Geometry, search: &NearestCodeword, max_error: Option<u8>, image: &[u8]) -> Option<Encoded> {
    let codeword_len = geometry.codeword_len();
    let mut indices = vec![0; geometry.patches()];
    let row_error = |(y, indices): (usize, &mut [u32])| {
        let mut patch = vec![0; codeword_len];
        let mut hint = None;
        let mut squared_error = 0;
        for (x, index) in indices.iter_mut().enumerate() {
            patches::cut(geometry, image, x, y, &mut patch);
            let (nearest, distance) = match max_error {
                None => search.nearest(&patch, hint),
                Some(max_error) => search.nearest_within(&patch, max_error, hint)?,
            };
            *index = nearest;
            hint = Some(nearest);
            let (rows, values) = patches::visible(geometry, x, y);
            squared_error += match rows * values == codeword_len {
                true => u64::from(distance),
                false => visible_error(geometry, &patch, search.codeword(nearest), rows, values),
            };
        }
        Some(squared_error)
    };
    let rows = indices.par_chunks_mut(geometry.grid_width()).enumerate();
    let squared_error = rows.with_min_len((1024 / geometry.grid_width()).max(1)).map(row_error).sum::<Option<u64>>()?;
    Some(Encoded { indices, squared_error })
}

/// The squared error of what is visible of a patch.
fn visible_error(geometry: &Geometry, patch: &[u8], codeword: &[u8], rows: usize, values: usize) -> u64 {
    let row_len = geometry.patch_row_len();
    let rows = patch.chunks_exact(row_len).zip(codeword.chunks_exact(row_len)).take(rows);
    rows.map(|(a, b)| u64::from(squared_distance(&a[..values], &b[..values]))).sum()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use image::RgbImage;

    use super::*;
    use crate::encode::{Fit, Folder, Image, psnr};
    use crate::{Archive, CpuDecoder, Decoder, OutputSpec};

    /// A folder of two classes with five pictures of 40 x 30 pixels.
    fn photographs() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("tempdir");
        for (i, name) in ["cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png", "dog/c.png"].iter().enumerate() {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            let wave = |x: u32, y: u32, k: u32| ((x * x * k + y * (31 + i as u32) + x * y) / 7 % 256) as u8;
            RgbImage::from_fn(40, 30, |x, y| [wave(x, y, 1), wave(y, x, 2), wave(x, y, 3)].into())
                .save(path)
                .expect("save");
        }
        folder
    }

    fn options() -> EncodeOptions {
        // 33 x 26 pixels in patches of 4 x 3: both sides have a remainder.
        EncodeOptions { image_size: (33, 26), patch: (4, 3), codebook: Codebook::Train(64), ..EncodeOptions::default() }
    }

    fn decoded(path: &Path) -> Vec<Vec<u8>> {
        let archive = Archive::open(path).expect("open");
        assert!(archive.verify(&()).expect("verify").is_ok());
        let decoder = CpuDecoder::new(&archive);
        let rows = archive.rows(0..archive.samples()).expect("rows");
        let spec = OutputSpec::default();
        let mut pixels = vec![0; spec.batch_len(archive.geometry(), rows.len())];
        decoder.decode_bytes(&rows, &spec, &mut pixels).expect("decode");
        pixels.chunks(archive.geometry().image_len()).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn figures_are_those_of_the_decoded_archive() {
        let folder = photographs();
        let output = folder.path().join("out.qvq");
        let source = Folder::open(folder.path()).expect("open");
        for channels in [1, 3, 4] {
            let options = EncodeOptions { channels, ..options() };
            let summary = encode(&source, &output, &options, &()).expect("encode");
            let psnr: Vec<f64> = decoded(&output)
                .iter()
                .enumerate()
                .map(|(i, pixels)| psnr(pixels, &prepare(&source, i, &options).expect("prepare").pixels))
                .collect();
            assert_eq!(summary.mean_psnr_db, psnr.iter().sum::<f64>() / 5.0);
            assert_eq!(summary.min_psnr_db, psnr.iter().copied().fold(f64::MAX, f64::min));
            assert!(summary.mean_psnr_db > 15.0 && summary.mean_psnr_db < 60.0, "{}", summary.mean_psnr_db);
            assert_eq!((summary.samples, summary.codewords, summary.index_bits), (5, 64, 6));
            assert_eq!(summary.file_len, fs::metadata(&output).expect("file").len());
            let archive = Archive::open(&output).expect("open");
            assert_eq!(summary.bytes_per_image, archive.row_len());
            assert_eq!(archive.classes(), Some(&["cat".to_string(), "dog".to_string()][..]));
            assert_eq!(archive.labels().expect("labels").collect::<Vec<_>>(), [0, 0, 1, 1, 1]);
            assert_eq!((archive.metadata()["fit"].as_str(), archive.metadata()["seed"].as_str()), ("crop", "0"));
        }
    }

    #[test]
    fn enough_codewords_reproduce_every_pixel() {
        let folder = photographs();
        let output = folder.path().join("out.qvq");
        let source = Folder::open(folder.path()).expect("open");
        let options = EncodeOptions { codebook: Codebook::Train(10_000), fit: Fit::Pad, ..options() };
        let summary = encode(&source, &output, &options, &()).expect("encode");
        assert_eq!((summary.mean_psnr_db, summary.pooled_psnr_db), (100.0, 100.0));
        for (i, pixels) in decoded(&output).iter().enumerate() {
            assert!(*pixels == prepare(&source, i, &options).expect("prepare").pixels, "sample {i}");
        }
    }

    #[test]
    fn a_codebook_of_another_archive_is_used_as_it_is() {
        let folder = photographs();
        let [first, second] = ["first.qvq", "second.qvq"].map(|name| folder.path().join(name));
        let source = Folder::open(folder.path()).expect("open");
        let trained = encode(&source, &first, &options(), &()).expect("encode");
        let codebook = Archive::open(&first).expect("open").codebook().to_vec();
        let given = EncodeOptions { codebook: Codebook::Given(codebook.clone()), ..options() };
        let summary = encode(&source, &second, &given, &()).expect("encode");
        assert_eq!((summary.codewords, summary.mean_psnr_db), (64, trained.mean_psnr_db));
        assert_eq!((summary.sampling_seconds, decoded(&first)), (0.0, decoded(&second)));
        let archive = Archive::open(&second).expect("open");
        assert!(archive.codebook() == codebook && !archive.metadata().contains_key("seed"));
        for wrong in [Vec::new(), codebook[1..].to_vec()] {
            let given = EncodeOptions { codebook: Codebook::Given(wrong), ..options() };
            assert!(matches!(encode(&source, &second, &given, &()), Err(Error::Argument { .. })));
        }
    }

    #[test]
    fn threads_do_not_change_the_archive() {
        let folder = photographs();
        let output = folder.path().join("out.qvq");
        let source = Folder::open(folder.path()).expect("open");
        let archives = [1, 2, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
            pool.install(|| encode(&source, &output, &options(), &())).expect("encode");
            fs::read(&output).expect("read")
        });
        assert!(archives[0] == archives[1] && archives[0] == archives[2]);
    }

    #[test]
    fn unreadable_images_fail_or_are_listed() {
        let folder = photographs();
        let output = folder.path().join("out.qvq");
        for name in ["cat/aa.jpg", "dog/bb.png"] {
            fs::write(folder.path().join(name), "no image").expect("write");
        }
        let source = Folder::open(folder.path()).expect("open");
        match encode(&source, &output, &options(), &()) {
            Err(Error::Image { path, .. }) => assert!(path.ends_with("cat/aa.jpg"), "{path:?}"),
            other => unreachable!("{other:?}"),
        }
        assert!(!output.exists());
        let options = EncodeOptions { on_error: OnError::Skip, ..options() };
        let summary = encode(&source, &output, &options, &()).expect("encode");
        let skipped: Vec<PathBuf> = summary.skipped.iter().map(|skipped| (&skipped.name).into()).collect();
        assert_eq!(skipped, [Path::new("cat/aa.jpg"), Path::new("dog/bb.png")]);
        let archive = Archive::open(&output).expect("open");
        assert_eq!(archive.labels().expect("labels").collect::<Vec<_>>(), [0, 0, 1, 1, 1]);
        assert!(archive.verify(&()).expect("verify").is_ok());

        for name in ["cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png", "dog/c.png"] {
            fs::write(folder.path().join(name), "no image").expect("write");
        }
        assert!(matches!(encode(&source, &output, &options, &()), Err(Error::AllSkipped { files: 7, .. })));
    }

    #[test]
    fn cancelling_ends_any_stage_and_leaves_nothing() {
        struct StopIn(&'static str, std::sync::atomic::AtomicBool);
        impl Progress for StopIn {
            fn begin(&self, stage: &str, _: usize) {
                self.1.store(stage == self.0, std::sync::atomic::Ordering::Relaxed);
            }
            fn is_cancelled(&self) -> bool {
                self.1.load(std::sync::atomic::Ordering::Relaxed)
            }
        }
        let folder = photographs();
        let output = folder.path().join("out.qvq");
        let source = Folder::open(folder.path()).expect("open");
        for on_error in [OnError::Fail, OnError::Skip] {
            for stage in ["sampling", "training", "encoding"] {
                let options = EncodeOptions { on_error, ..options() };
                let stopped = encode(&source, &output, &options, &StopIn(stage, false.into()));
                assert!(matches!(stopped, Err(Error::Interrupted)), "{stage}");
                assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 2, "{stage}");
            }
        }
    }

    #[test]
    fn wrong_options_and_sources_are_refused_before_any_work() {
        struct Wrong(Image);
        impl Source for Wrong {
            fn len(&self) -> usize {
                usize::from(self.0.width > 0)
            }
            fn name(&self, _: usize) -> String {
                "wrong".into()
            }
            fn read(&self, _: usize, _: u32) -> Result<Image> {
                Ok(self.0.clone())
            }
        }
        let folder = tempfile::tempdir().expect("tempdir");
        let output = folder.path().join("out.qvq");
        let image = |width, channels, values| Image { width, height: 2, channels, pixels: vec![0; values] };
        for image in [image(0, 3, 0), image(2, 3, 11), image(2, 1, 4)] {
            let result = encode(&Wrong(image), &output, &options(), &());
            assert!(matches!(result, Err(Error::Argument { .. })), "{result:?}");
        }
        let right = Wrong(image(2, 3, 12));
        assert!(encode(&right, &output, &EncodeOptions { codebook: Codebook::Train(0), ..options() }, &()).is_err());
        assert!(encode(&right, &output, &EncodeOptions { patch: (17, 1), ..options() }, &()).is_err());
        assert!(encode(&right, &folder.path().join("no/out.qvq"), &options(), &()).is_err());
        assert!(encode(&right, &output, &options(), &()).is_ok());
    }
}
