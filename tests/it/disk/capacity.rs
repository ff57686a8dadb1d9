//! Never more on disk than the capacity, and what is hot stays.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

/// What the folder's files take: whichever is more of their lengths and their blocks.
pub(super) fn on_disk(path: &Path) -> u64 {
    let (mut lengths, mut blocks) = (0, 0);
    for entry in std::fs::read_dir(path).unwrap() {
        // A file can go while we look.
        if let Ok(metadata) = entry.and_then(|entry| entry.metadata()) {
            lengths += metadata.len();
            blocks += metadata.blocks() * 512;
        }
    }
    let folder = std::fs::metadata(path).unwrap();
    lengths.max(blocks) + folder.blocks() * 512
}

/// Says so when it goes, also because an assertion failed.
struct Done<'a>(&'a AtomicBool);
impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn the_capacity_is_never_exceeded_at_any_instant() {
    let dir = tempfile::tempdir().unwrap();
    let (most, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _done = Done(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                most.fetch_max(on_disk(dir.path()), Ordering::AcqRel);
            }
        });
        for round in 0..3 {
            let tier = open(dir.path(), SMALL);
            for n in 0..1500 {
                let n = n + round * 1500;
                put(&tier, key(n), &tile(n, 1, 200 + n as usize * 37 % 9000));
                // Some in every segment are hot, and move.
                for hot in (0..n).rev().step_by(10).take(30) {
                    get(&tier, &key(hot));
                }
                if n % 3 == 0 {
                    tier.invalidate(&key(n - n / 5));
                }
            }
            assert!(tier.wait_written(LONG));
            let stats = tier.stats();
            assert!(stats.used_bytes <= SMALL);
            assert!(stats.segments_retired > 5, "{stats:?}");
            assert!(stats.reinserted > 0, "{stats:?}");
        }
    });
    let most = most.into_inner();
    assert!(
        most <= SMALL,
        "{most} bytes were on disk, {SMALL} are allowed"
    );
    assert!(
        most > SMALL * 8 / 10,
        "only {most} bytes of {SMALL} were ever used"
    );
}

#[test]
fn a_smaller_capacity_after_a_restart_is_kept_too() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path(), 16 << 20);
    for n in 0..1500 {
        put(&tier, key(n), &tile(n, 1, 8192));
    }
    close(tier);
    assert!(on_disk(dir.path()) > 8 << 20);
    let tier = open(dir.path(), 6 << 20);
    assert!(on_disk(dir.path()) <= 6 << 20);
    let kept = (0..1500).filter(|&n| {
        let found = get(&tier, &key(n));
        assert!(found.is_none() || found == Some(tile(n, 1, 8192)));
        found.is_some()
    });
    assert!(kept.count() > 500);
    for n in 1500..3000 {
        put(&tier, key(n), &tile(n, 1, 8192));
        assert!(on_disk(dir.path()) <= 6 << 20);
    }
}

#[test]
fn hot_tiles_outlive_many_times_the_capacity_with_little_moved() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path(), 8 << 20);
    let hot = 0..50;
    for n in hot.clone() {
        put(&tier, key(n), &tile(n, 1, 8192));
    }
    for n in 50..6000 {
        put(&tier, key(n), &tile(n, 1, 8192));
        if n % 10 == 0 {
            assert!(tier.wait_written(LONG));
            hot.clone().for_each(|n| drop(get(&tier, &key(n))));
        }
    }
    assert!(tier.wait_written(LONG));
    let kept = hot.filter(|&n| get(&tier, &key(n)) == Some(tile(n, 1, 8192)));
    assert_eq!(kept.count(), 50);
    let stats = tier.stats();
    assert!(
        stats.written_bytes * 100 < stats.written_payload_bytes * 130,
        "{stats:?}"
    );
}

#[test]
fn content_that_many_share_outlives_the_tile_that_brought_it() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path(), SMALL);
    let sea = noise(1, 8192);
    for n in 0..3000 {
        let body = if n % 3 == 0 {
            sea.clone()
        } else {
            noise(u64::from(n) + 2, 8192)
        };
        put(&tier, key(n), &tile_of(body, 1));
    }
    assert!(tier.wait_written(LONG));
    let stats = tier.stats();
    assert!(stats.segments_retired > 20, "{stats:?}");
    assert!(stats.dedup_hits > 950, "{stats:?}");
    assert_eq!(get(&tier, &key(2997)), Some(tile_of(sea, 1)));
    assert_eq!(tier.stats().misses_dangling, 0);
}

#[test]
fn what_was_evicted_is_not_back_after_a_restart_in_an_older_version() {
    let dir = tempfile::tempdir().unwrap();
    let mut tier = open(dir.path(), SMALL);
    for generation in 1..12 {
        for n in 0..200 {
            put(&tier, key(n), &tile(n, generation, 6000));
            if n % 7 == 0 {
                get(&tier, &key(n));
            }
        }
        assert!(tier.wait_written(LONG));
        if generation % 4 == 0 {
            drop(tier);
            tier = open(dir.path(), SMALL);
        }
        for n in 0..200 {
            let found = get(&tier, &key(n));
            assert!(found.is_none() || found == Some(tile(n, generation, 6000)));
        }
    }
}
