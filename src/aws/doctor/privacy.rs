//! Whether a bucket answers nobody without keys, and what keeps it so.
//!
//! That it refuses is found out by asking without a signature, for a tile that is there. The rest is
//! asked with rights that reading tiles does not take: without them it is left out, and named.

use std::collections::HashMap;

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{Grant, PublicAccessBlockConfiguration};

use super::ask::{Refusal, Site, Trouble};
use super::bucket::{Seen, Unsigned};
use super::denial::is_wrong_region;
use super::role::Reader;
use super::{Check, Finding, all, arn, cut_off};

/// `private` and `block_public_access` of each bucket, in the order of the tilesets. `examples`: a tile
/// that is there, by bucket.
pub(super) async fn look(
    site: &Site,
    readers: &[Reader],
    seen: &[Seen],
    unsigned: &[Unsigned],
    examples: &HashMap<String, String>,
) -> Vec<(Finding, Finding)> {
    let buckets = site.buckets();
    let mut questions = Vec::new();
    let mut waiting = HashMap::new();
    for bucket in &buckets {
        let asked = unsigned.iter().find(|asked| asked.bucket == *bucket);
        let listed = match asked.map(|asked| &asked.listed) {
            Some(Ok(())) => Ok(()),
            Some(Err(trouble)) if trouble.refusal().is_some() => Err(trouble.clone()),
            _ => {
                waiting.insert(bucket.clone(), Check::Endpoint);
                continue;
            }
        };
        let elsewhere = listed.as_ref().err().and_then(Trouble::refusal);
        let tells_nothing = |said: &Refusal| {
            let is_s3s = !said.code.is_empty() || matches!(said.status, 401 | 403);
            is_wrong_region(said) || said.code == "NoSuchBucket" || !is_s3s
        };
        if elsewhere.is_some_and(tells_nothing) {
            waiting.insert(bucket.clone(), Check::Bucket);
            continue;
        }
        let mut readers = seen
            .iter()
            .filter(|seen| seen.bucket == *bucket && seen.listing.is_ok())
            .map(|seen| &readers[seen.reader]);
        let question = Question {
            bucket: bucket.clone(),
            resource: arn(site.region(), bucket, None),
            listed,
            key: examples.get(bucket).cloned(),
            unsigned: site.s3(None),
            signed: readers.find_map(|reader| reader.wide.clone()),
            is_aws: site.is_aws(),
        };
        questions.push(question.ask());
    }
    let mut answers = all(site.until, questions).await.into_iter();
    let finding = |bucket: &String| match waiting.get(bucket) {
        Some(on) => (
            Finding::waits(Check::Private, bucket, *on),
            Finding::waits(Check::BlockPublicAccess, bucket, *on),
        ),
        None => answers.next().flatten().unwrap_or_else(|| {
            (
                cut_off(Check::Private, bucket),
                cut_off(Check::BlockPublicAccess, bucket),
            )
        }),
    };
    buckets.iter().map(finding).collect()
}

/// What one bucket is asked.
struct Question {
    bucket: String,
    resource: String,
    /// Whether it let nobody in particular list it.
    listed: Result<(), Trouble>,
    key: Option<String>,
    unsigned: Client,
    signed: Option<Client>,
    is_aws: bool,
}

/// What lets the public in, and from when on.
enum Opening {
    /// It is read by anybody now.
    Open(String),
    /// It would be, if Block Public Access were not there.
    Held(String),
}

impl Question {
    async fn ask(self) -> (Finding, Finding) {
        let block = self.block().await;
        let held = matches!(&block, Ok(config) if off(config.as_ref()).is_empty());
        let private = self.private(held).await;
        (private, self.block_finding(block))
    }

    async fn private(&self, held: bool) -> Finding {
        let (bucket, resource) = (&self.bucket, &self.resource);
        let mut openings = Vec::new();
        if self.listed.is_ok() {
            openings.push(Opening::Open("anybody may list it, without keys".into()));
        }
        let mut asked = "ListObjectsV2 without keys is refused; no tile is known to try to read";
        if let Some(key) = &self.key {
            let get = self.unsigned.get_object().bucket(bucket).key(key);
            // The head is enough: the body is not read.
            asked = match get.send().await {
                Ok(_) => {
                    let said = format!(
                        "anybody may read it: GetObject s3://{bucket}/{key}, unsigned: 200"
                    );
                    openings.push(Opening::Open(said));
                    "GetObject without keys is answered"
                }
                Err(error) if error.raw_response().is_some() => {
                    "GetObject and ListObjectsV2 without keys are refused"
                }
                Err(_) => "ListObjectsV2 without keys is refused, GetObject not answered",
            };
        }
        let (more, unasked) = self.declared(held).await;
        openings.extend(more);
        let remedy = format!(
            "take out what lets \"Principal\": \"*\" in (the bucket's policy, its ACL, the objects' ACLs) and switch Block \
             Public Access on: {}",
            switch_on(bucket)
        );
        let said: Vec<&str> = openings
            .iter()
            .map(|opening| match opening {
                Opening::Open(said) | Opening::Held(said) => said.as_str(),
            })
            .collect();
        let said = said.join("; ");
        if openings.iter().any(|o| matches!(o, Opening::Open(_))) {
            return Finding::failed(Check::Private, format!("{bucket}: {said}"), remedy);
        }
        if !said.is_empty() {
            return Finding::warning(Check::Private, format!("{bucket}: {said}"), remedy);
        }
        let unasked = if unasked.is_empty() || !self.is_aws {
            String::new()
        } else {
            format!(
                " (its policy and ACL were not looked at: that takes {} on {resource})",
                unasked.join(" and ")
            )
        };
        let reason = format!("{bucket}: {asked}{unasked}");
        Finding::ok(Check::Private, reason)
    }

