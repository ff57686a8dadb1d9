//! What a statement allows beyond the need, and resources that are not what their action is about.

use super::super::actions::{GET_OBJECT, HARMLESS, LIST_BUCKET, matched, nearest, writes};
use super::super::document::{Names, Statement};
use super::super::least::Needs;
use super::super::pattern::{action_matches, is_wild, literal, matches};
use super::{Finding, Want, is_about, is_decryption};

/// Everything that is too much or beside the point in a statement that allows.
pub(super) fn look(
    statement: &Statement,
    needs: &Needs,
    wants: &[Want],
    findings: &mut Vec<Finding>,
) {
    let name = &statement.name;
    match &statement.actions {
        Names::AllBut(_) => findings.push(Finding::wrong(
            name,
            "`NotAction` allows every action but these, of every service",
            "name the actions: \"Action\": \"s3:GetObject\"",
        )),
        Names::These(patterns) => {
            for pattern in patterns {
                findings.extend(action(name, pattern, wants));
            }
        }
    }
    match &statement.resources {
        Names::AllBut(_) => findings.push(Finding::wrong(
            name,
            "`NotResource` allows everything but these",
            "name the resources",
        )),
        Names::These(patterns) => {
            let about_s3 = is_about(statement, GET_OBJECT) || is_about(statement, LIST_BUCKET);
            if about_s3 {
                kinds(statement, patterns, wants, findings);
            }
            for pattern in patterns {
                let found = if about_s3 {
                    place(pattern, needs, wants)
                } else {
                    elsewhere(statement, pattern, wants)
                };
                findings.extend(found.map(|(what, remedy)| Finding::wrong(name, what, remedy)));
            }
        }
    }
}

/// An action that reading does not take, or that there is not.
fn action(name: &str, pattern: &str, wants: &[Want]) -> Option<Finding> {
    let shown = pattern.escape_debug();
    if is_decryption(pattern) {
        return None;
    }
    if pattern == "*" {
        let what = "`*` allows every action of every service";
        return Some(Finding::wrong(name, what, needed(wants)));
    }
    let all = matched(pattern);
    if all.is_empty() {
        let foreign = pattern
            .split_once(':')
            .is_some_and(|(service, _)| !["s3", "sts", "kms", "sqs"].contains(&service));
        return Some(match nearest(pattern).filter(|_| !is_wild(pattern)) {
            Some(meant) => Finding::wrong(
                name,
                format!("there is no action `{shown}`"),
                format!("did you mean `{meant}`?"),
            ),
            None if foreign || !pattern.contains(':') => Finding::wrong(
                name,
                format!("`{shown}` is nothing that reading tiles takes"),
                "remove it",
            ),
            None => Finding::wrong(
                name,
                format!("`{shown}` matches no action that is known here"),
                needed(wants),
            ),
        });
    }
    let wanted = |action: &String| wants.iter().any(|want| want.action == action);
    let excess: Vec<&String> = all
        .iter()
        .filter(|action| !wanted(action) && !HARMLESS.contains(&action.as_str()))
        .collect();
    // What people understand at once.
    let telling = excess.iter().find(|a| a.as_str() == "s3:DeleteObject");
    let worst = telling.or(excess.iter().find(|a| writes(a)));
    let worst = worst.or(excess.first())?;
    let what = if !is_wild(pattern) {
        let why = if writes(worst) {
            "changes the bucket or what is in it; reading tiles takes no such right"
        } else {
            "is more than reading tiles takes"
        };
        format!("`{shown}` {why}")
    } else if excess.len() == 1 {
        format!("`{shown}` also allows `{worst}`")
    } else {
        let many = excess.len();
        format!("`{shown}` allows {many} actions more than reading tiles takes, `{worst}` for one")
    };
    let remedy = if is_wild(pattern) {
        needed(wants)
    } else {
        "remove it".to_owned()
    };
    Some(Finding::wrong(name, what, remedy))
}

fn needed(wants: &[Want]) -> String {
    let mut actions: Vec<&str> = wants.iter().map(|want| want.action).collect();
    actions.dedup();
    format!("allow {} alone", actions.join(" and "))
}

/// Objects' actions on buckets, and the reverse.
fn kinds(statement: &Statement, patterns: &[String], wants: &[Want], findings: &mut Vec<Finding>) {
    let on = |action: &str, resource: &dyn Fn(&Want) -> bool| {
        wants.iter().any(|w| w.action == action && resource(w))
    };
    let reaches = |want: &Want| {
        let mut all = want.resources.iter();
        all.any(|r| patterns.iter().any(|p| matches(p, r)))
    };
    let objects = on(GET_OBJECT, &reaches);
    let buckets = on(LIST_BUCKET, &reaches);
    let mut say = |what: String, remedy: String| {
        findings.push(Finding::wrong(&statement.name, what, remedy));
    };
    if is_about(statement, GET_OBJECT) && !objects && buckets {
        let bucket = patterns.iter().find(|p| !p.contains('/'));
        let bucket = bucket.map_or("", |b| b.as_str());
        let reads = wants.iter().filter(|w| w.action == GET_OBJECT);
        let mut reads = reads.filter(|w| w.remedy.starts_with(&format!("{bucket}/")));
        let remedy = reads
            .next()
            .map_or(format!("{bucket}/*"), |w| w.remedy.clone());
        say(
            format!(
                "`{GET_OBJECT}` is on the bucket's ARN \"{bucket}\", and objects have ARNs of their own"
            ),
            format!("write \"{remedy}\""),
        );
    }
    // `s3:*` on objects is said to be too much; it was hardly meant to list.
    let lists = |pattern: &&String| {
        action_matches(pattern, LIST_BUCKET) && !action_matches(pattern, GET_OBJECT)
    };
    let lists = statement.actions.patterns().iter().any(|p| lists(&p));
    if lists && !buckets && objects {
        let object = patterns.iter().find(|p| p.contains('/'));
        let bucket = object.map_or("", |o| o.split('/').next().unwrap_or(o));
        say(
            format!(
                "`{LIST_BUCKET}` is on objects' ARNs, and it is the bucket that is listed, without a slash"
            ),
            format!("put it into a statement of its own with \"Resource\": \"{bucket}\""),
        );
    }
}

