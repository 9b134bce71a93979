//! The native half of kuat's Python package; `kuat/` is the other. A file per noun.

mod archive;
mod batch;
mod batches;
mod command;
mod device;
mod dlpack;
mod encode;
mod error;
mod json;
mod memory;
mod opened;
mod options;
mod output;
mod picture;
mod process;
mod progress;
mod samples;
mod target;
mod unsigned;
mod writer;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _kuat {
    use super::*;

    #[pymodule_export]
    use super::archive::KuatArchive;
    #[pymodule_export]
    use super::batch::Batch;
    #[pymodule_export]
    use super::batches::Batches;
    #[pymodule_export]
    use super::command::run_command;
    #[pymodule_export]
    use super::device::devices;
    #[pymodule_export]
    use super::encode::{encode_path, encode_source};
    #[pymodule_export]
    use super::error::{DamageWarning, Error};
    #[pymodule_export]
    use super::memory::live_memory;
    #[pymodule_export]
    use super::options::Options;
    #[pymodule_export]
    use super::process::{end_process, set_num_threads, suggest_num_threads};
    #[pymodule_export]
    use super::writer::ArchiveWriter;

    /// Whether the module was built without optimisation.
    #[pymodule_export]
    const UNOPTIMIZED: bool = cfg!(debug_assertions);

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.py().import("atexit")?.call_method1("register", (module.getattr("end_process")?,))?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
