//! Archives.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kuat::{Archive, Check, Geometry, LayerBooks, OnDamage, OpenOptions, OutputSpec};
use numpy::{PyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rayon::prelude::*;

use crate::batch::Batch;
use crate::batches::Batches;
use crate::device::Device;
use crate::error::{raise, raise_for_archive};
use crate::json::to_python;
use crate::memory::{ElementType, pooled_array};
use crate::opened::{Maker, Opened, labels, locked};
use crate::output::output_spec;
use crate::process::Process;
use crate::progress::interruptible;
use crate::samples::{one, samples};
use crate::target::Target;
use crate::unsigned::Unsigned;

/// An archive opened for reading: its header is checked, nothing else is read until asked for.
///
/// `path` is a str or PathLike. Raises FileNotFoundError, another OSError, or `kuat.Error` if the file is no valid
/// archive. Archives may be used from any thread, pickled (by path), carried across `fork()`, and closed, by `close()`
/// or a `with` statement; arrays that came from one stay valid.
///
/// `check` says when checksums are compared, if the archive carries them: "read", a row's each time it is read and any
/// other part's when it is first used; "open", all of them now, which reads the whole file; "never".
///
/// `damaged` says what becomes of a sample whose row is not what was written: "raise", `kuat.Error` with its number;
/// "skip", batches have that many images fewer (ask `intact` first where labels must stay beside images); "mask", its
/// image is zeros, its label -1. The last two give a `kuat.DamageWarning` and note it in `damaged`. A single image
/// cannot be skipped, so it raises; so does damage that all samples share.
///
/// `access` says how the file is read: "map", mapped into memory, which copies nothing; a file that was cut short
/// raises `kuat.Error`, but one that is cut, or whose disk fails, while a call reads from it ends the process (SIGBUS).
/// "read", what is needed is read at each call, and whatever happens to the file is an exception. "auto" is "map" for
/// files of local disks, "read" for those of network and user-space file systems (Linux, macOS).
#[pyclass(frozen, weakref, module = "kuat")]
pub(crate) struct KuatArchive {
    path: PathBuf,
    options: OpenOptions,
    on_damage: OnDamage,
    /// `None` once closed. Locked for moments only, with the interpreter attached: nobody holds it across a `fork()`.
    opened: Mutex<Option<Arc<Opened>>>,
}

impl KuatArchive {
    fn opened(&self) -> PyResult<Arc<Opened>> {
        let opened = locked(&self.opened).clone();
        opened.ok_or_else(|| PyValueError::new_err(format!("the archive {} is closed", self.path.display())))
    }

    /// The codebooks of its layers; ValueError if the codec is another.
    pub fn books(&self) -> PyResult<LayerBooks> {
        self.opened()?.archive.layers().and_then(|layers| layers.books()).map_err(raise)
    }

    fn packed_batch(&self, py: Python<'_>, ids: &Bound<'_, PyAny>, on_damage: OnDamage) -> PyResult<Py<PyAny>> {
        let opened = self.opened()?;
        let samples = samples(ids, opened.archive.samples())?;
        let rows = py.detach(|| opened.rows(&samples, on_damage))?;
        opened.tell(py, rows.damaged())?;
        let memory = py.detach(|| opened.read(|_| opened.packed(&rows)))?;
        let batch = Batch { memory, device: "cpu".into(), masked: rows.masked().to_vec() };
        Ok(Batch::numpy(Bound::new(py, batch)?).unbind())
    }

    fn geometry(&self) -> PyResult<Geometry> {
        Ok(*self.opened()?.archive.geometry())
    }
}

#[pymethods]
impl KuatArchive {
    #[new]
    #[pyo3(signature = (path, check="read", damaged="raise", access="auto"))]
    fn new(py: Python<'_>, path: PathBuf, check: &str, damaged: &str, access: &str) -> PyResult<Self> {
        let options = OpenOptions { check: check.parse().map_err(raise)?, access: access.parse().map_err(raise)? };
        let on_damage = damaged.parse().map_err(raise)?;
        // What cannot be imported, or is interrupted in it, is an exception here and a panic where arrays are made.
        py.import("numpy")?;
        let path = std::path::absolute(&path).unwrap_or(path);
        let archive = py.detach(|| -> PyResult<_> {
            let open = || Archive::open_with(&path, &options).map_err(|error| raise_for_archive(&path, error));
            // Threads are started only when they are needed: how many may be said later.
            if options.check == Check::Open { Process::current().threads()?.install(open) } else { open() }
        })?;
        let opened = Opened::new(py, archive, on_damage)?;
        Ok(Self { path, options, on_damage, opened: Mutex::new(Some(Arc::new(opened))) })
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

    /// How images are coded: "vq" or "layers".
    #[getter]
    fn codec(&self) -> PyResult<&'static str> {
        Ok(self.opened()?.archive.codec().name())
    }

    /// The number of codewords. ValueError if the codec is not "vq".
    #[getter]
    fn codebook_size(&self) -> PyResult<usize> {
        Ok(self.opened()?.archive.vq().map_err(raise)?.codewords())
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

    /// Bits of an index as stored. ValueError if the codec is not "vq".
    #[getter]
    fn index_bits(&self) -> PyResult<usize> {
        Ok(self.opened()?.archive.vq().map_err(raise)?.index_width().bits())
    }

    /// The names of the labels 0, 1, ...; None if they are not recorded.
    #[getter]
    fn classes(&self) -> PyResult<Option<Vec<String>>> {
        Ok(self.opened()?.archive.classes().map(<[String]>::to_vec))
    }

    /// The PSNR of each image as the encoder measured it, in dB, as float32 (N,), a copy: of what decoding returns
    /// against the resized source, 0 to 100, and 100 where they are equal; None if it is not recorded.
    #[getter]
    fn psnr<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyArray1<f32>>>> {
        let opened = self.opened()?;
        let psnr = py.detach(|| opened.read(Archive::psnr))?;
        Ok(psnr.map(|psnr| PyArray1::from_vec(py, psnr)))
    }

    /// What the archive holds, with the keys of `kuat info --json`.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let opened = self.opened()?;
        let info = to_python(py, &opened.archive.info())?;
        let ledger = py.detach(|| opened.read(Archive::ledger))?;
        info.set_item("ledger", to_python(py, &ledger.map(|ledger| ledger.summary()))?)?;
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
        // There is no image to leave out.
        let on_damage = if opened.on_damage == OnDamage::Mask { OnDamage::Mask } else { OnDamage::Raise };
        let (row, threads) =
            py.detach(|| -> PyResult<_> { Ok((opened.rows(&[sample], on_damage)?, Process::current().threads()?)) })?;
        opened.tell(py, row.damaged())?;
        pooled_array(py, &[height, width, channels], ElementType::U8, |bytes| {
            threads.install(|| decoder.decode_bytes(&row.slices(), &spec, bytes))?;
            row.mask(bytes);
            Ok(())
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
        let rows = py.detach(|| opened.rows(&samples, opened.on_damage))?;
        opened.tell(py, rows.damaged())?;
        target.decode(py, &opened.decoder(py, &device)?, &rows.slices(), rows.masked(), &spec)
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
        let vq = archive.vq().map_err(raise)?;
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
        let (width, last) = (vq.index_width(), vq.codewords() as u32 - 1);
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
        target.decode(py, &opened.decoder(py, &device)?, &rows, &[], &spec)
    }

    /// What `device` stands for here: "cpu", or the adapter's name and API. Opens the device.
    #[pyo3(signature = (device=Device::Auto), text_signature = "(self, /, device='auto')")]
    fn device_name(&self, py: Python<'_>, device: Device) -> PyResult<String> {
        Ok(self.opened()?.decoder(py, &device)?.device_name().into())
    }

    /// The label of a sample; None if it has none.
    fn label(&self, py: Python<'_>, index: &Bound<'_, PyAny>) -> PyResult<Option<i64>> {
        let opened = self.opened()?;
        let sample = one(index, opened.archive.samples())?;
        if opened.is_masked(sample) {
            return Ok(None);
        }
        py.detach(|| opened.read(|archive| archive.label(sample)))
    }

    /// The labels of samples as int64, -1 where there is none. `ids` is as for `decode_batch`.
    fn labels<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let opened = self.opened()?;
        let samples = samples(ids, opened.archive.samples())?;
        let mut labels = py.detach(|| opened.read(|archive| labels(archive, &samples)))?;
        for (label, _) in labels.iter_mut().zip(samples).filter(|(_, sample)| opened.is_masked(*sample)) {
            *label = -1;
        }
        Ok(PyArray1::from_vec(py, labels))
    }

    /// The labels of all samples as int64, -1 where there is none.
    fn all_labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let opened = self.opened()?;
        let labels = py.detach(|| opened.read(Archive::labels))?;
        Ok(PyArray1::from_vec(py, labels.unwrap_or_else(|| vec![-1; opened.archive.samples()])))
    }

    /// The caption of a sample; None if the archive has none.
    fn caption(&self, py: Python<'_>, index: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
        let opened = self.opened()?;
        let sample = one(index, opened.archive.samples())?;
        py.detach(|| opened.read(|archive| archive.caption(sample)))
    }

    /// The captions of samples; None if the archive has none. `ids` is as for `decode_batch`.
    fn captions(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<Option<Vec<String>>> {
        let opened = self.opened()?;
        let samples = samples(ids, opened.archive.samples())?;
        if samples.is_empty() && !opened.archive.info().captions {
            return Ok(None);
        }
        py.detach(|| opened.read(|archive| samples.into_iter().map(|sample| archive.caption(sample)).collect()))
    }

    /// The codewords as stored: (codewords, patch height, patch width, channels) uint8, a copy. ValueError if the codec
    /// is not "vq".
    #[getter]
    fn codebook(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let opened = self.opened()?;
        let (vq, g) = (opened.archive.vq().map_err(raise)?, opened.archive.geometry());
        let shape = [vq.codewords(), g.patch_height(), g.patch_width(), g.channels()];
        let codebook = py.detach(|| opened.read(|_| vq.codebook()))?;
        pooled_array(py, &shape, ElementType::U8, |bytes| {
            bytes.copy_from_slice(&codebook);
            Ok(())
        })
    }

    /// The codewords as (codewords, patch height * patch width * channels) float32, 0 to 1, a copy:
    /// `codebook_numpy()[indices]` holds the pixels of an image patch by patch. ValueError if the codec is not "vq".
    fn codebook_numpy(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let opened = self.opened()?;
        let vq = opened.archive.vq().map_err(raise)?;
        let shape = [vq.codewords(), opened.archive.geometry().codeword_len()];
        let (threads, codebook) =
            py.detach(|| -> PyResult<_> { Ok((Process::current().threads()?, opened.read(|_| vq.codebook())?)) })?;
        pooled_array(py, &shape, ElementType::F32, |bytes| {
            let spec = OutputSpec::default();
            let table: [f32; 256] = std::array::from_fn(|value| spec.value(value as u8, 0));
            let values: &mut [f32] = bytemuck::cast_slice_mut(bytes);
            let pairs = values.par_iter_mut().zip(codebook.par_iter()).with_min_len(1 << 16);
            threads.install(|| pairs.for_each(|(value, &byte)| *value = table[usize::from(byte)]));
            Ok(())
        })
    }

    /// The indices of samples, one per patch, row by row: (batch, grid_size) uint32. They are as stored, in an archive
    /// that was not verified possibly beyond the codebook. `ids` is as for `decode_batch`. ValueError if the codec is not
    /// "vq".
    fn get_indices_batch(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let opened = self.opened()?;
        let archive = &opened.archive;
        let width = archive.vq().map_err(raise)?.index_width();
        let samples = samples(ids, archive.samples())?;
        let rows = py.detach(|| opened.rows(&samples, opened.on_damage))?;
        opened.tell(py, rows.damaged())?;
        let patches = archive.geometry().patches();
        let threads = py.detach(|| Process::current().threads())?;
        pooled_array(py, &[rows.len(), patches], ElementType::U32, |bytes| {
            let indices: &mut [u32] = bytemuck::cast_slice_mut(bytes);
            let pairs = indices.par_chunks_exact_mut(patches).zip(rows.par_iter());
            threads.install(|| pairs.for_each(|(indices, row)| width.unpack(row, 0, indices)));
            Ok(())
        })
    }

    /// The index rows of samples as stored: (batch, bytes per row) uint8. `ids` is as for `decode_batch`. ValueError if
    /// the codec is not "vq".
    fn get_packed_batch(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.packed_batch(py, ids, self.opened()?.on_damage)
    }

    /// As `get_packed_batch`, but has zeros for damaged samples even if they are to be left out.
    fn _all_packed(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let on_damage = self.opened()?.on_damage;
        self.packed_batch(py, ids, if on_damage == OnDamage::Skip { OnDamage::Mask } else { on_damage })
    }

    /// Those of these samples that are not damaged, as int64, in the order asked for: their rows are read and compared
    /// with their checksums, unless that was done at opening or should never be. `ids` is as for `decode_batch`.
    fn intact<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let opened = self.opened()?;
        let samples = samples(ids, opened.archive.samples())?;
        let intact = py.detach(|| -> PyResult<Vec<i64>> {
            let mut intact = Vec::with_capacity(samples.len());
            // Bounds the memory that rows take that are read rather than mapped.
            for some in samples.chunks(256) {
                let rows = opened.rows(some, OnDamage::Skip)?;
                intact.extend(rows.samples().iter().map(|&sample| sample as i64));
            }
            Ok(intact)
        })?;
        Ok(PyArray1::from_vec(py, intact))
    }

    /// Whether damaged samples are left out of batches.
    #[getter]
    fn _skips(&self) -> bool {
        self.on_damage == OnDamage::Skip
    }

    /// Whether a damaged sample raises.
    #[getter]
    fn _raises(&self) -> bool {
        self.on_damage == OnDamage::Raise
    }

    /// The damaged samples met so far and what is wrong with each, a dict by number: with check="open" all of them, else
    /// those that `damaged` had skipped or masked. `verify()` looks for all.
    #[getter]
    fn damaged<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        self.opened()?.damaged().iter().try_for_each(|(sample, problem)| dict.set_item(sample, problem))?;
        Ok(dict)
    }

    /// An iterator over an epoch's batches, made ahead by threads: (samples, labels, images), int64 arrays and a
    /// `kuat.Batch`. With `packed`, index rows as stored stand for the images, and nothing if they are
    /// `resident`; else a GPU keeps all index rows if they should be.
    #[pyo3(signature = (batch_size, *, shuffle=false, seed=Unsigned(0), epoch=Unsigned(0), drop_last=false, shard=(0, 1), ahead=Unsigned(2),
                        packed=false, resident=false, dtype=None, layout="NHWC", mean=None, std=None, device=Device::Auto),
           text_signature = "(self, /, batch_size, *, shuffle=False, seed=0, epoch=0, drop_last=False, shard=(0, 1), ahead=2, packed=False, resident=False, dtype='uint8', layout='NHWC', mean=None, std=None, device='auto')")]
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
        resident: bool,
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
            let maker = if resident { Maker::None } else { Maker::Packed };
            return Batches::new(py, opened, options, ahead.0, maker, OutputSpec::default());
        }
        let spec = output_spec(opened.archive.geometry(), dtype, layout, mean, std)?;
        let maker = opened.maker(py, &device, resident)?;
        Batches::new(py, opened, options, ahead.0, maker, spec)
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

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let Self { options: OpenOptions { check, access }, on_damage, .. } = slf.get();
        let arguments = (slf.get().path(slf.py())?, check.name(), on_damage.name(), access.name());
        Ok((slf.get_type().into_any(), arguments.into_pyobject(slf.py())?))
    }

    fn __repr__(&self) -> String {
        let path: &Path = &self.path;
        let Ok(opened) = self.opened() else { return format!("KuatArchive({path:?}, closed)") };
        let (archive, g) = (&opened.archive, opened.archive.geometry());
        let coding = match archive.vq() {
            Ok(vq) => format!("{} codewords of {}x{}", vq.codewords(), g.patch_height(), g.patch_width()),
            Err(_) => format!("codec {}", archive.codec()),
        };
        format!(
            "KuatArchive({path:?}, {} images of {}x{}x{}, {coding})",
            archive.samples(),
            g.image_height(),
            g.image_width(),
            g.channels(),
        )
    }
}
