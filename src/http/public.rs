//! The public side: every request comes in here.
//!
//! A tile hit is `PublicSide::handle → Route::parse → Sessions::authorize → TileCache::lookup →
//! respond`, with nothing in between: tiles pass no router and no middleware. Pages, sessions and
//! assets, which may take their time, go through a router ([`super::pages`]).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use axum::Router;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use tower_service::Service as _;

use super::background::Background;
use super::body::{Body, whole};
use super::cache_control::{self, Audience};
use super::cache_status::source;
use super::cloudfront::CloudFront;
use super::cors::Cors;
use super::explain::explain;
use super::front::{Front, NO_ONE_HOST, names_one_host};
use super::problem::HttpError;
use super::quota::Purse;
use super::route::{Route, TileRoute};
use super::session::may_write;
use super::sign::{self, SignedTile};
use super::site::{MAX_BODY, Peer, allow, for_router};
use super::tile_answer::{Asked, respond};
use super::unauthorized::unauthorized;
use crate::auth::{
    AuthError, CookiePolicy, OverQuota, Permission, Scope, Session, Sessions, bearer_token,
    session_tokens_from_cookies,
};
use crate::aws::presign::Helpers;
use crate::cache::{TileCache, Wanted};
use crate::clock::{Clock, Timestamp};
use crate::metrics::{Answer, Metrics};
use crate::origin::{Lane, OriginErrorKind};
use crate::tile::{Access, Current, Delivery, TileCoord, Tileset, Tilesets};

/// For the body of a request that is not for a tile.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

const TILE_METHODS: &str = "GET, HEAD, OPTIONS";

/// What the public side is made of.
pub struct PublicParts {
    /// What can be asked for.
    pub tilesets: Tilesets,
    /// Who may ask.
    pub sessions: Arc<Sessions>,
    /// How this server looks from outside: the cookie's attributes come from it.
    pub front: Front,
    /// Where tiles come from.
    pub cache: TileCache,
    /// Which other origins' pages may read answers.
    pub cors: Cors,
    /// Where jobs give way.
    pub background: Background,
    /// The distribution in front, if there is one.
    pub cloudfront: Option<CloudFront>,
    /// How long 'no such tile' is believed.
    pub missing: Duration,
    /// The time.
    pub clock: Clock,
    /// Where answers are counted.
    pub metrics: Arc<Metrics>,
    /// What hands out AWS's own access.
    pub helpers: Helpers,
}

/// The public side.
#[derive(Clone)]
pub struct PublicSide {
    parts: Arc<PublicParts>,
    pages: Router,
}

/// How a request proved who sends it.
pub struct Caller {
    /// The session.
    pub session: Arc<Session>,
    /// Whether a cookie carried it: only then is it renewed by tile answers.
    pub by_cookie: bool,
}

impl Caller {
    /// Whether they look at a map or work through a list.
    fn lane(&self) -> Lane {
        match self.session.spender() {
            Some(spender) if spender.is_background() => Lane::Background,
            _ => Lane::Interactive,
        }
    }
}

/// An answer that says no. On the heap: it is rare, and would make every `Ok` as large.
type Refusal = Box<(Response<Body>, Answer)>;

/// A tile request that has been let in.
struct Admitted {
    tileset: Current,
    coord: TileCoord,
    caller: Option<Caller>,
    audience: Audience,
}

impl PublicSide {
    /// The public side, with the pages' router.
    pub fn new(parts: Arc<PublicParts>, pages: Router) -> Self {
        Self { parts, pages }
    }

