//! Downloads from a server of the test's own, which answers as it is told.

use super::*;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::sync::Mutex;

/// Serves these answers one after the other; gives the address and the ranges that were asked for.
fn serve(answers: Vec<Vec<u8>>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(vec![]));
    let ranges = asked.clone();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let range =
                head.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("range: ").map(str::to_owned));
            ranges.lock().unwrap().push(range.unwrap_or_default());
            stream.write_all(&answer).unwrap();
        }
    });
    (url, asked)
}

fn answer(head: &str, length: usize, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").into_bytes()
}

fn get(answers: Vec<Vec<u8>>, there: &str, limit: u64) -> (Result<String>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("part");
    if !there.is_empty() {
        std::fs::write(&to, there).unwrap();
    }
    let (url, asked) = serve(answers);
    let got = Client::new().get(&url, &to, limit, &|_| ()).map(|()| std::fs::read_to_string(&to).unwrap());
    let asked = asked.lock().unwrap().clone();
    (got, asked)
}

#[test]
fn what_was_cut_off_is_gone_on_with() {
    let rest = "206 Partial\r\ncontent-range: bytes 3-5/6";
    let (got, asked) = get(vec![answer("200 OK", 6, "abc"), answer(rest, 3, "def")], "", 6);
    assert_eq!((got.unwrap().as_str(), asked), ("abcdef", vec![String::new(), "bytes=3-".into()]));
    let (got, asked) = get(vec![answer(rest, 3, "def")], "abc", 6);
    assert_eq!((got.unwrap().as_str(), asked), ("abcdef", vec!["bytes=3-".into()]));
}

#[test]
fn a_server_without_ranges_and_a_wrong_beginning_begin_anew() {
    let whole = || answer("200 OK", 6, "abcdef");
    assert_eq!(get(vec![whole()], "xyz", 6).0.unwrap(), "abcdef");
    assert_eq!(get(vec![answer("416 No", 0, ""), whole()], "longer than it", 6).0.unwrap(), "abcdef");
    let elsewhere = answer("206 Partial\r\ncontent-range: bytes 0-5/6", 6, "abcdef");
    assert_eq!(get(vec![elsewhere, whole()], "abc", 6).0.unwrap(), "abcdef");
}

#[test]
fn too_much_is_refused_and_what_is_not_there_is_not_asked_for_again() {
    let (got, _) = get(vec![answer("200 OK", 7, "abcdefg")], "", 6);
    assert_eq!(got.unwrap_err().code(), Code::BadInput);
    let (got, asked) = get(vec![answer("404 None", 0, ""), answer("200 OK", 1, "a")], "", 6);
    assert_eq!((got.unwrap_err().code(), asked.len()), (Code::MissingFile, 1));
    let busy = || answer("503 Busy", 0, "");
    let (got, asked) = get(vec![busy(), busy(), busy(), busy()], "", 6);
    let e = got.unwrap_err();
    assert!(e.code() == Code::Io && asked.len() == 3 && e.get_hint().is_some(), "{e} {asked:?}");
}
