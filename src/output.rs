//! What decoded batches look like: element type, layout, normalisation.

use std::fmt;

use half::f16;

use crate::error::{Error, Result};
use crate::geometry::Geometry;

/// Element type of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dtype {
    /// 0 to 255, exactly as the codebook holds them.
    #[default]
    U8,
    /// IEEE 754 half precision: the `F32` value rounded to the nearest.
    F16,
    /// IEEE 754 single precision: value / 255, or normalised.
    F32,
}

impl Dtype {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Dtype::U8 => 1,
            Dtype::F16 => 2,
            Dtype::F32 => 4,
        }
    }

    /// The number that an element's bytes stand for.
    fn read(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Dtype::U8, &[byte, ..]) => byte.into(),
            (Dtype::F16, &[a, b, ..]) => f16::from_ne_bytes([a, b]).to_f32(),
            (Dtype::F32, &[a, b, c, d, ..]) => f32::from_ne_bytes([a, b, c, d]),
            _ => f32::NAN,
        }
    }

    /// The name that the command and numpy users know.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::U8 => "u8",
            Dtype::F16 => "f16",
            Dtype::F32 => "f32",
        }
    }
}

/// Order of a batch's axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// Batch, height, width, channels: pixels interleaved.
    #[default]
    Nhwc,
    /// Batch, channels, height, width: one plane per channel.
    Nchw,
}

impl Layout {
    /// The name that the command knows.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Nhwc => "nhwc",
            Layout::Nchw => "nchw",
        }
    }

    /// The place of a value within its image.
    pub fn offset(self, geometry: &Geometry, y: usize, x: usize, channel: usize) -> usize {
        match self {
            Layout::Nhwc => (y * geometry.image_width() + x) * geometry.channels() + channel,
            Layout::Nchw => (channel * geometry.image_height() + y) * geometry.image_width() + x,
        }
    }

    /// The shape of a batch.
    pub fn shape(self, geometry: &Geometry, batch: usize) -> [usize; 4] {
        let (height, width, channels) = (geometry.image_height(), geometry.image_width(), geometry.channels());
        match self {
            Layout::Nhwc => [batch, height, width, channels],
            Layout::Nchw => [batch, channels, height, width],
        }
    }
}

macro_rules! named {
    ($type:ident, $argument:literal, $expected:literal, $($variant:ident)*) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::Error;

            fn from_str(text: &str) -> $crate::Result<Self> {
                [$($type::$variant),*].into_iter().find(|value| value.name().eq_ignore_ascii_case(text)).ok_or_else(
                    || $crate::Error::Argument { argument: $argument, found: text.into(), expected: $expected.into() },
                )
            }
        }
    };
}
pub(crate) use named;
named!(Dtype, "dtype", "u8, f16 or f32", U8 F16 F32);
named!(Layout, "layout", "nhwc or nchw", Nhwc Nchw);

/// Mean and standard deviation per channel, of values scaled to 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalization {
    channels: usize,
    mean: [f32; 4],
    std: [f32; 4],
}

impl Normalization {
    /// One mean and one standard deviation per channel.
    ///
    /// # Errors
    /// [`Error::Normalization`] unless there are as many of each, 1 to 4, all finite, and no deviation is zero or
    /// so small that a value overflows.
    pub fn new(mean: &[f32], std: &[f32]) -> Result<Self> {
        let fail = |problem: String| Err(Error::Normalization { problem });
        if mean.len() != std.len() || !(1..=4).contains(&mean.len()) {
            return fail(format!("{} means and {} deviations, expected 1 to 4 of each", mean.len(), std.len()));
        }
        let mut this = Self { channels: mean.len(), mean: [0.0; 4], std: [1.0; 4] };
        this.mean[..mean.len()].copy_from_slice(mean);
        this.std[..std.len()].copy_from_slice(std);
        for channel in 0..mean.len() {
            let (scale, bias) = this.line(channel);
            let (scale, bias) = (scale as f32, bias as f32);
            let in_range = |value: u8| this.apply(value, channel).is_finite();
            if !(scale.is_finite() && bias.is_finite() && scale != 0.0 && in_range(0) && in_range(255)) {
                let (mean, std) = (mean[channel], std[channel]);
                return fail(format!("channel {channel} has mean {mean} and deviation {std}; values must stay finite"));
            }
        }
        Ok(this)
    }

