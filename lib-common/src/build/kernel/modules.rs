//! Kernel modules: which of a tree are needed to reach the root disk, and in what order they load. Owns modules.dep and
//! `.modinfo`; starts nothing.
//!
//! Sources: modules.dep(5), depmod(8), modules.builtin in the kernel's Documentation/kbuild/kbuild.rst; MODULE_INFO in
//! include/linux/module.h.

use super::elf::Elf;
use super::initrd::Module;
use super::unpack;
use crate::error::{Code, Context, Error, Result};
use crate::sys::dirs::walk;
use crate::sys::plain;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read};
use std::path::{Component, Path, PathBuf};

/// What a guest cannot do without before its root disk is mounted: that disk and its file system, the network card,
/// vsock for the agent, and randomness for its SSH.
pub const NEEDED: &[&str] = &[
    "virtio",
    "virtio_ring",
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vmw_vsock_virtio_transport",
    "virtio_rng",
    "ext4",
];

/// What ext4 asks for by an alias and not as a dependency; newer kernels do not have it as a module.
const WITH_EXT4: &str = "crc32c_generic";

/// The largest module, unpacked, and the largest index file, in bytes.
const MAX_FILE: u64 = 64 << 20;
/// The longest chain of dependencies; real ones have fewer than ten links.
const MAX_DEPTH: usize = 64;

/// The modules below `…/lib/modules/VERSION`, by their names with `_` for `-`, as the kernel has them.
#[derive(Debug, Default)]
pub struct Tree {
    root: PathBuf,
    modules: BTreeMap<String, Entry>,
    builtin: BTreeSet<String>,
}

#[derive(Debug)]
struct Entry {
    /// Below the root.
    path: String,
    depends: Vec<String>,
}

impl Tree {
    /// Reads modules.dep, or every module's own dependencies where there is none, and modules.builtin.
    ///
    /// Errors: [`Code::BadInput`] for what is damaged, I/O errors.
    pub fn open(root: &Path) -> Result<Self> {
        let mut tree = Tree { root: root.to_owned(), ..Tree::default() };
        tree.builtin = builtin(root)?.unwrap_or_default();
        match read_index(&tree.dep_path())? {
            Some(text) => tree.parse_dep(&text)?,
            None => tree.scan()?,
        }
        Ok(tree)
    }

    /// Where its modules.dep is, or would be.
    pub fn dep_path(&self) -> PathBuf {
        self.root.join("modules.dep")
    }

    /// Whether it has a modules.dep.
    pub fn is_indexed(&self) -> bool {
        self.dep_path().is_file()
    }

    /// The paths (below the root) of `wanted` and what they depend on: each once, and after its dependencies. What is
    /// built in needs no loading.
    ///
    /// Errors: [`Code::BadInput`] that names a module which is neither there nor built in.
    pub fn load_order(&self, wanted: &[&str]) -> Result<Vec<&str>> {
        let mut order = vec![];
        for name in wanted {
            self.visit(&normal(name), &mut order, &mut vec![])?;
        }
        Ok(order)
    }

    /// The modules of [`NEEDED`] in load order, unpacked, for a kernel of release `version`.
    ///
    /// Errors: those of [`Tree::load_order`], and [`Code::BadInput`] for a module that is damaged or made for another
    /// kernel (which would refuse it).
    pub fn for_initrd(&self, version: &str) -> Result<Vec<Module>> {
        let mut wanted = NEEDED.to_vec();
        if self.modules.contains_key("ext4") && self.modules.contains_key(WITH_EXT4) {
            wanted.insert(0, WITH_EXT4);
        }
        let read = |path: &str| {
            let bytes = read_module(&self.root.join(path))?;
            let made_for = Info::read(&bytes).context(format!("{path} is not a module"))?.release;
            if made_for != version {
                return Err(bad(format!("{path} is made for kernel `{made_for}`, and this one is `{version}`")));
            }
            let (stem, _) = module_stem(path).unwrap_or((path, ""));
            Ok(Module { file: format!("{stem}.ko"), bytes })
        };
        self.load_order(&wanted)?.into_iter().map(read).collect()
    }

