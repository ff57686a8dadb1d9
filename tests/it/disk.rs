//! The disk tier from outside: what goes in comes out, across restarts, or is a miss.

mod capacity;
mod damage;
mod faults;
mod held;
mod kill;
mod model;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tilekeep::cache::{
    ContentHash, DiskOpenError, DiskSettings, DiskTier, PutOutcome, SkipReason, Stored,
    StoredAbsence, StoredTile, TryGet,
};
use tilekeep::clock::Timestamp;
use tilekeep::origin::{ContentEncoding, OriginValidator};
use tilekeep::tile::{KeySpace, Scale, TileCoord, TileKey};

const LONG: Duration = Duration::from_mins(1);
const SMALL: u64 = 4 << 20;
const ROOMY: u64 = 64 << 20;

fn key(n: u32) -> TileKey {
    let coord = TileCoord::new(12, n % 4096, n / 4096).unwrap();
    TileKey::new(KeySpace::new("world", None), coord, Scale::One)
}

/// Bytes that follow from a number and look like nothing else.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

fn tile_of(body: Vec<u8>, at: u64) -> Stored {
    Stored::Tile(StoredTile {
        content: ContentHash::of(&body),
        validator: OriginValidator::new(&format!("\"{:?}\"", ContentHash::of(&body))),
        body: Bytes::from(body),
        encoding: ContentEncoding::Identity,
        last_modified: Some(1_700_000_000 + at),
        validated_at: Timestamp::from_millis(at),
    })
}

/// The tile that key `n` has in a generation.
fn tile(n: u32, generation: u64, len: usize) -> Stored {
    let mut body = noise(u64::from(n) << 32 ^ generation, len);
    body[..4].copy_from_slice(&n.to_le_bytes());
    body[4..12].copy_from_slice(&generation.to_le_bytes());
    tile_of(body, generation)
}

fn absence(at: u64) -> Stored {
    Stored::Absence(StoredAbsence {
        validated_at: Timestamp::from_millis(at),
    })
}

fn settings(path: &Path, capacity: u64) -> DiskSettings {
    DiskSettings {
        path: path.to_owned(),
        capacity,
    }
}

fn open(path: &Path, capacity: u64) -> DiskTier {
    let tier = DiskTier::open(settings(path, capacity)).unwrap();
    assert!(tier.wait_recovered(LONG));
    tier
}

/// What is stored under a key, however long it takes.
fn get(tier: &DiskTier, key: &TileKey) -> Option<Stored> {
    match tier.try_get(key) {
        TryGet::Hit(stored) => Some(stored),
        TryGet::Miss => None,
        TryGet::WouldBlock(pending) => pending.read(),
    }
}

fn put(tier: &DiskTier, key: TileKey, stored: &Stored) {
    while let PutOutcome::Skipped(reason) = tier.put(key, stored.clone()) {
        assert_eq!(reason, SkipReason::QueueFull);
        assert!(tier.wait_written(LONG));
    }
}

#[allow(clippy::needless_pass_by_value, reason = "what is closed is not used")]
fn close(tier: DiskTier) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    assert!(runtime.block_on(tier.close(LONG)));
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("segment-"))
        .collect();
    found.sort();
    found
}

fn every_kind() -> HashMap<TileKey, Stored> {
    let encodings = [
        ContentEncoding::Identity,
        ContentEncoding::Gzip,
        ContentEncoding::Brotli,
        ContentEncoding::Zstd,
    ];
    let mut all = HashMap::from([(key(0), absence(77))]);
    for (n, encoding) in (1..).zip(encodings) {
        for (m, validator) in (0..).zip([None, OriginValidator::new("\"v\"")]) {
            for (l, len) in (0..).zip([0, 1, 700, 30_000]) {
                let body = Bytes::from(noise(u64::from(n * 100 + l), len));
                let tile = StoredTile {
                    content: ContentHash::of(&body),
                    body,
                    encoding,
                    validator: validator.clone(),
                    last_modified: (m == 0).then_some(u64::from(l)),
                    validated_at: Timestamp::from_millis(1_790_000_000_123 + u64::from(n)),
                };
                all.insert(key(n * 100 + m * 10 + l), Stored::Tile(tile));
            }
        }
    }
    all
}

