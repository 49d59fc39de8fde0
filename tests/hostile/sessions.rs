//! Sessions of our own with a guest whose sshd speaks SSH, and more than it was asked for.

use super::bounded_with;
use crate::faults::build::{self, has_guest};
use crate::running::World;
use crate::support::launched::until;
use lib_common::error::Code;
use lib_machine::guest::ssh::keys::{HostKey, new_host_key};
use lib_machine::guest::ssh::session::{Login, Session};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any of these may take, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an image build may use, in milliseconds of CPU time: it makes two disks, and decrypts what its guest sends.
const BUILD_CPU_MS: u64 = 20_000;

/// What such a guest sends at most: where nobody stops it, the test is to fail, and not the machine.
const MUCH: usize = 256 << 20;

/// Greets, and sends packets of a type that is nobody's (RFC 4250, section 4.1.2). How many bytes went.
pub fn sends_what_nobody_asked_for(mut stream: UnixStream) -> usize {
    let mut packet = vec![0; 34 << 10];
    let length = u32::try_from(packet.len() - 4).unwrap();
    packet[..4].copy_from_slice(&length.to_be_bytes());
    (packet[4], packet[5]) = (4, 192);
    let (mut sent, mut went) = (0, stream.write_all(b"SSH-2.0-x\r\n"));
    while went.is_ok() && sent < MUCH {
        went = stream.write_all(&packet);
        sent += packet.len();
    }
    sent
}

/// A guest's sshd, which is `tests/support/fake-guest`.
struct Sshd {
    child: Child,
    dir: tempfile::TempDir,
    host_key: HostKey,
}

impl Sshd {
    fn start() -> Self {
        let (dir, host_key) = (tempfile::tempdir().unwrap(), new_host_key().unwrap());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/fake-guest");
        std::fs::copy(source, dir.path().join("fake-guest")).unwrap();
        for (file, key) in [("initrd", &host_key), ("key", &new_host_key().unwrap())] {
            std::fs::write(dir.path().join(file), key.private_pem()).unwrap();
        }
        let mut command = Command::new(dir.path().join("fake-guest"));
        command.args([dir.path().join("vsock"), dir.path().join("vhost")]).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        until("the guest listens", || UnixStream::connect(dir.path().join("vsock")).is_ok());
        Sshd { child, dir, host_key }
    }

    fn login(&self, time: Duration) -> Session {
        let mut stream = UnixStream::connect(self.dir.path().join("vsock")).unwrap();
        stream.write_all(b"CONNECT 22\n").unwrap();
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"OK 1024\n");
        let private_key = self.dir.path().join("key");
        let login = Login { user: "root", host_key: self.host_key.public_line(), private_key: &private_key };
        Session::open(stream, login, Instant::now() + time).unwrap()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_nobody_asked_for_is_not_taken_before_a_login() {
    let (ours, guests) = UnixStream::pair().unwrap();
    let guest = std::thread::spawn(move || sends_what_nobody_asked_for(guests));
    let error = Session::greeted(ours, Instant::now() + PATIENCE).err().expect("it is no sshd");
    assert_eq!(error.code(), Code::GuestUnreachable);
    assert!(error.to_string().contains("nobody asked for") && error.get_hint().is_some(), "{error:?}");
    // What the sockets hold is sent, too.
    let sent = guest.join().unwrap();
    assert!(sent < 4 << 20, "{sent} bytes");
}

#[test]
fn what_nobody_asked_for_is_not_kept_while_a_command_runs() {
    if !has_guest("what_nobody_asked_for_is_not_kept_while_a_command_runs") {
        return;
    }
    let sshd = Sshd::start();
    let session = sshd.login(PATIENCE);
    let ended = session.run("/bin/sh", b"send what nobody asked for", &mut |_, _| {});
    let error = ended.expect_err("it was too much");
    assert_eq!(error.code(), Code::GuestUnreachable);
    assert!(error.to_string().contains("nobody asked for"), "{error:?}");
}

#[test]
fn an_image_build_in_such_a_guest_fails_and_stays_small() {
    if !has_guest("an_image_build_in_such_a_guest_fails_and_stays_small") {
        return;
    }
    let world = World::new(&[]);
    let base = build::base(&world);
    std::fs::write(world.sandbox.path("home/script"), "#!/bin/sh\nsend what nobody asked for\n").unwrap();
    let command = world.command("bg-image-build", build::ARGS);
    let done = bounded_with(BUILD_CPU_MS, &world.sandbox, &command, base.as_bytes());
    let failed = done.failed_with(Code::GuestUnreachable);
    assert!(failed.message.contains("nobody asked for") || failed.causes.concat().contains("nobody"), "{failed:?}");
}

#[test]
fn what_goes_in_comes_out_however_much_it_is() {
    if !has_guest("what_goes_in_comes_out_however_much_it_is") {
        return;
    }
    let sshd = Sshd::start();
    let session = sshd.login(PATIENCE);
    let mut much = b"print it".to_vec();
    much.resize(8 << 20, 7);
    for input in [&much[..], b"print it", &much] {
        let mut printed = vec![];
        let ended = session.run("/bin/sh", input, &mut |_, bytes| printed.extend_from_slice(bytes)).unwrap();
        assert!(ended.is_success() && printed == input, "{ended:?}, {} bytes", printed.len());
    }
}

#[test]
fn output_that_comes_faster_than_it_is_shown_does_not_move_the_deadline() {
    if !has_guest("output_that_comes_faster_than_it_is_shown_does_not_move_the_deadline") {
        return;
    }
    let sshd = Sshd::start();
    // The first login takes longer.
    sshd.login(PATIENCE).run("/bin/sh", b"", &mut |_, _| {}).unwrap();
    let time = Duration::from_secs(5);
    let session = sshd.login(time);
    let late = Instant::now() + time;
    let mut shown = 0;
    let ended = session.run("/bin/sh", b"print much", &mut |_, _| {
        shown += 1;
        std::thread::park_timeout(late.saturating_duration_since(Instant::now()));
    });
    assert_eq!(ended.expect_err("it is late").code(), Code::TimedOut);
    assert_eq!(shown, 1, "of what came after the deadline nothing is shown");
}