    /// What its policy and its ACL say, as far as these keys may ask; and the rights that were missing.
    async fn declared(&self, held: bool) -> (Vec<Opening>, Vec<&'static str>) {
        let (mut openings, mut unasked) = (Vec::new(), Vec::new());
        let Some(signed) = &self.signed else {
            return (openings, unasked);
        };
        let opening = |said: &str| {
            if held {
                Opening::Held(format!("{said}; only Block Public Access keeps it shut"))
            } else {
                Opening::Open(said.to_owned())
            }
        };
        let status = signed.get_bucket_policy_status().bucket(&self.bucket);
        match status.send().await {
            Ok(answer) => {
                if answer
                    .policy_status()
                    .and_then(aws_sdk_s3::types::PolicyStatus::is_public)
                    == Some(true)
                {
                    openings.push(opening("its policy is public (GetBucketPolicyStatus)"));
                }
            }
            Err(error) if Trouble::of("", &error).is_denied() => {
                unasked.push("s3:GetBucketPolicyStatus");
            }
            // No policy, or a server that does not know the question.
            Err(_) => {}
        }
        match signed.get_bucket_acl().bucket(&self.bucket).send().await {
            Ok(answer) => {
                if let Some(group) = answer.grants().iter().find_map(public_group) {
                    let said = format!("its ACL lets {group} in (GetBucketAcl)");
                    openings.push(opening(&said));
                }
            }
            Err(error) if Trouble::of("", &error).is_denied() => unasked.push("s3:GetBucketAcl"),
            Err(_) => {}
        }
        (openings, unasked)
    }

    async fn block(&self) -> Result<Option<PublicAccessBlockConfiguration>, Option<Trouble>> {
        let Some(signed) = &self.signed else {
            return Err(None);
        };
        let call = format!("GetPublicAccessBlock s3://{}", self.bucket);
        let asked = signed.get_public_access_block().bucket(&self.bucket);
        match asked.send().await {
            Ok(answer) => Ok(answer.public_access_block_configuration().cloned()),
            Err(error) => {
                let trouble = Trouble::of(call, &error);
                if trouble.code() == "NoSuchPublicAccessBlockConfiguration" {
                    Ok(None)
                } else {
                    Err(Some(trouble))
                }
            }
        }
    }

    fn block_finding(
        &self,
        block: Result<Option<PublicAccessBlockConfiguration>, Option<Trouble>>,
    ) -> Finding {
        const CHECK: Check = Check::BlockPublicAccess;
        let bucket = &self.bucket;
        match block {
            Ok(config) => {
                let off = off(config.as_ref());
                if off.is_empty() {
                    return Finding::ok(CHECK, format!("{bucket}: all four settings are on"));
                }
                let reason = format!(
                    "{bucket}: off: {} (GetPublicAccessBlock; the account's own settings do not show here)",
                    off.join(", ")
                );
                Finding::warning(CHECK, reason, switch_on(bucket))
            }
            Err(None) => Finding::waits(CHECK, bucket, Check::Bucket),
            Err(Some(trouble)) if trouble.is_denied() => Finding {
                remedy: Some(format!(
                    "to have it checked, allow \"Action\": \"s3:GetBucketPublicAccessBlock\", \"Resource\": \"{}\"; \
                     serving tiles does not take it",
                    self.resource
                )),
                ..Finding::skipped(
                    CHECK,
                    format!("{bucket}: these keys may not ask: {trouble}"),
                )
            },
            Err(Some(trouble)) if self.is_aws => Finding::warning(
                CHECK,
                format!("{bucket}: {trouble}"),
                format!("look for yourself: aws s3api get-public-access-block --bucket {bucket}"),
            ),
            Err(Some(_)) => {
                let reason =
                    format!("{bucket}: this S3-compatible server has no Block Public Access");
                Finding::skipped(CHECK, reason)
            }
        }
    }
}

/// Which of the four settings are off.
fn off(config: Option<&PublicAccessBlockConfiguration>) -> Vec<&'static str> {
    let on = |setting: fn(&PublicAccessBlockConfiguration) -> Option<bool>| {
        config.and_then(setting) == Some(true)
    };
    let settings = [
        (
            "BlockPublicAcls",
            on(PublicAccessBlockConfiguration::block_public_acls),
        ),
        (
            "IgnorePublicAcls",
            on(PublicAccessBlockConfiguration::ignore_public_acls),
        ),
        (
            "BlockPublicPolicy",
            on(PublicAccessBlockConfiguration::block_public_policy),
        ),
        (
            "RestrictPublicBuckets",
            on(PublicAccessBlockConfiguration::restrict_public_buckets),
        ),
    ];
    let off = settings.into_iter().filter(|(_, on)| !on);
    off.map(|(name, _)| name).collect()
}

fn switch_on(bucket: &str) -> String {
    format!(
        "aws s3api put-public-access-block --bucket {bucket} --public-access-block-configuration \
         BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true"
    )
}

/// The group of strangers that an ACL names, if it does.
fn public_group(grant: &Grant) -> Option<&'static str> {
    let uri = grant.grantee().and_then(|grantee| grantee.uri())?;
    match uri.rsplit('/').next()? {
        "AllUsers" => Some("everybody"),
        "AuthenticatedUsers" => Some("everybody with an AWS account"),
        _ => None,
    }
}
