//! Objects as other servers keep them: keys with odd letters, large ones, in parts, encrypted.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, ServerSideEncryption};
use tilekeep::origin::s3::MAX_OBJECT_BYTES;
use tilekeep::origin::{
    ErrorScope, Origin as _, OriginErrorKind, OriginReply, OriginRequest, OriginTile,
};

use super::{client_of, origin_at};
use crate::origin_contract::{BUCKET, at, found, request, tileset, world};
use crate::peers::{MiniStack, Seaweed};
use tilekeep::aws::AccessKeys;

const KEY: &str = "world/0/0/0.png";

/// What a key template can put before the coordinates. With `false`: `SeaweedFS` takes no such key (400), because
/// it keeps objects as files of a tree.
const ODD: [(&str, bool); 16] = [
    ("a b", true),
    ("größe/東京", true),
    ("a+b", true),
    ("100%", true),
    ("%2F%20", true),
    ("%2e%2e", true),
    ("it's (1)!*", true),
    ("q?x=1&y#z", true),
    ("dot./..a", true),
    ("@:,;=$~", true),
    ("back\\slash", true),
    ("\"quoted\" <b>", true),
    ("new\u{a0}line|tab", true),
    ("a//b", true),
    ("./a", false),
    ("../../a", false),
];

#[tokio::test]
async fn odd_keys_reach_a_real_server_as_they_are_and_never_bring_another_tile() {
    let seaweed = Seaweed::start().await;
    odd_keys(&seaweed.endpoint(), seaweed.keys(), false).await;
}

#[tokio::test]
async fn odd_keys_reach_ministack_as_they_are() {
    let stack = MiniStack::start().await;
    odd_keys(&stack.endpoint(), any_keys(), true).await;
}

fn any_keys() -> AccessKeys {
    AccessKeys {
        access_key_id: "test".into(),
        secret_access_key: "test".into(),
        session_token: None,
    }
}

