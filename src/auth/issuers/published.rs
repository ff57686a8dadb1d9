//! A document that an identity provider publishes: fetched when needed, kept, fetched again.
//!
//! Invariant: however many requests ask, one fetch runs at a time, and two begin [`PAUSE`] apart at
//! least, so nobody makes this server flood somebody else's. A copy that cannot be renewed is
//! believed for [`LAST_RESORT`] and no longer: an outage at the provider locks nobody out, and a key
//! that was withdrawn does not live for ever.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::label_enum;

/// How long a copy is used where its answer does not say.
const DEFAULT_LIFE: Duration = Duration::from_hours(1);
/// The shortest, whatever the answer says.
const MIN_LIFE: Duration = Duration::from_mins(5);
/// The longest that a copy is used after it was fetched.
const LAST_RESORT: Duration = Duration::from_hours(24);
/// Between one fetch and the next.
const PAUSE: Duration = Duration::from_secs(30);
/// The same while there is no copy at all, and people wait.
const PAUSE_WITHOUT: Duration = Duration::from_secs(5);

label_enum! {
    /// Why a fetch failed.
    pub enum FetchErrorKind {
        /// No connection, or none that can be trusted.
        Unreachable = "unreachable",
        /// No answer in time.
        Deadline = "deadline",
        /// An answer that is not the document.
        Refused = "refused",
        /// An answer of a size that no such document has.
        TooLarge = "too_large",
    }
}

/// Why a fetch failed, with words for the log: neither a secret nor anybody's token is among them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", crate::metrics::Label::label(*kind))]
pub struct FetchError {
    /// How.
    pub kind: FetchErrorKind,
    /// What was seen.
    pub detail: String,
}

/// A document.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Its bytes, bounded.
    pub body: Bytes,
    /// How long it may be kept, where its answer says so.
    pub max_age: Option<Duration>,
}

/// An answer to come.
pub type Fetching<T> = Pin<Box<dyn Future<Output = Result<T, FetchError>> + Send>>;

/// The way to identity providers. Every answer is bounded in size and time, and no redirect is followed.
pub trait Fetch: Send + Sync + 'static {
    /// Gets a document.
    fn get(&self, url: &str) -> Fetching<Fetched>;

    /// Sends what `oauth2` has made, in its own types, and gives it what comes, whatever its status.
    fn send(&self, request: oauth2::HttpRequest) -> Fetching<oauth2::HttpResponse>;
}

/// There is no copy that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::auth) struct Unavailable {
    /// When there may be one.
    pub(in crate::auth) retry_after: Duration,
}

type Read<T> = Box<dyn Fn(&[u8]) -> Option<T> + Send + Sync>;

/// A document and the copy of it that is at hand.
pub(in crate::auth) struct Published<T> {
    /// What it is, for the log.
    what: &'static str,
    url: String,
    fetch: Arc<dyn Fetch>,
    read: Read<T>,
    state: Mutex<State<T>>,
    /// Held by the one fetch.
    turn: tokio::sync::Mutex<()>,
}

struct State<T> {
    copy: Option<Held<T>>,
    /// When the last fetch ended, well or not.
    tried: Option<Timestamp>,
}

struct Held<T> {
    value: Arc<T>,
    fetched: Timestamp,
    life: Duration,
}

