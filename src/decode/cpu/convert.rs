//! Bytes to values: exact, and as fast as they can be stored.

use half::f16;

use crate::output::{Dtype, Layout, OutputSpec};

/// A multiple of every number of channels, and of the values in a register.
const PERIOD: usize = 48;

/// What the bytes of a run become: of one channel, or of all channels in turn.
pub(super) struct Converter {
    dtype: Dtype,
    /// Of each channel.
    tables: Vec<Table>,
    /// For single precision, where every channel has one.
    lines: Option<Vec<Line>>,
}

/// One channel's value of each byte.
pub(super) struct Table {
    /// The bytes of each value, as many as it has.
    values: [[u8; 4]; 256],
    /// The same transposed: the first bytes of all values, then the second ones.
    #[cfg(target_arch = "x86_64")]
    pub planes: [[u8; 256]; 4],
}

/// A factor and a summand that give every value of a channel exactly, in double precision rounded once. Arithmetic on
/// several values at a time is faster than looking them up one by one.
#[derive(Clone, Copy)]
struct Line {
    scale: f64,
    bias: f64,
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
        let channels = first..first + channels;
        let table = |channel| std::array::from_fn(|byte| spec.value(byte as u8, channel));
        let values: Vec<[f32; 256]> = channels.clone().map(table).collect();
        let line = |(channel, values)| {
            let (scale, bias) = spec.line(channel);
            Some(Line { scale, bias }).filter(|line| spec.dtype == Dtype::F32 && line.gives(values))
        };
        Self {
            dtype: spec.dtype,
            tables: values.iter().map(|values| Table::new(values, spec.dtype)).collect(),
            lines: channels.zip(&values).map(line).collect(),
        }
    }

    #[cfg(target_arch = "x86_64")]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The table of a run in which all bytes become values alike.
    #[cfg(target_arch = "x86_64")]
    pub fn table(&self) -> Option<&Table> {
        if let [table] = self.tables.as_slice() { Some(table) } else { None }
    }

    /// Converts a run, which begins with the first channel.
    #[inline(always)]
    pub fn convert(&self, bytes: &[u8], run: &mut [u8]) {
        match (self.dtype, &self.lines) {
            (Dtype::U8, _) => run.copy_from_slice(bytes),
            (Dtype::F16, _) => self.look_up::<2>(bytes, run.as_chunks_mut().0),
            (Dtype::F32, None) => self.look_up::<4>(bytes, run.as_chunks_mut().0),
            (Dtype::F32, Some(lines)) => calculate(lines, bytes, run.as_chunks_mut().0),
        }
    }

    /// Converts a run by table.
    #[inline(always)]
    pub fn look_up<const SIZE: usize>(&self, bytes: &[u8], run: &mut [[u8; SIZE]]) {
        let look_up = |table: &Table, byte: u8, value: &mut [u8; SIZE]| {
            value.copy_from_slice(&table.values[usize::from(byte)][..SIZE]);
        };
        if let [table] = self.tables.as_slice() {
            return run.iter_mut().zip(bytes).for_each(|(value, &byte)| look_up(table, byte, value));
        }
        let channels = self.tables.len();
        for (channel, table) in self.tables.iter().enumerate() {
            let values = run.iter_mut().skip(channel).step_by(channels);
            let bytes = bytes.iter().skip(channel).step_by(channels);
            values.zip(bytes).for_each(|(value, &byte)| look_up(table, byte, value));
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
        Self {
            values,
            #[cfg(target_arch = "x86_64")]
            planes: std::array::from_fn(|plane| values.map(|value| value[plane])),
        }
    }
}

impl Line {
    #[inline(always)]
    fn value(self, byte: u8) -> f32 {
        (f64::from(byte) * self.scale + self.bias) as f32
    }

    /// Whether it gives these values, which are defined by two divisions, bit for bit.
    fn gives(self, values: &[f32; 256]) -> bool {
        (0..=255).zip(values).all(|(byte, value)| self.value(byte).to_bits() == value.to_bits())
    }
}

/// Converts a run by arithmetic.
#[inline(always)]
fn calculate(lines: &[Line], bytes: &[u8], run: &mut [[u8; 4]]) {
    if let &[line] = lines {
        return run.iter_mut().zip(bytes).for_each(|(value, &byte)| *value = line.value(byte).to_ne_bytes());
    }
    // Channels in turn, as often as fill whole registers.
    let lines: [Line; PERIOD] = std::array::from_fn(|i| lines[i % lines.len()]);
    for (bytes, run) in bytes.chunks(PERIOD).zip(run.chunks_mut(PERIOD)) {
        for ((value, &byte), line) in run.iter_mut().zip(bytes).zip(&lines) {
            *value = line.value(byte).to_ne_bytes();
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
