//! Many at once: threads, and processes of the real tool. No two may get the same.

use super::scene::{Loan, Scene, Way, acquire, wrong};
use super::summary::thousandths;
use lib_common::doc::{Document, Kind, Net, Timing, strict};
use lib_common::error::{Code, Error, Result};
use lib_common::sys::cmd::{Child, Cmd, Stream, Streams};
use lib_common::sys::thread;
use lib_machine::net::name;
use serde_json::json;
use std::collections::BTreeSet;
use std::hash::Hash;
use std::io::{Read, Write};
use std::sync::RwLock;

/// So many come at once.
pub(super) const MANY: u32 = 64;
/// The stages of `bg-tap` that are the call; the others are the process's own.
const CALL: [&str; 4] = ["network", "address", "tap", "create_tap"];

/// Of threads, with a socket each: how long each call took. The pool has enough, and nobody makes more meanwhile.
pub(super) fn threads(scene: &mut Scene) -> Result<Vec<f64>> {
    scene.network.pool()?.set_target(0)?;
    scene.fill(MANY)?;
    let ids: Vec<_> = (0..MANY).map(|_| scene.new_id()).collect();
    let (begin, config) = (RwLock::new(()), &scene.config);
    let call = |id| {
        // Until all threads have started.
        drop(begin.read());
        acquire(config, id, Way::Warm)
    };
    let results: Vec<Result<(Loan, f64)>> = std::thread::scope(|scope| {
        let call = &call;
        let held = begin.write();
        let threads: Vec<_> = ids.into_iter().map(|id| thread::scoped(scope, move || call(id))).collect();
        drop(held);
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(wrong("a thread panicked".into())))
        };
        threads.into_iter().map(|thread| thread.and_then(join)).collect()
    });
    settle(scene, results.into_iter().collect::<Result<_>>()?)
}

/// Of processes, each of which makes a TAP for the next one when it has its own, as they do in use: how long each call
/// took, without starting the process.
pub(super) fn processes(scene: &mut Scene) -> Result<Vec<f64>> {
    scene.network.pool()?.set_target(MANY)?;
    scene.fill(MANY)?;
    let tool = Cmd::new(scene.config.tool("bg-tap")?).arg("acquire");
    let streams = || Streams { stdin: Stream::Pipe, stdout: Stream::Pipe, stderr: Stream::Pipe };
    let mut started: Vec<Child> = (0..MANY).map(|_| tool.spawn(streams())).collect::<Result<_>>()?;
    // They wait for their stdin's end, so they begin together.
    let mut ids = vec![];
    for child in &mut started {
        let id = scene.new_id();
        if let Some(mut stdin) = child.stdin() {
            stdin.write_all(machine(&name::hex(&id)).as_bytes())?;
        }
        ids.push(id);
    }
    let mut loans = vec![];
    for (mut child, id) in started.into_iter().zip(ids) {
        let mut out = vec![];
        if let Some(mut stdout) = child.stdout()? {
            stdout.read_to_end(&mut out)?;
        }
        child.finish()?;
        let (net, ms) = lent(&out)?;
        loans.push((Loan { id, net }, ms));
    }
    settle(scene, loans)
}

fn machine(id: &str) -> String {
    json!({"api_version": lib_common::doc::API_VERSION, "kind": "Machine", "name": "bench", "id": id}).to_string()
}

/// What a process printed: what the VM got, and how long the call took by its own clock.
fn lent(out: &[u8]) -> Result<(Net, f64)> {
    let doc = Document::parse(out, Kind::Machine)?;
    let net = doc.require::<Net>()?;
    let timings: Vec<Timing> = doc.timings()?.iter().map(|raw| strict(raw.get())).collect::<Result<_>>()?;
    let call = timings.iter().filter(|timing| CALL.contains(&timing.stage.as_str()));
    Ok((net, thousandths(call.map(|timing| timing.ms).sum())))
}

/// Looks whether everybody got something else, and gives it all back.
fn settle(scene: &Scene, loans: Vec<(Loan, f64)>) -> Result<Vec<f64>> {
    all_different("TAP", loans.iter().map(|(loan, _)| &loan.net.tap))?;
    all_different("address", loans.iter().map(|(loan, _)| loan.net.address))?;
    loans.iter().try_for_each(|(loan, _)| scene.release(loan).map(drop))?;
    let pool = scene.network.pool()?;
    pool.set_target(0)?;
    pool.drain()?;
    Ok(loans.into_iter().map(|(_, ms)| ms).collect())
}

fn all_different<T: Ord + Hash>(what: &str, of: impl ExactSizeIterator<Item = T>) -> Result<()> {
    let count = of.len();
    match of.collect::<BTreeSet<T>>().len() {
        different if different == count => Ok(()),
        different => Err(Error::new(Code::Internal, format!("{count} VMs got {different} different {what}s"))),
    }
}
