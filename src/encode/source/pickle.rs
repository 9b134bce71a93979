//! As much of Python's pickles as CIFAR's batches use.
//!
//! Nothing that a pickle names is ever looked up or run: an object is what it was to be made of. Values lie in one list
//! and refer to each other by number, so that a hostile file can neither nest deep nor multiply what it holds, and the
//! steps are limited. (The opcodes: Python's Lib/pickletools.py.)

use std::collections::HashMap;
use std::ops::Range;

/// The first byte of a pickle of protocol 2 and later.
pub(super) const PROTO: u8 = 0x80;

/// The most opcodes, each of which may take some 100 bytes of memory; the larger of CIFAR's files has some 300,000.
const MAX_STEPS: usize = 1 << 20;

/// A dictionary that was pickled.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    bytes: &'a [u8],
    values: Vec<Value>,
    root: usize,
}

#[derive(Debug)]
enum Value {
    /// None, a truth value, the name of a class or function.
    Other,
    Int(i64),
    /// Text or bytes: where they are in the file.
    Bytes(Range<usize>),
    /// A list or tuple.
    List(Vec<usize>),
    Dict(Vec<(usize, usize)>),
    /// What an object is made of.
    Object(usize),
}

impl<'a> Pickle<'a> {
    /// Reads a pickle; the error says what was found.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let mut machine =
            Machine { bytes, at: 0, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
        for _ in 0..MAX_STEPS {
            let at = machine.at;
            match machine.step() {
                Some(Step::On) => (),
                Some(Step::Stop(root)) => return Ok(Self { bytes, values: machine.values, root }),
                None if at >= bytes.len() => return Err("a pickle that ends too early".into()),
                None => return Err(format!("the opcode 0x{:02x} at byte {at} of a pickle", bytes[at])),
            }
        }
        Err(format!("a pickle of more than {MAX_STEPS} opcodes"))
    }

    fn get(&self, key: &str) -> Option<&Value> {
        let Value::Dict(entries) = &self.values[self.root] else { return None };
        let named = |&&(name, _): &&(usize, usize)| match &self.values[name] {
            Value::Bytes(place) => self.bytes[place.clone()] == *key.as_bytes(),
            _ => false,
        };
        entries.iter().find(named).map(|&(_, value)| &self.values[value])
    }

    /// The integers listed under a key.
    pub fn integers(&self, key: &str) -> Option<Vec<i64>> {
        let Value::List(items) = self.get(key)? else { return None };
        let integer = |&item: &usize| if let Value::Int(integer) = self.values[item] { Some(integer) } else { None };
        items.iter().map(integer).collect()
    }

    /// The texts listed under a key.
    pub fn texts(&self, key: &str) -> Option<Vec<String>> {
        let Value::List(items) = self.get(key)? else { return None };
        let text = |&item: &usize| match &self.values[item] {
            Value::Bytes(place) => Some(String::from_utf8_lossy(&self.bytes[place.clone()]).into_owned()),
            _ => None,
        };
        items.iter().map(text).collect()
    }

    /// Where in the file so many bytes under a key lie, bare or within an array.
    pub fn bytes_of(&self, key: &str, len: usize) -> Option<usize> {
        let place = |value: &Value| match value {
            Value::Bytes(place) if place.len() == len => Some(place.start),
            _ => None,
        };
        match self.get(key)? {
            Value::Object(parts) => match &self.values[*parts] {
                Value::List(parts) => parts.iter().find_map(|&part| place(&self.values[part])),
                part => place(part),
            },
            value => place(value),
        }
    }
}

enum Step {
    On,
    Stop(usize),
}

/// The stack machine of pickles. Numbers are places in `values`.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<usize>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, usize>,
}

