//! The codec "layers" on the CPU: sums of gathers, a row of tiles of 16x16 pixels at a time.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod blocks;
mod books;
mod image;
#[cfg(target_arch = "x86_64")]
mod place;
mod portable;
mod tile;
#[cfg(target_arch = "x86_64")]
mod vbmi;

use std::cell::RefCell;

use self::books::Component;
use self::image::{Job, Scratch};
use super::output::Output;
use super::{CpuPath, memory, output};
use crate::decode::check_records;
use crate::error::Result;
use crate::format::layers::LayersView;
use crate::format::record::RecordShape;

/// Codebooks to sum from, and the shape of records.
pub(super) struct Layers {
    shape: RecordShape,
    luma: Component<64, 16>,
    chroma: Option<Component<128, 128>>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Layers {
    pub fn new(archive: LayersView) -> Result<Self> {
        let books = archive.books()?;
        let chroma = books.chroma.as_ref().map(|chroma| Component::new(chroma, |codeword| codeword, books::by_parity));
        Ok(Self {
            shape: archive.shape().clone(),
            luma: Component::new(&books.luma, books::by_quarters, |codeword| codeword)?,
            chroma: chroma.transpose()?,
        })
    }

    pub fn check_rows(&self, records: &[&[u8]]) -> Result<()> {
        check_records(&self.shape, records)
    }

    /// Decodes one image; `records` are its record, which [`Self::check_rows`] accepts, and the next image's.
    ///
    /// # Safety
    /// The path is available.
    pub unsafe fn decode(&self, path: CpuPath, records: [&[u8]; 2], output: &Output, image: &mut [u8]) {
        let job = Job { layers: self, output: *output };
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.fit(self, output);
            // SAFETY: the path is available.
            unsafe { job.decode(path, records, image, scratch) };
        });
    }
}
