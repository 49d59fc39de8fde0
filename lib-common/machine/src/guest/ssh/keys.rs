//! Ed25519 keys in OpenSSH's format (PROTOCOL.key): the suite's own, which logs in everywhere, and one host key a guest.

use crate::store::Store;
use lib_common::error::{Code, Context, Error, Result};
use lib_common::sys::fs::{private_dir, save};
use lib_common::sys::lock::Lock;
use lib_common::sys::owned;
use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, LineEnding, PrivateKey, PublicKey};
use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The longest private key that is read, in bytes.
const MAX_KEY: usize = 64 << 10;

/// A guest's SSH host key.
pub struct HostKey {
    private_pem: Zeroizing<String>,
    public_line: String,
}

impl HostKey {
    /// An OpenSSH private key in PEM; a secret.
    pub fn private_pem(&self) -> &str {
        &self.private_pem
    }

    /// `ssh-ed25519 …`, without a comment.
    pub fn public_line(&self) -> &str {
        &self.public_line
    }
}

impl fmt::Debug for HostKey {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostKey").field("public_line", &self.public_line).finish_non_exhaustive()
    }
}

/// A new host key.
pub fn new_host_key() -> Result<HostKey> {
    let key = generate("")?;
    Ok(HostKey { private_pem: pem(&key)?, public_line: public_line(&key)? })
}

/// The private half of the key that logs in everywhere, whether it is there yet or not.
pub fn private_key(store: &Store) -> PathBuf {
    store.state_dir().join("ssh/id_ed25519")
}

/// The public half of the suite's own key, a line for `authorized_keys`. Where there is none it is the
/// bundle's, else it is made: once, whoever else does so at the same time.
pub fn ensure_user_key(store: &Store) -> Result<String> {
    let private = private_key(store);
    if let Some(line) = existing(store)? {
        return Ok(line);
    }
    let dir = store.state_dir().join("ssh");
    private_dir(store.state_dir())?;
    private_dir(&dir)?;
    let _lock = Lock::take(&dir.join(".lock"), store.lock_wait())?;
    if let Some(line) = existing(store)? {
        return Ok(line);
    }
    let key = match store.bundled_key() {
        None => generate("banger")?,
        Some(path) => read(path)?.ok_or_else(|| {
            let gone = format!("the bundle's key {} is not there", path.display());
            Error::new(Code::MissingFile, gone).hint(crate::config::mend_bundle())
        })?,
    };
    let line = public_line(&key)?;
    // The private half last: once it is there, the pair is.
    save(&private.with_extension("pub"), format!("{line}\n").as_bytes(), 0o644)?;
    save(&private, pem(&key)?.as_bytes(), 0o600)?;
    Ok(line)
}

fn existing(store: &Store) -> Result<Option<String>> {
    let path = private_key(store);
    let Some(file) = owned::open(store.state_dir(), "ssh/id_ed25519")? else { return Ok(None) };
    if file.metadata()?.mode() & 0o077 != 0 {
        let message = format!("others may read the private key {}", path.display());
        return Err(Error::new(Code::Permission, message).hint(format!(
            "chmod 600 {0}; if somebody may have read it, remove it: a new one is made, and VMs get it at their next start",
            path.display()
        )));
    }
    read(&path)?.as_ref().map(public_line).transpose()
}

/// The text of a private key, which nobody but root and the caller can have put there; `None` where it is missing.
///
/// # Errors
/// As [`owned::open_trusted`]; [`Code::BadInput`] for what is too long for a key.
pub fn read_private(path: &Path) -> Result<Option<Zeroizing<String>>> {
    let Some(file) = owned::open_trusted(path)? else { return Ok(None) };
    // With room for all of it: what a string outgrows is not overwritten.
    let mut text = Zeroizing::new(String::with_capacity(MAX_KEY + 1));
    file.take(MAX_KEY as u64 + 1).read_to_string(&mut text).map_err(|e| Error::io("read", path, &e))?;
    if text.len() > MAX_KEY {
        return Err(Error::new(Code::BadInput, format!("{} is no private key: it is too long", path.display())));
    }
    Ok(Some(text))
}

fn read(path: &Path) -> Result<Option<PrivateKey>> {
    let Some(text) = read_private(path)? else { return Ok(None) };
    let damaged = || format!("{} is not an OpenSSH private key", path.display());
    let key = PrivateKey::from_openssh(text.trim_start());
    key.map(Some)
        .map_err(|e| Error::new(Code::BadInput, damaged()).because(&e).hint("move it away, and a new one is made"))
}

