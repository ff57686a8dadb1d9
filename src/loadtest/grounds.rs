//! Which tilesets there are and where their tiles lie, as a map learns it: from the list and the TileJSON.
//!
//! Invariant: of a tile's URL only path and query are taken. Whatever host a TileJSON names, the token goes to
//! the server that was named on the command line and to no other.

use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use serde_json::Value;

use super::view::Ground;
use crate::client::{ClientError, Connection, Credential};
use crate::tile::{Bounds, MAX_ZOOM};

const DEADLINE: Duration = Duration::from_secs(30);
/// More than any list or TileJSON has.
const MAX_BODY: usize = 4 << 20;

/// Why nothing is known of a tileset.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    /// The server did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It wants to know who asks.
    #[error(
        "{0}: the server wants a session: put a token into TILEKEEP_TOKEN or --token-file (`tilekeep token mint`), or give --username and --password (the demo's are demo and demo)"
    )]
    Unauthorized(String),
    /// It answered something else.
    #[error("{path}: the server answered {status}{detail}")]
    Refused {
        /// What was asked for.
        path: String,
        /// With which status.
        status: u16,
        /// What the server says about it, after a colon.
        detail: String,
    },
    /// It has none for us.
    #[error("the server lists no tileset that this session may see; name one with --tileset")]
    None,
    /// That is no TileJSON.
    #[error("{path}: {why}")]
    TileJson {
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Asks for these tilesets, or for all that the session may see where none is named.
pub async fn find(
    connection: &mut Connection,
    credential: &Credential,
    names: &[String],
) -> Result<Vec<Ground>, GroundError> {
    let listed;
    let names = if names.is_empty() {
        let list = ask(connection, credential, "/").await?;
        let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
        let every = list.iter().filter_map(|item| item["name"].as_str());
        listed = every.map(str::to_owned).collect::<Vec<_>>();
        if listed.is_empty() {
            return Err(GroundError::None);
        }
        &listed
    } else {
        names
    };
    let mut grounds = Vec::with_capacity(names.len());
    for name in names {
        let path = format!("/{name}.json");
        let json = ask(connection, credential, &path).await?;
        let ground = read(name, &json);
        grounds.push(ground.map_err(|why| GroundError::TileJson { path, why })?);
    }
    Ok(grounds)
}

async fn ask(
    connection: &mut Connection,
    credential: &Credential,
    path: &str,
) -> Result<Value, GroundError> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let answer = connection.get(path, credential, &headers, DEADLINE).await?;
    let status = answer.status;
    let body = answer.collect(MAX_BODY).await?;
    let json = serde_json::from_slice::<Value>(&body).ok();
    let path = path.to_owned();
    match (status, json) {
        (StatusCode::OK, Some(json)) => Ok(json),
        (StatusCode::OK, None) => Err(GroundError::TileJson {
            path,
            why: "the answer is no JSON; is this a Tilekeep server?",
        }),
        // A page navigation is sent to the log-in.
        (StatusCode::UNAUTHORIZED | StatusCode::SEE_OTHER, _) => {
            Err(GroundError::Unauthorized(path))
        }
        (status, json) => {
            let detail = json.as_ref().and_then(|json| json["detail"].as_str());
            Err(GroundError::Refused {
                path,
                status: status.as_u16(),
                detail: detail.map(|text| format!(": {text}")).unwrap_or_default(),
            })
        }
    }
}

/// Reads a TileJSON.
fn read(name: &str, json: &Value) -> Result<Ground, &'static str> {
    let url = json["tiles"][0]
        .as_str()
        .ok_or("it is no TileJSON: `tiles` has no URL")?;
    let zoom = |key: &str, default: u8| match &json[key] {
        Value::Null => Some(default),
        number => u8::try_from(number.as_u64()?)
            .ok()
            .filter(|z| *z <= MAX_ZOOM),
    };
    let (Some(minzoom), Some(maxzoom)) = (zoom("minzoom", 0), zoom("maxzoom", 22)) else {
        return Err("`minzoom` or `maxzoom` is no zoom");
    };
    if minzoom > maxzoom {
        return Err("`minzoom` is above `maxzoom`");
    }
    let bounds = match &json["bounds"] {
        Value::Null => Some(Bounds::WORLD),
        bounds => serde_json::from_value::<[f64; 4]>(bounds.clone())
            .ok()
            .and_then(|bounds| Bounds::new(bounds).ok()),
    };
    let template = template(url).ok_or("the URL in `tiles` has no {z}, {x} and {y}")?;
    let path = template.split('?').next().unwrap_or_default();
    let vector = [".mvt", ".pbf"].iter().any(|end| path.ends_with(end));
    Ok(Ground {
        name: name.to_owned(),
        minzoom,
        maxzoom,
        bounds: bounds.ok_or("`bounds` are not [west, south, east, north]")?,
        tile_size: if vector { 512 } else { 256 },
        template,
    })
}

/// Path and query of a tile URL.
fn template(url: &str) -> Option<String> {
    let behind = match url.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/')?..],
        None => url,
    };
    let complete = ["{z}", "{x}", "{y}"]
        .iter()
        .all(|part| behind.contains(part));
    let sample = behind.replace(['{', '}'], "");
    (behind.starts_with('/') && complete && sample.parse::<Uri>().is_ok())
        .then(|| behind.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_tiles_url_only_path_and_query_are_taken() {
        let json = json!({
            "tiles": ["https://elsewhere.example.net:99/world/{z}/{x}/{y}.png?v=3"],
            "minzoom": 1, "maxzoom": 9, "bounds": [5.0, 44.0, 16.0, 48.5],
        });
        let ground = read("world", &json).unwrap();
        assert_eq!(ground.template, "/world/{z}/{x}/{y}.png?v=3");
        assert_eq!(
            (ground.minzoom, ground.maxzoom, ground.tile_size),
            (1, 9, 256)
        );
        let vector = json!({"tiles": ["/roads/{z}/{x}/{y}.mvt"]});
        let ground = read("roads", &vector).unwrap();
        assert_eq!((ground.tile_size, ground.bounds), (512, Bounds::WORLD));
    }

    #[test]
    fn what_is_no_tilejson_is_refused() {
        for json in [
            json!({}),
            json!({"tiles": ["https://h/world/{z}/{x}.png"]}),
            json!({"tiles": ["https://h"]}),
            json!({"tiles": ["javascript:{z}{x}{y}"]}),
            json!({"tiles": ["/{z}/{x}/{y}"], "minzoom": 5, "maxzoom": 4}),
            json!({"tiles": ["/{z}/{x}/{y}"], "maxzoom": 99}),
            json!({"tiles": ["/{z}/{x}/{y}"], "bounds": [0, 9, 1, 1]}),
        ] {
            assert!(read("world", &json).is_err(), "{json}");
        }
    }
}
