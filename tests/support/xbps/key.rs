//! An RSA key of the test's own, and what it signs, by the system's openssl: a second opinion beside the code under test.

#![allow(clippy::disallowed_types)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A private key in a file.
#[derive(Clone, Debug)]
pub struct SigningKey {
    private: PathBuf,
    /// The public half, in PEM (SubjectPublicKeyInfo).
    pub public: String,
}

impl SigningKey {
    /// A new one, below `dir`.
    pub fn generate(dir: &Path) -> Self {
        let private = dir.join("private.pem");
        openssl(Command::new("openssl").args(["genrsa", "-out"]).arg(&private).arg("2048"));
        let public = openssl(Command::new("openssl").args(["rsa", "-pubout", "-in"]).arg(&private));
        SigningKey { private, public: String::from_utf8(public).unwrap() }
    }

    /// The signature of a file as `.sig2` has it.
    pub fn sign(&self, file: &Path) -> Vec<u8> {
        openssl(Command::new("openssl").args(["dgst", "-sha256", "-sign"]).arg(&self.private).arg(file))
    }
}

fn openssl(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("openssl is installed by `make setup`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
