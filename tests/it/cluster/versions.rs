//! A version that is switched while servers run: at once, everywhere, for those who come later, and back.

use std::net::SocketAddr;

use tilekeep::tile::{Tileset, TilesetSpec};

use super::*;

const SWITCHED: &str = "tilekeep_version_switches_total{by=\"this_node\"}";
const FOLLOWED: &str = "tilekeep_version_switches_total{by=\"another_node\"}";

fn at(version: &str) -> TilesetSpec {
    TilesetSpec {
        version: Some(version.into()),
        key: "world/{version}/{z}/{x}/{y}.{ext}".into(),
        ..spec("world", TileFormat::Png)
    }
}

/// A node that is configured with this version, over an origin that has a tile of three.
async fn node(version: &str, redis: Option<&Redis>) -> Member {
    let memory = MemoryOrigin::new();
    let coord = TileCoord::new(0, 0, 0).unwrap();
    for version in ["1", "2", "3"] {
        let tileset = Tileset::new(at(version)).unwrap();
        let body = format!("tile of {version}");
        memory.put(&tileset, coord, Scale::One, body, None);
    }
    let origin = Arc::new(FailingOrigin::new(memory));
    let mut config = config([at(version), spec("plain", TileFormat::Png)]);
    config.cluster = redis.map(|redis| meeting(&redis.url()));
    let server = support::start(config, origin.clone()).await;
    Member { server, origin }
}

