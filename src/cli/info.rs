//! `kuat info`

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use super::{Report, in_line};
use crate::archive::Archive;
use crate::format::codec::Codec;
use crate::ledger::Bar;

/// Characters of a histogram's longest bar.
const LONGEST: usize = 40;

/// Show what an archive holds, and how well; reads its header and, where it is recorded, the PSNR of each sample
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
        let (info, ledger) = (archive.info(), archive.ledger()?.map(|ledger| ledger.summary()));
        let pixels = info.image_width * info.image_height * info.channels;

        let mut text = String::new();
        writeln!(text, "samples           {}", info.samples)?;
        writeln!(text, "images            {}x{}, {} channels", info.image_width, info.image_height, info.channels)?;
        writeln!(
            text,
            "{:<18}{}x{} pixels, {}x{} per image",
            if info.codec == Codec::Vq { "patches" } else { "blocks" },
            info.patch_width,
            info.patch_height,
            info.grid_width,
            info.grid_height
        )?;
        writeln!(text, "codec             {}", info.codec)?;
        if let Some(rate) = info.metadata.get("rate") {
            writeln!(text, "rate              {}", in_line(rate))?;
        }
        writeln!(text, "codebook          {} codewords in {} bytes", info.codewords, info.codebook_bytes)?;
        writeln!(text, "indices           {} bits", info.index_bits)?;
        writeln!(text, "bytes per image   {:.0}, {pixels} as pixels", info.bytes_per_image)?;
        writeln!(text, "file              {} bytes", info.file_len)?;
        if let Some(psnr) = info.mean_psnr_db {
            writeln!(text, "mean PSNR         {psnr:.2} dB")?;
        }
        if let Some(ledger) = &ledger {
            writeln!(text, "1st percentile    {:.2} dB", ledger.first_percentile_db)?;
            let worst: Vec<_> = ledger.worst.iter().map(|w| format!("{} ({:.2} dB)", w.sample, w.psnr_db)).collect();
            writeln!(text, "worst samples     {}", worst.join(", "))?;
            write_histogram(&mut text, &ledger.histogram)?;
        }
        if let Some(max_error) = info.max_error {
            writeln!(text, "greatest error    {max_error} of 255")?;
        }
        if let Some(classes) = &info.classes {
            let first = classes.iter().take(5).map(|name| in_line(name)).collect::<Vec<_>>().join(", ");
            let more = if classes.len() > 5 { ", ..." } else { "" };
            writeln!(text, "classes           {}: {first}{more}", classes.len())?;
        }
        let yes_no = |present| if present { "yes" } else { "no" };
        writeln!(text, "labels            {}", yes_no(info.labels))?;
        writeln!(text, "captions          {}", yes_no(info.captions))?;
        writeln!(text, "checksums         {}", yes_no(info.checksums))?;
        if let Some(encoder) = &info.encoder {
            writeln!(text, "encoder           {}", in_line(encoder))?;
        }

        let mut json = serde_json::to_value(&info).context("the description as JSON")?;
        json["ledger"] = json!(ledger);
        json["archive"] = json!(self.archive.display().to_string());
        Ok(Report::new(text, json, self.json))
    }
}

/// A line per bar: its bounds, the bar, its samples.
fn write_histogram(text: &mut String, bars: &[Bar]) -> std::fmt::Result {
    let most = bars.iter().map(|bar| bar.samples).max().unwrap_or_default().max(1);
    for (i, bar) in bars.iter().enumerate() {
        let title = if i == 0 { "PSNR in dB" } else { "" };
        let bounds = format!("{} to {}", bar.from_db, bar.to_db);
        // No bar that holds something is without length.
        let length = (bar.samples * LONGEST).div_ceil(most);
        writeln!(text, "{title:<17} {bounds:>14}  {:<LONGEST$}  {}", "#".repeat(length), bar.samples)?;
    }
    Ok(())
}
