//! What S3's refusals and failures mean. The one table from S3's words to ours.
//!
//! Source: "Error responses", Amazon S3 API Reference.

use std::fmt::Write;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ConnectorError, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::Get;
use super::body::Unframed;
use crate::aws::{find, printable, said};
use crate::origin::{OriginError, OriginErrorKind};

/// An attempt that failed, and whether another is worth it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: OriginError,
    pub(super) again: bool,
}

impl Failure {
    /// The next attempt would fail too.
    pub(super) fn for_good(error: OriginError) -> Self {
        Self {
            error,
            again: false,
        }
    }

    /// The next attempt may well succeed.
    pub(super) fn worth_repeating(error: OriginError) -> Self {
        Self { error, again: true }
    }
}

/// What S3 answers without sending the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// The held one is still right (304).
    NotModified,
    /// There is another one now than was asked for (412).
    Changed,
    /// There is none.
    NotFound,
}

/// What an SDK error means: a 304, a 412 and a missing key are answers, all else is a failure.
pub(super) fn translate(error: &SdkError<GetObjectError>, get: &Get<'_>) -> Result<Said, Failure> {
    if let Some(response) = error.raw_response() {
        let code = error.as_service_error().and_then(|e| e.code());
        let message = error.as_service_error().and_then(|e| e.message());
        if let Some(unframed) = find::<Unframed>(error) {
            let detail = format!("{get}: {unframed}");
            let error = OriginError::new(OriginErrorKind::Truncated, detail);
            return Err(Failure::for_good(error));
        }
        return match (response.status().as_u16(), code) {
            // Not modelled by the SDK: it surfaces as an unhandled service error.
            (304, _) if get.validator.is_some() => Ok(Said::NotModified),
            (412, _) if get.only.is_some() => Ok(Said::Changed),
            // With its code alone: a proxy's or a wrong path's bare 404 is no statement about a tile.
            (404, Some("NoSuchKey")) => Ok(Said::NotFound),
            (status, code) => Err(answered(status, code, message, response, get)),
        };
    }
    Err(unanswered(error, get))
}

/// A response that is a refusal or a failure.
fn answered(
    status: u16,
    code: Option<&str>,
    message: Option<&str>,
    response: &HttpResponse,
    get: &Get<'_>,
) -> Failure {
    let header = |name: &str| response.headers().get(name);
    let customers_key = wants_a_customers_key(status, message);
    let kind = if customers_key {
        OriginErrorKind::Denied
    } else {
        kind(status, code)
    };
    let mut detail = format!("{get}: {status}");
    // Writing to a String cannot fail.
    if let Some(code) = code {
        let _ = write!(detail, " {}", printable(code, 60));
    }
    if let Some(message) = message {
        let _ = write!(detail, " '{}'", printable(message, 300));
    }
    if let Some(id) = response.request_id() {
        let _ = write!(detail, " (request {})", printable(id, 80));
    }
    if customers_key {
        detail += "; it lies under a customer's key (SSE-C), which nobody here has: write it with SSE-S3 or SSE-KMS";
    } else if let Some(hint) = hint(status, code) {
        let _ = write!(detail, "; {hint}");
    }
    if code == Some("RequestTimeTooSkewed")
        && let Some(date) = header("date")
    {
        let _ = write!(detail, "; the server's is {}", printable(date, 40));
    }
    if is_wrong_region(status, code)
        && let Some(region) = header("x-amz-bucket-region")
    {
        let region = printable(region, 40);
        let _ = write!(detail, "; the bucket is in {region}: set `region` to it");
    }
    let retry_after = header("retry-after")
        .and_then(|seconds| seconds.trim().parse().ok())
        .map(Duration::from_secs);
    let of_object = customers_key || matches!(code, Some("InvalidObjectState" | "InvalidRange"));
    let error = if of_object {
        OriginError::of_object(kind, detail)
    } else {
        OriginError::new(kind, detail)
    };
    let error = error.with_retry_after(retry_after);
    // Told when to come back, the caller decides: it may have a stale tile to serve meanwhile.
    let again = retry_after.is_none()
        && match kind {
            OriginErrorKind::Throttled => true,
            OriginErrorKind::Server => status >= 500 && status != 501,
            _ => false,
        };
    Failure { error, again }
}

fn kind(status: u16, code: Option<&str>) -> OriginErrorKind {
    match code {
        Some(
            "SlowDown"
            | "SlowDownRead"
            | "Throttling"
            | "ThrottlingException"
            | "RequestThrottled"
            | "TooManyRequests"
            | "RequestLimitExceeded"
            | "BandwidthLimitExceeded",
        ) => OriginErrorKind::Throttled,
        // With 400, some of these: still a refusal of who we are.
        Some(
            "ExpiredToken"
            | "InvalidToken"
            | "TokenRefreshRequired"
            | "InvalidAccessKeyId"
            | "AuthorizationHeaderMalformed"
            | "RequestTimeTooSkewed"
            | "SignatureDoesNotMatch"
            | "NoSuchBucket"
            | "PermanentRedirect"
            | "TemporaryRedirect"
            | "InvalidObjectState"
            | "InvalidBucketName"
            | "IllegalLocationConstraintException",
        ) => OriginErrorKind::Denied,
        Some(code) if code.starts_with("KMS.") => OriginErrorKind::Denied,
        // The object ends before the part that was asked for begins.
        Some("InvalidRange") => OriginErrorKind::Truncated,
        _ => match status {
            416 => OriginErrorKind::Truncated,
            429 => OriginErrorKind::Throttled,
            301 | 307 | 308 | 401 | 403 => OriginErrorKind::Denied,
            _ => OriginErrorKind::Server,
        },
    }
}

