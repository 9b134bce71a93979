//! Decoding on GPUs of any vendor through wgpu: Vulkan, Metal, DX12, GL.
//!
//! [`Device`] is a GPU opened or adopted, [`GpuDecoder`] an archive's codebooks on it, [`PendingBatch`] a batch that
//! it is decoding or has decoded. [`Stream`] brings batch after batch to host memory, with several on their way.
//! [`Resident`] keeps all rows on the GPU, so that sample numbers are all that a batch needs. [`GpuNearest`] goes the
//! other way: it finds the nearest codewords of patches.
//!
//! ```no_run
//! use kuat::gpu::{Device, GpuDecoder, Select};
//! let archive = kuat::Archive::open("photos.qvq")?;
//! let device = Device::open(&Select::Best)?;
//! let decoder = GpuDecoder::new(&device, &archive)?;
//! let batch = decoder.submit(&archive.rows(0..64)?, &kuat::OutputSpec::default())?;
//! for part in batch.parts() {
//!     let _on_the_gpu: &wgpu::Buffer = part.buffer();
//! }
//! let on_the_host = batch.read()?;
//! # Ok::<(), kuat::Error>(())
//! ```

mod batch;
mod codebook;
mod coding;
mod decoder;
mod device;
mod fill;
mod health;
mod kernels;
mod layers;
mod nearest;
mod plan;
mod pool;
mod resident;
pub mod shaders;
mod stream;
mod timing;
mod vq;

pub use batch::{BatchPart, PendingBatch};
pub use decoder::GpuDecoder;
pub use device::{AdapterDescription, AdapterKind, Device, Select, adapters};
pub use nearest::GpuNearest;
pub use resident::Resident;
pub(crate) use stream::IN_FLIGHT;
pub use stream::Stream;
pub use timing::{KernelTimes, StageTime};
pub use wgpu;
