//! Two stores, two threads, two pipes.

mod deltas;
mod simulation;

use std::io::{PipeReader, PipeWriter};
use std::path::Path;
use std::thread;

use tempfile::TempDir;

use super::message::{Message, decode_bits, encode_bits};
use super::piece;
use super::stores::{Objects, ReadAt, Sink, Source};
use super::told::{CommonContents, Elision, Telling, tell};
use super::*;
use crate::object::object_id;
use crate::objects::ObjectStore;
use crate::transaction::{Durable, NewEntry, NewEntryKind};
use crate::tree::{Entry, EntryKind, SelfReferences, Tree};
use crate::wire::{Frame, FrameReader, FrameWriter};
use crate::{ObjectId, StoreError};

fn store() -> (TempDir, ObjectStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(&directory.path().join("root")).unwrap();
    (directory, store)
}

fn file(path: &str, content: &[u8]) -> NewEntry {
    NewEntry { path: path.parse().unwrap(), kind: NewEntryKind::File { content: content.into(), executable: path.starts_with("bin/") } }
}

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// An application with a library that it refers to, its own path in a file and in a link, a large file and many small ones.
fn publish(store: &ObjectStore, version: &str) -> ObjectRef {
    let mut transaction = store.begin().unwrap();
    let library = [file("include/foo.h", b"header"), file("lib/libfoo.so", &noise(1, 5 << 20)), file("share/empty", b"")];
    let library = transaction.put_entries(&"libfoo".parse().unwrap(), &library, None, &[]).unwrap();
    let own = ObjectId::placeholder("app");
    let mut entries = vec![
        file("bin/app", format!("#!/x/{own}-app/lib\nexec {library}\n# {version}\n").as_bytes()),
        file("etc/other", format!("{own} {own}").as_bytes()),
        file("copy-of-foo", &noise(1, 5 << 20)),
        NewEntry { path: "var/empty".parse().unwrap(), kind: NewEntryKind::Directory },
        NewEntry { path: "self".parse().unwrap(), kind: NewEntryKind::Symlink { target: format!("/s/{own}-app/bin") } },
    ];
    entries.extend((0..200).map(|i| file(&format!("share/{i}"), format!("file {i}").as_bytes())));
    let application = transaction.put_entries(&"app".parse().unwrap(), &entries, Some(&own), std::slice::from_ref(&library)).unwrap();
    transaction.barrier().unwrap();
    application
}

type Channels = (FrameReader<PipeReader>, FrameWriter<PipeWriter>);

/// The ends of a connection between a sender and a receiver.
fn connect() -> (Channels, Channels) {
    let (to_receiver_read, to_receiver) = io::pipe().unwrap();
    let (to_sender_read, to_sender) = io::pipe().unwrap();
    let end = |read, write| (FrameReader::new(read), FrameWriter::new(write));
    (end(to_sender_read, to_receiver), end(to_receiver_read, to_sender))
}

type Received = Result<(Vec<Durable>, TransferStats), TransferError>;

fn copy(from: &ObjectStore, to: &ObjectStore, roots: &[ObjectRef]) -> (Result<TransferStats, TransferError>, Received) {
    let ((mut from_reader, mut from_writer), (mut to_reader, mut to_writer)) = connect();
    thread::scope(|scope| {
        let receiver = scope.spawn(move || receive_closure(to, &mut to_reader, &mut to_writer));
        let sent = send_closure(from, roots, &TransferOptions::default(), &mut from_reader, &mut from_writer);
        drop((from_reader, from_writer));
        (sent, receiver.join().unwrap())
    })
}

#[test]
fn only_what_is_lacking_travels() {
    let ((_a, from), (_b, to)) = (store(), store());
    let first = publish(&from, "1");
    let (sent, received) = copy(&from, &to, std::slice::from_ref(&first));
    let (roots, stats) = received.unwrap();
    assert_eq!(roots.iter().flat_map(Durable::objects).cloned().collect::<Vec<_>>(), std::slice::from_ref(&first));
    // 200 small files, the header, the empty file, the library once for both objects, two files with the own path.
    assert_eq!((stats.objects_total, stats.objects_sent, stats.blobs_sent), (2, 2, 205));
    assert_eq!(sent.unwrap(), stats);
    assert_eq!(to.verify().unwrap(), []);
    assert_eq!(to.closure(std::slice::from_ref(&first)).unwrap(), from.closure(std::slice::from_ref(&first)).unwrap());

    let second = publish(&from, "2");
    assert_ne!(first, second);
    let (_, stats) = copy(&from, &to, std::slice::from_ref(&second)).1.unwrap();
    // Both files with the own path have changed, because the path has.
    assert_eq!((stats.objects_total, stats.objects_sent, stats.blobs_sent), (2, 1, 2));
    assert!(stats.bytes_wire < 20_000, "{stats:?}");
    assert_eq!(to.verify().unwrap(), []);

    let (roots, stats) = copy(&from, &to, &[second.clone(), first]).1.unwrap();
    assert_eq!((roots.len(), stats.objects_sent, stats.blobs_sent, stats.bytes_raw), (2, 0, 0, 0));
    assert!(stats.bytes_wire < 1000, "{stats:?}");
}

