//! What a Redis can do wrong, and who can write to it.

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use http::StatusCode;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::redis::Redis;
use super::*;

/// Neither a tile nor a log-out is ever as late as this; Redis's own deadlines are longer.
const SOON: Duration = Duration::from_secs(2);

/// That a node does what it does without Redis, and says so.
async fn serves(member: &Member) {
    let begun = Instant::now();
    let session = member.log_in().await;
    let logged_in = Instant::now();
    assert_eq!(member.tile(&session).await.status, StatusCode::OK);
    member.log_out(&session).await;
    assert_eq!(member.tile(&session).await.status, StatusCode::UNAUTHORIZED);
    let purged = member.purge(r#"{"tileset":"world"}"#).await;
    assert_eq!(purged.json()["cluster"], "unreachable");
    let (log_in, rest) = (logged_in - begun, logged_in.elapsed());
    // A log-in is mostly argon2, in a debug build.
    assert!(rest < SOON && log_in < PATIENCE, "{log_in:?} {rest:?}");
    assert_ne!(member.reach().await, "connected");
}

#[tokio::test]
async fn a_redis_that_dies_stops_nothing_and_hears_of_log_outs_when_it_is_back() {
    let mut redis = Redis::start().await;
    let (a, b) = (member(&redis.url()).await, member(&redis.url()).await);
    let (early, late) = (a.log_in().await, a.log_in().await);
    a.log_out(&early).await;
    b.refuses(&early).await;
    redis.kill();
    a.reaches("away").await;
    b.reaches("away").await;
    assert_eq!(a.counts("tilekeep_cluster_connected").await, 0);
    assert_eq!(a.events("lost").await, 1);
    serves(&a).await;
    serves(&b).await;
    a.log_out(&late).await;
    assert_eq!(b.tile(&late).await.status, StatusCode::OK, "b cannot know");
    redis.revive().await;
    b.refuses(&late).await;
    a.reaches("connected").await;
    b.reaches("connected").await;
    assert_eq!(a.events("lost").await, 1, "told once, not by each attempt");
    a.server.stop().await;
    b.server.stop().await;
}

#[tokio::test]
async fn a_node_starts_without_redis_and_finds_it_later() {
    let mut redis = Redis::start().await;
    redis.kill();
    let alone = member(&redis.url()).await;
    assert_eq!(alone.reach().await, "away");
    serves(&alone).await;
    redis.revive().await;
    alone.reaches("connected").await;
    alone.server.stop().await;
}

#[tokio::test]
async fn a_redis_that_accepts_and_never_answers_is_waited_for_by_nobody() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!(
        "redis://127.0.0.1:{}",
        listener.local_addr().unwrap().port()
    );
    let silent = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let member = member(&url).await;
    serves(&member).await;
    member.reaches("away").await;
    serves(&member).await;
    silent.abort();
    member.server.stop().await;
}

/// Between a node and its Redis: passes on, until it is told to be silent.
async fn silenceable(to: u16) -> (String, tokio::sync::watch::Sender<bool>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!(
        "redis://127.0.0.1:{}",
        listener.local_addr().unwrap().port()
    );
    let (silence, silent) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut silent = silent.clone();
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, to))
                    .await
                    .unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = async { drop(silent.wait_for(|silent| *silent).await) } => {
                        // What comes is read and forgotten.
                        let mut buffer = [0; 1024];
                        while near.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                    }
                }
            });
        }
    });
    (url, silence)
}

