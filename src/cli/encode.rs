//! `kuat encode`

use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use super::terminal::Terminal;
use super::{Report, not_over};
use crate::archive::Archive;
use crate::backend::Backend;
use crate::data::Data;
use crate::encode::{
    Choice, Codebook, CodecOptions, EncodeOptions, EncodeSummary, Filter, Fit, Goal, LayerOptions, LayerSource,
    MAX_PIXELS, OnError, PATCHES, Rate, check_output, choose, encode, open, options_of, partial_folder, skipped_report,
};
use crate::error::Error;
use crate::format::codec::Codec;

/// Most skipped files that are listed for people; the report beside the archive has them all.
const LISTED: usize = 20;

/// Encode images into an archive
///
/// SOURCE is a folder of images (subfolders are classes; a folder without any gives samples without labels), a .csv,
/// .tsv or .jsonl manifest (path, label, caption), CIFAR-10 or CIFAR-100 (binary or Python version; a folder gives the
/// training images), or tar shards with WebDataset's naming (a .tar file, a folder of them, or
/// shard-{000000..000009}.tar). JPEG, PNG, WebP and BMP are read, EXIF orientation is applied, and every image becomes
/// RGB (or grey or RGBA with --channels).
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Folder, manifest, CIFAR batches or tar shards
    source: PathBuf,
    /// Archive to write
    #[arg(short, long, value_name = "OUT.qvq")]
    output: PathBuf,
    /// Width and height of the archive's images in pixels; one number for squares [default: 224x224]
    #[arg(long, value_parser = size, value_name = "WxH")]
    size: Option<(u32, u32)>,
    /// How images of another size are brought to it: `crop` (short side to the target, centre cut), `stretch`, `pad`
    /// [default: crop]
    #[arg(long, value_name = "FIT")]
    fit: Option<Fit>,
    /// With --fit crop: scale the short side to this, then cut, as 256 for 224x224 in the usual evaluation on ImageNet
    #[arg(long, value_name = "N")]
    resize_short: Option<u32>,
    /// How pixels are weighed in resizing, as in Pillow: `bilinear`, `bicubic`, `lanczos`, `box`, `hamming`
    /// [default: bilinear]
    #[arg(long, value_name = "FILTER")]
    filter: Option<Filter>,
    /// The most pixels of an image that is decoded, against decompression bombs
    #[arg(long, default_value_t = MAX_PIXELS, value_name = "N")]
    max_pixels: u64,
    /// What images are encoded as: `vq` (one codebook, one index for each patch) or `layers` (as many codewords added up as
    /// each block needs: much better in as many bytes, not for RGBA) [default: vq, or that of --codebook-from]
    #[arg(long, value_parser = codec, value_name = "CODEC")]
    codec: Option<Codec>,
    /// With --codec layers: how good, 1 to 100, in a scale like JPEG's [default: 75]
    #[arg(long, group = "rate", value_name = "Q")]
    quality: Option<u8>,
    /// Width and height of a patch in pixels, 1 to 16; one number for squares. Smaller is better and larger
    /// [default: 4; several are tried for --psnr and --target-bytes; --codec layers has blocks of its own]
    #[arg(long, value_parser = size, value_name = "P|PxQ")]
    patch: Option<(u32, u32)>,
    /// Train at most so many codewords, up to 2^25; more are better and slower [default: 65536]
    #[arg(long, groups = ["codewords", "rate"], value_name = "K")]
    codebook: Option<usize>,
    /// Take the codebook of an archive, or the codebooks of its layers, and its size, patches and resizing where not given:
    /// for a validation split, or for shards with one codebook. `builtin`: codebooks of layers that come with kuat, trained
    /// on photographs of many kinds (say ./builtin for an archive of that name)
    #[arg(long, group = "codewords", value_name = "ARCHIVE|builtin")]
    codebook_from: Option<PathBuf>,
    /// No value of a decoded image may differ by more, 0 to 255; 0 is lossless. As many codewords as that takes
    #[arg(long, groups = ["codewords", "rate"], value_name = "E")]
    max_error: Option<u8>,
    /// Make the smallest archive of this mean PSNR in dB, judged by a sample of the images; with --codec layers every image
    /// reaches it, as far as the codebooks do
    #[arg(long, group = "rate", value_name = "D")]
    psnr: Option<f64>,
    /// Make the best archive in so many bytes, such as 500M or 1.5G (k, M, G: 10^3, 10^6, 10^9)
    #[arg(long, group = "rate", value_parser = bytes, value_name = "B")]
    target_bytes: Option<u64>,
    /// With --codec layers: make the best archive with so many bytes of an image in the mean
    #[arg(long, group = "rate", value_parser = bytes, value_name = "B")]
    bytes_per_image: Option<u64>,
    /// 1 (grey), 3 (RGB) or 4 (RGBA) [default: 3]
    #[arg(long, value_name = "C")]
    channels: Option<u32>,
    /// Chooses the patches to train on; the same seed and images make the same archive
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What to do about files that cannot be read: `fail` or `skip`
    #[arg(long, default_value = "fail", value_name = "WHAT")]
    on_error: OnError,
    /// What searches for nearest codewords, for layers in training, with the same archive: `cpu`, `gpu`, `auto` (the best real
    /// GPU, else the CPU)
    #[arg(long, default_value = "cpu")]
    backend: Backend,
    /// Part of the name of the GPU adapter to use, with --backend gpu; see `kuat devices`
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Go on with an encoding to the same archive that was interrupted; it ends in the same bytes
    #[arg(long)]
    resume: bool,
    /// Bring what is done to the disk so often; an interruption loses no more
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    save_every: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Reads `224`, `224x160`.
fn size(text: &str) -> Result<(u32, u32), String> {
    let (width, height) = text.split_once(['x', 'X']).unwrap_or((text, text));
    match (width.parse(), height.parse()) {
        (Ok(width), Ok(height)) => Ok((width, height)),
        _ => Err("expected a number or two, as in 224 or 224x160".into()),
    }
}

