//! Two servers and a Redis: what is ended or purged on one holds on the other, and a dead Redis stops nothing.

pub mod redis;
mod trouble;
mod versions;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tilekeep::cluster::Address;
use tilekeep::config::{ClusterConfig, Config};
use tilekeep::origin::failing::{FailingOrigin, Fault, Gate, MemoryOrigin};
use tilekeep::tile::{Scale, TileCoord, TileFormat};
use tokio::time::{Instant, sleep};

use self::redis::{PATIENCE, Redis, certificates};
use crate::support::{self, Answer, Running, config, spec, tileset};

const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");
const JSON: (&str, &str) = ("content-type", "application/json");
const TILE: &str = "/world/0/0/0.png";

/// A server of the fleet.
struct Member {
    server: Running,
    origin: Arc<FailingOrigin<MemoryOrigin>>,
}

/// Where nodes meet, by default.
fn meeting(url: &str) -> ClusterConfig {
    ClusterConfig {
        redis: Address::parse(url).unwrap(),
        prefix: "test:".to_owned(),
        ca: None,
    }
}

async fn member(url: &str) -> Member {
    member_with(|config| config.cluster = Some(meeting(url))).await
}

async fn member_with(change: impl FnOnce(&mut Config)) -> Member {
    let world = spec("world", TileFormat::Png);
    let memory = MemoryOrigin::new();
    let coord = TileCoord::new(0, 0, 0).unwrap();
    memory.put(&tileset(world.clone()), coord, Scale::One, "tile", None);
    let origin = Arc::new(FailingOrigin::new(memory));
    let mut config = config([world]);
    change(&mut config);
    let server = support::start(config, origin.clone()).await;
    Member { server, origin }
}

impl Member {
    /// Logs anna in and gives her cookie.
    async fn log_in(&self) -> String {
        let body = r#"{"username":"anna","password":"secret"}"#;
        let answer = self.server.send(Method::POST, "/session", &[JSON], body);
        let answer = answer.await;
        assert_eq!(answer.status, StatusCode::OK);
        cookie(&answer)
    }

    async fn log_out(&self, cookie: &str) {
        let headers = [("cookie", cookie), SAME];
        let answer = self.server.send(Method::DELETE, "/session", &headers, "");
        assert_eq!(answer.await.status, StatusCode::NO_CONTENT);
    }

    async fn tile(&self, cookie: &str) -> Answer {
        let headers = [("cookie", cookie)];
        self.server.send(Method::GET, TILE, &headers, "").await
    }

    async fn admin(&self, method: Method, path: &str, body: &'static str) -> Answer {
        let admin = self.server.addresses.admin;
        self.server.send_to(admin, method, path, &[], body).await
    }

    async fn purge(&self, body: &'static str) -> Answer {
        self.admin(Method::POST, "/purge", body).await
    }

    /// What `/readyz` says of the cluster; it is always ready.
    async fn reach(&self) -> String {
        let answer = self.admin(Method::GET, "/readyz", "").await;
        assert_eq!(answer.status, StatusCode::OK);
        answer.json()["cluster"].as_str().unwrap().to_owned()
    }

    async fn counts(&self, row: &str) -> u64 {
        let metrics = self.admin(Method::GET, "/metrics", "").await;
        let text = String::from_utf8(metrics.body.to_vec()).unwrap();
        let row = text.lines().find_map(|line| line.strip_prefix(row));
        row.map_or(0, |value| value.trim().parse().unwrap())
    }

    async fn events(&self, event: &str) -> u64 {
        let row = format!("tilekeep_cluster_events_total{{event=\"{event}\"}}");
        self.counts(&row).await
    }

    async fn reaches(&self, wanted: &str) {
        until(wanted, async || self.reach().await == wanted).await;
    }

    /// Waits until the session is refused here.
    async fn refuses(&self, cookie: &str) {
        until("refused", async || {
            self.tile(cookie).await.status == StatusCode::UNAUTHORIZED
        })
        .await;
    }
}

fn cookie(answer: &Answer) -> String {
    let set = answer.header("set-cookie");
    set.split(';').next().unwrap().to_owned()
}

