//! Whether what is read of an archive is what was written to it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::data::Data;
use crate::error::{Error, Result};
use crate::format::checksum::crc32c_of;
use crate::format::header::Header;
use crate::output::named;
use crate::verify::BadSample;

/// When the checksums of an archive are compared. One that carries none has nothing to compare.
///
/// That of the header always is. CRC-32C finds every change of up to three bits, and of a longer one all but one in
/// four thousand million; it is no protection against somebody who means to deceive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Check {
    /// All at opening, which reads the whole archive; a damaged sample is remembered, and reading it an error.
    Open,
    /// That of a row each time it is read, that of another tensor when it is first used.
    #[default]
    Read,
    /// None: damaged rows decode to wrong pixels, safely.
    Never,
}

named!(Check, "check", "open, read or never", Open Read Never);

impl Check {
    /// The name that the command and Python know.
    pub fn name(self) -> &'static str {
        match self {
            Check::Open => "open",
            Check::Read => "read",
            Check::Never => "never",
        }
    }
}

/// What is known of the parts of an archive.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub when: Check,
    /// Every tensor but that of the rows by its place; none where there are no checksums.
    tensors: BTreeMap<[usize; 2], Tensor>,
    /// What opening found.
    damaged: BTreeMap<usize, BadSample>,
}

#[derive(Debug)]
struct Tensor {
    name: String,
    crc32c: u32,
    /// Whether it was found intact. Not locked: two threads may both look, and a forked child never waits for one.
    intact: AtomicBool,
}

impl Checks {
    pub fn new(header: &Header, when: Check) -> Self {
        let recorded = header.integrity.iter().flatten();
        let tensors = recorded.map(|(name, &crc32c)| {
            let Range { start, end } = header.container.tensors[name].range;
            ([start, end], Tensor { name: name.clone(), crc32c, intact: AtomicBool::new(false) })
        });
        Self { when, tensors: tensors.collect(), damaged: BTreeMap::new() }
    }

    /// Remembers what opening found.
    pub fn remember(&mut self, damaged: Vec<BadSample>) {
        self.damaged = damaged.into_iter().map(|bad| (bad.sample, bad)).collect();
    }

    pub fn damaged(&self) -> &BTreeMap<usize, BadSample> {
        &self.damaged
    }
}

/// The tensors of an archive, compared with their checksums when they are first used.
#[derive(Clone, Copy)]
pub(crate) struct Checked<'a> {
    pub data: &'a dyn Data,
    pub checks: &'a Checks,
}

impl std::fmt::Debug for Checked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Checked").finish_non_exhaustive()
    }
}

impl<'a> Checked<'a> {
    /// The bytes of a tensor.
    pub fn read(&self, range: &Range<usize>) -> Result<Cow<'a, [u8]>> {
        self.part(range, 0..range.len())
    }

    /// Bytes of a tensor.
    pub fn part(&self, range: &Range<usize>, part: Range<usize>) -> Result<Cow<'a, [u8]>> {
        self.check(range)?;
        self.data.bytes(range.start + part.start..range.start + part.end)
    }

    /// Compares the checksum of a tensor, if that was not done yet.
    pub fn check(&self, range: &Range<usize>) -> Result<()> {
        self.data.check()?;
        let Some(tensor) = self.checks.tensors.get(&[range.start, range.end]) else { return Ok(()) };
        if self.checks.when != Check::Read || tensor.intact.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (found, expected) = (crc32c_of(self.data, range.clone())?, tensor.crc32c);
        if found != expected {
            return Err(Error::TensorChecksum { tensor: tensor.name.clone(), found, expected });
        }
        tensor.intact.store(true, Ordering::Relaxed);
        Ok(())
    }
}
