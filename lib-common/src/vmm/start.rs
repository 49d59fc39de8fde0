//! The starter's side: run `bg-shim`, wait until the guest's processors run, and say `keep` or have it all undone.
//! Also how a running VM is ended. Saves no record: that is what the caller does between [`start`] and
//! [`Started::keep`].

use super::capped::append_to;
use super::lines::Lines;
use super::{Choice, files};
use crate::config::{Config, scaled};
use crate::doc::{
    AbsPath, Identity, Launch, MAX_BYTES, ProcessDoc, ShimReply, ShimState, Timing, Vmm, VmmKind, strict, to_json,
};
use crate::error::{Code, Context, Error, Result};
use crate::store::{end_shim, shim_lives, shim_state};
use crate::sys::cmd::{Cmd, Stream, Streams};
use crate::sys::fs::{private_dir, remove_dir, replace};
use crate::sys::poll::readable;
use crate::sys::process::{PidFd, ProcessId};
use crate::sys::{owned, signal};
use crate::timing::Stages;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How long a start may take until the guest's processors run: what the shim allows its parts, and some.
const READY_WITHIN: Duration = Duration::from_secs(50);

/// However little a boot may take, the shim's own error comes before this one's.
const LEAST_READY_WITHIN: Duration = Duration::from_secs(5);

/// How long it may take to answer `keep`.
const KEPT_WITHIN: Duration = Duration::from_secs(5);

/// How long the shim may take to end a VM: two seconds of grace for each of its processes, and some.
const END_WITHIN: Duration = Duration::from_secs(8);

/// The programs that run a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// `bg-shim`, beside the tool that runs.
    pub shim: AbsPath,
    /// For [`Launch::vmm_program`].
    pub vmm: AbsPath,
    /// For [`Launch::vmm_version`].
    pub version: Option<String>,
    /// For [`Launch::vsock_program`].
    pub vsock: Option<AbsPath>,
}

impl Programs {
    /// Finds those of that choice; [`Code::MissingProgram`] says how to install one that is missing.
    pub fn find(config: &Config, choice: &Choice) -> Result<Self> {
        let shim = AbsPath::new(std::path::absolute(config.tool("bg-shim")?)?)?;
        if let Some((vmm, version)) = &choice.firecracker {
            return Ok(Programs { shim, vmm: vmm.clone(), version: Some(version.to_string()), vsock: None });
        }
        let vmm = AbsPath::new(config.find_program("qemu", &config.qemu_path()?)?)?;
        let vsock = AbsPath::new(config.find_program("vhost_device_vsock", &config.vhost_device_vsock_path()?)?)?;
        Ok(Programs { shim, vmm, version: None, vsock: Some(vsock) })
    }
}

/// A VM whose processors run and whose shim waits for [`Started::keep`]. Dropped without it, the VM is ended and
/// nothing of it is left; the same happens when this process is killed.
#[derive(Debug)]
pub struct Started {
    vmm: Vmm,
    state: ShimState,
    shim: Shim,
}

impl Started {
    /// For the record.
    pub fn vmm(&self) -> &Vmm {
        &self.vmm
    }

    /// Its processes.
    pub fn state(&self) -> &ShimState {
        &self.state
    }

    /// Lets it live on. An error says that it has ended meanwhile; after success its end will be in `exit.json`.
    pub fn keep(mut self) -> Result<()> {
        self.say(b"keep\n")?;
        self.shim.kept = true;
        Ok(())
    }

    /// Lets it live for as long as this value and this process do; without this, [`Started::keep`] has to come within a
    /// minute of the start. Errors: as those of [`Started::keep`].
    pub fn hold(&mut self) -> Result<()> {
        self.say(b"hold\n")
    }

    fn say(&mut self, word: &[u8]) -> Result<()> {
        let ended = || Error::new(Code::VmmFailed, "the VM ended as soon as it was started");
        let _shield = signal::shield();
        let link = &mut self.shim.link;
        let sent = link.socket.write_all(word);
        match link.reply(Instant::now() + KEPT_WITHIN) {
            // A shim that has ended before this has said why.
            Ok(Some(ShimReply::Failed(doc))) => Err(Error::from(doc).within(ended().message())),
            _ if let Err(e) = &sent => Err(ended().because(e)),
            Ok(Some(ShimReply::Kept)) => Ok(()),
            Ok(_) => Err(ended()),
            Err(e) => Err(e.within(ended().message())),
        }
    }
}

