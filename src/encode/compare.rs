//! An archive beside what other codecs make of the same images in as many bytes.

use std::path::Path;

use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};
use rayon::prelude::*;
use serde::Serialize;
use texpresso::{Algorithm, COLOUR_WEIGHTS_UNIFORM, Format, Params};

use super::against::Originals;
use super::picture::{Image, ReadOptions};
use super::quality::psnr;
use super::resize::{Filter, Fit, Resize};
use super::ssim::ssim;
use crate::archive::Archive;
use crate::data::Data;
use crate::decode::Decoder;
use crate::decode::cpu::CpuDecoder;
use crate::error::{Error, Result};
use crate::output::OutputSpec;
use crate::progress::{Counter, Progress};

/// The most memory for the images that are compared.
const MAX_BYTES: usize = 4 << 30;

/// What an image takes and how good it is: means over the images compared.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quality {
    /// Bytes per image.
    pub bytes_per_image: f64,
    /// PSNR in dB, an exact image counted as 100.
    pub psnr_db: f64,
    /// Structural similarity (see [`ssim`]); `None` for images below 11x11 pixels.
    pub ssim: Option<f64>,
}

/// Which bytes of the archive another codec was given as many as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Budget {
    /// The file over its samples: what it takes to keep these images.
    File,
    /// An index row: what one more image takes.
    Row,
}

/// Another codec at about as many bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Rival {
    /// The archive's bytes that it was given.
    pub budget: Budget,
    /// Its name.
    pub codec: &'static str,
    /// What was chosen so that the bytes fit.
    pub setting: String,
    /// What came of it.
    #[serde(flatten)]
    pub quality: Quality,
}

/// What [`compare`] found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// The samples compared.
    pub samples: Vec<usize>,
    /// The archive; its bytes per image are those of the whole file, codebook included, over all its samples.
    pub archive: Quality,
    /// Bytes of a row, in the mean over these samples.
    pub row_bytes: f64,
    /// The others.
    pub rivals: Vec<Rival>,
}

/// Compares samples of an archive with JPEG (4:2:0, optimised Huffman tables) and BC1 (BC4 for grey) at as many bytes,
/// all of them against the images that were encoded, resized as they were.
///
/// JPEG takes one quality for all images; between the two whole qualities whose mean bytes lie around the archive's,
/// figures are interpolated. BC1 takes half a byte per pixel whatever the image, so with fewer bytes it is given
/// smaller images, which are scaled back (Lanczos, both ways), and with more it keeps its own.
///
/// # Errors
/// [`Error::Argument`] for archives of RGBA images, which JPEG cannot hold, for no samples, or if the images take more
/// than 4 GiB of memory; [`Error::Sample`]; errors of the images; [`Error::Interrupted`].
pub fn compare<D: Data>(
    archive: &Archive<D>,
    originals: &Originals,
    samples: &[usize],
    progress: &dyn Progress,
) -> Result<Comparison> {
    let g = archive.geometry();
    let argument =
        |argument, found, expected: &str| Err(Error::Argument { argument, found, expected: expected.into() });
    if g.channels() == 4 {
        return argument("channels of the archive", "4".into(), "1 or 3, since JPEG has no alpha channel");
    }
    if samples.is_empty() {
        return argument("samples to compare", "none".into(), "at least one");
    }
    if samples.len().saturating_mul(g.image_len()) > MAX_BYTES {
        return argument("samples to compare", samples.len().to_string(), "fewer, whose pixels fit in 4 GiB");
    }
    let rows = archive.rows(samples.iter().copied())?;
    let counter = Counter::new(progress, "reading", samples.len());
    let read = |&sample: &usize| -> Result<Image> {
        let image = originals.prepare(sample);
        counter.add(1)?;
        image
    };
    let images = Images { images: samples.par_iter().map(read).collect::<Result<_>>()?, progress };

    let decoder = CpuDecoder::new(archive)?;
    let row_bytes = rows.iter().map(|row| row.len()).sum::<usize>() as f64 / rows.len() as f64;
    let file_bytes = archive.file_len() as f64 / archive.samples() as f64;
    let decode = |i: usize, image: &Image| -> Result<Coded> {
        let pixels = decoder.decode(&[&rows[i]], &OutputSpec::default())?;
        Ok(Coded { bytes: rows[i].len(), image: Image { pixels, ..image.clone() } })
    };
    let archived = Quality { bytes_per_image: file_bytes, ..images.quality("archive", decode)? };

    let grey = g.channels() == 1;
    let mut rivals = Vec::new();
    for (budget, bytes) in [(Budget::File, file_bytes), (Budget::Row, row_bytes)] {
        let (setting, quality) = jpeg_within(&images, bytes)?;
        rivals.push(Rival { budget, codec: if grey { "JPEG" } else { "JPEG 4:2:0" }, setting, quality });
        if let Some(size) = bc_size((g.image_width() as u32, g.image_height() as u32), bytes) {
            let full = size == (g.image_width() as u32, g.image_height() as u32);
            let setting = if full { "full size".into() } else { format!("at {}x{}, scaled back", size.0, size.1) };
            let quality = images.quality("BC1", |_, image| bc(image, size))?;
            rivals.push(Rival { budget, codec: if grey { "BC4" } else { "BC1" }, setting, quality });
        }
    }
    Ok(Comparison { samples: samples.to_vec(), archive: archived, row_bytes, rivals })
}

