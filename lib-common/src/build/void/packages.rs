//! What a Void root has at least, and where it comes from.

use crate::build::package_list;
use crate::error::Result;
use crate::xbps::location::Location;
use std::collections::BTreeSet;

/// What every root has: Void's own minimum with runit and xbps, a way in, and what a person expects to find at a prompt.
/// There is no kernel and no firmware in it.
pub const BASE: &[&str] =
    &["base-container", "bash", "e2fsprogs", "iproute2", "iputils", "kmod", "less", "ncurses", "openssh", "procps-ng"];

/// The packages to install: [`BASE`] and those that `--packages` gave; sorted, each once.
///
/// # Errors
/// Those of [`package_list::read`].
pub fn normalised(values: &[String]) -> Result<BTreeSet<String>> {
    let mut all = package_list::read(values, checked)?;
    all.extend(BASE.iter().map(|name| (*name).to_owned()));
    Ok(all)
}

/// A name, a name with its version, or a pattern.
fn checked(text: &str) -> Result<String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+-._<>=*?[]@".contains(&b);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(allowed) {
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
    use crate::error::Code;

    #[test]
    fn a_pattern_is_a_package_and_an_option_is_not() {
        let more = |text: &str| {
            let all = normalised(&[text.to_owned()])?;
            Ok(all.into_iter().filter(|name| !BASE.contains(&name.as_str())).collect::<Vec<_>>())
        };
        assert_eq!(more("vim>=9,git,,bash,git").unwrap(), ["git", "vim>=9"]);
        for bad in ["-y", "a b", "a;b", "$(x)", "@dev"] {
            let e: crate::error::Error = more(bad).unwrap_err();
            assert_eq!(e.code(), Code::BadValue, "{bad}");
        }
        assert!(BASE.is_sorted());
    }
}
