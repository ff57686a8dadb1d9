//! The exchange of other issuers' JWTs for sessions: who gets in, with what, and who does not.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tilekeep::auth::ClaimName;
use tilekeep::config::{IssuerKeySource, LoginGrants, LoginIssuer, SecretValue, WebOrigin};
use tilekeep::origin::failing::MemoryOrigin;
use tilekeep::tile::{Scale, TileCoord, TileFormat};

use crate::issuer_keys::{Pair, Publisher, set};
use crate::support::{self, Answer, Running, START, claims, config, spec, tileset, token};

const ISSUER: &str = "https://id.example.com";
const APP: &str = "https://app.example.com";
const SECRET: &str = "a secret that the application and the server share";

const HOUR: Duration = Duration::from_hours(1);

fn issuer(issuer: &str, keys: IssuerKeySource, trust_claims: &[ClaimName]) -> LoginIssuer {
    LoginIssuer {
        issuer: issuer.to_owned(),
        audience: "tiles".to_owned(),
        keys,
        grants: LoginGrants {
            tilesets: vec!["world".to_owned()],
            scope: Some("tiles".to_owned()),
            ..LoginGrants::default()
        },
        trust_claims: trust_claims.to_vec(),
    }
}

async fn server(issuers: Vec<LoginIssuer>) -> Running {
    let memory = MemoryOrigin::new();
    let specs = ["world", "secret"].map(|name| spec(name, TileFormat::Png));
    for spec in &specs {
        let (tileset, at) = (tileset(spec.clone()), TileCoord::new(0, 0, 0).unwrap());
        memory.put(&tileset, at, Scale::One, "tile", None);
    }
    let mut config = config(specs);
    config.server.cors_origins = vec![WebOrigin::parse(APP).unwrap()];
    // So that a test can come from many addresses.
    config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    config.login.issuers = issuers;
    support::start(config, Arc::new(memory)).await
}

async fn with_keys(publisher: &Publisher) -> Running {
    let keys = IssuerKeySource::JwksUrl(publisher.url.clone());
    server(vec![issuer(ISSUER, keys, &[])]).await
}

async fn with_secret(trust_claims: &[ClaimName]) -> Running {
    let keys = IssuerKeySource::Secret(SecretValue::new(SECRET));
    server(vec![issuer(ISSUER, keys, trust_claims)]).await
}

async fn exchange_with(server: &Running, jwt: &str, headers: &[(&str, &str)]) -> Answer {
    let bearer = format!("Bearer {jwt}");
    let mut all = vec![("authorization", bearer.as_str())];
    all.extend_from_slice(headers);
    server.send(Method::POST, "/session", &all, "").await
}

async fn exchange(server: &Running, jwt: &str) -> Answer {
    exchange_with(server, jwt, &[]).await
}

fn person() -> Value {
    json!({
        "iss": ISSUER, "sub": "grace", "aud": "tiles",
        "exp": START.secs() + 48 * 3600, "iat": START.secs(),
    })
}

fn person_with(name: &str, value: Value) -> Value {
    let mut person = person();
    person[name] = value;
    person
}

/// Signed with the shared secret, under any header.
fn made(header: &Value, payload: &Value, secret: &[u8]) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encode(header), encode(payload));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn shared(payload: &Value) -> String {
    made(&json!({"alg": "HS256"}), payload, SECRET.as_bytes())
}

