//! Credentials for a job of somebody else's: STS gives them out for one tileset's prefix.
//!
//! Invariant: they read the tileset's prefix and nothing else, whatever the role may, and end no later than
//! asked. STS is asked by so many at a time, for so long at most, and once for a person who asks again.
//! Left out on purpose: who may have them (`http`).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::keeper::{Kept, timestamp};
use super::policy::{ReadPlace, lending_policy};
use super::source::{Role, Trouble};
use super::{AssumeRole, Aws};
use crate::clock::Timestamp;
use crate::metrics::{CredentialOutcome, VendOutcome};
use crate::tile::is_archive;

/// STS takes no shorter session.
pub const SHORTEST: Duration = Duration::from_mins(15);
/// And no longer one.
pub const LONGEST: Duration = Duration::from_hours(12);
/// What every role gives, one that was reached from another role too.
const ALWAYS: Duration = Duration::from_hours(1);

/// Who asks STS at a time; a role's own refreshes are not among them.
const AT_ONCE: usize = 4;
/// Who asks or waits for that. More are turned away.
const WAITING: usize = 32;
/// For all of it: the wait, and a second question where the first was for too long.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long it is believed what STS refused for being too long.
const BELIEVED: Duration = Duration::from_hours(1);
/// Credentials that are remembered, some 2 KB each.
const REMEMBERED: usize = 1024;

/// Who hands out credentials. Empty where tiles come from elsewhere.
#[derive(Default)]
pub struct Vending {
    desk: Option<Desk>,
    tilesets: HashMap<Box<str>, Offer>,
}

/// What is known of each role, and since when.
type Ceilings = HashMap<Box<str>, (Ceiling, Timestamp)>;

/// By person and tileset.
type Remembered = HashMap<(Box<str>, Box<str>), Lent>;

/// Where STS is asked, and what it gave.
struct Desk {
    sts: Option<SdkConfig>,
    base: Kept,
    waiting: Semaphore,
    at_once: Semaphore,
    lent: Mutex<Remembered>,
    /// By role.
    ceilings: Mutex<Ceilings>,
}

/// What can be had for a tileset.
struct Offer {
    role: Option<AssumeRole>,
    policy: String,
    whole_bucket: bool,
    also: Vec<Box<str>>,
}

impl fmt::Debug for Vending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vending")
            .field("tilesets", &self.tilesets.keys())
            .finish_non_exhaustive()
    }
}

/// Credentials, and their end.
#[derive(Clone, PartialEq, Eq)]
pub struct Lent {
    /// Public part.
    pub access_key_id: String,
    /// Secret part.
    pub secret_access_key: String,
    /// Goes with it.
    pub session_token: String,
    /// When they end.
    pub ends: Timestamp,
}

impl Lent {
    fn new(keys: &Credentials, otherwise: Timestamp) -> Self {
        Self {
            access_key_id: keys.access_key_id().to_owned(),
            secret_access_key: keys.secret_access_key().to_owned(),
            session_token: keys.session_token().unwrap_or_default().to_owned(),
            ends: keys.expiry().map_or(otherwise, timestamp),
        }
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent")
            .field("access_key_id", &self.access_key_id)
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

/// Why none are handed out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VendError {
    /// There is no role to assume for this tileset.
    #[error("no role: neither the tileset nor [aws] has an `assume_role`")]
    NoRole,
    /// The tileset's prefix is no folder.
    #[error(
        "the tileset's keys do not begin with a folder, so that its prefix opens what lies beside it"
    )]
    WholeBucket,
    /// Too many ask already.
    #[error("too many ask for credentials at once")]
    Busy,
    /// STS did not answer in time.
    #[error("STS did not answer in {DEADLINE:?}")]
    Deadline,
    /// STS said no.
    #[error("{0}")]
    Denied(String),
    /// STS cannot be asked, or is broken.
    #[error("{0}")]
    Unavailable(String),
}

impl VendError {
    /// The word for the metric.
    pub const fn outcome(&self) -> VendOutcome {
        match self {
            Self::NoRole | Self::WholeBucket => VendOutcome::NotOffered,
            Self::Busy => VendOutcome::Busy,
            Self::Deadline => VendOutcome::Deadline,
            Self::Denied(_) => VendOutcome::Denied,
            Self::Unavailable(_) => VendOutcome::Unavailable,
        }
    }
}

impl From<Trouble> for VendError {
    fn from(trouble: Trouble) -> Self {
        match trouble.outcome {
            CredentialOutcome::Denied => Self::Denied(trouble.said),
            CredentialOutcome::Deadline => Self::Deadline,
            _ => Self::Unavailable(trouble.said),
        }
    }
}

/// A wish for credentials, by somebody who may have them.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// For which tileset.
    pub tileset: &'a str,
    /// Who asks.
    pub person: &'a str,
    /// For how long: [`SHORTEST`] to [`LONGEST`].
    pub duration: Duration,
    /// The time.
    pub now: Timestamp,
}

