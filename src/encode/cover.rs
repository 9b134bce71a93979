//! A codebook that holds a bound: every patch has a codeword from which no value differs by more.

use std::cmp::Reverse;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;
use rayon::prelude::*;

use super::source::Source;
use super::{EncodeOptions, OnError, kmeans, patches, prepare};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::progress::{Counter, Progress};

/// A codebook and what it is measured against.
#[derive(Debug)]
pub(super) struct Covering {
    /// The codewords from dark to bright.
    pub codebook: Vec<u8>,
    /// How many distinct patches uniform quantisation to the same bound leaves; `None` if there were too many to
    /// keep at a time.
    pub uniform_cells: Option<usize>,
}

/// The most images, and the most patches, whose cells are collected between two looks at the limit.
const CHUNK_IMAGES: usize = 256;
const CHUNK_PATCHES: usize = 1 << 22;

/// Reads all images and makes a codebook of at most `limit` codewords, such that every patch has one that differs by
/// at most `max_error` in every value. It does not depend on the number of threads.
///
/// Patches are collected in the cells of a uniform grid, of which only the box of the patches in it is kept; boxes
/// are then merged as long as one codeword can serve both (see [`Boxes::merge`]). Memory: at most 4 times a patch's
/// bytes and 20 more for each cell, or, where there are more cells than 1.5 `limit`, for each of so many; whatever
/// the number of images.
///
/// # Errors
/// [`Error::Bound`] if more codewords are needed; with [`OnError::Fail`] the error of an image that cannot be read;
/// [`Error::AllSkipped`] if none can; [`Error::Interrupted`] if `progress` says so.
pub(super) fn codebook(
    source: &dyn Source,
    geometry: &Geometry,
    options: &EncodeOptions,
    max_error: u8,
    limit: usize,
    progress: &dyn Progress,
) -> Result<Covering> {
    let len = geometry.codeword_len();
    let span = max_error.saturating_mul(2);
    let mut cells = Cells::new(len, span);
    let mut merged = Boxes { len, corners: Vec::new() };
    let mut uniform_cells = None;
    let mut first_problem = None;
    let mut counter = Counter::new(progress, "covering", source.len());
    let chunk = (CHUNK_PATCHES / geometry.patches()).clamp(1, CHUNK_IMAGES);
    for first in (0..source.len()).step_by(chunk) {
        let images = first..(first + chunk).min(source.len());
        let seen = images.end;
        let results: Vec<Result<()>> = images
            .into_par_iter()
            .map(|index| {
                let image = prepare(source, index, options);
                counter.add(1)?;
                cells.add_image(geometry, &image?.pixels);
                Ok(())
            })
            .collect();
        for result in results {
            match result {
                Err(error) if options.on_error == OnError::Skip && !matches!(error, Error::Interrupted) => {
                    first_problem.get_or_insert(error.with_causes());
                }
                result => result?,
            }
        }
        let last = seen == source.len();
        if last && merged.corners.is_empty() {
            uniform_cells = Some(cells.count());
        }
        if last || merged.count() + cells.count() > limit.saturating_add(limit / 2) {
            cells.drain_into(&mut merged);
            merged = merged.merge(span, progress)?;
            if merged.count() > limit {
                return Err(Error::Bound {
                    max_error,
                    images: seen,
                    of: source.len(),
                    codewords: merged.count(),
                    limit,
                    fits: merged.fitting(max_error, limit as f64 * seen as f64 / source.len() as f64),
                });
            }
            if !last {
                counter = Counter::new(progress, "covering", source.len());
                counter.add(seen)?;
            }
        }
    }
    match first_problem {
        Some(first) if merged.corners.is_empty() => Err(Error::AllSkipped { files: source.len(), first }),
        _ => Ok(Covering { codebook: kmeans::sorted(&merged.midpoints(), len), uniform_cells }),
    }
}

/// The cells of a uniform grid that patches lie in, and in each the box that its patches span.
struct Cells {
    len: usize,
    /// The greatest difference of two values in a cell.
    span: u8,
    /// For each value the least one in its bin.
    origins: [u8; 256],
    shards: Vec<Mutex<Shard>>,
}

