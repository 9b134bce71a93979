//! Codebooks of layers that come with the encoder.

use crate::archive::Archive;
use crate::error::Result;
use crate::format::books::LayerBooks;

/// An archive without samples; `make builtin` trains it.
const ARCHIVE: &[u8] = include_bytes!("builtin.qvq");

/// Codebooks trained on photographs of many kinds, for sets too small to train their own: of RGB images, or of grey ones
/// (1 channel).
///
/// # Errors
/// None but a defect of this library.
pub fn builtin_books(channels: u32) -> Result<LayerBooks> {
    let mut books = Archive::new(ARCHIVE)?.layers()?.books()?;
    if channels == 1 {
        books.chroma = None;
    }
    Ok(books)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_codebooks_are_small_and_valid() {
        for channels in [1, 3] {
            let books = builtin_books(channels).expect("valid");
            books.check().expect("valid");
            assert_eq!(books.chroma.is_some(), channels == 3);
            assert!(books.byte_len() < 2_000_000);
        }
    }
}
