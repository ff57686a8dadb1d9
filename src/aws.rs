//! AWS accounts and endpoints: whose credentials sign, which role is assumed, which server answers.
//!
//! Invariant: whoever signs has its keys kept by one `keeper`, whatever number of clients and requests
//! use them, so that STS is asked once in a credential's life and no request waits for it. No secret
//! reaches `Debug` or an error.
//! Left out on purpose: tiles (`origin/s3`), and saying what is wrong with a set-up before it fails.

pub mod cloudfront;
pub mod doctor;
pub mod events;
mod identities;
mod keeper;
mod plan;
pub mod policy;
pub mod presign;
mod refusal;
mod source;
pub mod upload;
pub mod vending;
mod words;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::meta::region::RegionProviderChain;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

pub use self::identities::Identities;
use self::keeper::Kept;
pub use self::keeper::KeyStatus;
pub use self::plan::Timing;
use self::policy::{Dialect, PolicyTooLong, ReadPlace, Widened, session_policy};
use self::refusal::HearRefusals;
use self::source::{Chain, Role, Source};
pub(crate) use self::words::{find, printable, said};
use crate::clock::Clock;

/// How long a TCP and TLS connection may take. A SYN is repeated after 1 s and again after 3 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// S3 and the load balancers before S3-compatible servers drop idle connections sooner than the
/// 90 s of hyper's pool; a request that goes out on a dying connection fails.
const POOL_IDLE: Duration = Duration::from_secs(20);
/// The name of the first credentials, from the SDK's chain, in metrics and in the log.
const DEFAULT_IDENTITY: &str = "default";
/// Signed into requests to S3-compatible servers that have no regions of their own.
const FALLBACK_REGION: &str = "us-east-1";

/// `[aws]`, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AwsSettings {
    /// The buckets' region; without it the SDK's own chain (environment, profile, instance).
    pub region: Option<String>,
    /// An S3-compatible server; without it AWS.
    pub endpoint_url: Option<String>,
    /// Where STS is; without it AWS, or nowhere if there is an `endpoint_url`.
    pub sts_endpoint_url: Option<String>,
    /// The bucket in the path instead of the host name.
    pub path_style: bool,
    /// A role to assume with the credentials found.
    pub assume_role: Option<AssumeRole>,
}

/// A role to assume.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AssumeRole {
    /// `arn:aws:iam::123456789012:role/name`.
    pub arn: String,
    /// What the role's trust policy asks for.
    pub external_id: Option<String>,
    /// How `CloudTrail` names the session.
    pub session_name: String,
    /// How long one set of keys lives: 900–43200 s, 3600 s at most by role chaining.
    pub duration: Duration,
}

/// Keys that are known, as the demo and the tests have them.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKeys {
    /// Public part.
    pub access_key_id: String,
    /// Secret part.
    pub secret_access_key: String,
    /// Goes with temporary keys.
    pub session_token: Option<String>,
}

impl fmt::Debug for AccessKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKeys")
            .field("access_key_id", &self.access_key_id)
            .field("temporary", &self.session_token.is_some())
            .finish_non_exhaustive()
    }
}

/// Where the first credentials come from, before any role is assumed.
#[derive(Debug, Clone, Default)]
pub enum CredentialSource {
    /// The SDK's chain: environment, profile (SSO and `credential_process` too), web identity, ECS, EC2
    /// role by `IMDSv2`.
    #[default]
    Chain,
    /// The EC2 role alone; at another address than `http://169.254.169.254`, if any.
    Imds(Option<String>),
    /// These.
    Keys(AccessKeys),
}

/// Why the settings cannot work; found without asking AWS for anything but the region.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AwsError {
    /// No region anywhere.
    #[error(
        "no AWS region: set `region` in [aws], AWS_REGION in the environment, or a profile's region"
    )]
    NoRegion,
    /// A role, and nobody to ask for it.
    #[error(
        "assume_role needs STS, which is not asked when `endpoint_url` is set: set `sts_endpoint_url` in [aws] too"
    )]
    NoSts,
    /// A role that reads too many buckets.
    #[error("assume_role {arn}: {source}")]
    Policy {
        /// The role.
        arn: String,
        /// How long its session policy would be.
        source: PolicyTooLong,
    },
}

/// Settings and first credentials, from which clients are made.
#[derive(Debug, Clone)]
pub struct Aws {
    settings: AwsSettings,
    base: SdkConfig,
    keys: Kept,
    timing: Timing,
    clock: Clock,
    handed_out: Arc<Mutex<HandedOut>>,
}

/// What clients were made with.
#[derive(Debug, Default)]
struct HandedOut {
    /// Each role, with the session policy that narrows it.
    roles: Vec<(AssumeRole, Option<String>, Kept)>,
    /// Whether a client signs with the first credentials themselves.
    base: bool,
}

impl Aws {
    /// As [`Aws::load_with`], by the machine's clock and with the usual patience.
    pub async fn load(settings: AwsSettings, source: CredentialSource) -> Result<Self, AwsError> {
        Self::load_with(settings, source, Clock::System, Timing::default()).await
    }

