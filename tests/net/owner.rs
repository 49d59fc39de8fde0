//! TAPs that an ordinary user may open, and what such a user may do by himself.

use super::{Host, machine};
use crate::support::source::root;
use crate::support::{finish, program};
use lib_common::error::Code;
use std::path::Path;

/// The user `nobody` of every system.
const NOBODY: u32 = 65534;

/// A program that is run as a user without any right, with a /dev/net/tun that everybody may open.
fn as_user(host: &Host, uid: u32, line: &str) -> crate::support::Done {
    let node = host.sandbox.path("tun");
    let script = format!(
        "test -e {0} || {{ mknod {0} c 10 200 && chmod 666 {0}; }}; mount --bind {0} /dev/net/tun && \
         exec setpriv --reuid {uid} --regid {uid} --clear-groups {line}",
        node.display()
    );
    let mut command = host.netns.command("unshare", &["--mount", "--", "sh", "-c", &script]);
    command.env_clear().envs(host.sandbox.env()).current_dir("/");
    finish(command.spawn().unwrap(), machine(9).as_bytes())
}

/// A program where every user may run it: those of a build may lie in a home that is its owner's alone.
fn for_everybody(host: &Host, path: &Path) -> String {
    for dir in ["", "home"] {
        host.netns.ok(&format!("chmod 755 {}", host.sandbox.path(dir).display()));
    }
    let copy = host.sandbox.path(path.file_name().unwrap().to_str().unwrap());
    std::fs::copy(path, &copy).unwrap();
    copy.display().to_string()
}

fn tool(host: &Host) -> String {
    for_everybody(host, program("bg-tap").as_ref())
}

#[test]
fn a_tap_is_its_owners() {
    let Some(host) = Host::up("a_tap_is_its_owners") else { return };
    host.tap(&["pool", "fill", "1", "--owner", "nobody"], "").ok();
    let roots = host.acquire(1);
    let nobodys = host.tap(&["acquire", "--owner", "65534"], machine(2)).json();
    assert_eq!(nobodys["net"]["tap"], "tap-pool-1", "root took none of nobody's");
    assert!(roots["net"]["tap"] != "tap-pool-1" && host.idle().len() == 2, "one for each who took one");
    // It opens the device, and tells it not to stay.
    let opens = |uid, tap: &str| as_user(&host, uid, &format!("ip tuntap del {tap} mode tap")).exit == 0;
    assert!(!opens(NOBODY - 1, "tap-pool-1") && !opens(NOBODY, roots["net"]["tap"].as_str().unwrap()));
    assert!(opens(NOBODY, "tap-pool-1"));
    host.tap(&["acquire", "--owner", "no-such-user"], machine(3)).failed_with(Code::Usage);
    host.down(&["--force"]);
}

#[test]
fn an_ordinary_user_may_look_and_is_told_what_to_type() {
    let Some(host) = Host::up("an_ordinary_user_may_look_and_is_told_what_to_type") else { return };
    host.acquire(1);
    let (tap, verify) = (tool(&host), for_everybody(&host, program("bg-verify").as_ref()));
    assert_eq!(as_user(&host, NOBODY, &format!("{tap} ls")).documents().len(), 1);
    let found = as_user(&host, NOBODY, &format!("{verify} --now")).ok();
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(
        (&found["kind"], &found["owner"], &found["is_leak"]),
        (&"tap".into(), &super::id(1).into(), &false.into())
    );
    assert_eq!(found["fix"], "sudo bg-verify | sudo bg-gc");
    for verb in ["acquire", "up", "down", "pool fill 1", "pool drain", "release --tap tap-pool-1"] {
        let e = as_user(&host, NOBODY, &format!("{tap} {verb}")).failed_with(Code::Permission);
        assert!(e.hint.as_ref().is_some_and(|h| h.contains("--owner") && h.contains("in-netns")), "{verb}: {e:?}");
    }
    host.down(&["--force"]);
}

#[test]
fn an_ordinary_user_has_a_network_in_a_namespace_of_his_own() {
    let Some(host) = Host::new("an_ordinary_user_has_a_network_in_a_namespace_of_his_own") else { return };
    let (tap, in_netns) = (tool(&host), for_everybody(&host, &root("pipelines/in-netns")));
    let script = host.sandbox.path("script");
    let text = "set -e\n$1 up >&2\n$1 pool fill 2 >&2\n$1 acquire\n$1 down --force >&2\nrmdir \"$BG_NET_DIR\"\n";
    std::fs::write(&script, text).unwrap();
    let done = as_user(&host, NOBODY, &format!("{in_netns} sh {} {tap}", script.display()));
    assert_eq!(done.json()["net"]["bridge"], "bg-0", "{done:?}");
}

#[test]
fn a_network_is_to_be_looked_at_whatever_its_makers_umask_is() {
    let Some(host) = Host::new("a_network_is_to_be_looked_at_whatever_its_makers_umask_is") else { return };
    let up = format!("umask 077 && exec {} up", program("bg-tap"));
    let mut command = host.netns.command("sh", &["-c", &up]);
    command.env_clear().envs(host.sandbox.env()).current_dir(host.sandbox.path("home"));
    finish(command.spawn().unwrap(), b"").ok();
    let tap = tool(&host);
    host.acquire(1);
    assert_eq!(as_user(&host, NOBODY, &format!("{tap} ls")).documents().len(), 1);
    host.down(&["--force"]);
}

#[test]
fn an_ordinary_user_holds_nobody_up() {
    let Some(host) = Host::up("an_ordinary_user_holds_nobody_up") else { return };
    host.tap(&["pool", "fill", "1"], "").ok();
    let doc = host.acquire(1);
    // All that may be read is locked, as far as that goes: open file descriptions' locks, from the first byte on.
    let files: Vec<_> = std::fs::read_dir(crate::support::children(&host.sandbox.path("net")).remove(0))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o004 != 0)
        .map(|path| std::fs::File::open(path).unwrap())
        .collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in &files {
        let all = nix::libc::flock { l_type: 0, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
        nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_OFD_SETLK(&all)).unwrap();
    }
    assert_eq!(host.acquire(2)["net"]["address"], "172.16.224.3/20");
    host.tap(&["release", "--with-address"], doc.to_string()).ok();
    host.tap(&["pool", "drain"], "").ok();
    host.down(&["--force"]);
}

#[test]
fn the_id_of_anothers_vm_lends_nothing_and_takes_nothing() {
    let Some(host) = Host::up("the_id_of_anothers_vm_lends_nothing_and_takes_nothing") else { return };
    let roots = host.acquire(1);
    let before = host.ls();
    for given in [machine(1), roots.to_string()] {
        let said = host.tap(&["acquire", "--owner", "65534"], &given).failed_with(Code::InUse);
        assert!(said.message.contains("user 0's"), "{said:?}");
        assert_eq!(host.ls(), before);
    }
    // Whose it is gets it again.
    assert_eq!(host.acquire(1)["net"], roots["net"]);
    host.down(&["--force"]);
}
