//! What `/init` has to tell whoever asks for the guest's health: a file of lines each, which the agent reads.

use super::{console, files};
use lib_common::error::Result;

/// Lines of text, each without a line feed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What could not be done; the guest is degraded.
    pub problems: Vec<String>,
    /// What somebody should see to, though the guest is of full use.
    pub warnings: Vec<String>,
    /// What was done.
    pub notes: Vec<String>,
}

impl Told {
    /// Appends what another one tells.
    pub fn add(&mut self, other: Told) {
        self.problems.extend(other.problems);
        self.warnings.extend(other.warnings);
        self.notes.extend(other.notes);
    }

    /// Writes the files into the directory `dir`.
    pub fn save(&self, dir: &str) -> Result<()> {
        let all = [
            (crate::PROBLEMS_FILE, &self.problems),
            (crate::WARNINGS_FILE, &self.warnings),
            (crate::NOTES_FILE, &self.notes),
        ];
        all.into_iter().try_for_each(|(name, lines)| files::write_lines(&format!("{dir}/{name}"), lines))
    }

    /// Prints all of it on the console.
    pub fn say(&self) {
        for problem in &self.problems {
            console::say(&format!("banger-init: {problem}; booting on"));
        }
        for line in self.warnings.iter().chain(&self.notes) {
            console::say(&format!("banger-init: {line}"));
        }
    }
}