#[test]
fn what_was_put_is_served_at_once_after_writing_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let all = every_kind();
    let tier = open(dir.path(), ROOMY);
    let check = |tier: &DiskTier| {
        for (key, stored) in &all {
            assert_eq!(get(tier, key).as_ref(), Some(stored));
            let meta = tier.lookup_meta(key).unwrap();
            assert_eq!(meta.validated_at, stored.validated_at());
            assert_eq!(meta.absent, matches!(stored, Stored::Absence(_)));
        }
        assert_eq!(get(tier, &key(9999)), None);
    };
    for (key, stored) in &all {
        assert_eq!(tier.put(*key, stored.clone()), PutOutcome::Queued);
    }
    check(&tier);
    assert!(tier.wait_written(LONG));
    check(&tier);
    assert_eq!(tier.stats().entries, all.len() as u64);
    drop(tier); // as good as a crash
    let tier = open(dir.path(), ROOMY);
    check(&tier);
    assert_eq!(tier.stats().corrupt.iter().sum::<u64>(), 0);
    close(tier);
    let tier = open(dir.path(), ROOMY);
    check(&tier);
    assert_eq!(tier.stats().segments_scanned, 0);
}

#[test]
fn a_tile_too_large_for_a_segment_is_skipped_and_the_largest_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path(), SMALL);
    let largest = (256 << 10) - 1024;
    assert_eq!(
        tier.put(key(1), tile(1, 0, largest + 1)),
        PutOutcome::Skipped(SkipReason::TooLarge)
    );
    put(&tier, key(1), &tile(1, 0, largest));
    assert!(tier.wait_written(LONG));
    assert_eq!(get(&tier, &key(1)), Some(tile(1, 0, largest)));
    assert_eq!(tier.stats().skipped(SkipReason::TooLarge), 1);
}

#[test]
fn a_touch_moves_validated_at_without_writing_the_body_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path(), ROOMY);
    let stored = [tile(0, 5, 50_000), absence(5)];
    for (n, stored) in (0..).zip(&stored) {
        put(&tier, key(n), stored);
    }
    assert!(tier.wait_written(LONG));
    let before = tier.stats().written_bytes;
    for n in 0..2 {
        tier.touch(key(n), Timestamp::from_millis(1000));
        tier.touch(key(n), Timestamp::from_millis(900));
    }
    tier.touch(key(7), Timestamp::from_millis(900));
    assert!(tier.wait_written(LONG));
    assert!(tier.stats().written_bytes - before < 1000);
    let check = |tier: &DiskTier| {
        for n in 0..2 {
            let now = get(tier, &key(n)).unwrap();
            assert_eq!(now.validated_at(), Timestamp::from_millis(900));
        }
        assert_eq!(get(tier, &key(7)), None);
    };
    check(&tier);
    drop(tier);
    check(&open(dir.path(), ROOMY));
}

#[test]
fn an_absence_found_again_is_a_touch() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path(), ROOMY);
    put(&tier, key(0), &absence(1));
    assert!(tier.wait_written(LONG));
    put(&tier, key(0), &absence(2));
    assert!(tier.wait_written(LONG));
    assert_eq!(get(&tier, &key(0)), Some(absence(2)));
    assert_eq!((tier.stats().writes, tier.stats().touches), (1, 1));
    put(&tier, key(0), &tile(0, 3, 1000));
    assert!(tier.wait_written(LONG));
    drop(tier);
    assert_eq!(
        get(&open(dir.path(), ROOMY), &key(0)),
        Some(tile(0, 3, 1000))
    );
}

#[test]
fn an_invalidated_key_stays_away_whether_queued_written_or_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path(), ROOMY);
    assert!(!tier.invalidate(&key(0)));
    for n in 0..100 {
        put(&tier, key(n), &tile(n, 1, 1000));
        if n % 2 == 0 {
            assert!(tier.invalidate(&key(n)));
            assert_eq!(get(&tier, &key(n)), None);
        }
    }
    assert!(tier.wait_written(LONG));
    for n in (0..100).step_by(5) {
        assert_eq!(tier.invalidate(&key(n)), n % 2 == 1);
    }
    put(&tier, key(0), &tile(0, 2, 1000));
    let check = |tier: &DiskTier| {
        for n in 1..100 {
            let kept = n % 2 == 1 && n % 5 != 0;
            assert_eq!(get(tier, &key(n)).is_some(), kept, "{n}");
        }
        assert_eq!(get(tier, &key(0)), Some(tile(0, 2, 1000)));
    };
    assert!(tier.wait_written(LONG));
    check(&tier);
    drop(tier);
    check(&open(dir.path(), ROOMY));
}

