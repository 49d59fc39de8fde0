//! Initrds: the base that a kernel's VMs share, and the whole that one boot gets. Owns their layout, which `/init`
//! relies on; knows nothing of where the agent and the modules come from.
//!
//! Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst ("newc", concatenated archives).

use cpio::newc::{Builder, ModeFileType};
use lib_common::doc::{IDENTITY_PATH, Identity, MODULES_DIR, MODULES_LIST, to_json};
use lib_common::error::{Code, Context, Error, Result};
use lib_common::sys::plain;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use zeroize::Zeroizing;

/// An assembled initrd is a multiple of this, in bytes: a page.
pub const ALIGNMENT: u64 = 4096;

/// What `/init` mounts on, and the modes.
const DIRS: [(&str, u32); 7] = [
    ("banger", 0o700),
    ("banger/modules", 0o700),
    ("dev", 0o755),
    ("newroot", 0o755),
    ("proc", 0o755),
    ("run", 0o755),
    ("sys", 0o755),
];

/// A module for the initrd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its file name, `virtio_blk.ko`.
    pub file: String,
    /// Uncompressed.
    pub bytes: Vec<u8>,
}

/// Writes the base initrd: `agent` as `/init`, the directories it mounts on, and `modules` with a list in their order,
/// which is that of loading. The same input gives the same bytes: no times, owners 0, inodes counted, names sorted.
///
/// It is raw, since that unpacks fastest and since another archive can follow only a raw one without care for padding.
pub fn write_base(out: &mut impl Write, agent: &Path, modules: &[Module]) -> Result<()> {
    let list: String = modules.iter().map(|m| format!("{}\n", m.file)).collect();
    let mut entries: Vec<(String, Entry<'_>)> = vec![
        ("init".to_owned(), Entry::Copy(0o755, agent)),
        // The kernel opens it for /init's streams; its own built-in archive has one too, unless that was configured away.
        ("dev/console".to_owned(), Entry::Device(0o600, 5, 1)),
        (relative(MODULES_LIST).to_owned(), Entry::File(0o600, list.as_bytes())),
    ];
    entries.extend(DIRS.map(|(name, mode)| (name.to_owned(), Entry::Dir(mode))));
    entries.extend(
        modules.iter().map(|m| (format!("{}/{}", relative(MODULES_DIR), m.file), Entry::File(0o600, &m.bytes))),
    );
    // A directory sorts before what is in it.
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    write_archive(out, &entries)
}

/// Writes the initrd of one boot: the base, then an archive with the identity alone (the kernel unpacks one after the
/// other), then zeros up to a multiple of [`ALIGNMENT`]. Gives the length in bytes.
///
/// Each archive begins at a multiple of 4, where alone the kernel looks for one. The zeros at the end matter: without
/// them the initrd's last page can overlap the ACPI tables that QEMU's microvm puts near it. Of 24 unpadded lengths spread
/// over a page (512 MiB of memory), the five with more than 3,200 bytes in the last page hung; padded, none did in 24 boots.
pub fn assemble(base: &Path, identity: &Identity, out: &mut impl Write) -> Result<u64> {
    // A file of std's own, which the kernel copies without this process.
    let mut file = plain::named(base)?;
    let mut start = [0; 6];
    let is_cpio = file.read_exact_at(&mut start, 0).is_ok() && start == *b"070701";
    if !is_cpio {
        return Err(Error::new(Code::BadInput, format!("{} is not a raw cpio archive", base.display())));
    }
    let mut length = io::copy(&mut file, out)?;
    length += pad(out, length, 4)?;
    let identity = Zeroizing::new(to_json(identity));
    let entries = [
        ("banger".to_owned(), Entry::Dir(0o700)),
        (relative(IDENTITY_PATH).to_owned(), Entry::File(0o600, identity.as_bytes())),
    ];
    // With room for all of it: what a vector outgrows is not overwritten.
    let mut second = Zeroizing::new(Vec::with_capacity(identity.len() + 4096));
    write_archive(&mut *second, &entries)?;
    out.write_all(&second)?;
    length += second.len() as u64;
    length += pad(out, length, ALIGNMENT)?;
    Ok(length)
}

