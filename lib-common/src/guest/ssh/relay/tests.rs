use super::*;
use crate::guest::fake::Fake;
use crate::guest::live::tests::{document, stand_in};
use std::io::{Read, Write};
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
fn an_sshd_that_never_speaks_is_given_up_at_the_deadline() {
    for guest in [Fake::open(drop), Fake::open(Fake::until_closed)] {
        let (_child, vmm) = stand_in(guest.socket());
        let live = Live::of(&document(&vmm)).unwrap();
        let e = wait_for_sshd(&live, Instant::now() + Duration::from_millis(80)).unwrap_err();
        assert_eq!(e.code(), Code::TimedOut, "{e:?}");
    }
}

/// Runs a relay between two sockets, as ssh holds them, and one that is the guest's.
fn relayed(work: impl FnOnce(UnixStream, UnixStream, UnixStream)) -> Result<()> {
    let (stdin, input) = UnixStream::pair().unwrap();
    let (stdout, output) = UnixStream::pair().unwrap();
    let (guest, ours) = UnixStream::pair().unwrap();
    for stream in [&stdin, &stdout, &guest] {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    }
    std::thread::scope(|scope| {
        let running = scope.spawn(move || relay(input.as_fd(), output.as_fd(), ours));
        work(stdin, stdout, guest);
        running.join().unwrap()
    })
}

#[test]
fn the_end_of_the_input_is_handed_on_and_the_guest_still_answers() {
    let done = relayed(|mut stdin, mut stdout, mut guest| {
        stdin.write_all(b"question").unwrap();
        stdin.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        guest.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        guest.write_all(b"answer").unwrap();
        drop(guest);
        text.clear();
        stdout.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
    });
    done.unwrap();
}

#[test]
fn it_ends_with_the_guest_while_the_input_is_still_open() {
    relayed(|_stdin, mut stdout, mut guest| {
        guest.write_all(b"bye").unwrap();
        drop(guest);
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bye");
    })
    .unwrap();
}

#[test]
fn it_ends_when_nobody_reads_the_output() {
    relayed(|_stdin, stdout, mut guest| {
        drop(stdout);
        let _ = guest.write_all(b"x");
        assert!(matches!(guest.read(&mut [0; 8]), Ok(0) | Err(_)));
    })
    .unwrap();
}

#[test]
fn much_goes_both_ways_at_once_whole_and_in_order() {
    let much: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    relayed(|stdin, stdout, guest| {
        std::thread::scope(|scope| {
            let send = |mut to: UnixStream| {
                let bytes = &much;
                move || {
                    to.write_all(bytes).unwrap();
                    to.shutdown(Shutdown::Write).unwrap();
                }
            };
            let receive = |mut from: UnixStream| {
                let bytes = &much;
                move || {
                    let mut got = vec![0; bytes.len()];
                    from.read_exact(&mut got).unwrap();
                    assert!(got == *bytes);
                }
            };
            scope.spawn(send(stdin));
            scope.spawn(receive(guest.try_clone().unwrap())).join().unwrap();
            scope.spawn(send(guest));
            scope.spawn(receive(stdout)).join().unwrap();
        });
    })
    .unwrap();
}
