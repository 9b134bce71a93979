//! How images become an archive, as Python says it.

use kuat::encode::EncodeOptions;
use pyo3::prelude::*;

use crate::error::raise;

/// Checked options of an encoding.
#[pyclass(frozen, module = "kuat._kuat")]
pub(crate) struct Options(pub EncodeOptions);

#[pymethods]
impl Options {
    #[new]
    #[pyo3(signature = (*, size, patch, codebook, channels, fit, seed, on_error))]
    fn new(
        size: (u32, u32),
        patch: (u32, u32),
        codebook: usize,
        channels: u32,
        fit: &str,
        seed: u64,
        on_error: &str,
    ) -> PyResult<Self> {
        let options = EncodeOptions {
            image_size: size,
            channels,
            patch,
            codewords: codebook,
            fit: fit.parse().map_err(raise)?,
            seed,
            on_error: on_error.parse().map_err(raise)?,
        };
        options.geometry().map_err(raise)?;
        Ok(Self(options))
    }

    #[getter]
    fn channels(&self) -> u32 {
        self.0.channels
    }

    #[getter]
    fn on_error(&self) -> &'static str {
        self.0.on_error.name()
    }
}
