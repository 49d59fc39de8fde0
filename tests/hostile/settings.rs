//! Settings of another user, and files that are none: a tool that root runs with another user's HOME, and FIFOs and devices in
//! place of what a tool reads.

use crate::running::World;
use crate::support::fixture::WORK;
use crate::support::{Done, finish, not_run};
use lib_common::error::Code;
use nix::sys::stat::Mode;
use std::fs::{create_dir_all, set_permissions, write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const STRANGER: Option<u32> = Some(12345);

/// What a tool says within a time in which none of these takes long.
fn soon(mut command: Command) -> Done {
    let begun = Instant::now();
    let done = finish(command.spawn().unwrap(), b"");
    assert!(begun.elapsed() < Duration::from_secs(20), "{done:?}");
    done
}

fn create(world: &World) -> Command {
    world.command("bg-vm", &["create", "new", "--work-size", WORK])
}

/// A program that leaves a trace where it runs.
fn program(world: &World, path: &Path) -> PathBuf {
    create_dir_all(path.parent().unwrap()).unwrap();
    let ran = world.sandbox.path("home/ran");
    write(path, format!("#!/bin/sh\n: > {}\nexit 1\n", ran.display())).unwrap();
    set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    ran
}

#[test]
fn root_neither_reads_another_users_configuration_nor_runs_what_it_names() {
    if !nix::unistd::geteuid().is_root() {
        return not_run("root_neither_reads_another_users_configuration_nor_runs_what_it_names", "it takes root");
    }
    let world = World::new(&[]);
    let home = world.sandbox.path("stranger");
    let config = home.join(".config/banger/config.toml");
    let qemu = home.join("qemu");
    let ran = program(&world, &qemu);
    create_dir_all(config.parent().unwrap()).unwrap();
    write(&config, format!("qemu = '{}'\n", qemu.display())).unwrap();
    for path in [&home, &home.join(".config"), config.parent().unwrap(), &config, &qemu] {
        chown(path, STRANGER, STRANGER).unwrap();
    }
    let with_home = |mut command: Command| {
        command.env("HOME", &home).env_remove("BG_QEMU").env_remove("BG_CACHE_DIR");
        soon(command).failed_with(Code::Permission)
    };
    let said = with_home(create(&world));
    assert!(said.message.contains("belongs to user 12345"), "{said:?}");
    // Root's own file where the stranger can put another one.
    chown(&config, Some(0), Some(0)).unwrap();
    with_home(create(&world));
    with_home(world.command("bg-vm", &["ls"]));
    std::fs::remove_file(&config).unwrap();
    // Without a configuration, the cache is the stranger's.
    let document = crate::support::fixture::Files::new(&world.sandbox, "other").document().to_string();
    let mut build = world.command("bg-seed", &["build", "--size", WORK]);
    build.env("HOME", &home).env_remove("BG_CACHE_DIR");
    finish(build.spawn().unwrap(), document.as_bytes()).failed_with(Code::Permission);
    assert!(!home.join(".cache").exists() && !ran.exists());
    assert!(crate::support::children(&world.sandbox.state("machines")).is_empty());
}

#[test]
fn a_program_that_others_can_change_is_not_run() {
    let world = World::new(&[]);
    let path = world.sandbox.path("bin/program");
    let ran = program(&world, &path);
    let link = world.sandbox.path("bin/link");
    symlink(&path, &link).unwrap();
    let refused = |variable: &str, path: &Path| {
        let mut command = create(&world);
        if variable == "BG_FIRECRACKER" {
            command.args(["--vmm", "firecracker"]);
        }
        soon({
            command.env(variable, path);
            command
        })
        .failed_with(Code::Permission)
    };
    for variable in ["BG_QEMU", "BG_VHOST_DEVICE_VSOCK", "BG_FIRECRACKER"] {
        set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        let said = refused(variable, &path);
        assert_eq!(said.hint, Some(format!("chmod go-w {}", path.display())), "{variable}");
        set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let said = refused(variable, &link);
        assert_eq!(said.hint, Some(format!("name the file itself: {variable}={}", path.display())));
    }
    let cached = world.sandbox.path("cache/vhost-device-vsock/bin/vhost-device-vsock");
    program(&world, &cached);
    set_permissions(&cached, PermissionsExt::from_mode(0o777)).unwrap();
    let mut command = create(&world);
    // Where the tools of a creation are, and no vhost-device-vsock.
    command.env_remove("BG_VHOST_DEVICE_VSOCK").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    soon(command).failed_with(Code::Permission);
    assert!(!ran.exists());
}

#[test]
fn a_network_directory_of_another_user_is_not_used() {
    let world = World::new(&[]);
    let net = world.sandbox.path("net");
    std::fs::create_dir(&net).unwrap();
    set_permissions(&net, PermissionsExt::from_mode(0o777)).unwrap();
    soon(world.command("bg-tap", &["ls"])).failed_with(Code::Permission);
    set_permissions(&net, PermissionsExt::from_mode(0o755)).unwrap();
    if nix::unistd::geteuid().is_root() {
        chown(&net, STRANGER, None).unwrap();
        soon(world.command("bg-tap", &["ls"])).failed_with(Code::Permission);
    }
}

#[test]
fn a_configuration_that_is_no_file_is_neither_waited_for_nor_read() {
    let world = World::new(&[]);
    let config = world.sandbox.path("home/.config/banger/config.toml");
    create_dir_all(config.parent().unwrap()).unwrap();
    let list = || soon(world.command("bg-vm", &["ls"]));
    nix::unistd::mkfifo(&config, Mode::S_IRWXU).unwrap();
    list().failed_with(Code::Permission);
    std::fs::remove_file(&config).unwrap();
    symlink("/dev/zero", &config).unwrap();
    list().failed_with(Code::Permission);
    std::fs::remove_file(&config).unwrap();
    write(&config, format!("vcpu = 1\n#{}", "x".repeat(1 << 20))).unwrap();
    assert!(list().failed_with(Code::BadConfig).message.contains("larger than 1 MiB"));
    write(&config, "vcpu = 1\n").unwrap();
    list().ok();
}

#[test]
fn a_file_that_a_user_names_is_a_file() {
    let world = World::new(&["dev"]);
    let files = crate::support::fixture::Files::new(&world.sandbox, "other");
    let document = files.document().to_string();
    let fifo = world.sandbox.path("home/fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    for path in [fifo.to_str().unwrap(), "/dev/zero"] {
        let disk = document.replace(files.path("rootfs.ext4").to_str().unwrap(), path);
        for (tool, args, stdin) in [
            ("bg-vm", &["start", "--file", path][..], ""),
            ("bg-rootfs", &["build", "--distro", "debian", "--packages", path], &*document),
            ("bg-rootfs", &["build", "--distro", "void", "--dry-run", "--packages", path], &document),
            ("bg-rootfs", &["build", "--distro", "void", "--lock", path], &document),
            ("bg-rootfs", &["build", "--distro", "void", "--key", path], &document),
            ("bg-rootfs", &["build", "--distro", "debian", "--kernel", path], ""),
            ("bg-kernel", &["build", "--vmlinux", path], ""),
            ("bg-kernel", &["build", "--deb", path], ""),
            ("bg-image", &["reconcile", "debian", "--kernel", path], ""),
            ("bg-image-build", &["--base", "debian", "--run", path], ""),
            ("bg-bench", &["compare", path, path], ""),
            ("bg-seed", &["build", "--size", WORK], &disk),
        ] {
            let begun = Instant::now();
            let said = finish(world.command(tool, args).spawn().unwrap(), stdin.as_bytes()).failed();
            assert!(begun.elapsed() < Duration::from_secs(20), "{tool} {args:?}: {said:?}");
            let all = format!("{} {}", said.message, said.causes.join(" "));
            assert!(all.contains(&format!("{path} is not a regular file")), "{tool} {args:?}: {said:?}");
            assert_eq!(said.exit, 65, "{tool} {args:?}: {said:?}");
        }
    }
}

#[test]
fn a_home_that_is_no_absolute_path_makes_nothing_in_the_working_directory() {
    let world = World::new(&[]);
    for home in ["", "relative"] {
        let mut command = world.command("bg-kernel", &["build"]);
        command.env("HOME", home).env_remove("BG_CACHE_DIR").env_remove("BG_STATE_DIR");
        assert!(soon(command).failed_with(Code::BadConfig).message.contains("HOME"));
    }
    assert_eq!(crate::support::children(&world.sandbox.path("home")), Vec::<PathBuf>::new());
}
