//! `kuat decode`

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use rayon::prelude::*;
use serde_json::json;

use super::npy;
use super::samples::Samples;
use super::terminal::Terminal;
use super::{Report, not_over};
use crate::archive::{Archive, OpenOptions};
use crate::backend::Backend;
use crate::data::Access;
use crate::decode::{Decoder, resize};
use crate::error::{Error, Result};
use crate::format::atomic::AtomicFile;
use crate::output::{Dtype, Layout, Normalization, OutputSpec};
use crate::progress::Counter;
use crate::rows::OnDamage;

/// Bytes of a batch that is decoded at a time.
const BATCH_BYTES: usize = 128 << 20;
/// Most samples of a batch.
const BATCH_MOST: usize = 256;

/// Decode samples into PNG files or a numpy array
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Archive to read
    archive: PathBuf,
    /// Samples to decode, such as 0,5,10-20, or `all`
    #[arg(long, default_value = "all")]
    samples: Samples,
    /// A folder for PNG files named by sample, or a file that ends in .npy
    #[arg(long, value_name = "DIR|FILE.npy")]
    out: PathBuf,
    /// What decodes: `auto` (the best real GPU, else the CPU), `cpu`, `gpu`
    #[arg(long, default_value = "auto")]
    backend: Backend,
    /// Part of the name of the GPU adapter to use; see `kuat devices`
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    #[command(flatten)]
    output: OutputArguments,
    /// Damaged samples: `raise` stops at the first, `skip` leaves them out, `mask` writes zeros for them
    #[arg(long, default_value = "raise", value_name = "WHAT")]
    damaged: OnDamage,
    /// How to read the archive: `map` it into memory, `read` what is needed, or `auto`: as its file system is safe for
    #[arg(long, default_value = "auto", value_name = "HOW")]
    access: Access,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Element type, layout and normalisation.
#[derive(clap::Args)]
pub(super) struct OutputArguments {
    /// Element type of an array: `u8`, `f16`, `f32` (floats are value / 255)
    #[arg(long, default_value = "u8")]
    dtype: Dtype,
    /// Axes of an array: `nhwc` or `nchw`
    #[arg(long, default_value = "nhwc")]
    layout: Layout,
    /// Normalise floats: `none` or `imagenet`
    #[arg(long, default_value = "none", value_parser = normalization, value_name = "WHAT")]
    normalize: Normalize,
}

#[derive(Clone, Copy, PartialEq)]
struct Normalize(Option<Normalization>);

fn normalization(text: &str) -> Result<Normalize, String> {
    match text {
        "none" => Ok(Normalize(None)),
        "imagenet" => Ok(Normalize(Some(Normalization::imagenet()))),
        _ => Err("expected none or imagenet".into()),
    }
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<Report> {
        not_over(&self.archive, &self.out)?;
        let archive = Archive::open_with(&self.archive, &OpenOptions { access: self.access, ..Default::default() })?;
        let mut samples = self.samples.numbers(archive.samples())?;
        let OutputArguments { dtype, layout, normalize } = self.output;
        let spec = OutputSpec { dtype, layout, normalization: normalize.0 };
        spec.check(archive.geometry())?;
        let to_npy = self.out.extension().is_some_and(|extension| extension == "npy");
        if !to_npy && spec != OutputSpec::default() {
            bail!("PNG files hold u8 pixels; write to a file that ends in .npy for {spec}");
        }
        let decoder = self.backend.decoder(&archive, self.adapter.as_deref())?;
        let terminal = Terminal::new();
        let mut damaged = Vec::new();
        if self.damaged != OnDamage::Raise {
            // Found before anything is written: an array begins with its length.
            let mut intact = Vec::new();
            for some in samples.chunks(BATCH_MOST) {
                let rows = archive.rows_with(some.iter().copied(), OnDamage::Skip)?;
                intact.extend_from_slice(rows.samples());
                damaged.extend_from_slice(rows.damaged());
                terminal.check()?;
            }
            if self.damaged == OnDamage::Skip {
                samples = intact;
            }
        }
        let on_damage = self.damaged;
        let mut job =
            Job { archive: &archive, decoder: &*decoder, samples: &samples, spec, on_damage, terminal: &terminal };
        match to_npy {
            true => job.write_npy(&self.out)?,
            false => job.write_images(&self.out)?,
        }
        drop(terminal);
        let device = decoder.device_name();
        let mut text = format!("{} samples decoded on {device} to {}\n", samples.len(), self.out.display());
        let done = if self.damaged == OnDamage::Skip { "left out" } else { "masked" };
        let lines = damaged.iter().map(|bad| format!("sample {}: {}; {done}\n", bad.sample, bad.problem));
        text.extend(lines);
        let shape = layout.shape(archive.geometry(), samples.len());
        let json = json!({
            "archive": self.archive.display().to_string(),
            "out": self.out.display().to_string(),
            "device": device,
            "samples": samples.len(),
            "dtype": dtype.name(),
            "layout": layout.name(),
            "shape": shape,
            "damaged": damaged,
        });
        Ok(Report::new(text, json, self.json))
    }
}

/// What is decoded, and with what.
struct Job<'a> {
    archive: &'a Archive,
    decoder: &'a dyn Decoder,
    samples: &'a [usize],
    spec: OutputSpec,
    on_damage: OnDamage,
    terminal: &'a Terminal,
}

impl Job<'_> {
    /// Decodes batch by batch.
    fn batches(&mut self, mut take: impl FnMut(&[usize], &[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let image = self.spec.batch_len(self.archive.geometry(), 1);
        let counter = Counter::new(self.terminal, "decoding", self.samples.len());
        let mut output = Vec::new();
        for samples in self.samples.chunks((BATCH_BYTES / image).clamp(1, BATCH_MOST)) {
            resize(&mut output, image * samples.len())?;
            let rows = self.archive.rows_with(samples.iter().copied(), self.on_damage)?;
            self.decoder.decode_bytes(&rows.slices(), &self.spec, &mut output)?;
            rows.mask(&mut output);
            take(samples, &output)?;
            counter.add(samples.len())?;
        }
        Ok(())
    }

    fn write_npy(&mut self, path: &Path) -> anyhow::Result<()> {
        let mut file = AtomicFile::create(path)?;
        let context = || format!("cannot write {}", path.display());
        let shape = self.spec.layout.shape(self.archive.geometry(), self.samples.len());
        file.write_all(&npy::header(self.spec.dtype, shape)).with_context(context)?;
        self.batches(|_, output| file.write_all(output).with_context(context))?;
        Ok(file.commit()?)
    }

    fn write_images(&mut self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
        let g = *self.archive.geometry();
        let size = (g.image_width() as u32, g.image_height() as u32);
        self.batches(|samples, output| {
            let images = samples.par_iter().zip(output.par_chunks_exact(g.image_len()));
            images.try_for_each(|(sample, pixels)| {
                write_png(&folder.join(format!("{sample:06}.png")), pixels, size, g.channels())
            })
        })
    }
}

/// Writes pixels as a PNG file.
pub(super) fn write_png(path: &Path, pixels: &[u8], size: (u32, u32), channels: usize) -> anyhow::Result<()> {
    let color = match channels {
        1 => ExtendedColorType::L8,
        3 => ExtendedColorType::Rgb8,
        _ => ExtendedColorType::Rgba8,
    };
    let mut file = AtomicFile::create(path)?;
    let written = PngEncoder::new(&mut file).write_image(pixels, size.0, size.1, color);
    written.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.commit()?)
}
