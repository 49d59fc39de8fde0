//! Debian: apt and dpkg.

use super::{Distro, Init, systemd};
use crate::build::debian::{deb822, packages};
use crate::build::sets::{self, Link};
use lib_common::doc::ManifestEntry;
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::quote;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Debian and its apt.
#[derive(Debug)]
pub(super) struct Debian;

impl Distro for Debian {
    fn name(&self) -> &'static str {
        "debian"
    }

    fn init(&self) -> &'static dyn Init {
        &systemd::Systemd
    }

    fn set(&self, set: &str) -> Result<(Vec<&'static str>, Vec<Link>)> {
        sets::debian(set)
    }

    fn checked(&self) -> fn(&str) -> Result<String> {
        packages::checked
    }

    fn print_sources(&self) -> &'static str {
        PRINT_SOURCES
    }

    fn sources(&self, printed: &str) -> Vec<String> {
        sources(printed)
    }

    fn install(&self, names: &BTreeSet<String>, proxy_port: Option<u16>) -> String {
        install(names, proxy_port)
    }

    fn print_manifest(&self) -> &'static str {
        PRINT_MANIFEST
    }

    fn manifest(&self, printed: &str) -> Result<Vec<ManifestEntry>> {
        manifest(printed)
    }

    fn clean(&self) -> &'static str {
        CLEAN
    }
}

