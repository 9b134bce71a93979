//! Images brought to one size.

use std::fmt;
use std::str::FromStr;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3, U8x4};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

use super::picture::Image;
use crate::error::{Error, Result};
use crate::output::named;

/// How an image of another shape is brought to the archive's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Fit {
    /// Scaled until it covers the target, then cut around the centre.
    #[default]
    Crop,
    /// Scaled to the target, each side for itself.
    Stretch,
    /// Scaled to lie within the target, centred on black, or on nothing where there is an alpha channel.
    Pad,
}

impl Fit {
    /// The name that the command and archives know.
    pub fn name(self) -> &'static str {
        match self {
            Fit::Crop => "crop",
            Fit::Stretch => "stretch",
            Fit::Pad => "pad",
        }
    }
}
named!(Fit, "fit", "crop, stretch or pad", Crop Stretch Pad);

/// Brings an image to a size in pixels, (width, height), by antialiased bilinear convolution as Pillow does it. An
/// image of that size stays untouched.
///
/// # Errors
/// [`Error::Argument`] if a size is zero, or the image's pixels are not as many as it says.
pub fn resize(image: &Image, size: (u32, u32), fit: Fit) -> Result<Image> {
    check(image, size)?;
    if (image.width, image.height) == size {
        return Ok(image.clone());
    }
    scale_and_centre(image, size, fit)
}

/// [`resize`] that does not copy an image of the right size.
pub(super) fn resize_owned(image: Image, size: (u32, u32), fit: Fit) -> Result<Image> {
    check(&image, size)?;
    if (image.width, image.height) == size {
        return Ok(image);
    }
    scale_and_centre(&image, size, fit)
}

fn check(image: &Image, size: (u32, u32)) -> Result<()> {
    let channels = image.channels as usize;
    let expected = image.width as usize * image.height as usize * channels;
    if expected == 0 || !matches!(channels, 1 | 3 | 4) || image.pixels.len() != expected || size.0 == 0 || size.1 == 0 {
        return Err(Error::Argument {
            argument: "image",
            found: format!(
                "{} values for {}x{} pixels of {channels}, to be resized to {}x{}",
                image.pixels.len(),
                image.width,
                image.height,
                size.0,
                size.1
            ),
            expected: "1, 3 or 4 values for each pixel, and no empty image".into(),
        });
    }
    Ok(())
}

fn scale_and_centre(image: &Image, size: (u32, u32), fit: Fit) -> Result<Image> {
    let inner = match fit {
        Fit::Crop | Fit::Stretch => size,
        Fit::Pad => inside(image, size),
    };
    let scaled = if fit != Fit::Crop && image.width > inner.0 && image.height < inner.1 {
        // The resizer enlarges first here, which could take 100 GB for an image 100,000,000 pixels wide.
        scale(&scale(image, (inner.0, image.height), Fit::Stretch)?, inner, Fit::Stretch)?
    } else {
        scale(image, inner, fit)?
    };
    Ok(if inner == size { scaled } else { centre(&scaled, size) })
}

/// The largest size of the image's proportions, each side at least one pixel, that lies within `size`.
fn inside(image: &Image, size: (u32, u32)) -> (u32, u32) {
    let [width, height, across, down] = [image.width, image.height, size.0, size.1].map(u64::from);
    let rounded = |side: u64, to: u64, from: u64| ((2 * side * to + from) / (2 * from)).max(1) as u32;
    if width * down >= height * across {
        (size.0, rounded(height, across, width).min(size.1))
    } else {
        (rounded(width, down, height).min(size.0), size.1)
    }
}

/// Scales to `size`, what [`Fit::Crop`] cuts off aside.
fn scale(image: &Image, size: (u32, u32), fit: Fit) -> Result<Image> {
    let pixels = match image.channels {
        1 => scale_pixels::<U8>(image, size, fit),
        3 => scale_pixels::<U8x3>(image, size, fit),
        _ => scale_pixels::<U8x4>(image, size, fit),
    };
    let pixels = pixels.map_err(|error| Error::Argument {
        argument: "image size",
        found: format!("{}x{} to {}x{} ({error})", image.width, image.height, size.0, size.1),
        expected: "a size that can be resized".into(),
    })?;
    Ok(Image { width: size.0, height: size.1, channels: image.channels, pixels })
}

fn scale_pixels<P: PixelTrait>(
    image: &Image,
    size: (u32, u32),
    fit: Fit,
) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let source = TypedImageRef::<P>::from_buffer(image.width, image.height, &image.pixels)?;
    let mut pixels = vec![0; size.0 as usize * size.1 as usize * image.channels as usize];
    let mut target = TypedImage::<P>::from_buffer(size.0, size.1, &mut pixels)?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    // The crop box of Pillow's ImageOps.fit: to the fraction of a pixel.
    let options = if fit == Fit::Crop { options.fit_into_destination(None) } else { options };
    Resizer::new().resize_typed(&source, &mut target, &options)?;
    drop(target);
    Ok(pixels)
}