/// Reads `10`, `0.5`.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or("expected seconds, as in 10 or 0.5".into())
}

/// Reads `vq`, `layers`.
fn codec(text: &str) -> Result<Codec, String> {
    Codec::ALL.into_iter().find(|codec| codec.name() == text).ok_or("expected vq or layers".into())
}

/// Reads `1000000`, `500k`, `1.5G`.
fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.chars().next_back() {
        Some('k' | 'K') => (&text[..text.len() - 1], 1e3),
        Some('m' | 'M') => (&text[..text.len() - 1], 1e6),
        Some('g' | 'G') => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    match number.parse::<f64>() {
        Ok(number) if (1.0..1e18).contains(&(number * unit)) => Ok((number * unit) as u64),
        _ => Err("expected a number of bytes, as in 1000000, 500k, 1.5G".into()),
    }
}

impl Arguments {
    /// What is asked for; the rest is the archive's that the codebook is taken from, or else the default.
    fn options(&self) -> anyhow::Result<EncodeOptions> {
        let others = match &self.codebook_from {
            Some(path) if path.as_os_str() == "builtin" => {
                if self.codec == Some(Codec::Vq) {
                    bail!("--codebook-from builtin is for --codec layers; --codec vq takes an archive, or --codebook");
                }
                let layers = LayerOptions { books: LayerSource::Builtin, ..LayerOptions::default() };
                EncodeOptions { codec: CodecOptions::Layers(layers), ..EncodeOptions::default() }
            }
            Some(path) => {
                not_over(path, &self.output)?;
                self.options_from(&Archive::open(path)?)?
            }
            None => EncodeOptions::default(),
        };
        let codec = match self.codec {
            Some(Codec::Layers) if others.codec == CodecOptions::Vq => CodecOptions::Layers(LayerOptions::default()),
            _ => others.codec,
        };
        let codec = match codec {
            CodecOptions::Vq => {
                for (given, option) in
                    [(self.quality.is_some(), "quality"), (self.bytes_per_image.is_some(), "bytes-per-image")]
                {
                    if given {
                        bail!(
                            "--{option} is for --codec layers; --codec vq takes --codebook, --psnr or --target-bytes"
                        );
                    }
                }
                if self.codebook_from.is_some() && (self.psnr.is_some() || self.target_bytes.is_some()) {
                    bail!("--psnr and --target-bytes train codebooks: with --codec vq they exclude --codebook-from");
                }
                CodecOptions::Vq
            }
            CodecOptions::Layers(LayerOptions { rate, books }) => {
                let vq = [
                    (self.patch.is_some(), "patch"),
                    (self.codebook.is_some(), "codebook"),
                    (self.max_error.is_some(), "max-error"),
                ];
                if let Some((_, option)) = vq.into_iter().find(|(given, _)| *given) {
                    bail!(
                        "--{option} is for --codec vq; --codec layers takes --quality, --psnr, --bytes-per-image or \
                         --target-bytes, and --codebook-from"
                    );
                }
                let given = self.quality.map(Rate::Quality).or(self.psnr.map(Rate::Psnr));
                let given = given.or(self.target_bytes.map(Rate::Bytes)).or(self.bytes_per_image.map(Rate::MeanBytes));
                let rate = match (given, rate) {
                    (Some(rate), _) => rate,
                    (None, Rate::Bytes(bytes)) => {
                        bail!(
                            "that archive was made for {bytes} bytes; say how good this one is to be, as with --quality"
                        )
                    }
                    (None, rate) => rate,
                };
                CodecOptions::Layers(LayerOptions { rate, books })
            }
        };
        let device = match (&codec, self.backend) {
            // GPUs train its codebooks; the rest is the CPU's.
            (CodecOptions::Layers(layers), Backend::Auto) if layers.books != LayerSource::Train => {
                Backend::Cpu.device(self.adapter.as_deref())
            }
            (_, backend) => backend.device(self.adapter.as_deref()),
        };
        Ok(EncodeOptions {
            image_size: self.size.unwrap_or(others.image_size),
            channels: self.channels.unwrap_or(others.channels),
            codec,
            patch: self.patch.unwrap_or(others.patch),
            codebook: match (self.codebook, self.max_error) {
                (Some(codewords), _) => Codebook::Train(codewords),
                (None, Some(bound)) => Codebook::MaxError(bound),
                (None, None) => others.codebook,
            },
            fit: self.fit.unwrap_or(others.fit),
            resize_short: self.resize_short.or(others.resize_short),
            filter: self.filter.unwrap_or(others.filter),
            max_pixels: self.max_pixels,
            seed: self.seed,
            on_error: self.on_error,
            searcher: device?.into(),
            resume: self.resume,
            save_every: self.save_every,
        })
    }

