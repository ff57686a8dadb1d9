//! Spending a session's quota: a refusal is counted here, and told in the log.

use super::public::PublicParts;
use crate::auth::{OverQuota, Session, Spender};
use crate::clock::Uptime;
use crate::metrics::Label as _;
use crate::tile::TileKey;

/// What a request's session may spend, now.
pub(super) struct Purse<'a> {
    spender: &'a Spender,
    parts: &'a PublicParts,
    now: Uptime,
}

impl<'a> Purse<'a> {
    /// `None` where nothing is limited: then no time is asked for either.
    pub(super) fn of(session: &'a Session, parts: &'a PublicParts) -> Option<Self> {
        session.spender().map(|spender| Self {
            spender,
            parts,
            now: parts.clock.uptime(),
        })
    }

    /// Spends a request.
    pub(super) fn request(&self) -> Result<(), OverQuota> {
        self.spender
            .spend_request(self.now)
            .inspect_err(|over| self.tell(*over))
    }

    /// Spends a tile, as [`Tileset::tile_identity`](crate::tile::Tileset::tile_identity) names it.
    pub(super) fn tile(&self, tile: TileKey) -> Result<(), OverQuota> {
        self.spender
            .spend_tile(tile, self.now)
            .inspect_err(|over| self.tell(*over))
    }

    #[cold]
    fn tell(&self, over: OverQuota) {
        let (class, limit) = (self.spender.class(), over.limit);
        self.parts.metrics.quota_refusals.add(class, limit, 1);
        if let Some(refusals) = self.spender.tell_refusals(self.now) {
            let user = self.spender.sub().escape_debug();
            let (limit, retry_after) = (limit.label(), over.retry_after.as_secs());
            tracing::warn!(%user, class, limit, refusals, retry_after, "over quota");
        }
    }
}
