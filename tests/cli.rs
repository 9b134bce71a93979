//! The command, as a user or a program runs it.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "cli")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};
use serde_json::Value;

/// A folder with twelve pictures of two classes, removed at the end.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for i in 0..12u32 {
            let class = folder.path().join("photos").join(if i < 7 { "cats" } else { "dogs" });
            std::fs::create_dir_all(&class).expect("created");
            let wave = |x: u32, k: u32| (((x * (i + k)) as f32 / 40.0).sin() * 100.0 + 128.0) as u8;
            let picture = RgbImage::from_fn(80 + i, 70, |x, y| Rgb([wave(x, 1), wave(y, 2), wave(x + y, 3)]));
            picture.save(class.join(format!("{i:02}.png"))).expect("saved");
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kuat"))
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .expect("the command starts")
    }

    /// Runs the command, which must succeed and say nothing but JSON.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    }

    /// Runs the command, which must fail with one line on standard error and nothing on standard output.
    #[track_caller]
    fn fails(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let message = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(status), "{message}");
        assert!(output.stdout.is_empty());
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
        message
    }

    fn encoded(&self) -> &'static str {
        self.json(&["encode", "photos", "-o", "a.qvq", "--size", "64x48", "--codebook", "200"]);
        "a.qvq"
    }
}

fn pixels(path: &Path) -> RgbImage {
    image::open(path).expect("a picture").into_rgb8()
}

#[test]
fn encode_info_verify_tell_the_same_story() {
    let scene = Scene::new();
    let summary = scene.json(&["encode", "photos", "-o", "a.qvq", "--size", "64x48", "--codebook", "200"]);
    assert_eq!(summary["samples"], 12);
    assert_eq!(summary["classes"], serde_json::json!(["cats", "dogs"]));
    let info = scene.json(&["info", "a.qvq"]);
    for (key, value) in
        [("samples", 12), ("image_width", 64), ("image_height", 48), ("grid_width", 16), ("codewords", 200)]
    {
        assert_eq!(info[key], value, "{key}");
    }
    assert_eq!(info["file_len"], std::fs::metadata(scene.path("a.qvq")).expect("there").len());
    let (found, recorded) = (&summary["mean_psnr_db"], &info["mean_psnr_db"]);
    assert!((found.as_f64().expect("a number") - recorded.as_f64().expect("a number")).abs() < 1e-3);
    let report = scene.json(&["verify", "a.qvq"]);
    assert_eq!((&report["ok"], &report["unchecked"]), (&true.into(), &serde_json::json!([])));
}

#[test]
fn the_archive_does_not_depend_on_threads_but_on_the_seed() {
    let scene = Scene::new();
    let encode = |out: &str, more: &[&str]| {
        let arguments = ["encode", "photos", "-o", out, "--size", "64x48", "--codebook", "300"];
        scene.json(&[&arguments, more].concat());
        std::fs::read(scene.path(out)).expect("there")
    };
    let one = encode("1.qvq", &["--threads", "1"]);
    assert!(one == encode("2.qvq", &["--threads", "3"]));
    assert!(one != encode("3.qvq", &["--seed", "1"]));
}

#[test]
fn decoding_to_pictures_and_to_arrays_gives_the_same_pixels() {
    let scene = Scene::new();
    let archive = scene.encoded();
    let answer = scene.json(&["decode", archive, "--samples", "11,0-2", "--out", "pictures", "--backend", "cpu"]);
    assert_eq!((&answer["device"], &answer["samples"]), (&"cpu".into(), &4.into()));
    scene.json(&["decode", archive, "--samples", "11,0-2", "--out", "all.npy", "--backend", "cpu"]);
    let array = std::fs::read(scene.path("all.npy")).expect("there");
    let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 48, 64, 3), }";
    assert!(array.starts_with(b"\x93NUMPY\x01\x00") && array[10..].starts_with(header.as_bytes()));
    let data = &array[array.len() - 4 * 48 * 64 * 3..];
    assert_eq!((array.len() - data.len()) % 64, 0);
    for (sample, image) in [11, 0, 1, 2].into_iter().zip(data.chunks(48 * 64 * 3)) {
        assert_eq!(pixels(&scene.path(&format!("pictures/{sample:06}.png"))).as_raw(), image);
    }
    // Near the source: the wrong picture, or a shifted one, would be far below.
    let source = pixels(&scene.path("photos/cats/00.png"));
    let decoded = pixels(&scene.path("pictures/000000.png"));
    let middle = |picture: &RgbImage| picture.get_pixel(picture.width() / 2, picture.height() / 2).0;
    let (a, b) = (middle(&source), middle(&decoded));
    assert!(a.iter().zip(b).all(|(&a, b)| a.abs_diff(b) < 40), "{a:?} {b:?}");
}