/// An image that went through a codec, and what it took.
struct Coded {
    bytes: usize,
    image: Image,
}

/// The images that all codecs are measured on.
struct Images<'a> {
    images: Vec<Image>,
    progress: &'a dyn Progress,
}

impl Images<'_> {
    /// The mean quality of what a codec makes of them.
    fn quality(&self, stage: &str, code: impl Fn(usize, &Image) -> Result<Coded> + Sync) -> Result<Quality> {
        let counter = Counter::new(self.progress, stage, self.images.len());
        let measure = |(i, image): (usize, &Image)| -> Result<Quality> {
            let Coded { bytes, image: coded } = code(i, image)?;
            counter.add(1)?;
            let [width, height, channels] = [image.width, image.height, image.channels].map(|side| side as usize);
            Ok(Quality {
                bytes_per_image: bytes as f64,
                psnr_db: psnr(&image.pixels, &coded.pixels),
                ssim: ssim(&image.pixels, &coded.pixels, width, height, channels),
            })
        };
        let each = self.images.par_iter().enumerate().map(measure).collect::<Result<Vec<_>>>()?;
        let mean = |value: fn(&Quality) -> f64| each.iter().map(value).sum::<f64>() / each.len() as f64;
        let ssim: Option<f64> = each.iter().map(|quality| quality.ssim).sum();
        Ok(Quality {
            bytes_per_image: mean(|quality| quality.bytes_per_image),
            psnr_db: mean(|quality| quality.psnr_db),
            ssim: ssim.map(|sum| sum / each.len() as f64),
        })
    }

    /// The mean bytes of JPEG files of a quality.
    fn jpeg_bytes(&self, quality: u8) -> Result<f64> {
        let counter = Counter::new(self.progress, "JPEG", self.images.len());
        let bytes = |image: &Image| {
            counter.add(1)?;
            jpeg(image, quality).map(|file| file.len())
        };
        let bytes = self.images.par_iter().map(bytes).collect::<Result<Vec<_>>>()?;
        Ok(bytes.iter().sum::<usize>() as f64 / bytes.len() as f64)
    }
}

/// JPEG at so many bytes per image, between two of its qualities or at the end of them.
fn jpeg_within(images: &Images, bytes: f64) -> Result<(String, Quality)> {
    // Higher qualities take more bytes: the last one that fits lies below `above`.
    let (mut fits, mut above) = (0, 101);
    while above - fits > 1 {
        let middle = (fits + above) / 2;
        match images.jpeg_bytes(middle)? <= bytes {
            true => fits = middle,
            false => above = middle,
        }
    }
    let at = |quality: u8| {
        images.quality("JPEG", |_, image| {
            let file = jpeg(image, quality)?;
            let decoded = Image::decode_bytes(&file, Path::new("the JPEG file"), &ReadOptions::new(image.channels))?;
            Ok(Coded { bytes: file.len(), image: decoded })
        })
    };
    match (fits, above) {
        (0, least) => Ok((format!("quality {least}, its lowest"), at(least)?)),
        (best, 101) => Ok((format!("quality {best}, its highest"), at(best)?)),
        _ => {
            let (low, high) = (at(fits)?, at(above)?);
            let share = (bytes - low.bytes_per_image) / (high.bytes_per_image - low.bytes_per_image);
            let between = |low: f64, high: f64| low + share * (high - low);
            let quality = Quality {
                bytes_per_image: bytes,
                psnr_db: between(low.psnr_db, high.psnr_db),
                ssim: low.ssim.zip(high.ssim).map(|(low, high)| between(low, high)),
            };
            Ok((format!("quality {:.1}", f64::from(fits) + share), quality))
        }
    }
}

fn jpeg(image: &Image, quality: u8) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, quality);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    encoder.set_optimized_huffman_tables(true);
    // Sides of archives' images are at most 65,535 pixels, as are JPEG's.
    let (width, height) = (image.width as u16, image.height as u16);
    let colour = if image.channels == 1 { ColorType::Luma } else { ColorType::Rgb };
    encoder.encode(&image.pixels, width, height, colour).map_err(|error| Error::Argument {
        argument: "image to encode as JPEG",
        found: format!("{width}x{height} ({error})"),
        expected: "a size that JPEG can hold".into(),
    })?;
    Ok(file)
}

/// The largest size of the image's proportions that block compression (8 bytes for 4x4 pixels) brings to so many bytes.
fn bc_size((width, height): (u32, u32), bytes: f64) -> Option<(u32, u32)> {
    let scaled = |across: u32| {
        let down = (u64::from(height) * u64::from(across) * 2 + u64::from(width)) / (2 * u64::from(width));
        (across, (down as u32).max(1))
    };
    let taken = |(across, down): (u32, u32)| 8.0 * f64::from(across.div_ceil(4)) * f64::from(down.div_ceil(4));
    (1..=width).rev().map(scaled).find(|&size| taken(size) <= bytes)
}

