//! The CPU decoder against the oracle, and the oracle against pixels placed by hand.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod common;

use common::layers::{LAYERS_CASES, LayersCase, books, hostile, layered, record};
use common::{CASES, Case, Random, archive, assert_same, outputs};
use kuat::{
    ArchiveSpec, BufferPool, CodingSpec, CpuDecoder, CpuPath, Decoder, Dtype, Error, Geometry, IndexWidth, Layout,
    NaiveDecoder, Normalization, OutputSpec,
};

#[test]
fn the_oracle_places_every_pixel_where_it_belongs() {
    // Two codewords of 2x2 RGB pixels; an image of 3x3 pixels, so that the right and lower patches are cut.
    let geometry = Geometry::new((3, 3), 3, (2, 2)).expect("valid");
    let codebook = (0..24).collect();
    let archive = archive(ArchiveSpec::new(geometry, codebook), &[vec![0, 1, 1, 0]]);
    let decoder = NaiveDecoder::new(&archive).expect("decoder");
    let rows = archive.rows([0]).expect("there");
    let rows = rows.slices();
    let nhwc: Vec<u8> = decoder.decode(&rows, &OutputSpec::default()).expect("decoded");
    #[rustfmt::skip]
    let expected = [
        0, 1, 2,     3, 4, 5,     12, 13, 14,
        6, 7, 8,     9, 10, 11,   18, 19, 20,
        12, 13, 14,  15, 16, 17,  0, 1, 2,
    ];
    assert_eq!(nhwc, expected);
    let planar = OutputSpec { layout: Layout::Nchw, ..Default::default() };
    let nchw: Vec<u8> = decoder.decode(&rows, &planar).expect("decoded");
    assert_eq!(nchw[..9], [0, 3, 12, 6, 9, 18, 12, 15, 0], "red");
    assert_eq!(nchw[18..], [2, 5, 14, 8, 11, 20, 14, 17, 2], "blue");
    let float = OutputSpec { dtype: Dtype::F32, normalization: Some(Normalization::imagenet()), ..Default::default() };
    let floats: Vec<f32> = decoder.decode(&rows, &float).expect("decoded");
    // (4 / 255 - 0.456) / 0.224 and (20 / 255 - 0.406) / 0.225, by hand.
    assert!((floats[4] - -1.965_686_3).abs() < 1e-6 && (floats[17] - -1.455_860_6).abs() < 1e-6);
}

/// Whether a case is small enough for what takes a hundred times as long: Miri, and valgrind if `KUAT_TEST_SMALL` is set.
fn in_time(image: (u32, u32), codewords: usize) -> bool {
    let slow = cfg!(miri) || std::env::var_os("KUAT_TEST_SMALL").is_some();
    !slow || image.0 * image.1 <= 900 && codewords <= 300
}