#[test]
fn floats_and_planes_go_to_arrays_only() {
    let scene = Scene::new();
    let archive = scene.encoded();
    let floats = ["--dtype", "f32", "--layout", "nchw", "--normalize", "imagenet", "--backend", "cpu"];
    scene.json(&[&["decode", archive, "--out", "f.npy"][..], &floats].concat());
    let array = std::fs::read(scene.path("f.npy")).expect("there");
    assert!(String::from_utf8_lossy(&array[..128]).contains("'descr': '<f4'"));
    assert!(String::from_utf8_lossy(&array[..128]).contains("(12, 3, 48, 64)"));
    scene.fails(2, &[&["decode", archive, "--out", "folder"][..], &floats].concat());
    scene.fails(2, &["decode", archive, "--out", "f.npy", "--normalize", "imagenet", "--backend", "cpu"]);
}

#[test]
fn a_sheet_shows_originals_decoded_and_difference() {
    let scene = Scene::new();
    let archive = scene.encoded();
    scene.json(&["sheet", archive, "-o", "sheet.png", "--samples", "0,11", "--against", "photos"]);
    let sheet = pixels(&scene.path("sheet.png"));
    // Two columns of 64x48 pixels magnified twice, three rows; 4 pixels between them.
    assert_eq!(sheet.dimensions(), (2 * (128 + 4) + 4, 3 * (96 + 4) + 8));
    let tile = |stripe: u32, x: u32, y: u32| sheet.get_pixel(4 + x, 4 + stripe * 100 + y).0;
    for (x, y) in [(0, 0), (64, 48), (127, 95)] {
        let (original, decoded, difference) = (tile(0, x, y), tile(1, x, y), tile(2, x, y));
        for c in 0..3 {
            let expected = (128 + 4 * (i32::from(original[c]) - i32::from(decoded[c]))).clamp(0, 255);
            assert_eq!(i32::from(difference[c]), expected);
        }
    }
    scene.json(&["sheet", archive, "-o", "plain.png"]);
    scene.fails(2, &["sheet", archive, "-o", "no.png", "--against", "photos/cats"]);
}

#[test]
fn the_ledger_is_shown_and_the_worst_samples_are_drawn() {
    let scene = Scene::new();
    let archive = scene.encoded();
    let info = scene.json(&["info", archive]);
    let recorded: Vec<f32> =
        kuat::Archive::open(scene.path(archive)).expect("opens").psnr().expect("intact").expect("there");
    let least = (0..12).min_by(|&a, &b| recorded[a].total_cmp(&recorded[b])).expect("twelve");
    let ledger = &info["ledger"];
    assert_eq!(ledger["worst"][0]["sample"], least);
    assert_eq!(ledger["worst"].as_array().expect("a list").len(), 5);
    let mean = recorded.iter().copied().map(f64::from).sum::<f64>() / 12.0;
    assert!((ledger["mean_db"].as_f64().expect("a number") - mean).abs() < 1e-6);
    assert_eq!(ledger["first_percentile_db"], ledger["worst"][0]["psnr_db"], "of twelve the least");
    let bars = ledger["histogram"].as_array().expect("a list");
    assert_eq!(bars.iter().map(|bar| bar["samples"].as_u64().expect("a number")).sum::<u64>(), 12);
    let text = String::from_utf8(scene.run(&["info", archive]).stdout).expect("UTF-8");
    assert_eq!(text.lines().filter(|line| line.contains(" to ")).count(), bars.len(), "{text}");
    assert!(text.contains(&format!("worst samples     {least} (")), "{text}");

    let sheet = scene.json(&["sheet", archive, "-o", "worst.png", "--worst", "3", "--against", "photos"]);
    let worst: Vec<_> = (0..3).map(|i| ledger["worst"][i]["sample"].clone()).collect();
    assert_eq!(sheet["samples"], Value::from(worst));
    assert_eq!(
        scene.json(&["sheet", archive, "-o", "all.png", "--worst", "99"])["samples"].as_array().map(Vec::len),
        Some(12)
    );
    scene.fails(2, &["sheet", archive, "-o", "no.png", "--worst", "3", "--samples", "0"]);
    scene.fails(2, &["sheet", archive, "-o", "no.png", "--worst", "0"]);
    let frozen = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/frozen.qvq");
    assert!(scene.json(&["info", frozen])["ledger"].is_null());
    assert!(scene.fails(2, &["sheet", frozen, "-o", "no.png", "--worst", "1"]).contains("--samples"));
}

