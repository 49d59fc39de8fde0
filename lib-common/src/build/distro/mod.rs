//! What differs between distributions when a running guest is provisioned or checked: how packages are named, installed and
//! listed, where they come from, what a build leaves behind, and how services are. Scripts for the guest's `/bin/sh`, made by pure functions.
//!
//! Here is also what does not differ: the traces that any build leaves.

mod debian;
mod systemd;

use super::sets::Link;
use crate::doc::{ManifestEntry, Rootfs};
use crate::error::{Code, Error, Result};
use crate::sys::cmd::quote;
use std::collections::BTreeSet;

/// A distribution that images can be built of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distro {
    /// Debian and its apt.
    Debian,
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
    /// The init's own word for it.
    pub state: String,
    /// The services that have failed.
    pub failed: Vec<String>,
}

impl Distro {
    /// The distribution of a root file system.
    ///
    /// Errors: [`Code::BadDocument`] for one that is not known.
    pub fn of(rootfs: &Rootfs) -> Result<Self> {
        match rootfs.distro.as_str() {
            "debian" => Ok(Distro::Debian),
            other => {
                let message = format!("the distribution `{}` is none that is known here", other.escape_debug());
                Err(Error::new(Code::BadDocument, message).hint("known: debian"))
            }
        }
    }

    /// What a value of `--packages` asks for: a FILE (it has a `/`), or names and `@SET`s with commas between.
    ///
    /// Errors: [`Code::BadValue`] for what is no package and no set, [`Code::MissingFile`].
    pub fn packages(self, value: &str) -> Result<Packages> {
        match self {
            Distro::Debian => debian::packages(value),
        }
    }

    /// Prints the guest's own package sources, for [`Distro::hosts`].
    pub fn print_sources(self) -> &'static str {
        match self {
            Distro::Debian => debian::PRINT_SOURCES,
        }
    }

    /// The addresses that the sources name: `http://HOST[:PORT]/…`.
    pub fn sources(self, printed: &str) -> Vec<String> {
        match self {
            Distro::Debian => debian::sources(printed),
        }
    }

    /// Installs packages, through the proxy at that port of the guest's loopback interface.
    pub fn install(self, packages: &Packages, proxy_port: Option<u16>) -> String {
        match self {
            Distro::Debian => debian::install(packages, proxy_port),
        }
    }

    /// Prints what is installed, for [`Distro::manifest`].
    pub fn print_manifest(self) -> &'static str {
        match self {
            Distro::Debian => debian::PRINT_MANIFEST,
        }
    }

    /// The installed packages.
    ///
    /// Errors: [`Code::BadInput`] for a line that is not as it should be.
    pub fn manifest(self, printed: &str) -> Result<Vec<ManifestEntry>> {
        match self {
            Distro::Debian => debian::manifest(printed),
        }
    }

    /// The name of process 1, as `/proc/1/comm` has it.
    pub fn init(self) -> &'static str {
        match self {
            Distro::Debian => systemd::INIT,
        }
    }

    /// Waits until the guest has started, and prints how its services are, for [`Distro::units`].
    pub fn print_units(self) -> &'static str {
        match self {
            Distro::Debian => systemd::PRINT_UNITS,
        }
    }

    /// How the guest's services are.
    ///
    /// Errors: [`Code::BadInput`] where the init does not say it.
    pub fn units(self, printed: &str) -> Result<Units> {
        match self {
            Distro::Debian => systemd::units(printed),
        }
    }

    /// Takes away what must not be in an image. The last thing that runs in the guest. `authorized_key`: the line that
    /// the agent added for this build.
    pub fn clean(self, authorized_key: &str) -> String {
        let own = match self {
            Distro::Debian => debian::CLEAN,
        };
        format!("#!/bin/sh\nset -u\nkey={}\n{own}{CLEAN}", quote(authorized_key))
    }
}

/// Copies the kernel's modules from the second disk, which the agent has mounted.
pub fn install_modules() -> String {
    let from = crate::doc::MODULES_AT;
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
        let script = Distro::Debian.clean("ssh-ed25519 AAAA it's me");
        assert!(script.starts_with("#!/bin/sh\nset -u\nkey='ssh-ed25519 AAAA it'\\''s me'\n"), "{script}");
        assert!(!script.contains("set -e"), "a part that is missing must not keep the rest from being cleaned");
        assert!(script.trim_end().ends_with("sync"), "the last thing is that all of it is on the disk");
        for trace in
            ["ssh_host_", "machine-id", "random-seed", "apt/lists", "/var/log", ".bash_history", "authorized_keys"]
        {
            assert!(script.contains(trace), "{trace}");
        }
    }

    #[test]
    fn an_unknown_distribution_is_refused() {
        let text = r#"{"distro":"plan9","release":"4","path":"/r","size_bytes":1,"digest":"D","manifest":"/m","manifest_digest":"D"}"#;
        let rootfs: Rootfs = crate::doc::strict(&text.replace('D', crate::digest::of_bytes(b"").as_str())).unwrap();
        assert_eq!(Distro::of(&rootfs).unwrap_err().code(), Code::BadDocument);
    }
}
