//! Encoding what Python gives.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kuat::encode::{EncodeSummary, Image, ReadOptions, Source, open, with_classes};
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::prelude::*;
use rayon::ThreadPoolBuilder;

use crate::json::to_python;
use crate::options::Options;
use crate::picture::Picture;
use crate::process::Process;
use crate::progress::{answering, interruptible};

/// Encodes what lies at a path: a folder of images, a manifest, CIFAR, shards. `classes` are other names for its own.
#[pyfunction]
pub(crate) fn encode_path(
    py: Python<'_>,
    source: PathBuf,
    path: PathBuf,
    options: &Options,
    classes: Option<Vec<String>>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Py<PyAny>> {
    let summary = interruptible(py, progress, |progress| {
        let mut source = open(source)?;
        if let Some(classes) = classes {
            source = with_classes(source, classes)?;
        }
        options.encode(source.as_ref(), &path, progress)
    })?;
    summary_to_dict(py, &summary, &path)
}

/// Encodes `len` images, of which `read(index)` gives (array or path, label or None, caption or None).
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "all but the first are what Python says of one source")]
pub(crate) fn encode_source(
    py: Python<'_>,
    read: Py<PyAny>,
    len: usize,
    labels: bool,
    captions: bool,
    classes: Option<Vec<String>>,
    path: PathBuf,
    options: &Options,
    progress: Option<Py<PyAny>>,
) -> PyResult<Py<PyAny>> {
    let answer = |py: Python<'_>, question: Question| {
        let item = read.bind(py).call1((question.index,)).and_then(|item| item.extract::<Item>());
        match item {
            // KeyboardInterrupt, SystemExit: nothing to skip.
            Err(error) if !error.is_instance_of::<PyException>(py) => Err(error),
            // It fails only if nobody waits any more.
            item => question.answer.send(item).or(Ok(())),
        }
    };
    let threads = py.detach(|| Process::current().threads())?.current_num_threads();
    let builder = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("kuat-encode-{i}"));
    let threads = builder.build().map_err(|error| PyRuntimeError::new_err(format!("cannot start threads: {error}")))?;
    let summary = answering(py, progress, &threads, answer, |progress, questions| {
        let (labels, captions) = (labels.then(Mutex::default), captions.then(Mutex::default));
        let source = PythonSource { len, labels, captions, classes, questions: questions.clone() };
        options.encode(&source, &path, progress)
    })?;
    summary_to_dict(py, &summary, &path)
}

/// The summary with the keys of `kuat encode --json`.
pub(crate) fn summary_to_dict(py: Python<'_>, summary: &EncodeSummary, path: &Path) -> PyResult<Py<PyAny>> {
    let summary = to_python(py, summary)?;
    summary.set_item("archive", path.as_os_str())?;
    Ok(summary.unbind())
}

/// An image, its label and its caption.
type Item = (Picture, Option<i64>, Option<String>);

/// Asks the thread that called for an image.
struct Question {
    index: usize,
    answer: SyncSender<PyResult<Item>>,
}

/// Images that Python reads by index, on the thread that called.
struct PythonSource {
    len: usize,
    /// The labels of the images read, if there are labels.
    labels: Option<Mutex<Vec<Option<i64>>>>,
    captions: Option<Mutex<Vec<Option<String>>>>,
    classes: Option<Vec<String>>,
    questions: Sender<Question>,
}

impl Source for PythonSource {
    fn len(&self) -> usize {
        self.len
    }

    fn name(&self, index: usize) -> String {
        format!("item {index}")
    }

    fn read(&self, index: usize, options: &ReadOptions) -> kuat::Result<Image> {
        let (answer, answered) = sync_channel(1);
        // Both fail only if the thread that called has ended the work.
        self.questions.send(Question { index, answer }).map_err(|_| kuat::Error::Interrupted)?;
        let item = answered.recv().map_err(|_| kuat::Error::Interrupted)?;
        let failed = |error: PyErr| kuat::Error::Source { name: self.name(index), source: Box::new(error) };
        let (picture, label, caption) = item.map_err(failed)?;
        put(self.labels.as_ref(), index, label);
        put(self.captions.as_ref(), index, caption);
        picture.into_image(options)
    }

    fn has_labels(&self) -> bool {
        self.labels.is_some()
    }

    fn label(&self, index: usize) -> Option<i64> {
        locked(self.labels.as_ref()?).get(index).copied().flatten()
    }

    fn classes(&self) -> Option<Vec<String>> {
        self.classes.clone()
    }

    fn has_captions(&self) -> bool {
        self.captions.is_some()
    }

    fn caption(&self, index: usize) -> kuat::Result<Option<String>> {
        Ok(self.captions.as_ref().and_then(|captions| locked(captions).get(index).cloned().flatten()))
    }
}

fn locked<T>(column: &Mutex<Vec<Option<T>>>) -> MutexGuard<'_, Vec<Option<T>>> {
    column.lock().unwrap_or_else(PoisonError::into_inner)
}

fn put<T: Clone>(column: Option<&Mutex<Vec<Option<T>>>>, index: usize, value: Option<T>) {
    if let Some(mut column) = column.map(locked) {
        let len = column.len().max(index + 1);
        column.resize(len, None);
        column[index] = value;
    }
}