#[test]
fn a_connection_serves_again_after_either_side_gave_up() {
    let ((_a, from), (_b, to)) = (store(), store());
    let application = publish(&from, "1");
    let absent = ObjectRef { id: ObjectId::placeholder("absent"), name: "absent".parse().unwrap() };
    let damaged = from.object_path(&application).join("share/7");
    let ((mut from_reader, mut from_writer), (mut to_reader, mut to_writer)) = connect();
    thread::scope(|scope| {
        let to = &to;
        let receiver =
            scope.spawn(move || -> Vec<Received> { (0..4).map(|_| receive_closure(to, &mut to_reader, &mut to_writer)).collect() });
        let mut send = |roots: &[ObjectRef]| send_closure(&from, roots, &TransferOptions::default(), &mut from_reader, &mut from_writer);
        // The sender fails before anything was said, and in the middle of the contents.
        assert!(matches!(send(&[absent]), Err(TransferError::Store(StoreError::Missing { .. }))));
        for damage in [&b"short"[..], b"FILE 7"] {
            rewrite(&damaged, damage);
            assert!(matches!(send(std::slice::from_ref(&application)), Err(TransferError::Unreadable { .. })));
        }
        rewrite(&damaged, b"file 7");
        assert_eq!(send(std::slice::from_ref(&application)).unwrap().objects_sent, 2);
        drop((from_reader, from_writer));
        let outcomes = receiver.join().unwrap();
        assert!(matches!(&outcomes[0], Err(TransferError::Peer { reason }) if reason.contains("is not in the store")), "{outcomes:?}");
        assert!(matches!(&outcomes[1], Err(TransferError::Peer { reason }) if reason.contains("share/7")), "{outcomes:?}");
        assert!(matches!(&outcomes[2], Err(TransferError::Peer { reason }) if reason.contains("share/7")), "{outcomes:?}");
        assert!(outcomes[3].is_ok(), "{outcomes:?}");
    });
    assert_eq!(to.verify().unwrap(), []);
}

/// Changes a published file, as a failing disk might.
#[expect(clippy::disallowed_methods, reason = "the test damages a store on purpose")]
fn rewrite(path: &Path, content: &[u8]) {
    std::fs::remove_file(path).or_else(|_| make_writable(path).and_then(|()| std::fs::remove_file(path))).unwrap();
    std::fs::write(path, content).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "the test damages a store on purpose")]
fn make_writable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path.parent().unwrap(), std::fs::Permissions::from_mode(0o755))
}

/// A sender that plays by the rules but for what it is given: manifests as they are told, and contents by digest.
struct Liar<'a> {
    closure: Vec<ObjectRef>,
    manifests: Vec<ObjectManifest>,
    contents: BTreeMap<Digest, Vec<u8>>,
    /// Changes what is told of an object.
    retell: &'a dyn Fn(&ObjectRef, Vec<u8>) -> Vec<u8>,
    edit: &'a dyn Fn(Frame) -> Vec<Frame>,
}

