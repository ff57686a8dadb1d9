//! The admin side: metrics, health, readiness, purge, the dashboard. Never on the public listener.
//!
//! A web page can reach a loopback port through its visitor's browser, by itself or by making its own
//! name resolve to 127.0.0.1. So this side answers to its own host names only, and refuses
//! requests that come from a page of another site.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::Router;
use axum::extract::{DefaultBodyLimit, OriginalUri, Request, State};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::json;
use tower_service::Service as _;

use super::body::{Body, RequestBody, whole};
use super::front::{NO_ONE_HOST, names_one_host};
use super::problem::HttpError;
use super::purge::purge;
use super::request_head::RequestHead;
use super::shield::shielded;
use super::site::{name_host, problem};
use super::version::{switch_version, versions};
use super::{cached, dashboard};
use crate::auth::{Quotas, bearer_token};
use crate::aws::events::Flow;
use crate::cache::DiskStats;
use crate::cache::TileCache;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::metrics::{DiskEvent, Label as _, Metrics, follow};
use crate::shutdown::Shutdown;
use crate::tile::Tilesets;

pub use super::cached::Looks;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A purge's list of tiles at most.
const MAX_BODY: usize = 4 << 20;

/// For all of a request's body: who sends it slowly holds a connection for nothing.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What the admin side is made of.
pub struct AdminParts {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// For gauges and purges.
    pub cache: TileCache,
    /// For gauges.
    pub quotas: Arc<Quotas>,
    /// What can be purged and switched.
    pub tilesets: Tilesets,
    /// The time.
    pub clock: Clock,
    /// Whether changes in buckets are heard of, where they are to be.
    pub events: Option<Flow>,
    /// Other nodes, where there are any.
    pub others: Option<Cluster>,
    /// Not ready from the moment the end was asked for.
    pub shutdown: Shutdown,
    /// Where it listens: an address that a client may name.
    pub listen: SocketAddr,
    /// Asked for as a bearer token, where there is one.
    pub token: Option<crate::auth::Secret>,
    /// Whose AWS credentials sign.
    pub identities: crate::aws::Identities,
    /// One look through the memory tier at a time.
    pub looks: Looks,
}

/// The admin side's router.
pub fn router(parts: Arc<AdminParts>) -> Router {
    Router::new()
        .route("/", get(dashboard::page))
        .route("/assets/{file}", get(dashboard::asset))
        .route("/cached", get(cached::cached))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/purge", post(purge))
        .route("/version", get(versions).post(switch_version))
        .fallback(|| async { problem(&HttpError::UnknownPage) })
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(parts.clone(), guard))
        .layer(map_response(shielded))
        .with_state(parts)
}

/// Answers one request.
pub async fn answer(
    mut router: Router,
    mut request: http::Request<RequestBody>,
) -> http::Response<Body> {
    if !names_one_host(&RequestHead::of(&request)) {
        return HttpError::BadRequest(NO_ONE_HOST).response();
    }
    name_host(&mut request);
    let Ok(response) = router.call(request.map(axum::body::Body::new)).await;
    response.map(Body::Router)
}

/// Lets a request in: right host, no foreign page, right token.
async fn guard(State(parts): State<Arc<AdminParts>>, request: Request, next: Next) -> Response {
    if let Err(refusal) = admit(&parts, request.uri().path(), request.headers()) {
        return problem(&refusal);
    }
    // Only now: nobody else's bytes are kept.
    let (head, body) = request.into_parts();
    match whole(body, MAX_BODY, BODY_TIMEOUT).await {
        Ok(body) => next.run(Request::from_parts(head, body.into())).await,
        Err(refusal) => problem(&refusal),
    }
}

fn admit(parts: &AdminParts, path: &str, headers: &HeaderMap) -> Result<(), HttpError> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if host.is_none_or(|host| !is_own_host(host, parts.listen)) {
        return Err(HttpError::BadRequest(
            "The admin side answers to its own address only, not to this host name.",
        ));
    }
    let same_origin = |site: &HeaderValue| site == "same-origin" || site == "none";
    let from_elsewhere = match headers.get(SEC_FETCH_SITE) {
        Some(site) => !same_origin(site),
        // Browsers without Fetch Metadata send `Origin` with what can change anything.
        None => headers.get(ORIGIN).is_some_and(|origin| {
            let own = origin
                .to_str()
                .ok()
                .and_then(|origin| origin.split_once("://"));
            own.is_none_or(|(_, authority)| Some(authority) != host)
        }),
    };
    if from_elsewhere {
        return Err(HttpError::AdminCrossSite);
    }
    // Probes have no token, and learn nothing but yes or no. Nor has the dashboard's page, which asks for one: it
    // is the same for every server.
    let open = matches!(path, "/healthz" | "/readyz") || dashboard::says_nothing(path);
    match &parts.token {
        Some(expected) if !open => {
            let given = headers
                .get(AUTHORIZATION)
                .and_then(|v| bearer_token(v.as_bytes()));
            let given = given.ok_or(HttpError::AdminToken { given: false })?;
            verify_slices_are_equal(given, expected.expose())
                .map_err(|_| HttpError::AdminToken { given: true })
        }
        _ => Ok(()),
    }
}

