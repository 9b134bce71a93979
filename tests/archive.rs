//! What is written is what is read: by us, by the public safetensors library, and to the last byte.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod common;

use std::collections::BTreeMap;
use std::io::Cursor;

use common::layers::{LAYERS_CASES, books, layered, record};
use common::{Random, archive, archive_bytes};
use kuat::{Archive, ArchiveSpec, ArchiveWriter, CodingSpec, CpuDecoder, Decoder, Error, Geometry, IndexWidth};
use kuat::{MAX_PATCH_SIDE, NaiveDecoder, OutputSpec, SampleInfo};
use proptest::prelude::*;

fn small(labels: bool, captions: bool) -> ArchiveSpec {
    let geometry = Geometry::new((5, 3), 3, (2, 2)).expect("valid");
    let mut spec = ArchiveSpec::new(geometry, (0..3 * 12).collect());
    (spec.labels, spec.captions, spec.samples, spec.encoder) = (labels, captions, 2, "test".into());
    spec
}

fn small_rows() -> Vec<Vec<u32>> {
    vec![vec![0, 1, 2, 2, 1, 0], vec![1, 1, 0, 0, 2, 2]]
}

#[test]
fn the_bytes_of_a_file_are_frozen() {
    let expected: [&[u8]; 2] = [include_bytes!("frozen.qvq"), include_bytes!("frozen-psnr.qvq")];
    for (psnr, expected) in [false, true].into_iter().zip(expected) {
        let mut spec = small(true, true);
        spec.classes = Some(["cat", "dog", "é"].map(String::from).to_vec());
        spec.psnr = psnr;
        let file = archive_bytes(spec, &small_rows());
        assert!(file == expected, "the format changed; if that is meant, raise its version");
        let recorded: Option<Vec<f32>> = Archive::new(expected).expect("opens").psnr().expect("intact");
        assert_eq!(recorded, psnr.then(|| vec![33.0, 33.5]));
    }
}

#[test]
fn the_public_safetensors_library_reads_it() {
    let file = archive_bytes(ArchiveSpec { psnr: true, ..small(true, true) }, &small_rows());
    let tensors = safetensors::SafeTensors::deserialize(&file).expect("a safetensors file");
    let mut names = tensors.names();
    names.sort_unstable();
    assert_eq!(names, ["captions.bytes", "captions.offsets", "checksums", "codebook", "indices", "labels", "psnr"]);
    let codebook = tensors.tensor("codebook").expect("there");
    assert_eq!((codebook.dtype(), codebook.shape()), (safetensors::Dtype::U8, &[3, 2, 2, 3][..]));
    assert_eq!(codebook.data(), (0..36).collect::<Vec<u8>>());
    // Two bits each, from the least significant on: 0 1 2 2 1 0, and 1 1 0 0 2 2.
    let indices = tensors.tensor("indices").expect("there");
    assert_eq!((indices.dtype(), indices.shape()), (safetensors::Dtype::U32, &[2, 1][..]));
    let expected = [0b00_01_10_10_01_00u32, 0b10_10_00_00_01_01].map(u32::to_le_bytes).concat();
    assert_eq!(indices.data(), expected);
    assert_eq!(tensors.tensor("labels").expect("there").data(), [0i64, 1].map(i64::to_le_bytes).concat());
    assert_eq!(tensors.tensor("psnr").expect("there").data(), [33.0f32, 33.5].map(f32::to_le_bytes).concat());
    let checksums: Vec<u8> = expected.chunks(4).flat_map(|row| crc32c_bit_by_bit(row).to_le_bytes()).collect();
    assert_eq!(tensors.tensor("checksums").expect("there").data(), checksums);
    for (name, tensor) in tensors.tensors() {
        let start = tensor.data().as_ptr() as usize - file.as_ptr() as usize;
        let size = tensor.data().len() / tensor.shape().iter().product::<usize>().max(1);
        assert_eq!(start % size.max(1), 0, "`{name}` is not aligned");
    }
}

