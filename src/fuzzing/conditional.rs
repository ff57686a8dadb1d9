//! `If-None-Match` and `If-Modified-Since`: 304 only for a tag that is listed, or a star.
//!
//! A line that begins with `@` is a date, the others are lists of tags.

use http::HeaderMap;
use http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH};

use super::header_values;
use crate::http::conditional::is_not_modified;

const TAG: &[u8] = b"\"abc\"";
const MODIFIED: u64 = 1_000_000_000;

pub(super) fn run(data: &[u8]) {
    let (mut headers, mut date) = (HeaderMap::new(), None);
    for value in header_values(data) {
        if let Some(text) = value.as_bytes().strip_prefix(b"@") {
            date = Some(http::HeaderValue::from_bytes(text).unwrap());
        } else {
            headers.append(IF_NONE_MATCH, value);
        }
    }
    let without_date = is_not_modified(&headers, TAG, Some(MODIFIED));
    if let Some(date) = date {
        headers.insert(IF_MODIFIED_SINCE, date);
    }
    let answer = is_not_modified(&headers, TAG, Some(MODIFIED));
    let lists: Vec<_> = headers.get_all(IF_NONE_MATCH).iter().collect();
    if lists.is_empty() {
        assert!(!without_date);
        let none = is_not_modified(&headers, TAG, None);
        assert!(
            !none,
            "without a date of its own there is nothing to compare"
        );
        return;
    }
    assert_eq!(answer, without_date, "tags decide alone");
    let read: Vec<Option<bool>> = lists.iter().map(|list| listed(list.as_bytes())).collect();
    if read.contains(&Some(true)) {
        assert!(answer, "{lists:?}");
    } else if read.iter().all(Option::is_some) {
        assert!(!answer, "{lists:?}");
    } else if answer {
        // In what is no list the tag may still stand in front of the nonsense, or a star behind empty members; one of
        // them stands there, though.
        let there = |list: &[u8]| {
            let tag = list.windows(TAG.len()).any(|part| part == TAG);
            tag || list.iter().all(|b| b"*, \t".contains(b))
        };
        assert!(lists.iter().any(|list| there(list.as_bytes())), "{lists:?}");
    }
}

/// Whether a list has our tag or is a star, by the grammar of RFC 9110 §8.8.3 and §5.6.1 and nothing else; `None` for
/// what is no list.
fn listed(list: &[u8]) -> Option<bool> {
    let list = list.trim_ascii();
    if list.contains(&b'*') && list.iter().all(|b| b"*, \t".contains(b)) {
        // A star among empty members is let pass as a star, or is nonsense.
        return (list == b"*").then_some(true);
    }
    let (mut found, mut rest) = (false, list);
    loop {
        while let [b',' | b' ' | b'\t', behind @ ..] = rest {
            rest = behind;
        }
        if rest.is_empty() {
            return Some(found);
        }
        let tag = rest.strip_prefix(b"W/").unwrap_or(rest);
        let inside = tag.strip_prefix(b"\"")?;
        let end = inside.iter().position(|b| *b == b'"')?;
        let etagc = |b: &u8| *b == 0x21 || (0x23..=0x7e).contains(b) || *b >= 0x80;
        if !inside[..end].iter().all(etagc) {
            return None;
        }
        found |= &tag[..end + 2] == TAG;
        rest = inside[end + 1..].trim_ascii_start();
        if !rest.is_empty() && rest[0] != b',' {
            return None;
        }
    }
}
