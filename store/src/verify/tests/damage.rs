//! Damage of every kind at random places, with what has to be found and a way back.
//!
//! A damage is planned from the intact store before anything is changed. It names what it touches, so that several that do not concern each other
//! can be done at once.

#![expect(clippy::disallowed_methods, reason = "the tests damage a store on purpose")]

mod hands;
mod victims;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use tempfile::TempDir;

use crate::{EntryKind, ObjectId, ObjectRef, ObjectStore};
use hands::{append, blob, calm, execute, in_writable, make, move_file, open_anyway, set_mode, set_time, unmake};
use victims::publish;

/// A small generator, so that a failing round can be repeated by its number.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn of<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        &things[self.below(things.len())]
    }
}

/// What a finding is about: object, path, and the kind of the problem.
pub(crate) type Expected = (Option<ObjectRef>, String, &'static str);

type Undo = Box<dyn FnOnce()>;

/// One thing that goes wrong.
pub(crate) struct Damage {
    /// In words, for when it is not found.
    pub(crate) what: String,
    /// What `verify` has to say.
    pub(crate) expected: BTreeSet<Expected>,
    /// The names below the root that it is about.
    touches: Vec<String>,
    apply: Box<dyn FnOnce() -> Undo>,
}

impl Damage {
    /// Does it; returns what takes it back.
    pub(crate) fn apply(self) -> Undo {
        (self.apply)()
    }

    /// Whether one is at, above or below a place of the other.
    pub(crate) fn concerns(&self, other: &Self) -> bool {
        let within = |one: &str, two: &str| one == two || one.strip_prefix(two).is_some_and(|rest| rest.starts_with('/'));
        self.touches.iter().any(|one| other.touches.iter().any(|two| within(one, two) || within(two, one)))
    }
}

/// A name in the store, and what it is there for.
#[derive(Clone)]
struct Name {
    object: Option<ObjectRef>,
    /// Below the object, or below the root.
    place: String,
    /// Below the root.
    path: String,
}

/// Something in an object.
#[derive(Clone)]
struct Node {
    name: Name,
    kind: Kind,
    /// Device and inode.
    inode: (u64, u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Link,
}

/// An intact store, looked through.
pub(crate) struct World {
    _directory: TempDir,
    pub(crate) store: ObjectStore,
    aside: PathBuf,
    objects: Vec<ObjectRef>,
    nodes: Vec<Node>,
    /// All names of each inode.
    names: BTreeMap<(u64, u64), Vec<Name>>,
    blobs: Vec<Name>,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let aside = directory.path().join("aside");
        fs::create_dir(&aside).unwrap();
        let store = ObjectStore::open(&directory.path().join("root")).unwrap();
        let objects = publish(&store);
        let mut world = Self { _directory: directory, store, aside, objects, nodes: Vec::new(), names: BTreeMap::new(), blobs: Vec::new() };
        world.look();
        world
    }

    /// Looks through the store, which is intact.
    fn look(&mut self) {
        for object in &self.objects {
            for entry in self.store.manifest(object).unwrap().tree.entries() {
                let place = entry.path.to_string();
                let name = Name { object: Some(object.clone()), path: format!("store/{object}/{place}"), place };
                let kind = match &entry.kind {
                    EntryKind::Directory => Kind::Directory,
                    EntryKind::File { .. } => Kind::File,
                    EntryKind::Symlink { .. } => Kind::Link,
                };
                let metadata = fs::symlink_metadata(self.at(&name.path)).unwrap();
                let inode = (metadata.dev(), metadata.ino());
                self.names.entry(inode).or_default().push(name.clone());
                self.nodes.push(Node { name, kind, inode });
            }
        }
        for shard in fs::read_dir(self.at("blobs")).unwrap().map(Result::unwrap) {
            for blob in fs::read_dir(shard.path()).unwrap().map(Result::unwrap) {
                let place = format!("blobs/{}/{}", shard.file_name().to_str().unwrap(), blob.file_name().to_str().unwrap());
                let name = Name { object: None, path: place.clone(), place };
                let metadata = blob.metadata().unwrap();
                self.names.entry((metadata.dev(), metadata.ino())).or_default().push(name.clone());
                self.blobs.push(name);
            }
        }
        self.blobs.sort_by(|one, other| one.place.cmp(&other.place));
    }

    fn at(&self, path: &str) -> PathBuf {
        self.store.root().join(path)
    }

    /// Plans so many damages that do not concern each other.
    pub(crate) fn plan(&self, count: usize, random: &mut Random) -> Vec<Damage> {
        let mut planned: Vec<Damage> = Vec::new();
        while planned.len() < count {
            let next = self.plan_one(random);
            if planned.iter().all(|damage| !damage.concerns(&next)) {
                planned.push(next);
            }
        }
        planned
    }

    fn plan_one(&self, random: &mut Random) -> Damage {
        match random.below(20) {
            0..=3 => self.flip_content(random),
            4 | 5 => self.flip_mode(random),
            6 => self.change_size(random),
            7 => self.change_time(random),
            8 | 9 => self.rename(random),
            10 => self.remove(random),
            11 | 12 => self.replace(random),
            13 => self.add_to_object(random),
            14 => self.change_target(random),
            15 => self.rename_blob(random),
            16 => self.add_stray(random),
            17 => self.damage_manifest(random),
            18 => self.damage_index(random),
            _ => self.remove_object(random),
        }
    }

    fn node(&self, random: &mut Random, kinds: &[Kind]) -> &Node {
        loop {
            let node = random.of(&self.nodes);
            if kinds.contains(&node.kind) {
                return node;
            }
        }
    }

    /// What is found at each name of a node's inode: one thing in objects, another in `blobs/`.
    fn at_all_names(&self, node: &Node, in_objects: &'static str, in_blobs: &'static str) -> (BTreeSet<Expected>, Vec<String>) {
        let names = &self.names[&node.inode];
        let expected = names.iter().map(|name| {
            let kind = if name.object.is_some() { in_objects } else { in_blobs };
            (name.object.clone(), name.place.clone(), kind)
        });
        (expected.collect(), names.iter().map(|name| name.path.clone()).collect())
    }

    fn flip_content(&self, random: &mut Random) -> Damage {
        let (node, path, length) = loop {
            let node = self.node(random, &[Kind::File]);
            let path = self.at(&node.name.path);
            let length = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
            if length > 0 {
                break (node, path, length);
            }
        };
        let bit = random.below(length * 8);
        let (expected, touches) = self.at_all_names(node, "content", "content");
        let flip = move || {
            let mut byte = [0];
            let handle = open_anyway(&path);
            handle.read_exact_at(&mut byte, (bit / 8) as u64).unwrap();
            handle.write_all_at(&[byte[0] ^ 1 << (bit % 8)], (bit / 8) as u64).unwrap();
            calm(&path);
        };
        let again = flip.clone();
        Damage {
            what: format!("bit {bit} of {}", node.name.path),
            expected,
            touches,
            apply: Box::new(move || {
                flip();
                Box::new(again)
            }),
        }
    }

    fn flip_mode(&self, random: &mut Random) -> Damage {
        let node = self.node(random, &[Kind::File, Kind::Directory]);
        // Who is not root could not look any further without these.
        let bit = loop {
            let bit = 1 << random.below(12);
            if bit & 0o500 == 0 || rustix::process::geteuid().is_root() {
                break bit;
            }
        };
        let (expected, touches) = self.at_all_names(node, "mode", "mode");
        let path = self.at(&node.name.path);
        let old = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        Damage {
            what: format!("mode {bit:o} of {}", node.name.path),
            expected,
            touches,
            apply: Box::new(move || {
                set_mode(&path, old ^ bit);
                Box::new(move || set_mode(&path, old))
            }),
        }
    }

    fn change_size(&self, random: &mut Random) -> Damage {
        let node = self.node(random, &[Kind::File]);
        let (expected, touches) = self.at_all_names(node, "size", "content");
        let path = self.at(&node.name.path);
        let content = fs::read(&path).unwrap();
        let length = if content.is_empty() || random.below(2) == 0 { content.len() + 1 } else { random.below(content.len()) };
        Damage {
            what: format!("length {length} of {}", node.name.path),
            expected,
            touches,
            apply: Box::new(move || {
                open_anyway(&path).set_len(length as u64).unwrap();
                calm(&path);
                Box::new(move || {
                    let handle = open_anyway(&path);
                    handle.set_len(content.len() as u64).unwrap();
                    handle.write_all_at(&content, 0).unwrap();
                    calm(&path);
                })
            }),
        }
    }

    fn change_time(&self, random: &mut Random) -> Damage {
        let node = self.node(random, &[Kind::File, Kind::Directory, Kind::Link]);
        let (expected, touches) = self.at_all_names(node, "time", "time");
        let path = self.at(&node.name.path);
        let seconds = i64::try_from(random.below(1 << 30)).unwrap() - (1 << 20);
        Damage {
            what: format!("time {seconds} of {}", node.name.path),
            expected,
            touches,
            apply: Box::new(move || {
                set_time(&path, if seconds == 1 { 2 } else { seconds });
                Box::new(move || calm(&path))
            }),
        }
    }

    fn rename(&self, random: &mut Random) -> Damage {
        let node = self.node(random, &[Kind::File, Kind::Directory, Kind::Link]);
        let from = self.at(&node.name.path);
        let suffix = random.of(&["~", "x", " ", "\u{e9}"]);
        let to = append(&from, suffix);
        let object = &node.name.object;
        Damage {
            what: format!("{} renamed by `{suffix}`", node.name.path),
            expected: BTreeSet::from([
                (object.clone(), node.name.place.clone(), "missing"),
                (object.clone(), format!("{}{suffix}", node.name.place), "extra"),
            ]),
            // The times of the directory above are put right.
            touches: vec![node.name.path.clone(), format!("{}{suffix}", node.name.path)],
            apply: Box::new(move || {
                move_file(&from, &to);
                Box::new(move || move_file(&to, &from))
            }),
        }
    }

    fn remove(&self, random: &mut Random) -> Damage {
        let node = self.node(random, &[Kind::File, Kind::Directory, Kind::Link]);
        let (from, to) = (self.at(&node.name.path), self.aside());
        Damage {
            what: format!("{} is gone", node.name.path),
            expected: BTreeSet::from([(node.name.object.clone(), node.name.place.clone(), "missing")]),
            touches: vec![node.name.path.clone()],
            apply: Box::new(move || {
                move_file(&from, &to);
                Box::new(move || move_file(&to, &from))
            }),
        }
    }

    fn replace(&self, random: &mut Random) -> Damage {
        let blob = random.below(6) == 0;
        let (name, kind) = if blob {
            (random.of(&self.blobs).clone(), Kind::File)
        } else {
            let node = self.node(random, &[Kind::File, Kind::Directory, Kind::Link]);
            (node.name.clone(), node.kind)
        };
        let by = loop {
            let by = *random.of(&[Some(Kind::Directory), Some(Kind::File), Some(Kind::Link), None]);
            if by != Some(kind) {
                break by;
            }
        };
        let (path, aside) = (self.at(&name.path), self.aside());
        Damage {
            what: format!("{} replaced by another kind of file", name.path),
            expected: BTreeSet::from([(name.object.clone(), name.place.clone(), "kind")]),
            touches: vec![name.path],
            apply: Box::new(move || {
                move_file(&path, &aside);
                in_writable(&path, || make(&path, by));
                Box::new(move || {
                    in_writable(&path, || unmake(&path));
                    move_file(&aside, &path);
                })
            }),
        }
    }

    fn add_to_object(&self, random: &mut Random) -> Damage {
        let node = self.node(random, &[Kind::Directory]);
        let name = random.of(&[".hidden", "z", "line\nfeed", "app"]);
        let path = self.at(&node.name.path).join(name);
        let by = *random.of(&[Some(Kind::Directory), Some(Kind::File), Some(Kind::Link), None]);
        let place = format!("{}/{name}", node.name.place);
        if path.symlink_metadata().is_ok() {
            return self.add_to_object(random);
        }
        Damage {
            what: format!("something new at {place}"),
            expected: BTreeSet::from([(node.name.object.clone(), place.replace('\n', "\\n"), "extra")]),
            touches: vec![format!("{}/{name}", node.name.path)],
            apply: Box::new(move || {
                in_writable(&path, || make(&path, by));
                Box::new(move || in_writable(&path, || unmake(&path)))
            }),
        }
    }

    fn change_target(&self, random: &mut Random) -> Damage {
        let node = self.node(random, &[Kind::Link]);
        let (path, aside) = (self.at(&node.name.path), self.aside());
        let mut target = fs::read_link(&path).unwrap().into_os_string().into_string().unwrap().into_bytes();
        let bit = loop {
            let bit = random.below(target.len() * 7);
            target[bit / 7] ^= 1 << (bit % 7);
            if target[bit / 7] != 0 {
                break bit;
            }
            target[bit / 7] ^= 1 << (bit % 7);
        };
        let target = String::from_utf8(target).unwrap();
        Damage {
            what: format!("bit {bit} of the target of {}", node.name.path),
            expected: BTreeSet::from([(node.name.object.clone(), node.name.place.clone(), "target")]),
            touches: vec![node.name.path.clone()],
            apply: Box::new(move || {
                move_file(&path, &aside);
                in_writable(&path, || symlink(&target, &path).unwrap());
                calm(&path);
                Box::new(move || {
                    in_writable(&path, || unmake(&path));
                    move_file(&aside, &path);
                })
            }),
        }
    }

    fn rename_blob(&self, random: &mut Random) -> Damage {
        let name = random.of(&self.blobs);
        let bare = name.place.trim_end_matches('x');
        let to = match random.below(3) {
            0 if name.place == bare => format!("{bare}x"),
            0 => bare.to_owned(),
            1 => {
                let mut bytes = name.place.clone().into_bytes();
                let digit = "blobs/ab/".len() + 2 + random.below(62);
                bytes[digit] = if bytes[digit] == b'0' { b'1' } else { b'0' };
                String::from_utf8(bytes).unwrap()
            }
            _ => format!("{}z", name.place),
        };
        if self.blobs.iter().any(|blob| blob.place == to) {
            return self.rename_blob(random);
        }
        let found = match () {
            () if to.ends_with('z') => "extra",
            () if to.trim_end_matches('x') == bare => "mode",
            () => "content",
        };
        let (from, target) = (self.at(&name.path), self.at(&to));
        let metadata = fs::metadata(&from).unwrap();
        // That the name is missing is known from those who hold the content.
        let mut touches = vec![to.clone()];
        for holder in &self.names[&(metadata.dev(), metadata.ino())] {
            touches.push(holder.path.clone());
            touches.extend(holder.object.iter().map(|object| format!("trees/{}", object.id)));
        }
        Damage {
            what: format!("{} renamed to {to}", name.path),
            expected: BTreeSet::from([(None, name.place.clone(), "missing"), (None, to.clone(), found)]),
            touches,
            apply: Box::new(move || {
                fs::rename(&from, &target).unwrap();
                Box::new(move || fs::rename(&target, &from).unwrap())
            }),
        }
    }

    fn add_stray(&self, random: &mut Random) -> Damage {
        let orphan = format!("trees/{}", ObjectId::placeholder("orphan"));
        let shard = random.of(&self.blobs).place["blobs/".len()..]["ab".len() - 2..2].to_owned();
        let (path, kind) = match random.below(6) {
            0 => ("store/README".to_owned(), "extra"),
            1 => (format!("store/{}", ObjectId::placeholder("nameless")), "extra"),
            2 => ("trees/x".to_owned(), "extra"),
            3 => (orphan, "no-object"),
            4 => ("blobs/zz".to_owned(), "extra"),
            _ => (format!("blobs/{shard}/not-a-digest"), "extra"),
        };
        let full = self.at(&path);
        Damage {
            what: format!("a stray {path}"),
            expected: BTreeSet::from([(None, path.clone(), kind)]),
            touches: vec![path],
            apply: Box::new(move || {
                fs::write(&full, b"stray").unwrap();
                Box::new(move || fs::remove_file(&full).unwrap())
            }),
        }
    }

    fn damage_manifest(&self, random: &mut Random) -> Damage {
        let object = random.of(&self.objects).clone();
        let path = self.store.manifest_path(&object.id);
        let good = fs::read(&path).unwrap();
        let relative = format!("trees/{}", object.id);
        let mut expected = (Some(object.clone()), ".".to_owned(), "manifest");
        let bad = match random.below(5) {
            0 => None,
            1 => Some(good[..random.below(good.len())].to_vec()),
            2 => {
                let other = self.objects.iter().find(|other| **other != object).unwrap();
                Some(fs::read(self.store.manifest_path(&other.id)).unwrap())
            }
            3 => {
                expected = (None, relative.clone(), "mode");
                Some(good.clone())
            }
            _ => {
                let mut bad = good.clone();
                let bit = random.below(good.len() * 8);
                bad[bit / 8] ^= 1 << (bit % 8);
                Some(bad)
            }
        };
        let mode = if expected.2 == "mode" { 0o644 } else { 0o444 };
        // Nothing in the object can be judged, and so no other damage that reaches into it.
        let touches = vec![format!("store/{object}"), relative];
        Damage {
            what: format!("manifest of {object}: {} bytes", bad.as_ref().map_or(0, Vec::len)),
            expected: BTreeSet::from([expected]),
            touches,
            apply: Box::new(move || {
                fs::remove_file(&path).unwrap();
                if let Some(bad) = bad {
                    fs::write(&path, bad).unwrap();
                    set_mode(&path, mode);
                }
                Box::new(move || {
                    let _ = fs::remove_file(&path);
                    fs::write(&path, good).unwrap();
                    set_mode(&path, 0o444);
                })
            }),
        }
    }

    fn damage_index(&self, random: &mut Random) -> Damage {
        let (user, application) = (self.objects[2].clone(), self.objects[0].clone());
        let unknown = ObjectRef { id: ObjectId::placeholder("unknown"), name: "unknown".parse().unwrap() };
        let (object, kind, forward, back) = match random.below(4) {
            0 => (
                unknown.clone(),
                "missing",
                format!("INSERT INTO object VALUES (x'{}', 'unknown')", blob(&unknown)),
                format!("DELETE FROM object WHERE id = x'{}'", blob(&unknown)),
            ),
            1 => (
                user.clone(),
                "unindexed",
                format!("DELETE FROM object WHERE id = x'{}'", blob(&user)),
                format!("INSERT INTO object VALUES (x'{}', '{}')", blob(&user), user.name),
            ),
            2 => (
                user.clone(),
                "index",
                format!("DELETE FROM reference WHERE source = x'{}'", blob(&user)),
                format!("INSERT INTO reference VALUES (x'{}', x'{}', '{}')", blob(&user), blob(&application), application.name),
            ),
            _ => (
                application.clone(),
                "index",
                format!("INSERT INTO reference VALUES (x'{}', x'{}', 'user')", blob(&application), blob(&user)),
                format!("DELETE FROM reference WHERE source = x'{}'", blob(&application)),
            ),
        };
        let path = self.at("index.sqlite");
        Damage {
            what: forward.clone(),
            expected: BTreeSet::from([(Some(object.clone()), ".".to_owned(), kind)]),
            touches: vec![format!("store/{object}/:index"), format!("trees/{}", object.id)],
            apply: Box::new(move || {
                execute(&path, &forward);
                Box::new(move || execute(&path, &back))
            }),
        }
    }

    fn remove_object(&self, random: &mut Random) -> Damage {
        let object = random.of(&self.objects).clone();
        let (from, to) = (self.store.object_path(&object), self.aside());
        let mut expected =
            BTreeSet::from([(Some(object.clone()), ".".to_owned(), "missing"), (None, format!("trees/{}", object.id), "no-object")]);
        let mut touches = vec![format!("store/{object}"), format!("trees/{}", object.id)];
        if object == self.objects[0] {
            expected.insert((Some(self.objects[2].clone()), ".".to_owned(), "reference"));
            touches.push(format!("trees/{}", self.objects[2].id));
            touches.push(format!("store/{}", self.objects[2]));
        }
        Damage {
            what: format!("{object} is gone"),
            expected,
            touches,
            apply: Box::new(move || {
                set_mode(&from, 0o755);
                fs::rename(&from, &to).unwrap();
                Box::new(move || {
                    fs::rename(&to, &from).unwrap();
                    set_mode(&from, 0o555);
                })
            }),
        }
    }

    fn aside(&self) -> PathBuf {
        self.aside.join(crate::fsutil::random_name().unwrap())
    }
}
