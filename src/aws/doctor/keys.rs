//! Whether anybody hands out keys, and whose they are.

use aws_credential_types::Credentials;
use tokio::time::timeout;

use super::super::source::{self, Brought, Chain, HOP_LIMIT, NO_ROLE, SSO, Source};
use super::ask::{Answer, Site, Trouble};
use super::denial::{account, common, principal};
use super::{Check, Finding};
use crate::aws::CredentialSource;
use crate::clock::Timestamp;
use crate::metrics::CredentialOutcome;

/// The first keys.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// None, where they could not be found.
    pub(super) credentials: Option<Credentials>,
    /// Which link of the chain they came from.
    pub(super) from: &'static str,
}

/// Whose keys they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Who {
    /// Unknown where STS is not asked.
    pub(super) arn: Option<String>,
}

impl Who {
    /// As it stands in a policy.
    pub(super) fn principal(&self) -> String {
        let arn = self.arn.as_deref();
        arn.map_or_else(|| "who owns these keys".to_owned(), principal)
    }

    /// Whether these are a role's: what they assume lasts an hour at most.
    pub(super) fn is_role(&self) -> bool {
        self.arn
            .as_deref()
            .is_some_and(|arn| arn.contains(":assumed-role/"))
    }
}

/// Asks whoever hands out the first keys, once.
pub(super) async fn find(site: &Site) -> Result<Brought, source::Trouble> {
    let patience = site.patience.credentials;
    let chain = || {
        let (http, base) = (site.http.clone(), site.base.clone());
        Chain::new(http, base, site.clock.clone(), patience)
    };
    let source = match &site.credentials {
        CredentialSource::Keys(keys) => {
            return Ok(Brought {
                credentials: keys.clone().into(),
                from: "the program",
            });
        }
        CredentialSource::Chain => chain(),
        CredentialSource::Imds(endpoint) => chain().imds_alone(endpoint.clone()),
    };
    let source = Source::Chain(Box::new(source));
    timeout(patience, source.ask())
        .await
        .unwrap_or_else(|_| Err(source.cut_off(patience)))
}

/// What came of it.
pub(super) fn credentials(
    site: &Site,
    brought: Result<Brought, source::Trouble>,
) -> (Finding, Keys) {
    let none = Keys {
        credentials: None,
        from: "",
    };
    let brought = match brought {
        Ok(brought) => brought,
        Err(trouble) => return (not_found(&trouble), none),
    };
    let id = brought.credentials.access_key_id();
    // Its end tells an operator which key it is, and nobody else anything.
    let end = id.get(id.len().saturating_sub(4)..).unwrap_or_default();
    let from = brought.from;
    let expires = brought.credentials.expiry().map(|at| {
        let since = at.duration_since(std::time::UNIX_EPOCH);
        Timestamp::from_secs(since.map_or(0, |since| since.as_secs()))
    });
    let now = site.clock.now();
    let at = |end: Timestamp| humantime::format_rfc3339_seconds(end.to_system_time());
    let finding = match expires {
        Some(end_of_life) if end_of_life <= now => {
            let reason = format!(
                "from {from}, key …{end}: their time was over at {}",
                at(end_of_life)
            );
            let remedy = "see what should renew them: a profile's credential_process, SSO (aws sso login), or the \
                          service that hands them out; and compare this machine's clock";
            return (Finding::failed(Check::Credentials, reason, remedy), none);
        }
        Some(end_of_life) => format!("from {from}, key …{end}, until {}", at(end_of_life)),
        None => format!("from {from}, key …{end}, without an end"),
    };
    let keys = Keys {
        credentials: Some(brought.credentials),
        from,
    };
    (Finding::ok(Check::Credentials, finding), keys)
}

/// Nobody hands out any.
fn not_found(trouble: &source::Trouble) -> Finding {
    const SHELL: &str = "the doctor sees its own environment: run it as the server runs (same user, same variables, same \
                         container)";
    let said = &trouble.said;
    let without = |hint: &str| said.replace(&format!("; {hint}"), "");
    let hop_limit = "if this runs in a container on EC2, the instance's metadata is one hop too far: set \
                     HttpPutResponseHopLimit to 2 (aws ec2 modify-instance-metadata-options --instance-id ID \
                     --http-tokens required --http-put-response-hop-limit 2)";
    let (reason, remedy) = if said.contains(HOP_LIMIT) {
        (without(HOP_LIMIT), hop_limit.to_owned())
    } else if said.contains(NO_ROLE) {
        let reason = said.replace(NO_ROLE, "the instance has no role");
        let remedy = "attach an instance profile whose role may read the bucket (aws ec2 \
                      associate-iam-instance-profile --instance-id ID --iam-instance-profile Name=NAME)";
        (reason, remedy.to_owned())
    } else if said.contains(SSO) {
        (without(SSO), SSO.to_owned())
    } else {
        let remedy = match trouble.outcome {
            CredentialOutcome::NotFound => format!(
                "give the machine a role (EC2: an instance profile; ECS: taskRoleArn; EKS: a service account with a \
                 role); elsewhere set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; {SHELL}"
            ),
            CredentialOutcome::Denied => {
                "correct that source's configuration, as the reason says".to_owned()
            }
            CredentialOutcome::Deadline => format!(
                "find out why it does not answer, or take it out of the way: the first source that is configured is the \
                 one that counts; {SHELL}"
            ),
            _ => format!(
                "put that source in order, or take its configuration away: the first source that is configured is the \
                 one that counts; {SHELL}"
            ),
        };
        (said.clone(), remedy)
    };
    Finding::failed(Check::Credentials, reason, remedy)
}

/// Asks STS whose keys these are. That needs no permission.
pub(super) async fn identity(site: &Site, keys: &Keys) -> (Finding, Who) {
    let sts = keys.credentials.clone().and_then(|keys| site.sts(keys));
    let Some(sts) = sts else {
        let reason =
            "STS is not asked: `endpoint_url` is set in [aws], and `sts_endpoint_url` is not";
        return (Finding::skipped(Check::Identity, reason), Who::default());
    };
    let error = match sts.get_caller_identity().send().await {
        Ok(answer) => {
            let arn = answer.arn().unwrap_or_default().to_owned();
            if arn.is_empty() {
                let reason = "GetCallerIdentity: an answer without an ARN";
                let remedy = "is `sts_endpoint_url` in [aws] the address of an STS?";
                return (
                    Finding::failed(Check::Identity, reason, remedy),
                    Who::default(),
                );
            }
            let account = answer.account().unwrap_or_else(|| account(&arn));
            let reason = format!("{arn}, account {account}");
            return (Finding::ok(Check::Identity, reason), Who { arn: Some(arn) });
        }
        Err(error) => Trouble::of("GetCallerIdentity", &error),
    };
    let remedy = common(site, &error, keys.from);
    let roles = site.tilesets.iter();
    let needed = roles
        .into_iter()
        .any(|(_, own)| site.role_of(own.as_ref()).is_some());
    let finding = match error.answer {
        // Nothing that serves tiles asks STS then.
        Answer::Silence(_) | Answer::Unreachable(_) if !needed => Finding::warning(
            Check::Identity,
            format!("{error}; tiles do not need STS as long as no role is assumed"),
            remedy,
        ),
        _ => Finding::failed(Check::Identity, error.to_string(), remedy),
    };
    (finding, Who::default())
}
