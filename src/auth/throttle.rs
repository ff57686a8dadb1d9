//! How often somebody may try a password. Pure but for the tables; `now` is an argument.
//!
//! An attempt spends before the password is looked at, and a right password gives back what its
//! attempt spent, so that only failures add up, also those under way at one time. Three rules:
//!
//! * one account from one address: 5 at once, then one a minute;
//! * one address, over all accounts: 20 at once, then one in 30 seconds;
//! * one account, over all addresses: 20 at once, then one a minute — but this rule holds neither for
//!   an address from which this account has logged in during the last 30 days, nor for the first
//!   attempt in an hour from a network.
//!
//! So nobody is locked out by attempts from other addresses: at a known place they never count, and
//! at a new one the first attempt is always free. A guesser with many addresses gets one attempt an
//! hour and network for that. Accounts that do not exist are throttled alike, which tells nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use twox_hash::XxHash3_64;

use super::{NoRandomness, random};
use crate::clock::Timestamp;

/// Entries of a table.
const CAPACITY: usize = 65_536;
/// How long an address from which somebody logged in is known as theirs.
const KNOWN_FOR: Duration = Duration::from_hours(30 * 24);

const PAIR: Rule = Rule::new(5, 60);
const ADDRESS: Rule = Rule::new(20, 30);
const ACCOUNT: Rule = Rule::new(20, 60);
const NEWCOMER: Rule = Rule::new(1, 3600);

/// Too many attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many attempts to log in; try again in {} seconds", .retry_after.as_secs())]
pub struct Throttled {
    /// When one more is allowed; whole seconds, at least one.
    pub retry_after: Duration,
}

impl Throttled {
    fn after(wait: Duration) -> Self {
        let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self {
            retry_after: Duration::from_secs(whole),
        }
    }
}

/// An attempt that was let through, to be settled.
#[derive(Debug)]
#[must_use = "an attempt that turns out right is given back"]
pub struct Attempt {
    pair: u64,
    address: u64,
    account: u64,
    newcomer: Option<u64>,
}

/// The attempts of late, in bounded tables.
pub struct Throttle {
    seed: u64,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    pairs: Buckets,
    addresses: Buckets,
    accounts: Buckets,
    newcomers: Buckets,
    /// Pairs that logged in, and when last.
    known: HashMap<u64, Timestamp>,
}

impl Throttle {
    /// Nobody has tried anything.
    pub fn new() -> Result<Self, NoRandomness> {
        Ok(Self {
            // Keyed, so that nobody can choose names that share a place with somebody else's.
            seed: u64::from_ne_bytes(random()?),
            tables: Mutex::default(),
        })
    }

    /// Spends an attempt, or says when the next is allowed.
    pub fn attempt(
        &self,
        account: &str,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<Attempt, Throttled> {
        let (address, network) = places(from);
        let hash = |bytes: &[u8]| XxHash3_64::oneshot_with_seed(self.seed, bytes);
        let pair = hash(&[&address.octets(), account.as_bytes()].concat());
        let newcomer = hash(&network.octets());
        let address = hash(&address.octets());
        let account = hash(account.as_bytes());

        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let at_home = tables
            .known
            .get(&pair)
            .is_some_and(|last| now.since(*last) < KNOWN_FOR);
        let first = !at_home && tables.newcomers.wait(NEWCOMER, newcomer, now).is_zero();
        let mut wait = tables.pairs.wait(PAIR, pair, now);
        wait = wait.max(tables.addresses.wait(ADDRESS, address, now));
        if !at_home && !first {
            wait = wait.max(tables.accounts.wait(ACCOUNT, account, now));
        }
        if !wait.is_zero() {
            return Err(Throttled::after(wait));
        }
        tables.pairs.spend(PAIR, pair, now);
        tables.addresses.spend(ADDRESS, address, now);
        if !at_home {
            tables.accounts.spend(ACCOUNT, account, now);
        }
        if first {
            tables.newcomers.spend(NEWCOMER, newcomer, now);
        }
        Ok(Attempt {
            pair,
            address,
            account: if at_home { 0 } else { account },
            newcomer: first.then_some(newcomer),
        })
    }

    /// Spends an attempt that no account can be charged with: a name that can be nobody's, another issuer's token, a
    /// return from an identity provider. Of its address alone; [`Throttle::forgive`] gives it back.
    pub fn stray(&self, from: IpAddr, now: Timestamp) -> Result<(), Throttled> {
        let address = self.address(from);
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = tables.addresses.wait(ADDRESS, address, now);
        if !wait.is_zero() {
            return Err(Throttled::after(wait));
        }
        tables.addresses.spend(ADDRESS, address, now);
        Ok(())
    }

    /// The password was right: the attempt costs nothing, and its address is known from now on.
    pub fn succeeded(&self, attempt: &Attempt, now: Timestamp) {
        self.withdraw(attempt);
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &mut tables.known;
        if known.len() >= CAPACITY && !known.contains_key(&attempt.pair) {
            drop_lowest_quarter(known, |last| last.millis());
        }
        known.insert(attempt.pair, now);
    }

    /// Gives back what [`Throttle::stray`] took: it was no guess.
    pub fn forgive(&self, from: IpAddr) {
        let address = self.address(from);
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.addresses.give_back(ADDRESS, address);
    }

    fn address(&self, from: IpAddr) -> u64 {
        XxHash3_64::oneshot_with_seed(self.seed, &places(from).0.octets())
    }

    /// The password was not looked at: the attempt costs nothing.
    pub fn withdraw(&self, attempt: &Attempt) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.pairs.give_back(PAIR, attempt.pair);
        tables.addresses.give_back(ADDRESS, attempt.address);
        tables.accounts.give_back(ACCOUNT, attempt.account);
        if let Some(newcomer) = attempt.newcomer {
            tables.newcomers.give_back(NEWCOMER, newcomer);
        }
    }
}

