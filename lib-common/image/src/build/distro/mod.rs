//! What differs between distributions when a running guest is provisioned or checked: how packages are named, installed and
//! listed, where they come from, what a build leaves behind, and how services are. Scripts for the guest's `/bin/sh`, made by pure functions.
//!
//! A distribution is one file: an implementation of [`Distro`], and a line in [`ALL`]. So is an init. Here is also what does
//! not differ: how `--packages` is read, and the traces that any build leaves.

mod debian;
mod runit;
mod systemd;
mod void;

use super::package_list;
use super::sets::Link;
use lib_common::doc::{ManifestEntry, Rootfs};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::quote;
use std::collections::BTreeSet;
use std::fmt;

/// Every distribution that images can be built of.
const ALL: [&dyn Distro; 2] = [&debian::Debian, &void::Void];

/// A distribution: its package manager, its init, and its traces.
pub trait Distro: fmt::Debug + Sync {
    /// As in [`Rootfs::distro`].
    fn name(&self) -> &'static str;

    /// What its process 1 is.
    fn init(&self) -> &'static dyn Init;

    /// The packages of a set, and the commands that are to go by their usual names.
    ///
    /// Errors: [`Code::BadValue`] for a set that there is not.
    fn set(&self, set: &str) -> Result<(Vec<&'static str>, Vec<Link>)>;

    /// A package's name as its manager gets it.
    ///
    /// Errors: [`Code::BadValue`] for what is none.
    fn checked(&self) -> fn(&str) -> Result<String>;

    /// Prints the guest's own package sources, for [`Distro::sources`].
    fn print_sources(&self) -> &'static str;

    /// The addresses that the sources name: `http://HOST[:PORT]/…`.
    fn sources(&self, printed: &str) -> Vec<String>;

    /// Installs packages, through the proxy at that port of the guest's loopback interface. The links are not its own.
    fn install(&self, names: &BTreeSet<String>, proxy_port: Option<u16>) -> String;

    /// Prints what is installed, for [`Distro::manifest`].
    fn print_manifest(&self) -> &'static str;

    /// The installed packages.
    ///
    /// Errors: [`Code::BadInput`] for what is not as it should be.
    fn manifest(&self, printed: &str) -> Result<Vec<ManifestEntry>>;

    /// Takes away what the package manager leaves and must not be in an image.
    fn clean(&self) -> &'static str;
}

/// An init: how services are.
pub trait Init: fmt::Debug + Sync {
    /// The name of process 1, as `/proc/1/comm` has it.
    fn name(&self) -> &'static str;

    /// Waits until the guest has started, and prints how its services are, for [`Init::units`].
    fn print_units(&self) -> &'static str;

    /// How the guest's services are.
    ///
    /// Errors: [`Code::BadInput`] where the init does not say it.
    fn units(&self, printed: &str) -> Result<Units>;

    /// Takes away what it leaves and must not be in an image.
    fn clean(&self) -> &'static str;
}

/// What one `--packages` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packages {
    /// By the distribution's names; sorted, each once.
    pub names: BTreeSet<String>,
    /// Commands that are to go by their usual names.
    pub links: BTreeSet<Link>,
}

/// How the services of a guest are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Units {
    /// Whether startup is over and nothing has failed.
    pub is_up: bool,
    /// In one word; where the init has one, its own.
    pub state: String,
    /// The services that have failed.
    pub failed: Vec<String>,
}

/// The distribution of a root file system.
///
/// Errors: [`Code::BadDocument`] for one that is not known.
pub fn of(rootfs: &Rootfs) -> Result<&'static dyn Distro> {
    let known = || ALL.map(|distro| distro.name()).join(", ");
    ALL.into_iter().find(|distro| distro.name() == rootfs.distro).ok_or_else(|| {
        let message = format!("the distribution `{}` is none that is known here", rootfs.distro.escape_debug());
        Error::new(Code::BadDocument, message).hint(format!("known: {}", known()))
    })
}

/// What a value of `--packages` asks for: a FILE (it has a `/`), or names and `@SET`s with commas between.
///
/// Errors: [`Code::BadValue`] for what is no package and no set, [`Code::MissingFile`].
pub fn packages(distro: &dyn Distro, value: &str) -> Result<Packages> {
    let mut all = Packages::default();
    let listed = |value: &str| -> Result<BTreeSet<String>> {
        Ok(package_list::read(&[value.to_owned()], distro.checked())?.into_iter().collect())
    };
    if value.contains('/') {
        all.names = listed(value)?;
        return Ok(all);
    }
    for item in value.split(',').map(str::trim) {
        if let Some(set) = item.strip_prefix('@') {
            let (names, links) = distro.set(set)?;
            all.names.extend(names.into_iter().map(str::to_owned));
            all.links.extend(links);
        } else {
            all.names.extend(listed(item)?);
        }
    }
    Ok(all)
}