async fn odd_keys(endpoint: &str, keys: AccessKeys, no_tree: bool) {
    let s3 = client_of(endpoint, &keys);
    s3.create_bucket().bucket(BUCKET).send().await.unwrap();
    let origin = origin_at(endpoint, keys).await;
    let mut wrong = Vec::new();
    for (n, (prefix, kept)) in ODD.into_iter().enumerate() {
        let odd = tileset("odd", BUCKET, &format!("{prefix}/{{z}}/{{x}}/{{y}}.png"));
        let body = format!("tile {n}");
        let put = s3
            .put_object()
            .bucket(BUCKET)
            .key(format!("{prefix}/0/0/0.png"));
        let put = put.body(body.clone().into_bytes().into()).send().await;
        let reply = origin.fetch(request(&odd, at(0, 0, 0))).await;
        let said = format!("{prefix}: put {}, got {reply:?}", put.is_ok());
        println!("{said}");
        let right = match &reply {
            Ok(OriginReply::Found(tile)) => tile.body[..] == *body.as_bytes(),
            // Never another tile, and never 'no such tile' where the bucket took it.
            _ => !(kept || no_tree),
        };
        if !right {
            wrong.push(said);
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Bytes that look like nothing else.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

#[tokio::test]
async fn large_objects_come_whole_and_too_large_ones_are_refused_by_name() {
    let seaweed = Seaweed::start().await;
    let large = noise(24 << 20);
    let too_large = vec![7; usize::try_from(MAX_OBJECT_BYTES).unwrap() + 1];
    seaweed
        .bucket(BUCKET, &[(KEY, &large), ("world/1/0/0.png", &too_large)])
        .await;
    let origin = origin_at(&seaweed.endpoint(), seaweed.keys()).await;
    let tile = found(origin.fetch(request(&world(), at(0, 0, 0))).await);
    assert!(
        tile.body[..] == large[..],
        "{} bytes that differ",
        tile.body.len()
    );
    held(&origin, &tile).await;
    let error = origin
        .fetch(request(&world(), at(1, 0, 0)))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind, error.scope),
        (OriginErrorKind::Server, ErrorScope::Object)
    );
    assert!(error.detail.contains("world/1/0/0.png"), "{error}");
    // The next tile is none the worse for it.
    held(&origin, &tile).await;
}

async fn held(origin: &impl tilekeep::origin::Origin, tile: &OriginTile) {
    let again = OriginRequest {
        validator: tile.validator.clone(),
        ..request(&world(), at(0, 0, 0))
    };
    assert_eq!(origin.fetch(again).await.unwrap(), OriginReply::NotModified);
}

#[tokio::test]
async fn an_object_of_several_parts_is_a_tile_like_any_other() {
    let seaweed = Seaweed::start().await;
    seaweed.bucket(BUCKET, &[]).await;
    let s3 = seaweed.s3();
    let upload = s3.create_multipart_upload().bucket(BUCKET).key(KEY);
    let upload = upload.send().await.unwrap().upload_id.unwrap();
    let body = noise((5 << 20) + 1000);
    let mut parts = CompletedMultipartUpload::builder();
    for (number, part) in (1..).zip(body.chunks(5 << 20)) {
        let put = s3.upload_part().bucket(BUCKET).key(KEY).upload_id(&upload);
        let put = put
            .part_number(number)
            .body(ByteStream::from(part.to_vec()));
        let etag = put.send().await.unwrap().e_tag.unwrap();
        parts = parts.parts(
            CompletedPart::builder()
                .part_number(number)
                .e_tag(etag)
                .build(),
        );
    }
    let complete = s3
        .complete_multipart_upload()
        .bucket(BUCKET)
        .key(KEY)
        .upload_id(upload);
    complete
        .multipart_upload(parts.build())
        .send()
        .await
        .unwrap();

    let origin = origin_at(&seaweed.endpoint(), seaweed.keys()).await;
    let tile = found(origin.fetch(request(&world(), at(0, 0, 0))).await);
    assert!(
        tile.body[..] == body[..],
        "{} bytes that differ",
        tile.body.len()
    );
    let validator = tile.validator.as_ref().unwrap().to_string();
    assert!(validator.ends_with("-2\""), "of two parts: {validator}");
    held(&origin, &tile).await;
}

#[tokio::test]
async fn objects_that_the_server_encrypts_with_keys_of_its_own_are_read_like_others() {
    let seaweed = Seaweed::start().await;
    seaweed.bucket(BUCKET, &[]).await;
    let s3 = seaweed.s3();
    let put = s3
        .put_object()
        .bucket(BUCKET)
        .key(KEY)
        .body(b"tile".to_vec().into());
    let put = put
        .server_side_encryption(ServerSideEncryption::Aes256)
        .send()
        .await
        .unwrap();
    assert_eq!(
        put.server_side_encryption,
        Some(ServerSideEncryption::Aes256)
    );
    let origin = origin_at(&seaweed.endpoint(), seaweed.keys()).await;
    let tile = found(origin.fetch(request(&world(), at(0, 0, 0))).await);
    assert_eq!(&tile.body[..], b"tile");
    held(&origin, &tile).await;
}

/// SSE-C: whoever reads has to send the key, which the configuration has no place for.
#[tokio::test]
async fn objects_under_a_customers_key_are_refused_and_the_log_says_why() {
    let seaweed = Seaweed::start().await;
    seaweed
        .bucket(BUCKET, &[("world/1/0/0.png", b"in clear")])
        .await;
    crate::peers::python_says(
        "import boto3, sys\n\
         s3 = boto3.client('s3', endpoint_url=sys.argv[1], region_name='us-east-1',\n\
                           aws_access_key_id=sys.argv[2], aws_secret_access_key=sys.argv[3])\n\
         s3.put_object(Bucket=sys.argv[4], Key='world/0/0/0.png', Body=b'tile',\n\
                       SSECustomerAlgorithm='AES256', SSECustomerKey='k' * 32)\n",
        &[
            &seaweed.endpoint(),
            &seaweed.keys().access_key_id,
            &seaweed.keys().secret_access_key,
            BUCKET,
        ],
    );
    let origin = origin_at(&seaweed.endpoint(), seaweed.keys()).await;
    let error = origin
        .fetch(request(&world(), at(0, 0, 0)))
        .await
        .unwrap_err();
    println!("{error:?}");
    assert_eq!(
        (error.kind, error.scope),
        (OriginErrorKind::Denied, ErrorScope::Object)
    );
    assert!(error.detail.contains("SSE-C"), "{error}");
    let other = found(origin.fetch(request(&world(), at(1, 0, 0))).await);
    assert_eq!(&other.body[..], b"in clear");
}