#[test]
fn a_purge_takes_what_matches_and_a_soft_one_only_its_freshness() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path(), ROOMY);
    for n in 0..300 {
        put(&tier, key(n), &tile(n, if n % 3 == 0 { 3 } else { 7 }, 600));
        if n == 150 {
            assert!(tier.wait_written(LONG)); // the rest may still be queued
        }
    }
    let column = |key: &TileKey| key.coord().unwrap().x();
    put(&tier, key(300), &absence(7));
    put(&tier, key(301), &absence(7));
    assert_eq!(tier.invalidate_matching(|key| column(key) < 200), 200);
    // Confirmed at five at the latest: who was older stays as old as it was.
    let five = Timestamp::from_millis(5);
    assert_eq!(tier.expire_matching(|key| column(key) % 2 == 0, five), 51);
    tier.touch(key(298), Timestamp::from_millis(9));
    let check = |tier: &DiskTier| {
        for n in 0..302 {
            let at = get(tier, &key(n)).map(|stored| stored.validated_at().millis());
            let expected = match n {
                0..200 | 300 => None,
                298 => Some(9),
                301 => Some(7),
                n if n % 3 == 0 => Some(3),
                n if n % 2 == 0 => Some(5),
                _ => Some(7),
            };
            assert_eq!(at, expected, "{n}");
        }
    };
    check(&tier);
    assert!(tier.wait_written(LONG));
    drop(tier);
    check(&open(dir.path(), ROOMY));
}

#[test]
fn identical_tiles_are_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path(), 128 << 20);
    let sea = noise(1, 8192);
    let mut payload = 0;
    for n in 0..4000 {
        let body = if n % 20 < 7 {
            sea.clone()
        } else {
            noise(u64::from(n) + 2, 8192)
        };
        payload += body.len() as u64;
        put(&tier, key(n), &tile_of(body, u64::from(n)));
    }
    assert!(tier.wait_written(LONG));
    assert_eq!(tier.stats().dedup_hits, 1399);
    let check = |tier: &DiskTier| {
        for n in 0..4000 {
            let body = if n % 20 < 7 {
                sea.clone()
            } else {
                noise(u64::from(n) + 2, 8192)
            };
            assert_eq!(get(tier, &key(n)), Some(tile_of(body, u64::from(n))));
        }
    };
    check(&tier);
    close(tier);
    let bytes = capacity::on_disk(dir.path());
    assert!(bytes * 100 <= payload * 70, "{bytes} of {payload}");
    let tier = open(dir.path(), 128 << 20);
    check(&tier);
    // The tile that brought the content goes; those that share it stay.
    assert!(tier.invalidate(&key(0)));
    assert_eq!(get(&tier, &key(1)), Some(tile_of(sea.clone(), 1)));
    drop(tier);
    let tier = open(dir.path(), 128 << 20);
    assert_eq!(get(&tier, &key(0)), None);
    assert_eq!(get(&tier, &key(1)), Some(tile_of(sea.clone(), 1)));
}

#[test]
fn a_folder_in_use_is_refused_until_it_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path(), SMALL);
    let handle = tier.clone();
    let refused = DiskTier::open(settings(dir.path(), SMALL)).unwrap_err();
    assert!(matches!(refused, DiskOpenError::Held { .. }));
    assert!(refused.to_string().contains("in use by another process"));
    drop(tier);
    assert!(DiskTier::open(settings(dir.path(), SMALL)).is_err());
    drop(handle);
    open(dir.path(), SMALL);
}

#[test]
fn a_place_that_is_no_folder_or_a_capacity_that_is_none_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let refused = DiskTier::open(settings(&file, SMALL)).unwrap_err();
    assert!(
        matches!(refused, DiskOpenError::NotAFolder { .. }),
        "{refused}"
    );
    let refused = DiskTier::open(settings(dir.path(), SMALL - 1)).unwrap_err();
    assert!(refused.to_string().contains("4194304"), "{refused}");
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

#[test]
fn closing_writes_what_is_queued_and_takes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path(), ROOMY);
    for n in 0..500 {
        put(&tier, key(n), &tile(n, 1, 5000));
    }
    close(tier.clone());
    assert_eq!(
        tier.put(key(1000), tile(1000, 1, 100)),
        PutOutcome::Skipped(SkipReason::Closed)
    );
    assert_eq!(get(&tier, &key(499)), Some(tile(499, 1, 5000)));
    assert!(tier.invalidate(&key(0)));
    drop(tier);
    let tier = open(dir.path(), ROOMY);
    assert_eq!(tier.stats().segments_scanned, 0);
    assert_eq!(get(&tier, &key(0)), None);
    assert!((1..500).all(|n| get(&tier, &key(n)) == Some(tile(n, 1, 5000))));
}
