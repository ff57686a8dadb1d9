//! Roles: trust, permission, external ids, durations, session policies.

use super::*;
use tilekeep::aws::{AssumeRole, Aws, AwsSettings};

pub fn role() -> config::AssumeRole {
    config::AssumeRole {
        arn: ROLE.into(),
        external_id: None,
        session_name: "tilekeep".into(),
        duration: Duration::from_hours(1),
    }
}

/// Temporary keys of the role, for so long.
pub async fn session(s3: &EmbeddedS3, duration: Duration) -> AccessKeys {
    let settings = AwsSettings {
        endpoint_url: Some(s3.endpoint_url()),
        sts_endpoint_url: Some(s3.endpoint_url()),
        ..AwsSettings::default()
    };
    let aws = Aws::load(settings, CredentialSource::Keys(s3.keys().clone()));
    let sts = aws_sdk_sts::Client::new(&aws.await.unwrap().sts_config().unwrap());
    let AssumeRole { arn, .. } = AssumeRole {
        arn: ROLE.into(),
        external_id: None,
        session_name: "person".into(),
        duration,
    };
    let seconds = i32::try_from(duration.as_secs()).unwrap();
    let ask = sts.assume_role().role_arn(arn).role_session_name("person");
    let answer = ask.duration_seconds(seconds).send().await.unwrap();
    let keys = answer.credentials().unwrap();
    AccessKeys {
        access_key_id: keys.access_key_id().into(),
        secret_access_key: keys.secret_access_key().into(),
        session_token: Some(keys.session_token().into()),
    }
}

#[tokio::test]
async fn a_role_that_works_is_asked_with_and_without_its_session_policy() {
    let s3 = endpoint().await;
    let mut config = configuration(&s3);
    config.aws.assume_role = Some(role());
    let findings = examined(&config, s3.keys()).await;
    let assumed = of(&findings, Check::Role);
    assert_eq!(assumed.status, Status::Ok, "{assumed:?}");
    assert!(
        assumed.reason.contains("characters (AWS takes 2048)"),
        "{assumed:?}"
    );
    for check in [
        Check::Tile,
        Check::MissingTile,
        Check::BlockPublicAccess,
        Check::Private,
    ] {
        assert_eq!(status(&findings, check), Status::Ok, "{check:?}");
    }
}

#[tokio::test]
async fn a_trust_policy_that_does_not_let_in_is_told_with_the_line_for_it() {
    let s3 =
        endpoint_with(|settings| settings.roles[0].external_id = Some("acme-7f3a".into())).await;
    let mut config = configuration(&s3);
    config.aws.assume_role = Some(role());
    let findings = examined(&config, s3.keys()).await;
    let remedy = cause(&findings, Check::Role);
    let identity = &of(&findings, Check::Identity).reason;
    let who = identity.split(',').next().unwrap();
    for words in [
        &format!("in the trust policy of {ROLE}, allow \"Principal\": {{ \"AWS\": \"{who}\" }}"),
        "set `external_id` in `assume_role`",
        &format!("\"Action\": \"sts:AssumeRole\", \"Resource\": \"{ROLE}\""),
    ] {
        assert!(remedy.contains(words), "{words} in {remedy}");
    }
    assert!(
        of(&findings, Check::Role)
            .reason
            .contains("not authorized to perform: sts:AssumeRole")
    );
    let waiting = [Check::Bucket, Check::Tile, Check::MissingTile];
    wait_for(&findings, &waiting, Check::Role);
    assert_eq!(status(&findings, Check::Private), Status::Ok);

    let known = config::AssumeRole {
        external_id: Some("acme-7f3a".into()),
        ..role()
    };
    config.aws.assume_role = Some(known);
    assert_eq!(
        status(&examined(&config, s3.keys()).await, Check::Role),
        Status::Ok
    );
    let other = config::AssumeRole {
        external_id: Some("acme".into()),
        ..role()
    };
    config.aws.assume_role = Some(other);
    let findings = examined(&config, s3.keys()).await;
    assert!(cause(&findings, Check::Role).contains("exactly the configured `external_id`"));
}

