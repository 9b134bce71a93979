//! Whether this process reads from disk, or finds all it needs in memory.

use std::sync::atomic::{AtomicU64, Ordering};

/// Calls after a read during which it still counts. Asking for rows that are there already costs 0.7 to 1 microsecond
/// each, a tenth of what decoding one takes; asking for all reads of the process 0.6 in all.
const LATELY: u64 = 16;

/// What an archive knows of the reads of its process.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Reads of the process at the last call.
    seen: AtomicU64,
    /// Calls since there was a new one.
    quiet: AtomicU64,
}

impl Reads {
    /// Whether the process had to read something since one of the last calls, or these were the first. A read of
    /// anything counts: it is cheaper to be wrong sometimes than to ask about each page.
    pub fn lately(&self) -> bool {
        self.lately_by(of_this_process())
    }

    /// The same, by the number of reads so far.
    fn lately_by(&self, reads: u64) -> bool {
        if self.seen.swap(reads, Ordering::Relaxed) != reads {
            self.quiet.store(0, Ordering::Relaxed);
        }
        self.quiet.fetch_add(1, Ordering::Relaxed) < LATELY
    }
}

/// Page faults that waited for a disk, and blocks read from one: not all file systems count both.
#[cfg(unix)]
fn of_this_process() -> u64 {
    // SAFETY: a `rusage` is plain integers, for which zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is one, and ours.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    (usage.ru_majflt as u64).wrapping_add(usage.ru_inblock as u64)
}

#[cfg(not(unix))]
fn of_this_process() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_counts_for_some_calls() {
        let reads = Reads::default();
        let calls = |count, of| (0..count).map(|_| reads.lately_by(of)).collect::<Vec<_>>();
        assert!(!calls(LATELY, 7).contains(&false), "the first calls cannot know");
        assert!(!calls(100, 7).contains(&true));
        assert!(!calls(LATELY, 8).contains(&false));
        assert!(!calls(100, 8).contains(&true));
    }
}
