//! Keys in text and in files, and what is refused.

use std::error::Error;

use super::*;

fn key(seed: u8) -> SecretKey {
    SecretKey { name: "ci-1".parse().unwrap(), key: SigningKey::from_bytes(&[seed; 32]) }
}

#[test]
fn the_first_test_vector_of_rfc_8032() {
    // Section 7.1, TEST 1, with the public half behind the seed, as secret keys are written.
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60".parse::<Digest>().unwrap();
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".parse::<Digest>().unwrap();
    let pair = [*seed.as_bytes(), *public.as_bytes()].concat();
    let text = format!("test-1:{}", base64::encode(&pair));
    let secret: SecretKey = text.parse().unwrap();
    assert_eq!(secret.public().to_string(), "test-1:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
}

#[test]
fn signatures_fit_one_digest_and_one_key() {
    let (digest, other) = (Digest::of(b"x"), Digest::of(b"y"));
    let signature = key(1).sign(&digest);
    assert!(signature.fits(&digest, &key(1).public()));
    assert!(!signature.fits(&other, &key(1).public()));
    assert!(!signature.fits(&digest, &key(2).public()));
    assert_eq!(signature.to_string().parse::<Signature>().unwrap(), signature);
    for bit in 0..512 {
        let mut bytes = *signature.as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!Signature::from_bytes(signature.key().clone(), bytes).fits(&digest, &key(1).public()), "bit {bit}");
    }
}

#[test]
fn public_keys_round_trip_and_others_are_refused_in_words() {
    let good = key(1).public();
    assert_eq!(good.to_string().parse::<PublicKey>().unwrap(), good);
    let secret = format!("ci-1:{}", base64::encode(&key(1).key.to_keypair_bytes()));
    let weak = format!("ci-1:{}", base64::encode(&[&[1][..], &[0; 31]].concat()));
    for (text, expected) in [
        ("", "a public key has the form `<name>:<base64>`"),
        (":AAAA", "`` is not the name of a key"),
        ("ci 1:AAAA", "`ci 1` is not the name of a key"),
        ("ci-1:AAAA", "what follows `ci-1:` is not a public key: expected 44 characters of base64"),
        (&secret, "what follows `ci-1:` is not a public key: it may be a secret key"),
        (&weak, "the key is a weak one"),
    ] {
        let message = text.parse::<PublicKey>().unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains(&secret[10..40]), "{message}");
    }
}

#[test]
fn a_secret_key_lives_in_a_file_of_its_owner() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let made = SecretKey::generate("ci-1".parse().unwrap()).unwrap();
    assert_ne!(made.public(), SecretKey::generate("ci-1".parse().unwrap()).unwrap().public());
    made.write_new_file(&path).unwrap();
    assert!(matches!(made.write_new_file(&path), Err(KeyError::Io(_))), "an existing key is not replaced");
    assert_eq!(SecretKey::read_file(&path).unwrap().public(), made.public());
    assert_eq!(format!("{made:?}"), "SecretKey(ci-1)");

    fsutil::set_mode(&path, 0o640).unwrap();
    let message = SecretKey::read_file(&path).unwrap_err().to_string();
    assert!(message.contains("has mode 0640, others can read it: run `chmod 600`"), "{message}");

    let mut swapped = made.key.to_keypair_bytes();
    swapped[40] ^= 1;
    fsutil::replace_file(&path, format!("ci-1:{}\n", base64::encode(&swapped)).as_bytes(), 0o600).unwrap();
    let error = SecretKey::read_file(&path).unwrap_err();
    let source = error.source().unwrap().to_string();
    assert!(source.contains("its two halves do not belong together"), "{error}: {source}");
    assert!(!source.contains(&base64::encode(&swapped)[..20]), "{source}");
}

#[test]
fn one_name_means_one_key() {
    let same = TrustedKeys::new([key(1).public(), key(1).public()]).unwrap();
    assert_eq!(same.to_string(), "`ci-1`");
    assert_eq!(TrustedKeys::default().to_string(), "none");
    let message = TrustedKeys::new([key(1).public(), key(2).public()]).unwrap_err().to_string();
    assert_eq!(message, "two different keys are named `ci-1`");
}
