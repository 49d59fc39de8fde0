//! `bg-image reconcile`: brings an image's record up to what is in its directory.
//!
//! What can be made anew is: seeds. A kernel may be replaced, and is recorded as it is. The root file system is what was
//! registered, and its record never follows it: a changed one is damaged. The kernel of the default image is the bundle's.

use super::files::{Wrong, record_facts, wrong};
use super::{bundle, named};
use crate::cli::{Answer, Context, Source};
use crate::ops::register::{Copy, RegisterArgs, publish, put};
use crate::ops::seed;
use lib_common::digest;
use lib_common::doc::{AbsPath, Document, Kernel, Kind, Name, Registered, Rootfs, Section, Seed};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::dirs::list;
use lib_common::sys::fs::{link_or_clone, sync_all};
use lib_common::sys::plain;
use lib_image::build::kernel::bundle::release;
use lib_image::build::kernel::bzimage::release_of;
use lib_image::disk::seed::{DEFAULT_SIZES, check_seed};
use lib_machine::store::{Store, save_record};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A cpio of the kind that the kernel unpacks (initramfs buffer format: the `newc` magic).
const CPIO: &[u8] = b"070701";

/// What `bg-image reconcile` takes.
#[derive(Clone, Debug, Default)]
pub struct ReconcileArgs {
    /// The image; the default one without it.
    pub name: Option<Name>,
    /// A file with the document of the kernel that the image is to have; `-` is stdin.
    pub kernel: Option<PathBuf>,
}

/// An image whose record is looked at.
struct Image {
    store: Store,
    name: Name,
    /// The record as it was found.
    before: Document,
    /// The image's directory.
    home: PathBuf,
}

/// Prints the record. Where it was right it is not touched. The default image gets the bundle's kernel, where there is a
/// bundle and no other kernel was given; where no image is the default, the bundle's becomes it.
///
/// # Errors
/// [`Code::DigestMismatch`] for a root file system or manifest that is not what was registered; [`Code::MissingFile`] for
/// what is missing and cannot be made anew; [`Code::BadInput`] for a kernel that is none; [`Code::InUse`] where the image
/// was replaced meanwhile.
pub fn reconcile(cx: &mut Context<'_>, args: &ReconcileArgs) -> Result<Answer> {
    let mut given: Option<(Document, Kernel)> = args.kernel.as_deref().map(|path| given(cx, path)).transpose()?;
    let store = cx.store();
    if given.is_none() {
        let default = store.default_image()?;
        let is_default = args.name.is_none() || args.name == default;
        if let Some(bundle) = cx.config.bundle()?.filter(|_| is_default) {
            let doc = bundle::image_of(bundle)?;
            if default.is_none() && !store.image_dir(&bundle.bundle.name).exists() {
                return put(cx, doc, &RegisterArgs { default: true, ..RegisterArgs::default() });
            }
            let kernel = doc.require()?;
            given = Some((doc, kernel));
        }
    }
    let name = named(&store, args.name.as_ref())?;
    let image = Image { before: store.image(&name)?, home: store.image_dir(&name), store, name };
    let rootfs: Rootfs = image.before.require()?;
    let seed: Option<Seed> = image.before.section()?;
    cx.stages.begin("check_rootfs");
    refuse_changed(&image, &rootfs)?;
    cx.stages.begin("check_kernel");
    let kernel_changed = match given {
        Some((doc, kernel)) => replace_kernel(cx, &image, (&doc, kernel))?,
        None => record_kernel(cx, &image)?,
    };
    cx.stages.begin("check_seed");
    let missing = missing_seeds(&rootfs, seed.as_ref())?;
    if let Some(sizes) = &missing {
        seed::into_store(cx, &image.name, sizes)?;
    }
    if !kernel_changed && missing.is_none() {
        cx.remark(&format!("the record of the image `{}` is what is there; nothing was changed", image.name));
    }
    cx.emit_line(&image.store.image(&image.name)?.to_line());
    Ok(Answer::Done)
}

