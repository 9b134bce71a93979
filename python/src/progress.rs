//! Long work that shows how far it is and ends at Ctrl-C.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kuat::progress::Progress;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use rayon::ThreadPool;

use crate::error::raise;
use crate::process::Process;

/// How often Python looks for signals and is told of progress.
const INTERVAL: Duration = Duration::from_millis(50);

/// Runs `work` on the process's threads, while the calling thread looks for signals and calls
/// `callback(stage, done, total)`. An exception of either cancels the work and is raised once it has ended.
pub(crate) fn interruptible<T: Send>(
    py: Python<'_>,
    callback: Option<Py<PyAny>>,
    work: impl FnOnce(&dyn Progress) -> kuat::Result<T> + Send,
) -> PyResult<T> {
    let threads = py.detach(|| Process::current().threads())?;
    let never = |_: Python<'_>, question: Infallible| match question {};
    answering(py, callback, &threads, never, |progress, _| work(progress))
}

/// As [`interruptible`], for work that asks the calling thread questions, which `answer` answers in Python.
///
/// Only that thread runs code of the caller's, as in any other function of Python's: what that code uses need not
/// know of threads. It may call kuat itself, which waits for the process's threads, so `threads` must be others if
/// the work on them waits for answers. An exception of `answer`'s ends the work; later questions are dropped.
pub(crate) fn answering<Q: Send, T: Send>(
    py: Python<'_>,
    callback: Option<Py<PyAny>>,
    threads: &ThreadPool,
    mut answer: impl FnMut(Python<'_>, Q) -> PyResult<()> + Send,
    work: impl FnOnce(&dyn Progress, &Sender<Q>) -> kuat::Result<T> + Send,
) -> PyResult<T> {
    let watched = Watched::default();
    let mut reporter = Reporter { callback, last: None };
    let (questions, asked) = mpsc::channel();
    py.detach(|| {
        thread::scope(|scope| {
            let (asked, watched) = (asked, &watched);
            // The last sender goes with the work: that is how the loop below learns of the end.
            let run = move || threads.install(|| work(watched, &questions));
            let worker = thread::Builder::new().name("kuat-work".into()).spawn_scoped(scope, run);
            let worker = worker.map_err(|error| PyRuntimeError::new_err(format!("cannot start a thread: {error}")))?;
            let mut outcome: PyResult<()> = Ok(());
            let mut looked = Instant::now();
            loop {
                let question = match asked.recv_timeout(INTERVAL) {
                    Ok(question) => Some(question),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                };
                if outcome.is_err() {
                    continue;
                }
                outcome = Python::attach(|py| {
                    if let Some(question) = question {
                        answer(py, question)?;
                    }
                    if looked.elapsed() >= INTERVAL {
                        py.check_signals()?;
                        reporter.report(py, watched)?;
                        looked = Instant::now();
                    }
                    Ok(())
                });
                watched.cancelled.store(outcome.is_err(), Ordering::Relaxed);
            }
            let result = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome?;
            let result = result.map_err(raise)?;
            Python::attach(|py| reporter.report(py, watched))?;
            Ok(result)
        })
    })
}

/// A stage of the work.
#[derive(Clone, PartialEq)]
struct Stage {
    name: String,
    done: usize,
    total: usize,
}

/// How far the work is, and whether it should stop.
#[derive(Default)]
struct Watched {
    /// The stages that were not yet reported as finished, in their order.
    stages: Mutex<Vec<Stage>>,
    cancelled: AtomicBool,
}

impl Watched {
    fn stages(&self) -> MutexGuard<'_, Vec<Stage>> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Watched {
    fn begin(&self, stage: &str, total: usize) {
        self.stages().push(Stage { name: stage.into(), done: 0, total });
    }

    fn update(&self, done: usize) {
        if let Some(stage) = self.stages().last_mut() {
            // Threads may tell of their steps in another order than they counted them.
            stage.done = stage.done.max(done);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// Tells Python what is new.
struct Reporter {
    callback: Option<Py<PyAny>>,
    last: Option<Stage>,
}

impl Reporter {
    /// Reports the end of each stage that has ended, and how far the current one is.
    fn report(&mut self, py: Python<'_>, watched: &Watched) -> PyResult<()> {
        let Some(callback) = &self.callback else { return Ok(()) };
        let stages = {
            let mut stages = watched.stages();
            let current = stages.last().cloned();
            std::mem::replace(&mut *stages, current.into_iter().collect())
        };
        for stage in stages {
            if self.last.as_ref() != Some(&stage) {
                callback.call1(py, (&stage.name, stage.done, stage.total))?;
                self.last = Some(stage);
            }
        }
        Ok(())
    }
}
