//! The project's own files: sources, manual pages, Cargo.toml, for the tests that read them.

use std::path::{Path, PathBuf};

/// A file of the project.
pub fn root(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(below)
}

/// Its text.
pub fn text(below: &str) -> String {
    let path = root(below);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every file of text below a directory whose name ends with `suffix`: its path in the project, and its text. Packed data is
/// no text.
pub fn files(below: &str, suffix: &str) -> Vec<(String, String)> {
    let mut found = vec![];
    for path in super::children(&root(below)) {
        let name = path.strip_prefix(root("")).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(files(&name, suffix));
        } else if name.ends_with(suffix) && !name.ends_with(".zst") {
            let text = text(&name);
            found.push((name, text));
        }
    }
    found
}

/// The names in a directory, sorted.
pub fn children_of(below: &str) -> Vec<String> {
    let paths = super::children(&root(below)).into_iter();
    paths.map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

/// The names of the programs that Cargo.toml installs.
pub fn bins() -> Vec<String> {
    let manifest = text("Cargo.toml");
    let sections = manifest.split("[[bin]]").skip(1);
    let name =
        |section: &str| section.lines().find_map(|l| l.strip_prefix("name = ")).unwrap().trim_matches('"').to_owned();
    let mut names: Vec<String> = sections.map(name).collect();
    names.sort();
    names
}
