//! The shaders as text, and how they are used, for tools that check them without a GPU.

use std::mem::{offset_of, size_of};

use super::decode::{self, Kernel};
use super::plan::Sizes;
use super::{fill, nearest};
use crate::archive::Archive;
use crate::output::OutputSpec;

/// A shader of the library's.
#[derive(Debug)]
pub struct Shader {
    /// The name of its file.
    pub name: &'static str,
    /// Its text in WGSL.
    pub source: &'static str,
    /// The members of its uniform buffer `Params` and their offsets in bytes, as the host writes them.
    pub params_layout: &'static [(&'static str, usize)],
    /// The size of that buffer in bytes.
    pub params_size: usize,
}

/// Any size will do to check a shader.
const WORKGROUP_SIZE: u32 = 128;

/// An entry point and the values of its `override` constants.
pub type Use = (&'static str, Vec<(&'static str, f64)>);

macro_rules! layout {
    ($type:ty: $($member:ident)*) => {
        &[$((stringify!($member), offset_of!($type, $member))),*]
    };
}

/// All of them.
pub static ALL: &[Shader] = &[
    Shader {
        name: "decode.wgsl",
        source: decode::SOURCE,
        params_layout: layout!(decode::Params:
            scale bias first_unit end_unit stride last_codeword first_row first_value end_row merge
            first_sample samples first_patch patches first_codeword codewords first_stored stored),
        params_size: size_of::<decode::Params>(),
    },
    Shader {
        name: "fill.wgsl",
        source: fill::SOURCE,
        params_layout: layout!(fill::Params: first_unit end_unit stride value),
        params_size: size_of::<fill::Params>(),
    },
    Shader {
        name: "nearest.wgsl",
        source: nearest::SOURCE,
        params_layout: layout!(nearest::Params: patches first_codeword end_codeword first_index merge),
        params_size: size_of::<nearest::Params>(),
    },
];

impl Shader {
    /// The uses that making this archive, or decoding it to this output, makes of the shader.
    pub fn uses<D: AsRef<[u8]>>(&self, archive: &Archive<D>, spec: &OutputSpec) -> Vec<Use> {
        match self.name {
            "fill.wgsl" => return fill::ENTRY_POINTS.map(|entry_point| (entry_point, Vec::new())).to_vec(),
            "nearest.wgsl" => return nearest::uses(archive.geometry().codeword_len(), WORKGROUP_SIZE),
            _ => {}
        }
        let Ok(vq) = archive.vq() else { return Vec::new() };
        let sizes = Sizes { geometry: *archive.geometry(), index_width: vq.index_width() };
        let kernels = sizes.fit_columns().then(|| Kernel::columns(spec.dtype)).into_iter().chain([Kernel::Words]);
        let uses = kernels.flat_map(|kernel| {
            let constants = |resident| decode::constants(&sizes, spec, resident, WORKGROUP_SIZE);
            [false, true].map(|resident| (kernel.entry_point(), constants(resident)))
        });
        uses.collect()
    }
}
