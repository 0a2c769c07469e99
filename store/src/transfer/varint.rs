//! Numbers in as few bytes as they need. Each has one form. FORMAT.md, section "Transfer".

/// Appends a number in groups of seven bits, the lowest first, all but the last with the highest bit set.
pub(crate) fn encode_varint(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let [group, ..] = (value & 0x7f).to_le_bytes();
        value >>= 7;
        if value == 0 {
            bytes.push(group);
            return;
        }
        bytes.push(group | 0x80);
    }
}

/// Takes a number off the front of `bytes`; none if it is cut off, too large or longer than it need be.
pub(crate) fn decode_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let group = u64::from(byte & 0x7f);
        if (group << shift) >> shift != group {
            return None;
        }
        value |= group << shift;
        if byte & 0x80 == 0 {
            return (group != 0 || shift == 0).then_some(value);
        }
    }
    None
}

pub(crate) const fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}
