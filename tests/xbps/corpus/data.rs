//! The corpus, unpacked once for all tests, and the deliberate differences, which are read from docs/void.md.

use lib_common::digest::of_bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where the corpus is.
pub fn dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let packed =
            std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/xbps/corpus/corpus.tar.zst")).unwrap();
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let to = tmp.join(format!("corpus-{}", &of_bytes(&packed).hex()[..16]));
        if !to.exists() {
            let staged = tempfile::Builder::new().prefix(".corpus-").tempdir_in(tmp).unwrap();
            let mut decoder = zstd::Decoder::new(&packed[..]).unwrap();
            decoder.window_log_max(27).unwrap();
            tar::Archive::new(decoder).unpack(staged.path()).unwrap();
            // Another test run may have been faster.
            let _ = std::fs::rename(staged.path(), &to);
        }
        to.join("xbps-corpus")
    })
}

/// The lines of a table, each split at its tabs.
pub fn table(name: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(dir().join(name)).unwrap();
    let rows = text.strip_suffix('\n').unwrap_or(&text).split('\n');
    rows.map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// All scenarios.
pub fn scenarios() -> Vec<Value> {
    let text = std::fs::read_to_string(dir().join("scenarios.json")).unwrap();
    let mut all: Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(all["scenarios"].take()).unwrap()
}

/// What banger does where it differs from the real tools on purpose, by scenario or archive: the second column of the table
/// in docs/void.md.
pub fn differences() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/void.md")).unwrap();
    let (_, table) = text.split_once("## Where banger differs from xbps on purpose").expect("the table's section");
    let mut all = BTreeMap::new();
    let section = table.split("\n## ").next().unwrap();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 3, "{row}");
        for id in cells[0].split(", ") {
            let id = id.trim_matches('`').to_owned();
            assert!(all.insert(id.clone(), cells[1].to_owned()).is_none(), "{id} is there twice");
        }
    }
    assert!(!all.is_empty());
    all
}
