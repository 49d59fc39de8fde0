//! VMs that are there already: stopped ones, records and all, made by copying one of them. Their disks have no blocks.

use super::place::Place;
use lib_common::doc::{AbsPath, Disks, Document, Name, Net};
use lib_common::error::Result;
use lib_common::sys::fs::sync_all;
use lib_common::sys::random::random_id;
use lib_common::sys::signal;
use lib_common::timing::Stages;
use lib_machine::net::name::machine_id;
use lib_machine::store::{MachineDir, id_of};
use lib_tools::ops::tap::{Wants, acquire_for, own_uid};
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;

/// What each of them has beside record and disks, as the one that is copied has it.
const LIKE_THE_FIRST: [&str; 2] = ["journal", "ssh_host_ed25519_key"];

/// Makes so many VMs beside each other, `crowd-1` and so on, like the stopped VM `first`.
pub(super) fn make(place: &Place, first: &Name, count: u32) -> Result<Vec<Name>> {
    let store = place.store();
    let like = store.machine(first)?;
    let doc = like.document()?;
    let mut names = vec![];
    for n in 1..=count {
        signal::check()?;
        let name = Name::parse(&format!("crowd-{n}"))?;
        copy(&like, doc.clone(), &store.machine_dir(&name))?;
        names.push(name);
    }
    // What is measured next does not wait for these.
    sync_all(place.path())?;
    Ok(names)
}

fn copy(like: &MachineDir, mut doc: Document, machine: &MachineDir) -> Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(machine.path())?;
    let mut disks: Disks = doc.require()?;
    for disk in [&mut disks.root, &mut disks.work] {
        let length = fs_err::metadata(&disk.path)?.len();
        disk.path = AbsPath::new(machine.file(&disk.path.file_name().unwrap_or_default().to_string_lossy()))?;
        File::create(&disk.path)?.set_len(length)?;
    }
    doc.set_name(machine.name());
    doc.set_string("id", &random_id()?);
    doc.set(&disks);
    File::create(machine.file("lock"))?;
    LIKE_THE_FIRST.iter().try_for_each(|file| fs_err::copy(like.file(file), machine.file(file)).map(drop))?;
    ["vmlinux", "initrd"].iter().try_for_each(|file| fs_err::hard_link(like.file(file), machine.file(file)))?;
    Ok(fs_err::write(machine.record_file(), format!("{}\n", doc.to_line()))?)
}

/// Gives each of them a TAP and an address.
pub(super) fn plug_in(place: &Place, names: &[Name]) -> Result<()> {
    let mut stages = Stages::new("bg-bench", None);
    for name in names {
        signal::check()?;
        let machine = place.store().machine(name)?;
        let mut doc = machine.document()?;
        let id = machine_id(&id_of(&doc)?)?;
        let wants = Wants { id, name: name.clone(), had: None, nat: false, owner: own_uid() };
        let net: Net = acquire_for(&place.config, &mut stages, &wants)?.net;
        doc.set(&net);
        fs_err::write(machine.record_file(), format!("{}\n", doc.to_line()))?;
    }
    sync_all(place.path())
}
