//! In which order things become durable, as a trace shows it. A record: its content, its name, and the directory that has the name.
//! A journal: what it says is on the disk before anything else is done.

use super::verbs::{REGISTER, with_dev, without_dev, without_key};
use super::{World, build, trace};
use crate::support::finish;
use crate::support::fixture::{self, WORK};
use crate::support::has_strace;
use std::process::Command;

/// A verb, and the records that it saves, by the ends of their paths.
struct Saves {
    tool: &'static str,
    args: &'static [&'static str],
    before: fn(&World) -> String,
    files: &'static [&'static str],
}

const CREATED: &[&str] = &["/machines/dev/machine.json", "/machines/dev/ssh_host_ed25519_key"];

const SAVES: &[Saves] = &[
    Saves {
        tool: "bg-vm",
        args: &["create", "dev", "--work-size", WORK, "--no-start"],
        before: without_dev,
        files: CREATED,
    },
    Saves { tool: "bg-vm", args: &["create", "dev", "--work-size", WORK], before: without_dev, files: CREATED },
    Saves {
        tool: "bg-vm",
        args: &["start", "dev"],
        before: with_dev,
        // The last one is its shim's, when the VM ends.
        files: &["/machines/dev/machine.json", "/ssh/id_ed25519", "/ssh/id_ed25519.pub", "/machines/dev/exit.json"],
    },
    Saves {
        tool: "bg-seed",
        args: &["clone"],
        before: |world| {
            without_dev(world);
            fixture::plan(&world.sandbox, "dev")
        },
        files: &["/machines/dev"],
    },
    Saves {
        tool: REGISTER.tool,
        args: REGISTER.args,
        before: REGISTER.before,
        files: &["/image.json", "/images/other"],
    },
    Saves {
        tool: "bg-seed",
        args: &["build", "debian", "--size", WORK],
        before: |_| String::new(),
        files: &["/images/debian/image.json", "/images/debian/seed-16777216.ext4"],
    },
    Saves { tool: "bg-image", args: &["default", "debian"], before: |_| String::new(), files: &["/default-image"] },
    Saves {
        tool: "bg-image",
        args: &["bundle", "debian"],
        before: without_key,
        files: &["/bundle.json", "/state/bundle", "/ssh/id_ed25519"],
    },
    Saves {
        tool: "bg-image",
        args: &["reconcile", "debian"],
        before: |world| {
            // A kernel that was rebuilt in its place.
            let initrd = world.sandbox.state("images/debian/initrd");
            std::fs::remove_file(&initrd).unwrap();
            std::fs::write(initrd, "070701 another").unwrap();
            String::new()
        },
        files: &["/image.json", "/images/debian"],
    },
];

/// What a line of the trace is about.
#[derive(Clone, Debug, PartialEq)]
enum Event {
    /// Something was written to it.
    Wrote(String),
    /// Of a file or a directory.
    Synced(String),
    /// From there to here.
    Renamed(String, String),
    /// Of a whole file system.
    SyncedAll,
    /// A new file.
    Made(String),
    /// A program was started.
    Started(String),
}

const CALLS: &str = "trace=ioctl,copy_file_range,ftruncate,write,writev,pwrite64,fsync,fdatasync,syncfs,?rename,?renameat,renameat2,?open,openat,execve";

/// Those of `-f -y`, each with its thread: `123 fsync(4</path>) = 0`, `123 renameat2(AT_FDCWD</cwd>, "/a", AT_FDCWD</cwd>, "/b",
/// 0) = 0`. Of a call that another thread has cut in two, the first half has all that counts.
fn events(log: &str) -> Vec<(&str, Event)> {
    let event = |line: &'_ str| {
        let (_, call) = line.split_once(' ')?;
        let quoted: Vec<&str> = call.split('"').skip(1).step_by(2).collect();
        let quoted = |n: usize| quoted.get(n).map(|word| (*word).to_owned());
        let file = |rest: &str| Some(rest.split_once('<')?.1.split_once('>')?.0.to_owned());
        match call.trim_start().split_once('(')? {
            ("fsync" | "fdatasync", rest) => Some(Event::Synced(file(rest)?)),
            ("write" | "writev" | "pwrite64", rest) => Some(Event::Wrote(file(rest)?)),
            // A journal is emptied when what it says does not matter any more.
            ("ftruncate", rest) => Some(Event::Wrote(file(rest)?)).filter(|_| !rest.contains("/journal>")),
            // The second descriptor is written to, and the first of the other.
            ("copy_file_range", rest) => Some(Event::Wrote(file(rest.split_once('>')?.1)?)),
            ("ioctl", rest) if rest.contains("FICLONE") => Some(Event::Wrote(file(rest)?)),
            ("syncfs", _) => Some(Event::SyncedAll),
            ("open" | "openat", rest) if rest.contains("O_CREAT") && !rest.contains(") = -1") => {
                Some(Event::Made(quoted(0)?))
            }
            ("execve", _) => Some(Event::Started(quoted(0)?)),
            (name, _) if name.starts_with("rename") => Some(Event::Renamed(quoted(0)?, quoted(1)?)),
            _ => None,
        }
    };
    log.lines().filter_map(|line| Some((line.split_once(' ')?.0, event(line)?))).collect()
}

