//! `bg-rootfs build --distro void`: packages are chosen, fetched and checked, become one tree, and are configured in a VM.

use super::configure::configure;
use crate::build::debian::{IMAGE, MANIFEST, RECORD, digest_and_sync, load, save};
use crate::build::slot::Slot;
use crate::build::{distro, manifest, package_list, void};
use crate::cli::{Answer, Context};
use crate::digest;
use crate::disk::ext4;
use crate::doc::{self, AbsPath, Digest, Document, Kernel, ManifestEntry, Rootfs};
use crate::error::{Code, Error, Result};
use crate::xbps::fetch::Fetcher;
use crate::xbps::key::{self, Key};
use crate::xbps::location::Location;
use crate::xbps::lock::{self, Locked};
use crate::xbps::package::Package;
use crate::xbps::resolve::{Repository, resolve};
use crate::xbps::root::{Extra, Stopped, write_tar};
use fs_err as fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// The time of every file, in seconds since 1970: 2023-11-14.
const EPOCH: u64 = 1_700_000_000;
/// Configuring a hundred packages, in seconds, on a host where a guest boots in a minute.
const CONFIGURE_SECONDS: u64 = 600;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Addresses and directories, in the order in which they are looked at; none: Void's own.
    pub repositories: Vec<String>,
    /// Files with keys that are trusted; none: Void's own.
    pub keys: Vec<PathBuf>,
    /// The lock file.
    pub lock: Option<PathBuf>,
    /// `x86_64`; none: this host's.
    pub arch: Option<String>,
    /// Values of `--packages`.
    pub packages: Vec<String>,
    /// Of the file system, in bytes.
    pub size: u64,
    /// Whether only the plan is printed.
    pub dry_run: bool,
}

/// Builds the root, or takes it from the cache, and puts the section `rootfs` into the document.
///
/// Errors: those of the packages, [`Code::CommandFailed`] for a script that fails in the guest.
pub fn build(recipe: &Recipe, use_cache: bool, mut doc: Document, cx: &mut Context<'_>) -> Result<Answer> {
    ext4::check_size(recipe.size)?;
    let arch = recipe.arch.clone().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let keys = trusted(&recipe.keys)?;
    let fetcher = Fetcher::new(&cx.config.cache_dir, keys.clone())?;
    let packages = plan(recipe, &arch, &fetcher, cx)?;
    if recipe.dry_run {
        for package in &packages {
            cx.emit_line(&doc::to_json(&line(package)));
        }
        return Ok(Answer::Done);
    }
    let rootfs = made(recipe, (&packages, &keys), &fetcher, (use_cache, doc.require::<Kernel>()?), cx)?;
    if let Some(file) = recipe.lock.as_ref().filter(|file| !file.exists()) {
        crate::sys::fs::replace(file, lock::render(&packages).as_bytes(), 0o644)?;
    }
    doc.set(&rootfs);
    cx.emit(doc)?;
    Ok(Answer::Done)
}

fn trusted(files: &[PathBuf]) -> Result<Vec<Key>> {
    if files.is_empty() { key::pinned() } else { files.iter().map(|file| Key::read(file)).collect() }
}

/// The packages: those of the lock file, or what the repositories have now.
fn plan(recipe: &Recipe, arch: &str, fetcher: &Fetcher, cx: &mut Context<'_>) -> Result<Vec<Locked>> {
    if let Some(file) = &recipe.lock
        && let Some(locked) = lock::read(file)?
    {
        return Ok(locked);
    }
    let mut wanted: Vec<String> = void::PACKAGES.map(str::to_owned).to_vec();
    wanted.extend(package_list::read(&recipe.packages, distro::checked_of("void")?)?);
    let own = [void::DEFAULT_REPOSITORY.to_owned()];
    let named = if recipe.repositories.is_empty() { &own[..] } else { &recipe.repositories };
    cx.stages.begin("index");
    let repositories = named.iter().map(|text| {
        let location = Location::parse(text)?;
        let index = fetcher.index(&location, arch).map_err(|e| e.within(format!("the repository {location}")))?;
        Ok(Repository { location, index })
    });
    let repositories = repositories.collect::<Result<Vec<_>>>()?;
    cx.stages.begin("resolve");
    let chosen = resolve(&repositories, &wanted, arch)?;
    let locked: Vec<Locked> = chosen.iter().map(|one| Locked::of(one, &repositories)).collect();
    cx.stages.begin("fetch");
    for (one, package) in chosen.iter().zip(open(&locked, arch, fetcher, cx)?) {
        // The index is not signed.
        if package.props != one.entry.props {
            let message = format!("the package {} is not what the index says of it", one.entry.props.pkgver);
            return Err(Error::new(Code::BadInput, message));
        }
    }
    Ok(locked)
}

