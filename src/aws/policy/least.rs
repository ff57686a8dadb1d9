//! What a configuration needs of IAM: who reads which tilesets, what that takes, and who may become whom.
//!
//! Invariant: what is printed here passes [`super::check`]. Left out on purpose: the bucket's own policy and
//! the KMS key's; where all is in one account they need say nothing.

use serde::Serialize;
use serde_json::{Value, json};

use super::actions::{ASSUME_ROLE, DECRYPT, GET_OBJECT, LIST_BUCKET, QUEUE};
use super::pattern::is_wild;
use super::{Actions, Policy, Statement, allow, bucket_arn, objects_arn, reading};

/// What a configuration needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// `aws`, `aws-cn`, …: the second part of every ARN.
    pub partition: String,
    /// Who reads. The first one reads most: the tilesets without a role of their own, where there are any.
    pub readers: Vec<Reader>,
    /// The queue of `[events]`, and who reads it.
    pub queue: Option<Queue>,
    /// Whether S3 is asked over TLS, which policies may insist on.
    pub tls: bool,
}

/// A queue of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its ARN.
    pub arn: String,
    /// The role that is assumed to read it; none: the server's own identity.
    pub role: Option<(String, Option<String>)>,
}

/// Somebody who reads tilesets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// The role that is assumed, and its external id; none: the server's own identity.
    pub role: Option<(String, Option<String>)>,
    /// What it reads.
    pub tilesets: Vec<TilesetNeed>,
}

/// What a tileset needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TilesetNeed {
    /// Its name.
    pub name: String,
    /// Its bucket.
    pub bucket: String,
    /// Its objects' keys, whatever its version, in IAM's way: `world/*`.
    pub pattern: String,
    /// Some of its keys, as the server asks for them.
    pub keys: Vec<String>,
}

/// What the configuration does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// Who runs the server: ARNs of users, roles and OIDC providers, and services (`ec2.amazonaws.com`).
    pub principals: Vec<String>,
    /// ARNs of the keys that objects are encrypted with (SSE-KMS).
    pub kms_keys: Vec<String>,
}

/// The least privilege and the trust, as printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Least {
    /// Of who reads the tilesets, or most of them.
    #[serde(flatten)]
    pub main: Identity,
    /// Of the server's own identity, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<Identity>,
    /// Of further roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Identity>,
}

/// One identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// A role's ARN, or [`Identity::SERVER`].
    #[serde(rename = "for")]
    pub whose: String,
    /// What it reads.
    pub tilesets: Vec<String>,
    /// What it has to be allowed.
    pub policy: Policy,
    /// Who may be it.
    pub trust: Policy,
}

impl Identity {
    /// Whose credentials the server finds.
    pub const SERVER: &'static str = "server";
}

/// In the place of an ARN that nobody named. IAM refuses it.
const SOMEBODY: &str = "REPLACE-WITH-THE-ARN-OF-THE-ROLE-OR-USER-THAT-RUNS-TILEKEEP";
/// In the place of a service that nobody named.
const SOME_SERVICE: &str = "REPLACE-WITH-ec2.amazonaws.com-OR-ecs-tasks.amazonaws.com";

impl Least {
    /// Whether something is left to be filled in.
    pub fn has_placeholder(&self) -> bool {
        let all = std::iter::once(&self.main).chain(&self.caller);
        all.chain(&self.roles)
            .any(|identity| identity.trust.to_json().contains("REPLACE-WITH-"))
    }
}

impl Needs {
    /// Who is assumed or assumes, the one who reads most first: roles, and the server itself (`None`).
    fn everybody(&self) -> Vec<Option<&(String, Option<String>)>> {
        let readers = self.readers.iter().map(|r| r.role.as_ref());
        let queue = self.queue.iter().map(|q| q.role.as_ref());
        let mut all: Vec<Option<&(String, Option<String>)>> = Vec::new();
        for role in readers.chain(queue).chain([None]) {
            if !all.iter().any(|known| name(*known) == name(role)) {
                all.push(role);
            }
        }
        all
    }