/// A document that was given, and the section of it that is wanted.
pub(super) fn given<T: Section>(cx: &mut Context<'_>, path: &Path) -> Result<(Document, T)> {
    let file = (path != Path::new("-")).then(|| path.to_owned());
    let doc = cx.document(&Source { name: None, file }, Kind::Image)?;
    let section = doc.require()?;
    Ok((doc, section))
}

/// Nobody can tell a change from damage here, so neither is recorded.
fn refuse_changed(image: &Image, rootfs: &Rootfs) -> Result<()> {
    for (path, expected) in [(&rootfs.path, &rootfs.digest), (&rootfs.manifest, &rootfs.manifest_digest)] {
        let (code, what) = match wrong(path, Some(expected), digest::of_file)? {
            None => continue,
            Some(Wrong::Missing) => (Code::MissingFile, "is not there"),
            Some(Wrong::Changed) => {
                (Code::DigestMismatch, "is not what was registered, so it is damaged or was changed")
            }
        };
        let again = format!("build the image again and register it: bg-register --name {} --replace", image.name);
        return Err(Error::new(code, format!("{path} {what}")).hint(again).detail("path", path.as_str()));
    }
    Ok(())
}

/// Puts another kernel into the image: a whole new directory with it and with links to all else, put into the place of the
/// old one at once. Says whether there was something to do.
fn replace_kernel(cx: &mut Context<'_>, image: &Image, (doc, mut kernel): (&Document, Kernel)) -> Result<bool> {
    let recorded: Option<Kernel> = image.before.section()?;
    // What is recorded counts for nothing where it is not there.
    let is_there = |old: &Kernel| is_same(&kernel, old) && found_kernel(image, old).is_ok_and(|new| new == *old);
    if recorded.as_ref().is_some_and(is_there) {
        return Ok(false);
    }
    cx.stages.begin("copy_kernel");
    let staging = image.store.stage("reconcile")?;
    Copy { staging: &staging, home: image.home.clone() }.kernel(&mut kernel)?;
    link_the_rest(&image.home, staging.path())?;
    cx.stages.begin("record");
    let mut record = image.before.clone();
    record.set(&kernel);
    record_facts(&mut record, staging.path())?;
    record.append_timings_of(doc)?;
    record.append_timings(&cx.stages.take_before("publish"))?;
    save_record(&staging.path().join("image.json"), &record)?;
    sync_all(staging.path())?;
    let _lock = image.store.lock_images()?;
    image.is_unchanged()?;
    publish(staging, &image.home)?;
    Ok(true)
}

/// Whether two kernels are the same, wherever they lie.
fn is_same(a: &Kernel, b: &Kernel) -> bool {
    (&a.version, &a.arch, &a.digests, a.modules.is_some()) == (&b.version, &b.arch, &b.digests, b.modules.is_some())
}

/// The files of an image's directory that are no kernel's and no operation's.
fn link_the_rest(home: &Path, staged: &Path) -> Result<()> {
    const OTHERS: [&str; 5] = ["journal", "lock", "image.json", "vmlinux", "initrd"];
    for entry in list(home)? {
        let name = entry.file_name();
        let is_temporary = name.to_string_lossy().starts_with('.');
        if entry.file_type()?.is_file() && !is_temporary && OTHERS.iter().all(|other| name != *other) {
            link_or_clone(&entry.path(), &staged.join(name))?;
        }
    }
    Ok(())
}

/// Records the kernel that lies in the image's directory. Says whether that was another one.
fn record_kernel(cx: &mut Context<'_>, image: &Image) -> Result<bool> {
    let recorded: Kernel = image.before.require()?;
    let found = found_kernel(image, &recorded)?;
    let mut record = image.before.clone();
    record.set(&found);
    record_facts(&mut record, &image.home)?;
    let facts = |doc: &Document| doc.section::<Registered>();
    if found == recorded && facts(&record)? == facts(&image.before)? {
        return Ok(false);
    }
    cx.stages.begin("record");
    record.append_timings(&cx.stages.take_before("save"))?;
    let _lock = image.store.lock_images()?;
    image.is_unchanged()?;
    save_record(&image.home.join("image.json"), &record)?;
    Ok(true)
}

