//! The embedded endpoint, seen by AWS's own SDK and by plain HTTP.

use std::time::Duration;

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use tilekeep::aws::{AccessKeys, AssumeRole, Aws, AwsSettings, CredentialSource};
use tilekeep::clock::{Clock, Timestamp};
use tilekeep::embedded_s3::{
    BucketSettings, BucketSource, EmbeddedS3, EmbeddedS3Settings, Operation, PutOptions,
    RoleSettings,
};
use tilekeep::origin::s3::S3Origin;
use tilekeep::origin::{Origin, OriginErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::origin_contract::{BUCKET, at, endpoint, found, origin_with, request, settings, world};

const ROLE: &str = "arn:aws:iam::000000000000:role/tiles";

async fn client(s3: &EmbeddedS3) -> aws_sdk_s3::Client {
    let aws = Aws::load(settings(s3), CredentialSource::Keys(s3.keys().clone())).await;
    aws.unwrap().s3_client(None).await.unwrap()
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
    let for_a_minute = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
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

/// An endpoint with a role, on a clock of its own, and the settings to assume the role.
async fn with_role(policy: Option<String>) -> (EmbeddedS3, AwsSettings, Clock) {
    let system = Clock::System.now();
    let clock = Clock::manual(system);
    let s3 = EmbeddedS3::start(EmbeddedS3Settings {
        buckets: vec![BucketSettings::private(BUCKET, BucketSource::Empty)],
        roles: vec![RoleSettings {
            arn: ROLE.into(),
            external_id: Some("open sesame".into()),
            policy,
            max_duration: Duration::from_secs(43_200),
        }],
        clock: clock.clone(),
        ..EmbeddedS3Settings::default()
    })
    .await
    .unwrap();
    s3.put(BUCKET, "world/0/0/0.png", "tile", PutOptions::default());
    let settings = AwsSettings {
        assume_role: Some(AssumeRole {
            arn: ROLE.into(),
            external_id: Some("open sesame".into()),
            session_name: "tilekeep".into(),
            duration: Duration::from_secs(3600),
        }),
        ..settings(&s3)
    };
    (s3, settings, clock)
}

async fn origin_by_role(s3: &EmbeddedS3, settings: AwsSettings) -> S3Origin {
    let aws = Aws::load(settings, CredentialSource::Keys(s3.keys().clone())).await;
    S3Origin::new(&aws.unwrap().s3_client(None).await.unwrap())
}

#[tokio::test]
async fn sts_is_asked_once_for_many_tiles() {
    let (s3, settings, _) = with_role(None).await;
    let origin = std::sync::Arc::new(origin_by_role(&s3, settings).await);
    let fetches = (0..30).map(|_| {
        let origin = std::sync::Arc::clone(&origin);
        tokio::spawn(async move { origin.fetch(request(&world(), at(0, 0, 0))).await })
    });
    for fetch in fetches.collect::<Vec<_>>() {
        found(fetch.await.unwrap());
    }
    assert_eq!(s3.requests(Operation::GetObject), 30);
    assert_eq!(s3.sts_calls(), 1);
}

#[tokio::test]
async fn a_session_token_that_has_expired_is_refused() {
    let (s3, settings, clock) = with_role(None).await;
    let origin = origin_by_role(&s3, settings).await;
    found(origin.fetch(request(&world(), at(0, 0, 0))).await);
    clock.advance(Duration::from_secs(3600));
    let error = origin
        .fetch(request(&world(), at(0, 0, 0)))
        .await
        .unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::Denied);
    assert!(error.detail.contains("ExpiredToken"), "{error}");
}

#[tokio::test]
async fn temporary_keys_without_their_token_are_refused() {
    let (s3, _, _) = with_role(None).await;
    let keys = assume(&s3, |call| call).await.unwrap();
    found(
        origin_with(&s3, keys.clone())
            .await
            .fetch(request(&world(), at(0, 0, 0)))
            .await,
    );
    for token in [None, Some("another".to_owned())] {
        let keys = AccessKeys {
            session_token: token,
            ..keys.clone()
        };
        let origin = origin_with(&s3, keys).await;
        let error = origin
            .fetch(request(&world(), at(0, 0, 0)))
            .await
            .unwrap_err();
        assert!(error.detail.contains("InvalidToken"), "{error}");
    }
}

#[tokio::test]
async fn a_role_that_may_not_be_assumed_is_denied_and_no_secret_is_told() {
    let (s3, mut settings, _) = with_role(None).await;
    if let Some(role) = &mut settings.assume_role {
        role.external_id = None;
    }
    let origin = origin_by_role(&s3, settings).await;
    let error = origin
        .fetch(request(&world(), at(0, 0, 0)))
        .await
        .unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::Denied);
    assert!(error.detail.contains("sts:AssumeRole"), "{error}");
    assert!(!error.detail.contains(&s3.keys().secret_access_key));
    assert_eq!(s3.requests(Operation::GetObject), 0, "it was never sent");
}

