//! `cargo bench --bench search -- FOLDER`: ways to find the nearest codeword exactly, beside each other on one thread, on
//! the patches of the images in a folder; a line of JSON per measurement. Every way is first held against brute force.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used)]

mod measure;

use kiddo::{ImmutableKdTree, SquaredEuclidean};
use kuat::encode::{EncodeOptions, Folder, NearestCodeword, Source, prepare, train};
use matrixmultiply::sgemm;
use measure::{Work, in_turns};
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
/// Finds the squared distance of the codeword nearest to each patch.
type Search<'a> = Box<dyn Fn(&[u8], &mut [u32]) + 'a>;

/// Patches that a codebook is trained on, for each codeword.
const PER_CODEWORD: usize = 16;
/// Patches that one image is asked for in a row.
const ROW: usize = 56;
/// Patches and codewords of a product of matrices: it stays in the second-level cache.
const PATCHES: usize = 64;
const CODEWORDS: usize = 1024;

fn main() -> Result<()> {
    let folder = std::env::args().skip(1).find(|argument| argument != "--bench").ok_or("usage: search FOLDER")?;
    let source = Folder::open(folder)?;
    for codewords in [4096, 65_536] {
        measure::<12>(&source, 2, codewords)?;
        measure::<48>(&source, 4, codewords)?;
    }
    Ok(())
}

/// Measures all ways in patches of `L` values.
fn measure<const L: usize>(source: &Folder, patch: usize, codewords: usize) -> Result<()> {
    eprintln!("training {codewords} codewords of {L} values");
    let patches = patches(source, patch)?;
    // Rows spread evenly over the images.
    let rows: Vec<&[u8]> = patches.chunks_exact(ROW * L).collect();
    let pick = |count: usize| (0..count).flat_map(|i| rows[i * rows.len() / count]).copied().collect::<Vec<u8>>();
    let codebook = train(&pick((codewords * PER_CODEWORD / ROW).min(rows.len())), L, codewords, &())?;
    let codewords = codebook.as_chunks::<L>().0;

    let kuat = NearestCodeword::new(&codebook, L)?;
    let kiddo = kd_tree(codewords)?;
    let products = Products::new(codewords);
    let sums = Sums::new(codewords);
    // With how many rows of patches each is measured: about as long for all.
    let ways: [(&str, usize, Search); 5] = [
        ("kuat", 1024, Box::new(|patches, distances| in_kuat(&kuat, L, patches, distances))),
        ("brute force", 16, Box::new(|patches, distances| brute_force(codewords, patches, distances))),
        ("kiddo", 16, Box::new(|patches, distances| in_kd_tree(&kiddo, patches, distances))),
        ("matrix product", 64, Box::new(|patches, distances| products.search(patches, distances))),
        ("ordered sums", 32, Box::new(|patches, distances| sums.search(patches, distances))),
    ];
    let found = |search: &Search, patches: &[u8]| {
        let mut distances = vec![0; patches.len() / L];
        search(patches, &mut distances);
        distances
    };
    let asked = pick(16);
    let expected = found(&ways[1].2, &asked);
    for (name, _, search) in &ways {
        if found(search, &asked) != expected {
            return Err(format!("{name} differs from brute force").into());
        }
    }
    let mut works: Vec<Work> = Vec::new();
    for (_, count, search) in &ways {
        let asked = pick(*count);
        works.push(Box::new(move || drop(found(search, &asked))));
    }
    let seconds = in_turns(&mut works);
    for ((name, count, _), seconds) in ways.iter().zip(seconds) {
        let (codewords, ns) = (codewords.len(), seconds / (count * ROW) as f64 * 1e9);
        println!(
            "{}",
            json!({ "table": "search", "values": L, "codewords": codewords, "way": name, "ns_per_patch": ns })
        );
    }
    Ok(())
}

/// The patches of all images, row by row of each.
fn patches(source: &Folder, patch: usize) -> Result<Vec<u8>> {
    let options = EncodeOptions::default();
    let mut patches = Vec::new();
    for index in 0..source.len() {
        let image = prepare(source, index, &options)?;
        for rows in image.pixels.chunks_exact(image.width as usize * 3 * patch) {
            for x in 0..image.width as usize / patch {
                let rows = rows.chunks_exact(image.width as usize * 3);
                patches.extend(rows.flat_map(|row| &row[x * patch * 3..][..patch * 3]));
            }
        }
    }
    Ok(patches)
}

/// The search that encoding uses, each patch's neighbour as a hint.
fn in_kuat(search: &NearestCodeword, len: usize, patches: &[u8], distances: &mut [u32]) {
    let mut hint = None;
    for (patch, distance) in patches.chunks_exact(len).zip(distances) {
        let (index, nearest) = search.nearest(patch, hint);
        (hint, *distance) = (Some(index), nearest);
    }
}

/// All codewords, in the vectors that the processor has.
fn brute_force<const L: usize>(codewords: &[[u8; L]], patches: &[u8], distances: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512bw")]
    fn wide<const L: usize>(codewords: &[[u8; L]], patches: &[u8], distances: &mut [u32]) {
        compare(codewords, patches, distances);
    }
    #[inline(always)]
    fn compare<const L: usize>(codewords: &[[u8; L]], patches: &[u8], distances: &mut [u32]) {
        for (patch, distance) in patches.as_chunks::<L>().0.iter().zip(distances) {
            *distance = codewords.iter().map(|codeword| squared_distance(patch, codeword)).min().unwrap_or(u32::MAX);
        }
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512bw") {
        // SAFETY: this processor has what the function asks for.
        return unsafe { wide(codewords, patches, distances) };
    }
    compare(codewords, patches, distances);
}

