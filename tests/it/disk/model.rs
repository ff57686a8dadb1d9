//! Random operations against a tiny reference: a map.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Act {
    Put(u32, u64, usize),
    PutShared(u32, u64),
    PutAbsent(u32, u64),
    Touch(u32, u64),
    Invalidate(u32),
    Purge(u32),
    Expire(u32, u64),
    Get(u32),
    Written,
    Restart(bool),
}

fn acts(keys: u32, longest: usize) -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        8 => (0..keys, any::<u32>(), 12..longest)
            .prop_map(|(n, at, len)| Act::Put(n, at.into(), len)),
        3 => (0..keys, 0..4_u64).prop_map(|(n, which)| Act::PutShared(n, which)),
        2 => (0..keys, 1..1000_u64).prop_map(|(n, at)| Act::PutAbsent(n, at)),
        4 => (0..keys, 1..1000_u64).prop_map(|(n, at)| Act::Touch(n, at)),
        2 => (0..keys).prop_map(Act::Invalidate),
        1 => (1..9_u32).prop_map(Act::Purge),
        1 => (1..9_u32, 1..1000_u64).prop_map(|(nth, at)| Act::Expire(nth, at)),
        8 => (0..keys).prop_map(Act::Get),
        2 => Just(Act::Written),
        1 => any::<bool>().prop_map(Act::Restart),
    ];
    prop::collection::vec(act, 1..250)
}

/// What the reference has under a key, and when it was validated: the last is the truth, the others
/// what a restart may fall back to when a touch went with its segment. Never to before an expiry.
struct Held {
    stored: Stored,
    validated: Vec<u64>,
}

impl Held {
    fn new(stored: Stored) -> Self {
        let validated = vec![stored.validated_at().millis()];
        Self { stored, validated }
    }

    fn at(&self, at: u64) -> Stored {
        let at = Timestamp::from_millis(at);
        let mut stored = self.stored.clone();
        match &mut stored {
            Stored::Tile(tile) => tile.validated_at = at,
            Stored::Absence(absence) => absence.validated_at = at,
        }
        stored
    }
}

/// Runs the acts. `exact`: everything fits, so that nothing may be missing either.
fn run(acts: &[Act], capacity: u64, keys: u32, exact: bool) {
    let dir = tempfile::tempdir().unwrap();
    let mut tier = open(dir.path(), capacity);
    let mut model: HashMap<TileKey, Held> = HashMap::new();
    let check = |tier: &DiskTier, model: &HashMap<TileKey, Held>, n: u32| {
        let (found, held) = (get(tier, &key(n)), model.get(&key(n)));
        let at = found.as_ref().map(Stored::validated_at);
        let right = match (&found, held) {
            (None, held) => held.is_none() || !exact,
            (Some(_), None) => false,
            (Some(found), Some(held)) => {
                let mut times = held.validated.iter().rev();
                let times = times.by_ref().take(if exact { 1 } else { usize::MAX });
                times.into_iter().any(|&at| held.at(at) == *found)
            }
        };
        let times = held.map(|held| &held.validated);
        assert!(right, "key {n}: {at:?} instead of one of {times:?}");
    };
    let matches = |key: &TileKey, nth: u32| key.coord().unwrap().x() % 9 == nth;
    for act in acts {
        match *act {
            Act::Put(n, generation, len) => {
                put(&tier, key(n), &tile(n, generation, len));
                model.insert(key(n), Held::new(tile(n, generation, len)));
            }
            Act::PutShared(n, which) => {
                let stored = tile_of(noise(which, 3000), which);
                put(&tier, key(n), &stored);
                model.insert(key(n), Held::new(stored));
            }
            Act::PutAbsent(n, at) => {
                put(&tier, key(n), &absence(at));
                match model.get_mut(&key(n)) {
                    Some(held) if matches!(held.stored, Stored::Absence(_)) => {
                        held.validated.push(at);
                    }
                    _ => drop(model.insert(key(n), Held::new(absence(at)))),
                }
            }
            Act::Touch(n, at) => {
                tier.touch(key(n), Timestamp::from_millis(at));
                if let Some(held) = model.get_mut(&key(n)) {
                    held.validated.push(at);
                }
            }
            Act::Invalidate(n) => {
                let known = model.remove(&key(n)).is_some();
                let found = tier.invalidate(&key(n));
                assert!(if exact {
                    found == known
                } else {
                    known || !found
                });
            }
            Act::Purge(nth) => {
                tier.invalidate_matching(|key| matches(key, nth));
                model.retain(|key, _| !matches(key, nth));
            }
            Act::Expire(nth, at) => {
                tier.expire_matching(|key| matches(key, nth), Timestamp::from_millis(at));
                let absent = |held: &Held| matches!(held.stored, Stored::Absence(_));
                model.retain(|key, held| !(matches(key, nth) && absent(held)));
                for (_, held) in model.iter_mut().filter(|(key, _)| matches(key, nth)) {
                    held.validated
                        .iter_mut()
                        .for_each(|time| *time = at.min(*time));
                }
            }
            Act::Get(n) => check(&tier, &model, n),
            Act::Written => assert!(tier.wait_written(LONG)),
            Act::Restart(closed) => {
                assert!(tier.wait_written(LONG));
                if closed {
                    close(tier);
                } else {
                    drop(tier);
                }
                tier = open(dir.path(), capacity);
                (0..keys).for_each(|n| check(&tier, &model, n));
            }
        }
    }
    assert!(tier.wait_written(LONG));
    (0..keys).for_each(|n| check(&tier, &model, n));
    let stats = tier.stats();
    assert_eq!(stats.corrupt.iter().sum::<u64>(), 0, "{stats:?}");
    assert!(stats.used_bytes <= capacity);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    #[test]
    fn with_room_for_everything_the_tier_is_a_map(acts in acts(40, 4000)) {
        run(&acts, ROOMY, 40, true);
    }

    #[test]
    fn without_room_it_is_a_map_that_forgets(acts in acts(60, 200_000)) {
        run(&acts, SMALL, 60, false);
    }
}
