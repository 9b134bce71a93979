//! Trains the codebooks of layers that come with the encoder on photographs: `builtin OUTPUT.qvq FOLDER..`. Writes an
//! archive of them without samples.

use kuat::encode::{
    EncodeOptions, Filter, Fit, Folder, Image, LayerTraining, ReadOptions, Resize, Searcher, Source, Spool,
    train_layers_on,
};
use kuat::{ArchiveSpec, ArchiveWriter, CodingSpec, Geometry};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Side of the crops that are trained on.
const SIDE: u32 = 224;
/// 2,048 codewords: the codebooks take less than 2 MB.
const INDEX_BITS: u32 = 11;
/// From much detail to little: a half to two bits per pixel.
const LAMBDA: f64 = 110.0;
const OCTAVES: f64 = 1.7;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(output), folders) = (arguments.next(), arguments.collect::<Vec<_>>()) else {
        return Err("usage: builtin OUTPUT.qvq FOLDER..".into());
    };
    let options = EncodeOptions { image_size: (SIDE, SIDE), patch: (8, 8), ..EncodeOptions::default() };
    let mut crops = Spool::create_in(std::env::temp_dir(), &options)?;
    let mut random = Pcg64::seed_from_u64(0);
    for folder in folders {
        let folder = Folder::open(folder)?;
        for index in 0..folder.len() {
            let picture = scaled(folder.read(index, &ReadOptions::new(3))?, &mut random)?;
            for crop in cropped(&picture, &mut random)? {
                crops.push(crop, None, None)?;
            }
        }
    }
    let training =
        LayerTraining { index_bits: INDEX_BITS, lambda: LAMBDA, octaves: OCTAVES, seed: 0, searcher: Searcher::Cpu };
    let books = train_layers_on(&crops, &options, &training, &())?;
    let geometry = Geometry::new((SIDE, SIDE), 3, (8, 8))?;
    let mut spec = ArchiveSpec::with_coding(geometry, CodingSpec::Layers(books));
    spec.encoder = format!("kuat {}, builtin", env!("CARGO_PKG_VERSION"));
    ArchiveWriter::create(output, spec)?.finish_file(None)?;
    Ok(())
}

/// A number from 0 to 1.
fn part(random: &mut Pcg64) -> f64 {
    f64::from(random.next_u32()) / f64::from(u32::MAX)
}

/// A picture at half its size to its whole: that breaks up the blocks of JPEG files, and shows details at many sizes.
fn scaled(picture: Image, random: &mut Pcg64) -> Result<Image> {
    let least = f64::from(SIDE) / f64::from(picture.width.min(picture.height));
    let scale = (0.5 + 0.5 * part(random)).max(least);
    let size = [picture.width, picture.height].map(|side| (f64::from(side) * scale).ceil() as u32);
    let resize = Resize { size: size.into(), fit: Fit::Stretch, short: None, filter: Filter::Lanczos };
    Ok(resize.apply(picture)?)
}

/// As many crops as fit side by side, from a random place on.
fn cropped(picture: &Image, random: &mut Pcg64) -> Result<Vec<Image>> {
    let [(left, columns), (top, rows)] = [picture.width, picture.height].map(|side| {
        let rest = f64::from(side % SIDE);
        ((part(random) * rest) as u32, side / SIDE)
    });
    let crop = |column: u32, row: u32| {
        let (x, y) = ((left + column * SIDE) as usize, (top + row * SIDE) as usize);
        let line = |line: usize| {
            let first = ((y + line) * picture.width as usize + x) * 3;
            &picture.pixels[first..first + SIDE as usize * 3]
        };
        let pixels: Vec<u8> = (0..SIDE as usize).flat_map(line).copied().collect();
        Image::new(SIDE, SIDE, 3, pixels, 3)
    };
    Ok((0..rows)
        .flat_map(|row| (0..columns).map(move |column| (column, row)))
        .map(|(c, r)| crop(c, r))
        .collect::<std::result::Result<_, _>>()?)
}
