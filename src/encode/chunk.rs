//! Images whose patches are searched for all at once, as keeps a GPU busy.

use rayon::prelude::*;

use super::pass::Encoded;
use super::vq::{Indices, patch_error};
use super::{Image, patches};
use crate::error::Result;
use crate::format::index::IndexWidth;
use crate::geometry::Geometry;
use crate::gpu::GpuNearest;

/// The most bytes of pixels of a chunk. While one is searched for, the next is read; there are the patches, too, and a
/// third as much for results where patches are smallest, so four times as much is in memory.
const BYTES: usize = 64 << 20;

/// How many images, at most `most`, a chunk has.
pub(super) fn images_per_chunk(geometry: &Geometry, most: usize) -> usize {
    (BYTES / (geometry.patches() * geometry.codeword_len())).clamp(1, most)
}

/// Encodes those images that could be read.
pub(super) fn encode_chunk(
    geometry: &Geometry,
    codebook: &[u8],
    width: IndexWidth,
    search: &GpuNearest,
    images: Vec<Result<Image>>,
) -> Result<Vec<Result<Encoded>>> {
    let (per_image, len) = (geometry.patches(), geometry.codeword_len());
    let readable: Vec<&Image> = images.iter().flatten().collect();
    let mut patches = vec![0; readable.len() * per_image * len];
    patches.par_chunks_exact_mut(geometry.grid_width() * len).enumerate().for_each(|(row, patches)| {
        let (image, y) = (readable[row / geometry.grid_height()], row % geometry.grid_height());
        let patches = patches.chunks_exact_mut(len).enumerate();
        patches.for_each(|(x, patch)| patches::cut(geometry, &image.pixels, x, y, patch));
    });
    let mut nearest = vec![0; readable.len() * per_image];
    let mut distances = nearest.clone();
    search.nearest(&patches, &mut nearest, &mut distances)?;

    let results = nearest.par_chunks_exact(per_image).zip(distances.par_chunks_exact(per_image));
    let encode = |(patches, (indices, distances)): (&[u8], (&[u32], &[u32]))| {
        let pairs = patches.chunks_exact(len).zip(indices.iter().zip(distances)).enumerate();
        let errors = pairs.map(|(i, (patch, (&index, &distance)))| {
            let (x, y) = (i % geometry.grid_width(), i / geometry.grid_width());
            patch_error(geometry, x, y, patch, &codebook[index as usize * len..][..len], distance)
        });
        Indices { indices: indices.to_vec(), squared_error: errors.sum() }.pack(width)
    };
    let encoded: Vec<Encoded> = patches.par_chunks_exact(per_image * len).zip(results).map(encode).collect();
    let mut encoded = encoded.into_iter();
    // Each image that could be read takes the next.
    let results = images.into_iter().filter_map(|image| image.map(|_| encoded.next()).transpose());
    Ok(results.collect())
}
