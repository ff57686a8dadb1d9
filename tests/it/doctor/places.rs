//! Buckets, policies on them, and what lies in them.

use super::*;
use tilekeep::tile::Bounds;

#[tokio::test]
async fn a_policy_on_the_buckets_arn_without_a_star_is_named() {
    let s3 = endpoint().await;
    let keys = user(&s3, &[("s3:GetObject", ALONE), ("s3:ListBucket", ALONE)]);
    let findings = examined(&configuration(&s3), &keys).await;
    let remedy = cause(&findings, Check::Tile);
    for words in [
        "\"Action\": \"s3:GetObject\", \"Resource\": \"arn:aws:s3:::acme-tiles/world/*\"",
        "if it has \"Resource\": \"arn:aws:s3:::acme-tiles\", change that to \"arn:aws:s3:::acme-tiles/*\"",
        "arn:aws:iam::000000000000:user/server",
    ] {
        assert!(remedy.contains(words), "{remedy}");
    }
    assert!(
        of(&findings, Check::Tile)
            .reason
            .contains("403 AccessDenied")
    );
    assert_eq!(
        status(&findings, Check::Bucket),
        Status::Ok,
        "it may be listed"
    );
    wait_for(&findings, &[Check::MissingTile], Check::Tile);
}

#[tokio::test]
async fn without_list_bucket_a_missing_tile_looks_denied() {
    let s3 = endpoint().await;
    let keys = user(&s3, &[("s3:GetObject", OBJECTS)]);
    let findings = examined(&configuration(&s3), &keys).await;
    assert_eq!(status(&findings, Check::Tile), Status::Ok);
    let remedy = cause(&findings, Check::MissingTile);
    let line = "\"Action\": \"s3:ListBucket\", \"Resource\": \"arn:aws:s3:::acme-tiles\"";
    assert!(remedy.contains(line), "{remedy}");
    let reason = &of(&findings, Check::MissingTile).reason;
    assert!(reason.contains("502"), "{reason}");
}

#[tokio::test]
async fn with_neither_right_both_lines_are_named() {
    let s3 = endpoint().await;
    let keys = user(&s3, &[("sts:GetCallerIdentity", "*")]);
    let findings = examined(&configuration(&s3), &keys).await;
    let remedy = cause(&findings, Check::Tile);
    assert!(
        remedy.contains("s3:GetObject") && remedy.contains("s3:ListBucket"),
        "{remedy}"
    );
    assert!(remedy.contains("this may be one"), "{remedy}");
}

#[tokio::test]
async fn listing_by_prefix_alone_is_told_from_none() {
    let s3 = endpoint().await;
    let config = configuration(&s3);
    // The embedded endpoint knows no conditions: the tile, then the missing one.
    s3.inject(Some(Operation::GetObject), 1, Fault::Delay(Duration::ZERO));
    s3.inject(Some(Operation::GetObject), 1, Fault::access_denied());
    let findings = examined(&config, s3.keys()).await;
    let remedy = cause(&findings, Check::MissingTile);
    assert!(
        remedy.contains("without a \"Condition\" on s3:prefix"),
        "{remedy}"
    );
}

