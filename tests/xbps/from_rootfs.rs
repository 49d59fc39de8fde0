//! Void's root tarball, given to `bg-rootfs build --from-rootfs`: what was signed becomes a root file system, and whatever else
//! lies there is refused before any guest is booted.

#![allow(clippy::disallowed_types)]

use crate::support::fixture::Files;
use crate::support::xbps::release::{Entry, Release, tar_of};
use crate::support::{Done, Sandbox, children};
use lib_common::timing::Stages;
use lib_image::build::void::release::{Recipe, check};
use std::path::PathBuf;
use std::process::Command;
use tar::EntryType;

/// What a guest needs, as the package database has it.
const PACKAGES: &[&str] = &["bash", "iproute2", "openssh", "runit-void", "xbps"];
/// cap_net_raw+ep, as the kernel keeps it (linux/capability.h, revision 2).
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn database(packages: &[&str]) -> Entry {
    let entry = |name: &&str| {
        format!(
            "<key>{name}</key><dict><key>architecture</key><string>noarch</string><key>pkgver</key>\
             <string>{name}-1.0_1</string><key>state</key><string>installed</string></dict>"
        )
    };
    let entries: String = packages.iter().map(entry).collect();
    let text = format!(
        "<?xml version=\"1.0\"?>\n<plist version=\"1.0\"><dict>{entries}<key>_XBPS_ALTERNATIVES_</key><dict></dict></dict></plist>\n"
    );
    Entry::new(EntryType::Regular, "./var/db/xbps/pkgdb-0.38.plist", text.as_bytes())
}

fn good() -> Vec<Entry> {
    let mut all = vec![
        Entry::new(EntryType::Directory, "./", b""),
        Entry::new(EntryType::Directory, "./usr/", b""),
        Entry::new(EntryType::Directory, "./usr/share/private/", b""),
        Entry::new(EntryType::Regular, "./usr/bin/ping", b"ping\n"),
        Entry::new(EntryType::Link, "./usr/bin/ping6", b"./usr/bin/ping"),
        Entry::new(EntryType::Symlink, "./bin", b"usr/bin"),
        Entry::new(EntryType::Regular, "./etc/hostname", b"theirs\n"),
        Entry::new(EntryType::Char, "./dev/null", b""),
        Entry::new(EntryType::Symlink, "./etc/runit/runsvdir/default/agetty-tty1", b"/etc/sv/agetty-tty1"),
        Entry::new(EntryType::Symlink, "./etc/runit/runsvdir/default/udevd", b"/etc/sv/udevd"),
        database(PACKAGES),
    ];
    (all[2].mode, all[3].mode, all[4].mode) = (0o750, 0o4755, 0o4755);
    all[3].capability = Some(CAPABILITY.to_vec());
    all
}

fn build(sandbox: &Sandbox, options: &[&str]) -> Done {
    let files = Files::new(sandbox, &format!("kernel-{}", children(&sandbox.path("")).len()));
    let args = [&["build", "--distro", "void"], options].concat();
    sandbox.run("bg-rootfs", &args, files.document().to_string())
}

/// It is refused with that code and these words, and nothing is left.
#[track_caller]
fn refused(sandbox: &Sandbox, options: &[&str], code: &str, words: &[&str]) {
    let doc = build(sandbox, options).failed();
    let said = format!("{} {:?} {:?}", doc.message, doc.causes, doc.hint);
    assert!(doc.code == code && words.iter().all(|word| said.contains(word)), "{words:?}: {} {said}", doc.code);
    let roots = children(&sandbox.path("cache/rootfs")).into_iter().filter(|path| path.is_dir());
    assert_eq!(roots.collect::<Vec<_>>(), Vec::<PathBuf>::new(), "no root file system");
    assert_eq!(children(&sandbox.state("machines")), Vec::<PathBuf>::new(), "no guest");
}

