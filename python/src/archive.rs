//! Archives.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kuat::gpu::{GpuDecoder, Select};
use kuat::{Archive, CpuDecoder, Decoder, Geometry, OutputSpec};
use numpy::{PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArray2, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use rayon::prelude::*;

use crate::batch::Batch;
use crate::batches::Batches;
use crate::device::Device;
use crate::error::{raise, raise_for_archive};
use crate::json::to_python;
use crate::memory::{ElementType, Memory, pooled_array};
use crate::output::output_spec;
use crate::process::{Local, Process};
use crate::progress::interruptible;
use crate::samples::{one, samples};
use crate::unsigned::Unsigned;

/// An archive opened for reading: its header is checked, nothing else is read until asked for.
///
/// `path` is a str or PathLike. Raises FileNotFoundError, another OSError, or `kuat.Error` if the file is no valid
/// archive. Archives may be used from any thread, pickled (by path), carried across `fork()`, and closed, by `close()`
/// or a `with` statement; arrays that came from one stay valid.
#[pyclass(frozen, weakref, module = "kuat")]
pub(crate) struct KuatArchive {
    path: PathBuf,
    /// `None` once closed. Locked for moments only, with the interpreter attached: nobody holds it across a `fork()`.
    opened: Mutex<Option<Arc<Opened>>>,
}

/// An archive and the decoders that were made for it.
pub(crate) struct Opened {
    pub archive: Archive,
    /// The locks are held for moments only, with the interpreter attached, and never while a decoder is made.
    cpu: Mutex<Option<Arc<dyn Decoder>>>,
    gpus: Mutex<Vec<(Select, Local<GpuDecoder>)>>,
}

impl Opened {
    /// The decoder for a device, made when first asked for.
    pub fn decoder(self: &Arc<Self>, py: Python<'_>, device: &Device) -> PyResult<Arc<dyn Decoder>> {
        let process = Process::current();
        let select = match device {
            Device::Cpu => None,
            Device::Gpu(select) => Some(select.clone()),
            Device::Auto => py.detach(|| process.best_device())?.map(|_| Select::Best),
        };
        match select {
            None => self.cpu_decoder(py),
            Some(select) => self.gpu_decoder(py, select),
        }
    }

    fn cpu_decoder(&self, py: Python<'_>) -> PyResult<Arc<dyn Decoder>> {
        if let Some(decoder) = &*locked(&self.cpu) {
            return Ok(Arc::clone(decoder));
        }
        // Two threads may both make one; the first stays.
        let made: Arc<dyn Decoder> = py.detach(|| -> PyResult<_> {
            let threads = Process::current().threads()?;
            Ok(Arc::new(threads.install(|| CpuDecoder::new(&self.archive))))
        })?;
        Ok(Arc::clone(locked(&self.cpu).get_or_insert(made)))
    }

    fn gpu_decoder(&self, py: Python<'_>, select: Select) -> PyResult<Arc<dyn Decoder>> {
        let found = |gpus: &[(Select, Local<GpuDecoder>)]| {
            let here = gpus.iter().filter(|(key, _)| *key == select).find_map(|(_, decoder)| decoder.get());
            here.map(|decoder| Arc::new(decoder.clone()) as Arc<dyn Decoder>)
        };
        if let Some(decoder) = found(&locked(&self.gpus)) {
            return Ok(decoder);
        }
        let made = py.detach(|| -> PyResult<_> {
            let device = Process::current().device(&select)?;
            GpuDecoder::new(&device, &self.archive).map_err(raise)
        })?;
        let mut gpus = locked(&self.gpus);
        gpus.retain(|(_, decoder)| decoder.get().is_some());
        gpus.push((select.clone(), Local::new(made)));
        found(&gpus).ok_or_else(|| PyValueError::new_err("the process forked while a decoder was made"))
    }

    /// Decodes samples into new memory.
    pub fn decode(&self, decoder: &dyn Decoder, samples: &[usize], spec: &OutputSpec) -> kuat::Result<Arc<Memory>> {
        let rows = self.archive.rows(samples.iter().copied())?;
        let shape = spec.layout.shape(self.archive.geometry(), rows.len());
        Memory::filled(&shape, spec.dtype.into(), |bytes| decoder.decode_bytes(&rows, spec, bytes))
    }

    /// Copies the index rows of samples, as stored, into new memory.
    pub fn packed(&self, samples: &[usize]) -> kuat::Result<Arc<Memory>> {
        let (rows, row_len) = (self.archive.rows(samples.iter().copied())?, self.archive.row_len());
        Memory::filled(&[rows.len(), row_len], ElementType::U8, |bytes| {
            bytes.par_chunks_exact_mut(row_len).zip(rows).for_each(|(target, row)| target.copy_from_slice(row));
            Ok(())
        })
    }
}

impl KuatArchive {
    fn opened(&self) -> PyResult<Arc<Opened>> {
        let opened = locked(&self.opened).clone();
        opened.ok_or_else(|| PyValueError::new_err(format!("the archive {} is closed", self.path.display())))
    }

    fn geometry(&self) -> PyResult<Geometry> {
        Ok(*self.opened()?.archive.geometry())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where decoded images go.
enum Target<'py> {
    /// Into an array of the caller's; what to return, and the array to fill.
    Out(Bound<'py, PyAny>, Bound<'py, PyAny>),
    Numpy,
    Dlpack,
}

impl<'py> Target<'py> {
    fn new(out: Option<Bound<'py, PyAny>>, to: &str) -> PyResult<Self> {
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
    fn decode(
        self,
        py: Python<'py>,
        decoder: &Arc<dyn Decoder>,
        rows: &[&[u8]],
        spec: &OutputSpec,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shape = spec.layout.shape(decoder.geometry(), rows.len());
        let element = ElementType::from(spec.dtype);
        if let Target::Out(out, array) = self {
            match element {
                ElementType::U8 => decode_out::<u8>(py, decoder, rows, spec, &array)?,
                ElementType::F16 => decode_out::<kuat::f16>(py, decoder, rows, spec, &array)?,
                _ => decode_out::<f32>(py, decoder, rows, spec, &array)?,
            }
            return Ok(out);
        }
        let memory = py.detach(|| -> PyResult<_> {
            let threads = Process::current().threads()?;
            let decode = || Memory::filled(&shape, element, |bytes| decoder.decode_bytes(rows, spec, bytes));
            threads.install(decode).map_err(raise)
        })?;
        let batch = Bound::new(py, Batch { memory, device: decoder.device_name().into() })?;
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
        threads.install(|| decoder.decode_bytes(rows, spec, bytemuck::cast_slice_mut(slice))).map_err(raise)
    })
}

#[pymethods]
impl KuatArchive {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        // What cannot be imported, or is interrupted in it, is an exception here and a panic where arrays are made.
        py.import("numpy")?;
        let path = std::path::absolute(&path).unwrap_or(path);
        let archive = py.detach(|| Archive::open(&path)).map_err(|error| raise_for_archive(&path, error))?;
        let opened = Opened { archive, cpu: Mutex::default(), gpus: Mutex::default() };
        Ok(Self { path, opened: Mutex::new(Some(Arc::new(opened))) })
    }

    /// The file's absolute path.
    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("pathlib")?.call_method1("Path", (self.path.as_os_str(),))
    }

    /// The number of images.
    #[pyo3(name = "len")]
    fn samples(&self) -> PyResult<usize> {
        Ok(self.opened()?.archive.samples())
    }

    fn __len__(&self) -> PyResult<usize> {
        self.samples()
    }

    /// The number of codewords.
    #[getter]
    fn codebook_size(&self) -> PyResult<usize> {
        Ok(self.opened()?.archive.codewords())
    }

    /// The side of a patch in pixels; (height, width) if they differ.
    #[getter]
    fn patch_size<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.patch_shape()? {
            (height, width) if height == width => Ok(height.into_pyobject(py)?.into_any()),
            shape => Ok(shape.into_pyobject(py)?.into_any()),
        }
    }

    /// (height, width) of a patch in pixels.
    #[getter]
    fn patch_shape(&self) -> PyResult<(usize, usize)> {
        let geometry = self.geometry()?;
        Ok((geometry.patch_height(), geometry.patch_width()))
    }

    /// (channels, height, width) of an image.
    #[getter]
    fn dimensions(&self) -> PyResult<(usize, usize, usize)> {
        let geometry = self.geometry()?;
        Ok((geometry.channels(), geometry.image_height(), geometry.image_width()))
    }

    /// The number of patches of an image.
    #[getter]
    fn grid_size(&self) -> PyResult<usize> {
        Ok(self.geometry()?.patches())
    }

    /// Patches (down, across) an image; at the right and the bottom they may reach beyond it.
    #[getter]
    fn grid_shape(&self) -> PyResult<(usize, usize)> {
        let geometry = self.geometry()?;
        Ok((geometry.grid_height(), geometry.grid_width()))
    }

    /// Bits of an index as stored.
    #[getter]
    fn index_bits(&self) -> PyResult<usize> {
        Ok(self.opened()?.archive.index_width().bits())
    }

    /// The names of the labels 0, 1, ...; None if they are not recorded.
    #[getter]
    fn classes(&self) -> PyResult<Option<Vec<String>>> {
        Ok(self.opened()?.archive.classes().map(<[String]>::to_vec))
    }

    /// What the archive holds, with the keys of `kuat info --json`.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let info = to_python(py, &self.opened()?.archive.info())?;
        info.set_item("archive", self.path.as_os_str())?;
        Ok(info)
    }

    /// Reads every byte and returns what is wrong, with the keys of `kuat verify --json`; "ok" sums it up.
    ///
    /// `progress(stage, done, total)` is called now and then. Ctrl-C interrupts.
    #[pyo3(signature = (*, progress=None))]
    fn verify<'py>(&self, py: Python<'py>, progress: Option<Py<PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        let opened = self.opened()?;
        let report = interruptible(py, progress, |progress| opened.archive.verify(progress))?;
        let dict = to_python(py, &report)?;
        dict.set_item("archive", self.path.as_os_str())?;
        dict.set_item("ok", report.is_ok())?;
        Ok(dict)
    }

    /// One image on the CPU: (height, width, channels) uint8, 0 to 255.
    ///
    /// Negative numbers count from the end; raises IndexError beyond it.
    fn decode(&self, py: Python<'_>, index: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let opened = self.opened()?;
        let sample = one(index, opened.archive.samples())?;
        let decoder = opened.cpu_decoder(py)?;
        let spec = OutputSpec::default();
        let [_, height, width, channels] = spec.layout.shape(decoder.geometry(), 1);
        let row = [opened.archive.row(sample).map_err(raise)?];
        let threads = py.detach(|| Process::current().threads())?;
        pooled_array(py, &[height, width, channels], ElementType::U8, |bytes| {
            threads.install(|| decoder.decode_bytes(&row, &spec, bytes))
        })
    }

    /// A batch of images: (batch, height, width, channels), or (batch, channels, height, width) with layout="NCHW".
    ///
    /// `ids` is a slice, or a list or one-dimensional array or tensor of integers; negative ones count from the end,
    /// IndexError beyond it. dtype "uint8" gives 0 to 255; "float32" and "float16" give 0 to 1, or with `mean` and
    /// `std` (of values from 0 to 1; a float, or one per channel) `(value - mean) / std`.
    ///
    /// `device` is what decodes: "auto" (the best real GPU, or the CPU if there is none), "cpu", "gpu", or the name or
    /// number of an adapter in `kuat.devices()`. A device that is not there or fails is a `kuat.Error`. A process that
    /// was forked from one that had opened a GPU can use none: "auto" is the CPU there.
    ///
    /// The result is in host memory that comes from a pool and returns to it. It is a numpy array, whose `.base.device`
    /// tells what decoded; with to="dlpack" a `kuat.Batch`, for other libraries; or `out`, a C-contiguous numpy array
    /// or torch tensor of that shape and dtype.
    #[pyo3(signature = (ids, out=None, *, dtype=None, layout="NHWC", mean=None, std=None, device=Device::Auto, to="numpy"),
           text_signature = "(self, /, ids, out=None, *, dtype='uint8', layout='NHWC', mean=None, std=None, device='auto', to='numpy')")]
    #[expect(clippy::too_many_arguments, reason = "all but the first have defaults")]
    fn decode_batch<'py>(
        &self,
        py: Python<'py>,
        ids: &Bound<'py, PyAny>,
        out: Option<Bound<'py, PyAny>>,
        dtype: Option<&Bound<'py, PyAny>>,
        layout: &str,
        mean: Option<&Bound<'py, PyAny>>,
        std: Option<&Bound<'py, PyAny>>,
        device: Device,
        to: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let opened = self.opened()?;
        let target = Target::new(out, to)?;
        let spec = output_spec(opened.archive.geometry(), dtype, layout, mean, std)?;
        let samples = samples(ids, opened.archive.samples())?;
        let rows = opened.archive.rows(samples).map_err(raise)?;
        target.decode(py, &opened.decoder(py, &device)?, &rows, &spec)
    }

    /// Images from indices, as `get_indices_batch` returns them: (batch, grid_size) uint32, C-contiguous. An index
    /// beyond the codebook decodes as the last codeword. All else is as for `decode_batch`.
    #[pyo3(signature = (indices, out=None, *, dtype=None, layout="NHWC", mean=None, std=None, device=Device::Auto, to="numpy"),
           text_signature = "(self, /, indices, out=None, *, dtype='uint8', layout='NHWC', mean=None, std=None, device='auto', to='numpy')")]
    #[expect(clippy::too_many_arguments, reason = "all but the first have defaults")]
    fn decode_indices<'py>(
        &self,
        py: Python<'py>,
        indices: &Bound<'py, PyAny>,
        out: Option<Bound<'py, PyAny>>,
        dtype: Option<&Bound<'py, PyAny>>,
        layout: &str,
        mean: Option<&Bound<'py, PyAny>>,
        std: Option<&Bound<'py, PyAny>>,
        device: Device,
        to: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let opened = self.opened()?;
        let archive = &opened.archive;
        let target = Target::new(out, to)?;
        let spec = output_spec(archive.geometry(), dtype, layout, mean, std)?;
        let patches = archive.geometry().patches();
        let indices: PyReadonlyArray2<'_, u32> = indices.extract().map_err(|_| {
            let found = indices.getattr("dtype").map_or_else(|_| indices.get_type().to_string(), |d| d.to_string());
            PyTypeError::new_err(format!("indices are {found}, expected an array of uint32, (batch, {patches})"))
        })?;
        if indices.shape()[1] != patches || !indices.is_c_contiguous() {
            let (shape, kind) = (indices.shape(), if indices.is_c_contiguous() { "" } else { " and not C-contiguous" });
            return Err(PyValueError::new_err(format!(
                "indices have the shape {shape:?}{kind}, expected [any, {patches}], C-contiguous"
            )));
        }
        let indices = indices.as_slice()?;
        let (width, last) = (archive.index_width(), archive.codewords() as u32 - 1);
        let threads = py.detach(|| Process::current().threads())?;
        let pack = |indices: &[u32]| {
            let bounded: Vec<u32> = indices.iter().map(|&index| index.min(last)).collect();
            let mut row = Vec::with_capacity(width.row_len(patches));
            width.pack(&bounded, &mut row);
            row
        };
        let rows: Vec<Vec<u8>> =
            py.detach(|| threads.install(|| indices.par_chunks_exact(patches).map(pack).collect()));
        let rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
        target.decode(py, &opened.decoder(py, &device)?, &rows, &spec)
    }

    /// What `device` stands for here: "cpu", or the adapter's name and API. Opens the device.
    #[pyo3(signature = (device=Device::Auto), text_signature = "(self, /, device='auto')")]
    fn device_name(&self, py: Python<'_>, device: Device) -> PyResult<String> {
        Ok(self.opened()?.decoder(py, &device)?.device_name().into())
    }

    /// The label of a sample; None if it has none.
    fn label(&self, index: &Bound<'_, PyAny>) -> PyResult<Option<i64>> {
        let opened = self.opened()?;
        opened.archive.label(one(index, opened.archive.samples())?).map_err(raise)
    }

    /// The labels of samples as int64, -1 where there is none. `ids` is as for `decode_batch`.
    fn labels<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let opened = self.opened()?;
        let samples = samples(ids, opened.archive.samples())?;
        Ok(PyArray1::from_vec(py, labels(&opened.archive, &samples).map_err(raise)?))
    }

    /// The labels of all samples as int64, -1 where there is none.
    fn all_labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let archive = &self.opened()?.archive;
        let labels: Option<Vec<i64>> = archive.labels().map(Iterator::collect);
        Ok(PyArray1::from_vec(py, labels.unwrap_or_else(|| vec![-1; archive.samples()])))
    }

    /// The caption of a sample; None if the archive has none.
    fn caption(&self, index: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
        let opened = self.opened()?;
        let sample = one(index, opened.archive.samples())?;
        Ok(opened.archive.caption(sample).map_err(raise)?.map(Into::into))
    }

    /// The captions of samples; None if the archive has none. `ids` is as for `decode_batch`.
    fn captions(&self, ids: &Bound<'_, PyAny>) -> PyResult<Option<Vec<String>>> {
        let opened = self.opened()?;
        let samples = samples(ids, opened.archive.samples())?;
        if samples.is_empty() && !opened.archive.info().captions {
            return Ok(None);
        }
        let captions = samples.into_iter().map(|sample| Ok(opened.archive.caption(sample)?.map(Into::into)));
        captions.collect::<kuat::Result<_>>().map_err(raise)
    }

    /// The codewords as stored: (codewords, patch height, patch width, channels) uint8, a copy.
    #[getter]
    fn codebook(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let opened = self.opened()?;
        let (archive, g) = (&opened.archive, opened.archive.geometry());
        let shape = [archive.codewords(), g.patch_height(), g.patch_width(), g.channels()];
        pooled_array(py, &shape, ElementType::U8, |bytes| {
            bytes.copy_from_slice(archive.codebook());
            Ok(())
        })
    }

    /// The codewords as (codewords, patch height * patch width * channels) float32, 0 to 1, a copy:
    /// `codebook_numpy()[indices]` holds the pixels of an image patch by patch.
    fn codebook_numpy(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let opened = self.opened()?;
        let archive = &opened.archive;
        let shape = [archive.codewords(), archive.geometry().codeword_len()];
        let threads = py.detach(|| Process::current().threads())?;
        pooled_array(py, &shape, ElementType::F32, |bytes| {
            let spec = OutputSpec::default();
            let table: [f32; 256] = std::array::from_fn(|value| spec.value(value as u8, 0));
            let values: &mut [f32] = bytemuck::cast_slice_mut(bytes);
            let pairs = values.par_iter_mut().zip(archive.codebook()).with_min_len(1 << 16);
            threads.install(|| pairs.for_each(|(value, &byte)| *value = table[usize::from(byte)]));
            Ok(())
        })
    }

    /// The indices of samples, one per patch, row by row: (batch, grid_size) uint32. They are as stored, in an archive
    /// that was not verified possibly beyond the codebook. `ids` is as for `decode_batch`.
    fn get_indices_batch(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let opened = self.opened()?;
        let archive = &opened.archive;
        let rows = archive.rows(samples(ids, archive.samples())?).map_err(raise)?;
        let (patches, width) = (archive.geometry().patches(), archive.index_width());
        let threads = py.detach(|| Process::current().threads())?;
        pooled_array(py, &[rows.len(), patches], ElementType::U32, |bytes| {
            let indices: &mut [u32] = bytemuck::cast_slice_mut(bytes);
            let pairs = indices.par_chunks_exact_mut(patches).zip(&rows);
            threads.install(|| pairs.for_each(|(indices, row)| width.unpack(row, 0, indices)));
            Ok(())
        })
    }

    /// The index rows of samples as stored: (batch, bytes per row) uint8. `ids` is as for `decode_batch`.
    fn get_packed_batch(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let opened = self.opened()?;
        let samples = samples(ids, opened.archive.samples())?;
        let batch = py.detach(|| -> PyResult<_> {
            Process::current().threads()?.install(|| opened.packed(&samples)).map_err(raise)
        })?;
        Ok(Batch::numpy(Bound::new(py, Batch { memory: batch, device: "cpu".into() })?).unbind())
    }

    /// An iterator over an epoch's batches, made ahead by threads: (samples, labels, images), int64 arrays and a
    /// `kuat.Batch`. With `packed`, index rows as stored stand for the images.
    #[pyo3(signature = (batch_size, *, shuffle=false, seed=Unsigned(0), epoch=Unsigned(0), drop_last=false, shard=(0, 1), ahead=Unsigned(2),
                        packed=false, dtype=None, layout="NHWC", mean=None, std=None, device=Device::Auto),
           text_signature = "(self, /, batch_size, *, shuffle=False, seed=0, epoch=0, drop_last=False, shard=(0, 1), ahead=2, packed=False, dtype='uint8', layout='NHWC', mean=None, std=None, device='auto')")]
    #[expect(clippy::too_many_arguments, reason = "all but the first have defaults")]
    fn _batches<'py>(
        &self,
        py: Python<'py>,
        batch_size: Unsigned<usize>,
        shuffle: bool,
        seed: Unsigned<u64>,
        epoch: Unsigned<u64>,
        drop_last: bool,
        shard: (usize, usize),
        ahead: Unsigned<usize>,
        packed: bool,
        dtype: Option<&Bound<'py, PyAny>>,
        layout: &str,
        mean: Option<&Bound<'py, PyAny>>,
        std: Option<&Bound<'py, PyAny>>,
        device: Device,
    ) -> PyResult<Batches> {
        let opened = self.opened()?;
        let (Unsigned(batch_size), Unsigned(seed), Unsigned(epoch)) = (batch_size, seed, epoch);
        let options = kuat::loader::EpochOptions { batch_size, shuffle, seed, epoch, drop_last, shard };
        if packed {
            return Batches::new(py, opened, options, ahead.0, None);
        }
        let spec = output_spec(opened.archive.geometry(), dtype, layout, mean, std)?;
        let decoder = opened.decoder(py, &device)?;
        Batches::new(py, opened, options, ahead.0, Some((decoder, spec)))
    }

    /// Closes the file; everything but `path`, `repr` and pickling then raises ValueError.
    fn close(&self) {
        drop(locked(&self.opened).take());
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, PyAny>) {
        self.close();
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyAny>,))> {
        Ok((slf.get_type().into_any(), (slf.get().path(slf.py())?,)))
    }

    fn __repr__(&self) -> String {
        let path: &Path = &self.path;
        let Ok(opened) = self.opened() else { return format!("KuatArchive({path:?}, closed)") };
        let (archive, g) = (&opened.archive, opened.archive.geometry());
        format!(
            "KuatArchive({path:?}, {} images of {}x{}x{}, {} codewords of {}x{})",
            archive.samples(),
            g.image_height(),
            g.image_width(),
            g.channels(),
            archive.codewords(),
            g.patch_height(),
            g.patch_width(),
        )
    }
}

/// The labels of samples, -1 where there is none.
pub(crate) fn labels(archive: &Archive, samples: &[usize]) -> kuat::Result<Vec<i64>> {
    samples.iter().map(|&sample| Ok(archive.label(sample)?.unwrap_or(-1))).collect()
}
