//! JPEG files off the beaten track: told by their headers, and read by a second decoder or refused by name.
//!
//! The decoder of the `image` crate (zune-jpeg 0.5.15) is the fastest there is, and right about nearly all files. What
//! it reads wrong without an error (components in scans of their own, unusual sampling, markers that disagree about the
//! colours) goes to the `jpeg-decoder` crate, which is slower.

use image::error::{DecodingError, ImageFormatHint};
use image::metadata::Orientation;
use image::{DynamicImage, ImageBuffer, ImageError, ImageFormat};
use jpeg_decoder::{ColorTransform, Decoder, PixelFormat};

/// The marker segments of a JPEG file: the marker's second byte, and what comes with it. They end where the file is
/// cut short.
fn segments(mut rest: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        // Every marker is FF and a byte that is neither 00 nor FF. Compressed data has FF only as FF 00 and in markers.
        let place = rest.windows(2).position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF))?;
        let marker = rest[place + 1];
        rest = &rest[place + 2..];
        // Without a length: TEM, restarts, start and end of image.
        if matches!(marker, 0x01 | 0xD0..=0xD9) {
            return Some((marker, &[][..]));
        }
        let (length, _) = rest.split_first_chunk()?;
        let (segment, behind) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        rest = behind;
        Some((marker, segment.get(2..).unwrap_or_default()))
    })
}

/// Whether a file goes on to its end marker. Decoders fill up what is missing with grey, and do not tell.
pub(super) fn ends(bytes: &[u8]) -> bool {
    segments(bytes).any(|(marker, _)| marker == 0xD9)
}

/// What a file says of itself before its first compressed data.
#[derive(Debug)]
pub(super) struct Header {
    /// The second byte of the frame's marker, C0 to CF: how it is coded.
    coding: u8,
    /// Bits of a value.
    precision: u8,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// Identifier and sampling factors (across in the upper half) of each component.
    components: Vec<(u8, u8)>,
    /// Components of the first scan.
    scanned: usize,
    /// Whether there is a JFIF marker.
    jfif: bool,
    /// The colour transform of Adobe's marker.
    adobe: Option<u8>,
}

impl Header {
    /// Reads the header, unless it is damaged.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (mut jfif, mut adobe, mut frame) = (false, None, None);
        for (marker, body) in segments(bytes) {
            match marker {
                0xE0 if body.starts_with(b"JFIF\0") => jfif = true,
                0xEE if body.starts_with(b"Adobe") => adobe = body.get(11).copied(),
                // Among the frames' markers are those of Huffman tables, extensions and arithmetic conditioning.
                0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) && frame.is_none() => frame = Some((marker, body)),
                0xDA => {
                    let (coding, frame) = frame?;
                    let (&[precision, y1, y0, x1, x0, _], components) = frame.split_first_chunk()?;
                    return Some(Self {
                        coding,
                        precision,
                        size: (u16::from_be_bytes([x1, x0]).into(), u16::from_be_bytes([y1, y0]).into()),
                        components: components.chunks_exact(3).map(|one| (one[0], one[1])).collect(),
                        scanned: usize::from(*body.first()?),
                        jfif,
                        adobe,
                    });
                }
                _ => (),
            }
        }
        None
    }

    /// What no decoder here reads, if the file is such.
    pub(super) fn unread(&self) -> Option<&'static str> {
        match self.coding {
            0xC3 => Some("lossless coding"),
            0xC5..=0xC7 | 0xCD..=0xCF => Some("hierarchical coding"),
            0xC9..=0xCB => Some("arithmetic coding"),
            _ => (self.precision != 8).then_some("values of more than 8 bits"),
        }
    }

    /// Whether the decoder of the `image` crate reads the file right.
    pub(super) fn is_plain(&self) -> bool {
        // Progressive files have their scans gathered anyway.
        let one_scan = self.coding == 0xC2 || self.scanned == self.components.len();
        let sampled =
            |(i, &(_, factors)): (usize, &(u8, u8))| matches!((i, factors), (_, 0x11) | (0, 0x12 | 0x21 | 0x22));
        // It takes files for RGB that say so in any way.
        let taken_for_rgb = self.adobe == Some(0) || self.has_rgb_identifiers();
        let coloured = self.components.len() != 3 || taken_for_rgb == self.is_rgb();
        one_scan && coloured && self.components.iter().enumerate().all(sampled)
    }

    fn has_rgb_identifiers(&self) -> bool {
        self.components.iter().map(|&(identifier, _)| identifier).eq(*b"RGB")
    }

    /// Whether three components are red, green and blue rather than YCbCr, by the rules of libjpeg: JFIF has YCbCr
    /// only, Adobe's marker comes next, then the components' names.
    fn is_rgb(&self) -> bool {
        !self.jfif && self.adobe.map_or_else(|| self.has_rgb_identifiers(), |transform| transform == 0)
    }

    /// Decodes a file that is not plain.
    pub(super) fn decode(&self, bytes: &[u8]) -> Result<(DynamicImage, Option<Orientation>), ImageError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            ImageError::Decoding(DecodingError::new(ImageFormatHint::Exact(ImageFormat::Jpeg), error))
        };
        let mut decoder = Decoder::new(bytes);
        if self.components.len() == 3 {
            decoder.set_color_transform(if self.is_rgb() { ColorTransform::RGB } else { ColorTransform::YCbCr });
        }
        let pixels = decoder.decode().map_err(|error| failed(error.into()))?;
        let (width, height) = self.size;
        let picture = match decoder.info().map(|info| info.pixel_format) {
            Some(PixelFormat::L8) => ImageBuffer::from_raw(width, height, pixels).map(DynamicImage::ImageLuma8),
            Some(PixelFormat::RGB24) => ImageBuffer::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8),
            Some(PixelFormat::CMYK32) => {
                let pixels = pixels.as_chunks().0.iter().flat_map(|&inks| rgb(inks)).collect();
                ImageBuffer::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8)
            }
            _ => None,
        };
        let picture = picture.ok_or_else(|| failed("the pixels are not as many as the header says".into()))?;
        Ok((picture, decoder.exif_data().and_then(Orientation::from_exif_chunk)))
    }
}

