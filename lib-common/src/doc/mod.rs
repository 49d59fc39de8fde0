//! The wire types: what travels through pipes and lies in the store. No I/O.
//!
//! A document is one line of JSON: `{"api_version":"banger/v1","kind":"Image","name":"debian",…}`. A [`Document`]
//! keeps the sections of others as the bytes it got and gives typed, strict access to single ones.

mod bench;
mod boot;
mod bundle;
mod configure;
mod error;
mod finding;
mod health;
mod identity;
mod image;
mod image_diff;
mod journal;
mod listeners;
mod machine;
mod net;
mod report;
mod secret;
mod setting;
mod shim;
mod types;

pub use bench::{Bar, Bench, BenchDiff, BenchHost, Comparison, Figure, Measure, MeasureDiff, Unit};
pub use boot::{Boot, BootClock, Moment};
pub use bundle::{Bundle, BundlePart, BundleVersions};
pub use configure::{
    CONFIGURE_DIR, CONFIGURE_OUTPUT, CONFIGURE_PORT, ConfigureAction, ConfigureBegins, ConfigureDone, ConfigureLine,
    Configured,
};
pub use error::{ChildDoc, ErrorDoc};
pub use finding::Finding;
pub use health::{Health, HealthStatus};
pub use identity::{
    HEALTH_PORT, Host, IDENTITY_PATH, Identity, IdentityNet, MODULES_AT, MODULES_DIR, MODULES_LIST, PROXY_PORT,
    SSH_PORT, SecondDisk, UP_PORT,
};
pub use image::{
    Build, BuildStep, BuildStepKind, FileFacts, Image, Kernel, ManifestEntry, PlanEntry, Registered, Rootfs, Seed,
    SeedSize, Timing,
};
pub use image_diff::{Change, ImageDiff, PackageChange, PackageDiff, SizeDiff};
pub use journal::{JournalLine, ProcessDoc, ShimState, Undo};
pub use listeners::{Listener, Listeners, PortInfo, Protocol};
pub use machine::{
    Accel, CloneMethod, Disk, Disks, ExitInfo, Guest, ImageRef, Machine, Paused, Spec, State, Stats, Status, Vmm,
    VmmChoice, VmmKind,
};
pub use net::{Net, Network, NetworkRecord, PoolCount, TapInfo, Uplink};
pub use report::{Check, Report};
pub use secret::Secret;
pub use setting::Setting;
pub use shim::{Launch, LaunchDisk, LaunchNet, ShimReply};
pub use types::{AbsPath, Cidr, Digest, KernelArgs, Mac, Name, RelPath};

use crate::error::{Code, Error, Result};
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::marker::PhantomData;

/// The version that this suite writes, and the only one it reads.
pub const API_VERSION: &str = "banger/v1";

/// The largest document that is read from stdin, a file or the store, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// How many names an error lists.
const NAMES_SHOWN: usize = 5;

/// Which of the two piped documents this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A kernel, a root file system and what belongs to them.
    Image,
    /// A VM.
    Machine,
}

impl Kind {
    /// The word in `kind`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Image => "Image",
            Kind::Machine => "Machine",
        }
    }
}

/// A section of a document that has one type and one owner.
pub trait Section: Serialize + DeserializeOwned {
    /// Its key at the top level.
    const NAME: &'static str;
    /// The tool that writes it, for hints.
    const OWNER: &'static str;
}

/// A document: its top-level keys in order, each value as the bytes that were read.
#[derive(Clone, Debug)]
pub struct Document {
    entries: Vec<(String, Box<RawValue>)>,
}

impl Document {
    /// A new document with `api_version`, `kind` and `name`.
    pub fn new(kind: Kind, name: &Name) -> Self {
        let mut doc = Document { entries: vec![] };
        doc.put("api_version", &API_VERSION);
        doc.put("kind", &kind.as_str());
        doc.put("name", name);
        doc
    }

