//! Writing to a bucket: what `tilekeep publish` asks of S3.
//!
//! Invariant: an error names the call, the object and what S3 said, and tells whether every other call would
//! end the same way. Retries are the SDK's: bodies are at hand, so any attempt can be repeated.
//! Left out on purpose: multipart uploads; a tile is some kilobytes. And a session policy: whoever publishes
//! writes.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata as _, SdkError};
use bytes::Bytes;

use super::words::{printable, said};
use super::{AssumeRole, Aws, AwsError};

/// For one attempt: a tile, or a page of a listing.
const ATTEMPT: Duration = Duration::from_secs(30);
/// For a call with its retries.
const CALL: Duration = Duration::from_mins(2);
const ATTEMPTS: u32 = 5;

/// User metadata with the SHA-256 of the body, for where the `ETag` is no MD5.
const HASH: &str = "tilekeep-sha256";

/// A bucket to write to.
#[derive(Debug, Clone)]
pub struct Uploader {
    client: Client,
    bucket: String,
}

/// An object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its `ETag`, without quotes.
    pub etag: String,
}

/// A page of a listing.
#[derive(Debug)]
pub struct Page {
    /// Objects, in the order of their keys.
    pub objects: Vec<Listed>,
    /// How to ask for the next page; `None` at the end.
    pub next: Option<String>,
}

/// How an object is described.
#[derive(Debug, Clone, Copy)]
pub struct Described<'a> {
    /// `Content-Type`.
    pub content_type: &'static str,
    /// `Content-Encoding`.
    pub content_encoding: Option<&'static str>,
    /// SHA-256 of the body, in hexadecimal.
    pub hash: &'a str,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call} s3://{bucket}/{key}: {said}")]
pub struct UploadError {
    call: &'static str,
    bucket: String,
    key: String,
    said: String,
    /// Whether all calls would fail so: rights, keys, bucket, region.
    pub for_all: bool,
}

impl Uploader {
    /// Writes with this role, or else with the one for all, or as whoever the server is.
    pub fn new(aws: &Aws, role: Option<&AssumeRole>, bucket: &str) -> Result<Self, AwsError> {
        let config = aws
            .s3_config(role, &[])?
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(
                TimeoutConfig::builder()
                    .operation_attempt_timeout(ATTEMPT)
                    .operation_timeout(CALL)
                    .build(),
            );
        Ok(Self {
            client: Client::from_conf(config.build()),
            bucket: bucket.to_owned(),
        })
    }

    /// A page of the objects whose keys begin so.
    pub async fn list(&self, prefix: &str, after: Option<String>) -> Result<Page, UploadError> {
        let asked = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .set_continuation_token(after);
        let page = asked
            .send()
            .await
            .map_err(|error| self.failed("ListObjectsV2", prefix, "s3:ListBucket", &error))?;
        let object = |object: aws_sdk_s3::types::Object| {
            Some(Listed {
                key: object.key?,
                size: u64::try_from(object.size.unwrap_or_default()).unwrap_or_default(),
                etag: object
                    .e_tag
                    .unwrap_or_default()
                    .trim_matches('"')
                    .to_owned(),
            })
        };
        let truncated = page.is_truncated.unwrap_or_default();
        Ok(Page {
            next: page.next_continuation_token.filter(|_| truncated),
            objects: page
                .contents
                .unwrap_or_default()
                .into_iter()
                .filter_map(object)
                .collect(),
        })
    }

    /// The SHA-256 that was noted with an object; `None` where there is none, or no object.
    pub async fn noted_hash(&self, key: &str) -> Result<Option<String>, UploadError> {
        let head = self.client.head_object().bucket(&self.bucket).key(key);
        match head.send().await {
            Ok(head) => Ok(head.metadata.and_then(|mut all| all.remove(HASH))),
            Err(SdkError::ServiceError(error)) if error.err().is_not_found() => Ok(None),
            Err(error) => Err(self.failed("HeadObject", key, "s3:GetObject", &error)),
        }
    }

    /// Writes an object.
    pub async fn put(
        &self,
        key: &str,
        body: Bytes,
        described: Described<'_>,
    ) -> Result<(), UploadError> {
        let put = self.client.put_object().bucket(&self.bucket).key(key);
        let put = put
            .content_type(described.content_type)
            .set_content_encoding(described.content_encoding.map(str::to_owned))
            .metadata(HASH, described.hash)
            .body(body.into());
        match put.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed("PutObject", key, "s3:PutObject", &error)),
        }
    }

    /// Removes an object; it is a success that there is none.
    pub async fn delete(&self, key: &str) -> Result<(), UploadError> {
        let delete = self.client.delete_object().bucket(&self.bucket).key(key);
        match delete.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed("DeleteObject", key, "s3:DeleteObject", &error)),
        }
    }

    /// A refusal of our own, in the same words.
    pub fn refused(&self, key: &str, why: &str) -> UploadError {
        UploadError {
            call: "PutObject",
            bucket: self.bucket.clone(),
            key: printable(key, 300),
            said: why.to_owned(),
            for_all: false,
        }
    }

    fn failed<E>(
        &self,
        call: &'static str,
        key: &str,
        action: &str,
        error: &SdkError<E>,
    ) -> UploadError
    where
        E: std::error::Error + aws_sdk_s3::error::ProvideErrorMetadata + 'static,
    {
        let code = error.code().unwrap_or_default();
        let status = match error {
            SdkError::ServiceError(error) => error.raw().status().as_u16(),
            _ => 0,
        };
        let denied = status == 403 || code == "AccessDenied";
        let remedy = match code {
            "NoSuchBucket" => "; check `bucket` and `region`".to_owned(),
            "PermanentRedirect" | "AuthorizationHeaderMalformed" => {
                "; set [aws] region to the bucket's".to_owned()
            }
            "ExpiredToken" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" => {
                "; check the credentials".to_owned()
            }
            _ if denied => format!(
                "; allow `{action}` there: `tilekeep iam-policy --publish` prints the policy"
            ),
            _ => String::new(),
        };
        let words = match error.message() {
            Some(message) => format!("{code}: {}", printable(message, 300)),
            None if code.is_empty() && status != 0 => format!("status {status}"),
            None if status != 0 => format!("{code} ({status})"),
            None => said(error),
        };
        UploadError {
            call,
            bucket: self.bucket.clone(),
            key: printable(key, 300),
            said: words + &remedy,
            // Without an answer there is nobody to answer the next call either, after so many attempts.
            for_all: denied || !remedy.is_empty() || matches!(error, SdkError::DispatchFailure(_)),
        }
    }
}
