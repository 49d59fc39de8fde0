//! Where VMs are measured: a store of its own with one image, in the state directory or where `--dir` says, and gone again
//! with its VMs however measuring ends. Also how a tool is run there, and what of that is measured.

use lib_common::doc::{Document, ErrorDoc, Kind, Name, Timing, strict};
use lib_common::error::{Error, Failures, Result};
use lib_common::sys::cmd::{Cmd, Stream, Streams};
use lib_common::sys::{host, signal};
use lib_common::timing::millis;
use lib_machine::config::Config;
use lib_machine::net::give_back_all;
use lib_machine::store::{Staging, Store};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a tool may take to undo what it began, when a signal has come.
const UNDONE_WITHIN: Duration = Duration::from_secs(30);

/// The image whose record has no work seeds.
pub(super) const NO_SEED: &str = "no-seed";

/// The store. Dropped, it is removed.
pub(super) struct Place {
    /// The settings, with that store's directories.
    pub(super) config: Config,
    /// The image.
    pub(super) image: Name,
    home: Option<Home>,
    env: Vec<(&'static str, PathBuf)>,
    next: u32,
}

/// Its directory.
enum Home {
    /// In staging, with a lock and a journal: the audit knows it.
    Staged(Staging),
    /// Where the user said.
    Temp(tempfile::TempDir),
}

/// A tool that has done its work.
pub(super) struct Ran {
    /// Its stdout.
    pub(super) out: Vec<u8>,
    /// From its start to the end of its stdout: whatever is behind it in a pipe goes on then.
    pub(super) ms: f64,
    /// From its start to its own end.
    pub(super) exit_ms: f64,
    /// Its processor time.
    pub(super) cpu_s: f64,
}

impl Ran {
    /// Its one document.
    pub(super) fn machine(&self) -> Result<Document> {
        Document::parse(&self.out, Kind::Machine)
    }
}

impl Place {
    /// Makes the store and registers a copy of the image there.
    pub(super) fn make(config: &Config, image: &Name, dir: Option<&Path>) -> Result<Self> {
        let image_doc = Store::new(config, give_back_all).image(image)?;
        let home = match dir {
            Some(dir) => Home::Temp(tempfile::Builder::new().prefix("bg-bench-").tempdir_in(dir)?),
            None => Home::Staged(Store::new(config, give_back_all).stage("bench")?),
        };
        let mut config = config.clone();
        config.state_dir = match &home {
            Home::Staged(staging) => staging.path().to_owned(),
            Home::Temp(dir) => dir.path().to_owned(),
        };
        let env = vec![("BG_STATE_DIR", config.state_dir.clone()), ("BG_RUNTIME_DIR", config.runtime_dir.clone())];
        let place = Place { config, image: image.clone(), home: Some(home), env, next: 0 };
        place.register(&image_doc, image)?;
        Ok(place)
    }

    /// Registers the same image without its work seeds.
    pub(super) fn register_without_seed(&self) -> Result<Name> {
        let mut doc = self.store().image(&self.image)?;
        doc.remove("seed");
        let name = Name::parse(NO_SEED)?;
        self.register(&doc, &name)?;
        Ok(name)
    }

    /// Registers another image of the user's store.
    pub(super) fn register_another(&self, store: &Store, name: &Name) -> Result<()> {
        self.register(&store.image(name)?, name)
    }

    fn register(&self, doc: &Document, name: &Name) -> Result<()> {
        let mut child = self.tool("bg-register", &["--name", name.as_str()])?.spawn(piped())?;
        if let Some(mut stdin) = child.stdin() {
            stdin.write_all(doc.to_line().as_bytes())?;
        }
        finish(child, Instant::now(), &[0]).map(drop)
    }

    /// Where tools see another file or directory than usual: that variable for all of them.
    pub(super) fn set(&mut self, variable: &'static str, path: PathBuf) {
        self.env.push((variable, path));
    }

    pub(super) fn store(&self) -> Store {
        Store::new(&self.config, give_back_all)
    }

    pub(super) fn path(&self) -> &Path {
        &self.config.state_dir
    }

    /// A name that no VM here had.
    pub(super) fn new_name(&mut self) -> Result<Name> {
        self.next += 1;
        Name::parse(&format!("bench-{}", self.next))
    }

