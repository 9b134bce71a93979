//! From a source to an archive.

use std::path::Path;
use std::time::Instant;

use super::checkpoint::{Checkpoint, Made};
use super::layers::{self, Layers};
use super::pass::Pass;
use super::quality::psnr_db;
use super::skipped::Skipped;
use super::source::Source;
use super::vq::Vq;
use super::{Codebook, CodecOptions, EncodeOptions, check_output, cover, kmeans, sample};
use crate::error::{Error, Result};
use crate::format::MAX_CODEWORDS;
use crate::format::codec::Codec;
use crate::geometry::Geometry;
use crate::progress::Progress;

/// What an encoding came to.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct EncodeSummary {
    /// Samples in the archive.
    pub samples: usize,
    /// Images that could not be read, in the source's order.
    pub skipped: Vec<Skipped>,
    /// Names of the classes; `None` if the source has none.
    pub classes: Option<Vec<String>>,
    /// What images were encoded as.
    pub codec: Codec,
    /// Width and height of a patch in pixels.
    pub patch: (u32, u32),
    /// Codewords in the codebook, or in all codebooks together.
    pub codewords: usize,
    /// Bytes of all codewords.
    pub codebook_bytes: usize,
    /// What searched for nearest codewords: `cpu`, or an adapter's name.
    pub device: String,
    /// The most by which a value of a decoded image differs from the resized source, if it was asked for.
    pub max_error: Option<u8>,
    /// How many distinct patches uniform quantisation to that bound leaves, in bins of twice the bound and 1: what
    /// the codebook is measured against. `None` without a bound, and if there were too many to keep at a time.
    pub uniform_cells: Option<usize>,
    /// Bits of a stored index.
    pub index_bits: usize,
    /// Bytes of the row of an image; in the mean, rounded, where they differ.
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
    /// Images that an interrupted encoding had done before this one went on with it.
    pub resumed: usize,
    /// Seconds for reading images to train on.
    pub sampling_seconds: f64,
    /// Seconds for training the codebook.
    pub training_seconds: f64,
    /// Seconds for encoding the images.
    pub encoding_seconds: f64,
    /// Images encoded per second of all three together.
    pub images_per_second: f64,
}

/// Encodes the images of a source into an archive at `output`.
///
/// Images are read twice: some of them for the patches that the codebook is trained on, if none is given, then all.
/// The archive is the same byte for byte whatever the number of threads, which is that of rayon's current pool. It
/// appears at its path once it is whole. Until then it is in the folder [`partial_folder`](super::partial_folder), which
/// stays when the work is interrupted after [`EncodeOptions::save_every`] or more, once there is a codebook: from there
/// [`EncodeOptions::resume`] goes on to the same bytes. Reading images to train on, and training, begin anew. Images that
/// were left out are listed in [`skipped_report`](super::skipped_report), if there are any.
///
/// Memory does not grow with the number of images but for 16 bytes each, 8 more and the text for captions, and what
/// the source itself keeps of an image. Beside that it takes up to 256 MiB for training patches (more for more than
/// 65,536 codewords, see `sample`) or for indices (encoding); for each codeword three times its bytes and up to 80 more
/// for the search; with a bound on the error, for each cell four times a patch's bytes and 20 more; and for each thread
/// one image as it is decoded and resized.
///
/// # Errors
/// [`Error::Geometry`] or [`Error::Argument`] for options out of range; with [`OnError::Fail`](super::OnError::Fail) the error of
/// an image that cannot be read; [`Error::AllSkipped`] if none can; [`Error::Interrupted`] if `progress` says so;
/// [`Error::Unfinished`] if there is an interrupted encoding that may not be resumed; [`Error::Io`] if the archive
/// cannot be written.
pub fn encode(
    source: &dyn Source,
    output: &Path,
    options: &EncodeOptions,
    progress: &dyn Progress,
) -> Result<EncodeSummary> {
    encode_unnamed(source, output, options, progress).map_err(|error| match error {
        // The writer knows a stream, not its name.
        Error::Write(source) => Error::Io { action: "write", path: output.into(), source },
        error => error,
    })
}

