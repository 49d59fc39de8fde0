//! Images: half made, damaged, with files that are missing, changed or not named by the record.

use super::files::{children, of_dir, refused};
use super::leftover::is_leftover;
use super::{Found, Remedy, age_ms, finding, fix};
use crate::ops::image::files::{all_wrong, facts_of};
use lib_common::doc::{Document, Kernel, Kind, Registered, Rootfs, Seed};
use lib_common::error::{Result, looked_at, sound};
use lib_common::sys::cmd::quote;
use lib_common::sys::fs::TEMP_PREFIX;
use lib_common::sys::lock::glance;
use lib_common::sys::owned;
use lib_machine::net::give_back_all;
use lib_machine::store::{Journal, Store, read_record};
use std::path::{Path, PathBuf};

/// What an image's directory has beside what its record names.
const OTHERS: [&str; 4] = ["image.json", "journal", "lock", "modules"];

/// Images that are damaged, miss files, or have other files than were registered. `deep`: their content is digested, which
/// takes seconds for each.
pub fn images(store: &Store, deep: bool) -> Result<Vec<Found>> {
    let mut found = vec![];
    for path in children(&store.images_dir())? {
        match owned::is_dir(&store.images_dir(), path.file_name().unwrap_or_default()) {
            Ok(true) => one(&path, deep, &mut found)?,
            Ok(false) => {}
            Err(e) => found.push(refused("image", &path, e)?),
        }
    }
    found.extend(default_image(store)?);
    Ok(found)
}

fn one(path: &Path, deep: bool, found: &mut Vec<Found>) -> Result<()> {
    let record = match looked_at(read_record(&path.join("image.json"), Kind::Image))? {
        Ok(Some(doc)) => doc,
        Ok(None) => {
            found.extend(without_record(path)?);
            return Ok(());
        }
        Err(e) => {
            let mut f = of_dir("image", path, e.with_causes());
            let then = fix::or_remove("mend it, or put it back from a backup", "bg-image rm", &f.owner);
            f.fix = fix::look_at(&path.join("image.json"), &then);
            found.push(Found { finding: f, remedy: Remedy::Report });
            return Ok(());
        }
    };
    let wrong = if deep { changed_content(&record)? } else { changed_facts(path, &record)? };
    // An image that was replaced, changed or removed meanwhile has nothing wrong.
    if !wrong.is_empty() && same_record(path, &record)? {
        found.extend(wrong.into_iter().map(|evidence| damage(path, evidence)));
    }
    Ok(())
}

/// An image is whole before it has its name: one without a record, in which nothing was begun that would remove it, has lost it.
fn without_record(path: &Path) -> Result<Option<Found>> {
    let left = is_left(path)?;
    if !path.is_dir() {
        return Ok(None);
    }
    if left {
        let f = of_dir("image", path, "it has no record".into());
        return Ok(Some(Found { finding: f, remedy: Remedy::Image(path.to_owned()) }));
    }
    let mut f = of_dir("image", path, "its record image.json is missing".into());
    let mended = "put image.json back from a backup, or register the image again";
    f.fix = fix::look_into(path, &fix::or_remove(mended, "bg-image rm", &f.owner));
    Ok(Some(Found { finding: f, remedy: Remedy::Report }))
}

/// Whether an image's directory is what a killed tool has left; a journal that says nothing plain says nothing of it.
///
/// # Errors
/// What keeps it from being looked at.
pub(super) fn is_left(path: &Path) -> Result<bool> {
    is_leftover(path, sound(Journal::in_dir(path, give_back_all).open_operation())?.as_ref())
}

fn damage(path: &Path, evidence: String) -> Found {
    let mut f = of_dir("image", path, evidence);
    let name = quote(&f.owner);
    f.fix = format!("bg-image reconcile {name}  # records it if its content is what it was; else build it again");
    Found { finding: f, remedy: Remedy::Report }
}

/// Files that are missing, no plain files of the caller's, or not those that were registered, by size, time of the last
/// change, and inode.
fn changed_facts(path: &Path, doc: &Document) -> Result<Vec<String>> {
    let registered = doc.section::<Registered>().ok().flatten().map(|r| r.files).unwrap_or_default();
    let mut wrong = vec![];
    for file in image_files(doc) {
        let is_tree = is_modules(doc, &file);
        match if is_tree { Ok(file.is_dir()) } else { looked_at(owned::is_file(&file))? } {
            Ok(true) => {}
            Ok(false) => wrong.push(format!("{} is missing", file.display())),
            Err(e) => wrong.push(e.with_causes()),
        }
        let name = file.file_name().and_then(|n| n.to_str()).filter(|_| !is_tree && file.parent() == Some(path));
        let Some(was) = name.and_then(|name| registered.get(name)) else { continue };
        let Some(now) = facts_of(&file) else { continue };
        let differ = [
            ("its size", was.size_bytes != now.size_bytes),
            ("when it was changed", was.mtime_ns != now.mtime_ns),
            ("its inode", was.inode != now.inode),
        ];
        let differ: Vec<_> = differ.iter().filter(|(_, differs)| *differs).map(|(what, _)| *what).collect();
        if !differ.is_empty() {
            wrong.push(format!("{} is not the file that was registered: {}", file.display(), differ.join(", ")));
        }
    }
    Ok(wrong)
}

