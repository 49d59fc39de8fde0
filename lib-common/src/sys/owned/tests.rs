use super::*;
use std::os::unix::fs::symlink;

fn refusal(path: &Path) -> String {
    let e = read(path, 100).unwrap_err();
    assert_eq!((e.code(), e.get_hint().is_some()), (Code::Permission, true), "{e}");
    e.message().rsplit_once("/ours/").unwrap().1.to_owned()
}

#[test]
fn only_plain_files_in_plain_directories_are_read() {
    let temp = tempfile::tempdir().unwrap();
    let (ours, theirs) = (temp.path().join("ours"), temp.path().join("theirs"));
    for dir in [&ours, &theirs] {
        std::fs::create_dir(dir).unwrap();
        std::fs::write(dir.join("file"), "content").unwrap();
    }
    assert_eq!(read(&ours.join("file"), 4).unwrap().unwrap(), b"cont");
    assert_eq!(read_end(&ours.join("file"), 4).unwrap().unwrap(), b"tent");
    assert_eq!(read_end(&ours.join("file"), 400).unwrap().unwrap(), b"content");
    assert!(read(&ours.join("none"), 4).unwrap().is_none() && !is_dir(&ours, "none/file").unwrap());
    assert!(is_file(&ours.join("file")).unwrap() && is_dir(&ours, "").unwrap());
    symlink(theirs.join("file"), ours.join("link")).unwrap();
    symlink(&theirs, ours.join("dir")).unwrap();
    symlink("/nowhere", ours.join("dangling")).unwrap();
    nix::unistd::mkfifo(&ours.join("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(ours.join("socket")).unwrap();
    for (name, said) in [
        ("link", "link is a symbolic link, not a regular file"),
        ("dangling", "dangling is a symbolic link, not a regular file"),
        ("fifo", "fifo is a FIFO, not a regular file"),
        ("socket", "socket is a socket, not a regular file"),
        ("dir/file", "dir is a symbolic link, not a directory"),
    ] {
        assert_eq!(refusal(&ours.join(name)), said);
    }
    for below in ["dir/file", "dir", "../theirs", "file/x"] {
        assert_eq!(is_dir(&ours, below).unwrap_err().code(), Code::Permission, "{below}");
    }
}

#[test]
fn directories_that_others_can_change_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let (shared, ours) = (temp.path().join("shared"), temp.path().join("shared/ours"));
    std::fs::create_dir_all(&ours).unwrap();
    let mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    let refused = |path: &Path| match is_safe_from_others(path) {
        Ok(()) => None,
        Err(e) => {
            assert_eq!(e.code(), Code::Permission, "{e}");
            e.message().split_once(" can be").map(|(path, _)| path.rsplit('/').next().unwrap().to_owned())
        }
    };
    for (of_shared, of_ours, who) in [
        (0o755, 0o700, None),
        (0o755, 0o755, None),
        // The caller's own group is the caller.
        (0o775, 0o770, None),
        (0o777, 0o700, Some("shared")),
        (0o1777, 0o700, None),
        (0o1777, 0o777, Some("ours")),
        // As a tmpfs is mounted: what is in it is asked whose it is.
        (0o755, 0o1777, None),
    ] {
        mode(&shared, of_shared);
        mode(&ours, of_ours);
        assert_eq!(refused(&ours).as_deref(), who, "{of_shared:o} {of_ours:o}");
        let missing = refused(&ours.join("not/yet"));
        assert_eq!(missing.as_deref(), who, "what will be made there: {of_shared:o} {of_ours:o}");
    }
    if nix::unistd::geteuid().is_root() {
        mode(&ours, 0o700);
        mode(&shared, 0o755);
        std::os::unix::fs::chown(&shared, Some(12345), None).unwrap();
        let e = is_safe_from_others(&ours).unwrap_err();
        assert!(e.message().contains("shared belongs to user 12345"), "{e}");
        std::os::unix::fs::chown(&shared, Some(0), Some(12345)).unwrap();
        mode(&shared, 0o775);
        assert_eq!(refused(&ours).as_deref(), Some("shared"), "another group");
    }
}

#[test]
fn a_trusted_file_is_roots_or_the_callers_and_others_cannot_change_it() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, file) = (temp.path().join("dir"), temp.path().join("dir/file"));
    std::fs::create_dir(&dir).unwrap();
    assert!(!is_trusted(&file).unwrap() && !is_trusted(&dir.join("not/there")).unwrap());
    std::fs::write(&file, "").unwrap();
    assert!(is_trusted(Path::new("/bin/sh").canonicalize().unwrap().as_path()).unwrap(), "root has put it there");
    let mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    for (of_dir, of_file, fine) in [
        (0o755, 0o644, true),
        (0o755, 0o664, true),
        (0o755, 0o666, false),
        (0o777, 0o644, false),
        (0o1777, 0o644, true),
    ] {
        mode(&dir, of_dir);
        mode(&file, of_file);
        assert_eq!(is_trusted(&file).map_err(|e| e.code()), if fine { Ok(true) } else { Err(Code::Permission) });
    }
    mode(&dir, 0o755);
    symlink(&file, dir.join("link")).unwrap();
    symlink(&dir, temp.path().join("way")).unwrap();
    assert_eq!(is_trusted(&dir.join("link")).unwrap_err().code(), Code::Permission);
    assert!(is_trusted(&temp.path().join("way/file")).unwrap(), "links on the way are followed");
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&file, Some(12345), None).unwrap();
        assert_eq!(is_trusted(&file).unwrap_err().code(), Code::Permission);
        std::os::unix::fs::chown(&file, Some(0), None).unwrap();
        std::os::unix::fs::chown(&dir, Some(12345), None).unwrap();
        assert_eq!(is_trusted(&file).unwrap_err().code(), Code::Permission);
        let e = is_safe_from_others(&dir.join("not/yet")).unwrap_err();
        assert!(e.message().contains("dir belongs to user 12345"), "what would be made in it: {e}");
        assert_eq!(check_shared_dir(&dir).unwrap_err().code(), Code::Permission);
    }
}

#[test]
fn what_is_another_users_is_refused() {
    let root = nix::unistd::geteuid().is_root();
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("ours");
    std::fs::create_dir(&dir).unwrap();
    if root {
        std::os::unix::fs::chown(&dir, Some(12345), None).unwrap();
        let e = is_dir(temp.path(), "ours").unwrap_err();
        assert!(e.message().ends_with("belongs to user 12345, and you are user 0"), "{e}");
    } else {
        assert!(is_dir(Path::new("/"), "etc").unwrap_err().message().contains("belongs to user 0"));
    }
}
