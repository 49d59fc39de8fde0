//! Kernels from Debian packages: finds the package behind a name, has apt download it, and takes kernel and modules out.
//! Owns how apt and dpkg-deb are asked and what is believed of a package; knows nothing of bundles.
//!
//! Sources: apt-cache(8), apt-get(8), dpkg-deb(1), deb(5).

use super::bzimage::is_release;
use crate::digest;
use crate::doc::Digest;
use crate::error::{Code, Context, Error, Result};
use crate::sys::cmd::{Cmd, Stream, Streams};
use crate::sys::signal;
use fs_err as fs;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

/// The most that a package may unpack to, in bytes: Debian's largest kernel has 600 MB.
const MAX_UNPACKED: u64 = 4 << 30;
/// The most that apt may have to say, in bytes.
const MAX_TEXT: u64 = 1 << 20;

/// What apt would download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// The file's name, without directories.
    pub file: String,
    /// In bytes.
    pub size: u64,
    /// As the package index says it.
    pub digest: Option<Digest>,
}

/// What a kernel package had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The kernel's release.
    pub version: String,
    /// The bzImage.
    pub vmlinuz: PathBuf,
    /// Its modules: `…/lib/modules/VERSION`.
    pub modules: PathBuf,
}

/// The package that has the kernel which `package` stands for: what it depends on, where that is a kernel, else itself.
///
/// Errors: [`Code::NotFound`] for a package that apt does not know; those of `Cmd`.
pub fn resolve(package: &str) -> Result<String> {
    let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
    if !package.bytes().all(valid) || !package.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(Error::new(Code::BadValue, format!("`{}` is not a package name", package.escape_debug())));
    }
    let asked = Cmd::new("apt-cache").args(["depends", package]).env("LC_ALL", "C").output(MAX_TEXT);
    let text = asked.map_err(|e| match e.code() {
        Code::CommandFailed => e
            .with_code(Code::NotFound)
            .within(format!("apt does not know the package `{package}`"))
            .hint("apt-get update"),
        _ => e,
    })?;
    Ok(behind(package, &String::from_utf8_lossy(&text)))
}

/// From the output of `apt-cache depends`: the first kernel that is depended on.
fn behind(package: &str, text: &str) -> String {
    let depends = text.lines().filter_map(|l| l.trim().trim_start_matches('|').strip_prefix("Depends: "));
    let kernel = depends.map(str::trim).find(|d| d.starts_with("linux-image-"));
    kernel.unwrap_or(package).to_owned()
}

/// What apt would download for `package`.
pub fn plan_download(package: &str) -> Result<Download> {
    let text = Cmd::new("apt-get").args(["download", "--print-uris", package]).env("LC_ALL", "C").output(MAX_TEXT)?;
    let text = String::from_utf8_lossy(&text);
    text.lines().find_map(parse_uri).ok_or_else(|| {
        Error::new(Code::CommandFailed, format!("apt does not say from where it would download {package}"))
            .hint("apt-get update")
    })
}

/// A line of `--print-uris`: `'URI' FILE SIZE HASH`.
fn parse_uri(line: &str) -> Option<Download> {
    let (_, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    let mut words = rest.split(' ');
    let file = words.next().filter(|f| f.ends_with(".deb") && !f.contains('/'))?.to_owned();
    let size = words.next()?.parse().ok()?;
    let digest = words.next().and_then(|h| h.strip_prefix("SHA256:"));
    Some(Download { file, size, digest: digest.and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok()) })
}

/// Whether the file at `path` is the package that apt would download.
pub fn is_it(path: &Path, wanted: &Download) -> Result<bool> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() == wanted.size => {}
        Ok(_) => return Ok(false),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e.into()),
    }
    match &wanted.digest {
        Some(expected) => Ok(digest::of_file(path)? == *expected),
        None => Ok(true),
    }
}

/// Downloads `package` into `dir`; apt checks it against its signed index.
pub fn download(package: &str, dir: &Path, root: bool) -> Result<()> {
    download_cmd(package, dir, root).run().context(format!("cannot download {package}"))
}

