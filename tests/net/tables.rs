//! Damaged files of a network: each is told, keeps nobody from looking at the rest, and is made whole by `up`.

use super::audit::dir;
use super::{Host, id, machine};
use crate::support::{Done, finish, program};
use lib_common::error::Code;
use serde_json::Value;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The findings about the network's own files, after a look that ends.
fn damage(host: &Host) -> Vec<Value> {
    let mut command = host.netns.command("timeout", &["--signal=KILL", "60", program("bg-verify"), "--now"]);
    command.env_clear().envs(host.sandbox.env()).current_dir("/");
    let done: Done = finish(command.spawn().unwrap(), b"");
    assert!([0, 1].contains(&done.exit), "{done:?}");
    done.documents().into_iter().filter(|f| f["kind"] == "net_dir").collect()
}

fn mkfifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
}

#[test]
fn a_table_that_is_none_is_told_and_made_anew() {
    let Some(host) = Host::up("a_table_that_is_none_is_told_and_made_anew") else { return };
    host.acquire(1);
    let damages: [fn(&Path); 5] = [
        |path| std::fs::write(path, [0; 100]).unwrap(),
        |path| std::fs::write(path, vec![0; 1_000_000]).unwrap(),
        |path| std::fs::create_dir(path).unwrap(),
        mkfifo,
        |_| {},
    ];
    for table in ["pool", "leases", "hosts"] {
        let path = dir(&host).join(table);
        for make in damages {
            std::fs::remove_file(&path).unwrap();
            make(&path);
            let found = damage(&host);
            assert_eq!((found.len(), &found[0]["is_leak"], &found[0]["fix"]), (1, &false.into(), &"bg-tap up".into()));
            assert!(found[0]["evidence"].as_str().unwrap().contains(path.to_str().unwrap()), "{found:?}");
            let e = host.tap(&["acquire"], machine(2)).failed();
            assert!(e.message.contains(path.to_str().unwrap()), "{e:?}");
            assert!(e.hint.as_ref().is_some_and(|hint| hint.contains("bg-tap up")), "{e:?}");
            host.tap(&["up"], "").ok();
            assert_eq!((damage(&host), host.ls().len()), (vec![], 1), "{table}: the refused VM was lent nothing");
            let doc = host.acquire(2);
            assert_ne!(doc["net"]["address"], "172.16.224.2/20", "{table}");
            host.tap(&["release", "--with-address"], doc.to_string()).ok();
        }
    }
    host.down(&["--force"]);
}

#[test]
fn leases_that_nobody_was_lent_are_told_and_free_again() {
    let Some(host) = Host::up("leases_that_nobody_was_lent_are_told_and_free_again") else { return };
    host.acquire(1);
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    };
    let garbage: Vec<u8> = (0..2 * 4096 * 2).flat_map(|_| random()).collect();
    std::fs::write(dir(&host).join("leases"), garbage).unwrap();
    let found = damage(&host);
    assert_eq!((found.len(), &found[0]["is_leak"], &found[0]["fix"]), (1, &false.into(), &"bg-tap up".into()));
    host.tap(&["acquire"], machine(2)).failed_with(Code::InUse);
    host.tap(&["up"], "").ok();
    assert_eq!(damage(&host), Vec::<Value>::new());
    let listed = host.ls();
    assert_eq!((listed.len(), &listed[0]["machine_id"]), (1, &id(1).into()));
    host.tap(&["release", "--tap", "tap-pool-1"], "").ok();
    assert_eq!(host.ls()[0]["machine_id"], id(1), "its address was noted for it again");
    host.acquire(2);
    host.down(&["--force"]);
}

#[test]
fn a_lease_that_a_tap_contradicts_is_the_taps() {
    let Some(host) = Host::up("a_lease_that_a_tap_contradicts_is_the_taps") else { return };
    host.acquire(1);
    let file = std::fs::File::options().read(true).write(true).open(dir(&host).join("leases")).unwrap();
    // The id of VM 9 begins with its number, and its note repeats that.
    file.write_all_at(&9_u32.to_be_bytes(), 2 * 16).unwrap();
    file.write_all_at(&9_u32.to_be_bytes(), (4096 + 2) * 16 + 4).unwrap();
    host.tap(&["up"], "").ok();
    host.tap(&["release", "--tap", "tap-pool-1"], "").ok();
    assert_eq!(host.ls()[0]["machine_id"], id(1));
    host.down(&[]);
}

#[test]
fn what_lies_in_the_place_of_the_record_is_told_and_not_waited_for() {
    let Some(host) = Host::up("what_lies_in_the_place_of_the_record_is_told_and_not_waited_for") else { return };
    let path = dir(&host).join("network.json");
    let record = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    mkfifo(&path);
    let found = damage(&host);
    assert!(found.len() == 1 && found[0]["fix"].as_str().unwrap().contains("network.json"), "{found:?}");
    for verb in ["acquire", "up", "ls"] {
        let e = host.tap(&[verb], machine(1)).failed_with(Code::BadInput);
        assert!(e.hint.as_ref().is_some_and(|hint| hint.contains("network.json")), "{verb}: {e:?}");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, record).unwrap();
    host.acquire(1);
    host.down(&["--force"]);
}
