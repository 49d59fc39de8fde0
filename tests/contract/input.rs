//! Stdin, `--file` and names: what is no document is refused before anything happens.

use super::{FILTERS, Filter};
use crate::support::fixture::{self, Files};
use crate::support::{Sandbox, Terminals, Verb, finish};
use lib_common::cli::Source;
use lib_common::doc::{Kind, MAX_BYTES, Name};
use lib_common::error::Code;
use lib_common::ops::image::{self, BundleArgs, ReconcileArgs};
use lib_common::ops::machine::{self, ListArgs, RemoveArgs, StopArgs};
use lib_common::ops::register::{RegisterArgs, register};
use lib_common::ops::seed::{self, BuildArgs};
use lib_common::ops::tap::{self, AcquireArgs, ReleaseArgs};
use std::time::Duration;

#[test]
fn an_empty_stdin_is_66_and_silent_because_the_tool_upstream_has_spoken() {
    for filter in FILTERS {
        for blank in ["", "\n", " \n\t"] {
            let sandbox = Sandbox::new();
            let done = sandbox.run(filter.tool, filter.args, blank);
            assert_eq!((done.exit, done.stdout.len(), done.stderr.as_str()), (66, 0, ""), "{}", filter.label());
            sandbox.assert_untouched(&filter.label());
        }
    }
}

