//! Tiles of 16x16 pixels, and where they go.

use super::books::row_at;
use super::sums::{Added, Values};

/// Pixels of a tile's side.
pub(super) const SIDE: usize = 16;

/// The bytes of a tile: its pixels row by row, or as many of each plane, one behind the other. Grey ones fill a third.
pub(super) type Tile = [u8; 3 * SIDE * SIDE];

/// Where a row of tiles goes.
pub(super) struct Target<'a> {
    /// From the first pixel on.
    pub bytes: &'a mut [u8],
    /// The number of planes, and bytes of a pixel in each.
    pub planes: usize,
    pub pixel: usize,
    /// Bytes from one row to the next, and from one plane to the next.
    pub stride: usize,
    pub plane: usize,
    /// Pixels across and down; tiles at the edges may be larger.
    pub width: usize,
    pub height: usize,
}

impl Target<'_> {
    /// Where a tile is made: here, or where there is no room for all of it at its edge in memory of its own.
    #[inline(always)]
    pub fn place(&mut self, tile: usize, edge: &mut Tile) -> Place {
        let Self { planes, pixel, stride, plane, .. } = *self;
        if !self.holds(tile) {
            return Place { start: edge.as_mut_ptr(), stride: SIDE * pixel, plane: SIDE * SIDE };
        }
        let bytes = &mut self.bytes[tile * SIDE * pixel..];
        assert!(bytes.len() >= (planes - 1) * plane + (SIDE - 1) * stride + SIDE * pixel);
        Place { start: bytes.as_mut_ptr(), stride, plane }
    }

    /// Completes a tile that was made where [`place`](Self::place) said.
    #[inline(always)]
    pub fn finish(&mut self, tile: usize, edge: &Tile) {
        if !self.holds(tile) {
            self.put(tile, edge);
        }
    }

    /// Whether there is room for all of a tile.
    #[inline(always)]
    fn holds(&self, tile: usize) -> bool {
        self.height == SIDE && (tile + 1) * SIDE <= self.width
    }

    /// Stores what there is room for of a tile.
    #[inline(always)]
    pub fn put(&mut self, tile: usize, bytes: &Tile) {
        match self.pixel {
            1 => self.put_rows::<SIDE>(tile, bytes),
            _ => self.put_rows::<{ 3 * SIDE }>(tile, bytes),
        }
    }

    #[inline(always)]
    fn put_rows<const ROW: usize>(&mut self, tile: usize, bytes: &Tile) {
        let len = ROW.min((self.width - tile * SIDE) * self.pixel);
        for (plane, rows) in bytes.as_chunks::<ROW>().0.chunks_exact(SIDE).enumerate().take(self.planes) {
            for (y, row) in rows.iter().enumerate().take(self.height) {
                let target = &mut self.bytes[plane * self.plane + y * self.stride + tile * ROW..];
                match len == ROW {
                    true => target[..ROW].copy_from_slice(row),
                    false => target[..len].copy_from_slice(&row[..len]),
                }
            }
        }
    }
}

/// Where the rows of a tile go: there is room for sixteen of sixteen pixels, in each plane.
#[derive(Clone, Copy)]
pub(super) struct Place {
    start: *mut u8,
    stride: usize,
    plane: usize,
}

impl Place {
    /// Where a row of a plane begins.
    #[inline(always)]
    pub fn row(self, plane: usize, y: usize) -> *mut u8 {
        self.start.wrapping_add(plane * self.plane + y * self.stride)
    }

    /// From one row to the next.
    #[inline(always)]
    pub fn stride(self) -> usize {
        self.stride
    }
}

/// Makes a tile of grey pixels.
#[inline(always)]
pub(super) fn grey(luma: [&Values; 4], tile: &mut Tile) {
    let (plane, _) = tile.as_chunks_mut();
    fill(&mut plane[0], luma, [&[0; 64]; 4]);
}

/// Makes a tile of brightness and what colour adds to it, in planes or interleaved.
#[inline(always)]
pub(super) fn colour(luma: [&Values; 4], [a, b, c, d]: &Added, interleaved: bool, tile: &mut Tile) {
    let mut planes = [[0; SIDE * SIDE]; 3];
    for (channel, plane) in planes.iter_mut().enumerate() {
        fill(plane, luma, [&a[channel], &b[channel], &c[channel], &d[channel]]);
    }
    if !interleaved {
        return tile.as_chunks_mut().0.copy_from_slice(&planes);
    }
    let [red, green, blue] = &planes;
    let bytes = red.iter().zip(green).zip(blue);
    tile.as_chunks_mut().0.iter_mut().zip(bytes).for_each(|(pixel, ((&r, &g), &b))| *pixel = [r, g, b]);
}

/// Fills a plane: the brightness of each quarter, and what colour adds to it.
#[inline(always)]
fn fill(plane: &mut [u8; SIDE * SIDE], luma: [&Values; 4], added: [&Values; 4]) {
    for quarter in 0..4 {
        let mut bytes = [0; 64];
        for ((byte, &luma), &added) in bytes.iter_mut().zip(luma[quarter]).zip(added[quarter]) {
            *byte = (luma + added).clamp(0, 255) as u8;
        }
        let (rows, _) = plane[quarter / 2 * 8 * SIDE..].as_chunks_mut::<SIDE>();
        for (place, bytes) in bytes.as_chunks::<8>().0.iter().enumerate() {
            rows[row_at(place)][quarter % 2 * 8..][..8].copy_from_slice(bytes);
        }
    }
}
