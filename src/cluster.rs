//! What nodes share, by way of Redis or Valkey: ended sessions, purges, switches of a tileset's version.
//!
//! Invariant: nobody waits for Redis but whoever asked for something to be shared, and they only for a moment.
//! Without Redis a node goes on serving and says so; what was ended here meanwhile is handed over when Redis is
//! back. What comes from Redis is looked at like what comes from a client: whoever can write there may end
//! sessions, purge and switch versions, and no more.
//!
//! Two streams tell what happens (`XREAD` hands out no more than was asked for, where Pub/Sub would fill a queue
//! without bound); a sorted set holds every ended session until its last token has expired, for nodes that
//! were not there. Keys, below the configured prefix:
//!
//! | key | what |
//! | --- | --- |
//! | `ended` | sorted set: 32 hexadecimal digits, scored by the second after which they may be forgotten |
//! | `endings` | stream: the same pairs as they come |
//! | `purges` | stream: `purge`, a request as `POST /purge` takes it, and `node`, who sent it |
//! | `versions` | hash: a tileset's newest switch of version, by its name |
//! | `switches` | stream: the same pairs as they come |
//! | `since` | since when (milliseconds) this Redis has kept the above |
//!
//! Left out on purpose: what an ending or a purge means. [`Node`] is what the rest of the server does about them;
//! this module knows neither sessions nor caches. Quota counters are not here yet: they would be a fourth
//! conversation beside those in `Link::converse`, with a queue of their own like [`Cluster::announce`]'s.

mod address;
mod connection;
mod endings;
mod purges;
mod stream;
mod versions;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

pub use self::address::{Address, AddressError, Secured, TlsError};
use self::connection::{Connection, Trouble};
use crate::clock::{Clock, Timestamp};
use crate::metrics::{ClusterEvent, Direction, Message, Metrics};
use crate::shutdown::Shutdown;

/// Switches of version that wait.
const VERSIONS_QUEUE: usize = 8;
/// Endings that wait to be handed over. What finds it full is handed over all the same, later.
const ENDINGS_QUEUE: usize = 1024;
/// Purges that wait; each may be megabytes.
const PURGES_QUEUE: usize = 8;
/// How long a log-out waits for Redis to have it.
const ENDING_PATIENCE: Duration = Duration::from_millis(250);
/// And then for the nodes that Redis tells of it in the same moment: they take a millisecond or two. Nobody says
/// when they have it, but who has logged out should not find a door open that is about to close.
const ENDING_GRACE: Duration = Duration::from_millis(25);
/// And a purge, which an operator is told of.
const PURGE_PATIENCE: Duration = Duration::from_secs(2);
/// Pauses between attempts to reach Redis.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A session that was ended: what names it, opaque here, and until when that has to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// The session's 128 bits.
    pub id: u128,
    /// When its last token has expired.
    pub until: Timestamp,
}

/// What became of endings that other nodes made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// Not known here before.
    pub new: u64,
    /// Not taken: there is no room.
    pub refused: u64,
}

/// What became of a purge that another node made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purged {
    /// In effect here.
    Applied,
    /// Not about anything that this node has.
    NotHere,
    /// No purge.
    Malformed,
}

/// What became of a switch of version that another node made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionSaid {
    /// It was news.
    Taken,
    /// It was not, or is about nothing that this node has.
    Nothing,
    /// This node knows a later one: this.
    Outdated(String),
    /// It is no switch.
    Malformed,
}

/// What this node does about what others have done. Every call may block: it is made on a blocking thread.
pub trait Node: Send + Sync + 'static {
    /// Ends these here too, all in one go.
    fn end(&self, endings: &[Ending], now: Timestamp) -> Ended;
    /// Every ending that is known here and not yet past.
    fn endings(&self, now: Timestamp) -> Vec<Ending>;
    /// Applies a purge, which does not come back through [`Cluster::purge`].
    fn purge(&self, request: &[u8]) -> Purged;
    /// Takes a switch of a tileset's version, if it is newer than what is known here.
    fn version(&self, tileset: &str, switch: &[u8]) -> VersionSaid;
    /// The newest switch of each tileset that is known here.
    fn versions(&self) -> Vec<(String, String)>;
}

/// Where and how nodes meet.
#[derive(Debug)]
pub struct ClusterSettings {
    /// Redis.
    pub redis: Secured,
    /// What every key begins with.
    pub prefix: String,
    /// What tells this process from others.
    pub node: u128,
    /// Where a node whose cache survives a restart keeps how far it has followed the purges. `None`: its cache
    /// starts empty.
    pub position: Option<PathBuf>,
}

