//! Roles: whether STS gives them out, and how narrow their sessions are.

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_sts::operation::assume_role::AssumeRoleOutput;

use super::super::source::assume;
use super::ask::{Site, Trouble};
use super::denial::{Refuser, account, common, is_explicit};
use super::keys::{Keys, Who};
use super::{Check, Finding, Report, all, cut_off};
use crate::aws::AssumeRole;
use crate::aws::policy::{MAX_SESSION_POLICY, ReadPlace, Widened, session_policy};

/// Who reads some of the tilesets.
#[derive(Clone)]
pub(super) struct Reader {
    /// The tilesets, by their number.
    pub(super) tilesets: Vec<usize>,
    /// As it stands in a policy.
    pub(super) who: String,
    /// Where the keys came from.
    pub(super) from: &'static str,
    /// As the server reads, or what that waits for.
    pub(super) s3: Result<Client, Check>,
    /// Without the session policy: what the server never asks, the doctor may.
    pub(super) wide: Option<Client>,
}

/// Everybody who reads, once each, in the order of the tilesets.
pub(super) async fn readers(
    site: &Site,
    keys: &Keys,
    who: Result<Who, Check>,
    report: &mut Report<impl FnMut(&Finding)>,
) -> Vec<Reader> {
    let mut groups: Vec<(Option<&AssumeRole>, Vec<usize>)> = Vec::new();
    for (number, (_, own)) in site.tilesets.iter().enumerate() {
        let role = site.role_of(own.as_ref());
        match groups.iter_mut().find(|(known, _)| *known == role) {
            Some((_, numbers)) => numbers.push(number),
            None => groups.push((role, vec![number])),
        }
    }
    if groups.iter().all(|(role, _)| role.is_none()) {
        let reason = "no role is assumed: the keys found read the buckets themselves";
        report.add(Finding::skipped(Check::Role, reason)).ok();
    }
    let mut calls = Vec::new();
    for (role, numbers) in &groups {
        if let (Some(role), Ok(_), Some(credentials)) = (role, &who, &keys.credentials) {
            calls.push(Assumption::new(site, role, numbers, credentials).ask());
        }
    }
    let mut asked = all(site.until, calls).await.into_iter();
    let mut readers = Vec::new();
    for (role, tilesets) in groups {
        let reader = |who: String, s3, wide| Reader {
            tilesets,
            who,
            from: keys.from,
            s3,
            wide,
        };
        let Some(role) = role else {
            let s3 = who.as_ref().map_err(|check| *check);
            let s3 = s3.map(|_| site.s3(keys.credentials.clone()));
            let named = who.as_ref().map(Who::principal).unwrap_or_default();
            readers.push(reader(named, s3.clone(), s3.ok()));
            continue;
        };
        let who = match &who {
            Ok(who) => who,
            Err(on) => {
                report.add(Finding::waits(Check::Role, &role.arn, *on)).ok();
                readers.push(reader(role.arn.clone(), Err(*on), None));
                continue;
            }
        };
        let assumed = asked.next().flatten();
        let assumed = assumed.unwrap_or_else(|| Assumed::not(cut_off(Check::Role, &role.arn)));
        let judged = assumed.judge(site, role, who, keys.from);
        let s3 = report.add(judged.finding).map(|()| judged.keys);
        let wide = judged.wide.map(|keys| site.s3(Some(keys)));
        let s3 = s3.map(|keys| site.s3(keys));
        readers.push(reader(role.arn.clone(), s3, wide));
    }
    readers
}

/// A question to STS.
struct Assumption {
    sts: Option<aws_sdk_sts::Client>,
    role: AssumeRole,
    policy: Result<(String, Widened), Finding>,
}

/// What came of it.
struct Assumed {
    /// The session as the server has it.
    narrow: Result<AssumeRoleOutput, Box<Trouble>>,
    /// And without its session policy.
    wide: Option<AssumeRoleOutput>,
    policy: Result<(String, Widened), Finding>,
}

/// And what that means.
struct Judged {
    finding: Finding,
    keys: Option<Credentials>,
    wide: Option<Credentials>,
}

impl Assumption {
    fn new(site: &Site, role: &AssumeRole, tilesets: &[usize], keys: &Credentials) -> Self {
        let places: Vec<ReadPlace> = tilesets
            .iter()
            .map(|number| {
                let place = site.tilesets[*number].0.place();
                ReadPlace {
                    bucket: place.bucket.clone(),
                    prefix: place.key.fixed_prefix().to_owned(),
                }
            })
            .collect();
        let policy = session_policy(&places, &site.aws.dialect(role)).map_err(|too_long| {
            Finding::failed(
                Check::Role,
                format!(
                    "{}: the session policy that narrows it would have {} characters with whole buckets alone, and AWS \
                     takes {MAX_SESSION_POLICY}",
                    role.arn, too_long.characters
                ),
                format!(
                    "give some tilesets an `assume_role` of their own, so that no role reads all {} buckets",
                    too_long.buckets
                ),
            )
        });
        Self {
            sts: site.sts(keys.clone()),
            role: role.clone(),
            policy,
        }
    }

