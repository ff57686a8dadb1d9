//! The public side: every request comes in here.
//!
//! A tile hit is `PublicSide::handle_head → Route::parse → Sessions::authorize → TileCache::lookup →
//! respond`, with nothing in between: tiles pass no router and no middleware. Pages, sessions and
//! assets, which may take their time, go through a router ([`super::pages`]).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use axum::Router;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tower_service::Service as _;

use super::background::Background;
use super::body::{Body, RequestBody, whole};
use super::cloudfront::{CloudFront, ORIGIN_SECRET};
use super::cors::Cors;
use super::explain::explain;
use super::front::{Front, NO_ONE_HOST, names_one_host};
use super::handling::Handling;
use super::problem::HttpError;
use super::reply::Reply;
use super::request_head::{Fields, RequestHead};
use super::route::{Route, TileRoute};
use super::server;
use super::sign::{self, SignedTile};
use super::site::{MAX_BODY, Peer, allow, name_host};
use super::tile_request::{Admitted, TileAnswer};
use crate::auth::{AuthError, Scope, Session, Sessions, bearer_token, session_tokens_from_cookies};
use crate::aws::presign::Helpers;
use crate::cache::TileCache;
use crate::clock::{Clock, Timestamp};
use crate::metrics::{Answer, Metrics};
use crate::tile::Tilesets;

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

/// What the end of handling has to know of a request.
struct Ending {
    /// Its `Origin`, where that matters.
    origin: Option<HeaderValue>,
    /// Whether it is a HEAD.
    head: bool,
}

/// How a request proved who sends it.
pub struct Caller {
    /// The session.
    pub session: Arc<Session>,
    /// Whether a cookie carried it: only then is it renewed by tile answers.
    pub by_cookie: bool,
}

impl PublicSide {
    /// The public side, with the pages' router.
    pub fn new(parts: Arc<PublicParts>, pages: Router) -> Self {
        Self { parts, pages }
    }

