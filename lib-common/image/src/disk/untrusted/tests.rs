//! Disks as no mke2fs makes them.

use super::*;
use crate::disk::ext4::{CheckOutcome, Format, check, make_empty};
use crate::disk::look::{is_nested, is_nested_within, look_here};
use crate::disk::tree::{Bounds, write_within};
use lib_common::digest::of_bytes;
use lib_common::sys::cmd::Cmd;
use nix::time::{ClockId, clock_gettime};
use std::fs::OpenOptions;

const SIZE: u64 = 16 << 20;
const SUPERBLOCK: u64 = 1024;
const PATIENCE: Duration = Duration::from_secs(60);

/// Offsets of a superblock's fields, and bits of its features.
const BLOCKS: usize = 0x4;
const BLOCKS_PER_GROUP: usize = 0x20;
const INCOMPAT: usize = 0x60;
const RECOVER: u32 = 0x4;
const RO_COMPAT: usize = 0x64;
const METADATA_CSUM: u32 = 0x400;
const CHECKSUM: usize = 0x3fc;

/// An empty work disk in a directory of its own.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let disk = Disk { dir: tempfile::tempdir().unwrap() };
        let id = of_bytes(b"work");
        let format = Format { label: "work", id: &id, epoch: 1_500_000_000, root_mode: 0o700 };
        make_empty(&disk.path(), SIZE, format).unwrap();
        disk
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("disk")
    }

    /// Writes a superblock with these words, as whoever is root in a guest can.
    fn set(&self, words: &[(usize, u32)]) {
        let mut superblock = superblock(&self.path());
        words.iter().for_each(|(at, word)| set(&mut superblock, *at, *word));
        put(&self.path(), &mut superblock);
    }
}

fn superblock(path: &Path) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    File::open(path).unwrap().read_exact_at(&mut bytes, SUPERBLOCK).unwrap();
    bytes
}