impl Vending {
    /// Hands out what these settings can assume; nothing is offered yet.
    pub fn new(aws: &Aws) -> Self {
        Self {
            desk: Some(Desk {
                sts: aws.sts_config(),
                base: aws.keys.clone(),
                waiting: Semaphore::new(WAITING),
                at_once: Semaphore::new(AT_ONCE),
                lent: Mutex::default(),
                ceilings: Mutex::default(),
            }),
            tilesets: HashMap::new(),
        }
    }

    /// Offers a tileset's place, by this role or the one for all. Who may read it reads those of the other
    /// tilesets that overlap it, too.
    pub fn offer<'a>(
        &mut self,
        aws: &Aws,
        tileset: &str,
        role: Option<&AssumeRole>,
        place: &ReadPlace,
        others: impl Iterator<Item = (&'a str, ReadPlace)>,
    ) {
        let role = role.or(aws.settings.assume_role.as_ref()).cloned();
        let policy = role
            .as_ref()
            .map(|role| lending_policy(place, &aws.dialect(role)).to_json());
        let place = place.literal();
        let also = others.filter(|(name, other)| *name != tileset && place.overlaps(other));
        let offer = Offer {
            role,
            policy: policy.unwrap_or_default(),
            // `w` would open `wages/` too.
            whole_bucket: !place.prefix.ends_with('/') && !is_archive(&place.prefix),
            also: also.map(|(name, _)| name.into()).collect(),
        };
        self.tilesets.insert(tileset.into(), offer);
    }

    /// The other tilesets whose tiles may lie in this one's place.
    pub fn also_opens(&self, tileset: &str) -> impl Iterator<Item = &str> {
        let offer = self.tilesets.get(tileset);
        offer.into_iter().flat_map(|o| o.also.iter().map(|s| &**s))
    }

    /// Credentials, and whether they were remembered.
    pub async fn lend(&self, wish: Wish<'_>) -> Result<(Lent, VendOutcome), VendError> {
        let offered = self.tilesets.get(wish.tileset).zip(self.desk.as_ref());
        let (offer, desk) = offered.ok_or(VendError::NoRole)?;
        let role = offer.role.as_ref().ok_or(VendError::NoRole)?;
        let sts = desk.sts.as_ref().ok_or(VendError::NoRole)?;
        if offer.whole_bucket {
            return Err(VendError::WholeBucket);
        }
        let longest = desk.ceiling(role, wish.now).next(wish.duration);
        if let Some(lent) = desk.remembered(&wish, longest) {
            return Ok((lent, VendOutcome::Remembered));
        }
        let Ok(_place) = desk.waiting.try_acquire() else {
            return Err(VendError::Busy);
        };
        let asked = async {
            let Ok(_turn) = desk.at_once.acquire().await else {
                return Err(VendError::Busy);
            };
            desk.ask(sts, role, &offer.policy, &wish).await
        };
        let lent = timeout(DEADLINE, asked)
            .await
            .unwrap_or(Err(VendError::Deadline))?;
        desk.remember(&wish, &lent);
        Ok((lent, VendOutcome::Lent))
    }
}

impl Desk {
    /// Asks STS, for less where it does not give as much.
    async fn ask(
        &self,
        sts: &SdkConfig,
        role: &AssumeRole,
        policy: &str,
        wish: &Wish<'_>,
    ) -> Result<Lent, VendError> {
        let mut best = None;
        loop {
            let duration = self.ceiling(role, wish.now).next(wish.duration);
            let session = AssumeRole {
                session_name: session_name(&role.session_name, wish.person),
                duration,
                ..role.clone()
            };
            let source = Role::new(sts, session, Some(policy.to_owned()), self.base.clone());
            // On the heap: the SDK's futures are large.
            let trouble = match Box::pin(source.ask()).await {
                Ok(brought) => {
                    let ceiling = self.learn(role, wish.now, |ceiling| ceiling.fits(duration));
                    let lent = Lent::new(&brought.credentials, wish.now + duration);
                    if ceiling.next(wish.duration) <= duration {
                        return Ok(lent);
                    }
                    // Between what was refused and this there may be more.
                    best = Some(lent);
                    continue;
                }
                Err(trouble) => trouble,
            };
            if trouble.base_refused {
                self.base.refused();
            }
            let chained = trouble.said.contains("role chaining");
            if duration <= ALWAYS || !(chained || trouble.said.contains("urationSeconds")) {
                return best.ok_or_else(|| trouble.into());
            }
            let refused = if chained { ALWAYS } else { duration };
            let ceiling = self.learn(role, wish.now, |ceiling| ceiling.refuses(refused));
            if let Some(best) = best.take_if(|_| ceiling.next(wish.duration) <= ceiling.fits) {
                return Ok(best);
            }
        }
    }

    /// What is known of a role. Roles are edited, so it is not believed for ever.
    fn ceiling(&self, role: &AssumeRole, now: Timestamp) -> Ceiling {
        let ceilings = locked(&self.ceilings);
        let known = ceilings.get(&*role.arn);
        let known = known.filter(|(_, since)| now.since(*since) < BELIEVED);
        known.map(|(ceiling, _)| *ceiling).unwrap_or_default()
    }

