//! A thousand people with maps, and scrapers, against the quotas themselves, on a clock of their own.
//!
//! Everything is drawn from fixed seeds. `cargo test --test it quota_simulation -- --nocapture` prints the
//! figures that the README quotes.

use std::num::NonZeroU32;
use std::ops::Range;
use std::thread;

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
        background: false,
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

/// The most different tiles in any 60 minutes, wherever they begin: exact. Each answer is a time and the
/// tile's number.
fn most_in_an_hour(served: &[(u64, usize)]) -> usize {
    let tiles = served.iter().map(|(_, tile)| tile + 1).max().unwrap_or(0);
    let mut held = vec![0u32; tiles];
    let (mut first, mut different, mut most) = (0, 0, 0);
    for (now, tile) in served {
        while served[first].0 + HOUR <= *now {
            let gone = &mut held[served[first].1];
            *gone -= 1;
            different -= usize::from(*gone == 0);
            first += 1;
        }
        different += usize::from(held[*tile] == 0);
        held[*tile] += 1;
        most = most.max(different);
    }
    most
}

/// Somebody's map: a window of tiles.
#[derive(Clone, Copy)]
struct View {
    z: u8,
    x: u64,
    y: u64,
    wide: u64,
    high: u64,
}

impl View {
    fn shows(&self, z: u8, x: u64, y: u64) -> bool {
        let columns = self.x..self.x + self.wide;
        z == self.z && columns.contains(&x) && (self.y..self.y + self.high).contains(&y)
    }

    /// The tiles that the one before did not show, as far as there are any: a map asks for no others.
    fn new_to(self, before: Option<View>) -> impl Iterator<Item = (u8, u64, u64)> {
        let all = (0..self.wide * self.high)
            .map(move |n| (self.z, self.x + n % self.wide, self.y + n / self.wide));
        all.filter(move |(z, x, y)| !before.is_some_and(|before| before.shows(*z, *x, *y)))
    }

