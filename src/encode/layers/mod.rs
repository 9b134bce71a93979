//! The codec "layers": from images to codebooks, and with them to records.

mod assign;
mod builtin;
mod cluster;
mod coder;
mod form;
mod plan;
mod planes;
mod rate;
mod search;
mod train;
mod tuning;

use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use rayon::prelude::*;

pub use self::builtin::builtin_books;
use self::coder::{Beam, Draft, LayerCoder, Modes};
use self::form::Form;
use self::plan::Plan;
use self::planes::Planes;
pub use self::rate::Rate;
use self::rate::{Slope, last_holding};
pub use self::train::{LayerTraining, train_layers};
use super::goal::fixed_bytes;
use super::pass::{CHUNK_IMAGES, Encoded, Pass};
use super::quality::psnr_db;
use super::source::Source;
use super::{CodecOptions, EncodeOptions, sample};
use crate::error::{Error, Result};
use crate::format::books::{LayerBooks, codeword_len};
use crate::progress::{Counter, Progress};

/// How images become records of the codec "layers".
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LayerOptions {
    /// How good they become, or how large.
    pub rate: Rate,
    /// Where the codebooks come from.
    pub books: LayerSource,
}

/// Where codebooks of layers come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LayerSource {
    /// They are trained on a sample of the images: as many as have 128 MiB of values.
    #[default]
    Train,
    /// [`builtin_books`].
    Builtin,
    /// These, of another archive or of a training before.
    Given(LayerBooks),
}

/// Codebooks, and what a bit is worth with them.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct MadeLayers {
    pub books: LayerBooks,
    slope: Slope,
}

/// Bits of an index of codebooks that are trained.
const INDEX_BITS: u32 = 12;

/// The most bytes of values that codebooks are trained on.
const TRAINING_BYTES: usize = 128 << 20;

/// How many sums are followed from stage to stage.
const BEAM: Beam = Beam { block: 2, quarter: 2 };

impl LayerOptions {
    /// # Errors
    /// [`Error::Argument`] or [`Error::Layers`] for options out of range, or codebooks of other channels.
    pub(super) fn check(&self, channels: u32) -> Result<()> {
        self.rate.check()?;
        if !matches!(channels, 1 | 3) {
            let expected = "1 (grey) or 3 (RGB) with the codec \"layers\"; the codec \"vq\" takes 4".into();
            return Err(Error::Argument { argument: "number of channels", found: channels.to_string(), expected });
        }
        if let LayerSource::Given(books) = &self.books {
            books.check()?;
            if books.chroma.is_some() != (channels == 3) {
                let found = format!("those of {} images", if books.chroma.is_some() { "RGB" } else { "grey" });
                return Err(Error::Argument { argument: "codebooks", found, expected: format!("{channels} channels") });
            }
        }
        Ok(())
    }
}

