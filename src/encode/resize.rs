//! Images brought to one size.

use std::borrow::Cow;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3, U8x4};
use fast_image_resize::{FilterType, MulDiv, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

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

/// How pixels are weighed when an image is scaled, named as in Pillow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Filter {
    /// A triangle: what most evaluation of networks is done with.
    #[default]
    Bilinear,
    /// Cubic, a = -0.5 (Catmull-Rom).
    Bicubic,
    /// A sinc within a sinc of three lobes.
    Lanczos,
    /// The mean of the pixels that one covers. Of a pixel covered to exactly half, rounding decides, as it does in Pillow.
    Box,
    /// Nearly as sharp as bicubic, as fast as bilinear.
    Hamming,
}

impl Filter {
    /// The name that the command and archives know.
    pub fn name(self) -> &'static str {
        match self {
            Filter::Bilinear => "bilinear",
            Filter::Bicubic => "bicubic",
            Filter::Lanczos => "lanczos",
            Filter::Box => "box",
            Filter::Hamming => "hamming",
        }
    }

    fn kernel(self) -> FilterType {
        match self {
            Filter::Bilinear => FilterType::Bilinear,
            Filter::Bicubic => FilterType::CatmullRom,
            Filter::Lanczos => FilterType::Lanczos3,
            Filter::Box => FilterType::Box,
            Filter::Hamming => FilterType::Hamming,
        }
    }
}
named!(Filter, "filter", "bilinear, bicubic, lanczos, box or hamming", Bilinear Bicubic Lanczos Box Hamming);

/// How images are brought to one size: by antialiased convolution as Pillow does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resize {
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// What becomes of another shape.
    pub fit: Fit,
    /// With [`Fit::Crop`]: the length in pixels that the shorter side is brought to before the cut; what covers the
    /// size if `None`.
    pub short: Option<u32>,
    /// How pixels are weighed.
    pub filter: Filter,
}

/// The longest side of an image that is scaled: the table of weights takes up to 48 bytes for each pixel of a side.
const MAX_SIDE: u32 = 1 << 20;

/// The most pixels between the two passes, unless the image itself has as many.
const LARGE: u64 = 1 << 24;

/// The widest filter's reach to one side, in pixels of the smaller image.
const SUPPORT: f64 = 3.0;

/// What does the work, by the instructions that this processor has.
#[derive(Default)]
struct Kernels {
    resizer: Resizer,
    alpha: MulDiv,
}

/// A part of an image in pixels and fractions of them: left, top, width and height.
type Part = [f64; 4];

impl Resize {
    /// Checks what does not depend on the image.
    ///
    /// # Errors
    /// [`Error::Argument`] if a side is zero, or `short` does not cover the size or is given without [`Fit::Crop`].
    pub fn check(&self) -> Result<()> {
        let (width, height) = self.size;
        if width == 0 || height == 0 {
            let found = format!("{width}x{height}");
            return Err(Error::Argument { argument: "size", found, expected: "at least one pixel".into() });
        }
        let Some(short) = self.short else { return Ok(()) };
        let expected = match self.fit {
            Fit::Crop if short >= width.max(height) => return Ok(()),
            Fit::Crop => format!("at least {}, so that it covers {width}x{height}", width.max(height)),
            _ => format!("none with fit {}; it belongs to fit crop", self.fit),
        };
        Err(Error::Argument { argument: "resize short", found: short.to_string(), expected })
    }

    /// Brings an image to the size. One that has it already stays untouched, unless `short` says otherwise.
    ///
    /// # Errors
    /// Those of [`check`](Self::check); [`Error::Argument`] if the image's pixels are not as many as it says, or a
    /// side is longer than 1,048,576 pixels.
    pub fn apply(&self, image: Image) -> Result<Image> {
        self.check()?;
        check_image(&image)?;
        if (image.width, image.height) == self.size
            && self.short.is_none_or(|short| short == image.width.min(image.height))
        {
            return Ok(image);
        }
        let whole = [0.0, 0.0, f64::from(image.width), f64::from(image.height)];
        match self.fit {
            Fit::Crop => self.scale(&image, self.part(&image)),
            Fit::Stretch => self.scale(&image, whole),
            Fit::Pad => {
                let inner = inside(&image, self.size);
                let inner = Resize { size: inner, ..*self }.scale(&image, whole)?;
                Ok(if (inner.width, inner.height) == self.size { inner } else { centre(&inner, self.size) })
            }
        }
    }

