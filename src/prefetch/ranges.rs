//! A set of numbers that are mostly neighbours.

use std::collections::BTreeMap;

/// Numbers, as runs from a first to a last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds all from `first` to `last`.
    pub(super) fn add(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first, last.max(first));
        // Runs that overlap or touch become one with it.
        while let Some((&from, &to)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if to.saturating_add(1) < first {
                break;
            }
            self.0.remove(&from);
            (first, last) = (first.min(from), last.max(to));
        }
        self.0.insert(first, last);
    }

    /// Whether it is in, and then the last of its run.
    pub(super) fn run_of(&self, number: u64) -> Option<u64> {
        let (_, &to) = self.0.range(..=number).next_back()?;
        (number <= to).then_some(to)
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.iter().map(|(from, to)| to - from + 1).sum()
    }

    /// The runs in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(from, to)| (*from, *to))
    }

    /// How many runs there are.
    pub(super) fn runs(&self) -> usize {
        self.0.len()
    }

    /// Takes all out.
    pub(super) fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_a_set(adds in proptest::collection::vec((0u64..60, 0u64..8), 0..40)) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (first, more) in adds {
                ranges.add(first, first + more);
                set.extend(first..=first + more);
            }
            prop_assert_eq!(ranges.count(), set.len() as u64);
            for number in 0..70 {
                prop_assert_eq!(ranges.run_of(number).is_some(), set.contains(&number));
            }
            let runs: Vec<_> = ranges.iter().collect();
            prop_assert!(runs.windows(2).all(|two| two[0].1 + 1 < two[1].0), "{:?}", runs);
        }
    }
}
