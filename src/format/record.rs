//! The records of the codec "layers": where each block's indices are, in constant time.
//!
//! A record is groups of 32 blocks, those of luma and then those of chroma, and behind them all indices, bit-packed. A
//! group says which of its blocks has which mode, and so how many indices each has, and the number of its first index.

use super::books::{Books, Component, LayerBooks, MODES};
use crate::error::{Error, Result};
use crate::geometry::Geometry;

/// Blocks of a group.
pub const GROUP: usize = 32;
/// Bytes of a group: the number of its first index, and three bit planes of its blocks' modes.
pub const GROUP_LEN: usize = 16;
/// Most blocks of luma: positions of bits stay within 32 bits.
pub const MAX_BLOCKS: usize = 1 << 22;
/// Pixels of a side of a block of luma, and of one of chroma.
pub const BLOCK_SIDES: [usize; 2] = [8, 16];

/// The sizes that all records of an archive share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordShape {
    /// Blocks across and down of each component: luma, and chroma if there is any.
    pub grids: Vec<(usize, usize)>,
    /// Bits of an index.
    pub index_bits: u32,
    /// How many indices a block of each component has at least and at most.
    lens: Vec<(usize, usize)>,
}

impl RecordShape {
    /// # Errors
    /// [`Error::Layers`] if an image has too many blocks.
    pub fn new<T>(geometry: &Geometry, books: &Books<T>) -> Result<Self> {
        let components = books.components();
        let grid = |side| (geometry.image_width().div_ceil(side), geometry.image_height().div_ceil(side));
        let grids: Vec<_> = BLOCK_SIDES.into_iter().map(grid).take(components.len()).collect();
        let blocks = grids[0].0 * grids[0].1;
        if blocks > MAX_BLOCKS {
            let found = format!("{blocks} blocks of 8x8 pixels");
            return Err(Error::Layers { what: "image size", found, expected: format!("at most {MAX_BLOCKS}") });
        }
        let lens = components.iter().map(|component| {
            let lens = component.modes.iter().map(|mode| mode.indices());
            (lens.clone().min().unwrap_or_default(), lens.max().unwrap_or_default())
        });
        Ok(Self { lens: lens.collect(), grids, index_bits: books.index_bits })
    }

    /// Blocks of a component.
    pub fn blocks(&self, component: usize) -> usize {
        self.grids[component].0 * self.grids[component].1
    }

    /// Groups of a component.
    pub fn groups(&self, component: usize) -> usize {
        self.blocks(component).div_ceil(GROUP)
    }

    /// Groups of all components.
    pub fn all_groups(&self) -> usize {
        (0..self.grids.len()).map(|component| self.groups(component)).sum()
    }

    /// Bytes of a record of so many indices.
    pub fn record_len(&self, indices: usize) -> usize {
        self.all_groups() * GROUP_LEN + (indices * self.index_bits as usize).div_ceil(32) * 4
    }

    /// Bytes of the shortest and of the longest record.
    pub fn record_lens(&self) -> (usize, usize) {
        let count = |len: fn(&(usize, usize)) -> usize| -> usize {
            self.lens.iter().enumerate().map(|(component, lens)| self.blocks(component) * len(lens)).sum()
        };
        (self.record_len(count(|lens| lens.0)), self.record_len(count(|lens| lens.1)))
    }

    /// Checks that a record can be decoded: that it has all groups, and no more bytes than any record takes.
    pub fn fits(&self, record: &[u8]) -> bool {
        let longest = self.record_lens().1;
        (self.all_groups() * GROUP_LEN..=longest).contains(&record.len()) && record.len().is_multiple_of(4)
    }

    /// Writes a record: the modes of each component's blocks, and the indices of all blocks in the order of the blocks,
    /// luma first.
    pub fn pack<T>(&self, books: &Books<T>, modes: &[&[u8]], indices: &[u16], record: &mut Vec<u8>) {
        let mut first = 0;
        for (component, modes) in books.components().into_iter().zip(modes) {
            let lens = component.lens();
            for group in modes.chunks(GROUP) {
                let mut words = [first, 0, 0, 0];
                for (block, &mode) in group.iter().enumerate() {
                    (0..3).for_each(|plane| words[1 + plane] |= u32::from(mode >> plane & 1) << block);
                    first += lens[usize::from(mode)];
                }
                record.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            }
        }
        let (mut pending, mut filled) = (0u64, 0);
        for &index in indices {
            pending |= u64::from(index) << filled;
            filled += self.index_bits;
            if filled >= 32 {
                record.extend((pending as u32).to_le_bytes());
                pending >>= 32;
                filled -= 32;
            }
        }
        if filled > 0 {
            record.extend((pending as u32).to_le_bytes());
        }
    }
}

