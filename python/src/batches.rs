//! The batches of an epoch, made ahead of their use.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kuat::OutputSpec;
use kuat::gpu::{PendingBatch, Stream};
use kuat::loader::{Epoch, EpochOptions, NotYet, Prefetch};
use numpy::PyArray1;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::batch::Batch;
use crate::error::raise;
use crate::memory::Memory;
use crate::opened::{Maker, Opened, labels};
use crate::process::{Local, Process};

/// How often a waiting iterator looks for Ctrl-C.
const INTERVAL: Duration = Duration::from_millis(100);

/// A batch on its way to Python.
struct Made {
    samples: Vec<i64>,
    labels: Vec<i64>,
    memory: Arc<Memory>,
}

/// (samples, labels, images) of one batch in Python.
type Item<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>, Bound<'py, Batch>);

/// An iterator over the batches of an epoch: (samples, labels, images), int64 arrays and a `kuat.Batch`. Its `len` is
/// the number of batches of the whole epoch.
#[pyclass(frozen, module = "kuat._kuat")]
pub(crate) struct Batches {
    /// Locked only without the interpreter; a thread that does not survive a `fork()` fills it.
    made: Local<Mutex<Prefetch<Made>>>,
    len: usize,
    device: String,
}

impl Batches {
    /// Starts making batches.
    pub fn new(
        py: Python<'_>,
        opened: Arc<Opened>,
        options: EpochOptions,
        ahead: usize,
        maker: Maker,
        spec: OutputSpec,
    ) -> PyResult<Self> {
        if ahead > 1 << 16 {
            return Err(PyValueError::new_err(format!("ahead is {ahead}, expected a few batches")));
        }
        let device = maker.device_name().to_string();
        let process = Process::current();
        let (threads, epoch) = py.detach(|| -> PyResult<_> {
            let epoch = Epoch::new(opened.archive.samples(), &options).map_err(raise)?;
            Ok((process.threads()?, Arc::new(epoch)))
        })?;
        let len = epoch.len();
        let mut make = make(Arc::clone(&opened), Arc::clone(&epoch), maker, spec);
        let made = Prefetch::new(len, ahead, move |batch| {
            let memory = process.work_ahead(|| threads.install(|| make(batch)))?;
            let samples = epoch.batch(batch);
            let labels = labels(&opened.archive, samples)?;
            Ok(Made { samples: samples.iter().map(|&sample| sample as i64).collect(), labels, memory })
        })
        .map_err(raise)?;
        Ok(Self { made: Local::new(Mutex::new(made)), len, device })
    }
}

/// What makes a batch in memory, called with 0, 1, ...
type Make = Box<dyn FnMut(usize) -> kuat::Result<Arc<Memory>> + Send>;

fn make(opened: Arc<Opened>, epoch: Arc<Epoch>, maker: Maker, spec: OutputSpec) -> Make {
    match maker {
        Maker::None => Box::new(move |_| opened.packed(&[])),
        Maker::Packed => Box::new(move |batch| opened.packed(&opened.rows_of(&epoch, batch)?)),
        Maker::Cpu(decoder) => Box::new(move |batch| opened.decode(&*decoder, &opened.rows_of(&epoch, batch)?, &spec)),
        Maker::Gpu(decoder) => {
            let (from, order) = (Arc::clone(&opened), Arc::clone(&epoch));
            streamed(opened, epoch, spec, move |batch| decoder.submit(&from.rows_of(&order, batch)?, &spec))
        }
        Maker::Resident(resident) => {
            let order = Arc::clone(&epoch);
            streamed(opened, epoch, spec, move |batch| resident.submit(order.batch(batch), &spec))
        }
    }
}

/// Batches of a GPU, which has several in flight.
fn streamed(
    opened: Arc<Opened>,
    epoch: Arc<Epoch>,
    spec: OutputSpec,
    submit: impl FnMut(usize) -> kuat::Result<PendingBatch> + Send + 'static,
) -> Make {
    let mut stream = Stream::new(epoch.len(), submit);
    Box::new(move |batch| {
        let shape = spec.layout.shape(opened.archive.geometry(), epoch.batch(batch).len());
        Memory::filled(&shape, spec.dtype.into(), |bytes| stream.read_into(bytes))
    })
}

#[pymethods]
impl Batches {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __len__(&self) -> usize {
        self.len
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Item<'py>>> {
        let made = self.made.get().ok_or_else(|| {
            let problem = "batches that a process makes cannot be used in its forked child; start an epoch there";
            PyRuntimeError::new_err(problem)
        })?;
        loop {
            let next = py.detach(|| made.lock().unwrap_or_else(PoisonError::into_inner).next_within(INTERVAL));
            match next {
                Err(NotYet) => py.check_signals()?,
                Ok(None) => return Ok(None),
                Ok(Some(made)) => {
                    let Made { samples, labels, memory } = made.map_err(raise)?;
                    let batch = Bound::new(py, Batch { memory, device: self.device.clone() })?;
                    return Ok(Some((PyArray1::from_vec(py, samples), PyArray1::from_vec(py, labels), batch)));
                }
            }
        }
    }
}
