//! Changes in buckets, wired: S3's events on one side, the caches and other nodes on the other.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use crate::aws::events::{Changes, Events};
use crate::aws::{Aws, AwsError};
use crate::cache::TileCache;
use crate::clock::Clock;
use crate::cluster::{Cluster, Handed};
use crate::config::Config;
use crate::http::purge::{self, PurgeRequest};
use crate::metrics::{EventOutcome, Metrics};
use crate::shutdown::Shutdown;
use crate::tile::{ChangedObject, Tilesets};

/// What reads the configured queue, where there is one.
pub(super) fn open(
    config: &Config,
    aws: &Aws,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Result<Option<Events>, AwsError> {
    let Some(events) = &config.events else {
        return Ok(None);
    };
    let endpoint = events.endpoint_url.as_deref();
    let with = (clock.clone(), metrics.clone());
    Events::new(aws, events.queue.clone(), endpoint, with).map(Some)
}

/// Begins to read, where there is a queue. Nobody waits for its end: what was not removed is read again.
pub(super) fn start(events: Option<Events>, here: Dropping, shutdown: Shutdown) {
    let Some(events) = events else { return };
    if here.others.is_none() {
        tracing::info!(
            "[events] without [cluster] this node alone hears of what it reads from its queue: give every node a queue \
             of its own"
        );
    }
    drop(tokio::spawn(events.run(Arc::new(here), shutdown)));
}

/// What this node does about changed objects.
pub(super) struct Dropping {
    pub(super) cache: TileCache,
    pub(super) tilesets: Tilesets,
    pub(super) others: Option<Cluster>,
}

impl Changes for Dropping {
    fn changed(
        &self,
        objects: Vec<ChangedObject>,
    ) -> Pin<Box<dyn Future<Output = Vec<EventOutcome>> + Send + '_>> {
        Box::pin(self.drop_all(objects))
    }
}

impl Dropping {
    async fn drop_all(&self, objects: Vec<ChangedObject>) -> Vec<EventOutcome> {
        let (requests, mut outcomes) = plan(&self.tilesets, &objects);
        let (cache, tilesets) = (self.cache.clone(), self.tilesets.clone());
        // It writes to the disk.
        let applied = tokio::task::spawn_blocking(move || {
            for request in &requests {
                match purge::apply(&cache, &tilesets, request) {
                    Ok(report) => tracing::debug!(
                        tileset = request.tileset,
                        version = request.version,
                        tiles = request.tiles.as_ref().map(Vec::len),
                        memory = report.memory,
                        disk = report.disk,
                        "changed in the bucket: dropped"
                    ),
                    Err(refusal) => tracing::error!(?refusal, "a purge of our own making"),
                }
            }
            requests
        });
        let mut shared = true;
        match (applied.await, &self.others) {
            (Ok(requests), Some(others)) => {
                for request in requests {
                    let request = serde_json::to_string(&request).unwrap_or_default();
                    shared &= others.purge(request).await == Handed::Sent;
                }
            }
            (Ok(_), None) => {}
            // The runtime is ending: another node, or the next start, reads it again.
            (Err(_), _) => shared = false,
        }
        if !shared {
            let purged = |outcome: &&mut EventOutcome| **outcome == EventOutcome::Purged;
            for outcome in outcomes.iter_mut().filter(purged) {
                *outcome = EventOutcome::NotShared;
            }
        }
        outcomes
    }
}

/// One purge for each tileset and version, and what each object is. Versions are named: other nodes may be at
/// others.
fn plan(tilesets: &Tilesets, objects: &[ChangedObject]) -> (Vec<PurgeRequest>, Vec<EventOutcome>) {
    let mut purges: HashMap<(String, Option<String>), Option<Vec<String>>> = HashMap::new();
    let mut outcome = |object| {
        let changes = tilesets.changed(object);
        let outcome = if changes.is_empty() {
            EventOutcome::NoTile
        } else {
            EventOutcome::Purged
        };
        for change in changes {
            let place = (change.tileset.name().to_owned(), change.version);
            let tiles = purges.entry(place).or_insert_with(|| Some(Vec::new()));
            match (change.tile, tiles) {
                (Some(tile), Some(tiles)) => tiles.push(tile.to_string()),
                (None, tiles) => *tiles = None,
                // Everything goes already.
                (Some(_), None) => {}
            }
        }
        outcome
    };
    let outcomes = objects.iter().map(&mut outcome).collect();
    let mut requests = Vec::new();
    for ((tileset, version), tiles) in purges {
        let request = PurgeRequest {
            tileset,
            version,
            ..PurgeRequest::default()
        };
        match tiles {
            None => requests.push(request),
            // A template in which numbers run into each other may make several tiles of an object.
            Some(tiles) => {
                requests.extend(tiles.chunks(purge::MAX_TILES).map(|some| PurgeRequest {
                    tiles: Some(some.to_vec()),
                    ..request.clone()
                }));
            }
        }
    }
    (requests, outcomes)
}
