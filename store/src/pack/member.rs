//! The members of an archive: which there are, in what order, and the bytes before each content.
//!
//! Everything here follows from a manifest alone. Writer and reader share it, so there is one spelling. Headers are ustar;
//! an extended header (pax) comes before only if ustar cannot say the name, the target or the size.

use std::ops::Range;

use tar::{EntryType, Header};

use crate::object::ObjectManifest;
use crate::scan::CHUNK_BYTES;
use crate::tree::{Entry, EntryKind, Tree};
use crate::{ObjectRef, RelPath};

/// The unit of an archive, in bytes.
pub(super) const BLOCK_BYTES: usize = 512;

/// What follows the last member: two blocks of zeros.
pub(super) const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// The largest size that ustar can say: eleven octal digits.
const USTAR_SIZE_MAX: u64 = 0o777_7777_7777;

/// What stands in the header where only the extended header before it can say it.
const IN_EXTENDED_HEADER: &str = "@pax";

/// One file, directory or link of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// The name as tar has it: directories end in `/`.
    pub(super) path: String,
    pub(super) kind: MemberKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MemberKind {
    Directory,
    File { size: u64, executable: bool },
    Symlink { target: String },
}

impl Member {
    /// The first member: the manifest, `<id>.manifest`.
    pub(super) fn manifest(object: &ObjectRef, size: u64) -> Self {
        Self { path: format!("{}.manifest", object.id), kind: MemberKind::File { size, executable: false } }
    }

    /// The second member: the top of the object, `<id>-<name>/`.
    pub(super) fn top(object: &ObjectRef) -> Self {
        Self { path: format!("{object}/"), kind: MemberKind::Directory }
    }

    /// The member of an entry.
    pub(super) fn entry(object: &ObjectRef, Entry { path, kind }: &Entry) -> Self {
        let path = format!("{object}/{path}");
        match kind {
            EntryKind::Directory => Self { path: path + "/", kind: MemberKind::Directory },
            EntryKind::File { size, digest: _, executable, self_references: _ } => {
                Self { path, kind: MemberKind::File { size: *size, executable: *executable } }
            }
            EntryKind::Symlink { target, self_offsets: _ } => Self { path, kind: MemberKind::Symlink { target: target.clone() } },
        }
    }

    /// How many bytes of content follow the head, before padding.
    pub(super) const fn content_bytes(&self) -> u64 {
        match &self.kind {
            MemberKind::File { size, executable: _ } => *size,
            MemberKind::Directory | MemberKind::Symlink { .. } => 0,
        }
    }

    /// The length of the member with its head and padding, in bytes.
    fn span(&self) -> u64 {
        let size = self.content_bytes();
        (self.head().len() as u64).saturating_add(size).saturating_add(padding(size).len() as u64)
    }

    /// The blocks before the content.
    pub(super) fn head(&self) -> Vec<u8> {
        let place = ustar_name(&self.path);
        let (kind, mode, target) = match &self.kind {
            MemberKind::Directory => (EntryType::Directory, 0o555, ""),
            MemberKind::File { size: _, executable } => (EntryType::Regular, if *executable { 0o555 } else { 0o444 }, ""),
            MemberKind::Symlink { target } => (EntryType::Symlink, 0o777, target.as_str()),
        };
        let target_fits = target.is_ascii() && target.len() <= 100;
        let size = self.content_bytes();
        let mut records = Vec::new();
        if !target_fits {
            push_record(&mut records, "linkpath", target);
        }
        if place.is_none() {
            push_record(&mut records, "path", &self.path);
        }
        if size > USTAR_SIZE_MAX {
            push_record(&mut records, "size", &size.to_string());
        }
        let mut head = Vec::new();
        if !records.is_empty() {
            let length = records.len() as u64;
            head.extend_from_slice(&block(("", "PaxHeader"), EntryType::XHeader, 0o444, length, ""));
            head.extend_from_slice(&records);
            head.extend_from_slice(padding(length));
        }
        let size = if size > USTAR_SIZE_MAX { 0 } else { size };
        let target = if target_fits { target } else { IN_EXTENDED_HEADER };
        head.extend_from_slice(&block(place.unwrap_or(("", IN_EXTENDED_HEADER)), kind, mode, size, target));
        head
    }
}

/// How much of a content of which `left` bytes remain is in memory next, in bytes.
pub(super) fn chunk_bytes(left: u64) -> usize {
    usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)
}

/// The zeros that fill the last block of a content.
pub(super) fn padding(size: u64) -> &'static [u8] {
    let used = usize::try_from(size % BLOCK_BYTES as u64).unwrap_or(0);
    if used == 0 { &[] } else { &END[used..BLOCK_BYTES] }
}