/// Whether the object can be read only with a key that the reader sends. S3 has no code of its own for it: AWS says
/// `InvalidRequest`, others `InvalidArgument`, and all name the encryption.
fn wants_a_customers_key(status: u16, message: Option<&str>) -> bool {
    status == 400
        && message.is_some_and(|said| {
            let said = said.to_ascii_lowercase();
            said.contains("server side encryption") || said.contains("server-side encryption")
        })
}

fn is_wrong_region(status: u16, code: Option<&str>) -> bool {
    matches!(status, 301 | 307 | 308) || code == Some("AuthorizationHeaderMalformed")
}

/// What to do about it.
fn hint(status: u16, code: Option<&str>) -> Option<&'static str> {
    Some(match code {
        Some("AccessDenied") => {
            "the credentials may not s3:GetObject this key, or the object is missing and they may not \
             s3:ListBucket (then S3 says 403, not 404)"
        }
        Some("InvalidAccessKeyId") => {
            "the access key is not known there: deleted, of another partition, or of another server"
        }
        Some("SignatureDoesNotMatch") => "the secret access key is not this access key's",
        Some("ExpiredToken" | "TokenRefreshRequired") => {
            "the session's credentials have expired: see what should renew them"
        }
        Some("InvalidToken") => "the session token is not this access key's",
        Some("RequestTimeTooSkewed") => "this machine's clock is wrong: run NTP",
        Some("NoSuchBucket") => "there is no such bucket: correct the tileset's `bucket`",
        Some("InvalidObjectState") => {
            "the object is archived: restore it or move it to S3 Standard"
        }
        Some("InvalidBucketName") => "correct the tileset's `bucket`",
        Some(code) if code.starts_with("KMS.") => {
            "the object's KMS key is disabled, deleted or not to be used by these credentials"
        }
        _ if is_wrong_region(status, code) => "the request went to the wrong region",
        None if status == 404 => {
            "a 404 without an S3 error code is not S3's: is `endpoint_url` an S3 endpoint?"
        }
        None if status == 403 => "a 403 without an S3 error code: a proxy or firewall in between?",
        _ => return None,
    })
}

/// No response: credentials, time or the network.
fn unanswered(error: &SdkError<GetObjectError>, get: &Get<'_>) -> Failure {
    if let Some(credentials) = find::<CredentialsError>(error) {
        let what = match credentials {
            CredentialsError::CredentialsNotLoaded(_) => {
                "no credentials in the environment, a profile, a web identity, ECS or EC2"
            }
            CredentialsError::ProviderTimedOut(_) => {
                "the credentials' source did not answer in time"
            }
            CredentialsError::InvalidConfiguration(_) => "the credentials' configuration is wrong",
            _ => "the credentials' source failed",
        };
        let detail = format!("{get}: never sent: {what}: {}", said(credentials));
        return Failure::for_good(OriginError::new(OriginErrorKind::Denied, detail));
    }
    let detail = format!("{get}: {}", said(error));
    match error {
        SdkError::TimeoutError(_) => {
            Failure::for_good(OriginError::new(OriginErrorKind::Deadline, detail))
        }
        SdkError::ConstructionFailure(_) => {
            Failure::for_good(OriginError::of_object(OriginErrorKind::Server, detail))
        }
        // A timeout in here is the connection's: no other is set.
        SdkError::DispatchFailure(dispatch) => {
            let error = OriginError::new(OriginErrorKind::Unreachable, detail);
            let sent_nothing = dispatch
                .as_connector_error()
                .is_some_and(ConnectorError::is_user);
            Failure {
                error,
                again: !sent_nothing,
            }
        }
        _ => Failure::for_good(OriginError::new(OriginErrorKind::Server, detail)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use OriginErrorKind::{Denied, Server, Throttled};

    #[test]
    fn s3s_words_are_told_apart() {
        for (status, code, expected) in [
            (403, Some("AccessDenied"), Denied),
            (403, Some("InvalidAccessKeyId"), Denied),
            (403, None, Denied),
            (400, Some("ExpiredToken"), Denied),
            (400, Some("AuthorizationHeaderMalformed"), Denied),
            (400, Some("KMS.DisabledException"), Denied),
            (404, Some("NoSuchBucket"), Denied),
            (301, Some("PermanentRedirect"), Denied),
            (503, Some("SlowDown"), Throttled),
            (429, None, Throttled),
            (503, Some("ServiceUnavailable"), Server),
            (500, Some("InternalError"), Server),
            (502, None, Server),
            (404, None, Server),
            (404, Some("NotFound"), Server),
            (304, None, Server),
            (400, Some("InvalidRequest"), Server),
            (418, None, Server),
        ] {
            assert_eq!(kind(status, code), expected, "{status} {code:?}");
        }
    }

    #[test]
    fn a_customers_key_is_known_by_its_words() {
        for said in [
            "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object.",
            "Requests specifying Server Side Encryption with Customer provided keys must provide the customer key.",
        ] {
            assert!(wants_a_customers_key(400, Some(said)));
            assert!(!wants_a_customers_key(500, Some(said)));
        }
        assert!(!wants_a_customers_key(400, Some("Invalid Request")));
        assert!(!wants_a_customers_key(400, None));
    }

    #[test]
    fn a_denial_says_what_to_do() {
        for code in [
            "AccessDenied",
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "ExpiredToken",
            "RequestTimeTooSkewed",
            "NoSuchBucket",
            "InvalidObjectState",
        ] {
            assert!(hint(403, Some(code)).is_some(), "{code}");
        }
        assert!(hint(404, None).is_some_and(|hint| hint.contains("endpoint_url")));
    }
}
