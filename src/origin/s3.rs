//! Tiles from S3: one signed `GetObject` a tile, read whole, checked, and its errors told apart.
//!
//! Invariant: a reply is whole. Its length is the promised one, its checksum (where the object has
//! one) is right, and its encoding is known from its first bytes. Nothing here outlives the
//! request's deadline, retries included, and an outage adds at most a tenth to the load.
//! Left out on purpose: how many requests run at once and when to stop asking (`origin::limits`),
//! and where credentials come from (`aws`).
//!
//! Retries are our own, above an SDK that does none: the SDK's end where the response's head is
//! read, so that a body that breaks is never tried again, and they know neither the deadline of the
//! whole nor a budget shared by all tilesets.
//!
//! Checksums: the SDK asks for them (`x-amz-checksum-mode: ENABLED`) and compares while the body
//! streams. S3 keeps one for every object written since December 2024; CRC64NVME costs about a
//! microsecond for a tile, so there is no reason not to. Composite checksums (`…-N`, multipart) are
//! not comparable and are skipped by the SDK.

mod answer;
mod body;
mod brief;
mod lean;
mod range;
mod retry;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{ResponseChecksumValidation, SharedInterceptor};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use tokio::time::{Instant, timeout};

use self::answer::{Failure, Said};
use self::retry::{Jitter, MAX_ATTEMPTS, RetryBudget, pause};
use super::encoding;
use super::{
    Origin, OriginError, OriginErrorKind, OriginFuture, OriginReply, OriginRequest, OriginTile,
    OriginValidator,
};

/// Larger objects are refused: a tile is some kilobytes, and this one would be held in memory.
pub const MAX_OBJECT_BYTES: u64 = 64 << 20;

/// The origin that reads from S3, or from a server that speaks its API.
pub struct S3Origin {
    clients: Clients,
    /// Those of tilesets that have a role of their own.
    by_tileset: HashMap<Box<str>, Clients>,
    max_object: u64,
    budget: RetryBudget,
    jitter: Jitter,
    retries: AtomicU64,
}

impl fmt::Debug for S3Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Origin")
            .field("max_object", &self.max_object)
            .finish_non_exhaustive()
    }
}

impl S3Origin {
    /// An origin over this client (see [`crate::aws::Aws::s3_client`]).
    pub fn new(client: &Client) -> Self {
        Self {
            clients: Clients::new(client),
            by_tileset: HashMap::new(),
            max_object: MAX_OBJECT_BYTES,
            budget: RetryBudget::default(),
            jitter: Jitter::default(),
            retries: AtomicU64::new(0),
        }
    }

    /// Reads this tileset with a client of its own: another role, another account.
    #[must_use]
    pub fn with_tileset_client(mut self, tileset: &str, client: &Client) -> Self {
        let clients = Clients::new(client);
        self.by_tileset.insert(tileset.into(), clients);
        self
    }

    /// Refuses objects above this size instead of above [`MAX_OBJECT_BYTES`].
    #[must_use]
    pub fn with_max_object(mut self, bytes: u64) -> Self {
        self.max_object = bytes;
        self
    }

    /// How often a request was repeated.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    async fn get(&self, request: OriginRequest) -> Result<OriginReply, OriginError> {
        let place = request.tileset.place();
        let get = Get {
            client: &self.clients_of(request.tileset.name()).whole,
            bucket: &place.bucket,
            key: place.key.key(request.coord, request.scale),
            validator: request.validator.as_ref(),
            only: None,
            range: None,
            max_object: self.max_object,
            progress: Progress::default(),
        };
        self.in_time(&get, request.deadline).await
    }

    fn clients_of(&self, tileset: &str) -> &Clients {
        self.by_tileset.get(tileset).unwrap_or(&self.clients)
    }

    /// Tries until it succeeds, is not worth another try, or the deadline is over.
    async fn in_time<A: Attempt>(
        &self,
        attempt: &A,
        deadline: Duration,
    ) -> Result<A::Reply, OriginError> {
        if let Ok(result) = timeout(deadline, self.attempts(attempt, deadline)).await {
            return result;
        }
        let get = attempt.get();
        let progress = &get.progress;
        let detail = format!("{get}: no whole answer in {deadline:?} ({progress})");
        Err(OriginError::new(OriginErrorKind::Deadline, detail))
    }

    async fn attempts<A: Attempt>(
        &self,
        asked: &A,
        deadline: Duration,
    ) -> Result<A::Reply, OriginError> {
        let started = Instant::now();
        let mut attempt = 1;
        loop {
            let progress = &asked.get().progress;
            progress.attempts.store(attempt, Ordering::Relaxed);
            let failure = match asked.once().await {
                Ok(reply) => {
                    self.budget.deposit();
                    return Ok(reply);
                }
                Err(failure) => failure,
            };
            let pause = pause(attempt, self.jitter.next());
            let in_time = started.elapsed() + pause < deadline;
            // The budget last: nothing is taken from it for a retry that does not happen.
            if !failure.again || attempt >= MAX_ATTEMPTS || !in_time || !self.budget.withdraw() {
                return Err(failure.error);
            }
            tracing::debug!(attempt, error = %failure.error, ?pause, "asking S3 again");
            self.retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }
}

