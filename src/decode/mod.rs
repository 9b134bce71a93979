//! Rows to pixels.

pub(crate) mod cpu;
pub(crate) mod naive;

use crate::error::{Error, Result};
use crate::format::record::{GROUP_LEN, RecordShape};
use crate::geometry::Geometry;
use crate::output::{Element, OutputSpec};

/// Turns rows into a batch of images.
///
/// An index beyond the codebook decodes as the last codeword on every backend; no input makes a decoder read or
/// write out of bounds. [`Archive::verify`](crate::Archive::verify) finds such indices.
pub trait Decoder: Send + Sync {
    /// The sizes of what it decodes.
    fn geometry(&self) -> &Geometry;

    /// What does the work: `cpu`, or the adapter's name.
    fn device_name(&self) -> &str;

    /// Decodes rows, as [`Archive::row`](crate::Archive::row) returns them, into bytes: a batch in the
    /// specification's layout, elements in the machine's byte order.
    ///
    /// # Errors
    /// [`Error::RowLength`], [`Error::OutputLength`] or [`Error::Normalization`] for arguments that do not fit,
    /// with nothing written; errors of the device.
    fn decode_bytes(&self, rows: &[&[u8]], spec: &OutputSpec, output: &mut [u8]) -> Result<()>;

    /// Decodes rows into a buffer of the specification's element type.
    ///
    /// # Errors
    /// [`Error::OutputDtype`] if the type is another; else as [`decode_bytes`](Self::decode_bytes).
    fn decode_into<T: Element>(&self, rows: &[impl AsRef<[u8]>], spec: &OutputSpec, output: &mut [T]) -> Result<()>
    where
        Self: Sized,
    {
        if T::DTYPE != spec.dtype {
            return Err(Error::OutputDtype { found: T::DTYPE.name(), expected: spec.dtype.name() });
        }
        self.decode_bytes(&slices(rows), spec, bytemuck::cast_slice_mut(output))
    }

    /// Decodes rows into a new buffer. Reusing one through [`decode_into`](Self::decode_into) is faster: fresh
    /// memory costs more than decoding into it.
    ///
    /// # Errors
    /// As [`decode_into`](Self::decode_into); [`Error::OutOfMemory`].
    fn decode<T: Element>(&self, rows: &[impl AsRef<[u8]>], spec: &OutputSpec) -> Result<Vec<T>>
    where
        Self: Sized,
    {
        let mut output = Vec::new();
        resize(&mut output, self.geometry().image_len().saturating_mul(rows.len()))?;
        self.decode_into(rows, spec, &mut output)?;
        Ok(output)
    }
}

impl<D: Decoder + ?Sized> Decoder for Box<D> {
    fn geometry(&self) -> &Geometry {
        (**self).geometry()
    }

    fn device_name(&self) -> &str {
        (**self).device_name()
    }

    fn decode_bytes(&self, rows: &[&[u8]], spec: &OutputSpec, output: &mut [u8]) -> Result<()> {
        (**self).decode_bytes(rows, spec, output)
    }
}

/// Rows as slices.
pub(crate) fn slices(rows: &[impl AsRef<[u8]>]) -> Vec<&[u8]> {
    rows.iter().map(AsRef::as_ref).collect()
}

/// Brings a buffer to a length; where memory is short that is an error, and not the end of the process.
pub(crate) fn resize<T: Element>(buffer: &mut Vec<T>, len: usize) -> Result<()> {
    let more = len.saturating_sub(buffer.len());
    buffer.try_reserve_exact(more).map_err(|_| Error::OutOfMemory { bytes: len.saturating_mul(size_of::<T>()) })?;
    buffer.resize(len, T::zeroed());
    Ok(())
}

/// Checks that rows which all have one length have it, the same for every backend.
pub(crate) fn check_row_lens(row_len: usize, rows: &[&[u8]]) -> Result<()> {
    match rows.iter().position(|row| row.len() != row_len) {
        Some(row) => Err(Error::RowLength { row, found: rows[row].len(), expected: row_len }),
        None => Ok(()),
    }
}

/// Checks that records have all their groups, and no more bytes than any record takes.
pub(crate) fn check_records(shape: &RecordShape, records: &[&[u8]]) -> Result<()> {
    match records.iter().position(|record| !shape.fits(record)) {
        Some(row) => {
            let (shortest, longest) = (shape.all_groups() * GROUP_LEN, shape.record_lens().1);
            Err(Error::RecordLength { row, found: records[row].len(), shortest, longest })
        }
        None => Ok(()),
    }
}

/// Checks the other arguments of a decoding call, the same for every backend and codec.
pub(crate) fn check_call(geometry: &Geometry, rows: usize, spec: &OutputSpec, output_len: usize) -> Result<()> {
    spec.check(geometry)?;
    let expected = spec.batch_len(geometry, rows);
    match output_len == expected {
        true => Ok(()),
        false => Err(Error::OutputLength { found: output_len, expected }),
    }
}
