//! Archives written and read again: what comes out is what went in.
#![no_main]

use std::io::Cursor;

use kuat::{Archive, ArchiveSpec, ArchiveWriter, Check, CodingSpec, IndexWidth, SampleInfo};
use kuat_fuzz::input::Input;
use kuat_fuzz::{archives, examine, on_one_thread};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: on_one_thread(), |bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let (coding, geometry, records) = if input.flag() {
        // Codebooks and records of an archive that nobody wrote.
        let (file, records) = archives::arbitrary(&mut input);
        let archive = Archive::with_check(file, Check::Never).expect("a valid header");
        match (archive.layers().and_then(|layers| layers.books()), archive.vq()) {
            (Ok(books), _) => (CodingSpec::Layers(books), *archive.geometry(), records),
            (_, Ok(vq)) => {
                let index_width = input.flag().then(|| vq.index_width());
                (CodingSpec::Vq { codebook: vq.codebook().expect("unchecked").into_owned(), index_width }, *archive.geometry(), records)
            }
            _ => unreachable!("an archive has a codec"),
        }
    } else {
        let patch = (input.number(1..=16) as u32, input.number(1..=16) as u32);
        let geometry = archives::geometry(&mut input, patch, &[3, 1, 4]);
        let codebook = { let codewords = input.number(0..=300); input.fill(codewords * geometry.codeword_len()) };
        let index_width = input.flag().then(|| IndexWidth::new(input.number(1..=25) as u64).expect("a valid width"));
        (CodingSpec::Vq { codebook, index_width }, geometry, Vec::new())
    };
    let mut spec = ArchiveSpec::with_coding(geometry, coding);
    let flags = input.byte();
    (spec.labels, spec.captions, spec.psnr) = (flags & 1 > 0, flags & 2 > 0, flags & 4 > 0);
    spec.samples = input.pick(&[0, 1, 3, 1000]);
    spec.max_error = (flags & 8 > 0).then(|| input.byte());
    spec.classes = (flags & 16 > 0).then(|| (0..input.number(0..=4)).map(|_| text(&mut input)).collect());
    spec.encoder = text(&mut input);
    spec.metadata = (0..input.number(0..=2)).map(|_| (text(&mut input), text(&mut input))).collect();
    let Ok(mut writer) = ArchiveWriter::new(Cursor::new(Vec::new()), spec.clone()) else { return };

    // What was taken: a label, a caption, a PSNR, and indices or a record.
    let mut taken: Vec<(Option<i64>, String, f32, Vec<u32>, Vec<u8>)> = Vec::new();
    for number in 0..input.number(0..=5) {
        let label = input.flag().then(|| i64::from(input.byte()) - 2);
        let (caption, psnr_db) = (text(&mut input), input.pick(&[0.0, 33.3, 100.0, -1.0, 101.0, f32::NAN]));
        let info = SampleInfo { label, caption: Some(&caption), psnr_db: input.flag().then_some(psnr_db) };
        let fits = !spec.psnr || info.psnr_db.is_some_and(|psnr| (0.0..=100.0).contains(&psnr));
        if let CodingSpec::Vq { codebook, .. } = &spec.coding {
            let codewords = codebook.len() / geometry.codeword_len();
            let count = if input.byte() == 0xff { input.number(0..=9) } else { geometry.patches() };
            let below = if input.byte() == 0xff { codewords + 1 } else { codewords };
            let indices: Vec<u32> = input.fill(count * 2).as_chunks().0.iter().map(|&two| u32::from(u16::from_le_bytes(two)) % below as u32).collect();
            let fits = fits && count == geometry.patches() && indices.iter().all(|&index| (index as usize) < codewords);
            assert_eq!(writer.push(&indices, info).is_ok(), fits);
            if fits {
                taken.push((label, caption, psnr_db, indices, Vec::new()));
            }
        } else {
            // A true record is one whose indices are all zero and whose blocks have the first mode.
            let record = records.get(number % (records.len() + 1));
            let record = record.cloned().unwrap_or_else(|| first_record(&spec));
            if writer.push_record(&record, info).is_ok() {
                assert!(fits);
                taken.push((label, caption, psnr_db, Vec::new(), record));
            }
        }
    }
    assert_eq!(writer.samples(), taken.len());
    let mean = input.flag().then(|| f64::from_bits(u64::from_le_bytes(input.bytes())));
    let file = match writer.finish(mean) {
        Ok(file) => file.into_inner(),
        Err(error) => return assert!(mean.is_some_and(|mean| !mean.is_finite()), "{error}"),
    };

    examine::examine(&file);
    let archive = Archive::new(file).expect("what the writer wrote");
    let report = archive.verify(&()).expect("nobody interrupts");
    assert!(report.problems.is_empty() && report.unchecked.is_empty(), "{report:?}");
    assert_eq!((archive.samples(), archive.geometry()), (taken.len(), &geometry));
    assert_eq!((archive.classes(), archive.max_error()), (spec.classes.as_deref(), spec.max_error));
    assert_eq!(archive.mean_psnr_db().is_some(), mean.is_some());
    assert_eq!(archive.metadata().get("encoder"), Some(&spec.encoder));
    for (sample, (label, caption, psnr_db, indices, record)) in taken.into_iter().enumerate() {
        let label = label.filter(|&label| spec.labels && label != -1);
        assert_eq!(archive.label(sample).expect("there"), label);
        let named = label.is_none_or(|label| spec.classes.as_ref().is_none_or(|names| (0..names.len() as i64).contains(&label)));
        assert_eq!(report.bad_samples.iter().all(|bad| bad.sample != sample), named, "{report:?}");
        assert_eq!(archive.caption(sample).expect("text").map(|text| text.to_string()), spec.captions.then_some(caption));
        assert_eq!(archive.psnr().expect("intact").map(|psnr| psnr[sample]), spec.psnr.then_some(psnr_db));
        match archive.vq() {
            Ok(vq) => assert_eq!(vq.indices(&archive.row(sample).expect("intact")).expect("a row"), indices),
            Err(_) => assert!(archive.row(sample).expect("there")[..] == record[..]),
        }
    }
});

/// The record of an image whose blocks all are the first codewords in the first mode.
fn first_record(spec: &ArchiveSpec) -> Vec<u8> {
    let CodingSpec::Layers(books) = &spec.coding else { return Vec::new() };
    let (mut modes, mut indices) = (Vec::new(), 0);
    for (component, side) in [Some(&books.luma), books.chroma.as_ref()].into_iter().flatten().zip([8, 16]) {
        let blocks = spec.geometry.image_width().div_ceil(side) * spec.geometry.image_height().div_ceil(side);
        modes.push(vec![0; blocks]);
        indices += blocks * component.modes[0].indices();
    }
    let modes: Vec<&[u8]> = modes.iter().map(Vec::as_slice).collect();
    books.record(&spec.geometry, &modes, &vec![0; indices]).expect("a valid record")
}

fn text(input: &mut Input) -> String {
    let len = input.number(0..=12);
    String::from_utf8_lossy(input.up_to(len)).into_owned()
}
