//! How images become an archive, as Python says it.

use kuat::encode::{Codebook, EncodeOptions};
use numpy::{PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::raise;

/// What Python says of codewords.
#[derive(FromPyObject)]
enum GivenCodebook<'py> {
    /// How many may be trained.
    Codewords(usize),
    /// Which ones they are: C-contiguous, codewords x patch height x patch width x channels.
    Array(PyReadonlyArrayDyn<'py, u8>),
}

/// Checked options of an encoding.
#[pyclass(frozen, module = "kuat._kuat")]
pub(crate) struct Options(pub EncodeOptions);

#[pymethods]
impl Options {
    #[new]
    #[pyo3(signature = (*, size, patch, codebook, max_error, channels, fit, seed, on_error))]
    #[expect(clippy::too_many_arguments, reason = "all are named where it is called")]
    fn new(
        size: (u32, u32),
        patch: (u32, u32),
        codebook: GivenCodebook<'_>,
        max_error: Option<u8>,
        channels: u32,
        fit: &str,
        seed: u64,
        on_error: &str,
    ) -> PyResult<Self> {
        let codebook = match codebook {
            GivenCodebook::Codewords(codewords) => max_error.map_or(Codebook::Train(codewords), Codebook::MaxError),
            GivenCodebook::Array(array) => {
                let expected = [patch.1, patch.0, channels].map(|side| side as usize);
                if array.shape().get(1..) != Some(&expected) {
                    let (found, [height, width, channels]) = (array.shape(), expected);
                    return Err(PyValueError::new_err(format!(
                        "codebook has the shape {found:?}, expected [any, {height}, {width}, {channels}] for these \
                         patches and channels"
                    )));
                }
                Codebook::Given(array.as_slice()?.to_vec())
            }
        };
        let options = EncodeOptions {
            image_size: size,
            channels,
            patch,
            codebook,
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
