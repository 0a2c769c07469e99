//! Keys and signatures: who vouches for an object.
//!
//! Ed25519. In text a key or signature is `<name>:<base64>`, as Nix has them, secret keys included; the name says which key is meant, the
//! bytes decide. A secret key is in its file, readable by its owner only, and never in a message. FORMAT.md, section "Signatures".

mod base64;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::Digest;
use crate::fsutil::{self, FsError, IoResultExt};

/// The longest name of a key, in bytes: room for a host's name and a number.
pub const KEY_NAME_BYTES_MAX: usize = 100;

/// The longest file with a secret key, in bytes: one line.
const KEY_FILE_BYTES_MAX: u64 = 1024;

/// The name of a key, for people and for looking it up.
///
/// Shape: 1 to [`KEY_NAME_BYTES_MAX`] characters of `A-Z a-z 0-9 + - . _`, the first a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyName {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.' | b'_');
        let starts_well = text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if starts_well && text.len() <= KEY_NAME_BYTES_MAX && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(KeyError::Name { text: text.chars().take(80).collect() })
        }
    }
}

/// A text or file that is not a key or signature. Messages never hold what may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The part before the colon is not a name.
    #[error("`{text}` is not the name of a key: expected 1 to 100 of `A-Za-z0-9+-._`, first a letter or digit")]
    Name {
        /// What stands there, shortened.
        text: String,
    },
    /// There is no colon.
    #[error("a {what} has the form `<name>:<base64>`")]
    Form {
        /// What was expected.
        what: &'static str,
    },
    /// The part behind the colon is not what it should be.
    #[error("what follows `{name}:` is not a {what}: {reason}")]
    Value {
        /// The name.
        name: KeyName,
        /// What was expected.
        what: &'static str,
        /// Why it is none.
        reason: &'static str,
    },
    /// Two different keys have one name.
    #[error("two different keys are named `{name}`")]
    Ambiguous {
        /// The name.
        name: KeyName,
    },
    /// Others can read the secret key.
    #[error("the secret key `{}` has mode {mode:04o}, others can read it: run `chmod 600` on it, or make a new key", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not hold one secret key.
    #[error("`{}` does not hold a secret key", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<KeyError>,
    },
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] FsError),
}

/// What verifies signatures.
///
/// Shape: in text `<name>:` and 44 characters of base64; `Display` and `FromStr` round-trip exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: KeyName,
    key: VerifyingKey,
}

impl PublicKey {
    /// The name of the key.
    pub const fn name(&self) -> &KeyName {
        &self.name
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, base64::encode(self.key.as_bytes()))
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let what = "public key";
        let (name, value) = split(text, what)?;
        let refuse = |reason| KeyError::Value { name: name.clone(), what, reason };
        if base64::decode::<64>(value).is_some() {
            return Err(refuse("it may be a secret key: take it out of here, and use a new one if others have seen it"));
        }
        let bytes = base64::decode(value).ok_or_else(|| refuse("expected 44 characters of base64"))?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| refuse("no Ed25519 key has this value"))?;
        if key.is_weak() { Err(refuse("the key is a weak one, which fits any content")) } else { Ok(Self { name, key }) }
    }
}

/// What makes signatures. It has no text form but the one in its file.
pub struct SecretKey {
    name: KeyName,
    key: SigningKey,
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.name)
    }
}

impl SecretKey {
    /// Makes a new key from the system's random numbers.
    pub fn generate(name: KeyName) -> Result<Self, KeyError> {
        let source = Path::new("/dev/urandom");
        let mut seed = Zeroizing::new([0; 32]);
        File::open(source).and_then(|mut file| file.read_exact(&mut *seed)).at("read", source)?;
        Ok(Self { name, key: SigningKey::from_bytes(&seed) })
    }

    /// Writes the key to a new file of mode 0600; durable when it returns. An existing file is left alone.
    pub fn write_new_file(&self, path: &Path) -> Result<(), KeyError> {
        let pair = Zeroizing::new(self.key.to_keypair_bytes());
        let value = Zeroizing::new(base64::encode(&*pair));
        let line = Zeroizing::new(format!("{}:{}\n", self.name, *value));
        Ok(fsutil::write_new_file(path, line.as_bytes(), 0o600)?)
    }

