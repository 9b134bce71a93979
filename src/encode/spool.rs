//! Images on their way to an archive, kept in a file.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::picture::{Image, ReadOptions};
use super::source::Source;
use super::{EncodeOptions, bring_to_size};
use crate::error::{Error, Result};
use crate::read_at::read_exact_at;

/// The most bytes of pixels that wait in memory to be written, one image aside.
const BUFFER_BYTES: usize = 1 << 20;

/// A source that images are put into one by one, for those that can be read only once.
///
/// Images are brought to the archive's size at once, and their pixels go to a file without a name that is gone with
/// the spool: width x height x channels bytes each. Labels and captions stay in memory.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    file: File,
    /// Bytes in the file.
    written: u64,
    /// Whole images that come behind those in the file.
    waiting: Vec<u8>,
    options: EncodeOptions,
    image_len: usize,
    labels: Vec<Option<i64>>,
    captions: Vec<Option<String>>,
    classes: Option<Vec<String>>,
}

impl Spool {
    /// An empty spool for an archive of these options, its file in `folder`.
    ///
    /// # Errors
    /// [`Error::Geometry`] or [`Error::Argument`] for options out of range; [`Error::Io`] if there can be no file.
    pub fn create_in(folder: impl AsRef<Path>, options: &EncodeOptions) -> Result<Self> {
        let folder = folder.as_ref().to_path_buf();
        let image_len = options.geometry()?.image_len();
        let file = tempfile::tempfile_in(&folder).map_err(Error::io("create a temporary file in", &folder))?;
        let (written, waiting, options) = (0, Vec::new(), options.clone());
        let (labels, captions, classes) = (Vec::new(), Vec::new(), None);
        Ok(Self { folder, file, written, waiting, options, image_len, labels, captions, classes })
    }

    /// Adds an image.
    ///
    /// # Errors
    /// [`Error::Argument`] if the image is not of the options' channels or not what it says; [`Error::Io`] if the
    /// file cannot be written.
    pub fn push(&mut self, image: Image, label: Option<i64>, caption: Option<String>) -> Result<()> {
        let image = bring_to_size(image, &self.options)?;
        if self.waiting.len() >= BUFFER_BYTES {
            let write = |file: &mut File| {
                file.seek(SeekFrom::Start(self.written))?;
                file.write_all(&self.waiting)
            };
            write(&mut self.file).map_err(Error::io("write a temporary file in", &self.folder))?;
            self.written += self.waiting.len() as u64;
            self.waiting.clear();
        }
        self.waiting.extend(image.pixels);
        self.labels.push(label);
        self.captions.push(caption);
        Ok(())
    }

    /// Names the labels 0, 1, ...
    pub fn set_classes(&mut self, classes: Option<Vec<String>>) {
        self.classes = classes;
    }
}

impl Source for Spool {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn name(&self, index: usize) -> String {
        format!("image {index}")
    }

    fn read(&self, index: usize, options: &ReadOptions) -> Result<Image> {
        if index >= self.len() {
            return Err(Error::Sample { sample: index, samples: self.len() });
        }
        let (width, height) = self.options.image_size;
        let start = index as u64 * self.image_len as u64;
        let pixels = if start >= self.written {
            self.waiting[(start - self.written) as usize..][..self.image_len].to_vec()
        } else {
            let mut pixels = vec![0; self.image_len];
            read_exact_at(&self.file, &mut pixels, start)
                .map_err(Error::io("read a temporary file in", &self.folder))?;
            pixels
        };
        Image::new(width, height, self.options.channels, pixels, options.channels)
    }

    fn is_lasting(&self) -> bool {
        false
    }

    fn has_labels(&self) -> bool {
        self.labels.iter().any(Option::is_some)
    }

    fn label(&self, index: usize) -> Option<i64> {
        self.labels.get(index).copied().flatten()
    }

    fn classes(&self) -> Option<Vec<String>> {
        self.classes.clone()
    }

    fn has_captions(&self) -> bool {
        self.captions.iter().any(Option::is_some)
    }

    fn caption(&self, index: usize) -> Result<Option<String>> {
        Ok(self.captions.get(index).cloned().flatten())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::RgbImage;

    use super::*;
    use crate::Archive;
    use crate::encode::{Codebook, Folder, encode};

    fn options() -> EncodeOptions {
        EncodeOptions {
            image_size: (128, 96),
            patch: (4, 4),
            codebook: Codebook::Train(64),
            ..EncodeOptions::default()
        }
    }

    #[test]
    fn a_spool_makes_the_archive_that_its_folder_makes() {
        let folder = tempfile::tempdir().expect("tempdir");
        // 40 images of 36,864 bytes: the first 29 are written to the file, the others wait.
        for i in 0..40u32 {
            let path = folder.path().join(format!("{}/{i:02}.png", ["cat", "dog"][(i / 20) as usize]));
            fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            let wave = |x: u32, y: u32, k: u32| ((x * x * k + y * (31 + i) + x * y) / 17 % 256) as u8;
            RgbImage::from_fn(100 + i, 90, |x, y| [wave(x, y, 1), wave(y, x, 2), wave(x, y, 3)].into())
                .save(path)
                .expect("save");
        }
        let source = Folder::open(folder.path()).expect("open");
        let mut spool = Spool::create_in(folder.path(), &options()).expect("spool");
        for i in 0..source.len() {
            spool.push(source.read(i, &options().reading()).expect("read"), source.label(i), None).expect("push");
        }
        spool.set_classes(source.classes());
        assert!(spool.written > 0 && !spool.waiting.is_empty());
        let outputs = ["folder.qvq", "spool.qvq"].map(|name| folder.path().join(name));
        encode(&source, &outputs[0], &options(), &()).expect("encode");
        let summary = encode(&spool, &outputs[1], &options(), &()).expect("encode");
        assert_eq!(summary.samples, 40);
        assert!(fs::read(&outputs[0]).expect("read") == fs::read(&outputs[1]).expect("read"));
        drop(spool);
        assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 4);
    }

    #[test]
    fn captions_reach_the_archive() {
        let folder = tempfile::tempdir().expect("tempdir");
        let mut spool = Spool::create_in(folder.path(), &options()).expect("spool");
        for caption in [Some("one".to_string()), None] {
            let image = Image::new(2, 1, 1, vec![3, 200], 3).expect("image");
            spool.push(image, None, caption).expect("push");
        }
        let output = folder.path().join("out.qvq");
        encode(&spool, &output, &options(), &()).expect("encode");
        let archive = Archive::open(&output).expect("open");
        assert!(archive.verify(&()).expect("verify").is_ok());
        let captions: Vec<_> = (0..2).map(|i| archive.caption(i).expect("caption")).collect();
        assert_eq!(captions, [Some("one".into()), Some("".into())]);
        assert!(archive.labels().expect("intact").is_none());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().expect("tempdir");
        assert!(matches!(Spool::create_in(folder.path().join("no"), &options()), Err(Error::Io { .. })));
        let wrong = EncodeOptions { codebook: Codebook::Train(0), ..options() };
        assert!(matches!(Spool::create_in(folder.path(), &wrong), Err(Error::Argument { .. })));
        let mut spool = Spool::create_in(folder.path(), &options()).expect("spool");
        let grey = Image::new(1, 1, 1, vec![0], 1).expect("image");
        assert!(matches!(spool.push(grey, None, None), Err(Error::Argument { .. })));
        assert!(spool.is_empty());
        assert!(matches!(spool.read(0, &options().reading()), Err(Error::Sample { .. })));
    }
}
