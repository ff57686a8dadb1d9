//! When a session may be made to last longer, and until when. Pure, but for the gate.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{LEEWAY, RevocationId, Session};
use crate::clock::Timestamp;

/// A session is renewed by tile answers no more often than this.
const SPACING: Duration = Duration::from_mins(1);
/// Sessions whose last renewal is remembered. Past it, renewal by tiles waits for the next minute.
const CAPACITY: usize = 65_536;

/// When a session of this server's would end if it were renewed now: `now + ttl`, but never past
/// `auth_time + max_ttl`. `None` for other people's tokens, and where it would gain nothing.
pub(super) fn renewed_until(
    session: &Session,
    ttl: Duration,
    max_ttl: Duration,
    now: Timestamp,
) -> Option<u64> {
    let auth_time = session.is_ours().then(|| session.auth_time()).flatten()?;
    session.claims().sid.as_ref()?;
    if Timestamp::from_secs(auth_time) > now + LEEWAY {
        // A log-in that is still to come would put its end off for ever.
        return None;
    }
    let last = (Timestamp::from_secs(auth_time) + max_ttl).secs();
    let until = (now + ttl).secs().min(last);
    (until > session.claims().exp).then_some(until)
}

/// Whether a tile answer should renew it: past half of its life (from `iat` to `exp`), and only
/// where renewing gains something.
pub fn renewal_due(session: &Session, ttl: Duration, max_ttl: Duration, now: Timestamp) -> bool {
    session.is_past_half(now) && renewed_until(session, ttl, max_ttl, now).is_some()
}

/// Lets each session through once a minute.
#[derive(Default)]
pub(super) struct RenewalGate {
    last: Mutex<HashMap<RevocationId, Timestamp>>,
}

impl RenewalGate {
    /// Whether this session's turn has come; taking it is remembered.
    pub(super) fn take_turn(&self, session: RevocationId, now: Timestamp) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back must not stop renewal until it has caught up.
        let recent = |at: Timestamp| at <= now && now.since(at) < SPACING;
        if last.get(&session).is_some_and(|at| recent(*at)) {
            return false;
        }
        if last.len() >= CAPACITY {
            last.retain(|_, at| recent(*at));
            if last.len() >= CAPACITY {
                return false;
            }
        }
        last.insert(session, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Claims;

    const TTL: Duration = Duration::from_secs(100);
    const MAX_TTL: Duration = Duration::from_secs(250);

    fn session(change: impl FnOnce(&mut Claims)) -> Session {
        let mut claims = Claims {
            iss: Some("tilekeep".to_owned()),
            sid: Some("1".to_owned()),
            iat: Some(1_000),
            auth_time: Some(1_000),
            ..super::super::testing::claims(1_100)
        };
        change(&mut claims);
        Session::new(claims, "x").unwrap()
    }

    fn due(session: &Session, now: u64) -> bool {
        renewal_due(session, TTL, MAX_TTL, Timestamp::from_secs(now))
    }

    fn until(session: &Session, now: u64) -> Option<u64> {
        renewed_until(session, TTL, MAX_TTL, Timestamp::from_secs(now))
    }

    #[test]
    fn renewal_is_due_past_half_of_a_sessions_life() {
        let session = session(|_| ());
        assert!(!due(&session, 1_049) && !due(&session, 1_050));
        assert!(due(&session, 1_051));
    }

    #[test]
    fn nothing_lasts_past_log_in_and_max_ttl() {
        assert_eq!(until(&session(|_| ()), 1_060), Some(1_160));
        let late = session(|c| (c.iat, c.exp) = (Some(1_140), 1_240));
        assert_eq!(until(&late, 1_200), Some(1_250));
        let last = session(|c| (c.iat, c.exp) = (Some(1_200), 1_250));
        assert_eq!(until(&last, 1_240), None);
        assert!(
            !due(&last, 1_249),
            "a renewal that gains nothing is not due"
        );
    }

    #[test]
    fn only_the_servers_own_sessions_are_renewed() {
        for stranger in [
            session(|c| c.iss = None),
            session(|c| c.iss = Some("app".to_owned())),
            session(|c| c.sid = None),
            session(|c| c.auth_time = None),
            session(|c| c.auth_time = Some(2_000)),
        ] {
            assert_eq!(until(&stranger, 1_060), None);
            assert!(!due(&stranger, 1_060));
        }
    }

    #[test]
    fn a_session_is_renewed_by_tiles_once_a_minute() {
        let gate = RenewalGate::default();
        let id = session(|_| ()).revocation_id();
        let other = session(|c| c.sid = Some("2".to_owned())).revocation_id();
        let turn = |id, at| gate.take_turn(id, Timestamp::from_secs(at));
        assert!(turn(id, 1_000) && turn(other, 1_000));
        assert!(!turn(id, 1_059));
        assert!(turn(id, 1_060));
        assert!(turn(id, 500), "the clock was set back");
    }
}
