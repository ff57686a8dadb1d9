//! What other people's software makes of it: botocore signs the same, SeaweedFS takes it, boto3 uses it.

use http::{Method, StatusCode};
use tilekeep::app::Provided;
use tilekeep::aws::CredentialSource;
use tilekeep::clock::Clock;
use tilekeep::config;

use super::{World, anna, parameter, role};
use crate::peers::{Seaweed, python_says};
use crate::support::{self, token};

/// Signs the same request at the same time with botocore; prints the signature.
const BOTOCORE: &str = r#"
import datetime, sys
from unittest import mock
from urllib.parse import urlsplit, parse_qsl
import botocore.auth, botocore.awsrequest, botocore.credentials

url, method, key, secret, token = sys.argv[1:]
parts = urlsplit(url)
query = parse_qsl(parts.query, keep_blank_values=True)
ours = {k: v for k, v in query if k.startswith("X-Amz-")}
rest = {k: v for k, v in query if not k.startswith("X-Amz-")}
region = ours["X-Amz-Credential"].split("/")[2]
when = datetime.datetime.strptime(ours["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
class At(datetime.datetime):
    @classmethod
    def utcnow(cls): return when
    @classmethod
    def now(cls, tz=None): return when.replace(tzinfo=tz)
auth = botocore.auth.S3SigV4QueryAuth(
    botocore.credentials.Credentials(key, secret, token or None), "s3", region,
    expires=int(ours["X-Amz-Expires"]))
request = botocore.awsrequest.AWSRequest(
    method=method, url=f"{parts.scheme}://{parts.netloc}{parts.path}", params=rest)
patches = [mock.patch("botocore.auth.datetime", mock.Mock(datetime=At, wraps=datetime))]
if hasattr(botocore.auth, "get_current_datetime"):
    patches.append(mock.patch("botocore.auth.get_current_datetime", lambda *a, **k: when))
for patch in patches: patch.start()
auth.add_auth(request)
theirs = dict(parse_qsl(urlsplit(request.url).query, keep_blank_values=True))
assert theirs == dict(query), (theirs, query)
print(theirs["X-Amz-Signature"])
"#;

// Python blocks its thread, and the servers have others.
#[tokio::test(flavor = "multi_thread")]
async fn botocore_makes_the_same_url() {
    for with_role in [false, true] {
        let world = World::start(|config| config.aws.assume_role = with_role.then(role)).await;
        for path in ["world/1/0/0@2x.png", "moved/0/0/0.png"] {
            let signed = world
                .post(
                    &anna(),
                    &format!("/sign/{path}"),
                    r#"{"expires_in": 86400}"#,
                )
                .await;
            let url = signed.json()["url"].as_str().unwrap().to_owned();
            if with_role {
                // The role's keys are the server's own secret: that there is a token is all that shows.
                assert!(!parameter(&url, "X-Amz-Security-Token").is_empty());
                assert_eq!(world.fetch(Method::GET, &url).await.status, StatusCode::OK);
                continue;
            }
            let keys = world.s3.keys();
            let (id, secret) = (&keys.access_key_id, &keys.secret_access_key);
            let theirs = python_says(BOTOCORE, &[&url, "GET", id, secret, ""]);
            assert_eq!(theirs.trim(), parameter(&url, "X-Amz-Signature"), "{url}");
        }
        let bearer = format!("Bearer {}", token(&anna()));
        let headers = [("authorization", bearer.as_str())];
        let head = world
            .server
            .send(Method::HEAD, "/moved/0/0/0.png", &headers, "")
            .await;
        let url = head.header("location");
        if !with_role {
            let keys = world.s3.keys();
            let (id, secret) = (&keys.access_key_id, &keys.secret_access_key);
            let theirs = python_says(BOTOCORE, &[url, "HEAD", id, secret, ""]);
            assert_eq!(theirs.trim(), parameter(url, "X-Amz-Signature"), "{url}");
        }
    }
}

/// A job with lent credentials: what it can do, a word each.
const JOB: &str = r#"
import json, sys, boto3
from botocore.exceptions import ClientError
endpoint, lent = sys.argv[1], json.loads(sys.argv[2])
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1",
    aws_access_key_id=lent["AccessKeyId"], aws_secret_access_key=lent["SecretAccessKey"],
    aws_session_token=lent["SessionToken"])
def attempt(name, call):
    try:
        call()
        print(name, "done")
    except ClientError as error:
        print(name, error.response["ResponseMetadata"]["HTTPStatusCode"])
attempt("own", lambda: s3.get_object(Bucket="tiles", Key="world/0/0/0.png")["Body"].read())
attempt("other", lambda: s3.get_object(Bucket="tiles", Key="other/0/0/0.png"))
attempt("beside", lambda: s3.get_object(Bucket="tiles", Key="worldly/0/0/0.png"))
attempt("put", lambda: s3.put_object(Bucket="tiles", Key="world/9.png", Body=b"x"))
attempt("delete", lambda: s3.delete_object(Bucket="tiles", Key="world/0/0/0.png"))
attempt("list", lambda: s3.list_objects_v2(Bucket="tiles", Prefix="world/"))
attempt("list-other", lambda: s3.list_objects_v2(Bucket="tiles", Prefix="other/"))
attempt("list-all", lambda: s3.list_objects_v2(Bucket="tiles"))
"#;

#[tokio::test]
async fn seaweedfs_takes_the_urls_and_holds_the_credentials_to_their_prefix() {
    let seaweed = Seaweed::start().await;
    let objects: [(&str, &[u8]); 3] = [
        ("world/0/0/0.png", b"tile"),
        ("other/0/0/0.png", b"secret"),
        ("worldly/0/0/0.png", b"secret"),
    ];
    seaweed.bucket("tiles", &objects).await;
    let mut tilesets = super::tilesets();
    for tileset in &mut tilesets {
        tileset.bucket = "tiles".into();
    }
    let mut config = support::config(tilesets);
    config.aws = config::Aws {
        region: Some("us-east-1".into()),
        endpoint_url: Some(seaweed.endpoint()),
        sts_endpoint_url: Some(seaweed.endpoint()),
        path_style: true,
        assume_role: None,
    };
    config.tilesets[0].assume_role = Some(config::AssumeRole {
        arn: Seaweed::ROLE.into(),
        ..role()
    });
    let provided = Provided {
        credentials: CredentialSource::Keys(seaweed.keys()),
        keys: Some(support::keys()),
        clock: Clock::System,
        ..Provided::default()
    };
    let server = support::launch(config, provided).await;
    let bearer = format!("Bearer {}", token(&anna()));
    let headers = [("authorization", bearer.as_str())];
    let fetch = async |method: Method, url: &str| {
        let rest = url.strip_prefix("http://").unwrap();
        let (host, path) = rest.split_once('/').unwrap();
        let path = format!("/{path}");
        server
            .send_to(host.parse().unwrap(), method, &path, &[], "")
            .await
    };

    // Signed with the role's keys, and with the first ones.
    let signed = server
        .send(Method::POST, "/sign/world/0/0/0.png", &headers, "")
        .await;
    assert_eq!(signed.status, StatusCode::OK, "{signed:?}");
    let url = signed.json()["url"].as_str().unwrap().to_owned();
    let tile = fetch(Method::GET, &url).await;
    assert_eq!(tile.status, StatusCode::OK, "{tile:?}");
    assert_eq!(&tile.body[..], b"tile");
    assert_eq!(tile.header("cache-control"), "private, max-age=300");
    assert_eq!(tile.header("content-type"), "image/png");
    for tampered in [
        url.replace("world/0/0/0", "other/0/0/0"),
        url.replace("X-Amz-Expires=", "X-Amz-Expires=1"),
        url.replace("X-Amz-Signature=", "X-Amz-Signature=0"),
    ] {
        let refused = fetch(Method::GET, &tampered).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{tampered}");
    }
    let moved = server
        .send(Method::HEAD, "/moved/0/0/0.png", &headers, "")
        .await;
    assert_eq!(moved.status, StatusCode::FOUND);
    let missing = fetch(Method::HEAD, moved.header("location")).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);

    let wish = r#"{"tileset": "world", "duration_seconds": 900}"#;
    let lent = server
        .send(Method::POST, "/credentials", &headers, wish)
        .await;
    assert_eq!(lent.status, StatusCode::OK, "{lent:?}");
    let lent = String::from_utf8(lent.body.to_vec()).unwrap();
    let done = python_says(JOB, &[&seaweed.endpoint(), &lent]);
    let done: Vec<_> = done.lines().collect();
    assert_eq!(
        done,
        [
            "own done",
            "other 403",
            "beside 403",
            "put 403",
            "delete 403",
            "list done",
            "list-other 403",
            "list-all 403",
        ]
    );
    server.stop().await;
}
