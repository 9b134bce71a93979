//! Image files as pixels.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::error::{LimitError, LimitErrorKind};
use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, Pixel};

use super::jpeg;
use crate::error::{Error, Result};

/// The most pixels that an image may have: where Pillow, too, takes a file for a decompression bomb.
pub const MAX_PIXELS: u64 = 178_956_970;

/// What images are read as, and how large they may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReadOptions {
    /// Values of a pixel: 1 (grey), 3 (RGB) or 4 (RGBA).
    pub channels: u32,
    /// The most pixels; [`MAX_PIXELS`] unless somebody knows better.
    pub max_pixels: u64,
}

impl ReadOptions {
    /// Images of so many channels, and at most [`MAX_PIXELS`] pixels.
    pub fn new(channels: u32) -> Self {
        Self { channels, max_pixels: MAX_PIXELS }
    }

    /// The most memory for one decoded image, and the most bytes of a file: four bytes per pixel, and 16 MiB for what
    /// else there is.
    fn max_bytes(&self) -> u64 {
        self.max_pixels.saturating_mul(4).saturating_add(16 << 20)
    }

    /// Refuses a file of too many bytes.
    pub(super) fn check_len(&self, len: u64, name: &Path) -> Result<()> {
        if len > self.max_bytes() { Err(Error::Image { path: name.into(), source: too_big() }) } else { Ok(()) }
    }
}

/// An image of 8-bit values, pixels interleaved, rows from top to bottom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Values of a pixel: 1 (grey), 3 (RGB) or 4 (RGBA).
    pub channels: u32,
    /// Height x width x channels values.
    pub pixels: Vec<u8>,
}

impl Image {
    /// An image of `channels` (1, 3 or 4) made from `pixels` of `found` channels: 1 (grey), 2 (grey and alpha),
    /// 3 (RGB) or 4 (RGBA), interleaved, rows from top to bottom. They are converted as [`decode`](Self::decode)
    /// does.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no such channels, no pixels, or not as many as the size says.
    pub fn new(width: u32, height: u32, found: u32, pixels: Vec<u8>, channels: u32) -> Result<Self> {
        let values = u128::from(width) * u128::from(height) * u128::from(found);
        if !(1..=4).contains(&found) || values == 0 || values != pixels.len() as u128 {
            return Err(Error::Argument {
                argument: "image",
                found: format!("{} values for {width}x{height} pixels of {found}", pixels.len()),
                expected: "1 to 4 values for each pixel, and no empty image".into(),
            });
        }
        if !matches!(channels, 1 | 3 | 4) {
            let (found, expected) = (channels.to_string(), "1, 3 or 4".into());
            return Err(Error::Argument { argument: "channels", found, expected });
        }
        Ok(Self { width, height, channels, pixels: convert(pixels, found as usize, channels) })
    }

    /// Decodes a JPEG, PNG, WebP or BMP file, whatever its name, into 1, 3 or 4 channels.
    ///
    /// The picture is turned as its EXIF orientation says. Conversions are those of Pillow: grey is ITU-R 601 luma,
    /// 16-bit values lose their lower half, transparency is dropped rather than blended unless there is a channel
    /// for it. A JPEG file that is cut short is an error, one with damaged data is decoded as far as it makes sense.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Image`], [`Error::ImageCut`], [`Error::JpegFeature`] or [`Error::ImageTooLarge`], each
    /// with the path.
    pub fn decode(path: &Path, options: &ReadOptions) -> Result<Self> {
        // Before it is opened: that would wait for ever for a pipe that nobody writes to.
        let metadata = path.metadata().map_err(Error::io("open", path))?;
        if !metadata.is_file() {
            let source = std::io::Error::other("it is not a regular file");
            return Err(Error::Io { action: "open", path: path.into(), source });
        }
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let file_len = metadata.len();
        options.check_len(file_len, path)?;
        let mut bytes = Vec::with_capacity(file_len as usize);
        // No more than that even if the file grows meanwhile.
        file.by_ref().take(options.max_bytes()).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        Self::decode_bytes(&bytes, path, options)
    }

