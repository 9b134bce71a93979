//! A Vulkan layer in which a driver's calls fail as those of a GPU do that is lost, full or hung: whoever has loaded it
//! says which, by `kuat_fault`. Compiled by the tests as a library by itself, without crates.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::mem::transmute;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

type Handle = *mut c_void;
type Function = Option<unsafe extern "C" fn()>;
type GetProcAddr = unsafe extern "C" fn(Handle, *const c_char) -> Function;

const SUCCESS: i32 = 0;
const TIMEOUT: i32 = 2;
const OUT_OF_DEVICE_MEMORY: i32 = -2;
const INITIALIZATION_FAILED: i32 = -3;
const DEVICE_LOST: i32 = -4;

/// What goes wrong: nothing, allocations of more than so many bytes, submissions for want of memory, submissions and all
/// that follows, waits and all that follows, or waits, which have no end.
const FULL: u32 = 1;
const SUBMITS_FULL: u32 = 2;
const LOST: u32 = 3;
const LOST_IN_WAITS: u32 = 4;
const HUNG: u32 = 5;

static FAULT: AtomicU32 = AtomicU32::new(0);
static VALUE: AtomicU64 = AtomicU64::new(0);
/// Calls that failed.
static FAILED: AtomicU64 = AtomicU64::new(0);

/// Says what goes wrong from now on, and returns how many calls have failed so far.
#[unsafe(no_mangle)]
pub extern "C" fn kuat_fault(fault: u32, value: u64) -> u64 {
    VALUE.store(value, SeqCst);
    FAULT.store(fault, SeqCst);
    FAILED.load(SeqCst)
}

fn fail(result: i32) -> i32 {
    FAILED.fetch_add(1, SeqCst);
    result
}

// ---- what the loader hands from layer to layer ----

#[repr(C)]
struct InstanceLink {
    next: *mut InstanceLink,
    get_instance_proc_addr: GetProcAddr,
}

#[repr(C)]
struct DeviceLink {
    next: *mut DeviceLink,
    get_instance_proc_addr: GetProcAddr,
    get_device_proc_addr: GetProcAddr,
}

/// `VkLayerInstanceCreateInfo` and `VkLayerDeviceCreateInfo`, of which those of the function 0 carry links.
#[repr(C)]
struct LayerCreateInfo<Link> {
    kind: i32,
    next: *mut LayerCreateInfo<Link>,
    function: i32,
    link: *mut Link,
}

/// The beginning of `VkInstanceCreateInfo` and `VkDeviceCreateInfo`.
#[repr(C)]
struct CreateInfo<Link> {
    kind: i32,
    next: *mut LayerCreateInfo<Link>,
}

const INSTANCE_LINK: i32 = 47;
const DEVICE_LINK: i32 = 48;

/// SAFETY: as Vulkan has it, the chain that begins at `info` is one of structures.
unsafe fn link_of<Link>(info: *const CreateInfo<Link>, kind: i32) -> *mut *mut Link {
    let mut found = unsafe { (*info).next };
    while let Some(next) = unsafe { found.as_mut() } {
        if next.kind == kind && next.function == 0 {
            return &raw mut next.link;
        }
        found = next.next;
    }
    null_mut()
}

// ---- what is behind this layer ----

struct Behind {
    get_device_proc_addr: GetProcAddr,
    device: usize,
}

static INSTANCE: Mutex<Option<(usize, GetProcAddr)>> = Mutex::new(None);
static DEVICES: LazyLock<Mutex<HashMap<usize, Behind>>> = LazyLock::new(Mutex::default);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a device and its queues have in common: the pointer that they begin with.
unsafe fn key(handle: Handle) -> usize {
    unsafe { *handle.cast::<usize>() }
}

/// The function of the driver, or of the next layer, for a device or a queue of it.
unsafe fn behind(handle: Handle, name: &CStr) -> Function {
    let devices = locked(&DEVICES);
    let behind = devices.get(&unsafe { key(handle) })?;
    unsafe { (behind.get_device_proc_addr)(behind.device as Handle, name.as_ptr()) }
}

