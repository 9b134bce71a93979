//! The search for nearest codewords on every adapter, against comparing with every codeword.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "gpu")]

mod common;

use common::on_every_adapter;
use kuat::Error;
use kuat::gpu::{Device, GpuNearest, wgpu};

/// The nearest codeword of each patch, the first of several, and its squared distance.
fn brute_force(codebook: &[u8], patches: &[u8], len: usize) -> (Vec<u32>, Vec<u32>) {
    let nearest = |patch: &[u8]| {
        let distance = |c: &[u8]| c.iter().zip(patch).map(|(&a, &b)| u32::from(a.abs_diff(b)).pow(2)).sum::<u32>();
        let distances = codebook.chunks(len).map(distance).zip(0..);
        distances.min().map(|(distance, index)| (index, distance)).expect("codewords")
    };
    patches.chunks(len).map(nearest).unzip()
}

fn check(device: &Device, codebook: &[u8], patches: &[u8], len: usize) {
    let search = GpuNearest::new(device, codebook, len).expect("uploaded");
    check_search(&search, codebook, patches, len);
}

fn check_search(search: &GpuNearest, codebook: &[u8], patches: &[u8], len: usize) {
    let count = patches.len() / len;
    let (mut nearest, mut distances) = (vec![7; count], vec![7; count]);
    search.nearest(patches, &mut nearest, &mut distances).expect("searched");
    let (expected, expected_distances) = brute_force(codebook, patches, len);
    let what = format!("{len} values, {} codewords, {count} patches on {:?}", codebook.len() / len, search.device());
    for patch in 0..count {
        let found = (nearest[patch], distances[patch]);
        assert_eq!(found, (expected[patch], expected_distances[patch]), "patch {patch}: {what}");
    }
}

/// Bytes that look random, the same for the same seed: the high ones of a linear congruential generator.
fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let step = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some((*state >> 56) as u8)
    };
    std::iter::repeat(()).scan(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), |state, ()| step(state)).take(count).collect()
}

/// Codewords of which many are equal, some equal to patches, and among which are the extreme ones.
fn codebook(len: usize, count: usize) -> Vec<u8> {
    let mut codebook = bytes(1, len * count);
    for (i, codeword) in codebook.chunks_mut(len).enumerate() {
        match i % 5 {
            1 => codeword.fill(if i % 2 == 0 { 255 } else { 0 }),
            2 => codeword.iter_mut().for_each(|value| *value &= 0xc0),
            _ => {}
        }
    }
    // The second half repeats the first in another order.
    let half = count / 2;
    for i in 0..half {
        codebook.copy_within(i * 7 % half.max(1) * len..(i * 7 % half.max(1) + 1) * len, (count - half + i) * len);
    }
    codebook
}

fn patches(len: usize, count: usize, codebook: &[u8]) -> Vec<u8> {
    let mut patches = bytes(2, len * count);
    for (i, patch) in patches.chunks_mut(len).enumerate() {
        match i % 4 {
            0 => patch.copy_from_slice(&codebook[i * 13 % (codebook.len() / len) * len..][..len]),
            1 => patch.fill(if i % 8 == 1 { 255 } else { 0 }),
            2 => patch.iter_mut().for_each(|value| *value &= 0xc0),
            _ => {}
        }
    }
    patches
}

#[test]
fn every_length_equals_brute_force() {
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        for (len, codewords, count) in [
            (1, 300, 2000),
            (3, 1, 5),
            (3, 511, 513),
            (4, 513, 1),
            (12, 2000, 1025),
            (13, 700, 600),
            (16, 512, 512),
            (17, 257, 300),
            (33, 170, 511),
            (48, 1000, 1537),
            (64, 129, 200),
            (65, 97, 130),
            (192, 333, 700),
            (1023, 9, 40),
            (1024, 90, 515),
            // More turns of a loop than software adapters make.
            (3, 140_000, 50),
            (66, 70_000, 3),
        ] {
            let codebook = codebook(len, codewords);
            check(&device, &codebook, &patches(len, count, &codebook), len);
        }
    });
}

#[test]
fn low_limits_change_nothing() {
    // Codebooks in many pieces, the last of one codeword, and patches in several batches.
    on_every_adapter(|select| {
        for (binding, workgroups) in [(16 << 10, 65_535), (4 << 10, 1), (1 << 10, 65_535)] {
            let device = Device::open_with_limits(select, |limits| {
                limits.max_storage_buffer_binding_size = binding;
                limits.max_compute_workgroups_per_dimension = workgroups;
                let alignment = &mut limits.min_uniform_buffer_offset_alignment;
                *alignment = 64.max(*alignment);
            })
            .expect("the adapter opens");
            for len in [1usize, 12, 13, 48, 192, 1024] {
                let per_part = binding as usize / len.next_multiple_of(4);
                let codebook = codebook(len, (3 * per_part + 1).min(1000));
                // Of patches as many as make three batches where these are small.
                let per_batch = (binding as usize / len.next_multiple_of(16)).min(binding as usize / 4);
                check(&device, &codebook, &patches(len, (2 * per_batch + 1).min(700), &codebook), len);
            }
        }
    });
}

