//! The codec "vq" on the CPU: one gather per patch.

mod codebook;
mod gather;
mod image;
#[cfg(target_arch = "x86_64")]
mod vbmi;

use std::cell::RefCell;

use self::codebook::Codebook;
use self::image::{Job, Scratch};
use super::output::Output;
use super::{CpuPath, convert, memory, output};
use crate::decode::check_row_lens;
use crate::error::Result;
use crate::format::index::IndexWidth;
use crate::format::vq::VqView;
use crate::geometry::Geometry;

/// A codebook to gather from, and how its indices are stored.
pub(super) struct Vq {
    index_width: IndexWidth,
    codebook: Codebook,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Vq {
    pub fn new(archive: VqView, geometry: &Geometry) -> Result<Self> {
        Ok(Self { index_width: archive.index_width(), codebook: Codebook::new(&archive.codebook()?, geometry)? })
    }

    pub fn check_rows(&self, geometry: &Geometry, rows: &[&[u8]]) -> Result<()> {
        check_row_lens(self.index_width.row_len(geometry.patches()), rows)
    }

    /// Decodes one image; `rows` are its index row and the next image's.
    ///
    /// # Safety
    /// The path is available.
    pub unsafe fn decode(&self, path: CpuPath, rows: [&[u8]; 2], output: &Output, image: &mut [u8]) {
        let job = Job { index_width: self.index_width, codebook: &self.codebook, output: *output };
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.fit(output.geometry, output.spec);
            // SAFETY: the path is available.
            unsafe { job.decode(path, rows, image, scratch) };
        });
    }
}
