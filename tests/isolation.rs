//! Damage stays where it is: it is named, it spoils nothing else, and nothing damaged is returned as if it were not.
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use std::fs::OpenOptions as FileOptions;

use common::layers::LayersCase;
use common::{Case, Random, archive_bytes};
use kuat::{
    Access, Archive, ArchiveSpec, Check, CpuDecoder, Data, Decoder, Error, Geometry, NaiveDecoder, OnDamage,
    OpenOptions, OutputSpec, SampleProblem,
};

const RGB: Case = Case { image: (24, 20), channels: 3, patch: (4, 4), codewords: 300, bits: None, samples: 6 };
const LAYERED: LayersCase = LayersCase { image: (24, 20), channels: 3, index_bits: 6, codewords: 50, samples: 6 };

/// An archive of each codec.
fn files() -> [Vec<u8>; 2] {
    [RGB.archive().data().clone(), LAYERED.archive().data().clone()]
}

/// Where the row of a sample begins in a file in memory, and how long it is.
fn place(archive: &Archive<Vec<u8>>, sample: usize) -> (usize, usize) {
    let row = archive.row(sample).expect("intact");
    (row.as_ptr() as usize - archive.data().as_ptr() as usize, row.len())
}

/// The file with a bit of the middle of these samples' rows flipped.
fn damaged(file: &[u8], samples: &[usize]) -> Vec<u8> {
    let (intact, mut file) = (Archive::new(file.to_vec()).expect("valid"), file.to_vec());
    for &sample in samples {
        let (start, len) = place(&intact, sample);
        file[start + len / 2] ^= 4;
    }
    file
}

fn with_check(file: &[u8], check: Check) -> Archive<Vec<u8>> {
    Archive::with_check(file.to_vec(), check).expect("opens")
}

#[test]
fn a_damaged_sample_is_named_and_spoils_no_other() {
    for file in files() {
        let intact = Archive::new(file.clone()).expect("valid");
        let pixels: Vec<u8> = NaiveDecoder::new(&intact)
            .expect("decoder")
            .decode(&intact.rows(0..6).expect("intact"), &OutputSpec::default())
            .expect("decoded");
        let len = intact.geometry().image_len();
        let image = |sample: usize| &pixels[sample * len..][..len];
        let file = damaged(&file, &[1, 4]);
        for check in [Check::Read, Check::Open] {
            let archive = with_check(&file, check);
            let decoder = CpuDecoder::new(&archive).expect("decoder");
            let decode = |rows: &kuat::Rows| {
                let mut batch: Vec<u8> = decoder.decode(rows, &OutputSpec::default()).expect("decoded");
                rows.mask(&mut batch);
                batch
            };
            let known: Vec<usize> = archive.damaged().map(|bad| bad.sample).collect();
            assert_eq!(known, if check == Check::Open { vec![1, 4] } else { vec![] });
            assert!(matches!(
                archive.row(4),
                Err(Error::Damaged { sample: 4, problem: SampleProblem::Checksum { .. } })
            ));
            let error = archive.rows([0, 4, 1]).expect_err("4 is damaged");
            assert!(matches!(error, Error::Damaged { sample: 4, .. }) && error.to_string().contains("sample 4"));
            assert!(decode(&archive.rows([5, 0]).expect("intact")) == [image(5), image(0)].concat());

            let rows = archive.rows_with([0, 4, 2, 1, 4], OnDamage::Skip).expect("read");
            assert_eq!((rows.samples(), rows.masked()), (&[0, 2][..], &[][..]));
            assert_eq!(rows.damaged().iter().map(|bad| bad.sample).collect::<Vec<_>>(), [4, 1, 4]);
            assert!(decode(&rows) == [image(0), image(2)].concat());

            let rows = archive.rows_with([0, 4, 2, 1], OnDamage::Mask).expect("read");
            assert_eq!((rows.samples(), rows.masked()), (&[0, 4, 2, 1][..], &[1, 3][..]));
            let zeros = vec![0; len];
            assert!(decode(&rows) == [image(0), &zeros, image(2), &zeros].concat());
        }
        let unchecked = with_check(&file, Check::Never);
        assert!(unchecked.rows(0..6).is_ok_and(|rows| rows.damaged().is_empty()));
    }
}

#[test]
fn rows_that_several_threads_read_are_checked_as_those_of_one() {
    let case = Case { image: (256, 256), patch: (1, 1), codewords: 1 << 16, samples: 40, ..RGB };
    let file = case.archive().data().clone();
    let archive = with_check(&damaged(&file, &[33, 7]), Check::Read);
    assert!(archive.mean_row_len() * 40.0 > 4e6);
    assert!(matches!(archive.rows(0..40), Err(Error::Damaged { sample: 7, .. })));
    assert!(matches!(archive.rows((0..40).rev()), Err(Error::Damaged { sample: 33, .. })));
    let rows = archive.rows_with(0..40, OnDamage::Skip).expect("read");
    assert!(rows.samples().iter().copied().eq((0..40).filter(|sample| ![7, 33].contains(sample))));
    let intact = Archive::new(file).expect("valid");
    assert!(rows.samples().iter().zip(rows.iter()).all(|(&sample, row)| **row == *intact.row(sample).expect("intact")));
}