impl LayerBooks {
    /// The record of an image: for each component the mode of each of its blocks, row by row, and the indices of all
    /// blocks in the order of the blocks, luma first; of a block as [`Mode::books`](crate::Mode::books) tells.
    ///
    /// # Errors
    /// [`Error::Layers`] if there are too many or too few modes or indices, or some that do not exist;
    /// [`Error::Geometry`] unless the patches are blocks.
    pub fn record(&self, geometry: &Geometry, modes: &[&[u8]], indices: &[u16]) -> Result<Vec<u8>> {
        let wrong = |what, found: String, expected: String| Err(Error::Layers { what, found, expected });
        self.check()?;
        super::layers::check_block(geometry)?;
        let shape = RecordShape::new(geometry, self)?;
        let components = self.components();
        let blocks: Vec<usize> = (0..components.len()).map(|component| shape.blocks(component)).collect();
        let found: Vec<usize> = modes.iter().map(|modes| modes.len()).collect();
        if found != blocks {
            return wrong("blocks of each component", format!("{found:?}"), format!("{blocks:?}"));
        }
        for (component, modes) in components.iter().zip(modes) {
            if let Some(mode) = modes.iter().find(|&&mode| usize::from(mode) >= component.modes.len()) {
                return wrong("mode of a block", mode.to_string(), format!("below {}", component.modes.len()));
            }
        }
        let mut record = Vec::new();
        shape.pack(self, modes, indices, &mut record);
        match check(&shape, &self.counts(), &record, |&count| count) {
            None => Ok(record),
            Some(found) => wrong("indices", found, "those of codewords, as many as the modes take".into()),
        }
    }
}

/// A group of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    /// The number of the first index of its first block.
    pub first: u32,
    /// Bit `i` of plane `j` is bit `j` of the mode of block `i`.
    pub planes: [u32; 3],
}

impl Group {
    /// The mode of a block as it stands there.
    pub fn mode(&self, block: usize) -> usize {
        (0..3).map(|plane| (self.planes[plane] >> block & 1) as usize * (1 << plane)).sum()
    }

    /// The number of a block's first index, given how many indices a block of each mode has. Numbers that no true
    /// record has wrap around.
    pub fn index(&self, block: usize, lens: &[u32; MODES]) -> u32 {
        (0..block).fold(self.first, |index, before| index.wrapping_add(lens[self.mode(before)]))
    }
}

/// A record that [`RecordShape::fits`].
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    groups: &'a [u8],
    indices: &'a [u8],
    index_bits: usize,
    len: usize,
}

impl<'a> Record<'a> {
    pub fn new(shape: &RecordShape, record: &'a [u8]) -> Self {
        let (groups, indices) = record.split_at(shape.all_groups() * GROUP_LEN);
        let index_bits = shape.index_bits as usize;
        Self { groups, indices, index_bits, len: indices.len() * 8 / index_bits }
    }

    /// A group, counted through all components.
    #[inline]
    pub fn group(&self, group: usize) -> Group {
        let (words, _) = self.groups[group * GROUP_LEN..][..GROUP_LEN].as_chunks::<4>();
        let [first, planes @ ..] = [0, 1, 2, 3].map(|word| u32::from_le_bytes(words[word]));
        Group { first, planes }
    }

    /// Bits of an index.
    pub fn index_bits(&self) -> usize {
        self.index_bits
    }

    /// The indices as they are stored.
    pub fn packed(&self) -> &'a [u8] {
        self.indices
    }

    /// How many indices there is room for.
    pub fn len(&self) -> usize {
        self.len
    }

    /// An index; zero beyond the last that there is room for.
    pub fn index(&self, number: u32) -> usize {
        let number = number as usize;
        if number >= self.len() {
            return 0;
        }
        let bit = number * self.index_bits;
        let bytes = self.indices[bit / 8..].iter().take(3).rev();
        let bits = bytes.fold(0, |bits, &byte| bits << 8 | usize::from(byte));
        bits >> (bit % 8) & ((1 << self.index_bits) - 1)
    }
}

