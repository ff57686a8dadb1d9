//! One record: the bytes that say what is stored under one key.
//!
//! All numbers are little-endian. A record is padded with zeros to a multiple of eight bytes.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..8 | XXH3-64 of everything behind it, padding included, seeded with the segment's id |
//! | 8..12 | `TKr` and the format's version |
//! | 12, 13, 14, 15 | kind, content encoding, length of the validator (0: none), flags |
//! | 16..24 | sequence number: when it was put |
//! | 24..40 | key |
//! | 40..48 | `validated_at`, milliseconds since the epoch |
//! | 48..56 | `last_modified`, seconds since the epoch, if flag 1 says so |
//! | 56..60 | length of the body |
//! | 60..76 | hash of the content; in a touch, the segment and offset of the record that it touches |
//! | 76.. | validator, body, padding |
//!
//! The seed is what makes a record in the wrong segment (files swapped, a stale block read back) a
//! disagreement even where key, offset and length happen to agree.

use std::ops::Range;

use twox_hash::XxHash3_64;

use crate::cache::ContentHash;
use crate::clock::Timestamp;
use crate::origin::{ContentEncoding, OriginValidator};
use crate::tile::TileKey;

use super::stats::Corruption;

/// The version of every format in the folder. Files of any other are discarded.
pub(super) const FORMAT_VERSION: u8 = 1;
/// The bytes before the validator.
pub(super) const HEADER_LEN: usize = 76;
/// Records start at, and are padded to, multiples of this.
pub(super) const UNIT: usize = 8;
/// The longest record that a place in the index can name.
pub(super) const MAX_RECORD_LEN: usize = (1 << 21) * UNIT - UNIT;

const MAGIC: [u8; 3] = *b"TKr";
const HAS_LAST_MODIFIED: u8 = 1;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A tile with its body.
    Tile,
    /// A tile whose body is another record's.
    Reference,
    /// There is no such tile.
    Absence,
    /// A body alone, kept for references when the tile that brought it went.
    Content,
    /// Another record was validated again.
    Touch,
}

impl Kind {
    pub(super) fn to_u8(self) -> u8 {
        match self {
            Kind::Tile => 1,
            Kind::Reference => 2,
            Kind::Absence => 3,
            Kind::Content => 4,
            Kind::Touch => 5,
        }
    }

    pub(super) fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Kind::Tile,
            2 => Kind::Reference,
            3 => Kind::Absence,
            4 => Kind::Content,
            5 => Kind::Touch,
            _ => return None,
        })
    }
}

/// Everything in a record but the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) sequence: u64,
    pub(super) key: TileKey,
    pub(super) validated_at: Timestamp,
    pub(super) encoding: ContentEncoding,
    pub(super) validator: Option<OriginValidator>,
    pub(super) last_modified: Option<u64>,
    pub(super) content: ContentHash,
}

impl Head {
    /// A record that has nothing to say about content.
    pub(super) fn bare(kind: Kind, sequence: u64, key: TileKey, validated_at: Timestamp) -> Self {
        Self {
            kind,
            sequence,
            key,
            validated_at,
            encoding: ContentEncoding::Identity,
            validator: None,
            last_modified: None,
            content: ContentHash::from_bytes([0; 16]),
        }
    }

    /// How long the record is with a body of this length.
    pub(super) fn record_len(&self, body_len: usize) -> usize {
        let validator = self.validator.as_ref().map_or(0, OriginValidator::text_len);
        (HEADER_LEN + validator + body_len).next_multiple_of(UNIT)
    }

    /// Appends the record. The body is shorter than [`MAX_RECORD_LEN`].
    pub(super) fn encode(&self, body: &[u8], segment_id: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let validator = self.validator.as_ref().map(ToString::to_string);
        let validator = validator.unwrap_or_default();
        let validator_len = u8::try_from(validator.len()).unwrap_or(0);
        let flags = if self.last_modified.is_some() {
            HAS_LAST_MODIFIED
        } else {
            0
        };
        let encoding = encoding_to_u8(self.encoding);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[FORMAT_VERSION, self.kind.to_u8()]);
        out.extend_from_slice(&[encoding, validator_len, flags]);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.key.to_bytes());
        out.extend_from_slice(&self.validated_at.millis().to_le_bytes());
        out.extend_from_slice(&self.last_modified.unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&self.content.to_bytes());
        out.extend_from_slice(&validator.as_bytes()[..usize::from(validator_len)]);
        out.extend_from_slice(body);
        out.resize(start + (out.len() - start).next_multiple_of(UNIT), 0);
        reseal(&mut out[start..], segment_id);
    }
}

/// Writes a record's checksum: it was made just now, or moves to another segment.
pub(super) fn reseal(record: &mut [u8], segment_id: u64) {
    let checksum = XxHash3_64::oneshot_with_seed(segment_id, &record[8..]);
    record[..8].copy_from_slice(&checksum.to_le_bytes());
}

/// How long the record that starts here claims to be; nothing is verified but that it could be.
pub(super) fn claimed_len(bytes: &[u8]) -> Option<usize> {
    let header: &[u8; HEADER_LEN] = bytes.first_chunk()?;
    let body = usize::try_from(u32_at(header, 56)).ok()?;
    let len = (HEADER_LEN + usize::from(header[14]) + body).next_multiple_of(UNIT);
    (header[8..11] == MAGIC && header[11] == FORMAT_VERSION && len <= MAX_RECORD_LEN).then_some(len)
}

