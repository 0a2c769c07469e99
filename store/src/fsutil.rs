//! The only owner of file mutation.
//!
//! Everything that creates, changes, renames or removes a file goes through here, so that every mutation point of the program
//! can be counted, failed and killed. Path functions are for small state files and are durable when they return, where they say so;
//! the content of objects is written through [`Directory`] handles, which follow no symbolic link. A failed sync is an
//! error like any other: callers discard the batch and never try the sync again, because the kernel reports a lost page once.

mod directory;
mod listing;
mod lock;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, RenameFlags, Uid};

pub use directory::{Directory, NodeKind};
pub(crate) use directory::{Listed, Node, Stamp, freeze_file, node_at, node_of, share_blocks};
pub(crate) use listing::Step;
pub use lock::{FileLock, LockError, lock_exclusive, lock_exclusive_within, lock_shared_within};

/// What could not be done to a file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} `{}`", path.display())]
pub struct FsError {
    /// What was tried, as a verb.
    pub operation: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

impl FsError {
    /// Describes a failure of `operation` on `path`.
    pub fn new(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { operation, path: path.to_owned(), source: source.into() }
    }

    /// Whether the file or a directory above it does not exist.
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Puts the operation and the path into the error of an input or output call.
pub(crate) trait IoResultExt<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, FsError>;
}

impl<T, E: Into<io::Error>> IoResultExt<T> for Result<T, E> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, FsError> {
        self.map_err(|source| FsError::new(operation, path, source))
    }
}

/// Makes a name of 128 random bits that nobody else uses.
///
/// Shape: 32 lower-case hexadecimal characters.
pub fn random_name() -> Result<String, FsError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0u8; 16];
    File::open(source).and_then(|mut file| file.read_exact(&mut bytes)).at("read", source)?;
    Ok(bytes.iter().fold(String::with_capacity(32), |mut name, byte| {
        name.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        name.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        name
    }))
}

/// Replaces or creates a file in one step; afterwards it is on disk.
///
/// A crash leaves the old content or the new. `mode` is exact, whatever the umask is.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FsError> {
    let temporary = temporary_beside(path)?;
    let written = create_file(&temporary, bytes, mode).and_then(|()| rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report; a left-over temporary file harms nobody.
        let _ = remove_file(&temporary);
    }
    written?;
    sync_dir(parent_of(path))
}

/// Creates a file that must not exist yet; afterwards it is on disk.
///
/// A crash leaves no file, or the file with any prefix of its content: journals and markers must tell. Use [`replace_file`] otherwise.
pub fn write_new_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FsError> {
    create_file(path, bytes, mode)?;
    sync_dir(parent_of(path))
}

/// Replaces or creates a symbolic link in one step; afterwards it is on disk.
pub fn replace_symlink(link: &Path, target: &Path) -> Result<(), FsError> {
    let temporary = temporary_beside(link)?;
    rustix::fs::symlink(target, &temporary).at("create the symbolic link", &temporary)?;
    let renamed = rename(&temporary, link);
    if renamed.is_err() {
        let _ = remove_file(&temporary);
    }
    renamed?;
    sync_dir(parent_of(link))
}

/// Appends to a file and waits until it is on disk; creates it with `mode` if there is none.
///
/// A crash leaves any prefix of `bytes` appended: records need an end mark.
pub fn append_durable(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FsError> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (mut file, created) = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(descriptor) => (File::from(descriptor), false),
        Err(rustix::io::Errno::NOENT) => (open_new(path, OFlags::APPEND, mode)?, true),
        Err(errno) => return Err(FsError::new("open", path, errno)),
    };
    file.write_all(bytes).at("append to", path)?;
    file.sync_all().at("sync", path)?;
    if created { sync_dir(parent_of(path)) } else { Ok(()) }
}

/// Reads a whole file of at most `bytes_max` bytes.
///
/// Errors: as [`FsError`], also for a longer file and for anything that is not a regular file.
pub fn read_file_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FsError> {
    let file = open_plain_file(path)?;
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).at("read", path)?;
    if bytes.len() as u64 > bytes_max {
        let message = format!("it is longer than {bytes_max} bytes");
        return Err(FsError::new("read", path, io::Error::new(io::ErrorKind::FileTooLarge, message)));
    }
    Ok(bytes)
}

