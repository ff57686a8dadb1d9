//! Sessions as a whole: authorizing requests, and beginning, renewing and ending sessions.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::claims::OWN_ISSUER;
use super::known::KnownTokens;
use super::renewal::{RenewalGate, renewal_due, renewed_until};
use super::revocation::RevocationsError;
use super::{
    AuthError, BeginError, Claims, CookieTokens, EndError, Grants, IssuedSession, KeyRing, LEEWAY,
    MAX_TOKEN_LEN, MintError, NoRandomness, Quotas, RenewError, RevocationId, Revocations, Session,
    hex, random,
};
use crate::clock::Timestamp;

/// What is left of [`MAX_TOKEN_LEN`] for a token beside its cookie's name: browsers bound the sum.
const MAX_COOKIE_TOKEN_LEN: usize = MAX_TOKEN_LEN - 128;

/// What sessions are like here.
#[derive(Debug)]
pub struct SessionSettings {
    /// The keys.
    pub keys: KeyRing,
    /// How long a session lasts from log-in or renewal.
    pub ttl: Duration,
    /// How long all its renewals last from log-in.
    pub max_ttl: Duration,
    /// Where ended sessions are kept; `None`: in memory alone, forgotten at a restart.
    pub revocations: Option<PathBuf>,
    /// How many verified tokens are remembered; 16,384 is a good number (1 KB each, 5 at most).
    pub known_tokens: usize,
    /// What people may spend.
    pub quotas: Arc<Quotas>,
}

