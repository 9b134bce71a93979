//! `kuat sheet`

use std::path::PathBuf;

use anyhow::bail;
use rayon::prelude::*;
use serde_json::json;

use super::decode::write_png;
use super::samples::Samples;
use super::terminal::Terminal;
use super::{Report, not_over};
use crate::archive::Archive;
use crate::decode::Decoder;
use crate::decode::cpu::CpuDecoder;
use crate::encode::{Image, Originals, open};
use crate::geometry::Geometry;
use crate::output::OutputSpec;

/// Samples that are shown if none are listed.
const SHOWN: usize = 8;
/// Columns of a sheet, and pixels between tiles.
const COLUMNS: usize = 8;
const GAP: usize = 4;
/// Small images are magnified to about this many pixels.
const TILE: usize = 160;
/// How much differences are amplified.
const GAIN: i32 = 4;

/// Draw samples into one PNG: the originals above with --against, decoded below them, and the difference
///
/// The difference is shown four times as strong, around grey.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Archive to read
    archive: PathBuf,
    /// PNG file to write
    #[arg(short, long, value_name = "sheet.png")]
    output: PathBuf,
    /// Samples to show, such as 0,5,10-20; some from all over the archive by default
    #[arg(long)]
    samples: Option<Samples>,
    /// Show the N samples of the least PSNR, the worst first
    #[arg(long, value_name = "N", conflicts_with = "samples", value_parser = clap::value_parser!(u32).range(1..))]
    worst: Option<u32>,
    /// What was encoded, to show the originals too
    #[arg(long, value_name = "SRC")]
    against: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<Report> {
        not_over(&self.archive, &self.output)?;
        let archive = Archive::open(&self.archive)?;
        let g = *archive.geometry();
        let count = archive.samples();
        let samples = match (&self.samples, self.worst) {
            (Some(samples), _) => samples.numbers(count)?,
            (None, Some(worst)) => match archive.ledger()? {
                Some(ledger) => ledger.worst(worst as usize).iter().map(|worst| worst.sample).collect(),
                None if count == 0 => Vec::new(),
                None => bail!(
                    "{} records no PSNR to tell the worst samples by; list some with --samples",
                    self.archive.display()
                ),
            },
            (None, None) => (0..SHOWN.min(count)).map(|i| i * count / SHOWN.min(count)).collect(),
        };
        if samples.is_empty() {
            bail!("the archive has no samples to show");
        }
        let terminal = Terminal::new();
        let decoder = CpuDecoder::new(&archive)?;
        let decoded: Vec<u8> = decoder.decode(&archive.rows(samples.iter().copied())?, &OutputSpec::default())?;
        let decoded: Vec<&[u8]> = decoded.chunks_exact(g.image_len()).collect();
        let originals: Vec<Image> = match &self.against {
            Some(source) => {
                let source = open(source)?;
                let originals = Originals::new(&archive, &self.archive, source.as_ref())?;
                samples.par_iter().map(|&sample| originals.prepare(sample)).collect::<Result<_, _>>()?
            }
            None => Vec::new(),
        };
        terminal.check()?;
        let originals: Vec<&[u8]> = originals.iter().map(|image| image.pixels.as_slice()).collect();
        let differences: Vec<Vec<u8>> = originals.iter().zip(&decoded).map(|(a, b)| difference(a, b, &g)).collect();
        let differences: Vec<&[u8]> = differences.iter().map(Vec::as_slice).collect();

        let mut sheet = Sheet::new(&g, samples.len(), if originals.is_empty() { 1 } else { 3 });
        let stripes: &[&[&[u8]]] =
            if originals.is_empty() { &[&decoded] } else { &[&originals, &decoded, &differences] };
        for (stripe, images) in stripes.iter().enumerate() {
            images.iter().enumerate().for_each(|(i, pixels)| sheet.draw(i, stripe, pixels));
        }
        write_png(&self.output, &sheet.pixels, (sheet.width as u32, sheet.height as u32), g.channels())?;
        let text = format!("{} samples drawn to {}\n", samples.len(), self.output.display());
        let json = json!({ "archive": self.archive.display().to_string(), "sheet": self.output.display().to_string(), "samples": samples });
        Ok(Report::new(text, json, self.json))
    }
}

/// The amplified difference around grey; alpha stays opaque.
fn difference(a: &[u8], b: &[u8], g: &Geometry) -> Vec<u8> {
    let values = a.iter().zip(b).enumerate();
    values
        .map(|(i, (&a, &b))| match g.channels() == 4 && i % 4 == 3 {
            true => 255,
            false => (128 + GAIN * (i32::from(a) - i32::from(b))).clamp(0, 255) as u8,
        })
        .collect()
}

/// Tiles in bands of up to [`COLUMNS`] samples, each band as many stripes high as a sample has pictures.
struct Sheet {
    geometry: Geometry,
    zoom: usize,
    stripes: usize,
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Sheet {
    fn new(geometry: &Geometry, samples: usize, stripes: usize) -> Self {
        let zoom = (TILE / geometry.image_width().max(geometry.image_height())).max(1);
        let columns = samples.min(COLUMNS);
        let bands = samples.div_ceil(COLUMNS);
        let width = columns * (geometry.image_width() * zoom + GAP) + GAP;
        let height = bands * (stripes * (geometry.image_height() * zoom + GAP) + GAP) + GAP;
        let pixels = vec![255; width * height * geometry.channels()];
        Self { geometry: *geometry, zoom, stripes, width, height, pixels }
    }

    fn draw(&mut self, sample: usize, stripe: usize, image: &[u8]) {
        let g = &self.geometry;
        let (tile_width, tile_height) = (g.image_width() * self.zoom + GAP, g.image_height() * self.zoom + GAP);
        let left = GAP + sample % COLUMNS * tile_width;
        let top = GAP + sample / COLUMNS * (self.stripes * tile_height + GAP) + stripe * tile_height;
        let channels = g.channels();
        for y in 0..g.image_height() * self.zoom {
            let source = &image[y / self.zoom * g.image_row_len()..][..g.image_row_len()];
            let start = ((top + y) * self.width + left) * channels;
            let target = &mut self.pixels[start..][..g.image_row_len() * self.zoom];
            for (pixels, pixel) in target.chunks_exact_mut(channels * self.zoom).zip(source.chunks_exact(channels)) {
                pixels.chunks_exact_mut(channels).for_each(|target| target.copy_from_slice(pixel));
            }
        }
    }
}