unsafe extern "C" fn create_instance(
    info: *const CreateInfo<InstanceLink>,
    allocator: Handle,
    out: *mut Handle,
) -> i32 {
    unsafe {
        let link = link_of(info, INSTANCE_LINK);
        if link.is_null() {
            return INITIALIZATION_FAILED;
        }
        let get = (**link).get_instance_proc_addr;
        *link = (**link).next;
        let Some(create) = get(null_mut(), c"vkCreateInstance".as_ptr()) else { return INITIALIZATION_FAILED };
        let create: unsafe extern "C" fn(*const CreateInfo<InstanceLink>, Handle, *mut Handle) -> i32 =
            transmute(create);
        let result = create(info, allocator, out);
        if result == SUCCESS {
            *locked(&INSTANCE) = Some((*out as usize, get));
        }
        result
    }
}

unsafe extern "C" fn create_device(
    physical: Handle,
    info: *const CreateInfo<DeviceLink>,
    allocator: Handle,
    out: *mut Handle,
) -> i32 {
    unsafe {
        let link = link_of(info, DEVICE_LINK);
        let Some((instance, _)) = *locked(&INSTANCE) else { return INITIALIZATION_FAILED };
        if link.is_null() {
            return INITIALIZATION_FAILED;
        }
        let (get, get_device_proc_addr) = ((**link).get_instance_proc_addr, (**link).get_device_proc_addr);
        *link = (**link).next;
        let Some(create) = get(instance as Handle, c"vkCreateDevice".as_ptr()) else { return INITIALIZATION_FAILED };
        let create: unsafe extern "C" fn(Handle, *const CreateInfo<DeviceLink>, Handle, *mut Handle) -> i32 =
            transmute(create);
        let result = create(physical, info, allocator, out);
        if result == SUCCESS {
            locked(&DEVICES).insert(key(*out), Behind { get_device_proc_addr, device: *out as usize });
        }
        result
    }
}

// ---- the calls that fail ----

unsafe extern "C" fn allocate_memory(device: Handle, info: *const u64, allocator: Handle, out: *mut u64) -> i32 {
    // The size follows the structure's type and the pointer to the next.
    if FAULT.load(SeqCst) == FULL && unsafe { *info.add(2) } > VALUE.load(SeqCst) {
        return fail(OUT_OF_DEVICE_MEMORY);
    }
    unsafe {
        let Some(next) = behind(device, c"vkAllocateMemory") else { return INITIALIZATION_FAILED };
        let next: unsafe extern "C" fn(Handle, *const u64, Handle, *mut u64) -> i32 = transmute(next);
        next(device, info, allocator, out)
    }
}

unsafe extern "C" fn queue_submit(queue: Handle, count: u32, submits: Handle, fence: u64) -> i32 {
    match FAULT.load(SeqCst) {
        LOST => return fail(DEVICE_LOST),
        SUBMITS_FULL => return fail(OUT_OF_DEVICE_MEMORY),
        _ => {}
    }
    unsafe {
        let Some(next) = behind(queue, c"vkQueueSubmit") else { return INITIALIZATION_FAILED };
        let next: unsafe extern "C" fn(Handle, u32, Handle, u64) -> i32 = transmute(next);
        next(queue, count, submits, fence)
    }
}

/// Whether a wait of at most so many nanoseconds fails, and how.
fn wait_fails(nanoseconds: u64) -> Option<i32> {
    match FAULT.load(SeqCst) {
        LOST | LOST_IN_WAITS => Some(fail(DEVICE_LOST)),
        HUNG => {
            std::thread::sleep(Duration::from_nanos(nanoseconds));
            Some(fail(TIMEOUT))
        }
        _ => None,
    }
}

unsafe fn wait_semaphores(name: &CStr, device: Handle, info: Handle, nanoseconds: u64) -> i32 {
    if let Some(result) = wait_fails(nanoseconds) {
        return result;
    }
    unsafe {
        let Some(next) = behind(device, name) else { return INITIALIZATION_FAILED };
        let next: unsafe extern "C" fn(Handle, Handle, u64) -> i32 = transmute(next);
        next(device, info, nanoseconds)
    }
}

