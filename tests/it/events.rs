//! Changes in a bucket, told by S3 through SQS: from `MiniStack`'s own notifications to every cache.

use std::time::Duration;

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::types::{Event, NotificationConfiguration, QueueConfiguration};
use http::{Method, StatusCode};
use serde_json::json;
use tilekeep::app::Provided;
use tilekeep::aws::events::QueueUrl;
use tilekeep::aws::{AccessKeys, CredentialSource};
use tilekeep::cluster::Address;
use tilekeep::config::{ClusterConfig, Config, EventsConfig};
use tilekeep::tile::TileFormat;
use tokio::time::{Instant, sleep};

use crate::cluster::redis::Redis;
use crate::peers::MiniStack;
use crate::support::{self, Running, config, spec};

const PATIENCE: Duration = Duration::from_secs(30);
const BUCKET: &str = "tiles";

/// A bucket whose changes are told to a queue.
struct Place {
    stack: MiniStack,
    s3: aws_sdk_s3::Client,
    sqs: aws_sdk_sqs::Client,
    queue: String,
}

impl Place {
    async fn new() -> Self {
        let stack = MiniStack::start().await;
        let keys = Credentials::new("test", "test", None, None, "tests");
        let region = Region::new("us-east-1");
        let s3 = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region.clone())
            .endpoint_url(stack.endpoint())
            .force_path_style(true)
            .credentials_provider(keys.clone());
        let s3 = aws_sdk_s3::Client::from_conf(s3.build());
        let sqs = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region)
            .endpoint_url(stack.endpoint())
            .credentials_provider(keys);
        let sqs = aws_sdk_sqs::Client::from_conf(sqs.build());
        let made = sqs.create_queue().queue_name("changes").send().await;
        let queue = made.unwrap().queue_url.unwrap();
        s3.create_bucket().bucket(BUCKET).send().await.unwrap();
        let told = QueueConfiguration::builder()
            .queue_arn("arn:aws:sqs:us-east-1:000000000000:changes")
            .events(Event::from("s3:ObjectCreated:*"))
            .events(Event::from("s3:ObjectRemoved:*"))
            .build();
        let told = NotificationConfiguration::builder().queue_configurations(told.unwrap());
        let put = s3.put_bucket_notification_configuration().bucket(BUCKET);
        let put = put.notification_configuration(told.build());
        put.send().await.unwrap();
        Self {
            stack,
            s3,
            sqs,
            queue,
        }
    }

    async fn put(&self, key: &str, body: &'static str) {
        let put = self.s3.put_object().bucket(BUCKET).key(key);
        let body = body.as_bytes().to_vec().into();
        put.body(body).send().await.unwrap();
    }

    async fn remove(&self, key: &str) {
        let remove = self.s3.delete_object().bucket(BUCKET).key(key);
        remove.send().await.unwrap();
    }

    async fn say(&self, body: impl Into<String>) {
        let say = self.sqs.send_message().queue_url(&self.queue);
        say.message_body(body).send().await.unwrap();
    }

    /// Messages that nobody has removed.
    async fn left(&self) -> String {
        let ask = self.sqs.get_queue_attributes().queue_url(&self.queue);
        let all = aws_sdk_sqs::types::QueueAttributeName::All;
        let answer = ask.attribute_names(all).send().await.unwrap();
        let attributes = answer.attributes.unwrap();
        let of = |name: &str| {
            let found = attributes.iter().find(|(known, _)| known.as_str() == name);
            found.unwrap().1.clone()
        };
        let (seen, hidden) = (
            of("ApproximateNumberOfMessages"),
            of("ApproximateNumberOfMessagesNotVisible"),
        );
        format!("{seen}+{hidden}")
    }

    async fn node(&self, change: impl FnOnce(&mut Config)) -> Node {
        let mut config = config([spec("world", TileFormat::Png)]);
        config.tilesets[0].tileset = support::tileset(tilekeep::tile::TilesetSpec {
            bucket: BUCKET.into(),
            ..spec("world", TileFormat::Png)
        });
        config.aws.endpoint_url = Some(self.stack.endpoint());
        config.aws.region = Some("us-east-1".into());
        config.aws.path_style = true;
        config.events = Some(EventsConfig {
            queue: QueueUrl::parse(&self.queue).unwrap(),
            endpoint_url: Some(self.stack.endpoint()),
        });
        change(&mut config);
        let keys = AccessKeys {
            access_key_id: "test".into(),
            secret_access_key: "test".into(),
            session_token: None,
        };
        let provided = Provided {
            credentials: CredentialSource::Keys(keys),
            ..Provided::default()
        };
        Node(support::start_with(config, provided).await)
    }
}

