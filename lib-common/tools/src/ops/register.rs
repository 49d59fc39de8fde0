//! bg-register: an `Image` document and its files, verified on the way into the store.

use crate::cli::{Answer, Context, Source};
use crate::ops::image::files::record_facts;
use lib_common::digest;
use lib_common::doc::{AbsPath, Digest, Document, Kernel, Kind, Name, Registered, Rootfs, Seed, SeedSize};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::dirs::walk;
use lib_common::sys::fs::{clone_file, remove_dir, rename_exchange, rename_new, sync_all, sync_dir};
use lib_common::timing::now;
use lib_machine::store::{Staging, Store, save_record};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What `bg-register` takes.
#[derive(Clone, Debug, Default)]
pub struct RegisterArgs {
    /// The document's file; stdin where there is none.
    pub file: Option<PathBuf>,
    /// The image's name; the document's own where there is none.
    pub name: Option<Name>,
    /// Take the place of an image of that name.
    pub replace: bool,
    /// Make it the default image. The first image becomes it anyway.
    pub default: bool,
}

/// Puts an image into the store: a copy of every file, each compared with its digest while it is copied.
pub fn register(cx: &mut Context<'_>, args: &RegisterArgs) -> Result<Answer> {
    let doc = cx.document(&Source { name: None, file: args.file.clone() }, Kind::Image)?;
    put(cx, doc, args)
}

/// Puts the image of a document into the store.
pub(super) fn put(cx: &mut Context<'_>, mut doc: Document, args: &RegisterArgs) -> Result<Answer> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => doc.name().map_err(|e| e.hint("give it one: bg-register --name NAME"))?,
    };
    let (mut kernel, mut rootfs): (Kernel, Rootfs) = (doc.require()?, doc.require()?);
    let mut seed: Option<Seed> = doc.section()?;
    cx.stages.begin("stage");
    let store = cx.store();
    // Asked before the work, and again when nobody else can answer it.
    refuse_existing(&store, &name, args.replace)?;
    let staging = store.stage("register")?;
    let copy = Copy { staging: &staging, home: store.image_dir(&name) };
    cx.stages.begin("copy_kernel");
    copy.kernel(&mut kernel)?;
    cx.stages.begin("copy_rootfs");
    rootfs.path = copy.file(&rootfs.path, "rootfs.ext4", &rootfs.digest)?;
    rootfs.manifest = copy.file(&rootfs.manifest, "manifest", &rootfs.manifest_digest)?;
    cx.stages.begin("copy_seeds");
    for size in seed.iter_mut().flat_map(|s| &mut s.sizes) {
        size.path = copy.seed(size)?;
    }
    cx.stages.begin("record");
    doc.set_name(&name);
    doc.set(&kernel);
    doc.set(&rootfs);
    if let Some(seed) = &seed {
        doc.set(seed);
    }
    doc.set(&Registered { at: now(), files: BTreeMap::new() });
    record_facts(&mut doc, staging.path())?;
    doc.append_timings(&cx.stages.take_before("publish"))?;
    save_record(&staging.path().join("image.json"), &doc)?;
    sync_all(staging.path())?;
    let _lock = store.lock_images()?;
    refuse_existing(&store, &name, args.replace)?;
    publish(staging, &store.image_dir(&name))?;
    if args.default || store.default_image()?.is_none() {
        store.set_default_image(&name)?;
    }
    cx.emit(doc)?;
    Ok(Answer::Done)
}

fn refuse_existing(store: &Store, name: &Name, replace: bool) -> Result<()> {
    if !store.has_image(name)? || replace {
        return Ok(());
    }
    Err(Error::new(Code::Exists, format!("there is an image `{name}` already"))
        .hint("--replace puts this one in its place; VMs made from the old one keep what they have"))
}

