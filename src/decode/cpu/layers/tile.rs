//! Tiles of 16x16 pixels, and where they go.

use super::sums::Values;
use crate::output::Layout;

/// Pixels of a tile's side.
pub(super) const SIDE: usize = 16;

/// Where a row of tiles goes.
pub(super) struct Target<'a> {
    /// From the first pixel on.
    pub bytes: &'a mut [u8],
    pub layout: Layout,
    /// Bytes from one row to the next, and from one plane to the next.
    pub stride: usize,
    pub plane: usize,
    /// Pixels across and down; tiles at the edges may be larger.
    pub width: usize,
    pub height: usize,
}

/// A plane of a tile.
type Plane = [[u8; SIDE]; SIDE];

/// The bytes of a plane: the brightness of each quarter, and what colour adds to it.
#[inline(always)]
fn plane(luma: [&Values; 4], added: [&Values; 4]) -> Plane {
    let mut plane = [[0; SIDE]; SIDE];
    for (quarter, (luma, added)) in luma.into_iter().zip(added).enumerate() {
        let mut bytes = [0; 64];
        for ((byte, &luma), &added) in bytes.iter_mut().zip(luma).zip(added) {
            *byte = (luma + added).clamp(0, 255) as u8;
        }
        let half = &mut plane[quarter / 2 * 8..][..8];
        for (row, bytes) in half.iter_mut().zip(bytes.as_chunks::<8>().0) {
            row[quarter % 2 * 8..][..8].copy_from_slice(bytes);
        }
    }
    plane
}

impl Target<'_> {
    /// Stores a tile of grey pixels.
    #[inline(always)]
    pub fn put_grey(&mut self, column: usize, luma: [&Values; 4]) {
        self.put_plane(column, 0, &plane(luma, [&[0; 64]; 4]));
    }

    /// Stores a tile: the brightness of its quarters, and what colour adds to each for red, green and blue.
    #[inline(always)]
    pub fn put(&mut self, column: usize, luma: [&Values; 4], added: &[[Values; 3]; 4]) {
        let [red, green, blue] = [0, 1, 2].map(|channel| plane(luma, added.each_ref().map(|added| &added[channel])));
        if self.layout == Layout::Nchw {
            for (channel, plane) in [red, green, blue].iter().enumerate() {
                self.put_plane(column, channel, plane);
            }
            return;
        }
        let width = SIDE.min(self.width - column * SIDE);
        for y in 0..self.height {
            let mut row = [0; 3 * SIDE];
            for (pixel, ((&r, &g), &b)) in
                row.as_chunks_mut().0.iter_mut().zip(red[y].iter().zip(&green[y]).zip(&blue[y]))
            {
                *pixel = [r, g, b];
            }
            let target = &mut self.bytes[y * self.stride + column * SIDE * 3..];
            match width {
                SIDE => target[..3 * SIDE].copy_from_slice(&row),
                _ => target[..3 * width].copy_from_slice(&row[..3 * width]),
            }
        }
    }

    #[inline(always)]
    fn put_plane(&mut self, column: usize, channel: usize, plane: &Plane) {
        let width = SIDE.min(self.width - column * SIDE);
        for (y, row) in plane.iter().enumerate().take(self.height) {
            let target = &mut self.bytes[channel * self.plane + y * self.stride + column * SIDE..];
            match width {
                SIDE => target[..SIDE].copy_from_slice(row),
                _ => target[..width].copy_from_slice(&row[..width]),
            }
        }
    }
}