fn get(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn set(bytes: &mut [u8], at: usize, word: u32) {
    bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
}

/// Writes it with the checksum that it has to have.
fn put(path: &Path, superblock: &mut [u8]) {
    let sum = crc32c(&superblock[..CHECKSUM]);
    set(superblock, CHECKSUM, sum);
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(superblock, SUPERBLOCK).unwrap();
}

fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum: u32, _| (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

/// Reads it in every way in which a disk of a guest is read.
fn read_in_every_way(path: &Path) {
    let _ = look_here(path, Patience::new(PATIENCE));
    let _ = ensure_sane(path);
    let _ = crate::disk::superblock::Superblock::read(path);
    let bounds = Bounds { bytes: SIZE, entries: 1000 };
    let _ = write_within(path, Path::new("/"), std::io::sink(), (bounds, Patience::new(PATIENCE)));
}

const VALUES: [u32; 4] = [0, 1, 0x7fff_ffff, 0xffff_ffff];

/// The words that say how large something is, where it is, or how it is to be read.
const TELLING: [usize; 14] =
    [0x0, BLOCKS, 0x14, 0x18, BLOCKS_PER_GROUP, 0x28, 0x58, 0x5c, INCOMPAT, RO_COMPAT, 0xe0, 0xfc, 0x150, 0x270];

/// Each word of a superblock with each value, and each two of those that are telling.
fn hostile() -> Vec<Vec<(usize, u32)>> {
    let each = |at: usize| VALUES.map(|value| (at, value));
    let single = (0..CHECKSUM).step_by(4).flat_map(each).map(|one| vec![one]);
    let pairs = TELLING.iter().enumerate().flat_map(|(n, a)| TELLING[n + 1..].iter().map(move |b| (*a, *b)));
    let pairs = pairs.flat_map(|(a, b)| each(a).into_iter().flat_map(move |a| each(b).map(|b| vec![a, b])));
    // What a guest did: more groups than there is memory for, and blocks of 2 GiB.
    let made = [vec![(BLOCKS, !0), (BLOCKS_PER_GROUP, 1)], vec![(0x18, 21)], vec![(BLOCKS, !0), (0x150, 0xffff)]];
    single.chain(pairs).chain(made).collect()
}

#[test]
fn whatever_a_superblock_says_it_is_read_in_little_memory_and_time() {
    const DISK: &str = "BG_TEST_HOSTILE_DISK";
    if let Some(path) = std::env::var_os(DISK) {
        return read_hostile(Path::new(&path));
    }
    let disk = Disk::new();
    // 64 MiB for all of the process.
    let script = "ulimit -d 65536 && ulimit -c 0 && exec \"$0\" \"$@\"";
    let name = format!("{}::whatever_a_superblock_says_it_is_read_in_little_memory_and_time", module_path!());
    let name = name.split_once("::").unwrap().1;
    let (exe, path) = (std::env::current_exe().unwrap(), disk.path());
    let cmd = Cmd::new("sh").args(["-c", script]).arg(exe).args(["--exact", name, "--nocapture"]);
    let said = cmd.env(DISK, &path).env("MALLOC_ARENA_MAX", "1").output(1 << 20).unwrap();
    assert!(String::from_utf8_lossy(&said).contains("1 passed"));
}

/// With a journal to be replayed and without, with checksums, of which the superblock's is right, and without.
fn read_hostile(path: &Path) {
    let ours = superblock(path);
    for (recover, checksums) in [(0, METADATA_CSUM), (0, 0), (RECOVER, METADATA_CSUM), (RECOVER, 0)] {
        let mut base = ours.clone();
        set(&mut base, INCOMPAT, get(&ours, INCOMPAT) | recover);
        set(&mut base, RO_COMPAT, get(&ours, RO_COMPAT) & !METADATA_CSUM | checksums);
        for words in hostile() {
            let mut superblock = base.clone();
            words.iter().for_each(|(at, word)| set(&mut superblock, *at, *word));
            put(path, &mut superblock);
            let used = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
            let before = used();
            read_in_every_way(path);
            assert!(
                used() - before < Duration::from_secs(1),
                "{recover} {checksums} {words:x?}: {:?}",
                used() - before
            );
        }
    }
}

#[test]
fn a_disk_with_more_groups_than_there_is_memory_for_is_refused_everywhere() {
    let disk = Disk::new();
    assert!(!is_nested(&disk.path()).unwrap());
    let features = superblock(&disk.path());
    let (incompat, ro_compat) = (get(&features, INCOMPAT), get(&features, RO_COMPAT));
    disk.set(&[(BLOCKS, !0), (BLOCKS_PER_GROUP, 1), (RO_COMPAT, ro_compat & !METADATA_CSUM)]);
    disk.set(&[(INCOMPAT, incompat | RECOVER)]);
    assert!(!is_nested_within(&disk.path(), PATIENCE));
    let e = is_nested(&disk.path()).unwrap_err();
    assert!(e.code() == Code::BadInput && e.causes()[0].contains("number of blocks"), "{e:?}");
    assert_eq!(e.get_hint(), Some(format!("e2fsck -fy {}", disk.path().display()).as_str()));
    match check(&disk.path()).unwrap() {
        CheckOutcome::Damaged(words) => assert!(words.contains("number of blocks"), "{words}"),
        other => panic!("{other:?}"),
    }
    let name = lib_common::doc::Name::parse("dev").unwrap();
    let checks = crate::disk::check_disk(&disk.path(), &name).unwrap();
    assert!(checks.iter().any(|c| !c.ok && c.message.contains("number of blocks")), "{checks:?}");
}

/// The journal's inode in the file.
fn journal_inode(path: &Path) -> u64 {
    let mut descriptor = [0; 64];
    File::open(path).unwrap().read_exact_at(&mut descriptor, 4096).unwrap();
    u64::from(get(&descriptor, 8)) * 4096 + 7 * 256
}

#[test]
fn a_journal_that_has_blocks_twice_or_none_is_refused() {
    let disk = Disk::new();
    let incompat = get(&superblock(&disk.path()), INCOMPAT);
    disk.set(&[(INCOMPAT, incompat | RECOVER)]);
    ensure_sane(&disk.path()).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(disk.path()).unwrap();
    let (at, mut inode) = (journal_inode(&disk.path()), [0; 256]);
    file.read_exact_at(&mut inode, at).unwrap();
    let (start, length) = (1000, get(&inode, 0x4) / 4096);
    let half = length / 2;
    // Header, then extents of first block, length and start.
    let node = |extents: &[[u32; 3]]| {
        let mut words = vec![0xf30a | u32::try_from(extents.len()).unwrap() << 16, 4, 0];
        words.extend(extents.iter().flatten());
        words
    };
    let cases: [(Vec<u32>, &str); 5] = [
        (node(&[[0, length, start]]), ""),
        (node(&[[0, half, start], [half, half, start]]), "twice"),
        (node(&[[0, half, start]]), "holes"),
        (node(&[[0, half, start], [half + 1, half, start + half]]), "holes"),
        (node(&[[0, length, 0x7fff_ffff]]), "not there"),
    ];
    for (words, expected) in cases {
        let mut changed = inode;
        words.iter().enumerate().for_each(|(n, word)| set(&mut changed, 0x28 + 4 * n, *word));
        file.write_all_at(&changed, at).unwrap();
        match ensure_sane(&disk.path()) {
            Ok(()) => assert_eq!(expected, ""),
            Err(e) => assert!(!expected.is_empty() && e.message().contains(expected), "{expected}: {e:?}"),
        }
    }
    disk.set(&[(0xe0, 11)]);
    assert!(ensure_sane(&disk.path()).unwrap_err().message().contains("inode 11"));
}

#[test]
fn no_more_is_read_than_is_allowed() {
    let disk = Disk::new();
    let refused = |bytes| matches!(open(&disk.path(), Patience::new(PATIENCE), bytes), Err(Unread::Refused(_)));
    assert!(refused(100));
    assert!(!refused(SIZE));
    let late = Patience::new(Duration::ZERO);
    match open(&disk.path(), late, SIZE) {
        Err(Unread::Refused(e)) => assert_eq!(e.code(), Code::TimedOut),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nobody_waits_for_what_has_no_end_and_a_panic_is_an_answer() {
    let (keep, never) = channel::<()>();
    let endless = move || {
        let _ = never.recv();
        Ok(())
    };
    match apart(Patience::new(Duration::from_millis(20)), endless) {
        Err(Unread::Refused(e)) => assert_eq!(e.code(), Code::TimedOut),
        other => panic!("{other:?}"),
    }
    drop(keep);
    let panicking = || -> Result<(), Unread> { panic!("as ext4-view does") };
    assert!(matches!(apart(Patience::new(PATIENCE), panicking), Err(Unread::Refused(_))));
    assert_eq!(apart(Patience::new(PATIENCE), || Ok(7)).unwrap(), 7);
}
