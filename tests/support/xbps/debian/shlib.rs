//! The shared libraries that a program or library needs, and the one that it is, from its ELF headers.

use lib_image::build::kernel::elf::Elf;

const DT_NEEDED: u64 = 1;
const DT_SONAME: u64 = 14;

/// What a file needs, and what it is needed by; nothing of a file that is no ELF for this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shlibs {
    pub needed: Vec<String>,
    pub soname: Option<String>,
}

/// Of a file's bytes.
pub fn of(bytes: &[u8]) -> Shlibs {
    let mut found = Shlibs::default();
    let Ok(elf) = Elf::parse(bytes, "it") else { return found };
    let section = |name: &str| elf.section(name).unwrap().unwrap_or_default();
    let (dynamic, names) = (section(".dynamic"), section(".dynstr"));
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    for entry in dynamic.chunks_exact(16) {
        let tag = number(&entry[..8]);
        if tag != DT_NEEDED && tag != DT_SONAME {
            continue;
        }
        let rest = &names[usize::try_from(number(&entry[8..])).unwrap()..];
        let name = rest.split(|&byte| byte == 0).next().unwrap();
        let name = String::from_utf8(name.to_vec()).unwrap();
        if tag == DT_NEEDED { found.needed.push(name) } else { found.soname = Some(name) }
    }
    found
}