/// Trains codebooks if none are given, and finds what a bit is worth with them. Says when the images to
/// train on were read, if any were.
pub(super) fn make(
    source: &dyn Source,
    options: &EncodeOptions,
    layers: &LayerOptions,
    progress: &dyn Progress,
) -> Result<(MadeLayers, Option<Instant>)> {
    let geometry = options.geometry()?;
    let pixels = geometry.image_width() * geometry.image_height();
    let guess = layers.rate.slope(pixels as f64, source.len() as f64);
    let finished = |books: LayerBooks| -> Result<MadeLayers> {
        let room = Room::of(&books);
        let Some(bytes) = mean_bytes(source, layers.rate, room)? else { return Ok(MadeLayers { books, slope: guess }) };
        match find_slope(source, options, &books, bytes, guess, progress)? {
            Found::Slope(slope) => Ok(MadeLayers { books, slope }),
            Found::TooFew(least) => Err(too_few(source, layers.rate, room, least)?),
        }
    };
    let given = match &layers.books {
        LayerSource::Train => None,
        LayerSource::Builtin => Some(builtin_books(options.channels)?),
        LayerSource::Given(books) => Some(books.clone()),
    };
    if let Some(books) = given {
        return Ok((finished(books)?, None));
    }
    let values = geometry.image_width() * geometry.image_height() * geometry.channels();
    let planes = training_blocks(source, (TRAINING_BYTES / (2 * values)).max(1), options, progress)?;
    // What a bit is worth hardly depends on the codebooks.
    let room = Room::planned([planes.luma.len(), planes.chroma.len()], INDEX_BITS);
    let slope = match mean_bytes(source, layers.rate, room)? {
        Some(bytes) => match find_slope(source, options, &builtin_books(options.channels)?, bytes, guess, progress)? {
            Found::Slope(slope) => slope,
            Found::TooFew(_) => guess,
        },
        None => guess,
    };
    let sampled = Instant::now();
    let training = LayerTraining {
        index_bits: INDEX_BITS,
        lambda: slope.lambda(),
        octaves: 1.0,
        seed: options.seed,
        searcher: options.searcher.clone(),
    };
    Ok((finished(train_layers(&planes.luma, &planes.chroma, &training, progress)?)?, Some(sampled)))
}

/// Trains codebooks on all of a source's images, which [`encode`](crate::encode::encode) does on a sample. Memory: some six
/// bytes for each value of the images.
///
/// # Errors
/// Those of reading the images and of [`train_layers`].
pub fn train_layers_on(
    source: &dyn Source,
    options: &EncodeOptions,
    training: &LayerTraining,
    progress: &dyn Progress,
) -> Result<LayerBooks> {
    let planes = training_blocks(source, source.len(), options, progress)?;
    train_layers(&planes.luma, &planes.chroma, training, progress)
}

/// The blocks of random images, at most so many.
fn training_blocks(
    source: &dyn Source,
    most: usize,
    options: &EncodeOptions,
    progress: &dyn Progress,
) -> Result<Planes> {
    let geometry = options.geometry()?;
    let chosen = sample::choose(&mut Pcg64::seed_from_u64(options.seed), source.len(), most);
    let cut = |pixels: Vec<u8>| Planes::cut(&geometry, &pixels);
    let images = sample::images(source, &chosen, options, Counter::new(progress, "sampling", chosen.len()), cut)?;
    let (luma, chroma): (Vec<_>, Vec<_>) = images.into_iter().map(|Planes { luma, chroma }| (luma, chroma)).unzip();
    Ok(Planes { luma: luma.concat(), chroma: chroma.concat() })
}

/// What codebooks take in an archive.
#[derive(Clone, Copy)]
struct Room {
    bytes: u64,
    tensors: u64,
}

impl Room {
    fn of(books: &LayerBooks) -> Self {
        let tensors = books.components().into_iter().map(|component| component.books.len()).sum::<usize>();
        Self { bytes: books.byte_len() as u64, tensors: tensors as u64 }
    }

    /// Of those that are trained on so many values of luma and chroma, at most.
    fn planned(values: [usize; 2], index_bits: u32) -> Self {
        let mut room = Self { bytes: 0, tensors: 0 };
        for (component, values) in values.into_iter().enumerate().filter(|(_, values)| *values > 0) {
            let plan = Plan::new(component, values / Form::new(component).block_len, index_bits);
            for cover in plan.layout().0 {
                room.bytes += (plan.codewords[cover as usize] * codeword_len(component, cover)) as u64;
                room.tensors += 1;
            }
        }
        room
    }

    /// Bytes of the archive that are not of records.
    fn fixed(self, source: &dyn Source) -> Result<u64> {
        // A tensor's description and checksum, and the end of each record.
        Ok(fixed_bytes(source)? + self.bytes + self.tensors * 128 + source.len() as u64 * 8)
    }
}

