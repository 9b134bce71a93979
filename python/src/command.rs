//! The `kuat` command.

use std::ffi::OsString;

use pyo3::prelude::*;

/// Runs the command with the arguments of a process, the program's name first, and returns the exit status.
#[pyfunction]
pub(crate) fn run_command(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| kuat::cli::run(arguments))
}
