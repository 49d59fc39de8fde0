//! `bg-verify` and `bg-gc`: TAPs and leases that nobody has, those that somebody has, and those that are ready.

use super::{Host, id, leaks, machine};
use crate::support::fixture;
use serde_json::{Value, json};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// The findings as kind, id and whether it is a leak.
pub(super) fn brief(found: &[Value]) -> Vec<(&str, &str, bool)> {
    let brief = |f| -> (&str, &str, bool) {
        let f: &Value = f;
        (f["kind"].as_str().unwrap(), f["id"].as_str().unwrap(), f["is_leak"] == true)
    };
    found.iter().map(brief).collect()
}

/// The directory of the one network there is.
pub(super) fn dir(host: &Host) -> PathBuf {
    let [dir] = &crate::support::children(&host.sandbox.path("net"))[..] else { panic!("not one network") };
    dir.clone()
}

/// Makes a lease ten minutes old, by its note behind the leases of the 4,096 addresses.
pub(super) fn age(host: &Host, place: u64) {
    let file = std::fs::File::options().read(true).write(true).open(dir(host).join("leases")).unwrap();
    let (at, mut since) = ((4096 + place) * 16, [0; 4]);
    file.read_exact_at(&mut since, at).unwrap();
    file.write_all_at(&(u32::from_le_bytes(since) - 600).to_le_bytes(), at).unwrap();
}

/// Runs a tool on another state directory, which is empty.
fn elsewhere(host: &Host, tool: &str, args: &[&str], stdin: &str) -> crate::support::Done {
    let mut command = host.netns.tool(&host.sandbox, tool, args);
    command.env("BG_STATE_DIR", host.sandbox.path("elsewhere"));
    crate::support::finish(command.spawn().unwrap(), stdin.as_bytes())
}

