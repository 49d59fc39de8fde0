//! The stand-in's own lines, as the real one writes them: to the log once it knows one, and before that to stdout, which is the
//! guest's console.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// O_NONBLOCK on Linux, x86-64 and arm64.
const NONBLOCK: i32 = 0o4000;

/// What may be said, from the least on.
const LEVELS: [&str; 6] = ["OFF", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

/// Where lines go.
#[derive(Clone)]
pub struct Log {
    pub id: String,
    path: Option<PathBuf>,
    level: usize,
    show_level: bool,
}

impl Log {
    /// To stdout, from `Info` on.
    pub fn new(id: &str) -> Self {
        Log { id: id.to_owned(), path: None, level: 3, show_level: false }
    }

    /// To a file or named pipe, which is made where it is missing.
    pub fn open(&mut self, path: &Path) -> Result<(), String> {
        open(path).map_err(|e| format!("Failed to open target file {}: {e}", path.display()))?;
        self.path = Some(path.to_owned());
        Ok(())
    }

    /// Sets what is said, by a word in whatever case.
    pub fn set_level(&mut self, word: &str) -> Result<(), String> {
        let word = word.to_ascii_uppercase();
        let name = if word == "WARNING" { "WARN" } else { word.as_str() };
        self.level = LEVELS.iter().position(|l| *l == name).ok_or_else(|| format!("the log level `{word}`"))?;
        Ok(())
    }

    /// Has each line say its level.
    pub fn show_level(&mut self, show: bool) {
        self.show_level = show;
    }

    pub fn info(&self, text: &str) {
        self.say(3, text);
    }

    pub fn warn(&self, text: &str) {
        self.say(2, text);
    }

    pub fn error(&self, text: &str) {
        self.say(1, text);
    }

    fn say(&self, level: usize, text: &str) {
        if level > self.level {
            return;
        }
        let shown = if self.show_level { format!(":{}", LEVELS[level]) } else { String::new() };
        let line = format!("2026-01-01T00:00:00.000000000 [{}:main{shown}] {text}\n", self.id);
        match &self.path {
            Some(path) => write_to(path, &line),
            None => print!("{line}"),
        }
    }
}

/// Writes to a file or named pipe; one that nobody reads keeps nobody waiting.
pub fn write_to(path: &Path, text: &str) {
    let _ = open(path).and_then(|mut file| file.write_all(text.as_bytes()));
}

/// Opens a file or named pipe to write to, and makes a file that is missing.
pub fn open(path: &Path) -> std::io::Result<std::fs::File> {
    // To read, too: a named pipe opens so though nobody reads it.
    OpenOptions::new().read(true).append(true).create(true).custom_flags(NONBLOCK).open(path)
}
