//! The `kuat` command: a file per subcommand, each turning arguments into calls of the library and the answer into
//! a `Report`. Nothing here is needed to use the library.

mod bench;
mod compare;
mod decode;
mod devices;
mod encode;
mod info;
mod npy;
mod samples;
mod sheet;
mod terminal;
mod verify;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::Path;

use clap::{Parser, Subcommand};

use crate::error::{Error, one_line};
use crate::format::atomic::is_same;

/// Exit status of a verification that found damage.
const DAMAGED: u8 = 1;
/// Exit status for bad usage or input.
const FAILED: u8 = 2;
/// Exit status after Ctrl-C, as shells report it.
const INTERRUPTED: u8 = 130;

/// Image data sets as vector-quantised archives, decoded by a gather on any CPU or GPU.
#[derive(Parser)]
#[command(name = "kuat", version, arg_required_else_help = true)]
struct Arguments {
    /// Threads to use; all cores by default
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Encode(encode::Arguments),
    Info(info::Arguments),
    Verify(verify::Arguments),
    Decode(decode::Arguments),
    Sheet(sheet::Arguments),
    Compare(compare::Arguments),
    Bench(bench::Arguments),
    Devices(devices::Arguments),
}

/// What a subcommand has to say: for people or, with `--json`, for programs.
struct Report {
    text: String,
    json: Option<serde_json::Value>,
    status: u8,
}

impl Report {
    fn new(text: String, json: serde_json::Value, wants_json: bool) -> Self {
        Self { text, json: wants_json.then_some(json), status: 0 }
    }
}

/// Runs the command with the arguments of a process, the program's name first. Returns the exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) if !error.use_stderr() => {
            let text = error.render();
            let text = if std::io::stdout().is_terminal() { text.ansi().to_string() } else { text.to_string() };
            // Nothing can be done about help that cannot be written.
            let _ = print(&text);
            return 0;
        }
        Err(error) => {
            let text = error.render().to_string();
            match error.kind() {
                clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => complain(&text),
                // Clap's first paragraph is the problem, the rest is usage.
                _ => {
                    let problem = text.split("\n\n").next().unwrap_or_default();
                    let line = problem.split_whitespace().collect::<Vec<_>>().join(" ");
                    complain(&format!("kuat: {line}; see `kuat --help`"));
                }
            }
            return FAILED;
        }
    };
    if let Some(threads) = arguments.threads {
        // A pool that exists already, as in a process that calls this twice, stays as it is.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global();
        if pool.is_err() && rayon::current_num_threads() != usize::from(threads) {
            complain(&format!("kuat: error: cannot start {threads} threads"));
            return FAILED;
        }
    }
    let result = match arguments.command {
        Command::Encode(arguments) => arguments.run(),
        Command::Info(arguments) => arguments.run(),
        Command::Verify(arguments) => arguments.run(),
        Command::Decode(arguments) => arguments.run(),
        Command::Sheet(arguments) => arguments.run(),
        Command::Compare(arguments) => arguments.run(),
        Command::Bench(arguments) => arguments.run(),
        Command::Devices(arguments) => arguments.run(),
    };
    match result {
        Ok(report) => match print(&report.json.map_or_else(|| visible(&report.text), |json| as_json(&json))) {
            Ok(()) => report.status,
            Err(error) => {
                complain(&format!("kuat: error: cannot write to standard output: {error}"));
                FAILED
            }
        },
        Err(error) => {
            complain(&format!("kuat: error: {}", visible(&one_line(error.chain()))));
            match error.downcast_ref::<Error>() {
                Some(Error::Interrupted) => INTERRUPTED,
                _ => FAILED,
            }
        }
    }
}

/// Whether a character does something to a terminal: controls, and marks that turn the direction of writing.
fn is_active(c: char) -> bool {
    c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text in which what files say can do nothing to a terminal.
fn visible(text: &str) -> String {
    let escaped = |c: char| if is_active(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// Words of a file, for one line.
fn in_line(text: &str) -> String {
    visible(&text.replace('\n', " "))
}

/// JSON over several lines; such characters are only in its strings, where they are escaped.
fn as_json(value: &serde_json::Value) -> String {
    let escaped = |c: char| if is_active(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    let mut text: String = format!("{value:#}").chars().map(escaped).collect();
    text.push('\n');
    text
}

/// Sees to it that what is read is not replaced by what is made of it.
fn not_over(input: &Path, output: &Path) -> anyhow::Result<()> {
    if is_same(input, output) {
        anyhow::bail!("the output {} is the archive that is read; write to another file", output.display());
    }
    Ok(())
}

/// Writes to standard output. A reader that has gone away, as `head` does, is no error.
fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