/// A public key from a document, as `ssh-ed25519 …` without a comment.
pub fn checked(line: &str) -> Result<String> {
    let bad = || Error::new(Code::BadDocument, "the guest's host key is not an Ed25519 key in OpenSSH's format");
    let mut key = PublicKey::from_openssh(line).map_err(|e| bad().because(&e))?;
    if key.algorithm() != Algorithm::Ed25519 {
        return Err(bad());
    }
    key.set_comment("");
    key.to_openssh().map_err(|e| bad().because(&e))
}

/// A public key as it goes over the wire (RFC 4253, section 6.6).
pub fn blob(line: &str) -> Result<Vec<u8>> {
    let key = PublicKey::from_openssh(line).map_err(internal)?;
    key.to_bytes().map_err(internal)
}

fn generate(comment: &str) -> Result<PrivateKey> {
    let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).map_err(internal)?;
    key.set_comment(comment);
    Ok(key)
}

fn pem(key: &PrivateKey) -> Result<Zeroizing<String>> {
    key.to_openssh(LineEnding::LF).map_err(internal).context("cannot write a private key")
}

fn public_line(key: &PrivateKey) -> Result<String> {
    key.public_key().to_openssh().map_err(internal).context("cannot write a public key")
}

fn internal(e: ssh_key::Error) -> Error {
    Error::new(Code::Internal, "an SSH key could not be made").because(&e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lib_common::sys::cmd::Cmd;
    use std::os::unix::fs::PermissionsExt;

    fn store(dir: &Path) -> Store {
        let env = [("HOME", "/nowhere"), ("BG_STATE_DIR", dir.to_str().unwrap())];
        let env = env.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        Store::new(&crate::config::Config::load(&env, false).unwrap(), crate::net::give_back_all)
    }

    fn fingerprint(path: &Path) -> String {
        let out = Cmd::new("ssh-keygen").args(["-l", "-f"]).arg(path).output(4096).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_suites_key_is_made_once_whoever_asks_first() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let lines: Vec<String> = std::thread::scope(|scope| {
            let ask = || ensure_user_key(&store(&state)).unwrap();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(lines.iter().all(|l| *l == lines[0] && l.ends_with(" banger")), "{lines:?}");
        let private = private_key(&store(&state));
        assert_eq!(private.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(private.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_to_string(private.with_extension("pub")).unwrap(), format!("{}\n", lines[0]));
        let of_private = fingerprint(&private);
        assert!(of_private.contains("banger (ED25519)"), "{of_private}");
        assert_eq!(of_private, fingerprint(&private.with_extension("pub")));
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        std::fs::create_dir(dir.path().join("ssh")).unwrap();
        save(&private_key(&store), b"x", 0o644).unwrap();
        assert_eq!(ensure_user_key(&store).unwrap_err().code(), Code::Permission, "others may read it");
        save(&private_key(&store), b"x", 0o600).unwrap();
        assert_eq!(ensure_user_key(&store).unwrap_err().code(), Code::BadInput);
        assert_eq!(std::fs::read(private_key(&store)).unwrap(), b"x");
    }

    #[test]
    fn host_keys_differ_are_read_by_ssh_and_keep_their_secret() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (new_host_key().unwrap(), new_host_key().unwrap());
        assert_ne!(a.public_line, b.public_line);
        assert_eq!(checked(&a.public_line).unwrap(), a.public_line);
        let path = dir.path().join("key");
        save(&path, a.private_pem.as_bytes(), 0o600).unwrap();
        let public = Cmd::new("ssh-keygen").args(["-y", "-f"]).arg(&path).output(4096).unwrap();
        assert_eq!(String::from_utf8(public).unwrap().trim(), a.public_line);
        assert!(!format!("{a:?}").contains("PRIVATE"));
    }

    #[test]
    fn only_an_ed25519_key_is_a_host_key() {
        for bad in ["", "ssh-ed25519", "ssh-ed25519 AAAA", "x\nssh-rsa AAAA", "* ssh-ed25519 AAAA"] {
            assert_eq!(checked(bad).unwrap_err().code(), Code::BadDocument, "{bad}");
        }
    }
}
