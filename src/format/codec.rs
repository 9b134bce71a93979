//! How images are coded, by name.

use std::fmt;

use serde::{Serialize, Serializer};

use super::tensor;

/// What the rows of an archive are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// One codebook of patches, one index per patch: rows of one length.
    Vq,
    /// Layers that add up, as many as each block needs: records of different lengths.
    Layers,
}

impl Codec {
    pub(crate) const ALL: [Self; 2] = [Self::Vq, Self::Layers];

    /// Its name in archives.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vq => "vq",
            Self::Layers => "layers",
        }
    }

    /// The tensor that holds its rows.
    pub(crate) fn rows(self) -> &'static str {
        match self {
            Self::Vq => tensor::INDICES,
            Self::Layers => tensor::RECORDS,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Codec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
