//! Everything an archive says of itself, checked against everything else it says and against the file's length.

use std::collections::BTreeMap;
use std::ops::Range;

use super::checksum;
use super::codec::Codec;
use super::coding::Coding;
use super::container::{Container, TensorInfo, describe};
use super::{FORMAT, VERSION, key, tensor};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::geometry::Geometry;

/// The checked header of an archive. Nothing that follows from it can go out of the file's range.
#[derive(Debug)]
pub(crate) struct Header {
    pub geometry: Geometry,
    pub samples: usize,
    pub coding: Coding,
    pub classes: Option<Vec<String>>,
    pub mean_psnr_db: Option<f64>,
    pub max_error: Option<u8>,
    pub labels: Option<Range<usize>>,
    /// CRC-32C of each row.
    pub checksums: Option<Range<usize>>,
    /// PSNR of each sample.
    pub psnr: Option<Range<usize>>,
    pub captions: Option<Captions>,
    /// CRC-32C of every tensor but that of the rows, by name; `None` in an archive that carries no checksums.
    pub integrity: Option<BTreeMap<String, u32>>,
    pub container: Container,
}

/// Byte ranges of the two caption tensors.
#[derive(Debug)]
pub(crate) struct Captions {
    pub offsets: Range<usize>,
    pub bytes: Range<usize>,
}

impl Header {
    pub fn parse(file: &dyn Data) -> Result<Self> {
        let (container, json) = Container::parse(file)?;
        let metadata = Metadata(&container.metadata);
        if let Some(header) = container.tensors.get(tensor::HEADER) {
            return Err(Error::Tensor {
                tensor: tensor::HEADER.into(),
                found: describe(&header.dtype, &header.shape),
                expected: "another name: its checksum would be the header's".into(),
            });
        }
        metadata.expect(key::FORMAT, FORMAT)?;
        metadata.expect(key::VERSION, VERSION)?;
        let codec = metadata.codec()?;
        let integrity = integrity(&json, &container, codec)?;

        let geometry = Geometry::new(
            (metadata.integer(key::IMAGE_WIDTH)?, metadata.integer(key::IMAGE_HEIGHT)?),
            metadata.integer(key::CHANNELS)?,
            (metadata.integer(key::PATCH_WIDTH)?, metadata.integer(key::PATCH_HEIGHT)?),
        )?;
        let samples: usize = metadata.integer(key::SAMPLES)?;
        let tensors = Tensors(&container.tensors);
        let coding = Coding::parse(codec, &metadata, &tensors, &geometry, samples)?;

        let count = samples as u64;
        let labels = tensors.optional(tensor::LABELS, "I64", &[count])?;
        let checksums = tensors.optional(tensor::CHECKSUMS, "U32", &[count])?;
        let psnr = tensors.optional(tensor::PSNR, "F32", &[count])?;
        let captions = captions(&tensors, count)?;
        let classes = metadata
            .optional(key::CLASSES, "a JSON array of strings", |json| serde_json::from_str::<Vec<String>>(json).ok())?;
        let mean_psnr_db = metadata.optional(key::MEAN_PSNR_DB, "a finite number", |text| {
            text.parse::<f64>().ok().filter(|psnr| psnr.is_finite())
        })?;
        let max_error = match container.metadata.contains_key(key::MAX_ERROR) {
            true => Some(metadata.integer(key::MAX_ERROR)?),
            false => None,
        };
        Ok(Self {
            geometry,
            samples,
            coding,
            classes,
            mean_psnr_db,
            max_error,
            labels,
            checksums,
            psnr,
            captions,
            integrity,
            container,
        })
    }
}

fn captions(tensors: &Tensors, samples: u64) -> Result<Option<Captions>> {
    let Some(offsets) = tensors.optional(tensor::CAPTION_OFFSETS, "U64", &[samples.saturating_add(1)])? else {
        return match tensors.0.contains_key(tensor::CAPTION_BYTES) {
            true => Err(Error::MissingTensor {
                tensor: tensor::CAPTION_OFFSETS,
                why: "`captions.bytes` means nothing without it",
            }),
            false => Ok(None),
        };
    };
    let why = "`captions.offsets` points into it";
    let bytes = tensors.0.get(tensor::CAPTION_BYTES);
    let bytes = bytes.ok_or(Error::MissingTensor { tensor: tensor::CAPTION_BYTES, why })?;
    if bytes.dtype != "U8" || bytes.shape.len() != 1 {
        return Err(Error::Tensor {
            tensor: tensor::CAPTION_BYTES.into(),
            found: describe(&bytes.dtype, &bytes.shape),
            expected: "U8 [bytes]".into(),
        });
    }
    Ok(Some(Captions { offsets, bytes: bytes.range.clone() }))
}

