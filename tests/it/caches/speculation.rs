//! Guesses: fetched behind, for nobody, and in nobody's way.

use std::sync::Arc;
use std::time::Duration;

use tilekeep::cache::{CacheStatus, Guesses, MemoryTier, Wanted};
use tilekeep::metrics::{Guess, GuessKind};
use tilekeep::origin::failing::{Fault, Gate};
use tilekeep::origin::limits::LimitSettings;
use tilekeep::origin::{Lane, OriginErrorKind};
use tilekeep::tile::{Scale, TileCoord};

use super::World;

/// Guesses may be so many at once, of eight.
fn world(speculative: usize) -> World {
    with(speculative, &[GuessKind::Ring], 16 << 20)
}

fn with(speculative: usize, kinds: &[GuessKind], memory: u64) -> World {
    let limits = LimitSettings {
        speculative,
        ..LimitSettings::new(8)
    };
    let limits = Some((limits, Guesses::of(kinds)));
    let world = World::over(Some(MemoryTier::new(memory)), None, limits);
    for z in 3..6_u8 {
        for x in 0..1 << z {
            for y in 0..1 << z {
                let coord = TileCoord::new(z, x, y).unwrap();
                let origin = world.origin.inner();
                origin.put(&world.tileset, coord, Scale::One, "tile", None);
            }
        }
    }
    world
}

fn wanted(world: &World, x: u32, y: u32) -> Wanted<'_> {
    at(world, 5, x, y)
}

fn at(world: &World, z: u8, x: u32, y: u32) -> Wanted<'_> {
    Wanted {
        tileset: &world.tileset,
        coord: TileCoord::new(z, x, y).unwrap(),
        scale: Scale::One,
    }
}

/// A view of three by three tiles, as somebody sees it. How many of its tiles were not at hand.
async fn look(world: &World, z: u8, (x, y): (u32, u32)) -> usize {
    let mut fetched = 0;
    for (dx, dy) in (0..9).map(|n| (n % 3, n / 3)) {
        let served = world.cache.get(at(world, z, x + dx, y + dy)).await.unwrap();
        fetched += usize::from(matches!(served.status, CacheStatus::Fetched { .. }));
        world.settled().await;
    }
    fetched
}

#[tokio::test]
async fn a_view_that_is_zoomed_has_its_middles_children_fetched_and_one_that_is_moved_has_not() {
    let children = [GuessKind::Children];
    let world = with(4, &children, 16 << 20);
    // Nobody came from above to the first view: nothing is guessed, however often it is moved.
    assert_eq!(look(&world, 3, (2, 2)).await, 9);
    assert_eq!(look(&world, 3, (3, 2)).await, 3);
    let made = || world.metrics.guesses.get(GuessKind::Children, Guess::Made);
    assert_eq!((world.origin.calls(), made()), (12, 0));
    // A moment later somebody zooms: the one tile inside has four children, and they are there at the next zoom.
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(look(&world, 4, (6, 6)).await, 9);
    assert_eq!((world.origin.calls(), made()), (12 + 9 + 4, 4));
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(look(&world, 5, (13, 13)).await, 9 - 4);
    let came_true = world
        .metrics
        .guesses
        .get(GuessKind::Children, Guess::CameTrue);
    assert_eq!((came_true, made()), (4, 4), "there is nothing deeper");
    assert_eq!(world.metrics.guesses.get(GuessKind::Ring, Guess::Made), 0);
}

#[tokio::test]
async fn who_comes_long_after_the_parent_was_seen_does_not_zoom() {
    let world = with(4, &[GuessKind::Children], 16 << 20);
    look(&world, 3, (2, 2)).await;
    world.clock.advance(Duration::from_mins(1));
    look(&world, 4, (6, 6)).await;
    let made = world.metrics.guesses.get(GuessKind::Children, Guess::Made);
    assert_eq!(made, 0);
}

#[tokio::test]
async fn a_jobs_tiles_lead_to_no_guesses() {
    let both = [GuessKind::Ring, GuessKind::Children];
    let world = with(4, &both, 16 << 20);
    for (z, x, y) in [(3, 2, 2), (4, 4, 4), (4, 5, 4), (4, 4, 5), (4, 5, 5)] {
        let now = world.clock.now();
        let fill = world.cache.fill(at(&world, z, x, y), Lane::Background, now);
        fill.await.unwrap();
    }
    world.settled().await;
    assert_eq!(world.origin.calls(), 5);
}

#[tokio::test]
async fn guesses_push_out_nothing_that_people_look_at() {
    let both = [GuessKind::Ring, GuessKind::Children];
    let world = with(8, &both, 1 << 20);
    let body: String = "x".repeat(8 << 10);
    let body: &'static str = body.leak();
    for (n, coord) in (0..32 * 32).map(|n| (n, TileCoord::new(5, n % 32, n / 32).unwrap())) {
        // No two bodies are the same: such are kept once.
        let body: &'static str = &body[usize::try_from(n).unwrap()..];
        let origin = world.origin.inner();
        origin.put(&world.tileset, coord, Scale::One, body, None);
    }
    // Some fifty tiles are looked at by everybody, and fill a good part of the memory.
    let looked_at: Vec<_> = (0..48).map(|n| (n % 8, n / 8)).collect();
    for _ in 0..5 {
        for (x, y) in &looked_at {
            world.cache.get(wanted(&world, *x, *y)).await.unwrap();
            world.settled().await;
        }
    }
    // One walks through all the rest, each step with its guesses: ten times what there is room for.
    for (x, y) in (0..256).map(|n| (n % 32, 10 + 2 * (n / 32))) {
        world.cache.get(wanted(&world, x, y)).await.unwrap();
        world.settled().await;
        let (x, y) = looked_at[usize::try_from(x + y).unwrap() % looked_at.len()];
        world.cache.get(wanted(&world, x, y)).await.unwrap();
    }
    let made = world.metrics.guesses.get(GuessKind::Ring, Guess::Made);
    assert!(made > 300, "{made}");
    let asked = world.origin.calls();
    for (x, y) in &looked_at {
        world.cache.get(wanted(&world, *x, *y)).await.unwrap();
        world.settled().await;
    }
    // The admission counts how often a tile is asked for in a sketch, which is small here, and by a hash that is
    // another in each run: some tiles are taken for others (0 to 7 were seen). Without it nearly all would be gone.
    let fetched = world.origin.calls() - asked;
    assert!(fetched <= 12, "{fetched} of 48 had to be fetched again");
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
    assert_eq!(guesses.get(GuessKind::Ring, Guess::CameTrue), 1);
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