#[test]
fn an_archive_is_verified_against_what_it_was_made_of() {
    let scene = Scene::new();
    let archive = scene.encoded();
    let report = scene.json(&["verify", archive, "--against", "photos"]);
    assert_eq!((&report["ok"], &report["against"]["samples"]), (&true.into(), &12.into()), "{report}");
    let mean = |value: &Value| value.as_f64().expect("a number");
    let recorded = mean(&scene.json(&["info", archive])["mean_psnr_db"]);
    assert!((mean(&report["against"]["mean_psnr_db"]) - recorded).abs() < 1e-3);
    let text = String::from_utf8(scene.run(&["verify", archive, "--against", "photos"]).stdout).expect("UTF-8");
    assert!(text.contains("against photos") && text.contains("of 12 samples exact"), "{text}");

    let differs = |against: &str| -> Value {
        let output = scene.run(&["verify", archive, "--against", against, "--json"]);
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(report["ok"], false);
        report["against"].clone()
    };
    assert!(differs("photos/cats")["problems"][0].as_str().expect("text").contains("7 images"));
    // Another picture in one place, and one in another class.
    std::fs::copy(scene.path("photos/dogs/11.png"), scene.path("photos/cats/02.png")).expect("copied");
    std::fs::rename(scene.path("photos/cats/06.png"), scene.path("photos/dogs/06.png")).expect("moved");
    let report = differs("photos");
    let bad: Vec<_> = report["bad_samples"].as_array().expect("a list").iter().map(|bad| &bad["sample"]).collect();
    assert_eq!(bad, [2, 6], "{report}");
    assert!(report["bad_samples"][1]["problem"].as_str().expect("text").contains("label is 0, the source's 1"));
    scene.fails(2, &["verify", archive, "--against", "nowhere"]);
}

#[test]
fn images_that_were_left_out_are_passed_over_in_comparisons() {
    let scene = Scene::new();
    let archive = scene.encoded();
    std::fs::write(scene.path("photos/cats/03.jpg"), b"<html>").expect("written");
    assert!(scene.fails(2, &["sheet", archive, "-o", "s.png", "--against", "photos"]).contains("13 images"));
    assert!(scene.fails(2, &["compare", archive, "photos"]).contains("13 images"));
    let skipped = serde_json::json!([{ "index": 3, "name": "cats/03.jpg", "reason": "no image" }]);
    std::fs::write(scene.path("a.qvq.skipped.json"), skipped.to_string()).expect("written");
    assert_eq!(scene.json(&["verify", archive, "--against", "photos"])["against"]["samples"], 12);
    scene.json(&["sheet", archive, "-o", "s.png", "--against", "photos"]);
    scene.json(&["compare", archive, "photos"]);
}

#[test]
fn an_archive_is_compared_with_jpeg_and_bc1() {
    let scene = Scene::new();
    let archive = scene.encoded();
    let answer = scene.json(&["compare", archive, "photos"]);
    let file_len = std::fs::metadata(scene.path(archive)).expect("there").len() as f64;
    assert_eq!(answer["archive"]["bytes_per_image"], file_len / 12.0);
    assert_eq!(answer["row_bytes"], 16.0 * 12.0);
    assert_eq!(answer["samples"], Value::from_iter(0..12));
    let info = scene.json(&["info", archive]);
    let number = |value: &Value| value.as_f64().expect("a number");
    assert!((number(&answer["archive"]["psnr_db"]) - number(&info["mean_psnr_db"])).abs() < 1e-3);
    let rivals = answer["rivals"].as_array().expect("a list");
    let names: Vec<_> = rivals.iter().map(|rival| (rival["budget"].as_str(), rival["codec"].as_str())).collect();
    let [file, row] = [Some("file"), Some("row")];
    let [jpeg, bc1] = [Some("JPEG 4:2:0"), Some("BC1")];
    assert_eq!(names, [(file, jpeg), (file, bc1), (row, jpeg), (row, bc1)]);
    for rival in rivals {
        assert!((0.0..=1.0).contains(&number(&rival["ssim"])) && number(&rival["psnr_db"]) > 10.0, "{rival}");
    }
    // 3,072 pixels are 1,536 bytes of BC1; in the 192 bytes of a row it keeps an eighth of them.
    assert!(rivals[3]["setting"].as_str().expect("text").contains("scaled back"), "{}", rivals[3]);
    assert!(number(&rivals[3]["bytes_per_image"]) <= 192.0);
    assert_eq!(scene.json(&["compare", archive, "photos", "--samples", "3,5"])["samples"], serde_json::json!([3, 5]));
    let text = String::from_utf8(scene.run(&["compare", archive, "photos"]).stdout).expect("UTF-8");
    assert!(text.contains("JPEG 4:2:0") && text.contains("SSIM"), "{text}");

    scene.json(&["encode", "photos", "-o", "grey.qvq", "--size", "64x48", "--codebook", "200", "--channels", "1"]);
    let grey = scene.json(&["compare", "grey.qvq", "photos"]);
    assert_eq!((&grey["rivals"][0]["codec"], &grey["rivals"][1]["codec"]), (&"JPEG".into(), &"BC4".into()));
    scene.json(&["encode", "photos", "-o", "rgba.qvq", "--size", "64x48", "--codebook", "200", "--channels", "4"]);
    assert!(scene.fails(2, &["compare", "rgba.qvq", "photos"]).contains("alpha"));
    scene.fails(2, &["compare", archive, "photos", "--samples", "12"]);
}

