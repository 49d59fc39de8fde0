//! A package repository of the test's own: one package, made with dpkg-deb, served on a port of this host's loopback.

#![allow(clippy::disallowed_types)]

use crate::support::served::Served;
use lib_common::digest::of_bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// The package's name; its command has it too.
pub const PACKAGE: &str = "bgtest";

/// A repository that is served until the test's process ends.
pub struct Repository {
    pub port: u16,
    served: Served,
}

impl Repository {
    /// Made in `dir`.
    pub fn serve(dir: &Path) -> Self {
        let deb = package(dir);
        let packages = format!(
            "Package: {PACKAGE}\nVersion: 1.2-3\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\n\
             Filename: ./{PACKAGE}.deb\nSize: {}\nSHA256: {}\nDescription: a test\n",
            deb.len(),
            of_bytes(&deb).hex()
        );
        let release = format!(
            "Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {} {} Packages\n",
            of_bytes(packages.as_bytes()).hex(),
            packages.len()
        );
        let files = BTreeMap::from([
            ("/Packages".to_owned(), packages.into_bytes()),
            ("/Release".to_owned(), release.into_bytes()),
            (format!("/{PACKAGE}.deb"), deb),
        ]);
        let served = Served::start(move |path| files.get(path).cloned());
        Repository { port: served.port, served }
    }

    /// Takes it from the network. Gives the port where it was.
    pub fn end(self) -> u16 {
        self.served.end()
    }

    /// How often the package itself was fetched.
    pub fn downloads(&self) -> usize {
        self.served.asked(".deb")
    }

    /// A script for the guest: this repository is its only one.
    pub fn becomes_the_only_source(&self) -> String {
        let port = self.port;
        format!(
            "#!/bin/sh\nset -e\nrm /etc/apt/sources.list.d/*\n\
             echo 'deb [trusted=yes] http://127.0.0.1:{port} ./' >/etc/apt/sources.list\n"
        )
    }
}

fn package(dir: &Path) -> Vec<u8> {
    let (tree, deb) = (dir.join("package"), dir.join("package.deb"));
    for below in ["DEBIAN", "usr/bin"] {
        std::fs::create_dir_all(tree.join(below)).unwrap();
    }
    let control = format!(
        "Package: {PACKAGE}\nVersion: 1.2-3\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\nDescription: a test\n"
    );
    std::fs::write(tree.join("DEBIAN/control"), control).unwrap();
    let program = tree.join("usr/bin").join(PACKAGE);
    std::fs::write(&program, "#!/bin/sh\necho bgtest works\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let status =
        Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(&deb).output().unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    std::fs::read(deb).unwrap()
}