/// What an archive can have.
enum Entry<'a> {
    Dir(u32),
    File(u32, &'a [u8]),
    /// The file at that path.
    Copy(u32, &'a Path),
    Device(u32, u32, u32),
}

fn write_archive(out: &mut impl Write, entries: &[(String, Entry<'_>)]) -> Result<()> {
    for (inode, (name, entry)) in (1..).zip(entries) {
        // Of a name twice the kernel would keep the last.
        let header = Builder::new(name).ino(inode).nlink(1);
        match entry {
            Entry::Dir(mode) => {
                header.mode(*mode).set_mode_file_type(ModeFileType::Directory).nlink(2).write(&mut *out, 0).finish()?;
            }
            Entry::Device(mode, major, minor) => {
                let header = header.mode(*mode).set_mode_file_type(ModeFileType::Char);
                header.rdev_major(*major).rdev_minor(*minor).write(&mut *out, 0).finish()?;
            }
            Entry::File(mode, bytes) => {
                let header = header.mode(*mode).set_mode_file_type(ModeFileType::Regular);
                write_file(out, header, &mut &bytes[..], bytes.len() as u64)?;
            }
            Entry::Copy(mode, path) => {
                let mut file = plain::named(path)?;
                let header = header.mode(*mode).set_mode_file_type(ModeFileType::Regular);
                let length = file.metadata()?.len();
                write_file(out, header, &mut file, length).context(format!("cannot archive {}", path.display()))?;
            }
        }
    }
    cpio::newc::trailer(out)?;
    Ok(())
}

/// Exactly `length` bytes, since the header has said so.
fn write_file(out: &mut impl Write, header: Builder, input: &mut impl Read, length: u64) -> Result<()> {
    let Ok(size) = u32::try_from(length) else {
        return Err(Error::new(Code::BadInput, "a file of an initrd has to be smaller than 4 GiB"));
    };
    let mut writer = header.write(&mut *out, size);
    if io::copy(&mut input.take(length), &mut writer)? < length {
        return Err(Error::new(Code::Io, "the file became shorter while it was read"));
    }
    writer.finish()?;
    Ok(())
}

/// Zeros from `length` up to a multiple of `alignment`; gives their number.
fn pad(out: &mut impl Write, length: u64, alignment: u64) -> Result<u64> {
    let count = length.next_multiple_of(alignment) - length;
    io::copy(&mut io::repeat(0).take(count), out)?;
    Ok(count)
}

/// Archives name files relative to the root.
fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_err as fs;

    fn identity(extra: usize) -> Identity {
        Identity {
            machine_id: "0".repeat(32),
            hostname: "x".repeat(extra),
            authorized_keys: vec![],
            host_key: "".into(),
            host_key_public: String::new(),
            second_disk: lib_common::doc::SecondDisk::Work,
            proxy_port: None,
            net: None,
            hosts: vec![],
            configure: false,
        }
    }

    /// Name, mode, device and content.
    type Found<N, C> = (N, u32, (u32, u32), C);

    /// Every entry of all archives in `bytes`; what lies between them is zeros.
    fn read_all(mut bytes: &[u8]) -> Vec<Found<String, Vec<u8>>> {
        let (mut found, total) = (vec![], bytes.len());
        loop {
            let zeros = bytes.iter().take_while(|b| **b == 0).count();
            bytes = &bytes[zeros..];
            if bytes.is_empty() {
                return found;
            }
            assert_eq!((total - bytes.len()) % 4, 0, "an archive begins at a multiple of 4");
            loop {
                let mut reader = cpio::newc::Reader::new(bytes).unwrap();
                let entry = reader.entry().clone();
                let mut content = vec![];
                reader.read_to_end(&mut content).unwrap();
                bytes = reader.finish().unwrap();
                if entry.is_trailer() {
                    break;
                }
                assert_eq!((entry.uid(), entry.gid(), entry.mtime()), (0, 0, 0));
                found.push((entry.name().to_owned(), entry.mode(), (entry.rdev_major(), entry.rdev_minor()), content));
            }
        }
    }

    fn base(dir: &Path) -> Vec<u8> {
        let agent = dir.join("agent");
        fs::write(&agent, b"agent!!").unwrap();
        let module = |file: &str, bytes: &[u8]| Module { file: file.into(), bytes: bytes.into() };
        let modules = [module("virtio.ko", b"one"), module("virtio_blk.ko", b"two"), module("a.ko", b"")];
        let mut out = vec![];
        write_base(&mut out, &agent, &modules).unwrap();
        out
    }

    #[test]
    fn the_base_has_what_init_relies_on() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = base(dir.path());
        assert!(bytes == base(dir.path()), "the same bytes again");
        let expected: &[Found<&str, &[u8]>] = &[
            ("banger", 0o40700, (0, 0), b""),
            ("banger/modules", 0o40700, (0, 0), b""),
            ("banger/modules/a.ko", 0o100_600, (0, 0), b""),
            ("banger/modules/list", 0o100_600, (0, 0), b"virtio.ko\nvirtio_blk.ko\na.ko\n"),
            ("banger/modules/virtio.ko", 0o100_600, (0, 0), b"one"),
            ("banger/modules/virtio_blk.ko", 0o100_600, (0, 0), b"two"),
            ("dev", 0o40755, (0, 0), b""),
            ("dev/console", 0o20600, (5, 1), b""),
            ("init", 0o100_755, (0, 0), b"agent!!"),
            ("newroot", 0o40755, (0, 0), b""),
            ("proc", 0o40755, (0, 0), b""),
            ("run", 0o40755, (0, 0), b""),
            ("sys", 0o40755, (0, 0), b""),
        ];
        let found = read_all(&bytes);
        let found: Vec<_> = found.iter().map(|(n, m, d, c)| (n.as_str(), *m, *d, c.as_slice())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_whole_initrd_is_pages_whatever_its_lengths() {
        let dir = tempfile::tempdir().unwrap();
        let (path, base) = (dir.path().join("initrd"), base(dir.path()));
        // A base of any length, as another tool could have made it; identities across a page.
        let cases = (0..5).map(|tail| (tail, 7)).chain((0..4200).step_by(13).map(|extra| (0, extra)));
        for (tail, extra) in cases {
            fs::write(&path, [&base[..], &vec![0; tail]].concat()).unwrap();
            let mut whole = vec![];
            let length = assemble(&path, &identity(extra), &mut whole).unwrap();
            assert_eq!(length, whole.len() as u64);
            assert_eq!(length % ALIGNMENT, 0, "{tail} {extra}");
            assert!(whole.starts_with(&base));
            let entries = read_all(&whole);
            let (name, mode, _, content) = entries.last().unwrap();
            assert_eq!((name.as_str(), *mode), ("banger/identity.json", 0o100_600));
            let text = std::str::from_utf8(content).unwrap();
            assert_eq!(lib_common::doc::strict::<Identity>(text).unwrap(), identity(extra));
        }
    }

    #[test]
    fn a_base_that_is_no_cpio_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [&b""[..], b"0707", b"\x1f\x8b\x08\0\0\0\0"] {
            let path = dir.path().join("initrd");
            fs::write(&path, bytes).unwrap();
            assert_eq!(assemble(&path, &identity(0), &mut vec![]).unwrap_err().code(), Code::BadInput);
        }
    }
}
