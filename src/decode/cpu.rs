//! The decoder for CPUs: one gather per patch, images spread over all cores.

use std::fmt;

use half::f16;
use rayon::prelude::*;

use super::{Decoder, check_call, memory};
use crate::archive::Archive;
use crate::buffer::AlignedBytes;
use crate::error::Result;
use crate::format::index::IndexWidth;
use crate::geometry::Geometry;
use crate::output::{Dtype, Layout, OutputSpec};

/// How many patches ahead codewords are asked for: a large codebook is in no cache near the core.
const AHEAD: usize = 16;

/// Decodes in native code on all cores of rayon's current thread pool.
#[derive(Clone)]
pub struct CpuDecoder {
    geometry: Geometry,
    index_width: IndexWidth,
    /// Codewords with every patch row padded to `row_stride` bytes, so that one is copied by one wide load and
    /// store, which may run over into the next patch before that is written.
    codebook: AlignedBytes,
    row_stride: usize,
    last: u32,
}

impl fmt::Debug for CpuDecoder {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("CpuDecoder").field("geometry", &self.geometry).finish_non_exhaustive()
    }
}

impl CpuDecoder {
    /// A decoder for the rows of this archive. Copies the codebook, with padding: at most 4 times its size.
    pub fn new<D: AsRef<[u8]>>(archive: &Archive<D>) -> Self {
        let geometry = *archive.geometry();
        let row_len = geometry.patch_row_len();
        let row_stride = row_len.next_power_of_two().max(4);
        let rows = archive.codebook().len() / row_len;
        let mut codebook = AlignedBytes::zeroed(rows * row_stride);
        codebook
            .as_mut_slice()
            .par_chunks_exact_mut(row_stride)
            .zip(archive.codebook().par_chunks_exact(row_len))
            .with_min_len(1 << 14)
            .for_each(|(padded, row)| padded[..row_len].copy_from_slice(row));
        let last = (archive.codewords() - 1) as u32;
        Self { geometry, index_width: archive.index_width(), codebook, row_stride, last }
    }

    /// Decodes one patch row of the grid into `band`, whole rows of interleaved bytes (fewer than a patch is high
    /// at the bottom of an image).
    fn decode_band(&self, row: &[u8], grid_y: usize, indices: &mut [u32], band: &mut [u8]) {
        self.index_width.unpack(row, grid_y * self.geometry.grid_width(), indices);
        indices.iter_mut().for_each(|index| *index = (*index).min(self.last));
        match self.row_stride {
            4 => self.gather::<4>(indices, band),
            8 => self.gather::<8>(indices, band),
            16 => self.gather::<16>(indices, band),
            32 => self.gather::<32>(indices, band),
            _ => self.gather::<64>(indices, band),
        }
    }

    fn gather<const STRIDE: usize>(&self, indices: &[u32], band: &mut [u8]) {
        let row_len = self.geometry.image_row_len();
        let patch_row_len = self.geometry.patch_row_len();
        let patch_height = self.geometry.patch_height();
        let (codebook, _) = self.codebook.as_slice().as_chunks::<STRIDE>();
        // As many patches as can be stored whole without running over the end of the row; those after them are
        // stored byte for byte.
        let wide = if row_len < STRIDE { 0 } else { ((row_len - STRIDE) / patch_row_len + 1).min(indices.len()) };
        // The usual heights as constants, so that the stores of a patch are unrolled.
        match band.len() / row_len {
            2 => self.gather_wide(&indices[..wide], codebook, band, 2),
            4 => self.gather_wide(&indices[..wide], codebook, band, 4),
            rows => self.gather_wide(&indices[..wide], codebook, band, rows),
        }
        for (x, &index) in indices.iter().enumerate().skip(wide) {
            let place = x * patch_row_len;
            let len = patch_row_len.min(row_len - place);
            let codeword = &codebook[index as usize * patch_height..][..patch_height];
            for (source, row) in codeword.iter().zip(band.chunks_exact_mut(row_len)) {
                row[place..place + len].copy_from_slice(&source[..len]);
            }
        }
    }

    #[inline(always)]
    fn gather_wide<const STRIDE: usize>(
        &self,
        indices: &[u32],
        codebook: &[[u8; STRIDE]],
        band: &mut [u8],
        rows: usize,
    ) {
        let row_len = self.geometry.image_row_len();
        let patch_row_len = self.geometry.patch_row_len();
        let patch_height = self.geometry.patch_height();
        assert!(rows <= patch_height && band.len() >= rows * row_len);
        assert!(indices.is_empty() || (indices.len() - 1) * patch_row_len + STRIDE <= row_len);
        assert!(indices.iter().all(|&index| index <= self.last));
        assert!((self.last as usize + 1) * patch_height <= codebook.len());
        for (x, &index) in indices.iter().enumerate() {
            if let Some(&ahead) = indices.get(x + AHEAD) {
                memory::prefetch(&codebook[ahead as usize * patch_height..]);
            }
            for y in 0..rows {
                // SAFETY: `source` is row `y` of codeword `index`: there are `last + 1` codewords of `patch_height`
                // rows in the codebook, `index <= last`, `y < rows <= patch_height`. `target` are `STRIDE` bytes of
                // row `y` of the band, which has `rows` rows of `row_len`; the last patch's end at most at
                // `row_len`. All of it is asserted above.
                unsafe {
                    let source = codebook.as_ptr().add(index as usize * patch_height + y);
                    let target = band.as_mut_ptr().add(y * row_len + x * patch_row_len);
                    target.cast::<[u8; STRIDE]>().write_unaligned(*source);
                }
            }
        }
    }