    /// [`decode`](Self::decode) for a file that is in memory; errors call it `name`.
    ///
    /// # Errors
    /// [`Error::Image`], [`Error::ImageCut`], [`Error::JpegFeature`] or [`Error::ImageTooLarge`], each with the name.
    pub fn decode_bytes(bytes: &[u8], name: &Path, options: &ReadOptions) -> Result<Self> {
        let failed = |source| Error::Image { path: name.into(), source };
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
        let mut reader = reader.map_err(Error::io("read", name))?;
        let format = reader.format();
        let check_size = |(width, height): (u32, u32)| {
            let fits = u64::from(width) * u64::from(height) <= options.max_pixels;
            let (path, limit) = (name.into(), options.max_pixels);
            if fits { Ok(()) } else { Err(Error::ImageTooLarge { path, width, height, limit }) }
        };
        let jpeg = format == Some(ImageFormat::Jpeg);
        let check_end = || if jpeg && !jpeg::ends(bytes) { Err(Error::ImageCut { path: name.into() }) } else { Ok(()) };
        let header = if jpeg { jpeg::Header::read(bytes) } else { None };
        if let Some(feature) = header.as_ref().and_then(jpeg::Header::unread) {
            return Err(Error::JpegFeature { path: name.into(), feature });
        }
        let (mut picture, orientation) = match header.filter(|header| !header.is_plain()) {
            Some(header) => {
                check_size(header.size)?;
                check_end()?;
                header.decode(bytes).map_err(failed)?
            }
            None => {
                let mut limits = Limits::no_limits();
                limits.max_alloc = Some(options.max_bytes());
                reader.limits(limits);
                let mut decoder = reader.into_decoder().map_err(failed)?;
                check_size(decoder.dimensions())?;
                if decoder.total_bytes() > options.max_bytes() {
                    return Err(failed(too_big()));
                }
                check_end()?;
                // A picture with a damaged orientation is a picture all the same.
                let orientation = decoder.orientation().ok();
                (DynamicImage::from_decoder(decoder).map_err(failed)?, orientation)
            }
        };
        if let Some(orientation) = orientation {
            picture.apply_orientation(orientation);
        }
        Ok(Self::from_dynamic(picture, options.channels))
    }

    fn from_dynamic(picture: DynamicImage, channels: u32) -> Self {
        let (width, height) = (picture.width(), picture.height());
        let (found, pixels) = match picture {
            DynamicImage::ImageLuma8(picture) => (1, picture.into_raw()),
            DynamicImage::ImageLumaA8(picture) => (2, picture.into_raw()),
            DynamicImage::ImageRgb8(picture) => (3, picture.into_raw()),
            DynamicImage::ImageRgba8(picture) => (4, picture.into_raw()),
            DynamicImage::ImageLuma16(picture) => (1, upper_bytes(&picture)),
            DynamicImage::ImageLumaA16(picture) => (2, upper_bytes(&picture)),
            DynamicImage::ImageRgb16(picture) => (3, upper_bytes(&picture)),
            DynamicImage::ImageRgba16(picture) => (4, upper_bytes(&picture)),
            other => (4, other.into_rgba8().into_raw()),
        };
        Self { width, height, channels, pixels: convert(pixels, found, channels) }
    }
}

fn too_big() -> ImageError {
    ImageError::Limits(LimitError::from_kind(LimitErrorKind::InsufficientMemory))
}

fn upper_bytes<P: Pixel<Subpixel = u16>>(picture: &ImageBuffer<P, Vec<u16>>) -> Vec<u8> {
    picture.as_raw().iter().map(|value| (value >> 8) as u8).collect()
}

/// Converts pixels of `from` channels (1 grey, 2 grey and alpha, 3 RGB, 4 RGBA) into 1, 3 or 4 channels.
fn convert(pixels: Vec<u8>, from: usize, to: u32) -> Vec<u8> {
    if from == to as usize {
        return pixels;
    }
    let rgb = |p: &[u8]| if from < 3 { [p[0]; 3] } else { [p[0], p[1], p[2]] };
    let each = pixels.chunks_exact(from);
    match to {
        1 if from < 3 => each.map(|p| p[0]).collect(),
        1 => each.map(|p| luma(rgb(p))).collect(),
        3 => each.flat_map(rgb).collect(),
        _ => {
            let alpha = |p: &[u8]| if from.is_multiple_of(2) { p[from - 1] } else { 255 };
            each.flat_map(|p| [rgb(p)[0], rgb(p)[1], rgb(p)[2], alpha(p)]).collect()
        }
    }
}