#[tokio::test]
async fn a_redis_that_falls_silent_delays_a_log_out_by_a_moment_and_loses_nothing() {
    let redis = Redis::start().await;
    let (url, silence) = silenceable(redis.port()).await;
    let (a, b) = (member(&url).await, member(&redis.url()).await);
    assert_eq!(a.reach().await, "connected");
    let (session, kept) = (a.log_in().await, a.log_in().await);
    a.tile(&kept).await;
    silence.send_replace(true);
    let begun = Instant::now();
    a.log_out(&session).await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(a.tile(&session).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(b.tile(&session).await.status, StatusCode::OK);
    a.reaches("away").await;
    let purged = b.purge(r#"{"tileset":"world"}"#).await;
    assert_eq!(purged.json()["cluster"], "sent");
    let held = a.tile(&kept).await;
    assert!(held.header("cache-status").contains("hit"), "a cannot know");
    silence.send_replace(false);
    b.refuses(&session).await;
    until("purged", async || {
        a.counts("tilekeep_purged_entries_total{tier=\"memory\"}")
            .await
            == 1
    })
    .await;
    assert_eq!(a.events("purges_missed").await, 0);
    a.server.stop().await;
    b.server.stop().await;
}

#[tokio::test]
async fn rubbish_in_redis_is_counted_and_does_nothing() {
    let redis = Redis::start().await;
    for member in ["x", "", "\u{1f5fa}", "00000000000000000000000000000abc\n"] {
        redis
            .ask(&["ZADD", "test:ended", "1900000000", member])
            .await;
    }
    let id = "0123456789abcdef0123456789abcdef";
    redis.ask(&["ZADD", "test:ended", "inf", id]).await;
    let a = member(&redis.url()).await;
    assert_eq!(a.reach().await, "connected");
    assert_eq!(a.events("ignored").await, 5);
    redis
        .ask(&[
            "XADD",
            "test:endings",
            "*",
            id,
            "soon",
            "x",
            "1900000000",
            id,
            "-1",
        ])
        .await;
    until("ignored", async || a.events("ignored").await == 8).await;
    let purges = [
        ["other", "x"],
        ["purge", "no json"],
        ["purge", r#"{"tileset":"world","surplus":1}"#],
        ["purge", r#"{"tileset":"world","tiles":["9/9"]}"#],
    ];
    for [field, value] in purges {
        redis.ask(&["XADD", "test:purges", "*", field, value]).await;
    }
    until("ignored", async || a.events("ignored").await == 12).await;
    // A tileset that is not here is no rubbish.
    redis
        .ask(&[
            "XADD",
            "test:purges",
            "*",
            "purge",
            r#"{"tileset":"elsewhere"}"#,
        ])
        .await;
    let received = "tilekeep_cluster_messages_total{direction=\"received\",kind=\"purge\"}";
    until("received", async || a.counts(received).await == 1).await;
    assert_eq!(a.events("ignored").await, 12);
    // And it still listens.
    let b = member(&redis.url()).await;
    let session = b.log_in().await;
    b.log_out(&session).await;
    a.refuses(&session).await;
    assert_eq!(a.events("lost").await, 0);
    a.server.stop().await;
    b.server.stop().await;
}

#[tokio::test]
async fn keys_of_another_type_or_of_any_size_stop_nothing() {
    let redis = Redis::start().await;
    let a = member(&redis.url()).await;
    assert_eq!(a.reach().await, "connected");
    let huge = "x".repeat(30 << 20);
    redis.ask(&["XADD", "test:endings", "*", "a", &huge]).await;
    until("lost", async || a.events("lost").await > 0).await;
    redis.ask(&["DEL", "test:endings"]).await;
    a.reaches("connected").await;
    redis.ask(&["DEL", "test:ended", "test:purges"]).await;
    redis.ask(&["SET", "test:purges", "x"]).await;
    redis.ask(&["SET", "test:ended", "x"]).await;
    let b = member(&redis.url()).await;
    assert_eq!(b.reach().await, "away");
    serves(&b).await;
    redis.ask(&["DEL", "test:ended", "test:purges"]).await;
    b.reaches("connected").await;
    a.server.stop().await;
    b.server.stop().await;
}

/// All that is logged on this thread, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_password_is_asked_for_and_stands_in_no_log() {
    let log = Log::default();
    let subscriber = || {
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .finish()
    };
    // With one subscriber alone, a line that another test's thread logs first would count as heard by nobody.
    let _second = tracing::Dispatch::new(subscriber());
    let heard = tracing::subscriber::set_default(subscriber());
    // The rights that the README asks for, and no more.
    let readme = include_str!("../../../README.md");
    let rights = readme.split_once("`+ping").unwrap().1;
    let rights = format!("+ping{}", rights.split_once('`').unwrap().0);
    let mut options = vec!["--user", "default", "off"];
    options.extend(["--user", "tile", "on", ">hunter2", "~test:*"]);
    options.extend(rights.split_ascii_whitespace());
    let mut redis = Redis::start_with(&options, "tile:hunter2@").await;
    let a = member(&redis.url()).await;
    assert_eq!(a.reach().await, "connected");
    let session = a.log_in().await;
    a.log_out(&session).await;
    assert_eq!(
        a.purge(r#"{"tileset":"world"}"#).await.json()["cluster"],
        "sent"
    );
    assert_eq!(a.events("lost").await, 0);
    let wrong = format!("redis://tile:hunter3@127.0.0.1:{}", redis.port());
    let b = member(&wrong).await;
    assert_eq!(b.reach().await, "away");
    redis.kill();
    a.reaches("away").await;
    drop(heard);
    let config = format!("{:?}", meeting(&redis.url()));
    a.server.stop().await;
    b.server.stop().await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("Redis cannot be reached"), "{log}");
    for secret in ["hunter2", "hunter3"] {
        assert!(!log.contains(secret), "{log}");
        assert!(!config.contains(secret), "{config}");
    }
}
