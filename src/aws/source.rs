//! Where keys come from: the SDK's chain, taken source by source, and roles; and what each failure
//! means to the person who set it up.
//!
//! Invariant: a failure is told as one. The SDK's own IMDS provider hides it by handing out the old
//! keys again, and its chain by saying 'none of them'; so every attempt starts with new providers,
//! which also read the profile's files anew, and each source's own words are kept.
//! One thing is the SDK's way still: where IMDS itself hands out keys past their end, as in an outage of
//! EC2's own, it stretches them by 10 to 15 minutes, since S3 may take them (AWS calls it static stability).
//! Left out on purpose: when to ask, and what to do without an answer (`keeper`).

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds;
use aws_config::imds::client::error::ImdsError;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_sts::operation::assume_role::{AssumeRoleError, AssumeRoleOutput};
use aws_smithy_async::time::TimeSource;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::AssumeRole;
use super::keeper::Kept;
use super::words::{find, printable, said};
use crate::clock::Clock;
use crate::metrics::CredentialOutcome;

pub(super) const HOP_LIMIT: &str = "in a container on EC2, IMDSv2's hop limit hides it: aws ec2 modify-instance-metadata-options \
     --instance-id ID --http-put-response-hop-limit 2";

pub(super) const NO_ROLE: &str =
    "the instance has no role: attach an instance profile (aws ec2 associate-iam-instance-profile)";
pub(super) const SSO: &str = "an SSO session lasts hours and is a person's: run `aws sso login`, and give a server a role instead";

/// The SDK's words where IMDS answers 403: "the request is not allowed or IMDS is turned off" (AWS SDK for Ruby,
/// `EC2Metadata::RequestForbiddenError`).
const FORBIDDEN: &str = "request forbidden";

/// Keys, and which source they came from.
#[derive(Debug)]
pub(super) struct Brought {
    pub(super) credentials: Credentials,
    pub(super) from: &'static str,
}

/// Why none came.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) outcome: CredentialOutcome,
    pub(super) said: String,
    /// The keys that signed the question were refused: their keeper should look for new ones.
    pub(super) base_refused: bool,
}

impl Trouble {
    fn new(outcome: CredentialOutcome, said: impl Into<String>) -> Self {
        Self {
            outcome,
            said: said.into(),
            base_refused: false,
        }
    }
}

/// Somebody who can be asked for keys.
#[derive(Debug)]
pub(super) enum Source {
    /// The SDK's chain, or its last link alone.
    Chain(Box<Chain>),
    /// STS.
    Role(Box<Role>),
}

impl Source {
    pub(super) async fn ask(&self) -> Result<Brought, Trouble> {
        match self {
            Self::Chain(chain) => chain.ask().await,
            Self::Role(role) => role.ask().await,
        }
    }

    /// What to say when an attempt was cut off.
    pub(super) fn cut_off(&self, after: Duration) -> Trouble {
        let (who, hint) = match self {
            Self::Chain(chain) => {
                let link = *chain.asking.lock().unwrap_or_else(PoisonError::into_inner);
                (link.name(), link.silence())
            }
            Self::Role(_) => ("STS", "is there a way out to it, or a VPC endpoint?"),
        };
        let said = format!("{who}: no answer in {after:?}; {hint}");
        Trouble::new(CredentialOutcome::Deadline, said)
    }

    /// The keeper whose keys sign the question.
    pub(super) fn base(&self) -> Option<&Kept> {
        match self {
            Self::Chain(_) => None,
            Self::Role(role) => Some(&role.base),
        }
    }
}

/// The links of the SDK's chain, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Environment,
    Profile,
    WebIdentity,
    Ecs,
    Imds,
}

