//! Files of the host on their way into a guest, as a tar stream. Reads the host's files; knows nothing of guests but the
//! command that unpacks.
//!
//! Owners and modes are numbers and stay as they are. Directories that the guest has already keep theirs.

use lib_common::digest::{self, Hashing};
use lib_common::doc::Digest;
use lib_common::error::{Code, Error, Result};
use lib_common::sys::dirs::walk;
use lib_common::sys::fs::open_seen;
use lib_common::sys::signal;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// Unpacks the stream in the guest. A directory that is there keeps owner and mode, and a link to one (`/bin`) stays.
pub const UNPACK: &str = "tar -x -f - -C / --numeric-owner --same-owner --same-permissions \
    --no-overwrite-dir --keep-directory-symlink";

/// One `--copy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    from: PathBuf,
    /// The name that it gets, relative to the guest's root; empty for the root itself.
    to: PathBuf,
    /// Of what was there when it was read first.
    digest: Digest,
}

impl Copy {
    /// From `SRC:DST`: `DST` is what follows the last `:/`, with that slash. Where it ends with `/`, what is copied goes
    /// into that directory under its own name; of `SRC/.` the content goes there.
    ///
    /// Errors: [`Code::BadValue`], [`Code::MissingFile`], those of [`Copy::write_to`].
    pub fn parse(value: &OsStr) -> Result<Self> {
        let bytes = value.as_bytes();
        let bad = |what: &str| {
            Error::new(Code::BadValue, format!("`{}` {what}", value.to_string_lossy().escape_debug()))
                .hint("--copy SRC:DST, where DST is a path in the guest and begins with a `/`")
        };
        let colon = bytes.windows(2).rposition(|two| two == b":/").ok_or_else(|| bad("names no place in the guest"))?;
        let (from, to) = (&bytes[..colon], &bytes[colon + 1..]);
        if from.is_empty() {
            return Err(bad("names nothing to copy"));
        }
        let from = PathBuf::from(OsString::from_vec(from.to_vec()));
        let meta = std::fs::symlink_metadata(&from).map_err(|e| super::missing(&from, &e))?;
        let mut place = PathBuf::new();
        for part in Path::new(OsStr::from_bytes(to)).components() {
            match part {
                Component::Normal(name) => place.push(name),
                Component::ParentDir => return Err(bad("has `..` in its place in the guest")),
                _ => {}
            }
        }
        if to.ends_with(b"/") && !value.as_bytes()[..colon].ends_with(b"/.") {
            // `.` and `/` have no name, so it is their content as well.
            place.extend(from.file_name());
        }
        if place.as_os_str().is_empty() && !meta.is_dir() {
            return Err(bad("would replace the guest's root directory"));
        }
        let mut copy = Copy { from, to: place, digest: digest::of_bytes(b"") };
        copy.digest = copy.write_to(&mut io::sink())?;
        Ok(copy)
    }

    /// What [`Copy::write_to`] gives for the files as they were when this was made.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Writes the tar, and gives the digest of all that it says but times: names, kinds, modes, owners, content.
    ///
    /// Errors: [`Code::BadInput`] for sockets, pipes and devices, and for a file that changes meanwhile; an error of
    /// `output` as [`Code::Io`].
    pub fn write_to(&self, output: &mut dyn Write) -> Result<Digest> {
        let mut writer = Writer { tar: Builder::new(output), said: Hashing::new(io::sink()) };
        for parent in self.to.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect::<Vec<_>>().iter().rev()
        {
            writer.parent(parent)?;
        }
        for entry in walk(&self.from, false)? {
            signal::check()?;
            let below = entry.path().strip_prefix(&self.from).unwrap_or(Path::new(""));
            // Joined with nothing, a path would end with a slash.
            let to = if below.as_os_str().is_empty() { self.to.clone() } else { self.to.join(below) };
            if !to.as_os_str().is_empty() {
                let meta = std::fs::symlink_metadata(entry.path()).map_err(|e| Error::io("read", entry.path(), &e))?;
                writer.entry(entry.path(), &to, &meta)?;
            }
        }
        writer.tar.finish().map_err(of_output)?;
        Ok(writer.said.finish().1)
    }
}

