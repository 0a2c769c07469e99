//! `sarsen store cat`: a file of an object, checked while it is written.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use clap::Args;
use sarsen_store::fsutil::FsError;
use sarsen_store::{Digest, EntryKind, ObjectRef, RelPath};
use serde::Serialize;

use super::failed;
use super::selection::{manifest, relative, select};
use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::project::open_store;
use crate::render::harmless;

/// The longest file that is held in memory and checked before anything of it is written, in bytes. A JSON document holds no longer one.
const HELD_BYTES_MAX: u64 = 16 << 20;

/// How much is read at a time, in bytes.
const PIECE_BYTES: usize = 128 << 10;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Object: `<id>-<name>`, or the beginning of it
    object: String,
    /// File in the object
    path: String,
}

#[derive(Serialize)]
struct Report<'a> {
    object: &'a ObjectRef,
    path: &'a RelPath,
    size: u64,
    executable: bool,
    digest: &'a Digest,
    /// Nothing if the file is not UTF-8, or longer than 16 MiB.
    text: Option<String>,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let store = open_store(context)?;
    let object = select(&store, &arguments.object)?;
    let path = relative(&arguments.path)?;
    let manifest = manifest(&store, &object)?;
    let shown = harmless(path.as_str());
    let Some(entry) = manifest.tree.get(&path) else {
        return Err(CommandError::new(Exit::Failed, format!("there is no `{shown}` in `{object}`"))
            .hint(format!("`sarsen store ls {object}` lists what there is")));
    };
    match &entry.kind {
        EntryKind::Directory => Err(CommandError::new(Exit::Failed, format!("`{shown}` in `{object}` is a directory"))
            .hint(format!("`sarsen store ls {object}` lists what is in it"))),
        EntryKind::Symlink { target, .. } => {
            Err(CommandError::new(Exit::Failed, format!("`{shown}` in `{object}` is a symbolic link to `{}`", harmless(target)))
                .hint("name the file that it leads to"))
        }
        EntryKind::File { size, digest, executable, .. } => {
            let file = store.object_path(&object).join(path.as_path());
            match context.format {
                Format::Text if *size > HELD_BYTES_MAX => copy(&file, digest, |piece| context.print_bytes(piece)),
                Format::Text => held(&file, *size, digest).and_then(|bytes| context.print_bytes(&bytes)),
                Format::Json => {
                    let bytes = if *size > HELD_BYTES_MAX { None } else { Some(held(&file, *size, digest)) };
                    bytes.transpose().and_then(|bytes| {
                        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
                        context.print_json(&Report { object: &object, path: &path, size: *size, executable: *executable, digest, text })
                    })
                }
            }
            .map_err(|error| look_closer(error, &object))?;
            Ok(Exit::Done)
        }
    }
}

fn look_closer(error: CommandError, object: &ObjectRef) -> CommandError {
    error.hint(format!("`sarsen store verify {object}` says what is wrong"))
}

fn held(path: &Path, size: u64, digest: &Digest) -> Result<Vec<u8>, CommandError> {
    let mut bytes = Vec::new();
    copy(path, digest, |piece| {
        // What is longer than it should be is damaged; there is no need to hold it.
        if (bytes.len() as u64) < size {
            bytes.extend_from_slice(piece);
        }
        Ok(())
    })?;
    Ok(bytes)
}

/// Hands out a file piece by piece, and fails at its end if it was not what the object says.
fn copy(path: &Path, expected: &Digest, mut put: impl FnMut(&[u8]) -> Result<(), CommandError>) -> Result<(), CommandError> {
    let unreadable = |error: io::Error| failed(FsError::new("read", path, error));
    let mut file = File::open(path).map_err(unreadable)?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = match file.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(unreadable)?,
        };
        if length == 0 {
            break;
        }
        hasher.update(&piece[..length]);
        put(&piece[..length])?;
    }
    let found = Digest::from(hasher.finalize());
    if found == *expected {
        return Ok(());
    }
    Err(CommandError::new(Exit::Failed, format!("`{}` has changed: its digest is {found}, should be {expected}", path.display())))
}