/// Block compression at a size, scaled back from it: BC1 for colours, its like for one channel, BC4, for grey.
fn bc(image: &Image, size: (u32, u32)) -> Result<Coded> {
    let resize = |size| Resize { size, fit: Fit::Stretch, short: None, filter: Filter::Lanczos };
    let small = resize(size).apply(image.clone())?;
    let channels = image.channels as usize;
    let format = if channels == 1 { Format::Bc4 } else { Format::Bc1 };
    let rgba = small.pixels.chunks_exact(channels).flat_map(|p| [p[0], p[channels / 2], p[channels - 1], 255]);
    let mut rgba: Vec<u8> = rgba.collect();
    let (width, height) = (size.0 as usize, size.1 as usize);
    let mut blocks = vec![0; format.compressed_size(width, height)];
    // Weighted alike, which is what PSNR does.
    let params = Params { algorithm: Algorithm::ClusterFit, weights: COLOUR_WEIGHTS_UNIFORM, ..Params::default() };
    format.compress(&rgba, width, height, params, &mut blocks);
    format.decompress(&blocks, width, height, &mut rgba);
    let pixels = rgba.chunks_exact(4).flat_map(|p| p[..channels].iter().copied()).collect();
    let image = resize((image.width, image.height)).apply(Image { pixels, ..small })?;
    Ok(Coded { bytes: blocks.len(), image })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(width: u32, height: u32, channels: u32) -> Image {
        let value = |i: u32| {
            let (x, y, c) = (i / channels % width, i / channels / width, i % channels);
            (128.0 + 60.0 * ((x + 7 * c) as f32 / 9.0).sin() + 60.0 * ((y * (c + 1)) as f32 / 11.0).cos()) as u8
        };
        Image { width, height, channels, pixels: (0..width * height * channels).map(value).collect() }
    }

    #[test]
    fn block_compression_is_brought_to_the_bytes_it_may_take() {
        assert_eq!(bc_size((224, 224), 25_088.0), Some((224, 224)));
        assert_eq!(bc_size((224, 224), 1e9), Some((224, 224)));
        // 28 x 28 blocks of 8 bytes are 6,272 bytes: a quarter of the pixels.
        assert_eq!(bc_size((224, 224), 6_272.0), Some((112, 112)));
        assert_eq!(bc_size((224, 224), 6_271.0), Some((108, 108)));
        assert_eq!(bc_size((300, 200), 8.0), Some((4, 3)));
        assert_eq!(bc_size((1, 1000), 8.0), None, "a column of 250 blocks cannot become narrower");
        assert_eq!(bc_size((4, 4), 7.9), None);
        for channels in [1, 3] {
            let image = wave(64, 48, channels);
            for (size, bytes, least) in [((64, 48), 1536, 30.0), ((33, 25), 504, 22.0)] {
                let coded = bc(&image, size).expect("coded");
                assert_eq!((coded.bytes, coded.image.width, coded.image.height), (bytes, 64, 48));
                let found = psnr(&image.pixels, &coded.image.pixels);
                assert!(found > least && found < 60.0, "{channels} channels at {size:?}: {found}");
            }
        }
    }

    #[test]
    fn two_colours_survive_block_compression() {
        // Colours of 5, 6 and 5 bits that BC1 holds exactly: black and white.
        let pixels = (0..16 * 16 * 3).map(|i| if i / 3 % 2 == 0 { 0 } else { 255 }).collect();
        let image = Image { width: 16, height: 16, channels: 3, pixels };
        assert_eq!(bc(&image, (16, 16)).expect("coded").image, image);
    }

    #[test]
    fn jpeg_takes_the_bytes_it_is_given() {
        for channels in [1, 3] {
            let images = Images { images: vec![wave(64, 48, channels), wave(64, 48, channels)], progress: &() };
            let bytes = (images.jpeg_bytes(60).expect("coded") + images.jpeg_bytes(80).expect("coded")) / 2.0;
            let (setting, quality) = jpeg_within(&images, bytes).expect("coded");
            let found: f64 = setting.strip_prefix("quality ").expect("a quality").parse().expect("a number");
            assert!((60.0..80.0).contains(&found), "{setting}");
            assert_eq!(quality.bytes_per_image, bytes);
            let low = jpeg_within(&images, 1.0).expect("coded");
            let high = jpeg_within(&images, 1e9).expect("coded");
            assert_eq!((low.0.as_str(), high.0.as_str()), ("quality 1, its lowest", "quality 100, its highest"));
            assert!(low.1.psnr_db < quality.psnr_db && quality.psnr_db < high.1.psnr_db);
            assert!(low.1.ssim < quality.ssim && quality.ssim < high.1.ssim && high.1.ssim > Some(0.99));
        }
    }
}