    fn learn(&self, role: &AssumeRole, now: Timestamp, what: impl FnOnce(&mut Ceiling)) -> Ceiling {
        let mut ceiling = self.ceiling(role, now);
        let known = ceiling != Ceiling::default();
        what(&mut ceiling);
        let mut ceilings = locked(&self.ceilings);
        let since = ceilings.get(&*role.arn).map(|(_, since)| *since);
        let since = since.filter(|_| known).unwrap_or(now);
        ceilings.insert(role.arn.as_str().into(), (ceiling, since));
        ceiling
    }

    /// What this person was given for this tileset, if more than half of what is asked for is left of it,
    /// and no more than is asked for.
    fn remembered(&self, wish: &Wish<'_>, longest: Duration) -> Option<Lent> {
        let lent = locked(&self.lent);
        let lent = lent.get(&(wish.person.into(), wish.tileset.into()))?;
        let left = lent.ends.since(wish.now);
        (longest / 2 < left && left <= wish.duration).then(|| lent.clone())
    }

    fn remember(&self, wish: &Wish<'_>, new: &Lent) {
        let mut lent = locked(&self.lent);
        lent.retain(|_, old| old.ends > wish.now);
        if lent.len() >= REMEMBERED
            && let Some(first) = lent.iter().min_by_key(|(_, old)| old.ends)
        {
            let first = first.0.clone();
            lent.remove(&first);
        }
        lent.insert((wish.person.into(), wish.tileset.into()), new.clone());
    }
}

/// How long a role's sessions may be, as far as it is known: STS says no to what is too long, and not what
/// would not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ceiling {
    fits: Duration,
    refused: Duration,
}

impl Default for Ceiling {
    fn default() -> Self {
        Self {
            fits: ALWAYS,
            refused: LONGEST + Duration::from_secs(1),
        }
    }
}

impl Ceiling {
    /// What to ask for: as much as is wished, or as much as is known to be given; between the two, the whole
    /// hour in the middle.
    fn next(self, wish: Duration) -> Duration {
        const HOUR: u64 = 3600;
        if wish <= self.fits || wish < self.refused {
            return wish;
        }
        let (low, high) = (
            self.fits.as_secs() / HOUR,
            self.refused.as_secs().div_ceil(HOUR),
        );
        let middle = Duration::from_secs((low + high).div_ceil(2) * HOUR);
        if self.fits < middle && middle < self.refused {
            middle
        } else {
            self.fits
        }
    }

    fn fits(&mut self, duration: Duration) {
        self.fits = self.fits.max(duration);
    }

    fn refuses(&mut self, duration: Duration) {
        self.refused = self.refused.min(duration);
    }
}

/// How `CloudTrail` names the session: the server's own name and the person's, in the letters that STS takes.
fn session_name(own: &str, person: &str) -> String {
    let person = person.chars().map(|c| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '+' | '=' | ',' | '.' | '@' | '_' | '-' => c,
        _ => '_',
    });
    own.chars().chain(['-']).chain(person).take(64).collect()
}

/// Nothing is left half done behind these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: fn(u64) -> Duration = Duration::from_hours;

    #[test]
    fn what_a_role_gives_is_found_in_a_few_questions() {
        for most in 1..=12_u64 {
            let mut ceiling = Ceiling::default();
            let mut questions = 0;
            let given = loop {
                let asked = ceiling.next(H(12));
                questions += 1;
                if asked <= H(most) {
                    ceiling.fits(asked);
                    if ceiling.next(H(12)) == asked {
                        break asked;
                    }
                } else {
                    ceiling.refuses(asked);
                }
                assert!(questions < 8, "{most}");
            };
            assert_eq!(given, H(most));
            assert_eq!(ceiling.next(SHORTEST), SHORTEST);
        }
    }

    #[test]
    fn role_chaining_gives_an_hour() {
        let mut ceiling = Ceiling::default();
        ceiling.refuses(ALWAYS);
        assert_eq!(ceiling.next(H(12)), ALWAYS);
        assert_eq!(ceiling.next(ALWAYS), ALWAYS);
    }

    #[test]
    fn a_sessions_name_is_one_that_sts_takes() {
        assert_eq!(
            session_name("tilekeep", "anna@x.org"),
            "tilekeep-anna@x.org"
        );
        assert_eq!(session_name("tilekeep", "a b/ü"), "tilekeep-a_b__");
        assert_eq!(session_name("tilekeep", &"x".repeat(99)).len(), 64);
    }

    #[test]
    fn no_secret_is_printed() {
        let lent = Lent {
            access_key_id: "ASIA".into(),
            secret_access_key: "very-secret".into(),
            session_token: "token-secret".into(),
            ends: Timestamp::default(),
        };
        assert!(!format!("{lent:?}").contains("secret"));
    }
}
