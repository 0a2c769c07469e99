//! Which object is meant: its id and name, the id alone, the beginning of it, or a path in the store.

use std::path::{Component, Path};

use sarsen_store::{ObjectId, ObjectManifest, ObjectRef, ObjectStore, RelPath};

use super::failed;
use crate::error::{CommandError, Exit};
use crate::render::count;

/// The shortest beginning of an id that is taken for one, in characters: a store of a thousand objects has none that is ambiguous.
const BEGINNING_CHARS_MIN: usize = 4;

/// How many objects a hint lists.
const LISTED_MAX: usize = 5;

/// Finds the object that `text` means.
pub(super) fn select(store: &ObjectStore, text: &str) -> Result<ObjectRef, CommandError> {
    if text.contains('/') {
        return select_by_path(store, text);
    }
    if let Some(id) = text.get(..32).and_then(|id| id.parse::<ObjectId>().ok()) {
        let found = store.find(&id).map_err(failed)?.filter(|object| text.len() == 32 || object.to_string().starts_with(text));
        return found.ok_or_else(|| unknown(store, text, &[]));
    }
    if text.len() < BEGINNING_CHARS_MIN {
        return Err(CommandError::new(Exit::Usage, format!("`{text}` is too short to tell an object by"))
            .hint(format!("give at least {BEGINNING_CHARS_MIN} characters of the id; `sarsen store ls` lists the objects")));
    }
    let objects = store.objects().map_err(failed)?;
    let found: Vec<&ObjectRef> = objects.iter().filter(|object| object.to_string().starts_with(text)).collect();
    match found[..] {
        [object] => Ok(object.clone()),
        [] => Err(unknown(store, text, &objects)),
        _ => Err(CommandError::new(Exit::Failed, format!("`{text}` is the beginning of {}", count(found.len(), "object")))
            .hint(format!("give more of the id: {}", listed(&found)))),
    }
}

/// Finds all objects that are meant; the first text that means none is the error.
pub(super) fn select_all(store: &ObjectStore, texts: &[String]) -> Result<Vec<ObjectRef>, CommandError> {
    texts.iter().map(|text| select(store, text)).collect()
}

/// Reads what an object holds.
pub(super) fn manifest(store: &ObjectStore, object: &ObjectRef) -> Result<ObjectManifest, CommandError> {
    store.manifest(object).map_err(|error| failed(error).hint(format!("`sarsen store verify {object}` says what is wrong with it")))
}

/// Reads a path in an object, `./` and a final `/` taken off.
pub(super) fn relative(text: &str) -> Result<RelPath, CommandError> {
    let trimmed = text.trim_start_matches("./").trim_end_matches('/');
    trimmed.parse().map_err(|error| CommandError::of(Exit::Usage, &error).hint("paths are those that `sarsen store ls OBJECT` prints"))
}

fn select_by_path(store: &ObjectStore, text: &str) -> Result<ObjectRef, CommandError> {
    let objects = store.root().join("store");
    let first = Path::new(text).strip_prefix(&objects).ok().and_then(|below| below.components().next());
    let object = match first {
        Some(Component::Normal(name)) => name.to_str().and_then(|name| name.parse::<ObjectRef>().ok()),
        _ => None,
    };
    let Some(object) = object else {
        return Err(CommandError::new(Exit::Usage, format!("`{text}` is no path of an object"))
            .hint(format!("objects lie at `{}/<id>-<name>`; `sarsen store ls` lists them", objects.display())));
    };
    match store.find(&object.id).map_err(failed)? {
        Some(found) if found == object => Ok(object),
        _ => Err(unknown(store, &object.to_string(), &[])),
    }
}

/// An error for an object that is not there; `objects` are looked through for one of that name.
fn unknown(store: &ObjectStore, text: &str, objects: &[ObjectRef]) -> CommandError {
    let error = CommandError::new(Exit::Failed, format!("`{text}` is not in the store at `{}`", store.root().display()));
    let named: Vec<&ObjectRef> = objects.iter().filter(|object| object.name.as_str() == text).collect();
    match named[..] {
        [] => error.hint("`sarsen store ls` lists the objects; other stores are named with --root DIR"),
        _ => error.hint(format!("that is a name, and objects are told by their ids: {}", listed(&named))),
    }
}

fn listed(objects: &[&ObjectRef]) -> String {
    let mut texts: Vec<String> = objects.iter().take(LISTED_MAX).map(|object| format!("`{object}`")).collect();
    if objects.len() > LISTED_MAX {
        texts.push(format!("and {} more", objects.len() - LISTED_MAX));
    }
    texts.join(", ")
}
