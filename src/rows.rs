//! The rows of a batch, and what becomes of those that are damaged.

use std::borrow::Cow;
use std::ops::Deref;

use crate::output::named;
use crate::verify::BadSample;

/// What becomes of the damaged samples of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDamage {
    /// The first is an error.
    #[default]
    Raise,
    /// The batch has that many samples fewer.
    Skip,
    /// Their images are zeros.
    Mask,
}

named!(OnDamage, "damaged", "raise, skip or mask", Raise Skip Mask);

impl OnDamage {
    /// The name that the command and Python know.
    pub fn name(self) -> &'static str {
        match self {
            OnDamage::Raise => "raise",
            OnDamage::Skip => "skip",
            OnDamage::Mask => "mask",
        }
    }
}

/// The rows of a batch: what decoders take. Borrowed from an archive that is in memory or mapped, else read.
#[derive(Debug, Clone, Default)]
pub struct Rows<'a> {
    samples: Vec<usize>,
    rows: Vec<Cow<'a, [u8]>>,
    damaged: Vec<BadSample>,
    masked: Vec<usize>,
}

impl<'a> Rows<'a> {
    pub(crate) fn with_capacity(samples: usize) -> Self {
        Self { samples: Vec::with_capacity(samples), rows: Vec::with_capacity(samples), ..Self::default() }
    }

    pub(crate) fn push(&mut self, sample: usize, row: Cow<'a, [u8]>) {
        self.samples.push(sample);
        self.rows.push(row);
    }

    /// Leaves a damaged sample out.
    pub(crate) fn skip(&mut self, bad: BadSample) {
        self.damaged.push(bad);
    }

    /// Has another row stand for a damaged sample.
    pub(crate) fn push_masked(&mut self, bad: BadSample, stand_in: Cow<'a, [u8]>) {
        self.masked.push(self.rows.len());
        self.push(bad.sample, stand_in);
        self.damaged.push(bad);
    }

    /// The rows as slices, for [`Decoder::decode_bytes`](crate::Decoder::decode_bytes).
    pub fn slices(&self) -> Vec<&[u8]> {
        self.rows.iter().map(Cow::as_ref).collect()
    }

    /// The sample of each row.
    pub fn samples(&self) -> &[usize] {
        &self.samples
    }

    /// The samples that were skipped or masked, and what is wrong with them.
    pub fn damaged(&self) -> &[BadSample] {
        &self.damaged
    }

    /// Places in the batch whose rows only stand in for damaged ones.
    pub fn masked(&self) -> &[usize] {
        &self.masked
    }

    /// Fills the images of masked samples in a decoded batch with zeros.
    pub fn mask(&self, batch: &mut [u8]) {
        mask(&self.masked, self.rows.len(), batch);
    }
}

/// Fills images of a decoded batch of `len` with zeros.
pub fn mask(masked: &[usize], len: usize, batch: &mut [u8]) {
    let image = batch.len() / len.max(1);
    masked.iter().for_each(|&place| batch[place * image..][..image].fill(0));
}

impl<'a> Deref for Rows<'a> {
    type Target = [Cow<'a, [u8]>];

    fn deref(&self) -> &Self::Target {
        &self.rows
    }
}
