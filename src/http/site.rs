//! Everything on the public side that is no tile: pages, TileJSON, sessions, assets. A router serves
//! it, as none of it is hot.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Extension, OriginalUri, Path, Query, State};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_ENCODING,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::Body;
use super::conditional::is_not_modified;
use super::pages::{IndexPage, IndexTileset, LoginPage, MapPage, MapTileset};
use super::problem::HttpError;
use super::public::{Caller, PublicParts};
use super::request_head::place;
use super::shield::shielded;
use super::unauthorized::unauthorized;
use super::{assets, credentials, encoding, oidc, session};
use crate::auth::{Issuers, Throttle, Users};
use crate::tile::{Access, Reach, Tileset, tilejson};

/// A log-in's body at most: a name, a password and where to go.
pub(super) const MAX_BODY: usize = 16 * 1024;

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// Who is at the other end of the connection; put into a page request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// What pages need beside the public side's parts.
pub struct Site {
    /// The public side's parts.
    pub parts: Arc<PublicParts>,
    /// Who can log in with a password.
    pub users: Option<Users>,
    /// Whose tokens are exchanged for sessions.
    pub issuers: Issuers,
    /// The identity provider, if there is one.
    pub oidc: Option<oidc::OidcLogin>,
    /// How often an address may fail, whichever way it tries.
    pub throttle: Arc<Throttle>,
    /// Whether this is `tilekeep demo`.
    pub demo: bool,
}

/// The router of all that is no tile.
pub fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/login", get(login))
        .route("/login/oidc", get(oidc::start))
        .route("/login/oidc/callback", get(oidc::callback))
        .route("/map", get(map))
        .route("/healthz", get(|| async { ([no_store()], "ok\n") }))
        .route(
            "/session",
            post(session::log_in)
                .get(session::show)
                .delete(session::log_out),
        )
        .route("/session/renew", post(session::renew))
        .route("/credentials", post(credentials::lend))
        .route("/assets/{file}", get(asset))
        .route(assets::SCRIPT_PATH, get(script))
        .route("/{file}", get(describe))
        .fallback(|| async { problem(&HttpError::UnknownPage) })
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(map_response(shielded))
        .with_state(site)
}

async fn not_allowed(OriginalUri(uri): OriginalUri) -> Response {
    problem(&HttpError::Method(allow(uri.path())))
}

/// The methods of a page's path, for `Allow`.
pub(super) fn allow(path: &str) -> &'static str {
    match path {
        "/session" => "GET, HEAD, POST, DELETE, OPTIONS",
        "/session/renew" | "/credentials" => "POST, OPTIONS",
        _ => "GET, HEAD, OPTIONS",
    }
}

/// Who looks at a page: somebody with a session, or a visitor where something is public.
enum Viewer {
    Person(Caller),
    Visitor,
}

impl Viewer {
    fn sees(&self, tileset: &Tileset) -> bool {
        tileset.access() == Access::Public
            || matches!(self, Self::Person(caller) if caller.session.allows_tileset(tileset.name()))
    }

    fn caller(&self) -> Option<&Caller> {
        match self {
            Self::Person(caller) => Some(caller),
            Self::Visitor => None,
        }
    }

    fn user(&self) -> Option<&str> {
        match self {
            Self::Person(caller) => Some(caller.session.sub()),
            Self::Visitor => None,
        }
    }
}

