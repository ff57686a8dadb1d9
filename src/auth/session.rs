//! A verified session and what it permits. Everything that a tile asks is worked out when the
//! token is verified; an answer costs comparisons and no allocation.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use aws_lc_rs::digest::{SHA256, digest};

use super::claims::{Claims, Scope, Scopes};
use super::{AuthError, LEEWAY, Quotas, Spender, hex};
use crate::clock::Timestamp;
use crate::tile::{Bounds, TileAddress};

/// Whether a session may have a tile. The order of the checks is the order of the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Yes.
    Granted,
    /// The tileset is not the session's: it is answered as one that does not exist.
    NotThisTileset,
    /// The tileset is, this zoom or this area is not.
    NotThisZoomOrArea,
    /// The session lacks the scope.
    NoScope,
}

impl Permission {
    /// The word for metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::NotThisTileset => "not_this_tileset",
            Self::NotThisZoomOrArea => "not_this_zoom_or_area",
            Self::NoScope => "no_scope",
        }
    }
}

/// What a revocation names: half of a SHA-256 over the session's `sid`, else the token's `jti`, else
/// the token. Of one size however long the claims are, and safe to write to a log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RevocationId([u8; 16]);

impl RevocationId {
    /// `sid` and `jti` are unique for their issuer only (`OpenID` Connect Front-Channel Logout §3,
    /// RFC 7519 §4.1.7), hence `iss`. No claim holds a control character, so NUL separates.
    fn of(claims: &Claims, signed_part: &str) -> Self {
        let issuer = claims.iss.as_deref().unwrap_or("");
        let named = match (&claims.sid, &claims.jti) {
            (Some(sid), _) => digest(&SHA256, format!("sid\0{issuer}\0{sid}").as_bytes()),
            (None, Some(jti)) => digest(&SHA256, format!("jti\0{issuer}\0{jti}").as_bytes()),
            // Without the signature: whatever else would verify over these claims is ended too.
            (None, None) => digest(&SHA256, format!("token\0{signed_part}").as_bytes()),
        };
        let mut id = [0; 16];
        id.copy_from_slice(&named.as_ref()[..16]);
        Self(id)
    }

    /// From the bits that [`RevocationId::bits`] gives.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits.to_be_bytes())
    }

    /// It as a number: what other nodes are told. `Display` writes the same in hexadecimal digits.
    pub const fn bits(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// From the text that `Display` makes: 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self::from_bits)
    }
}

impl fmt::Display for RevocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for RevocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A session whose token was verified. It exists only behind an `Arc`, from
/// [`Sessions::authorize`](super::Sessions::authorize).
#[derive(Debug)]
pub struct Session {
    // What every tile asks, side by side, and the rest behind a pointer: a table of people is larger than a
    // processor's cache, and each line of it has its price.
    claims: Box<Claims>,
    /// `None`: all of them. Sorted.
    tilesets: Option<Box<[Box<str>]>>,
    scopes: Scopes,
    bounds: Option<Bounds>,
    expires_at: Timestamp,
    /// Zero where it begins at once.
    not_before: Timestamp,
    /// The middle of its life, if it is one that can be renewed.
    half_life: Option<Timestamp>,
    maxzoom: Option<u8>,
    revocation: RevocationId,
    /// The revocations' epoch in which this session was last found not to be ended.
    pub(super) clear_in: AtomicU64,
    /// What its tiles are counted by; `None`: nothing is limited.
    spender: Option<Arc<Spender>>,
}

impl Session {
    /// From claims that a signature stands for. `None` where one of them is unacceptable.
    pub(super) fn new(claims: Claims, signed_part: &str) -> Option<Self> {
        if claims.unacceptable().is_some() {
            return None;
        }
        let tilesets = (!claims.tilesets.iter().any(|name| name == "*")).then(|| {
            let mut names: Vec<Box<str>> =
                claims.tilesets.iter().map(|name| (**name).into()).collect();
            names.sort_unstable();
            names.dedup();
            names.into_boxed_slice()
        });
        let bounds = match claims.bounds {
            Some(degrees) => Some(Bounds::new(degrees).ok()?),
            None => None,
        };
        Some(Self {
            tilesets,
            scopes: claims
                .scope
                .as_deref()
                .map_or(Scopes::DEFAULT, Scopes::parse),
            bounds,
            expires_at: Timestamp::from_secs(claims.exp),
            not_before: Timestamp::from_secs(claims.nbf.unwrap_or(0)),
            half_life: half_life(&claims),
            maxzoom: claims.maxzoom,
            revocation: RevocationId::of(&claims, signed_part),
            clear_in: AtomicU64::new(0),
            spender: None,
            claims: Box::new(claims),
        })
    }

