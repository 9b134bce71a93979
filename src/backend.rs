//! What does the work, the CPU or a GPU.

use crate::archive::Archive;
use crate::data::Data;
use crate::decode::Decoder;
use crate::decode::cpu::CpuDecoder;
use crate::error::{Error, Result};
use crate::gpu::{Device, GpuDecoder, Select};
use crate::output::named;

/// What to decode on, or to search on for nearest codewords.
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

    /// The GPU to work on, opened; `None` for the CPU. `adapter`, a part of an adapter's name, asks for that GPU, a
    /// software one too.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] if a GPU was asked for that is not there; [`Error::Argument`] for an adapter on the
    /// CPU; [`Error::Gpu`] if the driver refuses.
    pub fn device(self, adapter: Option<&str>) -> Result<Option<Device>> {
        let select = match (self, adapter) {
            (Backend::Cpu, Some(name)) => {
                return Err(Error::Argument {
                    argument: "adapter",
                    found: format!("{name:?}"),
                    expected: "none, as the backend is cpu".into(),
                });
            }
            (Backend::Cpu, None) => return Ok(None),
            (_, Some(name)) => Select::Named(name.into()),
            (_, None) => Select::Best,
        };
        match Device::open(&select) {
            // Only the lack of a GPU leads to the CPU: one that is there and fails is an error.
            Err(Error::NoAdapter { .. }) if self == Backend::Auto && adapter.is_none() => Ok(None),
            device => device.map(Some),
        }
    }

    /// A decoder for an archive, on the device that [`device`](Self::device) gives.
    /// [`Decoder::device_name`] tells what was chosen.
    ///
    /// # Errors
    /// As [`device`](Self::device), and any error of [`GpuDecoder::new`] and [`CpuDecoder::new`].
    pub fn decoder<D: Data>(self, archive: &Archive<D>, adapter: Option<&str>) -> Result<Box<dyn Decoder>> {
        Ok(match self.device(adapter)? {
            Some(device) => Box::new(GpuDecoder::new(&device, archive)?),
            None => Box::new(CpuDecoder::new(archive)?),
        })
    }
}

named!(Backend, "backend", "auto, cpu or gpu", Auto Cpu Gpu);
