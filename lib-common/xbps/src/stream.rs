//! A compressed tar as a stream of bytes, by its first bytes: zstd, gzip, bzip2, xz, an LZ4 frame, or none.

use lib_common::error::Result;
use lib_common::sys::plain;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;

/// What a decoder may take for its window, in bytes, and the logarithm of that.
const WINDOW: u64 = 128 << 20;
const WINDOW_LOG: u32 = 27;

/// The one compressed stream that a file is.
pub(super) enum Stream {
    Zstd(zstd::stream::read::Decoder<'static, BufReader<File>>),
    Gzip(Box<flate2::bufread::GzDecoder<BufReader<File>>>),
    Bzip2(Box<bzip2::bufread::BzDecoder<BufReader<File>>>),
    Xz(liblzma::bufread::XzDecoder<BufReader<File>>),
    Lz4(Box<lz4_flex::frame::FrameDecoder<BufReader<File>>>),
    Plain(BufReader<File>),
}

/// Opens a file for [`Stream::new`].
pub(super) fn open(path: &Path) -> Result<File> {
    plain::named(path)
}

impl Stream {
    /// From the file's beginning.
    pub fn new(mut file: File) -> io::Result<Self> {
        file.rewind()?;
        let mut input = BufReader::with_capacity(128 << 10, file);
        let start = input.fill_buf()?;
        Ok(match start {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?.single_frame();
                decoder.window_log_max(WINDOW_LOG)?;
                Stream::Zstd(decoder)
            }
            [0x1f, 0x8b, ..] => Stream::Gzip(Box::new(flate2::bufread::GzDecoder::new(input))),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
                let decoder = liblzma::stream::Stream::new_stream_decoder(WINDOW, 0)?;
                Stream::Xz(liblzma::bufread::XzDecoder::new_stream(input, decoder))
            }
            [0x04, 0x22, 0x4d, 0x18, ..] => Stream::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(input))),
            [b'B', b'Z', b'h', ..] => Stream::Bzip2(Box::new(bzip2::bufread::BzDecoder::new(input))),
            _ => Stream::Plain(input),
        })
    }

    /// Reads what is left, which must be zeros (a tar is padded) and no more than `limit` bytes, and then the file must
    /// be at its end.
    pub fn finish(mut self, limit: u64) -> io::Result<()> {
        let mut rest = vec![];
        (&mut self).take(limit + 1).read_to_end(&mut rest)?;
        if rest.len() as u64 > limit || rest.iter().any(|b| *b != 0) {
            return Err(io::Error::other("there is something behind the end of the archive"));
        }
        if !self.file().fill_buf()?.is_empty() {
            return Err(io::Error::other("there is something behind the end of the compressed stream"));
        }
        Ok(())
    }

    fn file(&mut self) -> &mut BufReader<File> {
        match self {
            Stream::Zstd(decoder) => decoder.get_mut(),
            Stream::Gzip(decoder) => decoder.get_mut(),
            Stream::Bzip2(decoder) => decoder.get_mut(),
            Stream::Xz(decoder) => decoder.get_mut(),
            Stream::Lz4(decoder) => decoder.get_mut(),
            Stream::Plain(file) => file,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Zstd(decoder) => decoder.read(buffer),
            Stream::Gzip(decoder) => decoder.read(buffer),
            Stream::Bzip2(decoder) => decoder.read(buffer),
            Stream::Xz(decoder) => decoder.read(buffer),
            Stream::Lz4(decoder) => decoder.read(buffer),
            Stream::Plain(file) => file.read(buffer),
        }
    }
}
