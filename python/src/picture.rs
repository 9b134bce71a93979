//! What Python gives for an image.

use std::path::PathBuf;

use kuat::encode::{Image, ReadOptions};
use numpy::{PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Pixels, or the path of a file.
pub(crate) enum Picture {
    /// A file to be decoded.
    File(PathBuf),
    /// Values of `channels` (1 to 4) per pixel, interleaved.
    Pixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Values of a pixel.
        channels: u32,
        /// Height x width x channels values.
        pixels: Vec<u8>,
    },
}

impl Picture {
    /// The image in the archive's channels.
    pub fn into_image(self, options: &ReadOptions) -> kuat::Result<Image> {
        match self {
            Self::File(path) => Image::decode(&path, options),
            Self::Pixels { width, height, channels: found, pixels } => {
                Image::new(width, height, found, pixels, options.channels)
            }
        }
    }
}

/// From a string, or a C-contiguous array of bytes: height x width or height x width x channels.
impl<'py> FromPyObject<'_, 'py> for Picture {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let Ok(array) = object.extract::<PyReadonlyArrayDyn<'py, u8>>() else {
            return Ok(Self::File(object.extract()?));
        };
        let shape: Vec<u32> = array.shape().iter().map(|&side| side.try_into()).collect::<Result<_, _>>()?;
        let (height, width, channels) = match shape[..] {
            [height, width] => (height, width, 1),
            [height, width, channels] => (height, width, channels),
            _ => return Err(PyValueError::new_err(format!("an image of {} dimensions, expected 2 or 3", shape.len()))),
        };
        Ok(Self::Pixels { width, height, channels, pixels: array.as_slice()?.to_vec() })
    }
}
