//! The codec "layers" on a GPU: its codebooks there, and the shader `layers.wgsl`.

use bytemuck::{Pod, Zeroable};

use super::codebook::UPLOAD;
use super::decoder::INDEX_USAGE;
use super::device::Device;
use super::kernels::{self, Constants};
use super::plan::{Limits, Pass, Sizes, TooSmall};
use crate::decode::check_records;
use crate::error::Result;
use crate::format::books::{
    BLOCK_STAGES, Book, CHROMA, Component, Cover, LUMA, LayerBooks, MODES, QUARTER_STAGES, codeword_len,
};
use crate::format::layers::LayersView;
use crate::format::record::RecordShape;
use crate::geometry::Geometry;
use crate::output::{Layout, OutputSpec};

pub(crate) const SOURCE: kernels::Source = kernels::Source {
    name: "layers",
    text: concat!(include_str!("../../shaders/output.wgsl"), include_str!("../../shaders/layers.wgsl")),
    fast: ["blocks_u8", "blocks_f16", "blocks_f32"],
};

/// The uniform buffer, as `Params` in the shader.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Params {
    pub common: kernels::Params,
    padding: [u32; 2],
    pub components: [Modes; 2],
}

/// The modes of a component, as `Component` in the shader.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Modes {
    /// What each set of a mode's three bits adds to the number of indices of a block.
    weights: [u32; MODES],
    /// The number of stages of each mode, and of those that cover the block, in four bits each.
    stages: u32,
    whole: u32,
    padding: [u32; 2],
    books: [[Stage; STAGES]; MODES],
}

/// The codebook of a stage.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Stage {
    /// Its first quad.
    first: u32,
    last_codeword: u32,
    padding: [u32; 2],
}

/// Bytes of the vectors that the shader loads.
const QUAD: usize = 16;

/// Most stages of a mode.
const STAGES: usize = BLOCK_STAGES + QUARTER_STAGES;

/// An archive's codebooks on a device.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    geometry: Geometry,
    shape: RecordShape,
    books: wgpu::Buffer,
    components: Box<[Modes; 2]>,
}

impl Layers {
    pub fn new(device: &Device, limits: &Limits, geometry: &Geometry, archive: LayersView) -> Result<Self> {
        let needed = archive.books_len() as u64;
        let found = limits.binding.min(limits.buffer);
        if needed > found {
            let limit = "max_storage_buffer_binding_size";
            return Err(device.limit_error(TooSmall { limit, found, needed }));
        }
        let (components, bytes) = pack(&archive.books()?);
        let books = device.scope("making room for codebooks", || {
            device.raw().create_buffer(&wgpu::BufferDescriptor {
                label: Some("books"),
                size: bytes.len() as u64,
                usage: INDEX_USAGE,
                mapped_at_creation: false,
            })
        })?;
        device.scope("uploading codebooks", || {
            for (piece, offset) in bytes.chunks(UPLOAD).zip((0..).step_by(UPLOAD)) {
                device.queue().write_buffer(&books, offset, piece);
                device.queue().submit([]);
            }
        })?;
        Ok(Self { geometry: *geometry, shape: archive.shape().clone(), books, components })
    }

    pub fn sizes(&self) -> Sizes {
        let fast_units = fit_blocks(&self.geometry).then_some(self.shape.blocks(LUMA) as u64);
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
        let common = kernels::Params::new(pass, spec, self.geometry.channels());
        Params { common, padding: [0; 2], components: *self.components }
    }

    pub fn constants(&self, spec: &OutputSpec, workgroup_size: u32) -> Constants {
        constants(&self.geometry, &self.shape, spec, workgroup_size)
    }
}

/// Whether the kernels `blocks_*` can decode these images.
pub(crate) fn fit_blocks(geometry: &Geometry) -> bool {
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
        ("LUMA_HEIGHT", shape.grids[LUMA].1),
        ("LUMA_GROUPS", shape.groups(LUMA)),
        ("CHROMA_WIDTH", if chroma { shape.grids[CHROMA].0 } else { 0 }),
        ("CHROMA_GROUPS", if chroma { shape.groups(CHROMA) } else { 0 }),
    ];
    integers.into_iter().map(|(name, value)| (name, value as f64)).collect()
}

/// The modes of both components, and the contents of the buffer of codebooks.
fn pack(books: &LayerBooks) -> (Box<[Modes; 2]>, Vec<u8>) {
    let (mut all, mut bytes) = (Box::new([Modes::zeroed(); 2]), Vec::new());
    for (number, component) in books.components().into_iter().enumerate() {
        let mut pack_book = |book: &Book<Vec<i8>>| {
            let (len, first) = (codeword_len(number, book.cover), (bytes.len() / QUAD) as u32);
            let codewords = book.codewords.chunks_exact(len);
            let last_codeword = (codewords.len() - 1) as u32;
            codewords.for_each(|codeword| pack_codeword(number, book.cover, codeword, &mut bytes));
            Stage { first, last_codeword, padding: [0; 2] }
        };
        let packed: Vec<Stage> = component.books.iter().map(&mut pack_book).collect();
        all[number] = modes(component, &packed);
    }
    (all, bytes)
}

fn modes<T>(component: &Component<T>, packed: &[Stage]) -> Modes {
    let mut modes = Modes { weights: component.lens(), ..Modes::zeroed() };
    // Each set's number less those of all sets within it.
    for plane in [1, 2, 4] {
        for set in (0..MODES).filter(|set| set & plane != 0) {
            modes.weights[set] = modes.weights[set].wrapping_sub(modes.weights[set - plane]);
        }
    }
    for (number, stages) in modes.books.iter_mut().enumerate() {
        let mode = component.mode(number);
        modes.stages |= ((mode.block.len() + mode.quarter.len()) as u32) << (4 * number);
        modes.whole |= (mode.block.len() as u32) << (4 * number);
        let books = mode.block.iter().chain(&mode.quarter).map(|&book| packed[book]);
        stages.iter_mut().zip(books).for_each(|(stage, book)| *stage = book);
    }
    modes
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
            let tiles = places(2).flat_map(|(y, x)| places(2).map(move |(dy, dx)| (2 * y + dy, 2 * x + dx)));
            for (y, x) in tiles {
                for p in [0, 1] {
                    bytes.extend(places(2).map(|(dx, dy)| plane(p, 2 * y + dy, 2 * x + dx)));
                }
            }
        }
    }
}