struct Writer<'a> {
    tar: Builder<&'a mut dyn Write>,
    said: Hashing<io::Sink>,
}

impl Writer<'_> {
    /// A directory that has to be there.
    fn parent(&mut self, path: &Path) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        // Also where the directory is there already: it is about to get something new.
        header.set_mtime(now());
        header.set_size(0);
        self.say(&header, path, b"")?;
        self.tar.append_data(&mut header, path, io::empty()).map_err(of_output)
    }

    fn entry(&mut self, from: &Path, to: &Path, meta: &Metadata) -> Result<()> {
        let kind = meta.file_type();
        if kind.is_dir() {
            let mut header = header(meta, EntryType::Directory);
            self.say(&header, to, b"")?;
            self.tar.append_data(&mut header, to, io::empty()).map_err(of_output)
        } else if kind.is_symlink() {
            let target = std::fs::read_link(from).map_err(|e| Error::io("read", from, &e))?;
            let mut header = header(meta, EntryType::Symlink);
            self.say(&header, to, target.as_os_str().as_bytes())?;
            self.tar.append_link(&mut header, to, &target).map_err(of_output)
        } else if kind.is_file() {
            self.file(&open_seen(from, meta)?, from, to)
        } else {
            let message = format!("{} is neither a file nor a directory nor a symbolic link", from.display());
            Err(Error::new(Code::BadInput, message).hint("leave it out"))
        }
    }

    fn file(&mut self, file: &std::fs::File, from: &Path, to: &Path) -> Result<()> {
        // Of the open file, not of the name.
        let meta = file.metadata().map_err(|e| Error::io("read", from, &e))?;
        let size = meta.len();
        let mut header = header(&meta, EntryType::Regular);
        header.set_size(size);
        self.say(&header, to, b"")?;
        let mut content = Content { file, left: size, said: &mut self.said, failed: None };
        let written = self.tar.append_data(&mut header, to, &mut content);
        if let Some(e) = content.failed {
            return Err(Error::io("read", from, &e));
        }
        if content.left > 0 {
            return Err(Error::new(Code::BadInput, format!("{} became shorter while it was read", from.display())));
        }
        written.map_err(of_output)
    }

    /// Each part has its length before it, so that no two trees say the same.
    fn say(&mut self, header: &Header, path: &Path, target: &[u8]) -> Result<()> {
        let number = |value: io::Result<u64>| value.map_err(|e| Error::from(e).with_code(Code::Internal));
        let (uid, gid, size) = (number(header.uid())?, number(header.gid())?, number(header.size())?);
        let mode = number(header.mode().map(u64::from))?;
        let path = path.as_os_str().as_bytes();
        let kind = header.entry_type().as_byte();
        let line = format!("{kind} {mode:o} {uid} {gid} {size} {} {}\n", path.len(), target.len());
        for part in [line.as_bytes(), path, target] {
            self.said.write_all(part)?;
        }
        Ok(())
    }
}

/// The content of a file, at most as long as its header says.
struct Content<'a> {
    file: &'a std::fs::File,
    left: u64,
    said: &'a mut Hashing<io::Sink>,
    failed: Option<io::Error>,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let n = match self.file.read(&mut buffer[..want]) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Err(e),
            Err(e) => {
                self.failed = Some(e);
                return Err(io::Error::other("the file cannot be read"));
            }
            Ok(n) => n,
        };
        self.said.write_all(&buffer[..n])?;
        self.left -= n as u64;
        Ok(n)
    }
}

fn header(meta: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(meta.mode() & 0o7777);
    header.set_uid(meta.uid().into());
    header.set_gid(meta.gid().into());
    // Times before 1970 have no place in this header.
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
    header.set_size(0);
    header
}

fn now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

fn of_output(e: io::Error) -> Error {
    Error::new(Code::Io, "the files cannot be sent").because(&e)
}