impl Link {
    const ALL: [Self; 5] = [
        Self::Environment,
        Self::Profile,
        Self::WebIdentity,
        Self::Ecs,
        Self::Imds,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Profile => "profile",
            Self::WebIdentity => "web identity",
            Self::Ecs => "ECS or EKS Pod Identity",
            Self::Imds => "EC2 (IMDSv2)",
        }
    }

    /// What its silence may mean.
    const fn silence(self) -> &'static str {
        match self {
            Self::Environment => "the environment",
            Self::Profile => "what its `credential_process`, SSO or source profile waits for",
            Self::WebIdentity => "is there a way out to STS, or a VPC endpoint?",
            Self::Ecs => "the task's or pod's credentials endpoint is silent",
            Self::Imds => HOP_LIMIT,
        }
    }
}

/// The SDK's chain.
#[derive(Debug)]
pub(super) struct Chain {
    links: &'static [Link],
    http: SharedHttpClient,
    base: SdkConfig,
    clock: Clock,
    imds_endpoint: Option<String>,
    /// What IMDS may take to connect, and for each of its three answers. Where it is, it takes
    /// milliseconds.
    imds_timeout: Duration,
    /// For the words when it is cut off.
    asking: Mutex<Link>,
}

impl Chain {
    /// All of it, for attempts that may take so long.
    pub(super) fn new(
        http: SharedHttpClient,
        base: SdkConfig,
        clock: Clock,
        attempt: Duration,
    ) -> Self {
        Self {
            links: &Link::ALL,
            http,
            base,
            clock,
            imds_endpoint: None,
            imds_timeout: attempt / 4,
            asking: Mutex::new(Link::Environment),
        }
    }

    /// The instance's metadata alone; at another address than the usual one, if any.
    #[must_use]
    pub(super) fn imds_alone(self, endpoint: Option<String>) -> Self {
        Self {
            links: &[Link::Imds],
            imds_endpoint: endpoint,
            ..self
        }
    }

    async fn ask(&self) -> Result<Brought, Trouble> {
        let config = ProviderConfig::without_region()
            .with_http_client(self.http.clone())
            .with_behavior_version(Some(BehaviorVersion::latest()))
            .with_time_source(ByClock(self.clock.clone()))
            .with_use_fips(self.base.use_fips())
            .with_use_dual_stack(self.base.use_dual_stack())
            .with_region(self.base.region().cloned());
        let mut tried = String::new();
        for link in self.links {
            *self.asking.lock().unwrap_or_else(PoisonError::into_inner) = *link;
            match self.follow(*link, &config).await {
                Ok(credentials) => {
                    let from = link.name();
                    return Ok(Brought { credentials, from });
                }
                // As the SDK does it: a link that is there and fails ends the search. Otherwise other
                // keys than the intended ones could be used.
                Err(error) if is_not_there(*link, &error) => {
                    let comma = if tried.is_empty() { "" } else { ", " };
                    let why = why_not(*link, &error);
                    // Writing to a String cannot fail.
                    let _ = write!(tried, "{comma}{}: {why}", link.name());
                }
                Err(error) => return Err(failed(*link, &error)),
            }
        }
        let outcome = if tried.contains(HOP_LIMIT) {
            CredentialOutcome::Deadline
        } else {
            CredentialOutcome::NotFound
        };
        let said = format!("there are no AWS credentials anywhere; {tried}");
        Err(Trouble::new(outcome, said))
    }

    async fn follow(
        &self,
        link: Link,
        config: &ProviderConfig,
    ) -> Result<Credentials, CredentialsError> {
        match link {
            Link::Environment => {
                EnvironmentVariableCredentialsProvider::new()
                    .provide_credentials()
                    .await
            }
            Link::Profile => {
                let profile = ProfileFileCredentialsProvider::builder().configure(config);
                profile.build().provide_credentials().await
            }
            Link::WebIdentity => {
                let web = WebIdentityTokenCredentialsProvider::builder().configure(config);
                web.build().provide_credentials().await
            }
            Link::Ecs => {
                let ecs = EcsCredentialsProvider::builder().configure(config);
                ecs.build().provide_credentials().await
            }
            Link::Imds => {
                let mut client = imds::Client::builder()
                    .configure(config)
                    .max_attempts(1)
                    .connect_timeout(self.imds_timeout)
                    .read_timeout(self.imds_timeout);
                if let Some(endpoint) = &self.imds_endpoint {
                    client = client
                        .endpoint(endpoint)
                        .map_err(CredentialsError::invalid_configuration)?;
                }
                let imds = ImdsCredentialsProvider::builder().configure(config);
                imds.imds_client(client.build())
                    .build()
                    .provide_credentials()
                    .await
            }
        }
    }
}

