//! What nodes share, wired: sessions and caches on this side, Redis on the other.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::AppError;
use crate::auth::{Announce, RevocationId, Sessions, random};
use crate::cache::TileCache;
use crate::clock::{Clock, Timestamp};
use crate::cluster::{
    self, Cluster, ClusterSettings, Ended, Ending, Link, Node, Purged, VersionSaid,
};
use crate::config::Config;
use crate::http::purge::{self, PurgeRefusal};
use crate::metrics::{Metrics, SwitchedBy};
use crate::shutdown::Shutdown;
use crate::tile::{Followed, Tilesets, VersionSwitch};

/// The file in the cache's folder that says how far purges were followed.
const FOLLOWED: &str = "tilekeep-purges-followed";

/// How long the start waits for what was ended and purged meanwhile. Longer would let a dead Redis stop a node.
const PATIENCE: Duration = Duration::from_secs(2);

/// The two ends of `[cluster]`, where there is one. Nothing is connected yet.
pub(super) fn open(
    config: &Config,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Result<Option<(Cluster, Link)>, AppError> {
    let Some(settings) = &config.cluster else {
        return Ok(None);
    };
    let ca = settings.ca.as_deref();
    let settings = ClusterSettings {
        redis: settings.redis.clone().secured(ca)?,
        prefix: settings.prefix.clone(),
        node: u128::from_be_bytes(random()?),
        position: disk(config).map(|folder| folder.join(FOLLOWED)),
    };
    Ok(Some(cluster::open(
        settings,
        clock.clone(),
        metrics.clone(),
    )))
}

fn disk(config: &Config) -> Option<&Path> {
    let folder = config.cache.disk_path.as_deref();
    folder.filter(|_| config.cache.disk > 0)
}

/// Begins to share, and gives the first exchange a moment.
pub(super) async fn start(
    (cluster, link): (&Cluster, Link),
    here: Here,
    shutdown: Shutdown,
) -> JoinHandle<()> {
    let running = tokio::spawn(link.run(Arc::new(here), shutdown));
    cluster.settled(PATIENCE).await;
    running
}

/// Tells the others of sessions that were ended here.
pub(super) fn announcing(cluster: &Cluster) -> Box<dyn Announce> {
    Box::new(Others(cluster.clone()))
}

struct Others(Cluster);

impl Announce for Others {
    fn announce(
        &self,
        id: RevocationId,
        until: Timestamp,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let id = id.bits();
        Box::pin(self.0.announce(Ending { id, until }))
    }
}

/// What this node does about what others did.
pub(super) struct Here {
    pub(super) sessions: Arc<Sessions>,
    pub(super) cache: TileCache,
    pub(super) tilesets: Tilesets,
    pub(super) metrics: Arc<Metrics>,
}

impl Node for Here {
    fn end(&self, endings: &[Ending], now: Timestamp) -> Ended {
        let endings: Vec<_> = endings
            .iter()
            .map(|ending| (RevocationId::from_bits(ending.id), ending.until))
            .collect();
        let ended = self.sessions.revocations().end_many(&endings, now);
        let count = |count| u64::try_from(count).unwrap_or(u64::MAX);
        Ended {
            new: count(ended.new),
            refused: count(ended.full),
        }
    }

    fn endings(&self, now: Timestamp) -> Vec<Ending> {
        let all = self.sessions.revocations().all(now);
        all.into_iter()
            .map(|(id, until)| Ending {
                id: id.bits(),
                until,
            })
            .collect()
    }

    fn purge(&self, request: &[u8]) -> Purged {
        let Ok(request) = serde_json::from_slice(request) else {
            return Purged::Malformed;
        };
        match purge::apply(&self.cache, &self.tilesets, &request) {
            // Lists come by the second while a bucket changes; who sent one has it in its log.
            Ok(_) if request.tiles.is_some() => Purged::Applied,
            Ok(report) => {
                purge::log(&request, &report, "another node");
                Purged::Applied
            }
            Err(PurgeRefusal::UnknownTileset) => {
                let tileset = request.tileset.escape_debug();
                tracing::debug!(%tileset, "a purge of another node is about a tileset that is not here");
                Purged::NotHere
            }
            Err(PurgeRefusal::Malformed(_)) => Purged::Malformed,
        }
    }

    fn version(&self, tileset: &str, switch: &[u8]) -> VersionSaid {
        let Some(switch) = VersionSwitch::parse(switch) else {
            return VersionSaid::Malformed;
        };
        match self.tilesets.follow(tileset, switch) {
            Followed::Switched { previous, version } => {
                self.metrics.version_switches.inc(SwitchedBy::Others);
                tracing::info!(
                    tileset,
                    version,
                    previous,
                    by = "another node",
                    "the version was switched"
                );
                VersionSaid::Taken
            }
            Followed::Stays { version } => {
                tracing::info!(
                    tileset,
                    version,
                    "another node switched the version; this one has it, or is configured with one of its own"
                );
                VersionSaid::Taken
            }
            Followed::Outdated(known) => VersionSaid::Outdated(known.to_json()),
            Followed::Known | Followed::NotHere => VersionSaid::Nothing,
        }
    }

    fn versions(&self) -> Vec<(String, String)> {
        let switches = self.tilesets.switches().into_iter();
        switches
            .map(|(name, switch)| (name, switch.to_json()))
            .collect()
    }
}
