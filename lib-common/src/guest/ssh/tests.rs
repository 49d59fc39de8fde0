use super::*;

fn target(state: &str) -> SshTarget {
    let state = Path::new(state);
    SshTarget {
        name: Name::parse("dev").unwrap(),
        user: "root".into(),
        connector: "/opt/100% b/bg-ssh".into(),
        via: Via::Auto,
        connect_timeout: Duration::from_secs(120),
        log: None,
        login_since_ms: None,
        state_dir: state.into(),
        runtime_dir: "/run/banger".into(),
        known_hosts: state.join("machines/dev/known_hosts"),
        identity: state.join("ssh/id_ed25519"),
    }
}

#[test]
fn the_command_line_is_this_one() {
    let forwards = ["8000:localhost:80".to_owned()];
    let session = Session { command: Some("uname -a"), tty: false, forwards: &forwards };
    let cmd = command(&target("/s t/50%"), session).unwrap();
    let expected = [
        "ssh",
        "-F",
        "none",
        "-o",
        "ProxyCommand='/opt/100%% b/bg-ssh' --fdpass --via auto --connect-timeout 120 dev",
        "-o",
        "ProxyUseFdpass=yes",
        "-o",
        "ConnectTimeout=120",
        "-o",
        "UserKnownHostsFile=\"/s t/50%%/machines/dev/known_hosts\"",
        "-o",
        "GlobalKnownHostsFile=/dev/null",
        "-o",
        "HostKeyAlias=dev",
        "-o",
        "HostKeyAlgorithms=ssh-ed25519",
        "-o",
        "KexAlgorithms=^curve25519-sha256",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "CheckHostIP=no",
        "-o",
        "UpdateHostKeys=no",
        "-o",
        "IdentityFile=\"/s t/50%%/ssh/id_ed25519\"",
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "IdentityAgent=none",
        "-o",
        "PreferredAuthentications=publickey",
        "-o",
        "PasswordAuthentication=no",
        "-o",
        "BatchMode=yes",
        "-o",
        "ControlMaster=no",
        "-o",
        "ControlPath=none",
        "-o",
        "ExitOnForwardFailure=yes",
        "-o",
        "LogLevel=ERROR",
        "-L",
        "127.0.0.1:8000:localhost:80",
        "-l",
        "root",
        "-T",
        "dev",
        "--",
        "uname -a",
    ];
    assert_eq!(cmd.argv(), expected);
    let env = "SHELL=/bin/sh BG_STATE_DIR='/s t/50%' BG_RUNTIME_DIR=/run/banger ssh ";
    assert!(cmd.to_shell().starts_with(env), "{}", cmd.to_shell());
}

#[test]
fn a_session_without_a_command_ends_with_the_name() {
    let cmd = command(&target("/s"), Session { command: None, tty: true, forwards: &[] }).unwrap();
    assert_eq!(cmd.argv()[cmd.argv().len() - 2..], ["-t", "dev"]);
}

#[test]
fn what_goes_wrong_goes_to_the_log_where_there_is_one() {
    let target = SshTarget { log: Some("/proc/7/fd/5".into()), ..target("/s") };
    let cmd = command(&target, Session { command: None, tty: true, forwards: &[] }).unwrap();
    let argv = cmd.argv();
    assert_eq!(argv[1..5], ["-F", "none", "-E", "/proc/7/fd/5"]);
    let connector = "'/opt/100%% b/bg-ssh' --fdpass --error-file /proc/7/fd/5 --via auto --connect-timeout 120 dev";
    assert!(argv.contains(&format!("ProxyCommand={connector}")), "{argv:?}");
    let place = |option: &str| argv.iter().position(|word| word.starts_with(option)).unwrap();
    assert!(place("IgnoreUnknown=LogVerbose") < place("LogVerbose="), "an old ssh passes over it: {argv:?}");
}

#[test]
fn a_login_that_is_to_be_noted_is_noted_by_the_connector() {
    let target = SshTarget { login_since_ms: Some(77), ..target("/s") };
    let cmd = command(&target, Session { command: None, tty: true, forwards: &[] }).unwrap();
    let argv = cmd.argv();
    for option in ["PermitLocalCommand=yes", "LocalCommand='/opt/100%% b/bg-ssh' --logged-in 77 dev"] {
        assert!(argv.windows(2).any(|words| words == ["-o", option]), "{option}: {argv:?}");
    }
}

