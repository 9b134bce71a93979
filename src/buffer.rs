//! Host memory for batches, used again: a fresh 77 MB costs more in page faults than decoding into it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;

use crate::error::{Error, Result};
use crate::lock::try_locked;

/// Bytes of a cache line.
const LINE: usize = 64;

/// From so many bytes on, memory is asked for in huge pages: fewer page faults, and fewer misses in the tables that turn
/// addresses into places. Between two measurements, decoding batches of 77 and 308 MB was 3 to 10 % faster.
const HUGE: usize = 4 << 20;

/// Bytes that start at a cache line: what is aligned in them needs one line and not two, and consumers of arrays that
/// ask for alignment (jax: 64 bytes) take them as they are.
pub(crate) enum AlignedBytes {
    Lines(Vec<Line>),
    Pages(MmapMut),
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; LINE]);

impl Default for AlignedBytes {
    fn default() -> Self {
        Self::Lines(Vec::new())
    }
}

impl AlignedBytes {
    /// Zeros, `len` rounded up to whole lines.
    pub fn zeroed(len: usize) -> Self {
        Self::try_zeroed(len).unwrap_or_else(|_| Self::Lines(vec![Line::zeroed(); len.div_ceil(LINE)]))
    }

    /// As [`zeroed`](Self::zeroed); where memory is short that is an error, and not the end of the process.
    pub fn try_zeroed(len: usize) -> Result<Self> {
        let len = len.checked_next_multiple_of(LINE).ok_or(Error::OutOfMemory { bytes: len })?;
        if len >= HUGE
            && let Ok(pages) = MmapMut::map_anon(len)
        {
            // A wish: without it the pages are small ones.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            return Ok(Self::Pages(pages));
        }
        let mut lines = Vec::new();
        lines.try_reserve_exact(len / LINE).map_err(|_| Error::OutOfMemory { bytes: len })?;
        lines.resize(len / LINE, Line::zeroed());
        Ok(Self::Lines(lines))
    }

    /// Zeros that begin at a page, where there is memory for whole ones.
    pub fn paged(len: usize) -> Self {
        MmapMut::map_anon(len.next_multiple_of(LINE)).map_or_else(|_| Self::zeroed(len), Self::Pages)
    }

    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Lines(lines) => bytemuck::cast_slice(lines),
            Self::Pages(pages) => pages,
        }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        match self {
            Self::Lines(lines) => bytemuck::cast_slice_mut(lines),
            Self::Pages(pages) => pages,
        }
    }

    fn capacity(&self) -> usize {
        self.as_slice().len()
    }
}

/// Hands out [`Buffer`]s and takes them back when they are dropped. Clones share the memory, threads too; none waits for
/// another, and a forked child can use what it inherits.
#[derive(Clone)]
pub struct BufferPool {
    idle: Arc<Mutex<Vec<AlignedBytes>>>,
    most_idle_bytes: usize,
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("BufferPool").field("most_idle_bytes", &self.most_idle_bytes).finish_non_exhaustive()
    }
}

impl Default for BufferPool {
    /// A pool that keeps up to 1 GiB that nobody uses: a few batches of 256 images of 224x224 in f32, 154 MB each.
    fn default() -> Self {
        Self::new(1 << 30)
    }
}

impl BufferPool {
    /// A pool that keeps at most this many bytes that nobody uses; beyond, what has been idle longest is freed.
    pub fn new(most_idle_bytes: usize) -> Self {
        Self { idle: Arc::default(), most_idle_bytes }
    }

    /// A buffer of `len` bytes, 64-byte aligned, its contents undefined: zeros or an earlier batch.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn take(&self, len: usize) -> Result<Buffer> {
        // The memory of another batch of this size, or of one not much larger.
        let fits = |bytes: &AlignedBytes| (len..=len.saturating_mul(2).max(LINE)).contains(&bytes.capacity());
        let found = try_locked(&self.idle).and_then(|mut idle| {
            let fitting = idle.iter().enumerate().filter(|(_, bytes)| fits(bytes));
            let (at, _) = fitting.min_by_key(|(_, bytes)| bytes.capacity())?;
            Some(idle.remove(at))
        });
        let bytes = match found {
            Some(bytes) => bytes,
            None => AlignedBytes::try_zeroed(len)?,
        };
        Ok(Buffer { bytes, len, pool: self.clone() })
    }

    fn put(&self, bytes: AlignedBytes) {
        // What cannot be put back is freed.
        let Some(mut idle) = try_locked(&self.idle) else { return };
        idle.push(bytes);
        let mut total: usize = idle.iter().map(AlignedBytes::capacity).sum();
        let mut freed = Vec::new();
        while total > self.most_idle_bytes {
            let oldest = idle.remove(0);
            total -= oldest.capacity();
            freed.push(oldest);
        }
        // Before what is freed: that takes milliseconds, in which others would get fresh memory.
        drop(idle);
    }
}

/// Bytes of a [`BufferPool`], given back to it when dropped.
pub struct Buffer {
    bytes: AlignedBytes,
    len: usize,
    pool: BufferPool,
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes.as_slice()[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes.as_mut_slice()[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_used_again() {
        let pool = BufferPool::new(1 << 20);
        let mut first = pool.take(1000).expect("memory");
        first.fill(7);
        let place = first.as_ptr();
        assert!(first.len() == 1000 && place.addr().is_multiple_of(64));
        let second = pool.take(1000).expect("memory");
        assert_ne!(second.as_ptr(), place);
        drop(first);
        let third = pool.take(700).expect("memory");
        assert_eq!((third.as_ptr(), third.len(), third[699]), (place, 700, 7));
    }

    #[test]
    fn a_small_batch_does_not_take_the_memory_of_a_large_one() {
        let pool = BufferPool::new(1 << 20);
        let large = pool.take(1 << 16).expect("memory").as_ptr();
        assert_ne!(pool.take(100).expect("memory").as_ptr(), large);
        assert_eq!(pool.take(1 << 16).expect("memory").as_ptr(), large);
        assert!(pool.take(0).expect("memory").is_empty());
    }

    #[test]
    fn idle_memory_has_a_limit() {
        let pool = BufferPool::new(10_000);
        let buffers: Vec<Buffer> = (0..5).map(|_| pool.take(3200).expect("memory")).collect();
        let last = buffers[4].as_ptr();
        drop(buffers);
        let idle = pool.idle.lock().expect("not poisoned");
        assert_eq!(idle.len(), 3);
        assert_eq!(idle[2].as_slice().as_ptr(), last);
    }

    #[test]
    fn a_lock_that_is_never_released_keeps_nobody_from_memory() {
        let pool = BufferPool::new(1 << 20);
        let (held, clone) = (pool.idle.lock(), pool.clone());
        let buffer = clone.take(1000).expect("memory");
        assert_eq!(buffer.len(), 1000);
        drop((buffer, held));
    }

    #[test]
    fn memory_that_cannot_be_had_is_an_error() {
        for len in [usize::MAX / 2, usize::MAX] {
            assert!(matches!(BufferPool::default().take(len), Err(Error::OutOfMemory { .. })));
        }
    }
}
