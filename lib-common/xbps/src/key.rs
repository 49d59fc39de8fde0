//! The keys that packages are signed with, and their signatures: RSA PKCS #1 v1.5 over SHA-256, as a `.sig2` file.

use super::{bad, plists, stream};
use base64::Engine as _;
use lib_common::error::{Code, Error, Result};
use md5::{Digest as _, Md5};
use plist::{Dictionary, Value};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use std::io::Read;
use std::path::Path;

/// The most that a signed file may have, in bytes: the check has it in memory.
const MAX_SIGNED: u64 = 1 << 30;
/// The most that a key's plist may have, in bytes.
const MAX_PLIST: usize = 64 << 10;
/// The DER of the algorithm rsaEncryption (RFC 8017) without parameters.
const RSA: &[u8] = &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0];

/// The two that Void has: file name and content.
const PINNED: [(&str, &str); 2] = [
    ("60ae0cd6f0951780bc93467a89afa32d", include_str!("keys/60ae0cd6f0951780bc93467a89afa32d.pem")),
    ("3db9c05041a7684c2e2ca9a25a04b73f", include_str!("keys/3db9c05041a7684c2e2ca9a25a04b73f.pem")),
];

/// An RSA public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pem: String,
    /// The DER of a PKCS #1 RSAPublicKey.
    pkcs1: Vec<u8>,
    /// Who signs with it, where it is said.
    signed_by: String,
}

/// The keys that Void's packages are signed with.
pub fn pinned() -> Result<Vec<Key>> {
    PINNED.iter().map(|(_, pem)| Ok(Key { signed_by: "Void Linux".into(), ..Key::of_pem(pem)? })).collect()
}

impl Key {
    /// From a plist with `public-key`: `index-meta.plist` of a repository, or a file of `/var/db/xbps/keys`.
    pub fn of_plist(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_PLIST {
            return Err(bad("the key's plist is too large"));
        }
        let dictionary = plists::read(bytes, "the key's plist")?;
        let pem = dictionary.get("public-key").and_then(Value::as_data).and_then(|d| std::str::from_utf8(d).ok());
        let key = Key::of_pem(pem.ok_or_else(|| bad("the key's plist has no `public-key`"))?)?;
        let signed_by = dictionary.get("signature-by").and_then(Value::as_string).unwrap_or_default();
        Ok(Key { signed_by: signed_by.to_owned(), ..key })
    }

    /// From a `PUBLIC KEY` in PEM (RFC 7468).
    pub fn of_pem(text: &str) -> Result<Self> {
        let wrong = || bad("the key is not an RSA public key in PEM").hint("openssl rsa -in KEY -pubout");
        let body = text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----");
        let body = body.and_then(|b| b.strip_suffix("-----END PUBLIC KEY-----")).ok_or_else(wrong)?;
        let base64: String = body.split_ascii_whitespace().collect();
        let der = base64::engine::general_purpose::STANDARD.decode(base64).map_err(|e| wrong().because(&e))?;
        let pkcs1 = pkcs1_of(&der).ok_or_else(wrong)?.to_vec();
        let key = Key { pem: text.to_owned(), pkcs1, signed_by: String::new() };
        if !(2048..=8192).contains(&key.bits()) {
            return Err(bad(format!("the key has {} bits; 2048 to 8192 are allowed", key.bits())));
        }
        Ok(key)
    }

    /// From a file, in either form.
    ///
    /// Errors: [`Code::MissingFile`], [`Code::BadInput`].
    pub fn read(file: &Path) -> Result<Self> {
        let mut bytes = vec![];
        stream::open(file)?.take(MAX_PLIST as u64 + 1).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let is_pem = text.trim_start().starts_with("-----");
        let key = if is_pem { Key::of_pem(&text) } else { Key::of_plist(&bytes) };
        key.map_err(|e| e.within(format!("{} is no key", file.display())))
    }

    /// The MD5 of its ssh-rsa form: `60:ae:…`, as `ssh-keygen -l -E md5` says it. It finds a key, and proves nothing.
    pub fn fingerprint(&self) -> String {
        let (modulus, exponent) = numbers(&self.pkcs1).unwrap_or_default();
        let mut md5 = Md5::new();
        for piece in [b"ssh-rsa", exponent, modulus] {
            md5.update((piece.len() as u32).to_be_bytes());
            md5.update(piece);
        }
        md5.finalize().iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
    }

