//! A thousand people with maps, and scrapers, against the quotas themselves, on a clock of their own.
//!
//! Everything is drawn from fixed seeds. `cargo test --test it quota_simulation -- --nocapture` prints the
//! figures that the README quotes.

use std::collections::HashSet;
use std::num::NonZeroU32;

use tilekeep::auth::{QuotaClass, Quotas, Spender};
use tilekeep::clock::Uptime;
use tilekeep::tile::{KeySpace, Scale, TileCoord, TileKey};

/// Xorshift64*: chance that is the same every time.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Evenly from `low` to `high`, both included.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

fn viewer(tiles: u32) -> QuotaClass {
    QuotaClass {
        name: "viewer".into(),
        requests_per_second: NonZeroU32::new(200),
        burst: NonZeroU32::new(1_000),
        distinct_tiles_per_hour: NonZeroU32::new(tiles),
    }
}

fn quotas(class: QuotaClass) -> Quotas {
    Quotas::with_key(vec![class], *b"of a simulation.")
}

/// What a server does with a tile's request; whether it is served.
fn ask(spender: &Spender, tile: TileKey, now: Uptime) -> bool {
    spender.spend_request(now).is_ok() && spender.spend_tile(tile, now).is_ok()
}

fn place(space: KeySpace, z: u8, x: u64, y: u64) -> Option<TileKey> {
    let coord = TileCoord::new(z, u32::try_from(x).ok()?, u32::try_from(y).ok()?)?;
    Some(TileKey::new(space, coord, Scale::One))
}

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3_600 * SECOND;

/// The most different tiles in any 60 minutes, and the most in a window that has just opened: exact.
fn most_in_an_hour(served: &[(u64, TileKey)]) -> usize {
    let mut held = std::collections::HashMap::new();
    let (mut first, mut most) = (0, 0);
    for (now, tile) in served {
        while served[first].0 + HOUR <= *now {
            let gone = served[first].1;
            let count: &mut u32 = held.get_mut(&gone).unwrap();
            *count -= 1;
            if *count == 0 {
                held.remove(&gone);
            }
            first += 1;
        }
        *held.entry(*tile).or_insert(0) += 1;
        most = most.max(held.len());
    }
    most
}

/// Somebody's map: a window of tiles on two tilesets that are drawn over each other.
struct Map {
    z: u8,
    x: u64,
    y: u64,
    wide: u64,
    high: u64,
}

impl Map {
    /// Every tile in the window, each tileset's, as far as it has them.
    fn tiles(&self, spaces: &[KeySpace]) -> Vec<TileKey> {
        let mut tiles = Vec::new();
        for space in spaces {
            for x in self.x..self.x + self.wide {
                for y in self.y..self.y + self.high {
                    tiles.extend(place(*space, self.z, x, y));
                }
            }
        }
        tiles
    }

    fn clamp(&mut self) {
        let most = (1u64 << self.z).saturating_sub(1);
        (self.x, self.y) = (self.x.min(most), self.y.min(most));
    }

    /// Mostly a pan by a part of the window, now and then a zoom, seldom another place.
    fn step(&mut self, chance: &mut Chance) {
        match chance.between(0, 99) {
            0..70 => {
                let shift = |at: u64, by: u64| (at + by).saturating_sub(3);
                self.x = shift(self.x, chance.between(0, 6));
                self.y = shift(self.y, chance.between(1, 5));
            }
            70..84 if self.z < 18 => {
                self.z += 1;
                self.x = self.x * 2 + self.wide / 2;
                self.y = self.y * 2 + self.high / 2;
            }
            84..98 if self.z > 3 => {
                self.z -= 1;
                self.x = (self.x / 2).saturating_sub(self.wide / 4);
                self.y = (self.y / 2).saturating_sub(self.high / 4);
            }
            _ => {
                // A search: somewhere else, at a town's zoom.
                self.z = 13;
                self.x = chance.between(4_000, 4_400);
                self.y = chance.between(2_600, 2_900);
            }
        }
        self.clamp();
    }
}

/// A person's working day: sittings of 10 to 60 minutes, a step every 1 to 8 seconds, and now and then back to
/// where they were; the browser's cache is taken to hold nothing, so every view asks for all of its tiles.
fn a_day(person: u64, spender: &Spender, spaces: &[KeySpace]) -> (u64, u64, usize) {
    let mut chance = Chance::new(person);
    // A retina screen shows @2x of the same tiles; a big screen shows more of them.
    let (wide, high) = (chance.between(5, 7), chance.between(4, 5));
    let home = (chance.between(4_000, 4_400), chance.between(2_600, 2_900));
    let mut now = chance.between(0, 3 * HOUR);
    let (mut requests, mut refused) = (0, 0);
    let mut served = Vec::new();
    for _ in 0..chance.between(2, 8) {
        let ends = now + chance.between(10, 60) * 60 * SECOND;
        let (z, (x, y)) = (13, home);
        let mut map = Map {
            z,
            x,
            y,
            wide,
            high,
        };
        let mut been: Vec<Map> = Vec::new();
        while now < ends {
            for tile in map.tiles(spaces) {
                requests += 1;
                if ask(spender, tile, Uptime::from_nanos(now)) {
                    served.push((now, tile));
                } else {
                    refused += 1;
                }
            }
            if chance.one_in(5) && !been.is_empty() {
                let last = usize::try_from(chance.next()).unwrap() % been.len();
                let Map { z, x, y, .. } = been[last];
                map = Map {
                    z,
                    x,
                    y,
                    wide,
                    high,
                };
            } else {
                let Map { z, x, y, .. } = map;
                been.push(Map {
                    z,
                    x,
                    y,
                    wide,
                    high,
                });
                map.step(&mut chance);
            }
            now += chance.between(SECOND, 8 * SECOND);
        }
        now += chance.between(0, 3) * HOUR / 2;
    }
    (requests, refused, most_in_an_hour(&served))
}

