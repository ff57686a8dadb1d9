//! Running servers, told what was published: which tiles changed, and which version is the current one.

use http::Uri;
use serde::{Deserialize, Serialize};

use super::super::Failure;
use super::super::admin::Admin;
use crate::cluster::Handed;
use crate::config::{Config, PublishConfig, SecretValue};
use crate::http::purge::{MAX_TILES, PurgeReport, PurgeRequest};
use crate::tile::TileCoord;

/// Past so many tiles a server is told to look at the whole tileset.
const MOST_LISTED: usize = 10 * MAX_TILES;

/// Which tiles are to be dropped.
pub(super) enum Changed<'a> {
    /// These, by their numbers.
    Tiles(&'a [u64]),
    /// It is not known which: all are revalidated.
    Any,
}

/// The servers of `[publish] admin_urls`.
pub(super) struct Servers(Vec<(String, Admin)>);

#[derive(Serialize)]
struct Switch<'a> {
    tileset: &'a str,
    version: &'a str,
}

#[derive(Deserialize)]
struct Switched {}

impl Servers {
    pub(super) fn of(config: &Config) -> Result<Self, Failure> {
        let PublishConfig {
            admin_urls,
            admin_token,
        } = &config.publish;
        let token = admin_token.as_ref().map(SecretValue::expose);
        let admin = |url: &String| {
            let uri: Uri = url.parse().map_err(|_| {
                Failure::Usage(format!("[publish] admin_urls: `{url}` is no address"))
            })?;
            Ok((url.clone(), Admin::new(&uri, token)?))
        };
        admin_urls
            .iter()
            .map(admin)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Has them drop what changed; what failed, in words.
    pub(super) async fn purge(
        &self,
        tileset: &str,
        version: Option<&str>,
        changed: &Changed<'_>,
    ) -> Vec<String> {
        let whole = |soft| PurgeRequest {
            tileset: tileset.to_owned(),
            version: version.map(str::to_owned),
            soft,
            ..PurgeRequest::default()
        };
        let requests = match changed {
            Changed::Tiles(tiles) if tiles.len() <= MOST_LISTED => tiles
                .chunks(MAX_TILES)
                .map(|tiles| PurgeRequest {
                    tiles: Some(names(tiles)),
                    ..whole(false)
                })
                .collect(),
            _ => vec![whole(true)],
        };
        let mut failures = Vec::new();
        for (url, admin) in &self.0 {
            for request in &requests {
                match admin.post::<PurgeReport>("/purge", request).await {
                    Ok(report) if report.cluster == Some(Handed::Unreachable) => {
                        failures.push(format!(
                            "{url}: the other nodes were not told to drop what changed: it does not reach its Redis"
                        ));
                        break;
                    }
                    Ok(_) => {}
                    Err(failure) => {
                        failures.push(words(failure));
                        break;
                    }
                }
            }
        }
        failures
    }

    /// Tells them the version; what failed, in words.
    pub(super) async fn switch(&self, tileset: &str, version: &str) -> Vec<String> {
        let mut failures = Vec::new();
        for (_, admin) in &self.0 {
            let switch = Switch { tileset, version };
            if let Err(failure) = admin.post::<Switched>("/version", &switch).await {
                failures.push(words(failure));
            }
        }
        failures
    }
}

fn names(numbers: &[u64]) -> Vec<String> {
    let tiles = numbers.iter().filter_map(|n| TileCoord::from_number(*n));
    tiles.map(|tile| tile.to_string()).collect()
}

fn words(failure: Failure) -> String {
    match failure {
        Failure::Usage(text) | Failure::Failed(text) => text,
        Failure::Config(problems) => problems.to_string(),
    }
}
