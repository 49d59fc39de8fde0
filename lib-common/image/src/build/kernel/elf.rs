//! The little of ELF that a kernel bundle needs: what machine a file is for, its notes and single sections. Reads
//! bounded pieces at checked places, whatever the headers say; knows nothing of kernels but the name of their note.
//!
//! Source: System V ABI, chapter 4 and 5 (elf(5)); the note: Documentation/arch/x86/boot/pvh, xen/elfnote.h.

use lib_common::error::{Code, Error, Result};
use std::io;
use std::os::unix::fs::FileExt;

/// `e_machine` of x86-64.
const EM_X86_64: u16 = 62;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: the 32-bit entry point that makes a kernel bootable by PVH.
const PHYS32_ENTRY: u32 = 18;

/// No table or note segment of a kernel or a module comes near this, in bytes.
const MAX_TABLE: u64 = 16 << 20;

/// What can be read at a place.
pub trait ReadAt {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset` on.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|o| self.get(o..)?.get(..buffer.len()));
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for fs_err::File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file().read_exact_at(buffer, offset)
    }
}

/// A little-endian 64-bit ELF for x86-64.
pub struct Elf<'a, R: ReadAt + ?Sized> {
    source: &'a R,
    length: u64,
    header: [u8; 64],
}

impl<'a, R: ReadAt + ?Sized> Elf<'a, R> {
    /// Checks the header. `what` names the file in errors ("the kernel").
    ///
    /// Errors: [`Code::BadInput`] that says what was found instead.
    pub fn parse(source: &'a R, what: &str) -> Result<Self> {
        let length = source.length()?;
        let mut header = [0; 64];
        let got = length.min(64) as usize;
        source.read_at(&mut header[..got], 0)?;
        let wrong = |found: String| Err(bad(format!("{what} is not a 64-bit ELF for x86_64 but {found}")));
        if header[..4] != *b"\x7fELF" {
            return wrong(super::unpack::describe(&header[..got]));
        }
        if got < 64 {
            return wrong("an ELF cut off in its header".to_owned());
        }
        let (class, data, machine) = (header[4], header[5], u16_at(&header, 18));
        match (class, data) {
            (2, 1) if machine == EM_X86_64 => Ok(Elf { source, length, header }),
            (2, 1) => wrong(format!("an ELF for {}", machine_name(machine))),
            (1, _) => wrong("a 32-bit ELF".to_owned()),
            (_, 2) => wrong("a big-endian ELF".to_owned()),
            _ => wrong(format!("an ELF of class {class} and byte order {data}")),
        }
    }

    /// Whether a kernel says where PVH enters it (the note `Xen`, type 18): without it neither QEMU's `-kernel` nor
    /// any other PVH loader can start the ELF.
    pub fn has_pvh_entry(&self) -> Result<bool> {
        for (kind, entry) in self.program_headers()? {
            if kind == PT_NOTE {
                let align = if u64_at(&entry, 48) == 8 { 8 } else { 4 };
                let notes = self.piece(u64_at(&entry, 8), u64_at(&entry, 32), "a note segment")?;
                if has_note(&notes, align) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Whether a program asks for a dynamic loader, which an initrd does not have.
    pub fn is_dynamic(&self) -> Result<bool> {
        Ok(self.program_headers()?.iter().any(|(kind, _)| *kind == PT_INTERP))
    }

    /// The bytes of the section `name`, where there is one.
    pub fn section(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.section_start(name, u64::MAX)
    }

    /// The first bytes of the section `name`, at most `limit`, where there is one.
    pub fn section_start(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let headers = self.table(u64_at(&self.header, 40), 58, 60, 64, "the section headers")?;
        let Some(names) = headers.get(usize::from(u16_at(&self.header, 62))) else {
            return Ok(None);
        };
        let names = self.piece(u64_at(names, 24), u64_at(names, 32), "the section names")?;
        let is_it = |header: &&Vec<u8>| {
            let rest = names.get(u32_at(header, 0) as usize..).unwrap_or_default();
            rest.strip_prefix(name.as_bytes()).is_some_and(|r| r.first() == Some(&0))
        };
        let Some(found) = headers.iter().find(is_it) else {
            return Ok(None);
        };
        self.piece(u64_at(found, 24), u64_at(found, 32).min(limit), name).map(Some)
    }

    fn program_headers(&self) -> Result<Vec<(u32, Vec<u8>)>> {
        let table = self.table(u64_at(&self.header, 32), 54, 56, 56, "the program headers")?;
        Ok(table.into_iter().map(|entry| (u32_at(&entry, 0), entry)).collect())
    }

    /// A table whose entry size and count the header has at `size_at` and `count_at`; entries are at least `least`.
    fn table(&self, offset: u64, size_at: usize, count_at: usize, least: usize, what: &str) -> Result<Vec<Vec<u8>>> {
        let (size, count) = (usize::from(u16_at(&self.header, size_at)), usize::from(u16_at(&self.header, count_at)));
        if count == 0 {
            return Ok(vec![]);
        }
        if size < least {
            return Err(bad(format!("the ELF says that {what} are of {size} bytes each")));
        }
        let bytes = self.piece(offset, (size * count) as u64, what)?;
        Ok(bytes.chunks_exact(size).map(<[u8]>::to_vec).collect())
    }

    fn piece(&self, offset: u64, size: u64, what: &str) -> Result<Vec<u8>> {
        if size > MAX_TABLE || offset.checked_add(size).is_none_or(|end| end > self.length) {
            return Err(bad(format!("the ELF is damaged: {what} would lie at {offset}, {size} bytes long")));
        }
        let mut bytes = vec![0; size as usize];
        self.source.read_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

/// Goes through notes: name size, descriptor size, type, then name and descriptor, each padded to `align`.
fn has_note(notes: &[u8], align: usize) -> bool {
    let mut rest = notes;
    while rest.len() >= 12 {
        let (name_size, desc_size) = (u32_at(rest, 0) as usize, u32_at(rest, 4) as usize);
        if u32_at(rest, 8) == PHYS32_ENTRY && name_size == 4 && rest.get(12..16) == Some(b"Xen\0") {
            return true;
        }
        let name_end = 12usize.saturating_add(name_size).next_multiple_of(align);
        let end = name_end.saturating_add(desc_size).checked_next_multiple_of(align).unwrap_or(usize::MAX);
        rest = rest.get(end..).unwrap_or_default();
    }
    false
}

fn machine_name(machine: u16) -> String {
    let known = [(3, "i386"), (40, "arm"), (183, "aarch64"), (243, "riscv"), (22, "s390"), (21, "ppc64")];
    match known.iter().find(|(number, _)| *number == machine) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("machine {machine}"),
    }
}

fn bad(message: String) -> Error {
    Error::new(Code::BadInput, message)
}

// The callers have checked that the bytes are there.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// ELF files for tests.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    /// A kernel: one PT_NOTE with the PVH entry (if `pvh`), a banner, and `filler` bytes that compress badly.
    pub fn kernel(pvh: bool, version: &str, filler: usize) -> Vec<u8> {
        let mut note = vec![];
        if pvh {
            for word in [4u32, 8, 18] {
                note.extend(word.to_le_bytes());
            }
            note.extend(b"Xen\0");
            note.extend(0x100_0000u64.to_le_bytes());
        }
        let mut elf = header(64, 1, 0, 0);
        elf.extend(4u32.to_le_bytes());
        elf.extend(0u32.to_le_bytes());
        for word in [120u64, 0, 0, note.len() as u64, note.len() as u64, 4] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend(note);
        elf.extend(b"Linux version %s\0");
        elf.extend(format!("Linux version {version} (builder@host) #1 SMP\0").as_bytes());
        let mut state = 1u32;
        elf.extend(
            std::iter::repeat_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .take(filler),
        );
        elf
    }

    /// A module: its section `.modinfo` has `entries`, each ended by a NUL.
    pub fn module(entries: &[&str]) -> Vec<u8> {
        with_section(".modinfo", &entries.iter().flat_map(|e| e.bytes().chain([0])).collect::<Vec<u8>>())
    }

    /// An ELF with sections `""`, `name`, `.shstrtab`.
    pub fn with_section(name: &str, content: &[u8]) -> Vec<u8> {
        let names = format!("\0{name}\0.shstrtab\0");
        let table = 64 + names.len() + content.len();
        let mut elf = header(0, 0, table as u64, 3);
        elf.extend(names.bytes());
        elf.extend(content);
        let last = name.len() + 2;
        for (name, offset, size) in [(0, 0, 0), (1, 64 + names.len(), content.len()), (last, 64, names.len())] {
            let mut section = [0; 64];
            section[..4].copy_from_slice(&(name as u32).to_le_bytes());
            section[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            section[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            elf.extend(section);
        }
        elf
    }

    fn header(phoff: u64, phnum: u16, shoff: u64, shnum: u16) -> Vec<u8> {
        let mut h = vec![0; 64];
        h[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        h[16..18].copy_from_slice(&2u16.to_le_bytes());
        h[18..20].copy_from_slice(&super::EM_X86_64.to_le_bytes());
        h[32..40].copy_from_slice(&phoff.to_le_bytes());
        h[40..48].copy_from_slice(&shoff.to_le_bytes());
        for (at, value) in [(54, 56), (56, phnum), (58, 64), (60, shnum), (62, 2)] {
            h[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        h
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_pvh_note_is_found_and_missed() {
        for pvh in [true, false] {
            let kernel = testing::kernel(pvh, "6.1.0", 0);
            assert_eq!(Elf::parse(&kernel[..], "it").unwrap().has_pvh_entry().unwrap(), pvh);
        }
        // Behind another note with odd sizes.
        let mut notes = vec![5, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0];
        notes.extend(b"ABCD\0\0\0\0xyz\0");
        notes.extend([4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0]);
        notes.extend(b"Xen\0\0\0\0\x01");
        assert!(has_note(&notes, 4));
    }

    #[test]
    fn other_files_are_named_in_the_error() {
        let elf = testing::kernel(true, "6.1.0", 0);
        let with = |at: usize, value: u8| {
            let mut other = elf.clone();
            other[at] = value;
            other
        };
        for (bytes, found) in [
            (vec![], "an empty file"),
            (b"\x7fELF".to_vec(), "cut off"),
            (with(4, 1), "32-bit"),
            (with(5, 2), "big-endian"),
            (with(18, 183), "aarch64"),
            (b"#!/bin/sh\n".to_vec(), "a script"),
            (b"\x1f\x8b\x08".to_vec(), "gzip"),
        ] {
            let error = Elf::parse(&bytes[..], "the kernel").err().unwrap();
            assert_eq!(error.code(), Code::BadInput);
            assert!(error.message().contains(found), "{}", error.message());
        }
    }

    #[test]
    fn a_section_is_found_by_its_whole_name() {
        let module = testing::module(&["depends=a,b", "name=x"]);
        let elf = Elf::parse(&module[..], "it").unwrap();
        assert_eq!(elf.section(".modinfo").unwrap().unwrap(), b"depends=a,b\0name=x\0");
        assert_eq!(elf.section(".mod").unwrap(), None);
        assert!(!elf.is_dynamic().unwrap());
    }

    proptest! {
        #[test]
        fn damaged_headers_never_panic(flips in proptest::collection::vec((0usize..400, any::<u8>()), 1..8), keep in 0usize..400) {
            for mut bytes in [testing::module(&["depends=a"]), testing::kernel(true, "6.1", 64)] {
                for (at, value) in &flips {
                    let at = at % bytes.len();
                    bytes[at] = *value;
                }
                bytes.truncate(keep);
                if let Ok(elf) = Elf::parse(&bytes[..], "it") {
                    let _ = (elf.has_pvh_entry(), elf.section(".modinfo"), elf.is_dynamic());
                }
            }
        }
    }
}
