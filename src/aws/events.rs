//! S3's events, through SQS: what was changed or removed is dropped from the caches within seconds.
//!
//! Invariant: a message leaves the queue after what it is about is dropped, never before. So what is lost on the way
//! comes again, and what comes twice drops twice, which does no harm; nor does the order. A message that is no event
//! of S3 leaves the queue too: it would come for ever. Nothing that is served waits for any of this.
//! Left out on purpose: what an object is to the caches; that is [`Changes`]'s.

mod message;
mod queue;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, Message};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::message::{Notice, ObjectEvent, read};
pub use self::queue::QueueUrl;
use super::{Aws, AwsError, Kept, printable, said};
use crate::clock::{Clock, Timestamp};
use crate::metrics::{EventOutcome, Metrics};
use crate::shutdown::Shutdown;
use crate::tile::ChangedObject;

/// How long SQS holds a question open: as long as it can.
const LONG_POLL: Duration = Duration::from_secs(20);
/// And how long an answer may take beyond that.
const DEADLINE: Duration = Duration::from_secs(10);
/// Messages in one answer: as many as SQS gives.
const BATCH: i32 = 10;
/// How long nobody else gets them: they are gone from the queue in a second or two.
const HIDDEN: i32 = 30;
/// Questions at once, while there is more than an answer holds.
const AT_ONCE: usize = 8;
/// Messages that are handled in one go, about; and for how long they are collected, and how many bytes of them.
const GO: usize = 1_000;
const GATHER: Duration = Duration::from_secs(1);
const GO_BYTES: usize = 4 << 20;
/// Objects in one purge.
const OBJECTS: usize = 5_000;
/// Pauses after what failed.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// An empty answer that comes sooner is from a server that does not wait.
const AT_LEAST: Duration = Duration::from_secs(1);

/// What becomes of changed objects.
pub trait Changes: Send + Sync + 'static {
    /// Drops whatever was made of these, here and on other nodes, and says of each what became of it:
    /// [`EventOutcome::Purged`], [`EventOutcome::NoTile`] or [`EventOutcome::NotShared`].
    fn changed(
        &self,
        objects: Vec<ChangedObject>,
    ) -> Pin<Box<dyn Future<Output = Vec<EventOutcome>> + Send + '_>>;
}

/// Whether events come, for readiness. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Flow(Arc<Mutex<State>>);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Whether the last question was answered; `None` before the first.
    read: Option<bool>,
    /// Whether messages could not be removed the last time.
    stuck: bool,
}

/// What became of a call that may take so long.
type InTime<T, E> = Result<Result<T, E>, tokio::time::error::Elapsed>;

impl Flow {
    /// The word for it.
    pub fn label(&self) -> &'static str {
        match self.state() {
            State { read: None, .. } => "starting",
            State {
                read: Some(true),
                stuck: false,
            } => "receiving",
            _ => "failing",
        }
    }

    /// Whether changes are not heard of.
    pub fn is_failing(&self) -> bool {
        let State { read, stuck } = self.state();
        read == Some(false) || stuck
    }

    fn state(&self) -> State {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets it, and gives what it was.
    fn set(&self, set: impl FnOnce(&mut State)) -> State {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *state;
        set(&mut state);
        before
    }
}

/// Why a question to SQS was not answered.
struct Trouble {
    said: String,
    hint: &'static str,
}

/// What reads a queue.
pub struct Events {
    client: aws_sdk_sqs::Client,
    keys: Kept,
    queue: QueueUrl,
    flow: Flow,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Whether a message was malformed: that is said once.
    told: bool,
}

impl Events {
    /// Over a queue; nothing is asked before [`Events::run`].
    pub fn new(
        aws: &Aws,
        queue: QueueUrl,
        endpoint: Option<&str>,
        (clock, metrics): (Clock, Arc<Metrics>),
    ) -> Result<Self, AwsError> {
        let (client, keys) = aws.queue_client(&queue, endpoint)?;
        Ok(Self {
            client,
            keys,
            queue,
            flow: Flow::default(),
            clock,
            metrics,
            told: false,
        })
    }

    /// Whether events come.
    pub fn flow(&self) -> Flow {
        self.flow.clone()
    }

    /// Reads until the end is asked for.
    pub async fn run(mut self, changes: Arc<dyn Changes>, mut shutdown: Shutdown) {
        tokio::select! {
            () = shutdown.asked() => {}
            () = self.keep_up(&*changes) => {}
        }
    }

