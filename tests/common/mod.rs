//! Archives made in memory, and the table of cases that every decoder must pass.
#![allow(dead_code, clippy::expect_used, clippy::panic, clippy::print_stderr)]

pub mod layers;

use std::io::Cursor;

use kuat::SampleInfo;
use kuat::{
    Archive, ArchiveSpec, ArchiveWriter, CodingSpec, Dtype, Geometry, IndexWidth, Layout, Normalization, OutputSpec,
};

/// One archive of the table.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub image: (u32, u32),
    pub channels: u32,
    pub patch: (u32, u32),
    pub codewords: usize,
    /// `None`: the narrowest.
    pub bits: Option<u64>,
    pub samples: usize,
}

const fn case(image: (u32, u32), channels: u32, patch: (u32, u32), codewords: usize, samples: usize) -> Case {
    Case { image, channels, patch, codewords, bits: None, samples }
}

const fn wide(bits: u64, image: (u32, u32), patch: (u32, u32), codewords: usize) -> Case {
    Case { image, channels: 3, patch, codewords, bits: Some(bits), samples: 3 }
}

/// What has to work: every patch side, sides that are no multiple of the patch, all channel counts, index widths.
pub const CASES: &[Case] = &[
    // The common ones.
    case((224, 224), 3, (4, 4), 4096, 5),
    case((224, 224), 3, (2, 2), 65_536, 3),
    case((32, 32), 3, (2, 2), 256, 7),
    // Smallest of all.
    case((1, 1), 1, (1, 1), 1, 1),
    case((1, 1), 3, (1, 1), 2, 5),
    case((1, 1), 4, (16, 16), 3, 2),
    case((1, 1), 3, (16, 16), 300, 2),
    // One codeword.
    case((20, 12), 3, (4, 4), 1, 2),
    // Sides that are no multiple of the patch, or of anything.
    case((13, 7), 3, (4, 4), 77, 4),
    case((13, 7), 1, (4, 4), 77, 4),
    case((13, 7), 4, (4, 4), 77, 4),
    case((16, 9), 3, (4, 4), 100, 3),
    case((28, 10), 3, (8, 8), 100, 3),
    case((20, 20), 3, (16, 16), 100, 3),
    case((4, 100), 3, (4, 2), 1000, 3),
    case((101, 3), 4, (2, 4), 1000, 3),
    // Every patch width; heights another.
    case((48, 17), 3, (1, 16), 50, 2),
    case((48, 17), 3, (2, 15), 50, 2),
    case((48, 17), 3, (3, 14), 50, 2),
    case((48, 17), 3, (4, 13), 50, 2),
    case((48, 17), 3, (5, 12), 50, 2),
    case((48, 17), 3, (6, 11), 50, 2),
    case((48, 17), 3, (7, 10), 50, 2),
    case((48, 17), 3, (8, 9), 50, 2),
    case((48, 17), 3, (9, 8), 50, 2),
    case((48, 17), 3, (10, 7), 50, 2),
    case((48, 17), 3, (11, 6), 50, 2),
    case((48, 17), 3, (12, 5), 50, 2),
    case((48, 17), 3, (13, 4), 50, 2),
    case((48, 17), 3, (14, 3), 50, 2),
    case((48, 17), 3, (15, 2), 50, 2),
    case((48, 17), 3, (16, 1), 50, 2),
    // Grey and RGBA in the fast kernels.
    case((64, 24), 1, (1, 1), 256, 3),
    case((64, 24), 1, (2, 2), 256, 3),
    case((64, 24), 1, (4, 4), 256, 3),
    case((64, 24), 1, (16, 16), 256, 3),
    case((64, 24), 3, (1, 1), 1000, 3),
    case((64, 24), 4, (1, 1), 1000, 3),
    case((64, 24), 4, (2, 2), 1000, 3),
    case((64, 24), 4, (4, 4), 1000, 3),
    case((64, 24), 4, (12, 3), 1000, 3),
    // Patch rows as long as those of RGB patches of 4x4 and 2x2, of other pixels.
    case((48, 16), 4, (3, 4), 300, 3),
    case((48, 16), 1, (12, 4), 300, 3),
    case((48, 16), 1, (6, 2), 300, 3),
    // A codebook larger than the caches near a core.
    case((64, 31), 3, (2, 2), 140_000, 2),
    // Widths wider than needed: plain integers and packed ones.
    wide(8, (12, 10), (4, 4), 200),
    wide(16, (12, 10), (4, 4), 200),
    wide(32, (12, 10), (4, 4), 200),
    wide(9, (12, 10), (4, 4), 300),
    wide(11, (21, 10), (1, 1), 300),
    wide(13, (64, 31), (2, 2), 5000),
    wide(17, (64, 31), (2, 2), 70_000),
    wide(24, (40, 31), (2, 3), 100),
    wide(25, (40, 31), (2, 3), 100),
    wide(25, (64, 31), (1, 1), 100),
    // A row of more than 16 KiB whose last index ends within the first byte of a word.
    Case { image: (99, 67), channels: 1, patch: (1, 1), codewords: 1 << 11, bits: Some(25), samples: 2 },
];

impl Case {
    pub fn geometry(&self) -> Geometry {
        Geometry::new(self.image, self.channels, self.patch).expect("a valid case")
    }