/// The positions of the entries in the order of an archive: by their components, so that what is in a directory follows it without a gap.
///
/// Programs that restore modes on leaving a directory could not write into it again otherwise.
pub(super) fn in_archive_order(tree: &Tree) -> Vec<usize> {
    let mut order = Vec::with_capacity(tree.len());
    put_in_order(tree, 0..tree.len(), &mut order);
    order
}

/// Puts out what is in one directory, each directory with all that is below it. As deep as a path, 128 levels.
fn put_in_order(tree: &Tree, level: Range<usize>, order: &mut Vec<usize>) {
    // What was put out with its directory stands behind names such as `a-b`; of several such parts the last found comes first.
    let mut done: Vec<Range<usize>> = Vec::new();
    let mut position = level.start;
    while position < level.end {
        if let Some(part) = done.pop_if(|part| part.start == position) {
            position = part.end;
            continue;
        }
        order.push(position);
        let below = tree.below(position);
        if !below.is_empty() {
            put_in_order(tree, below.clone(), order);
            done.push(below);
        }
        position += 1;
    }
}

/// Whether `path` comes before `other` in an archive.
pub(super) fn precedes(path: &RelPath, other: &RelPath) -> bool {
    path.components().lt(other.components())
}

/// The length of the archive of an object, in bytes; more than any limit if it does not fit.
pub(super) fn tar_bytes(manifest: &ObjectManifest, manifest_bytes: u64) -> u64 {
    let object = &manifest.object;
    let fixed = [Member::manifest(object, manifest_bytes), Member::top(object)];
    let entries = manifest.tree.entries().map(|entry| Member::entry(object, &entry));
    fixed.into_iter().chain(entries).fold(END.len() as u64, |sum, member| sum.saturating_add(member.span()))
}

/// Splits a name into the prefix and the name of ustar, at the first `/` that does.
fn ustar_name(path: &str) -> Option<(&str, &str)> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= 100 {
        return Some(("", path));
    }
    let (prefix, name) =
        path.match_indices('/').map(|(slash, _)| (&path[..slash], &path[slash + 1..])).find(|(_, name)| name.len() <= 100)?;
    (prefix.len() <= 155 && !name.is_empty()).then_some((prefix, name))
}

/// Appends a record of an extended header: its own length in decimal, a space, `key=value`, a line feed.
fn push_record(records: &mut Vec<u8>, key: &str, value: &str) {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    // The length counts its own digits.
    while length.to_string().len() + rest.len() != length {
        length = length.to_string().len() + rest.len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.extend_from_slice(rest.as_bytes());
}

/// One header. All strings fit by now, and the size too.
fn block((prefix, name): (&str, &str), kind: EntryType, mode: u32, size: u64, target: &str) -> [u8; BLOCK_BYTES] {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(size);
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.set_device_major(0);
        ustar.set_device_minor(0);
        for (field, text) in [(&mut ustar.prefix[..], prefix), (&mut ustar.name[..], name), (&mut ustar.linkname[..], target)] {
            field[..text.len()].copy_from_slice(text.as_bytes());
        }
    }
    header.set_cksum();
    *header.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_the_first_place_that_fits() {
        let (a, b) = ("a".repeat(60), "b".repeat(60));
        assert_eq!(ustar_name("short"), Some(("", "short")));
        assert_eq!(ustar_name(&format!("{a}/{b}")), Some((a.as_str(), b.as_str())));
        assert_eq!(ustar_name(&format!("x/{a}/{b}")), Some((format!("x/{a}").as_str(), b.as_str())));
        assert_eq!(ustar_name(&format!("x/{}", "c".repeat(100))), Some(("x", "c".repeat(100).as_str())));
        for too_much in ["ü".to_owned(), "c".repeat(101), format!("x/{}/", "c".repeat(100)), format!("{}/{b}", "d/".repeat(120))] {
            assert_eq!(ustar_name(&too_much), None, "{too_much}");
        }
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for length in 0..1100 {
            let mut records = Vec::new();
            push_record(&mut records, "path", &"x".repeat(length));
            let text = String::from_utf8(records).unwrap();
            assert_eq!(text.split_once(' ').unwrap().0, text.len().to_string());
        }
    }

    #[test]
    fn sizes_beyond_eight_gibibytes_are_said_by_pax() {
        let member = |size| Member { path: "f".to_owned(), kind: MemberKind::File { size, executable: false } };
        assert_eq!(member(USTAR_SIZE_MAX).head().len(), BLOCK_BYTES);
        let head = member(USTAR_SIZE_MAX + 1).head();
        assert_eq!(head.len(), 3 * BLOCK_BYTES);
        assert!(head[BLOCK_BYTES..].starts_with(b"19 size=8589934592\n"));
        assert_eq!(member(USTAR_SIZE_MAX + 1).span(), 3 * 512 + (8 << 30));
    }
}
