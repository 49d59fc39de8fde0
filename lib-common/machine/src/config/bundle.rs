//! The bundle that is used by default: where it is, and what it says. Its files are looked at by whoever uses them.

use lib_common::doc::{AbsPath, Bundle, MAX_BYTES, RelPath};
use lib_common::error::{Code, Context, Error, Result};
use lib_common::sys::{owned, program};
use std::io::Read;
use std::path::{Path, PathBuf};

/// What mends a bundle.
pub fn mend() -> String {
    program::pipeline("bundle")
}

/// What the setting says: a file, or none at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// No bundle, even if one is there.
    Nothing,
    /// This one.
    File(PathBuf),
}

/// Reads the setting: `none`, or an absolute path.
pub(super) fn parse(text: &str) -> Result<Wanted, String> {
    match text {
        "none" => Ok(Wanted::Nothing),
        path => AbsPath::new(path).map(|path| Wanted::File(path.to_path_buf())).map_err(|e| e.to_string()),
    }
}

/// Where a bundle lies that nobody has named.
pub fn default_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("bundle")
}

/// A bundle as its `bundle.json` says it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What stands in `bundle.json`.
    pub bundle: Bundle,
    json: PathBuf,
    legacy: Vec<&'static str>,
}

impl Loaded {
    /// The bundle that was asked for, which has to be there; else that in the state directory, if it is.
    pub(super) fn find(wanted: Option<Wanted>, state_dir: &Path) -> Result<Option<Self>> {
        let (json, named) = match wanted {
            Some(Wanted::Nothing) => return Ok(None),
            Some(Wanted::File(json)) => (json, true),
            None => (default_dir(state_dir).join("bundle.json"), false),
        };
        // Links on the way to one that was named are its namer's own matter.
        let dir = json.parent().unwrap_or(Path::new("/"));
        let dir = if named { std::fs::canonicalize(dir).unwrap_or_else(|_| dir.into()) } else { dir.into() };
        let json = dir.join(json.file_name().unwrap_or_default());
        let Some(file) = owned::open_installed(&dir, json.file_name().unwrap_or_default())? else {
            if !named {
                return Ok(None);
            }
            return Err(Error::new(Code::MissingFile, format!("{} is not there", json.display())).hint(mend()));
        };
        owned::is_safe_from_others(&dir)?;
        let mut bytes = vec![];
        let read = file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|e| Error::io("read", &json, &e))?;
        let (bundle, legacy) = Bundle::parse(&bytes).context(format!("{} is not a bundle", json.display()))?;
        Ok(Some(Loaded { bundle, json, legacy }))
    }

    /// Its `bundle.json`.
    pub fn json(&self) -> &Path {
        &self.json
    }

    /// The directory that its paths begin in.
    pub fn dir(&self) -> &Path {
        self.json.parent().unwrap_or(Path::new("/"))
    }

    /// Where a part lies, whether it is there or not.
    pub fn at(&self, path: &RelPath) -> PathBuf {
        self.dir().join(path.as_str())
    }

    /// A file of the bundle, which has to be there.
    pub(super) fn file(&self, path: &RelPath) -> Result<PathBuf> {
        let at = self.at(path);
        let gone = || Error::new(Code::MissingFile, format!("the bundle's {} is not there", at.display())).hint(mend());
        // It is a program, or is given to one.
        owned::open_installed(self.dir(), path.as_str())?.map(|_| at.clone()).ok_or_else(gone)
    }

    /// A remark on each old name of a key.
    pub(super) fn legacy(&self) -> Vec<String> {
        self.legacy.iter().map(|old| format!("`{old}` in {} is now `agent_path`", self.json.display())).collect()
    }
}
