//! IAM's wildcards: `*` is any text, slashes included, `?` any one character.
//!
//! Source: "IAM JSON policy elements: Resource", IAM User Guide. Actions are compared without regard to
//! case, resources with.

/// Whether a pattern matches a text. Backtracks to the last `*` alone, so it is never slow.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut last_star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                last_star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match last_star {
                Some((star, from)) => {
                    last_star = Some((star, from + 1));
                    p = star + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// As [`matches`], for actions.
pub(super) fn action_matches(pattern: &str, action: &str) -> bool {
    matches(&pattern.to_ascii_lowercase(), &action.to_ascii_lowercase())
}

/// What every text that a pattern matches begins with.
pub(super) fn literal(pattern: &str) -> &str {
    let end = pattern.find(['*', '?']).into_iter();
    let end = end.chain(pattern.find("${")).min();
    &pattern[..end.unwrap_or(pattern.len())]
}

/// Whether it matches more than one text.
pub(super) fn is_wild(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_across_slashes() {
        assert!(matches("a/*/c*", "a/b/b/c"));
        assert!(matches("*", ""));
        assert!(!matches("a*b", "ac"));
        assert!(matches("a**b", "ab"));
        assert!(matches("a?c", "aéc"), "a character, not a byte");
        assert!(!matches("a?c", "ac"));
        assert!(!matches("arn:aws:s3:::B/*", "arn:aws:s3:::b/x"));
    }

    #[test]
    fn actions_have_no_case() {
        assert!(action_matches("S3:get*", "s3:GetObject"));
        assert!(!action_matches("s3:Get", "s3:GetObject"));
    }

    #[test]
    fn the_literal_part_ends_at_the_first_sign() {
        assert_eq!(literal("a/b*c"), "a/b");
        assert_eq!(literal("a/${aws:username}/?"), "a/");
        assert_eq!(literal("a"), "a");
    }
}