/// Reads a whole record, comparing everything that can be compared without knowing what was asked
/// for. The range is the body's.
pub(super) fn decode(bytes: &[u8], segment_id: u64) -> Result<(Head, Range<usize>), Corruption> {
    let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(Corruption::Short)?;
    if header[8..11] != MAGIC {
        return Err(Corruption::Magic);
    }
    if header[11] != FORMAT_VERSION {
        return Err(Corruption::Version);
    }
    if claimed_len(bytes) != Some(bytes.len()) {
        return Err(Corruption::Length);
    }
    if XxHash3_64::oneshot_with_seed(segment_id, &bytes[8..]) != u64_at(header, 0) {
        return Err(Corruption::Checksum);
    }
    // From here on a disagreement is a record that was never ours, however well it is sealed.
    let kind = Kind::from_u8(header[12]).ok_or(Corruption::Field)?;
    let encoding = encoding_from_u8(header[13]).ok_or(Corruption::Field)?;
    let body_start = HEADER_LEN + usize::from(header[14]);
    let body_len = usize::try_from(u32_at(header, 56)).map_err(|_| Corruption::Length)?;
    let validator = match &bytes[HEADER_LEN..body_start] {
        [] => None,
        text => std::str::from_utf8(text)
            .ok()
            .and_then(OriginValidator::new)
            .ok_or(Corruption::Field)
            .map(Some)?,
    };
    let head = Head {
        kind,
        sequence: u64_at(header, 16),
        key: TileKey::from_bytes(array_at(header, 24)),
        validated_at: Timestamp::from_millis(u64_at(header, 40)),
        encoding,
        validator,
        last_modified: (header[15] & HAS_LAST_MODIFIED != 0).then(|| u64_at(header, 48)),
        content: ContentHash::from_bytes(array_at(header, 60)),
    };
    Ok((head, body_start..body_start + body_len))
}

fn encoding_to_u8(encoding: ContentEncoding) -> u8 {
    match encoding {
        ContentEncoding::Identity => 0,
        ContentEncoding::Gzip => 1,
        ContentEncoding::Brotli => 2,
        ContentEncoding::Zstd => 3,
    }
}

fn encoding_from_u8(byte: u8) -> Option<ContentEncoding> {
    Some(match byte {
        0 => ContentEncoding::Identity,
        1 => ContentEncoding::Gzip,
        2 => ContentEncoding::Brotli,
        3 => ContentEncoding::Zstd,
        _ => return None,
    })
}

/// The `N` bytes at `at`; zeros where there are none, which no caller asks for.
pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::{KeySpace, Scale, TileCoord};

    fn head() -> Head {
        let coord = TileCoord::new(7, 66, 45).unwrap();
        Head {
            kind: Kind::Tile,
            sequence: 0x0102_0304,
            key: TileKey::new(KeySpace::new("world", Some("1")), coord, Scale::Two),
            validated_at: Timestamp::from_millis(1_790_000_000_123),
            encoding: ContentEncoding::Gzip,
            validator: OriginValidator::new("\"abc\""),
            last_modified: Some(1_780_000_000),
            content: ContentHash::of(b"hello"),
        }
    }

    #[test]
    fn a_record_comes_back_from_its_bytes() {
        for (kind, body) in [(Kind::Tile, &b"hello"[..]), (Kind::Absence, b"")] {
            for (validator, last_modified) in [(None, None), (head().validator, Some(0))] {
                let head = Head {
                    kind,
                    validator,
                    last_modified,
                    ..head()
                };
                let mut bytes = Vec::new();
                head.encode(body, 9, &mut bytes);
                assert_eq!(bytes.len(), head.record_len(body.len()));
                assert_eq!(claimed_len(&bytes), Some(bytes.len()));
                let (back, range) = decode(&bytes, 9).unwrap();
                assert_eq!((back, &bytes[range]), (head, body));
            }
        }
    }

    #[test]
    fn the_format_on_disk_is_these_bytes() {
        let mut bytes = Vec::new();
        head().encode(b"hello", 7, &mut bytes);
        let hex = bytes.iter().fold(String::new(), |mut text, byte| {
            use std::fmt::Write;
            write!(text, "{byte:02x}").unwrap();
            text
        });
        assert_eq!(hex, GOLDEN);
    }

    // Change it only together with FORMAT_VERSION.
    const GOLDEN: &str = concat!(
        "8a7ca69bf6309014544b72010101050104030201000000004c5c6ed8da8236f7",
        "f75b0000000000007b6c50c4a001000000a5186a00000000050000002cf24dba",
        "5fb0a30e26e83b2ac5b9e29e226162632268656c6c6f0000",
    );

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let mut bytes = Vec::new();
        head().encode(b"hello", 7, &mut bytes);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes, 7).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len], 7).is_err(), "cut at {len}");
        }
        assert!(decode(&bytes, 7).is_ok());
    }

    #[test]
    fn a_record_of_another_segment_is_refused() {
        let mut bytes = Vec::new();
        head().encode(b"hello", 7, &mut bytes);
        assert_eq!(decode(&bytes, 8).unwrap_err(), Corruption::Checksum);
    }
}
