//! The order in which an epoch visits samples, and work done ahead of its use.
//!
//! ```no_run
//! use std::sync::Arc;
//! use kuat::loader::{Epoch, EpochOptions, Prefetch};
//! use kuat::{Archive, BufferPool, CpuDecoder, Decoder, OutputSpec};
//!
//! # fn main() -> kuat::Result<()> {
//! let archive = Arc::new(Archive::open("photos.qvq")?);
//! let decoder = CpuDecoder::new(&archive)?;
//! let options = EpochOptions { batch_size: 64, shuffle: true, ..EpochOptions::default() };
//! let epoch = Epoch::new(archive.samples(), &options)?;
//! let (pool, spec) = (BufferPool::default(), OutputSpec::default());
//! let batches = Prefetch::new(epoch.len(), 2, move |batch| {
//!     // Read from disk, if they are not in memory, while this batch is decoded.
//!     archive.will_need(epoch.batch(batch + 1).iter().copied())?;
//!     let rows = archive.rows(epoch.batch(batch).iter().copied())?;
//!     let mut pixels = pool.take(spec.batch_len(archive.geometry(), rows.len()))?;
//!     decoder.decode_bytes(&rows.slices(), &spec, &mut pixels)?;
//!     Ok(pixels)
//! })?;
//! for pixels in batches {
//!     println!("{} bytes", pixels?.len());
//! }
//! # Ok(())
//! # }
//! ```

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::Rng;
use rand_pcg::Pcg64;

use crate::error::{Error, Result};

/// How an epoch visits the samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochOptions {
    /// Samples per batch; the last may have fewer.
    pub batch_size: usize,
    /// Whether the order is random rather than that of the archive.
    pub shuffle: bool,
    /// Chooses the random orders; the same seed and epoch give the same one on every machine.
    pub seed: u64,
    /// Which epoch; each has an order of its own.
    pub epoch: u64,
    /// Whether to leave out what does not fill a batch (and, with shards, what they cannot share equally).
    pub drop_last: bool,
    /// This part, counted from 0, of so many parts, for training by several processes. Parts are equally large:
    /// without `drop_last` the first samples of the order fill up the last parts, as in torch's DistributedSampler.
    pub shard: (usize, usize),
}

impl Default for EpochOptions {
    fn default() -> Self {
        Self { batch_size: 64, shuffle: false, seed: 0, epoch: 0, drop_last: false, shard: (0, 1) }
    }
}

/// The batches of one epoch: which samples, in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    order: Vec<usize>,
    batch_size: usize,
}

impl Epoch {
    /// The order of `samples` samples: if shuffled, each permutation equally likely (Fisher and Yates' shuffle in
    /// Durstenfeld's form, numbers from PCG64).
    ///
    /// # Errors
    /// [`Error::Argument`] for batches of no samples and for a shard that does not exist.
    pub fn new(samples: usize, options: &EpochOptions) -> Result<Self> {
        let (rank, world) = options.shard;
        if options.batch_size == 0 {
            let (argument, found) = ("batch size", "0".into());
            return Err(Error::Argument { argument, found, expected: "at least 1".into() });
        }
        if rank >= world {
            let (argument, found) = ("shard", format!("part {rank} of {world}"));
            return Err(Error::Argument { argument, found, expected: "a part below the number of parts".into() });
        }
        let mut order: Vec<usize> = (0..samples).collect();
        if options.shuffle {
            // The seed is the state, the epoch the stream.
            let mut random = Pcg64::new(options.seed.into(), options.epoch.into());
            for last in (1..samples).rev() {
                // A number of 0 to `last`, uniform up to a bias of samples / 2^64.
                let other = (u128::from(random.next_u64()) * (last as u128 + 1)) >> 64;
                order.swap(last, other as usize);
            }
        }
        if world > 1 {
            let each = if options.drop_last { samples / world } else { samples.div_ceil(world) };
            order = (0..each).map(|i| order[(i * world + rank) % samples]).collect();
        }
        if options.drop_last {
            order.truncate(order.len() / options.batch_size * options.batch_size);
        }
        Ok(Self { order, batch_size: options.batch_size })
    }

