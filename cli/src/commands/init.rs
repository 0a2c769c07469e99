//! `sarsen init`: a small project that works, from the files in `starter`. Never overwrites.

use std::path::{Path, PathBuf};

use clap::Args;
use sarsen_store::fsutil;
use serde::Serialize;

use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};

/// What is written: path below the project, text. `NAME` in the first is the project's name.
const FILES: [(&str, &str); 4] = [
    ("sarsen.toml", include_str!("../starter/sarsen.toml")),
    ("environments/dev/environment.toml", include_str!("../starter/environment.toml")),
    ("components/beat/component.star", include_str!("../starter/component.star")),
    ("components/beat/beat.sh.j2", include_str!("../starter/beat.sh.j2")),
];

/// Make a small project that works
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Directory [default: --project, or the current one]
    directory: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report<'a> {
    project: &'a str,
    files: Vec<&'static str>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let directory = arguments.directory.as_ref().map_or_else(|| context.directory.clone(), |directory| context.directory.join(directory));
    if let Some((existing, _)) = FILES.iter().find(|(path, _)| directory.join(path).symlink_metadata().is_ok()) {
        return Err(CommandError::new(Exit::Usage, format!("`{}` exists already", directory.join(existing).display()))
            .hint("name another directory: `sarsen init DIR`"));
    }
    let name = project_name(&directory);
    for (path, text) in FILES {
        let file = directory.join(path);
        let parent = file.parent().expect("every path of a project has a parent");
        fsutil::create_dir_all(parent, 0o755)
            .and_then(|()| fsutil::write_new_file(&file, text.replace("NAME", &name).as_bytes(), 0o644))
            .map_err(|error| CommandError::of(Exit::Failed, &error))?;
    }
    match context.format {
        Format::Json => context.print_json(&Report { project: &name, files: FILES.map(|(path, _)| path).to_vec() })?,
        Format::Text => FILES.iter().try_for_each(|(path, _)| context.print(&format!("{path}\n")))?,
    }
    context.say(&format!("project `{name}` is ready: `sarsen deploy dev` in `{}` starts it on this machine", directory.display()));
    Ok(Exit::Done)
}

/// The directory's name as far as it can be a project's: lower-case letters, digits and `-`, a letter first.
fn project_name(directory: &Path) -> String {
    let name = directory.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric()).trim_start_matches(|c: char| !c.is_ascii_lowercase());
    if name.is_empty() { String::from("project") } else { name.chars().take(40).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_directories_become_names_of_projects() {
        for (directory, name) in [("/tmp/Shop", "shop"), ("/tmp/.My shop 2!", "my-shop-2"), ("/", "project"), ("/tmp/42", "project")] {
            assert_eq!(project_name(directory.as_ref()), name);
        }
    }
}