    /// Options of the archive that the codebook is taken from, with that codebook.
    fn options_from(&self, archive: &Archive<impl Data>) -> anyhow::Result<EncodeOptions> {
        let of = options_of(archive)?;
        if let Some(asked) = self.codec.filter(|&asked| asked != archive.codec()) {
            bail!("--codec {asked} cannot take the codebook of an archive of the codec {}", archive.codec());
        }
        let (patch, channels) = (self.patch.unwrap_or(of.patch), self.channels.unwrap_or(of.channels));
        if archive.codec() == Codec::Layers {
            if channels != of.channels {
                bail!("--channels must be {}, as the codebooks have it", of.channels);
            }
        } else if (patch, channels) != (of.patch, of.channels) {
            let ((width, height), channels) = (of.patch, of.channels);
            bail!("--patch and --channels must be {width}x{height} and {channels}, as the codebook has them");
        }
        Ok(match of.codec {
            CodecOptions::Vq => {
                EncodeOptions { codebook: Codebook::Given(archive.vq()?.codebook()?.into_owned()), ..of }
            }
            CodecOptions::Layers(layers) => {
                let books = LayerSource::Given(archive.layers()?.books()?);
                EncodeOptions { codec: CodecOptions::Layers(LayerOptions { books, ..layers }), ..of }
            }
        })
    }

