//! A body's bytes out of its framing (RFC 9112, sections 6 and 7.1), as they come.

use super::conn::Conn;
use super::head::{Framing, MAX_HEAD};
use std::io::{self, ErrorKind};

/// Reads one body.
#[derive(Debug)]
pub struct Body {
    state: State,
    /// How many more bytes it may have.
    allowed: u64,
}

#[derive(Debug)]
enum State {
    /// So many bytes are to come.
    Length(u64),
    /// A chunk's size is to come.
    Size,
    /// So many bytes of this chunk are.
    Chunk(u64),
    /// Everything until the connection's end.
    Close,
    Done,
}

impl Body {
    /// A body of this framing and at most `most` bytes.
    pub fn new(framing: Framing, most: u64) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::Close => State::Close,
        };
        Body { state, allowed: most }
    }

    /// How many bytes at the start of `conn`'s buffer belong to the body; 0 is its end. They are to be given to
    /// [`Body::take`].
    ///
    /// # Errors
    /// `UnexpectedEof` for a body that was cut short, `InvalidData` for one that is malformed or too long; those of
    /// [`Conn::fill`].
    pub fn next(&mut self, conn: &mut Conn) -> io::Result<usize> {
        loop {
            match self.state {
                State::Done => return Ok(0),
                State::Size => self.read_size(conn)?,
                State::Length(left) | State::Chunk(left) => {
                    need(conn, 1)?;
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(conn.buffered().len());
                    return self.count(n);
                }
                State::Close => {
                    if conn.buffered().is_empty() && conn.fill(conn.patience())? == 0 {
                        self.state = State::Done;
                        return Ok(0);
                    }
                    return self.count(conn.buffered().len());
                }
            }
        }
    }

    /// Consumes `n` bytes that [`Body::next`] gave.
    pub fn take(&mut self, conn: &mut Conn, n: usize) -> io::Result<()> {
        conn.consume(n);
        let n = n as u64;
        self.allowed = self.allowed.saturating_sub(n);
        match self.state {
            State::Length(left) if left > n => self.state = State::Length(left - n),
            State::Length(_) => self.state = State::Done,
            State::Chunk(left) if left > n => self.state = State::Chunk(left - n),
            State::Chunk(_) => {
                expect(conn, b"\r\n")?;
                self.state = State::Size;
            }
            State::Size | State::Close | State::Done => {}
        }
        Ok(())
    }

    fn count(&self, n: usize) -> io::Result<usize> {
        if n as u64 > self.allowed { Err(invalid("the body is too long")) } else { Ok(n) }
    }

    fn read_size(&mut self, conn: &mut Conn) -> io::Result<()> {
        loop {
            match httparse::parse_chunk_size(conn.buffered()) {
                Ok(httparse::Status::Complete((n, 0))) => {
                    conn.consume(n);
                    skip_trailers(conn)?;
                    self.state = State::Done;
                    return Ok(());
                }
                Ok(httparse::Status::Complete((n, size))) => {
                    conn.consume(n);
                    self.state = State::Chunk(size);
                    return Ok(());
                }
                Ok(httparse::Status::Partial) => need(conn, conn.buffered().len() + 1)?,
                Err(_) => return Err(invalid("a chunk's size is malformed")),
            }
        }
    }
}

/// Trailers are dropped: nothing that is asked for here has any.
fn skip_trailers(conn: &mut Conn) -> io::Result<()> {
    let mut skipped = 0;
    loop {
        let line = loop {
            match conn.buffered().iter().position(|b| *b == b'\n') {
                Some(at) => break at + 1,
                None => need(conn, conn.buffered().len() + 1)?,
            }
        };
        let is_last = matches!(&conn.buffered()[..line], b"\r\n" | b"\n");
        conn.consume(line);
        skipped += line;
        if is_last {
            return Ok(());
        }
        if skipped > MAX_HEAD {
            return Err(invalid("the trailer is too long"));
        }
    }
}