    /// Reads a key from its file.
    ///
    /// Errors: [`KeyError::Exposed`] if others may read the file; [`KeyError::File`] if it is not one secret key.
    pub fn read_file(path: &Path) -> Result<Self, KeyError> {
        let mode = std::fs::metadata(path).at("inspect", path)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        let bytes = Zeroizing::new(fsutil::read_file_bounded(path, KEY_FILE_BYTES_MAX)?);
        let text = std::str::from_utf8(&bytes).map_err(|error| FsError::new("read", path, io::Error::other(error)))?;
        text.trim_end().parse().map_err(|source| KeyError::File { path: path.to_owned(), source: Box::new(source) })
    }

    /// The name of the key.
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// The part that others may know.
    pub fn public(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// Signs the digest of a structure; the digest's domain says what is meant by it.
    pub fn sign(&self, digest: &Digest) -> Signature {
        Signature { key: self.name.clone(), bytes: self.key.sign(digest.as_bytes()).to_bytes() }
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let what = "secret key";
        let (name, value) = split(text, what)?;
        let refuse = |reason| KeyError::Value { name: name.clone(), what, reason };
        let pair = Zeroizing::new(base64::decode::<64>(value).ok_or_else(|| refuse("expected 88 characters of base64"))?);
        let key = SigningKey::from_keypair_bytes(&pair).map_err(|_| refuse("its two halves do not belong together"))?;
        Ok(Self { name, key })
    }
}

/// A signature, with the name of the key that is said to have made it.
///
/// Shape: in text `<name>:` and 88 characters of base64; `Display` and `FromStr` round-trip exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    key: KeyName,
    bytes: [u8; 64],
}

impl Signature {
    /// Wraps 64 bytes that are said to be a signature.
    pub const fn from_bytes(key: KeyName, bytes: [u8; 64]) -> Self {
        Self { key, bytes }
    }

    /// The 64 bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.bytes
    }

    /// The name of the key.
    pub const fn key(&self) -> &KeyName {
        &self.key
    }

    /// Whether `key` made this signature of `digest`. The names do not matter here.
    pub fn fits(&self, digest: &Digest, key: &PublicKey) -> bool {
        // Strict: keys and signatures with a second spelling are refused.
        key.key.verify_strict(digest.as_bytes(), &ed25519_dalek::Signature::from_bytes(&self.bytes)).is_ok()
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key, base64::encode(&self.bytes))
    }
}

impl FromStr for Signature {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let what = "signature";
        let (key, value) = split(text, what)?;
        match base64::decode(value) {
            Some(bytes) => Ok(Self { key, bytes }),
            None => Err(KeyError::Value { name: key, what, reason: "expected 88 characters of base64" }),
        }
    }
}

/// The keys whose signatures count, by name.
#[derive(Debug, Clone, Default)]
pub struct TrustedKeys(BTreeMap<KeyName, PublicKey>);

impl TrustedKeys {
    /// Collects keys.
    ///
    /// Errors: [`KeyError::Ambiguous`] if two of one name differ.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Result<Self, KeyError> {
        let mut by_name = BTreeMap::new();
        for key in keys {
            let name = key.name.clone();
            let value = key.key;
            if by_name.insert(name.clone(), key).is_some_and(|other| other.key != value) {
                return Err(KeyError::Ambiguous { name });
            }
        }
        Ok(Self(by_name))
    }

    /// The key of a name.
    pub fn get(&self, name: &KeyName) -> Option<&PublicKey> {
        self.0.get(name)
    }
}

impl fmt::Display for TrustedKeys {
    /// The names, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (position, name) in self.0.keys().enumerate() {
            write!(f, "{}`{name}`", if position == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

fn split<'a>(text: &'a str, what: &'static str) -> Result<(KeyName, &'a str), KeyError> {
    let (name, value) = text.split_once(':').ok_or(KeyError::Form { what })?;
    Ok((name.parse()?, value))
}

#[cfg(test)]
mod tests;
