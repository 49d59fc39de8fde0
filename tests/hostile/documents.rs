//! Documents on stdin that no tool has written.

use super::{bounded, flipped, full};
use crate::contract::{FILTERS, Filter, input::VERBS};
use crate::support::fixture::{self, Files};
use crate::support::{Sandbox, Terminals};
use lib_common::doc::{Kind, MAX_BYTES};
use lib_common::error::Code;

/// More than any document may nest.
const DEEP: usize = 100_000;

/// What a real document of each kind is, and the store that it is of.
struct Real {
    sandbox: Sandbox,
    image: String,
    machine: String,
}

impl Real {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let image = Files::new(&sandbox, "a").document().to_string();
        fixture::register(&sandbox, "debian");
        let machine = fixture::plan(&sandbox, "dev").trim_end().to_owned();
        Real { sandbox, image, machine }
    }

    fn of(&self, kind: Kind) -> &str {
        match kind {
            Kind::Image => &self.image,
            Kind::Machine => &self.machine,
        }
    }
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

/// As many of `item` as a document may have, with what `item` gives for each number.
fn many(limit: usize, item: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for n in 0.. {
        let next = item(n);
        if text.len() + next.len() >= limit {
            return text;
        }
        text.push_str(&next);
    }
    unreachable!()
}

/// With members in front of its end.
fn with(doc: &str, members: &str) -> Vec<u8> {
    format!("{},{members}}}", doc.strip_suffix('}').unwrap()).into_bytes()
}