/// What is wrong with it, the bytes, and a word of the message or its causes.
fn wrong_documents(filter: &Filter) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = filter.small();
    let with = |more: &str| format!("{},{more}}}", good.strip_suffix('}').unwrap()).into_bytes();
    let large = format!(r#""x":"{}""#, "x".repeat(MAX_BYTES));
    vec![
        ("junk", b"junk".to_vec(), "not a document"),
        ("a list", b"[]".to_vec(), "not a document"),
        ("null", b"null".to_vec(), "not a document"),
        ("half of it", good.as_bytes()[..good.len() / 2].to_vec(), "ends too early"),
        ("all but its end", good.as_bytes()[..good.len() - 1].to_vec(), "ends too early"),
        ("two documents", format!("{good}\n{good}\n").into_bytes(), "there are 2 documents"),
        ("text after it", format!("{good} x").into_bytes(), "trailing characters"),
        ("a byte order mark", format!("\u{feff}{good}").into_bytes(), "not a document"),
        ("a field twice", with(r#""name":"b""#), "duplicate field `name`"),
        ("not UTF-8", [&with(r#""x":""#)[..10], b"\xff\xfe"].concat(), "UTF-8"),
        ("more than a megabyte", with(&large), "larger than 1 MiB"),
        ("another kind", good.replace(filter.kind.as_str(), filter.other_kind()).into_bytes(), "is needed"),
        ("no kind", br#"{"api_version":"banger/v1"}"#.to_vec(), "no `kind`"),
        ("no api_version", br#"{"kind":"Image"}"#.to_vec(), "no `api_version`"),
        ("another api_version", good.replace("v1", "v9").into_bytes(), "known: `banger/v1`"),
        ("a number as api_version", good.replace(r#""banger/v1""#, "1").into_bytes(), "not a string"),
    ]
}

#[test]
fn what_is_no_document_is_65_says_why_and_changes_nothing() {
    for filter in FILTERS {
        for (what, bytes, word) in wrong_documents(filter) {
            let sandbox = Sandbox::new();
            let doc = sandbox.run(filter.tool, filter.args, &bytes).failed_with(Code::BadDocument);
            let said = format!("{} {:?}", doc.message, doc.causes);
            assert!(said.contains(word), "{}, {what}: {said}", filter.label());
            assert_eq!(doc.tool, filter.tool);
            sandbox.assert_untouched(&format!("{}, {what}", filter.label()));
        }
    }
}

/// The verbs that need no VM, run inside this process, so that thousands of runs are quick.
pub const VERBS: &[(&str, Verb, Kind)] = &[
    ("bg-register", |_, cx| register(cx, &RegisterArgs::default()), Kind::Image),
    ("bg-seed build", |_, cx| seed::build(cx, &BuildArgs::default()), Kind::Image),
    ("bg-seed check", |_, cx| seed::check_image(cx, &Source::default()), Kind::Image),
    ("bg-seed clone", |_, cx| machine::clone(cx, &Source::default()), Kind::Machine),
    (
        "bg-image reconcile --kernel -",
        |_, cx| image::reconcile(cx, &ReconcileArgs { name: None, kernel: Some("-".into()) }),
        Kind::Image,
    ),
    (
        "bg-image bundle --base -",
        |_, cx| image::bundle(cx, &BundleArgs { name: None, base: Some("-".into()) }),
        Kind::Image,
    ),
    ("bg-vm start", |_, cx| machine::start(cx, &[], None), Kind::Machine),
    ("bg-vm stop", |_, cx| machine::stop(cx, &[], &StopArgs { file: None, timeout: Duration::ZERO }), Kind::Machine),
    ("bg-vm kill", |_, cx| machine::kill(cx, &[], None), Kind::Machine),
    ("bg-vm rm", |_, cx| machine::rm(cx, &[], &RemoveArgs { file: None, force: false }), Kind::Machine),
    ("bg-tap acquire", |_, cx| tap::acquire(cx, &AcquireArgs::default()), Kind::Machine),
    ("bg-tap release", |_, cx| tap::release(cx, &ReleaseArgs::default()), Kind::Machine),
    ("bg-vm stats", |_, cx| machine::stats(cx, &[], None), Kind::Machine),
    ("bg-vm ports", |_, cx| machine::ports(cx, &[], None, ListArgs::default()), Kind::Machine),
];

#[test]
fn no_prefix_of_a_real_document_is_taken_for_one() {
    let source = Sandbox::new();
    let image = Files::new(&source, "a").document().to_string();
    fixture::register(&source, "a");
    let machine = fixture::plan(&source, "dev");
    for (label, verb, kind) in VERBS {
        let whole = match kind {
            Kind::Image => image.as_str(),
            Kind::Machine => machine.trim_end(),
        };
        let sandbox = Sandbox::new();
        for end in 1..whole.len() {
            let done = sandbox.inside(*verb, &whole.as_bytes()[..end], Terminals::default());
            assert_eq!(done.failed().code, "bad_document", "{label}: {}", &whole[..end]);
        }
        sandbox.assert_untouched(label);
    }
}

#[test]
fn a_terminal_on_stdin_is_a_usage_error_at_once() {
    let lists = [("bg-gc", &[][..])];
    // Two are sources on a terminal.
    let filters = FILTERS.iter().filter(|f| !["bg-rootfs", "bg-image-build"].contains(&f.tool));
    let documents = filters.map(|f| (f.tool, f.args));
    for (tool, args) in documents.chain(lists) {
        let sandbox = Sandbox::new();
        let pty = nix::pty::openpty(None, None).unwrap();
        // Typed in advance: a tool that reads all the same sees the end of its stdin, and does not hang here.
        nix::unistd::write(&pty.master, b"\x04").unwrap();
        let child = sandbox.command(tool, args).stdin(pty.slave).spawn().unwrap();
        let doc = finish(child, b"").failed_with(Code::Usage);
        assert!(doc.message.contains("terminal"), "{tool} {args:?}: {doc:?}");
        assert!(doc.hint.is_some(), "{tool} {args:?}: {doc:?}");
        sandbox.assert_untouched(tool);
    }
}

#[test]
fn a_file_that_is_missing_is_72_and_one_that_is_there_goes_before_stdin() {
    for filter in FILTERS.iter().filter(|f| f.file) {
        let sandbox = Sandbox::new();
        let missing = sandbox.path("missing.json").display().to_string();
        let with_file = |path: &str| {
            let (verb, rest) = filter.args.split_at(usize::from(filter.args.first().is_some_and(|a| *a != "--")));
            let args: Vec<&str> = verb.iter().copied().chain(["--file", path]).chain(rest.iter().copied()).collect();
            sandbox.run(filter.tool, &args, filter.small())
        };
        let doc = with_file(&missing).failed_with(Code::MissingFile);
        assert!(doc.message.contains(&missing), "{}: {doc:?}", filter.label());
        let junk = sandbox.path("junk.json");
        std::fs::write(&junk, "junk").unwrap();
        with_file(junk.to_str().unwrap()).failed_with(Code::BadDocument);
        sandbox.assert_untouched(&filter.label());
    }
}

#[test]
fn a_name_that_is_not_there_is_64_and_the_nearest_is_named() {
    let sandbox = Sandbox::new();
    fixture::register(&sandbox, "debian");
    fixture::create(&sandbox, "develop");
    let vm = [
        ("bg-vm", &["start"][..]),
        ("bg-vm", &["stop"]),
        ("bg-vm", &["restart"]),
        ("bg-vm", &["kill"]),
        ("bg-vm", &["show"]),
        ("bg-vm", &["logs"]),
        ("bg-vm", &["stats"]),
        ("bg-seed", &["check", "--vm"]),
        ("bg-tap", &["release"]),
        ("bg-health", &[]),
        ("bg-ssh", &[]),
    ];
    let image = [
        ("bg-image", &["show"][..]),
        ("bg-image", &["default"]),
        ("bg-image", &["verify"]),
        ("bg-image", &["reconcile"]),
        ("bg-image", &["bundle"]),
        ("bg-image", &["diff", "debian"]),
        ("bg-image-build", &["--base"]),
        ("bg-seed", &["build"]),
        ("bg-seed", &["check"]),
        ("bg-vm", &["plan", "new", "--image"]),
        ("bg-vm", &["create", "new", "--image"]),
    ];
    let cases = vm.iter().map(|c| (c, "develp", "develop")).chain(image.iter().map(|c| (c, "debain", "debian")));
    for ((tool, args), wrong, right) in cases {
        let args = [args, &[wrong][..]].concat();
        let doc = sandbox.run(tool, &args, "").failed_with(Code::NotFound);
        assert!(doc.message.contains(wrong), "{tool} {args:?}: {doc:?}");
        assert!(doc.hint.as_ref().is_some_and(|h| h.contains(right)), "{tool} {args:?}: {doc:?}");
    }
}

#[test]
fn a_name_that_can_be_none_is_64_before_anything_else() {
    let long = "x".repeat(64);
    for name in ["", "A", "a_b", "../a", "a/b", "a\n", "é", &long] {
        assert!(Name::parse(name).is_err());
        for (tool, args) in
            [("bg-vm", &["plan"][..]), ("bg-vm", &["rm"]), ("bg-image", &["rm"]), ("bg-register", &["--name"])]
        {
            let sandbox = Sandbox::new();
            sandbox.run(tool, &[args, &[name][..]].concat(), "").failed_with(Code::Usage);
            sandbox.assert_untouched(tool);
        }
    }
}

#[test]
fn a_list_may_be_empty_and_each_of_its_lines_is_checked() {
    let sandbox = Sandbox::new();
    for empty in ["", "\n\n"] {
        assert_eq!(sandbox.run("bg-gc", &["--now"], empty).ok(), "");
    }
    let finding = r#"{"api_version":"banger/v1","kind":"file","id":"/x","owner":"","age_ms":0,"evidence":"","is_leak":true,"fix":""}"#;
    assert_eq!(sandbox.run("bg-gc", &["--now"], format!("{finding}\n")).ok(), "", "nothing of that id is there");
    for (line, word) in [
        ("junk".to_owned(), "expected"),
        (finding.replace("is_leak", "is_laek"), "is_laek"),
        (finding.replace(r#""fix":"""#, r#""fix":"","fix":"""#), "duplicate field `fix`"),
        (finding.replace("banger/v1", "banger/v9"), "banger/v9"),
        (format!("{finding}{finding}"), "after the document"),
    ] {
        let doc = sandbox.run("bg-gc", &["--now"], format!("{finding}\n{line}\n")).failed_with(Code::BadDocument);
        assert!(format!("{doc:?}").contains(word), "{line}: {doc:?}");
    }
    let doc = sandbox.run("bg-gc", &["--now"], b"\xff\n").failed_with(Code::BadDocument);
    assert!(doc.message.contains("UTF-8"), "{doc:?}");
    sandbox.assert_untouched("bg-gc");
}