impl Liar<'_> {
    fn of(store: &ObjectStore, root: &ObjectRef) -> Self {
        let closure = store.closure(std::slice::from_ref(root)).unwrap();
        let mut contents = BTreeMap::new();
        let mut manifests = Vec::new();
        for object in &closure {
            let manifest = store.manifest(object).unwrap();
            for entry in manifest.tree.entries() {
                if let EntryKind::File { digest, .. } = &entry.kind {
                    contents.insert(*digest, std::fs::read(store.object_path(object).join(entry.path.as_path())).unwrap());
                }
            }
            manifests.push(manifest);
        }
        Self { closure, manifests, contents, retell: &|_, told| told, edit: &|frame| vec![frame] }
    }

    /// Plays the sender; gives the receiver's words, if it refused.
    fn send(&self, (mut reader, mut writer): Channels) -> Option<String> {
        let mut send = |message: Message| {
            let (kind, payload) = message.encode();
            for frame in (self.edit)(Frame { kind, payload }) {
                // A receiver that has given up may be gone already; what it said is read below.
                let _ = writer.write(frame.kind, &frame.payload).and_then(|()| writer.flush());
            }
        };
        let root = self.closure.last().unwrap().clone();
        send(Message::Offer { roots: vec![root], objects: self.closure.len() as u64 });
        let everything = vec![true; self.closure.len()];
        loop {
            match Message::decode(reader.read().ok()??).unwrap() {
                Message::Present { objects, asks } => {
                    let shared = encode_bits(&vec![false; objects.len()]);
                    send(Message::Difference { shared, objects: self.closure.len() as u64 });
                    send(Message::Closure(self.closure.clone()));
                    if !asks && objects.is_empty() {
                        let new = self.tell(&everything, true, &mut send);
                        self.send_contents(&new, &mut send);
                    }
                }
                Message::LackedObjects(bits) => {
                    let lacked = decode_bits(&bits, self.closure.len()).unwrap();
                    assert_eq!(encode_bits(&lacked), bits);
                    self.tell(&lacked, false, &mut send);
                }
                Message::LackedContents(bits) => {
                    let contents = contents_of(&self.manifests).unwrap();
                    let lacked = decode_bits(&bits, contents.len()).unwrap();
                    let lacked = contents.iter().zip(lacked).filter(|(_, lacks)| *lacks);
                    self.send_contents(&lacked.map(|(content, _)| content.digest).collect::<Vec<_>>(), &mut send);
                }
                Message::Acknowledge | Message::Refused => {}
                Message::Done(_) => return None,
                Message::Error(reason) => {
                    send(Message::Error(String::new()));
                    return Some(reason);
                }
                message @ (Message::Offer { .. }
                | Message::Difference { .. }
                | Message::Closure(_)
                | Message::Manifests(_)
                | Message::Contents(_)
                | Message::Patch(_)
                | Message::Delta(_)
                | Message::End) => {
                    panic!("{message:?}")
                }
            }
        }
    }

    /// Tells the lacked manifests; gives the digests of the new contents.
    fn tell(&self, lacked: &[bool], blind: bool, send: &mut dyn FnMut(Message)) -> Vec<Digest> {
        let elision = if blind { Elision::New(CommonContents::default()) } else { Elision::None };
        let mut telling = Telling::new(&self.closure, elision);
        let mut stream = Vec::new();
        for (position, manifest) in self.manifests.iter().enumerate().filter(|(position, _)| lacked[*position]) {
            let told = tell(&mut telling, manifest, position, None);
            stream.extend((self.retell)(&self.closure[position], told));
        }
        send(Message::Manifests(piece::compress(&stream, 3).unwrap()));
        telling.new.iter().map(|place| Content::at(&self.manifests, *place).unwrap().digest).collect()
    }

    fn send_contents(&self, digests: &[Digest], send: &mut dyn FnMut(Message)) {
        let stream: Vec<u8> = digests.iter().flat_map(|digest| self.contents[digest].iter().copied()).collect();
        for part in stream.chunks(1 << 20) {
            send(Message::Contents(piece::compress(part, 3).unwrap()));
        }
        send(Message::End);
    }

    /// Sends to an empty store, which must stay empty; returns the receiver's error.
    #[track_caller]
    fn must_be_refused(&self) -> TransferError {
        let (_directory, to) = store();
        let error = self.transfer(&to).unwrap_err();
        assert_eq!(to.objects().unwrap(), []);
        for place in ["store", "trees", "stage"] {
            assert_eq!(std::fs::read_dir(to.root().join(place)).unwrap().count(), 0, "something was left in {place}");
        }
        let blobs = walk(&to.root().join("blobs"));
        assert_eq!(blobs, Vec::<String>::new(), "a content was named");
        error
    }

    fn transfer(&self, to: &ObjectStore) -> Received {
        let (sender, (mut reader, mut writer)) = connect();
        thread::scope(|scope| {
            let receiver = scope.spawn(move || receive_closure(to, &mut reader, &mut writer));
            self.send(sender);
            receiver.join().unwrap()
        })
    }
}

fn walk(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path.display().to_string()] }).collect()
}

/// A lone object of one file, told as a liar's whole store.
fn lone(manifest: &ObjectManifest, content: &[u8]) -> Liar<'static> {
    let digest = manifest.tree.file(0).expect("a lone object is a file").digest;
    Liar {
        closure: vec![manifest.object.clone()],
        manifests: vec![manifest.clone()],
        contents: BTreeMap::from([(digest, content.to_vec())]),
        retell: &|_, told| told,
        edit: &|frame| vec![frame],
    }
}