fn expect(conn: &mut Conn, bytes: &[u8]) -> io::Result<()> {
    need(conn, bytes.len())?;
    if !conn.buffered().starts_with(bytes) {
        return Err(invalid("a chunk is longer than it said"));
    }
    conn.consume(bytes.len());
    Ok(())
}

/// Waits until so many bytes are there. Of what is not a body's own there is never as much as a head.
fn need(conn: &mut Conn, count: usize) -> io::Result<()> {
    while conn.buffered().len() < count {
        if conn.buffered().len() > MAX_HEAD {
            return Err(invalid("a line is too long"));
        }
        if conn.fill(conn.patience())? == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the connection ended within the body"));
        }
    }
    Ok(())
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::proxy::conn::Stop;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::time::Duration;

    /// The body that these bytes give, and what is left of them.
    fn read(framing: Framing, sent: &[u8]) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let (mut other, ours) = UnixStream::pair().unwrap();
        let stop = Arc::new(Stop::new().unwrap());
        let mut conn = Conn::new(ours.into(), stop, Duration::from_secs(10)).unwrap();
        // A byte a time, so that everything is cut at every place.
        let sent = sent.to_vec();
        let writer = std::thread::spawn(move || sent.iter().try_for_each(|b| other.write_all(&[*b])));
        let (mut body, mut all) = (Body::new(framing, 100), vec![]);
        let result = loop {
            match body.next(&mut conn) {
                Ok(0) => break Ok(()),
                Ok(n) => {
                    all.extend_from_slice(&conn.buffered()[..n]);
                    if let Err(e) = body.take(&mut conn, n) {
                        break Err(e);
                    }
                }
                Err(e) => break Err(e),
            }
        };
        let mut rest = || -> io::Result<Vec<u8>> {
            while conn.fill(conn.patience())? > 0 {}
            Ok(conn.buffered().to_vec())
        };
        let rest = if result.is_ok() { rest()? } else { vec![] };
        drop(conn);
        let _ = writer.join();
        result.map(|()| (all, rest))
    }

    #[test]
    fn each_framing_ends_where_it_should() {
        let chunks = b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nnext";
        for (framing, sent, body, rest) in [
            (Framing::None, &b"next"[..], &b""[..], &b"next"[..]),
            (Framing::Length(0), b"next", b"", b"next"),
            (Framing::Length(3), b"abcnext", b"abc", b"next"),
            (Framing::Close, b"abc", b"abc", b""),
            (Framing::Chunked, chunks, b"abc0123456789", b"next"),
            (Framing::Chunked, b"0\r\n\r\n", b"", b""),
        ] {
            assert_eq!(read(framing, sent).unwrap(), (body.to_vec(), rest.to_vec()), "{framing:?}");
        }
    }

    #[test]
    fn a_body_that_is_cut_short_or_malformed_is_an_error() {
        let long = [b"ff\r\n".as_slice(), &[b'x'; 300]].concat();
        for (framing, sent, kind) in [
            (Framing::Length(3), &b"ab"[..], ErrorKind::UnexpectedEof),
            (Framing::Chunked, b"", ErrorKind::UnexpectedEof),
            (Framing::Chunked, b"3\r\nab", ErrorKind::UnexpectedEof),
            (Framing::Chunked, b"3\r\nabc", ErrorKind::UnexpectedEof),
            (Framing::Chunked, b"3\r\nabc\r\n", ErrorKind::UnexpectedEof),
            (Framing::Chunked, b"3\r\nabc\r\n0\r\n", ErrorKind::UnexpectedEof),
            (Framing::Chunked, b"3\r\nabcd\r\n", ErrorKind::InvalidData),
            (Framing::Chunked, b"-3\r\n", ErrorKind::InvalidData),
            (Framing::Chunked, b"11111111111111111\r\n", ErrorKind::InvalidData),
            (Framing::Length(101), &[b'x'; 101], ErrorKind::InvalidData),
            (Framing::Close, &[b'x'; 101], ErrorKind::InvalidData),
            (Framing::Chunked, &long, ErrorKind::InvalidData),
        ] {
            assert_eq!(read(framing, sent).unwrap_err().kind(), kind, "{framing:?} {}", sent.escape_ascii());
        }
    }
}
