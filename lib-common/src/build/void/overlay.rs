//! What a fresh Void root lacks or has too much of to be an image: one table of what is added, and one script that is run in
//! the guest after those of the packages.

use crate::build::added::{Added, INOTIFY, TERMINAL, What};
use crate::xbps::location::Location;

/// Changes whenever something here changes in a way that the table does not show.
pub const VERSION: u32 = 1;

/// Files of every image. Host name, hosts, resolv.conf, machine-id and host key are the agent's to write at boot.
const FILES: &[(&str, &str)] = &[
    ("etc/hostname", "localhost\n"),
    ("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    ("etc/resolv.conf", ""),
    ("etc/machine-id", ""),
    // The root file system is mounted by who starts the guest.
    ("etc/fstab", "# <file system>\t<dir>\t<type>\t<options>\t<dump>\t<pass>\n"),
    // Void's /etc/profile.d reads it.
    ("etc/locale.conf", "LANG=C.UTF-8\n"),
    (
        "etc/ssh/sshd_config",
        "# The key in /root/.ssh/authorized_keys is the only way in.\n\
         Include /etc/ssh/sshd_config.d/*.conf\n\
         PermitRootLogin prohibit-password\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         StrictModes yes\n\
         UsePAM yes\n\
         # The one that the agent lays down; other kinds would be looked for at every start.\n\
         HostKey /etc/ssh/ssh_host_ed25519_key\n\
         # What a login's profile sets, for commands without a login, too.\n\
         SetEnv LANG=C.UTF-8\n\
         # A name for the client's address would have to be waited for.\n\
         UseDNS no\n\
         # Over vsock the end of a client that was killed may get lost; then this ends its session.\n\
         ClientAliveInterval 60\n\
         # Logins that are under way at once: beyond 10, sshd's own setting refuses some at random.\n\
         MaxStartups 256\n\
         Subsystem sftp internal-sftp\n",
    ),
    (INOTIFY.0, INOTIFY.1),
    (TERMINAL.0, TERMINAL.1),
];

/// In place of the service of Void's openssh, which makes host keys of every kind at its first start.
const SSHD: &str = "#!/bin/sh\nmkdir -p /run/sshd\nexec /usr/bin/sshd -D -e 2>&1\n";

/// Of runit-void; its script switches on those that have no file `down`. Nobody sees a virtual terminal here.
const GETTYS: &[&str] = &["tty1", "tty2", "tty3", "tty4", "tty5", "tty6"];

/// The last script's name in the list, and what it does: root's shell and home, a password that none fits (keys work
/// still), and away with what belongs to one machine.
pub const LAST: (&str, &str) = (
    "banger",
    "#!/bin/sh\n\
     [ \"$1\" = post ] || exit 0\n\
     set -eu\n\
     [ -f etc/shadow ] || pwconv\n\
     sed -i 's|^\\(root:.*:\\)[^:]*$|\\1/bin/bash|' etc/passwd\n\
     sed -i 's|^root:[^:]*:|root:*:|' etc/shadow\n\
     for file in etc/skel/.[!.]*; do\n    \
         [ ! -f \"$file\" ] || [ -e \"root/${file##*/}\" ] || cp -p \"$file\" root/\n\
     done\n\
     chmod 0700 root\n\
     chown -R root:root root\n\
     rm -f etc/ssh/ssh_host_* etc/.pwd.lock etc/passwd- etc/group- etc/shadow- etc/gshadow-\n\
     rm -rf var/cache/xbps var/lib/seedrng var/lib/random-seed\n",
);

/// Everything that is added, for a root of packages from there.
pub fn added(repositories: &[Location]) -> Vec<Added> {
    let mut all: Vec<Added> = FILES.iter().map(|(path, content)| Added::file(path, content)).collect();
    all.extend(GETTYS.iter().map(|tty| Added::file(&format!("etc/sv/agetty-{tty}/down"), "")));
    all.push(Added { path: "etc/sv/banger-sshd/run".into(), mode: 0o755, what: What::File(SSHD.into()) });
    all.push(Added::link("etc/sv/banger-sshd/supervise", "/run/runit/supervise.banger-sshd"));
    all.push(Added::link("etc/runit/runsvdir/default/sshd", "/etc/sv/banger-sshd"));
    let remote: String =
        repositories.iter().filter(|one| one.is_remote()).map(|one| format!("repository={one}\n")).collect();
    if !remote.is_empty() {
        // In place of the package's file of that name: xbps.d(5).
        all.push(Added::file("etc/xbps.d/00-repository-main.conf", &remote));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_xbps_uses_the_addresses_and_no_directory_of_the_host() {
        let url = Location::Url("https://a/current".into());
        let conf = |repositories: &[Location]| {
            let found = added(repositories).into_iter().find(|one| one.path.starts_with("etc/xbps.d/"));
            found.map(|one| one.what)
        };
        let dir = Location::Dir("/srv/void".into());
        assert_eq!(conf(&[dir.clone(), url]), Some(What::File("repository=https://a/current\n".into())));
        assert_eq!(conf(&[dir]), None);
    }

    #[test]
    fn the_last_script_is_one_that_a_shell_reads_line_by_line() {
        let (_, script) = LAST;
        assert!(script.lines().all(|line| !line.contains('\t')) && script.ends_with('\n'), "{script}");
        assert!(script.contains("\nsed -i 's|^root:[^:]*:|root:*:|' etc/shadow\n"), "{script}");
        assert!(script.contains("\n    [ ! -f"), "{script}");
    }
}
