//! An archive beside the images that it was made of.

use std::io;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use super::picture::Image;
use super::quality::psnr;
use super::source::Source;
use super::{EncodeOptions, Skipped, options_of, prepare, skipped_report};
use crate::archive::Archive;
use crate::data::Data;
use crate::decode::Decoder;
use crate::decode::cpu::CpuDecoder;
use crate::error::{Error, Result};
use crate::output::OutputSpec;
use crate::progress::{Counter, Progress};

/// How far a PSNR may be from the recorded one, in dB.
const PSNR_TOLERANCE_DB: f64 = 0.01;
/// Samples whose results are in memory at once.
const CHUNK: usize = 1024;

/// The images of a source that became the samples of an archive.
pub struct Originals<'a> {
    source: &'a dyn Source,
    options: EncodeOptions,
    /// For each image that was left out, in ascending order, the samples before it.
    samples_before: Vec<usize>,
}

impl<'a> Originals<'a> {
    /// Finds the samples' images by their order. If the source has more images than the archive samples, the list of
    /// those that were left out is read beside the archive, which lies at `path`.
    ///
    /// # Errors
    /// [`Error::OtherSource`] if the numbers do not fit; [`Error::SkippedList`] if the list is damaged or another
    /// source's; [`Error::Metadata`] if the archive was made in a way that this version does not know.
    pub fn new<D: Data>(archive: &Archive<D>, path: &Path, source: &'a dyn Source) -> Result<Self> {
        let options = options_of(archive)?;
        let (samples, images) = (archive.samples(), source.len());
        let list = skipped_report(path);
        let skipped = if images == samples { Vec::new() } else { read_skipped(&list)? };
        if samples + skipped.len() != images {
            return Err(Error::OtherSource { samples, images, skipped: skipped.len(), list });
        }
        let mut samples_before = Vec::with_capacity(skipped.len());
        for (i, Skipped { index, name, .. }) in skipped.into_iter().enumerate() {
            let problem = match index.checked_sub(i) {
                Some(before) if before <= samples && samples_before.last().is_none_or(|&last| last <= before) => {
                    samples_before.push(before);
                    let found = source.name(index);
                    (found != name)
                        .then(|| format!("image {index} is {found:?} in the source, but {name:?} in the list"))
                }
                _ => Some(format!("entry {i} has index {index}, expected ascending indices below {images}")),
            };
            if let Some(problem) = problem {
                return Err(Error::SkippedList { path: list, problem });
            }
        }
        Ok(Self { source, options, samples_before })
    }

    /// The number of a sample's image in the source.
    pub fn image(&self, sample: usize) -> usize {
        sample + self.samples_before.partition_point(|&before| before <= sample)
    }

    /// What the source calls a sample's image.
    pub fn name(&self, sample: usize) -> String {
        self.source.name(self.image(sample))
    }

    /// A sample's image as it was encoded: read and resized.
    ///
    /// # Errors
    /// Those of [`prepare`].
    pub fn prepare(&self, sample: usize) -> Result<Image> {
        prepare(self.source, self.image(sample), &self.options)
    }
}

fn read_skipped(path: &Path) -> Result<Vec<Skipped>> {
    let json = match std::fs::read(path) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    serde_json::from_slice(&json).map_err(|error| Error::SkippedList { path: path.into(), problem: error.to_string() })
}

/// What [`verify_against`] found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AgainstReport {
    /// Samples compared: all of them, or none if the source is another.
    pub samples: usize,
    /// Samples that decode to the very pixels of the source.
    pub exact_samples: usize,
    /// The largest difference of a decoded value from the source's.
    pub max_difference: u8,
    /// The largest difference that the archive promises, if it does.
    pub max_error: Option<u8>,
    /// The mean PSNR of the samples that could be compared in dB; `None` if there are none.
    pub mean_psnr_db: Option<f64>,
    /// What is wrong with samples, in ascending order.
    pub bad_samples: Vec<BadOriginal>,
    /// Problems that are no single sample's.
    pub problems: Vec<String>,
    /// What could not be checked, because the archive or the source does not tell.
    pub unchecked: Vec<String>,
}

