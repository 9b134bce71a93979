//! The decoder for CPUs: one gather per patch, images spread over all cores.

mod codebook;
mod convert;
mod gather;
mod image;
mod memory;
mod path;
#[cfg(target_arch = "x86_64")]
mod vbmi;

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use self::codebook::Codebook;
use self::convert::Converter;
use self::image::{Job, Scratch};
pub use self::path::CpuPath;
use super::{Decoder, check_call};
use crate::archive::Archive;
use crate::error::Result;
use crate::format::index::IndexWidth;
use crate::geometry::Geometry;
use crate::output::{Dtype, OutputSpec};

/// Outputs smaller than this are decoded by the calling thread: waking others takes longer than they would save.
const SHARED: usize = 1 << 20;

/// Bytes of output that a thread takes at a time at least.
const SHARE: usize = 128 << 10;

/// Decodes in native code on all cores of rayon's current thread pool.
#[derive(Clone)]
pub struct CpuDecoder {
    geometry: Geometry,
    index_width: IndexWidth,
    codebook: Arc<Codebook>,
    path: CpuPath,
    /// Those of the last float output asked for.
    converters: Arc<Mutex<Option<Known>>>,
}

/// The converters of an output.
type Known = (OutputSpec, Arc<[Converter]>);

impl fmt::Debug for CpuDecoder {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("CpuDecoder").field("geometry", &self.geometry).field("path", &self.path).finish_non_exhaustive()
    }
}

impl CpuDecoder {
    /// A decoder for the rows of this archive, on the best path that the processor has. Copies the codebook, with
    /// padding: usually 1.3 times its size, at most 8 times.
    pub fn new<D: AsRef<[u8]>>(archive: &Archive<D>) -> Self {
        let geometry = *archive.geometry();
        Self {
            geometry,
            index_width: archive.index_width(),
            codebook: Arc::new(Codebook::new(archive.codebook(), &geometry)),
            path: CpuPath::best(),
            converters: Arc::default(),
        }
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
        let mut last = self.converters.lock().unwrap_or_else(PoisonError::into_inner);
        match last.as_ref() {
            Some((known, converters)) if known == spec => Arc::clone(converters),
            _ => {
                let converters: Arc<[Converter]> = Converter::all(spec, self.geometry.channels()).into();
                *last = Some((*spec, Arc::clone(&converters)));
                converters
            }
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
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
        check_call(g, self.index_width.row_len(g.patches()), rows, spec, output.len())?;
        let converters = if spec.dtype == Dtype::U8 { Arc::default() } else { self.converters(spec) };
        let job = Job {
            geometry: g,
            index_width: self.index_width,
            codebook: &self.codebook,
            converters: &converters,
            spec,
            streamed: memory::CAN_STREAM && output.len() >= memory::STREAM,
        };
        let decode = |(i, image): (usize, &mut [u8])| {
            let next = rows.get(i + 1).copied().unwrap_or_default();
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.fit(g, spec);
                // SAFETY: a decoder is only ever given paths that are available.
                unsafe { job.decode(self.path, [rows[i], next], image, scratch) };
            });
        };
        let image_len = spec.batch_len(g, 1);
        if rows.len() < 2 || output.len() < SHARED || rayon::current_num_threads() == 1 {
            output.chunks_exact_mut(image_len).enumerate().for_each(decode);
            memory::finish_streaming();
            return Ok(());
        }
        let images = output.par_chunks_exact_mut(image_len).enumerate();
        images
            .with_min_len(SHARE.div_ceil(image_len))
            .for_each_init(memory::Streaming::default, |_, image| decode(image));
        Ok(())
    }
}
