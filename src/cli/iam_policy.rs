//! `tilekeep iam-policy`: the least privilege and the trust that a configuration needs, or what is wrong with
//! a policy written by hand.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{ConfigArg, Failure, print};
use crate::app::needs::needs;
use crate::aws::policy::{Hints, Identity, Needs, Policy, Sort, check, least, publishing};
use crate::config::Config;

/// What IAM takes as a managed policy, white space aside.
const MAX_MANAGED: usize = 6144;

/// Print the least privilege and the trust that a configuration needs, or check a policy.
///
/// Prints {"policy": …, "trust": …}, of whoever reads the tiles. Where a role is assumed, `caller` is what the
/// server's own identity needs for it, and `roles` has the roles of single tilesets. Asks nobody: what is true of
/// the account, `tilekeep doctor` finds out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tilekeep iam-policy --principal ec2.amazonaws.com
  tilekeep iam-policy --principal arn:aws:iam::123456789012:role/tilekeep-server
  tilekeep iam-policy --check policy.json
  aws iam get-role-policy --role-name tiles --policy-name read | tilekeep iam-policy --check -

Exit codes: 0 fine, 1 findings, 2 a policy or configuration that cannot be read.")]
pub(super) struct IamPolicyArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// Say what is wrong with the policy in this file; - for standard input.
    #[arg(long, value_name = "POLICY.json")]
    check: Option<PathBuf>,

    /// Whose policy is checked: a role's ARN, or `server` for the server's own identity; by default who reads
    /// the tiles.
    #[arg(long, value_name = "WHOSE", requires = "check")]
    r#for: Option<String>,

    /// Who runs the server: the ARN of a role, user or OIDC provider, or a service like ec2.amazonaws.com;
    /// repeat it for several.
    #[arg(long, value_name = "ARN|SERVICE", value_parser = principal, conflicts_with = "check")]
    principal: Vec<String>,

    /// The key that objects are encrypted with (SSE-KMS); repeat it for several.
    #[arg(long, value_name = "ARN", value_parser = kms_key, conflicts_with = "check")]
    kms_key: Vec<String>,

    /// Print what `tilekeep publish` needs instead: to write, list and delete.
    #[arg(long, conflicts_with = "check")]
    publish: bool,
}

pub(super) fn run(args: IamPolicyArgs) -> Result<(), Failure> {
    let config = Config::load_without_secrets(&args.config.config)?;
    let region = ["AWS_REGION", "AWS_DEFAULT_REGION"];
    let region = region.iter().find_map(|name| std::env::var(name).ok());
    let needs = needs(&config, region.as_deref());
    if let Some(file) = &args.check {
        return check_file(file, &needs, args.r#for.as_deref());
    }
    let encrypted = !args.kms_key.is_empty();
    let hints = Hints {
        principals: args.principal,
        kms_keys: args.kms_key,
    };
    if args.publish {
        let policy = publishing(&needs, &hints);
        note_size(&policy);
        print(&pretty(&Publishing { policy }))?;
        return Ok(());
    }
    let least = least(&needs, &hints);
    print(&pretty(&least))?;
    note_size(&least.main.policy);
    if least.has_placeholder() {
        note(
            "`trust` has a placeholder, which IAM refuses: name who runs the server with --principal, an ARN or \
             a service like ec2.amazonaws.com",
        );
    }
    if !encrypted && config.aws.endpoint_url.is_none() {
        note(
            "objects under SSE-KMS also need kms:Decrypt on their key, here and in the key's policy: --kms-key ARN",
        );
    }
    Ok(())
}

/// What `--publish` prints, in the order that people write.
#[derive(serde::Serialize)]
struct Publishing {
    policy: Policy,
}

fn check_file(file: &Path, needs: &Needs, whose: Option<&str>) -> Result<(), Failure> {
    let identities = needs.identities();
    let first = identities.first().copied().unwrap_or(Identity::SERVER);
    let whose = whose.unwrap_or(first);
    if !identities.contains(&whose) {
        let there = identities.join(", ");
        return Err(Failure::Usage(format!(
            "--for: this configuration has no `{whose}`; there are: {there}"
        )));
    }
    let name = file.display();
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|error| {
        Failure::Usage(format!("{name}: {error}; name a policy document in JSON"))
    })?;
    let findings = check(&text, needs, whose)
        .map_err(|unusable| Failure::Usage(format!("{name}: {unusable}")))?;
    for finding in &findings {
        print(&format!("{name}: {finding}"))?;
    }
    let wrong = findings.iter().filter(|f| f.sort == Sort::Wrong).count();
    if wrong > 0 {
        let findings = if wrong == 1 { "finding" } else { "findings" };
        return Err(Failure::Failed(format!(
            "{wrong} {findings} in {name}; `tilekeep iam-policy` prints the least that {whose} needs"
        )));
    }
    print(&format!(
        "{name}: allows what {whose} needs, and no more{}",
        if findings.is_empty() {
            ""
        } else {
            ", as far as it could be judged"
        }
    ))
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn note(text: &str) {
    eprintln!("note: {text}");
}

fn note_size(policy: &Policy) {
    let characters = policy.to_json().chars().count();
    if characters > MAX_MANAGED {
        note(&format!(
            "the policy has {characters} characters, and IAM takes {MAX_MANAGED}: give tilesets prefixes in common, or \
             some an `assume_role` of their own"
        ));
    }
}

fn principal(text: &str) -> Result<String, String> {
    let is_arn = text.starts_with("arn:") && text.matches(':').count() >= 5;
    let is_service = text.ends_with(".amazonaws.com") || text.ends_with(".amazonaws.com.cn");
    if (is_arn || is_service) && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(
        "an ARN like arn:aws:iam::123456789012:role/server, or a service like ec2.amazonaws.com"
            .into(),
    )
}

fn kms_key(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split(':').collect();
    if matches!(parts.as_slice(), ["arn", _, "kms", _, _, key] if key.starts_with("key/")) {
        return Ok(text.to_owned());
    }
    Err("the key's ARN, like arn:aws:kms:eu-west-1:123456789012:key/…; an alias does not do".into())
}