/// What is wrong with a record, for people.
pub(crate) fn check<T>(
    shape: &RecordShape,
    books: &Books<T>,
    record: &[u8],
    codewords: impl Fn(&T) -> usize,
) -> Option<String> {
    if !shape.fits(record) {
        let (shortest, longest) = shape.record_lens();
        return Some(format!("it has {} bytes, expected {shortest} to {longest} in whole words", record.len()));
    }
    let bytes = record.len();
    let record = Record::new(shape, record);
    let (mut first, mut next) = (0, 0u32);
    for (number, component) in books.components().into_iter().enumerate() {
        let lens = component.lens();
        for block in 0..shape.blocks(number) {
            let group = record.group(first + block / GROUP);
            if block % GROUP == 0 && group.first != next {
                return Some(format!(
                    "group {} begins at index {}, expected {next}",
                    first + block / GROUP,
                    group.first
                ));
            }
            let mode = group.mode(block % GROUP);
            let Some(stages) = component.modes.get(mode) else {
                return Some(format!("block {block} has mode {mode}, there are {}", component.modes.len()));
            };
            if next as usize + stages.indices() > record.len() {
                return Some(format!("the indices of block {block} lie beyond its end"));
            }
            for (index, book) in (next..).zip(stages.books()) {
                let (index, count) = (record.index(index), codewords(&component.books[book].codewords));
                if index >= count {
                    return Some(format!("block {block} has index {index}, codebook {book} has {count} codewords"));
                }
            }
            next += lens[mode];
        }
        let rest = shape.blocks(number) % GROUP;
        let last = record.group(first + shape.groups(number) - 1);
        if rest > 0 && last.planes.iter().any(|plane| plane >> rest != 0) {
            return Some("its last group names modes of blocks that do not exist".into());
        }
        first += shape.groups(number);
    }
    let expected = shape.record_len(next as usize);
    (bytes != expected).then(|| format!("it has {bytes} bytes, its blocks take {expected}"))
}

/// The component's number of indices for each mode: those that do not exist count as the last.
impl<T> Component<T> {
    pub(crate) fn lens(&self) -> [u32; MODES] {
        std::array::from_fn(|mode| self.mode(mode).indices() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::super::books::{Book, Cover, Mode};
    use super::*;

    fn books() -> Books<usize> {
        let book = |cover, codewords| Book { cover, codewords };
        let mode = |block: &[usize], quarter: &[usize]| Mode { block: block.to_vec(), quarter: quarter.to_vec() };
        let luma = Component {
            books: vec![book(Cover::Block, 4000), book(Cover::Block, 9), book(Cover::Quarter, 4096)],
            modes: vec![mode(&[0], &[]), mode(&[0, 1], &[]), mode(&[1], &[2, 2])],
        };
        let chroma = Component { books: vec![book(Cover::Block, 300)], modes: vec![mode(&[0], &[])] };
        Books { index_bits: 12, luma, chroma: Some(chroma) }
    }

    #[test]
    fn what_is_packed_is_found_again() {
        let (books, geometry) = (books(), Geometry::new((300, 21), 3, (8, 8)).expect("valid"));
        let shape = RecordShape::new(&geometry, &books).expect("valid");
        assert_eq!(shape.grids, [(38, 3), (19, 2)]);
        let modes: Vec<u8> = (0..114u32).map(|i| (i * i % 7 % 3) as u8).collect();
        let lens = [1, 2, 9];
        let (mut indices, mut starts) = (Vec::new(), Vec::new());
        for &mode in &modes {
            let start = indices.len();
            starts.push(start as u32);
            indices.extend((0..lens[usize::from(mode)]).map(|i| ((start + i) % 9) as u16));
        }
        let colour_from = indices.len() as u32;
        indices.extend((0..38).map(|i| 299 - i as u16));
        let mut bytes = Vec::new();
        shape.pack(&books, &[&modes, &[0; 38]], &indices, &mut bytes);
        assert_eq!(bytes.len(), shape.record_len(indices.len()));
        assert_eq!(check(&shape, &books, &bytes, |&count| count), None);

        let record = Record::new(&shape, &bytes);
        for (block, (&mode, &start)) in modes.iter().zip(&starts).enumerate() {
            let group = record.group(block / GROUP);
            assert_eq!(group.mode(block % GROUP), usize::from(mode));
            assert_eq!(group.index(block % GROUP, &books.luma.lens()), start);
        }
        assert_eq!(record.group(4).first, colour_from);
        assert!(indices.iter().zip(0..).all(|(&index, number)| record.index(number) == usize::from(index)));
        assert_eq!(record.index(u32::MAX), 0);
    }
}
