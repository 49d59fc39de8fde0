//! Tars as mmdebstrap writes them and as no tar should be.

use super::*;

fn header(path: &str, kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_ustar();
    header.set_path(path).unwrap();
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(9);
    header.set_size(size as u64);
    header.set_cksum();
    header
}

fn append(tar: &mut Vec<u8>, header: &Header, content: &[u8]) {
    tar.extend_from_slice(header.as_bytes());
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

fn file(tar: &mut Vec<u8>, path: &str, content: &[u8]) {
    append(tar, &header(path, EntryType::Regular, content.len()), content);
}

fn pax(tar: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let length = (1..9).map(|digits| rest + digits).find(|n| n.to_string().len() == n - rest).unwrap();
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    append(tar, &header("./PaxHeaders/x", EntryType::XHeader, record.len()), &record);
}

fn run(tar: &[u8], added: &[Added]) -> (Vec<u8>, Passed) {
    let mut out = vec![];
    let passed = filter(tar, &mut out, added, 1234).unwrap();
    assert_eq!(out.len() % 512, 0);
    (out, passed)
}

/// Path to content, the way an extracting program sees it.
fn files(tar: &[u8]) -> BTreeMap<String, String> {
    let mut archive = Archive::new(tar);
    let entry = |mut e: Entry<'_, &[u8]>| {
        let mut content = String::new();
        e.read_to_string(&mut content).unwrap();
        let link = e.link_name().unwrap().map(|l| format!("-> {}", l.display()));
        (normal(&e.path_bytes()), link.unwrap_or(content))
    };
    archive.entries().unwrap().map(|e| entry(e.unwrap())).collect()
}

#[test]
fn what_no_rule_touches_passes_byte_for_byte() {
    let long = format!("./usr/share/{}/file", "x".repeat(150));
    let mut tar = vec![];
    append(&mut tar, &header("./root/", EntryType::Directory, 0), &[]);
    let begin = tar.len();
    // A capability is binary: it may have line feeds, and whatever follows them is no record of its own.
    pax(&mut tar, "SCHILY.xattr.security.capability", b"\x01\n9 path=x\n\0");
    file(&mut tar, "./usr/bin/ping", &[7; 700]);
    pax(&mut tar, "path", long.as_bytes());
    file(&mut tar, "./usr/share/shortened", b"long");
    let mut link = header("./usr/bin/hard", EntryType::Link, 0);
    link.set_link_name("./usr/bin/ping").unwrap();
    link.set_cksum();
    append(&mut tar, &link, &[]);
    let mut device = header("./dev/null", EntryType::Char, 0);
    device.set_device_major(1).unwrap();
    device.set_device_minor(3).unwrap();
    device.set_cksum();
    append(&mut tar, &device, &[]);
    let (out, passed) = run(&tar, &[]);
    assert_eq!(out[begin..out.len() - 1024], tar[begin..]);
    assert_eq!(passed.entries, 5);
    assert!(files(&out).contains_key(&long[2..]));
}

#[test]
fn long_names_are_judged_by_their_whole_path_and_dropped_with_their_headers() {
    let long = format!("./var/log/{}", "x".repeat(150));
    let mut tar = vec![];
    pax(&mut tar, "path", long.as_bytes());
    file(&mut tar, "./harmless", b"log");
    let mut gnu = format!("./var/cache/apt/{}", "y".repeat(150)).into_bytes();
    gnu.push(0);
    append(&mut tar, &header("././@LongLink", EntryType::GNULongName, gnu.len()), &gnu);
    file(&mut tar, "./harmless", b"cache");
    file(&mut tar, "./kept", b"kept");
    let (out, passed) = run(&tar, &[]);
    assert_eq!(files(&out).keys().collect::<Vec<_>>(), ["kept", "root"]);
    assert_eq!(passed.entries, 2);
}