    /// A tool of the suite, which works on this store.
    pub(super) fn tool(&self, tool: &str, args: &[&str]) -> Result<Cmd> {
        let cmd = Cmd::new(self.config.tool(tool)?).args(args).grace(UNDONE_WITHIN).stderr_tail(16 << 10);
        Ok(self.env.iter().fold(cmd, |cmd, (variable, path)| cmd.env(variable, path)))
    }

    /// Runs it to its end.
    pub(super) fn run(&self, tool: &str, args: &[&str]) -> Result<Ran> {
        self.feed(tool, args, b"")
    }

    /// The same with bytes on its stdin.
    pub(super) fn feed(&self, tool: &str, args: &[&str], stdin: &[u8]) -> Result<Ran> {
        measured(&self.tool(tool, args)?, stdin)
    }

    /// Runs `bg-verify`, which says no where there are leaks, be they of this store or not.
    pub(super) fn verify(&self) -> Result<Ran> {
        run(&self.tool("bg-verify", &[])?, b"", &[0, 1])
    }

    /// `bg-vm rm --force` of all that there are.
    pub(super) fn remove_all(&self) -> Result<()> {
        let names = self.store().machine_names()?;
        let names: Vec<&str> = names.iter().map(Name::as_str).collect();
        if names.is_empty() {
            return Ok(());
        }
        self.run("bg-vm", &[&["rm", "--force"], &names[..]].concat()).map(drop)
    }

    /// Removes it with its VMs, whatever signal has come.
    pub(super) fn clear(mut self) -> Result<()> {
        self.remove()
    }

    fn remove(&mut self) -> Result<()> {
        let Some(home) = self.home.take() else { return Ok(()) };
        let _shield = signal::shield();
        let mut failures = Failures::default();
        if let Err(e) = self.remove_all() {
            failures.add(e);
        }
        match home {
            // Its journal removes it.
            Home::Staged(staging) => drop(staging),
            Home::Temp(dir) => {
                if let Err(e) = dir.close() {
                    failures.add(e.into());
                }
            }
        }
        failures.result()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Something else has failed, and that is what will be told.
        let _ = self.remove();
    }
}

fn piped() -> Streams {
    Streams { stdin: Stream::Pipe, stdout: Stream::Pipe, stderr: Stream::Pipe }
}

/// Runs a program to its end. What it says as its `Error` document is the error.
pub(super) fn measured(cmd: &Cmd, stdin: &[u8]) -> Result<Ran> {
    run(cmd, stdin, &[0])
}

/// The same, where it may exit with each of these.
fn run(cmd: &Cmd, stdin: &[u8], answers: &[i32]) -> Result<Ran> {
    signal::check()?;
    let begun = Instant::now();
    let mut child = cmd.spawn(piped())?;
    if let Some(mut pipe) = child.stdin() {
        // Who reads nothing closes it.
        let _ = pipe.write_all(stdin);
    }
    finish(child, begun, answers)
}

fn finish(mut child: lib_common::sys::cmd::Child, begun: Instant, answers: &[i32]) -> Result<Ran> {
    let cpu_before = host::children_cpu_s()?;
    let mut out = vec![];
    if let Some(mut stdout) = child.stdout()? {
        let read = stdout.read_to_end(&mut out);
        signal::check()?;
        read?;
    }
    let ms = millis(begun.elapsed());
    let status = child.wait()?;
    let exit_ms = millis(begun.elapsed());
    if !status.code().is_some_and(|code| answers.contains(&code)) {
        return Err(told(child.failure(status)));
    }
    Ok(Ran { out, ms, exit_ms, cpu_s: host::children_cpu_s()? - cpu_before })
}

/// The error that a tool of the suite has told, or else that it failed.
fn told(failed: Error) -> Error {
    let last = failed.get_child().and_then(|child| child.stderr.lines().last().map(str::to_owned));
    match last.and_then(|line| strict::<ErrorDoc>(&line).ok()) {
        Some(doc) => doc.into(),
        None => failed,
    }
}

/// The stages that a document's tools took.
pub(super) fn timings(doc: &Document) -> Result<Vec<Timing>> {
    doc.timings()?.iter().map(|raw| strict(raw.get())).collect()
}
