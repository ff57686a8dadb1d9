//! S3 alone: what only HTTP, signatures and keys can get wrong.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tilekeep::aws::{AccessKeys, Aws, AwsSettings, CredentialSource};
use tilekeep::embedded_s3::{EmbeddedS3, Fault, Operation, PutOptions};
use tilekeep::origin::s3::S3Origin;
use tilekeep::origin::{
    ContentEncoding, ErrorScope, Origin, OriginError, OriginErrorKind, OriginReply, OriginRequest,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::origin_contract::{
    BUCKET, at, endpoint, found, origin_with, request, settings, tileset, world,
};

const KEY: &str = "world/0/0/0.png";
const BODY: &[u8] = b"\x89PNG twenty bytes or so";

/// An endpoint with one tile, and an origin that may read it.
async fn one_tile() -> (EmbeddedS3, S3Origin) {
    let s3 = endpoint().await;
    assert!(s3.put(BUCKET, KEY, BODY, PutOptions::default()));
    let origin = origin_with(&s3, s3.keys().clone()).await;
    (s3, origin)
}

async fn fetch(origin: &S3Origin) -> Result<OriginReply, OriginError> {
    origin.fetch(request(&world(), at(0, 0, 0))).await
}

async fn refused(origin: &S3Origin, kind: OriginErrorKind, says: &str) -> OriginError {
    let error = fetch(origin).await.unwrap_err();
    assert_eq!(error.kind, kind, "{error}");
    assert!(error.detail.contains(says), "no '{says}' in: {error}");
    error
}

fn once(s3: &EmbeddedS3, fault: Fault) {
    s3.inject(Some(Operation::GetObject), 1, fault);
}

fn always(s3: &EmbeddedS3, fault: Fault) {
    s3.inject(Some(Operation::GetObject), usize::MAX, fault);
}

#[tokio::test]
async fn odd_keys_are_signed_and_sent_as_they_are() {
    let (s3, origin) = one_tile().await;
    for (n, prefix) in [
        "a b",
        "größe/東京",
        "a+b",
        "100%",
        "%2F%20",
        "it's (1)!*",
        "a//b",
        "q?x=1&y#z",
        "dot./..a",
        "@:,;=$~",
    ]
    .iter()
    .enumerate()
    {
        let odd = tileset("odd", BUCKET, &format!("{prefix}/{{z}}/{{x}}/{{y}}.png"));
        let body = Bytes::from(format!("tile {n}"));
        s3.put(
            BUCKET,
            &format!("{prefix}/0/0/0.png"),
            body.clone(),
            PutOptions::default(),
        );
        let reply = origin.fetch(request(&odd, at(0, 0, 0))).await;
        assert_eq!(found(reply).body, body, "{prefix}");
    }
}

#[tokio::test]
async fn declared_encodings_are_believed_only_where_the_bytes_cannot_tell() {
    let (s3, origin) = one_tile().await;
    let put = |declared: &str, body: &'static [u8]| {
        let options = PutOptions {
            content_encoding: Some(declared.into()),
            ..PutOptions::default()
        };
        assert!(s3.put(BUCKET, KEY, body, options));
    };
    put("gzip", b"\x89PNG");
    assert_eq!(
        found(fetch(&origin).await).encoding,
        ContentEncoding::Identity
    );
    put("aws-chunked,gzip", b"\x1f\x8b\x08x");
    assert_eq!(found(fetch(&origin).await).encoding, ContentEncoding::Gzip);
    put("br", b"\x0b\x02\x80abc\x03");
    assert_eq!(
        found(fetch(&origin).await).encoding,
        ContentEncoding::Brotli
    );
    put("deflate", b"x");
    let error = refused(
        &origin,
        OriginErrorKind::Server,
        "Content-Encoding `deflate`",
    )
    .await;
    assert_eq!(error.scope, ErrorScope::Object);
}

#[tokio::test]
async fn keys_that_are_wrong_are_refused_and_said_to_be() {
    let (s3, _) = one_tile().await;
    let wrong_secret = AccessKeys {
        secret_access_key: "not-the-secret".into(),
        ..s3.keys().clone()
    };
    let origin = origin_with(&s3, wrong_secret).await;
    refused(
        &origin,
        OriginErrorKind::Denied,
        "403 SignatureDoesNotMatch",
    )
    .await;
    let unknown = AccessKeys {
        access_key_id: "AKIAUNKNOWN".into(),
        ..s3.keys().clone()
    };
    let origin = origin_with(&s3, unknown).await;
    let error = refused(&origin, OriginErrorKind::Denied, "403 InvalidAccessKeyId").await;
    assert!(error.detail.contains("request TILEKEEP"), "{error}");
    assert!(!error.detail.contains(&s3.keys().secret_access_key));
    assert_eq!(
        s3.requests(Operation::GetObject),
        2,
        "a denial is not asked again"
    );
}

