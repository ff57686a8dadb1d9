use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Splitmix64: well spread, and always the same.
fn hash(seed: u64, tile: u64) -> u64 {
    let mut z = (seed << 40 ^ tile).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn at(seconds: u64) -> Uptime {
    Uptime::from_secs(seconds)
}

fn wide() -> Arc<Room> {
    Arc::new(Room::new(1 << 30))
}

fn tiles(budget: u32) -> DistinctTiles {
    DistinctTiles::new(NonZeroU32::new(budget).unwrap(), wide())
}

/// How many new tiles go through at one moment.
fn passed(tiles: &mut DistinctTiles, seed: u64, from: u64, now: Uptime) -> u64 {
    (from..from + 1_000_000)
        .take_while(|tile| tiles.spend(hash(seed, *tile), now).is_ok())
        .count() as u64
}

proptest! {
    /// Against the same thing said with a map of every tile and its minute.
    #[test]
    fn it_is_the_exact_set_of_the_last_hour(
        budget in 1..60u32,
        steps in prop::collection::vec((0..400u64, 0..90u64), 1..600),
    ) {
        let mut tiles = tiles(budget);
        let mut reference: HashMap<u64, u64> = HashMap::new();
        let mut now = 7_000;
        for (pause, tile) in steps {
            now += pause;
            let minute = now / 60;
            reference.retain(|_, seen| *seen + 60 >= minute);
            let fits = reference.contains_key(&tile) || reference.len() < budget as usize;
            if fits {
                reference.insert(tile, minute);
            }
            prop_assert_eq!(tiles.spend(hash(1, tile), at(now)).is_ok(), fits);
            prop_assert_eq!(tiles.count(), reference.len() as u64);
        }
    }

    /// Whatever the times, the table's sums stay true and nothing panics.
    #[test]
    fn no_order_of_times_breaks_it(steps in prop::collection::vec((any::<u64>(), 0..200u64), 1..200)) {
        let mut tiles = tiles(100);
        for (nanos, tile) in steps {
            let now = Uptime::from_nanos(nanos);
            if let Err(wait) = tiles.spend(hash(2, tile), now) {
                prop_assert!(wait <= Duration::from_mins(61));
            }
            let total: u32 = tiles.by_minute.iter().sum();
            prop_assert_eq!(total, tiles.live);
            prop_assert_eq!(tiles.seen.iter().count(), tiles.live as usize);
            prop_assert!(tiles.live <= 100);
        }
    }
}

#[test]
fn what_was_seen_is_free_and_served_when_the_budget_is_spent() {
    let mut tiles = tiles(20_000);
    assert_eq!(passed(&mut tiles, 3, 0, at(100)), 20_000);
    assert!(tiles.is_exact());
    for tile in 0..20_000 {
        assert!(tiles.spend(hash(3, tile), at(200)).is_ok());
    }
    assert!(tiles.spend(hash(3, 20_000), at(200)).is_err());
    assert_eq!(tiles.count(), 20_000, "refused tiles are not counted");
}

#[test]
fn no_hour_holds_more_than_the_budget_wherever_it_begins() {
    const BUDGET: u32 = 500;
    for offset in [0, 1, 30, 59] {
        let mut tiles = tiles(BUDGET);
        let mut served = Vec::new();
        // A scraper that never asks twice, faster than it is let, for five hours.
        for second in 0..5 * 3600 {
            let now = offset + second;
            if tiles.spend(hash(4, second), at(now)).is_ok() {
                served.push(now);
            }
        }
        let mut first = 0;
        let mut most = 0;
        for last in 0..served.len() {
            while served[last] - served[first] >= 3600 {
                first += 1;
            }
            most = most.max(last - first + 1);
        }
        assert_eq!(most, BUDGET as usize);
        assert!(served.len() >= 4 * BUDGET as usize, "{}", served.len());
    }
}

#[test]
fn the_wait_is_until_the_first_that_counts_leaves() {
    let mut tiles = tiles(3);
    for (tile, second) in [(1, 70), (2, 130), (3, 200)] {
        tiles.spend(hash(5, tile), at(second)).unwrap();
    }
    // The first was seen in minute 1, which counts to the end of minute 61.
    let wait = tiles.spend(hash(5, 4), at(300)).unwrap_err();
    assert_eq!(wait, Duration::from_mins(62 - 5));
    let before = Uptime::from_nanos((at(300) + wait).nanos() - 1);
    assert!(tiles.spend(hash(5, 4), before).is_err());
    assert!(tiles.spend(hash(5, 4), at(300) + wait).is_ok());
    assert!(tiles.spend(hash(5, 5), at(300) + wait).is_err());
}

#[test]
fn a_step_back_frees_nothing_and_locks_out_for_no_longer() {
    let mut tiles = tiles(10);
    assert_eq!(passed(&mut tiles, 6, 0, at(100_000)), 10);
    let wait = tiles.spend(hash(6, 99), at(5)).unwrap_err();
    assert!(wait <= Duration::from_mins(61));
    assert!(tiles.spend(hash(6, 3), at(5)).is_ok(), "seen");
    assert_eq!(passed(&mut tiles, 6, 100, at(100_000 + 3_660)), 10);
}

#[test]
fn a_sample_is_right_to_within_its_error() {
    const BUDGET: u32 = 200_000;
    let mut errors = Vec::new();
    for seed in 10..18 {
        let mut tiles = tiles(BUDGET);
        let passed = passed(&mut tiles, seed, 0, at(1));
        assert!(!tiles.is_exact());
        assert!(tiles.seen.slots() <= 65_536);
        errors.push(f64::from(u32::try_from(passed).unwrap()) / f64::from(BUDGET) - 1.0);
    }
    let square = errors.iter().map(|error| error * error).sum::<f64>();
    let deviation = (square / 8.0).sqrt();
    // sqrt((1 - 0.16384) / 32768) = 0.505 %
    assert!(deviation < 0.0075, "{deviation} {errors:?}");
    assert!(
        errors.iter().all(|error| error.abs() < 0.0166),
        "{errors:?}"
    );
}

#[test]
fn a_sampled_budget_slides_too() {
    let mut tiles = tiles(100_000);
    let first = passed(&mut tiles, 20, 0, at(0));
    assert!(tiles.spend(hash(20, 9_000_000), at(3_659)).is_err());
    let second = passed(&mut tiles, 20, 1_000_000, at(3_660));
    for passed in [first, second] {
        assert!((98_000..102_000).contains(&passed), "{passed}");
    }
}

#[test]
fn tables_grow_with_use_and_give_their_room_back() {
    let room = wide();
    let mut tiles = DistinctTiles::new(NonZeroU32::new(20_000).unwrap(), Arc::clone(&room));
    assert_eq!(room.taken(), 0, "who has seen nothing takes nothing");
    for tile in 0..500 {
        tiles.spend(hash(21, tile), at(10)).unwrap();
    }
    assert_eq!(room.taken(), 5_120);
    passed(&mut tiles, 21, 1_000, at(20));
    assert_eq!(room.taken(), 163_840);
    // A day of as many new tiles as are let through, and not a byte more.
    for second in 0..86_400 {
        let _ = tiles.spend(hash(21, 100_000 + second), at(20 + second));
        assert!(room.taken() <= 163_840);
    }
    tiles.advance(at(1_000_000));
    assert_eq!((room.taken(), tiles.count()), (0, 0));
    passed(&mut tiles, 21, 0, at(1_000_000));
    drop(tiles);
    assert_eq!(room.taken(), 0);
}

#[test]
fn where_room_is_short_a_budget_is_judged_by_fewer_tiles() {
    let room = Arc::new(Room::new(40 << 10));
    let budget = NonZeroU32::new(20_000).unwrap();
    let mut tiles = DistinctTiles::new(budget, Arc::clone(&room));
    let first = passed(&mut tiles, 22, 0, at(1));
    assert!(room.taken() <= 40 << 10, "{}", room.taken());
    assert!(!tiles.is_exact());
    // At least 2,500 of the sample: 1.9 %, three times that.
    assert!((18_900..21_100).contains(&first), "{first}");
    // With no room at all, the least sample is taken all the same: it has to be judged by something.
    room.take(1 << 20);
    let mut tiles = DistinctTiles::new(budget, Arc::clone(&room));
    let first = passed(&mut tiles, 23, 0, at(1));
    assert!((18_100..21_900).contains(&first), "{first}");
    assert!(Seen::bytes_of(tiles.seen.slots()) <= 10_240);
    tiles.advance(at(4_000));
    assert!(tiles.is_exact(), "from the next hour on");
}
