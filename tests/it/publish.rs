//! `tilekeep publish`: the program as it is typed, against S3 servers.

mod others;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use aws_sdk_s3::Client;
use tilekeep::app::Provided;
use tilekeep::aws::{AccessKeys, Aws, AwsSettings, CredentialSource};
use tilekeep::embedded_s3::{
    BucketSettings, BucketSource, EmbeddedS3, EmbeddedS3Settings, Fault, Operation, PutOptions,
};
use tilekeep::tile::TileFormat;

use crate::support;

pub(crate) const BUCKET: &str = "tiles";

/// A folder with a configuration in it, and the keys to publish with.
pub(crate) struct Desk {
    folder: tempfile::TempDir,
    keys: AccessKeys,
}

impl Desk {
    pub(crate) fn new(endpoint: &str, keys: &AccessKeys, tileset: &str, more: &str) -> Self {
        let desk = Self {
            folder: tempfile::tempdir().unwrap(),
            keys: keys.clone(),
        };
        let config = format!(
            "# kept\n[aws]\nendpoint_url = '{endpoint}'\npath_style = true\n\n[tilesets.world]\nbucket = '{BUCKET}'\n\
             access = 'public'\n{tileset}\n{more}\n"
        );
        std::fs::write(desk.config(), config).unwrap();
        desk
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("tilekeep.toml")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a tile of the folder `tiles`.
    pub(crate) fn tile(&self, name: &str, body: &[u8]) {
        let file = self.path("tiles").join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, body).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tilekeep"));
        command
            .current_dir(self.folder.path())
            .args(["publish", "--tileset", "world"])
            .args(arguments)
            .env("AWS_ACCESS_KEY_ID", &self.keys.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &self.keys.secret_access_key)
            .env_remove("AWS_SESSION_TOKEN")
            .env_remove("TILEKEEP_LOG")
            .env_remove("TILEKEEP_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to its end, without blocking the servers in this process.
    pub(crate) async fn publish(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        Ran(output.await.unwrap())
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }
}

/// How a run ended.
pub(crate) struct Ran(Output);

impl Ran {
    pub(crate) fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// That it was a success, and said this.
    pub(crate) fn says(&self, words: &str) {
        let (out, err) = (self.out(), self.err());
        assert_eq!(self.code(), Some(0), "{out}{err}");
        assert!(out.contains(words), "{words}: {out}{err}");
    }

    /// That it failed with this code, and said this.
    pub(crate) fn fails(&self, code: i32, words: &str) {
        let (out, err) = (self.out(), self.err());
        assert_eq!(self.code(), Some(code), "{out}{err}");
        assert!(err.contains(words), "{words}: {out}{err}");
    }
}

async fn endpoint() -> EmbeddedS3 {
    EmbeddedS3::start(EmbeddedS3Settings {
        buckets: vec![BucketSettings::private(BUCKET, BucketSource::Empty)],
        ..EmbeddedS3Settings::default()
    })
    .await
    .unwrap()
}

fn settings(s3: &EmbeddedS3) -> AwsSettings {
    AwsSettings {
        endpoint_url: Some(s3.endpoint_url()),
        path_style: true,
        ..AwsSettings::default()
    }
}

async fn client(s3: &EmbeddedS3) -> Client {
    let aws = Aws::load(settings(s3), CredentialSource::Keys(s3.keys().clone())).await;
    aws.unwrap().s3_client(None, &[]).unwrap()
}

pub(crate) async fn keys(client: &Client) -> Vec<String> {
    let listed = client
        .list_objects_v2()
        .bucket(BUCKET)
        .send()
        .await
        .unwrap();
    let contents = listed.contents.unwrap_or_default();
    contents.into_iter().filter_map(|o| o.key).collect()
}

const KEY: &str = "key = 'world/{z}/{x}/{y}.png'";

#[tokio::test]
async fn what_is_unchanged_stays_and_what_changed_goes() {
    let s3 = endpoint().await;
    let desk = Desk::new(&s3.endpoint_url(), s3.keys(), KEY, "");
    for (name, body) in [("0/0/0.png", "a"), ("1/0/0.png", "b"), ("1/1/1.png", "c")] {
        desk.tile(name, body.as_bytes());
    }
    let puts = || s3.requests(Operation::PutObject);
    desk.publish(&["tiles", "--dry-run"])
        .await
        .says("3 would be uploaded (3 B), 0 unchanged");
    assert_eq!(puts(), 0);
    desk.publish(&["tiles"])
        .await
        .says("world: 3 uploaded (3 B), 0 unchanged, 0 removed, 0 failed");
    assert_eq!(puts(), 3);
    desk.publish(&["tiles"])
        .await
        .says("0 uploaded (0 B), 3 unchanged");
    assert_eq!(puts(), 3);
    // The same size, other bytes: as well as another size.
    desk.tile("1/0/0.png", b"B");
    desk.tile("0/0/0.png", b"longer");
    desk.publish(&["tiles", "--json"])
        .await
        .says(r#""uploaded":2"#);
    assert_eq!(puts(), 5);
    let s3_client = client(&s3).await;
    let head = s3_client
        .head_object()
        .bucket(BUCKET)
        .key("world/1/0/0.png");
    assert_eq!(head.send().await.unwrap().content_type(), Some("image/png"));
    desk.publish(&["tiles", "--force"]).await.says("3 uploaded");
}

#[tokio::test]
async fn vector_tiles_say_how_they_are_compressed() {
    let s3 = endpoint().await;
    let key = "key = 'v/{quadkey}{r}.{ext}'\nformat = 'mvt'";
    let desk = Desk::new(&s3.endpoint_url(), s3.keys(), key, "");
    desk.tile("0/0/0.pbf", &[0x1f, 0x8b, 8, 0, 0]);
    desk.tile("1/1/0.pbf", &[0x1a, 0]);
    // Rows from the south: 1/1/0 is the south-eastern quarter.
    desk.publish(&["tiles", "--tms"]).await.says("2 uploaded");
    let client = client(&s3).await;
    assert_eq!(keys(&client).await, ["v/.mvt", "v/3.mvt"]);
    for (key, encoding) in [("v/.mvt", Some("gzip")), ("v/3.mvt", None)] {
        let head = client
            .head_object()
            .bucket(BUCKET)
            .key(key)
            .send()
            .await
            .unwrap();
        assert_eq!(head.content_encoding(), encoding, "{key}");
        let mvt = "application/vnd.mapbox-vector-tile";
        assert_eq!(head.content_type(), Some(mvt));
    }
}

#[tokio::test]
async fn pruning_removes_tiles_of_the_template_alone_and_never_most_of_them_unasked() {
    let s3 = endpoint().await;
    let key = "key = 'world/{version}/{z}/{x}/{-y}.png'\nversion = 'a'";
    let desk = Desk::new(&s3.endpoint_url(), s3.keys(), key, "");
    let put = |key: &str| s3.put(BUCKET, key, "old", PutOptions::default());
    let others = [
        "world/a/1/0/0.jpg",
        "world/a/1/7/0.png",
        "world/a/01/0/0.png",
        "world/a/metadata.json",
        "world/b/1/0/0.png",
        "other/a/1/0/0.png",
    ];
    for key in others
        .iter()
        .chain(&["world/a/1/0/0.png", "world/a/2/0/0.png"])
    {
        put(key);
    }
    desk.tile("0/0/0.png", b"new");
    desk.publish(&["tiles"]).await.says("1 uploaded");
    desk.tile("0/0/0.png", b"newer");
    let ran = desk.publish(&["tiles", "--prune"]).await;
    ran.fails(
        1,
        "2 of the 3 tiles there would go, more than half; if that is meant, add --yes",
    );
    assert_eq!(s3.requests(Operation::DeleteObject), 0);
    desk.publish(&["tiles", "--prune", "--dry-run"])
        .await
        .says("2 would be removed");
    assert_eq!(s3.requests(Operation::DeleteObject), 0);
    desk.publish(&["tiles", "--prune", "--yes"])
        .await
        .says("1 unchanged, 2 removed");
    let mut left: Vec<String> = others.map(str::to_owned).to_vec();
    left.push("world/a/0/0/0.png".into());
    left.sort();
    assert_eq!(keys(&client(&s3).await).await, left);
}

#[tokio::test]
async fn nothing_is_pruned_after_a_failure() {
    let s3 = endpoint().await;
    let desk = Desk::new(&s3.endpoint_url(), s3.keys(), KEY, "");
    for x in 0..2 {
        desk.tile(&format!("1/{x}/0.png"), b"tile");
        s3.put(
            BUCKET,
            &format!("world/3/{x}/0.png"),
            "old",
            PutOptions::default(),
        );
    }
    // One tile is refused for good, and what S3 says of it is no denial.
    let fault = Fault::s3_error(400, "InvalidRequest", "no such thing");
    s3.inject(Some(Operation::PutObject), 1, fault);
    let ran = desk
        .publish(&["tiles", "--prune", "--yes", "--concurrency", "1"])
        .await;
    ran.fails(1, "nothing was removed, since not all tiles were uploaded");
    assert!(
        ran.err().contains("PutObject s3://tiles/world/1/"),
        "{}",
        ran.err()
    );
    assert!(
        ran.err().contains("InvalidRequest: no such thing"),
        "{}",
        ran.err()
    );
    assert_eq!(s3.requests(Operation::DeleteObject), 0);
    desk.publish(&["tiles", "--prune", "--yes"])
        .await
        .says("1 uploaded (4 B), 1 unchanged, 2 removed");
}

#[tokio::test]
async fn a_server_that_slows_down_is_asked_again() {
    let s3 = endpoint().await;
    let desk = Desk::new(&s3.endpoint_url(), s3.keys(), KEY, "");
    for x in 0..4 {
        desk.tile(&format!("2/{x}/0.png"), b"tile");
    }
    s3.inject(
        Some(Operation::PutObject),
        3,
        Fault::s3_error(503, "SlowDown", "slow"),
    );
    s3.inject(
        Some(Operation::ListObjectsV2),
        1,
        Fault::s3_error(500, "InternalError", "x"),
    );
    desk.publish(&["tiles"]).await.says("4 uploaded");
}

#[tokio::test]
async fn who_may_only_read_is_told_which_right_is_missing() {
    let s3 = endpoint().await;
    let reader = r#"{"Version":"2012-10-17","Statement":[
        {"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::tiles/world/*"},
        {"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::tiles"}]}"#;
    let reader = s3.add_user("reader", reader).unwrap();
    let desk = Desk::new(&s3.endpoint_url(), &reader, KEY, "");
    for x in 0..200 {
        desk.tile(&format!("8/{x}/0.png"), b"tile");
    }
    let ran = desk.publish(&["tiles"]).await;
    ran.fails(
        1,
        "allow `s3:PutObject` there: `tilekeep iam-policy --publish` prints the policy",
    );
    assert!(s3.requests(Operation::PutObject) < 100, "it ends soon");
    assert!(!ran.err().contains(&reader.secret_access_key));
    // What is printed for it is enough, and no more.
    let printed = Command::new(env!("CARGO_BIN_EXE_tilekeep"))
        .args(["iam-policy", "--publish", "--config"])
        .arg(desk.config())
        .output()
        .unwrap();
    let printed: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    let publisher = s3
        .add_user("publisher", &printed["policy"].to_string())
        .unwrap();
    let desk = Desk {
        keys: publisher,
        ..desk
    };
    s3.put(BUCKET, "world/0/0/0.png", "old", PutOptions::default());
    desk.publish(&["tiles", "--prune", "--yes"])
        .await
        .says("200 uploaded (800 B), 0 unchanged, 1 removed");
}

#[tokio::test]
async fn a_run_that_was_killed_is_gone_on_with() {
    let s3 = endpoint().await;
    let desk = Desk::new(&s3.endpoint_url(), s3.keys(), KEY, "");
    for x in 0..300 {
        desk.tile(&format!("9/{x}/0.png"), format!("tile {x}").as_bytes());
    }
    s3.inject(
        Some(Operation::PutObject),
        usize::MAX,
        Fault::Delay(Duration::from_millis(5)),
    );
    let mut child = desk.spawn(&["tiles", "--concurrency", "4"]);
    while s3.requests(Operation::PutObject) < 40 {
        assert!(child.try_wait().unwrap().is_none(), "not so soon");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    s3.clear_faults();
    let there = keys(&client(&s3).await).await.len();
    assert!((30..300).contains(&there), "{there}");
    let ran = desk.publish(&["tiles"]).await;
    assert_eq!(ran.code(), Some(0), "{}", ran.err());
    // One that was under way may have arrived after it was counted.
    let more = (there..there + 5).any(|n| ran.out().contains(&format!(" {n} unchanged")));
    assert!(more, "{there}: {}", ran.out());
    assert_eq!(keys(&client(&s3).await).await.len(), 300);
}

#[tokio::test]
async fn running_servers_drop_what_changed() {
    let s3 = endpoint().await;
    let mut wanted = support::spec("world", TileFormat::Png);
    wanted.bucket = BUCKET.into();
    wanted.key = "world/{z}/{x}/{y}.png".into();
    let mut config = support::config([wanted]);
    config.aws.endpoint_url = Some(s3.endpoint_url());
    config.aws.path_style = true;
    let provided = Provided {
        credentials: CredentialSource::Keys(s3.keys().clone()),
        ..Provided::default()
    };
    let server = support::start_with(config, provided).await;
    let servers = format!(
        "[publish]\nadmin_urls = ['http://{}']",
        server.addresses.admin
    );
    let desk = Desk::new(&s3.endpoint_url(), s3.keys(), KEY, &servers);
    desk.tile("0/0/0.png", b"old");
    desk.tile("1/0/0.png", b"same");
    desk.publish(&["tiles"]).await.says("2 uploaded");
    let body = |path: &'static str| async { server.get(path).await.body };
    assert_eq!(body("/world/0/0/0.png").await, "old");
    assert_eq!(body("/world/1/0/0.png").await, "same");
    desk.tile("0/0/0.png", b"new");
    desk.publish(&["tiles"]).await.says("1 uploaded");
    assert_eq!(body("/world/0/0/0.png").await, "new");
    let gets = s3.requests(Operation::GetObject);
    body("/world/1/0/0.png").await;
    assert_eq!(s3.requests(Operation::GetObject), gets, "that one was kept");
    // A run that was cut off before it told the servers leaves a mark.
    let mark = desk.path(".tilekeep-publishing-world");
    assert!(!mark.exists());
    std::fs::write(&mark, "").unwrap();
    s3.put(BUCKET, "world/1/0/0.png", "else", PutOptions::default());
    desk.tile("1/0/0.png", b"else");
    desk.publish(&["tiles"]).await.says("0 uploaded");
    assert!(!mark.exists());
    // Marked stale: answered once more, and revalidated behind.
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while body("/world/1/0/0.png").await != "else" {
        assert!(tokio::time::Instant::now() < until, "it stays stale");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.stop().await;
    desk.tile("0/0/0.png", b"newest");
    desk.publish(&["tiles"])
        .await
        .fails(1, "is that the server's `admin_listen`?");
    assert!(mark.exists(), "the next run knows");
}

#[tokio::test]
async fn wrong_usage_is_told_before_anything_is_asked() {
    let s3 = endpoint().await;
    let desk = Desk::new(&s3.endpoint_url(), s3.keys(), KEY, "");
    desk.tile("0/0/0.jpg", b"jpg");
    for (arguments, words) in [
        (
            &["tiles"][..],
            "its tiles are jpg, and tileset `world` is png",
        ),
        (&["nowhere"], "nowhere"),
        (&["tiles", "--version", "b"], "has no {version}"),
        (&["--switch-to", "b"], "has no {version}"),
        (&[], "SRC"),
        (&["tiles", "--switch-to", "b"], "cannot be used with"),
        (&["tiles", "--yes"], "--prune"),
    ] {
        desk.publish(arguments).await.fails(2, words);
    }
    let mut other = desk.command(&["tiles"]);
    other.arg("--tileset=wrold");
    assert_eq!(other.output().unwrap().status.code(), Some(2));
    assert_eq!(s3.total_requests(), 0);
}

#[tokio::test]
async fn a_version_goes_beside_the_old_one_and_is_switched_to_at_the_end() {
    let s3 = endpoint().await;
    let (servers, heard) = others::admin_side().await;
    let key = "key = 'world/{version}/{z}/{x}/{y}.png'\nversion = '2026-10'   # the data's";
    let servers =
        format!("[publish]\nadmin_urls = ['{servers}']\nadmin_token = 'a token of sixteen'");
    let desk = Desk::new(&s3.endpoint_url(), s3.keys(), key, &servers);
    let version = || {
        let text = std::fs::read_to_string(desk.config()).unwrap();
        assert!(
            text.starts_with("# kept") && text.contains("   # the data's"),
            "{text}"
        );
        text.split_once("version = ").unwrap().1[1..8].to_owned()
    };
    desk.tile("0/0/0.png", b"october");
    desk.publish(&["tiles"])
        .await
        .says("world 2026-10: 1 uploaded");
    desk.tile("0/0/0.png", b"november");
    let args = ["tiles", "--version", "2026-11"];
    // One that fails is not switched to.
    let fault = Fault::s3_error(400, "InvalidRequest", "no");
    s3.inject(Some(Operation::PutObject), 1, fault);
    desk.publish(&args).await.fails(1, "not switched");
    assert_eq!(version(), "2026-10");
    desk.publish(&["tiles", "--version", "2026-11", "--no-switch"])
        .await
        .says("world 2026-11: 1 uploaded");
    assert_eq!(version(), "2026-10");
    desk.publish(&args)
        .await
        .says("1 unchanged, 0 removed, 0 failed, in 0s; version was 2026-10");
    assert_eq!(version(), "2026-11");
    let there = keys(&client(&s3).await).await;
    assert_eq!(
        there,
        ["world/2026-10/0/0/0.png", "world/2026-11/0/0/0.png"]
    );
    // And back.
    desk.publish(&["--switch-to", "2026-10"])
        .await
        .says("world: version 2026-10, was 2026-11");
    assert_eq!(version(), "2026-10");
    desk.publish(&["--switch-to", "2025"])
        .await
        .fails(1, "there is no tile of version `2025`");
    desk.publish(&["--switch-to", "a/b"])
        .await
        .fails(2, "--switch-to: version: letters");
    assert_eq!(version(), "2026-10");
    let heard = heard.lock().unwrap().clone();
    let switches: Vec<&String> = heard.iter().filter(|h| h.starts_with("/version")).collect();
    let switch = |v: &str| {
        format!("/version Bearer a token of sixteen {{\"tileset\":\"world\",\"version\":\"{v}\"}}")
    };
    assert_eq!(switches, [&switch("2026-11"), &switch("2026-10")]);
    let purges = heard.iter().filter(|h| h.starts_with("/purge"));
    let purges: Vec<bool> = purges.map(|h| h.contains("\"version\":\"2026-1")).collect();
    assert_eq!(
        purges,
        [true, true],
        "each of the version that it is about: {heard:?}"
    );
}

/// A path that a reader of the test sees once.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
