//! Sizes of images, patches and grids, and all arithmetic on them.

use crate::error::{Error, Result};

#[cfg(not(target_pointer_width = "64"))]
compile_error!("kuat needs a 64-bit target: an image can be larger than 4 GiB");

/// Largest image side in pixels.
pub const MAX_IMAGE_SIDE: u32 = 65_535;
/// Largest patch side in pixels.
pub const MAX_PATCH_SIDE: u32 = 16;

/// Image, patch and grid sizes of an archive, checked once: every product below fits in a `usize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    image_width: u32,
    image_height: u32,
    channels: u32,
    patch_width: u32,
    patch_height: u32,
}

impl Geometry {
    /// Sizes in pixels, each as (width, height).
    ///
    /// # Errors
    /// [`Error::Geometry`] unless image sides are 1 to 65,535, channels 1, 3 or 4, patch sides 1 to 16.
    pub fn new(image: (u32, u32), channels: u32, patch: (u32, u32)) -> Result<Self> {
        let check = |field, found: u32, ok: bool, expected| match ok {
            true => Ok(()),
            false => Err(Error::Geometry { field, found: found.into(), expected }),
        };
        let image_side = |field, side| check(field, side, (1..=MAX_IMAGE_SIDE).contains(&side), "1 to 65535");
        let patch_side = |field, side| check(field, side, (1..=MAX_PATCH_SIDE).contains(&side), "1 to 16");
        image_side("image width", image.0)?;
        image_side("image height", image.1)?;
        check("number of channels", channels, matches!(channels, 1 | 3 | 4), "1 (grey), 3 (RGB) or 4 (RGBA)")?;
        patch_side("patch width", patch.0)?;
        patch_side("patch height", patch.1)?;
        Ok(Self { image_width: image.0, image_height: image.1, channels, patch_width: patch.0, patch_height: patch.1 })
    }

    /// Width of a decoded image in pixels.
    pub fn image_width(&self) -> usize {
        self.image_width as usize
    }

    /// Height of a decoded image in pixels.
    pub fn image_height(&self) -> usize {
        self.image_height as usize
    }

    /// Channels of a pixel: 1 (grey), 3 (RGB) or 4 (RGBA).
    pub fn channels(&self) -> usize {
        self.channels as usize
    }

    /// Width of a patch in pixels.
    pub fn patch_width(&self) -> usize {
        self.patch_width as usize
    }

    /// Height of a patch in pixels.
    pub fn patch_height(&self) -> usize {
        self.patch_height as usize
    }

    /// Patches across an image: its width over the patch's, rounded up.
    pub fn grid_width(&self) -> usize {
        self.image_width().div_ceil(self.patch_width())
    }

    /// Patches down an image: its height over the patch's, rounded up.
    pub fn grid_height(&self) -> usize {
        self.image_height().div_ceil(self.patch_height())
    }

    /// Patches of an image.
    pub fn patches(&self) -> usize {
        self.grid_width() * self.grid_height()
    }

    /// Values in a codeword (patch height x patch width x channels); as bytes, its size.
    pub fn codeword_len(&self) -> usize {
        self.patch_height() * self.patch_row_len()
    }

    /// Values in one row of a patch.
    pub fn patch_row_len(&self) -> usize {
        self.patch_width() * self.channels()
    }

    /// Values in an image (height x width x channels); as `u8`, its bytes.
    pub fn image_len(&self) -> usize {
        self.image_height() * self.image_row_len()
    }

    /// Values in one row of an interleaved image.
    pub fn image_row_len(&self) -> usize {
        self.image_width() * self.channels()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grid_rounds_up() {
        let geometry = Geometry::new((225, 7), 3, (4, 8)).expect("valid");
        assert_eq!((geometry.grid_width(), geometry.grid_height()), (57, 1));
        assert_eq!(geometry.codeword_len(), 96);
        assert_eq!(geometry.image_len(), 225 * 7 * 3);
    }

    #[test]
    fn the_largest_image_is_counted_without_overflow() {
        let geometry = Geometry::new((65_535, 65_535), 4, (1, 1)).expect("valid");
        assert_eq!(geometry.image_len(), 17_179_344_900);
    }

    #[test]
    fn every_size_is_checked() {
        for (image, channels, patch) in [
            ((0, 1), 3, (4, 4)),
            ((1, 0), 3, (4, 4)),
            ((65_536, 1), 3, (4, 4)),
            ((1, 1), 2, (4, 4)),
            ((1, 1), 5, (4, 4)),
            ((1, 1), 3, (0, 4)),
            ((1, 1), 3, (4, 17)),
        ] {
            assert!(Geometry::new(image, channels, patch).is_err(), "{image:?} {channels} {patch:?}");
        }
    }
}