    pub fn run(self) -> anyhow::Result<Report> {
        let options = self.options()?;
        let goal = self.psnr.map(Goal::Psnr).or(self.target_bytes.map(Goal::Bytes));
        // Layers have their own way to it.
        let goal = goal.filter(|_| options.codec == CodecOptions::Vq);
        let terminal = Terminal::new();
        let source = open(&self.source)?;
        let (options, choice) = match goal {
            Some(goal) => {
                // Now rather than after the trials: the folder may not exist.
                check_output(source.as_ref(), &self.output)?;
                let start = Instant::now();
                let patches = self.patch.as_ref().map_or(&PATCHES[..], std::slice::from_ref);
                let Choice { options, trial, trials } = choose(source.as_ref(), goal, &options, patches, &terminal)?;
                (options, Some((trial, trials, start.elapsed())))
            }
            None => (options, None),
        };
        let summary = encode(source.as_ref(), &self.output, &options, &terminal);
        drop(terminal);
        let summary = summary.map_err(|error| {
            let kept = partial_folder(&self.output).join("codebook").exists();
            let elsewhere = match &error {
                Error::Unfinished { .. } | Error::Argument { .. } => true,
                // Not the system's: another process is at it, or something is in the way.
                Error::Io { source, .. } => source.raw_os_error().is_none(),
                _ => false,
            };
            match kept && !elsewhere {
                true => anyhow::Error::from(error)
                    .context("not finished, but what is done is kept: the same command with --resume goes on"),
                false => error.into(),
            }
        })?;

        let output = self.output.display();
        let mut text = String::new();
        writeln!(text, "{output}: {} images, {} bytes", summary.samples, summary.file_len)?;
        if let Some(classes) = &summary.classes {
            writeln!(text, "classes           {}", classes.len())?;
        }
        let EncodeSummary { codewords, index_bits, codebook_bytes, .. } = summary;
        if let CodecOptions::Layers(layers) = &options.codec {
            writeln!(text, "codec             layers, {}", layers.rate)?;
        }
        writeln!(text, "codebook          {codewords} codewords in {codebook_bytes} bytes, {index_bits}-bit indices")?;
        if let Some((trial, trials, time)) = &choice {
            let (width, height) = trial.patch;
            let (tried, seconds) = (trials.len(), time.as_secs_f64());
            writeln!(text, "chosen            {width}x{height} patches by {tried} trials in {seconds:.1} s")?;
        }
        if let Some(asked) = self.psnr {
            let (reached, why) = match options.codec {
                CodecOptions::Vq => (summary.mean_psnr_db, "though the sample reached it"),
                CodecOptions::Layers(_) => (summary.min_psnr_db, "which is as close as the codebooks come"),
            };
            if reached < asked {
                writeln!(text, "short of          {asked} dB by {:.2} dB, {why}", asked - reached)?;
            }
        }
        if let CodecOptions::Layers(LayerOptions { rate: Rate::MeanBytes(asked), .. }) = options.codec
            && summary.bytes_per_image as f64 * 1.05 < asked as f64
        {
            writeln!(text, "short of          {asked} bytes each, for which the codebooks have no use")?;
        }
        if let Some(max_error) = summary.max_error {
            let ratio = |cells| summary.codewords as f64 / cells as f64;
            let beside = summary
                .uniform_cells
                .map(|cells| format!(": {:.2} of the {cells} patches that uniform quantisation leaves", ratio(cells)));
            writeln!(text, "greatest error    {max_error} of 255{}", beside.unwrap_or_default())?;
        }
        writeln!(text, "searched on       {}", summary.device)?;
        let bytes = summary.bytes_per_image;
        match options.codec {
            CodecOptions::Vq => writeln!(text, "bytes per image   {bytes}, and the codebook once")?,
            CodecOptions::Layers(_) => writeln!(text, "bytes per image   {bytes} mean, and the codebooks once")?,
        }
        writeln!(text, "PSNR              {:.2} dB mean, {:.2} dB worst", summary.mean_psnr_db, summary.min_psnr_db)?;
        writeln!(
            text,
            "time              {:.1} s sampling, {:.1} s training, {:.1} s encoding: {:.0} images/s",
            summary.sampling_seconds, summary.training_seconds, summary.encoding_seconds, summary.images_per_second
        )?;
        if summary.resumed > 0 {
            writeln!(text, "resumed           {} images were done before", summary.resumed)?;
        }
        for skipped in summary.skipped.iter().take(LISTED) {
            writeln!(text, "skipped           {}: {}", skipped.name, skipped.reason)?;
        }
        if summary.skipped.len() > LISTED {
            writeln!(text, "and {} more", summary.skipped.len() - LISTED)?;
        }
        if !summary.skipped.is_empty() {
            writeln!(text, "all skipped       {}", skipped_report(&self.output).display())?;
        }
        let mut json = serde_json::to_value(&summary).context("the summary as JSON")?;
        json["archive"] = json!(self.output.display().to_string());
        if let Some((trial, trials, time)) = choice {
            json["choosing_seconds"] = json!(time.as_secs_f64());
            json["chosen"] = json!(trial);
            json["trials"] = json!(trials);
        }
        Ok(Report::new(text, json, self.json))
    }
}
