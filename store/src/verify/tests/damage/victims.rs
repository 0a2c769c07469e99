//! Objects of all kinds of entries, to be damaged.

#![expect(clippy::disallowed_methods, reason = "the tests damage a store on purpose")]

use std::fs;

use crate::transaction::{NewEntry, NewEntryKind};
use crate::{ObjectId, ObjectRef, ObjectStore};

/// Publishes objects of all kinds of entries, which share contents, need each other, and name themselves.
pub(super) fn publish(store: &ObjectStore) -> Vec<ObjectRef> {
    let own = ObjectId::placeholder("app");
    let entries = [
        file("bin/app", format!("run {own}-app/x").as_bytes()),
        file("bin/tool", b"tool"),
        file("share/data", &[7; 3000]),
        file("share/data-2/deep/er", b"data"),
        file("share/data.d/one", b"one"),
        file("share/empty", b""),
        entry("share/none", NewEntryKind::Directory),
        entry("link", NewEntryKind::Symlink { target: format!("/s/{own}-app/bin") }),
        entry("share/up", NewEntryKind::Symlink { target: "../bin/app".to_owned() }),
    ];
    let put = |name: &str, entries: &[NewEntry], candidates: &[ObjectRef]| {
        let mut transaction = store.begin().unwrap();
        let object = transaction.put_entries(&name.parse().unwrap(), entries, Some(&own), candidates).unwrap();
        transaction.barrier().unwrap();
        object
    };
    let application = put("app", &entries, &[]);
    let shared = [file("bin/tool", b"tool"), file("tool", b"tool"), file("a/b/c", &[7; 3000]), file("alone", b"nobody else has this")];
    let sharing = put("sharing", &shared, &[]);
    // The next one gets an inode of its own for a content that is there, as where a file system takes no more links.
    fs::remove_file(store.blob_path(&crate::Digest::of(b"one"), false)).unwrap();
    let user = put("user", &[file("uses", format!("{application}").as_bytes()), file("one", b"one")], std::slice::from_ref(&application));
    vec![application, sharing, user]
}

fn file(path: &str, content: &[u8]) -> NewEntry {
    entry(path, NewEntryKind::File { content: content.into(), executable: path.starts_with("bin/") })
}

fn entry(path: &str, kind: NewEntryKind) -> NewEntry {
    NewEntry { path: path.parse().unwrap(), kind }
}
