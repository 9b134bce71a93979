//! A codebook on a device, in parts that can be bound.

use std::ops::Range;

use super::decoder::INDEX_USAGE;
use super::device::Device;
use super::plan::TooSmall;
use crate::error::Result;

/// Codebook bytes that are handed to the driver at a time.
pub(super) const UPLOAD: usize = 32 << 20;

/// Codewords in a buffer that can be bound as a whole.
#[derive(Debug, Clone)]
pub(super) struct CodebookPart {
    pub buffer: wgpu::Buffer,
    pub codewords: Range<usize>,
}

/// Uploads a codebook in as many parts of at most `most` bytes as it takes. `pad` brings codewords of `stored_len` bytes to
/// the `len` that they have on the device; what it leaves is zero.
pub(super) fn upload_codebook(
    device: &Device,
    codebook: &[u8],
    stored_len: usize,
    len: usize,
    most: u64,
    pad: impl Fn(&[u8], &mut [u8]),
) -> Result<Vec<CodebookPart>> {
    let per_part = (most / len as u64) as usize;
    if per_part == 0 {
        let limit = "max_storage_buffer_binding_size";
        return Err(device.limit_error(TooSmall { limit, found: most, needed: len as u64 }));
    }
    let queue = device.queue();
    let mut parts = Vec::new();
    for (i, part) in codebook.chunks(per_part.saturating_mul(stored_len)).enumerate() {
        let codewords = part.len() / stored_len;
        let buffer = device.scope("uploading the codebook", || {
            device.raw().create_buffer(&wgpu::BufferDescriptor {
                label: Some("codebook"),
                size: (codewords * len) as u64,
                usage: INDEX_USAGE,
                mapped_at_creation: false,
            })
        })?;
        let per_upload = UPLOAD / len;
        for (j, stored) in part.chunks(per_upload * stored_len).enumerate() {
            let mut padded = vec![0; stored.len() / stored_len * len];
            pad(stored, &mut padded);
            device.scope("uploading the codebook", || {
                queue.write_buffer(&buffer, (j * per_upload * len) as u64, &padded);
                // Lets the driver copy this piece, and free its staging memory, before the next.
                queue.submit([])
            })?;
        }
        parts.push(CodebookPart { buffer, codewords: i * per_part..i * per_part + codewords });
    }
    Ok(parts)
}
