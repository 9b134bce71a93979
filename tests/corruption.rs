//! One test per way in which a file can be wrong: each is refused with the error that names the rule, and none panics.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod common;

use std::io::Cursor;

use common::{Random, archive_bytes, layers};
use kuat::{Archive, ArchiveSpec, ArchiveWriter, Check, Codec, CodingSpec, Error, Geometry, SampleInfo, SampleProblem};
use serde_json::{Value, json};

/// A small archive with everything that one can hold: 3 samples of 8x6 RGB in patches of 4x4.
fn valid() -> Vec<u8> {
    let geometry = Geometry::new((8, 6), 3, (4, 4)).expect("valid");
    let mut random = Random::new(7);
    let codebook = (0..20 * geometry.codeword_len()).map(|_| random.next() as u8).collect();
    let mut spec = ArchiveSpec::new(geometry, codebook);
    (spec.labels, spec.captions, spec.psnr, spec.samples) = (true, true, true, 3);
    spec.classes = Some(["a", "b", "c"].map(String::from).to_vec());
    let rows: Vec<Vec<u32>> = (0..3).map(|_| random.indices(4, 20)).collect();
    archive_bytes(spec, &rows)
}

/// The same without checksums, as another program might write it, its header changed.
fn altered(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let file = valid();
    let (header, data) = split(&file);
    let mut header: Value = serde_json::from_slice(header).expect("JSON");
    let checksums = header["checksums"]["data_offsets"].clone();
    header["__metadata__"].as_object_mut().expect("an object").retain(|key, _| !key.ends_with("_crc32c"));
    // An unknown tensor takes the place of the checksums.
    header.as_object_mut().expect("an object").remove("checksums");
    header["unknown"] = json!({ "dtype": "U32", "shape": [3], "data_offsets": checksums });
    change(&mut header);
    join(header.to_string().as_bytes(), data)
}

fn split(file: &[u8]) -> (&[u8], &[u8]) {
    let length = u64::from_le_bytes(file[..8].try_into().expect("8 bytes")) as usize;
    file[8..].split_at(length)
}

