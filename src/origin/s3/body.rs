//! A response's body: read whole into memory of its own size, or refused.

use std::error::Error;
use std::io;
use std::sync::atomic::Ordering;

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use bytes::Bytes;

use super::Get;
use super::answer::Failure;
use crate::aws::said;
use crate::origin::{OriginError, OriginErrorKind};

/// Reads the body. `promised` is the Content-Length.
pub(super) async fn read(
    mut body: ByteStream,
    promised: Option<u64>,
    max_object: u64,
    get: &Get<'_>,
) -> Result<Bytes, Failure> {
    let promise = promised.unwrap_or(0);
    get.progress.promised.store(promise, Ordering::Relaxed);
    let too_large = |size: u64| {
        let detail = format!(
            "{get}: an object of {size} bytes or more is no tile; at most {max_object} are read"
        );
        Failure::for_good(OriginError::of_object(OriginErrorKind::Server, detail))
    };
    if promise > max_object {
        return Err(too_large(promise));
    }
    // Copied out, even where one chunk is all: hyper's chunks share its read buffer, and a cache
    // that holds a slice of it would hold the whole.
    let mut whole = Vec::with_capacity(usize::try_from(promise).unwrap_or(0));
    // To the very end: the SDK compares the checksum there, after the last byte.
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| broken(&error, whole.len(), promised, get))?;
        let held = (whole.len() + chunk.len()) as u64;
        if held > max_object {
            return Err(too_large(held));
        }
        whole.extend_from_slice(&chunk);
        get.progress.received.store(held, Ordering::Relaxed);
    }
    match promised {
        Some(promised) if promised != whole.len() as u64 => Err(truncated(format!(
            "{get}: {} bytes came where {promised} were promised",
            whole.len()
        ))),
        _ => Ok(whole.into()),
    }
}

/// A body that broke off: by the connection, by its end, or by its checksum.
fn broken(
    error: &(dyn Error + 'static),
    received: usize,
    promised: Option<u64>,
    get: &Get<'_>,
) -> Failure {
    let of = promised.map_or_else(String::new, |n| format!(" of {n}"));
    let detail = format!("{get}: after {received}{of} bytes: {}", said(error));
    if connection_lost(error) {
        Failure::worth_repeating(OriginError::new(OriginErrorKind::Unreachable, detail))
    } else {
        truncated(detail)
    }
}

fn truncated(detail: String) -> Failure {
    Failure::worth_repeating(OriginError::new(OriginErrorKind::Truncated, detail))
}

/// Whether the network broke, rather than the sender having ended early.
fn connection_lost(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.kind() != io::ErrorKind::UnexpectedEof;
        }
        next = error.source();
    }
    false
}

/// Refuses responses that end where the connection ends: a cut could not be told from the end
/// (RFC 9112 §8). With a Content-Length or chunks, hyper notices.
#[derive(Debug)]
pub(super) struct RefuseUnframed;

/// What [`RefuseUnframed`] answers.
#[derive(Debug, thiserror::Error)]
#[error(
    "neither Content-Length nor chunks: a body that was cut could not be told from a whole one"
)]
pub(super) struct Unframed;

#[dyn_dispatch_hint]
impl Intercept for RefuseUnframed {
    fn name(&self) -> &'static str {
        "RefuseUnframed"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let framed = ["content-length", "transfer-encoding"]
            .iter()
            .any(|name| response.headers().contains_key(name));
        if response.status().is_success() && !framed {
            return Err(Unframed.into());
        }
        Ok(())
    }
}
