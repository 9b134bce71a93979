//! What must hold of any bytes at all, taken as an archive.

use kuat::{Archive, Check, Error, OutputSpec, SampleProblem};
use safetensors::SafeTensors;

use crate::decoders;
use crate::input::Input;

/// Values of an image up to which samples are decoded.
const SMALL: usize = 1 << 14;

/// Reads all that can be read of an archive. What is refused is refused as no archive, what is taken is a safetensors
/// file, what `verify` passes can be read, and every decoder makes the same of it.
pub fn examine(bytes: &[u8]) {
    // Unchecked, so that damage gets to the decoders.
    let archive = match Archive::with_check(bytes, Check::Never) {
        Ok(archive) => archive,
        Err(error) => return assert!(error.is_invalid_archive() && !error.to_string().is_empty(), "{error:?}"),
    };
    let known = ["BOOL", "U8", "I8", "U16", "I16", "F16", "BF16", "U32", "I32", "F32", "U64", "I64", "F64"];
    if archive.tensors().all(|(_, dtype, _)| known.contains(&dtype)) {
        SafeTensors::deserialize(bytes).expect("a safetensors file");
    }
    let info = archive.info();
    serde_json::to_string(&info).expect("JSON");
    if let Some(ledger) = archive.ledger().expect("in memory") {
        serde_json::to_string(&ledger.summary()).expect("JSON");
    }

    let samples = archive.samples();
    assert!(matches!(archive.row(samples), Err(Error::Sample { .. })));
    assert!(matches!(archive.label(samples), Err(Error::Sample { .. })));
    assert!(matches!(archive.caption(samples), Err(Error::Sample { .. })));
    let report = archive.verify(&()).expect("nobody interrupts");
    let bad: Vec<usize> = report.bad_samples.iter().map(|bad| bad.sample).collect();
    assert!(report.samples == samples && bad.is_sorted_by(|a, b| a < b) && bad.iter().all(|&bad| bad < samples));

    let looked_at = (0..samples.min(40)).chain(samples.saturating_sub(10)..samples);
    let checked = Archive::new(bytes).expect("opened before");
    let mut rows = Vec::new();
    for sample in looked_at {
        let problem = report.bad_samples.iter().find(|bad| bad.sample == sample).map(|bad| &bad.problem);
        let damaged = matches!(problem, Some(SampleProblem::Checksum { .. } | SampleProblem::Record { .. }));
        let complete = report.problems.iter().all(|problem| !problem.contains("overlap"));
        assert!(!complete || checked.row(sample).is_err() == damaged, "sample {sample}: {problem:?}");
        let (row, label, caption) = (archive.row(sample), archive.label(sample), archive.caption(sample));
        if complete && bad.binary_search(&sample).is_err() {
            assert!(row.is_ok() && caption.is_ok(), "sample {sample}: {row:?}, {caption:?}");
            let label = label.expect("there");
            let names = archive.classes().map_or(usize::MAX, <[String]>::len);
            assert!(label.is_none_or(|label| archive.classes().is_none() || (0..names as i64).contains(&label)));
        }
        if let (Ok(view), Ok(row)) = (archive.vq(), &row) {
            assert_eq!(view.indices(row).expect("a row").len(), archive.geometry().patches());
        }
        rows.extend(row);
    }
    if archive.geometry().image_len() <= SMALL {
        let mut input = Input::new(&bytes[bytes.len() / 2..]);
        let rows: Vec<&[u8]> = rows.iter().take(3).map(|row| &row[..]).collect();
        decoders::compare(&archive, &rows, &OutputSpec::default(), 0, 0);
        decoders::compare(&archive, &rows, &decoders::output(&mut input, archive.geometry()), 3, 0);
    }
}
