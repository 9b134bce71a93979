//! What searches for nearest codewords: the CPU or a GPU, to the same result.

use rayon::prelude::*;

use super::nearest::NearestCodeword;
use super::projection::Projection;
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::{Device, GpuNearest};

/// What searches for the codewords nearest to patches. All find the same ones: archives are equal byte for byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Searcher {
    /// The CPU, by a tree over the codewords.
    #[default]
    Cpu,
    /// A GPU, by comparing with every codeword.
    #[cfg(feature = "gpu")]
    Gpu(Device),
}

#[cfg(feature = "gpu")]
impl From<Option<Device>> for Searcher {
    /// That GPU, or the CPU.
    fn from(device: Option<Device>) -> Self {
        device.map_or(Searcher::Cpu, Searcher::Gpu)
    }
}

impl Searcher {
    /// `cpu`, or the adapter's name.
    pub fn name(&self) -> String {
        match self {
            Searcher::Cpu => "cpu".into(),
            #[cfg(feature = "gpu")]
            Searcher::Gpu(device) => device.description().to_string(),
        }
    }

    /// Prepares searches in a codebook of codewords of `len` values.
    pub(super) fn search<'a>(
        &self,
        codebook: &'a [u8],
        len: usize,
        projection: impl FnOnce() -> Projection,
    ) -> Result<Search<'a>> {
        Ok(match self {
            Searcher::Cpu => Search::Cpu(NearestCodeword::with_projection(codebook, len, projection())?),
            #[cfg(feature = "gpu")]
            Searcher::Gpu(device) => Search::Gpu(GpuNearest::new(device, codebook, len)?),
        })
    }
}

/// A codebook that is ready to be searched.
#[derive(Debug)]
pub(super) enum Search<'a> {
    Cpu(NearestCodeword<'a>),
    #[cfg(feature = "gpu")]
    Gpu(GpuNearest),
}

impl Search<'_> {
    /// Finds for each patch the index of the nearest codeword, the lowest one of several, and its squared distance. The
    /// CPU begins with the codeword in `nearest`. `done` is told how many patches more are done, and can end the work.
    pub fn assign(
        &self,
        patches: &[u8],
        len: usize,
        nearest: &mut [u32],
        distances: &mut [u32],
        done: impl Fn(usize) -> Result<()> + Sync,
    ) -> Result<()> {
        match self {
            Search::Cpu(tree) => {
                const CHUNK: usize = 4096;
                let results = nearest.par_chunks_mut(CHUNK).zip(distances.par_chunks_mut(CHUNK));
                patches.par_chunks(CHUNK * len).zip(results).try_for_each(|(patches, (nearest, distances))| {
                    let results = nearest.iter_mut().zip(distances);
                    for (patch, (nearest, distance)) in patches.chunks_exact(len).zip(results) {
                        (*nearest, *distance) = tree.nearest(patch, Some(*nearest));
                    }
                    done(nearest.len())
                })
            }
            #[cfg(feature = "gpu")]
            Search::Gpu(gpu) => {
                // As many as a GPU takes at a time, and as few as end soon where it is slow.
                const CHUNK: usize = 1 << 19;
                let results = nearest.chunks_mut(CHUNK).zip(distances.chunks_mut(CHUNK));
                for (patches, (nearest, distances)) in patches.chunks(CHUNK * len).zip(results) {
                    gpu.nearest(patches, nearest, distances)?;
                    done(nearest.len())?;
                }
                Ok(())
            }
        }
    }
}