impl Site {
    fn viewer(
        &self,
        peer: IpAddr,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Viewer, Box<Response>> {
        match self.parts.authorize(peer, headers, self.parts.clock.now()) {
            Ok(caller) => Ok(Viewer::Person(caller)),
            Err(_)
                if self
                    .parts
                    .tilesets
                    .iter()
                    .any(|t| t.access() == Access::Public) =>
            {
                Ok(Viewer::Visitor)
            }
            Err(error) => {
                let refusal = unauthorized(error, place(uri), headers.into());
                Err(Box::new(to_axum(refusal.0)))
            }
        }
    }

    /// The policy of a page with tiles, some of which come from S3 itself.
    fn with_redirects(&self, mut policy: String) -> String {
        for origin in &self.parts.helpers.redirects_to {
            for own in ["connect-src 'self'", "img-src 'self'"] {
                policy = policy.replace(own, &format!("{own} {origin}"));
            }
        }
        policy
    }

    /// A page with a map, or what a map is made from: its tiles may come from CloudFront next. All tilesets' or one's.
    fn with_edge_cookies(
        &self,
        mut response: Response,
        caller: Option<&Caller>,
        only: Option<&str>,
    ) -> Response {
        if let Some(Caller { session, .. }) = caller.filter(|caller| caller.by_cookie) {
            let (until, now) = (session.expires_at(), self.parts.clock.now());
            let edge = self.parts.edge_cookies(session, until, now, only);
            edge.append_to(response.headers_mut());
        }
        response
    }

    pub(super) fn login_page<'a>(&'a self, next: &'a str) -> LoginPage<'a> {
        LoginPage {
            next,
            username: "",
            error: None,
            password: self.users.is_some(),
            oidc: self.oidc.as_ref().map(|login| login.link(next)),
            demo: self.demo,
        }
    }
}

/// `GET /`: the tilesets of the session, as a page or as JSON.
async fn index(
    State(site): State<Arc<Site>>,
    Extension(Peer(peer)): Extension<Peer>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    let viewer = match site.viewer(peer, &uri, &headers) {
        Ok(viewer) => viewer,
        Err(refusal) => return *refusal,
    };
    let base = site.parts.front.outside(peer, &headers).base_url();
    let tilesets = site
        .parts
        .tilesets
        .iter()
        .filter(|tileset| viewer.sees(tileset));
    if wants_json(&headers) {
        let list: Vec<Value> = tilesets
            .map(|t| json!({ "name": t.name(), "tilejson": format!("{base}/{}.json", t.name()) }))
            .collect();
        return json_answer(&Value::from(list));
    }
    let page = IndexPage {
        user: viewer.user(),
        tilesets: tilesets
            .map(|tileset| index_tileset(&tileset, viewer.caller(), &base))
            .collect(),
        origin: &base,
    };
    let page = html(
        StatusCode::OK,
        page.to_html(),
        &site.with_redirects(IndexPage::content_security_policy()),
    );
    site.with_edge_cookies(page, viewer.caller(), None)
}

/// What a session may see of a tileset; of a public one everybody sees all.
fn reach(tileset: &Tileset, caller: Option<&Caller>) -> Reach {
    let session = caller
        .filter(|_| tileset.access() != Access::Public)
        .map(|caller| &caller.session);
    let maxzoom = session.and_then(|session| session.maxzoom());
    let bounds = session.and_then(|session| session.bounds());
    Reach::new(tileset, maxzoom, bounds)
}

fn index_tileset(tileset: &Tileset, caller: Option<&Caller>, base: &str) -> IndexTileset {
    let reach = reach(tileset, caller);
    let json = tilejson(tileset, reach, base);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    IndexTileset {
        name: tileset.name().to_owned(),
        format: tileset.format().extension().to_owned(),
        tilejson_url: format!("{base}/{}.json", tileset.name()),
        tile_url_template: text(&json["tiles"][0]),
        minzoom: tileset.minzoom(),
        maxzoom: reach.maxzoom,
        bounds: reach.bounds.to_array(),
        attribution: tileset.attribution().to_owned(),
        encoding: json["encoding"].as_str().map(str::to_owned),
        value_label: text(&json["value"]["label"]),
        value_unit: text(&json["value"]["unit"]),
        vector_layers: json["vector_layers"]
            .as_array()
            .map(|layers| layers.iter().map(|layer| text(&layer["id"])).collect())
            .unwrap_or_default(),
    }
}

/// `GET /map`.
async fn map(
    State(site): State<Arc<Site>>,
    Extension(Peer(peer)): Extension<Peer>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    let viewer = match site.viewer(peer, &uri, &headers) {
        Ok(viewer) => viewer,
        Err(refusal) => return *refusal,
    };
    let tilesets = site
        .parts
        .tilesets
        .iter()
        .filter(|tileset| viewer.sees(tileset));
    let page = MapPage {
        user: viewer.user(),
        tilesets: tilesets
            .map(|t| MapTileset {
                name: t.name().to_owned(),
                tilejson_path: format!("/{}.json", t.name()),
            })
            .collect(),
    };
    let page = html(
        StatusCode::OK,
        page.to_html(),
        &site.with_redirects(MapPage::content_security_policy()),
    );
    site.with_edge_cookies(page, viewer.caller(), None)
}

#[derive(Deserialize)]
struct LoginQuery {
    #[serde(default)]
    next: String,
}

/// `GET /login`.
async fn login(State(site): State<Arc<Site>>, OriginalUri(uri): OriginalUri) -> Response {
    // A query that cannot be read leads to the front page, not to an error.
    let next = Query::<LoginQuery>::try_from_uri(&uri)
        .map(|q| q.0.next)
        .unwrap_or_default();
    let page = site.login_page(session::same_origin(&next));
    html(
        StatusCode::OK,
        page.to_html(),
        &LoginPage::content_security_policy(),
    )
}

/// `GET /{tileset}.json`.
async fn describe(
    State(site): State<Arc<Site>>,
    Extension(Peer(peer)): Extension<Peer>,
    OriginalUri(uri): OriginalUri,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(name) = file.strip_suffix(".json") else {
        return problem(&HttpError::UnknownPage);
    };
    let tileset = site.parts.tilesets.get(name);
    let public = tileset.as_ref();
    let public = public.is_some_and(|tileset| tileset.access() == Access::Public);
    let mut viewer = None;
    if !public {
        match site.parts.authorize(peer, &headers, site.parts.clock.now()) {
            Ok(caller) if caller.session.allows_tileset(name) => viewer = Some(caller),
            Ok(_) => return problem(&HttpError::UnknownTileset),
            Err(error) => return to_axum(unauthorized(error, place(&uri), (&headers).into()).0),
        }
    }
    match tileset {
        Some(tileset) => {
            let base = site.parts.front.outside(peer, &headers).base_url();
            let reach = reach(&tileset, viewer.as_ref());
            let described = json_answer(&tilejson(&tileset, reach, &base));
            site.with_edge_cookies(described, viewer.as_ref(), Some(name))
        }
        None => problem(&HttpError::UnknownTileset),
    }
}

/// `GET /assets/{file}`: the program's own files, under addresses that change with their content.
async fn asset(OriginalUri(uri): OriginalUri, headers: HeaderMap) -> Response {
    match assets::find(uri.path()) {
        Some(asset) => asset_answer(asset, &headers, assets::CACHE_CONTROL),
        None => problem(&HttpError::UnknownPage),
    }
}

/// `GET /tilekeep.js`: the script that other pages include, under an address for ever.
async fn script(headers: HeaderMap) -> Response {
    let Some(asset) = assets::named(assets::SCRIPT) else {
        return problem(&HttpError::UnknownPage);
    };
    let mut response = asset_answer(asset, &headers, assets::SCRIPT_CACHE_CONTROL);
    // It is for pages of any origin, with or without `integrity`; what it asks for is not.
    let answer = response.headers_mut();
    answer.insert(
        CROSS_ORIGIN_RESOURCE_POLICY,
        HeaderValue::from_static("cross-origin"),
    );
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

pub(super) fn asset_answer(
    asset: &'static assets::Asset,
    headers: &HeaderMap,
    cache_control: &'static str,
) -> Response {
    let sent = asset.body(encoding::accepts(headers, "gzip"));
    let not_modified = is_not_modified(headers, sent.etag.as_bytes(), None);
    let mut response = if not_modified {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        sent.bytes.into_response()
    };
    let answer = response.headers_mut();
    answer.insert(CACHE_CONTROL, HeaderValue::from_static(cache_control));
    if let Ok(etag) = HeaderValue::try_from(sent.etag) {
        answer.insert(ETAG, etag);
    }
    if asset.varies_on_encoding() {
        answer.insert(VARY, HeaderValue::from_name(ACCEPT_ENCODING));
    }
    if not_modified {
        answer.remove(CONTENT_TYPE);
        return response;
    }
    answer.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type()));
    let policy = HeaderValue::from_static(assets::CONTENT_SECURITY_POLICY);
    answer.insert(CONTENT_SECURITY_POLICY, policy);
    if let Some(coding) = sent.content_encoding {
        answer.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    response
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).map_or(&b""[..], HeaderValue::as_bytes);
    let accept = accept.to_ascii_lowercase();
    let at = |what: &[u8]| accept.windows(what.len()).position(|part| part == what);
    match (at(b"application/json"), at(b"text/html")) {
        (Some(json), Some(html)) => json < html,
        (json, _) => json.is_some(),
    }
}

