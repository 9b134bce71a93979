//! Training codebooks of layers.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use super::search::{BookSearch, Near};
use crate::encode::sample;
use crate::error::Result;
use crate::format::books::{Book, Component, Cover, LayerBooks, Mode};
use crate::progress::{Counter, Progress};

/// How codebooks are trained.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerTraining {
    /// Bits of an index.
    pub index_bits: u32,
    /// The squared error that a bit is worth.
    pub lambda: f64,
    /// Chooses.
    pub seed: u64,
}

/// Trains codebooks on blocks.
///
/// # Errors
/// [`Interrupted`](crate::Error::Interrupted).
pub fn train_layers(
    luma: &[i16],
    chroma: &[i16],
    options: &LayerTraining,
    progress: &dyn Progress,
) -> Result<LayerBooks> {
    let counter = Counter::new(progress, "training", 1);
    counter.add(0)?;
    let mut random = Pcg64::seed_from_u64(options.seed);
    let component = |blocks: &[i16], len: usize, stages: usize, random: &mut Pcg64| {
        let quarter_len = len / 4;
        let side = if len == 64 { 8 } else { 16 };
        let pool = |block: &[i16]| -> Vec<i16> {
            if len == 64 {
                return block.to_vec();
            }
            (0..128)
                .map(|i| {
                    let (p, y, x): (usize, usize, usize) = (i / 64, i % 64 / 8, i % 8);
                    let at = |dy: usize, dx: usize| block[p * 256 + (2 * y + dy) * 16 + 2 * x + dx];
                    (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1) + 2) >> 2
                })
                .collect()
        };
        let clamp = |v: i16| v.clamp(-128, 127) as i8;
        let most = (1usize << options.index_bits).min(512);
        let chosen = sample::choose(random, blocks.len() / len, most);
        let base: Vec<i8> = chosen.iter().flat_map(|&b| pool(&blocks[b * len..][..len])).map(clamp).collect();
        let base_len = if len == 64 { 64 } else { 128 };
        let search = BookSearch::new(&base, base_len);
        let mut rests: Vec<Vec<i16>> = Vec::new();
        for block in blocks.chunks_exact(len).step_by(3) {
            let mut near = [Near::default()];
            search.nearest(&pool(block), &mut near);
            let codeword = &base[usize::from(near[0].index) * base_len..][..base_len];
            let rest: Vec<i16> = block
                .iter()
                .enumerate()
                .map(|(i, &v)| {
                    let c = match len {
                        64 => codeword[i],
                        _ => codeword[i / 256 * 64 + i % 256 / 32 * 8 + i % 16 / 2],
                    };
                    v - i16::from(c)
                })
                .collect();
            for q in 0..4 {
                let half = side / 2;
                let quarter = rest.chunks_exact(side * side).flat_map(|plane| {
                    let from = q / 2 * half * side + q % 2 * half;
                    (0..half).flat_map(move |y| plane[from + y * side..][..half].iter().copied())
                });
                rests.push(quarter.collect());
            }
        }
        let mut books = vec![Book { cover: Cover::Block, codewords: base }];
        for _ in 0..stages {
            let mut order: Vec<usize> = (0..rests.len()).collect();
            let energy = |r: &Vec<i16>| r.iter().map(|&v| i32::from(v) * i32::from(v)).sum::<i32>();
            order.sort_by_key(|&i| std::cmp::Reverse(energy(&rests[i])));
            order.truncate(order.len() / 2 + 1);
            let chosen = (0..most.min(order.len())).map(|_| order[random.next_u64() as usize % order.len()]);
            let book: Vec<i8> = chosen.flat_map(|i| rests[i].clone()).map(|v| clamp(v * 3 / 4)).collect();
            let search = BookSearch::new(&book, quarter_len);
            for rest in &mut rests {
                let mut near = [Near::default()];
                search.nearest(rest, &mut near);
                let c = &book[usize::from(near[0].index) * quarter_len..][..quarter_len];
                rest.iter_mut().zip(c).for_each(|(r, &c)| *r -= i16::from(c));
            }
            books.push(Book { cover: Cover::Quarter, codewords: book });
        }
        let modes = (0..=stages).map(|n| Mode { block: vec![0], quarter: (1..=n).collect() }).collect();
        Component { books, modes }
    };
    let luma = component(luma, 64, 6, &mut random);
    let chroma = (!chroma.is_empty()).then(|| component(chroma, 512, 2, &mut random));
    counter.add(1)?;
    Ok(LayerBooks { index_bits: options.index_bits, luma, chroma })
}
