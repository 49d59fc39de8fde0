//! A release of Void Linux as it lies on a mirror: files, `sha256sum.txt` with their digests, and `sha256sum.sig`, the minisign
//! signature of that. Each release has a key of its own.
//!
//! Sources: Void's handbook ("Verifying image integrity"), <https://jedisct1.github.io/minisign/#signature-format>.

use super::{bad, shown, stream};
use lib_common::digest;
use lib_common::doc::Digest;
use lib_common::error::{Code, Error, Result};
use minisign_verify::{PublicKey, Signature};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

/// The digests of a release's files.
const SUMS: &str = "sha256sum.txt";
/// Their signature.
const SIGNATURE: &str = "sha256sum.sig";
/// The most that either of them, or a key, may have, in bytes.
const MAX_SMALL: u64 = 1 << 20;

/// The keys of releases, from Void's package `void-release-keys`.
const PINNED: [&str; 3] = [
    "untrusted comment: minisign public key 5D7153E025EC26B6\nRWS2Juwl4FNxXe0NtAdYushNLM3GtJ6poGkZ0Up1P/9YLcCK4xlSWAfs\n",
    "untrusted comment: minisign public key A3FCFCCA9D356F86\nRWSGbzWdyvz8o4nrhY1nbmHLF6QiFH/AQXs1mS/0X+t1x3WwUA16hdc/\n",
    "untrusted comment: minisign public key 4D56E70F102AF9F9\nRWT5+SoQD+dWTeOdNuc4Q/jq2+3+jpql7+JJp4WukkxTdpsZlk2EGuPj\n",
];

/// A root file system's tarball that is what somebody trusted has signed.
#[derive(Debug)]
pub struct Release {
    /// The tarball, at its beginning.
    pub file: File,
    /// Its name: `void-x86_64-ROOTFS-20250202.tar.xz`.
    pub name: String,
    /// `x86_64`, `x86_64-musl`, …
    pub arch: String,
    /// `20250202`.
    pub date: String,
    /// Of the tarball.
    pub digest: Digest,
}

impl Release {
    /// Opens `path` and checks it by what lies beside it. `key`: a file with the minisign public key that is trusted instead
    /// of Void's.
    ///
    /// # Errors
    /// [`Code::MissingFile`] for what is not there; [`Code::BadInput`] for a name, sums, signature or key that are none;
    /// [`Code::Permission`] for a signature by a key that is not trusted; [`Code::DigestMismatch`] for sums and tarballs
    /// that are not those that were signed.
    pub fn open(path: &Path, key: Option<&Path>) -> Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let (arch, date) = parts(&name).ok_or_else(|| {
            bad(format!("`{}` is no name of a root tarball of Void's", shown(&name)))
                .hint("keep its name: void-ARCH-ROOTFS-DATE.tar.xz")
        })?;
        let (arch, date) = (arch.to_owned(), date.to_owned());
        let dir = path.parent().unwrap_or_else(|| Path::new(""));
        let file = stream::open(path)?;
        let sums = small(&dir.join(SUMS)).map_err(beside)?;
        let signature = small(&dir.join(SIGNATURE)).map_err(beside)?;
        verify(&dir.join(SUMS), &sums, &signature, &trusted(key)?)?;
        let expected = listed(&sums, &name).ok_or_else(|| {
            bad(format!("{} does not list `{}`", dir.join(SUMS).display(), shown(&name)))
                .hint("take tarball, sums and signature from the same release")
        })?;
        let mut release = Release { file, name, arch, date, digest: expected };
        release.check(path)?;
        Ok(release)
    }

    fn check(&mut self, path: &Path) -> Result<()> {
        let fail = |e: std::io::Error| Error::io("read", path, &e);
        let (found, _) = digest::of_reader(&mut self.file).map_err(fail)?;
        self.file.rewind().map_err(fail)?;
        if found == self.digest {
            return Ok(());
        }
        let message = format!("{} is not what {SUMS} lists: it is damaged or another one", path.display());
        Err(Error::new(Code::DigestMismatch, message).hint("download it again"))
    }
}

/// Architecture and date in a tarball's name.
fn parts(name: &str) -> Option<(&str, &str)> {
    let (stem, _) = name.strip_prefix("void-")?.split_once(".tar")?;
    let (arch, date) = stem.split_once("-ROOTFS-")?;
    let fine = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    (fine(arch) && !date.is_empty() && date.bytes().all(|b| b.is_ascii_digit())).then_some((arch, date))
}