#[test]
fn added_files_replace_and_get_their_directories() {
    let mut tar = vec![];
    append(&mut tar, &header("./etc/", EntryType::Directory, 0), &[]);
    file(&mut tar, "./etc/hostname", b"builder\n");
    file(&mut tar, "./etc/shadow", b"root:$y$x:1:0:::::\n");
    file(&mut tar, "./etc/ssh/ssh_host_rsa_key", b"secret");
    let added = |path: &str, what| Added { path: path.into(), mode: 0o640, what };
    let table = [
        added("etc/hostname", What::File("localhost\n".into())),
        added("etc/a/b/c", What::File("deep".into())),
        added("etc/a/masked", What::Link("/dev/null".into())),
    ];
    let (out, _) = run(&tar, &table);
    let expected = [
        ("etc", ""),
        ("etc/a", ""),
        ("etc/a/b", ""),
        ("etc/a/b/c", "deep"),
        ("etc/a/masked", "-> /dev/null"),
        ("etc/hostname", "localhost\n"),
        ("etc/shadow", "root:*:1:0:::::\n"),
        ("root", ""),
    ];
    assert_eq!(files(&out), expected.map(|(p, c)| (p.to_owned(), c.to_owned())).into());
    let mut archive = Archive::new(&out[..]);
    for entry in archive.entries().unwrap().map(std::result::Result::unwrap) {
        let (path, header) = (normal(&entry.path_bytes()), entry.header());
        let seen = (header.mode().unwrap(), header.uid().unwrap(), header.mtime().unwrap());
        match path.as_str() {
            "etc" | "etc/shadow" => assert_eq!(seen, (0o4755, 7, 9), "{path}: only its content may change"),
            "etc/hostname" | "etc/a/b/c" => assert_eq!(seen, (0o640, 0, 1234), "{path}"),
            "root" => assert_eq!(seen, (0o700, 0, 1234)),
            _ => {}
        }
    }
}

#[test]
fn root_gets_the_dotfiles_that_it_lacks_and_a_private_home() {
    let mut tar = vec![];
    file(&mut tar, "./etc/skel/.bashrc", b"skel rc");
    file(&mut tar, "./etc/skel/.profile", b"skel profile");
    append(&mut tar, &header("./root/", EntryType::Directory, 0), &[]);
    file(&mut tar, "./root/.bashrc", b"own rc");
    file(&mut tar, "./var/lib/dpkg/status", b"Package: x\n");
    let (out, passed) = run(&tar, &[]);
    let files = files(&out);
    assert_eq!((files["root/.bashrc"].as_str(), files["root/.profile"].as_str()), ("own rc", "skel profile"));
    assert_eq!(passed.dpkg_status, "Package: x\n");
    let mut archive = Archive::new(&out[..]);
    let home = archive.entries().unwrap().map(std::result::Result::unwrap).find(|e| normal(&e.path_bytes()) == "root");
    assert_eq!(home.unwrap().header().mode().unwrap(), 0o700);
}

#[test]
fn damaged_tars_are_errors_that_name_the_end_that_broke() {
    let mut cut = vec![];
    file(&mut cut, "./a", &[1; 5000]);
    cut.truncate(3000);
    let mut lying = vec![];
    append(&mut lying, &header("./x", EntryType::XHeader, 9), b"99 path=x");
    let noise = vec![b'x'; 2048];
    for tar in [&cut, &lying, &noise] {
        let stopped = filter(&tar[..], io::sink(), &[], 0).unwrap_err();
        assert!(matches!(stopped, Stopped::Input(e) if e.code() == Code::BadInput));
    }
    let mut fine = vec![];
    file(&mut fine, "./a", b"a");
    let mut full: &mut [u8] = &mut [0; 100];
    assert!(matches!(filter(&fine[..], &mut full, &[], 0).unwrap_err(), Stopped::Output(_)));
    assert_eq!(run(&[], &[]).1.entries, 0, "no stream at all: the program's status tells why");
}

#[test]
fn the_padding_after_the_end_is_read_too() {
    let mut tar = vec![];
    file(&mut tar, "./a", b"a");
    tar.resize(tar.len() + 200 * 512, 0);
    let mut input = &tar[..];
    filter(&mut input, io::sink(), &[], 0).unwrap();
    assert_eq!(input.len(), 0, "mmdebstrap would end with SIGPIPE");
}
