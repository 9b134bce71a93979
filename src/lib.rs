#![doc = include_str!("../README.md")]

pub mod archive;
#[cfg(feature = "gpu")]
mod backend;
#[cfg(feature = "gpu")]
pub mod bench;
mod buffer;
mod check;
#[cfg(feature = "cli")]
pub mod cli;
mod data;
pub mod decode;
#[cfg(feature = "encode")]
pub mod encode;
mod error;
pub mod format;
mod geometry;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod info;
pub mod ledger;
pub mod loader;
mod lock;
mod output;
pub mod progress;
mod read_at;
mod reads;
mod rows;
pub mod verify;

pub use archive::{Archive, OpenOptions};
#[cfg(feature = "gpu")]
pub use backend::Backend;
pub use buffer::{Buffer, BufferPool};
pub use check::Check;
pub use data::{Access, ArchiveFile, Data};
pub use decode::Decoder;
pub use decode::cpu::{CpuDecoder, CpuPath};
pub use decode::naive::NaiveDecoder;
pub use error::{Error, Result};
pub use format::atomic::AtomicFile;
pub use format::books::{Book, Books, Component, Cover, LayerBooks, Mode};
pub use format::codec::Codec;
pub use format::index::IndexWidth;
pub use format::layers::LayersView;
pub use format::vq::VqView;
pub use format::writer::{ArchiveSpec, ArchiveWriter, CodingSpec, SampleInfo, Storage};
pub use geometry::{Geometry, MAX_IMAGE_SIDE, MAX_PATCH_SIDE};
pub use half::f16;
pub use output::{Dtype, Element, Layout, Normalization, OutputSpec, float_tolerance};
pub use rows::{OnDamage, Rows, mask};
pub use verify::{BadSample, SampleProblem, VerifyReport};