/// Waits for something.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_log_out_on_one_node_holds_on_the_other_at_once() {
    let redis = Redis::start().await;
    let (a, b) = (member(&redis.url()).await, member(&redis.url()).await);
    assert_eq!(
        (a.reach().await, b.reach().await),
        ("connected".into(), "connected".into())
    );
    assert_eq!(a.counts("tilekeep_cluster_connected").await, 1);
    let (gone, kept) = (a.log_in().await, a.log_in().await);
    assert_eq!(
        b.tile(&gone).await.status,
        StatusCode::OK,
        "tokens verify anywhere"
    );
    a.log_out(&gone).await;
    assert_eq!(a.tile(&gone).await.status, StatusCode::UNAUTHORIZED);
    b.refuses(&gone).await;
    assert_eq!(b.tile(&kept).await.status, StatusCode::OK);
    let sent = "tilekeep_cluster_messages_total{direction=\"sent\",kind=\"ending\"}";
    let received = "tilekeep_cluster_messages_total{direction=\"received\",kind=\"ending\"}";
    assert_eq!((a.counts(sent).await, a.counts(received).await), (1, 0));
    assert_eq!((b.counts(sent).await, b.counts(received).await), (0, 1));
    a.server.stop().await;
    b.server.stop().await;
}

#[tokio::test]
async fn a_tile_in_flight_does_not_bring_a_session_back_that_was_ended_elsewhere() {
    let redis = Redis::start().await;
    let (a, b) = (member(&redis.url()).await, member(&redis.url()).await);
    let session = a.log_in().await;
    for member in [&a, &b] {
        member.server.clock.advance(Duration::from_hours(7));
    }
    let gate = Gate::default();
    b.origin.fail_next(1, Fault::Hold(gate.clone()));
    let in_flight = b.tile(&session);
    let log_out = async {
        until("under way", async || b.origin.calls() == 1).await;
        a.log_out(&session).await;
        gate.open();
    };
    let (tile, ()) = tokio::join!(in_flight, log_out);
    b.refuses(&session).await;
    if tile.headers.contains_key("set-cookie") {
        let renewed = cookie(&tile);
        assert_ne!(renewed, session);
        for member in [&a, &b] {
            assert_eq!(member.tile(&renewed).await.status, StatusCode::UNAUTHORIZED);
        }
    }
    // One that was renewed in time is of the same session.
    let other = a.log_in().await;
    for member in [&a, &b] {
        member.server.clock.advance(Duration::from_hours(7));
    }
    let renewed = cookie(&b.tile(&other).await);
    assert_ne!(renewed, other);
    a.log_out(&other).await;
    b.refuses(&renewed).await;
    a.server.stop().await;
    b.server.stop().await;
}

fn ends_beside(config: &mut Config, folder: &Path) {
    config.login.users_file = Some(folder.join("users.toml"));
}

#[tokio::test]
async fn a_node_that_was_down_during_the_log_out_refuses_from_its_first_request_on() {
    let redis = Redis::start().await;
    let folder = tempfile::tempdir().unwrap();
    let start_b = |cluster| {
        member_with(|config: &mut Config| {
            ends_beside(config, folder.path());
            config.cluster = cluster;
        })
    };
    let a = member(&redis.url()).await;
    let b = start_b(Some(meeting(&redis.url()))).await;
    let session = b.log_in().await;
    b.server.stop().await;
    a.log_out(&session).await;
    let b = start_b(Some(meeting(&redis.url()))).await;
    assert_eq!(b.tile(&session).await.status, StatusCode::UNAUTHORIZED);
    b.server.stop().await;
    // What it heard of is in its own file.
    drop(redis);
    let b = start_b(None).await;
    assert_eq!(b.tile(&session).await.status, StatusCode::UNAUTHORIZED);
    a.server.stop().await;
    b.server.stop().await;
}

