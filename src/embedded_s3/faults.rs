//! Faults on purpose: what a test wants the next requests to meet.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body::{Body, Frame, SizeHint};

use super::form;

/// What a request asks for, told from its method and URL alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `GET /bucket/key`.
    GetObject,
    /// `HEAD /bucket/key`.
    HeadObject,
    /// `PUT /bucket/key`.
    PutObject,
    /// `DELETE /bucket/key`.
    DeleteObject,
    /// `GET /bucket?list-type=2`.
    ListObjectsV2,
    /// `HEAD /bucket`.
    HeadBucket,
    /// `POST /`: STS.
    Sts,
    /// Anything else.
    Other,
}

impl Operation {
    /// Of a request.
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let (method, uri) = (request.method(), request.uri());
        if super::sts::is_sts(method, uri) {
            return Self::Sts;
        }
        let path = uri.path().strip_prefix('/').unwrap_or_default();
        let has_key = path.split_once('/').is_some_and(|(_, key)| !key.is_empty());
        let query = form::parse(uri.query().unwrap_or_default().as_bytes());
        let lists = query.iter().any(|(k, v)| k == "list-type" && v == "2");
        match (method, has_key) {
            (&Method::GET, true) => Self::GetObject,
            (&Method::HEAD, true) => Self::HeadObject,
            (&Method::PUT, true) => Self::PutObject,
            (&Method::DELETE, true) => Self::DeleteObject,
            (&Method::GET, false) if lists => Self::ListObjectsV2,
            (&Method::HEAD, false) if !path.is_empty() => Self::HeadBucket,
            _ => Self::Other,
        }
    }
}

/// Something that goes wrong with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This answer instead of any other.
    Answer(CannedAnswer),
    /// This long before the first byte, then as usual.
    Delay(Duration),
    /// The request is read and never answered.
    NeverAnswer,
    /// The body ends after this many bytes, though more were promised; the connection is closed.
    Truncate(usize),
    /// As `Truncate`, but the connection is reset (RST) instead of closed.
    Reset(usize),
    /// The body ends after this many bytes and never goes on: the connection stays open.
    Stall(usize),
    /// More bytes than promised follow the body on the connection.
    Longer(Bytes),
    /// The first byte of the body is another one; its checksum stays.
    Corrupt,
    /// The body comes in chunks, without a Content-Length.
    Chunked,
}

/// An answer that a test made up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CannedAnswer {
    /// HTTP status.
    pub status: u16,
    /// Response headers.
    pub headers: Vec<(&'static str, String)>,
    /// Response body.
    pub body: Bytes,
}

impl Fault {
    /// An error in S3's XML.
    pub fn s3_error(status: u16, code: &str, message: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{}</Code><Message>{}</Message></Error>",
            form::xml(code),
            form::xml(message),
        );
        Self::Answer(CannedAnswer {
            status,
            headers: vec![("content-type", "application/xml".into())],
            body: body.into(),
        })
    }

    /// 503 `SlowDown`, with or without a time to come back.
    pub fn slow_down(retry_after: Option<Duration>) -> Self {
        let fault = Self::s3_error(503, "SlowDown", "Please reduce your request rate.");
        match retry_after {
            Some(after) => fault.with_header("retry-after", after.as_secs().to_string()),
            None => fault,
        }
    }

    /// 500 `InternalError`.
    pub fn internal_error() -> Self {
        Self::s3_error(
            500,
            "InternalError",
            "We encountered an internal error. Please try again.",
        )
    }

    /// 403 `AccessDenied`.
    pub fn access_denied() -> Self {
        Self::s3_error(403, "AccessDenied", "Access Denied")
    }

    /// 301 to another region.
    pub fn other_region(region: &str) -> Self {
        let message = "The bucket you are attempting to access must be addressed using the specified endpoint.";
        Self::s3_error(301, "PermanentRedirect", message)
            .with_header("x-amz-bucket-region", region.to_owned())
    }

    /// An answer that is not S3's: a proxy's page, a captive portal's.
    pub fn page(status: u16, html: &'static str) -> Self {
        Self::Answer(CannedAnswer {
            status,
            headers: vec![("content-type", "text/html".into())],
            body: Bytes::from_static(html.as_bytes()),
        })
    }

    /// The same answer with one more header; other faults stay as they are.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: String) -> Self {
        if let Self::Answer(answer) = &mut self {
            answer.headers.push((name, value));
        }
        self
    }
}