    /// Looks for the region and begins to ask for the first credentials, which nothing here waits for.
    pub async fn load_with(
        settings: AwsSettings,
        source: CredentialSource,
        clock: Clock,
        timing: Timing,
    ) -> Result<Self, AwsError> {
        let (http, base) = Self::base(&settings).await?;
        let chain = || Chain::new(http, base.clone(), clock.clone(), timing.attempt);
        let keep = |chain| {
            Kept::start(
                DEFAULT_IDENTITY,
                Source::Chain(Box::new(chain)),
                timing,
                clock.clone(),
            )
        };
        let keys = match source {
            CredentialSource::Chain => keep(chain()),
            CredentialSource::Imds(endpoint) => keep(chain().imds_alone(endpoint)),
            CredentialSource::Keys(keys) => {
                Kept::fixed(DEFAULT_IDENTITY, keys.into(), clock.clone())
            }
        };
        let base = base
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(keys.clone()))
            .build();
        let aws = Self {
            settings,
            base,
            keys,
            timing,
            clock,
            handed_out: Arc::default(),
        };
        if aws.settings.assume_role.is_some() && aws.sts_config().is_none() {
            return Err(AwsError::NoSts);
        }
        Ok(aws)
    }

    /// The connections and the region; credentials have no part in it.
    async fn base(settings: &AwsSettings) -> Result<(SharedHttpClient, SdkConfig), AwsError> {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
            .pool_idle_timeout(POOL_IDLE)
            .build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http.clone())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .build(),
            )
            .no_credentials()
            .identity_cache(IdentityCache::no_cache());
        if let Some(region) = &settings.region {
            loader = loader.region(Region::new(region.clone()));
        } else if settings.endpoint_url.is_some() {
            // Not the SDK's whole chain: on a machine that is no EC2 instance, asking IMDS for the
            // region of a server that has none takes seconds.
            loader = loader.region(
                RegionProviderChain::first_try(
                    aws_config::environment::EnvironmentVariableRegionProvider::new(),
                )
                .or_else(FALLBACK_REGION),
            );
        }
        let base = loader.load().await;
        match base.region() {
            Some(_) => Ok((http, base)),
            None => Err(AwsError::NoRegion),
        }
    }

    /// What it was made from.
    pub fn settings(&self) -> &AwsSettings {
        &self.settings
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> &str {
        self.base.region().map_or(FALLBACK_REGION, Region::as_ref)
    }

    /// How STS is asked with the first credentials; `None` where it is not.
    pub fn sts_config(&self) -> Option<SdkConfig> {
        match (&self.settings.sts_endpoint_url, &self.settings.endpoint_url) {
            (Some(url), _) => Some(self.base.to_builder().endpoint_url(url).build()),
            (None, Some(_)) => None,
            (None, None) => Some(self.base.clone()),
        }
    }

    /// How S3 is asked, with this role or else the one for all. Where there is a role, its session is
    /// narrowed to the places given; without any it is not.
    ///
    /// The SDK's retries are off: they see neither a body that breaks nor the deadline of the whole,
    /// and would multiply with those of `origin/s3`. Its stalled-stream watchdog is off too, since a
    /// tile's deadline is far shorter than its grace.
    pub fn s3_config(
        &self,
        role: Option<&AssumeRole>,
        reads: &[ReadPlace],
    ) -> Result<aws_sdk_s3::config::Builder, AwsError> {
        let mut config = aws_sdk_s3::config::Builder::from(&self.base)
            .force_path_style(self.settings.path_style)
            .retry_config(aws_config::retry::RetryConfig::disabled())
            .stalled_stream_protection(
                aws_config::stalled_stream_protection::StalledStreamProtectionConfig::disabled(),
            );
        if let Some(url) = &self.settings.endpoint_url {
            config = config.endpoint_url(url);
        }
        let keys = self.keys_of(role, reads)?;
        Ok(config
            .credentials_provider(keys.clone())
            .identity_cache(keys.clone())
            .interceptor(HearRefusals(keys)))
    }

    /// A client for S3, as [`Aws::s3_config`] says.
    pub fn s3_client(
        &self,
        role: Option<&AssumeRole>,
        reads: &[ReadPlace],
    ) -> Result<aws_sdk_s3::Client, AwsError> {
        let config = self.s3_config(role, reads)?.build();
        Ok(aws_sdk_s3::Client::from_conf(config))
    }

    /// Everybody who signs, for metrics and readiness. Later clients are not in it.
    pub fn identities(&self) -> Identities {
        let handed_out = self.handed_out();
        let roles = handed_out.roles.iter().map(|(.., keys)| keys.clone());
        Identities::new(self.keys.clone(), handed_out.base, roles.collect())
    }

    /// Whose keys sign for this role, or else for the one for all.
    fn keys_of(&self, role: Option<&AssumeRole>, reads: &[ReadPlace]) -> Result<Kept, AwsError> {
        if let Some(role) = role.or(self.settings.assume_role.as_ref()) {
            return self.assume(role, reads);
        }
        self.handed_out().base = true;
        Ok(self.keys.clone())
    }

    /// The keeper of a role's keys: one for all clients that read the same places with it.
    fn assume(&self, role: &AssumeRole, reads: &[ReadPlace]) -> Result<Kept, AwsError> {
        let policy = self.narrow(role, reads)?;
        self.assume_with(role, policy)
    }

    /// The same, narrowed by this policy.
    fn assume_with(&self, role: &AssumeRole, policy: Option<String>) -> Result<Kept, AwsError> {
        let sts = self.sts_config().ok_or(AwsError::NoSts)?;
        let mut handed_out = self.handed_out();
        let known = handed_out.roles.iter();
        if let Some((.., keys)) = known.clone().find(|(r, p, _)| r == role && *p == policy) {
            return Ok(keys.clone());
        }
        let plain = role.arn.rsplit(['/', ':']).next().unwrap_or("role");
        let taken = |name: &str| {
            let mut names = handed_out.roles.iter().map(|(.., keys)| keys.name());
            name == DEFAULT_IDENTITY || names.any(|other| other == name)
        };
        let numbered = (2_usize..).map(|number| format!("{plain}-{number}"));
        let mut names = std::iter::once(plain.to_owned()).chain(numbered);
        let name = names.find(|name| !taken(name)).unwrap_or_default();
        let source = Role::new(&sts, role.clone(), policy.clone(), self.keys.clone());
        let keys = Kept::start(
            &name,
            Source::Role(Box::new(source)),
            self.timing,
            self.clock.clone(),
        );
        handed_out.roles.push((role.clone(), policy, keys.clone()));
        Ok(keys)
    }

    fn narrow(&self, role: &AssumeRole, reads: &[ReadPlace]) -> Result<Option<String>, AwsError> {
        if reads.is_empty() {
            return Ok(None);
        }
        let arn = &role.arn;
        let refused = |source| AwsError::Policy {
            arn: arn.clone(),
            source,
        };
        let (policy, widened) = session_policy(reads, &self.dialect(role)).map_err(refused)?;
        if widened != Widened::No {
            tracing::info!(
                role = arn,
                "each tileset's own prefix would make the session policy longer than AWS takes: it allows {}",
                widened.words()
            );
        }
        Ok(Some(policy))
    }

    /// A role's ARN tells its partition; only AWS itself has KMS behind S3.
    fn dialect(&self, role: &AssumeRole) -> Dialect {
        let url = self
            .settings
            .endpoint_url
            .as_deref()
            .unwrap_or(".amazonaws.com");
        let host = url.split("://").last().unwrap_or(url);
        let host = host.split([':', '/']).next().unwrap_or(host);
        Dialect {
            partition: role.arn.split(':').nth(1).unwrap_or("aws").to_owned(),
            kms: host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn"),
        }
    }

    fn handed_out(&self) -> MutexGuard<'_, HandedOut> {
        // Only ever appended to.
        self.handed_out
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<AccessKeys> for Credentials {
    fn from(keys: AccessKeys) -> Self {
        let (id, secret) = (keys.access_key_id, keys.secret_access_key);
        Self::new(id, secret, keys.session_token, None, "keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> CredentialSource {
        CredentialSource::Keys(AccessKeys {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: "very-secret".into(),
            session_token: Some("token-secret".into()),
        })
    }

    fn local() -> AwsSettings {
        AwsSettings {
            endpoint_url: Some("http://127.0.0.1:1".into()),
            ..AwsSettings::default()
        }
    }

    #[tokio::test]
    async fn a_server_of_ones_own_needs_no_region() {
        let aws = Aws::load(local(), keys()).await.unwrap();
        assert!(!aws.region().is_empty());
        assert!(
            aws.sts_config().is_none(),
            "and AWS is not asked who we are"
        );
    }

    #[tokio::test]
    async fn a_role_without_an_sts_is_refused_at_once() {
        let settings = AwsSettings {
            assume_role: Some(AssumeRole {
                arn: "arn:aws:iam::1:role/r".into(),
                external_id: None,
                session_name: "tilekeep".into(),
                duration: Duration::from_hours(1),
            }),
            ..local()
        };
        let refused = Aws::load(settings.clone(), keys()).await;
        assert_eq!(refused.err(), Some(AwsError::NoSts));
        let with_sts = AwsSettings {
            sts_endpoint_url: Some("http://127.0.0.1:2".into()),
            ..settings
        };
        assert!(Aws::load(with_sts, keys()).await.is_ok());
    }

    #[tokio::test]
    async fn no_secret_is_ever_printed() {
        let source = keys();
        let aws = Aws::load(local(), source.clone()).await.unwrap();
        let client = aws.s3_client(None, &[]).unwrap();
        for text in [
            format!("{source:?}"),
            format!("{aws:?}"),
            format!("{client:?}"),
        ] {
            assert!(!text.contains("very-secret") && !text.contains("token-secret"));
        }
    }
}
