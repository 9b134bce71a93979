//! The native half of kuat's Python package; `kuat/` is the other. A file per noun.

mod encode;
mod error;
mod options;
mod picture;
mod process;
mod progress;
mod writer;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _kuat {
    use super::*;

    #[pymodule_export]
    use super::encode::{encode_folder, encode_source};
    #[pymodule_export]
    use super::error::Error;
    #[pymodule_export]
    use super::options::Options;
    #[pymodule_export]
    use super::process::set_num_threads;
    #[pymodule_export]
    use super::writer::ArchiveWriter;

    /// Whether the module was built without optimisation.
    #[pymodule_export]
    const UNOPTIMIZED: bool = cfg!(debug_assertions);

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