fn encode_unnamed(
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
    check_output(source, output)?;
    let mut checkpoint = Checkpoint::open(source, output, options)?;
    let start = Instant::now();
    let (made, sampled) = match checkpoint.codebook() {
        Some(made) => (made, start),
        None => make(source, &geometry, options, start, progress)?,
    };
    if !checkpoint.is_kept() && checkpoint.is_due() {
        checkpoint.save_codebook(&made)?;
    }
    let trained = Instant::now();

    let coder = Coder::new(options, &made)?;
    let mut pass = Pass::new(source, options, &made, checkpoint, progress)?;
    let resumed = pass.next;
    if let Err(error) = coder.run(&mut pass, progress) {
        // Where that fails, what was saved before is still there, and the first error tells more.
        let _ = pass.keep();
        return Err(error);
    }
    let tally = pass.finish(output)?;
    let file_len = std::fs::metadata(output).map_err(Error::io("read", output))?.len();
    let seconds = |from: Instant, to: Instant| (to - from).as_secs_f64();
    let end = Instant::now();
    Ok(EncodeSummary {
        samples: tally.samples,
        classes: source.classes(),
        codec: coder.codec(),
        patch: (geometry.patch_width() as u32, geometry.patch_height() as u32),
        codewords: made.codewords(&geometry),
        codebook_bytes: made.byte_len(),
        device: options.searcher.name(),
        max_error: options.max_error(),
        uniform_cells: made.uniform_cells(),
        index_bits: coder.index_bits(),
        bytes_per_image: tally.mean_row_len(),
        file_len,
        mean_psnr_db: tally.mean_psnr_db(),
        min_psnr_db: tally.min_psnr_db,
        pooled_psnr_db: psnr_db(tally.squared_error, (tally.samples * geometry.image_len()) as u64),
        skipped: tally.skipped,
        resumed,
        sampling_seconds: seconds(start, sampled),
        training_seconds: seconds(sampled, trained),
        encoding_seconds: seconds(trained, end),
        images_per_second: (tally.samples.saturating_sub(resumed)) as f64 / seconds(start, end),
    })
}

/// Makes what images are encoded with, and says when the images to train on were read: at the `start` if there are none.
fn make(
    source: &dyn Source,
    geometry: &Geometry,
    options: &EncodeOptions,
    start: Instant,
    progress: &dyn Progress,
) -> Result<(Made, Instant)> {
    Ok(match (&options.codec, &options.codebook) {
        (CodecOptions::Layers(layers), _) => {
            let (made, sampled) = layers::make(source, options, layers, progress)?;
            (Made::Layers(made), sampled.unwrap_or(start))
        }
        (CodecOptions::Vq, Codebook::Given(codebook)) => {
            (Made::Vq { codebook: codebook.clone(), uniform_cells: None }, start)
        }
        (CodecOptions::Vq, Codebook::MaxError(bound)) => {
            let covering = cover::codebook(source, geometry, options, *bound, MAX_CODEWORDS, progress)?;
            (Made::Vq { codebook: covering.codebook, uniform_cells: covering.uniform_cells }, start)
        }
        (CodecOptions::Vq, Codebook::Train(codewords)) => {
            let training_patches = sample::sample(source, geometry, options, *codewords, progress)?;
            let sampled = Instant::now();
            let (searcher, len) = (&options.searcher, geometry.codeword_len());
            let codebook = kmeans::train_with(searcher, &training_patches, len, *codewords, progress)?;
            (Made::Vq { codebook, uniform_cells: None }, sampled)
        }
    })
}

/// What turns images into rows.
enum Coder<'a> {
    Vq(Vq<'a>),
    Layers(Box<Layers>),
}

