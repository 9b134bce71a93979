//! Every adapter of the machine against the oracle.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "gpu")]

mod common;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use common::layers::{LAYERS_CASES, LayersCase, hostile};
use common::{CASES, Case, Random, assert_same, on_every_adapter, outputs};
use kuat::gpu::{Device, GpuDecoder, Resident, Select, Stream, adapters, wgpu};
use kuat::{Archive, Decoder, Error, NaiveDecoder, OutputSpec};

fn check(device: &Device, case: &Case, outputs: &[OutputSpec]) {
    check_archive(device, &case.archive(), outputs, &format!("{case:?}"));
}

fn check_layers(device: &Device, case: &LayersCase, outputs: &[OutputSpec]) {
    check_archive(device, &case.archive(), outputs, &format!("{case:?}"));
}

/// Checks all samples in another order, some more than once.
fn check_archive(device: &Device, archive: &Archive<Vec<u8>>, outputs: &[OutputSpec], case: &str) {
    let gpu = GpuDecoder::new(device, archive).unwrap_or_else(|error| panic!("{case}: {error}"));
    let rows = archive.rows((0..archive.samples()).rev().chain([0, 0])).expect("there");
    let rows = rows.slices();
    check_rows(&gpu, archive, &rows, outputs, case);
    check_resident(&gpu, archive, outputs, case);
}

fn check_rows(gpu: &GpuDecoder, archive: &Archive<Vec<u8>>, rows: &[&[u8]], outputs: &[OutputSpec], case: &str) {
    let naive = NaiveDecoder::new(archive).expect("decoder");
    for spec in outputs {
        let len = spec.batch_len(archive.geometry(), rows.len());
        let (mut found, mut expected) = (vec![0xaa; len], vec![0x55; len]);
        naive.decode_bytes(rows, spec, &mut expected).expect("decoded");
        gpu.decode_bytes(rows, spec, &mut found).unwrap_or_else(|error| panic!("{case}, {spec:?}: {error}"));
        let what = format!("{case} on {}", gpu.device_name());
        assert_same(&what, &found, &expected, spec, archive.geometry(), false);
    }
}

/// Some of the same outputs, of each element type, from rows that stay on the device.
fn check_resident(gpu: &GpuDecoder, archive: &Archive<Vec<u8>>, outputs: &[OutputSpec], case: &str) {
    let limits = gpu.device().raw().limits();
    let resident = match Resident::new(gpu, archive, None) {
        Ok(resident) => resident,
        Err(Error::GpuLimit { found, needed, .. }) => {
            let row =
                (0..archive.samples()).map(|i| archive.row(i).expect("there").len()).max().expect("samples") as u64;
            return assert!(row > found && needed >= row && limits.max_storage_buffer_binding_size < row, "{case}");
        }
        Err(error) => panic!("{case}: {error}"),
    };
    assert_eq!(resident.byte_len(), Resident::bytes_needed(archive));
    let samples: Vec<usize> = (0..archive.samples()).rev().chain([0, 0]).collect();
    let rows = archive.rows(samples.iter().copied()).expect("there");
    let rows = rows.slices();
    for spec in outputs.iter().step_by(3) {
        let mut expected = vec![0x55; spec.batch_len(archive.geometry(), rows.len())];
        NaiveDecoder::new(archive).expect("decoder").decode_bytes(&rows, spec, &mut expected).expect("decoded");
        let batch = resident.submit(&samples, spec).unwrap_or_else(|error| panic!("{case}, {spec:?}: {error}"));
        let found = batch.read().expect("read");
        let what = format!("{case}, {} resident parts, on {}", resident.parts(), gpu.device_name());
        assert_same(&what, &found, &expected, spec, archive.geometry(), false);
    }
}

#[test]
fn every_layered_case_equals_the_oracle() {
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        for (number, case) in LAYERS_CASES.iter().enumerate() {
            // A third of the outputs, each time others: software adapters take long to compile so many kernels.
            let outputs: Vec<_> = outputs(case.channels as usize).into_iter().skip(number % 3).step_by(3).collect();
            check_layers(&device, case, &outputs);
        }
    });
}