    async fn ask(self) -> Assumed {
        let Self { sts, role, policy } = self;
        let (Some(sts), Ok((json, _))) = (sts, &policy) else {
            return Assumed {
                narrow: Err(Box::new(Trouble::never_sent(&role.arn))),
                wide: None,
                policy,
            };
        };
        let call = format!("AssumeRole {}", role.arn);
        let narrow = assume(&sts, &role, Some(json.clone())).await;
        let narrow = narrow.map_err(|error| Box::new(Trouble::of(call, &error)));
        // What a role may be asked besides is worth a call only if there is one.
        let wide = match &narrow {
            Ok(_) => assume(&sts, &role, None).await.ok(),
            Err(_) => None,
        };
        Assumed {
            narrow,
            wide,
            policy,
        }
    }
}

impl Assumed {
    fn not(finding: Finding) -> Self {
        Self {
            narrow: Err(Box::new(Trouble::never_sent(""))),
            wide: None,
            policy: Err(finding),
        }
    }

    fn judge(self, site: &Site, role: &AssumeRole, who: &Who, from: &str) -> Judged {
        let none = |finding| Judged {
            finding,
            keys: None,
            wide: None,
        };
        let (json, widened) = match self.policy {
            Ok(policy) => policy,
            Err(finding) => return none(finding),
        };
        let output = match self.narrow {
            Ok(output) => output,
            Err(trouble) => {
                let remedy = remedy(site, &trouble, role, who, from);
                return none(Finding::failed(Check::Role, trouble.to_string(), remedy));
            }
        };
        let Some(keys) = credentials(&output) else {
            let reason = format!("AssumeRole {}: an answer without credentials", role.arn);
            let remedy = "is `sts_endpoint_url` in [aws] the address of an STS?";
            return none(Finding::failed(Check::Role, reason, remedy));
        };
        let length = json.chars().count();
        let duration = humantime::format_duration(role.duration);
        let chained = if who.is_role() {
            " (by role chaining: an hour is the most)"
        } else {
            ""
        };
        let arn = &role.arn;
        let reason = format!(
            "{arn}: assumed for {duration}{chained}, session policy of {length} characters (AWS takes {MAX_SESSION_POLICY})"
        );
        let finding = match widened {
            Widened::No => Finding::ok(Check::Role, reason),
            widened => Finding::warning(
                Check::Role,
                format!("{reason}: to fit, it allows {}", widened.words()),
                "its tilesets have too many prefixes to name each: put them under one folder of their bucket, or give \
                 some an `assume_role` of their own",
            ),
        };
        Judged {
            finding,
            keys: Some(keys),
            wide: self.wide.as_ref().and_then(credentials),
        }
    }
}

fn credentials(output: &AssumeRoleOutput) -> Option<Credentials> {
    let keys = output.credentials()?;
    let token = Some(keys.session_token().to_owned());
    let (id, secret) = (keys.access_key_id(), keys.secret_access_key());
    Some(Credentials::new(id, secret, token, None, "AssumeRole"))
}

/// What to do about STS's refusal.
fn remedy(site: &Site, trouble: &Trouble, role: &AssumeRole, who: &Who, from: &str) -> String {
    let Some(refusal) = trouble.refusal() else {
        return common(site, trouble, from);
    };
    let message = refusal.message.as_str();
    match refusal.code.as_str() {
        "AccessDenied" | "AccessDeniedException" => not_authorized(message, role, who),
        "ValidationError" if message.contains("role chaining") => format!(
            "the keys that ask are a role's themselves, and a role assumed from a role lasts an hour at most: in \
             `assume_role`, set duration = \"1h\" (now \"{}\")",
            humantime::format_duration(role.duration)
        ),
        "ValidationError" if message.to_ascii_lowercase().contains("durationseconds") => format!(
            "in `assume_role`, set a shorter duration (now \"{}\"), or raise the role's (aws iam update-role \
             --max-session-duration)",
            humantime::format_duration(role.duration)
        ),
        "PackedPolicyTooLarge" => {
            "the session policy is too long for AWS: put the tilesets of this role under fewer prefixes, or give some an \
             `assume_role` of their own"
                .into()
        }
        "MalformedPolicyDocument" => {
            "this STS does not understand the session policy: is it of a version that knows \"Condition\" and lists?".into()
        }
        "NoSuchEntity" | "InvalidRoleArn" | "ValidationError" => {
            "in `assume_role`, correct `arn`, `external_id` or `session_name`, as the reason says".into()
        }
        _ => common(site, trouble, from),
    }
}

