//! Stages and events: what took how long, for a document and for whoever listens; nobody listening is no error.

use crate::support::fixture::{self, Files, WORK};
use crate::support::{Sandbox, finish};
use serde_json::Value;
use std::path::Path;

fn run(sandbox: &Sandbox, tool: &str, args: &[&str], stdin: &str, events: &Path) -> crate::support::Done {
    finish(sandbox.command(tool, args).env("BG_EVENTS", events).spawn().unwrap(), stdin.as_bytes())
}

#[test]
fn stages_cover_the_wall_time_of_every_verb() {
    let sandbox = Sandbox::new();
    let image = Files::new(&sandbox, "a").document().to_string();
    // And whether the document has the stages.
    let verbs: &[(&str, &[&str], &str, bool)] = &[
        ("bg-seed", &["build", "--size", WORK], &image, true),
        ("bg-register", &["--name", "a"], &image, true),
        ("bg-image", &["ls"], "", false),
        ("bg-image", &["diff", "a", "a"], "", true),
        ("bg-image", &["reconcile", "a"], "", false),
        ("bg-vm", &["plan", "other"], "", true),
        ("bg-vm", &["create", "dev", "--no-start", "--work-size", WORK], "", true),
        ("bg-vm", &["create", "dev"], "", false),
        ("bg-vm", &["ls"], "", false),
        ("bg-seed", &["check", "--vm", "dev"], "", true),
        ("bg-verify", &[], "", false),
        ("bg-vm", &["rm", "dev"], "", false),
        ("bg-image", &["rm", "a"], "", false),
    ];
    for (tool, args, stdin, timed) in verbs {
        let path = sandbox.path("events");
        let _ = std::fs::remove_file(&path);
        let done = run(&sandbox, tool, args, stdin, &path);
        let text = std::fs::read_to_string(&path).unwrap();
        let events: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let (first, last) = (&events[0], events.last().unwrap());
        assert_eq!((&first["api_version"], &first["event"]), (&"banger/v1".into(), &"start".into()), "{tool}: {text}");
        assert_eq!((&last["event"], last["exit"].as_i64()), (&"end".into(), Some(done.exit.into())), "{tool}: {text}");
        assert!(events.iter().all(|e| e["tool"] == *tool), "{text}");
        let stages: Vec<&Value> = events.iter().filter(|e| e["event"] == "stage").collect();
        let sum: f64 = stages.iter().map(|s| s["ms"].as_f64().unwrap()).sum();
        let total = last["ms"].as_f64().unwrap();
        // Each is rounded to a microsecond.
        assert!(sum >= 0.95 * total && sum <= total + 0.02, "{tool} {args:?}: {sum} of {total} ms: {text}");
        if *timed {
            assert_timings(tool, &done.json(), &stages);
        }
    }
}

/// The document has the stages of the tool that printed it, in their order, but for the printing itself.
fn assert_timings(tool: &str, doc: &Value, stages: &[&Value]) {
    let mine = doc["timings"].as_array().unwrap().iter().filter(|t| t["tool"] == *tool);
    let timings: Vec<(&Value, &Value)> = mine.map(|t| (&t["stage"], &t["ms"])).collect();
    let sent: Vec<(&Value, &Value)> = stages.iter().map(|s| (&s["stage"], &s["ms"])).collect();
    let (last, before) = sent.split_last().unwrap();
    assert_eq!(timings, before, "{tool}");
    assert_eq!((before[0].0, last.0), (&"setup".into(), &"output".into()), "{tool}");
}

#[test]
fn what_a_pipe_went_through_stands_in_its_document() {
    let sandbox = Sandbox::new();
    let image = Files::new(&sandbox, "a").document().to_string();
    let seeded = sandbox.run("bg-seed", &["build", "--size", WORK], image).ok();
    let registered = sandbox.run("bg-register", &["--name", "a"], seeded).json();
    let mut tools: Vec<&str> =
        registered["timings"].as_array().unwrap().iter().map(|t| t["tool"].as_str().unwrap()).collect();
    tools.dedup();
    assert_eq!(tools, ["bg-seed", "bg-register"]);
    let planned = fixture::plan(&sandbox, "dev");
    let cloned = sandbox.run("bg-seed", &["clone"], planned).json();
    let mut tools: Vec<&str> =
        cloned["timings"].as_array().unwrap().iter().map(|t| t["tool"].as_str().unwrap()).collect();
    tools.dedup();
    assert_eq!(tools, ["bg-vm", "bg-seed"]);
}

#[test]
fn events_that_cannot_be_sent_never_fail_the_work() {
    let sandbox = Sandbox::new();
    let fifo = sandbox.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for events in
        [fifo.as_path(), Path::new("/does/not/exist/events"), Path::new("/dev/full"), Path::new("/"), Path::new("")]
    {
        let done = run(&sandbox, "bg-verify", &[], "", events);
        assert_eq!((done.exit, done.stderr.as_str()), (0, ""), "{}", events.display());
    }
}

#[test]
fn a_reader_that_goes_away_in_the_middle_never_fails_the_work() {
    use std::os::unix::fs::OpenOptionsExt;
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "a");
    let fifo = sandbox.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut options = std::fs::File::options();
    let reader = options.read(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo).unwrap();
    let child = sandbox.command("bg-seed", &["clone"]).env("BG_EVENTS", &fifo).spawn().unwrap();
    // The tool reads its stdin after it has opened the pipe, and waits there.
    let mut polled = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&reader), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut polled, nix::poll::PollTimeout::NONE).unwrap();
    drop(reader);
    let plan = fixture::plan(&sandbox, "dev");
    finish(child, plan.as_bytes()).ok();
}
