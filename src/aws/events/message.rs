//! What a message in the queue says: which objects were changed or removed.
//!
//! Understood are S3's own notifications, the same wrapped by SNS, S3's test of a new notification, and the events
//! of EventBridge. Whoever may write into the queue may write anything: what is nothing of these is malformed, and
//! its text goes nowhere.

use serde_json::Value;

use crate::clock::Timestamp;
use crate::tile::ChangedObject;

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// Events of objects; possibly none.
    Events(Vec<ObjectEvent>),
    /// S3 tries whether a new notification arrives.
    Test,
    /// Nothing of S3.
    Malformed,
}

/// Something happened to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObjectEvent {
    pub(super) object: ChangedObject,
    /// Whether it is another object now, or none.
    pub(super) changed: bool,
    /// When, where it says so.
    pub(super) at: Option<Timestamp>,
}

/// What happens to objects and leaves their bytes as they are. Whatever else there may come to be, is taken for a
/// change: one too many costs a fetch.
const HARMLESS: [&str; 10] = [
    "ObjectTagging",
    "ObjectAcl",
    "Replication",
    "LifecycleTransition",
    "IntelligentTiering",
    "Object Tags",
    "Object ACL",
    "Object Storage Class",
    "Object Access Tier",
    "Object Restore Initiated",
];

/// Reads a message's body.
pub(super) fn read(body: &str) -> Notice {
    let Ok(message) = serde_json::from_str::<Value>(body) else {
        return Notice::Malformed;
    };
    if text(&message, "Type") == Some("Notification")
        && let Some(inner) = text(&message, "Message")
    {
        // One envelope, not envelopes within envelopes.
        return serde_json::from_str(inner).map_or(Notice::Malformed, |inner| of_s3(&inner));
    }
    of_s3(&message)
}

fn of_s3(message: &Value) -> Notice {
    if text(message, "Event") == Some("s3:TestEvent") {
        return Notice::Test;
    }
    if text(message, "source") == Some("aws.s3") {
        let event = from_bridge(message).map(|event| Notice::Events(vec![event]));
        return event.unwrap_or(Notice::Malformed);
    }
    let Some(records) = message.get("Records").and_then(Value::as_array) else {
        return Notice::Malformed;
    };
    // What can be read counts, whatever comes with it.
    let events: Vec<_> = records.iter().filter_map(from_record).collect();
    if events.is_empty() && !records.is_empty() {
        return Notice::Malformed;
    }
    Notice::Events(events)
}

/// One of S3's own records. Its key is written as in a form: `+` for a space, `%XX` for bytes.
fn from_record(record: &Value) -> Option<ObjectEvent> {
    let s3 = record.get("s3")?;
    let key = decoded(text(s3.get("object")?, "key")?)?;
    Some(ObjectEvent {
        object: ChangedObject {
            bucket: text(s3.get("bucket")?, "name")?.to_owned(),
            key,
        },
        changed: changes(text(record, "eventName")?),
        at: text(record, "eventTime").and_then(time),
    })
}

/// An event of `EventBridge`. Its key is written as it is.
fn from_bridge(event: &Value) -> Option<ObjectEvent> {
    let detail = event.get("detail")?;
    Some(ObjectEvent {
        object: ChangedObject {
            bucket: text(detail.get("bucket")?, "name")?.to_owned(),
            key: text(detail.get("object")?, "key")?.to_owned(),
        },
        changed: changes(text(event, "detail-type")?),
        at: text(event, "time").and_then(time),
    })
}

fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name)?.as_str()
}

fn changes(name: &str) -> bool {
    let name = name.strip_prefix("s3:").unwrap_or(name);
    !HARMLESS.iter().any(|harmless| name.starts_with(harmless))
}

fn time(text: &str) -> Option<Timestamp> {
    let time = humantime::parse_rfc3339(text).ok()?;
    let since = time
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .ok()?;
    Some(Timestamp::from_millis(
        u64::try_from(since.as_millis()).ok()?,
    ))
}

