//! Stores in memory for the simulation, and what they check: the rules of the real one, as far as a transfer relies on them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;
use crate::RelPath;
use crate::canon::DecodeError;
use crate::id::ID_CHARS;
use crate::tree::write_at;

/// What a store holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    pub(super) objects: BTreeMap<ObjectRef, ObjectManifest>,
    /// The files of the objects as they are on disk; a test may damage them.
    pub(super) files: BTreeMap<(ObjectRef, String), Rc<[u8]>>,
    /// The names in `blobs/`; a test may lose them.
    pub(super) contents: BTreeMap<Digest, Rc<[u8]>>,
    pub(super) generations: Vec<ObjectRef>,
    pub(super) left_overs: bool,
}

/// A file of a new object: own ids are zeros until the id is known.
#[derive(Debug, Clone)]
pub(super) struct NewFile {
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
    pub(super) executable: bool,
    /// Where the own id stands.
    pub(super) own: Option<u64>,
}

impl Memory {
    /// Puts an object that is right in everything.
    pub(super) fn put(&mut self, name: &str, references: &[ObjectRef], files: &[NewFile]) -> ObjectRef {
        let name = name.parse().unwrap();
        let mut references = references.to_vec();
        references.sort();
        let id = object_id(&name, &references, &tree_of(files, None));
        let tree = tree_of(files, Some(id));
        let object = ObjectRef { id, name };
        for file in files {
            let bytes: Rc<[u8]> = finished(file, Some(id)).into();
            self.contents.insert(Digest::of(&bytes), Rc::clone(&bytes));
            self.files.insert((object.clone(), file.path.clone()), bytes);
        }
        self.objects.insert(object.clone(), ObjectManifest { object: object.clone(), references, tree });
        object
    }

    pub(super) fn closure_of(&self, roots: &[ObjectRef]) -> Result<Vec<ObjectRef>, StoreError> {
        let mut closure = Vec::new();
        for root in roots {
            self.visit(root, &mut closure)?;
        }
        Ok(closure)
    }

    fn visit(&self, object: &ObjectRef, closure: &mut Vec<ObjectRef>) -> Result<(), StoreError> {
        if closure.contains(object) {
            return Ok(());
        }
        let manifest = self.objects.get(object).ok_or_else(|| StoreError::Missing { object: object.to_string() })?;
        for reference in &manifest.references {
            self.visit(reference, closure)?;
        }
        closure.push(object.clone());
        Ok(())
    }

    /// Copies the closure of an object from another store.
    pub(super) fn take(&mut self, other: &Self, root: &ObjectRef) {
        for object in other.closure_of(std::slice::from_ref(root)).unwrap() {
            let manifest = other.objects[&object].clone();
            for entry in manifest.tree.entries() {
                if let EntryKind::File { digest, .. } = &entry.kind {
                    let key = (object.clone(), entry.path.to_string());
                    let bytes = Rc::clone(&other.files[&key]);
                    self.contents.insert(*digest, Rc::clone(&bytes));
                    self.files.insert(key, bytes);
                }
            }
            self.objects.insert(object, manifest);
        }
    }

    /// The oracle: every object is what its id says, has all its files, and all that it refers to.
    pub(super) fn check(&self, damaged: &BTreeSet<(ObjectRef, String)>) {
        for (object, manifest) in &self.objects {
            assert_eq!((&manifest.object, manifest.id()), (object, object.id));
            self.closure_of(std::slice::from_ref(object)).unwrap();
            for entry in manifest.tree.entries() {
                let EntryKind::File { digest, size, .. } = entry.kind else { continue };
                let key = (object.clone(), entry.path.to_string());
                let bytes = &self.files[&key];
                assert!(damaged.contains(&key) || Digest::of(bytes) == digest && bytes.len() as u64 == size, "{key:?}");
            }
        }
        for (digest, bytes) in &self.contents {
            assert_eq!(Digest::of(bytes), *digest, "a content is named wrongly");
        }
    }
}

fn finished(file: &NewFile, id: Option<ObjectId>) -> Vec<u8> {
    let mut bytes = file.bytes.clone();
    if let (Some(id), Some(own)) = (id, file.own) {
        write_at(&mut bytes, &[own], id.to_chars());
    }
    bytes
}

