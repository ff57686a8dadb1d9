//! What stands between the caches and an origin: a bound on requests at once, a bound on those that
//! wait, and a circuit breaker.
//!
//! Invariant: the origin never sees more than `concurrency` requests, of which jobs have half at most and
//! guesses their share; nobody waits who cannot be served in time; every request ends in exactly one counter.
//! Left out on purpose: retries (`origin::s3`) and stale answers (`cache`).

mod breaker;
mod line;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout};

pub use self::breaker::{Breaker, BreakerSettings, BreakerState, Health, Ticket};
use self::line::{Line, Refused};
use super::{
    ErrorScope, Lane, Origin, OriginError, OriginErrorKind, OriginFuture, OriginReply,
    OriginRequest, Urgency,
};

/// One in so many requests at once is never a guess: people who come find a slot.
const LEFT_FREE: usize = 8;

/// The bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSettings {
    /// Requests at once, at least 1.
    pub concurrency: usize,
    /// Requests that may wait for their turn: in each line, that of maps and that of jobs.
    pub queue: usize,
    /// Of the requests at once, those that may be guesses.
    pub speculative: usize,
    /// When to stop asking.
    pub breaker: BreakerSettings,
}

impl LimitSettings {
    /// Bounds for `[origin] concurrency`: eight times as many may wait, a few hundred milliseconds
    /// at S3's usual speed.
    pub fn new(concurrency: usize) -> Self {
        let concurrency = concurrency.max(1);
        Self {
            concurrency,
            queue: concurrency.saturating_mul(8),
            speculative: 0,
            breaker: BreakerSettings::default(),
        }
    }
}

/// An origin within bounds.
#[derive(Debug)]
pub struct Limited<O> {
    inner: O,
    /// Everything that is asked, whoever wants it.
    line: Line,
    /// What jobs want: half of all at most, so that a person who comes finds the other half.
    background: Line,
    /// Guesses.
    speculative: Line,
    breaker: Mutex<Breaker>,
    /// How long an answer takes, in microseconds: a moving average over about eight.
    service_micros: AtomicU64,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    found: AtomicU64,
    not_modified: AtomicU64,
    not_found: AtomicU64,
    errors: [AtomicU64; OriginErrorKind::ALL.len()],
    abandoned: AtomicU64,
    bytes: AtomicU64,
    queue_full: AtomicU64,
    no_time: AtomicU64,
    circuit_open: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitStats {
    /// Tiles found.
    pub found: u64,
    /// Tiles that were still right.
    pub not_modified: u64,
    /// Tiles that do not exist.
    pub not_found: u64,
    /// Failures, in the order of [`OriginErrorKind::ALL`].
    pub errors: [u64; OriginErrorKind::ALL.len()],
    /// Requests that their caller gave up.
    pub abandoned: u64,
    /// Bytes of tiles found.
    pub bytes: u64,
    /// Held back because too many were waiting.
    pub queue_full: u64,
    /// Held back because their turn would have come too late.
    pub no_time: u64,
    /// Held back by the circuit breaker.
    pub circuit_open: u64,
    /// How often the circuit opened.
    pub circuit_opened: u64,
    /// What the circuit breaker does now.
    pub circuit: BreakerState,
    /// Requests under way now.
    pub in_flight: usize,
    /// Requests waiting now.
    pub waiting: usize,
}

impl<O: Origin> Limited<O> {
    /// Bounds around an origin.
    pub fn new(inner: O, settings: LimitSettings) -> Self {
        Self {
            inner,
            line: Line::new(settings.concurrency.max(1), settings.queue),
            background: Line::new(settings.concurrency.div_ceil(2).max(1), settings.queue),
            speculative: Line::new(settings.speculative.min(settings.concurrency), 0),
            breaker: Mutex::new(Breaker::new(settings.breaker)),
            service_micros: AtomicU64::new(0),
            counters: Counters::default(),
        }
    }

    /// The origin inside.
    pub fn inner(&self) -> &O {
        &self.inner
    }