/// A VM of the store that does not run, with a TAP that its record names.
pub(super) fn stored(host: &Host) -> Value {
    fixture::register(&host.sandbox, "debian");
    let plan = fixture::plan(&host.sandbox, "dev").replace(r#""net":false"#, r#""net":true"#);
    let cloned = host.netns.run(&host.sandbox, "bg-seed", &["clone"], plan).ok();
    let doc = host.tap(&["acquire"], cloned).json();
    std::fs::write(host.sandbox.state("machines/dev/machine.json"), format!("{doc}\n")).unwrap();
    // As if it had run: its creation is over.
    std::fs::remove_file(host.sandbox.state("machines/dev/journal")).unwrap();
    doc
}

fn record(host: &Host) -> Value {
    serde_json::from_str(&std::fs::read_to_string(host.sandbox.state("machines/dev/machine.json")).unwrap()).unwrap()
}

#[test]
fn idle_taps_are_capacity_and_no_leak() {
    let Some(host) = Host::new("idle_taps_are_capacity_and_no_leak") else { return };
    assert_eq!(host.verify(&["--now"]), Vec::<Value>::new());
    host.sandbox.assert_untouched("an audit");
    host.tap(&["up"], "").ok();
    assert_eq!(host.verify(&["--now"]), Vec::<Value>::new());
    host.tap(&["pool", "fill", "2"], "").ok();
    host.tap(&["pool", "fill", "1", "--owner", "nobody"], "").ok();
    let found = host.verify(&["--now"]);
    assert_eq!(brief(&found), [("tap_pool", "bg-0", false)]);
    let evidence = found[0]["evidence"].as_str().unwrap();
    assert!(evidence.contains("2 of user 0, 1 of user 65534") && evidence.contains("keeps 1"), "{evidence}");
    assert_eq!(found[0]["fix"], "bg-tap pool drain");
    // Not even for who asks for it.
    let asked = found[0].to_string().replace(r#""is_leak":false"#, r#""is_leak":true"#);
    assert_eq!(host.netns.run(&host.sandbox, "bg-gc", &["--now"], asked).ok(), "");
    assert_eq!((host.collect(), host.idle().len()), (vec![], 3));
    host.down(&[]);
}

#[test]
fn a_tap_of_a_vm_that_is_not_there_is_given_back() {
    let Some(host) = Host::up("a_tap_of_a_vm_that_is_not_there_is_given_back") else { return };
    host.acquire(1);
    let found = host.verify(&[]);
    assert_eq!(brief(&found), [("tap", "tap-pool-1", false)], "the next tool of a pipeline may come for it");
    assert_eq!(found[0]["owner"], id(1));
    assert!(found[0]["evidence"].as_str().unwrap().contains("user 0"), "{found:?}");
    age(&host, 2);
    assert_eq!(brief(&host.verify(&[])), [("tap", "tap-pool-1", true)]);
    assert_eq!(host.collect(), [("tap".into(), "tap-pool-1".into())]);
    assert_eq!((host.ls(), host.idle()), (vec![], vec!["tap-pool-1".to_owned()]), "the address, too");
    assert_eq!(host.link("tap-pool-1")["ifalias"], "banger:pool");
    host.down(&[]);
}

#[test]
fn an_address_of_a_vm_that_is_not_there_is_given_up() {
    let Some(host) = Host::up("an_address_of_a_vm_that_is_not_there_is_given_up") else { return };
    let doc = host.acquire(1).to_string();
    host.tap(&["release"], doc).ok();
    host.tap(&["pool", "drain"], "").ok();
    assert_eq!(brief(&host.verify(&[])), [("lease", "172.16.224.2", false)]);
    assert_eq!(elsewhere(&host, "bg-verify", &["--now"], "").ok(), "", "VMs of another store keep theirs");
    age(&host, 2);
    assert_eq!(elsewhere(&host, "bg-verify", &["--now"], "").ok(), "");
    assert_eq!(host.collect(), [("lease".into(), "172.16.224.2".into())]);
    assert_eq!(host.ls(), Vec::<Value>::new());
    host.down(&[]);
}

#[test]
fn what_another_store_lent_is_found_and_spared_while_it_is_young() {
    let Some(host) = Host::up("what_another_store_lent_is_found_and_spared_while_it_is_young") else { return };
    host.acquire(1);
    let found = elsewhere(&host, "bg-verify", &["--now"], "").documents();
    assert_eq!(brief(&found), [("tap", "tap-pool-1", false)]);
    assert_eq!(found[0]["owner"], id(1), "with the state directory lost it still says whose");
    let asked = host.verify(&["--now"])[0].to_string();
    assert_eq!(elsewhere(&host, "bg-gc", &["--now"], &asked).ok(), "");
    age(&host, 2);
    assert_eq!(elsewhere(&host, "bg-gc", &[], &asked).documents().len(), 1);
    assert_eq!(host.ls()[0]["tap"], Value::Null, "a VM of another store keeps its address");
    // What was acquired for another user is in a store that nobody here knows.
    host.tap(&["acquire", "--owner", "nobody"], machine(2)).ok();
    assert!(leaks(&host.verify(&["--now"])).iter().all(|f| f["kind"] == "lease"), "{:?}", host.verify(&["--now"]));
    host.down(&["--force"]);
}

#[test]
fn a_tap_that_a_program_has_open_is_never_a_leak() {
    let test = "a_tap_that_a_program_has_open_is_never_a_leak";
    let Some(host) = Host::up(test).filter(|_| crate::support::has_strace(test)) else { return };
    host.acquire(1);
    age(&host, 2);
    let asked = host.verify(&[])[0].to_string();
    let mut holder = host.hold("tap-pool-1");
    let found = host.verify(&["--now"]);
    assert_eq!(brief(&found), [("tap", "tap-pool-1", false)]);
    assert!(found[0]["evidence"].as_str().unwrap().contains("a program has it open"), "{found:?}");
    let shown = host.netns.command("sh", &["-c", found[0]["fix"].as_str().unwrap()]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let pid = shown.split('/').nth(2).unwrap_or_else(|| panic!("{found:?}: {shown}"));
    let program = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!((shown.lines().count(), &*program), (1, "ip\n"), "{shown}");
    assert_eq!(host.netns.run(&host.sandbox, "bg-gc", &["--now"], asked).ok(), "", "an old list changes nothing");
    assert_eq!(host.ls()[0]["machine_id"], id(1));
    holder.kill().unwrap();
    holder.wait().unwrap();
    host.wait_until_open("tap-pool-1", false);
    assert_eq!(host.collect().len(), 1);
    host.down(&[]);
}

#[test]
fn a_vm_that_does_not_run_keeps_its_address_and_no_tap() {
    let Some(host) = Host::up("a_vm_that_does_not_run_keeps_its_address_and_no_tap") else { return };
    let doc = stored(&host);
    let found = host.verify(&["--now"]);
    assert_eq!(brief(&found), [("tap", "tap-pool-1", true)]);
    assert_eq!(found[0]["owner"], "dev");
    age(&host, 2);
    assert_eq!(leaks(&host.verify(&[])), Vec::<&Value>::new(), "its record has just been changed");
    let lock = lib_common::sys::lock::Lock::try_take(&host.sandbox.state("machines/dev/lock")).unwrap();
    assert_eq!(host.verify(&["--now"]), Vec::<Value>::new(), "somebody works on it");
    drop(lock);
    host.collect();
    let mut expected = doc["net"].clone();
    expected.as_object_mut().unwrap().remove("tap");
    assert_eq!((&record(&host)["net"], &record(&host)["status"]), (&expected, &Value::Null));
    assert_eq!(host.ls()[0]["address"], "172.16.224.2");
    assert_eq!(host.idle(), ["tap-pool-1"]);
    host.down(&[]);
}

#[test]
fn with_the_state_directory_lost_everything_is_found() {
    let Some(host) = Host::up("with_the_state_directory_lost_everything_is_found") else { return };
    let doc = stored(&host);
    let stopped = host.acquire(1).to_string();
    host.tap(&["release"], stopped).ok();
    std::fs::remove_dir_all(host.sandbox.path("state")).unwrap();
    let found = host.verify(&["--now"]);
    let expected = [("tap_pool", "bg-0", false), ("tap", "tap-pool-1", true), ("lease", "172.16.224.3", true)];
    assert_eq!(brief(&found), expected);
    assert_eq!((&found[1]["owner"], &found[2]["owner"]), (&doc["id"], &json!(id(1))));
    host.collect();
    assert_eq!((host.ls().len(), host.idle().len()), (0, 2));
    host.down(&[]);
}

#[test]
fn taps_that_are_no_use_are_mended_or_removed() {
    let Some(host) = Host::up("taps_that_are_no_use_are_mended_or_removed") else { return };
    host.tap(&["pool", "fill", "2"], "").ok();
    host.netns.ok("ip link set tap-pool-1 nomaster");
    host.netns.ok("ip tuntap add tap-pool-7 mode tap");
    host.netns.ok("ip tuntap add tap-pool-8 mode tap");
    host.netns.ok("ip link set tap-pool-8 alias somebody-elses");
    let found = host.verify(&["--now"]);
    let expected = [("tap", "tap-pool-1", true), ("tap_pool", "bg-0", false), ("tap", "tap-pool-7", true)];
    assert_eq!(brief(&found), expected);
    assert_eq!(leaks(&host.verify(&[])), Vec::<&Value>::new());
    assert_eq!(host.collect().len(), 2);
    assert_eq!((host.idle().len(), &host.link("tap-pool-1")["master"]), (2, &"bg-0".into()));
    let left = ["bg-0", "tap-pool-1", "tap-pool-2", "tap-pool-8"].map(str::to_owned);
    assert_eq!(host.netns.links().into_iter().collect::<std::collections::BTreeSet<_>>(), left.into());
    host.netns.ok("ip link delete tap-pool-8");
    host.tap(&["pool", "fill", "7"], "").ok();
    assert!(host.idle().contains(&"tap-pool-7".to_owned()), "its number is free again");
    host.down(&[]);
}
