//! What a `Fetch` says, checked as far as it can be without the network.

use sarsen_store::RelPath;

use super::checked_name;
use crate::eval::failure::Failure;

/// The largest fetched file unless the definition says otherwise, in bytes: the sources of a browser have 1 GiB.
pub(super) const FETCH_SIZE_MAX: u64 = 2 << 30;

/// The most that `size_max` may be, in bytes: more does not come through within the deadline of a download.
const SIZE_MAX_MAX: u64 = 64 << 30;

/// The digests, each with the number of its hexadecimal digits.
const ALGORITHMS: [(&str, usize); 3] = [("sha256", 64), ("sha512", 128), ("blake3", 64)];

/// `Fetch(...)`.
#[derive(Debug)]
pub(in crate::eval) struct FetchDeclaration {
    pub(in crate::eval) name: String,
    pub(in crate::eval) urls: Vec<String>,
    pub(in crate::eval) digest: String,
    pub(in crate::eval) file: RelPath,
    pub(in crate::eval) size_max: u64,
}

impl FetchDeclaration {
    pub(super) fn checked(name: &str, urls: Vec<String>, digest: &str, file: &str, size_max: u64) -> Result<Self, Failure> {
        let name = checked_name(name, "fetch")?;
        urls.iter().try_for_each(|url| check_url(url))?;
        let Some(first) = urls.first() else {
            return Err(Failure::new("E0446", "`urls` is empty").hint("name at least one address: `urls = [\"https://...\"]`"));
        };
        if !(1..=SIZE_MAX_MAX).contains(&size_max) {
            return Err(Failure::new("E0407", format!("`size_max` goes from 1 to {SIZE_MAX_MAX}, not `{size_max}`")));
        }
        let digest = checked_digest(digest)?;
        let file = if file.is_empty() { last_part(first) } else { file };
        let file = file.parse::<RelPath>().ok().filter(|path| path.parent().is_none()).ok_or_else(|| {
            let message = format!("`{}` cannot be the name of the fetched file", file.escape_debug());
            Failure::new("E0446", message).hint("say how it is called: `file = \"name-1.0.tar.gz\"`")
        })?;
        Ok(Self { name, urls, digest, file, size_max })
    }
}

/// The last part of an address's path.
fn last_part(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    path.rsplit_once('/').map_or("", |(_, last)| last)
}

fn check_url(url: &str) -> Result<(), Failure> {
    let refuse = |reason: &str| Failure::new("E0446", format!("the address `{}` {reason}", url.escape_debug()));
    let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
        return Err(refuse("does not begin with `https://` or `http://`"));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        // Not repeated in the message: it may hold a password.
        let failure = Failure::new("E0446", "an address holds a user or a password");
        return Err(failure.hint("put them into the `~/.netrc` of those who build; definitions are read by many"));
    }
    if authority.is_empty() || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refuse("is not complete, or holds characters that must be written as `%` and two digits"));
    }
    Ok(())
}

fn checked_digest(digest: &str) -> Result<String, Failure> {
    let known = digest.split_once(':').is_some_and(|(algorithm, digits)| {
        ALGORITHMS.contains(&(algorithm, digits.len())) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    if known {
        return Ok(digest.to_ascii_lowercase());
    }
    Err(Failure::new("E0446", format!("`{}` is no digest", digest.escape_debug()))
        .hint("write `sha256:` and 64, `sha512:` and 128, or `blake3:` and 64 hexadecimal digits; `sha256sum FILE` prints them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, digest: &str, file: &str, size_max: u64) -> Result<FetchDeclaration, Failure> {
        FetchDeclaration::checked("x", vec![url.to_owned()], digest, file, size_max)
    }

    #[test]
    fn names_come_from_the_first_address() {
        let digest = format!("sha256:{}", "AB".repeat(32));
        let fetch = check("https://x.example/a/b-1.tar.gz?raw=1#top", &digest, "", 1).unwrap();
        assert_eq!((fetch.file.as_str(), fetch.digest), ("b-1.tar.gz", digest.to_ascii_lowercase()));
        assert_eq!(check("https://x.example/", &digest, "c", 1).unwrap().file.as_str(), "c");
    }

    #[test]
    fn what_cannot_be_fetched_is_refused() {
        let digest = format!("blake3:{}", "0".repeat(64));
        for (url, digest, file, size_max, expected) in [
            ("ftp://x/a", digest.as_str(), "", 1, "the address `ftp://x/a` does not begin"),
            ("https://u:secret@x/a", &digest, "", 1, "an address holds a user or a password"),
            ("https:///a", &digest, "", 1, "the address `https:///a` is not complete"),
            ("https://x/a b", &digest, "", 1, "the address `https://x/a b` is not complete"),
            ("https://x", &digest, "", 1, "`` cannot be the name"),
            ("https://x/..", &digest, "", 1, "`..` cannot be the name"),
            ("https://x/a", &digest, "a/b", 1, "`a/b` cannot be the name"),
            ("https://x/a", "md5:00", "", 1, "`md5:00` is no digest"),
            ("https://x/a", "sha512:00", "", 1, "`sha512:00` is no digest"),
            ("https://x/a", &digest, "", 0, "`size_max` goes from 1"),
        ] {
            let message = check(url, digest, file, size_max).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{url}: {message}");
        }
        assert!(FetchDeclaration::checked("x", Vec::new(), &digest, "", 1).unwrap_err().to_string().starts_with("`urls` is empty"));
    }
}
