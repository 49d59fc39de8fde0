//! The suite's own side: `bg-vm create` as it is typed, and the poller.

use super::place::{Place, timings};
use super::ready::{Guest, Way};
use crate::summary::{Samples, thousandths};
use lib_common::doc::{Document, Guest as GuestSection, Name, SSH_PORT, Unit, Vmm};
use lib_common::error::Result;
use lib_common::sys::process::{all_pids, stat, ticks_to_ms};
use lib_common::timing::millis;
use lib_machine::guest::card::Card;
use lib_machine::guest::live::Live;
use lib_machine::guest::ssh::keys::private_key;
use std::time::{Duration, Instant};

/// How a VM is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// As usual.
    Usual,
    /// From an image without work seeds.
    NoSeed,
    /// While no TAP is idle.
    NoPool,
}

impl Variant {
    /// What its measures' names begin with.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Variant::Usual => "",
            Variant::NoSeed => "no_seed.",
            Variant::NoPool => "no_pool.",
        }
    }
}

/// One VM, from nothing to its SSH and away again. `prefix`: what its measures' names begin with.
pub(super) fn once(place: &mut Place, image: &Name, prefix: &str, samples: &mut Samples) -> Result<()> {
    let name = place.new_name()?;
    let begun = Instant::now();
    let created = place.run("bg-vm", &["create", name.as_str(), "--image", image.as_str()])?;
    let doc = created.machine()?;
    let live = Live::of(&doc)?;
    let guest: GuestSection = doc.require()?;
    let vmm: Vmm = doc.require()?;
    let identity = private_key(&place.store());
    let waited = Guest {
        name: &name,
        way: way(&doc, &live)?,
        host_key: &guest.host_key,
        identity: &identity,
        dir: place.path(),
    };
    let deadline = begun + place.config.guest_deadline(Duration::from_secs(240));
    let ready = waited.wait(deadline, || match live.has_ended()? {
        true => Err(live.explain(lib_machine::guest::unreachable("the VM has ended"))),
        false => Ok(()),
    })?;
    let ready_ms = millis(ready.at - begun);
    let vmm_s = tree_cpu_s(&[vmm.shim_pid]);
    samples.add(format!("{prefix}create"), 0, created.ms);
    samples.add(format!("{prefix}create_exit"), 0, created.exit_ms);
    samples.add(format!("{prefix}ready"), 0, ready_ms);
    samples.add(format!("{prefix}ssh_true"), 0, ready.ssh_ms);
    samples.add_in(Unit::Count, format!("{prefix}tries"), 0, f64::from(ready.tries));
    samples.add_in(Unit::CpuS, format!("{prefix}cpu_tools"), 0, thousandths(created.cpu_s + ready.cpu_s));
    samples.add_in(Unit::CpuS, format!("{prefix}cpu_vmm"), 0, vmm_s);
    // What the guest says of its boot is asked when the clock has stopped.
    let healthy = place.feed("bg-health", &["--wait", "60"], doc.to_line().as_bytes())?.machine()?;
    samples.add_stages(prefix, 0, &timings(&healthy)?);
    place.run("bg-vm", &["rm", "--force", name.as_str()]).map(drop)
}

/// To the card where there is one in this network namespace, else by vsock, as `bg-ssh` goes.
fn way(doc: &Document, live: &Live) -> Result<Way> {
    Ok(match Card::of(doc)? {
        Card::Here(address) => Way::Tcp((address, SSH_PORT as u16).into()),
        _ => Way::Vsock { socket: live.vsock.clone(), up: None },
    })
}

/// The processor time of these processes and of their children that live, in seconds.
pub(super) fn tree_cpu_s(roots: &[i32]) -> f64 {
    let all: Vec<_> =
        all_pids().unwrap_or_default().into_iter().filter_map(|pid| Some((pid, stat(pid).ok()??))).collect();
    let mut tree = roots.to_vec();
    let mut seen = 0;
    while seen < tree.len() {
        let parent = tree[seen];
        tree.extend(all.iter().filter(|(_, stat)| stat.ppid == parent).map(|(pid, _)| *pid));
        seen += 1;
    }
    let ticks = all.iter().filter(|(pid, _)| tree.contains(pid)).map(|(_, stat)| stat.cpu_ticks).sum();
    ticks_to_ms(ticks) as f64 / 1e3
}
