//! Updates told by what the receiver has: how little travels, and what happens when the old contents or the deltas are not right.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::transfer::varint::{decode_varint, encode_varint};

/// Something like a program: words that stay, and addresses that a linker shifts.
fn program(words: u64, shift: u64) -> Vec<u8> {
    (0..words).flat_map(|i| [noise(i, 24), (i * 40 + if i > 500 { shift } else { 0 }).to_le_bytes().to_vec()].concat()).collect()
}

fn put(store: &ObjectStore, name: &str, entries: &[NewEntry]) -> ObjectRef {
    let mut transaction = store.begin().unwrap();
    let own = ObjectId::placeholder("own");
    let object = transaction.put_entries(&name.parse().unwrap(), entries, Some(&own), &[]).unwrap();
    transaction.barrier().unwrap();
    object
}

/// More words of 32 bytes than one segment holds.
const LARGE: u64 = 132_000;

/// A version of a package: texts, a program, one of so many words under a name with its version, a new file without a base.
fn package(store: &ObjectStore, version: u64, words: u64) -> ObjectRef {
    let own = ObjectId::placeholder("own");
    let text = |i: u64| format!("module {i}\n{}\nversion = {version}\n", "some words that stay\n".repeat(20));
    let mut entries: Vec<NewEntry> = (0..50).map(|i| file(&format!("py/{i}.py"), text(i).as_bytes())).collect();
    entries.push(file("etc/own", format!("prefix = /s/{own}-package\n{}", "# and so on\n".repeat(99)).as_bytes()));
    entries.push(file("lib/module.so", &program(4000, version)));
    entries.push(file(&format!("lib/libbig.so.{version}"), &program(words, 64 * version)));
    entries
        .push(file(&format!("data/{}", ["zero", "one", "two", "three"][usize::try_from(version).unwrap()]), &noise(99 + version, 10_000)));
    put(store, "package", &entries)
}

#[test]
fn an_update_costs_a_fraction_of_what_has_changed() {
    let ((_a, from), (_b, to)) = (store(), store());
    copy(&from, &to, &[package(&from, 1, LARGE)]).1.unwrap();
    let second = package(&from, 2, LARGE);
    let (sent, received) = copy(&from, &to, std::slice::from_ref(&second));
    let stats = received.unwrap().1;
    assert_eq!(sent.unwrap(), stats);
    assert_eq!(to.verify().unwrap(), []);
    assert_eq!(to.manifest(&second).unwrap(), from.manifest(&second).unwrap());
    assert_eq!(stats.blobs_sent, 54);
    assert!(stats.bytes_raw > 4_300_000, "{stats:?}");
    assert!(stats.bytes_wire < 60_000, "{stats:?}");
}

#[test]
fn a_delta_is_made_once_for_all_hosts() {
    let (_a, from) = store();
    let first = package(&from, 1, 3000);
    let second = package(&from, 2, 3000);
    let options = TransferOptions { cache: Some(DeltaCache::default()), ..TransferOptions::default() };
    let mut wire = Vec::new();
    for _ in 0..3 {
        let (_b, to) = store();
        copy(&from, &to, std::slice::from_ref(&first)).1.unwrap();
        let ((mut from_reader, mut from_writer), (mut to_reader, mut to_writer)) = connect();
        thread::scope(|scope| {
            scope.spawn(|| receive_closure(&to, &mut to_reader, &mut to_writer).unwrap());
            let roots = std::slice::from_ref(&second);
            wire.push(send_closure(&from, roots, &options, &mut from_reader, &mut from_writer).unwrap().bytes_wire);
        });
        assert_eq!(to.verify().unwrap(), []);
    }
    let kept = options.cache.unwrap().bytes();
    assert!(kept > 100 && kept < usize::try_from(wire[0]).unwrap(), "{kept} of {wire:?}");
    assert!(wire.windows(2).all(|pair| pair[0] == pair[1]), "{wire:?}");
}

