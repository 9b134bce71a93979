//! Lists of images.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Source;
use super::labels::{Column, Labels, of_json};
use crate::encode::picture::{Image, ReadOptions};
use crate::error::{Error, Result};

const PATHS: [&str; 5] = ["path", "image", "file", "filename", "file_name"];
const LABELS: [&str; 1] = ["label"];
const CAPTIONS: [&str; 2] = ["caption", "text"];

/// The most bytes of a line of JSON, which takes many times as much memory while it is read.
const MAX_LINE: u64 = 16 << 20;

/// A list of image files: `.csv` or `.tsv` with a line of column names, or a JSON object a line (`.jsonl`, `.ndjson`).
///
/// The image's path, relative to the list's folder, stands under path, image, file, filename or file_name (Hugging
/// Face's metadata.csv and metadata.jsonl); a label, an integer or the name of a class, under label; a caption under
/// caption or text. Labels and captions may be missing. Names of classes in the order of their bytes give the labels
/// 0, 1, ...
#[derive(Debug, Clone)]
pub struct Manifest {
    path: PathBuf,
    folder: PathBuf,
    images: Vec<Entry>,
    labels: Labels,
    has_captions: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    path: String,
    caption: Option<String>,
}

impl Manifest {
    /// Reads a list.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Listing`] if a line is not as it should be, which it names,
    /// [`Error::NoImages`] if it lists none.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = BufReader::new(File::open(path).map_err(Error::io("open", path))?);
        let extension = path.extension().map(|extension| extension.to_ascii_lowercase()).unwrap_or_default();
        let mut lines = Lines { path, images: Vec::new(), labels: Column::default() };
        if extension == "jsonl" || extension == "ndjson" {
            lines.read_json(file)?;
        } else {
            lines.read_table(file, if extension == "tsv" { b'\t' } else { b',' })?;
        }
        if lines.images.is_empty() {
            return Err(Error::NoImages { path: path.into() });
        }
        let labels = lines.labels.finish().map_err(|found| Error::Listing {
            place: path.display().to_string(),
            found,
            expected: "0 or more, or -1 for none".into(),
        })?;
        let has_captions = lines.images.iter().any(|image| image.caption.is_some());
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        Ok(Self { path: path.into(), folder, images: lines.images, labels, has_captions })
    }
}

/// What was read of a list.
struct Lines<'a> {
    path: &'a Path,
    images: Vec<Entry>,
    labels: Column,
}

