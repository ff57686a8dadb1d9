//! Whether a statement's conditions hold when a tile is read.
//!
//! Only those are judged whose outcome does not depend on where the server is; of the others it is said
//! that they were not.

use super::document::Statement;

/// What is known of a statement's conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They hold.
    Holds,
    /// This one does not.
    Fails(String),
    /// It depends on these.
    Unknown(String),
}

/// Whether the statement applies, its action and resource aside.
pub(super) fn judge(statement: &Statement, tls: bool) -> Verdict {
    let mut unknown = Vec::new();
    for (operator, key, values) in &statement.conditions {
        match judge_one(operator, key, values, tls) {
            Some(true) => {}
            Some(false) => return Verdict::Fails(key.clone()),
            None => unknown.push(format!("`{key}`")),
        }
    }
    if unknown.is_empty() {
        Verdict::Holds
    } else {
        Verdict::Unknown(unknown.join(", "))
    }
}

fn judge_one(operator: &str, key: &str, values: &[String], tls: bool) -> Option<bool> {
    let operator = operator.to_ascii_lowercase();
    let says = |word: &str| values.iter().any(|value| value.eq_ignore_ascii_case(word));
    match key.to_ascii_lowercase().as_str() {
        // They belong to a listing. S3 asks for s3:ListBucket when an object is missing too, and that
        // request has none of them.
        "s3:prefix" | "s3:delimiter" | "s3:max-keys" => Some(absent_key(&operator, &says)),
        "aws:securetransport" if operator.starts_with("bool") => {
            Some(if says("true") { tls } else { !tls })
        }
        // S3 asks KMS.
        "kms:viaservice" => Some(values.iter().any(|v| v.starts_with("s3."))),
        _ => None,
    }
}

/// How an operator takes a key that the request does not have ("IAM JSON policy elements: Condition
/// operators").
fn absent_key(operator: &str, says: &impl Fn(&str) -> bool) -> bool {
    if operator == "null" {
        return says("true");
    }
    operator.ends_with("ifexists")
        || operator.starts_with("forallvalues:")
        || operator.contains("not")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_absent_fails_what_wants_it_and_passes_what_does_not() {
        let prefix = |operator: &str, value: &str| {
            judge_one(operator, "s3:prefix", &[value.to_owned()], true)
        };
        assert_eq!(prefix("StringLike", "w/*"), Some(false));
        assert_eq!(prefix("StringLikeIfExists", "w/*"), Some(true));
        assert_eq!(prefix("StringNotLike", "w/*"), Some(true));
        assert_eq!(prefix("Null", "true"), Some(true));
        assert_eq!(prefix("Null", "false"), Some(false));
    }

    #[test]
    fn what_depends_on_the_place_is_not_judged() {
        let values = ["vpce-1".to_owned()];
        assert_eq!(
            judge_one("StringEquals", "aws:SourceVpce", &values, true),
            None
        );
        let no = ["false".to_owned()];
        assert_eq!(
            judge_one("Bool", "aws:SecureTransport", &no, true),
            Some(false)
        );
        assert_eq!(
            judge_one("Bool", "aws:SecureTransport", &no, false),
            Some(true)
        );
    }
}
