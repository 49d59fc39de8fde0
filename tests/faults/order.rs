//! In which order a record becomes durable: its content, its name, and the directory that has the name. As a trace shows it.

use super::{REGISTER, World, fixture, has_strace, trace, with_dev, without_dev};
use crate::support::finish;
use crate::support::fixture::WORK;

/// A record that a verb saves, by the end of its path.
struct Record {
    tool: &'static str,
    args: &'static [&'static str],
    before: fn(&World) -> String,
    file: &'static str,
}

const RECORDS: [Record; 5] = [
    Record {
        tool: "bg-vm",
        args: &["create", "dev", "--work-size", WORK, "--no-start"],
        before: without_dev,
        file: "/machines/dev/machine.json",
    },
    Record { tool: "bg-vm", args: &["start", "dev"], before: with_dev, file: "/machines/dev/machine.json" },
    Record { tool: REGISTER.tool, args: REGISTER.args, before: REGISTER.before, file: "/image.json" },
    Record {
        tool: "bg-seed",
        args: &["build", "debian", "--size", WORK],
        before: |_| String::new(),
        file: "/images/debian/image.json",
    },
    Record { tool: "bg-image", args: &["default", "debian"], before: |_| String::new(), file: "/default-image" },
];

/// What a line of the trace is about.
#[derive(Debug, PartialEq)]
enum Event {
    /// Of a file or a directory.
    Synced(String),
    /// From there to here.
    Renamed(String, String),
    /// Of a whole file system.
    SyncedAll,
}

/// Those of `-f -y`: `123 fsync(4</path>) = 0`, `123 renameat2(AT_FDCWD</cwd>, "/a", AT_FDCWD</cwd>, "/b", 0) = 0`. Of a call
/// that another thread has cut in two, the first half has all that counts.
fn events(log: &str) -> Vec<Event> {
    let event = |line: &str| {
        let (_, call) = line.split_once(' ')?;
        let call = call.trim_start();
        let quoted: Vec<&str> = call.split('"').skip(1).step_by(2).collect();
        match call.split_once('(')? {
            ("fsync" | "fdatasync", rest) => Some(Event::Synced(rest.split_once('<')?.1.split_once('>')?.0.to_owned())),
            ("syncfs", _) => Some(Event::SyncedAll),
            (name, _) if name.starts_with("rename") => {
                Some(Event::Renamed((*quoted.first()?).to_owned(), (*quoted.get(1)?).to_owned()))
            }
            _ => None,
        }
    };
    log.lines().filter_map(event).collect()
}

/// The record's content was synced before it had its name, and the name after that, in its directory; or all of both, with
/// the directory in which it was staged.
#[track_caller]
fn assert_order(events: &[Event], file: &str, what: &str) {
    let is_it = |event: &Event| matches!(event, Event::Renamed(_, to) if to.ends_with(file));
    let at = events.iter().rposition(is_it).unwrap_or_else(|| panic!("{what}: no {file} in {events:#?}"));
    let Event::Renamed(from, to) = &events[at] else { unreachable!() };
    let dir = to.rsplit_once('/').unwrap().0;
    let content = |event: &Event| matches!(event, Event::Synced(path) if path == from);
    let name = |event: &Event| *event == Event::SyncedAll || matches!(event, Event::Synced(path) if path == dir);
    assert!(events[..at].iter().any(content), "{what}: {from} was not synced before it was renamed: {events:#?}");
    assert!(events[at + 1..].iter().any(name), "{what}: {dir} was not synced after it: {events:#?}");
}

#[test]
fn a_record_is_written_synced_renamed_and_its_directory_synced() {
    if !has_strace("a_record_is_written_synced_renamed_and_its_directory_synced") {
        return;
    }
    let world = World::new(&["kept"]);
    for Record { tool, args, before, file } in RECORDS {
        let stdin = before(&world);
        let (command, log) = (world.command(tool, args), world.sandbox.path("order"));
        let options = ["-f", "-y", "-s", "4096", "-e", "trace=fsync,fdatasync,syncfs,?rename,?renameat,renameat2"];
        // Who starts a VM is not waited for to the VM's end: the VM is killed by the next.
        let mut child = trace::under_strace(&command, &log, &options).spawn().unwrap();
        if args[0] == "start" {
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), stdin.as_bytes()).unwrap();
            std::io::Read::read_to_end(child.stdout.as_mut().unwrap(), &mut vec![]).unwrap();
            world.vm(&["kill", "dev"], "").ok();
            assert!(child.wait().unwrap().success(), "{args:?}");
        } else {
            finish(child, stdin.as_bytes()).ok();
        }
        let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
        assert_order(&events(&text), file, &format!("{tool} {args:?}"));
    }
    fixture::create(&world.sandbox, "other").ok();
}

#[test]
fn an_order_that_is_wrong_is_seen() {
    let synced = |path: &str| Event::Synced(path.into());
    let renamed = || Event::Renamed("/s/d/.tmp-1".into(), "/s/d/r.json".into());
    let good = [synced("/s/d/.tmp-1"), renamed(), synced("/s/d")];
    assert_order(&good, "/r.json", "good");
    let log = "7 fsync(4</s/d/.tmp-1>) = 0\n7 rename(\"/s/d/.tmp-1\", \"/s/d/r.json\") = 0\n8 fsync(5</s/d> <unfinished ...>\n";
    assert_eq!(events(log), good);
    for bad in [
        vec![renamed(), synced("/s/d/.tmp-1"), synced("/s/d")],
        vec![synced("/s/d"), synced("/s/d/.tmp-1"), renamed()],
        vec![synced("/s/d/.tmp-2"), renamed(), synced("/s/d")],
    ] {
        assert!(std::panic::catch_unwind(|| assert_order(&bad, "/r.json", "bad")).is_err(), "{bad:?}");
    }
}
