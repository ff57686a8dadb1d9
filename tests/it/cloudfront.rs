//! CloudFront in front: what its cookies are worth to other people's software, who gets them, and who is answered as
//! a shared cache.

use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;
use tilekeep::auth::Claims;
use tilekeep::config::{CloudFrontConfig, Config, QuotaConfig, SecretValue, WebOrigin};
use tilekeep::origin::failing::MemoryOrigin;
use tilekeep::tile::{Access, Scale, TileCoord, TileFormat, TilesetSpec};

use crate::peers::python_says;
use crate::support::{self, Answer, Running, config, spec, tileset, token};

mod distribution;
mod edge;
mod script;
mod signatures;

const DOMAIN: &str = "tiles.example.com";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NEXT_SECRET: &str = "fedcba9876543210fedcba9876543210";
const KEY_PAIR_ID: &str = "K2JCJMDEHXQW5F";
const TILE: &str = "/world/0/0/0.png";
const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");
const JSON: (&str, &str) = ("content-type", "application/json");
const LOGIN: &str = r#"{"username":"anna","password":"secret"}"#;

/// Keys that Python made: `rsa`, `rsa_pkcs1`, `ec` (PKCS #8), `ec_sec1`, and the public `rsa_public`, `ec_public`; then
/// those that are refused.
fn keys() -> &'static Value {
    static KEYS: OnceLock<Value> = OnceLock::new();
    const MAKE: &str = "\
import json
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
plain = s.NoEncryption()
def private(key, format=s.PrivateFormat.PKCS8, how=plain):
    return key.private_bytes(s.Encoding.PEM, format, how).decode()
def public(key):
    return key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo).decode()
r, e = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
old = s.PrivateFormat.TraditionalOpenSSL
print(json.dumps({
    'rsa': private(r), 'rsa_pkcs1': private(r, old), 'rsa_public': public(r),
    'ec': private(e), 'ec_sec1': private(e, old), 'ec_public': public(e),
    'short': private(rsa.generate_private_key(65537, 1024)),
    'short_pkcs1': private(rsa.generate_private_key(65537, 1024), old),
    'p384': private(ec.generate_private_key(ec.SECP384R1())),
    'p384_sec1': private(ec.generate_private_key(ec.SECP384R1()), old),
    'k1': private(ec.generate_private_key(ec.SECP256K1())),
    'ed25519': private(ed25519.Ed25519PrivateKey.generate()),
    'locked': private(e, how=s.BestAvailableEncryption(b'word')),
}))";
    KEYS.get_or_init(|| serde_json::from_str(&python_says(MAKE, &[])).unwrap())
}

fn key(name: &str) -> &'static str {
    keys()[name].as_str().unwrap()
}

fn cloudfront(key_name: &str) -> CloudFrontConfig {
    CloudFrontConfig {
        domain: DOMAIN.into(),
        key_pair_id: KEY_PAIR_ID.into(),
        private_key: SecretValue::new(key(key_name)),
        origin_secrets: vec![SecretValue::new(SECRET), SecretValue::new(NEXT_SECRET)],
        tilesets: vec!["world".into(), "roads".into()],
    }
}

/// A server with `world` (version 1) and `roads` behind the distribution, `hidden` not, and `open` for everybody.
async fn server_with(key_name: &str, change: impl FnOnce(&mut Config)) -> Running {
    let world = TilesetSpec {
        version: Some("1".into()),
        key: "world/{version}/{z}/{x}/{y}.png".into(),
        ..spec("world", TileFormat::Png)
    };
    let open = TilesetSpec {
        access: Access::Public,
        ..spec("open", TileFormat::Png)
    };
    let specs = [
        world,
        spec("roads", TileFormat::Png),
        spec("hidden", TileFormat::Png),
        open,
    ];
    let origin = MemoryOrigin::new();
    for spec in &specs {
        let place = TileCoord::new(0, 0, 0).unwrap();
        let tile = format!("tile of {}", spec.name);
        origin.put(&tileset(spec.clone()), place, Scale::One, tile, None);
    }
    let mut config = config(specs);
    config.server.public_url = Some(WebOrigin::parse("https://tiles.example.com").unwrap());
    config.cloudfront = Some(cloudfront(key_name));
    config.quotas = vec![
        QuotaConfig {
            background: false,
            name: "fast".into(),
            requests_per_second: NonZeroU32::new(100),
            burst: None,
            distinct_tiles_per_hour: None,
        },
        QuotaConfig {
            background: false,
            name: "counted".into(),
            requests_per_second: None,
            burst: None,
            distinct_tiles_per_hour: NonZeroU32::new(100),
        },
    ];
    change(&mut config);
    support::start(config, Arc::new(origin)).await
}