/// 'Not authorized to perform sts:AssumeRole': by the role's trust, or by who asks. AWS tells a role that
/// does not exist from neither.
fn not_authorized(message: &str, role: &AssumeRole, who: &Who) -> String {
    let arn = &role.arn;
    let caller = who.principal();
    let quoted = if who.arn.is_some() {
        format!("\"{caller}\"")
    } else {
        "the ARN of who owns these keys".to_owned()
    };
    let external = match &role.external_id {
        Some(_) => {
            "its \"sts:ExternalId\", if it has that condition, must be exactly the configured `external_id`"
        }
        None => {
            "if it has a condition on \"sts:ExternalId\", set `external_id` in `assume_role` to that value"
        }
    };
    let trust = format!(
        "in the trust policy of {arn}, allow \"Principal\": {{ \"AWS\": {quoted} }}, \"Action\": \"sts:AssumeRole\"; {external}"
    );
    let own = format!(
        "in the policy of {caller}, allow \"Action\": \"sts:AssumeRole\", \"Resource\": \"{arn}\""
    );
    if is_explicit(message) {
        return match Refuser::of(message) {
            Some(Refuser::Trust | Refuser::Resource) => {
                format!("a \"Deny\" in the trust policy of {arn} matches {caller}: change it")
            }
            _ => format!(
                "a \"Deny\" of sts:AssumeRole matches {caller}: look for it in its own policies, its permissions boundary \
                 and the organisation's service control policies"
            ),
        };
    }
    match Refuser::of(message) {
        Some(Refuser::Trust | Refuser::Resource) => {
            format!("the role does not trust who asks: {trust}")
        }
        Some(Refuser::Identity) => format!("who asks may not assume roles: {own}"),
        Some(_) => format!(
            "{own}; and let its permissions boundary, session or VPC endpoint policy allow it too"
        ),
        None => {
            let same = who
                .arn
                .as_deref()
                .is_some_and(|who| account(who) == account(arn));
            let both = if same {
                "in the same account the trust policy is enough when it names that principal"
            } else {
                "across accounts both are needed"
            };
            format!(
                "AWS does not say which of the two is missing ({both}): {trust}; {own}; and compare the ARN: a role that \
                 does not exist looks the same"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn said(by: &str, external_id: Option<&str>) -> String {
        let role = AssumeRole {
            arn: "arn:aws:iam::210987654321:role/tiles".into(),
            external_id: external_id.map(Into::into),
            session_name: "tilekeep".into(),
            duration: Duration::from_hours(1),
        };
        let who = Who {
            arn: Some("arn:aws:sts::123456789012:assumed-role/server/i-0abc".into()),
        };
        let message = format!(
            "User: arn:aws:sts::123456789012:assumed-role/server/i-0abc is not authorized to perform: sts:AssumeRole on \
             resource: arn:aws:iam::210987654321:role/tiles{by}"
        );
        not_authorized(&message, &role, &who)
    }

    #[test]
    fn trust_and_permission_are_told_apart_as_far_as_aws_does() {
        let principal = "\"Principal\": { \"AWS\": \"arn:aws:iam::123456789012:role/server\" }";
        let permission = "\"Action\": \"sts:AssumeRole\", \"Resource\": \"arn:aws:iam::210987654321:role/tiles\"";
        let trust = said(
            " because no role trust policy allows the sts:AssumeRole action",
            None,
        );
        assert!(
            trust.contains(principal) && !trust.contains(permission),
            "{trust}"
        );
        assert!(trust.contains("set `external_id`"), "{trust}");
        let own = said(
            " because no identity-based policy allows the sts:AssumeRole action",
            None,
        );
        assert!(
            own.contains(permission) && !own.contains("Principal"),
            "{own}"
        );
        let either = said("", Some("acme"));
        assert!(
            either.contains(principal) && either.contains(permission),
            "{either}"
        );
        assert!(
            either.contains("across accounts both are needed"),
            "{either}"
        );
        assert!(
            either.contains("exactly the configured `external_id`"),
            "{either}"
        );
        let denied = said(" with an explicit deny in the role trust policy", None);
        assert!(
            denied.starts_with("a \"Deny\" in the trust policy"),
            "{denied}"
        );
    }
}
