//! Images cut into patches.

use crate::geometry::Geometry;

/// Copies the patch at a place of the grid out of an image. What lies beyond the image repeats its edge.
pub(super) fn cut(geometry: &Geometry, image: &[u8], x: usize, y: usize, patch: &mut [u8]) {
    let channels = geometry.channels();
    let (left, top) = (x * geometry.patch_width(), y * geometry.patch_height());
    let inside = geometry.patch_width().min(geometry.image_width() - left) * channels;
    for (row, target) in patch.chunks_exact_mut(geometry.patch_row_len()).enumerate() {
        let y = (top + row).min(geometry.image_height() - 1);
        let start = y * geometry.image_row_len() + left * channels;
        target[..inside].copy_from_slice(&image[start..start + inside]);
        for i in inside..target.len() {
            target[i] = target[i - channels];
        }
    }
}

/// The values of a patch that lie within the image: how many rows, and how many values of each.
pub(super) fn visible(geometry: &Geometry, x: usize, y: usize) -> (usize, usize) {
    let rows = geometry.patch_height().min(geometry.image_height() - y * geometry.patch_height());
    let columns = geometry.patch_width().min(geometry.image_width() - x * geometry.patch_width());
    (rows, columns * geometry.channels())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_repeated_beyond_the_image() {
        // 3 x 2 grey pixels in patches of 2 x 3.
        let geometry = Geometry::new((3, 2), 1, (2, 3)).expect("valid");
        let image = [1, 2, 3, 4, 5, 6];
        let mut patch = [0; 6];
        cut(&geometry, &image, 0, 0, &mut patch);
        assert_eq!(patch, [1, 2, 4, 5, 4, 5]);
        cut(&geometry, &image, 1, 0, &mut patch);
        assert_eq!(patch, [3, 3, 6, 6, 6, 6]);
        assert_eq!(visible(&geometry, 0, 0), (2, 2));
        assert_eq!(visible(&geometry, 1, 0), (2, 1));
    }

    #[test]
    fn colours_stay_together() {
        let geometry = Geometry::new((3, 1), 3, (2, 1)).expect("valid");
        let image = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        let mut patch = [0; 6];
        cut(&geometry, &image, 1, 0, &mut patch);
        assert_eq!(patch, [7, 8, 9, 7, 8, 9]);
    }
}