fn tree_of(files: &[NewFile], id: Option<ObjectId>) -> Tree {
    let mut entries: BTreeMap<String, EntryKind> = BTreeMap::new();
    for file in files {
        let self_references = file.own.map(|own| SelfReferences { offsets: vec![own], modulo: Digest::of(&finished(file, None)) });
        let kind = EntryKind::File {
            size: file.bytes.len() as u64,
            digest: Digest::of(&finished(file, id)),
            executable: file.executable,
            self_references,
        };
        entries.insert(file.path.clone(), kind);
        for (end, _) in file.path.match_indices('/') {
            entries.insert(file.path[..end].to_owned(), EntryKind::Directory);
        }
    }
    Tree::new(entries.into_iter().map(|(path, kind)| Entry { path: path.parse().unwrap(), kind }).collect()).unwrap()
}

impl ReadAt for Rc<[u8]> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let bytes = self.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl Objects for Memory {
    type File = Rc<[u8]>;

    fn closure(&self, roots: &[ObjectRef]) -> Result<Vec<ObjectRef>, StoreError> {
        self.closure_of(roots)
    }

    fn manifest(&self, object: &ObjectRef) -> Result<ObjectManifest, StoreError> {
        self.objects.get(object).cloned().ok_or_else(|| StoreError::Missing { object: object.to_string() })
    }

    fn open(&self, object: &ObjectRef, path: &RelPath) -> io::Result<Rc<[u8]>> {
        self.files.get(&(object.clone(), path.to_string())).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Source for Memory {
    type Kept = ();

    fn keep(&self, object: &ObjectRef) -> Result<(), StoreError> {
        Objects::manifest(self, object).map(drop)
    }
}

/// A store that receives, and counts what it is made to hold.
#[derive(Debug)]
pub(super) struct Receiving<'a> {
    memory: &'a RefCell<Memory>,
    free: u64,
    contents: BTreeMap<Digest, Rc<[u8]>>,
    staged: Vec<ObjectManifest>,
    open_writers: Rc<Cell<usize>>,
}

/// A path, and the content of the file there.
type Placed = (String, Rc<[u8]>);

/// A content that is being received.
#[derive(Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    open: Rc<Cell<usize>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

impl<'a> Receiving<'a> {
    pub(super) fn new(memory: &'a RefCell<Memory>, free: u64) -> Self {
        Self { memory, free, contents: BTreeMap::new(), staged: Vec::new(), open_writers: Rc::default() }
    }

    pub(super) fn open_writers(&self) -> usize {
        self.open_writers.get()
    }

    fn assemble(&self, manifest: &ObjectManifest) -> Result<Vec<Placed>, StoreError> {
        let object = &manifest.object;
        let mut files = Vec::new();
        for entry in manifest.tree.entries() {
            let EntryKind::File { digest, size, self_references, .. } = entry.kind else { continue };
            let memory = self.memory.borrow();
            let bytes = self.contents.get(&digest).or_else(|| memory.contents.get(&digest));
            let bytes = bytes.ok_or_else(|| StoreError::MissingContent { object: object.clone(), digest })?;
            let damaged = || StoreError::Damaged { object: object.clone(), source: DecodeError::invalid("damaged", entry.path.as_str()) };
            let own = self_references.as_ref().map_or(&[][..], |own| &own.offsets);
            let stands =
                |offset: &u64| bytes.get(usize::try_from(*offset).unwrap()..).is_some_and(|rest| rest.starts_with(&object.id.to_chars()));
            if bytes.len() as u64 != size || !own.iter().all(stands) {
                return Err(damaged());
            }
            let mut zeroed = bytes.to_vec();
            write_at(&mut zeroed, own, [b'0'; ID_CHARS]);
            if self_references.as_ref().is_some_and(|own| own.modulo != Digest::of(&zeroed)) {
                return Err(damaged());
            }
            files.push((entry.path.to_string(), Rc::clone(bytes)));
        }
        Ok(files)
    }
}

impl Objects for Receiving<'_> {
    type File = Rc<[u8]>;

    fn closure(&self, roots: &[ObjectRef]) -> Result<Vec<ObjectRef>, StoreError> {
        self.memory.borrow().closure_of(roots)
    }

    fn manifest(&self, object: &ObjectRef) -> Result<ObjectManifest, StoreError> {
        Objects::manifest(&*self.memory.borrow(), object)
    }

