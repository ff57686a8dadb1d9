//! What a fuzzer asks of the folder's formats: a flipped byte is never a hit, and what is believed can be written
//! again.

use crate::clock::Timestamp;
use crate::tile::{KeySpace, Scale, TileCoord, TileKey};

use super::record::{HEADER_LEN, Head, Kind, UNIT, claimed_len, decode, reseal};
use super::stats::Corruption;
use super::{ledger, segment};
use crate::cache::ContentHash;
use crate::origin::OriginValidator;

const SEGMENT: u64 = 7;

/// Bytes as a record, as a line of the ledger, as a summary, and as a body.
pub fn fuzz_record(data: &[u8]) {
    as_it_is(data);
    sealed(data);
    damaged(data);
    ledger::fuzz_line(data);
    segment::fuzz_summary(data);
}

/// A disk that returns something else. That its checksum fits is what a fuzzer does not find.
fn as_it_is(data: &[u8]) {
    if let Ok((_, body)) = decode(data, SEGMENT) {
        assert!(body.end <= data.len());
        assert!(decode(data, SEGMENT + 1).is_err(), "good in two segments");
    }
}

/// Bytes with the checksum that fits: a record of another hand. It is one that we could have written, or refused.
fn sealed(data: &[u8]) {
    let mut bytes = data.to_vec();
    if bytes.len() < HEADER_LEN {
        return;
    }
    bytes.truncate(bytes.len() / UNIT * UNIT);
    bytes[8..12].copy_from_slice(b"TKr\x01");
    if claimed_len(&bytes) != Some(bytes.len()) {
        // The length that fits, so that a fuzzer gets beyond it.
        let validator = usize::from(bytes[14]);
        let Some(body) = bytes.len().checked_sub(HEADER_LEN + validator) else {
            return;
        };
        bytes[56..60].copy_from_slice(&u32::try_from(body).unwrap_or(u32::MAX).to_le_bytes());
    }
    reseal(&mut bytes, SEGMENT);
    let Ok((head, body)) = decode(&bytes, SEGMENT) else {
        return;
    };
    let body = &bytes[body];
    let mut again = Vec::new();
    head.encode(body, SEGMENT, &mut again);
    assert_eq!(again.len(), bytes.len());
    let (back, range) = decode(&again, SEGMENT).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!((back, &again[range]), (head, body));
}

/// A good record with the bytes as its body, one of whose bits is another.
fn damaged(data: &[u8]) {
    let [bit_low, bit_high, kind, body @ ..] = data else {
        return;
    };
    let place = TileCoord::new(7, 66, 45).unwrap_or_else(|| unreachable!("it is there"));
    let head = Head {
        kind: Kind::from_u8(kind % 6).unwrap_or(Kind::Tile),
        sequence: u64::from(*bit_low),
        key: TileKey::new(KeySpace::new("world", None), place, Scale::One),
        validated_at: Timestamp::from_millis(1_790_000_000_123),
        encoding: crate::origin::ContentEncoding::Gzip,
        validator: OriginValidator::new("\"abc\"").filter(|_| kind & 64 > 0),
        last_modified: (kind & 128 > 0).then_some(1_780_000_000),
        content: ContentHash::of(body),
    };
    let mut bytes = Vec::new();
    head.encode(body, SEGMENT, &mut bytes);
    match decode(&bytes, SEGMENT) {
        Ok((back, range)) => assert_eq!((back, &bytes[range]), (head, body)),
        Err(error) => panic!("a good record is refused: {error:?}"),
    }
    let bit = usize::from(u16::from_le_bytes([*bit_low, *bit_high])) % (bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    let read = decode(&bytes, SEGMENT);
    assert!(read.is_err(), "bit {bit} is another, and it is a hit");
    bytes[bit / 8] ^= 1 << (bit % 8);
    let cut = bit % bytes.len();
    let read = decode(&bytes[..cut], SEGMENT);
    assert!(
        matches!(read, Err(Corruption::Short | Corruption::Length)),
        "cut at {cut}"
    );
}
