//! Tiles of 16x16 pixels, and where they go.

/// Pixels of a tile's side.
pub(super) const SIDE: usize = 16;

/// The brightness of a quarter of a tile, 8x8 values: rows 0, 2, 4 and 6, then 1, 3, 5 and 7.
pub(super) type Values = [i16; 64];

/// What is added to the sum of codewords for brightness.
pub(super) const MIDDLE: i16 = 128;

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
