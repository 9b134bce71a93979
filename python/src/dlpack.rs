//! Arrays in host memory for other libraries: DLPack (<https://dmlc.github.io/dlpack/latest/c_api.html>, version 1.0,
//! and the form before it).

use std::ffi::{CStr, c_void};
use std::sync::Arc;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::memory::{ElementType, Memory};

/// kDLCPU, device 0.
pub(crate) const CPU: (i32, i32) = (1, 0);

const NAME: &CStr = c"dltensor";
const NAME_VERSIONED: &CStr = c"dltensor_versioned";
/// DLPACK_FLAG_BITMASK_IS_COPIED
const IS_COPIED: u64 = 1 << 1;

#[repr(C)]
struct DLDevice {
    device_type: i32,
    device_id: i32,
}

#[repr(C)]
struct DLDataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
struct DLTensor {
    data: *mut c_void,
    device: DLDevice,
    ndim: i32,
    dtype: DLDataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

#[repr(C)]
struct DLManagedTensor {
    dl_tensor: DLTensor,
    manager_ctx: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Self)>,
}

#[repr(C)]
struct DLManagedTensorVersioned {
    version: [u32; 2],
    manager_ctx: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Self)>,
    flags: u64,
    dl_tensor: DLTensor,
}

/// What `manager_ctx` points to: the memory, and what a tensor only refers to.
struct Context {
    memory: Arc<Memory>,
    shape: Vec<i64>,
    /// In elements.
    strides: Vec<i64>,
}

impl Context {
    fn new(memory: Arc<Memory>) -> Box<Self> {
        let shape: Vec<i64> = memory.shape.iter().map(|&side| side as i64).collect();
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        Box::new(Self { memory, shape, strides })
    }

    /// The tensor, valid as long as the box is.
    fn tensor(&mut self) -> DLTensor {
        let (code, bits) = match self.memory.element {
            ElementType::U8 => (1, 8),
            ElementType::U32 => (1, 32),
            ElementType::F16 => (2, 16),
            ElementType::F32 => (2, 32),
        };
        DLTensor {
            data: self.memory.start().cast(),
            device: DLDevice { device_type: CPU.0, device_id: CPU.1 },
            ndim: self.shape.len() as i32,
            dtype: DLDataType { code, bits, lanes: 1 },
            shape: self.shape.as_mut_ptr(),
            strides: self.strides.as_mut_ptr(),
            byte_offset: 0,
        }
    }
}

/// Either form of a managed tensor.
trait Managed: Sized {
    const NAME: &'static CStr;

    /// # Safety
    /// `this` must come from [`capsule`], and not be used again. It may be called on any thread, with or without the
    /// interpreter, and after its end: nothing of Python's is touched.
    unsafe extern "C" fn delete(this: *mut Self) {
        if !this.is_null() {
            // SAFETY: `capsule` made both boxes; the caller gives them back.
            unsafe {
                let this = Box::from_raw(this);
                drop(Box::from_raw(this.context()));
            }
        }
    }

    fn context(&self) -> *mut Context;

    /// Frees the tensor of a capsule that nobody has taken: consumers change the name of what they take.
    ///
    /// # Safety
    /// As Python calls a capsule's destructor.
    unsafe extern "C" fn destroy(capsule: *mut ffi::PyObject) {
        // SAFETY: the capsule is valid while it is destroyed; under this name it holds what `capsule` put there.
        unsafe {
            if ffi::PyCapsule_IsValid(capsule, Self::NAME.as_ptr()) == 1 {
                Self::delete(ffi::PyCapsule_GetPointer(capsule, Self::NAME.as_ptr()).cast());
            }
        }
    }
}

impl Managed for DLManagedTensor {
    const NAME: &'static CStr = NAME;

    fn context(&self) -> *mut Context {
        self.manager_ctx.cast()
    }
}

impl Managed for DLManagedTensorVersioned {
    const NAME: &'static CStr = NAME_VERSIONED;

    fn context(&self) -> *mut Context {
        self.manager_ctx.cast()
    }
}

/// A capsule in the form before version 1.
pub(crate) fn unversioned(py: Python<'_>, memory: Arc<Memory>) -> PyResult<Bound<'_, PyCapsule>> {
    let mut context = Context::new(memory);
    let dl_tensor = context.tensor();
    let manager_ctx = Box::into_raw(context).cast();
    capsule(py, DLManagedTensor { dl_tensor, manager_ctx, deleter: Some(DLManagedTensor::delete) })
}

/// A capsule in the form of version 1.
pub(crate) fn versioned(py: Python<'_>, memory: Arc<Memory>, copied: bool) -> PyResult<Bound<'_, PyCapsule>> {
    let mut context = Context::new(memory);
    let dl_tensor = context.tensor();
    let manager_ctx = Box::into_raw(context).cast();
    let flags = if copied { IS_COPIED } else { 0 };
    let deleter = Some(<DLManagedTensorVersioned as Managed>::delete as unsafe extern "C" fn(*mut _));
    capsule(py, DLManagedTensorVersioned { version: [1, 0], manager_ctx, deleter, flags, dl_tensor })
}

fn capsule<T: Managed>(py: Python<'_>, managed: T) -> PyResult<Bound<'_, PyCapsule>> {
    let pointer = Box::into_raw(Box::new(managed));
    // SAFETY: the name is static, the pointer not null, and the destructor made for what it points to. Python returns
    // a new reference, or null with an exception set; then nobody else has the tensor.
    unsafe {
        let object = ffi::PyCapsule_New(pointer.cast(), T::NAME.as_ptr(), Some(T::destroy));
        match Bound::from_owned_ptr_or_err(py, object) {
            Ok(capsule) => Ok(capsule.cast_into_unchecked()),
            Err(error) => {
                T::delete(pointer);
                Err(error)
            }
        }
    }
}