#[test]
fn records_of_random_bytes_decode_as_by_the_oracle() {
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        for case in LAYERS_CASES {
            let (archive, mut random) = (case.archive(), Random::new(7));
            let gpu = GpuDecoder::new(&device, &archive).expect("uploaded");
            let books = archive.layers().expect("layers").books().expect("intact");
            let records: Vec<_> = (0..4).map(|_| hostile(&mut random, &books, &case.geometry())).collect();
            let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
            let [u8_nhwc, _, _, _, _, u8_nchw, ..] = outputs(case.channels as usize)[..] else {
                panic!("the outputs changed")
            };
            check_rows(&gpu, &archive, &records, &[u8_nhwc, u8_nchw], &format!("hostile {case:?}"));
        }
    });
}

#[test]
fn low_limits_change_nothing_about_layers() {
    // Bindings of one to five images as bytes and at most one as floats, and of a part of the records. The width of one
    // case is a multiple of 4, as the faster kernels need.
    let small =
        |image, index_bits| LayersCase { image, channels: 3, index_bits, codewords: 1 << index_bits, samples: 60 };
    on_every_adapter(|select| {
        for (binding, buffer, workgroups) in [(16 << 10, 48 << 10, 7), (8 << 10, 20 << 10, 65_535)] {
            let device = Device::open_with_limits(select, |limits| {
                limits.max_storage_buffer_binding_size = binding;
                limits.max_buffer_size = buffer;
                limits.max_compute_workgroups_per_dimension = workgroups;
            })
            .expect("the adapter opens");
            for case in [small((52, 20), 2), small((50, 21), 1)] {
                let [u8_nhwc, .., f32_nchw, _] = outputs(3)[..] else { panic!("the outputs changed") };
                check_layers(&device, &case, &[u8_nhwc, f32_nchw]);
            }
        }
    });
}

#[test]
fn codebooks_and_records_that_no_binding_holds_are_refused() {
    let archive = LAYERS_CASES[0].archive();
    let books_len = archive.layers().expect("layers").books_len() as u64;
    let longest = (0..archive.samples()).map(|i| archive.row(i).expect("there").len()).max().expect("samples") as u64;
    assert!(longest < books_len / 4);
    on_every_adapter(|select| {
        let device =
            Device::open_with_limits(select, |limits| limits.max_storage_buffer_binding_size = books_len / 4 * 2)
                .expect("the adapter opens");
        match GpuDecoder::new(&device, &archive) {
            Err(Error::GpuLimit { found, needed, .. }) => assert!(found < needed && needed == books_len),
            found => panic!("{found:?}"),
        }
        // Records of two codewords a book are longer than those books.
        let case = LayersCase { image: (224, 224), channels: 1, index_bits: 1, codewords: 2, samples: 2 };
        let archive = case.archive();
        let device = Device::open_with_limits(select, |limits| limits.max_storage_buffer_binding_size = 1 << 10)
            .expect("the adapter opens");
        let gpu = GpuDecoder::new(&device, &archive).expect("uploaded");
        let rows = archive.rows([0, 1]).expect("there");
        let rows = rows.slices();
        let refused = gpu.submit(&rows, &OutputSpec::default());
        assert!(matches!(refused, Err(Error::GpuLimit { found: 1024, .. })));
        assert!(matches!(Resident::new(&gpu, &archive, None), Err(Error::GpuLimit { found: 1024, .. })));
    });
}

#[test]
fn every_case_equals_the_oracle() {
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        CASES.iter().for_each(|case| check(&device, case, &outputs(case.channels as usize)));
    });
}

#[test]
fn resident_rows_in_several_parts_decode_by_the_fast_kernels() {
    // Rows of 128 bytes, 64 to a part; images of 768 bytes as bytes, ten to a window; a codebook in one part.
    let case = Case { image: (16, 16), channels: 3, patch: (2, 2), codewords: 100, bits: Some(16), samples: 200 };
    on_every_adapter(|select| {
        let low = |limits: &mut wgpu::Limits| limits.max_storage_buffer_binding_size = 8 << 10;
        let device = Device::open_with_limits(select, low).expect("the adapter opens");
        check(&device, &case, &outputs(3));
    });
}

