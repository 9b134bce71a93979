//! The container: a safetensors file. Eight bytes with the header's length, a JSON header, tensors without holes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{MAX_ENTRIES, MAX_HEADER_LEN, MAX_SIDES};
use crate::data::Data;
use crate::error::{Error, Result};

/// Bytes before the header: its length as a little-endian u64.
pub(crate) const LENGTH_PREFIX: usize = 8;
const METADATA: &str = "__metadata__";

/// A tensor as the header describes it.
#[derive(Debug, Clone)]
pub(crate) struct TensorInfo {
    pub dtype: String,
    pub shape: Vec<u64>,
    /// Byte range in the file.
    pub range: Range<usize>,
}

/// A safetensors header whose tensors are known to tile the file exactly.
#[derive(Debug)]
pub(crate) struct Container {
    pub metadata: BTreeMap<String, String>,
    pub tensors: BTreeMap<String, TensorInfo>,
}

impl Container {
    /// Reads and checks the header of a whole file; also returns its JSON.
    pub fn parse(file: &dyn Data) -> Result<(Self, Vec<u8>)> {
        let found = file.len() as u64;
        let prefix = file.bytes(0..file.len().min(LENGTH_PREFIX))?;
        let Some(prefix) = prefix.first_chunk::<LENGTH_PREFIX>() else {
            return Err(Error::Truncated { what: "the header's length", found, expected: LENGTH_PREFIX as u64 });
        };
        let length = u64::from_le_bytes(*prefix);
        if length > MAX_HEADER_LEN {
            return Err(Error::HeaderLength { found: length, limit: MAX_HEADER_LEN });
        }
        let length = length as usize;
        let json = LENGTH_PREFIX..LENGTH_PREFIX + length;
        if json.end > file.len() {
            return Err(Error::Truncated { what: "the header", found, expected: json.end as u64 });
        }
        // A copy, as text that was found to be UTF-8 must stay so while it is read: another process may change a map.
        let text = file.bytes(json.clone())?.into_owned();
        let raw: RawHeader = serde_json::from_slice(&text).map_err(Error::HeaderJson)?;
        let tensors = tile(raw.tensors, json.end, file.len())?;
        Ok((Self { metadata: raw.metadata, tensors }, text))
    }
}

/// Checks that the tensors follow one another from `data_start` to the file's end, and makes their ranges absolute.
fn tile(raw: BTreeMap<String, RawTensor>, data_start: usize, file_len: usize) -> Result<BTreeMap<String, TensorInfo>> {
    let mut in_order: Vec<(&String, &RawTensor)> = raw.iter().collect();
    in_order.sort_by_key(|(_, tensor)| tensor.data_offsets);
    let mut position = 0u64;
    for (name, tensor) in in_order {
        let [begin, end] = tensor.data_offsets;
        let invalid = |expected: String| Error::TensorRange { tensor: name.clone(), begin, end, expected };
        if begin != position {
            return Err(invalid(format!("it to begin at {position}, where the tensor before it ends")));
        }
        if end < begin {
            return Err(invalid("an end behind its beginning".into()));
        }
        // Types that safetensors may gain are none of our business: a tensor of one is passed over.
        if dtype_size(&tensor.dtype).is_some() {
            let bytes = byte_len(&tensor.dtype, &tensor.shape);
            if bytes != Some(end - begin) {
                let shape = describe(&tensor.dtype, &tensor.shape);
                return Err(invalid(match bytes {
                    Some(bytes) => format!("{bytes} bytes for {shape}"),
                    None => format!("a size that fits in 64 bits instead of {shape}"),
                }));
            }
        }
        position = end;
    }
    let expected = position.saturating_add(data_start as u64);
    let found = file_len as u64;
    match expected.cmp(&found) {
        std::cmp::Ordering::Greater => return Err(Error::Truncated { what: "its tensors", found, expected }),
        std::cmp::Ordering::Less => return Err(Error::TrailingBytes { found, expected }),
        std::cmp::Ordering::Equal => {}
    }
    let absolute = |RawTensor { dtype, shape, data_offsets: [begin, end] }| TensorInfo {
        dtype,
        shape,
        // Both lie within the file's length, as just proved.
        range: data_start + begin as usize..data_start + end as usize,
    };
    Ok(raw.into_iter().map(|(name, tensor)| (name, absolute(tensor))).collect())
}

/// Bytes of an element, for the types whose elements are whole bytes.
pub(crate) fn dtype_size(dtype: &str) -> Option<u64> {
    match dtype {
        "BOOL" | "U8" | "I8" => Some(1),
        "U16" | "I16" | "F16" | "BF16" => Some(2),
        "U32" | "I32" | "F32" => Some(4),
        "U64" | "I64" | "F64" => Some(8),
        _ => None,
    }
}

/// Bytes of a tensor of such a type, if they fit in 64 bits.
pub(crate) fn byte_len(dtype: &str, shape: &[u64]) -> Option<u64> {
    shape.iter().try_fold(dtype_size(dtype)?, |product, &side| product.checked_mul(side))
}

/// A type and shape as messages write them: `U8 [3, 4]`.
pub(crate) fn describe(dtype: &str, shape: &[u64]) -> String {
    format!("{dtype} {shape:?}")
}

struct RawHeader {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, RawTensor>,
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    #[serde(deserialize_with = "shape")]
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// A shape of no more sides than any tensor has.
fn shape<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    struct ShapeVisitor;
    impl<'de> Visitor<'de> for ShapeVisitor {
        type Value = Vec<u64>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            write!(f, "a shape of up to {MAX_SIDES} sides")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sides: A) -> Result<Vec<u64>, A::Error> {
            let mut shape = Vec::new();
            while let Some(side) = sides.next_element()? {
                if shape.len() == MAX_SIDES {
                    return Err(A::Error::invalid_length(MAX_SIDES + 1, &self));
                }
                shape.push(side);
            }
            Ok(shape)
        }
    }
    deserializer.deserialize_seq(ShapeVisitor)
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut metadata = None;
                let mut tensors = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if tensors.len() == MAX_ENTRIES {
                        return Err(A::Error::custom(format!("there are more than {MAX_ENTRIES} tensors")));
                    }
                    if name == METADATA {
                        if metadata.replace(map.next_value::<Unique>()?.0).is_some() {
                            return Err(A::Error::custom(format!("key `{METADATA}` stands twice")));
                        }
                    } else {
                        let Entry::Vacant(entry) = tensors.entry(name) else {
                            return Err(A::Error::custom("a tensor's name stands twice"));
                        };
                        entry.insert(map.next_value()?);
                    }
                }
                Ok(RawHeader { metadata: metadata.unwrap_or_default(), tensors })
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// A JSON object of strings in which no key stands twice: readers differ on which one counts.
struct Unique(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UniqueVisitor;
        impl<'de> Visitor<'de> for UniqueVisitor {
            type Value = Unique;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if entries.len() == MAX_ENTRIES {
                        return Err(A::Error::custom(format!("there are more than {MAX_ENTRIES} metadata keys")));
                    }
                    let Entry::Vacant(entry) = entries.entry(key) else {
                        return Err(A::Error::custom("a metadata key stands twice"));
                    };
                    entry.insert(map.next_value()?);
                }
                Ok(Unique(entries))
            }
        }
        deserializer.deserialize_map(UniqueVisitor)
    }
}
