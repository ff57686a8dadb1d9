//! What the caches keep: a tile with all that its answers need, or the knowledge that there is none.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use crate::clock::Timestamp;
use crate::origin::{ContentEncoding, OriginTile, OriginValidator};

/// The length of an `ETag`, quotes included.
pub const ETAG_LEN: usize = 24;

/// Which bytes a tile has: the first half of their SHA-256.
///
/// Tiles with the same hash are stored once and served for each other, so a collision would be a
/// wrong tile: hence a hash that nobody can make collide, at 5 µs a miss.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash([u8; 16]);

impl ContentHash {
    /// The hash of these bytes.
    pub fn of(body: &[u8]) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&digest(&SHA256, body).as_ref()[..16]);
        Self(half)
    }

    /// The strong `ETag` of these bytes (RFC 9110 §8.8.3), quotes included: equal on every node and
    /// after every re-upload.
    pub fn etag(self) -> [u8; ETAG_LEN] {
        let mut tag = [b'"'; ETAG_LEN];
        // 16 bytes are 22 digits of base64, which is what stands between the quotes.
        let written = URL_SAFE_NO_PAD.encode_slice(self.0, &mut tag[1..ETAG_LEN - 1]);
        debug_assert_eq!(written, Ok(ETAG_LEN - 2));
        tag
    }

    /// From a record on disk.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// For a record on disk.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A whole tile, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTile {
    /// The object's bytes.
    pub body: Bytes,
    /// Which bytes they are; the public `ETag` comes from it.
    pub content: ContentHash,
    /// How they are encoded.
    pub encoding: ContentEncoding,
    /// What to ask the origin about it with.
    pub validator: Option<OriginValidator>,
    /// When the object was written, in seconds since the epoch.
    pub last_modified: Option<u64>,
    /// When the origin last said that this is right.
    pub validated_at: Timestamp,
}

impl StoredTile {
    /// What an origin sent, hashed.
    pub fn from_origin(tile: OriginTile, validated_at: Timestamp) -> Self {
        Self {
            content: ContentHash::of(&tile.body),
            body: tile.body,
            encoding: tile.encoding,
            validator: tile.validator,
            last_modified: tile.last_modified,
            validated_at,
        }
    }
}

/// The knowledge that there is no such tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredAbsence {
    /// When the origin said so.
    pub validated_at: Timestamp,
}

/// What is stored under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// A tile.
    Tile(StoredTile),
    /// None, and we know it.
    Absence(StoredAbsence),
}

impl Stored {
    /// When the origin last confirmed it.
    pub fn validated_at(&self) -> Timestamp {
        match self {
            Stored::Tile(tile) => tile.validated_at,
            Stored::Absence(absence) => absence.validated_at,
        }
    }
}
