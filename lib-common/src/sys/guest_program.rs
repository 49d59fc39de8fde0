//! Programs that `/init` runs in the guest's root file system before that has an init of its own. Knows no domain.
#![allow(unsafe_code, clippy::disallowed_types)]

use super::ended::tail;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, chdir, chroot};
use std::io::Result;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// How long the output of a program that has ended may take to end, too: it does at once, unless a process that left the
/// program's process group still holds it.
const OUTPUT_WITHIN: Duration = Duration::from_secs(2);

/// Between two looks at a program that has a time to end in.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What is run, and how.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// The directory that becomes its `/`, if another is to, and where it begins.
    pub root: Option<&'a Path>,
    /// The program, which is looked for in the `PATH` of `env`, and its arguments.
    pub argv: &'a [&'a str],
    /// Its whole environment.
    pub env: &'a [(&'a str, &'a str)],
    /// The time after which it is killed, if it is to be.
    pub within: Option<Duration>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// The end of what it printed on both streams.
    pub output: Vec<u8>,
}

/// Runs a program to its end, or the end of its time, with nothing on its standard input. What it leaves behind in its process group is killed.
/// Of its output the last `keep` bytes are kept.
///
/// # Errors
/// It could not be started.
pub fn run(program: &Program<'_>, keep: usize) -> Result<Ended> {
    let (output, stdout) = std::io::pipe()?;
    let Some((name, args)) = program.argv.split_first() else { return Err(Errno::EINVAL.into()) };
    let mut command = Command::new(name);
    command.args(args).env_clear().envs(program.env.iter().copied()).process_group(0);
    command.stdin(Stdio::null()).stderr(stdout.try_clone()?).stdout(stdout);
    if let Some(root) = program.root.map(Path::to_path_buf) {
        let enter = move || Ok(chroot(&root).and_then(|()| chdir("/"))?);
        // SAFETY: chroot and chdir are system calls, and a path this short is made into a C string on the stack.
        unsafe { command.pre_exec(enter) };
    }
    let child = command.spawn();
    // Our copies of the pipe's other end are in it.
    drop(command);
    let mut child = child?;
    let (send, kept) = channel();
    std::thread::spawn(move || send.send(tail(output, keep)));
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(|_| Errno::ESRCH)?);
    // Until it is reaped, its pid and its group's are its own.
    wait_for(pid, program.within.map(|within| Instant::now() + within));
    let _ = killpg(pid, Signal::SIGKILL);
    let status = child.wait()?;
    Ok(Ended { status, output: kept.recv_timeout(OUTPUT_WITHIN).unwrap_or_default() })
}

/// Waits until the child has ended, or until the deadline. It is not reaped.
fn wait_for(pid: Pid, deadline: Option<Instant>) {
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    let flags = if deadline.is_some() { ended | WaitPidFlag::WNOHANG } else { ended };
    loop {
        match waitid(Id::Pid(pid), flags) {
            Err(Errno::EINTR) => {}
            Ok(WaitStatus::StillAlive) if deadline.is_some_and(|at| Instant::now() < at) => {
                std::thread::sleep(LOOK_AGAIN)
            }
            Ok(_) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ended::describe;
    use super::*;

    fn sh(script: &str, keep: usize) -> Ended {
        let env = [("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8")];
        run(&Program { root: None, argv: &["sh", "-c", script, "sh", "a b"], env: &env, within: None }, keep).unwrap()
    }

    #[test]
    fn a_program_has_its_arguments_its_environment_and_nothing_else() {
        let ended = sh("echo \"$1\"; env | grep -v ^PWD= | grep -v ^_= | grep -v ^SHLVL= | sort; cat", 4096);
        assert!(ended.status.success());
        assert_eq!(String::from_utf8(ended.output).unwrap(), "a b\nLANG=C.UTF-8\nPATH=/usr/bin:/bin\n");
        let none = Program { root: None, argv: &["no-such-program"], env: &[("PATH", "/nowhere")], within: None };
        assert_eq!(run(&none, 1).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }

    #[test]
    fn the_end_of_both_streams_is_kept_and_the_status_told() {
        let ended = sh("for n in 1 2 3 4 5; do echo out $n; echo err $n >&2; done; exit 3", 12);
        assert_eq!((describe(ended.status).as_str(), &ended.output[..]), ("exit 3", &b"out 5\nerr 5\n"[..]));
        assert_eq!(describe(sh("kill -9 $$", 9).status), "signal 9");
    }

    #[test]
    fn a_program_is_killed_at_the_end_of_its_time() {
        let run_for = |seconds: &str, within| {
            let env = [("PATH", "/usr/bin:/bin")];
            let argv = ["sleep", seconds];
            describe(run(&Program { root: None, argv: &argv, env: &env, within: Some(within) }, 1).unwrap().status)
        };
        assert_eq!(run_for("600", Duration::from_millis(20)), "signal 9");
        assert_eq!(run_for("0", Duration::from_secs(60)), "exit 0");
    }

    #[test]
    fn what_a_program_leaves_in_the_background_is_killed_and_not_waited_for() {
        let begun = Instant::now();
        let ended = sh("sleep 600 & echo left $!", 4096);
        assert!(begun.elapsed() < OUTPUT_WITHIN);
        let said = String::from_utf8(ended.output).unwrap();
        let pid: i32 = said.trim().strip_prefix("left ").unwrap().parse().unwrap();
        while !is_dead(pid) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{pid} lives");
            std::thread::yield_now();
        }
    }

    /// A zombie whose reaper has not come yet is dead, too.
    fn is_dead(pid: i32) -> bool {
        let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ")
    }
}
