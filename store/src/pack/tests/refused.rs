//! Everything that the writer would not have written is refused, in its own words, and leaves nothing behind.
//!
//! The rows are those of a catalogue of hostile archives: names that lead outside, links, repeated and unsorted members, foreign
//! kinds, owners, modes, long names, bombs, and damage.
//!
//! | what | where |
//! |---|---|
//! | `../x`, `/x`, `a/../../x`, `C:\x`, `\\x` | `names_kinds_and_order`; in the manifest: `manifests_that_no_object_has` |
//! | a link, then something below it; a hard link, to outside or to a link | `names_kinds_and_order`, `manifests_that_no_object_has` |
//! | a link, then a directory of its name, whose mode would go through it | `names_kinds_and_order`, `manifests_that_no_object_has` |
//! | extended headers and long names that some readers skip or believe | `heads_have_one_spelling` |
//! | an entry twice; a file, then a directory of its name | `names_kinds_and_order`, `manifests_that_no_object_has` |
//! | devices, fifos, set-id and sticky bits, extended attributes | `names_kinds_and_order`, `heads_have_one_spelling` |
//! | bombs, within and behind the frame | `bombs` |
//! | a window of 2 GiB | `frames_have_one_form` |
//! | cut off, with bytes behind the end, joined, with a wrong checksum | `frames_have_one_form`, `contents_and_what_is_between_them`, `every_flipped_bit...` |
//! | ten million entries, a hundred thousand levels | `manifests_that_no_object_has` |
//! | bytes that no signature covers | `refused_exports` |
//!
//! Names that differ in case only are two names: no file system is folded here, and a store on one that folds fails to name the second. A socket has no kind in
//! tar; zip is no form of packed objects.

use std::io::Write;

use tar::{EntryType, Header};

use super::super::frame::{Frame, check_ratio, encoder, packed_bytes_max};
use super::super::reader::Unpacking;
use super::*;
use crate::canon::Encoder;
use crate::object::object_id;
use crate::{Digest, Entry, EntryKind, ObjectName, Tree};

/// One member of an archive that is being tampered with.
#[derive(Clone)]
struct Piece {
    header: Header,
    content: Vec<u8>,
}

impl Piece {
    fn new(kind: u8, name: &str, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(0o444);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        Self { header, content: content.to_vec() }
    }

    fn change(&mut self, change: impl FnOnce(&mut Header)) {
        change(&mut self.header);
        self.header.set_cksum();
    }
}

/// A small object with a directory, files and a link, taken apart.
struct Sample {
    _directory: TempDir,
    object: ObjectRef,
    packed: Vec<u8>,
    pieces: Vec<Piece>,
    statement: Statement,
}

// The pieces in their order.
const MANIFEST: usize = 0;
const DIRECTORY: usize = 2;
const INNER: usize = 3;
const FILE: usize = 4;
const LINK: usize = 5;

fn sample() -> Sample {
    let (directory, from) = store();
    let entries =
        [file("bin/app", b"program"), file("data", b"content"), link("link", "data"), file(&format!("z{}", "z".repeat(200)), b"")];
    let object = put(&from, "sample", &entries, &[]);
    let packed = pack(&from, &object);
    let statement = Statement::of(&from.manifest(&object).unwrap());
    let pieces = pieces_of(&zstd::decode_all(&packed[..]).unwrap());
    Sample { _directory: directory, object, packed, pieces, statement }
}

fn pieces_of(mut archive: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    while archive[..512] != [0; 512] {
        let mut header = Header::new_ustar();
        header.as_mut_bytes().copy_from_slice(&archive[..512]);
        let size = usize::try_from(header.entry_size().unwrap()).unwrap();
        pieces.push(Piece { header, content: archive[512..512 + size].to_vec() });
        archive = &archive[512 + size.div_ceil(512) * 512..];
    }
    pieces
}

fn archive_of(pieces: &[Piece]) -> Vec<u8> {
    let mut archive = Vec::new();
    for Piece { header, content } in pieces {
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(content);
        archive.resize(archive.len().div_ceil(512) * 512, 0);
    }
    archive.extend_from_slice(&[0; 1024]);
    archive
}

fn compress(archive: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut encoder = encoder(&mut packed).unwrap();
    encoder.write_all(archive).unwrap();
    encoder.finish().unwrap();
    packed
}

/// Unpacks into a fresh transaction; returns the words of the refusal, if it is one.
fn unpack(to: &ObjectStore, object: &ObjectRef, packed: &[u8]) -> Result<ObjectManifest, String> {
    let mut transaction = to.begin().unwrap();
    let outcome = unpack_object(&mut transaction, object, packed);
    drop(transaction);
    outcome.map_err(|error| {
        let words = chain(&error);
        let subject = format!("the packed object `{object}` is refused: ");
        assert!(words.starts_with(&subject), "{words}");
        words[subject.len()..].to_owned()
    })
}

