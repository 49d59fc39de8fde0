//! The guest's network card, and whom the guest asks for names.

use super::{NEW_ROOT, files};
use lib_common::doc::IdentityNet;
use lib_common::error::{Context, Result};
use lib_common::sys::interface;
use nix::errno::Errno;
use std::path::Path;
use std::time::{Duration, Instant};

/// The only card. The kernel's command line keeps udev from renaming it.
const CARD: &str = "eth0";

/// The card is there as soon as its driver is loaded; this is for a driver that probes in the background.
const CARD_WITHIN: Duration = Duration::from_secs(1);

/// The first line of an `/etc/resolv.conf` that is ours. Any other is the user's, but for an empty one.
const MARK: &str = "# Written by banger at every boot; yours stays when this line goes.\n";

/// Sets the card up and writes `/etc/resolv.conf`.
///
/// # Errors
/// The guest is of use without its network.
pub fn set_up(net: &IdentityNet) -> Result<()> {
    let deadline = Instant::now() + CARD_WITHIN;
    let up = loop {
        match interface::set_up(CARD, net.address.address(), net.address.prefix(), net.gateway) {
            Err(Errno::ENODEV) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            other => break other,
        }
    };
    let resolv_conf = name_servers(Path::new(NEW_ROOT), net);
    up.context(format!("cannot set up the network card {CARD}")).and(resolv_conf)
}

fn name_servers(root: &Path, net: &IdentityNet) -> Result<()> {
    let path = root.join("etc/resolv.conf");
    let is_link = path.symlink_metadata().is_ok_and(|m| m.is_symlink());
    let old = fs_err::read_to_string(&path).unwrap_or_default();
    if is_link || !(old.is_empty() || old.starts_with(MARK)) {
        return Ok(());
    }
    // Without a server the C library asks the guest itself, where nobody listens: an answer at once.
    let mut text = MARK.to_owned();
    for server in &net.nameservers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    files::write_if_different(&path, text.as_bytes(), 0o644).context("cannot write /etc/resolv.conf")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lib_common::doc::Cidr;
    use std::os::unix::fs::symlink;

    fn net(nameservers: &[&str]) -> IdentityNet {
        IdentityNet {
            address: Cidr::parse("192.0.2.2/24").unwrap(),
            gateway: "192.0.2.1".parse().unwrap(),
            nameservers: nameservers.iter().map(|s| s.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn only_a_file_that_is_ours_or_nobodys_is_written() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("etc/resolv.conf");
        let written = |net: &IdentityNet| {
            name_servers(root.path(), net).unwrap();
            fs_err::read_to_string(&path).unwrap()
        };
        assert_eq!(written(&net(&["9.9.9.9", "1.1.1.1"])), format!("{MARK}nameserver 9.9.9.9\nnameserver 1.1.1.1\n"));
        assert_eq!(written(&net(&[])), MARK, "ours changes");
        fs_err::write(&path, "").unwrap();
        assert_eq!(written(&net(&[])), MARK, "an image's is empty");
        fs_err::write(&path, "nameserver 192.0.2.9\n").unwrap();
        assert_eq!(written(&net(&["9.9.9.9"])), "nameserver 192.0.2.9\n", "the user's stays");
        fs_err::remove_file(&path).unwrap();
        symlink("../run/systemd/resolve/stub-resolv.conf", &path).unwrap();
        name_servers(root.path(), &net(&["9.9.9.9"])).unwrap();
        assert!(path.symlink_metadata().unwrap().is_symlink(), "systemd-resolved has its own");
    }
}