/// Whether other nodes can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Not tried yet.
    Starting,
    /// Redis is there, and this node knows what it knows.
    Connected,
    /// Redis is not there.
    Away,
}

impl Reach {
    /// The word for it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Connected => "connected",
            Self::Away => "away",
        }
    }
}

/// Whether something was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handed {
    /// Redis has it: nodes that are there apply it now, and others when they are back.
    Sent,
    /// Redis does not, as far as this node knows.
    Unreachable,
}

/// Something to be handed over, and who hears that it was.
struct Letter<T> {
    what: T,
    taken: oneshot::Sender<()>,
}

/// What the handle and the link have in common.
struct Shared {
    settings: ClusterSettings,
    clock: Clock,
    metrics: Arc<Metrics>,
    reach: watch::Sender<Reach>,
    /// Whether queues are being emptied. From before this node's endings are compared with Redis's, so that an
    /// ending is in the one or the other.
    accepting: AtomicBool,
    /// An ending found the queue full: compare everything again.
    owing: AtomicBool,
}

impl Shared {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.settings.prefix)
    }

    fn sent(&self, message: Message, count: u64) {
        self.metrics
            .cluster_messages
            .add(message, Direction::Sent, count);
    }

    fn received(&self, message: Message, count: u64) {
        self.metrics
            .cluster_messages
            .add(message, Direction::Received, count);
    }

    fn event(&self, event: ClusterEvent, count: u64) {
        self.metrics.cluster_events.add(event, count);
    }
}

/// Hands over what happens here. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
    endings: mpsc::Sender<Letter<Ending>>,
    purges: mpsc::Sender<Letter<String>>,
    versions: mpsc::Sender<Letter<(String, String)>>,
}

/// The conversation with Redis; nothing is shared before [`Link::run`].
pub struct Link {
    shared: Arc<Shared>,
    endings: mpsc::Receiver<Letter<Ending>>,
    purges: mpsc::Receiver<Letter<String>>,
    versions: mpsc::Receiver<Letter<(String, String)>>,
}

/// A node's two ends.
pub fn open(settings: ClusterSettings, clock: Clock, metrics: Arc<Metrics>) -> (Cluster, Link) {
    let shared = Arc::new(Shared {
        settings,
        clock,
        metrics,
        reach: watch::channel(Reach::Starting).0,
        accepting: AtomicBool::new(false),
        owing: AtomicBool::new(false),
    });
    let (endings, endings_queue) = mpsc::channel(ENDINGS_QUEUE);
    let (purges, purges_queue) = mpsc::channel(PURGES_QUEUE);
    let (versions, versions_queue) = mpsc::channel(VERSIONS_QUEUE);
    let cluster = Cluster {
        shared: shared.clone(),
        endings,
        purges,
        versions,
    };
    let link = Link {
        shared,
        endings: endings_queue,
        purges: purges_queue,
        versions: versions_queue,
    };
    (cluster, link)
}

impl Cluster {
    /// Hands over an ending that holds here already, and waits a moment for it to have arrived. Where Redis is
    /// away it does not wait: this node's endings are handed over when it is back.
    pub async fn announce(&self, ending: Ending) {
        if !self.shared.accepting.load(Ordering::Acquire) {
            return;
        }
        let (taken, told) = oneshot::channel();
        let letter = Letter {
            what: ending,
            taken,
        };
        if self.endings.try_send(letter).is_ok() {
            if let Ok(Ok(())) = timeout(ENDING_PATIENCE, told).await {
                sleep(ENDING_GRACE).await;
            }
        } else {
            self.shared.owing.store(true, Ordering::Release);
            self.shared.event(ClusterEvent::QueueFull, 1);
        }
    }

    /// Hands over a purge that is in effect here already: the JSON of its request.
    pub async fn purge(&self, request: String) -> Handed {
        self.hand_over(&self.purges, request).await
    }

    /// Hands over a switch of a tileset's version that is in effect here already. Where Redis is away, it is handed
    /// over when it is back: as one of [`Node::versions`].
    pub async fn tell_version(&self, tileset: &str, switch: String) -> Handed {
        let what = (tileset.to_owned(), switch);
        self.hand_over(&self.versions, what).await
    }

    async fn hand_over<T>(&self, queue: &mpsc::Sender<Letter<T>>, what: T) -> Handed {
        if !self.shared.accepting.load(Ordering::Acquire) {
            return Handed::Unreachable;
        }
        let (taken, told) = oneshot::channel();
        if queue.try_send(Letter { what, taken }).is_err() {
            self.shared.event(ClusterEvent::QueueFull, 1);
            return Handed::Unreachable;
        }
        match timeout(PURGE_PATIENCE, told).await {
            Ok(Ok(())) => Handed::Sent,
            _ => Handed::Unreachable,
        }
    }