#[test]
fn damage_that_all_samples_share_is_an_error_where_it_matters() {
    let geometry = Geometry::new((8, 6), 3, (4, 4)).expect("valid");
    let mut spec = ArchiveSpec::new(geometry, (0..20 * 48).map(|i| (i % 251) as u8).collect());
    (spec.labels, spec.captions, spec.psnr, spec.samples) = (true, true, true, 3);
    let mut random = Random::new(3);
    let file = archive_bytes(spec, &[(); 3].map(|()| random.indices(4, 20)));
    type Use = fn(&Archive<Vec<u8>>) -> kuat::Result<()>;
    let uses: [(&str, Use); 5] = [
        ("codebook", |archive| CpuDecoder::new(archive).map(drop)),
        ("labels", |archive| archive.label(0).map(drop).and(archive.labels().map(drop))),
        ("psnr", |archive| archive.psnr().map(drop).and(archive.ledger().map(drop))),
        ("captions.bytes", |archive| archive.caption(0).map(drop)),
        ("captions.offsets", |archive| archive.caption(2).map(drop)),
    ];
    for (tensor, _) in uses {
        let mut file = file.clone();
        let place = tensor_place(&file, tensor);
        file[place] ^= 1;
        for (other, use_of) in uses {
            let archive = with_check(&file, Check::Read);
            match use_of(&archive) {
                Err(Error::TensorChecksum { tensor: named, .. }) if named == tensor => {
                    assert!(tensor.split('.').next() == other.split('.').next(), "{other} fails for {tensor}");
                }
                found => assert!(found.is_ok() && tensor != other, "{tensor}: {other} gives {found:?}"),
            }
            // It is looked for each time until it is found intact.
            assert_eq!(use_of(&archive).is_ok(), use_of(&archive).is_ok());
        }
        let archive = Archive::with_check(file.clone(), Check::Open);
        assert!(matches!(archive, Err(Error::TensorChecksum { tensor: named, .. }) if named == tensor));
        assert!(CpuDecoder::new(&with_check(&file, Check::Never)).is_ok());
    }
}

/// Where the bytes of a tensor begin.
fn tensor_place(file: &[u8], tensor: &str) -> usize {
    let length = u64::from_le_bytes(file[..8].try_into().expect("eight")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&file[8..8 + length]).expect("JSON");
    8 + length + header[tensor]["data_offsets"][0].as_u64().expect("a number") as usize
}

/// All that one can read of an archive.
fn read_all(archive: &Archive<Vec<u8>>) -> kuat::Result<Vec<u8>> {
    let samples = archive.samples();
    let mut all = CpuDecoder::new(archive)?.decode::<u8>(&archive.rows(0..samples)?, &OutputSpec::default())?;
    for sample in 0..samples {
        all.extend(archive.label(sample)?.into_iter().flat_map(i64::to_le_bytes));
        all.extend(archive.caption(sample)?.into_iter().flat_map(|caption| caption.into_bytes()));
    }
    all.extend(archive.psnr()?.into_iter().flatten().flat_map(f32::to_le_bytes));
    Ok(all)
}

#[test]
fn no_flipped_bit_changes_what_is_read_without_a_word() {
    let geometry = Geometry::new((8, 6), 3, (4, 4)).expect("valid");
    let mut spec = ArchiveSpec::new(geometry, (0..20 * 48).map(|i| (i % 251) as u8).collect());
    (spec.labels, spec.captions, spec.psnr, spec.samples) = (true, true, true, 3);
    let mut random = Random::new(3);
    let small = archive_bytes(spec, &[(); 3].map(|()| random.indices(4, 20)));
    let layered = LayersCase { image: (9, 8), codewords: 4, samples: 2, ..LAYERED }.archive().data().clone();
    for (file, step) in [(small, 1), (layered, 3)] {
        let expected = read_all(&Archive::new(file.clone()).expect("valid")).expect("intact");
        for bit in (0..file.len() * 8).step_by(step) {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(found) = Archive::new(damaged).and_then(|archive| read_all(&archive)) {
                assert!(found == expected, "bit {} of byte {} of {}", bit % 8, bit / 8, file.len());
            }
        }
    }
}

