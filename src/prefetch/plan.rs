//! What is to be asked for, in which order: tilesets one after the other, each in its coverage's own order.
//!
//! Invariant: a tile has a number in the plan, from 0; the same plan gives the same numbers in every run. That is what
//! the resume file counts in.

use std::hash::Hasher as _;
use std::sync::Arc;

use twox_hash::xxhash3_64::Hasher;

use super::facts::TilesetFacts;
use crate::tile::{Cover, Coverage, TileCoord, Walk};

/// A tileset's part of a plan.
#[derive(Debug)]
pub struct Leg {
    /// Which tileset.
    pub tileset: TilesetFacts,
    /// Which tiles of it.
    pub cover: Cover,
    /// How many.
    pub count: u64,
    /// How many at each zoom.
    pub counts: Vec<(u8, u64)>,
    /// The zooms that are asked for.
    pub zooms: (u8, u8),
}

/// What is to be asked for.
#[derive(Debug)]
pub struct Plan {
    legs: Vec<Arc<Leg>>,
    digest: u64,
}

/// A tile of the plan.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// Its number.
    pub number: u64,
    pub leg: Arc<Leg>,
    pub coord: TileCoord,
}

impl Plan {
    /// The coverage's tiles of these zooms that the tilesets can have. `words` are what else makes a plan another
    /// one: the server, what is done with the tiles.
    pub fn new(
        tilesets: Vec<TilesetFacts>,
        coverage: &Coverage,
        (first, last): (u8, u8),
        words: &[&str],
    ) -> Self {
        let mut hash = Hasher::new();
        let mut field = |bytes: &[u8]| {
            hash.write(&(bytes.len() as u64).to_le_bytes());
            hash.write(bytes);
        };
        for word in words {
            field(word.as_bytes());
        }
        coverage.digest(&mut field);
        let mut legs = Vec::new();
        for tileset in tilesets {
            let zooms = (first.max(tileset.minzoom), last.min(tileset.maxzoom));
            field(tileset.template.as_bytes());
            field(&[zooms.0, zooms.1]);
            for edge in tileset.bounds.to_array() {
                field(&edge.to_le_bytes());
            }
            let cover = Cover::new(coverage, zooms, tileset.bounds);
            let counts = cover.counts();
            let count = counts
                .iter()
                .fold(0, |sum: u64, (_, tiles)| sum.saturating_add(*tiles));
            legs.push(Arc::new(Leg {
                tileset,
                cover,
                count,
                counts,
                zooms,
            }));
        }
        Self {
            legs,
            digest: hash.finish(),
        }
    }

    /// The tilesets' parts, in order.
    pub fn legs(&self) -> &[Arc<Leg>] {
        &self.legs
    }

    /// How many tiles there are.
    pub fn total(&self) -> u64 {
        let counts = self.legs.iter().map(|leg| leg.count);
        counts.fold(0, u64::saturating_add)
    }

    /// The same for the same plan.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// All tiles in order.
    pub(super) fn walk(&self) -> PlanWalk {
        PlanWalk {
            legs: self.legs.clone(),
            at: 0,
            walk: None,
            number: 0,
            left: 0,
        }
    }
}

/// All tiles of a plan, one after the other.
pub(super) struct PlanWalk {
    legs: Vec<Arc<Leg>>,
    /// The leg after the one that is walked.
    at: usize,
    walk: Option<(Arc<Leg>, Walk)>,
    /// The next tile's.
    number: u64,
    /// Tiles left of the leg that is walked.
    left: u64,
}

impl PlanWalk {
    /// The number of the tile that comes next.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Goes on to the tile of this number, if it is still to come.
    pub(super) fn seek(&mut self, number: u64) {
        while number > self.number {
            if self.left == 0 && !self.next_leg() {
                return;
            }
            let Some((_, walk)) = &mut self.walk else {
                return;
            };
            let step = self.left.min(number - self.number);
            walk.skip_tiles(step);
            self.left -= step;
            self.number += step;
        }
    }

    fn next_leg(&mut self) -> bool {
        let Some(leg) = self.legs.get(self.at) else {
            return false;
        };
        self.at += 1;
        self.left = leg.count;
        self.walk = Some((Arc::clone(leg), leg.cover.walk()));
        true
    }
}

impl Iterator for PlanWalk {
    type Item = Job;

    fn next(&mut self) -> Option<Job> {
        loop {
            if let Some((leg, walk)) = &mut self.walk
                && let Some(coord) = walk.next()
            {
                let number = self.number;
                self.number += 1;
                self.left = self.left.saturating_sub(1);
                return Some(Job {
                    number,
                    leg: Arc::clone(leg),
                    coord,
                });
            }
            if !self.next_leg() {
                return None;
            }
        }
    }
}