#[tokio::test]
async fn role_chaining_cuts_durations_to_an_hour() {
    let s3 = endpoint().await;
    let keys = session(&s3, Duration::from_hours(1)).await;
    let mut config = configuration(&s3);
    config.aws.assume_role = Some(config::AssumeRole {
        duration: Duration::from_hours(12),
        ..role()
    });
    let findings = examined(&config, &keys).await;
    let remedy = cause(&findings, Check::Role);
    assert!(
        remedy.contains("set duration = \"1h\" (now \"12h\")"),
        "{remedy}"
    );
    config.aws.assume_role = Some(role());
    let findings = examined(&config, &keys).await;
    assert!(
        of(&findings, Check::Role).reason.contains("role chaining"),
        "{findings:#?}"
    );
    assert_eq!(status(&findings, Check::Tile), Status::Ok);
}

#[tokio::test]
async fn a_duration_past_the_roles_own_is_told() {
    let s3 =
        endpoint_with(|settings| settings.roles[0].max_duration = Duration::from_hours(2)).await;
    let mut config = configuration(&s3);
    config.aws.assume_role = Some(config::AssumeRole {
        duration: Duration::from_hours(3),
        ..role()
    });
    let findings = examined(&config, s3.keys()).await;
    assert!(cause(&findings, Check::Role).contains("--max-session-duration"));
}

#[tokio::test]
async fn a_session_policy_past_2048_characters_is_told_before_sts_says_so() {
    let s3 = endpoint().await;
    let many = |count: usize, bucket: &dyn Fn(usize) -> String| {
        (0..count)
            .map(|i| TilesetSpec {
                bucket: bucket(i),
                key: format!("world/edition-{i:03}/{{z}}/{{x}}/{{y}}.png"),
                ..spec(&format!("edition-{i}"), TileFormat::Png)
            })
            .collect::<Vec<_>>()
    };
    let mut config = configuration_of(&s3, many(60, &|i| format!("acme-tiles-of-edition-{i:03}")));
    config.aws.assume_role = Some(role());
    let calls = s3.sts_calls();
    let findings = examined(&config, s3.keys()).await;
    assert!(cause(&findings, Check::Role).contains("`assume_role` of their own"));
    assert!(of(&findings, Check::Role).reason.contains("2048"));
    assert_eq!(s3.sts_calls(), calls);

    // What still fits by being wider is a warning.
    let mut config = configuration_of(&s3, many(60, &|_| BUCKET.to_owned()));
    config.aws.assume_role = Some(role());
    let findings = examined(&config, s3.keys()).await;
    let assumed = of(&findings, Check::Role);
    assert_eq!(assumed.status, Status::Warning);
    assert!(
        assumed
            .reason
            .contains("what all its tilesets' keys begin with"),
        "{assumed:?}"
    );
}

#[tokio::test]
async fn each_tilesets_role_is_looked_at_by_itself() {
    let s3 = endpoint_with(|settings| {
        settings.roles.push(RoleSettings {
            arn: "arn:aws:iam::000000000000:role/narrow".into(),
            policy: Some(
                r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:ListBucket","Resource":"*"}]}"#
                    .into(),
            ),
            ..role_settings()
        });
    })
    .await;
    s3.put(BUCKET, "values/0/0/0.png", PNG, PutOptions::default());
    let values = TilesetSpec {
        bucket: BUCKET.into(),
        ..spec("values", TileFormat::Png)
    };
    let mut config = configuration_of(&s3, [world(), values]);
    config.aws.assume_role = Some(role());
    config.tilesets[1].assume_role = Some(config::AssumeRole {
        arn: "arn:aws:iam::000000000000:role/narrow".into(),
        ..role()
    });
    let findings = examined(&config, s3.keys()).await;
    let tiles: Vec<_> = findings.iter().filter(|f| f.check == Check::Tile).collect();
    assert_eq!(
        [tiles[0].status, tiles[1].status],
        [Status::Ok, Status::Failed]
    );
    let remedy = cause(&findings, Check::Tile);
    assert!(
        remedy.contains("in the policy of arn:aws:iam::000000000000:role/narrow"),
        "{remedy}"
    );
    let roles = findings.iter().filter(|f| f.check == Check::Role);
    assert_eq!(roles.count(), 2);
}