impl Image {
    /// Whoever has changed it since it was looked at has the last word.
    fn is_unchanged(&self) -> Result<()> {
        if self.store.image(&self.name)?.to_line() == self.before.to_line() {
            return Ok(());
        }
        Err(Error::new(Code::InUse, format!("the image `{}` was changed while its record was brought up", self.name))
            .hint(format!("bg-image reconcile {}", self.name)))
    }

    /// A file of the kernel, which must be there.
    fn kernel_file(&self, name: &str) -> Result<AbsPath> {
        let path = AbsPath::new(self.home.join(name))?;
        if path.is_file() { Ok(path) } else { Err(self.lacks(&path)) }
    }

    fn lacks(&self, path: &Path) -> Error {
        Error::new(Code::MissingFile, format!("{} is not there", path.display())).hint(self.how_to_replace())
    }

    fn how_to_replace(&self) -> String {
        format!("bg-kernel build | bg-image reconcile --kernel - {}", self.name)
    }
}

/// The kernel in the image's directory, as a section. What has not changed is as `recorded` says it.
fn found_kernel(image: &Image, recorded: &Kernel) -> Result<Kernel> {
    let explained = |e: Error| e.hint(image.how_to_replace());
    let (vmlinux, initrd) = (image.kernel_file("vmlinux")?, image.kernel_file("initrd")?);
    let (of_vmlinux, of_initrd) = (digest::of_file(&vmlinux)?, digest::of_file(&initrd)?);
    let was = |key: &str| recorded.digests.get(key);
    let says = if was("vmlinux") == Some(&of_vmlinux) {
        Some(recorded.version.clone())
    } else {
        release_of(&vmlinux).map_err(explained)?
    };
    if was("initrd") != Some(&of_initrd) && !is_cpio(&initrd)? {
        return Err(explained(Error::new(Code::BadInput, format!("{initrd} is not an initrd"))));
    }
    let modules = modules(image, recorded, says.as_deref())?;
    let of_modules = modules.as_ref().and_then(|tree| tree.file_name()?.to_str()).map(str::to_owned);
    let version = release(of_modules, says).map_err(explained)?;
    let mut digests = recorded.digests.clone();
    digests.insert("vmlinux".into(), of_vmlinux);
    digests.insert("initrd".into(), of_initrd);
    match &modules {
        Some(tree) => digests.insert("modules".into(), digest::of_tree(tree)?),
        None => digests.remove("modules"),
    };
    Ok(Kernel { version, arch: recorded.arch.clone(), vmlinux, initrd, modules, digests })
}

/// The module tree in the image's directory: of several the one of the kernel. A kernel that had modules has to have some.
fn modules(image: &Image, recorded: &Kernel, release: Option<&str>) -> Result<Option<AbsPath>> {
    let dir = image.home.join("modules/lib/modules");
    let mut trees: Vec<PathBuf> =
        list(&dir)?.into_iter().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    if trees.len() > 1 {
        trees.retain(|tree| tree.file_name().and_then(|name| name.to_str()) == release);
    }
    match trees.pop() {
        Some(tree) => AbsPath::new(tree).map(Some),
        None if recorded.modules.is_some() => Err(image.lacks(&dir.join(release.unwrap_or(&recorded.version)))),
        None => Ok(None),
    }
}

fn is_cpio(path: &Path) -> Result<bool> {
    let mut start = vec![];
    plain::named(path)?.take(CPIO.len() as u64).read_to_end(&mut start)?;
    Ok(start == CPIO)
}

/// The sizes of the seeds that have to be made, where they are not as they should be.
fn missing_seeds(rootfs: &Rootfs, seed: Option<&Seed>) -> Result<Option<Vec<u64>>> {
    let Some(seed) = seed.filter(|seed| !seed.sizes.is_empty()) else { return Ok(Some(DEFAULT_SIZES.to_vec())) };
    let fine = check_seed(seed, &rootfs.digest)?.iter().all(|check| check.ok);
    Ok((!fine).then(|| seed.sizes.iter().map(|size| size.size_bytes).collect()))
}
