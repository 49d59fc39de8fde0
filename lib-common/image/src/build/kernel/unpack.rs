//! Decompression of kernel payloads and modules: tells formats apart by their first bytes, and unpacks a stream into
//! a writer, never more than a cap. Owns the LZ4 legacy frame and the kernel's size trailer; knows nothing of what is
//! inside.
//!
//! Sources: gzip RFC 1952, xz-file-format.txt, zstd RFC 8878, lz4_Frame_format.md ("Legacy frame"); the trailer:
//! `size_append` in the kernel's scripts/Makefile.lib.

use lib_common::error::{Code, Error, Result};
use std::io::{self, BufRead, Read, Write};

/// A compression that can be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 1952.
    Gzip,
    /// The .xz container.
    Xz,
    /// RFC 8878.
    Zstd,
    /// Blocks of at most 8 MiB, each behind its compressed size; without checksums.
    Lz4Legacy,
}

/// A legacy frame's first bytes, as a little-endian number.
const LZ4_MAGIC: u32 = 0x184c_2102;
/// A legacy block unpacks to at most this many bytes.
const LZ4_BLOCK: usize = 8 << 20;
/// The most that LZ4 can make of such a block that does not compress: `LZ4_COMPRESSBOUND`.
const LZ4_BOUND: usize = LZ4_BLOCK + LZ4_BLOCK / 255 + 16;
/// xz needs its dictionary in memory: 32 MiB for kernels and some more; what asks for more than this is no kernel.
const XZ_MEMORY: u64 = 256 << 20;
/// Room for the output of a decoder, in bytes.
const CHUNK: usize = 128 << 10;

/// First bytes, what has them, and whether that can be unpacked. Longer ones before their prefixes.
const MAGICS: &[(&[u8], &str, Option<Format>)] = &[
    (b"\xfd7zXZ\0", "an xz stream", Some(Format::Xz)),
    (b"\x28\xb5\x2f\xfd", "a zstd stream", Some(Format::Zstd)),
    (b"\x02\x21\x4c\x18", "an LZ4 legacy stream", Some(Format::Lz4Legacy)),
    (b"\x1f\x8b", "a gzip stream", Some(Format::Gzip)),
    (b"\x04\x22\x4d\x18", "an LZ4 stream", None),
    (b"BZh", "a bzip2 stream", None),
    (b"\x5d\0\0", "an lzma stream", None),
    (b"\x89LZO\0", "an lzo stream", None),
    (b"\x7fELF", "an ELF", None),
    (b"!<arch>\n", "a Debian package or another ar archive", None),
    (b"MZ", "a PE program", None),
    (b"#!", "a script", None),
    (b"070701", "a cpio archive", None),
];

impl Format {
    /// By the first bytes of a stream (6 are enough).
    pub fn detect(start: &[u8]) -> Option<Format> {
        MAGICS.iter().find(|(magic, ..)| start.starts_with(magic)).and_then(|(.., format)| *format)
    }
}

/// What a file that begins with `start` is, for errors: "a bzip2 stream".
pub fn describe(start: &[u8]) -> String {
    if start.is_empty() {
        return "an empty file".to_owned();
    }
    match MAGICS.iter().find(|(magic, ..)| start.starts_with(magic)) {
        Some((_, name, _)) => (*name).to_owned(),
        None => {
            let hex: Vec<String> = start.iter().take(8).map(|b| format!("{b:02x}")).collect();
            format!("something that begins with {}", hex.join(" "))
        }
    }
}

