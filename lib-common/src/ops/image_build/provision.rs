//! The steps of a build in the running guest, then what makes an image of it: the manifest, and the clean-up.
//!
//! Packages are the only step that reaches a network: the proxy runs for as long as the package manager does, and admits
//! the hosts of the guest's own sources and those that the user has listed.

use super::output::{Log, collect, step_failed};
use super::shell::ByHand;
use super::vm::BuildVm;
use crate::build::distro::{self, Distro, Packages, install_modules};
use crate::build::image::copy::{self, Copy};
use crate::build::image::{Plan, Planned, Work};
use crate::build::manifest;
use crate::cli::Context;
use crate::doc::{Build, BuildStep, BuildStepKind};
use crate::error::{Code, Error, Result};
use crate::guest::proxy::{Admitted, Proxy};
use crate::guest::ssh::session::{Outcome, Stream};
use crate::size::bytes;
use crate::timing::millis;
use std::time::Instant;

/// The log's name in the VM's directory.
pub(in crate::ops) const LOG: &str = "build.log";

/// Reads a program from its input, in the guest, runs it, and ends as it does. In `/run`, a tmpfs, so that nothing of it
/// gets into the image.
const RUN: &str = "f=$(mktemp -p /run build.XXXXXXXX) && cat >\"$f\" && chmod 700 \"$f\" || exit 125; \
    cd / && \"$f\" </dev/null; s=$?; rm -f \"$f\"; exit $s";

/// The port of the guest's loopback interface that leads to the proxy.
pub(super) const PROXY: u16 = 3128;

/// A list of every package is larger than it should ever be, in bytes.
const MAX_PRINTED: usize = 16 << 20;

/// What a build has done.
pub(super) struct Done {
    pub build: Build,
    /// The manifest's text.
    pub manifest: String,
}

/// What is to be done, and whom it may reach.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub plan: &'a Plan,
    /// What the user has listed.
    pub admitted: &'a Admitted,
}

/// How a step ended, and the error that says more than its status.
struct Ended {
    outcome: Outcome,
    because: Vec<String>,
    hint: Option<String>,
}

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        Ended { outcome, because: vec![], hint: None }
    }
}

/// Does every step, and leaves the guest ready to be shut down. `None`: the user does not want what he has made of it.
pub(super) fn run(
    cx: &mut Context<'_>,
    vm: &mut BuildVm,
    job: Job<'_>,
    by_hand: Option<&ByHand<'_>>,
) -> Result<Option<Done>> {
    let mut log = Log::create(&vm.file(LOG))?;
    let mut steps = done_steps(cx, vm, job, &mut log)?;
    if let Some(by_hand) = by_hand {
        cx.stages.begin("shell");
        let begun = Instant::now();
        if !by_hand.run(cx, vm)? {
            return Ok(None);
        }
        steps.push(BuildStep { kind: BuildStepKind::Shell, what: "by hand".into(), ms: millis(begun.elapsed()) });
    }
    let manifest = leave(cx, vm, job.plan.distro, &mut log)?;
    Ok(Some(Done { build: Build { packages: job.plan.packages(), steps, vmm: vm.kind() }, manifest }))
}

/// Every step that needs nobody.
fn done_steps(cx: &mut Context<'_>, vm: &BuildVm, job: Job<'_>, log: &mut Log) -> Result<Vec<BuildStep>> {
    let mut steps = vec![];
    for (n, step) in job.plan.steps.iter().enumerate() {
        let kind = step.work.kind();
        cx.stages.begin(format!("step_{}_{}", n + 1, kind.as_str()));
        let begun = Instant::now();
        let title = format!("{} {}", kind.as_str(), step.what);
        log.begin(&title);
        let ended = one_step(cx, vm, (job, step), log);
        log.end(cx);
        let Ended { outcome, because, hint } = ended.map_err(|e| broken(vm, e, &title))?;
        if !outcome.is_success() {
            let error = because.into_iter().fold(step_failed(&title, &outcome, log), Error::also);
            return Err(hint.into_iter().fold(error, Error::hint));
        }
        steps.push(BuildStep { kind, what: step.what.clone(), ms: millis(begun.elapsed()) });
    }
    Ok(steps)
}

/// Takes the manifest, and cleans up.
fn leave(cx: &mut Context<'_>, vm: &BuildVm, distro: &dyn Distro, log: &mut Log) -> Result<String> {
    cx.stages.begin("manifest");
    let printed = printed(vm, "manifest", distro.print_manifest())?;
    let manifest = manifest::render(distro.manifest(&printed)?);
    cx.stages.begin("clean");
    log.begin("clean");
    let script = distro::clean(distro, vm.authorized_key());
    let cleaned = script_in(cx, vm, script.as_bytes(), log);
    log.end(cx);
    // Its status is that of `sync`; what is not there to be removed is no failure.
    let cleaned = cleaned.map_err(|e| broken(vm, e, "clean"))?;
    if !cleaned.is_success() {
        return Err(step_failed("clean", &cleaned, log));
    }
    Ok(manifest)
}

