//! What a network for VMs needs of the host. Without one they work, too, so nothing here keeps anybody from them.

use super::Caller;
use super::forward::{self, Chain};
use super::programs::{Lookup, look, plain};
use lib_common::doc::Check;
use lib_common::error::Result;
use lib_common::sys::{signal, tun};
use lib_machine::net::name;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;

/// What it costs.
const LOSS: &str = "without it VMs have no network card (they are reached all the same)";

#[derive(Debug)]
pub(super) struct Facts {
    /// How opening [`tun::DEVICE`] to read and write failed, where it did.
    pub tun: Result<(), ErrorKind>,
    /// Whether the kernel has bridges.
    pub bridge: Bridge,
    pub nft: Lookup,
    /// The bridge that the caller's network has or would have.
    pub bridge_name: String,
    /// The chains of others that drop what its guests send, if that is known.
    pub dropping: Option<Vec<Chain>>,
}

/// Where the kernel has bridges from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bridge {
    /// Built in, or loaded.
    Here,
    /// A module that is loaded when it is needed.
    Module,
    /// Nowhere.
    Missing,
}

impl Facts {
    /// # Errors
    /// The signal that came.
    pub fn look() -> Result<Self> {
        let opened = OpenOptions::new().read(true).write(true).open(tun::DEVICE);
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let dep = Path::new("/lib/modules").join(release.trim()).join("modules.dep");
        let bridge = if Path::new("/sys/module/bridge").exists() {
            Bridge::Here
        } else if std::fs::read_to_string(dep).is_ok_and(|text| text.contains("/bridge.ko")) {
            Bridge::Module
        } else {
            Bridge::Missing
        };
        let nft = look(Path::new("nft"), &["--version"])?;
        let bridge_name = name::bridge(nix::unistd::geteuid().as_raw());
        let dropping = nft.as_ref().ok().and_then(|nft| forward::look(&nft.path, &bridge_name));
        signal::check()?;
        Ok(Facts { tun: opened.map(drop).map_err(|e| e.kind()), bridge, nft, bridge_name, dropping })
    }
}

pub(super) fn checks(facts: &Facts, caller: &Caller) -> Vec<Check> {
    let forward = forward::check(facts.dropping.as_deref(), &facts.bridge_name, caller);
    vec![tun(facts, caller), bridge(facts, caller), nft(facts, caller), forward]
}

fn tun(facts: &Facts, caller: &Caller) -> Check {
    let device = tun::DEVICE;
    let better = |why: String, fix: &str| Check::could_be_better("tun", format!("{why}; {LOSS}"), caller.sudo(fix));
    match facts.tun {
        Ok(()) => Check::new("tun", true, format!("{device} opens"), ""),
        Err(ErrorKind::PermissionDenied) => {
            better(format!("{device} may not be opened by {}", caller.name), &format!("chmod 666 {device}"))
        }
        Err(ErrorKind::NotFound) => better(format!("there is no {device}"), "modprobe tun"),
        Err(kind) => better(format!("{device} cannot be opened ({kind})"), "modprobe tun"),
    }
}

fn bridge(facts: &Facts, caller: &Caller) -> Check {
    match facts.bridge {
        Bridge::Here => Check::new("bridge", true, "the kernel has bridges", ""),
        Bridge::Module => Check::new("bridge", true, "the kernel loads its module `bridge` when it is needed", ""),
        Bridge::Missing => {
            let message = format!("the kernel has no bridges and no module `bridge`; {LOSS}");
            Check::could_be_better("bridge", message, caller.sudo("modprobe bridge"))
        }
    }
}

fn nft(facts: &Facts, caller: &Caller) -> Check {
    let check = plain("nft", "nft", &facts.nft, caller);
    if check.ok { check } else { Check { ok: true, message: format!("{}; {LOSS}", check.message), ..check } }
}
