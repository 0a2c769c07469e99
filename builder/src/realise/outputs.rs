//! Taking the outputs of a build into the store.
//!
//! Several outputs of one build may name one another under their scratch ids. They are taken in one after the other, those that are
//! named first; then their real ids replace the scratch ids in the rest. That is not possible in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sarsen_store::fsutil::{self, FsError};
use sarsen_store::id::ID_CHARS;
use sarsen_store::{ObjectRef, Transaction};

use super::RecipeError;
use crate::plan::{Output, Substitution, positions};
use crate::recipe::scratch_id;

/// The largest file of a build with several outputs that is looked into for the names of the others, in bytes.
const FILE_BYTES_MAX: u64 = 2 << 30;

/// How files come into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taking {
    /// They are renamed: nobody can have a handle of any, because all processes of the build are gone.
    Move,
    /// They are copied: a process may still be able to write.
    Copy,
}

/// Takes the directories of the outputs in; they may name objects of `visible`.
pub(super) fn take_in(
    transaction: &mut Transaction,
    taking: Taking,
    (outputs, directories): (&BTreeMap<String, Output>, &BTreeMap<String, PathBuf>),
    visible: Vec<ObjectRef>,
) -> Result<BTreeMap<String, ObjectRef>, RecipeError> {
    for (name, directory) in directories {
        make_accessible(directory)?;
        if std::fs::read_dir(directory).map_err(|error| FsError::new("list", directory, error))?.next().is_none() {
            return Err(RecipeError::Empty { output: name.clone() });
        }
    }
    let mut candidates = visible;
    let mut made = BTreeMap::new();
    let mut substitution = Substitution::new();
    for name in order(outputs, directories)? {
        let (output, directory) = (&outputs[&name], &directories[&name]);
        if !made.is_empty() {
            walk(directory, &mut |path| rewrite(path, &substitution))?;
        }
        let own = scratch_id(output);
        let object = match taking {
            Taking::Move => transaction.put_directory_given_away(&output.name, directory, Some(&own), &candidates)?,
            Taking::Copy => transaction.put_directory(&output.name, directory, Some(&own), &candidates)?,
        };
        substitution.insert(scratch_id(output), object.id);
        candidates.push(object.clone());
        made.insert(name, object);
    }
    Ok(made)
}

/// Gives the owner access to everything below `directory`. Builds take it away (`chmod -R a-w`), which nobody but the superuser can ignore;
/// objects have no such modes, so the result is the same for all.
fn make_accessible(directory: &Path) -> Result<(), FsError> {
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let at = |error| FsError::new("list", &directory, error);
        add_mode(&directory, 0o700)?;
        for entry in std::fs::read_dir(&directory).map_err(at)? {
            let entry = entry.map_err(at)?;
            let kind = entry.file_type().map_err(at)?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                add_mode(&entry.path(), 0o400)?;
            }
        }
    }
    Ok(())
}

fn add_mode(path: &Path, bits: u32) -> Result<(), FsError> {
    let metadata = std::fs::symlink_metadata(path).map_err(|error| FsError::new("read the mode of", path, error))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & bits == bits { Ok(()) } else { fsutil::set_mode(path, mode | bits) }
}

/// The names of the outputs, each after those that it names.
fn order(outputs: &BTreeMap<String, Output>, directories: &BTreeMap<String, PathBuf>) -> Result<Vec<String>, RecipeError> {
    if outputs.len() < 2 {
        return Ok(outputs.keys().cloned().collect());
    }
    let ids: BTreeMap<[u8; ID_CHARS], &String> = outputs.iter().map(|(name, output)| (scratch_id(output).to_chars(), name)).collect();
    let mut open: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
    for (name, directory) in directories {
        let mut named = BTreeSet::new();
        walk(directory, &mut |path| {
            named.extend(positions(&read(path)?.bytes, &ids).into_iter().map(|(_, chars)| ids[&chars]));
            Ok(())
        })?;
        named.remove(name);
        open.insert(name, named);
    }
    let mut order: Vec<String> = Vec::new();
    while !open.is_empty() {
        let Some(next) = open.iter().find(|(_, named)| named.is_empty()).map(|(name, _)| *name) else {
            return Err(RecipeError::Circle { outputs: open.keys().map(|name| format!("`{name}`")).collect() });
        };
        open.remove(next);
        for named in open.values_mut() {
            named.remove(next);
        }
        order.push(next.clone());
    }
    Ok(order)
}

