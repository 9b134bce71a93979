//! CIFAR-10 and CIFAR-100 as they are published.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::pickle::{PROTO, Pickle};
use super::{Source, starts_with};
use crate::encode::picture::{Image, ReadOptions};
use crate::error::{Error, Result};
use crate::read_at::read_exact_at;

const SIDE: u32 = 32;
/// Values of an image: 32 x 32 of red, then of green, then of blue.
const PIXELS: usize = 3 * 32 * 32;
/// The largest file accepted; the published ones have up to 186 MB.
const MAX_BYTES: u64 = 1 << 30;

/// CIFAR-10 or CIFAR-100 (Krizhevsky, "Learning multiple layers of features from tiny images", 2009) in the binary or
/// the Python version: a file of images, or the folder.
///
/// A folder gives the training images, or those for tests if there are no others; for one of both give the file.
/// CIFAR-100's labels are the fine ones. The names of the classes come from the file beside the images, if it is there.
#[derive(Debug, Clone)]
pub struct Cifar {
    batches: Vec<Batch>,
    labels: Vec<u8>,
    classes: Option<Vec<String>>,
}

/// A file of images at equal distances.
#[derive(Debug, Clone)]
struct Batch {
    path: PathBuf,
    /// The number of its first image.
    first: usize,
    /// Where the first image's pixels begin, and bytes from one image to the next.
    start: u64,
    stride: u64,
}

impl Cifar {
    /// Lists a file or a folder.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Listing`] if a file is not what its name says,
    /// [`Error::NoImages`] if there are none.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let files = if path.is_dir() { batches_in(path) } else { vec![path.to_path_buf()] };
        let mut this = Self { batches: Vec::new(), labels: Vec::new(), classes: None };
        for file in files {
            if is_binary(&file) { this.add_binary(&file)? } else { this.add_pickle(&file)? }
        }
        let (Some(batch), Some(&greatest)) = (this.batches.first(), this.labels.iter().max()) else {
            return Err(Error::NoImages { path: path.into() });
        };
        this.classes = names_beside(&batch.path, usize::from(greatest) + 1)?;
        Ok(this)
    }

    fn add_binary(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let len = file.metadata().map_err(Error::io("read", path))?.len();
        // A byte for the label, in CIFAR-100 one for the coarse label before it.
        let [ten, hundred] = [1, 2].map(|labels| (labels, (labels + PIXELS) as u64));
        let known = match stem(path).as_str() {
            "train" | "test" => hundred,
            name if name.starts_with("data_batch") || name == "test_batch" => ten,
            _ if len.is_multiple_of(ten.1) => ten,
            _ => hundred,
        };
        let (labels, record) = known;
        if len == 0 || !len.is_multiple_of(record) {
            let found = format!("{len} bytes");
            return Err(listing(path, found, format!("a multiple of {record}, the bytes of an image and its label")));
        }
        let classes = if labels == 1 { 10 } else { 100 };
        self.batches.push(Batch { path: path.into(), first: self.labels.len(), start: labels as u64, stride: record });
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut image = vec![0; record as usize];
        for number in 0..len / record {
            file.read_exact(&mut image).map_err(Error::io("read", path))?;
            let label = image[labels - 1];
            if label >= classes {
                let found = format!("the label {label} for image {number}");
                return Err(listing(path, found, format!("0 to {}", classes - 1)));
            }
            self.labels.push(label);
        }
        Ok(())
    }

    fn add_pickle(&mut self, path: &Path) -> Result<()> {
        let bytes = read_pickle(path)?;
        let expected = "a batch of CIFAR-10 or CIFAR-100, Python version";
        let pickle = Pickle::parse(&bytes).map_err(|found| listing(path, found, expected))?;
        let (labels, classes) = match (pickle.integers("labels"), pickle.integers("fine_labels")) {
            (Some(labels), _) => (labels, 10),
            (_, Some(labels)) => (labels, 100),
            _ => return Err(listing(path, "a pickle without labels", expected)),
        };
        let Some(start) = pickle.bytes_of("data", labels.len() * PIXELS) else {
            let found = format!("{} labels, and other data than as many images", labels.len());
            return Err(listing(path, found, "32 x 32 RGB values for each"));
        };
        self.batches.push(Batch {
            path: path.into(),
            first: self.labels.len(),
            start: start as u64,
            stride: PIXELS as u64,
        });
        for label in labels {
            match u8::try_from(label) {
                Ok(label) if label < classes => self.labels.push(label),
                _ => return Err(listing(path, format!("the label {label}"), format!("0 to {}", classes - 1))),
            }
        }
        Ok(())
    }
}

impl Source for Cifar {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn name(&self, index: usize) -> String {
        let batch = &self.batches[self.batches.partition_point(|batch| batch.first <= index).saturating_sub(1)];
        let name = batch.path.file_name().unwrap_or_default().to_string_lossy();
        format!("{name}, image {}", index.saturating_sub(batch.first))
    }

