//! An image's brightness and colour, cut into blocks.

use crate::format::record::BLOCK_SIDES;
use crate::geometry::Geometry;

/// Brightness less 128 and colour of an image, block by block, row by row within each.
pub(in crate::encode) struct Planes {
    /// 8x8 values of each block.
    pub luma: Vec<i16>,
    /// 16x16 values of Cb and then as many of Cr of each block; none of grey images.
    pub chroma: Vec<i16>,
}

impl Planes {
    /// Cuts interleaved pixels, grey or RGB. What lies beyond the image repeats its edge.
    pub fn cut(geometry: &Geometry, pixels: &[u8]) -> Self {
        let grey = geometry.channels() == 1;
        let luma = if grey {
            blocks(geometry, pixels, BLOCK_SIDES[0], |[value]: [u8; 1]| [i16::from(value) - 128])
        } else {
            blocks(geometry, pixels, BLOCK_SIDES[0], luma)
        };
        let chroma = if grey { Vec::new() } else { blocks(geometry, pixels, BLOCK_SIDES[1], chroma) };
        Self { luma, chroma }
    }
}

/// Brightness less 128 as JPEG defines it (ITU-T T.871, 7; the weights are those of BT.601), in 1/65536, rounded.
fn luma([r, g, b]: [u8; 3]) -> [i16; 1] {
    [scaled([19_595, 38_470, 7_471], [r, g, b]) - 128]
}

/// Cb and Cr less 128, likewise.
fn chroma(rgb: [u8; 3]) -> [i16; 2] {
    [scaled([-11_059, -21_709, 32_768], rgb), scaled([32_768, -27_439, -5_329], rgb)]
}

fn scaled(weights: [i32; 3], rgb: [u8; 3]) -> i16 {
    let sum: i32 = weights.into_iter().zip(rgb).map(|(weight, value)| weight * i32::from(value)).sum();
    ((sum + 32_768) >> 16) as i16
}

/// `P` planes of values of the pixels of `C` channels, in blocks of `side` pixels.
fn blocks<const C: usize, const P: usize>(
    geometry: &Geometry,
    pixels: &[u8],
    side: usize,
    values: impl Fn([u8; C]) -> [i16; P],
) -> Vec<i16> {
    let (width, height) = (geometry.image_width(), geometry.image_height());
    let (columns, rows) = (width.div_ceil(side), height.div_ceil(side));
    let mut blocks = vec![0; columns * rows * P * side * side];
    let (pixels, _) = pixels.as_chunks::<C>();
    for y in 0..rows * side {
        let row = &pixels[y.min(height - 1) * width..][..width];
        for x in 0..columns * side {
            let block = y / side * columns + x / side;
            let place = block * P * side * side + y % side * side + x % side;
            for (plane, value) in values(row[x.min(width - 1)]).into_iter().enumerate() {
                blocks[place + plane * side * side] = value;
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_those_of_jpeg() {
        // Round numbers of ITU-T T.871: Y = 0.299 R + 0.587 G + 0.114 B, Cb = (B - Y) / 1.772, Cr = (R - Y) / 1.402.
        for rgb in [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [12, 200, 99], [128, 127, 130]] {
            let [r, g, b] = rgb.map(f64::from);
            let y = 0.299 * r + 0.587 * g + 0.114 * b;
            let expected = [y - 128.0, (b - y) / 1.772, (r - y) / 1.402];
            let [luma] = luma(rgb);
            let [cb, cr] = chroma(rgb);
            for (found, expected) in [luma, cb, cr].into_iter().zip(expected) {
                assert!((f64::from(found) - expected).abs() < 0.51, "{rgb:?}: {found}, expected {expected}");
            }
        }
    }

    #[test]
    fn blocks_beyond_the_image_repeat_its_edge() {
        let geometry = Geometry::new((17, 9), 1, (8, 8)).expect("valid");
        let pixels: Vec<u8> = (0..9 * 17).map(|i| (i % 17 * 10 + i / 17) as u8).collect();
        let planes = Planes::cut(&geometry, &pixels);
        assert!(planes.chroma.is_empty());
        for (number, block) in planes.luma.chunks(64).enumerate() {
            for (i, &value) in block.iter().enumerate() {
                let (x, y) = ((number % 3 * 8 + i % 8).min(16), (number / 3 * 8 + i / 8).min(8));
                assert_eq!(value, (x * 10 + y) as i16 - 128);
            }
        }
        assert_eq!(planes.luma.len(), 6 * 64);
        let geometry = Geometry::new((17, 9), 3, (8, 8)).expect("valid");
        let planes = Planes::cut(&geometry, &[[255, 0, 0]; 17 * 9].concat());
        assert_eq!((planes.luma.len(), planes.chroma.len()), (6 * 64, 2 * 512));
        assert!(planes.chroma.chunks(256).enumerate().all(|(i, plane)| plane == [[-43, 128][i % 2]; 256]));
    }
}
