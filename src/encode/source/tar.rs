//! Shards of samples in tar files.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ::tar::{Archive, EntryType};
use serde_json::Value;

use super::labels::{Column, Labels, of_json};
use super::{Source, is_hidden, is_image_extension, starts_with};
use crate::encode::picture::{Image, ReadOptions};
use crate::error::{Error, Result};
use crate::read_at::read_exact_at;

/// The most bytes of a label, a caption or a sample's JSON.
const MAX_TEXT: u64 = 16 << 20;
/// The most bytes of a long name and of an extended header together.
const MAX_NAME: u64 = 1 << 20;
/// The most shards that a pattern may stand for.
const MAX_SHARDS: u64 = 1_000_000;

/// Tar files whose members are named as WebDataset does it: one file, a folder of them, or a pattern such as
/// `shard-{000000..000009}.tar`.
///
/// Members that follow each other and whose names agree up to the first dot behind the last slash are a sample. Its image
/// is the member that ends in .jpg, .jpeg, .png, .webp or .bmp; its label, an integer or the name of a class, stands in
/// .cls, or in .json under label; its caption in .txt, or in .json under caption or text. Other members are passed over,
/// as are folders and names without a dot or with one at their beginning. Names of classes in the order of their bytes
/// give the labels 0, 1, ...
///
/// A sample takes some 60 bytes of memory beside its name; images and captions stay in the shards.
#[derive(Debug, Clone)]
pub struct TarShards {
    shards: Vec<PathBuf>,
    samples: Vec<Sample>,
    /// The names of all samples' images, one after another.
    names: String,
    labels: Labels,
    has_captions: bool,
}

#[derive(Debug, Clone)]
struct Sample {
    shard: u32,
    image: Place,
    caption: Option<Caption>,
    /// Where its name ends.
    name_end: usize,
}

/// Bytes of a shard.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: u64,
    len: u32,
}

/// Where a caption is.
#[derive(Debug, Clone, Copy)]
enum Caption {
    Text(Place),
    Json(Place),
}

impl TarShards {
    /// Lists one file, the files of a folder or those of a pattern, each read once.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, [`Error::Listing`] if one is no tar file or a sample is not as it should
    /// be, [`Error::NoImages`] if there are none, [`Error::Argument`] for a pattern that stands for too many.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let shards = match path {
            _ if path.is_dir() => tars_in(path)?,
            _ if !path.exists() && is_pattern(path) => expand(&path.to_string_lossy())?,
            _ => vec![path.to_path_buf()],
        };
        let mut index = Index::default();
        for (number, shard) in shards.iter().enumerate() {
            index.add(number as u32, shard)?;
        }
        let Index { samples, names, labels, has_captions } = index;
        if samples.is_empty() {
            return Err(Error::NoImages { path: path.into() });
        }
        let labels = labels
            .finish()
            .map_err(|found| listing(path.display(), found, "0 or more, or -1 for none, in .cls or .json"))?;
        Ok(Self { shards, samples, names, labels, has_captions })
    }

    fn sample(&self, index: usize) -> Result<&Sample> {
        self.samples.get(index).ok_or(Error::Sample { sample: index, samples: self.samples.len() })
    }

    fn bytes(&self, shard: u32, place: Place) -> Result<Vec<u8>> {
        let path = &self.shards[shard as usize];
        // Opened each time, as there may be more shards than files can be open.
        let file = File::open(path).map_err(Error::io("open", path))?;
        let mut bytes = vec![0; place.len as usize];
        read_exact_at(&file, &mut bytes, place.start).map_err(Error::io("read", path))?;
        Ok(bytes)
    }
}

impl Source for TarShards {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn name(&self, index: usize) -> String {
        let Some(sample) = self.samples.get(index) else { return String::new() };
        let start = index.checked_sub(1).map_or(0, |before| self.samples[before].name_end);
        member_name(&self.shards[sample.shard as usize], &self.names[start..sample.name_end])
    }

