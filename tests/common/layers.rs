//! Layered archives made of random codebooks and records, true and hostile ones.

use std::io::Cursor;

use kuat::SampleInfo;
use kuat::{
    Archive, ArchiveSpec, ArchiveWriter, Book, Books, CodingSpec, Component, Cover, Geometry, LayerBooks, Mode,
};

use super::Random;

/// One layered archive of the table.
#[derive(Debug, Clone, Copy)]
pub struct LayersCase {
    pub image: (u32, u32),
    pub channels: u32,
    pub index_bits: u32,
    /// The most codewords of a codebook.
    pub codewords: usize,
    pub samples: usize,
}

const fn case(image: (u32, u32), channels: u32, index_bits: u32, codewords: usize, samples: usize) -> LayersCase {
    LayersCase { image, channels, index_bits, codewords, samples }
}

/// What has to work: sides that are no multiple of anything, more blocks than a group holds, every width of indices.
pub const LAYERS_CASES: &[LayersCase] = &[
    case((224, 224), 3, 12, 4096, 4),
    case((32, 32), 3, 12, 300, 7),
    case((1, 1), 3, 12, 4096, 2),
    case((1, 1), 1, 1, 2, 2),
    case((8, 8), 3, 8, 256, 3),
    case((9, 17), 3, 12, 1000, 3),
    case((7, 5), 3, 12, 1000, 3),
    case((225, 31), 3, 12, 4000, 2),
    case((300, 20), 3, 11, 2048, 2),
    case((100, 60), 1, 12, 4096, 3),
    case((101, 3), 1, 9, 400, 3),
    case((64, 48), 3, 16, 20_000, 2),
    case((64, 48), 3, 7, 100, 2),
    case((64, 48), 3, 3, 8, 2),
    case((64, 48), 3, 1, 1, 2),
    case((4, 600), 3, 13, 5000, 2),
    case((600, 4), 3, 10, 777, 2),
];

impl LayersCase {
    pub fn geometry(&self) -> Geometry {
        Geometry::new(self.image, self.channels, (8, 8)).expect("a valid case")
    }

    /// The archive, of random codebooks and records.
    pub fn archive(&self) -> Archive<Vec<u8>> {
        let mut random = Random::new(u64::from(self.index_bits) + u64::from(self.image.0));
        let books = books(&mut random, self.channels == 3, self.index_bits, self.codewords);
        let records: Vec<_> = (0..self.samples).map(|_| record(&mut random, &books, &self.geometry())).collect();
        layered(self.geometry(), books, &records)
    }
}

/// Codebooks of random codewords, most of them small values, with as many modes as there can be.
pub fn books(random: &mut Random, colour: bool, index_bits: u32, most: usize) -> LayerBooks {
    let mut component = |lens: [usize; 2], modes: Vec<Mode>| {
        let mut book = |cover: Cover, spread: i32| {
            let count = most - random.next() as usize % most.min(3);
            let len = lens[cover as usize];
            let value = |random: &mut Random| (random.next() as i32 % (2 * spread + 1) - spread) as i8;
            Book { cover, codewords: (0..count * len).map(|_| value(random)).collect() }
        };
        let books = vec![
            book(Cover::Block, 120),
            book(Cover::Block, 127),
            book(Cover::Block, 30),
            book(Cover::Quarter, 60),
            book(Cover::Quarter, 20),
            book(Cover::Quarter, 127),
        ];
        Component { books, modes }
    };
    let mode = |block: &[usize], quarter: &[usize]| Mode { block: block.to_vec(), quarter: quarter.to_vec() };
    let modes = vec![
        mode(&[0], &[]),
        mode(&[0, 2], &[]),
        mode(&[1], &[3]),
        mode(&[1, 2], &[4, 3]),
        mode(&[], &[3, 4, 5]),
        mode(&[0, 1, 2], &[3, 3, 4, 4]),
        mode(&[1], &[5]),
        mode(&[1, 2, 2], &[3, 4, 5, 3, 4, 5, 4]),
    ];
    // Fewer modes of colour: the numbers behind them are hostile ones.
    let luma = component([64, 16], modes.clone());
    let chroma = colour.then(|| component([128, 128], modes[..6].to_vec()));
    Books { index_bits, luma, chroma }
}

/// A record of random modes and indices.
pub fn record(random: &mut Random, books: &LayerBooks, geometry: &Geometry) -> Vec<u8> {
    let (mut modes, mut indices) = (Vec::new(), Vec::new());
    let sides = [(8, 64, 16), (16, 128, 128)];
    for (component, (side, whole, quarter)) in
        [Some(&books.luma), books.chroma.as_ref()].into_iter().flatten().zip(sides)
    {
        let blocks = geometry.image_width().div_ceil(side) * geometry.image_height().div_ceil(side);
        let of: Vec<u8> = (0..blocks).map(|_| (random.next() as usize % component.modes.len()) as u8).collect();
        for &mode in &of {
            for book in component.modes[usize::from(mode)].books() {
                let Book { cover, codewords } = &component.books[book];
                let len = if *cover == Cover::Block { whole } else { quarter };
                indices.push((random.next() as usize % (codewords.len() / len)) as u16);
            }
        }
        modes.push(of);
    }
    let modes: Vec<&[u8]> = modes.iter().map(Vec::as_slice).collect();
    books.record(geometry, &modes, &indices).expect("a valid record")
}

/// A record of random bytes, of a length that decoders accept.
pub fn hostile(random: &mut Random, books: &LayerBooks, geometry: &Geometry) -> Vec<u8> {
    let (mut groups, mut most) = (0, 0);
    for (component, side) in [Some(&books.luma), books.chroma.as_ref()].into_iter().flatten().zip([8, 16]) {
        let blocks = geometry.image_width().div_ceil(side) * geometry.image_height().div_ceil(side);
        groups += blocks.div_ceil(32);
        most += blocks * component.modes.iter().map(Mode::indices).max().expect("a mode");
    }
    let words = (most * books.index_bits as usize).div_ceil(32);
    let mut record: Vec<u8> = (0..16 * groups).map(|_| random.next() as u8).collect();
    // Most groups begin at a number that is not far out.
    for group in record.chunks_mut(16).filter(|group| group[0] % 4 > 0) {
        group[2..4].fill(0);
        group[1] &= (most >> 8) as u8;
    }
    let words = random.next() as usize % (words + 1);
    record.extend((0..4 * words).map(|_| random.next() as u8));
    record
}

/// A layered archive in memory.
pub fn layered(geometry: Geometry, books: LayerBooks, records: &[Vec<u8>]) -> Archive<Vec<u8>> {
    let mut spec = ArchiveSpec::with_coding(geometry, CodingSpec::Layers(books));
    spec.samples = records.len();
    let mut writer = ArchiveWriter::new(Cursor::new(Vec::new()), spec).expect("a valid specification");
    for record in records {
        writer.push_record(record, SampleInfo::default()).expect("a valid record");
    }
    let file = writer.finish(None).expect("memory does not fail").into_inner();
    Archive::new(file).expect("an archive that was just written opens")
}
