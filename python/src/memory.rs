//! The memory behind what is returned to Python: it comes from a pool and goes back there when nobody uses it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kuat::{Buffer, Dtype};
use numpy::ndarray::{ArrayViewD, IxDyn};
use numpy::{Element, PyArrayDyn};
use pyo3::prelude::*;

use crate::error::raise;
use crate::process::Process;

/// How many are in use, for tests of lifetimes.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// How many pieces of memory Python holds.
#[pyfunction]
pub(crate) fn live_memory() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// Types of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ElementType {
    U8,
    F16,
    F32,
    U32,
}

impl ElementType {
    pub fn size(self) -> usize {
        match self {
            ElementType::U8 => 1,
            ElementType::F16 => 2,
            ElementType::F32 | ElementType::U32 => 4,
        }
    }

    /// The name that numpy knows.
    pub fn name(self) -> &'static str {
        match self {
            ElementType::U8 => "uint8",
            ElementType::F16 => "float16",
            ElementType::F32 => "float32",
            ElementType::U32 => "uint32",
        }
    }
}

impl From<Dtype> for ElementType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::U8 => ElementType::U8,
            Dtype::F16 => ElementType::F16,
            Dtype::F32 => ElementType::F32,
        }
    }
}

/// A C-contiguous array that is filled by us and then belongs to whoever holds it in Python.
pub(crate) struct Memory {
    buffer: Buffer,
    /// Where the buffer starts, taken while it was still ours alone to write.
    start: *mut u8,
    pub shape: Vec<usize>,
    pub element: ElementType,
}

// SAFETY: the memory at `start` is the buffer's, which is Send and Sync. Nothing here writes it once it is shared, and only
// `copied` reads it, as plain bytes. That Python's threads may write at the same time is their affair, as with any array.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Memory for an array, filled by `fill`.
    pub fn filled(
        shape: &[usize],
        element: ElementType,
        fill: impl FnOnce(&mut [u8]) -> kuat::Result<()>,
    ) -> kuat::Result<Arc<Self>> {
        let len = shape.iter().try_fold(element.size(), |len, &side| len.checked_mul(side)).unwrap_or(usize::MAX);
        let mut buffer = Process::current().memory().take(len)?;
        fill(&mut buffer)?;
        let start = buffer.as_mut_ptr();
        LIVE.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Self { buffer, start, shape: shape.to_vec(), element }))
    }

    pub fn start(&self) -> *mut u8 {
        self.start
    }

    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// A copy in other memory.
    pub fn copied(&self) -> kuat::Result<Arc<Self>> {
        Self::filled(&self.shape, self.element, |bytes| {
            // SAFETY: `start` is the beginning of `len` bytes that live as long as `self`, and the target is other
            // memory.
            unsafe { std::ptr::copy_nonoverlapping(self.start, bytes.as_mut_ptr(), self.len()) };
            Ok(())
        })
    }

    /// A numpy array of this memory, which `owner` keeps alive.
    pub fn numpy<'py>(&self, owner: Bound<'py, PyAny>) -> Bound<'py, PyAny> {
        match self.element {
            ElementType::U8 => self.numpy_of::<u8>(owner),
            ElementType::F16 => self.numpy_of::<kuat::f16>(owner),
            ElementType::F32 => self.numpy_of::<f32>(owner),
            ElementType::U32 => self.numpy_of::<u32>(owner),
        }
    }

    fn numpy_of<'py, T: Element>(&self, owner: Bound<'py, PyAny>) -> Bound<'py, PyAny> {
        // SAFETY: the memory holds as many elements as the shape says, is aligned to 64 bytes, and was filled with
        // bytes, of which any are valid elements of these types. The view is not read, only its place and shape are.
        let view = unsafe { ArrayViewD::<T>::from_shape_ptr(IxDyn(&self.shape), self.start.cast::<T>().cast_const()) };
        // SAFETY: `owner` becomes the array's base object and holds this memory, which never moves.
        unsafe { PyArrayDyn::borrow_from_array(&view, owner) }.into_any()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A numpy array in pooled memory, filled by `fill` without the interpreter.
pub(crate) fn pooled_array(
    py: Python<'_>,
    shape: &[usize],
    element: ElementType,
    fill: impl FnOnce(&mut [u8]) -> kuat::Result<()> + Send,
) -> PyResult<Py<PyAny>> {
    let memory = py.detach(|| Memory::filled(shape, element, fill)).map_err(raise)?;
    let owner = Bound::new(py, Owner(Arc::clone(&memory)))?;
    Ok(memory.numpy(owner.into_any()).unbind())
}

/// Keeps memory alive for a numpy array.
#[pyclass(frozen, module = "kuat._kuat")]
struct Owner(#[expect(dead_code, reason = "held, not read")] Arc<Memory>);