/// Installs packages, through the proxy at that port of the guest's loopback interface.
pub fn install(distro: &dyn Distro, packages: &Packages, proxy_port: Option<u16>) -> String {
    let mut text = distro.install(&packages.names, proxy_port);
    for link in &packages.links {
        let (target, path) = (quote(link.target), quote(link.path));
        text += &format!("[ -e {path} ] || ln -s {target} {path}\n");
    }
    text
}

/// Takes away what must not be in an image. The last thing that runs in the guest. `authorized_key`: the line that the agent
/// added for this build.
pub fn clean(distro: &dyn Distro, authorized_key: &str) -> String {
    let (own, init) = (distro.clean(), distro.init().clean());
    format!("#!/bin/sh\nset -u\nkey={}\n{own}{init}{CLEAN}", quote(authorized_key))
}

/// Copies the kernel's modules from the second disk, which the agent has mounted.
pub fn install_modules() -> String {
    let from = lib_common::doc::MODULES_AT;
    // `/lib` may be a link, and is followed: the target is the directory that modprobe looks in.
    format!(
        "#!/bin/sh\nset -eu\nmkdir -p /lib/modules\ncp -R --preserve=mode,timestamps {from}/lib/modules/. /lib/modules/\n"
    )
}

/// What is the same everywhere. What is not there is no error. The agent lays host name, hosts, machine-id, host key and
/// authorized keys down anew at each boot.
const CLEAN: &str = r##"
rm -f /etc/ssh/ssh_host_*
[ -e /etc/machine-id ] && : >/etc/machine-id
rm -f /var/lib/dbus/machine-id
echo localhost >/etc/hostname
sed -i '/# banger[[:space:]]*$/d' /etc/hosts
keys=/root/.ssh/authorized_keys
if [ -f "$keys" ]; then
    grep -vxF -e "$key" "$keys" >"$keys.new" || :
    if [ -s "$keys.new" ]; then cat "$keys.new" >"$keys"; else rm -f "$keys"; fi
    rm -f "$keys.new"
    rmdir /root/.ssh 2>/dev/null || :
fi
rm -f /root/.bash_history /root/.ash_history /root/.lesshst /root/.python_history /root/.viminfo /root/.wget-hsts
find /var/log -xdev -type f ! -name README -delete
find /tmp /var/tmp -xdev -mindepth 1 -delete 2>/dev/null
rm -f /var/cache/ldconfig/aux-cache
# The blocks of what was removed become holes of the image's file; not every VMM can do that.
fstrim / 2>/dev/null
sync
"##;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clean_up_quotes_the_key_and_never_stops_half_way() {
        for distro in ALL {
            let script = clean(distro, "ssh-ed25519 AAAA it's me");
            assert!(script.starts_with("#!/bin/sh\nset -u\nkey='ssh-ed25519 AAAA it'\\''s me'\n"), "{script}");
            assert!(!script.contains("set -e"), "a part that is missing must not keep the rest from being cleaned");
            assert!(script.trim_end().ends_with("sync"), "the last thing is that all of it is on the disk");
            for trace in ["ssh_host_", "machine-id", "/var/log", ".bash_history", "authorized_keys"] {
                assert!(script.contains(trace), "{}: {trace}", distro.name());
            }
        }
        let own = |distro: &dyn Distro, traces: &[&str]| {
            let script = clean(distro, "");
            assert!(traces.iter().all(|trace| script.contains(trace)), "{script}");
        };
        own(&debian::Debian, &["random-seed", "apt/lists", "log/journal"]);
        own(&void::Void, &["/var/lib/seedrng", "/var/cache/xbps", "/etc/.pwd.lock"]);
    }

    #[test]
    fn an_unknown_distribution_is_refused_and_each_known_one_found_by_its_name() {
        let rootfs = |distro: &str| -> Rootfs {
            let text = r#"{"distro":"NAME","release":"4","path":"/r","size_bytes":1,"digest":"D","manifest":"/m","manifest_digest":"D"}"#;
            let text = text.replace("NAME", distro).replace('D', lib_common::digest::of_bytes(b"").as_str());
            lib_common::doc::strict(&text).unwrap()
        };
        let e = of(&rootfs("plan9")).unwrap_err();
        assert_eq!((e.code(), e.get_hint()), (Code::BadDocument, Some("known: debian, void")));
        for name in ["debian", "void"] {
            assert_eq!(of(&rootfs(name)).unwrap().name(), name);
        }
    }

    #[test]
    fn every_set_is_a_set_of_names_and_options_are_none() {
        for distro in ALL {
            for (set, _) in crate::build::sets::SETS {
                assert!(!packages(distro, &format!("@{set}")).unwrap().names.is_empty());
            }
            for bad in ["-y", "@nothing", "a b", "@", "--help", "$(x)", "a;b", "/none"] {
                assert!(packages(distro, bad).is_err(), "{}: {bad}", distro.name());
            }
        }
    }
}