async fn server() -> Running {
    server_with("ec", |_| {}).await
}

async fn log_in(server: &Running) -> Answer {
    server
        .send(Method::POST, "/session", &[JSON, SAME], LOGIN)
        .await
}

fn set_cookies(answer: &Answer) -> Vec<String> {
    let all = answer.headers.get_all("set-cookie").iter();
    all.map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

/// Those of CloudFront that are set, not removed.
fn edge_cookies(answer: &Answer) -> Vec<String> {
    let mut all = set_cookies(answer);
    all.retain(|text| text.starts_with("CloudFront-") && !text.ends_with("Max-Age=0"));
    all
}

async fn metric(server: &Running, name: &str) -> String {
    let to = server.addresses.admin;
    let answer = server.send_to(to, Method::GET, "/metrics", &[], "").await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    line.map_or("none", |line| line.rsplit(' ').next().unwrap())
        .to_owned()
}

/// The session cookie of a token, as a browser sends it.
fn session_cookie(claims: &Claims) -> String {
    format!("__Host-tilekeep_session={}", token(claims))
}

#[tokio::test]
async fn a_log_in_brings_a_set_of_cookies_for_each_tileset_that_goes_through_cloudfront() {
    let server = server().await;
    let answer = log_in(&server).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        answer.json()["cloudfront"],
        serde_json::json!({ "domain": DOMAIN, "expires_in": 900 })
    );
    let cookies = edge_cookies(&answer);
    let names: Vec<_> = cookies
        .iter()
        .map(|text| text.split('=').next().unwrap())
        .collect();
    let set = [
        "CloudFront-Policy",
        "CloudFront-Signature",
        "CloudFront-Key-Pair-Id",
        "CloudFront-Hash-Algorithm",
    ];
    assert_eq!(names, [set, set].concat());
    for (cookies, path) in [(&cookies[..4], "/world"), (&cookies[4..], "/roads")] {
        let attributes = format!("; Path={path}; HttpOnly; SameSite=Lax; Secure; Max-Age=900");
        assert!(
            cookies.iter().all(|text| text.ends_with(&attributes)),
            "{cookies:?}"
        );
        assert!(cookies[2].starts_with(&format!("CloudFront-Key-Pair-Id={KEY_PAIR_ID};")));
        assert!(cookies[3].starts_with("CloudFront-Hash-Algorithm=SHA256;"));
    }
    // What goes to the other host is for both.
    let two_hosts = server_with("ec", |config| {
        config.session.domain = Some("example.com".into());
        config.cloudfront.as_mut().unwrap().domain = "cdn.example.com".into();
    })
    .await;
    for cookie in edge_cookies(&log_in(&two_hosts).await) {
        assert!(cookie.contains("; Domain=example.com;"), "{cookie}");
    }
    server.stop().await;
    two_hosts.stop().await;
}

#[tokio::test]
async fn cookies_come_with_every_answer_to_a_session_but_tiles_and_never_outlive_it() {
    let server = server().await;
    let cookie = set_cookies(&log_in(&server).await)[0]
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let with = [("cookie", cookie.as_str()), SAME];
    for (method, path, sets) in [
        (Method::GET, "/session", 2),
        (Method::POST, "/session/renew", 2),
        (Method::GET, "/", 2),
        (Method::GET, "/map", 2),
        (Method::GET, "/world.json", 1),
        (Method::GET, "/hidden.json", 0),
        (Method::GET, TILE, 0),
    ] {
        let answer = server.send(method, path, &with, "").await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(edge_cookies(&answer).len(), sets * 4, "{path}");
    }
    // A tile's answer that renews the session brings them too.
    server.clock.advance(Duration::from_hours(7));
    let renewing = server.send(Method::GET, TILE, &with, "").await;
    assert!(set_cookies(&renewing)[0].starts_with("__Host-tilekeep_session="));
    assert_eq!(edge_cookies(&renewing).len(), 8);
    // Four minutes before the first session's end.
    server.clock.advance(Duration::from_mins(4 * 60 + 56));
    let late = server.send(Method::GET, "/session", &with, "").await;
    assert_eq!(late.json()["cloudfront"]["expires_in"], 240);
    assert!(
        edge_cookies(&late)
            .iter()
            .all(|text| text.ends_with("Max-Age=240"))
    );
    // In its leeway there is nothing left to give.
    server.clock.advance(Duration::from_secs(245));
    let over = server.send(Method::GET, "/session", &with, "").await;
    assert_eq!(over.status, StatusCode::OK);
    assert!(edge_cookies(&over).is_empty() && over.json().get("cloudfront").is_none());
    server.stop().await;
}

