//! The project as it was read: all files that can matter, once, in memory.
//!
//! Evaluation sees only a snapshot, so that nothing changes under it and nothing outside the project can be reached.
//! Reading covers `sarsen.toml`, `sarsen.lock` and all files below `components/`, `environments/` and `lib/`; other files do
//! not exist for sarsen, and neither do `.git` and the locks of an open editor. A symbolic link is read as the file it names if that lies inside the project, and refused otherwise.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file that makes a directory a project.
pub const PROJECT_FILE: &str = "sarsen.toml";

/// The lock file beside it.
pub const LOCK_FILE: &str = "sarsen.lock";

/// The directories that are read.
const DIRECTORIES: [&str; 3] = ["components", "environments", "lib"];

/// The directories of a package that are read.
pub(crate) const PACKAGE_DIRECTORIES: [&str; 2] = ["components", "lib"];

/// The most files of a project. Larger means that something was put there that is no definition.
pub const FILES_MAX: usize = 200_000;

/// The most bytes of a project's files together: they are held in memory.
pub const BYTES_MAX: u64 = 512 << 20;

/// The deepest nesting of directories; links to directories are not followed, so only a real tree gets there.
const DEPTH_MAX: usize = 64;

/// One file of the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its bytes.
    pub content: Arc<[u8]>,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// The files of a project at one moment. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    files: Arc<BTreeMap<String, SnapshotFile>>,
}

/// A project that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no `sarsen.toml`.
    #[error("`{path}` is not a project: it has no {PROJECT_FILE}; `sarsen init` makes one")]
    NotAProject {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system said no.
    #[error("cannot read `{path}`")]
    Io {
        /// What was read.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A name that is not UTF-8.
    #[error("the name of `{path}` is not UTF-8: rename it")]
    Name {
        /// The file, shown with replacement characters.
        path: PathBuf,
    },
    /// A symbolic link that leaves the project or leads nowhere or to a directory.
    #[error("the symbolic link `{path}` does not lead to a file inside the project: copy the file instead")]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// A socket, device or pipe.
    #[error("`{path}` is neither a file nor a directory")]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// More than [`FILES_MAX`] files or [`BYTES_MAX`] bytes, or nested too deeply.
    #[error("the project is too large: more than {limit} at `{path}`; only definitions belong below components/, environments/ and lib/")]
    TooLarge {
        /// Where reading stopped.
        path: PathBuf,
        /// The limit with its unit.
        limit: &'static str,
    },
}

impl Snapshot {
    /// Reads a project.
    ///
    /// Errors: [`SnapshotError`], each naming the file.
    pub fn read(project: &Path) -> Result<Self, SnapshotError> {
        let mut reader =
            Reader { root: project.canonicalize().map_err(|source| io_error(project, source))?, files: BTreeMap::new(), bytes: 0 };
        if !project.join(PROJECT_FILE).is_file() {
            return Err(SnapshotError::NotAProject { path: project.to_owned() });
        }
        for name in [PROJECT_FILE, LOCK_FILE] {
            let path = reader.root.join(name);
            if path.symlink_metadata().is_ok() {
                reader.read_entry(&path, name.to_owned(), 0)?;
            }
        }
        for name in DIRECTORIES {
            let path = reader.root.join(name);
            if path.symlink_metadata().is_ok() {
                reader.read_entry(&path, name.to_owned(), 0)?;
            }
        }
        Ok(Self { files: Arc::new(reader.files) })
    }

    /// Makes a snapshot of texts, for tests and tools.
    pub fn from_texts<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let files =
            files.into_iter().map(|(path, text)| (path.to_owned(), SnapshotFile { content: text.as_bytes().into(), executable: false }));
        Self { files: Arc::new(files.collect()) }
    }

    /// Makes a snapshot of files that were read before.
    pub(crate) fn from_files(files: impl IntoIterator<Item = (String, SnapshotFile)>) -> Self {
        Self { files: Arc::new(files.into_iter().collect()) }
    }

    /// The same with the files of a package, below `@NAME/`.
    #[must_use]
    pub(crate) fn with_package(&self, name: &str, files: BTreeMap<String, SnapshotFile>) -> Self {
        let own = self.files.iter().map(|(path, file)| (path.clone(), file.clone()));
        Self::from_files(own.chain(files.into_iter().map(|(path, file)| (format!("@{name}/{path}"), file))))
    }

    /// The file at a path below the project directory.
    pub fn file(&self, path: &str) -> Option<&SnapshotFile> {
        self.files.get(path)
    }

    /// The text of a file, if it exists and is UTF-8.
    pub fn text(&self, path: &str) -> Option<&str> {
        std::str::from_utf8(&self.file(path)?.content).ok()
    }

    /// All files with their paths, in the order of the paths' bytes.
    pub fn files(&self) -> impl Iterator<Item = (&str, &SnapshotFile)> {
        self.files.iter().map(|(path, file)| (path.as_str(), file))
    }

    /// The files below a directory, with paths relative to it.
    pub fn files_below<'a>(&'a self, directory: &str) -> impl Iterator<Item = (&'a str, &'a SnapshotFile)> + use<'a> {
        let prefix = format!("{directory}/");
        let length = prefix.len();
        self.files
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(move |(path, file)| (&path[length..], file))
    }

    /// The names of the environments: directories of `environments/` that hold an `environment.toml`, sorted.
    pub fn environments(&self) -> Vec<&str> {
        self.files_below("environments")
            .filter_map(|(path, _)| path.strip_suffix("/environment.toml"))
            .filter(|name| !name.contains('/'))
            .collect()
    }
}