#[test]
fn low_limits_change_nothing() {
    // So low that codebooks, index rows, outputs and numbers of workgroups are all cut, down to pieces of one image.
    on_every_adapter(|select| {
        for (binding, buffer, workgroups) in
            [(64 << 10, 1 << 20, 65_535), (16 << 10, 96 << 10, 7), (4 << 10, 20 << 10, 65_535), (1 << 10, 1 << 20, 3)]
        {
            let device = Device::open_with_limits(select, |limits| {
                limits.max_storage_buffer_binding_size = binding;
                limits.max_buffer_size = buffer;
                limits.max_compute_workgroups_per_dimension = workgroups;
                // What NVIDIA's and Intel's drivers ask for, and not a multiple of what the parameters take.
                let alignment = &mut limits.min_uniform_buffer_offset_alignment;
                *alignment = 64.max(*alignment);
            })
            .expect("the adapter opens");
            for case in CASES.iter().filter(|case| {
                // A buffer must hold two index rows and a binding 256 indices of any width; and nothing that takes
                // minutes, as each piece of the codebook is a dispatch for each piece of the output.
                let geometry = case.geometry();
                let row = case.bits.unwrap_or(16) * geometry.patches() as u64 / 8;
                let pieces = geometry.image_len() as u64 * 4 / binding * case.codewords as u64;
                row < buffer / 3 && (row <= binding || binding > 256 * 32) && pieces < 1_000_000
            }) {
                // One of each element type, planes and interleaved pixels: the cuts depend on nothing else.
                let [u8_nhwc, _, _, f32_nhwc, .., f16_nchw, _, _, _] = outputs(case.channels as usize)[..] else {
                    panic!("the outputs changed")
                };
                check(&device, case, &[u8_nhwc, f32_nhwc, f16_nchw]);
            }
        }
    });
}

#[test]
fn a_batch_of_more_than_65535_workgroups_decodes() {
    // 9 million words, one per invocation, in workgroups of at most 128; the width rules out the faster kernels.
    let case = Case { image: (30, 30), channels: 4, patch: (1, 1), codewords: 1000, bits: None, samples: 10_000 };
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        check(&device, &case, &[OutputSpec::default()]);
    });
}

#[test]
fn several_batches_in_flight_do_not_disturb_each_other() {
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        let archive = CASES[0].archive();
        let naive = NaiveDecoder::new(&archive).expect("decoder");
        let gpu = GpuDecoder::new(&device, &archive).expect("uploaded");
        let spec = OutputSpec::default();
        // Twice, so that the second round runs in buffers used before.
        for _ in 0..2 {
            let batches: Vec<_> = (0..archive.samples())
                .map(|sample| gpu.submit(&archive.rows([sample; 3]).expect("there"), &spec).expect("submitted"))
                .collect();
            for (sample, batch) in batches.iter().enumerate().rev() {
                let expected: Vec<u8> =
                    naive.decode(&archive.rows([sample; 3]).expect("there"), &spec).expect("decoded");
                assert!(batch.read().expect("read") == expected, "sample {sample}");
            }
        }
    });
}

#[test]
fn a_stream_submits_ahead_and_reads_behind_in_buffers_used_before() {
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        let archive = CASES[0].archive();
        let gpu = GpuDecoder::new(&device, &archive).expect("uploaded");
        let resident = Resident::new(&gpu, &archive, None).expect("fits");
        let naive = NaiveDecoder::new(&archive).expect("decoder");
        let spec = OutputSpec::default();
        let samples = |batch: usize| [batch % 5, (batch + 1) % 5];
        let rows = |batch| archive.rows(samples(batch)).expect("there");
        for keep in [false, true] {
            let (submitted, outputs) = (Cell::new(0), RefCell::new(HashSet::new()));
            let mut stream = Stream::new(20, |batch| {
                assert_eq!(batch, submitted.replace(batch + 1));
                let pending = match keep {
                    true => resident.submit(&samples(batch), &spec)?,
                    false => gpu.submit(&rows(batch), &spec)?,
                };
                outputs.borrow_mut().insert(pending.parts()[0].buffer().clone());
                Ok(pending)
            });
            let mut found = vec![0; 2 * archive.geometry().image_len()];
            for batch in 0..20 {
                stream.read_into(&mut found).expect("read");
                // When a batch has been read, the two that follow it had been submitted.
                assert_eq!(submitted.get(), (batch + 3).min(20));
                assert!(found == naive.decode::<u8>(&rows(batch), &spec).expect("decoded"), "batch {batch}");
            }
            assert!(matches!(stream.read_into(&mut found), Err(Error::Argument { .. })));
            drop(stream);
            assert!(outputs.into_inner().len() <= 3);
        }
    });
}