#[test]
fn what_the_receiver_has_lost_or_damaged_comes_whole() {
    for (damage, words) in [("py/7.py", 3000), ("lib/module.so", 3000), ("lib/libbig.so.1", LARGE)] {
        for lost in [false, true] {
            let ((_a, from), (_b, to)) = (store(), store());
            let first = package(&from, 1, words);
            copy(&from, &to, std::slice::from_ref(&first)).1.unwrap();
            let path = to.object_path(&first).join(damage);
            let length = path.metadata().unwrap().len();
            rewrite(&path, &noise(5, if lost { 1 } else { usize::try_from(length).unwrap() }));
            let second = package(&from, 2, words);
            let stats = copy(&from, &to, std::slice::from_ref(&second)).1.unwrap().1;
            assert_eq!(stats.blobs_sent, 54);
            assert_eq!(to.verify_object(&second).unwrap(), [], "{damage}");
        }
    }
}

#[test]
fn what_the_sender_has_damaged_is_no_base() {
    let ((_a, from), (_b, to)) = (store(), store());
    let first = package(&from, 1, LARGE);
    copy(&from, &to, std::slice::from_ref(&first)).1.unwrap();
    for damage in ["py/7.py", "lib/module.so", "lib/libbig.so.1"] {
        rewrite(&from.object_path(&first).join(damage), b"no program at all");
    }
    let second = package(&from, 2, LARGE);
    copy(&from, &to, std::slice::from_ref(&second)).1.unwrap();
    assert_eq!(to.verify().unwrap(), []);
}

#[test]
fn what_came_without_being_asked_for_is_kept_once() {
    let ((_a, from), (_b, to)) = (store(), store());
    copy(&from, &to, &[put(&from, "package", &[file("a", b"a")])]).1.unwrap();
    // Another operator's object, of which this sender knows nothing.
    put(&to, "other", &[file("b", &noise(7, 10_000))]);
    let second = put(&from, "package", &[file("a", b"a"), file("b", &noise(7, 10_000))]);
    copy(&from, &to, std::slice::from_ref(&second)).1.unwrap();
    let inode = |object: &ObjectRef| std::fs::metadata(to.object_path(object).join("b")).unwrap();
    assert_eq!(inode(&second).nlink(), 3, "the other's, this one's, and the name of the content");
}

#[test]
fn a_damaged_manifest_of_an_old_object_stops_nobody() {
    for damaged_at_sender in [true, false] {
        let ((_a, from), (_b, to)) = (store(), store());
        let first = package(&from, 1, 100);
        copy(&from, &to, std::slice::from_ref(&first)).1.unwrap();
        let second = package(&from, 2, 100);
        rewrite(&if damaged_at_sender { &from } else { &to }.manifest_path(&first.id), b"no manifest");
        copy(&from, &to, std::slice::from_ref(&second)).1.unwrap();
        assert_eq!(to.verify_object(&second).unwrap(), []);
    }
}

/// Copies `root` while `edit` changes what the sender says.
fn copy_edited(from: &ObjectStore, to: &ObjectStore, root: &ObjectRef, edit: impl Fn(Frame) -> Vec<Frame>) -> Received {
    let ((answers, mut relay_writer), (mut reader, mut writer)) = connect();
    let ((_unused, mut real_writer), (mut relay_reader, _kept)) = connect();
    thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let received = receive_closure(to, &mut reader, &mut writer);
            drop((reader, writer));
            received
        });
        scope.spawn(move || {
            let mut answers = answers;
            send_closure(from, std::slice::from_ref(root), &TransferOptions::default(), &mut answers, &mut real_writer)
        });
        while let Some(frame) = relay_reader.read().unwrap_or(None) {
            for frame in edit(frame) {
                // A receiver that is finished hears no more.
                let _ = relay_writer.write(frame.kind, &frame.payload).and_then(|()| relay_writer.flush());
            }
        }
        drop(relay_writer);
        receiver.join().unwrap()
    })
}

type Edit = fn(Frame) -> Vec<Frame>;

const PATCH: u8 = 0x0d;
const DELTA: u8 = 0x0e;

/// Index and base of a segment, and the segment.
fn segment_of(frame: &Frame) -> (u64, u64, Vec<u8>) {
    let mut rest = frame.payload.as_slice();
    (decode_varint(&mut rest).unwrap(), decode_varint(&mut rest).unwrap(), rest.to_vec())
}

