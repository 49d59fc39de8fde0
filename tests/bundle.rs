//! Bundles: made of an image, used by default, checked, moved, and taken over into the default image's record.

#![allow(clippy::disallowed_types)]

use crate::support::fixture::{self, WORK};
use crate::support::{Done, Sandbox, children, finish};
use lib_common::digest;
use lib_common::error::Code;
use serde_json::{Value, json};
use std::fs::{copy, read, read_to_string, remove_file, rename, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const OLD: &str = "6.1.0-old";
const NEW: &str = "6.1.0-new";

/// A store with the provisioned image `a`, its default, and an agent that is installed.
struct World {
    sandbox: Sandbox,
}

impl World {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        write(sandbox.path("agent"), "installed").unwrap();
        let seeded = sandbox
            .run("bg-seed", &["build", "--size", WORK], fixture::with_kernel(&sandbox, "a", OLD).to_string())
            .ok();
        sandbox.run("bg-register", &["--name", "a"], seeded).ok();
        World { sandbox }
    }

    fn command(&self, tool: &str, args: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = self.sandbox.command(tool, args);
        command.envs(env.iter().copied());
        command
    }

    fn run(&self, tool: &str, args: &[&str], env: &[(&str, &str)]) -> Done {
        finish(self.command(tool, args, env).spawn().unwrap(), b"")
    }

    /// Makes the bundle, with the agent that is installed.
    fn bundle(&self, args: &[&str], stdin: &str) -> Done {
        let agent = self.sandbox.path("agent");
        let env = [("BG_GUEST_AGENT", agent.to_str().unwrap()), ("BG_FIRECRACKER", "/nowhere/firecracker")];
        finish(self.command("bg-image", &[&["bundle"], args].concat(), &env).spawn().unwrap(), stdin.as_bytes())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.sandbox.state("bundle").join(name)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&read_to_string(self.file("bundle.json")).unwrap()).unwrap()
    }

    /// Changes bundle.json.
    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut json = self.json();
        change(&mut json);
        write(self.file("bundle.json"), json.to_string()).unwrap();
    }

    /// A setting and where it stands.
    fn setting(&self, key: &str, env: &[(&str, &str)]) -> (Value, Value) {
        let done = self.run("bg-doctor", &["--print-config"], env);
        assert_eq!(done.exit, 0, "{done:?}");
        let found = done.documents().into_iter().find(|setting| setting["key"] == key).unwrap();
        (found["value"].clone(), found["origin"].clone())
    }

    /// The doctor's check.
    #[track_caller]
    fn check(&self, env: &[(&str, &str)]) -> Value {
        let done = self.run("bg-doctor", &[], env);
        let report = &done.documents()[0];
        let check = report["checks"].as_array().unwrap().iter().find(|c| c["name"] == "bundle").unwrap().clone();
        assert!(check["ok"] == true || done.exit == 1 && check["fix"].is_string(), "{done:?}");
        check
    }

    fn kernel(&self) -> Value {
        self.run("bg-image", &["show", "a"], &[]).json()["kernel"]["version"].clone()
    }
}

fn text(path: &Path) -> Value {
    path.to_str().unwrap().into()
}

#[test]
fn a_bundle_has_everything_with_its_digests_and_is_used_by_default() {
    let world = World::new();
    assert!(world.check(&[])["message"].as_str().unwrap().contains("no bundle"));
    let mut base = fixture::with_kernel(&world.sandbox, "base", OLD);
    write(world.sandbox.path("files-base/rootfs.ext4"), "before it was provisioned").unwrap();
    base["rootfs"]["digest"] = digest::of_bytes(b"before it was provisioned").as_str().into();
    let bundle = world.bundle(&["a", "--base", "-"], &base.to_string()).json();
    assert_eq!(bundle, world.json());
    let paths = bundle.as_object().unwrap().iter().filter(|(key, _)| key.ends_with("_path"));
    let mut keys: Vec<&str> = paths
        .map(|(key, path)| (key, path.as_str().unwrap()))
        .map(|(key, path)| {
            let at = world.file(path);
            let found = if at.is_dir() { digest::of_tree(&at) } else { digest::of_file(&at) };
            assert_eq!(bundle["digests"][path], found.unwrap().as_str(), "{key}");
            key.as_str()
        })
        .collect();
    keys.sort_unstable();
    let all = "agent_path base_rootfs_path initrd_path kernel_path modules_path packages_path rootfs_path ssh_key_path";
    assert_eq!(keys.join(" "), all);
    let seed = bundle["work_seed_paths"][0].as_str().unwrap();
    assert_eq!(bundle["digests"][seed], digest::of_content(&world.file(seed)).unwrap().as_str());
    assert_eq!((&bundle["versions"]["kernel"], &bundle["versions"]["distro"]), (&OLD.into(), &"debian".into()));
    let mode = |name: &str| world.file(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("id_ed25519"), mode("guest-agent"), mode("")), (0o600, 0o755, 0o700));
    assert_eq!(world.check(&[])["ok"], true);
    let (agent, json) = (world.file("guest-agent"), world.file("bundle.json"));
    assert_eq!(world.setting("guest_agent", &[]), (text(&agent), text(&json)));
    assert_eq!(world.setting("bundle", &[]), (text(&json), "default".into()));
    let own = world.sandbox.path("agent");
    let env = [("BG_GUEST_AGENT", own.to_str().unwrap())];
    assert_eq!(world.setting("guest_agent", &env), (text(&own), "BG_GUEST_AGENT".into()), "what is named goes before");
    assert_ne!(world.setting("guest_agent", &[("BG_BUNDLE", "none")]).0, text(&agent));
    // Made again it has what is installed, not what the old one had.
    write(&own, "newer").unwrap();
    let again = world.bundle(&["a"], "").json();
    assert_eq!((read(&agent).unwrap(), again.get("base_rootfs_path")), (b"newer".to_vec(), None));
    assert_eq!((world.sandbox.staged(), world.sandbox.findings(&["--now"])), (vec![], vec![]));
}

