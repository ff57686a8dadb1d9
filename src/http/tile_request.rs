//! A tile request: who may have the tile, and the answer, at once where it is at hand.
//!
//! Invariant: nothing here waits before [`PublicParts::wait_for`], and what that waits for was let in before.

use std::net::SocketAddr;

use arc_swap::Guard;
use http::header::{CACHE_CONTROL, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, Response};

use super::body::Body;
use super::cache_control::{self, Audience};
use super::cache_status::source;
use super::problem::HttpError;
use super::public::{Caller, PublicParts, refuse};
use super::quota::Purse;
use super::reply::Reply;
use super::request_head::RequestHead;
use super::route::TileRoute;
use super::session::may_write;
use super::sign::{self, SignedTile};
use super::tile_answer::{Answered, Asked, decode_elsewhere, decodes_elsewhere, respond};
use super::unauthorized::unauthorized;
use crate::auth::{CookiePolicy, OverQuota, Permission, Scope, Session};
use crate::cache::{Served, Wanted};
use crate::clock::Timestamp;
use crate::metrics::Answer;
use crate::origin::{Lane, OriginError, OriginErrorKind};
use crate::tile::{Access, Current, Delivery, Scale, TileCoord, Tileset};

/// An answer that says no. On the heap: it is rare, and would make every `Ok` as large.
type Refusal = Box<(Response<Body>, Answer)>;

/// A tile request that has been let in.
pub(super) struct Admitted {
    pub(super) tileset: Current,
    pub(super) coord: TileCoord,
    pub(super) scale: Scale,
    caller: Option<Caller>,
    audience: Audience,
}

impl Admitted {
    /// The tile, for the caches.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted {
            tileset: &self.tileset,
            coord: self.coord,
            scale: self.scale,
        }
    }

    /// Whether its sender looks at a map or works through a list.
    fn lane(&self) -> Lane {
        let session = self.caller.as_ref().map(|caller| &caller.session);
        match session.and_then(|session| session.spender()) {
            Some(spender) if spender.is_background() => Lane::Background,
            _ => Lane::Interactive,
        }
    }
}

/// What a tile request comes to.
#[allow(clippy::large_enum_variant, reason = "the large one is the common one")]
pub(super) enum TileAnswer {
    /// The answer.
    Here((Reply, Answer)),
    /// It was let in, and has to wait.
    Waits(Admitted),
}

impl PublicParts {
    /// Answers with what is at hand.
    pub(super) fn tile(
        &self,
        peer: SocketAddr,
        request: &RequestHead<'_>,
        route: TileRoute<'_>,
        proven: bool,
    ) -> TileAnswer {
        let now = self.clock.now();
        let shared = proven && self.is_distributed(route);
        let admitted = match self.admit(peer, request, route, (Scope::Tiles, shared), now) {
            Ok(admitted) => admitted,
            Err(refusal) => return TileAnswer::Here(whole(*refusal)),
        };
        if admitted.tileset.delivery() == Delivery::Redirect || admitted.lane() != Lane::Interactive
        {
            return TileAnswer::Waits(admitted);
        }
        let Some(served) = self.cache.lookup(admitted.wanted(), Lane::Interactive, now) else {
            return TileAnswer::Waits(admitted);
        };
        let asked = self.asked(request, &admitted, now);
        if decodes_elsewhere(&asked, &served.held) {
            return TileAnswer::Waits(admitted);
        }
        let answered = respond(&asked, served, None);
        let versioned = asked.versioned;
        TileAnswer::Here(self.told(peer, request, &admitted, versioned, answered, now))
    }

    /// Answers what had to wait: a job's turn, a fill, a signature, or the decoding of a large tile.
    pub(super) async fn wait_for(
        &self,
        peer: SocketAddr,
        request: &Request<()>,
        admitted: Admitted,
    ) -> (Reply, Answer) {
        // Not one of those that count no references: these are for who does not wait.
        let admitted = Admitted {
            tileset: Guard::from_inner(Guard::into_inner(admitted.tileset)),
            ..admitted
        };
        if admitted.tileset.delivery() == Delivery::Redirect {
            let tile = SignedTile {
                tileset: &admitted.tileset,
                coord: admitted.coord,
                scale: admitted.scale,
            };
            let now = self.clock.now();
            let redirect = sign::redirect(self, tile, request.method(), admitted.audience, now);
            return whole(redirect.await);
        }
        let served = match self.served(&admitted, request.headers()).await {
            Ok(served) => served,
            Err(error) => {
                log_origin_error(&admitted.tileset, admitted.coord, &error);
                return whole(refuse(&HttpError::Origin {
                    kind: error.kind,
                    retry_after: error.retry_after,
                }));
            }
        };
        // A fill takes its time, and what a browser is told counts from the answer.
        let now = self.clock.now();
        let head = RequestHead::of(request);
        let asked = self.asked(&head, &admitted, now);
        let decoded = if decodes_elsewhere(&asked, &served.held) {
            Some(decode_elsewhere(&served.held).await)
        } else {
            None
        };
        let answered = respond(&asked, served, decoded);
        self.told(peer, &head, &admitted, asked.versioned, answered, now)
    }

