//! Where decoded images go.

use std::sync::Arc;

use kuat::{Decoder, OutputSpec, mask};
use numpy::{PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::batch::Batch;
use crate::error::raise;
use crate::memory::{ElementType, Memory};
use crate::process::Process;

/// Where decoded images go.
pub(crate) enum Target<'py> {
    /// Into an array of the caller's; what to return, and the array to fill.
    Out(Bound<'py, PyAny>, Bound<'py, PyAny>),
    Numpy,
    Dlpack,
}

impl<'py> Target<'py> {
    pub fn new(out: Option<Bound<'py, PyAny>>, to: &str) -> PyResult<Self> {
        match (out, to) {
            (None, "numpy") => Ok(Target::Numpy),
            (None, "dlpack") => Ok(Target::Dlpack),
            (Some(_), "dlpack") => Err(PyValueError::new_err("out and to=\"dlpack\" exclude each other")),
            (Some(out), "numpy") => {
                let module = out.get_type().module()?;
                let is_torch = module.to_string_lossy().split('.').next() == Some("torch");
                let array = if is_torch { out.call_method0("numpy").map_err(unwritable)? } else { out.clone() };
                Ok(Target::Out(out, array))
            }
            (_, other) => Err(PyValueError::new_err(format!("to is {other:?}, expected \"numpy\" or \"dlpack\""))),
        }
    }

    /// Decodes rows to the target and returns it.
    pub fn decode(
        self,
        py: Python<'py>,
        decoder: &Arc<dyn Decoder>,
        rows: &[&[u8]],
        masked: &[usize],
        spec: &OutputSpec,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shape = spec.layout.shape(decoder.geometry(), rows.len());
        let element = ElementType::from(spec.dtype);
        if let Target::Out(out, array) = self {
            match element {
                ElementType::U8 => decode_out::<u8>(py, decoder, rows, masked, spec, &array)?,
                ElementType::F16 => decode_out::<kuat::f16>(py, decoder, rows, masked, spec, &array)?,
                _ => decode_out::<f32>(py, decoder, rows, masked, spec, &array)?,
            }
            return Ok(out);
        }
        let memory = py.detach(|| -> PyResult<_> {
            let threads = Process::current().threads()?;
            let decode = |bytes: &mut [u8]| {
                decoder.decode_bytes(rows, spec, bytes)?;
                mask(masked, rows.len(), bytes);
                Ok(())
            };
            threads.install(|| Memory::filled(&shape, element, decode)).map_err(raise)
        })?;
        let batch = Bound::new(py, Batch { memory, device: decoder.device_name().into(), masked: masked.to_vec() })?;
        Ok(if matches!(self, Target::Dlpack) { batch.into_any() } else { Batch::numpy(batch) })
    }
}

fn unwritable(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(format!("out cannot be written to: {error}"))
}

/// Decodes into an array of the caller's.
fn decode_out<T: kuat::Element + numpy::Element>(
    py: Python<'_>,
    decoder: &Arc<dyn Decoder>,
    rows: &[&[u8]],
    masked: &[usize],
    spec: &OutputSpec,
    array: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let expected = spec.layout.shape(decoder.geometry(), rows.len());
    let name = ElementType::from(spec.dtype).name();
    let untyped = array.cast::<PyUntypedArray>().map_err(|_| {
        let found = array.get_type();
        PyTypeError::new_err(format!("out is {found}, expected a numpy array or a torch tensor in host memory"))
    })?;
    let typed = array.cast::<PyArrayDyn<T>>().map_err(|_| {
        let found = untyped.dtype();
        PyTypeError::new_err(format!("out has dtype {found}, expected {name}, the dtype that is asked for"))
    })?;
    if untyped.shape() != expected || !untyped.is_c_contiguous() {
        let (found, kind) = (untyped.shape(), if untyped.is_c_contiguous() { "" } else { " and not C-contiguous" });
        return Err(PyValueError::new_err(format!(
            "out has the shape {found:?}{kind}, expected {expected:?}, C-contiguous"
        )));
    }
    let mut writable = typed.try_readwrite().map_err(unwritable)?;
    let slice = writable.as_slice_mut().map_err(|error| PyValueError::new_err(format!("out: {error}")))?;
    py.detach(|| {
        let threads = Process::current().threads()?;
        let bytes = bytemuck::cast_slice_mut(slice);
        threads.install(|| decoder.decode_bytes(rows, spec, bytes)).map_err(raise)?;
        mask(masked, rows.len(), bytes);
        Ok(())
    })
}
