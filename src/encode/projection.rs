//! Patches as short integer vectors whose distances never exceed those of the patches.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg32;

/// Values of a signature.
pub(super) const DIMS: usize = 16;

/// The coordinates of a patch along a few orthonormal axes, scaled and rounded; for patches of more than
/// [`DIMS`] values the last one is the length of what the axes leave over.
///
/// Leaving out axes shortens distances, and so does replacing the rest by its length (the triangle inequality):
/// the distance of two signatures, less [`SLACK`], is at most [`Projection::scale`] times that of the patches.
pub(super) type Signature = [i16; DIMS];

/// By how much rounding can lengthen the distance of two signatures: each of 16 values of each of the two by a
/// half, so sqrt(16) together. The rest is room for the errors of floating point, which are below 0.01 per value.
pub(super) const SLACK: f64 = 4.25;

/// The largest absolute value in a signature: differences fit in an `i16`, squared distances in an `i32`.
const RANGE: f64 = 16_000.0;

/// A map from patches to signatures.
#[derive(Debug, Clone)]
pub(super) struct Projection {
    /// For each value of a patch, its part in every coordinate.
    axes: Vec<[f64; DIMS]>,
    /// Length of a signature over that of its patch.
    scale: f64,
}

impl Projection {
    /// A map along the principal axes of `patches`, of `len` values each, found by orthogonal iteration (Golub
    /// and Van Loan, Matrix Computations, section 7.3.2). Axes that are not quite principal cost time in searches,
    /// never correctness.
    pub fn new(patches: &[u8], len: usize) -> Self {
        const STEPS: usize = 12;
        let count = patches.len() / len;
        let used = count.min((1 << 20) / len);
        let sample = (0..used).map(|i| &patches[i * count / used * len..][..len]);
        let mut mean = vec![0.0; len];
        sample.clone().for_each(|patch| mean.iter_mut().zip(patch).for_each(|(sum, &v)| *sum += f64::from(v)));
        mean.iter_mut().for_each(|sum| *sum /= used as f64);

        let axes = if len <= DIMS { len } else { DIMS - 1 };
        let mut random = Pcg32::seed_from_u64(0);
        let mut basis: Vec<Vec<f64>> =
            (0..axes).map(|_| (0..len).map(|_| f64::from(random.next_u32()) - 2.0f64.powi(31)).collect()).collect();
        orthonormalise(&mut basis);
        let mut centred = vec![0.0; len];
        for _ in 0..STEPS {
            let mut next = vec![vec![0.0; len]; axes];
            for patch in sample.clone() {
                centred.iter_mut().zip(patch).zip(&mean).for_each(|((c, &v), mean)| *c = f64::from(v) - mean);
                for (axis, next) in basis.iter().zip(&mut next) {
                    let along: f64 = axis.iter().zip(&centred).map(|(a, c)| a * c).sum();
                    next.iter_mut().zip(&centred).for_each(|(n, c)| *n += along * c);
                }
            }
            basis = next;
            orthonormalise(&mut basis);
        }
        let axes = (0..len).map(|i| std::array::from_fn(|d| basis.get(d).map_or(0.0, |axis| axis[i])));
        Self { axes: axes.collect(), scale: RANGE / (128.0 * (len as f64).sqrt()) }
    }

    /// Length of a signature over that of its patch.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The signature of a patch.
    #[inline(always)]
    pub fn signature(&self, patch: &[u8]) -> Signature {
        let mut along = [0.0; DIMS];
        let mut square = 0;
        for (&value, axes) in patch.iter().zip(&self.axes) {
            let value = i32::from(value) - 128;
            square += value * value;
            let value = f64::from(value);
            along.iter_mut().zip(axes).for_each(|(along, axis)| *along += value * axis);
        }
        if self.axes.len() > DIMS {
            let explained: f64 = along[..DIMS - 1].iter().map(|a| a * a).sum();
            along[DIMS - 1] = (f64::from(square) - explained).max(0.0).sqrt();
        }
        // Rounding by truncation of what is positive: one instruction, where `round` is a call.
        along.map(|value| ((value * self.scale + (RANGE + 0.5)) as i32 - RANGE as i32) as i16)
    }
}

/// Makes vectors orthogonal to each other and of length 1, by the Gram-Schmidt process done twice. A vector that
/// depends on those before it is replaced by one that does not.
fn orthonormalise(basis: &mut [Vec<f64>]) {
    for i in 0..basis.len() {
        let (done, rest) = basis.split_at_mut(i);
        let Some(vector) = rest.first_mut() else { return };
        let before = length(vector);
        let mut after = reduce(done, vector);
        let len = vector.len();
        for unit in 0..len {
            if after > 1e-6 * before && after > 0.0 {
                break;
            }
            vector.fill(0.0);
            vector[unit] = 1.0;
            after = reduce(done, vector);
            // One of the unit vectors keeps at least this length, as fewer than `len` axes are taken.
            if after < 0.9 / (len as f64).sqrt() {
                after = 0.0;
            } else {
                break;
            }
        }
        vector.iter_mut().for_each(|v| *v /= after);
        let again = reduce(done, vector);
        vector.iter_mut().for_each(|v| *v /= again);
    }
}

/// Takes from a vector what lies along the others; returns the length that is left.
fn reduce(others: &[Vec<f64>], vector: &mut [f64]) -> f64 {
    for other in others {
        let along: f64 = other.iter().zip(vector.iter()).map(|(a, b)| a * b).sum();
        vector.iter_mut().zip(other).for_each(|(v, o)| *v -= along * o);
    }
    length(vector)
}

fn length(vector: &[f64]) -> f64 {
    vector.iter().map(|v| v * v).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_no_farther_apart_than_their_patches() {
        let mut random = Pcg32::seed_from_u64(1);
        for len in [1, 3, 12, 16, 17, 48, 192, 1024] {
            // Random patches, extreme ones, and ones that hardly differ.
            let mut patches: Vec<u8> = (0..24 * len).map(|_| random.next_u32() as u8).collect();
            patches.extend(vec![0; len].into_iter().chain(vec![255; len]));
            patches.extend((0..24 * len).map(|i| 127 + (random.next_u32() % 3 / 2) as u8 + (i % len % 2) as u8));
            for projection in [Projection::new(&patches, len), Projection::new(&vec![9; len], len)] {
                let patches: Vec<_> = patches.chunks(len).map(|p| (p, projection.signature(p))).collect();
                for (a, a_signature) in &patches {
                    for (b, b_signature) in &patches {
                        let square = |a: f64, b: f64| (a - b) * (a - b);
                        let real: f64 = a.iter().zip(*b).map(|(&a, &b)| square(a.into(), b.into())).sum();
                        let pairs = a_signature.iter().zip(b_signature);
                        let short: f64 = pairs.map(|(&a, &b)| square(a.into(), b.into())).sum();
                        assert!(short.sqrt() <= projection.scale() * real.sqrt() + SLACK, "{len} values");
                        if len <= DIMS {
                            assert!(short.sqrt() >= projection.scale() * real.sqrt() - SLACK, "{len} values");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_axes_follow_the_spread() {
        // Patches that differ in brightness alone: one coordinate tells them apart.
        let patches: Vec<u8> = (0..=255).flat_map(|v| [v; 48]).collect();
        let projection = Projection::new(&patches, 48);
        let (dark, bright) = (projection.signature(&[0; 48]), projection.signature(&[255; 48]));
        let expected = 255.0 * 48f64.sqrt() * projection.scale();
        assert!((f64::from(dark[0]) - f64::from(bright[0])).abs() >= expected - SLACK);
    }
}
