//! `bg-image diff`: packages, kernels and sizes of two images.

use super::files::packages;
use crate::cli::table::{render, size};
use crate::cli::{Answer, Context, Source};
use lib_common::doc::{
    API_VERSION, Change, Document, ImageDiff, Kernel, Kind, ManifestEntry, Name, Rootfs, SizeDiff, to_json,
};
use lib_common::error::{Error, Result};
use lib_common::sys::fs::allocated_bytes;
use lib_image::build::manifest;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// One of the images: its name in the store, or a file with its document (what has a `/`).
#[derive(Clone, Debug)]
pub enum Operand {
    /// In the store.
    Name(Name),
    /// A document's file.
    File(PathBuf),
}

impl FromStr for Operand {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if text.contains('/') { Ok(Operand::File(text.into())) } else { Name::parse(text).map(Operand::Name) }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Name(name) => name.fmt(f),
            Operand::File(path) => path.display().fmt(f),
        }
    }
}

/// What `bg-image diff` takes.
#[derive(Clone, Debug)]
pub struct DiffArgs {
    /// The first image.
    pub a: Operand,
    /// The second.
    pub b: Operand,
    /// `Some(true)`: a table; `Some(false)`: the document; `None`: a table on a terminal.
    pub table: Option<bool>,
}

/// An image, as far as it is compared.
struct Side {
    rootfs: Rootfs,
    kernel: Kernel,
    packages: Vec<ManifestEntry>,
}

/// Prints an [`ImageDiff`]. As diff(1) answers: [`Answer::Done`] for the same packages and kernel, [`Answer::No`] where they
/// differ. Sizes alone are no difference.
///
/// # Errors
/// [`lib_common::Code::NotFound`], [`lib_common::Code::MissingFile`], [`lib_common::Code::DigestMismatch`] for a manifest that was changed.
pub fn diff(cx: &mut Context<'_>, args: &DiffArgs) -> Result<Answer> {
    let (a, b) = (side(cx, &args.a)?, side(cx, &args.b)?);
    cx.stages.begin("compare");
    let mut diff = ImageDiff {
        api_version: API_VERSION.into(),
        kind: "ImageDiff".into(),
        a: args.a.to_string(),
        b: args.b.to_string(),
        packages: manifest::diff(&a.packages, &b.packages),
        kernel: Change { from: a.kernel.version, to: b.kernel.version },
        sizes: SizeDiff {
            rootfs_bytes: Change { from: a.rootfs.size_bytes, to: b.rootfs.size_bytes },
            allocated_bytes: Change { from: allocated_bytes(&a.rootfs.path), to: allocated_bytes(&b.rootfs.path) },
        },
        timings: vec![],
    };
    let answer = if diff.packages.is_empty() && !diff.kernel.is_one() { Answer::Done } else { Answer::No };
    if args.table.unwrap_or(cx.stdout_is_terminal) {
        cx.emit_text(&table(&diff));
    } else {
        diff.timings = cx.stages.take();
        cx.emit_line(&to_json(&diff));
    }
    Ok(answer)
}

fn side(cx: &mut Context<'_>, operand: &Operand) -> Result<Side> {
    let source = match operand {
        Operand::Name(name) => Source { name: Some(name.clone()), file: None },
        Operand::File(path) => Source { name: None, file: Some(path.clone()) },
    };
    let doc: Document = cx.document(&source, Kind::Image)?;
    let rootfs: Rootfs = doc.require()?;
    Ok(Side { packages: packages(&rootfs)?, kernel: doc.require()?, rootfs })
}

/// Packages by name, `+` added, `-` removed, `~` changed; then what both have.
fn table(diff: &ImageDiff) -> String {
    let row = |mark: &str, name: &str, architecture: &str, from: &str, to: &str| {
        [mark, name, architecture, from, to].map(str::to_owned).to_vec()
    };
    let packages = &diff.packages;
    let mut rows: Vec<Vec<String>> = vec![];
    rows.extend(packages.added.iter().map(|p| row("+", &p.name, &p.architecture, "-", &p.version)));
    rows.extend(packages.removed.iter().map(|p| row("-", &p.name, &p.architecture, &p.version, "-")));
    rows.extend(packages.changed.iter().map(|p| row("~", &p.name, &p.architecture, &p.from, &p.to)));
    rows.sort_by(|a, b| a[1..].cmp(&b[1..]));
    let mut text = String::new();
    if !rows.is_empty() {
        text += &render(&["", "PACKAGE", "ARCHITECTURE", &diff.a, &diff.b], &rows);
        text.push('\n');
    }
    let mark = |differs: bool| if differs { "~" } else { "" };
    let bytes = |what: &str, change: &Change<u64>| {
        [mark(change.is_one()), what, &size(change.from), &size(change.to)].map(str::to_owned).to_vec()
    };
    let kernel = [mark(diff.kernel.is_one()), "kernel", &diff.kernel.from, &diff.kernel.to].map(str::to_owned).to_vec();
    let sizes = [bytes("size", &diff.sizes.rootfs_bytes), bytes("on the host", &diff.sizes.allocated_bytes)];
    text + &render(&["", "IMAGE", &diff.a, &diff.b], &[&[kernel][..], &sizes].concat())
}
