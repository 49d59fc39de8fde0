use super::*;

const GOOD: &str = "shell=/bin/bash\nexecutable=yes\nlogin_status=0\nlogin_said=\nhome=/root\ncwd=/root\nuser=root\n\
    path=/usr/sbin:/usr/bin\ncharmap=UTF-8\nmount=/dev/vdb ext4 rw,relatime\nowner=0:0 700\nwritable=yes\n\
    sectors=4194304\n";
const BYTES: u64 = 2 << 30;

fn printed(out: &str) -> Printed {
    Printed { out: Some(out.to_owned()), ..Printed::default() }
}

/// The outcomes of the three checks of the probe.
fn outcomes(out: &str) -> [Outcome; 3] {
    let facts = Facts(out);
    [shell(&facts, &printed(out)), environment(&facts), work_disk(&facts, BYTES)]
}

#[test]
fn each_fault_fails_its_own_check_and_is_named() {
    assert!(outcomes(GOOD).iter().all(Result::is_ok), "{:?}", outcomes(GOOD));
    let faults: &[(usize, &str, &str, &str)] = &[
        (0, "executable=yes\n", "", "is no program"),
        (0, "login_status=0", "login_status=127", "ends with 127"),
        (0, "login_said=", "login_said=hello\u{7}", "\"hello\\u{7}\""),
        (1, "home=/root", "home=/", "HOME is `/`"),
        (1, "cwd=/root", "cwd=/", "the directory is `/`"),
        (1, "user=root", "user=toor", "toor"),
        (1, "charmap=UTF-8", "charmap=ANSI_X3.4-1968", "ANSI_X3.4-1968"),
        (1, "charmap=UTF-8", "not_in_path=/sbin\ncharmap=UTF-8", "lacks /sbin"),
        (2, "mount=/dev/vdb ext4 rw,relatime\n", "", "nothing is mounted"),
        (2, "mount=/dev/vdb ext4 rw,relatime", "mount=tmpfs tmpfs rw", "tmpfs of tmpfs"),
        (2, "ext4 rw,relatime", "ext4 ro,relatime", "mounted ro"),
        (2, "owner=0:0 700", "owner=0:0 755", "0:0 755"),
        (2, "writable=yes\n", "", "can be written"),
        (2, "sectors=4194304", "sectors=8", "4096 bytes"),
        (2, "sectors=4194304", "sectors=", "0 bytes"),
    ];
    for (failing, from, to, says) in faults {
        assert!(GOOD.contains(from), "{from}");
        let found = outcomes(&GOOD.replace(from, to));
        for (n, outcome) in found.iter().enumerate() {
            assert_eq!(outcome.is_err(), n == *failing, "{from:?} -> {to:?}: {found:?}");
        }
        let said = found[*failing].as_ref().unwrap_err();
        assert!(said.contains(says), "{says:?} is missing: {said}");
    }
}

#[test]
fn a_shell_that_prints_before_the_program_or_runs_none_is_found() {
    let noisy = Printed { noise: "welcome\n".into(), ..printed(GOOD) };
    let said = shell(&Facts(GOOD), &noisy).unwrap_err();
    assert!(said.contains("not start silently") && said.contains("welcome"), "{said}");
    let none = Printed { noise: "This account is not available.\n".into(), failed: Some("exit 1".into()), out: None };
    let said = shell(&Facts(""), &none).unwrap_err();
    assert!(said.contains("exit 1") && said.contains("not available"), "{said}");
}

#[test]
fn the_first_packages_are_named_and_the_others_counted() {
    let entry = |name: String, version: &str| lib_common::doc::ManifestEntry {
        name,
        version: version.into(),
        architecture: "all".into(),
    };
    let recorded: Vec<_> = (0..8).map(|n| entry(format!("p{n}"), "1")).collect();
    let found = [entry("p0".into(), "2"), entry("new".into(), "1")];
    let said = differs(&manifest::diff(&recorded, &found));
    assert_eq!(said, "missing: p1, p2, p3, p4, p5 and 2 more; extra: new; changed: p0 (2, in the manifest 1)");
}

#[test]
fn however_much_a_guest_says_little_of_it_is_told() {
    let much = "é".repeat(1 << 20);
    let lines: String = (0..1000).map(|_| format!("not_in_path={much:.2000}\n")).collect();
    let said = format!(
        "shell={much}\nlogin_said={much}\nuser={much}\nhome={much}\ncwd={much}\npath={much}\ncharmap={much}\n\
         mount=/dev/vdb ext4 {much}\nowner={much}\nsectors={}\n{lines}",
        u64::MAX
    );
    for outcome in outcomes(&said) {
        let told = outcome.unwrap_err();
        assert!(told.chars().count() < 4000, "{} characters", told.chars().count());
    }
    let entry =
        lib_common::doc::ManifestEntry { name: much.clone(), version: much.clone(), architecture: "all".into() };
    assert!(differs(&manifest::diff(&[], &[entry])).chars().count() < 1000);
    let units = Units { is_up: false, state: much.clone(), failed: vec![much.clone(); 1000] };
    assert!(services(&units).unwrap_err().chars().count() < 4000);
    assert!(bounded(&format!("a=b\n{much}\nc")).chars().count() <= MAX_LINE + 10);
}

#[test]
fn all_that_is_told_of_a_good_guest_is_whole() {
    assert_eq!(bounded(GOOD), GOOD);
    assert_eq!((cut("aé", 2), cut("aéb", 2)), ("aé", "aé"));
    let units = |failed: &[&str]| Units {
        is_up: failed.is_empty(),
        state: "degraded".into(),
        failed: failed.iter().map(|name| (*name).to_owned()).collect(),
    };
    assert_eq!(services(&units(&[])), Ok("degraded".into()));
    let said = services(&units(&["a", "b", "c", "d", "e", "f"])).unwrap_err();
    assert_eq!(said, "the system is degraded; failed: a, b, c, d, e and 1 more");
}
