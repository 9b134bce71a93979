//! What does not survive `fork()`: threads, devices, memory pools. Each process has its own, made when first needed.

use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// The state of one process. It lives as long as the process does.
pub(crate) struct Process {
    id: u32,
    /// `None` until first needed.
    threads: RwLock<Option<Arc<ThreadPool>>>,
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
        let new: &'static Process = Box::leak(Box::new(Self { id, threads: RwLock::default() }));
        let pointer = std::ptr::from_ref(new).cast_mut();
        match CURRENT.compare_exchange(found, pointer, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => new,
            // Another thread of this process was first. What this one made holds nothing yet.
            Err(_) => Self::current(),
        }
    }

    /// The number that tells processes apart.
    pub fn id(&self) -> u32 {
        self.id
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

/// Sets how many threads decode and encode in this process.
///
/// The default is one per core, or what the environment variable RAYON_NUM_THREADS says. 0 brings the default back.
#[pyfunction]
pub(crate) fn set_num_threads(py: Python<'_>, count: u16) -> PyResult<()> {
    py.detach(|| Process::current().start_threads(count.into(), true)).map(drop)
}
