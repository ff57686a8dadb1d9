//! The whole way: a browser, a stand-in for CloudFront that verifies and caches by itself, and the server behind it.

use std::collections::BTreeMap;

use serde_json::json;
use tilekeep::aws::cloudfront::{Signer, SigningKey};
use tilekeep::http::cloudfront::{CloudFront, CloudFrontSettings};

use super::*;
use crate::peers::Distribution;

/// A browser's cookies: by name and path, sent where the path begins with theirs (RFC 6265 §5.1.4).
#[derive(Default, Clone)]
struct Browser {
    cookies: BTreeMap<(String, String), String>,
}

impl Browser {
    fn keep(&mut self, answer: &Answer) {
        for text in set_cookies(answer) {
            let (pair, attributes) = text.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            let attribute = |name: &str| {
                let mut all = attributes.split(';').map(str::trim);
                all.find_map(|one| one.strip_prefix(name))
                    .unwrap()
                    .to_owned()
            };
            let key = (name.to_owned(), attribute("Path="));
            if attribute("Max-Age=") == "0" {
                self.cookies.remove(&key);
            } else {
                self.cookies.insert(key, value.to_owned());
            }
        }
    }

    fn cookies_for(&self, path: &str) -> String {
        let matches = |prefix: &str| {
            path == prefix
                || (path.starts_with(prefix)
                    && (prefix.ends_with('/') || path[prefix.len()..].starts_with('/')))
        };
        let sent = self.cookies.iter().filter(|((_, path), _)| matches(path));
        let pairs: Vec<_> = sent
            .map(|((name, _), value)| format!("{name}={value}"))
            .collect();
        pairs.join("; ")
    }
}

struct World {
    server: Running,
    edge: Distribution,
}

impl World {
    async fn start(key_name: &str, public: &str) -> Self {
        let server = server_with(key_name, |_| {}).await;
        let settings = json!({
            "public_key": key(public), "key_pair_id": KEY_PAIR_ID, "domain": DOMAIN, "secret": SECRET,
            "tilesets": ["world", "roads"], "now": support::START.secs(), "origin": server.addresses.public.port(),
        });
        let edge = Distribution::start(settings).await;
        Self { server, edge }
    }

    async fn send(
        &self,
        browser: &mut Browser,
        method: Method,
        path: &str,
        body: &'static str,
    ) -> Answer {
        let cookies = browser.cookies_for(path.split('?').next().unwrap());
        let mut headers = vec![SAME, JSON];
        if !cookies.is_empty() {
            headers.push(("cookie", &cookies));
        }
        let answer = self
            .server
            .send_to(self.edge.address, method, path, &headers, body)
            .await;
        browser.keep(&answer);
        answer
    }

    /// Status and `X-Cache` of a tile.
    async fn get(&self, browser: &mut Browser, path: &str) -> (u16, String) {
        let answer = self.send(browser, Method::GET, path, "").await;
        let cache = answer
            .header("x-cache")
            .split(' ')
            .next()
            .unwrap()
            .to_owned();
        (answer.status.as_u16(), cache)
    }

    async fn advance(&self, minutes: u64) {
        self.server.clock.advance(Duration::from_mins(minutes));
        let now = self.server.clock.now().secs().to_string();
        let sent = self
            .server
            .send_to(self.edge.address, Method::POST, "/__now", &[], now)
            .await;
        assert_eq!(sent.status, StatusCode::NO_CONTENT);
    }
}

fn seen(status: u16, cache: &str) -> (u16, String) {
    (status, cache.to_owned())
}

