//! Every outcome has a word and a counter.

use std::sync::atomic::{AtomicU64, Ordering};

/// In what way bytes on disk disagreed with what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Corruption {
    /// The file ends before the record does.
    Short,
    /// No record starts here.
    Magic,
    /// A record of another format.
    Version,
    /// Its length is not the one that the index knows.
    Length,
    /// Its bytes are not those that were written, or not in this segment.
    Checksum,
    /// Sealed well, but holding what no record of ours holds.
    Field,
    /// Another tile's record.
    Key,
    /// Not the content that a reference names.
    Content,
}

impl Corruption {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 8] = [
        Self::Short,
        Self::Magic,
        Self::Version,
        Self::Length,
        Self::Checksum,
        Self::Field,
        Self::Key,
        Self::Content,
    ];

    /// The word for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Magic => "magic",
            Self::Version => "version",
            Self::Length => "length",
            Self::Checksum => "checksum",
            Self::Field => "field",
            Self::Key => "key",
            Self::Content => "content",
        }
    }
}

/// Why a write was not queued, or was dropped from the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// The queue is full: tiles arrive faster than the disk takes them.
    QueueFull,
    /// The tile is larger than a segment takes.
    TooLarge,
    /// Writing failed a moment ago, and is left alone for a while.
    BackingOff,
    /// Writing failed just now.
    WriteFailed,
    /// The tier is closed.
    Closed,
}

impl SkipReason {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 5] = [
        Self::QueueFull,
        Self::TooLarge,
        Self::BackingOff,
        Self::WriteFailed,
        Self::Closed,
    ];

    /// The word for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::TooLarge => "too-large",
            Self::BackingOff => "backing-off",
            Self::WriteFailed => "write-failed",
            Self::Closed => "closed",
        }
    }
}

/// What the disk was asked to do when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskOperation {
    /// Reading a record or a summary.
    Read,
    /// Appending, truncating or making a file.
    Write,
    /// Deleting a file.
    Delete,
}

impl DiskOperation {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Delete];

    /// The word for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
        }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)*
            pub(super) corrupt: [Counter; Corruption::ALL.len()],
            pub(super) skipped: [Counter; SkipReason::ALL.len()],
            pub(super) io_errors: [Counter; DiskOperation::ALL.len()],
        }

        /// The disk tier in numbers. All but the first six only ever grow.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct DiskStats {
            /// Keys that a look-up finds.
            pub entries: u64,
            /// Bytes of the folder's files, reservations for what is being written included.
            pub used_bytes: u64,
            /// What they never exceed.
            pub capacity: u64,
            /// Segment files.
            pub segments: u64,
            /// Bytes of bodies that wait to be written.
            pub queued_bytes: u64,
            /// Whether the whole index is back after a restart.
            pub recovered: bool,
            $($(#[$doc])* pub $name: u64,)*
            /// Records that disagreed, by [`Corruption::ALL`].
            pub corrupt: [u64; Corruption::ALL.len()],
            /// Writes that were not done, by [`SkipReason::ALL`].
            pub skipped: [u64; SkipReason::ALL.len()],
            /// Failures of the disk, by [`DiskOperation::ALL`].
            pub io_errors: [u64; DiskOperation::ALL.len()],
        }

        impl Counters {
            pub(super) fn read(&self) -> DiskStats {
                DiskStats {
                    entries: 0,
                    used_bytes: 0,
                    capacity: 0,
                    segments: 0,
                    queued_bytes: 0,
                    recovered: false,
                    $($name: self.$name.get(),)*
                    corrupt: self.corrupt.each_ref().map(Counter::get),
                    skipped: self.skipped.each_ref().map(Counter::get),
                    io_errors: self.io_errors.each_ref().map(Counter::get),
                }
            }
        }
    };
}

counters! {
    /// Look-ups answered from disk or from the write queue.
    hits,
    /// Of those, how many the write queue answered.
    hits_queued,
    /// Of the hits, how many had to wait for the disk.
    hits_blocking,
    /// Look-ups of keys that are not here.
    misses,
    /// Look-ups that lost their segment or entry to an eviction or invalidation while they read.
    misses_overtaken,
    /// References whose content is gone.
    misses_dangling,
    /// Records written: tiles, references, absences.
    writes,
    /// Payload of these: bytes of bodies.
    written_payload_bytes,
    /// All bytes written to the folder.
    written_bytes,
    /// Tiles whose content was on disk already: a reference was written instead.
    dedup_hits,
    /// Bodies that this saved, in bytes.
    dedup_bytes,
    /// Revalidations recorded.
    touches,
    /// Keys removed by invalidation.
    invalidations,
    /// Keys marked stale.
    expirations,
    /// Keys removed for space.
    evictions,
    /// Hot entries that moved when their segment was retired.
    reinserted,
    /// Bytes of these.
    reinserted_bytes,
    /// Segments deleted for space.
    segments_retired,
    /// Segments found damaged or unfinished at a restart and read record by record.
    segments_scanned,
    /// Segments deleted because they could not be used: another format, another name, unreadable.
    segments_discarded,
    /// Times the ledger was found missing or damaged, and everything was marked stale for it.
    ledger_losses,
    /// Times the ledger was rewritten without what no segment needs any more.
    ledger_compactions,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Adds to it, and says what it was.
    pub(super) fn add(&self, n: u64) -> u64 {
        self.0.fetch_add(n, Ordering::Relaxed)
    }

    pub(super) fn one(&self) -> u64 {
        self.add(1)
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(super) fn corrupt(&self, reason: Corruption) {
        self.corrupt[reason as usize].one();
    }

    pub(super) fn skipped(&self, reason: SkipReason) {
        self.skipped[reason as usize].one();
    }

    pub(super) fn io_error(&self, operation: DiskOperation, error: &std::io::Error) {
        let nth = self.io_errors[operation as usize].one();
        // The counter has them all; the log has the first and then one in a thousand.
        if nth.is_multiple_of(1000) {
            tracing::warn!(
                operation = operation.as_str(),
                %error,
                failures = nth + 1,
                "the disk tier's disk fails; tiles are served without it"
            );
        }
    }
}

impl DiskStats {
    /// How many records disagreed in this way.
    pub fn corrupt(&self, reason: Corruption) -> u64 {
        self.corrupt[reason as usize]
    }

    /// How many writes were skipped for this reason.
    pub fn skipped(&self, reason: SkipReason) -> u64 {
        self.skipped[reason as usize]
    }

    /// How often this operation failed.
    pub fn io_errors(&self, operation: DiskOperation) -> u64 {
        self.io_errors[operation as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_are_in_the_order_of_the_words() {
        assert!(
            Corruption::ALL
                .iter()
                .enumerate()
                .all(|(i, r)| i == *r as usize)
        );
        assert!(
            SkipReason::ALL
                .iter()
                .enumerate()
                .all(|(i, r)| i == *r as usize)
        );
        assert!(
            DiskOperation::ALL
                .iter()
                .enumerate()
                .all(|(i, r)| i == *r as usize)
        );
    }
}
