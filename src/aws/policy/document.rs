//! A policy as somebody wrote it: read leniently, so that everything wrong with it can be said at once.
//!
//! Invariant: what IAM would refuse, or read otherwise than it looks, is a finding. Left out on purpose:
//! what it allows (`check`).

use serde_json::{Map, Value};

use super::check::Finding;

/// Why nothing can be said of a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not JSON.
    #[error("line {line}, column {column}: this is not JSON: {what}")]
    NotJson {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// The parser's words.
        what: String,
    },
    /// JSON, and no policy.
    #[error("{0}")]
    NoPolicy(&'static str),
}

/// A policy.
pub(super) struct Document {
    pub(super) statements: Vec<Statement>,
}

/// One of its statements.
pub(super) struct Statement {
    /// As people count, from 1, with its `Sid`.
    pub(super) name: String,
    pub(super) allows: bool,
    pub(super) actions: Names,
    pub(super) resources: Names,
    /// Operator, key and values.
    pub(super) conditions: Vec<(String, String, Vec<String>)>,
}

/// What `Action` or `Resource` names.
pub(super) enum Names {
    These(Vec<String>),
    /// `NotAction`, `NotResource`.
    AllBut(Vec<String>),
}

impl Names {
    /// The patterns, whichever way they are meant.
    pub(super) fn patterns(&self) -> &[String] {
        match self {
            Self::These(patterns) | Self::AllBut(patterns) => patterns,
        }
    }

    /// Whether it names this.
    pub(super) fn name(&self, matches: impl Fn(&str) -> bool) -> bool {
        let any = self.patterns().iter().any(|pattern| matches(pattern));
        match self {
            Self::These(_) => any,
            Self::AllBut(_) => !any,
        }
    }
}

/// Reads a document. What is wrong with its form goes to `findings`.
pub(super) fn read(text: &str, findings: &mut Vec<Finding>) -> Result<Document, Unusable> {
    let value: Value = serde_json::from_str(text).map_err(|error| Unusable::NotJson {
        line: error.line(),
        column: error.column(),
        what: error.to_string(),
    })?;
    let value = unwrap(&value);
    let Some(members) = value.as_object() else {
        return Err(Unusable::NoPolicy(
            "this is no policy: it is a JSON object with `Version` and `Statement`",
        ));
    };
    let statements = match members.get("Statement") {
        Some(Value::Array(statements)) => statements.as_slice(),
        Some(one @ Value::Object(_)) => std::slice::from_ref(one),
        Some(_) => return Err(Unusable::NoPolicy("`Statement` is not a list of objects")),
        None => {
            return Err(Unusable::NoPolicy(
                "this is no policy: it has no `Statement` (names are written with a capital)",
            ));
        }
    };
    members_known("", members, &["Version", "Id", "Statement"], findings);
    version(members, text.contains("${"), findings);
    let mut sids: Vec<&str> = Vec::new();
    let mut read = Vec::new();
    for (index, value) in statements.iter().enumerate() {
        let number = format!("statement {}", index + 1);
        let Some(members) = value.as_object() else {
            let what = "is not an object";
            findings.push(Finding::wrong(&number, what, "write { \"Effect\": … }"));
            continue;
        };
        let sid = members.get("Sid").and_then(Value::as_str);
        let name = sid.map_or(number.clone(), |sid| {
            format!("{number} (`{}`)", sid.escape_debug())
        });
        if let Some(sid) = sid {
            if sids.contains(&sid) {
                let what = "has the `Sid` of another statement";
                findings.push(Finding::wrong(&name, what, "each `Sid` may be there once"));
            }
            sids.push(sid);
            if !sid.bytes().all(|b| b.is_ascii_alphanumeric()) {
                let what = "has a `Sid` that IAM refuses in a policy of a user or role";
                findings.push(Finding::wrong(&name, what, "use letters and digits alone"));
            }
        }
        read.extend(statement(name, members, findings));
    }
    if statements.is_empty() {
        findings.push(Finding::wrong(
            "",
            "`Statement` is empty",
            "`tilekeep iam-policy` prints what has to be in it",
        ));
    }
    Ok(Document { statements: read })
}

/// The document in what `tilekeep iam-policy`, `aws iam get-role-policy` and `get-policy-version` print.
fn unwrap(value: &Value) -> &Value {
    let inside = ["policy", "PolicyDocument", "Document"]
        .iter()
        .find_map(|name| value.get(name));
    let version = value.get("PolicyVersion").and_then(|v| v.get("Document"));
    inside.or(version).unwrap_or(value)
}

fn version(members: &Map<String, Value>, has_variables: bool, findings: &mut Vec<Finding>) {
    const NOW: &str =
        "write \"Version\": \"2012-10-17\": it is the language's version, not the policy's date";
    match members.get("Version") {
        Some(Value::String(version)) if version == "2012-10-17" => {}
        Some(Value::String(version)) if version == "2008-10-17" => {
            if has_variables {
                let what = "`Version` 2008-10-17 takes ${…} for plain text";
                findings.push(Finding::wrong("", what, NOW));
            }
        }
        Some(version) => {
            let version = version.to_string();
            let what = format!("IAM knows no `Version` {version}, only 2012-10-17 and 2008-10-17");
            findings.push(Finding::wrong("", what, NOW));
        }
        None => {
            let what = "`Version` is missing, so that IAM reads it as of 2008";
            findings.push(Finding::unjudged("", what, NOW));
        }
    }
}

