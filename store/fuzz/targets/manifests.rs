//! Trees, manifests of objects and of bundles: whatever is taken is what the writer would have written.
#![no_main]

use sarsen_store::manifest::Manifest;
use sarsen_store::{ManifestHead, ObjectManifest, Tree};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(tree) = Tree::decode(bytes) {
        assert_eq!(tree.encode(), bytes);
        assert_eq!(tree.encoded_bytes(), bytes.len() as u64);
        // Entries are found where they are listed.
        for (position, entry) in tree.entries().enumerate() {
            assert_eq!(tree.position(entry.path.as_str()), Some(position));
        }
    }
    if let Ok(manifest) = ObjectManifest::decode(bytes) {
        assert_eq!(manifest.encode(), bytes);
        assert_eq!(manifest.id(), manifest.object.id);
        let head = ManifestHead::decode_from(bytes, bytes.len() as u64).expect("a whole manifest has a head");
        assert_eq!(head, manifest.to_head());
    } else {
        drop(ManifestHead::decode_from(bytes, bytes.len() as u64));
    }
    if let Ok(bundle) = Manifest::parse(bytes) {
        assert!(Manifest::parse(bundle.to_json().as_bytes()).is_ok_and(|again| again == bundle));
    }
});