    /// Bands of an image in bytes: a patch row each, the last perhaps cut.
    fn band_len(&self) -> usize {
        self.geometry.patch_height() * self.geometry.image_row_len()
    }
}

impl Decoder for CpuDecoder {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn device_name(&self) -> &str {
        "cpu"
    }

    fn decode_bytes(&self, rows: &[&[u8]], spec: &OutputSpec, output: &mut [u8]) -> Result<()> {
        let g = &self.geometry;
        check_call(g, self.index_width.row_len(g.patches()), rows, spec, output.len())?;
        let image_bytes = g.image_len() * spec.dtype.size();
        let streamed = output.len() >= memory::STREAM;
        let images = output.par_chunks_exact_mut(image_bytes).zip(rows);
        if spec.dtype == Dtype::U8 && spec.layout == Layout::Nhwc {
            images.for_each_init(
                || (vec![0; g.grid_width()], vec![0; self.band_len()]),
                |(indices, scratch), (image, row)| {
                    for (grid_y, band) in image.chunks_mut(self.band_len()).enumerate() {
                        if !streamed {
                            self.decode_band(row, grid_y, indices, band);
                            continue;
                        }
                        let scratch = &mut scratch[..band.len()];
                        self.decode_band(row, grid_y, indices, scratch);
                        memory::copy_streaming(scratch, band);
                    }
                    memory::finish_streaming();
                },
            );
            return Ok(());
        }
        let tables = Tables::new(spec, g.channels());
        // One row of the output: of a plane, or of whole pixels.
        let run = g.image_width() * spec.dtype.size() * if spec.layout == Layout::Nhwc { g.channels() } else { 1 };
        images.for_each_init(
            || (vec![0; g.grid_width()], vec![0; self.band_len()], vec![0; run]),
            |(indices, band, scratch), (image, row)| {
                for grid_y in 0..g.grid_height() {
                    let top = grid_y * g.patch_height();
                    let height = g.patch_height().min(g.image_height() - top);
                    let band = &mut band[..height * g.image_row_len()];
                    self.decode_band(row, grid_y, indices, band);
                    for (y, pixels) in band.chunks_exact(g.image_row_len()).enumerate() {
                        tables.convert_row(g, spec, pixels, |channel, convert| {
                            let start = spec.layout.offset(g, top + y, 0, channel) * spec.dtype.size();
                            let target = &mut image[start..start + run];
                            if !streamed {
                                return convert(target);
                            }
                            convert(scratch);
                            memory::copy_streaming(scratch, target);
                        });
                    }
                }
                memory::finish_streaming();
            },
        );
        Ok(())
    }
}

/// What each byte of each channel becomes: exact, and as fast as the arithmetic it replaces.
struct Tables {
    f32: Vec<[[u8; 4]; 256]>,
    f16: Vec<[[u8; 2]; 256]>,
    u8: [[u8; 1]; 256],
}

impl Tables {
    fn new(spec: &OutputSpec, channels: usize) -> Self {
        let bytes = |value: usize| value as u8;
        let table = |channel| std::array::from_fn(|value| spec.value(bytes(value), channel));
        let tables: Vec<[f32; 256]> = (0..channels).map(table).collect();
        Self {
            f32: tables.iter().map(|table| table.map(f32::to_ne_bytes)).collect(),
            f16: tables.iter().map(|table| table.map(|value| f16::from_f32(value).to_ne_bytes())).collect(),
            u8: std::array::from_fn(|value| [bytes(value)]),
        }
    }

    /// Converts a row of interleaved bytes. `write` is called for each run of the output's row, with its first channel
    /// and what converts the run: the row of a plane, or of whole pixels.
    fn convert_row(
        &self,
        g: &Geometry,
        spec: &OutputSpec,
        pixels: &[u8],
        mut write: impl FnMut(usize, &mut dyn FnMut(&mut [u8])),
    ) {
        match spec.layout {
            Layout::Nchw => {
                for channel in 0..g.channels() {
                    write(channel, &mut |run| self.convert(spec.dtype, channel, g.channels(), 1, pixels, run));
                }
            }
            Layout::Nhwc => write(0, &mut |run| {
                for channel in 0..g.channels() {
                    let first = channel * spec.dtype.size();
                    self.convert(spec.dtype, channel, g.channels(), g.channels(), pixels, &mut run[first..]);
                }
            }),
        }
    }

    /// Converts one channel of a row to every `step`th value.
    fn convert(&self, dtype: Dtype, channel: usize, channels: usize, step: usize, pixels: &[u8], run: &mut [u8]) {
        match dtype {
            Dtype::U8 => convert(&self.u8, &pixels[channel..], channels, run, step),
            Dtype::F16 => convert(&self.f16[channel], &pixels[channel..], channels, run, step),
            Dtype::F32 => convert(&self.f32[channel], &pixels[channel..], channels, run, step),
        }
    }
}

/// Every `channels`th byte by the table to every `step`th value.
fn convert<const SIZE: usize>(table: &[[u8; SIZE]; 256], pixels: &[u8], channels: usize, run: &mut [u8], step: usize) {
    let source = pixels.iter().step_by(channels);
    let (values, _) = run.as_chunks_mut::<SIZE>();
    match step {
        1 => values.iter_mut().zip(source).for_each(|(value, &byte)| *value = table[usize::from(byte)]),
        _ => {
            let values = values.iter_mut().step_by(step);
            values.zip(source).for_each(|(value, &byte)| *value = table[usize::from(byte)]);
        }
    }
}
