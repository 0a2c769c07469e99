//! Keys and signatures as text, as `sarsen.toml` and files hold them: what is taken is written the same way, and no secret is shown.
#![no_main]

use sarsen_store::signature::{KeyName, PublicKey, SecretKey, Signature};
use sarsen_store::{Digest, ObjectName, ObjectRef, RelPath};

/// What is read is written as it was read.
fn round_trip<T: std::str::FromStr + ToString>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string(), text);
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    round_trip::<KeyName>(text);
    round_trip::<PublicKey>(text);
    round_trip::<Signature>(text);
    round_trip::<ObjectName>(text);
    round_trip::<ObjectRef>(text);
    round_trip::<RelPath>(text);
    if let Ok(key) = text.parse::<SecretKey>() {
        let digest = Digest::of(bytes);
        assert!(key.sign(&digest).fits(&digest, &key.public()));
        let (_, secret) = text.split_once(':').expect("a key has a colon");
        assert!(!format!("{key:?}").contains(secret));
    }
});