#[tokio::test]
async fn many_endings_reach_a_new_node_and_a_redis_that_has_forgotten_them() {
    let mut redis = Redis::start().await;
    let a = member(&redis.url()).await;
    // More than a page of the set, and more than a message.
    let mut add = vec!["ZADD".to_owned(), "test:ended".to_owned()];
    let until = support::START.secs() + 86_400;
    for n in 0..3_000 {
        add.extend([until.to_string(), format!("{n:032x}")]);
    }
    let add: Vec<&str> = add.iter().map(String::as_str).collect();
    redis.ask(&add).await;
    let b = member(&redis.url()).await;
    let received = "tilekeep_cluster_messages_total{direction=\"received\",kind=\"ending\"}";
    assert_eq!(b.counts(received).await, 3_000);
    redis.kill();
    b.reaches("away").await;
    redis.revive().await;
    b.reaches("connected").await;
    a.reaches("connected").await;
    assert_eq!(redis.ask(&["ZCARD", "test:ended"]).await, "int(3000)");
    super::cluster::until("told to a", async || a.counts(received).await == 3_000).await;
    a.server.stop().await;
    b.server.stop().await;
}

#[tokio::test]
async fn a_purge_on_one_node_drops_on_the_other_and_a_soft_one_marks_stale() {
    let redis = Redis::start().await;
    let (a, b) = (member(&redis.url()).await, member(&redis.url()).await);
    let session = a.log_in().await;
    b.tile(&session).await;
    let purged = a
        .purge(r#"{"tileset":"world","minzoom":0,"maxzoom":3}"#)
        .await;
    let report = serde_json::json!({ "memory": 0, "disk": 0, "cluster": "sent" });
    assert_eq!(purged.json(), report);
    let dropped = "tilekeep_purged_entries_total{tier=\"memory\"}";
    until("purged", async || b.counts(dropped).await == 1).await;
    assert!(
        b.tile(&session)
            .await
            .header("cache-status")
            .contains("fwd=miss")
    );
    a.purge(r#"{"tileset":"world","soft":true}"#).await;
    until("purged", async || b.counts(dropped).await == 2).await;
    let stale = b.tile(&session).await;
    assert!(
        !stale.header("cache-status").contains("fwd=miss"),
        "it is still there"
    );
    // One's own purge does not come back.
    assert_eq!(
        a.counts("tilekeep_cluster_messages_total{direction=\"received\",kind=\"purge\"}")
            .await,
        0
    );
    let refused = a.purge(r#"{"tileset":"nowhere"}"#).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        redis.ask(&["XLEN", "test:purges"]).await,
        "int(2)",
        "nonsense is not handed on"
    );
    a.server.stop().await;
    b.server.stop().await;
}

#[tokio::test]
async fn a_node_that_was_down_does_not_serve_from_disk_what_was_purged_meanwhile() {
    let redis = Redis::start().await;
    let folder = tempfile::tempdir().unwrap();
    let start_b = || {
        member_with(|config: &mut Config| {
            config.cluster = Some(meeting(&redis.url()));
            config.cache.disk = 64 << 20;
            config.cache.disk_path = Some(folder.path().join("cache"));
        })
    };
    let a = member(&redis.url()).await;
    let b = start_b().await;
    let session = b.log_in().await;
    b.tile(&session).await;
    b.server.stop().await;
    let b = start_b().await;
    let from_disk = b.tile(&session).await;
    assert!(
        from_disk.header("cache-status").contains("detail=disk"),
        "{from_disk:?}"
    );
    b.server.stop().await;
    a.purge(r#"{"tileset":"world","tiles":["0/0/0"]}"#).await;
    let b = start_b().await;
    let purged = b.tile(&session).await;
    assert!(
        purged.header("cache-status").contains("fwd=miss"),
        "{purged:?}"
    );
    a.server.stop().await;
    b.server.stop().await;
}

#[tokio::test]
async fn with_tls_the_certificate_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("redis.pem"), file("redis.key"));
    let options = [
        "--tls-port",
        "PORT",
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ];
    let redis = Redis::start_with(&options, "").await;
    let url = format!("rediss://127.0.0.1:{}", redis.port());
    let believing = |ca: Option<&str>| {
        let mut cluster = meeting(&url);
        cluster.ca = ca.map(Into::into);
        member_with(move |config| config.cluster = Some(cluster))
    };
    let a = believing(Some(&ca)).await;
    assert_eq!(a.reach().await, "connected");
    let b = believing(None).await;
    assert_eq!(b.reach().await, "away", "nobody vouches for it");
    a.server.stop().await;
    b.server.stop().await;
}
