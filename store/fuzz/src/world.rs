//! Two versions of a small closure, the stores that have them, and the key that signs them.
//!
//! Everything follows from constants: the objects have the same ids wherever they are made.

use std::io::Write;
use std::path::PathBuf;

use sarsen_store::signature::{PublicKey, TrustedKeys};
use sarsen_store::{NewEntry, NewEntryKind, ObjectId, ObjectRef, ObjectStore};

/// The public half of the key with which the seeds of exports are signed. The other half was thrown away.
pub const PUBLIC_KEY: &str = include_str!("../corpus/key");

/// Enough bytes for a delta between two versions, few enough for a small seed.
const PROGRAM_BYTES: usize = 20_000;

/// A store that goes with its directory.
pub struct Temporary {
    /// The store itself.
    pub store: ObjectStore,
    directory: tempfile::TempDir,
}

impl Temporary {
    /// An empty store, in memory where the machine has a place for that.
    pub fn new() -> Self {
        let memory = PathBuf::from("/dev/shm");
        let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let directory = tempfile::Builder::new().prefix("sarsen-fuzz-").tempdir_in(place).expect("a temporary directory");
        let store = ObjectStore::open(&directory.path().join("root")).expect("a new store opens");
        Self { store, directory }
    }

    /// A store with the first `versions` versions.
    pub fn with_versions(versions: u8) -> Self {
        let world = Self::new();
        for version in 1..=versions {
            put_version(&world.store, version);
        }
        world
    }

    /// Closes the store. Another connection to its index would see a file that is not the one it has locked and mapped.
    pub fn into_directory(self) -> tempfile::TempDir {
        let Self { store, directory } = self;
        drop(store);
        directory
    }

    /// The root of the store.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }
}

impl Default for Temporary {
    fn default() -> Self {
        Self::new()
    }
}

/// Compresses an archive with the properties that packed objects have: a checksum, a window of 8 MiB, no size.
///
/// # Panics
///
/// Never: memory is written.
pub fn compress(archive: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("level 1 is one");
    encoder.window_log(23).expect("a new encoder takes settings");
    encoder.include_checksum(true).expect("a new encoder takes settings");
    encoder.include_contentsize(false).expect("a new encoder takes settings");
    encoder.write_all(archive).expect("memory is written");
    encoder.finish().expect("memory is written")
}

/// The key of the seeds.
///
/// # Panics
///
/// Never: the key is a constant.
pub fn trusted() -> TrustedKeys {
    let key: PublicKey = PUBLIC_KEY.trim().parse().expect("the key of the seeds is one");
    TrustedKeys::new([key]).expect("one key is not ambiguous")
}

/// Publishes one version of a library and of an application that needs it; gives the application.
///
/// # Panics
///
/// If the store cannot be written.
pub fn put_version(store: &ObjectStore, version: u8) -> ObjectRef {
    let own = ObjectId::placeholder("own");
    let mut transaction = store.begin().expect("a transaction begins");
    let entries = [file("lib/library.so", &program(version), false), file("lib/version", &[b'0' + version], false)];
    let library = transaction.put_entries(&name("library"), &entries, None, &[]).expect("the library is put");
    let entries = [
        file("bin/application", format!("#!/{own}-application/x {version}\nuses {library}\n").as_bytes(), true),
        file("share/common", b"the same in both versions", false),
        file("share/empty", b"", false),
        NewEntry { path: path("share/none"), kind: NewEntryKind::Directory },
        NewEntry { path: path("self"), kind: NewEntryKind::Symlink { target: format!("/s/{own}-application/bin") } },
    ];
    let application = transaction.put_entries(&name("application"), &entries, Some(&own), &[library]).expect("the application is put");
    transaction.barrier().expect("the objects get their names");
    application
}

/// Bytes that do not compress, but are alike in all versions.
fn program(version: u8) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(PROGRAM_BYTES)
    .collect();
    bytes[PROGRAM_BYTES / 2] = version;
    bytes
}

fn file(at: &str, content: &[u8], executable: bool) -> NewEntry {
    NewEntry { path: path(at), kind: NewEntryKind::File { content: content.into(), executable } }
}

fn path(text: &str) -> sarsen_store::RelPath {
    text.parse().expect("the paths here are good")
}

fn name(text: &str) -> sarsen_store::ObjectName {
    text.parse().expect("the names here are good")
}
