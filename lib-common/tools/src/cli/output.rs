//! What goes to stdout and stderr: documents held back until the end, and the `Error` document.

use super::{Answer, Context, closed};
use lib_common::doc::{Check, Document, ErrorDoc, Report, to_json};
use lib_common::error::{Code, Error, Result, printable};
use std::io::Write;

impl Context<'_> {
    /// Puts the stages of this run into the document and holds it for stdout.
    pub fn emit(&mut self, mut doc: Document) -> Result<()> {
        doc.append_timings(&self.stages.take())?;
        self.emit_line(&doc.to_line());
        Ok(())
    }

    /// Holds a report with the stages of this run for stdout, and gives the answer that it is.
    pub fn report(&mut self, subject: String, checks: Vec<Check>) -> Result<Answer> {
        let mut report = Report::new(subject, checks);
        report.timings = self.stages.take();
        self.emit_line(&to_json(&report));
        Ok(if report.ok { Answer::Done } else { Answer::No })
    }

    /// Holds one line of JSON for stdout.
    pub fn emit_line(&mut self, line: &str) {
        self.held.extend_from_slice(line.as_bytes());
        self.held.push(b'\n');
    }

    /// Holds text for people, such as a table, for stdout.
    pub fn emit_text(&mut self, text: &str) {
        self.held.extend_from_slice(text.as_bytes());
    }

    /// Writes what is held now, before slow work whose failure does not take it back.
    pub fn flush(&mut self) -> Result<()> {
        let held = std::mem::take(&mut self.held);
        let held = if self.stdout_is_terminal { harmless(held) } else { held };
        self.stdout.write_all(&held).and_then(|()| self.stdout.flush()).map_err(|e| closed(&e))
    }

    /// Writes what is held and ends stdout, so that the next tool of a pipe begins: what follows is nobody's wait.
    pub fn hand_on(&mut self) -> Result<()> {
        self.flush()?;
        self.stdout = Box::new(std::io::sink());
        Ok(())
    }

    /// Stdout for what is no document: the console's log, a table.
    pub fn raw_stdout(&mut self) -> &mut dyn Write {
        &mut self.stdout
    }

    /// The process's own stdin and stdout as they are, for a relay of bytes. Nothing was read from the one, and
    /// nothing may be held for the other.
    pub fn standard_streams(&self) -> (std::io::Stdin, std::io::Stdout) {
        (std::io::stdin(), std::io::stdout())
    }

    /// A remark on stderr, with the tool's name; it is not an error.
    pub fn remark(&mut self, text: &str) {
        let _ = writeln!(self.stderr, "{}: {}", self.tool, printable(text));
    }

    /// A line that a guest has printed, on stderr. Progress makes way for it.
    pub fn guest_line(&mut self, line: &str) {
        let stderr = &mut self.stderr;
        self.stages.aside(|| {
            let _ = writeln!(stderr, "{}", shown(line));
        });
    }
}

/// Documents and tables for a terminal: JSON may have the control characters from U+007F on as they are, and some steer
/// one. Escaped as JSON does, a document stays what it is.
fn harmless(held: Vec<u8>) -> Vec<u8> {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    match String::from_utf8(held) {
        Ok(text) if text.contains(steers) => {
            let escaped = |c: char| if steers(c) { format!("\\u{:04x}", u32::from(c)) } else { c.into() };
            text.chars().map(escaped).collect::<String>().into_bytes()
        }
        Ok(text) => text.into_bytes(),
        Err(e) => e.into_bytes(),
    }
}

/// The process's stdout; dropped, it is closed for whoever reads it.
pub(super) struct ProcessStdout;

impl Write for ProcessStdout {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        std::io::stdout().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stdout().flush()
    }
}

impl Drop for ProcessStdout {
    fn drop(&mut self) {
        // Descriptor 1 stays taken, so that no file that is opened later becomes it.
        if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
            let _ = nix::unistd::dup2_stdout(null);
        }
    }
}

/// A line of somebody else's output, safe on a terminal, where a tab is one.
fn shown(line: &str) -> String {
    line.split('\t').map(printable).collect::<Vec<_>>().join("\t")
}

/// Prints an error and gives its exit status. Silent for an empty stdin: the tool upstream has said why.
pub fn report(tool: &str, error: &Error, stderr: &mut dyn Write, terminal: bool) -> u8 {
    let exit = error.code().exit();
    if error.code() == Code::EmptyStdin {
        return exit;
    }
    // A stderr that nobody reads leaves the exit status to speak.
    let _ = if terminal {
        write_for_people(tool, error, stderr)
    } else {
        writeln!(stderr, "{}", to_json(&ErrorDoc::new(tool, error)))
    };
    exit
}

fn write_for_people(tool: &str, error: &Error, stderr: &mut dyn Write) -> std::io::Result<()> {
    writeln!(stderr, "{tool}: error: {}", printable(error.message()))?;
    for cause in error.causes() {
        writeln!(stderr, "  caused by: {}", printable(cause))?;
    }
    match error.get_hint() {
        Some(hint) => writeln!(stderr, "  hint: {}", printable(hint)),
        None => Ok(()),
    }
}