pub(super) fn assert_untouched(to: &ObjectStore) {
    assert!(to.objects().unwrap().is_empty());
    for directory in ["store", "trees", "blobs", "stage"] {
        assert_eq!(fs::read_dir(to.root().join(directory)).unwrap().count(), 0, "{directory}");
    }
}

type Tamper = Box<dyn Fn(&mut Vec<Piece>)>;

fn insert(position: usize, kind: u8, name: &'static str) -> Tamper {
    Box::new(move |pieces| pieces.insert(position, Piece::new(kind, name, b"")))
}

fn change(position: usize, change: impl Fn(&mut Header) + 'static) -> Tamper {
    Box::new(move |pieces| pieces[position].change(&change))
}

fn rename(position: usize, name: &'static str) -> Tamper {
    change(position, move |header| {
        header.as_old_mut().name = [0; 100];
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    })
}

#[test]
fn names_kinds_and_order() {
    let (sample, (_there, to)) = (sample(), store());
    let object = &sample.object;
    let below = |path: &str| -> &'static str { format!("{object}/{path}").leak() };
    let rows: Vec<(Tamper, &str)> = vec![
        // Names that lead outside.
        (rename(FILE, "../x"), "`../x` leads outside of the object"),
        (rename(FILE, "/x"), "`/x` leads outside of the object"),
        (rename(FILE, below("a/../../x")), "/a/../../x` leads outside of the object"),
        (rename(FILE, r"C:\x"), r"`C:\x` leads outside of the object"),
        (rename(FILE, r"\\x"), r"`\\x` leads outside of the object"),
        (rename(FILE, "elsewhere"), "`elsewhere` is not in the object: everything is below `"),
        // Links, and what hides behind them.
        (insert(FILE, b'1', below("data")), "/data` is a hard link"),
        (change(DIRECTORY, |header| header.as_old_mut().linkflag = *b"2"), "/bin/` is not a directory, as the manifest has it"),
        (change(FILE, |header| header.as_old_mut().linkflag = *b"2"), "/data` is not a file, as the manifest has it"),
        (
            change(LINK, |header| header.as_old_mut().linkname[..4].copy_from_slice(b"/etc")),
            "/link` has another target than in the manifest",
        ),
        (insert(LINK, b'5', below("data/")), "/data/` stands there twice"),
        // Repeated, unsorted, surplus, missing.
        (Box::new(|pieces| pieces.insert(FILE, pieces[INNER].clone())), "/bin/app` stands there twice"),
        (Box::new(|pieces| pieces.swap(FILE, LINK)), "/link` stands where `"),
        (Box::new(|pieces| pieces.insert(LINK, pieces[INNER].clone())), "/bin/app` comes after `data`: the members are not sorted"),
        (insert(FILE, b'0', below("c")), "/c` is not in the manifest"),
        (Box::new(|pieces| pieces.push(Piece::new(b'0', "more", b""))), "`more` is not in the object"),
        (Box::new(|pieces| pieces.truncate(LINK)), "/link` is missing: the archive ends before it"),
        (Box::new(|pieces| drop(pieces.remove(MANIFEST))), "` stands where the manifest `"),
        // Kinds that objects do not have.
        (insert(FILE, b'3', below("console")), "/console` is a character device"),
        (insert(FILE, b'4', below("disk")), "/disk` is a block device"),
        (insert(FILE, b'6', below("pipe")), "/pipe` is a fifo"),
        (insert(FILE, b'7', below("fast")), "/fast` is a contiguous file"),
        (insert(FILE, b'S', below("holes")), "/holes` is a sparse file in GNU's form"),
        (insert(FILE, b'Z', below("what")), "/what` is of the unknown kind 0x5a"),
        (insert(FILE, b'g', "pax_global_header"), "`pax_global_header` is a global extended header (pax)"),
        (insert(MANIFEST, b'g', "pax_global_header"), "`pax_global_header` is a global extended header (pax)"),
    ];
    for (tamper, expected) in rows {
        let mut pieces = sample.pieces.clone();
        tamper(&mut pieces);
        let words = unpack(&to, object, &compress(&archive_of(&pieces))).unwrap_err();
        assert!(words.contains(expected), "{words}, expected {expected}");
    }
    assert_untouched(&to);
    assert!(unpack(&to, object, &compress(&archive_of(&sample.pieces))).is_ok(), "untouched, it is fine");
}