    async fn served(
        &self,
        admitted: &Admitted,
        headers: &HeaderMap,
    ) -> Result<Served, OriginError> {
        let (lane, wanted) = (admitted.lane(), admitted.wanted());
        let turn = match lane {
            Lane::Interactive => None,
            Lane::Background | Lane::Speculative => self.background.turn().await,
        };
        let now = self.clock.now();
        let found = self.cache.lookup(wanted, lane, now);
        // What a fill waits for takes nobody's place here.
        drop(turn);
        let Some(served) = found else {
            return self.cache.fill(wanted, lane, now).await;
        };
        // Jobs alone: anybody else's wish would cost a request to the bucket at every click.
        let wish = (lane == Lane::Background).then(|| cache_control::min_fresh(headers));
        match wish.flatten() {
            Some(wish) => self.cache.refresh(served, wanted, lane, wish, now).await,
            None => Ok(served),
        }
    }

    fn asked<'r>(
        &self,
        request: &RequestHead<'r>,
        admitted: &'r Admitted,
        now: Timestamp,
    ) -> Asked<'r> {
        let tileset = &*admitted.tileset;
        Asked {
            method: request.method,
            fields: request.fields,
            tileset,
            key: tileset.tile_key(admitted.coord, admitted.scale),
            audience: admitted.audience,
            versioned: names_version(request, tileset),
            missing: self.missing,
            now,
        }
    }

    /// Counts an answer, and renews its session where that is due.
    fn told(
        &self,
        peer: SocketAddr,
        request: &RequestHead<'_>,
        admitted: &Admitted,
        versioned: bool,
        answered: Answered,
        now: Timestamp,
    ) -> (Reply, Answer) {
        let (mut reply, answer) = (answered.reply, answered.answer);
        self.metrics.tiles.inc(source(answered.status));
        if answer == Answer::Tile {
            self.metrics.tile_bytes.inc_by(reply.body_length());
        }
        let renewable = matches!(answer, Answer::Tile | Answer::NotModified) && !versioned;
        let caller = admitted.caller.as_ref();
        if let Some(caller) = caller.filter(|caller| caller.by_cookie && renewable)
            && caller.session.is_past_half(now)
        {
            let cookie = self.front.cookie(peer.ip(), request.fields);
            let renewal = self.renewal_if_due(&caller.session, cookie, now);
            if !renewal.is_empty() {
                reply = reply.with_headers(|headers| headers.extend(renewal));
            }
        }
        (reply, answer)
    }

    /// Lets a tile request in or refuses it, in the order of the contract: session, tileset, rights, how
    /// fast they ask, then whether the tileset can have such a tile. Only one that it can have is spent as a
    /// tile: maps ask for places beyond the edge, and nothing is copied there. Where there is none after all,
    /// it was spent: that is known only after asking, and nothing is asked for those over their quota.
    ///
    /// What the distribution asks for (`shared`) it has let in itself: no session, no quota.
    pub(super) fn admit(
        &self,
        peer: SocketAddr,
        request: &RequestHead<'_>,
        route: TileRoute<'_>,
        (scope, shared): (Scope, bool),
        now: Timestamp,
    ) -> Result<Admitted, Refusal> {
        let tileset = match route.tileset {
            Some(name) => self.tilesets.get(name),
            None => self.tilesets.default_tileset(),
        };
        // What is delivered by redirect is nothing that a shared cache could keep.
        let proxied = |tileset: &Current| tileset.delivery() == Delivery::Proxy;
        let shared = shared && tileset.as_ref().is_some_and(proxied);
        let public = |tileset: &Current| {
            shared || (tileset.access() == Access::Public && scope == Scope::Tiles)
        };
        let (public, tileset) = match tileset {
            Some(tileset) if public(&tileset) => (Some(tileset), None),
            other => (None, other),
        };
        let (tileset, caller) = if let Some(tileset) = public {
            (tileset, None)
        } else {
            let caller = match self.authorize(peer.ip(), request.fields, now) {
                Ok(caller) => caller,
                // There is no page behind a signature to come back to.
                Err(error) if scope == Scope::Sign => {
                    return Err(Box::new(refuse(&error.into())));
                }
                Err(error) => {
                    return Err(Box::new(unauthorized(error, request.place, request.fields)));
                }
            };
            if scope == Scope::Sign
                && caller.by_cookie
                && !may_write(&self.cors, request.fields, false)
            {
                return Err(Box::new(refuse(&HttpError::CrossSite)));
            }
            let Some(tileset) = tileset else {
                return Err(Box::new(refuse(&HttpError::UnknownTileset)));
            };
            match caller.session.permits(tileset.name(), route.address, scope) {
                Permission::Granted => {}
                Permission::NotThisTileset => {
                    return Err(Box::new(refuse(&HttpError::UnknownTileset)));
                }
                Permission::NotThisZoomOrArea => {
                    return Err(Box::new(refuse(&HttpError::ForbiddenPlace)));
                }
                Permission::NoScope => {
                    return Err(Box::new(refuse(&HttpError::ForbiddenScope(scope.name()))));
                }
            }
            (tileset, Some(caller))
        };
        let purse = caller
            .as_ref()
            .and_then(|caller| Purse::of(&caller.session, self));
        if let Some(purse) = &purse {
            purse.request().map_err(over_quota)?;
        }
        let audience = match &caller {
            Some(caller) => Audience::Session {
                until: caller.session.expires_at(),
            },
            None if shared => Audience::Distribution,
            None => Audience::Public,
        };
        if let Some(extension) = route.extension
            && !tileset.format().answers_to(extension)
        {
            return Err(Box::new(refuse(&HttpError::WrongExtension(
                tileset.format().extension(),
            ))));
        }
        let coord = tileset.admit(route.address).map_err(|outside| {
            let (mut response, answer) = refuse(&outside.into());
            // The configuration says so, and a map asks for such places again and again.
            let believed = cache_control::for_absence(self.missing, audience, now);
            response
                .headers_mut()
                .insert(CACHE_CONTROL, believed.value());
            Box::new((response, answer))
        })?;
        if let Some(purse) = purse.filter(|_| scope != Scope::Explain) {
            purse
                .tile(tileset.tile_identity(coord))
                .map_err(over_quota)?;
        }
        Ok(Admitted {
            tileset,
            coord,
            scale: route.address.scale,
            caller,
            audience,
        })
    }

    /// Whether a tile's address is one that the distribution checks signed cookies for: of a tileset that goes
    /// through it, and under its name. The default tileset's short addresses are below no cookie's path.
    fn is_distributed(&self, route: TileRoute<'_>) -> bool {
        let cloudfront = self.cloudfront.as_ref();
        cloudfront
            .zip(route.tileset)
            .is_some_and(|(cloudfront, name)| cloudfront.carries(name))
    }

    /// A tile answer past half of the session's life carries its renewal.
    fn renewal_if_due(
        &self,
        session: &Session,
        cookie: &CookiePolicy,
        now: Timestamp,
    ) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(renewed) = self.sessions.renew_if_due(session, now) {
            let cookie = cookie.set(&renewed.token, renewed.max_age(now));
            if let Ok(cookie) = HeaderValue::try_from(cookie) {
                headers.append(SET_COOKIE, cookie);
            }
            let until = renewed.expires_at;
            let edge = self.edge_cookies(session, until, now, None);
            edge.append_to(&mut headers);
        }
        headers
    }
}

