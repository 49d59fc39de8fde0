//! A directory of an ext4 file system as a tar, read without mounting it. What belongs to one machine or one person's
//! session stays out.

use super::untrusted::{Patience, Unread, open};
use ext4_view::{Ext4, Ext4Error, FileType, Metadata};
use lib_common::error::{Code, Error, Result};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tar::{Builder, EntryType, Header};

/// What an image's `/root` may have and no VM's work disk is to begin with: traces of the build's sessions, and the keys
/// that the agent lays down for each VM anew. The rest of `.ssh` stays. `lost+found` is each file system's own.
const LEFT_OUT: &[&str] = &[
    ".bash_history",
    ".lesshst",
    ".python_history",
    ".viminfo",
    ".wget-hsts",
    ".ssh/authorized_keys",
    ".ssh/known_hosts",
    ".ssh/known_hosts.old",
    "lost+found",
];

/// The deepest directory below the root. What follows a path of a thousand names panics.
const MAX_LEVELS: usize = 256;
/// The longest target of a symbolic link that the kernel makes, in bytes.
const MAX_TARGET: u64 = 4095;
/// The most symbolic links on the way to the root.
const MAX_LINKS: usize = 40;

/// How long a tree without bounds may be read.
const WITHIN: Duration = Duration::from_secs(3600);

/// How much a tree may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The content of all files, holes included, in bytes.
    pub(super) bytes: u64,
    /// Files, directories and whatever else there is.
    pub(super) entries: u64,
}

/// Writes what is in the directory `root` of the file system in the file `image` as a tar, without an entry for the
/// directory itself. Entries are sorted, so equal directories give equal tars.
///
/// Errors: [`Code::BadInput`] where the file system or the directory cannot be read; an I/O error of `output` as it is.
pub fn write_tar(image: &Path, root: &Path, output: impl Write) -> Result<()> {
    let bounds = Bounds { bytes: u64::MAX, entries: u64::MAX };
    write_within(image, root, output, (bounds, Patience::new(WITHIN)))
}

/// The same within bounds.
///
/// Errors: as [`write_tar`]; [`Code::BadInput`] for more than is allowed, [`Code::TimedOut`], or the signal that came.
pub(super) fn write_within(
    image: &Path,
    root: &Path,
    output: impl Write,
    (bounds, patience): (Bounds, Patience),
) -> Result<()> {
    let walked = open(image, patience, u64::MAX).map_err(Stop::from).and_then(|fs| {
        let base = resolve(&fs, root)?;
        let mut walk = Walk { fs, root, base, tar: Builder::new(output), bounds, left: bounds, patience };
        walk.content_of(Path::new(""), 0)?;
        Ok(walk.tar.finish()?)
    });
    walked.map_err(|e| match e {
        Stop::Unread(e) => e.error(format!("cannot read {} of {}", root.display(), image.display())),
        Stop::TooMuch(e) => e,
        Stop::Io(e) => e.into(),
    })
}

enum Stop {
    Unread(Unread),
    TooMuch(Error),
    Io(io::Error),
}

impl From<Unread> for Stop {
    fn from(e: Unread) -> Self {
        Stop::Unread(e)
    }
}

impl From<Ext4Error> for Stop {
    fn from(e: Ext4Error) -> Self {
        Stop::Unread(e.into())
    }
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        Stop::Io(e)
    }
}

/// The directory that `path` leads to, by a path without symbolic links: one as long as a file can be would be read into
/// memory whole.
fn resolve(fs: &Ext4, path: &Path) -> Result<PathBuf, Stop> {
    let names = |path: &Path| path.components().rev().map(|c| c.as_os_str().to_owned()).collect::<Vec<_>>();
    let (mut todo, mut at, mut links) = (names(path), PathBuf::from("/"), 0);
    while let Some(name) = todo.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let meta = fs.symlink_metadata(&*next)?;
        if meta.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(Ext4Error::TooManySymlinks.into());
            }
            todo.extend(names(Path::new(OsStr::from_bytes(target(fs, &next, &meta)?.as_ref()))));
        } else {
            at = next;
        }
    }
    Ok(at)
}

