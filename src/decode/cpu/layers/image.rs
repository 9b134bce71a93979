//! One image, row of tiles by row of tiles: indices, then sums, then pixels.

use super::blocks::Blocks;
use super::books::Component;
use super::output::{Band, Output, Portable, Stores};
use super::tile::{SIDE, Target, Values};
use super::{CpuPath, Layers, memory};
use crate::buffer::AlignedBytes;
use crate::format::books::{LUMA, MODES};
use crate::format::record::{GROUP, Record};
use crate::output::{Dtype, Layout};

/// What is done to every image of a batch.
pub(super) struct Job<'a> {
    pub layers: &'a Layers,
    pub output: Output<'a>,
}

/// A thread's memory for what is on its way.
#[derive(Default)]
pub(super) struct Scratch {
    /// The blocks of a band and of the one after it.
    luma: [Blocks; 2],
    chroma: [Blocks; 2],
    /// The brightness of two rows of blocks, and of blocks beyond their ends where they end within a tile.
    values: AlignedBytes,
    band: Band,
}

impl Scratch {
    /// Makes room for images of this size.
    pub fn fit(&mut self, layers: &Layers, output: &Output) {
        let [blocks, tiles] = [2 * layers.shape.grids[LUMA].0, output.geometry.image_width().div_ceil(SIDE)];
        self.luma.iter_mut().for_each(|luma| luma.fit(&layers.luma, blocks));
        if let Some(component) = &layers.chroma {
            self.chroma.iter_mut().for_each(|chroma| chroma.fit(component, tiles));
        }
        super::output::grow(&mut self.values, (blocks + 2) * size_of::<Values>());
        self.band.fit(SIDE * output.geometry.image_row_len(), output.spec);
    }
}

/// The steps of decoding.
pub(super) trait Kernels: Stores {
    /// The modes of a group's blocks, and how many indices are before each; returns how many there are in all.
    fn place(self, planes: [u32; 3], lens: &[u8; MODES], modes: &mut [u8; GROUP], starts: &mut [u32; GROUP]) -> u32;

    /// Unpacks `count` indices, all of which are there, from `number` on, a multiple of [`super::blocks::WHOLE`]; may
    /// write [`super::blocks::SLACK`] more.
    fn unpack(self, record: &Record, number: usize, count: usize, indices: &mut [u16]);

    /// Asks for codewords of blocks ahead of their use.
    fn prefetch<const BLOCK: usize, const QUARTER: usize>(self, component: &Component<BLOCK, QUARTER>, blocks: &Blocks);

    /// Sums up the brightness of blocks.
    fn luma(self, component: &Component<64, 16>, blocks: &Blocks, values: &mut [Values]);

    /// Makes a row of tiles of blocks of brightness, two rows of `columns` each, and of blocks of colour.
    fn tiles(
        self,
        values: &[Values],
        columns: usize,
        chroma: Option<(&Component<128, 128>, &Blocks)>,
        target: &mut Target,
    );
}

/// The brightness of a tile's quarters.
#[inline(always)]
pub(super) fn quarters(values: &[Values], columns: usize, tile: usize) -> [&Values; 4] {
    let (above, below) = (&values[2 * tile..][..2], &values[columns + 2 * tile..][..2]);
    [&above[0], &above[1], &below[0], &below[1]]
}

impl Job<'_> {
    /// Decodes one image; `records` are its record, which the shape accepts, and the next image's.
    ///
    /// # Safety
    /// The path is available.
    pub unsafe fn decode(&self, path: CpuPath, records: [&[u8]; 2], image: &mut [u8], scratch: &mut Scratch) {
        match path {
            CpuPath::Portable => self.image(Portable, records, image, scratch),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the path is available: the processor has these instructions.
            CpuPath::Avx2 => unsafe { self.image_avx2(records, image, scratch) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            CpuPath::Avx512 => unsafe { self.image_avx512(records, image, scratch) },
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn image_avx2(&self, records: [&[u8]; 2], image: &mut [u8], scratch: &mut Scratch) {
        self.image(super::avx2::Avx2::new(), records, image, scratch);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
    fn image_avx512(&self, records: [&[u8]; 2], image: &mut [u8], scratch: &mut Scratch) {
        self.image(super::super::vbmi::Vbmi::new(), records, image, scratch);
    }

    #[inline(always)]
    fn image<K: Kernels>(&self, k: K, [record, next]: [&[u8]; 2], image: &mut [u8], scratch: &mut Scratch) {
        let (g, spec, shape) = (self.output.geometry, self.output.spec, &self.layers.shape);
        let record = Record::new(shape, record);
        let Scratch { luma, chroma, values, band: Band { bytes, values: converted } } = scratch;
        let values: &mut [Values] = bytemuck::cast_slice_mut(values.as_mut_slice());
        let [bytes, converted] = [bytes, converted].map(AlignedBytes::as_mut_slice);
        let (columns, block_rows) = shape.grids[LUMA];
        let bands = block_rows.div_ceil(2);
        let (planes, pixel) = match spec.layout {
            Layout::Nhwc => (1, g.channels()),
            Layout::Nchw => (g.channels(), 1),
        };
        let (row_len, stride) = (g.image_row_len(), g.image_width() * pixel);
        self.read(k, &record, 0, &mut luma[0], &mut chroma[0]);
        for band in 0..bands {
            let part = [band, band + 1].map(|band| next.len() * band / bands);
            (part[0]..part[1]).step_by(64).for_each(|at| memory::prefetch(next[at..].as_ptr()));
            if band + 1 < bands {
                self.read(k, &record, band + 1, &mut luma[(band + 1) % 2], &mut chroma[(band + 1) % 2]);
            }
            k.luma(&self.layers.luma, &luma[band % 2], values);
            let colour = self.layers.chroma.as_ref().map(|component| (component, &chroma[band % 2]));

            let rows = self.output.rows(band, SIDE);
            let direct = spec.dtype == Dtype::U8 && !self.output.streamed;
            let (target, plane) = match direct {
                true => (&mut image[rows.start * stride..], g.image_height() * stride),
                false => (&mut bytes[..rows.len() * row_len], rows.len() * stride),
            };
            let (width, height) = (g.image_width(), rows.len());
            let mut target = Target { bytes: target, planes, pixel, stride, plane, width, height };
            k.tiles(values, columns, colour, &mut target);
            if !direct {
                self.output.emit(k, rows.clone(), &bytes[..rows.len() * row_len], converted, image);
            }
        }
    }

    /// Reads the blocks of a band, and asks for codewords of theirs.
    #[inline(always)]
    fn read<K: Kernels>(&self, k: K, record: &Record, band: usize, luma: &mut Blocks, chroma: &mut Blocks) {
        let Layers { shape, luma: component, .. } = self.layers;
        let (columns, tiles) = (shape.grids[LUMA].0, shape.grids[LUMA].0.div_ceil(2));
        let blocks = 2 * band * columns..shape.blocks(LUMA).min(2 * (band + 1) * columns);
        luma.read(k, record, &component.lens, 0, blocks);
        k.prefetch(component, luma);
        if let Some(component) = &self.layers.chroma {
            chroma.read(k, record, &component.lens, shape.groups(LUMA), band * tiles..(band + 1) * tiles);
            k.prefetch(component, chroma);
        }
    }
}
