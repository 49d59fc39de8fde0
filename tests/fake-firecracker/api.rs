//! The API: `GET /`, `GET /version` and `PUT /actions`; whatever else comes is answered 400. Connections are kept, as HTTP/1.1
//! has it. What is asked while the microVM is being built waits until it is.

use crate::schema;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Whether the microVM is built, and how many requests wait for that.
#[derive(Default)]
pub struct Build {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Build {
    /// It is.
    pub fn finish(&self) {
        self.state.lock().unwrap().0 = true;
        self.changed.notify_all();
    }

    /// Whether a request waits.
    pub fn is_asked(&self) -> bool {
        self.state.lock().unwrap().1 > 0
    }

    /// Waits until one does, or for so long.
    pub fn wait_until_asked(&self, most: Duration) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_timeout_while(state, most, |(_, asking)| *asking == 0).unwrap());
    }

    fn wait(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        state = self.changed.wait_while(state, |(built, _)| !*built).unwrap();
        state.1 -= 1;
    }
}

/// What answers.
#[derive(Clone)]
pub struct Instance {
    pub id: String,
    pub version: String,
    pub mode: String,
    pub build: Arc<Build>,
    pub running: Arc<AtomicBool>,
    /// Whether somebody was told that it runs.
    pub told: Arc<AtomicBool>,
}

/// A thread for each connection.
pub fn serve(listener: &UnixListener, instance: &Instance) {
    for stream in listener.incoming().flatten() {
        let instance = instance.clone();
        std::thread::spawn(move || connection(stream, &instance));
    }
}

/// An answer: its status and body.
type Answer = (u16, Option<Value>);

fn connection(stream: UnixStream, instance: &Instance) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some((line, body)) = request(&mut reader) {
        instance.build.wait();
        let (status, body) = answer(&line, &body, instance);
        let text = body.map(|b| b.to_string()).unwrap_or_default();
        let head = match status {
            204 => "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n".to_owned(),
            _ => format!(
                "HTTP/1.1 {status} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\nContent-Type: \
                 application/json\r\nContent-Length: {}\r\n\r\n",
                text.len()
            ),
        };
        let reply = head + &text;
        match instance.mode.as_str() {
            "hangs" => std::thread::park(),
            "partly" => {
                let _ = (&stream).write_all(&reply.as_bytes()[..reply.len() - 10]);
                return;
            }
            "nonsense" => {
                let _ = (&stream).write_all(b"220 mail.example.org ESMTP\r\n\r\n");
                return;
            }
            "late" => std::thread::park_timeout(Duration::from_millis(300)),
            _ => {}
        }
        if (&stream).write_all(reply.as_bytes()).is_err() {
            return;
        }
        instance.told.store(instance.running.load(Ordering::SeqCst), Ordering::SeqCst);
        if line == "PUT /actions HTTP/1.1" && status == 204 && instance.mode != "stays" {
            println!("[   12.345678] reboot: Restarting system\r");
            std::process::exit(0);
        }
    }
}

/// The first line and the body; `None` at the connection's end.
fn request(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut lines = vec![];
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.strip_suffix("\r\n")?.to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let length = lines.iter().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some((lines.first()?.clone(), body))
}

fn answer(line: &str, body: &[u8], instance: &Instance) -> Answer {
    let fault = |status: u16, why: &str| (status, Some(json!({ "fault_message": why })));
    let running = instance.running.load(Ordering::SeqCst);
    match instance.mode.as_str() {
        "400" => return fault(400, "the fault of a test"),
        "500" => return (500, None),
        _ => {}
    }
    match line {
        "GET / HTTP/1.1" if body.is_empty() => {
            let state = if running { "Running" } else { "Not started" };
            let info =
                json!({"app_name": "Firecracker", "id": instance.id, "state": state, "vmm_version": instance.version});
            (200, Some(info))
        }
        "GET /version HTTP/1.1" if body.is_empty() => (200, Some(json!({"firecracker_version": instance.version}))),
        "PUT /actions HTTP/1.1" => {
            let checked = serde_json::from_slice(body).map_err(|e| e.to_string());
            let checked = checked.and_then(|v: Value| {
                schema::check(&v, schema::INSTANCE_ACTION_INFO, &instance.version).map(|()| v["action_type"].clone())
            });
            match checked {
                Ok(_) if instance.mode == "keys-400" => fault(400, "there is no keyboard"),
                Ok(action) if running && action == "SendCtrlAltDel" => (204, None),
                Ok(action) => fault(400, &format!("{action} is not possible now")),
                Err(why) => fault(400, &why),
            }
        }
        other => fault(400, &format!("Invalid request method and/or path: {other}")),
    }
}
