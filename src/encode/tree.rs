//! A tree of bounding boxes over signatures.

use rayon::prelude::*;

use super::projection::{DIMS, Signature};
use super::spread::{Member, Spread};

/// Codewords of a leaf, and branches of a node.
pub(super) const WIDTH: usize = 16;

/// Signatures in leaves of 16, their bounding boxes in nodes of 16.
#[derive(Debug)]
pub(super) struct Tree {
    /// The root first; none if there is one leaf.
    pub nodes: Vec<Node>,
    pub leaves: Vec<Leaf>,
    /// Nodes from the root to a leaf.
    pub height: u32,
}

/// A coordinate of 16 points after the other, in pairs: those that one multiply-add instruction takes.
pub(super) type Pairs = [[[i16; 2]; WIDTH]; DIMS / 2];

/// The bounding boxes of up to 16 branches.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub(super) struct Node {
    pub low: Pairs,
    pub high: Pairs,
    /// The nodes, or the leaves, that the boxes enclose.
    pub branches: [u32; WIDTH],
    /// Bit i for the i-th branch.
    pub used: u32,
}

/// Up to 16 codewords; free places repeat the last.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub(super) struct Leaf {
    pub signatures: Pairs,
    pub indices: [u32; WIDTH],
}

impl Tree {
    /// A tree over at least one codeword.
    pub fn new(mut members: Vec<Member>) -> Self {
        let leaf_count = members.len().div_ceil(WIDTH);
        let nowhere = [[[0; 2]; WIDTH]; DIMS / 2];
        let mut leaves = vec![Leaf { signatures: nowhere, indices: [0; WIDTH] }; leaf_count];
        let empty = Node { low: nowhere, high: nowhere, branches: [0; WIDTH], used: 0 };
        let mut nodes = vec![empty; nodes_over(leaf_count)];
        build(&mut members, Part { nodes: &mut nodes, leaves: &mut leaves, first_node: 0, first_leaf: 0 });
        Self { nodes, leaves, height: height_over(leaf_count) }
    }
}

/// A part of the tree: a node with all below it, or a leaf.
struct Part<'a> {
    nodes: &'a mut [Node],
    leaves: &'a mut [Leaf],
    first_node: u32,
    first_leaf: u32,
}

/// Nodes on the way to each of so many leaves.
fn height_over(leaves: usize) -> u32 {
    leaves.next_power_of_two().ilog2().div_ceil(WIDTH.ilog2())
}

/// Branches of the node over so many leaves: as few as make all of its subtrees one lower.
fn branches_over(leaves: usize) -> usize {
    leaves.div_ceil(WIDTH.pow(height_over(leaves) - 1))
}

/// Nodes of the tree over so many leaves.
fn nodes_over(leaves: usize) -> usize {
    match height_over(leaves) {
        0 => 0,
        1 => 1,
        _ => {
            let branches = branches_over(leaves);
            let (each, more) = (leaves / branches, leaves % branches);
            1 + more * nodes_over(each + 1) + (branches - more) * nodes_over(each)
        }
    }
}

/// Builds the tree over `members`, cutting where they spread the most.
fn build(members: &mut [Member], part: Part) {
    let Some((node, mut nodes)) = part.nodes.split_first_mut() else {
        part.leaves[0] = Leaf::of(members);
        return;
    };
    let branches = branches_over(part.leaves.len());
    let (each, more) = (part.leaves.len() / branches, part.leaves.len() % branches);
    let sizes: Vec<usize> = (0..branches).map(|branch| each + usize::from(branch < more)).collect();
    divide(members, &sizes);
    let (mut members, mut leaves) = (members, part.leaves);
    let (mut first_node, mut first_leaf) = (part.first_node + 1, part.first_leaf);
    let mut parts = Vec::with_capacity(branches);
    for (branch, &size) in sizes.iter().enumerate() {
        let below = nodes_over(size);
        let (own_members, own_nodes, own_leaves);
        (own_members, members) = members.split_at_mut(members.len().min(size * WIDTH));
        (own_nodes, nodes) = nodes.split_at_mut(below);
        (own_leaves, leaves) = leaves.split_at_mut(size);
        node.enclose(branch, own_members, if below == 0 { first_leaf } else { first_node });
        parts.push((own_members, Part { nodes: own_nodes, leaves: own_leaves, first_node, first_leaf }));
        first_node += below as u32;
        first_leaf += size as u32;
    }
    if each > 64 {
        parts.into_par_iter().for_each(|(members, part)| build(members, part));
    } else {
        parts.into_iter().for_each(|(members, part)| build(members, part));
    }
}

