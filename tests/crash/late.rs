//! A shim that begins when its starter is gone already, and whoever starts the VM next; and tools whose terminal goes.

use super::{Suite, World, finish, processes, runtime_dir, shims, until};
use crate::support::{program, through};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

/// A suite whose shim first waits for a line from a pipe, and says that it is there.
struct Gate<'a> {
    suite: Suite<'a>,
    pipe: PathBuf,
    here: PathBuf,
}

impl<'a> Gate<'a> {
    fn new(world: &'a World) -> Self {
        let (suite, pipe, here) = (Suite::new(world), world.sandbox.path("gate"), world.sandbox.path("here"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        suite.begin_shim_by(&format!(
            "echo $$ > '{0}.new' && mv '{0}.new' '{0}'\nread line < '{1}'\nexec '{2}' \"$@\"",
            here.display(),
            pipe.display(),
            program("bg-shim")
        ));
        Gate { suite, pipe, here }
    }

    fn open(&self) {
        File::options().write(true).open(&self.pipe).unwrap().write_all(b"go\n").unwrap();
    }
}

#[test]
fn a_shim_that_begins_late_leaves_the_next_one_alone() {
    let world = World::new(&["dev"]);
    let gate = Gate::new(&world);
    let mut first = gate.suite.command(&["start", "dev"]).spawn().unwrap();
    until("the shim waits", || gate.here.exists());
    let late: i32 = std::fs::read_to_string(&gate.here).unwrap().trim().parse().unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    world.vm(&["start", "dev"], "").ok();
    let (second, dir) = (processes(&world, "dev"), runtime_dir(&world, "dev"));
    gate.open();
    until("the late shim has ended", || {
        let stat = lib_common::sys::process::stat(late).unwrap();
        stat.is_none_or(|stat| stat.state == 'Z')
    });
    assert_eq!((processes(&world, "dev"), shims(&dir)), (second, 1));
    assert_eq!(world.sandbox.findings(&["--now"]), Vec::<serde_json::Value>::new());
    world.vm(&["kill", "dev"], "").ok();
    assert_eq!(world.state_of("dev"), "stopped");
}

#[test]
fn a_start_right_after_one_that_was_killed_runs() {
    let world = World::new(&["dev"]);
    // A VMM that takes its time to end.
    world.set_mode("stubborn");
    let suite = Suite::new(&world);
    let (command, log) = (suite.command(&["start", "dev"]), world.sandbox.path("killed"));
    if !crate::support::has_strace("a_start_right_after_one_that_was_killed_runs") {
        return;
    }
    // Before it says `keep`: the last thing that it writes to a socket.
    let options = ["-e", "trace=renameat,rename", "-e", "inject=rename,renameat:signal=KILL:when=4"];
    let done = finish(crate::faults::trace::under_strace(&command, &log, &options).spawn().unwrap(), b"");
    world.set_mode("runs");
    world.vm(&["start", "dev"], "").ok();
    until("whatever was ending has ended", || shims(&runtime_dir(&world, "dev")) == 1);
    assert_eq!(world.state_of("dev"), "running", "{done:?}");
    world.sandbox.collect();
    assert_eq!(world.state_of("dev"), "running", "{done:?}");
}

#[test]
fn a_tool_whose_terminal_is_closed_undoes_what_it_began() {
    for ignored in [false, true] {
        let world = World::new(&[]);
        let gate = Gate::new(&world);
        // Whoever runs the tests may have it ignored: env(1) undoes that, and nohup(1) does it.
        let by: &[&str] = if ignored { &["nohup"] } else { &["env", "--default-signal=HUP"] };
        let mut command = through(&gate.suite.command(&["create", "dev"]), by[0], &by[1..]);
        let child = command.process_group(0).spawn().unwrap();
        until("the shim waits", || gate.here.exists());
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGHUP).unwrap();
        if ignored {
            gate.open();
            finish(child, b"").ok();
            assert_eq!(world.state_of("dev"), "running");
        } else {
            // It waits for its shim, which is behind the gate.
            gate.open();
            finish(child, b"").failed_with(lib_common::error::Code::Terminated);
            world.assert_nothing_is_left();
        }
    }
}

#[test]
fn sigquit_and_sigxcpu_undo_what_was_begun() {
    use lib_common::error::Code;
    for (signal, code) in [(Signal::SIGQUIT, Code::Interrupted), (Signal::SIGXCPU, Code::Terminated)] {
        let world = World::new(&[]);
        let gate = Gate::new(&world);
        let child = gate.suite.command(&["create", "dev"]).process_group(0).spawn().unwrap();
        until("the shim waits", || gate.here.exists());
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        gate.open();
        finish(child, b"").failed_with(code);
        world.assert_nothing_is_left();
    }
}