/// Calls `visit` for every file and symbolic link below `directory`.
fn walk(directory: &Path, visit: &mut dyn FnMut(&Path) -> Result<(), FsError>) -> Result<(), FsError> {
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let at = |error| FsError::new("list", &directory, error);
        for entry in std::fs::read_dir(&directory).map_err(at)? {
            let entry = entry.map_err(at)?;
            let kind = entry.file_type().map_err(at)?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() || kind.is_symlink() {
                visit(&entry.path())?;
            }
        }
    }
    Ok(())
}

struct Content {
    bytes: Vec<u8>,
    /// The permission bits of a file; nothing for a link.
    mode: Option<u32>,
}

fn read(path: &Path) -> Result<Content, FsError> {
    let at = |error| FsError::new("read", path, error);
    let metadata = std::fs::symlink_metadata(path).map_err(at)?;
    if metadata.is_symlink() {
        let target = std::fs::read_link(path).map_err(at)?;
        return Ok(Content { bytes: target.into_os_string().into_encoded_bytes(), mode: None });
    }
    Ok(Content { bytes: fsutil::read_file_bounded(path, FILE_BYTES_MAX)?, mode: Some(metadata.permissions().mode() & 0o7777) })
}

fn rewrite(path: &Path, substitution: &Substitution) -> Result<(), FsError> {
    let Content { bytes, mode } = read(path)?;
    let filled = substitution.fill(&bytes);
    match mode {
        _ if filled == bytes => Ok(()),
        Some(mode) => fsutil::replace_file(path, &filled, mode),
        None => {
            use std::os::unix::ffi::OsStringExt;
            fsutil::replace_symlink(path, Path::new(&std::ffi::OsString::from_vec(filled)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_a_build_locked_is_made_accessible() {
        let output = tempfile::tempdir().unwrap();
        let (directory, file) = (output.path().join("d"), output.path().join("d/f"));
        fsutil::create_dir(&directory, 0o755).unwrap();
        fsutil::replace_file(&file, b"", 0o110).unwrap();
        fsutil::replace_symlink(&output.path().join("link"), Path::new("/nowhere")).unwrap();
        fsutil::set_mode(&directory, 0o500).unwrap();
        make_accessible(output.path()).unwrap();
        let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&file)), (0o700, 0o510));
    }

    #[test]
    fn a_file_is_copied_as_long_as_somebody_may_write_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = sarsen_store::ObjectStore::open(directory.path()).unwrap();
        let output = Output { placeholder: sarsen_store::ObjectId::placeholder("thing"), name: "thing".parse().unwrap() };
        for (taking, is_moved) in [(Taking::Copy, false), (Taking::Move, true)] {
            let mut transaction = store.begin().unwrap();
            let scratch = transaction.scratch("output").unwrap();
            let file = scratch.join("f");
            fsutil::replace_file(&file, format!("{taking:?}").as_bytes(), 0o644).unwrap();
            let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
            let before = inode(&file);
            let (outputs, directories) =
                (BTreeMap::from([("out".to_owned(), output.clone())]), BTreeMap::from([("out".to_owned(), scratch)]));
            let made = take_in(&mut transaction, taking, (&outputs, &directories), Vec::new()).unwrap();
            transaction.barrier().unwrap();
            assert_eq!(inode(&store.object_path(&made["out"]).join("f")) == before, is_moved, "{taking:?}");
        }
        assert_eq!(store.verify().unwrap(), []);
    }
}