    /// A new document that has no name yet (an image before `bg-register`).
    pub fn unnamed(kind: Kind) -> Self {
        let mut doc = Document { entries: vec![] };
        doc.put("api_version", &API_VERSION);
        doc.put("kind", &kind.as_str());
        doc
    }

    /// Reads one document: an object, nothing after it, at most [`MAX_BYTES`], of a known version and of `kind`.
    pub fn parse(bytes: &[u8], kind: Kind) -> Result<Self> {
        let doc = Self::parse_any(bytes)?;
        match doc.string("kind")?.as_deref() {
            Some(found) if found == kind.as_str() => Ok(doc),
            Some(found) => Err(bad(format!("this is a document of kind `{found}`, and `{}` is needed", kind.as_str()))),
            None => Err(bad("the document has no `kind`")),
        }
    }

    /// Reads one document of any kind, with a known `api_version`. Where it has a name, that is one.
    pub fn parse_any(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_BYTES {
            return Err(bad(format!("the document is larger than {}", crate::size::bytes(MAX_BYTES as u64))));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| bad("the document is not UTF-8").because(&e))?;
        let doc: Document = serde_json::from_str(text).map_err(|e| match e.classify() {
            serde_json::error::Category::Eof => bad("the document ends too early").because(&e),
            _ => several(text).unwrap_or_else(|| bad("this is not a document").because(&e)),
        })?;
        match doc.string("api_version")?.as_deref() {
            Some(API_VERSION) => match doc.has("name") {
                true => doc.name().map(|_| doc),
                false => Ok(doc),
            },
            Some(other) => Err(bad(format!("unknown api_version `{other}`; known: `{API_VERSION}`"))),
            None => Err(bad("the document has no `api_version`")),
        }
    }

    /// The name, checked.
    pub fn name(&self) -> Result<Name> {
        match self.string("name")? {
            Some(name) => Name::parse(&name).map_err(|e| e.with_code(Code::BadDocument).within("`name` is not one")),
            None => Err(bad("the document has no `name`")),
        }
    }

    /// Gives the document a name.
    pub fn set_name(&mut self, name: &Name) {
        self.put("name", name);
    }

    /// The section `T`, or `None` where there is none. An unknown, doubled or mistyped field is an error that names it.
    pub fn section<T: Section>(&self) -> Result<Option<T>> {
        let Some((_, raw)) = self.entries.iter().find(|(k, _)| k == T::NAME) else { return Ok(None) };
        strict(raw.get()).map(Some).map_err(|e| e.within(format!("the section `{}` is not as it should be", T::NAME)))
    }

    /// The section `T`; without it an error says which tool writes it.
    pub fn require<T: Section>(&self) -> Result<T> {
        self.section()?.ok_or_else(|| {
            bad(format!("the document has no section `{}`", T::NAME)).hint(format!("`{}` writes it", T::OWNER))
        })
    }

    /// Whether the document has a section of that name.
    pub fn has(&self, section: &str) -> bool {
        self.entries.iter().any(|(k, _)| k == section)
    }

    /// Adds or replaces the section `T`, at the place where it stood; `timings` stay last.
    pub fn set<T: Section>(&mut self, section: &T) {
        self.put(T::NAME, section);
    }

    /// Sets a plain string at the top level.
    pub fn set_string(&mut self, key: &str, value: &str) {
        self.put(key, value);
    }

    /// Takes a section out.
    pub fn remove(&mut self, section: &str) {
        self.entries.retain(|(k, _)| k != section);
    }

    /// Takes over these sections as `other` has them, byte for byte; those that it does not have are taken out.
    pub fn adopt(&mut self, other: &Document, sections: &[&str]) {
        for section in sections {
            match other.entries.iter().find(|(k, _)| k == section) {
                Some((_, raw)) => self.put(section, raw),
                None => self.remove(section),
            }
        }
    }

    /// Appends to `timings`, keeping what is there byte for byte.
    pub fn append_timings(&mut self, new: &[Timing]) -> Result<()> {
        self.extend_timings(new.iter().map(to_raw).collect())
    }

