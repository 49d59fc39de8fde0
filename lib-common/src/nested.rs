//! Which work disks are stale: their content sits nested in a directory `root` of their top, `/root/root` in the guest, as
//! a tool left it that copied the directory in place of its content. The one rule for the host, which looks, and for the
//! guest's `/init`, which mends. Does no I/O.

/// The directory that the content is nested in.
pub const NESTED: &str = "root";

/// What the guest renames [`NESTED`] to before it moves anything, so that a repair that was interrupted goes on at the
/// next boot. Reserved: a directory of this name at the top is never a user's.
pub const IN_PROGRESS: &str = ".banger-nested";

/// How many levels deep the rule looks for what makes a home.
const MAX_LEVELS: usize = 16;

/// Any of these makes a directory somebody's home.
const HOME_MARKS: [&str; 4] = [".bashrc", ".profile", ".bash_profile", ".ssh"];

/// Two of these make a directory an unpacked root file system, whose `root` belongs where it is. `bin`, `lib` or `var` are
/// not among them: people have those in their homes.
const ROOT_MARKS: [&str; 5] = ["dev", "etc", "proc", "sys", "usr"];

/// What is at a path of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// A directory itself, and no symbolic link to one.
    pub directory: bool,
    /// Owned by root, user and group.
    pub of_root: bool,
}

/// Whether a disk's content is nested. `look` says what is at a path, which is relative to the disk's top and leads through
/// directories only; `None` is nothing. At most 161 calls.
///
/// A repair that has begun counts, whatever else there is. Otherwise `root` has to be a directory of root's with what makes
/// a home, or with another such `root`, and may not be part of a root file system that was unpacked.
///
/// # Errors
/// Those of `look`.
pub fn is_nested<E>(mut look: impl FnMut(&str) -> Result<Option<Found>, E>) -> Result<bool, E> {
    if look(IN_PROGRESS)?.is_some_and(|found| found.directory) {
        return Ok(true);
    }
    let mut at = String::new();
    for _ in 0..MAX_LEVELS {
        let home = format!("{at}{NESTED}");
        if !look(&home)?.is_some_and(|found| found.directory && found.of_root) {
            return Ok(false);
        }
        if count(&ROOT_MARKS, &at, &mut look)? >= 2 {
            return Ok(false);
        }
        at = home + "/";
        if count(&HOME_MARKS, &at, &mut look)? >= 1 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many of `names` there are in the directory with this prefix.
fn count<E>(names: &[&str], at: &str, look: &mut impl FnMut(&str) -> Result<Option<Found>, E>) -> Result<usize, E> {
    let mut there = 0;
    for name in names {
        there += usize::from(look(&format!("{at}{name}"))?.is_some());
    }
    Ok(there)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a disk with these paths is nested. What ends in `/` is a directory; after `@` comes an owner that is not root.
    fn nested(paths: &[&str]) -> bool {
        let mut calls = 0;
        let answer = is_nested(|path| -> Result<_, std::convert::Infallible> {
            calls += 1;
            let at = |p: &&&str| p.split('@').next().unwrap().trim_end_matches('/') == path;
            Ok(paths
                .iter()
                .find(at)
                .map(|p| Found { directory: p.split('@').next().unwrap().ends_with('/'), of_root: !p.contains('@') }))
        });
        assert!(calls <= 161, "{calls}");
        answer.unwrap()
    }

    #[test]
    fn a_home_in_root_is_nested_and_a_directory_of_the_users_is_not() {
        let cases: &[(&[&str], bool)] = &[
            (&[], false),
            (&[".bashrc", ".ssh/"], false),
            (&["root/"], false),
            (&["root/", "root/notes"], false),
            (&["root/", "root/.bashrc"], true),
            (&["root/", "root/.profile"], true),
            (&["root/", "root/.bash_profile"], true),
            (&["root/", "root/.ssh/", ".bashrc", ".profile"], true),
            (&["root", "root/.bashrc"], false),
            (&["root/@1000", "root/.bashrc"], false),
            (&["root/", "root/root/", "root/root/.ssh/"], true),
            (&["root/", "root/root/@1", "root/root/.ssh/"], false),
            (&["root/", "root/root", "root/root/.ssh/"], false),
            // A root file system, unpacked in the home, or in a directory of that name.
            (&["root/", "root/.bashrc", "etc/", "usr/", "bin"], false),
            (&["root/", "root/etc/", "root/usr/", "root/root/", "root/root/.bashrc"], false),
            (&["root/", "root/.bashrc", "bin/", "lib/", "etc/", "var/"], true),
            // A repair that has begun.
            (&[".banger-nested/"], true),
            (&[".banger-nested/@7", "etc/", "usr/"], true),
            (&[".banger-nested"], false),
        ];
        for (paths, expected) in cases {
            assert_eq!(nested(paths), *expected, "{paths:?}");
        }
    }

    #[test]
    fn the_look_has_an_end() {
        let levels = |n: usize| (1..=n).map(|n| vec!["root/"; n].concat()).collect::<Vec<_>>();
        for (n, expected) in [(1, true), (MAX_LEVELS, true), (MAX_LEVELS + 1, false), (200, false)] {
            let mut paths = levels(n);
            paths.push(format!("{}.bashrc", vec!["root/"; n].concat()));
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            assert_eq!(nested(&paths), expected, "{n}");
        }
    }
}