/// CRC-32C as RFC 3720 defines it, one bit at a time.
fn crc32c_bit_by_bit(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

#[test]
fn labels_captions_classes_and_metadata_come_back() {
    let mut spec = small(true, true);
    spec.classes = Some(vec!["a".into(), "b".into()]);
    spec.metadata = BTreeMap::from([("fit".into(), "crop \"quoted\"".into()), ("version".into(), "ours wins".into())]);
    let archive = archive(spec, &small_rows());
    assert_eq!(archive.labels().expect("intact").expect("there"), [0, 1]);
    assert_eq!(archive.label(1).expect("there"), Some(1));
    assert_eq!(archive.caption(1).expect("there").as_deref(), Some("caption 1"));
    assert_eq!(archive.classes().expect("there"), ["a", "b"]);
    assert_eq!(archive.metadata()["fit"], "crop \"quoted\"");
    assert_eq!(archive.metadata()["version"], "1");
    assert_eq!(archive.mean_psnr_db(), Some(33.25));
    assert!(matches!(archive.label(2), Err(Error::Sample { sample: 2, samples: 2 })));
}

#[test]
fn an_archive_without_labels_captions_or_samples_is_one_too() {
    let archive = archive(small(false, false), &[]);
    assert_eq!(archive.samples(), 0);
    assert!(archive.labels().expect("intact").is_none() && archive.classes().is_none());
    assert!(archive.verify(&()).expect("verified").is_ok());
}

#[test]
fn a_missing_label_is_none() {
    let mut writer = ArchiveWriter::new(Cursor::new(Vec::new()), small(true, false)).expect("valid");
    writer.push(&[0; 6], SampleInfo::default()).expect("valid");
    let archive = Archive::new(writer.finish(None).expect("written").into_inner()).expect("valid");
    assert_eq!(archive.label(0).expect("there"), None);
    assert_eq!(archive.labels().expect("intact").expect("there"), [-1]);
    assert_eq!(archive.mean_psnr_db(), None);
}

#[test]
fn a_wrong_guess_at_the_number_of_samples_changes_no_byte_of_the_data() {
    let data = |samples| {
        let mut spec = ArchiveSpec { psnr: true, ..small(true, true) };
        spec.samples = samples;
        let file = archive_bytes(spec, &small_rows());
        let header = u64::from_le_bytes(file[..8].try_into().expect("8 bytes")) as usize;
        assert!(Archive::new(file.clone()).expect("valid").verify(&()).expect("verified").is_ok());
        file[8 + header..].to_vec()
    };
    for samples in [0, 1, 3, 1000] {
        assert_eq!(data(samples), data(2), "{samples}");
    }
}

#[test]
fn what_cannot_be_stored_is_refused() {
    let new = |spec| ArchiveWriter::new(Cursor::new(Vec::new()), spec).map(drop);
    let geometry = Geometry::new((5, 3), 3, (2, 2)).expect("valid");
    assert!(matches!(new(ArchiveSpec::new(geometry, vec![])), Err(Error::Argument { .. })));
    assert!(matches!(new(ArchiveSpec::new(geometry, vec![0; 13])), Err(Error::Argument { .. })));
    let coding = CodingSpec::Vq { codebook: (0..3 * 12).collect(), index_width: IndexWidth::new(1).ok() };
    let narrow = ArchiveSpec { coding, ..small(false, false) };
    assert!(matches!(new(narrow), Err(Error::Argument { .. })));
    let writer = ArchiveWriter::new(Cursor::new(Vec::new()), small(false, false)).expect("valid");
    assert!(matches!(writer.finish(Some(f64::NAN)), Err(Error::Argument { .. })));
    let mut writer = ArchiveWriter::new(Cursor::new(Vec::new()), small(false, false)).expect("valid");
    assert!(matches!(writer.push(&[0; 5], SampleInfo::default()), Err(Error::Argument { .. })));
    assert!(matches!(writer.push(&[3; 6], SampleInfo::default()), Err(Error::Argument { .. })));
    assert_eq!(writer.samples(), 0);
    let spec = ArchiveSpec { psnr: true, ..small(false, false) };
    let mut writer = ArchiveWriter::new(Cursor::new(Vec::new()), spec).expect("valid");
    for psnr_db in [None, Some(f32::NAN), Some(f32::INFINITY), Some(-0.5), Some(100.5)] {
        let info = SampleInfo { psnr_db, ..SampleInfo::default() };
        assert!(matches!(writer.push(&[0; 6], info), Err(Error::Argument { .. })), "{psnr_db:?}");
    }
    assert_eq!(writer.samples(), 0);
}

#[test]
fn layers_come_back_as_they_were_written() {
    for case in LAYERS_CASES {
        let mut random = Random::new(5);
        let geometry = case.geometry();
        let books = books(&mut random, case.channels == 3, case.index_bits, case.codewords);
        let records: Vec<_> = (0..case.samples).map(|_| record(&mut random, &books, &geometry)).collect();
        let archive = layered(geometry, books.clone(), &records);
        assert!(archive.layers().expect("layered").books().expect("intact") == books, "{case:?}");
        assert_eq!(archive.rows(0..case.samples).expect("there").slices(), records, "{case:?}");
        let bytes: usize = records.iter().map(Vec::len).sum();
        assert_eq!(archive.mean_row_len(), bytes as f64 / case.samples as f64);
        let report = archive.verify(&()).expect("verified");
        assert!(report.is_ok() && report.unchecked.is_empty(), "{case:?}: {report:?}");
    }
}

#[test]
fn tensors_of_layers_are_aligned_and_have_checksums() {
    let geometry = Geometry::new((16, 8), 3, (8, 8)).expect("valid");
    let mut random = Random::new(6);
    let books = books(&mut random, true, 6, 50);
    let records = [record(&mut random, &books, &geometry), record(&mut random, &books, &geometry)];
    // A wrong guess at the number of samples: rows are moved.
    let guess = ArchiveSpec { samples: 9, ..ArchiveSpec::with_coding(geometry, CodingSpec::Layers(books.clone())) };
    let mut writer = ArchiveWriter::new(Cursor::new(Vec::new()), guess).expect("valid");
    for wrong in [&[0; 5][..], &[0; 4], &records[0][4..], &vec![255; records[0].len()]] {
        assert!(matches!(writer.push_record(wrong, SampleInfo::default()), Err(Error::Argument { .. })));
    }
    assert!(matches!(writer.push(&[0], SampleInfo::default()), Err(Error::OtherCodec { .. })));
    for record in &records {
        writer.push_record(record, SampleInfo::default()).expect("valid");
    }
    let file = writer.finish(None).expect("written").into_inner();
    let tensors = safetensors::SafeTensors::deserialize(&file).expect("a safetensors file");
    let words = records.each_ref().map(|record| record.len() as u64 / 4);
    let codewords: Vec<u8> = books.luma.books[3].codewords.iter().map(|&value| value as u8).collect();
    let expected = [
        ("records.offsets", 8, [0, words[0], words[0] + words[1]].map(u64::to_le_bytes).concat()),
        ("records", 4, records.concat()),
        ("luma4.0", 1, codewords.clone()),
    ];
    for (name, size, bytes) in expected {
        let data = tensors.tensor(name).expect("there").data();
        assert_eq!(data, bytes, "{name}");
        assert_eq!((data.as_ptr() as usize - file.as_ptr() as usize) % size, 0, "`{name}` is not aligned");
    }
    assert_eq!(tensors.tensor("chroma8.1").expect("there").shape()[1..], [2, 8, 8]);
    let (_, header) = safetensors::SafeTensors::read_metadata(&file).expect("a header");
    let metadata = header.metadata().as_ref().expect("metadata");
    assert_eq!((metadata["codec"].as_str(), metadata["index_bits"].as_str()), ("layers", "6"));
    assert!(metadata["luma_modes"].starts_with(r#"[["luma8.0"],["luma8.0","luma8.2"],["luma8.1","luma4.0"],"#));
    assert_eq!(metadata["luma4.0_crc32c"], format!("{:08x}", crc32c_bit_by_bit(&codewords)));
}

#[test]
fn the_bytes_of_a_layered_file_are_frozen() {
    let mut random = Random::new(20);
    let geometry = Geometry::new((35, 21), 3, (8, 8)).expect("valid");
    let books = books(&mut random, true, 3, 8);
    let mut spec = ArchiveSpec::with_coding(geometry, CodingSpec::Layers(books.clone()));
    (spec.samples, spec.encoder) = (3, "test".into());
    let mut writer = ArchiveWriter::new(Cursor::new(Vec::new()), spec).expect("valid");
    for _ in 0..3 {
        writer.push_record(&record(&mut random, &books, &geometry), SampleInfo::default()).expect("valid");
    }
    let file = writer.finish(None).expect("written").into_inner();
    let path = "tests/frozen-layers.qvq";
    if std::env::var_os("KUAT_FREEZE").is_some() {
        std::fs::write(path, &file).expect("written");
    }
    assert!(file == std::fs::read(path).expect("there"), "the format changed");
}

#[test]
fn the_worked_example_of_the_format_is_true() {
    let geometry = Geometry::new((16, 8), 1, (8, 8)).expect("valid");
    let mut random = Random::new(21);
    let codewords = |random: &mut Random, len: usize| (0..len).map(|_| random.next() as i8 / 3).collect::<Vec<i8>>();
    let block = kuat::Book { cover: kuat::Cover::Block, codewords: codewords(&mut random, 16 * 64) };
    let quarter = kuat::Book { cover: kuat::Cover::Quarter, codewords: codewords(&mut random, 16 * 16) };
    let modes = [vec![], vec![1]].map(|quarter| kuat::Mode { block: vec![0], quarter }).to_vec();
    let luma = kuat::Component { books: vec![block.clone(), quarter.clone()], modes };
    let books = kuat::LayerBooks { index_bits: 4, luma, chroma: None };
    let record = books.record(&geometry, &[&[1, 0]], &[5, 1, 2, 3, 4, 9]).expect("valid");
    let words = [0, 1, 0, 0, 0x0094_3215u32];
    assert_eq!(record, words.map(u32::to_le_bytes).concat());
    let archive = layered(geometry, books, &[record]);
    let row = archive.rows([0]).expect("there");
    let decoder = NaiveDecoder::new(&archive).expect("decoder");
    let pixels: Vec<u8> = decoder.decode(&row, &OutputSpec::default()).expect("decoded");
    let at = |book: &kuat::Book<Vec<i8>>, place: usize| i32::from(book.codewords[place]);
    assert_eq!(i32::from(pixels[2 * 16 + 9]), 128 + at(&block, 9 * 64 + 2 * 8 + 1));
    assert_eq!(i32::from(pixels[6 * 16 + 5]), 128 + at(&block, 5 * 64 + 6 * 8 + 5) + at(&quarter, 4 * 16 + 2 * 4 + 1));
}

#[test]
fn layers_that_the_format_cannot_hold_are_refused() {
    let geometry = Geometry::new((16, 8), 3, (8, 8)).expect("valid");
    let good = books(&mut Random::new(6), true, 6, 50);
    let refused = |geometry: Geometry, change: &dyn Fn(&mut kuat::LayerBooks)| {
        let mut books = good.clone();
        change(&mut books);
        let spec = ArchiveSpec::with_coding(geometry, CodingSpec::Layers(books));
        ArchiveWriter::new(Cursor::new(Vec::new()), spec).expect_err("refused")
    };
    let patches = Geometry::new((8, 8), 3, (4, 4)).expect("valid");
    assert!(matches!(refused(patches, &|_| ()), Error::Geometry { .. }));
    for channels in [1, 4] {
        let geometry = Geometry::new((16, 8), channels, (8, 8)).expect("valid");
        assert!(matches!(refused(geometry, &|_| ()), Error::Argument { .. }));
    }
    let huge = Geometry::new((65_535, 65_535), 3, (8, 8)).expect("valid");
    assert!(matches!(refused(huge, &|_| ()), Error::Layers { .. }));
    for change in [
        &|books: &mut kuat::LayerBooks| books.index_bits = 17,
        &|books: &mut kuat::LayerBooks| books.index_bits = 5,
        &|books: &mut kuat::LayerBooks| books.luma.books[0].codewords.truncate(65),
        &|books: &mut kuat::LayerBooks| books.luma.books[0].codewords.clear(),
        &|books: &mut kuat::LayerBooks| books.luma.modes.clear(),
        &|books: &mut kuat::LayerBooks| books.luma.modes.push(kuat::Mode { block: vec![0], quarter: Vec::new() }),
        &|books: &mut kuat::LayerBooks| books.luma.modes[0].block.push(3),
        &|books: &mut kuat::LayerBooks| books.luma.modes[0].block.push(9),
        &|books: &mut kuat::LayerBooks| books.luma.modes[0].block = vec![0; 4],
        &|books: &mut kuat::LayerBooks| books.luma.modes[0].quarter = vec![3; 8],
        &|books: &mut kuat::LayerBooks| books.luma.modes[0].block.clear(),
    ] as [&dyn Fn(&mut kuat::LayerBooks); 11]
    {
        assert!(matches!(refused(geometry, change), Error::Layers { .. }));
    }
}

#[test]
fn a_file_appears_only_when_it_is_finished() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.qvq");
    let mut writer = ArchiveWriter::create(&path, small(true, false)).expect("created");
    writer.push(&[0; 6], SampleInfo { label: Some(4), ..SampleInfo::default() }).expect("valid");
    assert!(!path.exists());
    writer.finish_file(None).expect("written");
    let archive = Archive::open(&path).expect("opens");
    assert_eq!(archive.label(0).expect("there"), Some(4));
    drop(ArchiveWriter::create(&path, small(true, false)).expect("created"));
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1);
    assert!(matches!(Archive::open(folder.path()), Err(Error::Io { .. })));
    assert!(matches!(ArchiveWriter::create(folder.path(), small(true, false)), Err(Error::Io { .. })));
}

#[test]
fn what_is_needed_next_is_checked_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.qvq");
    let geometry = Geometry::new((224, 224), 3, (4, 4)).expect("valid");
    let rows: Vec<Vec<u32>> = (0..9).map(|seed| Random::new(seed).indices(geometry.patches(), 300)).collect();
    let file = archive_bytes(ArchiveSpec::new(geometry, vec![0; 300 * geometry.codeword_len()]), &rows);
    std::fs::write(&path, file).expect("written");
    let archive = Archive::open(&path).expect("opens");
    // More often than it takes to find out that nothing is read from disk.
    for _ in 0..100 {
        archive.will_need((0..9).rev()).expect("they are there");
        archive.will_need([]).expect("none is missing");
        assert!(matches!(archive.will_need([0, 9, 0]), Err(Error::Sample { sample: 9, samples: 9 })));
    }
    for (sample, row) in rows.iter().enumerate() {
        assert_eq!(&archive.vq().expect("vq").indices(&archive.row(sample).expect("there")).expect("a row"), row);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_archive_comes_back_and_decodes_alike(
        image in (1u32..40, 1u32..40),
        channels in prop::sample::select(&[1u32, 3, 4][..]),
        patch in (1..=MAX_PATCH_SIDE, 1..=MAX_PATCH_SIDE),
        codewords in 1usize..600,
        extra_bits in 0u64..10,
        samples in 0usize..4,
        guess in 0usize..6,
        seed: u64,
    ) {
        let geometry = Geometry::new(image, channels, patch).expect("valid");
        let mut random = Random::new(seed);
        let codebook: Vec<u8> = (0..codewords * geometry.codeword_len()).map(|_| random.next() as u8).collect();
        let rows: Vec<Vec<u32>> = (0..samples).map(|_| random.indices(geometry.patches(), codewords)).collect();
        let narrowest = IndexWidth::narrowest(codewords).expect("valid").bits() as u64;
        let index_width = IndexWidth::new(narrowest + extra_bits).ok();
        let mut spec = ArchiveSpec::with_coding(geometry, CodingSpec::Vq { codebook: codebook.clone(), index_width });
        spec.samples = guess;
        let archive = archive(spec, &rows);
        prop_assert_eq!(archive.geometry(), &geometry);
        prop_assert_eq!(archive.vq().expect("vq").codebook().expect("intact"), codebook);
        for (sample, row) in rows.iter().enumerate() {
            prop_assert_eq!(&archive.vq().expect("vq").indices(&archive.row(sample).expect("there")).expect("a row"), row);
        }
        prop_assert!(archive.verify(&()).expect("verified").is_ok());
        let rows = archive.rows(0..samples).expect("there");
        let spec = OutputSpec::default();
        let expected: Vec<u8> = NaiveDecoder::new(&archive).expect("decoder").decode(&rows, &spec).expect("decoded");
        let found: Vec<u8> = CpuDecoder::new(&archive).expect("decoder").decode(&rows, &spec).expect("decoded");
        prop_assert!(found == expected);
    }

    #[test]
    fn a_header_with_numbers_and_words_swapped_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
    ) {
        const WORDS: [&str; 14] =
            ["0", "1", "2", "3", "17", "255", "65535", "4294967296", "18446744073709551615", "-1", "1e9", "\"U8\"", "[]", "\"\""];
        let file = archive_bytes(small(true, true), &small_rows());
        let length = u64::from_le_bytes(file[..8].try_into().expect("8 bytes")) as usize;
        let mut header = String::from_utf8(file[8..8 + length].trim_ascii_end().to_vec()).expect("UTF-8");
        // As another program might have written it, without checksums that would be the first to fail.
        header = header.replace("_crc32c", "_other").replace("\"checksums\"", "\"other\"");
        for (place, word) in changes {
            // Runs of digits: sizes, shapes and offsets, within strings and outside.
            let starts: Vec<usize> = (1..header.len())
                .filter(|&i| header.as_bytes()[i].is_ascii_digit() && !header.as_bytes()[i - 1].is_ascii_digit())
                .collect();
            let start = *place.get(&starts);
            let digits = header[start..].bytes().take_while(u8::is_ascii_digit).count();
            header.replace_range(start..start + digits, word.get::<&str>(&WORDS));
        }
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &file[8 + length..]].concat();
        // Most are refused; what opens can be used.
        if let Ok(archive) = Archive::new(file) {
            let _ = archive.verify(&()).expect("verified");
            if archive.samples() > 0 && archive.geometry().image_len() < 1 << 20 {
                let row = archive.rows([0]).expect("there");
                CpuDecoder::new(&archive).expect("decoder").decode::<u8>(&row, &OutputSpec::default()).expect("decoded");
                let _ = archive.caption(0);
            }
        }
    }
}
