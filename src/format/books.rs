//! The codebooks of the codec "layers", and which of them a block's codewords are taken from.

use std::convert::Infallible;

use serde::{Deserialize, Serialize};

use super::container::{TensorInfo, describe};
use super::header::{Metadata, Tensors};
use super::key;
use crate::error::{Error, Result};
use crate::geometry::Geometry;

/// Most modes of a component: as many as three bits tell.
pub const MODES: usize = 8;
/// Most stages of a mode whose codewords cover a block, and whose codewords cover a quarter of it.
pub const BLOCK_STAGES: usize = 3;
pub const QUARTER_STAGES: usize = 7;
/// Most bits of an index.
pub const INDEX_BITS: u32 = 16;

/// The codebooks of the codec "layers". `T` holds the codewords of one: a `Vec<i8>` or where they are in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books<T> {
    /// Bits of an index, 1 to 16; no codebook has more codewords than they can name.
    pub index_bits: u32,
    /// Brightness, in blocks of 8x8 pixels.
    pub luma: Component<T>,
    /// Colour (Cb and Cr), in blocks of 16x16 pixels; `None` for grey images.
    pub chroma: Option<Component<T>>,
}

/// Codebooks of brightness or of colour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component<T> {
    /// The codebooks.
    pub books: Vec<Book<T>>,
    /// What a block can be the sum of: 1 to 8 ways.
    pub modes: Vec<Mode>,
}

/// A codebook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book<T> {
    /// What a codeword covers.
    pub cover: Cover,
    /// 1 to 2^16 codewords. Of luma: 8x8 values for a block, 4x4 for a quarter, one per pixel. Of chroma: 8x8 values of Cb
    /// and 8x8 of Cr, each of 2x2 pixels of a block, or of one pixel of a quarter.
    pub codewords: T,
}

/// What a codeword covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cover {
    /// A block.
    Block,
    /// A quarter of a block: upper left, upper right, lower left or lower right.
    Quarter,
}

/// A way to make a block: a sum of codewords, one from each of these codebooks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mode {
    /// Codebooks (by number) whose codewords cover the block, at most 3.
    pub block: Vec<usize>,
    /// Codebooks whose codewords cover a quarter, at most 7; a block has one index into each for every quarter.
    pub quarter: Vec<usize>,
}

impl Mode {
    /// Indices of a block.
    pub fn indices(&self) -> usize {
        self.block.len() + 4 * self.quarter.len()
    }

    /// The codebook of each index of a block, in their order.
    pub fn books(&self) -> impl Iterator<Item = usize> {
        self.block.iter().copied().chain(self.quarter.iter().flat_map(|&book| [book; 4]))
    }
}

impl<T> Component<T> {
    /// A mode; the last one for numbers that are none's.
    pub fn mode(&self, mode: usize) -> &Mode {
        &self.modes[mode.min(self.modes.len() - 1)]
    }
}

/// The codebooks in memory.
pub type LayerBooks = Books<Vec<i8>>;

/// A component, by its number.
pub(crate) const LUMA: usize = 0;
pub(crate) const CHROMA: usize = 1;

/// Values of a codeword.
pub(crate) fn codeword_len(component: usize, cover: Cover) -> usize {
    match (component, cover) {
        (LUMA, Cover::Block) => 64,
        (LUMA, Cover::Quarter) => 16,
        _ => 128,
    }
}

/// The shape of a codeword in a tensor.
fn codeword_shape(component: usize, cover: Cover) -> &'static [u64] {
    match (component, cover) {
        (LUMA, Cover::Block) => &[8, 8],
        (LUMA, Cover::Quarter) => &[4, 4],
        _ => &[2, 8, 8],
    }
}

/// The beginning of the names of a component's codebooks: what they are of, and the side of what they cover in pixels.
fn prefix(component: usize, cover: Cover) -> &'static str {
    match (component, cover) {
        (LUMA, Cover::Block) => "luma8.",
        (LUMA, Cover::Quarter) => "luma4.",
        (_, Cover::Block) => "chroma16.",
        (_, Cover::Quarter) => "chroma8.",
    }
}

impl<T> Books<T> {
    /// Luma, and chroma if there is any.
    pub fn components(&self) -> Vec<&Component<T>> {
        std::iter::once(&self.luma).chain(&self.chroma).collect()
    }