    /// The roles that are assumed.
    pub(super) fn roles(&self) -> Vec<String> {
        let roles = self.everybody().into_iter().flatten();
        let mut arns: Vec<String> = roles.map(|(arn, _)| arn.clone()).collect();
        arns.sort();
        arns
    }

    /// What somebody reads.
    pub(super) fn tilesets(&self, whose: &str) -> &[TilesetNeed] {
        let reader = self.readers.iter().find(|r| name(r.role.as_ref()) == whose);
        reader.map_or(&[], |reader| &reader.tilesets)
    }

    /// The queue, where that is who reads it.
    pub(super) fn queue(&self, whose: &str) -> Option<&str> {
        let queue = self.queue.as_ref();
        let queue = queue.filter(|q| name(q.role.as_ref()) == whose);
        queue.map(|queue| queue.arn.as_str())
    }

    /// Everybody who needs a policy, the one who reads most first.
    pub fn identities(&self) -> Vec<&str> {
        self.everybody().into_iter().map(name).collect()
    }
}

/// A role's ARN, or [`Identity::SERVER`].
fn name(role: Option<&(String, Option<String>)>) -> &str {
    role.map_or(Identity::SERVER, |(arn, _)| arn.as_str())
}

/// What these needs come to.
pub fn least(needs: &Needs, hints: &Hints) -> Least {
    let mut everybody = needs.everybody().into_iter();
    let of = |role| identity(needs, hints, role);
    let main = of(everybody.next().flatten());
    let mut caller = None;
    let mut roles = Vec::new();
    for role in everybody {
        if role.is_none() {
            caller = Some(of(role));
        } else {
            roles.push(of(role));
        }
    }
    Least {
        main,
        caller,
        roles,
    }
}

fn identity(needs: &Needs, hints: &Hints, role: Option<&(String, Option<String>)>) -> Identity {
    let whose = name(role);
    let tilesets = needs.tilesets(whose);
    let mut statement = Vec::new();
    if !tilesets.is_empty() {
        let (objects, buckets) = resources(needs, tilesets.iter());
        statement = reading(objects, buckets);
        if !hints.kms_keys.is_empty() {
            statement.push(allow("DecryptTiles", DECRYPT, hints.kms_keys.clone()));
        }
    }
    if role.is_none() && !needs.roles().is_empty() {
        statement.push(allow("AssumeTheReadersRoles", ASSUME_ROLE, needs.roles()));
    }
    if let Some(queue) = needs.queue(whose) {
        statement.push(Statement {
            action: Actions::Several(QUEUE.to_vec()),
            ..allow("HearOfChanges", QUEUE[0], vec![queue.to_owned()])
        });
    }
    Identity {
        whose: whose.to_owned(),
        tilesets: tilesets.iter().map(|t| t.name.clone()).collect(),
        policy: Policy {
            version: "2012-10-17",
            statement,
        },
        trust: match role {
            Some((_, external_id)) => roles_trust(external_id.as_deref(), hints),
            None => servers_trust(hints),
        },
    }
}

/// The objects of tilesets, without what others cover, and their buckets.
fn resources<'a>(
    needs: &Needs,
    tilesets: impl Iterator<Item = &'a TilesetNeed>,
) -> (Vec<String>, Vec<String>) {
    let partition = &needs.partition;
    let (mut objects, mut buckets) = (Vec::new(), Vec::new());
    for TilesetNeed {
        bucket, pattern, ..
    } in tilesets
    {
        objects.push(objects_arn(partition, bucket, pattern));
        buckets.push(bucket_arn(partition, bucket));
    }
    for list in [&mut objects, &mut buckets] {
        list.sort();
        list.dedup();
    }
    let all = objects.clone();
    objects.retain(|object| {
        let covers = |other: &String| {
            let prefix = other.strip_suffix('*').filter(|prefix| !is_wild(prefix));
            other != object && prefix.is_some_and(|prefix| object.starts_with(prefix))
        };
        !all.iter().any(covers)
    });
    (objects, buckets)
}

