//! First codewords: the means of cells that the training patches are cut into.

use rayon::prelude::*;

use super::projection::Projection;
use super::spread::{Member, Spread};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Cuts the patches into at most `codewords` cells and returns the cell of each patch. Cells are numbered from 0.
///
/// From the whole set on, a cell is cut in two at the mean of the coordinate that varies most (Su and Dy, "In
/// search of deterministic methods for initializing k-means", 2007), and its codewords are shared out among the
/// halves in proportion to (squared error)^(3/4): the asymptotically best shares are those of an exponent d / (d + 2)
/// in d dimensions (Zador 1982). Exponents from 0.6 to 0.875 end within 0.03 dB of each other.
///
/// # Errors
/// [`Error::Interrupted`] if `progress` says so.
pub(super) fn cells(
    patches: &[u8],
    len: usize,
    codewords: usize,
    projection: &Projection,
    progress: &dyn Progress,
) -> Result<Vec<u32>> {
    let mut members: Vec<Member> = patches
        .par_chunks_exact(len)
        .zip(0..(patches.len() / len) as u32)
        .map(|(patch, index)| (projection.signature(patch), index))
        .collect();
    let mut owners = vec![0; members.len()];
    cut(&mut members, 0, codewords, &mut owners, progress)?;
    let mut cells = vec![0; members.len()];
    for (&(_, index), cell) in members.iter().zip(owners) {
        cells[index as usize] = cell;
    }
    Ok(cells)
}

/// Cuts `members` into at most `codewords` cells, numbered from `first`; `owners` takes the cell of each, in the
/// order that the members are left in.
fn cut(
    members: &mut [Member],
    first: u32,
    codewords: usize,
    owners: &mut [u32],
    progress: &dyn Progress,
) -> Result<()> {
    if members.len() > 1 << 12 && progress.is_cancelled() {
        return Err(Error::Interrupted);
    }
    let spread = Spread::of(members);
    let (widest, error) = spread.widest();
    if codewords <= 1 || error == 0.0 {
        owners.fill(first);
        return Ok(());
    }
    let mean = spread.sums[widest].div_euclid(members.len() as i64);
    let mut left = 0;
    for i in 0..members.len() {
        // Floor of the mean: at least one value is above it, and at least one is not.
        if i64::from(members[i].0[widest]) <= mean {
            members.swap(i, left);
            left += 1;
        }
    }
    let (left_members, right_members) = members.split_at_mut(left);
    let (left_owners, right_owners) = owners.split_at_mut(left);
    let shares = [&*left_members, &*right_members].map(|half| Spread::of(half).error().sqrt());
    let shares = shares.map(|share| share * share.sqrt());
    let total = shares[0] + shares[1];
    // Halves without error of their own need one codeword each.
    let part = if total > 0.0 { shares[0] / total } else { 0.5 };
    let left_codewords = ((part * codewords as f64).round() as usize).clamp(1, codewords - 1);
    let mut cut_left = || cut(left_members, first, left_codewords, left_owners, progress);
    let (right_first, right_codewords) = (first + left_codewords as u32, codewords - left_codewords);
    let mut cut_right = || cut(right_members, right_first, right_codewords, right_owners, progress);
    if codewords > 64 {
        let (left, right) = rayon::join(cut_left, cut_right);
        left.and(right)
    } else {
        cut_left()?;
        cut_right()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_follow_the_gaps() {
        let patches = [0, 1, 2, 250, 251, 2, 100, 103];
        let cells = cells(&patches, 1, 3, &Projection::new(&patches, 1), &()).expect("cells");
        let together = |a: usize, b: usize| cells[a] == cells[b];
        assert!(together(0, 1) && together(1, 2) && together(2, 5));
        assert!(together(3, 4) && together(6, 7));
        assert!(!together(0, 3) && !together(0, 6) && !together(3, 6));
        assert!(cells.iter().all(|&cell| cell < 3));
    }

    #[test]
    fn equal_patches_stay_in_one_cell() {
        let patches = [[5; 48], [5; 48], [200; 48]].concat();
        let cells = cells(&patches, 48, 100, &Projection::new(&patches, 48), &()).expect("cells");
        assert!(cells[0] == cells[1] && cells[0] != cells[2] && cells[2] < 100);
    }
}
