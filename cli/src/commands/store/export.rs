//! `sarsen store export`: objects with all that they need, as one signed file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use sarsen_store::fsutil::{self, FsError};
use sarsen_store::pack::{self, Exported};
use sarsen_store::progress::Counters;
use sarsen_store::signature::SecretKey;
use sarsen_store::{ObjectRef, ObjectStore};
use serde::Serialize;

use super::failed;
use super::key::read_secret_key;
use super::selection::select_all;
use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::progress::watch;
use crate::project::open_store;
use crate::render::{bytes, count};

/// What stands for standard output.
pub(super) const STREAM: &str = "-";

/// How much is written at a time, in bytes.
const WRITE_BYTES: usize = 256 << 10;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Objects: `<id>-<name>`, or the beginning of it; each goes with all that it needs
    #[arg(value_name = "OBJECT", required = true)]
    objects: Vec<String>,
    /// File to write or replace; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// File with a secret key that vouches for the objects; may be given several times
    #[arg(long, value_name = "KEYFILE")]
    sign: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Report<'a> {
    objects: &'a [ObjectRef],
    tar_bytes: u64,
    file_bytes: u64,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let to_stream = arguments.output.as_os_str() == STREAM;
    if to_stream && context.format == Format::Json {
        return Err(CommandError::new(Exit::Usage, "standard output cannot carry both the export and JSON").hint("name a file: -o FILE"));
    }
    let keys = arguments.sign.iter().map(|file| read_secret_key(file)).collect::<Result<Vec<SecretKey>, _>>()?;
    let store = open_store(context)?;
    let objects = select_all(&store, &arguments.objects)?;
    let exported = if to_stream {
        export(&store, &objects, &keys, io::stdout().lock())?
    } else {
        write_file(&store, &objects, &keys, &arguments.output)?
    };
    if context.format == Format::Json {
        let Exported { objects, tar_bytes, file_bytes } = &exported;
        context.print_json(&Report { objects, tar_bytes: *tar_bytes, file_bytes: *file_bytes })?;
    }
    context.say(&format!("exported {}, {}", count(exported.objects.len(), "object"), bytes(exported.file_bytes)));
    if keys.is_empty() {
        context.say("it is not signed: import takes only what a trusted key has signed, see --sign");
    }
    Ok(Exit::Done)
}

/// Writes beside the file and renames, so that there is never half an export under its name.
fn write_file(store: &ObjectStore, objects: &[ObjectRef], keys: &[SecretKey], output: &Path) -> Result<Exported, CommandError> {
    if output.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err(CommandError::new(Exit::Usage, format!("`{}` is not a file, so it is not replaced", output.display()))
            .hint("name another file, or `-` for standard output"));
    }
    let Some(name) = output.file_name() else {
        return Err(CommandError::new(Exit::Usage, format!("`{}` does not name a file", output.display())));
    };
    let directory = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = directory.join(format!(".{}.{}", name.to_string_lossy(), fsutil::random_name().map_err(failed)?));
    fsutil::write_new_file(&temporary, b"", 0o644).map_err(failed)?;
    let written = fill(store, objects, keys, &temporary).and_then(|exported| {
        fsutil::rename(&temporary, output).and_then(|()| fsutil::sync_dir(directory)).map_err(failed)?;
        Ok(exported)
    });
    if written.is_err() {
        // The first error is the one to report; a left-over temporary file harms nobody.
        let _ = fsutil::remove_file(&temporary);
    }
    written
}

fn fill(store: &ObjectStore, objects: &[ObjectRef], keys: &[SecretKey], path: &Path) -> Result<Exported, CommandError> {
    let unwritten = |operation, error: io::Error| failed(FsError::new(operation, path, error));
    let mut file: File = OpenOptions::new().append(true).open(path).map_err(|error| unwritten("open", error))?;
    let exported = export(store, objects, keys, BufWriter::with_capacity(WRITE_BYTES, &mut file))?;
    file.sync_all().map_err(|error| unwritten("sync", error))?;
    Ok(exported)
}

fn export(store: &ObjectStore, objects: &[ObjectRef], keys: &[SecretKey], writer: impl Write) -> Result<Exported, CommandError> {
    let counters = Counters::new();
    let counted = Counted { inner: writer, counters: &counters };
    watch("exporting", &counters, || pack::export(store, objects, counted, keys)).map_err(failed)
}

/// A writer that counts what goes through it.
struct Counted<'a, W> {
    inner: W,
    counters: &'a Counters,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(piece)?;
        self.counters.add_bytes(length as u64);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