/// Unpacks the one stream that `input` has, up to its end, and returns how many bytes were written. Kernel builds append
/// the unpacked size as 4 bytes (all formats but gzip): it may be there, and then it has to be true.
///
/// Memory: one block, or the format's window (at most 256 MiB). Errors: [`Code::BadInput`] for an unknown format, damage,
/// anything behind the stream, or more than `cap` bytes; whatever the writer says for that.
pub fn unpack(input: &mut impl BufRead, out: &mut impl Write, cap: u64) -> Result<u64> {
    let start = input.fill_buf()?;
    let start = start[..start.len().min(8)].to_vec();
    let Some(format) = Format::detect(&start) else {
        return Err(bad(format!("cannot unpack {}", describe(&start)))
            .hint("gzip, xz, zstd and LZ4 legacy streams can be unpacked"));
    };
    let mut sink = Sink { out, written: 0, cap };
    match format {
        Format::Gzip => pump(&mut flate2::bufread::GzDecoder::new(&mut *input), &mut sink)?,
        Format::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0).map_err(|e| damaged(&e.into()))?;
            pump(&mut liblzma::bufread::XzDecoder::new_stream(&mut *input, stream), &mut sink)?;
        }
        Format::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(&mut *input).map_err(|e| damaged(&e))?;
            pump(&mut decoder.single_frame(), &mut sink)?;
        }
        Format::Lz4Legacy => return lz4_legacy(input, sink),
    }
    let mut rest = vec![];
    input.take(5).read_to_end(&mut rest)?;
    match <[u8; 4]>::try_from(&rest[..]) {
        _ if rest.is_empty() => {}
        Ok(trailer) => check_trailer(u32::from_le_bytes(trailer), sink.written)?,
        Err(_) => return Err(bad("there is something behind the end of the compressed stream")),
    }
    Ok(sink.written)
}

/// Counts what is written, and stops at the cap.
struct Sink<'a, W> {
    out: &'a mut W,
    written: u64,
    cap: u64,
}

impl<W: Write> Sink<'_, W> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        lib_common::sys::signal::check()?;
        self.written += bytes.len() as u64;
        if self.written > self.cap {
            return Err(bad(format!("the stream unpacks to more than {} bytes", self.cap)));
        }
        Ok(self.out.write_all(bytes)?)
    }
}

/// An own loop instead of `io::copy`, since that does not say whether reading or writing failed.
fn pump<W: Write>(decoder: &mut dyn Read, sink: &mut Sink<'_, W>) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => sink.put(&buffer[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(damaged(&e)),
        }
    }
}

/// Magic, then blocks: a little-endian compressed size and that many bytes. There is no end mark but the end, so four
/// last bytes are the trailer.
fn lz4_legacy<W: Write>(input: &mut impl BufRead, mut sink: Sink<'_, W>) -> Result<u64> {
    let (mut packed, mut unpacked) = (vec![], vec![0; LZ4_BLOCK]);
    while !input.fill_buf()?.is_empty() {
        let mut word = [0; 4];
        input.read_exact(&mut word).map_err(|e| damaged(&e))?;
        let size = u32::from_le_bytes(word);
        if size == LZ4_MAGIC {
            continue;
        }
        if input.fill_buf()?.is_empty() {
            check_trailer(size, sink.written)?;
            break;
        }
        let size = size as usize;
        if size > LZ4_BOUND {
            return Err(bad(format!("the LZ4 stream is damaged: it has a block of {size} bytes")));
        }
        packed.resize(size, 0);
        input.read_exact(&mut packed).map_err(|e| damaged(&e))?;
        let length = lz4_flex::block::decompress_into(&packed, &mut unpacked)
            .map_err(|e| bad("the LZ4 stream is damaged").because(&e))?;
        sink.put(&unpacked[..length])?;
    }
    Ok(sink.written)
}

fn check_trailer(says: u32, written: u64) -> Result<()> {
    // The size is kept modulo 2^32; the cap is below that.
    if u64::from(says) != written {
        return Err(bad(format!("the compressed stream should unpack to {says} bytes, and unpacks to {written}")));
    }
    Ok(())
}

/// A decoder's error is damage, unless the file below could not be read: only the kernel gives those a number.
fn damaged(e: &io::Error) -> Error {
    if e.raw_os_error().is_some() {
        return Error::new(Code::Io, "cannot read the compressed stream").because(e);
    }
    bad("the compressed stream is damaged or cut off").because(e)
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(Code::BadInput, message)
}

