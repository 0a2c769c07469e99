//! An object's manifest: its name, what it refers to, and its tree; and how its id follows from them.
//!
//! The id is the first 160 bits of the digest of name, references and tree, where the object's own id counts as zeros wherever the
//! object holds it, and the places where it stands count instead. So an object may name its own path and still be addressed by content.
//! FORMAT.md, sections "Object ids" and "Object manifests".

use crate::canon::{DecodeError, Decoder, Encoder};
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

/// Computes the id of an object of this name, these references (sorted, without itself) and this tree.
///
/// Own ids in the tree count as zeros, so any stand-in of the right length gives the same id.
pub fn object_id(name: &ObjectName, references: &[ObjectRef], tree: &Tree) -> ObjectId {
    let mut encoder = Encoder::new(OBJECT_DOMAIN);
    encoder.text(name.as_str());
    encode_references(&mut encoder, references);
    tree.encode_for_id(&mut encoder);
    ObjectId::from_digest(&encoder.finish())
}

impl ObjectManifest {
    /// Computes the id that follows from name, references and tree. It equals `object.id` unless somebody lies.
    pub fn id(&self) -> ObjectId {
        object_id(&self.object.name, &self.references, &self.tree)
    }

    /// Writes the stored form.
    pub fn encode(&self) -> Vec<u8> {
        let Self { object: ObjectRef { id, name }, references, tree } = self;
        let mut encoder = Encoder::new("");
        encoder.fixed(OBJECT_MAGIC.as_bytes()).fixed(id.as_bytes()).text(name.as_str());
        encode_references(&mut encoder, references);
        encoder.bytes(&tree.encode());
        encoder.into_bytes()
    }

    /// Reads the stored form and checks that the id is the one that the content gives.
    ///
    /// Errors: [`DecodeError`] for anything that [`Self::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let length = bytes.len() as u64;
        if length > MANIFEST_BYTES_MAX {
            return Err(DecodeError::Limit { what: "bytes of a manifest", value: length, limit: MANIFEST_BYTES_MAX });
        }
        let mut decoder = Decoder::new(bytes);
        decoder.magic(OBJECT_MAGIC)?;
        let object = decode_reference(&mut decoder)?;
        let references = decode_references(&mut decoder, &object)?;
        let tree = Tree::decode(decoder.bytes()?)?;
        decoder.finish()?;
        let manifest = Self { object, references, tree };
        if manifest.id() != manifest.object.id {
            return Err(DecodeError::invalid("the content does not give this id", &manifest.object.to_string()));
        }
        manifest.tree.check_link_self_references(&manifest.object.id)?;
        Ok(manifest)
    }
}

pub(crate) fn encode_references(encoder: &mut Encoder, references: &[ObjectRef]) {
    encoder.count(references.len());
    for ObjectRef { id, name } in references {
        encoder.fixed(id.as_bytes()).text(name.as_str());
    }
}

/// Reads the references of `object`: sorted, none twice, itself left out.
pub(crate) fn decode_references(decoder: &mut Decoder<'_>, object: &ObjectRef) -> Result<Vec<ObjectRef>, DecodeError> {
    let count = decoder.count("references of an object", REFERENCES_MAX, 29)?;
    let mut references: Vec<ObjectRef> = Vec::with_capacity(count);
    for _ in 0..count {
        let reference = decode_reference(decoder)?;
        let sorted = references.last().is_none_or(|previous| *previous < reference);
        if !sorted || reference.id == object.id {
            return Err(DecodeError::invalid("the references are not sorted, or hold the object itself", &reference.to_string()));
        }
        references.push(reference);
    }
    Ok(references)
}

pub(crate) fn decode_reference(decoder: &mut Decoder<'_>) -> Result<ObjectRef, DecodeError> {
    let id = ObjectId::from_bytes(decoder.array()?);
    let text = decoder.text()?;
    let name = text.parse().map_err(|_| DecodeError::invalid("unusable object name", text))?;
    Ok(ObjectRef { id, name })
}
