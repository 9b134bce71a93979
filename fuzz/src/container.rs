//! Archives put together by hand, so that they can be wrong where kuat's writer would refuse.

use std::ops::Range;

use crc32c::crc32c;
use serde_json::{Map, Value, json};

const HEADER_CRC: &str = "header_crc32c";

/// A tensor to be.
pub struct Tensor {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Tensor {
    pub fn new(name: impl Into<String>, dtype: &'static str, shape: &[usize], bytes: Vec<u8>) -> Self {
        Self { name: name.into(), dtype, shape: shape.to_vec(), bytes }
    }
}

/// The file of these tensors, in this order, without checksums.
pub fn file(metadata: Map<String, Value>, tensors: &[Tensor]) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), metadata.into());
    let mut data: Vec<u8> = Vec::new();
    for Tensor { name, dtype, shape, bytes } in tensors {
        let range = [data.len(), data.len() + bytes.len()];
        header.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": range }));
        data.extend(bytes);
    }
    join(Value::from(header).to_string().as_bytes(), &data)
}

/// The header's text and what is behind it, if the file is that long.
pub fn split(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = file.split_first_chunk()?;
    rest.split_at_checked(u64::from_le_bytes(*length).try_into().ok()?)
}

/// A file of a header's text and what is behind it.
pub fn join(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// Where a tensor lies in the data, if it lies there.
pub fn range(tensor: &Value, data: &[u8]) -> Option<Range<usize>> {
    let offset = |i: usize| usize::try_from(tensor["data_offsets"].get(i)?.as_u64()?).ok();
    let range = offset(0)?..offset(1)?;
    data.get(range.clone()).map(|_| range)
}

/// Records the checksum of every tensor but the rows' whose bytes are there.
pub fn seal_tensors(header: &mut Value, data: &[u8]) {
    let Some(tensors) = header.as_object() else { return };
    let tensors = tensors.iter().filter(|(name, _)| !matches!(name.as_str(), "__metadata__" | "indices" | "records"));
    let sums: Vec<(String, String)> = tensors
        .filter_map(|(name, tensor)| Some((name, crc32c(&data[range(tensor, data)?]))))
        .map(|(name, crc)| (format!("{name}_crc32c"), format!("{crc:08x}")))
        .collect();
    if let Some(metadata) = header.get_mut("__metadata__").and_then(Value::as_object_mut) {
        sums.into_iter().for_each(|(key, sum)| drop(metadata.insert(key, sum.into())));
    }
}

/// The header's text, with its own checksum if it has metadata to carry it.
pub fn sealed_text(header: &mut Value) -> Vec<u8> {
    let Some(metadata) = header.get_mut("__metadata__").and_then(Value::as_object_mut) else {
        return header.to_string().into_bytes();
    };
    metadata.insert(HEADER_CRC.into(), "00000000".into());
    let text = header.to_string();
    let sum = format!("\"{HEADER_CRC}\":\"{:08x}\"", crc32c(text.as_bytes()));
    text.replacen(&format!("\"{HEADER_CRC}\":\"00000000\""), &sum, 1).into_bytes()
}