/// Whether a link is not there at all: who should give it keys, or switch it on, has to hear what else was tried.
fn is_not_there(link: Link, error: &CredentialsError) -> bool {
    let is_off = || link == Link::Imds && said(error).contains(FORBIDDEN);
    matches!(error, CredentialsError::CredentialsNotLoaded(_)) || is_off()
}

/// Why a link has nothing.
fn why_not(link: Link, error: &CredentialsError) -> String {
    let said = said(error);
    match link {
        Link::Environment => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set".into(),
        Link::Imds if said.contains("read timeout") => {
            format!("it takes connections and does not answer; {HOP_LIMIT}")
        }
        Link::Imds if said.contains(FORBIDDEN) => {
            "it answers 403: its metadata is switched off, or not for this machine".into()
        }
        Link::Imds if said.contains("404") => {
            NO_ROLE.into()
        }
        Link::Imds if said.contains("communicate") => {
            "nothing answers at its address, so this is no EC2 instance, or its metadata is switched off".into()
        }
        // The SDK's first words say no more than the list does.
        _ => match said.split_once(": ") {
            Some((_, cause)) => cause.into(),
            None => "not configured".into(),
        },
    }
}

/// A link that is there and fails.
fn failed(link: Link, error: &CredentialsError) -> Trouble {
    let outcome = match error {
        CredentialsError::InvalidConfiguration(_) => CredentialOutcome::Denied,
        CredentialsError::ProviderTimedOut(_) => CredentialOutcome::Deadline,
        _ => CredentialOutcome::Unavailable,
    };
    let name = link.name();
    // Its `Display` would print the whole response.
    if let Some(ImdsError::ErrorResponse(answer)) = find::<ImdsError>(error) {
        let status = answer.response().status().as_u16();
        let said = format!("{name}: it answered {status}");
        return Trouble::new(CredentialOutcome::Unavailable, said);
    }
    let mut said = said(error);
    let slow = link == Link::Imds && said.contains("timeout");
    let hint = match link {
        Link::Imds if slow => Some(HOP_LIMIT),
        Link::Profile if said.contains("SSO") => Some(SSO),
        _ => None,
    };
    // The SDK's first words say no more than that.
    if let Some((_, cause)) = said.split_once("while loading credentials: ") {
        said = cause.to_owned();
    }
    if let Some(hint) = hint {
        said = format!("{said}; {hint}");
    }
    let outcome = if slow {
        CredentialOutcome::Deadline
    } else {
        outcome
    };
    Trouble::new(outcome, format!("{name}: {said}"))
}

/// A role that STS gives out.
#[derive(Debug)]
pub(super) struct Role {
    sts: aws_sdk_sts::Client,
    session: AssumeRole,
    policy: Option<String>,
    base: Kept,
}

impl Role {
    /// `sts` says where STS is asked; the base's keys sign.
    pub(super) fn new(
        sts: &SdkConfig,
        session: AssumeRole,
        policy: Option<String>,
        base: Kept,
    ) -> Self {
        // The keeper repeats what fails; the SDK would do so on top, and the base's keys are kept already.
        let config = aws_sdk_sts::config::Builder::from(sts)
            .retry_config(aws_config::retry::RetryConfig::disabled())
            .build();
        Self {
            sts: aws_sdk_sts::Client::from_conf(config),
            session,
            policy,
            base,
        }
    }

