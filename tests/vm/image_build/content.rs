//! What is in an image that was built, and what is not.

use super::{PACKAGE, Repository, World, build, script, show};
use lib_common::digest::{of_bytes, of_file};
use serde_json::Value;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

/// Files whose names, owners, modes and sizes are odd, and a script that says whether they have come as they are.
fn odd_files(dir: &Path) -> String {
    let tree = dir.join("tree");
    std::fs::create_dir_all(tree.join("closed")).unwrap();
    let file = |name: &[u8], content: &[u8], mode: u32| {
        let path = tree.join(OsString::from_vec(name.to_vec()));
        std::fs::write(&path, content).unwrap();
        // An ordinary user has one owner to give.
        if nix::unistd::geteuid().is_root() {
            chown(&path, Some(1234), Some(4321)).unwrap();
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let meta = path.metadata().unwrap();
        (meta.uid(), meta.gid())
    };
    let (uid, gid) = file(b"-odd\nna me", b"x", 0o4711);
    file(b"\xff\xfe", b"y", 0o600);
    file("l".repeat(250).as_bytes(), b"z", 0o644);
    let big: Vec<u8> = (0..6_000_000_u32).map(|n| (n % 251) as u8).collect();
    file(b"big", &big, 0o640);
    symlink("../nowhere else", tree.join("link")).unwrap();
    std::fs::set_permissions(tree.join("closed"), PermissionsExt::from_mode(0o2750)).unwrap();
    format!(
        "#!/bin/sh\nset -e\ncd /srv/tree\n\
         test \"$(stat -c '%a %u:%g' -- \"$(printf -- '-odd\\nna me')\")\" = '4711 {uid}:{gid}'\n\
         test -f \"$(printf '\\377\\376')\"\n\
         test -f \"$(printf 'l%.0s' $(seq 250))\"\n\
         echo '{}  big' | sha256sum -c --quiet\n\
         test \"$(readlink link)\" = '../nowhere else'\n\
         test \"$(stat -c %a closed)\" = 2750\n\
         test \"$(stat -c '%a %U' /srv)\" = '755 root'\n\
         test -L /bin && test -f /bin/-odd-too\n\
         test -f /lib/modules/$(uname -r)/modules.dep\n\
         echo the files are right\n",
        of_bytes(&big).hex()
    )
}

/// How many guests were booted for a document, by its timings.
fn boots(doc: &Value) -> usize {
    doc["timings"].as_array().unwrap().iter().filter(|t| t["stage"] == "boot_guest").count()
}

#[test]
fn an_image_has_what_was_asked_for_and_nothing_of_its_build() {
    let world = World::new();
    let repository = Repository::serve(world.path());
    let source = script(&world, "source", &repository.becomes_the_only_source());
    let check = odd_files(world.path());
    let check =
        script(&world, "check", &format!("{check}{PACKAGE}\ncat /srv/order; echo secret >/root/.bash_history\n"));
    let order = script(&world, "order", "#!/bin/bash\ncommand -v bgtest || echo first >/srv/order\n");
    let tree = format!("{}:/srv/", world.path().join("tree").display());
    let file = format!("{}:/bin/-odd-too", world.path().join("tree/-odd\nna me").display());
    let host = format!("127.0.0.1:{}", repository.port);
    let steps =
        ["--run", &source, "--run", &order, "--packages", PACKAGE, "--copy", &tree, "--copy", &file, "--run", &check];
    let args = [&["--size", "3G", "--modules", "--allow-host", &host][..], &steps].concat();
    let (doc, said) = build(&world, &args);
    world.assert_nothing_is_left();
    let at = |what: &str| said.find(what).unwrap_or_else(|| panic!("{what} is missing: {said}"));
    assert!(at("Setting up bgtest") < at("the files are right") && at("bgtest works") < at("first"), "{said}");
    let kinds: Vec<_> = doc["build"]["steps"].as_array().unwrap().iter().map(|s| s["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["modules", "run", "run", "packages", "copy", "copy", "run"]);
    assert_eq!(doc["build"]["packages"], serde_json::json!([PACKAGE]));
    assert_eq!(doc["rootfs"]["size_bytes"], 3_u64 << 30);

    let (again, _) = build(&world, &args);
    assert_eq!(again["rootfs"], doc["rootfs"]);
    assert_eq!((boots(&doc), boots(&again)), (1, 0), "from the cache: {again}");
    let (forced, _) = build(&world, &[&["--force"], &args[..]].concat());
    assert_eq!(forced["rootfs"]["manifest_digest"], doc["rootfs"]["manifest_digest"], "the same packages");
    assert_eq!(repository.downloads(), 1, "what was fetched once is in the cache");

    let base = world.json("bg-image", &["show", "debian"])["rootfs"].take();
    let disk = base["path"].as_str().unwrap();
    assert_eq!(base["digest"], of_file(Path::new(disk)).unwrap().as_str(), "the base is as it was");

    let manifest = std::fs::read_to_string(forced["rootfs"]["manifest"].as_str().unwrap()).unwrap();
    assert!(manifest.contains(r#"{"name":"bgtest","version":"1.2-3","architecture":"all"}"#), "{manifest}");
    let registered = world.pipe("bg-register", &["--name", "built"], forced.to_string().as_bytes());
    assert!(registered.status.success(), "{}", show(&registered));
    world.ok("bg-vm", &["create", "dev", "--image", "built", "--memory", "512M", "--work-size", "2G"]);
    world.healthy("dev");
    let id = world.json("bg-vm", &["show", "dev"])["id"].as_str().unwrap().to_owned();
    for (line, expected) in [
        ("bgtest", "bgtest works"),
        ("hostname; cat /etc/hostname", "dev\ndev"),
        ("cat /etc/machine-id", &id),
        ("grep -c banger /etc/hosts", "1"),
        ("cat /root/.bash_history /usr/sbin/policy-rc.d /mnt/nothing 2>&1 | grep -c 'No such file'", "3"),
        ("wc -l < /root/.ssh/authorized_keys", "1"),
        ("find /var/lib/apt/lists -type f; find /tmp /var/tmp -name 'build*'; ls /var/lib/dpkg/*-old 2>/dev/null", ""),
        ("ls /var/log/journal | grep -v $(cat /etc/machine-id)", ""),
        ("systemctl is-system-running --wait; systemctl --failed --no-legend --plain", "running"),
        ("df --output=size -m / | tail -1 | awk '{print ($1 > 2800)}'", "1"),
    ] {
        let line = format!("{line}; true");
        assert_eq!(world.guest("dev", &line), expected, "{line}");
    }
}