#[test]
fn bench_rows_have_what_the_contract_says() {
    let scene = Scene::new();
    let archive = scene.encoded();
    let answer = scene.json(&["bench", archive, "--backend", "cpu", "--batch", "1,20", "--runs", "2"]);
    let rows = answer["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!((&row["backend"], &row["adapter"]), (&"cpu".into(), &Value::Null));
        for key in ["images_per_s", "bytes_per_s", "limit_bytes_per_s", "ratio"] {
            assert!(row[key].as_f64().expect("a number") > 0.0, "{key}");
        }
        for key in ["stage", "dtype", "layout", "limit"] {
            assert!(!row[key].as_str().expect("text").is_empty(), "{key}");
        }
    }
}

#[test]
fn a_damaged_archive_fails_verification_with_status_1() {
    let scene = Scene::new();
    let archive = scene.encoded();
    let file = std::fs::read(scene.path(archive)).expect("there");
    let mut damaged = file.clone();
    *damaged.last_mut().expect("not empty") ^= 1;
    std::fs::write(scene.path("damaged.qvq"), &damaged).expect("written");
    std::fs::write(scene.path("cut.qvq"), &file[..file.len() / 2]).expect("written");
    for name in ["damaged.qvq", "cut.qvq"] {
        let output = scene.run(&["verify", name, "--json"]);
        assert_eq!(output.status.code(), Some(1));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(report["ok"] == false && !report["problems"].as_array().expect("a list").is_empty());
    }
    assert_eq!(scene.run(&["info", "damaged.qvq"]).status.code(), Some(0), "the header is whole");
    assert!(scene.fails(2, &["info", "cut.qvq"]).contains("truncated"));
}

#[test]
fn what_an_archive_says_does_nothing_to_a_terminal() {
    let scene = Scene::new();
    let names = [
        "cat\u{1b}]0;owned\u{7}",
        "dog\nchecksums         yes",
        "../../etc/passwd",
        "\u{9b}2J\u{202e}gpj.exe",
        "\r\u{0}",
    ];
    let geometry = kuat::Geometry::new((4, 4), 3, (4, 4)).expect("valid");
    let mut spec = kuat::ArchiveSpec::new(geometry, vec![7; 48]);
    spec.classes = Some(names.map(String::from).to_vec());
    let mut writer = kuat::ArchiveWriter::create(scene.path("odd.qvq"), spec).expect("created");
    writer.push(&[0], kuat::SampleInfo::default()).expect("pushed");
    writer.finish_file(None).expect("written");
    let text = String::from_utf8(scene.run(&["info", "odd.qvq"]).stdout).expect("UTF-8");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()) && !text.contains('\u{202e}'), "{text:?}");
    assert_eq!(text.lines().filter(|line| line.starts_with("checksums")).count(), 1, "{text}");
    let json = scene.run(&["info", "odd.qvq", "--json"]).stdout;
    assert!(String::from_utf8_lossy(&json).chars().all(|c| c == '\n' || !c.is_control()));
    assert_eq!(scene.json(&["info", "odd.qvq"])["classes"], serde_json::json!(names), "nothing is lost");
    // A name in a message: that of a tensor whose place is wrong.
    let header = "{\"\\u001b[31m\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[5,6]}}";
    std::fs::write(scene.path("red.qvq"), [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0]].concat())
        .expect("written");
    let message = scene.fails(2, &["info", "red.qvq"]);
    assert!(message.contains("\\u{1b}[31m") && !message.contains('\u{1b}'), "{message:?}");
    // No file is named by what an archive says.
    scene.json(&["decode", "odd.qvq", "--out", "pictures"]);
    let written: Vec<_> = std::fs::read_dir(scene.path("pictures")).expect("listed").flatten().collect();
    assert!(written.len() == 1 && written[0].file_name() == "000000.png");
}