fn numbered(kind: u8, numbers: &[u64], rest: &[u8]) -> Frame {
    let mut payload = Vec::new();
    for number in numbers {
        encode_varint(&mut payload, *number);
    }
    payload.extend(rest);
    Frame { kind, payload }
}

#[test]
fn hostile_deltas_are_refused_and_name_nothing() {
    let ((_a, from), (_b, to)) = (store(), store());
    let first = package(&from, 1, 3000);
    copy(&from, &to, std::slice::from_ref(&first)).1.unwrap();
    let second = package(&from, 2, 3000);
    let edit_segment: [(Edit, &str); 6] = [
        (|frame| vec![numbered(DELTA, &[9999, 0], &segment_of(&frame).2)], "not asked for"),
        (|frame| vec![numbered(DELTA, &[segment_of(&frame).0, 9999], &segment_of(&frame).2)], "does not have"),
        // The first entry is a directory.
        (|frame| vec![numbered(DELTA, &[segment_of(&frame).0, 1], &segment_of(&frame).2)], "does not have"),
        (|frame| vec![numbered(PATCH, &[1, segment_of(&frame).0, 0], b"")], "does not have"),
        (|frame| vec![Frame { payload: frame.payload[..1].to_vec(), ..frame }], "cut off"),
        (|_| vec![numbered(0x09, &[], b"")], "expected"),
    ];
    for (edit, words) in edit_segment {
        let edited = |frame: Frame| if frame.kind == DELTA && segment_of(&frame).1 != 0 { edit(frame) } else { vec![frame] };
        let error = copy_edited(&from, &to, &second, edited).unwrap_err();
        assert!(error.to_string().contains(words), "{error}: {words}");
        assert_eq!(to.objects().unwrap(), std::slice::from_ref(&first));
    }
    let edit_patch: [(Edit, &str); 6] = [
        (|_| vec![numbered(PATCH, &[4097], b"")], "contents of a patch: 4097 exceeds"),
        (|_| vec![numbered(PATCH, &[2, 1, 0], b"")], "cut off"),
        (|_| vec![numbered(PATCH, &[1, u64::MAX, 0], b"")], "not asked for"),
        (|frame| vec![frame.clone(), frame], "came already"),
        (|_| vec![numbered(PATCH, &[1, 1, 0], b"no frame at all")], "cannot decompress"),
        // A bomb: more bytes than the content has.
        (|_| vec![numbered(PATCH, &[1, 1, 0], &piece::compress_after(b"", &vec![0; 1 << 20], 3).unwrap())], "cannot decompress"),
    ];
    for (edit, words) in edit_patch {
        let edited = |frame: Frame| if frame.kind == PATCH { edit(frame) } else { vec![frame] };
        let error = copy_edited(&from, &to, &second, edited).unwrap_err();
        assert!(error.to_string().contains(words), "{error}: {words}");
        assert_eq!(to.objects().unwrap(), std::slice::from_ref(&first));
    }
    // Wrong bytes in a valid form are not fatal: the contents come again, whole.
    let damaged = |frame: Frame| match frame.kind {
        PATCH => {
            let mut frame = frame;
            *frame.payload.last_mut().unwrap() ^= 1;
            vec![frame]
        }
        _ => vec![frame],
    };
    match copy_edited(&from, &to, &second, damaged) {
        Ok(_) => assert_eq!(to.verify().unwrap(), []),
        Err(error) => assert!(matches!(error, TransferError::Decompress { .. } | TransferError::Malformed { .. }), "{error}"),
    }
}

#[test]
fn a_base_that_is_not_common_is_refused() {
    let ((_a, from), (_b, to)) = (store(), store());
    let liar = Liar::of(&from, &package(&from, 1, 3000));
    let with_base = |frame: Frame| {
        if frame.kind != 0x05 {
            return vec![frame];
        }
        let raw = piece::decompress(&frame.payload).unwrap();
        let raw = [&[1][..], &[7; 20], &raw[1..]].concat();
        vec![Frame { payload: piece::compress(&raw, 3).unwrap(), ..frame }]
    };
    let error = Liar { edit: &with_base, ..liar }.transfer(&to).unwrap_err();
    assert!(error.to_string().contains("not an object that both sides have"), "{error}");
}
