//! The shaders as text, and how they are used, for tools that check them without a GPU.

use std::mem::{offset_of, size_of};

use super::plan::Kernel;
use super::{fill, kernels, layers, nearest, vq};
use crate::archive::Archive;
use crate::data::Data;
use crate::format::codec::Codec;
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

/// The size of the largest uniform buffer.
pub(super) const LARGEST_PARAMS: usize = size_of::<layers::Params>();
const _: () = assert!(LARGEST_PARAMS >= size_of::<vq::Params>() && LARGEST_PARAMS >= size_of::<nearest::Params>());

/// Any size will do to check a shader.
const WORKGROUP_SIZE: u32 = 128;

/// An entry point and the values of its `override` constants.
pub type Use = (&'static str, Vec<(&'static str, f64)>);

macro_rules! layout {
    // With what the parameters of all codecs begin with.
    (common + $type:ty: $($member:ident)*) => {
        layout!(
            $type: scale bias first_unit end_unit stride first_row first_value end_row merge first_sample samples part,
            $($member)*
        )
    };
    ($type:ty: $($common:ident)*, $($member:ident)*) => {
        &[
            $((stringify!($common), offset_of!($type, common.$common)),)*
            $((stringify!($member), offset_of!($type, $member))),*
        ]
    };
    ($type:ty: $($member:ident)*) => {
        &[$((stringify!($member), offset_of!($type, $member))),*]
    };
}

/// All of them.
pub static ALL: &[Shader] = &[
    Shader {
        name: "vq.wgsl",
        source: vq::SOURCE.text,
        params_layout: layout!(common + vq::Params: first_patch patches last_codeword first_codeword codewords),
        params_size: size_of::<vq::Params>(),
    },
    Shader {
        name: "layers.wgsl",
        source: layers::SOURCE.text,
        params_layout: layout!(common + layers::Params: components),
        params_size: size_of::<layers::Params>(),
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
    pub fn uses<D: Data>(&self, archive: &Archive<D>, spec: &OutputSpec) -> Vec<Use> {
        match self.name {
            "fill.wgsl" => return fill::ENTRY_POINTS.map(|entry_point| (entry_point, Vec::new())).to_vec(),
            "nearest.wgsl" => return nearest::uses(archive.geometry().codeword_len(), WORKGROUP_SIZE),
            "vq.wgsl" if archive.codec() == Codec::Vq => {}
            "layers.wgsl" if archive.codec() == Codec::Layers => {}
            _ => return Vec::new(),
        }
        let geometry = archive.geometry();
        let uses = |source: &kernels::Source, fast: bool, constants: Vec<kernels::Constants>| -> Vec<Use> {
            let kernels = fast.then_some(Kernel::Fast).into_iter().chain([Kernel::Words]);
            let entry_points = kernels.map(|kernel| source.entry_point(kernel, spec.dtype));
            entry_points.flat_map(|entry| constants.iter().map(move |constants| (entry, constants.clone()))).collect()
        };
        if let Ok(archive) = archive.vq() {
            let constants = [false, true]
                .map(|resident| vq::constants(geometry, vq::row_size(archive), spec, resident, WORKGROUP_SIZE));
            return uses(&vq::SOURCE, vq::fit_columns(geometry), constants.into());
        }
        let Ok(archive) = archive.layers() else { return Vec::new() };
        let constants = layers::constants(geometry, archive.shape(), spec, WORKGROUP_SIZE);
        uses(&layers::SOURCE, layers::fit_blocks(geometry), vec![constants])
    }
}
