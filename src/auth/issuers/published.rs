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
                return Ok(value);
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