#[test]
fn heads_have_one_spelling() {
    let (sample, (_there, to)) = (sample(), store());
    let gnu = |header: &mut Header| header.as_mut_bytes()[257..265].copy_from_slice(b"ustar  \0");
    let rows: Vec<(Tamper, &str)> = vec![
        (change(INNER, |header| header.set_mode(0o4555)), "/bin/app` has a set-user-id, set-group-id or sticky bit"),
        (change(DIRECTORY, |header| header.set_mode(0o1555)), "/bin/` has a set-user-id, set-group-id or sticky bit"),
        (change(FILE, |header| header.set_mode(0o644)), "/data` has mode 0644, expected 0444"),
        (change(INNER, |header| header.set_mode(0o444)), "/bin/app` has mode 0444, expected 0555"),
        (change(MANIFEST, |header| header.set_mode(0o555)), ".manifest` has mode 0555, expected 0444"),
        (change(FILE, |header| header.set_uid(1000)), "/data` has an owner"),
        (change(FILE, |header| header.set_gid(1000)), "/data` has an owner"),
        (change(FILE, |header| header.set_username("root").unwrap()), "/data` has an owner"),
        (change(FILE, |header| header.set_mtime(0)), "/data` has a time other than 1"),
        (change(FILE, |header| header.set_size(8)), "/data` has 8 bytes, the manifest has 7"),
        (change(FILE, |header| header.set_device_minor(1).unwrap()), "/data` has a head that says the right things in another way"),
        // The same number with a space instead of a zero, as some writers have it.
        (change(FILE, |header| header.as_old_mut().size[0] = b' '), "/data` has a head that says the right things in another way"),
        (change(FILE, gnu), "/data` has a head of GNU's or another form, not of ustar's"),
        (Box::new(|pieces| pieces[FILE].header.as_mut_bytes()[500] = 1), "/data` has a head with a wrong checksum"),
        // Long names in other forms, extended headers that are not needed, are missing or say something else.
        (insert(FILE, b'L', "././@LongLink"), "`././@LongLink` is a long name in GNU's form"),
        (insert(FILE, b'K', "././@LongLink"), "`././@LongLink` is a long name in GNU's form"),
        (
            Box::new(|pieces| pieces.insert(FILE, Piece::new(b'x', "PaxHeader", b"30 SCHILY.xattr.user.a=secret\n"))),
            "/data` has an extended header (pax) that it does not need",
        ),
        (Box::new(|pieces| pieces[LINK + 1].content[20] ^= 1), "` has other extended headers (pax) than its name, target and size need"),
        (
            Box::new(|pieces| {
                // A size that only some readers would believe.
                pieces[LINK + 1].content.extend_from_slice(b"11 size=99\n");
                let size = pieces[LINK + 1].content.len() as u64;
                pieces[LINK + 1].change(|header| header.set_size(size));
            }),
            "` has other extended headers (pax) than its name, target and size need",
        ),
        (Box::new(|pieces| drop(pieces.remove(LINK + 1))), "`@pax` stands where the extended header (pax) of `"),
    ];
    for (tamper, expected) in rows {
        let mut pieces = sample.pieces.clone();
        tamper(&mut pieces);
        let words = unpack(&to, &sample.object, &compress(&archive_of(&pieces))).unwrap_err();
        assert!(words.contains(expected), "{words}, expected {expected}");
    }
    assert_untouched(&to);
}

#[test]
fn contents_and_what_is_between_them() {
    let (sample, (_there, to)) = (sample(), store());
    let object = &sample.object;
    let archive = archive_of(&sample.pieces);
    let refused = |archive: &[u8], expected: &str| {
        let words = unpack(&to, object, &compress(archive)).unwrap_err();
        assert!(words.contains(expected), "{words}, expected {expected}");
    };
    let content = archive.windows(7).rposition(|window| window == b"content").unwrap();
    let mut changed = archive.clone();
    changed[content] = b'C';
    refused(&changed, "`data` has digest ");
    let mut padded = archive.clone();
    padded[content + 7] = 1;
    refused(&padded, "/data` is padded with other bytes than zeros");
    refused(&archive[..content + 3], "it ends within `data`");
    refused(&archive[..archive.len() - 512], "it ends within the end of the archive");
    refused(&[&archive[..], &[0; 512]].concat(), "bytes follow its end");
    // What GNU tar does unless told otherwise.
    let record = archive.len().div_ceil(10240) * 10240;
    refused(&[&archive[..], &vec![0; record - archive.len()]].concat(), "bytes follow its end");
    refused(&[&archive[..], &archive].concat(), "bytes follow its end");
    refused(&archive[..100], "it ends within the head of its manifest");
    refused(&[0; 1024], "` has a head with a wrong checksum");
    assert_untouched(&to);
}

