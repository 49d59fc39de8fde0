//! Where TAPs are measured: a network of its own in an empty namespace, which is gone again however measuring ends.

use lib_common::doc::{Name, Net};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::Cmd;
use lib_common::sys::netlink::Netlink;
use lib_common::sys::program;
use lib_common::timing::{Stages, millis};
use lib_machine::config::Config;
use lib_machine::net::name::{Holder, MachineId};
use lib_machine::net::{Open, pool};
use lib_tools::ops::tap::{
    DownArgs, Lent, UpArgs, Wants, acquire_for, give_back, make_network, own_uid, remove_network,
};
use std::time::Instant;

/// What the kernel puts into every new namespace where the modules are loaded (net.core.fb_tunnels_only_for_init_net).
const FALLBACK_TUNNELS: [&str; 10] =
    ["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0", "ip6erspan0"];
/// The TAP that `ip` makes.
const OTHER: &str = "bench-ip";
/// The name of this tool in stages.
const TOOL: &str = "bg-bench";

/// A network that is up until this is dropped.
pub(super) struct Scene {
    pub(super) config: Config,
    pub(super) network: Open,
    next: u128,
    up: bool,
}

/// What a VM got.
#[derive(Clone, Debug)]
pub(super) struct Loan {
    pub(super) id: MachineId,
    pub(super) net: Net,
}

/// How a TAP was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It was idle.
    Warm,
    /// It was made.
    Cold,
}

impl Scene {
    /// Makes the network. [`Code::Usage`] where somebody has interfaces here.
    pub(super) fn set(config: &Config) -> Result<Self> {
        if let Some(link) = in_use()? {
            let message = format!("this network namespace is in use: it has the interface `{link}`");
            return Err(
                Error::new(Code::Usage, message).hint(format!("{} bg-bench tap", program::pipeline("in-netns")))
            );
        }
        let mut stages = Stages::new(TOOL, None);
        match make_network(config, &mut stages, &UpArgs::default()) {
            Ok((network, _)) => Ok(Scene { config: config.clone(), network, next: 1, up: true }),
            Err(e) => Err(match remove(config) {
                Ok(()) => e,
                Err(left) => e.also(left.to_string()),
            }),
        }
    }

    /// Removes it, and says so if that fails.
    pub(super) fn clear(mut self) -> Result<()> {
        self.up = false;
        remove(&self.config)
    }

    /// The id of one more VM.
    pub(super) fn new_id(&mut self) -> MachineId {
        self.next += 1;
        self.next.to_be_bytes()
    }

    /// Makes TAPs until so many are idle, and has nobody make more.
    pub(super) fn fill(&self, count: u32) -> Result<()> {
        let pool = self.network.pool()?;
        let owner = own_uid();
        for _ in pool.idle(owner)?..count {
            lib_common::sys::signal::check()?;
            pool.make(owner, &Holder::Pool)?;
        }
        Ok(())
    }

    /// A TAP and an address for one more VM, and how long that took.
    pub(super) fn acquire(&mut self, way: Way) -> Result<(Loan, f64)> {
        let id = self.new_id();
        acquire(&self.config, id, way)
    }

    /// Gives them back, and says how long that took.
    pub(super) fn release(&self, loan: &Loan) -> Result<f64> {
        lib_common::sys::signal::check()?;
        timed(|| give_back(&self.config, &loan.id, &loan.net, true)).map(|((), ms)| ms)
    }

    /// Removes the idle TAPs, which have to be so many, and says how long that took.
    pub(super) fn drain(&self, count: u32) -> Result<f64> {
        lib_common::sys::signal::check()?;
        let (removed, ms) = timed(|| self.network.pool()?.drain())?;
        if removed == count { Ok(ms) } else { Err(wrong(format!("{removed} TAPs were removed, not {count}"))) }
    }

    /// What a script does to have a TAP: makes it, makes it a port of the bridge, makes it ready. Says how long that took,
    /// and removes it.
    pub(super) fn three_ip_calls(&self) -> Result<f64> {
        let ip = |args: &[&str]| Cmd::new("ip").args(args).run();
        let calls = || {
            ip(&["tuntap", "add", OTHER, "mode", "tap"])?;
            ip(&["link", "set", OTHER, "master", &self.network.record.bridge])?;
            ip(&["link", "set", OTHER, "up"])
        };
        let made = timed(calls);
        pool::remove_links(&self.network.netlink, &[OTHER.to_owned()], |_| true)?;
        made.map(|((), ms)| ms)
    }
}

/// An interface of this namespace that somebody made.
pub(super) fn in_use() -> Result<Option<String>> {
    let ours = |name: &str| name == "lo" || FALLBACK_TUNNELS.contains(&name);
    Ok(Netlink::route()?.links()?.into_iter().map(|link| link.name).find(|name| !ours(name)))
}

impl Drop for Scene {
    fn drop(&mut self) {
        if self.up {
            // Measuring has panicked, and that is what will be told.
            let _ = remove(&self.config);
        }
    }
}

/// Removes the network with all that is in it, whatever signal has come.
fn remove(config: &Config) -> Result<()> {
    let _shield = lib_common::sys::signal::shield();
    let netlink = Netlink::route()?;
    pool::remove_links(&netlink, &[OTHER.to_owned()], |_| true)?;
    remove_network(config, &mut Stages::new(TOOL, None), DownArgs { force: true })
}

/// The call that `bg-tap acquire` and `bg-vm` make, and how long it took. An error where the TAP was come by another way.
pub(super) fn acquire(config: &Config, id: MachineId, way: Way) -> Result<(Loan, f64)> {
    lib_common::sys::signal::check()?;
    let mut stages = Stages::new(TOOL, None);
    let wants = Wants { id, name: Name::parse("bench")?, had: None, nat: false, owner: own_uid() };
    let (Lent { net, .. }, ms) = timed(|| acquire_for(config, &mut stages, &wants))?;
    let made = stages.take().iter().any(|stage| stage.stage == "create_tap");
    if made == (way == Way::Cold) { Ok((Loan { id, net }, ms)) } else { Err(wrong(format!("no {way:?} acquire"))) }
}

/// A measurement that would be of something else.
pub(super) fn wrong(what: String) -> Error {
    Error::new(Code::Internal, format!("the measurement is not what it should be: {what}"))
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let begun = Instant::now();
    let done = work()?;
    Ok((done, millis(begun.elapsed())))
}
