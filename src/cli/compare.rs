//! `kuat compare`

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use super::Report;
use super::samples::Samples;
use super::terminal::Terminal;
use crate::archive::Archive;
use crate::encode::{Budget, Comparison, Originals, Quality, compare, open};

/// Samples that are compared if none are listed.
const COMPARED: usize = 100;

/// Show PSNR and SSIM of an archive beside JPEG and BC1 at equal bytes
///
/// All are measured against the images as they were resized for the archive. JPEG has 4:2:0 subsampling and optimised
/// Huffman tables, and one quality for all images, between two of which figures are interpolated. BC1 (BC4 for grey) takes
/// half a byte per pixel, so with fewer bytes it is given smaller images, scaled back for the comparison.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Archive to read
    archive: PathBuf,
    /// What was encoded
    source: PathBuf,
    /// Samples to compare, such as 0,5,10-20, or `all`; a hundred from all over the archive by default
    #[arg(long)]
    samples: Option<Samples>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<Report> {
        let archive = Archive::open(&self.archive)?;
        let source = open(&self.source)?;
        let originals = Originals::new(&archive, &self.archive, source.as_ref())?;
        let count = archive.samples();
        let samples = match &self.samples {
            Some(samples) => samples.numbers(count)?,
            None => (0..COMPARED.min(count)).map(|i| i * count / COMPARED.min(count)).collect(),
        };
        let terminal = Terminal::new();
        let comparison = compare(&archive, &originals, &samples, &terminal)?;
        drop(terminal);

        let mut json = serde_json::to_value(&comparison).context("the comparison as JSON")?;
        json["name"] = json!(self.archive.display().to_string());
        json["source"] = json!(self.source.display().to_string());
        let g = archive.geometry();
        let mut text = format!(
            "{} of {count} samples of {}, {}x{}; means of all\n\n",
            samples.len(),
            self.archive.display(),
            g.image_width(),
            g.image_height()
        );
        write_table(&mut text, &comparison)?;
        Ok(Report::new(text, json, self.json))
    }
}

fn write_table(text: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let Comparison { archive, row_bytes, rivals, .. } = comparison;
    writeln!(text, "{:41} {:>12} {:>9} {:>7}", "", "bytes/image", "PSNR dB", "SSIM")?;
    for (budget, title, bytes_per_image) in [
        (Budget::File, "the file over its samples, with the codebook", archive.bytes_per_image),
        (Budget::Row, "a row, without it", *row_bytes),
    ] {
        writeln!(text, "{title}")?;
        let archive = ("the archive", "", &Quality { bytes_per_image, ..*archive });
        let rivals = rivals.iter().filter(|rival| rival.budget == budget);
        let rivals = rivals.map(|rival| (rival.codec, rival.setting.as_str(), &rival.quality));
        for (name, setting, Quality { bytes_per_image, psnr_db, ssim }) in std::iter::once(archive).chain(rivals) {
            let ssim = ssim.map_or("-".into(), |ssim| format!("{ssim:.4}"));
            writeln!(text, "  {name:12} {setting:26} {bytes_per_image:>12.0} {psnr_db:>9.2} {ssim:>7}")?;
        }
    }
    Ok(())
}