    /// What of an image is seen in the end if it is scaled and cut as torchvision's Resize and CenterCrop do it: the
    /// longer side is cut to whole pixels, and the cut begins at a whole pixel.
    fn part(&self, image: &Image) -> Part {
        let sides =
            [(image.width, self.size.0), (image.height, self.size.1)].map(|(a, b)| (u64::from(a), u64::from(b)));
        let [(width, across), (height, down)] = sides;
        let (side, target) = match self.short {
            Some(short) => (width.min(height), u64::from(short)),
            None if width * down >= height * across => (height, down),
            None => (width, across),
        };
        let [(left, width), (top, height)] = sides.map(|(found, wanted)| {
            let scaled = target * found / side;
            let start = half(scaled - wanted);
            let back = |place: u64| found as f64 * place as f64 / scaled as f64;
            (back(start), back(wanted))
        });
        [left, top, width, height]
    }

    /// Scales a part of an image to the size. As in Pillow, what lies around the part is looked at, too.
    fn scale(&self, image: &Image, part: Part) -> Result<Image> {
        let mut kernels = Kernels::default();
        let scaled = match image.channels {
            _ if image.width.max(image.height) > MAX_SIDE => Err("a side is longer than 1048576 pixels".into()),
            1 => self.scale_pixels::<U8>(&mut kernels, image, part),
            3 => self.scale_pixels::<U8x3>(&mut kernels, image, part),
            _ => self.scale_pixels::<U8x4>(&mut kernels, image, part),
        };
        let (width, height) = self.size;
        let pixels = scaled.map_err(|error| Error::Argument {
            argument: "image size",
            found: format!("{}x{} to {width}x{height} ({error})", image.width, image.height),
            expected: "a size that can be resized".into(),
        })?;
        Ok(Image { width, height, channels: image.channels, pixels })
    }

    fn scale_pixels<P: PixelTrait>(
        &self,
        kernels: &mut Kernels,
        image: &Image,
        part: Part,
    ) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let [left, top, width, height] = part;
        let (across, down) = self.size;
        if (width, height) == (f64::from(across), f64::from(down)) {
            return self.convolve::<P>(kernels, (image.width, image.height), &image.pixels, part, self.size);
        }
        let mut pixels = Cow::Borrowed(&image.pixels);
        if image.channels == 4 {
            let mut whole = TypedImage::<P>::from_buffer(image.width, image.height, pixels.to_mut())?;
            kernels.alpha.multiply_alpha_inplace_typed(&mut whole)?;
        }
        // Rows first, then columns, as Pillow does it (from version 13 on only if the height does not shrink much more
        // than the width): where filters overshoot, the order shows. Only the rows that are looked at.
        let margin = SUPPORT * (height / f64::from(down)).max(1.0) + 1.0;
        let first = (top - margin).floor().max(0.0);
        let rows = (top + height + margin).ceil().min(image.height.into()) - first;
        let middle = (across, rows as u32);
        let mut scaled = if u64::from(middle.0) * u64::from(middle.1) <= LARGE || across <= image.width {
            let lines = [left, first, width, rows];
            let lines = self.convolve::<P>(kernels, (image.width, image.height), &pixels, lines, middle)?;
            self.convolve::<P>(kernels, middle, &lines, [0.0, top - first, across.into(), height], self.size)?
        } else {
            // A long line that is to become wide: the other way round, or it would take up to terabytes.
            let (all, middle) = (f64::from(image.width), (image.width, down));
            let part = [0.0, top, all, height];
            let lines = self.convolve::<P>(kernels, (image.width, image.height), &pixels, part, middle)?;
            self.convolve::<P>(kernels, middle, &lines, [left, 0.0, width, down.into()], self.size)?
        };
        if image.channels == 4 {
            kernels.alpha.divide_alpha_inplace_typed(&mut TypedImage::<P>::from_buffer(across, down, &mut scaled)?)?;
        }
        Ok(scaled)
    }

    fn convolve<P: PixelTrait>(
        &self,
        kernels: &mut Kernels,
        from: (u32, u32),
        pixels: &[u8],
        [left, top, width, height]: Part,
        to: (u32, u32),
    ) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let source = TypedImageRef::<P>::from_buffer(from.0, from.1, pixels)?;
        let mut scaled = vec![0; to.0 as usize * to.1 as usize * size_of::<P>()];
        let mut target = TypedImage::<P>::from_buffer(to.0, to.1, &mut scaled)?;
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(self.filter.kernel())).use_alpha(false);
        kernels.resizer.resize_typed(&source, &mut target, &options.crop(left, top, width, height))?;
        drop(target);
        Ok(scaled)
    }
}

