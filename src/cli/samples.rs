//! Lists of samples as users write them: `0,5,10-20`, or `all`.

use std::str::FromStr;

use crate::error::{Error, Result};

/// Which samples to work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Samples {
    All,
    /// Inclusive ranges in the order written.
    Listed(Vec<(usize, usize)>),
}

impl FromStr for Samples {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "all" {
            return Ok(Samples::All);
        }
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (range.0 <= range.1).then_some(range)
        };
        let ranges: Option<_> = text.split(',').map(range).collect();
        ranges.map(Samples::Listed).ok_or_else(|| Error::Argument {
            argument: "samples",
            found: format!("{text:?}"),
            expected: "`all`, or numbers and ascending ranges such as 0,5,10-20".into(),
        })
    }
}

impl Samples {
    /// The sample numbers, checked against the archive's number of samples.
    pub fn numbers(&self, samples: usize) -> Result<Vec<usize>> {
        let all = [(0, samples.saturating_sub(1))];
        let ranges = match self {
            Samples::All if samples == 0 => &[],
            Samples::All => &all[..],
            Samples::Listed(ranges) => ranges,
        };
        if let Some(&(_, sample)) = ranges.iter().find(|(_, last)| *last >= samples) {
            return Err(Error::Sample { sample, samples });
        }
        let count = ranges.iter().fold(0, |count: usize, (first, last)| count.saturating_add(last - first + 1));
        let mut numbers = Vec::new();
        let too_many = |_| Error::OutOfMemory { bytes: count.saturating_mul(size_of::<usize>()) };
        numbers.try_reserve_exact(count).map_err(too_many)?;
        numbers.extend(ranges.iter().flat_map(|&(first, last)| first..=last));
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_their_order_and_repetitions() {
        let samples: Samples = "5,0-2,5".parse().expect("valid");
        assert_eq!(samples.numbers(6).expect("in range"), [5, 0, 1, 2, 5]);
        assert_eq!("all".parse::<Samples>().expect("valid").numbers(3).expect("in range"), [0, 1, 2]);
    }

    #[test]
    fn what_is_no_list_or_out_of_range_is_refused() {
        for text in ["", "1,", "2-1", "a", "-1", "1-2-3", "ALL"] {
            assert!(text.parse::<Samples>().is_err(), "{text:?}");
        }
        let huge: Samples = "0-18446744073709551615".parse().expect("valid");
        assert!(matches!(huge.numbers(10), Err(Error::Sample { samples: 10, .. })));
    }
}