#[test]
fn a_record_whose_place_is_damaged_is_a_damaged_sample() {
    let file = LAYERED.archive().data().clone();
    let place = tensor_place(&file, "records.offsets");
    for byte in [0, 1, 7] {
        let mut damaged = file.clone();
        damaged[place + 3 * 8 + byte] ^= 0x40;
        for check in [Check::Read, Check::Never] {
            let archive = with_check(&damaged, check);
            let rows = archive.rows_with(0..6, OnDamage::Skip).expect("read");
            // The offset ends the record of sample 2 and begins that of sample 3.
            let bad: Vec<usize> = rows.damaged().iter().map(|bad| bad.sample).collect();
            assert!(bad.iter().all(|sample| [2, 3].contains(sample)) && !bad.is_empty(), "{check}, {byte}: {bad:?}");
            assert!(check == Check::Never || bad == [2, 3]);
            let rows = archive.rows_with(0..6, OnDamage::Mask).expect("read");
            let found = CpuDecoder::new(&archive).expect("books").decode::<u8>(&rows, &OutputSpec::default());
            match check {
                Check::Read => assert!(found.is_ok()),
                // Unchecked, a record can also have a length that none has.
                _ => assert!(matches!(found, Ok(_) | Err(Error::RecordLength { .. })), "{found:?}"),
            }
        }
    }
}

#[test]
fn files_that_are_read_give_what_mapped_ones_do() {
    let folder = tempfile::tempdir().expect("tempdir");
    for (i, file) in files().into_iter().enumerate() {
        let path = folder.path().join(format!("{i}.qvq"));
        std::fs::write(&path, &file).expect("written");
        let open = |access| Archive::open_with(&path, &OpenOptions { access, check: Check::Read }).expect("opens");
        let [mapped, read] = [Access::Map, Access::Read].map(open);
        assert!(mapped.data().is_mapped() && !read.data().is_mapped() && open(Access::Auto).data().is_mapped());
        assert_eq!(mapped.info(), read.info());
        assert!(mapped.rows(0..6).expect("intact").slices() == read.rows(0..6).expect("intact").slices());
        read.will_need(0..6).expect("there");
        let pixels = |archive: &Archive| -> Vec<u8> {
            let rows = archive.rows([5, 1]).expect("intact");
            CpuDecoder::new(archive).expect("decoder").decode(&rows, &OutputSpec::default()).expect("decoded")
        };
        assert!(pixels(&mapped) == pixels(&read));
        assert!(read.verify(&()).expect("verified").is_ok());
    }
}

#[test]
fn a_file_that_was_cut_short_is_an_error_at_the_next_call() {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("a.qvq");
    // More than a page is cut off, so that what lies there cannot be read through a map any more.
    let case = Case { image: (256, 256), patch: (2, 2), codewords: 5000, ..RGB };
    let file = case.archive().data().clone();
    for access in [Access::Map, Access::Read] {
        std::fs::write(&path, &file).expect("written");
        let archive = Archive::open_with(&path, &OpenOptions { access, check: Check::Read }).expect("opens");
        let decoder = CpuDecoder::new(&archive).expect("decoder");
        assert!(archive.row(0).is_ok());
        FileOptions::new().write(true).open(&path).expect("opens").set_len(4096).expect("cut");
        let changed = |what: &str, found: kuat::Result<()>| match found {
            Err(error @ Error::FileChanged { found: 4096, .. }) => {
                assert!(error.to_string().contains("cut short"), "{error}");
            }
            found => panic!("{access}: {what} gives {found:?}"),
        };
        changed("row", archive.row(5).map(drop));
        changed("rows", archive.rows(0..6).map(drop));
        changed("skipped rows", archive.rows_with(0..6, OnDamage::Skip).map(drop));
        changed("codebook", CpuDecoder::new(&archive).map(drop));
        changed("verify", archive.verify(&()).map(drop));
        if access == Access::Map {
            changed("will_need", archive.will_need(0..6));
        }
        drop(decoder);
    }
}

/// Data that fails as a disk does.
struct Failing(Vec<u8>, std::ops::Range<usize>);

impl Data for Failing {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self, range: std::ops::Range<usize>) -> kuat::Result<std::borrow::Cow<'_, [u8]>> {
        if range.start < self.1.end && self.1.start < range.end {
            let source = std::io::Error::other("the disk is broken");
            return Err(Error::Io { action: "read", path: "a.qvq".into(), source });
        }
        Ok(self.0[range].into())
    }
}

#[test]
fn what_cannot_be_read_is_no_damage() {
    let file = RGB.archive();
    let (start, len) = place(&file, 2);
    let archive = Archive::new(Failing(file.data().clone(), start..start + len)).expect("opens");
    assert!(archive.rows([0, 1, 3]).is_ok());
    // A disk that recovers would have been given up for nothing.
    for on_damage in [OnDamage::Raise, OnDamage::Skip, OnDamage::Mask] {
        assert!(matches!(archive.rows_with([0, 2], on_damage), Err(Error::Io { .. })));
    }
    assert!(matches!(Archive::with_check(Failing(file.data().clone(), 0..8), Check::Never), Err(Error::Io { .. })));
}
