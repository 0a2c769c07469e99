//! The works: everything that changes a store, on inputs so small that each can be run at each of its system calls.
//!
//! A work is done again after it was cut off, and must then end as if nothing had happened. Whatever it makes is given a root (a pin, a
//! result, a generation) within the work, as its users do.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sarsen_store::gc::{self, Roots};
use sarsen_store::signature::{KeyName, PublicKey, SecretKey, TrustedKeys};
use sarsen_store::wire::{FrameReader, FrameWriter};
use sarsen_store::{
    Digest, Durable, NewEntry, NewEntryKind, ObjectId, ObjectName, ObjectRef, ObjectStore, StoreError, Transaction, fsutil, pack, transfer,
};

pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;

/// More than the mebibyte up to which a file is copied at once.
const LARGE_BYTES: usize = (1 << 20) + 70_000;

/// Enough for a delta.
const MEDIUM_BYTES: usize = 100_000;

/// The store, and what the works take from outside.
pub(crate) struct Places {
    pub(crate) root: PathBuf,
    pub(crate) inputs: PathBuf,
}

impl Places {
    fn export(&self) -> PathBuf {
        self.inputs.join("export")
    }

    fn public_key(&self) -> PathBuf {
        self.inputs.join("key")
    }

    /// A link outside of the store that keeps a result.
    fn outer_link(&self, name: &str) -> PathBuf {
        self.root.with_file_name(format!("kept-{name}"))
    }
}

/// Does one piece of work.
pub(crate) fn run(work: &str, places: &Places) -> Outcome {
    match work {
        "ingest" => ingest(places, "2"),
        "ingest-again" => ingest(places, "3"),
        "import" => import(places),
        "gc" => collect(&ObjectStore::open(&places.root)?),
        "rebuild" => Ok(ObjectStore::open(&places.root)?.rebuild_index().map(drop)?),
        "receive" | "receive-here" => receive_here(places),
        "create" => publish(&ObjectStore::open(&places.root)?, "1").map(drop),
        "open" => Ok(ObjectStore::open(&places.root).map(drop)?),
        other => Err(format!("unknown work: {other}").into()),
    }
}

/// Makes a store with a generation, a pin, a result and garbage that shares contents with them, and the inputs of the works.
pub(crate) fn prepare(places: &Places) -> Outcome {
    fsutil::create_dir_all(&places.inputs, 0o755)?;
    for version in ["2", "3"] {
        write_site(&places.inputs.join(format!("site-{version}")), version)?;
    }
    let store = ObjectStore::open(&places.root)?;
    let durable = publish(&store, "1")?;
    let [library, application, tool] = durable.objects() else { return Err("three objects are published".into()) };
    add_generation(&store, "1", application)?;
    store.pin(&name("library")?, library)?;
    store.keep_result(&places.outer_link("tool"), tool)?;
    publish(&store, "garbage")?;
    let sender = ObjectStore::open(&places.inputs.join("from"))?;
    let first = publish(&sender, "1")?;
    let second = publish(&sender, "4")?;
    sender.pin(&name("sent")?, &second.objects()[1])?;
    let imported = publish(&sender, "5")?;
    let key = SecretKey::generate("test".parse::<KeyName>()?)?;
    fsutil::write_new_file(&places.public_key(), key.public().to_string().as_bytes(), 0o644)?;
    let mut export = Vec::new();
    pack::export(&sender, &[imported.objects()[1].clone(), first.objects()[1].clone()], &mut export, &[key])?;
    Ok(fsutil::write_new_file(&places.export(), &export, 0o644)?)
}

fn name(text: &str) -> Result<ObjectName, sarsen_store::InvalidObjectName> {
    text.parse()
}

fn file(path: &str, content: &[u8], executable: bool) -> Result<NewEntry, sarsen_store::InvalidPath> {
    Ok(NewEntry { path: path.parse()?, kind: NewEntryKind::File { content: content.into(), executable } })
}

/// Bytes that do not compress, the same for the same label but for a few in the middle, where the version stands.
fn noise(label: &str, version: &str, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 64);
    let mut block = Digest::of(label.as_bytes());
    while bytes.len() < length {
        block = Digest::of(block.as_bytes());
        bytes.extend_from_slice(block.as_bytes());
        if bytes.len() == length / 64 * 32 {
            bytes.extend_from_slice(version.as_bytes());
        }
    }
    bytes
}

/// Publishes `library`, `application`, which needs it and names itself, and `tool`.
fn publish(store: &ObjectStore, version: &str) -> Result<Durable, Box<dyn std::error::Error>> {
    let mut transaction = store.begin()?;
    put_three(&mut transaction, version)?;
    Ok(transaction.barrier()?)
}

fn put_three(transaction: &mut Transaction, version: &str) -> Outcome {
    let own = ObjectId::placeholder("own");
    let entries =
        [file("lib/library.so", &noise("library", version, MEDIUM_BYTES), false)?, file("lib/version", version.as_bytes(), false)?];
    let library = transaction.put_entries(&name("library")?, &entries, None, &[])?;
    let entries = [
        file("bin/application", format!("#!/{own}-application/x {version}\nuses {library}\n").as_bytes(), true)?,
        file("share/common", b"the same in all versions", false)?,
        file("share/version", version.as_bytes(), false)?,
        NewEntry { path: "share/empty".parse()?, kind: NewEntryKind::Directory },
        NewEntry { path: "self".parse()?, kind: NewEntryKind::Symlink { target: format!("/s/{own}-application/bin") } },
    ];
    transaction.put_entries(&name("application")?, &entries, Some(&own), &[library])?;
    let entries = [file("tool", b"a tool", true)?, file("version", version.as_bytes(), false)?];
    transaction.put_entries(&name("tool")?, &entries, None, &[])?;
    Ok(())
}