/// Its own address or, on loopback, any name of this machine; any port (it may be mapped).
fn is_own_host(host: &str, listen: SocketAddr) -> bool {
    let name = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or(""),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    // A DNS name can be made to point anywhere, an address cannot. Off loopback a token protects,
    // and the host may be any name that the operator's network has for it.
    match name.parse::<IpAddr>() {
        Ok(_) => true,
        Err(_) => !listen.ip().is_loopback(),
    }
}

async fn metrics(State(parts): State<Arc<AdminParts>>) -> Response {
    observe(&parts);
    let text = parts.metrics.render();
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

async fn healthz() -> Response {
    (
        [(CACHE_CONTROL, HeaderValue::from_static("no-store"))],
        "ok\n",
    )
        .into_response()
}

/// Whether new requests should come here: not while it is ending, and not before there have been AWS
/// credentials. Later trouble with those, with Redis or with the queue of events, is told, and no reason to stay away: what is
/// cached is answered, and other nodes will hardly be better off.
async fn readyz(State(parts): State<Arc<AdminParts>>) -> Response {
    let ending = parts.shutdown.is_asked();
    let ready = !ending && !parts.identities.are_without_keys();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let degraded = parts.identities.are_degraded().then_some("aws_credentials");
    let events = parts.events.as_ref().filter(|events| events.is_failing());
    let degraded: Vec<_> = degraded
        .into_iter()
        .chain(events.map(|_| "events"))
        .collect();
    let mut body = json!({ "ready": ready, "ending": ending, "degraded": degraded });
    if let Some(others) = &parts.others {
        body["cluster"] = others.reach().label().into();
    }
    if let Some(events) = &parts.events {
        body["events"] = events.label().into();
    }
    let body = body.to_string();
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body).into_response()
}

/// Brings gauges up to date with what keeps its own counts.
fn observe(parts: &AdminParts) {
    let metrics = &parts.metrics;
    parts.identities.observe(metrics);
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    if let Some(memory) = parts.cache.memory() {
        // moka counts when it tidies up, which without traffic is seldom.
        memory.settle();
        metrics.memory_bytes.set(gauge(memory.weighted_bytes()));
        metrics.memory_entries.set(gauge(memory.entries()));
        follow(&metrics.memory_evictions, memory.evictions());
    }
    metrics
        .quota_people
        .set(gauge(parts.quotas.people() as u64));
    metrics
        .quota_bytes
        .set(gauge(parts.quotas.table_bytes() as u64));
    follow(&metrics.quota_forgotten, parts.quotas.forgotten());
    if let Some(disk) = parts.cache.disk() {
        let stats = disk.stats();
        metrics.disk_bytes.set(gauge(stats.used_bytes));
        metrics.disk_entries.set(gauge(stats.entries));
        follow(&metrics.disk_written_bytes, stats.written_bytes);
        for event in DiskEvent::ALL {
            metrics.disk.follow(*event, count(&stats, *event));
        }
    }
}

fn count(stats: &DiskStats, event: DiskEvent) -> u64 {
    match event {
        DiskEvent::Hit => stats.hits,
        DiskEvent::Miss => stats.misses + stats.misses_overtaken + stats.misses_dangling,
        DiskEvent::Corrupt => stats.corrupt.iter().sum(),
        DiskEvent::IoError => stats.io_errors.iter().sum(),
        DiskEvent::Write => stats.writes,
        DiskEvent::Skipped => stats.skipped.iter().sum(),
        DiskEvent::Eviction => stats.evictions,
        DiskEvent::Duplicate => stats.dedup_hits,
        DiskEvent::Reinsertion => stats.reinserted,
        DiskEvent::Touch => stats.touches,
        DiskEvent::Invalidation => stats.invalidations + stats.expirations,
    }
}

async fn not_allowed(OriginalUri(uri): OriginalUri) -> Response {
    problem(&HttpError::Method(match uri.path() {
        "/purge" => "POST",
        "/version" => "GET, HEAD, POST",
        _ => "GET, HEAD",
    }))
}