    /// Mostly a pan by a part of the window, now and then a zoom, seldom another place.
    fn moved(mut self, chance: &mut Chance) -> View {
        match chance.between(0, 99) {
            0..70 => {
                self.x = (self.x + chance.between(0, 6)).saturating_sub(3);
                self.y = (self.y + chance.between(1, 5)).saturating_sub(3);
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
            _ => (self.z, self.x, self.y) = somewhere(chance),
        }
        let most = (1u64 << self.z) - 1;
        (self.x, self.y) = (self.x.min(most), self.y.min(most));
        self
    }
}

/// In a country, at a town's zoom.
fn somewhere(chance: &mut Chance) -> (u8, u64, u64) {
    (
        13,
        chance.between(4_000, 4_400),
        chance.between(2_600, 2_900),
    )
}

/// What came of somebody's day.
#[derive(Default)]
struct Day {
    requests: u64,
    refused: u64,
    /// Different tiles in the busiest hour.
    hour: u64,
}

/// A person's day: sittings of 10 to 60 minutes in which they pan and zoom every 2 to 6 seconds for a while,
/// look for up to three minutes (one in twenty never looks), and now and then go back to where they were. Two tilesets lie over each other, and the browser's cache is taken to hold nothing.
fn a_day(person: u64, spender: &Spender, spaces: &[KeySpace]) -> Day {
    let mut chance = Chance::new(person);
    let restless = person.is_multiple_of(20);
    // 20 to 30 tiles of 256 pixels; a retina screen asks for @2x of the same ones.
    let (wide, high) = (chance.between(5, 6), chance.between(4, 5));
    let (z, x, y) = somewhere(&mut chance);
    let home = View {
        z,
        x,
        y,
        wide,
        high,
    };
    let mut now = chance.between(0, 8 * HOUR);
    let mut day = Day::default();
    for _ in 0..chance.between(1, 3) {
        let ends = now + chance.between(10, 60) * 60 * SECOND;
        let (mut view, mut before, mut been) = (home, None, Vec::new());
        while now < ends {
            for (z, x, y) in view.new_to(before) {
                for tile in spaces.iter().filter_map(|space| place(*space, z, x, y)) {
                    day.requests += 1;
                    day.refused += u64::from(!ask(spender, tile, Uptime::from_nanos(now)));
                }
            }
            let left = spender.tiles_left(Uptime::from_nanos(now)).unwrap();
            day.hour = day.hour.max(20_000 - left);
            before = Some(view);
            been.push(view);
            view = if chance.one_in(6) {
                been[usize::try_from(chance.next()).unwrap() % been.len()]
            } else {
                view.moved(&mut chance)
            };
            now += chance.between(2 * SECOND, 6 * SECOND);
            if !restless && chance.one_in(3) {
                now += chance.between(10, 180) * SECOND;
            }
        }
        now += chance.between(0, 3) * HOUR / 2;
    }
    day
}

#[test]
fn of_a_thousand_people_with_maps_none_is_refused() {
    let quotas = quotas(viewer(20_000));
    let spaces = [KeySpace::new("aerial", None), KeySpace::new("roads", None)];
    let days = |people: Range<u64>| -> Vec<Day> {
        let day = |person| {
            let spender = quotas.spender(&format!("person {person}"), None).unwrap();
            a_day(person, &spender.unwrap(), &spaces)
        };
        people.map(day).collect()
    };
    let (mut all, second) = thread::scope(|scope| {
        let second = scope.spawn(|| days(500..1_000));
        (days(0..500), second.join().unwrap())
    });
    all.extend(second);
    let requests: u64 = all.iter().map(|day| day.requests).sum();
    let refused: u64 = all.iter().map(|day| day.refused).sum();
    let average = all.iter().map(|day| day.hour).sum::<u64>() / 1_000;
    let most = all.iter().map(|day| day.hour).max().unwrap();
    println!(
        "1,000 people, {requests} requests: {refused} refused; different tiles in the busiest hour of one: {average} on average, {most} at most; tables: {} bytes",
        quotas.table_bytes()
    );
    assert_eq!(refused, 0);
    assert!(requests > 1_000_000, "{requests}");
    assert!(most > 5_000, "people who move: {most}");
}

/// The order in which a scraper walks a tileset at zoom 14: of its n-th request, a number that no other tile
/// has (small, so that counting is quick), and the tile: row and column as one number.
type Walk = fn(u64) -> (usize, u64);

const ROW: u64 = 1 << 14;

fn zoom_14(space: KeySpace, tile: u64) -> TileKey {
    place(space, 14, tile % ROW, tile / ROW % ROW).unwrap()
}

fn in_order(n: u64) -> (usize, u64) {
    (index(n), n)
}

/// Every tile once, in no order: a permutation of 28 bits.
fn at_random(n: u64) -> (usize, u64) {
    let mask = ROW * ROW - 1;
    let mixed = n.wrapping_mul(0x9e37_79b9) & mask;
    let mixed = (mixed ^ mixed >> 13).wrapping_mul(0x85eb_ca6b) & mask;
    (index(n), mixed ^ mixed >> 15)
}

/// View after view of 6 × 5 tiles, as a map asks for them, half of each seen before.
fn in_views(n: u64) -> (usize, u64) {
    let (view, tile) = (n / 30, n % 30);
    let (column, row) = (view * 3 % ROW, view * 3 / ROW * 5);
    let tile = (row + tile / 6) * ROW + (column + tile % 6) % ROW;
    (index(tile), tile)
}

fn index(n: u64) -> usize {
    usize::try_from(n).unwrap()
}

/// Five hours of asking as fast as the rate lets through, `tries` times a second once tiles are refused
/// (more would be refused as well). Answers the most different tiles in any hour, and how many were refused.
fn scrape(budget: u32, tries: u32, walk: Walk) -> (usize, u64) {
    let quotas = quotas(viewer(budget));
    let spender = quotas.spender("scraper", None).unwrap().unwrap();
    let space = KeySpace::new("aerial", None);
    let mut served = Vec::new();
    let (mut asked, mut refused) = (0, 0);
    for second in 0..5 * 3_600 {
        let now = second * SECOND;
        let mut in_vain = 0;
        // A burst at first, then 200 a second.
        for _ in 0..if second == 0 { 1_000 } else { 200 } {
            let (number, tile) = walk(asked);
            asked += 1;
            if ask(&spender, zoom_14(space, tile), Uptime::from_nanos(now)) {
                served.push((now, number));
            } else {
                in_vain += 1;
                if in_vain >= tries {
                    break;
                }
            }
        }
        refused += u64::from(in_vain);
    }
    // It is a budget, not a ban: five hours are worth nearly five budgets.
    assert!(served.len() >= budget as usize * 9 / 2, "{}", served.len());
    (most_in_an_hour(&served), refused)
}

fn a_scraper_gets_at_most(budget: u32, tries: u32, bound: usize) {
    let walks: [(&str, Walk); 3] = [
        ("in order", in_order),
        ("at random", at_random),
        ("in views", in_views),
    ];
    thread::scope(|scope| {
        for (name, walk) in walks {
            scope.spawn(move || {
                let (most, refused) = scrape(budget, tries, walk);
                println!(
                    "a scraper {name}, budget {budget}: {most} different tiles in its best hour, {refused} refused"
                );
                assert!(most <= bound, "{name}: {most}");
            });
        }
    });
}

#[test]
fn a_scraper_gets_its_budget_in_any_hour_and_no_more() {
    // Counted one by one; of 200,000 refused tiles one is taken for one that was seen.
    a_scraper_gets_at_most(20_000, 5, 20_010);
}

#[test]
fn a_scraper_gets_a_sampled_budget_to_within_two_per_cent() {
    a_scraper_gets_at_most(200_000, 1, 204_000);
}

#[test]
fn a_scraper_gains_nothing_from_new_sessions_or_from_the_edge_of_an_hour() {
    let quotas = quotas(viewer(2_000));
    let space = KeySpace::new("aerial", None);
    let mut served = Vec::new();
    // Nothing until a minute before an hour is full, then all that goes, again and again, each time as a new
    // session.
    for (n, minute) in [59, 60, 61, 119, 120].into_iter().enumerate() {
        let now = Uptime::from_secs(minute * 60);
        quotas.sweep(now);
        let spender = quotas.spender("scraper", Some("viewer")).unwrap();
        let spender = spender.unwrap();
        for tile in n * 3_000..(n + 1) * 3_000 {
            if spender.spend_tile(zoom_14(space, tile as u64), now).is_ok() {
                served.push((now.nanos(), tile));
            }
        }
    }
    assert_eq!(most_in_an_hour(&served), 2_000);
}
