//! Whether a device still works: its loss, a driver that does not answer, errors that no call could report.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a submission may take before the driver is taken to hang. A GPU's batches end in milliseconds, the largest
/// of software adapters in seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is known of a device.
#[derive(Debug)]
pub(super) struct Health {
    /// The process that opened it.
    process: u32,
    /// How long a submission may take, in milliseconds.
    patience: AtomicU64,
    /// Why it does no more work; nothing changes that.
    end: OnceLock<End>,
    /// An error outside any call that could report it, which the next call does.
    stray: Mutex<Option<String>>,
}

/// Why a device does no more work.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// The driver gave it up, or somebody destroyed it; what was said of that.
    Lost(String),
    /// The driver did not answer for so long.
    Hung(Duration),
    /// This process is a fork of the one that opened it. Drivers have threads and locks that were not copied.
    Forked,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            End::Lost(message) => write!(f, "the device was lost ({message}); open it again"),
            End::Hung(time) => write!(
                f,
                "no answer for {time:?}: the driver hangs, or is given too much at a time; open the device again, and ask \
                 for fewer samples"
            ),
            End::Forked => f.write_str(
                "the process was forked after the device was opened; use GPUs in the parent alone, or start processes anew",
            ),
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            process: std::process::id(),
            patience: AtomicU64::new(PATIENCE.as_millis() as u64),
            end: OnceLock::new(),
            stray: Mutex::default(),
        }
    }
}

impl Health {
    pub fn set_patience(&self, time: Duration) {
        self.patience.store(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Why it does no more work, if that is so.
    pub fn end(&self) -> Option<End> {
        if self.process != std::process::id() { Some(End::Forked) } else { self.end.get().cloned() }
    }

    /// Notes why it does no more work; the first reason stays.
    pub fn note_end(&self, end: End) {
        let _ = self.end.set(end);
    }

    pub fn note_stray(&self, message: String) {
        self.stray.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
    }

    /// What is wrong with it; an error that is none of its end once only.
    pub fn check(&self) -> Result<(), String> {
        if let Some(end) = self.end() {
            return Err(end.to_string());
        }
        match self.stray.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(message) => Err(format!("another call on the device had an error: {message}")),
            None => Ok(()),
        }
    }

    /// Waits until a submission is done or the device's end.
    pub fn wait(&self, device: &wgpu::Device, submission: &wgpu::SubmissionIndex) {
        let patience = Duration::from_millis(self.patience.load(Ordering::Relaxed));
        let start = Instant::now();
        while self.end().is_none() {
            let left = patience.saturating_sub(start.elapsed());
            let wait = wgpu::PollType::Wait { submission_index: Some(submission.clone()), timeout: Some(left) };
            match poll(device, wait) {
                Ok(Ok(_)) => return,
                Ok(Err(wgpu::PollError::Timeout)) if start.elapsed() >= patience => self.note_end(End::Hung(patience)),
                // OpenGL waits for four seconds at most.
                Ok(Err(wgpu::PollError::Timeout)) => {}
                // A device that is lost takes no submissions, so there is none to wait for. What calls back once its queue is
                // empty says more.
                Ok(Err(_)) => {
                    let _ = poll(device, wgpu::PollType::Wait { submission_index: None, timeout: Some(left) });
                    self.note_end(End::Lost("it takes no more work".into()));
                }
                Err(message) => self.note_end(End::Lost(message)),
            }
        }
    }
}

/// Polls a device. Where the driver reports its loss then, wgpu 30 panics; that is the error here.
fn poll(device: &wgpu::Device, poll: wgpu::PollType) -> Result<Result<wgpu::PollStatus, wgpu::PollError>, String> {
    thread_local! {
        static POLLS: Cell<bool> = const { Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    // Nothing is to be printed of a panic that is caught; of all others what was before. While a thread panics it cannot
    // be said.
    if !std::thread::panicking() {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                if !POLLS.get() {
                    before(panic);
                }
            }));
        });
    }
    POLLS.set(true);
    // Nothing of this crate's is changed while it polls but by callbacks, which store one value each.
    let result = catch_unwind(AssertUnwindSafe(|| device.poll(poll)));
    POLLS.set(false);
    result.map_err(|panic| {
        let message = panic.downcast_ref::<String>().map_or("the driver failed", String::as_str);
        // "Error in Device::poll", and on lines that follow what caused it, the root last.
        message.trim().lines().next_back().unwrap_or_default().trim().into()
    })
}
