//! The least that reading tiles takes, as an IAM policy.
//!
//! Invariant: the policy allows every place that it was made for; when it has to become shorter, it
//! becomes wider, never wrong. Left out on purpose: whether the role's own policy allows as much. A
//! session policy narrows the role's, it grants nothing.

mod actions;
mod check;
mod conditions;
mod document;
mod least;
mod pattern;

use std::collections::BTreeMap;

use serde::Serialize;

pub use self::check::{Finding, Sort, check};
pub use self::document::Unusable;
pub use self::least::{
    Hints, Identity, Least, Needs, Queue, Reader, TilesetNeed, least, publishing, queue_arn,
};
#[cfg(feature = "demo")]
pub(crate) use self::pattern::matches;

/// AWS's bound on an inline session policy, in characters. The packed size that AWS also bounds is
/// reached later by a policy without tags.
pub const MAX_SESSION_POLICY: usize = 2048;

/// Where tiles lie: a bucket, and what their keys begin with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadPlace {
    /// The bucket's name.
    pub bucket: String,
    /// What every key begins with; empty: the whole bucket.
    pub prefix: String,
}

/// Which policy language is spoken where the policy goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Dialect {
    /// `aws`, `aws-cn`, `aws-us-gov`: the second part of every ARN.
    pub partition: String,
    /// Whether objects may be under SSE-KMS, as on AWS. Servers that only speak S3's API need not
    /// know the action.
    pub kms: bool,
}

/// An IAM policy document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Policy {
    version: &'static str,
    statement: Vec<Statement>,
}

/// One statement of it; all of them allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Statement {
    sid: &'static str,
    effect: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<serde_json::Value>,
    action: Actions,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<serde_json::Value>,
}

