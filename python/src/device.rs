//! What decodes: the CPU, or a GPU by name or number.

use kuat::gpu::Select;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::json::to_python;
use crate::process::Process;

/// What a caller may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Device {
    /// The best real GPU, or the CPU where there is none.
    Auto,
    Cpu,
    Gpu(Select),
}

impl<'py> FromPyObject<'_, 'py> for Device {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(name) = value.extract::<String>() {
            return match name.as_str() {
                "" => Err(PyValueError::new_err("device is empty, expected \"auto\", \"cpu\", \"gpu\" or a name")),
                "auto" => Ok(Device::Auto),
                "cpu" => Ok(Device::Cpu),
                "gpu" => Ok(Device::Gpu(Select::Best)),
                _ => Ok(Device::Gpu(Select::Named(name))),
            };
        }
        match value.extract::<usize>() {
            Ok(index) if !value.is_instance_of::<PyBool>() => Ok(Device::Gpu(Select::Index(index))),
            _ => Err(PyTypeError::new_err(format!(
                "device is {}, expected \"auto\", \"cpu\", \"gpu\", or an adapter's name or number in kuat.devices()",
                value.repr()?
            ))),
        }
    }
}

/// The GPU adapters of this machine, best first, as dicts with the keys of `kuat devices --json` and "index", the
/// number that `device=` takes. Software adapters are used only when asked for by name or number.
#[pyfunction]
pub(crate) fn devices(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let adapters = py.detach(|| Process::current().adapters());
    let list = to_python(py, &adapters)?;
    for (index, adapter) in list.try_iter()?.enumerate() {
        adapter?.set_item("index", index)?;
    }
    Ok(list)
}
