//! How far signatures lie apart.

use rayon::prelude::*;

use super::projection::{DIMS, Signature};

/// A signature, and the number of the patch or codeword that it belongs to.
pub(super) type Member = (Signature, u32);

/// Sums over signatures, exact in integers.
pub(super) struct Spread {
    count: i64,
    pub sums: [i64; DIMS],
    squares: [i64; DIMS],
}

impl Spread {
    pub fn of(members: &[Member]) -> Self {
        let zero = || Self { count: 0, sums: [0; DIMS], squares: [0; DIMS] };
        let of_chunk = |chunk: &[Member]| {
            let mut spread = zero();
            spread.count = chunk.len() as i64;
            for (signature, _) in chunk {
                for (d, &value) in signature.iter().enumerate() {
                    spread.sums[d] += i64::from(value);
                    spread.squares[d] += i64::from(i32::from(value) * i32::from(value));
                }
            }
            spread
        };
        if members.len() < 1 << 16 {
            return of_chunk(members);
        }
        members.par_chunks(1 << 14).map(of_chunk).reduce(zero, |a, b| Self {
            count: a.count + b.count,
            sums: std::array::from_fn(|d| a.sums[d] + b.sums[d]),
            squares: std::array::from_fn(|d| a.squares[d] + b.squares[d]),
        })
    }

    /// The squared error of each coordinate if all are replaced by their mean.
    fn errors(&self) -> [f64; DIMS] {
        std::array::from_fn(|d| {
            let (sum, count) = (i128::from(self.sums[d]), i128::from(self.count));
            (i128::from(self.squares[d]) * count - sum * sum) as f64 / count as f64
        })
    }

    /// The sum of the squared errors if all are replaced by their mean.
    pub fn error(&self) -> f64 {
        self.errors().iter().sum()
    }

    /// The coordinate with the greatest error, and that error.
    pub fn widest(&self) -> (usize, f64) {
        self.errors().into_iter().enumerate().fold((0, 0.0), |best, next| if next.1 > best.1 { next } else { best })
    }
}
