//! More misses than the origin bears: refused before anything is begun for them.

use std::sync::Arc;

use tilekeep::cache::{CacheStatus, DiskSettings, DiskTier, Guesses, MemoryTier};
use tilekeep::metrics::OriginOutcome;
use tilekeep::origin::failing::{Fault, Gate};
use tilekeep::origin::limits::LimitSettings;
use tilekeep::origin::{Lane, OriginErrorKind};

use super::World;

/// One at a time, one more may wait.
const TIGHT: fn() -> LimitSettings = || LimitSettings {
    queue: 1,
    ..LimitSettings::new(1)
};

/// Two tiles are asked for, of which one waits: there is no room for more until the gate opens.
async fn full(world: &World) -> (Gate, Vec<tokio::task::JoinHandle<()>>) {
    let gate = Gate::default();
    world.origin.fail_always(Fault::Hold(gate.clone()));
    let asking = [20, 21].map(|n| {
        let (cache, tileset) = (world.cache.clone(), Arc::clone(&world.tileset));
        world.put(n, "tile");
        tokio::spawn(async move {
            let wanted = super::Wanted {
                tileset: &tileset,
                coord: super::at(n),
                scale: super::Scale::One,
            };
            cache.get(wanted).await.unwrap();
        })
    });
    while world.cache.fills_in_flight() < 2 || world.origin.calls() < 1 {
        tokio::task::yield_now().await;
    }
    // The second has found its place in the line.
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    (gate, asking.into())
}

#[tokio::test]
async fn what_the_origin_has_no_room_for_is_refused_without_a_fill() {
    let world = World::over(
        Some(MemoryTier::new(16 << 20)),
        None,
        Some((TIGHT(), Guesses::of(&[]))),
    );
    world.put(1, "one");
    let (gate, asking) = full(&world).await;
    for lane in [Lane::Interactive, Lane::Background] {
        let now = world.clock.now();
        let refused = world.cache.fill(world.wanted(1), lane, now);
        // At once: there is nothing that it could wait for.
        let error = tokio::select! {
            biased;
            refused = refused => refused.unwrap_err(),
            () = std::future::ready(()) => panic!("it waited"),
        };
        assert_eq!(error.kind, OriginErrorKind::HeldBack);
        assert!(error.retry_after.is_some());
    }
    assert_eq!(world.cache.fills_in_flight(), 2);
    assert_eq!(world.metrics.origin.get(OriginOutcome::HeldBack), 2);
    // Who asks for a tile that is on its way waits for that one.
    let joined = world.cache.get(world.wanted(21));
    gate.open();
    assert!(joined.await.is_ok());
    for asked in asking {
        asked.await.unwrap();
    }
    let (one, _) = world.got(1).await;
    assert_eq!(one.as_deref(), Some("one"), "there is room again");
}

#[tokio::test]
async fn what_is_held_is_served_however_full_the_origin_is() {
    let folder = tempfile::tempdir().unwrap();
    let settings = DiskSettings {
        path: folder.path().to_owned(),
        capacity: 64 << 20,
    };
    let disk = DiskTier::open(settings).unwrap();
    let limits = Some((TIGHT(), Guesses::of(&[])));
    let world = World::over(Some(MemoryTier::new(16 << 20)), Some(disk), limits);
    world.put(1, "one");
    world.got(1).await;
    // Past what may be served unasked, within what may stand in.
    world.pass(100 + 1000 + 1);
    let (gate, asking) = full(&world).await;
    let (one, status) = world.got(1).await;
    assert_eq!(one.as_deref(), Some("one"));
    let stands_in = CacheStatus::StaleIfError {
        error: OriginErrorKind::HeldBack,
        ttl: -1001,
    };
    assert_eq!(status, stands_in);
    // Dropped from memory, it is on disk still.
    world
        .cache
        .memory()
        .unwrap()
        .invalidate(world.wanted(1).key());
    let (one, _) = world.got(1).await;
    assert_eq!(one.as_deref(), Some("one"));
    gate.open();
    for asked in asking {
        asked.await.unwrap();
    }
}