#[tokio::test]
async fn a_missing_tile_seen_without_list_bucket_is_denied_and_the_hint_says_why() {
    let (s3, _) = one_tile().await;
    let read_only = format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::{BUCKET}/*"}}]}}"#
    );
    let keys = s3.add_user("reader", &read_only).unwrap();
    let origin = origin_with(&s3, keys).await;
    found(fetch(&origin).await);
    s3.delete(BUCKET, KEY);
    refused(&origin, OriginErrorKind::Denied, "s3:ListBucket").await;
}

#[tokio::test]
async fn a_wrong_bucket_is_a_mistake_in_the_config_and_not_a_missing_tile() {
    let (_s3, origin) = one_tile().await;
    let elsewhere = tileset("world", "no-such-bucket", "{z}/{x}/{y}");
    let error = origin
        .fetch(request(&elsewhere, at(0, 0, 0)))
        .await
        .unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::Denied);
    assert!(error.detail.contains("NoSuchBucket"), "{error}");
}

#[tokio::test]
async fn a_wrong_region_is_told_the_right_one() {
    let (s3, origin) = one_tile().await;
    once(&s3, Fault::other_region("eu-central-1"));
    refused(
        &origin,
        OriginErrorKind::Denied,
        "the bucket is in eu-central-1",
    )
    .await;
}

#[tokio::test]
async fn answers_that_are_not_s3s_are_never_tiles_and_never_missing_tiles() {
    let (s3, origin) = one_tile().await;
    once(&s3, Fault::page(404, "<html>nginx</html>"));
    refused(&origin, OriginErrorKind::Server, "endpoint_url").await;
    once(&s3, Fault::page(200, "<html>log in to the Wi-Fi</html>"));
    refused(&origin, OriginErrorKind::Server, "without an ETag").await;
    once(&s3, Fault::page(403, "<html>blocked</html>"));
    refused(&origin, OriginErrorKind::Denied, "proxy or firewall").await;
    once(&s3, Fault::page(304, ""));
    refused(&origin, OriginErrorKind::Server, "304").await;
}

#[tokio::test]
async fn a_short_trouble_is_bridged_by_asking_again() {
    let (s3, origin) = one_tile().await;
    for fault in [
        Fault::internal_error(),
        Fault::slow_down(None),
        Fault::page(502, "bad gateway"),
        Fault::Truncate(3),
        Fault::Reset(3),
        Fault::Reset(0),
        Fault::Corrupt,
    ] {
        let before = s3.requests(Operation::GetObject);
        once(&s3, fault.clone());
        assert_eq!(found(fetch(&origin).await).body, BODY, "{fault:?}");
        assert_eq!(s3.requests(Operation::GetObject) - before, 2, "{fault:?}");
    }
    assert_eq!(origin.retries(), 7);
}

#[tokio::test]
async fn who_is_told_when_to_come_back_does_not_come_sooner() {
    let (s3, origin) = one_tile().await;
    always(&s3, Fault::slow_down(Some(Duration::from_secs(7))));
    let error = refused(&origin, OriginErrorKind::Throttled, "503 SlowDown").await;
    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
    assert_eq!(s3.requests(Operation::GetObject), 1);
}

#[tokio::test]
async fn an_outage_is_not_met_with_three_times_the_load() {
    let (s3, origin) = one_tile().await;
    always(&s3, Fault::internal_error());
    for _ in 0..100 {
        let deadline = Duration::from_millis(600);
        let asked = OriginRequest {
            deadline,
            ..request(&world(), at(0, 0, 0))
        };
        let error = origin.fetch(asked).await.unwrap_err();
        assert_eq!(error.kind, OriginErrorKind::Server, "{error}");
    }
    let asked = s3.requests(Operation::GetObject);
    assert!((100..=120).contains(&asked), "{asked}");
}

#[tokio::test]
async fn bytes_that_differ_from_their_checksum_are_never_a_tile() {
    let (s3, origin) = one_tile().await;
    always(&s3, Fault::Corrupt);
    refused(&origin, OriginErrorKind::Truncated, "checksum").await;
}

#[tokio::test]
async fn bytes_past_the_promised_length_never_reach_the_next_tile() {
    let (s3, origin) = one_tile().await;
    let injected =
        Bytes::from_static(b"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\nwrong");
    once(&s3, Fault::Longer(injected));
    for _ in 0..3 {
        match fetch(&origin).await {
            Ok(OriginReply::Found(tile)) => assert_eq!(tile.body, BODY),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_body_in_chunks_needs_no_content_length() {
    let (s3, origin) = one_tile().await;
    once(&s3, Fault::Chunked);
    assert_eq!(found(fetch(&origin).await).body, BODY);
}

#[tokio::test]
async fn a_body_that_stalls_ends_with_the_deadline_and_says_how_far_it_came() {
    let (s3, origin) = one_tile().await;
    always(&s3, Fault::Stall(4));
    let asked = OriginRequest {
        deadline: Duration::from_millis(300),
        ..request(&world(), at(0, 0, 0))
    };
    let error = origin.fetch(asked).await.unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::Deadline);
    let progress = format!("4 of {} bytes", BODY.len());
    assert!(error.detail.contains(&progress), "{error}");
}

#[tokio::test]
async fn retries_end_with_the_deadline() {
    let (s3, origin) = one_tile().await;
    s3.inject(None, usize::MAX, Fault::internal_error());
    let asked = OriginRequest {
        deadline: Duration::from_millis(10),
        ..request(&world(), at(0, 0, 0))
    };
    let started = Instant::now();
    assert!(origin.fetch(asked).await.is_err());
    assert!(started.elapsed() < Duration::from_millis(500));
    assert!(s3.requests(Operation::GetObject) <= 1);
}

#[tokio::test]
async fn an_object_too_large_for_a_tile_is_not_read() {
    let s3 = endpoint().await;
    assert!(s3.put(BUCKET, KEY, vec![7; 3000], PutOptions::default()));
    let aws = Aws::load(settings(&s3), CredentialSource::Keys(s3.keys().clone())).await;
    let client = aws.unwrap().s3_client(None, &[]).unwrap();
    let origin = S3Origin::new(&client).with_max_object(2999);
    let error = refused(&origin, OriginErrorKind::Server, "3000 bytes").await;
    assert_eq!(error.scope, ErrorScope::Object);
    once(&s3, Fault::Chunked);
    refused(&origin, OriginErrorKind::Server, "3000 bytes").await;
    let origin = S3Origin::new(&client).with_max_object(3000);
    assert_eq!(found(fetch(&origin).await).body.len(), 3000);
}

/// A server that answers one connection with these bytes and closes it.
async fn raw_server(answer: &'static [u8]) -> AwsSettings {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(answer).await;
        }
    });
    AwsSettings {
        region: Some("us-east-1".into()),
        endpoint_url: Some(url),
        path_style: true,
        ..AwsSettings::default()
    }
}

fn some_keys() -> CredentialSource {
    CredentialSource::Keys(AccessKeys {
        access_key_id: "AKIDEXAMPLE".into(),
        secret_access_key: "secret".into(),
        session_token: None,
    })
}

#[tokio::test]
async fn a_body_that_ends_where_the_connection_ends_is_refused() {
    let settings = raw_server(b"HTTP/1.1 200 OK\r\nETag: \"x\"\r\n\r\nhalf a ti").await;
    let aws = Aws::load(settings, some_keys()).await.unwrap();
    let origin = S3Origin::new(&aws.s3_client(None, &[]).unwrap());
    refused(&origin, OriginErrorKind::Truncated, "Content-Length").await;
}

#[tokio::test]
async fn a_server_that_speaks_no_http_is_no_origin() {
    let settings = raw_server(b"SSH-2.0-OpenSSH_9.9\r\n").await;
    let aws = Aws::load(settings, some_keys()).await.unwrap();
    let origin = S3Origin::new(&aws.s3_client(None, &[]).unwrap());
    refused(&origin, OriginErrorKind::Unreachable, "GetObject").await;
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let (s3, origin) = one_tile().await;
    found(fetch(&origin).await);
    s3.shutdown().await;
    refused(&origin, OriginErrorKind::Unreachable, "GetObject s3://").await;
}

#[tokio::test]
async fn a_tileset_can_have_a_client_of_its_own() {
    let (s3, _) = one_tile().await;
    let strangers = AccessKeys {
        access_key_id: "AKIAUNKNOWN".into(),
        ..s3.keys().clone()
    };
    let stranger = Aws::load(settings(&s3), CredentialSource::Keys(strangers)).await;
    let owner = Aws::load(settings(&s3), CredentialSource::Keys(s3.keys().clone())).await;
    let stranger = stranger.unwrap().s3_client(None, &[]).unwrap();
    let owner = owner.unwrap().s3_client(None, &[]).unwrap();
    let origin = S3Origin::new(&stranger).with_tileset_client("world", &owner);
    found(fetch(&origin).await);
}

#[tokio::test]
async fn credentials_that_are_not_there_are_a_denial_that_says_which() {
    use aws_credential_types::credential_fn::provide_credentials_fn;
    use aws_credential_types::provider::error::CredentialsError;
    let (s3, _) = one_tile().await;
    let aws = Aws::load(settings(&s3), CredentialSource::Keys(s3.keys().clone())).await;
    let config = aws.unwrap().s3_config(None, &[]).unwrap();
    let none = provide_credentials_fn(|| async {
        Err(CredentialsError::not_loaded("no profile, no instance role"))
    });
    let client = aws_sdk_s3::Client::from_conf(
        config
            .identity_cache(aws_sdk_s3::config::IdentityCache::no_cache())
            .credentials_provider(none)
            .build(),
    );
    let origin = S3Origin::new(&client);
    refused(
        &origin,
        OriginErrorKind::Denied,
        "no credentials in the environment",
    )
    .await;
    assert_eq!(s3.total_requests(), 0, "never sent");
}

#[tokio::test]
async fn a_bucket_name_that_cannot_be_one_is_not_asked_for_again_and_again() {
    let (s3, origin) = one_tile().await;
    let odd = tileset("world", "Not A Bucket", "{z}/{x}/{y}");
    let error = origin.fetch(request(&odd, at(0, 0, 0))).await.unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::Denied, "{error}");
    assert!(s3.total_requests() <= 1);
}
