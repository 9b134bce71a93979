//! Folders of images.

use std::io;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::{Source, is_hidden, is_image};
use crate::encode::picture::{Image, ReadOptions};
use crate::error::{Error, Result};

/// A folder of images: one folder per class (torchvision's ImageFolder), or images alone.
///
/// Class folders in the order of their names' bytes give the labels 0, 1, ...; all images below one belong to it,
/// in the order of their paths' bytes. Images are files that end in .jpg, .jpeg, .png, .webp or .bmp in any case.
/// Other files, hidden files and folders (a name that starts with a dot), class folders without images and
/// symbolic links back to a folder above are passed over.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
    images: Vec<(PathBuf, Option<i64>)>,
    classes: Option<Vec<String>>,
}

impl Folder {
    /// Lists a folder.
    ///
    /// # Errors
    /// [`Error::Io`] if a folder cannot be read, [`Error::NoImages`] if there are none, [`Error::MixedFolder`] if
    /// there are images both beside class folders and in them.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let root = path.as_ref().to_path_buf();
        let paths = images_below(&root)?;
        let mut classes: Vec<String> = Vec::new();
        let mut last_class = None;
        let mut images = Vec::with_capacity(paths.len());
        let mut flat = None;
        for path in paths {
            let class = path.strip_prefix(&root).ok().and_then(|below| {
                let mut parts = below.components();
                parts.next().filter(|_| parts.next().is_some()).map(|class| class.as_os_str().to_os_string())
            });
            let Some(class) = class else {
                flat.get_or_insert_with(|| path.clone());
                images.push((path, None));
                continue;
            };
            if last_class.as_ref() != Some(&class) {
                classes.push(class.to_string_lossy().into_owned());
                last_class = Some(class);
            }
            images.push((path, Some(classes.len() as i64 - 1)));
        }
        match (images.is_empty(), flat) {
            (true, _) => Err(Error::NoImages { path: root }),
            (false, Some(example)) if !classes.is_empty() => Err(Error::MixedFolder { path: root, example }),
            _ => Ok(Self { root, images, classes: (!classes.is_empty()).then_some(classes) }),
        }
    }

    /// The path of an image.
    pub fn path(&self, index: usize) -> Option<&Path> {
        self.images.get(index).map(|(path, _)| path.as_path())
    }
}

impl Source for Folder {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn name(&self, index: usize) -> String {
        let path = self.path(index).unwrap_or(&self.root);
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }

    fn read(&self, index: usize, options: &ReadOptions) -> Result<Image> {
        let (path, _) = self.images.get(index).ok_or(Error::Sample { sample: index, samples: self.images.len() })?;
        Image::decode(path, options)
    }

    fn files(&self) -> Box<dyn Iterator<Item = PathBuf> + '_> {
        Box::new(self.images.iter().map(|(path, _)| path.clone()))
    }

    fn has_labels(&self) -> bool {
        self.classes.is_some()
    }

    fn label(&self, index: usize) -> Option<i64> {
        self.images.get(index).and_then(|(_, label)| *label)
    }

    fn classes(&self) -> Option<Vec<String>> {
        self.classes.clone()
    }
}

/// The paths of all images below a folder: by the bytes of the folder's or file's name in `root`, then by those of
/// the rest of the path.
fn images_below(root: &Path) -> Result<Vec<PathBuf>> {
    let shown = |entry: &DirEntry| entry.depth() == 0 || !is_hidden(entry.path());
    let mut paths = Vec::new();
    if !std::fs::metadata(root).map_err(Error::io("read the folder", root))?.is_dir() {
        let source = io::Error::from(io::ErrorKind::NotADirectory);
        return Err(Error::Io { action: "read the folder", path: root.into(), source });
    }
    for entry in WalkDir::new(root).follow_links(true).into_iter().filter_entry(shown) {
        match entry {
            Ok(entry) if entry.file_type().is_file() && is_image(entry.path()) => paths.push(entry.into_path()),
            Ok(_) => (),
            Err(error) if error.loop_ancestor().is_some() => (),
            Err(error) => {
                let path = error.path().unwrap_or(root).to_path_buf();
                let is_link = std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink());
                match is_link {
                    // A link to nowhere: reading it says so, if its name says that it should be an image.
                    true if is_image(&path) && !is_hidden(&path) => paths.push(path),
                    true => (),
                    false => return Err(Error::Io { action: "read", path, source: error.into() }),
                }
            }
        }
    }
    paths.sort_by(|a, b| sort_key(root, a).cmp(&sort_key(root, b)));
    Ok(paths)
}