/// Starts a VM: writes `launch.json` and the identity into its runtime directory, runs `shim`, and waits until the
/// guest's processors run. The caller holds the VM's lock and has its journal say `stop_vm`.
///
/// [`Code::InUse`] where it runs already; [`Code::VmmFailed`], [`Code::TimedOut`] and what else keeps it from running
/// have the last words of who failed. Nothing is left then.
pub fn start(launch: &Launch, identity: &Identity, shim: &Path, stages: &mut Stages) -> Result<Started> {
    stages.begin("vmm_spawn");
    let mut shim = Shim::start(launch, identity, shim)
        .context(format!("cannot start the VM `{}`", launch.name))
        .map_err(|e| e.detail("log", launch.log.as_str()))?;
    let (state, timings) =
        shim.wait_until_ready(launch).map_err(|e| e.within(format!("cannot start the VM `{}`", launch.name)))?;
    for part in timings {
        stages.add_part(&format!("vmm_spawn.{}", part.stage), Duration::from_secs_f64(part.ms.clamp(0.0, 1e9) / 1e3));
    }
    let Some(vmm) = state.vmm.clone() else {
        return Err(Error::new(Code::Internal, "bg-shim is ready and has no VMM"));
    };
    Ok(Started { vmm: section(launch, vmm, &state.shim)?, state, shim })
}

/// The section `vmm` of the record.
fn section(launch: &Launch, vmm: ProcessDoc, shim: &ProcessDoc) -> Result<Vmm> {
    Ok(Vmm {
        kind: launch.kind,
        accel: launch.accel,
        chosen_because: launch.chosen_because.clone(),
        pid: vmm.pid,
        start_time: vmm.start_time,
        exe: vmm.exe,
        shim_pid: shim.pid,
        shim_start_time: shim.start_time,
        boot_id: shim.boot_id.clone(),
        cid: launch.cid,
        vsock: AbsPath::new(launch.runtime_dir.join(files::VSOCK))?,
        api: match launch.kind {
            VmmKind::Firecracker => Some(AbsPath::new(launch.runtime_dir.join(files::API))?),
            VmmKind::Qemu => None,
        },
        console: launch.console.clone(),
    })
}

/// Ends the VM that lives in `runtime_dir`, now: its guest is not asked. One that does not run is no error.
///
/// Bounded: a shim that has not ended it within 8 s is killed with its children, and then there is no `exit.json`.
pub fn end(runtime_dir: &Path) -> Result<()> {
    match shim_state(runtime_dir)? {
        Some(state) => end_running(runtime_dir, state),
        None => Ok(()),
    }
}

/// The same of a VM whose processes are known, whether its runtime directory is there or not.
pub fn end_running(runtime_dir: &Path, state: ShimState) -> Result<()> {
    let shim = ProcessId::from(state.shim);
    if let Some(handle) = shim.open()? {
        handle.signal(Signal::SIGTERM)?;
        if handle.wait(END_WITHIN)? {
            return Ok(());
        }
        shim.end()?;
    }
    end_shim(runtime_dir)?;
    remove_dir(runtime_dir)
}

/// Waits, at most `timeout`, until a VM has ended by itself and its shim with it; says whether it has. For a guest that
/// was asked to shut down.
pub fn wait_end(state: &ShimState, timeout: Duration) -> Result<bool> {
    match ProcessId::from(state.shim.clone()).open()? {
        Some(shim) => shim.wait(timeout),
        None => Ok(true),
    }
}

/// A shim that was started. Dropped before it was told to keep the VM, it and all of its own end.
#[derive(Debug)]
struct Shim {
    // In this order: the end of the stream is what the shim undoes everything for, and then it is waited for.
    link: Link,
    process: PidFd,
    pid: i32,
    kept: bool,
    run_dir: RunDir,
}

impl Shim {
    fn start(launch: &Launch, identity: &Identity, program: &Path) -> Result<Self> {
        signal::check()?;
        let dir = &launch.runtime_dir;
        if shim_lives(dir)? {
            return Err(Error::new(Code::InUse, "it runs already"));
        }
        // What a killed shim left: processes that are just dying, its sockets, and secrets of an earlier run.
        end_shim(dir)?;
        remove_dir(dir)?;
        let run_dir = RunDir { path: Some(dir.clone()) };
        private_dir(dir)?;
        replace(&dir.join(files::IDENTITY), Zeroizing::new(to_json(identity)).as_bytes(), 0o600)?;
        replace(&dir.join(files::LAUNCH), format!("{}\n", to_json(launch)).as_bytes(), 0o600)?;
        let log = append_to(&launch.log)?;
        let (socket, theirs) = UnixStream::pair()?;
        let streams = Streams { stdin: Stream::Null, stdout: Stream::Null, stderr: log.into() };
        let pid = command(program, launch).spawn_detached(streams, theirs.into())?;
        let link = Link { socket, lines: Lines::new(MAX_BYTES) };
        Ok(Shim { link, process: PidFd::of_child(pid)?, pid, kept: false, run_dir })
    }

