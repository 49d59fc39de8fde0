//! What a fresh Debian root lacks or has too much of to be an image: one table of what is added, one rule for what is
//! left out, one for what is edited. Plain data; `filter` applies it.

use super::sources::Source;
use crate::build::added::{Added, INOTIFY, TERMINAL};

/// Changes whenever a rule here changes in a way that its data does not show, so that cached roots are built anew.
pub const VERSION: u32 = 3;

/// Files of every image. Host name, hosts, resolv.conf, machine-id and host key are the agent's to write at boot: what is
/// here keeps the build host's out.
const FILES: &[(&str, &str)] = &[
    ("etc/hostname", "localhost\n"),
    ("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    ("etc/resolv.conf", ""),
    // Empty means: made at boot. Without the file, systemd would take every boot for the first one.
    ("etc/machine-id", ""),
    // As old as the rest: what systemd does once after an update (users, catalogs), the packages' own scripts have done.
    ("etc/.updated", ""),
    ("var/.updated", ""),
    // pam_env reads it, for sshd's sessions too.
    ("etc/default/locale", "LANG=C.UTF-8\n"),
    (
        "etc/ssh/sshd_config.d/banger.conf",
        "# The key in /root/.ssh/authorized_keys is the only way in.\n\
         PermitRootLogin prohibit-password\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         StrictModes yes\n\
         # The one that the agent lays down; other kinds would be looked for at every start.\n\
         HostKey /etc/ssh/ssh_host_ed25519_key\n\
         # A name for the client's address would have to be waited for.\n\
         UseDNS no\n\
         # Over vsock the end of a client that was killed may get lost; then this ends its session.\n\
         ClientAliveInterval 60\n\
         # Logins that are under way at once: beyond 10, sshd's own setting refuses some at random.\n\
         MaxStartups 256\n",
    ),
    (INOTIFY.0, INOTIFY.1),
    // Debian's has text on its warranty, which every login would show.
    ("etc/motd", ""),
    (TERMINAL.0, TERMINAL.1),
];

/// Units that cannot work in a microVM: masked, so that they neither fail nor cost time.
const MASKED: &[&str] = &[
    // Nobody sees the kernel's virtual terminal: there is no display.
    "getty@tty1.service",
    // The console is a log file without a reader that types, and root has no password to log in with.
    "serial-getty@ttyS0.service",
    "serial-getty@hvc0.service",
    // They work on LVM snapshots, and the guest's kernel has no device-mapper.
    "e2scrub_reap.service",
    "e2scrub_all.timer",
    // Needs autofs, a module of Debian's kernel, and the image has no module tree: it would fail at every boot.
    "proc-sys-fs-binfmt_misc.automount",
];

/// Everything that is added: the tables above and apt's sources.
pub fn added(sources: &[Source], apt_options: &[String]) -> Vec<Added> {
    let mut all: Vec<Added> = FILES.iter().map(|(path, content)| Added::file(path, content)).collect();
    all.extend(MASKED.iter().map(|unit| Added::link(&format!("etc/systemd/system/{unit}"), "/dev/null")));
    all.push(Added::file("etc/apt/sources.list.d/debian.sources", &apt_sources(sources)));
    if !apt_options.is_empty() {
        let lines: String = apt_options.iter().map(|option| format!("{option}\n")).collect();
        all.push(Added::file("etc/apt/apt.conf.d/90banger-host", &lines));
    }
    all
}

/// The sources for the guest's own apt. The keyring is the guest's: the host's may lie where the guest has none.
fn apt_sources(sources: &[Source]) -> String {
    let paragraph = |source: &Source| {
        let mut text = format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
            source.uri,
            source.suite,
            source.components.join(" ")
        );
        if let Some(trusted) = source.options.get("trusted") {
            text += &format!("Trusted: {trusted}\n");
        }
        text
    };
    sources.iter().map(paragraph).collect::<Vec<_>>().join("\n")
}

/// What becomes of an entry of the tar.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// It passes as it is.
    Keep,
    /// It is left out.
    Drop,
    /// A text file whose content is changed.
    Edit(fn(&str) -> String),
}

/// The rule for a path (relative, without `./`). Directories are always kept.
pub fn verdict(path: &str) -> Verdict {
    let name = path.rsplit('/').next().unwrap_or_default();
    let below = |dir: &str| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
    let identity = (below("etc/ssh") && name.starts_with("ssh_host_"))
        || ["var/lib/dbus/machine-id", "var/lib/systemd/random-seed", "var/lib/systemd/credential.secret"]
            .contains(&path);
    // Lists, packages and their lock; the directories stay.
    let apt = below("var/lib/apt/lists") || below("var/cache/apt");
    // mmdebstrap's own settings; the guest's are in the table.
    let build = ["etc/apt/sources.list", "etc/apt/apt.conf.d/99mmdebstrap", "etc/dpkg/dpkg.cfg.d/99mmdebstrap"]
        .contains(&path)
        || (below("etc/apt/sources.list.d") && name.contains("mmdebstrap"));
    // Logs of the build; tmpfiles.d makes wtmp, btmp and lastlog anew.
    let log = below("var/log") && !path.ends_with("README");
    let scratch = below("tmp") || below("var/tmp") || below("run");
    // Copies of before the last change, and a cache with inode numbers of the build host.
    let stale = (below("var/cache/debconf") && name.ends_with("-old")) || path == "var/cache/ldconfig/aux-cache";
    match path {
        _ if identity || apt || build || log || scratch || stale => Verdict::Drop,
        "etc/shadow" | "etc/shadow-" => Verdict::Edit(lock_root),
        "etc/passwd" => Verdict::Edit(bash_for_root),
        "etc/ssh/sshd_config" => Verdict::Edit(without_clients_locale),
        _ => Verdict::Keep,
    }
}

