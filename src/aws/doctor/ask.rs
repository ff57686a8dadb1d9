//! Clients with deadlines, and what their answers say.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_types::request_id::RequestId as _;
use tokio::time::{Instant, timeout};

use super::super::words::{printable, said};
use super::super::{Aws, CONNECT_TIMEOUT, CredentialSource};
use super::{Check, Finding, Patience, Patient};
use crate::aws::{AccessKeys, AwsError, AwsSettings};
use crate::clock::{Clock, Timestamp};

/// Where the patient's AWS is, and how it is asked.
pub(super) struct Site {
    pub(super) aws: Aws,
    pub(super) http: SharedHttpClient,
    pub(super) base: SdkConfig,
    pub(super) credentials: CredentialSource,
    pub(super) tilesets: Vec<(Arc<crate::tile::Tileset>, Option<crate::aws::AssumeRole>)>,
    /// As configured: the role for all tilesets without one of their own is in it.
    pub(super) settings: AwsSettings,
    pub(super) patience: Patience,
    pub(super) clock: Clock,
    /// The end of the whole.
    pub(super) until: Instant,
}

impl Site {
    /// Looks for the region; nobody's keys are asked for yet.
    pub(super) async fn new(
        patient: &Patient,
        patience: Patience,
        clock: Clock,
        until: Instant,
    ) -> Result<Self, Finding> {
        let no_region = || {
            Finding::failed(
                Check::Endpoint,
                "no AWS region is known: `region` is not set in [aws], AWS_REGION is not in the environment, no \
                 profile has one, and no instance told its own",
                "in [aws], set `region` to the bucket's, like region = \"eu-west-1\"",
            )
        };
        let based = timeout(patience.credentials, Aws::base(&patient.settings)).await;
        let (http, base) = based
            .unwrap_or(Err(AwsError::NoRegion))
            .map_err(|_| no_region())?;
        let region = base.region().map(|region| region.as_ref().to_owned());
        // Without a role: the doctor assumes each by itself, to hear what STS says.
        let settings = AwsSettings {
            region,
            assume_role: None,
            ..patient.settings.clone()
        };
        let nobody = CredentialSource::Keys(AccessKeys {
            access_key_id: String::new(),
            secret_access_key: String::new(),
            session_token: None,
        });
        let aws = Aws::load(settings, nobody).await.map_err(|_| no_region())?;
        Ok(Self {
            aws,
            http,
            base,
            credentials: patient.credentials.clone(),
            tilesets: patient.tilesets.clone(),
            settings: patient.settings.clone(),
            patience,
            clock,
            until,
        })
    }

    /// The region that requests are signed for.
    pub(super) fn region(&self) -> &str {
        self.aws.region()
    }

    /// Whether S3 is AWS's own.
    pub(super) fn is_aws(&self) -> bool {
        self.settings.endpoint_url.is_none()
    }

    /// The role of a tileset: its own, or the one for all.
    pub(super) fn role_of<'a>(
        &'a self,
        own: Option<&'a crate::aws::AssumeRole>,
    ) -> Option<&'a crate::aws::AssumeRole> {
        own.or(self.settings.assume_role.as_ref())
    }

    /// The buckets, each once, in the order of the tilesets.
    pub(super) fn buckets(&self) -> Vec<String> {
        let mut buckets: Vec<String> = Vec::new();
        for (tileset, _) in &self.tilesets {
            let bucket = &tileset.place().bucket;
            if !buckets.contains(bucket) {
                buckets.push(bucket.clone());
            }
        }
        buckets
    }

    /// A client that signs with these keys; without any, one that does not sign.
    pub(super) fn s3(&self, keys: Option<Credentials>) -> Client {
        // From what has no credentials: the SDK's builder does not let go of those that it has.
        let mut builder = aws_sdk_s3::config::Builder::from(&self.base)
            .force_path_style(self.settings.path_style)
            .retry_config(RetryConfig::disabled())
            .timeout_config(self.timeouts());
        if let Some(url) = &self.settings.endpoint_url {
            builder = builder.endpoint_url(url);
        }
        let builder = match keys {
            Some(keys) => builder.credentials_provider(keys),
            None => builder.allow_no_auth(),
        };
        Client::from_conf(builder.build())
    }

    /// A client for STS; none where it is not asked.
    pub(super) fn sts(&self, keys: Credentials) -> Option<aws_sdk_sts::Client> {
        let config = aws_sdk_sts::config::Builder::from(&self.aws.sts_config()?)
            .retry_config(RetryConfig::disabled())
            .timeout_config(self.timeouts())
            .credentials_provider(keys);
        Some(aws_sdk_sts::Client::from_conf(config.build()))
    }

    fn timeouts(&self) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT.min(self.patience.call))
            .operation_timeout(self.patience.call)
            .build()
    }
}

