//! Lock files and the check of what was fetched.

use super::*;

const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn lock(text: &str) -> Vec<Requirement> {
    parse_lock(text).unwrap()
}

#[test]
fn layout_and_comments_do_not_matter() {
    let plain = lock(&format!("flask==2.0 --hash=sha256:{DIGEST}\nZope.Interface==5 --hash=sha256:{DIGEST}\n"));
    let other = format!(
        "# made by a tool\n--index-url https://x\nzope_interface==5 \\\n    --hash=sha256:{DIGEST}\n\nFlask[async]==2.0 --hash=sha256:{DIGEST}  # via x\n"
    );
    assert_eq!(plain, lock(&other));
    assert_eq!(plain[1].pinned, "zope-interface==5");
}

#[test]
fn loose_requirements_are_refused() {
    let cases = [
        ("flask", "has no `==`"),
        ("flask==1", "has no `--hash"),
        ("flask==1 --hash=md5:00", "option other than"),
        ("flask==1 --hash=sha256:00", "64 hexadecimal"),
    ];
    for (line, reason) in cases {
        assert!(parse_lock(line).unwrap_err().to_string().contains(reason), "{line}");
    }
}

#[test]
fn files_and_lock_must_agree() {
    let directory = tempfile::tempdir().unwrap();
    let requirements = lock(&format!("a==1 --hash=sha256:{DIGEST}\n"));
    assert!(matches!(check(&requirements, directory.path()), Err(FetchError::Missing { requirement }) if requirement == "a==1"));
    fsutil::write_new_file(&directory.path().join("a-1.whl"), b"abc", 0o644).unwrap();
    check(&requirements, directory.path()).unwrap();
    fsutil::write_new_file(&directory.path().join("b-1.whl"), b"abcd", 0o644).unwrap();
    assert!(matches!(check(&requirements, directory.path()), Err(FetchError::Undeclared { file, .. }) if file == "b-1.whl"));
}

#[test]
fn a_requirement_with_a_condition_may_be_absent() {
    let directory = tempfile::tempdir().unwrap();
    check(&lock(&format!("a==1 ; sys_platform == 'win32' --hash=sha256:{DIGEST}\n")), directory.path()).unwrap();
}
