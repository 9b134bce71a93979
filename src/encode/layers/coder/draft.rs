//! An image under way: what its blocks could be made of, and what comes of a choice.

use super::{ComponentCoder, LayerCoder, Trials, planes};
use crate::encode::layers::planes::Planes;
use crate::format::books::MODES;
use crate::format::record::BLOCK_SIDES;

/// An image, and what its blocks could be made of as far as somebody asked.
pub(in crate::encode) struct Draft<'a> {
    pub(super) coder: &'a LayerCoder,
    pub(super) planes: Planes,
    pub(super) luma: Vec<Trials>,
    pub(super) chroma: Vec<Trials>,
}

/// The modes of an image's blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::encode) struct Modes {
    pub(super) luma: Vec<u8>,
    pub(super) chroma: Vec<u8>,
}

impl Draft<'_> {
    /// The modes of least error with each bit counted as a squared error of `lambda`; of several the shortest, and of those
    /// the first. Nothing else is looked for: a mode whose indices cost more than another does in all is left out.
    pub fn choose(&mut self, lambda: f64) -> Modes {
        let luma = self.coder.luma.choose(&self.planes.luma, &mut self.luma, lambda);
        let chroma = self.coder.chroma.as_ref();
        let chroma = chroma.map(|coder| coder.choose(&self.planes.chroma, &mut self.chroma, lambda));
        Modes { luma, chroma: chroma.unwrap_or_default() }
    }

    /// Bytes of the record with these modes.
    pub fn record_len(&self, modes: &Modes) -> usize {
        let count =
            |modes: &[u8], lens: [u32; MODES]| modes.iter().map(|&m| lens[usize::from(m)] as usize).sum::<usize>();
        let chroma = self.coder.books.chroma.as_ref();
        let chroma = chroma.map_or(0, |component| count(&modes.chroma, component.lens()));
        self.coder.shape.record_len(count(&modes.luma, self.coder.books.luma.lens()) + chroma)
    }

    /// The record with these modes, which were chosen.
    pub fn record(&self, modes: &Modes) -> Vec<u8> {
        let mut indices = Vec::new();
        let mut add = |modes: &[u8], trials: &[Trials], lens: [u32; MODES]| {
            for (&mode, trials) in modes.iter().zip(trials) {
                let mode = usize::from(mode);
                indices.extend(&trials[mode].indices[..lens[mode] as usize]);
            }
        };
        let books = &self.coder.books;
        add(&modes.luma, &self.luma, books.luma.lens());
        if let Some(chroma) = &books.chroma {
            add(&modes.chroma, &self.chroma, chroma.lens());
        }
        let mut record = Vec::new();
        self.coder.shape.pack(books, &[&modes.luma, &modes.chroma], &indices, &mut record);
        record
    }

    /// The squared error of all values of the decoded image, by the decoder's arithmetic.
    pub fn squared_error(&self, modes: &Modes, pixels: &[u8]) -> u64 {
        let coder = self.coder;
        let (width, channels) = (coder.geometry.image_width(), coder.geometry.channels());
        let luma = Sums::new(coder.shape.grids[0].0, BLOCK_SIDES[0], &coder.luma, &modes.luma, &self.luma);
        let chroma = coder
            .chroma
            .as_ref()
            .map(|chroma| Sums::new(coder.shape.grids[1].0, BLOCK_SIDES[1], chroma, &modes.chroma, &self.chroma));
        let row_error = |(y, row): (usize, &[u8])| -> u64 {
            let luma = &luma.plane(0, y)[..width];
            let squared = |value: i16, pixel: u8| u32::from((value.clamp(0, 255) as u8).abs_diff(pixel)).pow(2);
            let Some(chroma) = &chroma else {
                return luma.iter().zip(row).map(|(&luma, &pixel)| u64::from(squared(128 + luma, pixel))).sum();
            };
            let (cb, cr) = (&chroma.plane(0, y)[..width], &chroma.plane(1, y)[..width]);
            let (row, _) = row.as_chunks::<3>();
            let mut sum = 0;
            for (((&luma, &cb), &cr), rgb) in luma.iter().zip(cb).zip(cr).zip(row) {
                let (y, cb, cr) = (128 + luma, cb.clamp(-128, 127), cr.clamp(-128, 127));
                let r = y + cr + ((103 * cr + 128) >> 8);
                let g = y - cr + ((73 * cr - 88 * cb + 128) >> 8);
                let b = y + cb + ((198 * cb + 128) >> 8);
                // At most 3 x 255^2 for each of 65,535 pixels of a row, added up in 64 bits.
                sum += u64::from(squared(r, rgb[0]) + squared(g, rgb[1]) + squared(b, rgb[2]));
            }
            sum
        };
        pixels.chunks_exact(width * channels).enumerate().map(row_error).sum()
    }
}

/// The sums of an image's codewords, one per pixel, in planes that may be larger than the image.
struct Sums {
    stride: usize,
    /// Values of a plane.
    len: usize,
    values: Vec<i16>,
}

impl Sums {
    fn new<const Q: usize>(
        columns: usize,
        side: usize,
        coder: &ComponentCoder<Q>,
        modes: &[u8],
        trials: &[Trials],
    ) -> Self {
        let (stride, half) = (columns * side, side / 2);
        let len = modes.len() * side * side;
        let mut values = vec![0; len * planes(Q)];
        for (block, (&mode, trials)) in modes.iter().zip(trials).enumerate() {
            let mode = usize::from(mode);
            let sum = coder.sum(mode, &trials[mode].indices);
            for (q, quarter) in sum.iter().enumerate() {
                for (i, row) in quarter.chunks_exact(half).enumerate() {
                    let (plane, y) = (i / half, block / columns * side + q / 2 * half + i % half);
                    let x = block % columns * side + q % 2 * half;
                    values[plane * len + y * stride + x..][..half].copy_from_slice(row);
                }
            }
        }
        Self { stride, len, values }
    }

    /// A row of a plane.
    fn plane(&self, plane: usize, y: usize) -> &[i16] {
        &self.values[plane * self.len + y * self.stride..][..self.stride]
    }
}
