//! Files over http and https, resumed where they were cut off. Knows nothing of packages.

use lib_common::error::{Code, Error, Result};
use lib_common::sys::{plain, signal};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

/// A server that says nothing for so long is asked anew.
const SILENCE: Duration = Duration::from_secs(10);
/// So often in a row, without a byte in between.
const TRIES: u32 = 3;
/// The longest list of certificates that is read, in bytes.
const MAX_ROOTS: u64 = 16 << 20;
/// Before the second try; each further one waits as much longer.
const PAUSE: Duration = Duration::from_millis(200);

/// Where distributions have the certificates of those who vouch for hosts.
const ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What downloads.
#[derive(Debug)]
pub struct Client(ureq::Agent);

/// Why one try has failed, and whether another one makes sense.
enum Failed {
    Again(Error),
    ForGood(Error),
}

impl Client {
    /// With the host's own certificates and the proxies of the environment (`https_proxy`, `no_proxy`, …).
    pub fn new() -> Self {
        let roots = RootCerts::new_with_certs(&host_roots());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider).build();
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(tls)
            .user_agent(concat!("banger/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE));
        Client(config.build().into())
    }

    /// Makes `to` the file at `url`, of which it may have the beginning already. `heard` is told of each stretch, in bytes.
    ///
    /// # Errors
    /// [`Code::MissingFile`] for what the server does not have, [`Code::BadInput`] for more than `limit` bytes,
    /// [`Code::Io`] where it cannot be had; the signal that came.
    pub fn get(&self, url: &str, to: &Path, limit: u64, heard: &(dyn Fn(u64) + Sync)) -> Result<()> {
        let mut tries = 0;
        loop {
            signal::check()?;
            let before = length(to);
            let e = match self.attempt(url, to, limit, heard) {
                Ok(()) => return Ok(()),
                Err(Failed::ForGood(e)) => return Err(e),
                Err(Failed::Again(e)) => e,
            };
            tries = if length(to) > before { 1 } else { tries + 1 };
            if tries >= TRIES {
                return Err(e.hint("try again; what is there already is not downloaded anew"));
            }
            std::thread::sleep(PAUSE * tries);
        }
    }

    fn attempt(&self, url: &str, to: &Path, limit: u64, heard: &(dyn Fn(u64) + Sync)) -> Result<(), Failed> {
        let failed = |code: Code| Error::new(code, format!("cannot download {url}"));
        let local = |e: std::io::Error| Failed::ForGood(Error::io("write", to, &e));
        let have = length(to);
        let request = self.0.get(url);
        let request = if have > 0 { request.header("range", format!("bytes={have}-")) } else { request };
        let response = request.call().map_err(|e| Failed::Again(failed(Code::Io).because(&e)))?;
        let status = response.status().as_u16();
        let says = |code: Code| failed(code).also(format!("the server says {status}"));
        let begins = response.headers().get("content-range").and_then(|value| value.to_str().ok());
        let resumed = status == 206 && begins.is_some_and(|text| text.starts_with(&format!("bytes {have}-")));
        match status {
            206 if resumed => {}
            200 => empty(to).map_err(local)?,
            // What is there is no beginning of what the server has.
            206 | 416 => {
                empty(to).map_err(local)?;
                return Err(Failed::Again(says(Code::Io)));
            }
            404 | 410 => return Err(Failed::ForGood(says(Code::MissingFile))),
            408 | 429 | 500.. => return Err(Failed::Again(says(Code::Io))),
            _ => return Err(Failed::ForGood(says(Code::Io))),
        }
        let mut file = OpenOptions::new().create(true).append(true).open(to).map_err(local)?;
        let (mut input, mut buffer, mut total) = (response.into_body().into_reader(), vec![0; 128 << 10], length(to));
        loop {
            signal::check().map_err(Failed::ForGood)?;
            let n = match input.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) => return Err(Failed::Again(failed(Code::Io).because(&e))),
            };
            total += n as u64;
            if total > limit {
                empty(to).map_err(local)?;
                let e = failed(Code::BadInput).also(format!("it has more than {limit} bytes"));
                return Err(Failed::ForGood(e));
            }
            file.write_all(&buffer[..n]).map_err(local)?;
            heard(n as u64);
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Client::new()
    }
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}

fn empty(path: &Path) -> std::io::Result<()> {
    File::create(path).map(drop)
}

/// Those of `SSL_CERT_FILE`, or of where they are looked for. Without any, https fails and says why.
fn host_roots() -> Vec<Certificate<'static>> {
    let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let mut places = named.into_iter().chain(ROOTS.iter().map(std::path::PathBuf::from));
    let Some(pem) = places.find_map(|path| plain::read_named(&path, MAX_ROOTS).ok()) else { return vec![] };
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    ureq::tls::parse_pem(&pem).filter_map(certificate).collect()
}

#[cfg(test)]
mod tests;
