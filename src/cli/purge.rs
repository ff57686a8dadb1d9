//! `tilekeep purge`: drops tiles from a running server's caches.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Failure, block_on, print};
use crate::cluster::Handed;
use crate::http::purge::{MAX_TILES, PurgeReport, PurgeRequest};

/// The environment variable with the admin token.
const TOKEN: &str = "TILEKEEP_ADMIN_TOKEN";

/// For connecting and for the whole: a purge looks at every entry.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_mins(2);

/// Drop tiles from a running server's caches.
///
/// By tileset, and within it by zoom, area or list: everything that fits all that is said. In effect on that
/// server when the command ends. Browsers keep what they have until its `max-age` is over.
#[derive(Debug, Args)]
// Here `--version` is the tileset's.
#[command(disable_version_flag = true)]
#[command(after_help = "\
Examples:
  tilekeep purge --tileset world
  tilekeep purge --tileset world --zoom 10-14 --bbox 5.9,45.8,10.5,47.8
  tilekeep purge --tileset world --tiles changed.txt --soft
  TILEKEEP_ADMIN_TOKEN=… tilekeep purge --admin http://10.0.0.5:9090 --tileset world

A list has a z/x/y on each line.")]
pub(super) struct PurgeArgs {
    /// The server's admin side.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    admin: Uri,

    /// The tileset.
    #[arg(long, value_name = "NAME")]
    tileset: String,

    /// Of this version instead of the current one.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,

    /// A zoom or a range of zooms, like 12 or 0-12.
    #[arg(long, value_name = "ZOOMS", value_parser = zooms)]
    zoom: Option<(u8, u8)>,

    /// Tiles that touch this area: west, south, east, north in degrees.
    #[arg(long, value_name = "W,S,E,N", value_parser = bbox, allow_hyphen_values = true)]
    bbox: Option<[f64; 4]>,

    /// The tiles in this file, a z/x/y on each line; - for standard input.
    #[arg(long, value_name = "FILE")]
    tiles: Option<PathBuf>,

    /// Mark stale instead of dropping: tiles stay usable until they are revalidated.
    #[arg(long)]
    soft: bool,

    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: PurgeArgs) -> Result<(), Failure> {
    let tiles = args.tiles.as_deref().map(read_tiles).transpose()?;
    let request = PurgeRequest {
        tileset: args.tileset,
        version: args.version,
        minzoom: args.zoom.map(|(min, _)| min),
        maxzoom: args.zoom.map(|(_, max)| max),
        bbox: args.bbox,
        tiles,
        soft: args.soft,
    };
    let report = block_on(send(&args.admin, &request))??;
    if args.json {
        print(&serde_json::to_string(&report).unwrap_or_default())?;
    } else {
        let done = if request.soft {
            "marked stale"
        } else {
            "dropped"
        };
        let others = match report.cluster {
            Some(Handed::Sent) => "; the other nodes were told",
            Some(Handed::Unreachable) | None => "",
        };
        print(&format!(
            "{done}: {} in memory, {} on disk{others}",
            report.memory, report.disk
        ))?;
    }
    match report.cluster {
        Some(Handed::Unreachable) => Err(Failure::Failed(
            "the other nodes were not told: this node does not reach its Redis. Purge again when it is back, or \
             purge each node by its own --admin"
                .to_owned(),
        )),
        Some(Handed::Sent) | None => Ok(()),
    }
}

fn read_tiles(path: &std::path::Path) -> Result<Vec<String>, Failure> {
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
    let tiles: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    if tiles.len() > MAX_TILES {
        let many = tiles.len();
        return Err(Failure::Usage(format!(
            "{}: {many} tiles, and one purge takes {MAX_TILES}: split the file, or purge an area",
            path.display()
        )));
    }
    Ok(tiles)
}