/// A resource of S3 that is malformed, too wide, or not ours.
fn place(pattern: &str, needs: &Needs, wants: &[Want]) -> Option<(String, String)> {
    let shown = pattern.escape_debug().to_string();
    let reads = || wants.iter().filter(|want| want.action == GET_OBJECT);
    let ours: Vec<String> = reads().map(|want| format!("\"{}\"", want.remedy)).collect();
    let write = format!("write {}", ours.join(", "));
    if pattern == "*" {
        return Some(("`*` is every bucket there is".into(), write));
    }
    let parts: Vec<&str> = pattern.splitn(6, ':').collect();
    let &[arn, partition, service, region, account, rest] = parts.as_slice() else {
        let what = format!("\"{shown}\" is no ARN");
        return Some((what, write));
    };
    if arn != "arn" || (service != "s3" && !is_wild(service)) {
        return Some((format!("\"{shown}\" is no ARN of S3"), write));
    }
    if partition != needs.partition && !is_wild(partition) {
        let right = &needs.partition;
        let what =
            format!("\"{shown}\" is in the partition `{partition}`, and this region in `{right}`");
        return Some((what, write));
    }
    let access_point = rest.starts_with("accesspoint/");
    let plain = region.is_empty() && account.is_empty();
    if !access_point && !plain {
        let what =
            format!("\"{shown}\" names a region or an account, and ARNs of buckets have neither");
        return Some((what, format!("write \"arn:{partition}:s3:::{rest}\"")));
    }
    // What it begins with, in the partition of ours.
    let head = literal(pattern).replacen(
        &format!("arn:{partition}:"),
        &format!("arn:{}:", needs.partition),
        1,
    );
    let is_bucket = wants
        .iter()
        .any(|w| w.action == LIST_BUCKET && w.resources.iter().any(|r| r == pattern));
    let inside = reads().any(|want| match want.remedy.strip_suffix('*') {
        Some(prefix) if !is_wild(prefix) => head.starts_with(prefix),
        // An archive: its own name, or the pattern of its versions'.
        _ => pattern == want.remedy || want.resources.iter().any(|r| r == pattern),
    });
    if is_bucket || inside {
        return None;
    }
    let reaches = wants
        .iter()
        .any(|want| want.resources.iter().any(|r| matches(pattern, r)));
    if reaches {
        let what = format!("\"{shown}\" is wider than the tilesets' own prefixes");
        return Some((what, write));
    }
    let alone = reads().find(|want| {
        let prefix = want.remedy.trim_end_matches('*');
        pattern == prefix.trim_end_matches('/') && prefix.contains('/') && pattern.contains('/')
    });
    if let Some(want) = alone {
        let what = format!("\"{shown}\" is one object, not all below it");
        return Some((what, format!("write \"{}\"", want.remedy)));
    }
    if rest.starts_with('/') {
        let what = format!("\"{shown}\" has a slash before the bucket's name");
        return Some((what, write));
    }
    let what = format!("\"{shown}\" is nowhere that this configuration reads");
    let bucket = rest.split('/').next().unwrap_or(rest);
    let buckets = wants.iter().filter(|w| w.action == LIST_BUCKET);
    let mut names = buckets.map(|w| w.remedy.rsplit(':').next().unwrap_or(&w.remedy));
    let near = names.find(|n| *n != bucket && strsim::damerau_levenshtein(n, bucket) <= 2);
    let remedy = match near {
        Some(near) => format!("did you mean the bucket `{near}`?"),
        None if ours.is_empty() => "remove it".to_owned(),
        None => format!("remove it; the tiles are at {}", ours.join(", ")),
    };
    Some((what, remedy))
}

/// Roles and queues.
fn elsewhere(statement: &Statement, pattern: &str, wants: &[Want]) -> Option<(String, String)> {
    let about: Vec<&Want> = wants
        .iter()
        .filter(|want| is_about(statement, want.action))
        .collect();
    let exact = about
        .iter()
        .any(|want| want.resources.iter().any(|r| r == pattern));
    if about.is_empty() || exact {
        return None;
    }
    let mut right: Vec<String> = about.iter().map(|w| format!("\"{}\"", w.remedy)).collect();
    right.dedup();
    let shown = pattern.escape_debug();
    let wide = if is_wild(pattern) {
        "is wider than this configuration needs"
    } else {
        "is nothing that this configuration uses"
    };
    Some((
        format!("\"{shown}\" {wide}"),
        format!("write {}", right.join(", ")),
    ))
}
