//! Who this guest is: reading it from the initrd and laying it down on the root disk.

use super::{NEW_ROOT, files};
use crate::hosts;
use lib_common::doc::{IDENTITY_PATH, Identity};
use lib_common::error::{Code, Context, Error, Result};
use std::path::{Path, PathBuf};

/// The identity in the initrd.
///
/// # Errors
/// There is none, or it is not one; both end the boot.
pub fn read() -> Result<Identity> {
    if !Path::new(IDENTITY_PATH).exists() {
        let message =
            format!("there is no {IDENTITY_PATH}: this initrd boots only with the identity that banger appends");
        return Err(Error::new(Code::MissingFile, message));
    }
    fs_err::read(IDENTITY_PATH).map_err(Error::from).and_then(|bytes| parse(&bytes)).context("cannot read the identity")
}

fn parse(bytes: &[u8]) -> Result<Identity> {
    let identity: Identity = serde_json::from_slice(bytes)
        .map_err(|e| Error::new(Code::BadDocument, "it is not an identity document").because(&e))?;
    let bad = |what: &str| Err(Error::new(Code::BadDocument, what));
    if identity.machine_id.len() != 32 || !identity.machine_id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return bad("machine_id is not 32 hexadecimal digits");
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    // 64 is the kernel's limit.
    if !(1..=64).contains(&identity.hostname.len()) || !identity.hostname.bytes().all(allowed) {
        return bad("hostname is not a host name");
    }
    if identity.authorized_keys.iter().any(|key| key.contains('\n')) {
        return bad("an authorized key has more than one line");
    }
    if identity.proxy_port == Some(0) {
        return bad("proxy_port is not a port");
    }
    Ok(identity)
}

/// Writes host name, machine-id and SSH host key into the guest's `/etc`.
pub fn lay_down(identity: &Identity) -> Result<()> {
    nix::unistd::sethostname(&identity.hostname).context("cannot set the host name")?;
    lay_down_in(Path::new(NEW_ROOT), identity).context("cannot lay down the identity")
}

fn lay_down_in(root: &Path, identity: &Identity) -> Result<()> {
    let etc = |name: &str| -> PathBuf { root.join("etc").join(name) };
    let line = |text: &str| format!("{}\n", text.trim_end()).into_bytes();
    files::write_if_different(&etc("hostname"), &line(&identity.hostname), 0o644)?;
    files::write_if_different(&etc("machine-id"), &line(&identity.machine_id), 0o444)?;
    hosts::write(&etc("hosts"), &identity.hostname, &identity.hosts)?;
    files::write_if_different(&etc("ssh/ssh_host_ed25519_key"), &line(identity.host_key.reveal()), 0o600)?;
    files::write_if_different(&etc("ssh/ssh_host_ed25519_key.pub"), &line(&identity.host_key_public), 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn identity() -> serde_json::Value {
        serde_json::json!({
            "machine_id": "0123456789abcdef0123456789abcdef", "hostname": "dev", "authorized_keys": ["ssh-ed25519 AAAA me"],
            "host_key": "-----BEGIN", "host_key_public": "ssh-ed25519 BBBB",
            "second_disk": "work",
        })
    }

    #[test]
    fn an_identity_is_read_strictly() {
        let cases = [
            ("hostname", serde_json::json!("a\nb"), "host name"),
            ("hostname", serde_json::json!(""), "host name"),
            ("hostname", serde_json::json!("x".repeat(65)), "host name"),
            ("machine_id", serde_json::json!("0123"), "machine_id"),
            ("authorized_keys", serde_json::json!(["a\nb"]), "authorized key"),
            ("unknown", serde_json::json!(1), "not an identity"),
            ("second_disk", serde_json::json!("other"), "not an identity"),
            ("proxy_port", serde_json::json!(65536), "not an identity"),
            ("proxy_port", serde_json::json!(0), "proxy_port"),
        ];
        parse(identity().to_string().as_bytes()).unwrap();
        for (field, value, complaint) in cases {
            let mut doc = identity();
            doc[field] = value;
            let e = parse(doc.to_string().as_bytes()).unwrap_err();
            assert!(e.message().contains(complaint), "{field}: {e}");
        }
    }

    #[test]
    fn the_identity_is_laid_down_with_a_private_host_key() {
        let root = tempfile::tempdir().unwrap();
        lay_down_in(root.path(), &parse(identity().to_string().as_bytes()).unwrap()).unwrap();
        let key = root.path().join("etc/ssh/ssh_host_ed25519_key");
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs_err::read_to_string(key).unwrap(), "-----BEGIN\n");
        assert_eq!(fs_err::read_to_string(root.path().join("etc/hostname")).unwrap(), "dev\n");
    }
}
