//! A directory of an ext4 file system as a tar, read without mounting it. What belongs to one machine or one person's
//! session stays out.

use crate::error::{Code, Error, Result};
use ext4_view::{Ext4, Ext4Error, FileType, Metadata};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
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

/// Writes what is in the directory `root` of the file system in the file `image` as a tar, without an entry for the
/// directory itself. Entries are sorted, so equal directories give equal tars.
///
/// Errors: [`Code::BadInput`] where the file system or the directory cannot be read; an I/O error of `output` as it is.
pub fn write_tar(image: &Path, root: &Path, output: impl Write) -> Result<()> {
    let unreadable = |e: Ext4Error| {
        let message = format!("cannot read {} of {}", root.display(), image.display());
        Error::new(Code::BadInput, message).because(&e)
    };
    let fs = Ext4::load_from_path(image).map_err(unreadable)?;
    let mut walk = Walk { fs, root, tar: Builder::new(output) };
    walk.content_of(Path::new("")).and_then(|()| Ok(walk.tar.finish()?)).map_err(|e| match e {
        Stop::Fs(e) => unreadable(e),
        Stop::Io(e) => e.into(),
        Stop::Signal(e) => e,
    })
}

enum Stop {
    Fs(Ext4Error),
    Io(io::Error),
    Signal(Error),
}

impl From<Ext4Error> for Stop {
    fn from(e: Ext4Error) -> Self {
        Stop::Fs(e)
    }
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        Stop::Io(e)
    }
}

struct Walk<'a, W: Write> {
    fs: Ext4,
    root: &'a Path,
    tar: Builder<W>,
}

impl<W: Write> Walk<'_, W> {
    /// What is in the directory at `path` below the root, sorted by name.
    fn content_of(&mut self, path: &Path) -> Result<(), Stop> {
        crate::sys::signal::check().map_err(Stop::Signal)?;
        let mut entries = vec![];
        for entry in self.fs.read_dir(&*self.root.join(path))? {
            let entry = entry?;
            let name = entry.file_name();
            let name = OsStr::from_bytes(name.as_ref()).to_owned();
            if name != "." && name != ".." {
                entries.push((path.join(name), entry.file_type()?));
            }
        }
        entries.sort();
        for (path, kind) in entries {
            if !LEFT_OUT.iter().any(|left_out| Path::new(left_out) == path) {
                self.entry(&path, kind)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, kind: FileType) -> Result<(), Stop> {
        let full = self.root.join(path);
        let meta = self.fs.symlink_metadata(&*full)?;
        match kind {
            FileType::Directory => {
                self.tar.append_data(&mut header(&meta, EntryType::Directory), path, io::empty())?;
                self.content_of(path)?;
            }
            FileType::Regular => {
                let mut header = header(&meta, EntryType::Regular);
                header.set_size(meta.len());
                self.tar.append_data(&mut header, path, self.fs.open(&*full)?)?;
            }
            FileType::Symlink => {
                let target = self.fs.read_link(&*full)?;
                let target = OsStr::from_bytes(target.as_ref());
                self.tar.append_link(&mut header(&meta, EntryType::Symlink), path, target)?;
            }
            // Sockets and pipes belong to processes that are gone, and nobody keeps devices in a home.
            _ => {}
        }
        Ok(())
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
