//! Which samples a caller means.

use pyo3::exceptions::{PyIndexError, PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyList, PySlice, PyString, PyTuple};

/// The numbers of a list, tuple, range, slice, or one-dimensional array or tensor of integers; negative ones count
/// from the end.
pub(crate) fn samples(ids: &Bound<'_, PyAny>, len: usize) -> PyResult<Vec<usize>> {
    if let Ok(slice) = ids.cast::<PySlice>() {
        let found = slice.indices(len as isize)?;
        return Ok((0..found.slicelength as isize).map(|i| (found.start + i * found.step) as usize).collect());
    }
    let not_samples = || {
        let found = type_name(ids);
        PyTypeError::new_err(format!(
            "samples are given as {found}, expected a slice, or a list or one-dimensional array of integers"
        ))
    };
    let mask = || PyTypeError::new_err("a mask of booleans does not name samples; use its nonzero()");
    let is_array = ids.hasattr("dtype")?;
    if is_array && ids.getattr("dtype")?.str()?.to_string_lossy().contains("bool") {
        return Err(mask());
    }
    if ids.is_instance_of::<PyString>() || ids.is_instance_of::<PyBytes>() {
        return Err(not_samples());
    }
    let numbers = if is_array { ids.call_method0("tolist")? } else { ids.clone() };
    let is_bool = |item: Bound<'_, PyAny>| item.is_instance_of::<PyBool>();
    let has_bools = match (numbers.cast::<PyList>(), numbers.cast::<PyTuple>()) {
        (Ok(list), _) => list.iter().any(is_bool),
        (_, Ok(tuple)) => tuple.iter().any(is_bool),
        _ => false,
    };
    if has_bools {
        return Err(mask());
    }
    let numbers: Vec<i64> = match numbers.extract() {
        Ok(numbers) => numbers,
        // Not a sequence of integers, but perhaps an iterable; an error of the caller's own code comes out as it is.
        Err(_) => {
            let items = numbers.try_iter().map_err(|_| not_samples())?;
            items.map(|item| number(&item?, len)).collect::<PyResult<_>>()?
        }
    };
    numbers.into_iter().map(|number| sample(number, len)).collect()
}

fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().fully_qualified_name().map_or_else(|_| "?".into(), |name| name.to_string())
}

/// The number that an item stands for.
fn number(item: &Bound<'_, PyAny>, len: usize) -> PyResult<i64> {
    if item.is_instance_of::<PyBool>() {
        return Err(PyTypeError::new_err("a sample is given as bool, expected an integer"));
    }
    item.extract().map_err(|error: PyErr| match error.is_instance_of::<PyOverflowError>(item.py()) {
        true => PyIndexError::new_err(format!("sample {item} does not exist: the archive has {len} samples")),
        false => PyTypeError::new_err(format!("a sample is given as {}, expected an integer", type_name(item))),
    })
}

/// The sample of one number; negative ones count from the end.
pub(crate) fn one(id: &Bound<'_, PyAny>, len: usize) -> PyResult<usize> {
    sample(number(id, len)?, len)
}

fn sample(number: i64, len: usize) -> PyResult<usize> {
    let from_start = if number < 0 { number.checked_add_unsigned(len as u64) } else { Some(number) };
    let found = from_start.and_then(|number| usize::try_from(number).ok()).filter(|&number| number < len);
    found.ok_or_else(|| {
        PyIndexError::new_err(format!(
            "sample {number} does not exist: the archive has {len} samples, numbered from 0 or, backwards, from -1"
        ))
    })
}
