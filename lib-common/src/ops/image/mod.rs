//! bg-image: ls, show, rm, default; to check an image, to compare two, to bring a record up to its files, and to make a
//! bundle of one.

pub(super) mod bundle;
mod diff;
pub(super) mod files;
mod reconcile;
mod verify;

pub use bundle::{BundleArgs, bundle};
pub use diff::{DiffArgs, Operand, diff};
pub use reconcile::{ReconcileArgs, reconcile};
pub use verify::{VerifyArgs, verify};

use crate::cli::table::{render, size};
use crate::cli::{Answer, Context};
use crate::doc::{Document, Name, Registered, Rootfs, Spec};
use crate::error::{Code, Error, Failures, Result};
use crate::ops::machine::{DAMAGED, ListArgs};
use crate::store::{Store, remove_by_rename};
use crate::sys::lock::signer;

/// `bg-image ls`. A damaged record is a remark, and its image is in the table all the same.
pub fn ls(cx: &mut Context<'_>, args: ListArgs) -> Result<Answer> {
    let store = cx.store();
    let (mut docs, mut rows, default) = (vec![], vec![], store.default_image()?);
    for name in store.image_names()? {
        let mark = if default.as_ref() == Some(&name) { "*" } else { "" };
        match store.image(&name).and_then(|doc| Ok((row(&doc, mark)?, doc))) {
            Ok((row, doc)) => {
                rows.push(row);
                docs.push(doc);
            }
            Err(e) => {
                if e.code() == Code::BadDocument {
                    rows.push(vec![name.to_string(), mark.into(), DAMAGED.into()]);
                }
                cx.remark(&format!("{name}: {}", e.with_hint()));
            }
        }
    }
    if !args.table.unwrap_or(cx.stdout_is_terminal) {
        docs.iter().for_each(|doc| cx.emit_line(&doc.to_line()));
        return Ok(Answer::Done);
    }
    cx.emit_text(&render(&["NAME", "DEFAULT", "DISTRO", "RELEASE", "SIZE", "REGISTERED"], &rows));
    Ok(Answer::Done)
}

fn row(doc: &Document, mark: &str) -> Result<Vec<String>> {
    let (name, rootfs): (Name, Rootfs) = (doc.name()?, doc.require()?);
    let at = doc.section::<Registered>()?.map(|r| r.at).unwrap_or_default();
    Ok(vec![name.to_string(), mark.into(), rootfs.distro, rootfs.release, size(rootfs.size_bytes), at])
}

/// `bg-image show`: the record; without a name that of the default image.
pub fn show(cx: &mut Context<'_>, name: Option<&Name>) -> Result<Answer> {
    let store = cx.store();
    cx.emit_line(&store.image(&named(&store, name)?)?.to_line());
    Ok(Answer::Done)
}

/// The image that was asked for; without a name the default one.
fn named(store: &Store, name: Option<&Name>) -> Result<Name> {
    match name {
        Some(name) => Ok(name.clone()),
        None => store.default_image()?.ok_or_else(no_default),
    }
}

fn no_default() -> Error {
    Error::new(Code::NotFound, "there is no default image").hint("`bg-image default NAME` makes one the default")
}

/// `bg-image default`: makes an image the default, or prints the default's record.
pub fn default(cx: &mut Context<'_>, name: Option<&Name>) -> Result<Answer> {
    let Some(name) = name else { return show(cx, None) };
    let store = cx.store();
    let _lock = store.lock_images()?;
    let doc = store.image(name)?;
    store.set_default_image(name)?;
    cx.emit_line(&doc.to_line());
    Ok(Answer::Done)
}

/// `bg-image rm`: refuses an image that a VM was made from; one that is gone already is fine.
pub fn rm(cx: &mut Context<'_>, names: &[Name]) -> Result<Answer> {
    let store = cx.store();
    let _lock = store.lock_images()?;
    let mut failed = Failures::default();
    for name in names {
        cx.stages.begin("remove");
        match store.image(name) {
            Err(e) if e.code() == Code::NotFound && !store.has_image(name)? => {
                let hint = e.get_hint().map(|hint| format!("; {hint}")).unwrap_or_default();
                cx.remark(&format!("{e}, nothing is removed{hint}"));
            }
            _ => rm_one(&store, name).unwrap_or_else(|e| failed.add(e)),
        }
        crate::sys::signal::check()?;
    }
    failed.result().map(|()| Answer::Done)
}

fn rm_one(store: &Store, name: &Name) -> Result<()> {
    if !store.has_image(name)? {
        return Ok(());
    }
    let users = users_of(store, name)?;
    if !users.is_empty() {
        return Err(is_used(store, name, &users)?);
    }
    if store.default_image()?.as_ref() == Some(name) {
        store.clear_default_image()?;
    }
    remove_by_rename(store, &store.image_dir(name))
}

/// The error for an image with these users.
fn is_used(store: &Store, image: &Name, users: &[Name]) -> Result<Error> {
    let (mut vms, mut work, mut pids) = (vec![], vec![], vec![]);
    for user in users {
        let machine = store.machine_dir(user);
        match machine.work_under_way()? {
            Some(tool) => {
                work.push(format!("{tool} (in `{user}`)"));
                pids.extend(signer(&machine.file("lock"))?.map(|pid| pid.to_string()));
            }
            None => vms.push(user),
        }
    }
    let named = vms.iter().map(|vm| format!("`{vm}`")).chain(work).collect::<Vec<_>>().join(", ");
    let error = Error::new(Code::InUse, format!("the image `{image}` is used by {named}"));
    Ok(match pids.join(" ") {
        _ if !vms.is_empty() => error.hint("remove the VMs first: bg-vm rm NAME"),
        pids if pids.is_empty() => error.hint("wait until that has ended"),
        pids => error.hint(format!("wait until that has ended, or end it: kill {pids}")),
    })
}

/// The VMs made from an image. A VM that is being made, and one whose record cannot be read, count as such: nothing is lost
/// that way.
fn users_of(store: &Store, image: &Name) -> Result<Vec<Name>> {
    let mut users = vec![];
    for name in store.machine_names()? {
        let machine = store.machine_dir(&name);
        let uses = match machine.document().and_then(|doc| doc.require::<Spec>()) {
            Ok(spec) => spec.image == *image,
            Err(e) if e.code() == Code::NotFound => !matches!(machine.journal().open_operation(), Ok(None)),
            Err(_) => true,
        };
        if uses {
            users.push(name);
        }
    }
    Ok(users)
}
