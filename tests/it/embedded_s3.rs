//! The embedded endpoint, seen by AWS's own SDK and by plain HTTP.

use std::time::Duration;

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use tilekeep::aws::{Aws, CredentialSource};
use tilekeep::clock::Timestamp;
use tilekeep::embedded_s3::{
    BucketSettings, BucketSource, EmbeddedS3, EmbeddedS3Settings, Fault, PutOptions,
};
use tilekeep::origin::{Origin, OriginErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::origin_contract::{BUCKET, at, endpoint, found, origin_with, request, settings, world};

async fn client(s3: &EmbeddedS3) -> aws_sdk_s3::Client {
    let aws = Aws::load(settings(s3), CredentialSource::Keys(s3.keys().clone())).await;
    aws.unwrap().s3_client(None, &[]).unwrap()
}

/// A request without the SDK: status line, headers, body.
async fn plain(s3: &EmbeddedS3, request_line: &str, headers: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(s3.addr()).await.unwrap();
    let host = s3.addr();
    let head =
        format!("{request_line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_get_without_a_signature_is_refused_as_s3_refuses_it() {
    let s3 = endpoint().await;
    s3.put(BUCKET, "k", "secret pixels", PutOptions::default());
    let answer = plain(&s3, &format!("GET /{BUCKET}/k"), "").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(answer.contains("<Code>AccessDenied</Code>"), "{answer}");
    assert!(answer.contains("x-amz-request-id"), "{answer}");
    assert!(!answer.contains("secret pixels"));
    let missing = plain(&s3, &format!("GET /{BUCKET}/missing"), "").await;
    assert!(
        missing.starts_with("HTTP/1.1 403"),
        "what is there is not told either"
    );
    let old = "Authorization: AWS AKID:c2lnbmF0dXJl\r\nDate: Sun, 22 Nov 2026 00:00:00 GMT\r\n";
    let answer = plain(&s3, &format!("GET /{BUCKET}/k"), old).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") || answer.starts_with("HTTP/1.1 400"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_bucket_made_public_is_public_and_says_so() {
    let s3 = EmbeddedS3::start(EmbeddedS3Settings {
        buckets: vec![BucketSettings {
            public_read: true,
            block_public_access: false,
            ..BucketSettings::private(BUCKET, BucketSource::Empty)
        }],
        ..EmbeddedS3Settings::default()
    })
    .await
    .unwrap();
    s3.put(BUCKET, "k", "pixels", PutOptions::default());
    assert!(
        plain(&s3, &format!("GET /{BUCKET}/k"), "")
            .await
            .ends_with("pixels")
    );
    let client = client(&s3).await;
    let status = client
        .get_bucket_policy_status()
        .bucket(BUCKET)
        .send()
        .await;
    assert_eq!(
        status.unwrap().policy_status().unwrap().is_public(),
        Some(true)
    );
    let block = client.get_public_access_block().bucket(BUCKET).send().await;
    let error = block.unwrap_err();
    assert_eq!(error.code(), Some("NoSuchPublicAccessBlockConfiguration"));
}

#[tokio::test]
async fn faults_do_on_the_wire_what_they_say() {
    let s3 = EmbeddedS3::start(EmbeddedS3Settings {
        buckets: vec![BucketSettings {
            public_read: true,
            ..BucketSettings::private(BUCKET, BucketSource::Empty)
        }],
        ..EmbeddedS3Settings::default()
    })
    .await
    .unwrap();
    s3.put(BUCKET, "k", "0123456789", PutOptions::default());
    let read = async |fault| {
        s3.inject(None, 1, fault);
        let mut stream = tokio::net::TcpStream::connect(s3.addr()).await.unwrap();
        let head = format!("GET /{BUCKET}/k HTTP/1.1\r\nHost: {}\r\n\r\n", s3.addr());
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        let end = tokio::time::timeout(Duration::from_millis(300), end).await;
        (String::from_utf8_lossy(&answer).into_owned(), end.ok())
    };
    let (answer, end) = read(Fault::Truncate(4)).await;
    assert!(answer.contains("content-length: 10\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n0123"), "{answer}");
    assert!(matches!(end, Some(Ok(_))), "closed: {end:?}");
    let (answer, end) = read(Fault::Reset(4)).await;
    assert!(answer.ends_with("\r\n\r\n0123"), "{answer}");
    assert!(matches!(end, Some(Err(_))), "reset: {end:?}");
    let (answer, end) = read(Fault::Stall(4)).await;
    assert!(answer.ends_with("\r\n\r\n0123"), "{answer}");
    assert!(end.is_none(), "still open: {end:?}");
    let (answer, _) = read(Fault::Longer("more".into())).await;
    assert!(answer.ends_with("\r\n\r\n0123456789more"), "{answer}");
    let (answer, _) = read(Fault::Corrupt).await;
    assert!(answer.ends_with("\r\n\r\n1123456789"), "{answer}");
    let (answer, _) = read(Fault::Chunked).await;
    assert!(
        answer.ends_with("\r\nA\r\n0123456789\r\n0\r\n\r\n"),
        "{answer}"
    );
    let (answer, end) = read(Fault::NeverAnswer).await;
    assert!(answer.is_empty() && end.is_none());
}

#[tokio::test]
async fn it_listens_on_loopback_alone() {
    let everywhere = EmbeddedS3Settings {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..EmbeddedS3Settings::default()
    };
    let error = EmbeddedS3::start(everywhere).await.unwrap_err();
    assert!(error.to_string().contains("loopback"), "{error}");
}

#[tokio::test]
async fn it_ends_when_told_even_with_connections_open() {
    let s3 = endpoint().await;
    let origin = origin_with(&s3, s3.keys().clone()).await;
    let _ = origin.fetch(request(&world(), at(0, 0, 0))).await;
    let addr = s3.addr();
    let ended = tokio::time::timeout(Duration::from_secs(3), s3.shutdown()).await;
    assert!(ended.is_ok());
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn an_object_put_by_the_sdk_comes_back_as_it_was_described() {
    let s3 = endpoint().await;
    let client = client(&s3).await;
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key("a b/ü.mvt")
        .body(ByteStream::from_static(b"\x1f\x8b\x08tile"))
        .content_encoding("gzip")
        .content_type("application/vnd.mapbox-vector-tile")
        .cache_control("max-age=60")
        .send()
        .await
        .unwrap();
    let get = client.get_object().bucket(BUCKET).key("a b/ü.mvt");
    let got = get.send().await.unwrap();
    assert_eq!(got.e_tag(), put.e_tag());
    assert_eq!(got.content_encoding(), Some("gzip"));
    assert_eq!(got.cache_control(), Some("max-age=60"));
    assert!(got.checksum_crc64_nvme().is_some());
    assert_eq!(
        got.body.collect().await.unwrap().to_vec(),
        b"\x1f\x8b\x08tile"
    );
    // MD5 in quotes, as S3 makes it for a simple upload.
    let known = client
        .put_object()
        .bucket(BUCKET)
        .key("hello")
        .body(ByteStream::from_static(b"hello"));
    let etag = known.send().await.unwrap();
    assert_eq!(etag.e_tag(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    let head = client
        .head_object()
        .bucket(BUCKET)
        .key("hello")
        .send()
        .await
        .unwrap();
    assert_eq!(head.content_length(), Some(5));
    client
        .delete_object()
        .bucket(BUCKET)
        .key("hello")
        .send()
        .await
        .unwrap();
    let gone = client
        .head_object()
        .bucket(BUCKET)
        .key("hello")
        .send()
        .await
        .unwrap_err();
    assert!(gone.into_service_error().is_not_found());
}

#[tokio::test]
async fn conditions_and_ranges_are_kept() {
    let s3 = endpoint().await;
    let client = client(&s3).await;
    s3.put(BUCKET, "k", "0123456789", PutOptions::default());
    let get = || client.get_object().bucket(BUCKET).key("k");
    let etag = get().send().await.unwrap().e_tag().unwrap().to_owned();
    let status =
        |error: &aws_sdk_s3::error::SdkError<_>| error.raw_response().map(|r| r.status().as_u16());
    let same = get().if_none_match(&etag).send().await.unwrap_err();
    assert_eq!(status(&same), Some(304));
    assert!(get().if_none_match("\"other\"").send().await.is_ok());
    let other = get().if_match("\"other\"").send().await.unwrap_err();
    assert_eq!(status(&other), Some(412));
    let later = aws_sdk_s3::primitives::DateTime::from_secs(4_000_000_000);
    let unmodified = get().if_modified_since(later).send().await.unwrap_err();
    assert_eq!(status(&unmodified), Some(304));
    let part = get().range("bytes=2-4").send().await.unwrap();
    assert_eq!(part.content_range(), Some("bytes 2-4/10"));
    assert_eq!(part.body.collect().await.unwrap().to_vec(), b"234");
    let beyond = get().range("bytes=10-").send().await.unwrap_err();
    assert_eq!(status(&beyond), Some(416));
}

#[tokio::test]
async fn a_listing_has_pages_prefixes_and_delimiters() {
    let s3 = endpoint().await;
    let client = client(&s3).await;
    for x in 0..5 {
        for y in 0..3 {
            s3.put(
                BUCKET,
                &format!("w/3/{x}/{y}.png"),
                "t",
                PutOptions::default(),
            );
        }
    }
    s3.put(BUCKET, "z", "t", PutOptions::default());
    let list = || client.list_objects_v2().bucket(BUCKET);
    let mut pages = list().prefix("w/").max_keys(4).into_paginator().send();
    let mut sizes = Vec::new();
    while let Some(page) = pages.next().await {
        sizes.push(page.unwrap().contents().len());
    }
    assert_eq!(sizes, [4, 4, 4, 3]);
    let mut folders = Vec::new();
    let mut pages = list()
        .prefix("w/3/")
        .delimiter("/")
        .max_keys(2)
        .into_paginator()
        .send();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        folders.extend(
            page.common_prefixes()
                .iter()
                .map(|p| p.prefix().unwrap().to_owned()),
        );
    }
    assert_eq!(folders, ["w/3/0/", "w/3/1/", "w/3/2/", "w/3/3/", "w/3/4/"]);
    assert_eq!(
        list().start_after("w/4").send().await.unwrap().key_count(),
        Some(1)
    );
}

#[tokio::test]
async fn a_presigned_url_works_without_headers_and_only_as_it_was_signed() {
    let s3 = endpoint().await;
    s3.put(BUCKET, "k", "pixels", PutOptions::default());
    let client = client(&s3).await;
    let for_a_minute = PresigningConfig::expires_in(Duration::from_mins(1)).unwrap();
    let url = client
        .get_object()
        .bucket(BUCKET)
        .key("k")
        .response_cache_control("private, max-age=60")
        .presigned(for_a_minute)
        .await
        .unwrap();
    let path = url.uri().strip_prefix(&s3.endpoint_url()).unwrap();
    let answer = plain(&s3, &format!("GET {path}"), "").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("pixels"),
        "{answer}"
    );
    assert!(
        answer.contains("cache-control: private, max-age=60"),
        "{answer}"
    );
    let forged = path.replace("max-age%3D60", "max-age%3D61");
    assert_ne!(forged, path);
    let answer = plain(&s3, &format!("GET {forged}"), "").await;
    assert!(answer.contains("SignatureDoesNotMatch"), "{answer}");
}

#[tokio::test]
async fn what_is_not_served_is_said_not_to_be() {
    let s3 = endpoint().await;
    let client = client(&s3).await;
    let error = client
        .get_bucket_acl()
        .bucket(BUCKET)
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some("NotImplemented"));
}

#[tokio::test]
async fn a_request_signed_for_another_region_is_refused() {
    let s3 = EmbeddedS3::start(EmbeddedS3Settings {
        buckets: vec![BucketSettings::private(BUCKET, BucketSource::Empty)],
        region: Some("eu-west-1".into()),
        ..EmbeddedS3Settings::default()
    })
    .await
    .unwrap();
    let origin = origin_with(&s3, s3.keys().clone()).await;
    let error = origin
        .fetch(request(&world(), at(0, 0, 0)))
        .await
        .unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::Denied);
    assert!(
        error.detail.contains("the bucket is in eu-west-1"),
        "{error}"
    );
}

#[tokio::test]
async fn a_folder_is_served_as_it_is_now() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("world/0/0")).unwrap();
    let file = folder.path().join("world/0/0/0.png");
    std::fs::write(&file, "first").unwrap();
    let s3 = EmbeddedS3::start(EmbeddedS3Settings {
        buckets: vec![BucketSettings::private(
            BUCKET,
            BucketSource::Folder(folder.path().to_owned()),
        )],
        ..EmbeddedS3Settings::default()
    })
    .await
    .unwrap();
    let origin = origin_with(&s3, s3.keys().clone()).await;
    assert_eq!(
        found(origin.fetch(request(&world(), at(0, 0, 0))).await).body,
        "first"
    );
    std::fs::write(&file, "second").unwrap();
    let tile = found(origin.fetch(request(&world(), at(0, 0, 0))).await);
    assert_eq!(tile.body, "second");
    assert!(
        tile.last_modified
            .is_some_and(|at| at > Timestamp::from_secs(1_700_000_000).secs())
    );
}