/// The cells whose hashes have some bits in common, so that threads seldom wait for each other.
#[derive(Default)]
struct Shard {
    /// Numbers of boxes.
    table: HashTable<u32>,
    /// Low and high corner of each box.
    corners: Vec<u8>,
}

const SHARDS: usize = 256;

impl Cells {
    fn new(len: usize, span: u8) -> Self {
        let bin = usize::from(span) + 1;
        let origins = std::array::from_fn(|value| (value / bin * bin) as u8);
        Self { len, span, origins, shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// Cells seen.
    fn count(&self) -> usize {
        self.shards.iter().map(|shard| locked(shard).corners.len() / (2 * self.len)).sum()
    }

    fn add_image(&self, geometry: &Geometry, image: &[u8]) {
        let (mut patch, mut origin) = (vec![0; self.len], vec![0; self.len]);
        for y in 0..geometry.grid_height() {
            for x in 0..geometry.grid_width() {
                patches::cut(geometry, image, x, y, &mut patch);
                self.add(&patch, &mut origin);
            }
        }
    }

    /// Adds a patch. Which box has which number depends on the order; the boxes do not.
    fn add(&self, patch: &[u8], origin: &mut [u8]) {
        origin.iter_mut().zip(patch).for_each(|(origin, &value)| *origin = self.origins[usize::from(value)]);
        let hash = hash(origin.iter().copied());
        let (len, span) = (self.len, self.span);
        let mut shard = locked(&self.shards[(hash >> 48) as usize % SHARDS]);
        let Shard { table, corners } = &mut *shard;
        let low = |&cell: &u32| &corners[cell as usize * 2 * len..][..len];
        let here = |cell: &u32| low(cell).iter().zip(&*origin).all(|(&v, &from)| v.wrapping_sub(from) <= span);
        if let Some(&cell) = table.find(hash, here) {
            let (low, high) = corners[cell as usize * 2 * len..][..2 * len].split_at_mut(len);
            low.iter_mut().zip(patch).for_each(|(low, &value)| *low = value.min(*low));
            high.iter_mut().zip(patch).for_each(|(high, &value)| *high = value.max(*high));
            return;
        }
        let origins = &self.origins;
        let rehash = |cell: &u32| self::hash(low(cell).iter().map(|&value| origins[usize::from(value)]));
        table.insert_unique(hash, (corners.len() / (2 * len)) as u32, rehash);
        corners.extend_from_slice(patch);
        corners.extend_from_slice(patch);
    }

    /// Moves all boxes behind others, in an order of their own.
    fn drain_into(&mut self, boxes: &mut Boxes) {
        let shards: Vec<Shard> = self.shards.iter().map(|shard| std::mem::take(&mut *locked(shard))).collect();
        boxes.corners.reserve_exact(shards.iter().map(|shard| shard.corners.len()).sum());
        for Shard { table, corners } in shards {
            drop(table);
            let mut sorted: Vec<&[u8]> = corners.chunks_exact(2 * self.len).collect();
            sorted.par_sort_unstable();
            sorted.into_iter().for_each(|corners| boxes.corners.extend_from_slice(corners));
        }
    }
}

/// Nothing a thread does with a shard can leave it half changed and panic.
fn locked(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same for the same bytes on every machine; mixes as MurmurHash's finaliser does.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let mixed = |hash: u64| (hash ^ hash >> 32).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let (mut hash, mut word, mut shift) = (0u64, 0u64, 0);
    for byte in bytes {
        word |= u64::from(byte) << shift;
        shift += 8;
        if shift == 64 {
            hash = mixed(hash ^ word).rotate_left(29);
            (word, shift) = (0, 0);
        }
    }
    let hash = mixed(mixed(hash ^ word));
    hash ^ hash >> 33
}

/// Boxes around patches: low and high corner one after another.
struct Boxes {
    len: usize,
    corners: Vec<u8>,
}

/// The most times that all boxes are cut into parts and merged.
const ROUNDS: usize = 8;

/// Merging ends when a round takes away less than this part of the boxes.
const CONVERGED: f64 = 0.01;

/// The most boxes of a part: pairs of them are looked at.
const PART: usize = 2048;

impl Boxes {
    fn count(&self) -> usize {
        self.corners.len() / (2 * self.len)
    }

    fn corners(&self, index: u32) -> (&[u8], &[u8]) {
        self.corners[index as usize * 2 * self.len..][..2 * self.len].split_at(self.len)
    }

    /// Merges boxes where their union has no side longer than `span`.
    ///
    /// In every round they are cut into parts of neighbours, elsewhere than in the round before, and within a part
    /// a box takes in the nearest ones that fit, boxes with the longest sides first: those have the least choice.
    fn merge(self, span: u8, progress: &dyn Progress) -> Result<Self> {
        if span == 0 {
            return Ok(self);
        }
        let (len, first) = (self.len, self.count());
        let counter = Counter::new(progress, "merging", ROUNDS * first);
        let mut boxes = self;
        for round in 0..ROUNDS {
            let before = boxes.count();
            let mut members: Vec<u32> = (0..before as u32).collect();
            let parts = boxes.cut(&mut members, round);
            let merged: Vec<Vec<u8>> = parts
                .into_par_iter()
                .map(|part| {
                    counter.add(part.len())?;
                    Ok(boxes.merge_part(part, span))
                })
                .collect::<Result<_>>()?;
            drop(boxes);
            boxes = Self { len, corners: merged.concat() };
            counter.add(first - before)?;
            if (before - boxes.count()) as f64 <= CONVERGED * before as f64 {
                counter.add((ROUNDS - 1 - round) * first)?;
                break;
            }
        }
        Ok(boxes)
    }

    /// Cuts `members` into parts of at most [`PART`] boxes, each time across the values that vary most, where
    /// `round` says.
    fn cut<'a>(&self, members: &'a mut [u32], round: usize) -> Vec<&'a mut [u32]> {
        if members.len() <= PART {
            // The same order whatever has been done to find the cuts.
            members.sort_unstable();
            return vec![members];
        }
        let widest = self.widest(members);
        // In halves, at three eighths, at five eighths.
        let eighths = [4, 3, 5][round % 3];
        let middle = members.len() * eighths / 8;
        members.select_nth_unstable_by_key(middle, |&index| (self.middle(index, widest), index));
        let (left, right) = members.split_at_mut(middle);
        let (mut left, right) = match left.len() > 16 * PART {
            true => rayon::join(|| self.cut(left, round), || self.cut(right, round)),
            false => (self.cut(left, round), self.cut(right, round)),
        };
        left.extend(right);
        left
    }