/// Orders members so that the first of `sizes` leaves come first, and so on.
fn divide(members: &mut [Member], sizes: &[usize]) {
    let (left_sizes, right_sizes) = sizes.split_at(sizes.len() / 2);
    if left_sizes.is_empty() {
        return;
    }
    let left = left_sizes.iter().sum::<usize>() * WIDTH;
    let (widest, _) = Spread::of(members).widest();
    members.select_nth_unstable_by_key(left, |&(signature, index)| (signature[widest], index));
    let (left_members, right_members) = members.split_at_mut(left);
    let mut divide_left = || divide(left_members, left_sizes);
    let mut divide_right = || divide(right_members, right_sizes);
    if left > 64 * WIDTH {
        rayon::join(divide_left, divide_right);
    } else {
        divide_left();
        divide_right();
    }
}

/// The least and the greatest of each coordinate.
fn bounds(members: &[Member]) -> (Signature, Signature) {
    let nothing = ([i16::MAX; DIMS], [i16::MIN; DIMS]);
    members.iter().fold(nothing, |(mut low, mut high), (signature, _)| {
        for ((low, high), &value) in low.iter_mut().zip(&mut high).zip(signature) {
            (*low, *high) = ((*low).min(value), (*high).max(value));
        }
        (low, high)
    })
}

/// Writes a point's coordinates to its place among 16.
fn put(pairs: &mut Pairs, place: usize, signature: &Signature) {
    for (pair, &values) in pairs.iter_mut().zip(signature.as_chunks::<2>().0) {
        pair[place] = values;
    }
}

impl Node {
    fn enclose(&mut self, branch: usize, members: &[Member], below: u32) {
        let (low, high) = bounds(members);
        put(&mut self.low, branch, &low);
        put(&mut self.high, branch, &high);
        self.branches[branch] = below;
        self.used |= 1 << branch;
    }
}

impl Leaf {
    fn of(members: &[Member]) -> Self {
        let mut leaf = Self { signatures: [[[0; 2]; WIDTH]; DIMS / 2], indices: [0; WIDTH] };
        for place in 0..WIDTH {
            let (signature, index) = &members[place.min(members.len() - 1)];
            put(&mut leaf.signatures, place, signature);
            leaf.indices[place] = *index;
        }
        leaf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codeword_lies_in_all_boxes_above_it() {
        for count in [1, 16, 17, 256, 257, 4096, 4097, 30_000] {
            let value = |i: u32, d: usize| ((i.wrapping_mul(2_654_435_761) >> d) % 30_011) as i16 - 15_000;
            let members = (0..count).map(|i| (std::array::from_fn(|d| value(i, d)), i)).collect();
            let tree = Tree::new(members);
            let mut found = vec![0; count as usize];
            let mut pending = vec![(tree.height, 0, Vec::new())];
            while let Some((height, place, boxes)) = pending.pop() {
                if height > 0 {
                    let node = &tree.nodes[place as usize];
                    for branch in (0..WIDTH).filter(|branch| node.used >> branch & 1 == 1) {
                        let boxes = [&boxes[..], &[(place, branch)]].concat();
                        pending.push((height - 1, node.branches[branch], boxes));
                    }
                    continue;
                }
                for &index in &tree.leaves[place as usize].indices {
                    found[index as usize] = 1;
                    for &(node, branch) in &boxes {
                        let node = &tree.nodes[node as usize];
                        for d in 0..DIMS {
                            let [low, high] = [&node.low, &node.high].map(|side| side[d / 2][branch][d % 2]);
                            assert!((low..=high).contains(&value(index, d)), "{index} of {count}");
                        }
                    }
                }
            }
            assert!(found.iter().all(|&times| times == 1), "{count} codewords");
        }
    }
}