    /// The size of its modulus.
    pub fn bits(&self) -> usize {
        let (modulus, _) = numbers(&self.pkcs1).unwrap_or_default();
        let zeros = modulus.iter().take_while(|b| **b == 0).count();
        let first = modulus.get(zeros).map_or(0, |b| b.leading_zeros() as usize);
        (modulus.len() - zeros) * 8 - first
    }

    /// As xbps stores it in `/var/db/xbps/keys/FINGERPRINT.plist`.
    pub fn dictionary(&self) -> Dictionary {
        let mut all = Dictionary::new();
        all.insert("public-key".into(), Value::Data(self.pem.clone().into_bytes()));
        all.insert("public-key-size".into(), (self.bits() as u64).into());
        all.insert("signature-by".into(), self.signed_by.clone().into());
        all
    }

    /// Whether both are the same key, however they are written.
    pub fn is_same(&self, other: &Key) -> bool {
        self.pkcs1 == other.pkcs1
    }

    /// Checks that `signature` is this key's of the file.
    ///
    /// Errors: [`Code::DigestMismatch`] that names the file, for any other signature or file.
    pub fn verify(&self, file: &Path, signature: &[u8]) -> Result<()> {
        let mut bytes = vec![];
        let read = stream::open(file)?.take(MAX_SIGNED + 1).read_to_end(&mut bytes);
        read.map_err(|e| Error::io("read", file, &e))?;
        if bytes.len() as u64 > MAX_SIGNED {
            return Err(bad(format!("{} is too large for a signed file", file.display())));
        }
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.pkcs1);
        key.verify(&bytes, signature).map_err(|_| {
            let message = format!("{} is not what the key {} signed", file.display(), self.fingerprint());
            Error::new(Code::DigestMismatch, message).hint("download it again; take another mirror if it stays so")
        })
    }
}

/// The RSAPublicKey in a SubjectPublicKeyInfo (RFC 5280), checked to be one.
fn pkcs1_of(der: &[u8]) -> Option<&[u8]> {
    let (info, rest) = element(der, 0x30)?;
    let (bits, last) = element(info.strip_prefix(RSA)?, 0x03)?;
    let key = bits.strip_prefix(&[0])?;
    numbers(key)?;
    (rest.is_empty() && last.is_empty()).then_some(key)
}

/// Modulus and exponent of an RSAPublicKey, each as DER and ssh write it: big-endian, signed.
fn numbers(pkcs1: &[u8]) -> Option<(&[u8], &[u8])> {
    let (both, rest) = element(pkcs1, 0x30)?;
    let (modulus, both) = element(both, 0x02)?;
    let (exponent, last) = element(both, 0x02)?;
    (rest.is_empty() && last.is_empty()).then_some((modulus, exponent))
}

