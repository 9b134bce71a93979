//! Headers changed as JSON.

use serde_json::{Value, json};

use crate::container::{join, range, seal_tensors, sealed_text, split};
use crate::input::Random;

const METADATA: &str = "__metadata__";

/// Tensors and keys of the format's.
const NAMES: [&str; 13] = [
    "codebook",
    "indices",
    "records",
    "records.offsets",
    "labels",
    "checksums",
    "psnr",
    "captions.offsets",
    "captions.bytes",
    "header",
    "luma8.0",
    "chroma8.1",
    METADATA,
];
const KEYS: [&str; 18] = [
    "format",
    "version",
    "codec",
    "image_width",
    "image_height",
    "channels",
    "patch_width",
    "patch_height",
    "index_bits",
    "samples",
    "classes",
    "mean_psnr_db",
    "max_error",
    "encoder",
    "luma_modes",
    "chroma_modes",
    "header_crc32c",
    "labels_crc32c",
];
const DTYPES: [&str; 10] = ["U8", "I8", "U16", "U32", "I64", "U64", "F32", "BOOL", "F4", ""];
const VALUES: [&str; 25] = [
    "0",
    "1",
    "3",
    "4",
    "8",
    "16",
    "17",
    "25",
    "26",
    "32",
    "255",
    "65535",
    "65536",
    "33554432",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "01",
    "nan",
    "vq",
    "layers",
    "[]",
    "[[\"luma8.0\",\"luma4.0\"],[\"luma8.0\"]]",
];
const NUMBERS: [u64; 14] =
    [0, 1, 2, 3, 4, 8, 16, 255, 1 << 16, 1 << 25, 1 << 32, i64::MAX as u64, u64::MAX - 1, u64::MAX];

/// Another archive made of one; `None` to leave it to changes of bytes.
pub fn header(file: &[u8], most: usize, seed: u32) -> Option<Vec<u8>> {
    let mut random = Random::new(seed.into());
    if random.once_in(8) {
        return None;
    }
    let (text, data) = split(file)?;
    let mut header: Value = serde_json::from_slice(text).ok().filter(Value::is_object)?;
    let mut data = data.to_vec();
    for _ in 0..=random.below(4) {
        change(&mut header, &mut data, &mut random);
    }
    if random.once_in(2) {
        lay_out(&mut header, &mut data, most);
    }
    if random.once_in(2) {
        seal_tensors(&mut header, &data);
    }
    if random.once_in(6)
        && let Some(metadata) = header.get_mut(METADATA).and_then(Value::as_object_mut)
    {
        metadata.retain(|key, _| !key.ends_with("_crc32c"));
        header.as_object_mut()?.remove("checksums");
    }
    let mut text = match random.once_in(4) {
        true => header.to_string().into_bytes(),
        false => sealed_text(&mut header),
    };
    if random.once_in(16) {
        text.resize(text.len() + random.below(20), b' ');
    }
    let mut file = join(&text, &data);
    if random.once_in(24) {
        file[random.below(8)] ^= 1 << random.below(8);
    }
    (file.len() <= most).then_some(file)
}

/// Changes one thing.
fn change(header: &mut Value, data: &mut Vec<u8>, random: &mut Random) {
    if random.once_in(3) {
        return change_metadata(header, random);
    }
    let Some(tensors) = header.as_object_mut() else { return };
    let tensor = |(name, value): &(&String, &Value)| *name != METADATA && value.is_object();
    let names: Vec<String> = tensors.iter().filter(tensor).map(|(name, _)| name.clone()).collect();
    if names.is_empty() {
        tensors.insert(random.pick(&NAMES).into(), json!({ "dtype": "U8", "shape": [0], "data_offsets": [0, 0] }));
        return;
    }
    let name = &names[random.below(names.len())];
    match random.below(10) {
        0 => drop(tensors.remove(name)),
        1 => {
            let tensor = tensors[name].clone();
            tensors.insert(random.pick(&NAMES).into(), tensor);
        }
        2 => {
            let tensor = tensors.remove(name).unwrap_or_default();
            tensors.insert(random.pick(&NAMES).into(), tensor);
        }
        3 => tensors[name]["dtype"] = random.pick(&DTYPES).into(),
        4 | 5 => {
            if let Some(Value::Array(shape)) = tensors[name].get_mut("shape") {
                change_numbers(shape, random);
            }
        }
        6 => {
            if let Some(Value::Array(offsets)) = tensors[name].get_mut("data_offsets") {
                change_numbers(offsets, random);
            }
        }
        7 => {
            // All that is as long as there are samples.
            let Some(samples) = tensors.get_mut(METADATA).and_then(|metadata| metadata.get_mut("samples")) else {
                return;
            };
            let old = samples.as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            let new = random.below(6) as u64;
            *samples = new.to_string().into();
            for tensor in tensors.values_mut() {
                match tensor.get_mut("shape").and_then(|shape| shape.get_mut(0)) {
                    Some(first) if *first == old => *first = new.into(),
                    Some(first) if *first == old.wrapping_add(1) => *first = (new + 1).into(),
                    _ => (),
                }
            }
        }
        _ => {
            // Bytes of the tensor, as such or as a number.
            let Some(range) = range(&tensors[name], data).filter(|range| !range.is_empty()) else { return };
            let at = range.start + random.below(range.len());
            match random.below(3) {
                0 => data[at] ^= 1 << random.below(8),
                1 => data[at] = random.next() as u8,
                _ => {
                    let number = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
                    let at = range.start + (at - range.start) / 8 * 8;
                    data[at..].iter_mut().zip(number).for_each(|(byte, new)| *byte = new);
                }
            }
        }
    }
}

