//! How the values of blocks are arranged for training.

use crate::format::books::{CHROMA, Cover, LUMA, codeword_len};

/// What a squared error of Y, Cb and Cr counts in R, G and B, in thousandths.
const WEIGHTS: [u64; 3] = [3000, 3258, 2475];
/// Greatest value of a target.
const MAX_TARGET: i16 = 1023;
/// The ways to turn and mirror a block.
pub(super) const TURNS: usize = 8;

/// The arrangement of a component's blocks: one quarter after another, so that each is a vector of its own. The codewords
/// that cover a block are in the same order for luma, and in their final one for chroma.
pub(super) struct Form {
    component: usize,
    /// Values of a block.
    pub block_len: usize,
    /// For each way to turn and mirror a block: which of its values comes at a place.
    turns: [Vec<u16>; TURNS],
    /// Which value of a codeword that covers the block stands for the value at a place.
    places: Vec<u16>,
}

impl Form {
    pub fn new(component: usize) -> Self {
        let (side, planes) = if component == LUMA { (8, 1) } else { (16, 2) };
        let half = side / 2;
        // The plane, row and column of what comes at a place.
        let at = |place: usize| {
            let (quarter, rest) = (place / (planes * half * half), place % (planes * half * half));
            let (plane, rest) = (rest / (half * half), rest % (half * half));
            (plane, quarter / 2 * half + rest / half, quarter % 2 * half + rest % half)
        };
        let block_len = planes * side * side;
        let turn = |turn: usize| {
            let value = |place: usize| {
                let (plane, row, column) = at(place);
                let column = if turn & 1 == 0 { column } else { side - 1 - column };
                let row = if turn & 2 == 0 { row } else { side - 1 - row };
                let (row, column) = if turn & 4 == 0 { (row, column) } else { (column, row) };
                (plane * side * side + row * side + column) as u16
            };
            (0..block_len).map(value).collect()
        };
        let places = (0..block_len).map(|place| match at(place) {
            _ if component == LUMA => place as u16,
            (plane, row, column) => (plane * 64 + row / 2 * 8 + column / 2) as u16,
        });
        Self { component, block_len, turns: std::array::from_fn(turn), places: places.collect() }
    }

    /// Values of a codeword.
    pub fn codeword_len(&self, cover: Cover) -> usize {
        codeword_len(self.component, cover)
    }

    /// Arranges a block, turned.
    pub fn turn(&self, block: &[i16], turn: usize, to: &mut [i16]) {
        to.iter_mut().zip(&self.turns[turn]).for_each(|(to, &place)| *to = block[usize::from(place)]);
    }

    /// The final order of a codebook's values.
    pub fn restore(&self, cover: Cover, codewords: &[i8]) -> Vec<i8> {
        if self.component == CHROMA || cover == Cover::Quarter {
            return codewords.to_vec();
        }
        let mut restored = vec![0; codewords.len()];
        for (from, to) in codewords.chunks_exact(64).zip(restored.chunks_exact_mut(64)) {
            from.iter().zip(&self.turns[0]).for_each(|(&value, &place)| to[usize::from(place)] = value);
        }
        restored
    }

    /// The vectors that codewords of this cover should be near, of blocks one after another.
    pub fn targets(&self, cover: Cover, residuals: &[i16], targets: &mut Vec<i16>) {
        targets.clear();
        if self.component == LUMA || cover == Cover::Quarter {
            targets.extend(residuals.iter().map(|value| (*value).clamp(-MAX_TARGET, MAX_TARGET)));
            return;
        }
        // A value stands for four pixels: their mean.
        for residual in residuals.chunks_exact(self.block_len) {
            let mut sums = [0; 128];
            residual.iter().zip(&self.places).for_each(|(&value, &place)| sums[usize::from(place)] += value);
            targets.extend(sums.map(|sum| ((sum + 2) >> 2).clamp(-MAX_TARGET, MAX_TARGET)));
        }
    }

    /// Takes codewords from what is left of a block: one that covers it, or one for each quarter.
    pub fn subtract<T: Copy + Into<i16>>(&self, cover: Cover, residual: &mut [i16], part: usize, codeword: &[T]) {
        match cover {
            Cover::Block => {
                residual.iter_mut().zip(&self.places).for_each(|(v, &place)| *v -= codeword[usize::from(place)].into());
            }
            Cover::Quarter => {
                let quarter = &mut residual[part * codeword.len()..][..codeword.len()];
                quarter.iter_mut().zip(codeword).for_each(|(v, &c)| *v -= c.into());
            }
        }
    }

    /// The squared error of what is left of a block, in thousandths.
    pub fn error(&self, residual: &[i16]) -> u64 {
        let squares =
            |values: &[i16]| values.iter().map(|&value| (i32::from(value) * i32::from(value)) as u64).sum::<u64>();
        if self.component == LUMA {
            return WEIGHTS[0] * squares(residual);
        }
        residual.chunks_exact(64).zip([1, 2].into_iter().cycle()).map(|(plane, of)| WEIGHTS[of] * squares(plane)).sum()
    }
}