#[test]
fn an_error_in_a_stream_comes_in_its_turn_and_ends_it() {
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        let archive = CASES[0].archive();
        let gpu = GpuDecoder::new(&device, &archive).expect("uploaded");
        let spec = OutputSpec::default();
        let mut stream = Stream::new(9, |batch| match batch {
            2 => gpu.submit(&[&[0]], &spec),
            3.. => panic!("batch {batch} was asked for after an error"),
            _ => gpu.submit(&archive.rows([batch]).expect("there"), &spec),
        });
        let mut pixels = vec![0; archive.geometry().image_len()];
        assert!(matches!(stream.read_into(&mut [0]), Err(Error::OutputLength { .. })));
        stream.read_into(&mut pixels).expect("read");
        assert!(matches!(stream.read_into(&mut pixels), Err(Error::RowLength { .. })));
        assert!(matches!(stream.read_into(&mut pixels), Err(Error::Argument { .. })));
    });
}

#[test]
fn the_asynchronous_form_gives_the_same_on_any_executor() {
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        let archive = CASES[1].archive();
        let gpu = GpuDecoder::new(&device, &archive).expect("uploaded");
        let spec = OutputSpec::default();
        let batches =
            [0, 1, 2].map(|sample| gpu.submit(&archive.rows([sample]).expect("there"), &spec).expect("submitted"));
        let read = futures::future::try_join_all(batches.iter().map(|batch| batch.read_async()));
        let found = futures::executor::block_on(read).expect("read");
        for (batch, found) in batches.iter().zip(found) {
            assert!(batch.read().expect("read") == found);
        }
    });
}

#[test]
fn results_are_there_for_commands_of_the_callers_own_on_an_adopted_device() {
    on_every_adapter(|select| {
        let opened = Device::open(select).expect("the adapter opens");
        let (raw, queue) = (opened.raw().clone(), opened.queue().clone());
        let device = Device::adopt(raw.clone(), queue.clone()).expect("adopted");
        let archive = CASES[0].archive();
        let gpu = GpuDecoder::new(&device, &archive).expect("uploaded");
        let rows = archive.rows([3]).expect("there");
        let rows = rows.slices();
        let batch = gpu.submit(&rows, &OutputSpec::default()).expect("submitted");
        let [part] = batch.parts() else { panic!("{} parts", batch.parts().len()) };
        assert_eq!(part.bytes(), 0..archive.geometry().image_len() as u64);

        let staging = raw.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: part.bytes().end,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = raw.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(part.buffer(), 0, &staging, 0, part.bytes().end);
        queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |result| result.expect("mapped"));
        raw.poll(wgpu::PollType::wait_indefinitely()).expect("done");
        let found = staging.get_mapped_range(..).expect("mapped");
        let expected: Vec<u8> =
            NaiveDecoder::new(&archive).expect("decoder").decode(&rows, &OutputSpec::default()).expect("decoded");
        assert!(found[..] == expected);
    });
}

#[test]
fn an_index_beyond_the_codebook_decodes_as_the_last_codeword() {
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        for case in CASES.iter().filter(|case| case.bits.is_some()) {
            let archive = case.archive();
            let naive = NaiveDecoder::new(&archive).expect("decoder");
            let gpu = GpuDecoder::new(&device, &archive).expect("uploaded");
            let row = vec![0xff; archive.vq().expect("vq").row_len()];
            let expected: Vec<u8> = naive.decode(&[&row], &OutputSpec::default()).expect("decoded");
            let found: Vec<u8> = gpu.decode(&[&row], &OutputSpec::default()).expect("decoded");
            assert!(found == expected, "{case:?}");
        }
    });
}

