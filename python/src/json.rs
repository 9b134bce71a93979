//! Values of the library's as Python's dicts and lists.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use serde::Serialize;

/// What `json.loads` makes of a value.
pub(crate) fn to_python<'py>(py: Python<'py>, value: &impl Serialize) -> PyResult<Bound<'py, PyAny>> {
    let failed = |error: serde_json::Error| PyRuntimeError::new_err(format!("cannot convert to Python: {error}"));
    let text = serde_json::to_string(value).map_err(failed)?;
    py.import("json")?.call_method1("loads", (text,))
}
