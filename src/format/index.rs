//! Index rows: how the indices of one sample are stored.

use crate::error::{Error, Result};

/// Bits of an index: 1 to 25, or 32.
///
/// Widths 8, 16 and 32 are stored as integers of that size; any other width is bit-packed into little-endian
/// 32-bit words, least significant bit first, each row padded to a whole word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IndexWidth(u8);

impl IndexWidth {
    /// # Errors
    /// [`Error::IndexWidth`] unless `bits` is 1 to 25 or 32.
    pub fn new(bits: u64) -> Result<Self> {
        match bits {
            1..=25 | 32 => Ok(Self(bits as u8)),
            _ => Err(Error::IndexWidth { bits }),
        }
    }

    /// The narrowest width that can name every one of `codewords` (1 to 2^25) codewords.
    pub fn narrowest(codewords: usize) -> Result<Self> {
        let last = codewords.saturating_sub(1) as u64;
        Self::new(u64::from(64 - last.leading_zeros()).max(1))
    }

    /// The width in bits.
    pub fn bits(self) -> usize {
        self.0.into()
    }

    /// Whether rows are bit-packed into 32-bit words rather than stored as plain integers.
    pub fn is_packed(self) -> bool {
        !matches!(self.0, 8 | 16 | 32)
    }

    /// Bytes of a stored row of `patches` indices.
    pub fn row_len(self, patches: usize) -> usize {
        match self.is_packed() {
            true => (patches * self.bits()).div_ceil(32) * 4,
            false => patches * self.bits() / 8,
        }
    }

    /// Appends the stored form of a row. Indices must fit in the width; higher bits are dropped.
    pub fn pack(self, indices: &[u32], row: &mut Vec<u8>) {
        match self.0 {
            8 => row.extend(indices.iter().map(|&i| i as u8)),
            16 => row.extend(indices.iter().flat_map(|&i| (i as u16).to_le_bytes())),
            32 => row.extend(indices.iter().flat_map(|&i| i.to_le_bytes())),
            bits => {
                let mask = (1u64 << bits) - 1;
                let (mut pending, mut filled) = (0u64, 0);
                for &index in indices {
                    pending |= (u64::from(index) & mask) << filled;
                    filled += u32::from(bits);
                    if filled >= 32 {
                        row.extend((pending as u32).to_le_bytes());
                        pending >>= 32;
                        filled -= 32;
                    }
                }
                if filled > 0 {
                    row.extend((pending as u32).to_le_bytes());
                }
            }
        }
    }

    /// Reads `indices.len()` indices of a stored row, from patch `first` on.
    ///
    /// # Panics
    /// If the row does not hold that many (see [`Self::row_len`]).
    pub fn unpack(self, row: &[u8], first: usize, indices: &mut [u32]) {
        let range = first..first + indices.len();
        match self.0 {
            8 => indices.iter_mut().zip(&row[range]).for_each(|(index, &byte)| *index = byte.into()),
            16 => {
                let (words, _) = row.as_chunks::<2>();
                indices.iter_mut().zip(&words[range]).for_each(|(i, &w)| *i = u16::from_le_bytes(w).into());
            }
            32 => {
                let (words, _) = row.as_chunks::<4>();
                indices.iter_mut().zip(&words[range]).for_each(|(i, &w)| *i = u32::from_le_bytes(w));
            }
            _ => {
                let (words, _) = row.as_chunks::<4>();
                let word = |i: usize| words.get(i).map_or(0, |&w| u64::from(u32::from_le_bytes(w)));
                assert!(range.end * self.bits() <= words.len() * 32, "row too short for {} indices", range.end);
                let mask = (1u64 << self.0) - 1;
                for (index, patch) in indices.iter_mut().zip(range) {
                    let bit = patch * self.bits();
                    let pair = word(bit / 32) | word(bit / 32 + 1) << 32;
                    *index = (pair >> (bit % 32) & mask) as u32;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_width_holds_every_index_and_no_narrower_one_does() {
        for (codewords, bits) in [(1, 1), (2, 1), (3, 2), (256, 8), (257, 9), (65_536, 16), (65_537, 17), (1 << 25, 25)]
        {
            assert_eq!(IndexWidth::narrowest(codewords).expect("valid").bits(), bits, "{codewords} codewords");
        }
    }

    #[test]
    fn packed_rows_start_at_the_least_significant_bit() {
        // 3-bit indices 1, 2, 7, ... laid out by hand: 001 | 010 << 3 | 111 << 6 = 0b111_010_001.
        let mut row = Vec::new();
        IndexWidth::new(3).expect("valid").pack(&[1, 2, 7], &mut row);
        assert_eq!(row, [0b1101_0001, 0b1, 0, 0]);
    }

    #[test]
    fn unpack_reverses_pack_from_any_patch_at_every_width() {
        for bits in (1..=25).chain([32]) {
            let width = IndexWidth::new(bits).expect("valid");
            let mask = if bits == 32 { u32::MAX } else { (1 << bits) - 1 };
            let indices: Vec<u32> = (0..77u32).map(|i| i.wrapping_mul(2_654_435_761).rotate_left(i) & mask).collect();
            let mut row = Vec::new();
            width.pack(&indices, &mut row);
            assert_eq!(row.len(), width.row_len(indices.len()), "{bits} bits");
            for first in [0, 1, 31, 76, 77] {
                let mut found = vec![0; indices.len() - first];
                width.unpack(&row, first, &mut found);
                assert_eq!(found, indices[first..], "{bits} bits from patch {first}");
            }
        }
    }

    #[test]
    fn widths_between_25_and_32_and_beyond_are_refused() {
        for bits in [0, 26, 31, 33, 64, u64::MAX] {
            assert!(IndexWidth::new(bits).is_err(), "{bits}");
        }
    }
}
