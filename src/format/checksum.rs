//! CRC-32C (Castagnoli, RFC 3720) and the one checksum that covers itself: the header's.

use super::key::HEADER_CRC32C;

pub(crate) use crc32c::crc32c;

const DIGITS: usize = 8;

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
pub(crate) fn header_digits(json: &[u8]) -> Option<std::ops::Range<usize>> {
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
pub(crate) fn header_crc32c(json: &[u8], digits: &std::ops::Range<usize>) -> u32 {
    let crc = crc32c::crc32c(&json[..digits.start]);
    let crc = crc32c::crc32c_append(crc, &[b'0'; DIGITS]);
    crc32c::crc32c_append(crc, &json[digits.end..])
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
