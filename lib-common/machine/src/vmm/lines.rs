//! Lines of a bounded length out of a stream, for the QMP monitor, for the talk between starter and shim, and for
//! what a guest says.

use lib_common::error::{Code, Error, Result};
use std::io::Read;

/// What has been read and not taken yet.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    limit: usize,
}

impl Lines {
    /// For lines of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Lines { buffer: vec![], limit }
    }

    /// Reads once; says whether the stream goes on. A line that is too long is an error: whoever sends it is not who
    /// it should be.
    pub fn read(&mut self, from: &mut impl Read) -> Result<bool> {
        let mut chunk = [0; 4096];
        let n = match from.read(&mut chunk) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::Interrupted | std::io::ErrorKind::WouldBlock) => {
                return Ok(true);
            }
            // A peer that ended with unread data resets the connection: that is an end, too.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        self.buffer.extend_from_slice(&chunk[..n]);
        let unfinished = self.buffer.iter().rev().position(|b| *b == b'\n').unwrap_or(self.buffer.len());
        if unfinished > self.limit {
            return Err(Error::new(Code::BadInput, format!("a line is longer than {} bytes", self.limit)));
        }
        Ok(n > 0)
    }

    /// The next whole line, without its line feed and what white space stands before it.
    pub fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.buffer.iter().position(|b| *b == b'\n')?;
        let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
        line.truncate(line.trim_ascii_end().len());
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_they_arrive() {
        let mut lines = Lines::new(10);
        for part in ["a\r\nb", "c\n", "\nd"] {
            assert!(lines.read(&mut part.as_bytes()).unwrap());
        }
        let all: Vec<_> = std::iter::from_fn(|| lines.next_line()).collect();
        assert_eq!(all, [b"a".to_vec(), b"bc".to_vec(), b"".to_vec()]);
        assert!(!lines.read(&mut "".as_bytes()).unwrap());
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::new(10);
        assert!(lines.read(&mut &b"0123456789"[..]).is_ok());
        assert_eq!(lines.read(&mut &b"0"[..]).unwrap_err().code(), Code::BadInput);
    }
}
