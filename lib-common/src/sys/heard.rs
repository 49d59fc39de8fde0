//! A file without a name in which programs write what they have to say, by its path in /proc: for programs that take a file and
//! close every descriptor that they inherit. Nothing of it is left behind, and a full disk does not matter. Knows no domain.

use crate::error::{Context, Result};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// How many bytes are read at once.
const CHUNK: usize = 16 << 10;

/// How much of the text is kept, in bytes: its end.
const KEPT: usize = 16 << 10;

/// The file, and the end of what was written to it.
#[derive(Debug)]
pub struct Heard {
    file: File,
    read: u64,
    kept: Vec<u8>,
}

impl Heard {
    /// An empty file.
    pub fn new() -> Result<Self> {
        let file = memfd_create("heard", MFdFlags::MFD_CLOEXEC).context("cannot make a file in memory")?;
        Ok(Heard { file: file.into(), read: 0, kept: vec![] })
    }

    /// Where programs of this user find it as long as this process lives and does not hide its memory. They must append.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// Reads what was written since, hands each chunk to `look`, and gives its memory back: a program may have much to say.
    pub fn collect(&mut self, mut look: impl FnMut(&[u8])) -> Result<()> {
        let mut buffer = [0; CHUNK];
        loop {
            let n = self.file.read_at(&mut buffer, self.read).context("cannot read a file in memory")?;
            if n == 0 {
                return Ok(());
            }
            self.kept.extend_from_slice(&buffer[..n]);
            let excess = self.kept.len().saturating_sub(KEPT);
            self.kept.drain(..excess);
            look(&self.kept);
            let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            // A kernel that cannot do so keeps it until the end.
            let _ = fallocate(&self.file, punch, self.read.cast_signed(), n as i64);
            self.read += n as u64;
        }
    }

    /// The end of what was read so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_end_of_a_long_text_is_kept_and_every_chunk_is_seen() {
        let mut heard = Heard::new().unwrap();
        let mut writer = File::options().append(true).open(heard.path()).unwrap();
        writer.write_all(b"first\n").unwrap();
        let mut firsts = 0;
        heard.collect(|text| firsts += usize::from(text.starts_with(b"first"))).unwrap();
        for _ in 0..5000 {
            writer.write_all(b"a line of twenty-two..\n").unwrap();
        }
        writer.write_all(b"last\n").unwrap();
        heard.collect(|_| {}).unwrap();
        let text = heard.text();
        assert!(firsts == 1 && text.len() == KEPT && text.ends_with("..\nlast\n"), "{firsts} {}", text.len());
        let held = heard.file.metadata().map(|meta| std::os::unix::fs::MetadataExt::blocks(&meta) * 512).unwrap();
        assert!(held <= 2 * CHUNK as u64, "{held} bytes are held");
        heard.collect(|_| panic!("nothing is new")).unwrap();
    }
}
