//! Names of hosts: what may be one, patterns that stand for many, and short and full spellings.

use std::collections::BTreeSet;

/// The most hosts that one pattern may stand for.
pub(crate) const PATTERN_HOSTS_MAX: usize = 10_000;

/// The longest label of a domain name, in bytes (RFC 1035).
const LABEL_BYTES_MAX: usize = 63;

/// The longest domain name, in bytes (RFC 1035).
const NAME_BYTES_MAX: usize = 253;

/// Why a text is not a host name; nothing if it is one.
pub(crate) fn refuse_host_name(text: &str) -> Option<String> {
    if let Some(c) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c))) {
        return Some(format!("it holds `{}`", c.escape_debug()));
    }
    let length = text.len();
    if length > NAME_BYTES_MAX {
        return Some(format!("it has {length} characters, more than {NAME_BYTES_MAX}"));
    }
    for label in text.split('.') {
        let good_ends = label.starts_with(|c: char| c.is_ascii_alphanumeric()) && !label.ends_with('-');
        if label.is_empty() {
            return Some("a part between its dots is empty".to_owned());
        }
        if !good_ends {
            return Some(format!("`{label}` does not begin with a letter or digit, or ends with `-`"));
        }
        if label.len() > LABEL_BYTES_MAX {
            return Some(format!("`{label}` has more than {LABEL_BYTES_MAX} characters"));
        }
    }
    None
}

/// The short name of a host: without the domain, if it ends in just that.
pub(crate) fn short_name<'a>(written: &'a str, domain: Option<&str>) -> &'a str {
    let before = domain.and_then(|domain| written.strip_suffix(domain)).and_then(|before| before.strip_suffix('.'));
    before.filter(|before| !before.is_empty()).unwrap_or(written)
}

/// The full name of a host.
pub(crate) fn full_name(written: &str, domain: Option<&str>) -> String {
    let short = short_name(written, domain);
    domain.map_or_else(|| short.to_owned(), |domain| format!("{short}.{domain}"))
}

/// Whether a text stands for several hosts.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['[', ']'])
}

/// The names that a pattern such as `web[1-3,7].example.net` or `rack[a-c]-[01-20]` stands for, in its order.
///
/// Errors: what is wrong with it.
pub(crate) fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let mut names = vec![String::new()];
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('[') {
        let (inside, behind) = after.split_once(']').ok_or("a `[` is not closed")?;
        if before.contains(']') {
            return Err("a `]` closes nothing".to_owned());
        }
        let mut parts = Vec::new();
        for part in inside.split(',') {
            parts.extend(expand_part(part.trim())?);
        }
        if names.len() * parts.len() > PATTERN_HOSTS_MAX {
            return Err(format!("it stands for more than {PATTERN_HOSTS_MAX} hosts"));
        }
        names = names.iter().flat_map(|name| parts.iter().map(move |part| format!("{name}{before}{part}"))).collect();
        rest = behind;
    }
    if rest.contains(']') {
        return Err("a `]` closes nothing".to_owned());
    }
    for name in &mut names {
        name.push_str(rest);
    }
    let different: BTreeSet<&String> = names.iter().collect();
    if different.len() < names.len() { Err("it names a host twice".to_owned()) } else { Ok(names) }
}

/// The parts that `7`, `01-20` or `a-c` stand for.
fn expand_part(part: &str) -> Result<Vec<String>, String> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let wrong = || format!("`{part}` is neither a number, a letter nor a range of them");
    if let ([from], [to]) = (first.as_bytes(), last.as_bytes())
        && from.is_ascii_lowercase()
        && to.is_ascii_lowercase()
    {
        return if from <= to { Ok((*from..=*to).map(|c| char::from(c).to_string()).collect()) } else { Err(wrong()) };
    }
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
    let (from, to) = (number(first).ok_or_else(wrong)?, number(last).ok_or_else(wrong)?);
    if from > to {
        return Err(format!("`{part}` begins after its end"));
    }
    if usize::try_from(to - from).is_ok_and(|count| count >= PATTERN_HOSTS_MAX) {
        return Err(format!("it stands for more than {PATTERN_HOSTS_MAX} hosts"));
    }
    // A number that begins with 0 says how many digits all have.
    let width = if first.starts_with('0') { first.len() } else { 0 };
    Ok((from..=to).map(|number| format!("{number:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, expected) in [
            ("web[1-3]", Ok(vec!["web1", "web2", "web3"])),
            ("web[08-10].example.net", Ok(vec!["web08.example.net", "web09.example.net", "web10.example.net"])),
            ("[a-b][1,3]", Ok(vec!["a1", "a3", "b1", "b3"])),
            ("x", Ok(vec!["x"])),
            ("web[3-1]", Err("`3-1` begins after its end")),
            ("web[1-", Err("a `[` is not closed")),
            ("web1]", Err("a `]` closes nothing")),
            ("web[]", Err("`` is neither a number, a letter nor a range of them")),
            ("web[x-3]", Err("`x-3` is neither a number, a letter nor a range of them")),
            ("web[1,1]", Err("it names a host twice")),
            ("web[1-4000000000]", Err("it stands for more than 10000 hosts")),
            ("[1-200][1-200]", Err("it stands for more than 10000 hosts")),
        ] {
            let expected = expected.map(|names| names.into_iter().map(str::to_owned).collect()).map_err(str::to_owned);
            assert_eq!(expand(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn both_spellings_are_one_host() {
        for (written, domain, short, full) in [
            ("web1", Some("example.net"), "web1", "web1.example.net"),
            ("web1.example.net", Some("example.net"), "web1", "web1.example.net"),
            ("web1.myexample.net", Some("example.net"), "web1.myexample.net", "web1.myexample.net.example.net"),
            ("tenet", Some("net"), "tenet", "tenet.net"),
            ("a.b", None, "a.b", "a.b"),
            ("example.net", Some("example.net"), "example.net", "example.net.example.net"),
        ] {
            assert_eq!((short_name(written, domain), full_name(written, domain).as_str()), (short, full));
        }
    }

    #[test]
    fn names() {
        for good in ["a", "web-1", "1.2.3.4", "_x.a".trim_start_matches('_'), "a_b", "xn--bcher-kva.example"] {
            assert_eq!(refuse_host_name(good), None, "{good}");
        }
        for (bad, expected) in [
            ("-oProxyCommand=x", "it holds `=`"),
            ("a b", "it holds ` `"),
            ("a\nb", "it holds `\\n`"),
            ("a;b", "it holds `;`"),
            ("$(x)", "it holds `$`"),
            ("%h", "it holds `%`"),
            ("a\0", "it holds `\\0`"),
            ("me@host", "it holds `@`"),
            ("fe80::1%eth0", "it holds `:`"),
            ("", "a part between its dots is empty"),
            ("a..b", "a part between its dots is empty"),
            ("a.", "a part between its dots is empty"),
            ("-a", "`-a` does not begin with a letter or digit, or ends with `-`"),
            ("a-.b", "`a-` does not begin with a letter or digit, or ends with `-`"),
        ] {
            assert_eq!(refuse_host_name(bad).as_deref(), Some(expected), "{bad}");
        }
        assert!(refuse_host_name(&"a".repeat(64)).is_some() && refuse_host_name(&vec!["a"; 150].join(".")).is_some());
    }
}
