//! Repairs of real ext4 disks, mounted as the guest mounts them: crashes with a journal to replay, a full disk, attributes.
//! Only root can mount; an ordinary user's run says that these did not run.

// Tests mount disks as a person does.
#![allow(clippy::disallowed_types)]

use super::support::{Tree, dir, file, mend, mend_until, snapshot};
use super::{hostile, not_run};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Runs a program that must succeed.
fn run(program: &str, args: &[&str], paths: &[&Path]) -> String {
    let output = Command::new(program).args(args).args(paths).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}");
    text
}

/// One at a time: a program that another test starts has this one's open files between fork and exec, and a disk with an
/// open file cannot be unmounted. `None` for whom mounting is not allowed.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    if nix::unistd::geteuid().is_root() {
        return Some(TURN.lock().unwrap_or_else(PoisonError::into_inner));
    }
    not_run("only root can mount a disk");
    None
}

/// A disk in a file, and where to mount it.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// With a tree's content, as a tool makes it that copies a directory.
    fn new(tree: &Tree) -> Self {
        let disk = Disk { dir: tempfile::tempdir().unwrap() };
        let from = tree.home().to_str().unwrap();
        run("mke2fs", &["-q", "-t", "ext4", "-O", "orphan_file", "-d", from], &[&disk.file(), Path::new("16M")]);
        disk
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("work.ext4")
    }

    /// What debugfs(8) changes on the disk while nobody has it mounted.
    fn debugfs(&self, command: &str) {
        run("debugfs", &["-w", "-R", command], &[&self.file()]);
    }

    fn mount(&self) -> Mounted<'_> {
        let at = self.dir.path().join("mounted");
        fs_err::create_dir_all(&at).unwrap();
        run("mount", &["-t", "ext4", "-o", "loop"], &[&self.file(), &at]);
        Mounted { disk: self, at }
    }

    /// As the disk is now, for a power cut: what the journal has is not where it belongs yet.
    fn copy(&self) -> Disk {
        let copy = Disk { dir: tempfile::tempdir().unwrap() };
        run("cp", &["--sparse=always"], &[&self.file(), &copy.file()]);
        copy
    }

    fn is_sound(&self) {
        run("e2fsck", &["-f", "-n"], &[&self.file()]);
    }
}

struct Mounted<'a> {
    disk: &'a Disk,
    at: PathBuf,
}

impl Mounted<'_> {
    fn sync(&self) {
        nix::unistd::syncfs(fs_err::File::open(&self.at).unwrap()).unwrap();
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        run("umount", &[], &[&self.at]);
        if !std::thread::panicking() {
            self.disk.is_sound();
        }
    }
}

#[test]
fn a_disk_ends_as_a_directory_does_and_stays_so_without_a_sync() {
    let Some(_turn) = turn() else { return };
    let tree = Tree::new(&hostile());
    let disk = Disk::new(&tree);
    let told = mend(tree.home());
    let mounted = disk.mount();
    let on_disk = mend(&mounted.at);
    assert_eq!(snapshot(&mounted.at), snapshot(tree.home()));
    assert_eq!((on_disk.notes, &on_disk.warnings[0]), (told.notes, &told.warnings[0]));
    // The power fails right after it: the repair's own sync is enough.
    let after = disk.copy();
    let again = after.mount();
    assert_eq!(mend_until(&again.at, 0).0.unwrap().notes, [""; 0]);
    assert_eq!(snapshot(&again.at), snapshot(tree.home()));
}

#[test]
fn a_power_cut_at_any_point_is_recovered_from() {
    let Some(_turn) = turn() else { return };
    let tree = Tree::new(&hostile());
    let fresh = Disk::new(&tree);
    let (_, changes) = mend_until(tree.home(), usize::MAX);
    let expected = snapshot(tree.home());
    for n in 0..=changes {
        let disk = fresh.copy();
        let mounted = disk.mount();
        mend_until(&mounted.at, n);
        // So much of it was in the journal.
        mounted.sync();
        let cut = disk.copy();
        let after = cut.mount();
        assert_eq!(mend(&after.at).problems, [""; 0], "{n}");
        assert_eq!(snapshot(&after.at), expected, "{n}");
    }
}

#[test]
fn a_full_disk_loses_nothing_and_is_mended_once_there_is_room() {
    let Some(_turn) = turn() else { return };
    let entries = [
        file(b".bashrc", b"above"),
        file(b"root/.bashrc", b"nested"),
        file(b"root/.profile", b"profile"),
        dir(b"root/src"),
    ];
    let disk = Disk::new(&Tree::new(&entries));
    let mounted = disk.mount();
    let filler = mounted.at.join("filler");
    fs_err::create_dir(&filler).unwrap();
    // Without an inode no directory for the conflict can be made.
    let inodes = (0..).find(|n: &u32| fs_err::write(filler.join(n.to_string()), "").is_err()).unwrap();
    assert!(inodes > 100);
    let told = mend(&mounted.at);
    assert!(told.problems[0].contains("1 failed") && told.problems[1].contains(".bashrc: No space left"), "{told:?}");
    assert_eq!(fs_err::read(mounted.at.join(".bashrc")).unwrap(), b"above");
    assert_eq!(fs_err::read(mounted.at.join(".banger-nested/.bashrc")).unwrap(), b"nested");
    assert_eq!(fs_err::read(mounted.at.join(".profile")).unwrap(), b"profile", "the others went up");
    fs_err::remove_dir_all(&filler).unwrap();
    let told = mend(&mounted.at);
    assert_eq!((told.problems.len(), told.notes.len(), told.warnings.len()), (0, 1, 2));
    assert_eq!(fs_err::read(mounted.at.join(".banger-conflicts/.bashrc")).unwrap(), b"nested");
    assert!(!mounted.at.join(".banger-nested").exists());
}

#[test]
fn what_cannot_be_moved_stays_and_does_not_hold_up_the_rest() {
    let Some(_turn) = turn() else { return };
    let entries = [
        file(b"root/.bashrc", b"fixed"),
        file(b"root/src/a", b"fixed too"),
        dir(b"src"),
        file(b"root/z", b""),
        file(b"root/src/b", b""),
        file(b"x", b"alike"),
        file(b"root/x", b"alike"),
    ];
    let disk = Disk::new(&Tree::new(&entries));
    // Immutable; and an attribute that the copy above does not have.
    disk.debugfs("set_inode_field /root/.bashrc flags 0x80010");
    disk.debugfs("set_inode_field /root/src/a flags 0x80010");
    disk.debugfs("ea_set /root/x user.mine value");
    let mounted = disk.mount();
    let told = mend(&mounted.at);
    assert!(told.problems[0].contains("2 failed") && told.notes.is_empty(), "{told:?}");
    assert!(told.problems.iter().any(|p| p.contains("src/a: Operation not permitted")), "{told:?}");
    for there in ["z", "src/b", ".banger-nested/.bashrc", ".banger-nested/src/a", ".banger-conflicts/x"] {
        assert!(mounted.at.join(there).exists(), "{there}");
    }
    run("chattr", &["-i"], &[&mounted.at.join(".banger-nested/.bashrc"), &mounted.at.join(".banger-nested/src/a")]);
    let told = mend(&mounted.at);
    assert!(told.problems.is_empty() && told.notes[0].contains("moved up 2"), "{told:?}");
    assert_eq!(fs_err::read(mounted.at.join("src/a")).unwrap(), b"fixed too");
}
