//! SeaweedFS: an S3 server with STS, which takes seconds to start.

use std::process::Command;
use std::time::Duration;

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use tilekeep::aws::AccessKeys;
use tokio::time::{Instant, sleep};

use super::{PATIENCE, Process, free_port, program};

const ID: &str = "TESTADMIN00000000000";
const SECRET: &str = "a secret of the administrator in tests";

/// What a role may be assumed by, and what it may do, as SeaweedFS reads it. Session policies narrow it.
const IAM: &str = r#"{
  "sts": {"tokenDuration": "1h", "maxSessionLength": "12h", "issuer": "seaweedfs-sts",
          "signingKey": "dGVzdC1zaWduaW5nLWtleS0zMi1jaGFyYWN0ZXJzLWxvbmc="},
  "policy": {"defaultEffect": "Deny", "storeType": "memory"},
  "roles": [{"roleName": "tiles", "roleArn": "arn:aws:iam::role/tiles", "attachedPolicies": ["all"],
    "trustPolicy": {"Version": "2012-10-17", "Statement":
      [{"Effect": "Allow", "Principal": "*", "Action": ["sts:AssumeRole"]}]}}],
  "policies": [{"name": "all", "document": {"Version": "2012-10-17", "Statement":
      [{"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}]}}]
}"#;

/// A running SeaweedFS with one administrator and the role [`Seaweed::ROLE`].
pub struct Seaweed {
    process: Option<Process>,
    folder: tempfile::TempDir,
    /// Of its master, volumes, filer and S3.
    ports: [u16; 4],
}

impl Seaweed {
    /// A role that anybody with keys may assume, and that may do anything with S3: session policies narrow it.
    pub const ROLE: &str = "arn:aws:iam::role/tiles";

    /// Starts one of the test's own, which it may also kill.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identities = serde_json::json!({"identities": [{
            "name": "admin",
            "credentials": [{"accessKey": ID, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        std::fs::write(folder.path().join("s3.json"), identities.to_string()).unwrap();
        std::fs::write(folder.path().join("iam.json"), IAM).unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let mut seaweed = Self {
            process: None,
            folder,
            ports: std::array::from_fn(|_| free_port()),
        };
        seaweed.run().await;
        seaweed
    }

    /// `kill -9`, at whatever it is doing.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it, also again after it was killed: where it was, with what it had.
    pub async fn run(&mut self) {
        let [master, volume, filer, port] = self.ports;
        let mut command = Command::new(program("weed"));
        command
            // For SSE-S3.
            .env("WEED_S3_SSE_KEY", "what objects' keys come from in tests")
            .args(["server", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
            .args(["-s3", "-s3.config=s3.json", "-s3.iam.config=iam.json"])
            .args(["-volume.max=200", "-master.volumeSizeLimitMB=64"])
            .arg("-master.telemetry=false")
            // On fixed ports, which a second one on the machine would die of.
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
            .arg(format!("-master.port={master}"))
            .arg(format!("-volume.port={volume}"))
            .arg(format!("-filer.port={filer}"))
            .arg(format!("-s3.port={port}"));
        self.process = Some(Process::start(&mut command, self.folder.path(), port).await);
        // It listens before it can store anything.
        let until = Instant::now() + PATIENCE;
        let s3 = self.s3();
        // Where it ran before, there is the bucket.
        while s3.create_bucket().bucket("ready").send().await.is_err()
            && s3.head_bucket().bucket("ready").send().await.is_err()
        {
            assert!(Instant::now() < until, "SeaweedFS takes no bucket");
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Where its S3 and its STS are.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[3])
    }

    /// The administrator's keys.
    #[expect(clippy::unused_self, reason = "a server's keys are asked of it")]
    pub fn keys(&self) -> AccessKeys {
        AccessKeys {
            access_key_id: ID.into(),
            secret_access_key: SECRET.into(),
            session_token: None,
        }
    }

    /// The administrator's client.
    pub fn s3(&self) -> aws_sdk_s3::Client {
        let settings = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(self.endpoint())
            .force_path_style(true)
            .credentials_provider(Credentials::new(ID, SECRET, None, None, "tests"));
        aws_sdk_s3::Client::from_conf(settings.build())
    }

    /// A new bucket with these objects.
    pub async fn bucket(&self, name: &str, objects: &[(&str, &[u8])]) {
        let s3 = self.s3();
        s3.create_bucket().bucket(name).send().await.unwrap();
        for &(key, body) in objects {
            let put = s3.put_object().bucket(name).key(key);
            put.body(body.to_vec().into()).send().await.unwrap();
        }
    }
}
