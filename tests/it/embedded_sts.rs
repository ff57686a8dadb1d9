//! STS on the embedded endpoint, and the roles that the origin assumes through it.

use std::time::Duration;

use aws_sdk_s3::error::ProvideErrorMetadata;
use tilekeep::aws::{AccessKeys, AssumeRole, Aws, AwsSettings, CredentialSource};
use tilekeep::clock::Clock;
use tilekeep::embedded_s3::{
    BucketSettings, BucketSource, EmbeddedS3, EmbeddedS3Settings, Operation, PutOptions,
    RoleSettings,
};
use tilekeep::origin::s3::S3Origin;
use tilekeep::origin::{Origin, OriginErrorKind};

use crate::origin_contract::{BUCKET, at, found, origin_with, request, settings, world};

const ROLE: &str = "arn:aws:iam::000000000000:role/tiles";

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
            max_duration: Duration::from_hours(12),
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
            duration: Duration::from_hours(1),
        }),
        ..settings(&s3)
    };
    (s3, settings, clock)
}

async fn origin_by_role(s3: &EmbeddedS3, settings: AwsSettings) -> S3Origin {
    let aws = Aws::load(settings, CredentialSource::Keys(s3.keys().clone())).await;
    S3Origin::new(&aws.unwrap().s3_client(None, &[]).unwrap())
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
    clock.advance(Duration::from_hours(1));
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