/// The address that attempts are counted by, and the network that is new or not. An IPv6 host has
/// a /64 of its own to draw addresses from, and a site usually a /48.
fn places(from: IpAddr) -> (Ipv6Addr, Ipv6Addr) {
    match from.to_canonical() {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            let keep = |prefix: u32| Ipv6Addr::from_bits(bits & (u128::MAX << (128 - prefix)));
            (keep(64), keep(48))
        }
    }
}

/// So many at once, then one in so many milliseconds.
#[derive(Clone, Copy)]
struct Rule {
    interval: u64,
    tolerance: u64,
}

impl Rule {
    const fn new(burst: u64, seconds: u64) -> Self {
        let interval = seconds * 1000;
        Self {
            interval,
            tolerance: interval * burst,
        }
    }
}

/// Leaky buckets by the generic cell rate algorithm: each is the time at which it will be empty.
#[derive(Default)]
struct Buckets(HashMap<u64, u64>);

impl Buckets {
    /// How long until one more fits; zero if it does.
    fn wait(&self, rule: Rule, key: u64, now: Timestamp) -> Duration {
        let full = self.level(rule, key, now) + rule.interval;
        Duration::from_millis(full.saturating_sub(now.millis() + rule.tolerance))
    }

    fn spend(&mut self, rule: Rule, key: u64, now: Timestamp) {
        let level = self.level(rule, key, now) + rule.interval;
        if self.0.len() >= CAPACITY && !self.0.contains_key(&key) {
            self.0.retain(|_, empty| *empty > now.millis());
            if self.0.len() >= CAPACITY {
                // The fullest stay: nobody gets rid of a bucket by opening many.
                drop_lowest_quarter(&mut self.0, |empty| *empty);
            }
        }
        // Spending without asking stops at a full bucket.
        self.0.insert(key, level.min(now.millis() + rule.tolerance));
    }

    fn give_back(&mut self, rule: Rule, key: u64) {
        if let Some(empty) = self.0.get_mut(&key) {
            *empty = empty.saturating_sub(rule.interval);
        }
    }

    /// When the bucket is empty: not before now, and never later than a full one, even if the clock
    /// was set back.
    fn level(&self, rule: Rule, key: u64, now: Timestamp) -> u64 {
        let now = now.millis();
        let empty = self.0.get(&key).copied().unwrap_or(0);
        empty.clamp(now, now + rule.tolerance)
    }
}

