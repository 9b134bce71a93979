//! All policy on adapters and devices: which there are, which is best, what is asked of it, what its errors become.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::channel::oneshot;
use serde::Serialize;

use super::health::{End, Health};
use super::nearest::Pipelines;
use super::plan::TooSmall;
use super::pool::Pool;
use super::shaders::LARGEST_PARAMS;
use crate::error::{Error, Result};

/// What kind of hardware an adapter is, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// The driver does not say.
    Other,
    /// A GPU seen through virtualisation.
    Virtual,
    /// A driver that runs on the processor, such as lavapipe or SwiftShader. Slower there than kuat's own decoder,
    /// so it is used only when named; good for tests.
    Software,
}

/// An adapter: a GPU as a driver presents it. One GPU can appear more than once, under several APIs.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct AdapterDescription {
    /// Its name.
    pub name: String,
    /// Kind of hardware.
    pub kind: AdapterKind,
    /// API: `vulkan`, `metal`, `dx12`, `gl`.
    pub api: String,
    /// The driver's name.
    pub driver: String,
    /// The driver's version or further words.
    pub driver_info: String,
    /// Largest buffer in bytes.
    pub max_buffer_size: u64,
    /// Largest part of a buffer in bytes that a shader can see at once.
    pub max_storage_buffer_binding_size: u64,
    /// Whether kernels can be timed on the device.
    pub timestamps: bool,
}

impl AdapterDescription {
    fn new(info: &wgpu::AdapterInfo, limits: &wgpu::Limits, features: wgpu::Features) -> Self {
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
            wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
            wgpu::DeviceType::Cpu => AdapterKind::Software,
            wgpu::DeviceType::Other => AdapterKind::Other,
        };
        Self {
            name: info.name.clone(),
            kind,
            api: info.backend.to_str().into(),
            driver: info.driver.clone(),
            driver_info: info.driver_info.clone(),
            max_buffer_size: limits.max_buffer_size,
            max_storage_buffer_binding_size: limits.max_storage_buffer_binding_size,
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        }
    }

    /// Whether its name, API or driver contains a text, whatever its case.
    fn is_named(&self, text: &str) -> bool {
        let all = format!("{self} {} {}", self.driver, self.driver_info);
        all.to_lowercase().contains(&text.to_lowercase())
    }
}

impl fmt::Display for AdapterDescription {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.api)
    }
}

/// Which adapter to open.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Select {
    /// The best that is not a software adapter; of OpenGL's only if WGPU_BACKEND names it.
    Best,
    /// The best whose name, API or driver contains this text, whatever its case; a software adapter too, and one of
    /// OpenGL's if no other API has it and the text contains `gl`.
    Named(String),
    /// The one at this place in [`adapters`], counted from 0; a software adapter too.
    Index(usize),
}

/// The adapters that can run compute shaders, best first: real hardware before software.
///
/// OpenGL is looked at only where no other API has an adapter, and for [`Select::Best`] not even then: it repeats GPUs
/// that other APIs have, and bringing it up loads whole drivers, whose libraries others in the process may have in
/// another version (Mesa's LLVM crashes triton, and with it torch's optimizers). The environment variable WGPU_BACKEND,
/// a list such as `vulkan,gl`, says otherwise.
pub fn adapters() -> Vec<AdapterDescription> {
    pollster::block_on(candidates(None)).into_iter().map(|(_, description)| description).collect()
}

/// The adapters among which to select; for `None`, those that are listed.
async fn candidates(select: Option<&Select>) -> Vec<(wgpu::Adapter, AdapterDescription)> {
    if let Some(backends) = wgpu::Backends::from_env() {
        return candidates_of(backends).await;
    }
    let mut found = candidates_of(wgpu::Backends::all() - wgpu::Backends::GL).await;
    let wants_gl = match select {
        Some(Select::Best) => false,
        // A name that nobody has, mistyped perhaps, is no reason to load those drivers.
        Some(Select::Named(text)) => {
            text.to_lowercase().contains("gl") && !found.iter().any(|(_, description)| description.is_named(text))
        }
        Some(Select::Index(_)) | None => found.is_empty(),
    };
    if wants_gl {
        found.extend(candidates_of(wgpu::Backends::GL).await);
    }
    found
}

