//! Property lists that come from outside: one dictionary a document, bounded in size and depth.

use super::{bad, shown};
use lib_common::error::{Error, Result};
use plist::stream::{Event, XmlReader};
use plist::{Dictionary, Value};
use std::io::BufRead;

/// How deep collections may be nested; an index needs 5.
const MAX_DEPTH: usize = 16;

/// The dictionary that `input` is. `what`: for errors.
pub(super) fn read(input: impl BufRead, what: &str) -> Result<Dictionary> {
    let mut all = Dictionary::new();
    each(input, what, |key, value| match all.insert(key, value) {
        None => Ok(()),
        Some(_) => Err(twice(what)),
    })?;
    Ok(all)
}

/// Calls `f` for each key of the dictionary that `input` is, in its order, so that no more than one value is in memory.
pub(super) fn each(input: impl BufRead, what: &str, mut f: impl FnMut(String, Value) -> Result<()>) -> Result<()> {
    let mut events = Events { inner: XmlReader::new(input), what };
    if !matches!(events.next()?, Some(Event::StartDictionary(_))) {
        return Err(bad(format!("{} is not a property list with a dictionary", shown(what))));
    }
    while let Some(key) = events.key()? {
        let value = events.value(0)?;
        f(key, value)?;
    }
    match events.next()? {
        None => Ok(()),
        Some(_) => Err(bad(format!("{} has something behind its dictionary", shown(what)))),
    }
}

struct Events<'a, R: BufRead> {
    inner: XmlReader<R>,
    what: &'a str,
}

impl<R: BufRead> Events<'_, R> {
    fn next(&mut self) -> Result<Option<Event<'static>>> {
        let damaged = |e: plist::Error| bad(format!("{} is not a whole property list", shown(self.what))).because(&e);
        self.inner.next().transpose().map_err(damaged)
    }

    /// A dictionary's next key; `None` at its end.
    fn key(&mut self) -> Result<Option<String>> {
        match self.next()? {
            Some(Event::String(key)) => Ok(Some(key.into_owned())),
            Some(Event::EndCollection) => Ok(None),
            _ => Err(self.wrong()),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        let event = self.next()?.ok_or_else(|| self.wrong())?;
        self.value_of(event, depth)
    }

    fn value_of(&mut self, event: Event<'static>, depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            return Err(bad(format!("{} is nested too deep", shown(self.what))));
        }
        Ok(match event {
            Event::StartDictionary(_) => {
                let mut all = Dictionary::new();
                while let Some(key) = self.key()? {
                    let value = self.value(depth + 1)?;
                    if all.insert(key, value).is_some() {
                        return Err(twice(self.what));
                    }
                }
                Value::Dictionary(all)
            }
            Event::StartArray(_) => {
                let mut all = vec![];
                loop {
                    match self.next()?.ok_or_else(|| self.wrong())? {
                        Event::EndCollection => break Value::Array(all),
                        event => all.push(self.value_of(event, depth + 1)?),
                    }
                }
            }
            Event::String(text) => Value::String(text.into_owned()),
            Event::Boolean(value) => Value::Boolean(value),
            Event::Integer(number) => Value::Integer(number),
            Event::Data(bytes) => Value::Data(bytes.into_owned()),
            _ => return Err(self.wrong()),
        })
    }

    fn wrong(&self) -> Error {
        bad(format!("{} is not a property list of xbps", shown(self.what)))
    }
}

fn twice(what: &str) -> Error {
    bad(format!("{} has a key twice", shown(what)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(body: &str) -> Result<Dictionary> {
        read(format!("<?xml version=\"1.0\"?>\n<plist version=\"1.0\">{body}</plist>\n").as_bytes(), "the plist")
    }

    #[test]
    fn dictionaries_are_read_as_they_were_written() {
        let mut inner = Dictionary::new();
        inner.insert(
            "list".into(),
            Value::Array(vec!["a & <b>".into(), Value::Boolean(false), Value::Data(vec![0, 1])]),
        );
        let mut outer = Dictionary::new();
        outer.insert("number".into(), u64::MAX.into());
        outer.insert("inner".into(), inner.into());
        outer.insert("empty".into(), Dictionary::new().into());
        let mut bytes = vec![];
        Value::from(outer.clone()).to_writer_xml(&mut bytes).unwrap();
        assert_eq!(read(&bytes[..], "x").unwrap(), outer);
        for cut in [0, 10, bytes.len() / 2, bytes.len() - 12] {
            let e = read(&bytes[..cut], "the plist").unwrap_err();
            assert!(e.message().contains("the plist"), "{e}");
        }
    }

    #[test]
    fn what_is_no_plain_dictionary_is_refused() {
        let deep = format!("<dict><key>a</key>{}{}</dict>", "<array>".repeat(100_000), "</array>".repeat(100_000));
        for body in [
            "",
            "<array></array>",
            "<dict><key>a</key></dict>",
            "<dict><key>a</key><true/><key>a</key><true/></dict>",
            "<dict><key>a</key><dict><key>b</key><true/><key>b</key><true/></dict></dict>",
            "<dict><key>a</key><real>1</real></dict>",
            "<dict><key>a</key><true/>",
            "<dict></dict><dict></dict>",
            "<dict><true/><true/></dict>",
            &deep,
        ] {
            assert!(read_text(body).is_err(), "{:.60}", body);
        }
    }
}