#[test]
fn damaged_samples_are_named_left_out_or_masked() {
    let scene = Scene::new();
    let archive = scene.encoded();
    scene.json(&["decode", archive, "--out", "whole.npy"]);
    let mut file = std::fs::read(scene.path(archive)).expect("there");
    let row = kuat::Archive::open(scene.path(archive)).expect("opens").row(3).expect("intact").into_owned();
    let place = file.windows(row.len()).position(|bytes| bytes == row).expect("there");
    file[place + 1] ^= 1;
    std::fs::write(scene.path("bad.qvq"), file).expect("written");
    let message = scene.fails(2, &["decode", "bad.qvq", "--out", "bad.npy"]);
    assert!(message.contains("sample 3 is damaged") && !scene.path("bad.npy").exists(), "{message}");
    scene.json(&["decode", "bad.qvq", "--samples", "0-2,4-11", "--out", "good.npy"]);

    let pixels = |name: &str| {
        let npy = std::fs::read(scene.path(name)).expect("there");
        npy[10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]))..].to_vec()
    };
    let whole = pixels("whole.npy");
    let image = whole.len() / 12;
    let skipped = scene.json(&["decode", "bad.qvq", "--out", "skip.npy", "--damaged", "skip", "--access", "read"]);
    assert_eq!((&skipped["samples"], &skipped["damaged"][0]["sample"]), (&11.into(), &3.into()));
    assert!(pixels("skip.npy") == [&whole[..3 * image], &whole[4 * image..]].concat());
    let masked = scene.json(&["decode", "bad.qvq", "--out", "mask.npy", "--damaged", "mask"]);
    assert_eq!((&masked["samples"], &masked["damaged"][0]["sample"]), (&12.into(), &3.into()));
    assert!(pixels("mask.npy") == [&whole[..3 * image], &vec![0; image], &whole[4 * image..]].concat());
    scene.json(&["decode", "bad.qvq", "--out", "pictures", "--damaged", "skip"]);
    assert_eq!(std::fs::read_dir(scene.path("pictures")).expect("listed").count(), 11);
    let text = scene.run(&["decode", "bad.qvq", "--out", "skip.npy", "--damaged", "skip"]).stdout;
    assert!(String::from_utf8_lossy(&text).contains("sample 3: its row has CRC-32C"));
}

#[test]
fn a_bound_is_kept_recorded_and_told() {
    let scene = Scene::new();
    for max_error in [0, 8] {
        let bound = max_error.to_string();
        let arguments = ["encode", "photos", "-o", "a.qvq", "--size", "64x48", "--max-error", &bound];
        let summary = scene.json(&arguments);
        assert!(summary["codewords"].as_u64() <= summary["uniform_cells"].as_u64());
        assert_eq!((&summary["max_error"], summary["mean_psnr_db"] == 100.0), (&max_error.into(), max_error == 0));
        let info = scene.json(&["info", "a.qvq"]);
        assert_eq!((&info["max_error"], &info["metadata"]["max_error"]), (&max_error.into(), &bound.as_str().into()));
        let text = scene.run(&["info", "a.qvq"]).stdout;
        assert!(String::from_utf8_lossy(&text).contains(&format!("greatest error    {max_error} of 255")));
        let text = scene.run(&arguments).stdout;
        assert!(String::from_utf8_lossy(&text).contains("uniform quantisation"));
    }
    for wrong in [&["--max-error", "256"][..], &["--max-error", "-1"], &["--max-error", "8", "--codebook", "9"]] {
        assert_eq!(scene.run(&[&["encode", "photos", "-o", "b.qvq"], wrong].concat()).status.code(), Some(2));
    }
}

