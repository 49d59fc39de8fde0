//! From whatever a user calls a kernel to an uncompressed ELF: finds the payload of an x86 bzImage, unpacks it, and
//! reads the kernel's version. Knows nothing of packages, modules or the cache.
//!
//! Source: the kernel's Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".

use super::elf::{Elf, ReadAt};
use super::unpack;
use crate::digest::Hashing;
use crate::doc::Digest;
use crate::error::{Code, Context, Error, Result};
use crate::sys::plain;
use fs_err as fs;
use std::io::{BufRead as _, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// The most that a kernel may unpack to, in bytes. A distribution's has 30 to 90 MB, a debug build some hundreds.
pub const MAX_VMLINUX: u64 = 1 << 30;

/// The boot sector and at most 255 sectors of real-mode code: header and version lie in here.
const SETUP: u64 = 256 * 512;
/// In front of the release in every kernel: `linux_banner`.
const BANNER: &[u8] = b"Linux version ";
/// The banner's object file is the first that is linked, so it is within this many bytes of `.rodata`'s beginning; in
/// Debian's kernel it is the 416th.
const GLANCE: u64 = 64 << 10;
/// `__NEW_UTS_LEN`: the longest release, in bytes.
const MAX_RELEASE: usize = 64;
/// The oldest boot protocol that says where the payload is (Linux 2.6.26).
const LEAST_PROTOCOL: u16 = 0x0208;

/// An unpacked kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vmlinux {
    /// Of the ELF.
    pub digest: Digest,
    /// The release, where the kernel says it.
    pub version: Option<String>,
}

/// Where a bzImage has its compressed kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Payload {
    offset: u64,
    length: u64,
    version: Option<String>,
}

/// Writes the ELF kernel in `image` (a bzImage, or an ELF as it is) to the new file `out`.
///
/// Errors: [`Code::BadInput`] if `image` is neither, is damaged, unpacks to more than [`MAX_VMLINUX`], is for another
/// machine, or has no PVH entry, without which no VMM here could start it; I/O errors.
pub fn to_vmlinux(image: &Path, out: &Path) -> Result<Vmlinux> {
    let mut input = open(image)?;
    let length = input.metadata()?.len();
    let mut start = vec![];
    (&mut input).take(SETUP).read_to_end(&mut start)?;
    let named = || format!("{} is not a kernel that can be used", image.display());
    let payload =
        if start.starts_with(b"\x7fELF") { None } else { Some(Payload::find(&start, length).context(named())?) };
    let mut output = Hashing::new(BufWriter::with_capacity(1 << 20, fs::File::create_new(out)?));
    let (offset, size) = payload.as_ref().map_or((0, length), |p| (p.offset, p.length));
    input.seek(SeekFrom::Start(offset))?;
    let mut input = BufReader::with_capacity(256 << 10, input).take(size);
    if payload.is_some() {
        unpack::unpack(&mut input, &mut output, MAX_VMLINUX).context(named())?;
    } else if length > MAX_VMLINUX {
        return Err(bad(format!("it has more than {}", crate::size::bytes(MAX_VMLINUX))).within(named()));
    } else {
        std::io::copy(&mut input, &mut output)?;
    }
    let (mut output, digest, _) = output.finish();
    output.flush()?;
    drop(output);
    let vmlinux = open(out)?;
    check(&vmlinux).context(named())?;
    let version = match payload.and_then(|p| p.version) {
        Some(version) => Some(version),
        None => banner_version(&mut BufReader::new(vmlinux))?,
    };
    Ok(Vmlinux { digest, version })
}

/// The release of an uncompressed kernel, where it says it.
///
/// Errors: [`Code::BadInput`] for what is no kernel that could be started here.
pub fn release_of(vmlinux: &Path) -> Result<Option<String>> {
    let file = open(vmlinux)?;
    check(&file).context(format!("{} is not a kernel that can be used", vmlinux.display()))?;
    banner_version(&mut BufReader::new(file))
}

/// The same at a glance, by the beginning of the section with the constants, where kernels have it: for who has no time
/// to read 50 MB.
pub fn release_at_a_glance<R: ReadAt + ?Sized>(vmlinux: &Elf<'_, R>) -> Result<Option<String>> {
    match vmlinux.section_start(".rodata", GLANCE)? {
        Some(start) => banner_version(&mut &start[..]),
        None => Ok(None),
    }
}

fn open(path: &Path) -> Result<fs::File> {
    plain::named(path).map(|file| fs::File::from_parts(file, path))
}

fn check(vmlinux: &fs::File) -> Result<()> {
    if !Elf::parse(vmlinux, "the kernel")?.has_pvh_entry()? {
        return Err(bad("the kernel has no PVH entry point (ELF note Xen, type 18)")
            .hint("take a kernel that was built with CONFIG_PVH=y, as Debian's are"));
    }
    Ok(())
}