fn cookie(answer: &Answer) -> String {
    let set = answer.header("set-cookie");
    set.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn an_issuers_token_becomes_a_session_that_opens_tiles() {
    let pairs = [Pair::rsa("r"), Pair::p256("e"), Pair::ed25519("d")];
    let publisher = Publisher::start(set(&[&pairs[0], &pairs[1], &pairs[2]])).await;
    let server = with_keys(&publisher).await;
    for pair in &pairs {
        let session = exchange(&server, &pair.sign(&person())).await;
        assert_eq!(session.status, StatusCode::OK, "{:?}", pair.algorithm);
        assert_eq!(session.json()["sub"], "grace");
        assert_eq!(session.json()["tilesets"], json!(["world"]));
        assert!(session.header("set-cookie").contains("; HttpOnly"));
        let cookie = cookie(&session);
        let with_it = [("cookie", cookie.as_str())];
        let get = |path| server.send(Method::GET, path, &with_it, "");
        assert_eq!(get("/world/0/0/0.png").await.status, StatusCode::OK);
        let other = get("/secret/0/0/0.png").await;
        assert_eq!(other.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(publisher.hits(), 1, "fetched once, ahead of the first");
    server.stop().await;
}

#[tokio::test]
async fn an_application_that_shares_a_secret_needs_no_key_set() {
    let server = with_secret(&[]).await;
    for payload in [person(), person_with("aud", json!(["other", "tiles"]))] {
        let session = exchange(&server, &shared(&payload)).await;
        assert_eq!(session.status, StatusCode::OK);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_issuers_token_itself_opens_no_tile() {
    let server = with_secret(&[]).await;
    let jwt = shared(&person_with("tilesets", json!(["*"])));
    let bearer = format!("Bearer {jwt}");
    let in_cookie = format!("tilekeep_session={jwt}");
    for header in [("authorization", bearer.as_str()), ("cookie", &in_cookie)] {
        for path in ["/world/0/0/0.png", "/session"] {
            let answer = server.send(Method::GET, path, &[header], "").await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_session_token_of_ours_is_not_exchanged() {
    let server = with_secret(&[]).await;
    let ours = exchange(&server, &shared(&person())).await;
    let cookie = cookie(&ours);
    let own = cookie.split_once('=').unwrap().1;
    for jwt in [own, &token(&claims())] {
        let answer = exchange(&server, jwt).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_public_key_is_never_a_secret_and_no_algorithm_no_signature() {
    let pair = Pair::rsa("r");
    let publisher = Publisher::start(set(&[&pair])).await;
    let server = with_keys(&publisher).await;
    let jwk = pair.jwk();
    let n = jwk["n"].as_str().unwrap();
    let secrets = [
        n.as_bytes().to_vec(),
        URL_SAFE_NO_PAD.decode(n).unwrap(),
        jwk.to_string().into_bytes(),
        set(&[&pair]).into_bytes(),
        Vec::new(),
    ];
    for secret in secrets {
        for alg in ["HS256", "RS256", "none", "None", ""] {
            for kid in [json!("r"), json!(null)] {
                let jwt = made(&json!({"alg": alg, "kid": kid}), &person(), &secret);
                let unsigned = format!("{}.", jwt.rsplit_once('.').unwrap().0);
                for jwt in [jwt, unsigned] {
                    let forwarded = format!("10.{}.{}.1", secret.len() % 256, alg.len());
                    let from = [("x-forwarded-for", forwarded.as_str())];
                    let answer = exchange_with(&server, &jwt, &from).await;
                    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{alg} {kid}");
                }
            }
        }
    }
    // Another algorithm of the key's kind: only where the issuer has not said which it is.
    let pss = pair.sign_as(Algorithm::PS256, Some("r"), "JWT", &person());
    assert_eq!(exchange(&server, &pss).await.status, 401);
    let mut unsaid = pair.jwk();
    unsaid.as_object_mut().unwrap().remove("alg");
    publisher.publish(json!({ "keys": [unsaid] }).to_string());
    server.clock.advance(HOUR);
    assert_eq!(exchange(&server, &pss).await.status, 200);
    server.stop().await;
    let server = with_secret(&[]).await;
    let jwt = pair.sign(&person());
    assert_eq!(
        exchange(&server, &jwt).await.status,
        StatusCode::UNAUTHORIZED
    );
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_meant_for_us_or_not_in_time_is_refused() {
    let server = with_secret(&[]).await;
    let now = START.secs();
    let refused = [
        person_with("aud", json!("other")),
        person_with("aud", json!(["other"])),
        person_with("aud", json!([])),
        person_with("aud", json!(null)),
        person_with("iss", json!("https://id.example.com/")),
        person_with("iss", json!("tilekeep")),
        person_with("iss", json!(7)),
        person_with("exp", json!(now - 31)),
        person_with("exp", json!(null)),
        person_with("nbf", json!(now + 31)),
        person_with("sub", json!("")),
        person_with("sub", json!(null)),
        person_with("sub", json!("x".repeat(257))),
        person_with("sub", json!("a\nb")),
        person_with(
            "events",
            json!({"http://schemas.openid.net/event/backchannel-logout": {}}),
        ),
        person_with("cnf", json!({"jkt": "x"})),
    ];
    for (n, payload) in refused.iter().enumerate() {
        let from = format!("10.0.0.{n}");
        let from = [("x-forwarded-for", from.as_str())];
        let answer = exchange_with(&server, &shared(payload), &from).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{payload}");
        assert!(answer.header("www-authenticate").contains("invalid_token"));
        assert!(answer.headers.get("set-cookie").is_none());
    }
    let padded = person_with("picture", json!("x".repeat(13_000)));
    for (header, payload) in [
        (json!({"alg": "HS256", "typ": "logout+jwt"}), person()),
        (
            json!({"alg": "HS256", "crit": ["b64"], "b64": false}),
            person(),
        ),
        (json!({"alg": "HS384"}), person()),
        (json!({"alg": "HS256"}), padded),
    ] {
        let jwt = made(&header, &payload, SECRET.as_bytes());
        let from = [("x-forwarded-for", "10.0.1.1")];
        let answer = exchange_with(&server, &jwt, &from).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{header}");
    }
    // Clocks differ a little.
    for payload in [
        person_with("exp", json!(now - 29)),
        person_with("nbf", json!(now + 29)),
    ] {
        let answer = exchange(&server, &shared(&payload)).await;
        assert_eq!(answer.status, StatusCode::OK, "{payload}");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_issuer_grants_what_it_is_trusted_with_and_nothing_else() {
    let mut greedy = person_with("tilesets", json!(["*"]));
    greedy["scope"] = json!("tiles sign credentials explain");
    greedy["maxzoom"] = json!(30);
    greedy["quota"] = json!("unlimited");
    greedy["sid"] = json!("of our own making");
    let server = with_secret(&[]).await;
    let session = exchange(&server, &shared(&greedy)).await.json();
    assert_eq!(session["tilesets"], json!(["world"]));
    assert_eq!(session["scope"], "tiles");
    assert_eq!(session["quota"], json!(null));
    server.stop().await;

    let server = with_secret(&[ClaimName::Tilesets]).await;
    let session = exchange(&server, &shared(&greedy)).await.json();
    assert_eq!(session["tilesets"], json!(["*"]));
    assert_eq!(session["scope"], "tiles");
    let unreadable = shared(&person_with("tilesets", json!("*")));
    let answer = exchange(&server, &unreadable).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    // More names than a cookie carries.
    let names: Vec<_> = (0..600).map(|n| format!("tileset-{n}")).collect();
    let answer = exchange(&server, &shared(&person_with("tilesets", json!(names)))).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    server.stop().await;
}

#[tokio::test]
async fn the_longest_session_counts_from_the_log_in_at_the_issuer() {
    let server = with_secret(&[]).await;
    let now = START.secs();
    let days = |days: u64| json!(now - days * 86_400);
    let session = exchange(&server, &shared(&person_with("auth_time", days(3)))).await;
    assert_eq!(session.json()["auth_time"], days(3));
    assert_eq!(session.json()["exp"], now + 12 * 3600, "the usual `ttl`");
    let almost = json!(now - 30 * 86_400 + 60);
    let session = exchange(&server, &shared(&person_with("auth_time", almost))).await;
    assert_eq!(session.json()["exp"], now + 60);
    let old = exchange(&server, &shared(&person_with("auth_time", days(30)))).await;
    assert_eq!(old.status, StatusCode::UNAUTHORIZED);
    let ahead = person_with("auth_time", json!(now + 86_400));
    let session = exchange(&server, &shared(&ahead)).await;
    assert_eq!(session.json()["auth_time"], now);
    server.stop().await;
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it_and_an_old_one_goes() {
    let (old, new) = (Pair::p256("old"), Pair::p256("new"));
    let publisher = Publisher::start(set(&[&old])).await;
    let server = with_keys(&publisher).await;
    assert_eq!(exchange(&server, &old.sign(&person())).await.status, 200);
    publisher.publish(set(&[&new]));
    server.clock.advance(Duration::from_secs(31));
    assert_eq!(exchange(&server, &new.sign(&person())).await.status, 200);
    assert_eq!(publisher.hits(), 2);
    server.clock.advance(Duration::from_secs(31));
    assert_eq!(exchange(&server, &old.sign(&person())).await.status, 401);
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_unknown_keys_is_no_flood_of_fetches() {
    let (known, unknown) = (Pair::p256("known"), Pair::p256("unknown"));
    let publisher = Publisher::start(set(&[&known])).await;
    let server = with_keys(&publisher).await;
    exchange(&server, &known.sign(&person())).await;
    server.clock.advance(Duration::from_secs(31));
    let before = publisher.hits();
    let flood = (0..60).map(|n| {
        let kid = format!("unknown {n}");
        let jwt = unknown.sign_as(Algorithm::ES256, Some(&kid), "JWT", &person());
        let from = format!("10.1.0.{n}");
        let server = &server;
        async move { exchange_with(server, &jwt, &[("x-forwarded-for", &from)]).await }
    });
    for answer in futures_of(flood).await {
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(publisher.hits() - before, 1);
    // Who has a right token is not held up by it.
    assert_eq!(exchange(&server, &known.sign(&person())).await.status, 200);
    server.stop().await;
}

/// All of them at one time.
async fn futures_of<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn an_outage_of_the_issuer_locks_nobody_out_for_a_day() {
    let pair = Pair::p256("a");
    let publisher = Publisher::start(set(&[&pair])).await;
    let server = with_keys(&publisher).await;
    let jwt = pair.sign(&person());
    assert_eq!(exchange(&server, &jwt).await.status, StatusCode::OK);
    publisher.answers_with(500);
    server.clock.advance(HOUR * 2);
    assert_eq!(exchange(&server, &jwt).await.status, StatusCode::OK);
    let tried = publisher.hits();
    assert_eq!(tried, 2, "it was asked");
    assert_eq!(exchange(&server, &jwt).await.status, StatusCode::OK);
    assert_eq!(publisher.hits(), tried, "and not again at once");
    server.clock.advance(HOUR * 21);
    assert_eq!(exchange(&server, &jwt).await.status, StatusCode::OK);
    server.clock.advance(HOUR * 2);
    let answer = exchange(&server, &jwt).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!answer.header("retry-after").is_empty());
    publisher.answers_with(200);
    server.clock.advance(Duration::from_secs(31));
    assert_eq!(exchange(&server, &jwt).await.status, StatusCode::OK);
    server.stop().await;
}

#[tokio::test]
async fn a_server_starts_without_its_issuer_and_finds_it_later() {
    let pair = Pair::p256("a");
    let publisher = Publisher::start(set(&[&pair])).await;
    let jwt = pair.sign(&person());
    let too_large = json!({"keys": [pair.jwk()], "x": "x".repeat(300 * 1024)}).to_string();
    for (status, document) in [
        (500, set(&[&pair])),
        (302, set(&[&pair])),
        (200, too_large),
        (200, "<html>".to_owned()),
        (200, json!({"keys": []}).to_string()),
    ] {
        publisher.answers_with(status);
        publisher.publish(document);
        let server = with_keys(&publisher).await;
        let answer = exchange(&server, &jwt).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{status}");
        assert!(!answer.header("retry-after").is_empty());
        assert_eq!(server.get("/world/0/0/0.png").await.status, StatusCode::OK);
        publisher.answers_with(200);
        publisher.publish(set(&[&pair]));
        server.clock.advance(Duration::from_secs(6));
        assert_eq!(exchange(&server, &jwt).await.status, StatusCode::OK);
        server.stop().await;
    }
}

#[tokio::test]
async fn keys_that_come_over_a_line_that_cannot_be_trusted_are_not_taken() {
    let pair = Pair::p256("a");
    let publisher = Publisher::start(set(&[&pair])).await;
    // There is no TLS at that address.
    let url = publisher.url.replace("http://", "https://");
    let keys = IssuerKeySource::JwksUrl(url);
    let server = server(vec![issuer(ISSUER, keys, &[])]).await;
    let answer = exchange(&server, &pair.sign(&person())).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(publisher.hits(), 0);
    server.stop().await;
}

#[tokio::test]
async fn a_page_of_another_site_exchanges_nothing() {
    let server = with_secret(&[]).await;
    let jwt = shared(&person());
    let hostile: [&[(&str, &str)]; 5] = [
        &[
            ("sec-fetch-site", "cross-site"),
            ("origin", "https://evil.example"),
        ],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        // A cookie, and nothing that says who asks: no browser of today, and no program.
        &[("cookie", "a=b")],
    ];
    for headers in hostile {
        let answer = exchange_with(&server, &jwt, headers).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{headers:?}");
    }
    let welcome: [&[(&str, &str)]; 3] = [
        &[],
        &[("sec-fetch-site", "same-origin"), ("cookie", "a=b")],
        &[("sec-fetch-site", "cross-site"), ("origin", APP)],
    ];
    for headers in welcome {
        let answer = exchange_with(&server, &jwt, headers).await;
        assert_eq!(answer.status, StatusCode::OK, "{headers:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn failures_are_counted_by_address_and_successes_are_not() {
    let server = with_secret(&[]).await;
    let (right, wrong) = (
        shared(&person()),
        shared(&person_with("aud", json!("other"))),
    );
    for _ in 0..30 {
        assert_eq!(exchange(&server, &right).await.status, StatusCode::OK);
    }
    let mut last = StatusCode::OK;
    for _ in 0..21 {
        last = exchange(&server, &wrong).await.status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    let held = exchange(&server, &right).await;
    assert_eq!(held.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(!held.header("retry-after").is_empty());
    let elsewhere = [("x-forwarded-for", "10.2.3.4")];
    let answer = exchange_with(&server, &right, &elsewhere).await;
    assert_eq!(answer.status, StatusCode::OK);
    // The same count as at passwords.
    let body = json!({"username": "anna", "password": "secret"}).to_string();
    let json = [("content-type", "application/json")];
    let by_password = server.send(Method::POST, "/session", &json, body).await;
    assert_eq!(by_password.status, StatusCode::TOO_MANY_REQUESTS);
    server.stop().await;
}

#[tokio::test]
async fn an_exchange_as_somebody_else_ends_the_session_before() {
    let server = with_secret(&[]).await;
    let first = cookie(&exchange(&server, &shared(&person())).await);
    let same_origin = [("sec-fetch-site", "same-origin"), ("cookie", &first)];
    let again = exchange_with(&server, &shared(&person()), &same_origin).await;
    assert!(again.headers.get("clear-site-data").is_none());
    let other = shared(&person_with("sub", json!("alan")));
    let answer = exchange_with(&server, &other, &same_origin).await;
    assert_eq!(answer.header("clear-site-data"), "\"cache\"");
    let shown = server
        .send(Method::GET, "/session", &[("cookie", &first)], "")
        .await;
    assert_eq!(shown.status, StatusCode::UNAUTHORIZED);
    server.stop().await;
}

#[tokio::test]
async fn a_password_goes_before_a_bearer_that_a_proxy_put_there() {
    let server = with_secret(&[]).await;
    let body = json!({"username": "anna", "password": "secret"}).to_string();
    let headers = [
        ("content-type", "application/json"),
        ("authorization", "Bearer of.some.proxy"),
    ];
    let answer = server.send(Method::POST, "/session", &headers, body).await;
    assert_eq!(answer.json()["sub"], "anna");
    let empty = server.send(Method::POST, "/session", &headers, "{}").await;
    assert_eq!(empty.status, StatusCode::UNAUTHORIZED);
    server.stop().await;
}
