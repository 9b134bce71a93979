//! What the fuzzing targets share: reading their input, putting archives together, and what must hold of each.

pub mod archives;
pub mod container;
pub mod decoders;
pub mod examine;
pub mod input;
pub mod mutate;

/// Work that is spread over threads is done by the one that asks for it: nothing is started, and the same input always
/// takes the same way.
pub fn on_one_thread() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
    pool.build_global().expect("the first pool of the process");
}
