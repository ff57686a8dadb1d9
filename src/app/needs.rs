//! What a configuration needs of IAM, as `tilekeep iam-policy` prints and checks it.

use crate::aws::policy::{Needs, Queue, Reader, TilesetNeed, queue_arn};
use crate::config::{AssumeRole, Config, TilesetConfig};
use crate::tile::{KeyTemplate, Scale, TileCoord, Tileset};

/// Who reads which tilesets, and where. `region` is what the environment says, for a configuration that does
/// not.
pub fn needs(config: &Config, region: Option<&str>) -> Needs {
    let for_all = config.aws.assume_role.as_ref();
    let mut readers: Vec<Reader> = Vec::new();
    // Those without a role of their own first: whoever reads them is the first reader.
    let mut tilesets: Vec<&TilesetConfig> = config.tilesets.iter().collect();
    tilesets.sort_by_key(|tileset| tileset.assume_role.is_some());
    for tileset in tilesets {
        let role = tileset.assume_role.as_ref().or(for_all);
        let role = role.map(
            |AssumeRole {
                 arn, external_id, ..
             }| (arn.clone(), external_id.clone()),
        );
        let arn = |role: &Option<(String, _)>| role.as_ref().map(|(arn, _)| arn.clone());
        let need = tileset_need(&tileset.tileset);
        match readers.iter_mut().find(|r| arn(&r.role) == arn(&role)) {
            Some(reader) => reader.tilesets.push(need),
            None => readers.push(Reader {
                role,
                tilesets: vec![need],
            }),
        }
    }
    let region = config.aws.region.as_deref().or(region);
    let from_role = readers.iter().find_map(|r| r.role.as_ref());
    let from_role = from_role.and_then(|(arn, _)| arn.split(':').nth(1));
    let partition = region
        .map_or(from_role.unwrap_or("aws"), partition)
        .to_owned();
    let endpoint = config.aws.endpoint_url.as_deref();
    let queue = config.events.as_ref().and_then(|events| {
        let arn = queue_arn(
            events.queue.as_str(),
            region.unwrap_or_default(),
            &partition,
        )?;
        let role = for_all.map(|role| (role.arn.clone(), role.external_id.clone()));
        Some(Queue { arn, role })
    });
    Needs {
        partition,
        readers,
        queue,
        tls: endpoint.is_none_or(|url| url.starts_with("https")),
    }
}

/// The partition of a region (AWS Fault Isolation Boundaries, "Partitions").
fn partition(region: &str) -> &str {
    const PREFIXES: [(&str, &str); 7] = [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-iso-", "aws-iso"),
        ("us-isob-", "aws-iso-b"),
        ("eu-isoe-", "aws-iso-e"),
        ("us-isof-", "aws-iso-f"),
        ("eusc-", "aws-eusc"),
    ];
    let found = PREFIXES.iter().find(|(p, _)| region.starts_with(p));
    found.map_or("aws", |(_, partition)| partition)
}

fn tileset_need(tileset: &Tileset) -> TilesetNeed {
    let place = tileset.place();
    let (min, max) = (tileset.minzoom(), tileset.maxzoom());
    let mut keys = Vec::new();
    for z in [min, min.midpoint(max), max] {
        let last = (1_u32 << z) - 1;
        for (x, y) in [(0, 0), (last / 2, last / 3), (last, last)] {
            let Some(tile) = TileCoord::new(z, x, y) else {
                continue;
            };
            keys.push(place.key.key(tile, Scale::One));
            if place.key.has_density() {
                keys.push(place.key.key(tile, Scale::Two));
            }
        }
    }
    keys.sort();
    keys.dedup();
    TilesetNeed {
        name: tileset.name().to_owned(),
        bucket: place.bucket.clone(),
        pattern: pattern(&place.key),
        keys,
    }
}

/// What keys begin with, up to the first sign that means something in a policy; where there are no coordinates,
/// it is the one object of all tiles.
fn pattern(key: &KeyTemplate) -> String {
    let source = key.source();
    if !source.contains("{z}") && !source.contains("{quadkey}") {
        return source.replace("{version}", "*");
    }
    let prefix = key.fixed_prefix();
    let end = prefix.find(['*', '?', '$']);
    format!("{}*", &prefix[..end.unwrap_or(prefix.len())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::TileFormat;

    #[test]
    fn regions_lie_in_partitions() {
        for (region, expected) in [
            ("eu-west-1", "aws"),
            ("cn-north-1", "aws-cn"),
            ("us-gov-west-1", "aws-us-gov"),
            ("us-isob-east-1", "aws-iso-b"),
        ] {
            assert_eq!(partition(region), expected);
        }
    }

    #[test]
    fn a_pattern_is_of_every_version() {
        let of =
            |source: &str| pattern(&KeyTemplate::new(source, TileFormat::Png, Some("v7")).unwrap());
        assert_eq!(of("w/{version}/{z}/{x}/{y}.png"), "w/*");
        assert_eq!(of("w-{quadkey}"), "w-*");
        assert_eq!(of("w?/{z}/{x}/{y}.png"), "w*");
        assert_eq!(of("{z}/{x}/{y}.png"), "*");
    }
}
