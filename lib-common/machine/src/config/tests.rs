use super::*;
use std::path::Path;

fn env(pairs: &[(&str, &str)]) -> Env {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn a_variable_goes_before_the_users_file_and_that_before_the_default() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join(".config/banger");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("config.toml"), "memory = \"2G\"\nvcpu = 2\n").unwrap();
    let home = home.path().to_str().unwrap();
    let config = Config::load(&env(&[("HOME", home), ("BG_VCPU", "3")]), false).unwrap();
    assert_eq!((config.vcpu, config.memory_mib, config.work_bytes), (3, 2048, 8 << 30));
    assert_eq!(config.state_dir, Path::new(home).join(".local/state/banger"));
    assert_eq!(config.runtime_dir, config.state_dir.join("run"));
}

#[test]
fn directories_follow_the_user_and_root() {
    let root = Config::load(&env(&[("HOME", "/nowhere")]), true).unwrap();
    assert_eq!((root.state_dir, root.runtime_dir), ("/var/lib/banger".into(), "/run/banger".into()));
    let user = env(&[("HOME", "/nowhere"), ("XDG_RUNTIME_DIR", "/run/user/1"), ("XDG_STATE_HOME", "/s")]);
    let user = Config::load(&user, false).unwrap();
    assert_eq!((user.state_dir, user.runtime_dir), ("/s/banger".into(), "/run/user/1/banger".into()));
    let other = Config::load(&env(&[("HOME", "/nowhere"), ("BG_STATE_DIR", "/x")]), true).unwrap();
    assert_eq!(other.runtime_dir, Path::new("/x/run"), "another state directory has sockets of its own");
}

#[test]
fn home_is_absolute_or_that_of_the_passwd_database() {
    for home in ["", "relative", "./x"] {
        let e = Config::load(&env(&[("HOME", home)]), false).unwrap_err();
        assert_eq!((e.code(), e.get_hint()), (Code::BadConfig, Some("unset HOME")), "{home}");
    }
    let own = lib_common::sys::host::home_of_caller().unwrap();
    assert!(Config::load(&env(&[]), false).unwrap().cache_dir.starts_with(own));
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (variable, value, word) in [
        ("BG_VCPU", "0", "1 to 32"),
        ("BG_MEMORY", "1000", "MiB"),
        ("BG_STATE_DIR", "relative", "absolute"),
        ("BG_VMM", "bochs", "auto"),
        ("BG_LOCK_WAIT", "-1", "seconds"),
        ("BG_BOOT_TIMEOUT", "0", "1 to 86400"),
        ("BG_KERNEL_ARGS", "a\nb", "ASCII"),
        ("BG_FIRECRACKER", "firecracker", "absolute"),
        ("BG_QEMU", "evil/qemu", "absolute"),
    ] {
        let e = Config::load(&env(&[("HOME", "/nowhere"), (variable, value)]), false).unwrap_err();
        assert_eq!(e.code(), Code::BadConfig);
        assert!(e.message().contains(variable) && e.message().contains(word), "{e}");
    }
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "memmory = \"1G\"\n").unwrap();
    let e = file::read(&file, &mut vec![]).unwrap_err();
    assert_eq!(e.get_hint(), Some("did you mean `memory`?"));
}

#[test]
fn every_setting_says_where_it_came_from() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join(".config/banger");
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("config.toml");
    std::fs::write(&file, "memory = \"2G\"\nvcpu = 2\n").unwrap();
    let program = home.path().join("firecracker");
    std::fs::write(&program, "").unwrap();
    let home = home.path().to_str().unwrap();
    let env = env(&[("HOME", home), ("BG_VCPU", "3"), ("BG_FIRECRACKER", program.to_str().unwrap())]);
    let config = Config::load(&env, false).unwrap();
    let settings = config.settings();
    let of = |key: &str| {
        let setting = settings.iter().find(|s| s.key == key).unwrap();
        (setting.value.as_deref(), setting.origin.as_str())
    };
    assert_eq!(settings.len(), KEYS.len());
    assert_eq!(of("vcpu"), (Some("3"), "BG_VCPU"), "a variable goes before the file");
    assert_eq!(of("memory"), (Some("2G"), file.to_str().unwrap()));
    assert_eq!(of("work_size"), (Some("8G"), "default"));
    assert_eq!(of("image"), (None, "default"));
    assert_eq!(of("state_dir"), (Some(format!("{home}/.local/state/banger").as_str()), "default"));
    assert_eq!(of("firecracker").1, "BG_FIRECRACKER");
    assert_eq!(config.firecracker_path().unwrap(), Some(program), "whoever runs it says what is wrong with it");
    // What is said to be a default is the default.
    for (key, is) in
        [("vcpu", 1), ("console_bytes", 4 << 20), ("lock_wait", 10), ("memory", 1 << 30), ("work_size", 8 << 30)]
    {
        let (.., default, _) = KEYS.iter().find(|(k, ..)| *k == key).unwrap();
        assert_eq!(parse_size(default), Ok(is), "{key}");
    }
}