fn drop_lowest_quarter<V>(table: &mut HashMap<u64, V>, rank: impl Fn(&V) -> u64) {
    let mut ranks: Vec<u64> = table.values().map(&rank).collect();
    let quarter = ranks.len() / 4;
    if quarter == 0 {
        return;
    }
    let (_, limit, _) = ranks.select_nth_unstable(quarter - 1);
    let limit = *limit;
    let mut excess = quarter;
    table.retain(|_, value| {
        let go = excess > 0 && rank(value) <= limit;
        excess -= usize::from(go);
        !go
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle() -> Throttle {
        Throttle::new().unwrap()
    }

    fn v4(n: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + n).into())
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + seconds)
    }

    fn fails(throttle: &Throttle, account: &str, from: IpAddr, now: Timestamp) -> bool {
        throttle.attempt(account, from, now).is_ok()
    }

    #[test]
    fn a_sixth_failure_waits_a_minute() {
        let throttle = throttle();
        for _ in 0..5 {
            assert!(fails(&throttle, "ada", v4(1), at(0)));
        }
        let refused = throttle.attempt("ada", v4(1), at(0)).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_mins(1));
        assert!(fails(&throttle, "bob", v4(1), at(0)), "another account");
        assert!(fails(&throttle, "ada", v4(2), at(0)), "another address");
        assert!(!fails(&throttle, "ada", v4(1), at(59)));
        assert!(fails(&throttle, "ada", v4(1), at(60)));
        assert!(!fails(&throttle, "ada", v4(1), at(60)));
    }

    #[test]
    fn right_passwords_cost_nothing() {
        let throttle = throttle();
        for _ in 0..100 {
            let attempt = throttle.attempt("ada", v4(1), at(0)).unwrap();
            throttle.succeeded(&attempt, at(0));
        }
    }

    #[test]
    fn attempts_under_way_at_one_time_count() {
        let throttle = throttle();
        let under_way: Vec<_> = (0..50)
            .filter_map(|_| throttle.attempt("ada", v4(1), at(0)).ok())
            .collect();
        assert_eq!(under_way.len(), 5);
    }

    #[test]
    fn one_address_cannot_try_every_account() {
        let throttle = throttle();
        let tried = (0..1_000).filter(|n| fails(&throttle, &format!("user {n}"), v4(1), at(0)));
        assert_eq!(tried.count(), 20);
        let prefix = |n: u128| IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | n));
        let tried =
            (0..1_000).filter(|n| fails(&throttle, &format!("user {n}"), prefix(*n), at(0)));
        assert_eq!(tried.count(), 20, "one /64 is one address");
    }

    #[test]
    fn what_can_be_nobodys_attempt_is_its_addresss_all_the_same() {
        let throttle = throttle();
        for _ in 0..20 {
            throttle.stray(v4(1), at(0)).unwrap();
        }
        let refused = throttle.stray(v4(1), at(0)).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_secs(30));
        assert!(!fails(&throttle, "ada", v4(1), at(0)), "one address");
        assert!(fails(&throttle, "ada", v4(2), at(0)), "another one");
        let tables = throttle.tables.lock().unwrap();
        assert_eq!(tables.pairs.0.len(), 1, "no table grows by such names");
    }

    #[test]
    fn nobody_is_locked_out_by_attempts_from_other_addresses() {
        let throttle = throttle();
        let home = throttle.attempt("ada", v4(0), at(0)).unwrap();
        throttle.succeeded(&home, at(0));
        let mut guesses = 0;
        for minute in 0..600 {
            for address in 1..200 {
                let guess = throttle.attempt("ada", v4(address), at(minute * 60));
                guesses += u32::from(guess.is_ok());
            }
        }
        let now = at(600 * 60);
        let home = throttle.attempt("ada", v4(0), now).unwrap();
        throttle.succeeded(&home, now);
        let new_place = throttle.attempt("ada", v4(7_000), now).unwrap();
        throttle.succeeded(&new_place, now);
        // 10 hours: 20, one a minute, and one an hour and address.
        assert!(guesses <= 20 + 600 + 11 * 200, "{guesses}");
        assert!(fails(&throttle, "ada", v4(7_000), now), "known by now");
    }

    #[test]
    fn a_clock_set_back_locks_nobody_out() {
        let throttle = throttle();
        for _ in 0..5 {
            assert!(fails(&throttle, "ada", v4(1), at(500_000)));
        }
        let refused = throttle.attempt("ada", v4(1), at(0)).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_mins(1));
    }

    #[test]
    fn the_tables_stay_bounded_and_keep_the_worst() {
        let throttle = throttle();
        for _ in 0..5 {
            assert!(fails(&throttle, "ada", v4(0), at(0)));
        }
        for n in 1..u32::try_from(CAPACITY).unwrap() + 1_000 {
            fails(&throttle, "ada", v4(n), at(0));
        }
        let tables = throttle.tables.lock().unwrap();
        assert!(tables.pairs.0.len() <= CAPACITY);
        assert!(tables.newcomers.0.len() <= CAPACITY);
        drop(tables);
        assert!(!fails(&throttle, "ada", v4(0), at(0)), "still throttled");
    }
}
