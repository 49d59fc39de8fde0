//! TAPs: taken, given back, made. One that nobody has is a port of the bridge already, and ready.
//!
//! Who has a TAP is its alias, and that alone. The file `pool` has a record for each number: whether that TAP was idle when
//! somebody last looked, for which user, and which address the VM has that has it or was about to. It saves the search, and
//! a wrong record costs a glance, never a mistake: the alias is read and changed under the record's lock. Whoever finds a
//! record locked takes the next one.

mod slot;

use super::Open;
use super::name::{Holder, MachineId, number, tap};
use super::subnet;
use lib_common::error::{Code, Error, Result};
use lib_common::sys::netlink::Netlink;
use lib_common::sys::netlink::link::{Change, Link};
use lib_common::sys::random::random_number;
use lib_common::sys::records::{Held, Records};
use lib_common::sys::tun::Tap;
use nix::errno::Errno;
use slot::{Slot, State};
use std::path::Path;

/// The ports of a bridge: Linux numbers them with ten bits, and 0 is none.
pub const MOST: u32 = 1023;

/// Locks that are no TAP's: whose turn it is to make an idle one, and whether somebody needs one.
const TURN: u32 = 0;
const HURRY: u32 = MOST + 1;

/// The TAPs of a network.
pub struct Pool<'a> {
    records: Records<8>,
    netlink: &'a Netlink,
    network: &'a Open,
}

/// What a TAP that was given back had been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenBack {
    /// That VM's.
    From(Holder),
    /// Idle, gone, or somebody else's: it was left alone.
    Nothing,
}

impl<'a> Pool<'a> {
    /// Makes the file, where it is missing. More TAPs than a bridge has ports nobody has asked for.
    pub fn create(path: &Path) -> Result<()> {
        Records::<8>::create(path, MOST + 1)?;
        let records = Records::<8>::open(path, MOST + 1, true)?;
        if u64::from_le_bytes(records.get(0)?) > u64::from(MOST) { records.put(0, &[0; 8]) } else { Ok(()) }
    }

    pub(super) fn open(path: &Path, network: &'a Open) -> Result<Self> {
        let records = Records::open(path, MOST + 1, true)?.waiting(network.space.lock_wait);
        Ok(Pool { records, netlink: &network.netlink, network })
    }

    /// How many idle TAPs are to be kept: record 0.
    pub fn target(&self) -> Result<u32> {
        Ok(u64::from_le_bytes(self.records.get(0)?) as u32)
    }

    /// The same of a file that may only be read.
    pub(super) fn target_in(path: &Path) -> Result<u32> {
        Ok(u64::from_le_bytes(Records::<8>::open(path, MOST + 1, false)?.get(0)?) as u32)
    }

    /// Sets that.
    pub fn set_target(&self, target: u32) -> Result<()> {
        self.records.put(0, &u64::from(target).to_le_bytes())
    }

    /// How many idle ones a user has, as far as the file knows.
    pub fn idle(&self, owner: u32) -> Result<u32> {
        Ok(self.numbers(|slot| slot.state == State::Idle(owner))?.len() as u32)
    }

    /// The numbers whose records are as `wanted`, as far as the file knows.
    fn numbers(&self, wanted: impl Fn(Slot) -> bool) -> Result<Vec<u32>> {
        let mut numbers = vec![];
        self.records.find(1..MOST + 1, |number, record| {
            if wanted(Slot::of(*record)) {
                numbers.push(number);
            }
            false
        })?;
        Ok(numbers)
    }