    /// Answers a request.
    pub async fn handle<B>(&self, peer: SocketAddr, mut request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let proven = match &self.parts.cloudfront {
            None => false,
            Some(cloudfront) => {
                let PublicParts { metrics, clock, .. } = &*self.parts;
                cloudfront.proves(request.headers_mut(), metrics, clock)
            }
        };
        let one_host = names_one_host(&request);
        let request = if self.parts.front.is_fixed() {
            request
        } else {
            // What asks for the host, asks for it in `Host`.
            for_router(request)
        };
        let cors = &self.parts.cors;
        let origin = cors.origin_of(request.headers());
        let head = *request.method() == Method::HEAD;
        let route = Route::parse(request.uri().path());
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        // In the contract's order: the method, then the path, then everything else.
        let (mut response, answer) = match route {
            _ if !one_host => refuse(&HttpError::BadRequest(NO_ONE_HOST)),
            _ if request.method() == Method::OPTIONS => {
                let methods = match route {
                    Ok(Route::Page) => allow(request.uri().path()),
                    Ok(Route::Sign(_)) => sign::METHODS,
                    _ => TILE_METHODS,
                };
                (cors.preflight(origin.as_ref(), methods), Answer::Other)
            }
            Ok(Route::TileJson(_) | Route::Page) => self.page(peer, request).await,
            Ok(Route::Sign(_)) => self.sign(peer, request).await,
            Err(malformed) if sign::is_sign(&request) => refuse(&malformed.into()),
            _ if !reads => refuse(&HttpError::Method(TILE_METHODS)),
            Ok(Route::Tile(route)) => self.tile(peer, &request, route, proven).await,
            Ok(Route::Explain(route)) => self.explain(peer, &request, route),
            Err(malformed) => refuse(&malformed.into()),
        };
        if head {
            drop_body(&mut response);
        }
        cors.apply(origin, response.headers_mut());
        self.parts.metrics.answers.inc(answer);
        response
    }

    async fn tile<B>(
        &self,
        peer: SocketAddr,
        request: &Request<B>,
        route: TileRoute<'_>,
        proven: bool,
    ) -> (Response<Body>, Answer) {
        let parts = &*self.parts;
        let now = parts.clock.now();
        let shared = proven && self.is_distributed(route);
        let admitted = match self.admit(peer, request, route, (Scope::Tiles, shared), now) {
            Ok(admitted) => admitted,
            Err(refusal) => return *refusal,
        };
        let Admitted {
            tileset,
            coord,
            caller,
            audience,
        } = admitted;
        let scale = route.address.scale;
        if tileset.delivery() == Delivery::Redirect {
            let tile = SignedTile {
                tileset: &tileset,
                coord,
                scale,
            };
            return sign::redirect(parts, tile, request.method(), audience, now).await;
        }
        let lane = caller.as_ref().map_or(Lane::Interactive, Caller::lane);
        let turn = match lane {
            Lane::Interactive => None,
            Lane::Background | Lane::Speculative => parts.background.turn().await,
        };
        let at_hand = Wanted {
            tileset: &tileset,
            coord,
            scale,
        };
        let (tileset, served) = if let Some(served) = parts.cache.lookup(at_hand, lane, now) {
            (tileset, Ok(served))
        } else {
            // What a fill waits for takes nobody's place here, nor one among those that count no
            // references: that is for those who do not wait.
            drop(turn);
            let tileset = Guard::into_inner(tileset);
            let wanted = Wanted {
                tileset: &tileset,
                coord,
                scale,
            };
            let served = parts.cache.fill(wanted, lane, now).await;
            (Guard::from_inner(tileset), served)
        };
        // A fill takes its time, and what a browser is told counts from the answer.
        let now = parts.clock.now();
        let served = match served {
            Ok(served) => served,
            Err(error) => {
                log_origin_error(&tileset, coord, &error);
                let problem = HttpError::Origin {
                    kind: error.kind,
                    retry_after: error.retry_after,
                };
                return refuse(&problem);
            }
        };
        let versioned = names_version(request.uri(), &tileset);
        let asked = Asked {
            method: request.method(),
            headers: request.headers(),
            tileset: &tileset,
            key: tileset.tile_key(coord, scale),
            audience,
            versioned,
            missing: parts.missing,
            now,
        };
        let (mut response, answer) = respond(asked, &served).await;
        parts.metrics.tiles.inc(source(served.status));
        if answer == Answer::Tile {
            parts.metrics.tile_bytes.inc_by(response.body().length());
        }
        let renewable = matches!(answer, Answer::Tile | Answer::NotModified) && !versioned;
        if let Some(caller) = caller.filter(|caller| caller.by_cookie && renewable) {
            let cookie = parts.front.cookie(peer.ip(), request.headers());
            self.renew_if_due(&caller.session, cookie, now, response.headers_mut());
        }
        (response, answer)
    }