fn change_numbers(numbers: &mut Vec<Value>, random: &mut Random) {
    let at = random.below(numbers.len().max(1));
    match random.below(6) {
        0 => numbers.push(NUMBERS[random.below(NUMBERS.len())].into()),
        1 => drop(numbers.pop()),
        2 => numbers.reverse(),
        _ if numbers.is_empty() => (),
        3 => numbers[at] = NUMBERS[random.below(NUMBERS.len())].into(),
        4 => numbers[at] = [json!(-1), json!(1.5), json!("1"), json!(null)][random.below(4)].clone(),
        _ => {
            let number = numbers[at].as_u64().unwrap_or(0);
            numbers[at] = if random.once_in(2) { number.wrapping_add(1) } else { number.wrapping_sub(1) }.into();
        }
    }
}

fn change_metadata(header: &mut Value, random: &mut Random) {
    let Some(metadata) = header.get_mut(METADATA).and_then(Value::as_object_mut) else {
        return header[METADATA] = json!({});
    };
    let keys: Vec<String> = metadata.keys().cloned().collect();
    let key = match keys.is_empty() || random.once_in(5) {
        true => random.pick(&KEYS).to_string(),
        false => keys[random.below(keys.len())].clone(),
    };
    match random.below(5) {
        0 => drop(metadata.remove(&key)),
        1 => {
            let other = keys.get(random.below(keys.len().max(1))).and_then(|key| metadata.get(key)).cloned();
            metadata.insert(key, other.unwrap_or_default());
        }
        2 => {
            // A number near the one that is there, or a text with a byte more or less.
            let old = metadata.get(&key).and_then(Value::as_str).unwrap_or("").to_string();
            let new = match old.parse::<u64>() {
                Ok(number) if random.once_in(2) => number.wrapping_add(1).to_string(),
                Ok(number) => number.wrapping_sub(1).to_string(),
                Err(_) if random.once_in(2) => old.chars().skip(1).collect(),
                Err(_) => format!("{old}{}", random.pick(&VALUES)),
            };
            metadata.insert(key, new.into());
        }
        _ => drop(metadata.insert(key, random.pick(&VALUES).into())),
    }
}

/// Lets the tensors follow one another as long as their types and shapes say, in the order of their names; the data is
/// cut or goes on with zeros.
fn lay_out(header: &mut Value, data: &mut Vec<u8>, most: usize) {
    let old = std::mem::take(data);
    for (_, tensor) in
        header.as_object_mut().into_iter().flatten().filter(|(name, tensor)| *name != METADATA && tensor.is_object())
    {
        let size = match tensor["dtype"].as_str() {
            Some("U16" | "F16") => 2,
            Some("U32" | "F32") => 4,
            Some("U64" | "I64") => 8,
            _ => 1,
        };
        let shape = tensor["shape"].as_array().map_or(&[][..], Vec::as_slice);
        let sides = shape.iter().map(|side| side.as_u64().unwrap_or(0));
        let len = sides.fold(size, u64::saturating_mul).min(most as u64) as usize;
        let bytes = range(tensor, &old).map_or(&[][..], |range| &old[range]);
        let begin = data.len();
        data.extend(bytes.iter().copied().chain(std::iter::repeat(0)).take(len));
        tensor["data_offsets"] = json!([begin, data.len()]);
    }
}