/// A sample that is not what the archive says of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BadOriginal {
    /// Its number.
    pub sample: usize,
    /// What the source calls its image.
    pub name: String,
    /// What is wrong.
    pub problem: String,
}

impl AgainstReport {
    /// Whether nothing is wrong (something may still be unchecked).
    pub fn is_ok(&self) -> bool {
        self.bad_samples.is_empty() && self.problems.is_empty()
    }
}

/// A sample beside its image.
struct Compared {
    max_difference: u8,
    psnr_db: f64,
    problems: Vec<String>,
}

/// Compares every sample of an archive, which lies at `path`, with the image it was made of: labels and captions, the
/// bound on differences and the PSNR, as far as they are recorded. Takes as long as reading and resizing all images,
/// on all cores; memory does not grow with their number.
///
/// # Errors
/// [`Error::Interrupted`], or one of the archive's; what does not agree is in the report, a source with other images
/// and images that cannot be read included.
pub fn verify_against<D: Data>(
    archive: &Archive<D>,
    path: &Path,
    source: &dyn Source,
    progress: &dyn Progress,
) -> Result<AgainstReport> {
    let mut report = AgainstReport::default();
    let originals = match Originals::new(archive, path, source) {
        Ok(originals) => originals,
        Err(error @ (Error::OtherSource { .. } | Error::SkippedList { .. })) => {
            report.problems.push(error.to_string());
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    report.samples = archive.samples();
    report.max_error = archive.max_error();
    let recorded: Option<Vec<f32>> = archive.psnr()?;
    let unchecked = [
        (report.max_error.is_none(), "the largest difference: the archive promises none"),
        (recorded.is_none(), "the PSNR of each sample: it is not recorded"),
        (archive.header().labels.is_some() && !source.has_labels(), "labels: the source has none"),
        (archive.header().captions.is_some() && !source.has_captions(), "captions: the source has none"),
    ];
    report.unchecked.extend(unchecked.iter().filter(|(missing, _)| *missing).map(|(_, part)| part.to_string()));

    let decoder = CpuDecoder::new(archive)?;
    let counter = Counter::new(progress, "comparing", report.samples);
    let (mut sum_psnr_db, mut compared_samples) = (0.0, 0u64);
    for first in (0..report.samples).step_by(CHUNK) {
        let samples = first..(first + CHUNK).min(report.samples);
        let compared: Vec<Result<Compared>> = samples
            .clone()
            .into_par_iter()
            .map(|sample| {
                let recorded = recorded.as_ref().map(|psnr| psnr[sample]);
                let compared = compare(archive, &decoder, &originals, sample, report.max_error, recorded);
                counter.add(1)?;
                compared
            })
            .collect();
        for (sample, compared) in samples.zip(compared) {
            let problems = match compared {
                Ok(compared) => {
                    report.max_difference = report.max_difference.max(compared.max_difference);
                    report.exact_samples += usize::from(compared.max_difference == 0);
                    compared_samples += 1;
                    sum_psnr_db += compared.psnr_db;
                    compared.problems
                }
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => vec![format!("it cannot be compared: {}", error.with_causes())],
            };
            let bad = |problem| BadOriginal { sample, name: originals.name(sample), problem };
            report.bad_samples.extend(problems.into_iter().map(bad));
        }
    }
    if compared_samples > 0 {
        let mean = sum_psnr_db / compared_samples as f64;
        report.mean_psnr_db = Some(mean);
        // A sample that could not be compared makes no mean.
        if let Some(recorded) = archive.mean_psnr_db().filter(|_| report.bad_samples.is_empty())
            && (mean - recorded).abs() > PSNR_TOLERANCE_DB
        {
            report.problems.push(format!("the mean PSNR is {mean:.2} dB, recorded is {recorded:.2} dB"));
        }
    }
    Ok(report)
}

fn compare<D: Data>(
    archive: &Archive<D>,
    decoder: &CpuDecoder,
    originals: &Originals,
    sample: usize,
    max_error: Option<u8>,
    recorded_psnr: Option<f32>,
) -> Result<Compared> {
    let original = originals.prepare(sample)?.pixels;
    let decoded: Vec<u8> = decoder.decode(&[archive.row(sample)?], &OutputSpec::default())?;
    let max_difference = original.iter().zip(&decoded).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or_default();
    let psnr_db = psnr(&original, &decoded);
    let mut problems = Vec::new();

    let (source, image) = (originals.source, originals.image(sample));
    if archive.header().labels.is_some() && source.has_labels() {
        let (found, expected) = (archive.label(sample)?, source.label(image));
        let named = |label: Option<i64>| label.map_or("none".into(), |label| label.to_string());
        if found != expected {
            problems.push(format!("its label is {}, the source's {}", named(found), named(expected)));
        }
    }
    if source.has_captions()
        && let Some(found) = archive.caption(sample)?
        && *found != source.caption(image)?.unwrap_or_default()
    {
        problems.push("its caption is not the source's".into());
    }
    if let Some(bound) = max_error.filter(|&bound| max_difference > bound) {
        problems.push(format!("it differs from the source by up to {max_difference}, promised are {bound}"));
    }
    if let Some(recorded) = recorded_psnr.filter(|&recorded| (psnr_db - f64::from(recorded)).abs() > PSNR_TOLERANCE_DB)
    {
        problems.push(format!("its PSNR is {psnr_db:.2} dB, recorded is {recorded:.2} dB"));
    }
    Ok(Compared { max_difference, psnr_db, problems })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::encode::ReadOptions;
    use crate::format::writer::{ArchiveSpec, ArchiveWriter, SampleInfo};
    use crate::geometry::Geometry;

    /// Grey images of 2x2 pixels whose values are their numbers; label and caption tell the number, too.
    struct Numbers(usize);

    impl Source for Numbers {
        fn len(&self) -> usize {
            self.0
        }
        fn name(&self, index: usize) -> String {
            format!("{index}.png")
        }
        fn read(&self, index: usize, options: &ReadOptions) -> Result<Image> {
            Image::new(2, 2, 1, vec![index as u8; 4], options.channels)
        }
        fn has_labels(&self) -> bool {
            true
        }
        fn label(&self, index: usize) -> Option<i64> {
            Some(index as i64)
        }
        fn has_captions(&self) -> bool {
            true
        }
        fn caption(&self, index: usize) -> Result<Option<String>> {
            Ok(Some(index.to_string()))
        }
    }

    /// Has the given images as samples, each off by `error`; `change` makes it worse.
    fn archive(images: &[usize], error: u8, change: impl Fn(usize, &mut SampleInfo<'static>)) -> Archive<Vec<u8>> {
        let geometry = Geometry::new((2, 2), 1, (2, 2)).expect("valid");
        let codebook = (0..=255u8).flat_map(|value| [value.saturating_add(error); 4]).collect();
        let mut spec = ArchiveSpec::new(geometry, codebook);
        (spec.labels, spec.captions, spec.psnr) = (true, true, true);
        spec.max_error = Some(3);
        let mut writer = ArchiveWriter::new(Cursor::new(Vec::new()), spec).expect("valid");
        for (sample, &image) in images.iter().enumerate() {
            let caption: &'static str = ["0", "1", "2", "3", "4", "5", "6", "7"][image];
            let psnr = psnr(&[0; 4], &[error; 4]) as f32;
            let mut info = SampleInfo { label: Some(image as i64), caption: Some(caption), psnr_db: Some(psnr) };
            change(sample, &mut info);
            writer.push(&[image as u32], info).expect("valid");
        }
        Archive::new(writer.finish(Some(psnr(&[0; 4], &[error; 4]))).expect("written").into_inner()).expect("opens")
    }

    fn verified(archive: &Archive<Vec<u8>>, path: &Path, images: usize) -> AgainstReport {
        verify_against(archive, path, &Numbers(images), &()).expect("compared")
    }

    #[test]
    fn an_archive_agrees_with_what_it_was_made_of() {
        let nowhere = Path::new("no/such.qvq");
        let report = verified(&archive(&[0, 1, 2, 3], 2, |_, _| ()), nowhere, 4);
        assert!(report.is_ok() && report.unchecked.is_empty(), "{report:?}");
        assert_eq!((report.samples, report.exact_samples, report.max_difference, report.max_error), (4, 0, 2, Some(3)));
        let report = verified(&archive(&[0, 1], 0, |_, _| ()), nowhere, 2);
        assert_eq!((report.exact_samples, report.mean_psnr_db, report.is_ok()), (2, Some(100.0), true));
    }

    #[test]
    fn what_does_not_agree_is_named() {
        let nowhere = Path::new("no/such.qvq");
        for (expected, archive) in [
            (
                "label is 7, the source's 1",
                archive(&[0, 1], 1, |i, info| info.label = info.label.map(|l| if i == 1 { 7 } else { l })),
            ),
            ("label is none", archive(&[0, 1], 1, |i, info| info.label = info.label.filter(|_| i != 1))),
            ("caption", archive(&[0, 1], 1, |i, info| info.caption = info.caption.filter(|_| i != 1))),
            (
                "recorded is 47.00",
                archive(&[0, 1], 1, |i, info| info.psnr_db = info.psnr_db.map(|p| if i == 1 { 47.0 } else { p })),
            ),
        ] {
            let report = verified(&archive, nowhere, 2);
            let found: Vec<_> = report.bad_samples.iter().map(|bad| (bad.sample, bad.name.as_str())).collect();
            assert_eq!(found, [(1, "1.png")], "{report:?}");
            assert!(report.bad_samples[0].problem.contains(expected) && !report.is_ok(), "{report:?}");
        }
        let report = verified(&archive(&[0, 1], 4, |_, _| ()), nowhere, 2);
        assert!(report.bad_samples.iter().all(|bad| bad.problem.contains("up to 4, promised are 3")), "{report:?}");
        assert_eq!(report.bad_samples.len(), 2);
        // The right number of other images.
        assert!(!verified(&archive(&[1, 0], 1, |_, _| ()), nowhere, 2).is_ok());
    }

    #[test]
    fn images_that_were_left_out_are_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.qvq");
        let write = |json: &str| std::fs::write(skipped_report(&path), json).expect("written");
        let skipped = [0, 3, 4, 7].map(|i| format!(r#"{{"index":{i},"name":"{i}.png","reason":"no image"}}"#));
        let archive = archive(&[1, 2, 5, 6], 1, |_, _| ());
        let report = verified(&archive, &path, 8);
        assert!(report.problems[0].contains("8 images") && report.samples == 0, "no list: {report:?}");
        write(&format!("[{}]", skipped.join(",")));
        let source = Numbers(8);
        let originals = Originals::new(&archive, &path, &source).expect("they fit");
        assert_eq!([0, 1, 2, 3].map(|sample| originals.image(sample)), [1, 2, 5, 6]);
        assert!(verified(&archive, &path, 8).is_ok());
        for (list, problem) in [
            (format!("[{}]", skipped[1..].join(",")), "3 were left out"),
            ("{}".into(), "skipped.json"),
            (format!("[{}]", skipped.join(",").replace("3.png", "x.png")), "x.png"),
            (format!("[{}]", skipped.join(",").replace(r#""index":4"#, r#""index":9"#)), "index 9"),
            (format!("[{}]", skipped.join(",").replace(r#""index":4"#, r#""index":2"#)), "index 2"),
            (format!("[{}]", skipped.join(",").replace(r#""index":4"#, r#""index":3"#)), "index 3"),
        ] {
            write(&list);
            let report = verified(&archive, &path, 8);
            assert!(report.problems.len() == 1 && report.problems[0].contains(problem), "{problem}: {report:?}");
        }
    }
}