async fn send(admin: &Uri, purge: &PurgeRequest) -> Result<PurgeReport, Failure> {
    let (Some("http"), Some(authority)) = (admin.scheme_str(), admin.authority()) else {
        return Err(Failure::Usage(
            "--admin: an address like http://127.0.0.1:9090; the admin side speaks plain HTTP"
                .to_owned(),
        ));
    };
    // The address is printed with every error and sent as `Host`: no place for a password.
    if authority.as_str().contains('@') {
        return Err(Failure::Usage(format!(
            "--admin: leave user and password out of the address, like http://{}; the admin side takes the \
             server's `admin_token`: put it into {TOKEN}",
            authority.as_str().rsplit('@').next().unwrap_or_default()
        )));
    }
    let address = format!(
        "{}:{}",
        authority.host(),
        authority.port_u16().unwrap_or(80)
    );
    let unreachable = |what: &dyn std::fmt::Display| {
        Failure::Failed(format!(
            "{admin}: {what}; is that the server's `admin_listen`?"
        ))
    };
    let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(&address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(&error)),
        Err(_) => return Err(unreachable(&"no answer")),
    };
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| unreachable(&error))?;
    tokio::spawn(connection);

    let mut request = Request::post("/purge")
        .header(HOST, authority.as_str())
        .header(CONTENT_TYPE, "application/json");
    if let Ok(token) = std::env::var(TOKEN) {
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
    }
    let body = serde_json::to_vec(purge).map_err(|error| Failure::failed(&error))?;
    let request = request
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| Failure::Usage(format!("{TOKEN}: not a token that a header can carry")))?;
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| Failure::failed(&e))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, 64 * 1024).collect().await;
        let body = body.map_err(|e| Failure::Failed(e.to_string()))?.to_bytes();
        Ok::<_, Failure>((head.status, body))
    };
    let (status, body) = timeout(TIMEOUT, answer)
        .await
        .map_err(|_| Failure::Failed(format!("{admin}: no answer within {TIMEOUT:?}")))??;
    match status {
        StatusCode::OK => serde_json::from_slice(&body).map_err(|error| Failure::failed(&error)),
        StatusCode::UNAUTHORIZED => Err(Failure::Failed(format!(
            "{admin}: it asks for a token: put the server's `admin_token` into {TOKEN}"
        ))),
        _ => {
            let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let detail = problem["detail"].as_str().unwrap_or("no reason given");
            Err(Failure::Failed(format!("{admin}: {status}: {detail}")))
        }
    }
}

pub(super) fn zooms(text: &str) -> Result<(u8, u8), String> {
    let (min, max) = text.split_once('-').unwrap_or((text, text));
    let zoom = |text: &str| {
        text.parse::<u8>()
            .map_err(|_| "a zoom like 12, or a range like 0-12".to_owned())
    };
    let (min, max) = (zoom(min)?, zoom(max)?);
    if min > max {
        return Err("the first zoom is above the second".to_owned());
    }
    Ok((min, max))
}

fn bbox(text: &str) -> Result<[f64; 4], String> {
    let numbers: Result<Vec<f64>, _> = text.split(',').map(|n| n.trim().parse()).collect();
    let numbers: Option<[f64; 4]> = numbers.ok().and_then(|numbers| numbers.try_into().ok());
    let bbox = numbers.ok_or("four numbers: west,south,east,north")?;
    crate::tile::Bounds::new(bbox).map_err(|error| error.to_string())?;
    Ok(bbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_in_the_address_is_refused_unsent_and_unrepeated() {
        let admin = Uri::from_static("http://anna:hunter2@127.0.0.1:1/");
        let Err(Failure::Usage(text)) = send(&admin, &PurgeRequest::default()).await else {
            panic!("wrong usage");
        };
        assert!(
            text.contains("like http://127.0.0.1:1;") && text.contains(TOKEN),
            "{text}"
        );
        assert!(
            !text.contains("hunter2") && !text.contains("anna"),
            "{text}"
        );
    }

    #[test]
    fn zooms_and_areas_are_read() {
        assert_eq!(zooms("7"), Ok((7, 7)));
        assert_eq!(zooms("0-12"), Ok((0, 12)));
        assert!(zooms("12-0").is_err() && zooms("a").is_err() && zooms("-3").is_err());
        assert_eq!(bbox("-10, -5,10,5.5"), Ok([-10.0, -5.0, 10.0, 5.5]));
        assert!(bbox("1,2,3").is_err() && bbox("0,9,1,1").is_err());
    }
}