    /// A modules.dep for the tree: `PATH: PATHS`, in each line what has to be loaded first comes last.
    pub fn to_dep(&self) -> String {
        let mut lines = vec![];
        for (name, entry) in &self.modules {
            let mut order = vec![];
            // What is missing its dependencies gets none, as by depmod: it can not be loaded, and the rest can.
            let _ = self.visit(name, &mut order, &mut vec![]);
            let first: String = order.iter().rev().filter(|p| **p != entry.path).map(|p| format!(" {p}")).collect();
            lines.push(format!("{}:{first}\n", entry.path));
        }
        lines.sort_unstable();
        lines.concat()
    }

    fn visit<'t>(&'t self, name: &str, order: &mut Vec<&'t str>, above: &mut Vec<String>) -> Result<()> {
        let Some(entry) = self.modules.get(name) else {
            if self.builtin.contains(name) {
                return Ok(());
            }
            let message = match above.last() {
                Some(parent) => format!("the module `{parent}` needs `{name}`, which is not there and not built in"),
                None => format!("the kernel has no module `{name}`, and does not have it built in"),
            };
            return Err(bad(message).hint("Debian's linux-image-cloud-amd64 has what a guest needs"));
        };
        if order.contains(&entry.path.as_str()) {
            return Ok(());
        }
        if above.iter().any(|a| a == name) || above.len() >= MAX_DEPTH {
            return Err(bad(format!("the module `{name}` depends on itself: {}", above.join(", "))));
        }
        above.push(name.to_owned());
        for dependency in &entry.depends {
            self.visit(dependency, order, above)?;
        }
        above.pop();
        order.push(&entry.path);
        Ok(())
    }

    fn parse_dep(&mut self, text: &str) -> Result<()> {
        for line in text.lines().filter(|l| !l.trim_start().starts_with('#') && !l.trim().is_empty()) {
            let Some((path, depends)) = line.split_once(':') else {
                return Err(bad(format!("modules.dep has the line `{}` without a colon", line.escape_debug())));
            };
            let inside = |c: Component<'_>| matches!(c, Component::Normal(_));
            if !Path::new(path).components().all(inside) {
                return Err(bad(format!("modules.dep names `{}`, which is outside of the tree", path.escape_debug())));
            }
            let depends = depends.split_whitespace().map(module_name).collect();
            self.modules.insert(module_name(path), Entry { path: path.to_owned(), depends });
        }
        Ok(())
    }

    fn scan(&mut self) -> Result<()> {
        for file in walk(&self.root, true)? {
            let relative = file.path().strip_prefix(&self.root).ok().and_then(Path::to_str);
            let Some(relative) = relative.filter(|p| file.file_type().is_file() && module_stem(p).is_some()) else {
                continue;
            };
            crate::sys::signal::check()?;
            let name = module_name(relative);
            // updates/ is where a replacement goes; else the first of two stays.
            if self.modules.contains_key(&name) && !relative.starts_with("updates/") {
                continue;
            }
            let bytes = read_module(file.path())?;
            let info = Info::read(&bytes).context(format!("{relative} is not a module"))?;
            self.modules.insert(name, Entry { path: relative.to_owned(), depends: info.depends });
        }
        Ok(())
    }
}

/// What the kernel of the tree `root` has built in, by modules.builtin; `None` where there is no such file.
pub fn builtin(root: &Path) -> Result<Option<BTreeSet<String>>> {
    let text = read_index(&root.join("modules.builtin"))?;
    Ok(text.map(|text| text.lines().map(|line| module_name(line.trim())).collect()))
}

/// What a module says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The release of the kernel that it is made for (`vermagic`); empty where it does not say it.
    pub release: String,
    /// The modules that have to be loaded first, by their names with `_` for `-`.
    pub depends: Vec<String>,
}

impl Info {
    /// From an unpacked module.
    ///
    /// Errors: [`Code::BadInput`] for what is no module.
    pub fn read(module: &[u8]) -> Result<Self> {
        let info = modinfo(module)?;
        let value = |key: &str| info.get(key).map(String::as_str).unwrap_or_default();
        Ok(Info {
            release: value("vermagic").split(' ').next().unwrap_or_default().to_owned(),
            depends: value("depends").split(',').filter(|d| !d.is_empty()).map(normal).collect(),
        })
    }
}

/// The index file, or `None` where there is none.
fn read_index(path: &Path) -> Result<Option<String>> {
    let file = match plain::named(path) {
        Ok(file) => file,
        Err(e) if e.code() == Code::MissingFile => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = vec![];
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(bad(format!("{} has more than {}", path.display(), crate::size::bytes(MAX_FILE))));
    }
    let text = String::from_utf8(bytes).map_err(|e| bad(format!("{} is not text", path.display())).because(&e))?;
    Ok(Some(text))
}

