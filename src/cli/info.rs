//! `kuat info`

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::json;

use super::Report;
use crate::archive::Archive;

/// Show what an archive holds; reads its header alone
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Archive to read
    archive: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<Report> {
        let archive = Archive::open(&self.archive)?;
        let g = archive.geometry();
        let size = [g.image_width(), g.image_height()];
        let patch = [g.patch_width(), g.patch_height()];
        let grid = [g.grid_width(), g.grid_height()];
        let encoder = archive.metadata().get("encoder");
        let has = |tensor: &str| archive.tensors().any(|(name, _, _)| name == tensor);

        let mut text = String::new();
        writeln!(text, "samples           {}", archive.samples())?;
        writeln!(text, "images            {}x{}, {} channels", size[0], size[1], g.channels())?;
        writeln!(text, "patches           {}x{} pixels, {}x{} per image", patch[0], patch[1], grid[0], grid[1])?;
        writeln!(text, "codebook          {} codewords", archive.codewords())?;
        writeln!(text, "indices           {} bits", archive.index_width().bits())?;
        writeln!(text, "bytes per image   {}, {} as pixels", archive.row_len(), g.image_len())?;
        writeln!(text, "file              {} bytes", archive.file_len())?;
        if let Some(psnr) = archive.mean_psnr_db() {
            writeln!(text, "mean PSNR         {psnr:.2} dB")?;
        }
        if let Some(classes) = archive.classes() {
            let first = classes.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if classes.len() > 5 { ", ..." } else { "" };
            writeln!(text, "classes           {}: {first}{more}", classes.len())?;
        }
        let yes_no = |present| if present { "yes" } else { "no" };
        writeln!(text, "labels            {}", yes_no(has("labels")))?;
        writeln!(text, "captions          {}", yes_no(has("captions.offsets")))?;
        writeln!(text, "checksums         {}", yes_no(has("checksums")))?;
        if let Some(encoder) = encoder {
            writeln!(text, "encoder           {encoder}")?;
        }

        let tensors =
            archive.tensors().map(|(name, dtype, shape)| (name.to_string(), json!({ "dtype": dtype, "shape": shape })));
        let json = json!({
            "archive": self.archive,
            "samples": archive.samples(),
            "image_width": size[0],
            "image_height": size[1],
            "channels": g.channels(),
            "patch_width": patch[0],
            "patch_height": patch[1],
            "grid_width": grid[0],
            "grid_height": grid[1],
            "codewords": archive.codewords(),
            "index_bits": archive.index_width().bits(),
            "bytes_per_image": archive.row_len(),
            "file_len": archive.file_len(),
            "mean_psnr_db": archive.mean_psnr_db(),
            "classes": archive.classes(),
            "encoder": encoder,
            "labels": has("labels"),
            "captions": has("captions.offsets"),
            "checksums": has("checksums"),
            "metadata": archive.metadata(),
            "tensors": serde_json::Map::from_iter(tensors),
        });
        Ok(Report::new(text, json, self.json))
    }
}