#[test]
fn bad_usage_and_input_fail_with_status_2_and_one_line() {
    let scene = Scene::new();
    let archive = scene.encoded();
    assert!(scene.fails(2, &["info", "missing.qvq"]).contains("missing.qvq"));
    assert!(scene.fails(2, &["verify", "missing.qvq"]).contains("missing.qvq"));
    assert!(scene.fails(2, &["info", "photos"]).contains("regular file"));
    assert!(scene.fails(2, &["encode", "photos/nothing", "-o", "b.qvq"]).contains("photos/nothing"));
    assert!(scene.fails(2, &["encode", "photos", "-o", "no/such/folder/b.qvq"]).contains("no/such/folder"));
    scene.fails(2, &["encode", "photos"]);
    scene.fails(2, &["encode", "photos", "-o", "b.qvq", "--patch", "17"]);
    scene.fails(2, &["encode", "photos", "-o", "b.qvq", "--patch", "4x"]);
    scene.fails(2, &["encode", "photos", "-o", "b.qvq", "--codebook", "0"]);
    scene.fails(2, &["encode", "photos", "-o", "b.qvq", "--size", "0"]);
    scene.fails(2, &["decode", archive, "--samples", "12", "--out", "x"]);
    scene.fails(2, &["decode", archive, "--samples", "3-1", "--out", "x"]);
    scene.fails(2, &["decode", archive, "--out", "x", "--dtype", "f64"]);
    assert!(scene.fails(2, &["decode", archive, "--out", "x", "--adapter", "no such GPU"]).contains("no such GPU"));
    scene.fails(2, &["decode", archive, "--out", "x", "--adapter", "a", "--backend", "cpu"]);
    scene.fails(2, &["frobnicate"]);
    assert!(!scene.path("b.qvq").exists());
}

#[test]
fn a_file_that_is_no_picture_fails_or_is_skipped_and_named() {
    let scene = Scene::new();
    std::fs::write(scene.path("photos/cats/03.jpg"), b"<html>").expect("written");
    let encode = ["encode", "photos", "-o", "a.qvq", "--size", "32", "--codebook", "50"];
    assert!(scene.fails(2, &encode).contains("03.jpg"));
    assert!(!scene.path("a.qvq").exists());
    let summary = scene.json(&[&encode[..], &["--on-error", "skip"]].concat());
    assert_eq!(summary["samples"], 12);
    let skipped = summary["skipped"].as_array().expect("a list");
    assert!(skipped.len() == 1 && skipped[0]["name"].as_str().expect("text").ends_with("03.jpg"), "{skipped:?}");
    assert_eq!(scene.json(&["verify", "a.qvq"])["ok"], true);
}

#[test]
fn a_manifest_is_a_source_and_what_an_archive_is_compared_with() {
    let scene = Scene::new();
    let rows = ["cats/00.png,cat,one", "dogs/07.png,dog,\"two, three\"", "cats/01.png,cat,"];
    std::fs::write(scene.path("photos/list.csv"), format!("path,label,caption\n{}\n", rows.join("\n")))
        .expect("written");
    let options = ["--size", "32x24", "--resize-short", "40", "--filter", "lanczos", "--codebook", "5000"];
    let encode = [&["encode", "photos/list.csv", "-o", "a.qvq"][..], &options].concat();
    let summary = scene.json(&encode);
    assert_eq!((&summary["samples"], &summary["mean_psnr_db"]), (&3.into(), &100.0.into()));
    assert_eq!(summary["classes"], serde_json::json!(["cat", "dog"]));
    let archive = kuat::Archive::open(scene.path("a.qvq")).expect("an archive");
    assert_eq!(archive.caption(1).expect("a caption").as_deref(), Some("two, three"));
    assert_eq!(archive.labels().expect("intact").expect("labels"), [0, 1, 0]);
    // Nothing was lost, so the difference is even grey if the originals are prepared as they were encoded.
    scene.json(&["sheet", "a.qvq", "-o", "sheet.png", "--against", "photos/list.csv"]);
    let sheet = pixels(&scene.path("sheet.png"));
    let (zoom, gap) = (160 / 32, 4);
    let below = gap + 2 * (24 * zoom + gap);
    assert!((0..32 * zoom).all(|x| sheet.get_pixel(gap + x, below + 12 * zoom).0 == [128; 3]));
    assert!(scene.fails(2, &[&encode[..], &["--max-pixels", "5599"]].concat()).contains("80x70 pixels"));
    std::fs::write(scene.path("photos/list.csv"), "name\na.png\n").expect("written");
    assert!(scene.fails(2, &encode).contains("list.csv, line 1"));
    assert!(scene.fails(2, &["encode", "photos/cats/00.png", "-o", "b.qvq"]).contains("expected a folder"));
}

#[test]
fn the_other_channel_counts_encode_and_decode() {
    let scene = Scene::new();
    for channels in ["1", "4"] {
        scene.json(&["encode", "photos", "-o", "a.qvq", "--size", "33x21", "--channels", channels, "--patch", "3x2"]);
        scene.json(&["decode", "a.qvq", "--out", channels, "--backend", "cpu"]);
        let picture = image::open(scene.path(channels).join("000005.png")).expect("a picture");
        assert_eq!(picture.color().channel_count().to_string(), channels);
    }
}