#[test]
fn a_firecracker_of_the_bundle_is_the_one_that_is_used() {
    let world = World::new();
    let firecracker = world.sandbox.path("firecracker");
    write(&firecracker, "#!/bin/sh\necho Firecracker v1.16.1\n").unwrap();
    set_permissions(&firecracker, std::fs::Permissions::from_mode(0o755)).unwrap();
    let agent = world.sandbox.path("agent");
    let env = [("BG_GUEST_AGENT", agent.to_str().unwrap()), ("BG_FIRECRACKER", firecracker.to_str().unwrap())];
    let bundle = world.run("bg-image", &["bundle"], &env).json();
    assert_eq!(
        (&bundle["firecracker_path"], &bundle["versions"]["firecracker"]),
        (&"firecracker".into(), &"1.16.1".into())
    );
    assert_eq!(world.setting("firecracker", &[]).0, text(&world.file("firecracker")));
}

#[test]
fn a_failure_leaves_the_old_bundle_and_nothing_else() {
    let world = World::new();
    world.bundle(&[], "").ok();
    let before = read(world.file("bundle.json")).unwrap();
    write(world.sandbox.state("images/a/seed-16777216.ext4"), "damaged").unwrap();
    world.bundle(&[], "").failed_with(Code::DigestMismatch);
    remove_file(world.sandbox.state("images/a/seed-16777216.ext4")).unwrap();
    world.bundle(&[], "").failed_with(Code::MissingFile);
    assert_eq!((read(world.file("bundle.json")).unwrap(), world.sandbox.staged()), (before, vec![]));
    assert_eq!(world.check(&[])["ok"], true);
}

#[test]
fn the_doctor_names_every_file_that_is_missing_or_changed() {
    let world = World::new();
    world.bundle(&[], "").ok();
    for name in ["guest-agent", "id_ed25519", "vmlinux", "initrd", "rootfs.ext4", "packages"] {
        let (at, kept) = (world.file(name), world.sandbox.path("kept"));
        rename(&at, &kept).unwrap();
        let missing = world.check(&[]);
        assert!(missing["message"].as_str().unwrap().contains(&format!("{} ", at.display())), "{missing}");
        assert_eq!((&missing["ok"], &missing["fix"]), (&false.into(), &"pipelines/bundle".into()));
        copy(&kept, &at).unwrap();
        write(&at, "changed").unwrap();
        assert_eq!(world.check(&[])["ok"], false, "{name}");
        rename(&kept, &at).unwrap();
        assert_eq!(world.check(&[])["ok"], true, "{name}");
    }
    for change in [
        (|json| json["agent_path"] = "/etc/passwd".into()) as fn(&mut Value),
        |json| json["agent_path"] = "../agent".into(),
        |json| json["agnet_path"] = "guest-agent".into(),
        |json| json["kind"] = "Image".into(),
        |json| json["digests"] = json!({}),
    ] {
        let before = read(world.file("bundle.json")).unwrap();
        world.edit(change);
        let bad = world.check(&[]);
        assert_eq!((&bad["ok"], &bad["fix"]), (&false.into(), &"pipelines/bundle".into()), "{bad}");
        world.run("bg-image", &["reconcile"], &[]).failed_with(Code::BadDocument);
        write(world.file("bundle.json"), before).unwrap();
    }
    remove_file(world.file("bundle.json")).unwrap();
    assert_eq!(world.check(&[])["ok"], true, "nobody has to have one");
    let json = world.file("bundle.json");
    assert_eq!(world.check(&[("BG_BUNDLE", json.to_str().unwrap())])["ok"], false, "but one that is named is there");
}

