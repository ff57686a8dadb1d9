//! The dashboard on the admin side: its page and files, what it asks for, and who may ask.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::Value;
use tilekeep::config::{Config, SecretValue};
use tilekeep::origin::failing::MemoryOrigin;
use tilekeep::tile::{Scale, TileCoord, TileFormat};

use crate::support::{Answer, Running, config, spec, start};

const TOKEN: &str = "an admin token of a test";
const BEARER: (&str, &str) = ("authorization", "Bearer an admin token of a test");

/// A server whose bucket has every other column of `world` at zooms 0 to 5.
async fn server(change: impl FnOnce(&mut Config)) -> Running {
    let origin = MemoryOrigin::new();
    let mut config = config([
        spec("world", TileFormat::Png),
        spec("values", TileFormat::Png),
    ]);
    let world = config.tilesets[0].tileset.clone();
    for z in 0..=5 {
        for (x, y) in (0..1 << z).flat_map(|x| (0..1 << z).map(move |y| (x, y))) {
            if x % 2 == 0 {
                let coord = TileCoord::new(z, x, y).unwrap();
                let body = format!("{z}/{x}/{y}");
                origin.put(&world, coord, Scale::One, body, None);
            }
        }
    }
    change(&mut config);
    start(config, Arc::new(origin)).await
}

async fn ask(server: &Running, path: &str, headers: &[(&str, &str)]) -> Answer {
    let admin = server.addresses.admin;
    server.send_to(admin, Method::GET, path, headers, "").await
}

/// What a page loads, by its text.
fn files(page: &str) -> Vec<String> {
    let quoted = page.split('"').filter(|text| text.starts_with("/assets/"));
    quoted.map(str::to_owned).collect()
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}

#[tokio::test]
async fn the_page_and_its_files_need_no_token_and_what_they_ask_for_does() {
    let server = server(|config| config.server.admin_token = Some(SecretValue::new(TOKEN))).await;
    let page = ask(&server, "/", &[]).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.header("content-type").starts_with("text/html"));
    let files = files(&text(&page));
    assert_eq!(files.len(), 7, "{files:?}");
    for file in &files {
        let answer = ask(&server, file, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{file}");
        assert!(
            answer.header("cache-control").contains("immutable"),
            "{file}"
        );
    }
    let secret = [
        "/metrics",
        "/cached?tileset=world",
        "/version",
        "/assets/none.js",
    ];
    for path in secret {
        let without = ask(&server, path, &[]).await;
        assert_eq!(without.status, StatusCode::UNAUTHORIZED, "{path}");
        let wrong = [("authorization", "Bearer another token altogether")];
        let wrong = ask(&server, path, &wrong).await;
        assert_eq!(wrong.status, StatusCode::UNAUTHORIZED, "{path}");
        let with = ask(&server, path, &[BEARER]).await;
        let expected = match path {
            "/assets/none.js" => StatusCode::NOT_FOUND,
            _ => StatusCode::OK,
        };
        assert_eq!(with.status, expected, "{path}");
    }
    let map = ask(&server, "/assets/map.js", &[BEARER]).await;
    assert_eq!(map.status, StatusCode::NOT_FOUND);
    server.stop().await;
}

#[tokio::test]
async fn the_page_is_the_same_on_every_server_and_runs_its_own_files_alone() {
    let open = server(|_| ()).await;
    let closed = server(|config| {
        config.server.admin_token = Some(SecretValue::new(TOKEN));
        config.tilesets.pop();
    })
    .await;
    let page = ask(&open, "/", &[]).await;
    assert_eq!(page.body, ask(&closed, "/", &[]).await.body);
    let policy = page.header("content-security-policy");
    for rule in [
        "default-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "connect-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
    ] {
        assert!(policy.contains(rule), "{rule}: {policy}");
    }
    assert!(
        !policy.contains("unsafe") && !policy.contains("http"),
        "{policy}"
    );
    assert_eq!(page.header("cache-control"), "no-store");
    assert_eq!(page.header("x-frame-options"), "DENY");
    assert_eq!(page.header("cross-origin-resource-policy"), "same-origin");
    open.stop().await;
    closed.stop().await;
}