    /// Appends the `timings` of another document.
    pub fn append_timings_of(&mut self, other: &Document) -> Result<()> {
        self.extend_timings(other.timings()?)
    }

    /// Replaces what `tool` has in `timings` by `new`, at their end. The rest stays byte for byte.
    pub fn replace_timings(&mut self, tool: &str, new: &[Timing]) -> Result<()> {
        self.replace_raw_timings(tool, new.iter().map(to_raw).collect())
    }

    /// Replaces what `tool` has in `timings` by what it has in those of `other`.
    pub fn adopt_timings(&mut self, other: &Document, tool: &str) -> Result<()> {
        let theirs = other.timings()?.into_iter().filter(|timing| is_of(tool, timing)).collect();
        self.replace_raw_timings(tool, theirs)
    }

    fn replace_raw_timings(&mut self, tool: &str, new: Vec<Box<RawValue>>) -> Result<()> {
        if new.is_empty() && !self.may_have_timings_of(tool) {
            return Ok(());
        }
        let mut all = self.timings()?;
        let before = all.len();
        all.retain(|timing| !is_of(tool, timing));
        if !new.is_empty() || all.len() < before {
            all.extend(new);
            self.put("timings", &all);
        }
        Ok(())
    }

    /// Whether `timings` could have entries of that tool, by their text: a list that has none need not be taken apart. An
    /// escape could spell the name, and what is no list is an error that must be told.
    fn may_have_timings_of(&self, tool: &str) -> bool {
        self.entries.iter().find(|(k, _)| k == "timings").is_some_and(|(_, raw)| {
            let text = raw.get();
            !text.starts_with('[') || text.as_bytes().contains(&b'\\') || text.contains(&format!("\"{tool}\""))
        })
    }

    fn extend_timings(&mut self, new: Vec<Box<RawValue>>) -> Result<()> {
        let mut all = self.timings()?;
        all.extend(new);
        self.put("timings", &all);
        Ok(())
    }

    /// The stages that every tool took, as they were written.
    pub(crate) fn timings(&self) -> Result<Vec<Box<RawValue>>> {
        match self.entries.iter().find(|(k, _)| k == "timings") {
            Some((_, raw)) => serde_json::from_str(raw.get()).map_err(|e| bad("`timings` is not a list").because(&e)),
            None => Ok(vec![]),
        }
    }

    /// The document as one line, without a line feed at its end.
    pub fn to_line(&self) -> String {
        let mut line = String::with_capacity(self.entries.iter().map(|(k, raw)| k.len() + raw.get().len() + 4).sum());
        line.push('{');
        for (i, (key, raw)) in self.entries.iter().enumerate() {
            if i > 0 {
                line.push(',');
            }
            line.push_str(&to_json(key));
            line.push(':');
            push_one_line(&mut line, raw.get());
        }
        line.push('}');
        line
    }

    fn put<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) {
        let raw = to_raw(value);
        if let Some(entry) = self.entries.iter_mut().find(|(k, _)| k == key) {
            entry.1 = raw;
            return;
        }
        let end = match self.entries.iter().position(|(k, _)| k == "timings") {
            Some(timings) => timings,
            None => self.entries.len(),
        };
        self.entries.insert(end, (key.to_owned(), raw));
    }

    /// A plain string at the top level, such as a VM's `id`.
    pub fn string(&self, key: &str) -> Result<Option<String>> {
        let Some((_, raw)) = self.entries.iter().find(|(k, _)| k == key) else { return Ok(None) };
        serde_json::from_str(raw.get()).map(Some).map_err(|_| bad(format!("`{key}` is not a string")))
    }
}

/// Reads `text` as a `T` that allows no unknown field; the error has the path of the field and the nearest known one.
pub fn strict<T: DeserializeOwned>(text: &str) -> Result<T> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let path = e.path().to_string();
        let message = e.into_inner().to_string();
        let error = bad(if path == "." { message.clone() } else { format!("`{path}`: {message}") });
        match nearest_known(&message) {
            Some(known) => error.hint(format!("did you mean `{known}`?")),
            None => error,
        }
    })?;
    json.end().map_err(|e| bad("there is something after the document").because(&e))?;
    Ok(value)
}

