//! Who may do what: after s3s has verified a signature, before the operation runs.

use std::sync::Arc;

use http::{HeaderMap, Uri};
use s3s::access::{S3Access, S3AccessContext};
use s3s::path::S3Path;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::form;
use super::keyring::{Keyring, Principal, Stranger};
use super::store::Store;

/// The check that s3s calls for every operation.
pub(super) struct Access {
    pub(super) keyring: Arc<Keyring>,
    pub(super) store: Arc<Store>,
    pub(super) region: Option<String>,
}

/// Who asks, for the operation: `None` is anybody.
#[derive(Clone)]
pub(super) struct Caller(pub(super) Option<Principal>);

impl Caller {
    /// Whether a missing object may be called missing: S3 tells that only to those who may list.
    pub(super) fn may_list(&self, bucket: &str) -> bool {
        self.0
            .as_ref()
            .is_some_and(|p| p.may("s3:ListBucket", &arn(bucket, "")))
    }
}

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let operation = cx.s3_op().name().to_owned();
        let action = action(&operation)
            .ok_or_else(|| s3_error!(NotImplemented, "{operation} is not implemented here"))?;
        let (bucket, resource) = match cx.s3_path() {
            S3Path::Root => (None, "*".to_owned()),
            S3Path::Bucket { bucket } => (Some(bucket.to_string()), arn(bucket, "")),
            S3Path::Object { bucket, key } => (Some(bucket.to_string()), arn(bucket, key)),
        };
        let signed_by = cx.credentials().map(|c| c.access_key.clone());
        let Some(access_key) = signed_by else {
            let public = bucket
                .and_then(|name| self.store.bucket(&name))
                .is_some_and(|bucket| bucket.public_read && action == "s3:GetObject");
            cx.extensions_mut().insert(Caller(None));
            return if public { Ok(()) } else { Err(denied()) };
        };
        let scope = Scope::of(cx.headers(), cx.uri()).ok_or_else(|| {
            // Signature version 2, which S3 has stopped to take in new regions.
            s3_error!(
                InvalidRequest,
                "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
            )
        })?;
        if scope.service != "s3" {
            return Err(s3_error!(
                AuthorizationHeaderMalformed,
                "Incorrect service; expecting 's3'"
            ));
        }
        if let Some(expected) = self.region.as_ref().filter(|r| **r != scope.region) {
            return Err(wrong_region(&scope.region, expected));
        }
        let principal = self
            .keyring
            .principal(&access_key, scope.token.as_deref())
            .map_err(refuse)?;
        // A list without one has an empty prefix, as S3 sees it; nothing else has any.
        let query = cx.uri().query().unwrap_or_default();
        let mut query = form::parse(query.as_bytes()).into_iter();
        let prefix = (operation == "ListObjectsV2").then(|| {
            let named = query.find(|(key, _)| key == "prefix");
            named.map_or_else(String::new, |(_, value)| value)
        });
        if !principal.may_in(action, &resource, prefix.as_deref()) {
            return Err(denied());
        }
        cx.extensions_mut().insert(Caller(Some(principal)));
        Ok(())
    }
}

/// The IAM action of an operation; `None` for those that are not served.
fn action(operation: &str) -> Option<&'static str> {
    Some(match operation {
        "GetObject" | "HeadObject" => "s3:GetObject",
        "PutObject" => "s3:PutObject",
        "DeleteObject" => "s3:DeleteObject",
        "ListObjectsV2" | "HeadBucket" => "s3:ListBucket",
        "ListBuckets" => "s3:ListAllMyBuckets",
        "GetBucketLocation" => "s3:GetBucketLocation",
        "GetPublicAccessBlock" => "s3:GetBucketPublicAccessBlock",
        "GetBucketPolicyStatus" => "s3:GetBucketPolicyStatus",
        _ => return None,
    })
}

fn arn(bucket: &str, key: &str) -> String {
    let slash = if key.is_empty() { "" } else { "/" };
    format!("arn:aws:s3:::{bucket}{slash}{key}")
}

pub(super) fn denied() -> S3Error {
    s3_error!(AccessDenied, "Access Denied")
}

/// S3's words for a signer that is nobody.
pub(super) fn refuse(stranger: Stranger) -> S3Error {
    match stranger {
        Stranger::Unknown => s3_error!(
            InvalidAccessKeyId,
            "The AWS Access Key Id you provided does not exist in our records."
        ),
        Stranger::WrongToken => s3_error!(
            InvalidToken,
            "The provided token is malformed or otherwise invalid."
        ),
        Stranger::Expired => s3_error!(ExpiredToken, "The provided token has expired."),
    }
}

fn wrong_region(signed: &str, expected: &str) -> S3Error {
    let message = format!(
        "The authorization header is malformed; the region '{signed}' is wrong; expecting '{expected}'"
    );
    let mut error = S3Error::with_message(S3ErrorCode::AuthorizationHeaderMalformed, message);
    if let Ok(region) = expected.parse() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-bucket-region", region);
        error.set_headers(headers);
    }
    error
}

/// What a `SigV4` signature covers besides the request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) region: String,
    pub(super) service: String,
    pub(super) token: Option<String>,
}

impl Scope {
    /// From the header, or from a presigned URL's query; `None` if neither is there.
    pub(super) fn of(headers: &HeaderMap, uri: &Uri) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        if let Some(authorization) = text("authorization") {
            let (_, rest) = authorization
                .strip_prefix("AWS4-HMAC-SHA256")?
                .split_once("Credential=")?;
            let credential = rest.split([',', ' ']).next()?;
            let token = text("x-amz-security-token").map(str::to_owned);
            return Self::read(credential, token);
        }
        let mut query: Vec<(String, String)> = form::parse(uri.query()?.as_bytes());
        let mut find = |name: &str| {
            let at = query.iter().position(|(key, _)| key == name)?;
            Some(query.swap_remove(at).1)
        };
        let credential = find("X-Amz-Credential")?;
        Self::read(&credential, find("X-Amz-Security-Token"))
    }

    /// `key/20261101/eu-west-1/s3/aws4_request`.
    fn read(credential: &str, token: Option<String>) -> Option<Self> {
        let mut parts = credential.rsplit('/');
        if parts.next() != Some("aws4_request") {
            return None;
        }
        let (service, region) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        Some(Self {
            region,
            service,
            token,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_is_read_from_header_and_query() {
        let mut headers = HeaderMap::new();
        let header = "AWS4-HMAC-SHA256 Credential=AKID/20261101/eu-west-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        headers.insert("authorization", header.parse().unwrap());
        headers.insert("x-amz-security-token", "T+/=".parse().unwrap());
        let expected = Scope {
            region: "eu-west-1".into(),
            service: "s3".into(),
            token: Some("T+/=".into()),
        };
        let uri = Uri::from_static("/b/k");
        assert_eq!(Scope::of(&headers, &uri), Some(expected));
        let uri = Uri::from_static(
            "/b/k?X-Amz-Credential=AKID%2F20261101%2Feu-west-1%2Fs3%2Faws4_request&X-Amz-Security-Token=T%2B%2F%3D",
        );
        let from_query = Scope::of(&HeaderMap::new(), &uri).unwrap();
        assert_eq!(from_query.token.as_deref(), Some("T+/="));
        headers.insert("authorization", "AWS AKID:sig".parse().unwrap());
        assert_eq!(Scope::of(&headers, &Uri::from_static("/")), None);
    }
}
