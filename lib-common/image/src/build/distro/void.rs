//! Void Linux: XBPS (xbps 0.60), and runit.

use super::{Distro, Init, runit};
use crate::build::package_list::no_name;
use crate::build::sets::{self, Link};
use lib_common::doc::ManifestEntry;
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::quote;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Void and its xbps-install.
#[derive(Debug)]
pub(super) struct Void;

impl Distro for Void {
    fn name(&self) -> &'static str {
        "void"
    }

    fn init(&self) -> &'static dyn Init {
        &runit::Runit
    }

    fn set(&self, set: &str) -> Result<(Vec<&'static str>, Vec<Link>)> {
        sets::void(set)
    }

    fn checked(&self) -> fn(&str) -> Result<String> {
        checked
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

/// `name` or `name-version_revision`.
fn checked(text: &str) -> Result<String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+-._".contains(&b);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(no_name(text))
}

/// A file of /etc/xbps.d replaces the one of the same name that came with a package (xbps.d(5)).
const PRINT_SOURCES: &str = r#"#!/bin/sh
for f in /etc/xbps.d/*.conf /usr/share/xbps.d/*.conf; do
    case $f in
    /usr/*) [ -e "/etc/xbps.d/${f##*/}" ] && continue ;;
    esac
    [ -f "$f" ] && cat "$f" && echo
done
exit 0
"#;

/// A repository that is a directory needs no network.
fn sources(printed: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let value = value.trim();
        (key.trim() == "repository" && value.contains("://")).then(|| value.to_owned())
    };
    printed.lines().filter_map(of_line).collect::<BTreeSet<_>>().into_iter().collect()
}

/// xbps-install installs nothing while there is a newer xbps than its own (EBUSY), so that comes first. Where it is not a
/// package, or cannot be had, what follows says so.
const INSTALL: &str = "xbps-install -Sy\nxbps-install -yu xbps || :\n";

/// A single package that is there already is a failure to xbps-install: EEXIST.
const INSTALLED: &str = " || { s=$?; [ \"$s\" -eq 17 ] || exit \"$s\"; }\n";

/// libfetch takes its proxies from the environment, in capitals or not.
fn install(names: &BTreeSet<String>, proxy_port: Option<u16>) -> String {
    let mut text = String::from("#!/bin/sh\nset -eu\n");
    if let Some(port) = proxy_port {
        for variable in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            let _ = writeln!(text, "export {variable}=http://127.0.0.1:{port}");
        }
    }
    text += INSTALL;
    if !names.is_empty() {
        text += "xbps-install -y --";
        for name in names {
            let _ = write!(text, " {}", quote(name));
        }
        text += INSTALLED;
    }
    text
}

/// The package database itself: a property list with a dictionary for each package. xbps-query would have to be asked for
/// each one's architecture.
const PRINT_MANIFEST: &str = "#!/bin/sh\nexec cat /var/db/xbps/pkgdb-0.38.plist\n";

fn manifest(printed: &str) -> Result<Vec<ManifestEntry>> {
    let strange = |what: &str| Error::new(Code::BadInput, format!("the guest's package database {what}"));
    let database = plist::Value::from_reader_xml(std::io::Cursor::new(printed))
        .map_err(|e| strange("cannot be read").because(&e))?
        .into_dictionary()
        .ok_or_else(|| strange("has no packages"))?;
    let mut all = vec![];
    // Beside the packages lies what is known of all of them, such as `_XBPS_ALTERNATIVES_`.
    for (name, entry) in database.iter().filter(|(name, _)| !name.starts_with("_XBPS_")) {
        let text = |key: &str| entry.as_dictionary()?.get(key)?.as_string();
        if text("state") != Some("installed") {
            continue;
        }
        let version = text("pkgver").and_then(|pkgver| pkgver.strip_prefix(name.as_str())?.strip_prefix('-'));
        let (Some(version), Some(architecture)) = (version, text("architecture")) else {
            return Err(strange(&format!("has no version and architecture of `{}`", name.escape_debug())));
        };
        all.push(ManifestEntry {
            name: name.clone(),
            version: version.to_owned(),
            architecture: architecture.to_owned(),
        });
    }
    if all.is_empty() {
        return Err(strange("knows of no installed package"));
    }
    Ok(all)
}

