//! A package repository of the test's own: one package, made with dpkg-deb, served on a port of this host's loopback.

#![allow(clippy::disallowed_types)]

use lib_common::digest::of_bytes;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The package's name; its command has it too.
pub const PACKAGE: &str = "bgtest";

/// A repository that is served until the test's process ends.
pub struct Repository {
    pub port: u16,
    downloads: Arc<AtomicUsize>,
    gone: Arc<AtomicBool>,
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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, downloads) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let gone = Arc::new(AtomicBool::new(false));
        let (counted, ended) = (Arc::clone(&downloads), Arc::clone(&gone));
        std::thread::spawn(move || {
            for stream in listener.incoming().take_while(|_| !ended.load(Ordering::SeqCst)) {
                let _ = answer(stream.unwrap(), &files, &counted);
            }
        });
        Repository { port, downloads, gone }
    }

    /// Takes it from the network. Gives the port where it was.
    pub fn end(self) -> u16 {
        self.gone.store(true, Ordering::SeqCst);
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            std::thread::yield_now();
        }
        self.port
    }

    /// How often the package itself was fetched.
    pub fn downloads(&self) -> usize {
        self.downloads.load(Ordering::SeqCst)
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

/// One request a connection.
fn answer(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>, downloads: &AtomicUsize) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default().replace("/./", "/");
    let (status, body) = match files.get(&path) {
        Some(body) => ("200 OK", body.as_slice()),
        None => ("404 Not Found", &b""[..]),
    };
    if path.ends_with(".deb") {
        downloads.fetch_add(1, Ordering::SeqCst);
    }
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(body)
}
