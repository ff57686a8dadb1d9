use std::sync::Arc;

use super::*;
use crate::origin::failing::{FailingOrigin, Fault, Gate, MemoryOrigin};
use crate::tile::{
    Access, Bounds, BrowserCaching, Delivery, Scale, TileCoord, TileFormat, Tileset, TilesetSpec,
};

const SECOND: Duration = Duration::from_secs(1);

type Origins = Arc<Limited<FailingOrigin<MemoryOrigin>>>;

fn request(deadline: Duration) -> OriginRequest {
    let tileset = Tileset::new(TilesetSpec {
        name: "world".into(),
        bucket: "bucket".into(),
        key: "{z}/{x}/{y}".into(),
        format: TileFormat::Png,
        minzoom: 0,
        maxzoom: 5,
        bounds: Bounds::new([-180.0, -85.0, 180.0, 85.0]).unwrap(),
        attribution: String::new(),
        version: None,
        missing: None,
        delivery: Delivery::default(),
        browser: BrowserCaching::default(),
        access: Access::default(),
        tilejson: serde_json::Map::new(),
    });
    OriginRequest {
        tileset: Arc::new(tileset.unwrap()),
        coord: TileCoord::new(0, 0, 0).unwrap(),
        scale: Scale::One,
        validator: None,
        deadline,
        urgency: Urgency::default(),
    }
}

fn limited(concurrency: usize, queue: usize) -> Origins {
    let settings = LimitSettings {
        queue,
        ..LimitSettings::new(concurrency)
    };
    let origin = MemoryOrigin::new();
    let request = request(SECOND);
    origin.put(&request.tileset, request.coord, Scale::One, "tile", None);
    Arc::new(Limited::new(FailingOrigin::new(origin), settings))
}

fn spawn(
    origin: &Origins,
    deadline: Duration,
) -> tokio::task::JoinHandle<Result<OriginReply, OriginError>> {
    let origin = Arc::clone(origin);
    tokio::spawn(async move { origin.fetch(request(deadline)).await })
}