fn debugfs(image: &std::path::Path, request: &str) -> String {
    let output = Command::new("/sbin/debugfs").arg("-R").arg(request).arg(image).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_signed_tarball_becomes_a_root_with_what_every_image_has() {
    let dir = tempfile::tempdir().unwrap();
    let release = Release::new(&dir.path().join("release"), &tar_of(&good()));
    let recipe = Recipe { file: release.tarball.clone(), key: Some(release.key.clone()), size: 64 << 20 };
    let made = ["one", "two"].map(|cache| {
        let mut stages = Stages::new("test", None);
        let checked = check(&recipe, &dir.path().join(cache), &mut stages).unwrap();
        assert!(checked.arch() == std::env::consts::ARCH && checked.cached().is_none());
        let made = checked.make(&mut stages).unwrap();
        (lib_common::digest::of_file(&made.image()).unwrap(), made)
    });
    assert_eq!(made[0].0, made[1].0, "the same tarball gives the same bytes");
    let image = made[0].1.image();
    for (request, expected) in [
        ("cat /usr/bin/ping", "ping\n"),
        ("cat /bin/ping6", "ping\n"),
        ("cat /etc/hostname", "localhost\n"),
        ("cat /var/lib/banger/configure/list", &format!("001 banger 1 {}\n", std::env::consts::ARCH)),
    ] {
        assert_eq!(debugfs(&image, request), expected, "{request}");
    }
    for (request, word) in [
        ("stat /usr/bin/ping", "Mode:  04755"),
        ("stat /usr/share/private", "Mode:  0750"),
        ("ea_list /usr/bin/ping", "security.capability (20)"),
        ("stat /etc/runit/runsvdir/default/udevd", "Type: symlink"),
        ("stat /etc/runit/runsvdir/default/sshd", "Type: symlink"),
    ] {
        assert!(debugfs(&image, request).contains(word), "{request}: {}", debugfs(&image, request));
    }
    for gone in ["/dev/null", "/etc/runit/runsvdir/default/agetty-tty1"] {
        assert_eq!(debugfs(&image, &format!("stat {gone}")), "", "{gone}");
    }
}

#[test]
fn what_was_not_signed_is_refused() {
    let sandbox = Sandbox::new();
    let fresh = |name: &str| Release::new(&sandbox.path(name), &tar_of(&good()));
    let release = fresh("a");
    let sums = std::fs::read_to_string(release.dir.join("sha256sum.txt")).unwrap();
    let tarball = release.tarball.to_str().unwrap();

    refused(&sandbox, &["--from-rootfs", tarball], "permission", &["not trusted", "--key"]);
    let other = fresh("other");
    let key = other.key.to_str().unwrap();
    refused(&sandbox, &["--from-rootfs", tarball, "--key", key], "permission", &["not trusted"]);
    refused(&sandbox, &["--from-rootfs", tarball, "--key", tarball], "bad_input", &["is not text"]);
    let text = release.dir.join("sha256sum.txt");
    let no_key = ["--from-rootfs", tarball, "--key", text.to_str().unwrap()];
    refused(&sandbox, &no_key, "bad_input", &["is no public key"]);

    std::fs::write(release.dir.join("sha256sum.txt"), sums.replace("live", "evil")).unwrap();
    refused(&sandbox, &release.options(), "digest_mismatch", &["is not what was signed"]);
    std::fs::write(release.dir.join("sha256sum.txt"), &sums).unwrap();
    std::fs::write(release.dir.join("sha256sum.sig"), "untrusted comment: x\nxx\n").unwrap();
    refused(&sandbox, &release.options(), "bad_input", &["no signature"]);
    std::fs::remove_file(release.dir.join("sha256sum.sig")).unwrap();
    refused(&sandbox, &release.options(), "missing_file", &["sha256sum.sig", "download"]);

    release.sign("SHA256 (void-live.iso) = 00\n");
    refused(&sandbox, &release.options(), "bad_input", &["does not list", "same release"]);
    release.sign(&sums);
    let mut bytes = std::fs::read(&release.tarball).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&release.tarball, &bytes).unwrap();
    refused(&sandbox, &release.options(), "digest_mismatch", &["damaged or another one"]);
    std::fs::remove_file(&release.tarball).unwrap();
    refused(&sandbox, &release.options(), "missing_file", &["ROOTFS"]);
    refused(&sandbox, &["--from-rootfs", "/etc/passwd"], "bad_input", &["passwd", "keep its name"]);
}

#[test]
fn a_hostile_or_useless_tarball_is_refused_though_it_is_signed() {
    let sandbox = Sandbox::new();
    let file = |path: &str| Entry::new(EntryType::Regular, path, b"escaped\n");
    let link = |path: &str, to: &[u8]| Entry::new(EntryType::Symlink, path, to);
    let cases: [(&str, Vec<Entry>, &str); 9] = [
        ("out", vec![file("./../escaped")], "leads elsewhere"),
        ("absolute", vec![file("/escaped")], "does not begin with"),
        ("below a link", vec![link("./out", b"../.."), file("./out/escaped")], "below a link"),
        (
            "a directory below a link",
            vec![link("./o", b"/"), Entry::new(EntryType::Directory, "./o/x/", b"")],
            "is a link or file",
        ),
        ("a hard link out", vec![Entry::new(EntryType::Link, "./x", b"/etc/passwd")], "hard link"),
        ("a device", vec![Entry::new(EntryType::Block, "./usr/disk", b"")], "neither a file nor a link"),
        ("twice", vec![file("./x"), file("./x")], "twice"),
        ("no database", vec![], "has no var/db/xbps"),
        ("no sshd", vec![database(&["bash", "iproute2", "runit-void", "xbps"])], "`openssh`"),
    ];
    for (what, more, says) in cases {
        let mut all = good();
        all.pop();
        all.extend(more);
        if !["no database", "no sshd"].contains(&what) {
            all.push(database(PACKAGES));
        }
        let release = Release::new(&sandbox.path(what), &tar_of(&all));
        refused(&sandbox, &release.options(), "bad_input", &["ROOTFS-20250202", says]);
    }
    let whole = tar_of(&good());
    let release = Release::new(&sandbox.path("cut"), &whole[..whole.len() / 1024 * 512]);
    refused(&sandbox, &release.options(), "bad_input", &["ROOTFS-20250202"]);
    let escaped = children(&sandbox.path("")).into_iter().filter(|path| path.ends_with("escaped"));
    assert_eq!(escaped.count(), 0);
}

#[test]
fn what_is_for_packages_does_not_go_with_a_tarball() {
    let sandbox = Sandbox::new();
    for more in
        [&["--lock", "x"][..], &["--repository", "/r"], &["--packages", "vim"], &["--dry-run"], &["--arch", "x86_64"]]
    {
        let options = [&["--from-rootfs", "/void-x86_64-ROOTFS-1.tar"], more].concat();
        refused(&sandbox, &options, "usage", &["--from-rootfs"]);
    }
    let done = sandbox.run("bg-rootfs", &["build", "--distro", "debian", "--from-rootfs", "/x"], "");
    assert!(done.failed().message.contains("--from-rootfs is for --distro void"));
}
