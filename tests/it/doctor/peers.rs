//! Against servers that nobody here wrote.

use super::*;
use crate::peers::{MiniStack, Seaweed};

#[tokio::test]
async fn seaweedfs_is_found_to_be_right_and_its_trouble_is_told() {
    let seaweed = Seaweed::start().await;
    seaweed
        .bucket(
            BUCKET,
            &[("world/0/0/0.png", PNG), ("world/1/0/0.png", PNG)],
        )
        .await;
    let mut config = support::config([world()]);
    config.aws = config::Aws {
        region: Some("us-east-1".into()),
        endpoint_url: Some(seaweed.endpoint()),
        sts_endpoint_url: Some(seaweed.endpoint()),
        path_style: true,
        assume_role: Some(config::AssumeRole {
            arn: Seaweed::ROLE.into(),
            external_id: None,
            session_name: "tilekeep".into(),
            duration: Duration::from_hours(1),
        }),
    };
    let findings = examined(&config, &seaweed.keys()).await;
    for check in [
        Check::Endpoint,
        Check::Clock,
        Check::Role,
        Check::Bucket,
        Check::Private,
        Check::Tile,
        Check::MissingTile,
    ] {
        assert_eq!(
            status(&findings, check),
            Status::Ok,
            "{:?}",
            of(&findings, check)
        );
    }
    let mistyped = AccessKeys {
        secret_access_key: "another".into(),
        ..seaweed.keys()
    };
    config.aws.assume_role = None;
    config.aws.sts_endpoint_url = None;
    let findings = examined(&config, &mistyped).await;
    assert!(cause(&findings, Check::Bucket).contains("secret access key"));
    config.tilesets[0].tileset = support::tileset(TilesetSpec {
        key: "maps/{z}/{x}/{y}.png".into(),
        ..world()
    });
    let findings = examined(&config, &seaweed.keys()).await;
    let remedy = cause(&findings, Check::Tile);
    assert!(
        remedy.contains("key = \"world/{z}/{x}/{y}.png\""),
        "{remedy}"
    );
}

#[tokio::test]
async fn ministack_that_lets_anybody_in_is_found_out() {
    let stack = MiniStack::start().await;
    crate::peers::python_says(
        "import boto3, sys\n\
         kw = dict(endpoint_url=sys.argv[1], region_name='us-east-1',\n\
                   aws_access_key_id='test', aws_secret_access_key='test')\n\
         s3 = boto3.client('s3', **kw)\n\
         s3.create_bucket(Bucket='acme-tiles')\n\
         s3.put_object(Bucket='acme-tiles', Key='world/0/0/0.png', Body=b'\\x89PNG')\n",
        &[&stack.endpoint()],
    );
    let mut config = support::config([world()]);
    config.aws = config::Aws {
        region: Some("us-east-1".into()),
        endpoint_url: Some(stack.endpoint()),
        sts_endpoint_url: Some(stack.endpoint()),
        path_style: true,
        assume_role: None,
    };
    let keys = AccessKeys {
        access_key_id: "test".into(),
        secret_access_key: "test".into(),
        session_token: None,
    };
    let findings = examined(&config, &keys).await;
    assert_eq!(status(&findings, Check::Identity), Status::Ok);
    assert_eq!(status(&findings, Check::Tile), Status::Ok);
    cause(&findings, Check::Private);
}