#[test]
fn quality_size_or_another_archive_decide_on_the_codebook() {
    let scene = Scene::new();
    let encode = |more: &[&str]| scene.json(&[&["encode", "photos", "-o", "a.qvq", "--size", "32"], more].concat());
    let good = encode(&["--psnr", "33"]);
    assert!((33.0..100.0).contains(&good["mean_psnr_db"].as_f64().expect("dB")), "{good}");
    assert_eq!(good["patch"], good["chosen"]["patch"]);
    assert!(good["trials"].as_array().expect("a list").contains(&good["chosen"]), "{good}");
    let small = encode(&["--target-bytes", "9k"]);
    let len = std::fs::metadata(scene.path("a.qvq")).expect("a file").len();
    assert!(len <= 9000 && small["file_len"] == len, "{small}");
    assert_eq!(encode(&["--target-bytes", "20000", "--patch", "4x2"])["patch"], serde_json::json!([4, 2]));

    // The other archive's sizes hold where none are given.
    scene.json(&["encode", "photos/dogs", "-o", "b.qvq", "--codebook-from", "a.qvq"]);
    let [a, b] = ["a.qvq", "b.qvq"].map(|path| kuat::Archive::open(scene.path(path)).expect("opens"));
    assert!(
        a.vq().expect("vq").codebook().expect("intact") == b.vq().expect("vq").codebook().expect("intact")
            && a.geometry() == b.geometry()
    );
    let wrong = scene.fails(2, &["encode", "photos", "-o", "c.qvq", "--codebook-from", "a.qvq", "--patch", "5"]);
    assert!(wrong.contains("codebook"), "{wrong}");
    for more in [
        &["--psnr", "101"][..],
        &["--target-bytes", "100"],
        &["--target-bytes", "1T"],
        &["--codebook", "3", "--psnr", "30"],
    ] {
        scene.fails(2, &[&["encode", "photos", "-o", "c.qvq", "--size", "32"], more].concat());
    }
    assert!(!scene.path("c.qvq").exists() && !scene.path("c.qvq.partial").exists());
}

#[cfg(unix)]
#[test]
fn every_command_takes_an_archive_of_layers() {
    let scene = Scene::new();
    let encode = |out: &str, more: &[&str]| {
        let arguments = ["encode", "photos", "-o", out, "--codebook-from"];
        scene.json(&[&arguments, more].concat())
    };
    let sizes = ["builtin", "--size", "64x48", "--quality"];
    let first = encode("a.qvq", &[&sizes[..], &["50"]].concat());
    let better = encode("b.qvq", &[&sizes[..], &["90"]].concat());
    for figure in ["bytes_per_image", "mean_psnr_db"] {
        assert!(first[figure].as_f64() < better[figure].as_f64(), "{first} {better}");
    }
    // Sizes and quality are those of the archive that the codebooks are from.
    assert_eq!(encode("c.qvq", &["a.qvq"])["bytes_per_image"], first["bytes_per_image"]);
    let read = |name: &str| std::fs::read(scene.path(name)).expect("there");
    assert!(read("a.qvq").len() == read("c.qvq").len());

    let info = scene.json(&["info", "a.qvq"]);
    assert_eq!((&info["codec"], &info["image_width"]), (&"layers".into(), &64.into()));
    assert_eq!(info["metadata"]["rate"], "quality 50");
    for arguments in [&["verify", "a.qvq"][..], &["verify", "a.qvq", "--against", "photos"]] {
        assert_eq!(scene.json(arguments)["ok"], true);
    }
    scene.json(&["decode", "a.qvq", "--samples", "3", "--out", "pictures", "--backend", "cpu"]);
    assert_eq!(pixels(&scene.path("pictures/000003.png")).dimensions(), (64, 48));
    scene.json(&["sheet", "a.qvq", "-o", "sheet.png", "--against", "photos", "--worst", "2"]);
    assert!(pixels(&scene.path("sheet.png")).width() > 2 * 64);
    let compared = scene.json(&["compare", "a.qvq", "photos"]);
    assert!(compared["rivals"].as_array().is_some_and(|rivals| !rivals.is_empty()), "{compared}");
    let bench = scene.run(&["bench", "a.qvq", "--backend", "cpu", "--batch", "4", "--json"]);
    assert_eq!(bench.status.code(), Some(0), "{}", String::from_utf8_lossy(&bench.stderr));

    let layers = ["encode", "photos", "-o", "d.qvq", "--codec", "layers"];
    let vq = ["encode", "photos", "-o", "d.qvq", "--codec", "vq"];
    for (of, more, says) in [
        (layers, ["--patch", "4"], "--codec vq"),
        (layers, ["--max-error", "0"], "--codec vq"),
        (vq, ["--quality", "75"], "--codec layers"),
        (vq, ["--codebook-from", "builtin"], "--codec layers"),
        (vq, ["--codebook-from", "a.qvq"], "codec layers"),
    ] {
        let message = scene.fails(2, &[&of[..], &more].concat());
        assert!(message.contains(says), "{message}");
    }
    assert!(!scene.path("d.qvq").exists());
}