/// The content of the DER element of that type which `der` begins with, and what is behind it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match der.strip_prefix(&[tag])? {
        [short @ 0..=0x7f, rest @ ..] => (usize::from(*short), rest),
        [0x81, length, rest @ ..] => (usize::from(*length), rest),
        [0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::super::package::testing::xml;
    use super::*;

    #[test]
    fn the_pinned_keys_are_those_that_their_names_say() {
        for ((name, _), key) in PINNED.iter().zip(pinned().unwrap()) {
            assert_eq!(key.fingerprint().replace(':', ""), *name);
            assert_eq!(key.bits(), 4096);
            let again = Key::of_plist(&xml(key.dictionary())).unwrap();
            assert_eq!(again, key);
            assert!(again.is_same(&Key::of_pem(&key.pem.replace('\n', "\r\n")).unwrap()));
        }
        let [a, b] = &pinned().unwrap()[..] else { panic!("two keys") };
        assert!(!a.is_same(b));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let pem = PINNED[0].1;
        let body: Vec<&str> = pem.lines().collect();
        let cut = [&body[..3], &body[body.len() - 1..]].concat().join("\n");
        for bad in ["", "x", &pem[..200], &cut, &pem.replace("PUBLIC", "PRIVATE"), &pem.replace("MIIC", "MIID")] {
            assert_eq!(Key::of_pem(bad).unwrap_err().code(), Code::BadInput, "{bad}");
        }
        let mut dictionary = Key::of_pem(pem).unwrap().dictionary();
        dictionary.remove("public-key");
        assert!(Key::of_plist(&xml(dictionary)).is_err());
        assert!(Key::of_plist(b"DEADBEEF").is_err());
        assert!(Key::of_plist(&vec![b' '; MAX_PLIST + 1]).is_err());
        assert!(Key::of_pem(SMALL).unwrap_err().message().contains("1024 bits"));
    }

    #[test]
    fn only_the_key_s_signature_of_the_file_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tool-1.0_1.x86_64.xbps");
        std::fs::write(&file, "a package\n").unwrap();
        let engine = &base64::engine::general_purpose::STANDARD;
        let mut signature = engine.decode(SIGNATURE.replace('\n', "")).unwrap();
        let key = Key::of_pem(TEST).unwrap();
        key.verify(&file, &signature).unwrap();
        for other in pinned().unwrap() {
            assert_eq!(other.verify(&file, &signature).unwrap_err().code(), Code::DigestMismatch);
        }
        assert!(key.verify(&file, &signature[1..]).is_err());
        assert!(key.verify(&file, b"").is_err());
        std::fs::write(&file, "a package!").unwrap();
        let e = key.verify(&file, &signature).unwrap_err();
        assert!(e.message().contains("tool-1.0_1.x86_64.xbps"), "{e}");
        std::fs::write(&file, "a package\n").unwrap();
        signature[7] ^= 1;
        assert!(key.verify(&file, &signature).is_err());
        assert_eq!(key.verify(&dir.path().join("none"), &signature).unwrap_err().code(), Code::MissingFile);
    }

    /// A key of 2,048 bits whose other half nobody has any more.
    const TEST: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAzE55dINlOTK+FnoRildF
XdJcdWvjgH/03n2uKb1h/sR5HndrZtzdTgBbSJyUEqEdn/vufPkKL0x8jwHAJm2A
3ZwVMd+iyNUcH27q4hCr6zTIbr9U1xbAwvP7OgzXjm9Ck9+IruO0ySJykF968GKe
LgU5Pt2SwXvDbk7VnOU95Bbmj/wfh4ZCFWipC1FXaWJXLp50X5YX6VyZM/FlekWR
D1CXs91sy9in2++0i8I0QXtOPCcT+Gww7CTDYGWP4mHQdXThiSkbR4BENSuL1azp
1r7VHn1KDlBcJZREu22Gzm3jUKBdiJTJsFwDsx42PTF1hAixcLRVqNwB2olB9ASZ
9wIDAQAB
-----END PUBLIC KEY-----";

    /// One that is too small.
    const SMALL: &str = "\
-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC97NIdssp4XUOPffLPs6oa2PRV
dKVta6T7mNEwesQ5Ym7i8Rn1shH+KnZp/jIdyKRlWuL1S48+SNrhiwQ01uG1O0fg
eib778ExQfI9U+81dYChQRhNvAymQYtL6ir3pSRU5mde3PtXedLeMELYEBLl7BCd
64lKals9ehuzo7JhaQIDAQAB
-----END PUBLIC KEY-----";

    /// Of `a package\n`, by `openssl dgst -sha256 -sign`.
    const SIGNATURE: &str = "\
utZIUZqfW4J3x5xLgAoZCjoE+j/0L5hmubEP/WgeMsKPsEb+U/E+mxP2Y7t0+cfJkLqX9nniH9KqMgBJ3cNMjGL3j5D/wvC1A3mt
yG95M5Y6VHTG856NsVDUoctrA14eSIUt523zte2jXPibP3vbU3Dv75yCDchTg0qr49oi4xrW/jNN7aEXk8XZObwErZoY3SEF7R4k
wNW9HfaSknaDMcAs9Hl1N6mI5N6E0v4qjBXgcdscRYqUKvFyR5q2nrio284gSD/hD1ztiQZQ/Rv990zV0IXsZFzSmidK/drJZ/D1
th1UOnSQo0EeXCeTU/H1tkV23rfwBqL2Zwpg/gQhMA==";
}
