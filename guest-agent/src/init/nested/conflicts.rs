//! Where nested entries go whose place is taken: `/root/.banger-conflicts`, below it the path they would have had. Nothing
//! there is ever overwritten, and what lies there is told at every boot until somebody has removed it.

use super::changes::{Changes, Place};
use super::dirs::{each_name, is, numbered, open_dir, shown, status};
use super::merge::MAX_DEPTH;
use nix::Result;
use nix::errno::Errno;
use nix::sys::stat::SFlag;
use std::ffi::{CStr, CString};
use std::fs::File;

/// Reserved, at the work disk's top.
pub const CONFLICTS: &CStr = c".banger-conflicts";

/// How many are named, and how many counted.
const MAX_SHOWN: usize = 8;
const MAX_COUNTED: usize = 1000;

/// Moves an entry there. `path` leads from the top to where it cannot go.
///
/// # Errors
/// Those of mkdirat(2) and renameat2(2); EEXIST where ten thousand of that name are there.
pub fn keep(changes: Changes<'_>, top: &File, path: &[CString], entry: Place<'_>) -> Result<()> {
    let mut dir = open_or_make(changes, top, CONFLICTS)?;
    for name in path {
        dir = open_or_make(changes, &dir, name)?;
    }
    for name in numbered(entry.1) {
        match changes.rename(entry, (&dir, &name)) {
            Err(Errno::EEXIST) => {}
            result => return result,
        }
    }
    Err(Errno::EEXIST)
}

/// The directory `name`, or the first of its numbered names that is one or can be made one.
fn open_or_make(changes: Changes<'_>, dir: &File, name: &CStr) -> Result<File> {
    for name in numbered(name) {
        match status(dir, name.as_c_str())? {
            Some(found) if !is(&found, SFlag::S_IFDIR) => continue,
            Some(_) => {}
            None => changes.make_dir(dir, name.as_c_str())?,
        }
        return open_dir(dir, name.as_c_str());
    }
    Err(Errno::EEXIST)
}

/// What lies there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Where, relative to the top.
    place: String,
    /// How many entries, at most [`MAX_COUNTED`].
    pub total: usize,
    /// The first of them, relative to that.
    pub shown: Vec<String>,
}

impl Kept {
    /// Looks at the disk with this top.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn find(top: &File) -> Result<Self> {
        let mut kept = Kept::default();
        for name in numbered(CONFLICTS) {
            match status(top, name.as_c_str())? {
                None => break,
                Some(found) if is(&found, SFlag::S_IFDIR) => {
                    kept.place = shown([name.as_c_str()].into_iter());
                    kept.count(&open_dir(top, name.as_c_str())?, top, &mut vec![])?;
                    break;
                }
                Some(_) => {}
            }
        }
        Ok(kept)
    }

    /// A directory that is one at the top too was merged with it, so its entries count; any other is an entry.
    fn count(&mut self, dir: &File, above: &File, path: &mut Vec<CString>) -> Result<()> {
        let mut result = Ok(());
        each_name(dir, |name| {
            if self.total >= MAX_COUNTED || result.is_err() {
                return;
            }
            let both = open_dir(dir, name).and_then(|inner| Ok((inner, open_dir(above, name)?)));
            match both {
                Ok((inner, above)) if path.len() < MAX_DEPTH => {
                    path.push(name.to_owned());
                    result = self.count(&inner, &above, path);
                    path.pop();
                }
                _ => self.add(path, name),
            }
        })?;
        result
    }

    fn add(&mut self, path: &[CString], name: &CStr) {
        self.total += 1;
        if self.shown.len() < MAX_SHOWN {
            self.shown.push(shown(path.iter().map(CString::as_c_str).chain([name])));
        }
    }

    /// In words: how many, and one line each for the first; nothing where there is nothing.
    pub fn lines(&self) -> Vec<String> {
        let Kept { place, total, shown } = self;
        if *total == 0 {
            return vec![];
        }
        let count = match total {
            1 => "1 entry".to_owned(),
            &MAX_COUNTED => format!("{MAX_COUNTED} entries or more"),
            total => format!("{total} entries"),
        };
        let what = format!(
            "/root/{place} keeps {count} of the nested /root/root whose place was taken: compare, then remove it"
        );
        std::iter::once(what).chain(shown.iter().map(|path| format!("kept: /root/{place}/{path}"))).collect()
    }
}
