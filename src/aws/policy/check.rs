//! What is wrong with a policy that somebody wrote: compared with what the configuration needs.
//!
//! Invariant: a policy without findings lets every tile be read and a missing one be told, and allows
//! nothing else that could be judged. What could not be judged is said.
//! Left out on purpose: bucket policies, SCPs, permission boundaries and the KMS key's policy, which can deny
//! what is allowed here; the doctor tries it.

mod excess;
#[cfg(test)]
mod tests;

use std::fmt;

use super::actions::{ASSUME_ROLE, DECRYPT, GET_OBJECT, LIST_BUCKET, QUEUE};
use super::conditions::{Verdict, judge};
use super::document::{self, Document, Statement, Unusable};
use super::least::{Identity, Needs};
use super::pattern::{action_matches, is_wild, matches};
use super::{bucket_arn, objects_arn};

/// One thing that is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where: `statement 2 ("Read")`; empty for the whole.
    pub place: String,
    /// Whether it is wrong, or only could not be judged.
    pub sort: Sort,
    /// What it is.
    pub what: String,
    /// What to write instead.
    pub remedy: String,
}

/// How sure a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Wrong.
    Wrong,
    /// It depends on what is not known here.
    Unjudged,
}

impl Finding {
    pub(super) fn wrong(place: &str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            place: place.to_owned(),
            sort: Sort::Wrong,
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    pub(super) fn unjudged(
        place: &str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            sort: Sort::Unjudged,
            ..Self::wrong(place, what, remedy)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sort == Sort::Unjudged {
            f.write_str("note: ")?;
        }
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        let (what, remedy) = (&self.what, &self.remedy);
        // Most of it may be a stranger's text.
        let text = format!("{what}; {remedy}").replace(char::is_control, " ");
        f.write_str(&text)
    }
}

/// Something that has to be allowed.
struct Want {
    action: &'static str,
    /// Examples of what it is asked for: all or none should be allowed.
    resources: Vec<String>,
    /// For whom, in words.
    object: String,
    /// What to write as `Resource`.
    remedy: String,
    /// What is amiss without it.
    otherwise: &'static str,
}

/// What this policy of the identity `whose` is worth: nothing to say where it is right.
pub fn check(text: &str, needs: &Needs, whose: &str) -> Result<Vec<Finding>, Unusable> {
    let mut findings = Vec::new();
    let document = document::read(text, &mut findings)?;
    let wants = wants(needs, whose);
    for statement in &document.statements {
        if statement.allows {
            excess::look(statement, needs, &wants, &mut findings);
        }
    }
    for want in &wants {
        look_for(want, &document, needs.tls, &mut findings);
    }
    Ok(findings)
}

fn wants(needs: &Needs, whose: &str) -> Vec<Want> {
    let partition = &needs.partition;
    let tilesets = needs.tilesets(whose);
    let mut wants = Vec::new();
    for tileset in tilesets {
        let bucket = &tileset.bucket;
        let arn = |key: &String| objects_arn(partition, bucket, key);
        wants.push(Want {
            action: GET_OBJECT,
            resources: tileset.keys.iter().map(arn).collect(),
            object: format!("tileset `{}`", tileset.name),
            remedy: arn(&tileset.pattern),
            otherwise: "its tiles cannot be read",
        });
    }
    let mut buckets: Vec<&String> = tilesets.iter().map(|t| &t.bucket).collect();
    buckets.sort();
    buckets.dedup();
    let mut one = |action, arn: String, object: String, otherwise| {
        wants.push(Want {
            action,
            resources: vec![arn.clone()],
            object,
            remedy: arn,
            otherwise,
        });
    };
    for bucket in buckets {
        one(
            LIST_BUCKET,
            bucket_arn(partition, bucket),
            format!("bucket `{bucket}`"),
            "S3 answers 403 instead of 404 for a missing tile, which looks denied",
        );
    }
    if whose == Identity::SERVER {
        for role in needs.roles() {
            let object = format!("role `{role}`");
            one(ASSUME_ROLE, role, object, "the role cannot be assumed");
        }
    }
    for action in QUEUE {
        if let Some(queue) = needs.queue(whose) {
            one(
                action,
                queue.to_owned(),
                "the queue of [events]".to_owned(),
                "changes in the bucket are not heard of",
            );
        }
    }
    wants
}

impl Statement {
    /// Whether it is about this, its conditions aside.
    fn names(&self, action: &str, resource: &str) -> bool {
        self.actions.name(|pattern| action_matches(pattern, action))
            && self.resources.name(|pattern| {
                // Variables are only known when it is asked; any text may be there.
                matches(&variables_as_stars(pattern), resource)
            })
    }
}

fn variables_as_stars(pattern: &str) -> String {
    let mut plain = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once("${") {
        plain.push_str(before);
        plain.push('*');
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    plain + rest
}

/// Whether something is allowed: all of it, surely, and not denied.
fn look_for(want: &Want, document: &Document, tls: bool, findings: &mut Vec<Finding>) {
    let (action, object) = (want.action, &want.object);
    let applying = |allows: bool, resource: &str| -> Vec<(&Statement, Verdict)> {
        let those = document.statements.iter();
        those
            .filter(|s| s.allows == allows && s.names(action, resource))
            .map(|s| (s, judge(s, tls)))
            .collect()
    };
    let mut missing = Vec::new();
    let (mut unsure, mut failing, mut denied) = (None, None, Vec::new());
    for resource in &want.resources {
        let allowing = applying(true, resource);
        if !allowing.iter().any(|(_, v)| *v == Verdict::Holds) {
            let mut rest = allowing.iter();
            if let Some((s, Verdict::Unknown(keys))) =
                rest.clone().find(|(_, v)| matches!(v, Verdict::Unknown(_)))
            {
                unsure = Some((s.name.clone(), keys.clone()));
            } else {
                if let Some((s, Verdict::Fails(key))) = rest.next() {
                    failing = Some((s.name.clone(), key.clone()));
                }
                missing.push(resource);
            }
        }
        for (statement, verdict) in applying(false, resource) {
            if !denied.iter().any(|(name, _)| *name == statement.name) {
                denied.push((statement.name.clone(), verdict));
            }
        }
    }
    let otherwise = want.otherwise;
    if let Some((name, key)) = failing {
        let what = format!(
            "allows `{action}` on {object} under a condition on `{key}` that does not hold when a tile is read, so \
             that {otherwise}"
        );
        findings.push(Finding::wrong(&name, what, "take the condition out"));
    } else if missing.len() == want.resources.len() {
        let what = format!("nothing allows `{action}` on {object}: {otherwise}");
        let remedy = format!("allow it on \"{}\"", want.remedy);
        findings.push(Finding::wrong("", what, remedy));
    } else if let Some(example) = missing.first() {
        let what = format!(
            "`{action}` is allowed on a part of {object} alone, not on \"{example}\" for one"
        );
        let remedy = format!("allow it on \"{}\"", want.remedy);
        findings.push(Finding::wrong("", what, remedy));
    } else if let Some((name, keys)) = unsure {
        let what = format!(
            "allows `{action}` on {object} only under a condition on {keys}, which is not judged here"
        );
        findings.push(Finding::unjudged(
            &name,
            what,
            "make sure that it holds where the server runs",
        ));
    }
    for (name, verdict) in denied {
        match verdict {
            Verdict::Holds => {
                let what = format!("denies `{action}` on {object}, whatever else allows it");
                let remedy = "remove it, or narrow it so that it leaves the tiles out";
                findings.push(Finding::wrong(&name, what, remedy));
            }
            Verdict::Unknown(keys) => {
                let what = format!(
                    "denies `{action}` on {object} under a condition on {keys}, which is not judged here"
                );
                let remedy = "make sure that it does not hold where the server runs";
                findings.push(Finding::unjudged(&name, what, remedy));
            }
            Verdict::Fails(_) => {}
        }
    }
}

/// Whether a statement is about the reading of objects, the telling of missing ones, or decryption.
fn is_about(statement: &Statement, action: &str) -> bool {
    let mut patterns = statement.actions.patterns().iter();
    patterns.any(|pattern| action_matches(pattern, action))
}

/// Of a KMS statement nothing is compared: the configuration does not name the key.
fn is_decryption(pattern: &str) -> bool {
    pattern.eq_ignore_ascii_case(DECRYPT) && !is_wild(pattern)
}