/// Lets every spawned task run as far as it can.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_origin_never_sees_more_than_the_bound() {
    let origin = limited(2, 100);
    let gate = Gate::default();
    origin.inner().fail_always(Fault::Hold(gate.clone()));
    let tasks: Vec<_> = (0..10).map(|_| spawn(&origin, 10 * SECOND)).collect();
    settle().await;
    assert_eq!(origin.inner().calls(), 2);
    assert_eq!((origin.stats().in_flight, origin.stats().waiting), (2, 8));
    gate.open();
    for task in tasks {
        assert!(task.await.unwrap().is_ok());
    }
    assert_eq!(origin.stats().found, 10);
    assert_eq!((origin.stats().in_flight, origin.stats().waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_holds_back_at_once() {
    let origin = limited(1, 1);
    origin.inner().fail_always(Fault::Hang);
    let _first = spawn(&origin, 10 * SECOND);
    settle().await;
    let _second = spawn(&origin, 10 * SECOND);
    settle().await;
    let error = origin.fetch(request(10 * SECOND)).await.unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::HeldBack);
    assert!(error.retry_after.is_some());
    assert_eq!(origin.stats().queue_full, 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_told_before_anything_is_begun_and_counted_once() {
    let origin = limited(1, 1);
    origin.inner().fail_always(Fault::Hang);
    let refuses = |lane| origin.refuses(lane, 0, 10 * SECOND).map(|error| error.kind);
    assert_eq!(refuses(Lane::Interactive), None, "there is a slot");
    let _first = spawn(&origin, 10 * SECOND);
    settle().await;
    assert_eq!(refuses(Lane::Interactive), None, "there is a place");
    let _second = spawn(&origin, 10 * SECOND);
    settle().await;
    let held_back = Some(OriginErrorKind::HeldBack);
    assert_eq!(refuses(Lane::Interactive), held_back);
    let stats = origin.stats();
    let errors = stats.errors[OriginErrorKind::HeldBack.index()];
    assert_eq!((stats.queue_full, errors, stats.waiting), (1, 1, 1));
    assert_eq!(origin.inner().calls(), 1);
}

#[tokio::test]
async fn those_on_their_way_to_the_line_count_as_if_they_had_come() {
    let origin = limited(4, 10);
    let refuses = |begun| origin.refuses(Lane::Interactive, begun, SECOND).is_some();
    assert_eq!([0, 4, 13].map(refuses), [false; 3]);
    assert!(refuses(14), "4 slots and 10 places are taken");
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_told_before_anything_is_begun() {
    let origin = limited(4, 10);
    let unreachable = Fault::error(OriginErrorKind::Unreachable);
    origin.inner().fail_always(unreachable);
    for _ in 0..10 {
        assert!(origin.refuses(Lane::Interactive, 0, SECOND).is_none());
        let _ = origin.fetch(request(SECOND)).await;
    }
    let refused = origin.refuses(Lane::Interactive, 0, SECOND).unwrap();
    assert_eq!(refused.kind, OriginErrorKind::HeldBack);
    assert!(refused.retry_after.is_some());
    assert_eq!(origin.stats().circuit_open, 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_their_deadline() {
    let origin = limited(1, 10);
    origin.inner().fail_always(Fault::Hang);
    let _first = spawn(&origin, 60 * SECOND);
    settle().await;
    let started = Instant::now();
    let error = origin.fetch(request(2 * SECOND)).await.unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::HeldBack);
    assert_eq!(started.elapsed(), 2 * SECOND);
    assert_eq!(origin.stats().no_time, 1);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_served_in_time_is_told_at_once() {
    let origin = limited(1, 10);
    origin.inner().fail_next(8, Fault::Delay(8 * SECOND));
    for _ in 0..8 {
        origin.fetch(request(10 * SECOND)).await.unwrap();
    }
    origin.inner().fail_always(Fault::Hang);
    let _first = spawn(&origin, 60 * SECOND);
    settle().await;
    let started = Instant::now();
    let error = origin.fetch(request(SECOND)).await.unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::HeldBack);
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn time_spent_waiting_is_taken_off_the_deadline() {
    let origin = limited(1, 10);
    origin.inner().fail_next(1, Fault::Delay(2 * SECOND));
    let first = spawn(&origin, 10 * SECOND);
    settle().await;
    spawn(&origin, 10 * SECOND).await.unwrap().unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(origin.inner().seen()[1].deadline, 8 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_hangs_loses_its_slot() {
    let origin = limited(1, 10);
    origin.inner().fail_next(1, Fault::Hang);
    let error = origin.fetch(request(SECOND)).await.unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::Deadline);
    assert!(origin.fetch(request(SECOND)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_outage_opens_the_circuit_and_it_closes_by_itself() {
    let origin = limited(4, 10);
    origin
        .inner()
        .fail_always(Fault::error(OriginErrorKind::Unreachable));
    for _ in 0..30 {
        let _ = origin.fetch(request(SECOND)).await;
    }
    assert_eq!(origin.inner().calls(), 10, "the rest was held back");
    let stats = origin.stats();
    assert_eq!(
        (stats.circuit, stats.circuit_open),
        (BreakerState::Open, 20)
    );
    assert_eq!(stats.errors[OriginErrorKind::Unreachable.index()], 10);
    assert_eq!(stats.errors[OriginErrorKind::HeldBack.index()], 20);
    origin.inner().heal();
    tokio::time::sleep(SECOND).await;
    assert!(origin.fetch(request(SECOND)).await.is_ok());
    assert_eq!(origin.stats().circuit, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn one_bad_object_or_a_denial_does_not_close_the_door_for_all() {
    let origin = limited(4, 10);
    let too_large = OriginError::of_object(OriginErrorKind::Server, "too large");
    origin.inner().fail_next(50, Fault::Error(too_large));
    let denied = Fault::error(OriginErrorKind::Denied);
    origin.inner().fail_next(50, denied);
    for _ in 0..100 {
        let _ = origin.fetch(request(SECOND)).await;
    }
    assert!(origin.fetch(request(SECOND)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_frees_its_slot_and_is_counted() {
    let origin = limited(1, 10);
    origin.inner().fail_next(1, Fault::Hang);
    let task = spawn(&origin, 60 * SECOND);
    settle().await;
    task.abort();
    settle().await;
    assert_eq!(origin.stats().abandoned, 1);
    assert!(origin.fetch(request(SECOND)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn jobs_have_half_at_most_and_people_all_the_rest() {
    let origin = limited(8, 100);
    let gate = Gate::default();
    origin.inner().fail_always(Fault::Hold(gate.clone()));
    let ask = |lane| {
        let origin = Arc::clone(&origin);
        tokio::spawn(async move {
            let urgency = Urgency::new(lane);
            let asked = OriginRequest {
                urgency,
                ..request(10 * SECOND)
            };
            origin.fetch(asked).await
        })
    };
    let mut tasks: Vec<_> = (0..20).map(|_| ask(Lane::Background)).collect();
    settle().await;
    assert_eq!((origin.inner().calls(), origin.stats().waiting), (4, 16));
    tasks.extend((0..4).map(|_| ask(Lane::Interactive)));
    settle().await;
    assert_eq!(origin.inner().calls(), 8, "nobody waits behind jobs");
    gate.open();
    for task in tasks {
        assert!(task.await.unwrap().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_guess_never_waits_and_leaves_slots_for_those_who_come() {
    let origin = MemoryOrigin::new();
    let guess = || OriginRequest {
        urgency: Urgency::new(Lane::Speculative),
        ..request(10 * SECOND)
    };
    let settings = LimitSettings {
        speculative: 8,
        ..LimitSettings::new(16)
    };
    let origin = Arc::new(Limited::new(FailingOrigin::new(origin), settings));
    origin.inner().fail_always(Fault::Hang);
    let ask = |request: OriginRequest| {
        let origin = Arc::clone(&origin);
        tokio::spawn(async move { origin.fetch(request).await })
    };
    // People have 12 of 16: of the four left, two are for people who come.
    let _people: Vec<_> = (0..12).map(|_| ask(request(60 * SECOND))).collect();
    settle().await;
    let _guesses: Vec<_> = (0..2).map(|_| ask(guess())).collect();
    settle().await;
    assert_eq!(origin.inner().calls(), 14);
    assert!(!origin.has_room_for_guess());
    let error = origin.fetch(guess()).await.unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::HeldBack);
    let _two: Vec<_> = (0..2).map(|_| ask(request(60 * SECOND))).collect();
    settle().await;
    assert_eq!((origin.inner().calls(), origin.stats().waiting), (16, 0));
    // All are taken and nobody waits: a guess would be the first in the line.
    let error = origin.fetch(guess()).await.unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::HeldBack);
    assert_eq!(origin.stats().waiting, 0);
}
