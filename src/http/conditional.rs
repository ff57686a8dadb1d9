//! Conditional requests (RFC 9110 §13), as far as a server of whole responses needs them.

use http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH};

use super::request_head::{Fields, text};

/// Whether the client's copy is still right, so that 304 is the answer.
///
/// `If-None-Match` decides alone where it is given; `If-Modified-Since` only otherwise (§13.2.2).
/// `last_modified` is in seconds since the epoch.
pub fn is_not_modified<'r>(
    fields: impl Into<Fields<'r>>,
    etag: &[u8],
    last_modified: Option<u64>,
) -> bool {
    let fields = fields.into();
    let mut given = fields.all(&IF_NONE_MATCH).peekable();
    if given.peek().is_some() {
        return given.any(|list| matches_etag(list, etag));
    }
    let (Some(since), Some(modified)) = (fields.get(&IF_MODIFIED_SINCE), last_modified) else {
        return false;
    };
    // A date that is none is ignored (§13.1.3).
    text(since)
        .and_then(|text| httpdate::parse_http_date(text).ok())
        .and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok())
        .is_some_and(|date| modified <= date.as_secs())
}

/// Weak comparison (§8.8.3.2) of our strong tag with a list of tags or `*`.
fn matches_etag(list: &[u8], etag: &[u8]) -> bool {
    let mut rest = skip_empty(list.trim_ascii());
    // What most clients send: the tag alone.
    if rest == etag || rest == b"*" {
        return true;
    }
    // A comma may stand inside a tag's quotes, so the list is walked tag by tag.
    while !rest.is_empty() {
        let tag = rest.strip_prefix(b"W/").unwrap_or(rest);
        let Some(opened) = tag.strip_prefix(b"\"") else {
            // Not a list of tags: nothing behind this point can be trusted.
            return false;
        };
        let Some(end) = opened.iter().position(|b| *b == b'"') else {
            return false;
        };
        if &tag[..end + 2] == etag {
            return true;
        }
        rest = opened[end + 1..].trim_ascii_start();
        rest = match rest.strip_prefix(b",") {
            // Empty members of a list are allowed (§5.6.1.2).
            Some(more) => skip_empty(more),
            // Two tags without a comma between them, or the list's end.
            None => return false,
        };
    }
    false
}

/// The list behind its empty members (§5.6.1.2).
fn skip_empty(list: &[u8]) -> &[u8] {
    let empty = list.iter().take_while(|b| matches!(b, b',' | b' ' | b'\t'));
    &list[empty.count()..]
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    const TAG: &[u8] = b"\"abc\"";

    fn with(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn none_match(value: &str) -> bool {
        is_not_modified(&with(&[(IF_NONE_MATCH, value)]), TAG, Some(1_000_000_000))
    }

    #[test]
    fn lists_weak_tags_and_the_star_match() {
        for value in [
            "\"abc\"",
            "W/\"abc\"",
            "*",
            "\"x\", \"abc\"",
            "\"x\",W/\"abc\"",
            "\"a,b\" , \"abc\"",
            "\"x\",,\"abc\"",
            " \"abc\" ",
            ",, \"abc\"",
        ] {
            assert!(none_match(value), "{value}");
        }
    }

    #[test]
    fn other_tags_and_nonsense_do_not() {
        for value in [
            "\"x\"",
            "abc",
            "\"abc",
            "\"abcd\"",
            "",
            "w/\"abc\"",
            "\"x\" \"abc\"",
            "\"x\", *",
        ] {
            assert!(!none_match(value), "{value}");
        }
    }

    #[test]
    fn several_header_lines_are_one_list() {
        let headers = with(&[(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, "\"abc\"")]);
        assert!(is_not_modified(&headers, TAG, None));
    }

    #[test]
    fn a_date_counts_only_without_tags() {
        let date = "Sun, 09 Sep 2001 01:46:40 GMT";
        let since = |modified| is_not_modified(&with(&[(IF_MODIFIED_SINCE, date)]), TAG, modified);
        assert!(since(Some(1_000_000_000)));
        assert!(since(Some(999_999_999)));
        assert!(!since(Some(1_000_000_001)));
        assert!(!since(None));
        let both = with(&[(IF_MODIFIED_SINCE, date), (IF_NONE_MATCH, "\"x\"")]);
        assert!(!is_not_modified(&both, TAG, Some(1)));
        let nonsense = with(&[(IF_MODIFIED_SINCE, "yesterday")]);
        assert!(!is_not_modified(&nonsense, TAG, Some(1)));
    }
}