    /// Twice the middle of a box's side.
    fn middle(&self, index: u32, side: usize) -> u16 {
        let (low, high) = self.corners(index);
        u16::from(low[side]) + u16::from(high[side])
    }

    /// The side whose middles vary most, judged by a thousand of the boxes.
    fn widest(&self, members: &[u32]) -> usize {
        let some = members.iter().step_by(members.len().div_ceil(1024));
        let count = some.len() as u64;
        let (mut sums, mut squares) = (vec![0u64; self.len], vec![0u64; self.len]);
        for &index in some {
            for side in 0..self.len {
                let middle = u64::from(self.middle(index, side));
                sums[side] += middle;
                squares[side] += middle * middle;
            }
        }
        let variance = |&side: &usize| (count * squares[side] - sums[side] * sums[side], Reverse(side));
        (0..self.len).max_by_key(variance).unwrap_or(0)
    }

    /// Merges boxes of one part; returns the corners of those that are left.
    fn merge_part(&self, part: &[u32], span: u8) -> Vec<u8> {
        let extent = |index: u32| {
            let (low, high) = self.corners(index);
            low.iter().zip(high).map(|(&low, &high)| u32::from(high - low)).sum::<u32>()
        };
        let mut order = part.to_vec();
        order.sort_unstable_by_key(|&index| (Reverse(extent(index)), index));
        let pieces = self.len.div_ceil(PIECE);
        let part: Vec<Sides> = order.iter().flat_map(|&index| sides(self.corners(index))).collect();
        let mut left: Vec<&[Sides]> = part.chunks_exact(pieces).collect();
        let mut merged = Vec::new();
        let mut near = Vec::new();
        let mut union = Vec::new();
        while let Some(&first) = left.first() {
            near.clear();
            let fitting = left.iter().enumerate().skip(1).filter(|(_, other)| fits(first, other, span));
            near.extend(fitting.map(|(place, other)| (distance(first, other), place)));
            near.sort_unstable();
            union.clear();
            union.extend_from_slice(first);
            // Those that were taken in are marked by being empty.
            left[0] = &[];
            for &(_, place) in &near {
                if fits(&union, left[place], span) {
                    union.iter_mut().zip(left[place]).for_each(|(union, other)| *union = union.with(other));
                    left[place] = &[];
                }
            }
            left.retain(|other| !other.is_empty());
            merged.extend(union.iter().flat_map(|sides| sides.low).take(self.len));
            merged.extend(union.iter().flat_map(|sides| sides.high).take(self.len));
        }
        merged
    }