impl Payload {
    /// From the first [`SETUP`] bytes of a file of `length` bytes.
    fn find(start: &[u8], length: u64) -> Result<Self> {
        if start.get(0x202..0x206) != Some(b"HdrS") {
            let found = unpack::describe(start);
            return Err(bad(format!("neither an ELF nor an x86 bzImage (no `HdrS` at 0x202) but {found}")));
        }
        let cut = || bad("the bzImage is cut off in its header");
        let protocol = u16_at(start, 0x206).ok_or_else(cut)?;
        if protocol < LEAST_PROTOCOL {
            let (major, minor) = (protocol >> 8, protocol & 0xff);
            return Err(bad(format!(
                "the bzImage is of boot protocol {major}.{minor:02}, which does not say where its payload is"
            ))
            .hint("boot protocol 2.08 (Linux 2.6.26) is the oldest that does"));
        }
        // For historical reasons 0 means 4; the boot sector comes on top, and then the protected-mode code, from where
        // payload_offset counts.
        let setup = match start[0x1f1] {
            0 => 4,
            sectors => u64::from(sectors),
        };
        let offset = (setup + 1) * 512 + u64::from(u32_at(start, 0x248).ok_or_else(cut)?);
        let size = u64::from(u32_at(start, 0x24c).ok_or_else(cut)?);
        if size == 0 || offset + size > length {
            return Err(bad(format!(
                "the bzImage is damaged or cut off: its payload would lie at {offset}, {size} bytes long"
            ))
            .detail("file_bytes", length.to_string()));
        }
        // The version's place counts from 0x200; 0 means that there is none.
        let version = match u16_at(start, 0x20e).ok_or_else(cut)? {
            0 => None,
            place => start.get(0x200 + usize::from(place)..).and_then(release),
        };
        Ok(Payload { offset, length: size, version })
    }
}

/// The release at the beginning of `bytes`, such as `6.1.0-9-cloud-amd64`: a word that begins with a digit.
fn release(bytes: &[u8]) -> Option<String> {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b".+~_-".contains(b);
    let word: Vec<u8> = bytes.iter().copied().take_while(allowed).take(MAX_RELEASE + 1).collect();
    let ended = bytes.get(word.len()).is_some_and(|b| *b == b' ' || *b == 0);
    let fine = ended && word.len() <= MAX_RELEASE && word.first().is_some_and(u8::is_ascii_digit);
    if fine { String::from_utf8(word).ok() } else { None }
}

/// Whether `text` could be a kernel's release, and so the name of a directory.
pub fn is_release(text: &str) -> bool {
    release(format!("{text}\0").as_bytes()).as_deref() == Some(text)
}

/// Looks for the banner in a kernel. Goes from one `L` to the next, which the standard library finds fast.
fn banner_version(kernel: &mut impl Read) -> Result<Option<String>> {
    const LONGEST: usize = BANNER.len() + MAX_RELEASE + 1;
    let mut window = vec![];
    loop {
        let read = kernel.by_ref().take(1 << 20).read_to_end(&mut window)?;
        let mut rest = &window[..];
        while rest.skip_until(BANNER[0])? > 0 {
            if let Some(version) = rest.strip_prefix(&BANNER[1..]).and_then(release) {
                return Ok(Some(version));
            }
        }
        if read == 0 {
            return Ok(None);
        }
        // A banner may go on in the next piece.
        window.drain(..window.len().saturating_sub(LONGEST));
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(Code::BadInput, message)
}

/// A bzImage for the tests of this directory.
#[cfg(test)]
pub(super) mod testing {
    /// What it says to be.
    pub(in super::super) const VERSION: &str = "6.1.0-9-cloud-amd64";

    /// A bzImage around `payload`, with two setup sectors.
    pub(in super::super) fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 3 * 512];
        image[0x1f1] = 2;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
        image[0x20e..0x210].copy_from_slice(&0x300u16.to_le_bytes());
        image[0x500..0x513].copy_from_slice(VERSION.as_bytes());
        image[0x513] = b' ';
        image[0x248..0x24c].copy_from_slice(&100u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend([0xcc; 100]);
        image.extend(payload);
        image.extend([0xcc; 37]);
        image
    }
}

#[cfg(test)]
mod tests {
    use super::super::elf::testing::kernel;
    use super::super::unpack::Format;
    use super::super::unpack::testing::{ALL, pack};
    use super::testing::{VERSION, bzimage};
    use super::*;
    use proptest::prelude::*;

    fn run(bytes: &[u8]) -> Result<(Vmlinux, Vec<u8>)> {
        let dir = tempfile::tempdir().unwrap();
        let (image, out) = (dir.path().join("image"), dir.path().join("out"));
        fs::write(&image, bytes).unwrap();
        let vmlinux = to_vmlinux(&image, &out)?;
        Ok((vmlinux, fs::read(&out).unwrap()))
    }

