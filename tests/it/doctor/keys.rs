//! Credentials: found, believed, and in time.

use super::*;
use crate::credentials::imds::{Imds, Mode};

async fn on_instance(mode: Mode) -> Vec<Finding> {
    let s3 = endpoint().await;
    let imds = Imds::start(mode).await;
    let source = CredentialSource::Imds(Some(imds.endpoint()));
    examined_by(app::patient(&configuration(&s3), source), Clock::System).await
}

const SIGNED: [Check; 4] = [
    Check::Identity,
    Check::Bucket,
    Check::Tile,
    Check::MissingTile,
];

#[tokio::test]
async fn an_instance_without_a_role_is_told() {
    let findings = on_instance(Mode::Roleless).await;
    let remedy = cause(&findings, Check::Credentials);
    assert!(remedy.contains("attach an instance profile"), "{remedy}");
    let reason = &of(&findings, Check::Credentials).reason;
    assert!(reason.contains("the instance has no role"), "{reason}");
    wait_for(&findings, &SIGNED, Check::Credentials);
    assert_eq!(
        status(&findings, Check::Private),
        Status::Ok,
        "asked without keys"
    );
}

#[tokio::test]
async fn a_hop_limit_that_hides_imds_is_told_and_holds_nothing_up() {
    let findings = on_instance(Mode::Slow).await;
    let remedy = cause(&findings, Check::Credentials);
    for words in [
        "HttpPutResponseHopLimit to 2",
        "--http-put-response-hop-limit 2",
    ] {
        assert!(remedy.contains(words), "{remedy}");
    }
    let reason = &of(&findings, Check::Credentials).reason;
    assert!(
        reason.contains("takes connections and does not answer"),
        "{reason}"
    );
    wait_for(&findings, &SIGNED, Check::Credentials);
}

#[tokio::test]
async fn an_imds_in_trouble_is_quoted() {
    let findings = on_instance(Mode::Broken).await;
    cause(&findings, Check::Credentials);
    let reason = &of(&findings, Check::Credentials).reason;
    assert!(reason.contains("EC2 (IMDSv2)"), "{reason}");
    for nothing_there in [Mode::Refusing, Mode::Off] {
        let findings = on_instance(nothing_there).await;
        let remedy = cause(&findings, Check::Credentials);
        assert!(remedy.contains("give the machine a role"), "{remedy}");
    }
}

#[tokio::test]
async fn keys_of_an_instance_are_used_and_their_end_is_told() {
    let s3 = endpoint().await;
    let imds = Imds::start(Mode::Well).await;
    let keys = super::roles::session(&s3, Duration::from_hours(1)).await;
    imds.hand_out(&keys, Clock::System.now() + Duration::from_hours(6));
    let source = CredentialSource::Imds(Some(imds.endpoint()));
    let findings = examined_by(app::patient(&configuration(&s3), source), Clock::System).await;
    let reason = &of(&findings, Check::Credentials).reason;
    assert!(
        reason.contains("from EC2 (IMDSv2)") && reason.contains("until 20"),
        "{reason}"
    );
    assert_eq!(status(&findings, Check::Tile), Status::Ok);
}

#[tokio::test]
async fn expired_keys_are_told_from_unknown_ones() {
    let clock = Clock::manual(support::START);
    let s3 = endpoint_with(|settings| settings.clock = clock.clone()).await;
    let temporary = super::roles::session(&s3, Duration::from_mins(15)).await;
    clock.advance(Duration::from_hours(1));
    let config = configuration(&s3);
    let findings = examined(&config, &temporary).await;
    let remedy = cause(&findings, Check::Identity).to_owned();
    assert!(remedy.contains("time of these keys is over"), "{remedy}");
    assert!(
        of(&findings, Check::Identity)
            .reason
            .contains("ExpiredToken")
    );
    wait_for(&findings, &[Check::Bucket, Check::Tile], Check::Identity);

    let nobody = AccessKeys {
        access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
        secret_access_key: "secret".into(),
        session_token: None,
    };
    let findings = examined(&config, &nobody).await;
    assert!(cause(&findings, Check::Identity).contains("deleted or switched off"));
    let mistyped = AccessKeys {
        secret_access_key: "another".into(),
        ..s3.keys().clone()
    };
    let findings = examined(&config, &mistyped).await;
    assert!(cause(&findings, Check::Identity).contains("secret access key is not this"));

    // Where STS is not asked, S3 finds it out.
    let mut config = config;
    config.aws.sts_endpoint_url = None;
    let findings = examined(&config, &mistyped).await;
    assert_eq!(status(&findings, Check::Identity), Status::Skipped);
    assert!(cause(&findings, Check::Bucket).contains("secret access key is not this"));
    let findings = examined(&config, s3.keys()).await;
    assert_eq!(status(&findings, Check::Tile), Status::Ok);
}

#[tokio::test]
async fn an_sts_out_of_reach_matters_where_a_role_is_assumed() {
    let s3 = endpoint().await;
    let mut config = configuration(&s3);
    config.aws.sts_endpoint_url = Some("http://127.0.0.1:1".into());
    let findings = examined(&config, s3.keys()).await;
    assert_eq!(status(&findings, Check::Identity), Status::Warning);
    assert_eq!(status(&findings, Check::Tile), Status::Ok);
    config.aws.assume_role = Some(super::roles::role());
    let findings = examined(&config, s3.keys()).await;
    cause(&findings, Check::Identity);
    wait_for(
        &findings,
        &[Check::Role, Check::Bucket, Check::Tile],
        Check::Identity,
    );
}
