//! Which codebooks a component gets, and the modes made of them.

use crate::format::books::{Cover, LUMA, Mode};

/// With fewer blocks of luma than this, modes share their codebooks.
const FEW: usize = 40_000;
/// A codeword stands for at least so many vectors.
const PER_CODEWORD: usize = 8;
/// Most codewords of a codebook of colour: half as many as of luma, because they are the longest.
const COLOUR_CODEWORDS: usize = 1 << 11;

/// The layout of a component's codebooks.
pub(super) struct Plan {
    /// Stages whose codewords cover a block, and a quarter of it, in a chain of codebooks: a mode ends after each. Blocks are
    /// sorted into modes by it.
    pub chain: (usize, usize),
    /// Whether the modes then get codebooks of their own: what is left of a block of little detail is not like what is
    /// left of one of much.
    pub own: bool,
    /// Most codewords of a codebook for blocks, and of one for quarters.
    pub codewords: [usize; 2],
}

impl Plan {
    /// The layout for so many blocks to train on.
    pub fn new(component: usize, blocks: usize, index_bits: u32) -> Self {
        let luma = component == LUMA;
        let most = if luma { 1 << index_bits } else { COLOUR_CODEWORDS.min(1 << index_bits) };
        let codewords = [1, 4].map(|parts| (blocks * parts / PER_CODEWORD).clamp(1, most));
        Self { chain: if luma { (2, 5) } else { (2, 3) }, own: luma && blocks >= FEW, codewords }
    }

    /// The codebooks of the chain, by what they cover, and its modes.
    pub fn shared(&self) -> (Vec<Cover>, Vec<Mode>) {
        let (blocks, quarters) = self.chain;
        let mut covers = vec![Cover::Block; blocks];
        covers.resize(blocks + quarters, Cover::Quarter);
        let mode = |stages: usize| Mode {
            block: (0..stages.min(blocks)).collect(),
            quarter: (blocks..stages.max(blocks)).collect(),
        };
        (covers, (1..=blocks + quarters).map(mode).collect())
    }

    /// The codebooks and modes in the end: as many modes as the chain has.
    pub fn layout(&self) -> (Vec<Cover>, Vec<Mode>) {
        if !self.own {
            return self.shared();
        }
        let (blocks, quarters) = self.chain;
        // The chain's for blocks, another one for all modes with quarters, and for each of those its own.
        let mut covers = vec![Cover::Block; blocks + 1];
        let mut modes: Vec<Mode> =
            (1..=blocks).map(|stages| Mode { block: (0..stages).collect(), quarter: vec![] }).collect();
        for stages in 1..=quarters {
            modes.push(Mode { block: vec![blocks], quarter: (covers.len()..covers.len() + stages).collect() });
            covers.resize(covers.len() + stages, Cover::Quarter);
        }
        (covers, modes)
    }
}
