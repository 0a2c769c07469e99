//! Packages of components from other repositories: pinned by `git`, kept in the store by the digest of their files.
//!
//! The user's own `git` is asked, so that its credentials, proxies and mirrors count. Files are taken out of its objects one by one,
//! never through a checkout: no filter, hook or attribute of the repository or the machine changes a byte. What evaluation gets is
//! hashed each time, and must be what the lock file says. Only `components/` and `lib/` of a package are read.
#![expect(clippy::disallowed_methods, reason = "owner of the processes of git")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sarsen_store::canon::Encoder;
use sarsen_store::fsutil::{self, FsError};
use sarsen_store::{Digest, NewEntry, NewEntryKind, ObjectStore, RelPath, StoreError};

use crate::fetch;
use crate::lock::{LockedPackage, PackageRequest, Reference, find_pinned};
use crate::snapshot::{PACKAGE_DIRECTORIES, Snapshot, SnapshotError, SnapshotFile, read_package};

/// How long git may take for one command: 64 MiB and their history over 1 Mbit/s.
const GIT_TIMEOUT: Duration = Duration::from_mins(20);

/// The most files of a package: definitions, templates and sources, not a whole application.
const FILES_MAX: usize = 20_000;

/// The most bytes of a package's files together: they are held in memory, and handed to the evaluator.
const BYTES_MAX: u64 = 64 << 20;

/// The longest list of files or references, in bytes: [`FILES_MAX`] with 500 bytes each.
const LIST_BYTES_MAX: u64 = 10 << 20;

/// The longest complaint of git that is shown, in bytes.
const COMPLAINT_BYTES_MAX: u64 = 2000;

/// The tag and version of the digest of a package's files.
const TREE_DOMAIN: &str = "sarsen 2026 package tree v1";

/// The tag and version of the key under which the store knows a package.
const RESULT_DOMAIN: &str = "sarsen 2026 package v1";

/// Whether what the store lacks may be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It is fetched.
    Network,
    /// It is an error.
    Frozen,
}