impl Machine<'_> {
    /// Does what the next opcode says; `None` if it cannot be.
    fn step(&mut self) -> Option<Step> {
        match self.number(1)? as u8 {
            // PROTO, FRAME
            0x80 => _ = self.number(1)?,
            0x95 => _ = self.number(8)?,
            b'.' => return Some(Step::Stop(self.stack.pop()?)),
            b'(' => self.marks.push(self.stack.len()),
            // None, True, False
            b'N' | 0x88 | 0x89 => self.push(Value::Other),
            b'K' => self.integer(1)?,
            b'M' => self.integer(2)?,
            b'J' => {
                let number = self.number(4)? as u32 as i32;
                self.push(Value::Int(number.into()));
            }
            // Text and bytes, by the width of their length.
            b'U' | b'C' | 0x8C => self.text(1)?,
            b'T' | b'B' | b'X' => self.text(4)?,
            0x8D | 0x8E | 0x96 => self.text(8)?,
            b']' | b')' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b't' => {
                let items = self.cut_at_mark()?;
                self.push(Value::List(items));
            }
            count @ 0x85..=0x87 => {
                let items = self.stack.split_off(self.above_mark(count as usize - 0x84)?);
                self.push(Value::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.list()?.push(item);
            }
            b'e' => {
                let items = self.cut_at_mark()?;
                self.list()?.extend(items);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.dict()?.push((key, value));
            }
            b'u' => {
                let items = self.cut_at_mark()?;
                let (pairs, []) = items.as_chunks::<2>() else { return None };
                self.dict()?.extend(pairs.iter().map(|&[key, value]| (key, value)));
            }
            // The memo: put, get, put under the next number.
            b'q' => self.put(1)?,
            b'r' => self.put(4)?,
            b'h' => self.get(1)?,
            b'j' => self.get(4)?,
            0x94 => _ = self.memo.insert(self.memo.len() as u64, *self.stack.last()?),
            // Classes and functions: by two lines, or by two texts.
            b'c' => {
                self.skip_line()?;
                self.skip_line()?;
                self.push(Value::Other);
            }
            0x93 => {
                self.pop()?;
                self.pop()?;
                self.push(Value::Other);
            }
            // An object: made from arguments, then given a state.
            b'R' | b'b' => {
                let (parts, _) = (self.pop()?, self.pop()?);
                self.push(Value::Object(parts));
            }
            _ => return None,
        }
        Some(Step::On)
    }

    fn take(&mut self, len: usize) -> Option<Range<usize>> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len())?;
        let place = self.at..end;
        self.at = end;
        Some(place)
    }

    /// An unsigned little-endian number of so many bytes.
    fn number(&mut self, width: usize) -> Option<u64> {
        let place = self.take(width)?;
        Some(self.bytes[place].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn integer(&mut self, width: usize) -> Option<()> {
        let number = self.number(width)?;
        self.push(Value::Int(number as i64));
        Some(())
    }

    fn text(&mut self, width: usize) -> Option<()> {
        let len = self.number(width)?.try_into().ok()?;
        let place = self.take(len)?;
        self.push(Value::Bytes(place));
        Some(())
    }

    fn skip_line(&mut self) -> Option<()> {
        self.at += 1 + self.bytes[self.at..].iter().position(|&byte| byte == b'\n')?;
        Some(())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    /// The height of the stack without so many values, which must lie above the last mark.
    fn above_mark(&self, count: usize) -> Option<usize> {
        self.stack.len().checked_sub(count).filter(|height| self.marks.last().is_none_or(|mark| mark <= height))
    }

    fn pop(&mut self) -> Option<usize> {
        self.above_mark(1)?;
        self.stack.pop()
    }

    fn cut_at_mark(&mut self) -> Option<Vec<usize>> {
        let mark = self.marks.pop()?;
        Some(self.stack.split_off(mark))
    }

    fn list(&mut self) -> Option<&mut Vec<usize>> {
        match &mut self.values[*self.stack.last()?] {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    fn dict(&mut self) -> Option<&mut Vec<(usize, usize)>> {
        match &mut self.values[*self.stack.last()?] {
            Value::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    fn put(&mut self, width: usize) -> Option<()> {
        let key = self.number(width)?;
        self.memo.insert(key, *self.stack.last()?);
        Some(())
    }

    fn get(&mut self, width: usize) -> Option<()> {
        let key = self.number(width)?;
        self.stack.push(*self.memo.get(&key)?);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python 2 wrote: {'labels': [6, 300], 'data': array([[1, 2, 3], [4, 5, 6]], dtype=uint8)}.
    const PYTHON_2: &[u8] = b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06M\x2C\x01eU\x04dataq\x04\
        cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07\
        (K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09\
        (K\x03U\x01|NNNJ\xFF\xFF\xFF\xFFJ\xFF\xFF\xFF\xFFK\x00tb\x89U\x06\x01\x02\x03\x04\x05\x06tbu.";

    #[test]
    fn arrays_and_lists_are_found() {
        let pickle = Pickle::parse(PYTHON_2).expect("a pickle");
        assert_eq!(pickle.integers("labels"), Some(vec![6, 300]));
        let start = pickle.bytes_of("data", 6).expect("data");
        assert_eq!(PYTHON_2[start..][..6], [1, 2, 3, 4, 5, 6]);
        assert!(pickle.bytes_of("data", 7).is_none() && pickle.bytes_of("labels", 2).is_none());
        assert!(pickle.integers("data").is_none() && pickle.texts("labels").is_none() && pickle.texts("no").is_none());
    }

    #[test]
    fn no_damage_is_more_than_an_error() {
        for len in 0..PYTHON_2.len() {
            assert!(Pickle::parse(&PYTHON_2[..len]).is_err(), "{len}");
        }
        for place in 0..PYTHON_2.len() {
            for byte in 0..=255 {
                let mut damaged = PYTHON_2.to_vec();
                damaged[place] = byte;
                if let Ok(pickle) = Pickle::parse(&damaged) {
                    _ = (pickle.integers("labels"), pickle.texts("labels"), pickle.bytes_of("data", 6));
                }
            }
        }
    }

    #[test]
    fn hostile_pickles_do_nothing() {
        // os.system("exit"), which is named and not run.
        let pickle = Pickle::parse(b"\x80\x02cos\nsystem\nU\x04exit\x85R.").expect("a pickle");
        assert!(pickle.get("data").is_none());
        // Tuples a million deep, lists of lists that would be 2^1000 values, one that holds itself, a length of 2^64 - 1.
        let deep = [&b"\x80\x02)"[..], &[0x85; 1_000_000], b"."].concat();
        let wide = [&b"\x80\x02]q\x00"[..], &b"]q\x00(h\x00h\x00e"[..].repeat(1000), b"."].concat();
        for bytes in [&deep[..], &wide, b"\x80\x02]q\x00h\x00a."] {
            assert!(Pickle::parse(bytes).is_ok());
        }
        let endless = [&b"\x80\x02"[..], &[b'N'; MAX_STEPS]].concat();
        let all_ones = b"\x80\x04\x8E\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF";
        for bytes in
            [&endless[..], all_ones, b"\x80\x02(R.", b".", b"\x80\x02e", b"\x80\x02(K\x01u.", b"\x80\x02c", b"(t"]
        {
            assert!(Pickle::parse(bytes).is_err());
        }
    }
}
