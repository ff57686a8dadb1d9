//! Keys that are kept fresh: one task an identity asks for them, everybody else reads what it holds.
//!
//! Invariant: a request never waits for a source, except for the very first answer. With the source
//! dead, slow or refusing, the held keys sign until their own end, and from then on requests fail at
//! once; the task goes on asking (`plan`), so it recovers by itself. Keys past their end are never
//! handed out.
//! Left out on purpose: how a source is asked (`source`), what S3 thinks of the keys (`refusal`).
//!
//! The seams of the SDK: a provider that answers from memory, for whoever asks STS, and for clients of S3 an
//! identity cache that answers with the same keys in the SDK's own wrapping, made once. It knows nothing of the
//! SDK's partitions, so a client has one for its own keeper alone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_smithy_runtime_api::client::identity::{
    Identity, IdentityFuture, ResolveCachedIdentity, SharedIdentityResolver,
};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::plan::{Action, Facts, Lease, Timing, plan};
use super::source::{Brought, Source, Trouble};
use crate::clock::{Clock, Timestamp};
use crate::metrics::{CredentialOutcome, Label as _};

/// What the task has come to, as everybody reads it.
#[derive(Debug, Clone, Default)]
struct Cell {
    /// Whether the first attempt has ended.
    asked: bool,
    held: Option<Held>,
    /// What the last attempt said, if it failed.
    trouble: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
struct Held {
    credentials: Credentials,
    /// The same, as the SDK's signer takes them.
    identity: Identity,
    lease: Lease,
}

/// A handle on an identity's keys. When the last one goes, the task ends.
#[derive(Clone)]
pub(super) struct Kept {
    shared: Arc<Shared>,
    cell: watch::Receiver<Cell>,
}

struct Shared {
    name: String,
    timing: Timing,
    clock: Clock,
    refused: AtomicBool,
    wake: Notify,
    outcomes: [AtomicU64; CredentialOutcome::ALL.len()],
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("identity", &self.shared.name)
            .finish_non_exhaustive()
    }
}

/// Why there are no keys to sign with.
#[derive(Debug, Clone, thiserror::Error)]
#[error("AWS credentials `{identity}`: {why}")]
pub(super) struct NoKeys {
    identity: String,
    why: String,
}

impl Kept {
    /// Keys that never change, and no task.
    pub(super) fn fixed(name: &str, credentials: Credentials, clock: Clock) -> Self {
        let now = clock.now();
        let held = Held::new(credentials, now);
        let (_, cell) = watch::channel(Cell {
            asked: true,
            held: Some(held),
            trouble: None,
        });
        Self {
            shared: Arc::new(Shared::new(name, Timing::default(), clock)),
            cell,
        }
    }

    /// Keys from a source, asked for from now on by a task of their own.
    pub(super) fn start(name: &str, source: Source, timing: Timing, clock: Clock) -> Self {
        let shared = Arc::new(Shared::new(name, timing, clock));
        let (publish, cell) = watch::channel(Cell::default());
        let task = Task {
            shared: shared.clone(),
            source,
            publish,
            facts: Facts::default(),
        };
        tokio::spawn(task.run());
        Self { shared, cell }
    }

    /// Its name in metrics and in the log.
    pub(super) fn name(&self) -> &str {
        &self.shared.name
    }

    /// The keys, at once; only the very first answer is waited for.
    pub(super) async fn keys(&self) -> Result<Credentials, NoKeys> {
        self.answered().await;
        self.held(|held| held.credentials.clone())
    }

    async fn answered(&self) {
        if !self.cell.borrow().asked {
            self.first_answer().await;
        }
    }

    /// Something of the keys that are held, if they are good.
    fn held<T>(&self, part: impl FnOnce(&Held) -> T) -> Result<T, NoKeys> {
        let cell = self.cell.borrow();
        let now = self.shared.clock.now();
        match &cell.held {
            Some(held) if held.lease.is_good(&self.shared.timing, now) => Ok(part(held)),
            held => Err(self.no_keys(held.as_ref(), cell.trouble.as_deref(), now)),
        }
    }

    /// The keys and their end, if there are good ones; only the very first answer is waited for.
    pub(super) async fn with_end(
        &self,
        now: Timestamp,
    ) -> Option<(Credentials, Option<Timestamp>)> {
        self.answered().await;
        let cell = self.cell.borrow();
        let held = cell.held.as_ref();
        let held = held.filter(|held| held.lease.is_good(&self.shared.timing, now))?;
        Some((held.credentials.clone(), held.lease.expires))
    }

    /// Waits for the end of the first attempt, which its own deadline bounds.
    pub(super) async fn first_answer(&self) {
        let mut cell = self.cell.clone();
        // A task that is gone answers nothing more.
        let _ = cell.wait_for(|cell| cell.asked).await;
    }