#[test]
fn threads_search_at_the_same_time() {
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        let codebook = codebook(12, 600);
        let search = GpuNearest::new(&device, &codebook, 12).expect("uploaded");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (search, codebook) = (&search, &codebook);
                scope.spawn(move || {
                    for round in 0..3 {
                        let patches = bytes(thread * 10 + round, 12 * (100 + 300 * thread as usize));
                        check_search(search, codebook, &patches, 12);
                    }
                });
            }
        });
    });
}

#[test]
fn wrong_arguments_are_refused() {
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        for (codebook, len) in [(&[][..], 3), (&[1, 2], 3), (&[1, 2], 0), (&[0; 1025], 1025)] {
            assert!(matches!(GpuNearest::new(&device, codebook, len), Err(Error::Argument { .. })));
        }
        let search = GpuNearest::new(&device, &[1, 2, 3, 4], 2).expect("uploaded");
        search.nearest(&[], &mut [], &mut []).expect("nothing to search");
        for (patches, nearest, distances) in [(&[0; 3][..], 1, 1), (&[0; 4], 1, 2), (&[0; 4], 2, 1), (&[], 1, 1)] {
            let found = search.nearest(patches, &mut vec![0; nearest], &mut vec![0; distances]);
            assert!(matches!(found, Err(Error::Argument { .. })));
        }
        let low = |limits: &mut wgpu::Limits| limits.max_storage_buffer_binding_size = 512;
        let device = Device::open_with_limits(select, low).expect("the adapter opens");
        assert!(matches!(GpuNearest::new(&device, &[0; 1024], 1024), Err(Error::GpuLimit { .. })));
    });
}

/// Pictures of waves, of sizes of their own, and one that cannot be read.
#[cfg(feature = "encode")]
struct Waves;

#[cfg(feature = "encode")]
impl kuat::encode::Source for Waves {
    fn len(&self) -> usize {
        7
    }

    fn name(&self, index: usize) -> String {
        format!("wave {index}")
    }

    fn read(&self, index: usize, options: &kuat::encode::ReadOptions) -> kuat::Result<kuat::encode::Image> {
        let channels = options.channels;
        if index == 3 {
            return Err(Error::Source { name: self.name(index), source: "no such wave".into() });
        }
        let (width, height) = (40 + index as u32, 30);
        let value = |i: u32| {
            let (x, y) = (i / channels % width, i / channels / width);
            ((x * x * (1 + i % channels) + y * (31 + index as u32) + x * y) / 7) as u8
        };
        let pixels = (0..width * height * channels).map(value).collect();
        Ok(kuat::encode::Image { width, height, channels, pixels })
    }
}

#[test]
#[cfg(feature = "encode")]
fn archives_are_the_cpus_byte_for_byte() {
    use kuat::encode::{Codebook, EncodeOptions, OnError, Searcher, encode};

    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("out.qvq");
    on_every_adapter(|select| {
        let device = Device::open(select).expect("the adapter opens");
        // Both sides have a remainder; a patch that is long; one value, of which all are codewords.
        for (patch, channels, codewords) in [((4, 3), 3, 100), ((2, 2), 1, 30), ((9, 9), 4, 20), ((1, 1), 1, 256)] {
            let encoded = |searcher: Searcher| {
                let name = searcher.name();
                let options = EncodeOptions {
                    image_size: (33, 26),
                    channels,
                    patch,
                    codebook: Codebook::Train(codewords),
                    on_error: OnError::Skip,
                    searcher,
                    ..EncodeOptions::default()
                };
                let summary = encode(&Waves, &path, &options, &()).expect("encoded");
                assert_eq!((summary.samples, summary.skipped.len(), summary.device), (6, 1, name));
                (std::fs::read(&path).expect("read"), summary.mean_psnr_db, summary.min_psnr_db, summary.pooled_psnr_db)
            };
            let (by_gpu, by_cpu) = (encoded(Searcher::Gpu(device.clone())), encoded(Searcher::Cpu));
            assert!(by_gpu == by_cpu, "patches of {patch:?} on {device:?}");
        }
    });
}