#[test]
fn a_forwarded_port_is_taken_at_one_address() {
    for (given, passed) in [
        ("8000:localhost:80", "127.0.0.1:8000:localhost:80"),
        ("8000:[::1]:80", "127.0.0.1:8000:[::1]:80"),
        ("8000:/run/x.sock", "127.0.0.1:8000:/run/x.sock"),
        ("localhost:8000:localhost:80", "127.0.0.1:8000:localhost:80"),
        ("127.0.0.1:8000:h:80", "127.0.0.1:8000:h:80"),
        ("[::1]:8000:h:80", "[::1]:8000:h:80"),
        ("*:8000:h:80", "*:8000:h:80"),
        (":8000:h:80", ":8000:h:80"),
        ("10.0.0.1:8000:h:80", "10.0.0.1:8000:h:80"),
        ("/tmp/x.sock:h:80", "/tmp/x.sock:h:80"),
        ("-oProxyCommand=x", "-oProxyCommand=x"),
    ] {
        assert_eq!(on_one_address(given), passed);
    }
}

/// `ssh -G` says how the real ssh understands the options, after its own unquoting.
#[test]
fn ssh_reads_the_paths_as_they_were_meant() {
    let cmd = command(&target(r#"/s "t"/a\b/50%/'q'"#), Session { command: None, tty: false, forwards: &[] }).unwrap();
    let args: Vec<String> = cmd.argv().split_off(1);
    let out = Cmd::new("ssh").arg("-G").args(&args).output(1 << 16).unwrap();
    let out = String::from_utf8(out).unwrap();
    for line in [
        "hostname dev",
        "user root",
        "stricthostkeychecking true",
        "hostkeyalias dev",
        r#"identityfile /s "t"/a\b/50%%/'q'/ssh/id_ed25519"#,
        r#"userknownhostsfile /s "t"/a\b/50%/'q'/machines/dev/known_hosts"#,
        "proxycommand '/opt/100%% b/bg-ssh' --fdpass --via auto --connect-timeout 120 dev",
    ] {
        assert!(out.lines().any(|l| l == line), "{line}\n{out}");
    }
}

#[test]
fn paths_that_ssh_would_change_are_refused() {
    for bad in ["/s/${HOME}", "/s\n", "/s\u{1b}"] {
        let e = command(&target(bad), Session { command: None, tty: false, forwards: &[] }).unwrap_err();
        assert_eq!(e.code(), Code::BadConfig, "{bad:?}");
    }
}

#[test]
fn one_word_is_a_command_line_and_several_are_an_argv() {
    let line = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        command_line(&words).map_err(|e| e.code())
    };
    for (words, expected) in [
        (&[][..], Ok(None)),
        (&["echo $HOME; ls"], Ok(Some("echo $HOME; ls"))),
        (&["echo", "a  b", "$HOME"], Ok(Some("echo 'a  b' '$HOME'"))),
        (&["printf", "it's", ""], Ok(Some(r"printf 'it'\''s' ''"))),
        (&["", "x"], Ok(Some("'' x"))),
        (&[""], Err(Code::Usage)),
        (&["  "], Err(Code::Usage)),
    ] {
        assert_eq!(line(words), expected.map(|l| l.map(str::to_owned)), "{words:?}");
    }
}

#[test]
fn known_hosts_has_the_one_key_and_is_written_once() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let dir = tempfile::tempdir().unwrap();
    let env = [("HOME", "/nowhere"), ("BG_STATE_DIR", dir.path().to_str().unwrap())];
    let config = crate::config::Config::load(&env.map(|(k, v)| (k.to_owned(), v.to_owned())).into(), false).unwrap();
    let machine = crate::store::Store::new(&config).machine_dir(&Name::parse("dev").unwrap());
    std::fs::create_dir_all(machine.path()).unwrap();
    let key = keys::new_host_key().unwrap();
    let key = key.public_line();
    let guest = Guest { host_key: format!("{key} a comment"), user: "root".into() };
    let path = known_hosts(&machine, &guest).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("dev {key}\n"));
    let before = path.metadata().unwrap();
    assert_eq!(before.permissions().mode() & 0o777, 0o600);
    known_hosts(&machine, &guest).unwrap();
    assert_eq!(path.metadata().unwrap().ino(), before.ino(), "what is right is not written again");
    std::fs::write(&path, "dev ssh-ed25519 AAAA\nother ssh-ed25519 AAAA\n").unwrap();
    known_hosts(&machine, &guest).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("dev {key}\n"));
    let bad = Guest { host_key: "ssh-ed25519 AAAA\n* ssh-rsa x".into(), user: "root".into() };
    assert_eq!(known_hosts(&machine, &bad).unwrap_err().code(), Code::BadDocument);
}
