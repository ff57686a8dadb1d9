//! What a request pays for its session: a token seen before, and one seen for the first time.
//!
//! The bound to keep: a known token under 300 ns whatever the algorithm, and no allocation.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use divan::{AllocProfiler, Bencher, black_box};
use tilekeep::auth::{
    Grants, KeyMaterial, KeyRing, KeySettings, QuotaClass, Quotas, Scope, Secret, Session,
    SessionSettings, Sessions, session_tokens_from_cookies,
};
use tilekeep::clock::{Clock, Timestamp};
use tilekeep::tile::{Bounds, KeySpace, Scale, TileAddress, TileCoord, TileKey};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn main() {
    divan::main();
}

#[derive(Debug, Clone, Copy)]
enum Algorithm {
    Hs256,
    EdDsa,
}

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Hs256, Algorithm::EdDsa];

fn keys(algorithm: Algorithm) -> KeyRing {
    let material = match algorithm {
        Algorithm::Hs256 => KeyMaterial::Hs256 {
            secret: Secret::new([7; 32]),
        },
        Algorithm::EdDsa => {
            let pair = Ed25519KeyPair::generate().expect("a key pair");
            let pem = |label: &str, der: &[u8]| {
                let body = STANDARD.encode(der);
                Secret::new(format!(
                    "-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"
                ))
            };
            // SubjectPublicKeyInfo (RFC 8410 §4).
            let prefix = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
            let public = [prefix, pair.public_key().as_ref()].concat();
            let private = pair.to_pkcs8v1().expect("PKCS #8");
            KeyMaterial::Ed25519 {
                public_key: pem("PUBLIC KEY", &public),
                private_key: Some(pem("PRIVATE KEY", private.as_ref())),
            }
        }
    };
    let id = "2026-11".to_owned();
    KeyRing::new(vec![KeySettings { id, material }]).expect("a good key")
}

fn quotas() -> Quotas {
    let viewer = QuotaClass {
        name: "viewer".to_owned(),
        // No bench asks faster.
        requests_per_second: NonZeroU32::new(1_000_000_000),
        burst: NonZeroU32::new(1_000_000_000),
        distinct_tiles_per_hour: NonZeroU32::new(20_000),
        background: false,
    };
    Quotas::new(vec![viewer]).expect("randomness")
}

fn sessions(algorithm: Algorithm) -> Sessions {
    let settings = SessionSettings {
        keys: keys(algorithm),
        ttl: Duration::from_hours(12),
        max_ttl: Duration::from_hours(720),
        revocations: None,
        known_tokens: 16_384,
        quotas: Arc::new(quotas()),
    };
    Sessions::open(settings, NOW).expect("sessions")
}

fn grants() -> Grants {
    Grants {
        tilesets: ["aerial", "countries", "values", "world"]
            .map(str::to_owned)
            .into(),
        scope: Some("tiles explain".to_owned()),
        maxzoom: Some(18),
        bounds: Bounds::new([5.9, 45.8, 10.5, 47.8]).ok(),
        quota: Some("viewer".to_owned()),
    }
}

fn token(sessions: &Sessions) -> String {
    let issued = sessions.begin("ada@example.com", &grants(), NOW);
    issued.expect("a session").token
}

/// Ten thousand known tokens, of which one is asked for.
fn busy(algorithm: Algorithm) -> (Sessions, String) {
    let sessions = sessions(algorithm);
    for _ in 0..10_000 {
        sessions.authorize(token(&sessions), NOW).expect("valid");
    }
    let token = token(&sessions);
    sessions.authorize(&token, NOW).expect("valid");
    (sessions, token)
}

#[divan::bench(args = ALGORITHMS, sample_size = 1000)]
fn known_token(bencher: Bencher, algorithm: Algorithm) {
    let (sessions, token) = busy(algorithm);
    bencher.bench(|| sessions.authorize(black_box(&token), NOW));
}