/// An answer that is not a tile's.
fn whole((response, answer): (Response<Body>, Answer)) -> (Reply, Answer) {
    (response.into(), answer)
}

#[cold]
fn over_quota(over: OverQuota) -> Refusal {
    Box::new(refuse(&HttpError::OverQuota(over)))
}

/// Whether the query is `v=` and the tileset's current version.
fn names_version(request: &RequestHead<'_>, tileset: &Tileset) -> bool {
    let Some(version) = tileset.version() else {
        return false;
    };
    request.query().is_some_and(|query| {
        let mut pairs = query.split('&');
        pairs.any(|pair| pair.strip_prefix("v=") == Some(version))
    })
}

/// The origin's word goes to the log, and only there. What an operator has to mend is an error.
fn log_origin_error(tileset: &Tileset, coord: TileCoord, error: &OriginError) {
    let (tileset, kind) = (tileset.name(), error.kind);
    match kind {
        OriginErrorKind::Denied => {
            tracing::error!(tileset, tile = %coord, ?kind, detail = %error.detail, "the origin refused a tile");
        }
        OriginErrorKind::HeldBack => {
            tracing::debug!(tileset, tile = %coord, ?kind, detail = %error.detail, "the origin was not asked");
        }
        _ => {
            tracing::warn!(tileset, tile = %coord, ?kind, detail = %error.detail, "the origin failed");
        }
    }
}
