use super::*;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

const FINE: &str = "port 22\naddressfamily any\nlistenaddress [::]:22\nlistenaddress 0.0.0.0:22\npermitrootlogin \
                    without-password\npubkeyauthentication yes\nauthorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2\n";

#[test]
fn settings_that_shut_root_out_are_named() {
    assert_eq!(of_settings(FINE), Vec::<String>::new());
    for (from, to, said) in [
        (":22\n", ":2222\n", "sshd is set to listen on [::]:2222, 0.0.0.0:2222, and not on 127.0.0.1 port 22"),
        ("without-password", "no", "sshd is set to `permitrootlogin no`, so root cannot log in"),
        ("pubkeyauthentication yes", "pubkeyauthentication no", "sshd is set to `pubkeyauthentication no`"),
        (".ssh/authorized_keys", "/etc/keys/%u", "sshd is set to `authorizedkeysfile /etc/keys/%u /etc/keys/%u2`"),
        ("port 22\n", "port 22\nallowusers me\nallowusers you\n", "sshd is set to `allowusers me you`, without root"),
        ("port 22\n", "port 22\ndenyusers root\n", "sshd is set to `denyusers root`"),
    ] {
        let problems = of_settings(&FINE.replace(from, to));
        assert!(problems.len() == 1 && problems[0].starts_with(said), "{problems:?}");
        assert!(problems[0].ends_with(WAY_BACK), "{problems:?}");
    }
    for users in ["me root", "*", "r?ot", "root@10.0.0.1"] {
        let settings: String = users.split(' ').map(|user| format!("allowusers {user}\n")).collect();
        assert_eq!(of_settings(&format!("{FINE}{settings}")), Vec::<String>::new(), "{users}");
    }
}

#[test]
fn a_configuration_that_sshd_refuses_is_quoted() {
    let said = "/etc/ssh/sshd_config.d/x.conf: line 1: Bad configuration option: Foo\nterminating, 1 bad\n";
    let problem = refused(said).unwrap();
    assert!(
        problem.contains("will not start again: /etc/ssh/sshd_config.d/x.conf: line 1: Bad configuration"),
        "{problem}"
    );
    assert!(!problem.contains("terminating"), "{problem}");
    assert_eq!(refused("Missing privilege separation directory: /run/sshd\n"), None);
    assert_eq!(refused(""), None);
}

#[test]
fn a_home_that_others_can_write_to_is_named() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".ssh/authorized_keys");
    fs_err::create_dir(home.path().join(".ssh")).unwrap();
    fs_err::write(&file, "k0\nk1 a\n").unwrap();
    let look = |keys: &str| of_home(home.path(), keys).join("; ");
    let set = |path: &Path, mode| fs_err::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    assert_eq!((look("k1 a\n"), look("")), (String::new(), String::new()));
    assert!(look("k2\n").contains("lacks the key that bg-ssh logs in by"), "{}", look("k2\n"));
    for path in [home.path(), &home.path().join(".ssh"), &file] {
        let mode = path.metadata().unwrap().permissions().mode();
        set(path, mode | 0o020);
        let said = look("");
        assert!(said.starts_with(&format!("other users can write to {}, so sshd", path.display())), "{said}");
        assert!(said.contains("`bg-vm restart "), "{said}");
        set(path, mode);
    }
    std::os::unix::fs::chown(home.path(), Some(7), None).unwrap();
    assert!(look("").contains(" belongs to the user 7, so sshd"), "{}", look(""));
}