    fn open(&self, object: &ObjectRef, path: &RelPath) -> io::Result<Rc<[u8]>> {
        Objects::open(&*self.memory.borrow(), object, path)
    }
}

impl Sink for Receiving<'_> {
    type Proof = ObjectRef;
    type Writer = Writer;

    fn proofs(&self, roots: &[ObjectRef]) -> Result<Option<Vec<ObjectRef>>, StoreError> {
        match self.memory.borrow().closure_of(roots) {
            Ok(_) => Ok(Some(roots.to_vec())),
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn name_present(&mut self, roots: &[ObjectRef]) -> Result<Vec<ObjectRef>, StoreError> {
        let memory = self.memory.borrow();
        let named: BTreeSet<&str> = roots.iter().map(|root| root.name.as_str()).collect();
        let mut present = memory.generations.clone();
        present.extend(memory.objects.keys().filter(|object| named.contains(object.name.as_str())).cloned());
        let mut seen = BTreeSet::new();
        present.retain(|object| seen.insert(object.clone()));
        present.truncate(limits::PRESENT_MAX);
        Ok(present)
    }

    fn may_hold_more(&self, none_named: bool) -> Result<bool, StoreError> {
        let memory = self.memory.borrow();
        Ok(memory.left_overs || none_named && !memory.objects.is_empty())
    }

    fn lacks(&self, object: &ObjectRef) -> Result<bool, StoreError> {
        Ok(!self.memory.borrow().objects.contains_key(object))
    }

    fn lacks_content(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(!self.contents.contains_key(digest) && !self.memory.borrow().contents.contains_key(digest))
    }

    fn check_space(&self, needed: u64) -> Result<(), TransferError> {
        let free = self.free;
        if needed > free { Err(TransferError::NoSpace { needed, free, root: "memory".to_owned() }) } else { Ok(()) }
    }

    fn create_content(&mut self) -> Result<Writer, StoreError> {
        self.open_writers.set(self.open_writers.get() + 1);
        Ok(Writer { bytes: Vec::new(), open: Rc::clone(&self.open_writers) })
    }

    fn write_content(&mut self, writer: &mut Writer, bytes: &[u8], _: &ObjectRef) -> Result<(), StoreError> {
        assert!(bytes.len() <= limits::PIECE_BYTES_MAX);
        writer.bytes.extend(bytes);
        Ok(())
    }

    fn accept_content(&mut self, mut writer: Writer, expected: Option<&Digest>) -> Result<Digest, StoreError> {
        let bytes = std::mem::take(&mut writer.bytes);
        let found = Digest::of(&bytes);
        if let Some(expected) = expected.filter(|expected| **expected != found) {
            return Err(StoreError::WrongContent { what: "a received file".to_owned(), expected: *expected, found });
        }
        self.contents.insert(found, bytes.into());
        Ok(found)
    }

    fn put(&mut self, manifest: &ObjectManifest) -> Result<(), StoreError> {
        let found = manifest.id();
        if found != manifest.object.id {
            return Err(StoreError::WrongId { object: manifest.object.clone(), found });
        }
        self.assemble(manifest)?;
        self.staged.push(manifest.clone());
        Ok(())
    }

    fn publish(&mut self) -> Result<(), StoreError> {
        let staged = std::mem::take(&mut self.staged);
        let here = |reference: &ObjectRef| {
            staged.iter().any(|manifest| manifest.object == *reference) || self.memory.borrow().objects.contains_key(reference)
        };
        for manifest in &staged {
            if let Some(reference) = manifest.references.iter().find(|reference| !here(reference)) {
                return Err(StoreError::MissingReference { object: manifest.object.clone(), reference: reference.clone() });
            }
        }
        for manifest in &staged {
            for (path, bytes) in self.assemble(manifest)? {
                self.memory.borrow_mut().files.insert((manifest.object.clone(), path), bytes);
            }
        }
        let mut memory = self.memory.borrow_mut();
        memory.objects.extend(staged.into_iter().map(|manifest| (manifest.object.clone(), manifest)));
        memory.contents.extend(std::mem::take(&mut self.contents));
        Ok(())
    }

    fn keep_contents(&mut self) {
        let mut memory = self.memory.borrow_mut();
        memory.left_overs |= !self.contents.is_empty();
        memory.contents.extend(std::mem::take(&mut self.contents));
    }
}
