use super::*;

#[test]
fn a_failure_has_status_and_last_words() {
    let e = Cmd::new("ls").arg("/does/not/exist").env("LC_ALL", "C").run().unwrap_err();
    assert_eq!(e.code(), Code::CommandFailed);
    let child = e.get_child().unwrap();
    assert_eq!((child.status.as_str(), child.argv[0].as_str()), ("exit 2", "ls"));
    assert!(child.stderr.contains("No such file"), "{child:?}");
}

#[test]
fn a_missing_program_names_its_package() {
    let e = Cmd::new("/nowhere/mmdebstrap").run().unwrap_err();
    assert_eq!((e.code(), e.get_hint()), (Code::MissingProgram, Some("apt-get install mmdebstrap")));
}

#[test]
fn a_dropped_child_is_gone_with_its_group() {
    let child = Cmd::new("sleep").arg("100").spawn(Streams::default()).unwrap();
    let id = super::super::process::ProcessId::of(child.pid()).unwrap();
    assert!(id.is_alive().unwrap());
    drop(child);
    assert!(!id.is_alive().unwrap());
}

#[test]
fn a_foreground_program_gives_its_status() {
    let status =
        |program: &str| Cmd::new(program).run_foreground(Stream::Null, Stream::Inherit, || {}).map(|s| s.code());
    assert_eq!((status("true").unwrap(), status("false").unwrap()), (Some(0), Some(1)));
    assert_eq!(status("/nowhere/ssh").unwrap_err().code(), Code::MissingProgram);
}

#[test]
fn output_is_bounded() {
    assert_eq!(Cmd::new("printf").arg("abc").output(3).unwrap(), b"abc");
    assert!(Cmd::new("printf").arg("abcd").output(3).is_err());
}

#[test]
fn a_printed_command_can_be_pasted() {
    let cmd = Cmd::new("a").args(["b c", "it's", "", "x=1"]).env("K", "v w");
    assert_eq!(cmd.to_shell(), r"K='v w' a 'b c' 'it'\''s' '' x=1");
}

#[test]
fn what_is_said_on_either_stream_is_heard_and_nobody_is_waited_for_without_end() {
    let said = |program: &str, args: &[&str], within| Cmd::new(program).args(args).env("LC_ALL", "C").said(within);
    let long = Duration::from_secs(60);
    assert_eq!(said("printf", &["abc"], long).unwrap(), "abc");
    let e = said("ls", &["/does/not/exist"], long).unwrap_err();
    assert_eq!(e.code(), Code::CommandFailed);
    assert!(e.causes().iter().any(|cause| cause.contains("No such file")), "{:?}", e.causes());
    assert_eq!(said("sleep", &["100"], Duration::from_millis(20)).unwrap_err().code(), Code::TimedOut);
    assert_eq!(said("yes", &[], long).unwrap_err().code(), Code::CommandFailed);
    assert_eq!(said("/nowhere/nft", &[], long).unwrap_err().code(), Code::MissingProgram);
}

/// The pid that a script printed, and which runs no longer: a zombie whose reaper has not come yet has ended, too.
fn ended(pid: &str) -> bool {
    super::super::process::stat(pid.trim().parse().unwrap()).unwrap().is_none_or(|stat| "ZX".contains(stat.state))
}

fn sh(script: &str) -> Cmd {
    Cmd::new("sh").args(["-c", script])
}

#[test]
fn a_child_that_has_ended_is_not_waited_for_because_of_what_it_left_behind() {
    let begun = Instant::now();
    // One in its process group, and one in a session of its own, which hold its streams.
    for left in ["sleep 60 &", "setsid sleep 60 &"] {
        let e = sh(&format!("{left} echo why >&2; exit 3")).run().unwrap_err();
        assert_eq!(e.get_child().unwrap().stderr, "why\n", "{left}");
        assert_eq!(sh(&format!("{left} echo said")).output(100).unwrap(), b"said\n", "{left}");
        assert_eq!(sh(&format!("{left} echo 1.2.3")).said(Duration::from_secs(50)).unwrap(), "1.2.3\n", "{left}");
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn the_process_group_of_a_child_ends_with_it() {
    let begun = Instant::now();
    let soon = |pid: &str| {
        while !ended(pid) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{pid} lives");
            std::thread::yield_now();
        }
    };
    let left = sh("sleep 60 >/dev/null 2>&1 & echo $!").output(100).unwrap();
    soon(&String::from_utf8(left).unwrap());
    // Dropped, with a member that ignores SIGTERM, and whose leader does not.
    let script = "(trap '' TERM; while :; do sleep 1; done) & echo $!; exec sleep 60";
    let mut child = sh(script).spawn(Streams { stdout: Stream::Pipe, ..Streams::default() }).unwrap();
    let mut line = [0; 32];
    let n = child.stdout().unwrap().unwrap().read(&mut line).unwrap();
    drop(child);
    soon(std::str::from_utf8(&line[..n]).unwrap());
}