/// All checksums or none; and the header's own, which is cheap enough to compare at every opening.
fn integrity(json: &[u8], container: &Container, codec: Codec) -> Result<Option<BTreeMap<String, u32>>> {
    let recorded = |key: &str| -> Result<Option<u32>> {
        Metadata(&container.metadata).optional(key, "eight lower-case hexadecimal digits", checksum::from_hex)
    };
    let names = || container.tensors.keys().filter(|name| *name != codec.rows());
    let Some(expected) = recorded(key::HEADER_CRC32C)? else {
        let some_tensor = names().any(|name| container.metadata.contains_key(&checksum::tensor_key(name)));
        return match some_tensor || container.tensors.contains_key(tensor::CHECKSUMS) {
            true => Err(Error::PartialIntegrity { missing: key::HEADER_CRC32C.into() }),
            false => Ok(None),
        };
    };
    let digits = checksum::header_digits(json).ok_or_else(|| Error::Metadata {
        key: key::HEADER_CRC32C.into(),
        found: checksum::to_hex(expected),
        expected: "the key written plainly, once in the whole header".into(),
    })?;
    let found = checksum::header_crc32c(json, &digits);
    if found != expected {
        return Err(Error::HeaderChecksum { found, expected });
    }
    if !container.tensors.contains_key(tensor::CHECKSUMS) {
        return Err(Error::PartialIntegrity { missing: tensor::CHECKSUMS.into() });
    }
    names()
        .map(|name| {
            let key = checksum::tensor_key(name);
            let checksum = recorded(&key)?.ok_or(Error::PartialIntegrity { missing: key })?;
            Ok((name.clone(), checksum))
        })
        .collect::<Result<_>>()
        .map(Some)
}

/// Typed access to the metadata.
pub(crate) struct Metadata<'a>(&'a BTreeMap<String, String>);

impl Metadata<'_> {
    pub fn required(&self, key: &'static str) -> Result<&str> {
        self.0.get(key).map(String::as_str).ok_or(Error::MissingMetadata { key })
    }

    fn expect(&self, key: &'static str, expected: &str) -> Result<()> {
        let found = self.required(key)?;
        match found == expected {
            true => Ok(()),
            false => Err(Error::Metadata {
                key: key.into(),
                found: found.into(),
                expected: format!("{expected:?}; this version of kuat reads no other"),
            }),
        }
    }

    fn codec(&self) -> Result<Codec> {
        let found = self.required(key::CODEC)?;
        Codec::ALL.into_iter().find(|codec| codec.name() == found).ok_or_else(|| Error::Metadata {
            key: key::CODEC.into(),
            found: found.into(),
            expected: format!(
                "{}; this version of kuat reads no other",
                Codec::ALL.map(|codec| format!("{:?}", codec.name())).join(" or ")
            ),
        })
    }

    /// A decimal number without sign, spaces or leading zeros.
    pub fn integer<T: TryFrom<u64>>(&self, key: &'static str) -> Result<T> {
        let text = self.required(key)?;
        let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        let value = plain.then(|| text.parse::<u64>().ok()).flatten();
        value.and_then(|value| T::try_from(value).ok()).ok_or_else(|| Error::Metadata {
            key: key.into(),
            found: text.into(),
            expected: "a whole number in plain decimal digits, in range".into(),
        })
    }

    fn optional<T>(&self, key: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
        let Some(text) = self.0.get(key) else { return Ok(None) };
        parse(text).map(Some).ok_or_else(|| Error::Metadata {
            key: key.into(),
            found: text.chars().take(80).collect(),
            expected: expected.into(),
        })
    }
}

/// Typed access to the tensors.
pub(crate) struct Tensors<'a>(pub &'a BTreeMap<String, TensorInfo>);

impl Tensors<'_> {
    pub fn get(&self, name: &'static str, why: &'static str) -> Result<&TensorInfo> {
        self.0.get(name).ok_or(Error::MissingTensor { tensor: name, why })
    }

    pub fn required(&self, name: &'static str, dtype: &str, shape: &[u64]) -> Result<Range<usize>> {
        let why = "every archive has it";
        self.optional(name, dtype, shape)?.ok_or(Error::MissingTensor { tensor: name, why })
    }

    pub fn optional(&self, name: &str, dtype: &str, shape: &[u64]) -> Result<Option<Range<usize>>> {
        let Some(tensor) = self.0.get(name) else { return Ok(None) };
        match tensor.dtype == dtype && tensor.shape == shape {
            true => Ok(Some(tensor.range.clone())),
            false => Err(Error::Tensor {
                tensor: name.into(),
                found: describe(&tensor.dtype, &tensor.shape),
                expected: describe(dtype, shape),
            }),
        }
    }
}
