//! An object's manifest: its name, what it refers to, and its tree; and how its id follows from them.
//!
//! The id is the first 160 bits of the digest of name, references and tree, where the object's own id counts as zeros wherever the
//! object holds it, and the places where it stands count instead. So an object may name its own path and still be addressed by content.
//! FORMAT.md, sections "Object ids" and "Object manifests".

use std::io::{self, Read, Write};

use crate::canon::{DecodeError, Encoder, Items, ReadError, StreamDecoder};
use crate::id::NAME_BYTES_MAX;
use crate::tree::Tree;
use crate::{ObjectId, ObjectName, ObjectRef};

/// The first bytes of an encoded manifest; the last is the version.
pub const OBJECT_MAGIC: &str = "SRO1";

/// The most references of one object. A bundle refers to each component of its host; Nix profiles reach some thousands.
pub const REFERENCES_MAX: u64 = 100_000;

/// The longest manifest, in bytes: a million entries of 250 bytes, about 80 and a path each.
pub const MANIFEST_BYTES_MAX: u64 = 256 << 20;

const OBJECT_DOMAIN: &str = "sarsen 2026 object v1";

/// What the store knows about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectManifest {
    /// Its id and name.
    pub object: ObjectRef,
    /// The objects that its bytes name: sorted, none twice, itself left out.
    pub references: Vec<ObjectRef>,
    /// Its content.
    pub tree: Tree,
}

/// What stands before the tree in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHead {
    /// The object's id and name.
    pub object: ObjectRef,
    /// The objects that its bytes name: sorted, none twice, itself left out.
    pub references: Vec<ObjectRef>,
}

/// Computes the id of an object of this name, these references (sorted, without itself) and this tree.
///
/// Own ids in the tree count as zeros, so any stand-in of the right length gives the same id.
pub fn object_id(name: &ObjectName, references: &[ObjectRef], tree: &Tree) -> ObjectId {
    let mut hasher = blake3::Hasher::new_derive_key(OBJECT_DOMAIN);
    let mut encoder = Encoder::new(OBJECT_DOMAIN);
    encoder.text(name.as_str());
    encode_references(&mut encoder, references);
    tree.hash_for_id(encoder, &mut hasher);
    ObjectId::from_digest(&hasher.finalize().into())
}

impl ManifestHead {
    /// Reads no further than the tree, so nothing says that the content gives this id.
    ///
    /// `length` is that of the whole manifest. Errors: [`DecodeError`] for what [`ObjectManifest::encode`] would not have written, or what the reader says.
    pub fn decode_from(reader: impl Read, length: u64) -> Result<Self, ReadError> {
        Self::decode_next(&mut open(reader, length)?)
    }

    fn decode_next<R: Read>(decoder: &mut StreamDecoder<R>) -> Result<Self, ReadError> {
        decoder.magic(OBJECT_MAGIC)?;
        let object = decode_reference(decoder)?;
        let references = decode_references(decoder, &object)?;
        Ok(Self { object, references })
    }
}

impl ObjectManifest {
    /// Computes the id that follows from name, references and tree. It equals `object.id` unless somebody lies.
    pub fn id(&self) -> ObjectId {
        object_id(&self.object.name, &self.references, &self.tree)
    }

    /// What stands before the tree.
    pub fn to_head(&self) -> ManifestHead {
        ManifestHead { object: self.object.clone(), references: self.references.clone() }
    }

