//! What is heard of changes in buckets, and of versions that were switched.

use super::{CounterBy, IntGauge, Registry, gauge};
use crate::label_enum;

label_enum! {
    /// What became of an event.
    pub enum EventOutcome {
        /// A tile, dropped from the caches.
        Purged = "purged",
        /// An object that is no tile of any tileset.
        NoTile = "no_tile",
        /// Something that leaves the object as it is: tags, rights, storage class.
        NoChange = "no_change",
        /// S3's test of a new notification.
        Test = "test",
        /// A message that is no event of S3; it is removed from the queue.
        Malformed = "malformed",
        /// Dropped here, but Redis could not be told: the message stays in the queue and comes again.
        NotShared = "not_shared",
    }
}

label_enum! {
    /// Who switched a version.
    pub enum SwitchedBy {
        /// An operator, at this node.
        Here = "this_node",
        /// Another node told.
        Others = "another_node",
    }
}

/// Changes in buckets.
#[derive(Debug)]
pub struct EventMetrics {
    /// Events by what became of them.
    pub handled: CounterBy<EventOutcome>,
    /// Whether the queue can be read.
    pub receiving: IntGauge,
    /// From change to purge.
    pub lag: IntGauge,
}

impl EventMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        Self {
            handled: CounterBy::new(
                r,
                "tilekeep_events_total",
                "S3 event notifications, by what became of them.",
                "outcome",
            ),
            receiving: gauge(
                r,
                "tilekeep_events_receiving",
                "Whether the queue of S3 events can be read: 1, or 0 while it cannot or none is configured.",
            ),
            lag: gauge(
                r,
                "tilekeep_events_lag_seconds",
                "From the last changed tile's change to its purge.",
            ),
        }
    }
}

pub(super) fn version_switches(r: &Registry) -> CounterBy<SwitchedBy> {
    CounterBy::new(
        r,
        "tilekeep_version_switches_total",
        "Tilesets put at another version while the server ran, by whom.",
        "by",
    )
}
