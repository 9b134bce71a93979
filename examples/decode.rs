//! Decodes the first samples of an archive: `cargo run --release --example decode -- photos.qvq`.
#![allow(clippy::print_stdout)]

use kuat::{Archive, Backend, Decoder, Dtype, Layout, Normalization, OutputSpec};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("which archive?")?;
    let archive = Archive::open(&path)?;
    // The best GPU, or the CPU if there is none.
    let decoder = Backend::Auto.decoder(&archive, None)?;
    let normalization = (archive.geometry().channels() == 3).then(Normalization::imagenet);
    let spec = OutputSpec { dtype: Dtype::F32, layout: Layout::Nchw, normalization };
    let rows = archive.rows(0..archive.samples().min(64))?;
    let batch: Vec<f32> = decoder.decode(&rows, &spec)?;
    let shape = spec.layout.shape(archive.geometry(), rows.len());
    let mean = batch.iter().sum::<f32>() / batch.len() as f32;
    println!("{shape:?} values on {}, {mean} on average", decoder.device_name());
    Ok(())
}