/// Whatever got its name by a rename (but what is to be removed) had its content synced before it had that name, and its
/// directory after it; or all of the file system was synced. What is in a VM's directory may come later, but before its record.
/// Gives the names.
#[track_caller]
fn assert_durable(events: &[Event], roots: &[&str], what: &str) -> Vec<String> {
    let mut named = vec![];
    for (at, event) in events.iter().enumerate() {
        let Event::Renamed(from, to) = event else { continue };
        let dir = to.rsplit_once('/').unwrap().0;
        if !roots.iter().any(|root| to.starts_with(root)) || dir.ends_with("/staging") {
            continue;
        }
        let is_record = |event: &Event| matches!(event, Event::Renamed(_, name) if name.ends_with("/machine.json"));
        let whole = events[at..].iter().position(is_record).filter(|n| *n > 0).map_or(events.len(), |n| at + n);
        let synced = |file: &str, events: &[Event]| {
            events.iter().any(|e| *e == Event::SyncedAll || matches!(e, Event::Synced(path) if path == file))
        };
        let below = format!("{from}/");
        let is_below = |e: &Event| match e {
            Event::Made(path) | Event::Wrote(path) | Event::Renamed(_, path) => path.starts_with(&below),
            _ => false,
        };
        let is_dir = events[..at].iter().any(is_below);
        for (n, event) in events[..at].iter().enumerate() {
            // Who holds a lock is nothing that lasts.
            let Event::Wrote(path) = event else { continue };
            let lasts = path.starts_with(&below) && !path.ends_with("/lock") && !path.contains("/.tmp-");
            assert!(
                !lasts || synced(path, &events[n..at]),
                "{what}: {path} was not synced before {from} was {to}: {events:#?}"
            );
        }
        let written = events[..at].iter().rposition(|e| matches!(e, Event::Wrote(path) if path == from)).unwrap_or(0);
        let content = is_dir || synced(from, &events[written..at]) || synced(to, &events[at..whole]);
        assert!(content, "{what}: {from} was not synced before it was {to}: {events:#?}");
        assert!(synced(dir, &events[at..]), "{what}: {dir} was not synced after it got {to}: {events:#?}");
        named.push(to.clone());
    }
    named
}

/// What a thread has written to a journal is synced before it does anything else, and a VM's disks and its processes come
/// after something that was.
#[track_caller]
fn assert_said_before(events: &[(&str, Event)], what: &str) {
    let is_journal = |path: &str| path.ends_with("/journal");
    for (at, (thread, event)) in events.iter().enumerate() {
        match event {
            Event::Wrote(path) if is_journal(path) => {
                let next = events[at + 1..].iter().find(|(other, _)| other == thread);
                let is_synced = matches!(next, Some((_, Event::Synced(next))) if next == path);
                assert!(is_synced, "{what}: {path} was written, and then came {next:?}");
            }
            Event::Made(path) | Event::Started(path)
                if path.ends_with("/root.ext4") || path.ends_with("/work.ext4") || path.ends_with("/bg-shim") =>
            {
                let is_said = |(_, e): &(&str, Event)| matches!(e, Event::Synced(path) if is_journal(path));
                assert!(events[..at].iter().any(is_said), "{what}: {path} came before its journal said so");
            }
            _ => {}
        }
    }
}

/// Runs it under strace to its end, and gives the log. A VM that it has started is ended, for strace waits for its shim.
fn traced(world: &World, command: &Command, stdin: &str) -> String {
    let log = world.sandbox.path("order");
    let mut child = trace::under_strace(command, &log, &["-f", "-y", "-s", "0", "-e", CALLS]).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), stdin.as_bytes()).unwrap();
    let mut stdout = vec![];
    std::io::Read::read_to_end(child.stdout.as_mut().unwrap(), &mut stdout).unwrap();
    if String::from_utf8_lossy(&stdout).contains(r#""vmm":"#) && world.record("dev").exists() {
        world.vm(&["kill", "dev"], "").ok();
    }
    let done = finish(child, b"");
    assert_eq!(done.exit, 0, "{command:?}: {done:?}");
    String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned()
}