fn download_cmd(package: &str, dir: &Path, root: bool) -> Cmd {
    let cmd = Cmd::new("apt-get").arg("download").env("LC_ALL", "C").dir(dir);
    // As root apt drops to the user _apt, who cannot write into a private directory; apt would warn and go on as root.
    let cmd = if root { cmd.args(["-o", "APT::Sandbox::User=root"]) } else { cmd };
    cmd.arg(package)
}

/// Takes kernel and modules out of a package, into `to/vmlinuz` and `to/modules/lib/modules/VERSION`. Nothing else is
/// written; only regular files are.
///
/// Errors: [`Code::BadInput`] for what is no kernel package, is damaged, has a path that leads out, or unpacks to more
/// than 4 GiB; [`Code::MissingProgram`] without dpkg-deb.
pub fn unpack(deb: &Path, to: &Path) -> Result<Unpacked> {
    let name = deb.display();
    // Absolute, so that no name is taken for an option.
    let cmd = Cmd::new("dpkg-deb").arg("--fsys-tarfile").arg(std::path::absolute(deb)?).env("LC_ALL", "C");
    let mut child = cmd.spawn(Streams { stdout: Stream::Pipe, ..Streams::default() })?;
    let Some(pipe) = child.stdout()? else { return Err(Error::new(Code::Internal, "dpkg-deb has no stdout")) };
    let mut pipe = pipe.take(MAX_UNPACKED);
    let extracted = extract(&mut pipe, to);
    if let Err(Fault::Ours(e)) = extracted {
        return Err(e.within(format!("cannot unpack {name}")));
    }
    // Read to its end: dpkg-deb then fails for its own reasons alone, and those say most about the package.
    let rest = io::copy(&mut pipe, &mut io::sink());
    signal::check()?;
    if pipe.limit() == 0 {
        return Err(Error::new(
            Code::BadInput,
            format!("{name} unpacks to more than {}", crate::size::bytes(MAX_UNPACKED)),
        ));
    }
    let damaged = || format!("{name} is not a Debian package, or a damaged one");
    child.finish().map_err(|e| e.with_code(Code::BadInput).within(damaged()))?;
    let found = match (extracted, rest) {
        (Ok(found), Ok(_)) => found,
        (Err(Fault::Stream(e)), _) | (_, Err(e)) => {
            return Err(Error::new(Code::BadInput, damaged()).because(&e));
        }
        (Err(Fault::Ours(e)), _) => return Err(e),
    };
    let Some(version) = found else {
        return Err(Error::new(Code::BadInput, format!("{name} is not a kernel package: it has no boot/vmlinuz-*"))
            .hint("linux-image-cloud-amd64 stands for Debian's newest kernel for VMs"));
    };
    let modules = to.join("modules/lib/modules").join(&version);
    if !modules.is_dir() {
        return Err(Error::new(Code::BadInput, format!("{name} has the kernel {version} without its modules"))
            .hint("unpack kernel and modules, and give them as --vmlinux FILE --modules DIR"));
    }
    Ok(Unpacked { vmlinuz: to.join("vmlinuz"), modules, version })
}

/// Why a package cannot be unpacked: the stream ended or is no tar, or something that we say about it.
#[derive(Debug)]
enum Fault {
    Stream(io::Error),
    Ours(Error),
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Fault::Ours(e)
    }
}

/// Extracts what is wanted from a tar, and gives the kernel's release where there is a kernel.
fn extract(tar: &mut impl Read, to: &Path) -> Result<Option<String>, Fault> {
    let mut version = None;
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().map_err(Fault::Stream)? {
        signal::check()?;
        let mut entry = entry.map_err(Fault::Stream)?;
        let path = entry.path().map_err(Fault::Stream)?.into_owned();
        let path = inside(&path)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let target = match wanted(&path) {
            None => continue,
            Some(Wanted::Kernel(release)) => {
                if version.replace(release).is_some() {
                    return Err(bad("it has more than one kernel").into());
                }
                to.join("vmlinuz")
            }
            Some(Wanted::Module(below)) => to.join("modules").join(below),
        };
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(Error::from)?;
        }
        let file = fs::File::create_new(&target).map_err(Error::from)?;
        copy(&mut entry, file)?;
    }
    Ok(version)
}