    /// Writes the stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.encode_head();
        bytes.extend_from_slice(&self.tree.encode());
        bytes
    }

    /// Writes the stored form to `writer`, in portions.
    pub fn encode_to(&self, writer: &mut impl Write) -> io::Result<()> {
        writer.write_all(&self.encode_head())?;
        self.tree.encode_to(writer)
    }

    /// The length of the stored form.
    ///
    /// Errors: [`DecodeError::Limit`] if it is more than a manifest may have, so that nobody could read it.
    pub fn encoded_bytes(&self) -> Result<u64, DecodeError> {
        let length = self.encode_head().len() as u64 + self.tree.encoded_bytes();
        check_length(length).map(|()| length)
    }

    fn encode_head(&self) -> Vec<u8> {
        let Self { object: ObjectRef { id, name }, references, tree } = self;
        let mut encoder = Encoder::new("");
        encoder.fixed(OBJECT_MAGIC.as_bytes()).fixed(id.as_bytes()).text(name.as_str());
        encode_references(&mut encoder, references);
        encoder.number(tree.encoded_bytes());
        encoder.into_bytes()
    }

    /// Reads the stored form and checks that the id is the one that the content gives.
    ///
    /// Errors: [`DecodeError`] for anything that [`Self::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_from(bytes, bytes.len() as u64).map_err(|error| match error {
            ReadError::Decode(error) => error,
            // Reading from memory cannot fail otherwise.
            ReadError::Read(_) => DecodeError::Truncated,
        })
    }

    /// As [`Self::decode`], from a reader of exactly `length` bytes, in portions.
    ///
    /// Errors: as [`Self::decode`], and what the reader says.
    pub fn decode_from(reader: impl Read, length: u64) -> Result<Self, ReadError> {
        let mut decoder = open(reader, length)?;
        let ManifestHead { object, references } = ManifestHead::decode_next(&mut decoder)?;
        let tree_bytes = decoder.number()?;
        let left = decoder.left();
        if tree_bytes > left {
            return Err(DecodeError::Truncated.into());
        }
        if tree_bytes < left {
            return Err(DecodeError::Trailing { bytes: left - tree_bytes }.into());
        }
        let tree = Tree::decode_next(&mut decoder)?;
        decoder.finish()?;
        let manifest = Self { object, references, tree };
        if manifest.id() != manifest.object.id {
            return Err(DecodeError::invalid("the content does not give this id", &manifest.object.to_string()).into());
        }
        manifest.tree.check_link_self_references(&manifest.object.id)?;
        Ok(manifest)
    }
}

fn open<R: Read>(reader: R, length: u64) -> Result<StreamDecoder<R>, DecodeError> {
    check_length(length)?;
    Ok(StreamDecoder::new(reader, length))
}

const fn check_length(length: u64) -> Result<(), DecodeError> {
    if length > MANIFEST_BYTES_MAX {
        return Err(DecodeError::Limit { what: "bytes of a manifest", value: length, limit: MANIFEST_BYTES_MAX });
    }
    Ok(())
}

pub(crate) fn encode_references(encoder: &mut Encoder, references: &[ObjectRef]) {
    encoder.count(references.len());
    for ObjectRef { id, name } in references {
        encoder.fixed(id.as_bytes()).text(name.as_str());
    }
}

/// Reads the references of `object`: sorted, none twice, itself left out.
pub(crate) fn decode_references<D: Items>(decoder: &mut D, object: &ObjectRef) -> Result<Vec<ObjectRef>, D::Error> {
    let count = decoder.count("references of an object", REFERENCES_MAX, 29)?;
    let mut references: Vec<ObjectRef> = Vec::with_capacity(count);
    for _ in 0..count {
        let reference = decode_reference(decoder)?;
        let sorted = references.last().is_none_or(|previous| *previous < reference);
        if !sorted || reference.id == object.id {
            return Err(DecodeError::invalid("the references are not sorted, or hold the object itself", &reference.to_string()).into());
        }
        references.push(reference);
    }
    Ok(references)
}

pub(crate) fn decode_reference<D: Items>(decoder: &mut D) -> Result<ObjectRef, D::Error> {
    let unusable = "unusable object name";
    let id = ObjectId::from_bytes(decoder.array()?);
    let text = decoder.short_text(NAME_BYTES_MAX, unusable)?;
    let name = text.parse().map_err(|_| DecodeError::invalid(unusable, &text))?;
    Ok(ObjectRef { id, name })
}
