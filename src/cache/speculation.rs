//! Speculative fetching: a map asks for the neighbours of what it shows next.
//!
//! When somebody's miss has been filled, or a guess has come true, the eight tiles around it are fetched in
//! the lowest lane: only while nobody waits for the origin, and never more at once than `[origin]
//! speculative` allows. Off by default: it spends requests that nobody may ever want.
//!
//! Invariant: a guess delays nobody, and what is remembered of guesses is bounded.
//! Left out on purpose: rights. A guess lands in the caches alone; who asks for it is checked then.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::metrics::{Guess, Metrics};
use crate::tile::TileKey;

/// Guesses that are remembered, in two generations of this size each: more than any memory tier's worth of
/// them would be forgotten before it mattered.
const REMEMBERED: usize = 32_768;

type Keys = HashSet<TileKey, foldhash::fast::RandomState>;

/// What was guessed, so that a guess that comes true leads to the next.
#[derive(Debug)]
pub struct Speculation {
    guessed: Mutex<[Keys; 2]>,
    metrics: Arc<Metrics>,
}

impl Speculation {
    /// Nothing guessed yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            guessed: Mutex::default(),
            metrics,
        }
    }

    /// Notes a guess; `false` if it was made before and has not come true since.
    pub(super) fn guess(&self, key: TileKey) -> bool {
        let mut guessed = self.guessed.lock().unwrap_or_else(PoisonError::into_inner);
        let [young, old] = &mut *guessed;
        if old.contains(&key) || !young.insert(key) {
            return false;
        }
        if young.len() >= REMEMBERED {
            *old = std::mem::take(young);
        }
        self.metrics.guesses.inc(Guess::Made);
        true
    }

    /// There was no room for it: it may be made again.
    pub(super) fn held_back(&self, key: TileKey) {
        let mut guessed = self.guessed.lock().unwrap_or_else(PoisonError::into_inner);
        for keys in &mut *guessed {
            keys.remove(&key);
        }
        self.metrics.guesses.inc(Guess::HeldBack);
    }

    /// Somebody wants this tile: whether it had been guessed. Says so once.
    pub(super) fn came_true(&self, key: TileKey) -> bool {
        let mut guessed = self.guessed.lock().unwrap_or_else(PoisonError::into_inner);
        let true_now = guessed.iter_mut().any(|keys| keys.remove(&key));
        if true_now {
            self.metrics.guesses.inc(Guess::CameTrue);
        }
        true_now
    }
}
