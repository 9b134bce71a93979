//! `kuat verify`

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use super::terminal::Terminal;
use super::{DAMAGED, Report};
use crate::archive::Archive;
use crate::encode::{AgainstReport, open, verify_against};

/// Most damaged samples that are listed for people; JSON has them all.
const LISTED: usize = 20;

/// Check every byte of an archive, and with --against every pixel; exit status 1 if something is wrong
///
/// With --against every image is read and resized again as the archive says it was, and compared: the number of samples,
/// their labels and captions, the bound on differences that the archive promises and the PSNR that it records.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Archive to check
    archive: PathBuf,
    /// What was encoded, to compare with
    #[arg(long, value_name = "SRC")]
    against: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<Report> {
        let name = self.archive.display();
        let terminal = Terminal::new();
        let (archive, report) = match Archive::open(&self.archive) {
            Ok(archive) => {
                let report = archive.verify(&terminal)?;
                (archive, report)
            }
            Err(error) if error.is_invalid_archive() => {
                let problem = error.with_causes();
                let json = json!({
                    "archive": self.archive.display().to_string(),
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
        // What a damaged archive decodes to tells nothing more.
        let against = match &self.against {
            Some(source) if report.is_ok() => {
                Some(verify_against(&archive, &self.archive, open(source)?.as_ref(), &terminal)?)
            }
            _ => None,
        };
        drop(terminal);
        let ok = report.is_ok() && against.as_ref().is_none_or(AgainstReport::is_ok);

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
        if let (Some(against), Some(source)) = (&against, &self.against) {
            write_against(&mut text, against, source)?;
        }

        let mut json = serde_json::to_value(&report).context("the report as JSON")?;
        json["archive"] = json!(self.archive.display().to_string());
        json["ok"] = json!(ok);
        if self.against.is_some() {
            json["against"] = json!(against);
        }
        let status = if ok { 0 } else { DAMAGED };
        Ok(Report { status, ..Report::new(text, json, self.json) })
    }
}

fn write_against(text: &mut String, report: &AgainstReport, source: &Path) -> std::fmt::Result {
    let verdict = if report.is_ok() { "the archive is what it says" } else { "DIFFERENT" };
    writeln!(text, "against {}: {verdict}", source.display())?;
    if let Some(mean) = report.mean_psnr_db {
        let promised = report.max_error.map(|bound| format!(", at most {bound} promised")).unwrap_or_default();
        writeln!(text, "mean PSNR         {mean:.2} dB, {} of {} samples exact", report.exact_samples, report.samples)?;
        writeln!(text, "largest error     {} of 255{promised}", report.max_difference)?;
    }
    report.problems.iter().try_for_each(|problem| writeln!(text, "{problem}"))?;
    for bad in report.bad_samples.iter().take(LISTED) {
        writeln!(text, "sample {} ({}): {}", bad.sample, bad.name, bad.problem)?;
    }
    if report.bad_samples.len() > LISTED {
        writeln!(text, "and {} more problems; --json lists all", report.bad_samples.len() - LISTED)?;
    }
    report.unchecked.iter().try_for_each(|part| writeln!(text, "not checked: {part}"))
}
