//! Looking around in a bucket whose key template matches nothing: what is there, and where.

use aws_sdk_s3::Client;

use super::ask::Trouble;
use super::guess::{Proposal, propose};
use crate::tile::Tileset;

/// Keys of one listing: S3's own page.
const PAGE: i32 = 1000;
/// Folders that are looked into at each level.
const FOLDERS: usize = 4;
/// Examples that are shown.
const SHOWN: usize = 3;

/// A page of a listing.
#[derive(Debug, Clone, Default)]
pub(super) struct Page {
    pub(super) keys: Vec<String>,
    folders: Vec<String>,
    /// Whether there is more.
    pub(super) more: bool,
}

/// What lies under a prefix; with `by_folder`, its folders and what lies beside them.
pub(super) async fn list(
    client: &Client,
    bucket: &str,
    prefix: &str,
    by_folder: bool,
) -> Result<Page, Trouble> {
    let call = format!("ListObjectsV2 s3://{bucket}/{prefix}");
    let list = client.list_objects_v2().bucket(bucket).max_keys(PAGE);
    let list = list.set_prefix((!prefix.is_empty()).then(|| prefix.to_owned()));
    let list = list.set_delimiter(by_folder.then(|| "/".to_owned()));
    let answer = list.send().await;
    let answer = answer.map_err(|error| Trouble::of(call, &error))?;
    let keys = answer.contents().iter().filter_map(|object| object.key());
    let folders = answer.common_prefixes().iter().filter_map(|p| p.prefix());
    Ok(Page {
        // Some servers list folders as objects.
        keys: keys
            .filter(|key| !key.ends_with('/'))
            .map(Into::into)
            .collect(),
        folders: folders.map(Into::into).collect(),
        more: answer.is_truncated() == Some(true),
    })
}

/// What was found instead.
#[derive(Debug, Clone, Default)]
pub(super) struct Around {
    /// What is there, for a person.
    pub(super) shown: String,
    pub(super) proposal: Option<Proposal>,
    /// An archive of tiles.
    pub(super) archive: Option<String>,
    /// Whether there is nothing at all.
    pub(super) empty: bool,
}

/// Looks under the template's fixed prefix first (whose page is given), then in the folders above,
/// those first whose names are like the wanted one.
pub(super) async fn look_around(
    client: &Client,
    tileset: &Tileset,
    page: &Page,
) -> Result<Around, Trouble> {
    let place = tileset.place();
    let prefix = place.key.fixed_prefix();
    let mut around = Around::default();
    around.take(tileset, &page.keys, prefix);
    if around.proposal.is_some() {
        return Ok(around);
    }
    for above in above(prefix) {
        let level = list(client, &place.bucket, above, true).await?;
        let mut folders = level.folders.clone();
        around.take(tileset, &level.keys, above);
        let wanted = &prefix[above.len().min(prefix.len())..];
        let like = |folder: &String| {
            let name = folder[above.len().min(folder.len())..].trim_end_matches('/');
            let by_prefix = strsim::jaro_winkler(name, wanted.trim_end_matches('/'));
            by_prefix.max(strsim::jaro_winkler(name, tileset.name()))
        };
        folders.sort_by(|a, b| like(b).total_cmp(&like(a)));
        if around.shown.is_empty() && !folders.is_empty() {
            let place = if above.is_empty() {
                "in the bucket"
            } else {
                above
            };
            let names: Vec<_> = folders.iter().take(FOLDERS).map(String::as_str).collect();
            around.shown = format!("{place} there are the folders {}", names.join(", "));
        }
        for folder in folders.iter().take(FOLDERS) {
            let inside = list(client, &place.bucket, folder, false).await?;
            let before = around.shown.clone();
            around.take(tileset, &inside.keys, folder);
            if around.proposal.is_some() {
                return Ok(around);
            }
            if !before.is_empty() {
                around.shown = before;
            }
        }
    }
    around.empty = around.shown.is_empty();
    Ok(around)
}

impl Around {
    fn take(&mut self, tileset: &Tileset, keys: &[String], under: &str) {
        if keys.is_empty() {
            return;
        }
        if self.proposal.is_none() {
            self.proposal = propose(tileset, keys.iter().map(String::as_str));
        }
        if self.archive.is_none() {
            let archive = |key: &&String| key.ends_with(".pmtiles") || key.ends_with(".mbtiles");
            self.archive = keys.iter().find(archive).cloned();
        }
        if self.shown.is_empty() || self.proposal.is_some() {
            // From the middle too: the first of a listing are often all alike.
            let step = keys.len().div_ceil(SHOWN).max(1);
            let examples: Vec<_> = keys.iter().step_by(step).map(String::as_str).collect();
            let place = if under.is_empty() {
                "the bucket"
            } else {
                under
            };
            self.shown = format!("under {place} there are keys like {}", examples.join(", "));
        }
    }
}

/// The folders above a prefix, the nearest first, at most two; the bucket itself is the last.
fn above(prefix: &str) -> Vec<&str> {
    let folder = &prefix[..prefix.rfind('/').map_or(0, |at| at + 1)];
    let parent = folder.trim_end_matches('/');
    let parent = &parent[..parent.rfind('/').map_or(0, |at| at + 1)];
    let mut levels = vec![parent];
    if !parent.is_empty() {
        levels.push("");
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_looks_in_the_folder_above_and_in_the_bucket() {
        assert_eq!(above("world/"), [""]);
        assert_eq!(above(""), [""]);
        assert_eq!(above("maps/world/"), ["maps/", ""]);
        assert_eq!(above("a/b/c/tile_"), ["a/b/", ""]);
    }
}
