//! A small image made of small files, with the digests that they really have; its kernel is one that nobody refuses to
//! start and nobody could. And the foreign sections that every filter has to leave alone.

use super::{Done, Sandbox};
use lib_common::digest;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Two sections of somebody else. Each of their bytes is one that a careless reader changes: a number that no f64
/// holds, one that is infinite there, a minus zero, blanks, and escapes that need not be.
pub const FOREIGN: &str = r#""x":{"n":12345678901234567890123.4500,"a" : [1e400, -0]},"y":"\u0041\/\ud83d\ude00""#;

/// The size of a work disk in tests, as an option and in bytes.
pub const WORK: &str = "16M";
pub const WORK_BYTES: u64 = 16 << 20;

/// The release of the kernel of an image's files.
pub const RELEASE: &str = "6.1.0-test";

/// The files of an image, outside of any store.
pub struct Files {
    dir: PathBuf,
}

impl Files {
    /// Makes them in the sandbox. `mark` goes into the kernel, so that two images differ.
    pub fn new(sandbox: &Sandbox, mark: &str) -> Self {
        let dir = sandbox.path(&format!("files-{mark}"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("vmlinux"), [kernel(RELEASE), mark.into()].concat()).unwrap();
        std::fs::write(dir.join("initrd"), initrd(&[("init", mark.as_bytes())])).unwrap();
        std::fs::write(dir.join("manifest"), "{\"name\":\"a\",\"version\":\"1\",\"architecture\":\"all\"}\n").unwrap();
        std::fs::write(dir.join("rootfs.ext4"), rootfs()).unwrap();
        Files { dir }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// The `Image` document of the files as they are now, without a name.
    pub fn document(&self) -> Value {
        let path = |file: &str| self.path(file).display().to_string();
        let digest = |file: &str| digest::of_file(&self.path(file)).unwrap().to_string();
        json!({
            "api_version": "banger/v1",
            "kind": "Image",
            "kernel": {
                "version": RELEASE, "arch": std::env::consts::ARCH,
                "vmlinux": path("vmlinux"), "initrd": path("initrd"),
                "digests": {"vmlinux": digest("vmlinux"), "initrd": digest("initrd")},
            },
            "rootfs": {
                "distro": "debian", "release": "bookworm", "path": path("rootfs.ext4"),
                "size_bytes": self.path("rootfs.ext4").metadata().unwrap().len(), "digest": digest("rootfs.ext4"),
                "manifest": path("manifest"), "manifest_digest": digest("manifest"),
            },
        })
    }
}

/// What the tools take for a kernel of that release: an ELF for x86-64 with a PVH entry (elf(5), xen/elfnote.h).
pub fn kernel(release: &str) -> Vec<u8> {
    let note: Vec<u8> =
        [4_u32, 8, 18].iter().flat_map(|word| word.to_le_bytes()).chain(*b"Xen\0").chain([0; 8]).collect();
    let mut elf = vec![0; 64];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    for (at, value) in [(16, 2_u16), (18, 62), (32, 64), (54, 56), (56, 1), (58, 64)] {
        elf[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    // One segment of type PT_NOTE, right behind its own header.
    elf.extend(4_u64.to_le_bytes());
    let length = note.len() as u64;
    elf.extend([120, 0, 0, length, length, 4].iter().flat_map(|word: &u64| word.to_le_bytes()));
    elf.extend(note);
    elf.extend(format!("Linux version {release} (test@host) #1 SMP\0").bytes());
    elf
}

/// A raw cpio archive (the kernel's buffer-format.rst, "newc") of these files.
pub fn initrd(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = vec![];
    for (name, content) in files.iter().chain(&[("TRAILER!!!", &b""[..])]) {
        let numbers = [1, 0o100_755, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        archive.extend("070701".bytes().chain(numbers.iter().flat_map(|n| format!("{n:08x}").into_bytes())));
        archive.extend(name.bytes().chain([0]));
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(*content);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

/// With a section of somebody else at its end, as text.
pub fn with_foreign(doc: &str) -> String {
    format!("{},{FOREIGN}}}", doc.trim_end().strip_suffix('}').unwrap())
}

/// An image in the sandbox's store, without a seed.
pub fn register(sandbox: &Sandbox, name: &str) -> Done {
    let files = Files::new(sandbox, &format!("of-{name}"));
    let done = sandbox.run("bg-register", &["--name", name], files.document().to_string());
    done.ok();
    done
}

/// The `Machine` document of a VM that does not exist yet, with a small work disk. The image has to be there.
pub fn plan(sandbox: &Sandbox, name: &str) -> String {
    sandbox.run("bg-vm", &["plan", name, "--work-size", WORK], "").ok()
}

/// A VM that was made and not started. The image has to be there.
pub fn create(sandbox: &Sandbox, name: &str) -> Done {
    let done = sandbox.run("bg-vm", &["create", name, "--no-start", "--work-size", WORK], "");
    done.ok();
    done
}

/// Makes a stale work disk in the new file `path`: root's home is nested in its directory `root`.
pub fn nested_work_disk(path: &Path) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("root")).unwrap();
    std::fs::write(dir.path().join("root/.bashrc"), "# for tests\n").unwrap();
    make_ext4(dir.path(), path);
    for field in ["uid", "gid"] {
        let change = format!("set_inode_field /root {field} 0");
        let output = Command::new("debugfs").args(["-w", "-R", &change]).arg(path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A whole ext4 of 8 MiB with a home directory for root, made once.
fn rootfs() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (tree, file) = (dir.path().join("tree"), dir.path().join("ext4"));
        for below in ["root", "etc"] {
            std::fs::create_dir_all(tree.join(below)).unwrap();
        }
        std::fs::write(tree.join("root/.bashrc"), "# for tests\n").unwrap();
        std::fs::write(tree.join("etc/os-release"), "ID=debian\n").unwrap();
        make_ext4(&tree, &file);
        std::fs::read(file).unwrap()
    })
}

fn make_ext4(tree: &Path, file: &Path) {
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-t", "ext4", "-E", "root_owner=0:0", "-d"]).arg(tree).arg(file).arg("8M");
    let output = command.output().expect("mke2fs is installed by `make setup`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A document of files with a kernel of that release and its module tree.
pub fn with_kernel(sandbox: &Sandbox, mark: &str, release: &str) -> Value {
    let files = Files::new(sandbox, mark);
    std::fs::write(files.path("vmlinux"), kernel(release)).unwrap();
    let tree = files.path("lib/modules").join(release);
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("modules.dep"), mark).unwrap();
    let mut doc = files.document();
    doc["kernel"]["version"] = release.into();
    doc["kernel"]["modules"] = tree.to_str().unwrap().into();
    doc["kernel"]["digests"]["modules"] = digest::of_tree(&tree).unwrap().as_str().into();
    doc
}
