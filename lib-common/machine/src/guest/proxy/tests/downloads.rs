//! What is kept on the host.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

const PACKAGE: &str = "!<arch>\nthe package";

fn only_file(dir: &Path) -> PathBuf {
    let files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

impl Fixture {
    fn stored(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("cache/downloads/content")).unwrap().count()
    }

    /// GETs until the answer's bytes are on disk: the guest has its answer a moment earlier.
    fn get_stored(&self, url: &str, count: usize) -> Answer {
        let answer = self.get(url);
        let deadline = Instant::now() + PATIENCE;
        while std::fs::read_dir(self.dir.path().join("cache/downloads/urls")).unwrap().count() < count {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        answer
    }
}

#[test]
fn a_package_is_fetched_once_and_an_index_each_time() {
    let server = Server::new(|_| reply("200 OK", "Last-Modified: then\r\nSet-Cookie: no\r\n", PACKAGE).into());
    let mut fixture = Fixture::new(&[&server]);
    let url = server.url("/pool/x_1_amd64.deb");
    assert_eq!(fixture.get_stored(&url, 1).body, PACKAGE);
    assert_eq!(server.requests().len(), 1);
    fixture.restart(&[&server], Limits::default(), Via::default());
    let again = fixture.get(&url);
    assert_eq!((again.status.as_str(), again.body.as_str()), ("200 OK", PACKAGE));
    assert!(again.head.contains("Last-Modified: then") && !again.head.contains("Cookie"), "{}", again.head);
    let stats = fixture.until(|s| s.from_cache == 1);
    assert_eq!((stats.fetched, stats.from_cache_bytes), (0, PACKAGE.len() as u64));
    assert_eq!(server.requests().len(), 1, "the server was not asked");
    for _ in 0..2 {
        fixture.get(&server.url("/dists/x/InRelease"));
    }
    assert_eq!((server.requests().len(), fixture.stored()), (3, 1));
}

#[test]
fn a_damaged_file_is_fetched_again() {
    let server = Server::new(|_| reply("200 OK", "", PACKAGE).into());
    let fixture = Fixture::new(&[&server]);
    let url = server.url("/x.udeb");
    fixture.get_stored(&url, 1);
    let content = only_file(&fixture.dir.path().join("cache/downloads/content"));
    std::fs::write(&content, PACKAGE.replace("the", "THE")).unwrap();
    assert_eq!(fixture.get(&url).body, PACKAGE);
    assert_eq!(server.requests().len(), 2);
    fixture.until(|s| s.fetched == 2);
    assert_eq!(fixture.get(&url).body, PACKAGE);
    assert_eq!((server.requests().len(), std::fs::read_to_string(&content).unwrap().as_str()), (2, PACKAGE));
}

#[test]
fn a_part_is_neither_asked_for_nor_kept() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    // The first answer is cut short, in each of the ways; the last is whole.
    let server = Server::new(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{PACKAGE}").into(),
        1 => format!("HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n13\r\n{PACKAGE}\r\n")
            .into(),
        2 => format!("HTTP/1.1 200 OK\r\n\r\n{PACKAGE}").into(),
        3 => reply("206 Partial Content", "", PACKAGE).into(),
        4 => reply("404 Not Found", "", PACKAGE).into(),
        _ => reply("200 OK", "", PACKAGE).into(),
    });
    let fixture = Fixture::new(&[&server]);
    let url = server.url("/x.deb");
    assert_eq!(fixture.get(&url).body, PACKAGE, "less than its length");
    assert!(!fixture.get(&url).body.contains("\r\n0\r\n"), "no last chunk");
    assert!(fixture.get(&url).body.ends_with("0\r\n\r\n"), "nobody can know whether this is all");
    assert_eq!(fixture.get(&url).status, "206 Partial Content");
    assert_eq!(fixture.get(&url).status, "404 Not Found");
    assert_eq!(fixture.stored(), 0);
    assert!(
        fixture.proxy().failed().iter().any(|f| f.contains("ended within the body")),
        "{:?}",
        fixture.proxy().failed()
    );
    let request = format!("GET {url} HTTP/1.1\r\nRange: bytes=3-\r\nIf-Modified-Since: x\r\nConnection: close\r\n\r\n");
    assert_eq!(Answer::parse(&fixture.send(&request)).body, PACKAGE);
    let last = server.requests().pop().unwrap();
    assert!(!last.contains("Range") && !last.contains("If-"), "{last}");
    fixture.until(|s| s.fetched == 4);
    assert_eq!(fixture.stored(), 1);
    assert_eq!(Answer::parse(&fixture.send(&request)).body, PACKAGE);
    assert_eq!(asked.load(Ordering::SeqCst), 6);
    fixture.send(request.replace("Range: bytes=3-", "Cache-Control: no-cache"));
    assert_eq!(asked.load(Ordering::SeqCst), 7, "who wants it fetched gets it fetched");
}

#[test]
fn a_cache_that_cannot_be_written_is_no_failure() {
    let server = Server::new(|_| reply("200 OK", "", PACKAGE).into());
    let fixture = Fixture::new(&[&server]);
    std::fs::remove_dir_all(fixture.dir.path().join("cache")).unwrap();
    for _ in 0..2 {
        assert_eq!(fixture.get(&server.url("/x.deb")).body, PACKAGE);
    }
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_guest_does_not_fill_the_disk_and_gets_what_is_not_stored_all_the_same() {
    let server = Server::new(|head| {
        let body = head.split(' ').nth(1).unwrap().repeat(10_000);
        reply("200 OK", "", &body).into()
    });
    // 1.25 MiB; each answer has 80,000 bytes.
    let limits = Limits { cache_bytes: 1 << 20, ..Limits::default() };
    let fixture = Fixture::with(&[&server], limits, Via::default());
    for i in 10..40 {
        assert_eq!(fixture.get(&server.url(&format!("/{i}.xbps"))).body.len(), 80_000);
    }
    fixture.until(|s| s.fetched == 30);
    let sizes = std::fs::read_dir(fixture.dir.path().join("cache/downloads/content")).unwrap();
    let total: u64 = sizes.map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!((1_000_000..=(1 << 20) + (1 << 18)).contains(&total), "{total}");
    let beside = std::fs::read_dir(fixture.dir.path().join("cache/downloads")).unwrap().count();
    assert_eq!(beside, 2, "what was not stored is gone");
}

#[test]
fn an_answer_that_is_coded_is_passed_on_and_not_stored() {
    let server = Server::new(|_| reply("200 OK", "Content-Encoding: gzip\r\n", PACKAGE).into());
    let fixture = Fixture::new(&[&server]);
    for count in 1..=2 {
        let url = server.url("/x.deb");
        let request = format!("GET {url} HTTP/1.1\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n");
        let answer = Answer::parse(&fixture.send(request));
        assert!(answer.head.contains("Content-Encoding: gzip") && answer.body == PACKAGE, "{answer:?}");
        fixture.until(|s| s.fetched == count);
    }
    assert_eq!((server.requests().len(), fixture.stored()), (2, 0));
    assert!(!server.requests()[0].contains("Accept-Encoding"), "{:?}", server.requests());
}
