//! As much of IAM's policy language as the tests and the demo need: `Allow` and `Deny` of actions on
//! resources, with `*` and `?`, and `StringLike` on `s3:prefix`.
//!
//! What is not understood is refused when the policy is read, never ignored: a policy that seems to
//! narrow and does not would make a test lie.

use serde_json::Value;

use crate::aws::policy::matches;

/// A policy document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy(Vec<Statement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Statement {
    allow: bool,
    actions: Vec<String>,
    resources: Vec<String>,
    /// Patterns for the prefix of a list; none: whatever it is.
    prefixes: Option<Vec<String>>,
}

/// Why a document was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It is not JSON.
    #[error("the policy is not JSON")]
    NotJson,
    /// It lacks something.
    #[error("the policy has no valid `{0}`")]
    Missing(&'static str),
    /// It holds something that this endpoint does not enforce.
    #[error("the policy uses `{0}`, which this endpoint does not enforce")]
    Unsupported(String),
}

impl Policy {
    /// Reads a document.
    pub(super) fn parse(document: &str) -> Result<Self, PolicyError> {
        let document: Value = serde_json::from_str(document).map_err(|_| PolicyError::NotJson)?;
        let members = document.as_object().ok_or(PolicyError::NotJson)?;
        if let Some(other) = members
            .keys()
            .find(|k| !["Version", "Id", "Statement"].contains(&k.as_str()))
        {
            return Err(PolicyError::Unsupported(other.clone()));
        }
        if members.get("Version").and_then(Value::as_str) != Some("2012-10-17") {
            return Err(PolicyError::Missing("Version"));
        }
        let statements = match members.get("Statement") {
            Some(Value::Array(statements)) => statements.as_slice(),
            Some(one @ Value::Object(_)) => std::slice::from_ref(one),
            _ => return Err(PolicyError::Missing("Statement")),
        };
        let statements = statements.iter().map(statement);
        statements.collect::<Result<_, _>>().map(Self)
    }

    /// Whether it lets this action on this resource: some statement allows it and none denies it. Only a list
    /// has a prefix.
    pub(super) fn allows(&self, action: &str, resource: &str, prefix: Option<&str>) -> bool {
        let within = |patterns: &Vec<String>| {
            prefix.is_some_and(|prefix| patterns.iter().any(|pattern| matches(pattern, prefix)))
        };
        let applies = |s: &&Statement| {
            let action = action.to_ascii_lowercase();
            s.prefixes.as_ref().is_none_or(within)
                && s.actions.iter().any(|pattern| matches(pattern, &action))
                && s.resources.iter().any(|pattern| matches(pattern, resource))
        };
        let (allow, deny): (Vec<_>, Vec<_>) = self.0.iter().filter(applies).partition(|s| s.allow);
        !allow.is_empty() && deny.is_empty()
    }
}

fn statement(value: &Value) -> Result<Statement, PolicyError> {
    let members = value.as_object().ok_or(PolicyError::Missing("Statement"))?;
    if let Some(other) = members
        .keys()
        .find(|k| !["Sid", "Effect", "Action", "Resource", "Condition"].contains(&k.as_str()))
    {
        return Err(PolicyError::Unsupported(other.clone()));
    }
    let allow = match members.get("Effect").and_then(Value::as_str) {
        Some("Allow") => true,
        Some("Deny") => false,
        _ => return Err(PolicyError::Missing("Effect")),
    };
    let actions = strings(members.get("Action")).ok_or(PolicyError::Missing("Action"))?;
    let resources = strings(members.get("Resource")).ok_or(PolicyError::Missing("Resource"))?;
    if let Some(variable) = resources.iter().find(|r| r.contains("${")) {
        return Err(PolicyError::Unsupported(variable.clone()));
    }
    Ok(Statement {
        allow,
        // Actions are compared without regard to case, resources with.
        actions: actions.iter().map(|a| a.to_ascii_lowercase()).collect(),
        resources,
        prefixes: members.get("Condition").map(prefixes).transpose()?,
    })
}

/// The one condition that is enforced.
fn prefixes(condition: &Value) -> Result<Vec<String>, PolicyError> {
    let only = |value: &Value, name: &str| {
        let members = value.as_object()?;
        members.get(name).filter(|_| members.len() == 1).cloned()
    };
    let patterns = only(condition, "StringLike").and_then(|like| only(&like, "s3:prefix"));
    let patterns = patterns.and_then(|patterns| strings(Some(&patterns)));
    patterns.ok_or_else(|| PolicyError::Unsupported("Condition".into()))
}

/// One string or a list of them; not none.
fn strings(value: Option<&Value>) -> Option<Vec<String>> {
    match value? {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(many) if !many.is_empty() => {
            many.iter().map(|v| v.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(statement: &str) -> Result<Policy, PolicyError> {
        Policy::parse(&format!(
            r#"{{"Version":"2012-10-17","Statement":{statement}}}"#
        ))
    }

    #[test]
    fn a_prefix_is_allowed_and_nothing_else() {
        let p = policy(
            r#"[{"Sid":"a","Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/world/*"}]"#,
        )
        .unwrap();
        assert!(p.allows("s3:GetObject", "arn:aws:s3:::b/world/0/0/0.png", None));
        assert!(!p.allows("s3:GetObject", "arn:aws:s3:::b/other/0/0/0.png", None));
        assert!(!p.allows("s3:PutObject", "arn:aws:s3:::b/world/0/0/0.png", None));
        assert!(!p.allows("s3:GetObject", "arn:aws:s3:::b", None));
    }

    #[test]
    fn a_list_is_held_to_its_prefix() {
        let p = policy(
            r#"{"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::b",
                "Condition":{"StringLike":{"s3:prefix":["world/*"]}}}"#,
        )
        .unwrap();
        let list = |prefix| p.allows("s3:ListBucket", "arn:aws:s3:::b", prefix);
        assert!(list(Some("world/")) && list(Some("world/3/")));
        assert!(!list(Some("worl")) && !list(Some("")) && !list(None));
    }

    #[test]
    fn a_denial_outweighs_any_allowance() {
        let p = policy(
            r#"[{"Effect":"Allow","Action":["s3:Get*"],"Resource":["*"]},
                {"Effect":"Deny","Action":"S3:GETOBJECT","Resource":"arn:aws:s3:::b/x?"}]"#,
        )
        .unwrap();
        assert!(p.allows("s3:GetObject", "arn:aws:s3:::b/x", None));
        assert!(!p.allows("s3:GetObject", "arn:aws:s3:::b/x1", None));
    }

    #[test]
    fn what_is_not_enforced_is_refused() {
        for (statement, name) in [
            (
                r#"{"Effect":"Allow","NotAction":"a","Resource":"*"}"#,
                "NotAction",
            ),
            (
                r#"{"Effect":"Allow","Action":"*","Resource":"*","Condition":{}}"#,
                "Condition",
            ),
            (
                r#"{"Effect":"Allow","Action":"*","Resource":"${aws:username}"}"#,
                "${aws:username}",
            ),
        ] {
            let error = policy(statement).unwrap_err();
            assert_eq!(error, PolicyError::Unsupported(name.into()));
        }
        let no_action = policy(r#"{"Effect":"Allow","Resource":"*"}"#);
        assert_eq!(no_action, Err(PolicyError::Missing("Action")));
        let old = Policy::parse(r#"{"Version":"2026-01-01","Statement":[]}"#);
        assert_eq!(old, Err(PolicyError::Missing("Version")));
    }
}