    async fn keep_up(&mut self, changes: &dyn Changes) {
        let mut pause = FIRST_PAUSE;
        // The first question is not held open: whether it is answered at all is soon known.
        let mut wait = Duration::ZERO;
        loop {
            let asked = Instant::now();
            let went_well = match self.receive(wait).await {
                Ok(messages) if messages.is_empty() => {
                    self.reads();
                    sleep(AT_LEAST.saturating_sub(asked.elapsed())).await;
                    true
                }
                Ok(messages) => {
                    self.reads();
                    let messages = self.gather(messages).await;
                    self.handle(messages, changes).await
                }
                Err(trouble) => {
                    self.fails(&trouble);
                    false
                }
            };
            if went_well {
                (pause, wait) = (FIRST_PAUSE, LONG_POLL);
            } else {
                sleep(pause).await;
                (pause, wait) = ((pause * 2).min(LONGEST_PAUSE), Duration::ZERO);
            }
        }
    }

    async fn receive(&self, wait: Duration) -> Result<Vec<Message>, Trouble> {
        let question = receive(&self.client, &self.queue, wait);
        let answer = timeout(wait + DEADLINE, question).await;
        match answer {
            Ok(Ok(messages)) => Ok(messages),
            Ok(Err(error)) => Err(self.trouble("ReceiveMessage", &error)),
            Err(_) => Err(silent("ReceiveMessage")),
        }
    }

    /// Where there is more than an answer holds, more at once: a bucket that is published anew has a million events.
    async fn gather(&self, mut messages: Vec<Message>) -> Vec<Message> {
        let until = Instant::now() + GATHER;
        let full = usize::try_from(BATCH).unwrap_or(1);
        let mut last = messages.len();
        while last >= full
            && messages.len() < GO
            && bytes(&messages) < GO_BYTES
            && Instant::now() < until
        {
            let mut questions = JoinSet::new();
            for _ in 0..AT_ONCE {
                let (client, queue) = (self.client.clone(), self.queue.clone());
                questions.spawn(timeout(DEADLINE, async move {
                    receive(&client, &queue, Duration::ZERO).await
                }));
            }
            last = 0;
            while let Some(answer) = questions.join_next().await {
                // What fails here fails again when it is asked for by itself, and is told then.
                let Ok(Ok(Ok(more))) = answer else { continue };
                last += more.len();
                messages.extend(more);
            }
        }
        messages
    }

    /// Drops what messages are about, and removes them. Whether all of that could be done.
    async fn handle(&mut self, messages: Vec<Message>, changes: &dyn Changes) -> bool {
        let mut about: Vec<Vec<ChangedObject>> = Vec::with_capacity(messages.len());
        let mut outcomes: HashMap<ChangedObject, EventOutcome> = HashMap::new();
        let mut newest: Option<Timestamp> = None;
        for message in &messages {
            let events = self.events(message);
            newest = newest.max(events.iter().filter_map(|event| event.at).max());
            let objects = events.into_iter().map(|event| event.object);
            let objects: Vec<_> = objects.collect();
            let new = objects.iter().cloned();
            outcomes.extend(new.map(|object| (object, EventOutcome::NoTile)));
            about.push(objects);
        }
        let objects: Vec<_> = outcomes.keys().cloned().collect();
        for some in objects.chunks(OBJECTS) {
            let said = changes.changed(some.to_vec()).await;
            outcomes.extend(some.iter().cloned().zip(said));
        }
        let outcome_of = |object: &ChangedObject| outcomes.get(object).copied();
        for outcome in about.iter().flatten().filter_map(outcome_of) {
            self.metrics.events.handled.inc(outcome);
        }
        if let Some(at) = newest
            && outcomes.values().any(|o| *o == EventOutcome::Purged)
        {
            let lag = self.clock.now().since(at).as_secs();
            let lag = i64::try_from(lag).unwrap_or(i64::MAX);
            self.metrics.events.lag.set(lag);
        }
        let held = |objects: &Vec<ChangedObject>| {
            let mut outcomes = objects.iter().filter_map(outcome_of);
            outcomes.any(|outcome| outcome == EventOutcome::NotShared)
        };
        let all = messages.len();
        let done = messages.into_iter().zip(&about);
        let done = done.filter(|(_, objects)| !held(objects));
        let receipts: Vec<_> = done.filter_map(|(m, _)| m.receipt_handle).collect();
        let nothing_held = receipts.len() == all;
        self.delete(receipts).await && nothing_held
    }

