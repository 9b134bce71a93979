//! `kuat bench`

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::bail;
use serde_json::json;

use super::Report;
use super::terminal::Terminal;
use crate::archive::Archive;
use crate::backend::Backend;
use crate::bench::{BenchOptions, BenchRow, bench, usual_outputs};
use crate::gpu::{AdapterKind, Select, adapters};
use crate::output::{Dtype, Layout, Normalization};

/// Measure decoding beside what limits it; every output is checked first
///
/// Without --dtype and --layout: u8 NHWC as stored, and f32 NCHW normalised.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Archive to decode
    archive: PathBuf,
    /// What to measure: `auto` (the CPU, and the best real GPU if there is one), `cpu`, `gpu`
    #[arg(long, default_value = "auto")]
    backend: Backend,
    /// Part of the name of a GPU adapter to measure; may be given more than once
    #[arg(long, value_name = "NAME")]
    adapter: Vec<String>,
    /// Images per batch; several with commas
    #[arg(long, value_delimiter = ',', default_value = "64,256", value_name = "B",
        value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: Vec<u32>,
    /// Element types; several with commas
    #[arg(long, value_delimiter = ',')]
    dtype: Vec<Dtype>,
    /// Layouts; several with commas
    #[arg(long, value_delimiter = ',')]
    layout: Vec<Layout>,
    /// Timed runs of each row, of which the median counts
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<Report> {
        let archive = Archive::open(&self.archive)?;
        let real = || adapters().iter().any(|adapter| adapter.kind != AdapterKind::Software);
        let gpus = match (self.backend, self.adapter.is_empty()) {
            (Backend::Cpu, true) => Vec::new(),
            (Backend::Cpu, false) => bail!("--adapter names a GPU, but the backend is cpu"),
            (Backend::Auto, true) if !real() => Vec::new(),
            (_, true) => vec![Select::Best],
            (_, false) => self.adapter.iter().cloned().map(Select::Named).collect(),
        };
        let channels = archive.geometry().channels();
        let mut outputs = usual_outputs(channels);
        if !self.dtype.is_empty() || !self.layout.is_empty() {
            let dtypes = if self.dtype.is_empty() { vec![Dtype::U8] } else { self.dtype };
            let layouts = if self.layout.is_empty() { vec![Layout::Nhwc] } else { self.layout };
            let spec = |dtype, layout| {
                let normalized = dtype != Dtype::U8 && channels == 3;
                let normalization = normalized.then(Normalization::imagenet);
                crate::output::OutputSpec { dtype, layout, normalization }
            };
            outputs = dtypes.iter().flat_map(|&d| layouts.iter().map(move |&l| spec(d, l))).collect();
        }
        let options = BenchOptions {
            cpu: self.backend != Backend::Gpu,
            gpus,
            batches: self.batch.iter().map(|&batch| batch as usize).collect(),
            outputs,
            runs: self.runs.into(),
        };
        let terminal = Terminal::new();
        let rows = bench(&archive, &options, &terminal)?;
        drop(terminal);
        let g = archive.geometry();
        let mut text = format!(
            "{}: {}x{}, {}, {} threads\n",
            self.archive.display(),
            g.image_width(),
            g.image_height(),
            archive.vq().map_or_else(|_| archive.codec().to_string(), |vq| format!("{} codewords", vq.codewords())),
            rayon::current_num_threads()
        );
        table(&mut text, &rows)?;
        let json = json!({ "archive": self.archive.display().to_string(), "threads": rayon::current_num_threads(), "rows": rows });
        Ok(Report::new(text, json, self.json))
    }
}

fn table(text: &mut String, rows: &[BenchRow]) -> std::fmt::Result {
    let mut rows: Vec<&BenchRow> = rows.iter().collect();
    rows.sort_by_key(|row| row.adapter.as_deref());
    let mut device = None;
    for row in rows {
        let name = row.adapter.as_deref().unwrap_or("cpu");
        if device != Some(name) {
            writeln!(text, "\n{name}")?;
            writeln!(
                text,
                "  {:9} {:16} {:>5} {:>11} {:>8}  {:10} {:>8} {:>6}",
                "stage", "output", "batch", "images/s", "GB/s", "limit", "GB/s", "ratio"
            )?;
            device = Some(name);
        }
        let output = format!("{} {}{}", row.dtype, row.layout, if row.normalized { " norm." } else { "" });
        writeln!(
            text,
            "  {:9} {output:16} {:>5} {:>11.0} {:>8.2}  {:10} {:>8.2} {:>6.2}",
            row.stage,
            row.batch,
            row.images_per_s,
            row.bytes_per_s / 1e9,
            row.limit,
            row.limit_bytes_per_s / 1e9,
            row.ratio
        )?;
    }
    Ok(())
}
