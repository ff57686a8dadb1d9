//! Refusals in AWS's words, and what to change about each.

use super::arn;
use super::ask::{Answer, Refusal, Site, Trouble};

/// Which policy refuses, where the message tells. Sources: "Troubleshoot access denied error messages",
/// IAM User Guide; "Troubleshoot access denied (403 Forbidden) errors", Amazon S3 User Guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refuser {
    Identity,
    Resource,
    Trust,
    Session,
    Boundary,
    VpcEndpoint,
    ServiceControl,
    ResourceControl,
}

impl Refuser {
    const ALL: [(&'static str, Self); 8] = [
        ("identity-based policy", Self::Identity),
        ("role trust policy", Self::Trust),
        ("resource-based policy", Self::Resource),
        ("session policy", Self::Session),
        ("permissions boundary", Self::Boundary),
        ("endpoint policy", Self::VpcEndpoint),
        ("service control policy", Self::ServiceControl),
        ("resource control policy", Self::ResourceControl),
    ];

    /// The policy that a message names.
    pub(super) fn of(message: &str) -> Option<Self> {
        let message = message.to_ascii_lowercase();
        let named = Self::ALL.iter().find(|(words, _)| message.contains(words));
        named.map(|(_, refuser)| *refuser)
    }

    /// Where such a policy is edited.
    const fn place(self) -> &'static str {
        match self {
            Self::Identity => "the policies attached to who asks",
            Self::Trust => "the role's trust policy",
            Self::Resource => "the bucket's policy (or the key's)",
            Self::Session => "the session policy",
            Self::Boundary => "the permissions boundary of who asks",
            Self::VpcEndpoint => "the policy of the VPC endpoint that the request went through",
            Self::ServiceControl => "a service control policy of the organisation",
            Self::ResourceControl => "a resource control policy of the organisation",
        }
    }
}

/// Whether a message says that something forbids it, rather than that nothing allows it.
pub(super) fn is_explicit(message: &str) -> bool {
    message.contains("explicit deny")
}

/// What to change so that an action on an S3 resource is allowed, given the message that denied it.
pub(super) fn allow(action: &str, resource: &str, who: &str, message: &str) -> String {
    let line = format!("\"Action\": \"{action}\", \"Resource\": \"{resource}\"");
    match Refuser::of(message) {
        Some(refuser) if is_explicit(message) => format!(
            "a \"Deny\" in {} matches: take {action} on {resource} out of it, or except {who} by a condition",
            refuser.place()
        ),
        Some(
            refuser @ (Refuser::Boundary
            | Refuser::VpcEndpoint
            | Refuser::ServiceControl
            | Refuser::ResourceControl),
        ) => format!(
            "{} does not let it through: allow {line} there too",
            refuser.place()
        ),
        _ => format!("in the policy of {who}, allow {line}"),
    }
}

/// The key that a refusal by KMS is about, if it is one: its ARN, or nothing where none is named.
pub(super) fn kms_key(refusal: &Refusal) -> Option<&str> {
    let message = &refusal.message;
    if !(refusal.code.starts_with("KMS.") || message.contains("kms:")) {
        return None;
    }
    let key = message.find("arn:").and_then(|_| {
        message
            .split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ','))
            .find(|word| word.starts_with("arn:") && word.contains(":kms:"))
    });
    Some(key.map_or("", |key| key.trim_end_matches('.')))
}

/// What to change about a KMS key that these keys may not use.
pub(super) fn kms_remedy(refusal: &Refusal, who: &str) -> String {
    let key = kms_key(refusal).unwrap_or_default();
    let resource = if key.is_empty() { "the key's ARN" } else { key };
    match refusal.code.as_str() {
        "KMS.DisabledException" => format!(
            "enable the KMS key again (aws kms enable-key --key-id {resource}), or write the tiles anew under another one"
        ),
        "KMS.NotFoundException" | "KMS.InvalidStateException" | "KMS.KMSInvalidStateException" => {
            "the KMS key is deleted or about to be: aws kms cancel-key-deletion while it lasts, or write the tiles anew \
             under another key"
                .to_owned()
        }
        _ => format!(
            "the tiles are under SSE-KMS: in the policy of {who}, allow \"Action\": \"kms:Decrypt\", \"Resource\": \
             \"{resource}\"; a key of another account must name {who} in its key policy too"
        ),
    }
}