    /// Finds what it spends. A class that there is not refuses it.
    pub(super) fn count_by(&mut self, quotas: &Quotas) -> Result<(), AuthError> {
        self.spender = quotas.spender(self.sub(), self.quota())?;
        Ok(())
    }

    /// RFC 7519 §4.1.4: on or after `exp` it is not accepted; §4.1.5: before `nbf` neither. Clocks
    /// may differ by [`LEEWAY`].
    pub(super) fn check_time(&self, now: Timestamp) -> Result<(), AuthError> {
        if now >= self.expires_at + LEEWAY {
            return Err(AuthError::Expired);
        }
        if now + LEEWAY < self.not_before {
            return Err(AuthError::NotYetValid);
        }
        Ok(())
    }

    /// Whether it is past the middle of its life, and may be renewed at all.
    pub fn is_past_half(&self, now: Timestamp) -> bool {
        self.half_life.is_some_and(|half_life| now > half_life)
    }

    /// Whose session it is.
    pub fn sub(&self) -> &str {
        &self.claims.sub
    }

    /// When it ends, without leeway.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// All that the token said.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Its scopes.
    pub fn scopes(&self) -> Scopes {
        self.scopes
    }

    /// The deepest zoom it may see; `None`: all.
    pub fn maxzoom(&self) -> Option<u8> {
        self.maxzoom
    }

    /// The area it may see; `None`: all.
    pub fn bounds(&self) -> Option<Bounds> {
        self.bounds
    }

    /// Its quota class; `None`: the first one.
    pub fn quota(&self) -> Option<&str> {
        self.claims.quota.as_deref()
    }

    /// What it spends, together with this person's other sessions; `None`: nothing is limited.
    pub fn spender(&self) -> Option<&Spender> {
        self.spender.as_deref()
    }

    /// What ends it.
    pub fn revocation_id(&self) -> RevocationId {
        self.revocation
    }

    /// When the person logged in, in seconds since 1970.
    pub fn auth_time(&self) -> Option<u64> {
        self.claims.auth_time
    }

    /// Whether this server issued it (`iss` is `tilekeep`).
    pub fn is_ours(&self) -> bool {
        self.claims.is_ours()
    }

    /// Whether it is confined to a zoom or an area, which signed URLs and credentials cannot be.
    pub fn is_confined(&self) -> bool {
        self.maxzoom.is_some() || self.bounds.is_some()
    }

    /// Whether the tileset is among its own.
    pub fn allows_tileset(&self, name: &str) -> bool {
        self.tilesets.as_ref().is_none_or(|names| {
            names
                .binary_search_by(|candidate| (**candidate).cmp(name))
                .is_ok()
        })
    }

    /// Whether it may have this tile, which need not exist: rights are answered before existence.
    /// For a session with an area, a tile outside the pyramid is outside the area.
    pub fn permits(&self, tileset: &str, tile: TileAddress, scope: Scope) -> Permission {
        if !self.allows_tileset(tileset) {
            return Permission::NotThisTileset;
        }
        let too_deep = self
            .maxzoom
            .is_some_and(|maxzoom| tile.z > u32::from(maxzoom));
        let elsewhere = self
            .bounds
            .is_some_and(|bounds| !tile.locate().is_some_and(|tile| bounds.touches(tile)));
        if too_deep || elsewhere {
            return Permission::NotThisZoomOrArea;
        }
        if self.scopes.contains(scope) {
            Permission::Granted
        } else {
            Permission::NoScope
        }
    }
}