/// One-line sources, a blank line, then deb822 sources, each file followed by a blank line.
const PRINT_SOURCES: &str = r#"#!/bin/sh
cd /etc/apt || exit 0
for f in sources.list sources.list.d/*.list; do [ -f "$f" ] && sed 's/^/list: /' "$f"; done
echo
for f in sources.list.d/*.sources; do [ -f "$f" ] && cat "$f" && echo; done
exit 0
"#;

fn sources(printed: &str) -> Vec<String> {
    let (lists, paragraphs): (Vec<&str>, Vec<&str>) = printed.lines().partition(|l| l.starts_with("list: "));
    let of_line = |line: &str| {
        let line = line.strip_prefix("list: ")?.split('#').next()?;
        let mut words = line.split_whitespace().filter(|w| *w != "deb" && *w != "deb-src");
        words.find(|w| w.contains("://")).map(str::to_owned)
    };
    let mut found: Vec<String> = lists.into_iter().filter_map(of_line).collect();
    for paragraph in deb822::parse(&paragraphs.join("\n")) {
        if !paragraph.get("Enabled").is_some_and(|e| e.eq_ignore_ascii_case("no")) {
            found.extend(paragraph.words("URIs").map(str::to_owned));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// What a build wants of apt and what must not stay: so it is said on the command line. `force-unsafe-io`: an image that
/// is not whole is thrown away, and a whole one is synced at its end. Services are not started while they are installed:
/// they would leave traces, and a VM starts them anyway.
const INSTALL: &str = r#"
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true APT_LISTCHANGES_FRONTEND=none
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
apt() {
    apt-get -q -o Acquire::Languages=none -o Acquire::Retries=2 -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 \
        -o Dpkg::Options::=--force-unsafe-io -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
        -o APT::Update::Error-Mode=any $proxy "$@" </dev/null
}
apt update
"#;

fn install(names: &BTreeSet<String>, proxy_port: Option<u16>) -> String {
    let mut text = String::from("#!/bin/sh\nset -eu\n");
    let proxy = proxy_port.map(|port| {
        ["http", "https"].map(|scheme| format!("-o Acquire::{scheme}::Proxy=http://127.0.0.1:{port}/")).join(" ")
    });
    let _ = writeln!(text, "proxy={}", quote(&proxy.unwrap_or_default()));
    text += INSTALL;
    if !names.is_empty() {
        text += "apt install -y --no-install-recommends --";
        for name in names {
            let _ = write!(text, " {}", quote(name));
        }
        text.push('\n');
    }
    text
}

const PRINT_MANIFEST: &str = "#!/bin/sh\n\
    exec dpkg-query -W -f '${db:Status-Status}\\t${Package}\\t${Version}\\t${Architecture}\\n'\n";

fn manifest(printed: &str) -> Result<Vec<ManifestEntry>> {
    let mut all = vec![];
    for line in printed.lines() {
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["installed", name, version, architecture] => all.push(ManifestEntry {
                name: name.to_owned(),
                version: version.to_owned(),
                architecture: architecture.to_owned(),
            }),
            [_, _, _, _] => {}
            _ => {
                let message = format!("dpkg-query printed `{}`", line.escape_debug());
                return Err(Error::new(Code::BadInput, message));
            }
        }
    }
    if all.is_empty() {
        return Err(Error::new(Code::BadInput, "dpkg knows of no package in the guest"));
    }
    Ok(all)
}

/// apt's and dpkg's.
const CLEAN: &str = r#"
export DEBIAN_FRONTEND=noninteractive
find /var/lib/apt/lists /var/cache/apt -xdev -type f -delete
rm -f /var/lib/dpkg/*-old /var/cache/debconf/*-old
rm -f /var/log/apt/* /var/log/dpkg.log*
"#;

#[cfg(test)]
mod tests {
    use super::super::Packages;
    use super::*;

    fn asked(value: &str) -> Packages {
        super::super::packages(&Debian, value).unwrap()
    }

    #[test]
    fn lists_sets_and_names_become_one_list() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("list");
        std::fs::write(&file, "# editors\nvim\n\nnano # small\nvim\n").unwrap();
        let names = |value: &str| asked(value).names.into_iter().collect::<Vec<_>>();
        assert_eq!(names(file.to_str().unwrap()), ["nano", "vim"]);
        assert_eq!(names("vim,git,,vim"), ["git", "vim"]);
        let with_set = asked("zsh,@dev");
        assert!(with_set.names.contains("zsh") && with_set.names.contains("ripgrep"));
        assert_eq!(with_set.links.len(), 2);
    }

    #[test]
    fn sources_of_both_kinds_are_found_and_switched_off_ones_are_not() {
        let printed = "list: # a comment http://no/\nlist: deb [trusted=yes arch=amd64] http://127.0.0.1:8000/ ./ # http://no2/\n\
            list: deb-src https://b.example/debian sid main\n\
            \nTypes: deb\nURIs: http://deb.debian.org/debian\n  http://c.example/\nSuites: bookworm\n\n\
            Types: deb\nEnabled: no\nURIs: http://off.example/\n\n";
        let expected =
            ["http://127.0.0.1:8000/", "http://c.example/", "http://deb.debian.org/debian", "https://b.example/debian"];
        assert_eq!(sources(printed), expected);
    }

    #[test]
    fn nothing_that_an_install_sets_outlives_it() {
        let script = super::super::install(&Debian, &asked("tree,fd-find,@dev"), Some(3128));
        assert!(script.contains("proxy='-o Acquire::http::Proxy=http://127.0.0.1:3128/"), "{script}");
        assert!(script.contains("--no-install-recommends -- autoconf"), "{script}");
        assert!(script.contains("ln -s /usr/bin/fdfind /usr/local/bin/fd"), "{script}");
        assert!(!script.contains("/etc/apt/apt.conf"));
        assert!(install(&asked("tree").names, None).contains("proxy=''"));
    }

    #[test]
    fn a_manifest_has_what_is_installed_and_a_strange_line_is_no_manifest() {
        let printed = "installed\tzsh\t5.9-4\tamd64\nconfig-files\told\t1\tall\n";
        let all = manifest(printed).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].name.as_str(), all[0].version.as_str()), ("zsh", "5.9-4"));
        for bad in ["", "installed\tzsh\t5.9-4\n"] {
            assert_eq!(manifest(bad).unwrap_err().code(), Code::BadInput, "{bad:?}");
        }
    }
}
