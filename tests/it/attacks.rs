//! The web's attacks, each tried against a running server.
//!
//! | attack | where |
//! | --- | --- |
//! | a page of another site logs in, out, renews | `csrf`, and `sessions` |
//! | a page posts to the admin side, directly and by DNS rebinding | `csrf` |
//! | `Secure` and `__Host-` behind a TLS proxy, forged proxy headers, hosts that poison TileJSON | `hosts` |
//! | open redirect, header injection, odd request targets, pages' policies | `answers` |
//! | session fixation, planted, duplicate and oversized cookies | `cookies` |
//! | a shared cache in front that crosses users | `shared_cache` |
//! | tokens and passwords in logs, errors and URLs, the time that a log-in takes | `secrets` |
//! | heads and bodies that are no HTTP, stalled and greedy connections, floods | `wire`, `hostile` |

use std::sync::Arc;

use http::Method;
use tilekeep::auth::Claims;
use tilekeep::config::{Config, WebOrigin};
use tilekeep::origin::failing::MemoryOrigin;
use tilekeep::tile::{Access, Scale, TileCoord, TileFormat};

use crate::support::{self, Answer, Running, config, spec, tileset};

mod answers;
mod cookies;
mod csrf;
mod hosts;
mod secrets;
mod shared_cache;

const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("content-type", "application/json");
/// An origin that is listed in `cors_origins`.
const APP: &str = "https://app.example.com";
const TILE: &str = "/world/0/0/0.png";

/// A server with a tileset for sessions, another one, and one for everybody.
async fn server() -> Running {
    server_with(|_| {}).await
}

async fn server_with(change: impl FnOnce(&mut Config)) -> Running {
    let mut open = spec("open", TileFormat::Png);
    open.access = Access::Public;
    let specs = [
        spec("world", TileFormat::Png),
        spec("other", TileFormat::Png),
        open,
    ];
    let memory = MemoryOrigin::new();
    for spec in &specs {
        let tile = format!("tile of {}", spec.name);
        let place = TileCoord::new(0, 0, 0).unwrap();
        memory.put(&tileset(spec.clone()), place, Scale::One, tile, None);
    }
    let mut config = config(specs);
    config.server.cors_origins = vec![WebOrigin::parse(APP).unwrap()];
    change(&mut config);
    support::start(config, Arc::new(memory)).await
}

async fn log_in(server: &Running, user: &str, password: &str, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![JSON];
    all.extend_from_slice(headers);
    let body = serde_json::json!({ "username": user, "password": password }).to_string();
    server.send(Method::POST, "/session", &all, body).await
}

/// The cookie that an answer sets, as a browser sends it back.
fn cookie(answer: &Answer) -> String {
    let set = answer.header("set-cookie");
    set.split(';').next().unwrap().to_owned()
}

/// Claims for one tileset.
fn only(name: &str) -> Claims {
    Claims {
        sub: format!("who sees {name}"),
        tilesets: vec![name.to_owned()],
        ..support::claims()
    }
}