struct Node(Running);

impl Node {
    /// What is answered, and whether that came from a cache.
    async fn tile(&self, tile: &str) -> (StatusCode, String, bool) {
        let answer = self.0.get(&format!("/world/{tile}.png")).await;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        let hit = answer.header("cache-status").contains("hit");
        (answer.status, body, hit)
    }

    async fn becomes(&self, tile: &str, wanted: Option<&str>) {
        let told = format!("{tile} becomes {wanted:?}");
        until(&told, async || {
            let (status, body, _) = self.tile(tile).await;
            match wanted {
                Some(wanted) => body == wanted,
                None => status == StatusCode::NOT_FOUND,
            }
        })
        .await;
    }

    async fn admin(&self, path: &str) -> String {
        let admin = self.0.addresses.admin;
        let answer = self.0.send_to(admin, Method::GET, path, &[], "").await;
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    async fn count(&self, row: &str) -> i64 {
        let metrics = self.admin("/metrics").await;
        let row = metrics.lines().find_map(|line| line.strip_prefix(row));
        row.map_or(-1, |value| value.trim().parse().unwrap())
    }

    async fn counts(&self, outcome: &str, wanted: i64) {
        let row = format!("tilekeep_events_total{{outcome=\"{outcome}\"}}");
        until(&row, async || self.count(&row).await >= wanted).await;
        assert_eq!(self.count(&row).await, wanted, "{outcome}");
    }

    async fn flow(&self) -> String {
        let ready: serde_json::Value = serde_json::from_str(&self.admin("/readyz").await).unwrap();
        assert_eq!(ready["ready"], true, "it serves all the same");
        ready["events"].as_str().unwrap().to_owned()
    }
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_change_in_the_bucket_leaves_memory_and_disk() {
    let place = Place::new().await;
    let folder = tempfile::tempdir().unwrap();
    place.put("world/1/0/0.png", "old").await;
    let node = place
        .node(|config| {
            config.cache.disk = 64 << 20;
            config.cache.disk_path = Some(folder.path().join("cache"));
        })
        .await;
    // What was said before it began, and S3's test of the notification, are in the queue.
    until("receiving", async || node.flow().await == "receiving").await;
    until("all read", async || place.left().await == "0+0").await;
    assert_eq!(node.tile("1/0/0").await.1, "old");
    assert_eq!(
        node.tile("1/0/0").await,
        (StatusCode::OK, "old".into(), true)
    );
    place.put("world/1/0/0.png", "new").await;
    node.becomes("1/0/0", Some("new")).await;
    assert!(
        node.count("tilekeep_purged_entries_total{tier=\"memory\"}")
            .await
            >= 1
    );
    assert!(
        node.count("tilekeep_purged_entries_total{tier=\"disk\"}")
            .await
            >= 1
    );
    assert!(node.count("tilekeep_events_lag_seconds").await >= 0);
    place.remove("world/1/0/0.png").await;
    node.becomes("1/0/0", None).await;
    assert!(node.tile("1/0/0").await.2, "known to be absent");
    place.put("world/1/0/0.png", "again").await;
    node.becomes("1/0/0", Some("again")).await;
    until("removed", async || place.left().await == "0+0").await;
    node.0.stop().await;
}

#[tokio::test]
async fn what_else_is_in_the_queue_does_no_harm_and_does_not_stay() {
    let place = Place::new().await;
    let node = place.node(|_| {}).await;
    until("all read", async || place.left().await == "0+0").await;
    let test = node.count("tilekeep_events_total{outcome=\"test\"}").await;
    place.put("world/README.txt", "no tile").await;
    node.counts("no_tile", 1).await;
    for rubbish in ["hello", "{}", r#"{"Records":[{"s3":{}}]}"#] {
        place.say(rubbish).await;
    }
    node.counts("malformed", 3).await;
    place
        .say(json!({"Service": "Amazon S3", "Event": "s3:TestEvent"}).to_string())
        .await;
    node.counts("test", test + 1).await;
    place.put("world/2/1/1.png", "old").await;
    node.counts("purged", 1).await;
    assert_eq!(node.tile("2/1/1").await.1, "old");
    // Twice, through SNS, and in the shape of EventBridge: each drops it once more.
    let record = json!({"Records": [{
        "eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "eventTime": "2026-11-22T10:00:00.000Z",
        "s3": {"bucket": {"name": BUCKET}, "object": {"key": "world%2F2/1/1.png"}},
    }]});
    let sns = json!({"Type": "Notification", "Message": record.to_string()});
    let bridge = json!({
        "source": "aws.s3", "detail-type": "Object Created", "time": "2026-11-22T10:00:00Z",
        "detail": {"bucket": {"name": BUCKET}, "object": {"key": "world/2/1/1.png"}},
    });
    for (n, event) in (2..).zip([&record, &record, &sns, &bridge]) {
        assert_eq!(node.tile("2/1/1").await.1, "old");
        assert!(node.tile("2/1/1").await.2);
        place.say(event.to_string()).await;
        node.counts("purged", n).await;
        assert!(!node.tile("2/1/1").await.2, "dropped: {event}");
    }
    let tags = json!({"Records": [{
        "eventName": "ObjectTagging:Put",
        "s3": {"bucket": {"name": BUCKET}, "object": {"key": "world/2/1/1.png"}},
    }]});
    place.say(tags.to_string()).await;
    node.counts("no_change", 1).await;
    assert!(node.tile("2/1/1").await.2);
    until("removed", async || place.left().await == "0+0").await;
    node.0.stop().await;
}

#[tokio::test]
async fn many_changes_at_once_are_a_few_purges() {
    let place = Place::new().await;
    let node = place.node(|_| {}).await;
    until("all read", async || place.left().await == "0+0").await;
    let records: Vec<_> = (0..2_000)
        .map(|n| json!({
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": BUCKET}, "object": {"key": format!("world/12/{n}/7.png")}},
        }))
        .collect();
    for some in records.chunks(20) {
        place.say(json!({"Records": some}).to_string()).await;
    }
    node.counts("purged", 2_000).await;
    until("removed", async || place.left().await == "0+0").await;
    node.0.stop().await;
}

#[tokio::test]
async fn a_queue_that_cannot_be_read_stops_nothing_and_is_told() {
    let place = Place::new().await;
    place.put("world/1/0/0.png", "old").await;
    let missing = place.queue.replace("changes", "nothing-here");
    let node = place
        .node(|config| {
            let events = config.events.as_mut().unwrap();
            events.queue = QueueUrl::parse(&missing).unwrap();
        })
        .await;
    until("failing", async || node.flow().await == "failing").await;
    assert_eq!(node.count("tilekeep_events_receiving").await, 0);
    assert!(
        node.admin("/readyz")
            .await
            .contains(r#""degraded":["events"]"#)
    );
    assert_eq!(node.tile("1/0/0").await.1, "old");
    // It comes to be, and is read.
    let made = place.sqs.create_queue().queue_name("nothing-here").send();
    made.await.unwrap();
    until("receiving", async || node.flow().await == "receiving").await;
    assert_eq!(node.count("tilekeep_events_receiving").await, 1);
    let key = json!({"Records": [{
        "eventName": "ObjectRemoved:Delete",
        "s3": {"bucket": {"name": BUCKET}, "object": {"key": "world/1/0/0.png"}},
    }]});
    let say = place.sqs.send_message().queue_url(&missing);
    say.message_body(key.to_string()).send().await.unwrap();
    node.counts("purged", 1).await;
    node.0.stop().await;
}

#[tokio::test]
async fn one_queue_does_for_all_nodes_that_share_a_redis() {
    let place = Place::new().await;
    let mut redis = Redis::start().await;
    place.put("world/1/0/0.png", "old").await;
    let meeting = |url: &str| ClusterConfig {
        redis: Address::parse(url).unwrap(),
        prefix: "test:".to_owned(),
        ca: None,
    };
    let join = |config: &mut Config| config.cluster = Some(meeting(&redis.url()));
    let (a, b) = (place.node(join).await, place.node(join).await);
    until("all read", async || place.left().await == "0+0").await;
    for node in [&a, &b] {
        node.becomes("1/0/0", Some("old")).await;
    }
    place.put("world/1/0/0.png", "new").await;
    a.becomes("1/0/0", Some("new")).await;
    b.becomes("1/0/0", Some("new")).await;
    until("removed", async || place.left().await == "0+0").await;
    // Without Redis one node drops it, and leaves the message for the others.
    redis.kill();
    let row = "tilekeep_cluster_connected";
    until("away", async || {
        a.count(row).await + b.count(row).await == 0
    })
    .await;
    place.put("world/1/0/0.png", "newer").await;
    let not_shared = "tilekeep_events_total{outcome=\"not_shared\"}";
    until("not shared", async || {
        a.count(not_shared).await + b.count(not_shared).await >= 1
    })
    .await;
    assert_ne!(place.left().await, "0+0");
    a.0.stop().await;
    b.0.stop().await;
}
