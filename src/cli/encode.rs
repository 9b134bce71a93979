//! `kuat encode`

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use super::Report;
use super::terminal::Terminal;
use crate::encode::{Codebook, EncodeOptions, Fit, Folder, OnError, encode};

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
    /// Width and height of a patch in pixels, 1 to 16; one number for squares. Smaller is better and larger
    #[arg(long, default_value = "4", value_parser = size, value_name = "P|PxQ")]
    patch: (u32, u32),
    /// Most codewords; more are better and slower
    #[arg(long, default_value_t = 65_536, value_name = "K")]
    codebook: usize,
    /// No value of a decoded image may differ by more, 0 to 255; 0 is lossless. As many codewords as that takes
    #[arg(long, value_name = "E", conflicts_with = "codebook")]
    max_error: Option<u8>,
    /// 1 (grey), 3 (RGB) or 4 (RGBA)
    #[arg(long, default_value_t = 3, value_name = "C")]
    channels: u32,
    /// Chooses the patches to train on; the same seed and images make the same archive
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What to do about files that cannot be read: `fail` or `skip`
    #[arg(long, default_value = "fail", value_name = "WHAT")]
    on_error: OnError,
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
            codebook: self.max_error.map_or(Codebook::Train(self.codebook), Codebook::MaxError),
            fit: self.fit,
            seed: self.seed,
            on_error: self.on_error,
        };
        let terminal = Terminal::new();
        let folder = Folder::open(&self.source)?;
        let summary = encode(&folder, &self.output, &options, &terminal)?;
        drop(terminal);

        let output = self.output.display();
        let mut text = String::new();
        writeln!(text, "{output}: {} images, {} bytes", summary.samples, summary.file_len)?;
        if let Some(classes) = &summary.classes {
            writeln!(text, "classes           {}", classes.len())?;
        }
        writeln!(text, "codebook          {} codewords, {}-bit indices", summary.codewords, summary.index_bits)?;
        if let Some(max_error) = summary.max_error {
            let ratio = |cells| summary.codewords as f64 / cells as f64;
            let beside = summary
                .uniform_cells
                .map(|cells| format!(": {:.2} of the {cells} patches that uniform quantisation leaves", ratio(cells)));
            writeln!(text, "greatest error    {max_error} of 255{}", beside.unwrap_or_default())?;
        }
        writeln!(text, "bytes per image   {}, and the codebook once", summary.bytes_per_image)?;
        writeln!(text, "PSNR              {:.2} dB mean, {:.2} dB worst", summary.mean_psnr_db, summary.min_psnr_db)?;
        writeln!(
            text,
            "time              {:.1} s sampling, {:.1} s training, {:.1} s encoding: {:.0} images/s",
            summary.sampling_seconds, summary.training_seconds, summary.encoding_seconds, summary.images_per_second
        )?;
        for skipped in &summary.skipped {
            writeln!(text, "skipped           {}: {}", skipped.name, skipped.reason)?;
        }
        let mut json = serde_json::to_value(&summary).context("the summary as JSON")?;
        json["archive"] = json!(self.output);
        Ok(Report::new(text, json, self.json))
    }
}
