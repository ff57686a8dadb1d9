//! Purges: in effect when they return, and a soft one the same in every tier.

use super::*;

#[tokio::test]
async fn a_purge_is_in_effect_before_it_returns_also_for_fetches_under_way() {
    let world = Arc::new(World::new());
    world.put(1, "old");
    world.put(2, "old");
    world.got(1).await;
    let gate = Gate::default();
    world.origin.fail_next(1, Fault::Hold(gate.clone()));
    let under_way = {
        let world = world.clone();
        tokio::spawn(async move { world.got(2).await })
    };
    while world.origin.calls() < 2 {
        tokio::task::yield_now().await;
    }
    let purged = world.cache.purge(Purge::Hard, |_| true);
    assert_eq!(purged.memory, 1);
    world.put(1, "new");
    world.put(2, "new");
    assert_eq!(world.got(1).await.0.as_deref(), Some("new"));
    assert_eq!(
        world.got(2).await.0.as_deref(),
        Some("new"),
        "not the fetch from before"
    );
    gate.open();
    under_way.await.unwrap();
    let (body, _) = world.got(2).await;
    assert_eq!(
        body.as_deref(),
        Some("new"),
        "nor does that fetch put its tile back"
    );
}

#[tokio::test]
async fn a_soft_purge_revalidates_and_still_stands_in() {
    let world = World::new();
    world.put(1, "one");
    world.got(1).await;
    assert_eq!(world.cache.purge(Purge::Soft, |_| true).memory, 1);
    world
        .origin
        .fail_always(Fault::error(OriginErrorKind::Unreachable));
    let (body, status) = world.got(1).await;
    assert_eq!(
        (body.as_deref(), status),
        (Some("one"), hit(Tier::Memory, -1))
    );
    world.settled().await;
    world.origin.heal();
    world.put(1, "two");
    world.pass(6);
    world.got(1).await;
    world.settled().await;
    assert_eq!(world.got(1).await.0.as_deref(), Some("two"));
}

/// What a soft purge leaves: stale as of now, and both windows count from there.
async fn is_stale_as_of_the_purge(world: &World, tier: Tier, purged_at: Timestamp) {
    let after = |seconds| purged_at + Duration::from_secs(seconds);
    world
        .origin
        .fail_always(Fault::error(OriginErrorKind::Unreachable));
    world.clock.set(after(990));
    let (body, status) = world.got(1).await;
    assert_eq!((body.as_deref(), status), (Some("one"), hit(tier, -990)));
    world.settled().await;
    world.clock.set(after(4990));
    let (body, status) = world.got(1).await;
    assert_eq!(body.as_deref(), Some("one"));
    let error = OriginErrorKind::Unreachable;
    assert_eq!(status, CacheStatus::StaleIfError { error, ttl: -4990 });
    world.clock.set(after(5010));
    assert!(world.get(1).await.is_err(), "past stale_if_error");
    world.origin.heal();
    assert_eq!(world.got(1).await.0.as_deref(), Some("one"));
}

#[tokio::test]
async fn a_soft_purge_means_the_same_in_memory_on_disk_and_after_a_restart() {
    let world = World::new();
    world.put(1, "one");
    world.got(1).await;
    world.got(2).await;
    world.pass(50);
    let purged = world.cache.purge(Purge::Soft, |_| true);
    assert_eq!(purged.memory, 2);
    world.put(2, "come");
    assert_eq!(
        world.got(2).await.0.as_deref(),
        Some("come"),
        "an absence is dropped"
    );
    is_stale_as_of_the_purge(&world, Tier::Memory, world.clock.now()).await;

    let folder = tempfile::tempdir().unwrap();
    let settings = DiskSettings {
        path: folder.path().join("cache"),
        capacity: 64 << 20,
    };
    for restart in [false, true] {
        let open = || DiskTier::open(settings.clone()).unwrap();
        let mut world = World::with(None, Some(open()));
        world.put(1, "one");
        world.remove(2);
        world.cache.purge(Purge::Hard, |_| true);
        world.got(1).await;
        world.got(2).await;
        world.pass(50);
        let purged_at = world.clock.now();
        assert_eq!(world.cache.purge(Purge::Soft, |_| true).disk, 2);
        if restart {
            let disk = world.cache.disk().unwrap();
            assert!(disk.close(Duration::from_secs(5)).await);
            drop(world);
            world = World::with(None, Some(open()));
            let disk = world.cache.disk().unwrap();
            assert!(disk.wait_recovered(Duration::from_secs(10)));
            world.put(1, "one");
        }
        world.put(2, "come");
        assert_eq!(
            world.got(2).await.0.as_deref(),
            Some("come"),
            "an absence is dropped"
        );
        is_stale_as_of_the_purge(&world, Tier::Disk, purged_at).await;
    }
}

