//! Where a file of a Debian package lies in Void: `/usr` is merged, `sbin` too, and what is Debian's alone is left out.

/// What is not taken along: documentation, what other inits start, cron's, and Debian's own runit.
const DROPPED: &[&str] = &[
    "usr/share/doc/",
    "usr/share/doc-base/",
    "usr/share/man/",
    "usr/share/info/",
    "usr/share/locale/",
    "usr/share/lintian/",
    "usr/share/bug/",
    "usr/share/runit/",
    "usr/share/debianutils/",
    "usr/lib/systemd/",
    "usr/lib/x86_64-linux-gnu/gconv/",
    "usr/lib/lsb/",
    "usr/lib/runit/",
    "etc/init.d/",
    "etc/rcS.d/",
    "etc/cron.",
    "etc/runit/",
    "etc/service",
    "etc/sv/",
    "etc/ufw/",
    "etc/systemd/",
    // Needs libatm.so.1, which iproute2 does not depend on.
    "usr/lib/x86_64-linux-gnu/tc/q_atm.so",
    // Made of several packages' files, or by a program when it is installed.
    "usr/share/info/dir",
];

/// What of a dropped directory is taken all the same.
const KEPT: &[&str] = &["usr/lib/runit/runit-init"];

/// A file's path in Void, without a slash in front; nothing for one that is left out.
pub fn place(debian: &str) -> Option<String> {
    let path = merged(debian);
    let is_in = |list: &[&str]| list.iter().any(|start| path.starts_with(start));
    (is_in(KEPT) || !is_in(DROPPED)).then_some(path)
}

/// The path with `bin`, `sbin`, `lib` and `lib64` below `usr`, and `usr/sbin` in `usr/bin`.
fn merged(path: &str) -> String {
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    match first {
        "bin" | "sbin" => return format!("usr/bin/{rest}"),
        "lib" | "lib64" => return format!("usr/lib/{rest}"),
        _ => {}
    }
    for (from, to) in [("usr/sbin/", "usr/bin/"), ("usr/lib64/", "usr/lib/")] {
        if let Some(rest) = path.strip_prefix(from) {
            return format!("{to}{rest}");
        }
    }
    path.to_owned()
}

/// Where a link leads in Void, relative to the link; nothing where it would lead to itself.
pub fn target(debian_link: &str, target: &str) -> Option<String> {
    let start = if target.starts_with('/') { "" } else { debian_link.rsplit_once('/').map_or("", |(dir, _)| dir) };
    let mut parts: Vec<&str> = start.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    let first = parts.first().copied().unwrap_or_default();
    // Not a file of any package.
    if ["proc", "run", "dev", "sys"].contains(&first) {
        return Some(format!("/{}", parts.join("/")));
    }
    let (to, from) = (merged(&parts.join("/")), merged(debian_link));
    (to != from).then(|| relative(&from, &to))
}

fn relative(from: &str, to: &str) -> String {
    let dir: Vec<&str> = from.split('/').collect();
    let (dir, to) = (&dir[..dir.len() - 1], to.split('/').collect::<Vec<_>>());
    let common = dir.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..", dir.len() - common);
    up.chain(to[common..].iter().copied()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_move_and_links_still_lead_to_them() {
        for (debian, void) in [
            ("bin/dash", Some("usr/bin/dash")),
            ("usr/sbin/sshd", Some("usr/bin/sshd")),
            ("lib64/ld-linux-x86-64.so.2", Some("usr/lib/ld-linux-x86-64.so.2")),
            ("lib/runit/runit-init", Some("usr/lib/runit/runit-init")),
            ("lib/runit/shutdown", None),
            ("etc/init.d/ssh", None),
            ("etc/ssh/moduli", Some("etc/ssh/moduli")),
        ] {
            assert_eq!(place(debian).as_deref(), void, "{debian}");
        }
        for (link, to, expected) in [
            ("sbin/lsmod", "/bin/kmod", Some("kmod")),
            ("bin/sh", "dash", Some("dash")),
            ("sbin/pidof", "/bin/pidof", None),
            ("lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/ld.so", Some("x86_64-linux-gnu/ld.so")),
            ("usr/lib/a/b.so", "../../../lib/c.so", Some("../c.so")),
            ("etc/mtab", "../proc/self/mounts", Some("/proc/self/mounts")),
        ] {
            assert_eq!(target(link, to).as_deref(), expected, "{link}");
        }
    }
}