    /// Whether Redis is there.
    pub fn reach(&self) -> Reach {
        *self.shared.reach.borrow()
    }

    /// Waits until Redis was reached and read, or was not; so long at most.
    pub async fn settled(&self, patience: Duration) {
        let mut reach = self.shared.reach.subscribe();
        let _ = timeout(patience, reach.wait_for(|reach| *reach != Reach::Starting)).await;
    }
}

impl Link {
    /// Talks to Redis until the end is asked for.
    pub async fn run(mut self, node: Arc<dyn Node>, mut shutdown: Shutdown) {
        tokio::select! {
            () = shutdown.asked() => {}
            () = self.keep_up(&node) => {}
        }
    }

    /// Connects, and connects again. Each loss and each return is told once, not each attempt.
    async fn keep_up(&mut self, node: &Arc<dyn Node>) {
        let mut pause = FIRST_PAUSE;
        let mut followed = purges::Followed::new(&self.shared, Instant::now()).await;
        loop {
            // On the heap: it is some 18 KB of what it may be waiting for.
            let trouble = Box::pin(self.converse(node, &mut followed)).await;
            self.shared.accepting.store(false, Ordering::Release);
            self.hang_up();
            let before = self.shared.reach.send_replace(Reach::Away);
            self.shared.metrics.cluster_connected.set(0);
            let redis = &self.shared.settings.redis;
            if before == Reach::Away {
                self.shared.event(ClusterEvent::AttemptFailed, 1);
                tracing::debug!(%redis, %trouble, "Redis cannot be reached");
            } else {
                pause = FIRST_PAUSE;
                self.shared.event(ClusterEvent::Lost, 1);
                tracing::warn!(
                    %redis, %trouble,
                    "[cluster] Redis cannot be reached: this node goes on alone and keeps trying; sessions ended \
                     meanwhile and versions switched are handed over when it is back, purges are not"
                );
            }
            sleep(self.spread(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One connected time. Ends with what ended it.
    async fn converse(&mut self, node: &Arc<dyn Node>, followed: &mut purges::Followed) -> Trouble {
        let shared = self.shared.clone();
        let open = || Connection::open(&shared.settings.redis);
        let opened = tokio::try_join!(open(), open(), open(), open());
        let (endings_line, purges_line, versions_line, writing_line) = match opened {
            Ok(opened) => opened,
            Err(trouble) => return trouble,
        };
        shared.owing.store(false, Ordering::Release);
        shared.accepting.store(true, Ordering::Release);
        let knows_endings = watch::channel(false).0;
        let knows_purges = watch::channel(false).0;
        let knows_versions = watch::channel(false).0;
        let connected = async {
            tokio::join!(
                is_true(&knows_endings),
                is_true(&knows_purges),
                is_true(&knows_versions)
            );
            let before = shared.reach.send_replace(Reach::Connected);
            shared.metrics.cluster_connected.set(1);
            let redis = &shared.settings.redis;
            match before {
                Reach::Away => tracing::info!(%redis, "[cluster] Redis is back"),
                Reach::Starting | Reach::Connected => {
                    tracing::info!(%redis, "[cluster] sharing ended sessions, purges and versions");
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            trouble = endings::follow(&shared, endings_line, node, &knows_endings) => trouble,
            trouble = purges::follow(&shared, purges_line, node, followed, &knows_purges) => trouble,
            trouble = versions::follow(&shared, versions_line, node, &knows_versions) => trouble,
            trouble = writer::write(
                &shared, writing_line, &mut self.endings, &mut self.purges, &mut self.versions
            ) => trouble,
            never = connected => never,
        }
    }

    /// What is still in the queues was not sent; who waits for it hears so.
    fn hang_up(&mut self) {
        while self.endings.try_recv().is_ok() {}
        while self.purges.try_recv().is_ok() {}
        while self.versions.try_recv().is_ok() {}
    }

    /// A fleet that lost its Redis must not come back in step: three quarters to all of the pause, by node.
    fn spread(&self, pause: Duration) -> Duration {
        let share = u32::try_from(self.shared.settings.node & 0xff).unwrap_or(0);
        pause * (768 + share) / 1024
    }
}

async fn is_true(known: &watch::Sender<bool>) {
    let _ = known.subscribe().wait_for(|known| *known).await;
}

/// Runs what may block where it may. `None` while the runtime is ending.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
