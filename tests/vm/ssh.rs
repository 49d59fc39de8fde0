//! SSH: statuses, streams and arguments pass through, and a guest with another host key is refused.

use super::world::{World, show};

#[test]
fn the_plumbing_pipe_creates_the_same_vm_and_ssh_passes_everything_through() {
    let world = World::new();
    let pipe = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/create");
    let made = world.script(pipe, &["dev", "--memory", "512M", "--work-size", "2G"]);
    assert!(made.status.success(), "{}", show(&made));
    let healthy = world.pipe("bg-health", &["--wait", &super::world::boot()], &made.stdout);
    assert!(healthy.status.success(), "{}", show(&healthy));
    let last = world.pipe("bg-ssh", &["--", "hostname"], &healthy.stdout);
    assert_eq!(String::from_utf8_lossy(&last.stdout), "dev\n", "{}", show(&last));

    assert_eq!(world.run("bg-ssh", &["dev", "--", "exit 7"]).status.code(), Some(7));
    let words = world.ok("bg-ssh", &["dev", "--", "printf", "%s|", "a  b", "$HOME", "it's", "*"]);
    assert_eq!(words, "a  b|$HOME|it's|*|");
    let megabyte: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let echoed = world.pipe("bg-ssh", &["dev", "--", "cat"], &megabyte);
    assert!(echoed.status.success() && echoed.stdout == megabyte, "stdin and stdout pass through as they are");

    let key = "/etc/ssh/ssh_host_ed25519_key";
    world.guest("dev", &format!("rm {key}* && ssh-keygen -q -t ed25519 -N '' -f {key} && systemctl restart ssh"));
    let refused = world.run("bg-ssh", &["dev", "--", "echo entered"]);
    assert_eq!(refused.status.code(), Some(255), "{}", show(&refused));
    assert!(refused.stdout.is_empty() && show(&refused).contains("verification failed"), "{}", show(&refused));
    world.ok("bg-vm", &["restart", "dev", "--timeout", "60"]);
    world.healthy("dev");
    assert_eq!(world.guest("dev", "echo entered"), "entered", "the host's own key is laid down at each boot");
}