/// A map in which no key stands twice; serde by itself would keep the last one.
fn distinct<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error> {
    struct Distinct<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Distinct<T> {
        type Value = BTreeMap<String, T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = access.next_entry::<String, T>()? {
                if map.contains_key(&key) {
                    return Err(serde::de::Error::custom(format!("duplicate field `{key}`")));
                }
                map.insert(key, value);
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Distinct(PhantomData))
}

/// From serde's "unknown field `x`, expected one of `a`, `b`": the known name that is nearest to the unknown one.
fn nearest_known(message: &str) -> Option<String> {
    let mut quoted = message.strip_prefix("unknown ")?.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    nearest(unknown, quoted).map(str::to_owned)
}

/// The candidate most like `word`, where one is like it at all.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|c| (likeness(word, c), c))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

/// From 0 to 1. Two letters that changed places in a short word are a slip, and no other word.
fn likeness(a: &str, b: &str) -> f64 {
    let is_one_slip = a.len().min(b.len()) > 2 && strsim::osa_distance(a, b) == 1;
    strsim::jaro_winkler(a, b).max(if is_one_slip { 0.8 } else { 0.0 })
}

/// One of our own values as JSON text. Its types have string keys and finite numbers, so this cannot fail.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("wire types have string keys and no failing serializers")
}

fn to_raw<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    RawValue::from_string(to_json(value)).expect("serde_json writes valid JSON")
}

/// Copies JSON text; where it spans lines, the white space between its tokens is left out, and nothing else.
fn push_one_line(out: &mut String, json: &str) {
    // Byte for byte: the search for one is the fast one.
    if !json.as_bytes().contains(&b'\n') && !json.as_bytes().contains(&b'\r') {
        return out.push_str(json);
    }
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        if !in_string && c.is_ascii_whitespace() {
            continue;
        }
        if escaped {
            escaped = false;
        } else if in_string && c == '\\' {
            escaped = true;
        } else if c == '"' {
            in_string = !in_string;
        }
        out.push(c);
    }
}

/// Whether an entry of `timings` is of that tool; one that is not as it should be is nobody's.
fn is_of(tool: &str, timing: &RawValue) -> bool {
    serde_json::from_str::<Timing>(timing.get()).is_ok_and(|timing| timing.tool == tool)
}

/// The error for a list of documents where one is needed; `None` for what is no list of them.
fn several(text: &str) -> Option<Error> {
    let all: Vec<Document> = serde_json::Deserializer::from_str(text).into_iter().collect::<Result<_, _>>().ok()?;
    let names: Vec<String> = all.iter().filter_map(|doc| doc.name().ok()).map(|name| format!("`{name}`")).collect();
    let shown = match (names.len(), names.len() > NAMES_SHOWN) {
        (0, _) => String::new(),
        (_, false) => format!(" ({})", names.join(", ")),
        (_, true) => format!(" ({}, …)", names[..NAMES_SHOWN].join(", ")),
    };
    let error = bad(format!("there are {} documents{shown}, and one is needed", all.len()));
    (all.len() > 1).then(|| error.hint("choose one, by its NAME or its line: sed -n 1p in front of this tool"))
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(Code::BadDocument, message)
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Document;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
                let mut entries: Vec<(String, Box<RawValue>)> = vec![];
                // A megabyte has room for 100,000 keys, too many to compare each with all.
                let mut seen = HashSet::new();
                while let Some(key) = map.next_key::<String>()? {
                    if !seen.insert(key.clone()) {
                        return Err(serde::de::Error::custom(format!("duplicate field `{key}`")));
                    }
                    entries.push((key, map.next_value()?));
                }
                Ok(Document { entries })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests;