/// One action or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Actions {
    One(&'static str),
    Several(Vec<&'static str>),
}

impl Policy {
    /// As STS takes it: JSON without spaces.
    pub fn to_json(&self) -> String {
        // Strings and lists of them: there is nothing that JSON could not say.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The policy that reads these places and nothing else.
///
/// - `s3:GetObject` on each prefix.
/// - `s3:ListBucket` on each bucket, though nothing is listed: without it S3 says 403, not 404, of a
///   missing object, and 'denied' would look like 'no such tile'. There is no condition on
///   `s3:prefix`: a `GetObject` has no prefix, the condition would not hold, and the 403 would be back.
/// - `kms:Decrypt`, through S3 alone: a session policy is an intersection, so without it objects
///   under SSE-KMS could not be read even where role and key allow it.
pub fn read_policy(places: &[ReadPlace], dialect: &Dialect) -> Policy {
    let places = without_covered(places);
    let partition = &dialect.partition;
    let objects = places
        .iter()
        .map(|place| objects_arn(partition, &place.bucket, &place.prefix) + "*")
        .collect();
    let buckets = places
        .iter()
        .map(|place| bucket_arn(partition, &place.bucket))
        .collect();
    let mut statement = reading(objects, buckets);
    if dialect.kms {
        let through_s3 = serde_json::json!({
            "StringLike": { "kms:ViaService": "s3.*.amazonaws.com*" }
        });
        statement.push(Statement {
            condition: Some(through_s3),
            ..allow("DecryptThroughS3", actions::DECRYPT, vec!["*".into()])
        });
    }
    Policy {
        version: "2012-10-17",
        statement,
    }
}

/// The policy of credentials that are handed out: one place's objects and the list of them, for a job that
/// walks through them, and nothing beside. The list is held to the prefix, so a missing object is denied.
pub fn lending_policy(place: &ReadPlace, dialect: &Dialect) -> Policy {
    let ReadPlace { bucket, prefix } = literal(place);
    let mut policy = read_policy(std::slice::from_ref(place), dialect);
    let list = Statement {
        condition: Some(
            serde_json::json!({ "StringLike": { "s3:prefix": [format!("{prefix}*")] } }),
        ),
        ..allow(
            "ListTiles",
            "s3:ListBucket",
            vec![format!("arn:{}:s3:::{bucket}", dialect.partition)],
        )
    };
    policy.statement[1] = list;
    if policy.to_json().chars().count() > MAX_SESSION_POLICY {
        // A prefix of a thousand characters does not fit in twice.
        policy.statement.remove(1);
    }
    policy
}

impl ReadPlace {
    /// What a policy can say of it: up to the first character that means something there.
    #[must_use]
    pub fn literal(&self) -> Self {
        literal(self)
    }

    /// Whether some key may lie in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (a, b) = (&self.prefix, &other.prefix);
        // What lies behind an access point is not known here.
        let alias = |bucket: &str| bucket.starts_with("arn:") || bucket.ends_with("-s3alias");
        let same = self.bucket == other.bucket || alias(&self.bucket) || alias(&other.bucket);
        same && (a.starts_with(b.as_str()) || b.starts_with(a.as_str()))
    }
}

/// What reads these objects, in these buckets, the latter in order.
fn reading(objects: Vec<String>, mut buckets: Vec<String>) -> Vec<Statement> {
    buckets.dedup();
    vec![
        allow("ReadTiles", actions::GET_OBJECT, objects),
        allow("TellMissingFromForbidden", actions::LIST_BUCKET, buckets),
    ]
}

fn allow(sid: &'static str, action: &'static str, resource: Vec<String>) -> Statement {
    Statement {
        sid,
        effect: "Allow",
        principal: None,
        action: Actions::One(action),
        resource,
        condition: None,
    }
}

/// A bucket's ARN; an access point is named by its own.
fn bucket_arn(partition: &str, bucket: &str) -> String {
    if bucket.starts_with("arn:") {
        return bucket.to_owned();
    }
    format!("arn:{partition}:s3:::{bucket}")
}

/// What the ARNs of objects begin with whose keys begin so.
fn objects_arn(partition: &str, bucket: &str, prefix: &str) -> String {
    let below = if bucket.starts_with("arn:") {
        "object/"
    } else {
        ""
    };
    format!("{}/{below}{prefix}", bucket_arn(partition, bucket))
}

/// How much a session policy had to be widened to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Widened {
    /// Not at all: each tileset's own prefix.
    No,
    /// In each bucket, what all its prefixes begin with.
    CommonPrefixes,
    /// Whole buckets.
    Buckets,
}

impl Widened {
    /// For the log.
    pub const fn words(self) -> &'static str {
        match self {
            Self::No => "each tileset's own prefix",
            Self::CommonPrefixes => "in each bucket, what all its tilesets' keys begin with",
            Self::Buckets => "whole buckets",
        }
    }
}

/// A session policy cannot be made short enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "its session policy would have {characters} characters with whole buckets alone, and AWS takes {MAX_SESSION_POLICY}: \
     give some tilesets an `assume_role` of their own, so that no role reads all {buckets} buckets"
)]
pub struct PolicyTooLong {
    /// Its shortest form.
    pub characters: usize,
    /// How many buckets there are.
    pub buckets: usize,
}

/// The narrowest of these policies that AWS takes as a session policy, as JSON.
pub fn session_policy(
    places: &[ReadPlace],
    dialect: &Dialect,
) -> Result<(String, Widened), PolicyTooLong> {
    let fits = |places: &[ReadPlace]| {
        let json = read_policy(places, dialect).to_json();
        let characters = json.chars().count();
        (characters <= MAX_SESSION_POLICY)
            .then_some(json)
            .ok_or(characters)
    };
    if let Ok(json) = fits(places) {
        return Ok((json, Widened::No));
    }
    let mut buckets: BTreeMap<&str, &str> = BTreeMap::new();
    for place in places {
        let common = buckets.entry(&place.bucket).or_insert(&place.prefix);
        *common = common_prefix(common, &place.prefix);
    }
    let place = |(bucket, prefix): (&&str, &str)| ReadPlace {
        bucket: (*bucket).to_owned(),
        prefix: prefix.to_owned(),
    };
    let common: Vec<_> = buckets.iter().map(|(b, p)| place((b, p))).collect();
    if let Ok(json) = fits(&common) {
        return Ok((json, Widened::CommonPrefixes));
    }
    let whole: Vec<_> = buckets.keys().map(|b| place((b, ""))).collect();
    match fits(&whole) {
        Ok(json) => Ok((json, Widened::Buckets)),
        Err(characters) => Err(PolicyTooLong {
            characters,
            buckets: whole.len(),
        }),
    }
}

