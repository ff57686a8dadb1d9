//! Guesses: fetched behind, for nobody, and in nobody's way.

use std::sync::Arc;

use tilekeep::cache::{CacheStatus, MemoryTier, Wanted};
use tilekeep::metrics::Guess;
use tilekeep::origin::failing::{Fault, Gate};
use tilekeep::origin::limits::LimitSettings;
use tilekeep::origin::{Lane, OriginErrorKind};
use tilekeep::tile::{Scale, TileCoord};

use super::World;

/// Guesses may be so many at once, of eight.
fn world(speculative: usize) -> World {
    let limits = LimitSettings {
        speculative,
        ..LimitSettings::new(8)
    };
    let world = World::over(Some(MemoryTier::new(16 << 20)), None, Some(limits));
    for x in 0..32 {
        for y in 0..32 {
            let coord = TileCoord::new(5, x, y).unwrap();
            let origin = world.origin.inner();
            origin.put(&world.tileset, coord, Scale::One, "tile", None);
        }
    }
    world
}

fn wanted(world: &World, x: u32, y: u32) -> Wanted<'_> {
    Wanted {
        tileset: &world.tileset,
        coord: TileCoord::new(5, x, y).unwrap(),
        scale: Scale::One,
    }
}

#[tokio::test]
async fn the_ring_around_a_miss_is_fetched_and_the_next_ring_when_it_is_wanted() {
    let world = world(4);
    world.cache.get(wanted(&world, 10, 10)).await.unwrap();
    world.settled().await;
    // At most four at once, and those beyond are not waited for: the rest of the eight may be left out.
    let first = world.origin.calls();
    assert!((1 + 4..=1 + 8).contains(&first), "{first}");
    let served = world.cache.get(wanted(&world, 9, 9)).await.unwrap();
    assert!(matches!(served.status, CacheStatus::Hit { .. }));
    world.settled().await;
    assert!(world.origin.calls() > first, "its own ring");
    let guesses = &world.metrics.guesses;
    assert_eq!(guesses.get(Guess::CameTrue), 1);
    // What came true is no guess any more: asked for again, it leads to nothing.
    let before = world.origin.calls();
    world.cache.get(wanted(&world, 9, 9)).await.unwrap();
    world.settled().await;
    assert_eq!(world.origin.calls(), before);
}

#[tokio::test]
async fn a_guess_is_not_made_while_somebody_waits_for_the_origin() {
    let world = world(4);
    let gate = Gate::default();
    world.origin.fail_always(Fault::Hold(gate.clone()));
    // Eight are under way, and four more wait.
    let mut people = Vec::new();
    for n in 0..12 {
        let (cache, tileset) = (world.cache.clone(), Arc::clone(&world.tileset));
        people.push(tokio::spawn(async move {
            let coord = TileCoord::new(5, n, 20).unwrap();
            let scale = Scale::One;
            let tileset = &tileset;
            cache
                .get(Wanted {
                    tileset,
                    coord,
                    scale,
                })
                .await
                .unwrap();
        }));
    }
    while world.origin.calls() < 8 {
        tokio::task::yield_now().await;
    }
    let guess = wanted(&world, 1, 1);
    let refused = world
        .cache
        .fill(guess, Lane::Speculative, world.clock.now());
    let error = refused.await.unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::HeldBack);
    gate.open();
    for person in people {
        person.await.unwrap();
    }
}

#[tokio::test]
async fn who_looks_at_a_map_does_not_wait_as_the_job_whose_fetch_they_join() {
    let world = world(0);
    let gate = Gate::default();
    world.origin.fail_always(Fault::Hold(gate.clone()));
    let job = |n: u32| {
        let (cache, tileset) = (world.cache.clone(), Arc::clone(&world.tileset));
        let now = world.clock.now();
        tokio::spawn(async move {
            let coord = TileCoord::new(5, n, 3).unwrap();
            let scale = Scale::One;
            let tileset = &tileset;
            let wanted = Wanted {
                tileset,
                coord,
                scale,
            };
            cache.fill(wanted, Lane::Background, now).await.unwrap();
        })
    };
    let jobs: Vec<_> = (0..6).map(job).collect();
    while world.cache.fills_in_flight() < 6 || world.origin.calls() < 4 {
        tokio::task::yield_now().await;
    }
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.origin.calls(), 4, "half of eight is a job's share");
    // The fifth waits for its turn. A person wants it now.
    let asked: Vec<_> = world.origin.seen();
    let waiting = (0..6).find(|&n| asked.iter().all(|request| request.coord.x() != n));
    let person = {
        let (cache, tileset) = (world.cache.clone(), Arc::clone(&world.tileset));
        let now = world.clock.now();
        tokio::spawn(async move {
            let coord = TileCoord::new(5, waiting.unwrap(), 3).unwrap();
            let scale = Scale::One;
            let tileset = &tileset;
            let wanted = Wanted {
                tileset,
                coord,
                scale,
            };
            cache.fill(wanted, Lane::Interactive, now).await.unwrap()
        })
    };
    while world.origin.calls() < 5 {
        tokio::task::yield_now().await;
    }
    gate.open();
    let served = person.await.unwrap();
    assert!(matches!(
        served.status,
        CacheStatus::Fetched {
            collapsed: true,
            ..
        }
    ));
    for job in jobs {
        job.await.unwrap();
    }
}