/// Puts an image into the middle of zeros.
fn centre(image: &Image, size: (u32, u32)) -> Image {
    let channels = image.channels as usize;
    let [row, inner_row] = [size.0, image.width].map(|width| width as usize * channels);
    let left = ((size.0 - image.width) / 2) as usize * channels;
    let top = ((size.1 - image.height) / 2) as usize;
    let mut pixels = vec![0; row * size.1 as usize];
    for (target, source) in pixels.chunks_exact_mut(row).skip(top).zip(image.pixels.chunks_exact(inner_row)) {
        target[left..left + inner_row].copy_from_slice(source);
    }
    Image { width: size.0, height: size.1, channels: image.channels, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: u32, height: u32, pixels: impl Into<Vec<u8>>) -> Image {
        Image { width, height, channels: 1, pixels: pixels.into() }
    }

    #[test]
    fn halving_weighs_pixels_by_a_triangle_two_wide() {
        // Weights 0.75, 0.75, 0.25 of 1.75 (Pillow gives the same): 125 / 1.75 and 205 / 1.75.
        let row = resize(&grey(4, 1, [0, 100, 200, 40]), (2, 1), Fit::Stretch).expect("resize");
        assert_eq!(row.pixels, [71, 117]);
    }

    #[test]
    fn crop_takes_the_centre() {
        let wide = grey(8, 4, (0..32).collect::<Vec<u8>>());
        let image = resize(&wide, (4, 4), Fit::Crop).expect("resize");
        assert_eq!(image.pixels, [2, 3, 4, 5, 10, 11, 12, 13, 18, 19, 20, 21, 26, 27, 28, 29]);
        let tall = grey(1, 4, [9, 50, 60, 9]);
        assert_eq!(resize(&tall, (1, 2), Fit::Crop).expect("resize").pixels, [50, 60]);
    }

    #[test]
    fn pad_centres_on_nothing() {
        let image = resize(&grey(4, 2, [7; 8]), (4, 4), Fit::Pad).expect("resize");
        assert_eq!(image.pixels, [[0; 4], [7; 4], [7; 4], [0; 4]].concat());
        let opaque = Image { width: 2, height: 4, channels: 4, pixels: vec![255; 32] };
        let image = resize(&opaque, (6, 4), Fit::Pad).expect("resize");
        assert_eq!(image.pixels[..24], [[0; 8], [255; 8], [0; 8]].concat());
        let line = resize(&grey(2000, 1, [5; 2000]), (20, 20), Fit::Pad).expect("resize");
        assert_eq!(line.pixels.iter().filter(|&&v| v == 5).count(), 20);
    }

    #[test]
    fn transparent_pixels_do_not_bleed() {
        let image = Image { width: 2, height: 1, channels: 4, pixels: vec![200, 100, 50, 255, 255, 255, 255, 0] };
        let pixel = resize(&image, (1, 1), Fit::Stretch).expect("resize").pixels;
        assert!(pixel.iter().zip([200, 100, 50, 128]).all(|(a, b)| a.abs_diff(b) <= 1), "{pixel:?}");
    }

    #[test]
    fn the_right_size_stays_untouched_and_even_colours_stay_even() {
        let image = Image { width: 3, height: 2, channels: 3, pixels: (0..18).collect() };
        assert_eq!(resize(&image, (3, 2), Fit::Crop).expect("resize"), image);
        for fit in [Fit::Crop, Fit::Stretch] {
            for (from, to) in [((7, 5), (3, 9)), ((1, 1), (16, 16)), ((50_000, 1), (64, 64)), ((1, 50_000), (64, 64))] {
                let image = grey(from.0, from.1, vec![42; (from.0 * from.1) as usize]);
                let image = resize(&image, to, fit).expect("resize");
                assert_eq!(image.pixels, vec![42; (to.0 * to.1) as usize], "{fit} {from:?} {to:?}");
            }
        }
    }

    #[test]
    fn names_are_read_back() {
        for fit in [Fit::Crop, Fit::Stretch, Fit::Pad] {
            assert_eq!(fit.to_string().parse::<Fit>().expect("name"), fit);
        }
        assert!("squash".parse::<Fit>().is_err());
    }

    #[test]
    fn images_that_contradict_themselves_are_refused() {
        for image in [grey(2, 2, [0; 3]), grey(0, 2, []), Image { channels: 2, ..grey(1, 1, [0; 2]) }] {
            assert!(matches!(resize(&image, (4, 4), Fit::Crop), Err(Error::Argument { .. })), "{image:?}");
        }
        assert!(resize(&grey(1, 1, [0]), (0, 4), Fit::Crop).is_err());
    }
}