/// Reads what a package has below a directory: its `components/` and `lib/`.
///
/// Errors: [`SnapshotError`], each naming the file.
pub(crate) fn read_package(directory: &Path) -> Result<BTreeMap<String, SnapshotFile>, SnapshotError> {
    let root = directory.canonicalize().map_err(|source| io_error(directory, source))?;
    let mut reader = Reader { root, files: BTreeMap::new(), bytes: 0 };
    for name in PACKAGE_DIRECTORIES {
        let path = reader.root.join(name);
        if path.symlink_metadata().is_ok() {
            reader.read_entry(&path, name.to_owned(), 0)?;
        }
    }
    Ok(reader.files)
}

/// What stands before the paths of the package that a file belongs to, such as `@web/`; nothing for the project's own files.
pub(crate) fn home_of(path: &str) -> &str {
    let end = if path.starts_with('@') { path.find('/').map_or(0, |slash| slash + 1) } else { 0 };
    &path[..end]
}

/// How definitions name a file: `//lib/x.star`, or `@web//lib/x.star` for one of a package.
pub(crate) fn written_as(path: &str) -> String {
    let home = home_of(path);
    format!("{}//{}", home.trim_end_matches('/'), &path[home.len()..])
}

/// The project directory that `start` lies in: the nearest directory upwards with a `sarsen.toml`.
pub fn find_project(start: &Path) -> Option<PathBuf> {
    start.ancestors().find(|directory| directory.join(PROJECT_FILE).is_file()).map(Path::to_owned)
}

fn io_error(path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::Io { path: path.to_owned(), source }
}

struct Reader {
    root: PathBuf,
    files: BTreeMap<String, SnapshotFile>,
    bytes: u64,
}

impl Reader {
    fn read_directory(&mut self, path: &Path, name: &str, depth: usize) -> Result<(), SnapshotError> {
        if depth > DEPTH_MAX {
            return Err(SnapshotError::TooLarge { path: path.to_owned(), limit: "64 levels of directories" });
        }
        for entry in path.read_dir().map_err(|source| io_error(path, source))? {
            let entry = entry.map_err(|source| io_error(path, source))?;
            let below = entry.path();
            let Some(entry_name) = entry.file_name().to_str().map(str::to_owned) else {
                return Err(SnapshotError::Name { path: below });
            };
            // Emacs marks a file that is being edited with a link `.#NAME` that leads nowhere.
            if entry_name != ".git" && !entry_name.starts_with(".#") {
                self.read_entry(&below, format!("{name}/{entry_name}"), depth + 1)?;
            }
        }
        Ok(())
    }

    fn read_entry(&mut self, path: &Path, name: String, depth: usize) -> Result<(), SnapshotError> {
        let metadata = path.symlink_metadata().map_err(|source| io_error(path, source))?;
        if metadata.is_dir() {
            self.read_directory(path, &name, depth)
        } else if metadata.is_file() {
            self.read_file(path, name)
        } else if metadata.is_symlink() {
            match path.canonicalize() {
                Ok(target) if target.starts_with(&self.root) && target.is_file() => self.read_file(&target, name),
                _ => Err(SnapshotError::Link { path: path.to_owned() }),
            }
        } else {
            Err(SnapshotError::Kind { path: path.to_owned() })
        }
    }

    fn read_file(&mut self, path: &Path, name: String) -> Result<(), SnapshotError> {
        use io::Read as _;
        use std::os::unix::fs::PermissionsExt as _;

        let file = std::fs::File::open(path).map_err(|source| io_error(path, source))?;
        let executable = file.metadata().map_err(|source| io_error(path, source))?.permissions().mode() & 0o100 != 0;
        let mut content = Vec::new();
        let left = BYTES_MAX - self.bytes;
        let read = file.take(left + 1).read_to_end(&mut content).map_err(|source| io_error(path, source))?;
        self.bytes += read as u64;
        if self.bytes > BYTES_MAX {
            return Err(SnapshotError::TooLarge { path: path.to_owned(), limit: "512 MiB" });
        }
        if self.files.len() >= FILES_MAX {
            return Err(SnapshotError::TooLarge { path: path.to_owned(), limit: "200000 files" });
        }
        self.files.insert(name, SnapshotFile { content: content.into(), executable });
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests build the trees that are read")]
mod tests {
    use super::*;

    #[test]
    fn reads_what_matters_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir_all(root.join("components/a/.git")).unwrap();
        std::fs::create_dir_all(root.join("other")).unwrap();
        assert!(matches!(Snapshot::read(root), Err(SnapshotError::NotAProject { .. })));
        for (path, text) in [("sarsen.toml", "x"), ("components/a/component.star", "y"), ("components/a/.git/z", "z"), ("other/o", "o")] {
            std::fs::write(root.join(path), text).unwrap();
        }
        std::os::unix::fs::symlink("component.star", root.join("components/a/link")).unwrap();
        std::os::unix::fs::symlink("me@here.1:2", root.join("components/a/.#component.star")).unwrap();
        let snapshot = Snapshot::read(root).unwrap();
        assert_eq!(
            snapshot.files().map(|(path, _)| path).collect::<Vec<_>>(),
            ["components/a/component.star", "components/a/link", "sarsen.toml"]
        );
        assert_eq!(snapshot.text("components/a/link"), Some("y"));
        assert_eq!(find_project(&root.join("components/a")).as_deref(), Some(root));

        for target in ["/etc/passwd", "nowhere", "../a"] {
            std::fs::remove_file(root.join("components/a/link")).unwrap();
            std::os::unix::fs::symlink(target, root.join("components/a/link")).unwrap();
            assert!(matches!(Snapshot::read(root), Err(SnapshotError::Link { .. })), "{target}");
        }
        std::fs::remove_file(root.join("components/a/link")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("lib")).unwrap();
        assert!(matches!(Snapshot::read(root), Err(SnapshotError::Link { .. })));
    }
}
