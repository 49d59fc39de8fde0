//! Package sets that come with the suite: one table, a row a package, a column a distribution. Names only; installs
//! nothing.

use crate::error::{Code, Error, Result};

/// A thing that a set has, by the name of its package.
#[derive(Clone, Copy, Debug)]
struct Row {
    set: &'static str,
    debian: &'static str,
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

const fn dev(debian: &'static str) -> Row {
    Row { set: "dev", debian }
}

const fn extra(debian: &'static str) -> Row {
    Row { set: "extra", debian }
}

const ROWS: &[Row] = &[
    // The base, most of which every root has.
    dev("bash"),
    dev("e2fsprogs"),
    dev("file"),
    dev("kmod"),
    dev("less"),
    dev("ncurses-base"),
    dev("procps"),
    dev("psmisc"),
    // Shell.
    dev("bash-completion"),
    dev("bc"),
    dev("fzf"),
    dev("jq"),
    dev("tmux"),
    dev("tree"),
    // Network.
    dev("bind9-dnsutils"),
    dev("ca-certificates"),
    dev("curl"),
    dev("iproute2"),
    dev("iputils-ping"),
    dev("netcat-openbsd"),
    dev("rsync"),
    dev("socat"),
    dev("tcpdump"),
    dev("traceroute"),
    dev("wget"),
    // SSH and administration.
    dev("htop"),
    dev("login"),
    dev("lsof"),
    dev("openssh-client"),
    dev("openssh-server"),
    dev("passwd"),
    dev("sudo"),
    // Versions.
    dev("git"),
    dev("git-lfs"),
    // Editors.
    dev("nano"),
    dev("neovim"),
    dev("vim"),
    // Search.
    dev("bat"),
    dev("fd-find"),
    dev("ripgrep"),
    // Building.
    dev("autoconf"),
    dev("automake"),
    dev("bison"),
    dev("build-essential"),
    dev("cmake"),
    dev("flex"),
    dev("gettext"),
    dev("libtool"),
    dev("m4"),
    dev("ninja-build"),
    dev("patch"),
    dev("pkg-config"),
    dev("texinfo"),
    // Debugging.
    dev("gdb"),
    dev("ltrace"),
    dev("strace"),
    // Archives.
    dev("bzip2"),
    dev("gzip"),
    dev("tar"),
    dev("unzip"),
    dev("xz-utils"),
    dev("zip"),
    dev("zstd"),
    // Scripting and data.
    dev("perl"),
    dev("python3"),
    dev("python3-pip"),
    dev("python3-venv"),
    dev("sqlite3"),
    // Documentation, cryptography, locales.
    dev("gnupg"),
    dev("locales"),
    dev("man-db"),
    dev("manpages"),
    dev("tzdata"),
    extra("direnv"),
    extra("entr"),
    extra("moreutils"),
    extra("shellcheck"),
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
    if !SETS.iter().any(|(name, _)| *name == set) {
        let known: Vec<String> = SETS.iter().map(|(name, what)| format!("@{name} ({what})")).collect();
        let message = format!("there is no package set `@{}`", set.escape_debug());
        return Err(Error::new(Code::BadValue, message).hint(format!("the sets are {}", known.join(", "))));
    }
    let names: Vec<&str> = ROWS.iter().filter(|row| row.set == set).map(|row| row.debian).collect();
    let links = DEBIAN_LINKS.iter().filter(|link| names.contains(&link.package)).copied().collect();
    Ok((names, links))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::debian::packages::listed;

    #[test]
    fn every_set_has_packages_and_each_of_them_once() {
        for (set, _) in SETS {
            let (names, _) = debian(set).unwrap();
            assert!(!names.is_empty(), "{set}");
            assert_eq!(listed(&[names.join(",")]).unwrap().len(), names.len(), "{set} names one twice");
        }
        assert_eq!(ROWS.iter().filter(|row| !SETS.iter().any(|(name, _)| *name == row.set)).count(), 0);
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