/// An own loop, since `io::copy` does not say whether reading or writing failed.
fn copy(input: &mut impl Read, mut out: fs::File) -> Result<(), Fault> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => out.write_all(&buffer[..n]).map_err(Error::from)?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => signal::check()?,
            Err(e) => return Err(Fault::Stream(e)),
        }
    }
}

/// The path without `.` components; one that is absolute or has `..` makes the whole package suspect.
fn inside(path: &Path) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(name) => clean.push(name),
            _ => {
                return Err(bad(format!(
                    "it has the path `{}`, which leads out",
                    path.display().to_string().escape_debug()
                )));
            }
        }
    }
    Ok(clean)
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// The kernel, of that release.
    Kernel(String),
    /// A file of the module tree: `lib/modules/…`.
    Module(PathBuf),
}

fn wanted(path: &Path) -> Option<Wanted> {
    let text = path.to_str()?;
    if let Some(release) = text.strip_prefix("boot/vmlinuz-") {
        return is_release(release).then(|| Wanted::Kernel(release.to_owned()));
    }
    // Since trixie the modules are in /usr/lib.
    let below = text.strip_prefix("usr/").unwrap_or(text);
    below.starts_with("lib/modules/").then(|| Wanted::Module(below.into()))
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(Code::BadInput, message)
}