/// XBPS's: what it has fetched. Its database stays, and its keys.
const CLEAN: &str = r#"
find /var/cache/xbps -xdev -mindepth 1 -delete 2>/dev/null
rm -f /var/db/xbps/lock
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use lib_common::sys::cmd::Cmd;

    #[test]
    fn names_are_voids() {
        let asked = |value: &str| super::super::packages(&Void, value).unwrap();
        let names: Vec<_> = asked("ImageMagick,gtk+3,vim-9.1.0_1,libstdc++").names.into_iter().collect();
        assert_eq!(names, ["ImageMagick", "gtk+3", "libstdc++", "vim-9.1.0_1"]);
        let set = asked("@dev,zsh");
        assert!(set.names.contains("zsh") && set.names.contains("base-devel") && set.links.is_empty());
        for bad in ["foo>=1", "foo=1", "virtual?x", "a:b", "+a", "a\u{e9}"] {
            assert_eq!(checked(bad).unwrap_err().code(), Code::BadValue, "{bad}");
        }
    }

    #[test]
    fn remote_repositories_are_sources_and_directories_are_not() {
        let printed = "# repository=https://no.example/\nrepository=https://repo-default.voidlinux.org/current\n\n\
            repository = http://127.0.0.1:8000/x \nrepository=/srv/packages\narchitecture=x86_64\n\
            repository=https://repo-default.voidlinux.org/current\n";
        assert_eq!(sources(printed), ["http://127.0.0.1:8000/x", "https://repo-default.voidlinux.org/current"]);
        assert_eq!(sources(""), [] as [&str; 0]);
    }

    #[test]
    fn an_install_goes_through_the_proxy_and_updates_xbps_first() {
        let names = ["tree", "gtk+3"].map(str::to_owned).into();
        let script = install(&names, Some(3128));
        for line in ["export http_proxy=http://127.0.0.1:3128", "export HTTPS_PROXY=http://127.0.0.1:3128"] {
            assert!(script.contains(line), "{script}");
        }
        let lines = "xbps-install -Sy\nxbps-install -yu xbps || :\nxbps-install -y -- gtk+3 tree || ";
        assert!(script.contains(lines), "{script}");
        assert!(!install(&names, None).contains("proxy") && !script.contains("XBPS_ARCH"));
    }

    #[test]
    fn what_is_installed_already_is_no_failure_and_any_other_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        let names = ["tree"].map(str::to_owned).into();
        let ends = |status: i32| {
            let command = format!("#!/bin/sh\n[ \"$1\" = -Sy ] || exit {status}\n");
            std::fs::write(&script, install(&names, None)).unwrap();
            std::fs::write(dir.path().join("xbps-install"), command).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(dir.path().join("xbps-install"), mode).unwrap();
            let path = format!("{}:/usr/bin:/bin", dir.path().display());
            Cmd::new("sh").arg(&script).env("PATH", path).run()
        };
        for fine in [0, 17] {
            ends(fine).unwrap();
        }
        for failed in [1, 2, 16] {
            let e = ends(failed).unwrap_err();
            assert!(e.message().contains(&format!("exit {failed}")), "{e}");
        }
    }

    #[test]
    fn a_manifest_has_what_is_installed() {
        let package = |name: &str, pkgver: &str, state: &str| {
            format!(
                "<key>{name}</key><dict><key>alternatives</key><dict><key>x</key><array/></dict><key>architecture</key>\
                 <string>x86_64</string><key>pkgver</key><string>{pkgver}</string><key>state</key><string>{state}</string></dict>"
            )
        };
        let database =
            |content: &str| format!("<?xml version=\"1.0\"?>\n<plist version=\"1.0\"><dict>{content}</dict></plist>\n");
        let all = [
            "<key>_XBPS_ALTERNATIVES_</key><dict><key>awk</key><array><string>gawk</string></array></dict>".to_owned(),
            package("base-files", "base-files-0.145_1", "installed"),
            package("gone", "gone-1_1", "half-removed"),
        ];
        let found = manifest(&database(&all.concat())).unwrap();
        assert_eq!(found.len(), 1);
        let entry = &found[0];
        assert_eq!(
            (entry.name.as_str(), entry.version.as_str(), entry.architecture.as_str()),
            ("base-files", "0.145_1", "x86_64")
        );
        let other = database(&package("a", "b-1_1", "installed"));
        for bad in ["", "installed\tzsh\n", "<plist><array/></plist>", &database(""), &other] {
            assert_eq!(manifest(bad).unwrap_err().code(), Code::BadInput, "{bad:?}");
        }
    }
}
