//! Bytes to values: exact, and as fast as they can be stored.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::output::{Dtype, Layout, OutputSpec};

/// A multiple of every number of channels.
const PERIOD: usize = 48;

/// What the bytes of a run become: of one channel, or of all channels in turn.
pub(super) struct Converter {
    dtype: Dtype,
    tables: Vec<Table>,
    line: Option<Box<Line>>,
}

/// One channel's value of each byte.
pub(super) struct Table {
    /// The bytes of each value, as many as it has.
    values: [[u8; 4]; 256],
    /// The same transposed: the first bytes of all values, then the second ones.
    pub planes: [[u8; 256]; 4],
}

/// Factors and summands that give each value exactly, in double precision rounded once; channels in turn.
struct Line {
    scale: [f64; PERIOD],
    bias: [f64; PERIOD],
}

impl Converter {
    /// The converters of a float output: one per channel for planes, one for interleaved pixels.
    pub fn all(spec: &OutputSpec, channels: usize) -> Vec<Self> {
        match spec.layout {
            Layout::Nchw => (0..channels).map(|channel| Self::new(spec, channel, 1)).collect(),
            Layout::Nhwc if spec.normalization.is_none() => vec![Self::new(spec, 0, 1)],
            Layout::Nhwc => vec![Self::new(spec, 0, channels)],
        }
    }

    fn new(spec: &OutputSpec, first: usize, channels: usize) -> Self {
        let values: Vec<[f32; 256]> = (first..first + channels)
            .map(|channel| std::array::from_fn(|byte| spec.value(byte as u8, channel)))
            .collect();
        let lines: Vec<(f64, f64)> = (first..first + channels).map(|channel| spec.line(channel)).collect();
        // The definition divides twice and the line multiplies; whether that rounds to the same is for the 256 values
        // to say.
        let exact = values.iter().zip(&lines).all(|(values, &(scale, bias))| {
            (0u8..=255)
                .zip(values)
                .all(|(byte, value)| ((f64::from(byte) * scale + bias) as f32).to_bits() == value.to_bits())
        });
        let line = exact.then(|| {
            let at = |i: usize| lines[i % channels];
            Box::new(Line { scale: std::array::from_fn(|i| at(i).0), bias: std::array::from_fn(|i| at(i).1) })
        });
        Self { dtype: spec.dtype, tables: values.iter().map(|values| Table::new(values, spec.dtype)).collect(), line }
    }

    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The table of a run in which all bytes become values alike.
    pub fn table(&self) -> Option<&Table> {
        if let [table] = self.tables.as_slice() { Some(table) } else { None }
    }

    /// Converts a run, which begins with the first channel.
    #[inline(always)]
    pub fn convert(&self, bytes: &[u8], run: &mut [u8]) {
        match (self.dtype, &self.line) {
            (Dtype::U8, _) => run.copy_from_slice(bytes),
            (Dtype::F32, Some(line)) => line.f32(bytes, run.as_chunks_mut().0),
            (Dtype::F16, Some(line)) => line.f16(bytes, run.as_chunks_mut().0),
            (Dtype::F32, None) => self.look_up::<4>(bytes, run.as_chunks_mut().0),
            (Dtype::F16, None) => self.look_up::<2>(bytes, run.as_chunks_mut().0),
        }
    }

    /// Converts a run by table.
    #[inline(always)]
    pub fn look_up<const SIZE: usize>(&self, bytes: &[u8], run: &mut [[u8; SIZE]]) {
        for (bytes, run) in bytes.chunks(self.tables.len()).zip(run.chunks_mut(self.tables.len())) {
            for ((byte, value), table) in bytes.iter().zip(run).zip(&self.tables) {
                value.copy_from_slice(&table.values[usize::from(*byte)][..SIZE]);
            }
        }
    }
}

impl Table {
    fn new(values: &[f32; 256], dtype: Dtype) -> Self {
        let values = values.map(|value| match dtype {
            Dtype::F16 => {
                let [a, b] = f16::from_f32(value).to_ne_bytes();
                [a, b, 0, 0]
            }
            _ => value.to_ne_bytes(),
        });
        Self { values, planes: std::array::from_fn(|plane| values.map(|value| value[plane])) }
    }
}

impl Line {
    #[inline(always)]
    fn f32(&self, bytes: &[u8], run: &mut [[u8; 4]]) {
        for (bytes, run) in bytes.chunks(PERIOD).zip(run.chunks_mut(PERIOD)) {
            for (((value, &byte), scale), bias) in run.iter_mut().zip(bytes).zip(&self.scale).zip(&self.bias) {
                *value = ((f64::from(byte) * scale + bias) as f32).to_ne_bytes();
            }
        }
    }

    #[inline(always)]
    fn f16(&self, bytes: &[u8], run: &mut [[u8; 2]]) {
        let mut singles = [[0; 4]; PERIOD];
        let mut halves = [f16::ZERO; PERIOD];
        for (bytes, run) in bytes.chunks(PERIOD).zip(run.chunks_mut(PERIOD)) {
            self.f32(bytes, &mut singles);
            halves.convert_from_f32_slice(&singles.map(f32::from_ne_bytes));
            for (value, half) in run.iter_mut().zip(halves) {
                *value = half.to_ne_bytes();
            }
        }
    }
}

/// Sorts interleaved pixels into planes, one behind the other.
#[inline(always)]
pub(super) fn deinterleave(pixels: &[u8], channels: usize, planes: &mut [u8]) {
    let len = pixels.len() / channels;
    match channels {
        3 => {
            let (red, rest) = planes.split_at_mut(len);
            let (green, blue) = rest.split_at_mut(len);
            let targets = red.iter_mut().zip(green).zip(blue);
            for ([r, g, b], ((red, green), blue)) in pixels.as_chunks().0.iter().zip(targets) {
                (*red, *green, *blue) = (*r, *g, *b);
            }
        }
        4 => {
            let (first, rest) = planes.split_at_mut(2 * len);
            let (red, green) = first.split_at_mut(len);
            let (blue, alpha) = rest.split_at_mut(len);
            let targets = red.iter_mut().zip(green).zip(blue.iter_mut().zip(alpha));
            for ([r, g, b, a], ((red, green), (blue, alpha))) in pixels.as_chunks().0.iter().zip(targets) {
                (*red, *green, *blue, *alpha) = (*r, *g, *b, *a);
            }
        }
        _ => planes.copy_from_slice(pixels),
    }
}
