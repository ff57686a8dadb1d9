//! AWS accounts and endpoints: whose credentials sign, which role is assumed, which server answers.
//!
//! Invariant: one identity cache and one connection pool for every client made here, so that STS is
//! asked once in a credential's life and never once a tile. No secret reaches `Debug` or an error.
//! Left out on purpose: tiles (`origin/s3`), and refreshing ahead of expiry, which is still the
//! SDK's own: inline, 10 s before the end.

use std::fmt;
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::meta::region::RegionProviderChain;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};

/// How long a TCP and TLS connection may take. A SYN is repeated after 1 s and again after 3 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long credentials may take to come: IMDS or a token file, then STS.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(8);
/// S3 and the load balancers before S3-compatible servers drop idle connections sooner than the
/// 90 s of hyper's pool; a request that goes out on a dying connection fails.
const POOL_IDLE: Duration = Duration::from_secs(20);
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
    /// The SDK's chain: environment, profile, web identity, ECS, EC2 role by `IMDSv2`.
    #[default]
    Chain,
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
}

/// Settings and first credentials, from which clients are made.
#[derive(Debug, Clone)]
pub struct Aws {
    settings: AwsSettings,
    base: SdkConfig,
}

impl Aws {
    /// Looks for the region and prepares the credential chain, which is asked when first needed.
    pub async fn load(settings: AwsSettings, source: CredentialSource) -> Result<Self, AwsError> {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
            .pool_idle_timeout(POOL_IDLE)
            .build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .build(),
            )
            .identity_cache(
                IdentityCache::lazy()
                    .load_timeout(CREDENTIALS_TIMEOUT)
                    .build(),
            );
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
        if let CredentialSource::Keys(keys) = source {
            loader = loader.credentials_provider(Credentials::new(
                keys.access_key_id,
                keys.secret_access_key,
                keys.session_token,
                None,
                "keys",
            ));
        }
        let base = loader.load().await;
        if base.region().is_none() {
            return Err(AwsError::NoRegion);
        }
        let aws = Self { settings, base };
        if aws.settings.assume_role.is_some() && aws.sts_config().is_none() {
            return Err(AwsError::NoSts);
        }
        Ok(aws)
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

    /// How S3 is asked, with a tileset's own role or else the one for all.
    ///
    /// The SDK's retries are off: they see neither a body that breaks nor the deadline of the whole,
    /// and would multiply with those of `origin/s3`. Its stalled-stream watchdog is off too, since a
    /// tile's deadline is far shorter than its grace.
    pub async fn s3_config(
        &self,
        role: Option<&AssumeRole>,
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
        if let Some(role) = role.or(self.settings.assume_role.as_ref()) {
            let provider = self.assume(role).await?;
            config = config.credentials_provider(provider);
        }
        Ok(config)
    }

    /// A client for S3. Clone it: every call makes a role's credentials anew.
    pub async fn s3_client(
        &self,
        role: Option<&AssumeRole>,
    ) -> Result<aws_sdk_s3::Client, AwsError> {
        let config = self.s3_config(role).await?.build();
        Ok(aws_sdk_s3::Client::from_conf(config))
    }

    /// A role's credentials. Not cached here: the client's identity cache does that.
    async fn assume(&self, role: &AssumeRole) -> Result<SharedCredentialsProvider, AwsError> {
        let sts = self.sts_config().ok_or(AwsError::NoSts)?;
        let mut provider = AssumeRoleProvider::builder(&role.arn)
            .session_name(&role.session_name)
            .session_length(role.duration)
            .configure(&sts);
        if let Some(external_id) = &role.external_id {
            provider = provider.external_id(external_id);
        }
        Ok(SharedCredentialsProvider::new(provider.build().await))
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
        let client = aws.s3_client(None).await.unwrap();
        for text in [
            format!("{source:?}"),
            format!("{aws:?}"),
            format!("{client:?}"),
        ] {
            assert!(!text.contains("very-secret") && !text.contains("token-secret"));
        }
    }
}