/// Why sessions cannot be kept at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file of ended sessions.
    #[error(transparent)]
    Revocations(#[from] RevocationsError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// Tells other nodes of an ending, once it holds here. It takes a moment at most, and cannot fail: whoever cannot
/// be told now asks [`Revocations::all`] later.
pub trait Announce: Send + Sync {
    /// Tells them.
    fn announce(
        &self,
        id: RevocationId,
        until: Timestamp,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// All that this server knows of sessions.
pub struct Sessions {
    keys: KeyRing,
    ttl: Duration,
    max_ttl: Duration,
    known: KnownTokens,
    revocations: Arc<Revocations>,
    renewals: RenewalGate,
    others: Option<Box<dyn Announce>>,
    quotas: Arc<Quotas>,
}

impl Sessions {
    /// Opens the file of ended sessions, if any: blocking.
    pub fn open(settings: SessionSettings, now: Timestamp) -> Result<Self, OpenError> {
        let revocations = Revocations::open(settings.revocations.as_deref(), now)?;
        Ok(Self {
            keys: settings.keys,
            ttl: settings.ttl,
            max_ttl: settings.max_ttl,
            known: KnownTokens::new(settings.known_tokens)?,
            revocations: Arc::new(revocations),
            renewals: RenewalGate::default(),
            others: None,
            quotas: settings.quotas,
        })
    }

    /// With other nodes that are told of endings.
    #[must_use]
    pub fn announcing_to(self, others: Option<Box<dyn Announce>>) -> Self {
        Self { others, ..self }
    }

    /// The session of this token. A token that was verified before costs a look-up; whether it has
    /// expired or was ended is asked every time.
    pub fn authorize(
        &self,
        token: impl AsRef<[u8]>,
        now: Timestamp,
    ) -> Result<Arc<Session>, AuthError> {
        let token = token.as_ref();
        if token.len() > MAX_TOKEN_LEN {
            return Err(AuthError::TooLong);
        }
        let session = if let Some(session) = self.known.get(token) {
            session.check_time(now)?;
            session
        } else {
            let text = std::str::from_utf8(token).map_err(|_| AuthError::Malformed)?;
            let mut session = self.keys.verify(text, now)?;
            session.count_by(&self.quotas)?;
            let session = Arc::new(session);
            self.known.put(token, &session, now);
            session
        };
        if self.revocations.has_ended(&session) {
            return Err(AuthError::Revoked);
        }
        Ok(session)
    }

    /// The session of the first of a request's cookies that has one, in the order they were sent.
    /// Several come from a parent domain and its hosts; trying them all keeps a stale or planted
    /// one from locking a person out. Which of two *valid* ones wins is the browser's order: only the
    /// `__Host-` name, which a sister host cannot set, rules planting out.
    pub fn authorize_cookies(
        &self,
        tokens: &CookieTokens<'_>,
        now: Timestamp,
    ) -> Result<Arc<Session>, AuthError> {
        let mut refusal = None;
        for token in tokens.iter() {
            match self.authorize(token, now) {
                Ok(session) => return Ok(session),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        Err(refusal.unwrap_or(if tokens.had_oversized() {
            AuthError::TooLong
        } else {
            AuthError::Missing
        }))
    }

    /// Begins a session for somebody who has just proved who they are.
    pub fn begin(
        &self,
        sub: &str,
        grants: &Grants,
        now: Timestamp,
    ) -> Result<IssuedSession, BeginError> {
        self.begin_since(sub, grants, now, now)
    }

    /// Begins a session for somebody who proved who they are at `auth_time`, elsewhere: `max_ttl`
    /// counts from then. A time still to come is now.
    pub fn begin_since(
        &self,
        sub: &str,
        grants: &Grants,
        auth_time: Timestamp,
        now: Timestamp,
    ) -> Result<IssuedSession, BeginError> {
        let auth_time = auth_time.min(now);
        let last = auth_time + self.max_ttl;
        if last <= now {
            return Err(BeginError::TooLongAgo);
        }
        if grants
            .quota
            .as_deref()
            .is_some_and(|class| !self.quotas.accepts(class))
        {
            return Err(BeginError::UnknownQuota);
        }
        let claims = Claims {
            sub: sub.to_owned(),
            exp: (now + self.ttl).min(last).secs(),
            iat: Some(now.secs()),
            nbf: None,
            jti: Some(id()?),
            iss: Some(OWN_ISSUER.to_owned()),
            sid: Some(id()?),
            auth_time: Some(auth_time.secs()),
            tilesets: grants.tilesets.clone(),
            scope: grants.scope.clone(),
            maxzoom: grants.maxzoom,
            bounds: grants.bounds.map(crate::tile::Bounds::to_array),
            quota: grants.quota.clone(),
        };
        Ok(self.issue(claims)?)
    }

    /// The same session for longer: same rights, `sid` and `auth_time`, another `exp` and `jti`.
    pub fn renew(&self, session: &Session, now: Timestamp) -> Result<IssuedSession, RenewError> {
        // Asked again: it may have been ended since the request was authorized. A renewal that slips
        // by all the same carries the ended `sid` and is refused when it comes.
        if self.revocations.has_ended(session) {
            return Err(RenewError::Revoked);
        }
        let claims = session.claims();
        if !session.is_ours() || claims.sid.is_none() || claims.auth_time.is_none() {
            return Err(RenewError::NotOurs);
        }
        let exp = renewed_until(session, self.ttl, self.max_ttl, now).ok_or(RenewError::NoLater)?;
        let renewed = Claims {
            exp,
            iat: Some(now.secs()),
            nbf: None,
            jti: Some(id().map_err(BeginError::from)?),
            ..claims.clone()
        };
        Ok(self.issue(renewed).map_err(BeginError::from)?)
    }

    /// For tile answers: a renewed session past half of its life, once a minute at most. `None` most
    /// of the time, and also when renewal fails: a tile is not refused for that.
    pub fn renew_if_due(&self, session: &Session, now: Timestamp) -> Option<IssuedSession> {
        if !renewal_due(session, self.ttl, self.max_ttl, now)
            || !self.renewals.take_turn(session.revocation_id(), now)
        {
            return None;
        }
        self.renew(session, now).ok()
    }

    /// Ends the session: every token of its `sid`, else of its `jti`, else this very token is refused
    /// from the next request on. Waits for the disk on a blocking thread, and a moment for other nodes.
    pub async fn end(&self, session: &Session, now: Timestamp) -> Result<(), EndError> {
        let (id, until) = (session.revocation_id(), self.family_ends(session, now));
        let revocations = Arc::clone(&self.revocations);
        let write = move || revocations.end(id, until, now);
        let done = match tokio::task::spawn_blocking(write).await {
            Ok(done) => done,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(EndError::Stopping),
            },
        };
        // What is not in the file has been ended all the same.
        if let (Ok(()) | Err(EndError::NotWritten { .. }), Some(others)) = (&done, &self.others) {
            others.announce(id, until).await;
        }
        done
    }

    /// What was ended: for other nodes' endings, and for metrics.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// The keys, for minting and inspecting.
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// How many verified tokens are remembered.
    pub fn known_tokens(&self) -> usize {
        self.known.len()
    }

    /// When no token of the session's family can be valid any more. Our own sessions are bounded by
    /// `auth_time`; an application may have made later tokens of the same id, so that `max_ttl` from
    /// now is granted to it. A token without an id has no family.
    fn family_ends(&self, session: &Session, now: Timestamp) -> Timestamp {
        let claims = session.claims();
        let last = match claims.auth_time {
            _ if claims.sid.is_none() && claims.jti.is_none() => session.expires_at(),
            Some(auth_time) if session.is_ours() => Timestamp::from_secs(auth_time) + self.max_ttl,
            _ => now + self.max_ttl,
        };
        last.max(session.expires_at()) + LEEWAY
    }

    fn issue(&self, claims: Claims) -> Result<IssuedSession, MintError> {
        let token = self.keys.mint(&claims)?;
        if token.len() > MAX_COOKIE_TOKEN_LEN {
            return Err(MintError::TooLong(token.len()));
        }
        Ok(IssuedSession {
            token,
            expires_at: Timestamp::from_secs(claims.exp),
            claims,
        })
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("keys", &self.keys)
            .field("ttl", &self.ttl)
            .field("max_ttl", &self.max_ttl)
            .finish_non_exhaustive()
    }
}

/// 128 random bits.
fn id() -> Result<String, NoRandomness> {
    random::<16>().map(|bytes| hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{claims, hs256, ring};
    use super::super::{Scope, session_tokens_from_cookies};
    use super::*;

    const HOUR: u64 = 3600;
    const START: u64 = 1_000_000;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(START + seconds)
    }

    fn sessions(revocations: Option<PathBuf>) -> Sessions {
        let settings = SessionSettings {
            keys: ring(vec![hs256("a")]),
            ttl: Duration::from_hours(1),
            max_ttl: Duration::from_hours(10),
            revocations,
            known_tokens: 100,
            quotas: Arc::default(),
        };
        Sessions::open(settings, at(0)).unwrap()
    }

    fn grants() -> Grants {
        Grants {
            tilesets: vec!["world".to_owned()],
            scope: Some("tiles sign".to_owned()),
            ..Grants::default()
        }
    }

    fn begin(sessions: &Sessions) -> IssuedSession {
        sessions.begin("ada", &grants(), at(0)).unwrap()
    }

    #[test]
    fn a_session_that_was_begun_is_authorized_with_its_rights() {
        let sessions = sessions(None);
        let issued = begin(&sessions);
        assert_eq!(issued.expires_at, at(HOUR));
        assert_eq!(issued.max_age(at(60)), Duration::from_mins(59));
        let session = sessions.authorize(&issued.token, at(1)).unwrap();
        assert_eq!(session.sub(), "ada");
        assert!(session.is_ours() && session.allows_tileset("world"));
        assert!(session.scopes().contains(Scope::Sign));
        assert_eq!(session.claims().sid.as_deref().map(str::len), Some(32));
        assert_ne!(begin(&sessions).claims.sid, issued.claims.sid);
    }

    #[test]
    fn who_proved_themselves_elsewhere_has_max_ttl_from_then_and_never_longer() {
        let sessions = sessions(None);
        let begin = |auth_time| sessions.begin_since("ada", &grants(), auth_time, at(10 * HOUR));
        let issued = begin(at(HOUR / 2)).unwrap();
        assert_eq!(issued.claims.auth_time, Some(START + HOUR / 2));
        assert_eq!(issued.expires_at, at(10 * HOUR + HOUR / 2));
        assert_eq!(begin(at(0)).unwrap_err(), BeginError::TooLongAgo);
        let from_the_future = begin(at(20 * HOUR)).unwrap();
        assert_eq!(from_the_future.claims.auth_time, Some(START + 10 * HOUR));
        assert_eq!(from_the_future.expires_at, at(11 * HOUR));
    }

    #[test]
    fn a_known_token_costs_no_second_verification_and_is_the_same_session() {
        let sessions = sessions(None);
        let token = begin(&sessions).token;
        let first = sessions.authorize(&token, at(1)).unwrap();
        assert!(Arc::ptr_eq(
            &first,
            &sessions.authorize(&token, at(2)).unwrap()
        ));
        assert_eq!(sessions.known_tokens(), 1);
        for rubbish in ["", "x", "x.y.z", &format!("{token}x")] {
            assert!(sessions.authorize(rubbish, at(1)).is_err());
        }
        assert_eq!(sessions.known_tokens(), 1, "rubbish is not remembered");
    }

    #[test]
    fn a_known_token_expires_all_the_same() {
        let sessions = sessions(None);
        let token = begin(&sessions).token;
        assert!(sessions.authorize(&token, at(HOUR + 29)).is_ok());
        for now in [HOUR + 30, 2 * HOUR] {
            let refused = sessions.authorize(&token, at(now)).unwrap_err();
            assert_eq!(refused, AuthError::Expired);
        }
        assert!(sessions.authorize(&token, at(0)).is_ok(), "clock set back");
    }

    #[tokio::test]
    async fn ending_a_session_ends_every_token_of_it_and_no_other() {
        let sessions = sessions(None);
        let (first, other) = (begin(&sessions), begin(&sessions));
        let session = sessions.authorize(&first.token, at(1)).unwrap();
        let renewed = sessions.renew(&session, at(HOUR / 2)).unwrap();
        let authorize = |token: &str| sessions.authorize(token, at(HOUR / 2));
        assert!(authorize(&renewed.token).is_ok());
        sessions.end(&session, at(HOUR / 2)).await.unwrap();
        for ended in [&first, &renewed] {
            assert_eq!(authorize(&ended.token).unwrap_err(), AuthError::Revoked);
        }
        assert!(authorize(&other.token).is_ok());
        let late = sessions.renew(&session, at(HOUR / 2)).unwrap_err();
        assert_eq!(late, RenewError::Revoked, "an answer in flight");
        assert_eq!(sessions.renew_if_due(&session, at(HOUR - 1)), None);
    }

    #[tokio::test]
    async fn a_token_without_any_id_can_be_ended_too() {
        let sessions = sessions(None);
        let exp = START + HOUR;
        let token = sessions.keys().mint(&claims(exp)).unwrap();
        let other = sessions.keys().mint(&claims(exp + 1)).unwrap();
        let session = sessions.authorize(&token, at(0)).unwrap();
        sessions.end(&session, at(0)).await.unwrap();
        let refused = sessions.authorize(&token, at(0)).unwrap_err();
        assert_eq!(refused, AuthError::Revoked);
        assert!(sessions.authorize(&other, at(0)).is_ok());
    }

    #[tokio::test]
    async fn an_ended_session_stays_ended_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ended");
        let before = sessions(Some(path.clone()));
        let (ended, kept) = (begin(&before), begin(&before));
        let session = before.authorize(&ended.token, at(1)).unwrap();
        before.end(&session, at(1)).await.unwrap();
        drop(before);
        let after = sessions(Some(path));
        let refused = after.authorize(&ended.token, at(2)).unwrap_err();
        assert_eq!(refused, AuthError::Revoked);
        assert!(after.authorize(&kept.token, at(2)).is_ok());
    }

    #[test]
    fn renewals_keep_the_session_and_end_with_max_ttl() {
        let sessions = sessions(None);
        let mut issued = begin(&sessions);
        let first = issued.claims.clone();
        let mut now = 0;
        let mut renewals = 0;
        loop {
            now += 60;
            let Ok(session) = sessions.authorize(&issued.token, at(now)) else {
                break;
            };
            if let Some(renewed) = sessions.renew_if_due(&session, at(now)) {
                renewals += 1;
                assert_eq!(renewed.claims.sid, first.sid);
                assert_eq!(renewed.claims.auth_time, first.auth_time);
                assert_eq!(renewed.claims.tilesets, first.tilesets);
                assert_ne!(renewed.claims.jti, issued.claims.jti);
                assert!(renewed.expires_at > issued.expires_at);
                issued = renewed;
            }
        }
        assert_eq!(issued.expires_at, at(10 * HOUR));
        assert_eq!(now, 10 * HOUR + 60);
        assert!((18..=20).contains(&renewals), "{renewals}");
    }

    #[test]
    fn tiles_renew_a_session_once_however_many_ask() {
        let sessions = sessions(None);
        let session = sessions.authorize(&begin(&sessions).token, at(0)).unwrap();
        assert_eq!(sessions.renew_if_due(&session, at(HOUR / 2)), None);
        let now = at(HOUR / 2 + 1);
        assert!(sessions.renew_if_due(&session, now).is_some());
        assert_eq!(sessions.renew_if_due(&session, now), None);
        assert!(sessions.renew(&session, now).is_ok(), "asked for by name");
    }

    #[test]
    fn an_applications_token_is_not_renewed() {
        let sessions = sessions(None);
        let token = sessions.keys().mint(&claims(START + HOUR)).unwrap();
        let session = sessions.authorize(&token, at(0)).unwrap();
        let refused = sessions.renew(&session, at(HOUR / 2 + 1)).unwrap_err();
        assert_eq!(refused, RenewError::NotOurs);
    }

    #[test]
    fn of_several_cookies_the_first_that_verifies_wins() {
        let sessions = sessions(None);
        let (ada, second) = (begin(&sessions), begin(&sessions));
        let stale = sessions.keys().mint(&claims(START - HOUR)).unwrap();
        let authorize = |header: String| {
            let tokens = session_tokens_from_cookies([header.as_bytes()], "tk");
            sessions.authorize_cookies(&tokens, at(0))
        };
        let session = authorize(format!(
            "tk=planted; tk={stale}; tk={}; tk={}",
            ada.token, second.token
        ))
        .unwrap();
        assert_eq!(session.claims(), &ada.claims);
        let refusal = |header: String| authorize(header).unwrap_err();
        assert_eq!(refusal(format!("tk={stale}")), AuthError::Expired);
        assert_eq!(refusal("other=1".to_owned()), AuthError::Missing);
        let long = "x".repeat(MAX_TOKEN_LEN + 1);
        assert_eq!(refusal(format!("tk={long}")), AuthError::TooLong);
    }

    #[test]
    fn a_session_that_no_cookie_could_carry_is_not_begun() {
        let mut many = grants();
        many.tilesets = (0..230).map(|n| format!("tileset-{n}")).collect();
        let refused = sessions(None).begin("ada", &many, at(0)).unwrap_err();
        assert!(matches!(refused, BeginError::Mint(MintError::TooLong(_))));
    }

    #[test]
    fn debug_shows_no_token() {
        let sessions = sessions(None);
        let issued = begin(&sessions);
        let shown = format!("{issued:?} {sessions:?}");
        let signature = issued.token.rsplit_once('.').unwrap().1;
        assert!(!shown.contains(signature), "{shown}");
    }
}
