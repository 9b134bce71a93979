//! Numbers that are not negative.

use std::any::type_name;

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;

/// An unsigned integer; other integers are a ValueError rather than the OverflowError that PyO3 makes of them.
#[derive(Clone, Copy, Default)]
pub(crate) struct Unsigned<T>(pub T);

impl<'py, T: for<'a> FromPyObject<'a, 'py, Error = PyErr>> FromPyObject<'_, 'py> for Unsigned<T> {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        value.extract().map(Self).map_err(|error: PyErr| match error.is_instance_of::<PyOverflowError>(value.py()) {
            true => {
                PyValueError::new_err(format!("found {}, expected a number that fits {}", &*value, type_name::<T>()))
            }
            false => error,
        })
    }
}
