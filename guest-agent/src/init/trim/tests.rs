use super::*;

/// A root with the files that are named, each with its content.
fn root_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }
    root
}

fn unit(root: &tempfile::TempDir, name: &str) -> Option<String> {
    fs_err::read_to_string(root.path().join("run/systemd/system").join(name)).ok()
}

fn masked(root: &tempfile::TempDir) -> Vec<String> {
    let entries = fs_err::read_dir(root.path().join(GENERATORS)).map(|dir| dir.map(|e| e.unwrap())).ok();
    let names = entries.into_iter().flatten().map(|e| e.file_name().into_string().unwrap());
    let mut names: Vec<_> = names.map(|n| n.replace("systemd-", "").replace("-generator", "")).collect();
    names.sort();
    names
}

#[test]
fn nothing_that_sshd_comes_after_comes_after_it() {
    let before: Vec<_> =
        SSHD.lines().filter_map(|l| l.strip_prefix("After=")).flat_map(str::split_whitespace).collect();
    assert_eq!(before, ["systemd-tmpfiles-setup.service", "systemd-sysctl.service"]);
    // What those come after in systemd's own units, and theirs.
    let ancestors = [
        "systemd-journald.service",
        "systemd-journal-flush.service",
        "systemd-sysusers.service",
        "systemd-modules-load.service",
        "systemd-remount-fs.service",
        "systemd-tmpfiles-setup-dev.service",
        "kmod-static-nodes.service",
    ];
    for unit in COME_LATER.iter().chain(DEVICES_COME_LATER) {
        assert!(!before.contains(unit) && !ancestors.contains(unit), "{unit}");
    }
}

#[test]
fn devices_are_waited_for_where_a_file_system_waits_for_one() {
    for (fstab, later) in [("# nothing\n\n", true), ("/dev/vdc /srv ext4 defaults 0 2\n", false)] {
        let root = root_with(&[("etc/fstab", fstab)]);
        shorten(root.path(), "quiet").unwrap();
        assert_eq!(unit(&root, "systemd-udevd.service.d/50-banger.conf").is_some(), later, "{fstab}");
        assert_eq!(unit(&root, "systemd-logind.service.d/50-banger.conf").as_deref(), Some(LATER));
        assert_eq!(masked(&root).contains(&"fstab".to_owned()), later);
    }
}

#[test]
fn a_login_is_not_told_that_none_is_permitted() {
    let root = root_with(&[]);
    shorten(root.path(), "quiet").unwrap();
    assert_eq!(fs_err::read_link(root.path().join(BOOT_WORD)).unwrap(), Path::new("/dev/null"));
    let unit = unit(&root, "systemd-user-sessions.service.d/50-banger.conf").unwrap();
    assert!(unit.contains("\nAfter=banger-login-first.service\n") && unit.ends_with("\nExecStop=\n"), "{unit}");
}

#[test]
fn a_generator_runs_where_it_has_something_to_do() {
    let idle = root_with(&[
        ("etc/systemd/system/serial-getty@ttyS0.service", ""),
        ("etc/init.d/README", ""),
        ("etc/init.d/hwclock.sh", ""),
        ("usr/lib/systemd/system/hwclock.service", ""),
    ]);
    shorten(idle.path(), "console=ttyS0 quiet").unwrap();
    let all = masked(&idle);
    assert!(all.contains(&"sysv".to_owned()) && all.len() == GENERATED.len() - 1, "the getty is no link: {all:?}");
    let busy = root_with(&[
        ("etc/crypttab", "a /dev/vdc\n"),
        ("etc/veritytab", "a b c\n"),
        ("etc/integritytab", "a b\n"),
        ("etc/fstab", "a b c d\n"),
        ("etc/rc.local", "#!/bin/sh\n"),
        ("etc/init.d/old", "#!/bin/sh\n"),
    ]);
    shorten(busy.path(), "quiet").unwrap();
    assert_eq!(masked(&busy), ["debug", "gpt-auto", "hibernate-resume", "run", "system-update"]);
    for line in ["systemd.unit=rescue.target", "quiet rd.luks=1", "resume=/dev/vdc", "fsck.mode=force"] {
        let root = root_with(&[]);
        shorten(root.path(), line).unwrap();
        assert!(masked(&root).is_empty(), "{line}");
    }
}

#[test]
fn only_a_timer_that_would_make_up_for_a_missed_run_is_delayed() {
    let wanted = "etc/systemd/system/timers.target.wants";
    let root = root_with(&[
        (&format!("{wanted}/apt-daily.timer"), ""),
        (&format!("{wanted}/plain.timer"), ""),
        ("usr/lib/systemd/system/apt-daily.timer", "[Timer]\nOnCalendar=daily\nPersistent=true\n"),
        ("usr/lib/systemd/system/plain.timer", "[Timer]\nOnBootSec=1min\n"),
    ]);
    shorten(root.path(), "").unwrap();
    assert!(unit(&root, "apt-daily.timer.d/50-banger.conf").unwrap().contains("OnBootSec=15min"));
    assert_eq!(unit(&root, "plain.timer.d/50-banger.conf"), None);
}

#[test]
fn modules_that_are_named_are_loaded() {
    let none = ("etc/modules", "# none\n");
    for (files, skipped) in [
        (vec![none, ("etc/modules-load.d/modules.conf", "")], true),
        (vec![("etc/modules", "loop\n"), ("etc/modules-load.d/modules.conf", "")], false),
        (vec![none, ("usr/lib/modules-load.d/x.conf", "fuse\n")], false),
    ] {
        let root = root_with(&files);
        shorten(root.path(), "").unwrap();
        assert_eq!(unit(&root, "systemd-modules-load.service.d/50-banger.conf").is_some(), skipped, "{files:?}");
    }
}

#[test]
fn units_of_our_own_are_wanted() {
    let root = root_with(&[]);
    shorten(root.path(), "").unwrap();
    assert_eq!(unit(&root, "sysinit.target.wants/banger-login-first.service").as_deref(), Some(LOGIN_FIRST));
    assert_eq!(unit(&root, "multi-user.target.wants/banger-booted.service").as_deref(), Some(BOOTED));
}
