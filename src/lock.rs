//! Locks of what a call can do without.

use std::sync::{Mutex, MutexGuard, TryLockError};

/// The value, unless a thread holds it at the moment. Never waits: in a child of `fork` the thread that holds a lock may
/// not exist. Whether a thread panicked with it does not matter.
pub(crate) fn try_locked<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(value) => Some(value),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
