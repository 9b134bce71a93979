//! What an open archive holds: the file, and the decoders that were made for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kuat::gpu::{GpuDecoder, Resident, Select};
use kuat::loader::Epoch;
use kuat::{Archive, BadSample, CpuDecoder, Decoder, OnDamage, OutputSpec, Rows};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rayon::prelude::*;

use crate::device::Device;
use crate::error::{DamageWarning, Error, raise};
use crate::memory::{ElementType, Memory};
use crate::process::{Local, Process};

/// Damaged samples that a message names.
const LISTED: usize = 10;

/// What is wrong with samples, by number.
pub(crate) type Damaged = BTreeMap<usize, String>;

/// An archive and the decoders that were made for it.
pub(crate) struct Opened {
    pub archive: Archive,
    pub on_damage: OnDamage,
    /// What was found damaged so far, by sample. Locked as the decoders are.
    damaged: Mutex<Arc<Damaged>>,
    /// The locks are held for moments only, with the interpreter attached, and never while a decoder is made.
    cpu: Mutex<Option<Arc<dyn Decoder>>>,
    gpus: Mutex<Vec<(Select, Local<GpuDecoder>)>>,
    residents: Mutex<Vec<(Select, Local<Resident>)>>,
}

impl Opened {
    /// Also tells of what opening found damaged; an error if damage is one.
    pub fn new(py: Python<'_>, archive: Archive, on_damage: OnDamage) -> PyResult<Self> {
        let (damaged, cpu, gpus, residents) = Default::default();
        let this = Self { archive, on_damage, damaged, cpu, gpus, residents };
        let found: Vec<BadSample> = this.archive.damaged().cloned().collect();
        if let (OnDamage::Raise, Some(first)) = (on_damage, found.first()) {
            let numbers: Vec<String> = found.iter().take(LISTED).map(|bad| bad.sample.to_string()).collect();
            let more = if found.len() > LISTED { ", ..." } else { "" };
            return Err(Error::new_err(format!(
                "{}: {} of {} samples are damaged: {}{more}; sample {}: {}; copy or download the archive again, or \
                 give damaged=\"skip\" or \"mask\"",
                this.archive.data().path().display(),
                found.len(),
                this.archive.samples(),
                numbers.join(", "),
                first.sample,
                first.problem,
            )));
        }
        this.tell(py, &found)?;
        Ok(this)
    }

    /// What was found damaged so far.
    pub fn damaged(&self) -> Arc<Damaged> {
        Arc::clone(&locked(&self.damaged))
    }

    /// Whether a sample was found damaged and is masked.
    pub fn is_masked(&self, sample: usize) -> bool {
        self.on_damage == OnDamage::Mask && locked(&self.damaged).contains_key(&sample)
    }

    /// Remembers what was found damaged, and warns of what is new.
    pub fn tell(&self, py: Python<'_>, damaged: &[BadSample]) -> PyResult<()> {
        let new: Vec<String> = {
            let mut known = locked(&self.damaged);
            let new = damaged.iter().filter(|bad| !known.contains_key(&bad.sample)).collect::<Vec<_>>();
            if new.is_empty() {
                return Ok(());
            }
            let known = Arc::make_mut(&mut known);
            new.iter().for_each(|bad| drop(known.insert(bad.sample, bad.problem.to_string())));
            new.iter().map(|bad| format!("sample {} is damaged: {}", bad.sample, bad.problem)).collect()
        };
        let done = if self.on_damage == OnDamage::Skip { "left out" } else { "masked" };
        let more = match new.len() {
            1 => String::new(),
            count => format!(" (and {} more of this batch)", count - 1),
        };
        let path = self.archive.data().path().display();
        let message = format!("{path}: {}{more}; it is {done}, as asked; `damaged` lists all", new[0]);
        py.import("warnings")?.call_method1("warn", (message, py.get_type::<DamageWarning>(), 2)).map(drop)
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
        let found = Mutex::new(Vec::new());
        let usable = |resident: &Resident| !resident.decoder().device().is_lost();
        let resident = found_or_made(py, &self.residents, select, usable, || {
            let threads = Process::current().threads()?;
            let made = threads.install(|| match self.on_damage {
                OnDamage::Raise => Ok((Resident::new(&decoder, &self.archive, None)?, Vec::new())),
                OnDamage::Skip | OnDamage::Mask => Resident::with_damage(&decoder, &self.archive, None),
            });
            let (resident, damaged) = made.map_err(raise)?;
            *locked(&found) = damaged;
            Ok(resident)
        })?;
        self.tell(py, &locked(&found))?;
        Ok(resident)
    }

    /// The rows of samples that are all used now. Waits for no disk, but where it is busy; call it without the
    /// interpreter.
    pub fn rows(&self, samples: &[usize], on_damage: OnDamage) -> PyResult<Rows<'_>> {
        let read = || {
            self.archive.will_need(samples.iter().copied())?;
            self.archive.rows_with(samples.iter().copied(), on_damage)
        };
        Process::current().threads()?.install(read).map_err(raise)
    }

    /// The rows of a batch, while those of the next are read from disk.
    pub fn rows_of(&self, epoch: &Epoch, batch: usize) -> kuat::Result<Rows<'_>> {
        if batch == 0 {
            self.archive.will_need(epoch.batch(0).iter().copied())?;
        }
        self.archive.will_need(epoch.batch(batch + 1).iter().copied())?;
        self.archive.rows_with(epoch.batch(batch).iter().copied(), self.on_damage)
    }

    /// Decodes rows into new memory.
    pub fn decode(&self, decoder: &dyn Decoder, rows: &Rows, spec: &OutputSpec) -> kuat::Result<Arc<Memory>> {
        let shape = spec.layout.shape(self.archive.geometry(), rows.len());
        Memory::filled(&shape, spec.dtype.into(), |bytes| {
            decoder.decode_bytes(&rows.slices(), spec, bytes)?;
            rows.mask(bytes);
            Ok(())
        })
    }

    /// Copies index rows, as stored, into new memory.
    pub fn packed(&self, rows: &Rows) -> kuat::Result<Arc<Memory>> {
        let row_len = self.archive.vq()?.row_len();
        Memory::filled(&[rows.len(), row_len], ElementType::U8, |bytes| {
            let pairs = bytes.par_chunks_exact_mut(row_len).zip(rows.par_iter());
            pairs.for_each(|(target, row)| target.copy_from_slice(row));
            Ok(())
        })
    }

    /// Reads from the archive on the threads of this process; call it without the interpreter.
    pub fn read<T: Send>(&self, read: impl FnOnce(&Archive) -> kuat::Result<T> + Send) -> PyResult<T> {
        Process::current().threads()?.install(|| read(&self.archive)).map_err(raise)
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
