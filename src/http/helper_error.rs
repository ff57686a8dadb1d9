//! Why AWS's own access (a signed URL, credentials) is not handed out: status, sentence, when to come back.
//!
//! What AWS said is for the log. What an operator has to set is named: it is no secret which key is missing.

use std::time::Duration;

use http::StatusCode;

use crate::aws::presign::SignError;
use crate::aws::vending::VendError;
use crate::metrics::Answer;

/// A helper's refusal or failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelperError {
    /// The tileset's tiles are no objects of their own.
    NotSignable,
    /// No distribution has this tileset.
    NotBehindCloudFront,
    /// No keys to sign with.
    NoKeys,
    /// The keys end too soon.
    KeysEndSoon,
    /// Signing failed.
    NotSigned,
    /// The session has a limit that credentials could not enforce; which.
    Withheld(&'static str),
    /// The session may not see another tileset that lies in the same place.
    WithheldForOthers,
    /// The session ends before the shortest credentials would.
    SessionEndsSoon,
    /// No role for this tileset.
    NoRole,
    /// The tileset's prefix is no folder.
    WholeBucket,
    /// STS is asked by too many already.
    Busy,
    /// STS did not answer in time.
    Deadline,
    /// STS said no.
    Denied,
    /// STS cannot be asked, or is broken.
    Unavailable,
}

impl HelperError {
    /// The status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotSignable
            | Self::NotBehindCloudFront
            | Self::Withheld(_)
            | Self::WithheldForOthers
            | Self::SessionEndsSoon => StatusCode::FORBIDDEN,
            Self::NoRole | Self::WholeBucket => StatusCode::NOT_IMPLEMENTED,
            Self::NoKeys | Self::KeysEndSoon | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Deadline => StatusCode::GATEWAY_TIMEOUT,
            Self::Denied | Self::Unavailable => StatusCode::BAD_GATEWAY,
            Self::NotSigned => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The metric's label.
    pub fn answer(self) -> Answer {
        match self.status() {
            StatusCode::FORBIDDEN => Answer::Forbidden,
            StatusCode::INTERNAL_SERVER_ERROR => Answer::Internal,
            StatusCode::NOT_IMPLEMENTED => Answer::Other,
            _ => Answer::OriginFailed,
        }
    }

    /// A sentence that a person can act on.
    pub fn detail(self) -> String {
        match self {
            Self::NotSignable => {
                "This tileset's tiles are not objects of their own in S3 (they lie in an archive, or elsewhere), so there is no URL to sign. Ask for them under their own addresses."
            }
            Self::NotBehindCloudFront => {
                "No CloudFront distribution of this server has this tileset. Leave `via` out for a URL of S3's."
            }
            Self::NoKeys => "This server has no AWS credentials to sign with at this moment. Try again shortly.",
            Self::KeysEndSoon => {
                "This server's AWS credentials end in a moment, and a signed URL would end with them. Try again shortly."
            }
            Self::Withheld(limit) => {
                return format!(
                    "This session is limited by `{limit}`, which AWS credentials could not enforce. Ask for tiles, or for a token without that limit."
                );
            }
            Self::WithheldForOthers => {
                "Other tilesets' tiles lie under the same prefix, and this session may not see those. Its operator can give each tileset a folder of its own."
            }
            Self::SessionEndsSoon => {
                "This session ends in less than 15 minutes, and no AWS credentials are that short. Sign in again, or renew it."
            }
            Self::NoRole => {
                "There are no credentials for this tileset: its operator has to set `assume_role` in the tileset or in [aws] (and `sts_endpoint_url` where there is an `endpoint_url`)."
            }
            Self::WholeBucket => {
                "There are no credentials for this tileset: its `key` does not begin with a folder, so that its prefix would open what lies beside its tiles. Its operator has to put them into a folder."
            }
            Self::Busy => "Too many ask for credentials at once. Try again shortly.",
            Self::Deadline => "AWS STS did not answer in time. Try again shortly.",
            Self::Denied => "AWS STS refused this server. Its operator finds the reason in the log.",
            Self::Unavailable => "AWS STS cannot be asked at this moment. Try again shortly.",
            Self::NotSigned => "The URL could not be signed. This server's operator finds the reason in the log.",
        }
        .into()
    }

    /// When to come back, where that helps.
    pub fn retry_after(self) -> Option<Duration> {
        let seconds = match self.status() {
            StatusCode::SERVICE_UNAVAILABLE => 5,
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => 10,
            _ => return None,
        };
        Some(Duration::from_secs(seconds))
    }
}

impl From<&SignError> for HelperError {
    fn from(error: &SignError) -> Self {
        match error {
            SignError::NoKeys => Self::NoKeys,
            SignError::KeysEndSoon(_) => Self::KeysEndSoon,
            SignError::Failed(_) => Self::NotSigned,
        }
    }
}

impl From<&VendError> for HelperError {
    fn from(error: &VendError) -> Self {
        match error {
            VendError::NoRole => Self::NoRole,
            VendError::WholeBucket => Self::WholeBucket,
            VendError::Busy => Self::Busy,
            VendError::Deadline => Self::Deadline,
            VendError::Denied(_) => Self::Denied,
            VendError::Unavailable(_) => Self::Unavailable,
        }
    }
}
