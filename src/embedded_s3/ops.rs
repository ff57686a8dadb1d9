//! The operations: what S3 answers to requests that may be made.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use s3s::checksum::ChecksumHasher;
use s3s::dto::{
    Bucket as BucketEntry, ChecksumMode, ChecksumType, DeleteObjectInput, DeleteObjectOutput, ETag,
    ETagCondition, GetBucketLocationInput, GetBucketLocationOutput, GetBucketPolicyStatusInput,
    GetBucketPolicyStatusOutput, GetObjectInput, GetObjectOutput, GetPublicAccessBlockInput,
    GetPublicAccessBlockOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput,
    HeadObjectOutput, ListBucketsInput, ListBucketsOutput, ListObjectsV2Input, ListObjectsV2Output,
    PolicyStatus, PublicAccessBlockConfiguration, PutObjectInput, PutObjectOutput, Timestamp,
};
use s3s::{Body, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::PutOptions;
use super::access::{Caller, denied};
use super::listing::list;
use super::store::{Bucket, Object, Store};
use crate::clock::Clock;

/// The largest object that is taken: what the S3 origin would read, and some.
const MAX_PUT: usize = 80 << 20;

/// The S3 operations over a store.
pub(super) struct Ops {
    pub(super) store: Arc<Store>,
    pub(super) clock: Clock,
    pub(super) region: Option<String>,
}

impl Ops {
    fn bucket(&self, name: &str) -> S3Result<&Bucket> {
        let bucket = self.store.bucket(name);
        bucket.ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    /// The object, or the error that this caller gets for a missing one.
    async fn object(
        &self,
        bucket: &str,
        key: &str,
        caller: Option<Caller>,
    ) -> S3Result<Arc<Object>> {
        self.bucket(bucket)?;
        let (store, name, wanted) = (Arc::clone(&self.store), bucket.to_owned(), key.to_owned());
        let found = blocking(move || store.bucket(&name).map_or(Ok(None), |b| b.get(&wanted)));
        found.await?.ok_or_else(|| {
            if caller.is_some_and(|caller| caller.may_list(bucket)) {
                s3_error!(NoSuchKey, "The specified key does not exist.")
            } else {
                denied()
            }
        })
    }
}

#[async_trait::async_trait]
impl S3 for Ops {
    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let caller = req.extensions.get().cloned();
        let input = req.input;
        let object = self.object(&input.bucket, &input.key, caller).await?;
        conditions(
            &object,
            [input.if_match.as_ref(), input.if_none_match.as_ref()],
            [
                input.if_unmodified_since.as_ref(),
                input.if_modified_since.as_ref(),
            ],
        )?;
        let full = object.body.len() as u64;
        let range = input.range.map(|range| range.check(full)).transpose()?;
        let body = match &range {
            Some(range) => object.body.slice(size(range.start)?..size(range.end)?),
            None => object.body.clone(),
        };
        // The checksum is the whole object's, so it goes with the whole object alone.
        let wants_checksum = range.is_none()
            && input
                .checksum_mode
                .is_some_and(|m| m.as_str() == ChecksumMode::ENABLED);
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some(signed(body.len())?),
            content_range: range.map(|r| format!("bytes {}-{}/{full}", r.start, r.end - 1)),
            body: Some(Body::from(body).into()),
            checksum_crc64nvme: wants_checksum.then(|| STANDARD.encode(object.crc64)),
            checksum_type: wants_checksum
                .then(|| ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
            cache_control: input
                .response_cache_control
                .or_else(|| object.options.cache_control.clone()),
            content_encoding: input
                .response_content_encoding
                .or_else(|| object.options.content_encoding.clone()),
            content_type: input
                .response_content_type
                .or_else(|| object.options.content_type.clone()),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(object.last_modified.into()),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let caller = req.extensions.get().cloned();
        let input = req.input;
        let object = self.object(&input.bucket, &input.key, caller).await?;
        conditions(
            &object,
            [input.if_match.as_ref(), input.if_none_match.as_ref()],
            [
                input.if_unmodified_since.as_ref(),
                input.if_modified_since.as_ref(),
            ],
        )?;
        let wants_checksum = input
            .checksum_mode
            .is_some_and(|m| m.as_str() == ChecksumMode::ENABLED);
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some(signed(object.body.len())?),
            checksum_crc64nvme: wants_checksum.then(|| STANDARD.encode(object.crc64)),
            cache_control: object.options.cache_control.clone(),
            content_encoding: object.options.content_encoding.clone(),
            content_type: object.options.content_type.clone(),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(object.last_modified.into()),
            ..HeadObjectOutput::default()
        }))
    }

    async fn put_object(
        &self,
        req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let trailers = req.trailing_headers;
        let mut input = req.input;
        let bucket = self.bucket(&input.bucket)?;
        let body = match input.body.take() {
            Some(body) => Limited::new(Body::from(body), MAX_PUT).collect().await,
            None => Ok(http_body_util::Collected::default()),
        };
        let body: Bytes = body
            .map_err(|e| S3Error::with_source(S3ErrorCode::IncompleteBody, e))?
            .to_bytes();
        // Checksums travel in headers or, behind a streamed body, in trailers.
        let trailer = |name: &str| {
            trailers.as_ref().and_then(|t| {
                t.read(|headers| headers.get(name)?.to_str().ok().map(str::to_owned))
                    .flatten()
            })
        };
        verify(&body, &input, trailer)?;
        if !self.store.has_room(body.len()) {
            return Err(s3_error!(
                ServiceUnavailable,
                "The memory for changed objects is full."
            ));
        }
        let (store, name, key) = (
            Arc::clone(&self.store),
            input.bucket.clone(),
            input.key.clone(),
        );
        let old = blocking(move || store.bucket(&name).map_or(Ok(None), |b| b.get(&key))).await?;
        let precondition = match (&input.if_match, &input.if_none_match, &old) {
            (Some(_), _, None) => Err(s3_error!(NoSuchKey, "The specified key does not exist.")),
            (Some(tag), _, Some(old)) if !tag_matches(tag, &old.etag) => Err(failed()),
            (_, Some(tag), Some(old)) if tag_matches(tag, &old.etag) => Err(failed()),
            _ => Ok(()),
        };
        precondition?;
        let options = PutOptions {
            content_type: input.content_type,
            // S3 keeps what it means, not how the upload travelled.
            content_encoding: input
                .content_encoding
                .map(|declared| without_chunked(&declared))
                .filter(|declared| !declared.is_empty()),
            cache_control: input.cache_control,
        };
        let written = self.clock.now().to_system_time();
        let object = bucket.put(&input.key, body, written, options);
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(object.etag.clone())),
            checksum_crc64nvme: Some(STANDARD.encode(object.crc64)),
            checksum_type: Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
            ..PutObjectOutput::default()
        }))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.bucket(&req.input.bucket)?.delete(&req.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        self.bucket(&input.bucket)?;
        let (store, name) = (Arc::clone(&self.store), input.bucket.clone());
        let output = blocking(move || match store.bucket(&name) {
            Some(bucket) => list(bucket, input),
            None => Ok(Err(s3_error!(NoSuchBucket))),
        });
        Ok(S3Response::new(output.await??))
    }

    async fn list_buckets(
        &self,
        _: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let names: BTreeSet<&str> = self.store.names().collect();
        let entry = |name: &str| BucketEntry {
            name: Some(name.to_owned()),
            ..BucketEntry::default()
        };
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(names.into_iter().map(entry).collect()),
            ..ListBucketsOutput::default()
        }))
    }

    async fn head_bucket(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.bucket(&req.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput {
            bucket_region: self.region.clone(),
            ..HeadBucketOutput::default()
        }))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.bucket(&req.input.bucket)?;
        // us-east-1 is said by saying nothing.
        let region = self.region.clone().filter(|region| region != "us-east-1");
        Ok(S3Response::new(GetBucketLocationOutput {
            location_constraint: region.map(Into::into),
        }))
    }

    async fn get_public_access_block(
        &self,
        req: S3Request<GetPublicAccessBlockInput>,
    ) -> S3Result<S3Response<GetPublicAccessBlockOutput>> {
        let blocked = Some(self.bucket(&req.input.bucket)?.block_public_access);
        if blocked == Some(false) {
            let code = S3ErrorCode::Custom("NoSuchPublicAccessBlockConfiguration".into());
            let message = "The public access block configuration was not found";
            let mut error = S3Error::with_message(code, message);
            error.set_status_code(http::StatusCode::NOT_FOUND);
            return Err(error);
        }
        Ok(S3Response::new(GetPublicAccessBlockOutput {
            public_access_block_configuration: Some(PublicAccessBlockConfiguration {
                block_public_acls: blocked,
                block_public_policy: blocked,
                ignore_public_acls: blocked,
                restrict_public_buckets: blocked,
            }),
        }))
    }

    async fn get_bucket_policy_status(
        &self,
        req: S3Request<GetBucketPolicyStatusInput>,
    ) -> S3Result<S3Response<GetBucketPolicyStatusOutput>> {
        let is_public = Some(self.bucket(&req.input.bucket)?.public_read);
        Ok(S3Response::new(GetBucketPolicyStatusOutput {
            policy_status: Some(PolicyStatus { is_public }),
        }))
    }
}

