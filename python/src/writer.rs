//! Archives made image by image.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kuat::AtomicFile;
use kuat::encode::{OnError, Skipped, Source, Spool, report_skipped};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::encode::summary_to_dict;
use crate::error::raise;
use crate::options::Options;
use crate::picture::Picture;
use crate::process::Local;
use crate::progress::interruptible;

/// Collects images and encodes them in the end.
#[pyclass(frozen, module = "kuat._kuat")]
pub(crate) struct ArchiveWriter {
    path: PathBuf,
    options: Options,
    /// `None` once closed or discarded. Locked only without the interpreter, so that neither waits for the other.
    /// A forked child has its parent's file, and no say in what is written there.
    images: Local<Mutex<Option<Images>>>,
}

struct Images {
    spool: Spool,
    skipped: Vec<Skipped>,
}

#[pymethods]
impl ArchiveWriter {
    #[new]
    fn new(py: Python<'_>, path: PathBuf, options: &Options) -> PyResult<Self> {
        let options = options.clone();
        py.detach(|| {
            // Whether the archive can be written should not turn out in the end.
            drop(AtomicFile::create(&path).map_err(raise)?);
            let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
            let spool = Spool::create_in(folder, &options.encode).map_err(raise)?;
            let images = Local::new(Mutex::new(Some(Images { spool, skipped: Vec::new() })));
            Ok(Self { path, options, images })
        })
    }

    /// Adds an image. One that cannot be used is an error or is listed under its number, as the options say.
    fn add(
        &self,
        py: Python<'_>,
        index: usize,
        picture: Picture,
        label: Option<i64>,
        caption: Option<String>,
    ) -> PyResult<()> {
        py.detach(|| {
            let image = picture.into_image(&self.options.encode.reading());
            let mut images = self.locked()?;
            let images = images.as_mut().ok_or_else(closed)?;
            match image {
                Ok(image) => images.spool.push(image, label, caption).map_err(raise)?,
                Err(error) if self.options.encode.on_error == OnError::Skip => {
                    images.skipped.push(skipped(index, error.with_causes()));
                }
                Err(error) => return Err(raise(error)),
            }
            Ok(())
        })
    }

    /// Lists an image as left out.
    fn skip(&self, py: Python<'_>, index: usize, reason: String) -> PyResult<()> {
        py.detach(|| {
            self.locked()?.as_mut().ok_or_else(closed)?.skipped.push(skipped(index, reason));
            Ok(())
        })
    }

    /// Images added and not left out.
    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        py.detach(|| Ok(self.locked()?.as_ref().map_or(0, |images| images.spool.len())))
    }

    /// Encodes the images and writes the archive; the summary.
    fn close(&self, py: Python<'_>, classes: Option<Vec<String>>, progress: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        let images = py.detach(|| PyResult::Ok(self.locked()?.take()))?;
        let Images { mut spool, skipped } = images.ok_or_else(closed)?;
        let summary = interruptible(py, progress, move |progress| {
            if spool.is_empty()
                && let Some(first) = skipped.first()
            {
                return Err(kuat::Error::AllSkipped { files: skipped.len(), first: first.reason.clone() });
            }
            spool.set_classes(classes);
            // What the spool cannot read is its own fault, and nothing to skip.
            let mut options = self.options.clone();
            options.encode.on_error = OnError::Fail;
            let mut summary = options.encode(&spool, &self.path, progress)?;
            report_skipped(&self.path, &skipped)?;
            summary.skipped = skipped;
            Ok(summary)
        })?;
        summary_to_dict(py, &summary, &self.path)
    }

    /// Forgets the images; there will be no archive.
    fn discard(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| {
            drop(self.locked()?.take());
            Ok(())
        })
    }
}

impl ArchiveWriter {
    fn locked(&self) -> PyResult<MutexGuard<'_, Option<Images>>> {
        let images = self.images.get().ok_or_else(|| {
            PyRuntimeError::new_err("an ArchiveWriter stays with its process: make one in the forked child")
        })?;
        Ok(images.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn skipped(index: usize, reason: String) -> Skipped {
    Skipped { index, name: format!("item {index}"), reason }
}

fn closed() -> PyErr {
    PyValueError::new_err("the archive is closed or discarded; make a new ArchiveWriter")
}
