//! Exports of which a bit is not what a trusted key has signed, and lists in another form than the writer's, are refused in their own words.

use super::super::import;
use super::super::statement::{SignedStatement, encode_list};
use super::refused::assert_untouched;
use super::*;
use crate::Digest;
use crate::signature::Signature;

type TamperStatement = Box<dyn Fn(&mut SignedStatement)>;

/// An export of two objects, one of which needs the other, and its list taken apart.
struct Export {
    _directory: TempDir,
    library: ObjectRef,
    application: ObjectRef,
    bytes: Vec<u8>,
    list: Vec<SignedStatement>,
}

fn exported(signers: &[SecretKey]) -> Export {
    let (directory, from) = store();
    let library = put(&from, "library", &[file("lib", b"code")], &[]);
    let application = put(&from, "app", &[file("bin/app", format!("uses {library}").as_bytes())], std::slice::from_ref(&library));
    let mut bytes = Vec::new();
    export(&from, std::slice::from_ref(&application), &mut bytes, signers).unwrap();
    let sign = |object| Statement::of(&from.manifest(object).unwrap()).sign(signers);
    let list = vec![sign(&library), sign(&application)];
    Export { _directory: directory, library, application, bytes, list }
}

impl Export {
    /// The file with another list in front of the same packed objects.
    fn with_list(&self, list: &[SignedStatement]) -> Vec<u8> {
        let end = 8 + encode_list(&self.list).len();
        let list = encode_list(list);
        let length = u32::try_from(list.len()).unwrap().to_le_bytes();
        [&self.bytes[..4], &length, &list, &self.bytes[end..]].concat()
    }
}

fn import_words(to: &ObjectStore, bytes: &[u8], trusted: &TrustedKeys) -> String {
    chain(&import(to, bytes, trusted).unwrap_err())
}

#[test]
fn only_what_a_trusted_key_has_signed() {
    let (_there, to) = store();
    let trusted = trusting(&[key("ci-1", 1), key("ci-2", 2)]);
    let unsigned = exported(&[]);
    let Export { library, application, .. } = &unsigned;
    assert_eq!(unsigned.with_list(&unsigned.list), unsigned.bytes);
    assert_eq!(
        import_words(&to, &unsigned.bytes, &trusted),
        format!("`{library}` is not signed: import takes what a trusted key has signed (trusted: `ci-1`, `ci-2`)")
    );
    assert_eq!(
        import_words(&to, &exported(&[key("mallory", 9)]).bytes, &trusted),
        format!("`{library}` is signed by `mallory` only, which is not trusted here (trusted: `ci-1`, `ci-2`)")
    );
    let does_not_fit = |object: &ObjectRef, key: &str| {
        format!("the signature of `{object}` by `{key}` does not fit: what is said of the object was changed, or another key has this name")
    };
    let impostor = exported(&[key("ci-1", 9)]);
    assert_eq!(import_words(&to, &impostor.bytes, &trusted), does_not_fit(library, "ci-1"));
    // A good signature does not make up for a wrong one.
    assert_eq!(import_words(&to, &exported(&[key("ci-1", 9), key("ci-2", 2)]).bytes, &trusted), does_not_fit(library, "ci-1"));

    let good = exported(&[key("ci-2", 2)]);
    let tampered: Vec<TamperStatement> = vec![
        Box::new(|signed| signed.statement.object.name = "app2".parse().unwrap()),
        Box::new(|signed| signed.statement.object.id = ObjectId::placeholder("other")),
        Box::new(|signed| signed.statement.manifest = Digest::of(b"other")),
        Box::new(|signed| signed.statement.manifest_bytes += 1),
        Box::new(|signed| signed.statement.tar_bytes += 512),
        Box::new(|signed| signed.statement.references.clear()),
    ];
    for tamper in tampered {
        let mut list = good.list.clone();
        tamper(&mut list[1]);
        let object = list[1].statement.object.clone();
        assert_eq!(import_words(&to, &good.with_list(&list), &trusted), does_not_fit(&object, "ci-2"));
    }
    // The signature of one object says nothing of another.
    let mut list = good.list.clone();
    list[1].signatures = list[0].signatures.clone();
    assert_eq!(import_words(&to, &good.with_list(&list), &trusted), does_not_fit(application, "ci-2"));
    assert_untouched(&to);
    assert_eq!(import(&to, &good.bytes[..], &trusted).unwrap().objects_new, 2);
}

