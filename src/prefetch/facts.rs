//! What the server says of a tileset: its TileJSON.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::pool::Pool;
use crate::client::ClientError;
use crate::tile::{Bounds, MAX_ZOOM, TileCoord, TileFormat};

/// More than any TileJSON has.
const MAX_TILEJSON: usize = 4 << 20;

/// Why a tileset cannot be asked for.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The server was not reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No session, or a bad one.
    #[error(
        "the server knows no session for this ({0}): put a token into TILEKEEP_TOKEN or --token-file, or log in with --username"
    )]
    Unauthorized(String),
    /// No such tileset for this session.
    #[error("--tileset {name}: the server has no such tileset for this session{}", listed(.others))]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// Those that it has.
        others: Vec<String>,
    },
    /// Something else than a TileJSON.
    #[error("--tileset {name}: {what}; is that a Tilekeep server?")]
    Unreadable {
        /// The name that was asked for.
        name: String,
        /// What is wrong.
        what: String,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    format!("; it has {}", names.join(", "))
}

/// What a tileset is, as far as a client needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct TilesetFacts {
    /// Its name in URLs.
    pub name: String,
    /// Path and query of a tile, with `{z}`, `{x}` and `{y}`: the canonical form, with the version's `?v=`.
    pub template: String,
    /// What the tiles are.
    pub format: TileFormat,
    /// The first zoom.
    pub minzoom: u8,
    /// The last zoom.
    pub maxzoom: u8,
    /// Where it has tiles.
    pub bounds: Bounds,
    /// The whole of its TileJSON.
    pub json: Map<String, Value>,
}

impl TilesetFacts {
    /// A tile's path and query.
    pub fn path(&self, tile: TileCoord) -> String {
        self.template
            .replace("{z}", &tile.z().to_string())
            .replace("{x}", &tile.x().to_string())
            .replace("{y}", &tile.y().to_string())
    }

    /// Where the tile's explanation is.
    pub fn explain_path(&self, tile: TileCoord) -> String {
        format!("/{}/{tile}/explain", self.name)
    }

    /// Reads a TileJSON.
    pub(super) fn read(name: &str, body: &[u8]) -> Result<Self, String> {
        let json: Map<String, Value> =
            serde_json::from_slice(body).map_err(|error| format!("its TileJSON: {error}"))?;
        let url = json
            .get("tiles")
            .and_then(Value::as_array)
            .and_then(|tiles| tiles.first()?.as_str());
        let url = url.ok_or("its TileJSON has no `tiles`")?;
        // The server's public address may be another than the one that it is asked at: paths are the same.
        let path = match url.split_once("://") {
            Some((_, rest)) => rest.find('/').map(|at| &rest[at..]),
            None => Some(url),
        };
        let whole = |path: &&str| {
            path.starts_with('/') && ["{z}", "{x}", "{y}"].iter().all(|word| path.contains(word))
        };
        let template = path
            .filter(whole)
            .ok_or("its TileJSON's tile URL has no {z}, {x} and {y}")?;
        let format = json
            .get("format")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let all = [
            TileFormat::Png,
            TileFormat::Jpg,
            TileFormat::Webp,
            TileFormat::Avif,
            TileFormat::Mvt,
        ];
        let format = all
            .into_iter()
            .find(|known| known.answers_to(format))
            .ok_or_else(|| format!("its TileJSON's format {format:?} is not known"))?;
        let zoom = |key: &str, default: u8| {
            let zoom = json.get(key).and_then(Value::as_u64);
            zoom.map_or(default, |zoom| u8::try_from(zoom).unwrap_or(MAX_ZOOM))
        };
        let bounds = json.get("bounds").cloned();
        let bounds = bounds.and_then(|bounds| serde_json::from_value::<[f64; 4]>(bounds).ok());
        Ok(Self {
            name: name.to_owned(),
            template: template.to_owned(),
            format,
            minzoom: zoom("minzoom", 0),
            maxzoom: zoom("maxzoom", MAX_ZOOM).min(MAX_ZOOM),
            bounds: bounds
                .and_then(|bounds| Bounds::new(bounds).ok())
                .unwrap_or(Bounds::WORLD),
            json,
        })
    }
}

/// Asks the server what a tileset is.
pub async fn learn(pool: &Pool, name: &str) -> Result<TilesetFacts, FactsError> {
    let unreadable = |what: String| FactsError::Unreadable {
        name: name.to_owned(),
        what,
    };
    // A name goes into a path: what no tileset can be called is not asked for.
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    let (status, body) = if name.bytes().all(plain) && !name.is_empty() {
        ask(pool, &format!("/{name}.json")).await?
    } else {
        (StatusCode::NOT_FOUND, Bytes::new())
    };
    match status {
        StatusCode::OK => TilesetFacts::read(name, &body).map_err(unreadable),
        StatusCode::UNAUTHORIZED => {
            let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
            let detail = problem["detail"].as_str().unwrap_or("401");
            Err(FactsError::Unauthorized(
                detail.trim_end_matches('.').to_owned(),
            ))
        }
        StatusCode::NOT_FOUND => {
            let (_, body) = ask(pool, "/").await?;
            let list: Vec<Value> = serde_json::from_slice(&body).unwrap_or_default();
            let names = list.iter().filter_map(|one| one["name"].as_str());
            Err(FactsError::Unknown {
                name: name.to_owned(),
                others: names.map(str::to_owned).collect(),
            })
        }
        status => Err(unreadable(format!("the server answered {status}"))),
    }
}

/// Whether the session may have tiles explained: looked at without being fetched.
pub async fn may_explain(pool: &Pool) -> Result<bool, FactsError> {
    let (status, body) = ask(pool, "/session").await?;
    let session: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status != StatusCode::OK {
        let detail = session["detail"].as_str().unwrap_or("no session");
        return Err(FactsError::Unauthorized(
            detail.trim_end_matches('.').to_owned(),
        ));
    }
    let scope = session["scope"].as_str().unwrap_or_default();
    Ok(scope.split(' ').any(|word| word == "explain"))
}

async fn ask(pool: &Pool, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
    let mut headers = HeaderMap::new();
    let json = http::HeaderValue::from_static("application/json");
    headers.insert(http::header::ACCEPT, json);
    let answer = pool.get_once(path, &headers).await?;
    let status = answer.status;
    Ok((status, answer.collect(MAX_TILEJSON).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_of_a_tile_url_counts_and_its_version_with_it() {
        let json = serde_json::json!({
            "tiles": ["https://cdn.example.com/world/{z}/{x}/{y}.png?v=2"],
            "format": "png", "minzoom": 1, "maxzoom": 7, "bounds": [5, 45, 11, 48],
        });
        let facts = TilesetFacts::read("world", json.to_string().as_bytes()).unwrap();
        let tile = TileCoord::new(3, 4, 2).unwrap();
        assert_eq!(facts.path(tile), "/world/3/4/2.png?v=2");
        assert_eq!((facts.minzoom, facts.maxzoom), (1, 7));
        assert_eq!(
            format!("{:?}", facts.bounds.to_array()),
            "[5.0, 45.0, 11.0, 48.0]"
        );
    }

    #[test]
    fn what_is_no_tilejson_is_refused() {
        for bad in [
            "{}",
            "[]",
            r#"{"tiles":["/world"],"format":"png"}"#,
            r#"{"tiles":["/w/{z}/{x}/{y}"],"format":"gif"}"#,
        ] {
            assert!(TilesetFacts::read("w", bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