#[track_caller]
fn is_ordered(world: &World, command: &Command, stdin: &str, files: &[&str]) {
    let what = format!("{command:?}");
    let log = traced(world, command, stdin);
    let events = events(&log);
    assert_said_before(&events, &what);
    let roots = [world.sandbox.path("state"), world.sandbox.path("cache")].map(|dir| dir.display().to_string());
    let alone: Vec<Event> = events.into_iter().map(|(_, event)| event).collect();
    let named = assert_durable(&alone, &roots.each_ref().map(String::as_str), &what);
    for file in files {
        assert!(named.iter().any(|name| name.ends_with(file)), "{what}: no {file} in {named:#?}");
    }
}

#[test]
fn a_record_is_written_synced_renamed_and_its_directory_synced() {
    if !has_strace("a_record_is_written_synced_renamed_and_its_directory_synced") {
        return;
    }
    let world = World::new(&["kept"]);
    for Saves { tool, args, before, files } in SAVES {
        let stdin = before(&world);
        let mut command = world.command(tool, args);
        command.env("BG_FIRECRACKER", "/nowhere/firecracker");
        is_ordered(&world, &command, &stdin, files);
        world.sandbox.collect();
    }
    fixture::create(&world.sandbox, "other").ok();
}

#[test]
fn an_image_build_makes_durable_what_it_gives_a_name() {
    let test = "an_image_build_makes_durable_what_it_gives_a_name";
    if has_strace(test) && build::has_guest(test) {
        let world = World::new(&["kept"]);
        let stdin = build::base(&world);
        is_ordered(&world, &world.command("bg-image-build", build::ARGS), &stdin, &["/image.json"]);
    }
}

#[test]
fn an_order_that_is_wrong_is_seen() {
    let [synced, wrote] = [Event::Synced, Event::Wrote].map(|event| move |path: &str| event(path.into()));
    let renamed = |from: &str, to: &str| Event::Renamed(from.into(), to.into());
    let record = || renamed("/s/d/.tmp-1", "/s/d/r.json");
    let good = [wrote("/s/d/.tmp-1"), synced("/s/d/.tmp-1"), record(), synced("/s/d")];
    assert_eq!(assert_durable(&good, &["/s"], "good"), ["/s/d/r.json"]);
    let log = "7 write(4</s/d/.tmp-1>, \"\"..., 9) = 9\n7 fsync(4</s/d/.tmp-1>) = 0\n7 rename(\"/s/d/.tmp-1\", \"/s/d/r.json\") = 0\n\
               8 fsync(5</s/d> <unfinished ...>\n";
    let (threads, found): (Vec<&str>, Vec<Event>) = events(log).into_iter().unzip();
    assert_eq!((threads, found), (vec!["7", "7", "7", "8"], good.to_vec()));
    let key = || renamed("/s/d/.tmp-2", "/s/d/key");
    let vm = || renamed("/s/d/.tmp-1", "/s/d/machine.json");
    let later = [key(), synced("/s/d/key"), synced("/s/d/.tmp-1"), vm(), synced("/s/d")];
    assert_eq!(assert_durable(&later, &["/s"], "later").len(), 2);
    for bad in [
        vec![record(), synced("/s/d/.tmp-1"), synced("/s/d")],
        vec![synced("/s/d"), synced("/s/d/.tmp-1"), record()],
        vec![synced("/s/d/.tmp-2"), record(), synced("/s/d")],
        vec![synced("/s/d/.tmp-1"), wrote("/s/d/.tmp-1"), record(), synced("/s/d")],
        vec![key(), synced("/s/d/.tmp-1"), vm(), synced("/s/d/key"), synced("/s/d")],
    ] {
        assert!(std::panic::catch_unwind(|| assert_durable(&bad, &["/s"], "bad")).is_err(), "{bad:?}");
    }
    let published = |synced: Event| {
        let events =
            [wrote("/s/staging/1/f"), synced, renamed("/s/staging/1", "/s/d/image"), Event::Synced("/s/d".into())];
        std::panic::catch_unwind(|| assert_durable(&events, &["/s"], "published")).is_ok()
    };
    assert!(published(Event::SyncedAll) && published(synced("/s/staging/1/f")));
    assert!(!published(synced("/s/staging/1")) && !published(wrote("/s/staging/1/f")));
    let said = |events: &[Event]| {
        let events: Vec<(&str, Event)> = events.iter().map(|event| ("7", event.clone())).collect();
        std::panic::catch_unwind(|| assert_said_before(&events, "journal")).is_ok()
    };
    let made = || Event::Made("/s/d/root.ext4".into());
    assert!(said(&[wrote("/s/d/journal"), synced("/s/d/journal"), made()]));
    assert!(!said(&[wrote("/s/d/journal"), made(), synced("/s/d/journal")]));
    assert!(!said(&[made(), wrote("/s/d/journal"), synced("/s/d/journal")]));
    assert!(!said(&[wrote("/s/d/journal")]));
}