    fn read(&self, index: usize, options: &ReadOptions) -> Result<Image> {
        if index >= self.len() {
            return Err(Error::Sample { sample: index, samples: self.len() });
        }
        let batch = &self.batches[self.batches.partition_point(|batch| batch.first <= index) - 1];
        let file = File::open(&batch.path).map_err(Error::io("open", &batch.path))?;
        let mut planes = vec![0; PIXELS];
        let start = batch.start + (index - batch.first) as u64 * batch.stride;
        read_exact_at(&file, &mut planes, start).map_err(Error::io("read", &batch.path))?;
        let pixels = (0..PIXELS).map(|i| planes[i % 3 * (PIXELS / 3) + i / 3]).collect();
        Image::new(SIDE, SIDE, 3, pixels, options.channels)
    }

    fn files(&self) -> Box<dyn Iterator<Item = PathBuf> + '_> {
        Box::new(self.batches.iter().map(|batch| batch.path.clone()))
    }

    fn has_labels(&self) -> bool {
        true
    }

    fn label(&self, index: usize) -> Option<i64> {
        self.labels.get(index).map(|&label| label.into())
    }

    fn classes(&self) -> Option<Vec<String>> {
        self.classes.clone()
    }
}

/// Whether a folder holds files of CIFAR's.
pub(super) fn is_folder(folder: &Path) -> bool {
    !batches_in(folder).is_empty()
}

/// The files of a folder: for training if there are any, in the binary version if there are both.
fn batches_in(folder: &Path) -> Vec<PathBuf> {
    let batches: Vec<String> = (1..=5).map(|number| format!("data_batch_{number}")).collect();
    let batches: Vec<&str> = batches.iter().map(String::as_str).collect();
    for names in [&batches[..], &["train"], &["test_batch"], &["test"]] {
        for extension in ["bin", ""] {
            let files = names.iter().map(|name| folder.join(name).with_extension(extension));
            let files: Vec<PathBuf> =
                files.filter(|file| file.is_file() && (is_binary(file) || starts_with(file, &[PROTO]))).collect();
            if !files.is_empty() {
                return files;
            }
        }
    }
    Vec::new()
}

/// The names of at least so many classes, from the file beside the images.
fn names_beside(batch: &Path, classes: usize) -> Result<Option<Vec<String>>> {
    let files: [(&str, Option<&str>); 4] = [
        ("batches.meta.txt", None),
        ("fine_label_names.txt", None),
        ("batches.meta", Some("label_names")),
        ("meta", Some("fine_label_names")),
    ];
    let binary = is_binary(batch);
    for (name, key) in files.into_iter().filter(|(_, key)| binary == key.is_none()) {
        let path = batch.with_file_name(name);
        if !path.is_file() {
            continue;
        }
        let names: Vec<String> = match key {
            None => {
                let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
                text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect()
            }
            Some(key) => {
                let bytes = read_pickle(&path)?;
                let pickle = Pickle::parse(&bytes).map_err(|found| listing(&path, found, "the names of classes"))?;
                let names = pickle.texts(key);
                names.ok_or_else(|| listing(&path, format!("a pickle without {key}"), "the names of classes"))?
            }
        };
        if names.len() < classes {
            return Err(listing(&path, format!("{} names", names.len()), format!("{classes} or more")));
        }
        return Ok(Some(names));
    }
    Ok(None)
}

fn read_pickle(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(listing(path, format!("more than {MAX_BYTES} bytes"), "a file of CIFAR's"));
    }
    Ok(bytes)
}

fn listing(path: &Path, found: impl Into<String>, expected: impl Into<String>) -> Error {
    Error::Listing { place: path.display().to_string(), found: found.into(), expected: expected.into() }
}