impl Member {
    async fn switch(&self, version: &str) -> Answer {
        let body = format!(r#"{{"tileset":"world","version":"{version}"}}"#);
        self.switch_with(body, &[]).await
    }

    async fn switch_with(&self, body: String, headers: &[(&str, &str)]) -> Answer {
        let admin: SocketAddr = self.server.addresses.admin;
        let post = Method::POST;
        self.server
            .send_to(admin, post, "/version", headers, body)
            .await
    }

    async fn body(&self) -> String {
        let tile = self.server.get(TILE).await;
        assert_eq!(tile.status, StatusCode::OK);
        String::from_utf8(tile.body.to_vec()).unwrap()
    }

    async fn serves(&self, version: &str) {
        let wanted = format!("tile of {version}");
        until(&wanted, async || self.body().await == wanted).await;
    }

    /// The address that its TileJSON hands out.
    async fn url(&self) -> String {
        let json = self.server.get("/world.json").await.json();
        json["tiles"][0].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_switch_is_in_effect_at_once_and_so_is_the_way_back() {
    let a = node("1", None).await;
    let immutable = async |query: &str| {
        let tile = a.server.get(&format!("{TILE}{query}")).await;
        assert_eq!(tile.status, StatusCode::OK);
        tile.header("cache-control").contains("immutable")
    };
    assert_eq!(a.body().await, "tile of 1");
    let first = a.server.get(TILE).await.header("etag").to_owned();
    assert!(immutable("?v=1").await && !immutable("?v=2").await);
    let switched = a.switch("2").await;
    assert_eq!(switched.status, StatusCode::OK);
    let report = switched.json();
    let said = |name: &str| report[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        [said("tileset"), said("version"), said("previous")],
        ["world", "2", "1"]
    );
    assert!(said("note").contains("set version = \"2\" in [tilesets.world]"));
    assert_eq!(a.body().await, "tile of 2");
    assert!(a.url().await.ends_with("?v=2"));
    assert!(immutable("?v=2").await && !immutable("?v=1").await);
    let conditional = a.server.get_with(TILE, &[("if-none-match", &first)]).await;
    assert_eq!(conditional.status, StatusCode::OK, "another tile");
    let calls = a.origin.calls();
    let back = a.switch("1").await.json();
    assert_eq!(back["previous"], "2");
    assert_eq!(a.body().await, "tile of 1");
    assert_eq!(a.origin.calls(), calls, "it was still there");
    let conditional = a.server.get_with(TILE, &[("if-none-match", &first)]).await;
    assert_eq!(conditional.status, StatusCode::NOT_MODIFIED);
    assert_eq!(a.counts(SWITCHED).await, 2);
    let all = a.admin(Method::GET, "/version", "").await.json();
    assert_eq!(
        all[0],
        serde_json::json!({"tileset": "world", "version": "1"})
    );
    a.server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_switched_is_refused_and_changes_nothing() {
    let a = node("1", None).await;
    for (body, status, said) in [
        (r#"{"tileset":"moon","version":"2"}"#, 404, "world, plain"),
        (r#"{"tileset":"plain","version":"2"}"#, 400, "{version}"),
        (r#"{"tileset":"world","version":"a/b"}"#, 400, "letters"),
        (r#"{"tileset":"world"}"#, 400, "version"),
        (r#"{"tileset":"world","version":"2","x":1}"#, 400, "`x`"),
        ("", 400, "EOF"),
    ] {
        let refused = a.switch_with(body.into(), &[]).await;
        assert_eq!(refused.status, status, "{body}");
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(said), "{detail}");
    }
    let body = r#"{"tileset":"world","version":"2"}"#;
    for headers in [
        ("sec-fetch-site", "cross-site"),
        ("origin", "https://evil.example"),
    ] {
        let refused = a.switch_with(body.into(), &[headers]).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
    }
    let answer = a.admin(Method::DELETE, "/version", "").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(a.body().await, "tile of 1");
    a.server.stop().await;
}

#[tokio::test]
async fn a_switch_holds_on_all_nodes_and_for_those_that_start_later() {
    let redis = Redis::start().await;
    let (a, b) = (node("1", Some(&redis)).await, node("1", Some(&redis)).await);
    assert_eq!(b.body().await, "tile of 1");
    let report = a.switch("2").await.json();
    assert_eq!(report["cluster"], "sent");
    assert!(report.get("note").is_none());
    b.serves("2").await;
    assert!(b.url().await.ends_with("?v=2"));
    assert_eq!((a.counts(FOLLOWED).await, b.counts(FOLLOWED).await), (0, 1));
    // One that starts later follows from its first request on; one that somebody has given a newer version stays.
    let (late, newer) = (node("1", Some(&redis)).await, node("3", Some(&redis)).await);
    assert_eq!(
        (late.body().await, newer.body().await),
        ("tile of 2".into(), "tile of 3".into())
    );
    // Back again, from another node than the first time.
    assert_eq!(b.switch("1").await.json()["previous"], "2");
    a.serves("1").await;
    late.serves("1").await;
    assert_eq!(newer.body().await, "tile of 3");
    // And it takes the others along when it is asked to.
    newer.switch("2").await;
    for member in [&a, &b, &late] {
        member.serves("2").await;
    }
    for member in [a, b, late, newer] {
        member.server.stop().await;
    }
}

#[tokio::test]
async fn a_switch_outlives_a_redis_that_forgets_and_one_that_was_away() {
    let mut redis = Redis::start().await;
    let (a, b) = (node("1", Some(&redis)).await, node("1", Some(&redis)).await);
    a.switch("2").await;
    b.serves("2").await;
    redis.kill();
    a.reaches("away").await;
    b.reaches("away").await;
    assert_eq!(b.body().await, "tile of 2", "it goes on serving");
    let report = b.switch("3").await.json();
    assert_eq!(report["cluster"], "unreachable");
    assert!(report["note"].as_str().unwrap().contains("when it is back"));
    redis.revive().await;
    a.serves("3").await;
    b.reaches("connected").await;
    assert_eq!(b.body().await, "tile of 3", "the newer one counts");
    let late = node("1", Some(&redis)).await;
    late.serves("3").await;
    // Rubbish in Redis switches nothing.
    for rubbish in [
        "x",
        r#"{"to":"../secret","replaced":["1"],"at":9999999999999}"#,
    ] {
        redis
            .ask(&["XADD", "test:switches", "*", "world", rubbish])
            .await;
    }
    until("ignored", async || a.events("ignored").await == 2).await;
    assert_eq!(a.body().await, "tile of 3");
    for member in [a, b, late] {
        member.server.stop().await;
    }
}