/// Why a package cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// Git cannot be run.
    #[error("git cannot be run: install it on this machine (Debian: apt install git)")]
    NoGit(#[source] io::Error),
    /// Git failed.
    #[error("package `{name}`: git cannot {operation} `{url}`: {complaint}")]
    Git {
        /// The package.
        name: String,
        /// What was tried.
        operation: &'static str,
        /// The repository.
        url: String,
        /// What git said, or how it ended.
        complaint: String,
    },
    /// There is no such branch or tag.
    #[error("package `{name}`: `{url}` has no {reference}")]
    NoReference {
        /// The package.
        name: String,
        /// The repository.
        url: String,
        /// What was looked for.
        reference: Reference,
    },
    /// The repository holds what a package may not hold.
    #[error("package `{name}`: `{path}` {reason}")]
    Content {
        /// The package.
        name: String,
        /// Where.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Too much.
    #[error("package `{name}` is too large: more than {limit}; only what is below components/ and lib/ counts")]
    TooLarge {
        /// The package.
        name: String,
        /// The limit with its unit.
        limit: &'static str,
    },
    /// The repository has no `components/` and no `lib/`.
    #[error("package `{name}`: `{url}` has neither components/ nor lib/ at {revision}")]
    Empty {
        /// The package.
        name: String,
        /// The repository.
        url: String,
        /// The commit.
        revision: String,
    },
    /// The files are not those that were locked.
    #[error("package `{name}` is not what sarsen.lock says: the files from {origin} have the digest {found}, locked is {locked}")]
    Digest {
        /// The package.
        name: String,
        /// Where they come from.
        origin: String,
        /// The digest of what is there.
        found: Digest,
        /// The digest that the lock file has.
        locked: Digest,
    },
    /// It would have to be fetched.
    #[error("package `{name}` is not in the store, and nothing may be fetched with --frozen")]
    Frozen {
        /// The package.
        name: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FsError),
    /// An object cannot be read.
    #[error(transparent)]
    Read(#[from] SnapshotError),
}

type Files = BTreeMap<String, SnapshotFile>;

/// The snapshot with the files of all packages that it declares and has pinned; the rest is for evaluation to report.
///
/// Errors: the first package that cannot be had, or is not what the lock file says.
pub fn attach(
    snapshot: &Snapshot,
    project: &Path,
    access: Access,
    open_store: impl FnOnce() -> Result<ObjectStore, StoreError>,
) -> Result<Snapshot, PackageError> {
    let pinned = find_pinned(snapshot);
    let mut snapshot = snapshot.clone();
    if pinned.is_empty() {
        return Ok(snapshot);
    }
    let store = open_store()?;
    for (name, locked) in &pinned {
        let files = match read_kept(&store, locked)? {
            Some(files) => files,
            None if access == Access::Frozen => return Err(PackageError::Frozen { name: name.clone() }),
            None => fetch_package(&store, project, name, &locked.request, &locked.revision, Some(&locked.tree))?.0,
        };
        let found = digest_of(&files);
        if found != locked.tree {
            return Err(PackageError::Digest { name: name.clone(), origin: "the store".to_owned(), found, locked: locked.tree });
        }
        snapshot = snapshot.with_package(name, files);
    }
    Ok(snapshot)
}

/// Finds out what a request means now, and brings it into the store.
///
/// Errors: git's, and what a package may not hold.
pub fn resolve(store: &ObjectStore, project: &Path, name: &str, request: &PackageRequest) -> Result<LockedPackage, PackageError> {
    let revision = match &request.reference {
        Reference::Revision(revision) => revision.clone(),
        Reference::Tag(_) | Reference::Branch(_) => {
            // Nothing is published: the scratch directory goes with the transaction.
            let transaction = store.begin()?;
            Git { name, project, url: &request.git, scratch: transaction.scratch("git")? }.find(&request.reference)?
        }
    };
    let (_, tree) = fetch_package(store, project, name, request, &revision, None)?;
    Ok(LockedPackage { request: request.clone(), revision, tree })
}

/// The digest of a package's files: of paths, executable bits and contents, in the order of the paths.
fn digest_of(files: &Files) -> Digest {
    let mut encoder = Encoder::new(TREE_DOMAIN);
    encoder.count(files.len());
    for (path, file) in files {
        encoder.text(path).tag(u8::from(file.executable)).digest(&Digest::of(&file.content));
    }
    encoder.finish()
}

fn result_key(tree: &Digest) -> Digest {
    Encoder::new(RESULT_DOMAIN).digest(tree).finish()
}

/// The files of a package as the store has them, if it has them.
fn read_kept(store: &ObjectStore, locked: &LockedPackage) -> Result<Option<Files>, PackageError> {
    let Some(outputs) = store.result(&result_key(&locked.tree))? else { return Ok(None) };
    let Some(object) = outputs.get("out") else { return Ok(None) };
    Ok(Some(read_package(&store.object_path(object))?))
}

/// Fetches a commit and publishes its files; with `wanted`, only if they are these.
fn fetch_package(
    store: &ObjectStore,
    project: &Path,
    name: &str,
    request: &PackageRequest,
    revision: &str,
    wanted: Option<&Digest>,
) -> Result<(Files, Digest), PackageError> {
    let mut transaction = store.begin()?;
    let git = Git { name, project, url: &request.git, scratch: transaction.scratch("git")? };
    git.fetch(revision, &request.reference)?;
    let files = git.read(revision)?;
    let found = digest_of(&files);
    if let Some(locked) = wanted.filter(|wanted| **wanted != found) {
        let origin = format!("`{}` at {revision}", request.git);
        return Err(PackageError::Digest { name: name.to_owned(), origin, found, locked: *locked });
    }
    let entries: Vec<NewEntry> = files.iter().filter_map(|(path, file)| Some(entry(path.parse().ok()?, file))).collect();
    let object_name = format!("package-{name}").parse().map_err(|_| git.content(name, "cannot be the name of an object"))?;
    let object = transaction.put_entries(&object_name, &entries, None, &[])?;
    let _published = transaction.barrier()?;
    store.record_result(&result_key(&found), &BTreeMap::from([("out".to_owned(), object)]))?;
    Ok((files, found))
}

fn entry(path: RelPath, file: &SnapshotFile) -> NewEntry {
    NewEntry { path, kind: NewEntryKind::File { content: file.content.clone(), executable: file.executable } }
}

/// One repository of one package.
struct Git<'a> {
    name: &'a str,
    project: &'a Path,
    url: &'a str,
    /// An empty directory.
    scratch: PathBuf,
}

impl Git<'_> {
    /// The commit of a branch or tag.
    fn find(&self, reference: &Reference) -> Result<String, PackageError> {
        let full = full_name(reference);
        let peeled = format!("{full}^{{}}");
        let output = self.run("ask", &["ls-remote", "--", self.url, &full, &peeled], None, LIST_BYTES_MAX)?;
        let text = String::from_utf8_lossy(&output);
        let find = |wanted: &str| {
            let line = text.lines().filter_map(|line| line.split_once('\t')).find(|(_, name)| *name == wanted);
            line.map(|(revision, _)| revision.to_owned()).filter(|revision| crate::lock::is_revision(revision))
        };
        find(&peeled).or_else(|| find(&full)).ok_or_else(|| PackageError::NoReference {
            name: self.name.to_owned(),
            url: self.url.to_owned(),
            reference: reference.clone(),
        })
    }

    /// Brings a commit into the scratch directory.
    fn fetch(&self, revision: &str, reference: &Reference) -> Result<(), PackageError> {
        let format = if revision.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
        self.run("prepare for", &["init", "--quiet", "--bare", format, "--template="], None, LIST_BYTES_MAX)?;
        let fetch = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
        let alone = self.run("fetch from", &[&fetch[..], &["--depth=1", "--", self.url, revision]].concat(), None, LIST_BYTES_MAX);
        let Err(refused) = alone else { return Ok(()) };
        // Old servers give only what has a name.
        let named = match reference {
            Reference::Revision(_) => "+refs/heads/*:refs/remotes/origin/*".to_owned(),
            Reference::Tag(_) | Reference::Branch(_) => full_name(reference),
        };
        self.run("fetch from", &[&fetch[..], &["--", self.url, &named]].concat(), None, LIST_BYTES_MAX)?;
        let commit = format!("{revision}^{{commit}}");
        self.run("find the commit in", &["cat-file", "-e", &commit], None, LIST_BYTES_MAX).map(drop).map_err(|_| refused)
    }

    /// The files of a commit.
    fn read(&self, revision: &str) -> Result<Files, PackageError> {
        let arguments = [&["ls-tree", "-r", "-l", "-z", "--full-tree", revision, "--"], &PACKAGE_DIRECTORIES[..]].concat();
        let list = self.run("list the files of", &arguments, None, LIST_BYTES_MAX)?;
        let mut listed = Vec::new();
        let mut bytes = 0u64;
        for line in list.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
            let item = self.parse_item(line)?;
            bytes = bytes.saturating_add(item.size_bytes);
            listed.push(item);
            if listed.len() > FILES_MAX {
                return Err(PackageError::TooLarge { name: self.name.to_owned(), limit: "20000 files" });
            }
            if bytes > BYTES_MAX {
                return Err(PackageError::TooLarge { name: self.name.to_owned(), limit: "64 MiB" });
            }
        }
        if listed.is_empty() {
            let (name, url) = (self.name.to_owned(), self.url.to_owned());
            return Err(PackageError::Empty { name, url, revision: revision.to_owned() });
        }
        let wanted: String = listed.iter().map(|item| item.object.clone() + "\n").collect();
        // Each content has a line before it that is shorter than 200 bytes, and one byte behind it.
        let output = self.run("read", &["cat-file", "--batch"], Some(wanted.as_bytes()), bytes + 200 * listed.len() as u64)?;
        self.split(&output, listed)
    }

    fn parse_item(&self, line: &[u8]) -> Result<Item, PackageError> {
        let line = std::str::from_utf8(line).map_err(|_| self.content(&String::from_utf8_lossy(line), "has a name that is not UTF-8"))?;
        let (head, path) = line.split_once('\t').ok_or_else(|| self.content(line, "is not understood"))?;
        let mut words = head.split_whitespace();
        let (mode, object, size) = (words.next(), words.nth(1), words.next());
        let executable = match mode {
            Some("100644" | "100664") => false,
            Some("100755") => true,
            Some("120000") => return Err(self.content(path, "is a symbolic link, which packages cannot have")),
            Some("160000") => return Err(self.content(path, "is a submodule, which packages cannot have")),
            _ => return Err(self.content(path, "is neither a file nor a directory")),
        };
        if path.parse::<RelPath>().is_err() {
            return Err(self.content(path, "cannot be the name of a file"));
        }
        let size_bytes = size.and_then(|size| size.parse().ok()).ok_or_else(|| self.content(path, "has no size"))?;
        Ok(Item { path: path.to_owned(), object: object.unwrap_or_default().to_owned(), size_bytes, executable })
    }

    /// Takes the contents apart: `<object> blob <size>`, the content, a line feed.
    fn split(&self, output: &[u8], listed: Vec<Item>) -> Result<Files, PackageError> {
        let mut rest = output;
        let mut files = BTreeMap::new();
        for item in listed {
            let head = format!("{} blob {}\n", item.object, item.size_bytes);
            let size = usize::try_from(item.size_bytes).unwrap_or(usize::MAX);
            let content = rest.strip_prefix(head.as_bytes()).filter(|rest| rest.len() > size);
            let Some(content) = content else { return Err(self.content(&item.path, "cannot be read from the repository")) };
            files.insert(item.path, SnapshotFile { content: content[..size].into(), executable: item.executable });
            rest = &content[size + 1..];
        }
        Ok(files)
    }

    fn content(&self, path: &str, reason: &'static str) -> PackageError {
        PackageError::Content { name: self.name.to_owned(), path: path.to_owned(), reason }
    }

    /// Runs git in the project directory, with the scratch directory as its repository.
    fn run(&self, operation: &'static str, arguments: &[&str], input: Option<&[u8]>, bytes_max: u64) -> Result<Vec<u8>, PackageError> {
        let errors = self.scratch.join("errors");
        let said = File::create(&errors).map_err(|error| FsError::new("write", &errors, error))?;
        let stdin = match input {
            None => Stdio::null(),
            Some(bytes) => {
                let path = self.scratch.join("input");
                fsutil::replace_file(&path, bytes, 0o600)?;
                File::open(&path).map_err(|error| FsError::new("read", &path, error))?.into()
            }
        };
        let (reader, writer) = io::pipe().map_err(PackageError::NoGit)?;
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(self.scratch.join("repository"));
        // Some transports run programs that the URL names; nothing is to start work that outlives the command.
        command.args(["-c", "protocol.ext.allow=never", "-c", "gc.auto=0", "-c", "maintenance.auto=false"]).args(arguments);
        for variable in OWN_VARIABLES {
            command.env_remove(variable);
        }
        // Nobody is there to answer, and messages are shown.
        command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C").current_dir(self.project);
        command.stdin(stdin).stdout(writer).stderr(said);
        let read = move || {
            let mut output = Vec::new();
            reader.take(bytes_max + 1).read_to_end(&mut output).map(|_| output)
        };
        let (ending, output) = fetch::run(command, GIT_TIMEOUT, read).map_err(PackageError::NoGit)?;
        if output.len() as u64 > bytes_max {
            return Err(PackageError::TooLarge {
                name: self.name.to_owned(),
                limit: "10 MiB of names, or a size that git did not announce",
            });
        }
        match ending {
            None => Ok(output),
            Some(ending) => {
                let complaint = complaint(&errors).unwrap_or(ending);
                Err(PackageError::Git { name: self.name.to_owned(), operation, url: self.url.to_owned(), complaint })
            }
        }
    }
}

/// What would lead git to another repository than the one that it is told.
const OWN_VARIABLES: [&str; 7] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
];

/// One file of a commit.
struct Item {
    path: String,
    object: String,
    size_bytes: u64,
    executable: bool,
}

fn full_name(reference: &Reference) -> String {
    match reference {
        Reference::Revision(name) => name.clone(),
        Reference::Tag(name) => format!("refs/tags/{name}"),
        Reference::Branch(name) => format!("refs/heads/{name}"),
    }
}

/// What git said, on one line without control characters.
fn complaint(errors: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(errors).ok()?.take(COMPLAINT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let text: String = lines.join("; ").chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    (!text.is_empty()).then_some(text)
}