/// What is refused as no document, and what it is.
fn refused(good: &str) -> Vec<(&'static str, Vec<u8>)> {
    let room = MAX_BYTES - good.len() - 64;
    vec![
        ("nested arrays", nested(DEEP).into_bytes()),
        ("arrays that are never closed", "[".repeat(MAX_BYTES).into_bytes()),
        ("objects that are never closed", r#"{"a":"#.repeat(DEEP).into_bytes()),
        ("a version as deep", good.replacen(r#""banger/v1""#, &nested(DEEP), 1).into()),
        ("more than the limit", with(good, &format!(r#""x":"{}""#, "x".repeat(MAX_BYTES)))),
        ("sixteen times the limit", vec![b' '; MAX_BYTES * 16].into_iter().chain(*b"{}").collect()),
        ("a member twice", with(good, r#""x":1,"x":2"#)),
        ("a member twice, once escaped", with(good, r#""x":1,"\u0078":2"#)),
        ("a member twice, far apart", with(good, &format!(r#"{}"k0":1"#, many(room, |n| format!(r#""k{n}":1,"#))))),
        ("no UTF-8", [good.as_bytes(), b"\xc3\x28"].concat()),
        ("half a surrogate", with(good, r#""\ud800":1"#)),
        ("a zero byte", [good.as_bytes(), b"\0"].concat()),
        ("the version before", good.replacen("banger/v1", "banger/v0", 1).into()),
        ("the next version", good.replacen("banger/v1", "banger/v2", 1).into()),
        ("a version of its own", good.replacen("banger/v1", "banger/v1.1", 1).into()),
    ]
}

/// A document whose section is none.
fn refused_sections(good: &str, section: &str) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (
            "a deep section",
            good.replacen(&format!(r#""{section}":{{"#), &format!(r#""{section}":{{"x":{},"#, nested(DEEP)), 1).into(),
        ),
        (
            "a section with a member twice",
            good.replacen(&format!(r#""{section}":{{"#), &format!(r#""{section}":{{"x":1,"x":1,"#), 1).into(),
        ),
    ]
}

/// What goes through as somebody else's section, whatever becomes of the document.
fn large(good: &str) -> Vec<(&'static str, Vec<u8>)> {
    let room = MAX_BYTES - good.len() - 64;
    let list = many(room - 16, |n| format!("{}1", if n > 0 { "," } else { "" }));
    let timing = r#"{"tool":"x","stage":"y","ms":1}"#;
    let timings = many(room - 16, |n| format!("{}{timing}", if n > 0 { "," } else { "" }));
    vec![
        ("as many members as fit", with(good, &format!(r#"{}"z":1"#, many(room, |n| format!(r#""k{n}":1,"#))))),
        ("one long string", with(good, &format!(r#""x":"{}""#, r"\u001b".repeat(room / 6 - 2)))),
        ("one long number", with(good, &format!(r#""x":{}"#, "9".repeat(room - 16)))),
        ("one long list", with(good, &format!(r#""x":[{list}]"#))),
        ("a deep list of somebody else", with(good, &format!(r#""x":{}"#, nested(DEEP)))),
        (
            "many timings",
            good.replace(r#""timings""#, r#""y""#)
                .strip_suffix('}')
                .map(|d| format!(r#"{d},"timings":[{timings}]}}"#))
                .unwrap()
                .into(),
        ),
    ]
}

/// A section of that kind's documents that every one of its filters has to read, or none.
fn section(kind: Kind) -> &'static str {
    match kind {
        Kind::Image => "rootfs",
        Kind::Machine => "spec",
    }
}

#[test]
fn what_is_no_document_is_refused_with_little_effort() {
    let real = Real::new();
    let store = Sandbox::new();
    for filter in FILTERS {
        for (what, bytes) in refused(real.of(filter.kind)) {
            let done = bounded(&store, &store.command(filter.tool, filter.args), &bytes);
            assert!(done.exit > 1 && !done.stderr.is_empty(), "{}: {what}: {done:?}", filter.label());
            assert_eq!(done.failed().code, Code::BadDocument.as_str(), "{}: {what}", filter.label());
        }
    }
    store.assert_untouched("no documents");
}

/// Those that do no more with a document here than to read and write it: no build, no network.
fn cheap() -> impl Iterator<Item = &'static Filter> {
    FILTERS.iter().filter(|f| !matches!(f.tool, "bg-rootfs" | "bg-image-build" | "bg-tap"))
}

#[test]
fn a_section_that_is_none_is_no_panic_and_costs_little() {
    let real = Real::new();
    let store = Sandbox::new();
    for filter in cheap() {
        for (what, bytes) in refused_sections(real.of(filter.kind), section(filter.kind)) {
            let done = bounded(&store, &store.command(filter.tool, filter.args), &bytes);
            // What is not there was removed already; where the VM is looked for first, it is not found.
            let label = format!("{}: {what}: {done:?}", filter.label());
            let fine = |code: &str| matches!(code, "bad_document" | "not_found" | "not_running");
            assert!(done.exit == 0 && filter.args == ["rm"] || fine(&done.failed().code), "{label}");
        }
    }
}

#[test]
fn what_is_as_large_as_a_document_may_be_costs_little() {
    let real = Real::new();
    for filter in cheap() {
        let store = Sandbox::new();
        for (what, bytes) in large(real.of(filter.kind)) {
            assert!(bytes.len() <= MAX_BYTES, "{what}: {}", bytes.len());
            let done = bounded(&store, &store.command(filter.tool, filter.args), &bytes);
            if done.exit > 1 {
                assert_ne!(done.failed().code, "internal", "{}: {what}", filter.label());
            }
        }
    }
}

#[test]
fn no_flipped_bit_is_a_panic() {
    let real = Real::new();
    // One that has no factor in common with the eight bits of a byte.
    let step = if full() { 1 } else { 61 };
    for (label, verb, kind) in VERBS.iter().filter(|(label, ..)| !label.starts_with("bg-tap")) {
        let store = Sandbox::new();
        for bytes in flipped(real.of(*kind).as_bytes(), step) {
            let done = store.inside(*verb, &bytes, Terminals::default());
            if done.exit > 1 {
                assert_ne!(done.failed().code, "internal", "{label}: {}", String::from_utf8_lossy(&bytes));
            }
        }
    }
    assert_eq!(real.sandbox.run("bg-image", &["ls"], "").documents().len(), 1);
}

#[test]
fn a_list_has_an_end_too() {
    let sandbox = Sandbox::new();
    let finding = r#"{"api_version":"banger/v1","kind":"file","id":"/x","owner":"","age_ms":0,"evidence":"","is_leak":true,"fix":""}"#;
    let gc = sandbox.command("bg-gc", &["--now"]);
    let line = |text: String| format!("{finding}\n{text}\n").into_bytes();
    let endless = vec![b'x'; 65 << 20];
    let lines = format!("{finding}\n").repeat((65 << 20) / finding.len());
    for (what, bytes) in [
        ("deep", line(nested(DEEP))),
        ("a deep field", line(finding.replace(r#""/x""#, &nested(DEEP)))),
        ("one line without an end", endless),
        ("lines without an end", lines.into_bytes()),
        ("the next version", line(finding.replace("banger/v1", "banger/v2"))),
        ("a field twice", line(finding.replace(r#""fix":"""#, r#""fix":"","fix":"""#))),
        ("no UTF-8", [&line(String::new())[..], b"\xff\n"].concat()),
    ] {
        let done = bounded(&sandbox, &gc, &bytes);
        assert_eq!(done.failed().code, Code::BadDocument.as_str(), "{what}");
    }
    for bytes in flipped(finding.as_bytes(), if full() { 1 } else { 29 }) {
        let done = sandbox.run("bg-gc", &["--now", "--dry-run"], &bytes);
        assert!(done.exit == 0 || done.failed().code == "bad_document", "{done:?}");
    }
}
