use super::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Runs a relay between two sockets, as ssh holds them, and one that is the guest's.
fn relayed(work: impl FnOnce(UnixStream, UnixStream, UnixStream)) -> Result<()> {
    let (stdin, input) = UnixStream::pair().unwrap();
    let (stdout, output) = UnixStream::pair().unwrap();
    let (guest, ours) = UnixStream::pair().unwrap();
    for stream in [&stdin, &stdout, &guest] {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    }
    std::thread::scope(|scope| {
        let running = scope.spawn(move || relay(input.as_fd(), output.as_fd(), ours.into()));
        work(stdin, stdout, guest);
        running.join().unwrap()
    })
}

#[test]
fn the_end_of_the_input_is_handed_on_and_the_guest_still_answers() {
    let done = relayed(|mut stdin, mut stdout, mut guest| {
        stdin.write_all(b"question").unwrap();
        stdin.shutdown(std::net::Shutdown::Write).unwrap();
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
                    to.shutdown(std::net::Shutdown::Write).unwrap();
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
