//! What a Debian root has at least, and how Debian's packages are named.

use crate::build::package_list;
use lib_common::error::Result;
use std::collections::BTreeSet;

/// What every root has beside `minbase` (the essential packages and apt): an init, a way in, and what a person expects
/// to find at a Debian prompt.
pub const BASE: &[&str] = &[
    "bash",
    "ca-certificates",
    "dbus",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "libpam-systemd",
    "nano",
    "openssh-server",
    "procps",
    "systemd",
    "systemd-sysv",
    "tzdata",
    "udev",
];

/// The packages to install: [`BASE`] and those that `--packages` gave, as [`listed`] reads them; sorted, each once.
///
/// Errors: those of [`listed`].
pub fn normalised(values: &[String]) -> Result<Vec<String>> {
    let mut all = listed(values)?;
    all.extend(BASE.iter().map(|p| (*p).to_owned()));
    Ok(all.into_iter().collect())
}

/// What values of `--packages` name: see [`package_list::read`].
pub fn listed(values: &[String]) -> Result<BTreeSet<String>> {
    Ok(package_list::read(values, checked)?.into_iter().collect())
}

/// `name`, `name:arch` or `name=version`, as deb-control(5) and apt-get(8) write them.
///
/// Errors: [`lib_common::Code::BadValue`] for anything else.
pub fn checked(text: &str) -> Result<String> {
    let (rest, version) = text.split_once('=').map_or((text, None), |(rest, version)| (rest, Some(version)));
    let (name, arch) = rest.split_once(':').map_or((rest, None), |(name, arch)| (name, Some(arch)));
    let only = |text: &str, more: &str| {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || more.as_bytes().contains(&b);
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(allowed)
    };
    // To apt, `name-` means to remove it.
    let fine = only(name, "+.-")
        && !name.ends_with('-')
        && arch.is_none_or(|arch| only(arch, "-"))
        && version.is_none_or(|version| only(&version.to_ascii_lowercase(), "+.-~:"));
    if fine {
        return Ok(text.to_owned());
    }
    Err(package_list::no_name(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lib_common::error::Code;

    fn added(value: &str) -> Vec<String> {
        let all = normalised(&[value.to_owned()]).unwrap();
        all.into_iter().filter(|p| !BASE.contains(&p.as_str())).collect()
    }

    #[test]
    fn order_doubles_comments_and_blanks_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("list");
        std::fs::write(&file, "# tools\nvim\n\n  git  # the usual\nvim\nbash\n").unwrap();
        assert_eq!(added(file.to_str().unwrap()), ["git", "vim"]);
        assert_eq!(added("vim,git,,vim"), ["git", "vim"]);
        assert_eq!(added("libc6:i386,nano=7.2-1+deb12u1,g++"), ["g++", "libc6:i386", "nano=7.2-1+deb12u1"]);
        assert!(BASE.is_sorted());
    }

    #[test]
    fn nothing_becomes_an_option() {
        for bad in
            ["--help", "-y", "Git", "a b", "a;b", "$(x)", "a=", "a:", "a=-1", "vim-", "=1", "?essential", "a\u{e9}"]
        {
            assert_eq!(normalised(&[bad.to_owned()]).unwrap_err().code(), Code::BadValue, "{bad}");
        }
        assert_eq!(normalised(&["./none".to_owned()]).unwrap_err().code(), Code::MissingFile);
    }
}