/// Opens a regular file for reading.
///
/// Errors: as [`FsError`], also for anything that is not a regular file.
pub(crate) fn open_plain_file(path: &Path) -> Result<File, FsError> {
    // Without NONBLOCK, opening a fifo would wait for its writer.
    let descriptor = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).at("open", path)?;
    let file = File::from(descriptor);
    if !file.metadata().at("read", path)?.is_file() {
        return Err(FsError::new("read", path, io::Error::other("it is not a regular file")));
    }
    Ok(file)
}

/// As [`read_file_bounded`], but a missing file is nothing.
pub fn read_file_if_exists(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, FsError> {
    match read_file_bounded(path, bytes_max) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a directory that must not exist yet. `mode` is exact.
pub fn create_dir(path: &Path, mode: u32) -> Result<(), FsError> {
    rustix::fs::mkdir(path, Mode::from_raw_mode(mode)).at("create the directory", path)?;
    set_mode(path, mode)
}

/// Creates a directory and those above it, as far as they are missing; each one made is on disk afterwards.
///
/// `mode` is that of the directories made; existing ones are left alone.
pub fn create_dir_all(path: &Path, mode: u32) -> Result<(), FsError> {
    let mut missing = Vec::new();
    let mut level = path;
    while !level.as_os_str().is_empty() {
        match rustix::fs::stat(level) {
            Ok(_) => break,
            Err(rustix::io::Errno::NOENT) => missing.push(level),
            Err(errno) => return Err(FsError::new("inspect", level, errno)),
        }
        level = parent_of(level);
    }
    for directory in missing.into_iter().rev() {
        match create_dir(directory, mode) {
            Ok(()) => sync_dir(parent_of(directory))?,
            // Somebody else was faster.
            Err(error) if error.source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    if path.is_dir() { Ok(()) } else { Err(FsError::new("create the directory", path, io::Error::from(io::ErrorKind::NotADirectory))) }
}

/// Removes a file or symbolic link; one that does not exist is fine. Not durable by itself.
pub fn remove_file(path: &Path) -> Result<(), FsError> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(FsError::new("remove", path, errno)),
    }
}

/// Removes an empty directory. Not durable by itself.
pub fn remove_dir(path: &Path) -> Result<(), FsError> {
    rustix::fs::rmdir(path).at("remove the directory", path)
}

/// Removes a file, link or directory with all that is in it; one that does not exist is fine. Not durable by itself.
///
/// Works by directory handles and follows no symbolic link; read-only directories of our own are made writable first.
pub fn remove_tree(path: &Path) -> Result<(), FsError> {
    let Some(name) = path.file_name() else {
        return Err(FsError::new("remove", path, io::Error::from(io::ErrorKind::InvalidInput)));
    };
    match Directory::open(parent_of(path)) {
        Ok(parent) => parent.remove_tree(name),
        Err(error) if error.is_missing() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Renames; what stands at `to` is replaced. Not durable by itself: see [`sync_dir`].
pub fn rename(from: &Path, to: &Path) -> Result<(), FsError> {
    rustix::fs::rename(from, to).at("rename", from)
}

/// Renames unless something stands at `to` already; returns whether it was done. Not durable by itself.
pub fn rename_noreplace(from: &Path, to: &Path) -> Result<bool, FsError> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY) => Ok(false),
        Err(errno) => Err(FsError::new("rename", from, errno)),
    }
}

/// Lets two names change places in one step; returns whether the file system can do that. Not durable by itself.
pub(crate) fn exchange(one: &Path, two: &Path) -> Result<bool, FsError> {
    match rustix::fs::renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => Ok(false),
        Err(errno) => Err(FsError::new("exchange", two, errno)),
    }
}

/// Gives a file a second name, which must not exist yet. Not durable by itself.
pub fn hard_link(existing: &Path, new: &Path) -> Result<(), FsError> {
    rustix::fs::linkat(CWD, existing, CWD, new, AtFlags::empty()).at("link", new)
}