#[inline(always)]
fn squared_distance<const L: usize>(a: &[u8; L], b: &[u8; L]) -> u32 {
    a.iter().zip(b).map(|(&a, &b)| u32::from(a.abs_diff(b)).pow(2)).sum()
}

fn floats<const L: usize>(patch: &[u8; L]) -> [f32; L] {
    patch.map(|value| f32::from(value) - 128.0)
}

fn kd_tree<const L: usize>(codewords: &[[u8; L]]) -> Result<ImmutableKdTree<f32, L>> {
    let points: Vec<[f32; L]> = codewords.iter().map(floats).collect();
    Ok(ImmutableKdTree::new_from_slice(&points).map_err(|error| format!("{error:?}"))?)
}

fn in_kd_tree<const L: usize>(tree: &ImmutableKdTree<f32, L>, patches: &[u8], distances: &mut [u32]) {
    for (patch, distance) in patches.as_chunks::<L>().0.iter().zip(distances) {
        *distance = tree.query(&floats(patch)).nearest_one::<SquaredEuclidean<f32>>().execute().distance as u32;
    }
}

/// |p - c|^2 = |p|^2 + |c|^2 - 2 pc, the products of many patches and codewords as those of two matrices: exact in
/// `f32`, since all sums are below 2^24.
struct Products<const L: usize> {
    codewords: Vec<[f32; L]>,
    squares: Vec<f32>,
}

impl<const L: usize> Products<L> {
    fn new(codewords: &[[u8; L]]) -> Self {
        let codewords: Vec<[f32; L]> = codewords.iter().map(floats).collect();
        let squares = codewords.iter().map(|codeword| codeword.iter().map(|v| v * v).sum()).collect();
        Self { codewords, squares }
    }

    fn search(&self, patches: &[u8], distances: &mut [u32]) {
        let mut products = vec![0.0f32; PATCHES * CODEWORDS];
        let patches = patches.as_chunks::<L>().0.chunks(PATCHES);
        for (patches, distances) in patches.zip(distances.chunks_mut(PATCHES)) {
            let patches: Vec<[f32; L]> = patches.iter().map(floats).collect();
            let mut least = [f32::INFINITY; PATCHES];
            for (codewords, squares) in self.codewords.chunks(CODEWORDS).zip(self.squares.chunks(CODEWORDS)) {
                let (rows, columns, stride) = (patches.len(), codewords.len(), CODEWORDS as isize);
                let (a, b, c) = (patches.as_flattened(), codewords.as_flattened(), &mut products);
                let len = L as isize;
                // SAFETY: the matrices are `rows` x L, L x `columns` and `rows` x `stride`, of which `columns` count.
                unsafe {
                    sgemm(
                        rows,
                        L,
                        columns,
                        -2.0,
                        a.as_ptr(),
                        len,
                        1,
                        b.as_ptr(),
                        1,
                        len,
                        0.0,
                        c.as_mut_ptr(),
                        stride,
                        1,
                    );
                }
                for (products, least) in products.chunks(CODEWORDS).zip(&mut least) {
                    let distances = products.iter().zip(squares).map(|(product, square)| product + square);
                    *least = distances.fold(*least, f32::min);
                }
            }
            for ((patch, least), distance) in patches.iter().zip(least).zip(distances) {
                *distance = (patch.iter().map(|v| v * v).sum::<f32>() + least) as u32;
            }
        }
    }
}

/// Codewords in the order of their sums. The squared difference of two sums is at most L times the squared distance, so
/// a search goes outwards from the patch's own sum until that alone is too much (Ra and Kim, "A fast
/// mean-distance-ordered partial codebook search algorithm for image vector quantization", 1993).
struct Sums<const L: usize> {
    codewords: Vec<(i64, [u8; L])>,
}

impl<const L: usize> Sums<L> {
    fn new(codewords: &[[u8; L]]) -> Self {
        let mut codewords: Vec<_> = codewords.iter().map(|codeword| (Self::sum(codeword), *codeword)).collect();
        codewords.sort_unstable();
        Self { codewords }
    }

    fn sum(patch: &[u8; L]) -> i64 {
        patch.iter().map(|&value| i64::from(value)).sum()
    }

    fn search(&self, patches: &[u8], distances: &mut [u32]) {
        for (patch, distance) in patches.as_chunks::<L>().0.iter().zip(distances) {
            let sum = Self::sum(patch);
            let (darker, brighter) = self.codewords.split_at(self.codewords.partition_point(|&(other, _)| other < sum));
            let (mut darker, mut brighter) = (darker.iter().rev(), brighter.iter());
            let mut least = u32::MAX;
            let mut look = |candidate: Option<&(i64, [u8; L])>| {
                let near = candidate.filter(|(other, _)| (other - sum).pow(2) < L as i64 * i64::from(least));
                if let Some((_, codeword)) = near {
                    least = least.min(squared_distance(patch, codeword));
                }
                near.is_some()
            };
            let (mut down, mut up) = (true, true);
            while down || up {
                down = down && look(darker.next());
                up = up && look(brighter.next());
            }
            *distance = least;
        }
    }
}
