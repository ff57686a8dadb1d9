//! A table of tiles and the minute in which each was last asked for: open addressing, five bytes a slot.
//!
//! It keeps what it is told and judges nothing: which minutes still count is its owner's to say. A tile is
//! a 32-bit print, so beside 20,000 tiles that a person has seen, one in 200,000 unseen ones is taken for
//! one of them.

/// The fewest slots of a table that holds anything.
const LEAST: usize = 64;
/// An age that no minute has: the tile no longer counts. Its slot is used again, but does not end a search.
const GONE: u8 = u8::MAX;
/// Bytes of a slot.
const SLOT: usize = size_of::<u32>() + size_of::<u8>();

/// The table. A print is never 0, which marks a slot that was never used.
#[derive(Default)]
pub(super) struct Seen {
    prints: Box<[u32]>,
    ages: Box<[u8]>,
    /// Slots that are not as new, `GONE` ones included.
    used: usize,
}

impl Seen {
    /// A table of this many slots: a power of two, or none.
    pub(super) fn with_slots(slots: usize) -> Self {
        Self {
            prints: vec![0; slots].into(),
            ages: vec![GONE; slots].into(),
            used: 0,
        }
    }

    /// The slots for so many tiles: not more than five eighths are taken at the beginning, and a table
    /// takes tiles until three quarters are, so that an eighth of it comes between two rebuildings.
    pub(super) fn slots_for(tiles: usize) -> usize {
        (tiles * 8).div_ceil(5).next_power_of_two().max(LEAST)
    }

    pub(super) fn bytes_of(slots: usize) -> usize {
        slots * SLOT
    }

    pub(super) fn slots(&self) -> usize {
        self.prints.len()
    }

    /// Whether one more has to wait for a rebuilding.
    pub(super) fn is_crowded(&self) -> bool {
        (self.used + 1) * 4 > self.slots() * 3
    }

    /// The slot and the age of a tile that counts.
    pub(super) fn find(&self, print: u32) -> Option<(usize, u8)> {
        let mut slot = self.home(print);
        // Ends: a quarter of the slots are as new, and a table without any is asked nothing.
        while let Some(here) = self.prints.get(slot).filter(|here| **here != 0) {
            // The ages are another cache line, touched only where it matters.
            if *here == print && self.ages[slot] != GONE {
                return Some((slot, self.ages[slot]));
            }
            slot = (slot + 1) & (self.slots() - 1);
        }
        None
    }

    /// Gives the tile in a slot another age.
    pub(super) fn touch(&mut self, slot: usize, age: u8) {
        self.ages[slot] = age;
    }

    /// Adds a tile that is not there. The table must not be crowded.
    pub(super) fn insert(&mut self, print: u32, age: u8) {
        let mut slot = self.home(print);
        while self.ages[slot] != GONE {
            slot = (slot + 1) & (self.slots() - 1);
        }
        self.used += usize::from(self.prints[slot] == 0);
        self.prints[slot] = print;
        self.ages[slot] = age;
    }

    /// Drops all tiles of an age.
    pub(super) fn expire(&mut self, age: u8) {
        for slot in &mut self.ages {
            if *slot == age {
                *slot = GONE;
            }
        }
    }

    /// Every tile that counts: print and age.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u8)> {
        let both = self.prints.iter().copied().zip(self.ages.iter().copied());
        both.filter(|(_, age)| *age != GONE)
    }

    /// The slot in which a tile is looked for first. (Multiplicative hashing: a thinned set's prints have
    /// their top bits in common.)
    fn home(&self, print: u32) -> usize {
        let bits = self.slots().checked_ilog2().unwrap_or(0);
        let home = u64::from(print.wrapping_mul(0x9E37_79B1)) << bits >> 32;
        usize::try_from(home).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn five_hundred_tiles_take_five_kilobytes() {
        assert_eq!(Seen::bytes_of(Seen::slots_for(500)), 5_120);
        assert_eq!(Seen::bytes_of(Seen::slots_for(20_000)), 163_840);
        assert_eq!(Seen::slots_for(1), LEAST);
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec((0..4u8, 1..40u32, 0..4u8), 0..200)) {
            let mut seen = Seen::with_slots(64);
            let mut reference: HashMap<u32, u8> = HashMap::new();
            for (act, print, age) in steps {
                // Prints that share their way through the table.
                let print = print << 26 | 1;
                match (act, seen.find(print)) {
                    (0, _) => {
                        seen.expire(age);
                        reference.retain(|_, held| *held != age);
                    }
                    (_, Some((slot, held))) => {
                        prop_assert_eq!(Some(&held), reference.get(&print));
                        seen.touch(slot, age);
                        reference.insert(print, age);
                    }
                    (_, None) => {
                        prop_assert!(!reference.contains_key(&print));
                        prop_assert!(!seen.is_crowded());
                        seen.insert(print, age);
                        reference.insert(print, age);
                    }
                }
                let held: HashMap<_, _> = seen.iter().collect();
                prop_assert_eq!(&held, &reference);
            }
        }
    }
}