/// Packages for the tests of this directory.
#[cfg(test)]
pub(super) mod testing {
    /// A package with these files; paths are written as they are, `../` too. A `->` in the content makes a link.
    pub(in super::super) fn deb(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut data = tar::Builder::new(vec![]);
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            let link = bytes.strip_prefix(b"-> ");
            header.set_entry_type(if link.is_some() { tar::EntryType::Symlink } else { tar::EntryType::Regular });
            header.set_size(if link.is_some() { 0 } else { bytes.len() as u64 });
            if let Some(link) = link {
                header.set_link_name(std::str::from_utf8(link).unwrap()).unwrap();
            }
            header.set_mode(0o644);
            header.set_cksum();
            data.append(&header, if link.is_some() { &[][..] } else { bytes }).unwrap();
        }
        let data = data.into_inner().unwrap();
        let control = tar::Builder::new(vec![]).into_inner().unwrap();
        let mut ar = b"!<arch>\n".to_vec();
        for (name, bytes) in [("debian-binary", &b"2.0\n"[..]), ("control.tar", &control), ("data.tar", &data)] {
            ar.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, "100644", bytes.len()).as_bytes());
            ar.extend(bytes);
            ar.resize(ar.len().next_multiple_of(2), b'\n');
        }
        ar
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metapackage_leads_to_its_kernel() {
        let meta = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        let alternatives = "x\n  Depends: linux-base\n |Depends: linux-image-7-unsigned\n  Depends: linux-image-7\n";
        let plain = "linux-image-7\n  Depends: kmod\n  Depends: <initramfs-tools>\n  Breaks: linux-image-8\n";
        for (package, text, kernel) in [
            ("linux-image-cloud-amd64", meta, "linux-image-6.1.0-56-cloud-amd64"),
            ("x", alternatives, "linux-image-7-unsigned"),
            ("linux-image-7", plain, "linux-image-7"),
        ] {
            assert_eq!(behind(package, text), kernel);
        }
        for bad in ["", "-o=x", "A", "a b", "a/b"] {
            assert_eq!(resolve(bad).unwrap_err().code(), Code::BadValue, "{bad}");
        }
    }

    #[test]
    fn uris_are_read() {
        let hex = "ab".repeat(32);
        let line = format!("'http://m/p/l/a_1%3a2_amd64.deb' a_1%3a2_amd64.deb 1504 SHA256:{hex}");
        let digest = Digest::parse(&format!("sha256:{hex}")).ok();
        assert_eq!(parse_uri(&line), Some(Download { file: "a_1%3a2_amd64.deb".into(), size: 1504, digest }));
        let without = "'http://m/a.deb' a.deb 7 MD5Sum:ab";
        assert_eq!(parse_uri(without), Some(Download { file: "a.deb".into(), size: 7, digest: None }));
        for bad in ["", "W: something", "'http://m/a.deb' ../a.deb 7 SHA256:ab", "'http://m/a.deb' a.deb x"] {
            assert_eq!(parse_uri(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_download_runs_as_anybody() {
        let dir = Path::new("/c");
        assert_eq!(download_cmd("p", dir, false).argv(), ["apt-get", "download", "p"]);
        assert_eq!(download_cmd("p", dir, true).argv(), ["apt-get", "download", "-o", "APT::Sandbox::User=root", "p"]);
    }

    fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, Result<Unpacked>) {
        let dir = tempfile::tempdir().unwrap();
        let deb = dir.path().join("p.deb");
        fs::write(&deb, bytes).unwrap();
        let to = dir.path().join("to");
        fs::create_dir(&to).unwrap();
        let result = unpack(&deb, &to);
        (dir, result)
    }

    #[test]
    fn kernel_and_modules_are_taken_and_nothing_else() {
        for prefix in ["./", "./usr/"] {
            let module = format!("{prefix}lib/modules/6.1/kernel/a.ko");
            let link = format!("{prefix}lib/modules/6.1/build");
            let (dir, result) = unpacked(&testing::deb(&[
                ("./usr/share/doc/x", b"x"),
                ("./boot/vmlinuz-6.1", b"kernel"),
                ("./boot/config-6.1", b"config"),
                (&module, b"module"),
                (&link, b"-> /usr/src/linux"),
            ]));
            let result = result.unwrap();
            assert_eq!(result.version, "6.1");
            assert_eq!(fs::read(&result.vmlinuz).unwrap(), b"kernel");
            let files = walkdir::WalkDir::new(dir.path().join("to")).sort_by_file_name().into_iter();
            let files: Vec<_> = files.filter_map(|e| e.ok().filter(|e| !e.file_type().is_dir())).collect();
            let files: Vec<_> =
                files.iter().map(|e| e.path().strip_prefix(dir.path()).unwrap().to_str().unwrap()).collect();
            assert_eq!(files, ["to/modules/lib/modules/6.1/kernel/a.ko", "to/vmlinuz"]);
            assert_eq!(result.modules, dir.path().join("to/modules/lib/modules/6.1"));
        }
    }

    #[test]
    fn other_packages_are_refused() {
        let kernel: (&str, &[u8]) = ("./boot/vmlinuz-6.1", b"kernel");
        let module: (&str, &[u8]) = ("./lib/modules/6.1/a.ko", b"");
        let whole = testing::deb(&[kernel, module]);
        for (bytes, says) in [
            (testing::deb(&[("./usr/bin/x", b"x")]), "is not a kernel package"),
            (testing::deb(&[kernel]), "without its modules"),
            (testing::deb(&[kernel, ("./boot/vmlinuz-6.2", b""), module]), "more than one kernel"),
            (testing::deb(&[kernel, module, ("lib/modules/../../../x", b"")]), "leads out"),
            (testing::deb(&[("/boot/vmlinuz-6.1", b""), module]), "leads out"),
            (b"no package".to_vec(), "is not a Debian package"),
            (whole[..whole.len() - 1500].to_vec(), "is not a Debian package"),
            (vec![], "is not a Debian package"),
        ] {
            let error = unpacked(&bytes).1.unwrap_err();
            assert_eq!(error.code(), Code::BadInput);
            let text = format!("{}: {}", error.message(), error.causes().join(": "));
            assert!(text.contains(says), "{text}");
        }
    }
}
