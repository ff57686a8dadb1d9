//! Full disks, failing disks, slow disks: nobody's request fails, and it is counted.

use std::process::Command;
use std::sync::Arc;

use tilekeep::cache::{DiskFaults, DiskIo, DiskOperation};

use super::*;

const EIO: i32 = 5;
const EROFS: i32 = 30;

fn failing(path: &Path, capacity: u64) -> (DiskTier, Arc<DiskFaults>) {
    let faults = Arc::new(DiskFaults::default());
    let io = DiskIo::Failing(Arc::clone(&faults));
    let tier = DiskTier::open_with(settings(path, capacity), io).unwrap();
    assert!(tier.wait_recovered(LONG));
    (tier, faults)
}

/// Puts until it is written: writing is left alone for a while after a failure.
fn put_until_written(tier: &DiskTier, n: u32) {
    let before = tier.stats().writes;
    while tier.stats().writes == before {
        tier.put(key(n), tile(n, 1, 5000));
        tier.wait_written(LONG);
        std::thread::yield_now();
    }
}

#[test]
fn a_read_error_is_a_miss_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (tier, faults) = failing(dir.path(), SMALL);
    for n in 0..10 {
        put(&tier, key(n), &tile(n, 1, 5000));
    }
    assert!(tier.wait_written(LONG));
    for cold in [false, true] {
        faults.cold(cold);
        faults.fail_reads(EIO);
        let n = u32::from(cold);
        assert_eq!(get(&tier, &key(n)), None);
        faults.fail_reads(0);
        assert_eq!(get(&tier, &key(n)), None, "it is not tried again");
        put(&tier, key(n), &tile(n, 2, 5000));
        assert!(tier.wait_written(LONG));
        assert_eq!(get(&tier, &key(n)), Some(tile(n, 2, 5000)));
    }
    assert_eq!(tier.stats().io_errors(DiskOperation::Read), 2);
    assert!((2..10).all(|n| get(&tier, &key(n)) == Some(tile(n, 1, 5000))));
    // Through evictions that cannot read what they would move.
    faults.fail_reads(EIO);
    for n in 10..2000 {
        put(&tier, key(n), &tile(n, 1, 5000));
    }
    assert!(tier.wait_written(LONG));
    faults.fail_reads(0);
    assert_eq!(get(&tier, &key(1999)), Some(tile(1999, 1, 5000)));
    assert!(tier.stats().evictions > 1000);
}

#[test]
fn a_write_error_loses_the_entry_backs_off_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    for errno in [EIO, EROFS] {
        let (tier, faults) = failing(dir.path(), SMALL);
        put(&tier, key(1), &tile(1, 1, 5000));
        assert!(tier.wait_written(LONG));
        faults.fail_writes(errno);
        put(&tier, key(2), &tile(2, 1, 5000));
        assert!(tier.wait_written(LONG));
        assert_eq!(get(&tier, &key(2)), None);
        assert_eq!(get(&tier, &key(1)), Some(tile(1, 1, 5000)));
        assert_eq!(
            tier.put(key(3), tile(3, 1, 5000)),
            PutOutcome::Skipped(SkipReason::BackingOff)
        );
        faults.fail_writes(0);
        put_until_written(&tier, 4);
        assert_eq!(get(&tier, &key(4)), Some(tile(4, 1, 5000)));
        let stats = tier.stats();
        assert!(stats.skipped(SkipReason::WriteFailed) == 1, "{stats:?}");
        assert!(stats.skipped(SkipReason::BackingOff) >= 1, "{stats:?}");
        assert!(stats.io_errors(DiskOperation::Write) >= 1, "{stats:?}");
        drop(tier);
        let tier = open(dir.path(), SMALL);
        assert_eq!(get(&tier, &key(4)), Some(tile(4, 1, 5000)));
        assert_eq!(get(&tier, &key(2)), None);
    }
}

#[test]
fn what_was_replaced_by_a_write_that_failed_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (tier, faults) = failing(dir.path(), SMALL);
    put(&tier, key(1), &tile(1, 1, 5000));
    assert!(tier.wait_written(LONG));
    faults.fail_writes(EIO);
    put(&tier, key(1), &tile(1, 2, 5000));
    assert!(tier.wait_written(LONG));
    assert_eq!(get(&tier, &key(1)), None);
    faults.fail_writes(0);
    put_until_written(&tier, 4);
    drop(tier);
    assert_eq!(get(&open(dir.path(), SMALL), &key(1)), None);
}

#[test]
fn an_invalidation_that_cannot_be_written_down_takes_the_segment_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (tier, faults) = failing(dir.path(), SMALL);
    for n in 0..200 {
        put(&tier, key(n), &tile(n, 1, 5000));
    }
    assert!(tier.wait_written(LONG));
    faults.fail_writes(EIO);
    assert!(tier.invalidate(&key(7)));
    assert_eq!(tier.invalidate_matching(|k| *k == key(150)), 1);
    drop(tier);
    faults.fail_writes(0);
    let tier = open(dir.path(), SMALL);
    assert_eq!((get(&tier, &key(7)), get(&tier, &key(150))), (None, None));
    let kept = (0..200).filter(|&n| get(&tier, &key(n)) == Some(tile(n, 1, 5000)));
    assert!(kept.count() > 90);
}

