//! What is kept, for how long, and how much of it.

use super::*;

const URL: &str = "http://h:80/pool/x_1_amd64.deb";

fn store(cache: &Cache, url: &str, bytes: &[u8]) {
    let mut saving = cache.save(url).unwrap();
    saving.write(bytes).unwrap();
    saving.finish(&[("etag".into(), b"\"1\"".to_vec()), ("Server".into(), b"x".to_vec())]).unwrap();
}

fn read(cache: &Cache, url: &str) -> Option<Vec<u8>> {
    let hit = cache.lookup(url, &Stop::new().unwrap()).unwrap()?;
    let mut bytes = vec![];
    (&hit.file).read_to_end(&mut bytes).unwrap();
    assert_eq!(hit.size, bytes.len() as u64);
    assert_eq!(hit.headers, [("ETag".to_owned(), b"\"1\"".to_vec())]);
    Some(bytes)
}

fn count(dir: &Path, name: &str) -> usize {
    fs::read_dir(dir.join("downloads").join(name)).unwrap().count()
}

#[test]
fn only_what_never_changes_is_stored() {
    for (path, expected) in [
        ("/debian/pool/x_1_amd64.deb", true),
        ("/x.udeb", true),
        ("/x.xbps", true),
        ("/x.xbps.sig2", true),
        ("/dists/x/main/by-hash/SHA256/00", true),
        ("/dists/bookworm/InRelease", false),
        ("/dists/bookworm/main/Packages.xz", false),
        ("/x.deb?login=1", false),
        ("/x86_64-repodata", false),
    ] {
        assert_eq!(is_immutable(path), expected, "{path}");
    }
}

#[test]
fn what_was_stored_is_found_by_its_address_until_it_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), 1 << 30).unwrap();
    let package = b"!<arch>\npackage";
    assert!(cache.lookup(URL, &Stop::new().unwrap()).unwrap().is_none());
    store(&cache, URL, package);
    store(&cache, "http://other:80/x.deb", package);
    assert_eq!((count(dir.path(), "content"), count(dir.path(), "urls")), (1, 2), "one content");
    assert_eq!(read(&cache, URL).as_deref(), Some(&package[..]));
    let content = cache.content_path(&digest::of_bytes(package));
    for damage in [&b"!<arch>\npackagf"[..], b"!<arch>\n", b"!<arch>\npackage and more"] {
        fs::write(&content, damage).unwrap();
        assert_eq!(read(&cache, URL), None);
        assert!(!content.exists(), "what is damaged is gone");
        store(&cache, URL, package);
        assert!(read(&cache, URL).is_some());
    }
}

#[test]
fn an_entry_is_read_strictly() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), 1 << 30).unwrap();
    store(&cache, URL, b"!<arch>\n");
    let path = cache.entry_path(URL);
    let good = fs::read_to_string(&path).unwrap();
    for bad in [
        String::new(),
        good.replace(URL, "http://evil:80/x.deb"),
        good.replace("sha256:", "sha256:../../"),
        good.trim_end().to_owned(),
        good.clone() + "Set-Cookie: x\n",
        good.clone() + "ETag: x\ry\n",
        good.clone() + &"ETag: x\n".repeat(2000),
    ] {
        fs::write(&path, &bad).unwrap();
        assert_eq!(read(&cache, URL), None, "{bad:?}");
    }
    fs::write(&path, &good).unwrap();
    assert!(read(&cache, URL).is_some());
}

#[test]
fn what_its_name_does_not_promise_and_what_was_cut_short_are_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), 1 << 30).unwrap();
    let index = format!("http://h:80/by-hash/SHA256/{}", digest::of_bytes(b"index").hex());
    store(&cache, URL, b"<html>please log in</html>");
    store(&cache, &index, b"another");
    cache.save(URL).unwrap().write(b"!<arch>\npart").unwrap();
    assert_eq!((count(dir.path(), "content"), count(dir.path(), "urls")), (0, 0));
    assert_eq!(count(dir.path(), "."), 2, "nothing lies beside them");
    store(&cache, &index, b"index");
    assert!(read(&cache, &index).is_some());
}

