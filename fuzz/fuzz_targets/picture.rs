//! Arbitrary bytes as a picture.
#![no_main]

use std::path::Path;

use kuat::encode::{Image, ReadOptions};
use libfuzzer_sys::fuzz_target;

/// Most pixels of a picture.
const PIXELS: u64 = 1 << 14;

fuzz_target!(|bytes: &[u8]| {
    for channels in [3, 1, 4] {
        let options = ReadOptions { channels, max_pixels: PIXELS };
        match Image::decode_bytes(bytes, Path::new("picture"), &options) {
            Ok(image) => {
                assert!(u64::from(image.width) * u64::from(image.height) <= PIXELS);
                assert_eq!(image.pixels.len(), (image.width * image.height * channels) as usize);
            }
            Err(error) => return assert!(error.to_string().contains("picture")),
        }
    }
});
