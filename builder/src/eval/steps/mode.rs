//! Permission bits, as a number or as text: `0o640`, `"0640"`, `"rw-r-----"`.

use starlark::values::Value;

use crate::eval::failure::Failure;

/// The bits that a definition means; set-id and sticky bits are left to the caller to accept.
pub(in crate::eval) fn parse_mode(value: Value<'_>) -> Result<u32, Failure> {
    if let Some(text) = value.unpack_str() {
        let bits = if text.len() == 9 { symbolic(text) } else { octal(text) };
        return bits.ok_or_else(|| {
            Failure::new("E0416", format!("`{}` is not a mode", text.escape_debug())).hint("write `0o640`, `\"0640\"` or `\"rw-r-----\"`")
        });
    }
    let Some(number) = value.unpack_i32() else {
        let failure = Failure::new("E0416", format!("`mode` wants a number or a string, not `{}`", value.get_type()));
        return Err(failure.hint("write `0o640`, `\"0640\"` or `\"rw-r-----\"`"));
    };
    u32::try_from(number)
        .ok()
        .filter(|bits| *bits <= 0o7777)
        .ok_or_else(|| Failure::new("E0416", format!("{number} is not a mode")).hint("write octal numbers with `0o`: `0o640`"))
}

fn octal(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let good = (3..=4).contains(&digits.len()) && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    good.then(|| u32::from_str_radix(digits, 8).ok()).flatten()
}

fn symbolic(text: &str) -> Option<u32> {
    text.bytes()
        .zip("rwxrwxrwx".bytes())
        .try_fold(0, |bits, (written, letter)| if written == letter { Some(bits << 1 | 1) } else { (written == b'-').then_some(bits << 1) })
}

/// The bits as `ls` shows them.
pub(in crate::eval) fn render_mode(bits: u32) -> String {
    (0..9).map(|place| if bits >> (8 - place) & 1 == 1 { ["r", "w", "x"][place % 3] } else { "-" }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (text, expected) in [("0640", 0o640), ("755", 0o755), ("0o600", 0o600), ("1777", 0o1777)] {
            assert_eq!(octal(text), Some(expected));
        }
        for text in ["", "0o", "64", "0999", "06400", "-640", "0x640"] {
            assert_eq!(octal(text), None, "{text}");
        }
        for bits in [0, 0o640, 0o750, 0o777, 0o123] {
            assert_eq!(symbolic(&render_mode(bits)), Some(bits));
        }
        assert_eq!(symbolic("rwxr-x---"), Some(0o750));
        assert_eq!(symbolic("rwsr-x---"), None);
        assert_eq!(symbolic("r-xrwx-w-"), Some(0o572));
    }
}