    /// The usual constants of RGB networks trained on ImageNet (torchvision's): mean 0.485, 0.456, 0.406,
    /// deviation 0.229, 0.224, 0.225.
    pub fn imagenet() -> Self {
        Self { channels: 3, mean: [0.485, 0.456, 0.406, 0.0], std: [0.229, 0.224, 0.225, 1.0] }
    }

    fn apply(&self, value: u8, channel: usize) -> f32 {
        let value = f64::from(value) / 255.0;
        ((value - f64::from(self.mean[channel])) / f64::from(self.std[channel])) as f32
    }

    fn line(&self, channel: usize) -> (f64, f64) {
        let (mean, std) = (f64::from(self.mean[channel]), f64::from(self.std[channel]));
        (1.0 / (255.0 * std), -mean / std)
    }
}

/// What a decoder writes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct OutputSpec {
    /// Element type.
    pub dtype: Dtype,
    /// Order of the axes.
    pub layout: Layout,
    /// For float types: (value / 255 - mean) / std instead of value / 255.
    pub normalization: Option<Normalization>,
}

impl OutputSpec {
    /// Bytes of a batch; the largest number, which no buffer has, if they are more than a `usize` counts.
    pub fn batch_len(&self, geometry: &Geometry, batch: usize) -> usize {
        (geometry.image_len() * self.dtype.size()).saturating_mul(batch)
    }

    /// The float that stands for a byte of a channel: the definition that every backend follows.
    pub fn value(&self, value: u8, channel: usize) -> f32 {
        match &self.normalization {
            Some(normalization) => normalization.apply(value, channel),
            None => (f64::from(value) / 255.0) as f32,
        }
    }

    /// Per channel, the factor and the summand that give [`value`](Self::value) up to rounding.
    pub fn scale_bias(&self, channel: usize) -> (f32, f32) {
        let (scale, bias) = self.line(channel);
        (scale as f32, bias as f32)
    }

    /// [`scale_bias`](Self::scale_bias) in double precision.
    pub(crate) fn line(&self, channel: usize) -> (f64, f64) {
        self.normalization.as_ref().map_or((1.0 / 255.0, 0.0), |n| n.line(channel))
    }

    /// The first value in which a batch differs from the oracle's: bytes in any bit, floats by more than
    /// [`float_tolerance`]. Lengths that differ count as a difference at the shorter one's end.
    pub fn first_difference(&self, found: &[u8], expected: &[u8]) -> Option<usize> {
        if found == expected {
            return None;
        }
        let size = self.dtype.size();
        let tolerance = float_tolerance(self.dtype);
        let differ = |(a, b): (&[u8], &[u8])| {
            let (a, b) = (self.dtype.read(a), self.dtype.read(b));
            let error = (a - b).abs();
            error > tolerance * b.abs().max(1.0) || error.is_nan()
        };
        let place = found.chunks_exact(size).zip(expected.chunks_exact(size)).position(differ);
        let shorter = found.len().min(expected.len()) / size;
        place.or((found.len() != expected.len()).then_some(shorter))
    }

    /// Checks the specification against the images it is for.
    ///
    /// # Errors
    /// [`Error::Normalization`] if it asks to normalise bytes, or has not one mean per channel.
    pub fn check(&self, geometry: &Geometry) -> Result<()> {
        let Some(normalization) = &self.normalization else { return Ok(()) };
        if self.dtype == Dtype::U8 {
            let problem = "u8 output is never normalised; ask for f16 or f32".into();
            return Err(Error::Normalization { problem });
        }
        let (found, channels) = (normalization.channels, geometry.channels());
        if found != channels {
            let problem = format!("means and deviations for {found} channels, the images have {channels}");
            return Err(Error::Normalization { problem });
        }
        Ok(())
    }
}

