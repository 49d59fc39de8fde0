//! What a Void root has at least, and where it comes from.

use crate::build::package_list;
use lib_common::error::{Code, Error, Result};
use lib_xbps::location::Location;
use lib_xbps::pkgver::{PkgVer, is_name};
use std::collections::BTreeSet;

/// What every root has: Void's own minimum with runit and xbps, a way in, and what a person expects to find at a prompt.
/// There is no kernel and no firmware in it.
pub const BASE: &[&str] =
    &["base-container", "bash", "e2fsprogs", "iproute2", "iputils", "kmod", "less", "ncurses", "openssh", "procps-ng"];

/// Which package provides a virtual one where several could, in a root with the base. xbps itself would take the first by
/// name. The first five are what `etc/defaults.virtual` of void-packages has for building packages (with a newer Java); the
/// others are our choice, by what Void's own images install.
const PROVIDERS: &[(&str, &str)] = &[
    ("awk", "gawk"),
    ("java-environment", "openjdk17"),
    ("libGL", "libglvnd"),
    ("ntp-daemon", "chrony"),
    ("smtp-server", "opensmtpd"),
    ("cron-daemon", "cronie"),
    ("dhcp-client", "dhcpcd"),
    ("smtp-forwarder", "dma"),
    ("vi", "nvi"),
];

/// The packages to install: with the base, [`BASE`] and those that `--packages` gave, sorted; without it those alone, in their
/// order, which xbps' transactions keep. Each is there once.
///
/// # Errors
/// Those of [`package_list::read`]; [`Code::Usage`] where nothing is left.
pub fn normalised(values: &[String], base: bool) -> Result<Vec<String>> {
    let given = package_list::read(values, checked)?;
    if base {
        let all: BTreeSet<String> = given.into_iter().chain(BASE.iter().map(|name| (*name).to_owned())).collect();
        return Ok(all.into_iter().collect());
    }
    if given.is_empty() {
        let e = Error::new(Code::Usage, "without the base no package is named");
        return Err(e.hint("--no-base --packages NAME,…"));
    }
    let mut seen = BTreeSet::new();
    Ok(given.into_iter().filter(|name| seen.insert(name.clone())).collect())
}

/// The providers of virtual packages: those that were given, and with the base ours.
pub fn providers(given: &[(String, String)], base: bool) -> Vec<(String, String)> {
    let ours = PROVIDERS.iter().filter(|_| base).map(|(name, package)| ((*name).to_owned(), (*package).to_owned()));
    given.iter().cloned().chain(ours).collect()
}

/// A value of `--provider`: `NAME:PACKAGE`, as `virtualpkg=` of xbps.d(5) has it; a version behind NAME does not count.
///
/// # Errors
/// [`Code::BadValue`] for anything else.
pub fn provider(text: &str) -> Result<(String, String)> {
    let wrong = || {
        let message = format!("`{}` does not say which package provides what", text.escape_debug());
        Error::new(Code::BadValue, message).hint("NAME:PACKAGE, such as awk:gawk")
    };
    let (name, package) = text.split_once(':').ok_or_else(wrong)?;
    let name = PkgVer::parse(name).map_or_else(|_| name.to_owned(), |one| one.name().to_owned());
    if is_name(&name) && is_name(package) { Ok((name, package.to_owned())) } else { Err(wrong()) }
}

/// A name, a name with its version, or a pattern.
fn checked(text: &str) -> Result<String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+-._~<>=*?[]:!@".contains(&b);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(package_list::no_name(text))
}

/// Void's own repository for an architecture.
pub fn voids_own(arch: &str) -> Location {
    let dir = match arch {
        _ if arch.starts_with("aarch64") => "/aarch64",
        _ if arch.ends_with("-musl") => "/musl",
        _ => "",
    };
    Location::Url(format!("https://repo-default.voidlinux.org/current{dir}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_package_and_an_option_is_not() {
        let more = |text: &str| {
            let all = normalised(&[text.to_owned()], true)?;
            Ok(all.into_iter().filter(|name| !BASE.contains(&name.as_str())).collect::<Vec<_>>())
        };
        assert_eq!(more("vim>=9,git,,bash,git").unwrap(), ["git", "vim>=9"]);
        for bad in ["-y", "a b", "a;b", "$(x)", "@dev"] {
            let e: lib_common::error::Error = more(bad).unwrap_err();
            assert_eq!(e.code(), Code::BadValue, "{bad}");
        }
        assert!(BASE.is_sorted());
    }

    #[test]
    fn without_the_base_the_given_order_counts_and_nothing_is_added() {
        let names = |text: &str| normalised(&[text.to_owned()], false);
        assert_eq!(names("vim,_under,git,vim").unwrap(), ["vim", "_under", "git"]);
        assert_eq!(names("").unwrap_err().code(), Code::Usage);
        assert_eq!(providers(&[], false), []);
    }

    #[test]
    fn a_provider_is_a_name_and_a_package() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(provider("awk:gawk").unwrap(), pair("awk", "gawk"));
        assert_eq!(provider("awk-0_1:gawk").unwrap(), pair("awk", "gawk"));
        for bad in ["awk", ":gawk", "awk:", "a b:c", "awk:../x"] {
            assert_eq!(provider(bad).unwrap_err().code(), Code::BadValue, "{bad}");
        }
        let first = providers(&[pair("awk", "mawk")], true);
        assert_eq!(first.iter().find(|(name, _)| name == "awk"), Some(&pair("awk", "mawk")));
    }
}