type AssumeCall = aws_sdk_sts::operation::assume_role::builders::AssumeRoleFluentBuilder;

/// Temporary keys, asked for by hand.
async fn assume(
    s3: &EmbeddedS3,
    with: impl FnOnce(AssumeCall) -> AssumeCall,
) -> Result<AccessKeys, String> {
    let aws = Aws::load(settings(s3), CredentialSource::Keys(s3.keys().clone())).await;
    let sts = aws_sdk_sts::Client::new(&aws.unwrap().sts_config().unwrap());
    let call = sts
        .assume_role()
        .role_arn(ROLE)
        .role_session_name("test")
        .external_id("open sesame");
    let answer = with(call).send().await;
    let answer = answer.map_err(|e| e.code().unwrap_or("none").to_owned())?;
    let keys = answer.credentials().unwrap();
    Ok(AccessKeys {
        access_key_id: keys.access_key_id().into(),
        secret_access_key: keys.secret_access_key().into(),
        session_token: Some(keys.session_token().into()),
    })
}

fn read_prefix(prefix: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::{BUCKET}/{prefix}*"}}]}}"#
    )
}

#[tokio::test]
async fn a_session_policy_narrows_what_the_keys_may_read() {
    let (s3, _, _) = with_role(None).await;
    let world_only = assume(&s3, |call| call.policy(read_prefix("world/")))
        .await
        .unwrap();
    found(
        origin_with(&s3, world_only)
            .await
            .fetch(request(&world(), at(0, 0, 0)))
            .await,
    );
    let others_only = assume(&s3, |call| call.policy(read_prefix("values/")))
        .await
        .unwrap();
    let origin = origin_with(&s3, others_only).await;
    let error = origin
        .fetch(request(&world(), at(0, 0, 0)))
        .await
        .unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::Denied);
}

#[tokio::test]
async fn a_session_policy_never_widens_the_roles_own() {
    let (s3, _, _) = with_role(Some(read_prefix("values/"))).await;
    let keys = assume(&s3, |call| call.policy(read_prefix("world/")))
        .await
        .unwrap();
    let origin = origin_with(&s3, keys).await;
    let error = origin
        .fetch(request(&world(), at(0, 0, 0)))
        .await
        .unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::Denied);
}

#[tokio::test]
async fn sts_says_what_is_wrong_in_its_own_words() {
    let (s3, _, _) = with_role(None).await;
    let with_condition = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{}}}"#;
    for (code, answer) in [
        (
            "AccessDenied",
            assume(&s3, |c| c.external_id("wrong")).await,
        ),
        (
            "AccessDenied",
            assume(&s3, |c| c.role_arn("arn:aws:iam::1:role/no")).await,
        ),
        (
            "ValidationError",
            assume(&s3, |c| c.duration_seconds(60)).await,
        ),
        (
            "ValidationError",
            assume(&s3, |c| c.role_session_name("ä")).await,
        ),
        (
            "MalformedPolicyDocument",
            assume(&s3, |c| c.policy(with_condition)).await,
        ),
        (
            "PackedPolicyTooLarge",
            assume(&s3, |c| c.policy("x".repeat(2049))).await,
        ),
    ] {
        assert_eq!(answer.unwrap_err(), code);
    }
    let stranger = AccessKeys {
        access_key_id: "AKIAUNKNOWN".into(),
        ..s3.keys().clone()
    };
    let aws = Aws::load(settings(&s3), CredentialSource::Keys(stranger))
        .await
        .unwrap();
    let sts = aws_sdk_sts::Client::new(&aws.sts_config().unwrap());
    let error = sts.get_caller_identity().send().await.unwrap_err();
    assert_eq!(error.code(), Some("InvalidClientTokenId"));
}

#[tokio::test]
async fn sts_tells_who_one_is() {
    let (s3, _, _) = with_role(None).await;
    let keys = assume(&s3, |call| call).await.unwrap();
    let aws = Aws::load(settings(&s3), CredentialSource::Keys(keys))
        .await
        .unwrap();
    let sts = aws_sdk_sts::Client::new(&aws.sts_config().unwrap());
    let me = sts.get_caller_identity().send().await.unwrap();
    assert_eq!(
        me.arn(),
        Some("arn:aws:sts::000000000000:assumed-role/tiles/test")
    );
}

#[tokio::test]
async fn keys_from_a_role_live_an_hour_at_most_when_they_assume_another() {
    let (s3, _, _) = with_role(None).await;
    let keys = assume(&s3, |call| call).await.unwrap();
    let aws = Aws::load(settings(&s3), CredentialSource::Keys(keys))
        .await
        .unwrap();
    let sts = aws_sdk_sts::Client::new(&aws.sts_config().unwrap());
    let chained = sts
        .assume_role()
        .role_arn(ROLE)
        .role_session_name("b2")
        .external_id("open sesame");
    let error = chained
        .clone()
        .duration_seconds(7200)
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some("ValidationError"));
    assert!(chained.duration_seconds(3600).send().await.is_ok());
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
