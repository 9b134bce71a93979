//! How long work tells how far it is, and learns that it should stop.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// Receives the progress of long work, from any of its threads.
pub trait Progress: Sync {
    /// A stage of `total` steps begins.
    fn begin(&self, stage: &str, total: usize) {
        let _ = (stage, total);
    }

    /// `done` of the stage's steps are finished.
    fn update(&self, done: usize) {
        let _ = done;
    }

    /// Whether the work should stop; it then ends with [`Error::Interrupted`].
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// No report, no cancelling.
impl Progress for () {}

/// Counts the steps of one stage over all threads.
pub(crate) struct Counter<'a> {
    progress: &'a dyn Progress,
    done: AtomicUsize,
}

impl<'a> Counter<'a> {
    pub fn new(progress: &'a dyn Progress, stage: &str, total: usize) -> Self {
        progress.begin(stage, total);
        Self { progress, done: AtomicUsize::new(0) }
    }

    pub fn add(&self, steps: usize) -> Result<()> {
        let done = self.done.fetch_add(steps, Ordering::Relaxed) + steps;
        self.progress.update(done);
        if self.progress.is_cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }
}
