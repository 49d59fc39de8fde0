//! What apt's sources look like on real hosts, and which of them are Debian's.

use super::*;

const KEY: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

fn lines(sources: &[Source]) -> Vec<String> {
    sources.iter().map(Source::to_line).collect()
}

#[test]
fn both_forms_give_the_same_entries() {
    let list = format!("deb [signed-by={KEY}] http://deb.debian.org/debian/ bookworm main contrib\n");
    let deb822 = format!(
        "Types: deb deb-src\nURIs: http://deb.debian.org/debian\nSuites: bookworm\nComponents: main contrib\nSigned-By: {KEY}\n"
    );
    assert_eq!(parse_list(&list), parse_deb822(&deb822));
    assert_eq!(lines(&parse_list(&list)), [list.trim().replace("debian/ ", "debian ")]);
}

#[test]
fn lines_are_read_as_apt_reads_them() {
    let cases: &[(&str, &[&str])] = &[
        ("deb http://a/debian bookworm main # comment", &["deb http://a/debian bookworm main"]),
        ("  deb\thttp://a/debian\tbookworm\tmain", &["deb http://a/debian bookworm main"]),
        (
            "deb [ arch=amd64 trusted=yes ] http://a/debian b main",
            &["deb [arch=amd64 trusted=yes] http://a/debian b main"],
        ),
        ("deb [Signed-By=/k] http://a/debian b main", &["deb [signed-by=/k] http://a/debian b main"]),
        ("# deb http://a/debian bookworm main", &[]),
        ("#deb http://a/debian bookworm main", &[]),
        ("deb-src http://a/debian bookworm main", &[]),
        ("debug http://a/debian bookworm main", &[]),
        ("deb http://a/flat ./", &[]),
        ("deb cdrom:[Debian 12]/ bookworm main", &[]),
        ("deb http://a/debian bookworm", &[]),
        ("deb [arch=amd64 http://a/debian bookworm main", &[]),
        ("", &[]),
    ];
    for (text, expected) in cases {
        assert_eq!(lines(&parse_list(text)), *expected, "{text}");
    }
}

#[test]
fn paragraphs_are_read_as_apt_reads_them() {
    let head = "URIs: http://a/debian\nSuites: bookworm bookworm-updates\nComponents: main\n";
    assert_eq!(parse_deb822(&format!("Types: deb\n{head}")).len(), 2);
    assert_eq!(parse_deb822(&format!("Types: deb-src\n{head}")), []);
    assert_eq!(parse_deb822(&format!("Types: deb\nEnabled: no\n{head}")), []);
    assert_eq!(parse_deb822(&format!("# no\n# Types: deb\n# {head}")), []);
    let mapped = parse_deb822(&format!("Types: deb\n{head}Architectures: amd64 arm64\nX-Note: x\nBy-Hash: force\n"));
    assert_eq!(lines(&mapped)[0], "deb [arch=amd64,arm64 by-hash=force] http://a/debian bookworm main");
}

#[test]
fn vendors_with_debian_suite_names_are_left_aside() {
    let vendors = [
        "deb [signed-by=/usr/share/keyrings/microsoft.gpg] https://packages.microsoft.com/debian/12/prod bookworm main",
        "deb https://packages.microsoft.com/debian/12/prod bookworm main",
        "deb https://download.docker.com/linux/debian bookworm stable",
        "deb [signed-by=/etc/apt/keyrings/docker.asc] https://download.docker.com/linux/debian bookworm main",
        "deb [arch=arm64] http://deb.debian.org/debian bookworm main",
        "deb http://deb.debian.org/debian bookworm contrib",
    ];
    let error = choose(&parse_list(&vendors.join("\n")), "bookworm", "amd64").unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    let with = format!("{}\ndeb http://mirror.lan/debian bookworm main\n", vendors.join("\n"));
    let chosen = choose(&parse_list(&with), "bookworm", "amd64").unwrap();
    assert_eq!(lines(&chosen), ["deb http://mirror.lan/debian bookworm main"]);
}

#[test]
fn a_key_inside_the_file_is_not_taken_for_debians() {
    let text =
        "Types: deb\nURIs: http://a/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN PGP\n .\n x\n";
    assert!(choose(&parse_deb822(text), "bookworm", "amd64").is_err());
}

#[test]
fn the_suite_comes_with_its_updates_and_security_and_merged_components() {
    let text = format!(
        "deb http://security.debian.org/debian-security bookworm-security main\n\
         deb [arch=amd64 signed-by={KEY}] http://deb.debian.org/debian bookworm main\n\
         deb http://deb.debian.org/debian bookworm contrib\n\
         deb http://other.debian.org/debian bookworm main non-free\n\
         deb http://deb.debian.org/debian bookworm-updates main\n\
         deb http://deb.debian.org/debian bookworm-backports main\n\
         deb http://deb.debian.org/debian trixie main\n"
    );
    let chosen = choose(&parse_list(&text), "bookworm", "amd64").unwrap();
    assert_eq!(
        lines(&chosen),
        [
            format!("deb [signed-by={KEY}] http://deb.debian.org/debian bookworm main contrib"),
            "deb http://deb.debian.org/debian bookworm-updates main".into(),
            "deb http://security.debian.org/debian-security bookworm-security main".into(),
        ]
    );
    let hint = choose(&parse_list(&text), "sid", "amd64").unwrap_err();
    assert_eq!(hint.get_hint(), Some("it has one for bookworm, trixie; or name a mirror with --mirror URL"));
}

#[test]
fn files_are_those_that_apt_reads() {
    let dir = tempfile::tempdir().unwrap();
    let parts = dir.path().join("sources.list.d");
    std::fs::create_dir(&parts).unwrap();
    let line = |suite: &str| format!("deb http://a/debian {suite} main\n");
    std::fs::write(dir.path().join("sources.list"), line("one")).unwrap();
    std::fs::write(parts.join("b.list"), line("three")).unwrap();
    std::fs::write(parts.join("a.sources"), "Types: deb\nURIs: http://a/debian\nSuites: two\nComponents: main\n")
        .unwrap();
    std::fs::write(parts.join("c.list.disabled"), line("four")).unwrap();
    let suites: Vec<String> = read(dir.path()).unwrap().into_iter().map(|s| s.suite).collect();
    assert_eq!(suites, ["one", "two", "three"]);
    assert_eq!(read(Path::new("/does/not/exist")).unwrap(), []);
}

#[test]
fn a_mirror_is_an_address_and_nothing_else() {
    assert_eq!(Source::of_mirror("http://a/debian/", "sid").unwrap().to_line(), "deb http://a/debian sid main");
    for bad in ["", "debian", "--help", "http://a b", "ftp://a", "http://a]x"] {
        assert!(Source::of_mirror(bad, "sid").is_err(), "{bad}");
    }
}
