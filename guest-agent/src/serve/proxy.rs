//! Offers the builder's package proxy on the guest's loopback interface: a guest that is built has no network card.

use super::accept::{Accept, Slots};
use super::health;
use super::relay::{self, Patience};
use lib_common::doc::PROXY_PORT;
use std::io::Result;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use vsock::{VMADDR_CID_HOST, VsockStream};

/// Slots that are left to health, shutdown and SSH: the host takes no more than 32 of these connections either.
const RESERVED_SLOTS: usize = 32;

/// How long the host may be silent once a client has ended. A vsock device does not pass the end of one way on, so without
/// it the host would keep each connection of a package manager that is done for as long as it keeps an idle one: a minute.
/// No package manager ends its half before it has its answer.
const SILENCE: Duration = Duration::from_secs(5);

/// The longest pause between two attempts to listen.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The loopback port that `/init` was told to offer, if any.
pub fn port() -> Option<u16> {
    health::line(&health::own_file(crate::PROXY_PORT_FILE)).parse().ok().filter(|port| *port != 0)
}

/// Serves for ever on this port of the loopback interface, and on no other address.
pub fn serve(port: u16, slots: &Arc<Slots>) -> ! {
    let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    // The kernel gives up connecting after two seconds.
    let patience = Patience { server: Some(SILENCE), ..Patience::default() };
    relay::serve(&listener, (slots, RESERVED_SLOTS), patience, || {
        VsockStream::connect_with_cid_port(VMADDR_CID_HOST, PROXY_PORT)
    })
}

/// Listens on `address`, whose interface the guest's init may bring up only later.
fn listen(address: SocketAddr) -> TcpListener {
    let mut pause = Duration::from_millis(20);
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(e) if pause < LONGEST_PAUSE => {
                if pause > LONGEST_PAUSE / 2 {
                    eprintln!("guest-agent: cannot listen on {address} yet: {e}");
                }
                std::thread::sleep(pause);
                pause *= 2;
            }
            Err(_) => std::thread::sleep(LONGEST_PAUSE),
        }
    }
}

impl Accept for TcpListener {
    type Conn = TcpStream;

    fn accept(&self) -> Result<TcpStream> {
        let (stream, _) = TcpListener::accept(self)?;
        // Without it the end of a request waits for an acknowledgement; slower, no more.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_taken_is_waited_for() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let waiter = std::thread::spawn(move || listen(address));
        drop(taken);
        assert_eq!(waiter.join().unwrap().local_addr().unwrap(), address);
    }
}