#[tokio::test]
async fn the_wrong_region_is_told_with_the_right_one() {
    let s3 = endpoint_with(|settings| settings.region = Some("eu-west-1".into())).await;
    let mut config = configuration(&s3);
    config.aws.sts_endpoint_url = None;
    let findings = examined(&config, s3.keys()).await;
    let remedy = cause(&findings, Check::Bucket);
    assert!(
        remedy.contains("set region = \"eu-west-1\" instead of \"us-east-1\""),
        "{remedy}"
    );
    wait_for(&findings, &[Check::Tile, Check::MissingTile], Check::Bucket);

    // As AWS says it to a request that went to another region's address.
    s3.inject(None, usize::MAX, Fault::other_region("ap-south-1"));
    let findings = examined(&config, s3.keys()).await;
    assert!(cause(&findings, Check::Bucket).contains("set region = \"ap-south-1\""));
    wait_for(
        &findings,
        &[Check::Private, Check::BlockPublicAccess],
        Check::Bucket,
    );
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_named() {
    let s3 = endpoint().await;
    let config = configuration_of(
        &s3,
        [TilesetSpec {
            bucket: "acme-tile".into(),
            ..world()
        }],
    );
    let findings = examined(&config, s3.keys()).await;
    assert!(cause(&findings, Check::Bucket).contains("correct the tileset's `bucket`"));
    wait_for(
        &findings,
        &[Check::Tile, Check::MissingTile, Check::BlockPublicAccess],
        Check::Bucket,
    );
}

#[tokio::test]
async fn a_public_bucket_is_a_failure() {
    let s3 = endpoint_with(|settings| settings.buckets[0].public_read = true).await;
    let findings = examined(&configuration(&s3), s3.keys()).await;
    let remedy = cause(&findings, Check::Private);
    assert!(
        remedy.contains("\"Principal\": \"*\"") && remedy.contains("put-public-access-block"),
        "{remedy}"
    );
    let reason = &of(&findings, Check::Private).reason;
    assert!(
        reason.contains("GetObject s3://acme-tiles/world/0/0/0.png, unsigned: 200"),
        "{reason}"
    );
    assert!(reason.contains("GetBucketPolicyStatus"), "{reason}");
}

#[tokio::test]
async fn block_public_access_that_is_off_is_a_warning() {
    let s3 = endpoint_with(|settings| settings.buckets[0].block_public_access = false).await;
    let findings = examined(&configuration(&s3), s3.keys()).await;
    let block = of(&findings, Check::BlockPublicAccess);
    assert_eq!(block.status, Status::Warning);
    assert!(block.reason.contains("RestrictPublicBuckets"), "{block:?}");
    let remedy = block.remedy.as_deref().unwrap();
    assert!(
        remedy.contains("put-public-access-block --bucket acme-tiles"),
        "{remedy}"
    );
    assert_eq!(status(&findings, Check::Private), Status::Ok);
}

#[tokio::test]
async fn rights_that_serving_does_not_take_are_not_asked_for() {
    let s3 = endpoint().await;
    let keys = user(&s3, &[("s3:GetObject", OBJECTS), ("s3:ListBucket", ALONE)]);
    let findings = examined(&configuration(&s3), &keys).await;
    let block = of(&findings, Check::BlockPublicAccess);
    assert_eq!(block.status, Status::Skipped);
    let remedy = block.remedy.as_deref().unwrap();
    assert!(remedy.contains("s3:GetBucketPublicAccessBlock"), "{remedy}");
    assert!(
        findings.iter().all(|f| f.status != Status::Failed),
        "{findings:#?}"
    );
}

#[tokio::test]
async fn a_kms_key_that_may_not_be_used_is_named() {
    let s3 = endpoint().await;
    let key = "arn:aws:kms:eu-west-1:000000000000:key/1234abcd";
    let message = format!(
        "User: arn:aws:iam::000000000000:user/server is not authorized to perform: kms:Decrypt on resource: {key} \
         because no identity-based policy allows the kms:Decrypt action"
    );
    let fault = Fault::s3_error(403, "AccessDenied", &message);
    s3.inject(Some(Operation::GetObject), usize::MAX, fault);
    let findings = examined(&configuration(&s3), s3.keys()).await;
    let remedy = cause(&findings, Check::Tile);
    let line = format!("\"Action\": \"kms:Decrypt\", \"Resource\": \"{key}\"");
    assert!(remedy.contains(&line), "{remedy}");
    s3.clear_faults();
    let fault = Fault::s3_error(400, "KMS.DisabledException", &format!("{key} is disabled."));
    s3.inject(Some(Operation::GetObject), usize::MAX, fault);
    let findings = examined(&configuration(&s3), s3.keys()).await;
    assert!(cause(&findings, Check::Tile).contains("aws kms enable-key"));
}

#[tokio::test]
async fn a_denial_in_the_buckets_policy_is_looked_for_there() {
    let s3 = endpoint().await;
    let message = "User: arn:aws:iam::000000000000:user/server is not authorized to perform: s3:GetObject on resource: \
        \"arn:aws:s3:::acme-tiles/world/0/0/0.png\" with an explicit deny in a resource-based policy";
    let fault = Fault::s3_error(403, "AccessDenied", message);
    s3.inject(Some(Operation::GetObject), usize::MAX, fault);
    let findings = examined(&configuration(&s3), s3.keys()).await;
    let remedy = cause(&findings, Check::Tile);
    assert!(
        remedy.starts_with("a \"Deny\" in the bucket's policy"),
        "{remedy}"
    );
}

/// The remedy for a bucket that holds these keys alone.
async fn proposal(tileset: TilesetSpec, keys: &[&str]) -> (String, String) {
    let s3 = EmbeddedS3::start(EmbeddedS3Settings {
        buckets: vec![BucketSettings::private(BUCKET, BucketSource::Empty)],
        ..EmbeddedS3Settings::default()
    })
    .await
    .unwrap();
    for key in keys {
        s3.put(BUCKET, key, PNG, PutOptions::default());
    }
    let findings = examined(&configuration_of(&s3, [tileset]), s3.keys()).await;
    let remedy = cause(&findings, Check::Tile).to_owned();
    (remedy, of(&findings, Check::Tile).reason.clone())
}

#[tokio::test]
async fn a_template_that_matches_nothing_is_answered_with_one_that_does() {
    let (remedy, reason) = proposal(world(), &["world/0/0/0.jpg", "world/1/0/1.jpg"]).await;
    assert!(
        remedy.contains("key = \"world/{z}/{x}/{y}.jpg\" (and `format`"),
        "{remedy}"
    );
    assert!(
        reason.contains("world/0/0/0.jpg"),
        "what is there: {reason}"
    );

    let other = [
        "logs/2026/11/22.txt",
        "maps/world/0/0/0.png",
        "maps/world/1/0/1.png",
    ];
    let (remedy, _) = proposal(world(), &other).await;
    assert!(
        remedy.contains("key = \"maps/world/{z}/{x}/{y}.png\""),
        "{remedy}"
    );

    let quadkeys = ["world/0.png", "world/12.png", "world/120.png"];
    let (remedy, _) = proposal(world(), &quadkeys).await;
    assert!(remedy.contains("key = \"world/{quadkey}.png\""), "{remedy}");

    // Zürich, counted from the south.
    let swiss = TilesetSpec {
        bounds: Bounds::new([5.9, 45.8, 10.5, 47.8]).unwrap(),
        minzoom: 8,
        maxzoom: 8,
        ..world()
    };
    let tms = [
        "world/8/134/166.png",
        "world/8/133/166.png",
        "world/8/134/165.png",
    ];
    let (remedy, _) = proposal(swiss, &tms).await;
    assert!(
        remedy.contains("key = \"world/{z}/{x}/{-y}.png\""),
        "{remedy}"
    );

    let edition = TilesetSpec {
        key: "world/{version}/{z}/{x}/{y}.png".into(),
        version: Some("2026-11".into()),
        ..world()
    };
    let (remedy, _) = proposal(
        edition,
        &["world/2026-12/0/0/0.png", "world/2026-12/1/1/0.png"],
    )
    .await;
    assert!(remedy.contains("set version = \"2026-12\""), "{remedy}");
}

#[tokio::test]
async fn what_is_no_pyramid_is_called_what_it_is() {
    let (remedy, _) = proposal(world(), &["world.pmtiles"]).await;
    assert!(remedy.contains("archive = \"world.pmtiles\""), "{remedy}");
    let (remedy, reason) = proposal(world(), &[]).await;
    assert!(
        reason.contains("is empty") && remedy.contains("upload"),
        "{reason}"
    );
    let (_, reason) = proposal(world(), &["readme.txt"]).await;
    assert!(reason.contains("readme.txt"), "{reason}");
    let deep = TilesetSpec {
        minzoom: 3,
        ..world()
    };
    let (remedy, _) = proposal(deep, &["world/0/0/0.png", "world/1/0/0.png"]).await;
    assert!(remedy.contains("minzoom = 0, maxzoom = 1"), "{remedy}");
}

#[tokio::test]
async fn a_tile_of_another_format_is_a_warning() {
    let s3 = endpoint().await;
    s3.put(
        BUCKET,
        "world/0/0/0.png",
        &b"\xff\xd8\xff\xe0 jpeg"[..],
        PutOptions::default(),
    );
    let findings = examined(&configuration(&s3), s3.keys()).await;
    let tile = of(&findings, Check::Tile);
    assert_eq!(tile.status, Status::Warning);
    assert!(
        tile.remedy.as_deref().unwrap().contains("format = \"jpg\""),
        "{tile:?}"
    );
}

#[tokio::test]
async fn an_archive_is_known_by_its_header_and_asked_for_no_missing_tile() {
    let s3 = endpoint().await;
    let archive = TilesetSpec {
        key: "maps/w.pmtiles".into(),
        ..world()
    };
    let config = configuration_of(&s3, [archive]);
    let head = [b"PMTiles\x03".as_slice(), &[0; 200]].concat();
    s3.put(BUCKET, "maps/w.pmtiles", head, PutOptions::default());
    let keys = user(
        &s3,
        &[
            ("s3:GetObject", "arn:aws:s3:::acme-tiles/maps/w.pmtiles"),
            ("s3:ListBucket", ALONE),
        ],
    );
    let findings = examined(&config, &keys).await;
    let tile = of(&findings, Check::Tile);
    assert_eq!(tile.status, Status::Ok, "{tile:?}");
    assert!(tile.reason.contains("archive of 208 bytes"), "{tile:?}");
    assert_eq!(status(&findings, Check::MissingTile), Status::Skipped);
    s3.put(BUCKET, "maps/w.pmtiles", "<html>", PutOptions::default());
    let findings = examined(&config, &keys).await;
    let remedy = cause(&findings, Check::Tile);
    assert!(remedy.contains("pmtiles convert"), "{remedy}");
}
