//! Makes the first inputs of every target: `cargo run --release --bin seeds` in this folder writes `corpus/<target>/*`.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, GrayImage, ImageFormat, RgbImage, RgbaImage};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use kuat::{Archive, ArchiveSpec, ArchiveWriter, CodingSpec, Geometry, IndexWidth, SampleInfo};
use kuat_fuzz::archives;
use kuat_fuzz::container::{file, sealed_text, split};
use kuat_fuzz::input::{Input, Random};
use serde_json::{Value, json};

fn main() {
    for archive in archives_written().into_iter().chain(archives_by_hand()).chain(no_archives()) {
        write("open", &archive);
        write("header", &archive);
    }
    let mut random = Random::new(1);
    for len in (0..30).map(|i| 16 + i * 8) {
        for target in ["decode", "writer"] {
            write(target, &(0..len).map(|_| random.next() as u8).collect::<Vec<_>>());
        }
    }
    sources().iter().for_each(|input| write("sources", input));
    pictures().iter().for_each(|input| write("picture", input));
}

/// Writes a seed under the checksum of its bytes.
fn write(target: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(format!("{:08x}", crc32c::crc32c(bytes))), bytes).expect("written");
}

/// What kuat writes, with everything that it can write and with as little.
fn archives_written() -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for (image, channels, patch, bits) in [
        ((8, 6), 3, (4, 4), None),
        ((5, 3), 1, (2, 2), Some(1)),
        ((16, 16), 3, (2, 2), Some(16)),
        ((9, 4), 4, (3, 5), Some(32)),
        ((16, 8), 3, (4, 2), Some(13)),
    ] {
        let geometry = Geometry::new(image, channels, patch).expect("valid");
        let codebook: Vec<u8> = (0..2 * geometry.codeword_len()).map(|i| i as u8).collect();
        let index_width = bits.map(|bits| IndexWidth::new(bits).expect("valid"));
        for all in [false, true] {
            let coding = CodingSpec::Vq { codebook: codebook.clone(), index_width };
            let spec = spec(ArchiveSpec::with_coding(geometry, coding), all);
            let mut writer = ArchiveWriter::new(Cursor::new(Vec::new()), spec).expect("valid");
            for sample in 0..3 {
                let indices: Vec<u32> = (0..geometry.patches()).map(|patch| (patch + sample) as u32 % 2).collect();
                writer.push(&indices, info(sample)).expect("valid");
            }
            files.push(writer.finish(all.then_some(33.0)).expect("memory does not fail").into_inner());
        }
    }
    for seed in 0..4 {
        let (archive, _) = by_hand(seed, true);
        let books = archive.layers().expect("layers").books().expect("unchecked");
        let geometry = *archive.geometry();
        let sides = [8, 16].into_iter().zip([Some(&books.luma), books.chroma.as_ref()].into_iter().flatten());
        let blocks = |side| geometry.image_width().div_ceil(side) * geometry.image_height().div_ceil(side);
        let modes: Vec<Vec<u8>> = sides.clone().map(|(side, _)| vec![0; blocks(side)]).collect();
        let indices: usize = sides.map(|(side, component)| blocks(side) * component.modes[0].indices()).sum();
        let modes: Vec<&[u8]> = modes.iter().map(Vec::as_slice).collect();
        let record = books.record(&geometry, &modes, &vec![0; indices]).expect("valid");
        let spec = spec(ArchiveSpec::with_coding(geometry, CodingSpec::Layers(books)), seed % 2 == 0);
        let mut writer = ArchiveWriter::new(Cursor::new(Vec::new()), spec).expect("valid");
        (0..2).for_each(|sample| writer.push_record(&record, info(sample)).expect("valid"));
        files.push(writer.finish(None).expect("memory does not fail").into_inner());
    }
    files
}

fn spec(mut spec: ArchiveSpec, all: bool) -> ArchiveSpec {
    (spec.labels, spec.captions, spec.psnr, spec.samples) = (all, all, all, 3);
    spec.classes = all.then(|| ["a", "b", "c"].map(String::from).to_vec());
    spec.max_error = all.then_some(9);
    spec
}

fn info(sample: usize) -> SampleInfo<'static> {
    SampleInfo { label: Some(sample as i64), caption: Some(["one", "", "dreißig"][sample]), psnr_db: Some(33.0) }
}

/// An archive made of random choices, small enough for a corpus.
fn by_hand(seed: u64, layers: bool) -> (Archive<Vec<u8>>, Vec<u8>) {
    let mut random = Random::new(seed);
    loop {
        let input: Vec<u8> = (0..200).map(|_| random.next() as u8).collect();
        let (file, _) = archives::arbitrary(&mut Input::new(&input));
        let archive = Archive::new(file.clone()).expect("valid");
        if file.len() < 6000 && archive.layers().is_ok() == layers {
            return (archive, file);
        }
    }
}

fn archives_by_hand() -> Vec<Vec<u8>> {
    (10..22).map(|seed| by_hand(seed, seed % 2 == 0).1).collect()
}

/// What is nearly one.
fn no_archives() -> Vec<Vec<u8>> {
    let file_of = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let whole = archives_written().swap_remove(1);
    let (text, data) = split(&whole).expect("an archive");
    let mut header: Value = serde_json::from_slice(text).expect("JSON");
    header["__metadata__"]["version"] = json!("2");
    let other_version = kuat_fuzz::container::join(&sealed_text(&mut header), data);
    vec![
        Vec::new(),
        vec![0; 8],
        vec![0xff; 9],
        file_of("{}"),
        file_of("{\"__metadata__\":{\"format\":\"qvq\"}}"),
        file_of("[[[[[[[["),
        file(serde_json::Map::new(), &[]),
        whole[..whole.len() - 1].to_vec(),
        other_version,
    ]
}