    fn message(bytes: &[u8]) -> String {
        let error = run(bytes).unwrap_err();
        assert_eq!(error.code(), Code::BadInput);
        format!("{}: {}", error.message(), error.causes().join(": "))
    }

    #[test]
    fn the_release_is_where_kernels_begin_their_constants() {
        let at_a_glance = |section: &str, before: usize| {
            let mut content = vec![0; before];
            content.extend(b"Linux version %s\0Linux version 6.1.0-9-x (builder@host)\0");
            let elf = super::super::elf::testing::with_section(section, &content);
            release_at_a_glance(&Elf::parse(&elf[..], "it").unwrap()).unwrap()
        };
        assert_eq!(at_a_glance(".rodata", 416).as_deref(), Some("6.1.0-9-x"));
        assert_eq!(at_a_glance(".rodata", GLANCE as usize), None);
        assert_eq!(at_a_glance(".data", 0), None);
    }

    #[test]
    fn a_bzimage_of_every_format_becomes_its_elf() {
        let elf = kernel(true, "6.1.0-ignored", 70_000);
        for format in ALL {
            let mut payload = pack(format, &elf);
            payload.extend((elf.len() as u32).to_le_bytes());
            let (vmlinux, out) = run(&bzimage(&payload)).unwrap();
            assert!(out == elf, "{format:?}");
            assert_eq!(vmlinux.version.as_deref(), Some(VERSION));
            assert_eq!(vmlinux.digest, crate::digest::of_bytes(&elf));
        }
    }

    #[test]
    fn an_elf_is_taken_as_it_is_and_its_version_from_the_banner() {
        let elf = kernel(true, VERSION, 10);
        let (vmlinux, out) = run(&elf).unwrap();
        assert_eq!((vmlinux.version.as_deref(), out), (Some(VERSION), elf));
        assert_eq!(run(&kernel(true, "%s", 10)).unwrap().0.version, None);
    }

    #[test]
    fn a_banner_is_found_across_pieces() {
        for before in (1 << 20) - 90..(1 << 20) + 2 {
            let mut bytes = vec![b'L'; before];
            bytes.extend(format!("Linux version {VERSION} (").as_bytes());
            assert_eq!(banner_version(&mut &bytes[..]).unwrap().as_deref(), Some(VERSION), "{before}");
        }
    }

    #[test]
    fn releases_are_directory_names() {
        for good in ["6.1.0-9-cloud-amd64", "6.18.0-rc1+", "7", "6.6.1_1"] {
            assert!(is_release(good), "{good}");
        }
        for bad in ["", "..", "6/1", "x6", "6 1", "6\0", &"6".repeat(65)] {
            assert!(!is_release(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_no_kernel_is_named() {
        let elf = kernel(true, VERSION, 10);
        let packed = pack(Format::Gzip, &elf);
        let with = |at: usize, value: u8| {
            let mut image = bzimage(&packed);
            image[at] = value;
            image
        };
        for (bytes, says) in [
            (b"#!/bin/sh\n".to_vec(), "but a script"),
            (vec![], "but an empty file"),
            (with(0x202, b'h'), "no `HdrS`"),
            (with(0x206, 0x07), "boot protocol 2.07"),
            (with(0x24f, 0x7f), "cut off"),
            (with(0x24b, 0x7f), "cut off"),
            (with(0x24c, 0), "damaged"),
            (bzimage(b"BZh91AY&SY"), "cannot unpack a bzip2 stream"),
            (bzimage(&pack(Format::Zstd, b"no kernel")), "but something that begins with 6e 6f"),
            (bzimage(&pack(Format::Xz, &kernel(false, VERSION, 0))), "no PVH entry"),
            (kernel(false, VERSION, 0), "no PVH entry"),
            (bzimage(&packed)[..0x210].to_vec(), "cut off in its header"),
            (bzimage(&packed)[..3 * 512].to_vec(), "cut off"),
        ] {
            let message = message(&bytes);
            assert!(message.contains(says), "{message}");
        }
    }

    proptest! {
        #[test]
        fn damaged_images_never_panic(which in 0usize..4, at in any::<prop::sample::Index>(), value: u8, keep in any::<prop::sample::Index>()) {
            let mut image = bzimage(&pack(ALL[which], &kernel(true, VERSION, 3000)));
            let at = at.index(image.len());
            image[at] = value;
            for bytes in [&image[..], &image[..keep.index(image.len())]] {
                if let Err(e) = run(bytes) {
                    prop_assert_eq!(e.code(), Code::BadInput);
                }
            }
        }

        #[test]
        fn damaged_headers_never_panic(changes in proptest::collection::vec((0x1f1usize..0x250, any::<u8>()), 1..6)) {
            let mut image = bzimage(&pack(Format::Lz4Legacy, &kernel(true, VERSION, 3000)));
            for (at, value) in changes {
                image[at] = value;
            }
            if let Err(e) = run(&image) {
                prop_assert_eq!(e.code(), Code::BadInput);
            }
        }
    }
}
