//! A codebook that holds a bound: every patch has a codeword from which no value differs by more.

use std::cmp::Reverse;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;
use rayon::prelude::*;

use super::projection::Projection;
use super::source::Source;
use super::{EncodeOptions, kmeans, patches, prepare};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::progress::{Counter, Progress};

/// A codebook and what it is measured against.
#[derive(Debug)]
pub(super) struct Covering {
    /// The codewords, in the order of trained ones.
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
/// [`Error::Bound`] if more codewords are needed; with [`OnError::Fail`](super::OnError::Fail) the error of an image that cannot be read;
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
                Err(error) if options.on_error.skips(&error) => {
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
        _ => {
            let codewords = merged.midpoints();
            let codebook = kmeans::ordered(&codewords, len, &Projection::new(&codewords, len));
            Ok(Covering { codebook, uniform_cells })
        }
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
        let here = |cell: &u32| low(cell).iter().zip(&*origin).all(|(&v, &from)| v >= from && v - from <= span);
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_pcg::Pcg32;

    use super::*;
    use crate::encode::{Codebook, Image, OnError, ReadOptions, encode};
    use crate::{Archive, CpuDecoder, Decoder, OutputSpec};

    /// Images in memory.
    struct Images(Vec<Image>);

    impl Source for Images {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn name(&self, index: usize) -> String {
            format!("image {index}")
        }
        fn read(&self, index: usize, _: &ReadOptions) -> Result<Image> {
            match self.0[index].pixels.is_empty() {
                false => Ok(self.0[index].clone()),
                true => Err(Error::Source { name: self.name(index), source: "nothing there".into() }),
            }
        }
    }

    /// Images that value(image, x, y, channel) paints.
    fn painted(
        (count, width, height, channels): (u32, u32, u32, u32),
        mut value: impl FnMut(u32, u32, u32, u32) -> u8,
    ) -> Images {
        let image = |i| {
            let pixels = (0..width * height * channels).map(|p| {
                let (pixel, channel) = (p / channels, p % channels);
                value(i, pixel % width, pixel / width, channel)
            });
            Image { width, height, channels, pixels: pixels.collect() }
        };
        Images((0..count).map(image).collect())
    }

    fn options(images: &Images, patch: (u32, u32), max_error: u8) -> EncodeOptions {
        let Image { width, height, channels, .. } = images.0[0];
        let codebook = Codebook::MaxError(max_error);
        EncodeOptions { image_size: (width, height), channels, patch, codebook, ..EncodeOptions::default() }
    }

    fn cover(images: &Images, patch: (u32, u32), max_error: u8, limit: usize) -> Result<Covering> {
        let options = options(images, patch, max_error);
        codebook(images, &options.geometry()?, &options, max_error, limit, &())
    }

    /// Distinct patches after division by 2 E + 1, counted plainly.
    fn uniform(images: &Images, patch: (u32, u32), max_error: u8) -> usize {
        let geometry = options(images, patch, max_error).geometry().expect("valid");
        let mut cells = HashSet::new();
        for image in &images.0 {
            for place in 0..geometry.patches() {
                let mut cell = vec![0; geometry.codeword_len()];
                let (x, y) = (place % geometry.grid_width(), place / geometry.grid_width());
                patches::cut(&geometry, &image.pixels, x, y, &mut cell);
                cells.insert(
                    cell.into_iter().map(|v| u16::from(v) / (2 * u16::from(max_error) + 1)).collect::<Vec<_>>(),
                );
            }
        }
        cells.len()
    }

    /// Encodes, decodes and compares every value.
    fn assert_bound(images: &Images, patch: (u32, u32), max_error: u8) {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("out.qvq");
        let summary = encode(images, &path, &options(images, patch, max_error), &()).expect("encode");
        let archive = Archive::open(&path).expect("open");
        assert!(archive.verify(&()).expect("verify").is_ok());
        assert_eq!((archive.max_error(), summary.max_error), (Some(max_error), Some(max_error)));
        assert!(!archive.metadata().contains_key("seed"));
        let rows = archive.rows(0..archive.samples()).expect("rows");
        let decoded: Vec<u8> =
            CpuDecoder::new(&archive).expect("decoder").decode(&rows, &OutputSpec::default()).expect("decode");
        let original: Vec<u8> = images.0.iter().flat_map(|image| image.pixels.iter().copied()).collect();
        assert_eq!(decoded.len(), original.len());
        let worst = decoded.iter().zip(&original).map(|(a, b)| a.abs_diff(*b)).max().expect("values");
        assert!(worst <= max_error, "off by {worst}, allowed are {max_error}");
        let cells = uniform(images, patch, max_error);
        assert_eq!(summary.uniform_cells, Some(cells));
        assert!(
            archive.vq().expect("vq").codewords() <= cells,
            "{} codewords, {cells} cells",
            archive.vq().expect("vq").codewords()
        );
        if max_error == 0 {
            assert_eq!((archive.vq().expect("vq").codewords(), summary.mean_psnr_db), (cells, 100.0));
        }
    }

    /// Noise around a gradient.
    fn smooth(size: (u32, u32, u32, u32), noise: u32) -> Images {
        let mut random = Pcg32::seed_from_u64(7);
        painted(size, |i, x, y, c| (3 * x + 2 * y + 11 * (i % 8) + 40 * c + random.next_u32() % noise).min(255) as u8)
    }

    #[test]
    fn the_bound_holds_on_every_kind_of_image() {
        for (channels, size, patch) in [
            (1, (17, 9), (4, 4)),
            (3, (33, 26), (4, 3)),
            (4, (21, 21), (2, 2)),
            (3, (20, 7), (16, 1)),
            (3, (9, 9), (1, 1)),
        ] {
            let size = (5, size.0, size.1, channels);
            let mut random = Pcg32::seed_from_u64(3);
            for max_error in [0, 1, 8, 16, 126, 127, 128, 255] {
                // The last value of a bin, the first of the next, and the ends of the range.
                let bin = 2 * u32::from(max_error) + 1;
                let edges = [0, 255, bin - 1, bin, 2 * bin - 1, 2 * bin, 255 / bin * bin].map(|v| v.min(255) as u8);
                for images in [
                    painted(size, |_, _, _, _| random.next_u32() as u8),
                    painted(size, |_, _, _, _| edges[random.next_u32() as usize % edges.len()]),
                    painted(size, |_, _, _, _| if random.next_u32() % 9 == 0 { 0 } else { 255 }),
                    painted(size, |_, _, _, _| 93),
                    smooth(size, 6),
                ] {
                    assert_bound(&images, patch, max_error);
                }
            }
        }
    }

    #[test]
    fn merging_goes_far_beyond_cells_where_noise_crosses_their_borders() {
        // All values are 16 or 17, and a bin ends between them: two to the twelfth cells, and one codeword serves all.
        let mut random = Pcg32::seed_from_u64(1);
        let images = painted((40, 40, 40, 3), |_, _, _, _| 16 + (random.next_u32() >> 31) as u8);
        let covering = cover(&images, (2, 2), 8, 1 << 20).expect("covered");
        assert!(covering.uniform_cells.expect("few") > 3500);
        assert_eq!(covering.codebook, [17; 12]);
    }

    #[test]
    fn threads_do_not_change_the_codebook_nor_does_merging_on_the_way_break_the_bound() {
        let images = smooth((700, 12, 12, 3), 5);
        let whole = cover(&images, (2, 2), 4, 1 << 20).expect("covered");
        assert_eq!(whole.uniform_cells, Some(uniform(&images, (2, 2), 4)));
        // So few that the cells of every chunk of images are too many.
        let limit = 2 * whole.codebook.len() / 12;
        assert!(whole.uniform_cells.expect("few") > 6 * limit);
        let codebooks = [1, 2, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
            pool.install(|| [1 << 20, limit].map(|limit| cover(&images, (2, 2), 4, limit).expect("covered").codebook))
        });
        assert!(codebooks[0] == codebooks[1] && codebooks[0] == codebooks[2]);
        assert!(codebooks[0][0] == whole.codebook);
        let [_, merged] = &codebooks[0];
        let search = super::super::NearestCodeword::new(merged, 12).expect("valid");
        let geometry = options(&images, (2, 2), 4).geometry().expect("valid");
        let mut patch = [0; 12];
        for image in &images.0 {
            for place in 0..geometry.patches() {
                patches::cut(&geometry, &image.pixels, place % 6, place / 6, &mut patch);
                assert!(search.nearest_within(&patch, 4, None).is_some());
            }
        }
    }