#[divan::bench(args = ALGORITHMS, threads = [2], sample_size = 1000)]
fn known_token_from_two_threads(bencher: Bencher, algorithm: Algorithm) {
    let (sessions, token) = busy(algorithm);
    bencher.bench(|| sessions.authorize(black_box(&token), NOW));
}

#[divan::bench(sample_size = 1000)]
fn known_token_among_a_thousand_ended_sessions(bencher: Bencher) {
    let (sessions, kept) = busy(Algorithm::Hs256);
    for _ in 0..1_000 {
        let session = sessions.authorize(token(&sessions), NOW).expect("valid");
        let later = NOW + Duration::from_hours(1);
        let ended = sessions
            .revocations()
            .end(session.revocation_id(), later, NOW);
        ended.expect("ended");
    }
    bencher.bench(|| sessions.authorize(black_box(&kept), NOW));
}

#[divan::bench(sample_size = 1000)]
fn known_token_from_a_cookie_header(bencher: Bencher) {
    let (sessions, token) = busy(Algorithm::Hs256);
    let header = format!("theme=dark; __Host-tilekeep_session={token}; lang=en");
    bencher.bench(|| {
        let headers = [black_box(&header).as_bytes()];
        let tokens = session_tokens_from_cookies(headers, "__Host-tilekeep_session");
        sessions.authorize_cookies(&tokens, NOW)
    });
}

/// Two thousand tiles, each asked for before, in turn.
fn seen_tiles(session: &Session) -> Vec<TileKey> {
    let space = KeySpace::new("world", None);
    let uptime = Clock::System.uptime();
    let spender = session.spender().expect("a quota");
    let tile = |x| {
        let coord = TileCoord::new(14, x, 5_000).expect("a tile");
        TileKey::new(space, coord, Scale::One)
    };
    let tiles: Vec<_> = (0..2_000).map(tile).collect();
    for tile in &tiles {
        spender.spend_tile(*tile, uptime).expect("in the budget");
    }
    tiles
}

/// What a quota adds to a tile that was seen: the time, the rate, the table. The bound to keep: 60 ns.
#[divan::bench(sample_size = 1000)]
fn quota_of_a_seen_tile(bencher: Bencher) {
    let (sessions, token) = busy(Algorithm::Hs256);
    let session = sessions.authorize(&token, NOW).expect("valid");
    let tiles = seen_tiles(&session);
    let mut turn = tiles.iter().cycle();
    bencher.bench_local(|| {
        let uptime = Clock::System.uptime();
        let spender = session.spender()?;
        spender.spend_request(uptime).ok()?;
        spender.spend_tile(*black_box(turn.next()?), uptime).ok()
    });
}

/// A known token and a seen tile together.
#[divan::bench(sample_size = 1000)]
fn known_token_and_seen_tile(bencher: Bencher) {
    let (sessions, token) = busy(Algorithm::Hs256);
    let tiles = seen_tiles(&sessions.authorize(&token, NOW).expect("valid"));
    let mut turn = tiles.iter().cycle();
    bencher.bench_local(|| {
        let session = sessions.authorize(black_box(&token), NOW).ok()?;
        let uptime = Clock::System.uptime();
        let spender = session.spender()?;
        spender.spend_request(uptime).ok()?;
        spender.spend_tile(*black_box(turn.next()?), uptime).ok()
    });
}

#[divan::bench(args = ALGORITHMS)]
fn unknown_token(bencher: Bencher, algorithm: Algorithm) {
    let sessions = sessions(algorithm);
    let token = token(&sessions);
    bencher.bench(|| sessions.keys().verify(black_box(&token), NOW));
}

#[divan::bench(sample_size = 1000)]
fn rights_of_a_tile(bencher: Bencher) {
    let sessions = sessions(Algorithm::Hs256);
    let session: Arc<Session> = sessions.authorize(token(&sessions), NOW).expect("valid");
    let tile = TileAddress {
        z: 12,
        x: 2_144,
        y: 1_434,
        scale: Scale::One,
    };
    bencher.bench(|| session.permits(black_box("world"), black_box(tile), Scope::Tiles));
}