    /// Takes an idle TAP of that user's; `None` where there is none.
    pub fn take(&self, owner: u32, holder: &Holder) -> Result<Option<String>> {
        let mut idle = self.numbers(|slot| slot.state == State::Idle(owner))?;
        let start = somewhere(idle.len());
        idle.rotate_left(start);
        for n in idle {
            let Some(held) = self.records.try_lock(n)? else { continue };
            if Slot::of(held.get()?).state != State::Idle(owner) {
                continue;
            }
            let name = tap(n);
            let link = self.netlink.link(&name)?;
            let slot = self.slot_of(link.as_ref());
            if slot.state != State::Idle(owner) {
                held.put(&slot.to_record())?;
                continue;
            }
            // Whoever is killed now finds it again by this, should it be the VM's already.
            let place = self.place(holder);
            held.put(&Slot { place, ..slot }.to_record())?;
            match self.netlink.change_link(&name, &Change { alias: Some(holder.alias()), ..Change::default() }) {
                Ok(()) => held.put(&Slot { state: State::Busy, place }.to_record())?,
                Err(Errno::ENODEV) => {
                    held.put(&Slot::NONE.to_record())?;
                    continue;
                }
                Err(e) => return Err(Error::from(e).within(format!("cannot take the TAP `{name}`"))),
            }
            return Ok(Some(name));
        }
        Ok(None)
    }

    /// The TAP that a VM has already, and the user that may open it. Only those are looked at whose record has its address.
    pub fn of(&self, holder: &Holder) -> Result<Option<(String, Option<u32>)>> {
        let place = self.place(holder);
        for n in self.numbers(|slot| slot.place == place)? {
            let held = self.records.lock(n)?;
            let link = self.netlink.link(&tap(n))?;
            held.put(&self.slot_of(link.as_ref()).to_record())?;
            if let Some(link) = link.filter(|link| Holder::parse(&link.alias) == Some(*holder)) {
                return Ok(Some((tap(n), link.tun_owner)));
            }
        }
        Ok(None)
    }