/// An image or a bundle is whole before its directory shows it. A replaced one is in staging afterwards, and removed there.
/// The caller holds the lock of the images.
pub(super) fn publish(staging: Staging, home: &Path) -> Result<()> {
    let (staged, _lock) = staging.commit()?;
    let parent = home.parent().unwrap_or(home);
    if home.exists() {
        rename_exchange(&staged, home)?;
        sync_dir(parent)?;
        return remove_dir(&staged);
    }
    rename_new(&staged, home)?;
    sync_dir(parent)
}

/// Copies into staging; the paths that go into the record are those after the rename.
pub(super) struct Copy<'a> {
    pub staging: &'a Staging,
    /// The directory of the image or bundle, after the rename.
    pub home: PathBuf,
}

impl Copy<'_> {
    /// The files of a kernel, each compared with its digest while it is copied.
    pub fn kernel(&self, kernel: &mut Kernel) -> Result<()> {
        let digest_of = |key: &str| {
            let missing = || Error::new(Code::BadDocument, format!("`kernel.digests` has no `{key}`"));
            kernel.digests.get(key).cloned().ok_or_else(missing)
        };
        let (vmlinux, initrd) = (digest_of("vmlinux")?, digest_of("initrd")?);
        let modules = kernel.modules.clone().map(|m| digest_of("modules").map(|d| (m, d))).transpose()?;
        kernel.vmlinux = self.file(&kernel.vmlinux, "vmlinux", &vmlinux)?;
        kernel.initrd = self.file(&kernel.initrd, "initrd", &initrd)?;
        if let Some((from, digest)) = modules {
            kernel.modules = Some(self.tree(&from, &digest)?);
        }
        Ok(())
    }

    /// Copies a file and reads the copy once for its digest: what was verified is what is kept.
    pub fn file(&self, from: &AbsPath, name: &str, expected: &Digest) -> Result<AbsPath> {
        self.copied(from, name, |copy| same(from, &digest::of_file(copy)?, expected))
    }

    /// The same for a seed, whose digest is that of its content: a seed is much larger than its data.
    pub fn seed(&self, size: &SeedSize) -> Result<AbsPath> {
        let name = format!("seed-{}.ext4", size.size_bytes);
        self.copied(&size.path, &name, |copy| same(&size.path, &digest::of_content(copy)?, &size.digest))
    }

    fn copied(&self, from: &AbsPath, name: &str, verify: impl FnOnce(&Path) -> Result<()>) -> Result<AbsPath> {
        if !from.is_file() {
            return Err(missing(from));
        }
        let to = self.staging.path().join(name);
        clone_file(from, &to)?;
        verify(&to)?;
        AbsPath::new(self.home.join(name))
    }

    fn tree(&self, from: &AbsPath, expected: &Digest) -> Result<AbsPath> {
        // The last component is the kernel's release, where depmod and the guest look for it.
        let relative = Path::new("modules/lib/modules").join(from.file_name().unwrap_or("unnamed".as_ref()));
        let to = self.staging.path().join(&relative);
        if !from.is_dir() {
            return Err(missing(from));
        }
        copy_tree(from, &to)?;
        same(from, &digest::of_tree(&to)?, expected)?;
        AbsPath::new(self.home.join(relative))
    }
}

fn missing(path: &AbsPath) -> Error {
    Error::new(Code::MissingFile, format!("{path} is not there"))
        .hint("build it again; the cache may have been emptied")
}

fn same(what: &AbsPath, found: &Digest, expected: &Digest) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::new(Code::DigestMismatch, format!("{what} is not what the document says"))
        .also(format!("expected {expected}, found {found}"))
        .hint("build it again"))
}

/// Directories and regular files; module trees have nothing else but links to kernel sources, which are left out.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in walk(from, true)? {
        let target = to.join(entry.path().strip_prefix(from).unwrap_or(Path::new("")));
        if entry.file_type().is_dir() {
            fs_err::create_dir_all(&target)?;
        } else if entry.file_type().is_file() {
            clone_file(entry.path(), &target)?;
        }
    }
    Ok(())
}
