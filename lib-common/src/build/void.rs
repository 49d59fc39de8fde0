//! What a Void root is made of beside its packages: which of them every image has, what is added, and what is changed.

use super::debian::overlay::{Added, What, bash_for_root};

/// Changes whenever a rule here changes in a way that its data does not show, so that cached roots are built anew.
pub const VERSION: u32 = 1;

/// Void's own repository, for glibc on x86_64.
pub const DEFAULT_REPOSITORY: &str = "https://repo-default.voidlinux.org/current";

/// The packages of every image. The kernel is the host's.
pub const PACKAGES: [&str; 10] =
    ["base-container", "bash", "e2fsprogs", "file", "iproute2", "iputils", "kmod", "less", "ncurses", "openssh"];

/// Files of every image; what belongs to one machine is the agent's to write at boot.
const FILES: [(&str, u32, &str); 7] = [
    ("etc/hostname", 0o644, "localhost\n"),
    ("etc/hosts", 0o644, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    ("etc/resolv.conf", 0o644, ""),
    ("etc/machine-id", 0o644, ""),
    // pwconv adds everybody else. No password fits `*`, and keys work still.
    ("etc/shadow", 0o600, "root:*:19675:0:99999:7:::\n"),
    ("etc/profile.d/banger.sh", 0o644, "export LANG=\"${LANG:-C.UTF-8}\"\n"),
    ("etc/default/locale", 0o644, "LANG=C.UTF-8\n"),
];

/// In front of the server's configuration, whose first values count.
const SSHD: &str = "# The key in /root/.ssh/authorized_keys is the only way in.\n\
    PermitRootLogin prohibit-password\n\
    PasswordAuthentication no\n\
    KbdInteractiveAuthentication no\n\
    StrictModes yes\n\
    # The one that the agent lays down.\n\
    HostKey /etc/ssh/ssh_host_ed25519_key\n\
    SetEnv LANG=C.UTF-8\n\
    UseDNS no\n\
    ClientAliveInterval 60\n\n";

/// Everything that is added.
pub fn added() -> Vec<Added> {
    let one = |path: String, mode: u32, what: What| Added { path, mode, what };
    let mut all: Vec<Added> =
        FILES.iter().map(|(path, mode, text)| one((*path).into(), *mode, What::File((*text).into()))).collect();
    // There is no virtual terminal: runit-void links no getty where this file is.
    all.extend((1..=6).map(|n| one(format!("etc/sv/agetty-tty{n}/down"), 0o644, What::File(String::new()))));
    all.push(one("etc/runit/runsvdir/default/sshd".into(), 0o777, What::Link("/etc/sv/sshd".into())));
    all
}

/// How the text of a file is changed.
pub fn edit(path: &str) -> Option<fn(&str) -> String> {
    match path {
        "etc/passwd" => Some(bash_for_root),
        "etc/ssh/sshd_config" => Some(|text| format!("{SSHD}{text}")),
        "etc/sv/sshd/run" => Some(without_keygen),
        _ => None,
    }
}

/// The host key is the agent's; keys of other kinds would be made at the first start, which takes minutes in emulation.
fn without_keygen(run: &str) -> String {
    run.lines().filter(|line| !line.trim_start().starts_with("ssh-keygen")).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_changed_as_little_as_need_be() {
        let run = "#!/bin/sh\nssh-keygen -A >/dev/null 2>&1\n[ -r conf ] && . ./conf\nexec sshd -D $OPTS\n";
        assert_eq!(edit("etc/sv/sshd/run").unwrap()(run), "#!/bin/sh\n[ -r conf ] && . ./conf\nexec sshd -D $OPTS\n");
        let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:99:99::/:/bin/false\n";
        assert_eq!(edit("etc/passwd").unwrap()(passwd), passwd.replace("/root:/bin/sh", "/root:/bin/bash"));
        assert!(edit("etc/ssh/sshd_config").unwrap()("PermitRootLogin yes\n").ends_with("\n\nPermitRootLogin yes\n"));
        assert!(edit("etc/group").is_none());
    }
}
