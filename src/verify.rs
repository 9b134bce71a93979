//! The full scan of an archive: what opening it cannot tell.

use rayon::prelude::*;
use serde::{Serialize, Serializer};

use crate::archive::Archive;
use crate::data::Data;
use crate::error::{Error, Result};
use crate::format::checksum::crc32c_of;
use crate::format::coding::Coding;
use crate::format::vq::Vq;
use crate::format::{MAX_PSNR_DB, tensor};
use crate::geometry::Geometry;
use crate::progress::{Counter, Progress};

/// Samples after which it is looked whether the file is still there.
const CHECKED: usize = 16;
/// How many times as long as all of them together parts of a tensor may be that its samples name: damaged offsets make some
/// parts overlap, hostile ones let each sample name all of it, and verifying would take for ever.
const MOST_TIMES: u64 = 16;
/// Bytes of offsets that are read at a time.
const BLOCK: usize = 1 << 16;

/// What [`Archive::verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Samples looked at: all of them.
    pub samples: usize,
    /// Damaged samples in ascending order.
    pub bad_samples: Vec<BadSample>,
    /// Problems that are no single sample's, such as a damaged codebook.
    pub problems: Vec<String>,
    /// What could not be checked, because the archive carries no checksums for it.
    pub unchecked: Vec<String>,
}

/// A damaged sample.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BadSample {
    /// Its number.
    pub sample: usize,
    /// What is wrong with it; its message when serialised.
    #[serde(serialize_with = "message")]
    pub problem: SampleProblem,
}

/// What can be wrong with a sample.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SampleProblem {
    /// The bytes of its row changed since they were written.
    #[error("its row has CRC-32C {found:08x}, recorded is {expected:08x}")]
    Checksum {
        /// The checksum computed.
        found: u32,
        /// The checksum recorded.
        expected: u32,
    },
    /// Its record cannot be found.
    #[error("its record cannot be found: {problem}")]
    Record {
        /// What is wrong with its offsets.
        problem: String,
    },
    /// Its record is not one of this codec's.
    #[error("its record is damaged: {problem}")]
    Layers {
        /// The first thing that is wrong with it.
        problem: String,
    },
    /// It names a codeword that does not exist.
    #[error("patch {patch} has index {index}, the codebook has {codewords} codewords")]
    Index {
        /// The first such patch.
        patch: usize,
        /// Its index.
        index: u32,
        /// The size of the codebook.
        codewords: usize,
    },
    /// Its label has no class name.
    #[error("its label is {label}, expected -1 (none) to {}", *classes as i64 - 1)]
    Label {
        /// The label.
        label: i64,
        /// The number of class names.
        classes: usize,
    },
    /// Its PSNR is no number that an encoder could have measured.
    #[error("its PSNR is {psnr_db} dB, expected 0 to {MAX_PSNR_DB}")]
    Psnr {
        /// The PSNR recorded.
        psnr_db: f32,
    },
    /// Its caption is out of bounds or not UTF-8.
    #[error("its caption is not readable text")]
    Caption,
}

fn message<S: Serializer>(problem: &SampleProblem, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(problem)
}

impl VerifyReport {
    /// Whether nothing is wrong (something may still be unchecked).
    pub fn is_ok(&self) -> bool {
        self.bad_samples.is_empty() && self.problems.is_empty()
    }
}

impl<D: Data> Archive<D> {
    /// Reads every byte on all cores: compares every checksum, and looks for indices beyond the codebook, labels
    /// without a class, a PSNR that is none and captions that are no text. Takes as long as reading the file.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; what the data gives. Damage is in the report.
    pub fn verify(&self, progress: &dyn Progress) -> Result<VerifyReport> {
        self.data().check()?;
        let header = self.header();
        let mut report = VerifyReport { samples: self.samples(), ..Default::default() };
        match &header.integrity {
            Some(_) => report.problems.extend(self.damaged_tensors()?.iter().map(Error::to_string)),
            None => {
                let tensors = header.container.tensors.keys().filter(|name| *name != self.codec().rows());
                report.unchecked.extend(tensors.map(|name| format!("tensor `{name}`: no checksum")));
                let rows = match header.coding {
                    Coding::Vq(_) => "index rows",
                    Coding::Layers(_) => "records",
                };
                report.unchecked.push(format!("{rows}: no checksums"));
            }
        }
        if let Some(captions) = &header.captions {
            let ends = self.caption_offsets(captions, [0, self.samples()])?;
            if ends != [0, captions.bytes.len() as u64] {
                report.problems.push("the captions do not begin and end where their bytes do".into());
            }
        }
        if let Coding::Layers(layers) = &header.coding
            && !layers.is_complete(self.data())?
        {
            report.problems.push("the records do not begin and end where their words do".into());
        }
        if let Some((tensor, found)) = self.overlapping()? {
            report.problems.push(format!("tensor `{tensor}`: {found}, so no sample was looked at"));
            return Ok(report);
        }
        let counter = Counter::new(progress, "verifying", self.samples());
        report.bad_samples = self.bad_samples(|sample, scratch| self.check_sample(sample, scratch), &counter)?;
        Ok(report)
    }