#[tokio::test]
async fn tiles_by_name_leave_both_tiers_for_good_and_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let settings = DiskSettings {
        path: folder.path().join("cache"),
        capacity: 64 << 20,
    };
    let open = || DiskTier::open(settings.clone()).unwrap();
    let world = Arc::new(World::with(Some(MemoryTier::new(8 << 20)), Some(open())));
    for n in [1, 2, 3] {
        world.put(n, "old");
        world.got(n).await;
    }
    world.got(4).await;
    let gate = Gate::default();
    world.origin.fail_next(1, Fault::Hold(gate.clone()));
    world.put(5, "old");
    let calls = world.origin.calls();
    let under_way = {
        let world = world.clone();
        tokio::spawn(async move { world.got(5).await })
    };
    while world.origin.calls() == calls {
        tokio::task::yield_now().await;
    }
    // The last one was never there.
    let keys = [1, 4, 5, 9].map(|n| world.wanted(n).key());
    let purged = world.cache.purge_tiles(&keys);
    assert_eq!((purged.memory, purged.disk), (2, 2));
    for n in [1, 2, 4, 5] {
        world.put(n, "new");
    }
    assert_eq!(world.got(5).await.0.as_deref(), Some("new"));
    gate.open();
    under_way.await.unwrap();
    let bodies = async |world: &World| {
        let mut bodies = Vec::new();
        for n in [1, 2, 3, 4, 5] {
            bodies.push(world.got(n).await.0.unwrap_or_default());
        }
        bodies
    };
    let wanted = ["new", "old", "old", "new", "new"];
    assert_eq!(bodies(&world).await, wanted);
    // And a crash brings nothing back.
    world.cache.purge_tiles(&[world.wanted(2).key()]);
    let disk = world.cache.disk().unwrap();
    assert!(disk.close(Duration::from_secs(5)).await);
    drop(world);
    let world = World::with(None, Some(open()));
    let disk = world.cache.disk().unwrap();
    assert!(disk.wait_recovered(Duration::from_secs(10)));
    for n in [1, 2, 3, 4, 5] {
        world.put(n, "newest");
    }
    let wanted = ["new", "newest", "old", "new", "new"];
    assert_eq!(bodies(&world).await, wanted);
}

/// What it costs beside a million others; run by hand: `cargo test --test it a_million -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement, of a minute"]
async fn a_purge_of_a_thousand_tiles_among_a_million() {
    use tilekeep::cache::{Stored, StoredAbsence};
    let folder = tempfile::tempdir().unwrap();
    let disk = DiskTier::open(DiskSettings {
        path: folder.path().join("cache"),
        capacity: 4 << 30,
    });
    let memory = MemoryTier::new(4 << 30);
    let disk = disk.unwrap();
    let tileset = tileset(spec("world", TileFormat::Png));
    let key = |n: u32| {
        let coord = TileCoord::new(20, n, 0).unwrap();
        tileset.tile_key(coord, Scale::One)
    };
    let absent = Stored::Absence(StoredAbsence {
        validated_at: Timestamp::from_secs(1),
    });
    for n in 0..1_000_000 {
        memory.put(key(n), absent.clone());
        let _ = disk.put(key(n), absent.clone());
        if n % 1_000 == 0 {
            assert!(disk.wait_written(Duration::from_mins(1)));
        }
    }
    memory.settle();
    let entries = (memory.entries(), disk.stats().entries);
    let world = World::with(Some(memory), Some(disk));
    for _ in 0..3 {
        let begun = tokio::time::Instant::now();
        let swept = world.cache.purge(Purge::Hard, |_| false);
        let sweep = begun.elapsed();
        let keys: Vec<_> = (0..1_000).map(key).collect();
        let begun = tokio::time::Instant::now();
        let purged = world.cache.purge_tiles(&keys);
        println!(
            "{entries:?}: a sweep {sweep:?} {swept:?}, a thousand by name {:?} {purged:?}",
            begun.elapsed()
        );
    }
}