    /// The codeword for each box: its middle.
    fn midpoints(&self) -> Vec<u8> {
        let middle = |(&low, &high): (&u8, &u8)| low + (high - low).div_ceil(2);
        let boxes = self.corners.par_chunks_exact(2 * self.len).map(|corners| corners.split_at(self.len));
        boxes.flat_map_iter(|(low, high)| low.iter().zip(high).map(middle)).collect()
    }

    /// An estimate of the least greater bound that leaves at most `codewords`, from one round on some of the parts.
    fn fitting(&self, max_error: u8, codewords: f64) -> Option<u8> {
        const PARTS: usize = 256;
        let mut members: Vec<u32> = (0..self.count() as u32).collect();
        let parts = self.cut(&mut members, 0);
        let some: Vec<&[u32]> = parts.iter().step_by(parts.len().div_ceil(PARTS)).map(|part| &**part).collect();
        let all = some.iter().map(|part| part.len()).sum::<usize>() as f64;
        let (mut too_small, mut enough) = (max_error, 128u8);
        while enough.saturating_sub(too_small) > 1 {
            let bound = too_small.midpoint(enough);
            let left = some.par_iter().map(|part| self.merge_part(part, 2 * bound).len() / (2 * self.len));
            match left.sum::<usize>() as f64 / all * self.count() as f64 <= codewords {
                true => enough = bound,
                false => too_small = bound,
            }
        }
        (enough < 128).then_some(enough)
    }
}

/// Values of a piece: what one instruction takes.
const PIECE: usize = 16;

/// A piece of a box's low corner and the same of its high one.
#[derive(Debug, Clone, Copy)]
struct Sides {
    low: [u8; PIECE],
    high: [u8; PIECE],
}

/// A box in pieces, zeros behind the last value.
fn sides((low, high): (&[u8], &[u8])) -> impl Iterator<Item = Sides> {
    let padded = |values: &[u8]| std::array::from_fn(|i| values.get(i).copied().unwrap_or(0));
    low.chunks(PIECE).zip(high.chunks(PIECE)).map(move |(low, high)| Sides { low: padded(low), high: padded(high) })
}

impl Sides {
    /// The union.
    #[inline(always)]
    fn with(&self, other: &Self) -> Self {
        let low = std::array::from_fn(|i| self.low[i].min(other.low[i]));
        let high = std::array::from_fn(|i| self.high[i].max(other.high[i]));
        Self { low, high }
    }
}

/// Whether the union of two boxes has no side longer than `span`.
#[inline(always)]
fn fits(a: &[Sides], b: &[Sides], span: u8) -> bool {
    a.iter().zip(b).all(|(a, b)| {
        let union = a.with(b);
        let excess: [u8; PIECE] = std::array::from_fn(|i| (union.high[i] - union.low[i]).saturating_sub(span));
        u128::from_ne_bytes(excess) == 0
    })
}

/// Four times the squared distance of the middles of two boxes.
fn distance(a: &[Sides], b: &[Sides]) -> u32 {
    let of_piece = |(a, b): (&Sides, &Sides)| {
        let values = (0..PIECE).map(|i| {
            let twice = |sides: &Sides| i32::from(sides.low[i]) + i32::from(sides.high[i]);
            (twice(a) - twice(b)).pow(2) as u32
        });
        values.sum::<u32>()
    };
    a.iter().zip(b).map(of_piece).sum()
}