/// Who may assume a role that reads: whoever the server is.
fn roles_trust(external_id: Option<&str>, hints: &Hints) -> Policy {
    let arns = hints.principals.iter().filter(|p| p.starts_with("arn:"));
    let arns: Vec<&String> = arns.filter(|p| !is_oidc(p)).collect();
    let who = match arns.as_slice() {
        [] => json!(SOMEBODY),
        [one] => json!(one),
        several => json!(several),
    };
    let condition = external_id.map(|id| json!({ "StringEquals": { "sts:ExternalId": id } }));
    trust(vec![trusting(
        json!({ "AWS": who }),
        ASSUME_ROLE,
        condition,
    )])
}

/// Who may be the server: the machine, the task or the pod that it runs in.
fn servers_trust(hints: &Hints) -> Policy {
    let mut statements = Vec::new();
    for provider in hints.principals.iter().filter(|p| is_oidc(p)) {
        let issuer = provider.split_once(":oidc-provider/").map_or("", |p| p.1);
        let condition = json!({ "StringEquals": {
            format!("{issuer}:aud"): "sts.amazonaws.com",
            format!("{issuer}:sub"): "system:serviceaccount:REPLACE-WITH-NAMESPACE:REPLACE-WITH-NAME",
        } });
        let action = "sts:AssumeRoleWithWebIdentity";
        statements.push(trusting(
            json!({ "Federated": provider }),
            action,
            Some(condition),
        ));
    }
    let services = hints.principals.iter().filter(|p| !p.starts_with("arn:"));
    let mut services: Vec<&str> = services.map(String::as_str).collect();
    if services.is_empty() && statements.is_empty() {
        services.push(SOME_SERVICE);
    }
    for service in services {
        let mut statement = trusting(json!({ "Service": service }), ASSUME_ROLE, None);
        if service.starts_with("pods.eks.") {
            statement.action = Actions::Several(vec![ASSUME_ROLE, "sts:TagSession"]);
        }
        statements.push(statement);
    }
    trust(statements)
}

fn is_oidc(principal: &str) -> bool {
    principal.contains(":oidc-provider/")
}

fn trusting(principal: Value, action: &'static str, condition: Option<Value>) -> Statement {
    Statement {
        principal: Some(principal),
        condition,
        ..allow("LetTilekeepIn", action, Vec::new())
    }
}

/// A trust policy; its statements' names must differ.
fn trust(mut statement: Vec<Statement>) -> Policy {
    const SIDS: [&str; 4] = ["LetTilekeepIn", "OrHere", "OrThere", "OrElsewhere"];
    for (statement, sid) in statement.iter_mut().zip(SIDS) {
        statement.sid = sid;
    }
    Policy {
        version: "2012-10-17",
        statement,
    }
}

/// Where tiles are published: what `tilekeep publish` needs there, `--prune` included.
pub fn publishing(needs: &Needs, hints: &Hints) -> Policy {
    let (objects, buckets) = resources(needs, needs.readers.iter().flat_map(|r| &r.tilesets));
    let writes = Statement {
        action: Actions::Several(vec![GET_OBJECT, "s3:PutObject", "s3:DeleteObject"]),
        ..allow("PublishTiles", GET_OBJECT, objects)
    };
    let lists = allow("CompareWithWhatIsThere", LIST_BUCKET, buckets);
    let mut statement = vec![writes, lists];
    if !hints.kms_keys.is_empty() {
        statement.push(Statement {
            action: Actions::Several(vec!["kms:GenerateDataKey", DECRYPT]),
            ..allow("EncryptTiles", DECRYPT, hints.kms_keys.clone())
        });
    }
    Policy {
        version: "2012-10-17",
        statement,
    }
}

