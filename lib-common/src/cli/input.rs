//! Where a filter's document comes from: a NAME in the store, `--file PATH`, or stdin, in that order.

use super::Context;
use crate::doc::{Document, Kind, MAX_BYTES, Name};
use crate::error::{Code, Error, Result};
use crate::sys::plain;
use std::io::Read;
use std::path::PathBuf;

/// The longest list of documents that is read from stdin, in bytes: some ten thousands, which take a few times as much.
const MAX_LIST_BYTES: usize = 8 * MAX_BYTES;

/// Where a document was asked to come from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// A name in the store.
    pub name: Option<Name>,
    /// A file.
    pub file: Option<PathBuf>,
}

impl Context<'_> {
    /// The one document that a filter works on. Stdin is touched only when neither a name nor a file was given, and is
    /// read to its end before anything else happens.
    pub fn document(&mut self, source: &Source, kind: Kind) -> Result<Document> {
        if let Some(name) = &source.name {
            let store = self.store();
            return match kind {
                Kind::Image => store.image(name),
                Kind::Machine => store.machine(name).and_then(|m| m.document()),
            };
        }
        self.stages.begin("input");
        let bytes = match &source.file {
            Some(path) => {
                let file = plain::named(path).map_err(|e| match e.code() {
                    Code::BadInput => e.hint("give a document that is no file on stdin, without --file"),
                    _ => e,
                })?;
                read_capped(file).map_err(|e| Error::io("read", path, &e))?
            }
            None => self.read_stdin(kind)?,
        };
        Document::parse(&bytes, kind)
    }

    /// Stdin to its end: at most [`MAX_BYTES`] and one more, which `Document::parse` then refuses.
    fn read_stdin(&mut self, kind: Kind) -> Result<Vec<u8>> {
        if self.stdin_is_terminal {
            let what = kind.as_str();
            let message = format!("a document of kind `{what}` is needed on stdin, and stdin is a terminal");
            return Err(
                Error::new(Code::Usage, message).hint("give a NAME or --file PATH, or put this tool behind a pipe")
            );
        }
        let bytes = read_capped(&mut self.stdin).map_err(|e| stdin_error(&e))?;
        if bytes.len() <= MAX_BYTES && bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(Error::new(Code::EmptyStdin, "stdin was empty: the tool upstream failed"));
        }
        Ok(bytes)
    }

    /// Stdin as lines of JSON, for filters of lists; no lines are an empty list.
    pub fn lines(&mut self) -> Result<Vec<String>> {
        if self.stdin_is_terminal {
            let error = Error::new(Code::Usage, "a list of documents is needed on stdin, and stdin is a terminal");
            return Err(error.hint("put this tool behind a pipe"));
        }
        self.stages.begin("input");
        let limit = MAX_LIST_BYTES as u64;
        let mut text = String::new();
        let read = (&mut self.stdin).take(limit + 1).read_to_string(&mut text);
        read.map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData => Error::new(Code::BadDocument, "stdin is not UTF-8"),
            _ => stdin_error(&e),
        })?;
        if text.len() as u64 > limit {
            let error = Error::new(Code::BadDocument, format!("the list is larger than {}", crate::size::bytes(limit)));
            return Err(error.hint("give it in parts: `head -n 10000` in front of this tool"));
        }
        Ok(text.lines().filter(|l| !l.trim().is_empty()).map(str::to_owned).collect())
    }
}

fn stdin_error(e: &std::io::Error) -> Error {
    match crate::sys::signal::check() {
        Err(interrupted) => interrupted,
        Ok(()) => Error::new(Code::Io, "cannot read stdin").because(e),
    }
}

fn read_capped(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![];
    from.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