/// Why a call did not bring what was asked for. Its `Display` is the call and all that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// `GetObject s3://acme-tiles/world/0/0/0.png`.
    pub(super) call: String,
    pub(super) answer: Answer,
}

/// What came instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// An answer that is a refusal or a failure.
    Refused(Refusal),
    /// None, in time.
    Silence(String),
    /// None: the way to the server.
    Unreachable(String),
}

/// An answer that is a refusal or a failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// Empty: an answer without an error code is not S3's or STS's.
    pub(super) code: String,
    pub(super) message: String,
    /// The bucket's region, where the answer tells it.
    pub(super) region: Option<String>,
    pub(super) request: Option<String>,
}

impl Trouble {
    /// What the SDK's error says.
    pub(super) fn of<E>(call: impl Into<String>, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let answer = if let Some(response) = error.raw_response() {
            let of = error.as_service_error();
            let text = |text: Option<&str>| text.map(|text| printable(text, 500));
            let header = |name: &str| response.headers().get(name);
            let message = text(of.and_then(ProvideErrorMetadata::message)).unwrap_or_default();
            let region = header("x-amz-bucket-region")
                .map(|region| printable(region, 40))
                .or_else(|| expected_region(&message));
            Answer::Refused(Refusal {
                status: response.status().as_u16(),
                code: text(of.and_then(ProvideErrorMetadata::code)).unwrap_or_default(),
                message,
                region,
                request: response.request_id().map(|id| printable(id, 80)),
            })
        } else {
            match error {
                SdkError::TimeoutError(_) => Answer::Silence("no answer in time".into()),
                SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                    Answer::Silence("no connection in time".into())
                }
                _ => Answer::Unreachable(said(error)),
            }
        };
        Self {
            call: call.into(),
            answer,
        }
    }

    /// Of a call that there was no reason to make.
    pub(super) fn never_sent(call: &str) -> Self {
        Self {
            call: call.to_owned(),
            answer: Answer::Unreachable("never sent".into()),
        }
    }

    /// Of an answer whose body broke off.
    pub(super) fn broken(call: &str) -> Self {
        Self {
            call: call.to_owned(),
            answer: Answer::Silence("200, and then its body broke off".into()),
        }
    }

    /// The refusal, if it is one.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match &self.answer {
            Answer::Refused(refusal) => Some(refusal),
            Answer::Silence(_) | Answer::Unreachable(_) => None,
        }
    }

    /// Its error code; empty without any.
    pub(super) fn code(&self) -> &str {
        self.refusal().map_or("", |refusal| &refusal.code)
    }

    /// Whether policies refuse it.
    pub(super) fn is_denied(&self) -> bool {
        matches!(
            self.code(),
            "AccessDenied" | "AllAccessDisabled" | "AccessDeniedException"
        )
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.call)?;
        let refusal = match &self.answer {
            Answer::Silence(text) | Answer::Unreachable(text) => return f.write_str(text),
            Answer::Refused(refusal) => refusal,
        };
        write!(f, "{}", refusal.status)?;
        if !refusal.code.is_empty() {
            write!(f, " {}", refusal.code)?;
        }
        if !refusal.message.is_empty() {
            write!(f, " '{}'", refusal.message)?;
        }
        if let Some(request) = &refusal.request {
            write!(f, " (request {request})")?;
        }
        Ok(())
    }
}

/// "…the region 'us-east-1' is wrong; expecting 'eu-west-1'".
fn expected_region(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("expecting '")?;
    let (region, _) = rest.split_once('\'')?;
    Some(region.to_owned())
}

/// What an answer's head tells besides, whether it is a success or not.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    /// Its `Date`.
    pub(super) date: Option<String>,
    /// When it came.
    pub(super) at: Timestamp,
}

/// Listens to one call's answer.
#[derive(Debug, Clone)]
pub(super) struct Ear {
    clock: Clock,
    heard: Arc<Mutex<Heard>>,
}

impl Ear {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            heard: Arc::default(),
        }
    }

    pub(super) fn heard(&self) -> Heard {
        let heard = self.heard.lock();
        heard.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Intercept for Ear {
    fn name(&self) -> &'static str {
        "Ear"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let heard = Heard {
            date: date.map(|date| printable(date, 60)),
            at: self.clock.now(),
        };
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = heard;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_region_is_read_from_the_message() {
        let message = "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'";
        assert_eq!(expected_region(message).as_deref(), Some("eu-west-1"));
        assert_eq!(expected_region("Access Denied"), None);
    }
}