#[test]
fn frames_have_one_form() {
    let (sample, (_there, to)) = (sample(), store());
    let object = &sample.object;
    let archive = archive_of(&sample.pieces);
    let good = &sample.packed;
    let with_window = |log: u32| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(log).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(&archive).unwrap();
        encoder.finish().unwrap()
    };
    let mut wrong_checksum = good.clone();
    *wrong_checksum.last_mut().unwrap() ^= 1;
    let mut huge_window = good.clone();
    huge_window[5] = 21 << 3;
    for (packed, expected) in [
        (with_window(27), "its compression window has 134217728 bytes, a packed object's has 8388608"),
        (with_window(20), "its compression window has 1048576 bytes, a packed object's has 8388608"),
        (huge_window, "its compression window has 2147483648 bytes, a packed object's has 8388608"),
        (zstd::encode_all(&archive[..], 3).unwrap(), "its zstd frame has other properties than a packed object's"),
        (zstd::bulk::compress(&archive, 3).unwrap(), "its zstd frame has other properties than a packed object's"),
        (archive.clone(), "it does not start as a zstd frame does"),
        (b"PK\x03\x04 and so on".to_vec(), "it does not start as a zstd frame does"),
        (b"\x1f\x8b\x08 and so on".to_vec(), "it does not start as a zstd frame does"),
        ([&[0x53, 0x2a, 0x4d, 0x18, 0, 0, 0, 0][..], good].concat(), "it does not start as a zstd frame does"),
        (Vec::new(), "it ends within its first bytes"),
        (wrong_checksum, "its compressed bytes are damaged: "),
        ([good.as_slice(), b"x"].concat(), "bytes follow its end"),
        ([good.as_slice(), good].concat(), "bytes follow its end"),
        // A skippable frame behind it is one too many as well.
        ([good.as_slice(), &[0x53, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]].concat(), "bytes follow its end"),
        ([compress(&archive[..512]), compress(&archive[512..])].concat(), "it ends within its manifest"),
    ] {
        let words = unpack(&to, object, &packed).unwrap_err();
        assert!(words.contains(expected), "{words}, expected {expected}");
    }
    assert_untouched(&to);
}

/// The bytes of a manifest whose tree has these entries: tag, path, and the target of a link.
fn manifest_bytes(object: &ObjectRef, count: u64, entries: &[(u8, &str, &str)]) -> Vec<u8> {
    let mut tree = Encoder::new("");
    tree.fixed(b"SRT1").number(count);
    for (tag, path, target) in entries {
        tree.tag(*tag).text(path);
        match tag {
            0 => {}
            3 => drop(tree.text(target).number(0)),
            _ => drop(tree.number(0).digest(&Digest::of(b"")).number(0)),
        }
    }
    let mut manifest = Encoder::new("");
    manifest.fixed(b"SRO1").fixed(object.id.as_bytes()).text(object.name.as_str()).number(0).bytes(&tree.into_bytes());
    manifest.into_bytes()
}

#[test]
fn manifests_that_no_object_has() {
    let (sample, (_there, to)) = (sample(), store());
    let object = &sample.object;
    let deep = vec!["d"; 100_000].join("/");
    for (count, entries, expected) in [
        (1, vec![(1, "../x", "")], "unusable path at `../x`"),
        (1, vec![(1, "/x", "")], "unusable path at `/x`"),
        (1, vec![(1, deep.as_str(), "")], "unusable path at `d/d/d/"),
        (2, vec![(3, "a", "/etc"), (1, "a/passwd", "")], "the parent is not listed as a directory at `a/passwd`"),
        (2, vec![(3, "a", "/etc"), (0, "a", "")], "the same path twice at `a`"),
        (2, vec![(1, "a", ""), (0, "a", "")], "the same path twice at `a`"),
        (2, vec![(1, "b", ""), (1, "a", "")], "the paths are not sorted at `a`"),
        (1, vec![(9, "a", "")], "unknown kind of entry at `a`"),
        (10_000_000, vec![(0, "a", "")], "entries of a tree: 10000000 exceeds the limit of 1048576"),
        (1_000_000, vec![(0, "a", "")], "the bytes end within a value"),
        (1, vec![(1, "a", "")], "the content does not give this id"),
    ] {
        let content = manifest_bytes(object, count, &entries);
        let mut pieces = sample.pieces.clone();
        pieces[MANIFEST].change(|header| header.set_size(content.len() as u64));
        pieces[MANIFEST].content = content;
        let words = unpack(&to, object, &compress(&archive_of(&pieces))).unwrap_err();
        assert!(words.contains(&format!("its manifest breaks the format: {expected}")), "{words}, expected {expected}");
    }
    // Sizes beyond the limits are refused before anything is reserved for them.
    let mut pieces = sample.pieces.clone();
    pieces[MANIFEST].change(|header| header.set_size(1 << 32));
    let words = unpack(&to, object, &compress(&archive_of(&pieces))).unwrap_err();
    assert_eq!(words, "bytes of the manifest: 4294967296 exceeds the limit of 268435456");
    assert_untouched(&to);
}

