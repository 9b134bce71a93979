//! Which decoder does the work.

use std::fmt;
use std::str::FromStr;

use crate::archive::Archive;
use crate::decode::Decoder;
use crate::decode::cpu::CpuDecoder;
use crate::error::{Error, Result};
use crate::gpu::{Device, GpuDecoder, Select};
use crate::output::named;

/// What to decode on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Backend {
    /// The best real GPU, or the CPU where there is none. Never a software adapter: the native decoder is faster.
    #[default]
    Auto,
    /// Native code on the CPU.
    Cpu,
    /// The best real GPU.
    Gpu,
}

impl Backend {
    /// The name that the command knows.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Auto => "auto",
            Backend::Cpu => "cpu",
            Backend::Gpu => "gpu",
        }
    }

    /// A decoder for an archive. `adapter`, a part of an adapter's name, asks for that GPU, a software one too.
    /// [`Decoder::device_name`] tells what was chosen.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] if a GPU was asked for that is not there; [`Error::Argument`] for an adapter on the
    /// CPU; any error of [`GpuDecoder::new`].
    pub fn decoder<D: AsRef<[u8]>>(self, archive: &Archive<D>, adapter: Option<&str>) -> Result<Box<dyn Decoder>> {
        let gpu = |select: &Select| -> Result<Box<dyn Decoder>> {
            Ok(Box::new(GpuDecoder::new(&Device::open(select)?, archive)?))
        };
        match (self, adapter) {
            (Backend::Cpu, Some(name)) => Err(Error::Argument {
                argument: "adapter",
                found: format!("{name:?}"),
                expected: "none, as the backend is cpu".into(),
            }),
            (Backend::Cpu, None) => Ok(Box::new(CpuDecoder::new(archive))),
            (_, Some(name)) => gpu(&Select::Named(name.into())),
            (Backend::Gpu, None) => gpu(&Select::Best),
            // Only the lack of a GPU leads to the CPU: one that is there and fails is an error.
            (Backend::Auto, None) => match gpu(&Select::Best) {
                Err(Error::NoAdapter { .. }) => Ok(Box::new(CpuDecoder::new(archive))),
                found => found,
            },
        }
    }
}

named!(Backend, "backend", "auto, cpu or gpu", Auto Cpu Gpu);
