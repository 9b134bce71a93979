//! Which samples a caller means.

use pyo3::exceptions::{PyIndexError, PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PySlice;

/// The numbers of a list, tuple, range, slice, or one-dimensional array or tensor of integers; negative ones count
/// from the end.
pub(crate) fn samples(ids: &Bound<'_, PyAny>, len: usize) -> PyResult<Vec<usize>> {
    if let Ok(slice) = ids.cast::<PySlice>() {
        let found = slice.indices(len as isize)?;
        return Ok((0..found.slicelength as isize).map(|i| (found.start + i * found.step) as usize).collect());
    }
    let not_samples = |_| {
        let found = ids.get_type().fully_qualified_name().map_or_else(|_| "?".into(), |name| name.to_string());
        PyTypeError::new_err(format!(
            "samples are given as {found}, expected a slice, or a list or one-dimensional array of integers"
        ))
    };
    let is_array = ids.hasattr("dtype")?;
    if is_array && ids.getattr("dtype")?.str()?.to_string_lossy().contains("bool") {
        return Err(PyTypeError::new_err("a mask of booleans does not name samples; use its nonzero()"));
    }
    let numbers = if is_array { ids.call_method0("tolist")? } else { ids.clone() };
    let numbers: Vec<i64> = match numbers.extract() {
        Ok(numbers) => numbers,
        Err(error) if error.is_instance_of::<PyOverflowError>(ids.py()) => {
            return Err(PyIndexError::new_err(format!(
                "a sample's number is too large: the archive has {len} samples"
            )));
        }
        // Not a sequence, but perhaps an iterable; an error of the caller's own code comes out as it is.
        Err(_) => {
            let items = numbers.try_iter().map_err(not_samples)?;
            items.map(|item| item?.extract::<i64>().map_err(not_samples)).collect::<PyResult<_>>()?
        }
    };
    numbers.into_iter().map(|number| sample(number, len)).collect()
}

/// One number; negative ones count from the end.
pub(crate) fn sample(number: i64, len: usize) -> PyResult<usize> {
    let from_start = if number < 0 { number.checked_add_unsigned(len as u64) } else { Some(number) };
    let found = from_start.and_then(|number| usize::try_from(number).ok()).filter(|&number| number < len);
    found.ok_or_else(|| {
        PyIndexError::new_err(format!(
            "sample {number} does not exist: the archive has {len} samples, numbered from 0 or, backwards, from -1"
        ))
    })
}