/// The name in `root` and the rest of the path, both as bytes.
fn sort_key<'a>(root: &Path, path: &'a Path) -> (&'a [u8], &'a [u8]) {
    let below = path.strip_prefix(root).unwrap_or(path);
    let mut parts = below.components();
    let first = parts.next().map_or(&[][..], |part| part.as_os_str().as_encoded_bytes());
    (first, parts.as_path().as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder_of(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("tempdir");
        for name in names {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            fs::write(path, "").expect("write");
        }
        folder
    }

    fn listed(folder: &Folder) -> Vec<(String, Option<i64>)> {
        (0..folder.len()).map(|i| (folder.name(i).replace('\\', "/"), folder.label(i))).collect()
    }

    #[test]
    fn class_folders_give_labels_in_the_order_of_their_names() {
        let folder = folder_of(&[
            "b/2.PNG",
            "b/10.jpg",
            "b/deep/1.jpeg",
            "a.b/x.webp",
            "a/x.bmp",
            "B/x.png",
            "empty/readme.txt",
            "notes.txt",
            ".hidden/x.png",
            "a/.x.png",
            "a/x.gif",
            "a/png",
        ]);
        let folder = Folder::open(folder.path()).expect("open");
        assert_eq!(folder.classes().expect("classes"), ["B", "a", "a.b", "b"]);
        let expected =
            [("B/x.png", 0), ("a/x.bmp", 1), ("a.b/x.webp", 2), ("b/10.jpg", 3), ("b/2.PNG", 3), ("b/deep/1.jpeg", 3)];
        assert_eq!(listed(&folder), expected.map(|(name, label)| (name.to_string(), Some(label))));
        assert!(folder.has_labels());
    }

    #[test]
    fn flat_folders_have_no_labels() {
        let folder = folder_of(&["2.png", "10.jpg", "docs/readme.txt"]);
        let folder = Folder::open(folder.path()).expect("open");
        assert_eq!(listed(&folder), [("10.jpg".to_string(), None), ("2.png".to_string(), None)]);
        assert!(folder.classes().is_none() && !folder.has_labels());
    }

    #[test]
    fn folders_that_cannot_be_used_say_why() {
        let folder = folder_of(&["a/1.png", "2.png"]);
        let mixed = Folder::open(folder.path());
        assert!(matches!(mixed, Err(Error::MixedFolder { example, .. }) if example.ends_with("2.png")));
        let none = Folder::open(folder_of(&["a/1.txt"]).path());
        assert!(matches!(none, Err(Error::NoImages { .. })));
        assert!(matches!(Folder::open(folder.path().join("no")), Err(Error::Io { .. })));
        assert!(matches!(Folder::open(folder.path().join("2.png")), Err(Error::Io { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_not_round_in_circles() {
        use std::os::unix::fs::symlink;
        let folder = folder_of(&["a/1.png"]);
        symlink(folder.path(), folder.path().join("a/loop")).expect("link");
        symlink(folder.path().join("a/1.png"), folder.path().join("a/2.png")).expect("link");
        symlink("nowhere", folder.path().join("a/3.png")).expect("link");
        symlink("nowhere", folder.path().join("a/nothing")).expect("link");
        let folder = Folder::open(folder.path()).expect("open");
        assert_eq!(
            listed(&folder).into_iter().map(|(name, _)| name).collect::<Vec<_>>(),
            ["a/1.png", "a/2.png", "a/3.png"]
        );
        assert!(matches!(folder.read(2, &ReadOptions::new(3)), Err(Error::Io { .. })));
    }
}
