//! The list of the scripts, and what of running them needs no VM: in which order, with what, and what is told of each.

use super::below;
use lib_common::doc::{CONFIGURE_DIR, ConfigureAction, ConfigureBegins, ConfigureLine, Configured};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::ended::describe;
use lib_common::sys::guest_program::Ended;
use std::io::{ErrorKind, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Instant;

/// No list is longer, in bytes.
const MAX_LIST: u64 = 1 << 20;

/// What a shell says of a program that there is not.
const NOT_STARTED: i32 = 127;

/// A line of the list.
#[derive(Debug, PartialEq, Eq)]
pub struct Script {
    /// Its file beside the list.
    pub file: String,
    /// Whose it is.
    pub package: String,
    /// That one's version.
    pub version: String,
    /// The architecture of the root file system.
    pub architecture: String,
}

/// All of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Scripts {
    /// In the order in which they are run.
    pub list: Vec<Script>,
    /// Their `SOURCE_DATE_EPOCH`.
    pub epoch: Option<String>,
}

impl Scripts {
    /// Those of the root file system at `root`.
    pub fn read(root: &Path) -> Result<Self> {
        let dir = below(root, CONFIGURE_DIR);
        let list = bounded(&dir.join("list"))?;
        let epoch = match bounded(&dir.join("epoch")) {
            Ok(text) => Some(epoch(&text)?),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(e.into()),
        };
        Ok(Scripts { list: parse(&list)?, epoch })
    }

    /// Runs all for each action, one after the other, and tells how each begins and ends, until one fails. Gives whether none
    /// has.
    ///
    /// # Errors
    /// Those of `tell`.
    pub fn run(
        &self,
        run: &mut dyn FnMut(&Script, ConfigureAction) -> std::io::Result<Ended>,
        tell: &mut dyn FnMut(ConfigureLine) -> Result<()>,
    ) -> Result<bool> {
        for action in ConfigureAction::ALL {
            for script in &self.list {
                tell(ConfigureLine::Begins(ConfigureBegins { begins: script.package.clone(), action }))?;
                let begun = Instant::now();
                let ended = run(script, action);
                let told = script.told(action, ended, begun);
                let well = told.is_success();
                tell(ConfigureLine::Script(told))?;
                if !well {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

impl Script {
    /// As `xbps-install` calls a package's `INSTALL` (xbps 0.60, lib/package_script.c): action, name, version, whether it is
    /// an update, whether its configuration files are to be kept, and the native architecture.
    pub fn argv(&self, action: ConfigureAction) -> Vec<String> {
        let file = format!("{CONFIGURE_DIR}/{}", self.file);
        ["sh", &file, action.as_str(), &self.package, &self.version, "no", "no", &self.architecture]
            .map(str::to_owned)
            .into()
    }

    fn told(&self, action: ConfigureAction, ended: std::io::Result<Ended>, begun: Instant) -> Configured {
        let (status, ended, output) = match ended {
            Ok(Ended { status, output }) => {
                let number = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(-1);
                (number, describe(status), text(&output))
            }
            Err(e) => (NOT_STARTED, "not started".into(), format!("sh: {e}")),
        };
        Configured {
            package: self.package.clone(),
            version: self.version.clone(),
            action,
            status,
            ended,
            ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            output,
        }
    }
}

/// The whole environment of a script.
pub fn environment(epoch: Option<&str>) -> Vec<(&str, &str)> {
    let epoch = epoch.map(|epoch| ("SOURCE_DATE_EPOCH", epoch));
    [("PATH", "/usr/bin:/usr/sbin:/bin:/sbin"), ("LANG", "C.UTF-8")].into_iter().chain(epoch).collect()
}

/// Lines `FILE NAME VERSION ARCHITECTURE`.
fn parse(list: &str) -> Result<Vec<Script>> {
    let one = |(n, line): (usize, &str)| {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            [file, package, version, architecture]
                if is_number(file) && words.iter().all(|w| !w.is_empty() && !w.contains(char::is_control)) =>
            {
                Ok(Script {
                    file: file.into(),
                    package: package.into(),
                    version: version.into(),
                    architecture: architecture.into(),
                })
            }
            _ => Err(Error::new(Code::BadInput, format!("line {} is not FILE NAME VERSION ARCHITECTURE", n + 1))),
        }
    };
    list.lines().enumerate().map(one).collect()
}

fn epoch(text: &str) -> Result<String> {
    let text = text.trim_end();
    if is_number(text) {
        return Ok(text.to_owned());
    }
    Err(Error::new(Code::BadInput, "the epoch is not a number of seconds"))
}

fn is_number(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

/// A file of text that is not longer than any list.
fn bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    fs_err::File::open(path)?.take(MAX_LIST + 1).read_to_string(&mut text)?;
    match text.len() as u64 {
        0..=MAX_LIST => Ok(text),
        _ => Err(std::io::Error::new(
            ErrorKind::InvalidData,
            format!("{} is longer than {MAX_LIST} bytes", path.display()),
        )),
    }
}

/// As text; the cut at its begin may have gone through a character.
fn text(output: &[u8]) -> String {
    let is_inside = |b: &u8| *b & 0xc0 == 0x80;
    let cut = output.iter().take(3).take_while(|b| is_inside(b)).count();
    String::from_utf8_lossy(&output[cut..]).into_owned()
}

#[cfg(test)]
mod tests;