/// What is to go wrong, and what was asked.
#[derive(Debug, Default)]
pub(super) struct Script {
    faults: Mutex<VecDeque<(Option<Operation>, Fault, usize)>>,
    counts: Mutex<HashMap<Operation, u64>>,
}

impl Script {
    pub(super) fn add(&self, operation: Option<Operation>, times: usize, fault: Fault) {
        lock(&self.faults).push_back((operation, fault, times));
    }

    pub(super) fn clear(&self) {
        lock(&self.faults).clear();
    }

    pub(super) fn count(&self, operation: Operation) -> u64 {
        lock(&self.counts).get(&operation).copied().unwrap_or(0)
    }

    pub(super) fn total(&self) -> u64 {
        lock(&self.counts).values().sum()
    }

    /// Counts a request, and takes the fault that it meets. `None` as the operation means any of S3.
    pub(super) fn arrive(&self, operation: Operation) -> Option<Fault> {
        *lock(&self.counts).entry(operation).or_insert(0) += 1;
        let mut faults = lock(&self.faults);
        faults.retain(|(_, _, times)| *times > 0);
        let (_, fault, times) = faults.iter_mut().find(|(wanted, _, _)| {
            wanted.map_or(operation != Operation::Sts, |wanted| wanted == operation)
        })?;
        if *times != usize::MAX {
            *times -= 1;
        }
        Some(fault.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a body does to the connection that it goes over.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// Reset instead of close.
    pub(super) reset: AtomicBool,
    /// Bytes to send once everything before them is sent.
    pub(super) append: Mutex<Option<Bytes>>,
}

/// A response's body, as it is or broken.
pub(super) enum FaultyBody {
    Whole(s3s::Body),
    Broken(Broken),
}

pub(super) struct Broken {
    rest: Option<Bytes>,
    exact: Option<u64>,
    end: End,
    wire: Arc<Wire>,
    /// Whether hyper was given the chance to send what it has.
    flushed: bool,
}

#[derive(Debug)]
enum End {
    Normal,
    Close,
    Reset,
    Stall,
    Append(Bytes),
}

impl FaultyBody {
    /// The whole body, which goes wrong as the fault says.
    pub(super) fn broken(whole: Bytes, fault: Fault, wire: Arc<Wire>) -> Self {
        let promised = Some(whole.len() as u64);
        let head = |n: usize| whole.slice(..n.min(whole.len()));
        let (rest, exact, end) = match fault {
            Fault::Truncate(n) => (head(n), promised, End::Close),
            Fault::Reset(n) => (head(n), promised, End::Reset),
            Fault::Stall(n) => (head(n), promised, End::Stall),
            Fault::Longer(more) => (whole, promised, End::Append(more)),
            Fault::Corrupt => {
                let mut bytes = whole.to_vec();
                if let Some(first) = bytes.first_mut() {
                    *first ^= 0x01;
                }
                (bytes.into(), promised, End::Normal)
            }
            Fault::Chunked => (whole, None, End::Normal),
            Fault::Answer(_) | Fault::Delay(_) | Fault::NeverAnswer => {
                (whole, promised, End::Normal)
            }
        };
        Self::Broken(Broken {
            rest: Some(rest).filter(|rest| !rest.is_empty()),
            exact,
            end,
            wire,
            flushed: false,
        })
    }
}

/// A body that stops on purpose.
#[derive(Debug)]
struct OnPurpose;

impl fmt::Display for OnPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken on purpose")
    }
}

impl std::error::Error for OnPurpose {}

impl Body for FaultyBody {
    type Data = Bytes;
    type Error = s3s::StdError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, s3s::StdError>>> {
        let broken = match self.get_mut() {
            Self::Whole(body) => return Pin::new(body).poll_frame(cx),
            Self::Broken(broken) => broken,
        };
        if let Some(rest) = broken.rest.take() {
            if let End::Append(more) = &broken.end {
                *lock(&broken.wire.append) = Some(more.clone());
            }
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        if matches!(broken.end, End::Normal | End::Append(_)) {
            return Poll::Ready(None);
        }
        if !broken.flushed {
            // hyper sends what it holds when a body is not ready; an error would drop it unsent.
            broken.flushed = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match broken.end {
            End::Stall => return Poll::Pending,
            End::Reset => broken.wire.reset.store(true, Ordering::Release),
            _ => {}
        }
        Poll::Ready(Some(Err(Box::new(OnPurpose))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Broken(broken) => {
                broken.rest.is_none() && matches!(broken.end, End::Normal | End::Append(_))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Broken(broken) => broken
                .exact
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
