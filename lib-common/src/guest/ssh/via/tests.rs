use super::*;
use crate::guest::card::tests::net;
use crate::guest::fake::Fake;
use crate::guest::live::tests::{document, stand_in};
use crate::sys::netns;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn a_guest_that_closes_without_a_byte_is_tried_again_and_the_byte_is_not_lost() {
    let tries = AtomicUsize::new(0);
    let guest = Fake::open(move |mut stream| {
        // The agent's relay, before there is an sshd: it accepts and closes.
        if tries.fetch_add(1, Ordering::SeqCst) >= 2 {
            stream.write_all(b"SSH-2.0-fake\r\n").unwrap();
        }
    });
    let (_child, vmm) = stand_in(guest.socket());
    let live = Live::of(&document(&vmm)).unwrap();
    let mut stream = wait_for_sshd(&live, Instant::now() + Duration::from_secs(30)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "SSH-2.0-fake\r\n");
}

#[test]
fn an_sshd_with_too_many_logins_under_way_is_tried_again() {
    let tries = AtomicUsize::new(0);
    let guest = Fake::open(move |mut stream| {
        let greeting: &[&[u8]] = match tries.fetch_add(1, Ordering::SeqCst) {
            0 => &[b"Exceeded MaxStartups\r\n"],
            1 => &[b"Not allowed at this time\r\n"],
            // A greeting that comes in parts, behind text that RFC 4253 allows before it.
            _ => &[b"welcome\r\nSS", b"H-2.0-fake\r\n"],
        };
        for part in greeting {
            stream.write_all(part).unwrap();
            std::thread::park_timeout(Duration::from_millis(20));
        }
    });
    let (_child, vmm) = stand_in(guest.socket());
    let live = Live::of(&document(&vmm)).unwrap();
    let mut stream = wait_for_sshd(&live, Instant::now() + Duration::from_secs(30)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "SSH-2.0-fake\r\n");
}

#[test]
fn an_sshd_that_never_speaks_is_given_up_at_the_deadline() {
    for guest in [Fake::open(drop), Fake::open(Fake::until_closed)] {
        let (_child, vmm) = stand_in(guest.socket());
        let live = Live::of(&document(&vmm)).unwrap();
        let e = wait_for_sshd(&live, Instant::now() + Duration::from_millis(80)).unwrap_err();
        assert_eq!(e.code(), Code::TimedOut, "{e:?}");
    }
}

const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 16, 224, 2);

#[test]
fn the_card_counts_where_it_is_and_vsock_everywhere() {
    let here = netns::inode().unwrap();
    let (_child, vmm) = stand_in(Path::new("/v"));
    let tap = Some(SocketAddrV4::new(ADDRESS, 22));
    let said = |doc: &Document| {
        let e = Ways::of(Via::Tap, doc).unwrap_err();
        assert_eq!(e.code(), Code::GuestUnreachable);
        assert!(e.get_hint().unwrap().contains("--via vsock dev"), "{e:?}");
        e.message().to_owned()
    };
    let mut doc = document(&vmm);
    assert!(said(&doc).contains("has no network card"));
    assert_eq!([Via::Auto, Via::Vsock].map(|via| Ways::of(via, &doc).unwrap()), [Ways::VSOCK; 2]);
    doc.set(&net(here + 1, Some("tap-1"), ADDRESS));
    assert!(said(&doc).contains("another network namespace"));
    assert_eq!([Via::Auto, Via::Vsock].map(|via| Ways::of(via, &doc).unwrap()), [Ways::VSOCK; 2]);
    doc.set(&net(here, Some("tap-1"), ADDRESS));
    assert_eq!(
        [Via::Auto, Via::Tap, Via::Vsock].map(|via| Ways::of(via, &doc).unwrap()),
        [Ways { tap, vsock: true }, Ways { tap, vsock: false }, Ways::VSOCK]
    );
    for via in [Via::Auto, Via::Tap, Via::Vsock] {
        assert_eq!(via.as_str().parse(), Ok(via));
    }
    assert!("TAP".parse::<Via>().is_err());
}

/// What the listener's thread does with each connection.
fn tcp(answer: impl Fn(TcpStream) + Send + 'static) -> SocketAddrV4 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
    std::thread::spawn(move || listener.incoming().for_each(|stream| answer(stream.unwrap())));
    address
}

/// An address on which nobody listens.
fn nobody() -> SocketAddrV4 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
    address
}

fn says(word: &'static [u8]) -> impl Fn(TcpStream) + Send + 'static {
    move |mut stream| stream.write_all(word).unwrap()
}

fn is_silent(mut stream: TcpStream) {
    std::thread::spawn(move || stream.read(&mut [0; 8]));
}

#[test]
fn whichever_answers_first_is_taken() {
    let vsock = || Fake::open(|mut stream| stream.write_all(b"SSH-vsock").unwrap());
    let closes_at_once = || Fake::open(drop);
    let cases: [(Option<SocketAddrV4>, Fake, bool, &str); 8] = [
        (Some(tcp(says(b"SSH-tap"))), vsock(), true, "SSH-tap"),
        (Some(tcp(says(b"SSH-tap"))), vsock(), false, "SSH-tap"),
        (None, vsock(), true, "SSH-vsock"),
        (Some(nobody()), vsock(), true, "SSH-vsock"),
        (Some(tcp(drop)), vsock(), true, "SSH-vsock"),
        (Some(tcp(is_silent)), vsock(), true, "SSH-vsock"),
        (Some(tcp(says(b"Exceeded MaxStartups\r\n"))), vsock(), true, "SSH-vsock"),
        (Some(tcp(says(b"SSH-tap"))), closes_at_once(), true, "SSH-tap"),
    ];
    for (number, (tap, guest, vsock, expected)) in cases.into_iter().enumerate() {
        let (_child, vmm) = stand_in(guest.socket());
        let live = Live::of(&document(&vmm)).unwrap();
        let fd = Ways { tap, vsock }.connect(&live, Instant::now() + Duration::from_secs(30)).unwrap();
        let mut text = String::new();
        std::fs::File::from(fd).read_to_string(&mut text).unwrap();
        assert_eq!(text, expected, "case {number}");
    }
}

#[test]
fn the_card_alone_is_waited_for_to_the_deadline() {
    // A guest that would answer by vsock is not asked.
    let guest = Fake::open(|mut stream| stream.write_all(b"SSH-vsock").unwrap());
    let (child, vmm) = stand_in(guest.socket());
    let live = Live::of(&document(&vmm)).unwrap();
    for (tap, why) in [(nobody(), "does not answer on 127.0.0.1:"), (tcp(drop), "yet"), (tcp(is_silent), "yet")] {
        let ways = Ways { tap: Some(tap), vsock: false };
        let e = ways.connect(&live, Instant::now() + Duration::from_millis(80)).unwrap_err();
        assert_eq!(e.code(), Code::TimedOut, "{e:?}");
        assert!(e.causes()[0].contains(why), "{e:?}");
    }
    drop(child);
    let ways = Ways { tap: Some(nobody()), vsock: true };
    std::fs::remove_file(guest.socket()).unwrap();
    let begun = Instant::now();
    let e = ways.connect(&live, begun + Duration::from_secs(600)).unwrap_err();
    assert_eq!(e.code(), Code::NotRunning, "{e:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}