fn statement(
    name: String,
    members: &Map<String, Value>,
    findings: &mut Vec<Finding>,
) -> Option<Statement> {
    const KNOWN: [&str; 9] = [
        "Sid",
        "Effect",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Condition",
        "Principal",
        "NotPrincipal",
    ];
    members_known(&name, members, &KNOWN, findings);
    let mut wrong = |what: String, remedy: &str| {
        findings.push(Finding::wrong(&name, what, remedy));
    };
    if let Some(principal) = ["Principal", "NotPrincipal"]
        .iter()
        .find(|p| members.contains_key(**p))
    {
        let trusts = members.get("Action").is_some_and(|a| {
            a.to_string()
                .to_ascii_lowercase()
                .contains("\"sts:assumerole")
        });
        let remedy = if trusts {
            "this is a trust policy: it belongs to the role's trust relationship; check the role's permissions"
        } else {
            "remove it: the policy is attached to whom it is about. Only bucket policies and trusts name somebody"
        };
        wrong(
            format!("has a `{principal}`, which IAM refuses in a policy of a user or role"),
            remedy,
        );
    }
    let effect = members.get("Effect").and_then(Value::as_str);
    if !matches!(effect, Some("Allow" | "Deny")) {
        wrong(
            "has no valid `Effect`".to_owned(),
            "write \"Effect\": \"Allow\", with a capital",
        );
    }
    let mut names = |positive: &str, negative: &str| {
        let these = members.get(positive).map(strings);
        let all_but = members.get(negative).map(strings);
        match (these, all_but) {
            (Some(Some(these)), None) => Some(Names::These(these)),
            (None, Some(Some(all_but))) => Some(Names::AllBut(all_but)),
            (None, None) => {
                wrong(format!("has no `{positive}`"), "IAM refuses it without one");
                None
            }
            (Some(_), Some(_)) => {
                wrong(
                    format!("has both `{positive}` and `{negative}`"),
                    "leave the second out",
                );
                None
            }
            _ => {
                wrong(
                    format!("has a `{positive}` that is neither a string nor a list of strings"),
                    "write [\"…\"]",
                );
                None
            }
        }
    };
    let actions = names("Action", "NotAction");
    let resources = names("Resource", "NotResource");
    let conditions = conditions(&name, members.get("Condition"), findings);
    Some(Statement {
        name,
        allows: match effect {
            Some("Allow") => true,
            Some("Deny") => false,
            _ => return None,
        },
        actions: actions?,
        resources: resources?,
        conditions,
    })
}

fn conditions(
    name: &str,
    value: Option<&Value>,
    findings: &mut Vec<Finding>,
) -> Vec<(String, String, Vec<String>)> {
    let mut conditions = Vec::new();
    let Some(value) = value else {
        return conditions;
    };
    let operators = value.as_object().into_iter().flatten();
    for (operator, keys) in operators.clone() {
        for (key, values) in keys.as_object().into_iter().flatten() {
            let values = strings(values).unwrap_or_else(|| vec![values.to_string()]);
            conditions.push((operator.clone(), key.clone(), values));
        }
    }
    let shape = value.is_object() && operators.clone().all(|(_, keys)| keys.is_object());
    if !shape {
        let remedy = "write { \"StringEquals\": { \"key\": \"value\" } }";
        findings.push(Finding::wrong(
            name,
            "has a `Condition` that IAM refuses",
            remedy,
        ));
    }
    conditions
}

fn members_known(
    name: &str,
    members: &Map<String, Value>,
    known: &[&str],
    findings: &mut Vec<Finding>,
) {
    for member in members.keys().filter(|m| !known.contains(&m.as_str())) {
        let near = known.iter().min_by_key(|k| {
            strsim::damerau_levenshtein(&k.to_ascii_lowercase(), &member.to_ascii_lowercase())
        });
        let near = near.filter(|k| {
            strsim::damerau_levenshtein(&k.to_ascii_lowercase(), &member.to_ascii_lowercase()) <= 2
        });
        let remedy = near.map_or("remove it".to_owned(), |near| format!("write `{near}`"));
        let what = format!("IAM refuses `{}` here", member.escape_debug());
        findings.push(Finding::wrong(name, what, remedy));
    }
}

/// One string or a list of them; booleans and numbers as IAM takes them in conditions.
fn strings(value: &Value) -> Option<Vec<String>> {
    let one = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    match value {
        Value::Array(many) if many.is_empty() => None,
        Value::Array(many) => many.iter().map(one).collect(),
        one_value => one(one_value).map(|text| vec![text]),
    }
}
