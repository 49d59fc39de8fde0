//! Package sets that come with the suite: one table, a row a package, a column a distribution. Names only; installs
//! nothing.

use lib_common::error::{Code, Error, Result};

/// A thing that a set has, by the name of its package.
#[derive(Clone, Copy, Debug)]
struct Row {
    set: &'static str,
    /// Debian's name for it; empty where it has none, or another package has it.
    debian: &'static str,
    /// Void's, in the same way.
    void: &'static str,
}

/// A command that goes by another name than its package's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// The package that has it.
    pub package: &'static str,
    /// What is made.
    pub path: &'static str,
    /// Where it leads.
    pub target: &'static str,
}

/// The sets' names and what they are for.
pub const SETS: &[(&str, &str)] =
    &[("dev", "a development machine whatever the language"), ("extra", "what many add to it")];

const fn dev(debian: &'static str, void: &'static str) -> Row {
    Row { set: "dev", debian, void }
}

const fn extra(debian: &'static str, void: &'static str) -> Row {
    Row { set: "extra", debian, void }
}

const ROWS: &[Row] = &[
    // The base, most of which every root has.
    dev("bash", "bash"),
    dev("e2fsprogs", "e2fsprogs"),
    dev("file", "file"),
    dev("kmod", "kmod"),
    dev("less", "less"),
    dev("ncurses-base", "ncurses"),
    dev("procps", "procps-ng"),
    dev("psmisc", "psmisc"),
    // Shell.
    dev("bash-completion", "bash-completion"),
    dev("bc", "bc"),
    dev("fzf", "fzf"),
    dev("jq", "jq"),
    dev("tmux", "tmux"),
    dev("tree", "tree"),
    // Network.
    dev("bind9-dnsutils", "bind-utils"),
    dev("ca-certificates", "ca-certificates"),
    dev("curl", "curl"),
    dev("iproute2", "iproute2"),
    dev("iputils-ping", "iputils"),
    dev("netcat-openbsd", "openbsd-netcat"),
    dev("rsync", "rsync"),
    dev("socat", "socat"),
    dev("tcpdump", "tcpdump"),
    dev("traceroute", "traceroute"),
    dev("wget", "wget"),
    // SSH and administration.
    dev("htop", "htop"),
    dev("login", "shadow"),
    dev("lsof", "lsof"),
    dev("openssh-client", "openssh"),
    dev("openssh-server", ""),
    dev("passwd", ""),
    dev("sudo", "sudo"),
    // Versions.
    dev("git", "git"),
    dev("git-lfs", "git-lfs"),
    // Editors.
    dev("nano", "nano"),
    dev("neovim", "neovim"),
    dev("vim", "vim"),
    // Search.
    dev("bat", "bat"),
    dev("fd-find", "fd"),
    dev("ripgrep", "ripgrep"),
    // Building.
    dev("autoconf", "autoconf"),
    dev("automake", "automake"),
    dev("bison", "bison"),
    dev("build-essential", "base-devel"),
    dev("cmake", "cmake"),
    dev("flex", "flex"),
    dev("gettext", "gettext"),
    dev("libtool", "libtool"),
    dev("m4", "m4"),
    dev("ninja-build", "ninja"),
    dev("patch", "patch"),
    dev("pkg-config", "pkg-config"),
    dev("texinfo", "texinfo"),
    // Debugging.
    dev("gdb", "gdb"),
    dev("ltrace", "ltrace"),
    dev("strace", "strace"),
    // Archives.
    dev("bzip2", "bzip2"),
    dev("gzip", "gzip"),
    dev("tar", "tar"),
    dev("unzip", "unzip"),
    dev("xz-utils", "xz"),
    dev("zip", "zip"),
    dev("zstd", "zstd"),
    // Scripting and data.
    dev("perl", "perl"),
    dev("python3", "python3"),
    dev("python3-pip", "python3-pip"),
    dev("python3-venv", ""),
    dev("sqlite3", "sqlite"),
    // Documentation, cryptography, locales.
    dev("gnupg", "gnupg"),
    dev("locales", "glibc-locales"),
    dev("man-db", "mdocml"),
    dev("manpages", "man-pages"),
    dev("tzdata", "tzdata"),
    extra("direnv", "direnv"),
    extra("entr", "entr"),
    extra("moreutils", "moreutils"),
    extra("shellcheck", "shellcheck"),
    // Debian's journal is systemd's.
    extra("", "socklog-void"),
];

/// Debian gives these commands other names, since the short ones are taken by packages of long ago.
const DEBIAN_LINKS: &[Link] = &[
    Link { package: "bat", path: "/usr/local/bin/bat", target: "/usr/bin/batcat" },
    Link { package: "fd-find", path: "/usr/local/bin/fd", target: "/usr/bin/fdfind" },
];

/// A set's packages by Debian's names, and the commands that are to go by their usual names.
///
/// Errors: [`Code::BadValue`] for a set that there is not.
pub fn debian(set: &str) -> Result<(Vec<&'static str>, Vec<Link>)> {
    let names = column(set, |row| row.debian)?;
    let links = DEBIAN_LINKS.iter().filter(|link| names.contains(&link.package)).copied().collect();
    Ok((names, links))
}

/// The same by Void's names, where every command has its own.
pub fn void(set: &str) -> Result<(Vec<&'static str>, Vec<Link>)> {
    Ok((column(set, |row| row.void)?, vec![]))
}

fn column(set: &str, name: fn(&Row) -> &'static str) -> Result<Vec<&'static str>> {
    if !SETS.iter().any(|(name, _)| *name == set) {
        let known: Vec<String> = SETS.iter().map(|(name, what)| format!("@{name} ({what})")).collect();
        let message = format!("there is no package set `@{}`", set.escape_debug());
        return Err(Error::new(Code::BadValue, message).hint(format!("the sets are {}", known.join(", "))));
    }
    Ok(ROWS.iter().filter(|row| row.set == set).map(name).filter(|name| !name.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::debian::packages::listed;

    #[test]
    fn every_set_has_packages_and_each_of_them_once() {
        for (set, _) in SETS {
            for (names, _) in [debian(set).unwrap(), void(set).unwrap()] {
                assert!(!names.is_empty(), "{set}");
                assert_eq!(listed(&[names.join(",")]).unwrap().len(), names.len(), "{set} names one twice");
            }
        }
        assert_eq!(ROWS.iter().filter(|row| !SETS.iter().any(|(name, _)| *name == row.set)).count(), 0);
    }

    #[test]
    fn what_is_named_otherwise_is_there_by_its_own_name() {
        let (void, links) = void("dev").unwrap();
        for name in ["base-devel", "procps-ng", "bind-utils", "iputils", "openssh", "fd", "ninja", "xz", "sqlite"] {
            assert!(void.contains(&name), "{name}");
        }
        assert!(links.is_empty() && !void.contains(&"build-essential"));
    }

    #[test]
    fn an_unknown_set_names_those_there_are() {
        let e = debian("rust").unwrap_err();
        assert_eq!(e.code(), Code::BadValue);
        assert!(e.get_hint().unwrap().contains("@dev"), "{e:?}");
    }

    #[test]
    fn a_link_belongs_to_a_package_of_its_set() {
        let (_, links) = debian("dev").unwrap();
        assert_eq!(links.iter().map(|l| l.path).collect::<Vec<_>>(), ["/usr/local/bin/bat", "/usr/local/bin/fd"]);
        assert_eq!(debian("extra").unwrap().1, []);
    }
}