    fn read(&self, index: usize, options: &ReadOptions) -> Result<Image> {
        let sample = self.sample(index)?;
        let name = PathBuf::from(self.name(index));
        options.check_len(sample.image.len.into(), &name)?;
        Image::decode_bytes(&self.bytes(sample.shard, sample.image)?, &name, options)
    }

    fn files(&self) -> Box<dyn Iterator<Item = PathBuf> + '_> {
        Box::new(self.shards.iter().cloned())
    }

    fn has_labels(&self) -> bool {
        self.labels.numbers.is_some()
    }

    fn label(&self, index: usize) -> Option<i64> {
        self.labels.get(index)
    }

    fn classes(&self) -> Option<Vec<String>> {
        self.labels.classes.clone()
    }

    fn has_captions(&self) -> bool {
        self.has_captions
    }

    fn caption(&self, index: usize) -> Result<Option<String>> {
        let sample = self.sample(index)?;
        let changed = || listing(self.name(index), "another caption than before", "files that stay as they are");
        match sample.caption {
            None => Ok(None),
            Some(Caption::Text(place)) => text(self.bytes(sample.shard, place)?).map(Some).map_err(|_| changed()),
            Some(Caption::Json(place)) => {
                let object = serde_json::from_slice(&self.bytes(sample.shard, place)?).map_err(|_| changed())?;
                of_json(&object).map(|(_, caption)| caption).map_err(|_| changed())
            }
        }
    }
}

/// A shard of which no more is read than is left: the `tar` crate keeps long names and extended headers in memory, however
/// long they are.
struct Sparing<'a> {
    file: File,
    left: &'a Cell<u64>,
}

impl Read for Sparing<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !bytes.is_empty() {
            return Err(io::Error::other(format!("a name or an extended header of more than {MAX_NAME} bytes")));
        }
        let most = bytes.len().min(left as usize);
        let read = self.file.read(&mut bytes[..most])?;
        self.left.set(left - read as u64);
        Ok(read)
    }
}

impl Seek for Sparing<'_> {
    fn seek(&mut self, place: SeekFrom) -> io::Result<u64> {
        self.file.seek(place)
    }
}

/// What was found so far.
#[derive(Default)]
struct Index {
    samples: Vec<Sample>,
    names: String,
    labels: Column,
    has_captions: bool,
}

/// A sample whose members are not all read yet.
struct Pending {
    key: String,
    /// The name and place of its image.
    image: Option<(String, Place)>,
    class: Option<String>,
    text: Option<Place>,
    /// Its JSON: where it is, the label and whether there is a caption.
    json: Option<(Place, Option<String>, bool)>,
}

