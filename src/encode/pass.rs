//! The encoding pass: from images to the rows of an archive.

use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use super::checkpoint::{Checkpoint, Made, Progressed, Sample};
use super::quality::psnr_db;
use super::skipped::{Skipped, report_skipped};
use super::source::Source;
use super::{EncodeOptions, prepare};
use crate::error::{Error, Result};
use crate::format::atomic::AtomicFile;
use crate::format::writer::{ArchiveSpec, ArchiveWriter, SampleInfo};
use crate::geometry::Geometry;
use crate::progress::{Counter, Progress};

/// An image's row as it is stored, and the sum of its squared errors.
pub(super) struct Encoded {
    pub row: Vec<u8>,
    pub squared_error: u64,
}

/// The most images that are in memory at once.
pub(super) const CHUNK_IMAGES: usize = 256;

/// The encoding pass: all images, one chunk after another, whatever the codec.
pub(super) struct Pass<'a> {
    source: &'a dyn Source,
    options: &'a EncodeOptions,
    made: &'a Made,
    writer: ArchiveWriter<AtomicFile>,
    tally: Tally,
    checkpoint: Checkpoint,
    /// The image that comes next.
    pub next: usize,
    /// What was done since it was last saved.
    unsaved: Progressed,
}

impl<'a> Pass<'a> {
    /// Starts a pass behind what an earlier one did.
    pub fn new(
        source: &'a dyn Source,
        options: &'a EncodeOptions,
        made: &'a Made,
        mut checkpoint: Checkpoint,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let geometry = options.geometry()?;
        let mut spec = ArchiveSpec::with_coding(geometry, made.coding());
        spec.max_error = options.max_error();
        spec.labels = source.has_labels();
        spec.captions = source.has_captions();
        spec.psnr = true;
        spec.classes = source.classes();
        spec.samples = source.len();
        spec.metadata.extend(super::recorded(options));
        let mut writer = ArchiveWriter::new(checkpoint.archive()?, spec)?;
        let mut tally = Tally::new(&geometry);
        let (mut next, mut unsaved) = (0, Progressed::default());
        let done = checkpoint.done();
        let counter = done.last().map(|(_, last)| Counter::new(progress, "resuming", last.images));
        'done: for (place, Progressed { images, samples, mut skipped }) in done {
            for (i, sample) in samples.iter().enumerate() {
                let psnr_db = Some(psnr_db(sample.squared_error, tally.image_len) as f32);
                let info = SampleInfo { label: sample.label, caption: sample.caption.as_deref(), psnr_db };
                if !writer.adopt(sample.len, sample.crc32c, info)? {
                    // The row did not reach the disk: it and all behind it are made again.
                    next = sample.image;
                    skipped.retain(|skipped| skipped.index < next);
                    tally.skipped.extend(skipped.iter().cloned());
                    unsaved = Progressed { images: next, samples: samples[..i].to_vec(), skipped };
                    checkpoint.forget_from(place)?;
                    break 'done;
                }
                tally.add(sample.squared_error, sample.len);
            }
            counter.as_ref().map_or(Ok(()), |counter| counter.add(images - next))?;
            tally.skipped.extend(skipped);
            next = images;
        }
        Ok(Self { source, options, made, writer, tally, checkpoint, next, unsaved })
    }

    /// Encodes the images that are left each by itself, `count` at a time spread over threads. `encode` has no row for
    /// an image that is not what it was when its codebook was made.
    pub fn run_each(
        &mut self,
        count: usize,
        encode: impl Fn(&[u8]) -> Option<Encoded> + Sync,
        progress: &dyn Progress,
    ) -> Result<()> {
        let counter = self.counter(progress)?;
        while self.next < self.source.len() {
            let images = self.next..(self.next + count).min(self.source.len());
            let encoded: Vec<Result<Encoded>> = images
                .clone()
                .into_par_iter()
                .map(|index| {
                    counter.add(0)?;
                    let image = prepare(self.source, index, self.options);
                    let encoded = image.and_then(|image| {
                        encode(&image.pixels).ok_or_else(|| Error::ImageChanged { name: self.source.name(index) })
                    });
                    counter.add(1)?;
                    encoded
                })
                .collect();
            self.take_all(images, encoded)?;
        }
        Ok(())
    }

    /// Encodes the images that are left `count` at a time, all at once: while a GPU does, the CPU reads and resizes what
    /// comes next.
    #[cfg(feature = "gpu")]
    pub fn run_chunks(
        &mut self,
        count: usize,
        encode: impl Fn(Vec<Result<super::Image>>) -> Result<Vec<Result<Encoded>>> + Sync,
        progress: &dyn Progress,
    ) -> Result<()> {
        let counter = self.counter(progress)?;
        let (source, options) = (self.source, self.options);
        let range = |first: usize| first..(first + count).min(source.len());
        let read = |images: Range<usize>| -> Vec<Result<super::Image>> {
            let read = |index| counter.add(0).and_then(|()| prepare(source, index, options));
            images.into_par_iter().map(read).collect()
        };
        let mut images = read(range(self.next));
        while self.next < source.len() {
            let here = range(self.next);
            let (encoded, next) = rayon::join(|| encode(images), || read(range(here.end)));
            images = next;
            counter.add(here.len())?;
            self.take_all(here, encoded?)?;
        }
        Ok(())
    }

    fn counter<'p>(&self, progress: &'p dyn Progress) -> Result<Counter<'p>> {
        let counter = Counter::new(progress, "encoding", self.source.len());
        counter.add(self.next)?;
        Ok(counter)
    }

    /// Writes the rows of images that follow those before, and saves from time to time.
    fn take_all(&mut self, images: Range<usize>, encoded: Vec<Result<Encoded>>) -> Result<()> {
        for (index, encoded) in images.zip(encoded) {
            self.take(index, encoded)?;
            self.next = index + 1;
        }
        if self.checkpoint.is_due() { self.save() } else { Ok(()) }
    }

    /// Writes an image's row, or notes that there is none.
    fn take(&mut self, image: usize, encoded: Result<Encoded>) -> Result<()> {
        match encoded {
            Ok(Encoded { row, squared_error }) => {
                let (label, caption) = (self.source.label(image), self.source.caption(image)?);
                let psnr_db = Some(psnr_db(squared_error, self.tally.image_len) as f32);
                self.writer.push_row(&row, SampleInfo { label, caption: caption.as_deref(), psnr_db })?;
                self.tally.add(squared_error, row.len());
                let (len, crc32c) = (row.len(), self.writer.last_checksum());
                if self.source.is_lasting() {
                    self.unsaved.samples.push(Sample { image, squared_error, len, crc32c, label, caption });
                }
                Ok(())
            }
            Err(error) if self.options.on_error.skips(&error) => {
                let skipped = Skipped { index: image, name: self.source.name(image), reason: error.with_causes() };
                self.tally.skipped.push(skipped.clone());
                self.unsaved.skipped.push(skipped);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Brings what was done to the disk.
    fn save(&mut self) -> Result<()> {
        if !self.checkpoint.is_kept() {
            self.checkpoint.save_codebook(self.made)?;
        }
        if self.unsaved == Progressed::default() {
            return Ok(());
        }
        self.writer.sync()?;
        self.unsaved.images = self.next;
        self.checkpoint.save(std::mem::take(&mut self.unsaved))
    }

    /// Saves what was done before an error, if it took long enough to be worth it.
    pub fn keep(&mut self) -> Result<()> {
        if self.checkpoint.is_kept() || self.checkpoint.is_due() { self.save() } else { Ok(()) }
    }

    /// Completes the archive and moves it to its path.
    pub fn finish(mut self, output: &Path) -> Result<Tally> {
        if self.writer.samples() == 0 {
            self.checkpoint.discard();
            let first = self.tally.skipped.into_iter().next().map(|skipped| skipped.reason).unwrap_or_default();
            return Err(Error::AllSkipped { files: self.source.len(), first });
        }
        if self.checkpoint.is_kept() {
            self.save()?;
        }
        let archive = self.writer.finish(Some(self.tally.mean_psnr_db()))?;
        // Before the archive: whoever is interrupted in between goes on from what is kept.
        report_skipped(output, &self.tally.skipped)?;
        archive.commit()?;
        self.checkpoint.discard();
        Ok(self.tally)
    }
}

/// Figures over the samples so far.
pub(super) struct Tally {
    /// Values of an image.
    image_len: u64,
    pub samples: usize,
    sum_psnr_db: f64,
    pub min_psnr_db: f64,
    pub squared_error: u64,
    /// Bytes of all rows.
    rows_len: u64,
    pub skipped: Vec<Skipped>,
}

impl Tally {
    fn new(geometry: &Geometry) -> Self {
        let image_len = geometry.image_len() as u64;
        let (sum_psnr_db, min_psnr_db) = (0.0, f64::INFINITY);
        Self { image_len, samples: 0, sum_psnr_db, min_psnr_db, squared_error: 0, rows_len: 0, skipped: Vec::new() }
    }

    fn add(&mut self, squared_error: u64, row_len: usize) {
        let psnr = psnr_db(squared_error, self.image_len);
        self.samples += 1;
        self.sum_psnr_db += psnr;
        self.min_psnr_db = psnr.min(self.min_psnr_db);
        self.squared_error += squared_error;
        self.rows_len += row_len as u64;
    }

    pub fn mean_psnr_db(&self) -> f64 {
        self.sum_psnr_db / self.samples as f64
    }

    /// Bytes of a row in the mean, rounded.
    pub fn mean_row_len(&self) -> usize {
        ((self.rows_len + self.samples as u64 / 2) / self.samples as u64) as usize
    }
}
