//! Buffers that are used again. A fresh one costs its zeroing and its page faults, more than a batch's decoding.

use std::sync::{Mutex, PoisonError};

/// Most idle buffers kept for each use; beyond, the one that has been idle longest goes.
const MOST_IDLE: usize = 8;

/// Idle buffers of a device.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: Mutex<Vec<wgpu::Buffer>>,
}

impl Pool {
    /// A buffer for `usage` of at least `size` bytes and at most twice that, its contents undefined.
    pub fn take(&self, device: &wgpu::Device, usage: wgpu::BufferUsages, size: u64) -> wgpu::Buffer {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |buffer: &wgpu::Buffer| buffer.usage() == usage && (size..=2 * size).contains(&buffer.size());
        let candidates = idle.iter().enumerate().filter(|(_, buffer)| fits(buffer));
        if let Some((at, _)) = candidates.min_by_key(|(_, buffer)| buffer.size()) {
            return idle.remove(at);
        }
        drop(idle);
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    }

    /// Frees all idle buffers, for when memory runs out.
    pub fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Gives a buffer back; it must be unmapped, and the GPU done with it or ordered to be before its next use.
    pub fn put(&self, buffer: wgpu::Buffer) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let usage = buffer.usage();
        idle.push(buffer);
        let same = || idle.iter().enumerate().filter(|(_, buffer)| buffer.usage() == usage);
        if same().count() > MOST_IDLE
            && let Some((oldest, _)) = same().next()
        {
            idle.remove(oldest);
        }
    }
}