    #[test]
    fn too_many_codewords_are_an_error_that_says_what_fits() {
        let mut random = Pcg32::seed_from_u64(4);
        let images = painted((600, 8, 8, 3), |_, _, _, _| random.next_u32() as u8);
        match cover(&images, (2, 2), 3, 2000) {
            Err(Error::Bound { max_error: 3, images: 256, of: 600, codewords, limit: 2000, fits }) => {
                assert!(codewords > 2000);
                let fits = fits.expect("a greater bound");
                // An estimate; here it is one that holds, and not by far too much.
                let needed =
                    |max_error| cover(&images, (2, 2), max_error, 1 << 20).expect("covered").codebook.len() / 12;
                assert!(needed(fits) <= 2000 && needed(fits / 2) > 2000, "{fits}");
            }
            other => unreachable!("{other:?}"),
        }
        // Exactly as many as there may be.
        let distinct = uniform(&images, (2, 2), 0);
        assert_eq!(cover(&images, (2, 2), 0, distinct).expect("covered").codebook.len(), 12 * distinct);
        match cover(&images, (2, 2), 0, distinct - 1) {
            Err(Error::Bound { images: 600, of: 600, codewords, fits: Some(_), .. }) => assert_eq!(codewords, distinct),
            other => unreachable!("{other:?}"),
        }
        let message = cover(&images, (1, 1), 127, 1).expect_err("several").to_string();
        assert!(message.contains("no greater bound"), "{message}");
    }

