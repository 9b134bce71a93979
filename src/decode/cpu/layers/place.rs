//! Tiles that kernels with registers of their own store where they belong, without copying them there.

use super::tile::{SIDE, Target, Tile};

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
