//! The codec "layers" by its definition: each pixel's codewords found and summed by themselves.

use crate::error::Result;
use crate::format::books::{CHROMA, Cover, LUMA, LayerBooks, codeword_len};
use crate::format::layers::LayersView;
use crate::format::record::{BLOCK_SIDES, GROUP, Record, RecordShape};
use crate::geometry::Geometry;

#[derive(Debug, Clone)]
pub(super) struct Layers {
    books: LayerBooks,
    shape: RecordShape,
}

impl Layers {
    pub fn new(archive: LayersView) -> Result<Self> {
        Ok(Self { books: archive.books()?, shape: archive.shape().clone() })
    }

    pub fn check_rows(&self, rows: &[&[u8]]) -> Result<()> {
        crate::decode::check_records(&self.shape, rows)
    }

    /// Decodes a record to interleaved pixels.
    pub fn decode(&self, g: &Geometry, record: &[u8], pixels: &mut [u8]) {
        let record = Record::new(&self.shape, record);
        let clamp = |value: i32| value.clamp(0, 255) as u8;
        for (y, row) in pixels.chunks_exact_mut(g.image_row_len()).enumerate() {
            for (x, pixel) in row.chunks_exact_mut(g.channels()).enumerate() {
                let luma = 128 + self.sum(&record, LUMA, x, y, 0);
                let [red, green, blue] = pixel else {
                    pixel.fill(clamp(luma));
                    continue;
                };
                let [cb, cr] = [0, 1].map(|plane| self.sum(&record, CHROMA, x, y, plane).clamp(-128, 127));
                *red = clamp(luma + cr + ((103 * cr + 128) >> 8));
                *green = clamp(luma - cr + ((73 * cr - 88 * cb + 128) >> 8));
                *blue = clamp(luma + cb + ((198 * cb + 128) >> 8));
            }
        }
    }

    /// The sum of a component's values at a pixel; of chroma in plane 0 (Cb) or 1 (Cr).
    fn sum(&self, record: &Record, component: usize, x: usize, y: usize, plane: usize) -> i32 {
        let side = BLOCK_SIDES[component];
        let (columns, first_group) =
            (self.shape.grids[component].0, if component == LUMA { 0 } else { self.shape.groups(LUMA) });
        let block = y / side * columns + x / side;
        let (x, y) = (x % side, y % side);
        let group = record.group(first_group + block / GROUP);
        let of = self.books.components()[component];
        let mode = of.mode(group.mode(block % GROUP));
        let first = group.index(block % GROUP, &of.lens());
        // Within a codeword of a block, whose chroma has half the resolution; and within that of a quarter.
        let half = side / 2;
        let (whole, quarter) = match component {
            LUMA => (y * 8 + x, y % 4 * 4 + x % 4),
            _ => (plane * 64 + y / 2 * 8 + x / 2, plane * 64 + y % 8 * 8 + x % 8),
        };
        let value = |book: usize, number: u32, cover, within| {
            let (book, len) = (&of.books[book].codewords, codeword_len(component, cover));
            let codeword = record.index(number).min(book.len() / len - 1);
            i32::from(book[codeword * len + within])
        };
        let blocks = mode
            .block
            .iter()
            .zip(0..)
            .map(|(&book, stage)| value(book, first.wrapping_add(stage), Cover::Block, whole));
        let place = (y / half * 2 + x / half) as u32;
        let behind = mode.block.len() as u32 + place;
        let quarters = mode
            .quarter
            .iter()
            .zip(0..)
            .map(|(&book, stage)| value(book, first.wrapping_add(behind + 4 * stage), Cover::Quarter, quarter));
        blocks.chain(quarters).sum()
    }
}