    /// S3 has refused these keys: the task looks for others, once.
    pub(super) fn refused(&self) {
        if !self.shared.refused.swap(true, Ordering::AcqRel) {
            self.shared.wake.notify_one();
        }
    }

    /// How long the keys are good for: `None` without any, and infinity where they have no end.
    pub(super) fn status(&self) -> KeyStatus {
        let now = self.shared.clock.now();
        let cell = self.cell.borrow();
        match &cell.held {
            None => KeyStatus::Never,
            Some(held) if !held.lease.is_good(&self.shared.timing, now) => KeyStatus::Expired,
            Some(held) => match held.lease.expires {
                Some(end) => KeyStatus::Until(end.since(now)),
                None => KeyStatus::Endless,
            },
        }
    }

    /// How often attempts ended this way.
    pub(super) fn count(&self, outcome: CredentialOutcome) -> u64 {
        self.shared.outcomes[outcome.index()].load(Ordering::Relaxed)
    }

    fn no_keys(&self, held: Option<&Held>, trouble: Option<&str>, now: Timestamp) -> NoKeys {
        let state = match held.and_then(|held| held.lease.expires) {
            Some(end) => format!("they ended {:?} ago", whole_seconds(now.since(end))),
            None => "there are none".to_owned(),
        };
        let trouble = trouble.unwrap_or("their source has not answered yet");
        NoKeys {
            identity: self.shared.name.clone(),
            why: format!("{state}: {trouble}"),
        }
    }
}

/// What an identity's keys are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStatus {
    /// There have never been any.
    Never,
    /// There were some, and their time is over.
    Expired,
    /// They are good for this long.
    Until(Duration),
    /// They have no end.
    Endless,
}

impl KeyStatus {
    /// Whether requests can be signed.
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Until(_) | Self::Endless)
    }

    /// For how many seconds: infinity without an end, 0 without keys.
    pub const fn seconds(self) -> f64 {
        match self {
            Self::Never | Self::Expired => 0.0,
            Self::Until(left) => left.as_secs_f64(),
            Self::Endless => f64::INFINITY,
        }
    }
}

impl ProvideCredentials for Kept {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let keys = async { self.keys().await.map_err(CredentialsError::provider_error) };
        future::ProvideCredentials::new(keys)
    }
}

impl ResolveCachedIdentity for Kept {
    fn resolve_cached_identity<'a>(
        &'a self,
        _: SharedIdentityResolver,
        _: &'a RuntimeComponents,
        _: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        IdentityFuture::new(async {
            self.answered().await;
            let held = self.held(|held| held.identity.clone());
            Ok(held.map_err(CredentialsError::provider_error)?)
        })
    }
}

