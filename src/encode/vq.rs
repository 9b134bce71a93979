//! The codec "vq": from an image to its index row.

use rayon::prelude::*;

use super::EncodeOptions;
#[cfg(feature = "gpu")]
use super::chunk;
use super::nearest::NearestCodeword;
use super::pass::{CHUNK_IMAGES, Encoded, Pass};
use super::patches;
use super::projection::Projection;
use super::quality::squared_distance;
use super::search::Search;
use crate::error::Result;
use crate::format::index::IndexWidth;
use crate::geometry::Geometry;
use crate::progress::Progress;

/// A codebook that images are encoded with.
pub(super) struct Vq<'a> {
    geometry: Geometry,
    #[cfg(feature = "gpu")]
    codebook: &'a [u8],
    pub index_width: IndexWidth,
    search: Search<'a>,
    max_error: Option<u8>,
}

/// An image's indices and the sum of its squared errors.
pub(super) struct Indices {
    pub indices: Vec<u32>,
    pub squared_error: u64,
}

/// The most bytes of indices that are in memory at once.
const CHUNK_BYTES: usize = 256 << 20;

impl<'a> Vq<'a> {
    pub fn new(options: &EncodeOptions, codebook: &'a [u8]) -> Result<Self> {
        let geometry = options.geometry()?;
        let len = geometry.codeword_len();
        let index_width = IndexWidth::narrowest(codebook.len() / len)?;
        let search = options.searcher.search(codebook, len, || Projection::new(codebook, len))?;
        Ok(Self {
            geometry,
            #[cfg(feature = "gpu")]
            codebook,
            index_width,
            search,
            max_error: options.max_error(),
        })
    }

    /// Encodes the images that are left.
    pub fn run(&self, pass: &mut Pass, progress: &dyn Progress) -> Result<()> {
        match &self.search {
            Search::Cpu(search) => {
                let count = (CHUNK_BYTES / (4 * self.geometry.patches())).clamp(1, CHUNK_IMAGES);
                let encode = |pixels: &[u8]| {
                    let indices = indices(&self.geometry, search, self.max_error, pixels)?;
                    Some(indices.pack(self.index_width))
                };
                pass.run_each(count, encode, progress)
            }
            #[cfg(feature = "gpu")]
            Search::Gpu(search) => {
                let count = chunk::images_per_chunk(&self.geometry, CHUNK_IMAGES);
                let encode =
                    |images| chunk::encode_chunk(&self.geometry, self.codebook, self.index_width, search, images);
                pass.run_chunks(count, encode, progress)
            }
        }
    }
}

impl Indices {
    /// The index row as it is stored.
    pub fn pack(self, width: IndexWidth) -> Encoded {
        let mut row = Vec::with_capacity(width.row_len(self.indices.len()));
        width.pack(&self.indices, &mut row);
        Encoded { row, squared_error: self.squared_error }
    }
}

/// Finds the codewords of an image's patches, rows of the grid in parallel; with `max_error` those from which no
/// value differs by more, `None` if a patch has no such codeword.
pub(super) fn indices(
    geometry: &Geometry,
    search: &NearestCodeword,
    max_error: Option<u8>,
    image: &[u8],
) -> Option<Indices> {
    let codeword_len = geometry.codeword_len();
    let mut indices = vec![0; geometry.patches()];
    let row_error = |(y, indices): (usize, &mut [u32])| {
        let mut patch = vec![0; codeword_len];
        let mut hint = None;
        let mut squared_error = 0;
        for (x, index) in indices.iter_mut().enumerate() {
            patches::cut(geometry, image, x, y, &mut patch);
            let (nearest, distance) = match max_error {
                None => search.nearest(&patch, hint),
                Some(max_error) => search.nearest_within(&patch, max_error, hint)?,
            };
            *index = nearest;
            hint = Some(nearest);
            squared_error += patch_error(geometry, x, y, &patch, search.codeword(nearest), distance);
        }
        Some(squared_error)
    };
    let rows = indices.par_chunks_mut(geometry.grid_width()).enumerate();
    let squared_error = rows.with_min_len((1024 / geometry.grid_width()).max(1)).map(row_error).sum::<Option<u64>>()?;
    Some(Indices { indices, squared_error })
}

/// The squared error of what is visible of a patch at a squared distance from its codeword.
pub(super) fn patch_error(
    geometry: &Geometry,
    x: usize,
    y: usize,
    patch: &[u8],
    codeword: &[u8],
    distance: u32,
) -> u64 {
    let (rows, values) = patches::visible(geometry, x, y);
    if rows * values == geometry.codeword_len() {
        return distance.into();
    }
    let row_len = geometry.patch_row_len();
    let rows = patch.chunks_exact(row_len).zip(codeword.chunks_exact(row_len)).take(rows);
    rows.map(|(a, b)| u64::from(squared_distance(&a[..values], &b[..values]))).sum()
}
