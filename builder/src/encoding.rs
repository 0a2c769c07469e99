//! Encodings of text files, beyond UTF-8: those that hold ASCII, in one byte a character.
//!
//! Encodings that do not hold ASCII (UTF-16) are left out on purpose: places in the store are filled into files as ASCII.

/// An encoding of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Utf8,
    Ascii,
    /// ISO 8859-1.
    Latin1,
    /// ISO 8859-15.
    Latin9,
    Windows1252,
}

/// The names that are listed in messages.
pub(crate) const NAMES: [&str; 5] = ["utf-8", "ascii", "latin-1", "latin-9", "windows-1252"];

/// Where ISO 8859-15 differs from ISO 8859-1.
const LATIN9: [(u8, char); 8] = [(0xa4, '€'), (0xa6, 'Š'), (0xa8, 'š'), (0xb4, 'Ž'), (0xb8, 'ž'), (0xbc, 'Œ'), (0xbd, 'œ'), (0xbe, 'Ÿ')];

/// What Windows 1252 has from 0x80 to 0x9f; `\0` where it has nothing.
const WINDOWS1252: [char; 32] = [
    '€', '\0', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\0', 'Ž', '\0', '\0', '‘', '’', '“', '”', '•', '–', '—', '˜', '™',
    'š', '›', 'œ', '\0', 'ž', 'Ÿ',
];

impl Encoding {
    /// The encoding of that name, as Python has it: letter case and `_` do not matter.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().replace('_', "-").as_str() {
            "utf-8" | "utf8" => Some(Self::Utf8),
            "ascii" | "us-ascii" => Some(Self::Ascii),
            "latin-1" | "latin1" | "iso-8859-1" | "iso8859-1" => Some(Self::Latin1),
            "latin-9" | "latin9" | "iso-8859-15" | "iso8859-15" => Some(Self::Latin9),
            "windows-1252" | "cp1252" => Some(Self::Windows1252),
            _ => None,
        }
    }

    /// The bytes as text.
    ///
    /// Errors: the offset of the first byte that is none.
    pub(crate) fn decode(self, bytes: &[u8]) -> Result<String, usize> {
        if self == Self::Utf8 {
            return std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| error.valid_up_to());
        }
        bytes.iter().enumerate().map(|(offset, byte)| self.character(*byte).ok_or(offset)).collect()
    }

    /// The text as bytes.
    ///
    /// Errors: the first character that the encoding does not have, with its offset in the text.
    pub(crate) fn encode(self, text: &str) -> Result<Vec<u8>, (usize, char)> {
        if self == Self::Utf8 {
            return Ok(text.as_bytes().to_vec());
        }
        text.char_indices().map(|(offset, c)| self.byte(c).ok_or((offset, c))).collect()
    }

    fn character(self, byte: u8) -> Option<char> {
        match self {
            Self::Utf8 | Self::Ascii => byte.is_ascii().then_some(char::from(byte)),
            Self::Latin1 => Some(char::from(byte)),
            Self::Latin9 => Some(LATIN9.iter().find(|(code, _)| *code == byte).map_or(char::from(byte), |(_, c)| *c)),
            Self::Windows1252 => match byte {
                0x80..=0x9f => Some(WINDOWS1252[usize::from(byte - 0x80)]).filter(|c| *c != '\0'),
                _ => Some(char::from(byte)),
            },
        }
    }

    fn byte(self, c: char) -> Option<u8> {
        if c.is_ascii() {
            return u8::try_from(c).ok();
        }
        (0x80..=0xff).find(|byte| self.character(*byte) == Some(c))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_round_trips() {
        let all: Vec<u8> = (0..=255).collect();
        for name in NAMES {
            let encoding = Encoding::parse(name).unwrap();
            for byte in &all {
                if let Ok(text) = encoding.decode(&[*byte]) {
                    assert_eq!(encoding.encode(&text), Ok(vec![*byte]), "{name} {byte}");
                }
            }
        }
        assert_eq!(Encoding::Latin9.encode("5 €"), Ok(vec![b'5', b' ', 0xa4]));
        assert_eq!(Encoding::Windows1252.encode("“ü”"), Ok(vec![0x93, 0xfc, 0x94]));
        assert_eq!(Encoding::Latin1.encode("a€"), Err((1, '€')));
        assert_eq!(Encoding::Windows1252.decode(&[b'a', 0x81]), Err(1));
        assert_eq!(Encoding::Ascii.decode("aä".as_bytes()), Err(1));
        assert_eq!(Encoding::parse("ISO_8859-15"), Some(Encoding::Latin9));
        assert_eq!(Encoding::parse("utf-16"), None);
    }
}
