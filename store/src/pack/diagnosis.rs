//! Words for archives that the writer would not have written.
//!
//! Nothing here decides anything: a head that differs from the expected one is refused whatever this finds. It looks for the most
//! telling difference.

use tar::Header;

use super::error::Problem;
use super::member::{BLOCK_BYTES, Member, MemberKind, in_archive_order, precedes};
use crate::RelPath;
use crate::object::ObjectManifest;

/// Says why the first head is not that of the manifest.
pub(super) fn explain_first(expected: &Member, found: &[u8; BLOCK_BYTES]) -> Problem {
    let header = Header::from_byte_slice(found);
    let name = name_of(header);
    if let Some(reason) = unreadable(header, found).or_else(|| foreign_kind(header)) {
        return member(&name, reason);
    }
    if name != expected.path {
        return member(&name, format!("stands where the manifest `{}` was expected", expected.path));
    }
    member(&name, properties(expected, header))
}

/// Says why a head is not the expected one, which is that of `expected` or of the extended header before it.
pub(super) fn explain(
    expected: &Member,
    expected_block: &[u8],
    found: &[u8; BLOCK_BYTES],
    previous: Option<&RelPath>,
    manifest: &ObjectManifest,
) -> Problem {
    let header = Header::from_byte_slice(found);
    let name = name_of(header);
    // A block of records, which hold no NUL, and not a head.
    if !expected_block[257..].starts_with(b"ustar\0") {
        return member(&expected.path, "has other extended headers (pax) than its name, target and size need");
    }
    if found.iter().all(|byte| *byte == 0) {
        return member(&expected.path, "is missing: the archive ends before it");
    }
    if let Some(reason) = unreadable(header, found) {
        return member(&name, reason);
    }
    let pax_expected = expected_block[156] == b'x';
    if header.as_old().linkflag[0] == b'x' && !pax_expected {
        return member(
            &expected.path,
            "has an extended header (pax) that it does not need: long attributes, owners and times cannot be stored",
        );
    }
    if pax_expected {
        return match header.as_old().linkflag[0] {
            b'x' => member(&expected.path, "has other extended headers (pax) than its name, target and size need"),
            _ => member(
                &name,
                foreign_kind(header).unwrap_or_else(|| format!("stands where the extended header (pax) of `{}` belongs", expected.path)),
            ),
        };
    }
    if let Some(reason) = foreign_kind(header).or_else(|| outside(&name)) {
        return member(&name, reason);
    }
    if name != expected.path && expected.path.trim_end_matches('/') != name.trim_end_matches('/') {
        return member(&name, misplaced(&name, &expected.path, previous, manifest));
    }
    member(&name, properties(expected, header))
}

/// Says what stands where the archive should end.
pub(super) fn explain_surplus(found: &[u8; BLOCK_BYTES], manifest: &ObjectManifest) -> Problem {
    let header = Header::from_byte_slice(found);
    let name = name_of(header);
    let reason = unreadable(header, found).or_else(|| foreign_kind(header)).or_else(|| outside(&name)).unwrap_or_else(|| {
        misplaced(
            &name,
            "the end",
            in_archive_order(&manifest.tree).last().and_then(|position| manifest.tree.path(*position)).as_ref(),
            manifest,
        )
    });
    member(&name, reason)
}

fn member(path: &str, reason: impl Into<String>) -> Problem {
    Problem::Member { path: path.chars().take(200).collect(), reason: reason.into() }
}

fn name_of(header: &Header) -> String {
    String::from_utf8_lossy(&header.path_bytes()).into_owned()
}

/// Heads that are none.
fn unreadable(header: &Header, found: &[u8; BLOCK_BYTES]) -> Option<String> {
    let sum: u32 =
        found.iter().enumerate().map(|(position, byte)| if (148..156).contains(&position) { 32 } else { u32::from(*byte) }).sum();
    if header.cksum().ok() != Some(sum) {
        return Some("has a head with a wrong checksum: damaged, or not the start of a member".to_owned());
    }
    if matches!(header.as_old().linkflag[0], b'L' | b'K') {
        return Some("is a long name in GNU's form".to_owned());
    }
    if found[257..265] != *b"ustar\x0000" {
        return Some("has a head of GNU's or another form, not of ustar's".to_owned());
    }
    None
}