#[test]
fn of_a_thousand_people_with_maps_none_is_refused() {
    let quotas = quotas(viewer(20_000));
    let spaces = [KeySpace::new("aerial", None), KeySpace::new("roads", None)];
    let (mut requests, mut most, mut total) = (0, 0, 0);
    for person in 0..1_000 {
        let spender = quotas.spender(&format!("person {person}"), None).unwrap();
        let (asked, refused, hour) = a_day(person, &spender.unwrap(), &spaces);
        assert_eq!(refused, 0, "person {person}");
        requests += asked;
        most = most.max(hour);
        total += hour;
    }
    println!(
        "1,000 people: {requests} requests, none refused; different tiles in a person's busiest hour: {} on average, {most} at most; tables: {} bytes",
        total / 1_000,
        quotas.table_bytes()
    );
    assert!(requests > 1_000_000, "{requests}");
    assert!(most > 1_000, "people who move: {most}");
}

/// The order in which a scraper walks a tileset at zoom 14.
type Walk = Box<dyn FnMut() -> TileKey>;

const SIDE: u64 = 1 << 14;

fn zoom_14(x: u64, y: u64) -> TileKey {
    place(KeySpace::new("aerial", None), 14, x % SIDE, y % SIDE).unwrap()
}

fn in_order() -> Walk {
    let mut at = 0;
    Box::new(move || {
        at += 1;
        zoom_14(at / SIDE, at)
    })
}

fn at_random() -> Walk {
    let mut chance = Chance::new(99);
    let mut had = HashSet::new();
    Box::new(move || {
        loop {
            let at = chance.next() % (SIDE * SIDE);
            if had.insert(at) {
                return zoom_14(at / SIDE, at);
            }
        }
    })
}

/// View after view of 6 × 5 tiles, as a map would ask for them, half of each seen before.
fn in_views() -> Walk {
    let mut view = Vec::new();
    let mut at = 0;
    Box::new(move || {
        if view.is_empty() {
            let (column, row) = (at * 3 % SIDE, at * 3 / SIDE * 5);
            view.extend((0..30).map(|n| zoom_14(column + n % 6, row + n / 6)));
            at += 1;
        }
        view.pop().unwrap()
    })
}

/// Five hours of asking as fast as the rate lets through. After a refusal a patient scraper tries the next
/// tile when it may; refused ones are tried again later by nobody, which is the best it can do.
fn scrape(budget: u32, mut walk: Walk) -> (usize, u64) {
    let quotas = quotas(viewer(budget));
    let spender = quotas.spender("scraper", None).unwrap().unwrap();
    let mut served = Vec::new();
    let mut refused = 0;
    // 200 a second, and a burst at the beginning.
    for request in 0..1_000 + 5 * 3_600 * 200u64 {
        let now = request.saturating_sub(999) * (SECOND / 200);
        let tile = walk();
        if ask(&spender, tile, Uptime::from_nanos(now)) {
            served.push((now, tile));
        } else {
            refused += 1;
        }
    }
    let different: HashSet<_> = served.iter().map(|(_, tile)| *tile).collect();
    // It is a budget, not a ban: five hours are worth nearly five budgets.
    assert!(
        different.len() >= budget as usize * 9 / 2,
        "{}",
        different.len()
    );
    (most_in_an_hour(&served), refused)
}

#[test]
fn a_scraper_gets_its_budget_in_any_hour_and_no_more() {
    for budget in [20_000, 200_000] {
        for (name, walk) in [
            ("in order", in_order()),
            ("at random", at_random()),
            ("in views", in_views()),
        ] {
            let (most, refused) = scrape(budget, walk);
            println!(
                "a scraper {name}, budget {budget}: {most} different tiles in its best hour, {refused} refused"
            );
            let bound = f64::from(budget) * 1.1;
            assert!((most as f64) <= bound, "{name}: {most}");
            if budget == 20_000 {
                assert!(most <= 20_000, "counted one by one: {most}");
            }
        }
    }
}

#[test]
fn a_scraper_gains_nothing_from_new_sessions_or_from_the_edge_of_an_hour() {
    let quotas = quotas(viewer(2_000));
    let mut served = Vec::new();
    let mut walk = in_order();
    // Nothing until a minute before an hour is full, then all that goes, twice, each time as a new session.
    for begin in [59 * 60, 60 * 60, 61 * 60, 119 * 60, 120 * 60] {
        let now = Uptime::from_secs(begin);
        quotas.sweep(now);
        let spender = quotas.spender("scraper", Some("viewer")).unwrap().unwrap();
        for _ in 0..3_000 {
            let tile = walk();
            if spender.spend_tile(tile, now).is_ok() {
                served.push((now.nanos(), tile));
            }
        }
    }
    assert_eq!(most_in_an_hour(&served), 2_000);
}