    fn wait_until_ready(&mut self, launch: &Launch) -> Result<(ShimState, Vec<Timing>)> {
        let within = scaled(READY_WITHIN, Duration::from_millis(launch.boot_timeout_ms)) + LEAST_READY_WITHIN;
        match self.link.reply(Instant::now() + within) {
            Ok(Some(ShimReply::Ready { state, timings })) => Ok((state, timings)),
            Ok(Some(ShimReply::Failed(doc))) => Err(doc.into()),
            Ok(Some(ShimReply::Kept)) => Err(Error::new(Code::VmmFailed, "bg-shim answered what nobody asked")),
            Ok(None) => Err(last_words(Error::new(Code::VmmFailed, "bg-shim ended without a word"), &launch.log)),
            Err(e) if e.code() == Code::TimedOut => Err(last_words(e, &launch.log)),
            Err(e) => Err(e),
        }
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if self.kept {
            self.run_dir.keep();
            return;
        }
        let _ = self.link.socket.shutdown(std::net::Shutdown::Both);
        let _shield = signal::shield();
        if !self.process.wait(END_WITHIN).unwrap_or(false) {
            // Its children die with it.
            let _ = self.process.signal(Signal::SIGKILL);
            let _ = self.process.wait(Duration::from_secs(2));
        }
        let _ = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG));
    }
}

/// The VM's runtime directory, removed when nobody wants it.
#[derive(Debug)]
struct RunDir {
    path: Option<AbsPath>,
}

impl RunDir {
    fn keep(&mut self) {
        self.path = None;
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = remove_dir(path);
        }
    }
}

/// The starter's end of the talk with the shim.
#[derive(Debug)]
struct Link {
    socket: UnixStream,
    lines: Lines,
}

impl Link {
    /// The shim's next line, or `None` where it has ended; a signal ends the wait, too.
    fn reply(&mut self, deadline: Instant) -> Result<Option<ShimReply>> {
        loop {
            if let Some(line) = self.lines.next() {
                let reply = strict(&String::from_utf8_lossy(&line));
                return reply.map(Some).context("bg-shim said something else than it should");
            }
            if readable(&[self.socket.as_fd()], deadline)?.is_empty() {
                return Err(Error::new(Code::TimedOut, "bg-shim did not answer in time"));
            }
            if !self.lines.read(&mut self.socket)? {
                return Ok(None);
            }
        }
    }
}

/// Its environment is not the starter's: a VM is the same whoever starts it.
fn command(program: &Path, launch: &Launch) -> Cmd {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let file = launch.runtime_dir.join(files::LAUNCH);
    Cmd::new(program).arg("--launch").arg(file).dir(Path::new("/")).only_env().env("PATH", path).env("LC_ALL", "C")
}

/// The error with the end of the shim's log.
fn last_words(error: Error, log: &Path) -> Error {
    let end = owned::read_end(log, 1024).ok().flatten().unwrap_or_default();
    let end = String::from_utf8_lossy(&end);
    let error = error.hint(format!("its log is {}", log.display()));
    match end.lines().rev().find(|l| !l.trim().is_empty()) {
        Some(line) => error.also(line.trim().to_owned()),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::qemu::tests::example;

    #[test]
    fn the_shim_gets_no_environment_but_a_path() {
        let line = command(Path::new("/usr/bin/bg-shim"), &example()).to_shell();
        let path = std::env::var("PATH").unwrap_or_default();
        let expected = "LC_ALL=C /usr/bin/bg-shim --launch /run/banger/0123456789ab/launch.json";
        assert_eq!(line, format!("PATH={} {expected}", crate::sys::cmd::quote(&path)));
    }

    #[test]
    fn to_end_what_does_not_run_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        end(&dir.path().join("none")).unwrap();
        // As a power failure leaves it: it says of nothing that it runs.
        for damaged in ["", "{}"] {
            std::fs::write(dir.path().join(files::STATE), damaged).unwrap();
            end(dir.path()).unwrap();
            assert!(!shim_lives(dir.path()).unwrap());
        }
    }

    #[test]
    fn the_launch_file_is_strict() {
        let text = to_json(&example());
        assert_eq!(strict::<Launch>(&text).unwrap(), example());
        for (from, to, says) in [
            ("\"vcpu\"", "\"vcpus\"", "vcpu"),
            ("\"cid\":3,", "", "cid"),
            ("\"accel\":\"tcg\"", "\"accel\":\"hvf\"", "hvf"),
            ("\"/m/exit.json\"", "\"m/exit.json\"", "absolute"),
            ("\"read_only\"", "\"readonly\"", "disks[0]"),
            ("\"name\":\"dev\"", "\"name\":\"-dev\"", "name"),
        ] {
            assert!(text.contains(from), "{from}");
            let e = strict::<Launch>(&text.replace(from, to)).unwrap_err();
            assert!(e.message().contains(says), "{says}: {e}");
        }
    }

    #[test]
    fn a_silent_end_is_explained_by_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("shim.log");
        std::fs::write(&log, format!("{}\nthe reason\n\n", "x".repeat(4000))).unwrap();
        let e = last_words(Error::new(Code::VmmFailed, "m"), &log);
        assert_eq!(e.causes(), ["the reason"]);
        let e = last_words(Error::new(Code::VmmFailed, "m"), &dir.path().join("none"));
        assert!(e.causes().is_empty());
    }
}