#[test]
fn an_empty_batch_and_wrong_arguments_are_answered_before_the_gpu_is_asked() {
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        let archive = CASES[0].archive();
        let gpu = GpuDecoder::new(&device, &archive).expect("uploaded");
        let spec = OutputSpec::default();
        assert!(gpu.decode::<u8>(&[[0; 0]; 0], &spec).expect("decoded").is_empty());
        assert!(gpu.submit(&[[0; 0]; 0], &spec).expect("submitted").parts().is_empty());
        assert!(matches!(gpu.submit(&[&[0]], &spec), Err(Error::RowLength { .. })));
        let rows = archive.rows([0]).expect("there");
        let rows = rows.slices();
        assert!(matches!(gpu.decode_bytes(&rows, &spec, &mut [0]), Err(Error::OutputLength { .. })));
    });
}

#[test]
fn resident_rows_are_split_where_bindings_end_and_refused_beyond_their_budget() {
    // 100 rows of 32 bytes, of which a binding holds 32.
    let case = Case { image: (16, 16), channels: 3, patch: (4, 4), codewords: 1000, bits: Some(16), samples: 100 };
    let archive = case.archive();
    let needed = Resident::bytes_needed(&archive);
    assert_eq!(needed, 3200);
    on_every_adapter(|select| {
        let low = |limits: &mut wgpu::Limits| limits.max_storage_buffer_binding_size = 64 << 10;
        let device = Device::open_with_limits(select, low).expect("the adapter opens");
        let gpu = GpuDecoder::new(&device, &archive).expect("uploaded");
        assert_eq!(Resident::new(&gpu, &archive, Some(needed)).expect("fits").parts(), 1);
        let refused = Resident::new(&gpu, &archive, Some(needed - 1));
        assert!(matches!(refused, Err(Error::GpuBudget { needed: 3200, budget: Some(3199), .. })));

        let low = |limits: &mut wgpu::Limits| limits.max_storage_buffer_binding_size = 1 << 10;
        let device = Device::open_with_limits(select, low).expect("the adapter opens");
        let gpu = GpuDecoder::new(&device, &archive);
        // A thousand codewords of 48 bytes are in many parts then: the other kernel.
        let resident = Resident::new(&gpu.expect("uploaded"), &archive, None).expect("fits");
        assert_eq!(resident.parts(), 4);
        let beyond = resident.submit(&[3, 100, 200], &OutputSpec::default());
        assert!(matches!(beyond, Err(Error::Sample { sample: 100, samples: 100 })));
        assert!(resident.submit(&[], &OutputSpec::default()).expect("submitted").parts().is_empty());
        let other = CASES[0].archive();
        assert!(matches!(Resident::new(resident.decoder(), &other, None), Err(Error::Argument { .. })));
    });
}

#[test]
fn an_adapter_that_is_not_there_is_named_beside_those_that_are() {
    let error = Device::open(&Select::Named("no such adapter".into())).expect_err("there is none");
    let message = error.to_string();
    assert!(message.contains("no such adapter"), "{message}");
    adapters().iter().for_each(|adapter| assert!(message.contains(&adapter.name), "{message}"));
}

#[test]
fn the_best_adapter_is_never_a_software_one() {
    let real = adapters().into_iter().find(|adapter| adapter.kind != kuat::gpu::AdapterKind::Software);
    match (Device::open(&Select::Best), real) {
        (Ok(device), Some(real)) => assert_eq!(device.description().to_string(), real.to_string()),
        (Err(Error::NoAdapter { .. }), None) => {}
        (found, expected) => panic!("{found:?} where {expected:?} is best"),
    }
}

#[test]
#[ignore = "needs 2 GB of memory; `make test` runs it"]
fn a_codebook_of_33_million_codewords_decodes() {
    let case = Case { image: (64, 64), channels: 3, patch: (2, 2), codewords: 1 << 25, bits: None, samples: 2 };
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        check(&device, &case, &[OutputSpec::default()]);
    });
}
