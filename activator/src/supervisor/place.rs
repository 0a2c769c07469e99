//! The development supervisor's files. Names only, except for the address of the socket.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The longest path that a socket address holds, in bytes.
///
/// Source: unix(7), `sun_path` of 108 bytes with its final zero; less for good measure.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// One profile of one installation.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) root: PathBuf,
    pub(super) profile: String,
}

impl Place {
    pub(super) fn new(root: &Path, profile: &str) -> Self {
        Self { root: root.to_owned(), profile: profile.to_owned() }
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.root.join("profiles").join(&self.profile)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory().join("supervisor.sock")
    }

    /// Held by the worker as long as it lives.
    pub(super) fn lock(&self) -> PathBuf {
        self.directory().join("supervisor.lock")
    }

    /// The number of the keeper's process.
    pub(super) fn pid_file(&self) -> PathBuf {
        self.directory().join("supervisor.pid")
    }

    /// What should run, and what does.
    pub(super) fn record(&self) -> PathBuf {
        self.directory().join("supervisor.json")
    }

    /// A trial is under way while this file exists.
    pub(super) fn pending(&self) -> PathBuf {
        self.directory().join("pending.json")
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.root.join("log").join(&self.profile)
    }

    pub(super) fn unit_log(&self, unit: &str) -> PathBuf {
        self.logs().join(format!("{unit}.log"))
    }

    pub(super) fn own_log(&self) -> PathBuf {
        self.logs().join("supervisor.log")
    }

    pub(super) fn connect(&self) -> io::Result<UnixStream> {
        self.with_socket_path(|path| UnixStream::connect(path))
    }

    pub(super) fn listen(&self) -> io::Result<UnixListener> {
        self.with_socket_path(|path| UnixListener::bind(path))
    }

    /// Gives the socket's path, or one that is short enough and leads to the same place through an open directory.
    fn with_socket_path<T>(&self, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let path = self.socket();
        if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return act(&path);
        }
        let directory = File::open(self.directory())?;
        act(&PathBuf::from(format!("/proc/self/fd/{}/supervisor.sock", directory.as_raw_fd())))
    }
}