    /// What opening with [`Check::Open`](crate::Check::Open) looks for: damaged rows, where that of anything else is an
    /// error.
    pub(crate) fn scan(&self) -> Result<Vec<BadSample>> {
        if let Some(error) = self.damaged_tensors()?.into_iter().next() {
            return Err(error);
        }
        if let Some((tensor, found)) = self.overlapping()? {
            let expected = "them one behind the other".into();
            return Err(Error::Tensor { tensor: tensor.into(), found, expected });
        }
        self.bad_samples(|sample, scratch| self.check_row(sample, scratch), &Counter::new(&(), "", 0))
    }

    /// Why samples are not looked at one by one: the tensor by which their records or captions overlap beyond measure.
    fn overlapping(&self) -> Result<Option<(&'static str, String)>> {
        let header = self.header();
        let records = match &header.coding {
            Coding::Vq(_) => None,
            Coding::Layers(layers) => Some((tensor::RECORD_OFFSETS, "records", layers.offsets())),
        };
        let captions = header.captions.as_ref();
        let captions = captions.map(|c| (tensor::CAPTION_OFFSETS, "captions", (&c.offsets, c.bytes.len() as u64)));
        for (tensor, what, (offsets, end)) in records.into_iter().chain(captions) {
            let (mut before, mut sum) = (0, 0u64);
            for start in offsets.clone().step_by(BLOCK) {
                let block = self.data().bytes(start..offsets.end.min(start + BLOCK))?;
                for &offset in block.as_chunks::<8>().0 {
                    let offset = u64::from_le_bytes(offset);
                    if before <= offset && offset <= end {
                        sum = sum.saturating_add(offset - before);
                    }
                    before = offset;
                }
            }
            if sum / MOST_TIMES > end {
                return Ok(Some((tensor, format!("{what} that overlap more than {MOST_TIMES} times"))));
            }
        }
        Ok(None)
    }

    /// The tensors that do not have their checksums.
    fn damaged_tensors(&self) -> Result<Vec<Error>> {
        let (header, mut damaged) = (self.header(), Vec::new());
        for (name, &expected) in header.integrity.iter().flatten() {
            let found = crc32c_of(self.data(), header.container.tensors[name].range.clone())?;
            if found != expected {
                damaged.push(Error::TensorChecksum { tensor: name.clone(), found, expected });
            }
        }
        Ok(damaged)
    }

    fn bad_samples(
        &self,
        check: impl Fn(usize, &mut Vec<u32>) -> Result<Option<SampleProblem>> + Sync,
        counter: &Counter,
    ) -> Result<Vec<BadSample>> {
        let bad: Vec<Option<BadSample>> = (0..self.samples())
            .into_par_iter()
            .with_min_len(64)
            .map_init(Vec::new, |scratch, sample| {
                if sample % CHECKED == 0 {
                    self.data().check()?;
                }
                let problem = check(sample, scratch)?;
                counter.add(1)?;
                Ok(problem.map(|problem| BadSample { sample, problem }))
            })
            .filter(|found| !matches!(found, Ok(None)))
            .collect::<Result<_>>()?;
        Ok(bad.into_iter().flatten().collect())
    }

    fn check_row(&self, sample: usize, scratch: &mut Vec<u32>) -> Result<Option<SampleProblem>> {
        let row = match self.compared_row(sample)? {
            Ok(row) => row,
            Err(problem) => return Ok(Some(problem)),
        };
        Ok(match &self.header().coding {
            Coding::Vq(vq) => check_indices(vq, self.geometry(), &row, scratch),
            Coding::Layers(layers) => layers.check_record(&row).map(|problem| SampleProblem::Layers { problem }),
        })
    }

    fn check_sample(&self, sample: usize, scratch: &mut Vec<u32>) -> Result<Option<SampleProblem>> {
        if let Some(problem) = self.check_row(sample, scratch)? {
            return Ok(Some(problem));
        }
        let header = self.header();
        if let (Some(labels), Some(classes)) = (&header.labels, &header.classes) {
            let label = i64::from_le_bytes(self.number(labels, sample)?);
            if label != -1 && !(0..classes.len() as i64).contains(&label) {
                return Ok(Some(SampleProblem::Label { label, classes: classes.len() }));
            }
        }
        if let Some(psnr) = &header.psnr {
            let psnr_db = f32::from_le_bytes(self.number(psnr, sample)?);
            if !(0.0..=MAX_PSNR_DB as f32).contains(&psnr_db) {
                return Ok(Some(SampleProblem::Psnr { psnr_db }));
            }
        }
        if let Some(captions) = &header.captions
            && self.stored_caption(captions, sample)?.is_none()
        {
            return Ok(Some(SampleProblem::Caption));
        }
        Ok(None)
    }
}

/// Looks for an index beyond the codebook, a row of the grid at a time.
fn check_indices(vq: &Vq, geometry: &Geometry, row: &[u8], scratch: &mut Vec<u32>) -> Option<SampleProblem> {
    let codewords = vq.codewords;
    scratch.resize(geometry.grid_width(), 0);
    for first in (0..geometry.patches()).step_by(scratch.len()) {
        vq.index_width.unpack(row, first, scratch);
        if let Some(at) = scratch.iter().position(|&index| index as usize >= codewords) {
            return Some(SampleProblem::Index { patch: first + at, index: scratch[at], codewords });
        }
    }
    None
}
