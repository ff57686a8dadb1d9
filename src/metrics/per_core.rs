//! Counters of the tile path: every thread adds to cells of its own.
//!
//! A counter that two cores add to for every tile wanders between their caches, which costs more than all
//! else that counting does. Invariant: nothing is lost; a scrape sees what was added before it.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use prometheus::{IntCounter, Registry};

use super::{CounterBy, Label, counter};

/// More threads than this share cells, which is slower and as right.
const SHARDS: usize = 16;

thread_local! {
    static SHARD: Cell<usize> = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS)
    };
}

/// Cells of their own for every thread, each thread's together and away from the others': two lines, as
/// processors fetch them in pairs.
#[derive(Debug)]
struct Cells(Box<[Shard]>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard([AtomicU64; 16]);

impl Cells {
    fn new() -> Self {
        Self((0..SHARDS).map(|_| Shard::default()).collect())
    }

    fn add(&self, place: usize, count: u64) {
        let shard = &self.0[SHARD.get()];
        shard.0[place].fetch_add(count, Ordering::Relaxed);
    }

    /// What was added since the last time.
    fn take(&self, place: usize) -> u64 {
        let taken = self
            .0
            .iter()
            .map(|shard| shard.0[place].swap(0, Ordering::Relaxed));
        taken.sum()
    }
}

/// A counter for each word of a closed set of sixteen at most.
#[derive(Debug)]
pub struct PerCoreBy<L> {
    cells: Cells,
    counted: CounterBy<L>,
    words: PhantomData<L>,
}

impl<L: Label> PerCoreBy<L> {
    pub(super) fn new(registry: &Registry, name: &str, help: &str, label: &str) -> Self {
        assert!(L::ALL.len() <= 16, "{name}: more words than cells");
        Self {
            cells: Cells::new(),
            counted: CounterBy::new(registry, name, help, label),
            words: PhantomData,
        }
    }

    /// Counts one.
    pub fn inc(&self, word: L) {
        self.cells.add(word.index(), 1);
    }

    /// What has been counted.
    pub fn get(&self, word: L) -> u64 {
        self.settle();
        self.counted.get(word)
    }

    /// Brings what threads have added to where it is shown.
    pub(super) fn settle(&self) {
        for word in L::ALL {
            self.counted.add(*word, self.cells.take(word.index()));
        }
    }
}

/// One counter.
#[derive(Debug)]
pub struct PerCore {
    cells: Cells,
    counted: IntCounter,
}

impl PerCore {
    pub(super) fn new(registry: &Registry, name: &str, help: &str) -> Self {
        Self {
            cells: Cells::new(),
            counted: counter(registry, name, help),
        }
    }

    /// Counts several.
    pub fn inc_by(&self, count: u64) {
        self.cells.add(0, count);
    }

    /// What has been counted.
    pub fn get(&self) -> u64 {
        self.settle();
        self.counted.get()
    }

    /// Brings what threads have added to where it is shown.
    pub(super) fn settle(&self) {
        self.counted.inc_by(self.cells.take(0));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Answer;
    use super::*;

    #[test]
    fn what_threads_count_adds_up() {
        let registry = Registry::new();
        let answers = PerCoreBy::new(&registry, "answers", "Answers.", "answer");
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| (0..1000).for_each(|_| answers.inc(Answer::Tile)));
            }
        });
        assert_eq!(answers.get(Answer::Tile), 40_000);
        assert_eq!(answers.get(Answer::Missing), 0);
        answers.inc(Answer::Tile);
        assert_eq!(answers.get(Answer::Tile), 40_001);
    }
}