/// RFC 9110 §13.2.2: `If-Match` or else `If-Unmodified-Since`, then `If-None-Match` or else
/// `If-Modified-Since`.
fn conditions(
    object: &Object,
    [if_match, if_none_match]: [Option<&ETagCondition>; 2],
    [if_unmodified_since, if_modified_since]: [Option<&Timestamp>; 2],
) -> S3Result<()> {
    let modified_after = |since: &Timestamp| {
        // Headers count whole seconds.
        let since = time_secs(since);
        time_secs(&object.last_modified.into()) > since
    };
    match (if_match, if_unmodified_since) {
        (Some(tag), _) if !tag_matches(tag, &object.etag) => return Err(failed()),
        (None, Some(since)) if modified_after(since) => return Err(failed()),
        _ => {}
    }
    let unchanged = match (if_none_match, if_modified_since) {
        (Some(tag), _) => tag_matches(tag, &object.etag),
        (None, Some(since)) => !modified_after(since),
        (None, None) => false,
    };
    if !unchanged {
        return Ok(());
    }
    let mut headers = http::HeaderMap::new();
    if let Ok(etag) = format!("\"{}\"", object.etag).parse() {
        headers.insert(http::header::ETAG, etag);
    }
    if let Ok(date) = httpdate::fmt_http_date(object.last_modified).parse() {
        headers.insert(http::header::LAST_MODIFIED, date);
    }
    let mut not_modified = S3Error::new(S3ErrorCode::NotModified);
    not_modified.set_headers(headers);
    Err(not_modified)
}

