//! Decoded images as an object of their own, for whoever takes arrays by DLPack or the array interface.

use std::sync::Arc;

use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};

use crate::dlpack;
use crate::error::raise;
use crate::memory::Memory;

/// Images in host memory, which any library that reads DLPack takes without a copy: `numpy.from_dlpack(batch)`,
/// `torch.from_dlpack(batch)`, `jax.dlpack.from_dlpack(batch)`. The memory returns to a pool once neither the batch nor
/// an array made of it is in use.
#[pyclass(frozen, module = "kuat")]
pub(crate) struct Batch {
    pub memory: Arc<Memory>,
    /// What decoded it: "cpu", or the adapter's name and API.
    #[pyo3(get)]
    pub device: String,
    /// Places in the batch of images that are zeros because their samples are damaged.
    #[pyo3(get)]
    pub masked: Vec<usize>,
}

#[pymethods]
impl Batch {
    /// (batch, height, width, channels) or (batch, channels, height, width).
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.memory.shape)
    }

    /// numpy's dtype of the values: uint8, float16 or float32.
    #[getter]
    fn dtype<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("numpy")?.call_method1("dtype", (self.memory.element.name(),))
    }

    /// Bytes of the whole batch.
    #[getter]
    fn nbytes(&self) -> usize {
        self.memory.len()
    }

    fn __len__(&self) -> usize {
        self.memory.shape.first().copied().unwrap_or_default()
    }

    fn __repr__(&self) -> String {
        let shape: Vec<String> = self.memory.shape.iter().map(usize::to_string).collect();
        format!("Batch(shape=({}), dtype={}, device={:?})", shape.join(", "), self.memory.element.name(), self.device)
    }

    /// The batch as a numpy array: a view, no copy.
    pub fn numpy(slf: Bound<'_, Self>) -> Bound<'_, PyAny> {
        let memory = Arc::clone(&slf.get().memory);
        memory.numpy(slf.into_any())
    }

    /// For `numpy.asarray(batch)`.
    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(
        slf: Bound<'py, Self>,
        dtype: Option<Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let array = Self::numpy(slf);
        let wanted = match dtype {
            Some(dtype) => array.py().import("numpy")?.call_method1("dtype", (dtype,))?,
            None => array.getattr("dtype")?,
        };
        if array.getattr("dtype")?.eq(&wanted)? {
            return if copy == Some(true) { array.call_method0("copy") } else { Ok(array) };
        }
        if copy == Some(false) {
            return Err(PyValueError::new_err(format!("an array of {wanted} cannot be made without a copy")));
        }
        array.call_method1("astype", (wanted,))
    }

    /// Where the data is: (1, 0), host memory.
    fn __dlpack_device__(&self) -> (i32, i32) {
        dlpack::CPU
    }

    /// The data as a DLPack capsule: versioned for consumers that know version 1, else as before it.
    ///
    /// `stream` must be None and `dl_device` (1, 0) or None: the data is in host memory. `copy=True` copies.
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        if let Some(stream) = stream {
            return Err(PyBufferError::new_err(format!("stream is {stream}, expected None for data in host memory")));
        }
        if let Some((kind, number)) = dl_device.filter(|&device| device != dlpack::CPU) {
            return Err(PyBufferError::new_err(format!(
                "the batch is in host memory, (1, 0), and cannot be exported to device ({kind}, {number})"
            )));
        }
        let copied = copy == Some(true);
        let memory = match copied {
            true => py.detach(|| self.memory.copied()).map_err(raise)?,
            false => Arc::clone(&self.memory),
        };
        match max_version {
            Some((major, _)) if major >= 1 => dlpack::versioned(py, memory, copied),
            _ => dlpack::unversioned(py, memory),
        }
    }
}
