//! The codec "layers" on a GPU: its codebooks there, and the shader `layers.wgsl`.

use bytemuck::{Pod, Zeroable};

use super::codebook::UPLOAD;
use super::decoder::INDEX_USAGE;
use super::device::Device;
use super::kernels::{self, Constants};
use super::plan::{Limits, Pass, Sizes};
use crate::decode::check_records;
use crate::error::{Error, Result};
use crate::format::books::{
    BLOCK_STAGES, CHROMA, Component, Cover, LUMA, LayerBooks, MODES, QUARTER_STAGES, codeword_len,
};
use crate::format::layers::LayersView;
use crate::format::record::RecordShape;
use crate::geometry::Geometry;
use crate::output::{Layout, OutputSpec};

pub(crate) const SOURCE: kernels::Source = kernels::Source {
    name: "layers",
    text: include_str!("../../shaders/layers.wgsl"),
    fast: ["tiles_u8", "tiles_f16", "tiles_f32"],
};

/// The uniform buffer, as `Params` in the shader.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Params {
    pub common: kernels::Params,
    padding: [u32; 2],
}

/// An archive's codebooks on a device.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    geometry: Geometry,
    shape: RecordShape,
    books: wgpu::Buffer,
}

impl Layers {
    pub fn new(device: &Device, limits: &Limits, geometry: &Geometry, archive: LayersView) -> Result<Self> {
        let needed = (size_of::<Header>() + archive.books_len()) as u64;
        let found = limits.binding.min(limits.buffer);
        if needed > found {
            let (adapter, limit) = (device.description().to_string(), "max_storage_buffer_binding_size");
            return Err(Error::GpuLimit { adapter, limit, found, needed });
        }
        let bytes = pack(&archive.books());
        let books = device.scope("uploading codebooks", || {
            let books = device.raw().create_buffer(&wgpu::BufferDescriptor {
                label: Some("books"),
                size: bytes.len() as u64,
                usage: INDEX_USAGE,
                mapped_at_creation: false,
            });
            for (piece, offset) in bytes.chunks(UPLOAD).zip((0..).step_by(UPLOAD)) {
                device.queue().write_buffer(&books, offset, piece);
                device.queue().submit([]);
            }
            books
        })?;
        Ok(Self { geometry: *geometry, shape: archive.shape().clone(), books })
    }

    pub fn sizes(&self) -> Sizes {
        let tiles = (self.geometry.image_width() / 4 * self.geometry.image_height().div_ceil(4)) as u64;
        let fast_units = fit_tiles(&self.geometry).then_some(tiles);
        Sizes { geometry: self.geometry, fast_units, codebook_parts: 1 }
    }

    pub fn shape(&self) -> &RecordShape {
        &self.shape
    }

    pub fn check_rows(&self, rows: &[&[u8]]) -> Result<()> {
        check_records(&self.shape, rows)
    }

    pub fn books(&self) -> &wgpu::Buffer {
        &self.books
    }

    pub fn params(&self, pass: &Pass, spec: &OutputSpec) -> Params {
        Params { common: kernels::Params::new(pass, spec, self.geometry.channels()), padding: [0; 2] }
    }

    pub fn constants(&self, spec: &OutputSpec, workgroup_size: u32) -> Constants {
        constants(&self.geometry, &self.shape, spec, workgroup_size)
    }
}

/// Whether the kernels `tiles_*` can decode these images.
pub(crate) fn fit_tiles(geometry: &Geometry) -> bool {
    geometry.image_width().is_multiple_of(4)
}

/// The values of the shader's `override` constants for an archive and an output.
pub(crate) fn constants(geometry: &Geometry, shape: &RecordShape, spec: &OutputSpec, workgroup_size: u32) -> Constants {
    let chroma = shape.grids.len() > CHROMA;
    let integers = [
        ("WORKGROUP_SIZE", workgroup_size as usize),
        ("IMAGE_WIDTH", geometry.image_width()),
        ("IMAGE_HEIGHT", geometry.image_height()),
        ("CHANNELS", geometry.channels()),
        ("INDEX_BITS", shape.index_bits as usize),
        ("PLANAR", usize::from(spec.layout == Layout::Nchw)),
        ("VALUES_PER_WORD", 4 / spec.dtype.size()),
        ("LUMA_WIDTH", shape.grids[LUMA].0),
        ("LUMA_GROUPS", shape.groups(LUMA)),
        ("CHROMA_WIDTH", if chroma { shape.grids[CHROMA].0 } else { 0 }),
        ("CHROMA_GROUPS", if chroma { shape.groups(CHROMA) } else { 0 }),
    ];
    integers.into_iter().map(|(name, value)| (name, value as f64)).collect()
}

