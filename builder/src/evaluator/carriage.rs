//! How values travel between the two halves of the evaluator: what their own derives cannot say.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use sarsen_store::RelPath;
use serde::{Deserialize, Deserializer, Serialize};

use crate::snapshot::{Snapshot, SnapshotFile};

/// Bytes as a text where they are one, which nearly all are, and as a list of numbers elsewhere.
pub(crate) mod bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Arc;

    #[derive(Serialize)]
    #[serde(untagged)]
    enum Borrowed<'a> {
        Text(&'a str),
        Bytes(&'a [u8]),
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Owned {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(crate) fn serialize<S: Serializer>(content: &Arc<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
        std::str::from_utf8(content).map_or(Borrowed::Bytes(content), Borrowed::Text).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
        Ok(match Owned::deserialize(deserializer)? {
            Owned::Text(text) => text.into_bytes().into(),
            Owned::Bytes(bytes) => bytes.into(),
        })
    }
}

/// Bytes inside of a list.
#[derive(Serialize, Deserialize)]
struct Content(#[serde(with = "bytes")] Arc<[u8]>);

/// The files of a build's source.
pub(crate) mod source_files {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::{Arc, Content, RelPath};

    type Files = Vec<(Option<RelPath>, Arc<[u8]>, bool)>;

    pub(crate) fn serialize<S: Serializer>(files: &Files, serializer: S) -> Result<S::Ok, S::Error> {
        let files: Vec<_> = files.iter().map(|(path, content, executable)| (path, Content(content.clone()), executable)).collect();
        files.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Files, D::Error> {
        let files: Vec<(Option<RelPath>, Content, bool)> = Vec::deserialize(deserializer)?;
        Ok(files.into_iter().map(|(path, content, executable)| (path, content.0, executable)).collect())
    }
}

/// The files of a snapshot.
pub(crate) mod snapshot_files {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::{Content, Snapshot, SnapshotFile};

    pub(crate) fn serialize<S: Serializer>(snapshot: &Snapshot, serializer: S) -> Result<S::Ok, S::Error> {
        let files: Vec<_> = snapshot.files().map(|(path, file)| (path, Content(file.content.clone()), file.executable)).collect();
        files.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Snapshot, D::Error> {
        let files: Vec<(String, Content, bool)> = Vec::deserialize(deserializer)?;
        let file = |(path, content, executable): (String, Content, bool)| (path, SnapshotFile { content: content.0, executable });
        Ok(Snapshot::from_files(files.into_iter().map(file)))
    }
}

/// A diagnostic's code. There are about a hundred, each is kept once.
pub(crate) fn code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static str, D::Error> {
    static CODES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let code = String::deserialize(deserializer)?;
    let mut codes = CODES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = codes.get(code.as_str()) {
        return Ok(known);
    }
    let kept: &'static str = Box::leak(code.into_boxed_str());
    codes.insert(kept);
    Ok(kept)
}
