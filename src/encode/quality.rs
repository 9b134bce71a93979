//! How close decoded images come to what was encoded.

pub use crate::format::MAX_PSNR_DB;

/// The peak signal-to-noise ratio of two images of equally many values, in dB: 10 log10(255^2 / mean squared
/// error), at most [`MAX_PSNR_DB`].
///
/// # Panics
/// If the images do not hold equally many values.
pub fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len(), "values in the images");
    let squared_error = a.chunks(1 << 16).zip(b.chunks(1 << 16)).map(|(a, b)| u64::from(squared_distance(a, b)));
    psnr_db(squared_error.sum(), a.len() as u64)
}

/// The PSNR of `values` values with a sum of squared errors. The system's logarithm may differ from machine to machine in
/// the last digit, and archives must not.
pub(super) fn psnr_db(squared_error: u64, values: u64) -> f64 {
    if squared_error == 0 {
        return MAX_PSNR_DB;
    }
    (10.0 * libm::log10(255.0 * 255.0 * values as f64 / squared_error as f64)).min(MAX_PSNR_DB)
}

/// The sum of the squared differences of two slices of at most 65,536 bytes.
#[inline(always)]
pub(super) fn squared_distance(a: &[u8], b: &[u8]) -> u32 {
    a.iter().zip(b).map(|(&a, &b)| u32::from(a.abs_diff(b)).pow(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // Off by one everywhere: 20 log10(255). Off by the whole range: 0 dB.
        assert!((psnr(&[10; 300], &[11; 300]) - 48.130_803_608_679_1).abs() < 1e-9);
        assert_eq!(psnr(&[0; 70_000], &[255; 70_000]), 0.0);
        assert_eq!(psnr(&[7; 10], &[7; 10]), MAX_PSNR_DB);
        // One value of four off by two: a mean squared error of 1.
        assert!((psnr(&[1, 2, 3, 4], &[1, 2, 3, 6]) - 48.130_803_608_679_1).abs() < 1e-9);
    }
}
