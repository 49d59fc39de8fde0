//! A root file system as the corpus writes one down: a line a path, sorted by bytes.

#![allow(clippy::disallowed_types)]

use ext4_view::Ext4;
use lib_common::digest::of_bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Path to type, mode, owner, group, size, and digest or target.
pub type Tree = BTreeMap<String, Vec<String>>;

/// The tree in an ext4 file.
pub fn of_image(image: &Path) -> Tree {
    let fs = Ext4::load_from_path(image).unwrap();
    let mut all = Tree::new();
    walk(&fs, "", &mut all);
    all
}

fn walk(fs: &Ext4, dir: &str, all: &mut Tree) {
    let absolute = format!("/{dir}");
    for entry in fs.read_dir(absolute.as_str()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().as_str().unwrap().to_owned();
        let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
        if [".", ".."].contains(&name.as_str()) || path == "lost+found" {
            continue;
        }
        let at = format!("/{path}");
        let meta = fs.symlink_metadata(at.as_str()).unwrap();
        let none = || "-".to_owned();
        let (kind, size, content) = if meta.is_dir() {
            ("d", none(), none())
        } else if meta.is_symlink() {
            let target = fs.read_link(at.as_str()).unwrap();
            ("l", none(), escaped(std::str::from_utf8(target.as_ref()).unwrap()))
        } else {
            ("f", meta.len().to_string(), of_bytes(&fs.read(at.as_str()).unwrap()).hex().to_owned())
        };
        let mode = format!("{:04o}", meta.mode() & 0o7777);
        let columns = [kind.into(), mode, meta.uid().to_string(), meta.gid().to_string(), size, content];
        all.insert(escaped(&path), columns.to_vec());
        if meta.is_dir() {
            walk(fs, &path, all);
        }
    }
}

/// With the corpus' escapes.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c if u32::from(c) < 0x20 || c == '\x7f' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// A tree of the corpus, and the groups of paths that are one file.
pub fn of_corpus(file: &Path) -> (Tree, Vec<(String, String)>) {
    let text = std::fs::read_to_string(file).unwrap();
    let (mut all, mut same) = (Tree::new(), vec![]);
    for line in text.lines() {
        let columns: Vec<String> = line.split('\t').map(str::to_owned).collect();
        let [path, rest @ .., first] = &columns[..] else { panic!("{line}") };
        if first != "-" && first != path {
            same.push((first.clone(), path.clone()));
        }
        all.insert(path.clone(), rest.to_vec());
    }
    (all, same)
}

/// The number of a file's inode.
pub fn inode(image: &Path, path: &str) -> String {
    let request = format!("stat \"/{path}\"");
    let output = Command::new("debugfs").args(["-R", &request]).arg(image).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text.split("Inode: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    number.unwrap_or_else(|| panic!("{path}: {text}")).to_owned()
}