impl Index {
    fn add(&mut self, number: u32, shard: &Path) -> Result<()> {
        if is_compressed(shard) || starts_like_compressed(shard) {
            return Err(compressed(shard));
        }
        let broken = |error: std::io::Error| listing(shard.display(), format!("no tar file ({error})"), "a tar file");
        let file = File::open(shard).map_err(Error::io("open", shard))?;
        let len = file.metadata().map_err(Error::io("read", shard))?.len();
        let left = Cell::new(MAX_NAME);
        let mut archive = Archive::new(Sparing { file, left: &left });
        let entries = archive.entries_with_seek().map_err(broken)?;
        let mut pending: Option<Pending> = None;
        for entry in entries {
            let mut entry = entry.map_err(broken)?;
            left.set(MAX_NAME);
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let kind = entry.header().entry_type();
            let Some((key, extension)) = split(&name) else { continue };
            if matches!(kind, EntryType::Directory | EntryType::XGlobalHeader) {
                continue;
            }
            let wrong = |found: &str, expected: &str| listing(member_name(shard, &name), found, expected);
            if pending.as_ref().is_some_and(|pending| pending.key != key) {
                self.finish(number, shard, pending.take())?;
            }
            let sample = pending.get_or_insert_with(|| Pending::new(key));
            let extension = extension.to_ascii_lowercase();
            let is_image = is_image_extension(&extension);
            if !is_image && !matches!(extension.as_str(), "cls" | "txt" | "json") {
                continue;
            }
            if !matches!(kind, EntryType::Regular | EntryType::Continuous) {
                return Err(wrong("a link or special file", "a file"));
            }
            let (start, size) = (entry.raw_file_position(), entry.size());
            if start.checked_add(size).is_none_or(|end| end > len) {
                return Err(wrong("a member that goes on beyond the end of the file", "a whole tar file"));
            }
            let Ok(size) = u32::try_from(size) else { return Err(wrong("4 GiB or more", "less")) };
            let place = Place { start, len: size };
            if is_image {
                if sample.image.replace((name.clone(), place)).is_some() {
                    return Err(wrong("a second image of a sample", "one"));
                }
                continue;
            }
            if u64::from(size) > MAX_TEXT {
                return Err(wrong(&format!("{size} bytes"), &format!("{MAX_TEXT} at most")));
            }
            let mut bytes = Vec::new();
            left.set(size.into());
            entry.read_to_end(&mut bytes).map_err(Error::io("read", shard))?;
            left.set(MAX_NAME);
            match extension.as_str() {
                "cls" => {
                    let class = text(bytes).map_err(|()| wrong("other bytes", "UTF-8"))?;
                    sample.class = Some(class.trim().to_string()).filter(|class| !class.is_empty());
                }
                "txt" => {
                    text(bytes).map_err(|()| wrong("other bytes", "UTF-8"))?;
                    sample.text = Some(place);
                }
                _ => {
                    let object: Value = serde_json::from_slice(&bytes)
                        .map_err(|error| wrong(&format!("no JSON ({error})"), "an object"))?;
                    let (label, caption) = of_json(&object).map_err(|(found, expected)| wrong(&found, expected))?;
                    sample.json = Some((place, label, caption.is_some()));
                }
            }
        }
        self.finish(number, shard, pending)
    }

    fn finish(&mut self, shard: u32, path: &Path, pending: Option<Pending>) -> Result<()> {
        let Some(Pending { key, image, class, text, json }) = pending else { return Ok(()) };
        let Some((name, image)) = image else {
            return Err(listing(
                member_name(path, &key),
                "a sample without an image",
                "a .jpg, .jpeg, .png, .webp or .bmp right beside its other files",
            ));
        };
        self.names.push_str(&name);
        let (place, label, captioned) =
            json.map_or((None, None, false), |(place, label, captioned)| (Some(place), label, captioned));
        let caption = text.map(Caption::Text).or(place.filter(|_| captioned).map(Caption::Json));
        self.has_captions |= caption.is_some();
        self.labels.push(class.or(label).as_deref());
        self.samples.push(Sample { shard, image, caption, name_end: self.names.len() });
        Ok(())
    }
}

impl Pending {
    fn new(key: &str) -> Self {
        Self { key: key.into(), image: None, class: None, text: None, json: None }
    }
}

/// The key of a member's sample and the rest of its name; `None` for names that have no such parts.
fn split(name: &str) -> Option<(&str, &str)> {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.')?;
    (dot > file).then(|| (&name[..dot], &name[dot + 1..]))
}

/// Text of a member, without the line break at its end.
fn text(bytes: Vec<u8>) -> std::result::Result<String, ()> {
    let mut text = String::from_utf8(bytes).map_err(|_| ())?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

fn member_name(shard: &Path, member: &str) -> String {
    format!("{}/{member}", shard.file_name().unwrap_or_default().to_string_lossy())
}

fn listing(place: impl ToString, found: impl Into<String>, expected: impl Into<String>) -> Error {
    Error::Listing { place: place.to_string(), found: found.into(), expected: expected.into() }
}

fn is_tar(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar"))
}

/// The tar files of a folder, by the bytes of their names.
fn tars_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(Error::io("read the folder", folder))?;
    let mut tars = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("read the folder", folder))?.path();
        if is_tar(&path) && !is_hidden(&path) && path.is_file() {
            tars.push(path);
        }
    }
    tars.sort_unstable_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(tars)
}

/// Whether a folder holds tar files.
pub(super) fn is_folder(folder: &Path) -> Result<bool> {
    Ok(!tars_in(folder)?.is_empty())
}

