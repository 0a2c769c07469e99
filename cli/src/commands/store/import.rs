//! `sarsen store import`: what an export holds, if a trusted key has signed it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use sarsen_store::fsutil::FsError;
use sarsen_store::pack::{self, Imported, PackError};
use sarsen_store::progress::Counters;
use sarsen_store::signature::{PublicKey, TrustedKeys};
use sarsen_store::{ObjectRef, ObjectStore};
use serde::Serialize;

use super::export::STREAM;
use super::failed;
use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::progress::watch;
use crate::project::{open_store, trusted_keys};
use crate::render::count;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// File that `sarsen store export` wrote; `-` is standard input
    file: PathBuf,
    /// Public key, as `sarsen store key public` prints it; objects that it has signed are taken, as those by the project's `trusted_keys`. May be
    /// given several times
    #[arg(long = "trusted-key", value_name = "NAME:BASE64")]
    trusted_keys: Vec<PublicKey>,
}

#[derive(Serialize)]
struct Report<'a> {
    objects: &'a [ObjectRef],
    roots: &'a [ObjectRef],
    objects_new: u64,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let keys = trusted_keys(context)?.into_iter().chain(arguments.trusted_keys.iter().cloned());
    let trusted = TrustedKeys::new(keys).map_err(|error| CommandError::of(Exit::Usage, &error))?;
    let store = open_store(context)?;
    let imported = if arguments.file.as_os_str() == STREAM {
        import(&store, io::stdin().lock(), &trusted)
    } else {
        import(&store, open(&arguments.file)?, &trusted)
    }?;
    let objects = imported.durable.objects();
    match context.format {
        Format::Json => context.print_json(&Report { objects, roots: &imported.roots, objects_new: imported.objects_new })?,
        Format::Text => imported.roots.iter().try_for_each(|root| context.print(&format!("{root}\n")))?,
    }
    context.say(&format!("imported {}, {} of them new", count(objects.len(), "object"), imported.objects_new));
    Ok(Exit::Done)
}

fn open(path: &Path) -> Result<File, CommandError> {
    let unreadable = |error: io::Error| failed(FsError::new("open", path, error));
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(CommandError::new(Exit::Usage, format!("`{}` is a directory", path.display()))
            .hint("import takes what `sarsen store export` wrote; `sarsen store add` takes a directory"));
    }
    Ok(file)
}

fn import(store: &ObjectStore, reader: impl Read, trusted: &TrustedKeys) -> Result<Imported, CommandError> {
    let counters = Counters::new();
    let counted = Counted { inner: reader, counters: &counters };
    watch("importing", &counters, || pack::import(store, counted, trusted)).map_err(|error| {
        let untrusted = matches!(error, PackError::Unsigned { .. } | PackError::UnknownSigner { .. });
        let error = failed(error);
        if untrusted {
            error.hint(
                "nothing was taken; trust a key with --trusted-key NAME:BASE64 or `trusted_keys` in sarsen.toml, and have the export signed with --sign",
            )
        } else {
            error
        }
    })
}

/// A reader that counts what goes through it.
struct Counted<'a, R> {
    inner: R,
    counters: &'a Counters,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(piece)?;
        self.counters.add_bytes(length as u64);
        Ok(length)
    }
}
