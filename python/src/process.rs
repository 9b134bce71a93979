//! What does not survive `fork()`: threads, devices, memory pools. Each process has its own, made when first needed.

use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use kuat::BufferPool;
use kuat::gpu::{AdapterDescription, Device, Select, adapters};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, raise};
use crate::unsigned::Unsigned;

/// How long the end of the process waits for batches in the making.
const LONGEST_END: Duration = Duration::from_secs(10);

/// The state of one process. It lives as long as the process does.
pub(crate) struct Process {
    id: u32,
    /// `None` until first needed.
    threads: RwLock<Option<Arc<ThreadPool>>>,
    memory: BufferPool,
    /// Each opened once, by what was asked for.
    devices: Mutex<HashMap<Select, Device>>,
    /// Whether a real GPU was looked for and there is none.
    has_no_gpu: AtomicBool,
    /// How many GPUs were opened or are being opened.
    gpus: AtomicUsize,
    /// Whether a process that this one was forked from had opened GPUs. Drivers have threads and locks of their own
    /// that do not survive it: some hang at work in a child, even if that opens a device anew.
    inherits_gpus: bool,
    /// How many batches are being made ahead, and whether there should be no more.
    ahead: AtomicUsize,
    ending: AtomicBool,
}

/// The state of the process that looked last. A forked child finds its parent's here, sees by the number that it is
/// not its own, and puts a new one in its place; it never touches the parent's, whose locks may be held for ever by
/// threads that were not copied.
static CURRENT: AtomicPtr<Process> = AtomicPtr::new(std::ptr::null_mut());

