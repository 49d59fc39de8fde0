//! The whole test distribution as a repository, made once for what goes into it and kept in the user's cache.

use super::debian::{apt, control, repack};
use super::key::SigningKey;
use super::own;
use super::package::PackageSpec;
use super::repository::Repository;
use crate::support::{children, source};
use lib_common::digest::of_bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What of Debian is taken, with all that it depends on.
const WANTED: &[&str] = &[
    "bash",
    "busybox-static",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "e2fsprogs",
    "file",
    "findutils",
    "gawk",
    "grep",
    "gzip",
    "hostname",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "libc-bin",
    "libpam-modules",
    "login",
    "mount",
    "ncurses-base",
    "ncurses-bin",
    "openssh-client",
    "openssh-server",
    "passwd",
    "procps",
    "runit",
    "sed",
    "tar",
    "util-linux",
    "zstd",
];

/// Debian's own administration, which other packages take for granted, and what is replaced by packages of our own.
const EXCLUDED: &[&str] = &[
    "adduser",
    "base-files",
    "base-passwd",
    "debconf",
    "dpkg",
    "gcc-12-base",
    "init-system-helpers",
    "libpam-runtime",
    "lsb-base",
    "perl",
    "perl-base",
    "readline-common",
    "runit-helper",
    "sensible-utils",
    "sysuser-helper",
    "sysvinit-utils",
    "ucf",
    "usrmerge",
    "usr-is-merged",
];

/// The repository of the test distribution.
#[derive(Debug)]
pub struct Full {
    /// The packages, their signatures and the index.
    pub dir: PathBuf,
    /// The public half of the key that has signed them, in PEM.
    pub key: PathBuf,
}

/// For the architecture of this host. The first call in a process looks at what apt has now.
pub fn repository() -> &'static Full {
    static FULL: OnceLock<Full> = OnceLock::new();
    FULL.get_or_init(|| {
        let cache = cache_dir();
        let names = apt::closure(WANTED, EXCLUDED);
        let debs = apt::fetch(&names, &cache.join("debs"));
        let place = cache.join(key_of(&debs));
        if !place.is_dir() {
            remove_old(&cache);
            let staged = tempfile::Builder::new().prefix(".making-").tempdir_in(&cache).unwrap();
            make(&debs, staged.path());
            // Another process may have been faster: what it has made is the same.
            let renamed = std::fs::rename(staged.path(), &place);
            assert!(renamed.is_ok() || place.is_dir(), "{renamed:?}");
        }
        Full { dir: place.join("repository"), key: place.join("key.pem") }
    })
}

/// Removes repositories that nobody has made for a week.
fn remove_old(cache: &Path) {
    let week = std::time::Duration::from_secs(7 * 24 * 3600);
    for path in children(cache).into_iter().filter(|path| !path.ends_with("debs")) {
        let is_old = path.metadata().is_ok_and(|m| m.modified().unwrap().elapsed().is_ok_and(|age| age > week));
        if is_old {
            // Another process may do the same.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// All packages of the test distribution.
fn packages(debs: &[apt::Deb], key: &str) -> Vec<PackageSpec> {
    let controls: BTreeMap<String, (control::Control, &Path)> = debs
        .iter()
        .map(|deb| control::Control::of(&deb.path))
        .zip(debs)
        .map(|(control, deb)| (control.name.clone(), (control, deb.path.as_path())))
        .collect();
    let all = controls.iter().map(|(name, (control, _))| (name.clone(), control.clone())).collect();
    let mut specs: Vec<PackageSpec> = control::depends(&all, WANTED)
        .into_iter()
        .map(|(name, depends)| {
            let (control, deb) = &controls[name];
            repack::repack(deb, control, depends)
        })
        .collect();
    specs.extend(own::packages(key));
    specs
}

fn make(debs: &[apt::Deb], to: &Path) {
    let key = SigningKey::generate(to);
    std::fs::write(to.join("key.pem"), &key.public).unwrap();
    let dir = to.join("repository");
    std::fs::create_dir(&dir).unwrap();
    let repository = Repository::new(&dir).sign(&key);
    packages(debs, &key.public).iter().fold(repository, Repository::add).write(std::env::consts::ARCH);
}

/// A digest of the packages and of the code that packs them.
fn key_of(debs: &[apt::Deb]) -> String {
    let mut inputs: Vec<String> = debs.iter().map(|deb| deb.sha256.clone()).collect();
    inputs.extend(source::files("tests/support/xbps", "").into_iter().map(|(path, text)| format!("{path}\n{text}")));
    of_bytes(inputs.join("\n").as_bytes()).hex()[..16].to_owned()
}

fn cache_dir() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).unwrap();
    let dir = cache.join("banger/void-tests");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}
