//! The look-up over memory, disk and origin, driven through its own interface: freshness, collapse,
//! failure, purge; and at the end against a reference model.

mod overload;
mod purge;
mod refresh;
mod speculation;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tilekeep::cache::{
    CacheStatus, DiskSettings, DiskTier, FreshnessPolicy, Guesses, MemoryTier, Purge, Revalidation,
    Served, Speculation, TileCache, TileCacheParts, Wanted,
};
use tilekeep::clock::{Clock, Timestamp};
use tilekeep::metrics::{Metrics, OriginOutcome, TierLabel as Tier};
use tilekeep::origin::failing::{FailingOrigin, Fault, Gate, MemoryOrigin};
use tilekeep::origin::limits::{LimitSettings, Limited};
use tilekeep::origin::{Lane, Origin, OriginError, OriginErrorKind};
use tilekeep::tile::{Scale, TileCoord, TileFormat, Tileset};

use crate::support::{START, spec, tileset};

const POLICY: FreshnessPolicy = FreshnessPolicy {
    fresh: Duration::from_secs(100),
    stale_while_revalidate: Duration::from_secs(1000),
    stale_if_error: Duration::from_secs(5000),
    missing: Duration::from_secs(10),
};

struct World {
    cache: TileCache,
    origin: Arc<FailingOrigin<MemoryOrigin>>,
    tileset: Arc<Tileset>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

fn at(n: u32) -> TileCoord {
    TileCoord::new(5, n, 0).unwrap()
}

impl World {
    fn new() -> Self {
        Self::with(Some(MemoryTier::new(16 << 20)), None)
    }

    fn with(memory: Option<MemoryTier>, disk: Option<DiskTier>) -> Self {
        Self::over(memory, disk, None)
    }

    /// With guesses, within these bounds.
    fn over(
        memory: Option<MemoryTier>,
        disk: Option<DiskTier>,
        limits: Option<(LimitSettings, Guesses)>,
    ) -> Self {
        let origin = Arc::new(FailingOrigin::new(MemoryOrigin::new()));
        let (clock, metrics) = (Clock::manual(START), Arc::new(Metrics::new()));
        let parts = TileCacheParts {
            memory,
            disk,
            policy: POLICY,
            deadline: Duration::from_secs(5),
            speculation: limits.map(|(_, guesses)| Speculation::new(guesses, metrics.clone())),
            clock: clock.clone(),
            metrics: metrics.clone(),
        };
        let source: Arc<dyn Origin> = match limits {
            Some((limits, _)) => Arc::new(Limited::new(origin.clone(), limits)),
            None => origin.clone(),
        };
        let cache = TileCache::new(parts, source);
        Self {
            cache,
            origin,
            tileset: tileset(spec("world", TileFormat::Png)),
            clock,
            metrics,
        }
    }

    fn put(&self, n: u32, body: &'static str) {
        self.origin
            .inner()
            .put(&self.tileset, at(n), Scale::One, body, None);
    }

    fn remove(&self, n: u32) {
        self.origin.inner().remove(&self.tileset, at(n), Scale::One);
    }

    fn wanted(&self, n: u32) -> Wanted<'_> {
        Wanted {
            tileset: &self.tileset,
            coord: at(n),
            scale: Scale::One,
        }
    }

    async fn get(&self, n: u32) -> Result<Served, OriginError> {
        self.cache.get(self.wanted(n)).await
    }