/// `application/x-www-form-urlencoded`, one value of it; `None` where it is none.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    let hex = |byte: Option<u8>| {
        char::from(byte?)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => hex(bytes.next())? << 4 | hex(bytes.next())?,
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(bucket: &str, key: &str, changed: bool, at: u64) -> Notice {
        Notice::Events(vec![ObjectEvent {
            object: ChangedObject {
                bucket: bucket.into(),
                key: key.into(),
            },
            changed,
            at: (at > 0).then(|| Timestamp::from_secs(at)),
        }])
    }

    /// As in "Event message structure", Amazon S3 User Guide.
    fn record(name: &str, key: &str) -> Value {
        json!({ "Records": [{
            "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-west-2",
            "eventTime": "1970-01-01T00:00:10.000Z", "eventName": name,
            "s3": { "s3SchemaVersion": "1.0", "bucket": { "name": "acme" }, "object": { "key": key } },
        }]})
    }

    #[test]
    fn s3_says_what_was_changed_also_through_sns_and_eventbridge() {
        let put = record("ObjectCreated:Put", "w/1/0/0.png");
        let wanted = event("acme", "w/1/0/0.png", true, 10);
        assert_eq!(read(&put.to_string()), wanted);
        let wrapped = json!({ "Type": "Notification", "Message": put.to_string() });
        assert_eq!(read(&wrapped.to_string()), wanted);
        let bridge = json!({
            "version": "0", "source": "aws.s3", "detail-type": "Object Deleted",
            "time": "1970-01-01T00:00:10Z",
            "detail": { "bucket": { "name": "acme" }, "object": { "key": "a+b%20/1.png" } },
        });
        let wanted = event("acme", "a+b%20/1.png", true, 10);
        assert_eq!(read(&bridge.to_string()), wanted, "its key is not encoded");
        let test = json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "acme" });
        assert_eq!(read(&test.to_string()), Notice::Test);
        let wrapped = json!({ "Type": "Notification", "Message": test.to_string() });
        assert_eq!(read(&wrapped.to_string()), Notice::Test);
    }

    #[test]
    fn keys_are_read_as_a_form_writes_them() {
        for (written, key) in [
            ("a+b/1.png", "a b/1.png"),
            ("a%2Bb", "a+b"),
            ("%C3%A9t%c3%a9/@2x", "été/@2x"),
        ] {
            let put = record("s3:ObjectCreated:Put", written).to_string();
            assert_eq!(read(&put), event("acme", key, true, 10));
        }
        for bad in ["%", "%2", "%zz", "%ff"] {
            let put = record("ObjectCreated:Put", bad).to_string();
            assert_eq!(read(&put), Notice::Malformed, "{bad}");
        }
    }

    #[test]
    fn tags_and_rights_change_no_tile() {
        for (name, changed) in [
            ("ObjectRemoved:DeleteMarkerCreated", true),
            ("LifecycleExpiration:Delete", true),
            ("ObjectRestore:Completed", true),
            ("Whatever:Comes", true),
            ("ObjectTagging:Put", false),
            ("s3:ObjectAcl:Put", false),
            ("LifecycleTransition", false),
        ] {
            assert_eq!(changes(name), changed, "{name}");
        }
        assert!(changes("Object Created") && !changes("Object Tags Added"));
    }

    #[test]
    fn anything_else_is_malformed() {
        for body in [
            "",
            "hello",
            "null",
            "[]",
            "{}",
            r#"{"Records":[{}]}"#,
            r#"{"Records":7}"#,
            r#"{"Type":"Notification","Message":"hello"}"#,
            r#"{"source":"aws.s3","detail":{}}"#,
            r#"{"source":"aws.ec2","detail":{}}"#,
        ] {
            assert_eq!(read(body), Notice::Malformed, "{body}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(read(&deep), Notice::Malformed);
        assert_eq!(read(r#"{"Records":[]}"#), Notice::Events(Vec::new()));
    }
}