fn check_image(image: &Image) -> Result<()> {
    let Image { width, height, channels, ref pixels } = *image;
    let expected = u128::from(width) * u128::from(height) * u128::from(channels);
    if expected == 0 || !matches!(channels, 1 | 3 | 4) || pixels.len() as u128 != expected {
        return Err(Error::Argument {
            argument: "image",
            found: format!("{} values for {width}x{height} pixels of {channels}", pixels.len()),
            expected: "1, 3 or 4 values for each pixel, and no empty image".into(),
        });
    }
    Ok(())
}

/// Half of a number, ties to even as Python rounds.
fn half(number: u64) -> u64 {
    number / 2 + u64::from(number % 4 == 3)
}

/// The largest size of the image's proportions, each side at least one pixel, that lies within `size`: Pillow's
/// ImageOps.contain.
fn inside(image: &Image, size: (u32, u32)) -> (u32, u32) {
    let [width, height, across, down] = [image.width, image.height, size.0, size.1].map(f64::from);
    let side = |ratio: f64, target: f64| (ratio * target).round_ties_even().clamp(1.0, f64::from(u32::MAX)) as u32;
    if width / height > across / down {
        (size.0, side(height / width, across).min(size.1))
    } else {
        (side(width / height, down).min(size.0), size.1)
    }
}

/// Puts an image into the middle of zeros, as Pillow's ImageOps.pad does.
fn centre(image: &Image, size: (u32, u32)) -> Image {
    let channels = image.channels as usize;
    let [row, inner_row] = [size.0, image.width].map(|width| width as usize * channels);
    let [left, top] = [size.0 - image.width, size.1 - image.height].map(|rest| half(u64::from(rest)) as usize);
    let left = left * channels;
    let mut pixels = vec![0; row * size.1 as usize];
    for (target, source) in pixels.chunks_exact_mut(row).skip(top).zip(image.pixels.chunks_exact(inner_row)) {
        target[left..left + inner_row].copy_from_slice(source);
    }
    Image { width: size.0, height: size.1, channels: image.channels, pixels }
}

#[cfg(test)]
mod tests {
    use fast_image_resize::CpuExtensions;
    use rand::{Rng, SeedableRng};
    use rand_pcg::Pcg32;

    use super::*;

    const FILTERS: [Filter; 5] = [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos, Filter::Box, Filter::Hamming];

    fn resize(image: &Image, size: (u32, u32), fit: Fit) -> Result<Image> {
        Resize { size, fit, short: None, filter: Filter::Bilinear }.apply(image.clone())
    }

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

    /// Noise, so that any difference between kernels shows.
    fn noise(width: u32, height: u32, channels: u32) -> Image {
        let mut random = Pcg32::seed_from_u64((width * height + channels).into());
        let pixels = (0..width * height * channels).map(|_| (random.next_u32() >> 24) as u8).collect();
        Image { width, height, channels, pixels }
    }