fn json_answer(value: &Value) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        no_store(),
    ];
    (headers, value.to_string()).into_response()
}

fn no_store() -> (HeaderName, HeaderValue) {
    (CACHE_CONTROL, HeaderValue::from_static("no-store"))
}

/// A page with its policy; the rest of its protection comes to every answer of the router.
pub(super) fn html(
    status: StatusCode,
    page: Result<String, askama::Error>,
    policy: &str,
) -> Response {
    let page = match page {
        Ok(page) => page,
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            return problem(&HttpError::Internal);
        }
    };
    let Ok(policy) = HeaderValue::try_from(policy) else {
        return problem(&HttpError::Internal);
    };
    let headers = [
        (
            CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        no_store(),
        (CONTENT_SECURITY_POLICY, policy),
    ];
    (status, headers, page).into_response()
}

pub(super) fn problem(error: &HttpError) -> Response {
    to_axum(error.response())
}

/// Names a request's host in `Host`, whichever way it came: HTTP/2 does so in `:authority` (RFC 9113 §8.3.1).
pub(super) fn name_host<B>(request: &mut http::Request<B>) {
    let Some(authority) = request.uri().authority() else {
        return;
    };
    if let Ok(host) = authority.as_str().parse() {
        request.headers_mut().insert(http::header::HOST, host);
    }
}

/// An answer of the tile path's kind, for a router.
pub(super) fn to_axum(response: http::Response<Body>) -> Response {
    response.map(|body| match body {
        Body::Full(chunk) => {
            axum::body::Body::from(chunk.map_or_else(bytes::Bytes::new, Into::into))
        }
        Body::Router(body) => body,
    })
}
