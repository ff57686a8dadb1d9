//! Keys of features that this version does not have. They are refused, never ignored: a limit that nobody
//! enforces is a hole. A feature that gets built takes its lines out of the table.

/// What is said of such a key.
pub(super) const WHAT: &str = "is not built in this version yet";
/// And what to do.
pub(super) const REMEDY: &str = "remove it";

/// Section (`*` for any name), key, and the value that it is about: empty for any.
const NOT_YET: [(&str, &str, &str); 4] = [
    ("", "cloudfront", ""),
    ("", "events", ""),
    ("tilesets.*", "archive", ""),
    ("tilesets.*", "delivery", "redirect"),
];

/// Whether this key, with this value where it is a string, is of such a feature.
pub(super) fn is(section: &str, key: &str, value: Option<&str>) -> bool {
    NOT_YET.iter().any(|&(s, k, v)| {
        (s, k) == (section, key) && (v.is_empty() || value.is_some_and(|value| value == v))
    })
}