/// Lists, batches and shards, each behind the number that says which.
fn sources() -> Vec<Vec<u8>> {
    let with = |kind: u8, bytes: &[u8]| [&[kind][..], bytes].concat();
    let pair = |kind: u8, first: &[u8], second: &[u8]| {
        [&[kind][..], &(first.len() as u16).to_le_bytes(), first, second].concat()
    };
    let record = |labels: &[u8]| labels.iter().copied().chain((0..3072).map(|i| i as u8)).collect::<Vec<u8>>();
    // {'labels': [6], 'data': array(uint8)} as Python 2 pickled it.
    let pickle = |key: &str| {
        let mut bytes = b"\x80\x02}q\x01(U".to_vec();
        bytes.push(key.len() as u8);
        bytes.extend(key.as_bytes());
        bytes.extend(b"q\x02]q\x03(K\x06eU\x04dataq\x04cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\n");
        bytes.extend(b"q\x06K\x00\x85U\x01b\x87R(K\x01K\x01M\x00\x0C\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R");
        bytes.extend(b"(K\x03U\x01|NNNJ\xFF\xFF\xFF\xFFJ\xFF\xFF\xFF\xFFK\x00tb\x89T\x00\x0C\x00\x00");
        bytes.extend((0..3072).map(|i| i as u8));
        bytes.extend(b"tbu.");
        bytes
    };
    let names = b"\x80\x02}(U\x0Blabel_names](U\x03catU\x03dogU\x01cU\x01dU\x01eU\x01fU\x01geu.";
    let png = picture(DynamicImage::from(RgbImage::new(3, 2)), ImageFormat::Png);
    let shard = |members: &[(&str, &[u8])], long: bool| {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            let name = if long { format!("{}/{name}", "deep/".repeat(30)) } else { name.to_string() };
            tar.append_data(&mut header, name, *bytes).expect("memory does not fail");
        }
        tar.into_inner().expect("memory does not fail")
    };
    let members: [(&str, &[u8]); 6] = [
        ("a/0.png", &png),
        ("a/0.cls", b"7\n"),
        ("a/0.txt", b"a caption"),
        ("a/1.json", b"{\"label\": \"dog\", \"caption\": \"another\"}"),
        ("a/1.png", &png),
        ("notes", b"passed over"),
    ];
    vec![
        with(0, b"path,label,caption\na.png,dog,\"one, two\"\nb.png,cat,\nc.png,,\n"),
        with(0, b"\xEF\xBB\xBFFile_Name\na\n\nb\n"),
        with(1, b"image\tlabel\ttext\r\na.png\t3\tsome\r\nb.png\t-1\t\r\n"),
        with(2, b"{\"path\":\"a.png\",\"label\":7}\n\n{\"image\":\"b\",\"caption\":\"text\",\"more\":[1]}\n"),
        with(2, b"\xEF\xBB\xBF{\"file_name\":\"a\",\"label\":\"dog\",\"text\":null}"),
        with(3, &shard(&members, false)),
        with(3, &shard(&members[..1], true)),
        with(3, &shard(&[], false)),
        pair(4, &shard(&members[..3], false), &shard(&members[..1], false)),
        with(5, &shard(&members[3..5], false)),
        pair(6, &record(&[3]), b"a\nb\nc\nd\n"),
        pair(7, &record(&[1, 2]), b"a\nb\nc\n"),
        pair(8, &pickle("labels"), names),
        pair(9, &pickle("fine_labels"), b"\x80\x02}."),
        with(10, &pickle("labels")),
        with(11, &[record(&[3]), record(&[9])].concat()),
        with(11, &record(&[1, 99])),
    ]
}

fn picture(picture: DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("memory does not fail");
    bytes.into_inner()
}

fn pictures() -> Vec<Vec<u8>> {
    let rgb = RgbImage::from_fn(17, 9, |x, y| image::Rgb([x as u8 * 15, y as u8 * 28, (x * y) as u8]));
    let rgba = RgbaImage::from_fn(5, 6, |x, y| image::Rgba([x as u8, y as u8, 7, (x * 50) as u8]));
    let grey = GrayImage::from_fn(8, 8, |x, y| image::Luma([(x * 8 + y) as u8]));
    let deep = image::ImageBuffer::<image::Rgb<u16>, _>::from_pixel(3, 3, image::Rgb([1, 500, 65_000]));
    let mut files = Vec::new();
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
        for some in [rgb.clone().into(), rgba.clone().into(), DynamicImage::from(grey.clone())] {
            files.push(picture(some, format));
        }
    }
    files.push(picture(deep.into(), ImageFormat::Png));
    files.push(picture(rgb.clone().into(), ImageFormat::Jpeg));
    files.push(picture(grey.into(), ImageFormat::Jpeg));
    for sampling in [SamplingFactor::R_4_4_4, SamplingFactor::R_4_2_0, SamplingFactor::R_4_1_1] {
        for (progressive, restart, optimized) in [(false, 0, true), (false, 2, false), (true, 0, false)] {
            let mut file = Vec::new();
            let mut encoder = Encoder::new(&mut file, 60);
            encoder.set_sampling_factor(sampling);
            encoder.set_progressive(progressive);
            encoder.set_restart_interval(restart);
            encoder.set_optimized_huffman_tables(optimized);
            encoder.encode(rgb.as_raw(), 17, 9, ColorType::Rgb).expect("memory does not fail");
            files.push(file);
        }
    }
    let inks: Vec<u8> = (0..8 * 8 * 4).map(|i| i as u8).collect();
    let mut file = Vec::new();
    Encoder::new(&mut file, 60).encode(&inks, 8, 8, ColorType::Cmyk).expect("memory does not fail");
    files.push(file);
    files
}