impl Shared {
    fn new(name: &str, timing: Timing, clock: Clock) -> Self {
        Self {
            name: name.to_owned(),
            timing,
            clock,
            refused: AtomicBool::new(false),
            wake: Notify::new(),
            outcomes: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Held {
    fn new(credentials: Credentials, obtained: Timestamp) -> Self {
        let expires = credentials.expiry().map(timestamp);
        // The key id differs from node to node, and stays for as long as the keys do.
        let jitter = credentials
            .access_key_id()
            .bytes()
            .fold(0_u8, |sum, b| sum.wrapping_mul(31).wrapping_add(b));
        Self {
            lease: Lease {
                obtained,
                expires,
                jitter,
            },
            identity: credentials.clone().into(),
            credentials,
        }
    }

    fn is_the_same(&self, other: &Credentials) -> bool {
        self.credentials.access_key_id() == other.access_key_id()
            && self.credentials.secret_access_key() == other.secret_access_key()
            && self.credentials.session_token() == other.session_token()
            && self.credentials.expiry() == other.expiry()
    }
}

/// The one that asks.
struct Task {
    shared: Arc<Shared>,
    source: Source,
    publish: watch::Sender<Cell>,
    facts: Facts,
}

impl Task {
    /// Until nobody holds a handle any more.
    async fn run(mut self) {
        // What signs for this identity, if that is kept too: its news end a pause.
        let mut base = self.source.base().map(|base| base.cell.clone());
        loop {
            let now = self.shared.clock.now();
            self.facts.refused |= self.shared.refused.load(Ordering::Acquire);
            let wait = match plan(&self.facts, &self.shared.timing, now) {
                Action::Refresh => {
                    if let Some(base) = &mut base {
                        base.mark_unchanged();
                    }
                    self.attempt().await;
                    continue;
                }
                Action::Keep { until: at } | Action::Retry { at } => at.since(now),
            };
            tokio::select! {
                () = sleep(wait.min(self.shared.timing.tick)) => {}
                () = self.shared.wake.notified() => {}
                () = self.publish.closed() => return,
                () = news(&mut base) => self.heard_of_base(),
            }
        }
    }

    /// New keys to ask with: what failed before may succeed now.
    fn heard_of_base(&mut self) {
        if self.facts.failures > 0 {
            self.facts.failures = 0;
            self.facts.asked = None;
        }
    }

    async fn attempt(&mut self) {
        let deadline = self.shared.timing.attempt;
        let answer = timeout(deadline, self.source.ask())
            .await
            .unwrap_or_else(|_| Err(self.source.cut_off(deadline)));
        let now = self.shared.clock.now();
        let was_refused = self.shared.refused.swap(false, Ordering::AcqRel) || self.facts.refused;
        self.facts.asked = Some(now);
        self.facts.refused = false;
        let outcome = match answer.and_then(|brought| self.accept(brought, now)) {
            Ok(outcome) => {
                self.facts.failures = 0;
                outcome
            }
            Err(trouble) => {
                self.facts.failures = self.facts.failures.saturating_add(1);
                // Still wanted: S3 does not take what is held.
                self.facts.refused = was_refused;
                if trouble.base_refused
                    && let Some(base) = self.source.base()
                {
                    base.refused();
                }
                let outcome = trouble.outcome;
                self.report(trouble, now);
                outcome
            }
        };
        self.shared.outcomes[outcome.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Takes what a source brought, if it is any good.
    fn accept(&mut self, brought: Brought, now: Timestamp) -> Result<CredentialOutcome, Trouble> {
        let held = Held::new(brought.credentials, now);
        if !held.lease.is_good(&self.shared.timing, now) {
            return Err(Trouble {
                outcome: CredentialOutcome::Unavailable,
                said: format!(
                    "{}: it hands out keys whose time is over; is this machine's clock right?",
                    brought.from
                ),
                base_refused: false,
            });
        }
        let name = self.shared.name.as_str();
        let same = |cell: &Cell| {
            let old = cell.held.as_ref();
            old.is_some_and(|old| old.is_the_same(&held.credentials))
        };
        if same(&self.publish.borrow()) {
            tracing::debug!(
                identity = name,
                "AWS credentials: there are no newer ones yet"
            );
            self.publish.send_if_modified(|cell| {
                cell.trouble = None;
                false
            });
            return Ok(CredentialOutcome::Unchanged);
        }
        let id = held.credentials.access_key_id();
        // Its end tells an operator which keys these are, and nobody else anything.
        let id = id.get(id.len().saturating_sub(4)..).unwrap_or_default();
        let failures = self.facts.failures;
        let until = held.lease.expires.map_or_else(
            || "no end".to_owned(),
            |end| humantime::format_rfc3339_seconds(end.to_system_time()).to_string(),
        );
        tracing::info!(
            identity = name,
            from = brought.from,
            key = format_args!("…{id}"),
            until,
            after_failures = failures,
            "AWS credentials are here"
        );
        self.facts.held = Some(held.lease);
        self.publish.send_replace(Cell {
            asked: true,
            held: Some(held),
            trouble: None,
        });
        Ok(CredentialOutcome::Refreshed)
    }

    /// Says what went wrong, and how much time is left.
    fn report(&self, trouble: Trouble, now: Timestamp) {
        let identity = self.shared.name.as_str();
        let (outcome, said) = (trouble.outcome.label(), trouble.said);
        let good = |lease: &Lease| lease.is_good(&self.shared.timing, now);
        match self.facts.held.filter(good) {
            Some(Lease {
                expires: Some(end), ..
            }) => tracing::warn!(
                identity,
                outcome,
                left = ?whole_seconds(end.since(now)),
                "AWS credentials could not be refreshed, the held ones go on: {said}"
            ),
            Some(_) => tracing::warn!(
                identity,
                outcome,
                "AWS credentials could not be looked up again, the held ones go on: {said}"
            ),
            None => tracing::warn!(
                identity,
                outcome,
                "no AWS credentials: only what is cached can be answered; `tilekeep doctor` says what to do: {said}"
            ),
        }
        // Who waits for the first answer has it now; nobody else needs to wake.
        self.publish.send_if_modified(|cell| {
            cell.trouble = Some(said.into());
            !std::mem::replace(&mut cell.asked, true)
        });
    }
}

/// Waits for other keys of the base; for ever without a base, or when it is gone.
async fn news(base: &mut Option<watch::Receiver<Cell>>) {
    if let Some(cell) = base {
        while cell.changed().await.is_ok() {
            if cell.borrow_and_update().held.is_some() {
                return;
            }
        }
    }
    std::future::pending::<()>().await;
}

pub(super) fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    Timestamp::from_millis(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}