    /// Says that somebody needs a TAP now, while it lives.
    pub fn hurry(&self) -> Result<Option<Held<'_, 8>>> {
        self.records.try_share(HURRY)
    }

    /// Waits until nobody needs a TAP now, and keeps others from going on from here while it lives. The kernel makes one
    /// TAP at a time, and meanwhile changes no other: many who make one for the next VM would hold up those who need one.
    pub fn turn(&self) -> Result<Held<'_, 8>> {
        let turn = self.records.lock(TURN)?;
        // Who is about to need one may only be waiting for a processor.
        std::thread::yield_now();
        drop(self.records.lock(HURRY)?);
        Ok(turn)
    }

    /// What a TAP is, as the kernel says.
    fn slot_of(&self, link: Option<&Link>) -> Slot {
        let Some(link) = link else { return Slot::NONE };
        let ready = link.kind == "tun" && link.master == self.network.record.bridge_index && !link.carrier;
        match (Holder::parse(&link.alias), link.tun_owner) {
            (Some(Holder::Pool), Some(owner)) if ready => Slot { state: State::Idle(owner), place: 0 },
            (holder, _) => Slot { state: State::Busy, place: holder.map_or(0, |holder| self.place(&holder)) },
        }
    }

    /// The place of a VM's address in the network; 0 where it has none.
    fn place(&self, holder: &Holder) -> u32 {
        match holder {
            Holder::Machine { address, .. } => subnet::place(self.network.record.subnet, *address).unwrap_or(0),
            Holder::Pool => 0,
        }
    }

    /// Makes a TAP. It stays only when it is whole: whoever is killed before leaves nothing.
    pub fn make(&self, owner: u32, holder: &Holder) -> Result<String> {
        let place = self.place(holder);
        for n in self.numbers(|slot| slot.state == State::None)? {
            let Some(held) = self.records.try_lock(n)? else { continue };
            if Slot::of(held.get()?).state != State::None {
                continue;
            }
            let name = tap(n);
            match Tap::create(&name, owner) {
                Ok(made) => {
                    held.put(&Slot { place, ..Slot::NONE }.to_record())?;
                    self.attach(&name, holder)?;
                    made.persist()?;
                }
                // It is there, and the file did not know.
                Err(Errno::EBUSY | Errno::EINVAL) => {
                    held.put(&self.slot_of(self.netlink.link(&name)?.as_ref()).to_record())?;
                    continue;
                }
                Err(e) => return Err(cannot_make(e)),
            }
            let state = if *holder == Holder::Pool { State::Idle(owner) } else { State::Busy };
            held.put(&Slot { state, place }.to_record())?;
            return Ok(name);
        }
        Err(self.full())
    }

    fn attach(&self, name: &str, holder: &Holder) -> Result<()> {
        let master = Some(self.network.record.bridge_index);
        let alias = Some(holder.alias());
        let change = Change { alias, master, up: true, no_ipv6_address: true, ..Change::default() };
        // Whoever looks has the kernel note now that there is no carrier, not a second later. Without that the bridge would
        // start the port, and stop it then: both take time for each port that it has.
        self.netlink.link(name)?;
        self.netlink.change_link(name, &change).map_err(|e| match e {
            Errno::EXFULL => self.full(),
            Errno::ENODEV | Errno::EINVAL => super::no_bridge(&self.network.record.bridge),
            e => Error::from(e).within(format!("cannot set up the TAP `{name}`")),
        })
    }

    fn full(&self) -> Error {
        let bridge = &self.network.record.bridge;
        Error::new(
            Code::InUse,
            format!("the bridge `{bridge}` is full: {MOST} ports are the most that Linux gives one"),
        )
        .hint("give back what is not needed: bg-tap release, bg-tap pool drain")
    }

    /// Gives a TAP back, clean. With `id` only where it is that VM's. A program that has it open keeps it
    /// ([`Code::InUse`]).
    pub fn give_back(&self, name: &str, id: Option<&MachineId>) -> Result<GivenBack> {
        let n = number(name).ok_or_else(|| {
            Error::new(Code::BadValue, format!("`{name}` is not a TAP of bg-tap")).hint("`bg-tap ls` lists them")
        })?;
        let held = self.records.lock(n)?;
        let Some(link) = self.netlink.link(name)? else {
            held.put(&Slot::NONE.to_record())?;
            return Ok(GivenBack::Nothing);
        };
        let Some(holder @ Holder::Machine { id: of, address, nat }) = Holder::parse(&link.alias) else {
            // Whoever gave it back may have been killed before the file said so.
            held.put(&self.slot_of(Some(&link)).to_record())?;
            return Ok(GivenBack::Nothing);
        };
        if id.is_some_and(|id| *id != of) {
            return Ok(GivenBack::Nothing);
        }
        if link.carrier {
            return Err(Error::new(Code::InUse, format!("the TAP `{name}` is in use: a program has it open"))
                .hint("stop the VM first"));
        }
        if nat {
            // Its table may be gone; then so is what let the guest out.
            self.network.dismiss(&of, address)?;
        }
        self.netlink.flush_addresses(link.index)?;
        self.netlink.remove_neighbour(self.network.record.bridge_index, address)?;
        if lib_common::sys::netns::tracked_connections() > 0 {
            Netlink::netfilter()?.forget_connections(address)?;
        }
        self.clean(&held, link)?;
        Ok(GivenBack::From(holder))
    }

    /// The last step, after which somebody else may take it.
    fn clean(&self, held: &Held<'_, 8>, mut link: Link) -> Result<()> {
        let alias = Holder::Pool.alias();
        // What the bridge had learned at this port it forgot when the program at its other end went.
        let bridge = self.network.record.bridge_index;
        let master = (link.master != bridge).then_some(bridge);
        let change = Change { alias: Some(alias.clone()), master, group: Some(0), up: true, ..Change::default() };
        self.netlink.change_link(&link.name, &change)?;
        (link.alias, link.master) = (alias, bridge);
        held.put(&self.slot_of(Some(&link)).to_record())
    }

    /// Puts the file right by what the kernel has, and TAPs that lost their bridge back on it. A TAP that somebody works
    /// on now is left to him.
    pub fn repair(&self) -> Result<Vec<(u32, Link)>> {
        let mut all = look(self.netlink)?;
        for (n, link) in &mut all {
            let Some(held) = self.records.try_lock(*n)? else { continue };
            if link.master != self.network.record.bridge_index {
                let master = Some(self.network.record.bridge_index);
                self.netlink.change_link(&link.name, &Change { master, up: true, ..Change::default() })?;
            }
            // Somebody may have taken it since.
            let now = self.netlink.link(&link.name)?;
            held.put(&self.slot_of(now.as_ref()).to_record())?;
        }
        for n in self.numbers(|slot| slot.state != State::None)? {
            let Some(held) = self.records.try_lock(n)? else { continue };
            if all.iter().all(|(other, _)| *other != n) && self.netlink.link(&tap(n))?.is_none() {
                held.put(&Slot::NONE.to_record())?;
            }
        }
        Ok(all)
    }

    /// Removes every idle TAP of a user, or of all. Gives how many.
    ///
    /// Their locks keep others from taking them. They get a group number that no link has, the kernel is asked once more
    /// who is in it, and the group is removed in one request: one by one a thousand take twenty seconds.
    pub fn drain(&self) -> Result<u32> {
        let mut held = vec![];
        for n in self.numbers(|slot| matches!(slot.state, State::Idle(_)))? {
            held.extend(self.records.try_lock(n)?);
        }
        let names = held.iter().map(|h| tap(h.number())).collect::<Vec<_>>();
        let idle = |link: &Link| Holder::parse(&link.alias) == Some(Holder::Pool) && !link.carrier;
        let removed = remove_links(self.netlink, &names, idle)?;
        for held in &held {
            let slot = self.slot_of(self.netlink.link(&tap(held.number()))?.as_ref());
            held.put(&slot.to_record())?;
        }
        Ok(removed)
    }
}