async fn candidates_of(backends: wgpu::Backends) -> Vec<(wgpu::Adapter, AdapterDescription)> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    descriptor.backends = backends;
    let instance = wgpu::Instance::new(descriptor);
    let adapters = instance.enumerate_adapters(backends).await;
    let mut found: Vec<_> = adapters
        .into_iter()
        .filter(|adapter| {
            let flags = adapter.get_downlevel_capabilities().flags;
            flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
                && check_limits(&adapter.limits()).is_ok()
                && adapter.get_info().backend != wgpu::Backend::Noop
        })
        .map(|adapter| {
            let description = AdapterDescription::new(&adapter.get_info(), &adapter.limits(), adapter.features());
            (adapter, description)
        })
        .collect();
    // The order in which drivers are listed says nothing: a software adapter may come first.
    found.sort_by_key(|(_, description)| (description.kind, description.api == "gl"));
    found
}

/// Whether a device can run the shaders that decode, if only piece by piece. What a piece needs besides depends on the
/// archive, and is looked at where it is cut.
fn check_limits(limits: &wgpu::Limits) -> Result<(), TooSmall> {
    let needed: [(&str, u64, u64); 11] = [
        ("max_bind_groups", limits.max_bind_groups.into(), 1),
        ("max_bindings_per_bind_group", limits.max_bindings_per_bind_group.into(), 5),
        ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage.into(), 4),
        ("max_uniform_buffers_per_shader_stage", limits.max_uniform_buffers_per_shader_stage.into(), 1),
        ("max_uniform_buffer_binding_size", limits.max_uniform_buffer_binding_size, LARGEST_PARAMS as u64),
        ("max_buffer_size", limits.max_buffer_size, LARGEST_PARAMS as u64),
        ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup.into(), 1),
        ("max_compute_workgroup_size_x", limits.max_compute_workgroup_size_x.into(), 1),
        ("max_compute_workgroup_size_y", limits.max_compute_workgroup_size_y.into(), 1),
        ("max_compute_workgroup_size_z", limits.max_compute_workgroup_size_z.into(), 1),
        ("max_compute_workgroups_per_dimension", limits.max_compute_workgroups_per_dimension.into(), 1),
    ];
    match needed.into_iter().find(|(_, found, needed)| found < needed) {
        Some((limit, found, needed)) => Err(TooSmall { limit, found, needed }),
        None => Ok(()),
    }
}

/// A GPU that is open for work. Clones share it, threads too.
///
/// Once the driver gives it up, or does not answer within a [time limit](Self::set_time_limit), every call is an error that
/// says so, and [`is_lost`](Self::is_lost) is true. Decoders and batches of it are of no use then: [`open`](Self::open) it
/// again and make them anew. A process that is forked from this one cannot use it, and is told so.
#[derive(Clone)]
pub struct Device {
    shared: Arc<Shared>,
}

struct Shared {
    description: AdapterDescription,
    device: wgpu::Device,
    queue: wgpu::Queue,
    pool: Pool,
    searches: Pipelines,
    health: Arc<Health>,
    /// The thread that waits for whoever does not, once there is one.
    poller: Mutex<Option<Poller>>,
}

struct Poller {
    sender: mpsc::Sender<Awaited>,
    thread: JoinHandle<()>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let poller = self.poller.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if matches!(self.health.end(), Some(End::Hung(_) | End::Forked)) {
            // A queue waits for its work when it goes, and would for ever: it stays, and what it works at.
            std::mem::forget(self.queue.clone());
        } else if let Some(Poller { sender, thread }) = poller {
            // That thread must not be the one to take the device down, in the middle of the process's end perhaps. It ends
            // with its sender, and does not panic.
            drop(sender);
            let _ = thread.join();
        }
    }
}

/// A submission that the polling thread is to wait for.
struct Awaited {
    submission: wgpu::SubmissionIndex,
    done: oneshot::Sender<()>,
}