impl fmt::Display for OutputSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let normalized = if self.normalization.is_some() { " normalised" } else { "" };
        write!(f, "{} {}{normalized}", self.dtype, self.layout)
    }
}

/// How far a float computed by another backend may lie from the oracle's: this much of the larger of 1 and its
/// magnitude. A GPU multiplies and adds where the definition divides, and may fuse the two: a few units in the
/// last place of single precision; one unit of half precision, whose rounding WGSL leaves open.
pub fn float_tolerance(dtype: Dtype) -> f32 {
    match dtype {
        Dtype::U8 => 0.0,
        Dtype::F16 => 1.0 / 1024.0,
        Dtype::F32 => 4.0 * f32::EPSILON,
    }
}

/// The type of an output buffer's elements.
pub trait Element: bytemuck::Pod + Send + Sync + private::Sealed {
    /// Its name at run time.
    const DTYPE: Dtype;
}

impl Element for u8 {
    const DTYPE: Dtype = Dtype::U8;
}

impl Element for f16 {
    const DTYPE: Dtype = Dtype::F16;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
}

mod private {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for half::f16 {}
    impl Sealed for f32 {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imagenet_normalisation_gives_the_published_range() {
        // What torchvision's ToTensor and Normalize return for black and white, to five digits.
        let spec =
            OutputSpec { dtype: Dtype::F32, normalization: Some(Normalization::imagenet()), ..Default::default() };
        for (channel, black, white) in [(0, -2.117_904, 2.248_908), (1, -2.035_714, 2.428_571), (2, -1.804_444, 2.64)] {
            assert!((spec.value(0, channel) - black).abs() < 1e-6);
            assert!((spec.value(255, channel) - white).abs() < 1e-6);
        }
    }

    #[test]
    fn batches_that_nobody_can_hold_are_counted_without_overflow() {
        let geometry = Geometry::new((65_535, 65_535), 4, (1, 1)).expect("valid");
        let spec = OutputSpec { dtype: Dtype::F32, ..Default::default() };
        assert_eq!(spec.batch_len(&geometry, 2), 2 * 4 * 17_179_344_900);
        assert_eq!(spec.batch_len(&geometry, usize::MAX / 1000), usize::MAX);
    }

    #[test]
    fn scale_and_bias_give_the_value_within_the_tolerance() {
        let normalization = Some(Normalization::imagenet());
        for spec in [OutputSpec::default(), OutputSpec { normalization, ..Default::default() }] {
            for (channel, value) in (0..3).flat_map(|c| (0..=255).map(move |v| (c, v))) {
                let (scale, bias) = spec.scale_bias(channel);
                let expected = spec.value(value, channel);
                let error = (f32::from(value) * scale + bias - expected).abs();
                assert!(error <= float_tolerance(Dtype::F32) * expected.abs().max(1.0), "{value}: {error}");
            }
        }
    }

    #[test]
    fn normalisation_that_cannot_be_applied_is_refused() {
        let geometry = Geometry::new((4, 4), 3, (2, 2)).expect("valid");
        for (mean, std) in [
            (&[0.5][..], &[0.0][..]),
            (&[f32::NAN], &[1.0]),
            (&[0.0], &[f32::INFINITY]),
            (&[f32::MAX], &[1e-3]),
            (&[0.5, 0.5], &[0.5]),
            (&[], &[]),
            (&[0.5; 5], &[0.5; 5]),
        ] {
            assert!(Normalization::new(mean, std).is_err(), "{mean:?} {std:?}");
        }
        let grey = Some(Normalization::new(&[0.5], &[0.5]).expect("valid"));
        let float = OutputSpec { dtype: Dtype::F32, normalization: grey, ..Default::default() };
        assert!(float.check(&geometry).is_err());
        let bytes = OutputSpec { normalization: Some(Normalization::imagenet()), ..Default::default() };
        assert!(bytes.check(&geometry).is_err());
    }
}
