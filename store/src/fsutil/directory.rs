//! Directory handles: work inside a directory without resolving paths again and without following symbolic links.
//!
//! A name given to a [`Directory`] is one component. Who holds the handle cannot be led elsewhere by somebody who
//! replaces a directory above or an entry below with a link.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RawDir, RawMode, RenameFlags, SeekFrom, Stat, Timespec, Timestamps};

use super::{FsError, IoResultExt};
use crate::path::DEPTH_MAX;

/// How much of a directory is listed at a time, in bytes; one name takes 24 and its length.
const LIST_BYTES: usize = 16 << 10;

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A fifo, socket or device.
    Special,
}

/// What the file system says about an entry, without following a link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    /// All twelve mode bits.
    pub(crate) mode: u32,
    /// What changes when the file does.
    pub(crate) stamp: Stamp,
    /// How many names it has.
    pub(crate) links: u64,
    /// Its owner.
    pub(crate) user: u32,
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// The length in bytes.
    pub(crate) size: u64,
    /// The last change of the content, in nanoseconds since the epoch.
    pub(crate) modified: i64,
    /// The last change of anything, in nanoseconds since the epoch; no program can set it.
    pub(crate) changed: i64,
}

/// A name in a directory, with what the directory itself says about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    pub(crate) name: OsString,
    /// Nothing where the file system does not tell.
    pub(crate) kind: Option<NodeKind>,
}

impl Node {
    fn of(stat: &Stat) -> Self {
        let kind = known_kind(FileType::from_raw_mode(stat.st_mode as RawMode)).unwrap_or(NodeKind::Special);
        let stamp = Stamp {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        };
        // The width of the link count depends on the machine.
        #[allow(clippy::useless_conversion, reason = "not useless on every architecture")]
        let links = stat.st_nlink.into();
        Self { kind, mode: stat.st_mode & 0o7777, stamp, links, user: stat.st_uid }
    }
}

/// What the type in a directory says, where the file system tells it.
pub(super) const fn known_kind(kind: FileType) -> Option<NodeKind> {
    match kind {
        FileType::Directory => Some(NodeKind::Directory),
        FileType::RegularFile => Some(NodeKind::File),
        FileType::Symlink => Some(NodeKind::Symlink),
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => Some(NodeKind::Special),
        FileType::Unknown => None,
    }
}

/// One number for a time; it wraps in the year 2262, where it still tells one time from another.
fn nanoseconds(seconds: i64, nanoseconds: impl TryInto<i64>) -> i64 {
    seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds.try_into().unwrap_or(0))
}