#[test]
fn the_default_images_record_gets_the_bundles_kernel() {
    let world = World::new();
    world.bundle(&[], "").ok();
    let newer = world.sandbox.path("newer.json");
    write(&newer, fixture::with_kernel(&world.sandbox, "b", NEW).to_string()).unwrap();
    world.run("bg-image", &["reconcile", "--kernel", newer.to_str().unwrap()], &[]).ok();
    assert_eq!(world.kernel(), NEW, "a kernel that is given goes before");
    let better = world.check(&[]);
    assert_eq!((&better["ok"], &better["fix"]), (&true.into(), &"bg-image reconcile".into()));
    world.run("bg-image", &["reconcile"], &[("BG_BUNDLE", "none")]).ok();
    assert_eq!(world.kernel(), NEW);
    world.run("bg-image", &["reconcile"], &[]).ok();
    assert_eq!((world.kernel(), &world.check(&[])["fix"]), (OLD.into(), &Value::Null));
    assert_eq!(read(world.sandbox.state("images/a/vmlinux")).unwrap(), read(world.file("vmlinux")).unwrap());
    let again = world.run("bg-image", &["reconcile"], &[]);
    assert!(again.ok().contains(OLD) && again.stderr.contains("nothing was changed"), "{again:?}");
    // What is damaged in the bundle does not get anywhere.
    world.run("bg-image", &["reconcile", "--kernel", newer.to_str().unwrap()], &[]).ok();
    write(world.file("vmlinux"), "damaged").unwrap();
    world.run("bg-image", &["reconcile"], &[]).failed_with(Code::DigestMismatch);
    assert_eq!((world.kernel(), world.sandbox.staged()), (NEW.into(), vec![]));
}

#[test]
fn a_bundle_that_was_moved_gives_another_store_its_image_and_its_key() {
    let world = World::new();
    world.bundle(&[], "").ok();
    let key = read(world.sandbox.state("ssh/id_ed25519")).unwrap();
    rename(world.sandbox.state("bundle"), world.sandbox.path("moved")).unwrap();
    std::fs::remove_dir_all(world.sandbox.state("")).unwrap();
    let json = world.sandbox.path("moved/bundle.json");
    let env = [("BG_BUNDLE", json.to_str().unwrap())];
    assert_eq!(world.check(&env)["ok"], true);
    let image = world.run("bg-image", &["reconcile"], &env).json();
    assert_eq!((&image["name"], &image["kernel"]["version"]), (&"a".into(), &OLD.into()));
    assert_eq!(world.run("bg-image", &["default"], &[]).json()["name"], "a");
    assert_eq!(world.sandbox.run("bg-seed", &["check", "a"], "").json()["ok"], true);
    let agent = world.sandbox.path("agent");
    world.run("bg-image", &["bundle"], &[env[0], ("BG_GUEST_AGENT", agent.to_str().unwrap())]).ok();
    assert_eq!(read(world.sandbox.state("ssh/id_ed25519")).unwrap(), key);
    assert!(children(&world.sandbox.state("staging")).is_empty());
}

#[test]
fn the_old_names_of_the_agent_are_remarked_once_and_must_agree() {
    let world = World::new();
    world.bundle(&[], "").ok();
    let agent = world.file("guest-agent");
    for old in ["ping_helper_path", "vsock_ping_helper_path"] {
        world.edit(|json| {
            let path = json.as_object_mut().unwrap().remove("agent_path").unwrap();
            json[old] = path;
        });
        assert_eq!(world.setting("guest_agent", &[]).0, text(&agent), "{old}");
        let done = world.run("bg-image", &["ls"], &[]);
        let (lines, named) = (done.stderr.lines().count(), done.stderr.contains(&format!("`{old}`")));
        assert!(lines == 1 && named && done.stderr.contains("`agent_path`"), "{done:?}");
        world.edit(|json| json["agent_path"] = "guest-agent".into());
        assert_eq!(world.check(&[])["ok"], true, "they agree");
        world.edit(|json| json["agent_path"] = "initrd".into());
        world.run("bg-image", &["reconcile"], &[]).failed_with(Code::BadDocument);
        world.edit(|json| {
            json.as_object_mut().unwrap().remove(old);
            json["agent_path"] = "guest-agent".into();
        });
        assert_eq!(world.run("bg-image", &["ls"], &[]).stderr, "");
    }
    let own = world.sandbox.path("agent");
    let own = own.to_str().unwrap();
    let done = world.run("bg-image", &["ls"], &[("BG_PING_HELPER", own), ("BG_GUEST_AGENT", own)]);
    assert_eq!((done.exit, done.stderr.lines().count()), (0, 1), "{done:?}");
    assert!(done.stderr.contains("BG_GUEST_AGENT"), "{done:?}");
    world.run("bg-image", &["ls"], &[("BG_PING_HELPER", own), ("BG_GUEST_AGENT", "/x")]).failed_with(Code::BadConfig);
}

#[test]
fn the_pipeline_puts_no_bundle_in_the_place_of_something_else() {
    let sandbox = Sandbox::new();
    let mut command = Command::new(crate::support::source::root("pipelines/bundle"));
    command.arg(sandbox.path("home")).env_clear().envs(sandbox.env());
    let done = Done::from(command.output().unwrap());
    assert!(done.exit == 73 && done.stderr.contains("is no bundle"), "{done:?}");
    sandbox.assert_untouched("pipelines/bundle");
}
