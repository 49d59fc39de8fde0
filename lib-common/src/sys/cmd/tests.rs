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