impl Lines<'_> {
    fn error(&self, line: u64, found: impl Into<String>, expected: &str) -> Error {
        let place = format!("{}, line {line}", self.path.display());
        Error::Listing { place, found: found.into(), expected: expected.into() }
    }

    fn push(&mut self, line: u64, path: &str, label: Option<&str>, caption: Option<String>) -> Result<()> {
        if path.is_empty() {
            return Err(self.error(line, "no path", "the path of an image"));
        }
        self.images.push(Entry { path: path.into(), caption });
        self.labels.push(label.map(str::trim).filter(|label| !label.is_empty()));
        Ok(())
    }

    fn read_table(&mut self, file: impl BufRead, delimiter: u8) -> Result<()> {
        let mut table = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(file);
        let names = table.headers().map_err(|error| self.table_error(error))?.clone();
        let column = |wanted: &[&str]| {
            let mut wanted = wanted.iter();
            wanted.find_map(|wanted| names.iter().position(|name| name.trim().eq_ignore_ascii_case(wanted)))
        };
        let Some(path) = column(&PATHS) else {
            let found = names.iter().collect::<Vec<_>>().join(", ");
            return Err(self.error(
                1,
                format!("the columns {found:?}"),
                "one of path, image, file, filename, file_name",
            ));
        };
        let (label, caption) = (column(&LABELS), column(&CAPTIONS));
        let mut row = csv::StringRecord::new();
        while table.read_record(&mut row).map_err(|error| self.table_error(error))? {
            let line = row.position().map_or(0, csv::Position::line);
            let field = |column: Option<usize>| column.and_then(|column| row.get(column));
            let caption = field(caption).filter(|caption| !caption.is_empty()).map(String::from);
            self.push(line, field(Some(path)).unwrap_or_default(), field(label), caption)?;
        }
        Ok(())
    }

    fn table_error(&self, error: csv::Error) -> Error {
        let line = error.position().map_or(1, csv::Position::line);
        match error.into_kind() {
            csv::ErrorKind::Io(source) => Error::Io { action: "read", path: self.path.into(), source },
            csv::ErrorKind::Utf8 { err, .. } => self.error(line, err.to_string(), "UTF-8"),
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                self.error(line, format!("{len} columns"), &format!("{expected_len} as in the first line"))
            }
            other => self.error(line, format!("{other:?}"), "a line of a table"),
        }
    }

    fn read_json(&mut self, mut file: impl BufRead) -> Result<()> {
        let mut text = Vec::new();
        for line in 1.. {
            text.clear();
            let read = file.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut text);
            let len = read.map_err(Error::io("read", self.path))?;
            if len == 0 {
                break;
            }
            if len as u64 > MAX_LINE {
                return Err(self.error(line, format!("more than {MAX_LINE} bytes"), "a shorter line"));
            }
            // A byte order mark, as some editors write it.
            let text = if line == 1 { text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&text) } else { &text };
            if text.trim_ascii().is_empty() {
                continue;
            }
            let object: Value = serde_json::from_slice(text)
                .map_err(|error| self.error(line, format!("no JSON ({error})"), "an object"))?;
            let path = match PATHS.iter().find_map(|name| object.get(name)) {
                Some(Value::String(path)) => path,
                Some(other) => return Err(self.error(line, format!("the path {other}"), "text")),
                None => {
                    let found = object.as_object().map_or("no object".into(), |object| {
                        format!("the keys {:?}", object.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
                    });
                    return Err(self.error(line, found, "one of path, image, file, filename, file_name"));
                }
            };
            let (label, caption) = of_json(&object).map_err(|(found, expected)| self.error(line, found, expected))?;
            self.push(line, path, label.as_deref(), caption)?;
        }
        Ok(())
    }
}

impl Source for Manifest {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn name(&self, index: usize) -> String {
        self.images.get(index).map_or(String::new(), |image| image.path.clone())
    }

    fn read(&self, index: usize, options: &ReadOptions) -> Result<Image> {
        let image = self.images.get(index).ok_or(Error::Sample { sample: index, samples: self.images.len() })?;
        Image::decode(&self.folder.join(&image.path), options)
    }