/// Every TAP of ours, with its number, as the kernel has them.
pub fn look(netlink: &Netlink) -> Result<Vec<(u32, Link)>> {
    let mut all: Vec<(u32, Link)> =
        netlink.links()?.into_iter().filter_map(|link| Some((number(&link.name)?, link))).collect();
    all.retain(|(_, link)| link.kind == "tun" && Holder::parse(&link.alias).is_some());
    all.sort_by_key(|(n, _)| *n);
    Ok(all)
}

/// Removes links by their names in one request, but for those that are not as `wanted`. Gives how many.
pub fn remove_links(netlink: &Netlink, names: &[String], wanted: impl Fn(&Link) -> bool) -> Result<u32> {
    if names.is_empty() {
        return Ok(0);
    }
    let before = netlink.links()?;
    let group = loop {
        // Groups of others are small numbers, or made the same way.
        let group = u32::try_from(random_number()? >> 33).unwrap_or(1).max(1 << 16);
        if before.iter().all(|link| link.group != group) {
            break group;
        }
    };
    let ours = |link: &&Link| names.contains(&link.name) && wanted(link);
    for link in before.iter().filter(ours) {
        match netlink.change_link(&link.name, &Change { group: Some(group), ..Change::default() }) {
            Ok(()) | Err(Errno::ENODEV) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let mut removed = 0;
    for link in netlink.links()?.iter().filter(|link| link.group == group) {
        if ours(&link) {
            removed += 1;
        } else {
            netlink.change_link(&link.name, &Change { group: Some(0), ..Change::default() })?;
        }
    }
    netlink.remove_group(group)?;
    Ok(removed)
}

/// A number below `count` that is another one each time, so that many who come at once do not look at the same TAP.
fn somewhere(count: usize) -> usize {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    std::process::id().wrapping_mul(0x9e37_79b1).wrapping_add(now) as usize % count.max(1)
}

fn cannot_make(e: Errno) -> Error {
    let error = Error::from(e).within(format!("cannot make a TAP by {}", lib_common::sys::tun::DEVICE));
    match e {
        Errno::ENOENT => error.with_code(Code::MissingFile).hint("modprobe tun"),
        _ => error,
    }
}