/// Bytes of a record that a rate asks for in the mean.
fn mean_bytes(source: &dyn Source, rate: Rate, room: Room) -> Result<Option<f64>> {
    Ok(match rate {
        Rate::Quality(_) | Rate::Psnr(_) => None,
        Rate::MeanBytes(bytes) => Some(bytes as f64),
        Rate::Bytes(bytes) => Some(bytes.saturating_sub(room.fixed(source)?) as f64 / source.len() as f64),
    })
}

/// What is said if records take so many bytes in the mean at least, which is too many.
fn too_few(source: &dyn Source, rate: Rate, room: Room, least: f64) -> Result<Error> {
    Ok(match rate {
        Rate::Bytes(bytes) => {
            let nearest = room.fixed(source)? as f64 + least * source.len() as f64;
            Error::Goal {
                goal: format!("{bytes} bytes"),
                nearest: format!("{nearest:.0} bytes, {} of them codebooks", room.bytes),
                advice: "smaller or fewer images take less, and so do codebooks trained on few",
            }
        }
        rate => Error::Goal {
            goal: rate.to_string(),
            nearest: format!("{least:.0} bytes in the mean"),
            advice: "smaller images take less",
        },
    })
}

/// What [`find_slope`] finds.
enum Found {
    Slope(Slope),
    /// None: records take so many bytes in the mean at least.
    TooFew(f64),
}

