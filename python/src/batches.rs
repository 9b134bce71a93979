//! The batches of an epoch, made ahead of their use.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kuat::gpu::{PendingBatch, Stream};
use kuat::loader::{Epoch, EpochOptions, NotYet, Prefetch};
use kuat::{BadSample, OnDamage, OutputSpec, Rows, mask};
use numpy::PyArray1;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::batch::Batch;
use crate::error::raise;
use crate::memory::Memory;
use crate::opened::{Damaged, Maker, Opened, labels};
use crate::process::{Local, Process};

/// How often a waiting iterator looks for Ctrl-C.
const INTERVAL: Duration = Duration::from_millis(100);

/// A batch on its way to Python.
struct Made {
    picked: Picked,
    labels: Vec<i64>,
    memory: Arc<Memory>,
}

/// The images of a batch, and whose they are.
type Images = (Picked, Arc<Memory>);

/// Whose images a batch holds.
struct Picked {
    samples: Vec<usize>,
    /// What was found damaged.
    damaged: Vec<BadSample>,
    /// Places in the batch of images that are masked.
    masked: Vec<usize>,
}

impl Picked {
    fn new(rows: &Rows) -> Self {
        let (samples, damaged) = (rows.samples().to_vec(), rows.damaged().to_vec());
        Self { samples, damaged, masked: rows.masked().to_vec() }
    }
}

/// (samples, labels, images) of one batch in Python.
type Item<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>, Bound<'py, Batch>);

/// An iterator over the batches of an epoch: (samples, labels, images), int64 arrays and a `kuat.Batch`. Its `len` is
/// the number of batches of the whole epoch.
#[pyclass(frozen, module = "kuat._kuat")]
pub(crate) struct Batches {
    /// Locked only without the interpreter; a thread that does not survive a `fork()` fills it.
    made: Local<Mutex<Prefetch<Made>>>,
    opened: Arc<Opened>,
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
        let mut make = make(Arc::clone(&opened), epoch, maker, spec);
        let source = Arc::clone(&opened);
        let made = Prefetch::new(len, ahead, move |batch| {
            process.work_ahead(|| {
                threads.install(|| {
                    let (picked, memory) = make(batch)?;
                    let mut labels = labels(&source.archive, &picked.samples)?;
                    picked.masked.iter().for_each(|&place| labels[place] = -1);
                    Ok(Made { picked, labels, memory })
                })
            })
        })
        .map_err(raise)?;
        Ok(Self { made: Local::new(Mutex::new(made)), opened, len, device })
    }
}

/// What makes a batch in memory, called with 0, 1, ...
type Make = Box<dyn FnMut(usize) -> kuat::Result<Images> + Send>;

fn make(opened: Arc<Opened>, epoch: Arc<Epoch>, maker: Maker, spec: OutputSpec) -> Make {
    match maker {
        Maker::None => {
            let known = Known::new(&opened);
            Box::new(move |batch| Ok((known.pick(epoch.batch(batch)), opened.packed(&Rows::default())?)))
        }
        Maker::Packed => Box::new(move |batch| {
            let rows = opened.rows_of(&epoch, batch)?;
            Ok((Picked::new(&rows), opened.packed(&rows)?))
        }),
        Maker::Cpu(decoder) => Box::new(move |batch| {
            let rows = opened.rows_of(&epoch, batch)?;
            Ok((Picked::new(&rows), opened.decode(&*decoder, &rows, &spec)?))
        }),
        Maker::Gpu(decoder) => {
            let from = Arc::clone(&opened);
            streamed(opened, epoch.len(), spec, move |batch| {
                let rows = from.rows_of(&epoch, batch)?;
                Ok((Picked::new(&rows), decoder.submit(&rows, &spec)?))
            })
        }
        Maker::Resident(resident) => {
            let known = Known::new(&opened);
            streamed(opened, epoch.len(), spec, move |batch| {
                let picked = known.pick(epoch.batch(batch));
                let pending = resident.submit(&picked.samples, &spec)?;
                Ok((picked, pending))
            })
        }
    }
}

/// Damage that was found when all rows were sent to a device.
struct Known {
    damaged: Arc<Damaged>,
    skip: bool,
}

impl Known {
    fn new(opened: &Opened) -> Self {
        Self { damaged: opened.damaged(), skip: opened.on_damage == OnDamage::Skip }
    }

    /// The samples of a batch without those to be skipped, and the places of those to be masked.
    fn pick(&self, samples: &[usize]) -> Picked {
        let is_damaged = |sample: &usize| self.damaged.contains_key(sample);
        let (kept, masked) = match self.skip {
            true => (samples.iter().copied().filter(|sample| !is_damaged(sample)).collect(), Vec::new()),
            false => (samples.to_vec(), (0..samples.len()).filter(|&place| is_damaged(&samples[place])).collect()),
        };
        Picked { samples: kept, damaged: Vec::new(), masked }
    }
}

/// Batches of a GPU, which has several in flight.
fn streamed(
    opened: Arc<Opened>,
    len: usize,
    spec: OutputSpec,
    mut submit: impl FnMut(usize) -> kuat::Result<(Picked, PendingBatch)> + Send + 'static,
) -> Make {
    let (sender, submitted) = channel();
    let mut stream = Stream::new(len, move |batch| {
        let (picked, pending) = submit(batch)?;
        // The receiver lives beside the stream.
        let _ = sender.send(picked);
        Ok(pending)
    });
    Box::new(move |_| {
        stream.submit_ahead();
        // What could not be submitted is an error of the stream's, which looks at it before it looks at the output.
        let picked: Option<Picked> = submitted.try_recv().ok();
        let samples = picked.as_ref().map_or(0, |picked| picked.samples.len());
        let shape = spec.layout.shape(opened.archive.geometry(), samples);
        let memory = Memory::filled(&shape, spec.dtype.into(), |bytes| {
            stream.read_into(bytes).map(|()| {
                picked.iter().for_each(|picked| mask(&picked.masked, samples, bytes));
            })
        })?;
        Ok((picked.ok_or(kuat::Error::Interrupted)?, memory))
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
                    let Made { picked: Picked { samples, damaged, masked }, labels, memory } = made.map_err(raise)?;
                    self.opened.tell(py, &damaged)?;
                    let samples = samples.into_iter().map(|sample| sample as i64).collect();
                    let batch = Bound::new(py, Batch { memory, device: self.device.clone(), masked })?;
                    return Ok(Some((PyArray1::from_vec(py, samples), PyArray1::from_vec(py, labels), batch)));
                }
            }
        }
    }
}