#[test]
fn lists_have_one_form() {
    let (_there, to) = store();
    let keys = [key("ci", 1)];
    let trusted = trusting(&keys);
    let good = exported(&keys);
    let [library, application] = &good.list[..] else { panic!("two objects") };
    let signature = |name: &str| Signature::from_bytes(name.parse().unwrap(), [0; 64]);
    let with_signatures = |signatures: Vec<Signature>| SignedStatement { statement: library.statement.clone(), signatures };
    let mut newer = good.bytes.clone();
    newer[11] = b'2';
    let declared = |length: u32| [&good.bytes[..4], &length.to_le_bytes(), &good.bytes[8..]].concat();
    let huge = Statement { tar_bytes: 1 << 60, ..library.statement.clone() }.sign(&keys);
    let format = "this is not an export of sarsen, or a damaged one: its list of objects breaks the format: ";
    for (bytes, expected) in [
        (Vec::new(), "it ends within its first bytes".to_owned()),
        (b"hello, world".to_vec(), "it does not start with a list of objects".to_owned()),
        (good.bytes[8 + encode_list(&good.list).len()..].to_vec(), "a packed object alone has no list and no signatures".to_owned()),
        (newer, format!("{format}the first bytes are not `SRX1`: damaged, or written by another version of sarsen")),
        (declared(u32::MAX), "bytes of the list: 4294967295 exceeds the limit of 67108864".to_owned()),
        (declared(1 << 20), "it ends within the list of objects".to_owned()),
        (declared(40), format!("{format}the bytes end within a value")),
        (
            good.with_list(&[application.clone(), library.clone()]),
            format!("`{}` needs `{}`, which does not come before it", good.application, good.library),
        ),
        (good.with_list(std::slice::from_ref(application)), "which does not come before it".to_owned()),
        (good.with_list(&[library.clone(), library.clone()]), "its list names an object twice".to_owned()),
        (good.with_list(std::slice::from_ref(library)), "bytes follow its end".to_owned()),
        (good.with_list(&[with_signatures(vec![signature("b"), signature("a")])]), format!("{format}the signatures are not sorted at `a`")),
        (good.with_list(&[with_signatures(vec![signature("a"), signature("a")])]), format!("{format}the signatures are not sorted at `a`")),
        (
            good.with_list(&[with_signatures((0..17).map(|number| signature(&format!("k{number:02}"))).collect())]),
            format!("{format}signatures of an object: 17 exceeds the limit of 16"),
        ),
        (good.with_list(&[huge]), "unpacking may take 1152921504606846976 bytes and only ".to_owned()),
        ([good.bytes.as_slice(), b"x"].concat(), "bytes follow its end".to_owned()),
        (
            good.bytes[..good.bytes.len() - 1].to_vec(),
            format!("the packed object `{}` is refused: it ends within the end of the archive", good.application),
        ),
    ] {
        let words = import_words(&to, &bytes, &trusted);
        assert!(words.contains(&expected), "{words}, expected {expected}");
    }
    assert_untouched(&to);
}

#[test]
fn what_comes_is_what_was_signed() {
    let (_there, to) = store();
    let keys = [key("ci", 1)];
    let good = exported(&keys);
    let list = &good.list[0];
    // The same object, another statement, properly signed.
    for (statement, expected) in [
        (Statement { manifest: Digest::of(b"x"), ..list.statement.clone() }, "its manifest is not the one that was signed"),
        (Statement { manifest_bytes: 10, ..list.statement.clone() }, "bytes of the manifest: "),
        (Statement { tar_bytes: 4096, ..list.statement.clone() }, "its archive has not the length that was signed"),
    ] {
        let words = import_words(&to, &good.with_list(&[statement.sign(&keys)]), &trusting(&keys));
        assert!(words.contains(&format!("the packed object `{}` is refused: {expected}", good.library)), "{words}");
    }
    assert_untouched(&to);
}

#[test]
fn the_list_of_an_export_cannot_be_changed() {
    let keys = [key("ci", 1)];
    let (trusted, good) = (trusting(&keys), exported(&keys));
    let (_there, to) = store();
    // Packed objects are flipped through above. Here one bit of each byte, another one each time.
    for byte in 0..8 + encode_list(&good.list).len() {
        let mut flipped = good.bytes.clone();
        flipped[byte] ^= 1 << (byte % 8);
        assert!(import(&to, &flipped[..], &trusted).is_err(), "byte {byte}");
    }
    assert_untouched(&to);
}