/// The steepest slope with which records have at most so many bytes in the mean, by a sample of the images: up to 64, and then
/// more until the mean is known within 2 % (twice its standard error).
fn find_slope(
    source: &dyn Source,
    options: &EncodeOptions,
    books: &LayerBooks,
    bytes: f64,
    guess: Slope,
    progress: &dyn Progress,
) -> Result<Found> {
    /// Bytes that a pixel takes with what is known of its block, and the most for all images that are in memory at once.
    const PIXEL: usize = 14;
    const DRAFTS: usize = 256 << 20;
    /// How far from a slope the means are taken that tell how much a step changes.
    const ASIDE: i32 = 16;
    let geometry = options.geometry()?;
    let at_once = (DRAFTS / (PIXEL * geometry.image_width() * geometry.image_height())).clamp(4, 64);
    let coder = LayerCoder::new(&geometry, books, BEAM)?;
    let mut random = Pcg64::seed_from_u64(options.seed);
    let mut order: Vec<(u64, usize)> = (0..source.len()).map(|image| (random.next_u64(), image)).collect();
    order.sort_unstable();
    let order: Vec<usize> = order.into_iter().map(|(_, image)| image).collect();
    let counter = Counter::new(progress, "measuring", 0);
    let drafts = |images: &[usize]| {
        let draft = |pixels: Vec<u8>| coder.draft(&pixels);
        sample::images(source, images, options, Counter::new(&(), "", 0), draft)
    };
    let lens = |drafts: &mut [Draft], slope: Slope| -> Result<Vec<f64>> {
        counter.add(0)?;
        let lambda = slope.lambda();
        let len = |draft: &mut Draft| {
            let modes = draft.choose(lambda);
            draft.record_len(&modes) as f64
        };
        Ok(drafts.par_iter_mut().map(len).collect())
    };
    let mean = |lens: &[f64]| lens.iter().sum::<f64>() / lens.len() as f64;

    let mut batches = order.chunks(at_once);
    let mut first = drafts(batches.next().unwrap_or_default())?;
    let mut problem = None;
    let found = last_holding(-Slope::FLATTEST, -Slope::STEEPEST, -guess.number(), |number| {
        match lens(&mut first, Slope::at(-number)) {
            Ok(lens) => mean(&lens) <= bytes,
            Err(error) => {
                problem.get_or_insert(error);
                true
            }
        }
    });
    if let Some(problem) = problem {
        return Err(problem);
    }
    let Some(found) = found else {
        return Ok(Found::TooFew(mean(&lens(&mut first, Slope::at(Slope::FLATTEST))?)));
    };
    let middle = -found;
    if order.len() <= at_once {
        return Ok(Found::Slope(Slope::at(middle)));
    }
    // Lengths with slopes on both sides, of more and more images.
    let slopes = [middle - ASIDE, middle, middle + ASIDE];
    let mut known: [Vec<f64>; 3] = Default::default();
    let mut add = |drafts: &mut [Draft]| -> Result<bool> {
        for (known, slope) in known.iter_mut().zip(slopes) {
            known.extend(lens(drafts, Slope::at(slope))?);
        }
        counter.add(drafts.len())?;
        let (count, mean) = (known[1].len() as f64, mean(&known[1]));
        let variance = known[1].iter().map(|len| (len - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        // Of a sample without repetition.
        let left = 1.0 - count / order.len() as f64;
        Ok(4.0 * variance / count * left <= (0.02 * mean).powi(2))
    };
    let mut is_enough = add(&mut first)?;
    drop(first);
    for images in batches {
        if is_enough {
            break;
        }
        is_enough = add(&mut drafts(images)?)?;
    }
    // Bytes fall by a constant factor for each step, nearly.
    let [more, same, less] = known.map(|lens| libm::log(mean(&lens)));
    let target = libm::log(bytes);
    let (from, to) = if target > same { (same, more) } else { (less, same) };
    let base = if target > same { middle } else { middle + ASIDE };
    if to <= from {
        return Ok(Found::Slope(Slope::at(middle)));
    }
    let steps = (f64::from(ASIDE) * (target - from) / (to - from)).floor();
    Ok(Found::Slope(Slope::at(base - steps.clamp(-1024.0, 1024.0) as i32)))
}

/// Codebooks that images are encoded with.
pub(super) struct Layers {
    coder: LayerCoder,
    /// What each image is to reach.
    psnr_db: Option<f64>,
    slope: Slope,
}

impl Layers {
    pub fn new(options: &EncodeOptions, made: &MadeLayers) -> Result<Self> {
        let coder = LayerCoder::new(&options.geometry()?, &made.books, BEAM)?;
        let psnr_db = match &options.codec {
            CodecOptions::Layers(LayerOptions { rate: Rate::Psnr(db), .. }) => Some(*db),
            _ => None,
        };
        Ok(Self { coder, psnr_db, slope: made.slope })
    }

    pub fn index_bits(&self) -> usize {
        self.coder.index_bits()
    }

    /// Encodes the images that are left.
    pub fn run(&self, pass: &mut Pass, progress: &dyn Progress) -> Result<()> {
        let encode = |pixels: &[u8]| {
            let mut draft = self.coder.draft(pixels);
            let modes = match self.psnr_db {
                Some(db) => choose_psnr(&mut draft, pixels, db, self.slope),
                None => draft.choose(self.slope.lambda()),
            };
            Some(Encoded { row: draft.record(&modes), squared_error: draft.squared_error(&modes, pixels) })
        };
        pass.run_each(CHUNK_IMAGES, encode, progress)
    }
}

/// The modes of the flattest slope that reaches a PSNR; of the steepest if none does.
fn choose_psnr(draft: &mut Draft, pixels: &[u8], db: f64, guess: Slope) -> Modes {
    let reaches = |number| {
        let modes = draft.choose(Slope::at(number).lambda());
        psnr_db(draft.squared_error(&modes, pixels), pixels.len() as u64) >= db
    };
    let number = last_holding(Slope::STEEPEST, Slope::FLATTEST, guess.number(), reaches).unwrap_or(Slope::STEEPEST);
    draft.choose(Slope::at(number).lambda())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::coder::tests::noise;
    use super::*;
    use crate::encode::{Image, Spool, encode, options_of, prepare, psnr};
    use crate::{Archive, Decoder, NaiveDecoder, OutputSpec};

    /// Pictures of waves and noise, 40 x 28 pixels, each busier than the last.
    fn waves(count: u32, channels: u32) -> (tempfile::TempDir, Spool, EncodeOptions) {
        let folder = tempfile::tempdir().expect("tempdir");
        let options = EncodeOptions {
            image_size: (40, 28),
            channels,
            codec: CodecOptions::Layers(LayerOptions { rate: Rate::Quality(50), books: LayerSource::Train }),
            seed: 3,
            ..EncodeOptions::default()
        };
        let mut spool = Spool::create_in(folder.path(), &options).expect("spool");
        for i in 0..count {
            let value = |x: u32, y: u32, k: u32| {
                let phase = f64::from(x * (1 + i % 5) + y * k) / (2.0 + f64::from(i % 11)) + f64::from(i);
                (127.5 + 90.0 * phase.sin() + f64::from((x * 7 + y * 13 + i * x * y) % (2 + i % 40))) as u8
            };
            let pixels = (0..28).flat_map(|y| (0..40).flat_map(move |x| (0..channels).map(move |k| value(x, y, k))));
            let image = Image::new(40, 28, channels, pixels.collect(), channels).expect("image");
            spool.push(image, Some(i.into()), None).expect("push");
        }
        (folder, spool, options)
    }

    fn with(options: &EncodeOptions, rate: Rate, books: LayerSource) -> EncodeOptions {
        EncodeOptions { codec: CodecOptions::Layers(LayerOptions { rate, books }), ..options.clone() }
    }

    fn decoded(path: &Path) -> Vec<Vec<u8>> {
        let archive = Archive::open(path).expect("open");
        let report = archive.verify(&()).expect("verify");
        assert!(report.is_ok(), "{report:?}");
        let decoder = NaiveDecoder::new(&archive).expect("decoder");
        let rows = archive.rows(0..archive.samples()).expect("rows");
        let spec = OutputSpec::default();
        let mut pixels = vec![0; spec.batch_len(archive.geometry(), rows.len())];
        decoder.decode_bytes(&rows.slices(), &spec, &mut pixels).expect("decode");
        pixels.chunks(archive.geometry().image_len()).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn figures_are_those_of_the_decoded_archive() {
        for channels in [1, 3] {
            let (folder, source, options) = waves(9, channels);
            let output = folder.path().join("out.qvq");
            for books in [LayerSource::Train, LayerSource::Builtin, LayerSource::Given(noise(channels))] {
                let options = with(&options, Rate::Quality(70), books.clone());
                let summary = encode(&source, &output, &options, &()).expect("encode");
                let psnr: Vec<f32> = decoded(&output)
                    .iter()
                    .enumerate()
                    .map(|(i, pixels)| psnr(pixels, &prepare(&source, i, &options).expect("image").pixels) as f32)
                    .collect();
                let archive = Archive::open(&output).expect("open");
                assert_eq!(archive.psnr().expect("intact").expect("recorded"), psnr);
                assert_eq!(summary.min_psnr_db as f32, psnr.iter().copied().fold(f32::MAX, f32::min));
                let view = archive.layers().expect("layers");
                assert_eq!((summary.codec, summary.patch), (archive.codec(), (8, 8)));
                assert_eq!(summary.codebook_bytes, view.books_len());
                assert_eq!(summary.bytes_per_image, archive.mean_row_len().round() as usize);
                match books {
                    LayerSource::Train => assert_eq!(options_of(&archive).expect("options"), options),
                    LayerSource::Builtin => {
                        assert_eq!(view.books().expect("intact"), builtin_books(channels).expect("builtin"))
                    }
                    LayerSource::Given(books) => assert_eq!(view.books().expect("intact"), books),
                }
            }
        }
    }

    #[test]
    fn threads_do_not_change_the_archive() {
        let (folder, source, options) = waves(70, 3);
        let output = folder.path().join("out.qvq");
        let books = LayerSource::Given(noise(3));
        for (rate, books) in [(Rate::Quality(60), LayerSource::Train), (Rate::MeanBytes(150), books)] {
            let options = with(&options, rate, books);
            let archives = [1, 2, 5].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
                pool.install(|| encode(&source, &output, &options, &())).expect("encode");
                std::fs::read(&output).expect("read")
            });
            assert!(archives[0] == archives[1] && archives[0] == archives[2], "{rate}");
        }
    }

    #[test]
    fn rates_are_met() {
        let (folder, source, options) = waves(150, 3);
        let output = folder.path().join("out.qvq");
        let trained = encode(&source, &output, &options, &()).expect("encode");
        let books = LayerSource::Given(
            Archive::open(&output).expect("open").layers().expect("layers").books().expect("intact"),
        );
        let encoded = |rate| encode(&source, &output, &with(&options, rate, books.clone()), &()).expect("encode");

        let mut before = (0, 0.0);
        for quality in [10, 40, 70] {
            let summary = encoded(Rate::Quality(quality));
            assert!(summary.bytes_per_image > before.0 && summary.pooled_psnr_db > before.1, "{quality}: {summary:?}");
            before = (summary.bytes_per_image, summary.pooled_psnr_db);
        }
        // Every image reaches what the worst one had, in fewer bytes.
        let asked = trained.min_psnr_db;
        let (low, high) = (encoded(Rate::Psnr(asked - 2.0)), encoded(Rate::Psnr(asked)));
        for (summary, asked) in [(&low, asked - 2.0), (&high, asked)] {
            assert!(summary.min_psnr_db >= asked, "{asked}: {summary:?}");
            assert!(summary.mean_psnr_db < trained.mean_psnr_db, "{asked}: {summary:?}");
        }
        assert!(
            low.bytes_per_image < high.bytes_per_image && high.bytes_per_image < trained.bytes_per_image,
            "{high:?}"
        );
        let most = encoded(Rate::Psnr(60.0));
        assert!(most.min_psnr_db < 60.0 && most.mean_psnr_db > trained.mean_psnr_db, "{most:?}");
        for bytes in [low.bytes_per_image, high.bytes_per_image] {
            let found = encoded(Rate::MeanBytes(bytes as u64));
            assert!(found.bytes_per_image.abs_diff(bytes) * 50 <= bytes, "{bytes}: {found:?}");
            let file_len = found.file_len + 10_000;
            let found = encoded(Rate::Bytes(file_len));
            assert!(found.file_len.abs_diff(file_len) * 50 <= file_len, "{file_len}: {found:?}");
        }
        // Codebooks of its own, which take less than the built-in ones.
        let asked = with(&options, Rate::Bytes(trained.file_len), LayerSource::Train);
        let found = encode(&source, &output, &asked, &()).expect("encode");
        assert!((trained.file_len * 9 / 10..=trained.file_len).contains(&found.file_len), "{found:?}");
        let least = encode(&source, &output, &with(&options, Rate::Bytes(5000), books.clone()), &());
        assert!(matches!(least, Err(Error::Goal { .. })), "{least:?}");
    }

    #[test]
    fn wrong_options_are_refused() {
        let (folder, source, options) = waves(1, 3);
        let output = folder.path().join("out.qvq");
        let rates = [Rate::Quality(0), Rate::Quality(101), Rate::Psnr(100.0), Rate::Psnr(f64::NAN), Rate::MeanBytes(0)];
        let mut wrong: Vec<EncodeOptions> =
            rates.map(|rate| with(&options, rate, LayerSource::Given(noise(3)))).to_vec();
        wrong.push(with(&options, Rate::default(), LayerSource::Given(noise(1))));
        wrong.push(EncodeOptions { channels: 4, ..options.clone() });
        for wrong in wrong {
            let refused = encode(&source, &output, &wrong, &());
            assert!(matches!(refused, Err(Error::Argument { .. })), "{wrong:?}: {refused:?}");
        }
        let mut books = noise(3);
        books.index_bits = 1;
        let refused = encode(&source, &output, &with(&options, Rate::default(), LayerSource::Given(books)), &());
        assert!(matches!(refused, Err(Error::Layers { .. })), "{refused:?}");
    }
}
