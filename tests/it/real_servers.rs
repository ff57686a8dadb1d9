//! The origin against S3 servers that nobody here wrote.

use tilekeep::aws::{Aws, AwsSettings, CredentialSource};
use tilekeep::origin::Origin as _;
use tilekeep::origin::s3::S3Origin;

use crate::origin_contract::{BUCKET, at, found, request, world};
use crate::peers::{MiniStack, Seaweed};

#[tokio::test]
async fn a_tile_is_read_from_seaweedfs() {
    let seaweed = Seaweed::start().await;
    seaweed
        .bucket(BUCKET, &[("world/0/0/0.png", b"tile")])
        .await;
    let settings = AwsSettings {
        region: Some("us-east-1".into()),
        endpoint_url: Some(seaweed.endpoint()),
        path_style: true,
        ..AwsSettings::default()
    };
    let aws = Aws::load(settings, CredentialSource::Keys(seaweed.keys()));
    let origin = S3Origin::new(&aws.await.unwrap().s3_client(None, &[]).unwrap());
    let tile = found(origin.fetch(request(&world(), at(0, 0, 0))).await);
    assert_eq!(&tile.body[..], b"tile");
}

#[tokio::test]
async fn ministack_tells_whose_keys_these_are() {
    let stack = MiniStack::start().await;
    let whose = crate::peers::python_says(
        "import boto3, sys\n\
         kw = dict(endpoint_url=sys.argv[1], region_name='us-east-1',\n\
                   aws_access_key_id='test', aws_secret_access_key='test')\n\
         print(boto3.client('sts', **kw).get_caller_identity()['Account'])",
        &[&stack.endpoint()],
    );
    assert_eq!(whose.trim(), "000000000000");
}