fn lone_manifest(kind: EntryKind) -> ObjectManifest {
    let tree = Tree::new(vec![Entry { path: "f".parse().unwrap(), kind }]).unwrap();
    let name = "lone".parse().unwrap();
    let id = object_id(&name, &[], &tree);
    ObjectManifest { object: ObjectRef { id, name }, references: vec![], tree }
}

#[test]
fn an_honest_liar_is_believed() {
    let (_a, from) = store();
    let (_b, to) = store();
    Liar::of(&from, &publish(&from, "1")).transfer(&to).unwrap();
    assert_eq!(to.verify().unwrap(), []);
}

#[test]
fn changed_contents_and_manifests_are_refused() {
    let (_a, from) = store();
    let root = publish(&from, "1");

    let mut liar = Liar::of(&from, &root);
    let digest = *liar.contents.iter().find(|(_, content)| content.len() > 1 << 20).unwrap().0;
    liar.contents.get_mut(&digest).unwrap()[3 << 20] ^= 1;
    assert!(matches!(liar.must_be_refused(), TransferError::Refused { .. }));

    // A byte too few shifts the whole stream; a byte too many stands after its end.
    let small = Digest::of(b"file 199");
    let mut liar = Liar::of(&from, &root);
    liar.contents.get_mut(&small).unwrap().pop();
    assert!(matches!(liar.must_be_refused(), TransferError::Refused { .. } | TransferError::Unexpected { .. }));

    // Another object's manifest, entries that are not sorted, bytes after the end.
    let mut liar = Liar::of(&from, &root);
    liar.manifests[1] = liar.manifests[0].clone();
    assert!(matches!(liar.must_be_refused(), TransferError::Refused { .. }));
    let unsorted = |_: &ObjectRef, mut told: Vec<u8>| {
        if let Some(position) = told.windows(5).position(|window| window == b"share") {
            told[position] = b'S';
        }
        told
    };
    assert!(matches!(Liar { retell: &unsorted, ..Liar::of(&from, &root) }.must_be_refused(), TransferError::Manifest { .. }));
    let longer = |object: &ObjectRef, told: Vec<u8>| if *object == root { [told, vec![0]].concat() } else { told };
    assert!(matches!(Liar { retell: &longer, ..Liar::of(&from, &root) }.must_be_refused(), TransferError::Malformed { .. }));
}

#[test]
fn trees_that_are_unsorted_or_climb_out_are_refused() {
    let file = |content: &[u8]| EntryKind::File {
        size: content.len() as u64,
        digest: Digest::of(content),
        executable: false,
        self_references: None,
    };
    let entry = |path: &str| Entry { path: path.parse().unwrap(), kind: file(b"x") };
    let tree = Tree::new(vec![entry("aaaa"), entry("bbbb")]).unwrap();
    let name = "lone".parse().unwrap();
    let manifest = ObjectManifest { object: ObjectRef { id: object_id(&name, &[], &tree), name }, references: vec![], tree };
    let find = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).position(|window| window == text).unwrap();
    for (text, replacement) in
        [(b"aaaa", b"cccc"), (b"aaaa", b"../a"), (b"aaaa", b"/etc"), (b"aaaa", b"bbbb"), (b"aaaa", b"a/.a"), (b"aaaa", b"a/bb")]
    {
        let retell = |_: &ObjectRef, mut told: Vec<u8>| {
            let position = find(&told, text);
            told[position..position + 4].copy_from_slice(replacement);
            told
        };
        let error = Liar { retell: &retell, ..lone(&manifest, b"x") }.must_be_refused();
        assert!(matches!(error, TransferError::Manifest { .. }), "{replacement:?}: {error}");
    }
}

