//! What definitions say with `self.log` and `print`: shown to people, so bounded and without control characters.

/// The most bytes of one message.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The most messages of one evaluation; a loop that prints would fill the memory.
pub(super) const MESSAGES_MAX: usize = 1000;

/// Appends a message, cut to its limit. After the last one that is kept comes a remark.
pub(super) fn push(messages: &mut Vec<String>, text: &str) {
    match messages.len() {
        ..MESSAGES_MAX => messages.push(clean(text)),
        MESSAGES_MAX => messages.push(format!("[more than {MESSAGES_MAX} messages; the rest is dropped]")),
        _ => {}
    }
}

/// Escape sequences must not reach the terminal of the one who reads.
pub(super) fn clean(text: &str) -> String {
    let mut end = text.len().min(MESSAGE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_bounded_and_clean() {
        let mut messages = Vec::new();
        push(&mut messages, "\x1b[31mred\tand\nmore");
        push(&mut messages, &"ä".repeat(MESSAGE_BYTES_MAX));
        assert_eq!(messages[0], "\u{fffd}[31mred\tand\nmore");
        assert_eq!(messages[1], "ä".repeat(MESSAGE_BYTES_MAX / 2));
        (0..2 * MESSAGES_MAX).for_each(|_| push(&mut messages, "x"));
        assert_eq!(messages.len(), MESSAGES_MAX + 1);
        assert_eq!(messages[MESSAGES_MAX], "[more than 1000 messages; the rest is dropped]");
    }
}