fn is_binary(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("bin"))
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::open;

    /// The record of an image whose pixel at (x, y) is (seed + x, seed + y, seed).
    fn record(labels: &[u8], seed: u8) -> Vec<u8> {
        let value = |i: usize| seed.wrapping_add([i % 32, i / 32 % 32, 0][i / 1024] as u8);
        labels.iter().copied().chain((0..PIXELS).map(value)).collect()
    }

    fn folder_of(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("tempdir");
        files.iter().for_each(|(name, bytes)| fs::write(folder.path().join(name), bytes).expect("write"));
        folder
    }

    fn check(source: &dyn Source, expected: &[(i64, u8)]) {
        assert_eq!(source.len(), expected.len());
        for (index, &(label, seed)) in expected.iter().enumerate() {
            assert_eq!(source.label(index), Some(label));
            let image = source.read(index, &ReadOptions::new(3)).expect("read");
            assert_eq!((image.width, image.height), (32, 32));
            for (i, pixel) in image.pixels.chunks_exact(3).enumerate() {
                assert_eq!(pixel, [i % 32, i / 32, 0].map(|offset| seed.wrapping_add(offset as u8)));
            }
        }
        assert!(matches!(source.read(expected.len(), &ReadOptions::new(3)), Err(Error::Sample { .. })));
    }

    #[test]
    fn the_binary_versions() {
        let folder = folder_of(&[
            ("data_batch_2.bin", record(&[9], 30)),
            ("data_batch_1.bin", [record(&[3], 10), record(&[0], 20)].concat()),
            ("test_batch.bin", record(&[1], 40)),
            ("batches.meta.txt", b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n".to_vec()),
        ]);
        let source = open(folder.path()).expect("open");
        check(source.as_ref(), &[(3, 10), (0, 20), (9, 30)]);
        assert_eq!(source.classes().expect("classes").concat(), "abcdefghij");
        assert_eq!(
            (source.name(1), source.name(2)),
            ("data_batch_1.bin, image 1".into(), "data_batch_2.bin, image 0".into())
        );
        assert_eq!(source.read(0, &ReadOptions::new(1)).expect("read").pixels.len(), 1024);
        check(open(folder.path().join("test_batch.bin")).expect("open").as_ref(), &[(1, 40)]);

        let folder = folder_of(&[("train.bin", record(&[4, 99], 1)), ("other.bin", record(&[5, 42], 2))]);
        let source = open(folder.path()).expect("open");
        check(source.as_ref(), &[(99, 1)]);
        assert!(source.classes().is_none());
        check(open(folder.path().join("other.bin")).expect("open").as_ref(), &[(42, 2)]);
    }

    /// {key: labels, 'data': array} as Python 2 pickles it.
    fn pickled(key: &str, labels: &[u8], data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x80\x02}q\x01(U".to_vec();
        bytes.push(key.len() as u8);
        bytes.extend(key.as_bytes());
        bytes.extend(b"q\x02]q\x03(");
        labels.iter().for_each(|&label| bytes.extend([b'K', label]));
        bytes.extend(
            b"eU\x04dataq\x04cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87R",
        );
        bytes.extend(b"(K\x01K\x02M\x00\x0C\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R");
        bytes.extend(b"(K\x03U\x01|NNNJ\xFF\xFF\xFF\xFFJ\xFF\xFF\xFF\xFFK\x00tb\x89T");
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(data);
        bytes.extend(b"tbu.");
        bytes
    }

    #[test]
    fn the_python_versions() {
        let data = [record(&[], 7), record(&[], 8)].concat();
        let folder = folder_of(&[
            ("data_batch_1", pickled("labels", &[0, 1], &data)),
            ("test_batch", pickled("labels", &[1, 1], &data)),
            ("batches.meta", b"\x80\x02}(U\x0Blabel_names](U\x03catU\x03dogeu.".to_vec()),
        ]);
        let source = open(folder.path()).expect("open");
        check(source.as_ref(), &[(0, 7), (1, 8)]);
        assert_eq!(source.classes().expect("classes"), ["cat", "dog"]);
        check(open(folder.path().join("test_batch")).expect("open").as_ref(), &[(1, 7), (1, 8)]);
        let folder = folder_of(&[("test", pickled("fine_labels", &[99, 5], &data)), ("meta", b"no pickle".to_vec())]);
        assert!(matches!(open(folder.path()), Err(Error::Listing { place, .. }) if place.ends_with("meta")));
    }

    #[test]
    fn damage_is_named() {
        let data = record(&[], 7);
        for (name, bytes) in [
            ("data_batch_1.bin", record(&[3], 10)[1..].to_vec()),
            ("data_batch_1.bin", record(&[10], 10)),
            ("train.bin", record(&[3], 10)),
            ("train.bin", record(&[3, 100], 10)),
            ("test.bin", Vec::new()),
            ("data_batch_1", b"\x80\x02".to_vec()),
            ("data_batch_1", pickled("labels", &[1, 1], &data)),
            ("data_batch_1", pickled("labels", &[10], &data)),
            ("data_batch_1", pickled("names", &[1], &data)),
            ("train", b"\x80\x02cos\nsystem\nU\x04exit\x85R.".to_vec()),
        ] {
            let folder = folder_of(&[(name, bytes)]);
            for path in [folder.path(), &folder.path().join(name)] {
                let error = open(path).err().expect("an error");
                assert!(matches!(&error, Error::Listing { place, .. } if place.ends_with(name)), "{name}: {error}");
            }
        }
        let folder = folder_of(&[("train.bin", record(&[0, 2], 1)), ("fine_label_names.txt", b"a\nb\n".to_vec())]);
        assert!(open(folder.path()).err().expect("an error").to_string().contains("2 names, expected 3"));
        let folder = folder_of(&[("train", b"notes".to_vec())]);
        assert!(matches!(open(folder.path()), Err(Error::NoImages { .. })));
        assert!(matches!(open(folder.path().join("train")), Err(Error::Argument { .. })));
    }
}
