//! The format, and what is said about files that are not in it.

use super::*;

const TREE: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";

fn project(packages: &str, lock: &str) -> Snapshot {
    let settings = format!("[project]\nname = \"p\"\n[packages]\n{packages}");
    Snapshot::from_texts([(PROJECT_FILE, settings.as_str()), (LOCK_FILE, lock)])
}

fn locked(reference: Reference) -> LockedPackage {
    let request = PackageRequest { git: "https://git.example.net/\"web\".git".to_owned(), reference };
    LockedPackage { request, revision: REVISION.to_owned(), tree: TREE.parse().unwrap() }
}

fn refusal(lock: &str) -> (String, Option<u32>) {
    let diagnostic = find_lock(&project("", lock)).unwrap_err().remove(0);
    assert!(!diagnostic.hints.is_empty(), "{lock}");
    (diagnostic.message, diagnostic.location.map(|location| location.line))
}

#[test]
fn what_is_written_is_read_and_sorted() {
    let references = [
        ("b", Reference::Tag("v1".to_owned())),
        ("a", Reference::Branch("main".to_owned())),
        ("c", Reference::Revision(REVISION.to_owned())),
    ];
    let lock = Lock { packages: references.map(|(name, reference)| (name.to_owned(), locked(reference))).into() };
    let text = lock.render();
    assert_eq!(find_lock(&project("", &text)).unwrap(), lock);
    insta::assert_snapshot!(text, @r#"
    # Written by `sarsen lock`; what it means: builder/LOCK.md. Do not edit.
    version = 1

    [packages.a]
    git = 'https://git.example.net/"web".git'
    branch = "main"
    revision = "0123456789abcdef0123456789abcdef01234567"
    tree = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"

    [packages.b]
    git = 'https://git.example.net/"web".git'
    tag = "v1"
    revision = "0123456789abcdef0123456789abcdef01234567"
    tree = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"

    [packages.c]
    git = 'https://git.example.net/"web".git'
    rev = "0123456789abcdef0123456789abcdef01234567"
    revision = "0123456789abcdef0123456789abcdef01234567"
    tree = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    "#);
    assert_eq!(find_lock(&Snapshot::from_texts([(PROJECT_FILE, "")])).unwrap(), Lock::default());
}

#[test]
fn files_that_are_none_are_refused_with_their_line() {
    let good = Lock { packages: [("web".to_owned(), locked(Reference::Tag("v1".to_owned())))].into() }.render();
    let conflict = good.replace("revision =", "<<<<<<< ours\nrevision =") + "=======\n>>>>>>> theirs\n";
    assert_eq!(refusal(&conflict), ("`sarsen.lock` has an unresolved merge conflict".to_owned(), Some(7)));
    let newer = good.replace("version = 1", "version = 2\nother = true");
    assert_eq!(refusal(&newer).0, "`sarsen.lock` has version 2, this sarsen knows version 1");
    for (from, to, expected) in [
        ("version = 1", "", "missing field `version`"),
        ("tag =", "tags =", "unknown field `tags`"),
        ("tag = \"v1\"", "", "the entry of package `web`"),
        ("tag =", "rev = \"x\"\ntag =", "the entry of package `web`"),
        ("tree = \"af", "tree = \"zz", "the entry of package `web`"),
        ("revision = \"01", "revision = \"", "the entry of package `web`"),
        ("packages.web", "packages.\"W/..\"", "the entry of package `W/..`"),
    ] {
        assert!(good.contains(from), "{from}");
        let (message, _) = refusal(&good.replace(from, to));
        assert!(message.contains(expected), "{from} -> {to}: {message}");
    }
}

#[test]
fn missing_stale_and_superfluous_entries_are_told() {
    let lock = Lock { packages: [("old".to_owned(), locked(Reference::Tag("v1".to_owned())))].into() };
    let check = |packages: &str| {
        let snapshot = project(packages, &lock.render());
        let mut diagnostics = Vec::new();
        let project = parse_project(&snapshot, &mut diagnostics).unwrap();
        check_lock(&snapshot, &project, &mut diagnostics);
        let pinned: Vec<String> = find_pinned(&snapshot).into_keys().collect();
        let told = diagnostics.into_iter().map(|diagnostic| (diagnostic.code, diagnostic.message, diagnostic.location.unwrap().line));
        (told.collect::<Vec<_>>(), pinned)
    };
    let url = "'https://git.example.net/\"web\".git'";
    assert_eq!(check(&format!("old = {{ git = {url}, tag = \"v1\" }}")), (vec![], vec!["old".to_owned()]));
    let (told, pinned) = check(&format!("old = {{ git = {url}, tag = \"v2\" }}\nnew = {{ git = \"x\", branch = \"main\" }}"));
    assert!(pinned.is_empty());
    assert_eq!(told[0], ("E0114", "package `new` has no entry in `sarsen.lock`".to_owned(), 5));
    let stale = "the entry of package `old` in `sarsen.lock` is stale: it is for tag `v1` of `https://git.example.net/\"web\".git`";
    assert_eq!(told[1], ("E0114", stale.to_owned(), 4));
    let (told, _) = check("");
    assert_eq!(told, [("E0115", "`sarsen.lock` has an entry for package `old`, which `sarsen.toml` does not declare".to_owned(), 4)]);
}
