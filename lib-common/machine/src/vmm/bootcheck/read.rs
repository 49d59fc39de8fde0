//! The facts of a boot check, from files: of the kernel its header, notes and banner, of the initrd the headers of its
//! entries, the list of modules and the modules.

use lib_common::doc::{MODULES_DIR, MODULES_LIST};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::plain;
use lib_image::build::kernel::elf::{Elf, ReadAt};
use lib_image::build::kernel::modules::{Info, module_name};
use lib_image::build::kernel::{archive, bzimage};
use std::path::Path;

/// No module and no list of modules is larger, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// What is known of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Why it is no kernel that a VMM can start, in words.
    pub wrong: Option<String>,
    /// Whether it has the note that says where PVH enters it.
    pub pvh: bool,
    /// Its release, where it says it.
    pub release: Option<String>,
}

impl Kernel {
    /// Reads its header, its notes and the place where its release usually is.
    ///
    /// Errors: [`Code::MissingFile`], I/O errors. What is no kernel is in [`Kernel::wrong`].
    pub fn at_a_glance(path: &Path) -> Result<Self> {
        let file = open(path, "kernel")?;
        let found = Elf::parse(&file, "the kernel").and_then(|elf| {
            Ok(Kernel { wrong: None, pvh: elf.has_pvh_entry()?, release: bzimage::release_at_a_glance(&elf)? })
        });
        found.or_else(|e| Ok(Kernel { wrong: Some(answer(e)?), ..Kernel::default() }))
    }

    /// The same, and looks for its release in all of it.
    ///
    /// Errors: as [`Kernel::at_a_glance`].
    pub fn read(path: &Path) -> Result<Self> {
        let mut kernel = Kernel::at_a_glance(path)?;
        if kernel.release.is_none() && kernel.wrong.is_none() && kernel.pvh {
            kernel.release = bzimage::release_of(path)?;
        }
        Ok(kernel)
    }
}

/// A module that `/init` loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// As the kernel has it, with `_` for `-`.
    pub name: String,
    /// What it says of itself, or why it is no module.
    pub info: Result<Info, String>,
}

/// What is known of an initrd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Initrd {
    /// Why it is no base initrd, in words.
    pub wrong: Option<String>,
    /// Whether it has an `/init`.
    pub init: bool,
    /// What is loaded, in that order.
    pub modules: Vec<Loaded>,
    /// How long it is when the VMM gets it, in bytes, where that is known.
    pub length: Option<u64>,
}

impl Initrd {
    /// Reads its headers, its list of modules and the modules.
    ///
    /// Errors: [`Code::MissingFile`], I/O errors. What is no initrd is in [`Initrd::wrong`].
    pub fn read(path: &Path) -> Result<Self> {
        let file = open(path, "initrd")?;
        look_into(&file).or_else(|e| Ok(Initrd { wrong: Some(answer(e)?), ..Initrd::default() }))
    }
}

fn look_into(source: &impl ReadAt) -> Result<Initrd> {
    let entries = archive::entries(source)?;
    let content = |path: &str| {
        let name = path.trim_start_matches('/');
        let found = entries.iter().find(|entry| entry.name == name && entry.size <= MAX_FILE);
        found.map(|entry| entry.read(source)).transpose()
    };
    let list = content(MODULES_LIST)?.unwrap_or_default();
    let list = String::from_utf8_lossy(&list).into_owned();
    let files = list.lines().map(str::trim).filter(|file| !file.is_empty());
    let modules = files.map(|file| {
        let info = match content(&format!("{MODULES_DIR}/{file}"))? {
            None => Err("the list names it, and it is not there".to_owned()),
            Some(bytes) => match Info::read(&bytes) {
                Ok(info) => Ok(info),
                Err(e) => Err(answer(e)?),
            },
        };
        Ok(Loaded { name: module_name(file), info })
    });
    let modules = modules.collect::<Result<_>>()?;
    Ok(Initrd { wrong: None, init: entries.iter().any(|e| e.name == "init"), modules, length: None })
}

/// An error that says what the file is; any other stays one.
fn answer(e: Error) -> Result<String> {
    match e.code() {
        Code::BadInput => Ok(e.message().to_owned()),
        _ => Err(e),
    }
}

fn open(path: &Path, what: &str) -> Result<fs_err::File> {
    let opened = plain::named(path).map_err(|e| match e.code() {
        Code::MissingFile => Error::new(Code::MissingFile, format!("the {what} {} is not there", path.display()))
            .hint("`bg-image verify` says what the image lacks")
            .detail("path", path.display().to_string()),
        _ => e,
    })?;
    Ok(fs_err::File::from_parts(opened, path))
}