/// What to do about trouble that has nothing to do with policies: keys, clock, region, network.
/// `from` is where the keys came from.
pub(super) fn common(site: &Site, trouble: &Trouble, from: &str) -> String {
    let refusal = match &trouble.answer {
        Answer::Silence(_) => return silence(site, trouble),
        Answer::Unreachable(text) => return unreachable(site, text),
        Answer::Refused(refusal) => refusal,
    };
    if let Some(remedy) = about_clock(refusal).or_else(|| about_keys(refusal, from)) {
        return remedy.to_owned();
    }
    if is_wrong_region(refusal) {
        return wrong_region(site, refusal);
    }
    match (refusal.status, refusal.code.as_str()) {
        (_, "NoSuchBucket") => {
            "there is no bucket of this name: correct the tileset's `bucket`, or make the bucket".into()
        }
        (_, "InvalidBucketName") => {
            "correct the tileset's `bucket`: 3 to 63 lower-case letters, digits, `-` and `.`".into()
        }
        (_, "InvalidObjectState") => {
            "the object is archived (Glacier): restore it, or keep tiles in S3 Standard".into()
        }
        (_, "RegionDisabledException") => {
            "activate this region's STS endpoint in the account's settings (IAM, Account settings, STS)".into()
        }
        (429 | 503, _) => {
            "S3 holds back for now; if it stays so, something else sends this bucket too many requests".into()
        }
        (500.., _) => "the server is in trouble of its own: try again, and look at its log or status page".into(),
        (_, "") => format!(
            "this is no answer of S3's or STS's: is {} the address of one, and is there a proxy in between?",
            endpoint_setting(site)
        ),
        (403, _) => "the account, the bucket or these keys are blocked: ask who runs the account".into(),
        _ => format!("look up `{}` in the server's API reference", refusal.code),
    }
}

/// Which setting says where S3 is.
fn endpoint_setting(site: &Site) -> &'static str {
    if site.is_aws() {
        "`region` in [aws]"
    } else {
        "`endpoint_url` in [aws]"
    }
}

fn silence(site: &Site, trouble: &Trouble) -> String {
    if site.is_aws() {
        format!(
            "packets get lost on the way ({}): in a subnet without a NAT gateway, add a gateway endpoint for S3 and an \
             interface endpoint for STS; look at security groups and network ACLs for port 443",
            trouble.call.split(' ').next().unwrap_or_default()
        )
    } else {
        "the server takes too long: is it up, is `endpoint_url` in [aws] right, is a firewall in between?".into()
    }
}

fn unreachable(site: &Site, text: &str) -> String {
    let text = text.to_ascii_lowercase();
    let setting = endpoint_setting(site);
    if text.contains("dns") || text.contains("lookup") || text.contains("name or service") {
        return format!("its name is not known here: correct {setting}, or this machine's DNS");
    }
    if text.contains("certificate") || text.contains("tls") || text.contains("handshake") {
        return format!(
            "TLS does not come about: {setting} must name the server as its certificate does (or say http:// if it \
             speaks that), and this machine must trust who signed it"
        );
    }
    if text.contains("refused") {
        return format!("nobody listens there: start the server, or correct {setting}");
    }
    format!("correct {setting}, or this machine's way to it")
}

/// Signatures are dated: S3 takes 15 minutes, STS 5.
pub(super) fn about_clock(refusal: &Refusal) -> Option<&'static str> {
    let dated = ["Signature expired", "Signature not yet current"];
    let skewed = refusal.code == "RequestTimeTooSkewed"
        || refusal.code == "RequestExpired"
        || dated.iter().any(|words| refusal.message.contains(words));
    skewed.then_some(SET_THE_CLOCK)
}

/// What sets a clock right.
pub(super) const SET_THE_CLOCK: &str = "this machine's clock is wrong: let NTP set it (timedatectl set-ntp true; on \
     EC2, chrony with 169.254.169.123); a container has its host's clock";

/// Keys that are not believed.
pub(super) fn about_keys(refusal: &Refusal, from: &str) -> Option<&'static str> {
    Some(match refusal.code.as_str() {
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired"
            if from == "environment" =>
        {
            "AWS_SESSION_TOKEN in the environment belongs to temporary keys whose time is over: take the three \
             variables out and give the machine a role, which is renewed by itself"
        }
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => {
            "the time of these keys is over: see what should renew them (a profile: aws sso login, or its \
             credential_process), and this machine's clock"
        }
        "InvalidClientTokenId" | "InvalidAccessKeyId" | "UnrecognizedClientException" => {
            "this access key is not known there: it was deleted or switched off (IAM, Security credentials), or belongs \
             to another partition or another server; a temporary key also needs its AWS_SESSION_TOKEN"
        }
        "SignatureDoesNotMatch" | "IncompleteSignature" => {
            "the secret access key is not this access key's: set both anew, without spaces or line ends around them"
        }
        "InvalidToken" | "MissingAuthenticationToken" => {
            "the session token is not this access key's: set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and \
             AWS_SESSION_TOKEN together, from the same source"
        }
        _ => return None,
    })
}

/// Whether the bucket is in another region than the one that was asked.
pub(super) fn is_wrong_region(refusal: &Refusal) -> bool {
    matches!(refusal.status, 301 | 307 | 308)
        || matches!(
            refusal.code.as_str(),
            "AuthorizationHeaderMalformed"
                | "PermanentRedirect"
                | "TemporaryRedirect"
                | "IllegalLocationConstraintException"
        )
}

