//! Headers of numpy's `.npy` files, version 1.0 of
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use crate::output::Dtype;

/// The header of an array in C order, elements in the machine's byte order.
pub(super) fn header(dtype: Dtype, shape: [usize; 4]) -> Vec<u8> {
    const PREFIX: usize = 10;
    let order = if cfg!(target_endian = "big") { '>' } else { '<' };
    let descr = match dtype {
        Dtype::U8 => "|u1".to_string(),
        Dtype::F16 => format!("{order}f2"),
        Dtype::F32 => format!("{order}f4"),
    };
    let [a, b, c, d] = shape;
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({a}, {b}, {c}, {d}), }}");
    // Spaces and a newline, so that the data starts at a multiple of 64.
    let len = (PREFIX + text.len() + 1).next_multiple_of(64) - PREFIX;
    text.push_str(&" ".repeat(len - text.len() - 1));
    text.push('\n');
    [b"\x93NUMPY\x01\x00", &(len as u16).to_le_bytes()[..], text.as_bytes()].concat()
}
