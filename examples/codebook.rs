//! Trains a codebook on patches from standard input, given one after another, and writes it to standard output:
//! `codebook VALUES_OF_A_PATCH CODEWORDS < patches > codebook`.

use std::io::{Read, Write, stdin, stdout};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|argument| argument.parse()).collect::<Result<_, _>>()?;
    let [len, codewords] = numbers[..] else { return Err("usage: codebook VALUES_OF_A_PATCH CODEWORDS".into()) };
    let mut patches = Vec::new();
    stdin().read_to_end(&mut patches)?;
    stdout().write_all(&kuat::encode::train(&patches, len, codewords, &())?)?;
    Ok(())
}
