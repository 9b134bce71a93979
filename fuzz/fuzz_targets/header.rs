//! Archives whose headers are changed as JSON: keys, types, shapes, offsets, numbers and names.
#![no_main]

use kuat_fuzz::{examine, mutate, on_one_thread};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_mutator!(|bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
    match mutate::header(&bytes[..size], max_size, seed) {
        Some(file) => {
            bytes[..file.len()].copy_from_slice(&file);
            file.len()
        }
        None => fuzzer_mutate(bytes, size, max_size),
    }
});

fuzz_target!(init: on_one_thread(), |bytes: &[u8]| examine::examine(bytes));
