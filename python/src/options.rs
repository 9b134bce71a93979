//! How images become an archive, as Python says it.

use std::path::Path;

use kuat::encode::{
    Choice, Codebook, CodecOptions, EncodeOptions, EncodeSummary, Goal, LayerOptions, LayerSource, PATCHES, Rate,
    Searcher, Source, check_output, choose, encode,
};
use kuat::progress::Progress;
use numpy::{PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::archive::KuatArchive;
use crate::device::Device;
use crate::error::raise;
use crate::process::Process;

/// What Python says of codewords.
#[derive(FromPyObject)]
enum GivenCodebook<'py> {
    /// How many may be trained.
    Codewords(usize),
    /// Which ones they are: C-contiguous, codewords x patch height x patch width x channels.
    Array(PyReadonlyArrayDyn<'py, u8>),
}

/// What Python says of codebooks of layers.
#[derive(FromPyObject)]
enum GivenBooks<'py> {
    /// Those of an archive.
    Archive(PyRef<'py, KuatArchive>),
    /// Those that come with kuat.
    Builtin(#[expect(dead_code, reason = "the only string that is passed")] String),
}

impl GivenBooks<'_> {
    fn source(self) -> PyResult<LayerSource> {
        match self {
            Self::Archive(archive) => archive.books().map(LayerSource::Given),
            Self::Builtin(_) => Ok(LayerSource::Builtin),
        }
    }
}

/// Checked options of an encoding.
#[pyclass(frozen, module = "kuat._kuat")]
#[derive(Clone)]
pub(crate) struct Options {
    pub encode: EncodeOptions,
    goal: Option<Goal>,
    /// Whether patches of other sizes may serve the goal better.
    any_patch: bool,
}

impl Options {
    /// Encodes a source; for a goal it is first found out how.
    pub fn encode(&self, source: &dyn Source, path: &Path, progress: &dyn Progress) -> kuat::Result<EncodeSummary> {
        let Some(goal) = self.goal else { return encode(source, path, &self.encode, progress) };
        // Now rather than after the trials: the folder may not exist.
        check_output(source, path)?;
        let patches = if self.any_patch { &PATCHES[..] } else { std::slice::from_ref(&self.encode.patch) };
        let Choice { options, .. } = choose(source, goal, &self.encode, patches, progress)?;
        encode(source, path, &options, progress)
    }
}

#[pymethods]
impl Options {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "they are keywords")]
    #[pyo3(signature = (*, size, layers, books, patch, any_patch, codebook, max_error, goal, channels, fit, filter,
        resize_short, max_pixels, seed, on_error, device, resume))]
    fn new(
        py: Python<'_>,
        size: (u32, u32),
        layers: bool,
        books: Option<GivenBooks<'_>>,
        patch: (u32, u32),
        any_patch: bool,
        codebook: GivenCodebook<'_>,
        max_error: Option<u8>,
        goal: Option<(String, f64)>,
        channels: u32,
        fit: &str,
        filter: &str,
        resize_short: Option<u32>,
        max_pixels: u64,
        seed: u64,
        on_error: &str,
        device: Device,
        resume: bool,
    ) -> PyResult<Self> {
        let codebook = match codebook {
            GivenCodebook::Codewords(codewords) => max_error.map_or(Codebook::Train(codewords), Codebook::MaxError),
            GivenCodebook::Array(array) => {
                let expected = [patch.1, patch.0, channels].map(|side| side as usize);
                if array.shape().get(1..) != Some(&expected) {
                    let (found, [height, width, channels]) = (array.shape(), expected);
                    return Err(PyValueError::new_err(format!(
                        "codebook has the shape {found:?}, expected [any, {height}, {width}, {channels}] for these \
                         patches and channels"
                    )));
                }
                Codebook::Given(array.as_slice()?.to_vec())
            }
        };
        let rate = goal.as_ref().map_or(Rate::default(), |(kind, value)| match kind.as_str() {
            "quality" => Rate::Quality(*value as u8),
            "psnr" => Rate::Psnr(*value),
            "bytes_per_image" => Rate::MeanBytes(*value as u64),
            _ => Rate::Bytes(*value as u64),
        });
        let goal = goal.filter(|_| !layers).map(|(kind, value)| match kind.as_str() {
            "psnr" => Goal::Psnr(value),
            _ => Goal::Bytes(value as u64),
        });
        let books = books.map(GivenBooks::source).transpose()?.unwrap_or_default();
        let is_given = layers && books != LayerSource::Train;
        let codec = if layers { CodecOptions::Layers(LayerOptions { rate, books }) } else { CodecOptions::Vq };
        let options = EncodeOptions {
            image_size: size,
            channels,
            codec,
            patch,
            codebook,
            fit: fit.parse().map_err(raise)?,
            resize_short,
            filter: filter.parse().map_err(raise)?,
            max_pixels,
            seed,
            on_error: on_error.parse().map_err(raise)?,
            searcher: Searcher::Cpu,
            resume,
            ..EncodeOptions::default()
        };
        options.geometry().map_err(raise)?;
        let gpu = py.detach(|| match device {
            Device::Cpu => Ok(None),
            // GPUs train codebooks of layers; the rest is the CPU's.
            Device::Auto if is_given => Ok(None),
            Device::Gpu(select) => Process::current().device(&select).map(Some),
            Device::Auto => Process::current().best_device(),
        })?;
        Ok(Self { encode: EncodeOptions { searcher: gpu.into(), ..options }, goal, any_patch })
    }

    #[getter]
    fn channels(&self) -> u32 {
        self.encode.channels
    }

    #[getter]
    fn on_error(&self) -> &'static str {
        self.encode.on_error.name()
    }

    #[getter]
    fn resume(&self) -> bool {
        self.encode.resume
    }
}
