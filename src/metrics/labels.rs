//! The words: every label of every metric, as closed sets.

use crate::label_enum;

label_enum! {
    /// How a public request ended.
    pub enum Answer {
        /// 200 with a tile.
        Tile = "tile",
        /// 304.
        NotModified = "not_modified",
        /// 302 to a signed URL.
        Redirect = "redirect",
        /// The tile does not exist.
        Missing = "missing",
        /// A page, TileJSON, a session: anything that is no tile.
        Other = "other",
        /// 400 or 405.
        Malformed = "malformed",
        /// 401.
        Unauthorized = "unauthorized",
        /// 403.
        Forbidden = "forbidden",
        /// 404 for another reason than a missing tile.
        NotFound = "not_found",
        /// 429.
        OverQuota = "over_quota",
        /// 502, 503 or 504: the origin failed and nothing stale could stand in.
        OriginFailed = "origin_failed",
        /// 500: ours.
        Internal = "internal",
    }
}

label_enum! {
    /// Where a tile answer came from.
    pub enum Source {
        /// Fresh, from memory.
        Memory = "memory",
        /// Fresh, from disk.
        Disk = "disk",
        /// Stale, from memory, revalidated behind.
        StaleMemory = "stale_memory",
        /// Stale, from disk, revalidated behind.
        StaleDisk = "stale_disk",
        /// Fetched from the origin.
        Origin = "origin",
        /// Waited for another request's fetch.
        Collapsed = "collapsed",
        /// The origin confirmed the stale one.
        Revalidated = "revalidated",
        /// The origin failed, the stale one stood in.
        StaleIfError = "stale_if_error",
    }
}

label_enum! {
    /// Which of a tile's neighbours is guessed to be wanted next.
    pub enum GuessKind {
        /// One of the eight around it.
        Ring = "ring",
        /// One of the four below it.
        Children = "children",
    }
}

label_enum! {
    /// What became of guesses at what will be wanted next.
    pub enum Guess {
        /// Made: the origin was asked for a tile that nobody had asked for.
        Made = "made",
        /// Somebody wanted it.
        CameTrue = "came_true",
        /// Not fetched: people were waiting, or guesses had their share.
        HeldBack = "held_back",
    }
}

label_enum! {
    /// How a request to the origin ended.
    pub enum OriginOutcome {
        /// A tile.
        Found = "found",
        /// The held one is right.
        NotModified = "not_modified",
        /// No such tile.
        NotFound = "not_found",
        /// Refused.
        Denied = "denied",
        /// Asked for less.
        Throttled = "throttled",
        /// Broke.
        Server = "server_error",
        /// Bytes that are not those promised.
        Truncated = "truncated",
        /// No connection.
        Unreachable = "unreachable",
        /// No answer in time.
        Deadline = "deadline",
        /// Never asked.
        HeldBack = "held_back",
    }
}

label_enum! {
    /// A cache tier.
    pub enum TierLabel {
        /// Memory.
        Memory = "memory",
        /// Disk.
        Disk = "disk",
    }
}

label_enum! {
    /// What happened in the disk tier.
    pub enum DiskEvent {
        /// A stored response was read.
        Hit = "hit",
        /// Nothing was stored.
        Miss = "miss",
        /// Bytes disagreed with what was written: forgotten, never served.
        Corrupt = "corrupt",
        /// The system refused a read or a write.
        IoError = "io_error",
        /// A record was written.
        Write = "write",
        /// A write was left out under pressure or after errors.
        Skipped = "skipped",
        /// An entry went for space.
        Eviction = "eviction",
        /// A body was already there and stored once.
        Duplicate = "duplicate",
        /// A hot entry moved when its segment was retired.
        Reinsertion = "reinsertion",
        /// A revalidation was recorded without its body.
        Touch = "touch",
        /// A purge dropped an entry or marked it stale.
        Invalidation = "invalidation",
    }
}

label_enum! {
    /// How somebody logs in.
    pub enum LoginWay {
        /// Name and password.
        Password = "password",
        /// Another issuer's token, exchanged.
        Issuer = "issuer",
        /// At an identity provider.
        Oidc = "oidc",
    }
}

label_enum! {
    /// What nodes tell each other.
    pub enum Message {
        /// A session was ended.
        Ending = "ending",
        /// Tiles were purged.
        Purge = "purge",
        /// A tileset's version was switched.
        Version = "version",
    }
}

label_enum! {
    /// How a request to an identity provider ended.
    pub enum IdentityAnswer {
        /// It answered.
        Answered = "answered",
        /// No connection, or none that can be trusted.
        Unreachable = "unreachable",
        /// No answer in time.
        Deadline = "deadline",
        /// An answer that is not what was asked for.
        Refused = "refused",
        /// More than such an answer has.
        TooLarge = "too_large",
    }
}

label_enum! {
    /// Which way.
    pub enum Direction {
        /// To the others.
        Sent = "sent",
        /// From the others.
        Received = "received",
    }
}

label_enum! {
    /// Trouble between nodes.
    pub enum ClusterEvent {
        /// The connection to Redis was lost, or was not there at the start.
        Lost = "lost",
        /// One more attempt to reach it failed.
        AttemptFailed = "attempt_failed",
        /// More was to be told than the queue holds.
        QueueFull = "queue_full",
        /// What was in Redis is nothing that a node writes.
        Ignored = "ignored",
        /// Ended sessions of other nodes found no room.
        NoRoom = "no_room",
        /// Redis no longer knew all purges of the time when this node was away.
        PurgesMissed = "purges_missed",
    }
}

label_enum! {
    /// How an attempt to get AWS credentials ended.
    pub enum CredentialOutcome {
        /// New ones came.
        Refreshed = "refreshed",
        /// The same ones came, still good: the source has no newer ones yet.
        Unchanged = "unchanged",
        /// No source has any.
        NotFound = "not_found",
        /// A source said no: trust, rights, or a configuration that cannot be used.
        Denied = "denied",
        /// A source is dead or broken.
        Unavailable = "unavailable",
        /// A source did not answer in time.
        Deadline = "deadline",
    }
}

label_enum! {
    /// How a wish for a signed URL ended, once it had been let in.
    pub enum SignOutcome {
        /// A URL.
        Signed = "signed",
        /// The tileset's tiles are no objects of their own.
        NotSignable = "not_signable",
        /// There are no AWS credentials.
        NoKeys = "no_keys",
        /// The AWS credentials end too soon.
        KeysEndSoon = "keys_end_soon",
        /// The SDK refused.
        Failed = "failed",
    }
}

label_enum! {
    /// How a wish for credentials ended, once its session was known.
    pub enum VendOutcome {
        /// New ones from STS.
        Lent = "lent",
        /// Those that the same person was given before.
        Remembered = "remembered",
        /// The session may not have them.
        Withheld = "withheld",
        /// There are none for this tileset.
        NotOffered = "not_offered",
        /// Too many ask.
        Busy = "busy",
        /// STS did not answer in time.
        Deadline = "deadline",
        /// STS said no.
        Denied = "denied",
        /// STS cannot be asked, or is broken.
        Unavailable = "unavailable",
    }
}

label_enum! {
    /// What the distribution's secret header was worth.
    pub enum OriginSecret {
        /// One of the configured ones.
        Right = "right",
        /// Any other, or two at once.
        Wrong = "wrong",
    }
}