#[test]
fn a_killed_encoding_leaves_the_archive_that_was_there() {
    let scene = Scene::new();
    let arguments = ["encode", "photos", "-o", "a.qvq", "--size", "512", "--patch", "2", "--codebook", "20000"];
    std::fs::write(scene.path("a.qvq"), "an older archive").expect("written");
    let mut child = Command::new(env!("CARGO_BIN_EXE_kuat"))
        .args(arguments)
        .current_dir(scene.folder.path())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    let begun = Instant::now();
    while !scene.path("a.qvq.partial/journal").exists() && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert_eq!(std::fs::read(scene.path("a.qvq")).expect("read"), b"an older archive");
    // What there is of it is too little to be resumed, and in nobody's way.
    let quick = ["encode", "photos", "-o", "a.qvq", "--size", "32", "--codebook", "64"];
    scene.json(&quick);
    assert!(!scene.path("a.qvq.partial").exists());
    scene.json(&["verify", "a.qvq", "--against", "photos"]);
}

#[test]
fn help_and_version_go_to_standard_output() {
    let scene = Scene::new();
    for arguments in [&["--help"][..], &["--version"], &["encode", "--help"], &["help", "bench"]] {
        let output = scene.run(arguments);
        assert!(output.status.success() && !output.stdout.is_empty() && output.stderr.is_empty());
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_leaves_no_file_behind() {
    let scene = Scene::new();
    // So much to train that there is time to interrupt.
    let mut child = Command::new(env!("CARGO_BIN_EXE_kuat"))
        .args(["encode", "photos", "-o", "a.qvq", "--size", "2000", "--patch", "2", "--codebook", "60000"])
        .current_dir(scene.folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    std::thread::sleep(Duration::from_millis(700));
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(kill.success());
    let start = Instant::now();
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(20));
    let left: Vec<_> = std::fs::read_dir(scene.folder.path()).expect("listed").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_gpu_searches_for_the_same_archive() {
    let scene = Scene::new();
    let archive = scene.encoded();
    let expected = std::fs::read(scene.path(archive)).expect("read");
    let encode = ["encode", "photos", "-o", "b.qvq", "--size", "64x48", "--codebook", "200"];
    for adapter in scene.json(&["devices"])["adapters"].as_array().expect("a list") {
        let name =
            format!("{} ({})", adapter["name"].as_str().expect("a name"), adapter["api"].as_str().expect("an API"));
        let summary = scene.json(&[&encode[..], &["--backend", "gpu", "--adapter", &name]].concat());
        assert_eq!(summary["device"], name);
        assert!(std::fs::read(scene.path("b.qvq")).expect("read") == expected, "{name}");
    }
    let adapter = scene.json(&["devices"])["adapters"][0]["name"].as_str().expect("a name").to_string();
    let layers = ["encode", "photos", "-o", "c.qvq", "--size", "32", "--codec", "layers"];
    scene.json(&layers);
    let expected = std::fs::read(scene.path("c.qvq")).expect("read");
    let gpu = ["--backend", "gpu", "--adapter", &adapter];
    assert!(scene.json(&[&layers[..], &gpu].concat())["device"].as_str().is_some_and(|name| name.contains(&adapter)));
    assert!(std::fs::read(scene.path("c.qvq")).expect("read") == expected, "{adapter}");
    let message = scene.fails(2, &[&layers[..], &["--codebook-from", "builtin"], &gpu].concat());
    assert!(message.contains("training"), "{message}");
    let message = scene.fails(2, &[&encode[..], &["--adapter", "anything"]].concat());
    assert!(message.contains("anything") && message.contains("the backend is cpu"), "{message}");
    let message = scene.fails(2, &[&encode[..], &["--backend", "gpu", "--adapter", "no such"]].concat());
    assert!(message.contains("no such"), "{message}");
}
