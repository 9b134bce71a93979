//! CRC-32C (Castagnoli, RFC 3720) and the one checksum that covers itself: the header's.

use std::ops::Range;

use crc_fast::CrcAlgorithm::Crc32Iscsi;
use rayon::prelude::*;

use super::key::HEADER_CRC32C;
use crate::data::Data;
use crate::error::Result;

const DIGITS: usize = 8;
/// Bytes that a thread reads at a time.
const PIECE: usize = 8 << 20;

/// The checksum of bytes.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(Crc32Iscsi, bytes) as u32
}

/// The checksum of bytes that come one after another.
pub(crate) struct Digest(crc_fast::Digest);

impl Default for Digest {
    fn default() -> Self {
        Self(crc_fast::Digest::new(Crc32Iscsi))
    }
}

impl Digest {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(&self) -> u32 {
        self.0.finalize() as u32
    }
}

/// The checksum of a part of an archive, read piece by piece by all threads.
pub(crate) fn crc32c_of(data: &dyn Data, range: Range<usize>) -> Result<u32> {
    let piece = |start: usize| -> Result<_> {
        data.check()?;
        let piece = data.bytes(start..range.end.min(start + PIECE))?;
        Ok((crc32c(&piece), piece.len()))
    };
    if range.len() <= PIECE {
        data.check()?;
        return Ok(crc32c(&data.bytes(range)?));
    }
    let starts = range.clone().into_par_iter().step_by(PIECE);
    let pieces: Vec<(u32, usize)> = starts.map(piece).collect::<Result<_>>()?;
    let join = |crc, (next, len): (u32, usize)| crc_fast::checksum_combine(Crc32Iscsi, crc, next.into(), len as u64);
    Ok(pieces.into_iter().fold(crc_fast::checksum(Crc32Iscsi, &[]), join) as u32)
}

/// Reads a checksum as metadata stores it: eight lower-case hexadecimal digits.
pub(crate) fn from_hex(digits: &str) -> Option<u32> {
    let valid = digits.len() == DIGITS && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    valid.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

/// The form that metadata stores.
pub(crate) fn to_hex(checksum: u32) -> String {
    format!("{checksum:08x}")
}

/// The metadata key that holds a tensor's checksum.
pub(crate) fn tensor_key(tensor: &str) -> String {
    format!("{tensor}_crc32c")
}

/// Where the digits of `header_crc32c` stand in the header's JSON; `None` unless there is exactly one such place.
pub(crate) fn header_digits(json: &[u8]) -> Option<Range<usize>> {
    let key = format!("\"{HEADER_CRC32C}\"");
    let mut places = json.windows(key.len()).enumerate().filter(|(_, window)| *window == key.as_bytes());
    let mut found = None;
    for (start, _) in places.by_ref() {
        let mut rest = start + key.len();
        let skip_space = |at: &mut usize| {
            while matches!(json.get(*at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
                *at += 1;
            }
        };
        skip_space(&mut rest);
        if json.get(rest) != Some(&b':') {
            continue;
        }
        rest += 1;
        skip_space(&mut rest);
        let digits = rest + 1..rest + 1 + DIGITS;
        if json.get(rest) == Some(&b'"') && json.get(digits.end) == Some(&b'"') && found.replace(digits).is_some() {
            return None;
        }
    }
    found
}

/// The header's checksum: CRC-32C of its JSON with the recorded digits read as zeros.
pub(crate) fn header_crc32c(json: &[u8], digits: &Range<usize>) -> u32 {
    let mut digest = Digest::default();
    [&json[..digits.start], &[b'0'; DIGITS], &json[digits.end..]].into_iter().for_each(|part| digest.update(part));
    digest.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_has_the_published_check_value() {
        // RFC 3720, B.4: 32 bytes of zeros; and the usual check string.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn hex_is_eight_lower_case_digits() {
        assert_eq!(from_hex("00c0ffee"), Some(0x00c0_ffee));
        for bad in ["", "c0ffee", "00C0FFEE", "+0c0ffee", "00c0ffee0", "00c0ffeg"] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_header_digits_are_found_only_where_they_are_unambiguous() {
        let json = br#"{"__metadata__":{"header_crc32c" : "0123abcd"}}"#;
        let place = header_digits(json).expect("there");
        assert_eq!(&json[place], b"0123abcd");
        assert_eq!(header_digits(br#"{"a":"header_crc32c"}"#), None);
        let twice = br#"{"header_crc32c":"01234567","x":{"header_crc32c":"01234567"}}"#;
        assert_eq!(header_digits(twice), None);
    }
}
