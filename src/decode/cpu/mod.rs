//! The decoder for CPUs: images spread over all cores.

mod convert;
mod layers;
mod memory;
mod output;
mod path;
#[cfg(target_arch = "x86_64")]
mod vbmi;
mod vq;

use std::fmt;
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use self::convert::Converter;
use self::layers::Layers;
use self::output::Output;
pub use self::path::CpuPath;
use self::vq::Vq;
use super::{Decoder, check_call};
use crate::archive::Archive;
use crate::data::Data;
use crate::error::Result;
use crate::format::codec::Codec;
use crate::geometry::Geometry;
use crate::lock::try_locked;
use crate::output::{Dtype, OutputSpec};

/// Outputs smaller than this are decoded by the calling thread: waking others takes longer than they would save.
const SHARED: usize = 1 << 20;

/// Bytes of output that a thread takes at a time at least.
const SHARE: usize = 128 << 10;

/// Decodes in native code on all cores of rayon's current thread pool. Threads can share one, and a forked child can use what
/// it inherits, in a thread pool of its own: no thread of rayon's survives a fork.
#[derive(Clone)]
pub struct CpuDecoder {
    geometry: Geometry,
    coding: Coding,
    path: CpuPath,
    /// Those of the last float output asked for.
    converters: Arc<Mutex<Option<Known>>>,
}

/// What depends on the codec: from a row to an image.
#[derive(Clone)]
enum Coding {
    Vq(Arc<Vq>),
    Layers(Arc<Layers>),
}

impl Coding {
    /// The size of outputs from which on they are stored past the caches.
    fn streams_from(&self) -> usize {
        match self {
            Self::Vq(_) => memory::STREAM,
            Self::Layers(_) => memory::STREAM_LAYERS,
        }
    }
}

/// The converters of an output.
type Known = (OutputSpec, Arc<[Converter]>);

impl fmt::Debug for CpuDecoder {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("CpuDecoder").field("geometry", &self.geometry).field("path", &self.path).finish_non_exhaustive()
    }
}

impl CpuDecoder {
    /// A decoder for the rows of this archive, on the best path that the processor has. Copies the codebooks; that of
    /// the codec "vq" with padding: usually 1.3 times its size, at most 8 times.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory); [`Error::TensorChecksum`](crate::Error::TensorChecksum) if the
    /// codebooks are damaged; what the data gives.
    pub fn new<D: Data>(archive: &Archive<D>) -> Result<Self> {
        let geometry = *archive.geometry();
        let coding = match archive.codec() {
            Codec::Vq => Coding::Vq(Arc::new(Vq::new(archive.vq()?, &geometry)?)),
            Codec::Layers => Coding::Layers(Arc::new(Layers::new(archive.layers()?)?)),
        };
        Ok(Self { geometry, coding, path: CpuPath::best(), converters: Arc::default() })
    }

    /// The same decoder on another path, for comparisons. One that the processor lacks is replaced by the best that
    /// it has.
    pub fn with_path(self, path: CpuPath) -> Self {
        let path = if CpuPath::available().contains(&path) { path } else { CpuPath::best() };
        Self { path, ..self }
    }

    /// The instructions that it uses.
    pub fn path(&self) -> CpuPath {
        self.path
    }

    fn converters(&self, spec: &OutputSpec) -> Arc<[Converter]> {
        // Making them takes microseconds, so a lock that is held is not waited for.
        let known = try_locked(&self.converters).and_then(|last| {
            last.as_ref().filter(|(known, _)| known == spec).map(|(_, converters)| converters.clone())
        });
        known.unwrap_or_else(|| {
            let converters: Arc<[Converter]> = Converter::all(spec, self.geometry.channels()).into();
            if let Some(mut last) = try_locked(&self.converters) {
                *last = Some((*spec, Arc::clone(&converters)));
            }
            converters
        })
    }
}

impl Decoder for CpuDecoder {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn device_name(&self) -> &str {
        "cpu"
    }

    fn decode_bytes(&self, rows: &[&[u8]], spec: &OutputSpec, output: &mut [u8]) -> Result<()> {
        let g = &self.geometry;
        check_call(g, rows.len(), spec, output.len())?;
        let converters = if spec.dtype == Dtype::U8 { Arc::default() } else { self.converters(spec) };
        let streamed = memory::CAN_STREAM && output.len() >= self.coding.streams_from();
        let target = Output { geometry: g, spec, converters: &converters, streamed };
        let image_len = spec.batch_len(g, 1);
        match &self.coding {
            Coding::Vq(vq) => {
                vq.check_rows(g, rows)?;
                spread(output, image_len, |i, image| {
                    let next = rows.get(i + 1).copied().unwrap_or_default();
                    // SAFETY: a decoder is only ever given paths that are available.
                    unsafe { vq.decode(self.path, [rows[i], next], &target, image) };
                });
            }
            Coding::Layers(layers) => {
                layers.check_rows(rows)?;
                spread(output, image_len, |i, image| {
                    let next = rows.get(i + 1).copied().unwrap_or_default();
                    // SAFETY: a decoder is only ever given paths that are available.
                    unsafe { layers.decode(self.path, [rows[i], next], &target, image) };
                });
            }
        }
        Ok(())
    }
}

/// Decodes each image of a batch, by number, on as many threads as pay.
fn spread(output: &mut [u8], image_len: usize, decode: impl Fn(usize, &mut [u8]) + Sync) {
    if output.len() < SHARED.max(2 * image_len) || rayon::current_num_threads() == 1 {
        let _until_all_is_stored = memory::Streaming;
        output.chunks_exact_mut(image_len).enumerate().for_each(|(i, image)| decode(i, image));
        return;
    }
    let images = output.par_chunks_exact_mut(image_len).enumerate();
    images
        .with_min_len(SHARE.div_ceil(image_len))
        .for_each_init(memory::Streaming::default, |_, (i, image)| decode(i, image));
}
