//! The tokens that were verified lately, so that a person's thousand tiles cost one signature check.
//!
//! Only verified tokens enter, so nobody fills it with rubbish. The full text is compared: a hash
//! finds the place and proves nothing. It is keyed with a secret of this process, so the comparison
//! is reached only by a token whose 64-bit keyed hash is right already, and the time it takes
//! tells nothing about anybody's token. Whether a session has expired or was ended is not known here.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use twox_hash::XxHash3_64;

use super::{NoRandomness, Session, random};
use crate::clock::Timestamp;

/// So many that two cores seldom want the same one. A power of two.
const SHARDS: usize = 64;

struct Known {
    token: Box<[u8]>,
    session: Arc<Session>,
    /// Asked for since the last sweep.
    used: AtomicBool,
}

/// How much of a token is hashed: its end, which is the signature and so differs wherever anything
/// does. (Whatever else ends alike fails the comparison.)
const TAIL: usize = 64;

/// A shard sits on cache lines of its own: a lock taken next door must not slow this one down.
#[repr(align(128))]
struct Shard(RwLock<HashMap<u64, Known, BuildHasherDefault<AlreadyHashed>>>);

/// Verified tokens and their sessions, bounded.
pub(super) struct KnownTokens {
    seed: u64,
    per_shard: usize,
    shards: Box<[Shard]>,
}

impl KnownTokens {
    /// Keeps about `capacity` tokens at most.
    pub(super) fn new(capacity: usize) -> Result<Self, NoRandomness> {
        Ok(Self {
            seed: u64::from_ne_bytes(random()?),
            per_shard: (capacity / SHARDS).max(4),
            shards: (0..SHARDS)
                .map(|_| Shard(RwLock::new(HashMap::default())))
                .collect(),
        })
    }

    /// The session of exactly this token. Takes a shared lock, allocates nothing.
    pub(super) fn get(&self, token: &[u8]) -> Option<Arc<Session>> {
        let hash = self.hash(token);
        let shard = self.shard(hash).read();
        let shard = shard.unwrap_or_else(PoisonError::into_inner);
        let known = shard.get(&hash)?;
        if *known.token != *token {
            return None;
        }
        // Written once a sweep: a line that every core only reads stays in every core's cache.
        if !known.used.load(Ordering::Relaxed) {
            known.used.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(&known.session))
    }

    /// Remembers a verified token; another of the same hash gives way.
    pub(super) fn put(&self, token: &[u8], session: &Arc<Session>, now: Timestamp) {
        let hash = self.hash(token);
        let known = Known {
            token: token.into(),
            session: Arc::clone(session),
            used: AtomicBool::new(false),
        };
        let shard = self.shard(hash).write();
        let mut shard = shard.unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= self.per_shard && !shard.contains_key(&hash) {
            // Second chance, a whole shard at a time: dear, but only every quarter shard.
            shard.retain(|_, known| {
                known.session.check_time(now).is_ok() && std::mem::take(known.used.get_mut())
            });
            let target = self.per_shard * 3 / 4;
            let mut excess = shard.len().saturating_sub(target);
            shard.retain(|_, _| {
                let go = excess > 0;
                excess = excess.saturating_sub(1);
                !go
            });
        }
        shard.insert(hash, known);
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        let len = |shard: &Shard| shard.0.read().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(len).sum()
    }

    fn hash(&self, token: &[u8]) -> u64 {
        let tail = token.len().saturating_sub(TAIL);
        XxHash3_64::oneshot_with_seed(self.seed, &token[tail..])
    }

    /// By the top bits; the map inside uses the lower ones and the top seven.
    fn shard(&self, hash: u64) -> &RwLock<HashMap<u64, Known, BuildHasherDefault<AlreadyHashed>>> {
        let index = (hash >> 32) as usize % SHARDS;
        &self.shards[index].0
    }
}

/// Keys that are hashes already.
#[derive(Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not reached with `u64` keys; still a hash.
        self.0 = XxHash3_64::oneshot_with_seed(self.0, bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::claims;
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(10);

    fn session(exp: u64) -> Arc<Session> {
        Arc::new(Session::new(claims(exp), "x").unwrap())
    }

    #[test]
    fn only_the_full_text_finds_a_session() {
        let known = KnownTokens::new(1000).unwrap();
        let ada = session(100);
        known.put(b"header.payload.signature", &ada, NOW);
        assert!(Arc::ptr_eq(
            &known.get(b"header.payload.signature").unwrap(),
            &ada
        ));
        assert!(known.get(b"header.payload.signaturf").is_none());
        assert!(known.get(b"header.payload.signatur").is_none());
    }

    #[test]
    fn a_collision_authorizes_nobody() {
        let known = KnownTokens::new(1000).unwrap();
        known.put(b"token", &session(100), NOW);
        let hash = known.hash(b"token");
        let shard = known.shard(hash);
        shard.write().unwrap().get_mut(&hash).unwrap().token = (*b"other").into();
        assert!(known.get(b"token").is_none());
    }

    #[test]
    fn it_keeps_no_more_than_its_capacity_and_what_is_used_longest() {
        let known = KnownTokens::new(640).unwrap();
        known.put(b"busy", &session(100), NOW);
        let idle = session(100);
        for n in 0..20_000 {
            known.put(format!("idle {n}").as_bytes(), &idle, NOW);
            assert!(known.get(b"busy").is_some(), "after {n}");
        }
        assert!(known.len() <= 640, "{}", known.len());
    }

    #[test]
    fn the_expired_give_way_first() {
        let known = KnownTokens::new(256).unwrap();
        let gone = session(1);
        for n in 0..5_000 {
            known.put(format!("{n}").as_bytes(), &gone, NOW);
            known.get(format!("{n}").as_bytes());
        }
        let later = Timestamp::from_secs(1_000);
        let fresh = session(2_000);
        for n in 0..64 {
            known.put(format!("fresh {n}").as_bytes(), &fresh, later);
        }
        assert!(known.len() <= 256);
    }
}