/// The ARN of the queue at this URL: `https://sqs.eu-west-1.amazonaws.com/123456789012/tiles`. Servers that
/// only speak SQS's API have no region in their name: then it is this one.
pub fn queue_arn(url: &str, region: &str, partition: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let (host, path) = rest.split_once('/')?;
    let (account, queue) = path.trim_end_matches('/').rsplit_once('/').or_else(|| {
        // Some servers name no account.
        (!path.is_empty()).then_some(("", path))
    })?;
    let account = account.rsplit('/').next()?;
    // A region's name ends in a number; those of VPC endpoints do not.
    let is_region = |label: &&str| {
        let last = label.rsplit('-').next().unwrap_or_default();
        label.matches('-').count() >= 2 && last.parse::<u8>().is_ok()
    };
    let of_aws = host.contains(".amazonaws.com");
    let region = match host.split('.').find(is_region) {
        Some(own) if of_aws => own,
        None if of_aws => "us-east-1",
        _ => region,
    };
    Some(format!("arn:{partition}:sqs:{region}:{account}:{queue}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(name: &str, prefix: &str) -> TilesetNeed {
        TilesetNeed {
            name: name.into(),
            bucket: "acme".into(),
            pattern: format!("{prefix}*"),
            keys: vec![format!("{prefix}0/0/0.png")],
        }
    }

    fn needs(readers: Vec<Reader>) -> Needs {
        Needs {
            partition: "aws".into(),
            readers,
            queue: None,
            tls: true,
        }
    }

    fn reader(role: Option<(&str, Option<&str>)>, tilesets: Vec<TilesetNeed>) -> Reader {
        Reader {
            role: role.map(|(arn, id)| (arn.to_owned(), id.map(str::to_owned))),
            tilesets,
        }
    }

    fn printed(needs: &Needs, hints: &Hints) -> Value {
        serde_json::to_value(least(needs, hints)).unwrap()
    }

    #[test]
    fn without_a_role_the_server_itself_reads() {
        let needs = needs(vec![reader(None, vec![need("world", "world/")])]);
        let json = printed(&needs, &Hints::default());
        assert_eq!(json["for"], "server");
        assert_eq!(json["policy"]["Statement"][0]["Action"], GET_OBJECT);
        assert_eq!(
            json["policy"]["Statement"][0]["Resource"],
            json!(["arn:aws:s3:::acme/world/*"])
        );
        assert_eq!(
            json["policy"]["Statement"][1]["Resource"],
            json!(["arn:aws:s3:::acme"])
        );
        let who = &json["trust"]["Statement"][0]["Principal"]["Service"];
        assert!(who.as_str().unwrap().starts_with("REPLACE-WITH-"));
        assert!(json.get("caller").is_none() && json.get("roles").is_none());
        let ec2 = Hints {
            principals: vec!["ec2.amazonaws.com".into()],
            kms_keys: vec!["arn:aws:kms:eu-west-1:1:key/k".into()],
        };
        let json = printed(&needs, &ec2);
        let who = &json["trust"]["Statement"][0]["Principal"]["Service"];
        assert_eq!(who, "ec2.amazonaws.com");
        assert_eq!(json["policy"]["Statement"][2]["Action"], "kms:Decrypt");
    }

    #[test]
    fn a_role_trusts_its_caller_by_external_id_and_the_caller_may_assume_it() {
        let arn = "arn:aws:iam::2:role/tiles";
        let mut needs = needs(vec![reader(
            Some((arn, Some("acme-7"))),
            vec![need("w", "w/")],
        )]);
        needs.queue = Some(Queue {
            arn: "arn:aws:sqs:eu-west-1:1:q".into(),
            role: None,
        });
        let here = "arn:aws:iam::1:role/server";
        let hints = Hints {
            principals: vec![here.into()],
            kms_keys: Vec::new(),
        };
        let json = printed(&needs, &hints);
        assert_eq!(json["for"], arn);
        let trust = &json["trust"]["Statement"][0];
        assert_eq!(trust["Principal"]["AWS"], here);
        assert_eq!(trust["Action"], ASSUME_ROLE);
        assert_eq!(
            trust["Condition"]["StringEquals"]["sts:ExternalId"],
            "acme-7"
        );
        assert!(trust.get("Resource").is_none(), "a trust policy has none");
        let caller = &json["caller"]["policy"]["Statement"];
        assert_eq!(caller[0]["Action"], ASSUME_ROLE);
        assert_eq!(caller[0]["Resource"], json!([arn]));
        assert_eq!(caller[1]["Action"], json!(QUEUE));
        assert_eq!(caller[2], Value::Null);
    }

    #[test]
    fn a_role_that_only_reads_the_queue_is_one_too() {
        let own = "arn:aws:iam::2:role/tiles";
        let mut needs = needs(vec![reader(Some((own, None)), vec![need("w", "w/")])]);
        let for_all = ("arn:aws:iam::3:role/all".to_owned(), Some("x".to_owned()));
        needs.queue = Some(Queue {
            arn: "arn:aws:sqs:eu-west-1:1:q".into(),
            role: Some(for_all.clone()),
        });
        let json = printed(&needs, &Hints::default());
        assert_eq!(json["for"], own);
        let role = &json["roles"][0];
        assert_eq!(role["for"], for_all.0);
        assert_eq!(role["policy"]["Statement"][0]["Action"], json!(QUEUE));
        assert!(role["policy"]["Statement"][1].is_null());
        let assume = &json["caller"]["policy"]["Statement"][0];
        assert_eq!(assume["Resource"], json!([own, for_all.0]));
    }

    #[test]
    fn an_archive_is_one_object_and_what_another_covers_is_not_named() {
        let object = |name: &str, pattern: &str| TilesetNeed {
            pattern: pattern.into(),
            ..need(name, "")
        };
        let tilesets = vec![
            object("a", "a.pmtiles"),
            object("v", "v/*.pmtiles"),
            object("w", "w/*"),
            object("x", "w/x/*"),
        ];
        let json = printed(&needs(vec![reader(None, tilesets)]), &Hints::default());
        assert_eq!(
            json["policy"]["Statement"][0]["Resource"],
            json!([
                "arn:aws:s3:::acme/a.pmtiles",
                "arn:aws:s3:::acme/v/*.pmtiles",
                "arn:aws:s3:::acme/w/*"
            ])
        );
    }

    #[test]
    fn further_roles_are_told_apart() {
        let arns = ["arn:aws:iam::2:role/a", "arn:aws:iam::3:role/b"];
        let own = reader(None, vec![need("w", "w/")]);
        let roles = arns.map(|arn| reader(Some((arn, None)), vec![need("x", "x/")]));
        let all = needs([own].into_iter().chain(roles).collect());
        let json = printed(&all, &Hints::default());
        assert_eq!(
            json["policy"]["Statement"][2]["Resource"],
            json!(arns),
            "the server itself reads, and assumes"
        );
        assert!(json.get("caller").is_none());
        assert_eq!(json["roles"][1]["for"], arns[1]);
        assert!(json["roles"][1]["trust"]["Statement"][0]["Condition"].is_null());
    }

    #[test]
    fn pods_and_service_accounts_have_their_own_ways() {
        let needs = needs(vec![reader(None, vec![need("w", "w/")])]);
        let provider = "arn:aws:iam::1:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/AB";
        let hints = Hints {
            principals: vec!["pods.eks.amazonaws.com".into(), provider.into()],
            kms_keys: Vec::new(),
        };
        let json = printed(&needs, &hints);
        let statements = &json["trust"]["Statement"];
        assert_eq!(statements[0]["Principal"]["Federated"], provider);
        assert_eq!(statements[0]["Action"], "sts:AssumeRoleWithWebIdentity");
        assert_eq!(statements[1]["Action"][1], "sts:TagSession");
        assert_ne!(statements[0]["Sid"], statements[1]["Sid"]);
    }

    #[test]
    fn a_queues_url_tells_its_arn() {
        let arn = |url| queue_arn(url, "eu-central-1", "aws");
        for (url, expected) in [
            (
                "https://sqs.eu-west-1.amazonaws.com/123456789012/tiles",
                "arn:aws:sqs:eu-west-1:123456789012:tiles",
            ),
            (
                "https://eu-west-3.queue.amazonaws.com/1/t.fifo",
                "arn:aws:sqs:eu-west-3:1:t.fifo",
            ),
            (
                "https://queue.amazonaws.com/1/t",
                "arn:aws:sqs:us-east-1:1:t",
            ),
            (
                "https://vpce-0a1-b2.sqs.us-gov-east-1.vpce.amazonaws.com/1/t",
                "arn:aws:sqs:us-gov-east-1:1:t",
            ),
            (
                "http://127.0.0.1:4566/000000000000/t",
                "arn:aws:sqs:eu-central-1:000000000000:t",
            ),
        ] {
            assert_eq!(arn(url).as_deref(), Some(expected));
        }
        assert_eq!(arn("tiles"), None);
    }
}