    /// Answers a request: at once where it is for a tile at hand, or refused.
    pub fn handle<B>(&self, peer: SocketAddr, mut request: Request<B>) -> Handling
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
        let one_host = names_one_host(&RequestHead::of(&request));
        if !self.parts.front.is_fixed() {
            // What asks for the host, asks for it in `Host`.
            name_host(&mut request);
        }
        let head = RequestHead::of(&request);
        let (cors, ending) = (&self.parts.cors, self.parts.ending(&head));
        let route = Route::parse(request.uri().path());
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        // In the contract's order: the method, then the path, then everything else.
        let answered = match route {
            _ if !one_host => refuse(&HttpError::BadRequest(NO_ONE_HOST)),
            _ if request.method() == Method::OPTIONS => {
                let methods = match route {
                    Ok(Route::Page) => allow(request.uri().path()),
                    Ok(Route::Sign(_)) => sign::METHODS,
                    _ => TILE_METHODS,
                };
                let preflight = cors.preflight(ending.origin.as_ref(), methods);
                (preflight, Answer::Other)
            }
            Ok(Route::TileJson(_) | Route::Page) => {
                let side = self.clone();
                return self.later(ending, async move { side.page(peer, request).await });
            }
            Ok(Route::Sign(_)) => {
                let side = self.clone();
                return self.later(ending, async move { side.sign(peer, request).await });
            }
            Err(malformed) if sign::is_sign(&request) => refuse(&malformed.into()),
            _ if !reads => refuse(&HttpError::Method(TILE_METHODS)),
            Ok(Route::Tile(route)) => match self.parts.tile(peer, &head, route, proven) {
                TileAnswer::Here(answered) => {
                    return Handling::now(self.parts.finish(ending, answered));
                }
                TileAnswer::Waits(admitted) => {
                    return self.wait_for(peer, request.map(drop), admitted, ending);
                }
            },
            Ok(Route::Explain(route)) => self.explain(peer, &head, route),
            Err(malformed) => refuse(&malformed.into()),
        };
        Handling::now(self.parts.finish(ending, answered))
    }

    fn wait_for(
        &self,
        peer: SocketAddr,
        request: Request<()>,
        admitted: Admitted,
        ending: Ending,
    ) -> Handling {
        let parts = Arc::clone(&self.parts);
        let answer = async move { parts.wait_for(peer, &request, admitted).await };
        self.later(ending, answer)
    }

    fn later(
        &self,
        ending: Ending,
        answer: impl Future<Output = (impl Into<Reply>, Answer)> + Send + 'static,
    ) -> Handling {
        let parts = Arc::clone(&self.parts);
        Handling::later(async move {
            let answered = answer.await;
            parts.finish(ending, answered)
        })
    }

    fn explain(
        &self,
        peer: SocketAddr,
        request: &RequestHead<'_>,
        route: TileRoute<'_>,
    ) -> (Response<Body>, Answer) {
        let now = self.parts.clock.now();
        match self
            .parts
            .admit(peer, request, route, (Scope::Explain, false), now)
        {
            Ok(admitted) => {
                let wanted = admitted.wanted();
                let told = self.parts.cache.explain(wanted);
                (explain(wanted, &told), Answer::Other)
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
        let (now, head) = (self.parts.clock.now(), RequestHead::of(&request));
        match self
            .parts
            .admit(peer, &head, route, (Scope::Sign, false), now)
        {
            Ok(admitted) => {
                let tileset = Guard::into_inner(admitted.tileset);
                let tile = SignedTile {
                    tileset: &tileset,
                    coord: admitted.coord,
                    scale: admitted.scale,
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
        let mut request = Request::from_parts(head, axum::body::Body::from(body));
        name_host(&mut request);
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
}

impl server::Service for PublicSide {
    fn handle(&self, peer: SocketAddr, request: Request<RequestBody>) -> Handling {
        self.handle(peer, request)
    }

    /// A tile at hand is answered out of the head as it came.
    fn handle_head(&self, peer: SocketAddr, head: &RequestHead<'_>) -> Handling {
        let parts = &self.parts;
        // The distribution's secret has to be looked at, and taken off its requests.
        let direct = parts.cloudfront.is_none() || !head.fields.has(&ORIGIN_SECRET);
        if direct
            && matches!(*head.method, Method::GET | Method::HEAD)
            && names_one_host(head)
            && let Ok(Route::Tile(route)) = Route::parse(head.path())
        {
            let ending = parts.ending(head);
            return match parts.tile(peer, head, route, false) {
                TileAnswer::Here(answered) => Handling::now(parts.finish(ending, answered)),
                TileAnswer::Waits(admitted) => match head.to_request(()) {
                    Ok(request) => self.wait_for(peer, request, admitted, ending),
                    Err(_) => server::unreadable(),
                },
            };
        }
        server::handle_whole(self, peer, head)
    }
}

impl PublicParts {
    /// What the end of handling has to know of this request.
    fn ending(&self, request: &RequestHead<'_>) -> Ending {
        Ending {
            origin: self.cors.origin_of(request.fields),
            head: *request.method == Method::HEAD,
        }
    }

    /// What is done to every answer.
    fn finish(&self, ending: Ending, answered: (impl Into<Reply>, Answer)) -> Reply {
        let (mut reply, answer) = (answered.0.into(), answered.1);
        if ending.head {
            reply = without_body(reply.into_response()).into();
        }
        if self.cors.is_on() {
            reply = reply.with_headers(|headers| self.cors.apply(ending.origin, headers));
        }
        self.metrics.answers.inc(answer);
        reply
    }

    /// Who sends a request: `Authorization: Bearer`, else the session cookie.
    pub fn authorize<'r>(
        &self,
        peer: IpAddr,
        fields: impl Into<Fields<'r>>,
        now: Timestamp,
    ) -> Result<Caller, AuthError> {
        let fields = fields.into();
        if let Some(token) = fields.get(&AUTHORIZATION).and_then(bearer_token) {
            let session = self.sessions.authorize(token, now)?;
            return Ok(Caller {
                session,
                by_cookie: false,
            });
        }
        let session = self.authorize_cookie(peer, fields, now)?;
        Ok(Caller {
            session,
            by_cookie: true,
        })
    }

    /// Whose session a request's cookie is, whatever else it brings.
    pub(super) fn authorize_cookie<'r>(
        &self,
        peer: IpAddr,
        fields: impl Into<Fields<'r>>,
        now: Timestamp,
    ) -> Result<Arc<Session>, AuthError> {
        let fields = fields.into();
        let name = self.front.cookie(peer, fields).name();
        let tokens = session_tokens_from_cookies(fields.all(&COOKIE), name);
        self.sessions.authorize_cookies(&tokens, now)
    }
}

/// HEAD has the headers of GET and no body (RFC 9110 §9.3.2); HTTP/1.1's writers see to it, HTTP/2's does not.
fn without_body(mut response: Response<Body>) -> Response<Body> {
    let length = response.body().length();
    if length > 0 {
        response
            .headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert(HeaderValue::from(length));
    }
    *response.body_mut() = Body::empty();
    response
}

/// A refusal, and what it is counted as.
pub(super) fn refuse(problem: &HttpError) -> (Response<Body>, Answer) {
    (problem.response(), problem.answer())
}