/// shadow(5) with a root that has no password: no password fits `*`, and keys work still.
fn lock_root(shadow: &str) -> String {
    edit_root(shadow, 1, "*")
}

/// passwd(5) with bash as root's shell.
fn bash_for_root(passwd: &str) -> String {
    edit_root(passwd, 6, "/bin/bash")
}

/// sshd_config(5) that takes no locale from a client: the guest has none but C.UTF-8, and programs would warn of each other.
fn without_clients_locale(config: &str) -> String {
    let edit = |line: &str| {
        let mut words = line.split_whitespace();
        if !words.next().is_some_and(|word| word.eq_ignore_ascii_case("AcceptEnv")) {
            return format!("{line}\n");
        }
        let kept: Vec<&str> = words.filter(|word| *word != "LANG" && !word.starts_with("LC_")).collect();
        if kept.is_empty() { format!("#{line}\n") } else { format!("AcceptEnv {}\n", kept.join(" ")) }
    };
    config.lines().map(edit).collect()
}

fn edit_root(text: &str, field: usize, value: &str) -> String {
    let edit = |line: &str| {
        let mut fields: Vec<&str> = line.split(':').collect();
        match fields.get_mut(field) {
            Some(old) if line.starts_with("root:") => *old = value,
            _ => {}
        }
        fields.join(":") + "\n"
    };
    text.lines().map(edit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::added::What;

    #[test]
    fn root_is_locked_whatever_its_field_was_and_nobody_else_changes() {
        for field in ["", "*", "!", "$y$j9T$hash"] {
            let shadow = format!("daemon:!:1::::::\nroot:{field}:20780:0:99999:7:::\n");
            assert_eq!(lock_root(&shadow), "daemon:!:1::::::\nroot:*:20780:0:99999:7:::\n");
        }
        assert_eq!(bash_for_root("root:x:0:0:root:/root:/bin/sh\n"), "root:x:0:0:root:/root:/bin/bash\n");
        assert_eq!(bash_for_root("rooted:x:1:1::/:/bin/sh\n"), "rooted:x:1:1::/:/bin/sh\n");
    }

    #[test]
    fn a_clients_locale_is_not_taken_and_other_variables_are() {
        for (line, edited) in [
            ("AcceptEnv LANG LC_*", "#AcceptEnv LANG LC_*"),
            ("AcceptEnv LANG LC_* COLORTERM NO_COLOR", "AcceptEnv COLORTERM NO_COLOR"),
            ("# AcceptEnv LANG", "# AcceptEnv LANG"),
            ("UsePAM yes", "UsePAM yes"),
        ] {
            assert_eq!(
                without_clients_locale(&format!("{line}\nX11Forwarding yes")),
                format!("{edited}\nX11Forwarding yes\n")
            );
        }
    }

    #[test]
    fn what_belongs_to_one_machine_is_dropped_and_the_rest_is_not() {
        for path in [
            "etc/ssh/ssh_host_rsa_key",
            "etc/ssh/ssh_host_ed25519_key.pub",
            "var/lib/systemd/random-seed",
            "var/lib/apt/lists/lock",
            "var/cache/apt/archives/a.deb",
            "var/log/dpkg.log",
            "var/log/apt/term.log",
            "etc/apt/sources.list",
            "tmp/x",
        ] {
            assert!(matches!(verdict(path), Verdict::Drop), "{path}");
        }
        for path in
            ["etc/ssh/ssh_config", "etc/ssh_host_", "var/lib/apt/extended_states", "var/lib/dpkg/status", "usr/bin/x"]
        {
            assert!(matches!(verdict(path), Verdict::Keep), "{path}");
        }
    }

    #[test]
    fn the_guests_apt_uses_the_guests_keys() {
        let source = Source::of_mirror("http://a/debian", "sid").unwrap();
        let all = added(&[source.clone(), source], &["Acquire::Check-Valid-Until \"false\";".into()]);
        let text = |path: &str| match all.iter().find(|a| a.path == path).map(|a| a.what.clone()) {
            Some(What::File(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(text("etc/apt/apt.conf.d/90banger-host"), "Acquire::Check-Valid-Until \"false\";\n");
        let sources = super::super::sources::parse_deb822(&text("etc/apt/sources.list.d/debian.sources"));
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].options["signed-by"], "/usr/share/keyrings/debian-archive-keyring.gpg");
    }
}