fn join(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

#[track_caller]
fn refused(file: Vec<u8>) -> Error {
    let error = Archive::new(file).expect_err("it must be refused");
    assert!(error.with_causes().len() > 20, "{error}");
    error
}

macro_rules! refused {
    ($file:expr, $error:pat) => {
        let error = refused($file);
        assert!(matches!(error, $error), "{error:?}");
    };
}

fn metadata(key: &str, value: &str) -> Vec<u8> {
    altered(|header| header["__metadata__"][key] = json!(value))
}

fn without_metadata(key: &str) -> Vec<u8> {
    altered(|header| drop(header["__metadata__"].as_object_mut().expect("an object").remove(key)))
}

#[test]
fn the_archives_that_the_other_tests_damage_are_valid() {
    let archive = Archive::new(valid()).expect("valid");
    assert!(archive.verify(&()).expect("verified").is_ok());
    let foreign = Archive::new(altered(|_| ())).expect("valid");
    let report = foreign.verify(&()).expect("verified");
    assert!(report.is_ok());
    assert!(report.unchecked.iter().any(|part| part.contains("index rows")), "{report:?}");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let file = valid();
    for len in 0..file.len() {
        let error = refused(file[..len].to_vec());
        assert!(matches!(error, Error::Truncated { .. }), "cut to {len}: {error:?}");
    }
}

#[test]
fn bytes_behind_the_last_tensor_are_refused() {
    refused!([valid(), vec![0]].concat(), Error::TrailingBytes { .. });
}

#[test]
fn an_empty_file_is_refused() {
    refused!(Vec::new(), Error::Truncated { .. });
}

#[test]
fn a_header_length_beyond_the_limit_is_refused() {
    let mut file = valid();
    file[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    refused!(file, Error::HeaderLength { .. });
}

#[test]
fn a_header_that_is_no_json_is_refused() {
    refused!(join(b"{]", &[]), Error::HeaderJson(_));
    refused!(join(b"[]", &[]), Error::HeaderJson(_));
    refused!(join(b"", &[]), Error::HeaderJson(_));
    refused!(join(b"\xff\xfe", &[]), Error::HeaderJson(_));
    refused!(join(&b"[".repeat(100_000), &[]), Error::HeaderJson(_));
}

#[test]
fn headers_of_too_many_parts_are_refused() {
    let many = |part: &dyn Fn(usize) -> String, count: usize| (0..count).map(part).collect::<Vec<_>>().join(",");
    let tensor = |i: usize| format!("\"{i}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}");
    let [most, more] = [65_536, 65_537];
    for (count, refusal) in [(most, "`format` is missing"), (more, "more than 65536 tensors")] {
        let error = refused(join(format!("{{{}}}", many(&tensor, count)).as_bytes(), &[]));
        assert!(error.with_causes().contains(refusal), "{}", error.with_causes());
    }
    for (count, refusal) in [(most, "`format` is missing"), (more, "more than 65536 metadata keys")] {
        let keys = many(&|i| format!("\"{i}\":\"\""), count);
        let error = refused(join(format!("{{\"__metadata__\":{{{keys}}}}}").as_bytes(), &[]));
        assert!(error.with_causes().contains(refusal), "{}", error.with_causes());
    }
    for (sides, refusal) in [(16, "`format` is missing"), (17, "up to 16 sides")] {
        let shape = many(&|_| "0".into(), sides);
        let header = format!("{{\"a\":{{\"dtype\":\"U8\",\"shape\":[{shape}],\"data_offsets\":[0,0]}}}}");
        let error = refused(join(header.as_bytes(), &[]));
        assert!(error.with_causes().contains(refusal), "{}", error.with_causes());
    }
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    let file = altered(|_| ());
    let (header, data) = split(&file);
    let text = String::from_utf8(header.to_vec()).expect("UTF-8");
    for (found, twice) in [
        ("\"codec\":\"vq\"", "\"codec\":\"vq\",\"codec\":\"vq\""),
        ("\"unknown\":", "\"unknown\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},\"unknown\":"),
    ] {
        let doubled = text.replacen(found, twice, 1);
        assert_ne!(doubled, text);
        refused!(join(doubled.as_bytes(), data), Error::HeaderJson(_));
    }
}

#[test]
fn another_format_version_or_codec_is_refused_by_name() {
    for (key, value) in [("format", "jpeg"), ("version", "2"), ("codec", "wavelets")] {
        let error = refused(metadata(key, value));
        assert!(matches!(error, Error::Metadata { .. }) && error.to_string().contains(value), "{error:?}");
    }
}

#[test]
fn missing_metadata_is_refused() {
    for key in [
        "format",
        "version",
        "codec",
        "image_width",
        "image_height",
        "channels",
        "patch_width",
        "patch_height",
        "index_bits",
        "samples",
    ] {
        refused!(without_metadata(key), Error::MissingMetadata { .. });
    }
}

#[test]
fn numbers_that_are_no_plain_decimals_are_refused() {
    for value in ["", " 8", "+8", "-8", "08", "8.0", "8e0", "0x8", "eight", "18446744073709551616"] {
        refused!(metadata("image_width", value), Error::Metadata { .. });
        refused!(metadata("samples", value), Error::Metadata { .. });
    }
}

#[test]
fn sizes_out_of_range_are_refused() {
    for (key, value) in [
        ("image_width", "0"),
        ("image_height", "65536"),
        ("channels", "2"),
        ("channels", "0"),
        ("patch_width", "17"),
        ("patch_height", "0"),
    ] {
        refused!(metadata(key, value), Error::Geometry { .. });
        assert!(refused(metadata(key, value)).is_invalid_archive());
    }
    for bits in ["0", "26", "31", "33"] {
        refused!(metadata("index_bits", bits), Error::IndexWidth { .. });
    }
}

#[test]
fn sizes_that_contradict_the_tensors_are_refused() {
    // Large enough steps that a packed row of so few indices takes another number of words.
    for (key, value) in [
        ("image_width", "80"),
        ("image_height", "60"),
        ("channels", "4"),
        ("patch_width", "2"),
        ("index_bits", "25"),
        ("index_bits", "16"),
        ("samples", "4"),
        ("samples", "2"),
        ("samples", "18446744073709551615"),
    ] {
        refused!(metadata(key, value), Error::Tensor { .. });
    }
}

#[test]
fn classes_psnr_and_bounds_that_cannot_be_read_are_refused() {
    for classes in ["", "a,b", "{}", "[1]", "[\"a\""] {
        refused!(metadata("classes", classes), Error::Metadata { .. });
    }
    for psnr in ["", "high", "NaN", "inf"] {
        refused!(metadata("mean_psnr_db", psnr), Error::Metadata { .. });
    }
    for bound in ["", "256", "-1", "08", "1.5"] {
        refused!(metadata("max_error", bound), Error::Metadata { .. });
    }
}

#[test]
fn a_missing_tensor_is_refused() {
    for tensor in ["codebook", "indices", "captions.bytes", "captions.offsets"] {
        let file = altered(|header| {
            let tensors = header.as_object_mut().expect("an object");
            let info = tensors.remove(tensor).expect("there");
            tensors.insert("renamed".into(), info);
        });
        refused!(file, Error::MissingTensor { .. });
    }
}

#[test]
fn a_tensor_of_another_type_is_refused() {
    for (tensor, dtype) in
        [("codebook", "I8"), ("indices", "F32"), ("labels", "U64"), ("captions.offsets", "F64"), ("psnr", "U32")]
    {
        refused!(altered(|header| header[tensor]["dtype"] = json!(dtype)), Error::Tensor { .. });
    }
}

#[test]
fn a_tensor_whose_size_is_not_its_shapes_is_refused() {
    for (tensor, shape) in [
        ("codebook", json!([19, 4, 4, 3])),
        ("codebook", json!([u64::MAX, u64::MAX])),
        ("labels", json!([4])),
        ("unknown", json!([1u64 << 62])),
    ] {
        refused!(altered(|header| header[tensor]["shape"] = shape), Error::TensorRange { .. });
    }
}

#[test]
fn a_codebook_without_codewords_is_refused() {
    let file = altered(|header| {
        header["old"] = header["codebook"].take();
        header["codebook"] = json!({ "dtype": "U8", "shape": [0, 4, 4, 3], "data_offsets": [0, 0] });
    });
    refused!(file, Error::Tensor { .. });
}

#[test]
fn holes_overlaps_and_ranges_that_run_backwards_are_refused() {
    for change in [[1, 0], [8, 0], [0, 8], [u64::MAX / 2, 0], [0, u64::MAX / 2]] {
        let file = altered(|header| {
            let range = &mut header["unknown"]["data_offsets"];
            let [begin, end] = [0, 1].map(|i| range[i].as_u64().expect("a number").wrapping_add(change[i]));
            *range = json!([begin, end]);
        });
        refused!(file, Error::TensorRange { .. });
    }
    refused!(altered(|header| header["unknown"]["data_offsets"] = json!([0, 12])), Error::TensorRange { .. });
    let file = altered(|header| {
        let end = header["unknown"]["data_offsets"][0].clone();
        header["unknown"]["data_offsets"] = json!([end, 0]);
    });
    refused!(file, Error::TensorRange { .. });
}

#[test]
fn offsets_that_are_no_numbers_are_refused() {
    for offsets in [json!([-1, 4]), json!([0.5, 4]), json!([0]), json!([0, 1, 2]), json!("0-4"), Value::Null] {
        refused!(altered(|header| header["unknown"]["data_offsets"] = offsets), Error::HeaderJson(_));
    }
}

#[test]
fn some_checksums_without_the_others_are_refused() {
    let missing = |key: &'static str| {
        let file = valid();
        let (header, data) = split(&file);
        let mut header: Value = serde_json::from_slice(header).expect("JSON");
        header["__metadata__"].as_object_mut().expect("an object").remove(key);
        join(header.to_string().as_bytes(), data)
    };
    refused!(missing("header_crc32c"), Error::PartialIntegrity { .. });
    // Without this one the header's own no longer fits either, and is the first to be compared.
    refused!(missing("codebook_crc32c"), Error::HeaderChecksum { .. });
    refused!(metadata("codebook_crc32c", "00000000"), Error::PartialIntegrity { .. });
}

#[test]
fn every_flipped_bit_is_found() {
    let file = valid();
    for bit in 0..file.len() * 8 {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(archive) = Archive::new(damaged) {
            assert!(!archive.verify(&()).expect("verified").is_ok(), "bit {} of byte {}", bit % 8, bit / 8);
        }
    }
}

#[test]
fn damaged_samples_are_named() {
    let file = valid();
    let archive = Archive::new(file.clone()).expect("valid");
    let [first, second] = [0, 1].map(|sample| archive.row(sample).expect("there"));
    let offset = second.as_ptr() as usize - first.as_ptr() as usize;
    let start = file.windows(offset).position(|bytes| bytes == &*first).expect("there");
    let mut damaged = file;
    damaged[start + offset] ^= 1;
    let report = Archive::new(damaged).expect("opens").verify(&()).expect("verified");
    assert_eq!(report.bad_samples.iter().map(|bad| bad.sample).collect::<Vec<_>>(), [1]);
    assert!(report.problems.is_empty(), "{report:?}");
}

#[test]
fn an_index_beyond_the_codebook_is_named_even_without_checksums() {
    // Fewer codewords than some index: the rest of the codebook becomes a tensor of its own.
    let file = altered(|header| {
        let [begin, end] = [0, 1].map(|i| header["codebook"]["data_offsets"][i].as_u64().expect("a number"));
        header["codebook"] = json!({ "dtype": "U8", "shape": [1, 4, 4, 3], "data_offsets": [begin, begin + 48] });
        header["rest"] = json!({ "dtype": "U8", "shape": [end - begin - 48], "data_offsets": [begin + 48, end] });
    });
    let report = Archive::new(file).expect("opens").verify(&()).expect("verified");
    assert!(!report.bad_samples.is_empty());
    assert!(report.bad_samples.iter().all(|bad| bad.problem.to_string().contains("has 1 codewords")), "{report:?}");
}

#[test]
fn labels_without_a_class_are_named() {
    let report = Archive::new(metadata("classes", "[\"only one\"]")).expect("opens").verify(&()).expect("verified");
    assert_eq!(report.bad_samples.iter().map(|bad| bad.sample).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn psnr_that_nobody_could_measure_is_named() {
    let file = altered(|_| ());
    let recorded = [33.0f32, 33.5, 34.0].map(f32::to_le_bytes).concat();
    let start = file.windows(12).position(|bytes| bytes == recorded).expect("there");
    for psnr in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, 100.1] {
        let mut damaged = file.clone();
        damaged[start + 4..start + 8].copy_from_slice(&psnr.to_le_bytes());
        let archive = Archive::new(damaged).expect("opens");
        let report = archive.verify(&()).expect("verified");
        assert_eq!(report.bad_samples.iter().map(|bad| bad.sample).collect::<Vec<_>>(), [1], "{psnr}");
    }
    // With checksums it is the tensor that is named.
    let mut damaged = valid();
    let start = damaged.windows(12).position(|bytes| bytes == recorded).expect("there");
    damaged[start] ^= 1;
    let report = Archive::new(damaged).expect("opens").verify(&()).expect("verified");
    assert!(report.problems.len() == 1 && report.problems[0].contains("`psnr`"), "{report:?}");
}

#[test]
fn a_psnr_of_another_shape_is_refused() {
    let file = altered(|header| {
        let range = header["psnr"]["data_offsets"].clone();
        header["psnr"] = json!({ "dtype": "F32", "shape": [3, 1], "data_offsets": range });
    });
    refused!(file, Error::Tensor { .. });
}

#[test]
fn tensors_of_an_odd_header_are_read_unaligned() {
    for spaces in 0..8 {
        let file = altered(|_| ());
        let (header, data) = split(&file);
        let archive = Archive::new(join(&[header, &b" ".repeat(spaces)].concat(), data)).expect("opens");
        assert_eq!(archive.psnr().expect("intact").expect("recorded"), [33.0, 33.5, 34.0]);
        assert_eq!(archive.labels().expect("intact").expect("recorded"), [0, 1, 2]);
    }
}

#[test]
fn captions_out_of_bounds_or_not_utf8_are_named() {
    let file = altered(|_| ());
    let archive = Archive::new(file.clone()).expect("valid");
    assert_eq!(archive.caption(2).expect("readable").as_deref(), Some("caption 2"));
    let text = file.windows(9).position(|bytes| bytes == b"caption 1").expect("there");
    let mut damaged = file.clone();
    damaged[text] = 0xff;
    let archive = Archive::new(damaged).expect("opens");
    assert!(archive.caption(1).is_err() && archive.caption(0).is_ok());
    assert_eq!(archive.verify(&()).expect("verified").bad_samples.len(), 1);

    let offsets: Vec<u8> = [0u64, 9, 18, 27].iter().flat_map(|offset| offset.to_le_bytes()).collect();
    let start = file.windows(32).position(|bytes| bytes == offsets).expect("there");
    let mut damaged = file;
    damaged[start + 8..start + 16].copy_from_slice(&u64::MAX.to_le_bytes());
    let archive = Archive::new(damaged).expect("opens");
    assert!(archive.caption(0).is_err() && archive.caption(1).is_err() && archive.caption(2).is_ok());
}

#[test]
fn captions_that_leave_bytes_over_are_a_problem() {
    let file = altered(|_| ());
    let offsets: Vec<u8> = [0u64, 9, 18, 27].iter().flat_map(|offset| offset.to_le_bytes()).collect();
    let start = file.windows(32).position(|bytes| bytes == offsets).expect("there");
    for place in [0, 24] {
        let mut damaged = file.clone();
        damaged[start + place] = 5;
        let report = Archive::new(damaged).expect("opens").verify(&()).expect("verified");
        assert_eq!(report.problems.len(), 1, "{report:?}");
    }
}

/// Four samples of 16x8 RGB.
fn records() -> Vec<u8> {
    let geometry = Geometry::new((16, 8), 3, (8, 8)).expect("valid");
    let mut random = Random::new(8);
    let books = layers::books(&mut random, true, 3, 8);
    let records: Vec<_> = (0..4).map(|_| layers::record(&mut random, &books, &geometry)).collect();
    let spec = ArchiveSpec { samples: 4, ..ArchiveSpec::with_coding(geometry, CodingSpec::Layers(books)) };
    let mut writer = ArchiveWriter::new(Cursor::new(Vec::new()), spec).expect("valid");
    records.iter().for_each(|record| writer.push_record(record, SampleInfo::default()).expect("valid"));
    writer.finish(None).expect("written").into_inner()
}

/// Where the offsets of its records stand, and what they are.
fn offsets(file: &[u8]) -> (usize, [u64; 5]) {
    let (header, _) = split(file);
    let header: Value = serde_json::from_slice(header).expect("JSON");
    let begin = header["records.offsets"]["data_offsets"][0].as_u64().expect("a number") as usize;
    let start = 8 + u64::from_le_bytes(file[..8].try_into().expect("eight")) as usize + begin;
    let (offsets, _) = file[start..].as_chunks::<8>();
    (start, std::array::from_fn(|i| u64::from_le_bytes(offsets[i])))
}

/// The same with other offsets.
fn with_offsets(offsets: [u64; 5]) -> Archive<Vec<u8>> {
    let mut file = records();
    let (start, _) = self::offsets(&file);
    file[start..start + 40].copy_from_slice(&offsets.map(u64::to_le_bytes).concat());
    Archive::with_check(file, Check::Never).expect("offsets are looked at when they are used")
}

#[test]
fn records_of_different_lengths_come_back() {
    let archive = Archive::new(records()).expect("opens");
    let (_, offsets) = offsets(&records());
    assert_eq!((archive.codec(), archive.mean_row_len()), (Codec::Layers, offsets[4] as f64));
    let rows = archive.rows([3, 0, 1, 2]).expect("there");
    let lens = rows.iter().map(|row| row.len() as u64 / 4);
    assert!(lens.eq([3, 0, 1, 2].map(|i| offsets[i + 1] - offsets[i])));
    assert!(offsets[2] - offsets[1] != offsets[1], "records differ in length");
    assert!(matches!(archive.row(4), Err(Error::Sample { sample: 4, samples: 4 })));
    let error = archive.vq().expect_err("it has no codebook of patches");
    assert!(matches!(error, Error::OtherCodec { found: Codec::Layers, expected: Codec::Vq }));
    let info = archive.info();
    assert_eq!((info.codec, info.bytes_per_image), (Codec::Layers, offsets[4] as f64));
    let books = archive.layers().expect("layers").books().expect("intact");
    assert_eq!((info.codebook_bytes, info.index_bits), (books.byte_len(), books.index_bits as usize));
    let shapes = info.tensors.iter().filter(|(name, _)| name.starts_with("luma") || name.starts_with("chroma"));
    assert_eq!(info.codewords as u64, shapes.map(|(_, tensor)| tensor.shape[0]).sum::<u64>());
}

#[test]
fn records_and_captions_that_each_name_everything_are_not_read_again_and_again() {
    let geometry = Geometry::new((16, 8), 3, (8, 8)).expect("valid");
    let mut random = Random::new(8);
    let books = layers::books(&mut random, true, 3, 8);
    let records: Vec<_> = (0..100).map(|_| layers::record(&mut random, &books, &geometry)).collect();
    let mut spec = ArchiveSpec::with_coding(geometry, CodingSpec::Layers(books));
    (spec.samples, spec.captions) = (100, true);
    let mut writer = ArchiveWriter::new(Cursor::new(Vec::new()), spec).expect("valid");
    let info = SampleInfo { caption: Some("a caption"), ..Default::default() };
    records.iter().for_each(|record| writer.push_record(record, info).expect("valid"));
    let file = writer.finish(None).expect("written").into_inner();
    let (header, _) = split(&file);
    let header: Value = serde_json::from_slice(header).expect("JSON");
    for tensor in ["records.offsets", "captions.offsets"] {
        let begin = header[tensor]["data_offsets"][0].as_u64().expect("a number") as usize;
        let start = 8 + u64::from_le_bytes(file[..8].try_into().expect("eight")) as usize + begin;
        let last = file[start + 800..start + 808].to_vec();
        let mut hostile = file.clone();
        // 0, 0, all, 0, 0, all, ...: every third sample has all of it.
        hostile[start..].as_chunks_mut::<8>().0.iter_mut().take(101).enumerate().for_each(|(i, offset)| match i % 3 {
            2 => offset.copy_from_slice(&last),
            _ => offset.fill(0),
        });
        let archive = Archive::with_check(hostile.clone(), Check::Never).expect("opens");
        let report = archive.verify(&()).expect("verified");
        assert!(report.problems.iter().any(|problem| problem.contains("overlap more than 16 times")), "{report:?}");
        assert!(Archive::with_check(hostile, Check::Open).is_err());
    }
}

#[test]
fn offsets_of_records_that_are_hostile_are_named() {
    let (_, [_, a, b, c, end]) = offsets(&records());
    for (offsets, bad) in [
        // Out of order, beyond the end, and where a product with the size of a word overflows.
        ([0, b + 1, b, c, end], &[1][..]),
        ([0, a, b, end + 1, end], &[2, 3]),
        ([0, a, b, c, end + 1], &[3]),
        ([0, u64::MAX, b, c, end], &[0, 1]),
        ([0, a, 1 << 62, (1 << 62) + 1, end], &[1, 2, 3]),
    ] {
        let archive = with_offsets(offsets);
        for sample in 0..4 {
            match archive.row(sample) {
                Err(Error::Damaged { sample: named, problem: SampleProblem::Record { problem } }) => {
                    assert!(named == sample && bad.contains(&sample), "{offsets:?}: {named}");
                    assert!(problem.contains("`records.offsets`"), "{problem}");
                    assert!(problem.contains(&format!("sample {sample}")), "{problem}");
                }
                row => assert!(row.is_ok() && !bad.contains(&sample), "{offsets:?}, sample {sample}: {row:?}"),
            }
        }
        assert!(archive.rows(0..4).is_err());
        let report = archive.verify(&()).expect("verified");
        let named = report.bad_samples.iter().filter(|bad| bad.problem.to_string().contains("cannot be found"));
        assert_eq!(named.map(|bad| bad.sample).collect::<Vec<_>>(), bad, "{report:?}");
        assert!(report.problems.iter().any(|problem| problem.contains("`records.offsets`")), "{report:?}");
    }
    let report = with_offsets([1, a, b, c, end]).verify(&()).expect("verified");
    assert!(report.problems.iter().any(|problem| problem.contains("do not begin")), "{report:?}");
}

#[test]
fn every_flipped_bit_of_records_is_found() {
    let file = records();
    for bit in (0..file.len() * 8).step_by(7) {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(archive) = Archive::new(damaged) {
            assert!(!archive.verify(&()).expect("verified").is_ok(), "bit {} of byte {}", bit % 8, bit / 8);
        }
    }
}

#[test]
fn records_and_offsets_of_another_type_or_shape_are_refused() {
    let altered = |change: &dyn Fn(&mut Value)| {
        let file = records();
        let (header, data) = split(&file);
        let mut header: Value = serde_json::from_slice(header).expect("JSON");
        header["__metadata__"].as_object_mut().expect("an object").retain(|key, _| !key.ends_with("_crc32c"));
        header["other"] = header.as_object_mut().expect("an object").remove("checksums").expect("there");
        change(&mut header);
        join(header.to_string().as_bytes(), data)
    };
    assert_eq!(Archive::new(altered(&|_| ())).expect("opens").samples(), 4);
    for (tensor, dtype) in [("records", "F32"), ("records.offsets", "I64")] {
        refused!(altered(&|header| header[tensor]["dtype"] = json!(dtype)), Error::Tensor { .. });
    }
    refused!(
        altered(&|header| header["records"]["shape"] = json!([1, header["records"]["shape"][0]])),
        Error::Tensor { .. }
    );
    for samples in ["3", "5", "18446744073709551615"] {
        refused!(altered(&|header| header["__metadata__"]["samples"] = json!(samples)), Error::Tensor { .. });
    }
    let renamed = |tensor: &str| {
        altered(&|header| {
            let tensors = header.as_object_mut().expect("an object");
            let info = tensors.remove(tensor).expect("there");
            tensors.insert("renamed".into(), info);
        })
    };
    for tensor in ["records", "records.offsets"] {
        refused!(renamed(tensor), Error::MissingTensor { .. });
    }
    for tensor in ["luma8.1", "chroma8.2"] {
        refused!(renamed(tensor), Error::Layers { .. });
        refused!(altered(&|header| header[tensor]["dtype"] = json!("U8")), Error::Tensor { .. });
    }
    refused!(
        altered(&|header| header["luma4.0"]["shape"] = json!([header["luma4.0"]["shape"][0], 2, 8])),
        Error::Tensor { .. }
    );
    for modes in [
        "",
        "{}",
        "[]",
        "[[]]",
        "[[1]]",
        r#"["luma8.0"]"#,
        r#"[["chroma16.0"]]"#,
        r#"[["luma4.0","luma8.0"]]"#,
        r#"[["luma8.0","luma8.0","luma8.0","luma8.0"]]"#,
        r#"[["luma4.0","luma4.0","luma4.0","luma4.0","luma4.0","luma4.0","luma4.0","luma4.0"]]"#,
        &format!("[{}]", [r#"["luma8.0"]"#; 9].join(",")),
    ] {
        refused!(altered(&|header| header["__metadata__"]["luma_modes"] = json!(modes)), Error::Metadata { .. });
    }
    for bits in ["0", "17", "2"] {
        let file = altered(&|header| header["__metadata__"]["index_bits"] = json!(bits));
        refused!(file, Error::Layers { .. } | Error::Tensor { .. });
    }
    refused!(altered(&|header| header["__metadata__"]["channels"] = json!("4")), Error::Geometry { .. });
    for key in ["patch_width", "patch_height"] {
        refused!(altered(&|header| header["__metadata__"][key] = json!("4")), Error::Geometry { .. });
    }
}

#[test]
fn a_tensor_called_header_is_refused() {
    let file = altered(|header| {
        header["header"] = header["unknown"].take();
        drop(header.as_object_mut().expect("an object").remove("unknown"));
    });
    refused!(file, Error::Tensor { .. });
}

#[test]
fn unknown_tensors_and_metadata_are_ignored() {
    let file = altered(|header| {
        header["__metadata__"]["anything"] = json!("else");
        header["unknown"]["dtype"] = json!("F4_OF_THE_FUTURE");
        header["unknown"]["more"] = json!({ "nested": [1, 2, 3] });
    });
    assert_eq!(Archive::new(file).expect("opens").samples(), 3);
}

#[test]
fn errors_that_blame_the_file_say_so() {
    assert!(refused(Vec::new()).is_invalid_archive());
    assert!(!Archive::open("/no/such/file.qvq").expect_err("not there").is_invalid_archive());
}

#[test]
fn damaged_records_are_named_where_there_are_no_checksums() {
    let file = records();
    let (start, offsets) = offsets(&file);
    let (header, data) = split(&file);
    let mut header: Value = serde_json::from_slice(header).expect("JSON");
    header["__metadata__"].as_object_mut().expect("an object").retain(|key, _| !key.ends_with("_crc32c"));
    header["other"] = header.as_object_mut().expect("an object").remove("checksums").expect("there");
    let records = header["records"]["data_offsets"][0].as_u64().expect("a number") as usize;
    assert!(start < file.len() && offsets[0] == 0);
    let problem = |changes: &[(usize, u8)]| {
        let mut data = data.to_vec();
        changes.iter().for_each(|&(byte, value)| data[records + byte] = value);
        let archive = Archive::new(join(header.to_string().as_bytes(), &data)).expect("opens");
        let report = archive.verify(&()).expect("verified");
        report.bad_samples.first().map(|bad| (bad.sample, bad.problem.to_string()))
    };
    let expect = |changes: &[(usize, u8)], text: &str| match problem(changes) {
        Some((0, found)) if found.contains(text) => (),
        found => panic!("{changes:?}: {found:?}"),
    };
    assert_eq!(problem(&[]), None);
    // The first index of the groups of luma and of colour; modes of blocks that do not exist; the sixth mode of colour,
    // which there is not; an index into a codebook with fewer codewords; more modes than there are indices for.
    expect(&[(0, 1)], "group 0 begins at index 1, expected 0");
    expect(&[(16, 255)], "group 1 begins at index 255, expected");
    expect(&[(4, 4)], "modes of blocks that do not exist");
    expect(&[(20, 0), (24, 1), (28, 1)], "block 0 has mode 6, there are 6");
    expect(&[(4, 3), (8, 3), (12, 3)], "");
    expect(&[(4, 0), (8, 0), (12, 0)], "");
    let found = (32..offsets[1] as usize * 4).filter_map(|byte| problem(&[(byte, 255)]));
    assert!(found.filter(|(_, found)| found.contains("has index 7")).count() > 0, "codebooks of seven codewords");
}
