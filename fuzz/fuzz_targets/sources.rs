//! Arbitrary files as what images are encoded from: lists, CIFAR's batches, tar shards.
#![no_main]

use std::fs;

use kuat::encode::{self, ReadOptions};
use kuat_fuzz::input::Input;
use kuat_fuzz::on_one_thread;
use libfuzzer_sys::fuzz_target;

/// Most pixels of an image.
const PIXELS: u64 = 1 << 14;

/// The files of a folder, and what of it is opened.
const FOLDERS: [(&[&str], &str); 12] = [
    (&["list.csv"], "list.csv"),
    (&["list.tsv"], "list.tsv"),
    (&["list.jsonl"], "list.jsonl"),
    (&["shard.tar"], "shard.tar"),
    (&["shard-0.tar", "shard-1.tar"], "shard-{0..1}.tar"),
    (&["shard.tar"], ""),
    (&["data_batch_1.bin", "batches.meta.txt"], ""),
    (&["train.bin", "fine_label_names.txt"], ""),
    (&["data_batch_1", "batches.meta"], ""),
    (&["train", "meta"], ""),
    (&["batch"], "batch"),
    (&["some.bin"], "some.bin"),
];

fuzz_target!(init: on_one_thread(), |bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let (names, opened) = FOLDERS[input.number(0..=FOLDERS.len() - 1)];
    let folder = tempfile::tempdir().expect("a folder");
    for (number, name) in names.iter().enumerate() {
        let rest = if number + 1 < names.len() {
            let len = usize::from(u16::from_le_bytes(input.bytes()));
            input.up_to(len)
        } else {
            input.rest()
        };
        fs::write(folder.path().join(name), rest).expect("written");
    }
    let source = match encode::open(folder.path().join(opened)) {
        Ok(source) => source,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(!source.is_empty() && source.len() <= bytes.len());
    let classes = source.classes();
    for index in (0..source.len()).take(50) {
        assert!(!source.name(index).is_empty());
        let label = source.label(index);
        assert!(label.is_none_or(|label| source.has_labels() && label >= 0));
        if let (Some(label), Some(classes)) = (label, &classes) {
            assert!((label as usize) < classes.len());
        }
        let caption = source.caption(index);
        assert!(source.has_captions() || matches!(caption, Ok(None)));
        // Lists name files, which need not be ours.
        if !names[0].starts_with("list") {
            let options = ReadOptions { channels: [3, 1, 4][index % 3], max_pixels: PIXELS };
            if let Ok(image) = source.read(index, &options) {
                assert!(u64::from(image.width) * u64::from(image.height) <= PIXELS);
                assert_eq!(image.pixels.len(), (image.width * image.height * image.channels) as usize);
            }
        }
    }
    assert!(source.read(source.len(), &ReadOptions::new(3)).is_err());
});