/// The ITU-R 601 luma of a pixel, in Pillow's integers.
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, Rgb, RgbImage, Rgba, RgbaImage};
    use rand::{Rng, SeedableRng};
    use rand_pcg::Pcg32;

    use super::*;

    fn decode(bytes: &[u8], channels: u32) -> Result<Image> {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("picture.jpg");
        std::fs::write(&path, bytes).expect("write");
        Image::decode(&path, &ReadOptions::new(channels))
    }

    fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.into().write_to(&mut bytes, format).expect("encode");
        bytes.into_inner()
    }

    #[test]
    fn formats_are_told_by_content() {
        let picture = RgbImage::from_fn(5, 3, |x, y| Rgb([x as u8 * 50, y as u8 * 100, 7]));
        for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
            let image = decode(&encoded(picture.clone(), format), 3).expect("decode");
            assert_eq!((image.width, image.height, image.channels), (5, 3, 3), "{format:?}");
            assert_eq!(image.pixels, picture.as_raw().as_slice(), "{format:?}");
        }
        let image =
            decode(&encoded(RgbImage::from_pixel(8, 8, Rgb([200, 100, 50])), ImageFormat::Jpeg), 3).expect("decode");
        assert!(image.pixels.iter().zip([200, 100, 50].iter().cycle()).all(|(a, b)| a.abs_diff(*b) <= 4));
    }

    #[test]
    fn channels_are_converted_as_pillow_does() {
        // Pillow: Image.new("RGB", (1, 1), c).convert("L") is 76, 150, 29 for the pure colours.
        for (colour, grey) in [([255, 0, 0], 76), ([0, 255, 0], 150), ([0, 0, 255], 29), ([255; 3], 255), ([9; 3], 9)] {
            let bytes = encoded(RgbImage::from_pixel(1, 1, Rgb(colour)), ImageFormat::Png);
            assert_eq!(decode(&bytes, 1).expect("decode").pixels, [grey]);
            assert_eq!(decode(&bytes, 4).expect("decode").pixels, [colour[0], colour[1], colour[2], 255]);
        }
        let bytes = encoded(RgbaImage::from_pixel(1, 1, Rgba([1, 2, 3, 4])), ImageFormat::Png);
        assert_eq!(decode(&bytes, 3).expect("decode").pixels, [1, 2, 3]);
        assert_eq!(decode(&bytes, 4).expect("decode").pixels, [1, 2, 3, 4]);
        let bytes = encoded(GrayImage::from_pixel(1, 1, Luma([77])), ImageFormat::Png);
        assert_eq!(decode(&bytes, 1).expect("decode").pixels, [77]);
        assert_eq!(decode(&bytes, 3).expect("decode").pixels, [77; 3]);
        let deep = ImageBuffer::<Rgb<u16>, _>::from_pixel(1, 1, Rgb([0x12FF, 0xFF00, 0x00FF]));
        assert_eq!(decode(&encoded(deep, ImageFormat::Png), 3).expect("decode").pixels, [0x12, 0xFF, 0]);
    }

    #[test]
    fn pixels_from_elsewhere_are_converted_as_files_are() {
        let image = |found, pixels: &[u8], channels| Image::new(1, 1, found, pixels.to_vec(), channels);
        assert_eq!(image(3, &[255, 0, 0], 1).expect("image").pixels, [76]);
        assert_eq!(image(2, &[5, 6], 4).expect("image").pixels, [5, 5, 5, 6]);
        assert_eq!(image(4, &[1, 2, 3, 4], 3).expect("image").pixels, [1, 2, 3]);
        for (found, pixels, channels) in [(3, &[1, 2][..], 3), (0, &[], 3), (5, &[0; 5], 3), (1, &[7], 2)] {
            assert!(matches!(image(found, pixels, channels), Err(Error::Argument { .. })), "{found} to {channels}");
        }
        assert!(matches!(Image::new(u32::MAX, u32::MAX, 4, vec![0; 4], 4), Err(Error::Argument { .. })));
        assert!(matches!(Image::new(0, 3, 3, Vec::new(), 3), Err(Error::Argument { .. })));
    }

    #[test]
    fn pictures_are_turned_as_their_exif_data_says() {
        let half = |x: u32| if x < 16 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) };
        let jpeg = encoded(RgbImage::from_fn(32, 16, |x, _| half(x)), ImageFormat::Jpeg);
        // The first row of pixels is, EXIF 2.32: 1 the top, 3 the bottom, 6 the right, 8 the left of the scene.
        for (orientation, size, first_is_red) in
            [(1, (32, 16), true), (3, (32, 16), false), (6, (16, 32), true), (8, (16, 32), false)]
        {
            let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
            exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
            let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xE1, 0, exif.len() as u8 + 2];
            bytes.extend(exif);
            bytes.extend(&jpeg[2..]);
            let image = decode(&bytes, 3).expect("decode");
            assert_eq!((image.width, image.height), size, "orientation {orientation}");
            assert_eq!(image.pixels[0] > 128, first_is_red, "orientation {orientation}");
        }
    }

    #[test]
    fn files_that_are_no_images_are_named() {
        for bytes in [&b""[..], b"x", b"\xFF\xD8", b"\x89PNG\r\n\x1a\n", b"GIF89a\x01\0\x01\0\0\0\0", b"<html>"] {
            let error = decode(bytes, 3).expect_err("no image");
            assert!(matches!(&error, Error::Image { path, .. } if path.ends_with("picture.jpg")), "{error:?}");
        }
    }

    #[test]
    fn huge_pictures_are_refused_by_their_header() {
        let mut png = encoded(GrayImage::new(1, 1), ImageFormat::Png);
        // Width and height of the header chunk, and its checksum.
        png[16..24].copy_from_slice(&[0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30]);
        let crc = png[12..29].iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 })
        });
        png[29..33].copy_from_slice(&(!crc).to_be_bytes());
        match decode(&png, 3) {
            Err(Error::ImageTooLarge { width: 30_000, height: 30_000, limit: MAX_PIXELS, .. }) => (),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn jpeg_files_that_are_cut_short_are_named() {
        let noise = |x: u32, y: u32| ((x * 7919 + y * 104_729) ^ (x * y)) as u8;
        let picture = RgbImage::from_fn(40, 30, |x, y| Rgb([noise(x, y), noise(y, x), noise(x, x)]));
        let whole = encoded(picture, ImageFormat::Jpeg);
        assert!(decode(&whole, 3).is_ok() && decode(&[&whole[..], b"behind the end"].concat(), 3).is_ok());
        let mut in_pixels = 0;
        for len in 0..whole.len() {
            match decode(&whole[..len], 3) {
                Err(Error::ImageCut { path }) => in_pixels += usize::from(path.ends_with("picture.jpg")),
                Err(Error::Image { .. }) => assert_eq!(in_pixels, 0, "{len} bytes"),
                other => unreachable!("{len} bytes: {other:?}"),
            }
        }
        assert!(in_pixels > whole.len() / 2);
        // A preview within the EXIF data has an end of its own.
        let preview =
            [&[0xFF, 0xD8, 0xFF, 0xE1, ((whole.len() + 2) >> 8) as u8, (whole.len() + 2) as u8], &whole[..]].concat();
        let with_preview = [&preview[..], &whole[2..]].concat();
        assert!(decode(&with_preview, 3).is_ok());
        assert!(matches!(decode(&with_preview[..with_preview.len() - 9], 3), Err(Error::ImageCut { .. })));
    }

    #[test]
    fn damaged_files_are_images_or_errors() {
        let picture = RgbImage::from_fn(23, 17, |x, y| Rgb([(x * 11) as u8, (y * 13) as u8, (x * y) as u8]));
        let mut random = Pcg32::seed_from_u64(7);
        let formats = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP];
        let mut files = formats.map(|format| encoded(picture.clone(), format)).to_vec();
        // A scan per component.
        let mut scans = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut scans, 90);
        encoder.set_optimized_huffman_tables(true);
        encoder.encode(picture.as_raw(), 23, 17, jpeg_encoder::ColorType::Rgb).expect("encode");
        files.push(scans);
        for whole in files {
            for _ in 0..400 {
                let mut bytes = whole.clone();
                for _ in 0..1 + random.next_u32() % 4 {
                    let place = random.next_u32() as usize % bytes.len();
                    bytes[place] = random.next_u32() as u8;
                }
                bytes.truncate(
                    bytes.len() - (random.next_u32() as usize % bytes.len()) * (random.next_u32() % 2) as usize,
                );
                let name = Path::new("shard.tar/1");
                // Few enough that a size that is damaged to be huge is refused.
                match Image::decode_bytes(&bytes, name, &ReadOptions { channels: 3, max_pixels: 1 << 16 }) {
                    Ok(image) => assert_eq!(image.pixels.len(), 3 * image.width as usize * image.height as usize),
                    Err(
                        Error::Image { path, .. }
                        | Error::ImageCut { path }
                        | Error::JpegFeature { path, .. }
                        | Error::ImageTooLarge { path, .. },
                    ) => assert_eq!(path, name),
                    Err(other) => unreachable!("{other:?}"),
                }
            }
        }
    }
}
