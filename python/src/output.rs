//! How a caller says what decoded batches look like.

use kuat::{Dtype, Geometry, Layout, Normalization, OutputSpec};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::error::raise;

/// Names of dtypes in kuat, numpy and torch.
const DTYPES: [(Dtype, &[&str]); 3] =
    [(Dtype::U8, &["u8", "uint8"]), (Dtype::F16, &["f16", "float16", "half"]), (Dtype::F32, &["f32", "float32"])];

/// A mean or deviation: a float for all channels, or one for each in a sequence, array or tensor.
fn per_channel(name: &str, value: &Bound<'_, PyAny>, geometry: &Geometry) -> PyResult<Vec<f32>> {
    let value = if value.hasattr("tolist")? { value.call_method0("tolist")? } else { value.clone() };
    if let Ok(one) = value.extract::<f32>() {
        return Ok(vec![one; geometry.channels()]);
    }
    value.extract().map_err(|_| {
        PyTypeError::new_err(format!("{name} is {value}, expected a float or {} of them", geometry.channels()))
    })
}

/// The specification for images of this geometry; u8 if no dtype is given.
pub(crate) fn output_spec(
    geometry: &Geometry,
    dtype: Option<&Bound<'_, PyAny>>,
    layout: &str,
    mean: Option<&Bound<'_, PyAny>>,
    std: Option<&Bound<'_, PyAny>>,
) -> PyResult<OutputSpec> {
    let normalization = match (mean, std) {
        (None, None) => None,
        (Some(mean), Some(std)) => {
            let (mean, std) = (per_channel("mean", mean, geometry)?, per_channel("std", std, geometry)?);
            Some(Normalization::new(&mean, &std).map_err(raise)?)
        }
        _ => return Err(PyValueError::new_err("mean and std go together: give both or neither")),
    };
    let dtype = dtype.map_or(Ok(Dtype::U8), self::dtype)?;
    let spec = OutputSpec { dtype, layout: layout.parse::<Layout>().map_err(raise)?, normalization };
    spec.check(geometry).map_err(raise)?;
    Ok(spec)
}

/// "u8", "uint8", `numpy.uint8`, `numpy.dtype("uint8")` and `torch.uint8` are the same.
fn dtype(value: &Bound<'_, PyAny>) -> PyResult<Dtype> {
    let text = value.str()?.to_string_lossy().into_owned();
    // `<class 'numpy.uint8'>` and `torch.uint8` end in the name.
    let name = text.trim_end_matches("'>").rsplit('.').next().unwrap_or_default();
    let found = DTYPES.into_iter().find(|(_, names)| names.contains(&name)).map(|(dtype, _)| dtype);
    found.ok_or_else(|| PyValueError::new_err(format!("dtype is {text}, expected uint8, float16 or float32")))
}
