//! Labels as sources write them, and their names.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::Value;

use super::Source;
use crate::encode::picture::{Image, ReadOptions};
use crate::error::{Error, Result};

/// Labels that are written as text: integers, or names of classes.
#[derive(Debug, Default)]
pub(super) struct Column {
    texts: Vec<String>,
    ids: HashMap<String, u32>,
    /// For each sample its text.
    samples: Vec<Option<u32>>,
}

impl Column {
    pub fn push(&mut self, text: Option<&str>) {
        let id = text.map(|text| match self.ids.get(text) {
            Some(&id) => id,
            None => {
                let id = self.texts.len() as u32;
                self.texts.push(text.into());
                self.ids.insert(text.into(), id);
                id
            }
        });
        self.samples.push(id);
    }

    /// The labels, if any sample has one. If all are integers these are they, -1 for none; otherwise they are names,
    /// which in the order of their bytes stand for 0, 1, ...
    pub fn finish(self) -> std::result::Result<Labels, String> {
        if self.texts.is_empty() {
            return Ok(Labels::default());
        }
        let integers: Option<Vec<i64>> = self.texts.iter().map(|text| text.parse().ok()).collect();
        let (numbers, classes) = match integers {
            Some(numbers) => {
                if let Some(wrong) = numbers.iter().find(|&&number| number < -1) {
                    return Err(format!("the label {wrong}"));
                }
                (numbers, None)
            }
            None => {
                let mut names = self.texts.clone();
                names.sort_unstable();
                let place = |text: &String| names.partition_point(|name| name < text) as i64;
                (self.texts.iter().map(place).collect(), Some(names))
            }
        };
        let number = |id: Option<u32>| id.map_or(-1, |id| numbers[id as usize]);
        Ok(Labels { numbers: Some(self.samples.into_iter().map(number).collect()), classes })
    }
}

/// The labels of a source.
#[derive(Debug, Clone, Default)]
pub(super) struct Labels {
    /// One for each sample, -1 for none; `None` if there are none at all.
    pub numbers: Option<Vec<i64>>,
    /// The names of 0, 1, ...
    pub classes: Option<Vec<String>>,
}

impl Labels {
    pub fn get(&self, index: usize) -> Option<i64> {
        self.numbers.as_ref()?.get(index).copied().filter(|&label| label != -1)
    }
}

/// What was found, and what was expected.
pub(super) type Wrong = (String, &'static str);

/// The label of a JSON object as text, and its caption.
pub(super) fn of_json(object: &Value) -> std::result::Result<(Option<String>, Option<String>), Wrong> {
    let field = |names: &[&str]| names.iter().find_map(|name| object.get(name)).filter(|value| !value.is_null());
    let label = match field(&["label"]) {
        None => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) if number.is_i64() => Some(number.to_string()),
        Some(other) => return Err((format!("the label {other}"), "an integer or the name of a class")),
    };
    let caption = match field(&["caption", "text"]) {
        None => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => return Err((format!("the caption {other}"), "text")),
    };
    Ok((label, caption))
}

/// A source whose labels 0, 1, ... go by these names, instead of its own if it has any.
///
/// # Errors
/// [`Error::Argument`] if there are no labels, the names are not as many as the source's, or too few for its labels.
pub fn with_classes(source: Box<dyn Source>, names: Vec<String>) -> Result<Box<dyn Source>> {
    let found = format!("{} names", names.len());
    let wrong = |expected: String| Err(Error::Argument { argument: "classes", found, expected });
    if !source.has_labels() {
        return wrong("none, as the source has no labels".into());
    }
    if let Some(classes) = source.classes() {
        if classes.len() != names.len() {
            return wrong(format!("{}, one for each class", classes.len()));
        }
    } else if let Some(greatest) = (0..source.len()).filter_map(|index| source.label(index)).max()
        && greatest >= names.len() as i64
    {
        return wrong(format!("at least {}, as there is the label {greatest}", greatest as i128 + 1));
    }
    Ok(Box::new(Renamed { source, names }))
}

struct Renamed {
    source: Box<dyn Source>,
    names: Vec<String>,
}

impl Source for Renamed {
    fn len(&self) -> usize {
        self.source.len()
    }

    fn name(&self, index: usize) -> String {
        self.source.name(index)
    }

    fn read(&self, index: usize, options: &ReadOptions) -> Result<Image> {
        self.source.read(index, options)
    }

    fn files(&self) -> Box<dyn Iterator<Item = PathBuf> + '_> {
        self.source.files()
    }

    fn has_labels(&self) -> bool {
        self.source.has_labels()
    }

    fn label(&self, index: usize) -> Option<i64> {
        self.source.label(index)
    }

    fn classes(&self) -> Option<Vec<String>> {
        Some(self.names.clone())
    }

    fn has_captions(&self) -> bool {
        self.source.has_captions()
    }

    fn caption(&self, index: usize) -> Result<Option<String>> {
        self.source.caption(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(texts: &[&str]) -> std::result::Result<Labels, String> {
        let mut column = Column::default();
        texts.iter().for_each(|&text| column.push(Some(text).filter(|text| !text.is_empty())));
        column.finish()
    }

    #[test]
    fn integers_stay_and_names_are_sorted_by_their_bytes() {
        let integers = labels(&["7", "", "0", "-1"]).expect("labels");
        assert_eq!((integers.numbers, integers.classes), (Some(vec![7, -1, 0, -1]), None));
        let names = labels(&["dog", "", "Cat", "7", "dog"]).expect("labels");
        assert_eq!(names.numbers, Some(vec![2, -1, 1, 0, 2]));
        assert_eq!(names.classes.as_ref().expect("classes"), &["7", "Cat", "dog"]);
        assert_eq!((names.get(0), names.get(1), names.get(9)), (Some(2), None, None));
        assert!(labels(&["", ""]).expect("labels").numbers.is_none());
        assert!(labels(&["1", "-2"]).expect_err("negative").contains("-2"));
    }
}
