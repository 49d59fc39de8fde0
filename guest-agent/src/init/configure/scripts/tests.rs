use super::*;
use lib_common::sys::guest_program::{self, Program};

/// A root with this list and these scripts, `001`, `002` and so on.
fn root(list: &str, scripts: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let dir = below(root.path(), CONFIGURE_DIR);
    fs_err::create_dir_all(&dir).unwrap();
    fs_err::write(dir.join("list"), list).unwrap();
    for (n, script) in scripts.iter().enumerate() {
        fs_err::write(dir.join(format!("{:03}", n + 1)), script).unwrap();
    }
    root
}

/// Runs them, in that directory instead of in a chroot.
fn run(root: &Path) -> (bool, Vec<Configured>) {
    let scripts = Scripts::read(root).unwrap();
    let (mut told, mut begun) = (vec![], vec![]);
    let all_well = scripts.run(
        &mut |script, action| {
            let mut argv = script.argv(action);
            argv[1] = below(root, &argv[1]).display().to_string();
            let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
            let env = environment(scripts.epoch.as_deref());
            guest_program::run(&Program { root: None, argv: &argv, env: &env, within: None }, 64)
        },
        &mut |line| {
            match line {
                ConfigureLine::Begins(one) => begun.push(format!("{} {}", one.action.as_str(), one.begins)),
                ConfigureLine::Script(script) => told.push(script),
                ConfigureLine::Done(_) => panic!("that is not the scripts' to say"),
            }
            Ok(())
        },
    );
    let ended: Vec<String> = told.iter().map(|one| format!("{} {}", one.action.as_str(), one.package)).collect();
    assert_eq!(begun, ended, "each is told when it begins");
    (all_well.unwrap(), told)
}

#[test]
fn a_list_is_four_words_a_line_and_nothing_else() {
    let list = parse("001 base-files 0.145_1 x86_64\n002 font+ttf 2_10 noarch\n").unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!((list[1].package.as_str(), list[1].version.as_str()), ("font+ttf", "2_10"));
    assert_eq!(parse("").unwrap(), []);
    for bad in [
        "001 a 1_1\n",
        "001 a 1_1 x86_64 more\n",
        "../x a 1_1 x86_64\n",
        "a a 1_1 x86_64\n",
        "001  1_1 x86_64\n",
        "001 a\t 1_1 x86_64\n",
        "\n",
        "001 a 1_1 x86_64\n\n",
    ] {
        assert_eq!(parse(bad).unwrap_err().code(), Code::BadInput, "{bad:?}");
    }
    assert!(parse("001 a 1_1 x86_64\nx\n").unwrap_err().message().contains("line 2"));
}

#[test]
fn a_script_gets_what_xbps_gives_it() {
    let script = &parse("007 bash 5.2_1 x86_64\n").unwrap()[0];
    let file = format!("{CONFIGURE_DIR}/007");
    for action in ConfigureAction::ALL {
        let argv = script.argv(action);
        assert_eq!(argv, ["sh", &file, action.as_str(), "bash", "5.2_1", "no", "no", "x86_64"]);
    }
    assert_eq!(environment(None).len(), 2);
    assert_eq!(environment(Some("12"))[2], ("SOURCE_DATE_EPOCH", "12"));
}

#[test]
fn all_are_run_in_their_order_and_told() {
    let say = "echo $1 $2 $3 $4 $5 $6 $SOURCE_DATE_EPOCH; cat";
    let root = root("002 b 2_1 x86_64\n001 a 1_1 x86_64\n", &[say, say]);
    fs_err::write(below(root.path(), CONFIGURE_DIR).join("epoch"), "1700000000\n").unwrap();
    let (all_well, told) = run(root.path());
    assert!(all_well && told.iter().all(Configured::is_success));
    let said: Vec<&str> = told.iter().map(|t| t.output.as_str()).collect();
    let line = |action: &str, package: &str| format!("{action} {package} no no x86_64 1700000000\n");
    assert_eq!(said, [line("pre", "b 2_1"), line("pre", "a 1_1"), line("post", "b 2_1"), line("post", "a 1_1")]);
    assert_eq!((told[0].package.as_str(), told[0].version.as_str(), told[0].ended.as_str()), ("b", "2_1", "exit 0"));
}

#[test]
fn after_the_first_failure_nothing_more_runs() {
    let list = "001 a 1_1 noarch\n002 b 1_1 noarch\n003 c 1_1 noarch\n";
    for (action, before) in [("pre", 1), ("post", 4)] {
        let fails = format!("[ $1 = {action} ] || exit 0; echo it broke >&2; exit 3");
        let root = root(list, &["exit 0", &fails, "touch \"$0.$1\""]);
        let (all_well, told) = run(root.path());
        assert!(!all_well && told.len() == before + 1, "{action}: {told:?}");
        let last = &told[before];
        assert_eq!((last.status, last.ended.as_str(), last.output.as_str()), (3, "exit 3", "it broke\n"));
        let touched = |action: &str| below(root.path(), CONFIGURE_DIR).join(format!("003.{action}")).exists();
        assert_eq!((touched("pre"), touched("post")), (action == "post", false));
    }
}

#[test]
fn a_killed_a_missing_and_a_talkative_script_are_told_as_they_are() {
    let one = |script: &str| run(root("001 a 1_1 noarch\n", &[script]).path()).1.remove(0);
    let killed = one("kill -9 $$");
    assert_eq!((killed.status, killed.ended.as_str()), (137, "signal 9"));
    let talkative = one("for n in 1 2 3 4 5 6 7 8 9; do printf '0123456789'; done; echo end");
    assert_eq!((talkative.output.len(), talkative.output.ends_with("789end\n")), (64, true));
    let missing = run(root("009 a 1_1 noarch\n", &[]).path()).1.remove(0);
    assert!(!missing.is_success() && missing.output.contains("009"), "{missing:?}");
    let script = &parse("001 a 1_1 noarch\n").unwrap()[0];
    let none = script.told(ConfigureAction::Post, Err(std::io::Error::from(ErrorKind::NotFound)), Instant::now());
    assert_eq!((none.status, none.ended.as_str()), (127, "not started"));
}

#[test]
fn a_cut_through_a_character_and_bytes_that_are_none_are_text_all_the_same() {
    assert_eq!(text("\u{20ac}uro".as_bytes()), "\u{20ac}uro");
    assert_eq!(text(&"\u{20ac}uro".as_bytes()[1..]), "uro");
    assert_eq!(text(b"a\xffb"), "a\u{fffd}b");
    assert_eq!(text(&[0x80; 5]), "\u{fffd}\u{fffd}");
}

#[test]
fn a_list_or_an_epoch_that_is_none_ends_the_boot() {
    let without = tempfile::tempdir().unwrap();
    assert!(Scripts::read(without.path()).is_err());
    let root = root("", &[]);
    let dir = below(root.path(), CONFIGURE_DIR);
    assert_eq!(Scripts::read(root.path()).unwrap(), Scripts { list: vec![], epoch: None });
    fs_err::write(dir.join("epoch"), "today\n").unwrap();
    assert!(Scripts::read(root.path()).is_err());
    fs_err::write(dir.join("epoch"), "1\n").unwrap();
    fs_err::write(dir.join("list"), vec![b'\n'; 1 + (1 << 20)]).unwrap();
    assert!(Scripts::read(root.path()).is_err());
}
