//! What an open archive holds: the file, and the decoders that were made for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kuat::gpu::{GpuDecoder, Select};
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
}

impl Opened {
    pub fn new(archive: Archive) -> Self {
        Self { archive, cpu: Mutex::default(), gpus: Mutex::default() }
    }

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

    pub fn cpu_decoder(&self, py: Python<'_>) -> PyResult<Arc<dyn Decoder>> {
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

/// The value, for a moment; whether a thread panicked with it does not matter.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The labels of samples, -1 where there is none.
pub(crate) fn labels(archive: &Archive, samples: &[usize]) -> kuat::Result<Vec<i64>> {
    samples.iter().map(|&sample| Ok(archive.label(sample)?.unwrap_or(-1))).collect()
}
