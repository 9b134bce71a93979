//! The nearest codewords of a codebook of layers.

/// A codebook that is ready to be searched.
pub(in crate::encode) struct BookSearch {
    codewords: Vec<i8>,
    len: usize,
}

/// A codeword near a target, and its squared distance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::encode) struct Near {
    pub distance: u32,
    pub index: u16,
}

impl BookSearch {
    pub fn new(codewords: &[i8], len: usize) -> Self {
        Self { codewords: codewords.to_vec(), len }
    }

    pub fn nearest(&self, targets: &[i16], near: &mut [Near]) {
        for (target, near) in targets.chunks_exact(self.len).zip(near) {
            self.nearest_several(target, std::slice::from_mut(near));
        }
    }

    pub fn nearest_several(&self, target: &[i16], near: &mut [Near]) {
        near.fill(Near { index: 0, distance: u32::MAX });
        for (index, codeword) in self.codewords.chunks_exact(self.len).enumerate() {
            let distance =
                codeword.iter().zip(target).map(|(&c, &t)| (i32::from(t) - i32::from(c)).pow(2)).sum::<i32>();
            let distance = distance as u32;
            if near.last().is_some_and(|last| distance < last.distance) {
                let place = near.partition_point(|near| near.distance <= distance);
                near[place..].rotate_right(1);
                near[place] = Near { index: index as u16, distance };
            }
        }
    }
}
