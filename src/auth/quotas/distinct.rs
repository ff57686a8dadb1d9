//! How many different tiles within the last hour, by one person.
//!
//! Not a `HyperLogLog` but a set: it is exact up to [`SAMPLE`] tiles, it forgets tile by tile as the hour
//! moves on, and it tells a tile that was seen from a new one, so that a person over the budget keeps their
//! map. Of a larger budget a fixed share is counted: a tile is in the sample by its keyed hash, which no
//! client can foresee, and the number of those, divided by the share, is the estimate. Its standard error
//! is `sqrt((1 - share) / (share * budget))`: nothing up to 32,768, at most 0.56 % above.
//!
//! The hour moves in whole minutes: a tile counts from the minute in which it was last asked for until the
//! sixtieth after it has ended, which is 60 to 61 minutes. So no 60 minutes, wherever they begin, hold more
//! than the budget. The time goes forward only: an earlier one is taken for the latest.
//!
//! When all tables together ask for more room than there is, this one counts a smaller share (half, a
//! quarter, …) rather than grow; with [`LEAST_SAMPLE`] tiles at the limit the error is 3.1 % at most.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::room::Room;
use super::seen::Seen;
use crate::clock::Uptime;

/// The most tiles that are kept: with a larger budget, a share of them.
pub(super) const SAMPLE: u32 = 32_768;
/// The fewest that a budget is judged by when room is short.
const LEAST_SAMPLE: u32 = 1_024;
/// Minutes that count: the one under way and sixty before it.
const MINUTES: u8 = 61;
const MINUTE: u64 = 60_000_000_000;

/// The different tiles of one person in the last hour.
pub(super) struct DistinctTiles {
    /// Of 2³² hashes, so many are in the sample.
    share: u64,
    /// How many of the sample are the budget.
    limit: u32,
    /// How often the share was halved for want of room.
    halved: u32,
    /// The latest minute that anything was done in.
    minute: u64,
    /// How many count.
    live: u32,
    /// Of these, how many were last asked for in each minute; the minute's remainder is its place.
    by_minute: [u32; MINUTES as usize],
    seen: Seen,
    room: Arc<Room>,
}

impl DistinctTiles {
    pub(super) fn new(budget: NonZeroU32, room: Arc<Room>) -> Self {
        let budget = u64::from(budget.get());
        let share = if budget <= u64::from(SAMPLE) {
            1 << 32
        } else {
            (u64::from(SAMPLE) << 32) / budget
        };
        let limit = (budget * share).div_ceil(1 << 32);
        Self {
            share,
            limit: u32::try_from(limit).unwrap_or(SAMPLE),
            halved: 0,
            minute: 0,
            live: 0,
            by_minute: [0; MINUTES as usize],
            seen: Seen::default(),
            room,
        }
    }

    /// Counts a tile, by its hash. One that was asked for within the hour costs nothing; a new one over the
    /// budget is not counted, and the answer is when the next one fits. (Over the budget, a tile outside of
    /// the sample is refused even if it was seen: nobody knows.)
    pub(super) fn spend(&mut self, hash: u64, now: Uptime) -> Result<(), Duration> {
        self.advance(now);
        let is_spent = self.live >= self.limit();
        let Some(print) = self.print(hash) else {
            return if is_spent {
                Err(self.wait(now))
            } else {
                Ok(())
            };
        };
        let age = place(self.minute);
        if let Some((slot, last)) = self.seen.find(print) {
            if last != age {
                self.by_minute[usize::from(last)] -= 1;
                self.by_minute[usize::from(age)] += 1;
                self.seen.touch(slot, age);
            }
            return Ok(());
        }
        if is_spent {
            return Err(self.wait(now));
        }
        if self.seen.is_crowded() {
            self.make_room();
            if self.print(hash).is_none() {
                return Ok(());
            }
        }
        self.seen.insert(print, age);
        self.by_minute[usize::from(age)] += 1;
        self.live += 1;
        Ok(())
    }

    /// Forgets what is older than the hour.
    pub(super) fn advance(&mut self, now: Uptime) {
        let minute = now.nanos() / MINUTE;
        if minute <= self.minute {
            return;
        }
        let leaving = self.minute + 1..=minute.min(self.minute + u64::from(MINUTES));
        self.minute = minute;
        if self.live == 0 {
            return;
        }
        for minute in leaving {
            let age = place(minute);
            let gone = std::mem::take(&mut self.by_minute[usize::from(age)]);
            if gone > 0 {
                self.live -= gone;
                self.seen.expire(age);
            }
        }
        if self.live == 0 {
            self.replace(Seen::default());
            self.halved = 0;
        }
    }

    /// How many tiles count, or about how many where it is a sample.
    pub(super) fn count(&self) -> u64 {
        (u64::from(self.live) << (self.halved + 32)) / self.share
    }

    /// Whether every tile is counted.
    pub(super) fn is_exact(&self) -> bool {
        self.share == 1 << 32 && self.halved == 0
    }

    fn limit(&self) -> u32 {
        self.limit >> self.halved
    }

    /// What a tile is known by, if it is in the sample: chosen by one half of the hash, known by the other,
    /// and thinned by the top of that.
    fn print(&self, hash: u64) -> Option<u32> {
        let (choice, print) = (hash >> 32, u32::try_from(hash & 0xffff_ffff).ok()?);
        let sampled = choice < self.share && u64::from(print) << self.halved < 1 << 32;
        sampled.then_some(print.max(1))
    }

    /// When one more fits, if nothing that counts is asked for again: when the oldest minute that has enough
    /// in it ends.
    fn wait(&self, now: Uptime) -> Duration {
        let mut over = self.live.saturating_sub(self.limit());
        let mut end = self.minute;
        for minute in self.minute + 1..=self.minute + u64::from(MINUTES) {
            end = minute;
            let leaving = self.by_minute[usize::from(place(minute))];
            if leaving > over {
                break;
            }
            over -= leaving;
        }
        let longest = Duration::from_nanos(u64::from(MINUTES) * MINUTE);
        Uptime::from_nanos(end.saturating_mul(MINUTE))
            .since(now)
            .min(longest)
    }

    /// Rebuilds the table with room for more, without what no longer counts.
    fn make_room(&mut self) {
        let tiles = usize::try_from(self.live).unwrap_or(usize::MAX) + 1;
        let (old, mut slots) = (self.seen.slots(), Seen::slots_for(tiles));
        let more = Seen::bytes_of(slots).saturating_sub(Seen::bytes_of(old));
        if more > 0 && !self.room.has(more) && self.limit() / 2 >= LEAST_SAMPLE {
            self.halved += 1;
            slots = old;
        }
        let mut seen = Seen::with_slots(slots.max(Seen::slots_for(1)));
        self.live = 0;
        self.by_minute = [0; MINUTES as usize];
        for (print, age) in self.seen.iter() {
            if u64::from(print) << self.halved < 1 << 32 {
                seen.insert(print, age);
                self.by_minute[usize::from(age)] += 1;
                self.live += 1;
            }
        }
        self.replace(seen);
    }

    fn replace(&mut self, seen: Seen) {
        self.room.take(Seen::bytes_of(seen.slots()));
        self.room.give_back(Seen::bytes_of(self.seen.slots()));
        self.seen = seen;
    }
}

impl Drop for DistinctTiles {
    fn drop(&mut self) {
        self.replace(Seen::default());
    }
}

fn place(minute: u64) -> u8 {
    u8::try_from(minute % u64::from(MINUTES)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