/// The error of a step whose end nobody knows. A signal to us is no failure of the step.
fn broken(vm: &BuildVm, e: Error, step: &str) -> Error {
    let failed = |e: Error| e.within(format!("the step `{step}` failed")).detail("step", step);
    match e.code() {
        Code::Interrupted | Code::Terminated => e,
        Code::TimedOut => failed(e.hint("--timeout gives the build more time")),
        _ => failed(vm.explain(e)),
    }
}

fn one_step(cx: &mut Context<'_>, vm: &BuildVm, (job, step): (Job<'_>, &Planned), log: &mut Log) -> Result<Ended> {
    match &step.work {
        Work::Modules => script_in(cx, vm, install_modules().as_bytes(), log).map(Ended::from),
        Work::Packages(packages) => install(cx, vm, (job, packages), log),
        Work::Copy(copy) => copy_in(cx, vm, copy, log).map(Ended::from),
        Work::Run(bytes) => script_in(cx, vm, bytes, log).map(Ended::from),
    }
}

/// Installs packages. The sources are read each time: an earlier step may have added one.
fn install(cx: &mut Context<'_>, vm: &BuildVm, (job, packages): (Job<'_>, &Packages), log: &mut Log) -> Result<Ended> {
    let distro = job.plan.distro;
    let mut admitted = job.admitted.clone();
    for source in distro.sources(&printed(vm, "package sources", distro.print_sources())?) {
        admitted.add_source(&source).map_err(|e| e.within("the guest has a package source that cannot be used"))?;
    }
    let proxy = Proxy::start(vm.vsock(), admitted.clone(), Some(cx.config.cache()?))?;
    let outcome = script_in(cx, vm, distro::install(distro, packages, Some(PROXY)).as_bytes(), log)?;
    let (stats, refused, failed) = (proxy.stats(), proxy.refused(), proxy.failed());
    log.note(&format!(
        "fetched {} files ({}), {} from the cache ({})",
        stats.fetched,
        bytes(stats.fetched_bytes),
        stats.from_cache,
        bytes(stats.from_cache_bytes)
    ));
    let mut because: Vec<String> = refused
        .iter()
        .map(|host| format!("the guest was refused the host {host}, which is none of its sources"))
        .collect();
    if outcome.is_success() {
        because.iter().for_each(|line| cx.remark(line));
    }
    because.extend(failed);
    let list = || format!("admitted are {}; --allow-host admits another", admitted.list().join(", "));
    let hint = (!refused.is_empty()).then(list);
    Ok(Ended { outcome, because, hint })
}

/// Runs a program in the guest; what it prints is shown and logged. Both its outputs are one in the guest already: two
/// streams of a session come in any order, so that the line that says why would not be the last.
fn script_in(cx: &mut Context<'_>, vm: &BuildVm, program: &[u8], log: &mut Log) -> Result<Outcome> {
    vm.session().run(&format!("exec 2>&1; {RUN}"), program, &mut |_, bytes| log.take(cx, bytes))
}

/// What a program printed in the guest, as text. It must succeed.
fn printed(vm: &BuildVm, name: &str, program: &str) -> Result<String> {
    let mut out = vec![];
    let mut err = vec![];
    let outcome = vm.session().run(RUN, program.as_bytes(), &mut |stream, bytes| {
        collect(stream, bytes, &mut out, MAX_PRINTED);
        if stream == Stream::Stderr {
            err.extend_from_slice(&bytes[..bytes.len().min(1024_usize.saturating_sub(err.len()))]);
        }
    });
    let outcome = outcome.map_err(|e| vm.explain(e))?;
    if !outcome.is_success() {
        let said = String::from_utf8_lossy(&err).trim().to_owned();
        let error = Error::new(Code::CommandFailed, format!("`{name}` failed in the guest ({})", outcome.in_words()));
        return Err(if said.is_empty() { error } else { error.also(said) });
    }
    String::from_utf8(out).map_err(|e| Error::new(Code::BadInput, format!("`{name}` printed no UTF-8")).because(&e))
}

/// Sends files. They are digested again on the way: what is in the image is what its key says.
fn copy_in(cx: &mut Context<'_>, vm: &BuildVm, copy: &Copy, log: &mut Log) -> Result<Outcome> {
    let mut show = |_: Stream, bytes: &[u8]| log.take(cx, bytes);
    let mut running = vm.session().start(copy::UNPACK, &mut show)?;
    match copy.write_to(&mut running) {
        Ok(digest) if digest == *copy.digest() => running.finish(),
        Ok(_) => Err(Error::new(Code::BadInput, "the files changed while the image was built").hint("build it again")),
        Err(_) if running.has_broken() => running.end_of_broken(),
        Err(e) => Err(e),
    }
}