impl Process {
    /// The state of this process.
    pub fn current() -> &'static Self {
        let id = std::process::id();
        let found = CURRENT.load(Ordering::Acquire);
        // SAFETY: what was stored here is leaked below and never freed.
        if let Some(process) = unsafe { found.as_ref() }.filter(|process| process.id == id) {
            return process;
        }
        // SAFETY: as above.
        let parent = unsafe { found.as_ref() };
        let new: &'static Process = Box::leak(Box::new(Self {
            id,
            threads: RwLock::default(),
            memory: BufferPool::default(),
            devices: Mutex::default(),
            has_no_gpu: AtomicBool::new(false),
            gpus: AtomicUsize::new(0),
            ahead: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
            inherits_gpus: parent.is_some_and(|parent| parent.inherits_gpus || parent.gpus.load(Ordering::Relaxed) > 0),
        }));
        let pointer = std::ptr::from_ref(new).cast_mut();
        match CURRENT.compare_exchange(found, pointer, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => new,
            // Another thread of this process was first. What this one made holds nothing yet.
            Err(_) => Self::current(),
        }
    }

    /// The memory of batches.
    pub fn memory(&self) -> &BufferPool {
        &self.memory
    }

    /// A GPU, opened when first asked for. Takes a while: not to be called with the interpreter attached.
    pub fn device(&self, select: &Select) -> PyResult<Device> {
        if self.inherits_gpus {
            let problem = "GPUs cannot be used in a process that was forked from one that had opened them: start it \
                           by \"spawn\" or \"forkserver\", or decode with device=\"cpu\" or \"auto\"";
            return Err(Error::new_err(problem));
        }
        self.opened(select).map_err(raise)
    }

    /// The best real GPU, if there is one that can be used in this process. One that fails is an error.
    pub fn best_device(&self) -> PyResult<Option<Device>> {
        if self.inherits_gpus || self.has_no_gpu.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match self.opened(&Select::Best) {
            Ok(device) => Ok(Some(device)),
            Err(kuat::Error::NoAdapter { .. }) => {
                self.has_no_gpu.store(true, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => Err(raise(error)),
        }
    }

    /// A GPU, opened when first asked for, and again once it was lost.
    fn opened(&self, select: &Select) -> kuat::Result<Device> {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = devices.get(select).filter(|device| !device.is_lost()) {
            return Ok(device.clone());
        }
        // What is left of one that was lost goes before.
        devices.remove(select);
        let device = self.open(select)?;
        Ok(devices.entry(select.clone()).or_insert(device).clone())
    }

    /// The GPU adapters of the machine. Counts as using them, as drivers are loaded, until it is done.
    pub fn adapters(&self) -> Vec<AdapterDescription> {
        self.gpus.fetch_add(1, Ordering::Relaxed);
        let adapters = adapters();
        self.gpus.fetch_sub(1, Ordering::Relaxed);
        adapters
    }

    /// Makes a batch ahead of its use, unless the process is ending.
    pub fn work_ahead<T>(&self, work: impl FnOnce() -> kuat::Result<T>) -> kuat::Result<T> {
        self.ahead.fetch_add(1, Ordering::SeqCst);
        let result = if self.ending.load(Ordering::SeqCst) { Err(kuat::Error::Interrupted) } else { work() };
        self.ahead.fetch_sub(1, Ordering::SeqCst);
        result
    }

    /// Waits until nothing is made ahead any more: what drivers do once the process takes them down is undefined.
    fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        let start = Instant::now();
        while self.ahead.load(Ordering::SeqCst) > 0 && start.elapsed() < LONGEST_END {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Batches that were submitted and nobody waits for.
        let devices: Vec<Device> =
            self.devices.try_lock().map(|devices| devices.values().cloned().collect()).unwrap_or_default();
        for device in &devices {
            // What it cannot do any more is of no interest now.
            let _ = device.finish();
        }
    }

    fn open(&self, select: &Select) -> kuat::Result<Device> {
        // Before it is done: another thread may fork meanwhile.
        self.gpus.fetch_add(1, Ordering::Relaxed);
        let device = Device::open(select);
        if matches!(device, Err(kuat::Error::NoAdapter { .. })) {
            self.gpus.fetch_sub(1, Ordering::Relaxed);
        }
        device
    }

    /// The threads that decode and encode.
    pub fn threads(&self) -> PyResult<Arc<ThreadPool>> {
        let existing = self.threads.read().unwrap_or_else(PoisonError::into_inner).clone();
        match existing {
            Some(pool) => Ok(pool),
            None => self.start_threads(0, false),
        }
    }

    /// Starts `count` threads, or one per core for 0 (RAYON_NUM_THREADS overrides), unless there are some to keep.
    fn start_threads(&self, count: usize, replace: bool) -> PyResult<Arc<ThreadPool>> {
        let mut threads = self.threads.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = threads.as_ref().filter(|_| !replace) {
            return Ok(Arc::clone(pool));
        }
        let builder = ThreadPoolBuilder::new().num_threads(count).thread_name(|i| format!("kuat-{i}"));
        let pool =
            builder.build().map_err(|error| PyRuntimeError::new_err(format!("cannot start threads: {error}")))?;
        Ok(Arc::clone(threads.insert(Arc::new(pool))))
    }
}

/// What works only in the process that made it. A forked child can neither use nor drop its copy: the threads behind it
/// are gone, and their locks may be held for ever.
pub(crate) struct Local<T> {
    process: u32,
    value: ManuallyDrop<T>,
}

impl<T> Local<T> {
    pub fn new(value: T) -> Self {
        Self { process: std::process::id(), value: ManuallyDrop::new(value) }
    }

    /// The value, in the process that made it.
    pub fn get(&self) -> Option<&T> {
        (self.process == std::process::id()).then_some(&*self.value)
    }
}

impl<T> Drop for Local<T> {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            // SAFETY: dropped once, here, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

/// Sets how many threads decode and encode in this process.
///
/// The default is one per core, or what the environment variable RAYON_NUM_THREADS says. 0 brings the default back.
#[pyfunction]
pub(crate) fn set_num_threads(py: Python<'_>, count: Unsigned<u16>) -> PyResult<()> {
    py.detach(|| Process::current().start_threads(count.0.into(), true)).map(drop)
}

/// As `set_num_threads`, but for a process that has neither threads yet nor RAYON_NUM_THREADS.
#[pyfunction]
pub(crate) fn suggest_num_threads(py: Python<'_>, count: Unsigned<u16>) -> PyResult<()> {
    match std::env::var_os("RAYON_NUM_THREADS") {
        Some(_) => Ok(()),
        None => py.detach(|| Process::current().start_threads(count.0.into(), false)).map(drop),
    }
}

/// Lets native threads come to an end before the process does. Registered with `atexit`.
#[pyfunction]
pub(crate) fn end_process(py: Python<'_>) {
    py.detach(|| Process::current().end());
}
