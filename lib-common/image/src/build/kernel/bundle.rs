//! Makes a bundle in a directory: kernel, modules, initrd, digests. Owns the order of the steps and the bundle's layout
//! (`vmlinux`, `initrd`, `modules/lib/modules/VERSION`); knows nothing of the cache but the directory's later name.

use super::bzimage::{is_release, to_vmlinux};
use super::elf::Elf;
use super::{Places, Source, deb, initrd, modules};
use fs_err as fs;
use lib_common::digest::{self, Hashing};
use lib_common::doc::{AbsPath, Digest, Kernel};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::Cmd;
use lib_common::sys::dirs::walk;
use lib_common::sys::fs::private_dir;
use lib_common::sys::plain;
use lib_common::sys::signal;
use lib_common::timing::Stages;
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Where a bundle is made.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// An empty directory.
    pub work: &'a Path,
    /// Where that will be in the end, for the paths in the document.
    pub becomes: &'a Path,
    /// Whether to download a package that was downloaded before.
    pub fresh: bool,
}

/// A kernel as it comes.
struct Input {
    image: PathBuf,
    version: Option<String>,
    modules: Option<PathBuf>,
}

/// Makes the bundle of `source`.
///
/// Errors: [`Code::BadInput`] for what is no usable kernel, [`Code::NotFound`] for an unknown package, failures of apt
/// and of I/O. What was made until then stays in `site.work`.
pub fn make(source: &Source, places: &Places, site: Site<'_>, stages: &mut Stages) -> Result<Kernel> {
    let input = match source {
        Source::Package(name) => extract(&fetch(name, places, site, stages)?, site.work, stages)?,
        Source::Deb(file) => extract(file, site.work, stages)?,
        Source::Vmlinux { file, modules, version } => {
            Input { image: file.clone(), version: version.clone(), modules: modules.clone() }
        }
    };
    stages.begin("unpack");
    let vmlinux = to_vmlinux(&input.image, &site.work.join("vmlinux"))?;
    if input.image.starts_with(site.work) {
        fs::remove_file(&input.image)?;
    }
    let version = release(input.version, vmlinux.version)?;
    let below = Path::new("modules/lib/modules").join(&version);
    let mut loaded = vec![];
    if let Some(tree) = &input.modules {
        stages.begin("modules");
        let ours = site.work.join(&below);
        if *tree != ours {
            copy_tree(tree, &ours)?;
        }
        // Before depmod runs: what the initrd has is not to depend on which depmod this host has. Debian's cannot read
        // .ko.gz, and leaves such modules out of its index without failing.
        let tree = modules::Tree::open(&ours)?;
        loaded = tree.for_initrd(&version)?;
        index(&tree, &site.work.join("modules"), &version, &places.depmod)?;
    }
    stages.begin("initrd");
    let mut digests = BTreeMap::from([("vmlinux".to_owned(), vmlinux.digest)]);
    digests.insert("initrd".to_owned(), write_initrd(&site.work.join("initrd"), &places.agent, &loaded)?);
    let mut modules = None;
    if input.modules.is_some() {
        stages.begin("digest");
        digests.insert("modules".to_owned(), digest::of_tree(&site.work.join(&below))?);
        modules = Some(AbsPath::new(site.becomes.join(&below))?);
    }
    Ok(Kernel {
        version,
        arch: "x86_64".to_owned(),
        vmlinux: AbsPath::new(site.becomes.join("vmlinux"))?,
        initrd: AbsPath::new(site.becomes.join("initrd"))?,
        modules,
        digests,
    })
}

/// The package file of `name`: the one that was downloaded before, if apt would download the same, else a new one.
fn fetch(name: &str, places: &Places, site: Site<'_>, stages: &mut Stages) -> Result<PathBuf> {
    stages.begin("resolve");
    let package = deb::resolve(name)?;
    let plan = deb::plan_download(&package)?;
    let debs = places.cache_dir.join("debs");
    let kept = debs.join(&plan.file);
    if !site.fresh && deb::is_it(&kept, &plan)? {
        return Ok(kept);
    }
    stages.begin("download");
    let dir = site.work.join("download");
    fs::create_dir(&dir)?;
    deb::download(&package, &dir, nix::unistd::geteuid().is_root())?;
    let got = dir.join(&plan.file);
    if !deb::is_it(&got, &plan)? {
        let message = format!("apt did not download the {} that its lists promise", plan.file);
        return Err(Error::new(Code::DigestMismatch, message).hint("apt-get update"));
    }
    private_dir(&debs)?;
    fs::rename(&got, &kept)?;
    fs::remove_dir_all(&dir)?;
    Ok(kept)
}

fn extract(package: &Path, work: &Path, stages: &mut Stages) -> Result<Input> {
    stages.begin("extract");
    let unpacked = deb::unpack(package, work)?;
    Ok(Input { image: unpacked.vmlinuz, version: Some(unpacked.version), modules: Some(unpacked.modules) })
}

/// The kernel's release: what it was said to be, and what it says itself, have to agree, since the guest looks for its
/// modules by what the kernel says.
///
/// Errors: [`Code::BadValue`] for what is no release, [`Code::BadInput`] where they differ or nobody says one.
pub fn release(said: Option<String>, found: Option<String>) -> Result<String> {
    match (said, found) {
        (Some(said), _) if !is_release(&said) => {
            Err(Error::new(Code::BadValue, format!("`{}` is not a kernel release", said.escape_debug()))
                .hint("a release is what `uname -r` says, such as 6.1.0-9-cloud-amd64"))
        }
        (Some(said), Some(found)) if said != found => {
            Err(Error::new(Code::BadInput, format!("the kernel says that it is {found}, and not {said}")))
        }
        (Some(version), _) | (None, Some(version)) => Ok(version),
        (None, None) => Err(Error::new(Code::BadInput, "the kernel does not say its release")
            .hint("give it with --kernel-version, as `uname -r` says it when the kernel runs")),
    }
}

/// Copies a module tree's files, and those that links in it lead to; `build` and `source` are links to directories.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in walk(from, true)? {
        signal::check()?;
        let Ok(below) = entry.path().strip_prefix(from) else { continue };
        let target = to.join(below);
        if entry.file_type().is_dir() {
            fs::create_dir_all(&target)?;
        } else if entry.path().is_file() {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Gives the tree below `base` its indexes for the guest's modprobe, where it came without: packages do, since Debian
/// runs depmod when it installs them. Without depmod here there is a modules.dep, and a guest that wants the binary
/// indexes runs its own.
fn index(tree: &modules::Tree, base: &Path, version: &str, depmod: &Path) -> Result<()> {
    if tree.is_indexed() {
        return Ok(());
    }
    match Cmd::new(depmod).arg("-b").arg(base).arg(version).run() {
        Err(e) if e.code() == Code::MissingProgram => Ok(fs::write(tree.dep_path(), tree.to_dep())?),
        done => done,
    }
}

fn write_initrd(path: &Path, agent: &Path, modules: &[initrd::Module]) -> Result<Digest> {
    let dynamic = Elf::parse(&fs::File::from_parts(plain::named(agent)?, agent), "the guest agent")?.is_dynamic()?;
    if dynamic {
        let message = format!("the guest agent {} is linked dynamically, and an initrd has no loader", agent.display());
        return Err(Error::new(Code::BadInput, message).hint("make build"));
    }
    let mut out = Hashing::new(BufWriter::with_capacity(1 << 20, fs::File::create_new(path)?));
    initrd::write_base(&mut out, agent, modules)?;
    let (mut out, digest, _) = out.finish();
    out.flush()?;
    Ok(digest)
}
