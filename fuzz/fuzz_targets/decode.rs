//! Archives with a valid header and arbitrary tensors, decoded on every path.
#![no_main]

use kuat::{Archive, Check};
use kuat_fuzz::input::Input;
use kuat_fuzz::{archives, decoders, on_one_thread};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: on_one_thread(), |bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let (file, mut rows) = archives::arbitrary(&mut input);
    let archive = Archive::with_check(file, Check::Never).expect("a valid header");
    let (start, behind) = (input.number(0..=64), input.pick(&[0, 64]));
    if input.byte() == 0xff {
        // A row of no length that any row has.
        rows.push(vec![0; input.number(0..=99)]);
    }
    let batch: Vec<&[u8]> = (0..input.number(0..=3)).map(|_| rows[input.number(0..=rows.len() - 1)].as_slice()).collect();
    for _ in 0..2 {
        let spec = decoders::output(&mut input, archive.geometry());
        decoders::compare(&archive, &batch, &spec, start, behind);
    }
});