/// Whether they are clones of the same.
impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for Device {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Device").field("adapter", self.description()).finish_non_exhaustive()
    }
}

impl Device {
    /// Opens an adapter with all the limits it has.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] if none fits; [`Error::Gpu`] if the driver refuses.
    pub fn open(select: &Select) -> Result<Self> {
        Self::open_with_limits(select, |_| ())
    }

    /// Opens an adapter with lower limits than it has: to leave memory to others, or to test. What exceeds them is done in
    /// smaller pieces, as far as there are any.
    ///
    /// # Errors
    /// As [`open`](Self::open), also for limits that are above the adapter's; [`Error::GpuLimit`] for limits with which
    /// nothing can be decoded at all.
    pub fn open_with_limits(select: &Select, lower: impl FnOnce(&mut wgpu::Limits)) -> Result<Self> {
        let found = pollster::block_on(candidates(Some(select)));
        let matches = |index: usize, description: &AdapterDescription| match select {
            Select::Best => description.kind != AdapterKind::Software,
            Select::Named(text) => description.is_named(text),
            Select::Index(wanted) => index == *wanted,
        };
        let names = found.iter().map(|(_, description)| description.to_string()).collect();
        let chosen =
            found.into_iter().enumerate().find(|(i, (_, description))| matches(*i, description)).map(|(_, f)| f);
        let (adapter, description) = chosen.ok_or_else(|| Error::NoAdapter {
            wanted: match select {
                Select::Best => "of real hardware".into(),
                Select::Named(text) => format!("with {text:?} in its name"),
                Select::Index(index) => format!("number {index}"),
            },
            found: names,
        })?;
        let mut limits = adapter.limits();
        lower(&mut limits);
        check_limits(&limits).map_err(|lacking| limit_error(&description, lacking))?;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("kuat"),
            // Only what the timing of kernels needs, and only where there is one.
            required_features: adapter.features() & wgpu::Features::TIMESTAMP_QUERY,
            required_limits: limits,
            // Few large buffers that live long: no blocks held in reserve.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).map_err(|error| Error::Gpu {
            adapter: description.to_string(),
            action: "opening the device",
            message: error.to_string(),
        })?;
        let this = Self::new(description, device, queue);
        let health = Arc::clone(&this.shared.health);
        this.raw().on_uncaptured_error(Arc::new(move |error: wgpu::Error| health.note_stray(error.to_string())));
        let health = Arc::clone(&this.shared.health);
        this.raw().set_device_lost_callback(move |reason, message| {
            let destroyed = reason == wgpu::DeviceLostReason::Destroyed;
            health.note_end(End::Lost(if destroyed { "it was destroyed".into() } else { message }));
        });
        Ok(this)
    }

    /// Works on a device that the caller has opened, within the limits it was opened with. Its handlers for errors
    /// and for loss stay the caller's: errors of kuat's calls are caught and never reach them, those of the caller's own
    /// calls all do. As kuat is not told of a loss, it is found out when a batch is waited for or read.
    ///
    /// # Errors
    /// [`Error::GpuLimit`] if it cannot run compute shaders with four storage buffers, or any other limit is too low.
    pub fn adopt(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        let limits = device.limits();
        let description = AdapterDescription::new(&device.adapter_info(), &limits, device.features());
        check_limits(&limits).map_err(|lacking| limit_error(&description, lacking))?;
        Ok(Self::new(description, device, queue))
    }

    fn new(description: AdapterDescription, device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let (pool, searches, health, poller) = Default::default();
        Self { shared: Arc::new(Shared { description, device, queue, pool, searches, health, poller }) }
    }

    /// Sets how long anything handed to the device may take, 120 seconds unless said otherwise. A device that takes longer
    /// is taken to hang: calls that wait for it end with an error, and it is lost.
    pub fn set_time_limit(&self, limit: Duration) {
        self.shared.health.set_patience(limit);
    }

    /// Whether it does no more work: the driver gave it up or does not answer, somebody destroyed it, or this process is a
    /// fork of the one that opened it. It is found out by calls that wait for the device, and nothing ends it but opening
    /// the device again.
    pub fn is_lost(&self) -> bool {
        self.shared.health.end().is_some()
    }

    /// What it is.
    pub fn description(&self) -> &AdapterDescription {
        &self.shared.description
    }

    /// The wgpu device.
    pub fn raw(&self) -> &wgpu::Device {
        &self.shared.device
    }

    /// The wgpu queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    pub(super) fn searches(&self) -> &Pipelines {
        &self.shared.searches
    }

    pub(crate) fn error(&self, action: &'static str, message: impl fmt::Display) -> Error {
        Error::Gpu { adapter: self.description().to_string(), action, message: message.to_string() }
    }

    pub(crate) fn limit_error(&self, lacking: TooSmall) -> Error {
        limit_error(self.description(), lacking)
    }

    /// Runs calls of wgpu's and turns whatever error they raise into a result.
    pub(crate) fn scope<T>(&self, action: &'static str, work: impl FnOnce() -> T) -> Result<T> {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        self.check_fault(action)?;
        let scopes = [OutOfMemory, Validation, Internal].map(|filter| self.raw().push_error_scope(filter));
        let value = work();
        // The last pushed is the first popped. Off the web the answers are there at once.
        let mut result = Ok(value);
        for scope in scopes.into_iter().rev() {
            if let Some(error) = pollster::block_on(scope.pop()) {
                if matches!(error, wgpu::Error::OutOfMemory { .. }) {
                    self.pool().clear();
                    result = Err(Error::GpuMemory { adapter: self.description().to_string(), action });
                    continue;
                }
                result = Err(self.error(action, error));
            }
        }
        if matches!(result, Err(Error::Gpu { .. })) {
            // What is lost makes nothing valid; waiting tells.
            let submission = self.queue().submit([]);
            self.shared.health.wait(self.raw(), &submission);
        }
        // A loss is none of the errors that scopes catch.
        self.check_fault(action).and(result)
    }

    /// Waits until a submission is done.
    pub(crate) fn wait(&self, submission: &wgpu::SubmissionIndex) -> Result<()> {
        self.shared.health.wait(self.raw(), submission);
        self.check_fault("waiting for the GPU")
    }

    /// Waits until all that was submitted is done.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device fails or hangs.
    pub fn finish(&self) -> Result<()> {
        let submission = self.scope("waiting for the GPU", || self.queue().submit([]))?;
        self.wait(&submission)
    }

    /// As [`wait`](Self::wait), but it is a thread of the device's that blocks.
    pub(crate) async fn wait_in_background(&self, submission: wgpu::SubmissionIndex) -> Result<()> {
        let action = "waiting for the GPU";
        self.check_fault(action)?;
        let (done, answer) = oneshot::channel();
        self.poller()?.send(Awaited { submission, done }).map_err(|error| self.error(action, error))?;
        answer.await.map_err(|error| self.error(action, error))?;
        self.check_fault(action)
    }

    /// The thread that waits, started when first needed.
    fn poller(&self) -> Result<mpsc::Sender<Awaited>> {
        let mut poller = self.shared.poller.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Poller { sender, .. }) = &*poller {
            return Ok(sender.clone());
        }
        let (sender, receiver) = mpsc::channel::<Awaited>();
        let (device, health) = (self.raw().clone(), Arc::clone(&self.shared.health));
        // Ends when the last clone of this is gone, and the sender with it.
        let wait = move || {
            for Awaited { submission, done } in receiver {
                health.wait(&device, &submission);
                // Nobody listens if the wait was given up.
                let _ = done.send(());
            }
        };
        let thread = std::thread::Builder::new().name("kuat-gpu".into()).spawn(wait).map_err(Error::Thread)?;
        Ok(poller.insert(Poller { sender, thread }).sender.clone())
    }

    pub(crate) fn check_fault(&self, action: &'static str) -> Result<()> {
        self.shared.health.check().map_err(|message| self.error(action, message))
    }
}

fn limit_error(adapter: &AdapterDescription, TooSmall { limit, found, needed }: TooSmall) -> Error {
    Error::GpuLimit { adapter: adapter.to_string(), limit, found, needed }
}