impl<'a> Coder<'a> {
    fn new(options: &EncodeOptions, made: &'a Made) -> Result<Self> {
        Ok(match made {
            Made::Vq { codebook, .. } => Self::Vq(Vq::new(options, codebook)?),
            Made::Layers(made) => Self::Layers(Box::new(Layers::new(options, made)?)),
        })
    }

    fn run(&self, pass: &mut Pass, progress: &dyn Progress) -> Result<()> {
        match self {
            Self::Vq(vq) => vq.run(pass, progress),
            Self::Layers(layers) => layers.run(pass, progress),
        }
    }

    fn codec(&self) -> Codec {
        match self {
            Self::Vq(_) => Codec::Vq,
            Self::Layers(_) => Codec::Layers,
        }
    }

    fn index_bits(&self) -> usize {
        match self {
            Self::Vq(vq) => vq.index_width.bits(),
            Self::Layers(layers) => layers.index_bits(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    use image::RgbImage;

    use super::*;
    use crate::encode::{
        Fit, Folder, Image, LayerOptions, OnError, ReadOptions, options_of, partial_folder, prepare, psnr,
        skipped_report,
    };
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
        let decoder = CpuDecoder::new(&archive).expect("decoder");
        let rows = archive.rows(0..archive.samples()).expect("rows");
        let spec = OutputSpec::default();
        let mut pixels = vec![0; spec.batch_len(archive.geometry(), rows.len())];
        decoder.decode_bytes(&rows.slices(), &spec, &mut pixels).expect("decode");
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
            let recorded: Vec<f32> = archive.psnr().expect("intact").expect("recorded");
            assert_eq!(recorded, psnr.iter().map(|&psnr| psnr as f32).collect::<Vec<_>>());
            assert_eq!(summary.bytes_per_image, archive.vq().expect("vq").row_len());
            assert_eq!(archive.classes(), Some(&["cat".to_string(), "dog".to_string()][..]));
            assert_eq!(archive.labels().expect("intact").expect("labels"), [0, 0, 1, 1, 1]);
            assert_eq!((archive.metadata()["fit"].as_str(), archive.metadata()["seed"].as_str()), ("crop", "0"));
            assert_eq!(options_of(&archive).expect("options"), options);
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
        let codebook = Archive::open(&first).expect("open").vq().expect("vq").codebook().expect("intact").into_owned();
        let given = EncodeOptions { codebook: Codebook::Given(codebook.clone()), ..options() };
        let summary = encode(&source, &second, &given, &()).expect("encode");
        assert_eq!((summary.codewords, summary.mean_psnr_db), (64, trained.mean_psnr_db));
        assert_eq!((summary.sampling_seconds, decoded(&first)), (0.0, decoded(&second)));
        let archive = Archive::open(&second).expect("open");
        assert!(
            archive.vq().expect("vq").codebook().expect("intact") == codebook
                && !archive.metadata().contains_key("seed")
        );
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
        let skipped: Vec<std::path::PathBuf> = summary.skipped.iter().map(|skipped| (&skipped.name).into()).collect();
        assert_eq!(skipped, [Path::new("cat/aa.jpg"), Path::new("dog/bb.png")]);
        let archive = Archive::open(&output).expect("open");
        assert_eq!(archive.labels().expect("intact").expect("labels"), [0, 0, 1, 1, 1]);
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

    /// Interrupts the encoding pass once `images` are done.
    struct StopAt {
        images: usize,
        encoding: std::sync::atomic::AtomicBool,
        done: std::sync::atomic::AtomicUsize,
    }

    impl StopAt {
        fn new(images: usize) -> Self {
            Self { images, encoding: false.into(), done: 0.into() }
        }
    }

    impl Progress for StopAt {
        fn begin(&self, stage: &str, _: usize) {
            self.encoding.store(stage == "encoding", Relaxed);
        }
        fn update(&self, done: usize) {
            self.done.store(done, Relaxed);
        }
        fn is_cancelled(&self) -> bool {
            self.encoding.load(Relaxed) && self.done.load(Relaxed) >= self.images
        }
    }

    /// A folder of 600 pictures, three chunks, some of which cannot be read.
    fn many() -> (tempfile::TempDir, Folder, EncodeOptions) {
        let folder = tempfile::tempdir().expect("tempdir");
        for i in 0..600u32 {
            let path = folder.path().join(format!("{}/{i:03}.png", i / 100));
            fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            match i % 97 {
                5 => fs::write(path, "no image").expect("write"),
                _ => RgbImage::from_fn(12, 9, |x, y| [(x * y + i) as u8, (x * 20) as u8, i as u8].into())
                    .save(path)
                    .expect("save"),
            }
        }
        let source = Folder::open(folder.path()).expect("open");
        let options = EncodeOptions { image_size: (12, 9), on_error: OnError::Skip, ..options() };
        (folder, source, options)
    }

    #[test]
    fn an_interrupted_encoding_goes_on_to_the_same_bytes() {
        let (folder, source, options) = many();
        for codec in [CodecOptions::Vq, CodecOptions::Layers(LayerOptions::default())] {
            goes_on(folder.path(), &source, &EncodeOptions { codec, ..options.clone() });
        }
    }

    fn goes_on(folder: &Path, source: &Folder, options: &EncodeOptions) {
        let [whole, output] = ["whole.qvq", "out.qvq"].map(|name| folder.join(name));
        let expected = encode(source, &whole, options, &()).expect("encode");
        assert_eq!((expected.samples, expected.skipped.len(), expected.resumed), (593, 7, 0));
        let resume = EncodeOptions { resume: true, ..options.clone() };
        let saving = EncodeOptions { save_every: Duration::ZERO, ..resume.clone() };
        fs::write(&output, "an older archive").expect("write");
        let mut done = 0;
        for images in [300, 301, 520] {
            let stop = StopAt::new(images);
            let stopped = encode(source, &output, &saving, &stop);
            assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
            assert_eq!(fs::read(&output).expect("read"), b"an older archive");
            assert!(partial_folder(&output).join("archive").exists());
            match encode(source, &output, options, &()) {
                Err(Error::Unfinished { images, of: 600, .. }) => {
                    assert!(images >= done);
                    done = images;
                }
                other => unreachable!("{other:?}"),
            }
        }
        let summary = encode(source, &output, &resume, &()).expect("encode");
        assert!(summary.resumed == done && done >= 256, "{done}");
        assert_eq!(
            (summary.mean_psnr_db, summary.min_psnr_db, &summary.skipped),
            (expected.mean_psnr_db, expected.min_psnr_db, &expected.skipped)
        );
        assert!(fs::read(&output).expect("read") == fs::read(&whole).expect("read"));
        assert!(!partial_folder(&output).exists());
        let listed: Vec<Skipped> =
            serde_json::from_slice(&fs::read(skipped_report(&output)).expect("read")).expect("JSON");
        assert_eq!(listed, expected.skipped);
        assert_eq!(listed[0].index, 5);
    }

    #[test]
    fn what_did_not_reach_the_disk_is_made_again() {
        let (folder, source, options) = many();
        let [whole, output] = ["whole.qvq", "out.qvq"].map(|name| folder.path().join(name));
        let expected = encode(&source, &whole, &options, &()).expect("encode");
        let resume = EncodeOptions { resume: true, ..options.clone() };
        let saving = EncodeOptions { save_every: Duration::ZERO, ..resume.clone() };
        type Damage = fn(&Path);
        let cut: Damage = |partial| {
            let archive = fs::OpenOptions::new().write(true).open(partial.join("archive")).expect("open");
            let len = archive.metadata().expect("file").len();
            archive.set_len(len - 100).expect("cut");
        };
        let change: Damage = |partial| {
            let mut bytes = fs::read(partial.join("archive")).expect("read");
            let middle = bytes.len() - 2000;
            bytes[middle] ^= 1;
            fs::write(partial.join("archive"), bytes).expect("write");
        };
        let half_a_line: Damage = |partial| {
            let bytes = fs::read(partial.join("journal")).expect("read");
            fs::write(partial.join("journal"), &bytes[..bytes.len() - 20]).expect("write");
        };
        let no_codebook: Damage = |partial| fs::write(partial.join("codebook"), "other").expect("write");
        let nothing: Damage = |_| ();
        for (damage, less) in [(cut, true), (change, true), (half_a_line, true), (no_codebook, true), (nothing, false)]
        {
            let mut images = 0;
            // Twice, so that new lines of the journal come behind what was cut off.
            for stop in [520, 540] {
                let stopped = encode(&source, &output, &saving, &StopAt::new(stop));
                assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
                let unfinished = encode(&source, &output, &options, &());
                let Err(Error::Unfinished { images: done, .. }) = unfinished else { unreachable!("{unfinished:?}") };
                images = done;
                damage(&partial_folder(&output));
            }
            let summary = encode(&source, &output, &resume, &()).expect("encode");
            assert_eq!(summary.resumed < images, less, "{} of {images}", summary.resumed);
            assert_eq!((summary.samples, &summary.skipped), (593, &expected.skipped));
            assert!(fs::read(&output).expect("read") == fs::read(&whole).expect("read"));
        }
    }

    #[test]
    fn a_folder_of_somebody_elses_stays_as_it_is() {
        let folder = photographs();
        let output = folder.path().join("out.qvq");
        let source = Folder::open(folder.path()).expect("open");
        let partial = partial_folder(&output);
        for (name, text) in [("codebook", "mine"), ("journal", "Dear diary"), ("journal", "{}\n{}\n")] {
            fs::create_dir(&partial).expect("folder");
            fs::write(partial.join(name), text).expect("write");
            for resume in [false, true] {
                let refused = encode(&source, &output, &EncodeOptions { resume, ..options() }, &());
                assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
                assert_eq!(fs::read_to_string(partial.join(name)).expect("read"), text);
            }
            fs::remove_dir_all(&partial).expect("remove");
        }
        fs::create_dir(&partial).expect("folder");
        assert!(encode(&source, &output, &options(), &()).is_ok() && !partial.exists());
    }

    #[test]
    fn another_encoding_is_not_gone_on_with() {
        let (folder, source, options) = many();
        let output = folder.path().join("out.qvq");
        let saving = EncodeOptions { save_every: Duration::ZERO, ..options.clone() };
        let stopped = encode(&source, &output, &saving, &StopAt::new(300));
        assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
        let other = EncodeOptions { resume: true, fit: Fit::Pad, ..options.clone() };
        let error = encode(&source, &output, &other, &()).expect_err("another fit").to_string();
        assert!(error.contains("fit = crop") && error.contains("fit = pad"), "{error}");
        fs::remove_file(folder.path().join("0/000.png")).expect("remove");
        let other = Folder::open(folder.path()).expect("open");
        let resume = EncodeOptions { resume: true, ..options };
        assert!(matches!(encode(&other, &output, &resume, &()), Err(Error::Argument { .. })));
    }

    #[test]
    fn two_encodings_to_one_archive_do_not_mix() {
        struct Second<'a>(&'a Folder, &'a Path, &'a EncodeOptions, std::sync::atomic::AtomicUsize);
        impl Progress for Second<'_> {
            fn update(&self, _: usize) {
                let error = encode(self.0, self.1, self.2, &()).expect_err("locked");
                assert!(error.with_causes().contains("another process"), "{error:?}");
                self.3.fetch_add(1, Relaxed);
            }
        }
        let folder = photographs();
        let output = folder.path().join("out.qvq");
        let (source, options) = (Folder::open(folder.path()).expect("open"), options());
        let second = Second(&source, &output, &options, 0.into());
        encode(&source, &output, &options, &second).expect("encode");
        assert!(second.3.load(Relaxed) > 0 && Archive::open(&output).is_ok());
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
            fn read(&self, _: usize, _: &ReadOptions) -> Result<Image> {
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