/// The client that was given (its credentials, its connections), for one purpose each. They are made once: the
/// SDK looks at its whole configuration for every client that is made.
struct Clients {
    /// Asks for whole objects: without retries, with a check of framing, and without what the SDK would do again
    /// for each of them.
    whole: Client,
    /// Asks for parts of objects, of which a checksum says nothing (`range`).
    part: Client,
}

impl Clients {
    fn new(client: &Client) -> Self {
        let config = client.config().to_builder();
        let mut config = lean::lean(config).retry_config(RetryConfig::disabled());
        config.push_interceptor(SharedInterceptor::permanent(body::RefuseUnframed));
        let whole = Client::from_conf(config.build());
        let config = whole.config().to_builder();
        let config = config.response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        let part = Client::from_conf(config.build());
        Self { whole, part }
    }
}

impl Origin for S3Origin {
    fn fetch(&self, request: OriginRequest) -> OriginFuture<'_> {
        Box::pin(self.get(request))
    }
}

/// Something that may be tried again.
trait Attempt: Sync {
    type Reply: Send;
    fn get(&self) -> &Get<'_>;
    fn once(&self) -> impl Future<Output = Result<Self::Reply, Failure>> + Send;
}

/// The whole object.
impl Attempt for Get<'_> {
    type Reply = OriginReply;

    fn get(&self) -> &Get<'_> {
        self
    }

    fn once(&self) -> impl Future<Output = Result<OriginReply, Failure>> + Send {
        self.whole()
    }
}

/// One `GetObject`, and how far it has come.
struct Get<'a> {
    client: &'a Client,
    bucket: &'a str,
    key: String,
    /// `If-None-Match`.
    validator: Option<&'a OriginValidator>,
    /// `If-Match`.
    only: Option<&'a OriginValidator>,
    /// A part of the object alone.
    range: Option<Range<u64>>,
    max_object: u64,
    progress: Progress,
}

impl Get<'_> {
    async fn whole(&self) -> Result<OriginReply, Failure> {
        self.progress.begin();
        let sent = self
            .client
            .get_object()
            .bucket(self.bucket)
            .key(&self.key)
            .set_if_none_match(self.validator.map(ToString::to_string))
            .send()
            .await;
        match sent {
            Ok(output) => self.read(output).await.map(OriginReply::Found),
            Err(error) => match answer::translate(&error, self)? {
                Said::NotModified => Ok(OriginReply::NotModified),
                // The other one answers `If-Match`, which is not sent here.
                Said::NotFound | Said::Changed => Ok(OriginReply::NotFound),
            },
        }
    }

    async fn read(&self, output: GetObjectOutput) -> Result<OriginTile, Failure> {
        // Every S3 server sends an ETag with an object. A captive portal's or a proxy's log-in page,
        // answered with 200, does not, and must not become a tile.
        let Some(etag) = output.e_tag() else {
            return Err(self.no_etag());
        };
        let validator = OriginValidator::new(etag);
        let last_modified = last_modified(&output);
        let declared = output.content_encoding().map(str::to_owned);
        let promised = output.content_length().and_then(|n| u64::try_from(n).ok());
        let body = body::read(output.body, promised, self.max_object, self).await?;
        let encoding = encoding::detect(declared.as_deref(), &body).map_err(|unknown| {
            let said = format!("{self}: {unknown}");
            Failure::for_good(OriginError::of_object(OriginErrorKind::Server, said))
        })?;
        Ok(OriginTile {
            body,
            encoding,
            validator,
            last_modified,
        })
    }
}

impl Get<'_> {
    fn no_etag(&self) -> Failure {
        let said = format!("{self}: success without an ETag; is `endpoint_url` an S3 endpoint?");
        Failure::for_good(OriginError::new(OriginErrorKind::Server, said))
    }
}

/// In seconds since the epoch.
fn last_modified(output: &GetObjectOutput) -> Option<u64> {
    let at = output.last_modified()?;
    u64::try_from(at.secs()).ok()
}

impl fmt::Display for Get<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GetObject s3://{}/{}", self.bucket, self.key)?;
        match &self.range {
            Some(range) => write!(f, " bytes {}-{}", range.start, range.end - 1),
            None => Ok(()),
        }
    }
}

/// For the detail of a deadline: what was waited for.
#[derive(Debug, Default)]
struct Progress {
    attempts: AtomicU32,
    received: AtomicU64,
    /// `u64::MAX` until the response's head is there.
    promised: AtomicU64,
}

impl Progress {
    fn begin(&self) {
        self.received.store(0, Ordering::Relaxed);
        self.promised.store(u64::MAX, Ordering::Relaxed);
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempt = self.attempts.load(Ordering::Relaxed);
        let received = self.received.load(Ordering::Relaxed);
        match self.promised.load(Ordering::Relaxed) {
            u64::MAX => write!(f, "attempt {attempt}, no response yet"),
            promised => write!(f, "attempt {attempt}, {received} of {promised} bytes"),
        }
    }
}
