//! Progress bars and Ctrl-C.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::{Error, Result};
use crate::progress::Progress;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Shows progress on standard error where that is a terminal, and stops the work at Ctrl-C so that it can clean up.
pub(super) struct Terminal {
    bar: Mutex<ProgressBar>,
}

impl Terminal {
    pub fn new() -> Self {
        // Fails only if a handler is there already: the first call's, or that of a program this is part of.
        let _ = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed));
        Self { bar: Mutex::new(ProgressBar::hidden()) }
    }

    /// Ends with an error if Ctrl-C was pressed.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

impl Progress for Terminal {
    fn begin(&self, stage: &str, total: usize) {
        let bar = ProgressBar::new(total as u64).with_message(stage.to_string());
        let template = "{msg:10} [{bar:30}] {human_pos}/{human_len}  {per_sec}  {eta} left";
        // The template is a constant; were it wrong, indicatif's default would do.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_millis(200));
        let mut current = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        current.finish_and_clear();
        *current = bar;
    }

    fn update(&self, done: usize) {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner).set_position(done as u64);
    }

    fn is_cancelled(&self) -> bool {
        INTERRUPTED.load(Ordering::Relaxed)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner).finish_and_clear();
    }
}