/// Compressors for the tests of this directory.
#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub(in super::super) const ALL: [Format; 4] = [Format::Gzip, Format::Xz, Format::Zstd, Format::Lz4Legacy];

    pub(in super::super) fn pack(format: Format, bytes: &[u8]) -> Vec<u8> {
        match format {
            Format::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Format::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(vec![], 0);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Format::Zstd => zstd::encode_all(bytes, 1).unwrap(),
            Format::Lz4Legacy => {
                let mut out = LZ4_MAGIC.to_le_bytes().to_vec();
                for block in bytes.chunks(LZ4_BLOCK) {
                    let packed = lz4_flex::block::compress(block);
                    out.extend((packed.len() as u32).to_le_bytes());
                    out.extend(packed);
                }
                out
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{ALL, pack};
    use super::*;
    use proptest::prelude::*;

    const CAP: u64 = 32 << 20;

    fn unpacked(bytes: &[u8], cap: u64) -> Result<Vec<u8>> {
        let mut out = vec![];
        let written = unpack(&mut &bytes[..], &mut out, cap)?;
        assert_eq!(written, out.len() as u64);
        Ok(out)
    }

    /// More than one LZ4 block, and not all the same.
    fn sample() -> Vec<u8> {
        (0..LZ4_BLOCK + 100_000).map(|i| (i / 7) as u8 ^ (i >> 13) as u8).collect()
    }

    #[test]
    fn every_format_comes_back_with_and_without_the_trailer() {
        let sample = sample();
        for format in ALL {
            let mut packed = pack(format, &sample);
            assert_eq!(Format::detect(&packed), Some(format));
            assert!(unpacked(&packed, CAP).unwrap() == sample, "{format:?}");
            packed.extend((sample.len() as u32).to_le_bytes());
            assert!(unpacked(&packed, CAP).unwrap() == sample, "{format:?}");
            let at = packed.len() - 4;
            packed[at] ^= 1;
            assert_eq!(unpacked(&packed, CAP).unwrap_err().code(), Code::BadInput, "a lying trailer, {format:?}");
        }
    }

    #[test]
    fn the_cap_holds() {
        let zeros = vec![0; 3 << 20];
        for format in ALL {
            let packed = pack(format, &zeros);
            assert!(unpacked(&packed, 3 << 20).is_ok());
            let mut out = vec![];
            let error = unpack(&mut &packed[..], &mut out, (3 << 20) - 1).unwrap_err();
            assert_eq!(error.code(), Code::BadInput);
            assert!(error.message().contains("more than 3145727 bytes"), "{}", error.message());
            assert!(out.len() < 3 << 20);
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let sample: Vec<u8> = (0..3000u32).map(|i| ((i * i) >> 5) as u8).collect();
        for format in ALL {
            let packed = pack(format, &sample);
            for keep in 0..packed.len() {
                match unpacked(&packed[..keep], CAP) {
                    Err(e) => assert_eq!(e.code(), Code::BadInput),
                    // A legacy frame has no end: a bare magic is an empty one.
                    Ok(out) => assert!(format == Format::Lz4Legacy && keep == 4 && out.is_empty(), "{format:?} {keep}"),
                }
            }
        }
    }

    #[test]
    fn unknown_streams_are_named() {
        for (bytes, name) in
            [(&b"BZh91AY"[..], "bzip2"), (b"\x5d\0\0\x80", "lzma"), (b"\x89LZO\0\r\n", "lzo"), (b"", "empty")]
        {
            let error = unpacked(bytes, CAP).unwrap_err();
            assert_eq!(error.code(), Code::BadInput);
            assert!(error.message().contains(name), "{}", error.message());
        }
    }

    #[test]
    fn a_huge_block_is_refused_before_it_is_read() {
        let mut bytes = LZ4_MAGIC.to_le_bytes().to_vec();
        bytes.extend([0xff, 0xff, 0xff, 0x7f, 0]);
        assert!(unpacked(&bytes, CAP).unwrap_err().message().contains("block of 2147483647 bytes"));
    }

    proptest! {
        #[test]
        fn flipped_bits_never_panic(which in 0usize..4, at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let sample: Vec<u8> = (0..20_000u32).map(|i| ((i * i) >> 7) as u8).collect();
            let mut packed = pack(ALL[which], &sample);
            let at = at.index(packed.len());
            packed[at] ^= 1 << bit;
            if let Err(e) = unpacked(&packed, CAP) {
                prop_assert_eq!(e.code(), Code::BadInput);
            }
        }

        #[test]
        fn noise_behind_a_magic_never_panics(which in 0usize..4, noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = pack(ALL[which], b"")[..4].to_vec();
            bytes.extend(noise);
            let _ = unpacked(&bytes, CAP);
        }
    }
}