    /// The body, or `None` for an absence, and how it came about.
    async fn got(&self, n: u32) -> (Option<String>, CacheStatus) {
        let served = self.get(n).await.unwrap();
        let held = &served.held;
        let body = (!held.is_absence()).then(|| String::from_utf8(held.body().to_vec()).unwrap());
        (body, served.status)
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Waits until nothing runs behind answers any more.
    async fn settled(&self) {
        while self.cache.fills_in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

fn hit(tier: Tier, ttl: i64) -> CacheStatus {
    CacheStatus::Hit { tier, ttl }
}

#[tokio::test]
async fn a_tile_goes_from_fresh_to_stale_to_revalidated() {
    let world = World::new();
    world.put(1, "one");
    let one = Some("one".to_owned());
    assert_eq!(
        world.got(1).await,
        (
            one.clone(),
            CacheStatus::Fetched {
                stored: true,
                collapsed: false
            }
        )
    );
    world.pass(99);
    assert_eq!(world.got(1).await, (one.clone(), hit(Tier::Memory, 1)));
    // Stale inside its window: answered at once, revalidated behind, once.
    world.pass(1);
    for _ in 0..5 {
        assert_eq!(world.got(1).await, (one.clone(), hit(Tier::Memory, -1)));
    }
    world.settled().await;
    assert_eq!(world.origin.calls(), 2);
    assert_eq!(world.metrics.origin.get(OriginOutcome::NotModified), 1);
    assert_eq!(world.got(1).await, (one.clone(), hit(Tier::Memory, 100)));
    // Beyond it: revalidated first.
    world.pass(1100);
    let status = CacheStatus::Revalidated {
        found: Revalidation::NotModified,
        collapsed: false,
    };
    assert_eq!(world.got(1).await, (one, status));
    // Changed meanwhile.
    world.put(1, "two");
    world.pass(1100);
    let status = CacheStatus::Revalidated {
        found: Revalidation::Changed,
        collapsed: false,
    };
    assert_eq!(world.got(1).await, (Some("two".to_owned()), status));
}

#[tokio::test]
async fn an_absence_ends_when_the_tile_appears() {
    let world = World::new();
    assert_eq!(world.got(1).await.0, None);
    assert_eq!(world.got(1).await, (None, hit(Tier::Memory, 10)));
    world.put(1, "here");
    assert_eq!(world.got(1).await.0, None, "believed for ten seconds");
    world.pass(10);
    assert_eq!(world.got(1).await.0.as_deref(), Some("here"));
    world.remove(1);
    world.pass(1100);
    let status = CacheStatus::Revalidated {
        found: Revalidation::Absence,
        collapsed: false,
    };
    assert_eq!(world.got(1).await, (None, status));
}

#[tokio::test]
async fn a_failing_origin_is_covered_while_stale_if_error_lasts() {
    let world = World::new();
    world.put(1, "one");
    world.got(1).await;
    for kind in OriginErrorKind::ALL {
        // Beyond the first window, well inside the second, and past the pause after a failure.
        world
            .clock
            .set(START + Duration::from_secs(2000 + 100 * kind as u64));
        world.origin.fail_next(1, Fault::error(kind));
        let (body, status) = world.got(1).await;
        assert_eq!(body.as_deref(), Some("one"), "{kind:?}");
        assert!(matches!(status, CacheStatus::StaleIfError { error, .. } if error == kind));
        // Nobody else waits for it to fail again.
        let calls = world.origin.calls();
        assert!(matches!(
            world.got(1).await.1,
            CacheStatus::StaleIfError { .. }
        ));
        assert_eq!(world.origin.calls(), calls);
    }
    world.clock.set(START + Duration::from_mins(85));
    world
        .origin
        .fail_next(1, Fault::error(OriginErrorKind::Server));
    assert_eq!(
        world.get(1).await.unwrap_err().kind,
        OriginErrorKind::Server
    );
}

#[tokio::test]
async fn an_error_is_no_absence_and_is_not_kept() {
    let world = World::new();
    world.put(1, "one");
    world
        .origin
        .fail_next(1, Fault::error(OriginErrorKind::Denied));
    assert_eq!(
        world.get(1).await.unwrap_err().kind,
        OriginErrorKind::Denied
    );
    assert_eq!(world.got(1).await.0.as_deref(), Some("one"));
}

#[tokio::test]
async fn a_thousand_requests_for_a_cold_tile_make_one_fetch_whatever_disconnects() {
    let world = Arc::new(World::new());
    world.put(1, "one");
    let gate = Gate::default();
    world.origin.fail_next(1, Fault::Hold(gate.clone()));
    let requests: Vec<_> = (0..1000)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.got(1).await })
        })
        .collect();
    while world.origin.calls() == 0 {
        tokio::task::yield_now().await;
    }
    // Every third hangs up, the first of all among them.
    let mut waiting = Vec::new();
    for (n, request) in requests.into_iter().enumerate() {
        if n % 3 == 0 {
            request.abort();
        } else {
            waiting.push(request);
        }
    }
    gate.open();
    for request in waiting {
        let (body, status) = request.await.unwrap();
        assert_eq!(body.as_deref(), Some("one"));
        let joined = CacheStatus::Fetched {
            stored: true,
            collapsed: true,
        };
        assert!(
            status == joined || status == hit(Tier::Memory, 100),
            "{status:?}"
        );
    }
    assert_eq!(world.origin.calls(), 1);
}