fn time_secs(at: &Timestamp) -> String {
    // The type gives its seconds away as text alone; these digits compare as numbers do.
    let mut text = Vec::new();
    let _ = at.format(s3s::dto::TimestampFormat::DateTime, &mut text);
    text.truncate("2026-11-22T11:18:00".len());
    String::from_utf8_lossy(&text).into_owned()
}

fn tag_matches(condition: &ETagCondition, etag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(tag) => tag.value() == etag,
    }
}

fn failed() -> S3Error {
    s3_error!(
        PreconditionFailed,
        "At least one of the pre-conditions you specified did not hold"
    )
}

/// Compares the checksums that came with an upload.
fn verify(
    body: &[u8],
    input: &PutObjectInput,
    trailer: impl Fn(&str) -> Option<String>,
) -> S3Result<()> {
    let mut hasher = ChecksumHasher {
        crc32: Some(s3s::crypto::Crc32::default()),
        crc32c: Some(s3s::crypto::Crc32c::default()),
        sha1: Some(s3s::crypto::Sha1::default()),
        sha256: Some(s3s::crypto::Sha256::default()),
        crc64nvme: Some(s3s::crypto::Crc64Nvme::default()),
    };
    hasher.update(body);
    let actual = hasher.finalize();
    for (name, header, actual) in [
        ("crc32", &input.checksum_crc32, &actual.checksum_crc32),
        ("crc32c", &input.checksum_crc32c, &actual.checksum_crc32c),
        (
            "crc64nvme",
            &input.checksum_crc64nvme,
            &actual.checksum_crc64nvme,
        ),
        ("sha1", &input.checksum_sha1, &actual.checksum_sha1),
        ("sha256", &input.checksum_sha256, &actual.checksum_sha256),
    ] {
        let sent = header
            .clone()
            .or_else(|| trailer(&format!("x-amz-checksum-{name}")));
        if sent.is_some() && sent != *actual {
            return Err(s3_error!(
                BadDigest,
                "The {name} you specified did not match the calculated checksum."
            ));
        }
    }
    let md5 = <s3s::crypto::Md5 as s3s::crypto::Checksum>::checksum(body);
    if input
        .content_md5
        .as_ref()
        .is_some_and(|sent| *sent != STANDARD.encode(md5))
    {
        return Err(s3_error!(
            BadDigest,
            "The Content-MD5 you specified did not match what we received."
        ));
    }
    Ok(())
}

fn without_chunked(declared: &str) -> String {
    let kept: Vec<_> = declared
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    kept.join(",")
}

/// Runs what reads files off the async threads.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> S3Result<T> {
    tokio::task::spawn_blocking(read)
        .await
        .map_err(S3Error::internal_error)?
        .map_err(S3Error::internal_error)
}

fn signed(length: usize) -> S3Result<i64> {
    i64::try_from(length).map_err(S3Error::internal_error)
}

fn size(at: u64) -> S3Result<usize> {
    usize::try_from(at).map_err(S3Error::internal_error)
}
