//! Errors of the library's as Python's exceptions.

use std::io::ErrorKind;

use pyo3::create_exception;
use pyo3::exceptions::{
    PyException, PyFileNotFoundError, PyIndexError, PyKeyboardInterrupt, PyMemoryError, PyOSError, PyPermissionError,
    PyTypeError, PyUserWarning, PyValueError,
};
use pyo3::prelude::*;

create_exception!(
    kuat,
    Error,
    PyException,
    "What kuat raises where no built-in exception fits: damaged archives, GPUs."
);

create_exception!(
    kuat,
    DamageWarning,
    PyUserWarning,
    "A damaged sample was left out of a batch or masked, as `damaged` asked for."
);

/// The exception for an error, with its whole message.
pub(crate) fn raise(error: kuat::Error) -> PyErr {
    use kuat::Error as E;
    let error = match error {
        // Python's own come back as they are.
        E::Source { name, source } => match source.downcast::<PyErr>() {
            Ok(exception) => return *exception,
            Err(source) => E::Source { name, source },
        },
        error => error,
    };
    let message = error.with_causes();
    match &error {
        E::Io { source, .. } | E::Write(source) => match source.kind() {
            ErrorKind::NotFound => PyFileNotFoundError::new_err(message),
            ErrorKind::PermissionDenied => PyPermissionError::new_err(message),
            _ => PyOSError::new_err(message),
        },
        E::OutOfMemory { .. } => PyMemoryError::new_err(message),
        E::Interrupted => PyKeyboardInterrupt::new_err(message),
        E::Sample { .. } => PyIndexError::new_err(message),
        E::OutputDtype { .. } => PyTypeError::new_err(message),
        E::RowLength { .. } | E::OutputLength { .. } | E::Normalization { .. } | E::Argument { .. } => {
            PyValueError::new_err(message)
        }
        E::Geometry { .. } | E::IndexWidth { .. } | E::OtherCodec { .. } => PyValueError::new_err(message),
        _ => Error::new_err(message),
    }
}

/// As [`raise`], for opening an archive, where what would be the caller's fault elsewhere is the file's.
pub(crate) fn raise_for_archive(path: &std::path::Path, error: kuat::Error) -> PyErr {
    match error.is_invalid_archive() {
        true => Error::new_err(format!("{}: {}", path.display(), error.with_causes())),
        false => raise(error),
    }
}
