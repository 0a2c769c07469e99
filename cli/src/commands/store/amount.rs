//! Amounts as they are typed: bytes with a unit, and parts of the store.

use sarsen_store::verify::Portion;

/// Reads a number of bytes, with a unit or without.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((end, 'K' | 'k')) => (&text[..end], 10),
        Some((end, 'M' | 'm')) => (&text[..end], 20),
        Some((end, 'G' | 'g')) => (&text[..end], 30),
        Some((end, 'T' | 't')) => (&text[..end], 40),
        _ => (text, 0),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    number.ok_or_else(|| String::from("expected a number of bytes such as `500M` or `2G`"))
}

/// Reads a part of the store: per cent with at most four decimals, or bytes.
pub(super) fn parse_portion(text: &str) -> Result<Portion, String> {
    let wrong = || String::from("expected a part of the store such as `5%` or `0.5%`, or a number of bytes such as `2G`");
    let Some(percent) = text.strip_suffix('%') else {
        return parse_bytes(text).ok().filter(|bytes| *bytes > 0).map(Portion::Bytes).ok_or_else(wrong);
    };
    let (whole, decimals) = percent.split_once('.').unwrap_or((percent, "0"));
    let digits_only = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits_only(whole) || !digits_only(decimals) || decimals.len() > 4 {
        return Err(wrong());
    }
    let millionths = format!("{whole}{decimals:0<4}").parse::<u32>().map_err(|_| wrong())?;
    if (1..=1_000_000).contains(&millionths) { Ok(Portion::Millionths(millionths)) } else { Err(wrong()) }
}

/// Reads a rate in MiB per second.
pub(super) fn parse_rate(text: &str) -> Result<u64, String> {
    let bytes = text.parse::<u64>().ok().filter(|rate| *rate > 0).and_then(|rate| rate.checked_mul(1 << 20));
    bytes.ok_or_else(|| String::from("expected a number of MiB, at least 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_may_have_units() {
        for (text, number) in [("0", 0), ("7", 7), ("1k", 1024), ("500M", 500 << 20), ("2G", 2 << 30), ("1T", 1 << 40)] {
            assert_eq!(parse_bytes(text), Ok(number));
        }
        for text in ["", "M", "-1", "1.5G", "1GB", "99999999T", "1é"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn portions_are_parts_or_bytes() {
        for (text, millionths) in [("5%", 50_000), ("100%", 1_000_000), ("0.5%", 5_000), ("0.0001%", 1), ("12.34%", 123_400)] {
            assert_eq!(parse_portion(text), Ok(Portion::Millionths(millionths)), "{text}");
        }
        assert_eq!(parse_portion("2G"), Ok(Portion::Bytes(2 << 30)));
        for text in ["", "%", "0%", "0", "101%", "-1%", "1e2%", ".5%", "5.%", "0.00001%", "99999999999%", "+5%"] {
            assert!(parse_portion(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_whole_mebibytes() {
        assert_eq!(parse_rate("10"), Ok(10 << 20));
        for text in ["0", "", "1.5", "10M", "99999999999999"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }
}
