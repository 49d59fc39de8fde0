//! Whose packages are believed: RSA keys, those of Void pinned by all their bytes, and the signatures beside packages
//! (`FILE.sig2`: PKCS #1 v1.5 over SHA-256).

use super::bad;
use super::repodata::dictionary;
use crate::digest;
use crate::error::{Code, Error, Result};
use md5::{Digest as _, Md5};
use plist::Value;
use rsa::pkcs8::DecodePublicKey;
use rsa::traits::PublicKeyParts;
use rsa::{BigUint, Pkcs1v15Sign, RsaPublicKey};
use std::path::Path;

/// Void's keys, as void-mklive and void-containers have them.
const PINNED: [&str; 2] = [
    include_str!("keys/60ae0cd6f0951780bc93467a89afa32d.pem"),
    include_str!("keys/3db9c05041a7684c2e2ca9a25a04b73f.pem"),
];

/// What stands before the digest in a signature: the DER of "SHA-256" (RFC 8017, 9.2).
const SHA256_PREFIX: [u8; 19] = *b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    key: RsaPublicKey,
    pem: String,
}

impl Key {
    /// Of the property list that an index and a root file system have.
    ///
    /// # Errors
    /// [`Code::BadInput`] for what has no key.
    pub fn of_plist(bytes: &[u8]) -> Result<Self> {
        let dictionary = dictionary(bytes)?;
        let pem = dictionary.get("public-key").and_then(Value::as_data).and_then(|data| std::str::from_utf8(data).ok());
        Key::of_pem(pem.ok_or_else(|| bad("it has no public key"))?)
    }

    /// Of a PEM file (SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// [`Code::BadInput`] for what is no RSA key.
    pub fn of_pem(pem: &str) -> Result<Self> {
        let key =
            RsaPublicKey::from_public_key_pem(pem.trim()).map_err(|e| bad("it is not a public RSA key").because(&e))?;
        Ok(Key { key, pem: pem.to_owned() })
    }

    /// The one in a file, a property list or PEM.
    ///
    /// # Errors
    /// [`Code::MissingFile`], [`Code::BadInput`].
    pub fn read(file: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(file).map_err(|e| Error::io("read", file, &e).with_code(Code::MissingFile))?;
        let key =
            if text.trim_start().starts_with("-----") { Key::of_pem(&text) } else { Key::of_plist(text.as_bytes()) };
        key.map_err(|e| e.within(format!("{} is no key", file.display())))
    }

    /// As xbps names its file: `60:ae:…`, the MD5 of what OpenSSH has for the key.
    pub fn fingerprint(&self) -> String {
        let mut hash = Md5::new();
        let mut field = |bytes: &[u8]| {
            hash.update(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
            hash.update(bytes);
        };
        field(b"ssh-rsa");
        for number in [self.key.e(), self.key.n()] {
            field(&mpint(number));
        }
        let pairs: Vec<String> = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        pairs.join(":")
    }

    /// Checks a file's signature. The file is read once, whatever its size.
    ///
    /// # Errors
    /// [`Code::DigestMismatch`] for a signature that is not by this key, or not of that file.
    pub fn verify(&self, file: &Path, signature: &[u8]) -> Result<()> {
        let digest = digest::of_file(file)?;
        let scheme = Pkcs1v15Sign { hash_len: Some(32), prefix: Box::new(SHA256_PREFIX) };
        let verified = self.key.verify(scheme, &hashed(digest.hex()), signature);
        verified
            .map_err(|_| Error::new(Code::DigestMismatch, format!("the signature is not by {}", self.fingerprint())))
    }

    /// The property list that a root file system keeps it in; the name is its fingerprint.
    pub fn to_plist(&self, signed_by: &str) -> plist::Dictionary {
        let mut dictionary = plist::Dictionary::new();
        dictionary.insert("public-key".into(), Value::Data(self.pem.clone().into_bytes()));
        dictionary.insert("public-key-size".into(), (self.key.size() as u64 * 8).into());
        dictionary.insert("signature-by".into(), signed_by.into());
        dictionary
    }
}

/// Void's.
///
/// # Errors
/// None that its tests would not have found.
pub fn pinned() -> Result<Vec<Key>> {
    PINNED.iter().map(|pem| Key::of_pem(pem)).collect()
}

/// With a zero in front where it would be taken for a negative number (RFC 4251, 5).
fn mpint(number: &BigUint) -> Vec<u8> {
    let mut bytes = number.to_bytes_be();
    if bytes.first().is_some_and(|byte| byte & 0x80 != 0) {
        bytes.insert(0, 0);
    }
    bytes
}

fn hashed(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voids_keys_have_the_names_that_void_gives_them() {
        let names: Vec<String> = pinned().unwrap().iter().map(Key::fingerprint).collect();
        assert_eq!(
            names,
            ["60:ae:0c:d6:f0:95:17:80:bc:93:46:7a:89:af:a3:2d", "3d:b9:c0:50:41:a7:68:4c:2e:2c:a9:a2:5a:04:b7:3f"]
        );
        for key in pinned().unwrap() {
            let mut text = vec![];
            Value::Dictionary(key.to_plist("Void Linux")).to_writer_xml(&mut text).unwrap();
            assert_eq!(Key::of_plist(&text).unwrap(), key);
        }
    }
}