#[test]
fn a_disk_that_fills_up_makes_the_cache_smaller_and_not_blind() {
    let dir = tempfile::tempdir().unwrap();
    let (tier, faults) = failing(dir.path(), 16 << 20);
    for n in 0..500 {
        put(&tier, key(n), &tile(n, 1, 8000));
    }
    assert!(tier.wait_written(LONG));
    faults.leave_room(50_000);
    for n in 500..520 {
        tier.put(key(n), tile(n, 1, 8000));
    }
    assert!(tier.wait_written(LONG));
    let served = |range: std::ops::Range<u32>| {
        range.filter(|&n| {
            let found = get(&tier, &key(n));
            assert!(found.is_none() || found == Some(tile(n, 1, 8000)));
            found.is_some()
        })
    };
    assert_eq!(served(0..500).count(), 500);
    assert!(served(500..520).count() < 20);
    assert!(tier.stats().skipped(SkipReason::WriteFailed) > 0);
    faults.leave_room(i64::MAX);
    put_until_written(&tier, 600);
    for n in 700..2500 {
        put(&tier, key(n), &tile(n, 1, 8000));
    }
    assert!(tier.wait_written(LONG));
    assert_eq!(served(2400..2500).count(), 100);
    assert!(tier.stats().used_bytes <= 16 << 20);
}

#[test]
fn on_a_full_tmpfs_tiles_are_served_and_new_ones_take_the_place_of_old_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
        .arg(dir.path())
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        return; // not root, or not allowed to: the injected fault above has to do
    }
    let outcome = std::panic::catch_unwind(|| {
        let tier = open(dir.path(), 64 << 20);
        for n in 0..1500 {
            tier.put(key(n), tile(n, 1, 8000));
            if n % 20 == 0 {
                tier.wait_written(LONG);
            }
        }
        assert!(tier.stats().io_errors(DiskOperation::Write) > 0);
        put_until_written(&tier, 5000);
        assert_eq!(get(&tier, &key(5000)), Some(tile(5000, 1, 5000)));
        let check = |tier: &DiskTier| {
            let found = (0..1500).filter(|&n| {
                let found = get(tier, &key(n));
                assert!(found.is_none() || found == Some(tile(n, 1, 8000)));
                found.is_some()
            });
            assert!(found.count() > 300);
        };
        check(&tier);
        drop(tier);
        check(&open(dir.path(), 64 << 20));
    });
    let unmounted = Command::new("umount").arg(dir.path()).status();
    assert!(unmounted.unwrap().success());
    outcome.unwrap();
}

#[test]
fn a_folder_on_a_read_only_file_system_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m,ro", "tmpfs"])
        .arg(dir.path())
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        return;
    }
    let refused = DiskTier::open(settings(dir.path(), SMALL));
    assert!(
        Command::new("umount")
            .arg(dir.path())
            .status()
            .unwrap()
            .success()
    );
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, DiskOpenError::ReadOnly { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("read-only"));
}

#[tokio::test]
async fn a_read_that_waits_for_the_disk_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (tier, faults) = failing(dir.path(), SMALL);
    for n in 0..4 {
        put(&tier, key(n), &tile(n, 1, 5000));
    }
    assert!(tier.wait_written(LONG));
    faults.cold(true);
    faults.stall_reads(true);
    let waiting = tokio::spawn({
        let tier = tier.clone();
        async move { tier.get(&key(0)).await }
    });
    // It has begun, and does not end; on this very thread others are answered meanwhile.
    tokio::task::yield_now().await;
    faults.cold(false);
    for n in 1..4 {
        assert_eq!(tier.get(&key(n)).await, Some(tile(n, 1, 5000)));
    }
    assert!(!waiting.is_finished());
    faults.stall_reads(false);
    assert_eq!(waiting.await.unwrap(), Some(tile(0, 1, 5000)));
    assert_eq!(tier.stats().hits_blocking, 1);
}

#[tokio::test]
async fn a_read_that_a_purge_overtakes_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let (tier, faults) = failing(dir.path(), SMALL);
    put(&tier, key(0), &tile(0, 1, 5000));
    assert!(tier.wait_written(LONG));
    faults.cold(true);
    faults.stall_reads(true);
    let waiting = tokio::spawn({
        let tier = tier.clone();
        async move { tier.get(&key(0)).await }
    });
    tokio::task::yield_now().await;
    assert!(tier.invalidate(&key(0)));
    faults.stall_reads(false);
    assert_eq!(waiting.await.unwrap(), None);
}