#[tokio::test]
async fn who_gets_cookies_in_the_same_minute_gets_the_same() {
    let server = server().await;
    let first = edge_cookies(&log_in(&server).await);
    server.clock.advance(Duration::from_secs(1));
    let second = edge_cookies(&log_in(&server).await);
    let values = |cookies: &[String]| -> Vec<String> {
        let value = |text: &String| text.split(';').next().unwrap().to_owned();
        cookies.iter().map(value).collect()
    };
    assert_eq!(
        values(&first),
        values(&second),
        "an ECDSA signature is never made twice"
    );
    server.clock.advance(Duration::from_mins(1));
    assert_ne!(
        values(&first),
        values(&edge_cookies(&log_in(&server).await))
    );
    server.stop().await;
}

#[tokio::test]
async fn sessions_that_cloudfront_could_not_confine_get_none() {
    let server = server().await;
    let get = async |change: fn(&mut Claims)| {
        let mut claims = support::claims();
        change(&mut claims);
        let cookie = session_cookie(&claims);
        let answer = server
            .send(Method::GET, "/session", &[("cookie", &cookie)], "")
            .await;
        assert_eq!(answer.status, StatusCode::OK);
        let cookies = edge_cookies(&answer);
        assert_eq!(
            cookies.is_empty(),
            answer.json().get("cloudfront").is_none()
        );
        cookies.len() / 4
    };
    assert_eq!(get(|_| {}).await, 2, "a rate alone is no budget");
    assert_eq!(get(|c| c.maxzoom = Some(22)).await, 0);
    assert_eq!(get(|c| c.bounds = Some([0.0, 0.0, 1.0, 1.0])).await, 0);
    assert_eq!(get(|c| c.quota = Some("counted".into())).await, 0);
    assert_eq!(get(|c| c.scope = Some("explain".into())).await, 0);
    assert_eq!(get(|c| c.tilesets = vec!["roads".into()]).await, 1);
    assert_eq!(get(|c| c.tilesets = vec!["hidden".into()]).await, 0);
    assert_eq!(get(|c| c.tilesets = vec!["open".into()]).await, 0);
    // Who sends a token keeps no cookies.
    assert!(edge_cookies(&server.get("/session").await).is_empty());
    assert!(edge_cookies(&server.get("/map").await).is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_log_out_and_somebody_elses_log_in_take_the_cookies_away() {
    let server = server().await;
    let answer = log_in(&server).await;
    let cookie = set_cookies(&answer)[0]
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let ended = server
        .send(Method::DELETE, "/session", &[("cookie", &cookie), SAME], "")
        .await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    let mut removed = set_cookies(&ended);
    assert!(removed.remove(0).starts_with("__Host-tilekeep_session=;"));
    // Name, path and domain as they were set, or a browser keeps them.
    let set = edge_cookies(&answer);
    assert_eq!(removed.len(), set.len());
    for (removed, set) in removed.iter().zip(&set) {
        let (name, rest) = set.split_once('=').unwrap();
        let attributes = rest.split_once(';').unwrap().1;
        let expected = format!("{name}=;{}", attributes.replace("Max-Age=900", "Max-Age=0"));
        assert_eq!(*removed, expected);
    }
    server.stop().await;

    // anna counts tiles from now on: what the browser has from before goes with her log-in.
    let counting = server_with("ec", |config| config.quotas.swap(0, 1)).await;
    let answer = log_in(&counting).await;
    assert!(edge_cookies(&answer).is_empty());
    assert_eq!(set_cookies(&answer).len(), 1 + 8);
    counting.stop().await;
}

#[tokio::test]
async fn a_url_for_one_tile_may_go_by_way_of_cloudfront() {
    let server = server().await;
    let signer = Claims {
        scope: Some("tiles sign".into()),
        ..support::claims()
    };
    let bearer = format!("Bearer {}", support::token(&signer));
    let headers = [("authorization", &*bearer), JSON];
    let ask = |path: &'static str| {
        let body = r#"{"expires_in": 300, "via": "cloudfront"}"#;
        server.send(Method::POST, path, &headers, body)
    };
    let answer = ask("/sign/world/0/0/0.png").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let url = answer.json()["url"].as_str().unwrap().to_owned();
    let named = format!("https://{DOMAIN}/world/0/0/0.png?v=1&Expires=");
    assert!(url.starts_with(&named), "{url}");
    // One that does not go through it, and one that is none.
    let other = ask("/sign/hidden/0/0/0.png").await;
    assert_eq!(other.status, StatusCode::FORBIDDEN);
    assert!(
        other.json()["detail"]
            .as_str()
            .unwrap()
            .contains("CloudFront")
    );
    let wrong = server
        .send(
            Method::POST,
            "/sign/world/0/0/0.png",
            &headers,
            r#"{"via": "mail"}"#,
        )
        .await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}
