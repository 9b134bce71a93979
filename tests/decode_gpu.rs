//! Every adapter of the machine against the oracle.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "gpu")]

mod common;

use common::{CASES, Case, assert_same, outputs};
use kuat::gpu::{Device, GpuDecoder, Select, adapters, wgpu};
use kuat::{Decoder, Error, NaiveDecoder, OutputSpec};

/// Runs a test on every adapter. None at all is a failure, unless `KUAT_TEST_WITHOUT_GPU` is set.
fn on_every_adapter(test: impl Fn(&Select)) {
    let found = adapters();
    if found.is_empty() {
        let allowed = std::env::var_os("KUAT_TEST_WITHOUT_GPU").is_some();
        assert!(allowed, "no GPU adapter: run `make setup` for a software one, or set KUAT_TEST_WITHOUT_GPU=1");
    }
    for adapter in found {
        eprintln!("on {adapter}");
        test(&Select::Named(adapter.to_string()));
    }
}

fn check(device: &Device, case: &Case, outputs: &[OutputSpec]) {
    let archive = case.archive();
    let naive = NaiveDecoder::new(&archive);
    let gpu = GpuDecoder::new(device, &archive).unwrap_or_else(|error| panic!("{case:?}: {error}"));
    let rows = archive.rows((0..case.samples).rev().chain([0, 0])).expect("there");
    for spec in outputs {
        let len = spec.batch_len(archive.geometry(), rows.len());
        let (mut found, mut expected) = (vec![0xaa; len], vec![0x55; len]);
        naive.decode_bytes(&rows, spec, &mut expected).expect("decoded");
        gpu.decode_bytes(&rows, spec, &mut found).unwrap_or_else(|error| panic!("{case:?}, {spec:?}: {error}"));
        let what = format!("{case:?} on {}", gpu.device_name());
        assert_same(&what, &found, &expected, spec, archive.geometry(), false);
    }
}

#[test]
fn every_case_equals_the_oracle() {
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        CASES.iter().for_each(|case| check(&device, case, &outputs(case.channels as usize)));
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
        let naive = NaiveDecoder::new(&archive);
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
        let expected: Vec<u8> = NaiveDecoder::new(&archive).decode(&rows, &OutputSpec::default()).expect("decoded");
        assert!(found[..] == expected);
    });
}

#[test]
fn an_index_beyond_the_codebook_decodes_as_the_last_codeword() {
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        for case in CASES.iter().filter(|case| case.bits.is_some()) {
            let archive = case.archive();
            let naive = NaiveDecoder::new(&archive);
            let gpu = GpuDecoder::new(&device, &archive).expect("uploaded");
            let row = vec![0xff; archive.row_len()];
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
        assert!(gpu.decode::<u8>(&[], &spec).expect("decoded").is_empty());
        assert!(gpu.submit(&[], &spec).expect("submitted").parts().is_empty());
        assert!(matches!(gpu.submit(&[&[0]], &spec), Err(Error::RowLength { .. })));
        let rows = archive.rows([0]).expect("there");
        assert!(matches!(gpu.decode_bytes(&rows, &spec, &mut [0]), Err(Error::OutputLength { .. })));
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