    /// Lets a tile request in or refuses it, in the order of the contract: session, tileset, rights, how
    /// fast they ask, then whether the tileset can have such a tile. Only one that it can have is spent as a
    /// tile: maps ask for places beyond the edge, and nothing is copied there. Where there is none after all,
    /// it was spent: that is known only after asking, and nothing is asked for those over their quota.
    ///
    /// What the distribution asks for (`shared`) it has let in itself: no session, no quota.
    fn admit<B>(
        &self,
        peer: SocketAddr,
        request: &Request<B>,
        route: TileRoute<'_>,
        (scope, shared): (Scope, bool),
        now: Timestamp,
    ) -> Result<Admitted, Refusal> {
        let parts = &*self.parts;
        let tileset = match route.tileset {
            Some(name) => parts.tilesets.get(name),
            None => parts.tilesets.default_tileset(),
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
            let caller = match parts.authorize(peer.ip(), request.headers(), now) {
                Ok(caller) => caller,
                // There is no page behind a signature to come back to.
                Err(error) if scope == Scope::Sign => {
                    return Err(Box::new(refuse(&error.into())));
                }
                Err(error) => {
                    return Err(Box::new(unauthorized(
                        error,
                        request.uri(),
                        request.headers(),
                    )));
                }
            };
            if scope == Scope::Sign
                && caller.by_cookie
                && !may_write(&parts.cors, request.headers(), false)
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
            .and_then(|caller| Purse::of(&caller.session, parts));
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
            let believed = cache_control::for_absence(parts.missing, audience, now);
            response.headers_mut().insert(CACHE_CONTROL, believed);
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
            caller,
            audience,
        })
    }

    /// Whether a tile's address is one that the distribution checks signed cookies for: of a tileset that goes
    /// through it, and under its name. The default tileset's short addresses are below no cookie's path.
    fn is_distributed(&self, route: TileRoute<'_>) -> bool {
        let cloudfront = self.parts.cloudfront.as_ref();
        cloudfront
            .zip(route.tileset)
            .is_some_and(|(cloudfront, name)| cloudfront.carries(name))
    }

    fn explain<B>(
        &self,
        peer: SocketAddr,
        request: &Request<B>,
        route: TileRoute<'_>,
    ) -> (Response<Body>, Answer) {
        let now = self.parts.clock.now();
        match self.admit(peer, request, route, (Scope::Explain, false), now) {
            Ok(Admitted { tileset, coord, .. }) => {
                let wanted = Wanted {
                    tileset: &tileset,
                    coord,
                    scale: route.address.scale,
                };
                (
                    explain(wanted, &self.parts.cache.explain(wanted)),
                    Answer::Other,
                )
            }
            Err(refusal) => *refusal,
        }
    }

    /// `POST /sign/…`. The body is read first: what cannot be understood spends nothing.
    async fn sign<B>(&self, peer: SocketAddr, request: Request<B>) -> (Response<Body>, Answer)
    where
        B: http_body::Body<Data = bytes::Bytes>,
        B::Error: Into<axum::BoxError>,
    {
        if *request.method() != Method::POST {
            return refuse(&HttpError::Method(sign::METHODS));
        }
        let (head, body) = request.into_parts();
        let body = whole(body, MAX_BODY, BODY_TIMEOUT).await;
        let wish = match body.and_then(|body| sign::wish(&body)) {
            Ok(wish) => wish,
            Err(refusal) => return refuse(&refusal),
        };
        let request = Request::from_parts(head, ());
        let Ok(Route::Sign(route)) = Route::parse(request.uri().path()) else {
            return refuse(&HttpError::UnknownPage);
        };
        let now = self.parts.clock.now();
        match self.admit(peer, &request, route, (Scope::Sign, false), now) {
            Ok(Admitted { tileset, coord, .. }) => {
                let tile = SignedTile {
                    tileset: &tileset,
                    coord,
                    scale: route.address.scale,
                };
                sign::answer(&self.parts, tile, wish, now).await
            }
            Err(refusal) => *refusal,
        }
    }

    async fn page<B>(&self, peer: SocketAddr, mut request: Request<B>) -> (Response<Body>, Answer)
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        request.extensions_mut().insert(Peer(peer.ip()));
        // A body is short here, and who sends it slowly holds a connection for nothing.
        let (head, body) = request.into_parts();
        let body = match whole(body, MAX_BODY, BODY_TIMEOUT).await {
            Ok(body) => body,
            Err(refusal) => return refuse(&refusal),
        };
        let request = for_router(Request::from_parts(head, axum::body::Body::from(body)));
        let mut pages = self.pages.clone();
        let Ok(response) = pages.call(request).await;
        let answer = match response.status() {
            StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED => Answer::Malformed,
            StatusCode::UNAUTHORIZED => Answer::Unauthorized,
            StatusCode::FORBIDDEN => Answer::Forbidden,
            StatusCode::NOT_FOUND => Answer::NotFound,
            StatusCode::TOO_MANY_REQUESTS => Answer::OverQuota,
            StatusCode::INTERNAL_SERVER_ERROR => Answer::Internal,
            _ => Answer::Other,
        };
        (response.map(Body::Router), answer)
    }

    /// A tile answer past half of the session's life carries its renewal.
    fn renew_if_due(
        &self,
        session: &Session,
        cookie: &CookiePolicy,
        now: Timestamp,
        headers: &mut HeaderMap,
    ) {
        if let Some(renewed) = self.parts.sessions.renew_if_due(session, now) {
            let cookie = cookie.set(&renewed.token, renewed.max_age(now));
            if let Ok(cookie) = HeaderValue::try_from(cookie) {
                headers.append(SET_COOKIE, cookie);
            }
            let until = renewed.expires_at;
            let edge = self.parts.edge_cookies(session, until, now, None);
            edge.append_to(headers);
        }
    }
}

