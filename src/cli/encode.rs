//! `kuat encode`

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use super::Report;
use super::terminal::Terminal;
use crate::backend::Backend;
use crate::encode::{
    Codebook, EncodeOptions, Filter, Fit, Folder, MAX_PIXELS, OnError, encode, partial_folder, skipped_report,
};
use crate::error::Error;

/// Most skipped files that are listed for people; the report beside the archive has them all.
const LISTED: usize = 20;

/// Encode a folder of images into an archive
///
/// Subfolders are classes; a folder without any gives samples without labels. JPEG, PNG, WebP and BMP are read,
/// EXIF orientation is applied, and every image becomes RGB (or grey or RGBA with --channels).
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Folder of images
    source: PathBuf,
    /// Archive to write
    #[arg(short, long, value_name = "OUT.qvq")]
    output: PathBuf,
    /// Width and height of the archive's images in pixels; one number for squares
    #[arg(long, default_value = "224x224", value_parser = size, value_name = "WxH")]
    size: (u32, u32),
    /// How images of another size are brought to it: `crop` (short side to the target, centre cut), `stretch`, `pad`
    #[arg(long, default_value = "crop", value_name = "FIT")]
    fit: Fit,
    /// With --fit crop: scale the short side to this, then cut, as 256 for 224x224 in the usual evaluation on ImageNet
    #[arg(long, value_name = "N")]
    resize_short: Option<u32>,
    /// How pixels are weighed in resizing, as in Pillow: `bilinear`, `bicubic`, `lanczos`, `box`, `hamming`
    #[arg(long, default_value = "bilinear", value_name = "FILTER")]
    filter: Filter,
    /// The most pixels of an image that is decoded, against decompression bombs
    #[arg(long, default_value_t = MAX_PIXELS, value_name = "N")]
    max_pixels: u64,
    /// Width and height of a patch in pixels, 1 to 16; one number for squares. Smaller is better and larger
    #[arg(long, default_value = "4", value_parser = size, value_name = "P|PxQ")]
    patch: (u32, u32),
    /// Most codewords; more are better and slower
    #[arg(long, default_value_t = 65_536, value_name = "K")]
    codebook: usize,
    /// 1 (grey), 3 (RGB) or 4 (RGBA)
    #[arg(long, default_value_t = 3, value_name = "C")]
    channels: u32,
    /// Chooses the patches to train on; the same seed and images make the same archive
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What to do about files that cannot be read: `fail` or `skip`
    #[arg(long, default_value = "fail", value_name = "WHAT")]
    on_error: OnError,
    /// What searches for nearest codewords, with the same archive: `cpu`, `gpu`, `auto` (the best real GPU, else the CPU)
    #[arg(long, default_value = "cpu")]
    backend: Backend,
    /// Part of the name of the GPU adapter to use, with --backend gpu; see `kuat devices`
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Go on with an encoding to the same archive that was interrupted; it ends in the same bytes
    #[arg(long)]
    resume: bool,
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

impl Arguments {
    pub fn run(self) -> anyhow::Result<Report> {
        let options = EncodeOptions {
            image_size: self.size,
            channels: self.channels,
            patch: self.patch,
            codebook: Codebook::Train(self.codebook),
            fit: self.fit,
            resize_short: self.resize_short,
            filter: self.filter,
            max_pixels: self.max_pixels,
            seed: self.seed,
            on_error: self.on_error,
            searcher: self.backend.device(self.adapter.as_deref())?.into(),
            resume: self.resume,
        };
        let terminal = Terminal::new();
        let folder = Folder::open(&self.source)?;
        let summary = encode(&folder, &self.output, &options, &terminal);
        drop(terminal);
        let summary = summary.map_err(|error| match partial_folder(&self.output).exists() {
            true if !matches!(error, Error::Unfinished { .. }) => anyhow::Error::from(error)
                .context("not finished, but what is done is kept: the same command with --resume goes on"),
            _ => error.into(),
        })?;

        let output = self.output.display();
        let mut text = String::new();
        writeln!(text, "{output}: {} images, {} bytes", summary.samples, summary.file_len)?;
        if let Some(classes) = &summary.classes {
            writeln!(text, "classes           {}", classes.len())?;
        }
        writeln!(text, "codebook          {} codewords, {}-bit indices", summary.codewords, summary.index_bits)?;
        writeln!(text, "searched on       {}", summary.device)?;
        writeln!(text, "bytes per image   {}, and the codebook once", summary.bytes_per_image)?;
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
        json["archive"] = json!(self.output);
        Ok(Report::new(text, json, self.json))
    }
}
