//! What an open archive holds: the file, and the decoders that were made for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kuat::gpu::{GpuDecoder, Resident, Select};
use kuat::loader::Epoch;
use kuat::{Archive, CpuDecoder, Decoder, OutputSpec};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rayon::prelude::*;

use crate::device::Device;
use crate::error::raise;
use crate::memory::{ElementType, Memory};
use crate::process::{Local, Process};

/// An archive and the decoders that were made for it.
pub(crate) struct Opened {
    pub archive: Archive,
    /// The locks are held for moments only, with the interpreter attached, and never while a decoder is made.
    cpu: Mutex<Option<Arc<dyn Decoder>>>,
    gpus: Mutex<Vec<(Select, Local<GpuDecoder>)>>,
    residents: Mutex<Vec<(Select, Local<Resident>)>>,
}

impl Opened {
    pub fn new(archive: Archive) -> Self {
        Self { archive, cpu: Mutex::default(), gpus: Mutex::default(), residents: Mutex::default() }
    }

    /// The decoder for a device, made when first asked for.
    pub fn decoder(&self, py: Python<'_>, device: &Device) -> PyResult<Arc<dyn Decoder>> {
        match gpu(py, device)? {
            None => self.cpu_decoder(py),
            Some(select) => Ok(Arc::new(self.gpu_decoder(py, &select)?)),
        }
    }

    /// What makes batch after batch on a device, from index rows that are kept there if it is a GPU and they should be.
    pub fn maker(&self, py: Python<'_>, device: &Device, resident: bool) -> PyResult<Maker> {
        match gpu(py, device)? {
            None => Ok(Maker::Cpu(self.cpu_decoder(py)?)),
            Some(select) if resident => Ok(Maker::Resident(self.resident(py, &select)?)),
            Some(select) => Ok(Maker::Gpu(self.gpu_decoder(py, &select)?)),
        }
    }

    pub fn cpu_decoder(&self, py: Python<'_>) -> PyResult<Arc<dyn Decoder>> {
        if let Some(decoder) = &*locked(&self.cpu) {
            return Ok(Arc::clone(decoder));
        }
        // Two threads may both make one; the first stays.
        let made: Arc<dyn Decoder> = py.detach(|| -> PyResult<_> {
            let threads = Process::current().threads()?;
            Ok(Arc::new(threads.install(|| CpuDecoder::new(&self.archive)).map_err(raise)?))
        })?;
        Ok(Arc::clone(locked(&self.cpu).get_or_insert(made)))
    }

    fn gpu_decoder(&self, py: Python<'_>, select: &Select) -> PyResult<GpuDecoder> {
        found_or_made(
            py,
            &self.gpus,
            select,
            |decoder| !decoder.device().is_lost(),
            || {
                let device = Process::current().device(select)?;
                GpuDecoder::new(&device, &self.archive).map_err(raise)
            },
        )
    }

    fn resident(&self, py: Python<'_>, select: &Select) -> PyResult<Resident> {
        let decoder = self.gpu_decoder(py, select)?;
        let make = || Resident::new(&decoder, &self.archive, None).map_err(raise);
        found_or_made(py, &self.residents, select, |resident| !resident.decoder().device().is_lost(), make)
    }

    /// The index rows of samples that are all used now. Waits for no disk, but where it is busy; call it without the
    /// interpreter.
    pub fn rows(&self, samples: &[usize]) -> kuat::Result<Vec<&[u8]>> {
        self.archive.will_need(samples.iter().copied())?;
        self.archive.rows(samples.iter().copied())
    }

    /// The index rows of a batch, while those of the next are read from disk.
    pub fn rows_of(&self, epoch: &Epoch, batch: usize) -> kuat::Result<Vec<&[u8]>> {
        if batch == 0 {
            self.archive.will_need(epoch.batch(0).iter().copied())?;
        }
        self.archive.will_need(epoch.batch(batch + 1).iter().copied())?;
        self.archive.rows(epoch.batch(batch).iter().copied())
    }

    /// Decodes index rows into new memory.
    pub fn decode(&self, decoder: &dyn Decoder, rows: &[&[u8]], spec: &OutputSpec) -> kuat::Result<Arc<Memory>> {
        let shape = spec.layout.shape(self.archive.geometry(), rows.len());
        Memory::filled(&shape, spec.dtype.into(), |bytes| decoder.decode_bytes(rows, spec, bytes))
    }

    /// Copies index rows, as stored, into new memory.
    pub fn packed(&self, rows: &[&[u8]]) -> kuat::Result<Arc<Memory>> {
        let row_len = self.archive.vq()?.row_len();
        Memory::filled(&[rows.len(), row_len], ElementType::U8, |bytes| {
            bytes.par_chunks_exact_mut(row_len).zip(rows).for_each(|(target, row)| target.copy_from_slice(row));
            Ok(())
        })
    }
}

/// What makes batches one after another.
pub(crate) enum Maker {
    /// Makes empty ones: whoever asked has what their samples need.
    None,
    /// Copies index rows as stored.
    Packed,
    Cpu(Arc<dyn Decoder>),
    Gpu(GpuDecoder),
    Resident(Resident),
}

impl Maker {
    pub fn device_name(&self) -> &str {
        match self {
            Maker::None | Maker::Packed => "cpu",
            Maker::Cpu(decoder) => decoder.device_name(),
            Maker::Gpu(decoder) => decoder.device_name(),
            Maker::Resident(resident) => resident.decoder().device_name(),
        }
    }
}

/// The GPU that a device means; `None` for the CPU.
fn gpu(py: Python<'_>, device: &Device) -> PyResult<Option<Select>> {
    match device {
        Device::Cpu => Ok(None),
        Device::Gpu(select) => Ok(Some(select.clone())),
        Device::Auto => Ok(py.detach(|| Process::current().best_device())?.map(|_| Select::Best)),
    }
}

/// What this process has made for a GPU and still works, or what `make`, called without the interpreter, makes of it now.
fn found_or_made<T: Clone + Send>(
    py: Python<'_>,
    all: &Mutex<Vec<(Select, Local<T>)>>,
    select: &Select,
    works: impl Fn(&T) -> bool,
    make: impl FnOnce() -> PyResult<T> + Send,
) -> PyResult<T> {
    let found = |all: &[(Select, Local<T>)]| {
        all.iter().filter(|(key, _)| key == select).find_map(|(_, made)| made.get().filter(|made| works(made)).cloned())
    };
    if let Some(found) = found(&locked(all)) {
        return Ok(found);
    }
    let made = py.detach(make)?;
    let mut all = locked(all);
    all.retain(|(_, made)| made.get().is_some_and(&works));
    all.push((select.clone(), Local::new(made)));
    found(&all).ok_or_else(|| PyValueError::new_err("the process forked while a decoder was made"))
}

/// The value, for a moment; whether a thread panicked with it does not matter.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The labels of samples, -1 where there is none.
pub(crate) fn labels(archive: &Archive, samples: &[usize]) -> kuat::Result<Vec<i64>> {
    samples.iter().map(|&sample| Ok(archive.label(sample)?.unwrap_or(-1))).collect()
}