#[tokio::test]
async fn a_leader_that_fails_fails_its_waiters_once() {
    let world = Arc::new(World::new());
    let gate = Gate::default();
    world.origin.fail_next(1, Fault::Hold(gate.clone()));
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.get(1).await.map(|_| ()) })
        })
        .collect();
    while world.origin.calls() == 0 {
        tokio::task::yield_now().await;
    }
    gate.open();
    for request in requests {
        request.await.unwrap().unwrap();
    }
    assert_eq!(world.origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fill_that_hangs_ends_and_the_next_request_starts_anew() {
    let world = World::new();
    world.put(1, "one");
    world.origin.fail_next(1, Fault::Hang);
    let late = world.get(1).await.unwrap_err();
    assert_eq!(late.kind, OriginErrorKind::Deadline);
    assert_eq!(world.cache.fills_in_flight(), 0);
    assert_eq!(world.got(1).await.0.as_deref(), Some("one"));
    // The same behind a stale answer, which nobody waits for.
    world.pass(500);
    world.origin.fail_next(1, Fault::Hang);
    assert_eq!(world.got(1).await.1, hit(Tier::Memory, -400));
    while world.cache.fills_in_flight() > 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.pass(6);
    world.got(1).await;
    world.settled().await;
    assert_eq!(world.got(1).await.1, hit(Tier::Memory, 100));
    // And where it has to be asked first, what is held stands in.
    world.pass(2000);
    world.origin.fail_next(1, Fault::Hang);
    let error = OriginErrorKind::Deadline;
    let stands_in = CacheStatus::StaleIfError { error, ttl: -1900 };
    assert_eq!(world.got(1).await, (Some("one".to_owned()), stands_in));
}

#[tokio::test]
async fn what_memory_lost_comes_from_disk_and_a_304_rewrites_nothing_there() {
    let folder = tempfile::tempdir().unwrap();
    let settings = DiskSettings {
        path: folder.path().join("cache"),
        capacity: 64 << 20,
    };
    let open = || DiskTier::open(settings.clone()).unwrap();
    let world = World::with(None, Some(open()));
    world.put(1, "one");
    world.got(1).await;
    assert_eq!(
        world.got(1).await,
        (Some("one".to_owned()), hit(Tier::Disk, 100))
    );
    world.pass(1100);
    let status = CacheStatus::Revalidated {
        found: Revalidation::NotModified,
        collapsed: false,
    };
    assert_eq!(world.got(1).await.1, status);
    let disk = world.cache.disk().unwrap();
    assert!(disk.close(Duration::from_secs(5)).await);
    assert_eq!(disk.stats().writes, 1, "the body was written once");
    let clock = world.clock.clone();
    drop(world);
    let again = World::with(Some(MemoryTier::new(16 << 20)), Some(open()));
    assert!(
        again
            .cache
            .disk()
            .unwrap()
            .wait_recovered(Duration::from_secs(10))
    );
    again.clock.set(clock.now() + Duration::from_secs(40));
    assert_eq!(
        again.got(1).await,
        (Some("one".to_owned()), hit(Tier::Disk, 60))
    );
    assert_eq!(
        again.got(1).await,
        (Some("one".to_owned()), hit(Tier::Memory, 60))
    );
    assert_eq!(again.origin.calls(), 0);
}

#[tokio::test]
async fn a_hit_waits_for_nothing_while_the_origin_hangs() {
    let world = World::new();
    world.put(1, "one");
    world.got(1).await;
    world.origin.fail_always(Fault::Hang);
    let world = Arc::new(world);
    let stuck: Vec<_> = (2..30)
        .map(|n| {
            let world = world.clone();
            tokio::spawn(async move { world.get(n).await.map(|_| ()) })
        })
        .collect();
    while world.origin.calls() < 29 {
        tokio::task::yield_now().await;
    }
    // Fresh, and later stale with a revalidation that hangs: answered without a pause either way.
    for _ in 0..2 {
        let served = world
            .cache
            .lookup(world.wanted(1), Lane::Interactive, world.clock.now());
        assert!(matches!(served.unwrap().status, CacheStatus::Hit { .. }));
        world.pass(200);
    }
    stuck.iter().for_each(tokio::task::JoinHandle::abort);
}

/// What a random history does.
#[derive(Debug, Clone)]
enum Step {
    Get(u32),
    Change(u32, u8),
    Remove(u32),
    Pass(u64),
    Back(u64),
    Fail(OriginErrorKind),
    Purge(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let tile = 0..3u32;
    prop_oneof![
        8 => tile.clone().prop_map(Step::Get),
        2 => (tile.clone(), 0..4u8).prop_map(|(n, body)| Step::Change(n, body)),
        1 => tile.clone().prop_map(Step::Remove),
        3 => prop_oneof![0..20u64, 90..110u64, 1000..1200u64, 4000..6000u64].prop_map(Step::Pass),
        1 => (0..2000u64).prop_map(Step::Back),
        2 => (0..OriginErrorKind::ALL.len()).prop_map(|k| Step::Fail(OriginErrorKind::ALL[k])),
        1 => tile.prop_map(Step::Purge),
    ]
}

/// The reference: of each tile everything that the origin ever had, and when it was last confirmed.
#[derive(Default)]
struct Model {
    origin: HashMap<u32, Option<u8>>,
    /// What a cache may hold: the body and when the origin last said so.
    held: HashMap<u32, (Option<u8>, u64)>,
}

const BODIES: [&str; 4] = ["a", "b", "c", "d"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens: an answer is what the origin has now, or what it had when it was last asked
    /// and that is young enough for the situation; and an error only where nothing could stand in.
    #[test]
    fn every_answer_is_one_that_the_reference_allows(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let mut model = Model::default();
            let mut faults = 0;
            for step in steps {
                match step {
                    Step::Change(n, body) => {
                        world.put(n, BODIES[usize::from(body)]);
                        model.origin.insert(n, Some(body));
                    }
                    Step::Remove(n) => {
                        world.remove(n);
                        model.origin.insert(n, None);
                    }
                    Step::Pass(seconds) => world.pass(seconds),
                    Step::Back(seconds) => {
                        let now = world.clock.now().secs();
                        world.clock.set(Timestamp::from_secs(now - seconds));
                    }
                    Step::Fail(kind) => {
                        world.origin.fail_next(1, Fault::error(kind));
                        faults += 1;
                    }
                    Step::Purge(n) => {
                        let key = world.wanted(n).key();
                        world.cache.purge(Purge::Hard, |k| *k == key);
                        model.held.remove(&n);
                    }
                    Step::Get(n) => {
                        let now = world.clock.now().secs();
                        let truth = model.origin.get(&n).copied().flatten();
                        let held = model.held.get(&n).copied();
                        let calls = world.origin.calls();
                        let answer = world.get(n).await;
                        world.settled().await;
                        let asked = world.origin.calls() > calls;
                        let failed = faults > 0 && asked;
                        faults -= usize::from(failed);
                        if asked && !failed {
                            model.held.insert(n, (truth, now));
                        }
                        let age = held.map(|(_, at)| now.saturating_sub(at));
                        let Ok(served) = answer else {
                            assert!(failed, "an error without a failing origin");
                            assert!(age.is_none_or(|age| age >= 5010), "{age:?}: something could stand in");
                            continue;
                        };
                        let given = &served.held;
                        let body = (!given.is_absence()).then(|| given.body().to_vec());
                        let word = |body: Option<u8>| body.map(|b| BODIES[usize::from(b)].as_bytes().to_vec());
                        match served.status {
                            CacheStatus::Fetched { .. } => {
                                assert!(asked && !failed);
                                assert_eq!(body, word(truth));
                            }
                            CacheStatus::Revalidated { .. } => {
                                assert!(held.is_some() && asked && !failed);
                                assert_eq!(body, word(truth));
                            }
                            CacheStatus::Hit { ttl, .. } => {
                                let (before, _) = held.expect("a hit on what was never stored");
                                assert_eq!(body, word(before));
                                let limit = if before.is_some() { 1100 } else { 10 };
                                assert!(age.unwrap() < limit, "{age:?} is too old for a hit");
                                if before.is_some() && age.unwrap() < 100 && ttl > 0 {
                                    assert!(!asked, "fresh, and the origin was asked");
                                }
                            }
                            CacheStatus::StaleIfError { .. } => {
                                let (before, _) = held.expect("stale, and never stored");
                                assert_eq!(body, word(before));
                                assert!(age.unwrap() < 5100);
                            }
                        }
                    }
                }
            }
        });
    }
}