/// Whether a name stands for several tar files.
pub(super) fn is_pattern(path: &Path) -> bool {
    is_tar(path) && path.to_str().is_some_and(|text| range(text).is_some())
}

/// The first range of a pattern, `{from..to}`: what is before it, its first and last number as text, what is behind.
fn range(pattern: &str) -> Option<(&str, &str, &str, &str)> {
    let (before, rest) = pattern.split_once('{')?;
    let (range, behind) = rest.split_once('}')?;
    let (first, last) = range.split_once("..")?;
    let number = |text: &str| !text.is_empty() && text.len() < 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    (number(first) && number(last)).then_some((before, first, last, behind))
}

/// The names that a pattern stands for, numbers as wide as the first of their range.
fn expand(pattern: &str) -> Result<Vec<PathBuf>> {
    let mut names = vec![pattern.to_string()];
    // All names have the same ranges.
    while let Some((_, first, last, _)) = range(&names[0]) {
        let wrong =
            |expected: &str| Error::Argument { argument: "source", found: pattern.into(), expected: expected.into() };
        let width = first.len();
        let (Ok(first), Ok(last)) = (first.parse::<u64>(), last.parse::<u64>()) else { return Err(wrong("numbers")) };
        if first > last {
            return Err(wrong("ranges that begin with the smaller number"));
        }
        if (last - first + 1).saturating_mul(names.len() as u64) > MAX_SHARDS {
            return Err(wrong("a million shards at most"));
        }
        let parts = names.iter().filter_map(|name| range(name));
        names = parts
            .flat_map(|(before, _, _, behind)| {
                (first..=last).map(move |number| format!("{before}{number:0width$}{behind}"))
            })
            .collect();
    }
    Ok(names.into_iter().map(PathBuf::from).collect())
}

/// Whether a name is that of a compressed tar file.
pub(super) fn is_compressed(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let endings = [".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4"];
    endings.iter().any(|ending| name.ends_with(ending))
}

fn starts_like_compressed(path: &Path) -> bool {
    let magics: [&[u8]; 4] = [b"\x1F\x8B", b"BZh", b"\xFD7zXZ\0", b"\x28\xB5\x2F\xFD"];
    magics.iter().any(|magic| starts_with(path, magic))
}