#[test]
fn the_oldest_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), 1 << 30).unwrap();
    for (age, name) in [(300, "a"), (100, "b"), (200, "c")] {
        let bytes = format!("{name:1000}");
        store(&cache, &format!("http://h:80/{name}.xbps"), bytes.as_bytes());
        let content = File::open(cache.content_path(&digest::of_bytes(bytes.as_bytes()))).unwrap();
        content.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    }
    let dead = dir.path().join("downloads/.tmp-dead");
    fs::write(&dead, "").unwrap();
    Cache::open(dir.path(), 2000).unwrap();
    assert!(dead.exists(), "another builder may be at it");
    File::open(&dead).unwrap().set_modified(SystemTime::now() - 2 * TEMP_AGE).unwrap();
    Cache::open(dir.path(), 2000).unwrap();
    assert_eq!((count(dir.path(), "content"), count(dir.path(), "urls"), dead.exists()), (2, 2, false));
    assert_eq!(read(&cache, "http://h:80/a.xbps"), None);
    assert!(read(&cache, "http://h:80/b.xbps").is_some());
}

/// What storing this many bytes takes of the budget, where neither content nor address is there already.
fn cost(bytes: u64) -> u64 {
    bytes + FILE_BYTES + ENTRY_BYTES
}

#[test]
fn no_more_is_stored_than_the_budget_has_and_what_is_dropped_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = Cache::open(dir.path(), 0).unwrap();
    assert!(cache.save(URL).is_none(), "there is room for nothing");
    cache.budget = Budget::new(2 * cost(1000));
    let (mut first, mut second) =
        (cache.save("http://h:80/1.xbps").unwrap(), cache.save("http://h:80/2.xbps").unwrap());
    first.write(&[1; 1500]).unwrap();
    second.write(&[2; 500]).unwrap();
    second.write(&[2]).unwrap_err();
    assert!(cache.save("http://h:80/3.xbps").is_none());
    drop(second);
    let mut second = cache.save("http://h:80/2.xbps").unwrap();
    second.write(&[2; 500]).unwrap();
    first.finish(&[]).unwrap();
    second.finish(&[]).unwrap();
    assert!(cache.budget.part(1).is_none(), "what was stored is spent");
    assert_eq!((count(dir.path(), "content"), count(dir.path(), "urls"), count(dir.path(), ".")), (2, 2, 2));
}

#[test]
fn what_is_stored_again_takes_no_more_room_but_each_address_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = Cache::open(dir.path(), 0).unwrap();
    cache.budget = Budget::new(cost(8) + ENTRY_BYTES + cost(8));
    let package = b"!<arch>\n";
    for url in [URL, URL, URL, "http://h:80/y.deb"] {
        store(&cache, url, package);
    }
    store(&cache, &format!("http://h:80/{}.deb", "y".repeat(9000)), package);
    assert_eq!(
        (count(dir.path(), "content"), count(dir.path(), "urls")),
        (1, 2),
        "an address that is too long is none"
    );
    assert!(cache.budget.part(cost(8) + 1).is_none());
    assert!(cache.budget.part(cost(8)).is_some());
}

#[test]
fn what_is_there_counts_and_leaves_room_for_something_new() {
    let dir = tempfile::tempdir().unwrap();
    let most = 1 << 20;
    let cache = Cache::open(dir.path(), most).unwrap();
    store(&cache, URL, &[b"!<arch>\n".as_slice(), &[0; 1 << 19]].concat());
    let there = cost(8 + (1 << 19));
    let rest = most + most / 4 - there;
    for cache in [&cache, &Cache::open(dir.path(), most).unwrap()] {
        assert!(cache.budget.part(rest + 1).is_none());
        assert!(cache.budget.part(rest).is_some());
    }
    let large = vec![1; rest as usize - FILE_BYTES as usize - ENTRY_BYTES as usize];
    store(&cache, "http://h:80/large.xbps", &large);
    assert!(cache.save("http://h:80/more.xbps").is_none(), "it is full");
    let cache = Cache::open(dir.path(), most).unwrap();
    assert!(cache.save("http://h:80/more.xbps").is_some(), "but not for ever");
}

#[test]
fn many_short_ones_are_too_much_too() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), 1 << 30).unwrap();
    for name in ["a", "b", "c"] {
        store(&cache, &format!("http://h:80/{name}.xbps"), name.as_bytes());
        store(&cache, &format!("http://h:80/{name}/same.xbps"), b"same");
    }
    assert_eq!(cache.prune(1 << 30, 6).unwrap(), 4 * FILE_BYTES + 7 + 6 * ENTRY_BYTES);
    cache.prune(1 << 30, 3).unwrap();
    assert_eq!(count(dir.path(), "content"), 3);
    assert!(count(dir.path(), "urls") <= 3);
}
