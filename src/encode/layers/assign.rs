//! The search for nearest codewords in training: by the CPU, or by a GPU that is there, to the same result.

use super::search::{BookSearch, Near};
use crate::encode::Searcher;
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::GpuNearest;

/// A codebook in training, ready to be searched.
#[derive(Debug)]
pub(super) struct Assign {
    cpu: BookSearch,
    #[cfg(feature = "gpu")]
    gpu: Option<GpuNearest>,
}

impl Assign {
    /// Prepares searches as [`BookSearch::new`] does.
    ///
    /// # Errors
    /// Those of the GPU.
    #[cfg_attr(not(feature = "gpu"), expect(unused_variables, reason = "the CPU alone searches"))]
    pub fn new(searcher: &Searcher, codewords: &[i8], len: usize) -> Result<Self> {
        Ok(Self {
            cpu: BookSearch::new(codewords, len),
            #[cfg(feature = "gpu")]
            gpu: match searcher {
                Searcher::Cpu => None,
                Searcher::Gpu(device) => {
                    let codewords: Vec<u8> = codewords.iter().map(|&value| value.cast_unsigned() ^ 128).collect();
                    Some(GpuNearest::new(device, &codewords, len)?)
                }
            },
        })
    }

    /// How many targets to bring at a time: few keep a CPU's caches warm, many keep a GPU busy.
    pub fn at_once(searcher: &Searcher, of_cpu: usize) -> usize {
        const OF_GPU: usize = 1 << 14;
        if *searcher == Searcher::Cpu { of_cpu } else { OF_GPU }
    }

    /// Finds the codewords as [`BookSearch::nearest`] does. A GPU takes the targets whose values are bytes, nearly all; that
    /// they have no sign there changes no distance, as 128 more in codewords and targets does not.
    pub fn nearest(&self, targets: &[i16], near: &mut [Near]) -> Result<()> {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = self.gpu.as_ref().filter(|_| !near.is_empty()) {
            let len = targets.len() / near.len();
            let mut bytes = Vec::with_capacity(targets.len());
            let mut of_gpu = Vec::with_capacity(near.len());
            for (target, near) in targets.chunks_exact(len).zip(near) {
                if target.iter().all(|&value| value == i16::from(value as i8)) {
                    bytes.extend(target.iter().map(|&value| value as u8 ^ 128));
                    of_gpu.push(near);
                } else {
                    self.cpu.nearest(target, std::slice::from_mut(near));
                }
            }
            let (mut indices, mut distances) = (vec![0; of_gpu.len()], vec![0; of_gpu.len()]);
            gpu.nearest(&bytes, &mut indices, &mut distances)?;
            for ((near, index), distance) in of_gpu.into_iter().zip(indices).zip(distances) {
                *near = Near { distance, index: index as u16 };
            }
            return Ok(());
        }
        self.cpu.nearest(targets, near);
        Ok(())
    }
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::super::cluster::drawn;
    use super::*;
    use crate::gpu::{Device, Select, adapters};

    #[test]
    fn every_adapter_finds_what_the_cpu_finds() {
        let adapters = adapters();
        let allowed = std::env::var_os("KUAT_TEST_WITHOUT_GPU").is_some();
        assert!(!adapters.is_empty() || allowed, "no adapter; KUAT_TEST_WITHOUT_GPU=1 does without");
        for adapter in adapters {
            let device = Device::open(&Select::Named(adapter.to_string())).expect("opens");
            let searcher = Searcher::Gpu(device);
            for (len, count) in [(16, 300), (64, 40), (128, 33)] {
                let value = |i: usize| drawn(len as u64, i as u64);
                let codewords: Vec<i8> = (0..count * len).map(|i| value(i) as i8).collect();
                // Some exceed a byte.
                let target = |i: usize| (value(i) >> 32) as i16 % if (i / len).is_multiple_of(5) { 200 } else { 128 };
                let targets: Vec<i16> = (0..70 * len).map(target).collect();
                let near = |searcher: &Searcher| {
                    let mut near = vec![Near::default(); 70];
                    let assign = Assign::new(searcher, &codewords, len).expect("prepares");
                    assign.nearest(&targets, &mut near).expect("searches");
                    near
                };
                assert_eq!(near(&searcher), near(&Searcher::Cpu), "{adapter}, {len} values");
            }
        }
    }
}