    /// The archive, with random codewords and indices.
    pub fn archive(&self) -> Archive<Vec<u8>> {
        let mut random = Random::new(self.codewords as u64);
        let geometry = self.geometry();
        let codebook = (0..self.codewords * geometry.codeword_len()).map(|_| random.next() as u8).collect();
        let index_width = self.bits.map(|bits| IndexWidth::new(bits).expect("a valid width"));
        let mut spec = ArchiveSpec::with_coding(geometry, CodingSpec::Vq { codebook, index_width });
        spec.samples = self.samples;
        let rows = (0..self.samples).map(|_| random.indices(geometry.patches(), self.codewords)).collect::<Vec<_>>();
        archive(spec, &rows)
    }
}

/// An archive in memory.
pub fn archive(spec: ArchiveSpec, rows: &[Vec<u32>]) -> Archive<Vec<u8>> {
    Archive::new(archive_bytes(spec, rows)).expect("an archive that was just written opens")
}

pub fn archive_bytes(spec: ArchiveSpec, rows: &[Vec<u32>]) -> Vec<u8> {
    let mut writer = ArchiveWriter::new(Cursor::new(Vec::new()), spec).expect("a valid specification");
    for (i, row) in rows.iter().enumerate() {
        let caption = format!("caption {i}");
        let info =
            SampleInfo { label: Some(i as i64 % 3), caption: Some(&caption), psnr_db: Some(33.0 + i as f32 / 2.0) };
        writer.push(row, info).expect("a valid row");
    }
    writer.finish(Some(33.25)).expect("memory does not fail").into_inner()
}

/// Every way to ask for a batch of images with so many channels.
pub fn outputs(channels: usize) -> Vec<OutputSpec> {
    let (mean, std) = ([0.485, 0.456, 0.406, 0.5], [0.229, 0.224, 0.225, 0.25]);
    let normalization = Normalization::new(&mean[..channels], &std[..channels]).expect("valid constants");
    let mut specs = Vec::new();
    for layout in [Layout::Nhwc, Layout::Nchw] {
        specs.push(OutputSpec { dtype: Dtype::U8, layout, normalization: None });
        for dtype in [Dtype::F16, Dtype::F32] {
            specs.push(OutputSpec { dtype, layout, normalization: None });
            specs.push(OutputSpec { dtype, layout, normalization: Some(normalization) });
        }
    }
    specs
}

/// What the oracle makes of a batch that it decoded to interleaved bytes: it treats all outputs alike, and decodes slowly.
pub fn as_asked(bytes: &[u8], spec: &OutputSpec, geometry: &Geometry) -> Vec<u8> {
    let (size, channels, width) = (spec.dtype.size(), geometry.channels(), geometry.image_width());
    let mut batch = vec![0; bytes.len() * size];
    for (image, target) in bytes.chunks(geometry.image_len()).zip(batch.chunks_mut(geometry.image_len() * size)) {
        for (i, &byte) in image.iter().enumerate() {
            let (pixel, channel) = (i / channels, i % channels);
            let place = spec.layout.offset(geometry, pixel / width, pixel % width, channel) * size;
            let float = spec.value(byte, channel);
            match spec.dtype {
                Dtype::U8 => target[place] = byte,
                Dtype::F16 => target[place..][..2].copy_from_slice(&kuat::f16::from_f32(float).to_ne_bytes()),
                Dtype::F32 => target[place..][..4].copy_from_slice(&float.to_ne_bytes()),
            }
        }
    }
    batch
}

/// Compares a batch with the oracle's: bit for bit if `exact`, else as the library does, floats within its
/// tolerance. Names the first value that is wrong.
pub fn assert_same(what: &str, found: &[u8], expected: &[u8], spec: &OutputSpec, geometry: &Geometry, exact: bool) {
    let difference = match exact {
        true => found.iter().zip(expected).position(|(a, b)| a != b).map(|byte| byte / spec.dtype.size()),
        false => spec.first_difference(found, expected),
    };
    let Some(value) = difference else { return assert_eq!(found.len(), expected.len(), "{what}") };
    let [_, axis_1, axis_2, axis_3] = spec.layout.shape(geometry, 1);
    let (sample, rest) = (value / (axis_1 * axis_2 * axis_3), value % (axis_1 * axis_2 * axis_3));
    let place = [rest / (axis_2 * axis_3), rest / axis_3 % axis_2, rest % axis_3];
    let bytes = |batch: &[u8]| batch[value * spec.dtype.size()..][..spec.dtype.size()].to_vec();
    let (found, expected) = (bytes(found), bytes(expected));
    panic!("{what}, {spec}: sample {sample} at {place:?} is {found:?}, expected {expected:?}");
}

/// A small random number generator (SplitMix64, Steele, Lea and Flood 2014): the same numbers for ever.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn indices(&mut self, len: usize, codewords: usize) -> Vec<u32> {
        (0..len).map(|_| (self.next() % codewords as u64) as u32).collect()
    }
}

/// Runs a test on every adapter. None at all is a failure, unless `KUAT_TEST_WITHOUT_GPU` is set.
#[cfg(feature = "gpu")]
pub fn on_every_adapter(test: impl Fn(&kuat::gpu::Select)) {
    let found = kuat::gpu::adapters();
    if found.is_empty() {
        let allowed = std::env::var_os("KUAT_TEST_WITHOUT_GPU").is_some();
        assert!(allowed, "no GPU adapter: run `make setup` for a software one, or set KUAT_TEST_WITHOUT_GPU=1");
    }
    for adapter in found {
        eprintln!("on {adapter}");
        test(&kuat::gpu::Select::Named(adapter.to_string()));
    }
}
