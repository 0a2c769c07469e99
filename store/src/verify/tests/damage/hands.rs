//! What the damage is done with: changes of files that leave no other trace than the one that is meant.

#![expect(clippy::disallowed_methods, reason = "the tests damage a store on purpose")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

use super::Kind;
use crate::ObjectRef;

/// An id as a number of SQL.
pub(super) fn blob(object: &ObjectRef) -> String {
    object.id.as_bytes().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

pub(super) fn execute(path: &Path, statement: &str) {
    assert_eq!(Connection::open(path).unwrap().execute(statement, []).unwrap(), 1, "{statement}");
}

pub(super) fn append(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Opens a file for writing whatever its mode, which stays.
pub(super) fn open_anyway(path: &Path) -> fs::File {
    let mode = fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    set_mode(path, 0o644);
    let handle = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    set_mode(path, mode);
    handle
}

pub(super) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub(super) fn set_time(path: &Path, seconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Sets the time that everything in objects has: decay does not write the time of day.
pub(super) fn calm(path: &Path) {
    set_time(path, 1);
}

/// Changes the directory above `path`, which is as before afterwards but for that.
pub(super) fn in_writable(path: &Path, change: impl FnOnce()) {
    let parent = path.parent().unwrap();
    let mode = fs::metadata(parent).unwrap().permissions().mode() & 0o7777;
    set_mode(parent, 0o755);
    change();
    set_mode(parent, mode);
    calm(parent);
}

pub(super) fn move_file(from: &Path, to: &Path) {
    let is_directory = from.symlink_metadata().unwrap().is_dir();
    let mode = from.symlink_metadata().unwrap().permissions().mode() & 0o7777;
    if is_directory {
        set_mode(from, 0o755);
    }
    in_writable(from, || in_writable(to, || fs::rename(from, to).unwrap()));
    if is_directory {
        set_mode(to, mode);
    }
}

/// Makes a file of a kind; without one, a fifo. Its time is that of everything in objects.
pub(super) fn make(path: &Path, kind: Option<Kind>) {
    match kind {
        Some(Kind::Directory) => fs::create_dir(path).unwrap(),
        Some(Kind::File) => fs::write(path, b"new").unwrap(),
        Some(Kind::Link) => symlink("elsewhere", path).unwrap(),
        None => rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap(),
    }
    calm(path);
}

pub(super) fn unmake(path: &Path) {
    if path.symlink_metadata().unwrap().is_dir() { fs::remove_dir(path).unwrap() } else { fs::remove_file(path).unwrap() }
}
