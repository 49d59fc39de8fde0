use crate::cli::{Answer, Context, Io, run_with};
use clap::Parser;
use lib_common::doc::{Boot, Document, HealthStatus, Kind, Timing, to_json};
use lib_machine::guest::fake::{Fake, health, reply};
use lib_machine::guest::testing::{Stored, document, stand_in};
use lib_machine::store::boot::note_up;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[derive(Parser)]
struct Args {
    names: Vec<lib_common::doc::Name>,
    #[arg(long)]
    file: Option<PathBuf>,
    #[arg(long, value_parser = lib_machine::config::parse_seconds)]
    wait: Option<Duration>,
    #[arg(long, value_parser = lib_machine::config::parse_seconds, default_value = "10")]
    timeout: Duration,
}

fn run(args: Args, cx: &mut Context<'_>) -> lib_common::Result<Answer> {
    let Args { names, file, wait, timeout } = args;
    super::run(&super::Request { names, file, wait, timeout }, cx)
}

/// Exit status, stdout, stderr.
fn tool(args: &[&str], stdin: &str, stored: Option<&Stored>) -> (u8, String, String) {
    let (mut out, mut err) = (vec![], vec![]);
    let env = stored.map_or_else(|| [("HOME".to_owned(), "/nowhere".to_owned())].into(), Stored::env);
    let exit = run_with::<Args>(
        "bg-health",
        run,
        Io {
            args: std::iter::once("bg-health").chain(args.iter().copied()).map(Into::into).collect(),
            env,
            root: false,
            stdin: (Box::new(stdin.as_bytes()), false),
            stdout: (Box::new(&mut out), false),
            stderr: (Box::new(&mut err), false),
        },
    );
    (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn answers(status: HealthStatus) -> Fake {
    let line = if status == HealthStatus::Ok { "200 OK" } else { "503 Service Unavailable" };
    Fake::http(reply(line, &to_json(&health(status))))
}

fn health_of(line: &str) -> HealthStatus {
    Document::parse(line.as_bytes(), Kind::Machine).unwrap().require::<lib_common::doc::Health>().unwrap().status
}

#[test]
fn the_answer_goes_into_the_document_and_the_rest_of_it_through() {
    for (status, exit) in [(HealthStatus::Ok, 0), (HealthStatus::Starting, 1), (HealthStatus::Degraded, 1)] {
        let guest = answers(status);
        let (_child, vmm) = stand_in(guest.socket());
        let line = document(&vmm).to_line();
        let (got, out, err) = tool(&[], &line, None);
        assert_eq!((got, err.as_str()), (exit, ""));
        assert!(out.starts_with(line.strip_suffix('}').unwrap()), "{out}");
        assert_eq!(health_of(&out), status);
        assert!(out.contains(r#""tool":"bg-health","stage":"connect""#), "{out}");
    }
}

#[test]
fn names_give_a_document_each_in_their_order() {
    let (ok, bad) = (answers(HealthStatus::Ok), answers(HealthStatus::Degraded));
    let stored = Stored::new(&[("a", ok.socket()), ("b", bad.socket())]);
    let (exit, out, _) = tool(&["b", "a"], "", Some(&stored));
    let lines: Vec<_> = out.lines().map(health_of).collect();
    assert_eq!((exit, lines), (1, vec![HealthStatus::Degraded, HealthStatus::Ok]));
    assert!(!out.contains("\"status\":{"), "what `bg-vm show` computes is not in it");
    assert_eq!(tool(&["a"], "", Some(&stored)).0, 0);
}

#[test]
fn one_vm_without_an_answer_leaves_stdout_empty_and_is_named() {
    let (ok, mute) = (answers(HealthStatus::Ok), Fake::open(drop));
    let stored = Stored::new(&[("a", ok.socket()), ("mute", mute.socket())]);
    let (exit, out, err) = tool(&["a", "mute"], "", Some(&stored));
    assert_eq!((exit, out.as_str()), (69, ""));
    assert!(err.contains("guest_unreachable") && err.contains("mute") && !err.contains("`a`"), "{err}");
    let (exit, out, err) = tool(&["a", "nobody"], "", Some(&stored));
    assert_eq!((exit, out.as_str()), (64, ""));
    assert!(err.contains("not_found"), "{err}");
}

#[test]
fn a_vm_that_does_not_run_says_how_to_start_it() {
    let ok = answers(HealthStatus::Ok);
    let mut stored = Stored::new(&[("a", ok.socket())]);
    let line = stored.document("a").to_line();
    stored.end();
    let (exit, out, err) = tool(&["a"], "", Some(&stored));
    assert_eq!((exit, out.as_str()), (69, ""));
    assert!(err.contains("not_running") && err.contains("`bg-vm start a`"), "{err}");
    let (exit, _, err) = tool(&["--wait", "60"], &line, Some(&stored));
    assert!(exit == 69 && err.contains("`bg-vm logs a`"), "{err}");
}

#[test]
fn waiting_ends_with_health() {
    let tries = AtomicUsize::new(0);
    let guest = Fake::open(move |mut stream| {
        use std::io::Write;
        lib_machine::guest::fake::read_head(&stream);
        let status = match tries.fetch_add(1, Ordering::SeqCst) {
            0 => return,
            1 => HealthStatus::Starting,
            _ => HealthStatus::Ok,
        };
        stream.write_all(reply("200 OK", &to_json(&health(status))).as_bytes()).unwrap();
    });
    let stored = Stored::new(&[("a", guest.socket())]);
    let (exit, out, err) = tool(&["--wait", "30", "a"], "", Some(&stored));
    assert_eq!((exit, err.as_str(), health_of(&out)), (0, "", HealthStatus::Ok));
    assert!(out.contains(r#""stage":"wait""#), "{out}");
}

#[test]
fn what_a_wait_has_seen_are_the_guests_own_stages() {
    let guest = answers(HealthStatus::Ok);
    let (_child, vmm) = stand_in(guest.socket());
    let mut doc = document(&vmm);
    let old = Timing { tool: "guest".into(), stage: "of_another_boot".into(), ms: 1.0 };
    doc.append_timings(&[old]).unwrap();
    for (up_at_ms, stages) in [(0.0, [true, false, false, true]), (1e15, [true, true, true, false])] {
        let timings = vec![Timing { tool: "guest".into(), stage: "kernel".into(), ms: 9.0 }];
        note_up(guest.socket().parent().unwrap(), &Boot { reboots: 0, up_at_ms, timings }).unwrap();
        let (exit, out, err) = tool(&["--wait", "30"], &doc.to_line(), None);
        assert_eq!((exit, err.as_str()), (0, ""));
        let has =
            ["kernel", "ssh_banner", "guest.wait", "wait"].map(|stage| out.contains(&format!("\"stage\":\"{stage}\"")));
        assert_eq!(has, stages, "{out}");
        assert!(!out.contains("of_another_boot"), "{out}");
        // Read back, nothing is added.
        let again = tool(&[], &out, None).1;
        assert_eq!(again.matches(r#""stage":"kernel""#).count(), 1, "{again}");
    }
}

#[test]
fn a_wait_that_ran_out_says_what_was_seen_last() {
    let guest = answers(HealthStatus::Starting);
    let (_child, vmm) = stand_in(guest.socket());
    let (exit, out, err) = tool(&["--wait", "0.05"], &document(&vmm).to_line(), None);
    assert_eq!((exit, out.as_str()), (75, ""));
    assert!(err.contains("timed_out") && err.contains("starting: sshd does not answer yet"), "{err}");
}

#[test]
fn the_input_is_one_machine_that_was_started() {
    let unstarted = r#"{"api_version":"banger/v1","kind":"Machine","name":"dev"}"#;
    for (stdin, exit, said) in [
        ("", 66, ""),
        ("\n", 66, ""),
        ("{}", 65, "bad_document"),
        (unstarted, 65, "`bg-vm start` writes it"),
        (r#"{"api_version":"banger/v1","kind":"Image","name":"dev"}"#, 65, "`Machine` is needed"),
    ] {
        let (got, out, err) = tool(&[], stdin, None);
        assert_eq!((got, out.as_str()), (exit, ""), "{stdin}: {err}");
        assert!(err.contains(said) && (said.is_empty() == err.is_empty()), "{stdin}: {err}");
    }
    let (exit, _, err) = tool(&["--file", "/nowhere/doc"], unstarted, None);
    assert_eq!(exit, 72, "{err}");
}
