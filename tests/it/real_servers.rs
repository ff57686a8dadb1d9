//! The origin against S3 servers that nobody here wrote.

mod contract;
mod killed;
mod objects;
mod relay;
mod versions;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use tilekeep::aws::{AccessKeys, Aws, AwsSettings, CredentialSource};
use tilekeep::origin::Origin as _;
use tilekeep::origin::s3::S3Origin;

use crate::origin_contract::{BUCKET, at, found, request, world};
use crate::peers::{MiniStack, PATIENCE};

/// An origin that reads from a server, as the program makes one.
async fn origin_at(endpoint: &str, keys: AccessKeys) -> S3Origin {
    let settings = AwsSettings {
        region: Some("us-east-1".into()),
        endpoint_url: Some(endpoint.to_owned()),
        path_style: true,
        ..AwsSettings::default()
    };
    let aws = Aws::load(settings, CredentialSource::Keys(keys)).await;
    S3Origin::new(&aws.unwrap().s3_client(None, &[]).unwrap())
}

/// An administrator's client.
fn client_of(endpoint: &str, keys: &AccessKeys) -> Client {
    let (id, secret) = (&keys.access_key_id, &keys.secret_access_key);
    let settings = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .credentials_provider(Credentials::new(id, secret, None, None, "tests"));
    Client::from_conf(settings.build())
}

fn port_of(endpoint: &str) -> u16 {
    endpoint.rsplit_once(':').unwrap().1.parse().unwrap()
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

#[tokio::test]
async fn a_tile_is_read_with_the_keys_of_ministacks_instance_metadata() {
    let stack = MiniStack::start().await;
    crate::peers::python_says(
        "import boto3, sys\n\
         kw = dict(endpoint_url=sys.argv[1], region_name='us-east-1',\n\
                   aws_access_key_id='test', aws_secret_access_key='test')\n\
         s3 = boto3.client('s3', **kw)\n\
         s3.create_bucket(Bucket=sys.argv[2])\n\
         s3.put_object(Bucket=sys.argv[2], Key='world/0/0/0.png', Body=b'tile')\n",
        &[&stack.endpoint(), BUCKET],
    );
    let settings = AwsSettings {
        region: Some("us-east-1".into()),
        endpoint_url: Some(stack.endpoint()),
        path_style: true,
        ..AwsSettings::default()
    };
    // PUT for a token, the role's name, its keys: nothing else is offered to sign with.
    let source = CredentialSource::Imds(Some(stack.endpoint()));
    let aws = Aws::load(settings, source).await.unwrap();
    let origin = S3Origin::new(&aws.s3_client(None, &[]).unwrap());
    assert!(aws.identities().first_answers(PATIENCE).await);
    let tile = found(origin.fetch(request(&world(), at(0, 0, 0))).await);
    assert_eq!(&tile.body[..], b"tile");
}