    /// The events that a message is about, and that change an object.
    fn events(&mut self, message: &Message) -> Vec<ObjectEvent> {
        let handled = &self.metrics.events.handled;
        match read(message.body().unwrap_or_default()) {
            Notice::Events(mut events) => {
                let all = events.len();
                events.retain(|event| event.changed);
                let unchanged = all - events.len();
                handled.add(EventOutcome::NoChange, unchanged as u64);
                events
            }
            Notice::Test => {
                handled.inc(EventOutcome::Test);
                Vec::new()
            }
            Notice::Malformed => {
                handled.inc(EventOutcome::Malformed);
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(
                        queue = self.queue.as_str(),
                        "[events] a message that is no event of S3 was removed from the queue, as others will be: look at \
                         who else writes to it"
                    );
                }
                Vec::new()
            }
        }
    }

    async fn delete(&self, receipts: Vec<String>) -> bool {
        let mut requests = JoinSet::new();
        let mut trouble = None;
        let full = usize::try_from(BATCH).unwrap_or(1);
        for some in receipts.chunks(full) {
            if requests.len() >= AT_ONCE {
                trouble = trouble.or(self.deleted(requests.join_next().await));
            }
            let entries = some.iter().enumerate().filter_map(|(n, receipt)| {
                let entry = DeleteMessageBatchRequestEntry::builder();
                entry.id(n.to_string()).receipt_handle(receipt).build().ok()
            });
            let request = self.client.delete_message_batch();
            let request = request.queue_url(self.queue.as_str());
            let request = request.set_entries(Some(entries.collect()));
            requests.spawn(timeout(DEADLINE, request.send()));
        }
        while !requests.is_empty() {
            trouble = trouble.or(self.deleted(requests.join_next().await));
        }
        let stuck = trouble.is_some();
        let before = self.flow.set(|state| state.stuck = stuck);
        match trouble {
            Some(Trouble { said, hint }) if !before.stuck => tracing::warn!(
                queue = self.queue.as_str(), %said, hint,
                "[events] messages cannot be removed from the queue: what they are about is dropped again and again"
            ),
            None if before.stuck => tracing::info!("[events] messages can be removed again"),
            _ => {}
        }
        !stuck
    }

    /// What went wrong with one request; a receipt that is too old is nothing: its message comes again.
    fn deleted<T, E>(
        &self,
        ended: Option<Result<InTime<T, E>, tokio::task::JoinError>>,
    ) -> Option<Trouble>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        match ended? {
            Ok(Ok(Ok(_))) => None,
            Ok(Ok(Err(error))) => Some(self.trouble("DeleteMessageBatch", &error)),
            Ok(Err(_)) | Err(_) => Some(silent("DeleteMessageBatch")),
        }
    }

    fn trouble<E>(&self, call: &str, error: &E) -> Trouble
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let code = error.code().unwrap_or_default();
        let is = |words: &[&str]| words.iter().any(|word| code.contains(word));
        if is(&[
            "ExpiredToken",
            "InvalidClientTokenId",
            "UnrecognizedClient",
            "InvalidAccessKeyId",
        ]) {
            self.keys.refused();
        }
        let hint = if is(&["AccessDenied"]) {
            "allow sqs:ReceiveMessage and sqs:DeleteMessage on the queue; a queue under SSE-KMS takes kms:Decrypt too"
        } else if is(&["NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"]) {
            "check [events] sqs_queue_url: its region, account and name"
        } else if code.is_empty() {
            "is there a way out to SQS, or a VPC endpoint?"
        } else {
            ""
        };
        let said = match error.message() {
            Some(message) => format!(
                "{call}: {} {}",
                printable(code, 100),
                printable(message, 300)
            ),
            None => format!("{call}: {}", said(error)),
        };
        Trouble { said, hint }
    }

    fn reads(&self) {
        let before = self.flow.set(|state| state.read = Some(true));
        self.metrics.events.receiving.set(1);
        let queue = self.queue.as_str();
        match before.read {
            None => tracing::info!(queue, "[events] hearing of changes in buckets"),
            Some(false) => tracing::info!(queue, "[events] the queue can be read again"),
            Some(true) => {}
        }
    }

    fn fails(&self, Trouble { said, hint }: &Trouble) {
        let before = self.flow.set(|state| state.read = Some(false));
        self.metrics.events.receiving.set(0);
        if before.read == Some(false) {
            tracing::debug!(%said, "the queue of events cannot be read");
            return;
        }
        tracing::warn!(
            queue = self.queue.as_str(), %said, hint,
            "[events] the queue cannot be read: changed tiles are served until they are stale; those that the queue \
             names are dropped from the caches when it can be read again"
        );
    }
}

async fn receive(
    client: &aws_sdk_sqs::Client,
    queue: &QueueUrl,
    wait: Duration,
) -> Result<
    Vec<Message>,
    aws_sdk_sqs::error::SdkError<aws_sdk_sqs::operation::receive_message::ReceiveMessageError>,
> {
    let seconds = i32::try_from(wait.as_secs()).unwrap_or(0);
    let question = client
        .receive_message()
        .queue_url(queue.as_str())
        .max_number_of_messages(BATCH)
        .visibility_timeout(HIDDEN)
        .wait_time_seconds(seconds);
    let answer = question.send().await?;
    Ok(answer.messages.unwrap_or_default())
}

fn silent(call: &str) -> Trouble {
    Trouble {
        said: format!("{call}: no answer in time"),
        hint: "is there a way out to SQS, or a VPC endpoint?",
    }
}

fn bytes(messages: &[Message]) -> usize {
    let bodies = messages.iter().filter_map(Message::body);
    bodies.map(str::len).sum()
}
