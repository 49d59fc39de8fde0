//! What an image build is to do, read and digested before anything is begun: a [`Plan`] made from a [`Recipe`]. Starts
//! nothing and writes nothing; `ops` carries it out.

pub mod copy;
pub mod modules;

use super::distro::{self, Distro, Packages};
use crate::digest;
use crate::disk::ext4;
use crate::doc::{BuildStepKind, Digest, Kernel, Rootfs};
use crate::error::{Code, Error, Result};
use crate::size::bytes;
use crate::sys::plain;
use copy::Copy;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Changes whenever the same recipe would give another image.
const FORMAT: u32 = 1;

/// The largest script that is read, in bytes: it passes through memory, here and in the guest's `/run`.
const MAX_SCRIPT: u64 = 8 << 20;

/// One thing to do, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A value of `--packages`.
    Packages(String),
    /// A value of `--copy`, `SRC:DST`.
    Copy(std::ffi::OsString),
    /// A script to run.
    Run(PathBuf),
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// In the order in which they are done.
    pub steps: Vec<Step>,
    /// The new size in bytes; the base's own where there is none.
    pub size: Option<u64>,
    /// Whether the kernel's modules go into the image, before the first step.
    pub modules: bool,
    /// Whether the user gets a shell after the last step, and is asked whether it is to be an image.
    pub shell: bool,
}

/// What is to be done, with everything that decides the result.
#[derive(Debug)]
pub struct Plan {
    /// Whose package manager and traces.
    pub distro: &'static dyn Distro,
    /// In order.
    pub steps: Vec<Planned>,
    /// The root file system's size in bytes.
    pub size: u64,
    /// Whether the user does something at the end. Nobody knows beforehand what comes of it.
    pub shell: bool,
    /// The same for equal input.
    pub key: Digest,
}

/// A step that is ready to be done.
#[derive(Debug)]
pub struct Planned {
    /// As it was asked for, for people.
    pub what: String,
    /// What to do.
    pub work: Work,
}

/// What a step does.
#[derive(Debug)]
pub enum Work {
    /// Install the kernel's modules from the second disk.
    Modules,
    /// Install packages.
    Packages(Packages),
    /// Copy files.
    Copy(Copy),
    /// Run a program, given by its bytes.
    Run(Vec<u8>),
}

impl Work {
    /// In the document.
    pub fn kind(&self) -> BuildStepKind {
        match self {
            Work::Modules => BuildStepKind::Modules,
            Work::Packages(_) => BuildStepKind::Packages,
            Work::Copy(_) => BuildStepKind::Copy,
            Work::Run(_) => BuildStepKind::Run,
        }
    }
}

impl Plan {
    /// Reads lists, scripts and the files to copy.
    ///
    /// Errors: [`Code::BadValue`] for what cannot be done, [`Code::MissingFile`], [`Code::BadDocument`] for a base that
    /// cannot be built on.
    pub fn of(recipe: &Recipe, rootfs: &Rootfs, kernel: &Kernel) -> Result<Self> {
        let distro = distro::of(rootfs)?;
        let size = size(recipe.size, rootfs)?;
        let mut steps = vec![];
        if recipe.modules {
            let none = || Error::new(Code::BadValue, "the kernel has no module tree to install");
            let tree = kernel.modules.as_ref().ok_or_else(none)?;
            steps.push(Planned { what: tree.to_string(), work: Work::Modules });
        }
        for step in &recipe.steps {
            steps.push(planned(step, distro)?);
        }
        let mut text = key_text(&steps, size, (rootfs, kernel));
        if recipe.shell {
            text += "shell\n";
        }
        Ok(Plan { distro, steps, size, shell: recipe.shell, key: digest::of_bytes(text.as_bytes()) })
    }

    /// Every package that was asked for, sorted.
    pub fn packages(&self) -> Vec<String> {
        let names = self.steps.iter().filter_map(|step| match &step.work {
            Work::Packages(packages) => Some(packages.names.iter().cloned()),
            _ => None,
        });
        names.flatten().collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    /// Whether the guest needs the package proxy.
    pub fn has_packages(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.work, Work::Packages(_)))
    }

    /// Whether the guest needs the disk of modules.
    pub fn has_modules(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.work, Work::Modules))
    }
}

fn size(asked: Option<u64>, rootfs: &Rootfs) -> Result<u64> {
    let own = rootfs.size_bytes;
    match asked {
        None => Ok(own),
        Some(size) if size < own => {
            let (own, size) = (bytes(own), bytes(size));
            let message = format!("the base has {own}, and an image of it cannot have {size}");
            Err(Error::new(Code::BadValue, message).hint("leave --size out to take the base's own"))
        }
        Some(size) => ext4::check_size(size).map(|()| size),
    }
}

fn planned(step: &Step, distro: &dyn Distro) -> Result<Planned> {
    Ok(match step {
        Step::Packages(value) => {
            Planned { what: value.clone(), work: Work::Packages(distro::packages(distro, value)?) }
        }
        Step::Copy(value) => {
            Planned { what: value.to_string_lossy().into_owned(), work: Work::Copy(Copy::parse(value)?) }
        }
        Step::Run(file) => Planned { what: file.display().to_string(), work: Work::Run(script(file)?) },
    })
}

fn script(path: &Path) -> Result<Vec<u8>> {
    let file = plain::named(path)?;
    let mut bytes = vec![];
    file.take(MAX_SCRIPT + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, &e))?;
    match bytes.len() as u64 {
        0 => Err(Error::new(Code::BadValue, format!("the script {} is empty", path.display()))),
        1..=MAX_SCRIPT => Ok(bytes),
        _ => {
            let limit = crate::size::bytes(MAX_SCRIPT);
            Err(Error::new(Code::BadValue, format!("the script {} is larger than {limit}", path.display()))
                .hint("copy what is large with --copy"))
        }
    }
}

fn missing(path: &Path, e: &std::io::Error) -> Error {
    match e.kind() {
        std::io::ErrorKind::NotFound => Error::io("read", path, e).with_code(Code::MissingFile),
        _ => Error::io("read", path, e),
    }
}

/// A line for everything that decides the result. The initrd has the agent in it.
fn key_text(steps: &[Planned], size: u64, (rootfs, kernel): (&Rootfs, &Kernel)) -> String {
    let digest_of = |what: &str| kernel.digests.get(what).map_or("none", Digest::as_str);
    let mut text = format!("banger image {FORMAT}\nbase {}\nsize {size}\n", rootfs.digest);
    let _ = writeln!(text, "agent {}", digest_of("initrd"));
    for step in steps {
        match &step.work {
            Work::Modules => {
                let _ = writeln!(text, "modules {} {}", kernel.version.escape_debug(), digest_of("modules"));
            }
            Work::Packages(packages) => {
                text += "packages";
                packages.names.iter().for_each(|name| text += &format!(" {name}"));
                packages.links.iter().for_each(|link| text += &format!(" {}->{}", link.path, link.target));
                text.push('\n');
            }
            Work::Copy(copy) => {
                let _ = writeln!(text, "copy {}", copy.digest());
            }
            Work::Run(bytes) => {
                let _ = writeln!(text, "run {}", digest::of_bytes(bytes));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests;