impl Directory {
    /// Opens the directory at `path`; a symbolic link at its end is followed, as callers name their own roots.
    pub fn open(path: &Path) -> Result<Self, FsError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(path, flags, Mode::empty()).at("open the directory", path)?;
        Ok(Self { descriptor, path: path.to_owned() })
    }

    /// Opens the directory `name` in this one; a symbolic link is refused.
    pub fn open_child(&self, name: &OsStr) -> Result<Self, FsError> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = rustix::fs::openat(&self.descriptor, name, flags, Mode::empty()).at("open the directory", &path)?;
        Ok(Self { descriptor, path })
    }

    pub(super) const fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }

    /// The path by which the directory was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names in the directory, sorted by their bytes.
    pub fn names(&self) -> Result<Vec<OsString>, FsError> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.descriptor).at("list", &self.path)? {
            let entry = entry.at("list", &self.path)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_owned()));
            }
        }
        names.sort();
        Ok(names)
    }

    /// As [`Self::names`], with the kinds as far as the directory tells them.
    pub(crate) fn listed(&self) -> Result<Vec<Listed>, FsError> {
        let mut entries = Vec::new();
        // Read through our own handle: opening it anew, as `Dir` does, costs as much as reading a directory of average size.
        rustix::fs::seek(&self.descriptor, SeekFrom::Start(0)).at("list", &self.path)?;
        let mut buffer = Vec::with_capacity(LIST_BYTES);
        let mut listing = RawDir::new(&self.descriptor, buffer.spare_capacity_mut());
        while let Some(entry) = listing.next() {
            let entry = entry.at("list", &self.path)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                entries.push(Listed { name: OsString::from_vec(name.to_owned()), kind: known_kind(entry.file_type()) });
            }
        }
        entries.sort();
        Ok(entries)
    }

    /// Shows the names in the directory as the file system gives them, without keeping them.
    pub(crate) fn visit_names(&self, mut visit: impl FnMut(&OsStr)) -> Result<(), FsError> {
        rustix::fs::seek(&self.descriptor, SeekFrom::Start(0)).at("list", &self.path)?;
        let mut buffer = Vec::with_capacity(LIST_BYTES);
        let mut listing = RawDir::new(&self.descriptor, buffer.spare_capacity_mut());
        while let Some(entry) = listing.next() {
            let entry = entry.at("list", &self.path)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                visit(OsStr::from_bytes(name));
            }
        }
        Ok(())
    }

    /// What the directory itself is.
    pub(crate) fn own_node(&self) -> Result<Node, FsError> {
        rustix::fs::fstat(&self.descriptor).map(|stat| Node::of(&stat)).at("inspect", &self.path)
    }

    /// What the entry `name` is.
    pub fn kind_of(&self, name: &OsStr) -> Result<NodeKind, FsError> {
        self.node(name).map(|node| node.kind)
    }

    pub(crate) fn node(&self, name: &OsStr) -> Result<Node, FsError> {
        rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW)
            .map(|stat| Node::of(&stat))
            .map_err(|error| FsError::new("inspect", &self.path.join(name), error))
    }

    /// Opens the file `name` for reading; a symbolic link is refused, a fifo does not block.
    pub fn open_file(&self, name: &OsStr) -> Result<File, FsError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&self.descriptor, name, flags, Mode::empty())
            .map(File::from)
            .map_err(|error| FsError::new("open", &self.path.join(name), error))
    }

    /// The target of the symbolic link `name`.
    pub fn read_link(&self, name: &OsStr) -> Result<Vec<u8>, FsError> {
        let target = rustix::fs::readlinkat(&self.descriptor, name, Vec::new()).at("read the link", &self.path.join(name))?;
        Ok(target.into_bytes())
    }

    /// Creates the directory `name`, which must not exist, with mode 0755, and opens it.
    pub(crate) fn create_child(&self, name: &OsStr) -> Result<Self, FsError> {
        rustix::fs::mkdirat(&self.descriptor, name, Mode::from_raw_mode(0o755)).at("create the directory", &self.path.join(name))?;
        self.open_child(name)
    }

    /// Creates the file `name`, which must not exist, for reading and writing, with mode 0600.
    pub(crate) fn create_file(&self, name: &OsStr) -> Result<File, FsError> {
        self.create_with_mode(name, 0o600)
    }

    /// Writes the file `name`, which must not exist, with the mode and the time of a finished object.
    pub(crate) fn write_frozen(&self, name: &OsStr, content: &[u8], executable: bool) -> Result<(), FsError> {
        let mode = if executable { 0o555 } else { 0o444 };
        let mut file = self.create_with_mode(name, mode)?;
        let path = || self.path.join(name);
        file.write_all(content).map_err(|error| FsError::new("write", &path(), error))?;
        // The mode given at creation is less the umask, which mostly leaves it as it is: asking is cheaper than setting.
        let stat = rustix::fs::fstat(&file).map_err(|error| FsError::new("inspect", &path(), error))?;
        if stat.st_mode & 0o7777 != mode {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(|error| FsError::new("set the mode of", &path(), error))?;
        }
        rustix::fs::futimens(&file, &object_times()).map_err(|error| FsError::new("set the time of", &path(), error))
    }

    fn create_with_mode(&self, name: &OsStr, mode: u32) -> Result<File, FsError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.descriptor, name, flags, Mode::from_raw_mode(mode))
            .map(File::from)
            .map_err(|error| FsError::new("create", &self.path.join(name), error))
    }

    /// Gives the file at `existing` below this directory the name `name` in `target`, which must not exist.
    pub(crate) fn link_to(&self, existing: &Path, target: &Directory, name: &OsStr) -> Result<(), FsError> {
        rustix::fs::linkat(&self.descriptor, existing, &target.descriptor, name, AtFlags::empty())
            .map_err(|error| FsError::new("link", &target.path.join(name), error))
    }

    /// Moves the file `name`, open as `file`, to `target` under the same name, unless it is on another file system or has
    /// extended attributes, which objects do not have; returns whether it was moved.
    pub(crate) fn move_plain_file(&self, name: &OsStr, file: &File, target: &Directory) -> Result<bool, FsError> {
        // The label of SELinux is on every file; the policy of the store's directory decides about it.
        let mut attributes = [0; 256];
        let length = match rustix::fs::flistxattr(file, &mut attributes) {
            Ok(length) => length,
            Err(rustix::io::Errno::NOTSUP) => 0,
            Err(_) => return Ok(false),
        };
        if attributes[..length].split(|byte| *byte == 0).any(|attribute| !attribute.is_empty() && attribute != b"security.selinux") {
            return Ok(false);
        }
        match rustix::fs::renameat_with(&self.descriptor, name, &target.descriptor, name, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::XDEV) => Ok(false),
            Err(errno) => Err(FsError::new("rename", &self.path.join(name), errno)),
        }
    }

    /// Removes the file or link `name`.
    pub(crate) fn remove_name(&self, name: &OsStr) -> Result<(), FsError> {
        rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty()).at("remove", &self.path.join(name))
    }

    /// Opens the file `name`, which we created, for reading and writing.
    pub(crate) fn open_own_file(&self, name: &OsStr) -> Result<File, FsError> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = rustix::fs::openat(&self.descriptor, name, flags, Mode::empty()).at("open", &self.path.join(name))?;
        Ok(File::from(descriptor))
    }

    /// Creates the symbolic link `name`, which must not exist.
    pub(crate) fn create_symlink(&self, name: &OsStr, target: &str) -> Result<(), FsError> {
        rustix::fs::symlinkat(target, &self.descriptor, name).at("create the symbolic link", &self.path.join(name))
    }

    /// Gives the file at `existing` the name `name` here.
    pub(crate) fn link_from(&self, existing: &Path, name: &OsStr) -> Result<(), FsError> {
        rustix::fs::linkat(rustix::fs::CWD, existing, &self.descriptor, name, AtFlags::empty()).at("link", &self.path.join(name))
    }

    /// Sets the time of the symbolic link `name` to that of all objects.
    pub(crate) fn freeze_link(&self, name: &OsStr) -> Result<(), FsError> {
        rustix::fs::utimensat(&self.descriptor, name, &object_times(), AtFlags::SYMLINK_NOFOLLOW)
            .at("set the time of", &self.path.join(name))
    }

    /// Gives the directory the mode and the time of a finished object.
    pub(crate) fn freeze(&self) -> Result<(), FsError> {
        freeze(self.descriptor.as_fd(), 0o555, &self.path)
    }

    /// Sets the permission bits of the directory.
    pub(crate) fn set_mode(&self, mode: u32) -> Result<(), FsError> {
        rustix::fs::fchmod(&self.descriptor, Mode::from_raw_mode(mode)).at("set the mode of", &self.path)
    }

    /// Removes the entry `name` with all that is in it; one that does not exist is fine.
    pub fn remove_tree(&self, name: &OsStr) -> Result<(), FsError> {
        self.remove_tree_telling(name, &|| {})
    }

    /// As [`Self::remove_tree`]; calls `removed` after each file and link.
    pub(crate) fn remove_tree_telling(&self, name: &OsStr, removed: &dyn Fn()) -> Result<(), FsError> {
        // Unlinking first spares a system call for files; a directory answers EISDIR, on some file systems EPERM.
        match rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {
                removed();
                Ok(())
            }
            Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => self.remove_directory_tree(name, 0, removed),
            Err(errno) => Err(FsError::new("remove", &self.path.join(name), errno)),
        }
    }

    fn remove_directory_tree(&self, name: &OsStr, depth: usize, removed: &dyn Fn()) -> Result<(), FsError> {
        let path = self.path.join(name);
        // A build may leave deeper trees than an object can have; four times the depth is still no danger to the stack.
        if depth > 4 * DEPTH_MAX {
            return Err(FsError::new("remove", &path, io::Error::other("it is nested too deeply")));
        }
        let child = self.open_for_removal(name)?;
        for entry in child.names()? {
            match rustix::fs::unlinkat(&child.descriptor, &entry, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => removed(),
                Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => child.remove_directory_tree(&entry, depth + 1, removed)?,
                Err(errno) => return Err(FsError::new("remove", &path.join(entry), errno)),
            }
        }
        match rustix::fs::unlinkat(&self.descriptor, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(FsError::new("remove the directory", &path, errno)),
        }
    }

    /// Opens a directory that is to be emptied: it may deny its owner to list or to change it.
    fn open_for_removal(&self, name: &OsStr) -> Result<Self, FsError> {
        match self.open_child(name) {
            Ok(child) => {
                child.set_mode(0o700)?;
                Ok(child)
            }
            Err(error) if error.source.kind() == io::ErrorKind::PermissionDenied => {
                // chmod follows links, but a link does not deny opening with NOFOLLOW this way: it answers ELOOP or ENOTDIR.
                rustix::fs::chmodat(&self.descriptor, name, Mode::from_raw_mode(0o700), AtFlags::empty())
                    .at("set the mode of", &self.path.join(name))?;
                self.open_child(name)
            }
            Err(error) => Err(error),
        }
    }
}