fn open(all: &[Locked], arch: &str, fetcher: &Fetcher, cx: &mut Context<'_>) -> Result<Vec<Package>> {
    let files = fetcher.packages(all, &mut |count| cx.stages.note(&format!("fetch: {count} of {}", all.len())))?;
    all.iter().zip(&files).map(|(one, file)| Package::open(file, &one.pkgver, arch)).collect()
}

fn line(package: &Locked) -> ManifestEntry {
    ManifestEntry {
        name: package.pkgver.name().to_owned(),
        version: package.pkgver.version().to_owned(),
        architecture: package.architecture.clone(),
    }
}

/// Everything that decides what the root is.
fn key_of(recipe: &Recipe, packages: &[Locked], keys: &[Key], kernel: &Kernel) -> Digest {
    let keys: Vec<String> = keys.iter().map(Key::fingerprint).collect();
    let added = format!("{:?}", void::added());
    let lines: Vec<String> = packages.iter().map(|one| format!("{} {}", one.file_name(), one.sha256)).collect();
    let text = format!(
        "banger void {} {EPOCH}\nsize {}\nkernel {}\nkeys {keys:?}\nadded {added}\n{}\n",
        void::VERSION,
        recipe.size,
        kernel.version,
        lines.join("\n")
    );
    digest::of_bytes(text.as_bytes())
}

fn made(
    recipe: &Recipe,
    (packages, keys): (&[Locked], &[Key]),
    fetcher: &Fetcher,
    (use_cache, kernel): (bool, Kernel),
    cx: &mut Context<'_>,
) -> Result<Rootfs> {
    cx.stages.begin("cache");
    let key = key_of(recipe, packages, keys, &kernel);
    let slot = Slot::new(&cx.config.cache_dir, "rootfs", &key);
    if let Some(rootfs) = load(slot.dir()).filter(|_| use_cache) {
        return Ok(rootfs);
    }
    ext4::probe()?;
    let building = slot.begin()?;
    let image = building.path().join(IMAGE);
    cx.stages.begin("unpack");
    let arch = recipe.arch.as_deref().unwrap_or(std::env::consts::ARCH);
    let opened = open(packages, arch, fetcher, cx)?;
    let all = packages.iter().cloned().zip(opened).collect();
    write_image(&image, recipe.size, (all, keys), &key)?;
    let scripts = configure(cx, &kernel, &image, cx.config.deadline(None, CONFIGURE_SECONDS))?;
    cx.remark(&format!("configured {} packages", scripts.len()));
    cx.stages.begin("digest");
    let lines = manifest::render(packages.iter().map(line).collect());
    let rootfs = Rootfs {
        distro: "void".into(),
        release: "current".into(),
        path: AbsPath::new(slot.dir().join(IMAGE))?,
        size_bytes: recipe.size,
        digest: digest_and_sync(&image)?,
        manifest: AbsPath::new(slot.dir().join(MANIFEST))?,
        manifest_digest: manifest::digest(&lines),
    };
    save(&building.path().join(MANIFEST), &lines)?;
    save(&building.path().join(RECORD), &(doc::to_json(&rootfs) + "\n"))?;
    cx.stages.begin("publish");
    slot.publish(building, rootfs, |dir| load(dir).filter(|_| use_cache))
}

fn write_image(image: &Path, size: u64, (all, keys): (Vec<(Locked, Package)>, &[Key]), id: &Digest) -> Result<()> {
    let format = ext4::Format { label: "rootfs", id, epoch: EPOCH, root_mode: 0o755 };
    let added = void::added();
    let keys: Vec<(Key, String)> = keys.iter().map(|key| (key.clone(), "Void Linux".to_owned())).collect();
    let extra = Extra { added: &added, edit: void::edit, keys: &keys, epoch: EPOCH };
    let mut disk = ext4::make_from_tar(image, size, format)?;
    match write_tar(all, &extra, BufWriter::with_capacity(128 << 10, &mut disk)) {
        Ok(()) => disk.finish(),
        Err(Stopped::Output(e)) => Err(disk.failure().unwrap_or_else(|| e.into())),
        Err(Stopped::Package(e)) => {
            drop(disk);
            fs::remove_file(image)
                .or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
            Err(e)
        }
    }
}