    /// The counters now.
    pub fn stats(&self) -> LimitStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        let (circuit, circuit_opened) = {
            let breaker = self.breaker();
            (breaker.state(), breaker.opened())
        };
        LimitStats {
            found: read(&c.found),
            not_modified: read(&c.not_modified),
            not_found: read(&c.not_found),
            errors: std::array::from_fn(|kind| read(&c.errors[kind])),
            abandoned: read(&c.abandoned),
            bytes: read(&c.bytes),
            queue_full: read(&c.queue_full),
            no_time: read(&c.no_time),
            circuit_open: read(&c.circuit_open),
            circuit_opened,
            circuit,
            in_flight: self.line.in_use(),
            waiting: self.line.waiting() + self.background.waiting(),
        }
    }

    async fn ask(&self, mut request: OriginRequest) -> Result<OriginReply, OriginError> {
        let arrived = Instant::now();
        // Before the queue, so that an open circuit empties it, and again after: it may have opened.
        if let Some(away) = self.breaker().refuses(arrived.into_std()) {
            return Err(self.circuit_open(away));
        }
        let _slot = self.turn(request.deadline, &request.urgency).await?;
        let now = Instant::now();
        request.deadline = request.deadline.saturating_sub(now.duration_since(arrived));
        let admitted = self.breaker().admit(now.into_std());
        let ticket = admitted.map_err(|away| self.circuit_open(away))?;
        let mut outcome = Outcome {
            breaker: &self.breaker,
            ticket,
            health: Health::Unknown,
        };
        let deadline = request.deadline;
        // The origin keeps its deadline; one that does not must not keep its slot.
        let result = timeout(deadline, self.inner.fetch(request))
            .await
            .unwrap_or_else(|_| {
                let detail = format!("no answer in {deadline:?}");
                Err(OriginError::new(OriginErrorKind::Deadline, detail))
            });
        outcome.health = health(&result);
        self.learn(now.elapsed());
        result
    }

    /// Waits for a slot, if that can be in time.
    async fn turn(&self, deadline: Duration, urgency: &Urgency) -> Result<Slot<'_>, OriginError> {
        let arrived = Instant::now();
        let of_lane = match urgency.lane() {
            Lane::Interactive => None,
            Lane::Background => tokio::select! {
                place = self.wait(&self.background, deadline) => Some(place?),
                // Somebody looks at a map and wants it: it waits among theirs.
                () = urgency.raised() => None,
            },
            // Those who joined it meanwhile ask again.
            Lane::Speculative => {
                return self
                    .spare_slot()
                    .ok_or_else(|| held_back("no room for a guess".into(), Duration::ZERO));
            }
        };
        let left = deadline.saturating_sub(arrived.elapsed());
        let of_all = self.wait(&self.line, left).await?;
        Ok(Slot { of_all, of_lane })
    }

    /// A slot for a guess: while nobody waits, and so that people who come find some. It does not wait itself,
    /// as somebody would then wait behind it.
    fn spare_slot(&self) -> Option<Slot<'_>> {
        if !self.has_spare_slot() {
            return None;
        }
        let of_lane = Some(self.speculative.at_once()?);
        let of_all = self.line.at_once()?;
        Some(Slot { of_all, of_lane })
    }

    fn has_spare_slot(&self) -> bool {
        self.line.waiting() == 0
            && self.line.free() > self.line.at_most() / LEFT_FREE
            && self.speculative.free() > 0
    }

    /// Waits in a line.
    async fn wait<'a>(
        &'a self,
        line: &'a Line,
        deadline: Duration,
    ) -> Result<SemaphorePermit<'a>, OriginError> {
        let place = line.place(deadline, self.service()).await;
        place.map_err(|refused| self.refused(refused, deadline))
    }

    /// How long a slot is held lately.
    fn service(&self) -> Duration {
        Duration::from_micros(self.service_micros.load(Ordering::Relaxed))
    }

    fn refused(&self, refused: Refused, deadline: Duration) -> OriginError {
        let (counter, detail, expected) = match refused {
            Refused::Full { ahead, expected } => {
                let detail = format!("{ahead} requests are waiting already");
                (&self.counters.queue_full, detail, expected)
            }
            Refused::TooLate { expected } => {
                let detail = format!("its turn would come in {expected:?}, after its deadline");
                (&self.counters.no_time, detail, expected)
            }
            Refused::NotInTime { expected } => {
                let detail = format!("its turn did not come in {deadline:?}");
                (&self.counters.no_time, detail, expected)
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        held_back(detail, expected)
    }

    /// What [`Limited::ask`] would say at once, without a place taken.
    fn refuses_now(&self, lane: Lane, begun: usize, deadline: Duration) -> Option<OriginError> {
        if let Some(away) = self.breaker().refuses(Instant::now().into_std()) {
            return Some(self.circuit_open(away));
        }
        let refuses = |line: &Line, begun| line.refuses(begun, deadline, self.service());
        let refused = match lane {
            Lane::Interactive => refuses(&self.line, begun),
            Lane::Background => refuses(&self.background, begun).or_else(|| refuses(&self.line, 0)),
            // A guess is refused by what it finds when it is its turn.
            Lane::Speculative => None,
        };
        Some(self.refused(refused?, deadline))
    }

    fn learn(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX) / 8;
        let _ = self
            .service_micros
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |average| {
                Some((average - average / 8).saturating_add(took))
            });
    }

    fn circuit_open(&self, away: Duration) -> OriginError {
        self.counters.circuit_open.fetch_add(1, Ordering::Relaxed);
        held_back("the circuit is open after failures in a row".into(), away)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        lock(&self.breaker)
    }
}