impl<T: Send + Sync + 'static> Published<T> {
    pub(in crate::auth) fn new(
        what: &'static str,
        url: String,
        fetch: &Arc<dyn Fetch>,
        read: Read<T>,
    ) -> Self {
        Self {
            what,
            url,
            fetch: Arc::clone(fetch),
            read,
            state: Mutex::new(State {
                copy: None,
                tried: None,
            }),
            turn: tokio::sync::Mutex::default(),
        }
    }

    pub(in crate::auth) fn url(&self) -> &str {
        &self.url
    }

    /// The copy, renewed behind when it gets old and in front when it is.
    pub(in crate::auth) async fn get(
        self: &Arc<Self>,
        now: Timestamp,
    ) -> Result<Arc<T>, Unavailable> {
        let at_hand = self.state().copy.as_ref().map(|copy| {
            let age = now.since(copy.fetched);
            (Arc::clone(&copy.value), age, copy.life)
        });
        match at_hand {
            Some((value, age, life)) if age < life => {
                if age >= life / 4 * 3 && self.may_fetch(now) {
                    tokio::spawn(Arc::clone(self).renew(now));
                }
                Ok(value)
            }
            _ => self.newer(now).await,
        }
    }

    /// The newest copy that can be had now: for who found that the one at hand lacks something.
    pub(in crate::auth) async fn newer(
        self: &Arc<Self>,
        now: Timestamp,
    ) -> Result<Arc<T>, Unavailable> {
        // A task of its own: a client that hangs up must not make the next one fetch again.
        if let Err(failed) = tokio::spawn(Arc::clone(self).renew(now)).await
            && let Ok(panic) = failed.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
        let state = self.state();
        let usable = state
            .copy
            .as_ref()
            .filter(|copy| now.since(copy.fetched) < LAST_RESORT);
        match usable {
            Some(copy) => Ok(Arc::clone(&copy.value)),
            None => Err(Unavailable {
                retry_after: PAUSE_WITHOUT,
            }),
        }
    }

    /// Fetches, unless that was just done: also by whoever held the turn before.
    async fn renew(self: Arc<Self>, now: Timestamp) {
        let _turn = self.turn.lock().await;
        if !self.may_fetch(now) {
            return;
        }
        let fetched = self.fetch.get(&self.url).await;
        let read = fetched.map(|Fetched { body, max_age }| ((self.read)(&body), max_age));
        let (what, url) = (self.what, &self.url);
        let mut state = self.state();
        state.tried = Some(now);
        let reason = match read {
            Ok((Some(value), max_age)) => {
                tracing::debug!(what, url, "fetched");
                state.copy = Some(Held {
                    value: Arc::new(value),
                    fetched: now,
                    life: max_age.unwrap_or(DEFAULT_LIFE).clamp(MIN_LIFE, LAST_RESORT),
                });
                return;
            }
            Ok((None, _)) => "it is not what was expected there".to_owned(),
            Err(error) => error.to_string(),
        };
        let still_used = state
            .copy
            .as_ref()
            .is_some_and(|copy| now.since(copy.fetched) < LAST_RESORT);
        drop(state);
        tracing::warn!(
            what,
            url,
            reason,
            still_used,
            "what an identity provider publishes could not be fetched"
        );
    }

    fn may_fetch(&self, now: Timestamp) -> bool {
        let state = self.state();
        let pause = match &state.copy {
            Some(_) => PAUSE,
            None => PAUSE_WITHOUT,
        };
        // A clock that was set back is no reason to wait for it.
        state
            .tried
            .is_none_or(|tried| tried > now + PAUSE || now.since(tried) >= pause)
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Publishes the number of the fetch, or nothing; each fetch waits for a permit.
    struct Counter {
        fetches: AtomicUsize,
        works: std::sync::atomic::AtomicBool,
        max_age: Option<Duration>,
        gate: Arc<Semaphore>,
    }

    struct Way(Arc<Counter>);

    impl Fetch for Way {
        fn get(&self, _: &str) -> Fetching<Fetched> {
            let counter = Arc::clone(&self.0);
            Box::pin(async move {
                let number = counter.fetches.fetch_add(1, Ordering::SeqCst) + 1;
                counter.gate.acquire().await.unwrap().forget();
                if !counter.works.load(Ordering::SeqCst) {
                    return Err(FetchError {
                        kind: FetchErrorKind::Refused,
                        detail: String::new(),
                    });
                }
                Ok(Fetched {
                    body: Bytes::from(number.to_string()),
                    max_age: counter.max_age,
                })
            })
        }

        fn send(&self, _: oauth2::HttpRequest) -> Fetching<oauth2::HttpResponse> {
            unreachable!("nothing is sent")
        }
    }

    fn published(max_age: Option<u64>, permits: usize) -> (Arc<Published<usize>>, Arc<Counter>) {
        let counter = Arc::new(Counter {
            fetches: AtomicUsize::new(0),
            works: true.into(),
            max_age: max_age.map(Duration::from_secs),
            gate: Arc::new(Semaphore::new(permits)),
        });
        let fetch: Arc<dyn Fetch> = Arc::new(Way(Arc::clone(&counter)));
        let read = Box::new(|bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse().ok());
        let published = Published::new("number", "u".to_owned(), &fetch, read);
        (Arc::new(published), counter)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + seconds)
    }

    #[tokio::test]
    async fn a_copy_is_renewed_behind_before_it_runs_out() {
        let (published, counter) = published(None, 9);
        assert_eq!(*published.get(at(0)).await.unwrap(), 1);
        assert_eq!(*published.get(at(2_699)).await.unwrap(), 1);
        assert_eq!(counter.fetches.load(Ordering::SeqCst), 1);
        assert_eq!(
            *published.get(at(2_700)).await.unwrap(),
            1,
            "not waited for"
        );
        while published.state().tried != Some(at(2_700)) {
            tokio::task::yield_now().await;
        }
        assert_eq!(*published.get(at(3_700)).await.unwrap(), 2);
        assert_eq!(counter.fetches.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_copy_lives_as_long_as_it_says_within_reason() {
        for (says, lives) in [(0, 300), (7_200, 7_200), (u64::MAX / 2, 86_400)] {
            let (published, _) = published(Some(says), 9);
            published.get(at(0)).await.unwrap();
            let life = published.state().copy.as_ref().unwrap().life;
            assert_eq!(life.as_secs(), lives);
        }
    }

    #[tokio::test]
    async fn many_who_ask_at_once_share_one_fetch_though_the_first_hangs_up() {
        let (published, counter) = published(None, 0);
        let mut asking = Vec::new();
        for _ in 0..20 {
            let published = Arc::clone(&published);
            asking.push(tokio::spawn(async move { published.get(at(0)).await }));
        }
        while counter.fetches.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        for impatient in asking.drain(..10) {
            impatient.abort();
        }
        counter.gate.add_permits(9);
        for patient in asking {
            assert_eq!(*patient.await.unwrap().unwrap(), 1);
        }
        assert_eq!(counter.fetches.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_copy_that_cannot_be_renewed_serves_for_a_day_and_no_longer() {
        let (published, counter) = published(None, 99);
        published.get(at(0)).await.unwrap();
        counter.works.store(false, Ordering::SeqCst);
        for seconds in [3_600, 3_629, 3_630, 86_399] {
            assert_eq!(*published.get(at(seconds)).await.unwrap(), 1);
        }
        // At 3600 and 3630 and 86399, not in between.
        assert_eq!(counter.fetches.load(Ordering::SeqCst), 4);
        assert!(published.get(at(86_400)).await.is_err());
        counter.works.store(true, Ordering::SeqCst);
        assert!(published.get(at(86_429)).await.is_ok());
        // A clock that is set back does not stop the fetches.
        let newer = published.newer(at(0)).await.unwrap();
        assert_eq!(*newer, 6);
    }
}