/// In order, without those that another one covers. A prefix ends before the first character that
/// means something in a policy (`*`, `?`, `$`): wider, but understood by every server alike.
fn without_covered(places: &[ReadPlace]) -> Vec<ReadPlace> {
    let mut places: Vec<_> = places.iter().map(literal).collect();
    places.sort();
    let mut kept: Vec<ReadPlace> = Vec::new();
    for place in places {
        // Sorted, what covers a place comes before it, and everything between is covered too.
        let covered = kept
            .last()
            .is_some_and(|k| k.bucket == place.bucket && place.prefix.starts_with(&k.prefix));
        if !covered {
            kept.push(place);
        }
    }
    kept
}

fn literal(place: &ReadPlace) -> ReadPlace {
    let end = place.prefix.find(['*', '?', '$']);
    ReadPlace {
        bucket: place.bucket.clone(),
        prefix: place.prefix[..end.unwrap_or(place.prefix.len())].to_owned(),
    }
}

fn common_prefix<'a>(a: &'a str, b: &str) -> &'a str {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
    &a[..same.map(|(c, _)| c.len_utf8()).sum()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(bucket: &str, prefix: &str) -> ReadPlace {
        ReadPlace {
            bucket: bucket.into(),
            prefix: prefix.into(),
        }
    }

    fn aws(kms: bool) -> Dialect {
        Dialect {
            partition: "aws".into(),
            kms,
        }
    }

    #[test]
    fn it_reads_the_prefixes_and_tells_missing_from_forbidden() {
        let places = [
            place("b", "world/"),
            place("a", "x/"),
            place("b", "world/2026/"),
        ];
        let json = read_policy(&places, &aws(true)).to_json();
        assert_eq!(
            json,
            concat!(
                r#"{"Version":"2012-10-17","Statement":["#,
                r#"{"Sid":"ReadTiles","Effect":"Allow","Action":"s3:GetObject","#,
                r#""Resource":["arn:aws:s3:::a/x/*","arn:aws:s3:::b/world/*"]},"#,
                r#"{"Sid":"TellMissingFromForbidden","Effect":"Allow","Action":"s3:ListBucket","#,
                r#""Resource":["arn:aws:s3:::a","arn:aws:s3:::b"]},"#,
                r#"{"Sid":"DecryptThroughS3","Effect":"Allow","Action":"kms:Decrypt","Resource":["*"],"#,
                r#""Condition":{"StringLike":{"kms:ViaService":"s3.*.amazonaws.com*"}}}]}"#,
            )
        );
    }

    #[test]
    fn other_partitions_have_other_arns_and_other_servers_no_kms() {
        let china = Dialect {
            partition: "aws-cn".into(),
            kms: false,
        };
        let json = read_policy(&[place("b", "")], &china).to_json();
        assert!(json.contains(r#"["arn:aws-cn:s3:::b/*"]"#), "{json}");
        assert!(!json.contains("kms"));
    }

    #[test]
    fn credentials_that_are_lent_read_and_list_one_place() {
        let json = lending_policy(&place("b", "world/"), &aws(false)).to_json();
        assert_eq!(
            json,
            concat!(
                r#"{"Version":"2012-10-17","Statement":["#,
                r#"{"Sid":"ReadTiles","Effect":"Allow","Action":"s3:GetObject","#,
                r#""Resource":["arn:aws:s3:::b/world/*"]},"#,
                r#"{"Sid":"ListTiles","Effect":"Allow","Action":"s3:ListBucket","#,
                r#""Resource":["arn:aws:s3:::b"],"Condition":{"StringLike":{"s3:prefix":["world/*"]}}}]}"#,
            )
        );
        let long = lending_policy(&place("b", &"p".repeat(1000)), &aws(true)).to_json();
        assert!(
            long.len() <= MAX_SESSION_POLICY && long.contains("kms:Decrypt"),
            "{long}"
        );
    }

    #[test]
    fn places_overlap_where_one_begins_as_the_other() {
        let world = place("b", "world/");
        for (bucket, prefix, overlap) in [
            ("b", "world/secret/", true),
            ("b", "", true),
            ("b", "world2/", false),
            ("a", "world/", false),
        ] {
            assert_eq!(
                world.overlaps(&place(bucket, prefix)),
                overlap,
                "{bucket}/{prefix}"
            );
        }
    }

    #[test]
    fn an_access_point_is_named_by_its_own_arn() {
        let point = "arn:aws:s3:eu-west-1:123456789012:accesspoint/tiles";
        let json = read_policy(&[place(point, "w/")], &aws(false)).to_json();
        assert!(
            json.contains(&format!(r#"["{point}/object/w/*"]"#)),
            "{json}"
        );
        assert!(json.contains(&format!(r#"["{point}"]"#)), "{json}");
    }

    #[test]
    fn what_means_something_in_a_policy_widens_it_and_never_misleads() {
        let json = read_policy(&[place("b", "a/${x}/"), place("b", "q?/*")], &aws(false)).to_json();
        assert!(json.contains(r#"["arn:aws:s3:::b/a/*","arn:aws:s3:::b/q*"]"#));
    }

    #[test]
    fn a_long_policy_is_widened_by_steps() {
        let many = |bucket: &'static str, count: usize| {
            (0..count).map(move |i| place(bucket, &format!("maps/edition-{i:04}/")))
        };
        let (_, widened) = session_policy(&many("a", 5).collect::<Vec<_>>(), &aws(true)).unwrap();
        assert_eq!(widened, Widened::No);
        let both: Vec<_> = many("a", 60).chain(many("b", 60)).collect();
        let (json, widened) = session_policy(&both, &aws(true)).unwrap();
        assert_eq!(widened, Widened::CommonPrefixes);
        assert!(
            json.contains(
                r#"["arn:aws:s3:::a/maps/edition-00*","arn:aws:s3:::b/maps/edition-00*"]"#
            )
        );
        let long = "p".repeat(900);
        let buckets = |count: usize, prefix: &str| -> Vec<_> {
            (0..count)
                .map(|i| place(&format!("bucket-{i:02}"), prefix))
                .collect()
        };
        let (json, widened) = session_policy(&buckets(3, &long), &aws(true)).unwrap();
        assert_eq!(widened, Widened::Buckets);
        assert!(json.contains("arn:aws:s3:::bucket-02/*") && json.len() <= MAX_SESSION_POLICY);
        let refused = session_policy(&buckets(60, "p"), &aws(true)).unwrap_err();
        assert!(refused.to_string().contains("`assume_role` of their own"));
    }

    proptest::proptest! {
        #[test]
        fn every_place_is_allowed_whatever_was_widened(
            places in proptest::collection::vec(("[ab]", "[a-c/é*]{0,6}"), 1..200)
        ) {
            let places: Vec<_> = places.iter().map(|(b, p)| place(b, p)).collect();
            let (json, _) = session_policy(&places, &aws(true)).unwrap();
            proptest::prop_assert!(json.chars().count() <= MAX_SESSION_POLICY);
            let policy: serde_json::Value = serde_json::from_str(&json).unwrap();
            let resources = policy["Statement"][0]["Resource"].as_array().unwrap();
            for place in places {
                let key = format!("arn:aws:s3:::{}/{}", place.bucket, place.prefix);
                let allowed = resources.iter().any(|r| {
                    key.starts_with(r.as_str().unwrap().strip_suffix('*').unwrap())
                });
                proptest::prop_assert!(allowed, "{key} in {json}");
            }
        }
    }
}
