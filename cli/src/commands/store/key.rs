//! `sarsen store key`: keys that vouch for exports.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use sarsen_store::signature::{KeyError, KeyName, PublicKey, SecretKey};
use serde::Serialize;

use super::failed;
use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};

/// Make keys that vouch for exports, and show their public part
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a key: the secret part goes into a new file, the public part is printed
    Generate {
        /// Name of the key, by which those who trust it know it
        name: KeyName,
        /// New file for the secret part
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Print the public part of a key
    Public {
        /// File with the secret part
        file: PathBuf,
    },
}

#[derive(Serialize)]
struct Report {
    name: String,
    public_key: String,
}

pub(super) fn run(command: &Command, context: &Context) -> Result<Exit, CommandError> {
    let key = match command {
        Command::Generate { name, output } => generate(name, output)?,
        Command::Public { file } => read_secret_key(file)?.public(),
    };
    match context.format {
        Format::Json => context.print_json(&Report { name: key.name().to_string(), public_key: key.to_string() })?,
        Format::Text => context.print(&format!("{key}\n"))?,
    }
    if let Command::Generate { output, .. } = command {
        context.say(&format!("the secret part is in `{}`: who has it can sign as `{}`", output.display(), key.name()));
    }
    Ok(Exit::Done)
}

fn generate(name: &KeyName, output: &Path) -> Result<PublicKey, CommandError> {
    if output.symlink_metadata().is_ok() {
        return Err(CommandError::new(Exit::Usage, format!("`{}` exists already", output.display()))
            .hint("a key that is replaced is lost: name a new file"));
    }
    let key = SecretKey::generate(name.clone()).map_err(failed)?;
    key.write_new_file(output).map_err(failed)?;
    Ok(key.public())
}

/// Reads the secret key of a file.
pub(super) fn read_secret_key(file: &Path) -> Result<SecretKey, CommandError> {
    SecretKey::read_file(file).map_err(|error| {
        let missing = matches!(&error, KeyError::Io(error) if error.is_missing());
        let error = failed(error);
        if missing { error.hint("`sarsen store key generate NAME --output FILE` makes a key") } else { error }
    })
}
