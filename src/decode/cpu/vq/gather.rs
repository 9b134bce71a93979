//! Codewords to a band: the rows of pixels that a row of patches covers, interleaved.

use super::codebook::Chosen;
use super::memory;

/// How many patches ahead codewords are asked for: a large codebook is in no cache near the core.
const AHEAD: usize = 16;

/// Copies codewords side by side into a band of whole rows of `row_len` bytes; fewer rows than a patch is high at the
/// bottom of an image. The last patch may be cut.
#[inline(always)]
pub(super) fn gather(chosen: Chosen, row_len: usize, band: &mut [u8]) {
    match chosen.codebook().row_stride() {
        8 => strided::<8>(chosen, row_len, band),
        16 => strided::<16>(chosen, row_len, band),
        32 => strided::<32>(chosen, row_len, band),
        _ => strided::<64>(chosen, row_len, band),
    }
}

#[inline(always)]
fn strided<const STRIDE: usize>(chosen: Chosen, row_len: usize, band: &mut [u8]) {
    // The usual heights as constants, so that the stores of a patch are unrolled.
    match band.len() / row_len {
        2 => rows::<STRIDE>(chosen, row_len, band, 2),
        4 => rows::<STRIDE>(chosen, row_len, band, 4),
        rows_ => rows::<STRIDE>(chosen, row_len, band, rows_),
    }
}

#[inline(always)]
fn rows<const STRIDE: usize>(chosen: Chosen, row_len: usize, band: &mut [u8], rows: usize) {
    let (patch_row_len, patch_height) = (chosen.codebook().row_len(), chosen.codebook().patch_height());
    assert!(STRIDE == chosen.codebook().row_stride() && rows <= patch_height && band.len() == rows * row_len);
    // As many patches as can be stored whole without running over the end of the row; those after them are stored
    // byte for byte.
    let wide = if row_len < STRIDE { 0 } else { ((row_len - STRIDE) / patch_row_len + 1).min(chosen.len()) };
    let far = chosen.codebook().is_far();
    let (first, last) = chosen.places().split_at(wide);
    for (patch, &place) in first.iter().enumerate() {
        if far && let Some(&ahead) = chosen.places().get(patch + AHEAD) {
            memory::prefetch(chosen.codeword(ahead));
        }
        let codeword = chosen.codeword(place).cast::<[u8; STRIDE]>();
        for y in 0..rows {
            // SAFETY: at a place is a codeword, which has `patch_height >= rows` rows. `target` are `STRIDE` bytes of row `y` of the band,
            // which has `rows` rows of `row_len`: the last patch's begin at most at `row_len - STRIDE`.
            unsafe {
                let target = band.as_mut_ptr().add(y * row_len + patch * patch_row_len);
                target.cast::<[u8; STRIDE]>().write_unaligned(*codeword.add(y));
            }
        }
    }
    for (patch, &place) in (wide..).zip(last) {
        let start = patch * patch_row_len;
        let len = patch_row_len.min(row_len - start);
        let codeword = chosen.codeword(place).cast::<[u8; STRIDE]>();
        for (y, row) in band.chunks_exact_mut(row_len).enumerate() {
            // SAFETY: as above.
            let source = unsafe { &*codeword.add(y) };
            row[start..start + len].copy_from_slice(&source[..len]);
        }
    }
    if far {
        chosen.prefetch_next(AHEAD);
    }
}