    pub(super) async fn ask(&self) -> Result<Brought, Trouble> {
        let answer = assume(&self.sts, &self.session, self.policy.clone())
            .await
            .map_err(|error| self.refused(&error))?;
        let Some(keys) = answer.credentials else {
            let said = "STS: AssumeRole answered without credentials; is `sts_endpoint_url` an STS endpoint?";
            return Err(Trouble::new(CredentialOutcome::Unavailable, said));
        };
        let expires = keys.expiration.try_into().ok();
        let credentials = Credentials::new(
            keys.access_key_id,
            keys.secret_access_key,
            Some(keys.session_token),
            expires,
            "AssumeRole",
        );
        Ok(Brought {
            credentials,
            from: "AssumeRole",
        })
    }

    fn refused(&self, error: &SdkError<AssumeRoleError>) -> Trouble {
        let arn = &self.session.arn;
        if let Some(ours) = find::<CredentialsError>(error) {
            let said = format!("AssumeRole {arn}: never sent: {}", said(ours));
            return Trouble::new(CredentialOutcome::Unavailable, said);
        }
        let code = error.as_service_error().and_then(|e| e.code());
        let message = error.as_service_error().and_then(|e| e.message());
        let Some(response) = error.raw_response() else {
            let said = format!("AssumeRole {arn}: {}", said(error));
            return Trouble::new(CredentialOutcome::Unavailable, said);
        };
        let status = response.status().as_u16();
        let mut said = format!("AssumeRole {arn}: {status}");
        for (open, text, close) in [(" ", code, ""), (" '", message, "'")] {
            if let Some(text) = text {
                let _ = write!(said, "{open}{}{close}", printable(text, 300));
            }
        }
        if let Some(hint) = hint(code, message) {
            let _ = write!(said, "; {hint}");
        }
        let outcome = if status < 500 && code.is_some() {
            CredentialOutcome::Denied
        } else {
            CredentialOutcome::Unavailable
        };
        Trouble {
            base_refused: matches!(
                code,
                Some("ExpiredToken" | "ExpiredTokenException" | "InvalidClientTokenId")
            ),
            ..Trouble::new(outcome, said)
        }
    }
}

/// The call.
pub(super) async fn assume(
    sts: &aws_sdk_sts::Client,
    session: &AssumeRole,
    policy: Option<String>,
) -> Result<AssumeRoleOutput, SdkError<AssumeRoleError>> {
    let seconds = i32::try_from(session.duration.as_secs()).unwrap_or(3600);
    sts.assume_role()
        .role_arn(&session.arn)
        .role_session_name(&session.session_name)
        .set_external_id(session.external_id.clone())
        .set_policy(policy)
        .duration_seconds(seconds)
        .send()
        .await
}

/// What to do about STS's refusal. Source: "`AssumeRole`", AWS STS API Reference.
fn hint(code: Option<&str>, message: Option<&str>) -> Option<&'static str> {
    let says = |text: &str| message.is_some_and(|m| m.contains(text));
    Some(match code? {
        "AccessDenied" => {
            "either the role's trust policy does not name who asks (or asks for another external id), or who asks \
             may not sts:AssumeRole on it"
        }
        "ExpiredToken" | "ExpiredTokenException" => {
            "the keys that ask have expired: see what should renew them, and this machine's clock"
        }
        "InvalidClientTokenId" => {
            "the keys that ask are not known there: deleted, of another partition, or of another server"
        }
        "SignatureDoesNotMatch" => {
            "the secret access key is not this access key's, or this machine's clock is wrong"
        }
        "ValidationError" if says("role chaining") => {
            "a role assumed from a role lasts an hour at most: set duration = \"1h\" in `assume_role`"
        }
        "ValidationError" if says("DurationSeconds") || says("durationSeconds") => {
            "set a shorter `duration` in `assume_role`, or raise the role's maximum session duration"
        }
        "PackedPolicyTooLarge" => {
            "the session policy is too long: give some tilesets an `assume_role` of their own"
        }
        "MalformedPolicyDocument" => "this STS does not understand the session policy",
        "RegionDisabledException" => "activate STS in this region, in the account's settings",
        _ => return None,
    })
}

/// Our clock, as the SDK asks for the time.
#[derive(Debug)]
struct ByClock(Clock);

impl TimeSource for ByClock {
    fn now(&self) -> std::time::SystemTime {
        self.0.now().to_system_time()
    }
}