/// Bytes of the vectors that the shader loads.
const QUAD: usize = 16;

/// Most stages of a mode.
const STAGES: usize = BLOCK_STAGES + QUARTER_STAGES;

/// What the buffer of codebooks begins with, as the shader's functions `block_at` and `stage_at` read it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Header {
    components: [Modes; 2],
    stages: [[[Stage; STAGES]; MODES]; 2],
}

/// A component's modes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Modes {
    /// What each set of planes, as bits, adds to the number of indices of a block that has them.
    weights: [u32; MODES],
    /// The number of stages of each mode, and of those that cover the block, in four bits each.
    stages: u32,
    whole: u32,
    padding: [u32; 2],
}

/// A stage of a mode.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Stage {
    /// The first quad of its codebook.
    first: u32,
    last_codeword: u32,
    padding: [u32; 2],
}

/// The contents of the buffer of codebooks.
fn pack(books: &LayerBooks) -> Vec<u8> {
    let mut header = Header::zeroed();
    let mut bytes = bytemuck::bytes_of(&header).to_vec();
    for (number, component) in books.components().into_iter().enumerate() {
        let pack_book = |book: &crate::format::books::Book<Vec<i8>>| {
            let len = codeword_len(number, book.cover);
            let first = (bytes.len() / QUAD) as u32;
            book.codewords
                .chunks_exact(len)
                .for_each(|codeword| pack_codeword(number, book.cover, codeword, &mut bytes));
            Stage { first, last_codeword: (book.codewords.len() / len - 1) as u32, padding: [0; 2] }
        };
        let packed: Vec<Stage> = component.books.iter().map(pack_book).collect();
        header.components[number] = modes(component);
        for (mode, stages) in header.stages[number].iter_mut().enumerate() {
            let of = component.mode(mode);
            let books = of.block.iter().chain(&of.quarter).map(|&book| packed[book]);
            stages.iter_mut().zip(books).for_each(|(stage, book)| *stage = book);
        }
    }
    bytes[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
    bytes
}

fn modes<T>(component: &Component<T>) -> Modes {
    let mut weights = component.lens();
    // Each set's number less those of all sets within it.
    for plane in [1, 2, 4] {
        for set in (0..MODES).filter(|set| set & plane != 0) {
            weights[set] = weights[set].wrapping_sub(weights[set - plane]);
        }
    }
    let four_bits = |count: fn(&crate::format::books::Mode) -> usize| {
        (0..MODES).map(|mode| (count(component.mode(mode)) as u32) << (4 * mode)).sum()
    };
    Modes {
        weights,
        stages: four_bits(|mode| mode.block.len() + mode.quarter.len()),
        whole: four_bits(|mode| mode.block.len()),
        padding: [0; 2],
    }
}

/// Brings a codeword to the order in which tiles of 4x4 pixels read it, quarter by quarter or tile by tile.
fn pack_codeword(component: usize, cover: Cover, codeword: &[i8], bytes: &mut Vec<u8>) {
    let places = |tiles: usize| (0..tiles * tiles).map(move |tile| (tile / tiles, tile % tiles));
    let plane = |plane: usize, y: usize, x: usize| codeword[plane * 64 + y * 8 + x] as u8 ^ 0x80;
    match (component, cover) {
        (LUMA, Cover::Quarter) => bytes.extend(codeword.iter().map(|&value| value as u8 ^ 0x80)),
        (LUMA, Cover::Block) => {
            for (y, x) in places(2) {
                bytes.extend(places(4).map(|(dy, dx)| plane(0, 4 * y + dy, 4 * x + dx)));
            }
        }
        (_, Cover::Quarter) => {
            for (y, x) in places(2) {
                for p in [0, 1] {
                    bytes.extend(places(4).map(|(dy, dx)| plane(p, 4 * y + dy, 4 * x + dx)));
                }
            }
        }
        (_, Cover::Block) => {
            for (y, x) in places(4) {
                for p in [0, 1] {
                    bytes.extend(places(2).map(|(dx, dy)| plane(p, 2 * y + dy, 2 * x + dx)));
                }
            }
        }
    }
}
