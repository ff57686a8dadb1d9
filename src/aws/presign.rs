//! Presigned URLs: a tile's address at S3 itself, for whoever has it, until it ends.
//!
//! Invariant: a URL never outlives the keys that sign it, and what is said of its end is true. All who
//! ask within a window get the same URL, so that a browser's cache knows it again. Nothing is waited for
//! and nobody is asked: a URL is signed with the keys at hand, or not at all.
//! Left out on purpose: who may have one (`http`), and whether there is such an object: only S3 knows.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::presigning::PresigningConfig;

use super::keeper::Kept;
use super::policy::ReadPlace;
use super::vending::Vending;
use super::words::said;
use super::{AssumeRole, Aws, AwsError};
use crate::clock::Timestamp;
use crate::metrics::SignOutcome;

/// How long a URL lives at most that is signed with a session's keys whose end nobody has told.
const UNKNOWN_END: Duration = Duration::from_mins(15);

/// The shortest life of a URL.
pub const SHORTEST: Duration = Duration::from_mins(1);
/// The longest: Signature Version 4 knows no longer one.
pub const LONGEST: Duration = Duration::from_hours(7 * 24);
/// A URL that ends sooner is of no use: half of the shortest life.
const USEFUL: Duration = Duration::from_secs(30);

/// What hands out AWS's own access: signed URLs and credentials. Empty where tiles come from elsewhere.
#[derive(Debug, Default)]
pub struct Helpers {
    /// Who signs URLs.
    pub signers: Signers,
    /// Who hands out credentials.
    pub vending: Vending,
    /// The origins that redirects lead to: pages with a map have to name them.
    pub redirects_to: Vec<String>,
}

/// Who signs for each tileset.
#[derive(Debug, Default)]
pub struct Signers(HashMap<Box<str>, Signer>);

impl Signers {
    /// Signs this tileset's URLs so.
    pub fn add(&mut self, tileset: &str, signer: Signer) {
        self.0.insert(tileset.into(), signer);
    }

    /// Who signs for a tileset; `None` where its tiles are no objects of their own.
    pub fn of(&self, tileset: &str) -> Option<&Signer> {
        self.0.get(tileset)
    }
}

/// Signs with one identity's keys.
#[derive(Clone)]
pub struct Signer {
    client: Client,
    keys: Kept,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// The method that a URL is for: S3 takes it for no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
}

/// What is to be signed.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The object's key.
    pub key: &'a str,
    /// For which method.
    pub method: Method,
    /// How long the URL lives from the start of its window: [`SHORTEST`] to [`LONGEST`].
    pub life: Duration,
    /// What S3 is to answer as `Cache-Control`, to GET.
    pub cache_control: &'a str,
    /// What S3 is to answer as `Content-Type`, to GET.
    pub content_type: &'a str,
}

/// A URL, and when it ends.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedUrl {
    /// The URL.
    pub url: String,
    /// Its end.
    pub ends: Timestamp,
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = self.url.split('?').next();
        f.debug_struct("SignedUrl")
            .field("url", &plain)
            .field("ends", &self.ends)
            .finish()
    }
}

/// Why there is no URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// No keys, or none that are still good.
    #[error("there are no AWS credentials to sign with")]
    NoKeys,
    /// The keys end in a moment, and the URL with them.
    #[error("the AWS credentials end in {} s, and a signed URL with them", .0.as_secs())]
    KeysEndSoon(Duration),
    /// The SDK refused.
    #[error("it could not be signed: {0}")]
    Failed(String),
}

impl SignError {
    /// The word for the metric.
    pub const fn outcome(&self) -> SignOutcome {
        match self {
            Self::NoKeys => SignOutcome::NoKeys,
            Self::KeysEndSoon(_) => SignOutcome::KeysEndSoon,
            Self::Failed(_) => SignOutcome::Failed,
        }
    }
}

impl Aws {
    /// Who signs URLs with this role's keys, or else with those that read for all: the very keys that a
    /// client of the same role and the same places uses.
    pub fn signer(
        &self,
        role: Option<&AssumeRole>,
        reads: &[ReadPlace],
    ) -> Result<Signer, AwsError> {
        Ok(Signer {
            client: self.s3_client(role, reads)?,
            keys: self.keys_of(role, reads)?,
        })
    }
}

impl Signer {
    /// A URL for this.
    pub async fn sign(&self, wanted: Wanted<'_>, now: Timestamp) -> Result<SignedUrl, SignError> {
        let (keys, keys_end) = self.keys.with_end(now).await.ok_or(SignError::NoKeys)?;
        // A session's keys have an end, if an unknown one: nothing is promised beyond what STS gives at least.
        let life = match keys_end {
            None if keys.session_token().is_some() => wanted.life.min(UNKNOWN_END),
            _ => wanted.life,
        };
        let window = Window::of(life, keys_end, now).map_err(SignError::KeysEndSoon)?;
        // The SDK's future is large, and a tile's answer holds this one.
        let url = Box::pin(self.presigned(wanted, window, keys)).await?;
        let ends = window.ends;
        Ok(SignedUrl { url, ends })
    }

    /// The scheme and host of a bucket's URLs, as a content security policy names them.
    pub async fn origin(&self, bucket: &str) -> Option<String> {
        let wanted = Wanted {
            bucket,
            key: "x",
            method: Method::Head,
            life: SHORTEST,
            cache_control: "",
            content_type: "",
        };
        let window = Window::of(SHORTEST, None, Timestamp::default()).ok()?;
        let nobody = Credentials::new("x", "x", None, None, "nobody");
        let url = Box::pin(self.presigned(wanted, window, nobody))
            .await
            .ok()?;
        let (scheme, rest) = url.split_once("://")?;
        let host = rest.split(['/', '?']).next()?;
        Some(format!("{scheme}://{host}"))
    }

