//! Bytes of a fuzzer's as numbers and choices. What is beyond their end is zero.

use std::ops::RangeInclusive;

/// The rest of an input.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn byte(&mut self) -> u8 {
        self.bytes::<1>()[0]
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.up_to(N);
        std::array::from_fn(|i| taken.get(i).copied().unwrap_or(0))
    }

    /// So many bytes, or what is left.
    pub fn up_to(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number of a range of at most 65,536.
    pub fn number(&mut self, range: RangeInclusive<usize>) -> usize {
        let (start, span) = (*range.start(), range.end() - range.start() + 1);
        start + if span <= 256 { usize::from(self.byte()) } else { u16::from_le_bytes(self.bytes()).into() } % span
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.number(0..=choices.len() - 1)]
    }

    /// As many bytes as asked for: zeros, ones, those that come next and then zeros, or ones that only look random.
    pub fn fill(&mut self, len: usize) -> Vec<u8> {
        match self.number(0..=3) {
            0 => vec![0; len],
            1 => vec![0xff; len],
            2 => {
                let mut bytes = self.up_to(len).to_vec();
                bytes.resize(len, 0);
                bytes
            }
            _ => {
                let mut random = Random::new(u32::from_le_bytes(self.bytes()).into());
                (0..len).map(|_| random.next() as u8).collect()
            }
        }
    }
}

/// A small random number generator (SplitMix64, Steele, Lea and Flood 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below another.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Whether something happens that does so one time of so many.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}
