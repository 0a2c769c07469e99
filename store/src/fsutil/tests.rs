//! Tests of file mutation: exact modes, no links followed, locks that end with their holders.

#![expect(clippy::disallowed_methods, reason = "tests prepare by hand what the functions under test must cope with")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn files_are_replaced_whole_with_their_exact_mode() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    replace_file(&path, b"first, and longer", 0o666).unwrap();
    assert_eq!(mode_of(&path), 0o666);
    replace_file(&path, b"second", 0o600).unwrap();
    assert_eq!((fs::read(&path).unwrap().as_slice(), mode_of(&path)), (b"second".as_slice(), 0o600));
    assert_eq!(write_new_file(&path, b"third", 0o600).unwrap_err().source.kind(), io::ErrorKind::AlreadyExists);
    append_durable(&path, b" line", 0o600).unwrap();
    assert_eq!(read_file_bounded(&path, 11).unwrap(), b"second line");
    assert_eq!(read_file_bounded(&path, 10).unwrap_err().source.kind(), io::ErrorKind::FileTooLarge);
    // No temporary file stays behind.
    assert_eq!(Directory::open(directory.path()).unwrap().names().unwrap(), ["state.json"]);
}

#[test]
fn a_directory_has_its_exact_mode_and_takes_nobodys_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    create_owned_dir(&path, 0o1777, Some((rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()))).unwrap();
    assert_eq!(mode_of(&path), 0o1777);
    symlink("data", directory.path().join("link")).unwrap();
    for taken in ["data", "link"] {
        let error = create_owned_dir(&directory.path().join(taken), 0o700, None).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
    }
    assert_eq!(mode_of(&path), 0o1777);
}

#[test]
fn a_failed_replacement_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("taken");
    create_dir_all(&path.join("by/a/directory"), 0o755).unwrap();
    assert!(replace_file(&path, b"x", 0o644).is_err());
    assert!(replace_symlink(&path, Path::new("x")).is_err());
    assert_eq!(Directory::open(directory.path()).unwrap().names().unwrap(), ["taken"]);
}

#[test]
fn links_are_replaced_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (link, target) = (directory.path().join("current"), directory.path().join("target"));
    fs::File::options().write(true).create_new(true).open(&target).unwrap();
    replace_symlink(&link, Path::new("target")).unwrap();
    replace_symlink(&link, Path::new("elsewhere")).unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("elsewhere"));
    replace_file(&link, b"x", 0o644).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_file());
    assert!(target.exists());
}

#[test]
fn removal_empties_read_only_directories_and_follows_no_link() {
    let directory = tempfile::tempdir().unwrap();
    let outside = directory.path().join("outside");
    create_dir_all(&outside, 0o755).unwrap();
    write_new_file(&outside.join("kept"), b"", 0o644).unwrap();
    let tree = directory.path().join("tree");
    create_dir_all(&tree.join("a/b/c"), 0o755).unwrap();
    write_new_file(&tree.join("a/b/file"), b"", 0o444).unwrap();
    symlink(&outside, tree.join("a/link")).unwrap();
    for path in ["a/b/c", "a/b", "a", ""] {
        set_mode(&tree.join(path), 0o555).unwrap();
    }
    remove_tree(&tree).unwrap();
    remove_tree(&tree).unwrap();
    assert!(outside.join("kept").exists());
    assert!(!tree.exists());
    // A link in the place of the tree itself goes, its target stays.
    symlink(&outside, &tree).unwrap();
    remove_tree(&tree).unwrap();
    assert!(outside.join("kept").exists() && fs::symlink_metadata(&tree).is_err());
}

#[test]
fn names_are_not_taken_from_others() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    write_new_file(&one, b"1", 0o644).unwrap();
    write_new_file(&two, b"2", 0o644).unwrap();
    assert!(!rename_noreplace(&one, &two).unwrap());
    assert_eq!(fs::read(&two).unwrap(), b"2");
    assert!(rename_noreplace(&one, &directory.path().join("three")).unwrap());
}

#[test]
fn a_lock_has_one_holder_and_says_who() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lock");
    let mut held = lock_exclusive(&path).unwrap();
    held.describe("deployment by alice\n").unwrap();
    let busy = lock_exclusive(&path).unwrap_err();
    assert!(matches!(&busy, LockError::Busy { holder, .. } if holder == "deployment by alice"), "{busy}");
    assert!(lock_shared_within(&path, std::time::Duration::from_millis(20)).is_err());
    drop(held);
    let _one = lock_shared_within(&path, std::time::Duration::ZERO).unwrap();
    let _two = lock_shared_within(&path, std::time::Duration::ZERO).unwrap();
    assert!(lock_exclusive(&path).is_err());
}

/// Set in the process of the test below that may write files of 512 bytes only.
const LIMITED: &str = "SARSEN_TEST_LIMITED";

#[test]
fn what_a_lock_file_takes_in_part_is_taken_back() {
    if std::env::var_os(LIMITED).is_none() {
        // As on a full disk, the kernel takes what fits and fails then. The limit is of a process, so this is one of its own.
        let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" --exact fsutil::tests::what_a_lock_file_takes_in_part_is_taken_back";
        let test = std::env::current_exe().unwrap();
        let ended = std::process::Command::new("sh").args(["-c", script]).arg(test).env(LIMITED, "1").output().unwrap();
        let told = String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.success() && told.contains("1 passed"), "{told}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lease");
    let mut lock = lock_exclusive(&path).unwrap();
    lock.describe("process 1\n").unwrap();
    lock.append("one\n").unwrap();
    let error = lock.append(&"x".repeat(2000)).unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::FileTooLarge);
    assert_eq!(fs::read_to_string(&path).unwrap(), "process 1\none\n");
    lock.append("two\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "process 1\none\ntwo\n");
}