unsafe extern "C" fn wait_semaphores_core(device: Handle, info: Handle, nanoseconds: u64) -> i32 {
    unsafe { wait_semaphores(c"vkWaitSemaphores", device, info, nanoseconds) }
}

unsafe extern "C" fn wait_semaphores_khr(device: Handle, info: Handle, nanoseconds: u64) -> i32 {
    unsafe { wait_semaphores(c"vkWaitSemaphoresKHR", device, info, nanoseconds) }
}

unsafe fn semaphore_value(name: &CStr, device: Handle, semaphore: u64, out: *mut u64) -> i32 {
    match FAULT.load(SeqCst) {
        LOST | LOST_IN_WAITS => return fail(DEVICE_LOST),
        HUNG => {
            unsafe { *out = 0 };
            return fail(SUCCESS);
        }
        _ => {}
    }
    unsafe {
        let Some(next) = behind(device, name) else { return INITIALIZATION_FAILED };
        let next: unsafe extern "C" fn(Handle, u64, *mut u64) -> i32 = transmute(next);
        next(device, semaphore, out)
    }
}

unsafe extern "C" fn semaphore_value_core(device: Handle, semaphore: u64, out: *mut u64) -> i32 {
    unsafe { semaphore_value(c"vkGetSemaphoreCounterValue", device, semaphore, out) }
}

unsafe extern "C" fn semaphore_value_khr(device: Handle, semaphore: u64, out: *mut u64) -> i32 {
    unsafe { semaphore_value(c"vkGetSemaphoreCounterValueKHR", device, semaphore, out) }
}

unsafe extern "C" fn queue_wait_idle(queue: Handle) -> i32 {
    match FAULT.load(SeqCst) {
        LOST | LOST_IN_WAITS => return fail(DEVICE_LOST),
        HUNG => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        _ => {}
    }
    unsafe {
        let Some(next) = behind(queue, c"vkQueueWaitIdle") else { return INITIALIZATION_FAILED };
        let next: unsafe extern "C" fn(Handle) -> i32 = transmute(next);
        next(queue)
    }
}

// ---- how the loader finds them ----

// SAFETY: of any type, a function is a pointer of one size; who calls it knows its type by its name.
macro_rules! function {
    ($function:expr) => {
        Some(unsafe { transmute::<*const (), unsafe extern "C" fn()>($function as *const ()) })
    };
}

fn of_a_device(name: &CStr) -> Function {
    match name.to_bytes() {
        b"vkGetDeviceProcAddr" => function!(get_device_proc_addr),
        b"vkAllocateMemory" => function!(allocate_memory),
        b"vkQueueSubmit" => function!(queue_submit),
        b"vkWaitSemaphores" => function!(wait_semaphores_core),
        b"vkWaitSemaphoresKHR" => function!(wait_semaphores_khr),
        b"vkGetSemaphoreCounterValue" => function!(semaphore_value_core),
        b"vkGetSemaphoreCounterValueKHR" => function!(semaphore_value_khr),
        b"vkQueueWaitIdle" => function!(queue_wait_idle),
        _ => None,
    }
}

#[unsafe(export_name = "vkGetDeviceProcAddr")]
unsafe extern "C" fn get_device_proc_addr(device: Handle, name: *const c_char) -> Function {
    unsafe {
        let name = CStr::from_ptr(name);
        of_a_device(name).filter(|_| behind(device, name).is_some()).or_else(|| behind(device, name))
    }
}

#[unsafe(export_name = "vkGetInstanceProcAddr")]
unsafe extern "C" fn get_instance_proc_addr(instance: Handle, name: *const c_char) -> Function {
    let known = match unsafe { CStr::from_ptr(name) } {
        name if name == c"vkGetInstanceProcAddr" => function!(get_instance_proc_addr),
        name if name == c"vkCreateInstance" => function!(create_instance),
        name if name == c"vkCreateDevice" => function!(create_device),
        name => of_a_device(name),
    };
    known.or_else(|| {
        let (_, next) = (*locked(&INSTANCE)).filter(|_| !instance.is_null())?;
        unsafe { next(instance, name) }
    })
}