/// A module's ELF, unpacked if it is `.ko.gz`, `.ko.xz` or `.ko.zst`.
fn read_module(path: &Path) -> Result<Vec<u8>> {
    let file = plain::named(path)?;
    let mut bytes = vec![];
    let packed = module_stem(&path.to_string_lossy()).is_some_and(|(_, suffix)| !suffix.is_empty());
    if packed {
        let unpacked = unpack::unpack(&mut BufReader::new(file), &mut bytes, MAX_FILE);
        unpacked.context(format!("cannot unpack the module {}", path.display()))?;
    } else {
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > MAX_FILE {
        return Err(bad(format!("the module {} has more than {}", path.display(), crate::size::bytes(MAX_FILE))));
    }
    Ok(bytes)
}

/// The `key=value` strings of `.modinfo`; of a key twice (`alias`) the last.
fn modinfo(module: &[u8]) -> Result<BTreeMap<String, String>> {
    let Some(section) = Elf::parse(module, "the module")?.section(".modinfo")? else {
        return Err(bad("it has no section .modinfo"));
    };
    let pairs = section.split(|b| *b == 0).filter_map(|entry| {
        let (key, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
        Some((key.to_owned(), value.to_owned()))
    });
    Ok(pairs.collect())
}

/// The file name before `.ko`, and what comes after it (``, `.xz`); `None` for what is no module.
fn module_stem(path: &str) -> Option<(&str, &str)> {
    let file = path.rsplit('/').next().unwrap_or(path);
    ["", ".gz", ".xz", ".zst"].into_iter().find_map(|suffix| {
        let stem = file.strip_suffix(suffix)?.strip_suffix(".ko")?;
        Some((stem, suffix))
    })
}

/// The name of the module in the file `path`, as the kernel has it.
pub fn module_name(path: &str) -> String {
    normal(module_stem(path).map_or(path, |(stem, _)| stem))
}

/// The kernel knows `virtio-rng.ko` as `virtio_rng`.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(Code::BadInput, message)
}

/// A tree for the tests of this directory.
#[cfg(test)]
pub(super) mod testing {
    use super::super::elf::testing::module;
    use super::super::unpack::{Format, testing::pack};
    use super::*;
    use fs_err as fs;

    /// `(path, depends)`; a packed one by its suffix. With modules.builtin, without modules.dep.
    pub(in super::super) fn tree(root: &Path, version: &str, modules: &[(&str, &str)], builtin: &[&str]) {
        for (path, depends) in modules {
            let elf = module(&[&format!("depends={depends}"), &format!("vermagic={version} SMP preempt")]);
            let bytes = match module_stem(path).unwrap().1 {
                ".gz" => pack(Format::Gzip, &elf),
                ".xz" => pack(Format::Xz, &elf),
                ".zst" => pack(Format::Zstd, &elf),
                _ => elf,
            };
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        fs::write(root.join("modules.builtin"), builtin.iter().map(|b| format!("{b}\n")).collect::<String>()).unwrap();
    }

    /// What Debian's cloud kernel has, packed in all ways.
    pub(in super::super) const DEBIAN: &[(&str, &str)] = &[
        ("kernel/virtio/virtio_mmio.ko", "virtio_ring,virtio"),
        ("kernel/virtio/virtio.ko.gz", ""),
        ("kernel/virtio/virtio_ring.ko.xz", ""),
        ("kernel/block/virtio_blk.ko.zst", "virtio,virtio_ring"),
        ("kernel/net/virtio_net.ko", "virtio_ring,virtio,net_failover"),
        ("kernel/net/net_failover.ko", "failover"),
        ("kernel/net/failover.ko", ""),
        ("kernel/vsock/vsock.ko", ""),
        ("kernel/vsock/vmw_vsock_virtio_transport.ko", "vmw_vsock_virtio_transport_common,virtio_ring,virtio,vsock"),
        ("kernel/vsock/vmw_vsock_virtio_transport_common.ko", "vsock"),
        ("kernel/char/virtio-rng.ko", "virtio,virtio_ring"),
        ("kernel/fs/fuse.ko", ""),
    ];
}

#[cfg(test)]
mod tests;
