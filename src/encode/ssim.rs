//! Structural similarity: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to
//! structural similarity", IEEE Transactions on Image Processing 13 (2004).

/// The window: 11x11 pixels, weighted by a Gaussian of this standard deviation.
const SIDE: usize = 11;
const SIGMA: f64 = 1.5;
/// (0.01 * 255)^2 and (0.03 * 255)^2, the constants of section III.B.
const C1: f64 = 6.5025;
const C2: f64 = 58.5225;

/// The mean structural similarity of two images with pixels interleaved: over all places where the window lies within
/// the image, then over the channels. 1 if they are equal; `None` if the window is larger than the image.
///
/// # Panics
/// If an image does not hold width x height x channels values.
pub fn ssim(a: &[u8], b: &[u8], width: usize, height: usize, channels: usize) -> Option<f64> {
    let len = width * height * channels;
    assert_eq!((a.len(), b.len()), (len, len), "values in the images");
    if width < SIDE || height < SIDE {
        return None;
    }
    let weights = gaussian();
    let of_channel = |channel| {
        let plane = |image: &[u8]| -> Vec<f64> {
            image.iter().skip(channel).step_by(channels).map(|&value| value.into()).collect()
        };
        let product = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a * b).collect() };
        let (a, b) = (plane(a), plane(b));
        let blurred = [product(&a, &a), product(&b, &b), product(&a, &b)].map(|plane| blur(&plane, width, &weights));
        let [a, b] = [a, b].map(|plane| blur(&plane, width, &weights));
        let similarity = |i: usize| {
            let (mean_a, mean_b) = (a[i], b[i]);
            let [variance_a, variance_b] = [blurred[0][i] - mean_a * mean_a, blurred[1][i] - mean_b * mean_b];
            let covariance = blurred[2][i] - mean_a * mean_b;
            (2.0 * mean_a * mean_b + C1) * (2.0 * covariance + C2)
                / ((mean_a * mean_a + mean_b * mean_b + C1) * (variance_a + variance_b + C2))
        };
        (0..a.len()).map(similarity).sum::<f64>() / a.len() as f64
    };
    Some((0..channels).map(of_channel).sum::<f64>() / channels as f64)
}

/// One side of the window; the weights add up to 1.
fn gaussian() -> [f64; SIDE] {
    let weights: [f64; SIDE] = std::array::from_fn(|i| {
        let distance = i as f64 - (SIDE / 2) as f64;
        libm::exp(-distance * distance / (2.0 * SIGMA * SIGMA))
    });
    let sum: f64 = weights.iter().sum();
    weights.map(|weight| weight / sum)
}

/// The weighted means of a plane, at all places where the window lies within it.
fn blur(plane: &[f64], width: usize, weights: &[f64; SIDE]) -> Vec<f64> {
    let inner = width - (SIDE - 1);
    let across: Vec<f64> = plane
        .chunks_exact(width)
        .flat_map(|row| row.windows(SIDE).map(|window| window.iter().zip(weights).map(|(v, w)| v * w).sum::<f64>()))
        .collect();
    let height = plane.len() / width - (SIDE - 1);
    let mut both = vec![0.0; inner * height];
    for (y, row) in both.chunks_exact_mut(inner).enumerate() {
        for (k, weight) in weights.iter().enumerate() {
            let line = &across[(y + k) * inner..][..inner];
            row.iter_mut().zip(line).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two images that are alike: (x*x + 31*y + x*y + 57*c) / 7 mod 256, and with (5*x + 3*y + 11*c) mod 41 - 20 added.
    fn images(width: usize, height: usize, channels: usize) -> [Vec<u8>; 2] {
        let places =
            || (0..height).flat_map(move |y| (0..width).flat_map(move |x| (0..channels).map(move |c| (x, y, c))));
        let a: Vec<u8> = places().map(|(x, y, c)| ((x * x + y * 31 + x * y + c * 57) / 7 % 256) as u8).collect();
        let noise = places().map(|(x, y, c)| ((x * 5 + y * 3 + c * 11) % 41) as i32 - 20);
        let b = a.iter().zip(noise).map(|(&a, noise)| (i32::from(a) + noise).clamp(0, 255) as u8).collect();
        [a, b]
    }

    #[test]
    fn values_are_those_of_scikit_image() {
        // scikit-image 0.26.0: structural_similarity(a, b, gaussian_weights=True, sigma=1.5,
        // use_sample_covariance=False, data_range=255, channel_axis=2) of the same images.
        for (width, height, channels, expected) in [
            (37, 29, 3, 0.799_909_935_528_115_1),
            (64, 48, 1, 0.899_634_050_149_449_1),
            (11, 11, 3, 0.587_487_581_237_515),
            (11, 40, 4, 0.652_037_776_582_766_5),
        ] {
            let [a, b] = images(width, height, channels);
            let found = ssim(&a, &b, width, height, channels).expect("large enough");
            assert!((found - expected).abs() < 1e-9, "{width}x{height}x{channels}: {found}, expected {expected}");
            assert_eq!(ssim(&b, &a, width, height, channels), Some(found));
            assert!((ssim(&a, &a, width, height, channels).expect("large enough") - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn images_smaller_than_the_window_have_none() {
        assert_eq!(ssim(&[0; 10 * 50], &[0; 10 * 50], 10, 50, 1), None);
        assert_eq!(ssim(&[0; 50 * 10], &[0; 50 * 10], 50, 10, 1), None);
    }
}