    async fn presigned(
        &self,
        wanted: Wanted<'_>,
        window: Window,
        keys: Credentials,
    ) -> Result<String, SignError> {
        let failed = |error: &(dyn std::error::Error + 'static)| SignError::Failed(said(error));
        let config = PresigningConfig::builder()
            .start_time(window.starts.to_system_time())
            .expires_in(window.length())
            .build()
            .map_err(|e| failed(&e))?;
        // These keys and no later ones: their end is the URL's.
        let with_keys = aws_sdk_s3::config::Builder::new().credentials_provider(keys);
        let signed = match wanted.method {
            Method::Get => {
                let get = self.client.get_object();
                get.bucket(wanted.bucket)
                    .key(wanted.key)
                    .response_cache_control(wanted.cache_control)
                    .response_content_type(wanted.content_type)
                    .customize()
                    .config_override(with_keys)
                    .presigned(config)
                    .await
                    .map_err(|e| failed(&e))?
            }
            Method::Head => {
                let head = self.client.head_object();
                head.bucket(wanted.bucket)
                    .key(wanted.key)
                    .customize()
                    .config_override(with_keys)
                    .presigned(config)
                    .await
                    .map_err(|e| failed(&e))?
            }
        };
        Ok(signed.uri().to_owned())
    }
}

/// The time that a URL is good for. Its start is dated back to that of the window, its end is never past
/// that of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    starts: Timestamp,
    ends: Timestamp,
}

impl Window {
    /// The window of a life that `now` is in: half as long as the life. Whole seconds, as a signature counts.
    /// Refused with what would be left where that is of no use.
    fn of(life: Duration, keys_end: Option<Timestamp>, now: Timestamp) -> Result<Self, Duration> {
        let life = life.clamp(SHORTEST, LONGEST).as_secs();
        let step = life / 2;
        let starts = now.secs() - now.secs() % step;
        let ends = keys_end
            .map_or(u64::MAX, Timestamp::secs)
            .min(starts + life);
        let (starts, ends) = (Timestamp::from_secs(starts), Timestamp::from_secs(ends));
        let left = ends.since(now);
        if left < USEFUL {
            return Err(left);
        }
        Ok(Self { starts, ends })
    }

    fn length(self) -> Duration {
        self.ends.since(self.starts)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::aws::{AccessKeys, AwsSettings, CredentialSource};
    use crate::clock::Clock;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_007);

    async fn signer(clock: Clock) -> Signer {
        let settings = AwsSettings {
            region: Some("eu-west-1".into()),
            ..AwsSettings::default()
        };
        let keys = CredentialSource::Keys(AccessKeys {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: "very-secret".into(),
            session_token: None,
        });
        let aws = Aws::load_with(settings, keys, clock, super::super::Timing::default());
        aws.await.unwrap().signer(None, &[]).unwrap()
    }

    fn wanted(method: Method) -> Wanted<'static> {
        Wanted {
            bucket: "acme",
            key: "w/0/0/0.png",
            method,
            life: Duration::from_mins(5),
            cache_control: "private, max-age=300",
            content_type: "image/png",
        }
    }

    #[tokio::test]
    async fn all_who_ask_within_a_window_get_the_same_url() {
        let signer = signer(Clock::manual(NOW)).await;
        let first = signer.sign(wanted(Method::Get), NOW).await.unwrap();
        assert!(
            first
                .url
                .starts_with("https://acme.s3.eu-west-1.amazonaws.com/w/0/0/0.png?")
        );
        assert!(!first.url.contains("checksum"), "{}", first.url);
        let later = NOW + Duration::from_secs(100);
        assert_eq!(
            signer.sign(wanted(Method::Get), later).await.unwrap(),
            first
        );
        let next = NOW + Duration::from_secs(150);
        assert_ne!(signer.sign(wanted(Method::Get), next).await.unwrap(), first);
        let head = signer.sign(wanted(Method::Head), NOW).await.unwrap();
        assert_ne!(head.url, first.url);
        assert!(!format!("{first:?}").contains("Signature"));
    }

    #[tokio::test]
    async fn the_origin_of_a_buckets_urls_is_known_without_keys() {
        let signer = signer(Clock::manual(NOW)).await;
        let origin = signer.origin("acme").await.unwrap();
        assert_eq!(origin, "https://acme.s3.eu-west-1.amazonaws.com");
    }

    proptest! {
        #[test]
        fn a_url_has_half_its_life_left_and_never_outlives_its_keys(
            life in 60_u64..=604_800,
            now in 1_700_000_000_000_u64..1_900_000_000_000,
            keys in proptest::option::of(0_u64..1_000_000),
        ) {
            let now = Timestamp::from_millis(now);
            let (life, keys_end) = (Duration::from_secs(life), keys.map(|s| now + Duration::from_secs(s)));
            match Window::of(life, keys_end, now) {
                Ok(window) => {
                    prop_assert!(window.starts <= now && now < window.ends);
                    prop_assert!(window.length() <= life);
                    prop_assert!(keys_end.is_none_or(|end| window.ends <= end));
                    let cut = window.length() < life;
                    prop_assert!(cut || window.ends.since(now) * 2 >= life);
                    prop_assert_eq!(window.ends.millis() % 1000, 0);
                    // The same for everybody in the window, and until its end.
                    let step = Duration::from_secs(life.as_secs() / 2);
                    let last = Timestamp::from_millis((window.starts + step).millis() - 1);
                    for at in [window.starts, last] {
                        let same = Window::of(life, keys_end, at);
                        prop_assert!(same == Ok(window) || same.is_err());
                    }
                }
                Err(left) => prop_assert!(left < USEFUL && keys_end.is_some()),
            }
        }
    }
}