async fn from_log_in_to_log_out(key_name: &str, public: &str) {
    let world = World::start(key_name, public).await;
    let (mut anna, mut bert) = (Browser::default(), Browser::default());
    // Nobody is let in, and nobody gets as far as the server.
    assert_eq!(world.get(&mut anna, TILE).await, seen(403, "Error"));
    let answer = world.send(&mut anna, Method::POST, "/session", LOGIN).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(world.get(&mut anna, TILE).await, seen(200, "Miss"));
    let other = r#"{"username":"bert","password":"other"}"#;
    world.send(&mut bert, Method::POST, "/session", other).await;
    assert_eq!(
        world.get(&mut bert, TILE).await,
        seen(200, "Hit"),
        "one copy for all"
    );
    // The version is another URL for the cache, any other query is none.
    assert_eq!(
        world.get(&mut bert, "/world/0/0/0.png?v=1").await,
        seen(200, "Miss")
    );
    assert_eq!(
        world.get(&mut anna, "/world/0/0/0.png?x=1").await,
        seen(200, "Hit")
    );
    assert_eq!(
        world.get(&mut anna, "/roads/0/0/0.png").await,
        seen(200, "Miss")
    );
    // One tileset's cookies are not another's.
    let mut crossed = anna.clone();
    crossed.cookies = crossed
        .cookies
        .into_iter()
        .filter(|((_, path), _)| path == "/world")
        .map(|((name, _), value)| ((name, "/".to_owned()), value))
        .collect();
    assert_eq!(world.get(&mut crossed, "/roads/0/0/0.png").await.0, 403);
    assert_eq!(world.get(&mut crossed, TILE).await.0, 200);

    // A quarter of an hour later they are over; the session is not, and brings new ones.
    world.advance(16).await;
    assert_eq!(world.get(&mut anna, TILE).await, seen(403, "Error"));
    let shown = world.send(&mut anna, Method::GET, "/session", "").await;
    assert!(shown.json()["cloudfront"]["expires_in"].as_u64().unwrap() > 840);
    assert_eq!(world.get(&mut anna, TILE).await, seen(200, "Hit"));
    // Past its time the distribution has its copy confirmed, by the content's ETag.
    world.advance(60).await;
    world
        .send(&mut anna, Method::POST, "/session/renew", "")
        .await;
    assert_eq!(world.get(&mut anna, TILE).await, seen(200, "RefreshHit"));

    // After the log-out the browser has none. A copy of them is good for its minutes, which SECURITY.md says.
    let mut copy = anna.clone();
    let ended = world.send(&mut anna, Method::DELETE, "/session", "").await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    assert!(anna.cookies.is_empty());
    assert_eq!(world.get(&mut anna, TILE).await.0, 403);
    assert_eq!(world.get(&mut copy, TILE).await.0, 200);
    world.advance(15).await;
    assert_eq!(world.get(&mut copy, TILE).await.0, 403);
    let refused = world.send(&mut copy, Method::GET, "/session", "").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    world.server.stop().await;
}

#[tokio::test]
async fn a_browser_sees_the_map_through_cloudfront_while_it_has_a_session() {
    from_log_in_to_log_out("ec_sec1", "ec_public").await;
}

#[tokio::test]
async fn with_an_rsa_key_too_and_with_signed_urls() {
    from_log_in_to_log_out("rsa", "rsa_public").await;
    let world = World::start("rsa_pkcs1", "rsa_public").await;
    let signer = || Signer::new(KEY_PAIR_ID, SigningKey::from_pem(key("rsa")).unwrap());
    let distribution = CloudFront::new(CloudFrontSettings {
        domain: DOMAIN.into(),
        cookie_domain: None,
        tilesets: vec!["world".into()],
        signer: signer(),
        origin_secrets: Vec::new(),
    });
    let signer = signer();
    let until = support::START + Duration::from_mins(5);
    let url = format!("https://{DOMAIN}{TILE}?v=1");
    let urls = [
        signer.canned_url(&url, until).unwrap(),
        signer.custom_url(
            &url,
            &signer.sign(&url.replace("?v=1", "*"), until).unwrap(),
        ),
    ];
    let mut nobody = Browser::default();
    for (url, cache) in urls.iter().zip(["Miss", "Hit"]) {
        let path = url.strip_prefix("https://tiles.example.com").unwrap();
        assert_eq!(world.get(&mut nobody, path).await, seen(200, cache));
        let forged = path.replace("/0/0/0.png", "/1/0/0.png");
        assert_eq!(world.get(&mut nobody, &forged).await.0, 403);
    }
    // A tile's own, as a helper hands it out: until the end of a window, the same for all who ask within it.
    let world_tileset = tileset(TilesetSpec {
        version: Some("1".into()),
        key: "world/{version}/{z}/{x}/{y}.png".into(),
        ..spec("world", TileFormat::Png)
    });
    let place = (TileCoord::new(0, 0, 0).unwrap(), Scale::One);
    let life = Duration::from_mins(5);
    let now = support::START + Duration::from_secs(149);
    let (url, ends) = distribution
        .signed_url(&world_tileset, place, life, support::START)
        .unwrap();
    assert_eq!(ends, support::START + life);
    let later = distribution
        .signed_url(&world_tileset, place, life, now)
        .unwrap();
    assert_eq!(later, (url.clone(), ends));
    let next = distribution.signed_url(&world_tileset, place, life, now + Duration::from_secs(1));
    assert_eq!(next.unwrap().1, ends + life / 2);
    let roads = tileset(spec("roads", TileFormat::Png));
    assert!(distribution.signed_url(&roads, place, life, now).is_none());
    let path = url.strip_prefix("https://tiles.example.com").unwrap();
    assert!(path.starts_with("/world/0/0/0.png?v=1&Expires="));
    assert_eq!(world.get(&mut nobody, path).await, seen(200, "Hit"));
    world.advance(6).await;
    for url in &urls {
        let path = url.strip_prefix("https://tiles.example.com").unwrap();
        assert_eq!(world.get(&mut nobody, path).await.0, 403);
    }
    world.server.stop().await;
}
