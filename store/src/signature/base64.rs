//! Base64 with padding (RFC 4648, section 4), for keys and signatures.
//!
//! One spelling for each value: the decoder refuses missing padding, white space and bits that no byte has, so that a signature cannot be
//! changed in text without changing in value.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes bytes as text.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0u32, |bits, (position, byte)| bits | u32::from(*byte) << (16 - 8 * position));
        for position in 0..4 {
            let index = usize::from((bits >> (18 - 6 * position) & 63) as u8);
            text.push(if position > group.len() { '=' } else { char::from(ALPHABET[index]) });
        }
    }
    text
}

/// Reads exactly `N` bytes; nothing if the text is not what [`encode`] writes for them.
pub(super) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != N.div_ceil(3) * 4 {
        return None;
    }
    let mut bytes = [0; N];
    for (out, group) in bytes.chunks_mut(3).zip(text.chunks(4)) {
        let (letters, padding) = group.split_at(out.len() + 1);
        if padding.iter().any(|c| *c != b'=') {
            return None;
        }
        let mut bits = 0u32;
        for (position, c) in letters.iter().enumerate() {
            bits |= u32::try_from(ALPHABET.iter().position(|known| known == c)?).ok()? << (18 - 6 * position);
        }
        let [_, value @ ..] = bits.to_be_bytes();
        if value[out.len()..].iter().any(|rest| *rest != 0) {
            return None;
        }
        out.copy_from_slice(&value[..out.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc() {
        assert_eq!(encode(b"f"), "Zg==");
        assert_eq!(encode(b"fo"), "Zm8=");
        assert_eq!(encode(b"foobar"), "Zm9vYmFy");
        assert_eq!(decode(&encode(b"f")), Some(*b"f"));
        assert_eq!(decode(&encode(b"fo")), Some(*b"fo"));
        assert_eq!(decode(&encode(b"foobar")), Some(*b"foobar"));
    }

    #[test]
    fn each_value_has_one_spelling() {
        for text in ["Zh==", "Zg=", "Zg", "Zg==\n", " Zg=", "Z===", "Zg=a", "Z-=="] {
            assert_eq!(decode::<1>(text), None, "{text:?}");
        }
        assert_eq!(decode::<2>("Zm9="), None);
    }
}
