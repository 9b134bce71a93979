//! How many bytes an image's quality may take.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// How good images become, or how large, with the codec "layers".
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// 1 to 100: the same trade of quality for bytes in every block of every image, a bit for a squared error that halves
    /// with each 8 more. 75 comes near to JPEG's 75 in PSNR.
    Quality(u8),
    /// At least this PSNR in dB in every image, in as few bytes as that takes, as far as the codebooks reach.
    Psnr(f64),
    /// So many bytes of a record in the mean, within 2 %: the same trade in every block of every image, found by a sample.
    MeanBytes(u64),
    /// So many bytes of the archive, within 2 %, likewise.
    Bytes(u64),
}

impl Default for Rate {
    fn default() -> Self {
        Rate::Quality(75)
    }
}

impl Rate {
    /// # Errors
    /// [`Error::Argument`] for numbers out of range.
    pub fn check(self) -> Result<()> {
        let wrong = |argument, found: String, expected: &str| {
            Err(Error::Argument { argument, found, expected: expected.into() })
        };
        match self {
            Rate::Quality(quality) if !(1..=100).contains(&quality) => {
                wrong("quality", quality.to_string(), "1 to 100")
            }
            Rate::Psnr(db) if !(0.0..100.0).contains(&db) => wrong("PSNR", db.to_string(), "0 to less than 100 dB"),
            Rate::MeanBytes(0) | Rate::Bytes(0) => wrong("number of bytes", "0".into(), "at least 1"),
            _ => Ok(()),
        }
    }

    /// The slope, or a guess to begin with, for images of so many pixels: what photographs needed.
    pub(super) fn slope(self, pixels: f64, samples: f64) -> Slope {
        // What a bit is worth is near the squared error of 1.1 pixels that are as far off as all are; and a bit more per
        // pixel brought 4.6 dB around 35 dB.
        let at_psnr = |db: f64| Slope::near(1.1 * 3.0 * 255.0 * 255.0 * libm::exp10(-db / 10.0));
        let at_bytes = |bytes: f64| at_psnr(26.5 + 4.6 * (8.0 * bytes / pixels).min(6.0));
        match self {
            Rate::Quality(quality) => Slope::of_quality(quality),
            Rate::Psnr(db) => at_psnr(db),
            Rate::MeanBytes(bytes) => at_bytes(bytes as f64),
            Rate::Bytes(bytes) => at_bytes(bytes as f64 / samples),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Rate::Quality(quality) => write!(f, "quality {quality}"),
            Rate::Psnr(db) => write!(f, "{db} dB each"),
            Rate::MeanBytes(bytes) => write!(f, "{bytes} bytes each"),
            Rate::Bytes(bytes) => write!(f, "{bytes} bytes"),
        }
    }
}

impl FromStr for Rate {
    type Err = Error;

    /// Reads what [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let rate = match words[..] {
            ["quality", quality] => quality.parse().ok().map(Rate::Quality),
            [db, "dB", "each"] => db.parse().ok().map(Rate::Psnr),
            [bytes, "bytes", "each"] => bytes.parse().ok().map(Rate::MeanBytes),
            [bytes, "bytes"] => bytes.parse().ok().map(Rate::Bytes),
            _ => None,
        };
        rate.ok_or_else(|| Error::Argument {
            argument: "rate",
            found: text.into(),
            expected: "a rate of this version's".into(),
        })
    }
}

/// What a bit is worth: a squared error of 2^(n/64), of red, green and blue together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(in crate::encode) struct Slope(i32);

impl Slope {
    /// Steps of an octave.
    const OCTAVE: f64 = 64.0;
    /// Where every mode that is any better pays, and where none does.
    pub const STEEPEST: i32 = -1024;
    pub const FLATTEST: i32 = 1408;

    /// The slope that is next to a squared error.
    fn near(squared_error: f64) -> Self {
        Self::at((Self::OCTAVE * libm::log2(squared_error)).round() as i32)
    }

    /// A slope by its number.
    pub fn at(number: i32) -> Self {
        Self(number.clamp(Self::STEEPEST, Self::FLATTEST))
    }

    fn of_quality(quality: u8) -> Self {
        /// At quality 75.
        const MIDDLE: i32 = 370;
        Self::at(MIDDLE + 8 * (75 - i32::from(quality)))
    }

    pub fn number(self) -> i32 {
        self.0
    }

    /// The squared error.
    pub fn lambda(self) -> f64 {
        libm::exp2(f64::from(self.0) / Self::OCTAVE)
    }
}

/// The last of the ascending numbers for which `holds`, which it does for the first and for all before one for which it does;
/// found from `start` by steps that double, then halve. `None` if it does not hold for the first.
pub(super) fn last_holding(first: i32, last: i32, start: i32, mut holds: impl FnMut(i32) -> bool) -> Option<i32> {
    let start = start.clamp(first, last);
    let mut step = 8;
    let (mut good, mut bad) = if holds(start) {
        let (mut good, mut bad) = (start, start);
        while bad == good {
            if good == last {
                return Some(last);
            }
            let next = (good + step).min(last);
            step *= 2;
            if holds(next) { (good, bad) = (next, next) } else { bad = next }
        }
        (good, bad)
    } else {
        let (mut good, mut bad) = (start, start);
        while bad == good {
            if bad == first {
                return None;
            }
            let next = (bad - step).max(first);
            step *= 2;
            if holds(next) { good = next } else { (good, bad) = (next, next) }
        }
        (good, bad)
    };
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if holds(middle) { good = middle } else { bad = middle }
    }
    Some(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_written() {
        for rate in [Rate::Quality(75), Rate::Psnr(36.5), Rate::MeanBytes(11_000), Rate::Bytes(1 << 40)] {
            assert_eq!(rate.to_string().parse::<Rate>().expect("rate"), rate);
        }
        assert!("fine".parse::<Rate>().is_err());
    }

    #[test]
    fn the_last_is_found_from_anywhere() {
        for border in -20..=21 {
            for start in [-30, -20, -7, 0, 13, 20, 30] {
                let expected = (border >= -20).then_some(border.min(20));
                let found = last_holding(-20, 20, start, |n| n < border + 1);
                assert_eq!(found, expected.filter(|_| border >= -20), "{border} from {start}");
            }
        }
        assert_eq!(last_holding(-20, 20, 3, |_| false), None);
    }
}
