//! Directory handles: work inside a directory without resolving paths again and without following symbolic links.
//!
//! A name given to a [`Directory`] is one component. Who holds the handle cannot be led elsewhere by somebody who
//! replaces a directory above or an entry below with a link.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RawMode, Stat, Timespec, Timestamps};

use super::{FsError, IoResultExt};
use crate::path::DEPTH_MAX;

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

impl Node {
    fn of(stat: &Stat) -> Self {
        let kind = match FileType::from_raw_mode(stat.st_mode as RawMode) {
            FileType::Directory => NodeKind::Directory,
            FileType::RegularFile => NodeKind::File,
            FileType::Symlink => NodeKind::Symlink,
            FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => NodeKind::Special,
        };
        Self { kind, mode: stat.st_mode & 0o7777 }
    }
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

    /// What the entry `name` is.
    pub fn kind_of(&self, name: &OsStr) -> Result<NodeKind, FsError> {
        self.node(name).map(|node| node.kind)
    }

    pub(crate) fn node(&self, name: &OsStr) -> Result<Node, FsError> {
        let stat = rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW).at("inspect", &self.path.join(name))?;
        Ok(Node::of(&stat))
    }

    /// Opens the file `name` for reading; a symbolic link is refused, a fifo does not block.
    pub fn open_file(&self, name: &OsStr) -> Result<File, FsError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let descriptor = rustix::fs::openat(&self.descriptor, name, flags, Mode::empty()).at("open", &self.path.join(name))?;
        Ok(File::from(descriptor))
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
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor =
            rustix::fs::openat(&self.descriptor, name, flags, Mode::from_raw_mode(0o600)).at("create", &self.path.join(name))?;
        Ok(File::from(descriptor))
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
        // Unlinking first spares a system call for files; a directory answers EISDIR, on some file systems EPERM.
        match rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => self.remove_directory_tree(name, 0),
            Err(errno) => Err(FsError::new("remove", &self.path.join(name), errno)),
        }
    }

    fn remove_directory_tree(&self, name: &OsStr, depth: usize) -> Result<(), FsError> {
        let path = self.path.join(name);
        // A build may leave deeper trees than an object can have; four times the depth is still no danger to the stack.
        if depth > 4 * DEPTH_MAX {
            return Err(FsError::new("remove", &path, io::Error::other("it is nested too deeply")));
        }
        let child = self.open_for_removal(name)?;
        for entry in child.names()? {
            match rustix::fs::unlinkat(&child.descriptor, &entry, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => child.remove_directory_tree(&entry, depth + 1)?,
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

/// What the file behind an open handle is.
pub(crate) fn node_of(file: &File, path: &Path) -> Result<Node, FsError> {
    rustix::fs::fstat(file).map(|stat| Node::of(&stat)).at("inspect", path)
}
