//! `sarsen lock`: finds out what things outside of the project are now, and pins them in `sarsen.lock`.

use clap::Args;
use sarsen_builder::lock::{Lock, LockedPackage, find_lock};
use sarsen_builder::package::resolve;
use sarsen_builder::snapshot::LOCK_FILE;
use sarsen_store::fsutil;
use serde::Serialize;

use crate::args::Format;
use crate::context::Context;
use crate::error::{CommandError, Exit};
use crate::project::{Project, open_store};
use crate::render::{columns, count};

/// Pin what comes from outside of the project in sarsen.lock
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Look at this entry anew, although it is pinned (can be repeated)
    #[arg(long, value_name = "NAME")]
    update: Vec<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    packages: Vec<Entry<'a>>,
    /// The names of packages that are not declared any more.
    removed: Vec<&'a str>,
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    revision: &'a str,
    tree: String,
    /// `kept`, `added` or `changed`.
    change: &'static str,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, CommandError> {
    let project = Project::open(context)?;
    let settings = project.settings(context)?;
    if let Some(unknown) = arguments.update.iter().find(|name| !settings.packages.contains_key(*name)) {
        let known: Vec<&str> = settings.packages.keys().map(String::as_str).collect();
        let error = CommandError::new(Exit::Usage, format!("there is no package `{unknown}` in sarsen.toml"));
        return Err(if known.is_empty() { error } else { error.hint(format!("packages are {}", known.join(", "))) });
    }
    let old = find_lock(&project.snapshot).map_err(|errors| {
        CommandError::new(Exit::Usage, format!("`{LOCK_FILE}` has {}", count(errors.len(), "error")))
            .after(project.render(context, &errors) + "\n")
    })?;
    let mut new = Lock::default();
    let mut store = None;
    for (name, request) in &settings.packages {
        let kept = old.packages.get(name).filter(|locked| locked.request == *request && !arguments.update.contains(name));
        let locked = if let Some(locked) = kept {
            locked.clone()
        } else {
            let store = match &store {
                Some(store) => store,
                None => store.insert(open_store(context)?),
            };
            context.say(&format!("looking at package {name}"));
            resolve(store, &project.directory, name, request).map_err(|error| CommandError::of(Exit::Failed, &error))?
        };
        new.packages.insert(name.clone(), locked);
    }
    let path = project.directory.join(LOCK_FILE);
    let text = new.render();
    // A project that pins nothing needs no file; one that is there is kept, so that what was taken away can be seen.
    let is_wanted = !new.packages.is_empty() || project.snapshot.file(LOCK_FILE).is_some();
    if is_wanted && project.snapshot.text(LOCK_FILE) != Some(text.as_str()) {
        fsutil::replace_file(&path, text.as_bytes(), 0o644).map_err(|error| CommandError::of(Exit::Failed, &error))?;
    }
    report(context, &old, &new)?;
    Ok(Exit::Done)
}

fn report(context: &Context, old: &Lock, new: &Lock) -> Result<(), CommandError> {
    let change = |name: &String, locked: &LockedPackage| match old.packages.get(name) {
        None => "added",
        Some(before) if before == locked => "kept",
        Some(_) => "changed",
    };
    let packages = new.packages.iter().map(|(name, locked)| Entry {
        name,
        revision: &locked.revision,
        tree: locked.tree.to_string(),
        change: change(name, locked),
    });
    let packages: Vec<Entry<'_>> = packages.collect();
    let removed: Vec<&str> = old.packages.keys().filter(|name| !new.packages.contains_key(*name)).map(String::as_str).collect();
    match context.format {
        Format::Json => context.print_json(&Report { packages, removed }),
        Format::Text => {
            let rows = packages.iter().map(|entry| [entry.change.to_owned(), entry.name.to_owned(), entry.revision.to_owned()]);
            let gone = removed.iter().map(|name| ["removed".to_owned(), (*name).to_owned(), String::new()]);
            context.print(&columns(&rows.chain(gone).collect::<Vec<_>>(), 0))
        }
    }
}
