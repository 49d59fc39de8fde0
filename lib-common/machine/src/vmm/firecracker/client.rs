//! Firecracker's API over its Unix socket, as far as it is used once a VM runs: what it does, and the keys that reboot it.

use super::api::{ActionType, Fault, InstanceActionInfo, InstanceInfo, InstanceState};
use crate::guest::{http, vsock};
use lib_common::doc::to_json;
use lib_common::error::{Code, Error, Result};
use lib_common::sys::socket::peer;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

/// What the Firecracker behind a socket says of itself, and the process that it is.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::vmm) struct Answer {
    /// Its version, once its guest's processors run.
    pub running: Option<String>,
    /// The process that listens.
    pub pid: i32,
}

/// Asks the Firecracker behind the socket what it does.
///
/// # Errors
/// [`Code::GuestUnreachable`] where nobody answers before `deadline`, which is no wonder while it starts;
/// [`Code::VmmFailed`] for an answer that is none, with its own words; a signal's.
pub(in crate::vmm) fn ask(socket: &Path, deadline: Instant) -> Result<Answer> {
    let (body, pid) = exchange(socket, "GET /", None, (200, deadline))?;
    let text = String::from_utf8_lossy(&body);
    let info: InstanceInfo = serde_json::from_str(&text)
        .map_err(|e| Error::new(Code::VmmFailed, "Firecracker's answer to GET / is not as it should be").because(&e))?;
    let is_running = info.state == InstanceState::Running;
    let running = is_running.then(|| info.vmm_version.replace(char::is_control, "\u{fffd}"));
    Ok(Answer { running, pid })
}

/// Presses Ctrl+Alt+Del, which a guest's init takes for a reboot; the guest has not done anything yet when this returns.
///
/// # Errors
/// As those of [`ask`].
pub(in crate::vmm) fn send_ctrl_alt_del(socket: &Path, deadline: Instant) -> Result<()> {
    let action = to_json(&InstanceActionInfo { action_type: ActionType::SendCtrlAltDel });
    exchange(socket, "PUT /actions", Some(&action), (204, deadline)).map(drop)
}

/// One request; gives the body of the reply, which has the status that was expected, and the process that listens.
fn exchange(
    socket: &Path,
    request: &str,
    body: Option<&str>,
    (expected, deadline): (u16, Instant),
) -> Result<(Vec<u8>, i32)> {
    let within = |e: Error| match e.code() {
        Code::GuestUnreachable => e.within(format!("Firecracker gives no answer to {request}")),
        _ => e,
    };
    let stream = vsock::open(socket, deadline).map_err(within)?;
    let pid = peer(stream.as_fd())?;
    let head = format!("{request} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n");
    let text = match body {
        Some(body) => {
            let length = body.len();
            format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        }
        None => format!("{head}\r\n"),
    };
    let reply = http::exchange_on(stream, &text, deadline).map_err(within)?;
    if reply.status == expected {
        return Ok((reply.body, pid));
    }
    let error = Error::new(Code::VmmFailed, format!("Firecracker answers {} to {request}", reply.status));
    Err(match serde_json::from_slice::<Fault>(&reply.body) {
        Ok(fault) => error.also(fault.fault_message.replace(char::is_control, "\u{fffd}")),
        Err(_) => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    /// A server that answers one request with these bytes and keeps the connection, as Firecracker does; what it was asked.
    fn answering(dir: &Path, reply: String) -> std::thread::JoinHandle<String> {
        let listener = UnixListener::bind(dir.join("api")).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![];
            while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                let mut byte = [0; 512];
                let n = stream.read(&mut byte).unwrap();
                request.extend_from_slice(&byte[..n]);
            }
            stream.write_all(reply.as_bytes()).unwrap();
            // Until the client has had enough.
            let _ = stream.read(&mut [0]);
            String::from_utf8(request).unwrap()
        })
    }

    #[test]
    fn answers_and_what_becomes_of_them() {
        let info = |state: &str| {
            format!(r#"{{"app_name":"Firecracker","id":"x","state":"{state}","vmm_version":"1.10.1","later":1}}"#)
        };
        let reply = |status: u16, length: usize, body: &str| {
            format!("HTTP/1.1 {status} \r\nContent-Length: {length}\r\n\r\n{body}")
        };
        let whole = |status: u16, body: &str| reply(status, body.len(), body);
        let cases = [
            (whole(200, &info("Running")), Ok(Some("1.10.1"))),
            (whole(200, &info("Not started")), Ok(None)),
            (whole(200, &info("Dancing")), Err((Code::VmmFailed, "not as it should be"))),
            (whole(400, r#"{"fault_message":"no\u001b"}"#), Err((Code::VmmFailed, "answers 400 to GET /"))),
            (whole(500, ""), Err((Code::VmmFailed, "answers 500 to GET /"))),
            (whole(200, "{}"), Err((Code::VmmFailed, "not as it should be"))),
            (reply(200, 9, "{}"), Err((Code::GuestUnreachable, "no answer to GET /"))),
            ("hello\r\n\r\n".into(), Err((Code::GuestUnreachable, "no answer to GET /"))),
        ];
        for (reply, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            let server = answering(dir.path(), reply);
            let got = ask(&dir.path().join("api"), Instant::now() + Duration::from_millis(300));
            match (got, expected) {
                (Ok(got), Ok(expected)) => {
                    assert_eq!((got.running.as_deref(), got.pid), (expected, std::process::id().cast_signed()));
                }
                (Err(e), Err((code, says))) => {
                    assert!(e.code() == code && e.message().contains(says), "{e:?}");
                    assert!(!e.causes().concat().contains('\u{1b}'), "{e:?}");
                }
                (got, expected) => panic!("{got:?} instead of {expected:?}"),
            }
            server.join().unwrap();
        }
    }

    #[test]
    fn the_keys_are_pressed_and_no_body_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let server = answering(dir.path(), "HTTP/1.1 204 \r\nConnection: keep-alive\r\n\r\n".into());
        send_ctrl_alt_del(&dir.path().join("api"), Instant::now() + Duration::from_secs(10)).unwrap();
        let request = server.join().unwrap();
        assert!(
            request.starts_with("PUT /actions HTTP/1.1\r\n") && request.contains("Content-Length: 32\r\n"),
            "{request}"
        );
        assert!(request.ends_with("\r\n\r\n{\"action_type\":\"SendCtrlAltDel\"}"), "{request}");
        let e = send_ctrl_alt_del(&dir.path().join("none"), Instant::now()).unwrap_err();
        assert_eq!(e.code(), Code::GuestUnreachable);
    }
}
