//! The configuration files: where they are, and what they say.

use super::{Env, KEYS, Layer, legacy};
use crate::error::{Code, Error, Result};
use crate::sys::{host, owned};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The file for all users.
const SYSTEM: &str = "/etc/banger/config.toml";

/// The longest configuration that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The files that are read, the most important last.
pub(super) fn places(env: &Env) -> Result<Vec<PathBuf>> {
    let dir = match env.get("XDG_CONFIG_HOME").filter(|dir| dir.starts_with('/')) {
        Some(dir) => Some(PathBuf::from(dir)),
        None => home(env)?.map(|home| home.join(".config")),
    };
    let user = dir.map(|dir| dir.join("banger/config.toml"));
    Ok([Some(PathBuf::from(SYSTEM)), user].into_iter().flatten().collect())
}

/// The caller's home directory: `HOME`, else that of the passwd database; `None` where neither names one.
///
/// # Errors
/// [`Code::BadConfig`] for a `HOME` that is empty or relative: it would lead to the working directory.
pub(super) fn home(env: &Env) -> Result<Option<PathBuf>> {
    match env.get("HOME") {
        Some(home) if home.starts_with('/') => Ok(Some(PathBuf::from(home))),
        Some(home) => {
            Err(Error::new(Code::BadConfig, format!("HOME is `{}`, not an absolute path", home.escape_debug()))
                .hint("unset HOME"))
        }
        None => Ok(host::home_of_caller().filter(|home| home.is_absolute())),
    }
}

/// Reads the settings of one file; a missing file has none. `legacy` gets a remark on each old name of a key.
///
/// # Errors
/// [`Code::BadConfig`] for what is no configuration, [`Code::Permission`] for a file that others can change.
pub(super) fn read(file: &Path, legacy: &mut Vec<String>) -> Result<Layer> {
    let Some(text) = text_of(file)? else { return Ok(Layer::new()) };
    let bad = |what: String| Error::new(Code::BadConfig, format!("{}: {what}", file.display()));
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| bad(e.message().to_owned()))?;
    let mut layer = Layer::new();
    for (key, value) in table {
        let new = legacy::key(&key);
        let Some((known, ..)) = KEYS.iter().find(|(k, ..)| *k == new.unwrap_or(&key)) else {
            let error = bad(format!("unknown key `{key}`"));
            return Err(match crate::doc::nearest(&key, KEYS.iter().map(|(k, ..)| *k)) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("banger-config(5) lists the keys"),
            });
        };
        let text = match value {
            toml::Value::String(s) => s,
            toml::Value::Integer(n) => n.to_string(),
            other => return Err(bad(format!("`{key}` is a {}, not a string or number", other.type_str()))),
        };
        if new.is_some() {
            legacy.push(format!("`{key}` in {} is now `{known}`", file.display()));
        }
        let before = layer.insert(known, (text.clone(), file.display().to_string()));
        if before.is_some_and(|(before, _)| before != text) {
            return Err(bad(format!("`{known}` stands there under several names, which say different things"))
                .hint(format!("keep `{known}` alone")));
        }
    }
    Ok(layer)
}

/// The file's content; `None` where it is missing.
fn text_of(file: &Path) -> Result<Option<String>> {
    let bad = |what: &str| Error::new(Code::BadConfig, format!("{} {what}", file.display()));
    let opened = owned::open_trusted(file).map_err(|e| {
        let hint = format!("ls -lL {}; set HOME to your own home directory, or mend the file", file.display());
        if e.code() == Code::Permission { e.hint(hint) } else { e.with_code(Code::BadConfig) }
    })?;
    let Some(opened) = opened else { return Ok(None) };
    let mut bytes = vec![];
    let read = opened.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::io("read", file, &e).with_code(Code::BadConfig))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(bad(&format!("is larger than {}", crate::size::bytes(MAX_BYTES))));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| bad("is not UTF-8"))
}
