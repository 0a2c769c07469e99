//! Statements: what a signature says of an object.
//!
//! A statement fixes the manifest, and through it every byte of the object, and the lengths, so that a reader knows what it will cost before it
//! begins. Signatures are of the statement's digest, and belong to the object wherever it is kept. FORMAT.md, section "Statements".

use super::SIGNATURES_MAX;
use super::error::PackError;
use super::member::tar_bytes;
use crate::canon::{DecodeError, Decoder, Encoder, Items};
use crate::object::{ObjectManifest, decode_reference, decode_references, encode_references};
use crate::signature::{KeyName, SecretKey, Signature, TrustedKeys};
use crate::{Digest, ObjectRef};

const STATEMENT_DOMAIN: &str = "sarsen 2026 statement v1";

/// The fewest bytes of a statement in a list: fixed parts and a name of one letter.
const STATEMENT_BYTES_MIN: u64 = 20 + 9 + 8 + 32 + 8 + 8 + 8;

/// What is said of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Its id and name.
    pub object: ObjectRef,
    /// What it refers to: sorted, none twice, itself left out.
    pub references: Vec<ObjectRef>,
    /// The digest of its stored manifest.
    pub manifest: Digest,
    /// The length of its stored manifest, in bytes.
    pub manifest_bytes: u64,
    /// The length of its archive, in bytes before compression.
    pub tar_bytes: u64,
}

impl Statement {
    /// What can be said of the object of a manifest.
    pub fn of(manifest: &ObjectManifest) -> Self {
        let encoded = manifest.encode();
        let manifest_bytes = encoded.len() as u64;
        Self {
            object: manifest.object.clone(),
            references: manifest.references.clone(),
            manifest: Digest::of(&encoded),
            manifest_bytes,
            tar_bytes: tar_bytes(manifest, manifest_bytes),
        }
    }

    /// What is signed.
    pub fn digest(&self) -> Digest {
        let mut encoder = Encoder::new(STATEMENT_DOMAIN);
        self.encode(&mut encoder);
        encoder.finish()
    }

    /// Vouches for the statement.
    pub fn sign(self, keys: &[SecretKey]) -> SignedStatement {
        let digest = self.digest();
        let mut signatures: Vec<Signature> = keys.iter().map(|key| key.sign(&digest)).collect();
        signatures.sort_by(|one, other| one.key().cmp(other.key()));
        signatures.dedup_by(|one, other| one.key() == other.key());
        SignedStatement { statement: self, signatures }
    }

    fn encode(&self, encoder: &mut Encoder) {
        let Self { object: ObjectRef { id, name }, references, manifest, manifest_bytes, tar_bytes } = self;
        encoder.fixed(id.as_bytes()).text(name.as_str());
        encode_references(encoder, references);
        encoder.digest(manifest).number(*manifest_bytes).number(*tar_bytes);
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let object = decode_reference(decoder)?;
        let references = decode_references(decoder, &object)?;
        Ok(Self { object, references, manifest: decoder.digest()?, manifest_bytes: decoder.number()?, tar_bytes: decoder.number()? })
    }
}

/// A statement and who vouches for it.
///
/// Shape: signatures sorted by the names of their keys, none twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedStatement {
    pub(super) statement: Statement,
    pub(super) signatures: Vec<Signature>,
}

impl SignedStatement {
    /// The statement, whether or not somebody vouches for it.
    pub const fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Who is said to vouch for it.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Checks that a trusted key vouches for the statement.
    ///
    /// Errors: [`PackError::Unsigned`]; [`PackError::UnknownSigner`]; [`PackError::WrongSignature`] if any signature in the name
    /// of a trusted key does not fit, whatever others there are.
    pub fn check(&self, trusted: &TrustedKeys) -> Result<(), PackError> {
        let object = &self.statement.object;
        let digest = self.statement.digest();
        if self.signatures.is_empty() {
            return Err(PackError::Unsigned { object: object.clone(), trusted: trusted.to_string() });
        }
        let mut vouched_for = false;
        for signature in &self.signatures {
            if let Some(key) = trusted.get(signature.key()) {
                if !signature.fits(&digest, key) {
                    return Err(PackError::WrongSignature { object: object.clone(), key: signature.key().clone() });
                }
                vouched_for = true;
            }
        }
        if vouched_for {
            return Ok(());
        }
        let signers: Vec<String> = self.signatures.iter().map(|signature| format!("`{}`", signature.key())).collect();
        Err(PackError::UnknownSigner { object: object.clone(), signers: signers.join(", "), trusted: trusted.to_string() })
    }

    fn encode(&self, encoder: &mut Encoder) {
        self.statement.encode(encoder);
        encoder.count(self.signatures.len());
        for signature in &self.signatures {
            encoder.text(signature.key().as_str()).fixed(signature.as_bytes());
        }
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let statement = Statement::decode(decoder)?;
        // A name has one letter at least.
        let count = decoder.count("signatures of an object", SIGNATURES_MAX, 8 + 1 + 64)?;
        let mut signatures: Vec<Signature> = Vec::with_capacity(count);
        for _ in 0..count {
            let text = decoder.text()?;
            let key: KeyName = text.parse().map_err(|_| DecodeError::invalid("unusable name of a key", text))?;
            if signatures.last().is_some_and(|previous| *previous.key() >= key) {
                return Err(DecodeError::invalid("the signatures are not sorted", text));
            }
            signatures.push(Signature::from_bytes(key, decoder.array()?));
        }
        Ok(Self { statement, signatures })
    }
}

/// The first bytes of a list of statements; the last is the version.
pub(super) const LIST_MAGIC: &str = "SRX1";

/// Writes the list at the start of an export.
pub(super) fn encode_list(statements: &[SignedStatement]) -> Vec<u8> {
    let mut encoder = Encoder::new("");
    encoder.fixed(LIST_MAGIC.as_bytes()).count(statements.len());
    for statement in statements {
        statement.encode(&mut encoder);
    }
    encoder.into_bytes()
}

/// Reads the list at the start of an export.
pub(super) fn decode_list(bytes: &[u8]) -> Result<Vec<SignedStatement>, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    decoder.magic(LIST_MAGIC)?;
    let count = decoder.count("objects of an export", super::EXPORT_OBJECTS_MAX, STATEMENT_BYTES_MIN)?;
    let statements = (0..count).map(|_| SignedStatement::decode(&mut decoder)).collect::<Result<Vec<_>, _>>()?;
    decoder.finish()?;
    Ok(statements)
}