fn changed_content(doc: &Document) -> Result<Vec<String>> {
    let mut odd = vec![];
    for file in image_files(doc).into_iter().filter(|file| !is_modules(doc, file)) {
        odd.extend(looked_at(owned::is_file(&file))?.err().map(|e| e.with_causes()));
    }
    match (doc.section::<Rootfs>()?, doc.section::<Kernel>()?) {
        // What is no plain file of the caller's is not read.
        _ if !odd.is_empty() => Ok(odd),
        (Some(rootfs), Some(kernel)) => all_wrong(&rootfs, &kernel, doc.section::<Seed>()?.as_ref()),
        _ => Ok(vec!["its record has no kernel, or no root file system".into()]),
    }
}

fn is_modules(doc: &Document, file: &Path) -> bool {
    doc.section::<Kernel>().ok().flatten().and_then(|k| k.modules).is_some_and(|tree| &*tree == file)
}

/// An image that is the default, and is not there.
fn default_image(store: &Store) -> Result<Option<Found>> {
    let evidence = match looked_at(store.default_image())? {
        Ok(Some(name)) if !store.image_dir(&name).exists() => format!("the default image `{name}` is not there"),
        Ok(_) => return Ok(None),
        Err(e) => e.with_causes(),
    };
    let file = store.state_dir().join("default-image");
    let mut f = finding("file", file.display().to_string(), evidence);
    f.age_ms = age_ms(&file);
    f.fix = match &store.image_names()?[..] {
        [only] => format!("bg-image default {only}"),
        _ => "bg-image ls  # then choose one of them: bg-image default NAME".into(),
    };
    Ok(Some(Found { finding: f, remedy: Remedy::Report }))
}

/// Files that no record names. Seeds were being put into an image, or replaced there; the rest is not ours to remove.
pub fn unnamed(store: &Store) -> Result<Vec<Found>> {
    // Whoever changes an image holds this lock.
    let Some(_look) = glance(&store.images_dir().join(".lock"))? else { return Ok(vec![]) };
    let mut found = vec![];
    for image in children(&store.images_dir())? {
        // What is no plain directory of ours was told above.
        let is_ours = looked_at(owned::is_dir(&store.images_dir(), image.file_name().unwrap_or_default()))?;
        if !matches!(is_ours, Ok(true)) || !image.join("image.json").exists() {
            continue;
        }
        let Some(named) = named_by_record(&image)? else { continue };
        for path in children(&image)?.into_iter().filter(|path| !named.contains(path)) {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if OTHERS.contains(&name.as_str()) || name.starts_with(TEMP_PREFIX) {
                continue;
            }
            let is_seed = name.starts_with("seed-");
            let what =
                if is_seed { "a seed that its image does not name" } else { "a file that its image does not name" };
            let mut f = finding("file", path.display().to_string(), what);
            f.owner = image.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            f.age_ms = age_ms(&path);
            if !is_seed {
                f.fix = fix::nobodys(&path);
            }
            found.push(Found { finding: f, remedy: if is_seed { Remedy::Seed(path) } else { Remedy::Report } });
        }
    }
    Ok(found)
}

/// Whether the record of the image in whose directory a file lies names it; a record that cannot be read may.
pub(super) fn is_named(file: &Path) -> Result<bool> {
    Ok(named_by_record(file.parent().unwrap_or(file))?.is_none_or(|named| named.iter().any(|f| f == file)))
}

/// The files that an image's record names; `None` where that is damaged, nothing where there is none.
fn named_by_record(image: &Path) -> Result<Option<Vec<PathBuf>>> {
    let record = looked_at(read_record(&image.join("image.json"), Kind::Image))?;
    Ok(record.ok().map(|record| record.map_or(vec![], |doc| image_files(&doc))))
}

fn same_record(path: &Path, doc: &Document) -> Result<bool> {
    let now = looked_at(read_record(&path.join("image.json"), Kind::Image))?;
    Ok(matches!(now, Ok(Some(now)) if now.to_line() == doc.to_line()))
}

fn image_files(doc: &Document) -> Vec<PathBuf> {
    let mut files = vec![];
    if let Ok(Some(kernel)) = doc.section::<Kernel>() {
        files.extend([kernel.vmlinux.to_path_buf(), kernel.initrd.to_path_buf()]);
        files.extend(kernel.modules.map(|m| m.to_path_buf()));
    }
    if let Ok(Some(rootfs)) = doc.section::<Rootfs>() {
        files.extend([rootfs.path.to_path_buf(), rootfs.manifest.to_path_buf()]);
    }
    if let Ok(Some(seed)) = doc.section::<Seed>() {
        files.extend(seed.sizes.iter().map(|s| s.path.to_path_buf()));
    }
    files
}
