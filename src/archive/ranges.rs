//! A set of numbers that come in runs, kept as runs: a prefetch walks neighbours, so that millions of
//! tiles are some thousand runs. At worst, a run a number, it takes about 30 bytes for each.

use std::collections::BTreeMap;

/// The set: each run's first number, and the one behind its last.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    pub(super) fn contains(&self, number: u64) -> bool {
        let before = self.0.range(..=number).next_back();
        before.is_some_and(|(_, end)| number < *end)
    }

    /// Adds a number below `u64::MAX`; whether it is new.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        let before = self.0.range(..=number).next_back().map(|(s, e)| (*s, *e));
        if before.is_some_and(|(_, end)| number < end) {
            return false;
        }
        let end = self.0.remove(&(number + 1)).unwrap_or(number + 1);
        let start = match before {
            Some((start, until)) if until == number => start,
            _ => number,
        };
        self.0.insert(start, end);
        true
    }

    /// How many runs it is kept in.
    #[cfg(test)]
    pub(super) fn runs(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn it_is_a_set(numbers in proptest::collection::vec(0u64..60, 0..80)) {
            let (mut ranges, mut set) = (Ranges::default(), HashSet::new());
            for number in numbers {
                prop_assert_eq!(ranges.insert(number), set.insert(number));
            }
            for number in 0..61 {
                prop_assert_eq!(ranges.contains(number), set.contains(&number));
            }
            let starts = set.iter().filter(|n| **n == 0 || !set.contains(&(**n - 1)));
            prop_assert_eq!(ranges.runs(), starts.count());
        }
    }

    #[test]
    fn a_million_neighbours_are_one_run() {
        let mut ranges = Ranges::default();
        for number in (0..1_000_000).rev() {
            ranges.insert(number);
        }
        assert_eq!(ranges.runs(), 1);
    }
}
