//! The `kuat` command.

fn main() {}
