//! Which instructions the CPU decoder is made of.

use std::fmt;

/// A set of instructions that the CPU decoder has kernels for. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CpuPath {
    /// What every processor of this architecture has: SSE2 on x86-64, NEON on AArch64.
    Portable,
    /// AVX2: compiled from the same source as the portable path, with kernels of its own for the codec "layers".
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 with VBMI (Intel from Ice Lake, AMD from Zen 4 on): bytes permuted in registers.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl CpuPath {
    /// All paths that this processor can take, the fastest last.
    pub fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let mut paths = vec![Self::Portable];
            let avx2 = is_x86_feature_detected!("avx2");
            if avx2 {
                paths.push(Self::Avx2);
            }
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vbmi");
            if avx2 && avx512 {
                paths.push(Self::Avx512);
            }
            paths
        }
        #[cfg(not(target_arch = "x86_64"))]
        vec![Self::Portable]
    }

    /// The fastest path that this processor can take.
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self::Portable)
    }

    /// Its name in figures and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable if cfg!(target_arch = "aarch64") => "neon",
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for CpuPath {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}
