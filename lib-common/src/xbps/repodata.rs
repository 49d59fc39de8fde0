//! The index of a repository: a tar, compressed in one of several ways, of property lists. It is not signed; only packages are.

use super::key::Key;
use super::props::{From, Props};
use super::{bad, pkgver};
use crate::doc::Digest;
use crate::error::{Error, Result};
use crate::sys::signal::Interruptible;
use fs_err as fs;
use plist::{Dictionary, Value};
use std::collections::BTreeMap;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;

/// The largest list, in bytes: that of all of Void's packages has 25 MB.
const MAX_LIST: u64 = 256 << 20;
/// The most memory that the decompressor of an xz file may take, in bytes.
const MAX_XZ_MEMORY: u64 = 128 << 20;
/// What a repository that is not signed has in place of a list.
const NO_META: &[u8] = b"DEADBEEF";

/// A package of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// What it says of itself.
    pub props: Props,
    /// Of its archive.
    pub sha256: Digest,
    /// Of its archive, in bytes.
    pub size: u64,
}

/// An index.
#[derive(Clone, Debug)]
pub struct Index {
    /// By their names.
    pub packages: BTreeMap<String, IndexEntry>,
    /// What the repository says that it is signed with.
    pub key: Option<Key>,
}

impl Index {
    /// Reads `ARCH-repodata`.
    ///
    /// # Errors
    /// [`crate::error::Code::BadInput`] for what is none, or damaged; what keeps the file from being read.
    pub fn read(file: &Path) -> Result<Self> {
        let of = |e: Error| e.within(format!("{} is not the index of a repository, or a damaged one", file.display()));
        Index::of_tar(decompressed(file)?).map_err(of)
    }

    fn of_tar(input: impl Read) -> Result<Self> {
        let (mut packages, mut key) = (None, None);
        let mut archive = tar::Archive::new(input);
        for entry in archive.entries()? {
            let entry = entry?;
            let name = entry.path_bytes().into_owned();
            let size = entry.size();
            if size > MAX_LIST {
                return Err(bad(format!("a list of {size} bytes is too large")));
            }
            let mut bytes = vec![];
            entry.take(size).read_to_end(&mut bytes)?;
            match name.strip_prefix(b"./").unwrap_or(&name) {
                b"index.plist" => packages = Some(index(dictionary(&bytes)?)?),
                b"index-meta.plist" if !bytes.is_empty() && bytes != NO_META => key = Some(Key::of_plist(&bytes)?),
                // What is staged is not ready to be installed.
                _ => {}
            }
        }
        match packages {
            Some(packages) => Ok(Index { packages, key }),
            None => Err(bad("it has no index.plist")),
        }
    }
}

/// A property list; an empty file is an empty one.
pub(super) fn dictionary(bytes: &[u8]) -> Result<Dictionary> {
    if bytes.is_empty() {
        return Ok(Dictionary::new());
    }
    let value =
        Value::from_reader_xml(Cursor::new(bytes)).map_err(|e| bad("a property list is damaged").because(&e))?;
    value.into_dictionary().ok_or_else(|| bad("a property list is not a dictionary"))
}

fn index(dictionary: Dictionary) -> Result<BTreeMap<String, IndexEntry>> {
    let mut all = BTreeMap::new();
    for (name, value) in dictionary {
        if !pkgver::is_name(&name) {
            return Err(bad(format!("`{}` is not a package's name", pkgver::short(&name))));
        }
        let Some(entry) = value.as_dictionary() else {
            return Err(bad(format!("the index does not describe the package `{name}`")));
        };
        let from = From { dictionary: entry, package: &name };
        let props = Props::of(entry, &name)?;
        if props.pkgver.name() != name {
            return Err(from.wrong("pkgver"));
        }
        let sha256 = Digest::parse(&format!("sha256:{}", from.text("filename-sha256")?));
        let sha256 = sha256.map_err(|_| from.wrong("filename-sha256"))?;
        let size = from.number("filename-size")?.ok_or_else(|| from.wrong("filename-size"))?;
        all.insert(name, IndexEntry { props, sha256, size });
    }
    Ok(all)
}

/// A file's content, by the magic number in front.
pub(super) fn decompressed(file: &Path) -> Result<Box<dyn Read>> {
    let mut input = fs::File::open(file)?;
    let mut magic = [0; 6];
    let _ = input.read(&mut magic)?;
    input.rewind()?;
    let whole = BufReader::with_capacity(128 << 10, Interruptible(input));
    Ok(match magic {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(whole)?),
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            let stream = liblzma::stream::Stream::new_stream_decoder(MAX_XZ_MEMORY, 0)
                .map_err(|e| bad("the xz file cannot be read").because(&e))?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(whole, stream))
        }
        [0x04, 0x22, 0x4d, 0x18, ..] => Box::new(lz4_flex::frame::FrameDecoder::new(whole)),
        _ => Box::new(whole),
    })
}