    #[test]
    fn the_shorter_side_is_scaled_and_the_cut_rounds_half_to_even() {
        let part = |width, height, size, short| {
            Resize { size, fit: Fit::Crop, short, filter: Filter::Bilinear }.part(&grey(width, height, []))
        };
        // torchvision: Resize(256) of 500x333 is 384x256, CenterCrop(224) begins at 80, 16.
        let scaled = |places: [f64; 2], from: f64, to: f64| places.map(|place| place * from / to);
        let ([left, width], [top, height]) = (scaled([80.0, 224.0], 500.0, 384.0), scaled([16.0, 224.0], 333.0, 256.0));
        assert_eq!(part(500, 333, (224, 224), Some(256)), [left, top, width, height]);
        // 7x4 to 4x4 leaves 3 pixels, of which round(1.5) = 2 are left of the cut; 5x4 leaves 1 and round(0.5) = 0.
        assert_eq!(part(7, 4, (4, 4), None), [2.0, 0.0, 4.0, 4.0]);
        assert_eq!(part(5, 4, (4, 4), None), [0.0, 0.0, 4.0, 4.0]);
        // 2000x3 covers 8x2 at 1333x2 (1333.3 cut): the cut begins at round(662.5) = 662.
        let [left, width] = scaled([662.0, 8.0], 2000.0, 1333.0);
        assert_eq!(part(2000, 3, (8, 2), None), [left, 0.0, width, 3.0]);
    }

    #[test]
    fn every_instruction_set_gives_the_same_bytes() {
        #[cfg(target_arch = "x86_64")]
        let all = [CpuExtensions::None, CpuExtensions::Sse4_1, CpuExtensions::Avx2];
        #[cfg(target_arch = "aarch64")]
        let all = [CpuExtensions::None, CpuExtensions::Neon];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let all = [CpuExtensions::None];
        for (filter, channels, size) in FILTERS
            .into_iter()
            .flat_map(|filter| [1, 3, 4].map(|channels| (filter, channels)))
            .flat_map(|(filter, channels)| [(33, 21), (64, 64), (7, 150)].map(|size| (filter, channels, size)))
        {
            let image = noise(101, 67, channels);
            let resize = Resize { size, fit: Fit::Crop, short: Some(150), filter };
            let expected = resize.apply(image.clone()).expect("resize");
            for extensions in all.into_iter().filter(CpuExtensions::is_supported) {
                let mut kernels = Kernels::default();
                // SAFETY: those that this processor has.
                unsafe {
                    kernels.resizer.set_cpu_extensions(extensions);
                    kernels.alpha.set_cpu_extensions(extensions);
                }
                let part = resize.part(&image);
                let pixels = match channels {
                    1 => resize.scale_pixels::<U8>(&mut kernels, &image, part),
                    3 => resize.scale_pixels::<U8x3>(&mut kernels, &image, part),
                    _ => resize.scale_pixels::<U8x4>(&mut kernels, &image, part),
                };
                assert!(pixels.expect("resize") == expected.pixels, "{filter} {channels} {size:?} {extensions:?}");
            }
        }
    }

    #[test]
    fn what_does_not_cover_the_size_is_refused() {
        let resize = |fit, short| Resize { size: (28, 20), fit, short: Some(short), filter: Filter::Box }.check();
        assert!(resize(Fit::Crop, 28).is_ok());
        for (fit, short) in [(Fit::Crop, 27), (Fit::Stretch, 28), (Fit::Pad, 28)] {
            assert!(
                matches!(resize(fit, short), Err(Error::Argument { argument: "resize short", .. })),
                "{fit} {short}"
            );
        }
        // What would take a terabyte if it were widened first.
        let tall = resize_to((40_000, 4)).apply(grey(1, MAX_SIDE, vec![9; MAX_SIDE as usize])).expect("resize");
        assert!(tall.pixels == [9; 160_000]);
        let line = grey(MAX_SIDE + 1, 1, vec![0; MAX_SIDE as usize + 1]);
        assert!(matches!(resize_to((4, 4)).apply(line), Err(Error::Argument { .. })));
    }

    fn resize_to(size: (u32, u32)) -> Resize {
        Resize { size, fit: Fit::Stretch, short: None, filter: Filter::Bilinear }
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
        for filter in FILTERS {
            assert_eq!(filter.to_string().parse::<Filter>().expect("name"), filter);
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
