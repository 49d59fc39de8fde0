//! What apt chooses and downloads. It is asked once for a whole set: asked for each package it takes minutes.

#![allow(clippy::disallowed_types)]

use lib_common::digest;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A package's file in the cache, whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deb {
    pub path: PathBuf,
    /// Of its content, in hexadecimal.
    pub sha256: String,
}

/// What is needed to install `wanted` on a system that has nothing, without `excluded`, sorted by name.
pub fn closure(wanted: &[&str], excluded: &[&str]) -> Vec<String> {
    let mut command = apt("install");
    // An empty list of what is installed, and no lock on the real one.
    command.args(["-y", "-o", "Dir::State::status=/dev/null", "-o", "Debug::NoLocking=1"]);
    command.args(["--print-uris", "--no-install-recommends"]).args(wanted);
    let mut names: Vec<String> = uris(&run(&mut command))
        .map(|(_, file, _)| file.split('_').next().unwrap().to_owned())
        .filter(|name| !excluded.contains(&name.as_str()))
        .collect();
    names.sort();
    names
}

/// Has the packages in `dir`; apt checks what it downloads against its signed index, and what is there already is checked here.
pub fn fetch(names: &[String], dir: &Path) -> Vec<Deb> {
    std::fs::create_dir_all(dir).unwrap();
    let text = run(apt("download").arg("--print-uris").args(names));
    let expected: Vec<(String, Deb)> = uris(&text)
        .map(|(_, file, hash)| {
            let name = file.split('_').next().unwrap().to_owned();
            let sha256 = hash.strip_prefix("SHA256:").expect("apt knows the SHA-256 of what it downloads").to_owned();
            (name, Deb { path: dir.join(file), sha256 })
        })
        .collect();
    let is_there = |deb: &Deb| deb.path.is_file() && digest::of_file(&deb.path).unwrap().hex() == deb.sha256;
    let missing: Vec<&String> = expected.iter().filter(|(_, deb)| !is_there(deb)).map(|(name, _)| name).collect();
    if !missing.is_empty() {
        // As root apt would drop to a user who cannot write here.
        run(apt("download").args(["-o", "APT::Sandbox::User=root"]).args(missing).current_dir(dir));
    }
    let mut debs: Vec<Deb> = expected.into_iter().map(|(_, deb)| deb).collect();
    assert!(debs.iter().all(is_there), "apt has downloaded something else into {}", dir.display());
    debs.sort();
    debs
}

fn apt(verb: &str) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-q", verb]).env("LC_ALL", "C");
    command
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The lines `'URI' FILE SIZE HASH` of `--print-uris`.
fn uris(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    text.lines().filter(|line| line.starts_with('\'')).map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        (words[0], words[1], words.get(3).copied().unwrap_or_default())
    })
}