#[test]
fn the_cpu_equals_the_oracle_bit_for_bit_in_every_case() {
    for case in CASES.iter().filter(|case| in_time(case.image, case.codewords)) {
        let archive = case.archive();
        let naive = NaiveDecoder::new(&archive).expect("decoder");
        // Repeated and in reverse.
        let samples = (0..case.samples).rev().chain([0, 0]);
        let rows = archive.rows(samples).expect("there");
        let rows = rows.slices();
        for spec in outputs(case.channels as usize) {
            let len = spec.batch_len(archive.geometry(), rows.len());
            let (mut found, mut expected) = (vec![0xaa; len], vec![0x55; len]);
            naive.decode_bytes(&rows, &spec, &mut expected).expect("decoded");
            for path in CpuPath::available() {
                let cpu = CpuDecoder::new(&archive).expect("decoder").with_path(path);
                assert_eq!(cpu.path(), path);
                cpu.decode_bytes(&rows, &spec, &mut found).expect("decoded");
                assert_same(&format!("{case:?}, {path}"), &found, &expected, &spec, archive.geometry(), true);
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes hours")]
fn large_batches_are_the_same_wherever_they_go() {
    // Batches beyond the size from which stores bypass the caches, to memory that begins at a cache line, or anywhere;
    // one of the codebooks is larger than the caches near a core.
    for (image, channels, patch, codewords) in
        [((224, 224), 3, (4, 4), 40_000), ((224, 112), 3, (2, 2), 3000), ((99, 67), 1, (5, 3), 3000)]
    {
        let case = Case { image, channels, patch, codewords, bits: None, samples: 3 };
        let archive = case.archive();
        let naive = NaiveDecoder::new(&archive).expect("decoder");
        for spec in outputs(channels as usize) {
            let image = spec.batch_len(archive.geometry(), 1);
            let three = archive.rows(0..3).expect("there");
            let three = three.slices();
            let mut expected = vec![0; 3 * image];
            naive.decode_bytes(&three, &spec, &mut expected).expect("decoded");
            let rows: Vec<&[u8]> = three.iter().copied().cycle().take((17 << 20) / image).collect();
            let mut memory = BufferPool::default().take(rows.len() * image + 64).expect("memory");
            for (path, start) in CpuPath::available().into_iter().flat_map(|path| [(path, 0), (path, 4), (path, 1)]) {
                memory.fill(0xaa);
                let found = &mut memory[start..start + rows.len() * image];
                CpuDecoder::new(&archive)
                    .expect("decoder")
                    .with_path(path)
                    .decode_bytes(&rows, &spec, found)
                    .expect("decoded");
                let same = found.chunks(image).zip(expected.chunks(image).cycle()).all(|(a, b)| a == b);
                assert!(same, "{case:?}, {spec}, {path}, from byte {start}");
                assert!(memory[..start].iter().all(|&byte| byte == 0xaa));
                assert!(memory[start + rows.len() * image..].iter().all(|&byte| byte == 0xaa));
            }
        }
    }
}

#[test]
fn layers_equal_the_oracle_bit_for_bit_in_every_case() {
    for case in LAYERS_CASES.iter().filter(|case| in_time(case.image, case.codewords)) {
        let (geometry, mut random) = (case.geometry(), Random::new(case.codewords as u64));
        let books = books(&mut random, case.channels == 3, case.index_bits, case.codewords);
        let archive = layered(geometry, books.clone(), &[record(&mut random, &books, &geometry)]);
        // True records and such as nobody should write, which decoders take all the same.
        let mut records: Vec<_> = (0..case.samples).map(|_| record(&mut random, &books, &geometry)).collect();
        records.extend((0..2 * case.samples).map(|_| hostile(&mut random, &books, &geometry)));
        let rows: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let naive = NaiveDecoder::new(&archive).expect("decoder");
        let bytes: Vec<u8> = naive.decode(&rows, &OutputSpec::default()).expect("decoded");
        for spec in outputs(case.channels as usize) {
            let len = spec.batch_len(&geometry, rows.len());
            let expected = common::as_asked(&bytes, &spec, &geometry);
            let mut found = vec![0xaa; len];
            for path in CpuPath::available() {
                let cpu = CpuDecoder::new(&archive).expect("decoder").with_path(path);
                cpu.decode_bytes(&rows, &spec, &mut found).expect("decoded");
                assert_same(&format!("{case:?}, {path}"), &found, &expected, &spec, &geometry, true);
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes hours")]
fn large_batches_of_layers_are_the_same_wherever_they_go() {
    for (image, channels) in [((224, 224), 3), ((224, 104), 3), ((99, 67), 3), ((99, 67), 1)] {
        let case = LayersCase { image, channels, index_bits: 12, codewords: 4096, samples: 3 };
        let (archive, geometry) = (case.archive(), case.geometry());
        let three = archive.rows(0..3).expect("there");
        let three = three.slices();
        let naive = NaiveDecoder::new(&archive).expect("decoder");
        let bytes: Vec<u8> = naive.decode(&three, &OutputSpec::default()).expect("decoded");
        for spec in outputs(channels as usize) {
            let image = spec.batch_len(&geometry, 1);
            let expected = common::as_asked(&bytes, &spec, &geometry);
            let rows: Vec<&[u8]> = three.iter().copied().cycle().take((17 << 20) / image).collect();
            let mut memory = BufferPool::default().take(rows.len() * image + 64).expect("memory");
            for (path, start) in CpuPath::available().into_iter().flat_map(|path| [(path, 0), (path, 4), (path, 1)]) {
                memory.fill(0xaa);
                let found = &mut memory[start..start + rows.len() * image];
                let cpu = CpuDecoder::new(&archive).expect("decoder").with_path(path);
                cpu.decode_bytes(&rows, &spec, found).expect("decoded");
                let same = found.chunks(image).zip(expected.chunks(image).cycle()).all(|(a, b)| a == b);
                assert!(same, "{case:?}, {spec}, {path}, from byte {start}");
                assert!(memory[..start].iter().all(|&byte| byte == 0xaa));
                assert!(memory[start + rows.len() * image..].iter().all(|&byte| byte == 0xaa));
            }
        }
    }
}

#[test]
fn records_that_are_cut_or_too_long_are_refused_and_nothing_is_written() {
    for case in LAYERS_CASES.iter().filter(|case| in_time(case.image, case.codewords)) {
        let archive = case.archive();
        let spec = OutputSpec::default();
        let row = archive.row(0).expect("there");
        let mut output = vec![7; spec.batch_len(archive.geometry(), 2)];
        let naive = NaiveDecoder::new(&archive).expect("decoder");
        let Err(Error::RecordLength { row: 1, found: 0, shortest, longest }) =
            naive.decode_bytes(&[&row, &[]], &spec, &mut output)
        else {
            panic!("{case:?} takes a record of no bytes");
        };
        let bytes = vec![0xff; longest + 4];
        for path in CpuPath::available() {
            let cpu = CpuDecoder::new(&archive).expect("decoder").with_path(path);
            for len in [0, shortest - 4, shortest - 1, shortest + 1, longest - 1, longest + 1, longest + 4] {
                let refused = cpu.decode_bytes(&[&row, &bytes[..len]], &spec, &mut output);
                assert!(matches!(refused, Err(Error::RecordLength { row: 1, .. })), "{case:?}, {path}, {len} bytes");
                assert!(output.iter().all(|&byte| byte == 7));
            }
            for len in [shortest, shortest + 4, longest].into_iter().filter(|&len| len <= longest) {
                cpu.decode_bytes(&[&row, &bytes[..len]], &spec, &mut output).expect("decoded");
                let expected: Vec<u8> = naive.decode(&[&row, &bytes[..len]], &spec).expect("decoded");
                assert!(output == expected, "{case:?}, {path}, {len} bytes");
                output.fill(7);
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes hours")]
fn constants_that_round_unevenly_are_exact() {
    let archive = CASES[0].archive();
    let naive = NaiveDecoder::new(&archive).expect("decoder");
    let rows = archive.rows([0, 1]).expect("there");
    let rows = rows.slices();
    let mut random = Random::new(5);
    for _ in 0..40 {
        let mut number = |low: f32, high: f32| low + (high - low) * (random.next() % 1000) as f32 / 1000.0;
        let (mean, std) = ([number(-1.0, 1.0), 0.0, number(0.0, 1.0)], [number(0.01, 3.0), 1e-3, number(1.0, 300.0)]);
        let normalization = Some(Normalization::new(&mean, &std).expect("valid"));
        for (dtype, layout) in [(Dtype::F32, Layout::Nchw), (Dtype::F32, Layout::Nhwc), (Dtype::F16, Layout::Nchw)] {
            let spec = OutputSpec { dtype, layout, normalization };
            let len = spec.batch_len(archive.geometry(), 2);
            let (mut found, mut expected) = (vec![0; len], vec![0; len]);
            naive.decode_bytes(&rows, &spec, &mut expected).expect("decoded");
            for path in CpuPath::available() {
                CpuDecoder::new(&archive)
                    .expect("decoder")
                    .with_path(path)
                    .decode_bytes(&rows, &spec, &mut found)
                    .expect("decoded");
                assert_same(&format!("{mean:?} {std:?} {path}"), &found, &expected, &spec, archive.geometry(), true);
            }
        }
    }
}

/// The limit is the process's, so the test starts itself once more.
#[cfg(target_os = "linux")]
#[test]
#[cfg_attr(miri, ignore = "starts a process")]
fn a_codebook_that_memory_does_not_hold_is_an_error() {
    if let Some(path) = std::env::var_os("KUAT_TEST_LITTLE_MEMORY") {
        let archive = kuat::Archive::open(path).expect("an archive");
        assert!(matches!(CpuDecoder::new(&archive), Err(Error::OutOfMemory { .. })));
        return;
    }
    // 32 MiB of codewords, which take eight times as much once they are padded.
    let geometry = Geometry::new((1, 1), 1, (1, 1)).expect("valid");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("large.qvq");
    let writer = kuat::ArchiveWriter::create(&path, ArchiveSpec::new(geometry, vec![0; 1 << 25])).expect("a writer");
    writer.finish_file(None).expect("written");
    let child = std::process::Command::new("sh")
        .args(["-c", "ulimit -v 260000 && exec \"$0\" --exact a_codebook_that_memory_does_not_hold_is_an_error"])
        .arg(std::env::current_exe().expect("this test"))
        .env("KUAT_TEST_LITTLE_MEMORY", &path)
        .status()
        .expect("a shell");
    assert!(child.success());
}

#[test]
fn an_empty_batch_is_empty() {
    let archive = CASES[0].archive();
    assert!(
        CpuDecoder::new(&archive)
            .expect("decoder")
            .decode::<u8>(&[[0; 0]; 0], &OutputSpec::default())
            .expect("decoded")
            .is_empty()
    );
}

#[test]
fn an_index_beyond_the_codebook_decodes_as_the_last_codeword() {
    let geometry = Geometry::new((64, 16), 3, (4, 4)).expect("valid");
    for bits in [8, 13, 16, 25, 32] {
        let width = IndexWidth::new(bits).expect("valid");
        let codebook = (0..5 * 48).map(|i| i as u8).collect();
        let coding = CodingSpec::Vq { codebook, index_width: Some(width) };
        let archive = archive(ArchiveSpec::with_coding(geometry, coding), &[vec![4; 64]]);
        let mut row = Vec::new();
        width.pack(&[5, 255, u32::MAX, 4].repeat(16), &mut row);
        let naive = NaiveDecoder::new(&archive).expect("decoder");
        let last: Vec<u8> = naive.decode(&archive.rows([0]).expect("there"), &Default::default()).expect("decoded");
        let mut found = vec![0; last.len()];
        naive.decode_bytes(&[&row], &OutputSpec::default(), &mut found).expect("decoded");
        assert_eq!(found, last, "{bits} bits, naive");
        for path in CpuPath::available() {
            let cpu = CpuDecoder::new(&archive).expect("decoder").with_path(path);
            cpu.decode_bytes(&[&row], &OutputSpec::default(), &mut found).expect("decoded");
            assert_eq!(found, last, "{bits} bits, {path}");
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused_and_nothing_is_written() {
    let archive = CASES[0].archive();
    let cpu = CpuDecoder::new(&archive).expect("decoder");
    let rows = archive.rows([0]).expect("there");
    let rows = rows.slices();
    let image = archive.geometry().image_len();
    let u8_spec = OutputSpec::default();
    let f32_spec = OutputSpec { dtype: Dtype::F32, ..u8_spec };

    let mut output = vec![7u8; image];
    let short: &[&[u8]] = &[&rows[0][1..]];
    assert!(matches!(cpu.decode_into(short, &u8_spec, &mut output), Err(Error::RowLength { row: 0, .. })));
    assert!(matches!(cpu.decode_into(&rows, &u8_spec, &mut output[1..]), Err(Error::OutputLength { .. })));
    assert!(matches!(cpu.decode_into(&rows, &f32_spec, &mut output), Err(Error::OutputDtype { .. })));
    let normalised = OutputSpec { normalization: Some(Normalization::imagenet()), ..u8_spec };
    assert!(matches!(cpu.decode_into(&rows, &normalised, &mut output), Err(Error::Normalization { .. })));
    assert!(output.iter().all(|&byte| byte == 7));
    assert!(matches!(archive.row(archive.samples()), Err(Error::Sample { .. })));
}