fn wrong_region(site: &Site, refusal: &Refusal) -> String {
    let now = match &site.settings.region {
        Some(region) => format!("instead of \"{region}\""),
        None => format!(
            "(it is not set; the environment says \"{}\")",
            site.region()
        ),
    };
    match &refusal.region {
        Some(region) => {
            format!("the bucket is in {region}: in [aws], set region = \"{region}\" {now}")
        }
        None => format!(
            "the bucket is in another region: find it with `aws s3api get-bucket-location --bucket NAME`, and set \
             `region` in [aws] to it {now}"
        ),
    }
}

/// As it stands in a policy: `arn:aws:sts::1:assumed-role/tiles/i-0abc` is a session of a role.
pub(super) fn principal(arn: &str) -> String {
    let Some((head, rest)) = arn.split_once(":assumed-role/") else {
        return arn.to_owned();
    };
    let name = rest.split('/').next().unwrap_or(rest);
    let head = head.replacen(":sts:", ":iam:", 1);
    format!("{head}:role/{name}")
}

/// The account in an ARN.
pub(super) fn account(arn: &str) -> &str {
    arn.split(':').nth(4).unwrap_or_default()
}

/// The line that reads tiles: the objects', not the bucket's.
pub(super) fn read_objects(
    site: &Site,
    bucket: &str,
    prefix: &str,
    who: &str,
    message: &str,
) -> String {
    let objects = arn(site.region(), bucket, Some(prefix));
    let allow = allow("s3:GetObject", &objects, who, message);
    if is_explicit(message) {
        return allow;
    }
    let alone = arn(site.region(), bucket, None);
    format!(
        "{allow}; if it has \"Resource\": \"{alone}\", change that to \"{alone}/*\": without `/*` it is the bucket, not \
         what lies in it"
    )
}

/// The line that lets S3 say 404.
pub(super) fn list_bucket(site: &Site, bucket: &str, who: &str, message: &str) -> String {
    let bucket = arn(site.region(), bucket, None);
    allow("s3:ListBucket", &bucket, who, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_that_refuses_is_read_from_the_message() {
        let said = |by: &str| {
            Refuser::of(&format!(
                "User: arn:aws:sts::1:assumed-role/r/s is not authorized to perform: s3:GetObject on resource: \
                 \"arn:aws:s3:::b/k\" {by}"
            ))
        };
        for (by, expected) in [
            (
                "because no identity-based policy allows the s3:GetObject action",
                Refuser::Identity,
            ),
            (
                "with an explicit deny in a resource-based policy",
                Refuser::Resource,
            ),
            (
                "because no session policy allows the s3:GetObject action",
                Refuser::Session,
            ),
            (
                "because no VPC endpoint policy allows the s3:GetObject action",
                Refuser::VpcEndpoint,
            ),
            (
                "with an explicit deny in a service control policy",
                Refuser::ServiceControl,
            ),
            (
                "because no permissions boundary allows the s3:GetObject action",
                Refuser::Boundary,
            ),
            (
                "because no role trust policy allows the sts:AssumeRole action",
                Refuser::Trust,
            ),
        ] {
            assert_eq!(said(by), Some(expected), "{by}");
        }
        assert_eq!(Refuser::of("Access Denied"), None);
    }

    #[test]
    fn an_explicit_denial_is_not_answered_with_another_permission() {
        let message = "… with an explicit deny in a resource-based policy";
        let remedy = allow("s3:GetObject", "arn:aws:s3:::b/*", "role r", message);
        assert!(
            remedy.starts_with("a \"Deny\" in the bucket's policy"),
            "{remedy}"
        );
        let message = "… because no VPC endpoint policy allows the s3:GetObject action";
        let remedy = allow("s3:GetObject", "arn:aws:s3:::b/*", "role r", message);
        assert!(remedy.contains("VPC endpoint"), "{remedy}");
    }

    #[test]
    fn a_session_is_named_by_its_role_in_policies() {
        let session = "arn:aws:sts::123456789012:assumed-role/tilekeep-server/i-0abc";
        assert_eq!(
            principal(session),
            "arn:aws:iam::123456789012:role/tilekeep-server"
        );
        assert_eq!(
            principal("arn:aws:iam::1:user/anna"),
            "arn:aws:iam::1:user/anna"
        );
        assert_eq!(account(session), "123456789012");
    }

    #[test]
    fn the_kms_key_is_found_in_the_message() {
        let refusal = |code: &str, message: &str| Refusal {
            status: 403,
            code: code.into(),
            message: message.into(),
            ..Refusal::default()
        };
        let key = "arn:aws:kms:eu-west-1:1:key/1234";
        let denied = refusal(
            "AccessDenied",
            &format!(
                "User: arn:aws:iam::1:user/a is not authorized to perform: kms:Decrypt on resource: {key} because …"
            ),
        );
        assert_eq!(kms_key(&denied), Some(key));
        assert!(kms_remedy(&denied, "user a").contains(key));
        assert_eq!(
            kms_key(&refusal("KMS.DisabledException", "is disabled.")),
            Some("")
        );
        assert_eq!(kms_key(&refusal("AccessDenied", "Access Denied")), None);
    }
}
