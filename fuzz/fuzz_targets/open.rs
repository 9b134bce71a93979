//! Arbitrary bytes, opened and read as an archive.
#![no_main]

use kuat_fuzz::{examine, on_one_thread};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: on_one_thread(), |bytes: &[u8]| examine::examine(bytes));