/// Sets the permission bits of a file or directory; follows symbolic links.
pub fn set_mode(path: &Path, mode: u32) -> Result<(), FsError> {
    rustix::fs::chmod(path, Mode::from_raw_mode(mode)).at("set the mode of", path)
}

/// Creates a directory that must not exist yet, with exactly this mode and, if given, user and group.
///
/// Works by a handle: who may write to the directory above cannot have something else changed by putting a link in its place.
pub fn create_owned_dir(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<(), FsError> {
    rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)).at("create the directory", path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).at("open the directory", path)?;
    if let Some((user, group)) = owner {
        rustix::fs::fchown(&directory, Some(Uid::from_raw(user)), Some(Gid::from_raw(group))).at("set the owner of", path)?;
    }
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode)).at("set the mode of", path)
}

/// Waits until the names in a directory are on disk.
pub fn sync_dir(path: &Path) -> Result<(), FsError> {
    File::open(path).and_then(|directory| directory.sync_all()).at("sync", path)
}

/// Waits until everything on the file system that holds `path` is on disk.
///
/// Pages that were lost before are told only if nobody has been told yet: who has written something opens a `SyncHandle` first.
pub fn sync_file_system(path: &Path) -> Result<(), FsError> {
    SyncHandle::open(path)?.sync()
}

/// Waits for what is written to a file system after the handle was opened.
///
/// The kernel tells each open handle once of pages that were lost while it was open. A handle that is opened just for the sync would not
/// learn of a loss that somebody else's sync was told of before.
#[derive(Debug)]
pub(crate) struct SyncHandle {
    directory: File,
    path: PathBuf,
}

impl SyncHandle {
    /// Opens the file system that holds the directory `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, FsError> {
        Ok(Self { directory: File::open(path).at("open", path)?, path: path.to_owned() })
    }

    /// Waits until everything on the file system is on disk. After an error it is not to be tried again.
    pub(crate) fn sync(&self) -> Result<(), FsError> {
        rustix::fs::syncfs(&self.directory).at("sync the file system of", &self.path)
    }
}

/// Whether there is room for a small file in a directory; any other obstacle counts as room.
pub(crate) fn has_room(directory: &Path) -> bool {
    // As much as the logs of an index begin with.
    let probe = vec![0; 64 << 10];
    let Ok(temporary) = temporary_beside(&directory.join("probe")) else { return true };
    let written = open_new(&temporary, OFlags::empty(), 0o600).and_then(|mut file| file.write_all(&probe).at("write", &temporary));
    let _ = remove_file(&temporary);
    !matches!(written, Err(error) if matches!(error.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

/// The magic number of the file system that holds `path`, as statfs(2) has it.
pub(crate) fn file_system_magic(path: &Path) -> Result<u32, FsError> {
    let magic = rustix::fs::statfs(path).at("inspect the file system of", path)?.f_type;
    // The type is as wide as the machine, the numbers have 32 bits.
    Ok(u32::try_from(magic & 0xffff_ffff).unwrap_or(0))
}

/// The directory that holds `path`.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// Whether a name is one under which this module makes files and links before they get theirs.
pub fn is_temporary_name(name: &str) -> bool {
    let random = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp"));
    random.is_some_and(|random| random.len() == 32 && random.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

fn temporary_beside(path: &Path) -> Result<PathBuf, FsError> {
    Ok(parent_of(path).join(format!(".{}.tmp", random_name()?)))
}

fn open_new(path: &Path, extra: OFlags, mode: u32) -> Result<File, FsError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | extra;
    // Created with no more than its final mode, so that a secret is never readable by others, not even for a moment.
    let file = File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(mode)).at("create", path)?);
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).at("set the mode of", path)?;
    Ok(file)
}

/// Creates a file that must not exist yet, for reading and writing, with mode 0600. Not durable by itself.
pub(crate) fn create_own_file(path: &Path) -> Result<File, FsError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map(File::from).at("create", path)
}

fn create_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FsError> {
    let mut file = open_new(path, OFlags::empty(), mode)?;
    file.write_all(bytes).at("write", path)?;
    file.sync_all().at("sync", path)
}

#[cfg(test)]
mod tests;