/// Gives an open file its final mode and the time of all objects.
pub(crate) fn freeze_file(file: &File, executable: bool, path: &Path) -> Result<(), FsError> {
    freeze(file.as_fd(), if executable { 0o555 } else { 0o444 }, path)
}

fn freeze(descriptor: impl AsFd + Copy, mode: u32, path: &Path) -> Result<(), FsError> {
    rustix::fs::fchmod(descriptor, Mode::from_raw_mode(mode)).at("set the mode of", path)?;
    rustix::fs::futimens(descriptor, &object_times()).at("set the time of", path)
}

/// One second after the epoch: zero means "unknown" to some programs.
const fn object_times() -> Timestamps {
    let time = Timespec { tv_sec: 1, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// What is at a path; a symbolic link at its end is not followed.
pub(crate) fn node_at(path: &Path) -> Result<Node, FsError> {
    rustix::fs::lstat(path).map(|stat| Node::of(&stat)).at("inspect", path)
}

/// What the file behind an open handle is.
pub(crate) fn node_of(file: &File, path: &Path) -> Result<Node, FsError> {
    rustix::fs::fstat(file).map(|stat| Node::of(&stat)).at("inspect", path)
}

/// Makes `target`, an empty file, share the blocks of `source`; returns whether the file system can.
///
/// Later writes to either leave the other as it is.
pub(crate) fn share_blocks(source: &File, target: &File) -> bool {
    rustix::fs::ioctl_ficlone(target, source).is_ok()
}