impl<O: Origin> Origin for Limited<O> {
    fn has_room_for_guess(&self) -> bool {
        self.has_spare_slot()
    }

    fn fetch(&self, request: OriginRequest) -> OriginFuture<'_> {
        Box::pin(async move {
            let mut end = End {
                counters: &self.counters,
                counted: false,
            };
            let result = self.ask(request).await;
            end.count(&result);
            result
        })
    }

    fn refuses(&self, lane: Lane, begun: usize, deadline: Duration) -> Option<OriginError> {
        let error = self.refuses_now(lane, begun, deadline)?;
        self.counters.errors[error.kind.index()].fetch_add(1, Ordering::Relaxed);
        Some(error)
    }
}

/// What an outcome says about the origin.
fn health(result: &Result<OriginReply, OriginError>) -> Health {
    use OriginErrorKind::{Deadline, Denied, HeldBack, Server, Throttled, Truncated, Unreachable};
    match result {
        Ok(_) => Health::Well,
        Err(error) if error.scope == ErrorScope::Object => Health::Well,
        Err(error) => match error.kind {
            Denied => Health::Well,
            Unreachable | Deadline | Server => Health::Sick,
            Throttled | Truncated | HeldBack => Health::Unknown,
        },
    }
}

fn held_back(detail: String, retry_after: Duration) -> OriginError {
    // A client cannot come back sooner than in a second: `Retry-After` counts seconds.
    let retry_after = retry_after.max(Duration::from_secs(1));
    OriginError::new(OriginErrorKind::HeldBack, detail).with_retry_after(Some(retry_after))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The breaker's steps cannot be left half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a request holds while the origin is asked.
struct Slot<'a> {
    #[expect(dead_code, reason = "held, and given back")]
    of_all: SemaphorePermit<'a>,
    #[expect(dead_code, reason = "held, and given back")]
    of_lane: Option<SemaphorePermit<'a>>,
}

/// Tells the breaker, also when the request is dropped.
struct Outcome<'a> {
    breaker: &'a Mutex<Breaker>,
    ticket: Ticket,
    health: Health,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        let now = Instant::now().into_std();
        lock(self.breaker).record(now, self.ticket, self.health);
    }
}

/// Counts each request once, also when it is dropped.
struct End<'a> {
    counters: &'a Counters,
    counted: bool,
}

impl End<'_> {
    fn count(&mut self, result: &Result<OriginReply, OriginError>) {
        self.counted = true;
        let counter = match result {
            Ok(OriginReply::Found(tile)) => {
                let bytes = tile.body.len() as u64;
                self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
                &self.counters.found
            }
            Ok(OriginReply::NotModified) => &self.counters.not_modified,
            Ok(OriginReply::NotFound) => &self.counters.not_found,
            Err(error) => &self.counters.errors[error.kind.index()],
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        if !self.counted {
            self.counters.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