    /// The number of batches.
    pub fn len(&self) -> usize {
        self.order.len().div_ceil(self.batch_size)
    }

    /// Whether there is no batch.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The samples of a batch; none from [`len`](Self::len) on.
    pub fn batch(&self, batch: usize) -> &[usize] {
        self.order.chunks(self.batch_size).nth(batch).unwrap_or_default()
    }

    /// The samples of all batches.
    pub fn order(&self) -> &[usize] {
        &self.order
    }
}

/// Results of work that a thread does ahead of their use, in order. Ends after the first error.
#[derive(Debug)]
pub struct Prefetch<T> {
    /// `None` only while this is dropped.
    results: Option<Receiver<Result<T>>>,
    /// `None` once it has ended.
    worker: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Starts a thread that calls `work` with 0, 1, ... below `count`, and stays at most `ahead` results ahead of the
    /// consumer, not counting the one it is at. Dropping this waits until the thread is done with that one.
    ///
    /// # Errors
    /// [`Error::Thread`] if no thread can be started.
    pub fn new(count: usize, ahead: usize, mut work: impl FnMut(usize) -> Result<T> + Send + 'static) -> Result<Self> {
        let (sender, results) = sync_channel(ahead);
        let worker = std::thread::Builder::new().name("kuat-prefetch".into()).spawn(move || {
            for item in 0..count {
                let result = work(item);
                let failed = result.is_err();
                // Nobody listens once the consumer is gone.
                if sender.send(result).is_err() || failed {
                    break;
                }
            }
        });
        Ok(Self { results: Some(results), worker: Some(worker.map_err(Error::Thread)?) })
    }
}

impl<T> Prefetch<T> {
    /// The next result if there is one within this time; `None` at the end.
    ///
    /// # Errors
    /// [`NotYet`] if it is still being worked on.
    pub fn next_within(&mut self, time: Duration) -> Result<Option<Result<T>>, NotYet> {
        match self.results.as_ref().map(|results| results.recv_timeout(time)) {
            Some(Ok(result)) => Ok(Some(result)),
            Some(Err(RecvTimeoutError::Timeout)) => Err(NotYet),
            Some(Err(RecvTimeoutError::Disconnected)) | None => {
                self.join();
                Ok(None)
            }
        }
    }
}

impl<T> Prefetch<T> {
    /// Waits for the thread; a panic of the work's goes on here, so that it does not look like the end.
    fn join(&mut self) {
        if let Some(Err(panic)) = self.worker.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        // Without a receiver the thread ends.
        self.results = None;
        self.join();
    }
}

impl<T> Iterator for Prefetch<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let next = self.results.as_ref()?.recv().ok();
        if next.is_none() {
            self.join();
        }
        next
    }
}

