//! `guest-agent serve`: health, listeners and shutdown over HTTP on one vsock port, a relay to sshd on another, and for a guest that
//! is built a relay from its loopback interface to the package proxy on the host.

mod accept;
mod clock;
mod clock_step;
mod disks;
mod health;
mod http;
mod io;
mod listeners;
mod login;
mod proxy;
mod relay;
mod request;
mod sshd;

use crate::{host, power};
use accept::{Accept, Slots};
use lib_common::doc::{HEALTH_PORT, Health, Listeners, SSH_PORT, UP_PORT, to_json};
use std::convert::Infallible;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use vsock::{VMADDR_CID_ANY, VsockListener};

/// Connections held at once, on all ports together: what a client can make the agent hold has an end.
const CONNECTIONS: usize = 64;

/// An sshd that has not begun to speak by then may have a reason.
const BOOT: Duration = Duration::from_secs(20);

/// Serves until it is killed.
pub fn main() -> ExitCode {
    let slots = Arc::new(Slots::new(CONNECTIONS));
    let ssh_slots = Arc::clone(&slots);
    let ssh = start("ssh relay", move || {
        relay::serve(&listen(SSH_PORT), (&ssh_slots, sshd::RESERVED_SLOTS), relay::Patience::default(), sshd::connect)
    });
    let proxy_slots = Arc::clone(&slots);
    let proxy = proxy::port().map_or(Ok(()), |port| start("proxy relay", move || proxy::serve(port, &proxy_slots)));
    if let Err(e) = ssh.and(proxy) {
        // The service manager tries again.
        eprintln!("guest-agent: cannot start a thread: {e}");
        return ExitCode::FAILURE;
    }
    let guest = Arc::new(Guest { sshd: sshd::Probe::new(sshd::ADDRESS), login: login::Login::default() });
    let listener = listen(HEALTH_PORT);
    announce();
    http::serve(&listener, &slots, http::Limits::default(), guest)
}

fn start(name: &str, serve: impl FnOnce() -> Infallible + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(accept::STACK_BYTES).spawn(serve).map(drop)
}

/// The real guest behind the HTTP server.
struct Guest {
    sshd: sshd::Probe,
    login: login::Login,
}

impl http::Service for Guest {
    fn health(&self, asked: http::Asked) -> Health {
        let clock = asked.host_unix_ms.and_then(clock_step::follow);
        let sshd = self.sshd.look(asked.sshd_within);
        // While the guest boots its sshd is not there yet, and everything else waits for the processor.
        let login = if sshd == sshd::Seen::Banner || health::uptime() > BOOT {
            self.login.problems(asked.sshd_within)
        } else {
            vec![]
        };
        health::gather(sshd, clock.into_iter().chain(login).collect())
    }

    fn listeners(&self) -> Listeners {
        listeners::gather()
    }

    fn shut_down(&self) {
        if let Err(e) = power::shut_down() {
            eprintln!("guest-agent: {}: {}", e.message(), e.causes().join(": "));
        }
    }
}

/// Tells the host that the guest can be connected to, and of what its boot consisted. A host that does not want to know refuses.
fn announce() {
    let not_loaded_yet =
        |e: &std::io::Error| matches!(e.raw_os_error(), Some(nix::libc::ENODEV | nix::libc::ENETUNREACH));
    if let Ok(mut host) = host::connect(UP_PORT, Duration::from_secs(2), not_loaded_yet) {
        // It is for a list of stages alone; a host that does not listen any more has all that it needs.
        if let Some(clock) = clock::of_this_boot() {
            let _ = host.write_all(format!("{}\n", to_json(&clock)).as_bytes());
        }
    }
}

/// Listens on `port`. The port of an agent that was just killed, and a transport that is not loaded yet, come in time.
fn listen(port: u32) -> VsockListener {
    let mut pause = Duration::from_millis(20);
    loop {
        match VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port) {
            Ok(listener) => return listener,
            Err(e) if pause < Duration::from_secs(1) => {
                if pause > Duration::from_millis(500) {
                    eprintln!("guest-agent: cannot listen on vsock port {port} yet: {e}");
                }
                std::thread::sleep(pause);
                pause *= 2;
            }
            Err(_) => std::thread::sleep(pause),
        }
    }
}

impl Accept for VsockListener {
    type Conn = vsock::VsockStream;

    fn accept(&self) -> std::io::Result<Self::Conn> {
        VsockListener::accept(self).map(|(stream, _)| stream)
    }
}