impl PublicParts {
    /// Who sends a request: `Authorization: Bearer`, else the session cookie.
    pub fn authorize(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Caller, AuthError> {
        if let Some(token) = headers
            .get(AUTHORIZATION)
            .and_then(|v| bearer_token(v.as_bytes()))
        {
            let session = self.sessions.authorize(token, now)?;
            return Ok(Caller {
                session,
                by_cookie: false,
            });
        }
        let session = self.authorize_cookie(peer, headers, now)?;
        Ok(Caller {
            session,
            by_cookie: true,
        })
    }

    /// Whose session a request's cookie is, whatever else it brings.
    pub(super) fn authorize_cookie(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Arc<Session>, AuthError> {
        let cookies = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        let tokens = session_tokens_from_cookies(cookies, self.front.cookie(peer, headers).name());
        self.sessions.authorize_cookies(&tokens, now)
    }
}

/// HEAD has the headers of GET and no body (RFC 9110 §9.3.2); hyper sees to it for HTTP/1.1 alone.
fn drop_body(response: &mut Response<Body>) {
    let length = response.body().length();
    if length > 0 {
        response
            .headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert(HeaderValue::from(length));
    }
    *response.body_mut() = Body::empty();
}

#[cold]
fn over_quota(over: OverQuota) -> Refusal {
    Box::new(refuse(&HttpError::OverQuota(over)))
}

fn refuse(problem: &HttpError) -> (Response<Body>, Answer) {
    (problem.response(), problem.answer())
}

/// Whether the query is `v=` and the tileset's current version.
fn names_version(uri: &Uri, tileset: &Tileset) -> bool {
    match (uri.query(), tileset.version()) {
        (Some(query), Some(version)) => query
            .split('&')
            .any(|pair| pair.strip_prefix("v=") == Some(version)),
        _ => false,
    }
}

/// The origin's word goes to the log, and only there. What an operator has to mend is an error.
fn log_origin_error(tileset: &Tileset, coord: TileCoord, error: &crate::origin::OriginError) {
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