/// The next result is still being worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotYet;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn batches(samples: usize, options: &EpochOptions) -> Vec<Vec<usize>> {
        let epoch = Epoch::new(samples, options).expect("valid");
        (0..epoch.len()).map(|batch| epoch.batch(batch).to_vec()).collect()
    }

    #[test]
    fn batches_follow_the_archive_and_the_last_is_short_or_dropped() {
        let options = EpochOptions { batch_size: 3, ..EpochOptions::default() };
        assert_eq!(batches(7, &options), [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
        assert_eq!(batches(7, &EpochOptions { drop_last: true, ..options.clone() }), [[0, 1, 2], [3, 4, 5]]);
        assert_eq!(batches(0, &options), Vec::<Vec<usize>>::new());
        assert!(Epoch::new(7, &options).expect("valid").batch(3).is_empty());
    }

    #[test]
    fn shuffled_epochs_visit_everything_once_and_differ() {
        let options = EpochOptions { shuffle: true, ..EpochOptions::default() };
        let order = |options: &EpochOptions| Epoch::new(1000, options).expect("valid").order().to_vec();
        let first = order(&options);
        assert_eq!(first, order(&options));
        for other in [EpochOptions { epoch: 1, ..options.clone() }, EpochOptions { seed: 1, ..options.clone() }] {
            let other = order(&other);
            // Two random orders agree in one place on average.
            assert!(first.iter().zip(&other).filter(|(a, b)| a == b).count() < 10);
            let mut sorted = other.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_permutation_is_equally_likely() {
        let mut times = std::collections::HashMap::new();
        for seed in 0..6000 {
            let options = EpochOptions { shuffle: true, seed, ..EpochOptions::default() };
            *times.entry(Epoch::new(3, &options).expect("valid").order().to_vec()).or_insert(0) += 1;
        }
        // 1000 each; the standard deviation is 29.
        assert!(times.len() == 6 && times.values().all(|times| (880..1120).contains(times)), "{times:?}");
    }

    #[test]
    fn a_seed_always_gives_the_same_order() {
        // What this version gave first: another order would change runs that were made from the same seed.
        let options = EpochOptions { shuffle: true, seed: 1, epoch: 2, ..EpochOptions::default() };
        assert_eq!(Epoch::new(8, &options).expect("valid").order(), [7, 3, 5, 1, 0, 4, 2, 6]);
    }

    #[test]
    fn shards_are_equally_large_and_cover_the_order() {
        let shard = |rank, drop_last| {
            let options =
                EpochOptions { shuffle: true, batch_size: 2, drop_last, shard: (rank, 3), ..EpochOptions::default() };
            Epoch::new(11, &options).expect("valid").order().to_vec()
        };
        let all: Vec<usize> = (0..3).flat_map(|rank| shard(rank, false)).collect();
        let mut covered = all.clone();
        covered.sort_unstable();
        covered.dedup();
        assert_eq!((all.len(), covered.len()), (12, 11));
        let mut dropped: Vec<usize> = (0..3).flat_map(|rank| shard(rank, true)).collect();
        dropped.sort_unstable();
        dropped.dedup();
        assert_eq!(dropped.len(), 6);
        assert!(Epoch::new(11, &EpochOptions { shard: (3, 3), ..EpochOptions::default() }).is_err());
        assert!(Epoch::new(11, &EpochOptions { batch_size: 0, ..EpochOptions::default() }).is_err());
        assert!(Epoch::new(0, &EpochOptions { shard: (1, 3), ..EpochOptions::default() }).expect("valid").is_empty());
    }

    #[test]
    fn results_arrive_in_order_and_the_worker_stays_near() {
        let started = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&started);
        let mut results =
            Prefetch::new(100, 2, move |item| Ok((item, counter.fetch_add(1, Ordering::SeqCst)))).expect("thread");
        for item in 0..50 {
            assert_eq!(results.next().expect("some").expect("ok"), (item, item));
            // Two waiting, one in the worker's hands, one given to us.
            assert!(started.load(Ordering::SeqCst) <= item + 4);
        }
        drop(results);
        assert!(started.load(Ordering::SeqCst) <= 54);
    }

    #[test]
    fn the_first_error_is_the_last_result() {
        let work = |item| if item == 3 { Err(Error::Interrupted) } else { Ok(item) };
        let results: Vec<Result<usize>> = Prefetch::new(9, 1, work).expect("thread").collect();
        assert!(results.len() == 4 && results[3].is_err());
        let mut slow = Prefetch::new(1, 1, |_| {
            std::thread::sleep(Duration::from_millis(300));
            Ok(())
        })
        .expect("thread");
        assert!(matches!(slow.next_within(Duration::ZERO), Err(NotYet)));
        assert!(matches!(slow.next_within(Duration::from_secs(60)), Ok(Some(Ok(())))));
        assert!(matches!(slow.next_within(Duration::from_secs(60)), Ok(None)));
    }

    #[test]
    fn dropping_waits_for_the_work_at_hand() {
        let working = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&working);
        let mut results = Prefetch::new(100, 0, move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(50));
            counter.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        })
        .expect("thread");
        assert!(results.next().is_some());
        drop(results);
        assert_eq!(working.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_panic_of_the_work_does_not_look_like_the_end() {
        let mut results =
            Prefetch::new(2, 1, |item| if item == 0 { Ok(()) } else { unreachable!("on purpose") }).expect("thread");
        assert!(results.next().is_some());
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| results.next())).is_err());
    }
}
