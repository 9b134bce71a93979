//! Archives with a valid header and arbitrary tensors.

use kuat::{Geometry, IndexWidth};
use serde_json::{Map, Value, json};

use crate::container::{Tensor, file};
use crate::input::Input;

/// Most bytes of a codebook.
const CODEBOOK: usize = 1 << 15;

/// An archive, and rows for its decoders: those that it holds and others.
pub fn arbitrary(input: &mut Input) -> (Vec<u8>, Vec<Vec<u8>>) {
    if input.flag() { layers(input) } else { vq(input) }
}

/// Sizes of images: most of them small, some larger than what is worked on at a time.
pub fn geometry(input: &mut Input, patch: (u32, u32), channels: &[u32]) -> Geometry {
    let mut side = || match input.number(0..=7) {
        0 => 16 * input.number(1..=8),
        1 => 64 * input.number(1..=5),
        2 => input.number(1..=700),
        _ => input.number(1..=48),
    };
    let (width, height) = (side(), side());
    // A large image only one way.
    let height = if width * height > 5000 { height % 16 + 1 } else { height };
    let channels = input.pick(channels);
    Geometry::new((width as u32, height as u32), channels, patch).expect("valid sizes")
}

/// Metadata that every archive has.
fn metadata(codec: &str, geometry: &Geometry, samples: usize, index_bits: usize) -> Map<String, Value> {
    let numbers = [
        ("image_width", geometry.image_width()),
        ("image_height", geometry.image_height()),
        ("channels", geometry.channels()),
        ("patch_width", geometry.patch_width()),
        ("patch_height", geometry.patch_height()),
        ("samples", samples),
        ("index_bits", index_bits),
    ];
    let names = [("format", "qvq"), ("version", "1"), ("codec", codec)].map(|(key, value)| (key, value.to_string()));
    let all = names.into_iter().chain(numbers.map(|(key, value)| (key, value.to_string())));
    all.map(|(key, value)| (key.to_string(), value.into())).collect()
}

/// One codebook, and indices of any width that may or may not be codewords'.
fn vq(input: &mut Input) -> (Vec<u8>, Vec<Vec<u8>>) {
    let patch = match input.number(0..=3) {
        0 => (2, 2),
        1 => (4, 4),
        _ => (input.number(1..=16) as u32, input.number(1..=16) as u32),
    };
    let geometry = geometry(input, patch, &[3, 1, 4]);
    let bits = if input.flag() { input.pick(&[8, 16, 32]) } else { input.number(1..=25) };
    let width = IndexWidth::new(bits as u64).expect("a valid width");
    let most = CODEBOOK / geometry.codeword_len();
    let codewords = match input.number(0..=2) {
        0 => input.number(1..=4),
        1 => input.number(1..=300),
        _ => most.min(4096),
    };
    let codebook = input.fill(codewords.min(most) * geometry.codeword_len());
    let codewords = codebook.len() / geometry.codeword_len();
    let samples = input.number(1..=3);
    let row_len = width.row_len(geometry.patches());
    let rows: Vec<Vec<u8>> = (0..samples).map(|_| row(input, width, geometry.patches(), codewords)).collect();

    let grid = [samples, geometry.grid_height(), geometry.grid_width()];
    let (dtype, shape) = match bits {
        8 => ("U8", &grid[..]),
        16 => ("U16", &grid[..]),
        32 => ("U32", &grid[..]),
        _ => ("U32", &[samples, row_len / 4][..]),
    };
    let tensors = [
        Tensor::new("indices", dtype, shape, rows.concat()),
        Tensor::new(
            "codebook",
            "U8",
            &[codewords, geometry.patch_height(), geometry.patch_width(), geometry.channels()],
            codebook,
        ),
    ];
    (file(metadata("vq", &geometry, samples, bits), &tensors), rows)
}