/// From `iat` to `exp`, half of the way; only of sessions that this server issued.
fn half_life(claims: &Claims) -> Option<Timestamp> {
    let iat = claims.iat.filter(|_| claims.is_ours())?;
    let half = iat.saturating_add(claims.exp.saturating_sub(iat) / 2);
    Some(Timestamp::from_secs(half))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::Scale;

    fn session(change: impl FnOnce(&mut Claims)) -> Session {
        let mut claims = super::super::testing::claims(100);
        change(&mut claims);
        Session::new(claims, "header.payload").unwrap()
    }

    fn at(z: u32, x: u32, y: u32) -> TileAddress {
        let scale = Scale::One;
        TileAddress { z, x, y, scale }
    }

    #[test]
    fn a_star_is_every_tileset_and_a_list_is_its_names_alone() {
        assert!(session(|_| ()).allows_tileset("anything"));
        let some = session(|c| c.tilesets = vec!["world".into(), "aerial".into()]);
        assert!(some.allows_tileset("world") && some.allows_tileset("aerial"));
        assert!(!some.allows_tileset("worl") && !some.allows_tileset("*"));
        assert!(!session(|c| c.tilesets = vec![]).allows_tileset("world"));
    }

    #[test]
    fn rights_are_checked_in_the_order_of_their_answers() {
        let narrow = session(|claims| {
            claims.tilesets = vec!["world".into()];
            claims.maxzoom = Some(4);
            claims.bounds = Some([0.0, 0.0, 90.0, 45.0]);
            claims.scope = Some("explain".into());
        });
        let permits = |name, tile, scope| narrow.permits(name, tile, scope);
        assert_eq!(
            permits("aerial", at(9, 0, 0), Scope::Tiles),
            Permission::NotThisTileset
        );
        assert_eq!(
            permits("world", at(5, 17, 13), Scope::Explain),
            Permission::NotThisZoomOrArea
        );
        assert_eq!(
            permits("world", at(3, 7, 3), Scope::Explain),
            Permission::NotThisZoomOrArea
        );
        assert_eq!(
            permits("world", at(3, 4, 3), Scope::Tiles),
            Permission::NoScope
        );
        assert_eq!(
            permits("world", at(3, 4, 3), Scope::Explain),
            Permission::Granted
        );
        assert_eq!(
            permits("world", at(3, 800, 3), Scope::Explain),
            Permission::NotThisZoomOrArea
        );
        assert_eq!(
            session(|_| ()).permits("world", at(3, 800, 3), Scope::Tiles),
            Permission::Granted,
            "that it does not exist is not for the session to say"
        );
    }

    #[test]
    fn a_revocation_names_the_sid_else_the_jti_else_the_token() {
        let id = |change: fn(&mut Claims)| session(change).revocation_id();
        let by_sid = id(|c| (c.sid, c.jti) = (Some("1".into()), Some("a".into())));
        let renewed = id(|c| (c.sid, c.jti) = (Some("1".into()), Some("b".into())));
        assert_eq!(by_sid, renewed, "every token of the session");
        let by_jti = id(|c| c.jti = Some("1".into()));
        assert_ne!(by_sid, by_jti);
        let foreign = id(|c| (c.sid, c.iss) = (Some("1".into()), Some("app".into())));
        assert_ne!(by_sid, foreign, "another issuer's session of the same sid");
        assert_ne!(id(|_| ()), by_jti);
        assert_eq!(RevocationId::parse(&by_sid.to_string()), Some(by_sid));
        assert_eq!(
            RevocationId::parse("+123456789012345678901234567890a"),
            None
        );
    }

    #[test]
    fn the_leeway_is_thirty_seconds_at_both_ends() {
        let session = session(|claims| claims.nbf = Some(50));
        let check = |millis| session.check_time(Timestamp::from_millis(millis));
        assert_eq!(check(19_999), Err(AuthError::NotYetValid));
        assert_eq!(check(20_000), Ok(()));
        assert_eq!(check(129_999), Ok(()));
        assert_eq!(check(130_000), Err(AuthError::Expired));
        assert_eq!(session.expires_at(), Timestamp::from_secs(100));
    }
}