/// Kinds of members that no object has.
fn foreign_kind(header: &Header) -> Option<String> {
    let kind = header.as_old().linkflag[0];
    let reason = match kind {
        b'0' | b'2' | b'5' => return None,
        b'1' => "is a hard link",
        b'3' => "is a character device",
        b'4' => "is a block device",
        b'6' => "is a fifo",
        b'7' => "is a contiguous file",
        b'S' => "is a sparse file in GNU's form",
        b'x' => "is an extended header (pax) where none belongs",
        b'g' => "is a global extended header (pax)",
        _ => return Some(format!("is of the unknown kind {kind:#04x}")),
    };
    Some(reason.to_owned())
}

/// Names that lead out of the object, here or elsewhere.
fn outside(name: &str) -> Option<String> {
    let drive = name.as_bytes().get(1) == Some(&b':') && name.starts_with(|c: char| c.is_ascii_alphabetic());
    let climbs = name.split(['/', '\\']).any(|component| component == "..");
    (name.starts_with(['/', '\\']) || drive || climbs).then(|| "leads outside of the object".to_owned())
}

/// A member in the wrong place: surplus, repeated, out of order, or after one that is missing.
fn misplaced(name: &str, expected: &str, previous: Option<&RelPath>, manifest: &ObjectManifest) -> String {
    let below = name.trim_end_matches('/').strip_prefix(&format!("{}/", manifest.object)).and_then(|path| path.parse::<RelPath>().ok());
    let Some(path) = below else {
        return format!("is not in the object: everything is below `{}/`", manifest.object);
    };
    match previous {
        Some(previous) if *previous == path => "stands there twice".to_owned(),
        Some(previous) if precedes(&path, previous) => format!("comes after `{previous}`: the members are not sorted"),
        _ if manifest.tree.get(&path).is_none() => "is not in the manifest".to_owned(),
        _ => format!("stands where `{expected}` was expected"),
    }
}

/// A member in its place that is not what it should be.
fn properties(expected: &Member, header: &Header) -> String {
    let kind = header.as_old().linkflag[0];
    let (expected_kind, expected_letter, expected_mode) = match &expected.kind {
        MemberKind::Directory => ("a directory", b'5', 0o555),
        MemberKind::File { executable: true, .. } => ("a file", b'0', 0o555),
        MemberKind::File { executable: false, .. } => ("a file", b'0', 0o444),
        MemberKind::Symlink { .. } => ("a symbolic link", b'2', 0o777),
    };
    if kind != expected_letter {
        return format!("is not {expected_kind}, as the manifest has it");
    }
    let mode = header.mode().unwrap_or(0);
    if mode & 0o7000 != 0 {
        return "has a set-user-id, set-group-id or sticky bit".to_owned();
    }
    if mode != expected_mode {
        return format!("has mode {mode:04o}, expected {expected_mode:04o}");
    }
    let named =
        header.username_bytes().is_some_and(|name| !name.is_empty()) || header.groupname_bytes().is_some_and(|name| !name.is_empty());
    if header.uid().ok() != Some(0) || header.gid().ok() != Some(0) || named {
        return "has an owner".to_owned();
    }
    if header.mtime().ok() != Some(1) {
        return "has a time other than 1".to_owned();
    }
    let size = header.entry_size().unwrap_or(u64::MAX);
    if size != expected.content_bytes() {
        return format!("has {size} bytes, the manifest has {}", expected.content_bytes());
    }
    if let MemberKind::Symlink { target } = &expected.kind
        && header.link_name_bytes().as_deref().unwrap_or_default() != target.as_bytes()
    {
        return "has another target than in the manifest".to_owned();
    }
    "has a head that says the right things in another way".to_owned()
}