fn small(path: &Path) -> Result<String> {
    let mut bytes = vec![];
    let read = stream::open(path)?.take(MAX_SMALL + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::io("read", path, &e))?;
    if bytes.len() as u64 > MAX_SMALL {
        return Err(bad(format!("{} is too large for what it should be", path.display())));
    }
    String::from_utf8(bytes).map_err(|e| bad(format!("{} is not text", path.display())).because(&e))
}

fn beside(e: Error) -> Error {
    match e.code() {
        Code::MissingFile => {
            e.hint("download sha256sum.txt and sha256sum.sig of the same release to beside the tarball")
        }
        _ => e,
    }
}

fn trusted(key: Option<&Path>) -> Result<Vec<PublicKey>> {
    let Some(path) = key else {
        let decoded = PINNED.iter().map(|text| PublicKey::decode(text)).collect::<std::result::Result<_, _>>();
        return decoded.map_err(|e| Error::new(Code::Internal, "a key of Void's cannot be read").because(&e));
    };
    let no_key = |e| bad(format!("{} is no public key of minisign's", path.display())).because(&e);
    Ok(vec![PublicKey::decode(small(path)?.trim_end()).map_err(no_key)?])
}

/// `sums` is what one of the keys has signed.
fn verify(path: &Path, sums: &str, signature: &str, keys: &[PublicKey]) -> Result<()> {
    use minisign_verify::Error as Refused;
    let no_signature =
        |e| bad(format!("{SIGNATURE} beside {} is no signature of minisign's", path.display())).because(&e);
    let signature = Signature::decode(signature.trim_end()).map_err(no_signature)?;
    let mut other = None;
    for key in keys {
        // Signatures of the file itself, and not of its BLAKE2b, are as good: the file is small.
        match key.verify(sums.as_bytes(), &signature, true) {
            Ok(()) => return Ok(()),
            Err(Refused::UnexpectedKeyId) => {}
            Err(e) => other = Some(e),
        }
    }
    Err(match other {
        Some(e) => Error::new(Code::DigestMismatch, format!("{} is not what was signed", path.display()))
            .because(&e)
            .hint("download sums and signature again; take another mirror if it stays so"),
        None => Error::new(Code::Permission, format!("{} is signed with a key that is not trusted", path.display()))
            .hint("each release has its key, void-release-DATE.pub: get it from Void and give it with --key FILE"),
    })
}

/// The digest that the sums have for a name, in the form of BSD's `sha256` or of `sha256sum`.
fn listed(sums: &str, name: &str) -> Option<Digest> {
    let line = |line: &str| {
        let (found, hex) = match line.strip_prefix("SHA256 (") {
            Some(rest) => rest.rsplit_once(") = ")?,
            None => {
                let (hex, found) = line.split_once("  ").or_else(|| line.split_once(" *"))?;
                (found, hex)
            }
        };
        (found == name).then(|| Digest::parse(&format!("sha256:{}", hex.trim())).ok())?
    };
    sums.lines().find_map(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    #[test]
    fn the_pinned_keys_are_those_that_their_comments_say() {
        assert_eq!(trusted(None).unwrap().len(), PINNED.len());
        for text in PINNED {
            let (comment, key) = text.trim_end().split_once('\n').unwrap();
            let bytes = base64::engine::general_purpose::STANDARD.decode(key).unwrap();
            let id: String = bytes[2..10].iter().rev().map(|b| format!("{b:02X}")).collect();
            assert!(bytes.len() == 42 && comment.ends_with(&id), "{comment}: {id}");
        }
    }

    #[test]
    fn sums_are_read_in_both_forms() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let sums = format!("SHA256 (void-x.tar.xz) = {a}\n{b}  other.tar.xz\n{a} *third\nzz  bad\n");
        let hex = |name: &str| listed(&sums, name).map(|digest| digest.hex().to_owned());
        assert_eq!((hex("void-x.tar.xz"), hex("other.tar.xz"), hex("third")), (Some(a.clone()), Some(b), Some(a)));
        assert_eq!((hex("bad"), hex("none")), (None, None));
    }

    #[test]
    fn a_name_says_architecture_and_date() {
        assert_eq!(parts("void-x86_64-musl-ROOTFS-20250202.tar.xz"), Some(("x86_64-musl", "20250202")));
        for bad in [
            "void-x86_64-20250202.iso",
            "void--ROOTFS-1.tar",
            "void-x86_64-ROOTFS-.tar.xz",
            "x",
            "void-a/b-ROOTFS-1.tar",
        ] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }
}
