//! A bucket that keeps versions: what was overwritten, deleted and brought back, as the origin and the server see it.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use http::StatusCode;
use tilekeep::origin::{Origin as _, OriginReply, OriginRequest, OriginValidator};

use super::origin_at;
use crate::origin_contract::{BUCKET, at, found, request, world};
use crate::peers::{PATIENCE, Seaweed};
use crate::support::{self, spec};
use tilekeep::tile::TileFormat;

const KEY: &str = "world/0/0/0.png";

/// A bucket with versions switched on, and its administrator.
async fn versioned(seaweed: &Seaweed) -> Client {
    seaweed.bucket(BUCKET, &[]).await;
    let s3 = seaweed.s3();
    let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled);
    let switch = s3.put_bucket_versioning().bucket(BUCKET);
    switch
        .versioning_configuration(on.build())
        .send()
        .await
        .unwrap();
    s3
}

/// Writes the tile; its version.
async fn put(s3: &Client, body: &'static [u8]) -> String {
    let put = s3
        .put_object()
        .bucket(BUCKET)
        .key(KEY)
        .body(body.to_vec().into());
    put.send()
        .await
        .unwrap()
        .version_id
        .expect("the bucket keeps versions")
}

/// Deletes it: the marker's version.
async fn delete(s3: &Client) -> String {
    let deleted = s3
        .delete_object()
        .bucket(BUCKET)
        .key(KEY)
        .send()
        .await
        .unwrap();
    assert_eq!(deleted.delete_marker, Some(true));
    deleted.version_id.unwrap()
}

async fn delete_version(s3: &Client, version: &str) {
    let delete = s3
        .delete_object()
        .bucket(BUCKET)
        .key(KEY)
        .version_id(version);
    delete.send().await.unwrap();
}

#[tokio::test]
async fn in_a_bucket_with_versions_the_newest_counts_and_a_delete_marker_is_a_missing_tile() {
    let seaweed = Seaweed::start().await;
    let s3 = versioned(&seaweed).await;
    let origin = origin_at(&seaweed.endpoint(), seaweed.keys()).await;
    let ask = async |validator: Option<OriginValidator>| {
        let request = OriginRequest {
            validator,
            ..request(&world(), at(0, 0, 0))
        };
        origin.fetch(request).await
    };
    put(&s3, b"first").await;
    let first = found(ask(None).await);
    assert_eq!(&first.body[..], b"first");
    assert_eq!(
        ask(first.validator.clone()).await.unwrap(),
        OriginReply::NotModified
    );

    let newest = put(&s3, b"second").await;
    let second = found(ask(first.validator.clone()).await);
    assert_eq!(&second.body[..], b"second");
    assert_ne!(second.validator, first.validator);

    let marker = delete(&s3).await;
    assert_eq!(ask(None).await.unwrap(), OriginReply::NotFound);
    assert_eq!(
        ask(second.validator.clone()).await.unwrap(),
        OriginReply::NotFound
    );

    delete_version(&s3, &marker).await;
    assert_eq!(
        ask(second.validator.clone()).await.unwrap(),
        OriginReply::NotModified
    );

    // The one before is the newest again, and known by its own validator.
    delete_version(&s3, &newest).await;
    let back = found(ask(second.validator).await);
    assert_eq!(&back.body[..], b"first");
    assert_eq!(back.validator, first.validator);
}

#[tokio::test]
async fn the_server_sees_what_was_overwritten_deleted_and_brought_back_once_its_own_has_gone_stale()
{
    let seaweed = Seaweed::start().await;
    let s3 = versioned(&seaweed).await;
    put(&s3, b"first").await;
    let mut tileset = spec("world", TileFormat::Png);
    tileset.bucket = BUCKET.into();
    tileset.key = "world/{z}/{x}/{y}.png".into();
    let mut config = support::config([tileset]);
    // Stale is revalidated before it is answered, so that each answer is the bucket's.
    config.cache.fresh = Duration::from_mins(1);
    config.cache.stale_while_revalidate = Duration::ZERO;
    config.cache.missing = Duration::from_mins(1);
    let origin = origin_at(&seaweed.endpoint(), seaweed.keys()).await;
    let server = support::start(config, Arc::new(origin)).await;
    let get = async || server.get("/world/0/0/0.png").await;

    let first = get().await;
    assert_eq!(&first.body[..], b"first");
    put(&s3, b"second").await;
    assert_eq!(
        get().await.header("cache-status"),
        "tilekeep; hit; ttl=60; detail=memory"
    );
    server.clock.advance(Duration::from_mins(2));
    let second = get().await;
    assert_eq!(
        (&second.body[..], second.status),
        (&b"second"[..], StatusCode::OK)
    );
    assert_ne!(second.header("etag"), first.header("etag"));

    server.clock.advance(Duration::from_mins(2));
    let status = get().await.header("cache-status").to_owned();
    assert!(status.contains("fwd-status=304"), "{status}");

    let marker = delete(&s3).await;
    server.clock.advance(Duration::from_mins(2));
    assert_eq!(get().await.status, StatusCode::NOT_FOUND);
    delete_version(&s3, &marker).await;
    assert_eq!(
        get().await.status,
        StatusCode::NOT_FOUND,
        "believed for a minute"
    );
    server.clock.advance(Duration::from_mins(2));
    let back = get().await;
    assert_eq!(&back.body[..], b"second");
    assert_eq!(
        back.header("etag"),
        second.header("etag"),
        "the same content, the same validator"
    );
    assert!(tokio::time::timeout(PATIENCE, server.stop()).await.is_ok());
}