fn manifest_of_one_file(size: u64) -> ObjectManifest {
    let kind = EntryKind::File { size, digest: Digest::of(b"zeros"), executable: false, self_references: None };
    let tree = Tree::new(vec![Entry { path: "f".parse().unwrap(), kind }]).unwrap();
    let name: ObjectName = "bomb".parse().unwrap();
    ObjectManifest { object: ObjectRef { id: object_id(&name, &[], &tree), name }, references: Vec::new(), tree }
}

/// Unpacks a frame of so many zeros.
fn refusal_of_zeros(length: u64) -> Result<(), Problem> {
    let mut packed = Vec::new();
    let mut encoder = encoder(&mut packed).unwrap();
    std::io::copy(&mut std::io::repeat(0).take(length), &mut encoder).unwrap();
    encoder.finish().unwrap();
    let mut frame = Frame::open(&packed[..], packed_bytes_max(length))?;
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..length >> 20 {
        frame.fill(&mut buffer, || "zeros".to_owned())?;
    }
    frame.finish().map(drop)
}

#[test]
fn bombs() {
    let (_there, to) = store();
    // A valid manifest that claims more than any archive may have.
    for size in [TAR_BYTES_MAX, i64::MAX.cast_unsigned()] {
        let manifest = manifest_of_one_file(size);
        let content = manifest.encode();
        let first = Piece::new(b'0', &format!("{}.manifest", manifest.object.id), &content);
        let words = unpack(&to, &manifest.object, &compress(&archive_of(&[first]))).unwrap_err();
        assert!(words.contains("bytes of the archive: ") && words.contains("exceeds the limit of 1099511627776"), "{words}");
    }
    // Much out of little: zeros behind the end are not even counted, and inside an archive the ratio is.
    let (sample, zeros) = (sample(), vec![0; 64 << 20]);
    let words = unpack(&to, &sample.object, &compress(&[archive_of(&sample.pieces), zeros].concat())).unwrap_err();
    assert_eq!(words, "bytes follow its end");
    assert_eq!(
        refusal_of_zeros(RATIO_FREE_BYTES + (64 << 20)).unwrap_err().to_string(),
        "it unpacks to more than 1000 times its packed length"
    );
    assert!(refusal_of_zeros(RATIO_FREE_BYTES).is_ok());
    assert!(check_ratio(RATIO_FREE_BYTES, 0).is_ok());
    assert!(check_ratio(RATIO_FREE_BYTES + 1000, 1).is_ok());
    assert_eq!(check_ratio(RATIO_FREE_BYTES + 1001, 1).unwrap_err().to_string(), "it unpacks to more than 1000 times its packed length");
    // Little out of much: empty blocks without end.
    let endless = [&sample.packed[..6], &vec![0; 300_000]].concat();
    let words = chain(&Unpacking::open_stated(&endless[..], &sample.statement).err().unwrap());
    assert!(
        words.starts_with("it is longer than its content can be when packed, ") || words.starts_with("its compressed bytes are damaged"),
        "{words}"
    );
    assert_untouched(&to);
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_pack_is_refused_or_harmless() {
    let (_here, from) = store();
    let object = put(&from, "small", &[file("f", b"content"), link("l", "f")], &[]);
    let packed = pack(&from, &object);
    let manifest = from.manifest(&object).unwrap();
    let (_there, to) = store();
    let mut harmless = 0;
    for bit in 0..packed.len() * 8 {
        let mut flipped = packed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(found) = unpack(&to, &object, &flipped) {
            assert_eq!(found, manifest, "bit {bit}");
            harmless += 1;
        }
    }
    assert!(harmless < packed.len() / 4, "{harmless} bits of {} do not matter", packed.len() * 8);
    for length in 0..packed.len() {
        let words = unpack(&to, &object, &packed[..length]).unwrap_err();
        assert!(words.contains("it ends within "), "{length}: {words}");
    }
    assert_untouched(&to);
}