    #[test]
    fn unreadable_images_are_skipped_or_fail() {
        let mut images = smooth((5, 8, 8, 1), 9);
        images.0[1].pixels.clear();
        assert!(matches!(cover(&images, (2, 2), 8, 1000), Err(Error::Source { .. })));
        let skip = |images: &Images| {
            let options = EncodeOptions { on_error: OnError::Skip, ..options(images, (2, 2), 8) };
            codebook(images, &options.geometry().expect("valid"), &options, 8, 1000, &())
        };
        assert!(!skip(&images).expect("covered").codebook.is_empty());
        images.0.iter_mut().for_each(|image| image.pixels.clear());
        assert!(matches!(skip(&images), Err(Error::AllSkipped { files: 5, .. })));
    }

    #[test]
    fn cells_of_the_least_and_the_greatest_values_are_told_apart() {
        // All 65,536 patches of 4 x 4 black and white pixels: enough for hashes to agree in what a table looks at.
        let image = |first: u32| {
            let value = |patch: u32, bit: u32| if patch >> bit & 1 == 1 { 255 } else { 0 };
            let pixel = |x: u32, y: u32| value(first + x / 4 + y / 4 * 16, x % 4 + y % 4 * 4);
            let pixels = (0..64).flat_map(|y| (0..64).map(move |x| pixel(x, y))).collect();
            Image { width: 64, height: 64, channels: 1, pixels }
        };
        let images = Images((0..256).map(|i| image(256 * i)).collect());
        for max_error in [1, 8, 40, 127] {
            let options = EncodeOptions {
                image_size: (64, 64),
                channels: 1,
                codebook: Codebook::MaxError(max_error),
                ..EncodeOptions::default()
            };
            let geometry = options.geometry().expect("valid");
            let covering = codebook(&images, &geometry, &options, max_error, 1 << 20, &()).expect("covered");
            assert_eq!((covering.codebook.len() / 16, covering.uniform_cells), (65_536, Some(65_536)), "{max_error}");
        }
    }

    #[test]
    fn an_image_that_changes_is_named() {
        /// Its second image is another one every time.
        struct Changing(Images, AtomicUsize);
        impl Source for Changing {
            fn len(&self) -> usize {
                self.0.len()
            }
            fn name(&self, index: usize) -> String {
                self.0.name(index)
            }
            fn read(&self, index: usize, options: &ReadOptions) -> Result<Image> {
                let mut image = self.0.read(index, options)?;
                if index == 1 {
                    image.pixels.fill(100 * self.1.fetch_add(1, Ordering::Relaxed) as u8);
                }
                Ok(image)
            }
        }
        let folder = tempfile::tempdir().expect("tempdir");
        let images = painted((3, 8, 8, 1), |_, _, _, _| 0);
        let options = options(&images, (2, 2), 8);
        let source = Changing(images, AtomicUsize::new(0));
        match encode(&source, &folder.path().join("out.qvq"), &options, &()) {
            Err(Error::ImageChanged { name }) => assert_eq!(name, "image 1"),
            other => unreachable!("{other:?}"),
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 0);
    }

    #[test]
    fn cancelling_ends_both_stages() {
        struct StopIn(&'static str, std::sync::atomic::AtomicBool);
        impl Progress for StopIn {
            fn begin(&self, stage: &str, _: usize) {
                self.1.store(stage == self.0, Ordering::Relaxed);
            }
            fn is_cancelled(&self) -> bool {
                self.1.load(Ordering::Relaxed)
            }
        }
        let images = smooth((5, 8, 8, 1), 9);
        let options = options(&images, (2, 2), 8);
        for stage in ["covering", "merging"] {
            let geometry = options.geometry().expect("valid");
            let stopped = codebook(&images, &geometry, &options, 8, 1000, &StopIn(stage, false.into()));
            assert!(matches!(stopped, Err(Error::Interrupted)), "{stage}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn any_images_keep_any_bound(
            size in (1u32..4, 1u32..24, 1u32..24, prop::sample::select(&[1u32, 3, 4][..])),
            patch in (1u32..7, 1u32..7),
            max_error: u8,
            (base, noise) in (0u32..256, 1u32..60),
            seed: u64,
        ) {
            let mut random = Pcg32::seed_from_u64(seed);
            let images = painted(size, |i, x, y, _| (base + i + x * y + random.next_u32() % noise).min(255) as u8);
            assert_bound(&images, patch, max_error / 4);
        }
    }
}
