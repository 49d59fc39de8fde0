//! Where programs are, and which Debian package has one that is missing.

use super::cmd::quote;
use crate::error::{Code, Error, Result};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where Debian has administrators' programs, such as mke2fs and nft, which an ordinary user's `PATH` lacks.
const SBIN: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The absolute path of a program: a path as it is, a name by `PATH` and then in `/usr/sbin` and `/sbin`. For a program that
/// another process will start, in another directory. [`Code::MissingProgram`] names the package that has it.
pub fn find(program: &Path) -> Result<PathBuf> {
    find_in(program, &std::env::var_os("PATH").unwrap_or_default(), &SBIN.map(PathBuf::from))
}

fn find_in(program: &Path, path: &OsStr, sbin: &[PathBuf]) -> Result<PathBuf> {
    let executable =
        |p: &PathBuf| std::fs::metadata(p).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let found = if program.components().count() > 1 {
        std::path::absolute(program).ok().filter(executable)
    } else {
        // An empty entry is the working directory: not a place to take programs from.
        let dirs = std::env::split_paths(path).filter(|dir| dir.is_absolute()).chain(sbin.iter().cloned());
        dirs.map(|dir| dir.join(program)).find(executable)
    };
    found.ok_or_else(|| missing(program))
}

/// A program's name as a user types it: the name where `PATH` has it, else its absolute path, since Debian's `PATH` of an
/// ordinary user lacks `/usr/sbin`.
pub fn typed(name: &str) -> String {
    typed_in(name, &std::env::var_os("PATH").unwrap_or_default(), &SBIN.map(PathBuf::from))
}

fn typed_in(name: &str, path: &OsStr, sbin: &[PathBuf]) -> String {
    let named = Path::new(name);
    match (find_in(named, path, &[]), find_in(named, path, sbin)) {
        (Err(_), Ok(found)) => found.display().to_string(),
        _ => name.to_owned(),
    }
}

/// `PATH` for the programs that a program of ours starts in its turn: ours, then `/usr/sbin` and `/sbin`; `None` where it has both.
pub(super) fn path_of_children() -> Option<OsString> {
    path_with(&std::env::var_os("PATH")?, &SBIN.map(PathBuf::from))
}

fn path_with(path: &OsStr, sbin: &[PathBuf]) -> Option<OsString> {
    let has = |dir: &PathBuf| std::env::split_paths(path).any(|entry| entry == *dir);
    let lacking: Vec<&PathBuf> = sbin.iter().filter(|dir| !has(dir)).collect();
    let mut longer = path.to_owned();
    for dir in &lacking {
        longer.push(":");
        longer.push(dir);
    }
    (!lacking.is_empty()).then_some(longer)
}

/// A pipeline as a user types it: the installed one's path, in `../libexec/banger/pipelines` from the tool, else its path in the
/// source tree.
pub fn pipeline(name: &str) -> String {
    let exe = std::env::current_exe().ok();
    let prefix = exe.as_deref().and_then(Path::parent).and_then(Path::parent);
    let installed =
        prefix.map(|prefix| prefix.join("libexec/banger/pipelines").join(name)).filter(|path| path.is_file());
    installed.map_or_else(|| format!("pipelines/{name}"), |path| quote(&path.display().to_string()))
}

/// The error for a program that is not there.
pub fn missing(program: &Path) -> Error {
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    let error = Error::new(Code::MissingProgram, format!("the program `{name}` is not installed"));
    match package_of(&name) {
        Some(package) => error.hint(format!("apt-get install {package}")),
        None if name == "vhost-device-vsock" => error.hint("cargo install vhost-device-vsock --version 0.3.0 --locked"),
        None if name == "firecracker" => error
            .hint("put a release of Firecracker into PATH, or name it by BG_FIRECRACKER; `--vmm qemu` does without"),
        None => error,
    }
    .detail("program", program.display().to_string())
}

/// The Debian package that has a program.
fn package_of(program: &str) -> Option<&'static str> {
    Some(match program {
        "mke2fs" | "resize2fs" | "e2fsck" | "debugfs" => "-t bookworm-backports e2fsprogs libarchive13",
        "mmdebstrap" => "mmdebstrap",
        "qemu-system-x86_64" => "-t bookworm-backports qemu-system-x86",
        "qemu-system-aarch64" => "-t bookworm-backports qemu-system-arm",
        "debvm-create" | "debvm-run" => "debvm",
        "nft" => "nftables",
        "ssh" => "openssh-client",
        "depmod" => "kmod",
        "apt-get" | "apt-cache" => "apt",
        "dpkg-deb" => "dpkg",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_in_path_and_a_file_that_cannot_run_is_no_program() {
        assert!(find(Path::new("sh")).unwrap().is_absolute());
        let e = find(Path::new("/etc/passwd")).unwrap_err();
        assert_eq!(e.code(), Code::MissingProgram);
        let e = find(Path::new("/nowhere/qemu-system-x86_64")).unwrap_err();
        assert!(e.get_hint().unwrap().contains("qemu-system-x86"), "{e:?}");
    }

    #[test]
    fn the_directories_of_administrators_programs_come_after_path() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = ["bin", "usr-sbin", "sbin"].map(|name| dir.path().join(name));
        let make = |at: &Path, name: &str| {
            std::fs::write(at.join(name), "").unwrap();
            std::fs::set_permissions(at.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        dirs.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
        let [bin, usr_sbin, sbin] = &dirs;
        let all = [usr_sbin.clone(), sbin.clone()];
        let found = |name: &str| find_in(Path::new(name), bin.as_os_str(), &all).ok();
        make(sbin, "mke2fs");
        assert_eq!(found("mke2fs"), Some(sbin.join("mke2fs")));
        make(usr_sbin, "mke2fs");
        assert_eq!(found("mke2fs"), Some(usr_sbin.join("mke2fs")));
        make(bin, "mke2fs");
        assert_eq!(found("mke2fs"), Some(bin.join("mke2fs")));
        assert_eq!(found("nft"), None);
        let typed = |name: &str| typed_in(name, bin.as_os_str(), &all);
        make(usr_sbin, "e2fsck");
        assert_eq!(typed("mke2fs"), "mke2fs", "the user's PATH has it");
        assert_eq!(typed("e2fsck"), usr_sbin.join("e2fsck").display().to_string());
        assert_eq!(typed("nft"), "nft", "it is nowhere");
    }

    #[test]
    fn children_get_the_directories_that_path_lacks() {
        let sbin = SBIN.map(PathBuf::from);
        let longer = |path: &str| path_with(OsStr::new(path), &sbin).map(|path| path.into_string().unwrap());
        assert_eq!(longer("/usr/bin:/bin").as_deref(), Some("/usr/bin:/bin:/usr/sbin:/sbin"));
        assert_eq!(longer("/sbin:/bin").as_deref(), Some("/sbin:/bin:/usr/sbin"));
        assert_eq!(longer("/usr/sbin:/usr/bin:/sbin:/bin"), None);
    }
}
