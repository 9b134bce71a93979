//! `kuat verify`

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use super::terminal::Terminal;
use super::{DAMAGED, Report};
use crate::archive::Archive;

/// Most damaged samples that are listed for people; JSON has them all.
const LISTED: usize = 20;

/// Check every byte of an archive; exit status 1 if it is damaged
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Archive to check
    archive: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<Report> {
        let name = self.archive.display();
        let terminal = Terminal::new();
        let report = match Archive::open(&self.archive) {
            Ok(archive) => archive.verify(&terminal)?,
            Err(error) if error.is_invalid_archive() => {
                let problem = error.with_causes();
                let json = json!({
                    "archive": self.archive,
                    "ok": false,
                    "samples": null,
                    "problems": [problem],
                    "bad_samples": [],
                    "unchecked": ["everything behind the header"],
                });
                let text = format!("{name}: DAMAGED\n{problem}\n");
                return Ok(Report { status: DAMAGED, ..Report::new(text, json, self.json) });
            }
            Err(error) => return Err(error.into()),
        };
        drop(terminal);

        let mut text = String::new();
        writeln!(text, "{name}: {}, {} samples", if report.is_ok() { "OK" } else { "DAMAGED" }, report.samples)?;
        report.problems.iter().try_for_each(|problem| writeln!(text, "{problem}"))?;
        for bad in report.bad_samples.iter().take(LISTED) {
            writeln!(text, "sample {}: {}", bad.sample, bad.problem)?;
        }
        if report.bad_samples.len() > LISTED {
            writeln!(text, "and {} more samples; --json lists all", report.bad_samples.len() - LISTED)?;
        }
        report.unchecked.iter().try_for_each(|part| writeln!(text, "not checked: {part}"))?;

        let mut json = serde_json::to_value(&report).context("the report as JSON")?;
        json["archive"] = json!(self.archive);
        json["ok"] = json!(report.is_ok());
        let status = if report.is_ok() { 0 } else { DAMAGED };
        Ok(Report { status, ..Report::new(text, json, self.json) })
    }
}