    /// What holds each codebook.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &T> {
        self.components().into_iter().flat_map(|component| &component.books).map(|book| &book.codewords)
    }

    /// The same codebooks with their codewords held in another way.
    pub fn map<U>(&self, codewords: impl Fn(&T) -> U) -> Books<U> {
        match self.try_map(|held| Ok::<_, Infallible>(codewords(held))) {
            Ok(books) => books,
        }
    }

    /// As [`map`](Self::map), up to the first error.
    ///
    /// # Errors
    /// That of a codebook.
    pub fn try_map<U, E>(&self, codewords: impl Fn(&T) -> Result<U, E>) -> Result<Books<U>, E> {
        let component = |component: &Component<T>| -> Result<_, E> {
            let book = |b: &Book<T>| Ok(Book { cover: b.cover, codewords: codewords(&b.codewords)? });
            let books = component.books.iter().map(book).collect::<Result<_, E>>()?;
            Ok(Component { books, modes: component.modes.clone() })
        };
        let (luma, chroma) = (component(&self.luma)?, self.chroma.as_ref().map(component).transpose()?);
        Ok(Books { index_bits: self.index_bits, luma, chroma })
    }

    /// The name of each codebook's tensor, component by component.
    pub(crate) fn names(&self) -> Vec<Vec<String>> {
        let name = |component, books: &[Book<T>]| {
            let mut counts = [0; 2];
            let name = |book: &Book<T>| {
                let count = &mut counts[book.cover as usize];
                *count += 1;
                format!("{}{}", prefix(component, book.cover), *count - 1)
            };
            books.iter().map(name).collect()
        };
        self.components().into_iter().enumerate().map(|(i, component)| name(i, &component.books)).collect()
    }

    /// The modes of each component as the metadata has them: a JSON array of arrays of names.
    pub(crate) fn modes_json(&self) -> Vec<String> {
        let names = self.names();
        let json = |(component, names): (&Component<T>, &Vec<String>)| {
            let mode = |mode: &Mode| -> Vec<&str> {
                mode.block.iter().chain(&mode.quarter).map(|&b| names[b].as_str()).collect()
            };
            serde_json::json!(component.modes.iter().map(mode).collect::<Vec<_>>()).to_string()
        };
        self.components().into_iter().zip(&names).map(json).collect()
    }
}

/// What a component's modes are called in the metadata.
pub(crate) fn modes_key(component: usize) -> &'static str {
    [key::LUMA_MODES, key::CHROMA_MODES][component]
}

impl Books<TensorInfo> {
    /// Finds the codebooks in an archive's header and checks all that can be told without reading them.
    pub(crate) fn parse(metadata: &Metadata, tensors: &Tensors, geometry: &Geometry) -> Result<Self> {
        let channels = geometry.channels() as u64;
        if !matches!(channels, 1 | 3) {
            let expected = "1 or 3 with the codec \"layers\"";
            return Err(Error::Geometry { field: "number of channels", found: channels, expected });
        }
        let index_bits: u32 = metadata.integer(key::INDEX_BITS)?;
        if !(1..=INDEX_BITS).contains(&index_bits) {
            let (found, expected) = (index_bits.to_string(), format!("1 to {INDEX_BITS}"));
            return Err(Error::Layers { what: "bits of an index", found, expected });
        }
        let component = |number| {
            let key = modes_key(number);
            let wrong = |found: String| Error::Metadata {
                key: key.into(),
                found,
                expected: format!(
                    "a JSON array of 1 to {MODES} arrays of names of tensors: 0 to {BLOCK_STAGES} of `{}`.., then 0 to \
                     {QUARTER_STAGES} of `{}`.., at least one in all",
                    prefix(number, Cover::Block),
                    prefix(number, Cover::Quarter),
                ),
            };
            let json = metadata.required(key)?;
            let modes: Vec<Vec<String>> = serde_json::from_str(json).map_err(|_| wrong(json.into()))?;
            if !(1..=MODES).contains(&modes.len()) || modes.iter().any(|m| m.len() > BLOCK_STAGES + QUARTER_STAGES) {
                return Err(wrong(format!("{} modes", modes.len())));
            }
            let mut names: Vec<(Cover, usize, &String)> = Vec::new();
            for mode in &modes {
                let mut counts = [0; 2];
                for name in mode {
                    let found = [Cover::Block, Cover::Quarter].into_iter().find_map(|cover| {
                        let place = name.strip_prefix(prefix(number, cover))?;
                        let place = place.parse().ok().filter(|number: &usize| number.to_string() == place)?;
                        Some((cover, place, name))
                    });
                    let (cover, ..) = found.ok_or_else(|| wrong(name.clone()))?;
                    counts[cover as usize] += 1;
                    if cover == Cover::Block && counts[1] > 0 {
                        return Err(wrong(json.into()));
                    }
                    names.extend(found);
                }
                if mode.is_empty() || counts[0] > BLOCK_STAGES || counts[1] > QUARTER_STAGES {
                    return Err(wrong(json.into()));
                }
            }
            names.sort();
            names.dedup();
            let book = |&(cover, _, name): &(Cover, usize, &String)| {
                let shape = codeword_shape(number, cover);
                let tensor = tensors.0.get(name).ok_or_else(|| Error::Layers {
                    what: "tensors",
                    found: format!("none called `{name}`"),
                    expected: format!("the codebooks that `{key}` names"),
                })?;
                let most = 1u64 << index_bits;
                let codewords = tensor.shape.first().copied().unwrap_or(0);
                if tensor.dtype != "I8" || tensor.shape.get(1..) != Some(shape) || !(1..=most).contains(&codewords) {
                    let shape = shape.iter().map(|side| format!(", {side}")).collect::<String>();
                    return Err(Error::Tensor {
                        tensor: name.clone(),
                        found: describe(&tensor.dtype, &tensor.shape),
                        expected: format!("I8 [1 to {most}{shape}]"),
                    });
                }
                Ok(Book { cover, codewords: tensor.clone() })
            };
            let books = names.iter().map(book).collect::<Result<_>>()?;
            let mode = |mode: &Vec<String>| {
                let mut found = Mode::default();
                for name in mode {
                    if let Some(book) = names.iter().position(|(.., known)| *known == name) {
                        let stages = if names[book].0 == Cover::Block { &mut found.block } else { &mut found.quarter };
                        stages.push(book);
                    }
                }
                found
            };
            Ok(Component { books, modes: modes.iter().map(mode).collect() })
        };
        let luma = component(LUMA)?;
        let chroma = if channels == 3 { Some(component(CHROMA)?) } else { None };
        Ok(Self { index_bits, luma, chroma })
    }
}

