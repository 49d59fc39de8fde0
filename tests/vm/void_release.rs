//! A Void guest from a root tarball like those that Void releases: the test distribution, configured, with what such a tarball
//! has and an image has not. No tarball of Void's own was ever read here.

#![allow(clippy::disallowed_types)]

use super::void::arguments;
use super::world::World;
use crate::support::xbps::release::{Entry, Release, tar_of};
use serde_json::Value;
use std::borrow::Cow;
use std::io::Read;
use std::path::Path;
use tar::EntryType;

/// The root file system as a tarball: with a password for root, a login at a terminal, and a host key that many have.
fn released(rootfs: &Path) -> Vec<u8> {
    let mut bytes = vec![];
    lib_image::disk::tree::write_tar(rootfs, Path::new("/"), &mut bytes).unwrap();
    let mut archive = tar::Archive::new(&*bytes);
    let mut all: Vec<Entry> = archive.entries().unwrap().map(|entry| entry_of(entry.unwrap())).collect();
    let shadow = all.iter_mut().find(|entry| entry.path == "./etc/shadow").unwrap();
    let text = String::from_utf8_lossy(&shadow.content).replace("root:*:", "root:$6$salt$hash:");
    assert!(text.contains("$hash:"), "{text}");
    shadow.content = text.into_bytes();
    all.push(Entry::new(EntryType::Regular, "./etc/ssh/ssh_host_rsa_key", b"a key that many have\n"));
    all.push(Entry::new(EntryType::Symlink, "./etc/runit/runsvdir/default/agetty-tty1", b"/etc/sv/agetty-tty1"));
    tar_of(&all)
}

fn entry_of(mut entry: tar::Entry<'_, &[u8]>) -> Entry {
    let path = format!("./{}", String::from_utf8(entry.path_bytes().into_owned()).unwrap().trim_start_matches("./"));
    let mut content = entry.link_name_bytes().map(Cow::into_owned).unwrap_or_default();
    let header = entry.header().clone();
    entry.read_to_end(&mut content).unwrap();
    let (mode, owner) = (header.mode().unwrap(), (header.uid().unwrap(), header.gid().unwrap()));
    Entry { path, kind: header.entry_type(), content, mode, owner, capability: None }
}

#[test]
fn a_guest_from_a_released_tarball_is_one_as_from_packages() {
    let world = World::new();
    let packages: Value = serde_json::from_str(&world.build(&arguments())).unwrap();
    let tar = released(Path::new(packages["rootfs"]["path"].as_str().unwrap()));
    let release = Release::new(&world.path().join("release"), &tar);
    let doc = world.build(&[&["--distro", "void"], &release.options()[..]].concat());
    let image: Value = serde_json::from_str(&doc).unwrap();
    assert_eq!(
        (&image["rootfs"]["distro"], &image["rootfs"]["release"]),
        (&"void".into(), &"20250202".into()),
        "{doc}"
    );
    let manifest = |image: &Value| std::fs::read_to_string(image["rootfs"]["manifest"].as_str().unwrap()).unwrap();
    assert_eq!(manifest(&image), manifest(&packages), "what is installed, by the guest's own database");
    let output = world.pipe("bg-register", &["--name", "released"], doc.as_bytes());
    assert!(output.status.success(), "{}", super::world::show(&output));
    world.ok("bg-vm", &["create", "dev", "--image", "released", "--memory", "512M", "--work-size", "2G"]);
    let doc = world.healthy("dev");
    assert_eq!((&doc["health"]["distro"], &doc["health"]["init"]), (&"void".into(), &"runit".into()), "{doc}");
    for (line, expected) in [
        ("cat /proc/1/comm; hostname", "runit\ndev"),
        ("passwd -S root | cut -d' ' -f2", "L"),
        ("ls /etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_ed25519_key"),
        ("pgrep -xc getty; pgrep -xc agetty", "0\n0"),
        ("echo $SHELL; stat -c '%a %U:%G' /root /tmp", "/bin/bash\n700 root:root\n1777 root:root"),
        ("stat -c %a /usr/bin/su /etc/shadow", "4755\n600"),
        ("ls -d /var/lib/banger 2>/dev/null | wc -l", "0"),
        ("xbps-pkgdb -a && echo whole", "whole"),
    ] {
        assert_eq!(world.guest("dev", &format!("{line}; true")), expected, "{line}");
    }
}