#[test]
fn sizes() {
    for (text, bytes) in
        [("0", 0), ("4096", 4096), ("1K", 1 << 10), ("512M", 512 << 20), ("2g", 2 << 30), ("1T", 1 << 40)]
    {
        assert_eq!(parse_size(text), Ok(bytes), "{text}");
    }
    for text in ["", "G", "1.5G", "-1", "+1", "1GB", "99999999999999999999", "9999999T", "é"] {
        assert!(parse_size(text).is_err(), "{text}");
    }
}

#[test]
fn deadlines_of_a_guest_are_in_proportion_to_its_boot() {
    let config =
        |seconds: &str| Config::load(&env(&[("HOME", "/nowhere"), ("BG_BOOT_TIMEOUT", seconds)]), false).unwrap();
    let of = |seconds| config(seconds).guest_deadline(Duration::from_secs(10)).as_secs();
    assert_eq!([of("60"), of("240"), of("30")], [10, 40, 5]);
    assert_eq!(config("").boot_timeout, Duration::from_secs(60));
}

#[test]
fn a_configured_firecracker_is_the_one_that_is_run() {
    let config = Config::load(&env(&[("HOME", "/nowhere"), ("BG_FIRECRACKER", "/opt/fc")]), false).unwrap();
    assert_eq!(config.firecracker_path().unwrap(), Some("/opt/fc".into()));
}

#[test]
fn the_old_names_of_the_agent_still_count_and_are_remarked_once() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join(".config/banger");
    std::fs::create_dir_all(&dir).unwrap();
    let agent = home.path().join("agent");
    std::fs::write(&agent, "").unwrap();
    let (home, agent) = (home.path().to_str().unwrap(), agent.to_str().unwrap());
    let load = |file: &str, pairs: &[(&str, &str)]| {
        std::fs::write(dir.join("config.toml"), file).unwrap();
        Config::load(&env(&[&[("HOME", home)], pairs].concat()), false)
    };
    for (file, pairs) in [
        (format!("ping_helper = '{agent}'"), vec![]),
        (format!("vsock_ping_helper = '{agent}'"), vec![]),
        (format!("ping_helper = '{agent}'\nvsock_ping_helper = '{agent}'\nguest_agent = '{agent}'"), vec![]),
        (String::new(), vec![("BG_PING_HELPER", agent)]),
        ("guest_agent = '/other'".into(), vec![("BG_PING_HELPER", agent)]),
        (String::new(), vec![("BG_PING_HELPER", agent), ("BG_GUEST_AGENT", agent)]),
    ] {
        let config = load(&file, &pairs).unwrap();
        assert_eq!(config.agent_path().unwrap(), Path::new(agent), "{file} {pairs:?}");
        let remark = config.legacy().unwrap();
        let new = if pairs.is_empty() { "is now `guest_agent`" } else { "is now BG_GUEST_AGENT" };
        assert!(remark.contains(new), "{remark}");
    }
    assert_eq!(load(&format!("guest_agent = '{agent}'"), &[]).unwrap().legacy(), None);
    for (file, pairs) in [
        (format!("ping_helper = '{agent}'\nguest_agent = '/other'"), vec![]),
        (format!("ping_helper = '{agent}'\nvsock_ping_helper = '/other'"), vec![]),
        (String::new(), vec![("BG_PING_HELPER", agent), ("BG_GUEST_AGENT", "/other")]),
    ] {
        let e = load(&file, &pairs).unwrap_err();
        assert!(e.code() == Code::BadConfig && e.get_hint().is_some(), "{file} {pairs:?}: {e}");
    }
}

#[test]
fn a_bundle_is_where_it_is_said_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let load = |bundle: &str| Config::load(&env(&[("HOME", "/nowhere"), ("BG_BUNDLE", bundle)]), false);
    assert!(load("").unwrap().bundle().unwrap().is_none(), "none has to be there");
    assert!(load("none").unwrap().bundle().unwrap().is_none());
    assert_eq!(load("relative").unwrap_err().code(), Code::BadConfig);
    let gone = load(dir.path().join("bundle.json").to_str().unwrap()).unwrap();
    assert_eq!(gone.bundle().unwrap_err().code(), Code::MissingFile);
    assert!(gone.agent_path().is_err() && gone.firecracker_path().is_err(), "one that is named has to be there");
    assert!(gone.without_bundle().bundle().unwrap().is_none());
}