    fn files(&self) -> Box<dyn Iterator<Item = PathBuf> + '_> {
        Box::new(
            std::iter::once(self.path.clone()).chain(self.images.iter().map(|image| self.folder.join(&image.path))),
        )
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
        Ok(self.images.get(index).and_then(|image| image.caption.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::encode::open;

    fn written(name: &str, text: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join(name);
        fs::write(&path, text).expect("write");
        (folder, path)
    }

    fn listed(source: &dyn Source) -> Vec<(String, Option<i64>, Option<String>)> {
        (0..source.len()).map(|i| (source.name(i), source.label(i), source.caption(i).expect("caption"))).collect()
    }

    fn entry(path: &str, label: Option<i64>, caption: Option<&str>) -> (String, Option<i64>, Option<String>) {
        (path.into(), label, caption.map(Into::into))
    }

    #[test]
    fn tables_and_json_say_the_same() {
        let expected =
            [entry("a.png", Some(1), Some("one, two")), entry("b/ü.png", Some(0), None), entry("c.png", None, None)];
        for (name, text) in [
            ("a.csv", "\u{FEFF}label,File_Name,Caption\ndog,a.png,\"one, two\"\n cat ,b/ü.png,\n,c.png,\n"),
            ("a.TSV", "image\tlabel\ttext\r\na.png\tdog\tone, two\r\nb/ü.png\tcat\t\r\nc.png\t\t\r\n"),
            (
                "a.jsonl",
                "\u{FEFF}{\"file_name\":\"a.png\",\"label\":\"dog\",\"text\":\"one, two\"}\n\n\
                 {\"path\":\"b/ü.png\",\"label\":\"cat\",\"caption\":null,\"more\":[1]}\r\n{\"image\":\"c.png\"}",
            ),
        ] {
            let (_folder, path) = written(name, text);
            let source = open(&path).expect("open");
            assert_eq!(listed(source.as_ref()), expected, "{name}");
            assert_eq!(source.classes().expect("classes"), ["cat", "dog"]);
            assert!(source.has_labels() && source.has_captions());
        }
    }

    #[test]
    fn integer_labels_may_have_gaps_and_paths_stand_alone() {
        let (_folder, path) = written("a.jsonl", "{\"path\":\"a\",\"label\":7}\n{\"path\":\"b\",\"label\":\"2\"}");
        let source = open(&path).expect("open");
        assert_eq!(listed(source.as_ref()), [entry("a", Some(7), None), entry("b", Some(2), None)]);
        assert!(source.classes().is_none() && !source.has_captions());
        let (_folder, path) = written("a.csv", "path\na\nb\n");
        let source = open(&path).expect("open");
        assert!(!source.has_labels() && source.len() == 2);
        assert!(matches!(source.read(2, &ReadOptions::new(3)), Err(Error::Sample { .. })));
        match source.read(0, &ReadOptions::new(3)) {
            Err(Error::Io { path: found, .. }) => assert_eq!(found, path.with_file_name("a")),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn errors_name_file_and_line() {
        for (name, text, place) in [
            ("a.csv", &b"name,label\na,1\n"[..], "a.csv, line 1: "),
            ("a.csv", b"path,label\na,1\nb\n", "a.csv, line 3: "),
            ("a.csv", b"path,label\na,1\n,2\n", "a.csv, line 3: "),
            ("a.csv", b"path,label\na,\xFF\n", "a.csv, line 2: "),
            ("a.csv", b"path,label\na,-5\n", "a.csv: the label -5"),
            ("a.jsonl", b"{\"path\":\"a\"}\n{", "a.jsonl, line 2: "),
            ("a.jsonl", b"{\"path\":3}", "a.jsonl, line 1: "),
            ("a.jsonl", b"{\"name\":\"a\"}", "a.jsonl, line 1: the keys \"name\""),
            ("a.jsonl", b"[]", "a.jsonl, line 1: "),
            ("a.jsonl", b"{\"path\":\"a\",\"label\":1.5}", "a.jsonl, line 1: the label 1.5"),
            ("a.jsonl", b"{\"path\":\"a\",\"caption\":{}}", "a.jsonl, line 1: "),
            ("a.jsonl", b"\xFF\xFE", "a.jsonl, line 1: "),
        ] {
            let (_folder, path) = written(name, text);
            let error = open(&path).err().expect("an error");
            assert!(matches!(error, Error::Listing { .. }) && error.to_string().contains(place), "{error}");
        }
        let (_folder, path) =
            written("a.jsonl", [&b"{\"path\":\"a\"}\n"[..], &vec![b' '; MAX_LINE as usize + 1]].concat());
        let error = open(&path).err().expect("an error");
        assert!(error.to_string().contains("a.jsonl, line 2: more than 16777216 bytes"), "{error}");
        for (name, text) in [("a.csv", ""), ("a.csv", "path\n"), ("a.jsonl", ""), ("a.jsonl", "\n\n")] {
            let (_folder, path) = written(name, text);
            assert!(open(&path).is_err(), "{name} {text:?}");
        }
    }
}
