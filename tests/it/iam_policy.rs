//! `tilekeep iam-policy`: what it prints is tried on servers that enforce policies, and what it says of others.

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tilekeep::aws::{AccessKeys, Aws, AwsSettings, CredentialSource};
use tilekeep::embedded_s3::{
    BucketSettings, BucketSource, EmbeddedS3, EmbeddedS3Settings, PutOptions,
};
use tilekeep::origin::s3::S3Origin;
use tilekeep::origin::{Origin as _, OriginErrorKind, OriginReply};
use tilekeep::tile::TileFormat;

use crate::origin_contract::{at, request};
use crate::peers::{MiniStack, Seaweed, python_says};
use crate::support::{spec, tileset};

const CONFIG: &str = "
[session]
keys = [{ id = 'a', secret = { env = 'NOT_SET_ON_THIS_MACHINE' } }]
[aws]
region = 'eu-west-1'
[tilesets.world]
bucket = 'bucket'
key = 'world/{version}/{z}/{x}/{y}.png'
version = '1'
";

fn run(config: &str, arguments: &[&str], input: &str) -> Output {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tilekeep.toml");
    std::fs::write(&file, config).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tilekeep"))
        .args(["iam-policy", "--config", file.to_str().unwrap()])
        .args(arguments)
        .env_remove("AWS_REGION")
        .env_remove("TILEKEEP_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn printed(config: &str, arguments: &[&str]) -> Value {
    let output = run(config, arguments, "");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn reads(endpoint: String, keys: AccessKeys, key: &str) -> Result<bool, OriginErrorKind> {
    let settings = AwsSettings {
        endpoint_url: Some(endpoint),
        path_style: true,
        ..AwsSettings::default()
    };
    let aws = Aws::load(settings, CredentialSource::Keys(keys)).await;
    let origin = S3Origin::new(&aws.unwrap().s3_client(None, &[]).unwrap());
    let mut wanted = spec("world", TileFormat::Png);
    wanted.key = key.into();
    let reply = origin.fetch(request(&tileset(wanted), at(0, 0, 0))).await;
    match reply {
        Ok(OriginReply::Found(_)) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) => Err(error.kind),
    }
}

/// One tile inside, one missing, one elsewhere.
const TILE: &str = "world/1/{z}/{x}/{y}.png";
const MISSING: &str = "world/2/{z}/{x}/{y}.png";
const ELSEWHERE: &str = "other/{z}/{x}/{y}.png";

#[tokio::test]
async fn exactly_what_is_printed_serves_the_tileset_and_nothing_beside_it() {
    let policy = printed(CONFIG, &[])["policy"].to_string();
    let s3 = EmbeddedS3::start(EmbeddedS3Settings {
        buckets: vec![BucketSettings::private("bucket", BucketSource::Empty)],
        ..EmbeddedS3Settings::default()
    })
    .await
    .unwrap();
    for key in ["world/1/0/0/0.png", "other/0/0/0.png"] {
        s3.put("bucket", key, "tile", PutOptions::default());
    }
    let keys = s3.add_user("tilekeep", &policy).unwrap();
    let reads = |key| reads(s3.endpoint_url(), keys.clone(), key);
    assert_eq!(reads(TILE).await, Ok(true));
    assert_eq!(reads(MISSING).await, Ok(false), "missing, not denied");
    assert_eq!(reads(ELSEWHERE).await, Err(OriginErrorKind::Denied));
}

#[tokio::test]
async fn seaweedfs_enforces_what_is_printed_as_it_is_meant() {
    let policy = printed(CONFIG, &[])["policy"].to_string();
    let weed = Seaweed::start().await;
    let tile = b"tile".as_slice();
    let objects = [("world/1/0/0/0.png", tile), ("other/0/0/0.png", tile)];
    weed.bucket("bucket", &objects).await;
    let program = "
import sys, boto3
endpoint, role, policy, key, secret = sys.argv[1:]
sts = boto3.client('sts', endpoint_url=endpoint, region_name='us-east-1', aws_access_key_id=key, aws_secret_access_key=secret)
got = sts.assume_role(RoleArn=role, RoleSessionName='tilekeep', Policy=policy)['Credentials']
print(got['AccessKeyId'], got['SecretAccessKey'], got['SessionToken'])
";
    let admin = weed.keys();
    let said = python_says(
        program,
        &[
            &weed.endpoint(),
            Seaweed::ROLE,
            &policy,
            &admin.access_key_id,
            &admin.secret_access_key,
        ],
    );
    let words: Vec<&str> = said.split_whitespace().collect();
    let keys = AccessKeys {
        access_key_id: words[0].into(),
        secret_access_key: words[1].into(),
        session_token: Some(words[2].into()),
    };
    let reads = |key| reads(weed.endpoint(), keys.clone(), key);
    assert_eq!(reads(TILE).await, Ok(true));
    assert_eq!(reads(MISSING).await, Ok(false), "missing, not denied");
    assert_eq!(reads(ELSEWHERE).await, Err(OriginErrorKind::Denied));
}

#[tokio::test]
async fn an_iam_takes_policy_and_trust() {
    let config = CONFIG.replace(
        "region = 'eu-west-1'",
        "assume_role = { arn = 'arn:aws:iam::000000000000:role/tiles', external_id = 'acme-7' }",
    );
    let whose = "arn:aws:iam::000000000000:role/server";
    let all = printed(&config, &["--principal", whose]);
    assert_eq!(all["for"], "arn:aws:iam::000000000000:role/tiles");
    assert_eq!(all["trust"]["Statement"][0]["Principal"]["AWS"], whose);
    let ministack = MiniStack::start().await;
    let program = "
import sys, json, boto3
endpoint, printed = sys.argv[1], json.loads(sys.argv[2])
iam = boto3.client('iam', endpoint_url=endpoint, region_name='us-east-1', aws_access_key_id='a', aws_secret_access_key='b')
made = iam.create_policy(PolicyName='read', PolicyDocument=json.dumps(printed['policy']))['Policy']
iam.create_role(RoleName='tiles', AssumeRolePolicyDocument=json.dumps(printed['trust']))
iam.attach_role_policy(RoleName='tiles', PolicyArn=made['Arn'])
iam.create_user(UserName='server')
iam.put_user_policy(UserName='server', PolicyName='assume', PolicyDocument=json.dumps(printed['caller']['policy']))
back = iam.get_policy_version(PolicyArn=made['Arn'], VersionId='v1')['PolicyVersion']['Document']
trust = iam.get_role(RoleName='tiles')['Role']['AssumeRolePolicyDocument']
print(json.dumps({'policy': back, 'trust': trust}))
";
    let back = python_says(program, &[&ministack.endpoint(), &all.to_string()]);
    let back: Value = serde_json::from_str(&back).unwrap();
    assert_eq!(back["policy"], all["policy"]);
    assert_eq!(back["trust"], all["trust"]);
    // As `aws iam get-policy-version` prints it.
    let wrapped =
        serde_json::json!({"PolicyVersion": {"Document": back["policy"], "VersionId": "v1"}});
    let checked = run(&config, &["--check", "-"], &wrapped.to_string());
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
}

#[test]
fn a_policy_from_a_tutorial_is_explained_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tutorial.json");
    let tutorial = r#"{"Version": "2026-11-22", "Statement": [{"Sid": "Tiles", "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:PutObject"], "Resource": "arn:aws:s3:::bucket"}]}"#;
    std::fs::write(&file, tutorial).unwrap();
    let name = file.to_str().unwrap();
    let output = run(CONFIG, &["--check", name], "");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 5, "{said}");
    for (line, words) in lines.iter().zip([
        "no `Version` \"2026-11-22\"",
        "statement 1 (`Tiles`): `s3:PutObject` changes",
        "statement 1 (`Tiles`): `s3:GetObject` is on the bucket's ARN",
        "nothing allows `s3:GetObject` on tileset `world`",
        "nothing allows `s3:ListBucket` on bucket `bucket`",
    ]) {
        assert!(line.starts_with(name) && line.contains(words), "{line}");
    }
    assert!(lines[2].ends_with("write \"arn:aws:s3:::bucket/world/*\""));
    std::fs::write(&file, "{\n  \"Version\": \"2012-10-17\",\n}").unwrap();
    let output = run(CONFIG, &["--check", name], "");
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("tutorial.json: line 3, column 1"),
        "{errors}"
    );
    let absent = run(CONFIG, &["--check", "/no/such/policy.json"], "");
    assert_eq!(absent.status.code(), Some(2));
}
