//! Cookies that somebody else planted, or that there are too many of.

use http::{Method, StatusCode};

use super::{SAME, TILE, cookie, log_in, only, server, server_with};
use crate::support::{claims, token};

#[tokio::test]
async fn a_log_in_never_goes_on_with_a_session_that_was_there() {
    let server = server().await;
    // Planted by a neighbour, who knows it: dead, made up, or a valid one of their own.
    let own = format!("tilekeep_session={}", token(&only("other")));
    for planted in ["tilekeep_session=fixed", "tilekeep_session=", own.as_str()] {
        let answer = log_in(&server, "anna", "secret", &[SAME, ("cookie", planted)]).await;
        assert_eq!(answer.status, StatusCode::OK);
        let fresh = cookie(&answer);
        assert_ne!(fresh, planted);
        assert_eq!(answer.json()["sub"], "anna");
        assert_eq!(answer.json()["tilesets"], serde_json::json!(["*"]));
    }
    let first = cookie(&log_in(&server, "anna", "secret", &[]).await);
    let second = cookie(&log_in(&server, "anna", "secret", &[SAME, ("cookie", &first)]).await);
    assert_ne!(first, second, "a log-in is a new session each time");
    // The planted session was another person's on this browser: it ended with the log-in.
    let ended = server
        .send(Method::GET, "/session", &[("cookie", &own)], "")
        .await;
    assert_eq!(ended.status, StatusCode::UNAUTHORIZED);
    server.stop().await;
}

#[tokio::test]
async fn a_planted_cookie_beside_the_own_one_locks_nobody_out() {
    let server = server().await;
    let own = cookie(&log_in(&server, "anna", "secret", &[]).await);
    let long = format!("tilekeep_session={}", "x".repeat(5000));
    for planted in [
        "tilekeep_session=junk",
        "tilekeep_session=a.b.c; tilekeep_session=\"\"",
        &long,
    ] {
        for both in [format!("{planted}; {own}"), format!("{own}; {planted}")] {
            let answer = server
                .send(Method::GET, TILE, &[("cookie", &both)], "")
                .await;
            assert_eq!(
                answer.status,
                StatusCode::OK,
                "{}",
                &planted[..30.min(planted.len())]
            );
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_sister_domains_cookie_has_no_name_that_counts() {
    let https = |config: &mut tilekeep::config::Config| {
        let url = "https://tiles.example.com";
        config.server.public_url = Some(tilekeep::config::WebOrigin::parse(url).unwrap());
    };
    let server = server_with(https).await;
    let set = log_in(&server, "anna", "secret", &[]).await;
    let set = set.header("set-cookie");
    assert!(set.starts_with("__Host-tilekeep_session="), "{set}");
    assert!(set.contains("; Secure") && !set.contains("Domain"), "{set}");
    // What a browser lets a sister set is the plain name, which is not read here, valid or not.
    let valid = token(&claims());
    for name in [
        "tilekeep_session",
        "__host-tilekeep_session",
        "__Secure-tilekeep_session",
        "\"__Host-tilekeep_session\"",
    ] {
        let tossed = format!("{name}={valid}");
        let answer = server
            .send(Method::GET, TILE, &[("cookie", &tossed)], "")
            .await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{name:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_log_out_ends_every_session_that_the_request_carries() {
    let server = server().await;
    let first = cookie(&log_in(&server, "anna", "secret", &[]).await);
    let second = cookie(&log_in(&server, "anna", "secret", &[]).await);
    let third = token(&claims());
    let both = format!("{first}; tilekeep_session=junk; {second}");
    let bearer = format!("Bearer {third}");
    let headers = [("cookie", both.as_str()), ("authorization", &bearer), SAME];
    let answer = server.send(Method::DELETE, "/session", &headers, "").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    for carried in [first, second, format!("tilekeep_session={third}")] {
        let after = server
            .send(Method::GET, "/session", &[("cookie", &carried)], "")
            .await;
        assert_eq!(after.status, StatusCode::UNAUTHORIZED);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_bearer_that_logs_out_elsewhere_takes_no_cookie_along() {
    let server = server().await;
    let cookie = cookie(&log_in(&server, "anna", "secret", &[]).await);
    let bearer = format!("Bearer {}", token(&only("other")));
    let elsewhere = [
        ("cookie", cookie.as_str()),
        ("authorization", &bearer),
        ("sec-fetch-site", "cross-site"),
    ];
    server
        .send(Method::DELETE, "/session", &elsewhere, "")
        .await;
    let kept = server
        .send(Method::GET, "/session", &[("cookie", &cookie)], "")
        .await;
    assert_eq!(kept.status, StatusCode::OK);
    server.stop().await;
}

#[tokio::test]
async fn more_cookies_than_a_head_may_have_are_refused_and_the_server_goes_on() {
    let server = server().await;
    let many = (0..3000)
        .map(|n| format!("tilekeep_session={n:010}"))
        .collect::<Vec<_>>()
        .join("; ");
    let answer = server
        .send(Method::GET, TILE, &[("cookie", &many)], "")
        .await;
    assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let some = many[..20_000].to_owned();
    let answer = server
        .send(Method::GET, TILE, &[("cookie", &some)], "")
        .await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.get(TILE).await.status, StatusCode::OK);
    server.stop().await;
}
