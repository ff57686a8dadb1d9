//! The one source of chance of a load test: numbers that look random and are the same at every run.
//!
//! Invariant: what a stream yields depends on its seed alone, never on time, threads or addresses.
//! Left out: anything that must not be guessed. Secrets come from `getrandom`.

/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The stream of a seed.
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for each `number`: people do not walk in step, and one more person changes
    /// nothing for the others.
    pub fn derived(seed: u64, number: u64) -> Self {
        let mut mixer = Self::new(seed);
        let start = mixer.next();
        let mut apart = Self(start ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03));
        Self(apart.next())
    }

    /// 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    #[allow(
        clippy::cast_precision_loss,
        reason = "53 bits fit a double's fraction"
    )]
    pub fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 to below `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        // Lemire's multiplication: no bias worth speaking of for 32 bits out of 64.
        let wide = u128::from(self.next()) * u128::from(bound);
        u32::try_from(wide >> 64).unwrap_or(0)
    }
}

/// Ranks by Zipf's law: the second place is looked at half as often as the first, and so on.
#[derive(Debug, Clone)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    /// Ranks 0 to `n - 1`, weight `1 / (rank + 1)^exponent`.
    pub fn new(n: u32, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut sums: Vec<f64> = (1..=n)
            .map(|rank| {
                sum += f64::from(rank).powf(-exponent);
                sum
            })
            .collect();
        for part in &mut sums {
            *part /= sum;
        }
        Self(sums)
    }

    /// A rank.
    pub fn draw(&self, random: &mut Random) -> usize {
        let at = random.part();
        let rank = self.0.partition_point(|&sum| sum <= at);
        rank.min(self.0.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_algorithm() {
        // Vigna's splitmix64.c, seed 1234567.
        let mut random = Random::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn derived_streams_are_repeatable_and_apart() {
        let take = |seed, number| Random::derived(seed, number).next();
        assert_eq!(take(1, 2), take(1, 2));
        let all: std::collections::HashSet<u64> = (0..4)
            .flat_map(|seed| (0..500).map(move |n| take(seed, n)))
            .collect();
        assert_eq!(all.len(), 2000);
    }

    #[test]
    fn draws_stay_in_their_bounds() {
        let mut random = Random::new(3);
        for _ in 0..10_000 {
            assert!((0.0..1.0).contains(&random.part()));
            assert!(random.below(7) < 7);
        }
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn the_first_of_many_is_drawn_most_and_the_last_too() {
        let zipf = Zipf::new(100, 1.0);
        let mut random = Random::new(9);
        let mut drawn = [0_u32; 100];
        for _ in 0..100_000 {
            drawn[zipf.draw(&mut random)] += 1;
        }
        // 1 / H(100) = 19.3 % for the first, half of that for the second.
        assert!((18_000..20_500).contains(&drawn[0]), "{}", drawn[0]);
        assert!((8_900..10_400).contains(&drawn[1]), "{}", drawn[1]);
        assert!(drawn.iter().all(|&n| n > 0));
    }
}