/// The target of the symbolic link at `path`.
fn target(fs: &Ext4, path: &Path, meta: &Metadata) -> Result<ext4_view::PathBuf, Stop> {
    if meta.len() > MAX_TARGET {
        let message = format!("{} is a symbolic link to a name of {} bytes", path.display(), meta.len());
        return Err(Unread::refused(message).into());
    }
    Ok(fs.read_link(path)?)
}

struct Walk<'a, W: Write> {
    fs: Ext4,
    /// What was asked for.
    root: &'a Path,
    /// Where that is.
    base: PathBuf,
    tar: Builder<W>,
    bounds: Bounds,
    left: Bounds,
    patience: Patience,
}

impl<W: Write> Walk<'_, W> {
    /// What is in the directory at `path` below the root, sorted by name.
    fn content_of(&mut self, path: &Path, level: usize) -> Result<(), Stop> {
        if level > MAX_LEVELS {
            return Err(Unread::refused(format!("its directories are more than {MAX_LEVELS} levels deep")).into());
        }
        let mut names = vec![];
        for entry in self.fs.read_dir(&*self.base.join(path))? {
            self.patience.check().map_err(Unread::from)?;
            let entry = entry?;
            let name = entry.file_name();
            let name = OsStr::from_bytes(name.as_ref()).to_owned();
            if name != "." && name != ".." {
                let left = self.left.entries.checked_sub(1);
                self.left.entries = left.ok_or_else(|| self.too_much(self.bounds.entries, "files"))?;
                names.push(name);
            }
        }
        names.sort_unstable();
        for name in names {
            let path = path.join(name);
            if !LEFT_OUT.iter().any(|left_out| Path::new(left_out) == path) {
                self.entry(&path, level)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, level: usize) -> Result<(), Stop> {
        self.patience.check().map_err(Unread::from)?;
        let full = self.base.join(path);
        let meta = self.fs.symlink_metadata(&*full)?;
        match meta.file_type() {
            FileType::Directory => {
                self.tar.append_data(&mut header(&meta, EntryType::Directory), path, io::empty())?;
                self.content_of(path, level + 1)?;
            }
            FileType::Regular => self.file(path, &full, &meta)?,
            FileType::Symlink => {
                let target = target(&self.fs, &full, &meta)?;
                let target = OsStr::from_bytes(target.as_ref());
                self.tar.append_link(&mut header(&meta, EntryType::Symlink), path, target)?;
            }
            // Sockets and pipes belong to processes that are gone, and nobody keeps devices in a home.
            _ => {}
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, full: &Path, meta: &Metadata) -> Result<(), Stop> {
        let left = self.left.bytes.checked_sub(meta.len());
        self.left.bytes = left.ok_or_else(|| self.too_much(self.bounds.bytes, "bytes"))?;
        let mut header = header(meta, EntryType::Regular);
        header.set_size(meta.len());
        let mut content = Content { file: self.fs.open(full)?, patience: self.patience, failure: None };
        let appended = self.tar.append_data(&mut header, path, &mut content);
        match content.failure {
            Some(failure) => Err(failure.into()),
            None => Ok(appended?),
        }
    }

    fn too_much(&self, most: u64, what: &str) -> Stop {
        let root = self.root.display();
        let message = format!("{root} of the image has more than {most} {what}; a work disk begins with less");
        let hint = format!(
            "`du -xa --apparent-size {root}` says in a VM of the image which files are large; keep them elsewhere"
        );
        Stop::TooMuch(Error::new(Code::BadInput, message).hint(hint))
    }
}

/// The content of a file, with the reason where it cannot be read.
struct Content {
    file: ext4_view::File,
    patience: Patience,
    failure: Option<Unread>,
}

impl Read for Content {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.patience.check().map_err(Unread::from);
        read.and_then(|()| Ok(self.file.read_bytes(bytes)?)).map_err(|e| {
            self.failure = Some(e);
            io::ErrorKind::InvalidData.into()
        })
    }
}

fn header(meta: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(u32::from(meta.mode() & 0o7777));
    header.set_uid(meta.uid().into());
    header.set_gid(meta.gid().into());
    // Times before 1970 have no place in this header.
    header.set_mtime(u64::try_from(meta.modified().seconds()).unwrap_or(0));
    header.set_size(0);
    header
}
