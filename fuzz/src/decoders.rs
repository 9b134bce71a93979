//! Every decoder against the oracle.

use kuat::{
    Archive, CpuDecoder, CpuPath, Data, Decoder, Dtype, Error, Geometry, Layout, NaiveDecoder, Normalization,
    OutputSpec,
};

use crate::input::Input;

/// Decodes rows on every path, to memory that begins at an odd place and ends where the batch does, or a bit later: the
/// result is the oracle's, bit for bit, or nothing is written.
pub fn compare<D: Data>(archive: &Archive<D>, rows: &[&[u8]], spec: &OutputSpec, start: usize, behind: usize) {
    let naive = NaiveDecoder::new(archive).expect("a decoder for every codec");
    let len = spec.batch_len(archive.geometry(), rows.len());
    let mut expected = vec![0x55; len];
    let oracle = naive.decode_bytes(rows, spec, &mut expected);
    for path in CpuPath::available() {
        let cpu = CpuDecoder::new(archive).expect("a decoder for every codec").with_path(path);
        let mut memory = vec![0xaa; start + len + behind];
        let (before, rest) = memory.split_at_mut(start);
        let (found, after) = rest.split_at_mut(len);
        match (&oracle, cpu.decode_bytes(rows, spec, found)) {
            (Ok(()), Ok(())) => {
                let place = found.iter().zip(&expected).position(|(a, b)| a != b);
                assert!(place.is_none(), "{path}, {spec}: byte {place:?} of {:?}", archive.geometry());
            }
            (Err(expected), Err(error)) => {
                assert_eq!(error.to_string(), expected.to_string());
                assert!(found.iter().all(|&byte| byte == 0xaa), "{path}: {error}, but something was written");
            }
            (expected, found) => panic!("{path}, {spec}: {found:?}, the oracle says {expected:?}"),
        }
        assert!(before.iter().chain(after.iter()).all(|&byte| byte == 0xaa), "{path}, {spec}: written outside");
    }
    assert!(matches!(oracle, Ok(()) | Err(Error::RowLength { .. } | Error::RecordLength { .. })), "{oracle:?}");
}

/// Any output that there is for such images.
pub fn output(input: &mut Input, geometry: &Geometry) -> OutputSpec {
    let (dtype, layout) = (input.pick(&[Dtype::U8, Dtype::F16, Dtype::F32]), input.pick(&[Layout::Nhwc, Layout::Nchw]));
    let channels = geometry.channels();
    let constants = match input.number(0..=2) {
        _ if dtype == Dtype::U8 => None,
        0 => None,
        1 => Some(([0.485, 0.456, 0.406, 0.5], [0.229, 0.224, 0.225, 0.25])),
        _ => {
            Some([(); 2].map(|()| [(); 4].map(|()| f32::from_bits(u32::from_le_bytes(input.bytes()))))).map(Into::into)
        }
    };
    let normalization = constants
        .and_then(|(mean, std): ([f32; 4], [f32; 4])| Normalization::new(&mean[..channels], &std[..channels]).ok());
    OutputSpec { dtype, layout, normalization }
}