#[tokio::test]
async fn a_page_of_another_site_and_another_host_name_get_none_of_it() {
    let server = server(|_| ()).await;
    let page = text(&ask(&server, "/", &[]).await);
    let mut paths = files(&page);
    paths.extend(["/".into(), "/cached?tileset=world".into()]);
    for path in &paths {
        for site in ["cross-site", "same-site"] {
            let answer = ask(&server, path, &[("sec-fetch-site", site)]).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{site} {path}");
        }
        let rebound = ask(&server, path, &[("host", "evil.example")]).await;
        assert_eq!(rebound.status, StatusCode::BAD_REQUEST, "{path}");
        let own = ask(&server, path, &[("sec-fetch-site", "same-origin")]).await;
        assert_eq!(own.status, StatusCode::OK, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_was_asked_for_is_in_the_grid_and_by_zoom_and_adds_up() {
    let server = server(|_| ()).await;
    let mut asked = 0;
    for x in 0..16 {
        for y in 3..8 {
            server.get(&format!("/world/4/{x}/{y}.png")).await;
            asked += 1;
        }
    }
    for _ in 0..3 {
        let again = server.get("/world/4/2/5.png").await;
        assert!(again.header("cache-status").contains("memory"));
    }
    server.get("/world/1/0/0.png").await;
    let seen = ask(&server, "/cached?tileset=world&zoom=4", &[]).await;
    assert_eq!(seen.status, StatusCode::OK);
    assert_eq!(seen.header("content-type"), "application/json");
    let seen = seen.json();
    assert_eq!(
        (&seen["tileset"], &seen["version"]),
        (&"world".into(), &Value::Null)
    );
    let zooms = seen["memory"]["zooms"].as_array().unwrap();
    assert_eq!(zooms.len(), 2, "{zooms:?}");
    assert_eq!(
        (&zooms[0]["zoom"], &zooms[0]["tiles"]),
        (&1.into(), &1.into())
    );
    assert_eq!(
        (&zooms[1]["tiles"], &zooms[1]["absent"]),
        (&(asked / 2).into(), &(asked / 2).into())
    );
    let grid = &seen["memory"]["grid"];
    assert_eq!((&grid["zoom"], &grid["cell_zoom"]), (&4.into(), &4.into()));
    let cells = grid["cells"].as_array().unwrap();
    let sum = |what: &str| {
        cells
            .iter()
            .map(|cell| cell[what].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(sum("tiles"), asked / 2);
    assert_eq!(zooms[1]["found"], sum("found"));
    let hot = cells
        .iter()
        .find(|cell| cell["x"] == 2 && cell["y"] == 5)
        .unwrap();
    assert_eq!((&hot["tiles"], &hot["found"]), (&1.into(), &3.into()));

    let by_zoom = ask(&server, "/cached?tileset=world", &[]).await.json();
    assert_eq!(by_zoom["memory"]["zooms"], seen["memory"]["zooms"]);
    assert!(by_zoom["memory"].get("grid").is_none());
    let other = ask(&server, "/cached?tileset=values&zoom=4", &[])
        .await
        .json();
    assert_eq!(other["memory"]["zooms"], serde_json::json!([]));
    server.stop().await;
}

#[tokio::test]
async fn without_a_memory_tier_there_is_nothing_to_tell() {
    let server = server(|config| config.cache.memory = 0).await;
    let seen = ask(&server, "/cached?tileset=world&zoom=0", &[]).await;
    assert_eq!(
        (seen.status, &seen.json()["memory"]),
        (StatusCode::OK, &Value::Null)
    );
    server.stop().await;
}

#[tokio::test]
async fn a_question_that_makes_no_sense_is_refused_with_the_parameter_s_name() {
    let server = server(|_| ()).await;
    for (query, named) in [
        ("", "`tileset`"),
        ("?zoom=3", "`tileset`"),
        ("?tileset=world&zoom=x", "`zoom`"),
        ("?tileset=world&zoom=", "`zoom`"),
        ("?tileset=world&zoom=-1", "`zoom`"),
        ("?tileset=world&zoom=6", "`zoom`"),
        ("?tileset=world&zoom=300", "`zoom`"),
        ("?tileset=world&tileset=values", "`tileset`"),
        ("?tileset=world&bbox=1,2,3,4", "`bbox`"),
    ] {
        let answer = ask(&server, &format!("/cached{query}"), &[]).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(named), "{query}: {detail}");
    }
    let unknown = ask(&server, "/cached?tileset=nowhere", &[]).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(text(&unknown).contains("world"), "it says which there are");
    let admin = server.addresses.admin;
    let post = server
        .send_to(admin, Method::POST, "/cached?tileset=world", &[], "")
        .await;
    assert_eq!(
        (post.status, post.header("allow")),
        (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD")
    );
    server.stop().await;
}