fn write_site(top: &Path, version: &str) -> Outcome {
    fsutil::create_dir_all(&top.join("deep/er"), 0o755)?;
    fsutil::write_new_file(&top.join("deep/er/large"), &noise("site", version, LARGE_BYTES), 0o644)?;
    fsutil::write_new_file(&top.join("deep/index"), format!("index {version}").as_bytes(), 0o644)?;
    fsutil::write_new_file(&top.join("deep/twin"), format!("index {version}").as_bytes(), 0o644)?;
    fsutil::write_new_file(&top.join("run"), b"a tool", 0o755)?;
    Ok(fsutil::replace_symlink(&top.join("link"), Path::new("deep/index"))?)
}

/// A directory, a build's output that is given away, and objects in memory, in one transaction; then roots for them.
fn ingest(places: &Places, version: &str) -> Outcome {
    let store = ObjectStore::open(&places.root)?;
    let mut transaction = store.begin()?;
    let site = transaction.put_directory(&name("site")?, &places.inputs.join(format!("site-{version}")), None, &[])?;
    let build = transaction.scratch("build")?;
    fsutil::create_dir(&build.join("out"), 0o755)?;
    fsutil::write_new_file(&build.join("out/result"), format!("built of {site}, {version}").as_bytes(), 0o644)?;
    fsutil::write_new_file(&build.join("out/tool"), b"a tool", 0o755)?;
    let output = transaction.put_directory_given_away(&name("built")?, &build.join("out"), None, &[site])?;
    put_three(&mut transaction, version)?;
    let durable = transaction.barrier()?;
    store.record_result(&Digest::of(version.as_bytes()), &[("out".to_owned(), output.clone())].into())?;
    let application = durable.objects().iter().find(|object| object.name.as_str() == "application").ok_or("the application is put")?;
    add_generation(&store, version, application)?;
    store.pin(&name("built")?, &output)?;
    Ok(store.keep_result(&places.outer_link("built"), &output)?)
}

/// What the activator does with an object that is durable.
fn add_generation(store: &ObjectStore, number: &str, object: &ObjectRef) -> Outcome {
    let directory = store.root().join("profiles/web/gen");
    fsutil::create_dir_all(&directory, 0o755)?;
    Ok(fsutil::replace_symlink(&directory.join(number), &Path::new("../../../store").join(object.to_string()))?)
}

fn import(places: &Places) -> Outcome {
    let store = ObjectStore::open(&places.root)?;
    let key = String::from_utf8(fsutil::read_file_bounded(&places.public_key(), 1000)?)?;
    let trusted = TrustedKeys::new([key.parse::<PublicKey>()?])?;
    let export = places.export();
    let file = File::open(&export).map_err(|error| fsutil::FsError::new("open", &export, error))?;
    let imported = pack::import(&store, file, &trusted)?;
    for root in &imported.roots {
        store.pin(&name(&format!("imported-{}", &root.id.to_string()[..8]))?, root)?;
    }
    Ok(())
}

/// Everything that has no root goes, however young it is.
#[expect(clippy::disallowed_methods, reason = "a program takes its own time")]
pub(crate) fn collect(store: &ObjectStore) -> Outcome {
    // A second more, because the time of an object's last change is counted in whole ones.
    let plan = gc::plan(store, &Roots::default(), SystemTime::now() + Duration::from_secs(2), Duration::ZERO)?;
    gc::execute(store, &plan)?;
    Ok(())
}

pub(crate) fn receive_from_peer(places: &Places) -> Outcome {
    receive(&ObjectStore::open(&places.root)?, io::stdin().lock(), io::stdout().lock())
}

pub(crate) fn send_to_peer(inputs: &Path) -> Outcome {
    send(inputs, io::stdin().lock(), io::stdout().lock())
}

fn receive(store: &ObjectStore, reader: impl Read, writer: impl Write) -> Outcome {
    let (durable, _) = transfer::receive_closure(store, &mut FrameReader::new(reader), &mut FrameWriter::new(writer))?;
    durable.iter().flat_map(Durable::objects).try_for_each(|root| add_generation(store, "4", root))
}

fn send(inputs: &Path, reader: impl Read, writer: impl Write) -> Outcome {
    let store = ObjectStore::open(&inputs.join("from"))?;
    let root = store.pins()?.remove("sent").ok_or_else(|| StoreError::Missing { object: "sent".to_owned() })?;
    transfer::send_closure(
        &store,
        &[root],
        &transfer::TransferOptions::default(),
        &mut FrameReader::new(reader),
        &mut FrameWriter::new(writer),
    )?;
    Ok(())
}

/// Both sides in one process.
fn receive_here(places: &Places) -> Outcome {
    let (to_receiver_read, to_receiver) = io::pipe()?;
    let (to_sender_read, to_sender) = io::pipe()?;
    let inputs = places.inputs.clone();
    let sender = std::thread::spawn(move || send(&inputs, to_sender_read, to_receiver).map_err(|error| error.to_string()));
    let received = receive(&ObjectStore::open(&places.root)?, to_receiver_read, to_sender);
    let sent = sender.join().map_err(|_| "the sender panicked")?;
    received.and(sent.map_err(Into::into))
}
