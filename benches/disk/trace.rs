//! Who looks at which tile: traces, and what other caches make of them.

use std::collections::HashSet;

/// `SplitMix64`.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Ranks, the first the most popular.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(n: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut sums: Vec<f64> = (1..=n)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        for part in &mut sums {
            *part /= sum;
        }
        Self(sums)
    }

    fn draw(&self, random: &mut Random) -> usize {
        let at = random.part();
        self.0
            .partition_point(|&sum| sum < at)
            .min(self.0.len() - 1)
    }
}

/// Single tiles by popularity.
pub fn zipf(tiles: usize, accesses: usize, exponent: f64, seed: u64) -> Vec<u64> {
    let zipf = Zipf::new(tiles, exponent);
    let mut random = Random(seed);
    (0..accesses)
        .map(|_| zipf.draw(&mut random) as u64)
        .collect()
}

/// People who open a map at a place, popular ones more often, and pan and zoom for a while. Each
/// asks for the tiles of a 5 by 4 view that their browser has not seen yet.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "places within a map"
)]
pub fn viewports(accesses: usize, seed: u64) -> Vec<u64> {
    let mut random = Random(seed);
    let popularity = Zipf::new(2000, 0.9);
    let places: Vec<(f64, f64)> = (0..2000).map(|_| (random.part(), random.part())).collect();
    let mut trace = Vec::with_capacity(accesses + 20);
    while trace.len() < accesses {
        let (mut x, mut y) = places[popularity.draw(&mut random)];
        let mut z = 4 + random.next() % 6;
        let mut shown = HashSet::new();
        for _ in 0..2 + random.next() % 8 {
            let side = 1_i64 << z;
            let at = |part: f64| (part * side as f64) as i64;
            for (dx, dy) in (-2..=2).flat_map(|dx| (-1..=2).map(move |dy| (dx, dy))) {
                let (column, row) = (at(x) + dx, at(y) + dy);
                let inside = 0..side;
                if inside.contains(&column) && inside.contains(&row) {
                    let tile = z << 48 | (column as u64) << 24 | row as u64;
                    if shown.insert(tile) {
                        trace.push(tile);
                    }
                }
            }
            match random.next() % 5 {
                0 if z < 9 => z += 1,
                1 if z > 2 => z -= 1,
                _ => {
                    let mut step = |part: f64| {
                        let by = (random.part() - 0.5) * 3.0 / side as f64;
                        (part + by).clamp(0.0, 0.9999)
                    };
                    (x, y) = (step(x), step(y));
                }
            }
        }
    }
    trace
}

/// How many tiles there are in a trace.
pub fn distinct(trace: &[u64]) -> usize {
    trace.iter().collect::<HashSet<_>>().len()
}

/// The hits of plain LRU that holds so many bytes, payload alone.
pub fn lru(trace: &[u64], capacity: u64, tile: u64) -> usize {
    let room = usize::try_from(capacity / tile).unwrap();
    let mut cache = lru::LruCache::new(room.try_into().unwrap());
    trace
        .iter()
        .filter(|&&n| cache.put(n, ()).is_some())
        .count()
}

/// The hits of moka.
pub fn moka(trace: &[u64], capacity: u64, tile: u64) -> usize {
    let cache = moka::sync::Cache::builder()
        .max_capacity(capacity)
        .weigher(move |_, ()| u32::try_from(tile).unwrap())
        .build();
    let hit = |&&n: &&u64| {
        let hit = cache.get(&n).is_some();
        if !hit {
            cache.insert(n, ());
        }
        cache.run_pending_tasks();
        hit
    };
    trace.iter().filter(hit).count()
}