/// Codewords of a codebook in a file.
pub(crate) fn codeword_count(tensor: &TensorInfo) -> usize {
    tensor.shape.first().copied().unwrap_or(0) as usize
}

impl LayerBooks {
    /// Checks codebooks that a caller made: numbers of codewords, modes and stages.
    ///
    /// # Errors
    /// [`Error::Layers`] for the first thing that is not as the fields' documentation says.
    pub fn check(&self) -> Result<()> {
        let wrong = |what, found: String, expected: String| Err(Error::Layers { what, found, expected });
        if !(1..=INDEX_BITS).contains(&self.index_bits) {
            return wrong("bits of an index", self.index_bits.to_string(), format!("1 to {INDEX_BITS}"));
        }
        for (number, component) in self.components().into_iter().enumerate() {
            for (i, book) in component.books.iter().enumerate() {
                let (len, values, most) =
                    (codeword_len(number, book.cover), book.codewords.len(), 1usize << self.index_bits);
                if !values.is_multiple_of(len) || !(1..=most).contains(&(values / len)) {
                    let found = format!("{values} values in number {i}");
                    return wrong("codebooks", found, format!("1 to {most} codewords of {len} values"));
                }
            }
            if !(1..=MODES).contains(&component.modes.len()) {
                return wrong("modes", component.modes.len().to_string(), format!("1 to {MODES}"));
            }
            for mode in &component.modes {
                let covers = |books: &[usize], cover| {
                    books.iter().all(|&book| component.books.get(book).is_some_and(|book| book.cover == cover))
                };
                let counts = (1..=BLOCK_STAGES + QUARTER_STAGES).contains(&(mode.block.len() + mode.quarter.len()))
                    && mode.block.len() <= BLOCK_STAGES
                    && mode.quarter.len() <= QUARTER_STAGES;
                if !counts || !covers(&mode.block, Cover::Block) || !covers(&mode.quarter, Cover::Quarter) {
                    let expected = format!(
                        "at most {BLOCK_STAGES} codebooks for blocks and {QUARTER_STAGES} for quarters, at least one in all"
                    );
                    return wrong("stages of a mode", format!("{mode:?}"), expected);
                }
            }
        }
        Ok(())
    }

    /// How many codewords each codebook has.
    pub(crate) fn counts(&self) -> Books<usize> {
        let mut counts = self.map(Vec::len);
        let components = std::iter::once(&mut counts.luma).chain(&mut counts.chroma).enumerate();
        for (i, component) in components {
            component.books.iter_mut().for_each(|book| book.codewords /= codeword_len(i, book.cover));
        }
        counts
    }

    /// The name, shape and bytes of each codebook's tensor.
    pub(crate) fn named_tensors(&self) -> Vec<(String, Vec<u64>, Vec<u8>)> {
        let tensor = |component, (name, book): (String, &Book<Vec<i8>>)| {
            let codewords = book.codewords.len() / codeword_len(component, book.cover);
            let shape = std::iter::once(codewords as u64).chain(codeword_shape(component, book.cover).iter().copied());
            (name, shape.collect(), book.codewords.iter().map(|&value| value as u8).collect())
        };
        let components = self.names().into_iter().zip(self.components()).enumerate();
        components
            .flat_map(|(i, (names, component))| {
                names.into_iter().zip(&component.books).map(move |book| tensor(i, book))
            })
            .collect()
    }

    /// Bytes of all codewords.
    pub fn byte_len(&self) -> usize {
        self.tensors().map(Vec::len).sum()
    }
}