/// A row of indices: codewords' alone, or any bytes.
fn row(input: &mut Input, width: IndexWidth, patches: usize, codewords: usize) -> Vec<u8> {
    if input.flag() {
        return input.fill(width.row_len(patches));
    }
    let bytes = input.fill(patches * 2);
    let indices: Vec<u32> =
        bytes.as_chunks().0.iter().map(|&two| u32::from(u16::from_le_bytes(two)) % codewords as u32).collect();
    let mut row = Vec::new();
    width.pack(&indices, &mut row);
    row
}

/// The names and sizes of the codebooks of layers, and how many bytes a codeword of each has.
const BOOKS: [[(&str, &[usize], usize); 2]; 2] =
    [[("luma8", &[8, 8], 64), ("luma4", &[4, 4], 16)], [("chroma16", &[2, 8, 8], 128), ("chroma8", &[2, 8, 8], 128)]];

/// Any modes and codebooks, and records of bytes that may or may not mean something.
fn layers(input: &mut Input) -> (Vec<u8>, Vec<Vec<u8>>) {
    let geometry = geometry(input, (8, 8), &[3, 1]);
    let bits = input.number(1..=16);
    let mut tensors = Vec::new();
    let mut modes = Vec::new();
    let (mut groups, mut most) = (0, 0);
    let sides = [8, 16].into_iter().take(if geometry.channels() == 3 { 2 } else { 1 });
    for (side, covers) in sides.zip(BOOKS) {
        let counts = [input.number(1..=3), input.number(1..=3)];
        for ((name, shape, len), count) in covers.into_iter().zip(counts) {
            for number in 0..count {
                let codewords = input.number(1..=300).min(1 << bits);
                let shape = [&[codewords], shape].concat();
                tensors.push(Tensor::new(format!("{name}.{number}"), "I8", &shape, input.fill(codewords * len)));
            }
        }
        let mut indices = 0;
        let of: Vec<Vec<String>> = (0..input.number(1..=8))
            .map(|_| {
                let stages = [input.number(0..=3), input.number(0..=7)];
                let stages = if stages == [0, 0] { [1, 0] } else { stages };
                indices = indices.max(stages[0] + 4 * stages[1]);
                let mut names = Vec::new();
                for (((name, ..), count), stages) in covers.into_iter().zip(counts).zip(stages) {
                    names.extend((0..stages).map(|_| format!("{name}.{}", input.number(0..=count - 1))));
                }
                names
            })
            .collect();
        modes.push(json!(of).to_string());
        let blocks = geometry.image_width().div_ceil(side) * geometry.image_height().div_ceil(side);
        groups += blocks.div_ceil(32);
        most += blocks * indices;
    }
    // Not all of them need be named by a mode: the others are tensors that readers pass over.
    let longest = (most * bits).div_ceil(32);
    let samples = input.number(1..=3);
    let rows: Vec<Vec<u8>> = (0..samples)
        .map(|_| {
            let words = if input.flag() { longest } else { input.number(0..=longest.min(65_535)) };
            let mut record = input.fill(16 * groups + 4 * words);
            if input.flag() {
                // Most groups begin at a number that is not far out.
                record.chunks_mut(16).take(groups).for_each(|group| group[2..4].fill(0));
            }
            record
        })
        .collect();
    let mut offsets = vec![0u64];
    offsets.extend(rows.iter().scan(0, |end, row| {
        *end += row.len() as u64 / 4;
        Some(*end)
    }));
    let records = rows.concat();
    tensors.insert(0, Tensor::new("records", "U32", &[records.len() / 4], records));
    let offsets = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
    tensors.insert(0, Tensor::new("records.offsets", "U64", &[samples + 1], offsets));
    let mut metadata = metadata("layers", &geometry, samples, bits);
    metadata
        .extend(["luma_modes", "chroma_modes"].map(String::from).into_iter().zip(modes.into_iter().map(Value::from)));
    (file(metadata, &tensors), rows)
}