/// The error for a compressed tar file.
pub(super) fn compressed(path: &Path) -> Error {
    let expected = "a plain tar file, in which images can be read in any order; decompress it first (gunzip, unzstd)";
    listing(path.display(), "a compressed tar file", expected)
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, Rgb, RgbImage};

    use super::*;
    use crate::encode::open;

    fn png(value: u8) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        RgbImage::from_pixel(2, 1, Rgb([value; 3])).write_to(&mut bytes, ImageFormat::Png).expect("encode");
        bytes.into_inner()
    }

    fn shard(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = ::tar::Builder::new(Vec::new());
        for (name, bytes) in members {
            let mut header = ::tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            if name.ends_with('/') {
                header.set_entry_type(EntryType::Directory);
            }
            builder.append_data(&mut header, name, *bytes).expect("append");
        }
        builder.into_inner().expect("finish")
    }

    fn folder_of(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("tempdir");
        files.iter().for_each(|(name, bytes)| fs::write(folder.path().join(name), bytes).expect("write"));
        folder
    }

    fn listed(source: &dyn Source) -> Vec<(String, Option<i64>, Option<String>, u8)> {
        let sample = |i| {
            let image = source.read(i, &ReadOptions::new(3)).expect("read");
            (source.name(i), source.label(i), source.caption(i).expect("caption"), image.pixels[0])
        };
        (0..source.len()).map(sample).collect()
    }

    #[test]
    fn samples_are_grouped_up_to_the_first_dot() {
        let first = shard(&[
            ("a/", b""),
            ("a/0.seg.png", b"mask"),
            ("a/0.cls", b" dog \n"),
            ("a/0.PNG", &png(1)),
            ("a/0.txt", "ein Hund\n".as_bytes()),
            ("a/.hidden.png", b""),
            ("readme", b"text"),
            ("b.c/0.png", &png(2)),
            ("b.c/0.json", br#"{"label": "cat", "caption": "une \u00e9toile", "more": {}}"#),
        ]);
        let second = shard(&[("0.jpeg", &png(3)), ("1.json", br#"{"text": "only"}"#), ("1.webp", &png(4))]);
        let folder = folder_of(&[("s-01.tar", second), ("s-00.tar", first), ("notes.txt", Vec::new())]);
        let source = open(folder.path()).expect("open");
        let expected = [
            ("s-00.tar/a/0.PNG", Some(1), Some("ein Hund"), 1),
            ("s-00.tar/b.c/0.png", Some(0), Some("une étoile"), 2),
            ("s-01.tar/0.jpeg", None, None, 3),
            ("s-01.tar/1.webp", None, Some("only"), 4),
        ]
        .map(|(name, label, caption, value)| (name.to_string(), label, caption.map(String::from), value));
        assert_eq!(listed(source.as_ref()), expected);
        assert_eq!(source.classes().expect("classes"), ["cat", "dog"]);
        assert!(source.has_captions() && source.has_labels());
        let pattern = open(folder.path().join("s-{00..01}.tar")).expect("open");
        assert_eq!(listed(pattern.as_ref()), expected);
        let one = open(folder.path().join("s-01.tar")).expect("open");
        assert_eq!(listed(one.as_ref()), expected[2..].to_vec());
        assert!(!one.has_labels() && one.classes().is_none());
        assert!(matches!(one.read(2, &ReadOptions::new(3)), Err(Error::Sample { .. })));
    }

    #[test]
    fn long_names_and_pax_headers_are_understood() {
        let long = format!("{}/{}.png", "deep".repeat(40), "x".repeat(90));
        let mut builder = ::tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("comment", b"hello".as_slice())]).expect("append");
        let mut header = ::tar::Header::new_ustar();
        header.set_size(png(5).len() as u64);
        header.set_path("short.png").expect("path");
        header.set_cksum();
        builder.append(&header, &png(5)[..]).expect("append");
        let mut header = ::tar::Header::new_gnu();
        header.set_size(png(6).len() as u64);
        builder.append_data(&mut header, &long, &png(6)[..]).expect("append");
        let folder = folder_of(&[("a.tar", builder.into_inner().expect("finish"))]);
        let names: Vec<_> =
            listed(open(folder.path().join("a.tar")).expect("open").as_ref()).into_iter().map(|s| (s.0, s.3)).collect();
        assert_eq!(names, [("a.tar/short.png".into(), 5), (format!("a.tar/{long}"), 6)]);
    }

    #[test]
    fn problems_name_shard_and_member() {
        let good = shard(&[("0.png", &png(1)), ("0.cls", b"1")]);
        let mut link = ::tar::Builder::new(Vec::new());
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        link.append_link(&mut header, "0.png", "1.png").expect("append");
        for (bytes, place) in [
            (shard(&[("0.png", &png(1)), ("1.cls", b"1")]), "s.tar/1"),
            (shard(&[("1.cls", b"1"), ("2.png", &png(1))]), "s.tar/1"),
            (shard(&[("0.png", &png(1)), ("0.jpg", &png(1))]), "s.tar/0.jpg"),
            (shard(&[("0.png", &png(1)), ("0.json", b"{")]), "s.tar/0.json"),
            (shard(&[("0.png", &png(1)), ("0.json", br#"{"label": []}"#)]), "s.tar/0.json"),
            (shard(&[("0.png", &png(1)), ("0.cls", b"\xFF")]), "s.tar/0.cls"),
            (shard(&[("0.png", &png(1)), ("0.txt", b"\xFF")]), "s.tar/0.txt"),
            (shard(&[("0.png", &png(1)), ("0.cls", b"-7")]), "s.tar"),
            (link.into_inner().expect("finish"), "s.tar/0.png"),
            (good[..540].to_vec(), "s.tar/0.png"),
            (good[..1500].to_vec(), "s.tar"),
            (vec![7; 2000], "s.tar"),
            (b"\x1F\x8B\x08 and so on".to_vec(), "s.tar"),
        ] {
            let folder = folder_of(&[("s.tar", bytes)]);
            let error = open(folder.path().join("s.tar")).err().expect("an error");
            assert!(
                matches!(&error, Error::Listing { place: found, .. } if found.ends_with(place)),
                "{place}: {error}"
            );
        }
        for (bytes, name) in [(Vec::new(), "s.tar"), (shard(&[("a/", b"")]), "s.tar"), (shard(&[("a", b"")]), "s.tar")]
        {
            let folder = folder_of(&[(name, bytes)]);
            assert!(matches!(open(folder.path().join(name)), Err(Error::NoImages { .. })));
        }
        let folder = folder_of(&[("s.tar.gz", b"\x1F\x8B".to_vec())]);
        let error = open(folder.path().join("s.tar.gz")).err().expect("an error");
        assert!(error.to_string().contains("decompress"), "{error}");
        assert!(
            matches!(open(folder.path().join("s-{0..1}.tar")), Err(Error::Io { path, .. }) if path.ends_with("s-0.tar"))
        );
    }

    #[test]
    fn names_and_extended_headers_of_megabytes_are_refused() {
        for (kind, name) in [(EntryType::GNULongName, "././@LongLink"), (EntryType::XHeader, "././@PaxHeader")] {
            let member = |len: usize| {
                let mut header = ::tar::Header::new_gnu();
                header.set_entry_type(kind);
                header.set_size(len as u64);
                let mut builder = ::tar::Builder::new(Vec::new());
                builder.append_data(&mut header, name, &vec![b'a'; len][..]).expect("append");
                let rest = shard(&[("0.png", &png(1))]);
                // Without the blocks of zeros that end a shard.
                [&builder.into_inner().expect("finish")[..512 + len], &rest].concat()
            };
            let folder = folder_of(&[("s.tar", member(2 << 20))]);
            match open(folder.path()) {
                Err(Error::Listing { found, .. }) => assert!(found.contains("more than 1048576 bytes"), "{found}"),
                other => unreachable!("{:?}", other.err()),
            }
            let folder = folder_of(&[("s.tar", member(1 << 19))]);
            assert!(!matches!(open(folder.path()), Err(Error::Listing { found, .. }) if found.contains("more than")));
        }
    }

    #[test]
    fn an_image_that_is_none_is_named_when_it_is_read() {
        let folder = folder_of(&[("s.tar", shard(&[("0.png", b"<html>")]))]);
        let source = open(folder.path()).expect("open");
        match source.read(0, &ReadOptions::new(3)) {
            Err(Error::Image { path, .. }) => assert_eq!(path, Path::new("s.tar/0.png")),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn images_win_over_shards_beside_them() {
        let folder = folder_of(&[("a.png", png(1)), ("s.tar", shard(&[("0.png", &png(2))]))]);
        assert_eq!(open(folder.path()).expect("open").name(0), "a.png");
    }

    #[test]
    fn patterns_count_with_leading_zeros() {
        let expanded = |pattern: &str| {
            expand(pattern).map(|paths| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>())
        };
        assert_eq!(expanded("a-{08..11}.tar").expect("names"), ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]);
        assert_eq!(expanded("{0..1}/{9..10}.tar").expect("names"), ["0/9.tar", "0/10.tar", "1/9.tar", "1/10.tar"]);
        for wrong in ["{5..4}.tar", "{0..1000000}.tar", "{0..9999}{0..9999}.tar"] {
            assert!(matches!(expand(wrong), Err(Error::Argument { .. })), "{wrong}");
        }
        for no_pattern in ["a{b..c}.tar", "a{}.tar", "a.tar", "{0..1}.zip", "{..}.tar", "{1..99999999999999999999}.tar"]
        {
            assert!(!is_pattern(Path::new(no_pattern)), "{no_pattern}");
        }
    }
}
