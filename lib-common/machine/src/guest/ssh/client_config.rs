//! What a user's own ssh has to know of VMs: ssh_config(5) for `NAME.vm`, and the lines of known_hosts for it.

use super::{config_word, keys, plain};
use lib_common::doc::Via;
use lib_common::doc::{Guest, Name};
use lib_common::error::Result;
use lib_common::sys::cmd::quote;
use std::path::PathBuf;

/// What the text is made of. No VM is part of it, so it holds for those that come later.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// env(1), by its absolute path.
    pub env: PathBuf,
    /// The program `bg-ssh`.
    pub tool: PathBuf,
    /// The store, as `bg-ssh` has to find it from anywhere.
    pub state_dir: PathBuf,
    /// The sockets, as it has to find them.
    pub runtime_dir: PathBuf,
    /// The private key that logs in.
    pub identity: PathBuf,
    /// Which way to go; without it, what the configuration says at that time.
    pub via: Option<Via>,
}

/// The text to include (keywords: ssh_config(5)).
///
/// ssh gives ProxyCommand to the user's shell, and splits KnownHostsCommand into words itself; so each is quoted in its
/// own way. env(1) sets the variables because it does so alike under every shell, and ssh has none of ours.
///
/// # Errors
/// [`lib_common::Code::BadConfig`] for paths that ssh_config has no way to write.
pub fn client_config(config: &ClientConfig) -> Result<String> {
    let ClientConfig { env, tool, state_dir, runtime_dir, identity, via } = config;
    let words = [
        plain(env)?.to_owned(),
        format!("BG_STATE_DIR={}", plain(state_dir)?),
        format!("BG_RUNTIME_DIR={}", plain(runtime_dir)?),
        plain(tool)?.to_owned(),
    ];
    let shell = words.each_ref().map(|word| quote(word).replace('%', "%%")).join(" ");
    let split = words.iter().map(|word| config_word(word.as_ref())).collect::<Result<Vec<_>>>()?.join(" ");
    let via = via.map(|via| format!("--via {} ", via.as_str())).unwrap_or_default();
    let identity = config_word(identity)?;
    Ok(format!(
        "# The VMs of banger, as NAME.vm: those that are and those that come. `bg-ssh --config` wrote it.
Host *.vm
    User root
    ProxyCommand {shell} --fdpass {via}'%h'
    ProxyUseFdpass yes
    KnownHostsCommand {split} --known-hosts %h
    UserKnownHostsFile /dev/null
    GlobalKnownHostsFile /dev/null
    HostKeyAlgorithms ssh-ed25519
    KexAlgorithms ^curve25519-sha256
    StrictHostKeyChecking yes
    CheckHostIP no
    UpdateHostKeys no
    IdentityFile {identity}
    IdentitiesOnly yes
    PreferredAuthentications publickey
"
    ))
}

/// The lines of known_hosts for `NAME.vm`, also where somebody gives a port.
///
/// # Errors
/// [`lib_common::Code::BadDocument`] for a key that is none.
pub fn host_key_lines(name: &Name, guest: &Guest) -> Result<String> {
    Ok(format!("{name}.vm,[{name}.vm]:* {}\n", keys::checked(&guest.host_key)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lib_common::Code;
    use lib_common::sys::cmd::Cmd;
    use std::path::Path;

    fn config(state: &str, via: Option<Via>) -> ClientConfig {
        ClientConfig {
            env: "/usr/bin/env".into(),
            tool: "/opt/b/bg-ssh".into(),
            state_dir: state.into(),
            runtime_dir: "/run/banger".into(),
            identity: Path::new(state).join("ssh/id_ed25519"),
            via,
        }
    }

    #[test]
    fn the_text_is_this_one() {
        let expected = "\
# The VMs of banger, as NAME.vm: those that are and those that come. `bg-ssh --config` wrote it.
Host *.vm
    User root
    ProxyCommand /usr/bin/env 'BG_STATE_DIR=/s t/50%%' BG_RUNTIME_DIR=/run/banger /opt/b/bg-ssh --fdpass --via tap '%h'
    ProxyUseFdpass yes
    KnownHostsCommand \"/usr/bin/env\" \"BG_STATE_DIR=/s t/50%%\" \"BG_RUNTIME_DIR=/run/banger\" \"/opt/b/bg-ssh\" \
            --known-hosts %h
    UserKnownHostsFile /dev/null
    GlobalKnownHostsFile /dev/null
    HostKeyAlgorithms ssh-ed25519
    KexAlgorithms ^curve25519-sha256
    StrictHostKeyChecking yes
    CheckHostIP no
    UpdateHostKeys no
    IdentityFile \"/s t/50%%/ssh/id_ed25519\"
    IdentitiesOnly yes
    PreferredAuthentications publickey
";
        assert_eq!(client_config(&config("/s t/50%", Some(Via::Tap))).unwrap(), expected);
        assert!(client_config(&config("/s", None)).unwrap().contains("/bg-ssh --fdpass '%h'\n"));
    }

    #[test]
    fn paths_that_ssh_would_change_are_refused() {
        for bad in ["/s/${HOME}", "/s\n    ProxyCommand x", "/s\u{1b}"] {
            assert_eq!(client_config(&config(bad, None)).unwrap_err().code(), Code::BadConfig, "{bad:?}");
        }
    }

    #[test]
    fn ssh_takes_every_keyword_and_both_commands_get_the_words_that_were_meant() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join(r#"a "b" 'c' d\e 50% $x"#);
        std::fs::create_dir(&state).unwrap();
        let said = state.join("said");
        // In place of bg-ssh: a program that only says what it was given.
        let tool = state.join("tool");
        let script = "#!/bin/sh\nprintf '%s|' \"$BG_STATE_DIR\" \"$@\" >> \"$BG_STATE_DIR/said\"\nexit 1\n";
        lib_common::sys::fs::save(&tool, script.as_bytes(), 0o755).unwrap();
        let text = client_config(&ClientConfig { tool, ..config(state.to_str().unwrap(), None) }).unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, &text).unwrap();
        let ssh = |args: &[&str]| Cmd::new("ssh").arg("-F").arg(&file).args(args).output(1 << 16);
        let seen = String::from_utf8(ssh(&["-G", "dev.vm"]).unwrap()).unwrap();
        let identity = format!("identityfile {}/ssh/id_ed25519", state.display().to_string().replace('%', "%%"));
        for line in ["user root", "stricthostkeychecking true", "proxyusefdpass yes", identity.as_str()] {
            assert!(seen.lines().any(|l| l == line), "{line}\n{seen}");
        }
        let other = String::from_utf8(ssh(&["-G", "dev.example"]).unwrap()).unwrap();
        assert!(!other.contains("proxycommand"), "{other}");
        ssh(&["Dev.vm", "true"]).unwrap_err();
        let expected = format!("{}|--fdpass|dev.vm|", state.display());
        assert_eq!(std::fs::read_to_string(&said).unwrap(), expected);
    }

    #[test]
    fn a_hosts_line_has_both_of_its_names() {
        let key = keys::new_host_key().unwrap();
        let guest = Guest { host_key: format!("{} x", key.public_line()), user: "root".into() };
        let line = host_key_lines(&Name::parse("dev").unwrap(), &guest).unwrap();
        assert_eq!(line, format!("dev.vm,[dev.vm]:* {}\n", key.public_line()));
    }
}