/// The colour of four inks, in Pillow's integers.
fn rgb([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    let paper = 255 - black;
    [cyan, magenta, yellow].map(|ink| {
        let product = u32::from(ink) * u32::from(paper) + 128;
        paper - (((product >> 8) + product) >> 8) as u8
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

    use super::*;
    use crate::encode::{Image, ReadOptions, psnr};
    use crate::error::{Error, Result};

    const SAMPLINGS: [SamplingFactor; 6] = [
        SamplingFactor::R_4_4_4,
        SamplingFactor::R_4_4_0,
        SamplingFactor::R_4_2_2,
        SamplingFactor::R_4_2_0,
        SamplingFactor::R_4_1_1,
        SamplingFactor::R_4_1_0,
    ];

    /// A picture without sharp edges, which subsampled colours hold.
    fn waves(width: u16, height: u16, channels: u32) -> Vec<u8> {
        let (width, height) = (u32::from(width), u32::from(height));
        let value = |i: u32| {
            let (x, y, c) = (i / channels % width, i / channels / width, i % channels);
            (128.0 + 60.0 * ((x + 7 * c) as f32 / 19.0).sin() + 60.0 * ((y * (c + 1)) as f32 / 31.0).cos()) as u8
        };
        (0..width * height * channels).map(value).collect()
    }

    /// A file with a scan per component, which is what the encoder makes with tables of its own.
    fn scans((width, height): (u16, u16), sampling: SamplingFactor, colour: ColorType) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&mut file, 95);
        encoder.set_sampling_factor(sampling);
        encoder.set_optimized_huffman_tables(true);
        let channels = if colour == ColorType::Rgb { 3 } else { 4 };
        encoder.encode(&waves(width, height, channels), width, height, colour).expect("encode");
        file
    }

    fn decode(bytes: &[u8], channels: u32) -> Result<Image> {
        Image::decode_bytes(bytes, Path::new("picture.jpg"), &ReadOptions::new(channels))
    }

    fn position(bytes: &[u8], marker: u8) -> usize {
        bytes.windows(2).position(|pair| pair == [0xFF, marker]).expect("the marker")
    }

    /// The file with a segment before all others but JFIF's.
    fn with_segment(file: &[u8], marker: u8, body: &[u8]) -> Vec<u8> {
        let behind_jfif = 4 + usize::from(u16::from_be_bytes([file[4], file[5]]));
        let (before, behind) = file.split_at(behind_jfif);
        [before, &[0xFF, marker, 0, body.len() as u8 + 2], body, behind].concat()
    }

    #[test]
    fn components_in_scans_of_their_own_are_decoded() {
        for (size, sampling) in [(40, 30), (17, 9), (150, 131)].into_iter().flat_map(|s| SAMPLINGS.map(|f| (s, f))) {
            let file = scans(size, sampling, ColorType::Rgb);
            assert!(Header::read(&file).is_some_and(|header| header.scanned == 1));
            let image = decode(&file, 3).expect("decode");
            assert_eq!((image.width, image.height), (size.0.into(), size.1.into()));
            let found = psnr(&image.pixels, &waves(size.0, size.1, 3));
            assert!(found > 35.0, "{size:?}, {sampling:?}: {found}");
        }
        let grey = decode(&scans((40, 30), SamplingFactor::R_4_2_0, ColorType::Rgb), 1).expect("decode");
        assert_eq!((grey.channels, grey.pixels.len()), (1, 1200));
    }

    #[test]
    fn small_pictures_of_unusual_sampling_are_decoded() {
        for (size, sampling) in [(8, 8), (17, 9), (250, 3)].into_iter().flat_map(|s| SAMPLINGS.map(|f| (s, f))) {
            for (progressive, restart) in [(false, 0), (false, 5), (true, 0)] {
                let mut file = Vec::new();
                let mut encoder = Encoder::new(&mut file, 95);
                encoder.set_sampling_factor(sampling);
                encoder.set_progressive(progressive);
                encoder.set_restart_interval(restart);
                encoder.encode(&waves(size.0, size.1, 3), size.0, size.1, ColorType::Rgb).expect("encode");
                let found = psnr(&decode(&file, 3).expect("decode").pixels, &waves(size.0, size.1, 3));
                assert!(found > 30.0, "{size:?}, {sampling:?}, {progressive}: {found}");
            }
        }
    }

    #[test]
    fn four_inks_become_colours() {
        // Pillow: Image.new("CMYK", (1, 1), inks).convert("RGB").
        for (inks, colour) in [([0; 4], [255; 3]), ([255, 0, 0, 0], [0, 255, 255]), ([10, 20, 30, 40], [207, 198, 190])]
        {
            assert_eq!(rgb(inks), colour);
        }
        let picture = waves(40, 30, 4);
        let colours: Vec<u8> = picture.as_chunks().0.iter().flat_map(|&inks| rgb(inks)).collect();
        for colour in [ColorType::Cmyk, ColorType::CmykAsYcck] {
            let file = scans((40, 30), SamplingFactor::R_4_2_0, colour);
            let found = psnr(&decode(&file, 3).expect("decode").pixels, &colours);
            assert!(found > 30.0, "{colour:?}: {found}");
        }
    }

    #[test]
    fn colours_are_told_by_jfif_first_then_by_adobe() {
        let picture = waves(40, 30, 3);
        let mut file = Vec::new();
        Encoder::new(&mut file, 95).encode(&picture, 40, 30, ColorType::Rgb).expect("encode");
        for jfif in [true, false] {
            for transform in [None, Some(0), Some(1)] {
                for names in [*b"\x01\x02\x03", *b"RGB", *b"abc"] {
                    let mut bytes = file.clone();
                    let (frame, scan) = (position(&bytes, 0xC0), position(&bytes, 0xDA));
                    for (i, name) in names.into_iter().enumerate() {
                        (bytes[frame + 10 + 3 * i], bytes[scan + 5 + 2 * i]) = (name, name);
                    }
                    if let Some(transform) = transform {
                        bytes = with_segment(&bytes, 0xEE, &[b"Adobe\0\x64\0\0\0\0", &[transform][..]].concat());
                    }
                    if !jfif {
                        bytes[6..10].copy_from_slice(b"NONE");
                    }
                    let found = psnr(&decode(&bytes, 3).expect("decode").pixels, &picture);
                    let rgb = !jfif && (transform == Some(0) || transform.is_none() && names == *b"RGB");
                    assert_eq!(found < 25.0, rgb, "{jfif}, {transform:?}, {names:?}: {found}");
                }
            }
        }
    }

    #[test]
    fn orientation_is_that_of_the_file() {
        let file = scans((40, 30), SamplingFactor::R_4_2_0, ColorType::Rgb);
        let upright = decode(&file, 3).expect("decode");
        let half_turn = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0";
        let mut turned = decode(&with_segment(&file, 0xE1, half_turn), 3).expect("decode");
        let pixels = turned.pixels.as_chunks_mut::<3>().0;
        pixels.reverse();
        assert_eq!(turned, upright);
    }

    #[test]
    fn what_is_not_read_is_named() {
        let file = scans((40, 30), SamplingFactor::R_4_2_0, ColorType::Rgb);
        let frame = position(&file, 0xC0);
        for (place, value, expected) in [
            (1, 0xC3, "lossless coding"),
            (1, 0xC5, "hierarchical coding"),
            (1, 0xC9, "arithmetic coding"),
            (1, 0xCA, "arithmetic coding"),
            (4, 12, "values of more than 8 bits"),
        ] {
            let mut bytes = file.clone();
            bytes[frame + place] = value;
            match decode(&bytes, 3) {
                Err(Error::JpegFeature { path, feature }) => {
                    assert_eq!((path.as_path(), feature), (Path::new("picture.jpg"), expected));
                }
                other => unreachable!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_limits_hold_for_scans_too() {
        let file = scans((40, 30), SamplingFactor::R_4_2_0, ColorType::Rgb);
        let options = ReadOptions { channels: 3, max_pixels: 1199 };
        match Image::decode_bytes(&file, Path::new("picture.jpg"), &options) {
            Err(Error::ImageTooLarge { width: 40, height: 30, limit: 1199, .. }) => (),
            other => unreachable!("{other:?}"),
        }
        for len in 2..file.len() {
            assert!(
                matches!(decode(&file[..len], 3), Err(Error::Image { .. } | Error::ImageCut { .. })),
                "{len} bytes"
            );
        }
        let last = file.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).expect("a scan");
        let without = [&file[..last], &[0xFF, 0xD9]].concat();
        assert!(matches!(decode(&without, 3), Err(Error::Image { .. })), "a component is missing");
    }
}