#[test]
fn wrong_sizes_and_false_references_to_itself_are_refused() {
    let content = format!("x{}", "0".repeat(32)).into_bytes();
    let (digest, size) = (Digest::of(&content), content.len() as u64);
    let plain = |size| EntryKind::File { size, digest, executable: false, self_references: None };
    let honest = lone_manifest(plain(size));
    let (_b, to) = store();
    lone(&honest, &content).transfer(&to).unwrap();

    // Longer than there are bytes: the stream ends too early. Shorter: bytes are left over.
    assert!(matches!(lone(&lone_manifest(plain(size + 1)), &content).must_be_refused(), TransferError::Unexpected { .. }));
    assert!(matches!(lone(&lone_manifest(plain(size - 1)), &content).must_be_refused(), TransferError::Malformed { .. }));
    // The content is known to the receiver already, so only the manifest lies.
    let error = lone(&lone_manifest(plain(size - 1)), &content).transfer(&to).unwrap_err();
    assert!(matches!(error, TransferError::Store(StoreError::Damaged { .. })), "{error:?}");

    // The id does not stand where the manifest says, though the digest without it is right.
    let own = SelfReferences { offsets: vec![1], modulo: digest };
    let lie = lone_manifest(EntryKind::File { size, digest, executable: false, self_references: Some(own) });
    assert!(matches!(lone(&lie, &content).must_be_refused(), TransferError::Store(StoreError::Damaged { .. })));
    // The id stands there, but the digest without it, on which the object's id rests, is invented.
    let own = |modulo| SelfReferences { offsets: vec![1], modulo };
    let invented = Digest::of(b"invented");
    let with = |digest| lone_manifest(EntryKind::File { size, digest, executable: false, self_references: Some(own(invented)) });
    let real = format!("x{}", with(digest).object.id).into_bytes();
    let lie = with(Digest::of(&real));
    assert!(matches!(lone(&lie, &real).must_be_refused(), TransferError::Store(StoreError::WrongContent { .. })));
}

#[test]
fn a_closure_without_what_an_object_refers_to_is_refused() {
    let (_a, from) = store();
    let root = publish(&from, "1");
    let mut liar = Liar::of(&from, &root);
    liar.closure.remove(0);
    liar.manifests.remove(0);
    let error = liar.must_be_refused();
    assert!(matches!(error, TransferError::Store(StoreError::MissingReference { .. })), "{error:?}");
}

#[test]
fn streams_that_end_or_misbehave_are_refused() {
    let (_a, from) = store();
    let root = publish(&from, "1");
    let honest = || Liar::of(&from, &root);
    // Every message in turn is lost, doubled, or of a kind that does not belong into a transfer.
    for kind in [0x01, 0x03, 0x05, 0x07, 0x09, 0x0c] {
        let doubled = |frame: Frame| if frame.kind == kind { vec![frame.clone(), frame] } else { vec![frame] };
        if kind != 0x09 {
            Liar { edit: &doubled, ..honest() }.must_be_refused();
        }
        let foreign = |frame: Frame| vec![if frame.kind == kind { Frame { kind: 0x40, ..frame } } else { frame }];
        assert!(matches!(Liar { edit: &foreign, ..honest() }.must_be_refused(), TransferError::UnknownMessage { kind: 0x40 }), "{kind:#x}");
        let shortened = |mut frame: Frame| {
            if frame.kind == kind {
                frame.payload.truncate(frame.payload.len() / 2);
            }
            vec![frame]
        };
        if kind != 0x09 {
            Liar { edit: &shortened, ..honest() }.must_be_refused();
        }
    }
}

/// Copies `root`, but the connection breaks after `count` frames from the sender.
fn copy_until_broken(from: &ObjectStore, to: &ObjectStore, root: &ObjectRef, count: usize) -> Received {
    let ((answers, mut relay_writer), (mut reader, mut writer)) = connect();
    let ((_unused, mut real_writer), (mut relay_reader, _kept)) = connect();
    thread::scope(|scope| {
        let receiver = scope.spawn(move || receive_closure(to, &mut reader, &mut writer));
        scope.spawn(move || {
            let mut answers = answers;
            send_closure(from, std::slice::from_ref(root), &TransferOptions::default(), &mut answers, &mut real_writer)
        });
        for _ in 0..count {
            let Some(frame) = relay_reader.read().unwrap() else { break };
            relay_writer.write(frame.kind, &frame.payload).and_then(|()| relay_writer.flush()).unwrap();
        }
        drop((relay_writer, relay_reader));
        receiver.join().unwrap()
    })
}

#[test]
fn a_broken_connection_names_no_object_and_costs_no_content_twice() {
    let (_a, from) = store();
    let root = publish(&from, "1");
    let mut sent_again = Vec::new();
    // Offer, difference, closure, manifests, two pieces of contents, end.
    for count in 0..=7 {
        let (_b, to) = store();
        let outcome = copy_until_broken(&from, &to, &root, count);
        assert_eq!(outcome.is_ok(), count == 7, "{outcome:?} after {count} frames");
        assert_eq!(to.objects().unwrap().len(), if count == 7 { 2 } else { 0 });
        assert_eq!(to.verify().unwrap(), []);
        let (_, stats) = copy(&from, &to, std::slice::from_ref(&root)).1.unwrap();
        assert_eq!(to.verify().unwrap(), []);
        sent_again.push(stats.blobs_sent);
    }
    // The first piece ends within the library; after the second everything is there.
    assert_eq!(sent_again, [205, 205, 205, 205, 205, 204, 0, 0]);
}
